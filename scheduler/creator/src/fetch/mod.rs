//! Downloads into a cache folder: asked for their size, resumed, retried, verified.
//!
//! A complete file is named by its key, the digest of URL and checksum (of URL, validator and size where the
//! recipe gives no checksum). What has neither checksum nor validator may have changed unseen: it is downloaded anew
//! each time. Offline nothing is asked: what the cache has of an address is what there is. Called by `sizing` (sizes)
//! and `build` (content).

mod attempt;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use ureq::http::Response;
use ureq::{Body, http::HeaderMap};

use crate::StopFlag;
use crate::cache::{Cache, Held, Note, address_digest};
use crate::digest::Checksum;
use crate::http::{self, Backoff, Client};
use crate::recipe::Source;
use attempt::{BUFFER_SIZE, MAX_FRUITLESS_TRIES};

/// Why something cannot be had. URLs are shown without user, password and query.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The server answers, but not with this.
    #[error("{url}: the server answers {status}")]
    Refused {
        /// Where.
        url: String,
        /// Status and text.
        status: String,
    },
    /// No answer, or no byte, in several tries.
    #[error("{url}: given up after {tries} tries, the last one: {last}")]
    Unreachable {
        /// Where.
        url: String,
        /// How many.
        tries: u32,
        /// What happened.
        last: String,
    },
    /// Another size than the server or the recipe said.
    #[error("{url}: {actual} bytes, expected {expected}")]
    SizeDiffers {
        /// Where.
        url: String,
        /// By the recipe or the server's first answer.
        expected: u64,
        /// What came.
        actual: u64,
    },
    /// The bytes are not those the recipe means.
    #[error("{what}: its digest is {actual}, the recipe says {expected}")]
    ChecksumDiffers {
        /// Which file or URL.
        what: String,
        /// By the recipe.
        expected: String,
        /// What came.
        actual: String,
    },
    /// Nothing is asked, and it is not here.
    #[error("{url}: not in the cache, and this build is offline")]
    Offline {
        /// Where.
        url: String,
    },
    /// Small text that is larger than such text is.
    #[error("{url}: more than the {limit} bytes that are read of it")]
    TextTooLarge {
        /// Where.
        url: String,
        /// Bytes.
        limit: u64,
    },
    /// A file of this machine.
    #[error("{}: {action}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What failed.
        action: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The stop flag was raised.
    #[error("stopped")]
    Stopped,
}

impl FetchError {
    /// True when the same recipe will fail the same way.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Refused { .. }
            | Self::ChecksumDiffers { .. }
            | Self::SizeDiffers { .. }
            | Self::TextTooLarge { .. } => true,
            Self::File { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Self::Unreachable { .. } | Self::Offline { .. } | Self::Stopped => false,
        }
    }
}

pub(crate) fn file_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> FetchError {
    let path = path.to_owned();
    move |source| FetchError::File { path, action, source }
}

/// What a server says of a URL before its bytes are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Remote {
    pub size: Option<u64>,
    /// A strong ETag or a Last-Modified date: what `If-Range` takes.
    pub validator: Option<String>,
}

/// A download's name, its expectations, and where it is kept.
pub(crate) struct Wanted<'a> {
    pub url: &'a str,
    pub checksum: Option<&'a Checksum>,
    pub remote: Remote,
    /// Most bytes that are taken when nobody says how many there are.
    pub most: u64,
    /// Sent along; not to where a server sends on to.
    pub headers: &'a [(&'static str, String)],
}

/// Downloads with one client into one folder.
#[derive(Clone, Copy)]
pub(crate) struct Fetcher<'a> {
    pub client: &'a Client,
    pub cache: Cache<'a>,
    pub backoff: Backoff,
    pub stop: &'a StopFlag,
    /// Nothing is asked of any server.
    pub offline: bool,
}

