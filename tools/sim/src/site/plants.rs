//! Mistakes that are put in on purpose, to see that a simulation finds them. Only tests ask for them.

use cardshop_protocol::ids::ObjectId;
use cardshop_protocol::message::{Event, Fact};

use super::broker::Message;

/// One mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Plant {
    /// None: everything is as it is.
    #[default]
    None,
    /// The so-manieth fact is acknowledged and thrown away.
    LosesAFact(u64),
    /// A card that is verified after so many facts counts as two.
    CountsTwice(u64),
    /// Whoever writes cards calls every one of them good.
    BelievesWrites,
    /// What an appliance wrote to its disk last is gone after each kill.
    ForgetfulDisk,
}

/// The same verified card once more, as another one: the next copy of its order, told under the next number but one.
pub(super) fn another_card(heard: &Message) -> Option<Message> {
    let mut event: Event = serde_json::from_slice(&heard.payload).ok()?;
    let Fact::CardVerified { record, .. } = &mut event.fact else { return None };
    if record.copy >= record.total {
        return None;
    }
    record.copy += 1;
    record.uid = ObjectId::from_parts(1, 1);
    let payload = serde_json::to_vec(&event).expect("plain data has a JSON form");
    Some(Message { payload, ..heard.clone() })
}
