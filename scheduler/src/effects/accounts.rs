//! Users: login, authentication of tokens, making and disabling. One error text for all causes of a failed login.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use cardshop_protocol::api::{Page, TokenPair};
use cardshop_protocol::ids::{Channel, ObjectId};
use cardshop_protocol::token::Role;

use super::idempotency::Once;
use super::paging::PageRequest;
use super::passwords::random_password;
use super::tokens::Subject;
use super::{MAX_TRIES, catalogue::channel_list};
use crate::core::documents::{DEFAULT_CHANNEL, Unique, User};
use crate::core::fields::{Fields, InvalidField};
use crate::core::rights::{Action, Principal};
use crate::core::throttle::Throttle;
use crate::core::views::UserView;
use crate::store::{Batch, StoreError, Stored};
use crate::{Scheduler, SchedulerError};

/// Failed logins of one account from one address before it has to wait, and the wait for each further one.
const ACCOUNT_FAILURES: (u32, Duration) = (10, Duration::from_secs(30));
/// Failed logins of one address.
const ADDRESS_FAILURES: (u32, Duration) = (100, Duration::from_secs(3));

/// Login name of the creator that runs in the scheduler's own process.
const LOCAL_CREATOR: &str = "local-creator";

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

/// A user to be made.
#[derive(Clone)]
pub struct NewUser {
    /// Login name.
    pub username: String,
    /// Password.
    pub password: String,
    /// Role.
    pub role: Role,
    /// Channels; empty means all for staff and creators, `default` for others.
    pub channels: Vec<Channel>,
}

impl NewUser {
    pub(crate) fn read(mut fields: Fields) -> Result<Self, InvalidField> {
        Ok(Self {
            username: fields.required("username")?,
            password: fields.required("password")?,
            role: fields.required("role")?,
            channels: channel_list(&mut fields, "channels")?.unwrap_or_default(),
        })
    }

    fn check(&self) -> Result<(), InvalidField> {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.@".contains(&b);
        let name = &self.username;
        let starts = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !starts || name.len() > 64 || !name.bytes().all(good) {
            let reason = "must be 1 to 64 of a-z 0-9 - _ . @, starting with a letter or digit";
            return Err(InvalidField::new("username", reason));
        }
        // An appliance's id and the scheduler's name are theirs at the broker.
        if name == "scheduler" || name.parse::<cardshop_protocol::ids::ApplianceId>().is_ok() {
            return Err(InvalidField::new("username", "is reserved"));
        }
        if matches!(self.role, Role::Scheduler | Role::Appliance) {
            return Err(InvalidField::new("role", "must be staff, manager, operator, creator or integrator"));
        }
        Ok(())
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
        let user = self.user_by_name(&username)?.map(|u| u.value).filter(|u| !u.disabled);
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
        let subject = Subject {
            sub: user.username,
            role: user.role,
            channels: user.channels,
            epoch: user.epoch,
            scope: None,
        };
        self.new_pair(subject, false).await
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
        Principal::from_claims(claims, address.to_owned()).ok_or(SchedulerError::NotKnown)
    }

    /// True while the caller's token has not ended and nobody disabled it: for what lasts longer than a request.
    pub fn is_current(&self, caller: &Principal) -> bool {
        let keys = self.keys().current();
        let revoked = keys.revoked.iter().any(|r| r.sub == caller.sub && caller.epoch < r.epoch);
        self.now().as_secs() < caller.expires && !revoked
    }

