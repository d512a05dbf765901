//! Zip archives made byte by byte: their names, modes and sizes are what honest writers refuse to write.

use super::*;

/// One entry, stored without compression unless `method` says otherwise.
#[derive(Clone)]
struct Item {
    name: Vec<u8>,
    /// With the kind of file; 0 for an archive of a system without modes.
    mode: u32,
    method: u16,
    flags: u16,
    /// As it lies in the archive.
    packed: Vec<u8>,
    /// What it says of its unpacked size and CRC.
    said: (u32, u32),
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

fn item(name: &str, mode: u32, content: &[u8]) -> Item {
    let said = (content.len() as u32, crc(content));
    Item { name: name.into(), mode, method: 0, flags: 0, packed: content.to_vec(), said }
}

fn deflated(name: &str, content: &[u8]) -> Item {
    let mut packed = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(content).unwrap();
    Item { method: 8, packed: packed.finish().unwrap(), ..item(name, 0o100_644, content) }
}

fn archive(items: &[Item]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for item in items {
        let at = bytes.len() as u32;
        let mut common = Vec::new();
        common.extend(item.flags.to_le_bytes());
        common.extend(item.method.to_le_bytes());
        // 2001-02-03 04:05:06.
        common.extend((4_u16 << 11 | 5 << 5 | 3).to_le_bytes());
        common.extend((21_u16 << 9 | 2 << 5 | 3).to_le_bytes());
        common.extend(item.said.1.to_le_bytes());
        common.extend((item.packed.len() as u32).to_le_bytes());
        common.extend(item.said.0.to_le_bytes());
        common.extend((item.name.len() as u16).to_le_bytes());
        common.extend(0_u16.to_le_bytes());
        bytes.extend(b"PK\x03\x04\x14\x00");
        bytes.extend(&common);
        bytes.extend(&item.name);
        bytes.extend(&item.packed);
        directory.extend(b"PK\x01\x02\x14");
        directory.extend([3, 20, 0]);
        directory.extend(&common);
        directory.extend([0; 6]);
        directory.extend((item.mode << 16).to_le_bytes());
        directory.extend(at.to_le_bytes());
        directory.extend(&item.name);
    }
    let (count, at, size) = (items.len() as u16, bytes.len() as u32, directory.len() as u32);
    bytes.extend(&directory);
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend([count.to_le_bytes(), count.to_le_bytes()].concat());
    bytes.extend([size.to_le_bytes(), at.to_le_bytes()].concat());
    bytes.extend([0, 0]);
    bytes
}

fn refusal(items: &[Item], limit: u64) -> String {
    let outcome = unpack(&archive(items), Form::Zip, limit);
    let outside = std::fs::read_dir(outcome.folder.path()).unwrap().count();
    assert_eq!(outside, 2, "nothing is written beside the staging folder");
    let error = outcome.result.unwrap_err();
    match std::error::Error::source(&error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[test]
fn an_honest_zip_becomes_a_tree() {
    let long = b"hello ".repeat(50_000);
    let items = [
        item("docs/", 0o040_700, b""),
        deflated("docs/a", &long),
        item("docs/run.sh", 0o100_755, b"#!"),
        item("plain", 0, b"no mode"),
        item("docs/link", 0o120_777, b"../docs/a"),
        Item { name: b"caf\x82".to_vec(), ..item("", 0, b"437") },
    ];
    let bytes = archive(&items);
    let outcome = unpack(&bytes, Form::Zip, 1_000_000);
    outcome.result.unwrap();
    let nodes: Vec<_> = outcome.tree.iter().collect();
    let shown: Vec<_> = nodes.iter().map(|(path, _, meta)| (*path, meta.mode)).collect();
    let expected = [
        ("/x", 0o755),
        ("/x/caf\u{e9}", 0o644),
        ("/x/docs", 0o700),
        ("/x/docs/a", 0o644),
        ("/x/docs/link", 0o777),
        ("/x/docs/run.sh", 0o755),
        ("/x/plain", 0o644),
    ];
    assert_eq!(shown, expected);
    assert_eq!(nodes[3].2.mtime, 981_173_106);
    assert_eq!(*nodes[4].1, Node::Link { target: "../docs/a".into() });
    let Node::File { source, .. } = nodes[3].1 else { panic!("{:?}", nodes[3]) };
    assert!(std::fs::read(source).unwrap() == long);

    let path = outcome.folder.path().join("archive");
    let archive = Archive { name: "a.zip", path: &path, form: Form::Zip, limit: u64::MAX };
    let tally = archive.tally(&StopFlag::new()).unwrap();
    assert_eq!((tally.bytes, tally.entries), (long.len() as u64 + 2 + 7 + 3, 6));
}

#[test]
fn zips_that_escape_lie_or_explode_are_refused_by_name() {
    let zeros = deflated("zeros", &vec![0; 5_000_000]);
    let shorter = Item { said: (1000, zeros.said.1), ..zeros.clone() };
    let many: Vec<Item> = (0..20).map(|i| item(&i.to_string(), 0, &[7; 60_000])).collect();
    let table = [
        (vec![item("/etc/passwd", 0, b"x")], "entry \"/etc/passwd\" has an absolute path"),
        (vec![item("a/../../x", 0, b"x")], "entry \"a/../../x\" leaves the archive with `..`"),
        (vec![item("..\\x", 0, b"x")], "entry \"..\\\\x\" has a backslash in its name"),
        (vec![item("l", 0o120_777, b"/etc")], "entry \"l\" is a link out of the archive, to \"/etc\""),
        (
            vec![item("a/l", 0o120_777, b"../../x")],
            "entry \"a/l\" is a link out of the archive, to \"../../x\"",
        ),
        (vec![item("l", 0o120_777, &[b'a'; 2000])], "entry \"l\" is a link to a name that cannot be"),
        (vec![item("l", 0o120_777, b"a"), item("l/x", 0, b"x")], "entry \"l/x\" lies below a link"),
        (vec![item("d", 0o060_644, b"")], "entry \"d\" is a device"),
        (vec![item("d", 0o020_644, b"")], "entry \"d\" is a device"),
        (vec![item("p", 0o010_644, b"")], "entry \"p\" is a pipe"),
        (vec![item("s", 0o140_644, b"")], "entry \"s\" is of unknown kind 140000"),
        (vec![Item { flags: 1, ..item("e", 0, b"x") }], "entry \"e\" is encrypted"),
        (vec![item("a", 0, b"x"), item("a/b", 0, b"x")], "entry \"a/b\" lies below a file"),
        (vec![item("a\nb", 0, b"x")], "entry \"a\\nb\" has a control character"),
        (vec![zeros], "unpacks to more than the 1000000 bytes its `size` allows, at entry \"zeros\""),
        (vec![shorter], "cannot be unpacked: File is larger than its declared uncompressed size"),
        (many, "unpacks to more than the 1000000 bytes its `size` allows, at entry \"16\""),
    ];
    for (items, message) in table {
        assert_eq!(refusal(&items, 1_000_000), format!("a.tar: {message}"));
    }
    let strange = refusal(&[Item { method: 99, ..item("m", 0, b"x") }], 100);
    assert!(strange.starts_with("a.tar: ") && strange.contains("method not supported: 99"), "{strange}");
    let wrong = refusal(&[Item { said: (1, 7), ..item("c", 0, b"x") }], 100);
    assert!(wrong.starts_with("a.tar: cannot be unpacked"), "{wrong}");
    let cut = archive(&[item("a", 0, &[7; 5000])]);
    let error = unpack(&cut[..3000], Form::Zip, 10_000).result.unwrap_err();
    assert!(matches!(error, UnpackError::Damaged { .. }), "{error}");
}

#[test]
fn entries_of_a_zip_that_share_their_bytes_count_each() {
    // The same 100 bytes listed a thousand times: small on the disk, and held to the recipe's size all the same.
    let one = archive(&[deflated("a", &[0; 100_000])]);
    let directory = one.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    let end = one.windows(4).position(|w| w == b"PK\x05\x06").unwrap();
    let mut bytes = one[..directory].to_vec();
    for number in 0..1000_u16 {
        let mut entry = one[directory..end].to_vec();
        entry[28..30].copy_from_slice(&4_u16.to_le_bytes());
        entry.truncate(46);
        entry.extend(format!("{number:04}").as_bytes());
        bytes.extend(entry);
    }
    let size = (bytes.len() - directory) as u32;
    bytes.extend(b"PK\x05\x06\0\0\0\0\xe8\x03\xe8\x03");
    bytes.extend([size.to_le_bytes(), (directory as u32).to_le_bytes()].concat());
    bytes.extend([0, 0]);
    let error = unpack(&bytes, Form::Zip, 1_000_000).result.unwrap_err();
    assert!(!error.to_string().is_empty());
    assert!(matches!(error, UnpackError::TooLarge { .. } | UnpackError::Damaged { .. }), "{error}");
}

#[test]
fn zips_and_tars_damaged_anywhere_are_read_or_refused_and_nothing_else() {
    let zip = archive(&[
        deflated("docs/a", b"hello hello hello"),
        item("l", 0o120_777, b"docs/a"),
        item("d/", 0, b""),
    ]);
    let tar = with_pax(Maker::new(), &[("SCHILY.xattr.user.a", b"b")]).file("docs/a", b"hello").bytes();
    let mut dice = blake3::Hasher::new().update(b"damage").finalize_xof();
    let mut roll = |below: usize| {
        let mut bytes = [0; 4];
        dice.fill(&mut bytes);
        u32::from_le_bytes(bytes) as usize % below
    };
    for (whole, form) in [(&zip, Form::Zip), (&tar, Form::Tar(Packing::None))] {
        for _ in 0..1500 {
            let mut bytes = whole.clone();
            // Padding of a tar is long and dull: its first kilobytes have all fields.
            let reach = bytes.len().min(3000);
            for _ in 0..=roll(4) {
                bytes[roll(reach)] = [0, 1, 0x7f, 0xff, roll(256) as u8][roll(5)];
            }
            if roll(8) == 0 {
                bytes.truncate(roll(bytes.len()));
            }
            let outcome = unpack(&bytes, form, 10_000);
            let staged = std::fs::read_dir(outcome.folder.path().join("staging")).unwrap();
            let size: u64 = staged.map(|e| e.unwrap().metadata().unwrap().len()).sum();
            assert!(size <= 10_000 + BUFFER_SIZE as u64, "{size} bytes came out");
            assert_eq!(std::fs::read_dir(outcome.folder.path()).unwrap().count(), 2);
        }
    }
}
