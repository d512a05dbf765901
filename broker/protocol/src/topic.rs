//! Every MQTT topic of Cardshop, as a type. All lie below `cardshop/1/`, but Home Assistant's discovery.

use std::fmt;
use std::str::FromStr;

use crate::ids::{ApplianceId, Channel, OrderId, SlotId};

/// What all our topics begin with; the digit is the version of the whole contract.
pub const PREFIX: &str = "cardshop/1/";
/// Largest JSON payload, bytes.
pub const MAX_PAYLOAD_SIZE: usize = 8 * 1024;
/// Largest payload of `desired`, `info` and `reported`, bytes.
pub const MAX_LARGE_PAYLOAD_SIZE: usize = 64 * 1024;

/// A topic, whole and without wildcards.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Online or offline of the leading scheduler. Retained, will.
    ServerStatus,
    /// UTC every 60 s.
    ServerTime,
    /// One of an appliance's.
    Appliance(ApplianceId, ApplianceTopic),
    /// Totals for screens. Retained.
    Board(Channel),
    /// An order as integrators see it. Retained.
    Order(Channel, OrderId),
}

/// A topic below `appliance/{id}/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ApplianceTopic {
    /// Presence. From the agent, retained, will.
    Status,
    /// Versions, hardware, slots. From the agent, retained.
    Info,
    /// Every 30 s. From the agent.
    Health,
    /// What the appliance should do. From the scheduler, retained.
    Desired,
    /// What of it is applied. From the agent, retained.
    Reported,
    /// A slot's state. From the agent, retained.
    SlotState(SlotId),
    /// A slot's progress, at most 1 Hz. From the agent.
    SlotProgress(SlotId),
    /// Numbered facts of the outbox. From the agent.
    Event,
    /// How far they are stored. From the scheduler, retained.
    EventAck,
    /// Reflexes. From the scheduler, never retained.
    Cmd,
    /// Their answers. From the agent.
    CmdReply,
    /// A raised alert; empty payload = cleared. From the agent, retained.
    Alert(String),
}

/// A text that is not one of our topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a Cardshop topic")]
pub struct UnknownTopic;

impl Topic {
    /// True when the broker keeps the last message.
    pub fn retained(&self) -> bool {
        match self {
            Self::ServerTime => false,
            Self::ServerStatus | Self::Board(_) | Self::Order(..) => true,
            Self::Appliance(_, topic) => !matches!(
                topic,
                ApplianceTopic::Health
                    | ApplianceTopic::SlotProgress(_)
                    | ApplianceTopic::Event
                    | ApplianceTopic::Cmd
                    | ApplianceTopic::CmdReply
            ),
        }
    }

    /// Largest payload, bytes.
    pub fn max_payload_size(&self) -> usize {
        use ApplianceTopic::{Desired, Info, Reported};
        match self {
            Self::Appliance(_, Desired | Info | Reported) => MAX_LARGE_PAYLOAD_SIZE,
            _ => MAX_PAYLOAD_SIZE,
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        match self {
            Self::ServerStatus => f.write_str("server/status"),
            Self::ServerTime => f.write_str("server/time"),
            Self::Appliance(id, topic) => write!(f, "appliance/{id}/{topic}"),
            Self::Board(channel) => write!(f, "board/{channel}"),
            Self::Order(channel, order) => write!(f, "order/{channel}/{order}"),
        }
    }
}

impl fmt::Display for ApplianceTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status => f.write_str("status"),
            Self::Info => f.write_str("info"),
            Self::Health => f.write_str("health"),
            Self::Desired => f.write_str("desired"),
            Self::Reported => f.write_str("reported"),
            Self::SlotState(slot) => write!(f, "slot/{slot}/state"),
            Self::SlotProgress(slot) => write!(f, "slot/{slot}/progress"),
            Self::Event => f.write_str("event"),
            Self::EventAck => f.write_str("event/ack"),
            Self::Cmd => f.write_str("cmd"),
            Self::CmdReply => f.write_str("cmd/reply"),
            Self::Alert(code) => write!(f, "alert/{code}"),
        }
    }
}

