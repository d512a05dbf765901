//! The store without HTTP: what is read, what is written, and who comes first.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use cardshop_protocol::ids::{OrderId, TaskId};
use cardshop_protocol::index::{Extent, ExtentKind, ImageMap, Index, IndexBuilder, default_chunk_size};
use cardshop_protocol::time::Timestamp;

use super::part::Part;
use super::uploads::Upload;
use super::{Link, Piece, Store, StoreError};
use crate::Limits;
use crate::core::checksum::Checksum;
use crate::core::metadata::{Kind, Metadata};

/// What is guessed for an image of this size, and what its index has.
const CHUNK: usize = 256 * 1024;
const SIZE: usize = 3 * CHUNK + 100;

fn now() -> Timestamp {
    Timestamp::from_ms(1_790_000_000_000)
}

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { space_margin: 0, ..Limits::default() };
    let store = Store::open(folder.path(), limits, None, now()).unwrap();
    (folder, store)
}

fn image(seed: u64) -> (Vec<u8>, Index) {
    let mut bytes = vec![0; SIZE];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    let extents = vec![Extent { offset: 0, length: SIZE as u64, kind: ExtentKind::Data }];
    let map = ImageMap { image_size: SIZE as u64, extents, passport: vec![] };
    let mut builder = IndexBuilder::new(map, default_chunk_size(SIZE as u64)).unwrap();
    builder.data(&bytes).unwrap();
    (bytes, builder.finish().unwrap())
}

fn task(number: u128) -> TaskId {
    TaskId::creation(OrderId::from_parts(1, number))
}

fn begin(store: &Store, kind: Kind, task: TaskId, size: usize) -> Arc<Upload> {
    let metadata = Metadata { kind, task, name: String::new(), image: None };
    let channels = vec!["demo".parse().unwrap()];
    store.create_upload(metadata, String::new(), channels, Some(size as u64), now()).unwrap()
}

fn give(store: &Store, upload: &Upload, bytes: &[u8]) -> Result<(), StoreError> {
    give_with(store, upload, bytes, None)
}

fn give_with(
    store: &Store,
    upload: &Upload,
    bytes: &[u8],
    checksum: Option<Checksum>,
) -> Result<(), StoreError> {
    let mut part = upload.turn_now();
    store.bind_index(&mut part)?;
    let pieces = bytes.chunks(10_000).map(|b| Piece::Bytes(b.to_vec().into())).chain([Piece::End]);
    let taken = part.take(pieces, checksum, &store.limits);
    upload.note(&part);
    drop(part);
    taken?;
    store.settle(upload, now())
}

/// Takes the bytes away, so that whoever reads them again fails.
fn without_its_bytes(part: &mut Part) -> File {
    part.swap_file(tempfile::tempfile().unwrap())
}

#[test]
fn what_came_before_its_index_is_compared_without_being_read_again() {
    let (_folder, store) = store();
    let (bytes, index) = image(1);
    let upload = begin(&store, Kind::Image, task(1), SIZE);
    give(&store, &upload, &bytes[..SIZE - 1]).unwrap();
    let mut part = upload.turn_now();
    let file = without_its_bytes(&mut part);
    part.bind(Arc::new(index.clone())).unwrap();
    part.swap_file(file);
    drop(part);
    let index_upload = begin(&store, Kind::Index, task(1), index.encode().len());
    give(&store, &index_upload, &index.encode()).unwrap();
    give(&store, &upload, &bytes[SIZE - 1..]).unwrap();
    assert_eq!(store.image(index.id()).unwrap().size, SIZE as u64);
}

