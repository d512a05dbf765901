//! The outbox: sends what is due, one after the other, and stores what became of it. Only the scheduler that leads sends;
//! what it could not store as sent goes out again, under the same name.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use cardshop_protocol::ids::ObjectId;
use cardshop_protocol::time::Timestamp;

use super::calls::{call, taken};
use super::letter::Unwritten;
use super::{NO_SERVER, Post};
use crate::core::documents::Story;
use crate::core::notify::Notice;
use crate::core::notify::message::{Fault, Message, MessageState, To};
use crate::core::notify::who::Person;
use crate::core::order::Order;
use crate::store::{Batch, Select};
use crate::{Scheduler, SchedulerError};

/// Letters or calls of one pass; the next comes after a look at what else is due.
const MOST_AT_ONCE: usize = 100;
/// Messages read at once.
const CHUNK: usize = 200;
/// States of what may be due.
const OPEN: [MessageState; 2] = [MessageState::Waiting, MessageState::Retrying];

/// What is sent together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Road {
    Mail,
    Web,
}

/// How one went.
enum Went {
    On,
    /// This one was not taken.
    Wrong,
    /// Nothing is taken there now.
    Away,
}

/// What became of a try.
type Tried = Result<(String, Option<String>), Fault>;

impl Post {
    fn is_away(&self, now: Timestamp) -> bool {
        !self.away.lock().expect("no holder panics").is_over(now)
    }
}

impl Scheduler {
    /// Sends the letters that are due. Without a mail server they are held, and say so.
    pub(crate) async fn send_mail(&self) -> Result<(), SchedulerError> {
        if self.inner.post.mailer.is_none() {
            return self.settle_held(MessageState::Waiting, |message, _| message.hold(NO_SERVER)).await;
        }
        if !self.inner.post.released.load(Ordering::Acquire) {
            self.settle_held(MessageState::Held, Message::release).await?;
            self.inner.post.released.store(true, Ordering::Release);
        }
        if self.inner.post.is_away(self.now()) {
            return Ok(());
        }
        self.send_due(Road::Mail).await
    }

    /// Calls the webhooks and topics that are due.
    pub(crate) async fn call_webhooks(&self) -> Result<(), SchedulerError> {
        self.send_due(Road::Web).await
    }

    /// Changes all letters of a state.
    async fn settle_held(
        &self,
        state: MessageState,
        change: impl Fn(&mut Message, Timestamp),
    ) -> Result<(), SchedulerError> {
        for message in self.all::<Message>(Some(("state", state.name())))? {
            if road(&message) == Road::Mail {
                self.change_message(message.id, |message, _| {
                    if message.state == state {
                        change(message, self.now());
                    }
                })
                .await?;
            }
        }
        Ok(())
    }

    async fn send_due(&self, road: Road) -> Result<(), SchedulerError> {
        let mut sent = 0;
        // One that does not answer costs one try a pass, so that the others have their turn.
        let mut silent = BTreeSet::new();
        for state in OPEN {
            let mut after: Option<String> = None;
            loop {
                let index = Some(("state", state.name()));
                let select = Select { index, after: after.as_deref(), limit: CHUNK, newest_first: false };
                let found = self.inner.store.list::<Message>(select)?;
                let Some(last) = found.last() else { break };
                after = Some(last.value.id.to_string());
                let now = self.now();
                for message in found.into_iter().map(|m| m.value) {
                    let webhook = webhook(&message);
                    if self::road(&message) != road || !message.is_due(now) || silent.contains(&webhook) {
                        continue;
                    }
                    if sent >= MOST_AT_ONCE || !self.leads() {
                        return Ok(());
                    }
                    sent += 1;
                    match self.send_one(message).await? {
                        Went::On => {}
                        Went::Wrong if road == Road::Web => {
                            silent.insert(webhook);
                        }
                        Went::Wrong => {}
                        Went::Away => return Ok(()),
                    }
                }
            }
        }
        Ok(())
    }

