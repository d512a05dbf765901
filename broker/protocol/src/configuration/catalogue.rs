//! A catalogue of content: an OPDS feed as Kiwix's library gives it. Pure; what comes here is hostile.
//!
//! **Source:** OPDS catalog 1.2 (Atom, RFC 4287), and the elements `name`, `flavour`, `language` and `category` that
//! Kiwix's library adds to an entry. Its `length` is rounded, so that sizes are asked of the content's server.

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion, escape};

/// Largest feed that is read, bytes. The whole library of Kiwix has 10 MB.
pub const MAX_FEED_SIZE: usize = 64 * 1024 * 1024;
/// Most entries; the library has some thousands.
const MAX_ENTRIES: usize = 200_000;
/// Longest text of an element that is kept, bytes.
const MAX_TEXT: usize = 4000;
/// Deepest nesting; a feed has three levels.
const MAX_DEPTH: usize = 32;
const ACQUISITION: &str = "http://opds-spec.org/acquisition";
const ZIM: &str = "application/x-zim";

/// Why a feed is no catalogue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogueError {
    /// Above the limit its text names.
    #[error("the catalogue has {0} bytes, at most {MAX_FEED_SIZE} are read")]
    TooLarge(usize),
    /// Not UTF-8, or not XML.
    #[error("the catalogue is not XML: {0}")]
    NotXml(String),
    /// XML of another kind.
    #[error("the catalogue is no Atom feed: it begins with <{0}>")]
    NotAFeed(String),
    /// Above the limit its text names.
    #[error("the catalogue has more than {MAX_ENTRIES} entries")]
    TooManyEntries,
    /// Elements in elements without end.
    #[error("the catalogue's elements are nested deeper than {MAX_DEPTH}")]
    TooDeep,
}

/// Content that can be put on a card.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    /// `urn:uuid:…`, another one with each version.
    pub id: String,
    /// The same for all versions, `wikipedia_fr_all`.
    pub name: String,
    /// `maxi`, `nopic`; often empty.
    pub flavour: String,
    /// For people.
    pub title: String,
    /// `fra`, or several with commas.
    pub language: String,
    /// `wikipedia`.
    pub category: String,
    /// When this version came, ISO 8601.
    pub updated: String,
    /// Where it is.
    pub url: String,
    /// Bytes, about.
    pub about_bytes: Option<u64>,
}

impl Entry {
    /// Its file on the card: the same for all versions, so that a new one takes the old one's place.
    pub fn file_name(&self) -> String {
        let ending = if self.url.ends_with(".zim") { ".zim" } else { "" };
        match self.flavour.as_str() {
            "" => format!("{}{ending}", self.name),
            flavour => format!("{}_{flavour}{ending}", self.name),
        }
    }
}

/// All content there is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Catalogue {
    /// In the feed's order.
    pub entries: Vec<Entry>,
    /// Entries without an address of content that can be used.
    pub unusable: usize,
}

impl Catalogue {
    /// Reads a feed. `base` is the address it came from, for addresses that begin with `/`.
    ///
    /// # Errors
    /// [`CatalogueError`]. An entry that cannot be used costs itself only.
    pub fn parse(feed: &[u8], base: Option<&str>) -> Result<Self, CatalogueError> {
        if feed.len() > MAX_FEED_SIZE {
            return Err(CatalogueError::TooLarge(feed.len()));
        }
        let text = std::str::from_utf8(feed).map_err(|e| CatalogueError::NotXml(e.to_string()))?;
        Feed { base, ..Feed::default() }.read(text)
    }

    /// Flavours that content of this name has.
    pub fn flavours_of(&self, name: &str) -> Vec<String> {
        let same = self.entries.iter().filter(|e| e.name == name && !e.flavour.is_empty());
        let mut flavours: Vec<String> = same.map(|e| e.flavour.clone()).collect();
        flavours.sort();
        flavours.dedup();
        flavours
    }

    /// The newest version of what has this name and flavour.
    pub fn newest(&self, name: &str, flavour: Option<&str>) -> Option<&Entry> {
        let same = |e: &&Entry| e.name == name && flavour.is_none_or(|f| e.flavour == f);
        // Of several the first in the feed, as long as it is not older.
        self.entries.iter().rev().filter(same).max_by(|a, b| a.updated.cmp(&b.updated))
    }
}

