//! Which images to have: those of leases with copies left, in the order cards would take them, a few at a
//! time. Knows what is here and what was refused; bytes, files and addresses are the fetcher's.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use cardshop_protocol::ids::{ImageId, LeaseId};
use cardshop_protocol::message::{Desired, DesiredUpdate, Fault, Lease};

use super::dispatch::has_work_left;
use super::event::{Effect, Trouble};
use super::history::History;

/// Images fetched at the same time. One is faster for the first card; two keep small orders from waiting
/// behind a 256 GB one.
const MAX_FETCHES: usize = 2;

/// One image that is being fetched or is here.
#[derive(Debug, Clone, Default)]
struct Arrival {
    /// Where it is fetched from.
    warehouses: Vec<String>,
    /// The fetcher was told.
    asked: bool,
    /// Its index is here and good.
    ready: bool,
    fetched: u64,
    total: u64,
}

impl Arrival {
    /// Has it fetched from these warehouses, unless that is so.
    fn ask(&mut self, image: ImageId, warehouses: &[String], effects: &mut Vec<Effect>) {
        if self.warehouses != warehouses || !self.asked {
            (self.asked, self.warehouses) = (true, warehouses.to_vec());
            effects.push(Effect::Fetch { image, warehouses: warehouses.to_vec() });
        }
    }
}

/// Images here or arriving, and leases whose image was refused.
#[derive(Debug, Default)]
pub(super) struct Images {
    arrivals: BTreeMap<ImageId, Arrival>,
    refused: BTreeMap<LeaseId, Fault>,
    /// What keeps an image from arriving.
    troubles: BTreeMap<(ImageId, Trouble), String>,
}

impl Images {
    /// Begins and ends fetches so that they follow the leases, and the update. That one comes on top: an appliance that
    /// always has work gets it, too. `needed` is not fetched any more and has to stay.
    pub(super) fn plan(
        &mut self,
        desired: &Desired,
        update: Option<&DesiredUpdate>,
        needed: Option<ImageId>,
        history: &History,
        effects: &mut Vec<Effect>,
    ) {
        let live: BTreeSet<LeaseId> = desired.leases.iter().map(|l| l.lease).collect();
        self.refused.retain(|lease, _| live.contains(lease));
        let mut wanted: Vec<&Lease> = desired
            .leases
            .iter()
            .filter(|l| !self.refused.contains_key(&l.lease) && has_work_left(l, history))
            .collect();
        wanted.sort_by_key(|l| (std::cmp::Reverse(l.priority), l.lease));

        let for_update =
            |image: &ImageId| needed == Some(*image) || update.is_some_and(|u| u.image == *image);
        let gone = |image: &ImageId| !for_update(image) && !wanted.iter().any(|l| l.image == *image);
        let abandoned: Vec<ImageId> = self.arrivals.keys().copied().filter(gone).collect();
        for image in abandoned {
            self.forget(image);
            effects.push(Effect::Abandon(image));
        }
        if let Some(update) = update {
            self.arrivals.entry(update.image).or_default().ask(update.image, &update.warehouses, effects);
        }
        let mut seen = BTreeSet::new();
        for lease in wanted {
            // The first lease of an image says where it is fetched from, also when it moves meanwhile.
            if !seen.insert(lease.image) {
                continue;
            }
            let under_way = self.arrivals.values().filter(|a| !a.ready || a.fetched < a.total).count();
            let arrival = match self.arrivals.entry(lease.image) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(_) if under_way >= MAX_FETCHES => continue,
                Entry::Vacant(new) => new.insert(Arrival::default()),
            };
            arrival.ask(lease.image, &lease.warehouses, effects);
        }
    }

    /// An index is here.
    pub(super) fn ready(&mut self, image: ImageId, total: u64) {
        if let Some(arrival) = self.arrivals.get_mut(&image) {
            (arrival.ready, arrival.total) = (true, total);
        }
    }

    /// Bytes are here.
    pub(super) fn progress(&mut self, image: ImageId, fetched: u64) {
        if let Some(arrival) = self.arrivals.get_mut(&image) {
            arrival.fetched = fetched;
        }
    }

    /// Something keeps an image from arriving, or no longer does.
    pub(super) fn trouble(&mut self, image: ImageId, trouble: Trouble, text: Option<String>) {
        match text {
            Some(text) if self.arrivals.contains_key(&image) => {
                self.troubles.insert((image, trouble), text);
            }
            _ => {
                self.troubles.remove(&(image, trouble));
            }
        }
    }

    /// False when it was not known.
    fn forget(&mut self, image: ImageId) -> bool {
        self.troubles.retain(|(troubled, _), _| *troubled != image);
        self.arrivals.remove(&image).is_some()
    }

    /// What keeps images from arriving, for people.
    pub(super) fn troubles(&self) -> impl Iterator<Item = String> {
        self.troubles
            .iter()
            .map(|((image, trouble), text)| format!("{}: image {image}: {text}", trouble.code()))
    }

    /// An image is refused: gives the leases that named it. Only a lease that arrives later asks for it again.
    pub(super) fn refuse(
        &mut self,
        image: ImageId,
        fault: &Fault,
        desired: Option<&Desired>,
    ) -> Vec<LeaseId> {
        if !self.forget(image) {
            return Vec::new();
        }
        let leases = desired.map_or(&[][..], |d| &d.leases);
        let named: Vec<LeaseId> = leases.iter().filter(|l| l.image == image).map(|l| l.lease).collect();
        self.refused.extend(named.iter().map(|lease| (*lease, fault.clone())));
        named
    }

    /// True when all of it is here.
    pub(super) fn is_whole(&self, image: ImageId) -> bool {
        self.arrivals.get(&image).is_some_and(|a| a.ready && a.fetched >= a.total)
    }

    /// True when a card can be begun.
    pub(super) fn is_ready(&self, image: ImageId) -> bool {
        self.arrivals.get(&image).is_some_and(|a| a.ready)
    }

    /// Bytes here, and bytes that travel (0 before the index is here).
    pub(super) fn bytes(&self, image: ImageId) -> (u64, u64) {
        self.arrivals.get(&image).map_or((0, 0), |a| (a.fetched, a.total))
    }

    /// How much is here, 0 to 100.
    pub(super) fn percent(&self, image: ImageId) -> u8 {
        match self.arrivals.get(&image) {
            Some(a) if a.ready && a.total == 0 => 100,
            Some(a) if a.ready => (u128::from(a.fetched) * 100 / u128::from(a.total)).min(100) as u8,
            _ => 0,
        }
    }

    /// Leases whose image was refused.
    pub(super) fn refused(&self) -> &BTreeMap<LeaseId, Fault> {
        &self.refused
    }
}
