//! What comes from outside as files and forms, through the readers that routes use, with what must hold whatever it is. For
//! the fuzzer and for the test that replays what it kept; nothing else calls it.
//!
//! | reader | most bytes | where the limit is |
//! |---|---|---|
//! | exports and backups | a line of one document and its names | `store::dump` |
//! | configurations | 512 KiB of body, 256 KiB of recipe | `api`, `core::configurations` |
//! | pictures | what a recipe has room for, 16 MiB by a form; 64 MiB decoded | `core::branding`, the manager |
//! | addresses | 512 KiB of body, 100 characters a line | `api`, `core::address` |

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use cardshop_protocol::ids::ObjectId;
use cardshop_protocol::time::Timestamp;
use serde_json::Value;

use crate::core::address::{Address, AddressView};
use crate::core::configurations::{checked, size, without_secrets};
use crate::core::fields::Fields;
use crate::core::{branding, phone};
pub use crate::store::read_any_dump as dump;

/// A recipe: what is kept of it is kept again as it is, and is shown without its secrets.
pub fn configuration(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    let Ok(kept) = checked(value) else { return };
    let (shown, left_out) = without_secrets(&kept);
    assert!(left_out.is_empty() || shown != kept);
    assert_eq!(without_secrets(&shown), (shown.clone(), Vec::new()), "nothing more is secret");
    assert!(checked(shown).is_ok(), "what is shown is a recipe");
    let size = size(&kept, None, &[]);
    assert!(size.image_bytes > 0 && size.media.is_none());
}

/// A picture: what is kept of it is a picture, and stays as it is.
pub fn picture(bytes: &[u8]) {
    let Ok((name, kept)) = branding::kept("logo.webp", &BASE64.encode(bytes)) else { return };
    assert_eq!(name, "logo.png");
    let again = branding::kept(&name, &kept);
    assert_eq!(again, Ok((name, kept)), "a kept picture is kept as it is");
}

/// The fields of an address, JSON; and a telephone number.
pub fn address(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(number) = phone::e164(text)
    {
        assert!(number.len() <= 16 && phone::e164(&number).as_ref() == Ok(&number));
    }
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    let Some(mut fields) = Fields::new(value) else { return };
    let mut address = Address::empty(
        ObjectId::from_parts(1, 1),
        None,
        "default".parse().expect("a slug"),
        "ada",
        Timestamp::from_ms(0),
    );
    if address.read(&mut fields).is_ok() {
        let again = Fields::new(address.with(Value::Object(Default::default())));
        let mut same = address.clone();
        same.read(&mut again.expect("an object")).expect("what was read is good");
        assert_eq!(same, address);
        let _ = AddressView::new(address, 1);
    }
}
