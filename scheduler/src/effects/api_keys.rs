//! API keys: what an integrator's program logs in with, at the API and at the broker. A key is an access token that
//! lives for months and says what it may do, so every service checks it offline as it checks tokens. The store has
//! who made it and whether it was revoked, and nothing that could be used in its place.

use std::collections::BTreeMap;
use std::time::Duration;

use cardshop_protocol::api::Page;
use cardshop_protocol::ids::ObjectId;
use cardshop_protocol::time::Timestamp;
use cardshop_protocol::token::{ApiRight, Claims, ISSUER, Role};
use serde_json::Value;

use super::catalogue::{channel_list, not_an_object};
use super::idempotency::Once;
use super::paging::PageRequest;
use super::users::check_username;
use crate::core::documents::{ApiKey, Unique};
use crate::core::fields::{Fields, InvalidField};
use crate::core::rights::{Action, Principal};
use crate::core::views::{ApiKeyView, NewApiKey};
use crate::store::{Batch, StoreError};
use crate::{Scheduler, SchedulerError};

/// Days a key is good for when nobody says, and at most: a key that was forgotten somewhere ends by itself.
const DEFAULT_DAYS: u64 = 365;
const MAX_DAYS: u64 = 5 * 365;
const DAY: Duration = Duration::from_secs(86_400);

/// When each key was used last, by its name, until the timer writes it down.
pub(crate) type KeyUses = BTreeMap<String, Timestamp>;

impl Scheduler {
    /// Makes a key from `{name, rights?, channels?, days?}`; its text is in this answer only. The name is also the
    /// user name at the broker.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid`, `Conflict` when the name is taken.
    pub async fn create_api_key(
        &self,
        caller: &Principal,
        body: Value,
        once: Option<Once>,
    ) -> Result<NewApiKey, SchedulerError> {
        caller.must(Action::Enrol)?;
        if let Some(made) = self.answered::<ApiKeyView>(once.as_ref()).await? {
            return Ok(self.with_text(made));
        }
        let mut fields = Fields::new(body).ok_or_else(not_an_object)?;
        let name: String = fields.required("name")?;
        check_username("name", &name)?;
        let mut rights = fields.optional::<Vec<ApiRight>>("rights")?.unwrap_or_else(|| vec![ApiRight::Watch]);
        rights.sort();
        rights.dedup();
        if rights.is_empty() {
            return Err(InvalidField::new("rights", "must name at least one of watch, order, ship").into());
        }
        let channels = channel_list(&mut fields, "channels")?;
        let channels = self.own_channels(caller, channels)?;
        let days = fields.optional::<u64>("days")?.unwrap_or(DEFAULT_DAYS);
        if !(1..=MAX_DAYS).contains(&days) {
            return Err(InvalidField::new("days", format!("must be 1 to {MAX_DAYS}")).into());
        }
        let now = self.now();
        let key = ApiKey {
            id: self.next_id(),
            name,
            rights,
            channels,
            created_by: caller.sub.clone(),
            created: now,
            expires: now + DAY * u32::try_from(days).expect("a few years"),
            revoked: None,
            last_used: None,
        };
        let unique = Unique { kind: "user".into(), name: key.name.clone(), owner: key.id };
        let mut batch = self.audited(caller, "api-key.create", &key.id.to_string());
        batch.create(&unique).create(&key);
        let made = self.apply_once(batch, once, ApiKeyView::from(&key), |kind| {
            (kind == "unique").then(|| SchedulerError::Conflict {
                code: "name_taken",
                text: format!("there is a user or key {} already", key.name),
            })
        });
        Ok(self.with_text(made.await?))
    }

    /// The text follows from the view and the signing key: a repeated request gets the same one.
    fn with_text(&self, view: ApiKeyView) -> NewApiKey {
        let claims = Claims {
            iss: ISSUER.into(),
            sub: view.name.clone(),
            role: Role::Integrator,
            channel: view.channels.clone(),
            scope: Some(Claims::api_scope(&view.rights)),
            epoch: 0,
            jti: view.id.to_string(),
            iat: view.created.as_secs(),
            exp: view.expires.as_secs(),
            signed_by: None,
        };
        NewApiKey { key: self.inner.keys.sign(&claims, self.now()), view }
    }

    /// Keys of the caller's channels.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid` for a wrong cursor.
    pub fn api_keys(
        &self,
        caller: &Principal,
        page: &PageRequest,
    ) -> Result<Page<ApiKeyView>, SchedulerError> {
        caller.must(Action::Enrol)?;
        self.page::<ApiKey, _>(page, None, false, |k| {
            k.value.channels.iter().all(|c| caller.sees(c)).then(|| ApiKeyView::from(&k.value))
        })
    }

    /// Ends a key everywhere within seconds, for good.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`.
    pub async fn revoke_api_key(
        &self,
        caller: &Principal,
        id: ObjectId,
    ) -> Result<ApiKeyView, SchedulerError> {
        caller.must(Action::Enrol)?;
        let decide = || {
            let stored = self.inner.store.get::<ApiKey>(&id.to_string())?;
            let stored = stored.filter(|k| k.value.channels.iter().all(|c| caller.sees(c)));
            let stored = stored.ok_or(SchedulerError::NotFound("API key"))?;
            if stored.value.revoked.is_some() {
                return Ok((None, stored.value));
            }
            let key = ApiKey { revoked: Some(self.now()), ..stored.value.clone() };
            let mut batch = self.audited(caller, "api-key.revoke", &id.to_string());
            batch.update(&stored, &key);
            Ok((Some(batch), key))
        };
        let (key, stored) = self.change(decide).await?;
        if stored {
            self.publish_keys()?;
        }
        Ok(ApiKeyView::from(&key))
    }

    /// Writes down when keys were used.
    pub(crate) async fn keep_key_uses(&self) -> Result<(), SchedulerError> {
        let uses = std::mem::take(&mut *self.inner.key_uses.lock().expect("no holder panics"));
        for (name, at) in uses {
            let Some(unique) = self.inner.store.get::<Unique>(&format!("user:{name}"))? else { continue };
            let Some(stored) = self.inner.store.get::<ApiKey>(&unique.value.owner.to_string())? else {
                continue;
            };
            let mut batch = Batch::new();
            batch.update(&stored, &ApiKey { last_used: Some(at), ..stored.value.clone() });
            match self.inner.store.apply(batch).await {
                // Somebody revoked it meanwhile: that matters more.
                Ok(()) | Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
