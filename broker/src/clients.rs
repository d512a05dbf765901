//! One session per client id. A second one ends the first: it waits until the first has left the router and only
//! then takes the seat, one at a time and in the order they came, so that the last to come stays.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, oneshot};

/// A session that does not leave within this is stuck; who wants its seat is told to come again.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);

/// The session in the seat.
struct Occupant {
    /// Tells it to leave, and for whom.
    leave: oneshot::Sender<SocketAddr>,
    /// Ends when it has left.
    left: oneshot::Receiver<()>,
}

type Seat = AsyncMutex<Option<Occupant>>;

/// All seats.
#[derive(Default)]
pub(crate) struct Clients(Mutex<HashMap<String, Arc<Seat>>>);

/// The right to be a client id's session. Dropping it says that the session has left.
pub(crate) struct Place {
    clients: Arc<Clients>,
    client_id: String,
    seat: Option<Arc<Seat>>,
    /// Becomes ready when another session takes over: the address it comes from.
    pub(crate) taken_over: oneshot::Receiver<SocketAddr>,
    _left: oneshot::Sender<()>,
}

/// The session before does not leave.
#[derive(Debug)]
pub(crate) struct SeatStuck;

impl Clients {
    /// Takes the seat of `client_id` for a client at `peer`; true when another session had to leave it.
    pub(crate) async fn take(
        self: &Arc<Self>,
        client_id: &str,
        peer: SocketAddr,
    ) -> Result<(Place, bool), SeatStuck> {
        let seat = {
            let mut seats = self.0.lock().expect("no holder panics");
            seats.entry(client_id.to_owned()).or_default().clone()
        };
        let (leave, taken_over) = oneshot::channel();
        let (left_tx, left) = oneshot::channel();
        let place = Place {
            clients: self.clone(),
            client_id: client_id.to_owned(),
            seat: Some(seat.clone()),
            taken_over,
            _left: left_tx,
        };
        // First come, first served: tokio's mutex is fair.
        let mut occupant = seat.lock().await;
        let mut had_to_leave = false;
        if let Some(old) = occupant.take() {
            had_to_leave = old.leave.send(peer).is_ok();
            if tokio::time::timeout(LEAVE_WITHIN, old.left).await.is_err() {
                return Err(SeatStuck);
            }
        }
        *occupant = Some(Occupant { leave, left });
        drop(occupant);
        Ok((place, had_to_leave))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut seats = self.clients.0.lock().expect("no holder panics");
        drop(self.seat.take());
        // Nobody sits in it and nobody waits for it: the map holds the only handle.
        if seats.get(&self.client_id).is_some_and(|seat| Arc::strong_count(seat) == 1) {
            seats.remove(&self.client_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

    #[tokio::test]
    async fn the_last_to_come_gets_the_seat_after_the_others_have_left_it() {
        let clients = Arc::new(Clients::default());
        let (mut first, had) = clients.take("a", PEER).await.unwrap();
        assert!(!had);
        let waiting = tokio::spawn({
            let clients = clients.clone();
            async move { clients.take("a", PEER).await.unwrap() }
        });
        (&mut first.taken_over).await.unwrap();
        assert!(!waiting.is_finished(), "the first has not left yet");
        drop(first);
        let (second, had) = waiting.await.unwrap();
        assert!(had);
        drop(second);
        assert!(clients.0.lock().unwrap().is_empty(), "an empty seat is forgotten");
    }

    #[tokio::test]
    async fn other_clients_do_not_wait() {
        let clients = Arc::new(Clients::default());
        let (_first, _) = clients.take("a", PEER).await.unwrap();
        let (_other, had) = clients.take("b", PEER).await.unwrap();
        assert!(!had);
    }
}
