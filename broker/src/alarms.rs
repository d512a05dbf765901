//! Alerts the broker itself raises for an appliance, below the appliance's own alert topics so that everybody who
//! watches it hears them. Pure: what is raised, and what has been quiet long enough to be cleared.
//!
//! ```text
//! a second living session took over ─▶ alert/taken_over ─┐            10 min without another ─▶ cleared
//! it published what it may not      ─▶ alert/refused    ─┘  again: the 10 min begin anew
//! ```

use std::collections::HashMap;
use std::time::{Duration, Instant};

use cardshop_protocol::ids::ApplianceId;
use cardshop_protocol::message::{Alert, VERSION};
use cardshop_protocol::time::Timestamp;
use cardshop_protocol::topic::{ApplianceTopic, Topic};

use crate::message::{Draft, Parts};

/// An alert is cleared when its cause has not come again for this long. Two machines with one identity take over from
/// each other every few seconds.
const QUIET_AFTER: Duration = Duration::from_secs(600);
/// Without a keep-alive a session counts as alive this long after it was last heard.
const ALIVE_WITHOUT_KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Longest text of an alert that comes from a client, characters.
const MAX_TOPIC_CHARS: usize = 128;

/// What there is to raise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Alarm {
    /// Two machines are the same appliance: a copied stick, or a restored backup.
    TakenOver,
    /// It publishes what it may not: a wrong or a hostile program has its token.
    Refused,
}

impl Alarm {
    pub(crate) const ALL: [Self; 2] = [Self::TakenOver, Self::Refused];

    fn topic(self, appliance: ApplianceId) -> String {
        let code = match self {
            Self::TakenOver => "taken_over",
            Self::Refused => "refused",
        };
        Topic::Appliance(appliance, ApplianceTopic::Alert(code.into())).to_string()
    }

    /// The alarm and appliance that a topic is of.
    pub(crate) fn of_topic(topic: &str) -> Option<(Self, ApplianceId)> {
        let Ok(Topic::Appliance(appliance, ApplianceTopic::Alert(_))) = topic.parse() else { return None };
        Self::ALL.into_iter().find(|alarm| alarm.topic(appliance) == topic).map(|alarm| (alarm, appliance))
    }

    /// The message that raises it.
    pub(crate) fn raise(self, appliance: ApplianceId, text: String, now: Timestamp) -> Draft {
        let alert = Alert { v: VERSION, text, since: now, slot: None };
        let payload = serde_json::to_vec(&alert).expect("an alert is plain JSON");
        self.draft(appliance, &payload)
    }

    /// The message that clears it.
    pub(crate) fn clear(self, appliance: ApplianceId) -> Draft {
        self.draft(appliance, &[])
    }

    fn draft(self, appliance: ApplianceId, payload: &[u8]) -> Draft {
        let topic = self.topic(appliance);
        let parts =
            Parts { sender: 0, qos: 1, retain: true, topic: &topic, properties: &[], payload, expires_ms: 0 };
        Draft::new(&parts)
    }
}

/// Whether a session that another one takes over from was alive. One whose line broke unnoticed was not heard for
/// longer than it had promised; that its machine comes back is no reason for alarm.
pub(crate) fn was_alive(silent_for: Duration, keep_alive: Option<Duration>) -> bool {
    silent_for <= keep_alive.unwrap_or(ALIVE_WITHOUT_KEEP_ALIVE)
}

/// What an alert says of a topic.
pub(crate) fn refused_text(topic: &str) -> String {
    let shown: String = topic.chars().take(MAX_TOPIC_CHARS).collect();
    format!("it tried to publish to {shown:?}, which is not its own")
}

/// Alarms that are raised now, with the time each is quiet from.
#[derive(Default)]
pub(crate) struct Alarms(HashMap<(Alarm, ApplianceId), Instant>);

impl Alarms {
    /// Something has happened again. True when the alert is to be published: once while it stands.
    pub(crate) fn happened(&mut self, alarm: Alarm, appliance: ApplianceId, now: Instant) -> bool {
        self.0.insert((alarm, appliance), now + QUIET_AFTER).is_none()
    }

    /// Those that have been quiet, which are forgotten.
    pub(crate) fn quiet(&mut self, now: Instant) -> Vec<(Alarm, ApplianceId)> {
        let quiet: Vec<_> = self.0.iter().filter(|(_, end)| **end <= now).map(|(key, _)| *key).collect();
        for key in &quiet {
            self.0.remove(key);
        }
        quiet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ApplianceId = ApplianceId([7; 8]);

    #[test]
    fn an_alarm_is_told_once_and_cleared_after_ten_quiet_minutes() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut alarms = Alarms::default();
        assert!(alarms.happened(Alarm::TakenOver, ID, at(0)));
        assert!(!alarms.happened(Alarm::TakenOver, ID, at(300)), "it stands already");
        assert!(alarms.happened(Alarm::Refused, ID, at(300)), "each has its own");
        assert_eq!(alarms.quiet(at(899)), []);
        let mut quiet = alarms.quiet(at(900));
        quiet.sort_by_key(|(alarm, _)| *alarm as u8);
        assert_eq!(quiet, [(Alarm::TakenOver, ID), (Alarm::Refused, ID)]);
        assert!(alarms.happened(Alarm::TakenOver, ID, at(901)), "and told again when it comes back");
    }

    #[test]
    fn a_session_whose_line_broke_was_not_alive() {
        let s = Duration::from_secs;
        assert!(was_alive(s(30), Some(s(30))));
        assert!(!was_alive(s(31), Some(s(30))));
        assert!(was_alive(s(60), None) && !was_alive(s(61), None));
    }

    #[test]
    fn its_messages_are_alerts_of_the_appliance_and_known_again() {
        let message = Alarm::TakenOver.raise(ID, "two".into(), Timestamp::from_ms(5)).stamp(1);
        assert_eq!(message.topic(), "cardshop/1/appliance/0707070707070707/alert/taken_over");
        assert!(message.retain());
        let alert: Alert = serde_json::from_slice(message.payload()).unwrap();
        assert_eq!((alert.text.as_str(), alert.since), ("two", Timestamp::from_ms(5)));
        for alarm in Alarm::ALL {
            let cleared = alarm.clear(ID).stamp(2);
            assert!(cleared.payload().is_empty());
            assert_eq!(Alarm::of_topic(cleared.topic()), Some((alarm, ID)));
        }
        assert_eq!(Alarm::of_topic("cardshop/1/appliance/0707070707070707/alert/cache_full"), None);
    }
}
