//! Counts requests and bytes, and writes one log line per request, when its answer has left or was cut. The
//! line holds no header, no query and no link's token. Wraps every route.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Body as _, Frame, SizeHint};

use super::Warehouse;
use crate::server::{ConnectionClaims, Peer};

/// Counters since the start.
#[derive(Default)]
pub(crate) struct Metrics {
    /// Answers by hundred of their status, from 1xx.
    pub(crate) answers: [AtomicU64; 5],
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) received_bytes: AtomicU64,
    pub(crate) running: AtomicU64,
    /// Less than twice the margin is free: soon uploads are refused.
    pub(crate) space_is_low: AtomicBool,
}

/// Middleware around every route.
pub(crate) async fn observe(
    State(warehouse): State<Arc<Warehouse>>,
    request: Request,
    next: Next,
) -> Response {
    let claims = request.extensions().get::<ConnectionClaims>().cloned().unwrap_or_default();
    claims.clear();
    warehouse.metrics.running.fetch_add(1, Relaxed);
    let mut line = Line {
        peer: request.extensions().get::<Peer>().map(|p| p.0.to_string()).unwrap_or_default(),
        method: request.method().clone(),
        path: without_token(request.uri().path()),
        began: Instant::now(),
        claims,
        status: 0,
        sent: 0,
        whole: false,
        warehouse,
    };
    let response = next.run(request).await;
    line.status = response.status().as_u16();
    response.map(|body| Body::new(Observed { whole: body.is_end_stream(), body, line }))
}

/// The path as it may be logged: the token of a public link lets anybody in.
fn without_token(path: &str) -> String {
    match path.strip_prefix("/p/") {
        Some(rest) => format!("/p/-/{}", rest.split_once('/').map_or("", |(_, name)| name)),
        None => path.to_owned(),
    }
}

/// What is known of a request; written when it is dropped.
struct Line {
    peer: String,
    method: Method,
    path: String,
    began: Instant,
    claims: ConnectionClaims,
    status: u16,
    sent: u64,
    whole: bool,
    warehouse: Arc<Warehouse>,
}

impl Drop for Line {
    fn drop(&mut self) {
        let metrics = &self.warehouse.metrics;
        metrics.running.fetch_sub(1, Relaxed);
        if let Some(counter) =
            usize::from(self.status / 100).checked_sub(1).and_then(|i| metrics.answers.get(i))
        {
            counter.fetch_add(1, Relaxed);
        }
        let claims = self.claims.get();
        tracing::info!(
            peer = self.peer,
            user = claims.as_ref().map_or("-", |c| &c.sub),
            method = %self.method,
            path = self.path,
            status = self.status, // 0: the client went before there was an answer
            sent = self.sent,
            whole = self.whole,
            ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            "request"
        );
    }
}

/// A body that counts what is taken from it.
struct Observed {
    body: Body,
    whole: bool,
    line: Line,
}

impl http_body::Body for Observed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let size = frame.data_ref().map_or(0, |d| d.len() as u64);
                self.line.sent += size;
                self.line.warehouse.metrics.sent_bytes.fetch_add(size, Relaxed);
                self.whole = self.body.is_end_stream();
            }
            Poll::Ready(None) => self.whole = true,
            _ => (),
        }
        polled
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.line.whole = self.whole;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_links_token_is_not_in_the_path_that_is_logged() {
        assert_eq!(without_token("/p/secret/Library.img"), "/p/-/Library.img");
        assert_eq!(without_token("/p/secret"), "/p/-/");
        assert_eq!(without_token("/images/abc"), "/images/abc");
    }
}
