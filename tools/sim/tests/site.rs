//! Whole sites under seeds: many lives in which everything goes wrong, and mistakes put in on purpose, which have to be
//! found.

use std::sync::atomic::{AtomicU64, Ordering};

use cardshop_sim::site::{Life, Lived, Plant, faults_of, live, shrink};

/// Lives of every run.
const SEEDS: u64 = 50;
/// Lives of `tools/test --long`.
const MANY_SEEDS: u64 = 2000;

/// What to do about a life that went wrong: how to live it again, and its story with the faults that matter.
fn story(life: &Life, lived: &Lived) -> String {
    let short = shrink(life);
    let last = live(&short);
    let wrong = last.wrong.as_ref().or(lived.wrong.as_ref()).map_or("", String::as_str);
    let newest = last.story.len().saturating_sub(60);
    format!(
        "{}\n{wrong}\n{}\n{}",
        short.command(),
        faults_of(&short).join("\n"),
        last.story[newest..].join("\n")
    )
}

/// Lives `count` lives on all processors; stories of those that went wrong, at most three of each processor.
fn lives(first: u64, count: u64) -> Vec<String> {
    let next = AtomicU64::new(first);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut wrong = Vec::new();
        while wrong.len() < 3 {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                break;
            }
            let life = Life::of(seed);
            let lived = live(&life);
            if lived.wrong.is_some() {
                wrong.push((seed, story(&life, &lived)));
            }
        }
        wrong
    };
    let mut wrong: Vec<(u64, String)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a life does not panic")).collect()
    });
    wrong.sort();
    wrong.into_iter().map(|(_, story)| story).collect()
}

#[test]
fn fifty_sites_keep_their_promises_whatever_goes_wrong() {
    let wrong = lives(1, SEEDS);
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
#[ignore = "long: half an hour without optimisation"]
fn long_two_thousand_sites_keep_their_promises_whatever_goes_wrong() {
    let wrong = lives(1000, MANY_SEEDS);
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn the_same_seed_gives_the_same_life_and_another_another() {
    let life = Life { minutes: 40, ..Life::of(7) };
    let (once, again) = (live(&life), live(&life));
    assert_eq!((once.digest.clone(), once.steps, once.story), (again.digest, again.steps, again.story));
    let fewer = live(&Life { faults: Some(vec![0]), ..life.clone() });
    assert_ne!(once.digest, fewer.digest);
    assert_ne!(once.digest, live(&Life { seed: 8, ..life }).digest);
}

/// Lives with a mistake until it shows.
fn found(plant: Plant, faults: Option<Vec<usize>>) -> Option<String> {
    (1..40)
        .find_map(|seed| live(&Life { minutes: 40, faults: faults.clone(), plant, ..Life::of(seed) }).wrong)
}

#[test]
fn a_fact_that_is_acknowledged_and_lost_is_found() {
    let wrong = found(Plant::LosesAFact(6), Some(Vec::new())).expect("nobody noticed");
    assert!(wrong.contains("stored"), "{wrong}");
}

#[test]
fn a_card_that_counts_twice_is_found() {
    let wrong = found(Plant::CountsTwice(2), Some(Vec::new())).expect("nobody noticed");
    assert!(wrong.contains("nobody verified that"), "{wrong}");
}

#[test]
fn a_writer_that_calls_bad_cards_good_is_found() {
    let wrong = found(Plant::BelievesWrites, None).expect("nobody noticed");
    assert!(wrong.contains("is verified and"), "{wrong}");
}

#[test]
fn a_disk_that_forgets_the_newest_fact_is_found() {
    let wrong = found(Plant::ForgetfulDisk, None).expect("nobody noticed");
    assert!(!wrong.is_empty());
}

#[test]
fn a_story_is_shortened_to_the_faults_that_matter() {
    let plant = Plant::BelievesWrites;
    let mut lives = (1..40).map(|seed| Life { minutes: 40, plant, ..Life::of(seed) });
    let life = lives.find(|life| live(life).wrong.is_some()).expect("found above");
    let short = shrink(&life);
    assert!(live(&short).wrong.is_some());
    assert!(short.faults.as_ref().unwrap().len() < life.drawn().len(), "{}", short.command());
    for n in short.faults.clone().unwrap() {
        let fewer = short.faults.iter().flatten().copied().filter(|other| *other != n).collect();
        let fewer = Life { faults: Some(fewer), ..short.clone() };
        assert_eq!(live(&fewer).wrong, None, "{n} does not matter");
    }
}