#[test]
fn bytes_taken_after_the_index_was_lost_are_compared_when_it_is_back() {
    let (folder, store) = store();
    let (bytes, index) = image(2);
    let put_index = |store: &Store| {
        let upload = begin(store, Kind::Index, task(2), index.encode().len());
        give(store, &upload, &index.encode())
    };
    put_index(&store).unwrap();
    let id = begin(&store, Kind::Image, task(2), SIZE).id;
    give(&store, &store.upload(id).unwrap(), &bytes[..CHUNK]).unwrap();
    drop(store);
    std::fs::remove_file(folder.path().join(format!("pending/{}.cardindex", task(2)))).unwrap();
    let open =
        || Store::open(folder.path(), Limits { space_margin: 0, ..Limits::default() }, None, now()).unwrap();
    let store = open();
    let mut bad = bytes[CHUNK..].to_vec();
    bad[CHUNK + 3] ^= 1;
    give(&store, &store.upload(id).unwrap(), &bad[..CHUNK * 2 + 1]).unwrap();
    drop(store);
    let store = open();
    put_index(&store).unwrap();
    let refused = give(&store, &store.upload(id).unwrap(), &bad[CHUNK * 2 + 1..]).unwrap_err();
    let StoreError::ChunkMismatch { offsets } = refused else { panic!("{refused}") };
    assert_eq!(offsets, [2 * CHUNK as u64]);
    give(&store, &store.upload(id).unwrap(), &bytes[2 * CHUNK..]).unwrap();
    assert!(store.image(index.id()).is_some());
}

#[test]
fn an_image_goes_when_its_time_is_up_and_no_link_holds_it_and_a_crash_on_the_way_leaves_nothing() {
    let (folder, store) = store();
    let put = |number: u128| {
        let (bytes, index) = image(200 + number as u64);
        let encoded = index.encode();
        let upload = begin(&store, Kind::Index, task(200 + number), encoded.len());
        give(&store, &upload, &encoded).unwrap();
        give(&store, &begin(&store, Kind::Image, task(200 + number), SIZE), &bytes).unwrap();
        let until = Some(now() + Duration::from_secs(100));
        store.change_image(index.id(), |image| image.keep_until = until).unwrap().unwrap();
        index.id()
    };
    let (plain, linked, crashed) = (put(1), put(2), put(3));
    let expires = now() + Duration::from_secs(200);
    let id = cardshop_protocol::ids::ObjectId::from_parts(1, 1);
    let token = store.put_link(Link { id, image: linked, name: "a".into(), expires }).unwrap().unwrap();
    store.change_image(crashed, |image| image.keep_until = None).unwrap();
    assert!(store.derive(crashed).unwrap());
    // As if the power went between an image and its companions.
    std::fs::remove_file(store.image_path(crashed)).unwrap();

    store.clear_due(now() + Duration::from_secs(99));
    assert!(store.image(plain).is_some());
    store.clear_due(now() + Duration::from_secs(100));
    assert!(store.image(plain).is_none() && store.image(linked).is_some());
    store.clear_due(expires);
    assert!(store.image(linked).is_none());
    drop(store);
    let limits = Limits { space_margin: 0, ..Limits::default() };
    let store = Store::open(folder.path(), limits, None, now()).unwrap();
    let left = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut left: Vec<_> = left.map(|name| name.into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["index.key", "links", "lock", "objects", "pending", "uploads"]);
    assert_eq!(store.link_by_token(&token).unwrap().id, id, "an ended link still says so");
    store.clear_due(expires + Duration::from_secs(31 * 24 * 3600));
    assert!(store.link_by_token(&token).is_none());
}

#[test]
fn an_image_and_its_index_that_end_together_always_become_an_image() {
    let (_folder, store) = store();
    for round in 0..40 {
        let (bytes, index) = image(100 + round as u64);
        let encoded = index.encode();
        let uploads = [
            begin(&store, Kind::Image, task(round), SIZE),
            begin(&store, Kind::Index, task(round), encoded.len()),
        ];
        std::thread::scope(|scope| {
            scope.spawn(|| give(&store, &uploads[0], &bytes).unwrap());
            scope.spawn(|| give(&store, &uploads[1], &encoded).unwrap());
        });
        assert!(store.image(index.id()).is_some(), "round {round}");
        assert!(uploads.iter().all(|u| u.is_done()));
    }
}

