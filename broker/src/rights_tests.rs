//! The table of rights, cell by cell, and what no table says: that one appliance never reaches another.

use super::*;
use crate::filter::{check_filter, matches};
use proptest::prelude::*;

const A: &str = "aaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbb";
const ORDER: &str = "01jd0000000000000000000000";

fn principal(role: Role) -> Principal {
    let appliance = (role == Role::Appliance).then(|| A.parse().unwrap());
    let name = if appliance.is_some() { A } else { "ada" };
    Principal { name: name.into(), role, appliance, channels: vec!["demo".parse().unwrap()] }
}

/// Appliance A works for the principal's channel, B for another.
fn shares(appliance: ApplianceId) -> bool {
    appliance.to_string() == A
}

/// Every topic of the contract, for appliance A and channel `demo`, and who reads and writes it:
/// s staff, m manager, o operator, i integrator, a appliance A, b any other appliance, S scheduler.
fn cells() -> Vec<(String, &'static str, &'static str)> {
    let own = |topic: &str| format!("cardshop/1/appliance/{A}/{topic}");
    vec![
        ("cardshop/1/server/status".into(), "sabS", "S"),
        ("cardshop/1/server/time".into(), "sabS", "S"),
        (own("status"), "smoiS", "a"),
        (own("info"), "smoS", "a"),
        (own("health"), "smoS", "a"),
        (own("desired"), "smoaS", "S"),
        (own("reported"), "smoS", "a"),
        (own("slot/s01/state"), "smoiS", "a"),
        (own("slot/s01/progress"), "smoS", "a"),
        (own("event"), "smoS", "a"),
        (own("event/ack"), "smoaS", "S"),
        (own("cmd"), "smoaS", "S"),
        (own("cmd/reply"), "smoS", "a"),
        (own("alert/cache_full"), "smoS", "a"),
        ("cardshop/1/board/demo".into(), "smoiS", "S"),
        (format!("cardshop/1/order/demo/{ORDER}"), "smoiS", "S"),
        ("cardshop/1/board/other".into(), "sS", "S"),
        (format!("cardshop/1/order/other/{ORDER}"), "sS", "S"),
        (format!("homeassistant/device/cardshop-{A}-s01/config"), "siS", "S"),
        ("homeassistant/status".into(), "siS", "i"),
        // Not of the contract: nobody writes them.
        (own("slot"), "smoS", ""),
        (own("slot/s01"), "smoS", ""),
        (own("slot/s01/state/x"), "smoS", ""),
        (own("slot//state"), "smoiS", ""),
        (own("alert/Not a code"), "smoS", ""),
        (own("desired/x"), "smoS", ""),
        (own("other"), "smoS", ""),
        ("cardshop/1/server".into(), "sabS", ""),
        ("cardshop/1/server/other".into(), "sabS", ""),
        ("cardshop/1/else".into(), "sS", ""),
        ("cardshop/2/server/time".into(), "s", ""),
        ("homeassistant/light/x/config".into(), "siS", ""),
        ("else".into(), "s", ""),
        ("$SYS/broker".into(), "", ""),
    ]
}

fn people() -> Vec<(char, Principal)> {
    let other =
        Principal { name: B.into(), appliance: Some(B.parse().unwrap()), ..principal(Role::Appliance) };
    vec![
        ('s', principal(Role::Staff)),
        ('m', principal(Role::Manager)),
        ('o', principal(Role::Operator)),
        ('i', principal(Role::Integrator)),
        ('a', principal(Role::Appliance)),
        ('b', other),
        ('S', principal(Role::Scheduler)),
    ]
}

#[test]
fn each_role_reads_and_writes_what_the_table_says_and_nothing_else() {
    for (topic, readers, writers) in cells() {
        for (letter, who) in people() {
            let reads = may_read(&who, &topic, &shares);
            assert_eq!(reads, readers.contains(letter), "{letter} reads {topic}");
            assert_eq!(may_write(&who, &topic, false), writers.contains(letter), "{letter} writes {topic}");
        }
    }
}

#[test]
fn a_subscription_to_one_topic_is_granted_to_who_may_read_it() {
    for (topic, readers, _) in cells() {
        for (letter, who) in people() {
            let granted = match subscription(&who, &topic) {
                Grant::Whole => true,
                Grant::EachMessage => may_read(&who, &topic, &shares),
                Grant::Refused => false,
            };
            assert_eq!(granted, readers.contains(letter), "{letter} subscribes to {topic}");
        }
    }
}

