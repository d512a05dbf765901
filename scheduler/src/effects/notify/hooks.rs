//! Webhooks: made, listed, tried out and ended by staff and integrators; what each was told.

use cardshop_protocol::api::Page;
use cardshop_protocol::ids::{Channel, ObjectId};
use cardshop_protocol::token::Role;
use serde_json::{Value, json};

use super::super::catalogue::{channel_list, not_an_object};
use super::super::paging::PageRequest;
use super::calls::{MAX_URL, check_url, topic};
use crate::core::fields::{Fields, InvalidField};
use crate::core::notify::message::{Message, To};
use crate::core::notify::template::language;
use crate::core::notify::web::{HookKind, Webhook, secret_text};
use crate::core::notify::{MessageView, NewWebhook, Notice, WebhookView};
use crate::core::rights::{Action, Principal};
use crate::{Scheduler, SchedulerError};

/// Webhooks of a site: each is looked at whenever something happens.
const MAX_WEBHOOKS: usize = 200;

impl Scheduler {
    /// Makes a webhook from `{url, events, kind?, channels?, language?}`; its secret is in this answer only. An integrator's is
    /// for its own channels.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid` naming the field, `Conflict` when there are too many.
    pub async fn create_webhook(
        &self,
        caller: &Principal,
        body: Value,
    ) -> Result<NewWebhook, SchedulerError> {
        caller.must(Action::Listen)?;
        let mut fields = Fields::new(body).ok_or_else(not_an_object)?;
        let url = fields.text("url", MAX_URL)?.ok_or_else(|| InvalidField::new("url", "is missing"))?;
        check_url(&url).map_err(|reason| InvalidField::new("url", reason))?;
        let kind = fields.optional("kind")?.unwrap_or_default();
        if kind == HookKind::Ntfy && topic(&url).is_none() {
            return Err(InvalidField::new("url", "must be https://SERVER/TOPIC").into());
        }
        let tongue = fields.text("language", 20)?.unwrap_or_else(|| "en".into());
        let tongue =
            language(&tongue).ok_or_else(|| InvalidField::new("language", "is no language of letters"))?;
        let hook = Webhook {
            id: self.next_id(),
            kind,
            url,
            events: read_events(&mut fields)?,
            channels: self.read_hook_channels(caller, &mut fields)?,
            language: tongue.to_owned(),
            created_by: caller.sub.clone(),
            created: self.now(),
            active: true,
        };
        if self.all::<Webhook>(None)?.len() >= MAX_WEBHOOKS {
            let text = format!("there are {MAX_WEBHOOKS} webhooks: delete those that nobody needs");
            return Err(SchedulerError::Conflict { code: "too_many_webhooks", text });
        }
        let mut batch = self.audited(caller, "webhook.create", &hook.id.to_string());
        batch.create(&hook);
        self.inner.store.apply(batch).await?;
        let secret = secret_text(&self.webhook_secret(hook.id));
        Ok(NewWebhook { webhook: hook.into(), secret })
    }

    fn read_hook_channels(
        &self,
        caller: &Principal,
        fields: &mut Fields,
    ) -> Result<Vec<Channel>, SchedulerError> {
        let wanted = channel_list(fields, "channels")?.unwrap_or_else(|| caller.channels.clone());
        for channel in &wanted {
            let known = self.channel_by_slug(channel)?.is_some() && caller.sees(channel);
            known
                .then_some(())
                .ok_or_else(|| InvalidField::new("channels", format!("{channel} is not one of yours")))?;
        }
        if wanted.is_empty() && caller.role != Role::Staff {
            return Err(InvalidField::new("channels", "name at least one of yours").into());
        }
        Ok(wanted)
    }

    pub(super) fn webhook_secret(&self, id: ObjectId) -> [u8; 32] {
        let text = format!("cardshop webhook 1\n{id}");
        *blake3::keyed_hash(&self.inner.keys.hooks, text.as_bytes()).as_bytes()
    }

    /// The caller's webhook: one whose channels all are its own.
    fn webhook_of(&self, caller: &Principal, id: ObjectId) -> Result<Webhook, SchedulerError> {
        let found = self.inner.store.get::<Webhook>(&id.to_string())?.map(|hook| hook.value);
        found.filter(|hook| sees(caller, hook)).ok_or(SchedulerError::NotFound("webhook"))
    }

    /// Webhooks of the caller's channels.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid` for a wrong cursor.
    pub fn webhooks(
        &self,
        caller: &Principal,
        page: &PageRequest,
    ) -> Result<Page<WebhookView>, SchedulerError> {
        caller.must(Action::Listen)?;
        self.page::<Webhook, _>(page, None, false, |hook| {
            sees(caller, &hook.value).then(|| WebhookView::from(hook.value))
        })
    }

    /// Ends a webhook for good; what waits for it comes to nothing.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`.
    pub async fn delete_webhook(
        &self,
        caller: &Principal,
        id: ObjectId,
    ) -> Result<WebhookView, SchedulerError> {
        caller.must(Action::Listen)?;
        let hook = self.webhook_of(caller, id)?;
        let mut batch = self.audited(caller, "webhook.delete", &id.to_string());
        batch.remove::<Webhook>(&id.to_string());
        self.inner.store.apply(batch).await?;
        Ok(WebhookView { active: false, ..hook.into() })
    }

    /// Sends a webhook a test, in the next pass.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`.
    pub async fn test_webhook(
        &self,
        caller: &Principal,
        id: ObjectId,
    ) -> Result<MessageView, SchedulerError> {
        caller.must(Action::Listen)?;
        let hook = self.webhook_of(caller, id)?;
        let now = self.now();
        let to = To::Webhook { webhook: hook.id };
        let message = Message::new(self.next_id(), Notice::Test, to, json!({"when": now}), now);
        let mut batch = self.audited(caller, "webhook.test", &id.to_string());
        batch.create(&message);
        self.inner.store.apply(batch).await?;
        Ok(message.into())
    }

    /// What a webhook was told, the newest first.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Invalid` for a wrong cursor.
    pub fn deliveries(
        &self,
        caller: &Principal,
        id: ObjectId,
        page: &PageRequest,
    ) -> Result<Page<MessageView>, SchedulerError> {
        caller.must(Action::Listen)?;
        let hook = self.webhook_of(caller, id)?.id.to_string();
        self.page::<Message, _>(page, Some(("webhook", &hook)), true, |m| Some(MessageView::from(m.value)))
    }

    /// Tells a webhook once more, in the next pass.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Refused` when its order is canceled.
    pub async fn deliver_again(
        &self,
        caller: &Principal,
        id: ObjectId,
        message: ObjectId,
    ) -> Result<MessageView, SchedulerError> {
        caller.must(Action::Listen)?;
        let hook = self.webhook_of(caller, id)?;
        self.queue_again(caller, message, |m| m.to == To::Webhook { webhook: hook.id }).await
    }
}

fn sees(caller: &Principal, hook: &Webhook) -> bool {
    let own = !hook.channels.is_empty() && hook.channels.iter().all(|channel| caller.sees(channel));
    caller.role == Role::Staff || own
}

fn read_events(fields: &mut Fields) -> Result<Vec<Notice>, InvalidField> {
    let mut events: Vec<Notice> = fields.required("events")?;
    events.sort_unstable();
    events.dedup();
    if let Some(private) = events.iter().find(|notice| !notice.is_public()) {
        return Err(InvalidField::new("events", format!("{} is told to nobody else", private.name())));
    }
    if events.is_empty() {
        return Err(InvalidField::new("events", "names none"));
    }
    Ok(events)
}
