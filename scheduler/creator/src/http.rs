//! The HTTP client of downloads, uploads and the scheduler's API: time limits, an address rule for secrets,
//! back-off, and a stop that reaches a thread blocked in a read. It knows no resource and no message.

use std::net::IpAddr;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};

use crate::StopFlag;

/// Name lookup and connect, each: below the 5 s in which a stop must take effect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// Silence on a connection after which it is given up. A stop does not wait for it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a raised stop is looked for.
const STOP_POLL: Duration = Duration::from_millis(200);
/// Longest error text of a server that is shown, bytes.
const MAX_ERROR_TEXT: u64 = 2000;

/// A client whose open requests end with an error soon after `stop` is raised.
pub(crate) struct Client {
    agent: Agent,
    dropped: StopFlag,
    watcher: Option<JoinHandle<()>>,
}

impl Client {
    /// A client of servers whose certificates are of one of `roots`.
    pub(crate) fn new(stop: &StopFlag, roots: RootCerts) -> Self {
        let agent: Agent = Agent::config_builder()
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .http_status_as_error(false)
            .timeout_resolve(Some(CONNECT_TIMEOUT))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_per_read(Some(IDLE_TIMEOUT))
            .timeout_per_write(Some(IDLE_TIMEOUT))
            .user_agent(concat!("cardshop-creator/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        let dropped = StopFlag::new();
        let (stop, done, watched) = (stop.clone(), dropped.clone(), agent.clone());
        let watcher = thread::spawn(move || {
            while !done.is_stopped() {
                if stop.is_stopped() {
                    // Closes the sockets under whoever is blocked in one.
                    watched.shutdown();
                    return;
                }
                thread::park_timeout(STOP_POLL);
            }
        });
        Self { agent, dropped, watcher: Some(watcher) }
    }

    pub(crate) fn agent(&self) -> &Agent {
        &self.agent
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.dropped.stop();
        if let Some(watcher) = self.watcher.take() {
            watcher.thread().unpark();
            // It only ever sleeps and shuts down; there is nothing of its to report.
            let _ = watcher.join();
        }
    }
}

/// Waits, but not past a stop. True when the time has passed, false when stopped.
pub(crate) fn wait(duration: Duration, stop: &StopFlag) -> bool {
    let until = Instant::now() + duration;
    loop {
        if stop.is_stopped() {
            return false;
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        thread::sleep(left.min(STOP_POLL));
    }
}

/// Doubling delays.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// Before the second try.
    pub first: Duration,
    /// Never longer than this.
    pub most: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(500), most: Duration::from_secs(30) }
    }
}

impl Backoff {
    /// The delay after `failures` tries in a row have failed (from 1).
    pub fn delay(&self, failures: u32) -> Duration {
        self.first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.most)
    }
}

/// True for a status that may be another one later. **Source:** RFC 9110 §15.
pub(crate) fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504 | 507)
}

/// Checks that passwords and tokens may be sent to `base`: https, or http to this machine itself.
///
/// # Errors
/// One line for people.
pub(crate) fn check_address(base: &str) -> Result<(), String> {
    let uri: ureq::http::Uri = base.parse().map_err(|_| format!("{base:?} is not an address"))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
        return Err("an address must not carry a password".into());
    }
    match uri.scheme_str() {
        Some("https") if !host.is_empty() => Ok(()),
        Some("http") if local => Ok(()),
        Some("http") => Err(format!("{base} is not https: plain http is for this machine only")),
        _ => Err(format!("{base:?} is not an http(s) address")),
    }
}

/// What a server says about a refusal, for people: a problem document's detail, or the start of its text.
pub(crate) fn refusal(response: &mut ureq::http::Response<ureq::Body>) -> String {
    let status = response.status();
    let text = response.body_mut().with_config().limit(MAX_ERROR_TEXT).lossy_utf8(true).read_to_string();
    let text = text.unwrap_or_default();
    let problem = serde_json::from_str::<cardshop_protocol::api::Problem>(&text).ok();
    let detail = match &problem {
        Some(p) if !p.detail.is_empty() => &p.detail,
        Some(p) => &p.title,
        None => text.lines().next().unwrap_or_default(),
    };
    format!("{} {}", status, detail.chars().filter(|c| !c.is_control()).take(200).collect::<String>())
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_to_https_and_to_this_machine_only() {
        for good in
            ["https://shop.example", "http://127.0.0.1:8080", "http://[::1]:1", "http://localhost:8080/"]
        {
            assert_eq!(check_address(good), Ok(()), "{good}");
        }
        for bad in [
            "http://shop.example",
            "http://10.0.0.1:80",
            "http://127.0.0.1.example",
            "https://a:b@shop.example",
            "ftp://127.0.0.1",
            "shop.example",
            "",
        ] {
            assert!(check_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn delays_double_up_to_the_most() {
        let backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(5) };
        let seconds: Vec<u64> = [1, 2, 3, 4, 99].map(|n| backoff.delay(n).as_secs()).into();
        assert_eq!(seconds, [1, 2, 4, 5, 5]);
    }

    #[test]
    fn a_stop_ends_a_read_that_waits_for_a_silent_server() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", server.local_addr().unwrap());
        let stop = StopFlag::new();
        let client = Client::new(&stop, RootCerts::WebPki);
        let stopper = thread::spawn(move || {
            let _silent = server.accept().unwrap();
            stop.stop();
            // The connection stays open until the client has given up.
            _silent
        });
        let begun = Instant::now();
        assert!(client.agent().get(&url).call().is_err());
        assert!(begun.elapsed() < Duration::from_secs(5));
        stopper.join().unwrap();
    }
}
