//! The store's promises: versions are compared, batches are whole, indexes follow, and what was acknowledged is
//! there after a `kill -9`.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::{Batch, Document, Select, Store, StoreError, Stored};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Thing {
    id: String,
    shelf: String,
    count: u64,
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

#[derive(Serialize, Deserialize)]
struct NewerThing {
    id: String,
}

impl Document for NewerThing {
    const KIND: &'static str = "thing";
    const SCHEMA: u32 = 2;
    fn id(&self) -> String {
        self.id.clone()
    }
}

fn thing(id: &str, shelf: &str, count: u64) -> Thing {
    Thing { id: id.into(), shelf: shelf.into(), count }
}

async fn create(store: &Store, thing: &Thing) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    batch.create(thing);
    store.apply(batch).await
}

fn ids(store: &Store, select: Select<'_>) -> Vec<String> {
    store.list::<Thing>(select).unwrap().into_iter().map(|t| t.value.id).collect()
}

#[tokio::test]
async fn a_batch_with_one_wrong_version_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
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
}

#[tokio::test]
async fn of_many_writers_of_one_version_exactly_one_wins() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
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

#[tokio::test]
async fn of_many_claimers_each_thing_goes_to_exactly_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
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

#[tokio::test]
async fn a_claimer_finds_the_one_it_may_take_behind_hundreds_it_may_not() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
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

#[tokio::test]
async fn lists_follow_the_index_the_cursor_and_the_direction() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    for (id, shelf) in [("a", "x"), ("b", "y"), ("c", "x"), ("d", "xx"), ("e", "x")] {
        create(&store, &thing(id, shelf, 0)).await.unwrap();
    }
    let all = Select { limit: 100, ..Select::default() };
    assert_eq!(ids(&store, all), ["a", "b", "c", "d", "e"]);
    let x = Select { index: Some(("shelf", "x")), ..all };
    assert_eq!(ids(&store, x), ["a", "c", "e"]);
    assert_eq!(ids(&store, Select { after: Some("a"), limit: 1, ..x }), ["c"]);
    assert_eq!(ids(&store, Select { newest_first: true, after: Some("e"), ..x }), ["c", "a"]);
    assert_eq!(ids(&store, Select { newest_first: true, limit: 2, ..all }), ["e", "d"]);

    let read = store.get::<Thing>("c").unwrap().unwrap();
    let mut batch = Batch::new();
    batch.update(&read, &thing("c", "y", 0)).remove::<Thing>("e");
    store.apply(batch).await.unwrap();
    assert_eq!(ids(&store, x), ["a"]);
    assert_eq!(ids(&store, Select { index: Some(("shelf", "y")), ..all }), ["b", "c"]);
}

#[tokio::test]
async fn a_document_of_a_newer_program_is_refused_and_one_too_large_is_not_kept() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let mut batch = Batch::new();
    batch.create(&NewerThing { id: "a".into() });
    store.apply(batch).await.unwrap();
    assert!(store.get::<Thing>("a").is_err_and(|e| e.to_string().contains("newer cardshop")));
    let large = thing("b", &"x".repeat(super::MAX_DOCUMENT_SIZE), 0);
    assert!(matches!(create(&store, &large).await, Err(StoreError::TooLarge { .. })));
    assert!(store.is_healthy());
}

#[tokio::test]
async fn after_a_failed_write_nothing_is_read_that_the_disk_may_not_have() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    create(&store, &thing("a", "x", 1)).await.unwrap();
    store.settle().await.unwrap();
    // A blob that cannot be read makes the sync of the next write fail.
    std::os::unix::fs::symlink("loop", directory.path().join("blobs/loop")).unwrap();
    assert!(matches!(create(&store, &thing("b", "x", 1)).await, Err(StoreError::Stopped)));
    assert!(!store.is_healthy());
    assert!(matches!(store.get::<Thing>("b"), Err(StoreError::Stopped)), "it may be gone after a restart");
    assert!(matches!(
        store.list::<Thing>(Select { limit: 9, ..Select::default() }),
        Err(StoreError::Stopped)
    ));
    assert!(matches!(store.settle().await, Err(StoreError::Stopped)));
}

