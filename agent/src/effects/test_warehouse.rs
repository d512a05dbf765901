//! A warehouse of one image in this process, with the faults a test asks for: wrong bytes, cut connections,
//! refused tokens, other answers.

use std::io::Write;
use std::net::TcpStream;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use cardshop_protocol::index::Index;

use super::test_http::{Request, send, serve};

/// How a server lies about ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// The whole image with status 200, as when `If-Range` does not fit.
    Whole,
    /// A `Content-Range` of other bytes.
    OtherRange,
    /// A `Content-Range` of an image of another size.
    OtherSize,
    /// No `Content-Range` at all.
    NoRange,
    /// The entity tag of another image.
    OtherTag,
}

/// What goes wrong, how often.
#[derive(Default)]
pub(crate) struct Faults {
    /// Flip a byte at this offset in this many answers.
    pub(crate) corrupt: Option<(u64, u32)>,
    /// Close the connection when this offset is reached, once.
    pub(crate) cut_at: Option<u64>,
    /// After the cut every connection is closed without an answer.
    pub(crate) then_silent: bool,
    /// Answer everything with this status, this many times.
    pub(crate) status: Option<(u16, u32)>,
    /// Seconds that refusals name in `Retry-After`.
    pub(crate) retry_after: Option<u32>,
    /// Send nothing more from this offset on, once, until the other side gives up.
    pub(crate) stall_at: Option<u64>,
    /// Any other token gets 401.
    pub(crate) token: Option<String>,
    /// Lie about ranges.
    pub(crate) lie: Option<Lie>,
}

/// What was asked and given.
#[derive(Default)]
pub(crate) struct Log {
    /// Ranges of the image given, as far as they were sent.
    pub(crate) given: Vec<Range<u64>>,
    /// Requests answered with another status than 200 or 206.
    pub(crate) refused: usize,
}

/// The server; its threads end with the process.
pub(crate) struct Warehouse {
    pub(crate) address: String,
    pub(crate) faults: Arc<Mutex<Faults>>,
    pub(crate) log: Arc<Mutex<Log>>,
}

impl Warehouse {
    /// Serves `image` on a free port.
    pub(crate) fn start(image: Vec<u8>, index: &Index, faults: Faults) -> Self {
        let (faults, log) = (Arc::new(Mutex::new(faults)), Arc::<Mutex<Log>>::default());
        let shelf = Shelf { image, index: index.clone(), faults: Arc::clone(&faults), log: Arc::clone(&log) };
        let address = serve(move |request, stream| shelf.answer(request, stream));
        Self { address, faults, log }
    }

    /// Bytes of the image given, counting what was given twice twice.
    pub(crate) fn given_bytes(&self) -> u64 {
        self.log.lock().unwrap().given.iter().map(|r| r.end - r.start).sum()
    }
}

struct Shelf {
    image: Vec<u8>,
    index: Index,
    faults: Arc<Mutex<Faults>>,
    log: Arc<Mutex<Log>>,
}

impl Shelf {
    fn answer(&self, request: &Request, stream: &mut TcpStream) -> Option<()> {
        let id = self.index.id();
        if let Some(status) = self.wrong_status(request.header("authorization")) {
            self.log.lock().unwrap().refused += 1;
            let retry = self.faults.lock().unwrap().retry_after;
            let retry = retry.map_or(String::new(), |seconds| format!("\r\nRetry-After: {seconds}"));
            return send(stream, &format!("{status} No{retry}"), b"");
        }
        let faults = self.faults.lock().unwrap();
        if faults.then_silent && faults.cut_at.is_none() {
            return None;
        }
        drop(faults);
        if request.path == format!("/images/{id}/index") {
            return send(stream, "200 OK", &self.index.encode());
        }
        let fits = request.header("if-range") == Some(&format!("\"{id}\""));
        if request.path != format!("/images/{id}") || !fits {
            return send(stream, "404 Not Found", b"");
        }
        let (from, to) = request.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        let range = if self.faults.lock().unwrap().lie == Some(Lie::Whole) {
            0..self.image.len() as u64
        } else {
            from.parse().ok()?..to.parse::<u64>().ok()? + 1
        };
        self.give(stream, range)
    }

    fn wrong_status(&self, authorization: Option<&str>) -> Option<u16> {
        let mut faults = self.faults.lock().unwrap();
        if let Some((status, times)) = faults.status.as_mut().filter(|(_, times)| *times > 0) {
            *times -= 1;
            return Some(*status);
        }
        let wanted = faults.token.as_ref()?;
        (authorization != Some(&format!("Bearer {wanted}"))).then_some(401)
    }

    fn give(&self, stream: &mut TcpStream, range: Range<u64>) -> Option<()> {
        let mut bytes = self.image[range.start as usize..range.end as usize].to_vec();
        let mut faults = self.faults.lock().unwrap();
        if let Some((offset, times)) = &mut faults.corrupt
            && range.contains(offset)
            && *times > 0
        {
            *times -= 1;
            bytes[(*offset - range.start) as usize] ^= 1;
        }
        let cut = faults.cut_at.take_if(|at| range.contains(at));
        let stall = faults.stall_at.take_if(|at| range.contains(at));
        let lie = faults.lie;
        drop(faults);
        let end = cut.or(stall).unwrap_or(range.end);
        let (first, last, size) = (range.start, range.end - 1, self.image.len());
        let (status, content_range) = match lie {
            Some(Lie::Whole) => ("200 OK", None),
            Some(Lie::NoRange) => ("206 Partial Content", None),
            Some(Lie::OtherRange) => ("206 Partial Content", Some((first + 4096, last + 4096, size))),
            Some(Lie::OtherSize) => ("206 Partial Content", Some((first, last, size + 1))),
            _ => ("206 Partial Content", Some((first, last, size))),
        };
        let content_range = content_range.map_or(String::new(), |(first, last, size)| {
            format!("Content-Range: bytes {first}-{last}/{size}\r\n")
        });
        let tag = if lie == Some(Lie::OtherTag) { "other".into() } else { self.index.id().to_string() };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: \"{tag}\"\r\n{content_range}\r\n",
            bytes.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(&bytes[..(end - range.start) as usize]).ok()?;
        self.log.lock().unwrap().given.push(range.start..end);
        if stall.is_some() {
            // Ends when the other side closes its end.
            let _ = std::io::Read::read(stream, &mut [0]);
            return None;
        }
        if cut.is_some() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return None;
        }
        Some(())
    }
}
