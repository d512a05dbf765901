//! Calls webhooks and ntfy: one POST with limits on time and size, never a redirect or a proxy. Where people name the address,
//! only public ones are connected to: they are checked where the name is resolved, and what was checked is what is called.

use std::time::Duration;

use serde_json::{Value, json};
use ureq::http::Uri;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use crate::core::notify::message::Fault;
use crate::core::notify::web::is_public;

/// Longest time for a call. **Source:** Standard Webhooks 1.0 asks for 15 to 30 seconds.
const CALL_WITHIN: Duration = Duration::from_secs(20);
/// Of an answer that is read, bytes: enough to say what was wrong.
const MAX_ANSWER: u64 = 1024;
/// Longest address, bytes.
pub(super) const MAX_URL: usize = 1000;

/// What is posted.
pub(super) struct Call {
    pub(super) url: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    /// Addresses of this machine and its network are called too.
    pub(super) anywhere: bool,
}

/// Resolves names to public addresses only.
#[derive(Debug, Default)]
struct PublicOnly(DefaultResolver);

impl Resolver for PublicOnly {
    fn resolve(
        &self,
        uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let all = self.0.resolve(uri, config, timeout)?;
        let mut public = self.empty();
        for address in all.iter().filter(|address| is_public(address.ip())) {
            public.push(*address);
        }
        if public.is_empty() {
            let text = "the address is of this machine or its network, which webhooks do not lead to";
            return Err(ureq::Error::Io(std::io::Error::new(std::io::ErrorKind::PermissionDenied, text)));
        }
        Ok(public)
    }
}

/// Makes a call; the status, and what was answered.
pub(super) async fn call(call: Call, roots: RootCerts) -> Result<(u16, String), Fault> {
    let calling = tokio::task::spawn_blocking(move || call_now(call, roots));
    calling.await.unwrap_or_else(|_| Err(Fault::Later("stopped".into())))
}

fn call_now(call: Call, roots: RootCerts) -> Result<(u16, String), Fault> {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(CALL_WITHIN))
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .user_agent(concat!("cardshop/", env!("CARGO_PKG_VERSION")))
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .build();
    let agent = if call.anywhere {
        ureq::Agent::new_with_config(config)
    } else {
        ureq::Agent::with_parts(config, DefaultConnector::default(), PublicOnly::default())
    };
    let mut request = agent.post(&call.url);
    for (name, value) in &call.headers {
        request = request.header(*name, value);
    }
    // The text of an error may hold the address, which a person named; never a secret, which is in a header.
    let mut response = request.send(&call.body[..]).map_err(|e| Fault::Later(e.to_string()))?;
    let status = response.status().as_u16();
    let answer = response.body_mut().with_config().limit(MAX_ANSWER).lossy_utf8(true).read_to_string();
    let said = match answer.unwrap_or_default().trim() {
        "" => format!("answered {status}"),
        text => format!("answered {status}: {text}"),
    };
    Ok((status, said))
}

/// What the answer of a webhook means.
pub(super) fn taken((status, said): (u16, String)) -> Result<String, Fault> {
    match status {
        200..=299 => Ok(said),
        // Gone for good. **Source:** RFC 9110 §15.5.11.
        410 => Err(Fault::Never(said)),
        _ => Err(Fault::Later(said)),
    }
}

/// Server and topic of an ntfy address. **Source:** ntfy's publishing API, "Publish as JSON".
pub(super) fn topic(url: &str) -> Option<(String, String)> {
    let url = url.trim_end_matches('/');
    let (server, topic) = url.rsplit_once('/')?;
    let is_topic = (1..=64).contains(&topic.len())
        && topic.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let host = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://"))?;
    (is_topic && !host.is_empty()).then(|| (server.to_owned(), topic.to_owned()))
}

/// A message to a topic.
pub(super) fn to_topic(
    url: &str,
    token: Option<&str>,
    title: &str,
    text: &str,
    click: &str,
    anywhere: bool,
) -> Result<Call, Fault> {
    let (server, topic) = topic(url).ok_or_else(|| Fault::Never(format!("{url} is no topic")))?;
    let mut body = json!({"topic": topic, "title": title, "message": text});
    if !click.is_empty() {
        body["click"] = Value::String(click.to_owned());
    }
    let mut headers = vec![("content-type", "application/json".to_owned())];
    headers.extend(token.map(|token| ("authorization", format!("Bearer {token}"))));
    Ok(Call { url: server, headers, body: body.to_string().into_bytes(), anywhere })
}

/// Why an address cannot be one of a webhook.
pub(super) fn check_url(url: &str) -> Result<(), String> {
    if url.len() > MAX_URL {
        return Err(format!("has more than {MAX_URL} bytes"));
    }
    let uri: Uri = url.parse().map_err(|e| format!("is no address: {e}"))?;
    let web = matches!(uri.scheme_str(), Some("https" | "http"));
    match uri.authority() {
        Some(authority) if web && !authority.host().is_empty() && !authority.as_str().contains('@') => Ok(()),
        _ => Err("must begin with https:// or http:// and a host, without a user".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_the_last_part_of_its_address() {
        assert_eq!(topic("https://ntfy.sh/shop-1/"), Some(("https://ntfy.sh".into(), "shop-1".into())));
        assert_eq!(topic("http://h:1/ntfy/t"), Some(("http://h:1/ntfy".into(), "t".into())));
        for no in ["https://ntfy.sh", "https:///x", "ftp://x/y", "https://x/a b", "x", ""] {
            assert_eq!(topic(no), None, "{no}");
        }
    }

    #[test]
    fn a_webhook_is_an_address_of_the_web_without_a_password() {
        check_url("https://example.org/hook?x=1").unwrap();
        for no in
            ["file:///etc/passwd", "https://", "https://ada:secret@example.org", "example.org", "gopher://x/"]
        {
            assert!(check_url(no).is_err(), "{no}");
        }
    }

    #[tokio::test]
    async fn what_only_this_machine_has_is_not_connected_to() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "127.1"] {
            let url = format!("http://{host}:{port}/");
            let fault =
                call(Call { url, headers: Vec::new(), body: Vec::new(), anywhere: false }, RootCerts::WebPki)
                    .await
                    .unwrap_err();
            assert!(matches!(&fault, Fault::Later(_)), "{host}: {fault:?}");
            assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "{host}");
        }
    }
}
