//! Whole images from recipes, looked at from outside: by e2fsprogs, by fatfs and by their own index.

#![allow(clippy::unwrap_used)] // helpers of tests
#![allow(clippy::print_stdout)] // a figure is told, and a test that is skipped says so

mod common;

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::process::Command;

use cardshop_creator::{BuildError, Progress, Recipe, StopFlag, build};
use cardshop_protocol::api::CreationPhase;
use cardshop_protocol::index::{ExtentKind, Index, IndexBuilder};
use common::{BOOT_START, Bench, DATA_START, chunks_not_held, chunks_that_differ, e2, noise, read_data};

/// A small card: two files, a tar.gz, settings and a copy of the recipe.
const RECIPE: &str = "
files:
  - {to: /data/big.bin, url: big.bin}
  - {to: /data/docs/hello.txt, content: \"hello, card\\n\"}
  - {to: /data/docs/packed.txt, content: aGVsbG8=, via: base64}
  - {to: /data/site, url: site.tar.gz, via: gztar}
write_config: true
offspot: {hotspot: {ssid: Offspot, country: NO}}
";

/// A file in a tar archive: name, mode and content.
fn add(archive: &mut tar::Builder<impl std::io::Write>, name: &str, mode: u32, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_uid(33);
    header.set_mtime(1_600_000_000);
    archive.append_data(&mut header, name, content).unwrap();
}

fn bench() -> Bench {
    let bench = Bench::new();
    bench.write("big.bin", &noise(1, 5_000_000));
    let gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut archive = tar::Builder::new(gz);
    add(&mut archive, "index.html", 0o640, b"<h1>hi</h1>");
    add(&mut archive, "a folder/it's \"quoted\".sh", 0o755, &noise(2, 70_000));
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    archive.append_link(&mut link, "latest", "a folder/../index.html").unwrap();
    let mut same = tar::Header::new_gnu();
    same.set_entry_type(tar::EntryType::Link);
    same.set_size(0);
    archive.append_link(&mut same, "again", "index.html").unwrap();
    bench.write("site.tar.gz", &archive.into_inner().unwrap().finish().unwrap());
    bench
}

#[test]
fn an_image_holds_what_its_recipe_says_on_clean_file_systems() {
    let bench = bench();
    let built = bench.build("card.img", RECIPE);
    let (clean, report) = e2("e2fsck", &["-f", "-n"], &built.image, DATA_START);
    assert!(clean, "{report}");

    assert_eq!(read_data(&built.image, DATA_START, "/big.bin"), noise(1, 5_000_000));
    assert_eq!(read_data(&built.image, DATA_START, "/docs/hello.txt"), b"hello, card\n");
    assert_eq!(read_data(&built.image, DATA_START, "/docs/packed.txt"), b"hello");
    assert_eq!(read_data(&built.image, DATA_START, "/site/index.html"), b"<h1>hi</h1>");
    let stat = |path: &str| e2("debugfs", &["-R", &format!("stat {path}")], &built.image, DATA_START).1;
    let script = stat("\"/site/a folder/it's \"\"quoted\"\".sh\"");
    for part in ["Type: regular", "Mode:  0755", "User:    33", "Size: 70000", "mtime: 0x5f5e1000"] {
        assert!(script.contains(part), "{part} in {script}");
    }
    assert!(stat("/site/latest").contains("Fast link dest: \"a folder/../index.html\""));
    assert_eq!(read_data(&built.image, DATA_START, "/site/again"), b"<h1>hi</h1>");
    assert!(stat("/site/again").contains("Links: 2"));
    let folder = stat("/docs");
    assert!(folder.contains("Mode:  0755") && folder.contains("User:     0"), "{folder}");

    let yaml: serde_json::Value = serde_saphyr::from_str(&read_boot(&built.image, "offspot.yaml")).unwrap();
    assert_eq!(yaml, serde_json::json!({"hotspot": {"ssid": "Offspot", "country": "NO"}}));
    let copy = Recipe::from_text(&read_boot(&built.image, "image.yaml")).unwrap();
    assert_eq!(copy, Recipe::from_text(RECIPE).unwrap());
}

/// A text file of the boot partition, by fatfs.
fn read_boot(image: &std::path::Path, name: &str) -> String {
    let mut file = File::open(image).unwrap();
    file.seek(SeekFrom::Start(BOOT_START)).unwrap();
    let mut partition = Vec::new();
    file.take(40 << 20).read_to_end(&mut partition).unwrap();
    let fs = fatfs::FileSystem::new(std::io::Cursor::new(partition), fatfs::FsOptions::new()).unwrap();
    assert_eq!(fs.fat_type(), fatfs::FatType::Fat32);
    let mut text = String::new();
    fs.root_dir().open_file(name).unwrap().read_to_string(&mut text).unwrap();
    text
}

#[test]
fn the_boot_partition_is_a_clean_fat32() {
    let bench = bench();
    let built = bench.build("card.img", RECIPE);
    let partition = bench.path("boot.fat");
    let mut bytes = vec![0; 40 << 20];
    File::open(&built.image).unwrap().read_exact_at(&mut bytes, BOOT_START).unwrap();
    fs::write(&partition, bytes).unwrap();
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let run =
        Command::new("env").arg(format!("PATH={path}")).args(["fsck.vfat", "-n"]).arg(partition).output();
    match run {
        Ok(output) if output.status.code() == Some(127) => {
            println!("SKIPPED: fsck.vfat is not on this machine (package dosfstools)");
        }
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn the_same_recipe_gives_the_same_image_twice() {
    let (one, two) = (bench(), bench());
    let first = one.build("card.img", RECIPE);
    let second = two.build("other.img", RECIPE);
    assert_eq!(first.index.id(), second.index.id());
    assert_eq!(first.index, second.index);
}

#[test]
fn a_changed_file_changes_few_chunks() {
    let bench = bench();
    let before = bench.build("before.img", RECIPE);
    let mut bytes = noise(1, 5_000_000);
    bytes[2_500_000] ^= 1;
    bench.write("big.bin", &bytes);
    let after = bench.build("after.img", RECIPE);
    assert_eq!(chunks_that_differ(&before.index, &after.index), 1);
}

#[test]
fn a_large_file_that_grows_leaves_the_chunks_of_the_others_as_they_are() {
    let bench = Bench::new();
    let recipe = "files: [{to: /data/a, url: a}, {to: /data/b, url: b}, {to: /data/c, url: c}]";
    for (seed, name) in (0..).zip(["a", "b", "c"]) {
        bench.write(name, &noise(seed, 5_000_000 + 10_000 * seed as usize));
    }
    let before = bench.build("before.img", recipe);
    // Within its last chunk, and by more than a chunk: what follows moves, by whole chunks.
    for growth in [5_000, 300_000] {
        bench.write("a", &noise(0, 5_000_000 + growth));
        let after = bench.build("after.img", recipe);
        let fetched = chunks_not_held(&before.index, &after.index);
        // The grown end, and the tables.
        assert!(fetched <= 2 + growth / 262_144 + 3, "{fetched} of {} chunks", after.index.chunks().len());
    }
    let root = e2("debugfs", &["-R", "ls /"], &before.image, DATA_START).1;
    assert!(!root.contains("pad"), "{root}");
}

#[test]
fn bytes_that_do_not_matter_are_holes_of_the_image_file() {
    let bench = Bench::new();
    bench.write("a", &noise(1, 5_000_000));
    let built = bench.build("card.img", "files: [{to: /data/a, url: a}]");
    let file = File::open(&built.image).unwrap();
    let starts = built.index.extents().iter().map(|e| e.offset);
    let ends = built.index.extents().iter().map(|e| e.end());
    for (start, end) in std::iter::once(0).chain(ends).zip(starts) {
        let mut between = vec![0; (end - start) as usize];
        file.read_exact_at(&mut between, start).unwrap();
        for entry in built.index.passport().iter().filter(|p| (start..end).contains(&p.offset)) {
            between[(entry.offset - start) as usize..][..4096].fill(0);
        }
        assert!(between.iter().all(|b| *b == 0), "from {start} to {end}");
    }
}

#[test]
fn the_index_describes_the_image_and_leaves_out_what_does_not_matter() {
    let bench = bench();
    let built = bench.build("card.img", RECIPE);
    let index = &built.index;
    let file = File::open(&built.image).unwrap();
    assert_eq!(index.image_size(), file.metadata().unwrap().len());
    // An index made from the bytes by the map says the same: digests and sizes.
    let map = cardshop_protocol::index::ImageMap {
        image_size: index.image_size(),
        extents: index.extents().to_vec(),
        passport: index.passport().to_vec(),
    };
    let mut builder = IndexBuilder::new(map, index.chunk_size()).unwrap();
    for extent in index.extents() {
        let mut bytes = vec![0; extent.length as usize];
        file.read_exact_at(&mut bytes, extent.offset).unwrap();
        match extent.kind {
            ExtentKind::Data => builder.data(&bytes).unwrap(),
            ExtentKind::Zero => assert!(bytes.iter().all(|b| *b == 0)),
        }
    }
    assert_eq!(builder.finish().unwrap().id(), index.id());
    assert_eq!(Index::decode(&index.encode()).unwrap(), *index);
    // 5 MB of content: tables and both FATs on top are below 2 MB, and free space does not count.
    assert!((5_000_000..7_000_000).contains(&index.data_bytes()), "{} data bytes", index.data_bytes());
    assert!(index.data_bytes() + index.zero_bytes() < index.image_size() / 2);
}

#[test]
fn a_card_written_by_its_index_over_old_bytes_is_the_image() {
    let bench = bench();
    let built = bench.build("card.img", RECIPE);
    let image = File::open(&built.image).unwrap();
    // A used card: not one zero on it. Only what the index lists is written.
    let card = bench.path("card");
    fs::write(&card, vec![0xa5; built.index.image_size() as usize]).unwrap();
    let target = fs::OpenOptions::new().write(true).open(&card).unwrap();
    for extent in built.index.extents() {
        let mut bytes = vec![0; extent.length as usize];
        if extent.kind == ExtentKind::Data {
            image.read_exact_at(&mut bytes, extent.offset).unwrap();
        }
        target.write_all_at(&bytes, extent.offset).unwrap();
    }
    let (clean, report) = e2("e2fsck", &["-f", "-n"], &card, DATA_START);
    assert!(clean, "{report}");
    assert_eq!(read_data(&card, DATA_START, "/big.bin"), noise(1, 5_000_000));
    assert!(read_boot(&card, "offspot.yaml").contains("Offspot"));
}

#[test]
fn the_passport_is_exactly_the_contents_of_its_two_files() {
    let bench = bench();
    let built = bench.build("card.img", RECIPE);
    let names: Vec<&str> = built.index.passport().iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["CARD.JSN", "README.TXT"]);
    for (entry, fill) in built.index.passport().iter().zip(["A", "B"]) {
        assert_eq!((entry.length, entry.offset % 4096), (4096, 0));
        let image = fs::OpenOptions::new().write(true).open(&built.image).unwrap();
        image.write_all_at(fill.repeat(4096).as_bytes(), entry.offset).unwrap();
    }
    assert_eq!(read_boot(&built.image, "CARD.JSN"), "A".repeat(4096));
    assert_eq!(read_boot(&built.image, "README.TXT"), "B".repeat(4096));
    assert!(read_boot(&built.image, "offspot.yaml").contains("Offspot"));
}

#[test]
fn the_card_crate_finds_the_passport_that_is_written_over_the_blank_one() {
    let bench = bench();
    let built = bench.build("card.img", RECIPE);
    assert_eq!(cardshop_card::read_passport(&built.image).unwrap(), None);
    let id = cardshop_protocol::ids::ObjectId::from_parts(1, 2);
    let passport = cardshop_protocol::message::Passport {
        v: 1,
        uid: id,
        order: id,
        copy: 1,
        total: 3,
        image: built.index.id(),
        written_at: cardshop_protocol::time::Timestamp::from_ms(0),
        shop: "Shop".into(),
        appliance: cardshop_protocol::ids::ApplianceId([1; 8]),
        result: "verified".into(),
        signature: String::new(),
    };
    let mut block = serde_json::to_vec(&passport).unwrap();
    block.resize(4096, b' ');
    let image = fs::OpenOptions::new().write(true).open(&built.image).unwrap();
    image.write_all_at(&block, built.index.passport()[0].offset).unwrap();
    assert_eq!(cardshop_card::read_passport(&built.image).unwrap(), Some(passport));
}

#[test]
fn many_files_and_long_and_odd_names_arrive() {
    let bench = Bench::new();
    let mut archive = tar::Builder::new(Vec::new());
    for number in 0..3000 {
        add(&mut archive, &format!("many/{number}"), 0o644, number.to_string().as_bytes());
    }
    let deep = format!("{}/end", vec!["\"".repeat(200); 9].join("/"));
    let odd = "né 'x' $(y) <12> `z` \\ #";
    for name in [deep.as_str(), odd] {
        add(&mut archive, name, 0o644, name.as_bytes());
    }
    bench.write("a.tar", &archive.into_inner().unwrap());
    let built = bench.build("card.img", "files: [{to: /data, url: a.tar, via: tar}]");
    assert_eq!(read_data(&built.image, DATA_START, "/many/2999"), b"2999");
    for name in [deep.as_str(), odd] {
        let quoted = format!("/{}", name.replace('"', "\"\""));
        assert_eq!(read_data(&built.image, DATA_START, &quoted), name.as_bytes());
    }
    let names = e2("debugfs", &["-R", "ls -p /many"], &built.image, DATA_START).1;
    assert_eq!(names.lines().filter(|l| l.contains("/100644/")).count(), 3000);
}

#[test]
fn a_stop_in_every_step_ends_the_build_and_leaves_nothing() {
    let bench = bench();
    bench.write("large.bin", &noise(4, 24 << 20));
    let recipe = Recipe::from_text(&format!("{RECIPE}\n").replace("big.bin", "large.bin")).unwrap();
    let mut steps = Vec::new();
    let mut note = |p: Progress| steps.push((p.phase, p.done));
    build(&recipe, &bench.options("card.img"), &StopFlag::new(), &mut note).unwrap();
    fs::remove_file(bench.path("card.img")).unwrap();
    let names = || -> Vec<_> {
        let mut names: Vec<_> =
            fs::read_dir(bench.path("")).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    for phase in [CreationPhase::Downloading, CreationPhase::Building, CreationPhase::Indexing] {
        let all: Vec<u64> = steps.iter().filter(|s| s.0 == phase).map(|s| s.1).collect();
        // At its beginning, and in its middle.
        for at in [all[0], all[all.len() / 2]] {
            let stop = StopFlag::new();
            let mut note = |p: Progress| {
                if p.phase == phase && p.done >= at {
                    stop.stop();
                }
            };
            let ended = build(&recipe, &bench.options("card.img"), &stop, &mut note);
            assert!(ended.unwrap_err().is_stopped(), "{phase:?} at {at}");
            assert_eq!(names(), before, "{phase:?} at {at}");
        }
    }
}

#[test]
fn an_image_above_the_media_or_below_its_content_is_refused_with_both_sizes() {
    let bench = bench();
    let recipe = Recipe::from_text(RECIPE).unwrap();
    let options = cardshop_creator::Options { max_image_bytes: Some(1_000_000), ..bench.options("card.img") };
    let error = build(&recipe, &options, &StopFlag::new(), &mut |_| ()).unwrap_err();
    let BuildError::TooLarge { image, most: 1_000_000 } = error else { panic!("{error}") };
    assert_eq!(bench.build("card.img", RECIPE).index.image_size(), image);
    let error = bench.try_build("card.img", &format!("{RECIPE}output: {{size: 51200000}}\n")).unwrap_err();
    assert_eq!(error.to_string(), format!("output.size is 51200000 bytes, the content needs {image}"));
    let larger = bench.build("larger.img", &format!("{RECIPE}output: {{size: 100000256}}\n"));
    assert_eq!(larger.index.image_size(), 100_000_256);
    assert!(e2("e2fsck", &["-f", "-n"], &larger.image, DATA_START).0);
}

#[test]
fn extended_attributes_owners_and_modes_of_an_archive_arrive_on_clean_file_systems() {
    let bench = Bench::new();
    let mut archive = tar::Builder::new(Vec::new());
    let capability: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let records =
        [("SCHILY.xattr.user.note", &b"a \"b\""[..]), ("SCHILY.xattr.security.capability", capability)];
    archive.append_pax_extensions(records).unwrap();
    add(&mut archive, "ping \"x\"", 0o4755, b"#!");
    let long = [b'v'; 2900];
    archive.append_pax_extensions([("SCHILY.xattr.user.long", &long[..])]).unwrap();
    add(&mut archive, "long", 0o600, b"x");
    bench.write("a.tar", &archive.into_inner().unwrap());
    let built = bench.build("card.img", "files: [{to: /data/s, url: a.tar, via: tar}]");
    let (clean, report) = e2("e2fsck", &["-f", "-n"], &built.image, DATA_START);
    assert!(clean, "{report}");
    let ask = |command: &str| e2("debugfs", &["-R", command], &built.image, DATA_START).1;
    let stat = ask("stat \"/s/ping \"\"x\"\"\"");
    assert!(stat.contains("Mode:  04755") && stat.contains("User:    33"), "{stat}");
    let value = |path: &str, name: &str| {
        let out = bench.path("value");
        ask(&format!("ea_get -f {} {path} {name}", out.display()));
        fs::read(out).unwrap()
    };
    assert_eq!(value("\"/s/ping \"\"x\"\"\"", "security.capability"), capability);
    assert_eq!(value("\"/s/ping \"\"x\"\"\"", "user.note"), b"a \"b\"");
    assert_eq!(value("/s/long", "user.long"), long);
}

#[test]
fn a_zip_and_a_tar_bz2_of_the_same_files_give_the_same_data() {
    let bench = Bench::new();
    let content = noise(7, 300_000);
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().unix_permissions(0o640);
    zip.start_file("docs/a.bin", options).unwrap();
    std::io::Write::write_all(&mut zip, &content).unwrap();
    zip.add_symlink("docs/link", "a.bin", options).unwrap();
    bench.write("a.zip", &zip.finish().unwrap().into_inner());
    let packed = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    let mut tar = tar::Builder::new(packed);
    add(&mut tar, "docs/a.bin", 0o640, &content);
    bench.write("a.tar.bz2", &tar.into_inner().unwrap().finish().unwrap());
    let built = bench.build(
        "card.img",
        "files: [{to: /data/zip, url: a.zip, via: zip}, {to: /data/tar, url: a.tar.bz2, via: bztar}]",
    );
    for path in ["/zip/docs/a.bin", "/tar/docs/a.bin"] {
        assert!(read_data(&built.image, DATA_START, path) == content, "{path}");
        let stat = e2("debugfs", &["-R", &format!("stat {path}")], &built.image, DATA_START).1;
        assert!(stat.contains("Mode:  0640"), "{stat}");
    }
    let link = e2("debugfs", &["-R", "stat /zip/docs/link"], &built.image, DATA_START).1;
    assert!(link.contains("Fast link dest: \"a.bin\""), "{link}");
    assert!(e2("e2fsck", &["-f", "-n"], &built.image, DATA_START).0);
}

/// Builds `count` files of about `size` bytes and once more with one of them new, of each of the other sizes; holds the
/// share of the image's data that an appliance with the first image must fetch again to a tenth.
fn at_most_a_tenth_is_fetched_again(count: u64, size: usize, changed_sizes: &[usize]) {
    let bench = Bench::new();
    let items: Vec<_> = (0..count).map(|n| format!("{{to: /data/{n}.zim, url: f{n}}}")).collect();
    let recipe = format!("files: [{}, {{to: /data/note, content: x}}]", items.join(", "));
    for n in 0..count {
        bench.write(&format!("f{n}"), &noise(n, size + n as usize * 1000));
    }
    let before = bench.build("before.img", &recipe).index;
    let mut grown = false;
    for changed_size in changed_sizes {
        bench.write("f3", &noise(1000, *changed_size));
        let after = bench.build("after.img", &recipe).index;
        let bytes = chunks_not_held(&before, &after) as u64 * u64::from(after.chunk_size());
        let share = bytes as f64 / after.data_bytes() as f64;
        println!(
            "{count} files of {size} bytes, one new of {changed_size}: {:.1} % fetched again",
            share * 100.0
        );
        assert!(share <= 0.1, "{share}");
        grown |= before.image_size() != after.image_size();
    }
    assert!(grown, "one of them makes the image larger: its tables are others");
}

#[test]
fn when_one_of_many_files_is_new_at_most_a_tenth_is_fetched_again() {
    at_most_a_tenth_is_fetched_again(30, 5_000_000, &[5_003_000, 4_500_000, 12_400_000]);
}

#[test]
#[ignore = "writes 5 GB: run by tools/test --long"]
fn long_when_one_50_mb_file_of_a_1_gb_image_is_new_at_most_a_tenth_is_fetched_again() {
    at_most_a_tenth_is_fetched_again(20, 50_000_000, &[50_003_000, 53_000_000, 70_000_000]);
}
