//! [`Order::step`]: what may happen to an order, and what follows. Every input may come late, twice or out of
//! order. A refusal is for a person and says why; a report that no longer counts is answered, not refused.

use cardshop_protocol::api::CreationReport;
use cardshop_protocol::ids::{ApplianceId, ImageId, LeaseId, ObjectId, SlotId};
use cardshop_protocol::time::Timestamp;

use super::{MAX_HISTORY, Order, OrderImage, OrderStatus, StatusChange};

/// Longest reason kept, characters.
const MAX_REASON: usize = 500;

/// Something that happens to an order.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    /// A creator takes the creation task.
    Claim { owner: String },
    /// A creator reports.
    Report { owner: String, report: CreationReport },
    /// The image a creator reported is in the warehouse and fits.
    ImageChecked { owner: String, image: OrderImage },
    /// It does not fit, or is not what it should be.
    ImageRefused { owner: String, reason: String, permanent: bool },
    /// An appliance took a card for a copy.
    WriteStarted { copy: u32, lease: LeaseId, appliance: ApplianceId, slot: SlotId },
    /// A card is verified.
    Verified { copy: u32, card: ObjectId, lease: LeaseId, appliance: ApplianceId, slot: SlotId },
    /// A card failed; the copy is offered to another.
    WriteFailed { copy: u32, appliance: ApplianceId, slot: SlotId, reason: String },
    /// A card did not hold a copy and is written again in place.
    WriteRepeated { copy: u32, appliance: ApplianceId, slot: SlotId, reason: String },
    /// The image's bytes are not those of its index, from wherever an appliance fetched them.
    ImageWrong { appliance: ApplianceId, reason: String },
    /// A lease is over: what was running under it is free again.
    LeaseEnded { lease: LeaseId },
    /// A person ends the order.
    Cancel { by: String },
    /// A person wants another try.
    Retry { by: String },
    /// A person sends cards; `None` = all that are verified and here.
    Ship { count: Option<u32>, tracking: Option<String>, by: String },
    /// A person ends the link now.
    Expire { by: String },
    /// A person keeps the link longer.
    Extend { by: String },
    /// The warehouse was told when the link ends, and said where it is.
    LinkTold { until: Timestamp, path: Option<String> },
    /// Time passes.
    Tick,
}

/// What followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The order changed.
    Done,
    /// Nothing to change: it was so already, or it does not matter any more.
    Unchanged,
    /// The worker stops: the task is not its own any more.
    Stop,
    /// The lease is renewed.
    Renewed,
    /// Check this image, then come back with the result.
    Check(ImageId),
    /// The card is counted.
    Counted,
    /// The card is one too many.
    Spare,
}

/// A no to a person, and why. Status 409.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// For programs.
    pub code: &'static str,
    /// For people, with the way out.
    pub text: String,
}

pub(super) fn refuse<T>(code: &'static str, text: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code, text: text.into() })
}

/// A line for the order's story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) kind: &'static str,
    pub(crate) text: String,
    pub(crate) appliance: Option<ApplianceId>,
}

/// The story of one step as it grows.
pub(super) struct Notes<'a>(&'a mut Vec<Note>);

impl<'a> Notes<'a> {
    pub(super) fn new(notes: &'a mut Vec<Note>) -> Self {
        Self(notes)
    }
    pub(super) fn add(&mut self, kind: &'static str, text: impl Into<String>) {
        self.0.push(Note { kind, text: text.into(), appliance: None });
    }
    pub(super) fn by(&mut self, appliance: ApplianceId, kind: &'static str, text: impl Into<String>) {
        self.0.push(Note { kind, text: text.into(), appliance: Some(appliance) });
    }
}

impl Order {
    /// Takes one input at `now`. On a refusal the order is as `Tick` would leave it.
    ///
    /// # Errors
    /// [`Refusal`] when a person asks for what means nothing in this state.
    pub(crate) fn step(
        &mut self,
        now: Timestamp,
        input: Input,
        notes: &mut Vec<Note>,
    ) -> Result<Answer, Refusal> {
        let mut notes = Notes(notes);
        let before = self.clone();
        self.end_lost_lease(now, &mut notes);
        self.end_overdue_cards(now, &mut notes);
        let answer = self.take(now, input, &mut notes);
        let status = self.status(now);
        if self.history.last().map(|h| h.status) != Some(status) {
            if self.history.len() >= MAX_HISTORY {
                self.history.remove(1);
            }
            self.history.push(StatusChange { status, at: now });
            notes.add("status", format!("The order is {}.", describe(status)));
        }
        match answer {
            Ok(Answer::Unchanged) if *self != before => Ok(Answer::Done),
            other => other,
        }
    }

    fn take(&mut self, now: Timestamp, input: Input, notes: &mut Notes<'_>) -> Result<Answer, Refusal> {
        match input {
            Input::Claim { owner } => self.claim(now, owner, notes),
            Input::Report { owner, report } => Ok(self.report(now, &owner, report, notes)),
            Input::ImageChecked { owner, image } => Ok(self.image_checked(now, &owner, image, notes)),
            Input::ImageRefused { owner, reason, permanent } => {
                if self.is_worked_on_by(&owner) {
                    self.creation_failed(now, &reason, permanent, notes);
                }
                Ok(Answer::Stop)
            }
            Input::WriteStarted { copy, lease, appliance, slot } => {
                Ok(self.write_started(copy, lease, appliance, slot, now, notes))
            }
            Input::Verified { copy, card, lease, appliance, slot } => {
                Ok(self.card_verified(copy, card, lease, appliance, slot, notes))
            }
            Input::WriteFailed { copy, appliance, slot, reason } => {
                Ok(self.write_failed(copy, appliance, &slot, &reason, notes))
            }
            Input::WriteRepeated { copy, appliance, slot, reason } => {
                Ok(self.write_repeated(copy, appliance, &slot, &reason, notes))
            }
            Input::ImageWrong { appliance, reason } => Ok(self.image_wrong(now, appliance, &reason, notes)),
            Input::LeaseEnded { lease } => Ok(self.lease_ended(lease, notes)),
            Input::Cancel { by } => self.cancel(now, by, notes),
            Input::Retry { by } => self.retry(now, &by, notes),
            Input::Ship { count, tracking, by } => self.ship(now, count, tracking, by, notes),
            Input::Expire { by } => self.expire(now, &by, notes),
            Input::Extend { by } => self.extend(now, &by, notes),
            Input::LinkTold { until, path } => Ok(self.link_told(until, path)),
            Input::Tick => Ok(Answer::Unchanged),
        }
    }
}

/// A status in a sentence.
pub(crate) fn describe(status: OrderStatus) -> &'static str {
    match status {
        OrderStatus::Created => "waiting for a creator to make its image",
        OrderStatus::Creating => "having its image made",
        OrderStatus::Ready => "ready: its image waits for cards",
        OrderStatus::Writing => "being written",
        OrderStatus::Written => "written: every card is verified and waits for shipping",
        OrderStatus::Shipped => "shipped",
        OrderStatus::Available => "available for download",
        OrderStatus::Expired => "expired",
        OrderStatus::Canceled => "canceled",
        OrderStatus::Failed => "failed: its image could not be made",
    }
}

/// A reason from outside: one line, bounded.
pub(super) fn shorten(text: &str) -> String {
    cut(text, MAX_REASON)
}

/// One line of at most `max` characters.
pub(super) fn cut(text: &str, max: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(max).collect::<String>().trim_end_matches('.').to_owned()
}
