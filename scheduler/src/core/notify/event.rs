//! What people are told of, who is told, and whether they are unless they say otherwise.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Something that people are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// An order was placed.
    OrderCreated,
    /// Its image could not be made, and nobody tries again by itself.
    OrderFailed,
    /// A person ended it.
    OrderCanceled,
    /// The image of an order of cards is in the warehouse.
    ImageReady,
    /// The link of a virtual order works.
    DownloadReady,
    /// Work waits, and no card is in.
    CardsWanted,
    /// The first card of an order is being written.
    WritingBegun,
    /// A card is written and verified.
    CardWritten,
    /// All cards of an order are: they wait for the parcel.
    CardsWritten,
    /// Cards were sent.
    OrderShipped,
    /// An appliance is silent, or says that something is wrong.
    ApplianceTrouble,
    /// Somebody asked for a new password.
    PasswordReset,
    /// An account waits for its first password.
    AccountInvitation,
    /// Whether letters arrive.
    Test,
}

/// Who is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Who gets the parcel or the link, with a copy to who ordered.
    Recipient,
    /// The same, and the address that hears of failed orders.
    RecipientAndWatch,
    /// Who ordered.
    Client,
    /// Operators of the channel.
    Operators,
    /// The one whose account it is.
    User,
}

impl Notice {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::OrderCreated,
        Self::OrderFailed,
        Self::OrderCanceled,
        Self::ImageReady,
        Self::DownloadReady,
        Self::CardsWanted,
        Self::WritingBegun,
        Self::CardWritten,
        Self::CardsWritten,
        Self::OrderShipped,
        Self::ApplianceTrouble,
        Self::PasswordReset,
        Self::AccountInvitation,
        Self::Test,
    ];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::OrderCreated => "order_created",
            Self::OrderFailed => "order_failed",
            Self::OrderCanceled => "order_canceled",
            Self::ImageReady => "image_ready",
            Self::DownloadReady => "download_ready",
            Self::CardsWanted => "cards_wanted",
            Self::WritingBegun => "writing_begun",
            Self::CardWritten => "card_written",
            Self::CardsWritten => "cards_written",
            Self::OrderShipped => "order_shipped",
            Self::ApplianceTrouble => "appliance_trouble",
            Self::PasswordReset => "password_reset",
            Self::AccountInvitation => "account_invitation",
            Self::Test => "test",
        }
    }

    /// The one of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|notice| notice.name() == name)
    }

    pub(crate) fn audience(self) -> Audience {
        match self {
            Self::OrderCreated | Self::OrderCanceled | Self::DownloadReady | Self::OrderShipped => {
                Audience::Recipient
            }
            Self::OrderFailed => Audience::RecipientAndWatch,
            Self::ImageReady => Audience::Client,
            Self::CardsWanted
            | Self::WritingBegun
            | Self::CardWritten
            | Self::CardsWritten
            | Self::ApplianceTrouble => Audience::Operators,
            Self::PasswordReset | Self::AccountInvitation | Self::Test => Audience::User,
        }
    }

    /// Whether people are told who have not said what they want.
    pub fn is_on(self) -> bool {
        !matches!(self, Self::WritingBegun | Self::CardWritten)
    }

    /// Whether people may say that they do not want it: what they asked for themselves comes in any case.
    pub fn is_optional(self) -> bool {
        self.audience() != Audience::User
    }

    /// Whether programs are told too: letters about passwords are nobody else's.
    pub fn is_public(self) -> bool {
        self.is_optional()
    }

    /// What the site's own ntfy topic is told of: what somebody has to do something about.
    pub(crate) fn is_urgent(self) -> bool {
        matches!(self, Self::OrderFailed | Self::CardsWanted | Self::CardsWritten | Self::ApplianceTrouble)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_notice_has_the_name_that_json_gives_it() {
        for notice in Notice::ALL {
            assert_eq!(serde_json::to_value(notice).unwrap(), notice.name());
            assert_eq!(Notice::of(notice.name()), Some(notice));
        }
        assert_eq!(Notice::of("order"), None);
    }
}
