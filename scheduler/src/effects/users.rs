//! Users: making, disabling, passwords. Whatever takes a right away ends the user's tokens everywhere within
//! seconds: their epoch is raised.

use cardshop_protocol::api::Page;
use cardshop_protocol::ids::{Channel, ObjectId};
use cardshop_protocol::time::Timestamp;
use cardshop_protocol::token::Role;
use std::time::Duration;

use super::catalogue::{channel_list, not_an_object};
use super::idempotency::Once;
use super::paging::PageRequest;
use super::passwords::random_password;
use crate::core::documents::{DEFAULT_CHANNEL, Unique, User};
use crate::core::fields::{Fields, InvalidField, MAX_EMAIL, check_email};
use crate::core::purpose::Purpose;
use crate::core::rights::{Action, Principal};
use crate::core::units::Organization;
use crate::core::views::{ActionLink, UserView};
use crate::store::Batch;
use crate::{Scheduler, SchedulerError};

/// Login name of the creator that runs in the scheduler's own process.
pub(crate) const LOCAL_CREATOR: &str = "local-creator";

/// Life of a reset's token.
pub(super) const RESET_LIFE: Duration = Duration::from_secs(86_400);
/// Life of an invitation's token: people read their letters once a week.
pub(super) const INVITATION_LIFE: Duration = Duration::from_secs(14 * 86_400);

/// A user to be made.
#[derive(Clone)]
pub struct NewUser {
    /// Login name.
    pub username: String,
    /// Password; with one that nobody knows it waits for an invitation to be used.
    pub password: String,
    /// Role.
    pub role: Role,
    /// Channels; empty means the organization's, or all for staff and creators, `default` for others.
    pub channels: Vec<Channel>,
    /// Who pays for its orders; without, they cost nothing.
    pub organization: Option<ObjectId>,
    /// Where letters to it go.
    pub email: Option<String>,
    /// It may not log in after this.
    pub expires: Option<Timestamp>,
    /// It orders downloads and no cards.
    pub links_only: bool,
}

impl NewUser {
    pub(crate) fn read(mut fields: Fields) -> Result<Self, InvalidField> {
        Ok(Self {
            username: fields.required("username")?,
            password: fields.optional("password")?.unwrap_or_else(random_password),
            role: fields.required("role")?,
            channels: channel_list(&mut fields, "channels")?.unwrap_or_default(),
            organization: fields.optional("organization")?,
            email: read_email(&mut fields)?,
            expires: fields.optional("expires")?,
            links_only: fields.optional("links_only")?.unwrap_or(false),
        })
    }

    fn check(&self) -> Result<(), InvalidField> {
        check_username("username", &self.username)?;
        check_role(self.role)
    }
}

/// What a user may be.
fn check_role(role: Role) -> Result<(), InvalidField> {
    if matches!(role, Role::Scheduler | Role::Appliance) {
        return Err(InvalidField::new("role", "must be staff, manager, operator, creator or integrator"));
    }
    Ok(())
}

/// No channels mean all of them.
fn works_for_all(role: Role) -> bool {
    matches!(role, Role::Staff | Role::Creator)
}

/// An e-mail address, as far as a text can tell: a letter to it tells the rest.
pub(crate) fn read_email(fields: &mut Fields) -> Result<Option<String>, InvalidField> {
    let Some(email) = fields.text("email", MAX_EMAIL)? else { return Ok(None) };
    check_email(&email)?;
    Ok(Some(email))
}

