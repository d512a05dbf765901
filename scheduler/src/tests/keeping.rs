//! What outlives restarts, damage, time and a change of engine.

use std::time::Duration;

use serde_json::{Value, json};

use super::{PASSWORD, Site, id};
use crate::store::test_postgres::database;
use crate::{PostgresAddress, Scheduler, StoreAddress, export_store, import_store};

/// What every list of the API has, in one value.
async fn everything(site: &Site) -> Value {
    let mut lists = serde_json::Map::new();
    let kinds = [
        "users",
        "channels",
        "warehouses",
        "orders",
        "tasks",
        "media",
        "configurations",
        "appliances",
        "organizations",
        "cards",
        "events",
        "audit",
    ];
    for kind in kinds {
        let (status, list) = site.get(&format!("/{kind}?limit=500"), &site.admin).await;
        assert!(status.is_success(), "{kind}: {status} {list}");
        lists.insert(kind.into(), list["items"].clone());
    }
    lists.into()
}

/// A site with something of each kind.
async fn busy_site() -> Site {
    let site = Site::new().await;
    site.channel("north").await;
    let creator = site.user("maker", "creator", &[]).await;
    let order = site.order(&site.admin, json!({})).await;
    site.create_image(&creator, 1 << 20).await;
    site.order(&site.admin, json!({"kind": "virtual", "quantity": 1})).await;
    let mut bench = site.appliance(1).await;
    let leases = site.leases(bench.id).await;
    let verified = bench.verified(&leases[0], 1, 7);
    bench.tell(verified).await;
    assert_eq!(site.status(order).await, "writing");
    site
}

/// Moves the site's state to another place, and opens it there.
async fn moved(site: Site, to: StoreAddress) -> Site {
    let Site { scheduler, shelf, mut config, admin, _directory } = site;
    drop(scheduler);
    let own = StoreAddress::Directory(config.data.join("store"));
    let from = config.keeping.store.clone().unwrap_or(own);
    let target = to.clone();
    let documents = tokio::task::spawn_blocking(move || {
        let mut lines = Vec::new();
        let documents = export_store(from, &mut lines).unwrap();
        assert_eq!(import_store(target, &lines[..]).unwrap(), documents);
        documents
    });
    assert!(documents.await.unwrap() > 20);
    config.keeping.store = Some(to);
    let (scheduler, first) = Scheduler::open(config.clone()).await.unwrap();
    assert!(first.is_none());
    Site { scheduler, shelf, config, admin, _directory }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_a_site_and_its_tokens_survive_restarts_and_moves_between_engines() {
    let site = busy_site().await;
    let before = everything(&site).await;
    let site = site.restart().await;
    assert_eq!(everything(&site).await, before, "after a restart");
    let Some(url) = database() else { return };
    let database = StoreAddress::Postgres(PostgresAddress::parse(&url, None).unwrap());
    let site = moved(site, database).await;
    assert_eq!(everything(&site).await, before, "in a database");
    let site = site.restart().await;
    assert_eq!(everything(&site).await, before, "in a database, after a restart");
    let place = tempfile::tempdir().unwrap();
    let site = moved(site, StoreAddress::Directory(place.path().join("store"))).await;
    assert_eq!(everything(&site).await, before, "and back");
    // The link of an order and a login go on as well.
    site.login("maker", PASSWORD).await;
}

#[tokio::test]
async fn a_damaged_store_is_repaired_at_start_and_the_site_says_so() {
    let site = busy_site().await;
    let before = everything(&site).await;
    let file = site.config.data.join("store/sled/conf");
    let Site { scheduler, shelf, config, admin, _directory } = site;
    drop(scheduler);
    std::fs::write(file, b"not a configuration of sled").unwrap();
    let (scheduler, _) = Scheduler::open(config.clone()).await.unwrap();
    let site = Site { scheduler, shelf, config, admin, _directory };
    let mut after = everything(&site).await;
    let told = after["events"].as_array_mut().unwrap().remove(0);
    assert_eq!(told["kind"], "store_repaired", "{told}");
    assert_eq!(after, before);
    let (_, metrics) = site.get_text("/metrics").await;
    assert!(metrics.contains("cardshop_store_repaired 1"), "{metrics}");
}

#[tokio::test]
async fn history_older_than_the_policy_goes_and_open_orders_keep_theirs() {
    let site = busy_site().await;
    let open = site.order(&site.admin, json!({})).await;
    let ended = site.order(&site.admin, json!({})).await;
    site.made(&format!("/orders/{ended}/cancel"), &site.admin, json!({})).await;
    let count = async |what: &str| {
        let (_, list) = site.get(&format!("/{what}"), &site.login("admin", PASSWORD).await).await;
        list["items"].as_array().unwrap().len()
    };
    let of = |order: cardshop_protocol::ids::OrderId| format!("events?order={order}");
    let (of_open, of_ended) = (count(&of(open)).await, count(&of(ended)).await);
    assert!(of_open > 0 && of_ended > 0);
    site.scheduler.clear_history().await.unwrap();
    assert_eq!((count(&of(open)).await, count(&of(ended)).await), (of_open, of_ended), "too young to go");
    let before = count("audit?limit=500").await;
    site.scheduler.advance_clock(Duration::from_secs(3660 * 86_400));
    site.scheduler.clear_history().await.unwrap();
    assert_eq!((count(&of(open)).await, count(&of(ended)).await), (of_open, 0));
    assert!(count("audit?limit=500").await < before, "the old audit log is gone");
}

#[tokio::test]
async fn a_backup_is_made_every_day_the_oldest_go_and_each_can_be_restored() {
    let site = busy_site().await;
    let folder = site.config.data.join("backups");
    let names = || {
        let mut names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
        names.sort();
        names
    };
    for _ in 0..9 {
        site.scheduler.back_up_daily().await.unwrap();
        site.scheduler.back_up_daily().await.unwrap();
        site.scheduler.advance_clock(Duration::from_secs(86_400));
    }
    let backups = names();
    assert_eq!(backups.len(), 7);
    let order: cardshop_protocol::ids::OrderId =
        id(&site.get("/orders", &site.login("admin", PASSWORD).await).await.1["items"][0]["id"]);
    let place = tempfile::tempdir().unwrap();
    let to = StoreAddress::Directory(place.path().join("store"));
    import_store(to.clone(), std::fs::File::open(&backups[0]).unwrap()).unwrap();
    let again = import_store(to.clone(), std::fs::File::open(&backups[0]).unwrap());
    assert!(again.unwrap_err().to_string().contains("nothing is overwritten"));
    let mut config = site.config.clone();
    config.data = place.path().into();
    let (scheduler, _) = Scheduler::open(config.clone()).await.unwrap();
    let restored =
        Site { scheduler, shelf: site.shelf.clone(), config, admin: String::new(), _directory: place };
    let admin = restored.login("admin", PASSWORD).await;
    assert!(restored.get(&format!("/orders/{order}"), &admin).await.0.is_success());
}
