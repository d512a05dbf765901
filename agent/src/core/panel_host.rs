//! The agent's end of a LED panel: greets it, says what changed and once a second everything, notices when it is gone.
//! Pure: `effects::panel` has the serial port.

use std::time::{Duration, Instant};

use super::panel::{FromPanel, LEDS_IN_A_LINE, LineError, PanelLight, ToPanel};

/// Everything is said again this often, so that a lost line is mended and the panel knows that the agent lives.
pub const BEAT: Duration = Duration::from_secs(1);
/// A panel that says nothing for so long is gone.
pub const GONE_AFTER: Duration = Duration::from_secs(3);
/// Lines that may wait for their answer: a panel that is slower misses frames, never order.
const MAX_UNANSWERED: u16 = 8;

/// One panel, from the moment its port was opened.
#[derive(Debug)]
pub struct PanelHost {
    /// How many lights it has; `None` until it has said so.
    leds: Option<u8>,
    number: u16,
    answered: u16,
    /// What each light was told last.
    told: Vec<Option<[u8; 3]>>,
    all_told: Option<Instant>,
    greeted: Option<Instant>,
    heard: Instant,
}

impl PanelHost {
    /// A port was opened.
    pub fn new(now: Instant) -> Self {
        Self {
            leds: None,
            number: 0,
            answered: 0,
            told: Vec::new(),
            all_told: None,
            greeted: None,
            heard: now,
        }
    }

    /// Takes in a line; gives the number of a button that was pressed.
    pub fn hear(&mut self, now: Instant, line: &[u8]) -> Option<u8> {
        match FromPanel::read(line) {
            Ok(FromPanel::Panel { leds, .. }) => {
                self.leds = Some(leds);
                self.told = vec![None; usize::from(leds)];
                (self.number, self.answered) = (0, 0);
            }
            Ok(FromPanel::Ack(number)) => self.answered = number,
            Ok(FromPanel::Nak) => self.forget(),
            Ok(FromPanel::Button(led)) => {
                self.heard = now;
                return Some(led);
            }
            // Nothing of a panel: it does not count as heard.
            Err(error) => {
                if error == LineError::Damaged {
                    self.forget();
                }
                return None;
            }
        }
        self.heard = now;
        None
    }

    fn forget(&mut self) {
        self.told.iter_mut().for_each(|light| *light = None);
        self.answered = self.number;
    }

    /// What is to be said now; `lights` has each light's colour by its number, from 1.
    pub fn due(&mut self, now: Instant, lights: impl Fn(u8) -> [u8; 3]) -> Vec<String> {
        let Some(leds) = self.leds else {
            if self.greeted.is_some_and(|greeted| now.duration_since(greeted) < BEAT) {
                return Vec::new();
            }
            self.greeted = Some(now);
            return vec![ToPanel::Hello.line()];
        };
        let beat = self.all_told.is_none_or(|told| now.duration_since(told) >= BEAT);
        if !beat && self.number.wrapping_sub(self.answered) >= MAX_UNANSWERED {
            return Vec::new();
        }
        let wanted = (1..=leds).map(|led| (led, lights(led)));
        let changed: Vec<PanelLight> = wanted
            .filter(|(led, colour)| beat || self.told[usize::from(*led) - 1] != Some(*colour))
            .collect();
        if beat {
            self.all_told = Some(now);
        }
        changed.chunks(LEDS_IN_A_LINE).map(|lights| self.set(lights)).collect()
    }

    fn set(&mut self, lights: &[PanelLight]) -> String {
        self.number = self.number.wrapping_add(1);
        for (led, colour) in lights {
            self.told[usize::from(*led) - 1] = Some(*colour);
        }
        ToPanel::Set { number: self.number, lights: lights.to_vec() }.line()
    }

    /// True when it has said nothing for too long: the port is to be opened anew.
    pub fn is_gone(&self, now: Instant) -> bool {
        now.duration_since(self.heard) >= GONE_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::super::panel_device::PanelDevice;
    use super::*;

    /// Carries what is due to a panel and its answers back; gives how many lines it took.
    fn talk(host: &mut PanelHost, device: &mut PanelDevice, now: Instant, colour: [u8; 3]) -> usize {
        let due = host.due(now, |_| colour);
        for line in &due {
            if let Some(answer) = device.hear(now, line.as_bytes()) {
                host.hear(now, answer.as_bytes());
            }
        }
        due.len()
    }

    #[test]
    fn a_panel_is_greeted_told_what_changes_and_everything_once_a_second() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let (mut host, mut device) = (PanelHost::new(began), PanelDevice::new(45, "bench"));
        assert_eq!(talk(&mut host, &mut device, at(0), [1; 3]), 1, "hello");
        assert_eq!(talk(&mut host, &mut device, at(10), [1; 3]), 3, "45 lights in three lines");
        assert_eq!(device.lights(at(20)), vec![[1; 3]; 45]);
        assert_eq!(talk(&mut host, &mut device, at(30), [1; 3]), 0, "nothing changed");
        assert_eq!(talk(&mut host, &mut device, at(40), [2; 3]), 3);
        assert_eq!(talk(&mut host, &mut device, at(1010), [2; 3]), 3, "the beat says all again");
        assert!(!host.is_gone(at(3900)) && host.is_gone(at(4010)));
    }

    #[test]
    fn a_panel_that_hears_nothing_is_dark_and_lights_up_again_with_the_next_word() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let (mut host, mut device) = (PanelHost::new(began), PanelDevice::new(2, "bench"));
        talk(&mut host, &mut device, at(0), [9; 3]);
        talk(&mut host, &mut device, at(1), [9; 3]);
        assert_eq!(device.lights(at(2999)), [[9; 3]; 2]);
        assert_eq!(device.lights(at(3001)), [[0; 3]; 2], "the agent is gone: nothing is called done");
        talk(&mut host, &mut device, at(5000), [9; 3]);
        assert_eq!(device.lights(at(5000)), [[9; 3]; 2]);
    }

    #[test]
    fn damage_on_the_wire_is_mended_at_once_and_a_slow_panel_misses_frames() {
        let began = Instant::now();
        let (mut host, mut device) = (PanelHost::new(began), PanelDevice::new(1, "bench"));
        talk(&mut host, &mut device, began, [0; 3]);
        talk(&mut host, &mut device, began, [0; 3]);
        let mut line = host.due(began, |_| [7; 3]).remove(0).into_bytes();
        line[6] ^= 0x10;
        let answer = device.hear(began, &line).expect("it asks for all again");
        host.hear(began, answer.as_bytes());
        assert_eq!(talk(&mut host, &mut device, began, [7; 3]), 1);
        assert_eq!(device.lights(began), [[7; 3]]);
        let unanswered = (0..100).filter(|n| !host.due(began, |_| [*n; 3]).is_empty()).count();
        assert_eq!(unanswered, usize::from(MAX_UNANSWERED));
    }
}
