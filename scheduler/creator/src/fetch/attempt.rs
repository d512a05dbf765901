//! The tries of one download: each asks for what is missing, and what follows from what comes.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use ureq::Body;
use ureq::http::Response;

use super::{FetchError, Fetcher, Wanted, content_range, file_error, shown};
use crate::http;

/// Tries in a row that bring no byte.
pub(super) const MAX_FRUITLESS_TRIES: u32 = 6;
/// Tries of one download, however much each brings: a server that cuts every 50 MB still gives 5 GB.
const MAX_TRIES: u32 = 100;
pub(super) const BUFFER_SIZE: usize = 256 * 1024;

enum Attempt {
    Complete,
    /// Worth another try.
    Cut(String),
}

impl Fetcher<'_> {
    pub(super) fn download(
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
        for (name, value) in wanted.headers {
            request = request.header(*name, value);
        }
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
}
