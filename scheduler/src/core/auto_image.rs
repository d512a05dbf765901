//! Auto-images: images that are made anew on a schedule and served by a name that stays. `next` decides what is to be done
//! for one of them; `effects::auto_images` does it. Each build is an order for a download, so that creators, warehouses and
//! people see nothing new.
//!
//! ```text
//! next_at ─► build: an order ──► available ─► adopted: it is served now, the one before ends, next_at = now + every_days
//!    ▲                        └─► failed    ─► back-off: 1 h, 2 h, 4 h … a day ─┐      the one before is served on, and
//!    └──────────────────────────────────────────────────────────────────────────┘      kept longer when it would end
//! ```

use std::time::Duration;

use cardshop_protocol::ids::{Channel, ObjectId, OrderId};
use cardshop_protocol::time::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::order::{Order, OrderStatus};

/// Longest pause between two builds.
pub(crate) const MAX_DAYS: u32 = 365;
/// Pause after the first failure; twice as long after each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(3600);
/// Longest pause after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(86_400);
/// What is served is kept longer when less than this is left of it.
const KEEP_BEFORE_END: Duration = Duration::from_secs(3 * 86_400);
/// Days a download is good for, for each of an order's quantity.
const DAYS_OF_ONE: u32 = 14;
/// Days a download is good for beyond the next build: time for some failures.
const SPARE_DAYS: u32 = 10;
const DAY: Duration = Duration::from_secs(86_400);

/// One auto-image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AutoImage {
    pub(crate) id: ObjectId,
    /// What it is served by: a slug, for good.
    pub(crate) name: Channel,
    pub(crate) configuration: ObjectId,
    pub(crate) channel: Channel,
    /// Anybody may download it.
    pub(crate) public: bool,
    pub(crate) every_days: u32,
    pub(crate) created: Timestamp,
    pub(crate) created_by: String,
    /// The order whose image is served.
    pub(crate) current: Option<OrderId>,
    /// When that was adopted.
    pub(crate) built: Option<Timestamp>,
    /// The order that is being made.
    pub(crate) building: Option<OrderId>,
    /// Failures since the last success.
    pub(crate) failures: u32,
    pub(crate) failure: Option<String>,
    /// The next build begins then.
    pub(crate) next_at: Timestamp,
    /// Nothing is built until it goes on; what is served is served on.
    #[serde(default)]
    pub(crate) paused: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Wait,
    /// Place an order for it.
    Build,
    /// What was built is served from now on.
    Adopt,
    /// What was to be built is not: try again later.
    Failed(String),
    /// What is served would end soon: keep it longer.
    KeepCurrent,
}

/// What is to be done at `now`, when `current` is what is served and `building` what is being made.
pub(crate) fn next(
    auto: &AutoImage,
    current: Option<&Order>,
    building: Option<&Order>,
    now: Timestamp,
) -> Step {
    if auto.building.is_some() {
        match building.map(|order| (order, order.status(now))) {
            None => return Step::Failed("its order is gone".into()),
            // Where it is downloaded is not known before the warehouse has heard of the link.
            Some((order, OrderStatus::Available)) if order.link.path.is_some() => return Step::Adopt,
            Some((order, OrderStatus::Failed)) => {
                let reason = order.creation.failure.clone();
                return Step::Failed(reason.unwrap_or_else(|| "no reason was given".into()));
            }
            Some((_, status @ (OrderStatus::Canceled | OrderStatus::Expired))) => {
                return Step::Failed(format!("its order is {}", status.as_str()));
            }
            Some(_) => {}
        }
    } else if !auto.paused && now >= auto.next_at {
        return Step::Build;
    }
    let ends = current.filter(|order| order.status(now) == OrderStatus::Available);
    let ends = ends.and_then(|order| order.available_until);
    if ends.is_some_and(|end| end.since(now) < KEEP_BEFORE_END) { Step::KeepCurrent } else { Step::Wait }
}

impl AutoImage {
    /// Quantity of its orders: their downloads outlive the next build.
    pub(crate) fn quantity(&self) -> u32 {
        (self.every_days + SPARE_DAYS).div_ceil(DAYS_OF_ONE)
    }

    /// What was built is served; gives what was served before.
    pub(crate) fn adopt(&mut self, now: Timestamp) -> Option<OrderId> {
        let before = self.current.take();
        self.current = self.building.take();
        self.built = Some(now);
        (self.failures, self.failure) = (0, None);
        self.next_at = now + DAY * self.every_days;
        before
    }

    /// A build failed.
    pub(crate) fn fail(&mut self, reason: &str, now: Timestamp) {
        self.building = None;
        self.failure = Some(reason.chars().take(500).collect());
        let pause = FIRST_PAUSE * 2u32.saturating_pow(self.failures.min(10));
        self.failures = self.failures.saturating_add(1);
        self.next_at = now + pause.min(LONGEST_PAUSE);
    }