#[test]
fn the_same_image_from_two_tasks_at_once_is_stored_once_for_both_channels() {
    let (folder, store) = store();
    let (bytes, index) = image(3);
    let uploads = [1, 2].map(|n| {
        let upload = begin(&store, Kind::Index, task(n), index.encode().len());
        give(&store, &upload, &index.encode()).unwrap();
        let channels = vec![format!("channel-{n}").parse().unwrap()];
        let metadata = Metadata { kind: Kind::Image, task: task(n), name: String::new(), image: None };
        store.create_upload(metadata, String::new(), channels, Some(SIZE as u64), now()).unwrap()
    });
    std::thread::scope(|scope| {
        for upload in &uploads {
            scope.spawn(|| give(&store, upload, &bytes).unwrap());
        }
    });
    assert_eq!(store.image(index.id()).unwrap().channels.len(), 2);
    let parts = std::fs::read_dir(folder.path().join("uploads")).unwrap();
    assert!(parts.map(|e| e.unwrap().path()).all(|p| p.extension().unwrap() == "json"), "no bytes are left");
}

#[test]
fn bytes_that_a_failing_disk_left_behind_the_offset_never_show_in_a_hole() {
    let (_folder, store) = store();
    let extents = vec![Extent { offset: 0, length: SIZE as u64, kind: ExtentKind::Data }];
    let map = ImageMap { image_size: SIZE as u64, extents, passport: vec![] };
    let mut builder = IndexBuilder::new(map, default_chunk_size(SIZE as u64)).unwrap();
    builder.data(&[0; SIZE]).unwrap();
    let index = builder.finish().unwrap();
    let index_upload = begin(&store, Kind::Index, task(1), index.encode().len());
    give(&store, &index_upload, &index.encode()).unwrap();
    let upload = begin(&store, Kind::Image, task(1), SIZE);
    // Written, and then neither cut nor synced.
    upload.turn_now().write_at(&[7; CHUNK], 0).unwrap();
    give(&store, &upload, &[0; SIZE]).unwrap();
    assert!(std::fs::read(store.image_path(index.id())).unwrap() == [0; SIZE]);
}

#[test]
fn an_image_that_ends_late_leaves_the_index_its_task_has_begun_anew() {
    let (_folder, store) = store();
    let [(first, first_index), (second, second_index)] = [image(5), image(6)];
    let put_index = |index: &Index| {
        let upload = begin(&store, Kind::Index, task(1), index.encode().len());
        give(&store, &upload, &index.encode()).unwrap();
    };
    put_index(&first_index);
    let late = begin(&store, Kind::Image, task(1), SIZE);
    give(&store, &late, &first[..CHUNK]).unwrap();
    // The creator seemed dead: another one builds for the same task, and gets another image.
    put_index(&second_index);
    give(&store, &late, &first[CHUNK..]).unwrap();
    let again = begin(&store, Kind::Image, task(1), SIZE);
    give(&store, &again, &second).unwrap();
    assert!(store.image(first_index.id()).is_some() && store.image(second_index.id()).is_some());
}

#[test]
fn a_removed_upload_is_gone_also_when_all_its_bytes_were_there() {
    let (_folder, store) = store();
    let (bytes, _) = image(7);
    let upload = begin(&store, Kind::Image, task(1), SIZE);
    give(&store, &upload, &bytes).unwrap(); // it waits for its index
    let mut part = upload.turn_now();
    store.remove_upload(&upload, &mut part).unwrap();
    assert!(part.is_gone());
}

#[test]
fn what_the_disk_does_not_give_at_a_start_is_left_where_it_is() {
    let (folder, store) = store();
    let id = begin(&store, Kind::Image, task(1), SIZE).id;
    drop(store);
    let state = folder.path().join(format!("uploads/{id}.json"));
    std::fs::remove_file(&state).unwrap();
    std::os::unix::fs::symlink(&state, &state).unwrap(); // reading it fails, also for root
    let opened = Store::open(folder.path(), Limits::default(), None, now());
    assert!(matches!(opened, Err(StoreError::Io { .. })));
    assert!(folder.path().join(format!("uploads/{id}.part")).exists());
}

