//! What of an order people have to be told. What has happened follows from the order alone; what was told is counted in
//! it, so that the message is made in the batch that changes the order, once, whatever else happens to it.
//!
//! ```text
//! happened(order) > told  ─►  a message for each, told = happened
//! canceled                ─►  only that is told; the rest counts as told
//! ```
//!
//! A retry takes back what had failed, but not that it was told: who heard of a failure once does not hear of the next.

use std::collections::BTreeMap;

use cardshop_protocol::time::Timestamp;
use serde_json::{Value, json};

use super::event::Notice;
use crate::core::order::{Order, OrderKind, OrderStatus};

/// How often each thing was told.
pub(crate) type Told = BTreeMap<Notice, u32>;

/// One thing to tell, and what there is to say.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Due {
    pub(crate) notice: Notice,
    pub(crate) values: Value,
}

impl Order {
    /// An order of before messages were counted: what has happened so far is not told any more.
    pub(crate) fn begin_telling(&mut self, now: Timestamp) {
        if self.told.is_none() {
            self.told = Some(self.happened(now));
        }
    }

    /// What has to be told now; from here on it counts as told.
    pub(crate) fn take_due(&mut self, now: Timestamp) -> Vec<Due> {
        let happened = self.happened(now);
        let mut told = self.told.take().unwrap_or_default();
        let mut due = Vec::new();
        for (notice, count) in happened {
            let before = told.get(&notice).copied().unwrap_or(0);
            if count <= before {
                continue;
            }
            told.insert(notice, count);
            if self.canceled.is_none() || notice == Notice::OrderCanceled {
                due.extend((before + 1..=count).map(|n| Due { notice, values: self.values(notice, n, now) }));
            }
        }
        self.told = Some(told);
        due
    }

    /// Cards were asked for, once for each order; gives what to say, unless it was said.
    pub(crate) fn take_wanted(&mut self, now: Timestamp) -> Option<Due> {
        self.begin_telling(now);
        let told = self.told.get_or_insert_default();
        if told.insert(Notice::CardsWanted, 1).is_some() {
            return None;
        }
        Some(Due { notice: Notice::CardsWanted, values: self.values(Notice::CardsWanted, 1, now) })
    }

    fn happened(&self, now: Timestamp) -> Told {
        let physical = self.kind == OrderKind::Physical;
        let image = self.image.is_some();
        let count = |yes: bool| u32::from(yes);
        Told::from([
            (Notice::OrderCreated, 1),
            (Notice::OrderFailed, count(self.status(now) == OrderStatus::Failed)),
            (Notice::OrderCanceled, count(self.canceled.is_some())),
            (Notice::ImageReady, count(physical && image)),
            (Notice::DownloadReady, count(!physical && image && self.link.path.is_some())),
            (Notice::WritingBegun, count(!self.writes.is_empty())),
            (Notice::CardWritten, self.verified()),
            (Notice::CardsWritten, count(physical && image && self.verified() >= self.quantity)),
            (Notice::OrderShipped, u32::try_from(self.shipments.len()).unwrap_or(u32::MAX)),
        ])
    }

    /// What the `n`th notice of a kind says. Moments and sizes are written as their reader writes them, when it is sent.
    fn values(&self, notice: Notice, n: u32, now: Timestamp) -> Value {
        let mut values = json!({
            "order": self.id,
            "name": self.name,
            "quantity": self.quantity,
            "recipient": self.recipient_name(),
        });
        let own = match notice {
            Notice::OrderCreated => json!({"kind": self.kind, "media": self.media_name()}),
            Notice::OrderFailed => json!({"reason": self.creation.failure.clone().unwrap_or_default()}),
            Notice::OrderCanceled => json!({"when": self.canceled.as_ref().map_or(now, |c| c.at)}),
            Notice::ImageReady => json!({"size": self.image_size(), "media": self.media_name()}),
            Notice::DownloadReady => json!({
                "links": self.links(),
                "until": self.available_until.unwrap_or(now),
                "size": self.image_size(),
            }),
            Notice::CardsWanted => json!({
                "count": self.quantity - self.verified().min(self.quantity),
                "size": self.image_size(),
                "media": self.media_name(),
            }),
            Notice::CardWritten => json!({"count": n}),
            Notice::CardsWritten => json!({"address": self.recipient_lines()}),
            Notice::OrderShipped => {
                let shipment = self.shipments.get(n as usize - 1);
                let sent: u32 = self.shipments.iter().take(n as usize).map(|s| s.count).sum();
                json!({
                    "count": shipment.map_or(0, |s| s.count),
                    "tracking": shipment.and_then(|s| s.tracking.clone()).unwrap_or_default(),
                    "left": self.quantity.saturating_sub(sent),
                    "when": shipment.map_or(now, |s| s.at),
                })
            }
            _ => json!({}),
        };
        for (key, value) in own.as_object().into_iter().flatten() {
            values[key] = value.clone();
        }
        values
    }

    fn image_size(&self) -> u64 {
        self.image.as_ref().map_or(0, |image| image.size)
    }

    fn media_name(&self) -> String {
        self.media.as_ref().map(|media| media.name.clone()).unwrap_or_default()
    }

    fn links(&self) -> Vec<String> {
        self.link.path.iter().map(|path| format!("{}{path}", self.warehouse)).collect()
    }

    /// What a recipient says of itself under this name, if it is an object: `name`, `email`, `language`, `time_zone`.
    pub(crate) fn recipient_says(&self, key: &str) -> Option<&str> {
        self.recipient.get(key)?.as_str().map(str::trim).filter(|text| !text.is_empty())
    }

