//! The JSON payloads of the MQTT topics. Unknown fields are ignored; `v` is 1 in every message. Limits are in
//! [`crate::topic`]. State is desired/reported and idempotent; facts are numbered; only reflexes are commands.

mod board;
mod command;
mod desired;
mod event;
mod passport;
mod presence;
mod slot;

pub use board::{Board, OrderMessage};
pub use command::{Action, Command, CommandReply};
pub use desired::{
    Confirm, Copies, Desired, DesiredSlot, DesiredUpdate, Lease, LeaseUse, Reported, Settings, UpdatePhase,
    UpdateReport, Verify, Wipe,
};
pub use event::{Ack, Event, Fact, Remedy};
pub use passport::Passport;
pub use presence::{
    Alert, Hardware, Health, Info, Presence, SlotInfo, StatusMessage, SystemInfo, TimeMessage,
};
pub use slot::{CardFacts, Fault, Progress, Sentence, SlotState, SlotStatus, WritePhase};

/// Version of all messages.
pub const VERSION: u8 = 1;

fn version() -> u8 {
    VERSION
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{OrderId, SlotId, TaskId};
    use crate::time::Timestamp;

    #[test]
    fn an_event_is_flat_json_with_its_kind() {
        let order = OrderId::from_parts(1, 2);
        let event = Event {
            v: 1,
            n: 7,
            at: Timestamp::from_ms(0),
            fact: Fact::WriteStarted {
                task: TaskId::write(order, 3),
                lease: order,
                slot: SlotId::numbered(1),
                card_size: 5,
            },
        };
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(json["kind"], "write_started");
        assert_eq!(json["task"], format!("{order}-3"));
        assert_eq!(serde_json::from_value::<Event>(json).unwrap(), event);
    }

    #[test]
    fn unknown_fields_are_ignored_and_missing_ones_have_their_default() {
        let order = OrderId::from_parts(1, 2);
        let desired: Desired = serde_json::from_str(r#"{"rev":3,"new_thing":[1]}"#).unwrap();
        assert_eq!((desired.v, desired.rev, desired.settings.confirm), (1, 3, Confirm::Foreign));
        let command = format!(r#"{{"id":"{order}","deadline_s":5,"cmd":"identify","slot":"s01","x":1}}"#);
        let command: Command = serde_json::from_str(&command).unwrap();
        assert_eq!(command.action, Action::Identify { slot: SlotId::numbered(1) });
    }

    #[test]
    fn copies_are_counted_from_first_to_last() {
        let copies = Copies { first: 4, last: 6 };
        assert_eq!(copies.count(), 3);
        assert!(copies.contains(4) && copies.contains(6) && !copies.contains(7));
        assert_eq!(Copies { first: 6, last: 4 }.count(), 0);
        assert_eq!(Copies { first: u32::MAX, last: u32::MAX }.count(), 1, "numbers come over a wire");
    }
}
