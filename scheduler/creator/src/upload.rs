//! Puts an image and its index into a warehouse: the index first; if the image is there already nothing else, else its
//! chunks that are not all zero (kind `packed`), in pieces, resumed after every error from the offset the warehouse tells.
//!
//! ```text
//! index: POST ─ PATCH ─▶ HEAD /images/{id} ─200─▶ done
//!                              └404─▶ image: POST ─▶ PATCH … PATCH ─▶ HEAD /images/{id} ─200─▶ done
//! any error ─▶ wait ─▶ HEAD /files/{upload} ─▶ PATCH from there    404 there ─▶ POST again
//! bytes refused ─▶ once more from the offset told ─▶ refused again: an error
//! ```
//!
//! An [`Uploader`] remembers its uploads, so that [`Uploader::run`] after an error goes on where it was.
//! **Source:** tus 1.0 (core and creation), <https://tus.io/protocols/resumable-upload>.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cardshop_protocol::ids::TaskId;
use cardshop_protocol::index::Index;
use ureq::Body;
use ureq::http::Response;
use ureq::tls::RootCerts;

use crate::StopFlag;
use crate::early::Growing;
use crate::http::{self, Backoff, Client};

/// Bytes of one PATCH, and of memory.
const PIECE_SIZE: u64 = 16 * 1024 * 1024;
/// Tries in a row that move nothing.
const MAX_FRUITLESS_TRIES: u32 = 8;
/// Uploads that may be begun anew because the warehouse forgot them.
const MAX_CREATIONS: u32 = 4;
/// Times that refused bytes are sent again.
const MAX_SETBACKS: u32 = 1;
/// Longest name sent, characters. **Source:** the warehouse's limit.
const MAX_NAME_LENGTH: usize = 200;

/// Why an image is not in the warehouse.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The token would travel in the open.
    #[error("the warehouse's address is refused: {0}")]
    Address(String),
    /// No answer, or no progress: worth another try later.
    #[error("the warehouse cannot be reached, {tries} tries, the last one: {last}")]
    Unreachable {
        /// How many in a row.
        tries: u32,
        /// What happened.
        last: String,
    },
    /// It says no.
    #[error("the warehouse refuses the {what}: {answer}")]
    Refused {
        /// Index or image.
        what: &'static str,
        /// Status and text.
        answer: String,
    },
    /// It took every byte and shows no image.
    #[error("the warehouse has all bytes and does not show the image: {0}")]
    NotShown(String),
    /// The image's file.
    #[error("{}: cannot be read", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The stop flag was raised.
    #[error("stopped")]
    Stopped,
}

/// What to put where.
pub struct Uploader<'a> {
    warehouse: String,
    task: TaskId,
    name: String,
    path: &'a Path,
    index: &'a Index,
    backoff: Backoff,
    /// Whose certificate the warehouse is to have.
    pub(crate) roots: RootCerts,
    /// Addresses of the uploads under way: index, image.
    places: [Option<String>; 2],
}

/// What is sent.
#[derive(Clone, Copy)]
enum Content<'a> {
    Index(&'a [u8]),
    Image(&'a File, u64),
    Packed(&'a File, &'a Packed<'a>),
    /// An image that is still being built, and its size.
    Growing(&'a Growing, u64),
}

/// The chunks of an image that travel: those that are not all zero, in the order of its index.
struct Packed<'a> {
    index: &'a Index,
    chunks: Vec<usize>,
}

impl<'a> Packed<'a> {
    fn of(index: &'a Index) -> Self {
        Self { index, chunks: index.travelling().collect() }
    }

    fn size(&self) -> u64 {
        let length = |chunk: &usize| {
            let range = self.index.chunk_range(*chunk);
            range.end - range.start
        };
        self.chunks.iter().map(length).sum()
    }

    /// Reads the bytes at `offset` of the upload; they are there.
    fn read(&self, file: &File, mut to: &mut [u8], mut offset: u64) -> io::Result<()> {
        let chunk_size = u64::from(self.index.chunk_size());
        while !to.is_empty() {
            let range = self.index.chunk_range(self.chunks[(offset / chunk_size) as usize]);
            let from = range.start + offset % chunk_size;
            let (now, later) = to.split_at_mut(to.len().min((range.end - from) as usize));
            file.read_exact_at(now, from)?;
            offset += now.len() as u64;
            to = later;
        }
        Ok(())
    }
}

impl Content<'_> {
    fn kind(&self) -> &'static str {
        match self {
            Self::Index(_) => "index",
            Self::Image(..) | Self::Growing(..) => "image",
            Self::Packed(..) => "packed",
        }
    }
    fn size(&self) -> u64 {
        match self {
            Self::Index(bytes) => bytes.len() as u64,
            Self::Image(_, size) | Self::Growing(_, size) => *size,
            Self::Packed(_, packed) => packed.size(),
        }
    }
    fn piece(&self, offset: u64, buffer: &mut Vec<u8>) -> io::Result<()> {
        let size = (self.size() - offset).min(PIECE_SIZE);
        buffer.resize(size as usize, 0);
        match self {
            Self::Index(bytes) => buffer.copy_from_slice(&bytes[offset as usize..][..size as usize]),
            Self::Image(file, _) => file.read_exact_at(buffer, offset)?,
            Self::Packed(file, packed) => packed.read(file, buffer, offset)?,
            Self::Growing(growing, _) => {
                let Some((file, _)) = growing.wait_for(offset + size) else {
                    return Err(io::Error::new(
                        io::ErrorKind::Interrupted,
                        "the upload is not needed any more",
                    ));
                };
                file.read_exact_at(buffer, offset)?;
            }
        }
        Ok(())
    }
}