impl Fetcher<'_> {
    /// A complete download that is known by its checksum.
    pub(crate) fn cached(&self, url: &str, checksum: Option<&Checksum>) -> Option<PathBuf> {
        let path = self.cache.path(&key(url, Some(checksum?), &Remote::default()));
        path.is_file().then_some(path)
    }

    /// The same, also where the recipe gives no checksum, once the server was asked.
    pub(crate) fn whole(&self, url: &str, checksum: Option<&Checksum>, remote: &Remote) -> Option<PathBuf> {
        let recognisable = checksum.is_some() || remote.validator.is_some() || self.offline;
        let path = self.cache.path(&key(url, checksum, remote));
        (recognisable && path.is_file()).then_some(path)
    }

    /// Asks for existence and size.
    pub(crate) fn ask(&self, url: &str) -> Result<Remote, FetchError> {
        if self.offline {
            let (_, note) = self.cache.newest(url).ok_or_else(|| FetchError::Offline { url: shown(url) })?;
            return Ok(Remote { size: note.size, validator: note.validator });
        }
        let mut last = String::new();
        for tries in 1..=MAX_FRUITLESS_TRIES {
            let answer = self.client.agent().head(url).call().and_then(|head| match head.status().as_u16() {
                // Some servers know no HEAD, presigned addresses refuse it: one byte tells the size too.
                400 | 403 | 405 | 501 => self.client.agent().get(url).header("range", "bytes=0-0").call(),
                _ => Ok(head),
            });
            if self.stop.is_stopped() {
                return Err(FetchError::Stopped);
            }
            match answer {
                Ok(response) if response.status().is_success() => return Ok(remote(&response)),
                Ok(mut response) => {
                    let status = response.status().as_u16();
                    last = http::refusal(&mut response);
                    if !http::is_transient(status) {
                        return Err(FetchError::Refused { url: shown(url), status: last });
                    }
                }
                Err(error) => last = error.to_string(),
            }
            if tries < MAX_FRUITLESS_TRIES && !http::wait(self.backoff.delay(tries), self.stop) {
                return Err(FetchError::Stopped);
            }
        }
        Err(FetchError::Unreachable { url: shown(url), tries: MAX_FRUITLESS_TRIES, last })
    }

    /// The challenge with which a server meets who has no token; `None` when it lets everybody in.
    pub(crate) fn challenge(&self, url: &str) -> Result<Option<String>, FetchError> {
        let mut last = String::new();
        for tries in 1..=MAX_FRUITLESS_TRIES {
            match self.client.agent().get(url).call() {
                Ok(response) if response.status().is_success() => return Ok(None),
                Ok(response) if response.status() == 401 => {
                    return Ok(Some(
                        header(response.headers(), "www-authenticate").unwrap_or_default().to_owned(),
                    ));
                }
                Ok(mut response) => {
                    let status = response.status().as_u16();
                    last = http::refusal(&mut response);
                    if !http::is_transient(status) {
                        return Err(FetchError::Refused { url: shown(url), status: last });
                    }
                }
                Err(_) if self.stop.is_stopped() => return Err(FetchError::Stopped),
                Err(error) => last = error.to_string(),
            }
            if tries < MAX_FRUITLESS_TRIES && !http::wait(self.backoff.delay(tries), self.stop) {
                return Err(FetchError::Stopped);
            }
        }
        Err(FetchError::Unreachable { url: shown(url), tries: MAX_FRUITLESS_TRIES, last })
    }

    /// Small text that is not kept anywhere.
    pub(crate) fn secret_text(&self, url: &str, limit: u64) -> Result<Vec<u8>, FetchError> {
        let mut file =
            tempfile::tempfile().map_err(file_error(Path::new("a nameless file"), "cannot be made"))?;
        let wanted = Wanted { url, checksum: None, remote: Remote::default(), most: limit, headers: &[] };
        let part = PathBuf::from("a nameless file");
        self.download(&wanted, &mut file, &part, &mut |_| ())?;
        let mut bytes = Vec::new();
        let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_end(&mut bytes));
        read.map(|_| bytes).map_err(file_error(&part, "cannot be read"))
    }

    /// Small text at an address, as it is now; offline, as it was when it was last asked for.
    pub(crate) fn text(
        &self,
        url: &str,
        limit: u64,
        headers: &[(&'static str, String)],
    ) -> Result<Vec<u8>, FetchError> {
        // Whatever validator it has: the newest is what counts, and only one is kept.
        let remote = Remote { size: None, validator: Some("text".into()) };
        let key = key(url, None, &remote);
        if self.offline {
            let held = self.cache.hold(&key)?.ok_or_else(|| FetchError::Offline { url: shown(url) })?;
            let mut bytes = Vec::new();
            let read = File::open(&held.path).and_then(|f| f.take(limit).read_to_end(&mut bytes));
            return read.map(|_| bytes).map_err(file_error(&held.path, "cannot be read"));
        }
        let _lock = self.lock(&key)?;
        let (mut file, part) = self.part(&key, false)?;
        let wanted = Wanted { url, checksum: None, remote: Remote::default(), most: limit, headers };
        match self.download(&wanted, &mut file, &part, &mut |_| ()) {
            Err(FetchError::SizeDiffers { .. }) => {
                return Err(FetchError::TextTooLarge { url: shown(url), limit });
            }
            done => done?,
        }
        let mut bytes = Vec::new();
        let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_end(&mut bytes));
        read.map_err(file_error(&part, "cannot be read"))?;
        self.cache.keep(&key, file, &note(&wanted))?;
        Ok(bytes)
    }

    /// The file with the URL's verified bytes, kept while it is held; `progress` hears how many there are.
    pub(crate) fn fetch(
        &self,
        wanted: &Wanted<'_>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Held, FetchError> {
        let key = key(wanted.url, wanted.checksum, &wanted.remote);
        let _lock = self.lock(&key)?;
        let recognisable = wanted.checksum.is_some() || wanted.remote.validator.is_some();
        if (recognisable || self.offline)
            && let Some(held) = self.cache.hold(&key)?
        {
            progress(held.path.metadata().map_or(0, |m| m.len()));
            return Ok(held);
        }
        if self.offline {
            return Err(FetchError::Offline { url: shown(wanted.url) });
        }
        let (mut file, part) = self.part(&key, recognisable)?;
        let resumed = file.metadata().is_ok_and(|m| m.len() > 0);
        self.download(wanted, &mut file, &part, progress)?;
        let mut verified = self.verify(wanted, &mut file, &part);
        if resumed && matches!(verified, Err(FetchError::ChecksumDiffers { .. })) {
            // The older part may be of another version or damaged: once more, from the start.
            file.set_len(0).map_err(file_error(&part, "cannot be emptied"))?;
            self.download(wanted, &mut file, &part, progress)?;
            verified = self.verify(wanted, &mut file, &part);
        }
        if let Err(error) = verified {
            // Kept, it would only fail again.
            let _ = std::fs::remove_file(&part);
            return Err(error);
        }
        self.cache.keep(&key, file, &note(wanted))
    }

    fn lock(&self, key: &str) -> Result<File, FetchError> {
        let folder = self.cache.folder;
        std::fs::create_dir_all(folder).map_err(file_error(folder, "cannot be made"))?;
        self.cache.lock(key, self.stop)
    }

    /// The file of a download under way, and its name.
    fn part(&self, key: &str, resumed: bool) -> Result<(File, PathBuf), FetchError> {
        let part = self.cache.path(key).with_extension("part");
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(!resumed).read(true).write(true).open(&part);
        Ok((file.map_err(file_error(&part, "cannot be opened"))?, part))
    }

    fn verify(&self, wanted: &Wanted<'_>, file: &mut File, part: &Path) -> Result<(), FetchError> {
        let Some(checksum) = wanted.checksum else { return Ok(()) };
        file.seek(SeekFrom::Start(0)).map_err(file_error(part, "cannot be sought"))?;
        verify(file, part, &shown(wanted.url), checksum, self.stop)
    }
}