    /// Somebody wants it built now.
    pub(crate) fn trigger(&mut self, now: Timestamp) {
        self.next_at = self.next_at.min(now);
    }
}

/// An auto-image, as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AutoImageView {
    /// Its id.
    pub id: ObjectId,
    /// What it is served by.
    pub name: Channel,
    /// What it is made from.
    pub configuration: ObjectId,
    /// Routes it.
    pub channel: Channel,
    /// Anybody may download it.
    pub public: bool,
    /// Days from one build to the next.
    pub every_days: u32,
    /// Where it is downloaded, when there is something to download.
    pub link: Option<String>,
    /// Bytes of the image.
    pub size: Option<u64>,
    /// When it was built.
    pub built: Option<Timestamp>,
    /// The order whose image is served.
    pub current: Option<OrderId>,
    /// The order that is being made.
    pub building: Option<OrderId>,
    /// Failures since the last success.
    pub failures: u32,
    /// Why the last build failed.
    pub failure: Option<String>,
    /// The next build begins then.
    pub next_at: Timestamp,
    /// Nothing is built until it goes on.
    #[serde(default)]
    pub paused: bool,
}

#[cfg(test)]
mod tests {
    use super::super::order::OrderKind;
    use super::super::order::tests::order;
    use super::*;

    fn at(days: u64) -> Timestamp {
        Timestamp::from_ms(1_790_000_000_000) + DAY * u32::try_from(days).unwrap()
    }

    fn auto() -> AutoImage {
        AutoImage {
            id: ObjectId::from_parts(1, 1),
            name: "wiki".parse().unwrap(),
            configuration: ObjectId::from_parts(1, 2),
            channel: "default".parse().unwrap(),
            public: true,
            every_days: 30,
            created: at(0),
            created_by: "ada".into(),
            current: None,
            built: None,
            building: None,
            failures: 0,
            failure: None,
            next_at: at(0),
            paused: false,
        }
    }

    fn available(n: u128, until: Timestamp) -> Order {
        let mut order = order(OrderKind::Virtual, 3);
        order.id = ObjectId::from_parts(1, n);
        order.image = Some(crate::core::order::OrderImage {
            id: cardshop_protocol::ids::ImageId([1; 32]),
            size: 9,
            data_bytes: 9,
        });
        order.available_until = Some(until);
        order.link.path = Some("/p/x".into());
        order
    }

    #[test]
    fn it_is_built_when_due_served_once_it_is_there_and_built_again_a_month_later() {
        let mut auto = auto();
        assert_eq!(next(&auto, None, None, at(0)), Step::Build);
        let mut first = available(7, at(42));
        auto.building = Some(first.id);
        let made = std::mem::take(&mut first.link);
        assert_eq!(next(&auto, None, Some(&first), at(0)), Step::Wait, "nobody knows where it is yet");
        first.link = made;
        assert_eq!(next(&auto, None, Some(&first), at(0)), Step::Adopt);
        assert_eq!(auto.adopt(at(0)), None);
        assert_eq!(next(&auto, Some(&first), None, at(29)), Step::Wait);
        assert_eq!(next(&auto, Some(&first), None, at(30)), Step::Build);
        assert_eq!(auto.quantity(), 3, "42 days: longer than to the next build");
        auto.building = Some(ObjectId::from_parts(1, 8));
        assert_eq!(auto.adopt(at(30)), Some(first.id), "what was served before is to end");
        auto.trigger(at(31));
        assert_eq!(next(&auto, None, None, at(31)), Step::Build, "on demand");
        auto.paused = true;
        assert_eq!(next(&auto, Some(&available(8, at(60))), None, at(31)), Step::Wait, "paused");
    }

    #[test]
    fn a_failure_keeps_what_is_served_and_pauses_longer_each_time() {
        let mut auto = auto();
        let first = available(7, at(42));
        auto.current = Some(first.id);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            auto.building = Some(ObjectId::from_parts(1, 8));
            let mut failed = order(OrderKind::Virtual, 3);
            failed.creation.status = crate::core::order::TaskStatus::Failed;
            failed.creation.failure = Some("no space".into());
            let Step::Failed(reason) = next(&auto, Some(&first), Some(&failed), at(30)) else { panic!() };
            auto.fail(&reason, at(30));
            pauses.push(auto.next_at.since(at(30)).as_secs() / 3600);
            assert_eq!((auto.current, auto.building), (Some(first.id), None));
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 24, 24]);
        assert_eq!(auto.failure.as_deref(), Some("no space"));
        assert_eq!(next(&auto, Some(&first), None, at(30)), Step::Wait);
        auto.next_at = at(50);
        assert_eq!(next(&auto, Some(&first), None, at(40)), Step::KeepCurrent, "two days are left of it");
        auto.building = Some(ObjectId::from_parts(1, 9));
        assert_eq!(next(&auto, Some(&first), None, at(40)), Step::Failed("its order is gone".into()));
    }
}