    /// Makes a user.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid`, `Conflict` when the name is taken.
    pub async fn create_user(
        &self,
        caller: &Principal,
        mut new: NewUser,
        once: Option<Once>,
    ) -> Result<UserView, SchedulerError> {
        caller.must(Action::Administer)?;
        if let Some(answer) = self.answered(once.as_ref()).await? {
            return Ok(answer);
        }
        new.check()?;
        if new.channels.is_empty() && !matches!(new.role, Role::Staff | Role::Creator) {
            new.channels = vec![DEFAULT_CHANNEL.parse().expect("a slug")];
        }
        for channel in &new.channels {
            self.channel_by_slug(channel)?
                .ok_or_else(|| InvalidField::new("channels", format!("there is no channel {channel}")))?;
        }
        let password = self.inner.passwords.hash(new.password).await?;
        let user = User {
            id: self.next_id(),
            username: new.username,
            password,
            role: new.role,
            channels: new.channels,
            disabled: false,
            epoch: 0,
            epoch_raised: None,
            created: self.now(),
        };
        let view = UserView::from(&user);
        let mut batch = self.audited(caller, "user.create", &user.id.to_string());
        batch.create(&unique_name(&user)).create(&user);
        self.apply_once(batch, once, view, |kind| {
            (kind == "unique").then_some(SchedulerError::Conflict {
                code: "username_taken",
                text: format!("there is a user {} already", user.username),
            })
        })
        .await
    }

    /// The account of a creator in the scheduler's own process, for all channels: made at the first start, with a
    /// new password at every start, which is kept nowhere but in that process. Gives name and password.
    ///
    /// # Errors
    /// `Busy`, or those of the store.
    pub async fn local_creator(&self) -> Result<(String, String), SchedulerError> {
        let password = random_password();
        let hash = self.inner.passwords.hash(password.clone()).await?;
        let mut batch = Batch::new();
        match self.user_by_name(LOCAL_CREATOR)? {
            Some(stored) => {
                batch.update(&stored, &User { password: hash, ..stored.value.clone() });
            }
            None => {
                let user = User {
                    id: self.next_id(),
                    username: LOCAL_CREATOR.into(),
                    password: hash,
                    role: Role::Creator,
                    channels: Vec::new(),
                    disabled: false,
                    epoch: 0,
                    epoch_raised: None,
                    created: self.now(),
                };
                batch.create(&unique_name(&user)).create(&user);
            }
        }
        self.inner.store.apply(batch).await?;
        Ok((LOCAL_CREATOR.into(), password))
    }

    /// Disables a user: it cannot log in, and its tokens end everywhere within seconds.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Conflict` for the caller itself.
    pub async fn disable_user(&self, caller: &Principal, id: ObjectId) -> Result<UserView, SchedulerError> {
        caller.must(Action::Administer)?;
        for _ in 0..MAX_TRIES {
            let stored = self.inner.store.get::<User>(&id.to_string())?;
            let stored = stored.ok_or(SchedulerError::NotFound("user"))?;
            let mut user = stored.value.clone();
            if user.username == caller.sub {
                let text = "nobody disables themselves: ask another of the staff".to_owned();
                return Err(SchedulerError::Conflict { code: "own_account", text });
            }
            if user.disabled {
                return Ok(UserView::from(&user));
            }
            user.disabled = true;
            user.epoch += 1;
            user.epoch_raised = Some(self.now());
            let mut batch = self.audited(caller, "user.disable", &user.id.to_string());
            batch.update(&stored, &user);
            match self.inner.store.apply(batch).await {
                Ok(()) => {
                    self.publish_keys()?;
                    return Ok(UserView::from(&user));
                }
                Err(StoreError::Conflict { .. }) => continue,
                Err(error) => return Err(error.into()),
            }
        }
        Err(SchedulerError::Busy)
    }

    /// Users.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid` for a wrong cursor.
    pub fn users(&self, caller: &Principal, page: &PageRequest) -> Result<Page<UserView>, SchedulerError> {
        caller.must(Action::Administer)?;
        self.page::<User, _>(page, None, false, |u| Some(UserView::from(&u.value)))
    }
}

/// What failures are counted by: an IPv4 address, or the /64 that one host of IPv6 can take any address of.
fn network(address: &str) -> String {
    match address.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V6(ip)) => {
            let network = ip.to_bits() & !u128::from(u64::MAX);
            format!("{}/64", Ipv6Addr::from_bits(network))
        }
        Ok(IpAddr::V4(ip)) => ip.to_string(),
        Err(_) => address.to_owned(),
    }
}

pub(crate) fn unique_name(user: &User) -> Unique {
    Unique { kind: "user".into(), name: user.username.clone(), owner: user.id }
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
