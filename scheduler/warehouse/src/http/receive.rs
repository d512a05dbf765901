//! Moves the bytes of one request into an upload.
//!
//! ```text
//! socket ─► pump (async) ─ at most 4 frames of 128 KiB ─► Part::take (blocking thread) ─► note ─► settle
//! ```
//!
//! The blocking side owns the upload's turn and finishes on its own: when the connection, and with it the
//! handler, is gone, what arrived is still put down, and an image that became complete still appears.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::body::Body;
use futures_util::StreamExt;
use tokio::sync::mpsc::{Sender, channel};
use tokio::sync::watch;
use tokio::time::timeout;

use super::Warehouse;
use super::refusal::Refusal;
use crate::core::checksum::Checksum;
use crate::now;
use crate::store::{Piece, StoreError, Turn, Upload};

/// Frames between socket and disk; one is at most the connection's read buffer.
const QUEUE: usize = 4;
/// A request whose bytes stop for this long is ended; what came is kept.
const IDLE: Duration = Duration::from_secs(60);
/// How the bytes of a request ended.
enum Ended {
    Whole,
    Refused,
    Cut,
    Idle,
    TakenOver,
}

/// Takes a request's bytes; the upload's offset afterwards.
pub(crate) async fn receive(
    warehouse: &Arc<Warehouse>,
    upload: &Arc<Upload>,
    turn: Turn,
    body: Body,
    checksum: Option<Checksum>,
) -> Result<u64, Refusal> {
    let place = warehouse.moving.clone().acquire_owned().await.expect("never closed");
    let (sender, mut receiver) = channel(QUEUE);
    let Turn { mut part, mut next } = turn;
    let (upload, shared) = (upload.clone(), warehouse.clone());
    let job = tokio::task::spawn_blocking(move || {
        let _place = place;
        let store = &shared.store;
        part.state.expires = now() + store.limits.upload_life;
        let taken = store.bind_index(&mut part).and_then(|()| {
            let pieces = std::iter::from_fn(|| receiver.blocking_recv());
            part.take(pieces, checksum, &store.limits)
        });
        drop(receiver); // after a refusal it wants no more; `drain` reads the rest
        upload.note(&part);
        let (offset, complete) = (part.state.offset, part.is_complete());
        drop(part);
        taken?;
        if complete {
            store.settle(&upload, now())?;
        }
        Ok::<_, StoreError>(offset)
    });
    let ended = pump(warehouse, body, sender, &mut next).await;
    let offset = job.await.expect("the store does not panic")?;
    match ended {
        Ended::Whole | Ended::Refused => Ok(offset),
        Ended::Cut => Err(StoreError::Cut.into()),
        Ended::Idle => Err(Refusal::TooSlow),
        Ended::TakenOver => Err(Refusal::Locked),
    }
}

/// Feeds the blocking side until the bytes end, the blocking side refuses, or the next request wants the turn.
async fn pump(
    warehouse: &Warehouse,
    body: Body,
    sender: Sender<Piece>,
    next: &mut watch::Receiver<()>,
) -> Ended {
    let mut frames = body.into_data_stream();
    loop {
        let frame = tokio::select! {
            _ = next.changed() => return Ended::TakenOver,
            frame = timeout(IDLE, frames.next()) => frame,
        };
        let piece = match frame {
            Err(_) => return Ended::Idle,
            Ok(Some(Err(_))) => return Ended::Cut,
            Ok(Some(Ok(bytes))) => {
                warehouse.metrics.received_bytes.fetch_add(bytes.len() as u64, Relaxed);
                Piece::Bytes(bytes)
            }
            Ok(None) => {
                // When it does not want the end, it has refused already.
                let _ = sender.send(Piece::End).await;
                return Ended::Whole;
            }
        };
        if sender.send(piece).await.is_err() {
            return Ended::Refused;
        }
    }
}
