//! What the brokers are loaded with.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::client::{Client, Packet, puback, publish};
use super::server::{READER, Server};

/// Messages of one publisher that are under way.
const WINDOW: usize = 20;
/// Bytes of a report: a slot's state as agents send it.
const PAYLOAD_SIZE: usize = 200;
/// Clients that connect side by side.
const CONNECTING: usize = 100;
/// Nothing takes longer than this, or the broker is stuck.
const PATIENCE: Duration = Duration::from_secs(300);
/// Clients that come and go.
const RECONNECTING: usize = 50;
/// Before memory is looked at: what the first connections leave behind is not growth.
const WARM_UP: Duration = Duration::from_secs(10);

const FILTER: &str = "cardshop/1/appliance/+/slot/+/state";

fn topic(name: &str) -> String {
    format!("cardshop/1/appliance/{name}/slot/s01/state")
}

/// `publishers` send `messages` each at QoS 1 to one subscriber that reads all: messages a second.
pub(super) async fn fan_in(server: &Server, publishers: usize, messages: usize) -> anyhow::Result<f64> {
    let mut reader = Client::connect(server.address, READER, server.reader()).await?;
    reader.subscribe(FILTER).await?;
    let total = publishers * messages;
    let clients = connect(server, publishers).await?;
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for (name, client) in clients {
        tasks.spawn(async move { publish_all(&name, client, messages).await });
    }
    let read = async {
        let mut got = 0;
        while got < total {
            if let Packet::Publish { id, .. } = reader.reader.packet().await? {
                got += 1;
                if let Some(id) = id {
                    reader.writer.write_all(&puback(id)).await?;
                }
            }
        }
        Ok::<_, anyhow::Error>(())
    };
    tokio::time::timeout(PATIENCE, read).await.context("messages are missing")??;
    let rate = total as f64 / begun.elapsed().as_secs_f64();
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(rate)
}

async fn publish_all(name: &str, client: Client, messages: usize) -> anyhow::Result<()> {
    let Client { mut reader, mut writer } = client;
    let window = Arc::new(Semaphore::new(WINDOW));
    let freed = window.clone();
    let acknowledged = tokio::spawn(async move {
        for _ in 0..messages {
            while !matches!(reader.packet().await?, Packet::PubAck) {}
            freed.add_permits(1);
        }
        Ok::<_, std::io::Error>(())
    });
    let topic = topic(name);
    for n in 0..messages {
        window.acquire().await?.forget();
        let id = u16::try_from(n % 60_000)? + 1;
        writer.write_all(&publish(&topic, id, &[b'x'; PAYLOAD_SIZE])).await?;
    }
    acknowledged.await??;
    Ok(())
}

/// Connects appliances 0 to `count`.
async fn connect(server: &Server, count: usize) -> anyhow::Result<Vec<(String, Client)>> {
    let places = Arc::new(Semaphore::new(CONNECTING));
    let mut tasks = JoinSet::new();
    for n in 0..count {
        let (name, token) = server.appliance(n);
        let (places, address) = (places.clone(), server.address);
        tasks.spawn(async move {
            let _place = places.acquire().await?;
            let client = Client::connect(address, &name, &token).await?;
            Ok::<_, anyhow::Error>((name, client))
        });
    }
    let mut clients = Vec::with_capacity(count);
    while let Some(client) = tasks.join_next().await {
        clients.push(client??);
    }
    Ok(clients)
}

/// Appliances that are mostly silent.
pub(super) struct Idle {
    pub(super) clients: usize,
    pub(super) every: Duration,
    pub(super) lasts: Duration,
}

/// What was seen of them.
pub(super) struct Measured {
    pub(super) connected_s: f64,
    pub(super) kib_per_client: f64,
    pub(super) median_ms: f64,
    pub(super) p99_ms: f64,
}

