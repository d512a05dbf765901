//! Makes the messages of what is due, for everybody it concerns, in the batch that changes what they tell of.

use cardshop_protocol::ids::{Channel, ObjectId};
use cardshop_protocol::token::Role;
use serde_json::Value;

use crate::core::documents::{Appliance, User};
use crate::core::notify::Notice;
use crate::core::notify::due::Due;
use crate::core::notify::message::{Message, Part, To};
use crate::core::notify::preferences::Preferences;
use crate::core::notify::web::Webhook;
use crate::core::notify::who::{Member, People, Person, addressees};
use crate::core::order::Order;
use crate::core::units::Organization;
use crate::store::{Batch, Select};
use crate::{Scheduler, SchedulerError};

/// Messages of one order that a cancel looks through: more than an order of 1000 cards makes for one person.
const MAX_OF_ORDER: usize = 5000;

impl Scheduler {
    /// Adds to `batch` the messages of what is due of an order, which is among the batch's changes itself.
    pub(crate) fn add_messages(
        &self,
        order: &Order,
        due: Vec<Due>,
        batch: &mut Batch,
    ) -> Result<(), SchedulerError> {
        for due in due {
            if due.notice == Notice::OrderCanceled {
                self.drop_messages(order, batch)?;
            }
            let people = self.people_of(order, due.notice)?;
            let of = |message: &mut Message| {
                message.order = Some(order.id);
                message.channel = Some(order.channel.clone());
            };
            let channels = std::slice::from_ref(&order.channel);
            self.add_for(due.notice, &due.values, addressees(due.notice, &people), channels, of, batch)?;
        }
        Ok(())
    }

    /// Adds the messages of an appliance's troubles.
    pub(super) fn add_troubles(
        &self,
        appliance: &Appliance,
        values: &Value,
        batch: &mut Batch,
    ) -> Result<(), SchedulerError> {
        let notice = Notice::ApplianceTrouble;
        let people = People { operators: self.operators(&appliance.channels)?, ..People::default() };
        let of = |message: &mut Message| {
            message.appliance = Some(appliance.id);
            message.channel = appliance.channels.first().cloned();
        };
        self.add_for(notice, values, addressees(notice, &people), &appliance.channels, of, batch)
    }

    /// Adds the letters to these persons, the support's blind copy of the first, and what webhooks and ntfy get.
    pub(super) fn add_for(
        &self,
        notice: Notice,
        values: &Value,
        persons: Vec<Person>,
        channels: &[Channel],
        of: impl Fn(&mut Message),
        batch: &mut Batch,
    ) -> Result<(), SchedulerError> {
        let mut add = |to: To, letter: Option<ObjectId>| {
            let mut message = Message::new(self.next_id(), notice, to, values.clone(), self.now());
            message.letter = letter.unwrap_or(message.id);
            of(&mut message);
            batch.create(&message);
            message.letter
        };
        let mut first = None;
        let support = self.inner.config.notify.support.as_ref();
        let mut support = support.filter(|s| persons.iter().all(|p| !p.address.eq_ignore_ascii_case(s)));
        for person in persons {
            let copy = support.take().map(|address| {
                let (address, part) = (address.clone(), Part::Support);
                let copy = Person { address, part, name: String::new(), ..person.clone() };
                To::Mail { person: copy, copy_of: Some(person.clone()) }
            });
            let letter = add(To::Mail { person, copy_of: None }, None);
            first = copy.map(|copy| (copy, letter)).or(first);
        }
        if let Some((to, letter)) = first {
            add(to, Some(letter));
        }
        if !notice.is_public() {
            return Ok(());
        }
        for hook in self.all::<Webhook>(None)?.into_iter().filter(|hook| hook.hears(notice, channels)) {
            add(To::Webhook { webhook: hook.id }, None);
        }
        if self.inner.config.notify.ntfy.is_some() && notice.is_urgent() {
            add(To::Ntfy, None);
        }
        Ok(())
    }

