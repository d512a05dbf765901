//! Updates of an appliance in QEMU, from a stick and without any network: a newer version comes to stay; what is damaged,
//! older or not ours is refused; one that panics, or whose agent stays silent, gives way to the version before; and the
//! power is cut at random moments. Image, boot loader, agent and `cardshop admin update` are the real ones.
#![allow(clippy::unwrap_used)] // a test helper that cannot unwrap reads worse and asserts less
#![allow(clippy::print_stdout, clippy::print_stderr)] // a test that is skipped, or fails in a guest, says so

#[path = "../../../tools/cardshop/tests/common/mod.rs"]
mod common;
#[path = "../boot/machine.rs"]
#[allow(dead_code)] // not all of it is used here
mod machine;
mod parts;
#[path = "../../../tools/testing/qemu.rs"]
mod qemu;

use std::path::Path;
use std::time::{Duration, Instant};

use machine::{Firmware, Machine, OVMF};
use parts::{Change, Parts};

/// Cuts of the power in one run; `CARDSHOP_TEST_CUTS` says another number.
const CUTS: u64 = 5;
/// The port of the reader with the update.
const PORT: u32 = 2;

fn start(parts: &Parts) -> Machine {
    Machine::start(&parts.disk, Firmware::Bios, parts.folder.path(), |_| {})
}

/// Puts a card with an update in, and presses `u` once it is offered.
fn press(machine: &mut Machine, port: u32, card: &Path, version: &str) {
    machine.insert(port, card, None);
    machine.hears(&format!("has an update, version {version}"));
    machine.types(&["u"]);
}

/// Installs what is on the card; the machine restarts.
fn install(mut machine: Machine, card: &Path, version: &str) {
    let began = Instant::now();
    press(&mut machine, PORT, card, version);
    machine.hears(&format!("Version {version} is in place"));
    println!("from plugging the card in to the update in its place: {:?}", began.elapsed());
    machine.hears_its_end();
}

#[test]
#[ignore = "boots a machine four times: a step of its own in tools/test --long"]
fn long_a_newer_version_comes_to_stay_and_what_is_damaged_older_or_not_ours_is_refused() {
    let Some(parts) = Parts::make() else { return };
    let good = parts.update("2.0", &parts.key, Change::None);
    let mut machine = start(&parts);
    machine.hears("starting set a");
    machine.hears("[no_join_file]");
    let before = parts.boot_partition();
    let other = parts.other_key();
    for (port, card, version, why) in [
        (3, parts.card("flipped", &parts.flipped(&good)), "2.0", "damaged"),
        (4, parts.card("wrong", &parts.update("2.1", &other, Change::None)), "2.1", "not trusted"),
        (5, parts.card("older", &parts.update("0.9", &parts.key, Change::None)), "0.9", "not newer"),
    ] {
        press(&mut machine, port, &card, version);
        let line = machine.hears("The update is not installed");
        assert!(line.contains(why), "{line}");
        machine.pull_out(port);
    }
    assert!(parts.boot_partition() == before, "a refused update changed the boot partition");
    install(machine, &parts.card("good", &good), "2.0");

    let mut machine = start(&parts);
    machine.hears("starting set b");
    machine.hears("Version 2.0 is being tried");
    machine.hears("Version 2.0 is kept");
    machine.cut_power();
    let second = if Path::new(OVMF).exists() { Firmware::Uefi } else { Firmware::Bios };
    let mut machine = Machine::start(&parts.disk, second, parts.folder.path(), |_| {});
    machine.hears("starting set b");
    machine.hears("[no_join_file]");
    // From b the next goes to a.
    let next = parts.card("next", &parts.update("3.0", &parts.key, Change::None));
    install(machine, &next, "3.0");
    let mut machine = start(&parts);
    machine.hears("starting set a");
    machine.hears("Version 3.0 is kept");
}

#[test]
#[ignore = "boots a machine six times: a step of its own in tools/test --long"]
fn long_a_version_that_panics_and_one_whose_agent_stays_silent_give_way_to_the_one_before() {
    let Some(parts) = Parts::make() else { return };
    for (version, change, sign) in
        [("2.0", Change::Panics, "Kernel panic"), ("3.0", Change::AgentSilent, "has not shown in")]
    {
        let card = parts.card(version, &parts.update(version, &parts.key, change));
        let mut machine = start(&parts);
        machine.hears("[no_join_file]");
        install(machine, &card, version);
        let heard = start(&parts).hears_its_end();
        assert!(heard.contains("starting set b") && heard.contains(sign), "{heard}");
        let mut machine = start(&parts);
        machine.hears("starting set a");
        machine.hears(&format!("version {version} is not used"));
        machine.cut_power();
    }
}

#[test]
#[ignore = "boots a machine again and again: a step of its own in tools/test --long"]
fn long_a_power_cut_at_any_moment_of_an_update_leaves_a_machine_that_boots() {
    let Some(parts) = Parts::make() else { return };
    let cuts = std::env::var("CARDSHOP_TEST_CUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(CUTS);
    let mut random = blake3::Hasher::new().update(b"moments of power cuts").finalize_xof();
    let (mut trials, mut version) = (0, 1);
    for cut in 0..cuts {
        version += 1;
        let text = format!("{version}.0");
        let card = parts.card(&text, &parts.update(&text, &parts.key, Change::None));
        let mut machine = start(&parts);
        let heard = machine.hears_one_of(&["is being tried", "[no_join_file]"]);
        if heard.contains("is being tried") {
            // The cut before came after the last step: this is the trial. It is cut, too.
            trials += 1;
            machine.cut_power();
            continue;
        }
        press(&mut machine, PORT, &card, &text);
        let mut byte = [0; 2];
        random.fill(&mut byte);
        // From the first read of the card to some time after the restart.
        let after = Duration::from_millis(u64::from(u16::from_le_bytes(byte)) * parts::SPREAD_MS / 65_536);
        std::thread::sleep(after);
        machine.cut_power();
        println!("cut {cut}: {after:?} after the key");
        parts.check_boot_partition();
    }
    let mut machine = start(&parts);
    machine.hears("[no_join_file]");
    println!("{cuts} cuts, {trials} of them in a trial; it boots");
}
