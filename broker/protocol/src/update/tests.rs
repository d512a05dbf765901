//! Updates made here are read again; what was changed, cut or signed by somebody else is refused by name.

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn made(version: &str, bodies: [&[u8]; 2], by: Option<&SigningKey>) -> Vec<u8> {
    let part = |(name, body): (&str, &[u8])| Part {
        name: name.to_owned(),
        size: body.len() as u64,
        sha256: HEXLOWER.encode(&Sha256::digest(body)),
    };
    let manifest = Manifest {
        v: 1,
        version: version.parse().unwrap(),
        origin: "a test".into(),
        parts: PARTS.into_iter().zip(bodies).map(part).collect(),
        keys: vec![listed(&key(1).verifying_key())],
    };
    let mut file = Head::encode(&manifest, by).unwrap();
    for (part, body) in manifest.parts.iter().zip(bodies) {
        let (before, behind) = around_part(part);
        file.extend([before, body.to_vec(), behind].concat());
    }
    file.extend(ending());
    file
}

fn whole(file: &[u8]) -> Result<Version, UpdateError> {
    let head = Head::decode(&file[..file.len().min(MAX_HEAD_SIZE)])?;
    head.signed_by(&[key(1).verifying_key()])?;
    let mut check = Check::new(&head);
    // In pieces of an odd size.
    file.chunks(777).try_for_each(|piece| check.push(piece))?;
    check.finish()?;
    Ok(head.manifest.version)
}

#[test]
fn an_update_is_read_as_it_was_made_and_its_size_is_known_from_its_head() {
    let file = made("1.2", [&[1; 1000], &[2; 4096]], Some(&key(1)));
    let head = Head::decode(&file).unwrap();
    assert_eq!((head.file_size(), head.key()), (file.len() as u64, Some(key_id(&key(1).verifying_key()))));
    assert_eq!(whole(&file), Ok("1.2".parse().unwrap()));
    // GNU's tar fills up to 20 blocks.
    assert!(whole(&[&file[..], &[0; 8192]].concat()).is_ok());
}

#[test]
fn what_was_changed_cut_or_signed_by_somebody_else_is_refused_by_name() {
    let file = made("1.2", [&[1; 1000], &[2; 4096]], Some(&key(1)));
    let kid = key_id(&key(2).verifying_key());
    assert_eq!(whole(&made("1.2", [b"a", b"b"], Some(&key(2)))), Err(UpdateError::UnknownKey(kid)));
    assert_eq!(whole(&made("1.2", [b"a", b"b"], None)), Err(UpdateError::Unsigned));
    assert_eq!(whole(&file[..file.len() - 600]), Err(UpdateError::Short));
    let mut other = file.clone();
    let at = other.windows(3).position(|w| w == b"1.2").unwrap();
    other[at] = b'9';
    assert!(matches!(whole(&other), Err(UpdateError::BadSignature(_))));
    let mut other = file.clone();
    let at = file.len() - 1024 - 10;
    other[at] ^= 1;
    assert_eq!(whole(&other), Err(UpdateError::Damaged("initramfs".into())));
    let large = Manifest {
        parts: PARTS
            .map(|name| Part { name: name.into(), size: MAX_UPDATE_SIZE, sha256: "0".repeat(64) })
            .into(),
        ..Head::decode(&file).unwrap().manifest
    };
    let front = Head::encode(&large, Some(&key(1))).unwrap();
    // A reader that has the header of the next file, too, as in a real one.
    let front = [front, around_part(&large.parts[0]).0].concat();
    assert!(matches!(Head::decode(&front), Err(UpdateError::TooLarge { .. })));
}

#[test]
fn versions_are_compared_number_by_number() {
    let version = |text: &str| text.parse::<Version>().unwrap();
    assert!(version("1.10") > version("1.9.9") && version("2026.1") > version("3.0"));
    for bad in ["", "1.", ".1", "1..2", "v1", "1.2.3.4.5", "1.9999999999", "1 ", "-1"] {
        assert_eq!(bad.parse::<Version>(), Err(NoVersion), "{bad:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// One flipped bit anywhere that counts: never taken.
    #[test]
    fn no_flipped_bit_passes(at in 0_usize..8_000, bit in 0_u8..8) {
        let file = made("1.2", [&[7; 1500], &[9; 3000]], Some(&key(1)));
        let mut other = file.clone();
        let at = at % file.len();
        other[at] ^= 1 << bit;
        // Fields of a tar header that nobody reads (mode, owner, time) may change: they are in no digest.
        if let Ok(version) = whole(&other) {
            let same = |file: &[u8]| Head::decode(file).unwrap().digest();
            prop_assert_eq!((version.to_string(), same(&other)), ("1.2".to_owned(), same(&file)));
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        let _ = whole(&bytes);
    }
}
