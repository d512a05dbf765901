//! The picture of the bench: what every appliance last said of itself and its slots. Kept in memory; the broker's
//! retained messages fill it again after a restart. Decides which messages are news: a status of an older session
//! and a slot state of an older generation `(boot, n)` are not. `effects::inbox` feeds it.

use std::collections::BTreeMap;
use std::time::Duration;

use cardshop_protocol::ids::{ApplianceId, SlotId, TaskId};
use cardshop_protocol::message::{
    Alert, Health, Info, Presence, Progress, Reported, SlotState, SlotStatus, StatusMessage, WritePhase,
};
use cardshop_protocol::time::Timestamp;

/// An appliance that was not heard for this long is offline: three of its health messages are missing.
pub(crate) const OFFLINE_AFTER: Duration = Duration::from_secs(90);
/// Slots of one appliance that are remembered.
const MAX_SLOTS: usize = 256;
/// Alerts of one appliance that are remembered.
const MAX_ALERTS: usize = 64;

/// One slot.
#[derive(Debug, Clone)]
pub(crate) struct SlotPicture {
    pub(crate) state: SlotState,
    pub(crate) progress: Option<Progress>,
}

/// One appliance.
#[derive(Debug, Clone, Default)]
pub(crate) struct AppliancePicture {
    status: Option<StatusMessage>,
    pub(crate) heard: Option<Timestamp>,
    pub(crate) info: Option<Info>,
    pub(crate) health: Option<Health>,
    pub(crate) reported: Option<Reported>,
    pub(crate) slots: BTreeMap<SlotId, SlotPicture>,
    pub(crate) alerts: BTreeMap<String, Alert>,
}

impl AppliancePicture {
    /// What it says of itself, or that it is silent.
    pub(crate) fn presence(&self, now: Timestamp) -> Presence {
        match self.status.as_ref().map(|s| s.status) {
            Some(Presence::Online) if !self.is_silent(now) => Presence::Online,
            Some(Presence::Online) | None => Presence::Offline,
            Some(other) => other,
        }
    }

    fn is_silent(&self, now: Timestamp) -> bool {
        self.heard.is_none_or(|heard| now.since(heard) > OFFLINE_AFTER)
    }
}

/// All appliances.
#[derive(Debug, Default)]
pub(crate) struct Picture {
    appliances: BTreeMap<ApplianceId, AppliancePicture>,
}

/// A message that belongs into the picture.
#[derive(Debug)]
pub(crate) enum Sighting {
    Status(StatusMessage),
    Info(Info),
    Health(Health),
    Reported(Reported),
    Slot(SlotId, SlotState),
    /// A person took it out of the appliance's book.
    SlotGone(SlotId),
    Progress(SlotId, Progress),
    Alert(String, Option<Alert>),
}

/// What a message changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Nothing anybody wants to see.
    None,
    /// Presence, info or reports of the appliance.
    Appliance,
    /// A slot's state.
    Slot(SlotId),
    /// A slot's progress.
    Progress(SlotId),
    /// An alert was raised or cleared.
    Alert(String),
}

impl Picture {
    /// One appliance, if anything was heard of it.
    pub(crate) fn get(&self, id: ApplianceId) -> Option<&AppliancePicture> {
        self.appliances.get(&id)
    }

    /// Everything.
    pub(crate) fn appliances(&self) -> impl Iterator<Item = (ApplianceId, &AppliancePicture)> {
        self.appliances.iter().map(|(id, picture)| (*id, picture))
    }

    /// Forgets an appliance.
    pub(crate) fn forget(&mut self, id: ApplianceId) {
        self.appliances.remove(&id);
    }

    /// The step a write task is in, when a slot shows it.
    pub(crate) fn phase(&self, appliance: ApplianceId, task: TaskId) -> Option<WritePhase> {
        let slots = &self.appliances.get(&appliance)?.slots;
        let slot = slots.values().find(|s| s.state.task == Some(task))?;
        match (slot.state.state, &slot.progress) {
            (SlotStatus::Writing | SlotStatus::Verifying, Some(progress)) => Some(progress.phase),
            (SlotStatus::Checking, _) => Some(WritePhase::Probing),
            (SlotStatus::Writing, _) => Some(WritePhase::Writing),
            (SlotStatus::Verifying, _) => Some(WritePhase::Verifying),
            _ => None,
        }
    }

    /// Takes a message in. `retained` = the broker kept it: it proves nothing about now, except a status.
    pub(crate) fn see(
        &mut self,
        id: ApplianceId,
        sighting: Sighting,
        retained: bool,
        now: Timestamp,
    ) -> News {
        let picture = self.appliances.entry(id).or_default();
        let was = picture.presence(now);
        if !retained || matches!(&sighting, Sighting::Status(s) if s.status == Presence::Online) {
            picture.heard = Some(now);
        }
        let news = picture.take(id, sighting);
        if news == News::None && picture.presence(now) != was { News::Appliance } else { news }
    }
}

