//! When an order will be done: from how long images and cards took at this site lately. A guess of the middle and of nine in
//! ten; none where nothing was measured yet.

use std::time::Duration;

use cardshop_protocol::ids::OrderId;
use cardshop_protocol::time::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::order::{Order, OrderKind, OrderStatus};

/// Images and cards that are looked back at, each: the newest.
pub(crate) const LOOK_BACK: usize = 200;

/// Durations that were measured, sorted, milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Measured(Vec<u64>);

impl Measured {
    pub(crate) fn new(mut durations_ms: Vec<u64>) -> Self {
        durations_ms.sort_unstable();
        Self(durations_ms)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The duration that `percent` of a hundred stay below: the nearest rank.
    pub(crate) fn percentile(&self, percent: usize) -> Option<Duration> {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).map(|ms| Duration::from_millis(*ms))
    }
}

/// How long the image of an order took from its first claim, if it is there.
pub(crate) fn build_ms(order: &Order) -> Option<u64> {
    let since =
        |wanted: &[OrderStatus]| order.history.iter().find(|h| wanted.contains(&h.status)).map(|h| h.at);
    let begun = since(&[OrderStatus::Creating])?;
    let done = since(&[OrderStatus::Ready, OrderStatus::Available])?;
    u64::try_from(done.since(begun).as_millis()).ok()
}

/// What an order waits for, and who is there to do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ahead {
    /// Its place among those that wait for a creator, from 1.
    pub(crate) position: Option<usize>,
    /// Creators that are there.
    pub(crate) creators: usize,
    /// Cards of other orders that go before its own.
    pub(crate) cards: u32,
    /// Slots that are there.
    pub(crate) slots: usize,
}

/// When an order will be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Estimate {
    /// The order.
    pub id: OrderId,
    /// Its place among those that wait for a creator, from 1.
    pub position: Option<usize>,
    /// As likely before as after.
    pub finish_p50: Option<Timestamp>,
    /// Nine of ten are done by then.
    pub finish_p90: Option<Timestamp>,
    /// Images the guess is made from.
    pub measured_images: usize,
    /// Cards the guess is made from.
    pub measured_cards: usize,
}

/// Guesses at `now`. An order that is written, available or has ended has nothing left to guess.
pub(crate) fn estimate(
    order: &Order,
    ahead: Ahead,
    images: &Measured,
    cards: &Measured,
    now: Timestamp,
) -> Estimate {
    let finish = |percent| {
        let waits = matches!(
            order.status(now),
            OrderStatus::Created | OrderStatus::Creating | OrderStatus::Ready | OrderStatus::Writing
        );
        if !waits {
            return None;
        }
        let mut left = Duration::ZERO;
        if order.image.is_none() {
            left += image_left(order, ahead, images.percentile(percent)?, now)?;
        }
        if order.kind == OrderKind::Physical {
            let wanted = order.quantity - order.verified() + ahead.cards;
            let rounds = wanted.div_ceil(u32::try_from(ahead.slots).ok().filter(|slots| *slots > 0)?);
            left += cards.percentile(percent)? * rounds;
        }
        Some(now + left)
    };
    Estimate {
        id: order.id,
        position: ahead.position,
        finish_p50: finish(50),
        finish_p90: finish(90),
        measured_images: images.count(),
        measured_cards: cards.count(),
    }
}

fn image_left(order: &Order, ahead: Ahead, one: Duration, now: Timestamp) -> Option<Duration> {
    if let Some(position) = ahead.position {
        let creators = Some(ahead.creators).filter(|creators| *creators > 0)?;
        return Some(one * u32::try_from(position.div_ceil(creators)).ok()?);
    }
    // It is being made, or pauses after a failure.
    let pause = order.creation.retry_at.map_or(Duration::ZERO, |at| at.since(now));
    let done = order.creation.claimed_at.map_or(Duration::ZERO, |at| now.since(at));
    Some(pause + if pause.is_zero() { one.saturating_sub(done) } else { one })
}

#[cfg(test)]
mod tests {
    use super::super::order::tests::order;
    use super::super::order::{Input, OrderImage};
    use super::*;

    fn at(s: u64) -> Timestamp {
        Timestamp::from_ms(1_790_000_000_000 + s * 1000)
    }

    fn seconds(list: &[u64]) -> Measured {
        Measured::new(list.iter().map(|s| s * 1000).collect())
    }

    fn ahead(position: Option<usize>, creators: usize, cards: u32, slots: usize) -> Ahead {
        Ahead { position, creators, cards, slots }
    }

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let measured = seconds(&[9, 1, 5, 3, 7, 2, 4, 6, 8, 10]);
        assert_eq!(measured.percentile(50), Some(Duration::from_secs(5)));
        assert_eq!(measured.percentile(90), Some(Duration::from_secs(9)));
        assert_eq!(seconds(&[4]).percentile(90), Some(Duration::from_secs(4)));
        assert_eq!(seconds(&[]).percentile(50), None);
    }

    #[test]
    fn the_queue_the_creators_the_cards_before_and_the_slots_make_the_guess() {
        let waits = order(OrderKind::Physical, 4);
        let (images, cards) = (seconds(&[100, 100, 300]), seconds(&[10, 10, 50]));
        let guess = |ahead| estimate(&waits, ahead, &images, &cards, at(0));
        // Third of the queue, two creators: two rounds of images; 4 and 2 cards in 3 slots: two rounds of cards.
        let third = guess(ahead(Some(3), 2, 2, 3));
        assert_eq!((third.finish_p50, third.finish_p90), (Some(at(220)), Some(at(700))));
        assert_eq!((third.position, third.measured_images), (Some(3), 3));
        assert_eq!(guess(ahead(Some(1), 0, 0, 3)).finish_p50, None, "nobody is there to make it");
        assert_eq!(guess(ahead(Some(1), 1, 0, 0)).finish_p50, None, "nothing is there to write it");
        let unmeasured = estimate(&waits, ahead(Some(1), 1, 0, 1), &images, &seconds(&[]), at(0));
        assert_eq!(unmeasured.finish_p90, None);
        let download = order(OrderKind::Virtual, 1);
        let guess = estimate(&download, ahead(Some(1), 1, 9, 0), &images, &seconds(&[]), at(0));
        assert_eq!(guess.finish_p50, Some(at(100)), "no cards are wanted");
    }

    #[test]
    fn an_image_that_is_being_made_is_nearer_and_a_finished_order_has_no_guess() {
        let mut order = order(OrderKind::Virtual, 1);
        order.step(at(0), Input::Claim { owner: "c".into() }, &mut Vec::new()).unwrap();
        let images = seconds(&[100]);
        let guess = |order: &Order, now| {
            estimate(order, ahead(None, 1, 0, 0), &images, &seconds(&[]), now).finish_p50
        };
        assert_eq!(guess(&order, at(30)), Some(at(100)));
        assert_eq!(guess(&order, at(130)), Some(at(130)), "any moment now");
        for now in [50, 100] {
            let phase = cardshop_protocol::api::CreationPhase::Building;
            let report =
                cardshop_protocol::api::CreationReport::Running { phase, done: 1, total: 2, eta_s: None };
            order.step(at(now), Input::Report { owner: "c".into(), report }, &mut Vec::new()).unwrap();
        }
        let image = OrderImage { id: cardshop_protocol::ids::ImageId([1; 32]), size: 9, data_bytes: 9 };
        order.step(at(140), Input::ImageChecked { owner: "c".into(), image }, &mut Vec::new()).unwrap();
        assert_eq!(guess(&order, at(141)), None);
        assert_eq!(build_ms(&order), Some(140_000));
    }
}
