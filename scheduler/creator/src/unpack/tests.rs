//! Archives that lie, escape or explode, each with the message it must give; and honest ones.

use std::io::Write;

use super::*;

/// An archive of raw entries: name as it is, kind, link target, content.
struct Maker(tar::Builder<Vec<u8>>);

impl Maker {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// Names and targets are written unchecked: `tar`'s own builder refuses what these tests are about.
    fn add(mut self, name: &[u8], kind: u8, target: &str, content: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1);
        let fields = header.as_gnu_mut().unwrap();
        fields.name[..name.len()].copy_from_slice(name);
        fields.linkname[..target.len()].copy_from_slice(target.as_bytes());
        fields.typeflag = [kind];
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn file(self, name: &str, content: &[u8]) -> Self {
        self.add(name.as_bytes(), b'0', "", content)
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

impl From<Packing> for Form {
    fn from(packing: Packing) -> Self {
        Self::Tar(packing)
    }
}

struct Outcome {
    tree: Tree,
    folder: tempfile::TempDir,
    result: Result<(), UnpackError>,
}

fn unpack(bytes: &[u8], form: impl Into<Form>, limit: u64) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("archive");
    std::fs::write(&path, bytes).unwrap();
    std::fs::create_dir(folder.path().join("staging")).unwrap();
    let mut staging = Staging::new(folder.path().join("staging"));
    let mut tree = Tree::default();
    let archive = Archive { name: "a.tar", path: &path, form: form.into(), limit };
    let result = archive.unpack("/x", &mut tree, &mut staging, &StopFlag::new(), &mut |_| ());
    Outcome { tree, folder, result }
}

fn refusal(maker: Maker) -> String {
    let outcome = unpack(&maker.bytes(), Packing::None, 1_000_000);
    let outside: Vec<_> = std::fs::read_dir(outcome.folder.path()).unwrap().collect();
    assert_eq!(outside.len(), 2, "nothing is written beside the staging folder");
    outcome.result.unwrap_err().to_string()
}

#[test]
fn entries_that_leave_the_archive_are_refused_by_name() {
    let link = |name: &str, target: &str| Maker::new().add(name.as_bytes(), b'2', target, b"");
    let table = [
        (Maker::new().file("/etc/passwd", b"x"), "entry \"/etc/passwd\" has an absolute path"),
        (Maker::new().file("../x", b"x"), "entry \"../x\" leaves the archive with `..`"),
        (Maker::new().file("a/../../x", b"x"), "entry \"a/../../x\" leaves the archive with `..`"),
        (link("l", "/etc"), "entry \"l\" is a link out of the archive, to \"/etc\""),
        (link("l", "../x"), "entry \"l\" is a link out of the archive, to \"../x\""),
        (link("a/l", "../../x"), "entry \"a/l\" is a link out of the archive, to \"../../x\""),
        (link("a/l", "b/../../../x"), "entry \"a/l\" is a link out of the archive, to \"b/../../../x\""),
        (link("l", "a").file("l/x", b"x"), "entry \"l/x\" lies below a link"),
        (Maker::new().add(b"h", b'1', "/etc/passwd", b""), "entry \"h\" has an absolute path"),
        (Maker::new().add(b"h", b'1', "../x", b""), "entry \"h\" leaves the archive with `..`"),
        (
            Maker::new().add(b"h", b'1', "later", b"").file("later", b"x"),
            "entry \"h\" is a hard link to a file that is not before it",
        ),
    ];
    for (maker, message) in table {
        assert_eq!(refusal(maker), format!("a.tar: {message}"));
    }
}

#[test]
fn devices_pipes_and_names_that_cannot_be_are_refused_by_name() {
    let long = "a/".repeat(45) + "x";
    let table = [
        (Maker::new().add(b"c", b'3', "", b""), "entry \"c\" is a device"),
        (Maker::new().add(b"b", b'4', "", b""), "entry \"b\" is a device"),
        (Maker::new().add(b"p", b'6', "", b""), "entry \"p\" is a pipe"),
        (Maker::new().add(b"q", b'Z', "", b""), "entry \"q\" is of unknown kind 'Z'"),
        (Maker::new().add(b"\xff\xfe", b'0', "", b"x"), "entry \"\u{fffd}\u{fffd}\" is not named in UTF-8"),
        (Maker::new().file("a\nb", b"x"), "entry \"a\\nb\" has a control character"),
        (Maker::new().file("a", b"x").file("a", b"y"), "entry \"a\" is put twice"),
        (Maker::new().file("a", b"x").file("a/b", b"y"), "entry \"a/b\" lies below a file"),
        (Maker::new().file(&long, b"x").file(&long, b"y"), &format!("entry {long:?} is put twice")),
    ];
    for (maker, message) in table {
        assert_eq!(refusal(maker), format!("a.tar: {message}"));
    }
}

#[test]
fn a_bomb_is_refused_where_it_passes_the_size_it_was_given() {
    // 200 MB of zeros in 200 KB: the archive says so itself, and the recipe's size decides.
    let mut header = tar::Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(200_000_000);
    header.set_cksum();
    let mut packed = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    packed.write_all(header.as_bytes()).unwrap();
    std::io::copy(&mut std::io::repeat(0).take(200_000_000), &mut packed).unwrap();
    let bytes = packed.finish().unwrap();
    assert!(bytes.len() < 200_000, "{}", bytes.len());
    let outcome = unpack(&bytes, Packing::Zstd, 1_000_000);
    let message = "a.tar: unpacks to more than the 1000000 bytes its `size` allows, at entry \"zeros\"";
    assert_eq!(outcome.result.unwrap_err().to_string(), message);
    assert_eq!(std::fs::read_dir(outcome.folder.path().join("staging")).unwrap().count(), 0);

    // Many small ones count together.
    let many = (0..20).fold(Maker::new(), |m, i| m.file(&i.to_string(), &[7; 60_000]));
    assert!(refusal(many).contains("at entry \"16\""));
}

#[test]
fn a_bomb_made_of_headers_is_refused() {
    // A long name of 100 MB, before any content that a size could limit.
    let mut header = tar::Header::new_gnu();
    header.set_path("././@LongLink").unwrap();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(100_000_000);
    header.set_cksum();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(header.as_bytes()).unwrap();
    std::io::copy(&mut std::io::repeat(b'a').take(100_000_000), &mut packed).unwrap();
    let error = unpack(&packed.finish().unwrap(), Packing::Gzip, u64::MAX).result.unwrap_err();
    let text = std::error::Error::source(&error).unwrap().to_string();
    assert!(text.contains("more header bytes than any honest archive has"), "{text}");
}

#[test]
fn damaged_archives_are_errors() {
    let honest = Maker::new().file("a", &[7; 5000]).bytes();
    for (bytes, packing) in [
        (&honest[..2000], Packing::None),
        (&b"not a tar at all, but long enough to be taken for one: ".repeat(20)[..], Packing::None),
        (&honest[..], Packing::Gzip),
        (&honest[..], Packing::Bzip2),
        (&honest[..], Packing::Xz),
        (&honest[..], Packing::Zstd),
    ] {
        let error = unpack(bytes, packing, 1_000_000).result.unwrap_err();
        assert!(matches!(error, UnpackError::Damaged { .. }), "{packing:?}: {error}");
    }
}

#[test]
fn honest_archives_of_every_packing_give_the_same_tree() {
    let maker = Maker::new()
        .add(b"./", b'5', "", b"")
        .add(b"./docs/", b'5', "", b"")
        .file("./docs/a", b"hello")
        .add(b"./same", b'1', "docs/a", b"")
        .add(b"docs/link", b'2', "../docs/./a", b"");
    let plain = maker.bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&plain).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
    xz.write_all(&plain).unwrap();
    let zstd = zstd::stream::encode_all(&plain[..], 1).unwrap();
    for (bytes, packing) in [
        (plain, Packing::None),
        (gzip.finish().unwrap(), Packing::Gzip),
        (bzip2.finish().unwrap(), Packing::Bzip2),
        (xz.finish().unwrap(), Packing::Xz),
        (zstd, Packing::Zstd),
    ] {
        let outcome = unpack(&bytes, packing, 5);
        outcome.result.unwrap();
        let nodes: Vec<_> = outcome.tree.iter().map(|(path, node, _)| (path, node)).collect();
        let paths: Vec<&str> = nodes.iter().map(|n| n.0).collect();
        assert_eq!(paths, ["/x", "/x/docs", "/x/docs/a", "/x/docs/link", "/x/same"]);
        assert_eq!(*nodes[4].1, Node::Same { of: "/x/docs/a".into() });
        let Node::File { source, size: 5 } = nodes[2].1 else { panic!("{:?}", nodes[2]) };
        assert_eq!(std::fs::read(source).unwrap(), b"hello");

        let path = outcome.folder.path().join("archive");
        let archive = Archive { name: "a.tar", path: &path, form: packing.into(), limit: u64::MAX };
        let tally = archive.tally(&StopFlag::new()).unwrap();
        assert_eq!((tally.bytes, tally.entries), (5, 5));
    }
}

