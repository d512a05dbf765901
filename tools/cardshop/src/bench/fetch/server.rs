//! A warehouse of one image for benchmarks: plain ranges over HTTP/1.1, the same for us and for peers, and an exact
//! count of what it sent.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt::TcpCongestion};

use super::Image;

/// Bytes sent at once when it is paced.
const PIECE: usize = 16 * 1024;

/// How it sends.
#[derive(Clone, Copy)]
pub(super) enum Pieces {
    /// As fast as the line takes it.
    Whole,
    /// A piece, then this pause, on each connection.
    Paced(Duration),
}

/// What it did.
#[derive(Clone, Copy)]
pub(super) struct Served {
    pub(super) sent_bytes: u64,
    pub(super) requests: u64,
}

/// The server; its threads end with the process.
pub(super) struct Server {
    pub(super) url: String,
    port: u16,
    shelf: Arc<Shelf>,
}

struct Shelf {
    image: Image,
    pieces: Pieces,
    sent_bytes: AtomicU64,
    requests: AtomicU64,
    /// Held for writing: nothing is being sent. Connections of an earlier number are over.
    pause: RwLock<u32>,
}

impl Server {
    pub(super) fn start(address: IpAddr, image: Image, pieces: Pieces) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((address, 0))?;
        // What servers commonly use; connections inherit it. Where it is missing, all share the machine's default.
        let _ = setsockopt(&listener, TcpCongestion, &"cubic".into());
        let address = listener.local_addr()?;
        let (sent_bytes, requests) = (AtomicU64::new(0), AtomicU64::new(0));
        let shelf = Arc::new(Shelf { image, pieces, sent_bytes, requests, pause: RwLock::new(0) });
        let shared = Arc::clone(&shelf);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shelf = Arc::clone(&shared);
                std::thread::spawn(move || shelf.converse(stream));
            }
        });
        Ok(Self { url: format!("http://{address}"), port: address.port(), shelf })
    }

    pub(super) fn served(&self) -> Served {
        Served {
            sent_bytes: self.shelf.sent_bytes.load(Ordering::SeqCst),
            requests: self.shelf.requests.load(Ordering::SeqCst),
        }
    }

    /// Does something with the port while nothing is being sent, and ends all connections.
    pub(super) fn cut<T>(&self, what: impl FnOnce(u16) -> T) -> T {
        let mut quiet = self.shelf.pause.write().expect("no sender panics");
        *quiet += 1;
        what(self.port)
    }
}

impl Shelf {
    /// Answers requests until the other side is gone.
    fn converse(&self, mut stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        loop {
            let (mut path, mut range) = (String::new(), None);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).ok()? == 0 {
                    return None;
                }
                let line = line.trim().to_ascii_lowercase();
                if line.is_empty() {
                    break;
                }
                if path.is_empty() {
                    path = line.split(' ').nth(1)?.to_owned();
                } else if let Some(asked) = line.strip_prefix("range: bytes=") {
                    range = Some(asked.to_owned());
                }
            }
            self.answer(&mut stream, &path, range.as_deref())?;
        }
    }

    fn answer(&self, stream: &mut TcpStream, path: &str, range: Option<&str>) -> Option<()> {
        let (id, size) = (self.image.index.id(), self.image.bytes.len() as u64);
        if path == format!("/images/{id}/index") {
            let body = self.image.index.encode();
            stream
                .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes())
                .ok()?;
            return stream.write_all(&body).ok();
        }
        if path != format!("/images/{id}") {
            return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").ok();
        }
        self.requests.fetch_add(1, Ordering::SeqCst);
        let (status, bytes) = match range.and_then(|range| parse(range, size)) {
            Some(bytes) => ("206 Partial Content", bytes),
            None => ("200 OK", 0..size),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Range: bytes {}-{}/{size}\r\nAccept-Ranges: bytes\r\n\
             ETag: \"{id}\"\r\nContent-Type: application/octet-stream\r\n\r\n",
            bytes.end - bytes.start,
            bytes.start,
            bytes.end - 1
        );
        stream.write_all(head.as_bytes()).ok()?;
        self.send(stream, &self.image.bytes[bytes.start as usize..bytes.end as usize])
    }

    fn send(&self, stream: &mut TcpStream, bytes: &[u8]) -> Option<()> {
        let Pieces::Paced(pause) = self.pieces else { return stream.write_all(bytes).ok() };
        let begun = *self.pause.read().expect("no sender panics");
        for piece in bytes.chunks(PIECE) {
            {
                let now = self.pause.read().expect("no sender panics");
                if *now != begun {
                    return None;
                }
                stream.write_all(piece).ok()?;
                self.sent_bytes.fetch_add(piece.len() as u64, Ordering::SeqCst);
            }
            // The line's own time, not a wait for something to happen.
            std::thread::sleep(pause);
        }
        Some(())
    }
}

/// `first-` or `first-last`.
fn parse(range: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = range.split_once('-')?;
    let first: u64 = first.parse().ok()?;
    let end = if last.is_empty() { size } else { last.parse::<u64>().ok()?.checked_add(1)? };
    (first < end && end <= size).then_some(first..end)
}
