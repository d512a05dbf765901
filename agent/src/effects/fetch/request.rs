//! One HTTP request to a warehouse, and what its answer means:
//!
//! ```text
//!   206 of this range, size and image   the bytes         403 404 410 416, other 4xx   a definite no
//!   200 where a range was asked,        a definite no:    401    another access token, then again
//!     other Content-Range or ETag       other bytes       429 503 5xx, cut, slow, no route   again later
//! ```

use std::ops::Range;
use std::time::Duration;

use cardshop_protocol::ids::ImageId;
use cardshop_protocol::message::Fault;
use ureq::http::{Response, StatusCode, header};

use super::Shared;
use crate::effects::address::check_http;

/// A warehouse may send us on to a store of its own; token and entity tag stay behind, plain text is no way on.
const MAX_REDIRECTS: u32 = 2;

/// Why a request gave less than it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// The warehouse is worth asking again, at once or after the rest it asks for.
    #[error("{why}")]
    Again {
        /// For people.
        why: String,
        /// `Retry-After`.
        rest: Option<Duration>,
    },
    /// It says no.
    #[error("the warehouse refuses: {0}")]
    Denied(String),
    /// The appliance has no access token yet: nobody was asked.
    #[error("not logged in")]
    NotLoggedIn,
    /// Nobody may be asked for this long.
    #[error("all warehouses rest")]
    Resting(Duration),
    /// The cache's disk does not take what arrived.
    #[error("the cache's disk")]
    Disk(#[from] std::io::Error),
    /// The image cannot be had.
    #[error("{}", .0.text)]
    Refused(Fault),
    /// The agent or the image's lease has ended.
    #[error("stopped")]
    Stopped,
}

impl FetchError {
    pub(super) fn again(why: impl ToString) -> Self {
        Self::Again { why: why.to_string(), rest: None }
    }
}

/// What is asked for.
pub(super) struct Wanted {
    pub(super) image: ImageId,
    /// These bytes of an image of this size; `None` = the whole of something else.
    pub(super) range: Option<(Range<u64>, u64)>,
    /// Most bytes of the answer.
    pub(super) size: u64,
}

/// Asks; the answer is one of the wanted bytes.
pub(super) fn get(
    shared: &Shared,
    address: &str,
    wanted: &Wanted,
) -> Result<Response<ureq::Body>, FetchError> {
    let token = shared.tokens.newest().ok_or(FetchError::NotLoggedIn)?;
    let etag = format!("\"{}\"", wanted.image);
    let headers = [("Authorization", format!("Bearer {}", token.text)), ("If-Range", etag.clone())];
    let mut response = ask(shared, address, &headers, wanted)?;
    let mut etag = Some(etag.as_str());
    for _ in 0..MAX_REDIRECTS {
        let Some(location) = onward(&response) else { break };
        let encrypted = !address.starts_with("https:") || location.starts_with("https:");
        if !encrypted || !(shared.any_address || check_http(&location).is_ok()) {
            // The address itself may be a secret for a minute: it is not repeated.
            return Err(FetchError::Denied("it sends on to an address that is not safe".into()));
        }
        // A store of its own knows neither our token nor our entity tag; chunks tell whether the bytes are right.
        response = ask(shared, &location, &[], wanted)?;
        etag = None;
    }
    judge(response, token.generation, wanted, etag, shared)
}

fn ask(
    shared: &Shared,
    address: &str,
    headers: &[(&str, String)],
    wanted: &Wanted,
) -> Result<Response<ureq::Body>, FetchError> {
    let mut request = shared.http.agent().get(address);
    for (name, value) in headers.iter().filter(|(name, _)| *name != "If-Range" || wanted.range.is_some()) {
        request = request.header(*name, value);
    }
    if let Some((range, _)) = &wanted.range {
        request = request.header("Range", format!("bytes={}-{}", range.start, range.end - 1));
    }
    let pace = &shared.pace;
    let deadline = pace.patience + Duration::from_secs(wanted.size / pace.slowest_bps);
    let request = request
        .config()
        .timeout_global(Some(deadline))
        .timeout_recv_response(Some(pace.patience))
        .timeout_per_read(Some(pace.patience))
        .build();
    request.call().map_err(FetchError::again)
}

/// Where an answer sends us on to.
fn onward(response: &Response<ureq::Body>) -> Option<String> {
    let sends = [301, 302, 307, 308].contains(&response.status().as_u16());
    sends.then(|| text(response, header::LOCATION.as_str()).map(str::to_owned)).flatten()
}

fn judge(
    response: Response<ureq::Body>,
    generation: u64,
    wanted: &Wanted,
    etag: Option<&str>,
    shared: &Shared,
) -> Result<Response<ureq::Body>, FetchError> {
    let status = response.status();
    match (status, &wanted.range) {
        (StatusCode::PARTIAL_CONTENT, Some((range, size))) => {
            let expected = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            let same_range = text(&response, header::CONTENT_RANGE.as_str()) == Some(expected.as_str());
            let tag = text(&response, header::ETAG.as_str());
            let same_tag = tag.is_none() || etag.is_none() || tag == etag;
            if same_range && same_tag { Ok(response) } else { Err(other_bytes()) }
        }
        (StatusCode::OK, None) => Ok(response),
        (StatusCode::UNAUTHORIZED, _) => {
            shared.tokens.refused(generation);
            Err(FetchError::again("the access token was refused"))
        }
        (StatusCode::OK | StatusCode::PARTIAL_CONTENT, _) => Err(other_bytes()),
        (StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS, _) => {
            Err(later(status, &response))
        }
        (status, _) if status.is_client_error() => Err(FetchError::Denied(format!("status {status}"))),
        (status, _) => Err(later(status, &response)),
    }
}

fn other_bytes() -> FetchError {
    FetchError::Denied("it has other bytes under this address, or no ranges".into())
}

/// Only seconds are understood: a date would need a clock that can be trusted.
fn later(status: StatusCode, response: &Response<ureq::Body>) -> FetchError {
    let seconds = text(response, header::RETRY_AFTER.as_str()).and_then(|value| value.trim().parse().ok());
    FetchError::Again { why: format!("status {status}"), rest: seconds.map(Duration::from_secs) }
}

fn text<'a>(response: &'a Response<ureq::Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}
