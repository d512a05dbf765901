//! What may be applied, and what is kept.

use cardshop_protocol::update::{
    Head, MAX_HEAD_SIZE, Manifest, PARTS, Part, UpdateError, around_part, listed,
};
use ed25519_dalek::SigningKey;

use super::judge::{Refusal, judge};
use super::probation::{GOOD_AFTER, PATIENCE};
use super::*;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

pub(super) fn running(set: Set, text: &str) -> Running {
    let keys = vec![key(1).verifying_key()];
    Running { set, version: version(text), digest: "runs".into(), keys, tried: false, stays: set }
}

fn head(text: &str, by: &SigningKey, keys: &[SigningKey]) -> Head {
    let part = |name: &str| Part { name: name.into(), size: 1, sha256: "0".repeat(64) };
    let manifest = Manifest {
        v: 1,
        version: version(text),
        origin: String::new(),
        parts: PARTS.map(part).into(),
        keys: keys.iter().map(|key| listed(&key.verifying_key())).collect(),
    };
    let mut front = Head::encode(&manifest, Some(by)).unwrap();
    front.extend(around_part(&manifest.parts[0]).0);
    Head::decode(&front[..front.len().min(MAX_HEAD_SIZE)]).unwrap()
}

#[test]
fn only_a_newer_version_signed_by_a_key_of_what_runs_may_be_applied() {
    let old = running(Set::A, "1.4");
    assert_eq!(judge(&head("1.5", &key(1), &[]), &old, false), Ok(()));
    let refused = judge(&head("1.5", &key(2), &[]), &old, false).unwrap_err();
    assert!(matches!(refused, Refusal::Update(UpdateError::UnknownKey(_))), "{refused}");
    for not_newer in ["1.4", "1.3.9"] {
        let head = head(not_newer, &key(1), &[]);
        assert!(matches!(judge(&head, &old, false), Err(Refusal::NotNewer { .. })));
        assert_eq!(judge(&head, &old, true), Ok(()), "when somebody says so");
    }
    let none = Running { keys: Vec::new(), ..old };
    assert_eq!(judge(&head("1.5", &key(1), &[]), &none, false), Err(Refusal::NoKeys));
}

#[test]
fn a_new_key_comes_with_an_update_signed_by_the_old_one_and_the_old_one_ends_with_the_next() {
    let first = running(Set::A, "1");
    let both = head("2", &key(1), &[key(1), key(2)]);
    assert_eq!(judge(&both, &first, false), Ok(()));
    let second = Running { version: version("2"), keys: both.manifest.trusted(), ..first.clone() };
    let new_only = head("3", &key(2), &[key(2)]);
    assert!(judge(&new_only, &first, false).is_err(), "who missed the second does not know the new key");
    assert_eq!(judge(&new_only, &second, false), Ok(()));
    let third = Running { version: version("3"), keys: new_only.manifest.trusted(), ..first };
    assert!(judge(&head("4", &key(1), &[key(1)]), &third, false).is_err());
}

fn facts(uptime_s: u64, connected: bool) -> Facts<'static> {
    let uptime = Duration::from_secs(uptime_s);
    Facts { uptime, desired: None, whole: false, connected, readers_listed: true }
}

/// On trial in set b after set a.
fn trial(reached: bool) -> Updater {
    let running = Running { tried: true, stays: Set::A, ..running(Set::B, "2") };
    let attempt = Attempt { version: version("2"), digest: "runs".into(), set: Set::B, image: None, reached };
    let mut updater = Updater::start(running, Memory { attempt: Some(attempt), failed: Vec::new() });
    assert_eq!(updater.look(facts(0, false)), [Deed::Record]);
    updater.recorded(true);
    updater
}

#[test]
fn a_version_is_kept_after_a_minute_and_if_the_server_was_reached_before_only_once_it_is_again() {
    let keep = [Deed::Keep(Set::B), Deed::Record, Deed::Decided];
    let mut alone = trial(false);
    assert_eq!(alone.look(facts(GOOD_AFTER.as_secs() - 1, false)), []);
    assert_eq!(alone.look(facts(GOOD_AFTER.as_secs(), false)), keep);
    let mut with_server = trial(true);
    assert_eq!(with_server.look(facts(300, false)), []);
    assert_eq!(with_server.look(facts(301, true)), keep);
    let mut gone_again = trial(true);
    assert_eq!(gone_again.look(facts(5, true)), [], "reached, and gone before the minute is over");
    assert_eq!(gone_again.look(facts(61, false)), keep);
}

#[test]
fn a_version_that_does_not_reach_the_server_or_cannot_write_its_state_is_given_up_after_ten_minutes() {
    let mut silent = trial(true);
    assert_eq!(silent.look(facts(PATIENCE.as_secs() - 1, false)), []);
    let deeds = silent.look(facts(PATIENCE.as_secs(), false));
    assert_eq!(deeds, [Deed::Record, Deed::Decided, Deed::Restart]);
    assert!(silent.report(None).is_some_and(|report| report.phase == UpdatePhase::Failed));
    let mut broken = trial(false);
    broken.recorded(false);
    assert_eq!(broken.look(facts(70, true)), []);
    assert!(broken.look(facts(601, true)).contains(&Deed::Restart));
    let mut blind = trial(false);
    let facts = Facts { readers_listed: false, ..facts(601, true) };
    assert!(blind.look(facts).contains(&Deed::Restart));
}

#[test]
fn what_failed_is_told_and_not_tried_again_until_somebody_asks() {
    let image = ImageId([7; 32]);
    let update = DesiredUpdate { version: version("2"), image, warehouses: Vec::new(), allow_older: false };
    let attempt =
        Attempt { version: version("2"), digest: "x".into(), set: Set::B, image: Some(image), reached: true };
    let memory = Memory { attempt: Some(attempt), failed: Vec::new() };
    let mut updater = Updater::start(running(Set::A, "1"), memory);
    let wanted = Facts { desired: Some(&update), ..facts(1, true) };
    assert_eq!(updater.look(wanted), [Deed::Record]);
    assert_eq!((updater.wants(), updater.memory().attempt.as_ref()), (None, None));
    assert_eq!(updater.report(Some(&update)).unwrap().phase, UpdatePhase::Failed);
    assert_eq!(updater.trouble().unwrap().0, "update_failed");
    assert_eq!(updater.press(None, Some(&update)), Ok(()));
    updater.look(wanted);
    assert_eq!(updater.wants(), Some(&update));
    // Paused at the scheduler: nothing is fetched any more.
    updater.look(facts(2, true));
    assert_eq!(updater.wants(), None);
}

#[test]
fn a_set_that_runs_because_the_other_one_cannot_be_started_is_told() {
    let updater = Updater::start(Running { stays: Set::A, ..running(Set::B, "1") }, Memory::default());
    assert_eq!(updater.trouble().unwrap().0, "partition_set_damaged");
}
