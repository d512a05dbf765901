//! What a finished card says of itself.

use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};

use super::version;
use crate::ids::{ApplianceId, Digest, ImageId, ObjectId, OrderId};
use crate::keys::{appliance_id, decode_signature};
use crate::time::Timestamp;

/// What a passport file of a card says (`CARD.JSN`), signed by the appliance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::encode_signature;
    use ed25519_dalek::{Signer, SigningKey};

    #[test]
    fn a_certificate_is_genuine_only_unchanged_and_of_the_appliance_it_names() {
        let (key, other) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        let mut passport = Passport {
            v: 1,
            uid: ObjectId::from_parts(1, 2),
            order: ObjectId::from_parts(3, 4),
            copy: 1,
            total: 2,
            image: ImageId([7; 32]),
            written_at: Timestamp::from_ms(0),
            shop: String::new(),
            appliance: appliance_id(&key.verifying_key()),
            result: "verified".into(),
            signature: String::new(),
        };
        assert!(!passport.is_signed_by(&key.verifying_key()), "nobody has signed it");
        passport.signature = encode_signature(&key.sign(&passport.signed_message().0).to_bytes());
        assert!(passport.is_signed_by(&key.verifying_key()));
        assert!(!passport.is_signed_by(&other.verifying_key()));
        let mut changes: Vec<Passport> = vec![passport.clone(); 4];
        changes[0].image = ImageId([8; 32]);
        changes[1].uid = ObjectId::from_parts(1, 3);
        changes[2].result = "good".into();
        changes[3].appliance = appliance_id(&other.verifying_key());
        assert!(changes.iter().all(|changed| !changed.is_signed_by(&key.verifying_key())));
    }
}
