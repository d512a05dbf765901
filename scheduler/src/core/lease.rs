//! Which appliance writes which copies. [`plan`] takes the orders to be written, the appliances and what each was
//! told last, and gives what has to be told anew. It keeps what is leased, gives out only what is free, and says
//! the same thing twice in the same words, so that planning again changes nothing.
//!
//! ```text
//! free ─► leased until not_after ─► renewed while the appliance is heard
//!           │                         │ silent: not renewed, and free again only after not_after
//!           └─ withdrawn at once when the order is canceled or written, or the appliance is no longer approved
//! ```
//!
//! Copies of live leases of an order never overlap: a copy moves to another appliance only when its lease is over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cardshop_protocol::ids::{ApplianceId, Channel, LeaseId};
use cardshop_protocol::keys::PublicKey;
use cardshop_protocol::message::{
    Copies, Desired, DesiredSlot, DesiredUpdate, Lease, Settings, VERSION, Verify, Wipe,
};
use cardshop_protocol::time::Timestamp;

use super::documents::Grant;
use super::order::Order;

/// How long an appliance may go on without hearing from us.
pub(crate) const LEASE_TIME: Duration = Duration::from_secs(24 * 3600);
/// A lease with less time left is renewed; the rest of the day its text stays the same.
const RENEW_BELOW: Duration = Duration::from_secs(12 * 3600);
/// An appliance that was not heard for this long gets no new leases, and its leases are not renewed.
pub(crate) const SILENT_AFTER: Duration = Duration::from_secs(10 * 60);
/// Leases one appliance may hold.
const MAX_LEASES: usize = 64;
/// Bytes of all leases of one appliance: with settings below the 64 KiB a `desired` may have.
const MAX_LEASES_SIZE: usize = 40 * 1024;
/// Bytes of a done copy in a lease: four digits and a comma.
const DONE_COPY_SIZE: usize = 5;
/// Bytes of a lease of 1000 copies with the longest names.
const LARGEST_LEASE: usize = 8 * 1024;
/// Guarded orders an appliance is told, the newest: 28 bytes each.
const MAX_GUARDED: usize = 400;

/// An approved appliance.
#[derive(Debug, Clone)]
pub(crate) struct Worker {
    pub(crate) id: ApplianceId,
    pub(crate) channels: Vec<Channel>,
    /// Slots it has: its share of the work.
    pub(crate) slots: u32,
    /// When it was heard last.
    pub(crate) heard: Timestamp,
}

/// All that a plan depends on.
pub(crate) struct Site<'a> {
    /// Orders whose copies may be written, oldest first.
    pub(crate) orders: &'a [Order],
    /// Orders with verified cards that are not shipped, oldest first.
    pub(crate) unshipped: &'a [Order],
    /// Approved appliances.
    pub(crate) workers: &'a [Worker],
    /// What each appliance was told last, approved or not.
    pub(crate) told: &'a BTreeMap<ApplianceId, Desired>,
    /// Nothing new begins: what is leased is kept.
    pub(crate) paused: bool,
    /// Keys that sign indexes.
    pub(crate) index_keys: &'a [PublicKey],
    /// Sender's name by channel.
    pub(crate) shops: &'a BTreeMap<Channel, String>,
    /// Names and holds of slots.
    pub(crate) slots: &'a BTreeMap<ApplianceId, Vec<DesiredSlot>>,
    /// Which version each appliance is to run.
    pub(crate) updates: &'a BTreeMap<ApplianceId, DesiredUpdate>,
}

/// What has to be told anew.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// By appliance; `rev` is already raised.
    pub(crate) desired: BTreeMap<ApplianceId, Desired>,
    /// Leases given now.
    pub(crate) granted: Vec<Grant>,
    /// Leases that ended now, with their orders, because their time was over or their holder was removed.
    pub(crate) ended: Vec<Lease>,
}

