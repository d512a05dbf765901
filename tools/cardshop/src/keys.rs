//! Keeps a service's list of keys fresh: polls the scheduler every 2 s with its ETag. While the scheduler is
//! away the last answer holds.

use std::time::Duration;

use cardshop_card::StopFlag;
use cardshop_protocol::keys::KeyList;
use cardshop_protocol::token::SharedKeys;
use tokio::sync::oneshot;
use ureq::tls::{RootCerts, TlsConfig};

/// Time between polls: with it a disabled account stops everywhere in 5 s.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// A poll that takes longer counts as failed.
const POLL_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest list that is read, bytes: some thousand appliances.
const MAX_LIST_SIZE: u64 = 16 * 1024 * 1024;

/// Polls until `stop`, in a thread of its own, a scheduler whose certificate is of one of `roots`. The answer is fulfilled when the first list is there.
pub(crate) fn keep_fresh(
    scheduler: &str,
    roots: RootCerts,
    keys: SharedKeys,
    stop: StopFlag,
) -> oneshot::Receiver<()> {
    let url = format!("{}/api/v1/keys", scheduler.trim_end_matches('/'));
    let (first, first_here) = oneshot::channel();
    let mut first = Some(first);
    std::thread::spawn(move || {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(POLL_TIMEOUT))
            .http_status_as_error(false)
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build()
            .into();
        let mut etag = None;
        while !stop.is_stopped() {
            match poll(&agent, &url, etag.as_deref()) {
                Ok(Some((list, tag))) => {
                    keys.replace(list);
                    etag = tag;
                    // Nobody needs to wait for it.
                    let _ = first.take().map(|first| first.send(()));
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "cannot read the scheduler's keys, the last ones hold"),
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    });
    first_here
}

/// The list and its ETag, or nothing when it has not changed.
fn poll(
    agent: &ureq::Agent,
    url: &str,
    etag: Option<&str>,
) -> anyhow::Result<Option<(KeyList, Option<String>)>> {
    let mut request = agent.get(url);
    if let Some(etag) = etag {
        request = request.header("If-None-Match", etag);
    }
    let mut answer = request.call()?;
    match answer.status().as_u16() {
        304 => Ok(None),
        200 => {
            let tag = answer.headers().get("etag").and_then(|t| t.to_str().ok()).map(str::to_owned);
            Ok(Some((answer.body_mut().with_config().limit(MAX_LIST_SIZE).read_json()?, tag)))
        }
        status => anyhow::bail!("{url} answered {status}"),
    }
}
