//! The line protocol of a LED panel on a serial port: what crosses the wire, and nothing else. `panel_host` is the
//! agent's end, `panel_device` a panel's. `agent/PANEL.md` is the same for people who build one.
//!
//! ```text
//!   agent ──► $hello,1*CRC                       panel ──► $panel,1,LEDS,NAME*CRC
//!         ──► $set,N,LED=RRGGBB,…*CRC                  ──► $ack,N*CRC
//!                                                      ──► $nak*CRC          something was damaged: say all again
//!                                                      ──► $button,LED*CRC
//! ```
//!
//! **Source:** CRC-16/CCITT-FALSE (polynomial 0x1021, start 0xffff), over what is between `$` and `*`.

use std::fmt::Write;

/// Longest line, bytes, with its end. A panel with 512 bytes of buffer has room.
pub const MAX_LINE_SIZE: usize = 256;
/// Lights of one panel: as many as an appliance has slots.
pub const MAX_LEDS: u8 = 64;
/// Lights in one line: `,64=rrggbb` each, so that a line keeps to [`MAX_LINE_SIZE`].
pub const LEDS_IN_A_LINE: usize = 20;
/// Version of the protocol.
pub const PANEL_VERSION: u8 = 1;
/// Longest name of a panel, characters.
const MAX_NAME_CHARS: usize = 32;

/// One light: its number from 1, and red, green and blue.
pub type PanelLight = (u8, [u8; 3]);

/// What the agent says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToPanel {
    /// Who is there?
    Hello,
    /// These lights look like this now. Said again at least every second.
    Set {
        /// Comes back in the answer.
        number: u16,
        /// At most [`LEDS_IN_A_LINE`].
        lights: Vec<PanelLight>,
    },
}

/// What a panel says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromPanel {
    /// It is one.
    Panel {
        /// How many lights it has.
        leds: u8,
        /// For people.
        name: String,
    },
    /// A line was taken.
    Ack(u16),
    /// A line was damaged.
    Nak,
    /// Somebody pressed the button at a light.
    Button(u8),
}

/// Why a line says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// It is longer than any.
    #[error("the line is longer than {MAX_LINE_SIZE} bytes")]
    TooLong,
    /// It is not `$…*CRC`.
    #[error("the line has no frame")]
    NoFrame,
    /// Its checksum is another's.
    #[error("the line is damaged")]
    Damaged,
    /// It is whole and not understood: perhaps of a later version.
    #[error("the line is not understood")]
    Unknown,
}

impl ToPanel {
    /// The line, with its end.
    pub fn line(&self) -> String {
        match self {
            Self::Hello => framed(&format!("hello,{PANEL_VERSION}")),
            Self::Set { number, lights } => {
                let body = format!("set,{number}");
                framed(&lights.iter().fold(body, |mut body, (led, [r, g, b])| {
                    let _ = write!(body, ",{led}={r:02x}{g:02x}{b:02x}");
                    body
                }))
            }
        }
    }

    /// Reads a line; its end may be missing.
    ///
    /// # Errors
    /// Any [`LineError`].
    pub fn read(line: &[u8]) -> Result<Self, LineError> {
        let body = unframed(line)?;
        let mut words = body.split(',');
        let read = match (words.next(), words.next()) {
            (Some("hello"), Some(_)) => Some(Self::Hello),
            (Some("set"), Some(number)) => number.parse().ok().and_then(|number| {
                let lights: Option<Vec<PanelLight>> = words.map(panel_light).collect();
                Some(Self::Set { number, lights: lights? })
            }),
            _ => None,
        };
        read.ok_or(LineError::Unknown)
    }
}

fn panel_light(word: &str) -> Option<PanelLight> {
    let (led, colour) = word.split_once('=')?;
    let part = |at: usize| u8::from_str_radix(colour.get(at..at + 2)?, 16).ok();
    (colour.len() == 6).then_some(())?;
    Some((led_number(led)?, [part(0)?, part(2)?, part(4)?]))
}

fn led_number(word: &str) -> Option<u8> {
    word.parse().ok().filter(|led| (1..=MAX_LEDS).contains(led))
}

impl FromPanel {
    /// The line, with its end.
    pub fn line(&self) -> String {
        framed(&match self {
            Self::Panel { leds, name } => format!("panel,{PANEL_VERSION},{leds},{}", plain(name)),
            Self::Ack(number) => format!("ack,{number}"),
            Self::Nak => "nak".to_owned(),
            Self::Button(led) => format!("button,{led}"),
        })
    }

