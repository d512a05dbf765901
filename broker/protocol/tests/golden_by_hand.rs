//! The golden indexes read by a second decoder, written from the format's description alone: it shares no code
//! with the crate, so an encoder and a decoder that are wrong alike are noticed.
#![allow(clippy::unwrap_used)] // a test helper that cannot unwrap reads worse and asserts less

use ed25519_dalek::{Signature, SigningKey};

const UNSIGNED: &[u8] = include_bytes!("golden/unsigned.cardindex");
const SIGNED: &[u8] = include_bytes!("golden/signed.cardindex");
const IMAGE_ID: &str = include_str!("golden/image-id.txt");

/// Deterministic CBOR as far as the header needs it: numbers, texts, lists, maps. RFC 8949 §3 and §4.2.1.
struct Cbor<'a>(&'a [u8]);

#[derive(Debug, PartialEq)]
enum Value {
    Number(u64),
    Text(String),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

impl Cbor<'_> {
    fn take(&mut self, count: usize) -> Vec<u8> {
        let (now, later) = self.0.split_at(count);
        self.0 = later;
        now.to_vec()
    }

    /// Major type and argument, which must have its shortest form.
    fn head(&mut self) -> (u8, u64) {
        let first = self.take(1)[0];
        let (bytes, least) = match first & 31 {
            small @ 0..24 => return (first >> 5, u64::from(small)),
            24 => (1, 24),
            25 => (2, 1 << 8),
            26 => (4, 1 << 16),
            27 => (8, 1 << 32),
            other => panic!("argument {other}"),
        };
        let argument = self.take(bytes).iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        assert!(argument >= least, "{argument} in {bytes} bytes is not its shortest form");
        (first >> 5, argument)
    }

    fn value(&mut self) -> Value {
        match self.head() {
            (0, number) => Value::Number(number),
            (3, size) => Value::Text(String::from_utf8(self.take(size as usize)).unwrap()),
            (4, count) => Value::List((0..count).map(|_| self.value()).collect()),
            (5, count) => {
                let entry = |_| {
                    let before = self.0;
                    let Value::Text(key) = self.value() else { panic!("a key is text") };
                    let encoded = before[..before.len() - self.0.len()].to_vec();
                    (encoded, (key, self.value()))
                };
                let entries: Vec<_> = (0..count).map(entry).collect();
                assert!(entries.is_sorted_by(|a, b| a.0 < b.0), "keys in the order of their encoding");
                Value::Map(entries.into_iter().map(|(_, entry)| entry).collect())
            }
            other => panic!("not in a header: {other:?}"),
        }
    }
}

fn le32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().unwrap())
}

fn le64(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().unwrap())
}

fn entry(name: &str, number: u64) -> (String, Value) {
    (name.to_owned(), Value::Number(number))
}

const GRANULE: usize = 4096;
const CHUNK: usize = 65_536;
/// 20 granules of data, one for the passport, 40 that must be zero, one of data, and 100 bytes of data.
const IMAGE_SIZE: usize = 62 * GRANULE + 100;

/// The image the golden files describe: its data from a fixed seed, zeros elsewhere.
fn image() -> Vec<u8> {
    let mut data = vec![0; 21 * GRANULE + 100];
    blake3::Hasher::new().update(&42_u64.to_le_bytes()).finalize_xof().fill(&mut data);
    let (first, last) = data.split_at(20 * GRANULE);
    [first, &vec![0; 41 * GRANULE], last].concat()
}

#[test]
fn the_header_is_deterministic_cbor_with_these_numbers() {
    assert_eq!(&UNSIGNED[..8], b"CARDIDX1");
    let end = 12 + le32(&UNSIGNED[8..]) as usize;
    let mut cbor = Cbor(&UNSIGNED[12..end]);
    let passport = Value::Map(vec![
        ("name".to_owned(), Value::Text("CARD.JSN".to_owned())),
        entry("length", 4096),
        entry("offset", 20 * 4096),
    ]);
    let wanted = Value::Map(vec![
        ("passport".to_owned(), Value::List(vec![passport])),
        entry("chunk_size", CHUNK as u64),
        entry("data_bytes", 21 * 4096 + 100),
        entry("image_size", IMAGE_SIZE as u64),
        entry("zero_bytes", 40 * 4096),
        entry("chunk_count", 4),
        entry("extent_count", 4),
    ]);
    assert_eq!(cbor.value(), wanted);
    assert!(cbor.0.is_empty(), "nothing follows the map");
    assert_eq!(UNSIGNED.len(), end + 4 * 40 + 4 * 16 + 72);
}

#[test]
fn chunks_and_extents_are_those_of_the_image() {
    let image = image();
    assert_eq!(image.len(), IMAGE_SIZE);
    let at = 12 + le32(&UNSIGNED[8..]) as usize;
    let (chunks, rest) = UNSIGNED[at..].split_at(4 * 40);
    let data_bytes = [16 * GRANULE, 4 * GRANULE, 0, GRANULE + 100];
    for (number, record) in chunks.chunks(40).enumerate() {
        let bytes = &image[number * CHUNK..IMAGE_SIZE.min((number + 1) * CHUNK)];
        assert_eq!(record[..32], *blake3::hash(bytes).as_bytes(), "chunk {number}");
        // Bit 0: all zero. Bit 1: no extent touches it, which is true of none here.
        assert_eq!(le32(&record[32..]), u32::from(number == 2), "chunk {number}");
        assert_eq!(le32(&record[36..]) as usize, data_bytes[number], "chunk {number}");
    }
    let granules = |count: u64| count * GRANULE as u64;
    let extents: Vec<(u64, u64)> = rest[..64].chunks(16).map(|e| (le64(e), le64(&e[8..]))).collect();
    let wanted = [
        (0, granules(20)),
        (granules(21), granules(40) | 1 << 63),
        (granules(61), granules(1)),
        (granules(62), 100),
    ];
    assert_eq!(extents, wanted);
}

#[test]
fn id_and_signature_cover_everything_before_the_signature_part() {
    let (body, unsigned) = UNSIGNED.split_at(UNSIGNED.len() - 72);
    let (signed_body, signature) = SIGNED.split_at(SIGNED.len() - 72);
    assert!(body == signed_body && unsigned.iter().all(|byte| *byte == 0));
    assert_eq!(blake3::hash(body).to_hex().as_str(), IMAGE_ID.trim());
    let key = SigningKey::from_bytes(&[3; 32]).verifying_key();
    assert_eq!(signature[..8], blake3::hash(key.as_bytes()).as_bytes()[..8]);
    key.verify_strict(body, &Signature::from_slice(&signature[8..]).unwrap()).unwrap();
}
