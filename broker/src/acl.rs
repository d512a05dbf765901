//! The rights table as the access list of another broker. Pure text; `cardshop admin broker-acl` writes it.
//!
//! What other brokers cannot say is left out, never widened: appliance topics carry no channel, so managers,
//! operators and integrators get boards and orders of their channels there, and no appliance topics.

use std::fmt::Write;

use cardshop_protocol::ids::Channel;
use cardshop_protocol::token::Role;

use crate::rights::{Level, READ, Row, WRITE};

/// A broker that an access list can be written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherBroker {
    /// Eclipse Mosquitto 2: `acl_file`.
    Mosquitto,
    /// EMQX 5: `acl.conf`.
    Emqx,
    /// RMQTT: `rmqtt-acl.toml`.
    Rmqtt,
}

/// Somebody who may use the broker besides appliances and the scheduler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Login name.
    pub name: String,
    /// Its role: staff, manager, operator or integrator.
    pub role: Role,
    /// What it works for; nothing for staff.
    pub channels: Vec<Channel>,
}

/// The user name the scheduler logs in with.
const SCHEDULER: &str = "scheduler";

const MOSQUITTO: &str = "\
# Access list for Mosquitto 2, made by `cardshop admin broker-acl --for mosquitto`. In mosquitto.conf:
#
#   listener 1883 127.0.0.1
#   allow_anonymous true
#   acl_file /etc/mosquitto/cardshop.acl
#   message_size_limit 81920
#
# Mosquitto cannot check access tokens by itself: with `allow_anonymous true` it believes every user name, so whoever
# reaches the port can be anybody. Keep it on loopback or a network of your own, or let an authentication plugin ask
# the scheduler. A command that somebody retains is not refused, and a disabled account stays connected.
";
const EMQX: &str = "\
%% Access list for EMQX 5 (etc/acl.conf), made by `cardshop admin broker-acl --for emqx`. Set
%% `authorization.no_match = deny`, and an authenticator that checks the password, an access token (JWT, EdDSA, keys at
%% the scheduler's /api/v1/keys): without one whoever reaches the port can be anybody.
";
const RMQTT: &str = r#"# Access list for RMQTT (plugins/rmqtt-acl.toml), made by `cardshop admin broker-acl --for rmqtt`. Its last rule also
# refuses connections, so it needs an authentication plugin that checks the password, an access token (JWT, EdDSA, keys
# at the scheduler's /api/v1/keys). With `["allow", "all", "connect"]` instead, whoever reaches the port can be anybody.
"#;

/// Who a rule is for.
enum Who<'a> {
    Appliances,
    User(&'a str),
}

/// What a rule allows.
#[derive(Clone, Copy)]
enum Act {
    Subscribe,
    Publish,
}

/// The file's text.
pub fn access_list(broker: OtherBroker, people: &[Person]) -> String {
    let mut list = List { broker, text: String::new() };
    list.text.push_str(match broker {
        OtherBroker::Mosquitto => MOSQUITTO,
        OtherBroker::Emqx => EMQX,
        OtherBroker::Rmqtt => RMQTT,
    });
    if broker == OtherBroker::Rmqtt {
        list.text.push_str("\nrules = [\n");
    }
    list.rules(&Who::Appliances, Role::Appliance, &[]);
    list.rules(&Who::User(SCHEDULER), Role::Scheduler, &[]);
    for person in people {
        list.rules(&Who::User(&person.name), person.role, &person.channels);
    }
    match broker {
        OtherBroker::Mosquitto => {}
        OtherBroker::Emqx => list.text.push_str("\n{deny, all}.\n"),
        OtherBroker::Rmqtt => list.text.push_str("\n    [\"deny\", \"all\"]\n]\n"),
    }
    list.text
}

struct List {
    broker: OtherBroker,
    text: String,
}

impl List {
    fn rules(&mut self, who: &Who<'_>, role: Role, channels: &[Channel]) {
        let own = match self.broker {
            OtherBroker::Mosquitto | OtherBroker::Rmqtt => "%u",
            OtherBroker::Emqx => "${username}",
        };
        let of = |table: &[Row]| -> Vec<String> {
            let rows = table.iter().filter(|row| row.0.contains(&role));
            rows.flat_map(|row| filters(row, own, channels)).collect()
        };
        if self.broker == OtherBroker::Mosquitto {
            match who {
                Who::Appliances => self.line("\n# Appliances: the user name is the appliance's id."),
                Who::User(name) => self.line(&format!("\nuser {name}")),
            }
        } else {
            self.line("");
        }
        self.rule(who, Act::Subscribe, &of(READ));
        self.rule(who, Act::Publish, &of(WRITE));
    }

    fn rule(&mut self, who: &Who<'_>, act: Act, filters: &[String]) {
        if filters.is_empty() {
            return;
        }
        let quoted = filters.iter().map(|f| format!("\"{f}\"")).collect::<Vec<_>>().join(", ");
        let action = match act {
            Act::Subscribe => "subscribe",
            Act::Publish => "publish",
        };
        match self.broker {
            OtherBroker::Mosquitto => {
                let keyword = if matches!(who, Who::Appliances) { "pattern" } else { "topic" };
                let action = if matches!(act, Act::Subscribe) { "read" } else { "write" };
                for filter in filters {
                    self.line(&format!("{keyword} {action} {filter}"));
                }
            }
            OtherBroker::Emqx => {
                let who = match who {
                    Who::Appliances => "{username, {re, \"^[0-9a-f]{16}$\"}}".to_owned(),
                    Who::User(name) => format!("{{username, \"{name}\"}}"),
                };
                self.line(&format!("{{allow, {who}, {action}, [{quoted}]}}."));
            }
            OtherBroker::Rmqtt => {
                let who = match who {
                    Who::Appliances => "\"all\"".to_owned(),
                    Who::User(name) => format!("{{ user = \"{name}\" }}"),
                };
                self.line(&format!("    [\"allow\", {who}, \"{action}\", [{quoted}]],"));
            }
        }
    }

    fn line(&mut self, line: &str) {
        writeln!(self.text, "{line}").expect("a String takes all");
    }
}

/// A row as filters, one for each channel where it has one; none when it asks for what others cannot check.
fn filters(row: &Row, own: &str, channels: &[Channel]) -> Vec<String> {
    let levels = |channel: &str| -> Option<String> {
        let level = |level: &Level| match level {
            Level::Is(name) => Some((*name).to_owned()),
            Level::Own => Some(own.to_owned()),
            Level::Channel => Some(channel.to_owned()),
            Level::Any => Some("+".to_owned()),
            Level::Rest => Some("#".to_owned()),
            Level::Shared => None,
        };
        row.1.iter().map(level).collect::<Option<Vec<_>>>().map(|levels| levels.join("/"))
    };
    if row.1.iter().any(|level| matches!(level, Level::Channel)) {
        channels.iter().filter_map(|channel| levels(channel.as_str())).collect()
    } else {
        levels("").into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn people() -> Vec<Person> {
        let person = |name: &str, role, channels: &[&str]| Person {
            name: name.into(),
            role,
            channels: channels.iter().map(|c| c.parse().unwrap()).collect(),
        };
        vec![person("ada", Role::Staff, &[]), person("max", Role::Manager, &["demo", "north"])]
    }

    #[test]
    fn mosquitto_gets_patterns_for_appliances_and_topics_for_users() {
        let text = access_list(OtherBroker::Mosquitto, &people());
        let appliances = text.find("pattern read cardshop/1/appliance/%u/desired\n").unwrap();
        let scheduler = text.find("\nuser scheduler\n").unwrap();
        assert!(appliances < scheduler, "patterns are everybody's, topics after a user are that user's");
        assert!(text.contains("pattern write cardshop/1/appliance/%u/slot/+/state\n"));
        assert!(text.contains("topic write cardshop/1/appliance/+/cmd\n"));
        assert!(text.contains("\nuser ada\ntopic read #\n"));
        let max = text.split("\nuser max\n").nth(1).unwrap();
        let expected = "topic read cardshop/1/board/demo\ntopic read cardshop/1/board/north\n\
             topic read cardshop/1/order/demo/#\ntopic read cardshop/1/order/north/#\n";
        assert_eq!(max, expected, "and no appliance topics, whose channel Mosquitto cannot know");
        assert!(!text.contains("pattern write cardshop/1/appliance/%u/cmd\n"));
        assert!(!text.contains("pattern write cardshop/1/appliance/%u/#"));
    }

    #[test]
    fn emqx_and_rmqtt_end_with_a_refusal_of_all_else() {
        let emqx = access_list(OtherBroker::Emqx, &people());
        assert!(emqx.ends_with("\n{deny, all}.\n"), "{emqx}");
        assert!(emqx.contains("{allow, {username, {re, \"^[0-9a-f]{16}$\"}}, subscribe, [\"cardshop/1/appliance/${username}/desired\""));
        let rmqtt = access_list(OtherBroker::Rmqtt, &people());
        assert!(
            rmqtt.contains("    [\"allow\", { user = \"scheduler\" }, \"publish\", [\"cardshop/1/server/+\"")
        );
        assert!(rmqtt.ends_with("    [\"deny\", \"all\"]\n]\n"), "{rmqtt}");
        // Brackets and quotes are balanced, as far as text can tell.
        for text in [emqx, rmqtt] {
            for (open, close) in [('[', ']'), ('{', '}')] {
                let body = || text.lines().filter(|l| !l.starts_with(['#', '%']));
                let count = |c| body().flat_map(str::chars).filter(|x| *x == c).count();
                assert_eq!(count(open), count(close));
            }
        }
    }
}