#[test]
fn wildcards_are_granted_only_where_all_they_match_is_allowed() {
    use Grant::{EachMessage, Refused, Whole};
    for (role, filter, expected) in [
        (Role::Staff, "#", Whole),
        (Role::Staff, "cardshop/1/appliance/+/slot/+/state", Whole),
        (Role::Staff, "+/+", Whole),
        (Role::Scheduler, "cardshop/1/#", Whole),
        (Role::Scheduler, "cardshop/1/appliance/+/event", Whole),
        (Role::Scheduler, "homeassistant/status", Whole),
        (Role::Scheduler, "#", Refused),
        (Role::Scheduler, "cardshop/#", Refused),
        (Role::Appliance, "cardshop/1/server/#", Whole),
        (Role::Appliance, "cardshop/1/server/+", Whole),
        (Role::Appliance, "cardshop/1/+/time", Refused),
        (Role::Appliance, "cardshop/1/appliance/aaaaaaaaaaaaaaaa/#", Refused),
        (Role::Appliance, "cardshop/1/appliance/aaaaaaaaaaaaaaaa/+", Refused),
        (Role::Appliance, "cardshop/1/appliance/+/desired", Refused),
        (Role::Appliance, "cardshop/1/appliance/aaaaaaaaaaaaaaaa/event/#", Refused),
        (Role::Appliance, "+/1/server/time", Refused),
        (Role::Appliance, "#", Refused),
        (Role::Manager, "cardshop/1/board/demo", Whole),
        (Role::Manager, "cardshop/1/order/demo/#", Whole),
        (Role::Manager, "cardshop/1/order/demo/+", Whole),
        (Role::Manager, "cardshop/1/board/+", Refused),
        (Role::Manager, "cardshop/1/order/+/+", Refused),
        (Role::Manager, "cardshop/1/appliance/#", Refused),
        (Role::Manager, "cardshop/1/appliance/+/#", EachMessage),
        (Role::Operator, "cardshop/1/appliance/bbbbbbbbbbbbbbbb/status", EachMessage),
        (Role::Operator, "cardshop/1/#", Refused),
        (Role::Integrator, "homeassistant/#", Whole),
        (Role::Integrator, "cardshop/1/appliance/+/status", EachMessage),
        (Role::Integrator, "cardshop/1/appliance/+/slot/+/state", EachMessage),
        (Role::Integrator, "cardshop/1/appliance/+/slot/#", Refused),
        (Role::Integrator, "cardshop/1/appliance/+/+", Refused),
    ] {
        assert_eq!(subscription(&principal(role), filter), expected, "{role:?} subscribes to {filter}");
    }
}

#[test]
fn a_command_is_never_retained_whoever_sends_it() {
    let cmd = format!("cardshop/1/appliance/{A}/cmd");
    assert!(may_write(&principal(Role::Scheduler), &cmd, false));
    assert!(!may_write(&principal(Role::Scheduler), &cmd, true));
}

#[test]
fn tokens_that_give_no_rights_here_are_nobody() {
    let claims = Claims {
        iss: "cardshop".into(),
        sub: A.into(),
        role: Role::Appliance,
        channel: Vec::new(),
        scope: None,
        epoch: 0,
        jti: "1".into(),
        iat: 0,
        exp: 1,
        signed_by: None,
    };
    assert_eq!(Principal::new(&claims).unwrap().appliance, Some(A.parse().unwrap()));
    assert_eq!(Principal::new(&Claims { role: Role::Creator, ..claims.clone() }), None);
    assert_eq!(Principal::new(&Claims { sub: "bench".into(), ..claims.clone() }), None);
    assert_eq!(Principal::new(&Claims { scope: Some("upload:x".into()), ..claims.clone() }), None);
    // A person who is named like an appliance is not one.
    let person = Principal::new(&Claims { role: Role::Manager, ..claims }).unwrap();
    assert_eq!(person.appliance, None);
}

/// Levels that matter: names of the contract, both appliances, wildcards, and odd ones.
fn level() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "cardshop",
        "1",
        "appliance",
        A,
        B,
        "server",
        "status",
        "info",
        "desired",
        "cmd",
        "reply",
        "event",
        "ack",
        "slot",
        "s01",
        "state",
        "progress",
        "alert",
        "board",
        "demo",
        "+",
        "#",
        "",
        "$share",
    ])
}

fn below(root: &'static str) -> impl Strategy<Value = String> {
    let free = prop::collection::vec(level(), 1..8).prop_map(|levels| levels.join("/"));
    let near = prop::collection::vec(level(), 0..4)
        .prop_map(move |levels| [&["cardshop", "1", "appliance", root][..], &levels].concat().join("/"));
    let wild = prop::collection::vec(level(), 0..4)
        .prop_map(|levels| [&["cardshop", "1", "appliance", "+"][..], &levels].concat().join("/"));
    prop_oneof![free, near, wild]
}

fn topics_of_b() -> Vec<String> {
    let replaced = cells().into_iter().map(|(topic, ..)| topic.replace(A, B));
    replaced.filter(|topic| topic.contains(B)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn no_filter_granted_to_an_appliance_matches_anything_below_another(filter in below(B)) {
        let granted = check_filter(&filter).is_ok()
            && subscription(&principal(Role::Appliance), &filter) != Grant::Refused;
        if granted {
            for topic in topics_of_b() {
                prop_assert!(!matches(&filter, &topic), "{} matches {}", filter, topic);
            }
        }
    }

    #[test]
    fn no_appliance_writes_below_another_nor_what_is_the_schedulers(topic in below(A), retained: bool) {
        let written = may_write(&principal(Role::Appliance), &topic, retained);
        let own = format!("cardshop/1/appliance/{A}/");
        let schedulers = ["desired", "cmd", "event/ack"].iter().any(|t| topic == format!("{own}{t}"));
        prop_assert!(!written || (topic.starts_with(&own) && !schedulers), "{}", topic);
    }

    #[test]
    fn what_a_whole_grant_matches_may_be_read(filter in below(A)) {
        for (letter, who) in people() {
            if check_filter(&filter).is_ok() && subscription(&who, &filter) == Grant::Whole {
                for (topic, readers, _) in cells().into_iter().filter(|(t, ..)| matches(&filter, t)) {
                    prop_assert!(topic.starts_with('$') || readers.contains(letter), "{} {} {}", letter, filter, topic);
                }
            }
        }
    }
}