/// What a request came to.
enum Step {
    /// An upload was begun at this address.
    Begun(String),
    /// The warehouse has this many bytes.
    Has(u64),
    /// It knows no such upload.
    Forgotten,
    /// It may be otherwise later.
    Later(String),
    /// It refuses these bytes.
    BadBytes(String),
    /// It refuses for good.
    No(String),
}

impl<'a> Uploader<'a> {
    /// An upload of `index` and the image at `path` for a task, to the warehouse at `warehouse`.
    ///
    /// # Errors
    /// `Address` when that is neither https nor on this machine.
    pub fn new(
        warehouse: &str,
        task: TaskId,
        name: &str,
        path: &'a Path,
        index: &'a Index,
        backoff: Backoff,
    ) -> Result<Self, UploadError> {
        http::check_address(warehouse).map_err(UploadError::Address)?;
        let name = name_of(name);
        let warehouse = warehouse.trim_end_matches('/').to_owned();
        Ok(Self {
            warehouse,
            task,
            name,
            path,
            index,
            backoff,
            roots: RootCerts::WebPki,
            places: [None, None],
        })
    }

    /// Trusts a warehouse with a certificate of one of these.
    pub fn set_roots(&mut self, roots: RootCerts) {
        self.roots = roots;
    }

    /// Uploads what the warehouse does not have. `token` gives the newest upload token for each request;
    /// `progress` hears bytes that are there and how many travel. To be called again after `Unreachable`.
    ///
    /// # Errors
    /// [`UploadError`].
    pub fn run(
        &mut self,
        token: &dyn Fn() -> String,
        stop: &StopFlag,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), UploadError> {
        let client = Client::new(stop, self.roots.clone());
        let size = self.index.image_size();
        let mut session = Session { client: &client, token, stop, warehouse: &self.warehouse };
        let metadata = |kind: &str| {
            let id = self.index.id().to_string();
            metadata(&[
                ("kind", kind),
                ("task", &self.task.to_string()),
                ("name", &self.name),
                ("image", &id),
            ])
        };
        let encoded = self.index.encode();
        let index = Content::Index(&encoded);
        session.put(index, &metadata("index"), &mut self.places[0], self.backoff, &mut |_| ())?;
        if session.shown(self.index, self.backoff)?.is_none() {
            progress(size, size);
            return Ok(());
        }
        let file_error = |source| UploadError::File { path: self.path.to_owned(), source };
        let file = File::open(self.path).map_err(file_error)?;
        let packed = Packed::of(self.index);
        // An upload has at least one byte, and where no chunk is zero there is nothing to pack.
        let image = match packed.size() {
            0 => Content::Image(&file, size),
            travels if travels == size => Content::Image(&file, size),
            _ => Content::Packed(&file, &packed),
        };
        let (size, metadata) = (image.size(), metadata(image.kind()));
        session
            .put(image, &metadata, &mut self.places[1], self.backoff, &mut |done| progress(done, size))
            .map_err(|e| self.named(e))?;
        match session.shown(self.index, self.backoff)? {
            None => Ok(()),
            Some(answer) => {
                // The next run starts over: these bytes led nowhere.
                self.places = [None, None];
                Err(UploadError::NotShown(answer))
            }
        }
    }

    fn named(&self, error: UploadError) -> UploadError {
        match error {
            UploadError::File { source, .. } => UploadError::File { path: self.path.to_owned(), source },
            other => other,
        }
    }
}

