//! Warehouses: known by address, recognised by their index key, which is pinned at first contact. One that comes
//! back at another address with the same key has moved: its open orders follow it.

use cardshop_protocol::ids::ObjectId;
use cardshop_protocol::keys::{KeyList, KeyUse, PublicKey};
use serde_json::Value;

use super::ask::{Answer, Question};
use super::catalogue::{in_use, not_an_object};
use super::idempotency::Once;
use crate::core::documents::WarehouseDocument;
use crate::core::fields::{Fields, InvalidField};
use crate::core::order::Order;
use crate::core::rights::{Action, Principal};
use crate::core::units::Organization;
use crate::store::Batch;
use crate::{Scheduler, SchedulerError};

/// Largest key list read, bytes.
const MAX_KEYS_SIZE: u64 = 256 * 1024;
/// Keys taken from one warehouse.
const MAX_KEYS: usize = 16;
/// Longest address, characters.
const MAX_URL: usize = 500;

impl Scheduler {
    fn new_warehouse(&self, url: &str, keys: Vec<PublicKey>) -> WarehouseDocument {
        WarehouseDocument { id: self.next_id(), url: url.to_owned(), keys, added: false }
    }

    /// At the start: configured warehouses that are not known yet. While a known one is missing from the
    /// configuration a new address may be that one's: then [`Scheduler::ask_warehouses`] finds out.
    pub(crate) async fn add_warehouses(&self) -> Result<(), SchedulerError> {
        let known = self.all::<WarehouseDocument>(None)?;
        let configured = &self.inner.config.warehouses;
        if known.iter().any(|w| !w.added && !configured.contains(&w.url)) {
            return Ok(());
        }
        let mut batch = Batch::new();
        for url in configured.iter().filter(|url| known.iter().all(|w| w.url != **url)) {
            batch.create(&self.new_warehouse(url, Vec::new()));
        }
        Ok(self.inner.store.apply(batch).await?)
    }

    /// Asks the warehouses whose keys are not pinned, and those at addresses that are not known.
    pub(crate) async fn ask_warehouses(&self) -> Result<(), SchedulerError> {
        let known = self.all::<WarehouseDocument>(None)?;
        let added = known.iter().filter(|w| w.added).map(|w| &w.url);
        for url in self.inner.config.warehouses.iter().chain(added) {
            let asked = match known.iter().find(|w| w.url == *url) {
                Some(warehouse) if warehouse.keys.is_empty() => self.pinned_keys(url).await.map(|_| ()),
                Some(_) => Ok(()),
                None => self.meet_warehouse(url).await,
            };
            if let Err(error) = asked {
                tracing::debug!(warehouse = url, %error, "no index key yet");
            }
        }
        Ok(())
    }

    /// Adds a warehouse from `{url}`, beside those of the configuration. Its keys are pinned when it answers.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid`, `Conflict` when it is known.
    pub async fn add_warehouse(
        &self,
        caller: &Principal,
        body: Value,
        once: Option<Once>,
    ) -> Result<WarehouseDocument, SchedulerError> {
        caller.must(Action::Administer)?;
        if let Some(answer) = self.answered(once.as_ref()).await? {
            return Ok(answer);
        }
        let mut fields = Fields::new(body).ok_or_else(not_an_object)?;
        let url = fields.text("url", MAX_URL)?.ok_or_else(|| InvalidField::new("url", "is missing"))?;
        let url = url.trim_end_matches('/').to_owned();
        let host = url.strip_prefix("https://").or(url.strip_prefix("http://")).unwrap_or_default();
        if host.is_empty() || host.contains(['?', '#', '@']) || host.contains(char::is_whitespace) {
            let reason = "must be an address such as https://warehouse.example.org:8081";
            return Err(InvalidField::new("url", reason).into());
        }
        if self.all::<WarehouseDocument>(None)?.iter().any(|w| w.url == url) {
            let text = format!("{url} is known already");
            return Err(SchedulerError::Conflict { code: "warehouse_known", text });
        }
        let warehouse = WarehouseDocument { added: true, ..self.new_warehouse(&url, Vec::new()) };
        let mut batch = self.audited(caller, "warehouse.add", &warehouse.id.to_string());
        batch.create(&warehouse);
        self.apply_once(batch, once, warehouse, |_| None).await
    }

