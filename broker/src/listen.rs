//! Accepts connections within the limits and serves each in a task of its own. An accept that fails (no file
//! descriptors left) is tried again; it never ends the listener.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::serve::{Hub, serve, stopped};
use crate::stats::{Refusal, count};

/// Pause after a failed accept.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// What sessions have to say goodbye and leave their wills when the broker stops.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);
/// The connect rate is counted over this.
const WINDOW: Duration = Duration::from_secs(1);

/// New connections of each address in the current second. Forgets all of them every second, so it never holds
/// more addresses than connections were accepted in one.
struct ConnectRate {
    limit: u32,
    since: Instant,
    counts: HashMap<IpAddr, u32>,
}

impl ConnectRate {
    fn new(limit: u32, now: Instant) -> Self {
        Self { limit, since: now, counts: HashMap::new() }
    }

    fn admits(&mut self, address: IpAddr, now: Instant) -> bool {
        if now.duration_since(self.since) >= WINDOW {
            self.since = now;
            self.counts.clear();
        }
        let count = self.counts.entry(address).or_default();
        *count += 1;
        *count <= self.limit
    }
}

/// Runs until the broker stops; returns when all sessions have left.
pub(crate) async fn listen(listener: TcpListener, hub: Arc<Hub>) {
    let mut stopping = hub.stopping.clone();
    let mut sessions = JoinSet::new();
    let mut rate = ConnectRate::new(hub.limits.connects_per_second, Instant::now());
    let mut number = 0;
    loop {
        let accepted = tokio::select! {
            () = stopped(&mut stopping) => break,
            Some(_) = sessions.join_next(), if !sessions.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        count(&hub.counters.accepted);
        let refusal = if !rate.admits(peer.ip(), Instant::now()) {
            Some(Refusal::ConnectRate)
        } else if hub.counters.open.load(Ordering::Relaxed) >= hub.limits.connections as u64 {
            Some(Refusal::Connections)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            debug!(%peer, ?refusal, "refused a connection");
            hub.counters.refuse(refusal);
            continue;
        }
        number += 1;
        sessions.spawn(connection(stream, peer, number, Open::new(hub.clone())));
    }
    drop(listener);
    let left = async { while sessions.join_next().await.is_some() {} };
    if tokio::time::timeout(LEAVE_WITHIN, left).await.is_err() {
        warn!("some sessions did not leave in time and are cut off");
    }
}

async fn connection(stream: TcpStream, peer: std::net::SocketAddr, number: u64, open: Open) {
    // Small packets go at once; without it a report may wait 40 ms for an acknowledgement of the one before.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, %error, "the connection is gone already");
        return;
    }
    serve(stream, peer, number, open.0.clone()).await;
}

/// Counts a connection as open while it lives, however it ends.
struct Open(Arc<Hub>);

impl Open {
    fn new(hub: Arc<Hub>) -> Self {
        count(&hub.counters.open);
        Self(hub)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.counters.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_rate_and_a_new_second_starts_anew() {
        let start = Instant::now();
        let mut rate = ConnectRate::new(2, start);
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        assert!(rate.admits(one, start) && rate.admits(one, start));
        assert!(!rate.admits(one, start));
        assert!(rate.admits(other, start));
        assert!(!rate.admits(one, start + Duration::from_millis(999)));
        assert!(rate.admits(one, start + Duration::from_millis(1000)));
    }
}
