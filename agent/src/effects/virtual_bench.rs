//! Virtual slots and their operator: cards are sparse files, each put in once and never again. The operator
//! does what the slots ask for, after a pause: puts a card where one is wanted, takes out what is done, does
//! not fit or is bad. A restarted agent finds in each slot the card it left there, as on a real bench.
//!
//! ```text
//!   wanted ──pause──► new card-0001.img, CardHere          done, unsuitable, guarded, confirm,
//!                                                           bad, retry, out of service ──pause──► CardGone
//! ```

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cardshop_protocol::ids::SlotId;
use cardshop_protocol::message::SlotStatus;
use serde::{Deserialize, Serialize};

use super::devices::Devices;
use super::state::replace_file;
use crate::config::{SimulateConfig, read_bounded};
use crate::core::{Event, SlotEvent};

/// States told to the operator that may wait: more than all slots change in one step.
pub(crate) const TOLD: usize = 1024;
/// After this many cards in a row that do not fit, the operator slows down: there may be no card that does.
const PATIENCE: u32 = 8;

/// What the operator is told.
pub(crate) type Told = (SlotId, SlotStatus);

/// Which card is in which slot, kept in the agent's state: the cards' folder holds cards only.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Bench {
    /// Number of the last card made.
    last: u32,
    /// File name of the card in each slot.
    cards: BTreeMap<SlotId, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    PutIn,
    TakeOut,
}

struct Operator {
    config: SimulateConfig,
    folder: PathBuf,
    kept: PathBuf,
    bench: Bench,
    devices: Devices,
    events: SyncSender<Event>,
    plans: BTreeMap<SlotId, (Instant, Act)>,
    unsuitable_in_a_row: u32,
}

/// Starts the operator's thread; it ends when the sender of `told` is gone. `kept` is the file that remembers
/// which card is in which slot.
///
/// # Errors
/// What the file system says about the cards' folder.
pub(crate) fn start(
    config: SimulateConfig,
    folder: &Path,
    kept: PathBuf,
    devices: Devices,
    events: SyncSender<Event>,
    told: Receiver<Told>,
) -> io::Result<JoinHandle<()>> {
    std::fs::create_dir_all(folder)?;
    let bench = find_bench(folder, &kept);
    let mut operator = Operator {
        config,
        folder: folder.into(),
        kept,
        bench,
        devices,
        events,
        plans: BTreeMap::new(),
        unsuitable_in_a_row: 0,
    };
    std::thread::Builder::new().name("operator".into()).spawn(move || operator.run(&told))
}

fn find_bench(folder: &Path, kept: &Path) -> Bench {
    let text = read_bounded(kept).unwrap_or_default();
    let mut bench: Bench = serde_json::from_str(&text).unwrap_or_default();
    // Never use a file again, also when the list was lost.
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|f| f.file_name());
    let number = |name: std::ffi::OsString| {
        name.to_str()?.strip_prefix("card-")?.strip_suffix(".img")?.parse::<u32>().ok()
    };
    bench.last = names.filter_map(number).fold(bench.last, u32::max);
    bench
}