    fn recipient_name(&self) -> String {
        match &self.recipient {
            Value::String(text) => text.lines().next().unwrap_or_default().to_owned(),
            _ => self.recipient_says("name").unwrap_or_default().to_owned(),
        }
    }

    /// Name and address as they stand on a parcel.
    fn recipient_lines(&self) -> Vec<String> {
        let lines = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
        let mut all = match &self.recipient {
            Value::String(text) => lines(text),
            _ => ["name", "address", "country"]
                .iter()
                .filter_map(|key| self.recipient_says(key))
                .flat_map(lines)
                .collect(),
        };
        all.retain(|line| !line.is_empty());
        all
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::order::Input;
    use crate::core::order::OrderImage;
    use crate::core::order::tests::order;
    use cardshop_protocol::api::CreationReport;
    use cardshop_protocol::ids::{ApplianceId, ImageId, ObjectId, SlotId};
    use proptest::prelude::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_ms(1_790_000_000_000 + seconds * 1000)
    }

    fn fail(order: &mut Order, now: Timestamp) {
        let owner = "maker".to_owned();
        let report = CreationReport::Failed { reason: "no".into(), permanent: true };
        for input in [Input::Claim { owner: owner.clone() }, Input::Report { owner, report }] {
            order.step(now, input, &mut Vec::new()).unwrap();
        }
    }

    #[test]
    fn an_order_of_before_is_not_told_of_again_and_goes_on_with_what_is_new() {
        let mut order = order(OrderKind::Physical, 1);
        order.told = None;
        order.begin_telling(at(0));
        assert!(order.take_due(at(0)).is_empty());
        order.step(at(1), Input::Cancel { by: "ada".into() }, &mut Vec::new()).unwrap();
        let due = order.take_due(at(1));
        assert_eq!(due.iter().map(|due| due.notice).collect::<Vec<_>>(), [Notice::OrderCanceled]);
    }

    #[test]
    fn a_failure_is_told_once_however_often_it_is_retried() {
        let mut order = order(OrderKind::Physical, 1);
        order.take_due(at(0));
        fail(&mut order, at(1));
        let due = order.take_due(at(1));
        assert_eq!(
            (due.len(), due[0].notice, &due[0].values["reason"]),
            (1, Notice::OrderFailed, &json!("no"))
        );
        order.step(at(2), Input::Retry { by: "ada".into() }, &mut Vec::new()).unwrap();
        fail(&mut order, at(3));
        assert!(order.take_due(at(3)).is_empty());
    }

    /// What may happen to an order, by number.
    fn input(number: u8, copy: u32) -> Input {
        let (owner, by) = ("maker".to_owned(), "ada".to_owned());
        let (lease, appliance, slot) = (ObjectId::from_parts(9, 9), ApplianceId([1; 8]), SlotId::numbered(1));
        match number {
            0 => Input::Claim { owner },
            1 => Input::Report {
                owner,
                report: CreationReport::Failed { reason: "no".into(), permanent: false },
            },
            2 => Input::Report {
                owner,
                report: CreationReport::Failed { reason: "no".into(), permanent: true },
            },
            3 => Input::ImageChecked {
                owner,
                image: OrderImage { id: ImageId([1; 32]), size: 1 << 20, data_bytes: 4096 },
            },
            4 => Input::WriteStarted { copy, lease, appliance, slot },
            5 | 6 => {
                let card = ObjectId::from_parts(7, u128::from(copy));
                Input::Verified { copy, card, lease, appliance, slot }
            }
            7 => Input::WriteFailed { copy, appliance, slot, reason: "bad".into() },
            8 => Input::Ship { count: Some(1), tracking: None, by },
            9 => Input::Retry { by },
            10 => Input::LinkTold { until: at(9_000_000), path: Some("/p/x".into()) },
            11 => Input::Expire { by },
            12 => Input::Cancel { by },
            _ => Input::Tick,
        }
    }

    proptest! {
        #[test]
        fn no_life_of_an_order_makes_two_of_the_same_message_or_one_after_a_cancel(
            physical in any::<bool>(),
            quantity in 1_u32..4,
            steps in proptest::collection::vec((0_u8..14, 1_u32..5, 0_u64..90), 0..80),
        ) {
            let kind = if physical { OrderKind::Physical } else { OrderKind::Virtual };
            let mut order = order(kind, quantity);
            let (mut now, mut said) = (at(0), Vec::new());
            said.extend(order.take_due(now));
            for (number, copy, later) in steps {
                now = now + Duration::from_secs(later);
                let canceled = order.canceled.is_some();
                let _ = order.step(now, input(number, copy), &mut Vec::new());
                let mut due = order.take_due(now);
                if number == 13 && order.takes_writes() {
                    due.extend(order.take_wanted(now));
                }
                prop_assert!(!canceled || due.is_empty(), "after a cancel: {due:?}");
                if order.canceled.is_some() {
                    prop_assert!(due.iter().all(|due| due.notice == Notice::OrderCanceled));
                }
                said.extend(due);
            }
            for notice in Notice::ALL {
                let times = said.iter().filter(|due| due.notice == notice).count();
                let most = match notice {
                    Notice::CardWritten => order.verified() as usize,
                    Notice::OrderShipped => order.shipments.len(),
                    _ => 1,
                };
                prop_assert!(times <= most, "{notice:?} {times} times");
            }
            prop_assert_eq!(said.iter().filter(|due| due.notice == Notice::OrderCanceled).count(), usize::from(order.canceled.is_some()));
            if order.canceled.is_none() {
                prop_assert_eq!(said.iter().filter(|due| due.notice == Notice::CardWritten).count(), order.verified() as usize);
            }
        }
    }
}
