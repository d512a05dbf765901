//! `Idempotency-Key`: the answer to a creating request is kept in the same batch as what it made, so that the
//! same request sent again gets the same answer and makes nothing.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::core::documents::Idempotent;
use crate::core::rights::Principal;
use crate::store::{Batch, StoreError};
use crate::{Scheduler, SchedulerError};

/// Longest key, bytes.
const MAX_KEY: usize = 200;

/// A creating request that names itself.
#[derive(Debug, Clone)]
pub struct Once {
    id: String,
    request: String,
}

impl Once {
    /// From the header's value; the key is the caller's own, per route.
    ///
    /// # Errors
    /// `Conflict` when the key is empty or too long.
    pub fn new(caller: &Principal, route: &str, key: &str, body: &[u8]) -> Result<Self, SchedulerError> {
        if key.is_empty() || key.len() > MAX_KEY {
            let text = format!("an Idempotency-Key has 1 to {MAX_KEY} bytes");
            return Err(SchedulerError::Conflict { code: "bad_idempotency_key", text });
        }
        let id = blake3::hash(format!("{}\n{route}\n{key}", caller.sub).as_bytes()).to_hex();
        Ok(Self { id: id.to_string(), request: blake3::hash(body).to_hex().to_string() })
    }

    /// Randomness that is the same when the same request is sent again.
    pub(crate) fn derive(&self, key: &[u8; 32]) -> [u8; 32] {
        *blake3::keyed_hash(key, format!("{}\n{}", self.id, self.request).as_bytes()).as_bytes()
    }
}

impl Scheduler {
    /// The answer this request got before.
    pub(crate) async fn answered<V: DeserializeOwned>(
        &self,
        once: Option<&Once>,
    ) -> Result<Option<V>, SchedulerError> {
        let Some(once) = once else { return Ok(None) };
        let Some(found) = self.inner.store.get::<Idempotent>(&once.id)? else { return Ok(None) };
        if found.value.request != once.request {
            let text = "this Idempotency-Key was used for another request: take a new one".to_owned();
            return Err(SchedulerError::Conflict { code: "idempotency_key_reused", text });
        }
        // The request that made it may still wait for the disk.
        self.inner.store.settle().await?;
        Ok(serde_json::from_value(found.value.answer).ok())
    }

    /// Applies a creating batch together with its answer. `conflict` names the error for a kind of document that
    /// was there already.
    pub(crate) async fn apply_once<V: Serialize + DeserializeOwned>(
        &self,
        mut batch: Batch,
        once: Option<Once>,
        view: V,
        conflict: impl Fn(&str) -> Option<SchedulerError>,
    ) -> Result<V, SchedulerError> {
        if let Some(once) = &once {
            batch.create(&Idempotent {
                id: once.id.clone(),
                request: once.request.clone(),
                answer: serde_json::to_value(&view).expect("a view is plain JSON"),
                day: self.now().as_secs() / 86_400,
            });
        }
        match self.inner.store.apply(batch).await {
            Ok(()) => Ok(view),
            Err(StoreError::Conflict { kind, id }) => {
                // The same request may have come twice at once: the other one made it.
                if let Some(answer) = self.answered(once.as_ref()).await? {
                    return Ok(answer);
                }
                Err(conflict(kind).unwrap_or_else(|| StoreError::Conflict { kind, id }.into()))
            }
            Err(error) => Err(error.into()),
        }
    }
}
