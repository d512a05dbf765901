//! QR codes, as the scanner field of the pages reads them: it takes ids in capitals too, which need a coarser code.
//! **Source:** ISO/IEC 18004: capitals and digits are packed, so that an id of 26 characters has 25 × 25 modules at
//! level Q, of which a quarter may be scratched off.

use qrcode::{Color, EcLevel, QrCode};

use super::PaperError;

/// Modules that have to stay white around a code. **Source:** ISO/IEC 18004 §5.3.8.
pub(super) const QUIET: usize = 4;

/// A code as rows of dark stretches.
pub(super) struct Code {
    /// Modules of a side.
    pub(super) width: usize,
    /// Row, first dark module, count of dark modules.
    pub(super) dark: Vec<(usize, usize, usize)>,
}

impl Code {
    /// The code of an id.
    pub(super) fn new(id: &str) -> Result<Self, PaperError> {
        let code = QrCode::with_error_correction_level(id.to_uppercase(), EcLevel::Q)
            .map_err(|source| PaperError::Code(id.to_owned(), source))?;
        let (width, colors) = (code.width(), code.to_colors());
        let mut dark = Vec::new();
        for (y, row) in colors.chunks(width).enumerate() {
            let mut x = 0;
            while x < width {
                let count = row[x..].iter().take_while(|c| **c == Color::Dark).count();
                if count > 0 {
                    dark.push((y, x, count));
                }
                x += count.max(1);
            }
        }
        Ok(Self { width, dark })
    }
}
