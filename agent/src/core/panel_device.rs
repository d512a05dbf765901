//! A LED panel's end of the wire, as firmware does it: the simulated panel of tests and demonstrations, and the
//! reference for people who build one. Pure: bytes in, answers and lights out.

use std::time::{Duration, Instant};

use super::panel::{FromPanel, LineError, MAX_LEDS, ToPanel};

/// A panel that hears nothing whole for so long is dark: no light may claim what nobody vouches for.
pub const SAFE_AFTER: Duration = Duration::from_secs(3);

/// One panel.
#[derive(Debug)]
pub struct PanelDevice {
    name: String,
    lights: Vec<[u8; 3]>,
    heard: Option<Instant>,
}

impl PanelDevice {
    /// A dark panel.
    pub fn new(leds: u8, name: &str) -> Self {
        Self { name: name.into(), lights: vec![[0; 3]; usize::from(leds.min(MAX_LEDS))], heard: None }
    }

    /// Takes in a line; gives the answer.
    pub fn hear(&mut self, now: Instant, line: &[u8]) -> Option<String> {
        let answer = match ToPanel::read(line) {
            Ok(ToPanel::Hello) => FromPanel::Panel { leds: self.lights.len() as u8, name: self.name.clone() },
            Ok(ToPanel::Set { number, lights }) => {
                for (led, colour) in lights {
                    if let Some(light) = self.lights.get_mut(usize::from(led) - 1) {
                        *light = colour;
                    }
                }
                FromPanel::Ack(number)
            }
            Err(LineError::NoFrame) if line.trim_ascii().is_empty() => return None,
            // Not understood by this version: as good as not said.
            Err(LineError::Unknown) => return None,
            Err(_) => return Some(FromPanel::Nak.line()),
        };
        self.heard = Some(now);
        Some(answer.line())
    }

    /// What its lights show.
    pub fn lights(&self, now: Instant) -> Vec<[u8; 3]> {
        match self.heard {
            Some(heard) if now.duration_since(heard) < SAFE_AFTER => self.lights.clone(),
            _ => vec![[0; 3]; self.lights.len()],
        }
    }
}
