//! Makes access tokens and rotates refresh tokens.
//!
//! A refresh token is `csr1.{family}.{number}.{mac}`. The store keeps the number that is good now. A token of the
//! family with a lower number and a right MAC was used before: somebody has a copy, and the family is revoked.

use std::time::Duration;

use cardshop_protocol::api::{Membership, TokenPair};
use cardshop_protocol::ids::{ApplianceId, Channel, ObjectId, TaskId};
use cardshop_protocol::time::Timestamp;
use cardshop_protocol::token::{Claims, ISSUER, Role};

use crate::core::documents::{Appliance, RefreshFamily, User};
use crate::core::purpose::Purpose;
use crate::core::rights::Principal;
use crate::store::{Batch, Stored};
use crate::{Scheduler, SchedulerError};

/// Life of an access token.
pub(crate) const ACCESS_LIFE: Duration = Duration::from_secs(3600);
/// Life of a refresh token, and of its family without a refresh.
const REFRESH_LIFE: Duration = Duration::from_secs(30 * 86_400);

/// Longest life of a token that is narrowed to one purpose: an invitation, or a link in a letter.
pub(crate) const LONGEST_PURPOSE: Duration = Duration::from_secs(31 * 86_400);

/// Whose token it is.
pub(crate) struct Subject {
    pub(crate) sub: String,
    pub(crate) role: Role,
    pub(crate) channels: Vec<Channel>,
    pub(crate) epoch: u64,
    pub(crate) scope: Option<String>,
    /// An end of its own.
    pub(crate) until: Option<Timestamp>,
}

impl Scheduler {
    pub(crate) fn access_token(&self, subject: Subject, now: Timestamp) -> String {
        self.token_named(subject, now, self.next_id().to_string()).0
    }

    /// An access token with this id, and its end.
    pub(crate) fn token_named(&self, subject: Subject, now: Timestamp, jti: String) -> (String, Timestamp) {
        let end = now + ACCESS_LIFE;
        let end = subject.until.map_or(end, |until| until.min(end));
        let claims = Claims {
            iss: ISSUER.into(),
            sub: subject.sub,
            role: subject.role,
            channel: subject.channels,
            scope: subject.scope,
            epoch: subject.epoch,
            jti,
            iat: now.as_secs(),
            exp: end.as_secs(),
            signed_by: None,
        };
        (self.inner.keys.sign(&claims, now), end)
    }

    /// A token of `user` for one purpose. A new password of the user ends it.
    pub(crate) fn purpose_token(&self, user: &User, purpose: Purpose, expires: Timestamp) -> String {
        let now = self.now();
        let claims = Claims {
            iss: ISSUER.into(),
            sub: user.username.clone(),
            role: user.role,
            channel: user.channels.clone(),
            scope: Some(purpose.scope()),
            epoch: user.epoch,
            jti: self.next_id().to_string(),
            iat: now.as_secs(),
            exp: expires.as_secs(),
            signed_by: None,
        };
        self.inner.keys.sign(&claims, now)
    }

    /// What a token for one purpose is for, and whose it is. Its user is looked up: revocations are published for hours, and
    /// such a token lives for weeks.
    pub(crate) fn read_purpose(
        &self,
        token: &str,
    ) -> Result<(Purpose, Claims, Stored<User>), SchedulerError> {
        let claims = self.keys().verify(token, self.now()).map_err(|_| SchedulerError::NotKnown)?;
        let purpose = Purpose::of(claims.scope.as_deref()).ok_or(SchedulerError::NotKnown)?;
        let user = self.user_by_name(&claims.sub)?;
        let user = user.filter(|u| u.value.epoch == claims.epoch && u.value.is_active(self.now()));
        Ok((purpose, claims, user.ok_or(SchedulerError::NotKnown)?))
    }

    /// The scheduler's own token, towards broker and warehouses.
    pub(crate) fn own_token(&self) -> String {
        let subject = Subject {
            sub: "scheduler".into(),
            role: Role::Scheduler,
            channels: Vec::new(),
            epoch: 0,
            scope: None,
            until: None,
        };
        self.access_token(subject, self.now())
    }

    /// A token that may put one task's image.
    pub(crate) fn upload_token(&self, owner: &Principal, task: TaskId, channel: &Channel) -> String {
        let subject = Subject {
            sub: owner.sub.clone(),
            role: Role::Creator,
            channels: vec![channel.clone()],
            epoch: owner.epoch,
            scope: Some(Claims::upload_scope(task)),
            until: None,
        };
        self.access_token(subject, self.now())
    }

