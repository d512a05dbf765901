//! Downloads into a cache folder: asked for their size, resumed, retried, verified.
//!
//! A complete file is named by its key, the digest of URL and checksum (of URL, validator and size where the
//! recipe gives no checksum); `KEY.part` is one under way. What has neither checksum nor validator may have
//! changed unseen: it is downloaded anew each time. Several creators may share the folder: `KEY.lock` is held while one of
//! them downloads. It is called by `sizing` (sizes) and `build` (content).

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::http::Response;
use ureq::{Body, http::HeaderMap};

use crate::StopFlag;
use crate::digest::Checksum;
use crate::http::{self, Backoff, Client};
use crate::recipe::Source;

/// Tries in a row that bring no byte.
const MAX_FRUITLESS_TRIES: u32 = 6;
/// Tries of one download, however much each brings: a server that cuts every 50 MB still gives 5 GB.
const MAX_TRIES: u32 = 100;
const BUFFER_SIZE: usize = 256 * 1024;

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
            Self::Refused { .. } | Self::ChecksumDiffers { .. } | Self::SizeDiffers { .. } => true,
            Self::File { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Self::Unreachable { .. } | Self::Stopped => false,
        }
    }
}

fn file_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> FetchError {
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
}

/// Downloads with one client into one folder.
pub(crate) struct Fetcher<'a> {
    pub client: &'a Client,
    pub folder: &'a Path,
    pub backoff: Backoff,
    pub stop: &'a StopFlag,
}

enum Attempt {
    Complete,
    /// Worth another try.
    Cut(String),
}

impl Fetcher<'_> {
    /// A complete download that is known by its checksum.
    pub(crate) fn cached(&self, url: &str, checksum: Option<&Checksum>) -> Option<PathBuf> {
        let path = self.folder.join(key(&Wanted {
            url,
            checksum: Some(checksum?),
            remote: Remote::default(),
            most: 0,
        }));
        path.is_file().then_some(path)
    }

    /// Asks for existence and size.
    pub(crate) fn ask(&self, url: &str) -> Result<Remote, FetchError> {
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

    /// The file with the URL's verified bytes; `progress` hears how many there are.
    pub(crate) fn fetch(
        &self,
        wanted: &Wanted<'_>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<PathBuf, FetchError> {
        let path = self.folder.join(key(wanted));
        let part = path.with_extension("part");
        std::fs::create_dir_all(self.folder).map_err(file_error(self.folder, "cannot be made"))?;
        let _lock = self.lock(&path.with_extension("lock"))?;
        let recognisable = wanted.checksum.is_some() || wanted.remote.validator.is_some();
        if recognisable && let Ok(meta) = path.metadata() {
            progress(meta.len());
            return Ok(path);
        }
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(!recognisable)
            .read(true)
            .write(true)
            .open(&part)
            .map_err(file_error(&part, "cannot be opened"))?;
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
        file.sync_all().map_err(file_error(&part, "cannot be synced"))?;
        std::fs::rename(&part, &path).map_err(file_error(&path, "cannot be renamed into"))?;
        Ok(path)
    }

    fn lock(&self, path: &Path) -> Result<File, FetchError> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        let file = file.map_err(file_error(path, "cannot be opened"))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if http::wait(Duration::from_millis(200), self.stop) => {}
                Err(TryLockError::WouldBlock) => return Err(FetchError::Stopped),
                Err(TryLockError::Error(source)) => return Err(file_error(path, "cannot be locked")(source)),
            }
        }
    }

    fn download(
        &self,
        wanted: &Wanted<'_>,
        file: &mut File,
        part: &Path,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), FetchError> {
        let mut fruitless = 0;
        let mut last = String::new();
        for tries in 1..=MAX_TRIES {
            let before = file.metadata().map_err(file_error(part, "cannot be asked"))?.len();
            match self.attempt(wanted, file, part, before, progress)? {
                Attempt::Complete => return Ok(()),
                Attempt::Cut(reason) => last = reason,
            }
            let after = file.metadata().map_err(file_error(part, "cannot be asked"))?.len();
            fruitless = if after > before { 1 } else { fruitless + 1 };
            tracing::debug!(url = shown(wanted.url), tries, after, last, "download cut");
            if fruitless >= MAX_FRUITLESS_TRIES {
                break;
            }
            if !http::wait(self.backoff.delay(fruitless), self.stop) {
                return Err(FetchError::Stopped);
            }
        }
        Err(FetchError::Unreachable { url: shown(wanted.url), tries: fruitless, last })
    }

    /// One request for what is missing after `have` bytes.
    fn attempt(
        &self,
        wanted: &Wanted<'_>,
        file: &mut File,
        part: &Path,
        have: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Attempt, FetchError> {
        if self.stop.is_stopped() {
            return Err(FetchError::Stopped);
        }
        if have > 0 && Some(have) == wanted.remote.size {
            return Ok(Attempt::Complete);
        }
        let mut request = self.client.agent().get(wanted.url);
        if have > 0 {
            request = request.header("range", format!("bytes={have}-"));
            if let Some(validator) = &wanted.remote.validator {
                request = request.header("if-range", validator);
            }
        }
        let mut response = match request.call() {
            Ok(response) => response,
            Err(_) if self.stop.is_stopped() => return Err(FetchError::Stopped),
            Err(error) => return Ok(Attempt::Cut(error.to_string())),
        };
        let status = response.status().as_u16();
        let start = match status {
            200 => 0,
            206 if content_range(response.headers()).is_some_and(|r| r.0 == have) => have,
            206 | 416 => {
                file.set_len(0).map_err(file_error(part, "cannot be emptied"))?;
                return Ok(Attempt::Cut("the server cannot resume it".into()));
            }
            _ => {
                let text = http::refusal(&mut response);
                if http::is_transient(status) {
                    return Ok(Attempt::Cut(text));
                }
                return Err(FetchError::Refused { url: shown(wanted.url), status: text });
            }
        };
        file.set_len(start).map_err(file_error(part, "cannot be cut"))?;
        file.seek(SeekFrom::Start(start)).map_err(file_error(part, "cannot be sought"))?;
        self.receive(wanted, response, file, part, start, progress)
    }

    fn receive(
        &self,
        wanted: &Wanted<'_>,
        response: Response<Body>,
        file: &mut File,
        part: &Path,
        start: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Attempt, FetchError> {
        let mut reader = response.into_body().into_reader();
        let mut buffer = vec![0; BUFFER_SIZE];
        let mut at = start;
        loop {
            if self.stop.is_stopped() {
                return Err(FetchError::Stopped);
            }
            let count = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) => return Ok(Attempt::Cut(error.to_string())),
            };
            at += count as u64;
            let expected = wanted.remote.size.unwrap_or(wanted.most);
            if at > expected {
                return Err(FetchError::SizeDiffers { url: shown(wanted.url), expected, actual: at });
            }
            file.write_all(&buffer[..count]).map_err(file_error(part, "cannot be written"))?;
            progress(at);
        }
        match wanted.remote.size {
            Some(size) if at < size => Ok(Attempt::Cut(format!("ended at {at} of {size} bytes"))),
            _ => Ok(Attempt::Complete),
        }
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
fn key(wanted: &Wanted<'_>) -> String {
    let version = match wanted.checksum {
        Some(checksum) => checksum.to_string(),
        None => format!("{:?} {:?}", wanted.remote.validator, wanted.remote.size),
    };
    blake3::hash(format!("{}\n{version}", wanted.url).as_bytes()).to_hex().to_string()
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
