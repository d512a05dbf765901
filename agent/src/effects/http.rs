//! The one HTTP client of the agent: shared connections, no status turned into an error, no plain text to
//! another machine (callers check addresses with [`super::address`]), every call bounded in time, and never a
//! proxy for what is on this machine.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Proxy, ProxyProtocol};

/// One call to the server's API, from first byte to last.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(20);
/// Connections kept open: the most of two images (sixteen each would be rare), and the session's.
const IDLE_CONNECTIONS: usize = 18;
/// Where no proxy is asked: its answer would come from another machine, and the question go there in plain text.
const THIS_MACHINE: [&str; 3] = ["localhost", "127.*", "[::1]"];

/// Why a proxy's address is no use. It does not repeat the address: there may be a password in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the proxy's address is not like http://proxy.example:3128, https://… or socks5://…")]
pub(crate) struct BadProxy;

/// The client that everyone uses, and the site's own CA it trusts since the appliance has joined; clones are the
/// same one.
#[derive(Clone)]
pub(crate) struct Http(Arc<RwLock<Trusting>>);

struct Trusting {
    agent: ureq::Agent,
    ca: Option<String>,
}

impl Http {
    /// Uses `agent`, which trusts the public CAs.
    pub(crate) fn new(agent: ureq::Agent) -> Self {
        Self(Arc::new(RwLock::new(Trusting { agent, ca: None })))
    }

    /// The client now.
    pub(crate) fn agent(&self) -> ureq::Agent {
        self.0.read().expect("no holder panics").agent.clone()
    }

    /// PEM of the only CA that is trusted; `None`: the public ones are.
    pub(crate) fn ca(&self) -> Option<String> {
        self.0.read().expect("no holder panics").ca.clone()
    }

    /// From now on only this CA (PEM) is trusted, or the public ones. Open connections go unused.
    pub(crate) fn trust(&self, ca: Option<&str>) {
        let mut now = self.0.write().expect("no holder panics");
        if now.ca.as_deref() != ca {
            *now = Trusting { agent: trusting(&now.agent, ca), ca: ca.map(str::to_owned) };
        }
    }
}

/// A client with the settings of `agent` that trusts only the CA in `ca`, PEM, or the public ones. From what is no
/// certificate follows that nobody is trusted.
pub(crate) fn trusting(agent: &ureq::Agent, ca: Option<&str>) -> ureq::Agent {
    let roots = match ca {
        None => RootCerts::WebPki,
        Some(pem) => RootCerts::from(parse_pem(pem.as_bytes()).filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })),
    };
    let tls = TlsConfig::builder().root_certs(roots).build();
    configured(agent.config().proxy().cloned()).tls_config(tls).build().new_agent()
}

/// Makes the client, with this proxy or, if none is given, the environment's.
///
/// # Errors
/// `BadProxy`.
pub(crate) fn client_through(proxy: Option<&str>) -> Result<ureq::Agent, BadProxy> {
    let proxy = match proxy {
        Some(address) => Some(parse(&Proxy::new(address).map_err(|_| BadProxy)?, "")?),
        None => match Proxy::try_from_env() {
            Some(proxy) => Some(parse(&proxy, &environment("NO_PROXY"))?),
            None => None,
        },
    };
    Ok(configured(proxy).build().new_agent())
}

fn configured(proxy: Option<Proxy>) -> ureq::config::ConfigBuilder<ureq::typestate::AgentScope> {
    ureq::Agent::config_builder()
        .proxy(proxy)
        .http_status_as_error(false)
        .timeout_global(Some(CALL_LIMIT))
        // A captive portal redirects; the server does not, and a warehouse's redirects are the fetcher's to allow.
        .max_redirects(0)
        .timeout_connect(Some(Duration::from_secs(10)))
        .max_idle_connections(IDLE_CONNECTIONS)
        .max_idle_connections_per_host(IDLE_CONNECTIONS)
        .user_agent(concat!("cardshop-agent/", env!("CARGO_PKG_VERSION")))
}

/// The client without settings of its own.
#[cfg(test)]
pub(crate) fn client() -> ureq::Agent {
    client_through(None).expect("no proxy was given")
}

fn environment(name: &str) -> String {
    let value = std::env::var(name).or_else(|_| std::env::var(name.to_lowercase()));
    value.unwrap_or_default()
}

/// The same proxy, but for this machine and the hosts in `not_for` (comma between them).
fn parse(proxy: &Proxy, not_for: &str) -> Result<Proxy, BadProxy> {
    let mut builder = Proxy::builder(proxy.protocol()).host(proxy.host()).port(proxy.port());
    if let Some(name) = proxy.username() {
        builder = builder.username(name);
    }
    if let Some(password) = proxy.password() {
        builder = builder.password(password);
    }
    // Names are the proxy's to look up, where it can.
    builder = builder.resolve_target(proxy.protocol() == ProxyProtocol::Socks4);
    let hosts = not_for.split(',').map(str::trim).filter(|host| !host.is_empty());
    let builder = hosts.chain(THIS_MACHINE).fold(builder, |builder, host| builder.no_proxy(host));
    builder.build().map_err(|_| BadProxy)
}

/// Randomness for jitter: nobody gains from guessing it.
pub(crate) fn jitter() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() as u32
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::effects::test_http::{send, serve};

    #[test]
    fn a_proxy_is_never_asked_for_what_is_on_this_machine() {
        let proxy = Proxy::new("http://me:s%20t@proxy.example:3128").unwrap();
        let proxy = parse(&proxy, ".inside.example, store.example").unwrap();
        assert_eq!((proxy.host(), proxy.port()), ("proxy.example", 3128));
        assert_eq!((proxy.username(), proxy.password()), (Some("me"), Some("s t")));
        let direct = |address: &str| proxy.is_no_proxy(&address.parse().unwrap());
        for here in ["http://localhost:8081/x", "http://127.0.0.1:1", "http://127.9.9.9", "http://[::1]:80/"]
        {
            assert!(direct(here), "{here}");
        }
        assert!(direct("https://a.inside.example") && direct("https://store.example/x"));
        assert!(!direct("https://shop.example") && !direct("https://inside.example"));
        assert_eq!(client_through(Some("not a proxy")).err(), Some(BadProxy));
    }

    #[test]
    fn what_is_elsewhere_goes_through_the_proxy_and_what_is_here_does_not() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let proxy = serve(move |request, stream| {
            seen.lock().unwrap().push(format!("{} {}", request.method, request.path));
            send(stream, "502 Not Today", b"")
        });
        let here = serve(|_, stream| send(stream, "200 OK", b"here"));
        let client = client_through(Some(&proxy)).unwrap();
        let mut answer = client.get(&here).call().unwrap();
        assert_eq!(answer.body_mut().read_to_string().unwrap(), "here");
        assert!(asked.lock().unwrap().is_empty());
        assert!(client.get("https://shop.example/x").call().is_err(), "the proxy refuses");
        assert_eq!(*asked.lock().unwrap(), ["CONNECT shop.example:443"]);
    }
}
