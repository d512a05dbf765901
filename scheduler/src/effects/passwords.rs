//! Passwords: argon2id on blocking threads, a few at a time, so that a flood of logins cannot take all memory
//! and processors. **Source:** RFC 9106 for argon2id; parameters are the crate's (19 MiB, 2 passes).

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use cardshop_protocol::join::crockford;
use tokio::sync::Semaphore;

use super::clock::random_bytes;
use crate::SchedulerError;
use crate::core::fields::InvalidField;

/// Passwords hashed at the same time.
const AT_ONCE: usize = 2;
/// Logins that may wait for their turn: more are told to come back.
const MAX_WAITING: usize = 64;
/// Shortest password, characters.
const MIN_LENGTH: usize = 8;
/// Longest password, bytes.
const MAX_LENGTH: usize = 256;

/// A password nobody guesses: 80 random bits.
pub fn random_password() -> String {
    crockford(&random_bytes::<10>())
}

/// Hashes and checks passwords.
pub(crate) struct Passwords {
    turns: Semaphore,
    waiting: Semaphore,
    /// Checked when the user does not exist, so that the answer takes as long.
    decoy: String,
}

impl Passwords {
    pub(crate) fn new() -> Self {
        let decoy = hash("nobody has this password").expect("parameters are the crate's own");
        Self { turns: Semaphore::new(AT_ONCE), waiting: Semaphore::new(MAX_WAITING), decoy }
    }

    /// The PHC text of a new password.
    ///
    /// # Errors
    /// `Invalid` when it is too short or too long, `Busy`.
    pub(crate) async fn hash(&self, password: String) -> Result<String, SchedulerError> {
        if password.chars().count() < MIN_LENGTH || password.len() > MAX_LENGTH {
            let reason = format!("must have {MIN_LENGTH} characters or more, and at most {MAX_LENGTH} bytes");
            return Err(InvalidField::new("password", reason).into());
        }
        self.run(move || hash(&password)).await?.ok_or(SchedulerError::Busy)
    }

    /// True when `password` is the one behind `phc`; with no `phc` false, after the same time.
    ///
    /// # Errors
    /// `Busy`.
    pub(crate) async fn verify(&self, password: String, phc: Option<String>) -> Result<bool, SchedulerError> {
        if password.len() > MAX_LENGTH {
            return Ok(false);
        }
        let known = phc.is_some();
        let phc = phc.unwrap_or_else(|| self.decoy.clone());
        let fits = self.run(move || {
            let Ok(parsed) = PasswordHash::new(&phc) else { return false };
            Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok()
        });
        Ok(fits.await? && known)
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, SchedulerError> {
        let _place = self.waiting.try_acquire().map_err(|_| SchedulerError::Busy)?;
        let _turn = self.turns.acquire().await.map_err(|_| SchedulerError::Busy)?;
        tokio::task::spawn_blocking(work).await.map_err(|_| SchedulerError::Busy)
    }
}

fn hash(password: &str) -> Option<String> {
    Some(Argon2::default().hash_password(password.as_bytes()).ok()?.to_string())
}