    /// Reads a line; its end may be missing.
    ///
    /// # Errors
    /// Any [`LineError`].
    pub fn read(line: &[u8]) -> Result<Self, LineError> {
        let body = unframed(line)?;
        let words: Vec<&str> = body.split(',').collect();
        let read = match words[..] {
            ["panel", version, leds, name] if version == PANEL_VERSION.to_string() => {
                led_number(leds).map(|leds| Self::Panel { leds, name: plain(name) })
            }
            ["ack", number] => number.parse().ok().map(Self::Ack),
            ["nak"] => Some(Self::Nak),
            ["button", led] => led_number(led).map(Self::Button),
            _ => None,
        };
        read.ok_or(LineError::Unknown)
    }
}

/// A name that fits into a line and onto a screen.
fn plain(name: &str) -> String {
    let fits = |c: &char| c.is_ascii_graphic() && !"$*,".contains(*c) || *c == ' ';
    name.chars().filter(fits).take(MAX_NAME_CHARS).collect()
}

fn framed(body: &str) -> String {
    format!("${body}*{:04x}\n", crc(body.as_bytes()))
}

fn unframed(line: &[u8]) -> Result<&str, LineError> {
    if line.len() > MAX_LINE_SIZE {
        return Err(LineError::TooLong);
    }
    let line = line.trim_ascii();
    let framed = line.strip_prefix(b"$").ok_or(LineError::NoFrame)?;
    let at = framed.len().checked_sub(5).filter(|at| framed[*at] == b'*').ok_or(LineError::NoFrame)?;
    let (body, told) = (&framed[..at], &framed[at + 1..]);
    if !told.eq_ignore_ascii_case(format!("{:04x}", crc(body)).as_bytes()) {
        return Err(LineError::Damaged);
    }
    std::str::from_utf8(body).map_err(|_| LineError::Unknown)
}

fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xffff, |crc, byte| {
        (0..8).fold(
            crc ^ u16::from(*byte) << 8,
            |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
            },
        )
    })
}

/// Cuts a stream of bytes into lines. One that is too long is passed over up to its end.
#[derive(Debug, Default)]
pub struct Lines {
    begun: Vec<u8>,
    too_long: bool,
}

impl Lines {
    /// Takes in bytes, and gives each whole line to `each`.
    pub fn take(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        for byte in bytes {
            if *byte == b'\n' {
                if !std::mem::take(&mut self.too_long) {
                    each(&self.begun);
                }
                self.begun.clear();
            } else if self.begun.len() + 1 < MAX_LINE_SIZE {
                self.begun.push(*byte);
            } else {
                self.too_long = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_that_is_named() {
        assert_eq!(crc(b"123456789"), 0x29b1, "the check value of CRC-16/CCITT-FALSE");
        assert_eq!(ToPanel::Hello.line(), "$hello,1*9bd4\n");
    }

    #[test]
    fn each_line_is_read_back_and_a_changed_byte_is_seen() {
        let lights = (1..=LEDS_IN_A_LINE as u8).map(|led| (led + 44, [led, 0, 255])).collect();
        let said = [ToPanel::Hello, ToPanel::Set { number: 65_535, lights }];
        for line in &said {
            assert!(line.line().len() <= MAX_LINE_SIZE);
            assert_eq!(ToPanel::read(line.line().as_bytes()).as_ref(), Ok(line));
        }
        for answer in [
            FromPanel::Panel { leds: 8, name: "bench 1".into() },
            FromPanel::Ack(7),
            FromPanel::Nak,
            FromPanel::Button(64),
        ] {
            let mut line = answer.line().into_bytes();
            assert_eq!(FromPanel::read(&line).as_ref(), Ok(&answer));
            line[2] ^= 1;
            assert_eq!(FromPanel::read(&line), Err(LineError::Damaged));
        }
    }

    #[test]
    fn what_is_no_line_of_a_panel_has_its_reason() {
        let long = vec![b'x'; MAX_LINE_SIZE + 1];
        for (line, reason) in [
            (&b""[..], LineError::NoFrame),
            (b"$*", LineError::NoFrame),
            (b"OK", LineError::NoFrame),
            (&long, LineError::TooLong),
            (framed("button,0").as_bytes(), LineError::Unknown),
            (framed("panel,2,8,later").as_bytes(), LineError::Unknown),
            (framed("").as_bytes(), LineError::Unknown),
        ] {
            assert_eq!(FromPanel::read(line), Err(reason), "{line:?}");
        }
    }

    #[test]
    fn lines_come_whole_out_of_pieces_and_noise_ends_at_the_next_line() {
        let (mut lines, mut heard) = (Lines::default(), Vec::new());
        let noise = vec![0xff; 3 * MAX_LINE_SIZE];
        for piece in [b"$a".as_slice(), b"ck,1*", b"0000\n\n", &noise, b"\n$nak\n"] {
            lines.take(piece, |line| heard.push(line.to_vec()));
        }
        assert_eq!(heard, [b"$ack,1*0000".to_vec(), b"".to_vec(), b"$nak".to_vec()]);
    }
}
