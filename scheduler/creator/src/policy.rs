//! What the download cache keeps. Pure: [`crate::cache`] lists and removes, this decides.
//!
//! Every entry belongs to the first rule whose pattern matches its address, or to none. A rule's limits count over its
//! own entries, the policy's over all; within each, those used longest ago go first. What is too old goes in any case.

use std::time::Duration;

use serde::Deserialize;

use crate::recipe::RecipeError;

/// Limits; `None` is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of all entries together.
    pub max_bytes: Option<u64>,
    /// How many entries.
    pub max_count: Option<u64>,
    /// Seconds since an entry was last used.
    pub max_age_s: Option<u64>,
}

/// Limits of the entries whose address matches.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// An address without user, password and query; `*` stands for any text.
    pub pattern: String,
    /// True: entries of this rule only go by its own limits, never by the policy's.
    #[serde(default)]
    pub keep: bool,
    /// For its entries together.
    #[serde(default)]
    pub limits: Limits,
}

/// What the cache keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// For all entries together.
    pub limits: Limits,
    /// The first that matches counts.
    pub rules: Vec<Rule>,
}

/// Something in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Names it.
    pub key: String,
    /// Its address, for patterns.
    pub url: String,
    pub size: u64,
    /// How long ago it was last used.
    pub unused: Duration,
}

impl Policy {
    /// Reads a policy: YAML, and therefore JSON.
    ///
    /// # Errors
    /// One that names the line: an unknown key or a value of the wrong kind.
    pub fn from_text(text: &str) -> Result<Self, RecipeError> {
        serde_saphyr::from_str(text).map_err(crate::recipe::at_line)
    }

    /// Keys of what must go so that `coming` bytes more are within the limits; longest unused first.
    pub(crate) fn evicted(&self, entries: &[Entry], coming: u64) -> Vec<String> {
        let mut order: Vec<&Entry> = entries.iter().collect();
        order.sort_by(|a, b| a.unused.cmp(&b.unused).then_with(|| a.key.cmp(&b.key)));
        let rule_of = |entry: &Entry| self.rules.iter().position(|r| matches(&r.pattern, &entry.url));
        let mut of_rules = vec![Count::default(); self.rules.len()];
        let mut all = Count { bytes: coming, entries: 0 };
        let mut evicted = Vec::new();
        // From the newest on: an entry stays as long as it and all that were used later fit.
        for entry in order {
            let rule = rule_of(entry);
            let stays_by_rule = rule.is_none_or(|r| of_rules[r].takes(entry, &self.rules[r].limits));
            let kept = rule.is_some_and(|r| self.rules[r].keep);
            if stays_by_rule && (kept || all.takes(entry, &self.limits)) {
                if let Some(rule) = rule {
                    of_rules[rule].add(entry);
                }
                if !kept {
                    all.add(entry);
                }
            } else {
                evicted.push(entry.key.clone());
            }
        }
        evicted.reverse();
        evicted
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    bytes: u64,
    entries: u64,
}

impl Count {
    fn takes(&self, entry: &Entry, limits: &Limits) -> bool {
        limits.max_age_s.is_none_or(|most| entry.unused.as_secs() <= most)
            && limits.max_count.is_none_or(|most| self.entries < most)
            && limits.max_bytes.is_none_or(|most| self.bytes.saturating_add(entry.size) <= most)
    }
    fn add(&mut self, entry: &Entry) {
        self.bytes = self.bytes.saturating_add(entry.size);
        self.entries += 1;
    }
}

/// True when `text` is `pattern`, in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, url: &str, size: u64, unused_s: u64) -> Entry {
        Entry { key: key.into(), url: url.into(), size, unused: Duration::from_secs(unused_s) }
    }

    fn policy(text: &str) -> Policy {
        Policy::from_text(text).unwrap()
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let error = Policy::from_text("limits:\n  max_size: 3\n").unwrap_err().to_string();
        assert!(error.starts_with("line 2: ") && error.contains("max_size"), "{error}");
    }

    fn four() -> Vec<Entry> {
        vec![
            entry("old", "https://a/old.zim", 10, 400),
            entry("new", "https://a/new.zim", 10, 100),
            entry("base", "https://b/base.img.xz", 10, 300),
            entry("mid", "https://a/mid.zim", 10, 200),
        ]
    }

    #[test]
    fn without_limits_all_stays() {
        assert!(Policy::default().evicted(&four(), u64::MAX).is_empty());
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_by_each_limit() {
        assert_eq!(policy("limits: {max_count: 2}").evicted(&four(), 0), ["old", "base"]);
        assert_eq!(policy("limits: {max_bytes: 35}").evicted(&four(), 0), ["old"]);
        assert_eq!(policy("limits: {max_age_s: 150}").evicted(&four(), 0), ["old", "base", "mid"]);
    }

    #[test]
    fn room_is_made_for_what_comes() {
        assert_eq!(policy("limits: {max_bytes: 40}").evicted(&four(), 15), ["old", "base"]);
        assert_eq!(policy("limits: {max_bytes: 40}").evicted(&four(), 100).len(), 4);
    }

    #[test]
    fn a_rule_counts_its_own_entries_and_may_keep_them_from_the_others() {
        let zims = "rules: [{pattern: 'https://a/*.zim', limits: {max_count: 1}}]";
        assert_eq!(policy(zims).evicted(&four(), 0), ["old", "mid"]);
        let kept = "{limits: {max_count: 1}, rules: [{pattern: '*.img.*', keep: true}]}";
        assert_eq!(policy(kept).evicted(&four(), 0), ["old", "mid"]);
        let aged = "{rules: [{pattern: '*.img.*', keep: true, limits: {max_age_s: 250}}]}";
        assert_eq!(policy(aged).evicted(&four(), 0), ["base"]);
    }

    #[test]
    fn a_large_entry_does_not_drive_out_a_smaller_one_used_before_it() {
        let entries = [entry("large", "x", 100, 1), entry("small", "x", 5, 2)];
        assert_eq!(policy("limits: {max_bytes: 50}").evicted(&entries, 0), ["large"]);
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text) in [("a", "a"), ("*", ""), ("a*", "abc"), ("*c", "abc"), ("a*b*c", "a-b-b-c")] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a", "ab"), ("a*", "ba"), ("*c", "cb"), ("a*b*c", "a-c-b"), ("ab*b", "ab")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }
}
