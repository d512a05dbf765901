//! The letters in each language. A language is one file; a letter that it lacks is a compile error. They are templates of
//! `template`, which staff may replace.

mod en;
mod fr;

use super::event::Notice;

/// A letter.
pub(crate) struct Text {
    pub(crate) subject: &'static str,
    pub(crate) body: &'static str,
}

/// Declares the letters, by the name of their notice.
macro_rules! texts {
    ($($name:ident $notice:ident)*) => {
        /// What one language has.
        pub(crate) struct Texts {
            /// BCP 47.
            pub(crate) language: &'static str,
            /// A day and a time, for strftime; the zone is in it.
            pub(crate) moment: &'static str,
            /// Between the whole and the tenth.
            pub(crate) decimal: &'static str,
            /// A million and a milliard of bytes.
            pub(crate) units: (&'static str, &'static str),
            /// In place of a link that only the person itself may have.
            pub(crate) hidden_link: &'static str,
            /// Below each letter.
            pub(crate) footer: &'static str,
            $(pub(crate) $name: Text,)*
        }

        impl Texts {
            pub(crate) fn of(&self, notice: Notice) -> &Text {
                match notice {
                    $(Notice::$notice => &self.$name,)*
                }
            }
        }
    };
}

texts! {
    order_created OrderCreated
    order_failed OrderFailed
    order_canceled OrderCanceled
    image_ready ImageReady
    download_ready DownloadReady
    cards_wanted CardsWanted
    writing_begun WritingBegun
    card_written CardWritten
    cards_written CardsWritten
    order_shipped OrderShipped
    appliance_trouble ApplianceTrouble
    password_reset PasswordReset
    account_invitation AccountInvitation
    test Test
}

/// Every language; the first is for those who named none.
pub(crate) static ALL: [&Texts; 2] = [&en::TEXTS, &fr::TEXTS];

/// The texts of the language with this tag; those of the first when there are none.
pub(crate) fn texts(tag: Option<&str>) -> &'static Texts {
    tag.and_then(known).unwrap_or(ALL[0])
}

/// The language with this tag, if there is one: `fr` for `fr-CA` too.
pub(crate) fn known(tag: &str) -> Option<&'static Texts> {
    let main = tag.split(['-', '_']).next()?.to_ascii_lowercase();
    ALL.into_iter().find(|texts| texts.language == main)
}
