//! The second half of a build: base or boot partition, data partition, what of them matters, index.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Instant;

use cardshop_protocol::api::CreationPhase;
use cardshop_protocol::index::{Index, PassportEntry, default_chunk_size};

use super::{BuildError, Builder, Progress};
use crate::copy::{self, Copied, Placed};
use crate::ext4::{self, Ext4Error, Identity};
use crate::fat::{self, BOOT_SIZE, Fat};
use crate::map;
use crate::mbr::{ALIGNMENT, KIND_FAT32, KIND_LINUX, Mbr, Partition};
use crate::recipe::Base;
use crate::script::Script;
use crate::tree::Tree;
use crate::unpack;

const BUFFER_SIZE: usize = 1024 * 1024;
const DATA_LABEL: &str = "data";

/// A part of the image that matters, and what of it does not.
#[derive(Default)]
pub(super) struct Layout {
    regions: Vec<Range<u64>>,
    pub free: Vec<Range<u64>>,
    pub passport: Vec<PassportEntry>,
}

impl Builder<'_> {
    /// An MBR and an empty FAT32.
    pub(super) fn make_boot(&mut self, image: &File) -> Result<Option<Partition>, BuildError> {
        let digest = self.recipe.digest();
        let seed: [u8; 8] = digest.as_bytes()[..8].try_into().expect("a digest has 32 bytes");
        let signature: [u8; 4] = seed[..4].try_into().expect("four of eight bytes");
        let volume_id = u32::from_le_bytes(seed[4..].try_into().expect("four of eight bytes"));
        let boot = Partition { kind: KIND_FAT32, start: ALIGNMENT, size: BOOT_SIZE };
        let mut mbr = Mbr::new(signature);
        mbr.add(boot)?;
        mbr.add(self.data_partition())?;
        image.write_all_at(&mbr.0, 0)?;
        fat::format(image, boot.start..boot.end(), volume_id)?;
        Ok(Some(boot))
    }

    /// Unpacks the base to the image's start and enters the data partition. Says where its boot partition is.
    pub(super) fn copy_base(
        &mut self,
        base: &Base,
        path: &Path,
        image: &File,
    ) -> Result<Option<Partition>, BuildError> {
        let expected = self.sizing.base.as_ref().map_or(0, |b| b.bytes);
        let file_error = |source| BuildError::File { path: path.to_owned(), source };
        let mut reader =
            unpack::decoder(File::open(path).map_err(file_error)?, base.packing).map_err(file_error)?;
        let mut buffer = vec![0; BUFFER_SIZE];
        let mut at = 0;
        loop {
            if self.stop.is_stopped() {
                return Err(BuildError::Stopped);
            }
            let count = reader.read(&mut buffer).map_err(file_error)?;
            if count == 0 {
                break;
            }
            if at + count as u64 > expected {
                return Err(BuildError::BaseSizeDiffers { expected, actual: at + count as u64 });
            }
            // Zeros stay holes.
            if !map::is_zero(&buffer[..count]) {
                image.write_all_at(&buffer[..count], at)?;
            }
            at += count as u64;
            self.report(CreationPhase::Building, at, expected);
        }
        if at != expected {
            return Err(BuildError::BaseSizeDiffers { expected, actual: at });
        }
        let mut sector = [0; 512];
        image.read_exact_at(&mut sector, 0)?;
        let mut mbr = Mbr(sector);
        let partitions = mbr.partitions(expected)?;
        if let Some(wanted) = base.rootfs_size {
            let (entry, root) = mbr.grown_root(expected, wanted)?;
            mbr.resize(entry, root.size);
            self.ext4(&root).grow().map_err(BuildError::Root)?;
        }
        mbr.add(self.data_partition())?;
        image.write_all_at(&mbr.0, 0)?;
        let boot = partitions.into_iter().flatten().find(Partition::is_fat);
        Ok(match boot {
            Some(boot) if Fat::read(image, boot.start..boot.end())?.is_some() => Some(boot),
            _ => None,
        })
    }

    /// What goes to the boot partition.
    pub(super) fn boot_files(&self) -> Vec<(&'static str, Vec<u8>)> {
        let yaml = |value: &serde_json::Value| {
            // JSON is YAML: nothing is lost should the nicer form fail.
            serde_saphyr::to_string(value).unwrap_or_else(|_| value.to_string()).into_bytes()
        };
        let mut files = Vec::new();
        if let Some(settings) = &self.recipe.offspot {
            files.push(("offspot.yaml", yaml(settings)));
        }
        if self.recipe.write_config {
            files.push(("image.yaml", yaml(&self.recipe.public_value())));
        }
        files
    }

    pub(super) fn data_partition(&self) -> Partition {
        Partition { kind: KIND_LINUX, start: self.sizing.data_start, size: self.sizing.data.bytes }
    }

    fn ext4(&self, partition: &Partition) -> ext4::Partition<'_> {
        let range = partition.start..partition.end();
        let watcher = &self.options.watcher;
        ext4::Partition { image: self.part, range, scratch: self.scratch, stop: self.stop, watcher }
    }

    /// Makes the data partition with all but the contents of its large files: these are placed.
    pub(super) fn fill_data(&mut self, data: &Partition, tree: &Tree) -> Result<Vec<Placed>, BuildError> {
        self.report(CreationPhase::Building, 0, tree.bytes());
        let uuid =
            |purpose: &str| uuid_from(&blake3::derive_key(purpose, self.recipe.stable_digest().as_bytes()));
        let identity = Identity {
            label: DATA_LABEL,
            uuid: uuid("cardshop 1 data partition uuid"),
            hash_seed: uuid("cardshop 1 data partition hash seed"),
        };
        let ext4 = self.ext4(data);
        ext4.make(&self.sizing.data, &identity)?;
        let chunk_size = default_chunk_size(self.sizing.image_bytes).into();
        // All tables lie before it; files follow without a gap.
        let first_free =
            ext4.free()?.and_then(|free| free.first().map(|range| range.start)).unwrap_or(data.start);
        let script = Script::new(tree, chunk_size, self.sizing.data.room_after(tree.bytes()), first_free);
        Ok(ext4.fill(&script)?)
    }

    /// Copies the contents of the large files to their places, then checks the file system.
    pub(super) fn copy_contents(
        &mut self,
        image: &File,
        data: &Partition,
        placed: &[Placed],
    ) -> Result<Copied, BuildError> {
        let total = placed.iter().map(|p| p.length).sum();
        let chunk_size = default_chunk_size(self.sizing.image_bytes).into();
        let begun = Instant::now();
        let progress = &mut *self.progress;
        let (watcher, size) = (&self.options.watcher, self.sizing.image_bytes);
        let mut note = |done, upto: u64| {
            // Tables and small files are there; large ones follow in the order of the image.
            if total > 0 {
                watcher.is_final(image, upto.min(size));
            }
            progress(Progress { phase: CreationPhase::Building, done, total });
        };
        let copied = copy::copy(image, placed, chunk_size, self.stop, &mut note)?;
        self.options.watcher.line(format_args!(
            "{total} bytes of large files copied in {:.1} s, {} whole chunks digested",
            begun.elapsed().as_secs_f64(),
            copied.chunks.len()
        ));
        self.ext4(data).check()?;
        Ok(copied)
    }

    /// Which parts of the image matter.
    pub(super) fn lay_out(
        &self,
        image: &File,
        boot: Option<Partition>,
        data: &Partition,
        layout: &mut Layout,
    ) -> Result<(), BuildError> {
        match &self.sizing.base {
            // A base may keep a boot loader between its partitions: all of it matters but free blocks.
            Some(_) => {
                layout.regions.push(0..self.sizing.base_end);
                let mut sector = [0; 512];
                image.read_exact_at(&mut sector, 0)?;
                let kept = Mbr(sector).partitions(image.metadata()?.len())?;
                for partition in kept.into_iter().flatten().filter(|p| p.kind == KIND_LINUX && p != data) {
                    layout.free.extend(self.ext4(&partition).free()?.unwrap_or_default());
                }
            }
            None => {
                layout.regions.push(0..4096);
                layout.regions.extend(boot.map(|b| b.start..b.end()));
            }
        }
        layout.regions.push(data.start..data.end());
        let free = self.ext4(data).free()?;
        layout.free.extend(
            free.ok_or(Ext4Error::Failed { tool: "dumpe2fs", text: "does not tell the free blocks".into() })?,
        );
        map::punch(image, &layout.free)?;
        layout.free.extend(layout.passport.iter().map(|p| p.offset..p.offset + p.length));
        layout.free.sort_by_key(|r| r.start);
        Ok(())
    }

    pub(super) fn index(
        &mut self,
        image: &File,
        layout: Layout,
        copied: &Copied,
    ) -> Result<Index, BuildError> {
        let used = map::without(&layout.regions, &layout.free);
        // What was not copied is read twice, the second time mostly from memory: once for the map, once for the digests.
        let blocks = (image.metadata()?.blocks() * 512).saturating_sub(copied.bytes());
        let total = blocks * 2;
        let progress = &mut *self.progress;
        let mut report = |done: u64| {
            progress(Progress { phase: CreationPhase::Indexing, done: done.min(total), total });
        };
        report(0);
        let map = map::map(image, &used, copied, layout.passport, self.stop, &mut |done| report(done))?;
        let index = map::index(image, map, copied, self.stop, &mut |done| report(blocks + done))?;
        report(total);
        Ok(index)
    }
}

/// A version 8 UUID (RFC 9562 §5.8) from the first bytes of a digest.
fn uuid_from(digest: &[u8; 32]) -> String {
    let mut bytes: [u8; 16] = digest[..16].try_into().expect("16 of 32 bytes");
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
