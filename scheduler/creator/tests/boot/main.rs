//! A whole card: a base that boots, content added by the creator, written by its index over the old bytes of a larger
//! card, and started in a machine.

#![allow(clippy::unwrap_used)] // helpers of tests
#![allow(clippy::print_stdout)] // a test that is skipped says so

mod base;
#[path = "../common/mod.rs"]
mod common;
#[path = "../../../../tools/testing/qemu.rs"]
mod qemu;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use base::MIB;
use cardshop_creator::Built;
use cardshop_protocol::index::ExtentKind;
use common::{Bench, e2, noise};
use qemu::Qemu;
use sha2::Digest;

/// Where the data partition comes to lie behind the base.
const DATA_START: u64 = 72 * MIB;

/// Starts a machine from a card and gives what it says up to `END`.
fn boot(card: &Path, folder: &Path) -> Result<Vec<String>, String> {
    let mut machine = Qemu::start(&folder.join("control"), |command| {
        command.arg("-drive").arg(format!("if=virtio,format=raw,file={}", card.display()));
    })?;
    let mut heard = Vec::new();
    while heard.last().is_none_or(|line| line != "END") {
        heard.push(machine.line("END"));
    }
    Ok(heard)
}

/// What an appliance does: only what the index lists goes over the old bytes of a card.
fn write_card(built: &Built, card: &Path, size: u64) {
    let (image, target) = (File::open(&built.image).unwrap(), File::create(card).unwrap());
    let old = vec![0xa5; MIB as usize];
    for at in (0..built.index.image_size()).step_by(old.len()) {
        target.write_all_at(&old, at).unwrap();
    }
    target.set_len(size).unwrap();
    for extent in built.index.extents() {
        for at in (extent.offset..extent.end()).step_by(old.len()) {
            let mut bytes = vec![0; (extent.end() - at).min(MIB) as usize];
            if extent.kind == ExtentKind::Data {
                image.read_exact_at(&mut bytes, at).unwrap();
            }
            target.write_all_at(&bytes, at).unwrap();
        }
    }
}

/// Builds a card with `content_bytes` of content, boots it from a card that is `more` bytes larger.
fn a_built_card_boots(content_bytes: usize, more: u64) {
    let bench = Bench::new();
    let path = match base::make(bench.folder.path()) {
        Ok(path) => path,
        Err(reason) => return println!("SKIPPED: {reason}"),
    };
    let content = noise(1, content_bytes);
    bench.write("wiki.zim", &content);
    let recipe = format!(
        "base: {}\nfiles:\n- {{to: /data/content/wiki.zim, url: wiki.zim}}\n\
         - {{to: /data/content/note.txt, content: hello}}\noffspot: {{ssid: School}}\n",
        path.display()
    );
    let built = bench.build("card.img", &recipe);
    let (card, size) = (bench.path("card"), built.index.image_size() + more);
    write_card(&built, &card, size);
    let heard = match boot(&card, bench.folder.path()) {
        Ok(heard) => heard,
        Err(reason) => return println!("SKIPPED: {reason}"),
    };
    let word =
        |key: &str| heard.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).unwrap_or("");
    let shown = heard.join("\n");
    let digest =
        |bytes: &[u8]| sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>();
    for (name, bytes) in [("wiki.zim", &content[..]), ("note.txt", b"hello")] {
        let line = format!("FILE {} /data/content/{name}", digest(bytes));
        assert!(heard.contains(&line), "{line} in\n{shown}");
    }
    let kib = |key: &str| word(key).parse::<u64>().unwrap_or_else(|_| panic!("no {key} in\n{shown}"));
    assert!(kib("BEFORE") < (built.index.image_size() - DATA_START) / 1024, "{shown}");
    // All but what the larger file system takes for itself.
    assert!(kib("AFTER") > kib("BEFORE") + more / 1024 * 9 / 10, "{shown}");
    let (clean, report) = e2("e2fsck", &["-f", "-n"], &card, DATA_START);
    assert!(clean, "{report}");
    println!("grew from {} to {} KiB on a card of {size} bytes", kib("BEFORE"), kib("AFTER"));
    assert!(fs::metadata(&card).unwrap().len() == size);
}

#[test]
fn a_built_card_boots_tells_its_content_and_grows_on_a_larger_card() {
    a_built_card_boots(50_000_000, 400 * MIB);
}

#[test]
#[ignore = "writes 3 GB: run by tools/test --long"]
fn long_a_built_card_of_1_gb_boots_tells_its_content_and_grows_on_a_larger_card() {
    a_built_card_boots(1_000_000_000, 4096 * MIB);
}