/// Holds a whole file to a checksum.
pub(crate) fn verify(
    file: &mut File,
    path: &Path,
    what: &str,
    checksum: &Checksum,
    stop: &StopFlag,
) -> Result<(), FetchError> {
    let mut hasher = checksum.hasher();
    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        if stop.is_stopped() {
            return Err(FetchError::Stopped);
        }
        match file.read(&mut buffer).map_err(file_error(path, "cannot be read"))? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    checksum.compare(hasher).map_err(|actual| FetchError::ChecksumDiffers {
        what: what.to_owned(),
        expected: checksum.to_string(),
        actual,
    })
}

fn shown(url: &str) -> String {
    Source::Url(url.to_owned()).shown()
}

/// The name of a download in the cache.
fn key(url: &str, checksum: Option<&Checksum>, remote: &Remote) -> String {
    let version = match checksum {
        Some(checksum) => checksum.to_string(),
        None => format!("{:?} {:?}", remote.validator, remote.size),
    };
    blake3::hash(format!("{url}\n{version}").as_bytes()).to_hex().to_string()
}

fn note(wanted: &Wanted<'_>) -> Note {
    let Remote { size, validator } = wanted.remote.clone();
    Note { address: address_digest(wanted.url), url: shown(wanted.url), size, validator }
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// `bytes first-last/total`. **Source:** RFC 9110 §14.4.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let (range, total) = header(headers, "content-range")?.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()))
}

fn remote(response: &Response<Body>) -> Remote {
    let headers = response.headers();
    let size = match response.status().as_u16() {
        206 => content_range(headers).and_then(|r| r.1),
        _ => header(headers, "content-length").and_then(|l| l.parse().ok()),
    };
    let etag = header(headers, "etag").filter(|e| e.starts_with('"'));
    let validator = etag.or_else(|| header(headers, "last-modified")).map(str::to_owned);
    Remote { size, validator }
}
