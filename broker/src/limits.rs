//! How much one client, one address and all together may ask of the broker. Plain numbers; who enforces each is
//! said at its field. They hold memory and processor time down, rights are in `rights`.

/// Largest packet, bytes: the largest payload of the contract (64 KiB) with its topic and MQTT 5 properties.
pub const DEFAULT_PACKET_SIZE: usize = 80 * 1024;
/// Open connections, logged in or not. An idle one costs about 50 KiB, one that had bursts of a hundred messages up
/// to 600 KiB (measured, unoptimised build): 1 to 12 GiB for all of them.
pub const DEFAULT_CONNECTIONS: usize = 20_000;
/// Open connections of one address: the largest site behind one router.
pub const DEFAULT_CONNECTIONS_PER_ADDRESS: usize = 10_000;
/// New connections a second from one address: a whole site behind one router comes back in seconds.
pub const DEFAULT_CONNECTS_PER_SECOND: u32 = 200;
/// Filters of one client. Home Assistant subscribes to each entity: 64 slots of three topics fit.
pub const DEFAULT_SUBSCRIPTIONS: usize = 256;
/// QoS 1 messages one client may leave unacknowledged; also what MQTT 5 is told as Receive Maximum.
pub const DEFAULT_INFLIGHT: u16 = 100;
/// Messages waiting for one client; beyond it the client is dropped and reads the retained picture again.
pub const DEFAULT_QUEUE_MESSAGES: usize = 10_000;
/// Bytes waiting for one client; beyond it the client is dropped.
pub const DEFAULT_QUEUE_BYTES: usize = 16 * 1024 * 1024;
/// Retained messages of all clients: 10,000 appliances with 16 slots each.
pub const DEFAULT_RETAINED_MESSAGES: usize = 200_000;
/// Bytes of all retained messages, which live in memory.
pub const DEFAULT_RETAINED_BYTES: usize = 512 * 1024 * 1024;
/// Retained messages below one appliance: 64 slots and every alert there is, ten times over.
pub const DEFAULT_RETAINED_PER_APPLIANCE: usize = 1_000;

/// The limits of one broker.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest packet a client may send, bytes. Session.
    pub packet_size: usize,
    /// Open connections, logged in or not. Listener.
    pub connections: usize,
    /// Open connections of one address. Listener.
    pub connections_per_address: usize,
    /// New connections a second from one address. Listener.
    pub connects_per_second: u32,
    /// Filters of one client. Session.
    pub subscriptions: usize,
    /// Unacknowledged QoS 1 messages of one client, both ways. Session.
    pub inflight: u16,
    /// Messages waiting for one client. Session.
    pub queue_messages: usize,
    /// Bytes waiting for one client. Session.
    pub queue_bytes: usize,
    /// Retained messages of all. Exchange.
    pub retained_messages: usize,
    /// Bytes of all retained messages. Exchange.
    pub retained_bytes: usize,
    /// Retained messages below one appliance. Exchange.
    pub retained_per_appliance: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packet_size: DEFAULT_PACKET_SIZE,
            connections: DEFAULT_CONNECTIONS,
            connections_per_address: DEFAULT_CONNECTIONS_PER_ADDRESS,
            connects_per_second: DEFAULT_CONNECTS_PER_SECOND,
            subscriptions: DEFAULT_SUBSCRIPTIONS,
            inflight: DEFAULT_INFLIGHT,
            queue_messages: DEFAULT_QUEUE_MESSAGES,
            queue_bytes: DEFAULT_QUEUE_BYTES,
            retained_messages: DEFAULT_RETAINED_MESSAGES,
            retained_bytes: DEFAULT_RETAINED_BYTES,
            retained_per_appliance: DEFAULT_RETAINED_PER_APPLIANCE,
        }
    }
}
