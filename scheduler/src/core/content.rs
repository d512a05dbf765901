//! What of a catalogue somebody looks for: by language, category and words, in an order of their choice.

use cardshop_protocol::configuration::{Catalogue, Entry, Wanted};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Order of a list of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ContentOrder {
    /// By title.
    #[default]
    Title,
    /// Largest first.
    Size,
    /// Newest first.
    Updated,
}

/// What is looked for.
#[derive(Debug, Clone, Default)]
pub struct ContentFilter {
    /// In title, name or category, in any case.
    pub search: String,
    /// A language as the catalogue writes it: `fra`.
    pub language: String,
    /// Only what one of these names; anything when there is none.
    pub only: Vec<Wanted>,
    /// Which comes first.
    pub order: ContentOrder,
}

/// True when `wanted` names content of this name and flavour: with a flavour that one, else any of the name.
pub fn is_named(wanted: &Wanted, name: &str, flavour: &str) -> bool {
    wanted.name == name && wanted.flavour.as_deref().is_none_or(|wanted| wanted == flavour)
}

/// Content that can be put on a card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ContentView {
    /// Name and flavour, as its file on the card.
    pub id: String,
    /// The same for all versions.
    pub name: String,
    /// `maxi`, `nopic`; often empty.
    pub flavour: String,
    /// For people.
    pub title: String,
    /// Languages with commas.
    pub language: String,
    /// `wikipedia`.
    pub category: String,
    /// When this version came.
    pub updated: String,
    /// Bytes, about.
    pub bytes: Option<u64>,
}

impl From<&Entry> for ContentView {
    fn from(entry: &Entry) -> Self {
        Self {
            id: entry.file_name(),
            name: entry.name.clone(),
            flavour: entry.flavour.clone(),
            title: entry.title.clone(),
            language: entry.language.clone(),
            category: entry.category.clone(),
            updated: entry.updated.clone(),
            bytes: entry.about_bytes,
        }
    }
}

/// Entries that fit, in order; of several versions of one the newest.
pub(crate) fn found<'c>(catalogue: &'c Catalogue, filter: &ContentFilter) -> Vec<&'c Entry> {
    let words: Vec<String> = filter.search.to_lowercase().split_whitespace().map(str::to_owned).collect();
    let fits = |entry: &&Entry| {
        let named = filter.only.iter().any(|wanted| is_named(wanted, &entry.name, &entry.flavour));
        if !filter.only.is_empty() && !named {
            return false;
        }
        let text =
            format!("{} {} {} {}", entry.title, entry.name, entry.flavour, entry.category).to_lowercase();
        let spoken =
            filter.language.is_empty() || entry.language.split(',').any(|l| l.trim() == filter.language);
        spoken && words.iter().all(|word| text.contains(word.as_str()))
    };
    let mut found: Vec<&Entry> = catalogue.entries.iter().filter(fits).collect();
    // Of equals the newest comes first and stays.
    found.sort_by(|a, b| (a.file_name(), &b.updated).cmp(&(b.file_name(), &a.updated)));
    found.dedup_by(|a, b| a.file_name() == b.file_name());
    match filter.order {
        ContentOrder::Title => found.sort_by_cached_key(|e| e.title.to_lowercase()),
        ContentOrder::Size => found.sort_by_key(|e| std::cmp::Reverse(e.about_bytes)),
        ContentOrder::Updated => found.sort_by(|a, b| b.updated.cmp(&a.updated)),
    }
    found
}

/// Languages of a catalogue.
pub(crate) fn languages(catalogue: &Catalogue) -> Vec<String> {
    let all = catalogue.entries.iter().flat_map(|e| e.language.split(',')).map(str::trim);
    let all: std::collections::BTreeSet<&str> = all.filter(|l| !l.is_empty()).collect();
    all.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, title: &str, language: &str, updated: &str, bytes: u64) -> Entry {
        Entry {
            name: name.into(),
            title: title.into(),
            language: language.into(),
            updated: updated.into(),
            about_bytes: Some(bytes),
            url: "https://x.example/x.zim".into(),
            ..Entry::default()
        }
    }

    #[test]
    fn content_is_found_by_language_and_words_in_each_order_and_once() {
        let entries = vec![
            entry("wiki_fr", "Wikipédia", "fra", "2025-01", 9),
            entry("wiki_fr", "Wikipédia", "fra", "2025-06", 10),
            entry("ted", "TED talks", "eng,fra", "2024-01", 50),
            entry("wiki_en", "Wikipedia", "eng", "2025-03", 30),
        ];
        let catalogue = Catalogue { entries, unusable: 0 };
        let names = |search: &str, language: &str, order| {
            let filter =
                ContentFilter { search: search.into(), language: language.into(), only: Vec::new(), order };
            found(&catalogue, &filter)
                .iter()
                .map(|e| (e.name.as_str(), e.about_bytes.unwrap()))
                .collect::<Vec<_>>()
        };
        assert_eq!(names("", "", ContentOrder::Title), [("ted", 50), ("wiki_en", 30), ("wiki_fr", 10)]);
        assert_eq!(names("", "", ContentOrder::Updated), [("wiki_fr", 10), ("wiki_en", 30), ("ted", 50)]);
        assert_eq!(names("", "fra", ContentOrder::Size), [("ted", 50), ("wiki_fr", 10)]);
        assert_eq!(names("WIKI pédia", "", ContentOrder::Title), [("wiki_fr", 10)]);
        assert_eq!(names("nothing", "", ContentOrder::Title), []);
        let only = vec![Wanted { name: "ted".into(), flavour: None }];
        let filter = ContentFilter { only, ..ContentFilter::default() };
        assert_eq!(found(&catalogue, &filter).len(), 1);
        assert_eq!(languages(&catalogue), ["eng", "fra"]);
    }
}
