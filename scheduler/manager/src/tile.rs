//! What a slot looks like to a person: glyph, word, colour and one sentence. A pure function of the state the
//! appliance reported; the pages and the live stream both draw from it.

use cardshop_protocol::api::SlotView;
use cardshop_protocol::message::{Sentence, SlotStatus, WritePhase};

/// Colour family of a tile, as the style sheet names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tone {
    Idle,
    Act,
    Busy,
    Ok,
    Fail,
}

impl Tone {
    fn class(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Act => "act",
            Self::Busy => "busy",
            Self::Ok => "ok",
            Self::Fail => "fail",
        }
    }
}

/// Glyph, word and tone of a state. No two states share both glyph and word.
fn look(status: SlotStatus) -> (&'static str, &'static str, Tone) {
    use SlotStatus as S;
    match status {
        S::Absent => ("⌀", "No reader", Tone::Idle),
        S::Empty => ("○", "Empty", Tone::Idle),
        S::Wanted => ("⤓", "Insert a card", Tone::Act),
        S::Idle => ("●", "Resting", Tone::Idle),
        S::Checking => ("◔", "Looking at the card", Tone::Busy),
        S::Waiting => ("⧗", "Waiting", Tone::Busy),
        S::Writing => ("✎", "Writing", Tone::Busy),
        S::Verifying => ("≟", "Reading back", Tone::Busy),
        S::Done => ("✓", "Done", Tone::Ok),
        S::Unsuitable => ("≠", "Not this card", Tone::Fail),
        S::Guarded => ("⚿", "Finished card", Tone::Act),
        S::Confirm => ("?", "Erase it?", Tone::Act),
        S::BadCard => ("✗", "Bad card", Tone::Fail),
        S::Retry => ("↻", "Once more", Tone::Fail),
        S::Held => ("‖", "Held", Tone::Idle),
        S::OutOfService => ("⚠", "Out of service", Tone::Fail),
    }
}

/// A slot, ready to be drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tile {
    /// `{appliance}/{slot}`: names the tile on the page.
    pub(crate) id: String,
    /// What people call the slot.
    pub(crate) name: String,
    /// The appliance's label.
    pub(crate) appliance: String,
    /// State word for programs and tests.
    pub(crate) state: String,
    /// Style class.
    pub(crate) tone: &'static str,
    /// Glyph.
    pub(crate) glyph: &'static str,
    /// Word.
    pub(crate) word: &'static str,
    /// What to do now; empty when nothing.
    pub(crate) sentence: String,
    /// Percent of the step, while one goes on.
    pub(crate) percent: Option<u64>,
    /// Rate, while a step goes on.
    pub(crate) pace: String,
    /// "copy 2 of 3", while it is being made.
    pub(crate) copy: String,
    /// Why it failed; empty when it did not.
    pub(crate) fault: String,
    /// False when the appliance has not been heard.
    pub(crate) online: bool,
}

impl Tile {
    /// Draws a slot as it was last reported.
    pub(crate) fn of(slot: &SlotView) -> Self {
        let (glyph, word, tone) = look(slot.state.state);
        let progress =
            slot.progress.as_ref().filter(|p| p.total > 0 && is_at_work(slot.state.state, p.phase));
        let copy = match (slot.state.copy, slot.state.total) {
            (Some(copy), Some(total)) if progress.is_some() => format!("copy {copy} of {total}"),
            _ => String::new(),
        };
        Self {
            id: slot.id.clone(),
            name: slot.name.clone(),
            appliance: slot.label.clone(),
            state: serde_json::to_value(slot.state.state)
                .ok()
                .and_then(|v| v.as_str().map(str::to_owned))
                .unwrap_or_default(),
            tone: if slot.online { tone.class() } else { Tone::Idle.class() },
            glyph,
            word,
            sentence: match (progress.and_then(|p| p.eta_s), &slot.state.sentence) {
                (Some(eta), _) => format!("Ready in {}:{:02}", eta / 60, eta % 60),
                (None, said) => said.as_ref().map(sentence).unwrap_or_default(),
            },
            percent: progress.map(|p| percent(p.done, p.total)),
            pace: progress.map(|p| format!("{:.1} MB/s", p.rate_bps as f64 / 1e6)).unwrap_or_default(),
            copy,
            fault: slot.state.fault.as_ref().map(|f| f.text.clone()).unwrap_or_default(),
            online: slot.online,
        }
    }
}

/// Both are what an appliance says: any number.
fn percent(done: u64, total: u64) -> u64 {
    u64::try_from(u128::from(done.min(total)) * 100 / u128::from(total.max(1))).unwrap_or(100)
}

/// Progress of an earlier step says nothing about this one.
fn is_at_work(status: SlotStatus, phase: WritePhase) -> bool {
    matches!(
        (status, phase),
        (SlotStatus::Checking, WritePhase::Probing)
            | (SlotStatus::Writing, WritePhase::Wiping | WritePhase::Writing)
            | (SlotStatus::Verifying, WritePhase::Verifying)
    )
}

/// The sentence in English. Sizes are decimal, as on a card's label.
fn sentence(sentence: &Sentence) -> String {
    match sentence {
        Sentence::InsertCard { min_bytes } => format!("Insert a card of at least {}", size(*min_bytes)),
        Sentence::Checking => "Checking the card".into(),
        Sentence::WaitingForImage { percent } => format!("Waiting for the image, {percent} % here"),
        Sentence::Writing => "Leave the card in".into(),
        Sentence::Verifying => "Checking what was written".into(),
        Sentence::TakeCard { copy, total } => format!("Take the card, copy {copy} of {total}"),
        Sentence::TooSmall { actual_bytes, min_bytes } => {
            format!("Needs at least {}, this card has {}", size(*min_bytes), size(*actual_bytes))
        }
        Sentence::Locked => "Unlock the card".into(),
        Sentence::Guarded { order } => format!("Finished card of order {order}, not shipped: take it out"),
        Sentence::ConfirmErase => "This card has data: press to erase".into(),
        Sentence::BadCard => "Bad card: put it aside".into(),
        Sentence::Reinsert => "Take the card out and put it in again".into(),
        Sentence::OutOfService { reason } => format!("Out of service: {reason}"),
    }
}

fn size(bytes: u64) -> String {
    if bytes < 1_000_000_000 {
        format!("{} MB", bytes.div_ceil(1_000_000))
    } else {
        format!("{:.1} GB", bytes as f64 / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_glyph_and_a_word_of_its_own() {
        let glyphs: std::collections::HashSet<_> = SlotStatus::ALL.iter().map(|s| look(*s).0).collect();
        let words: std::collections::HashSet<_> = SlotStatus::ALL.iter().map(|s| look(*s).1).collect();
        assert_eq!((glyphs.len(), words.len()), (SlotStatus::ALL.len(), SlotStatus::ALL.len()));
    }

    #[test]
    fn percent_holds_for_whatever_an_appliance_says() {
        assert_eq!(
            [(1, 3), (9, 3), (u64::MAX, u64::MAX), (0, 0)].map(|(d, t)| percent(d, t)),
            [33, 100, 100, 0]
        );
    }

    #[test]
    fn a_card_that_is_too_small_is_told_with_both_sizes() {
        let text = sentence(&Sentence::TooSmall { actual_bytes: 7_900_000_000, min_bytes: 31_000_000_000 });
        assert_eq!(text, "Needs at least 31.0 GB, this card has 7.9 GB");
    }
}
