//! Reads what a refused request still sends, up to a limit, so that a client that sends before it reads gets
//! the answer: closing a socket with unread bytes resets it, and the answer is lost. Wraps every route.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::{CONNECTION, EXPECT};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::StreamExt;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::timeout;

/// Bytes of a refused request that are read and dropped. Clients that send larger pieces may see a reset;
/// they ask for the offset and learn the rest from the next refusal.
const DRAIN: u64 = 64 * 1024 * 1024;
/// How long a refused request may pause before its connection is given up.
const DRAIN_IDLE: Duration = Duration::from_secs(2);
/// How long it may take in all: nobody holds a connection open with a byte now and then, before any login.
const DRAIN_TIME: Duration = Duration::from_secs(20);

/// Middleware around every route.
pub(crate) async fn drain(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    // Who waits for "100 Continue" has sent nothing, and reading now would ask for it.
    let waits = request.headers().contains_key(EXPECT);
    let (parts, body) = request.into_parts();
    let shared = Shared(Arc::new(Mutex::new(body)));
    let mut response = next.run(Request::from_parts(parts, Body::new(shared.clone()))).await;
    if !shared.is_end_stream() && (waits || !read_to_end(Body::new(shared), DRAIN_TIME).await) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// False when the rest is too long, too slow, or broken off.
async fn read_to_end(body: Body, within: Duration) -> bool {
    let mut frames = body.into_data_stream();
    let mut dropped = 0;
    let read = async {
        loop {
            match timeout(DRAIN_IDLE, frames.next()).await {
                Ok(None) => return true,
                Ok(Some(Ok(bytes))) => dropped += bytes.len() as u64,
                _ => return false,
            }
            if dropped > DRAIN {
                return false;
            }
        }
    };
    timeout(within, read).await.unwrap_or(false)
}

/// One body for the handler and for what it leaves; they never read at the same time.
#[derive(Clone)]
struct Shared(Arc<Mutex<Body>>);

impl Shared {
    fn body(&self) -> std::sync::MutexGuard<'_, Body> {
        self.0.lock().expect("no holder panics")
    }
}

impl http_body::Body for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.body()).poll_frame(cx)
    }
    fn is_end_stream(&self) -> bool {
        self.body().is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body().size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    /// Bytes that come one by one, with a pause before each.
    fn trickle(count: usize, pause: Duration) -> Body {
        Body::from_stream(stream::unfold(0, move |n| async move {
            tokio::time::sleep(pause).await;
            (n < count).then(|| (Ok::<_, std::io::Error>(Bytes::from_static(b"x")), n + 1))
        }))
    }

    #[tokio::test]
    async fn a_body_that_trickles_is_given_up_and_one_that_ends_is_read() {
        let pause = Duration::from_millis(1);
        assert!(read_to_end(trickle(20, pause), DRAIN_TIME).await);
        assert!(!read_to_end(trickle(usize::MAX, pause), Duration::from_millis(50)).await);
    }
}
