//! Papers: the slip that goes into a parcel, and labels for cards and slots, as PDF and as ZPL. Pure: data in, bytes
//! out; no clock, no file, no store. `effects/papers` brings the data, `api/papers` serves the bytes.
//!
//! ```text
//! slip ──────────┐                ┌► text (cleaned, cut, wrapped) ► face (shaped) ┐
//! label ─► sheet ┴► canvas (PDF) ─┴► code (QR)                                    ├► Paper {bytes, missing}
//!       └─────────► zpl ──────────────────────────────────────────────────────────┘
//! ```
//!
//! PDFs are exactly as large as their paper and ask the printer not to scale. What is on a card is told by
//! [`contents`], which names what may be said and nothing else: passwords are never among it.
//! The font is DejaVu Sans: Latin, Greek, Cyrillic, Armenian, Georgian, Arabic, Hebrew, N’Ko, Tifinagh, Lao. What it
//! lacks (Chinese, Japanese, Korean, Devanagari, Thai, Ethiopic, most emoji) shows as `�` and is in [`Paper::missing`].

mod canvas;
mod code;
mod contents;
mod face;
mod label;
mod sheet;
mod slip;
#[cfg(test)]
pub(crate) mod tests;
mod text;
mod words;
mod zpl;

pub use contents::contents;
pub use label::{Label, MAX_LABELS, labels};
pub use sheet::{Format, Grid};
pub use slip::{Sender, Slip, slip};
pub use words::Language;

/// Something to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paper {
    /// The file.
    pub bytes: Vec<u8>,
    /// Characters that the font does not have and that show as `�`, each once, in order.
    pub missing: Vec<char>,
}

/// `U+5B66 U+6821`: the first `most` of some characters, for people.
pub(crate) fn code_points(characters: &[char], most: usize) -> String {
    let named = characters.iter().take(most).map(|c| format!("U+{:04X}", u32::from(*c)));
    named.collect::<Vec<_>>().join(" ")
}

/// Why there is no paper.
#[derive(Debug, thiserror::Error)]
pub enum PaperError {
    /// The printer would run all day.
    #[error("{count} labels are more than one request may have ({MAX_LABELS})")]
    TooManyLabels {
        /// How many.
        count: usize,
    },
    /// That label is not on the sheet.
    #[error("label {start} is not on a sheet of {count}: start with 1 to {count}")]
    NotOnSheet {
        /// Where to start, from 1.
        start: u32,
        /// Labels of a sheet.
        count: u32,
    },
    /// The text does not fit into a QR code.
    #[error("{0:?} does not fit into a QR code")]
    Code(String, #[source] qrcode::types::QrError),
    /// The font cannot be cut down.
    #[error("the font cannot be embedded: {0}")]
    Font(String),
}
