//! The appliance from the stick to the finished card: made by `cardshop flash`, booted by a PC in QEMU, let into a
//! shop that runs on this machine's loopback. The server, the agent and the image are the real ones.
//!
//! Everything runs in a network namespace of its own in which 10.0.2.2, where QEMU shows the guest this machine's
//! loopback, is an address of that loopback too: one address of the shop is good on both sides, and nobody else sees it.
#![allow(clippy::unwrap_used)] // a test helper that cannot unwrap reads worse and asserts less
#![allow(clippy::print_stdout, clippy::print_stderr)] // a test that is skipped, or fails in a guest, says so

#[path = "../../../tools/cardshop/tests/common/mod.rs"]
mod common;
#[allow(dead_code)] // the tests of updates use the rest
mod machine;
mod panel;
#[path = "../../../tools/testing/qemu.rs"]
mod qemu;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cardshop_sim::client::Client;
use cardshop_sim::shop;
use common::*;
use machine::{Firmware, Machine, OVMF};
use panel::{BLUE, DARK, Panel, TEAL};
use serde_json::{Value, json};

/// The agent to boot; the one of this build when it is not set.
const AGENT: &str = "CARDSHOP_TEST_AGENT";
/// An emulated machine that shares two processors with other work writes 50 MB in minutes.
const PATIENCE: Duration = Duration::from_secs(900);
/// Bytes of each card; the shop's image wants less.
const CARD_SIZE: u64 = 300 << 20;
/// A common small stick, so that the cache has to grow.
const STICK_SIZE: u64 = 1 << 30;
/// The card that is under way when the power goes: the image's 50 MB take two minutes at this rate, and the other card
/// is done before. At a third of it clearing the card would take longer than the engine waits for any card.
const SLOW_BPS: u64 = 400 << 10;
/// Bytes of cards that the image does not fit onto.
const SMALL_CARD: u64 = 16 << 20;
/// Where the boot partition and `CARDSHOP` lie in the image, as mtools wants it (`make-disk` has the layout).
const BOOT_AT: &str = "@@2M";
const CARDSHOP_AT: &str = "@@98M";
const STATE_AT: u64 = 114 << 20;
const STATE_SIZE: usize = 64 << 20;

/// Runs the test's body in a network namespace of its own: this same test program again.
fn in_own_network(test: &str, body: impl FnOnce()) {
    const INSIDE: &str = "CARDSHOP_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    for (program, package) in [
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("unshare", "util-linux"),
        ("ip", "iproute2"),
        ("mcopy", "mtools"),
        ("grub-editenv", "grub-common"),
    ] {
        if !have(program, package) {
            return;
        }
    }
    let namespace: &[&str] =
        if nix::unistd::geteuid().is_root() { &["--net"] } else { &["--map-root-user", "--net"] };
    let can = Command::new("unshare").args(namespace).arg("true").status();
    if !can.is_ok_and(|status| status.success()) {
        return println!("SKIPPED: no network namespace can be made here");
    }
    // Built and fetched outside: there is no network inside.
    if std::env::var_os(AGENT).is_none() {
        agent_binary();
    }
    let lines = "ip link set lo up && ip addr add 10.0.2.2/32 dev lo && exec \"$@\"";
    let mut again = Command::new("unshare");
    again.args(namespace).args(["sh", "-c", lines, "sh"]).arg(std::env::current_exe().unwrap());
    again.args(["--exact", test, "--include-ignored", "--nocapture"]).env(INSIDE, "1");
    assert!(again.status().unwrap().success(), "see above");
}

/// The image from Debian's parts, or nothing with the reason said.
fn assemble(folder: &Path) -> Option<PathBuf> {
    let image = folder.join("appliance.img");
    let agent = std::env::var_os(AGENT).map_or_else(agent_binary, PathBuf::from);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../appliance-image/assemble");
    let output = Command::new(script).arg("--agent").arg(agent).arg("-o").arg(&image).output().unwrap();
    if output.status.code() == Some(4) {
        println!("SKIPPED: {}", text_of(&output).lines().last().unwrap_or_default());
        return None;
    }
    assert!(output.status.success(), "{}", text_of(&output));
    Some(image)
}

