//! What a slot says of itself: its state, sentence and LED, as a pure function of what it is doing.

use cardshop_protocol::led::{Overlay, led};
use cardshop_protocol::message::{
    CardFacts, Fault, Remedy, Sentence, SlotState, SlotStatus, VERSION, WritePhase,
};
use cardshop_protocol::time::Timestamp;

use super::event::{Effect, Failure, Work};
use super::images::Images;
use super::slot::{Card, Face, Slot, Stage};

/// Generation of the next state shown.
pub(super) struct Generation {
    pub(super) boot: u64,
    pub(super) n: u64,
}

/// Shows the slot's state if it differs from what was shown last, or `again`.
pub(super) fn show(
    slot: &mut Slot,
    now: Timestamp,
    images: &Images,
    (detached, again): (bool, bool),
    generation: &mut Generation,
    effects: &mut Vec<Effect>,
) {
    let mut state = state_of(slot, now, images, detached);
    if let Some(shown) = &slot.shown {
        (state.boot, state.n) = shown.generation();
        state.since = if shown.state == state.state { shown.since } else { now };
        if state == *shown {
            if again {
                effects.push(Effect::Show(slot.id.clone(), Box::new(state)));
            }
            return;
        }
    }
    generation.n += 1;
    (state.boot, state.n) = (generation.boot, generation.n);
    slot.shown = Some(state.clone());
    effects.push(Effect::Show(slot.id.clone(), Box::new(state)));
}

fn state_of(slot: &Slot, now: Timestamp, images: &Images, detached: bool) -> SlotState {
    let overlay = match slot.identify_until {
        Some(until) if now < until => Overlay::Identify,
        _ if detached => Overlay::Detached,
        _ => Overlay::None,
    };
    let (state, sentence, fault) = match &slot.hold {
        Some(reason) if at_rest(&slot.stage) => {
            (SlotStatus::Held, Some(Sentence::OutOfService { reason: reason.clone() }), None)
        }
        _ => face_of(slot, images),
    };
    let work = work_of(&slot.stage);
    SlotState {
        v: VERSION,
        boot: 0,
        n: 0,
        state,
        led: led(state, overlay),
        card: card_of(&slot.stage).map(|card| CardFacts {
            size: card.size,
            uid: card.passport.map(|p| p.uid),
            cid: card.cid.clone(),
        }),
        task: work.map(Work::task),
        image: work.map(|w| w.image),
        copy: work.map(|w| w.copy),
        total: work.map(|w| w.total),
        sentence,
        fault,
        since: now,
    }
}

/// A hold is shown only where it matters: a card that is busy or finished keeps its own face.
fn at_rest(stage: &Stage) -> bool {
    matches!(stage, Stage::Empty { .. } | Stage::Ejected(_))
        || matches!(stage, Stage::Ready { face: Face::Idle | Face::Unsuitable { .. } | Face::Confirm, .. })
}

type Shown = (SlotStatus, Option<Sentence>, Option<Fault>);

fn face_of(slot: &Slot, images: &Images) -> Shown {
    let plain = |status| (status, None, None);
    match &slot.stage {
        Stage::Absent => plain(SlotStatus::Absent),
        Stage::Empty { wanted: None } => (SlotStatus::Empty, None, why_no_work(images)),
        Stage::Empty { wanted: Some(min_bytes) } => {
            (SlotStatus::Wanted, Some(Sentence::InsertCard { min_bytes: *min_bytes }), None)
        }
        Stage::Arrived(_) | Stage::Checking(_) => (SlotStatus::Checking, Some(Sentence::Checking), None),
        Stage::Locked(_) => {
            let text = "the card's write-protect switch is on";
            let fault = Fault { code: "locked".into(), text: text.into(), offset: None };
            (SlotStatus::Unsuitable, Some(Sentence::Locked), Some(fault))
        }
        Stage::Ready { card, face } => ready_face(card, face, images),
        Stage::Waiting { work, .. } => waiting(images.percent(work.image)),
        Stage::Writing { work, stalled: true, .. } => waiting(images.percent(work.image)),
        Stage::Writing { phase, .. } => match phase {
            WritePhase::Probing => (SlotStatus::Checking, Some(Sentence::Checking), None),
            WritePhase::Wiping | WritePhase::Writing => (SlotStatus::Writing, Some(Sentence::Writing), None),
            WritePhase::Verifying => (SlotStatus::Verifying, Some(Sentence::Verifying), None),
        },
        Stage::Done { work, .. } => {
            (SlotStatus::Done, Some(Sentence::TakeCard { copy: work.copy, total: work.total }), None)
        }
        Stage::Failed { failure, .. } => failed(failure),
        Stage::Ejected(_) => plain(SlotStatus::Idle),
    }
}

/// A slot with nothing to do says so when it is for want of a good image.
fn why_no_work(images: &Images) -> Option<Fault> {
    images.refused().values().next().cloned()
}

fn waiting(percent: u8) -> Shown {
    (SlotStatus::Waiting, Some(Sentence::WaitingForImage { percent }), None)
}

fn ready_face(card: &Card, face: &Face, images: &Images) -> Shown {
    match face {
        Face::Idle => (SlotStatus::Idle, None, why_no_work(images)),
        Face::Unsuitable { min_bytes } => {
            let text = format!("the card has {} bytes, {min_bytes} are needed", card.size);
            let fault = Fault { code: "card_too_small".into(), text, offset: None };
            let sentence = Sentence::TooSmall { actual_bytes: card.size, min_bytes: *min_bytes };
            (SlotStatus::Unsuitable, Some(sentence), Some(fault))
        }
        Face::Guarded { order } => (SlotStatus::Guarded, Some(Sentence::Guarded { order: *order }), None),
        Face::Confirm => (SlotStatus::Confirm, Some(Sentence::ConfirmErase), None),
    }
}

fn failed(failure: &Failure) -> Shown {
    let fault = Some(failure.fault.clone());
    match failure.remedy {
        Remedy::Retry => (SlotStatus::Retry, Some(Sentence::Reinsert), fault),
        Remedy::ReplaceCard => (SlotStatus::BadCard, Some(Sentence::BadCard), fault),
        Remedy::ReplaceReader | Remedy::CallOperator | Remedy::Bug => {
            let reason = failure.fault.text.clone();
            (SlotStatus::OutOfService, Some(Sentence::OutOfService { reason }), fault)
        }
    }
}

fn card_of(stage: &Stage) -> Option<&Card> {
    match stage {
        Stage::Absent | Stage::Empty { .. } => None,
        Stage::Arrived(card) | Stage::Checking(card) | Stage::Locked(card) | Stage::Ejected(card) => {
            Some(card)
        }
        Stage::Ready { card, .. }
        | Stage::Waiting { card, .. }
        | Stage::Writing { card, .. }
        | Stage::Done { card, .. }
        | Stage::Failed { card, .. } => Some(card),
    }
}

fn work_of(stage: &Stage) -> Option<&Work> {
    match stage {
        Stage::Waiting { work, .. } | Stage::Writing { work, .. } | Stage::Done { work, .. } => Some(work),
        Stage::Failed { work, .. } => work.as_ref(),
        _ => None,
    }
}