/// A feed while it is read.
#[derive(Default)]
struct Feed<'a> {
    base: Option<&'a str>,
    catalogue: Catalogue,
    /// Elements that are open, as far as they matter: the entry's own children have names of their own.
    depth: usize,
    entry: Option<Entry>,
    /// Text of the element under way.
    text: String,
    is_zim: bool,
}

impl Feed<'_> {
    fn read(mut self, text: &str) -> Result<Catalogue, CatalogueError> {
        let not_xml = |text: String| CatalogueError::NotXml(text);
        let mut reader = Reader::from_str(text);
        let mut seen = false;
        loop {
            let event = reader.read_event().map_err(|e| not_xml(e.to_string()))?;
            match event {
                Event::Start(start) => {
                    if !seen && start.local_name().into_inner() != "feed" {
                        return Err(CatalogueError::NotAFeed(shortened(start.local_name().into_inner(), 40)));
                    }
                    seen = true;
                    self.start(&start)?;
                }
                Event::Empty(element) => {
                    if seen {
                        self.link(&element);
                    }
                }
                Event::End(end) => self.end(end.local_name().into_inner())?,
                Event::Text(text) => self.add(&text.xml10_content()),
                Event::CData(text) => self.add(&text.xml10_content()),
                Event::GeneralRef(name) => match name.resolve_char_ref() {
                    Ok(Some(c)) => self.add(c.encode_utf8(&mut [0; 4])),
                    // A feed's own entities stay unread: nothing is fetched or expanded for them.
                    _ => self.add(escape::resolve_predefined_entity(&name.into_inner()).unwrap_or_default()),
                },
                Event::Eof if self.depth > 0 => return Err(not_xml("it ends in the middle".into())),
                Event::Eof if !seen => return Err(not_xml("it is empty".into())),
                Event::Eof => return Ok(self.catalogue),
                Event::Decl(_) | Event::PI(_) | Event::DocType(_) | Event::Comment(_) => {}
            }
        }
    }

    fn start(&mut self, start: &BytesStart<'_>) -> Result<(), CatalogueError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(CatalogueError::TooDeep);
        }
        self.text.clear();
        match (self.depth, start.local_name().into_inner()) {
            (2, "entry") => (self.entry, self.is_zim) = (Some(Entry::default()), false),
            _ => self.link(start),
        }
        Ok(())
    }

    fn add(&mut self, text: &str) {
        if self.depth == 3 && self.text.len() < MAX_TEXT {
            self.text.push_str(text);
        }
    }

    fn end(&mut self, name: &str) -> Result<(), CatalogueError> {
        let text = shortened(self.text.trim(), MAX_TEXT);
        if let (3, Some(entry)) = (self.depth, &mut self.entry) {
            let field = match name {
                "id" => Some(&mut entry.id),
                "name" => Some(&mut entry.name),
                "flavour" => Some(&mut entry.flavour),
                "title" => Some(&mut entry.title),
                "language" => Some(&mut entry.language),
                "category" => Some(&mut entry.category),
                "updated" => Some(&mut entry.updated),
                _ => None,
            };
            if let Some(field) = field.filter(|field| field.is_empty()) {
                *field = text;
            }
        }
        if self.depth == 2
            && let Some(entry) = self.entry.take()
        {
            if self.catalogue.entries.len() == MAX_ENTRIES {
                return Err(CatalogueError::TooManyEntries);
            }
            // Name and flavour become the name of a file.
            let word =
                |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
            let usable = !entry.name.is_empty() && word(&entry.name) && word(&entry.flavour);
            match usable && !entry.url.is_empty() {
                true => self.catalogue.entries.push(entry),
                false => self.catalogue.unusable += 1,
            }
        }
        self.text.clear();
        self.depth = self.depth.saturating_sub(1);
        Ok(())
    }

    /// Takes where the content is from a link of an entry; a ZIM file goes before anything else.
    fn link(&mut self, element: &BytesStart<'_>) {
        let Some(entry) = self.entry.as_mut().filter(|_| element.local_name().into_inner() == "link") else {
            return;
        };
        let attribute = |name: &str| {
            let found = element.try_get_attribute(name).ok().flatten()?;
            let value = found.normalized_value(XmlVersion::Implicit1_0).ok()?;
            (value.len() <= MAX_TEXT).then(|| value.into_owned())
        };
        let relation = attribute("rel").unwrap_or_default();
        let is_zim = attribute("type").as_deref() == Some(ZIM);
        if !relation.starts_with(ACQUISITION) || (!entry.url.is_empty() && (self.is_zim || !is_zim)) {
            return;
        }
        let Some(url) = attribute("href").and_then(|href| absolute(&href, self.base)) else { return };
        (entry.url, self.is_zim) = (url, is_zim);
        entry.about_bytes = attribute("length").and_then(|length| length.parse().ok());
    }
}

