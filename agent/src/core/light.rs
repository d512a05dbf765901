//! What each slot's light does at a moment: from the pattern and colour that the slot shows to brightness and colour,
//! as plain arithmetic over tables. `effects::lights` asks it and lights what is there: LEDs of the kernel, a panel.
//!
//! All slots share one clock, so that lights which say the same say it together.

use std::time::Duration;

use cardshop_protocol::led::{Led, LedColour, LedPattern};

/// How bright a light is, and its colour where it has colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Light {
    /// 0 is dark, 255 all there is.
    pub level: u8,
    /// Colour; `None` means that the pattern alone speaks.
    pub colour: LedColour,
}

impl Light {
    /// No light.
    pub const DARK: Self = Self { level: 0, colour: LedColour::None };

    /// Red, green and blue as a LED mixes them. Purer than the palette of screens, whose colours look alike on a LED.
    pub fn rgb(self) -> [u8; 3] {
        self.hue().map(|part| (u16::from(part) * u16::from(self.level) / 255) as u8)
    }

    /// The colour at full brightness.
    pub fn hue(self) -> [u8; 3] {
        match self.colour {
            LedColour::None | LedColour::White => [255, 255, 255],
            LedColour::Blue => [0, 0, 255],
            LedColour::Yellow => [255, 150, 0],
            LedColour::Teal => [0, 255, 110],
            LedColour::Red => [255, 0, 0],
        }
    }
}

/// Where a slot stands among all of an appliance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// From 0.
    pub index: usize,
    /// Slots in all.
    pub count: usize,
}

/// For so many milliseconds, so bright.
type Step = (u16, u8);

const FULL: u8 = 255;
/// A breath never goes out: a dark light means that there is nothing to do.
const BREATH_FLOOR: usize = 8;
const BREATH_STEPS: usize = 40;
const BREATHE_SLOW: [Step; BREATH_STEPS] = breath(50);
const BREATHE_FAST: [Step; BREATH_STEPS] = breath(25);
/// How long the light of a chase stays with a slot.
const CHASE_MS: u64 = 200;

/// Up and down again. Eyes see the square root of what a LED gives, so the square looks even.
const fn breath(step_ms: u16) -> [Step; BREATH_STEPS] {
    let mut steps = [(step_ms, 0); BREATH_STEPS];
    let (mut at, half) = (0, BREATH_STEPS / 2);
    while at < BREATH_STEPS {
        let up = if at < half { at } else { BREATH_STEPS - at };
        steps[at].1 = (BREATH_FLOOR + (FULL as usize - BREATH_FLOOR) * up * up / (half * half)) as u8;
        at += 1;
    }
    steps
}

/// One period of a pattern. A chase is no pattern of one slot.
fn steps(pattern: LedPattern) -> &'static [Step] {
    match pattern {
        LedPattern::Off | LedPattern::Chase => &[(1000, 0)],
        LedPattern::On => &[(1000, FULL)],
        LedPattern::BreatheSlow => &BREATHE_SLOW,
        LedPattern::BreatheFast => &BREATHE_FAST,
        LedPattern::Flash => &[(100, FULL), (900, 0)],
        LedPattern::Blink => &[(250, FULL), (250, 0)],
        LedPattern::DoubleFlash => &[(100, FULL), (100, 0), (100, FULL), (700, 0)],
        LedPattern::TwoSlowFlashes => &[(400, FULL), (400, 0), (400, FULL), (1200, 0)],
        LedPattern::TripleFlash => &[(80, FULL), (80, 0), (80, FULL), (80, 0), (80, FULL), (600, 0)],
        LedPattern::LongShortShort => &[(700, FULL), (200, 0), (150, FULL), (200, 0), (150, FULL), (1000, 0)],
        LedPattern::Blip => &[(60, FULL), (4940, 0)],
        LedPattern::Strobe => &[(40, FULL), (60, 0)],
    }
}

/// The light of a slot at a time, and how long it stays as it is; `None` = until the slot shows something else.
pub fn light(led: Led, place: Place, at: Duration) -> (Light, Option<Duration>) {
    let at_ms = at.as_millis() as u64;
    let (level, left_ms) = match led.pattern {
        LedPattern::Off => (0, None),
        LedPattern::On => (FULL, None),
        LedPattern::Chase => {
            // One slot alone is dark every second time.
            let turn = (at_ms / CHASE_MS) % (place.count.max(2) as u64);
            let level = if turn == place.index as u64 { FULL } else { 0 };
            (level, Some(CHASE_MS - at_ms % CHASE_MS))
        }
        pattern => {
            let (level, left_ms) = within(steps(pattern), at_ms);
            (level, Some(left_ms))
        }
    };
    (Light { level, colour: led.colour }, left_ms.map(Duration::from_millis))
}

/// The step at a time, and how much of it is left.
fn within(steps: &[Step], at_ms: u64) -> (u8, u64) {
    let period: u64 = steps.iter().map(|(ms, _)| u64::from(*ms)).sum();
    let mut rest = at_ms % period;
    for (ms, level) in steps {
        let ms = u64::from(*ms);
        if rest < ms {
            return (*level, ms - rest);
        }
        rest -= ms;
    }
    unreachable!("the rest is smaller than the sum of the steps")
}

