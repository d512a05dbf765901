//! What Home Assistant is told of a slot so that it shows up there by itself: one device with its entities. Pure.
//!
//! Rules that are easy to break: ids have letters, digits, `_` and `-` only; a device has an identifier, its origin a
//! name, each component a platform and a unique id; availability other than its two words is ignored, so `stopped` and
//! `updating` are mapped; and the message is never retained, or slots that are gone stay for ever as ghosts.
//! **Source:** Home Assistant, *MQTT discovery*, device discovery.

use std::time::Duration;

use cardshop_protocol::ids::SlotId;
use cardshop_protocol::message::{SlotInfo, SlotStatus};
use cardshop_protocol::topic::{ApplianceTopic, Topic};
use serde_json::{Value, json};

use super::documents::Appliance;

/// Home Assistant's birth and will: `online` and `offline`.
pub(crate) const BIRTH_TOPIC: &str = "homeassistant/status";
/// Payload of its birth.
pub(crate) const BORN: &[u8] = b"online";

/// States in which a person has something to do at the slot, beside putting a card in.
const NEEDS_A_PERSON: [SlotStatus; 7] = [
    SlotStatus::Done,
    SlotStatus::Unsuitable,
    SlotStatus::Guarded,
    SlotStatus::Confirm,
    SlotStatus::BadCard,
    SlotStatus::Retry,
    SlotStatus::OutOfService,
];

/// How long to wait after its birth: it is busy then, and other programs answer too. `random` spreads it over 1–5 s.
pub(crate) fn pause_after_birth(random: u8) -> Duration {
    Duration::from_millis(1000 + u64::from(random) * 4000 / 255)
}

/// Topic and payload for one slot; `name` is what people call it.
pub(crate) fn discovery(appliance: &Appliance, slot: &SlotInfo, name: &str) -> (String, Value) {
    let id = &slot.slot;
    let object = object_id(appliance, id);
    let below = |topic| Topic::Appliance(appliance.id, topic).to_string();
    let state_topic = below(ApplianceTopic::SlotState(id.clone()));
    let unique = |what: &str| format!("{}_{what}", object.replace('-', "_"));
    let needs = json!(NEEDS_A_PERSON).to_string().replace('"', "'");
    let payload = json!({
        "device": {
            "identifiers": [object],
            "name": format!("{} {name}", appliance.label),
            "manufacturer": "Cardshop",
            "model": if slot.reader.is_empty() { "Card slot" } else { &slot.reader },
        },
        "origin": {"name": "Cardshop", "sw_version": env!("CARGO_PKG_VERSION")},
        "availability": [{
            "topic": below(ApplianceTopic::Status),
            "value_template": "{{ 'online' if value_json.status == 'online' else 'offline' }}",
        }],
        "state_topic": state_topic,
        "qos": 1,
        "components": {
            "state": {
                "platform": "sensor",
                "unique_id": unique("state"),
                "default_entity_id": format!("sensor.{}", unique("state")),
                "name": "State",
                "icon": "mdi:micro-sd",
                "device_class": "enum",
                "options": SlotStatus::ALL,
                "value_template": "{{ value_json.state }}",
            },
            "copy": {
                "platform": "sensor",
                "unique_id": unique("copy"),
                "default_entity_id": format!("sensor.{}", unique("copy")),
                "name": "Copy",
                "icon": "mdi:content-copy",
                "value_template": "{{ value_json.copy ~ ' / ' ~ value_json.total if value_json.copy else '' }}",
            },
            "attention": {
                "platform": "binary_sensor",
                "unique_id": unique("attention"),
                "default_entity_id": format!("binary_sensor.{}", unique("attention")),
                "name": "Needs a person",
                "device_class": "problem",
                "value_template": format!("{{{{ 'ON' if value_json.state in {needs} else 'OFF' }}}}"),
            },
            "wanted": {
                "platform": "binary_sensor",
                "unique_id": unique("wanted"),
                "default_entity_id": format!("binary_sensor.{}", unique("wanted")),
                "name": "Wants a card",
                "icon": "mdi:tray-arrow-down",
                "value_template": "{{ 'ON' if value_json.state == 'wanted' else 'OFF' }}",
            },
        },
    });
    (format!("homeassistant/device/{object}/config"), payload)
}