impl FromStr for Topic {
    type Err = UnknownTopic;
    fn from_str(text: &str) -> Result<Self, UnknownTopic> {
        let rest = text.strip_prefix(PREFIX).ok_or(UnknownTopic)?;
        let levels: Vec<&str> = rest.split('/').collect();
        match levels[..] {
            ["server", "status"] => Ok(Self::ServerStatus),
            ["server", "time"] => Ok(Self::ServerTime),
            ["board", channel] => Ok(Self::Board(id(channel)?)),
            ["order", channel, order] => Ok(Self::Order(id(channel)?, id(order)?)),
            ["appliance", appliance, ref rest @ ..] => {
                Ok(Self::Appliance(id(appliance)?, appliance_topic(rest)?))
            }
            _ => Err(UnknownTopic),
        }
    }
}

fn id<T: FromStr>(text: &str) -> Result<T, UnknownTopic> {
    text.parse().map_err(|_| UnknownTopic)
}

fn appliance_topic(levels: &[&str]) -> Result<ApplianceTopic, UnknownTopic> {
    Ok(match levels {
        ["status"] => ApplianceTopic::Status,
        ["info"] => ApplianceTopic::Info,
        ["health"] => ApplianceTopic::Health,
        ["desired"] => ApplianceTopic::Desired,
        ["reported"] => ApplianceTopic::Reported,
        ["slot", slot, "state"] => ApplianceTopic::SlotState(id(slot)?),
        ["slot", slot, "progress"] => ApplianceTopic::SlotProgress(id(slot)?),
        ["event"] => ApplianceTopic::Event,
        ["event", "ack"] => ApplianceTopic::EventAck,
        ["cmd"] => ApplianceTopic::Cmd,
        ["cmd", "reply"] => ApplianceTopic::CmdReply,
        ["alert", code] if is_alert_code(code) => ApplianceTopic::Alert((*code).to_owned()),
        _ => return Err(UnknownTopic),
    })
}

fn is_alert_code(code: &str) -> bool {
    (1..=40).contains(&code.len())
        && code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_is_read_back_as_it_is_written() {
        let appliance = ApplianceId([0x1f; 8]);
        let slot = SlotId::numbered(2);
        let below = [
            ApplianceTopic::Status,
            ApplianceTopic::Info,
            ApplianceTopic::Health,
            ApplianceTopic::Desired,
            ApplianceTopic::Reported,
            ApplianceTopic::SlotState(slot.clone()),
            ApplianceTopic::SlotProgress(slot),
            ApplianceTopic::Event,
            ApplianceTopic::EventAck,
            ApplianceTopic::Cmd,
            ApplianceTopic::CmdReply,
            ApplianceTopic::Alert("cache_full".into()),
        ];
        let channel: Channel = "demo".parse().unwrap();
        let mut topics = vec![
            Topic::ServerStatus,
            Topic::ServerTime,
            Topic::Board(channel.clone()),
            Topic::Order(channel, OrderId::from_parts(1, 2)),
        ];
        topics.extend(below.map(|t| Topic::Appliance(appliance, t)));
        for topic in topics {
            assert_eq!(topic.to_string().parse(), Ok(topic.clone()), "{topic}");
        }
    }

    #[test]
    fn what_is_not_ours_is_no_topic() {
        for text in [
            "",
            "cardshop/1/",
            "cardshop/2/server/time",
            "cardshop/1/appliance/+/status",
            "cardshop/1/server/#",
        ] {
            assert_eq!(text.parse::<Topic>(), Err(UnknownTopic), "{text}");
        }
    }

    #[test]
    fn commands_are_never_retained() {
        let id = ApplianceId([0; 8]);
        assert!(!Topic::Appliance(id, ApplianceTopic::Cmd).retained());
        assert!(Topic::Appliance(id, ApplianceTopic::Desired).retained());
    }
}
