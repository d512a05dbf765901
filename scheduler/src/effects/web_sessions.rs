//! Logins on the pages: begun with a password, made anew while they are used, listed and ended by their user.

use cardshop_protocol::api::Page;
use cardshop_protocol::token::Claims;
use serde_json::Value;

use super::catalogue::not_an_object;
use super::tokens::Subject;
use crate::core::documents::{RefreshFamily, User};
use crate::core::fields::Fields;
use crate::core::rights::Principal;
use crate::core::views::UserView;
use crate::core::web_session::{MAX_AGENT, RENEW_AFTER, SessionView, WebSession};
use crate::store::{Batch, StoreError, Stored};
use crate::{Scheduler, SchedulerError};

/// A session's token for the next hour. It is a secret, so this has no `Debug`.
pub struct OpenSession {
    /// The access token.
    pub token: String,
    /// Seconds until it ends.
    pub expires_in: u64,
}

impl Scheduler {
    /// Checks a password and begins a session on the pages. `agent` is what the browser calls itself.
    ///
    /// # Errors
    /// `NotKnown` for every cause, `TooManyAttempts`, `Busy`.
    pub async fn begin_session(
        &self,
        username: &str,
        password: &str,
        address: &str,
        agent: &str,
    ) -> Result<OpenSession, SchedulerError> {
        let user = self.check_password(username, password, address).await?;
        let now = self.now();
        let session = WebSession {
            id: self.next_id(),
            user: user.id,
            epoch: user.epoch,
            created: now,
            seen: now,
            address: address.to_owned(),
            agent: agent.chars().filter(|c| !c.is_control()).take(MAX_AGENT).collect(),
        };
        let mut batch = Batch::new();
        batch.create(&session);
        self.inner.store.apply(batch).await?;
        Ok(self.session_token(&user, &session))
    }

    fn session_token(&self, user: &User, session: &WebSession) -> OpenSession {
        let now = self.now();
        let subject = Subject {
            sub: user.username.clone(),
            role: user.role,
            channels: user.channels.clone(),
            epoch: user.epoch,
            scope: None,
            until: Some(user.expires.map_or(session.until(now), |end| end.min(session.until(now)))),
        };
        let (token, end) = self.token_named(subject, now, session.token_id());
        OpenSession { token, expires_in: end.since(now).as_secs() }
    }

    /// The session of a token, when it counts.
    fn session_of(&self, claims: &Claims) -> Result<Option<(Stored<WebSession>, User)>, SchedulerError> {
        let Some(id) = WebSession::of_token(&claims.jti) else { return Ok(None) };
        let Some(session) = self.inner.store.get::<WebSession>(id)? else { return Ok(None) };
        let user = self.inner.store.get::<User>(&session.value.user.to_string())?.map(|u| u.value);
        let now = self.now();
        Ok(user
            .filter(|u| u.is_active(now) && session.value.counts(u.epoch, now))
            .map(|user| (session, user)))
    }

    /// A token that is of no session counts by itself; one of a session while that does.
    pub(crate) fn session_counts(&self, claims: &Claims) -> Result<bool, SchedulerError> {
        Ok(WebSession::of_token(&claims.jti).is_none() || self.session_of(claims)?.is_some())
    }

    /// The next token of a session that is used; nothing while the one it has is young.
    ///
    /// # Errors
    /// `NotKnown` when it does not count.
    pub async fn renew_session(&self, token: &str) -> Result<Option<OpenSession>, SchedulerError> {
        let now = self.now();
        let claims = self.keys().verify(token, now).map_err(|_| SchedulerError::NotKnown)?;
        if now.as_secs() < claims.iat + RENEW_AFTER.as_secs() {
            return Ok(None);
        }
        let (stored, user) = self.session_of(&claims)?.ok_or(SchedulerError::NotKnown)?;
        let session = WebSession { seen: now, ..stored.value.clone() };
        let mut batch = Batch::new();
        batch.update(&stored, &session);
        match self.inner.store.apply(batch).await {
            // Another page of the same browser was faster.
            Ok(()) | Err(StoreError::Conflict { .. }) => Ok(Some(self.session_token(&user, &session))),
            Err(error) => Err(error.into()),
        }
    }

    /// Ends the session of a token; one that is over already is over.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn end_session(&self, token: &str) -> Result<(), SchedulerError> {
        let Ok(claims) = self.keys().verify(token, self.now()) else { return Ok(()) };
        let Some(id) = WebSession::of_token(&claims.jti) else { return Ok(()) };
        let mut batch = Batch::new();
        batch.remove::<WebSession>(id);
        Ok(self.inner.store.apply(batch).await?)
    }

    /// The caller's logins on the pages.
    ///
    /// # Errors
    /// Those of the store.
    pub fn sessions(&self, caller: &Principal) -> Result<Page<SessionView>, SchedulerError> {
        let user = self.user_by_name(&caller.sub)?.filter(|_| caller.rights.is_none()).map(|u| u.value);
        let Some(user) = user else { return Ok(Page { items: Vec::new(), next_cursor: None }) };
        let now = self.now();
        let mut sessions = self.all::<WebSession>(Some(("user", &user.id.to_string())))?;
        sessions.retain(|session| session.counts(user.epoch, now));
        Ok(Page { items: sessions.iter().rev().map(SessionView::from).collect(), next_cursor: None })
    }

    /// Ends all logins of the caller, on pages and of programs, also the one that is used for it: `{password}`.
    ///
    /// # Errors
    /// `Invalid`, `NotKnown` for a wrong password, `TooManyAttempts`.
    pub async fn end_all_sessions(
        &self,
        caller: &Principal,
        body: Value,
    ) -> Result<UserView, SchedulerError> {
        let user = self.confirmed(caller, body).await?;
        let view = self.end_tokens(caller, "user.end-sessions", user.id).await?;
        self.forget_logins(&user).await?;
        Ok(view)
    }

    /// Forgets who the caller was and ends its account: `{password}`. Refused for the last of the staff, and while an order
    /// of it is open.
    ///
    /// # Errors
    /// `Invalid`, `NotKnown` for a wrong password, `TooManyAttempts`, `Conflict`.
    pub async fn delete_own_account(
        &self,
        caller: &Principal,
        body: Value,
    ) -> Result<UserView, SchedulerError> {
        let user = self.confirmed(caller, body).await?;
        self.must_leave_staff(&user)?;
        self.forget_user(caller, user.id).await
    }

    /// The caller as a user, when the body has its password.
    async fn confirmed(&self, caller: &Principal, body: Value) -> Result<User, SchedulerError> {
        let mut fields = Fields::new(body).ok_or_else(not_an_object)?;
        let password: String = fields.required("password")?;
        if caller.rights.is_some() {
            return Err(SchedulerError::NotAllowed("an API key is no account: revoke it".into()));
        }
        self.check_password(&caller.sub, &password, &caller.address).await
    }

    /// Where a user was logged in.
    pub(crate) async fn forget_logins(&self, user: &User) -> Result<(), SchedulerError> {
        let mut batch = Batch::new();
        for session in self.all::<WebSession>(Some(("user", &user.id.to_string())))? {
            batch.remove::<WebSession>(&session.id.to_string());
        }
        for family in
            self.all::<RefreshFamily>(None)?.iter().filter(|f| !f.appliance && f.sub == user.username)
        {
            batch.remove::<RefreshFamily>(&family.id.to_string());
        }
        Ok(self.inner.store.apply(batch).await?)
    }
}