#[test]
fn an_upload_nobody_continues_is_forgotten_when_its_time_is_over() {
    let (folder, store) = store();
    let old = begin(&store, Kind::Image, task(1), SIZE).id;
    store.expire(now());
    assert!(store.upload(old).is_some());
    let later = now() + store.limits.upload_life;
    store.expire(later);
    assert!(store.upload(old).is_none());
    assert_eq!(std::fs::read_dir(folder.path().join("uploads")).unwrap().count(), 0);
}

/// What may happen to an upload.
#[derive(Debug, Clone)]
enum Step {
    /// So many bytes come.
    Give(usize),
    /// So many come, and one of them, at this place, is wrong.
    GiveWrong(usize, prop::sample::Index),
    /// So many come with a checksum that does not fit.
    GiveWithWrongChecksum(usize),
    /// The warehouse starts again, and the file has grown behind the offset.
    Restart,
    /// The index comes, again or for the first time.
    Index,
    /// The index is lost.
    LoseIndex,
}

fn step() -> impl Strategy<Value = Step> {
    let size = || 0..2 * CHUNK;
    prop_oneof![
        3 => size().prop_map(Step::Give),
        2 => (size(), any::<prop::sample::Index>()).prop_map(|(n, at)| Step::GiveWrong(n, at)),
        1 => size().prop_map(Step::GiveWithWrongChecksum),
        1 => Just(Step::Restart),
        1 => Just(Step::Index),
        1 => Just(Step::LoseIndex),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) })]

    #[test]
    fn whatever_happens_only_the_right_bytes_become_the_image(steps in prop::collection::vec(step(), 0..14)) {
        let (folder, mut store) = store();
        let (bytes, index) = image(4);
        let encoded = index.encode();
        let id = begin(&store, Kind::Image, task(9), SIZE).id;
        let offset = |store: &Store| store.upload(id).unwrap().turn_now().state.offset as usize;
        let give_index = |store: &Store| {
            let upload = begin(store, Kind::Index, task(9), encoded.len());
            give(store, &upload, &encoded)
        };
        for step in steps {
            let at = offset(&store);
            let next = |n: usize| bytes[at..SIZE.min(at + n)].to_vec();
            let upload = store.upload(id).unwrap();
            if upload.is_done() {
                break;
            }
            // Refusals are part of the game; what they leave behind is under test.
            let _ = match step {
                Step::Give(n) => give(&store, &upload, &next(n)),
                Step::GiveWrong(n, place) => {
                    let mut wrong = next(n);
                    if !wrong.is_empty() {
                        let place = place.index(wrong.len());
                        wrong[place] ^= 1;
                    }
                    give(&store, &upload, &wrong)
                }
                Step::GiveWithWrongChecksum(n) => {
                    let checksum = Checksum::parse("sha1 qZk+NkcGgWq6PiVxeFDCbJzQ2J0=").unwrap();
                    let given = give_with(&store, &upload, &next(n), Some(checksum));
                    prop_assert!(given.is_err() && offset(&store) <= at);
                    given
                }
                Step::Restart => {
                    drop((upload, store));
                    let part = folder.path().join(format!("uploads/{id}.part"));
                    let mut file = File::options().append(true).open(part).unwrap();
                    std::io::Write::write_all(&mut file, &[7; 5000]).unwrap();
                    store = Store::open(folder.path(), Limits { space_margin: 0, ..Limits::default() }, None, now()).unwrap();
                    Ok(())
                }
                Step::Index => give_index(&store),
                Step::LoseIndex => {
                    let _ = std::fs::remove_file(folder.path().join(format!("pending/{}.cardindex", task(9))));
                    Ok(())
                }
            };
        }
        let upload = store.upload(id).unwrap();
        if !upload.is_done() {
            let _ = give_index(&store);
        }
        // A client that sends the right bytes from the offset it is told, as often as it takes.
        for _ in 0..3 {
            if !upload.is_done() {
                let at = offset(&store);
                let _ = give(&store, &upload, &bytes[at..]);
            }
        }
        prop_assert!(upload.is_done());
        prop_assert!(std::fs::read(store.image_path(index.id())).unwrap() == bytes);
    }
}
