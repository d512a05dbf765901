//! What every engine promises, tested on each of them: versions are compared, batches are whole, indexes follow, claims
//! go to one, and what comes out of one goes into another unchanged.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::upgrade::Kind;
use super::{
    Batch, Document, PostgresAddress, Select, Store, StoreAddress, StoreError, Stored, export_store,
    import_store, test_postgres, upgrade,
};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Thing {
    pub(super) id: String,
    pub(super) shelf: String,
    pub(super) count: u64,
}

impl Document for Thing {
    const KIND: &'static str = "thing";
    fn id(&self) -> String {
        self.id.clone()
    }
    fn index(&self) -> Vec<(&'static str, String)> {
        vec![("shelf", self.shelf.clone())]
    }
}

/// A thing as a later program has it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct NewerThing {
    id: String,
    place: String,
}

impl Document for NewerThing {
    const KIND: &'static str = "thing";
    const SCHEMA: u32 = 3;
    fn id(&self) -> String {
        self.id.clone()
    }
    fn index(&self) -> Vec<(&'static str, String)> {
        vec![("place", self.place.clone())]
    }
    fn upgrade(from: u32, mut body: Value) -> Value {
        match from {
            1 => body["box"] = body["shelf"].take(),
            _ => body["place"] = format!("in {}", body["box"].as_str().unwrap()).into(),
        }
        body
    }
}

pub(super) fn thing(id: &str, shelf: &str, count: u64) -> Thing {
    Thing { id: id.into(), shelf: shelf.into(), count }
}

pub(super) async fn create(store: &Store, thing: &Thing) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    batch.create(thing);
    store.apply(batch).await
}

pub(super) fn ids(store: &Store, select: Select<'_>) -> Vec<String> {
    store.list::<Thing>(select).unwrap().into_iter().map(|t| t.value.id).collect()
}

/// Each test for each engine.
macro_rules! engines {
    ($($test:ident)*) => {
        mod memory {
            $(#[tokio::test] async fn $test() { super::$test(super::Store::memory()).await })*
        }
        mod embedded {
            $(#[tokio::test] async fn $test() {
                let directory = tempfile::tempdir().unwrap();
                super::$test(super::Store::open(directory.path()).unwrap()).await
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")] async fn $test() {
                let Some(url) = super::test_postgres::database() else { return };
                super::$test(super::test_postgres::open(&url)).await
            })*
        }
    };
}

engines! {
    a_batch_with_one_wrong_version_changes_nothing
    of_many_writers_of_one_version_exactly_one_wins
    of_many_claimers_each_thing_goes_to_exactly_one
    a_claimer_finds_the_one_it_may_take_behind_hundreds_it_may_not
    lists_follow_the_index_the_cursor_and_the_direction
    one_document_several_times_in_a_batch_is_changed_in_order
    a_document_of_a_newer_program_is_refused_and_one_too_large_is_not_kept
    documents_of_an_older_schema_are_upgraded_once_after_a_backup
    batches_that_touch_the_same_documents_in_other_orders_all_get_through
}

async fn a_batch_with_one_wrong_version_changes_nothing(store: Store) {
    create(&store, &thing("a", "x", 1)).await.unwrap();
    let read = store.get::<Thing>("a").unwrap().unwrap();
    let mut first = Batch::new();
    first.update(&read, &thing("a", "x", 2));
    store.apply(first).await.unwrap();
    let mut second = Batch::new();
    second.create(&thing("b", "x", 1)).update(&read, &thing("a", "x", 3));
    assert!(matches!(store.apply(second).await, Err(StoreError::Conflict { kind: "thing", .. })));
    assert!(store.get::<Thing>("b").unwrap().is_none());
    assert_eq!(store.get::<Thing>("a").unwrap().unwrap().value.count, 2);
    assert!(matches!(create(&store, &thing("a", "x", 9)).await, Err(StoreError::Conflict { .. })));
    store.settle().await.unwrap();
    assert!(store.is_healthy());
}

