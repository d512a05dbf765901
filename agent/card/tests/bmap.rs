//! Block maps: round trips, damaged ones, and the stock tool on the other side.
#![allow(clippy::unwrap_used)] // a test helper that cannot unwrap reads worse and asserts less
#![allow(clippy::print_stdout)] // a test that is skipped says so

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cardshop_card::bmap::{self, Bmap, BmapError};
use cardshop_card::index_file;
use cardshop_protocol::index::{Extent, ExtentKind, ImageMap, Index};

/// An image of 1,000,100 bytes with data, holes that must be zero, and nothing said about 400,000 to 499,712.
fn image(folder: &Path) -> (PathBuf, Index) {
    let path = folder.join("image");
    let file = File::create(&path).unwrap();
    file.set_len(1_000_100).unwrap();
    let mut noise = vec![0; 300_000];
    blake3::Hasher::new_derive_key("cardshop-card bmap tests").finalize_xof().fill(&mut noise);
    file.write_all_at(&noise, 4096).unwrap();
    file.write_all_at(b"end", 1_000_000).unwrap();
    let extent = |offset, length, kind| Extent { offset, length, kind };
    let extents = vec![
        extent(0, 4096, ExtentKind::Zero),
        extent(4096, 303_104, ExtentKind::Data),
        extent(499_712, 4096, ExtentKind::Zero),
        extent(999_424, 676, ExtentKind::Data),
    ];
    let map = ImageMap { image_size: 1_000_100, extents, passport: Vec::new() };
    let index = index_file(&path, Some(map), None, &mut |_, _| ()).unwrap();
    (path, index)
}

fn data(offset: u64, length: u64) -> Extent {
    Extent { offset, length, kind: ExtentKind::Data }
}

#[test]
fn what_is_written_is_read_as_a_map_in_which_zeros_are_data_and_the_rest_dont_care() {
    let folder = tempfile::tempdir().unwrap();
    let (path, index) = image(folder.path());
    let text = bmap::write(&index, &File::open(&path).unwrap()).unwrap();
    let map = bmap::read(&text).unwrap();
    assert_eq!(map.image_size, 1_000_100);
    assert_eq!(map.extents, [data(0, 307_200), data(499_712, 4096), data(999_424, 676)]);
    map.check().unwrap();
    let again = index_file(&path, Some(map), None, &mut |_, _| ()).unwrap();
    assert_eq!(bmap::write(&again, &File::open(&path).unwrap()).unwrap(), text);
}

#[test]
fn an_image_of_another_build_is_refused_with_the_range() {
    let folder = tempfile::tempdir().unwrap();
    let (path, index) = image(folder.path());
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let bmap = Bmap::parse(&bmap::write(&index, &file).unwrap()).unwrap();
    bmap.check_image(&file).unwrap();
    file.write_all_at(b"x", 450_000).unwrap();
    bmap.check_image(&file).unwrap();
    file.write_all_at(b"x", 499_800).unwrap();
    let error = bmap.check_image(&file).unwrap_err();
    assert!(matches!(error, BmapError::ImageDiffers { offset: 499_712, length: 4096 }), "{error}");
}

/// A bmap with these elements and a right checksum of its own.
fn sealed(body: &str) -> String {
    let zeros = "0".repeat(64);
    let text = format!(
        "<?xml version=\"1.0\" ?>\n<!-- <BmapFileChecksum> -->\n<bmap version=\"2.0\">{body}\
         <ChecksumType> sha256 </ChecksumType><BmapFileChecksum> {zeros} </BmapFileChecksum></bmap>"
    );
    let digest = <sha2::Sha256 as sha2::Digest>::digest(text.as_bytes());
    let digest: String = digest.iter().map(|b| format!("{b:02x}")).collect();
    text.replacen(&zeros, &digest, 1)
}

fn body(ranges: &[&str], mapped: u64) -> String {
    let checksum = "ab".repeat(32);
    let ranges: String =
        ranges.iter().map(|r| format!("<Range chksum=\"{checksum}\"> {r} </Range>")).collect();
    format!(
        "<ImageSize> 40000 </ImageSize><BlockSize> 4096 </BlockSize><BlocksCount> 10 </BlocksCount>\
         <MappedBlocksCount> {mapped} </MappedBlocksCount><BlockMap>{ranges}</BlockMap>"
    )
}