/// The address of the content itself: a description of its mirrors (`.meta4`) stands beside it.
fn absolute(href: &str, base: Option<&str>) -> Option<String> {
    let href = href.trim();
    let href = href.strip_suffix(".meta4").unwrap_or(href);
    if href.starts_with("https://") || href.starts_with("http://") {
        return Some(href.to_owned());
    }
    let (scheme, rest) = base?.split_once("://")?;
    let origin = rest.split(['/', '?', '#']).next()?;
    (href.starts_with('/') && !href.starts_with("//")).then(|| format!("{scheme}://{origin}{href}"))
}

fn shortened(text: &str, most: usize) -> String {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Kiwix's library answers, shortened.
    const FEED: &str = include_str!("../../../../scheduler/creator/fuzz/seeds/catalogue/library.xml");

    #[test]
    fn a_feed_of_kiwix_is_read_with_addresses_of_the_content_itself() {
        let catalogue =
            Catalogue::parse(FEED.as_bytes(), Some("https://library.example/catalog/v2?x")).unwrap();
        let [old, new, relative] = &catalogue.entries[..] else { panic!("{catalogue:?}") };
        assert_eq!(
            *new,
            Entry {
                id: "urn:uuid:2".into(),
                name: "wikipedia_fr_all".into(),
                flavour: "maxi".into(),
                title: "Wikipédia & amis <fr>".into(),
                language: "fra".into(),
                category: "wikipedia".into(),
                updated: "2025-06-01T00:00:00Z".into(),
                url: "https://download.example/zim/wikipedia_fr_all_maxi_2025-06.zim".into(),
                about_bytes: Some(38_654_705_664),
            }
        );
        assert_eq!((old.flavour.as_str(), old.name.as_str()), ("maxi", "wikipedia_fr_all"));
        assert_eq!(relative.url, "https://library.example/zim/small.zim");
        assert_eq!(catalogue.unusable, 1, "the one that can only be bought");
        assert_eq!(catalogue.newest("wikipedia_fr_all", Some("maxi")), Some(new));
        assert_eq!(catalogue.newest("wikipedia_fr_all", None), Some(new));
        assert_eq!(catalogue.newest("wikipedia_fr_all", Some("nopic")), None);
        let of_a_file = Catalogue::parse(FEED.as_bytes(), None).unwrap();
        assert_eq!((of_a_file.entries.len(), of_a_file.unusable), (2, 2));
    }

    #[test]
    fn what_is_no_feed_or_hostile_is_refused_by_name() {
        let refusal = |text: &str| Catalogue::parse(text.as_bytes(), None).unwrap_err().to_string();
        assert_eq!(refusal("<html><body/></html>"), "the catalogue is no Atom feed: it begins with <html>");
        assert_eq!(refusal(""), "the catalogue is not XML: it is empty");
        assert_eq!(refusal("<feed><entry>"), "the catalogue is not XML: it ends in the middle");
        assert!(refusal("<feed><entry></feed>").starts_with("the catalogue is not XML"));
        let deep = "<a>".repeat(40);
        assert_eq!(refusal(&format!("<feed>{deep}")), "the catalogue's elements are nested deeper than 32");
        // An entity that would grow: it stays unread.
        let bomb = "<!DOCTYPE feed [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;\">]><feed><entry><name>x&b;y</name>\
            <link rel='http://opds-spec.org/acquisition' href='https://h/x.zim'/></entry></feed>";
        let catalogue = Catalogue::parse(bomb.as_bytes(), None).unwrap();
        assert_eq!(catalogue.entries[0].name, "xy");
        assert!(Catalogue::parse(&[0xff, 0xfe], None).is_err());
        assert_eq!(
            Catalogue::parse(&vec![b' '; MAX_FEED_SIZE + 1], None),
            Err(CatalogueError::TooLarge(MAX_FEED_SIZE + 1))
        );
    }
}
