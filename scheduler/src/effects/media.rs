//! The catalogue of cards that are sold: made, measured, changed and removed by staff.

use cardshop_protocol::api::Page;
use cardshop_protocol::ids::ObjectId;
use serde_json::Value;

use super::catalogue::not_an_object;
use super::configurations::must_be_free;
use super::idempotency::Once;
use super::paging::PageRequest;
use crate::core::documents::{CardDocument, Media, usable_bytes};
use crate::core::fields::{Fields, InvalidField};
use crate::core::media::{Measured, measured};
use crate::core::order::Order;
use crate::core::rights::{Action, Principal};
use crate::store::{Select, Stored};
use crate::{Scheduler, SchedulerError};

/// Longest name, characters.
const MAX_NAME: usize = 40;
/// Largest card, bytes: SDUC ends at 128 TB.
const MAX_BYTES: u64 = 128_000_000_000_000;
/// Cards that are looked back at for their real sizes, the newest.
const LOOK_BACK: usize = 5000;

impl Scheduler {
    fn media_of(&self, id: ObjectId) -> Result<Stored<Media>, SchedulerError> {
        self.inner.store.get::<Media>(&id.to_string())?.ok_or(SchedulerError::NotFound("media"))
    }

    /// The media catalogue.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid` for a wrong cursor.
    pub fn media(&self, caller: &Principal, page: &PageRequest) -> Result<Page<Media>, SchedulerError> {
        caller.must(Action::Watch)?;
        self.page::<Media, _>(page, None, false, |m| Some(m.value))
    }

    /// Makes a size of card from `{name, advertised_bytes, usable_bytes?}`.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid`.
    pub async fn create_media(
        &self,
        caller: &Principal,
        body: Value,
        once: Option<Once>,
    ) -> Result<Media, SchedulerError> {
        caller.must(Action::Administer)?;
        if let Some(answer) = self.answered(once.as_ref()).await? {
            return Ok(answer);
        }
        let mut fields = Fields::new(body).ok_or_else(not_an_object)?;
        let advertised: u64 = fields.required("advertised_bytes")?;
        let media = Media {
            id: self.next_id(),
            name: fields.text("name", MAX_NAME)?.ok_or_else(|| InvalidField::new("name", "is missing"))?,
            kind: "sd".into(),
            advertised_bytes: advertised,
            usable_bytes: fields.optional("usable_bytes")?.unwrap_or_else(|| usable_bytes(advertised)),
        };
        check(&media)?;
        let mut batch = self.audited(caller, "media.create", &media.id.to_string());
        batch.create(&media);
        self.apply_once(batch, once, media, |_| None).await
    }

    /// Changes `{name?, usable_bytes?}`; orders keep what they were placed with.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Invalid`.
    pub async fn update_media(
        &self,
        caller: &Principal,
        id: ObjectId,
        body: Value,
    ) -> Result<Media, SchedulerError> {
        caller.must(Action::Administer)?;
        self.media_of(id)?;
        let mut fields = Fields::new(body).ok_or_else(not_an_object)?;
        let (name, usable) = (fields.text("name", MAX_NAME)?, fields.optional::<u64>("usable_bytes")?);
        let decide = || {
            let stored = self.media_of(id)?;
            let mut media = stored.value.clone();
            media.name = name.clone().unwrap_or(media.name);
            media.usable_bytes = usable.unwrap_or(media.usable_bytes);
            check(&media)?;
            let mut batch = self.audited(caller, "media.update", &id.to_string());
            batch.update(&stored, &media);
            Ok((Some(batch), media))
        };
        Ok(self.change(decide).await?.0)
    }

    /// Removes a size that no open order asks for.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Conflict` that names the orders.
    pub async fn delete_media(&self, caller: &Principal, id: ObjectId) -> Result<Media, SchedulerError> {
        caller.must(Action::Administer)?;
        let decide = || {
            let stored = self.media_of(id)?;
            let orders = self.all::<Order>(Some(("shelf", "open")))?;
            let orders = orders.into_iter().filter(|o| o.media.as_ref().is_some_and(|m| m.id == id));
            must_be_free("size of card", orders.map(|o| format!("order {} ({})", o.name, o.id)).collect())?;
            let mut batch = self.audited(caller, "media.delete", &id.to_string());
            batch.remove::<Media>(&id.to_string());
            Ok((Some(batch), stored.value))
        };
        Ok(self.change(decide).await?.0)
    }

    /// How large the written cards of this size really were.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`.
    pub fn measure_media(&self, caller: &Principal, id: ObjectId) -> Result<Measured, SchedulerError> {
        caller.must(Action::Administer)?;
        let media = self.media_of(id)?.value;
        let newest = Select { newest_first: true, limit: LOOK_BACK, ..Select::default() };
        let cards = self.inner.store.list::<CardDocument>(newest)?;
        Ok(measured(&media, cards.iter().map(|card| card.value.record.card_size)))
    }
}

fn check(media: &Media) -> Result<(), InvalidField> {
    if !(1..=MAX_BYTES).contains(&media.advertised_bytes) {
        let reason = format!("must be 1 to {MAX_BYTES}: what is printed on the card, in bytes");
        return Err(InvalidField::new("advertised_bytes", reason));
    }
    // Some cards have a little more than is printed on them.
    let most = media.advertised_bytes + media.advertised_bytes / 10;
    if !(1..=most).contains(&media.usable_bytes) {
        let reason = format!("must be 1 to {most}: a card has hardly more than is printed on it");
        return Err(InvalidField::new("usable_bytes", reason));
    }
    Ok(())
}
