//! Asks a warehouse for the index of an image that a creator says is there, and checks it. Blocking HTTP on
//! blocking threads, with limits on time and size.

use std::time::Duration;

use cardshop_protocol::ids::ImageId;
use cardshop_protocol::index::{Index, MAX_INDEX_SIZE};
use cardshop_protocol::keys::KeyUse;

use crate::Scheduler;
use crate::core::order::OrderImage;

/// Longest time one question to a warehouse may take: half a creator's lease.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why an image is not taken.
pub(crate) enum ImageFault {
    /// The warehouse could not be asked; says nothing of the image.
    Unreachable(String),
    /// It is not there, not what it should be, or too large.
    Wrong { reason: String, permanent: bool },
}

fn wrong(permanent: bool, reason: impl Into<String>) -> ImageFault {
    ImageFault::Wrong { reason: reason.into(), permanent }
}

/// What came of a question.
pub(crate) enum Fetched {
    Body(Vec<u8>),
    NotFound,
    TooLarge,
    Failed(String),
}

/// `GET url`, at most `limit` bytes.
pub(crate) async fn fetch(url: String, token: Option<String>, limit: u64) -> Fetched {
    let work = move || {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .build()
            .into();
        let mut request = agent.get(&url);
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let mut response = match request.call() {
            Ok(response) => response,
            Err(error) => return Fetched::Failed(format!("{url} cannot be reached: {error}")),
        };
        match response.status().as_u16() {
            200 => match response.body_mut().with_config().limit(limit).read_to_vec() {
                Ok(body) => Fetched::Body(body),
                Err(ureq::Error::BodyExceedsLimit(_)) => Fetched::TooLarge,
                Err(error) => Fetched::Failed(format!("{url} broke off: {error}")),
            },
            404 => Fetched::NotFound,
            status => Fetched::Failed(format!("{url} answered {status}")),
        }
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Fetched::Failed("stopped".into()))
}

impl Scheduler {
    /// Reads the index of `image` from `warehouse` and checks id, signature and size.
    pub(crate) async fn look_at_image(
        &self,
        warehouse: &str,
        image: ImageId,
        limit: u64,
    ) -> Result<OrderImage, ImageFault> {
        let keys = self.pinned_keys(warehouse).await.map_err(|e| ImageFault::Unreachable(e.to_string()))?;
        let url = format!("{warehouse}/images/{image}/index");
        let bytes = match fetch(url, Some(self.own_token()), MAX_INDEX_SIZE).await {
            Fetched::Body(bytes) => bytes,
            Fetched::NotFound => {
                return Err(wrong(false, format!("image {image} is not in the warehouse")));
            }
            Fetched::TooLarge => {
                return Err(wrong(true, format!("its index has more than {MAX_INDEX_SIZE} bytes")));
            }
            Fetched::Failed(text) => return Err(ImageFault::Unreachable(text)),
        };
        let index = Index::decode(&bytes).map_err(|e| wrong(false, format!("its index is wrong: {e}")))?;
        if index.id() != image {
            return Err(wrong(false, format!("the warehouse gave the index of image {}", index.id())));
        }
        let now = self.now();
        let signed = keys
            .iter()
            .filter_map(|k| k.usable(KeyUse::Index, now))
            .any(|key| index.verify_signature(&key).is_ok());
        if !signed {
            return Err(wrong(false, "its index is not signed by the warehouse's key"));
        }
        if index.image_size() > limit {
            let size = index.image_size();
            return Err(wrong(true, format!("the image has {size} bytes, the media takes {limit}")));
        }
        Ok(OrderImage { id: image, size: index.image_size(), data_bytes: index.data_bytes() })
    }
}
