//! What every input has to keep to. Run by the fuzzer, and by an ordinary test over the seeds.

use cardshop_creator::outside;

/// An OPDS feed.
pub fn catalogue(bytes: &[u8]) {
    outside::catalogue(bytes);
}

/// YAML of a recipe or a configuration.
pub fn recipe(bytes: &[u8]) {
    outside::recipe(bytes);
}

/// A kind of archive, a byte, and an archive.
pub fn archive(bytes: &[u8]) {
    outside::archive(bytes);
}

/// A sector.
pub fn mbr(bytes: &[u8]) {
    outside::mbr(bytes);
}

/// The name of a container image, a line, and a manifest.
pub fn manifest(bytes: &[u8]) {
    outside::manifest(bytes);
}
