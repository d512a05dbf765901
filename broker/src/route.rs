//! Which of the Router's filters carry a topic, and which of them a subscription needs. Pure.
//!
//! The Router never sees our topics: every filter it ever met costs it memory for ever, and so does every topic.
//! It sees one key per tree of the contract, and one per appliance for what that reads. A new key costs it a look at
//! every filter it has, one for each appliance, so that what appliances write has one key for all:
//!
//! ```text
//! cardshop/1/server/…                          → server
//! cardshop/1/board/…  cardshop/1/order/…       → board, order
//! cardshop/1/appliance/{id}/desired cmd event/ack → appliance/{id}/in
//! cardshop/1/appliance/{id}/…                  → appliance/out
//! homeassistant/…                              → homeassistant
//! ```
//!
//! A session subscribes to the few routes its filters can reach and picks what matches. The routes of one
//! session never overlap, so nothing arrives twice. Order holds within a route, which is more than MQTT asks for
//! (§4.6: within a topic); between two routes of a session it does not.

use bytes::Bytes;
use cardshop_protocol::ids::ApplianceId;
use cardshop_protocol::topic::{ApplianceTopic, Topic};

use crate::filter;
use crate::rights::Principal;

/// A filter of the Router's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Route {
    Server,
    Board,
    Order,
    /// All appliances, both ways.
    Appliances,
    /// What one appliance reads.
    Inbox(ApplianceId),
    HomeAssistant,
}

/// The trees every topic that may be published lies in.
const TREES: [(&str, Route); 5] = [
    ("cardshop/1/server", Route::Server),
    ("cardshop/1/board", Route::Board),
    ("cardshop/1/order", Route::Order),
    ("cardshop/1/appliance", Route::Appliances),
    ("homeassistant", Route::HomeAssistant),
];

impl Route {
    /// The text the Router knows it by.
    pub(crate) fn filter(self) -> String {
        match self {
            Self::Server => "server".into(),
            Self::Board => "board".into(),
            Self::Order => "order".into(),
            Self::Appliances => "appliance/#".into(),
            Self::Inbox(id) => format!("appliance/{id}/in"),
            Self::HomeAssistant => "homeassistant".into(),
        }
    }

    /// The routes that exist whoever is connected.
    pub(crate) fn wide() -> Vec<String> {
        TREES.iter().map(|(_, route)| route.filter()).collect()
    }

    /// Those that carry what `filter` matches, for `principal`.
    pub(crate) fn of_filter(principal: &Principal, filter: &str) -> Vec<Self> {
        let trees = TREES.iter().filter(|(root, _)| filter::reaches(filter, root));
        let routes = trees.map(|(_, route)| match (route, principal.appliance) {
            // An appliance is granted nothing of others and nothing of its own but its inbox.
            (Self::Appliances, Some(own)) => Self::Inbox(own),
            _ => *route,
        });
        routes.collect()
    }
}

/// Number of different [`log_of`] answers.
pub(crate) const LOGS: usize = TREES.len();

/// Which of the Router's logs, seen from one session, a message with this key came through.
pub(crate) fn log_of(key: &[u8]) -> usize {
    match key.first() {
        Some(b's') => 0,
        Some(b'b') => 1,
        Some(b'o') => 2,
        Some(b'a') => 3,
        _ => 4,
    }
}

/// The key a topic is published under; `None` for a topic outside all trees.
pub(crate) fn key_of(topic: &str) -> Option<Bytes> {
    if topic.starts_with("homeassistant/") {
        return Some(Bytes::from_static(b"homeassistant"));
    }
    Some(match topic.parse().ok()? {
        Topic::ServerStatus | Topic::ServerTime => Bytes::from_static(b"server"),
        Topic::Board(_) => Bytes::from_static(b"board"),
        Topic::Order(..) => Bytes::from_static(b"order"),
        Topic::Appliance(id, below) => {
            let inbox =
                matches!(below, ApplianceTopic::Desired | ApplianceTopic::Cmd | ApplianceTopic::EventAck);
            if inbox { format!("appliance/{id}/in").into() } else { Bytes::from_static(b"appliance/out") }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cardshop_protocol::token::Role;

    fn principal(role: Role, appliance: Option<ApplianceId>) -> Principal {
        Principal { name: "x".into(), role, appliance, channels: Vec::new() }
    }

    #[test]
    fn every_topic_reaches_exactly_one_route_of_a_session_that_reads_all() {
        let staff = principal(Role::Staff, None);
        let routes = Route::of_filter(&staff, "#");
        let id = ApplianceId([3; 8]);
        for topic in [
            "cardshop/1/server/time".to_owned(),
            "cardshop/1/board/demo".into(),
            "cardshop/1/order/demo/01jd0000000000000000000000".into(),
            format!("cardshop/1/appliance/{id}/desired"),
            format!("cardshop/1/appliance/{id}/slot/s01/state"),
            "homeassistant/status".into(),
        ] {
            let key = key_of(&topic).unwrap();
            let key = std::str::from_utf8(&key).unwrap();
            let through = routes.iter().filter(|r| filter::matches(&r.filter(), key)).count();
            assert_eq!(through, 1, "{topic}");
        }
    }

    #[test]
    fn an_appliance_is_routed_its_own_inbox_and_not_what_it_sends() {
        let id = ApplianceId([3; 8]);
        let appliance = principal(Role::Appliance, Some(id));
        let routes = Route::of_filter(&appliance, &format!("cardshop/1/appliance/{id}/desired"));
        assert_eq!(routes, [Route::Inbox(id)]);
        assert_eq!(Route::of_filter(&appliance, "cardshop/1/server/#"), [Route::Server]);
        let inbox = Route::Inbox(id).filter();
        for (topic, inside) in [("cmd", true), ("event/ack", true), ("event", false), ("status", false)] {
            let key = key_of(&format!("cardshop/1/appliance/{id}/{topic}")).unwrap();
            assert_eq!(key == inbox.as_bytes(), inside, "{topic}");
        }
    }

    #[test]
    fn a_topic_outside_all_trees_has_no_key() {
        for topic in ["x", "cardshop/2/server/time", "cardshop/1/other", "homeassistant"] {
            assert_eq!(key_of(topic), None, "{topic}");
        }
    }
}