/// A stick made by `cardshop flash`.
fn flash(folder: &Path, image: &Path, join_file: &str) -> PathBuf {
    let (stick, join) = (folder.join("stick.img"), folder.join("JOIN.TXT"));
    File::create(&stick).unwrap().set_len(STICK_SIZE).unwrap();
    std::fs::write(&join, join_file).unwrap();
    let mut command = cardshop();
    command.arg("flash").arg("--image").arg(image).arg("--device").arg(&stick).arg("--join").arg(join);
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", text_of(&output));
    stick
}

/// Calls `check` until it gives something; the machine is awaited longer than a process.
fn in_time<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < until, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn tool(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text_of(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn at(stick: &Path, place: &str) -> String {
    format!("{}{place}", stick.display())
}

/// Asks GRUB to try set b, which is not there.
fn ask_for_a_set_that_is_missing(folder: &Path, stick: &Path) {
    let env = folder.join("grubenv");
    tool(Command::new("mcopy").args(["-o", "-i", &at(stick, BOOT_AT), "::cardshop/grubenv"]).arg(&env));
    tool(Command::new("grub-editenv").arg(&env).args(["set", "try=b"]));
    tool(Command::new("mcopy").args(["-o", "-i", &at(stick, BOOT_AT)]).arg(&env).arg("::cardshop/grubenv"));
}

/// The state partition after a power cut, as the next boot finds it: its journal makes it good without a question.
fn check_state(folder: &Path, stick: &Path) {
    // A partition in a file of its own: e2fsck loses an offset when it opens a file again behind the journal.
    let (mut partition, copy) = (vec![0; STATE_SIZE], folder.join("state"));
    File::open(stick).unwrap().read_exact_at(&mut partition, STATE_AT).unwrap();
    std::fs::write(&copy, partition).unwrap();
    let repaired = Command::new("e2fsck").arg("-p").arg(&copy).output().unwrap();
    assert!(repaired.status.code().is_some_and(|code| code <= 1), "{}", text_of(&repaired));
    tool(Command::new("e2fsck").arg("-fn").arg(&copy));
}

/// An SD slot, and a reader with two slots, each with a card that is too small.
fn other_readers(command: &mut Command, folder: &Path) {
    command.args(["-device", "sdhci-pci", "-device", "usb-uas,id=uas,bus=usb.0,port=7"]);
    for number in 0..3 {
        let (path, node) = (folder.join(format!("small{number}")), format!("small{number}"));
        File::create(&path).unwrap().set_len(SMALL_CARD).unwrap();
        let file = json!({"driver": "file", "filename": path});
        let disk = json!({"driver": "raw", "node-name": node, "file": file});
        let card = match number {
            0 => json!({"driver": "sd-card", "drive": node}),
            _ => json!({"driver": "scsi-hd", "bus": "uas.0", "scsi-id": 0, "lun": number - 1, "drive": node,
                "removable": true}),
        };
        command.arg("-blockdev").arg(disk.to_string()).arg("-device").arg(card.to_string());
    }
}

/// What the shop knows of the one appliance.
fn heard(manager: &Client) -> Value {
    manager.list("/appliances").unwrap().remove(0)
}

/// A person names the second slot at the console, plugs its reader in elsewhere, and says that it has moved.
fn move_a_named_reader(machine: &mut Machine, manager: &Client, panel: &Panel, folder: &Path) {
    machine.types(&["down", "n", "a", "ret"]);
    in_time("the shop hears the name", || (heard(manager)["info"]["names"]["s02"] == "a").then_some(()));
    machine.pull_out(3);
    // QEMU lets go of the card's file some time later.
    let card = folder.join("card4");
    std::fs::copy(folder.join("card3"), &card).unwrap();
    let before = Instant::now();
    machine.insert(4, &card, None);
    let light: usize = in_time("the reader asks to be moved", || {
        let heard = heard(manager);
        let is_there =
            |slot: &&Value| slot["port_path"].as_str().is_some_and(|port| port.ends_with("/usb-4/0"));
        let slot = heard["info"]["slots"].as_array()?.iter().find(is_there)?["slot"].as_str()?;
        heard["alerts"].get(format!("reader_moved_{slot}"))?;
        slot.strip_prefix('s')?.parse().ok()
    });
    in_time("the card that was written asks to be taken out", || (panel.light(light) == BLUE).then_some(()));
    println!("from plugging a reader in to the light of its slot: {:?}", before.elapsed());
    in_time("the slot has moved", || {
        // The screen may not offer it yet: then the key means nothing, and a person presses it again.
        machine.types(&["m"]);
        let info = heard(manager)["info"].clone();
        let slots = info["slots"].as_array()?;
        let port = slots.iter().find(|slot| slot["slot"] == "s02")?["port_path"].as_str()?.to_owned();
        (port.ends_with("/usb-4/0") && slots.len() == 5 && info["names"]["s02"] == "a").then_some(())
    });
    in_time("its light has moved too", || {
        (panel.light(2) == BLUE && panel.light(light) == DARK).then_some(())
    });
}

#[test]
#[ignore = "boots a machine twice: a step of its own in tools/test"]
fn a_flashed_stick_joins_a_shop_and_finishes_its_cards_after_a_power_cut() {
    in_own_network("a_flashed_stick_joins_a_shop_and_finishes_its_cards_after_a_power_cut", || {
        let folder = tempfile::tempdir().unwrap();
        let Some(image) = assemble(folder.path()) else { return };
        let second = if Path::new(OVMF).exists() { Firmware::Uefi } else { Firmware::Bios };
        if second == Firmware::Bios {
            println!("SKIPPED: no boot by UEFI: ovmf is not installed (package ovmf)");
        }
        let site = Shop::open_with(&["--listen", "0.0.0.0:0", "--host", "10.0.2.2"]);
        let manager = site.manager();
        let configuration = site.stock(&manager);
        let join_file = shop::join_file(&manager, &site.http).unwrap();
        let token = join_file.split('"').find(|part| part.starts_with("csj1.")).unwrap().to_owned();
        let stick = flash(folder.path(), &image, &join_file);

        let mut machine = Machine::start(&stick, Firmware::Bios, folder.path(), |_| {});
        let line = machine.hears("[waiting_for_approval]");
        let waiting = eventually("an appliance that waits", || manager.list("/appliances").unwrap().pop());
        let code = shop::text(&waiting, "code");
        assert!(code.len() == 6 && line.contains(&code), "{line} on the screen, {code} at the shop");
        shop::approve_first(&manager, &|| true).unwrap().unwrap();
        machine.hears("[ready]");

        let order = shop::order(&manager, &configuration, 2).unwrap();
        let cards = [2, 3].map(|port| folder.path().join(format!("card{port}")));
        cards.iter().for_each(|card| File::create(card).unwrap().set_len(CARD_SIZE).unwrap());
        machine.insert(2, &cards[0], None);
        machine.insert(3, &cards[1], Some(SLOW_BPS));
        in_time("the slow card is being written, and the other one done", || {
            let slots = manager.list("/slots").ok()?;
            let has = |state: &str| slots.iter().any(|slot| slot["state"]["state"] == state);
            (has("writing") && has("done")).then_some(())
        });
        machine.cut_power();
        let text = tool(Command::new("mtype").args(["-i", &at(&stick, CARDSHOP_AT), "::JOIN.TXT"]));
        assert!(!text.contains(&token) && text.contains("token: used"), "{text}");

        ask_for_a_set_that_is_missing(folder.path(), &stick);
        let panel = Panel::new(folder.path());
        let mut machine = Machine::start(&stick, second, folder.path(), |command| {
            panel.plug_in(command);
            other_readers(command, folder.path());
        });
        machine.hears("starting set a");
        machine.insert(3, &cards[1], None);
        machine.hears("[ready]");
        let verified = in_time("the order is written", || {
            let order: Value = manager.get(&format!("/orders/{order}")).ok()?;
            (order["status"] == "written").then(|| order["verified"].clone())
        });
        assert_eq!(verified, 2);
        let (index, image) = site.image();
        for card in &cards {
            assert_equal_in_every_extent(&index, &image, card);
        }
        let slots = manager.list("/slots").unwrap();
        let is_known = |slot: &&Value| slot["slot"] == "s01" || slot["slot"] == "s02";
        assert_eq!(
            (slots.len(), slots.iter().filter(is_known).count()),
            (5, 2),
            "a reader in the same port is the same slot, the stick is none, and there are three more: {slots:?}"
        );
        in_time("the panel shows the finished card", || (panel.light(2) == TEAL).then_some(()));
        assert_eq!(panel.light(1), DARK, "nothing is plugged in there");
        move_a_named_reader(&mut machine, &manager, &panel, folder.path());
        machine.cut_power();
        check_state(folder.path(), &stick);
    });
}
