//! Decides which bytes of a representation a `Range` header selects. Pure; called by the download handler.
//! **Source:** RFC 9110 §14.

use std::ops::Range;

/// Most ranges one request may ask for. An agent merges neighbouring chunks and asks for one; browsers and
/// download managers for one to a few.
pub(crate) const MAX_RANGES: usize = 64;

/// What a `Range` header selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    /// Everything: there was no header, or one that says to ignore it.
    Whole,
    /// These ranges, none empty, none overlapping, at least one.
    Parts(Vec<Range<u64>>),
    /// No range lies in the representation.
    Unsatisfiable,
    /// More than [`MAX_RANGES`].
    TooMany,
}

/// Selects from a representation of `size` bytes. A header that is not well-formed or has another unit is
/// ignored, as §14.2 says. Ranges that overlap are merged and put in order (§15.3.7.2 allows it), so that no
/// answer is longer than the representation; others keep the order asked for.
pub(crate) fn select(header: Option<&str>, size: u64) -> Selection {
    let Some(set) = header.and_then(range_set) else {
        return Selection::Whole;
    };
    let mut wanted = Vec::new();
    let mut specs = 0;
    for text in set.split(',').map(|t| t.trim_matches([' ', '\t'])).filter(|t| !t.is_empty()) {
        specs += 1;
        match Spec::parse(text) {
            Some(spec) => wanted.extend(spec.within(size)),
            None => return Selection::Whole,
        }
    }
    match specs {
        0 => Selection::Whole,
        _ if specs > MAX_RANGES => Selection::TooMany,
        _ if wanted.is_empty() => Selection::Unsatisfiable,
        _ => Selection::Parts(without_overlap(wanted)),
    }
}

/// What follows `bytes=`; `None` for other units.
fn range_set(header: &str) -> Option<&str> {
    let (unit, set) = header.split_once('=')?;
    unit.trim().eq_ignore_ascii_case("bytes").then_some(set)
}

/// One range as it is written.
enum Spec {
    FromTo(u64, u64),
    From(u64),
    Last(u64),
}

impl Spec {
    fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-')?;
        match (first, last) {
            ("", last) => Some(Self::Last(number(last)?)),
            (first, "") => Some(Self::From(number(first)?)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::FromTo(first, last))
            }
        }
    }

    /// The bytes it selects, if any.
    fn within(self, size: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::FromTo(first, last) => first..last.saturating_add(1).min(size),
            Self::From(first) => first..size,
            Self::Last(count) => size.saturating_sub(count)..size,
        };
        (range.start < range.end).then_some(range)
    }
}

/// Digits only; what is too large for 64 bits lies behind every end anyway.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

fn without_overlap(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut sorted = ranges.clone();
    sorted.sort_by_key(|r| r.start);
    if sorted.windows(2).all(|pair| pair[0].end <= pair[1].start) {
        return ranges;
    }
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in sorted {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    #[allow(clippy::single_range_in_vec_init)] // a list of one range is meant
    fn the_examples_of_rfc_9110_select_what_it_says() {
        let table: &[(&str, &[Range<u64>])] = &[
            ("bytes=0-499", &[0..500]),
            ("bytes=500-999", &[500..1000]),
            ("bytes=-500", &[9500..10_000]),
            ("bytes=9500-", &[9500..10_000]),
            ("bytes=0-0,-1", &[0..1, 9999..10_000]),
            ("bytes= 0-0 , ,\t500-600", &[0..1, 500..601]),
            ("Bytes=9999-20000", &[9999..10_000]),
            ("bytes=-99999", &[0..10_000]),
            ("bytes=500-600,601-999", &[500..601, 601..1000]),
            ("bytes=500-700,601-999", &[500..1000]),
            ("bytes=700-800,100-200", &[700..801, 100..201]),
            ("bytes=20000-,5-5", &[5..6]),
            ("bytes=5-99999999999999999999999999", &[5..10_000]),
        ];
        for (header, parts) in table {
            assert_eq!(select(Some(header), 10_000), Selection::Parts(parts.to_vec()), "{header}");
        }
    }

    #[test]
    fn what_is_not_a_byte_range_is_ignored_and_what_lies_outside_is_unsatisfiable() {
        for header in [
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-4",
            "lines=1-2",
            "bytes=1-2,x",
            "bytes=+1-2",
            "bytes=1 - 2",
        ] {
            assert_eq!(select(Some(header), 10_000), Selection::Whole, "{header}");
        }
        assert_eq!(select(None, 10_000), Selection::Whole);
        for header in ["bytes=10000-", "bytes=-0", "bytes=99999999999999999999999-", "bytes=10000-10001,-0"] {
            assert_eq!(select(Some(header), 10_000), Selection::Unsatisfiable, "{header}");
        }
        let many = format!("bytes={}", vec!["1-1"; MAX_RANGES + 1].join(","));
        assert_eq!(select(Some(&many), 10_000), Selection::TooMany);
    }

    /// One range as text, and as the set of bytes that RFC 9110 §14.1.2 gives it.
    fn spec(size: u64) -> impl Strategy<Value = (String, Vec<u64>)> {
        let at = 0..size + 10;
        prop_oneof![
            (at.clone(), 0..size).prop_map(move |(first, more)| {
                let last = first + more;
                (format!("{first}-{last}"), (first..=last).filter(|b| *b < size).collect())
            }),
            at.clone().prop_map(move |first| (format!("{first}-"), (first..size).collect())),
            at.prop_map(move |n| (format!("-{n}"), (0..size).filter(|b| size - b <= n).collect())),
        ]
    }

    proptest! {
        #[test]
        fn every_selected_byte_was_asked_for_once_and_every_byte_asked_for_is_selected(
            specs in prop::collection::vec(spec(60), 1..6)
        ) {
            let header = format!("bytes={}", specs.iter().map(|s| s.0.as_str()).collect::<Vec<_>>().join(", "));
            let mut wanted: Vec<u64> = specs.iter().flat_map(|s| s.1.clone()).collect();
            wanted.sort_unstable();
            wanted.dedup();
            match select(Some(&header), 60) {
                Selection::Parts(parts) => {
                    let mut got: Vec<u64> = parts.iter().cloned().flatten().collect();
                    prop_assert!(parts.iter().all(|p| p.start < p.end));
                    got.sort_unstable();
                    prop_assert_eq!(got, wanted);
                }
                Selection::Unsatisfiable => prop_assert!(wanted.is_empty()),
                other => prop_assert!(false, "{:?}", other),
            }
        }

        #[test]
        fn no_header_at_all_breaks_it(header in "\\PC{0,40}", size in 0u64..100) {
            if let Selection::Parts(parts) = select(Some(&header), size) {
                prop_assert!(parts.iter().all(|p| p.start < p.end && p.end <= size));
            }
        }
    }
}
