//! Logins and what a token says of its caller. One error text for all causes of a failed login.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use cardshop_protocol::api::TokenPair;
use cardshop_protocol::keys::KeyUse;

use super::tokens::Subject;
use crate::core::documents::{Unique, User};
use crate::core::purpose::Purpose;
use crate::core::rights::{Action, Principal};
use crate::core::throttle::Throttle;
use crate::core::views::ValidToken;
use crate::store::{Batch, Stored};
use crate::{Scheduler, SchedulerError};

/// Failed logins of one account from one address before it has to wait, and the wait for each further one.
const ACCOUNT_FAILURES: (u32, Duration) = (10, Duration::from_secs(30));
/// Failed logins of one address.
const ADDRESS_FAILURES: (u32, Duration) = (100, Duration::from_secs(3));

/// Who failed how often.
pub(crate) struct Throttles {
    account: Throttle,
    address: Throttle,
}

impl Default for Throttles {
    fn default() -> Self {
        Self {
            account: Throttle::new(ACCOUNT_FAILURES.0, ACCOUNT_FAILURES.1),
            address: Throttle::new(ADDRESS_FAILURES.0, ADDRESS_FAILURES.1),
        }
    }
}

impl Scheduler {
    pub(crate) fn user_by_name(&self, username: &str) -> Result<Option<Stored<User>>, SchedulerError> {
        if username.len() > 64 || username.contains('\0') {
            return Ok(None);
        }
        let unique = self.inner.store.get::<Unique>(&format!("user:{username}"))?;
        let Some(unique) = unique else { return Ok(None) };
        Ok(self.inner.store.get::<User>(&unique.value.owner.to_string())?)
    }

    /// Checks a password and gives a pair of tokens. `address` is where the request came from.
    ///
    /// # Errors
    /// `NotKnown` for every cause, `TooManyAttempts`, `Busy`.
    pub async fn login(
        &self,
        username: &str,
        password: &str,
        address: &str,
    ) -> Result<TokenPair, SchedulerError> {
        let user = self.check_password(username, password, address).await?;
        let subject = Subject {
            sub: user.username,
            role: user.role,
            channels: user.channels,
            epoch: user.epoch,
            scope: None,
            until: user.expires,
        };
        self.new_pair(subject, false).await
    }

    /// The user with this name and password; failures are counted.
    pub(crate) async fn check_password(
        &self,
        username: &str,
        password: &str,
        address: &str,
    ) -> Result<User, SchedulerError> {
        let username = username.trim().to_lowercase();
        let address = &network(address);
        let account = format!("{}@{address}", username.chars().take(64).collect::<String>());
        {
            let throttles = self.inner.throttles.lock().expect("no holder panics");
            let now = self.now();
            if !throttles.account.allows(&account, now) || !throttles.address.allows(address, now) {
                return Err(SchedulerError::TooManyAttempts);
            }
        }
        let user = self.user_by_name(&username)?.map(|u| u.value).filter(|u| u.is_active(self.now()));
        let phc = user.as_ref().map(|u| u.password.clone());
        let fits = self.inner.passwords.verify(password.to_owned(), phc).await?;
        let Some(user) = user.filter(|_| fits) else {
            let mut throttles = self.inner.throttles.lock().expect("no holder panics");
            throttles.account.failed(&account, self.now());
            throttles.address.failed(address, self.now());
            self.inner.metrics.logins_failed.add();
            return Err(SchedulerError::NotKnown);
        };
        self.inner.throttles.lock().expect("no holder panics").account.succeeded(&account);
        Ok(user)
    }

    /// Who holds this access token.
    ///
    /// # Errors
    /// `NotKnown` for every cause.
    pub fn authenticate(&self, token: &str, address: &str) -> Result<Principal, SchedulerError> {
        let claims = self.keys().verify(token, self.now()).map_err(|error| {
            tracing::debug!(%error, "a token is refused");
            SchedulerError::NotKnown
        })?;
        if !self.session_counts(&claims)? {
            return Err(SchedulerError::NotKnown);
        }
        let caller = Principal::from_claims(claims, address.to_owned()).ok_or(SchedulerError::NotKnown)?;
        if caller.rights.is_some() {
            let mut uses = self.inner.key_uses.lock().expect("no holder panics");
            uses.insert(caller.sub.clone(), self.now());
        }
        Ok(caller)
    }

    /// What a token says, for services that ask instead of checking it against the published keys.
    ///
    /// # Errors
    /// `NotKnown` for every cause.
    pub fn validate(&self, token: &str) -> Result<ValidToken, SchedulerError> {
        let claims = self.keys().verify(token, self.now()).map_err(|_| SchedulerError::NotKnown)?;
        // Links act here and nowhere else.
        if Purpose::of(claims.scope.as_deref()).is_some() {
            return Err(SchedulerError::NotKnown);
        }
        Ok(ValidToken {
            sub: claims.sub,
            role: claims.role,
            channels: claims.channel,
            scope: claims.scope,
            expires: claims.exp,
        })
    }

    /// True while the caller's token has not ended and nobody disabled it or revoked its key: for what lasts longer than a request.
    pub fn is_current(&self, caller: &Principal) -> bool {
        let keys = self.keys().current();
        let revoked = keys.revoked.iter().any(|r| r.sub == caller.sub && caller.epoch < r.epoch);
        let signed = caller.signed_by.is_none_or(|kid| keys.find(kid, KeyUse::Jwt, self.now()).is_some());
        self.now().as_secs() < caller.expires && !revoked && signed
    }
}

/// What failures are counted by: an IPv4 address, or the /64 that one host of IPv6 can take any address of.
pub(super) fn network(address: &str) -> String {
    match address.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V6(ip)) => {
            let network = ip.to_bits() & !u128::from(u64::MAX);
            format!("{}/64", Ipv6Addr::from_bits(network))
        }
        Ok(IpAddr::V4(ip)) => ip.to_string(),
        Err(_) => address.to_owned(),
    }
}

impl Principal {
    /// # Errors
    /// `NotAllowed` when its role may not.
    pub(crate) fn must(&self, action: Action) -> Result<(), SchedulerError> {
        if self.may(action) {
            return Ok(());
        }
        let role = format!("{:?}", self.role).to_lowercase();
        Err(SchedulerError::NotAllowed(format!("a login of role {role} may not do this")))
    }
}

impl Scheduler {
    /// A batch that begins with the audit's line.
    pub(crate) fn audited(&self, caller: &Principal, action: &str, object: &str) -> Batch {
        let mut batch = Batch::new();
        batch.create(&crate::core::documents::Audit {
            id: self.next_id(),
            at: self.now(),
            who: caller.sub.clone(),
            address: caller.address.clone(),
            action: action.to_owned(),
            object: object.to_owned(),
        });
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::network;

    #[test]
    fn a_host_does_not_escape_the_count_by_changing_its_address() {
        assert_eq!(network("2001:db8:1:2:3::4"), network("2001:db8:1:2:ffff::1"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_eq!(network("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(network("unknown"), "unknown");
    }
}