async fn of_many_writers_of_one_version_exactly_one_wins(store: Store) {
    create(&store, &thing("a", "x", 0)).await.unwrap();
    let read = store.get::<Thing>("a").unwrap().unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for n in 1..=50 {
        let (store, read) = (store.clone(), read.clone());
        writers.spawn(async move {
            let mut batch = Batch::new();
            batch.update(&read, &thing("a", "x", n));
            store.apply(batch).await.is_ok()
        });
    }
    let won = writers.join_all().await.into_iter().filter(|won| *won).count();
    assert_eq!(won, 1);
    assert_eq!(store.get::<Thing>("a").unwrap().unwrap().version, 2);
}

async fn of_many_claimers_each_thing_goes_to_exactly_one(store: Store) {
    for n in 0..20 {
        create(&store, &thing(&format!("{n:02}"), "free", 0)).await.unwrap();
    }
    let mut claimers = tokio::task::JoinSet::new();
    for n in 1..=30 {
        let store = store.clone();
        claimers.spawn(async move {
            let take = |stored: &Stored<Thing>| {
                let mut batch = Batch::new();
                batch.update(stored, &thing(&stored.value.id, "taken", n));
                Some((batch, stored.value.id.clone()))
            };
            store.claim::<Thing, _>(("shelf", "free"), take).await.unwrap()
        });
    }
    let mut taken: Vec<String> = claimers.join_all().await.into_iter().flatten().collect();
    taken.sort();
    taken.dedup();
    assert_eq!(taken.len(), 20);
    let select = Select { index: Some(("shelf", "free")), limit: 100, ..Select::default() };
    assert!(ids(&store, select).is_empty());
}

async fn a_claimer_finds_the_one_it_may_take_behind_hundreds_it_may_not(store: Store) {
    let mut all = Batch::new();
    for n in 0..600 {
        all.create(&thing(&format!("{n:03}"), "free", n));
    }
    store.apply(all).await.unwrap();
    let claimed = store.claim::<Thing, _>(("shelf", "free"), |stored| {
        let mut batch = Batch::new();
        batch.update(stored, &thing(&stored.value.id, "taken", 0));
        (stored.value.count == 599).then_some((batch, stored.value.id.clone()))
    });
    assert_eq!(claimed.await.unwrap().as_deref(), Some("599"));
    let none = store.claim::<Thing, ()>(("shelf", "free"), |_| None);
    assert_eq!(none.await.unwrap(), None);
}

async fn lists_follow_the_index_the_cursor_and_the_direction(store: Store) {
    for (id, shelf) in [("a", "x"), ("b", "y"), ("c", "x"), ("d", "xx"), ("e", "x"), ("É", "z"), ("Z", "z")]
    {
        create(&store, &thing(id, shelf, 0)).await.unwrap();
    }
    let all = Select { limit: usize::MAX, ..Select::default() };
    assert_eq!(ids(&store, all), ["Z", "a", "b", "c", "d", "e", "É"], "in the order of bytes");
    let x = Select { index: Some(("shelf", "x")), ..all };
    assert_eq!(ids(&store, x), ["a", "c", "e"]);
    assert_eq!(ids(&store, Select { after: Some("a"), limit: 1, ..x }), ["c"]);
    assert_eq!(ids(&store, Select { newest_first: true, after: Some("e"), ..x }), ["c", "a"]);
    assert_eq!(ids(&store, Select { newest_first: true, ..x }), ["e", "c", "a"]);
    assert_eq!(ids(&store, Select { newest_first: true, limit: 2, ..all }), ["É", "e"]);
    assert_eq!(ids(&store, Select { newest_first: true, after: Some("b"), ..all }), ["a", "Z"]);
    assert_eq!(ids(&store, Select { after: Some("d"), ..all }), ["e", "É"]);
    assert_eq!(ids(&store, Select { after: Some("zzz"), newest_first: true, limit: 1, ..all }), ["e"]);

    let read = store.get::<Thing>("c").unwrap().unwrap();
    let mut batch = Batch::new();
    batch.update(&read, &thing("c", "y", 0)).remove::<Thing>("e").remove::<Thing>("nobody");
    store.apply(batch).await.unwrap();
    assert_eq!(ids(&store, x), ["a"]);
    assert_eq!(ids(&store, Select { index: Some(("shelf", "y")), ..all }), ["b", "c"]);
}

