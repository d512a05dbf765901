//! Tells everybody what became of an order: live stream, retained topics of screens and integrators, and whoever
//! waits for work or plans leases.

use cardshop_protocol::ids::Channel;
use cardshop_protocol::message::{Board, OrderMessage, Presence, VERSION};
use cardshop_protocol::topic::Topic;

use crate::core::documents::{Appliance, ChannelDocument};
use crate::core::order::{Order, OrderKind};
use crate::core::views::OrderView;
use crate::{Scheduler, SchedulerError};

impl Scheduler {
    /// After an order has changed and is stored.
    pub(crate) fn announce_order(&self, order: &Order) {
        let now = self.now();
        self.inner.live.send("order", vec![order.channel.clone()], &OrderView::new(order, now));
        self.publish_order(order);
        if order.is_claimable(now) {
            self.inner.work.notify_waiters();
        }
        // The planner also tells the boards.
        self.inner.replan.notify_one();
    }

    /// The integrator's view of an order.
    pub(crate) fn publish_order(&self, order: &Order) {
        let status = order.status(self.now());
        let topic = Topic::Order(order.channel.clone(), order.id);
        let message = OrderMessage {
            v: VERSION,
            order: order.id,
            name: order.name.clone(),
            status: status.as_str().to_owned(),
            quantity: order.quantity,
            verified: order.verified(),
            shipped: order.shipped(),
        };
        if status.is_ended() {
            self.inner.retained.set_last(&topic, &message);
        } else {
            self.inner.retained.set(&topic, &message);
        }
    }

    /// Totals of every channel.
    pub(crate) fn publish_boards(&self) -> Result<(), SchedulerError> {
        let orders = self.all::<Order>(Some(("shelf", "open")))?;
        let appliances = self.all::<Appliance>(None)?;
        for channel in self.all::<ChannelDocument>(None)? {
            let board = self.board(channel.slug, &orders, &appliances);
            self.inner.retained.set(&Topic::Board(board.channel.clone()), &board);
        }
        Ok(())
    }

    fn board(&self, channel: Channel, orders: &[Order], appliances: &[Appliance]) -> Board {
        let now = self.now();
        let mine = || orders.iter().filter(|o| o.channel == channel && !o.status(now).is_ended());
        let cards = || mine().filter(|o| o.kind == OrderKind::Physical);
        let picture = self.inner.picture.lock().expect("no holder panics");
        let online = appliances.iter().filter(|a| {
            let seen = picture.get(a.id).map(|p| p.presence(now));
            a.channels.contains(&channel) && seen == Some(Presence::Online)
        });
        Board {
            v: VERSION,
            open_orders: count(mine().count()),
            verified: cards().map(Order::verified).sum(),
            wanted: cards().map(|o| o.quantity).sum(),
            appliances_online: count(online.count()),
            channel,
        }
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