/// Plans at `now`; `next_id` names new leases.
pub(crate) fn plan(site: &Site<'_>, now: Timestamp, next_id: &mut dyn FnMut() -> LeaseId) -> Plan {
    let mut plan = Plan::default();
    let mut leases: BTreeMap<ApplianceId, Vec<Lease>> = BTreeMap::new();
    for (id, told) in site.told {
        let worker = site.workers.iter().find(|w| w.id == *id);
        let kept = leases.entry(*id).or_default();
        for lease in &told.leases {
            match keep(lease, worker, site.orders, now) {
                Kept::Yes(lease) => kept.push(lease),
                Kept::Withdrawn => {}
                Kept::Over => plan.ended.push(lease.clone()),
            }
        }
    }
    for order in by_priority(site.orders).into_iter().filter(|_| !site.paused) {
        share_out(order, site, now, &mut leases, &mut plan.granted, next_id);
    }
    for worker in site.workers {
        leases.entry(worker.id).or_default();
    }
    for (id, leases) in leases {
        let settings =
            site.workers.iter().find(|w| w.id == id).map(|w| settings(w, site)).unwrap_or_default();
        let told = site.told.get(&id);
        let slots = site.slots.get(&id).cloned().unwrap_or_default();
        let rev = told.map_or(0, |t| t.rev);
        let mut desired = Desired { v: VERSION, rev, settings, slots, leases };
        if told != Some(&desired) {
            desired.rev += 1;
            plan.desired.insert(id, desired);
        }
    }
    plan
}

enum Kept {
    Yes(Lease),
    /// Its order needs it no more.
    Withdrawn,
    /// Its time is over, or its holder is not one of ours any more.
    Over,
}

fn keep(lease: &Lease, worker: Option<&Worker>, orders: &[Order], now: Timestamp) -> Kept {
    let Some(order) = orders.iter().find(|o| o.id == lease.order && o.takes_writes()) else {
        return Kept::Withdrawn;
    };
    let Some(worker) = worker.filter(|w| w.channels.contains(&order.channel)) else { return Kept::Over };
    if now > lease.not_after {
        return Kept::Over;
    }
    let Some(copies) = trim(lease.copies, order) else { return Kept::Withdrawn };
    let mut lease = lease.clone();
    lease.copies = copies;
    lease.done = verified_in(copies, order);
    lease.priority = order.priority;
    lease.warehouses = order.warehouses();
    if is_here(worker, now) && lease.not_after.since(now) < RENEW_BELOW {
        lease.not_after = now + LEASE_TIME;
    }
    Kept::Yes(lease)
}

fn is_here(worker: &Worker, now: Timestamp) -> bool {
    now.since(worker.heard) <= SILENT_AFTER
}

/// The range without verified copies at its ends; `None` when nothing is left.
fn trim(copies: Copies, order: &Order) -> Option<Copies> {
    let first = (copies.first..=copies.last).find(|c| !order.is_verified(*c))?;
    let last = (first..=copies.last).rev().find(|c| !order.is_verified(*c))?;
    Some(Copies { first, last })
}

fn verified_in(copies: Copies, order: &Order) -> Vec<u32> {
    (copies.first..=copies.last).filter(|c| order.is_verified(*c)).collect()
}

fn by_priority(orders: &[Order]) -> Vec<&Order> {
    let mut orders: Vec<_> = orders.iter().filter(|o| o.takes_writes()).collect();
    orders.sort_by_key(|o| (std::cmp::Reverse(o.priority), o.id));
    orders
}

