//! What all slots show, for everything that has lights: the main thread sets it, the outputs (`kernel_leds`, `panel`)
//! take frames from it and wait for the next.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use cardshop_protocol::ids::SlotId;
use cardshop_protocol::led::Led;

use crate::core::light::{Light, Place, light};

/// Nothing stays longer without a look: what an output has lost is shown again.
const LONGEST_FRAME: Duration = Duration::from_secs(2);

/// What all slots show; clones are the same lights.
#[derive(Debug, Clone)]
pub(crate) struct Lights(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    slots: Mutex<Slots>,
    changed: Condvar,
    began: Instant,
}

#[derive(Debug, Default)]
struct Slots {
    shown: BTreeMap<SlotId, Led>,
    version: u64,
    ending: bool,
}

/// The lights of one moment.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) lights: BTreeMap<SlotId, Light>,
    /// It stays so, if no slot changes.
    pub(crate) left: Duration,
    version: u64,
}

impl Default for Lights {
    fn default() -> Self {
        Self(Arc::new(Shared { slots: Mutex::default(), changed: Condvar::new(), began: Instant::now() }))
    }
}

impl Lights {
    fn change(&self, change: impl FnOnce(&mut Slots)) {
        let mut slots = self.0.slots.lock().expect("no holder panics");
        change(&mut slots);
        slots.version += 1;
        drop(slots);
        self.0.changed.notify_all();
    }

    /// A slot shows something else.
    pub(crate) fn set(&self, slot: &SlotId, led: Led) {
        self.change(|slots| _ = slots.shown.insert(slot.clone(), led));
    }

    /// There is no such slot any more.
    pub(crate) fn remove(&self, slot: &SlotId) {
        self.change(|slots| _ = slots.shown.remove(slot));
    }

    /// Ends all outputs.
    pub(crate) fn end(&self) {
        self.change(|slots| slots.ending = true);
    }

    /// What is lit now.
    pub(crate) fn frame(&self) -> Frame {
        let slots = self.0.slots.lock().expect("no holder panics");
        let (at, count) = (self.0.began.elapsed(), slots.shown.len());
        let mut left = LONGEST_FRAME;
        let one = |(index, (slot, led)): (usize, (&SlotId, &Led))| {
            let (light, stays) = light(*led, Place { index, count }, at);
            left = left.min(stays.unwrap_or(LONGEST_FRAME));
            (slot.clone(), light)
        };
        let lights = slots.shown.iter().enumerate().map(one).collect();
        Frame { lights, left, version: slots.version }
    }

    /// Waits until a slot shows something else than in `frame`, `limit` at most; false when it is over.
    pub(crate) fn wait(&self, frame: &Frame, limit: Duration) -> bool {
        let slots = self.0.slots.lock().expect("no holder panics");
        let same = |slots: &mut Slots| slots.version == frame.version && !slots.ending;
        let (slots, _) = self.0.changed.wait_timeout_while(slots, limit, same).expect("no holder panics");
        !slots.ending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cardshop_protocol::led::{LedColour, LedPattern};

    #[test]
    fn a_change_ends_the_wait_for_the_next_frame_at_once_and_the_end_ends_it_for_good() {
        let lights = Lights::default();
        let on = Led { pattern: LedPattern::On, colour: LedColour::Teal };
        lights.set(&SlotId::numbered(1), on);
        let frame = lights.frame();
        assert_eq!(frame.left, LONGEST_FRAME);
        assert_eq!(frame.lights[&SlotId::numbered(1)], Light { level: 255, colour: LedColour::Teal });
        let other = lights.clone();
        let waiting = std::thread::spawn(move || other.wait(&frame, Duration::from_secs(60)));
        lights.set(&SlotId::numbered(2), on);
        assert!(waiting.join().unwrap());
        lights.remove(&SlotId::numbered(2));
        assert_eq!(lights.frame().lights.len(), 1);
        lights.end();
        assert!(!lights.wait(&lights.frame(), Duration::from_secs(60)));
    }
}
