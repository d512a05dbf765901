//! Tells an order's story in plain sentences: where it stands, what it waits for, and what happened so far.

use cardshop_protocol::ids::ApplianceId;
use cardshop_protocol::time::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::documents::Story;
use super::order::{Order, OrderKind, OrderStatus, TaskStatus, describe};

/// Answer of `GET /orders/{id}/explain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// The order.
    pub id: cardshop_protocol::ids::OrderId,
    /// Where it stands.
    pub status: OrderStatus,
    /// Where it stands and what it waits for, a sentence each.
    pub now: Vec<String>,
    /// What happened, oldest first, each with its time.
    pub story: Vec<String>,
}

/// An appliance that holds copies of the order at this moment.
#[derive(Debug, Clone)]
pub(crate) struct Holder {
    pub(crate) id: ApplianceId,
    /// What people call it.
    pub(crate) label: String,
    /// Copies it has and has not verified.
    pub(crate) copies: u32,
    pub(crate) online: bool,
    /// Its copies are free again then, unless it is heard before.
    pub(crate) not_after: Timestamp,
}

/// Explains `order` at `now`.
pub(crate) fn explain(order: &Order, story: &[Story], holders: &[Holder], now: Timestamp) -> Explanation {
    let status = order.status(now);
    let mut sentences = vec![format!("The order is {}.", describe(status))];
    match status {
        OrderStatus::Ready | OrderStatus::Writing => {
            sentences.extend(waits_for_cards(order, story, holders));
        }
        _ => sentences.extend(waits_for(order, status, now)),
    }
    if order.kind == OrderKind::Physical && order.image.is_some() {
        let (verified, shipped) = (order.verified(), order.shipped());
        let spare = if order.spare > 0 { format!(", {} spare", order.spare) } else { String::new() };
        sentences
            .push(format!("{verified} of {} cards are verified, {shipped} shipped{spare}.", order.quantity));
    }
    Explanation {
        id: order.id,
        status,
        now: sentences,
        story: story.iter().map(|s| format!("{}: {}", s.at, s.text)).collect(),
    }
}

/// For every copy that is missing: who has to do what, or until when it waits.
fn waits_for_cards(order: &Order, story: &[Story], holders: &[Holder]) -> Vec<String> {
    if let Some(hold) = &order.hold {
        return vec![format!(
            "Its image is held since {}: {}. Nobody is sent for cards until a manager retries the order.",
            hold.at, hold.reason
        )];
    }
    if holders.is_empty() {
        let channel = &order.channel;
        return vec![format!("It waits for an approved appliance of channel {channel} that is online.")];
    }
    let (mut sentences, mut copies, mut appliances) = (Vec::new(), 0, 0);
    for holder in holders {
        let Holder { id, label, not_after, .. } = holder;
        if let Some(refused) = refusal_by(*id, story) {
            sentences.push(format!(
                "{refused} Its {} copies wait for a person: a manager restarts appliance {label} to let it try \
                 again, or cancels the order and places it anew.",
                holder.copies
            ));
        } else if !holder.online {
            sentences.push(format!(
                "Appliance {label} ({id}) holds {} copies and is offline: an operator brings it back, or a manager \
                 rejects it; else they are free again at {not_after}.",
                holder.copies
            ));
        } else {
            (copies, appliances) = (copies + holder.copies, appliances + 1);
        }
    }
    if appliances > 0 {
        let size = order.image.as_ref().map_or(0, |i| i.size);
        sentences.push(format!(
            "{appliances} appliances may write {copies} copies: insert cards of at least {size} bytes."
        ));
    }
    sentences
}

/// What an appliance said when it refused the image, if it has not begun a card since.
fn refusal_by(id: ApplianceId, story: &[Story]) -> Option<&str> {
    let told = story.iter().rev().find(|s| {
        s.appliance == Some(id)
            && matches!(s.kind.as_str(), "image_refused" | "write_started" | "card_verified")
    })?;
    (told.kind == "image_refused").then_some(told.text.as_str())
}

fn waits_for(order: &Order, status: OrderStatus, now: Timestamp) -> Option<String> {
    let creation = &order.creation;
    Some(match status {
        OrderStatus::Created => {
            format!("It waits for a creator that works for channel {}.", order.channel)
        }
        OrderStatus::Creating if creation.status == TaskStatus::Pending => match creation.retry_at {
            Some(at) if at > now => {
                let reason = creation.failure.as_deref().unwrap_or("the last try failed");
                format!("The last try failed ({reason}); the next may begin at {at}.")
            }
            _ => format!("It waits for a creator that works for channel {} again.", order.channel),
        },
        OrderStatus::Creating => {
            let owner = creation.owner.as_deref().unwrap_or("a creator");
            let phase = creation.phase.map(|p| format!("{p:?}").to_lowercase());
            match phase {
                Some(phase) => {
                    format!("Creator {owner} is {phase}: {} of {}.", creation.done, creation.total)
                }
                None => format!("Creator {owner} has it and has not reported yet."),
            }
        }
        OrderStatus::Failed => {
            let reason = creation.failure.as_deref().unwrap_or("no reason was given");
            format!("The reason was: {reason}. A person may retry it.")
        }
        OrderStatus::Available => {
            format!("It is available until {}.", order.available_until.unwrap_or(now))
        }
        OrderStatus::Canceled => {
            format!("It was canceled by {}.", order.canceled.as_ref().map_or("somebody", |c| &c.by))
        }
        OrderStatus::Ready
        | OrderStatus::Writing
        | OrderStatus::Written
        | OrderStatus::Shipped
        | OrderStatus::Expired => return None,
    })
}
