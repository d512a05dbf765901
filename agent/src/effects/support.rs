//! A file for whoever helps: log, kernel's log, settings, slots, what was desired, as one tar.gz without secrets. What is in
//! it goes through [`redact`]; the key and the journal are not in it at all.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use nix::fcntl::OFlag;

use super::logs;
use super::state::StateFolder;
use crate::core::redact::redact;

/// Largest file that goes in, bytes: the newest of it.
const MAX_FILE: u64 = 256 * 1024;
/// Bytes of the log in memory: all of it.
const LOG_SIZE: usize = 64 * 1024;
/// Records of the kernel's log that are read: more than its buffer holds.
const MAX_RECORDS: usize = 20_000;
/// Files of the state folder that may go in: what they say is no secret, but for what is taken out.
const STATE_FILES: [&str; 8] =
    ["desired.json", "member.json", "slots.json", "update.json", "log/0", "log/1", "log/2", "log/3"];

/// What it is made of.
pub(crate) struct Support<'a> {
    pub(crate) state: &'a StateFolder,
    /// The join file; `NETWORK.TXT` lies beside it.
    pub(crate) join: &'a Path,
    /// The settings file's text, where there is one.
    pub(crate) settings: Option<&'a Path>,
    /// Secrets that this process knows and no file has.
    pub(crate) known: Vec<String>,
    /// A page about the appliance as it is now.
    pub(crate) about: String,
}

impl Support<'_> {
    /// The whole file.
    ///
    /// # Errors
    /// What the packer says.
    pub(crate) fn bundle(&self) -> io::Result<Vec<u8>> {
        let mut known = self.known.clone();
        known.extend(read_newest(&self.state.path("key")));
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
        let mut put = |name: &str, text: &str| -> io::Result<()> {
            let text = redact(text, &known);
            let mut header = tar::Header::new_ustar();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            tar.append_data(&mut header, format!("support/{name}"), text.as_bytes())
        };
        put("about.txt", &self.about)?;
        put("log.txt", &logs::ring().newest(LOG_SIZE))?;
        put("kernel.txt", &kernel_log(Path::new("/dev/kmsg")))?;
        for name in STATE_FILES {
            if let Some(text) = read_newest(&self.state.path(name)) {
                put(&format!("state/{name}"), &text)?;
            }
        }
        let network = self.join.with_file_name("NETWORK.TXT");
        for (name, path) in [
            ("JOIN.TXT", Some(self.join)),
            ("NETWORK.TXT", Some(&*network)),
            ("agent.toml", self.settings),
            ("mounts.txt", Some(Path::new("/proc/mounts"))),
            ("memory.txt", Some(Path::new("/proc/meminfo"))),
        ] {
            if let Some(text) = path.and_then(read_newest) {
                put(name, &text)?;
            }
        }
        tar.into_inner()?.finish()
    }
}

/// The newest of a file, as text.
fn read_newest(path: &Path) -> Option<String> {
    let mut file = fs::File::open(path).ok()?;
    let size = file.metadata().ok()?.len();
    if size > MAX_FILE {
        io::Seek::seek(&mut file, io::SeekFrom::Start(size - MAX_FILE)).ok()?;
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// The kernel's log: one record a read, until there is none.
fn kernel_log(device: &Path) -> String {
    let opened = fs::OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(device);
    let Ok(mut file) = opened else { return String::new() };
    let (mut text, mut record) = (String::new(), vec![0; 8192]);
    for _ in 0..MAX_RECORDS {
        match file.read(&mut record) {
            Ok(count @ 1..) => text.push_str(&String::from_utf8_lossy(&record[..count])),
            // Overwritten while it was read: the next one is there.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            _ => break,
        }
    }
    let start = text.len().saturating_sub(MAX_FILE as usize);
    let start = (start..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    text[start..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Random words in the spellings that secrets have.
    fn secret(n: u8) -> String {
        let mut bytes = [0; 16];
        blake3::Hasher::new().update(&[n]).finalize_xof().fill(&mut bytes);
        match n % 3 {
            0 => data_encoding::HEXLOWER.encode(&bytes),
            1 => data_encoding::BASE64URL_NOPAD.encode(&bytes),
            _ => format!("pw{n}"),
        }
    }

    #[test]
    fn no_secret_that_lies_in_any_file_of_the_appliance_is_in_the_support_file() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::open(&folder.path().join("state"), Duration::ZERO).unwrap();
        state.key().unwrap();
        fs::create_dir(state.path("log")).unwrap();
        // In every file that goes in, once bare and long, once short behind a telling word or in an address.
        let (join, settings) = (folder.path().join("JOIN.TXT"), folder.path().join("agent.toml"));
        let files = STATE_FILES.iter().map(|name| state.path(name));
        let files: Vec<_> =
            files.chain([join.clone(), settings.clone(), folder.path().join("NETWORK.TXT")]).collect();
        let mut secrets = vec![fs::read_to_string(state.path("key")).unwrap().trim().to_owned()];
        for (n, path) in files.iter().enumerate() {
            let n = n as u8 * 6;
            let (long, other, short, behind) = (secret(n), secret(n + 1), secret(n + 2), secret(n + 5));
            let text = format!(
                "plain line {n}\nsays {long} and {other}\npassword = \"{short}\"\nproxy http://me:{behind}@p.example/\n"
            );
            fs::write(path, text).unwrap();
            secrets.extend([long, other, short, behind]);
        }
        let known = vec!["knownword".to_owned()];
        let about = format!("about with knownword and {}", secrets[0]);
        let support = Support { state: &state, join: &join, settings: Some(&settings), known, about };
        let bytes = support.bundle().unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&bytes[..]));
        let mut names = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            for secret in secrets.iter().chain(&support.known) {
                assert!(!text.contains(secret.as_str()), "{secret} in {name}: {text}");
            }
            names.push(name);
        }
        for name in ["about.txt", "log.txt", "state/desired.json", "state/log/3", "JOIN.TXT", "agent.toml"] {
            assert!(names.contains(&format!("support/{name}")), "{name} of {names:?}");
        }
        assert!(!names.iter().any(|name| name.contains("key") || name.contains("outbox")), "{names:?}");
    }
}
