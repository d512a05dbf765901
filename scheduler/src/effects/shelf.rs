//! Tells warehouses of links: when each ends, and how long its image must stay. Told again until it is heard.

use std::time::Duration;

use cardshop_protocol::ids::ImageId;
use cardshop_protocol::time::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::core::order::{Input, Order, OrderImage, OrderKind};
use crate::{Scheduler, SchedulerError};

/// Longest time a warehouse may take over an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer read, bytes.
const MAX_ANSWER: u64 = 64 * 1024;

/// What of a warehouse's answer counts.
#[derive(Deserialize)]
struct Told {
    path: String,
}

impl Scheduler {
    /// Tells what is not told yet. A warehouse that is away holds up the rest of the round only.
    pub(crate) async fn tell_links(&self) -> Result<(), SchedulerError> {
        for order in self.all::<Order>(Some(("shelf", "link")))? {
            self.tell_link(&order).await?;
        }
        Ok(())
    }

    async fn tell_link(&self, order: &Order) -> Result<(), SchedulerError> {
        let (Some(until), Some(OrderImage { id: image, .. })) = (order.link_until(), &order.image) else {
            return Ok(());
        };
        let link = json!({"image": image, "name": order.name, "expires": until});
        let told =
            self.tell_warehouse("PUT", format!("{}/links/{}", order.warehouse, order.id), link).await?;
        let keep = json!({"keep_until": self.needed_until(&order.warehouse, *image)?});
        self.tell_warehouse("PATCH", format!("{}/images/{image}", order.warehouse), keep).await?;
        // `None`: the warehouse has no such image any more, and so no link.
        let path = told.and_then(|told| serde_json::from_slice::<Told>(&told).ok()).map(|told| told.path);
        self.step_order(order.id, Input::LinkTold { until, path }, |_, _, _| {}).await?;
        Ok(())
    }

    /// How long an image must stay: as long as the last link to it, for good when cards are made of it.
    fn needed_until(&self, warehouse: &str, image: ImageId) -> Result<Option<Timestamp>, SchedulerError> {
        let mut users = self.all::<Order>(None)?;
        users.retain(|o| o.warehouse == warehouse && o.image.as_ref().is_some_and(|i| i.id == image));
        if users.iter().any(|order| order.kind == OrderKind::Physical) {
            return Ok(None);
        }
        Ok(users.iter().filter_map(Order::link_until).max())
    }

    /// The answer's body; `None` for 404.
    async fn tell_warehouse(
        &self,
        method: &'static str,
        url: String,
        body: Value,
    ) -> Result<Option<Vec<u8>>, SchedulerError> {
        let token = self.own_token();
        let work = move || {
            let agent: ureq::Agent = ureq::Agent::config_builder()
                .timeout_global(Some(TIMEOUT))
                .http_status_as_error(false)
                .max_redirects(0)
                .build()
                .into();
            let request = if method == "PUT" { agent.put(&url) } else { agent.patch(&url) };
            let answer = request.header("Authorization", format!("Bearer {token}")).send(body.to_string());
            let mut answer = answer.map_err(|error| format!("{url} cannot be reached: {error}"))?;
            match answer.status().as_u16() {
                200..=299 => {
                    let read = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
                    read.map(Some).map_err(|error| format!("{url} broke off: {error}"))
                }
                404 => Ok(None),
                status => Err(format!("{url} answered {status}")),
            }
        };
        let told = tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err("stopped".into()));
        told.map_err(SchedulerError::Unreachable)
    }
}
