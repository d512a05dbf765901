//! Which cards are not to be overwritten without a person's word: finished cards that are not shipped, and
//! cards that hold somebody's data. Asked by [`super::Shop`] before a card takes work.

use cardshop_protocol::ids::OrderId;
use cardshop_protocol::message::{Confirm, Desired};

use super::event::PassportFacts;
use super::history::History;

/// The order whose finished card this is, when it must not be overwritten.
///
/// A passport of a copy that a live lease still asks us for, and that nobody has on record as verified, is
/// that of a write which ended without being recorded (power cut): the card counts for nothing and may be
/// written again.
pub fn guarded_by(passport: PassportFacts, history: &History, desired: Option<&Desired>) -> Option<OrderId> {
    let PassportFacts { order, copy, .. } = passport;
    if history.is_verified(order, copy) {
        return Some(order);
    }
    let desired = desired?;
    let of_order = desired.leases.iter().filter(|l| l.order == order);
    if of_order.clone().any(|l| l.done.contains(&copy)) {
        return Some(order);
    }
    let still_asked = of_order.clone().any(|l| l.copies.contains(copy));
    (desired.settings.guarded_orders.contains(&order) && !still_asked).then_some(order)
}

/// True when a person is asked before this card is erased.
pub fn asks_before_erasing(confirm: Confirm, has_passport: bool, in_use: bool) -> bool {
    match confirm {
        Confirm::Never => false,
        Confirm::Foreign => in_use && !has_passport,
        Confirm::Always => true,
    }
}

/// True when the first bytes of a card (36 KiB are enough) show a partition table or a file system.
/// **Source:** UEFI 2.10 §5.2 (MBR), §5.3 (GPT); ext4's superblock at 1024; ECMA-119 §8 (ISO 9660).
pub fn shows_file_system(first: &[u8]) -> bool {
    let has = |offset: usize, magic: &[u8]| first.get(offset..offset + magic.len()) == Some(magic);
    // The boot signature ends an MBR and the boot sectors of FAT, exFAT and NTFS.
    has(510, &[0x55, 0xaa]) || has(512, b"EFI PART") || has(1024 + 56, &[0x53, 0xef]) || has(32_769, b"CD001")
}

#[cfg(test)]
mod tests {
    use super::*;
    use cardshop_protocol::ids::{ImageId, ObjectId};
    use cardshop_protocol::message::{Copies, Lease, Settings};
    use cardshop_protocol::time::Timestamp;

    fn order(n: u128) -> OrderId {
        OrderId::from_parts(1, n)
    }
    fn lease(order: OrderId, done: Vec<u32>) -> Lease {
        Lease {
            lease: ObjectId::from_parts(2, 2),
            order,
            order_name: String::new(),
            image: ImageId([1; 32]),
            warehouses: vec![],
            min_card_bytes: 0,
            copies: Copies { first: 1, last: 3 },
            done,
            total: 9,
            not_after: Timestamp::from_ms(9),
            wipe: Default::default(),
            verify: Default::default(),
            priority: 0,
        }
    }
    fn guarded(copy: u32, guarded: bool, leases: Vec<Lease>) -> bool {
        let guarded_orders = if guarded { vec![order(1)] } else { vec![] };
        let settings = Settings { guarded_orders, ..Settings::default() };
        let desired = Desired { v: 1, rev: 1, settings, slots: vec![], leases };
        let passport = PassportFacts { uid: order(9), order: order(1), copy };
        guarded_by(passport, &History::default(), Some(&desired)).is_some()
    }

    #[test]
    fn a_finished_card_is_guarded_and_an_unrecorded_one_is_not() {
        assert!(guarded(1, true, vec![]), "written, not shipped");
        assert!(!guarded(1, false, vec![]), "shipped, or of an order nobody remembers");
        assert!(guarded(2, false, vec![lease(order(1), vec![2])]), "on record at the scheduler");
        assert!(!guarded(3, true, vec![lease(order(1), vec![2])]), "still asked of us");
        assert!(guarded(7, true, vec![lease(order(1), vec![2])]), "another appliance's copy");
    }

    #[test]
    fn file_systems_are_seen_and_blank_or_half_written_cards_are_not() {
        let mut card = vec![0; 36 * 1024];
        assert!(!shows_file_system(&card));
        assert!(!shows_file_system(&[]));
        for (offset, magic) in
            [(510, &b"\x55\xaa"[..]), (512, b"EFI PART"), (1080, b"\x53\xef"), (32_769, b"CD001")]
        {
            card[offset..offset + magic.len()].copy_from_slice(magic);
            assert!(shows_file_system(&card), "{magic:?}");
            card.fill(0);
        }
    }

    #[test]
    fn only_foreign_data_asks_by_default() {
        assert!(asks_before_erasing(Confirm::Foreign, false, true));
        assert!(!asks_before_erasing(Confirm::Foreign, true, true));
        assert!(!asks_before_erasing(Confirm::Foreign, false, false));
        assert!(!asks_before_erasing(Confirm::Never, false, true));
        assert!(asks_before_erasing(Confirm::Always, true, false));
    }
}
