//! How a new appliance gets in: join token → request with proof of its key → a person's approval → login by
//! signature over a nonce.
//!
//! ```text
//! join token (24 h, one use) ── POST /join ──► pending ─approve─► approved ─► nonce, signature ─► tokens
//!                                                 └────reject──► rejected
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use cardshop_protocol::api::{ApplianceLogin, Join, JoinAnswer, Membership, NonceAnswer, TokenPair};
use cardshop_protocol::ids::{ApplianceId, Channel};
use cardshop_protocol::join::{JoinToken, crockford, pairing_code};
use cardshop_protocol::keys::{appliance_id, decode_public, decode_signature, encode_public};
use cardshop_protocol::time::Timestamp;
use cardshop_protocol::token::Role;
use ed25519_dalek::{Signature, VerifyingKey};
use serde_json::Value;

use super::MAX_TRIES;
use super::catalogue::{MAX_NAME, channel_list, not_an_object};
use super::clock::random_bytes;
use super::idempotency::Once;
use super::tokens::Subject;
use crate::core::documents::{Appliance, DEFAULT_CHANNEL, JoinTokenDocument, Story, Unique};
use crate::core::fields::{Fields, InvalidField};
use crate::core::rights::{Action, Principal};
use crate::core::views::NewJoinToken;
use crate::store::{Batch, StoreError};
use crate::{Scheduler, SchedulerError};

/// Life of a join token.
const JOIN_TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Life of a nonce.
const NONCE_LIFE: Duration = Duration::from_secs(60);
/// Most text of CAs in an answer, bytes: an agent reads 64 KiB of it.
const MAX_BROKER_CA: usize = 32 * 1024;
/// Nonces used within their life that are remembered. Only right signatures get here, so that it takes this many
/// real logins a minute to fill it; then logins wait.
const MAX_USED: usize = 50_000;

/// A nonce carries its own end and a MAC, so that giving one costs no memory and nobody can push out another's.
/// What is remembered are the used ones, until their end.
#[derive(Default)]
pub(crate) struct Nonces(BTreeMap<String, Timestamp>);

impl Nonces {
    fn give(key: &[u8; 32], appliance: ApplianceId, random: &[u8], now: Timestamp) -> String {
        let text = format!("{}-{}", (now + NONCE_LIFE).as_ms(), crockford(random));
        let mac = Self::mac(key, appliance, &text);
        format!("{text}-{}", mac.to_hex())
    }

    fn mac(key: &[u8; 32], appliance: ApplianceId, text: &str) -> blake3::Hash {
        blake3::keyed_hash(key, format!("cardshop nonce 1\n{appliance}\n{text}").as_bytes())
    }

    /// The end of a nonce that was given to `appliance` and is not too old.
    fn check(key: &[u8; 32], appliance: ApplianceId, nonce: &str, now: Timestamp) -> Option<Timestamp> {
        let (text, mac) = nonce.rsplit_once('-')?;
        let end = Timestamp::from_ms(text.split_once('-')?.0.parse().ok()?);
        let fits = Self::mac(key, appliance, text) == blake3::Hash::from_hex(mac).ok()?;
        (fits && now <= end).then_some(end)
    }

    /// True once per nonce.
    fn spend(&mut self, nonce: &str, end: Timestamp, now: Timestamp) -> bool {
        if self.0.len() >= MAX_USED {
            self.0.retain(|_, end| now <= *end);
        }
        self.0.len() < MAX_USED && self.0.insert(nonce.to_owned(), end).is_none()
    }
}

fn digest(secret: &str) -> String {
    blake3::hash(secret.as_bytes()).to_hex().to_string()
}

impl Scheduler {
    /// Makes a join token, from `{channels?}`.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid`.
    pub async fn create_join_token(
        &self,
        caller: &Principal,
        body: Value,
        once: Option<Once>,
    ) -> Result<NewJoinToken, SchedulerError> {
        caller.must(Action::Enrol)?;
        let mut fields = Fields::new(body).ok_or_else(not_an_object)?;
        let channels = channel_list(&mut fields, "channels")?;
        let channels = self.own_channels(caller, channels)?;
        for _ in 0..MAX_TRIES {
            // The secret is never stored: a repeated request derives it again.
            let random = match &once {
                Some(once) => once.derive(&self.inner.keys.refresh()),
                None => random_bytes(),
            };
            let token = JoinToken::from_random(&random, self.inner.config.own_ca);
            let known = self.join_token(&token.id)?;
            if let Some(known) = known.filter(|t| t.value.secret_digest == digest(&token.secret)) {
                self.inner.store.settle().await?;
                return Ok(self.new_join_token(&token, &known.value));
            }
            match self.keep_join_token(caller, &token, channels.clone()).await {
                Ok(document) => return Ok(self.new_join_token(&token, &document)),
                // The same request at once, or another token with these six characters.
                Err(SchedulerError::Store(StoreError::Conflict { .. })) => continue,
                Err(error) => return Err(error),
            }
        }
        Err(SchedulerError::Busy)
    }

