//! A message as a call: signed JSON for a webhook, text for a topic of ntfy.

use cardshop_protocol::ids::ObjectId;
use serde_json::{Value, json};

use super::calls::{Call, to_topic};
use super::letter::Unwritten;
use crate::core::documents::ChannelDocument;
use crate::core::notify::message::{Fault, Message, Part};
use crate::core::notify::web::{HookKind, Webhook, body, signature};
use crate::core::notify::who::Person;
use crate::core::order::Order;
use crate::{Scheduler, SchedulerError};

impl Scheduler {
    pub(super) fn webhook_call(&self, message: &Message, webhook: ObjectId) -> Result<Call, Unwritten> {
        let hook = self.inner.store.get::<Webhook>(&webhook.to_string()).map_err(SchedulerError::from)?;
        let Some(hook) = hook.map(|hook| hook.value).filter(|hook| hook.active) else {
            return Err(Unwritten::Fault(Fault::Pointless("the webhook is not there any more".into())));
        };
        let anywhere = self.inner.config.notify.private_webhooks;
        if hook.kind == HookKind::Ntfy {
            return self.topic_call(message, &hook.url, None, &hook.language, anywhere);
        }
        let order = self.order_details(message)?;
        let (id, body) = (message.id.to_string(), body(message, order));
        let seconds = self.now().as_secs();
        let signature = signature(&self.webhook_secret(hook.id), &id, seconds, &body);
        let headers = vec![
            ("content-type", "application/json".to_owned()),
            ("webhook-id", id),
            ("webhook-timestamp", seconds.to_string()),
            ("webhook-signature", signature),
        ];
        Ok(Call { url: hook.url, headers, body: body.into_bytes(), anywhere })
    }

    /// How the order stands, for programs: nothing of who gets it.
    fn order_details(&self, message: &Message) -> Result<Option<Value>, SchedulerError> {
        let Some(id) = message.order else { return Ok(None) };
        let order = self.inner.store.get::<Order>(&id.to_string())?.map(|order| order.value);
        Ok(order.map(|order| {
            json!({
                "id": order.id, "name": order.name, "kind": order.kind, "channel": order.channel,
                "status": order.status(self.now()), "quantity": order.quantity, "verified": order.verified(),
                "shipped": order.shipped(),
            })
        }))
    }

    pub(super) fn topic_call(
        &self,
        message: &Message,
        url: &str,
        token: Option<&str>,
        language: &str,
        anywhere: bool,
    ) -> Result<Call, Unwritten> {
        let reader = Person {
            address: String::new(),
            name: String::new(),
            part: Part::Operator,
            language: Some(language.to_owned()),
            zone: None,
        };
        let channel = message.channel.as_ref().map(|slug| self.channel_by_slug(slug)).transpose()?.flatten();
        let shop = channel.map(|c: ChannelDocument| c.sender_name).filter(|name| !name.is_empty());
        let shop = shop.unwrap_or_else(|| "Cardshop".into());
        let words = self.in_words(message.notice, &reader, &message.values, &shop)?;
        let text = words.text.split("\n\n-- \n").next().unwrap_or_default().to_owned();
        let site = &self.inner.config.public_url;
        let click = message.order.map_or_else(|| format!("{site}/bench"), |id| format!("{site}/orders/{id}"));
        to_topic(url, token, &words.subject, &text, &click, anywhere).map_err(Unwritten::Fault)
    }
}