    /// Forgets a warehouse that staff added and nothing needs.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Conflict` while something needs it or the configuration names it.
    pub async fn delete_warehouse(
        &self,
        caller: &Principal,
        id: ObjectId,
    ) -> Result<WarehouseDocument, SchedulerError> {
        caller.must(Action::Administer)?;
        let decide = || {
            let stored = self.inner.store.get::<WarehouseDocument>(&id.to_string())?;
            let warehouse = stored.ok_or(SchedulerError::NotFound("warehouse"))?.value;
            if self.inner.config.warehouses.contains(&warehouse.url) {
                return Err(in_use("the scheduler's own settings name it: take it out there first"));
            }
            let orders = self.all::<Order>(Some(("shelf", "open")))?;
            let orders = orders.iter().filter(|o| o.warehouses().contains(&warehouse.url)).count();
            if orders > 0 {
                return Err(in_use(&format!("{orders} open orders keep their images there")));
            }
            let organizations = self.all::<Organization>(None)?;
            if let Some(organization) = organizations.iter().find(|o| o.warehouses.contains(&id)) {
                return Err(in_use(&format!(
                    "the organization {} keeps its images there",
                    organization.name
                )));
            }
            let mut batch = self.audited(caller, "warehouse.delete", &id.to_string());
            batch.remove::<WarehouseDocument>(&id.to_string());
            Ok((Some(batch), warehouse))
        };
        let (warehouse, _) = self.change(decide).await?;
        self.publish_keys()?;
        Ok(warehouse)
    }

    async fn meet_warehouse(&self, url: &str) -> Result<(), SchedulerError> {
        let keys = self.ask_keys(url).await?;
        let known = self.all::<WarehouseDocument>(None)?;
        let same = |w: &&WarehouseDocument| w.keys.iter().any(|k| keys.iter().any(|new| new.kid == k.kid));
        let gone = |w: &&WarehouseDocument| !w.added && !self.inner.config.warehouses.contains(&w.url);
        match known.iter().filter(gone).find(same) {
            Some(moved) => self.move_warehouse(moved, url).await?,
            None => {
                let mut batch = Batch::new();
                batch.create(&self.new_warehouse(url, keys));
                self.inner.store.apply(batch).await?;
            }
        }
        self.publish_keys()?;
        self.inner.replan.notify_one();
        Ok(())
    }

    /// Orders first, the warehouse last: broken off in between it is simply done again.
    async fn move_warehouse(&self, moved: &WarehouseDocument, url: &str) -> Result<(), SchedulerError> {
        tracing::warn!(from = moved.url, to = url, "a warehouse has moved: its orders follow");
        for order in self.all::<Order>(None)?.into_iter().filter(|o| o.warehouse == moved.url) {
            self.change_document::<Order>(&order.id.to_string(), |order| order.warehouse = url.to_owned())
                .await?;
        }
        self.change_document::<WarehouseDocument>(&moved.id.to_string(), |w| w.url = url.to_owned()).await
    }

    async fn change_document<T: crate::store::Document + Clone>(
        &self,
        id: &str,
        change: impl Fn(&mut T),
    ) -> Result<(), SchedulerError> {
        let decide = || {
            let Some(stored) = self.inner.store.get::<T>(id)? else { return Ok((None, ())) };
            let mut value = stored.value.clone();
            change(&mut value);
            let mut batch = Batch::new();
            batch.update(&stored, &value);
            Ok((Some(batch), ()))
        };
        self.change(decide).await.map(drop)
    }

    /// The index keys pinned for the warehouse at `url`; asks it when there are none yet.
    pub(crate) async fn pinned_keys(&self, url: &str) -> Result<Vec<PublicKey>, SchedulerError> {
        let known = self.all::<WarehouseDocument>(None)?.into_iter().find(|w| w.url == url);
        let known = known.ok_or(SchedulerError::NotFound("warehouse"))?;
        if !known.keys.is_empty() {
            return Ok(known.keys);
        }
        let keys = self.ask_keys(url).await?;
        self.change_document::<WarehouseDocument>(&known.id.to_string(), |warehouse| {
            // Pinned is pinned: somebody else may have been faster.
            if warehouse.keys.is_empty() {
                warehouse.keys.clone_from(&keys);
            }
        })
        .await?;
        tracing::info!(warehouse = url, keys = keys.len(), "index keys are pinned");
        self.publish_keys()?;
        self.inner.replan.notify_one();
        let pinned = self.inner.store.get::<WarehouseDocument>(&known.id.to_string())?;
        Ok(pinned.map(|w| w.value.keys).unwrap_or_default())
    }

    async fn ask_keys(&self, url: &str) -> Result<Vec<PublicKey>, SchedulerError> {
        let unusable = |what| SchedulerError::Unreachable(format!("{url}/keys {what}"));
        let list: KeyList = match self.ask(Question::get(format!("{url}/keys")), None, MAX_KEYS_SIZE).await {
            Answer::Body(bytes) => {
                serde_json::from_slice(&bytes).map_err(|_| unusable("gave no key list"))?
            }
            Answer::Failed(text) => return Err(SchedulerError::Unreachable(text)),
            Answer::NotFound | Answer::TooLarge => return Err(unusable("gave no key list")),
        };
        let now = self.now();
        let mut keys = list.items;
        keys.retain(|k| k.usable(KeyUse::Index, now).is_some());
        keys.truncate(MAX_KEYS);
        if keys.is_empty() {
            return Err(unusable("lists no index key"));
        }
        Ok(keys)
    }
}
