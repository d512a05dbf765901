//! Who may read and write which topic: the rights of `broker/protocol/README.md` as one table, and three questions
//! asked of it. Pure: no I/O, no clock, no state. Sessions ask for every publish, will, subscription and, where a
//! topic does not tell its channel, for every message delivered.
//!
//! What no row allows is refused. Appliance topics carry no channel, so which appliances share a channel with a
//! principal is the caller's answer ([`crate::directory`]).

use cardshop_protocol::ids::{ApplianceId, Channel};
use cardshop_protocol::token::{Claims, Role};
use cardshop_protocol::topic::{ApplianceTopic, Topic};

/// Somebody who is logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Principal {
    /// User name and client id.
    pub(crate) name: String,
    pub(crate) role: Role,
    /// The appliance it is, for that role.
    pub(crate) appliance: Option<ApplianceId>,
    /// What it works for; staff and scheduler need none.
    pub(crate) channels: Vec<Channel>,
}

impl Principal {
    /// Who a token speaks for on MQTT; `None` when it gives no right here: creators have none, a scoped token
    /// is for its one purpose unless it is an API key, and an appliance is named by its id.
    pub(crate) fn new(claims: &Claims) -> Option<Self> {
        let appliance = claims.sub.parse().ok();
        let fits = match claims.role {
            Role::Creator => false,
            Role::Appliance => appliance.is_some(),
            Role::Staff | Role::Manager | Role::Operator | Role::Integrator | Role::Scheduler => true,
        };
        let whole = claims.scope.is_none() || claims.api_rights().is_some();
        (fits && whole).then(|| Self {
            name: claims.sub.clone(),
            role: claims.role,
            appliance: appliance.filter(|_| claims.role == Role::Appliance),
            channels: claims.channel.clone(),
        })
    }
}

/// One level of a topic in the table.
pub(crate) enum Level {
    /// Exactly this.
    Is(&'static str),
    /// The principal's own appliance id.
    Own,
    /// A channel of the principal.
    Channel,
    /// An appliance that shares a channel with the principal.
    Shared,
    /// Anything, one level.
    Any,
    /// Anything from here on, and its parent.
    Rest,
}
use Level::{Any, Channel as InChannel, Is, Own, Rest, Shared};

const ROOT: Level = Is("cardshop");
const ONE: Level = Is("1");
const APPLIANCE: Level = Is("appliance");

/// A row: these roles may do it on the topics of this form.
pub(crate) struct Row(pub(crate) &'static [Role], pub(crate) &'static [Level]);

const PEOPLE: &[Role] = &[Role::Manager, Role::Operator];
const THEIRS: &[Role] = &[Role::Manager, Role::Operator, Role::Integrator];

pub(crate) const READ: &[Row] = &[
    Row(&[Role::Staff], &[Rest]),
    Row(&[Role::Scheduler], &[ROOT, ONE, Rest]),
    Row(&[Role::Scheduler, Role::Integrator], &[Is("homeassistant"), Rest]),
    Row(THEIRS, &[ROOT, ONE, Is("board"), InChannel]),
    Row(THEIRS, &[ROOT, ONE, Is("order"), InChannel, Rest]),
    Row(PEOPLE, &[ROOT, ONE, APPLIANCE, Shared, Rest]),
    Row(&[Role::Integrator], &[ROOT, ONE, APPLIANCE, Shared, Is("status")]),
    Row(&[Role::Integrator], &[ROOT, ONE, APPLIANCE, Shared, Is("slot"), Any, Is("state")]),
    Row(&[Role::Appliance], &[ROOT, ONE, APPLIANCE, Own, Is("desired")]),
    Row(&[Role::Appliance], &[ROOT, ONE, APPLIANCE, Own, Is("cmd")]),
    Row(&[Role::Appliance], &[ROOT, ONE, APPLIANCE, Own, Is("event"), Is("ack")]),
    Row(&[Role::Appliance], &[ROOT, ONE, Is("server"), Rest]),
];

pub(crate) const WRITE: &[Row] = &[
    Row(&[Role::Appliance], &[ROOT, ONE, APPLIANCE, Own, Is("status")]),
    Row(&[Role::Appliance], &[ROOT, ONE, APPLIANCE, Own, Is("info")]),
    Row(&[Role::Appliance], &[ROOT, ONE, APPLIANCE, Own, Is("health")]),
    Row(&[Role::Appliance], &[ROOT, ONE, APPLIANCE, Own, Is("reported")]),
    Row(&[Role::Appliance], &[ROOT, ONE, APPLIANCE, Own, Is("slot"), Any, Is("state")]),
    Row(&[Role::Appliance], &[ROOT, ONE, APPLIANCE, Own, Is("slot"), Any, Is("progress")]),
    Row(&[Role::Appliance], &[ROOT, ONE, APPLIANCE, Own, Is("event")]),
    Row(&[Role::Appliance], &[ROOT, ONE, APPLIANCE, Own, Is("cmd"), Is("reply")]),
    Row(&[Role::Appliance], &[ROOT, ONE, APPLIANCE, Own, Is("alert"), Any]),
    Row(&[Role::Scheduler], &[ROOT, ONE, Is("server"), Any]),
    Row(&[Role::Scheduler], &[ROOT, ONE, APPLIANCE, Any, Is("desired")]),
    Row(&[Role::Scheduler], &[ROOT, ONE, APPLIANCE, Any, Is("cmd")]),
    Row(&[Role::Scheduler], &[ROOT, ONE, APPLIANCE, Any, Is("event"), Is("ack")]),
    Row(&[Role::Scheduler], &[ROOT, ONE, Is("board"), Any]),
    Row(&[Role::Scheduler], &[ROOT, ONE, Is("order"), Any, Any]),
    Row(&[Role::Scheduler], &[Is("homeassistant"), Is("device"), Any, Is("config")]),
    Row(&[Role::Integrator], &[Is("homeassistant"), Is("status")]),
];

/// What a subscription is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grant {
    /// Every topic the filter matches is allowed.
    Whole,
    /// Allowed topics and those of other channels' appliances match: each message is asked for again.
    EachMessage,
    /// It would match what is not allowed.
    Refused,
}

