//! The LED language: a pure function of what a slot is doing. Pattern first, colour second, so that one
//! single-colour LED is enough.

use serde::{Deserialize, Serialize};

use crate::message::SlotStatus;

/// How a LED changes in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LedPattern {
    /// Dark.
    Off,
    /// Steady.
    On,
    /// Breathing, once in two seconds.
    BreatheSlow,
    /// Breathing, once a second.
    BreatheFast,
    /// One flash a second.
    Flash,
    /// Even blinking at 2 Hz.
    Blink,
    /// Two flashes a second.
    DoubleFlash,
    /// Two slow flashes.
    TwoSlowFlashes,
    /// Three fast flashes.
    TripleFlash,
    /// Long, short, short.
    LongShortShort,
    /// A blip every five seconds.
    Blip,
    /// Strobe.
    Strobe,
    /// All slots in turn.
    Chase,
}

/// Colour of a LED that has colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LedColour {
    /// No colour.
    None,
    /// A person is wanted.
    Blue,
    /// Looking, asking.
    White,
    /// Busy.
    Yellow,
    /// Good.
    Teal,
    /// Failed.
    Red,
}

/// What a slot's LED shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Led {
    /// Pattern.
    pub pattern: LedPattern,
    /// Colour.
    pub colour: LedColour,
}

/// What lies over a slot's own state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Overlay {
    /// Nothing.
    #[default]
    None,
    /// Somebody asked "which one is this?".
    Identify,
    /// The appliance may not work yet, or is offline with nothing to do.
    Detached,
}

/// What the LED of a slot in this state shows.
pub fn led(status: SlotStatus, overlay: Overlay) -> Led {
    use LedColour as C;
    use LedPattern as P;
    let (pattern, colour) = match (overlay, status) {
        (Overlay::Identify, _) => (P::Strobe, C::White),
        (Overlay::Detached, SlotStatus::Absent | SlotStatus::Empty | SlotStatus::Idle) => (P::Chase, C::Blue),
        (_, SlotStatus::Absent | SlotStatus::Empty | SlotStatus::Idle) => (P::Off, C::None),
        (_, SlotStatus::Wanted) => (P::BreatheSlow, C::Blue),
        (_, SlotStatus::Checking) => (P::Flash, C::White),
        (_, SlotStatus::Waiting) => (P::Flash, C::Yellow),
        (_, SlotStatus::Writing) => (P::Blink, C::Yellow),
        (_, SlotStatus::Verifying) => (P::DoubleFlash, C::Yellow),
        (_, SlotStatus::Done) => (P::On, C::Teal),
        (_, SlotStatus::Unsuitable) => (P::TwoSlowFlashes, C::Red),
        (_, SlotStatus::Guarded) => (P::On, C::Blue),
        (_, SlotStatus::Confirm) => (P::BreatheFast, C::White),
        (_, SlotStatus::BadCard) => (P::TripleFlash, C::Red),
        (_, SlotStatus::Retry) => (P::LongShortShort, C::Red),
        (_, SlotStatus::Held | SlotStatus::OutOfService) => (P::Blip, C::None),
    };
    Led { pattern, colour }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_that_ask_for_different_acts_differ_by_pattern_or_colour() {
        use SlotStatus::*;
        let asking = [
            Wanted, Checking, Waiting, Writing, Verifying, Done, Unsuitable, Guarded, Confirm, BadCard,
            Retry, Held,
        ];
        let shown: std::collections::HashSet<_> = asking.iter().map(|s| led(*s, Overlay::None)).collect();
        assert_eq!(shown.len(), asking.len());
    }

    #[test]
    fn identify_lies_over_everything_and_detached_only_over_rest() {
        assert_eq!(led(SlotStatus::Writing, Overlay::Identify).pattern, LedPattern::Strobe);
        assert_eq!(led(SlotStatus::Writing, Overlay::Detached).pattern, LedPattern::Blink);
        assert_eq!(led(SlotStatus::Empty, Overlay::Detached).pattern, LedPattern::Chase);
    }
}
