//! One message to one person or program: where it stands, and when it is tried again. Decides only: `effects::notify`
//! sends and stores.
//!
//! ```text
//! waiting ─┬─ taken ─────────► sent ──────┐
//!          ├─ not now ─► retrying ─► …    │  a person: again
//!          ├─ never, or 3 days ─► failed ─┼──────────────────► waiting
//!          ├─ no mail server ─► held ─────┤
//!          └─ order canceled ─► dropped   ┘ (not after a cancel)
//! ```

use std::time::Duration;

use cardshop_protocol::ids::{ApplianceId, Channel, ObjectId, OrderId};
use cardshop_protocol::time::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::event::Notice;
use super::who::Person;
use crate::core::order::Refusal;

/// Pause after the first failed try; twice as long after each further one. Greylisting servers take a letter after one to
/// five minutes.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// Longest pause: a server that was away for a day hears of everything within two hours.
const LONGEST_PAUSE: Duration = Duration::from_secs(2 * 3600);
/// Nothing is tried for longer: news of an order that is older is none. **Source:** RFC 5321 §4.5.4.1 has servers give up
/// after four to five days.
pub(crate) const GIVE_UP_AFTER: Duration = Duration::from_secs(3 * 86_400);
/// Tries that are remembered, the newest.
const MAX_TRIES_KEPT: usize = 12;
/// Longest reason kept, characters.
const MAX_REASON: usize = 300;

/// For what part in it somebody is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Gets the parcel or the link.
    Recipient,
    /// Ordered.
    Client,
    /// Works at the bench.
    Operator,
    /// It is their account.
    User,
    /// The address that hears of failed orders.
    FailedOrders,
    /// The support address, in blind copy.
    Support,
}

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MessageState {
    /// Goes out next.
    Waiting,
    /// Was not taken, and is tried again.
    Retrying,
    /// No mail server is set.
    Held,
    /// The server has it.
    Sent,
    /// It is not tried any more.
    Failed,
    /// It came to nothing before it was sent.
    Dropped,
}

impl MessageState {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Waiting, Self::Retrying, Self::Held, Self::Sent, Self::Failed, Self::Dropped];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Retrying => "retrying",
            Self::Held => "held",
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }

    /// True while it may still go out by itself.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Waiting | Self::Retrying | Self::Held)
    }
}

/// Which way it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "via", rename_all = "snake_case")]
pub(crate) enum To {
    Mail {
        person: Person,
        /// In the blind copy: whom the letter itself is to.
        #[serde(default)]
        copy_of: Option<Person>,
    },
    Webhook {
        webhook: ObjectId,
    },
    /// The site's own topic.
    Ntfy,
}

/// One try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Try {
    /// When.
    pub at: Timestamp,
    /// What came of it.
    pub result: String,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Message {
    pub(crate) id: ObjectId,
    pub(crate) notice: Notice,
    pub(crate) order: Option<OrderId>,
    pub(crate) appliance: Option<ApplianceId>,
    pub(crate) channel: Option<Channel>,
    /// Whose account it is about.
    pub(crate) user: Option<ObjectId>,
    pub(crate) to: To,
    /// What there is to say. No secrets: links that open something are made when the message is sent.
    pub(crate) values: Value,
    pub(crate) state: MessageState,
    pub(crate) created: Timestamp,
    /// Since when it is tried: its making, or the last time a person sent it again.
    pub(crate) queued: Timestamp,
    pub(crate) next_try: Timestamp,
    /// Since `queued`.
    pub(crate) attempts: u32,
    pub(crate) tries: Vec<Try>,
    pub(crate) sent: Option<Timestamp>,
    /// How often it was sent: each time has a `Message-ID` of its own.
    pub(crate) times_sent: u32,
    /// Of the letter as it was sent.
    pub(crate) subject: Option<String>,
    /// Why it is not sent.
    pub(crate) reason: Option<String>,
    /// What its `Message-ID` is made of: a blind copy has that of the letter.
    pub(crate) letter: ObjectId,
}