#[test]
fn counting_an_archive_without_end_stops_when_it_should() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("archive");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (stop, fifo) = (StopFlag::new(), path.clone());
    let raise = stop.clone();
    let writer = std::thread::spawn(move || {
        let mut header = tar::Header::new_gnu();
        header.set_path("zeros").unwrap();
        header.set_size(1 << 40);
        header.set_cksum();
        let mut pipe = File::options().write(true).open(fifo).unwrap();
        pipe.write_all(header.as_bytes()).unwrap();
        // Until nobody reads any more.
        while pipe.write_all(&[0; 65536]).is_ok() {
            raise.stop();
        }
    });
    let archive = Archive { name: "a.tar", path: &path, form: Packing::None.into(), limit: u64::MAX };
    assert!(matches!(archive.tally(&stop), Err(UnpackError::Stopped)));
    writer.join().unwrap();
}

/// An archive whose next entry has these pax records.
fn with_pax(maker: Maker, records: &[(&str, &[u8])]) -> Maker {
    let mut maker = maker;
    maker.0.append_pax_extensions(records.iter().copied()).unwrap();
    maker
}

#[test]
fn extended_attributes_come_along_and_what_ext4_does_not_take_is_refused_by_name() {
    let value = b"\x00\x01=\xff".as_slice();
    let records =
        [("SCHILY.xattr.user.b", value), ("SCHILY.xattr.security.capability", value), ("comment", b"x")];
    let maker = with_pax(Maker::new(), &records).file("a", b"x").file("b", b"x");
    let outcome = unpack(&maker.bytes(), Packing::None, 100);
    outcome.result.unwrap();
    let attribute = |name: &str| (name.to_owned(), value.to_vec());
    assert_eq!(outcome.tree.xattrs("/x/a"), [attribute("security.capability"), attribute("user.b")]);
    assert!(outcome.tree.xattrs("/x/b").is_empty());

    let long = [7; 4000];
    for (record, value, fault) in [
        ("SCHILY.xattr.os2.x", value, "has an extended attribute \"os2.x\", which ext4 does not take"),
        ("SCHILY.xattr.user.", value, "has an extended attribute \"user.\", which ext4 does not take"),
        (
            "SCHILY.xattr.user.a",
            b"two\nlines",
            "has pax records with a line break in a value, or damaged ones",
        ),
        ("SCHILY.xattr.user.a", &long, "has more than 3072 bytes of extended attributes"),
    ] {
        assert_eq!(
            refusal(with_pax(Maker::new(), &[(record, value)]).file("a", b"x")),
            format!("a.tar: entry \"a\" {fault}")
        );
    }
}

mod zip;
