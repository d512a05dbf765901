//! What a finished card says of itself.

use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};

use super::version;
use crate::ids::{ApplianceId, Digest, ImageId, ObjectId, OrderId};
use crate::keys::{appliance_id, decode_signature};
use crate::time::Timestamp;

/// What a passport file of a card says (`CARD.JSN`), signed by the appliance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passport {
    /// Version.
    #[serde(default = "version")]
    pub v: u8,
    /// The card's own identity.
    pub uid: ObjectId,
    /// Which order.
    pub order: OrderId,
    /// Copy n …
    pub copy: u32,
    /// … of m.
    pub total: u32,
    /// What was written.
    pub image: ImageId,
    /// When it was verified, but for the passport itself.
    pub written_at: Timestamp,
    /// By whom.
    pub shop: String,
    /// Which appliance wrote it.
    pub appliance: ApplianceId,
    /// `verified`; nothing else is ever called good.
    pub result: String,
    /// Ed25519 by the appliance over [`Passport::signed_message`], base64url.
    pub signature: String,
}

impl Passport {
    /// True when the certificate is of this key: the appliance's that wrote the card.
    pub fn is_signed_by(&self, key: &VerifyingKey) -> bool {
        let signature = decode_signature(&self.signature).map(|bytes| Signature::from_bytes(&bytes));
        appliance_id(key) == self.appliance
            && signature.is_some_and(|s| key.verify_strict(&self.signed_message().0, &s).is_ok())
    }

    /// What the signature covers: card, image and result, with order and copy.
    pub fn signed_message(&self) -> Digest {
        let mut hasher = blake3::Hasher::new_derive_key("cardshop 2026 card passport");
        let text = format!(
            "{}\n{}\n{}\n{}/{}\n{}\n",
            self.uid, self.image, self.order, self.copy, self.total, self.result
        );
        hasher.update(text.as_bytes());
        Digest(*hasher.finalize().as_bytes())
    }
}