fn object_id(appliance: &Appliance, slot: &SlotId) -> String {
    format!("cardshop-{}-{slot}", appliance.id)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use cardshop_protocol::api::Membership;
    use cardshop_protocol::ids::ApplianceId;

    use super::*;

    fn appliance() -> Appliance {
        Appliance {
            id: ApplianceId([0xab; 8]),
            public_key: String::new(),
            label: "Büro 1".into(),
            hardware: Default::default(),
            state: Membership::Approved,
            channels: Vec::new(),
            code: String::new(),
            joined: cardshop_protocol::time::Timestamp::from_ms(0),
            approved: None,
            slots: 1,
            epoch: 0,
            epoch_raised: None,
        }
    }

    fn slot() -> SlotInfo {
        SlotInfo { slot: SlotId::numbered(1), port_path: "1-2.3:0".into(), reader: String::new() }
    }

    fn is_id(text: &str) -> bool {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    }

    #[test]
    fn the_device_keeps_to_the_published_rules() {
        let (topic, payload) = discovery(&appliance(), &slot(), "left");
        let levels: Vec<&str> = topic.split('/').collect();
        let ["homeassistant", "device", object, "config"] = levels[..] else { panic!("{topic}") };
        assert_eq!(object, "cardshop-abababababababab-s01");
        assert!(is_id(object));
        assert_eq!(payload["device"]["identifiers"], json!([object]), "at least one identifier");
        assert_eq!(payload["device"]["name"], "Büro 1 left");
        assert_eq!(payload["origin"]["name"], "Cardshop");
        let mut unique = BTreeSet::new();
        for (id, component) in payload["components"].as_object().unwrap() {
            assert!(is_id(id), "{id}");
            let platform = component["platform"].as_str().unwrap();
            assert!(["sensor", "binary_sensor"].contains(&platform));
            assert!(unique.insert(component["unique_id"].as_str().unwrap()), "{id}");
            let entity = component["default_entity_id"].as_str().unwrap();
            let (domain, slug) = entity.split_once('.').unwrap();
            assert_eq!(domain, platform, "domain.slug");
            let is_slug = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            assert!(!slug.is_empty() && slug.bytes().all(is_slug), "{slug}");
            assert!(component.get("object_id").is_none(), "ends in 2026.4");
            assert!(component.get("command_topic").is_none(), "nothing to switch, so no ghost switches");
        }
        assert!(serde_json::to_vec(&payload).unwrap().len() < 8 * 1024);
    }

    #[test]
    fn availability_says_online_only_for_online() {
        let (_, payload) = discovery(&appliance(), &slot(), "left");
        let availability = &payload["availability"][0];
        assert_eq!(availability["topic"], "cardshop/1/appliance/abababababababab/status");
        let template = availability["value_template"].as_str().unwrap();
        // `stopped` and `updating` would be ignored and the slot shown as it last was.
        assert!(template.contains("== 'online' else 'offline'"), "{template}");
    }

    #[test]
    fn every_state_there_is_can_be_shown_and_those_that_need_a_person_are_among_them() {
        let (_, payload) = discovery(&appliance(), &slot(), "left");
        let options: BTreeSet<&str> = payload["components"]["state"]["options"]
            .as_array()
            .unwrap()
            .iter()
            .map(|o| o.as_str().unwrap())
            .collect();
        assert_eq!(options.len(), 16);
        let template = payload["components"]["attention"]["value_template"].as_str().unwrap();
        assert!(template.starts_with("{{ 'ON' if value_json.state in ['done','unsuitable',"), "{template}");
        assert!(!template.contains("'wanted'") && template.ends_with("else 'OFF' }}"));
    }

    #[test]
    fn the_answer_to_its_birth_comes_after_one_to_five_seconds() {
        assert_eq!(pause_after_birth(0), Duration::from_secs(1));
        assert_eq!(pause_after_birth(255), Duration::from_secs(5));
    }
}
