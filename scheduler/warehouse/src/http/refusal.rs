//! Every way a request is refused, each with its status, its stable code and the way out, as a problem
//! document. **Source:** RFC 9457; tus 1.0 for 409, 412, 415 and 460.

use std::error::Error;

use axum::Json;
use axum::http::header::{CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use cardshop_protocol::api::Problem;
use serde::Serialize;

use super::tus::TUS_VERSION;
use crate::core::checksum::BadChecksum;
use crate::core::metadata::MetadataError;
use crate::core::range::MAX_RANGES;
use crate::store::StoreError;

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("log in with an access token: as bearer token, or as the password of basic login")]
    NoLogin,
    #[error("the access token is not valid; get a new one")]
    BadToken,
    #[error("only a creator with an upload token may put images; ask for a task first")]
    NotAnUploader,
    #[error("the token is for another task than the upload")]
    OtherTask,
    #[error("only staff and the scheduler change images")]
    NotManager,
    #[error("the body is not a JSON object of {wanted}")]
    Body { wanted: &'static str },
    #[error("this link has ended; ask who gave it to you for another")]
    LinkEnded,
    #[error("only public images have a torrent")]
    NotPublic,
    #[error("it is being made; ask again in a moment")]
    BeingMade,
    #[error("there is nothing here, or nothing that you may see")]
    NotFound,
    #[error("no such address")]
    NoSuchRoute,
    #[error("this address does not know the method")]
    MethodNotAllowed,
    #[error("send the header tus-resumable: 1.0.0")]
    TusVersion,
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    #[error("the header {name} is not {wanted}")]
    Header { name: &'static str, wanted: &'static str },
    #[error("the query's {name} is not {wanted}")]
    Query { name: &'static str, wanted: &'static str },
    #[error(transparent)]
    Checksum(#[from] BadChecksum),
    #[error("send content-type: application/offset+octet-stream")]
    ContentType,
    #[error("{size} bytes are more than the limit of {limit}")]
    TooLarge { size: u64, limit: u64 },
    #[error("the upload is at offset {actual}, the request at {given}; resume from {actual}")]
    OffsetConflict { actual: u64, given: u64 },
    #[error("another request has this upload; ask for its offset and go on from there")]
    Locked,
    #[error("no byte came for too long; ask for the offset and go on from there")]
    TooSlow,
    #[error("the image has another entity tag than if-match asks for")]
    PreconditionFailed,
    #[error("no range asked for lies in the {size} bytes there are")]
    Unsatisfiable { size: u64 },
    #[error("more than {MAX_RANGES} ranges; ask in several requests")]
    TooManyRanges { size: u64 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Refusal {
    /// Status, stable code, title.
    fn facts(&self) -> (u16, &'static str, &'static str) {
        match self {
            Self::NoLogin => (401, "not_logged_in", "Not logged in"),
            Self::BadToken => (401, "invalid_token", "Access token not valid"),
            Self::NotAnUploader => (403, "not_an_uploader", "Not allowed"),
            Self::OtherTask => (403, "other_task", "Not allowed"),
            Self::NotManager => (403, "not_a_manager", "Not allowed"),
            Self::Body { .. } => (400, "bad_body", "Body not valid"),
            Self::LinkEnded => (410, "link_ended", "Link ended"),
            Self::NotPublic => (404, "not_public", "Not public"),
            Self::BeingMade => (503, "being_made", "Being made"),
            Self::NotFound => (404, "not_found", "Not found"),
            Self::NoSuchRoute => (404, "no_such_route", "Not found"),
            Self::MethodNotAllowed => (405, "method_not_allowed", "Method not allowed"),
            Self::TusVersion => (412, "tus_version", "Another tus version"),
            Self::Metadata(MetadataError::TooLong(_)) => (431, "metadata_too_long", "Metadata too long"),
            Self::Metadata(_) => (400, "bad_metadata", "Metadata not valid"),
            Self::Header { .. } | Self::Checksum(_) => (400, "bad_header", "Header not valid"),
            Self::Query { .. } => (400, "bad_query", "Query not valid"),
            Self::ContentType => (415, "content_type", "Another content type"),
            Self::TooLarge { .. } => (413, "too_large", "Too large"),
            Self::OffsetConflict { .. } => (409, "offset_conflict", "Another offset"),
            Self::Locked => (423, "upload_locked", "Upload in use"),
            Self::TooSlow => (408, "too_slow", "No bytes came"),
            Self::PreconditionFailed => (412, "precondition_failed", "Precondition failed"),
            Self::Unsatisfiable { .. } => (416, "range_not_satisfiable", "Range not satisfiable"),
            Self::TooManyRanges { .. } => (416, "too_many_ranges", "Too many ranges"),
            Self::Store(e) => store_facts(e),
        }
    }

    /// For people. What concerns only the operator goes to the log.
    fn detail(&self) -> String {
        if self.facts().0 == 500 {
            return "the warehouse could not use its disk; try again later, its log says more".into();
        }
        // What caused it names addresses that are no client's business.
        if let Self::Store(away @ StoreError::Away(_)) = self {
            return away.to_string();
        }
        chain(self)
    }

    fn offsets(&self) -> Vec<u64> {
        match self {
            Self::Store(StoreError::ChunkMismatch { offsets }) => offsets.clone(),
            _ => Vec::new(),
        }
    }

    /// Headers that belong to the status.
    fn headers(&self) -> Vec<(HeaderName, String)> {
        match self {
            // Two headers, because some clients look at the first challenge of each only.
            Self::NoLogin | Self::BadToken => ["Basic", "Bearer"]
                .map(|scheme| (WWW_AUTHENTICATE, format!("{scheme} realm=\"cardshop\"")))
                .into(),
            Self::Unsatisfiable { size } | Self::TooManyRanges { size } => {
                vec![(CONTENT_RANGE, format!("bytes */{size}"))]
            }
            Self::TusVersion => vec![(HeaderName::from_static("tus-version"), TUS_VERSION.into())],
            Self::BeingMade => vec![(RETRY_AFTER, "5".into())],
            Self::Store(StoreError::Away(_)) => vec![(RETRY_AFTER, "30".into())],
            Self::Store(StoreError::TooManyUploads { .. }) => vec![(RETRY_AFTER, "60".into())],
            _ => Vec::new(),
        }
    }
}

fn store_facts(error: &StoreError) -> (u16, &'static str, &'static str) {
    match error {
        StoreError::Full { .. } | StoreError::DiskFull => (507, "no_space", "No space left"),
        StoreError::TooManyUploads { .. } => (503, "too_many_uploads", "Too many uploads"),
        StoreError::TooManyLinks { .. } => (503, "too_many_links", "Too many links"),
        StoreError::TooLong { .. } => (413, "too_large", "Too large"),
        StoreError::OtherLength { .. } => (400, "other_length", "Another length"),
        StoreError::WrongChecksum => (460, "checksum_mismatch", "Checksum mismatch"),
        StoreError::Cut => (400, "cut", "Request cut short"),
        StoreError::ChunkMismatch { .. } => (422, "chunk_mismatch", "Image differs from its index"),
        StoreError::SizeMismatch { .. } => (422, "size_mismatch", "Image differs from its index"),
        StoreError::OtherImage { .. } => (422, "other_image", "Index of another image"),
        StoreError::IndexFirst => (409, "index_first", "Index not here"),
        StoreError::BadIndex(_) | StoreError::EmptyImage => (422, "bad_index", "Index not valid"),
        StoreError::Away(_) => (503, "store_away", "Store not reached"),
        StoreError::Io { .. }
        | StoreError::BadStore(_)
        | StoreError::StoreNotNamed(_)
        | StoreError::BadRecord(_)
        | StoreError::ObjectSize { .. }
        | StoreError::InUse(_)
        | StoreError::BadKey(_)
        | StoreError::KeyGone(_)
        | StoreError::NoRandomness => (500, "internal", "The warehouse failed"),
    }
}

/// An error and what caused it, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text += &format!(": {e}");
        cause = e.source();
    }
    text
}

/// The problem document, with where the bad chunks begin as an extension member.
#[derive(Serialize)]
struct Document {
    #[serde(flatten)]
    problem: Problem,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    offsets: Vec<u64>,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code, title) = self.facts();
        if status == 500 {
            tracing::error!(error = chain(&self), "a request failed");
        } else if let Self::Store(StoreError::Away(_)) = &self {
            tracing::warn!(error = chain(&self), "a request waits for the S3 store");
        }
        let problem = Problem {
            kind: "about:blank".into(),
            title: title.into(),
            status,
            detail: self.detail(),
            code: code.into(),
        };
        let document = Json(Document { problem, offsets: self.offsets() });
        let status = StatusCode::from_u16(status).expect("the table holds statuses");
        let mut response = (status, document).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        for (name, value) in self.headers() {
            headers.append(name, HeaderValue::try_from(value).expect("plain text"));
        }
        response
    }
}
