//! Templates of letters: ours, and those that staff put in their place; checked before they are kept, shown and sent as a
//! test.

use cardshop_protocol::api::Page;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::super::catalogue::not_an_object;
use crate::core::fields::check_email;
use crate::core::fields::{Fields, InvalidField};
use crate::core::notify::message::{Message, Part, To};
use crate::core::notify::template::{
    Fault, MAX_BODY, Override, Reader, check, example, language, letter, variables,
};
use crate::core::notify::texts::{self, texts};
use crate::core::notify::who::Person;
use crate::core::notify::{MessageView, Notice, Preview, TemplateView};
use crate::core::rights::{Action, Principal};
use crate::store::Batch;
use crate::{Scheduler, SchedulerError};

impl From<Fault> for SchedulerError {
    fn from(fault: Fault) -> Self {
        InvalidField::new(fault.field, fault.reason).into()
    }
}

impl Scheduler {
    /// All templates, as they are used now.
    ///
    /// # Errors
    /// `NotAllowed`.
    pub fn templates(&self, caller: &Principal) -> Result<Page<TemplateView>, SchedulerError> {
        caller.must(Action::Administer)?;
        let mut items = Vec::new();
        for texts in texts::ALL {
            for notice in Notice::ALL {
                items.push(self.template_now(notice, texts.language)?);
            }
        }
        Ok(Page { items, next_cursor: None })
    }

    /// Puts a template in the place of ours, once it is right: `{subject, body}`.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Invalid` saying what is wrong with it, and where.
    pub async fn set_template(
        &self,
        caller: &Principal,
        event: &str,
        tongue: &str,
        body: Value,
    ) -> Result<TemplateView, SchedulerError> {
        caller.must(Action::Administer)?;
        let (notice, tongue) = named(event, tongue)?;
        let mut fields = Fields::new(body).ok_or_else(not_an_object)?;
        let own = Override {
            notice,
            language: tongue.to_owned(),
            subject: fields.required("subject")?,
            body: fields.required("body")?,
            by: caller.sub.clone(),
            at: self.now(),
        };
        check(notice, tongue, &own.subject, &own.body)?;
        let mut batch = self.audited(caller, "template.set", &template_id(notice, tongue));
        batch.put(&own);
        self.inner.store.apply(batch).await?;
        self.template_now(notice, tongue)
    }

    /// Takes ours again.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`.
    pub async fn reset_template(
        &self,
        caller: &Principal,
        event: &str,
        tongue: &str,
    ) -> Result<TemplateView, SchedulerError> {
        caller.must(Action::Administer)?;
        let (notice, tongue) = named(event, tongue)?;
        let id = template_id(notice, tongue);
        let mut batch = self.audited(caller, "template.reset", &id);
        batch.remove::<Override>(&id);
        self.inner.store.apply(batch).await?;
        self.template_now(notice, tongue)
    }

    /// What a template gives for an example: `{subject?, body?}`, the ones in use where they are left out. Keeps nothing.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Invalid` as when it is kept.
    pub fn preview_template(
        &self,
        caller: &Principal,
        event: &str,
        tongue: &str,
        body: Value,
    ) -> Result<Preview, SchedulerError> {
        caller.must(Action::Administer)?;
        let (notice, tongue) = named(event, tongue)?;
        let used = self.template_now(notice, tongue)?;
        let mut fields = Fields::new(body).ok_or_else(not_an_object)?;
        let subject = fields.optional("subject")?.unwrap_or(used.subject);
        let body: String = fields.optional("body")?.unwrap_or(used.body);
        if body.len() <= MAX_BODY {
            check(notice, tongue, &subject, &body)?;
        }
        let reader = Reader::new(Some(tongue), TimeZone::system());
        Ok(letter(&subject, &body, example(notice), &reader)?)
    }

    /// Sends the example of a template to the caller: `{to?}`, its own address when that is left out.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Invalid` without an address.
    pub async fn test_template(
        &self,
        caller: &Principal,
        event: &str,
        tongue: &str,
        body: Value,
    ) -> Result<MessageView, SchedulerError> {
        caller.must(Action::Administer)?;
        let (notice, tongue) = named(event, tongue)?;
        self.send_test(caller, notice, Some(tongue), body).await
    }

    /// Sends a test letter: `{to?}`.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid` without an address.
    pub async fn test_mail(&self, caller: &Principal, body: Value) -> Result<MessageView, SchedulerError> {
        caller.must(Action::Administer)?;
        self.send_test(caller, Notice::Test, None, body).await
    }

    async fn send_test(
        &self,
        caller: &Principal,
        notice: Notice,
        tongue: Option<&str>,
        body: Value,
    ) -> Result<MessageView, SchedulerError> {
        let mut fields = Fields::new(body).ok_or_else(not_an_object)?;
        let own = self.user_by_name(&caller.sub)?.and_then(|user| user.value.email);
        let to = fields.text("to", 254)?;
        if let Some(to) = &to {
            check_email(to).map_err(|fault| InvalidField::new("to", fault.reason))?;
        }
        let to = to.or(own).ok_or_else(|| InvalidField::new("to", "is missing, and you have no address"))?;
        let message = self.test_letter(notice, tongue, to);
        let mut batch = self.audited(caller, "message.test", &message.id.to_string());
        batch.create(&message);
        self.inner.store.apply(batch).await?;
        Ok(message.into())
    }

    fn test_letter(&self, notice: Notice, tongue: Option<&str>, address: String) -> Message {
        let now = self.now();
        let values = if notice == Notice::Test { json!({"when": now}) } else { example(notice) };
        let person = Person {
            address,
            name: String::new(),
            part: Part::User,
            language: tongue.map(str::to_owned),
            zone: None,
        };
        Message::new(self.next_id(), notice, To::Mail { person, copy_of: None }, values, now)
    }

    /// The letter that shows at a start whether mail arrives, where one is asked for.
    pub(crate) async fn test_at_start(&self) -> Result<(), SchedulerError> {
        let Some(to) = self.inner.config.notify.test_mail.clone() else { return Ok(()) };
        let mut batch = Batch::new();
        batch.create(&self.test_letter(Notice::Test, None, to));
        Ok(self.inner.store.apply(batch).await?)
    }

    fn template_now(&self, notice: Notice, tongue: &'static str) -> Result<TemplateView, SchedulerError> {
        let id = template_id(notice, tongue);
        let own = self.inner.store.get::<Override>(&id)?.map(|own| own.value);
        let ours = texts(Some(tongue)).of(notice);
        let changed = own.is_some();
        let (by, at) = (own.as_ref().map(|own| own.by.clone()), own.as_ref().map(|own| own.at));
        let (subject, body) =
            own.map_or_else(|| (ours.subject.into(), ours.body.into()), |own| (own.subject, own.body));
        let variables = variables(notice).into_iter().collect();
        Ok(TemplateView {
            id,
            event: notice,
            language: tongue.to_owned(),
            subject,
            body,
            changed,
            changed_by: by,
            changed_at: at,
            variables,
        })
    }
}

/// Its id in the store.
fn template_id(notice: Notice, tongue: &str) -> String {
    format!("{}.{tongue}", notice.name())
}

fn named(event: &str, tongue: &str) -> Result<(Notice, &'static str), SchedulerError> {
    let none = SchedulerError::NotFound("template");
    match (Notice::of(event), language(tongue).filter(|known| *known == tongue)) {
        (Some(notice), Some(tongue)) => Ok((notice, tongue)),
        _ => Err(none),
    }
}
