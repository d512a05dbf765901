//! The engine of simulations: memory that outlives its scheduler, as a disk does, and misbehaves when it is told to. It
//! can be full, stop in the middle of what a scheduler does, with its last command carried out or not, and let others go
//! first between reading and writing. Driven through [`crate::Simulation`].

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use super::batch::Change;
use super::engine::{Answer, Engine, Sink};
use super::memory::Memory;
use super::{Record, Select, StoreError};

/// What the disk does to the commands that follow.
#[derive(Debug, Clone, Copy, Default)]
struct Weather {
    /// Commands are refused for want of room.
    full: bool,
    /// It stops at the command after so many; whether that one is still carried out.
    stops_in: Option<(u32, bool)>,
    /// It has stopped: nothing is read or written until it is opened again.
    stopped: bool,
    /// State of the generator of pauses; 0 makes none.
    pauses: u64,
    /// Commands that were carried out.
    commands: u64,
}

/// A disk. Clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct Simulated(Arc<Shared>);

#[derive(Default)]
struct Shared {
    memory: Memory,
    weather: Mutex<Weather>,
}

impl Simulated {
    fn weather(&self) -> MutexGuard<'_, Weather> {
        self.0.weather.lock().expect("no holder panics")
    }

    /// Another disk with the same on it.
    pub(crate) fn copy(&self) -> Self {
        Self(Arc::new(Shared { memory: self.0.memory.copy(), weather: Mutex::default() }))
    }

    /// It works again.
    pub(crate) fn start(&self) {
        let mut weather = self.weather();
        (weather.stopped, weather.stops_in) = (false, None);
    }

    pub(crate) fn set_full(&self, full: bool) {
        self.weather().full = full;
    }

    pub(crate) fn stop_in(&self, commands: u32, carried_out: bool) {
        self.weather().stops_in = Some((commands, carried_out));
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.weather().stopped
    }

    pub(crate) fn commands(&self) -> u64 {
        self.weather().commands
    }

    pub(crate) fn pause_by(&self, seed: u64) {
        self.weather().pauses = seed;
    }

    fn reading(&self) -> Result<(), StoreError> {
        if self.is_stopped() { Err(StoreError::Stopped) } else { Ok(()) }
    }

    /// Whether the next command is carried out, and whether its answer is heard.
    fn admit(&self) -> Result<(bool, bool), StoreError> {
        let mut weather = self.weather();
        if weather.stopped {
            return Err(StoreError::Stopped);
        }
        if weather.full {
            let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(StoreError::Disk { path: PathBuf::from("simulated"), source });
        }
        match &mut weather.stops_in {
            None => Ok((true, true)),
            Some((0, carried_out)) => {
                let carried_out = *carried_out;
                weather.stopped = true;
                Ok((carried_out, false))
            }
            Some((left, _)) => {
                *left -= 1;
                Ok((true, true))
            }
        }
    }

    /// How often others go first. **Source:** Knuth, MMIX's linear congruential generator.
    fn pauses(&self) -> u64 {
        let mut weather = self.weather();
        if weather.pauses == 0 {
            return 0;
        }
        weather.pauses =
            weather.pauses.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        weather.pauses >> 62
    }
}

impl Engine for Simulated {
    fn get(&self, kind: &'static str, id: &str) -> Result<Option<Record>, StoreError> {
        self.reading()?;
        self.0.memory.get(kind, id)
    }

    fn list(&self, kind: &'static str, select: Select<'_>) -> Result<Vec<Record>, StoreError> {
        self.reading()?;
        self.0.memory.list(kind, select)
    }

    fn apply(&self, changes: Vec<Change>) -> Answer<'_, ()> {
        Box::pin(async move {
            for _ in 0..self.pauses() {
                tokio::task::yield_now().await;
            }
            let (carried_out, heard) = self.admit()?;
            if carried_out {
                self.0.memory.apply(changes).await?;
                self.weather().commands += 1;
            }
            if heard { Ok(()) } else { Err(StoreError::Stopped) }
        })
    }

    fn dump(&self, sink: Sink<'_>) -> Result<(), StoreError> {
        self.reading()?;
        self.0.memory.dump(sink)
    }

    fn is_healthy(&self) -> bool {
        !self.is_stopped()
    }
}
