//! `cardshop index | write | verify | card | build` on files and on loop devices.
#![allow(clippy::unwrap_used)]

mod common;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cardshop_protocol::index::Index;
use common::*;

const MIB: u64 = 1 << 20;

/// An image of 40 MiB: data at its start, in the middle and at its very end, holes between.
fn image(folder: &Path) -> PathBuf {
    let path = folder.join("school.img");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(40 * MIB).unwrap();
    for (offset, size, seed) in [(0, 3 * MIB, 1), (16 * MIB, 5 * MIB + 4096, 2), (40 * MIB - 8192, 8192, 3)] {
        file.write_all_at(&noise(size as usize, seed), offset).unwrap();
    }
    path
}

fn run(words: &[&dyn AsRef<std::ffi::OsStr>]) -> (Option<i32>, String) {
    let output = cardshop().args(words.iter().map(|w| w.as_ref())).output().unwrap();
    (output.status.code(), text_of(&output))
}

/// A used card: old bytes everywhere.
fn used_card(folder: &Path, name: &str, size: u64) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, noise(size as usize, 99)).unwrap();
    path
}

#[test]
fn used_cards_in_files_equal_the_image_after_writing_and_a_flipped_byte_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    let (code, text) = run(&[&"index", &image]);
    assert_eq!(code, Some(0), "{text}");
    let index_file = folder.path().join("school.img.cardindex");
    let index = Index::decode(&std::fs::read(&index_file).unwrap()).unwrap();
    assert!(index.zero_bytes() > 20 * MIB, "holes must be zero");

    let cards = [used_card(folder.path(), "a.img", 40 * MIB), used_card(folder.path(), "b.img", 47 * MIB)];
    let (code, text) = run(&[&"write", &image, &cards[0], &cards[1], &"--yes"]);
    assert_eq!(code, Some(0), "{text}");
    for card in &cards {
        assert_equal_in_every_extent(&index, &image, card);
        assert_eq!(run(&[&"verify", card, &"--index", &index_file]).0, Some(0));
    }

    let offset = 17 * MIB + 123;
    flip_a_bit(&cards[1], offset);
    let (code, text) = run(&[&"verify", &cards[1], &"--index", &index_file]);
    assert_eq!(code, Some(4), "{text}");
    let named = named_offset(&text);
    assert!(named <= offset && offset - named < u64::from(index.chunk_size()), "{text}");
}

#[test]
fn a_used_loop_device_equals_the_image_after_writing() {
    if !root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    let backing = used_card(folder.path(), "card.img", 48 * MIB);
    let device = Loop::over(&backing);
    let (code, text) = run(&[&"write", &image, &device.0, &"--yes"]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = run(&[&"index", &image]);
    assert_eq!(code, Some(0), "{text}");
    let index_file = folder.path().join("school.img.cardindex");
    assert_eq!(run(&[&"verify", &device.0, &"--index", &index_file]).0, Some(0));
    let index = Index::decode(&std::fs::read(&index_file).unwrap()).unwrap();
    assert_equal_in_every_extent(&index, &image, &device.0);
}

#[test]
fn a_mounted_device_is_refused_with_code_3_and_left_as_it_was() {
    if !root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    let backing = folder.path().join("mounted.img");
    std::fs::File::create(&backing).unwrap().set_len(48 * MIB).unwrap();
    let device = Loop::over(&backing);
    assert!(Command::new("mke2fs").args(["-q", "-t", "ext4"]).arg(&device.0).status().unwrap().success());
    let place = folder.path().join("place");
    std::fs::create_dir(&place).unwrap();
    assert!(Command::new("mount").arg(&device.0).arg(&place).status().unwrap().success());
    std::fs::write(place.join("thesis.txt"), "three years of work").unwrap();
    let (code, text) = run(&[&"write", &image, &device.0, &"--yes"]);
    let kept = std::fs::read_to_string(place.join("thesis.txt"));
    assert!(Command::new("umount").arg(&place).status().unwrap().success());
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("mounted"), "{text}");
    assert_eq!(kept.unwrap(), "three years of work");
}

#[test]
fn a_card_too_small_is_refused_with_both_sizes_and_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    let card = used_card(folder.path(), "small.img", 39 * MIB);
    let (code, text) = run(&[&"write", &image, &card, &"--yes"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&(39 * MIB).to_string()) && text.contains(&(40 * MIB).to_string()), "{text}");
    assert!(std::fs::read(&card).unwrap() == noise(39 * MIB as usize, 99), "not a byte of it changed");
}

#[test]
fn an_index_that_is_no_index_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let card = used_card(folder.path(), "card.img", MIB);
    let (code, text) = run(&[&"verify", &card, &"--index", &card]);
    assert_eq!(code, Some(1));
    assert!(text.contains("does not begin with CARDIDX1"), "{text}");
}
