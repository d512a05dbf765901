//! A slow link: passes TCP on to a service, its answers at so many bytes a second and connection, and counts them.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bytes passed on at once.
const PIECE: usize = 16 * 1024;

pub(crate) struct SlowLink {
    /// The service's address through the link.
    pub(crate) url: String,
    passed: Arc<AtomicU64>,
}

impl SlowLink {
    pub(crate) fn to(service: &str, bytes_per_second: u64) -> Self {
        let target = service.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let passed = Arc::new(AtomicU64::new(0));
        let count = passed.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect(&target) else { continue };
                let (mut requests, mut into) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut requests, &mut into);
                    let _ = into.shutdown(Shutdown::Write);
                });
                let count = count.clone();
                std::thread::spawn(move || pass_slowly(far, near, bytes_per_second, &count));
            }
        });
        Self { url, passed }
    }

    /// Bytes of answers so far.
    pub(crate) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }
}

fn pass_slowly(mut from: TcpStream, mut to: TcpStream, bytes_per_second: u64, count: &AtomicU64) {
    let mut piece = [0; PIECE];
    while let Ok(size @ 1..) = from.read(&mut piece) {
        let due = Instant::now() + Duration::from_secs_f64(size as f64 / bytes_per_second as f64);
        if to.write_all(&piece[..size]).is_err() {
            return;
        }
        count.fetch_add(size as u64, Ordering::Relaxed);
        // The wire's own time, not a wait for something to happen.
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    let _ = to.shutdown(Shutdown::Both);
}
