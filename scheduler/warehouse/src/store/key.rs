//! The warehouse's own key, which signs the index of every complete image. Made at first start, kept in
//! `index.key`, readable by its owner only. Called when the store opens.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ed25519_dalek::SigningKey;

use super::disk;
use super::error::StoreError;

const OWNER_ONLY: u32 = 0o600;

/// Reads the key at `path`, or makes it.
pub(super) fn open(path: &Path) -> Result<SigningKey, StoreError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return make(path),
        Err(e) => return Err(StoreError::io("read", path)(e)),
    };
    // A copy restored by hand may have come back readable by everybody.
    fs::set_permissions(path, fs::Permissions::from_mode(OWNER_ONLY))
        .map_err(StoreError::io("protect", path))?;
    let secret = bytes.try_into().map_err(|_| StoreError::BadKey(path.to_owned()))?;
    Ok(SigningKey::from_bytes(&secret))
}

fn make(path: &Path) -> Result<SigningKey, StoreError> {
    let key = cardshop_protocol::keys::generate().map_err(|_| StoreError::NoRandomness)?;
    disk::replace_with_mode(path, &key.to_bytes(), OWNER_ONLY).map_err(StoreError::io("write", path))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_for_its_owner_and_a_torn_one_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index.key");
        let first = open(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(open(&path).unwrap().to_bytes(), first.to_bytes());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, b"short").unwrap();
        assert!(matches!(open(&path), Err(StoreError::BadKey(_))));
        assert_eq!(fs::read(&path).unwrap(), b"short");
    }
}
