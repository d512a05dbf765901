//! The `state` folder: who this appliance is (`key`), where it belongs (`member.json`), what it was to do last
//! (`desired.json`), and that only one agent works on it (`lock`). The journal in it is `outbox`'s. Files are replaced whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cardshop_protocol::keys;
use cardshop_protocol::message::Desired;
use ed25519_dalek::SigningKey;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::config::read_bounded;

/// Why the state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file or folder cannot be read or written.
    #[error("cannot use {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another agent works on this folder.
    #[error("another agent uses {}: stop it first", .0.display())]
    InUse(PathBuf),
    /// The key file does not hold a key. Removing it makes a new appliance.
    #[error("{} does not hold a key: restore it, or remove it to join as a new appliance", .0.display())]
    BadKey(PathBuf),
    /// The system has no randomness for a new key.
    #[error("no randomness for a new key: {0}")]
    NoRandomness(String),
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> StateError + '_ {
    move |source| StateError::Io { path: path.into(), source }
}

/// The folder, held against other agents until it is dropped.
#[derive(Debug)]
pub(crate) struct StateFolder {
    folder: PathBuf,
    _lock: Flock<File>,
}

/// Where the appliance belongs: written when it has joined, so that no restart needs a token again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Base address of the server.
    pub(crate) server: String,
    /// The site's public key, base64url: another one is another site.
    pub(crate) server_key: String,
    /// What people call the appliance.
    pub(crate) label: String,
    /// Id (not the secret) of the token it joined with: another one in the join file is a new wish to join.
    #[serde(default)]
    pub(crate) token: Option<String>,
    /// Where the broker listens, once approved.
    #[serde(default)]
    pub(crate) mqtt: Option<String>,
    /// PEM: CAs that the broker's certificate is to be of, if the site named any.
    #[serde(default)]
    pub(crate) mqtt_ca: Option<String>,
    /// The site's own CA, PEM, when the token it joined with named one: from then on nobody else is trusted.
    #[serde(default)]
    pub(crate) ca: Option<String>,
}

impl StateFolder {
    /// Makes the folder if it is missing and takes it. Waits up to `patience` for another agent to let go: one
    /// that was killed holds it until the kernel has taken it apart, with all its cards' buffers.
    ///
    /// # Errors
    /// `Io` or `InUse`.
    pub(crate) fn open(folder: &Path, patience: Duration) -> Result<Self, StateError> {
        fs::create_dir_all(folder).map_err(io_error(folder))?;
        let path = folder.join("lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = file.map_err(io_error(&path))?;
        let until = Instant::now() + patience;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Self { folder: folder.into(), _lock: lock }),
                Err(_) if Instant::now() >= until => return Err(StateError::InUse(folder.into())),
                Err((back, _)) => file = back,
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A file in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The appliance's key; made at the first start, readable by its owner only.
    ///
    /// # Errors
    /// `Io`, `BadKey` or `NoRandomness`.
    pub(crate) fn key(&self) -> Result<SigningKey, StateError> {
        let path = self.path("key");
        match read_bounded(&path) {
            Ok(text) => {
                let seed = decode_seed(text.trim()).ok_or_else(|| StateError::BadKey(path.clone()))?;
                Ok(SigningKey::from_bytes(&seed))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = keys::generate().map_err(|e| StateError::NoRandomness(e.to_string()))?;
                replace_file(&path, encode_seed(&key).as_bytes()).map_err(io_error(&path))?;
                Ok(key)
            }
            Err(error) => Err(io_error(&path)(error)),
        }
    }

    /// Where the appliance belongs; `None` before it has joined or when the file is damaged (it joins again).
    pub(crate) fn member(&self) -> Option<Member> {
        let text = read_bounded(&self.path("member.json")).ok()?;
        serde_json::from_str(&text).inspect_err(|error| tracing::warn!(%error, "member.json is damaged")).ok()
    }

    /// What was desired last, if that is known.
    pub(crate) fn desired(&self) -> Option<Desired> {
        let text = fs::read(self.path("desired.json")).ok()?;
        let read = serde_json::from_slice(&text);
        read.inspect_err(|error| tracing::warn!(%error, "desired.json is damaged")).ok()
    }

    /// Keeps what is desired for a start while nobody is reached. When that fails, such a start has no leases.
    pub(crate) fn keep_desired(&self, desired: &Desired) {
        let text = serde_json::to_vec(desired).expect("plain data has a JSON form");
        if let Err(error) = replace_file(&self.path("desired.json"), &text) {
            tracing::warn!(%error, "the leases are not kept for a restart");
        }
    }

    /// Remembers where the appliance belongs.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn remember(&self, member: &Member) -> Result<(), StateError> {
        if self.member().as_ref() == Some(member) {
            return Ok(());
        }
        let path = self.path("member.json");
        let text = serde_json::to_vec_pretty(member).expect("plain data has a JSON form");
        replace_file(&path, &text).map_err(io_error(&path))
    }
}

fn encode_seed(key: &SigningKey) -> String {
    use std::fmt::Write;
    key.to_bytes().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn decode_seed(text: &str) -> Option<[u8; 32]> {
    let byte = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    let bytes: Vec<u8> = (0..64).step_by(2).map(byte).collect::<Option<_>>()?;
    (text.len() == 64).then_some(())?;
    bytes.try_into().ok()
}

/// Writes a file so that after a power cut it is the old or the new one. Readable by its owner only.
pub(crate) fn replace_file(path: &Path, contents: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_folder_of(path)
}

/// Makes a rename or a new name in a folder durable.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_key_is_made_once_and_only_its_owner_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::open(&folder.path().join("state"), Duration::ZERO).unwrap();
        let key = state.key().unwrap();
        assert_eq!(state.key().unwrap().to_bytes(), key.to_bytes());
        let mode = fs::metadata(state.path("key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(state.path("key"), "torn").unwrap();
        assert!(
            matches!(state.key(), Err(StateError::BadKey(_))),
            "a damaged key is never replaced silently"
        );
    }

    #[test]
    fn two_agents_cannot_share_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let first = StateFolder::open(folder.path(), Duration::ZERO).unwrap();
        assert!(matches!(StateFolder::open(folder.path(), Duration::ZERO), Err(StateError::InUse(_))));
        drop(first);
        assert!(StateFolder::open(folder.path(), Duration::ZERO).is_ok());
    }

    #[test]
    fn membership_survives_a_restart_and_damage_means_joining_again() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::open(folder.path(), Duration::ZERO).unwrap();
        assert_eq!(state.member(), None);
        let member = Member {
            server: "http://127.0.0.1:1".into(),
            server_key: "k".into(),
            label: "bench".into(),
            token: Some("abc123".into()),
            mqtt: None,
            mqtt_ca: None,
            ca: None,
        };
        state.remember(&member).unwrap();
        assert_eq!(state.member(), Some(member));
        fs::write(state.path("member.json"), "{").unwrap();
        assert_eq!(state.member(), None);
    }
}