async fn one_document_several_times_in_a_batch_is_changed_in_order(store: Store) {
    let mut batch = Batch::new();
    batch.create(&thing("a", "x", 1)).put(&thing("b", "x", 1)).put(&thing("a", "y", 2));
    store.apply(batch).await.unwrap();
    let read = store.get::<Thing>("a").unwrap().unwrap();
    assert_eq!((read.version, read.value.count), (2, 2));
    let mut batch = Batch::new();
    batch.remove::<Thing>("a").create(&thing("a", "z", 3));
    store.apply(batch).await.unwrap();
    let read = store.get::<Thing>("a").unwrap().unwrap();
    assert_eq!((read.version, read.value.count), (1, 3));
    let select = |shelf| Select { index: Some(("shelf", shelf)), limit: 9, ..Select::default() };
    assert!(ids(&store, select("y")).is_empty());
    assert_eq!(ids(&store, select("z")), ["a"]);
}

async fn a_document_of_a_newer_program_is_refused_and_one_too_large_is_not_kept(store: Store) {
    let mut batch = Batch::new();
    batch.create(&NewerThing { id: "a".into(), place: "here".into() });
    store.apply(batch).await.unwrap();
    assert!(store.get::<Thing>("a").is_err_and(|e| e.to_string().contains("newer cardshop")));
    let large = thing("b", &"x".repeat(super::MAX_DOCUMENT_SIZE), 0);
    assert!(matches!(create(&store, &large).await, Err(StoreError::TooLarge { .. })));
    assert!(store.is_healthy());
}

async fn documents_of_an_older_schema_are_upgraded_once_after_a_backup(store: Store) {
    for n in 0..450 {
        create(&store, &thing(&format!("{n:03}"), "s", n)).await.unwrap();
    }
    let place = tempfile::tempdir().unwrap();
    let backup = place.path().join("before");
    let kinds = [Kind::of::<NewerThing>()];
    upgrade(&store, &kinds, || store.back_up(&backup).map(|_| ())).await.unwrap();
    let select = Select { index: Some(("place", "in s")), limit: 1000, ..Select::default() };
    assert_eq!(store.list::<NewerThing>(select).unwrap().len(), 450);
    assert!(std::fs::read_to_string(&backup).unwrap().contains("\"shelf\":\"s\""), "as it was before");
    upgrade(&store, &kinds, || panic!("there is nothing to upgrade")).await.unwrap();
    let older = upgrade(&store, &[Kind::of::<Thing>()], || panic!("never backwards")).await;
    assert!(older.is_err_and(|e| e.to_string().contains("newer cardshop")));
}

async fn batches_that_touch_the_same_documents_in_other_orders_all_get_through(store: Store) {
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..40 {
        let store = store.clone();
        writers.spawn(async move {
            let mut batch = Batch::new();
            for i in 0..10 {
                let id = if n % 2 == 0 { i } else { 9 - i };
                batch.put(&thing(&id.to_string(), "x", n));
            }
            store.apply(batch).await.unwrap();
        });
    }
    writers.join_all().await;
    let all = store.list::<Thing>(Select { limit: 99, ..Select::default() }).unwrap();
    assert_eq!(all.len(), 10);
    assert!(all.iter().all(|t| t.version == 40 && t.value.count == all[0].value.count), "a batch was torn");
}

