//! Account hooks: made and revoked by staff; a signed request of a shop's web site makes a manager's account that ends, or
//! moves its end. **Source:** HMAC-SHA-256 by RFC 2104, over the bytes of the body, as hex in `X-Cardshop-Signature`.

use cardshop_protocol::api::Page;
use cardshop_protocol::ids::{Channel, ObjectId};
use cardshop_protocol::token::Role;
use ring::hmac;
use serde_json::Value;

use super::catalogue::{MAX_NAME, not_an_object};
use super::paging::PageRequest;
use super::passwords::random_password;
use super::users::{INVITATION_LIFE, check_username, unique_name};
use crate::core::account_hook::{AccountHook, MAX_DAYS, Purchase, extended, is_fresh};
use crate::core::documents::{DEFAULT_CHANNEL, Unique, User};
use crate::core::fields::{Fields, InvalidField, check_email};
use crate::core::purpose::Purpose;
use crate::core::rights::{Action, Principal};
use crate::core::units::Organization;
use crate::core::views::{HookAnswer, NewAccountHook, UserView};
use crate::store::Batch;
use crate::{Scheduler, SchedulerError};

/// Longest name of a purchase, characters.
const MAX_PURCHASE: usize = 120;

impl Scheduler {
    /// Makes a hook from `{name, channel?, organization?}`; its secret is in this answer only.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid`.
    pub async fn create_account_hook(
        &self,
        caller: &Principal,
        body: Value,
    ) -> Result<NewAccountHook, SchedulerError> {
        caller.must(Action::Administer)?;
        let mut fields = Fields::new(body).ok_or_else(not_an_object)?;
        let name = fields.text("name", MAX_NAME)?.ok_or_else(|| InvalidField::new("name", "is missing"))?;
        let organization: Option<ObjectId> = fields.optional("organization")?;
        let of = match organization {
            Some(id) => {
                let found = self.inner.store.get::<Organization>(&id.to_string())?;
                let none = || InvalidField::new("organization", "there is no such organization");
                Some(found.ok_or_else(none)?.value.channel)
            }
            None => None,
        };
        let channel: Option<Channel> = fields.optional("channel")?;
        let channel = channel.or(of).unwrap_or_else(|| DEFAULT_CHANNEL.parse().expect("a slug"));
        self.channel_by_slug(&channel)?
            .ok_or_else(|| InvalidField::new("channel", format!("there is no channel {channel}")))?;
        let hook = AccountHook {
            id: self.next_id(),
            name,
            channel,
            organization,
            created_by: caller.sub.clone(),
            created: self.now(),
            revoked: None,
        };
        let mut batch = self.audited(caller, "account-hook.create", &hook.id.to_string());
        batch.create(&hook);
        self.inner.store.apply(batch).await?;
        Ok(NewAccountHook { secret: self.hook_secret(hook.id), hook })
    }

    fn hook_secret(&self, id: ObjectId) -> String {
        let text = format!("cardshop account hook 1\n{id}");
        blake3::keyed_hash(&self.inner.keys.hooks, text.as_bytes()).to_hex().to_string()
    }

    /// All hooks.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid` for a wrong cursor.
    pub fn account_hooks(
        &self,
        caller: &Principal,
        page: &PageRequest,
    ) -> Result<Page<AccountHook>, SchedulerError> {
        caller.must(Action::Administer)?;
        self.page::<AccountHook, _>(page, None, false, |hook| Some(hook.value))
    }

    /// Ends a hook for good; the accounts it made stay.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`.
    pub async fn revoke_account_hook(
        &self,
        caller: &Principal,
        id: ObjectId,
    ) -> Result<AccountHook, SchedulerError> {
        caller.must(Action::Administer)?;
        let decide = || {
            let stored = self.inner.store.get::<AccountHook>(&id.to_string())?;
            let stored = stored.ok_or(SchedulerError::NotFound("account hook"))?;
            if stored.value.revoked.is_some() {
                return Ok((None, stored.value));
            }
            let hook = AccountHook { revoked: Some(self.now()), ..stored.value.clone() };
            let mut batch = self.audited(caller, "account-hook.revoke", &id.to_string());
            batch.update(&stored, &hook);
            Ok((Some(batch), hook))
        };
        Ok(self.change(decide).await?.0)
    }

