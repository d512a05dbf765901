//! What people said about the messages they get.

use std::collections::BTreeMap;

use cardshop_protocol::ids::ObjectId;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::super::catalogue::not_an_object;
use crate::core::documents::User;
use crate::core::fields::{Fields, InvalidField};
use crate::core::notify::preferences::Preferences;
use crate::core::notify::template::language;
use crate::core::notify::{Notice, PreferencesView};
use crate::core::rights::{Action, Principal};
use crate::{Scheduler, SchedulerError};

/// Longest name of a time zone, characters.
const MAX_ZONE: usize = 64;

impl Scheduler {
    /// What the caller said.
    ///
    /// # Errors
    /// `Conflict` when it is no person.
    pub fn own_preferences(&self, caller: &Principal) -> Result<PreferencesView, SchedulerError> {
        self.preferences_of(self.own_user(caller)?)
    }

    /// Changes what the caller said: `{language?, time_zone?, events?}`; what is left out stays.
    ///
    /// # Errors
    /// `Conflict` when it is no person, `Invalid` naming the field.
    pub async fn set_own_preferences(
        &self,
        caller: &Principal,
        body: Value,
    ) -> Result<PreferencesView, SchedulerError> {
        let user = self.own_user(caller)?;
        self.change_preferences(caller, user, body).await
    }

    /// What a user said.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`.
    pub fn user_preferences(
        &self,
        caller: &Principal,
        id: ObjectId,
    ) -> Result<PreferencesView, SchedulerError> {
        caller.must(Action::Administer)?;
        self.preferences_of(self.known_user(id)?)
    }

    /// As [`Scheduler::set_own_preferences`], for a user.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Invalid` naming the field.
    pub async fn set_user_preferences(
        &self,
        caller: &Principal,
        id: ObjectId,
        body: Value,
    ) -> Result<PreferencesView, SchedulerError> {
        caller.must(Action::Administer)?;
        let user = self.known_user(id)?;
        self.change_preferences(caller, user, body).await
    }

    fn own_user(&self, caller: &Principal) -> Result<ObjectId, SchedulerError> {
        let user = self.user_by_name(&caller.sub)?.filter(|_| caller.rights.is_none());
        user.map(|user| user.value.id).ok_or_else(|| {
            let text = "only people with an account have preferences".to_owned();
            SchedulerError::Conflict { code: "no_person", text }
        })
    }

    fn known_user(&self, id: ObjectId) -> Result<ObjectId, SchedulerError> {
        let user = self.inner.store.get::<User>(&id.to_string())?;
        user.map(|user| user.value.id).ok_or(SchedulerError::NotFound("user"))
    }

    fn preferences_of(&self, user: ObjectId) -> Result<PreferencesView, SchedulerError> {
        let kept = self.inner.store.get::<Preferences>(&user.to_string())?;
        Ok(PreferencesView::from(&kept.map(|kept| kept.value).unwrap_or_default()))
    }

    async fn change_preferences(
        &self,
        caller: &Principal,
        user: ObjectId,
        body: Value,
    ) -> Result<PreferencesView, SchedulerError> {
        let mut fields = Fields::new(body).ok_or_else(not_an_object)?;
        let tongue = read_language(&mut fields)?;
        let zone = fields.text("time_zone", MAX_ZONE)?;
        if let Some(name) = zone.as_deref().filter(|name| TimeZone::get(name).is_err()) {
            let reason = format!("{name} is no time zone: Europe/Paris is one");
            return Err(InvalidField::new("time_zone", reason).into());
        }
        let events = read_events(&mut fields)?;
        let decide = || {
            let stored = self.inner.store.get::<Preferences>(&user.to_string())?;
            let mut kept = stored.as_ref().map(|stored| stored.value.clone()).unwrap_or_default();
            kept.user = Some(user);
            kept.language = tongue.map(str::to_owned).or(kept.language);
            kept.time_zone = zone.clone().or(kept.time_zone);
            kept.events.extend(&events);
            let mut batch = self.audited(caller, "user.notifications", &user.to_string());
            batch.upsert(stored.as_ref(), &kept);
            Ok((Some(batch), kept))
        };
        Ok(PreferencesView::from(&self.change(decide).await?.0))
    }
}

fn read_language(fields: &mut Fields) -> Result<Option<&'static str>, InvalidField> {
    let Some(tag) = fields.text("language", 20)? else { return Ok(None) };
    language(&tag).map(Some).ok_or_else(|| InvalidField::new("language", "must be en or fr"))
}

fn read_events(fields: &mut Fields) -> Result<BTreeMap<Notice, bool>, InvalidField> {
    let said: BTreeMap<String, bool> = fields.optional("events")?.unwrap_or_default();
    let mut events = BTreeMap::new();
    for (name, on) in said {
        let notice = Notice::of(&name).filter(|notice| notice.is_optional());
        let notice = notice.ok_or_else(|| {
            InvalidField::new("events", format!("{name} is no message that can be switched off"))
        })?;
        events.insert(notice, on);
    }
    Ok(events)
}
