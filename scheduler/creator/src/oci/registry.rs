//! A container registry as an anonymous reader sees it: the token it wants, manifests, addresses of blobs. The bytes
//! themselves come through [`crate::fetch`].
//! **Source:** OCI distribution specification 1.1; Docker's token authentication (RFC 6750 challenges).

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::manifest::{ACCEPT, Answer, Manifest};
use super::{ImageName, OciError};
use crate::digest::Checksum;
use crate::fetch::{FetchError, Fetcher};

/// Largest manifest or index that is read, bytes. **Source:** the limit registries set themselves.
const MAX_MANIFEST_SIZE: u64 = 4 * 1024 * 1024;
/// Largest answer with a token, bytes.
const MAX_TOKEN_SIZE: u64 = 64 * 1024;
/// How long a token is used when its registry does not say. **Source:** Docker's default.
const TOKEN_LIFE: Duration = Duration::from_secs(60);
/// A token is not used in the last part of its life: a blob's download begins with it.
const TOKEN_RESERVE: Duration = Duration::from_secs(10);

pub(crate) struct Registry<'a> {
    fetcher: &'a Fetcher<'a>,
    base: String,
    repository: String,
    token: Mutex<Token>,
}

enum Token {
    /// The registry was not asked yet.
    Unknown,
    /// It wants none.
    None,
    /// Where a token is to be had, and the last one.
    At { url: String, last: Option<(String, Instant)> },
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default, alias = "access_token")]
    token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

impl<'a> Registry<'a> {
    pub(crate) fn new(fetcher: &'a Fetcher<'a>, name: &ImageName) -> Self {
        let (base, repository) = (name.base(), name.repository.clone());
        Self { fetcher, base, repository, token: Mutex::new(Token::Unknown) }
    }

    /// The manifest of an image for a platform.
    pub(crate) fn manifest(&self, name: &ImageName, platform: &str) -> Result<Manifest, OciError> {
        let wrong = |fault: String| OciError::Manifest { name: name.to_string(), fault };
        let mut reference = name.reference.clone();
        // An index, and the manifest it points to.
        for _ in 0..2 {
            let url = format!("{}/v2/{}/manifests/{reference}", self.base, self.repository);
            let bytes = self.with_token(|headers| {
                let mut headers = headers.to_vec();
                headers.push(("accept", ACCEPT.to_owned()));
                self.fetcher.text(&url, MAX_MANIFEST_SIZE, &headers)
            })?;
            if let Some((algo, hex)) = reference.split_once(':') {
                let checksum = Checksum::parse(algo, hex).map_err(wrong)?;
                let mut hasher = checksum.hasher();
                hasher.update(&bytes);
                checksum.compare(hasher).map_err(|actual| FetchError::ChecksumDiffers {
                    what: url.clone(),
                    expected: checksum.to_string(),
                    actual,
                })?;
            }
            match super::manifest::read(bytes, platform).map_err(wrong)? {
                Answer::Image(manifest) => return Ok(manifest),
                Answer::Elsewhere(digest) => reference = digest.to_string(),
            }
        }
        Err(wrong("its index leads to another index".into()))
    }

    pub(crate) fn blob_url(&self, digest: &Checksum) -> String {
        format!("{}/v2/{}/blobs/{digest}", self.base, self.repository)
    }

    /// Calls with the headers the registry wants; once more with a new token when the last one has ended.
    pub(crate) fn with_token<T>(
        &self,
        call: impl Fn(&[(&'static str, String)]) -> Result<T, FetchError>,
    ) -> Result<T, OciError> {
        if self.fetcher.offline {
            return Ok(call(&[])?);
        }
        let headers = self.headers()?;
        match call(&headers) {
            Err(FetchError::Refused { status, .. }) if status.starts_with("401") && !headers.is_empty() => {
                if let Token::At { last, .. } =
                    &mut *self.token.lock().unwrap_or_else(PoisonError::into_inner)
                {
                    *last = None;
                }
                Ok(call(&self.headers()?)?)
            }
            done => Ok(done?),
        }
    }

    fn headers(&self) -> Result<Vec<(&'static str, String)>, OciError> {
        let mut token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if let Token::Unknown = *token {
            *token = self.ask()?;
        }
        let Token::At { url, last } = &mut *token else { return Ok(Vec::new()) };
        let bearer = |token: &str| Ok(vec![("authorization", format!("Bearer {token}"))]);
        if let Some((token, until)) = last.as_ref().filter(|(_, until)| Instant::now() < *until) {
            let _ = until;
            return bearer(token);
        }
        let bytes = self.fetcher.secret_text(url, MAX_TOKEN_SIZE)?;
        let answer: Option<TokenAnswer> = serde_json::from_slice(&bytes).ok();
        let (Some(found), life) = answer.map_or((None, None), |a| (a.token, a.expires_in)) else {
            return Err(OciError::Login {
                registry: self.base.clone(),
                fault: "its token cannot be read".into(),
            });
        };
        let life = life.map_or(TOKEN_LIFE, Duration::from_secs);
        *last = Some((found.clone(), Instant::now() + life.saturating_sub(TOKEN_RESERVE.min(life / 2))));
        bearer(&found)
    }

    /// What the registry wants of a reader.
    fn ask(&self) -> Result<Token, OciError> {
        let Some(challenge) = self.fetcher.challenge(&format!("{}/v2/", self.base))? else {
            return Ok(Token::None);
        };
        let wrong = |fault: &str| OciError::Login { registry: self.base.clone(), fault: fault.into() };
        let Some(fields) = challenge.strip_prefix("Bearer ").or(challenge.strip_prefix("bearer ")) else {
            return Err(wrong("it wants a password, which recipes do not carry"));
        };
        let field = |name: &str| {
            let at = fields.find(&format!("{name}=\""))? + name.len() + 2;
            Some(&fields[at..at + fields[at..].find('"')?])
        };
        let realm = field("realm").filter(|r| crate::http::check_address(r).is_ok());
        let realm = realm.ok_or_else(|| wrong("it names no address for tokens"))?;
        let mark = if realm.contains('?') { '&' } else { '?' };
        let service = field("service").unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:/".contains(c);
        if !service.chars().all(plain) {
            return Err(wrong("it names a service that cannot be"));
        }
        let scope = format!("repository:{}:pull", self.repository);
        Ok(Token::At { url: format!("{realm}{mark}service={service}&scope={scope}"), last: None })
    }
}