/// Each appliance subscribes as an agent does and reports once per `every`; one subscriber reads all reports.
pub(super) async fn idle(server: &Server, load: &Idle) -> anyhow::Result<Measured> {
    let mut reader = Client::connect(server.address, READER, server.reader()).await?;
    reader.subscribe(FILTER).await?;
    let before_kib = server.resident_kib()?;
    let begun = Instant::now();
    let mut clients = connect(server, load.clients).await?;
    for (name, client) in &mut clients {
        client.subscribe(&format!("cardshop/1/appliance/{name}/desired")).await?;
    }
    let connected_s = begun.elapsed().as_secs_f64();
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for (n, (name, client)) in clients.into_iter().enumerate() {
        let first = load.every.mul_f64(n as f64 / load.clients as f64);
        let (every, lasts) = (load.every, load.lasts);
        tasks.spawn(report(name, client, start, first, every, lasts));
    }
    let mut delays = Vec::new();
    let until = tokio::time::Instant::now() + load.lasts;
    while let Ok(packet) = tokio::time::timeout_at(until, reader.reader.packet()).await {
        let Packet::Publish { id, payload } = packet? else { continue };
        if let Some(id) = id {
            reader.writer.write_all(&puback(id)).await?;
        }
        let sent =
            payload.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)).context("a time comes first")?;
        delays.push(start.elapsed().as_secs_f64() * 1e3 - sent as f64 / 1e3);
    }
    let kib_per_client = (server.resident_kib()? - before_kib) / load.clients as f64;
    if delays.is_empty() {
        bail!("no report was delivered");
    }
    delays.sort_by(f64::total_cmp);
    let at = |part: f64| delays[((delays.len() - 1) as f64 * part) as usize];
    Ok(Measured { connected_s, kib_per_client, median_ms: at(0.5), p99_ms: at(0.99) })
}

async fn report(
    name: String,
    mut client: Client,
    start: Instant,
    first: Duration,
    every: Duration,
    lasts: Duration,
) -> anyhow::Result<()> {
    let topic = topic(&name);
    let mut at = first;
    let mut id = 0_u16;
    while at < lasts {
        tokio::time::sleep_until((start + at).into()).await;
        id = id.wrapping_add(1).max(1);
        let sent_us = u64::try_from(start.elapsed().as_micros())?;
        let mut payload = [b'x'; PAYLOAD_SIZE];
        payload[..8].copy_from_slice(&sent_us.to_be_bytes());
        client.writer.write_all(&publish(&topic, id, &payload)).await?;
        while !matches!(client.reader.packet().await?, Packet::PubAck) {}
        at += every;
    }
    // It stays until memory was looked at.
    tokio::time::sleep_until((start + lasts * 2).into()).await;
    Ok(())
}

/// `count` clients log in at once; who is turned away comes again, as agents do. Seconds until all are in.
pub(super) async fn logins(server: &Server, count: usize) -> anyhow::Result<f64> {
    let appliances: Vec<_> = (0..count).map(|n| server.appliance(n)).collect();
    let address = server.address;
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for (n, (name, token)) in appliances.into_iter().enumerate() {
        tasks.spawn(async move {
            let mut pause = Duration::from_millis(500);
            loop {
                match Client::connect(address, &name, &token).await {
                    Ok(client) => return client,
                    // From a half of it to the whole, so that they do not come back in step.
                    Err(_) => tokio::time::sleep(pause.mul_f64(0.5 + (n % 97) as f64 / 194.0)).await,
                }
                pause = (pause * 2).min(Duration::from_secs(2));
            }
        });
    }
    let mut clients = Vec::with_capacity(count);
    let all = async {
        while let Some(client) = tasks.join_next().await {
            clients.push(client?);
        }
        Ok::<_, anyhow::Error>(())
    };
    tokio::time::timeout(PATIENCE, all).await.context("some never came in")??;
    Ok(begun.elapsed().as_secs_f64())
}

/// Clients come, subscribe, report once and vanish, over and over. Memory grown after a warm-up, KiB.
pub(super) async fn reconnects(server: &Server, lasts: Duration) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for n in 0..RECONNECTING {
        let (name, token) = server.appliance(n);
        let address = server.address;
        tasks.spawn(async move {
            while begun.elapsed() < WARM_UP + lasts {
                let mut client = Client::connect(address, &name, &token).await?;
                client.subscribe(&format!("cardshop/1/appliance/{name}/desired")).await?;
                client.writer.write_all(&publish(&topic(&name), 1, &[b'x'; PAYLOAD_SIZE])).await?;
                while !matches!(client.reader.packet().await?, Packet::PubAck) {}
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    tokio::time::sleep(WARM_UP).await;
    let before = server.resident_kib()?;
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(server.resident_kib()? - before)
}