/// Gives the free copies of one order to those who can write them, by their slots.
fn share_out(
    order: &Order,
    site: &Site<'_>,
    now: Timestamp,
    leases: &mut BTreeMap<ApplianceId, Vec<Lease>>,
    granted: &mut Vec<Grant>,
    next_id: &mut dyn FnMut() -> LeaseId,
) {
    let Some(image) = &order.image else { return };
    let taken: BTreeSet<u32> = leases
        .values()
        .flatten()
        .filter(|l| l.order == order.id)
        .flat_map(|l| l.copies.first..=l.copies.last)
        .collect();
    let runs = free_runs(order, &taken);
    let mut able: Vec<&Worker> = site
        .workers
        .iter()
        .filter(|w| w.channels.contains(&order.channel) && is_here(w, now) && has_room(leases.get(&w.id)))
        .collect();
    able.sort_by_key(|w| w.id);
    for (worker, copies) in divide(&runs, &able) {
        let Some(copies) = trim(copies, order) else { continue };
        let lease = Lease {
            lease: next_id(),
            order: order.id,
            order_name: order.name.clone(),
            image: image.id,
            warehouses: order.warehouses(),
            min_card_bytes: image.size,
            copies,
            done: verified_in(copies, order),
            total: order.quantity,
            not_after: now + LEASE_TIME,
            wipe: Wipe::default(),
            verify: Verify::default(),
            priority: order.priority,
        };
        let held = leases.entry(worker).or_default();
        if !has_room(Some(held)) {
            continue;
        }
        granted.push(Grant {
            id: lease.lease,
            appliance: worker,
            order: order.id,
            image: image.id,
            copies,
            granted: now,
        });
        held.push(lease);
    }
}

fn has_room(leases: Option<&Vec<Lease>>) -> bool {
    let Some(leases) = leases else { return true };
    let size: usize = leases.iter().map(largest_size).sum();
    leases.len() < MAX_LEASES && size + LARGEST_LEASE <= MAX_LEASES_SIZE
}

/// Bytes of a lease when all its copies but one are done: its list of done copies grows while it lives.
fn largest_size(lease: &Lease) -> usize {
    let begun = Lease { done: Vec::new(), ..lease.clone() };
    serde_json::to_vec(&begun).map_or(0, |v| v.len()) + lease.copies.count() as usize * DONE_COPY_SIZE
}

/// Ranges of copies that nobody has and that are not verified; a range may hold verified copies inside.
fn free_runs(order: &Order, taken: &BTreeSet<u32>) -> Vec<Copies> {
    let mut runs: Vec<Copies> = Vec::new();
    let mut open = false;
    for copy in 1..=order.quantity {
        if taken.contains(&copy) {
            open = false;
        } else if !order.is_verified(copy) {
            match runs.last_mut() {
                Some(run) if open => run.last = copy,
                _ => runs.push(Copies { first: copy, last: copy }),
            }
            open = true;
        }
    }
    runs
}

/// Cuts the runs into ranges so that everybody's share follows its slots; earlier copies go to lower ids.
fn divide(runs: &[Copies], workers: &[&Worker]) -> Vec<(ApplianceId, Copies)> {
    let total: u64 = runs.iter().map(|r| u64::from(r.count())).sum();
    let slots: u64 = workers.iter().map(|w| u64::from(w.slots.max(1))).sum();
    let mut ranges = Vec::new();
    let (mut runs, mut given, mut slots_so_far) = (runs.iter().copied(), 0u64, 0u64);
    let mut rest = runs.next();
    for worker in workers {
        slots_so_far += u64::from(worker.slots.max(1));
        let upto = total * slots_so_far / slots;
        while given < upto {
            let Some(run) = rest else { break };
            let count = u64::from(run.count()).min(upto - given) as u32;
            let cut = Copies { first: run.first, last: run.first + count - 1 };
            ranges.push((worker.id, cut));
            given += u64::from(count);
            rest =
                if cut.last < run.last { Some(Copies { first: cut.last + 1, ..run }) } else { runs.next() };
        }
    }
    ranges
}

fn settings(worker: &Worker, site: &Site<'_>) -> Settings {
    let shop = worker.channels.iter().find_map(|c| site.shops.get(c)).cloned().unwrap_or_default();
    let mut guarded: Vec<_> = site
        .unshipped
        .iter()
        .rev()
        .filter(|o| worker.channels.contains(&o.channel))
        .take(MAX_GUARDED)
        .map(|o| o.id)
        .collect();
    guarded.sort();
    let update = site.updates.get(&worker.id).cloned();
    let index_keys = site.index_keys.to_vec();
    Settings { index_keys, shop, guarded_orders: guarded, update, ..Settings::default() }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