/// Why a try came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It will not be taken later either.
    Never(String),
    /// It may be taken later.
    Later(String),
    /// Nothing is taken there now, this or another.
    Away(String),
    /// It means nothing any more.
    Pointless(String),
}

impl Message {
    /// One that waits.
    pub(crate) fn new(id: ObjectId, notice: Notice, to: To, values: Value, now: Timestamp) -> Self {
        Self {
            id,
            notice,
            order: None,
            appliance: None,
            channel: None,
            user: None,
            to,
            values,
            state: MessageState::Waiting,
            created: now,
            queued: now,
            next_try: now,
            attempts: 0,
            tries: Vec::new(),
            sent: None,
            times_sent: 0,
            subject: None,
            reason: None,
            letter: id,
        }
    }

    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        matches!(self.state, MessageState::Waiting | MessageState::Retrying) && self.next_try <= now
    }

    /// The server has it.
    pub(crate) fn taken(&mut self, now: Timestamp, answer: &str) {
        self.note(now, answer);
        self.state = MessageState::Sent;
        self.sent = Some(now);
        self.times_sent += 1;
        self.reason = None;
    }

    /// A try came to nothing.
    pub(crate) fn not_taken(&mut self, now: Timestamp, fault: &Fault) {
        let (Fault::Never(why) | Fault::Later(why) | Fault::Away(why) | Fault::Pointless(why)) = fault;
        if matches!(fault, Fault::Pointless(_)) {
            return self.drop(why);
        }
        self.note(now, why);
        self.attempts += 1;
        let pause = FIRST_PAUSE.saturating_mul(1 << (self.attempts - 1).min(16)).min(LONGEST_PAUSE);
        self.next_try = now + pause;
        let over = matches!(fault, Fault::Never(_)) || self.is_too_old(self.next_try);
        self.state = if over { MessageState::Failed } else { MessageState::Retrying };
        self.reason = Some(shorten(why));
    }

    /// True when it is not worth a try at `now`.
    pub(crate) fn is_too_old(&self, now: Timestamp) -> bool {
        now.since(self.queued) > GIVE_UP_AFTER
    }

    /// It came to nothing before it was sent.
    pub(crate) fn drop(&mut self, why: &str) {
        self.state = MessageState::Dropped;
        self.reason = Some(shorten(why));
    }

    /// There is nobody to give it to.
    pub(crate) fn hold(&mut self, why: &str) {
        self.state = MessageState::Held;
        self.reason = Some(shorten(why));
    }

    /// There is somebody now: it goes out, unless it is old news.
    pub(crate) fn release(&mut self, now: Timestamp) {
        if self.is_too_old(now) {
            self.state = MessageState::Failed;
            self.reason = Some("no mail server was set for three days".into());
        } else {
            self.state = MessageState::Waiting;
            self.next_try = now;
            self.reason = None;
        }
    }

    /// A person sends it once more.
    ///
    /// # Errors
    /// When its order is canceled and it is not the message that says so.
    pub(crate) fn again(&mut self, now: Timestamp, order_canceled: bool) -> Result<(), Refusal> {
        if order_canceled && self.notice != Notice::OrderCanceled {
            let text = "the order is canceled: only the message that says so is sent again".to_owned();
            return Err(Refusal { code: "order_canceled", text });
        }
        self.state = MessageState::Waiting;
        (self.queued, self.next_try) = (now, now);
        self.attempts = 0;
        self.reason = None;
        Ok(())
    }

    fn note(&mut self, now: Timestamp, result: &str) {
        if self.tries.len() >= MAX_TRIES_KEPT {
            self.tries.remove(0);
        }
        self.tries.push(Try { at: now, result: shorten(result) });
    }
}

/// One line, bounded.
fn shorten(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_REASON).collect()
}

