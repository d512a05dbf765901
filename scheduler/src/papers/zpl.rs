//! Labels as ZPL II, which label printers take as text. Nothing that a person typed reaches the printer as a command:
//! every character but letters, digits and a few marks is a hexadecimal escape, so that the file is ASCII.
//! **Source:** Zebra, *Programming Guide for ZPL II*: ^BQ (QR codes), ^CI28 (UTF-8), ^FH (escapes), ^A0 (font),
//! ^PW and ^LL (size in dots).

use std::collections::BTreeSet;
use std::fmt::Write;

use super::canvas::{Area, em};
use super::code::{Code, QUIET};
use super::label::{Label, parts};
use super::{Paper, PaperError};

/// The printer puts a code this many dots lower than it was told. **Source:** ^BQ.
const CODE_DROP: u32 = 10;
/// Most times a module of a code is enlarged. **Source:** ^BQ.
const MAX_ENLARGED: u32 = 10;

/// A field's data, escaped.
fn escaped(text: &str) -> String {
    let mut data = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || matches!(c, ' ' | '.' | ',' | ':' | ';' | '-' | '/' | '(' | ')' | '+')
        {
            data.push(c);
            continue;
        }
        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
            let _ = write!(data, "_{byte:02X}");
        }
    }
    data
}

/// All labels, one after the other.
pub(super) fn labels(labels: &[Label], size: (f32, f32), dots_per_mm: u32) -> Result<Paper, PaperError> {
    let mut text = String::new();
    let dots = |mm: f32| (mm * dots_per_mm as f32).round() as u32;
    let area = Area { x: 0.0, y: 0.0, width: size.0, height: size.1 };
    let mut missing = BTreeSet::new();
    for label in labels {
        let code = Code::new(&label.code)?;
        let parts = parts(label, area);
        let modules = (code.width + 2 * QUIET) as u32;
        let enlarged = (dots(parts.code) / modules).clamp(1, MAX_ENLARGED);
        let edge = QUIET as u32 * enlarged;
        let top = dots(area.height).saturating_sub(modules * enlarged) / 2 + edge;
        let _ = write!(
            text,
            "^XA\n^CI28\n^PW{}\n^LL{}\n^LH0,0\n^FO{edge},{}^BQN,2,{enlarged}^FH_^FDQA,{}^FS\n",
            dots(size.0),
            dots(size.1),
            top.saturating_sub(CODE_DROP),
            escaped(&label.code.to_uppercase()),
        );
        // The printer's font is narrower than ours: what fits in ours fits. It is placed by its upper edge.
        let height = parts.size / em(1.0, 1.0);
        for (number, line) in parts.lines.iter().enumerate() {
            missing.extend(&line.missing);
            let (left, top) =
                (dots(parts.left), dots(parts.base + parts.leading * number as f32 - height * 0.8));
            let data = escaped(line.text());
            let _ = writeln!(text, "^FO{left},{top}^A0N,{}^FH_^FD{data}^FS", dots(height));
        }
        text.push_str("^XZ\n");
    }
    Ok(Paper { bytes: text.into_bytes(), missing: missing.into_iter().collect() })
}
