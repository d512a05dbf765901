//! Images of a few hundred KiB, built like real ones (data, must-be-zero, don't-care, room for a passport), and the
//! warehouse that has them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use cardshop_card::{ChunkSource, SourceError, StopFlag};
use cardshop_protocol::ids::ImageId;
use cardshop_protocol::index::{Extent, ExtentKind, ImageMap, Index, IndexBuilder, PassportEntry};
use cardshop_protocol::keys::{KeyList, KeyUse, PublicKey};
use cardshop_scheduler::Answering;
use ed25519_dalek::SigningKey;

/// Bytes of an image: four of the smallest chunks.
pub(super) const IMAGE_SIZE: u64 = 256 * 1024;
const CHUNK_SIZE: u32 = 64 * 1024;
/// Where each image has room for its passport: nothing is said of these bytes by the index.
pub(super) const PASSPORT_AT: u64 = 128 * 1024;
const README_AT: u64 = PASSPORT_AT + 4096;
/// Data, zeros, data again behind the passport's room. The rest is nobody's.
const EXTENTS: [(u64, u64, ExtentKind); 3] = [
    (0, 64 * 1024, ExtentKind::Data),
    (64 * 1024, 32 * 1024, ExtentKind::Zero),
    (160 * 1024, 64 * 1024, ExtentKind::Data),
];

/// One image.
pub(super) struct Image {
    pub(super) index: Index,
    /// As it would be downloaded: what the index does not list reads as zero.
    pub(super) bytes: Vec<u8>,
}

impl Image {
    /// What a configuration with this number becomes, always the same.
    pub(super) fn of(configuration: u64) -> Arc<Self> {
        let mut bytes = vec![0; IMAGE_SIZE as usize];
        for (offset, length, kind) in EXTENTS {
            if kind == ExtentKind::Data {
                let range = offset as usize..(offset + length) as usize;
                let name = format!("cardshop simulated image {configuration} {offset}");
                blake3::Hasher::new().update(name.as_bytes()).finalize_xof().fill(&mut bytes[range]);
            }
        }
        // It begins like a disk, so that a card with it holds somebody's data.
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        let entry = |name: &str, offset| PassportEntry { name: name.into(), offset, length: 4096 };
        let map = ImageMap {
            image_size: IMAGE_SIZE,
            extents: EXTENTS.map(|(offset, length, kind)| Extent { offset, length, kind }).into(),
            passport: vec![entry("CARD.JSN", PASSPORT_AT), entry("README.TXT", README_AT)],
        };
        let mut builder = IndexBuilder::new(map, CHUNK_SIZE).expect("the map above is consistent");
        for (offset, length, _) in EXTENTS.iter().filter(|(_, _, kind)| *kind == ExtentKind::Data) {
            let range = *offset as usize..(offset + length) as usize;
            builder.data(&bytes[range]).expect("as many bytes as the map says");
        }
        let mut index = builder.finish().expect("all bytes were given");
        index.sign(&warehouse_key());
        Arc::new(Self { index, bytes })
    }

    pub(super) fn id(&self) -> ImageId {
        self.index.id()
    }

    /// True when a card holds it: every byte that is listed, and no other question asked.
    pub(super) fn is_on(&self, card: &[u8]) -> bool {
        EXTENTS.iter().all(|(offset, length, _)| {
            let range = *offset as usize..(offset + length) as usize;
            card.get(range.clone()) == Some(&self.bytes[range])
        })
    }
}

impl ChunkSource for Image {
    fn read_chunk(&self, chunk: usize, buffer: &mut [u8], stop: &StopFlag) -> Result<(), SourceError> {
        if stop.is_stopped() {
            return Err(SourceError::Stopped { chunk });
        }
        let range = self.index.chunk_range(chunk);
        buffer.copy_from_slice(&self.bytes[range.start as usize..range.end as usize]);
        Ok(())
    }
}

fn warehouse_key() -> SigningKey {
    SigningKey::from_bytes(&[42; 32])
}

/// What the warehouse has, and whether it is there.
#[derive(Default)]
struct Shelf {
    indexes: BTreeMap<String, Vec<u8>>,
    away: bool,
}

/// A warehouse. Clones are the same one.
#[derive(Clone, Default)]
pub(super) struct Warehouse(Arc<Mutex<Shelf>>);

impl Warehouse {
    fn shelf(&self) -> std::sync::MutexGuard<'_, Shelf> {
        self.0.lock().expect("no holder panics")
    }

    pub(super) fn set_away(&self, away: bool) {
        self.shelf().away = away;
    }

    pub(super) fn is_away(&self) -> bool {
        self.shelf().away
    }

    /// Takes an image in; false when it is away.
    pub(super) fn put(&self, image: &Image) -> bool {
        let mut shelf = self.shelf();
        if !shelf.away {
            shelf.indexes.insert(image.id().to_string(), image.index.encode());
        }
        !shelf.away
    }

    pub(super) fn has(&self, image: ImageId) -> bool {
        self.shelf().indexes.contains_key(&image.to_string())
    }

    /// How it answers the scheduler.
    pub(super) fn answering(&self) -> Arc<Answering> {
        let warehouse = self.clone();
        Arc::new(move |method, url| warehouse.answer(method, url))
    }

    fn answer(&self, method: &str, url: &str) -> Result<Vec<u8>, u16> {
        let shelf = self.shelf();
        if shelf.away {
            return Err(0);
        }
        let path = url.strip_prefix(WAREHOUSE).ok_or(0_u16)?;
        match (method, &path.split('/').skip(1).collect::<Vec<_>>()[..]) {
            ("GET", ["keys"]) => {
                let key = PublicKey::new(&warehouse_key().verifying_key(), KeyUse::Index);
                let list = KeyList { items: vec![key], ..KeyList::default() };
                Ok(serde_json::to_vec(&list).expect("plain data has a JSON form"))
            }
            ("GET", ["images", id, "index"]) => shelf.indexes.get(*id).cloned().ok_or(404),
            ("PUT", ["links", id]) => Ok(format!("{{\"path\":\"/p/{id}/image.img\"}}").into_bytes()),
            ("PATCH", ["images", _]) => Ok(Vec::new()),
            _ => Err(404),
        }
    }
}

/// Its address.
pub(super) const WAREHOUSE: &str = "http://warehouse.example";
