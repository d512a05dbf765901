//! What a person said about messages: language, time zone, and which they want.

use std::collections::BTreeMap;

use cardshop_protocol::ids::ObjectId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::event::Notice;

/// As they are kept, by user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Preferences {
    #[serde(default)]
    pub(crate) user: Option<ObjectId>,
    #[serde(default)]
    pub(crate) language: Option<String>,
    #[serde(default)]
    pub(crate) time_zone: Option<String>,
    /// Only what differs from what is usual, or did when it was said.
    #[serde(default)]
    pub(crate) events: BTreeMap<Notice, bool>,
}

impl Preferences {
    pub(crate) fn wants(&self, notice: Notice) -> bool {
        !notice.is_optional() || self.events.get(&notice).copied().unwrap_or_else(|| notice.is_on())
    }

    /// What is off unless somebody wants it, and this person does: the store finds them by it.
    pub(crate) fn extra(&self) -> impl Iterator<Item = Notice> {
        self.events.iter().filter(|(notice, on)| **on && !notice.is_on()).map(|(notice, _)| *notice)
    }
}

/// As people see them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PreferencesView {
    /// Language of letters, `en` or `fr`; that of the organization when it is null.
    pub language: Option<String>,
    /// Time zone of dates, `Europe/Paris`; the server's when it is null.
    pub time_zone: Option<String>,
    /// Whether each message comes, by its name.
    pub events: BTreeMap<String, bool>,
}

impl From<&Preferences> for PreferencesView {
    fn from(kept: &Preferences) -> Self {
        let optional = Notice::ALL.into_iter().filter(|notice| notice.is_optional());
        Self {
            language: kept.language.clone(),
            time_zone: kept.time_zone.clone(),
            events: optional.map(|notice| (notice.name().to_owned(), kept.wants(notice))).collect(),
        }
    }
}
