//! What comes from outside, through the readers that a build uses, with what must hold whatever it is. For the fuzzer and
//! for the test that replays what it kept; nothing else calls it.
//!
//! | reader | most bytes | where the limit is |
//! |---|---|---|
//! | catalogues | 64 MiB | `cardshop_protocol::configuration::MAX_FEED_SIZE` |
//! | recipes and configurations | 8 MiB | `recipe::MAX_RECIPE_SIZE` |
//! | archives | what the recipe's `size` allows; headers 1 MiB an entry | `unpack` |
//! | manifests of container images | 4 MiB | `oci::registry` |

use crate::StopFlag;
use crate::configuration::{self, Catalogue, Configuration, recipe_of};
use crate::mbr::Mbr;
use crate::oci::ImageName;
use crate::oci::manifest;
use crate::recipe::{Form, Packing, Recipe, path_fault};
use crate::tree::{Node, Tree};
use crate::unpack::{Archive, Staging};

/// A catalogue.
pub fn catalogue(bytes: &[u8]) {
    for base in [None, Some("https://library.example/catalog")] {
        let Ok(catalogue) = Catalogue::parse(bytes, base) else { continue };
        for entry in &catalogue.entries {
            assert!(entry.url.starts_with("http://") || entry.url.starts_with("https://"));
            assert!(catalogue.newest(&entry.name, Some(&entry.flavour)).is_some());
        }
        let content: Vec<_> = catalogue
            .entries
            .iter()
            .take(20)
            .map(|e| serde_json::json!({"name": e.name, "flavour": e.flavour}))
            .collect();
        let value = serde_json::json!({"configuration": {"name": "x", "catalogue": "c", "content": content}});
        if let Ok(Some(configuration)) = Configuration::of_value(&value) {
            // An address may still be none.
            if let Ok(converted) = recipe_of(&configuration, &catalogue) {
                assert!(converted.vanished.is_empty());
            }
        }
    }
}

/// A recipe or a configuration.
pub fn recipe(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(recipe) = Recipe::from_text(text) {
        for file in &recipe.files {
            assert!(file.to.is_empty() || path_fault(&file.to).is_none());
        }
        let again = Recipe::from_value(recipe.value()).map(|again| again.digest());
        assert_eq!(again, Ok(recipe.digest()));
        let _ = recipe.public_value();
    }
    if let Ok(Some(configuration)) = configuration::of_text(text) {
        let _ = recipe_of(&configuration, &Catalogue::default());
    }
}

/// An archive: the first byte says of which kind, the rest is unpacked as a build does, into an empty tree.
pub fn archive(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let form = match kind {
        b'z' => Form::Zip,
        b'g' => Form::Tar(Packing::Gzip),
        b's' => Form::Tar(Packing::Zstd),
        _ => Form::Tar(Packing::None),
    };
    let folder = tempfile::tempdir().expect("a folder for what is unpacked");
    let path = folder.path().join("archive");
    std::fs::write(&path, rest).expect("room for the archive");
    let archive = Archive { name: "archive", path: &path, form, limit: 1 << 20 };
    let stop = StopFlag::new();
    let tally = archive.tally(&stop);
    let (mut tree, unpacked) = (Tree::default(), folder.path().join("unpacked"));
    std::fs::create_dir(&unpacked).expect("a folder of our own");
    let mut staging = Staging::new(unpacked.clone());
    let done = archive.unpack("/to", &mut tree, &mut staging, &stop, &mut |_| ());
    assert!(done.is_err() || tally.is_ok_and(|tally| tally.bytes <= 1 << 20));
    for (path, node, _) in tree.iter() {
        assert!(path_fault(path).is_none() && (path == "/to" || path.starts_with("/to/")), "{path}");
        if let Node::File { source, .. } = node {
            assert_eq!(source.parent(), Some(unpacked.as_path()));
        }
    }
}

/// The first sector of a base.
pub fn mbr(bytes: &[u8]) {
    let Some(sector) = bytes.first_chunk::<512>() else { return };
    for size in [0, 1 << 20, u64::MAX] {
        if let Ok(partitions) = Mbr(*sector).partitions(size) {
            assert!(partitions.into_iter().flatten().all(|p| p.end() <= size));
        }
    }
}

/// What a registry answers: the first line is the name that was asked for, the rest the manifest.
pub fn manifest(bytes: &[u8]) {
    let end = bytes.iter().position(|b| *b == b'\n').unwrap_or(bytes.len());
    let (name, body) = bytes.split_at(end);
    let _ = std::str::from_utf8(name).map(ImageName::parse);
    let body = body.get(1..).unwrap_or_default();
    for platform in ["linux/arm64", "linux/arm/v7"] {
        if let Ok(manifest::Answer::Image(image)) = manifest::read(body.to_vec(), platform) {
            let blobs = image.blobs();
            assert!(!blobs.is_empty() && blobs.len() <= image.layers.len() + 1);
            let _ = image.digest();
        }
    }
}
