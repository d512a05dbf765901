//! Facts of appliances, exactly once: fact `n` is applied only when `n - 1` was, and what it changes goes into
//! the store in the same batch as the count. The acknowledgement follows the disk.
//!
//! ```text
//! n ≤ upto      known: acknowledge upto again
//! n = upto + 1  apply, store effects and upto together, then acknowledge
//! n > upto + 1  a fact is missing: ignored, the appliance sends again from upto + 1
//! ```

use cardshop_protocol::api::Membership;
use cardshop_protocol::ids::ApplianceId;
use cardshop_protocol::message::{Event, Fact};

use super::MAX_TRIES;
use crate::core::documents::{Appliance, Applied, CardDocument, Grant, Story};
use crate::core::facts::{Meaning, lease_of, meaning};
use crate::core::order::{Answer, Order};
use crate::store::{Batch, StoreError};
use crate::{Scheduler, SchedulerError};

/// What became of a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is applied.
    Applied,
    /// It was applied before.
    Known,
    /// One before it is missing.
    TooEarly,
    /// The appliance is not one of ours.
    Stranger,
}

impl Scheduler {
    /// Takes one fact of `appliance`. Facts of one appliance must be given one after the other.
    pub(crate) async fn take_event(
        &self,
        appliance: ApplianceId,
        event: &Event,
    ) -> Result<Taken, SchedulerError> {
        let taken = self.try_event(appliance, event).await?;
        match taken {
            Taken::Applied => {
                self.inner.metrics.events_applied.add();
                self.acknowledge(appliance, event.n, false);
            }
            Taken::Known => {
                self.inner.metrics.events_ignored.add();
                let applied = self.inner.store.get::<Applied>(&appliance.to_string())?;
                self.acknowledge(appliance, applied.map_or(0, |a| a.value.upto), true);
            }
            Taken::TooEarly | Taken::Stranger => self.inner.metrics.events_ignored.add(),
        }
        Ok(taken)
    }

    async fn try_event(&self, id: ApplianceId, event: &Event) -> Result<Taken, SchedulerError> {
        let appliance = self.inner.store.get::<Appliance>(&id.to_string())?.map(|a| a.value);
        let Some(appliance) = appliance.filter(|a| a.state == Membership::Approved) else {
            return Ok(Taken::Stranger);
        };
        let applied = self.inner.store.get::<Applied>(&id.to_string())?;
        let upto = applied.as_ref().map_or(0, |a| a.value.upto);
        if event.n <= upto {
            return Ok(Taken::Known);
        }
        if event.n > upto + 1 {
            return Ok(Taken::TooEarly);
        }
        let count = |batch: &mut Batch| {
            batch.upsert(applied.as_ref(), &Applied { appliance: id, upto: event.n });
        };
        let grant = match lease_of(&event.fact) {
            Some(lease) => self.inner.store.get::<Grant>(&lease.to_string())?.map(|g| g.value),
            None => None,
        };
        let meaning = match self.foreign_card(id, &event.fact)? {
            Some(refused) => refused,
            None => meaning(&event.fact, id, grant.as_ref()),
        };
        let (kind, text) = match meaning {
            Meaning::Order(order, input) => {
                let blamed = self.blame(id, event)?;
                let stepped = self.step_order(order, input, |order, answer, batch| {
                    count(batch);
                    self.add_card(&event.fact, order, answer, batch);
                    blamed.add_to(batch);
                    self.add_story(order, blamed.notes.clone(), batch);
                });
                match stepped.await {
                    Ok((_, answer)) => {
                        if answer == Answer::Counted {
                            self.inner.metrics.cards_verified.add();
                        }
                        self.blame_stored(&blamed)?;
                        return Ok(Taken::Applied);
                    }
                    Err(SchedulerError::NotFound(_)) => {
                        ("fact_refused", format!("Appliance {id} reported on order {order}, which is gone."))
                    }
                    Err(error) => return Err(error),
                }
            }
            Meaning::Story(kind, text) => (kind, text),
            Meaning::Refused(text) => {
                tracing::warn!(appliance = %id, n = event.n, text, "a fact does not count");
                ("fact_refused", text)
            }
        };
        let mut batch = Batch::new();
        count(&mut batch);
        batch.create(&Story {
            id: self.next_id(),
            at: self.now(),
            kind: kind.to_owned(),
            text,
            order: grant.map(|g| g.order).filter(|_| kind != "fact_refused"),
            appliance: Some(id),
            channel: appliance.channels.first().cloned(),
        });
        self.inner.store.apply(batch).await?;
        Ok(Taken::Applied)
    }

    /// A card whose record another appliance has made is not this one's to tell of: uids can be read off cards.
    fn foreign_card(&self, id: ApplianceId, fact: &Fact) -> Result<Option<Meaning>, SchedulerError> {
        let Fact::CardVerified { record, .. } = fact else { return Ok(None) };
        let known = self.inner.store.get::<CardDocument>(&record.uid.to_string())?;
        let foreign = known.is_some_and(|known| known.value.record.appliance != id);
        Ok(foreign.then(|| {
            Meaning::Refused(format!(
                "Appliance {id} reported card {}, whose record is another appliance's.",
                record.uid
            ))
        }))
    }

    /// The immutable record of a verified card.
    fn add_card(&self, fact: &Fact, order: &Order, answer: Answer, batch: &mut Batch) {
        let Fact::CardVerified { record, .. } = fact else { return };
        if !matches!(answer, Answer::Counted | Answer::Spare) {
            return;
        }
        // `put` although it is never changed: the same card written again for another copy has the same uid only
        // if an appliance lost its memory, and then the newest writing is what the card holds.
        batch.put(&CardDocument {
            record: (**record).clone(),
            channel: Some(order.channel.clone()),
            spare: answer == Answer::Spare,
        });
    }

    /// [`Scheduler::take_event`] until it is stored or cannot be: a fact is not lost to a busy moment.
    pub(crate) async fn take_event_surely(&self, appliance: ApplianceId, event: &Event) {
        for _ in 0..MAX_TRIES {
            match self.take_event(appliance, event).await {
                Ok(_) => return,
                Err(SchedulerError::Busy | SchedulerError::Store(StoreError::Conflict { .. })) => continue,
                Err(error) => {
                    tracing::error!(%appliance, n = event.n, %error, "a fact is not applied; it will come again");
                    return;
                }
            }
        }
    }
}