    async fn keep_join_token(
        &self,
        caller: &Principal,
        token: &JoinToken,
        channels: Vec<Channel>,
    ) -> Result<JoinTokenDocument, SchedulerError> {
        let document = JoinTokenDocument {
            id: self.next_id(),
            token_id: token.id.clone(),
            secret_digest: digest(&token.secret),
            channels,
            created_by: caller.sub.clone(),
            expires: self.now() + JOIN_TOKEN_LIFE,
            used_by: None,
        };
        let unique = Unique { kind: "join".into(), name: token.id.clone(), owner: document.id };
        let mut batch = self.audited(caller, "join-token.create", &document.id.to_string());
        batch.create(&unique).create(&document);
        self.inner.store.apply(batch).await?;
        Ok(document)
    }

    fn new_join_token(&self, token: &JoinToken, document: &JoinTokenDocument) -> NewJoinToken {
        NewJoinToken {
            id: document.id,
            token: token.to_string(),
            expires: document.expires,
            server: self.inner.config.public_url.clone(),
        }
    }

    /// The channels asked for, when they are the caller's; its only one, or `default`, when nobody says.
    pub(crate) fn own_channels(
        &self,
        caller: &Principal,
        wanted: Option<Vec<Channel>>,
    ) -> Result<Vec<Channel>, SchedulerError> {
        let channels = match wanted.filter(|w| !w.is_empty()) {
            Some(channels) => channels,
            None if caller.channels.is_empty() => vec![DEFAULT_CHANNEL.parse().expect("a slug")],
            None => caller.channels.clone(),
        };
        for channel in &channels {
            if !caller.sees(channel) || self.channel_by_slug(channel)?.is_none() {
                return Err(InvalidField::new("channels", format!("{channel} is not one of yours")).into());
            }
        }
        Ok(channels)
    }

    fn join_token(
        &self,
        token_id: &str,
    ) -> Result<Option<crate::store::Stored<JoinTokenDocument>>, SchedulerError> {
        let unique = self.inner.store.get::<Unique>(&format!("join:{token_id}"))?;
        let Some(unique) = unique else { return Ok(None) };
        Ok(self.inner.store.get::<JoinTokenDocument>(&unique.value.owner.to_string())?)
    }

    /// An appliance asks to join. The same key asking again gets the same answer.
    ///
    /// # Errors
    /// `NotKnown` for every fault of token or proof, `Invalid` for a wrong label.
    pub async fn join(&self, join: &Join) -> Result<JoinAnswer, SchedulerError> {
        let token: JoinToken = join.token.parse().map_err(|_| SchedulerError::NotKnown)?;
        let key = decode_public(&join.public_key).ok_or(SchedulerError::NotKnown)?;
        let proof = decode_signature(&join.proof).ok_or(SchedulerError::NotKnown)?;
        let message = token.proof_message(key.as_bytes());
        key.verify_strict(&message, &Signature::from_bytes(&proof)).map_err(|_| SchedulerError::NotKnown)?;
        if join.label.chars().count() > MAX_NAME || join.label.chars().any(char::is_control) {
            let reason = format!("must have at most {MAX_NAME} characters, without control characters");
            return Err(InvalidField::new("label", reason).into());
        }
        if join.hardware.model.chars().count().max(join.hardware.arch.chars().count()) > MAX_NAME {
            return Err(InvalidField::new("hardware", format!("has more than {MAX_NAME} characters")).into());
        }
        for _ in 0..MAX_TRIES {
            match self.try_join(join, &token, &key).await {
                Err(SchedulerError::Store(StoreError::Conflict { .. })) => continue,
                other => return other,
            }
        }
        Err(SchedulerError::Busy)
    }

    async fn try_join(
        &self,
        join: &Join,
        token: &JoinToken,
        key: &VerifyingKey,
    ) -> Result<JoinAnswer, SchedulerError> {
        let now = self.now();
        let id = appliance_id(key);
        let stored = self.join_token(&token.id)?.ok_or(SchedulerError::NotKnown)?;
        // Digests of the secret: how far they agree tells nothing of the secret.
        if stored.value.secret_digest != digest(&token.secret) {
            return Err(SchedulerError::NotKnown);
        }
        let known = self.inner.store.get::<Appliance>(&id.to_string())?;
        if let (Some(used_by), Some(known)) = (stored.value.used_by, &known)
            && used_by == id
        {
            return Ok(self.join_answer(&known.value));
        }
        if stored.value.used_by.is_some() || now > stored.value.expires {
            return Err(SchedulerError::NotKnown);
        }
        let mut used = stored.value.clone();
        used.used_by = Some(id);
        let mut appliance = known.as_ref().map_or_else(
            || Appliance {
                id,
                public_key: encode_public(key),
                label: String::new(),
                hardware: Default::default(),
                state: Membership::Pending,
                channels: Vec::new(),
                code: pairing_code(key.as_bytes(), self.inner.keys.site.verifying_key().as_bytes()),
                joined: now,
                approved: None,
                slots: 0,
                epoch: 0,
                epoch_raised: None,
            },
            |k| k.value.clone(),
        );
        appliance.label =
            if join.label.trim().is_empty() { id.to_string() } else { join.label.trim().into() };
        appliance.hardware = join.hardware.clone();
        if appliance.state != Membership::Approved {
            // Refused or retired before: a person looks again.
            appliance.state = Membership::Pending;
            appliance.channels = used.channels.clone();
        }
        let mut batch = Batch::new();
        batch.update(&stored, &used).upsert(known.as_ref(), &appliance).create(&Story {
            id: self.next_id(),
            at: now,
            kind: "appliance_joined".into(),
            text: format!("Appliance {} asks to join, code {}.", appliance.label, appliance.code),
            order: None,
            appliance: Some(id),
            channel: appliance.channels.first().cloned(),
        });
        self.inner.store.apply(batch).await?;
        self.announce_appliance(&appliance);
        Ok(self.join_answer(&appliance))
    }

