//! Gives letters to a service that takes them by HTTP, where no mail server may be reached.
//! **Source:** Mailgun's `POST /v3/{domain}/messages.mime`: a form with the recipient and the letter as it is.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lettre::{Address, Message as Mime};
use ureq::tls::RootCerts;

use super::calls::{Call, call};
use crate::core::notify::message::Fault;

/// Such a service. It holds a key, so it has no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct MailApi {
    /// Address below which `messages.mime` is: `https://api.mailgun.net/v3/example.org`.
    pub url: String,
    /// Its key.
    pub key: String,
}

impl MailApi {
    pub(super) async fn send(&self, to: &Address, letter: &Mime, roots: RootCerts) -> Result<String, Fault> {
        let letter = letter.formatted();
        let made = Call {
            url: format!("{}/messages.mime", self.url.trim_end_matches('/')),
            headers: vec![
                ("authorization", format!("Basic {}", STANDARD.encode(format!("api:{}", self.key)))),
                ("content-type", format!("multipart/form-data; boundary={}", boundary(&letter))),
            ],
            body: form(to, &letter),
            anywhere: true,
        };
        // What cannot be reached takes no other letter either.
        let (status, said) = call(made, roots).await.map_err(|fault| match fault {
            Fault::Later(why) => Fault::Away(why),
            fault => fault,
        })?;
        match status {
            200..=299 => Ok(said),
            // Its answer to an address or a letter that it does not take.
            400 | 413 | 422 => Err(Fault::Never(said)),
            _ => Err(Fault::Away(said)),
        }
    }
}

/// **Source:** RFC 7578.
fn form(to: &Address, letter: &[u8]) -> Vec<u8> {
    let mark = boundary(letter);
    let mut form = format!(
        "--{mark}\r\ncontent-disposition: form-data; name=\"to\"\r\n\r\n{to}\r\n\
         --{mark}\r\ncontent-disposition: form-data; name=\"message\"; filename=\"letter.eml\"\r\n\
         content-type: message/rfc822\r\n\r\n"
    )
    .into_bytes();
    form.extend_from_slice(letter);
    form.extend_from_slice(format!("\r\n--{mark}--\r\n").as_bytes());
    form
}

/// Follows from what it bounds, so that nobody can write it into a letter.
fn boundary(letter: &[u8]) -> String {
    blake3::hash(letter).to_hex()[..40].to_owned()
}