    /// A new family and its first pair.
    pub(crate) async fn new_pair(
        &self,
        subject: Subject,
        appliance: bool,
    ) -> Result<TokenPair, SchedulerError> {
        let now = self.now();
        let family = RefreshFamily {
            id: self.next_id(),
            sub: subject.sub.clone(),
            appliance,
            epoch: subject.epoch,
            number: 1,
            expires: now + REFRESH_LIFE,
            revoked: false,
        };
        let mut batch = Batch::new();
        batch.create(&family);
        self.inner.store.apply(batch).await?;
        Ok(self.pair(subject, &family, now))
    }

    fn pair(&self, subject: Subject, family: &RefreshFamily, now: Timestamp) -> TokenPair {
        TokenPair {
            access_token: self.access_token(subject, now),
            refresh_token: self.refresh_text(family.id, family.number),
            expires_in: ACCESS_LIFE.as_secs(),
        }
    }

    fn refresh_text(&self, family: ObjectId, number: u64) -> String {
        let mac = self.refresh_mac(family, number);
        format!("csr1.{family}.{number}.{}", mac.to_hex())
    }

    fn refresh_mac(&self, family: ObjectId, number: u64) -> blake3::Hash {
        let text = format!("cardshop refresh 1\n{family}\n{number}");
        blake3::keyed_hash(&self.inner.keys.refresh(), text.as_bytes())
    }

    fn read_refresh(&self, text: &str) -> Option<(ObjectId, u64)> {
        let parts: Vec<&str> = text.split('.').collect();
        let ["csr1", family, number, mac] = parts[..] else { return None };
        let (family, number) = (family.parse().ok()?, number.parse().ok()?);
        // Comparing two `blake3::Hash` takes the same time wherever they differ.
        let mac = blake3::Hash::from_hex(mac).ok()?;
        (self.refresh_mac(family, number) == mac).then_some((family, number))
    }

    /// Exchanges a refresh token for the next pair.
    ///
    /// # Errors
    /// `NotKnown` for every cause; a token used before also revokes its family.
    pub async fn refresh(&self, token: &str) -> Result<TokenPair, SchedulerError> {
        let (id, number) = self.read_refresh(token).ok_or(SchedulerError::NotKnown)?;
        let decide = || {
            let now = self.now();
            let stored = self.inner.store.get::<RefreshFamily>(&id.to_string())?;
            let stored = stored.ok_or(SchedulerError::NotKnown)?;
            let mut family = stored.value.clone();
            if family.revoked || now >= family.expires {
                return Err(SchedulerError::NotKnown);
            }
            let reused = number != family.number;
            let subject = if reused { None } else { self.subject_of(&family)? };
            match &subject {
                Some(_) => {
                    family.number += 1;
                    family.expires = now + REFRESH_LIFE;
                }
                None => family.revoked = true,
            }
            let mut batch = Batch::new();
            batch.update(&stored, &family);
            Ok((Some(batch), (family, reused, subject, now)))
        };
        let ((family, reused, subject, now), _) = self.change(decide).await?;
        if reused {
            tracing::warn!(sub = family.sub, "a refresh token was used twice: its family is revoked");
        }
        match subject {
            Some(subject) => Ok(self.pair(subject, &family, now)),
            None => Err(SchedulerError::NotKnown),
        }
    }

    /// Who the family belongs to, as they are now; `None` when they may not log in any more.
    fn subject_of(&self, family: &RefreshFamily) -> Result<Option<Subject>, SchedulerError> {
        if family.appliance {
            let Ok(id) = family.sub.parse::<ApplianceId>() else { return Ok(None) };
            let appliance = self.inner.store.get::<Appliance>(&id.to_string())?;
            let approved = appliance.map(|a| a.value).filter(|a| a.state == Membership::Approved);
            return Ok(approved.map(|a| Subject {
                sub: family.sub.clone(),
                role: Role::Appliance,
                channels: a.channels,
                epoch: a.epoch,
                scope: None,
                until: None,
            }));
        }
        let user = self.user_by_name(&family.sub)?.map(|u| u.value);
        let user = user.filter(|u| u.is_active(self.now()) && u.epoch == family.epoch);
        Ok(user.map(|u| Subject {
            sub: u.username,
            role: u.role,
            channels: u.channels,
            epoch: u.epoch,
            scope: None,
            until: u.expires,
        }))
    }
}
