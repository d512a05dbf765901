//! What the log holds of a request, and what it never holds.

use std::io::Write;
use std::sync::{Arc, Mutex};

use super::common::*;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn every_request_leaves_one_line_without_its_token() {
    let lines = Lines::default();
    let writer = lines.clone();
    // For the whole process: other tests write there too, and their tokens must not be in it either.
    tracing_subscriber::fmt()
        .json()
        .with_env_filter("trace,ureq=off,ureq_proto=off") // the client is not under test
        .with_writer(move || writer.clone())
        .init();
    let mut shop = Shop::open();
    let token = shop.staff().token.unwrap();
    shop.staff().get(&format!("/images/0123abc?access_token={token}"));
    shop.stop();
    let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let of_request: Vec<_> = log.lines().filter(|l| l.contains("/images/0123abc")).collect();
    assert_eq!(of_request.len(), 1, "{of_request:?}");
    let line: serde_json::Value = serde_json::from_str(of_request[0]).unwrap();
    let fields = &line["fields"];
    assert_eq!((&fields["status"], &fields["user"]), (&404.into(), &"staff-".into()));
    assert_eq!((&fields["method"], &fields["path"]), (&"GET".into(), &"/images/0123abc".into()));
    assert!(fields["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    let secrets = token.split('.').filter(|part| log.contains(part)).count();
    assert_eq!(secrets, 0, "no part of a token is in the log");
}
