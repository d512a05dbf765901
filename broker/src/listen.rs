//! Accepts connections within the limits and serves each in a task of its own. An accept that fails (no file
//! descriptors left) is tried again; it never ends the listener.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::admission::Source;
use crate::serve::{Hub, greet, stopped};
use crate::stats::{Refusal, count};
use crate::tls::Tls;

/// Pause after a failed accept.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// What sessions have to say goodbye and leave their wills when the broker stops.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// Runs until the broker stops; returns when all sessions of this port have left.
pub(crate) async fn listen(listener: TcpListener, tls: Option<Arc<Tls>>, hub: Arc<Hub>) {
    let mut stopping = hub.stopping.clone();
    let mut sessions = JoinSet::new();
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
        let open = match Open::new(&hub, Source::of(peer.ip())) {
            Ok(open) => open,
            Err(refusal) => {
                debug!(%peer, ?refusal, "refused a connection");
                hub.counters.refuse(refusal);
                continue;
            }
        };
        sessions.spawn(connection(stream, peer, tls.clone(), open));
    }
    drop(listener);
    let left = async { while sessions.join_next().await.is_some() {} };
    if tokio::time::timeout(LEAVE_WITHIN, left).await.is_err() {
        warn!("some sessions did not leave in time and are cut off");
    }
}

async fn connection(stream: TcpStream, peer: std::net::SocketAddr, tls: Option<Arc<Tls>>, open: Open) {
    // Small packets go at once; without it a report may wait 40 ms for an acknowledgement of the one before.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, %error, "the connection is gone already");
        return;
    }
    greet(stream, tls, peer, open.hub.clone()).await;
}

/// Counts a connection as open while it lives, however it ends.
struct Open {
    hub: Arc<Hub>,
    source: Source,
}

impl Open {
    fn new(hub: &Arc<Hub>, source: Source) -> Result<Self, Refusal> {
        hub.admission.lock().expect("no holder panics").admit(source, Instant::now())?;
        count(&hub.counters.open);
        Ok(Self { hub: hub.clone(), source })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.hub.admission.lock().expect("no holder panics").left(self.source);
        self.hub.counters.open.fetch_sub(1, Ordering::Relaxed);
    }
}
