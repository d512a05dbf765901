//! A load for `cardshop bench store`: clients that each move an order of their own on, again and again, and tell a story
//! of it, as the scheduler does for every report.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Batch, Document, StoreAddress, StoreError};

/// Bytes of an order of a few cards, and of a story.
const ORDER_SIZE: usize = 2000;
const STORY_SIZE: usize = 200;

#[derive(Serialize, Deserialize)]
struct Load {
    id: String,
    step: u64,
    text: String,
}

impl Document for Load {
    const KIND: &'static str = "load";
    fn id(&self) -> String {
        self.id.clone()
    }
    fn index(&self) -> Vec<(&'static str, String)> {
        vec![("step", (self.step % 8).to_string())]
    }
}

#[derive(Serialize, Deserialize)]
struct LoadStory {
    id: String,
    text: serde_json::Value,
}

impl Document for LoadStory {
    const KIND: &'static str = "load-story";
    fn id(&self) -> String {
        self.id.clone()
    }
}

/// What a load did.
#[derive(Debug, Clone, Copy)]
pub struct Loaded {
    /// Transitions that were acknowledged.
    pub transitions: u64,
    /// How long it took.
    pub took: Duration,
}

/// Bytes that a transition has the disk keep, about.
pub const TRANSITION_SIZE: usize = ORDER_SIZE + STORY_SIZE + 300;

/// Has `clients` make transitions for so long, each waiting for the answer before its next. The store keeps what they made.
///
/// # Errors
/// What the store gives.
pub async fn load_store(
    address: StoreAddress,
    clients: usize,
    how_long: Duration,
) -> Result<Loaded, StoreError> {
    let opened = tokio::task::spawn_blocking(|| address.open()).await;
    let store = opened.map_err(|_| StoreError::Stopped)??;
    let begun = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for client in 0..clients {
        let store = store.clone();
        running.spawn(async move {
            let id = format!("{}-{client}", std::process::id());
            let mut read = store.get::<Load>(&id)?;
            let first = read.as_ref().map_or(0, |read| read.value.step);
            let mut step = first;
            while begun.elapsed() < how_long {
                step += 1;
                let next = Load { id: id.clone(), step, text: "o".repeat(ORDER_SIZE) };
                let text = json!({"text": "s".repeat(STORY_SIZE)});
                let mut batch = Batch::new();
                batch.upsert(read.as_ref(), &next);
                batch.create(&LoadStory { id: format!("{id}-{step:012}"), text });
                store.apply(batch).await?;
                read = store.get::<Load>(&id)?;
            }
            Ok::<_, StoreError>(step - first)
        });
    }
    let mut transitions = 0;
    while let Some(made) = running.join_next().await {
        transitions += made.map_err(|_| StoreError::Stopped)??;
    }
    Ok(Loaded { transitions, took: begun.elapsed() })
}
