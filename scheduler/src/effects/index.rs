//! Asks a warehouse for the index of an image that a creator says is there, and checks it.

use cardshop_protocol::ids::ImageId;
use cardshop_protocol::index::{Index, MAX_INDEX_SIZE};
use cardshop_protocol::keys::KeyUse;

use crate::Scheduler;
use crate::core::order::OrderImage;
use crate::effects::ask::{Answer, Question};

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
        let bytes = match self.ask(Question::get(url), Some(self.own_token()), MAX_INDEX_SIZE).await {
            Answer::Body(bytes) => bytes,
            Answer::NotFound => {
                return Err(wrong(false, format!("image {image} is not in the warehouse")));
            }
            Answer::TooLarge => {
                return Err(wrong(true, format!("its index has more than {MAX_INDEX_SIZE} bytes")));
            }
            Answer::Failed(text) => return Err(ImageFault::Unreachable(text)),
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