#[tokio::test]
async fn only_the_owner_looks_into_the_directory() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    std::fs::create_dir(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    drop(Store::open(&path).unwrap());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn large_documents_are_kept_over_a_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let large = |n: u64| thing(&format!("{n:02}"), &format!("{n}{}", "x".repeat(60_000)), n);
    for n in 0..40 {
        create(&store, &large(n)).await.unwrap();
    }
    drop(store);
    let store = Store::open(directory.path()).unwrap();
    let all = store.list::<Thing>(Select { limit: 100, ..Select::default() }).unwrap();
    assert!(all.into_iter().map(|t| t.value).eq((0..40).map(large)));
}

#[tokio::test]
async fn a_second_opener_is_told_that_the_directory_is_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    assert!(matches!(Store::open(directory.path()), Err(StoreError::InUse { .. })));
    drop(store);
    Store::open(directory.path()).unwrap();
}

#[tokio::test]
async fn a_damaged_file_is_refused_in_words_and_does_not_panic() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    for n in 0..50 {
        create(&store, &thing(&n.to_string(), "x", n)).await.unwrap();
    }
    drop(store);
    let path = directory.path().join("conf");
    std::fs::write(&path, b"not a configuration of sled").unwrap();
    let Err(error) = Store::open(directory.path()) else { panic!("a damaged store was opened") };
    assert!(matches!(error, StoreError::Damaged { .. } | StoreError::Disk { .. }), "{error}");
}

/// Where the child of the test below keeps its store.
const CHILD: &str = "CARDSHOP_TEST_STORE";
const THIS: &str = "store::tests::everything_acknowledged_is_there_after_a_kill";

#[test]
fn everything_acknowledged_is_there_after_a_kill() {
    if let Some(path) = std::env::var_os(CHILD) {
        write_until_killed(path.as_ref());
    }
    const ROUNDS: usize = 3;
    const ACKNOWLEDGED: usize = 150;
    let directory = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", THIS, "--nocapture", "--test-threads=1"])
            .env(CHILD, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        // The harness prints the test's name on the same line as the first acknowledgement.
        let acknowledged =
            lines.filter_map(|line| Some(line.split_once("stored ")?.1.to_owned())).take(ACKNOWLEDGED);
        let before = expected.len();
        expected.extend(acknowledged);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(expected.len(), before + ACKNOWLEDGED, "round {round}");
        let store = Store::open(directory.path()).unwrap();
        for id in &expected {
            let pair = store.get::<Thing>(&format!("{id}-pair")).unwrap();
            assert!(store.get::<Thing>(id).unwrap().is_some() && pair.is_some(), "{id} is lost");
        }
        // No half batch: of every pair both are there or none.
        let all = ids(&store, Select { limit: usize::MAX, ..Select::default() });
        assert!(all.len().is_multiple_of(2) && all.len() >= 2 * expected.len());
        let x = Select { index: Some(("shelf", "x")), limit: usize::MAX, ..Select::default() };
        assert_eq!(ids(&store, x), all);
    }
}

/// Stores pairs from four tasks and says so, until it is killed.
fn write_until_killed(path: &std::path::Path) -> ! {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let store = Store::open(path).unwrap();
    let process = std::process::id();
    runtime.block_on(async {
        let mut writers = tokio::task::JoinSet::new();
        for task in 0..4 {
            let store = store.clone();
            writers.spawn(async move {
                for n in 0u64.. {
                    let id = format!("{process}-{task}-{n}");
                    let mut batch = Batch::new();
                    batch.create(&thing(&id, "x", n)).create(&thing(&format!("{id}-pair"), "x", n));
                    store.apply(batch).await.unwrap();
                    println!("stored {id}");
                }
            });
        }
        writers.join_all().await;
    });
    unreachable!("the parent kills this process")
}
