//! The engine on real block devices of a real kernel: a machine in QEMU with USB and SD readers, whose cards
//! fail in every way a card can. This program is also the first program of that machine.
#![allow(clippy::unwrap_used)] // a test helper that cannot unwrap reads worse and asserts less
#![allow(clippy::print_stdout)] // the guest talks over its console, and a test that is skipped says so

mod guest;
mod image;
mod initramfs;
mod machine;
mod nbd;
#[path = "../../../../tools/testing/qemu.rs"]
mod qemu;

use std::collections::BTreeMap;

use image::{Image, MIB};
use machine::{Card, Ending, Reader, Slot, run};
use nbd::Lie;

#[test]
#[ignore = "runs as the first program of the guest"]
fn inside_the_guest() {
    if std::process::id() == 1 {
        guest::run();
    }
}

const fn usb(name: &'static str, card: Card, probe: bool) -> Slot {
    Slot { name, reader: Reader::UsbStorage, card, probe }
}

/// What became of each card: `good`, or the error's name.
fn names(endings: &BTreeMap<&'static str, Ending>) -> BTreeMap<&'static str, String> {
    let name = |ending: &Ending| if ending.verified { "good".to_owned() } else { ending.code.clone() };
    endings.iter().map(|(slot, ending)| (*slot, name(ending))).collect()
}

fn expect(endings: &BTreeMap<&'static str, Ending>, expected: &[(&'static str, &str)]) {
    let texts: Vec<&str> = endings.values().map(|ending| ending.text.as_str()).collect();
    let expected = expected.iter().map(|(slot, name)| (*slot, (*name).to_owned())).collect();
    assert_eq!(names(endings), expected, "{texts:#?}");
    for (slot, ending) in endings.iter().filter(|(_, ending)| ending.verified) {
        assert_eq!(Image::new().difference(&ending.bytes), None, "{slot}");
    }
}

/// No computer boots or mounts it: its first sector is zero.
fn is_blank(ending: &Ending) {
    assert!(
        ending.bytes[..512].iter().all(|byte| *byte == 0),
        "{}: the first sector is not zero",
        ending.code
    );
}

#[test]
fn each_bad_card_of_a_machine_is_named_and_its_neighbours_are_written_well() {
    let bad = 2 * MIB + 4096;
    let endings = match run(&[
        usb("good", Card::Good, true),
        usb("fails to write", Card::FailsToWrite(bad), false),
        usb("locked", Card::Locked, true),
        usb("wraps around, probed", Card::Lies(Lie::Wraps(4 * MIB)), true),
        usb("wraps around, not probed", Card::Lies(Lie::Wraps(4 * MIB)), false),
        usb("forgets", Card::Forgets, false),
        usb("pulled while writing", Card::Pulled("writing"), false),
        usb("pulled while verifying", Card::Pulled("verifying"), false),
        usb("good, not probed", Card::Good, false),
    ]) {
        Ok(endings) => endings,
        Err(reason) => return println!("SKIPPED: {reason}"),
    };
    expect(
        &endings,
        &[
            ("good", "good"),
            ("good, not probed", "good"),
            ("fails to write", "io_error"),
            ("locked", "refused"),
            ("wraps around, probed", "fake_capacity"),
            ("wraps around, not probed", "verify_mismatch"),
            ("forgets", "verify_mismatch"),
            ("pulled while writing", "card_removed"),
            ("pulled while verifying", "card_removed"),
        ],
    );
    let broken = &endings["fails to write"];
    // The request that holds the sector: at most 1 MiB.
    assert!(broken.offset.is_some_and(|at| at <= bad && bad < at + MIB), "{}", broken.text);
    let locked = &endings["locked"];
    assert!(locked.text.contains("check 7"), "{}", locked.text);
    assert!(locked.bytes.iter().all(|byte| *byte == 0x5a), "it was not touched");
    for slot in ["fails to write", "pulled while writing", "pulled while verifying"] {
        is_blank(&endings[slot]);
    }
}

#[test]
#[ignore = "boots a second machine: tools/test --long"]
fn long_readers_of_other_kinds_and_rarer_faults_are_named_too() {
    let slot = |name, reader, card| Slot { name, reader, card, probe: false };
    let bad = 6 * MIB + 512;
    let endings = match run(&[
        slot("uas", Reader::Uas, Card::Good),
        slot("uas, ejected while writing", Reader::Uas, Card::Ejected("writing")),
        slot("uas, ejected while verifying", Reader::Uas, Card::Ejected("verifying")),
        slot("uas, locked", Reader::Uas, Card::Locked),
        slot("uas, fails to write", Reader::Uas, Card::FailsToWrite(bad)),
        slot("sd", Reader::Sd, Card::Good),
        slot("fails to read", Reader::UsbStorage, Card::FailsToRead(bad)),
        slot("drops writes behind its end", Reader::UsbStorage, Card::Lies(Lie::DropsFrom(6 * MIB))),
        slot("flips a bit", Reader::UsbStorage, Card::Lies(Lie::Flips(bad))),
    ]) {
        Ok(endings) => endings,
        Err(reason) => return println!("SKIPPED: {reason}"),
    };
    expect(
        &endings,
        &[
            ("uas", "good"),
            ("uas, ejected while writing", "card_removed"),
            ("uas, ejected while verifying", "card_removed"),
            ("uas, locked", "refused"),
            ("uas, fails to write", "io_error"),
            ("sd", "good"),
            ("fails to read", "io_error"),
            ("drops writes behind its end", "verify_mismatch"),
            ("flips a bit", "verify_mismatch"),
        ],
    );
    assert_eq!(endings["flips a bit"].offset, Some(bad));
    assert_eq!(endings["drops writes behind its end"].offset, Some(6 * MIB));
    for slot in
        ["uas, ejected while writing", "uas, ejected while verifying", "uas, fails to write", "fails to read"]
    {
        is_blank(&endings[slot]);
    }
}

#[test]
#[ignore = "a card that answers nothing is waited for: tools/test --long"]
fn long_a_card_that_answers_nothing_is_given_up_and_its_neighbour_is_written_well() {
    let endings =
        match run(&[usb("good", Card::Good, false), usb("stuck", Card::Lies(Lie::Hangs(6 * MIB)), false)]) {
            Ok(endings) => endings,
            Err(reason) => return println!("SKIPPED: {reason}"),
        };
    expect(&endings, &[("good", "good"), ("stuck", "stuck")]);
}