    /// What still waits of an order that was canceled comes to nothing.
    fn drop_messages(&self, order: &Order, batch: &mut Batch) -> Result<(), SchedulerError> {
        let id = order.id.to_string();
        let select = Select { index: Some(("order", &id)), limit: MAX_OF_ORDER, ..Select::default() };
        for stored in self.inner.store.list::<Message>(select)? {
            if stored.value.state.is_open() {
                let mut message = stored.value.clone();
                message.drop("the order was canceled before this was sent");
                batch.update(&stored, &message);
            }
        }
        Ok(())
    }

    fn people_of(&self, order: &Order, notice: Notice) -> Result<People, SchedulerError> {
        use crate::core::notify::event::Audience;
        if notice.audience() == Audience::Operators {
            let operators = match notice.is_on() {
                true => self.operators(std::slice::from_ref(&order.channel))?,
                // Few want these, and they come with every card.
                false => self.who_want(notice, &order.channel)?,
            };
            return Ok(People { operators, ..People::default() });
        }
        let user = self.user_by_name(&order.created_by)?.map(|user| user.value);
        let client = user.map(|user| self.member(&user, Part::Client)).transpose()?.flatten();
        let recipient = order.recipient_says("email").map(|email| Person {
            address: email.to_owned(),
            name: order.recipient_says("name").unwrap_or_default().to_owned(),
            part: Part::Recipient,
            language: order
                .recipient_says("language")
                .map(str::to_owned)
                .or_else(|| client.as_ref().and_then(|client| client.person.language.clone())),
            zone: order.recipient_says("time_zone").map(str::to_owned),
        });
        let failed_orders = self.inner.config.notify.failed_orders.clone().map(|address| Person {
            address,
            name: String::new(),
            part: Part::FailedOrders,
            language: None,
            zone: None,
        });
        Ok(People { recipient, client, operators: Vec::new(), failed_orders })
    }

    /// Operators of any of these channels.
    fn operators(&self, channels: &[Channel]) -> Result<Vec<Member>, SchedulerError> {
        let mut users = self.all::<User>(None)?;
        users.retain(|user| is_operator_of(user, channels));
        users.iter().filter_map(|user| self.member(user, Part::Operator).transpose()).collect()
    }

    /// Operators of the channel who want what is usually off.
    fn who_want(&self, notice: Notice, channel: &Channel) -> Result<Vec<Member>, SchedulerError> {
        let mut members = Vec::new();
        for wants in self.all::<Preferences>(Some(("extra", notice.name())))? {
            let Some(id) = wants.user else { continue };
            let user = self.inner.store.get::<User>(&id.to_string())?.map(|user| user.value);
            if let Some(user) = user.filter(|user| is_operator_of(user, std::slice::from_ref(channel))) {
                members.extend(self.member(&user, Part::Operator)?);
            }
        }
        Ok(members)
    }

    /// A user as one who gets mail; `None` without an address, or when it may not log in.
    pub(super) fn member(&self, user: &User, part: Part) -> Result<Option<Member>, SchedulerError> {
        let Some(address) = user.email.clone().filter(|_| user.is_active(self.now())) else {
            return Ok(None);
        };
        let wants = self.inner.store.get::<Preferences>(&user.id.to_string())?;
        let wants = wants.map(|wants| wants.value).unwrap_or_default();
        let organization = match (&wants.language, user.organization) {
            (None, Some(id)) => {
                self.inner.store.get::<Organization>(&id.to_string())?.map(|o| o.value.language)
            }
            _ => None,
        };
        let person = Person {
            address,
            name: user.username.clone(),
            part,
            language: wants.language.clone().or(organization),
            zone: wants.time_zone.clone(),
        };
        Ok(Some(Member { person, wants }))
    }
}

fn is_operator_of(user: &User, channels: &[Channel]) -> bool {
    user.role == Role::Operator && user.channels.iter().any(|channel| channels.contains(channel))
}
