//! The papers labels are printed on: where each label of a sheet lies. Lengths in millimetres.
//! **Source:** the makers' drawings as gLabels 3.4 has them (`avery-iso-templates.xml`: 7160, 8651, 7165), rounded to
//! the symmetric margins that the makers print beside them; L7159 as L7160, with labels of 33.9 mm. The rolls are
//! Brother's DK 62 mm and Zebra's 50 × 25 mm.

use std::str::FromStr;

use super::canvas::Area;

/// What labels are printed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A4, 3 × 7 labels of 63.5 × 38.1 mm.
    L7160,
    /// A4, 3 × 8 labels of 63.5 × 33.9 mm.
    L7159,
    /// A4, 5 × 13 labels of 38.1 × 21.2 mm.
    L7651,
    /// A4, 2 × 4 labels of 99.1 × 67.7 mm.
    L7165,
    /// A roll of 62 mm, cut every 29 mm.
    Roll62,
    /// Single labels of 50 × 25 mm.
    Single50x25,
    /// The same as ZPL II for a printer of 203 dpi.
    Zpl,
    /// The same as ZPL II for a printer of 300 dpi.
    Zpl300,
}

/// How labels lie on a paper.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    /// Width and height of the paper.
    pub page: (f32, f32),
    /// Labels beside each other, and below each other.
    pub count: (u32, u32),
    /// Width and height of a label.
    pub label: (f32, f32),
    /// Left and upper edge of the first.
    pub first: (f32, f32),
    /// From one to the next.
    pub pitch: (f32, f32),
}

const A4: (f32, f32) = (210.0, 297.0);

impl Format {
    /// All of them; the first is taken where nobody says.
    pub const ALL: [Self; 8] = [
        Self::L7160,
        Self::L7159,
        Self::L7651,
        Self::L7165,
        Self::Roll62,
        Self::Single50x25,
        Self::Zpl,
        Self::Zpl300,
    ];

    /// Its name in an address.
    pub fn name(self) -> &'static str {
        match self {
            Self::L7160 => "l7160",
            Self::L7159 => "l7159",
            Self::L7651 => "l7651",
            Self::L7165 => "l7165",
            Self::Roll62 => "62mm",
            Self::Single50x25 => "50x25",
            Self::Zpl => "zpl",
            Self::Zpl300 => "zpl300",
        }
    }

    /// What people know it by.
    pub fn title(self) -> &'static str {
        match self {
            Self::L7160 => "A4, 21 × 63.5 × 38.1 mm (Avery L7160)",
            Self::L7159 => "A4, 24 × 63.5 × 33.9 mm (Avery L7159)",
            Self::L7651 => "A4, 65 × 38.1 × 21.2 mm (Avery L7651)",
            Self::L7165 => "A4, 8 × 99.1 × 67.7 mm (Avery L7165)",
            Self::Roll62 => "62 mm (Brother DK)",
            Self::Single50x25 => "50 × 25 mm",
            Self::Zpl => "50 × 25 mm, ZPL 203 dpi (Zebra)",
            Self::Zpl300 => "50 × 25 mm, ZPL 300 dpi (Zebra)",
        }
    }

    /// Where its labels lie.
    pub fn grid(self) -> Grid {
        let single = |width, height| Grid {
            page: (width, height),
            count: (1, 1),
            label: (width, height),
            first: (0.0, 0.0),
            pitch: (width, height),
        };
        let sheet = |count, label, first, pitch| Grid { page: A4, count, label, first, pitch };
        match self {
            Self::L7160 => sheet((3, 7), (63.5, 38.1), (7.25, 15.15), (66.0, 38.1)),
            Self::L7159 => sheet((3, 8), (63.5, 33.9), (7.25, 12.9), (66.0, 33.9)),
            Self::L7651 => sheet((5, 13), (38.1, 21.2), (4.75, 10.7), (40.6, 21.2)),
            Self::L7165 => sheet((2, 4), (99.1, 67.7), (4.65, 13.1), (101.6, 67.7)),
            Self::Roll62 => single(62.0, 29.0),
            Self::Single50x25 | Self::Zpl | Self::Zpl300 => single(50.0, 25.0),
        }
    }

    /// Dots of a millimetre, of printers that take ZPL. **Source:** Zebra's data sheets: 8 at 203 dpi, 12 at 300.
    pub(super) fn dots_per_mm(self) -> Option<u32> {
        match self {
            Self::Zpl => Some(8),
            Self::Zpl300 => Some(12),
            _ => None,
        }
    }

    /// The type of its files. **Source:** IANA: `application/vnd.zebra.zpl` is not listed, so that plain text it is.
    pub fn media_type(self) -> &'static str {
        if self.dots_per_mm().is_some() { "text/plain; charset=utf-8" } else { "application/pdf" }
    }

    /// The ending of its files' names.
    pub fn ending(self) -> &'static str {
        if self.dots_per_mm().is_some() { "zpl" } else { "pdf" }
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;
    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        Self::ALL.into_iter().find(|format| format.name() == name).ok_or(UnknownFormat)
    }
}