    /// Takes a signed purchase: makes the account, or moves its end. The same purchase again changes nothing.
    ///
    /// # Errors
    /// `NotKnown` for every fault of hook, signature and time; `Invalid`; `Conflict` when the name is somebody else's.
    pub async fn take_purchase(
        &self,
        id: ObjectId,
        signature: &str,
        body: &[u8],
        address: &str,
    ) -> Result<HookAnswer, SchedulerError> {
        let hook = self.inner.store.get::<AccountHook>(&id.to_string())?.map(|h| h.value);
        let hook = hook.filter(|h| h.revoked.is_none()).ok_or(SchedulerError::NotKnown)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.hook_secret(id).as_bytes());
        let signature = unhex(signature.trim_start_matches("sha256=")).ok_or(SchedulerError::NotKnown)?;
        hmac::verify(&key, body, &signature).map_err(|_| SchedulerError::NotKnown)?;
        let purchase: Purchase =
            serde_json::from_slice(body).map_err(|e| InvalidField::new("body", e.to_string()))?;
        if !is_fresh(purchase.at, self.now()) {
            tracing::warn!(hook = %id, at = %purchase.at, "a signed purchase is too old or of the future");
            return Err(SchedulerError::NotKnown);
        }
        check(&purchase)?;
        let (user, made) = self.settle_purchase(&hook, &purchase, address).await?;
        if !made {
            self.publish_keys()?;
        }
        // Who has not set a password yet is invited by the sender, in its own letter.
        let expires = user.expires.unwrap_or_else(|| self.now());
        let ends = expires.min(self.now() + INVITATION_LIFE);
        let token = (user.epoch == 0).then(|| self.purpose_token(&user, Purpose::Password(user.id), ends));
        Ok(HookAnswer { user: UserView::from(&user), made, token })
    }

    async fn settle_purchase(
        &self,
        hook: &AccountHook,
        purchase: &Purchase,
        address: &str,
    ) -> Result<(User, bool), SchedulerError> {
        let seen = Unique {
            kind: "purchase".into(),
            name: blake3::hash(format!("{}\n{}", hook.id, purchase.purchase).as_bytes()).to_hex().to_string(),
            owner: self.next_id(),
        };
        let hash = self.inner.passwords.hash(random_password()).await?;
        let sender = Principal {
            sub: format!("hook {}", hook.name),
            role: Role::Staff,
            channels: Vec::new(),
            epoch: 0,
            rights: None,
            expires: 0,
            signed_by: None,
            address: address.to_owned(),
        };
        let decide = || {
            let now = self.now();
            let known = self.user_by_name(&purchase.username)?;
            let before = self.inner.store.get::<Unique>(&format!("purchase:{}", seen.name))?;
            let mut batch = Batch::new();
            batch.create(&seen);
            let Some(stored) = known else {
                let user = self.bought_user(hook, purchase, &hash);
                batch.join(self.audited(&sender, "user.buy", &user.id.to_string()));
                batch.create(&unique_name(&user)).create(&user);
                return Ok((Some(batch), (user, true)));
            };
            // A hook has no say over accounts that it did not make, nor over those that were disabled by a person.
            if stored.value.hook != Some(hook.id) || stored.value.disabled {
                let text = format!("the name {} is not an account of this hook", purchase.username);
                return Err(SchedulerError::Conflict { code: "username_taken", text });
            }
            if before.is_some() {
                return Ok((None, (stored.value.clone(), false)));
            }
            let expires = Some(extended(stored.value.expires, purchase.days, now));
            let user = User { expires, ..stored.value.clone() };
            batch.join(self.audited(&sender, "user.buy", &user.id.to_string()));
            batch.update(&stored, &user);
            Ok((Some(batch), (user, false)))
        };
        Ok(self.change(decide).await?.0)
    }

    fn bought_user(&self, hook: &AccountHook, purchase: &Purchase, password: &str) -> User {
        let now = self.now();
        User {
            id: self.next_id(),
            username: purchase.username.clone(),
            password: password.to_owned(),
            role: Role::Manager,
            channels: vec![hook.channel.clone()],
            organization: hook.organization,
            email: purchase.email.clone(),
            expires: Some(extended(None, purchase.days, now)),
            anonymised: false,
            links_only: false,
            hook: Some(hook.id),
            disabled: false,
            epoch: 0,
            epoch_raised: None,
            created: now,
        }
    }
}

fn check(purchase: &Purchase) -> Result<(), InvalidField> {
    check_username("username", &purchase.username)?;
    if let Some(email) = &purchase.email {
        check_email(email)?;
    }
    if !(1..=MAX_DAYS).contains(&purchase.days) {
        return Err(InvalidField::new("days", format!("must be 1 to {MAX_DAYS}")));
    }
    let length = purchase.purchase.chars().count();
    if !(1..=MAX_PURCHASE).contains(&length) {
        return Err(InvalidField::new("purchase", format!("must have 1 to {MAX_PURCHASE} characters")));
    }
    Ok(())
}

/// Reads 64 hex digits.
fn unhex(text: &str) -> Option<[u8; 32]> {
    blake3::Hash::from_hex(text).ok().map(|hash| *hash.as_bytes())
}
