//! An image at an address, read front to back by range requests: a cut or slow one is asked again from where it
//! ended, as long as the server says that the image is the same. Called by `input`.
//!
//! ```text
//!   206 ──────────────► bytes; the first one's ETag and size are asked for from then on
//!   200 ──────────────► at the start: a server without ranges; later: the image has changed, an error
//!   cut, slow, 5xx ───► again after a pause, MAX_TRIES times in a row without a byte
//!   401…416 ──────────► an error
//! ```

use std::io::{self, Read};
use std::ops::Range;
use std::time::Duration;

use anyhow::Context;
use cardshop_card::{ImageStream, StopFlag};
use cardshop_protocol::index::{Index, MAX_INDEX_SIZE};
use ureq::http::{HeaderMap, Response, StatusCode, header};
use ureq::tls::{RootCerts, TlsConfig};

/// Bytes of one request: large enough that its start costs nothing, small enough to be asked again.
const RANGE_SIZE: u64 = 16 << 20;
/// Gaps up to this size between bytes that are needed are fetched with them: a request costs more.
const SMALL_GAP: u64 = 1 << 20;
/// A range may take this long plus its bytes at [`SLOWEST_BPS`].
const RANGE_PATIENCE: Duration = Duration::from_secs(30);
/// Below this rate a request is given up and asked again, bytes a second.
const SLOWEST_BPS: u64 = 64 * 1024;
/// Requests in a row that give no byte, with pauses from 0.25 s up to 8 s between them: about 24 s.
const MAX_TRIES: u32 = 8;
/// The variable that holds the access token.
const TOKEN_VARIABLE: &str = "CARDSHOP_TOKEN";

/// Where an image is, and who asks.
#[derive(Clone)]
pub(crate) struct Remote {
    http: ureq::Agent,
    url: String,
    token: Option<String>,
    stop: StopFlag,
}

impl Remote {
    /// Nothing is asked yet. The token of `CARDSHOP_TOKEN` is sent under TLS or within this machine only.
    pub(crate) fn new(url: &str, roots: RootCerts, stop: StopFlag) -> anyhow::Result<Self> {
        let token = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
        let uri: ureq::http::Uri =
            url.parse().with_context(|| format!("{} is not an address", shown(url)))?;
        let host = uri.host().unwrap_or_default();
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        anyhow::ensure!(!authority.contains('@'), "an address may not hold a password: use {TOKEN_VARIABLE}");
        let private = uri.scheme_str() == Some("https") || is_this_machine(host);
        anyhow::ensure!(
            token.is_none() || private,
            "{TOKEN_VARIABLE} would be sent to {host} without encryption: use https, or unset it"
        );
        let http = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_recv_response(Some(RANGE_PATIENCE))
            .user_agent(concat!("cardshop/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self { http, url: url.to_owned(), token, stop })
    }

    /// The address without what may be secret in it.
    pub(crate) fn name(&self) -> &str {
        shown(&self.url)
    }

    /// The index that lies beside the image: `/index` below a warehouse's image, else `.cardindex` behind its
    /// name. Nothing when the server has none.
    pub(crate) fn index(&self) -> anyhow::Result<Option<Index>> {
        let (path, query) = self.url.split_once('?').unwrap_or((&self.url, ""));
        let image_id = warehouse_image(path);
        let separator = if query.is_empty() { "" } else { "?" };
        let beside = if image_id.is_some() { "/index" } else { ".cardindex" };
        let url = format!("{path}{beside}{separator}{query}");
        let response = self.get(&url, &[]).with_context(|| format!("cannot reach {}", shown(&url)))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND if image_id.is_none() => return Ok(None),
            status => anyhow::bail!("{}: {}", shown(&url), refusal(status)),
        }
        let bytes = response.into_body().into_with_config().limit(MAX_INDEX_SIZE).read_to_vec()?;
        let index = Index::decode(&bytes).with_context(|| shown(&url).to_owned())?;
        if let Some(id) = image_id {
            let same = index.id().to_string() == id;
            anyhow::ensure!(same, "{} gives the index of image {}", shown(&url), index.id());
        }
        Ok(Some(index))
    }

    /// The image's bytes, or with an index only those that travel.
    pub(crate) fn stream(&self, index: Option<&Index>) -> RemoteStream {
        let runs = index.map(travelling).unwrap_or_default();
        RemoteStream { remote: self.clone(), runs, at: 0, known: None, body: None, tries: 0 }
    }

    fn get(
        &self,
        url: &str,
        headers: &[(header::HeaderName, String)],
    ) -> Result<Response<ureq::Body>, ureq::Error> {
        let patience = RANGE_PATIENCE + Duration::from_secs(RANGE_SIZE / SLOWEST_BPS);
        let mut request = self.http.get(url).config().timeout_recv_body(Some(patience)).build();
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.call()
    }
}

/// Bytes that travel, small gaps included.
fn travelling(index: &Index) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for range in index.travelling().map(|chunk| index.chunk_range(chunk)) {
        match runs.last_mut() {
            Some(last) if range.start - last.end <= SMALL_GAP => last.end = range.end,
            _ => runs.push(range),
        }
    }
    runs
}