/// What a change does to the tokens of its user.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tokens {
    /// Nothing is changed.
    Unchanged,
    Kept,
    Ended,
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
    if name == "scheduler"
        || name == super::auto_images::BUILDER
        || name.parse::<cardshop_protocol::ids::ApplianceId>().is_ok()
    {
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
        if new.channels.is_empty() && !works_for_all(new.role) {
            new.channels = vec![DEFAULT_CHANNEL.parse().expect("a slug")];
        }
        self.must_be_channels(&new.channels)?;
        let password = self.inner.passwords.hash(new.password).await?;
        let user = User {
            id: self.next_id(),
            username: new.username,
            password,
            role: new.role,
            channels: new.channels,
            organization: new.organization,
            email: new.email,
            expires: new.expires,
            anonymised: false,
            links_only: new.links_only,
            hook: None,
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
                    email: None,
                    expires: None,
                    anonymised: false,
                    links_only: false,
                    hook: None,
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
            not_oneself(caller, user)?;
            Ok(if std::mem::replace(&mut user.disabled, true) { Tokens::Unchanged } else { Tokens::Ended })
        })
        .await
    }

    /// Lets a disabled user log in again, with the password it had.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`.
    pub async fn enable_user(&self, caller: &Principal, id: ObjectId) -> Result<UserView, SchedulerError> {
        caller.must(Action::Administer)?;
        self.change_user(caller, "user.enable", id, |user| {
            if user.anonymised {
                let text = "who this was is forgotten: make a new user".to_owned();
                return Err(SchedulerError::Conflict { code: "anonymised", text });
            }
            Ok(if std::mem::take(&mut user.disabled) { Tokens::Ended } else { Tokens::Unchanged })
        })
        .await
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
            Ok(Tokens::Ended)
        })
        .await
    }

    /// Says until when a user may log in; without an end for good. Earlier than before ends its tokens.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Conflict` for the caller itself.
    pub async fn expire_user(
        &self,
        caller: &Principal,
        id: ObjectId,
        expires: Option<Timestamp>,
    ) -> Result<UserView, SchedulerError> {
        caller.must(Action::Administer)?;
        self.change_user(caller, "user.expiry", id, |user| {
            not_oneself(caller, user)?;
            let before = std::mem::replace(&mut user.expires, expires);
            let earlier = expires.is_some_and(|end| before.is_none_or(|before| end < before));
            Ok(match (before == expires, earlier) {
                (true, _) => Tokens::Unchanged,
                (false, true) => Tokens::Ended,
                (false, false) => Tokens::Kept,
            })
        })
        .await
    }

    /// A token with which a user sets its password itself, once: an invitation, or a reset. Where the user has an address
    /// of mail a letter with such a link goes there. Whoever has it may set the password, so it goes nowhere else.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Conflict` when the user may not log in.
    pub async fn password_link(
        &self,
        caller: &Principal,
        id: ObjectId,
        invitation: bool,
    ) -> Result<ActionLink, SchedulerError> {
        caller.must(Action::Administer)?;
        let stored = self.inner.store.get::<User>(&id.to_string())?;
        let user = stored.ok_or(SchedulerError::NotFound("user"))?.value;
        if !user.is_active(self.now()) {
            let text = "this user may not log in: enable it first, or give it more time".to_owned();
            return Err(SchedulerError::Conflict { code: "not_active", text });
        }
        let (action, life) =
            if invitation { ("user.invite", INVITATION_LIFE) } else { ("user.reset-link", RESET_LIFE) };
        let expires = self.now() + life;
        let mut batch = self.audited(caller, action, &id.to_string());
        self.add_password_letter(&user, invitation, expires, &mut batch)?;
        self.inner.store.apply(batch).await?;
        Ok(ActionLink { token: self.purpose_token(&user, Purpose::Password(id), expires), expires })
    }

    /// Sets the password of the user that the token of an invitation or a reset is for. The new password ends the token.
    ///
    /// # Errors
    /// `NotKnown` for every fault of the token, `Invalid`, `Busy`.
    pub async fn set_password_by_link(
        &self,
        token: &str,
        password: String,
        address: &str,
    ) -> Result<UserView, SchedulerError> {
        let (purpose, claims, user) = self.read_purpose(token)?;
        let Purpose::Password(id) = purpose else { return Err(SchedulerError::NotKnown) };
        if user.value.id != id {
            return Err(SchedulerError::NotKnown);
        }
        let hash = self.inner.passwords.hash(password).await?;
        let caller = Principal {
            sub: claims.sub,
            role: claims.role,
            channels: claims.channel,
            epoch: claims.epoch,
            rights: None,
            expires: claims.exp,
            signed_by: claims.signed_by,
            address: address.to_owned(),
        };
        self.change_user(&caller, "user.password-by-link", id, |user| {
            // Of two at once with one token the second finds it used.
            if user.epoch != caller.epoch {
                return Err(SchedulerError::NotKnown);
            }
            user.password.clone_from(&hash);
            Ok(Tokens::Ended)
        })
        .await
    }

    /// One user.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`.
    pub fn user(&self, caller: &Principal, id: ObjectId) -> Result<UserView, SchedulerError> {
        caller.must(Action::Administer)?;
        let found = self.inner.store.get::<User>(&id.to_string())?;
        found.map(|u| UserView::from(&u.value)).ok_or(SchedulerError::NotFound("user"))
    }

    /// Changes `{role?, channels?, organization?, email?, links_only?}`: what is left out stays, null takes it away. Another role or other
    /// channels end the user's tokens, which name them.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Invalid`, `Conflict` for the caller's own role and channels.
    pub async fn update_user(
        &self,
        caller: &Principal,
        id: ObjectId,
        body: serde_json::Value,
    ) -> Result<UserView, SchedulerError> {
        caller.must(Action::Administer)?;
        self.change_user(caller, "user.update", id, |user| {
            let before = user.clone();
            let mut fields = Fields::new(body.clone()).ok_or_else(not_an_object)?;
            if fields.has("email") {
                user.email = read_email(&mut fields)?;
            }
            if let Some(organization) = fields.changed::<ObjectId>("organization")? {
                self.must_be_there(organization)?;
                user.organization = organization;
            }
            user.links_only = fields.optional("links_only")?.unwrap_or(user.links_only);
            user.role = fields.optional("role")?.unwrap_or(user.role);
            check_role(user.role)?;
            if fields.has("channels") {
                user.channels = channel_list(&mut fields, "channels")?.unwrap_or_default();
                self.must_be_channels(&user.channels)?;
            }
            if user.channels.is_empty() && !works_for_all(user.role) {
                user.channels = vec![DEFAULT_CHANNEL.parse().expect("a slug")];
            }
            let rights = (user.role, &user.channels) != (before.role, &before.channels);
            if rights {
                not_oneself(caller, user)?;
                return Ok(Tokens::Ended);
            }
            let same = (user.organization, &user.email, user.links_only)
                == (before.organization, &before.email, before.links_only);
            Ok(if same { Tokens::Unchanged } else { Tokens::Kept })
        })
        .await
    }

    fn must_be_there(&self, organization: Option<ObjectId>) -> Result<(), SchedulerError> {
        let Some(id) = organization else { return Ok(()) };
        let found = self.inner.store.get::<Organization>(&id.to_string())?;
        found
            .map(|_| ())
            .ok_or_else(|| InvalidField::new("organization", "there is no such organization").into())
    }

    fn must_be_channels(&self, channels: &[Channel]) -> Result<(), SchedulerError> {
        for channel in channels {
            self.channel_by_slug(channel)?
                .ok_or_else(|| InvalidField::new("channels", format!("there is no channel {channel}")))?;
        }
        Ok(())
    }

    /// Ends a user's tokens, and nothing else.
    pub(crate) async fn end_tokens(
        &self,
        caller: &Principal,
        action: &str,
        id: ObjectId,
    ) -> Result<UserView, SchedulerError> {
        self.change_user(caller, action, id, |_| Ok(Tokens::Ended)).await
    }

    /// Locks a user out, whoever asks.
    pub(crate) async fn lock_out(
        &self,
        caller: &Principal,
        id: ObjectId,
    ) -> Result<UserView, SchedulerError> {
        self.change_user(caller, "user.disable", id, |user| {
            Ok(if std::mem::replace(&mut user.disabled, true) { Tokens::Unchanged } else { Tokens::Ended })
        })
        .await
    }

    /// Somebody of the staff has to stay who may log in.
    ///
    /// # Errors
    /// `Conflict` for the last.
    pub(crate) fn must_leave_staff(&self, user: &User) -> Result<(), SchedulerError> {
        let now = self.now();
        let others = self.all::<User>(None)?;
        let mut others =
            others.iter().filter(|u| u.role == Role::Staff && u.is_active(now) && u.id != user.id);
        if user.role != Role::Staff || others.next().is_some() {
            return Ok(());
        }
        let text = "this is the last account of the staff: make another first".to_owned();
        Err(SchedulerError::Conflict { code: "last_of_staff", text })
    }

    /// Applies `change`, and ends the user's tokens when it says so.
    async fn change_user(
        &self,
        caller: &Principal,
        action: &str,
        id: ObjectId,
        change: impl Fn(&mut User) -> Result<Tokens, SchedulerError>,
    ) -> Result<UserView, SchedulerError> {
        let decide = || {
            let stored = self.inner.store.get::<User>(&id.to_string())?;
            let stored = stored.ok_or(SchedulerError::NotFound("user"))?;
            let mut user = stored.value.clone();
            match change(&mut user)? {
                Tokens::Unchanged => return Ok((None, user)),
                Tokens::Kept => {}
                Tokens::Ended => {
                    user.epoch += 1;
                    user.epoch_raised = Some(self.now());
                }
            }
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

/// Nobody takes their own account away: the last of the staff would be gone.
pub(super) fn not_oneself(caller: &Principal, user: &User) -> Result<(), SchedulerError> {
    if user.username != caller.sub {
        return Ok(());
    }
    let text = "nobody does this to themselves: ask another of the staff".to_owned();
    Err(SchedulerError::Conflict { code: "own_account", text })
}

pub(crate) fn unique_name(user: &User) -> Unique {
    Unique { kind: "user".into(), name: user.username.clone(), owner: user.id }
}
