//! What a slot looks like to a person: glyph, word, colour, one sentence, and what can be done with it. A pure function
//! of the state the appliance reported, the time and the visitor's language; the pages and the live stream both draw
//! from it.

use cardshop_protocol::api::SlotView;
use cardshop_protocol::message::{Sentence, SlotStatus, WritePhase};
use cardshop_protocol::time::Timestamp;

use crate::locale::Locale;
use crate::words::Words;

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

/// Glyph, word and tone of a state. No two states share glyph or word.
fn look(status: SlotStatus, w: &Words) -> (&'static str, &'static str, Tone) {
    use SlotStatus as S;
    match status {
        S::Absent => ("⌀", w.absent, Tone::Idle),
        S::Empty => ("○", w.empty, Tone::Idle),
        S::Wanted => ("⤓", w.wanted, Tone::Act),
        S::Idle => ("●", w.idle, Tone::Idle),
        S::Checking => ("◔", w.checking, Tone::Busy),
        S::Waiting => ("⧗", w.waiting, Tone::Busy),
        S::Writing => ("✎", w.writing, Tone::Busy),
        S::Verifying => ("≟", w.verifying, Tone::Busy),
        S::Done => ("✓", w.done, Tone::Ok),
        S::Unsuitable => ("≠", w.unsuitable, Tone::Fail),
        S::Guarded => ("⚿", w.guarded, Tone::Act),
        S::Confirm => ("?", w.confirm, Tone::Act),
        S::BadCard => ("✗", w.bad_card, Tone::Fail),
        S::Retry => ("↻", w.try_again, Tone::Fail),
        S::Held => ("‖", w.held, Tone::Idle),
        S::OutOfService => ("⚠", w.out_of_service, Tone::Fail),
    }
}

/// The word for a state.
pub(crate) fn word(status: SlotStatus, w: &Words) -> &'static str {
    look(status, w).1
}

/// Something a person can have a slot do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deed {
    /// Value of the form's `do` field.
    pub(crate) key: &'static str,
    /// On the button.
    pub(crate) word: &'static str,
}

/// What makes sense in a state.
fn deeds(status: SlotStatus, w: &Words) -> Vec<Deed> {
    use SlotStatus as S;
    let deed = |key, word| Deed { key, word };
    let mut deeds = match status {
        S::Guarded => vec![deed("release", w.release)],
        S::Confirm => vec![deed("release", w.erase)],
        S::Unsuitable | S::BadCard | S::Retry | S::Idle => vec![deed("retry", w.retry)],
        S::Checking | S::Waiting | S::Writing | S::Verifying => vec![deed("eject", w.eject)],
        _ => vec![],
    };
    deeds.push(deed("identify", w.identify));
    deeds.push(if status == S::Held { deed("resume", w.resume) } else { deed("hold", w.hold) });
    deeds
}

/// A slot, ready to be drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tile {
    /// `{appliance}/{slot}`: names the tile on the page.
    pub(crate) id: String,
    /// What people call the slot.
    pub(crate) name: String,
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
    /// What to say when the appliance has not been heard.
    pub(crate) offline: &'static str,
    /// What can be done; nothing for who may not.
    pub(crate) deeds: Vec<Deed>,
}

impl Tile {
    /// Draws a slot as it was last reported; `may_tend` adds what can be done with it.
    pub(crate) fn of(slot: &SlotView, locale: &Locale, now: Timestamp, may_tend: bool) -> Self {
        let w = locale.words;
        let status = slot.state.state;
        let (glyph, word, tone) = look(status, w);
        let progress = slot.progress.as_ref().filter(|p| p.total > 0 && is_at_work(status, p.phase));
        let copy = match (slot.state.copy, slot.state.total) {
            (Some(copy), Some(total)) if progress.is_some() => w.copy_of(copy, total),
            _ => String::new(),
        };
        let state = serde_json::to_value(status).ok();
        Self {
            id: slot.id.clone(),
            name: slot.name.clone(),
            state: state.and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default(),
            tone: if slot.online { tone.class() } else { Tone::Idle.class() },
            glyph,
            word,
            sentence: match (progress.and_then(|p| p.eta_s), &slot.state.sentence) {
                (Some(eta), _) => w.ready_at(&locale.clock(now + std::time::Duration::from_secs(eta))),
                (None, said) => said.as_ref().map(|s| sentence(s, locale)).unwrap_or_default(),
            },
            percent: progress.map(|p| percent(p.done, p.total)),
            pace: progress.map(|p| locale.rate(&p.rate_bps)).unwrap_or_default(),
            copy,
            fault: slot.state.fault.as_ref().map(|f| f.text.clone()).unwrap_or_default(),
            offline: if slot.online { "" } else { w.offline_tile },
            deeds: if may_tend { deeds(status, w) } else { vec![] },
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

/// What to do now.
fn sentence(sentence: &Sentence, locale: &Locale) -> String {
    let w = locale.words;
    match sentence {
        Sentence::InsertCard { min_bytes } => w.say_insert(&locale.size(min_bytes)),
        Sentence::Checking => w.say_checking.into(),
        Sentence::WaitingForImage { percent } => w.say_waiting(*percent),
        Sentence::Writing => w.say_writing.into(),
        Sentence::Verifying => w.say_verifying.into(),
        Sentence::TakeCard { copy, total } => w.say_take(*copy, *total),
        Sentence::TooSmall { actual_bytes, min_bytes } => {
            w.say_too_small(&locale.size(min_bytes), &locale.size(actual_bytes))
        }
        Sentence::Locked => w.say_locked.into(),
        Sentence::Guarded { order } => w.say_guarded(&order.to_string()),
        Sentence::ConfirmErase => w.say_confirm.into(),
        Sentence::BadCard => w.say_bad_card.into(),
        Sentence::Reinsert => w.say_reinsert.into(),
        Sentence::OutOfService { reason } => w.say_out_of_service(reason),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use jiff::tz::TimeZone;

    use super::*;
    use crate::words::Language;

    #[test]
    fn every_state_has_a_glyph_and_a_word_of_its_own_in_every_language() {
        for language in Language::ALL {
            let looks = SlotStatus::ALL.map(|status| look(status, language.words()));
            let glyphs: HashSet<_> = looks.iter().map(|l| l.0).collect();
            let words: HashSet<_> = looks.iter().map(|l| l.1).collect();
            assert_eq!((glyphs.len(), words.len()), (SlotStatus::ALL.len(), SlotStatus::ALL.len()));
        }
    }

    #[test]
    fn a_guarded_card_can_be_released_and_a_held_slot_goes_on() {
        let keys =
            |status| deeds(status, Language::English.words()).iter().map(|d| d.key).collect::<Vec<_>>();
        assert_eq!(keys(SlotStatus::Guarded), ["release", "identify", "hold"]);
        assert_eq!(keys(SlotStatus::Held), ["identify", "resume"]);
        assert_eq!(keys(SlotStatus::Writing), ["eject", "identify", "hold"]);
        assert_eq!(keys(SlotStatus::Empty), ["identify", "hold"]);
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
        let said = Sentence::TooSmall { actual_bytes: 7_900_000_000, min_bytes: 31_000_000_000 };
        let text =
            |language: Language| sentence(&said, &Locale { words: language.words(), zone: TimeZone::UTC });
        assert_eq!(text(Language::English), "Needs at least 31.0 GB, this card has 7.9 GB");
        assert_eq!(text(Language::French), "Il faut au moins 31,0 Go, cette carte a 7,9 Go");
    }
}
