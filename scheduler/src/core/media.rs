//! How large cards of an advertised size really are, from those that were written here.

use cardshop_protocol::ids::ObjectId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::documents::Media;

/// A card belongs to the size that is printed on it from this share of it on, in percent; makers round up.
const FROM_PERCENT: u64 = 85;
/// To this share.
const TO_PERCENT: u64 = 110;
/// What is suggested is a multiple of this, bytes: an erase block of large cards.
const ROUND_DOWN_TO: u64 = 4 * 1024 * 1024;

/// What cards of one advertised size had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Measured {
    /// Of which size.
    pub id: ObjectId,
    /// Cards that were seen.
    pub cards: usize,
    /// The smallest of them, bytes.
    pub smallest_bytes: Option<u64>,
    /// What every one of them can be trusted to have, bytes.
    pub usable_bytes: Option<u64>,
}

/// Of all cards those of this size, and the smallest of them.
pub(crate) fn measured(media: &Media, cards: impl Iterator<Item = u64>) -> Measured {
    let hundredth = media.advertised_bytes / 100;
    let of_this = FROM_PERCENT * hundredth..=TO_PERCENT * hundredth;
    let mut sizes: Vec<u64> = cards.filter(|size| of_this.contains(size)).collect();
    sizes.sort_unstable();
    let smallest_bytes = sizes.first().copied();
    let usable_bytes = smallest_bytes.map(|bytes| bytes / ROUND_DOWN_TO * ROUND_DOWN_TO);
    Measured { id: media.id, cards: sizes.len(), smallest_bytes, usable_bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_card_of_a_size_counts_and_cards_of_other_sizes_do_not() {
        let media = Media {
            id: ObjectId::from_parts(1, 1),
            name: "32 GB".into(),
            kind: "sd".into(),
            advertised_bytes: 32_000_000_000,
            usable_bytes: 30_720_000_000,
        };
        let cards = [31_914_983_424, 15_931_539_456, 30_908_350_464, 63_864_569_856];
        let found = measured(&media, cards.into_iter());
        assert_eq!((found.cards, found.smallest_bytes), (2, Some(30_908_350_464)));
        assert!(
            found.usable_bytes.unwrap() <= 30_908_350_464 && found.usable_bytes.unwrap() % ROUND_DOWN_TO == 0
        );
        assert_eq!(measured(&media, std::iter::empty()).usable_bytes, None);
    }
}