    fn join_answer(&self, appliance: &Appliance) -> JoinAnswer {
        let approved = appliance.state == Membership::Approved;
        let config = &self.inner.config;
        JoinAnswer {
            appliance: appliance.id,
            state: appliance.state,
            code: appliance.code.clone(),
            server_key: encode_public(&self.inner.keys.site.verifying_key()),
            mqtt: approved.then(|| config.appliance_mqtt_url.as_ref().unwrap_or(&config.mqtt_url).clone()),
            mqtt_ca: if approved { self.broker_ca() } else { None },
        }
    }

    /// What appliances are told to trust the broker by. Read anew each time: it may have been replaced.
    fn broker_ca(&self) -> Option<String> {
        let path = self.inner.config.mqtt_ca.as_ref()?;
        match std::fs::read_to_string(path) {
            Ok(pem) if pem.len() <= MAX_BROKER_CA => return Some(pem),
            Ok(pem) => {
                let (size, most) = (pem.len(), MAX_BROKER_CA);
                tracing::warn!(path = %path.display(), size, most, "appliances are not told the broker's CA: it is too large");
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "appliances are not told the broker's CA");
            }
        }
        None
    }

    /// Where an appliance stands.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn join_state(&self, id: ApplianceId) -> Result<JoinAnswer, SchedulerError> {
        let found = self.inner.store.get::<Appliance>(&id.to_string())?;
        Ok(self.join_answer(&found.ok_or(SchedulerError::NotFound("appliance"))?.value))
    }

    /// A nonce for an appliance to sign; also for one that does not exist, so that nobody learns which do.
    pub fn nonce(&self, id: ApplianceId) -> NonceAnswer {
        let nonce = Nonces::give(&self.inner.keys.refresh(), id, &random_bytes::<20>(), self.now());
        NonceAnswer { nonce }
    }

    /// An appliance logs in.
    ///
    /// # Errors
    /// `NotKnown` for a wrong nonce or signature; `NotAllowed` when it is not approved.
    pub async fn appliance_login(&self, login: &ApplianceLogin) -> Result<TokenPair, SchedulerError> {
        let id = login.appliance;
        let now = self.now();
        let end = Nonces::check(&self.inner.keys.refresh(), id, &login.nonce, now);
        let end = end.ok_or(SchedulerError::NotKnown)?;
        let appliance = self.inner.store.get::<Appliance>(&id.to_string())?.map(|a| a.value);
        let appliance = appliance.ok_or(SchedulerError::NotKnown)?;
        let key = decode_public(&appliance.public_key).ok_or(SchedulerError::NotKnown)?;
        let signature = decode_signature(&login.signature).ok_or(SchedulerError::NotKnown)?;
        let message = ApplianceLogin::message(id, &login.nonce);
        key.verify_strict(&message, &Signature::from_bytes(&signature))
            .map_err(|_| SchedulerError::NotKnown)?;
        if !self.inner.nonces.lock().expect("no holder panics").spend(&login.nonce, end, now) {
            return Err(SchedulerError::NotKnown);
        }
        if appliance.state != Membership::Approved {
            let state = format!("{:?}", appliance.state).to_lowercase();
            return Err(SchedulerError::NotAllowed(format!("the appliance is {state}, not approved")));
        }
        let subject = Subject {
            sub: id.to_string(),
            role: Role::Appliance,
            channels: appliance.channels,
            epoch: appliance.epoch,
            scope: None,
            until: None,
        };
        self.new_pair(subject, true).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_good_once_and_for_a_minute() {
        let (key, id, mut nonces) = ([7; 32], ApplianceId([1; 8]), Nonces::default());
        let at = |s: u64| Timestamp::from_ms(s * 1000);
        let nonce = Nonces::give(&key, id, b"random", at(0));
        let end = Nonces::check(&key, id, &nonce, at(60)).unwrap();
        assert!(nonces.spend(&nonce, end, at(60)));
        assert!(!nonces.spend(&nonce, end, at(60)), "used");
        assert_eq!(Nonces::check(&key, id, &nonce, at(61)), None, "too old");
        assert_eq!(Nonces::check(&key, ApplianceId([2; 8]), &nonce, at(1)), None, "another's");
        let later = nonce.replacen("60000", "99999", 1);
        assert_eq!(Nonces::check(&key, id, &later, at(61)), None, "its end cannot be moved");
    }
}