/// What `principal` gets when it subscribes to `filter`, a well-formed one.
pub(crate) fn subscription(principal: &Principal, filter: &str) -> Grant {
    let levels: Vec<&str> = filter.split('/').collect();
    let rows = READ.iter().filter(|row| row.0.contains(&principal.role));
    rows.map(|row| covers(principal, row.1, &levels)).find(|g| *g != Grant::Refused).unwrap_or(Grant::Refused)
}

/// True when `principal` may read `topic`; `shares` says whether an appliance works for a channel of theirs.
pub(crate) fn may_read(principal: &Principal, topic: &str, shares: &dyn Fn(ApplianceId) -> bool) -> bool {
    allowed(READ, principal, topic, shares)
}

/// True when `principal` may publish to `topic`, retained or not. Below `cardshop/` only topics of the contract
/// are written, and commands are never retained: a switch that comes back by itself after a restart is a ghost.
pub(crate) fn may_write(principal: &Principal, topic: &str, retained: bool) -> bool {
    if topic.starts_with("cardshop/") {
        match topic.parse::<Topic>() {
            Err(_) => return false,
            Ok(Topic::Appliance(_, ApplianceTopic::Cmd)) if retained => return false,
            Ok(_) => {}
        }
    }
    allowed(WRITE, principal, topic, &|_| false)
}

fn allowed(table: &[Row], principal: &Principal, topic: &str, shares: &dyn Fn(ApplianceId) -> bool) -> bool {
    let levels: Vec<&str> = topic.split('/').collect();
    table.iter().filter(|row| row.0.contains(&principal.role)).any(|row| {
        match covers(principal, row.1, &levels) {
            Grant::Whole => true,
            Grant::EachMessage => {
                let at = row.1.iter().position(|level| matches!(level, Shared));
                let id = at.and_then(|at| levels.get(at)?.parse().ok());
                id.is_some_and(shares)
            }
            Grant::Refused => false,
        }
    })
}

/// Whether all that `filter` matches has the form `row`.
fn covers(principal: &Principal, row: &[Level], filter: &[&str]) -> Grant {
    // A wildcard in the first place does not match `$…` (MQTT §4.7.2); those topics are nobody's here.
    if filter.first().is_some_and(|level| level.starts_with('$')) {
        return Grant::Refused;
    }
    let mut grant = Grant::Whole;
    for (index, level) in row.iter().enumerate() {
        let wanted = filter.get(index).copied();
        let fits = match (level, wanted) {
            (Rest, _) => return grant,
            (_, None | Some("#")) => false,
            (Any, Some(_)) => true,
            (Shared, Some(_)) => {
                grant = Grant::EachMessage;
                true
            }
            (_, Some("+")) => false,
            (Is(name), Some(text)) => *name == text,
            (Own, Some(text)) => principal.appliance.is_some_and(|own| own.to_string() == text),
            (InChannel, Some(text)) => principal.channels.iter().any(|c| c.as_str() == text),
        };
        if !fits {
            return Grant::Refused;
        }
    }
    if filter.len() == row.len() { grant } else { Grant::Refused }
}

#[cfg(test)]
#[path = "rights_tests.rs"]
mod tests;
