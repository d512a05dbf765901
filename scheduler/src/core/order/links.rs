//! The link of a virtual order: ended now, kept longer, and what its warehouse still has to hear of it.
//!
//! ```text
//! image checked ─► link until T ─┬─ extend ─► T + 14 days      told to the warehouse whenever it is another
//!                                └─ expire, cancel ─► now      moment than was told last: shelf `link`
//! ```

use std::time::Duration;

use cardshop_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::creation::VIRTUAL_VALIDITY;
use super::step::{Answer, Notes, Refusal, refuse};
use super::{Order, OrderKind, OrderStatus};

/// No link is good for longer than this from now on: who needs it longer orders anew, and gets newer content.
const MAX_VALIDITY: Duration = Duration::from_secs(366 * 86_400);

/// What the warehouse knows of an order's link.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// When it ends, as the warehouse was told last.
    pub told_until: Option<Timestamp>,
    /// Where it is, below the warehouse's address.
    pub path: Option<String>,
}

impl Order {
    /// When its link ends; `None` without one.
    pub fn link_until(&self) -> Option<Timestamp> {
        let until =
            self.available_until.filter(|_| self.kind == OrderKind::Virtual && self.image.is_some())?;
        Some(self.canceled.as_ref().map_or(until, |cancel| cancel.at.min(until)))
    }

    pub(super) fn expire(
        &mut self,
        now: Timestamp,
        by: &str,
        notes: &mut Notes<'_>,
    ) -> Result<Answer, Refusal> {
        match self.status(now) {
            OrderStatus::Available => {
                notes.add("expired", format!("{by} ended the link."));
                self.available_until = Some(now);
                Ok(Answer::Done)
            }
            OrderStatus::Expired => Ok(Answer::Unchanged),
            status => no_link(status),
        }
    }

    pub(super) fn extend(
        &mut self,
        now: Timestamp,
        by: &str,
        notes: &mut Notes<'_>,
    ) -> Result<Answer, Refusal> {
        match self.status(now) {
            OrderStatus::Available => {
                let until = self.available_until.unwrap_or(now) + VIRTUAL_VALIDITY;
                if until > now + MAX_VALIDITY {
                    return refuse("long_enough", "a link is good for a year at most: order again later");
                }
                notes.add("extended", format!("{by} keeps the link until {until}."));
                self.available_until = Some(until);
                Ok(Answer::Done)
            }
            OrderStatus::Expired => {
                refuse("link_ended", "the link has ended and its image may be gone: place the order again")
            }
            status => no_link(status),
        }
    }

    pub(super) fn link_told(&mut self, until: Timestamp, path: Option<String>) -> Answer {
        let link = Link { told_until: Some(until), path };
        if self.link == link {
            return Answer::Unchanged;
        }
        self.link = link;
        Answer::Done
    }
}

fn no_link(status: OrderStatus) -> Result<Answer, Refusal> {
    refuse("no_link", format!("the order is {}: it has no link", status.as_str()))
}
