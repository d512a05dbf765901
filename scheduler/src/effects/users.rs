//! Users: making, disabling, passwords. Whatever takes a right away ends the user's tokens everywhere within
//! seconds: their epoch is raised.

use cardshop_protocol::api::Page;
use cardshop_protocol::ids::{Channel, ObjectId};
use cardshop_protocol::token::Role;

use super::catalogue::channel_list;
use super::idempotency::Once;
use super::paging::PageRequest;
use super::passwords::random_password;
use crate::core::documents::{DEFAULT_CHANNEL, Unique, User};
use crate::core::fields::{Fields, InvalidField};
use crate::core::rights::{Action, Principal};
use crate::core::units::Organization;
use crate::core::views::UserView;
use crate::store::Batch;
use crate::{Scheduler, SchedulerError};

/// Login name of the creator that runs in the scheduler's own process.
pub(crate) const LOCAL_CREATOR: &str = "local-creator";

/// A user to be made.
#[derive(Clone)]
pub struct NewUser {
    /// Login name.
    pub username: String,
    /// Password.
    pub password: String,
    /// Role.
    pub role: Role,
    /// Channels; empty means the organization's, or all for staff and creators, `default` for others.
    pub channels: Vec<Channel>,
    /// Who pays for its orders; without, they cost nothing.
    pub organization: Option<ObjectId>,
}

impl NewUser {
    pub(crate) fn read(mut fields: Fields) -> Result<Self, InvalidField> {
        Ok(Self {
            username: fields.required("username")?,
            password: fields.required("password")?,
            role: fields.required("role")?,
            channels: channel_list(&mut fields, "channels")?.unwrap_or_default(),
            organization: fields.optional("organization")?,
        })
    }

    fn check(&self) -> Result<(), InvalidField> {
        check_username("username", &self.username)?;
        if matches!(self.role, Role::Scheduler | Role::Appliance) {
            return Err(InvalidField::new("role", "must be staff, manager, operator, creator or integrator"));
        }
        Ok(())
    }
}

/// What a user or API key may be called.
pub(crate) fn check_username(field: &'static str, name: &str) -> Result<(), InvalidField> {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.@".contains(&b);
    let starts = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !starts || name.len() > 64 || !name.bytes().all(good) {
        let reason = "must be 1 to 64 of a-z 0-9 - _ . @, starting with a letter or digit";
        return Err(InvalidField::new(field, reason));
    }
    // An appliance's id and the scheduler's name are theirs at the broker.
    if name == "scheduler" || name.parse::<cardshop_protocol::ids::ApplianceId>().is_ok() {
        return Err(InvalidField::new(field, "is reserved"));
    }
    Ok(())
}

impl Scheduler {
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
        if let Some(id) = new.organization {
            let found = self.inner.store.get::<Organization>(&id.to_string())?;
            let found =
                found.ok_or_else(|| InvalidField::new("organization", "there is no such organization"))?;
            if new.channels.is_empty() {
                new.channels = vec![found.value.channel];
            }
        }
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
            organization: new.organization,
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
                    organization: None,
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
        self.change_user(caller, "user.disable", id, |user| {
            if user.username == caller.sub {
                let text = "nobody disables themselves: ask another of the staff".to_owned();
                return Err(SchedulerError::Conflict { code: "own_account", text });
            }
            Ok(!std::mem::replace(&mut user.disabled, true))
        })
        .await
    }

    /// Lets a disabled user log in again, with the password it had.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`.
    pub async fn enable_user(&self, caller: &Principal, id: ObjectId) -> Result<UserView, SchedulerError> {
        caller.must(Action::Administer)?;
        self.change_user(caller, "user.enable", id, |user| Ok(std::mem::take(&mut user.disabled))).await
    }

    /// Gives a user another password; its tokens end.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Invalid`, `Busy`.
    pub async fn reset_password(
        &self,
        caller: &Principal,
        id: ObjectId,
        password: String,
    ) -> Result<UserView, SchedulerError> {
        caller.must(Action::Administer)?;
        self.set_password(caller, "user.reset-password", id, password).await
    }

    /// Changes the caller's own password and ends all its tokens, also the one it calls with. A wrong old password
    /// counts as a failed login.
    ///
    /// # Errors
    /// `NotKnown` for a wrong old password, `TooManyAttempts`, `Invalid`, `Busy`.
    pub async fn change_password(
        &self,
        caller: &Principal,
        old: &str,
        new: String,
    ) -> Result<UserView, SchedulerError> {
        let user = self.check_password(&caller.sub, old, &caller.address).await?;
        self.set_password(caller, "user.change-password", user.id, new).await
    }

    async fn set_password(
        &self,
        caller: &Principal,
        action: &str,
        id: ObjectId,
        password: String,
    ) -> Result<UserView, SchedulerError> {
        let hash = self.inner.passwords.hash(password).await?;
        self.change_user(caller, action, id, |user| {
            user.password.clone_from(&hash);
            Ok(true)
        })
        .await
    }

    /// Applies `change` and ends the user's tokens; nothing happens when it answers false.
    async fn change_user(
        &self,
        caller: &Principal,
        action: &str,
        id: ObjectId,
        change: impl Fn(&mut User) -> Result<bool, SchedulerError>,
    ) -> Result<UserView, SchedulerError> {
        let decide = || {
            let stored = self.inner.store.get::<User>(&id.to_string())?;
            let stored = stored.ok_or(SchedulerError::NotFound("user"))?;
            let mut user = stored.value.clone();
            if !change(&mut user)? {
                return Ok((None, user));
            }
            user.epoch += 1;
            user.epoch_raised = Some(self.now());
            let mut batch = self.audited(caller, action, &user.id.to_string());
            batch.update(&stored, &user);
            Ok((Some(batch), user))
        };
        let (user, stored) = self.change(decide).await?;
        if stored {
            self.publish_keys()?;
        }
        Ok(UserView::from(&user))
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

pub(crate) fn unique_name(user: &User) -> Unique {
    Unique { kind: "user".into(), name: user.username.clone(), owner: user.id }
}