/// From memory into each engine that keeps things, and out again.
#[test]
fn an_export_goes_into_every_engine_and_comes_out_identical() {
    let place = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let source = Store::memory();
    runtime.block_on(async {
        for n in 0..1200 {
            let text = format!("{n} \u{0} \\ \" é 𝄞 \n");
            create(&source, &Thing { id: n.to_string(), shelf: format!("s{}", n % 7), count: n })
                .await
                .unwrap();
            let mut batch = Batch::new();
            batch.put(&thing(&n.to_string(), &format!("s{}", n % 5), n));
            batch.put(&Note { id: format!("{n}-a"), text });
            source.apply(batch).await.unwrap();
        }
    });
    let file = place.path().join("export");
    source.back_up(&file).unwrap();
    let expected = std::fs::read(&file).unwrap();
    let mut addresses = vec![StoreAddress::Directory(place.path().join("store"))];
    if let Some(url) = test_postgres::database() {
        addresses.push(StoreAddress::Postgres(PostgresAddress::parse(&url, None).unwrap()));
    }
    for address in addresses {
        let mut damaged = expected.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        let refused = [&damaged[..], &expected[..middle], b"", b"{\"cardshop\":\"store\",\"format\":1}\n"];
        for bytes in refused {
            assert!(matches!(import_store(address.clone(), bytes), Err(StoreError::Dump(_))));
        }
        assert_eq!(import_store(address.clone(), &expected[..]).unwrap(), 2400);
        let again = import_store(address.clone(), &expected[..]);
        assert!(matches!(again, Err(StoreError::NotEmpty(_))), "{again:?}");
        let store = address.clone().open().unwrap();
        let mut while_open = Vec::new();
        export_store(address.clone(), &mut while_open).unwrap();
        assert!(while_open == expected);
        let select = Select { index: Some(("shelf", "s3")), limit: 1000, ..Select::default() };
        assert_eq!(ids(&store, select).len(), 240);
        runtime.block_on(create(&store, &thing("new", "x", 0))).unwrap();
        drop(store);
        let mut changed = Vec::new();
        assert_eq!(export_store(address, &mut changed).unwrap(), 2401);
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Note {
    pub(super) id: String,
    pub(super) text: String,
}

impl Document for Note {
    const KIND: &'static str = "note";
    fn id(&self) -> String {
        self.id.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn others_hear_what_one_changes_and_one_of_them_leads_until_it_is_gone() {
    let Some(url) = test_postgres::database() else { return };
    let one = test_postgres::open(&url);
    let mut one_leads = one.leads();
    one_leads.wait_for(|leads| *leads).await.unwrap();
    let two = test_postgres::open(&url);
    let mut news = two.news().unwrap();
    // Whoever has just connected may not listen yet: until then everything is news.
    let mut made: Vec<String> = Vec::new();
    let mut heard = Vec::new();
    while !made.iter().any(|id| heard.contains(&("thing".to_owned(), id.clone()))) {
        let id = format!("{:03}", made.len());
        create(&one, &thing(&id, "x", 1)).await.unwrap();
        made.push(id);
        let wait = std::time::Duration::from_millis(500);
        if let Ok(Ok(super::News::Documents(names))) = tokio::time::timeout(wait, news.recv()).await {
            heard.extend(names);
        }
    }
    let mut two_leads = two.leads();
    assert!(!*two_leads.borrow());
    drop(one);
    two_leads.wait_for(|leads| *leads).await.unwrap();
    assert_eq!(ids(&two, Select { limit: 999, ..Select::default() }), made);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_crashes_under_load_is_waited_for_and_nothing_happens_twice() {
    let Some(mut server) = test_postgres::Server::start() else { return };
    let store = test_postgres::open(&server.database());
    let mut writers = tokio::task::JoinSet::new();
    let (acknowledged, mut heard) = tokio::sync::mpsc::unbounded_channel();
    create(&store, &thing("sum", "sum", 0)).await.unwrap();
    for task in 0..4 {
        let (store, acknowledged) = (store.clone(), acknowledged.clone());
        writers.spawn(async move {
            for n in 0..150 {
                loop {
                    let sum = store.get::<Thing>("sum").unwrap().unwrap();
                    let mut batch = Batch::new();
                    batch.update(&sum, &thing("sum", "sum", sum.value.count + 1));
                    batch.create(&thing(&format!("{task}-{n}"), "x", n));
                    match store.apply(batch).await {
                        Ok(()) => break,
                        // With a batch carried out twice the second would find its own thing.
                        Err(StoreError::Conflict { id, .. }) => assert_eq!(id, "sum"),
                        Err(error) => panic!("{error}"),
                    }
                }
                acknowledged.send(n).unwrap();
            }
        });
    }
    drop(acknowledged);
    let mut count = 0;
    while heard.recv().await.is_some() {
        count += 1;
        if count == 100 || count == 300 {
            server = tokio::task::spawn_blocking(move || {
                server.crash();
                server
            })
            .await
            .unwrap();
        }
    }
    writers.join_all().await;
    assert_eq!((count, store.get::<Thing>("sum").unwrap().unwrap().value.count), (600, 600));
    let all = Select { index: Some(("shelf", "x")), limit: 1000, ..Select::default() };
    assert_eq!(ids(&store, all).len(), 600);
}
