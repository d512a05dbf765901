//! Just enough of an HTTP/1.1 server for tests, over real TCP: the handler sees each request and writes the
//! answer itself, so that it can also write half of one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

/// One request.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    headers: Vec<String>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// A header's value, by its lower-case name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.headers.iter().filter_map(|line| line.split_once(':'));
        lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }
}

/// Serves on a free port until the process ends; gives the base address. `None` from the handler closes the
/// connection.
pub(crate) fn serve(
    handler: impl Fn(&Request, &mut TcpStream) -> Option<()> + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let handler = Arc::new(handler);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let handler = Arc::clone(&handler);
            std::thread::spawn(move || converse(stream, &*handler));
        }
    });
    address
}

fn converse(mut stream: TcpStream, handler: &dyn Fn(&Request, &mut TcpStream) -> Option<()>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line.trim().is_empty() {
                break;
            }
            lines.push(line.trim().to_owned());
        }
        let first = lines.remove(0);
        let mut words = first.split(' ').map(str::to_owned);
        let mut request =
            Request { method: words.next()?, path: words.next()?, headers: lines, body: vec![] };
        let length = request.header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
        request.body.resize(length, 0);
        reader.read_exact(&mut request.body).ok()?;
        handler(&request, &mut stream)?;
    }
}

/// Writes a whole answer.
pub(crate) fn send(stream: &mut TcpStream, status: &str, body: &[u8]) -> Option<()> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()
}