fn name_of(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(MAX_NAME_LENGTH).collect()
}

fn metadata(pairs: &[(&str, &str)]) -> String {
    let encoded: Vec<_> =
        pairs.iter().map(|(key, value)| format!("{key} {}", STANDARD.encode(value))).collect();
    encoded.join(",")
}

/// Where an image goes that is still being built.
pub struct EarlyUpload<'a> {
    /// Address of the warehouse.
    pub warehouse: &'a str,
    /// For which task.
    pub task: TaskId,
    /// Of the image.
    pub name: &'a str,
    /// Between tries.
    pub backoff: Backoff,
    /// Whose certificate the warehouse is to have.
    pub roots: RootCerts,
}

impl EarlyUpload<'_> {
    /// Uploads an image as it grows, to its end. What ends it before takes what was uploaded away again.
    ///
    /// # Errors
    /// [`UploadError`]; the image is to go the usual way then.
    pub fn run(&self, growing: &Growing, token: &dyn Fn() -> String) -> Result<(), UploadError> {
        http::check_address(self.warehouse).map_err(UploadError::Address)?;
        let Some((_, size)) = growing.wait_for(1) else { return Err(UploadError::Stopped) };
        let warehouse = self.warehouse.trim_end_matches('/');
        let client = Client::new(&growing.stop, self.roots.clone());
        let mut session = Session { client: &client, token, stop: &growing.stop, warehouse };
        let (task, name) = (self.task.to_string(), name_of(self.name));
        let metadata = metadata(&[("kind", "image"), ("task", &task), ("name", &name)]);
        let (mut place, content) = (None, Content::Growing(growing, size));
        let mut note = |sent| growing.note_sent(sent);
        let done = session.put(content, &metadata, &mut place, self.backoff, &mut note);
        if let (Err(_), Some(place)) = (&done, place) {
            // Room at the warehouse; unheard, the upload expires there.
            let client = Client::new(&StopFlag::new(), self.roots.clone());
            let session = Session { client: &client, token, stop: &growing.stop, warehouse };
            let _ = session.head(client.agent().delete(&place)).call();
        }
        done
    }
}

struct Session<'a> {
    client: &'a Client,
    token: &'a dyn Fn() -> String,
    stop: &'a StopFlag,
    warehouse: &'a str,
}