impl Operator {
    fn run(&mut self, told: &Receiver<Told>) {
        let slots: Vec<SlotId> = (1..=self.config.slots).map(SlotId::numbered).collect();
        for slot in &slots {
            if let Some(path) = self.bench.cards.get(slot).map(|name| self.folder.join(name)) {
                self.announce(slot, path);
            }
        }
        loop {
            let next = self.plans.values().map(|(at, _)| *at).min();
            let wait = next.map_or(Duration::from_secs(1), |at| at.saturating_duration_since(Instant::now()));
            match told.recv_timeout(wait) {
                Ok((slot, status)) if slots.contains(&slot) => self.told(slot, status),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => self.act(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn told(&mut self, slot: SlotId, status: SlotStatus) {
        if let Some(act) = answer_to(status) {
            match status {
                SlotStatus::Unsuitable => self.unsuitable_in_a_row += 1,
                SlotStatus::Done => self.unsuitable_in_a_row = 0,
                _ => {}
            }
            let planned = self.plans.get(&slot).is_some_and(|(_, planned)| *planned == act);
            if !planned {
                let slower = self.unsuitable_in_a_row.saturating_sub(PATIENCE).min(100) + 1;
                let pause = Duration::from_millis(self.config.insert_delay_ms) * slower;
                self.plans.insert(slot, (Instant::now() + pause, act));
            }
        } else {
            self.plans.remove(&slot);
        }
    }

    fn act(&mut self) {
        let now = Instant::now();
        let due: Vec<(SlotId, Act)> = self
            .plans
            .iter()
            .filter(|(_, (at, _))| *at <= now)
            .map(|(slot, (_, act))| (slot.clone(), *act))
            .collect();
        for (slot, act) in due {
            self.plans.remove(&slot);
            match act {
                Act::PutIn => match self.make_card(&slot) {
                    Ok(path) => self.announce(&slot, path),
                    Err(error) => tracing::error!(%slot, %error, "no virtual card can be made"),
                },
                Act::TakeOut => {
                    self.bench.cards.remove(&slot);
                    self.save();
                    self.tell(slot, SlotEvent::CardGone);
                }
            }
        }
    }

    fn make_card(&mut self, slot: &SlotId) -> io::Result<PathBuf> {
        let size = self.config.card_sizes[self.bench.last as usize % self.config.card_sizes.len()];
        self.bench.last += 1;
        let name = format!("card-{:04}.img", self.bench.last);
        let path = self.folder.join(&name);
        OpenOptions::new().write(true).create_new(true).open(&path)?.set_len(size)?;
        self.bench.cards.insert(slot.clone(), name);
        self.save();
        Ok(path)
    }

    fn announce(&mut self, slot: &SlotId, path: PathBuf) {
        match std::fs::metadata(&path) {
            Ok(metadata) => {
                self.devices.put(slot, path, None);
                self.tell(slot.clone(), SlotEvent::CardHere { size: metadata.len() });
            }
            Err(error) => tracing::warn!(%slot, %error, "the card that was in the slot is gone"),
        }
    }

    fn save(&self) {
        let text = serde_json::to_vec_pretty(&self.bench).expect("plain data has a JSON form");
        if let Err(error) = replace_file(&self.kept, &text) {
            tracing::warn!(%error, "the virtual bench is not remembered");
        }
    }

    fn tell(&self, slot: SlotId, event: SlotEvent) {
        // Fails only when the agent has ended.
        let _ = self.events.send(Event::Slot { slot, event });
    }
}

/// What an operator does about a slot.
fn answer_to(status: SlotStatus) -> Option<Act> {
    use SlotStatus::*;
    match status {
        Wanted => Some(Act::PutIn),
        Done | Unsuitable | Guarded | Confirm | BadCard | Retry | OutOfService => Some(Act::TakeOut),
        Absent | Empty | Idle | Checking | Waiting | Writing | Verifying | Held => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;

    fn config(sizes: &[u64]) -> SimulateConfig {
        SimulateConfig {
            slots: 2,
            card_sizes: sizes.to_vec(),
            insert_delay_ms: 0,
            ..SimulateConfig::default()
        }
    }
    fn next(events: &Receiver<Event>) -> (SlotId, SlotEvent) {
        match events.recv_timeout(Duration::from_secs(10)).expect("the operator acts") {
            Event::Slot { slot, event } => (slot, event),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_operator_puts_cards_in_takes_them_out_and_never_uses_one_twice() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("bench.json");
        let (one, two) = (SlotId::numbered(1), SlotId::numbered(2));
        let (events, happened) = sync_channel(16);
        let (tell, told) = sync_channel(TOLD);
        let devices = Devices::default();
        let thread =
            start(config(&[100, 7]), folder.path(), kept.clone(), devices.clone(), events, told).unwrap();
        tell.send((one.clone(), SlotStatus::Wanted)).unwrap();
        assert!(matches!(next(&happened), (slot, SlotEvent::CardHere { size: 100 }) if slot == one));
        assert!(devices.get(&one).unwrap().path.ends_with("card-0001.img"));
        tell.send((two.clone(), SlotStatus::Wanted)).unwrap();
        assert!(matches!(next(&happened), (slot, SlotEvent::CardHere { size: 7 }) if slot == two));
        tell.send((two.clone(), SlotStatus::Unsuitable)).unwrap();
        assert!(matches!(next(&happened), (slot, SlotEvent::CardGone) if slot == two));
        drop(tell);
        thread.join().unwrap();

        let (events, happened) = sync_channel(16);
        let (tell, told) = sync_channel(TOLD);
        let thread = start(config(&[100, 7]), folder.path(), kept, Devices::default(), events, told).unwrap();
        assert!(
            matches!(next(&happened), (slot, SlotEvent::CardHere { size: 100 }) if slot == one),
            "it is still there"
        );
        tell.send((two, SlotStatus::Wanted)).unwrap();
        next(&happened);
        assert!(folder.path().join("card-0003.img").exists());
        drop(tell);
        thread.join().unwrap();
    }
}