#[cfg(test)]
mod tests {
    use super::*;
    use cardshop_protocol::led::{Overlay, led};
    use cardshop_protocol::message::SlotStatus;
    use proptest::prelude::*;

    const ALONE: Place = Place { index: 0, count: 1 };

    fn levels(pattern: LedPattern, place: Place, ms: u64) -> Vec<u8> {
        let led = Led { pattern, colour: LedColour::White };
        (0..ms).map(|at| light(led, place, Duration::from_millis(at)).0.level).collect()
    }

    /// Rises in ten seconds, and milliseconds of light.
    fn measured(status: SlotStatus, overlay: Overlay) -> (usize, usize, LedColour) {
        let shown = led(status, overlay);
        let levels = levels(shown.pattern, Place { index: 0, count: 4 }, 10_000);
        let before = std::iter::once(&0).chain(&levels);
        let rises = before.zip(&levels).filter(|(before, now)| **before < 128 && **now >= 128).count();
        (rises, levels.iter().filter(|level| **level >= 128).count(), shown.colour)
    }

    #[test]
    fn every_state_of_the_led_language_blinks_as_often_and_as_long_as_it_says() {
        use LedColour::*;
        use SlotStatus::*;
        let breath = 2_900..3_300;
        for (status, rises, lit_ms, colour) in [
            (Absent, 0, 0..1, None),
            (Empty, 0, 0..1, None),
            (Idle, 0, 0..1, None),
            (Wanted, 5, breath.clone(), Blue),
            (Checking, 10, 1000..1001, White),
            (Waiting, 10, 1000..1001, Yellow),
            (Writing, 20, 5000..5001, Yellow),
            (Verifying, 20, 2000..2001, Yellow),
            (Done, 1, 10_000..10_001, Teal),
            (Unsuitable, 9, 3300..3601, Red),
            (Guarded, 1, 10_000..10_001, Blue),
            (Confirm, 10, breath, White),
            (BadCard, 30, 2400..2401, Red),
            (Retry, 13, 4100..4401, Red),
            (Held, 2, 120..121, None),
            (OutOfService, 2, 120..121, None),
        ] {
            let (rose, lit, shown) = measured(status, Overlay::None);
            assert_eq!((rose, shown), (rises, colour), "{status:?}");
            assert!(lit_ms.contains(&lit), "{status:?} is lit for {lit} ms of 10 s");
        }
        assert_eq!(measured(Writing, Overlay::Identify), (100, 4000, White));
        assert_eq!(measured(Empty, Overlay::Detached), (13, 2600, Blue), "a quarter of the time, of four");
    }

    #[test]
    fn one_light_without_colours_tells_every_pattern_from_every_other() {
        use LedPattern::*;
        let all = [
            Off,
            On,
            BreatheSlow,
            BreatheFast,
            Flash,
            Blink,
            DoubleFlash,
            TwoSlowFlashes,
            TripleFlash,
            LongShortShort,
            Blip,
            Strobe,
            Chase,
        ];
        let shown: std::collections::HashSet<_> = all.map(|p| levels(p, ALONE, 10_000)).into();
        assert_eq!(shown.len(), all.len());
    }

    #[test]
    fn a_chase_lights_one_slot_at_a_time_and_each_in_turn() {
        let of = |index| levels(LedPattern::Chase, Place { index, count: 3 }, 600);
        for at in 0..600 {
            assert_eq!((0..3).filter(|index| of(*index)[at] == FULL).count(), 1, "at {at} ms");
        }
        assert!(of(0)[0] == FULL && of(1)[200] == FULL && of(2)[400] == FULL);
    }

    #[test]
    fn a_breath_never_jumps_and_never_goes_out() {
        let levels = levels(LedPattern::BreatheSlow, ALONE, 4000);
        assert!(levels.iter().all(|level| *level > 0));
        assert!(levels.windows(2).all(|pair| pair[0].abs_diff(pair[1]) < 32));
    }

    #[test]
    fn dimming_keeps_the_hue() {
        let half = Light { level: 128, colour: LedColour::Yellow };
        assert_eq!((half.hue(), half.rgb()), ([255, 150, 0], [128, 75, 0]));
        assert_eq!(Light::DARK.rgb(), [0; 3]);
    }

    proptest! {
        #[test]
        fn a_light_stays_as_it_is_for_as_long_as_it_says(at in 0u64..1 << 40, which in 0usize..16, identify: bool) {
            let overlay = if identify { Overlay::Identify } else { Overlay::Detached };
            let shown = led(SlotStatus::ALL[which], overlay);
            let place = Place { index: 1, count: 3 };
            let (now, left) = light(shown, place, Duration::from_millis(at));
            let last = left.map_or(at + 5000, |left| at + left.as_millis() as u64 - 1);
            prop_assert!(last >= at);
            for later in [at, (at + last) / 2, last] {
                prop_assert_eq!(light(shown, place, Duration::from_millis(later)).0, now);
            }
        }
    }
}