/// A message, as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MessageView {
    /// Its id.
    pub id: ObjectId,
    /// What it tells of.
    pub event: Notice,
    /// Of which order.
    pub order: Option<OrderId>,
    /// Of which appliance.
    pub appliance: Option<ApplianceId>,
    /// `mail`, `webhook` or `ntfy`.
    pub via: String,
    /// Mail address, or id of the webhook.
    pub to: Option<String>,
    /// Why this person.
    pub part: Option<Part>,
    /// Language it is written in.
    pub language: Option<String>,
    /// Where it stands.
    pub state: MessageState,
    /// When it was made.
    pub created: Timestamp,
    /// When it was sent last.
    pub sent: Option<Timestamp>,
    /// How often it was sent.
    pub times_sent: u32,
    /// When it is tried next.
    pub next_try: Option<Timestamp>,
    /// Its tries, the newest last.
    pub tries: Vec<Try>,
    /// Why it is not sent.
    pub reason: Option<String>,
    /// Its subject, once it was sent.
    pub subject: Option<String>,
}

impl From<Message> for MessageView {
    fn from(message: Message) -> Self {
        let (via, to, part, language) = match message.to {
            To::Mail { person, .. } => ("mail", Some(person.address), Some(person.part), person.language),
            To::Webhook { webhook } => ("webhook", Some(webhook.to_string()), None, None),
            To::Ntfy => ("ntfy", None, None, None),
        };
        Self {
            id: message.id,
            event: message.notice,
            order: message.order,
            appliance: message.appliance,
            via: via.to_owned(),
            to,
            part,
            language,
            next_try: matches!(message.state, MessageState::Waiting | MessageState::Retrying)
                .then_some(message.next_try),
            state: message.state,
            created: message.created,
            sent: message.sent,
            times_sent: message.times_sent,
            tries: message.tries,
            reason: message.reason,
            subject: message.subject,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_ms(1_790_000_000_000 + seconds * 1000)
    }

    fn message() -> Message {
        Message::new(ObjectId::from_parts(1, 1), Notice::OrderCreated, To::Ntfy, json!({}), at(0))
    }

    #[test]
    fn what_is_not_taken_is_tried_again_after_longer_and_longer_pauses_and_given_up_after_three_days() {
        let mut message = message();
        let (mut now, mut pauses) = (at(0), Vec::new());
        while message.state != MessageState::Failed {
            assert!(message.is_due(now) && !message.is_due(Timestamp::from_ms(message.next_try.as_ms() - 1)));
            message.not_taken(now, &Fault::Later("greylisted".into()));
            pauses.push(message.next_try.since(now).as_secs());
            now = message.next_try;
        }
        assert_eq!(pauses[..8], [60, 120, 240, 480, 960, 1920, 3840, 7200]);
        assert!(pauses.len() < 50 && now.since(at(0)) > GIVE_UP_AFTER);
        assert_eq!((message.tries.len(), message.reason.as_deref()), (MAX_TRIES_KEPT, Some("greylisted")));
        assert!(!message.is_due(now + GIVE_UP_AFTER));
    }

    #[test]
    fn a_refusal_for_good_is_not_tried_again_and_a_person_may() {
        let mut message = message();
        message.not_taken(at(1), &Fault::Never("550 no such\nuser".into()));
        assert_eq!(
            (message.state, message.reason.as_deref()),
            (MessageState::Failed, Some("550 no such user"))
        );
        assert_eq!(message.again(at(2), true).unwrap_err().code, "order_canceled");
        message.again(at(2), false).unwrap();
        assert!(message.is_due(at(2)));
        message.taken(at(3), "250 queued");
        assert_eq!((message.state, message.sent, message.times_sent), (MessageState::Sent, Some(at(3)), 1));
    }

    #[test]
    fn what_was_held_goes_out_when_there_is_a_server_unless_it_is_old_news() {
        let mut message = message();
        message.hold("no mail server is set");
        assert!(!message.is_due(at(5)) && message.state.is_open());
        let mut late = message.clone();
        message.release(at(60));
        assert!(message.is_due(at(60)));
        late.release(at(4 * 86_400));
        assert_eq!(late.state, MessageState::Failed);
    }
}
