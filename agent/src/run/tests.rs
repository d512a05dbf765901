//! The whole agent without anybody to talk to.

use cardshop_protocol::ids::{ImageId, LeaseId, OrderId};
use cardshop_protocol::index::{Extent, ExtentKind, ImageMap, Index, IndexBuilder, MIN_CHUNK_SIZE};
use cardshop_protocol::message::{Copies, Desired, Lease, Settings};
use cardshop_protocol::time::Timestamp;

use super::*;
use crate::config::SimulateConfig;

const IMAGE_SIZE: u64 = 8 * MIN_CHUNK_SIZE as u64;

/// An image of random bytes, whole in the cache of `config`.
fn cached_image(config: &Config) -> (Vec<u8>, ImageId) {
    let extents = vec![Extent { offset: 0, length: IMAGE_SIZE, kind: ExtentKind::Data }];
    let map = ImageMap { image_size: IMAGE_SIZE, extents, passport: vec![] };
    let mut bytes = vec![0; IMAGE_SIZE as usize];
    blake3::Hasher::new().update(b"another fixed seed").finalize_xof().fill(&mut bytes);
    let mut builder = IndexBuilder::new(map, MIN_CHUNK_SIZE).unwrap();
    builder.data(&bytes).unwrap();
    let index: Index = builder.finish().unwrap();
    let cache = Cache::open(&config.data.join("cache"), config.cache.clone()).unwrap();
    for (extension, contents) in
        [("cardindex", index.encode()), ("img", bytes.clone()), ("have", vec![0xff; 1])]
    {
        std::fs::write(cache.path(index.id(), extension), contents).unwrap();
    }
    (bytes, index.id())
}

fn lease(image: ImageId) -> Lease {
    Lease {
        lease: LeaseId::from_parts(1, 1),
        order: OrderId::from_parts(1, 2),
        order_name: String::new(),
        image,
        warehouses: vec!["http://127.0.0.1:9".into()],
        min_card_bytes: IMAGE_SIZE,
        copies: Copies { first: 1, last: 1 },
        done: vec![],
        total: 1,
        not_after: Timestamp::from_system(std::time::SystemTime::now()) + Duration::from_secs(3600),
        wipe: Default::default(),
        verify: Default::default(),
        priority: 0,
    }
}

fn bench(folder: &tempfile::TempDir) -> Config {
    Config {
        data: folder.path().join("data"),
        join: folder.path().join("JOIN.TXT"),
        mqtt_ca: None,
        slots: vec![],
        readers: false,
        screens: false,
        bench: Default::default(),
        simulate: Some(SimulateConfig {
            slots: 1,
            card_sizes: vec![16 << 20],
            insert_delay_ms: 0,
            ..SimulateConfig::default()
        }),
        update: Default::default(),
        fetch: Default::default(),
        cache: Default::default(),
    }
}

fn desired(leases: Vec<Lease>) -> Box<Desired> {
    Box::new(Desired { v: 1, rev: 1, settings: Settings::default(), slots: vec![], leases })
}

#[test]
fn leases_go_on_after_a_restart_while_nobody_is_reached() {
    let folder = tempfile::tempdir().unwrap();
    let config = bench(&folder);
    let (bytes, image) = cached_image(&config);
    let lease = lease(image);
    let (mut agent, events) = Agent::start(config.clone()).unwrap();
    agent.step(Event::Desired(desired(vec![lease.clone()]))).unwrap();
    drop(events);
    agent.end();

    let (mut agent, events) = Agent::start(config.clone()).unwrap();
    while !agent.shop.history().is_verified(lease.order, 1) {
        let event = events.recv_timeout(Duration::from_secs(60)).expect("the card gets done");
        agent.step(event).unwrap();
    }
    drop(events);
    agent.end();
    let verified = Outbox::open(&config.data.join("state/outbox")).unwrap().1;
    assert!(verified.is_verified(lease.order, 1), "on record, not only known");
    let cards = std::fs::read_dir(config.data.join("cards")).unwrap().flatten();
    let whole = cards.filter(|card| std::fs::read(card.path()).unwrap()[..IMAGE_SIZE as usize] == bytes[..]);
    assert!(whole.count() >= 1);
}

#[test]
fn a_card_that_was_put_in_a_moment_ago_is_not_written_in_place_of_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let config = bench(&folder);
    let (_, image) = cached_image(&config);
    let (mut agent, events) = Agent::start(config).unwrap();
    agent.step(Event::Desired(desired(vec![lease(image)]))).unwrap();
    let next_card = folder.path().join("next.img");
    std::fs::write(&next_card, vec![0xaa; 16 << 20]).unwrap();
    let slot = SlotId::numbered(1);
    let (mut probed, mut ready) = (None, None);
    while probed.is_none() || ready.is_none() {
        match events.recv_timeout(Duration::from_secs(60)).expect("the card is looked at, the image is here")
        {
            event @ Event::Slot { event: SlotEvent::Probed { .. }, .. } => probed = Some(event),
            event @ Event::ImageReady { .. } => ready = Some(event),
            event => agent.step(event).unwrap(),
        }
    }
    // Whoever watches the slot has seen another card; the event of it waits behind these two.
    agent.devices.put(&slot, next_card.clone(), None);
    agent.step(probed.unwrap()).unwrap();
    agent.step(ready.unwrap()).unwrap();
    let state = agent.shop.shown().next().unwrap().1;
    assert_eq!(state.fault.as_ref().map(|f| f.code.as_str()), Some("not_ready"), "{state:?}");
    assert!(std::fs::read(&next_card).unwrap().iter().all(|byte| *byte == 0xaa));
    drop(events);
    agent.end();
}
