//! A first look at a card: is it locked, does it carry a passport of ours, does it hold somebody's data. Reads
//! only. The destructive probe for fake capacity is the card crate's and comes with real readers.

use std::os::unix::fs::FileExt;
use std::path::Path;

use cardshop_card::{
    CardError, DeviceIdentity, FailureNote, PassportError, ReadableCard, is_freshly_formatted,
    read_passport_of,
};
use cardshop_protocol::message::Remedy;

use crate::core::guard::shows_file_system;
use crate::core::{Failure, Finding, PassportFacts};

/// Bytes looked at for signs of a file system: up to ISO 9660's descriptor.
const LOOKED_AT: usize = 36 * 1024;

/// Looks at the card at `path`.
pub(crate) fn probe(path: &Path) -> (Finding, Option<DeviceIdentity>) {
    match look(path) {
        Ok((finding, identity)) => (finding, Some(identity)),
        Err(CardError::WriteProtected) => (Finding::Locked, None),
        Err(error) => {
            let (fault, remedy) = (error.fault(), error.remedy());
            (Finding::Failed(Failure { fault, remedy, note: None }), None)
        }
    }
}

fn look(path: &Path) -> Result<(Finding, DeviceIdentity), CardError> {
    let mut card = ReadableCard::open(path)?;
    let identity = card.facts().identity;
    if card.facts().read_only {
        return Ok((Finding::Locked, identity));
    }
    let (in_use, note) = match first_bytes(path) {
        Ok(bytes) => {
            let in_use = shows_file_system(&bytes) && !is_freshly_formatted(&mut card)?;
            (in_use, FailureNote::find(&bytes))
        }
        Err(error) => {
            let text = format!("the card's first bytes cannot be read: {error}");
            return Ok((Finding::Failed(Failure::new("io_error", text, Remedy::ReplaceCard)), identity));
        }
    };
    let passport = match read_passport_of(&mut card) {
        Ok(passport) => passport.map(|p| PassportFacts { uid: p.uid, order: p.order, copy: p.copy }),
        Err(PassportError::Damaged(why)) => {
            tracing::info!(%why, "a damaged passport counts as none");
            None
        }
        Err(PassportError::Card(error)) => return Err(error),
    };
    let cid = card.facts().cid.clone();
    Ok((Finding::Card { passport, in_use, note, cid }, identity))
}

fn first_bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = std::fs::File::open(path)?;
    let mut bytes = vec![0; LOOKED_AT];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(contents: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("card.img");
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(4 << 20).unwrap();
        file.write_all_at(contents, 0).unwrap();
        (folder, path)
    }

    #[test]
    fn a_blank_card_is_free_and_one_with_a_partition_table_is_in_use() {
        let (_folder, path) = card(&[]);
        let (finding, identity) = probe(&path);
        assert_eq!(finding, Finding::Card { passport: None, in_use: false, note: None, cid: None });
        assert_eq!(identity.unwrap().size, 4 << 20);
        let mut table = vec![0; 512];
        table[510..].copy_from_slice(&[0x55, 0xaa]);
        let (_folder, path) = card(&table);
        assert_eq!(probe(&path).0, Finding::Card { passport: None, in_use: true, note: None, cid: None });
    }

    #[test]
    fn a_card_that_is_gone_is_a_failure_with_a_remedy() {
        let (finding, identity) = probe(Path::new("/nonexistent/card"));
        assert!(matches!(finding, Finding::Failed(_)) && identity.is_none(), "{finding:?}");
    }
}
