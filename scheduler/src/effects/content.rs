//! The catalogue of content: fetched again and again from the one address that whoever runs this scheduler gave, kept in
//! `DIR/catalogue`, and asked for what is in it. The newest that could be read stays, whatever comes after.
//!
//! The address is never a visitor's, and still names no machine of our own network: every address that its host, or a
//! host it sends on to, has is looked at before a connection is made, unless private ones were allowed.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cardshop_protocol::api::Page;
use cardshop_protocol::configuration::{Catalogue, MAX_FEED_SIZE};
use cardshop_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use ureq::config::Config as UreqConfig;
use ureq::http::Uri;
use ureq::tls::TlsConfig;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use super::paging::PageRequest;
use crate::core::content::{ContentFilter, ContentView, found, languages};
use crate::core::fields::InvalidField;
use crate::core::outward::is_public;
use crate::core::rights::{Action, Principal};
use crate::{Scheduler, SchedulerError};

/// How old the catalogue becomes before it is asked for again.
const FRESH_FOR: Duration = Duration::from_secs(6 * 3600);
/// Longest one fetch may take: the whole library of Kiwix has 10 MB.
const FETCH_TIMEOUT: Duration = Duration::from_secs(120);
/// Other addresses a server may send on to.
const MAX_REDIRECTS: u32 = 3;

/// Where content is looked up.
#[derive(Debug, Clone, Default)]
pub struct CatalogueConfig {
    /// Address of an OPDS feed; without one there is no catalogue.
    pub url: Option<String>,
    /// It may be on this machine or its network.
    pub private: bool,
}

/// A catalogue that was read.
pub(crate) struct Kept {
    pub(crate) url: String,
    pub(crate) catalogue: Catalogue,
    pub(crate) read: Timestamp,
}

/// What is known of the file beside it.
#[derive(Serialize, Deserialize)]
struct Note {
    url: String,
    etag: Option<String>,
    read: Timestamp,
}

/// The catalogue as it was read last.
#[derive(Default)]
pub(crate) struct Content(Mutex<Option<Arc<Kept>>>);

impl Content {
    pub(crate) fn kept(&self) -> Option<Arc<Kept>> {
        self.0.lock().expect("no holder panics").clone()
    }

    fn keep(&self, kept: Kept) {
        *self.0.lock().expect("no holder panics") = Some(Arc::new(kept));
    }
}

/// What a server answered.
enum Fetched {
    Feed { feed: Vec<u8>, etag: Option<String> },
    Same,
}

impl Scheduler {
    fn catalogue_folder(&self) -> PathBuf {
        self.inner.config.data.join("catalogue")
    }

    /// Reads the kept catalogue after a start, and asks for a newer one when it is old.
    pub(crate) async fn refresh_catalogue(&self) -> Result<(), SchedulerError> {
        let config = self.inner.config.catalogue.clone();
        let Some(url) = config.url else { return Ok(()) };
        let (folder, now, roots) = (self.catalogue_folder(), self.now(), self.inner.config.roots.clone());
        let there = self.inner.content.kept().map(|kept| kept.read);
        let work = move || {
            let note = read_note(&folder).filter(|note| note.url == url);
            let mut kept = None;
            if let (None, Some(note)) = (there, &note) {
                kept = read_kept(&folder, &url, note.read);
            }
            let known = there.is_some() || kept.is_some();
            if note.as_ref().is_some_and(|note| known && now.since(note.read) < FRESH_FOR) {
                return (kept, Ok(()));
            }
            let etag = note.as_ref().filter(|_| known).and_then(|note| note.etag.clone());
            let tls = TlsConfig::builder().root_certs(roots).build();
            let fetched = fetch(&url, etag.as_deref(), tls, config.private);
            match fetched.and_then(|fetched| take(&folder, &url, fetched, now)) {
                Ok(Some(newer)) => (Some(newer), Ok(())),
                Ok(None) => (kept, write_note(&folder, &Note { url, etag, read: now })),
                Err(reason) => (kept, Err(reason)),
            }
        };
        let (kept, result) = tokio::task::spawn_blocking(work).await.map_err(|_| SchedulerError::Busy)?;
        if let Some(kept) = kept {
            self.inner.content.keep(kept);
        }
        result.map_err(|reason| {
            let kept = if self.inner.content.kept().is_some() { "; the last good one stays" } else { "" };
            SchedulerError::Unreachable(format!("the catalogue cannot be read: {reason}{kept}"))
        })
    }

    /// Content of the catalogue that fits, in order.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid` for a wrong cursor.
    pub fn content(
        &self,
        caller: &Principal,
        filter: &ContentFilter,
        page: &PageRequest,
    ) -> Result<Page<ContentView>, SchedulerError> {
        caller.must(Action::Look)?;
        page.check()?;
        let from = match &page.cursor {
            None => 0,
            Some(text) => {
                let reason = "is not one that a list gave";
                text.parse::<usize>().map_err(|_| InvalidField::new("cursor", reason))?
            }
        };
        let kept = self.inner.content.kept();
        let all = kept.as_ref().map(|kept| found(&kept.catalogue, filter)).unwrap_or_default();
        let items: Vec<ContentView> =
            all.iter().skip(from).take(page.limit()).map(|entry| ContentView::from(*entry)).collect();
        let next = from.saturating_add(items.len());
        let next_cursor = (next < all.len()).then(|| next.to_string());
        Ok(Page { items, next_cursor })
    }

