//! Processes killed while they write, on both engines that keep things: what was acknowledged is there, and no batch is
//! half there. `CARDSHOP_TEST_KILLS` says how often.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::conformance::{ids, thing};
use super::{Batch, Select, Store, test_postgres};

/// Where the child of a test keeps its store: a directory or a database.
const CHILD: &str = "CARDSHOP_TEST_STORE";
/// What takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Kills when nobody says.
const KILLS: u32 = 20;
/// Most acknowledgements before a kill.
const ACKNOWLEDGED: u64 = 120;

#[test]
fn everything_acknowledged_by_the_embedded_store_is_there_after_each_kill() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().to_str().unwrap();
    kill_often("everything_acknowledged_by_the_embedded_store_is_there_after_each_kill", place);
}

#[test]
fn everything_acknowledged_by_a_database_is_there_after_each_kill() {
    let place = match std::env::var(CHILD) {
        Ok(place) => place,
        Err(_) => match test_postgres::database() {
            Some(place) => place,
            None => return,
        },
    };
    kill_often("everything_acknowledged_by_a_database_is_there_after_each_kill", &place);
}

fn open(place: &str) -> Store {
    if place.starts_with("postgres:") {
        test_postgres::open(place)
    } else {
        Store::open(Path::new(place)).unwrap()
    }
}

fn kill_often(test: &str, place: &str) {
    if let Ok(place) = std::env::var(CHILD) {
        write_until_killed(&place);
    }
    let kills = std::env::var("CARDSHOP_TEST_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let mut expected = Vec::new();
    for round in 0..kills {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("store::killed::{test}"), "--nocapture", "--test-threads=1"])
            .env(CHILD, place)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // At another moment in every round, the same in every run.
        let seed = blake3::hash(&round.to_le_bytes());
        let wanted = 1 + u64::from_le_bytes(seed.as_bytes()[..8].try_into().unwrap()) % ACKNOWLEDGED;
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        // The harness prints the test's name on the same line as the first acknowledgement.
        let mut acknowledged = lines.filter_map(|line| Some(line.split_once("stored ")?.1.to_owned()));
        let before = expected.len();
        expected.extend(acknowledged.by_ref().take(wanted as usize));
        child.kill().unwrap();
        expected.extend(acknowledged);
        child.wait().unwrap();
        assert!(expected.len() >= before + wanted as usize, "round {round}: the child ended by itself");
        let store = open(place);
        let all = settled(&store);
        let there = |id: &str| all.binary_search_by(|known| known.as_str().cmp(id)).is_ok();
        for id in &expected {
            assert!(there(id), "round {round}: {id} is lost");
        }
        let mut singles = all.iter().filter(|id| !id.ends_with("-pair"));
        assert!(singles.all(|id| there(&format!("{id}-pair"))), "round {round}: half a batch");
        assert!(all.len().is_multiple_of(2), "round {round}: half a batch");
    }
}

/// All ids, by the documents and by the index alike. A database may still be carrying out what the killed process asked
/// for, between the one look and the other.
fn settled(store: &Store) -> Vec<String> {
    let until = Instant::now() + PATIENCE;
    loop {
        let all = ids(store, Select { limit: usize::MAX, ..Select::default() });
        let x = Select { index: Some(("shelf", "x")), limit: usize::MAX, ..Select::default() };
        if ids(store, x) == all {
            return all;
        }
        assert!(Instant::now() < until, "the index is not that of the documents");
    }
}

/// Stores pairs from four tasks and says so, until it is killed.
fn write_until_killed(place: &str) -> ! {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let store = open(place);
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