impl Session<'_> {
    /// `None` when the warehouse shows the image, else its answer.
    fn shown(&mut self, index: &Index, backoff: Backoff) -> Result<Option<String>, UploadError> {
        let url = format!("{}/images/{}", self.warehouse, index.id());
        let mut last = String::new();
        for tries in 1..=MAX_FRUITLESS_TRIES {
            let answer = self.client.agent().head(&url).header("authorization", self.bearer()).call();
            match answer {
                Ok(response) if response.status().is_success() => return Ok(None),
                Ok(response) if !retried(response.status().as_u16()) => {
                    return Ok(Some(response.status().to_string()));
                }
                Ok(response) => last = response.status().to_string(),
                Err(error) => last = error.to_string(),
            }
            self.wait(backoff, tries)?;
        }
        Err(UploadError::Unreachable { tries: MAX_FRUITLESS_TRIES, last })
    }

    fn put(
        &mut self,
        content: Content<'_>,
        metadata: &str,
        place: &mut Option<String>,
        backoff: Backoff,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), UploadError> {
        let what = content.kind();
        let refused = |answer| UploadError::Refused { what, answer };
        let (mut creations, mut setbacks, mut fruitless) = (0, 0, 0);
        let mut best = 0;
        // The offset the warehouse told; unknown after an error.
        let mut offset = None;
        let mut buffer = Vec::new();
        loop {
            if self.stop.is_stopped() {
                return Err(UploadError::Stopped);
            }
            let step = match (place.as_deref(), offset) {
                (None, _) if creations == MAX_CREATIONS => {
                    return Err(refused(format!("it forgot the upload {creations} times")));
                }
                (None, _) => {
                    creations += 1;
                    self.create(content.size(), metadata)
                }
                (Some(url), None) => self.ask(url),
                (Some(_), Some(at)) if at == content.size() => return Ok(()),
                (Some(url), Some(at)) => {
                    content
                        .piece(at, &mut buffer)
                        .map_err(|source| UploadError::File { path: PathBuf::new(), source })?;
                    self.send(url, at, &buffer)
                }
            };
            match step {
                Step::Begun(url) => (*place, offset) = (Some(url), Some(0)),
                Step::Has(at) if at > content.size() => {
                    return Err(refused(format!("it has {at} bytes of {}", content.size())));
                }
                Step::Has(at) => {
                    if at > best {
                        (best, fruitless) = (at, 0);
                    }
                    progress(at);
                    offset = Some(at);
                }
                Step::Forgotten => (*place, offset) = (None, None),
                Step::Later(last) => {
                    fruitless += 1;
                    tracing::debug!(what, last, fruitless, "upload interrupted");
                    // The creation itself was not heard, or not answered: it may be tried again.
                    creations -= u32::from(place.is_none());
                    if fruitless == MAX_FRUITLESS_TRIES {
                        return Err(UploadError::Unreachable { tries: fruitless, last });
                    }
                    self.wait(backoff, fruitless)?;
                    offset = None;
                }
                Step::BadBytes(answer) if setbacks == MAX_SETBACKS => return Err(refused(answer)),
                Step::BadBytes(answer) => {
                    tracing::warn!(what, answer, "the warehouse refuses bytes: sent once more");
                    setbacks += 1;
                    offset = None;
                }
                Step::No(answer) => return Err(refused(answer)),
            }
        }
    }

    fn create(&self, size: u64, metadata: &str) -> Step {
        let request = self.client.agent().post(format!("{}/files", self.warehouse));
        let request = self.head(request).header("upload-length", size).header("upload-metadata", metadata);
        match request.send_empty() {
            Ok(mut response) if response.status() == 201 => match self.location(&response) {
                Some(url) => Step::Begun(url),
                None => Step::No(format!("no location of its own: {}", http::refusal(&mut response))),
            },
            Ok(response) => refusal(response),
            Err(error) => Step::Later(error.to_string()),
        }
    }

    fn ask(&self, url: &str) -> Step {
        match self.head(self.client.agent().head(url)).call() {
            Ok(response) if response.status().is_success() => offset_of(&response),
            Ok(response) => gone(response),
            Err(error) => Step::Later(error.to_string()),
        }
    }

    fn send(&self, url: &str, offset: u64, bytes: &[u8]) -> Step {
        let request = self.head(self.client.agent().patch(url)).header("upload-offset", offset);
        match request.header("content-type", "application/offset+octet-stream").send(bytes) {
            Ok(response) if response.status().is_success() => offset_of(&response),
            // The bytes differ from the index, or came damaged.
            Ok(mut response) if matches!(response.status().as_u16(), 422 | 460) => {
                Step::BadBytes(http::refusal(&mut response))
            }
            Ok(mut response) if response.status() == 409 => Step::Later(http::refusal(&mut response)),
            Ok(response) => gone(response),
            Err(error) => Step::Later(error.to_string()),
        }
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", (self.token)())
    }

    fn head<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        request.header("tus-resumable", "1.0.0").header("authorization", self.bearer())
    }

    /// Where an upload was begun, if that is on the warehouse: the token goes nowhere else.
    fn location(&self, response: &Response<Body>) -> Option<String> {
        let location = response.headers().get("location")?.to_str().ok()?;
        let (scheme, rest) = self.warehouse.split_once("://")?;
        let origin = format!("{scheme}://{}", rest.split('/').next()?);
        match location.strip_prefix(&origin) {
            Some(path) if path.starts_with('/') => Some(location.to_owned()),
            Some(_) => None,
            None => (location.starts_with('/') && !location.starts_with("//")).then(|| origin + location),
        }
    }

    fn wait(&self, backoff: Backoff, failures: u32) -> Result<(), UploadError> {
        if http::wait(backoff.delay(failures), self.stop) { Ok(()) } else { Err(UploadError::Stopped) }
    }
}

/// 401 is worth another try: the token may have ended, and the next report brings a new one. 423: somebody
/// else's request for the same upload is still under way, most likely our own that was cut.
fn retried(status: u16) -> bool {
    http::is_transient(status) || matches!(status, 401 | 423)
}

fn refusal(mut response: Response<Body>) -> Step {
    let status = response.status().as_u16();
    let text = http::refusal(&mut response);
    if retried(status) { Step::Later(text) } else { Step::No(text) }
}

fn gone(response: Response<Body>) -> Step {
    if matches!(response.status().as_u16(), 404 | 410) { Step::Forgotten } else { refusal(response) }
}

fn offset_of(response: &Response<Body>) -> Step {
    let offset = response.headers().get("upload-offset").and_then(|o| o.to_str().ok()?.parse().ok());
    offset.map_or_else(|| Step::No("an answer without upload-offset".into()), Step::Has)
}
