//! What people see of the outbox, and send once more.

use cardshop_protocol::api::Page;
use cardshop_protocol::ids::{ObjectId, OrderId};
use cardshop_protocol::token::Role;

use super::super::paging::PageRequest;
use crate::core::fields::InvalidField;
use crate::core::notify::MessageView;
use crate::core::notify::message::{Message, MessageState};
use crate::core::rights::{Action, Principal};
use crate::{Scheduler, SchedulerError};

impl Scheduler {
    fn sees_message(&self, caller: &Principal, message: &Message) -> bool {
        // What is about accounts and appliances is for staff.
        let own = message.order.is_some() && message.channel.as_ref().is_some_and(|c| caller.sees(c));
        caller.role == Role::Staff || own
    }

    /// Messages, newest first: all for staff, those of their orders for managers.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid` for a wrong cursor or state.
    pub fn messages(
        &self,
        caller: &Principal,
        order: Option<OrderId>,
        state: Option<&str>,
        page: &PageRequest,
    ) -> Result<Page<MessageView>, SchedulerError> {
        caller.must(Action::Order)?;
        let known = |text: &str| MessageState::ALL.into_iter().find(|state| state.name() == text);
        let state = match state {
            Some(text) => {
                Some(known(text).ok_or_else(|| InvalidField::new("state", "is no state of messages"))?)
            }
            None => None,
        };
        let order = order.map(|order| order.to_string());
        let index = order.as_deref().map(|order| ("order", order));
        self.page::<Message, _>(page, index, true, |message| {
            let message = message.value;
            let fits =
                self.sees_message(caller, &message) && state.is_none_or(|state| state == message.state);
            fits.then(|| MessageView::from(message))
        })
    }

    /// Sends a message once more, in the next pass.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Refused` when its order is canceled.
    pub async fn send_again(&self, caller: &Principal, id: ObjectId) -> Result<MessageView, SchedulerError> {
        caller.must(Action::Order)?;
        self.queue_again(caller, id, |message| self.sees_message(caller, message)).await
    }

    /// Sends a message that `may` be the caller's once more.
    pub(super) async fn queue_again(
        &self,
        caller: &Principal,
        id: ObjectId,
        may: impl Fn(&Message) -> bool,
    ) -> Result<MessageView, SchedulerError> {
        let decide = || {
            let stored = self.inner.store.get::<Message>(&id.to_string())?;
            let stored = stored.filter(|stored| may(&stored.value));
            let stored = stored.ok_or(SchedulerError::NotFound("message"))?;
            let canceled = !self.still_means_something(&stored.value)?;
            let mut message = stored.value.clone();
            message.again(self.now(), canceled)?;
            let mut batch = self.audited(caller, "message.send", &id.to_string());
            batch.update(&stored, &message);
            Ok((Some(batch), message))
        };
        Ok(self.change(decide).await?.0.into())
    }
}
