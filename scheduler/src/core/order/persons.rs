//! The persons' part of [`Order::step`](super::Order::step): cancel, retry and ship, or why not.

use cardshop_protocol::time::Timestamp;

use super::step::{Answer, Notes, Refusal, refuse};
use super::{Cancel, Creation, MAX_SHIPMENTS, Order, OrderStatus, Shipment};

impl Order {
    pub(super) fn cancel(
        &mut self,
        now: Timestamp,
        by: String,
        notes: &mut Notes<'_>,
    ) -> Result<Answer, Refusal> {
        match self.status(now) {
            OrderStatus::Canceled => Ok(Answer::Unchanged),
            status if status.is_ended() => {
                refuse("order_ended", format!("the order is {} and cannot be canceled", status.as_str()))
            }
            _ => {
                notes.add("canceled", format!("{by} canceled the order."));
                self.canceled = Some(Cancel { at: now, by });
                Ok(Answer::Done)
            }
        }
    }

    pub(super) fn retry(
        &mut self,
        now: Timestamp,
        by: &str,
        notes: &mut Notes<'_>,
    ) -> Result<Answer, Refusal> {
        let status = self.status(now);
        if self.wants_cards() && self.hold.take().is_some() {
            notes.add("retried", format!("{by} lets appliances fetch the image again."));
            return Ok(Answer::Done);
        }
        let waits = status == OrderStatus::Creating && self.creation.retry_at.is_some_and(|at| at > now);
        if status != OrderStatus::Failed && !waits {
            let text = match status {
                OrderStatus::Canceled => "the order is canceled: place a new one".to_owned(),
                OrderStatus::Ready | OrderStatus::Writing => {
                    "nothing to retry: failed copies are offered to other cards by themselves".to_owned()
                }
                status => format!("nothing to retry: the order is {}", status.as_str()),
            };
            return refuse("nothing_to_retry", text);
        }
        notes.add("retried", format!("{by} asked for another try."));
        self.creation = Creation { failure: self.creation.failure.take(), ..Creation::default() };
        Ok(Answer::Done)
    }

    pub(super) fn ship(
        &mut self,
        now: Timestamp,
        count: Option<u32>,
        tracking: Option<String>,
        by: String,
        notes: &mut Notes<'_>,
    ) -> Result<Answer, Refusal> {
        let status = self.status(now);
        if !matches!(status, OrderStatus::Writing | OrderStatus::Written) {
            return refuse("not_shippable", format!("the order is {}: nothing to ship", status.as_str()));
        }
        let here = self.verified() - self.shipped();
        let count = count.unwrap_or(here);
        if count == 0 || count > here {
            let text = format!("{count} cannot be shipped: {here} verified cards are here");
            return refuse("not_enough_cards", text);
        }
        let rest = self.quantity - self.shipped();
        if self.shipments.len() + 1 >= MAX_SHIPMENTS && count < rest {
            let text = format!(
                "an order has at most {MAX_SHIPMENTS} shipments and this is the last: ship all {rest} together"
            );
            return refuse("too_many_shipments", text);
        }
        let code = tracking.as_deref().map(|t| format!(", tracking code {t}")).unwrap_or_default();
        notes.add("shipped", format!("{by} shipped {count} of {} cards{code}.", self.quantity));
        self.shipments.push(Shipment { count, tracking, at: now, by });
        Ok(Answer::Done)
    }
}
