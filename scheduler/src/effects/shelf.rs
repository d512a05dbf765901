//! Tells warehouses of links: when each ends, and how long its image must stay. Told again until it is heard.

use std::collections::BTreeSet;

use cardshop_protocol::ids::ImageId;
use cardshop_protocol::time::Timestamp;
use serde::Deserialize;
use serde_json::json;

use crate::core::order::{Input, Order, OrderImage, OrderKind};
use crate::effects::ask::{Answer, Question};
use crate::{Scheduler, SchedulerError};

/// Largest answer read, bytes.
const MAX_ANSWER: u64 = 64 * 1024;

/// What of a warehouse's answer counts.
#[derive(Deserialize)]
struct Told {
    path: String,
}

impl Scheduler {
    /// Tells what is not told yet. A warehouse that is away is not asked again in this round, the others are; the
    /// first that failed is what is returned.
    pub(crate) async fn tell_links(&self) -> Result<(), SchedulerError> {
        let (mut away, mut first) = (BTreeSet::new(), Ok(()));
        for order in self.all::<Order>(Some(("shelf", "link")))? {
            if away.contains(&order.warehouse) {
                continue;
            }
            if let Err(error) = self.tell_link(&order).await {
                away.insert(order.warehouse);
                first = first.and(Err(error));
            }
        }
        first
    }

    async fn tell_link(&self, order: &Order) -> Result<(), SchedulerError> {
        let (Some(until), Some(OrderImage { id: image, .. })) = (order.link_until(), &order.image) else {
            return Ok(());
        };
        let link = json!({"image": image, "name": order.file_name(), "expires": until});
        let told = self
            .tell_warehouse(Question::put(format!("{}/links/{}", order.warehouse, order.id), link))
            .await?;
        let keep = json!({"keep_until": self.needed_until(&order.warehouse, *image)?});
        self.tell_warehouse(Question::patch(format!("{}/images/{image}", order.warehouse), keep)).await?;
        // `None`: the warehouse has no such image any more, and so no link.
        let path = told.and_then(|told| serde_json::from_slice::<Told>(&told).ok()).map(|told| told.path);
        self.step_order(order.id, Input::LinkTold { until, path }, |_, _, _| {}).await?;
        Ok(())
    }

    /// How long an image must stay: as long as the last link to it, for good when cards are made of it.
    fn needed_until(&self, warehouse: &str, image: ImageId) -> Result<Option<Timestamp>, SchedulerError> {
        let mut users = self.all::<Order>(Some(("image", &image.to_string())))?;
        users.retain(|o| o.warehouse == warehouse);
        if users.iter().any(|order| order.kind == OrderKind::Physical) {
            return Ok(None);
        }
        Ok(users.iter().filter_map(Order::link_until).max())
    }

    /// The answer's body; `None` for 404.
    async fn tell_warehouse(&self, what: Question) -> Result<Option<Vec<u8>>, SchedulerError> {
        match self.ask(what, Some(self.own_token()), MAX_ANSWER).await {
            Answer::Body(body) => Ok(Some(body)),
            Answer::NotFound => Ok(None),
            Answer::TooLarge => {
                Err(SchedulerError::Unreachable("the warehouse's answer is too large".into()))
            }
            Answer::Failed(text) => Err(SchedulerError::Unreachable(text)),
        }
    }
}
