//! What is left on a card: its passport, signed by the appliance, and a text that tells a person what the card
//! is. Made when all but the card's first chunk is verified.

use cardshop_card::PassportFiles;
use cardshop_protocol::ids::{ApplianceId, ObjectId};
use cardshop_protocol::keys::encode_signature;
use cardshop_protocol::message::{Passport, VERSION};
use cardshop_protocol::time::Timestamp;
use ed25519_dalek::{Signer, SigningKey};

use crate::core::Work;

/// Longest order and shop names on a card, characters: the text must stay below 4096 bytes.
const MAX_NAME_CHARS: usize = 200;

/// Makes and signs a passport.
pub(crate) fn issue(
    key: &SigningKey,
    appliance: ApplianceId,
    uid: ObjectId,
    work: &Work,
    shop: &str,
    now: Timestamp,
) -> Passport {
    let mut passport = Passport {
        v: VERSION,
        uid,
        order: work.order,
        copy: work.copy,
        total: work.total,
        image: work.image,
        written_at: now,
        shop: shorten(shop),
        appliance,
        result: "verified".into(),
        signature: String::new(),
    };
    passport.signature = encode_signature(&key.sign(&passport.signed_message().0).to_bytes());
    passport
}

/// The files of a passport.
pub(crate) fn files(passport: &Passport, order_name: &str) -> PassportFiles {
    let card_jsn = serde_json::to_vec_pretty(passport).expect("plain data has a JSON form");
    PassportFiles { card_jsn, readme: readme(passport, order_name).into_bytes() }
}

fn readme(passport: &Passport, order_name: &str) -> String {
    let Passport { shop, order, copy, total, image, written_at, uid, .. } = passport;
    let shop = if shop.is_empty() { "Cardshop" } else { shop };
    let name = if order_name.is_empty() { order.to_string() } else { shorten(order_name) };
    format!(
        "{shop}\r\n\r\nThis card is copy {copy} of {total} of {name}.\r\nIt was written and read back completely on \
         {written_at}.\r\n\r\nOrder   {order}\r\nCard    {uid}\r\nImage   {image}\r\n\r\nThe file CARD.JSN says the \
         same for programs, with a signature.\r\nBoth files can be deleted.\r\n"
    )
}

fn shorten(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(MAX_NAME_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cardshop_protocol::ids::ImageId;
    use cardshop_protocol::keys::{appliance_id, decode_signature};
    use ed25519_dalek::Signature;

    #[test]
    fn a_passport_fits_its_room_and_its_signature_covers_what_it_says() {
        let key = SigningKey::from_bytes(&[5; 32]);
        let order = ObjectId::from_parts(1, 1);
        let work = Work {
            lease: order,
            order,
            order_name: "ö".repeat(5000),
            copy: u32::MAX,
            total: u32::MAX,
            image: ImageId([0xab; 32]),
            wipe: Default::default(),
            verify: Default::default(),
        };
        let appliance = appliance_id(&key.verifying_key());
        let mut passport =
            issue(&key, appliance, order, &work, &"\u{1F4BE}".repeat(5000), Timestamp::from_ms(u64::MAX));
        let files = files(&passport, &work.order_name);
        assert!(files.card_jsn.len() <= 4096 && files.readme.len() <= 4096);
        assert_eq!(serde_json::from_slice::<Passport>(&files.card_jsn).unwrap(), passport);
        let signature = Signature::from_bytes(&decode_signature(&passport.signature).unwrap());
        let valid =
            |p: &Passport| key.verifying_key().verify_strict(&p.signed_message().0, &signature).is_ok();
        assert!(valid(&passport));
        passport.copy = 1;
        assert!(!valid(&passport));
    }
}