impl AppliancePicture {
    fn take(&mut self, id: ApplianceId, sighting: Sighting) -> News {
        match sighting {
            Sighting::Status(status) => {
                if self.status.as_ref().is_some_and(|old| status.session < old.session) {
                    tracing::debug!(appliance = %id, session = status.session, "status of an older session");
                    return News::None;
                }
                changed(&mut self.status, status, News::Appliance)
            }
            Sighting::Info(info) => changed(&mut self.info, info, News::Appliance),
            Sighting::Health(health) => {
                self.health = Some(health);
                News::None
            }
            Sighting::Reported(reported) => {
                self.reported = Some(reported);
                News::None
            }
            Sighting::Slot(slot, state) => self.take_slot(slot, state),
            Sighting::SlotGone(slot) => {
                self.slots.remove(&slot);
                News::None
            }
            Sighting::Progress(slot, progress) => match self.slots.get_mut(&slot) {
                Some(known) => {
                    known.progress = Some(progress);
                    News::Progress(slot)
                }
                None => News::None,
            },
            Sighting::Alert(code, Some(alert)) => {
                if self.alerts.len() >= MAX_ALERTS && !self.alerts.contains_key(&code) {
                    return News::None;
                }
                let old = self.alerts.insert(code.clone(), alert.clone());
                if old.as_ref() == Some(&alert) { News::None } else { News::Alert(code) }
            }
            Sighting::Alert(code, None) => {
                if self.alerts.remove(&code).is_some() {
                    News::Alert(code)
                } else {
                    News::None
                }
            }
        }
    }

    fn take_slot(&mut self, slot: SlotId, state: SlotState) -> News {
        let full = self.slots.len() >= MAX_SLOTS;
        match self.slots.get_mut(&slot) {
            Some(known) if state.generation() <= known.state.generation() => News::None,
            Some(known) => {
                let same_task = known.state.task == state.task && state.task.is_some();
                let goes_on = matches!(state.state, SlotStatus::Writing | SlotStatus::Verifying);
                if !(same_task && goes_on && known.state.state == state.state) {
                    known.progress = None;
                }
                known.state = state;
                News::Slot(slot)
            }
            None if full => News::None,
            None => {
                self.slots.insert(slot.clone(), SlotPicture { state, progress: None });
                News::Slot(slot)
            }
        }
    }
}

fn changed<T: PartialEq>(place: &mut Option<T>, new: T, news: News) -> News {
    if place.as_ref() == Some(&new) {
        return News::None;
    }
    *place = Some(new);
    news
}

#[cfg(test)]
mod tests {
    use cardshop_protocol::led::{Overlay, led};

    use super::*;

    const ID: ApplianceId = ApplianceId([1; 8]);

    fn at(s: u64) -> Timestamp {
        Timestamp::from_ms(1_790_000_000_000 + s * 1000)
    }
    fn status(status: Presence, session: u64) -> Sighting {
        Sighting::Status(StatusMessage { v: 1, status, session })
    }
    fn slot(boot: u64, n: u64, state: SlotStatus) -> Sighting {
        let state = SlotState {
            v: 1,
            boot,
            n,
            state,
            led: led(state, Overlay::None),
            card: None,
            task: None,
            image: None,
            copy: None,
            total: None,
            sentence: None,
            fault: None,
            since: at(0),
        };
        Sighting::Slot(SlotId::numbered(1), state)
    }

    #[test]
    fn a_slot_that_was_taken_out_of_the_book_is_gone() {
        let mut picture = Picture::default();
        picture.see(ID, slot(1, 1, SlotStatus::Absent), false, at(0));
        picture.see(ID, Sighting::SlotGone(SlotId::numbered(1)), false, at(1));
        assert!(picture.get(ID).unwrap().slots.is_empty());
    }

    #[test]
    fn an_older_generation_never_overwrites_a_newer_one() {
        let mut picture = Picture::default();
        let s01 = SlotId::numbered(1);
        assert_eq!(picture.see(ID, slot(2, 5, SlotStatus::Writing), false, at(0)), News::Slot(s01.clone()));
        for late in
            [slot(2, 5, SlotStatus::Empty), slot(2, 4, SlotStatus::Empty), slot(1, 9, SlotStatus::Empty)]
        {
            picture.see(ID, late, false, at(1));
            assert_eq!(picture.get(ID).unwrap().slots[&s01].state.state, SlotStatus::Writing);
        }
        picture.see(ID, slot(3, 1, SlotStatus::Empty), false, at(2));
        assert_eq!(picture.get(ID).unwrap().slots[&s01].state.state, SlotStatus::Empty);
    }

    #[test]
    fn the_will_of_an_older_session_is_ignored() {
        let mut picture = Picture::default();
        picture.see(ID, status(Presence::Online, 7), false, at(0));
        assert_eq!(picture.see(ID, status(Presence::Offline, 6), false, at(1)), News::None);
        assert_eq!(picture.get(ID).unwrap().presence(at(1)), Presence::Online);
        assert_eq!(picture.see(ID, status(Presence::Offline, 7), false, at(1)), News::Appliance);
        assert_eq!(picture.get(ID).unwrap().presence(at(1)), Presence::Offline);
    }

    #[test]
    fn a_silent_appliance_is_offline_and_a_retained_message_does_not_wake_it() {
        let mut picture = Picture::default();
        picture.see(ID, status(Presence::Online, 1), false, at(0));
        assert_eq!(picture.get(ID).unwrap().presence(at(90)), Presence::Online);
        picture.see(ID, slot(1, 1, SlotStatus::Empty), true, at(91));
        assert_eq!(picture.get(ID).unwrap().presence(at(91)), Presence::Offline);
        picture.see(ID, slot(1, 2, SlotStatus::Wanted), false, at(92));
        assert_eq!(picture.get(ID).unwrap().presence(at(92)), Presence::Online);
    }
}