/// An address for people and logs: without its query, which may be a signature or a token.
fn shown(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}

fn is_this_machine(host: &str) -> bool {
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || literal.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The image id at the end of a warehouse's address.
fn warehouse_image(path: &str) -> Option<&str> {
    let (before, id) = path.rsplit_once('/')?;
    let is_id = id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
    (before.ends_with("/images") && is_id).then_some(id)
}

fn refusal(status: StatusCode) -> String {
    let hint = match status.as_u16() {
        401 => format!(": set {TOKEN_VARIABLE} to an access token"),
        403 => ": this login may not have it".to_owned(),
        _ => String::new(),
    };
    format!("the server answers {status}{hint}")
}

/// What the first answer says of the image.
struct Known {
    size: u64,
    etag: Option<String>,
    ranges: bool,
}

/// The bytes of a [`Remote`] from front to back.
pub(crate) struct RemoteStream {
    remote: Remote,
    runs: Vec<Range<u64>>,
    at: u64,
    known: Option<Known>,
    /// What is being received, and where it ends.
    body: Option<(Box<dyn Read + Send>, u64)>,
    /// Requests in a row that gave nothing.
    tries: u32,
}

impl RemoteStream {
    /// Where the request that begins at `self.at` ends.
    fn range_end(&self) -> u64 {
        let run = self.runs.iter().find(|run| run.contains(&self.at));
        let end = run.map_or(u64::MAX, |run| run.end).min(self.at + RANGE_SIZE);
        self.known.as_ref().map_or(end, |known| end.min(known.size))
    }

    /// Asks for the next range; an error ends the stream.
    fn ask(&mut self) -> io::Result<()> {
        let end = self.range_end();
        let mut headers = vec![(header::RANGE, format!("bytes={}-{}", self.at, end - 1))];
        let etag = self.known.as_ref().and_then(|known| known.etag.clone());
        headers.extend(etag.map(|etag| (header::IF_RANGE, etag)));
        let response = match self.remote.get(&self.remote.url, &headers) {
            Ok(response) => response,
            Err(error) => return self.try_again(&error.to_string()),
        };
        let (status, fields) = (response.status(), response.headers().clone());
        match status {
            StatusCode::PARTIAL_CONTENT => {
                let (start, size) = content_range(&fields)
                    .ok_or_else(|| io::Error::other("the server sends a range and does not say which"))?;
                if start != self.at || self.known.as_ref().is_some_and(|known| known.size != size) {
                    return Err(changed());
                }
                self.learn(size, &fields, true);
                self.body = Some((Box::new(response.into_body().into_reader()), end.min(size)));
                Ok(())
            }
            StatusCode::OK => self.whole(response, &fields),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => self.try_again(&refusal(status)),
            _ if status.is_server_error() => self.try_again(&refusal(status)),
            _ => Err(io::Error::other(refusal(status))),
        }
    }

    /// Takes an answer that begins at the image's start.
    fn whole(&mut self, response: Response<ureq::Body>, fields: &HeaderMap) -> io::Result<()> {
        let length = text(fields, &header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
        let size =
            length.ok_or_else(|| io::Error::other("the server does not say how large the image is"))?;
        let same = |known: &Known| !known.ranges && known.size == size && known.etag == strong_etag(fields);
        if self.known.as_ref().is_some_and(|known| !same(known)) {
            return Err(changed());
        }
        self.learn(size, fields, false);
        let mut body = response.into_body().into_reader();
        if self.at > 0
            && io::copy(&mut body.by_ref().take(self.at), &mut io::sink()).is_ok_and(|n| n < self.at)
        {
            return self.try_again("the answer was cut");
        }
        self.body = Some((Box::new(body), size));
        Ok(())
    }

    fn learn(&mut self, size: u64, fields: &HeaderMap, ranges: bool) {
        self.known.get_or_insert_with(|| Known { size, etag: strong_etag(fields), ranges });
    }

    /// Waits before the next request, unless there were too many.
    fn try_again(&mut self, why: &str) -> io::Result<()> {
        self.body = None;
        self.tries += 1;
        tracing::warn!(from = self.remote.name(), at = self.at, "{why}: trying again");
        if self.tries >= MAX_TRIES {
            return Err(io::Error::other(format!("{why}, {MAX_TRIES} times in a row")));
        }
        let pause = Duration::from_millis(250 << (self.tries - 1).min(5));
        let until = std::time::Instant::now() + pause;
        while std::time::Instant::now() < until {
            if self.remote.stop.is_stopped() {
                return Err(io::Error::other("stopped"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Read for RemoteStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.remote.stop.is_stopped() {
                return Err(io::Error::other("stopped"));
            }
            if self.known.as_ref().is_some_and(|known| self.at >= known.size) || buffer.is_empty() {
                return Ok(0);
            }
            let Some((body, end)) = &mut self.body else {
                self.ask()?;
                continue;
            };
            let most = (*end - self.at).min(buffer.len() as u64) as usize;
            match body.read(&mut buffer[..most]) {
                Ok(0) => self.try_again("the answer was cut")?,
                Ok(count) => {
                    self.at += count as u64;
                    self.tries = 0;
                    if self.at == *end {
                        self.body = None;
                    }
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.try_again(&error.to_string())?,
            }
        }
    }
}

impl ImageStream for RemoteStream {
    fn skip(&mut self, bytes: u64) -> io::Result<u64> {
        let is_here = self.body.as_ref().is_some_and(|(_, end)| self.at + bytes < *end);
        let no_ranges = self.known.as_ref().is_some_and(|known| !known.ranges);
        if bytes == 0 || no_ranges || (is_here && bytes <= SMALL_GAP) {
            return io::copy(&mut Read::take(self, bytes), &mut io::sink());
        }
        self.body = None;
        self.at += bytes;
        Ok(bytes)
    }
}

fn changed() -> io::Error {
    io::Error::other("the image has changed on the server while it was read")
}

fn text<'a>(fields: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    fields.get(name)?.to_str().ok()
}

/// Only a strong one names bytes.
fn strong_etag(fields: &HeaderMap) -> Option<String> {
    text(fields, &header::ETAG).filter(|etag| etag.starts_with('"')).map(str::to_owned)
}

/// First byte and the whole size of `bytes 0-99/1234`.
fn content_range(fields: &HeaderMap) -> Option<(u64, u64)> {
    let (range, size) = text(fields, &header::CONTENT_RANGE)?.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, size.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_secret_is_not_shown_and_a_password_in_an_address_is_refused() {
        assert_eq!(shown("https://a.example/x.img?sig=1#2"), "https://a.example/x.img");
        let error = Remote::new("https://me:secret@a.example/x.img", RootCerts::WebPki, StopFlag::new());
        let error = error.err().unwrap();
        assert!(!format!("{error:#}").contains("secret"), "{error:#}");
    }

    #[test]
    fn this_machine_and_a_warehouses_address_are_known() {
        assert!(is_this_machine("localhost") && is_this_machine("127.0.0.1") && is_this_machine("[::1]"));
        assert!(!is_this_machine("10.0.0.1") && !is_this_machine("localhost.example"));
        let id = "ab".repeat(32);
        assert_eq!(warehouse_image(&format!("http://h/images/{id}")), Some(&*id));
        assert_eq!(warehouse_image(&format!("http://h/x/{id}")), None);
        assert_eq!(warehouse_image("http://h/images/a.img"), None);
    }
}
