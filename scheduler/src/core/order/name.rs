//! The name of an order's image file: the order's id, or the name that was asked for and a part that no other order has.

use super::Order;

/// Longest part taken from a name, characters: with the rest it fits into a FAT directory entry and a URL.
const MAX_STEM: usize = 60;
/// Characters of the order's id behind a name: 40 random bits.
const UNIQUE: usize = 8;

impl Order {
    /// The file's name, without an ending. Letters, digits, `.`, `-` and `_` only.
    pub fn file_name(&self) -> String {
        let id = self.id.to_string();
        if !self.named {
            return id;
        }
        let mut stem = String::new();
        for c in self.name.chars().filter(|c| !c.is_control()) {
            let c = if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
            if !(c == '-' && stem.ends_with('-')) {
                stem.push(c);
            }
        }
        let stem: String = stem.trim_matches(['-', '.']).chars().take(MAX_STEM).collect();
        let unique = &id[id.len() - UNIQUE..];
        if stem.is_empty() { id } else { format!("{stem}-{unique}") }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::order;
    use super::super::{ObjectId, OrderKind};

    #[test]
    fn a_file_is_named_by_its_order_or_by_the_name_asked_for_and_a_part_of_its_own() {
        let mut plain = order(OrderKind::Virtual, 1);
        plain.id = ObjectId::from_parts(1_790_000_000_000, 77);
        assert_eq!(plain.file_name(), plain.id.to_string());
        let mut named = plain.clone();
        (named.named, named.name) = (true, "../École de  Dakar/2026".into());
        let other = { named.clone() };
        assert_eq!(named.file_name(), format!("cole-de-Dakar-2026-{}", &plain.id.to_string()[18..]));
        let other = super::Order { id: ObjectId::from_parts(1_790_000_000_000, 78), ..other };
        assert_ne!(other.file_name(), named.file_name(), "two orders of one name");
        named.name = "学校".into();
        assert_eq!(named.file_name(), named.id.to_string(), "nothing of the name is left");
        named.name = "x".repeat(500);
        assert_eq!(named.file_name().len(), 60 + 1 + 8);
    }
}