#[test]
fn neighbouring_ranges_are_joined_and_the_last_ends_at_the_image() {
    let map = bmap::read(&sealed(&body(&["0-1", "2", "9"], 4))).unwrap();
    assert_eq!(map.extents, [data(0, 12_288), data(36_864, 3136)]);
}

#[test]
fn maps_that_contradict_themselves_are_refused_by_name() {
    for (ranges, mapped, element) in [
        (&["0-1"][..], 3, "MappedBlocksCount"),
        (&["10"], 1, "Range"),
        (&["3", "2"], 2, "Range"),
        (&["2-1"], 0, "Range"),
        (&["0-18446744073709551615"], 1, "Range"),
        (&["1-x"], 1, "Range"),
        (&[""], 1, "Range"),
    ] {
        let error = bmap::read(&sealed(&body(ranges, mapped))).unwrap_err();
        assert!(
            matches!(&error, BmapError::Element { element: e, .. } if *e == element),
            "{ranges:?}: {error}"
        );
    }
    let good = body(&["0-1"], 2);
    for (from, to, element) in [
        ("<BlockSize> 4096", "<BlockSize> 512", "BlockSize"),
        ("<BlockSize> 4096", "<BlockSize> 0", "BlockSize"),
        ("<ImageSize> 40000", "<ImageSize> 70368744177665000", "ImageSize"),
        ("<BlocksCount> 10", "<BlocksCount> 11", "BlocksCount"),
        ("<BlocksCount>", "<ImageSize> 1 </ImageSize><BlocksCount>", "ImageSize"),
        ("chksum=\"ab", "chksum=\"a", "Range"),
        ("chksum=", "sha1=", "Range"),
    ] {
        let error = bmap::read(&sealed(&good.replacen(from, to, 1))).unwrap_err();
        assert!(matches!(&error, BmapError::Element { element: e, .. } if *e == element), "{to}: {error}");
    }
}

#[test]
fn damaged_and_foreign_maps_are_refused() {
    let good = sealed(&body(&["0-1"], 2));
    assert!(bmap::read(&good).is_ok());
    assert!(matches!(bmap::read(&good.replace(" 0-1 ", " 1-2 ")), Err(BmapError::Damaged)));
    assert!(matches!(bmap::read(&good.replace("2.0", "1.4")), Err(BmapError::Version(v)) if v == "1.4"));
    assert!(matches!(bmap::read("no xml at all"), Err(BmapError::Version(_))));
    assert!(matches!(bmap::read("<bmap version=\"2.0\"><a></b>"), Err(BmapError::NotXml(_))));
    let sha1 = good.replace("sha256", "sha1");
    assert!(matches!(bmap::read(&sha1), Err(BmapError::Element { element: "ChecksumType", .. })));
}

/// Runs bmaptool; `None`, with the reason printed, where it is not installed.
fn bmaptool(arguments: &[&str]) -> Option<()> {
    match Command::new("bmaptool").args(arguments).output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(())
        }
        Err(error) => {
            println!("SKIPPED: bmaptool (Debian package bmap-tools): {error}");
            None
        }
    }
}

#[test]
fn bmaptool_writes_the_same_image_from_our_map_and_we_read_its_map() {
    let folder = tempfile::tempdir().unwrap();
    let (path, index) = image(folder.path());
    let image = path.to_str().unwrap();
    let map = folder.path().join("ours.bmap");
    fs::write(&map, bmap::write(&index, &File::open(&path).unwrap()).unwrap()).unwrap();
    let card = folder.path().join("card");
    fs::write(&card, vec![0x55; 1_000_100]).unwrap();
    let arguments = ["copy", "--bmap", map.to_str().unwrap(), image, card.to_str().unwrap()];
    let Some(()) = bmaptool(&arguments) else { return };
    let (written, wanted) = (fs::read(&card).unwrap(), fs::read(&path).unwrap());
    for extent in index.extents() {
        let range = extent.offset as usize..extent.end() as usize;
        assert!(written[range.clone()] == wanted[range], "{extent:?}");
    }

    let theirs = folder.path().join("theirs.bmap");
    bmaptool(&["create", "-o", theirs.to_str().unwrap(), image]).unwrap();
    let bmap = Bmap::parse(&fs::read_to_string(theirs).unwrap()).unwrap();
    bmap.check_image(&File::open(&path).unwrap()).unwrap();
    assert!(bmap.map().extents.contains(&data(999_424, 676)), "{:?}", bmap.map());
}