/// No paper of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not one of the papers that labels are printed on")]
pub struct UnknownFormat;

impl Grid {
    /// Labels of one paper.
    pub fn labels(&self) -> u32 {
        self.count.0 * self.count.1
    }

    /// Where a label lies, counted from 0, along the rows.
    pub(super) fn area(&self, number: u32) -> Area {
        let (column, row) = (number % self.count.0, number / self.count.0);
        Area {
            x: self.first.0 + column as f32 * self.pitch.0,
            y: self.first.1 + row as f32 * self.pitch.1,
            width: self.label.0,
            height: self.label.1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_lie_inside_of_their_paper_and_never_overlap() {
        for format in Format::ALL {
            let grid = format.grid();
            let areas: Vec<Area> = (0..grid.labels()).map(|n| grid.area(n)).collect();
            for (n, area) in areas.iter().enumerate() {
                let inside = area.x >= 0.0
                    && area.y >= 0.0
                    && area.x + area.width <= grid.page.0 + 0.001
                    && area.y + area.height <= grid.page.1 + 0.001;
                assert!(inside, "{format:?} {n}: {area:?}");
                for other in &areas[..n] {
                    let apart =
                        area.x >= other.x + other.width - 0.001 || area.y >= other.y + other.height - 0.001;
                    assert!(apart, "{format:?} {n}: {area:?} and {other:?}");
                }
            }
        }
    }

    /// gLabels' own figures, in points: columns, rows, width, height, left, top, pitch across and down.
    const DRAWINGS: [(Format, [f32; 8]); 3] = [
        (Format::L7160, [3.0, 7.0, 181.4, 108.0, 21.2, 43.9, 187.2, 108.0]),
        (Format::L7651, [5.0, 13.0, 108.0, 60.09, 13.32, 30.90, 115.09, 60.09]),
        (Format::L7165, [2.0, 4.0, 280.8, 191.991, 13.2378, 36.9638, 288.113, 191.991]),
    ];

    #[test]
    fn each_label_lies_where_the_makers_drawing_says() {
        for (format, [columns, rows, width, height, left, top, across, down]) in DRAWINGS {
            let grid = format.grid();
            assert_eq!(grid.count, (columns as u32, rows as u32));
            for number in 0..grid.labels() {
                let (column, row) = ((number % grid.count.0) as f32, (number / grid.count.0) as f32);
                let area = grid.area(number);
                let points = [left + column * across, top + row * down, width, height];
                for (ours, theirs) in [area.x, area.y, area.width, area.height].into_iter().zip(points) {
                    // They round to tenths of a point and leave the gap's half to the label.
                    let theirs = theirs * 25.4 / 72.0;
                    assert!((ours - theirs).abs() < 0.6, "{format:?} {number}: {ours} and {theirs} mm");
                }
            }
        }
        // Margins of a sheet are the same on both sides.
        for grid in Format::ALL.map(Format::grid) {
            let last = grid.area(grid.labels() - 1);
            assert!((grid.page.0 - last.x - last.width - grid.first.0).abs() < 0.01, "{grid:?}");
            assert!((grid.page.1 - last.y - last.height - grid.first.1).abs() < 0.01, "{grid:?}");
        }
    }

    #[test]
    fn a_format_is_found_by_its_name() {
        for format in Format::ALL {
            assert_eq!(format.name().parse(), Ok(format));
        }
        assert_eq!("a5".parse::<Format>(), Err(UnknownFormat));
    }
}