    /// Languages of the catalogue, and when it was read; nothing while there is none.
    ///
    /// # Errors
    /// `NotAllowed`.
    pub fn content_languages(
        &self,
        caller: &Principal,
    ) -> Result<Option<(Vec<String>, Timestamp)>, SchedulerError> {
        caller.must(Action::Look)?;
        Ok(self.inner.content.kept().map(|kept| (languages(&kept.catalogue), kept.read)))
    }

    /// Address of the catalogue, for configurations that name content.
    pub fn catalogue_url(&self) -> Option<&str> {
        self.inner.config.catalogue.url.as_deref()
    }
}

fn read_note(folder: &std::path::Path) -> Option<Note> {
    serde_json::from_slice(&std::fs::read(folder.join("note.json")).ok()?).ok()
}

fn write_note(folder: &std::path::Path, note: &Note) -> Result<(), String> {
    let text = serde_json::to_vec(note).expect("a note is plain JSON");
    write(folder, "note.json", &text)
}

/// A file that is whole or not there.
fn write(folder: &std::path::Path, name: &str, bytes: &[u8]) -> Result<(), String> {
    let (path, new) = (folder.join(name), folder.join(format!("{name}.new")));
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&new, bytes))
        .and_then(|()| std::fs::rename(&new, &path));
    written.map_err(|e| format!("{} cannot be written: {e}", path.display()))
}

fn read_kept(folder: &std::path::Path, url: &str, read: Timestamp) -> Option<Kept> {
    let path = folder.join("feed.xml");
    let size = std::fs::metadata(&path).ok()?.len();
    let feed = (size <= MAX_FEED_SIZE as u64).then(|| std::fs::read(&path).ok())??;
    let catalogue = Catalogue::parse(&feed, Some(url)).ok()?;
    Some(Kept { url: url.to_owned(), catalogue, read })
}

/// Keeps a feed that is a catalogue with something in it.
fn take(
    folder: &std::path::Path,
    url: &str,
    fetched: Fetched,
    now: Timestamp,
) -> Result<Option<Kept>, String> {
    let Fetched::Feed { feed, etag } = fetched else { return Ok(None) };
    let catalogue = Catalogue::parse(&feed, Some(url)).map_err(|e| e.to_string())?;
    if catalogue.entries.is_empty() {
        return Err("it has no entry that can be used".into());
    }
    write(folder, "feed.xml", &feed)?;
    write_note(folder, &Note { url: url.to_owned(), etag, read: now })?;
    Ok(Some(Kept { url: url.to_owned(), catalogue, read: now }))
}

fn fetch(url: &str, etag: Option<&str>, tls: TlsConfig, private: bool) -> Result<Fetched, String> {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(FETCH_TIMEOUT))
        .http_status_as_error(false)
        .max_redirects(MAX_REDIRECTS)
        // A proxy would look names up itself, and reach what this machine must not.
        .proxy(None)
        .tls_config(tls)
        .user_agent(concat!("cardshop/", env!("CARGO_PKG_VERSION")))
        .build();
    let resolver = Outward { private, inner: DefaultResolver::default() };
    let agent = ureq::Agent::with_parts(config, DefaultConnector::default(), resolver);
    let mut request = agent.get(url);
    if let Some(etag) = etag {
        request = request.header("If-None-Match", etag);
    }
    let mut response = request.call().map_err(|e| e.to_string())?;
    match response.status().as_u16() {
        200 => {
            let etag = response.headers().get("etag").and_then(|v| v.to_str().ok()).map(str::to_owned);
            let feed = response.body_mut().with_config().limit(MAX_FEED_SIZE as u64).read_to_vec();
            Ok(Fetched::Feed { feed: feed.map_err(|e| e.to_string())?, etag })
        }
        304 => Ok(Fetched::Same),
        status => Err(format!("the server answered {status}")),
    }
}

/// Looks names up and gives public addresses only.
#[derive(Debug)]
struct Outward {
    private: bool,
    inner: DefaultResolver,
}

impl Resolver for Outward {
    fn resolve(
        &self,
        uri: &Uri,
        config: &UreqConfig,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.inner.resolve(uri, config, timeout)?;
        let private = |ip: IpAddr| !is_public(ip);
        match found.iter().find(|address| private(address.ip())) {
            Some(address) if !self.private => {
                let text = format!(
                    "{} is {}, which is no public address",
                    uri.host().unwrap_or_default(),
                    address.ip()
                );
                Err(std::io::Error::other(text).into())
            }
            _ => Ok(found),
        }
    }
}
