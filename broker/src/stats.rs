//! What the broker counts: connections, messages, drops and refusals by reason. Counting decides nothing; `/metrics` of
//! the program that links the broker shows it. **Source:** Prometheus text exposition format 0.0.4.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why somebody or something was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Too many new connections a second from one address.
    ConnectRate,
    /// Too many open connections of all.
    Connections,
    /// Too many open connections of one address.
    ConnectionsOfAddress,
    /// No TLS handshake within its time, or none we can finish.
    NoTls,
    /// No CONNECT within its time, or not MQTT we speak.
    NoConnect,
    /// Wrong, expired or revoked token, or it is another's.
    BadLogin,
    /// A good token without rights here, or a will where it may not publish.
    NotAuthorized,
    /// The client id is not the user name.
    ClientId,
    /// A publish to what the client may not write.
    Publish,
    /// A filter that would match what the client may not read, or is none.
    Subscribe,
    /// Bytes that are not MQTT, or larger than the limit.
    Malformed,
    /// Messages came faster than the client read them.
    SlowConsumer,
    /// The token ended or was revoked while connected.
    TokenEnded,
    /// Another session of the same client took over.
    TakenOver,
    /// Nothing was heard for one and a half times the keep-alive.
    KeepAlive,
    /// A retained message above the limits: delivered, not kept.
    RetainedFull,
    /// No token can be checked: nobody has given the broker the scheduler's keys yet.
    NoKeys,
}

/// All refusals with the name each has in metrics.
const REFUSALS: [(Refusal, &str); 17] = [
    (Refusal::ConnectRate, "connect_rate"),
    (Refusal::Connections, "connections"),
    (Refusal::ConnectionsOfAddress, "connections_of_address"),
    (Refusal::NoTls, "no_tls"),
    (Refusal::NoConnect, "no_connect"),
    (Refusal::BadLogin, "bad_login"),
    (Refusal::NotAuthorized, "not_authorized"),
    (Refusal::ClientId, "client_id"),
    (Refusal::Publish, "publish"),
    (Refusal::Subscribe, "subscribe"),
    (Refusal::Malformed, "malformed"),
    (Refusal::SlowConsumer, "slow_consumer"),
    (Refusal::TokenEnded, "token_ended"),
    (Refusal::TakenOver, "taken_over"),
    (Refusal::KeepAlive, "keep_alive"),
    (Refusal::RetainedFull, "retained_full"),
    (Refusal::NoKeys, "no_keys"),
];

/// Why a message did not reach a client that it was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// Its time was over before it could leave.
    Expired,
    /// The client does not take packets that large.
    TooLarge,
    /// The client left, or was closed, before it could leave.
    SessionEnded,
}

const DROPS: [(Dropped, &str); 3] = [
    (Dropped::Expired, "expired"),
    (Dropped::TooLarge, "too_large"),
    (Dropped::SessionEnded, "session_ended"),
];

/// The live counters.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) open: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) logged_in: AtomicU64,
    pub(crate) messages_in: AtomicU64,
    pub(crate) messages_out: AtomicU64,
    pub(crate) retained: AtomicU64,
    drops: [AtomicU64; DROPS.len()],
    refusals: [AtomicU64; REFUSALS.len()],
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn refuse(&self, refusal: Refusal) {
        count(&self.refusals[refusal as usize]);
    }

    pub(crate) fn dropped(&self, why: Dropped, messages: u64) {
        self.drops[why as usize].fetch_add(messages, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            open: read(&self.open),
            accepted: read(&self.accepted),
            logged_in: read(&self.logged_in),
            messages_in: read(&self.messages_in),
            messages_out: read(&self.messages_out),
            retained: read(&self.retained),
            drops: std::array::from_fn(|index| read(&self.drops[index])),
            refusals: std::array::from_fn(|index| read(&self.refusals[index])),
        }
    }
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Connections open now, logged in or not.
    pub open: u64,
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Logins since the start.
    pub logged_in: u64,
    /// Messages taken from clients, wills included.
    pub messages_in: u64,
    /// Messages handed to clients.
    pub messages_out: u64,
    /// Retained messages kept now.
    pub retained: u64,
    drops: [u64; DROPS.len()],
    refusals: [u64; REFUSALS.len()],
}

impl Stats {
    /// How often `refusal` happened since the start.
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refusals[refusal as usize]
    }

    /// How many messages did not reach a client because of `why`, since the start.
    pub fn dropped(&self, why: Dropped) -> u64 {
        self.drops[why as usize]
    }

    /// The text for Prometheus.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let mut metric = |name: &str, kind: &str, help: &str, values: &[(String, u64)]| {
            let name = format!("cardshop_broker_{name}");
            text.push_str(&format!("# HELP {name} {help}.\n# TYPE {name} {kind}\n"));
            for (label, value) in values {
                text.push_str(&format!("{name}{label} {value}\n"));
            }
        };
        let plain = |value| vec![(String::new(), value)];
        let by_reason = |name: &str, value| (format!("{{reason=\"{name}\"}}"), value);
        metric("connections", "gauge", "Open connections", &plain(self.open));
        metric("retained_messages", "gauge", "Retained messages kept", &plain(self.retained));
        metric("connections_accepted_total", "counter", "Connections accepted", &plain(self.accepted));
        metric("logins_total", "counter", "Logins", &plain(self.logged_in));
        metric("messages_received_total", "counter", "Messages taken from clients", &plain(self.messages_in));
        metric("messages_sent_total", "counter", "Messages handed to clients", &plain(self.messages_out));
        let drops: Vec<_> = DROPS.iter().map(|(why, name)| by_reason(name, self.dropped(*why))).collect();
        metric("messages_dropped_total", "counter", "Messages that did not reach a client", &drops);
        let refusals: Vec<_> = self.refusals().map(|(name, count)| by_reason(name, count)).collect();
        metric("refusals_total", "counter", "What was refused, and sessions that were ended", &refusals);
        text
    }

    /// Every refusal's name, as in metrics, with its count.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REFUSALS.iter().map(|(refusal, name)| (*name, self.refused(*refusal)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_a_counter_of_its_own_under_its_name() {
        for (index, (refusal, _)) in REFUSALS.iter().enumerate() {
            assert_eq!(*refusal as usize, index);
        }
        let counters = Counters::default();
        counters.refuse(Refusal::Subscribe);
        counters.refuse(Refusal::Subscribe);
        let counted: Vec<_> = counters.snapshot().refusals().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("subscribe", 2)]);
    }

    #[test]
    fn the_metrics_name_every_reason() {
        let counters = Counters::default();
        counters.refuse(Refusal::BadLogin);
        counters.dropped(Dropped::SessionEnded, 7);
        let text = counters.snapshot().render();
        assert!(text.contains("\ncardshop_broker_refusals_total{reason=\"bad_login\"} 1\n"), "{text}");
        assert!(
            text.contains("\ncardshop_broker_messages_dropped_total{reason=\"session_ended\"} 7\n"),
            "{text}"
        );
        assert!(
            text.contains("# TYPE cardshop_broker_connections gauge\ncardshop_broker_connections 0\n"),
            "{text}"
        );
        assert_eq!(text.matches("cardshop_broker_refusals_total{").count(), REFUSALS.len());
    }
}
