//! MQTT inside WebSocket: the upgrade with subprotocol `mqtt`, and then a byte stream made of binary messages, whose
//! borders mean nothing. **Source:** MQTT 3.1.1 and 5.0, §6; RFC 6455.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Sink, Stream as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::serve::{READ_SIZE, Stream};

const SUBPROTOCOL: &str = "mqtt";
const SUBPROTOCOL_HEADER: &str = "Sec-WebSocket-Protocol";
/// Largest message we send, bytes; a client may have a limit of its own, and a packet may span several (§6).
const MAX_SENT_SIZE: usize = 16 * 1024;

/// Answers the upgrade. `read` was read from `stream` already; `max_size` is the largest message taken, bytes.
///
/// # Errors
/// What made it fail; the client was told when it was not MQTT over WebSocket.
pub(crate) async fn accept<S: Stream>(
    stream: S,
    read: BytesMut,
    max_size: usize,
) -> Result<WebSocket<Rewound<S>>, Error> {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_SIZE)
        .write_buffer_size(0)
        .max_message_size(Some(max_size))
        .max_frame_size(Some(max_size));
    let stream = Rewound { read: read.freeze(), stream };
    let stream = tokio_tungstenite::accept_hdr_async_with_config(stream, subprotocol, Some(config)).await?;
    Ok(WebSocket { stream, received: Bytes::new(), sending: 0 })
}

#[allow(clippy::result_large_err)] // the crate's own signature
fn subprotocol(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let offered =
        request.headers().get_all(SUBPROTOCOL_HEADER).iter().filter_map(|value| value.to_str().ok());
    if offered.flat_map(|value| value.split(',')).any(|name| name.trim() == SUBPROTOCOL) {
        response.headers_mut().insert(SUBPROTOCOL_HEADER, HeaderValue::from_static(SUBPROTOCOL));
        return Ok(response);
    }
    let mut refusal =
        ErrorResponse::new(Some("this port speaks MQTT over WebSocket: ask for subprotocol mqtt\n".into()));
    *refusal.status_mut() = StatusCode::BAD_REQUEST;
    Err(refusal)
}

/// A stream of which some bytes were read too early.
pub(crate) struct Rewound<S> {
    read: Bytes,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, into);
        }
        take_from(&mut self.read, into);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

fn take_from(bytes: &mut Bytes, into: &mut ReadBuf<'_>) {
    let size = bytes.len().min(into.remaining());
    into.put_slice(&bytes[..size]);
    bytes.advance(size);
}

/// The byte stream inside.
pub(crate) struct WebSocket<S> {
    stream: WebSocketStream<S>,
    /// Of a message that is not taken yet.
    received: Bytes,
    /// Bytes in the message that is on its way out, 0 when there is none.
    sending: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.received.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_next(context)) {
                Some(Ok(Message::Binary(bytes))) => self.received = bytes,
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a text message")));
                }
                // Answered by the crate.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
            }
        }
        take_from(&mut self.received, into);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    /// Says that bytes are written when their message has left, so that nothing is left behind in here. A write
    /// that was dropped half-way is to be repeated with the same bytes, as sessions do.
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.sending == 0 {
            ready!(Pin::new(&mut self.stream).poll_ready(context)).map_err(io_error)?;
            let size = bytes.len().min(MAX_SENT_SIZE);
            let message = Message::Binary(Bytes::copy_from_slice(&bytes[..size]));
            Pin::new(&mut self.stream).start_send(message).map_err(io_error)?;
            self.sending = size;
        }
        ready!(Pin::new(&mut self.stream).poll_flush(context)).map_err(io_error)?;
        Poll::Ready(Ok(std::mem::take(&mut self.sending)))
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context).map_err(io_error)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context).map_err(io_error)
    }
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::other(other),
    }
}
