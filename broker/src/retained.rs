//! The retained picture in memory: the newest retained message of each topic, what it may grow to, and which of
//! it a filter matches. The exchange owns it, so that it changes in step with what the Router is told; the store
//! follows behind. The Router's own retained messages are not used: it hands a new subscriber 100 at most.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::filter;
use crate::limits::Limits;
use crate::message::Message;
use crate::store::Store;

/// Above this the message is delivered but not kept.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PictureFull;

const APPLIANCES: &str = "cardshop/1/appliance/";

/// The picture.
pub(crate) struct Retained {
    topics: BTreeMap<String, Message>,
    bytes: usize,
    max_messages: usize,
    max_bytes: usize,
    max_per_appliance: usize,
    store: Store,
}

impl Retained {
    pub(crate) fn new(messages: Vec<Message>, store: Store, limits: &Limits) -> Self {
        let mut picture = Self {
            topics: BTreeMap::new(),
            bytes: 0,
            max_messages: limits.retained_messages,
            max_bytes: limits.retained_bytes,
            max_per_appliance: limits.retained_per_appliance,
            store,
        };
        for message in messages {
            picture.bytes += message.bytes().len();
            picture.topics.insert(message.topic().to_owned(), message);
        }
        picture
    }

    /// Number of messages.
    pub(crate) fn len(&self) -> usize {
        self.topics.len()
    }

    /// Takes a retained publish in: an empty payload removes, any other replaces (MQTT §3.3.1.3).
    pub(crate) fn set(&mut self, message: &Message) -> Result<(), PictureFull> {
        let topic = message.topic();
        if message.payload().is_empty() {
            if let Some(old) = self.topics.remove(topic) {
                self.bytes -= old.bytes().len();
                self.store.set(topic, None);
            }
            return Ok(());
        }
        let old_size = self.topics.get(topic).map(|old| old.bytes().len());
        let bytes = self.bytes - old_size.unwrap_or(0) + message.bytes().len();
        if bytes > self.max_bytes || (old_size.is_none() && !self.has_room_for(topic)) {
            return Err(PictureFull);
        }
        self.bytes = bytes;
        self.topics.insert(topic.to_owned(), message.clone());
        self.store.set(topic, Some(message));
        Ok(())
    }

    /// Everything `filter` matches that has not expired.
    pub(crate) fn matching(&self, filter: &str, now_ms: u64) -> Vec<Message> {
        let alive = |message: &&Message| message.expires_in_s(now_ms) != Some(0);
        if !filter::is_wild(filter) {
            return self.topics.get(filter).filter(alive).cloned().into_iter().collect();
        }
        let start = &filter[..filter.find(['+', '#']).unwrap_or(filter.len())];
        // `a/#` matches `a` as well, which lies before `a/`.
        let start = start.strip_suffix('/').unwrap_or(start);
        let range = self.topics.range::<str, _>((Bound::Included(start), Bound::Unbounded));
        let near = range.take_while(|(topic, _)| topic.starts_with(start));
        let found = near.filter(|(topic, _)| filter::matches(filter, topic)).map(|(_, message)| message);
        found.filter(alive).cloned().collect()
    }

    fn has_room_for(&self, topic: &str) -> bool {
        if self.topics.len() >= self.max_messages {
            return false;
        }
        let Some(id) = topic.strip_prefix(APPLIANCES).and_then(|rest| rest.split('/').next()) else {
            return true;
        };
        let start = format!("{APPLIANCES}{id}/");
        let range = self.topics.range::<str, _>((Bound::Included(start.as_str()), Bound::Unbounded));
        let of_it = range.take_while(|(topic, _)| topic.starts_with(&start));
        of_it.take(self.max_per_appliance).count() < self.max_per_appliance
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Draft, Parts};
    use std::path::Path;

    fn message(topic: &str, payload: &str) -> Message {
        let parts = Parts {
            sender: 0,
            qos: 1,
            retain: true,
            topic,
            properties: &[],
            payload: payload.as_bytes(),
            expires_ms: 0,
        };
        Draft::new(&parts).stamp(1)
    }

    fn open(directory: &Path, limits: &Limits) -> Retained {
        let (store, messages) = Store::open(directory).unwrap();
        Retained::new(messages, store, limits)
    }

    fn matched(picture: &Retained, filter: &str) -> Vec<String> {
        picture.matching(filter, 0).iter().map(|m| m.topic().to_owned()).collect()
    }

    #[test]
    fn the_newest_message_of_each_topic_survives_the_end_of_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("retained");
        let mut picture = open(&path, &Limits::default());
        for (topic, payload) in [("a/1", "old"), ("a/2", "kept"), ("a/1", "new"), ("a/3", "x"), ("a/3", "")] {
            picture.set(&message(topic, payload)).unwrap();
        }
        drop(picture);
        let picture = open(&path, &Limits::default());
        assert_eq!(matched(&picture, "a/+"), ["a/1", "a/2"]);
        assert_eq!(picture.matching("a/1", 0)[0].payload(), b"new");
    }

    #[test]
    fn a_filter_finds_what_it_matches_and_its_parent() {
        let directory = tempfile::tempdir().unwrap();
        let mut picture = open(&directory.path().join("r"), &Limits::default());
        for topic in ["a", "a/b", "a/b/c", "aa", "b/b/c", "/a"] {
            picture.set(&message(topic, "x")).unwrap();
        }
        assert_eq!(matched(&picture, "a/#"), ["a", "a/b", "a/b/c"]);
        assert_eq!(matched(&picture, "+/b/c"), ["a/b/c", "b/b/c"]);
        assert_eq!(matched(&picture, "#").len(), 6);
        assert_eq!(matched(&picture, "a/b"), ["a/b"]);
    }

    #[test]
    fn one_appliance_cannot_fill_the_picture() {
        let directory = tempfile::tempdir().unwrap();
        let limits = Limits { retained_per_appliance: 2, retained_messages: 4, ..Limits::default() };
        let mut picture = open(&directory.path().join("r"), &limits);
        let set = |picture: &mut Retained, topic: &str| picture.set(&message(topic, "x"));
        assert_eq!(set(&mut picture, "cardshop/1/appliance/aa/status"), Ok(()));
        assert_eq!(set(&mut picture, "cardshop/1/appliance/aa/info"), Ok(()));
        assert_eq!(set(&mut picture, "cardshop/1/appliance/aa/reported"), Err(PictureFull));
        assert_eq!(set(&mut picture, "cardshop/1/appliance/aa/info"), Ok(()), "replacing is always possible");
        assert_eq!(set(&mut picture, "cardshop/1/appliance/ab/status"), Ok(()));
        assert_eq!(set(&mut picture, "cardshop/1/board/x"), Ok(()));
        assert_eq!(set(&mut picture, "cardshop/1/board/y"), Err(PictureFull));
        picture.set(&message("cardshop/1/board/x", "")).unwrap();
        assert_eq!(set(&mut picture, "cardshop/1/board/y"), Ok(()));
    }

    #[test]
    fn a_damaged_directory_is_set_aside_and_the_picture_starts_empty() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("retained");
        let mut picture = open(&path, &Limits::default());
        picture.set(&message("a", "x")).unwrap();
        drop(picture);
        // The first bytes are sled's settings: without them nothing can be read.
        std::fs::write(path.join("conf"), b"not sled's").unwrap();
        let picture = open(&path, &Limits::default());
        assert_eq!(picture.len(), 0);
        let aside = std::fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(aside, 2, "the damaged directory is kept beside the new one");
    }
}