    /// Tries one.
    async fn send_one(&self, message: Message) -> Result<Went, SchedulerError> {
        let tried = match self.still_means_something(&message)? {
            false => Err(Fault::Pointless("the order was canceled before this was sent".into())),
            true => self.try_message(&message).await?,
        };
        let is_away = matches!(tried, Err(Fault::Away(_)));
        let id = message.id;
        let stored = self.change_message(id, |message, batch| {
            let now = self.now();
            match &tried {
                Ok((answer, subject)) => {
                    message.taken(now, answer);
                    message.subject.clone_from(subject);
                }
                // It may have been dropped while it was tried.
                Err(_) if !message.state.is_open() => {}
                Err(fault) => message.not_taken(now, fault),
            }
            if message.state == MessageState::Failed {
                self.tell_failure(message, batch);
            }
        });
        let failed = stored.await?.is_some_and(|message| message.state == MessageState::Failed);
        let metrics = &self.inner.metrics;
        match &tried {
            Ok(_) => metrics.messages_sent.add(),
            Err(Fault::Pointless(_)) => {}
            Err(_) => {
                metrics.messages_refused.add();
                // Why is in the list of messages: an answer may hold what is no business of a log.
                tracing::warn!(message = %id, event = message.notice.name(), failed, "a message is not taken");
            }
        }
        if failed {
            metrics.messages_failed.add();
        }
        let mut away = self.inner.post.away.lock().expect("no holder panics");
        match (is_away, road(&message)) {
            (true, Road::Mail) => away.begin(self.now()),
            (false, Road::Mail) => *away = super::Away::default(),
            (_, Road::Web) => {}
        }
        Ok(match tried {
            Ok(_) | Err(Fault::Pointless(_)) => Went::On,
            Err(Fault::Away(_)) => Went::Away,
            Err(_) => Went::Wrong,
        })
    }

    /// Of an order that is canceled or gone, only that it is canceled is told.
    pub(super) fn still_means_something(&self, message: &Message) -> Result<bool, SchedulerError> {
        let Some(order) = message.order.filter(|_| message.notice != Notice::OrderCanceled) else {
            return Ok(true);
        };
        let order = self.inner.store.get::<Order>(&order.to_string())?;
        Ok(order.is_some_and(|order| order.value.canceled.is_none()))
    }

    async fn try_message(&self, message: &Message) -> Result<Tried, SchedulerError> {
        if message.is_too_old(self.now()) {
            return Ok(Err(Fault::Never("it could not be sent for three days".into())));
        }
        let made = match &message.to {
            To::Mail { person, copy_of } => {
                return self.try_letter(message, person, copy_of.as_ref()).await;
            }
            To::Webhook { webhook } => self.webhook_call(message, *webhook),
            To::Ntfy => {
                let settings = &self.inner.config.notify;
                let url = settings.ntfy.as_deref().unwrap_or_default();
                self.topic_call(message, url, settings.ntfy_token.as_deref(), "en", true)
            }
        };
        match made {
            Ok(made) => {
                let answer = call(made, self.inner.config.roots.clone()).await;
                Ok(answer.and_then(taken).map(|answer| (answer, None)))
            }
            Err(Unwritten::Fault(fault)) => Ok(Err(fault)),
            Err(Unwritten::Store(error)) => Err(error),
        }
    }

    async fn try_letter(
        &self,
        message: &Message,
        person: &Person,
        copy_of: Option<&Person>,
    ) -> Result<Tried, SchedulerError> {
        let Some(mailer) = &self.inner.post.mailer else {
            return Ok(Err(Fault::Later(NO_SERVER.into())));
        };
        let letter = match self.write_letter(message, person, copy_of) {
            Ok(letter) => letter,
            Err(Unwritten::Fault(fault)) => return Ok(Err(fault)),
            Err(Unwritten::Store(error)) => return Err(error),
        };
        let subject = letter.subject.clone();
        Ok(mailer.send(letter).await.map(|answer| (answer, Some(subject))))
    }

    /// It is not tried any more: a line for people.
    fn tell_failure(&self, message: &Message, batch: &mut Batch) {
        let why = message.reason.as_deref().unwrap_or_default();
        let what = message.notice.name().replace('_', " ");
        batch.create(&Story {
            id: self.next_id(),
            at: self.now(),
            kind: "message_failed".into(),
            text: format!("A message ({what}) could not be sent and is not tried any more: {why}."),
            order: message.order,
            appliance: message.appliance,
            channel: message.channel.clone(),
        });
    }

    pub(super) async fn change_message(
        &self,
        id: ObjectId,
        change: impl Fn(&mut Message, &mut Batch),
    ) -> Result<Option<Message>, SchedulerError> {
        let decide = || {
            let Some(stored) = self.inner.store.get::<Message>(&id.to_string())? else {
                return Ok((None, None));
            };
            let (mut message, mut batch) = (stored.value.clone(), Batch::new());
            change(&mut message, &mut batch);
            if message == stored.value {
                return Ok((None, Some(message)));
            }
            batch.update(&stored, &message);
            Ok((Some(batch), Some(message)))
        };
        Ok(self.change(decide).await?.0)
    }
}

/// Who is called; `None` for the site's own topic, and for mail.
fn webhook(message: &Message) -> Option<ObjectId> {
    match message.to {
        To::Webhook { webhook } => Some(webhook),
        To::Mail { .. } | To::Ntfy => None,
    }
}

fn road(message: &Message) -> Road {
    if matches!(message.to, To::Mail { .. }) { Road::Mail } else { Road::Web }
}
