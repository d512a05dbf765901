//! One connection of one image: takes a run of missing chunks, asks the warehouse whose turn it is, puts what
//! matches, gives back what did not come. Ends when the image's store does.

use std::io::Read;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::fault;
use super::image::{Fetch, LOOK_AGAIN};
use super::request::{FetchError, Wanted, get};
use crate::core::ranges::Verdict;
use crate::core::sources::{Choice, SourceId};
use crate::effects::store::{ImageStore, Run};

/// Bytes read at once: what a limit on the rate is kept by.
const PIECE: usize = 64 * 1024;

impl Fetch {
    /// Fetches until the store ends.
    pub(super) fn fetch_ranges(&self, store: &ImageStore) {
        let connections = u64::from(self.shared.pace.connections);
        let mut buffer = vec![0; store.index().chunk_size() as usize];
        let mut rate_bps = None;
        while let Some(Run { chunks, wrong }) = store.take(rate_bps, connections) {
            let mut rest = chunks;
            let result = self.ask(store, &mut rest, &wrong, &mut buffer);
            store.give_back(rest);
            match result {
                Ok(rate) => rate_bps = rate.or(rate_bps),
                Err(error) => {
                    if self.after(store, error).is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Chooses whom to ask, fetches, and notes how it went. What is left in `run` did not arrive.
    fn ask(
        &self,
        store: &ImageStore,
        run: &mut Range<usize>,
        wrong: &[SourceId],
        buffer: &mut [u8],
    ) -> Result<Option<u64>, FetchError> {
        if self.shared.cache.is_tight() {
            return Err(FetchError::Disk(std::io::ErrorKind::StorageFull.into()));
        }
        let (id, warehouse) = self.choose(wrong)?;
        let asked = self.shared.pace.now();
        let result = self.fetch_run(store, run, id, &warehouse, buffer);
        if let Err(error) = &result {
            tracing::warn!(warehouse, chunks = ?run, %error, "a range did not arrive");
        }
        self.note(id, asked, &result);
        let (bytes, took) = result?;
        Ok(Some((bytes as f64 / took.as_secs_f64().max(1e-3)) as u64))
    }

    /// Whom to ask.
    pub(super) fn choose(&self, wrong: &[SourceId]) -> Result<(SourceId, String), FetchError> {
        let now = self.shared.pace.now();
        let choice = self.sources.lock().expect("no holder panics").choose(now, wrong);
        match choice {
            Choice::Ask(id, address) => Ok((id, address)),
            Choice::Wait(until) => Err(FetchError::Resting(until.saturating_sub(now))),
            Choice::Refused(why) => {
                let text = format!("no warehouse gives the image: {why}");
                Err(FetchError::Refused(fault("image_unavailable", text)))
            }
            Choice::Nobody => {
                Err(FetchError::Refused(fault("no_warehouse", "the lease names no warehouse".into())))
            }
        }
    }

    /// Fetches a run: bytes and how long they took.
    fn fetch_run(
        &self,
        store: &ImageStore,
        run: &mut Range<usize>,
        from: SourceId,
        warehouse: &str,
        buffer: &mut [u8],
    ) -> Result<(u64, Duration), FetchError> {
        let started = Instant::now();
        let index = store.index();
        let bytes = index.chunk_range(run.start).start..index.chunk_range(run.end - 1).end;
        let size = bytes.end - bytes.start;
        let wanted = Wanted { image: self.image, range: Some((bytes, index.image_size())), size };
        let response = get(&self.shared, &format!("{warehouse}/images/{}", self.image), &wanted)?;
        let mut reader = response.into_body().into_reader();
        for chunk in run.clone() {
            let range = index.chunk_range(chunk);
            let buffer = &mut buffer[..(range.end - range.start) as usize];
            self.read(&mut reader, buffer)?;
            let good = store.put(chunk, buffer)?;
            // A chunk that came wrong is no longer ours: another connection may be fetching it already.
            run.start = chunk + 1;
            if good {
                self.sources.lock().expect("no holder panics").worked(from);
            } else {
                tracing::warn!(warehouse, chunk, "a chunk does not match: it is fetched again");
                if store.was_wrong(chunk, from) == Verdict::Refuse {
                    let text =
                        format!("chunk {chunk} (offset {}) never matches the image's index", range.start);
                    let refused = fault("chunk_mismatch", text);
                    return Err(FetchError::Refused(cardshop_protocol::message::Fault {
                        offset: Some(range.start),
                        ..refused
                    }));
                }
            }
        }
        Ok((size, started.elapsed()))
    }

    /// Reads a chunk no faster than the limit allows.
    fn read(&self, reader: &mut impl Read, buffer: &mut [u8]) -> Result<(), FetchError> {
        for piece in buffer.chunks_mut(PIECE) {
            if self.stop.is_stopped() {
                return Err(FetchError::Stopped);
            }
            reader.read_exact(piece).map_err(FetchError::again)?;
            self.shared.received.fetch_add(piece.len() as u64, Ordering::Relaxed);
            self.wait(self.shared.pace.take(piece.len()))?;
        }
        Ok(())
    }

    /// What follows from a request that gave less than it should; an error when this connection is over.
    fn after(&self, store: &ImageStore, error: FetchError) -> Result<(), FetchError> {
        match error {
            FetchError::Refused(refused) => {
                self.refuse(store, refused);
                Ok(())
            }
            FetchError::Stopped => Err(FetchError::Stopped),
            FetchError::NotLoggedIn => self.wait(LOOK_AGAIN),
            // Not longer: the lease may name other warehouses meanwhile.
            FetchError::Resting(time) => self.wait(time.min(LOOK_AGAIN)),
            FetchError::Disk(error) => self.make_room_again(store.index(), &error),
            FetchError::Again { .. } | FetchError::Denied(_) => Ok(()),
        }
    }
}
