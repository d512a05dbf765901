//! Letters about passwords: an invitation, a reset by staff, and one that somebody asked for who forgot it. Everybody who
//! asks gets the same answer at once, whether there is such an account or not.

use std::time::Duration;

use cardshop_protocol::ids::ObjectId;
use cardshop_protocol::time::Timestamp;
use serde_json::json;

use super::super::accounts::network;
use super::super::users::RESET_LIFE;
use crate::core::documents::User;
use crate::core::notify::Notice;
use crate::core::notify::message::{Message, Part};
use crate::core::rights::Principal;
use crate::core::throttle::Throttle;
use crate::store::Batch;
use crate::{Scheduler, SchedulerError};

/// Letters that one address may ask for at once, and how long until one more.
const BY_ADDRESS: (u32, Duration) = (5, Duration::from_secs(60));
/// Letters that one account gets at once, and how long until one more: nobody's mailbox is filled by strangers.
const BY_ACCOUNT: (u32, Duration) = (3, Duration::from_secs(3600));
/// Longest name or address that is looked for, bytes.
const MAX_NAME: usize = 254;

/// Who asked how often.
pub(super) struct Asked {
    address: Throttle,
    account: Throttle,
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            address: Throttle::new(BY_ADDRESS.0, BY_ADDRESS.1),
            account: Throttle::new(BY_ACCOUNT.0, BY_ACCOUNT.1),
        }
    }
}

impl Scheduler {
    /// Adds the letter with a link for a new password to a batch. Its link is made when it is sent and kept nowhere.
    pub(crate) fn add_password_letter(
        &self,
        user: &User,
        invitation: bool,
        until: Timestamp,
        batch: &mut Batch,
    ) -> Result<(), SchedulerError> {
        let notice = if invitation { Notice::AccountInvitation } else { Notice::PasswordReset };
        let Some(member) = self.member(user, Part::User)? else { return Ok(()) };
        let values = json!({"username": user.username, "until": until});
        let of = |message: &mut Message| message.user = Some(user.id);
        self.add_for(notice, &values, vec![member.person], &[], of, batch)
    }

    /// Somebody at `address` forgot the password of the account with this user name or mail address. What comes of it is
    /// done behind the answer, which says nothing; the handle is for who waits for it.
    ///
    /// # Errors
    /// `TooManyAttempts`, by the address alone.
    pub fn forgot_password(
        &self,
        name: &str,
        address: &str,
    ) -> Result<tokio::task::JoinHandle<()>, SchedulerError> {
        let (now, from) = (self.now(), network(address));
        {
            let mut asked = self.inner.post.forgotten.lock().expect("no holder panics");
            if !asked.address.allows(&from, now) {
                return Err(SchedulerError::TooManyAttempts);
            }
            asked.address.failed(&from, now);
        }
        let (scheduler, address) = (self.clone(), address.to_owned());
        let name: String = name.trim().chars().take(MAX_NAME).collect();
        Ok(tokio::spawn(async move {
            if let Err(error) = scheduler.send_forgotten(&name, &address).await {
                tracing::error!(%error, "a letter for a forgotten password could not be made");
            }
        }))
    }

    async fn send_forgotten(&self, name: &str, address: &str) -> Result<(), SchedulerError> {
        let now = self.now();
        for user in self.users_called(name)? {
            {
                let mut asked = self.inner.post.forgotten.lock().expect("no holder panics");
                let account = user.id.to_string();
                if !user.is_active(now) || user.email.is_none() || !asked.account.allows(&account, now) {
                    continue;
                }
                asked.account.failed(&account, now);
            }
            let themselves = Principal {
                sub: user.username.clone(),
                role: user.role,
                channels: user.channels.clone(),
                epoch: user.epoch,
                rights: None,
                expires: 0,
                signed_by: None,
                address: address.to_owned(),
            };
            let id: ObjectId = user.id;
            let mut batch = self.audited(&themselves, "user.forgot-password", &id.to_string());
            self.add_password_letter(&user, false, now + RESET_LIFE, &mut batch)?;
            self.inner.store.apply(batch).await?;
        }
        Ok(())
    }

    /// Users with this name, or with this address of mail.
    fn users_called(&self, name: &str) -> Result<Vec<User>, SchedulerError> {
        if let Some(user) = self.user_by_name(&name.to_lowercase())? {
            return Ok(vec![user.value]);
        }
        if !name.contains('@') {
            return Ok(Vec::new());
        }
        let mut users = self.all::<User>(None)?;
        users.retain(|user| user.email.as_ref().is_some_and(|email| email.eq_ignore_ascii_case(name)));
        Ok(users)
    }
}
