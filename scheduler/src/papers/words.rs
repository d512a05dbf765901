//! The words of papers in English and French, days, sizes. It decides nothing else.

use std::str::FromStr;

use cardshop_protocol::time::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A language of papers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Language {
    /// English.
    #[default]
    #[serde(rename = "en")]
    English,
    /// French.
    #[serde(rename = "fr")]
    French,
}

impl Language {
    /// **Source:** BCP 47.
    pub fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::French => "fr",
        }
    }

    pub(super) fn words(self) -> &'static Words {
        match self {
            Self::English => &ENGLISH,
            Self::French => &FRENCH,
        }
    }

    /// A day, by UTC.
    pub(super) fn day(self, moment: Timestamp) -> String {
        let text = moment.to_string();
        let mut parts = text[..10].split('-');
        let mut next = || parts.next().and_then(|part| part.parse::<usize>().ok()).unwrap_or(1);
        let (year, month, day) = (next(), next(), next());
        let month = self.words().months[month.clamp(1, 12) - 1];
        match (self, day) {
            (Self::French, 1) => format!("1er {month} {year}"),
            _ => format!("{day} {month} {year}"),
        }
    }

    /// Bytes as a card's label says them.
    pub(super) fn size(self, bytes: u64) -> String {
        let (mega, giga) = self.words().units;
        if bytes < 1_000_000_000 {
            return format!("{} {mega}", bytes.div_ceil(1_000_000));
        }
        let text = format!("{:.1}", bytes as f64 / 1e9);
        format!("{} {giga}", if self == Self::French { text.replace('.', ",") } else { text })
    }
}

impl FromStr for Language {
    type Err = UnknownLanguage;
    fn from_str(tag: &str) -> Result<Self, UnknownLanguage> {
        [Self::English, Self::French].into_iter().find(|l| l.tag() == tag).ok_or(UnknownLanguage)
    }
}

/// A language that papers are not written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("papers are in en and fr")]
pub struct UnknownLanguage;

/// `{n}` and `{m}` stand for numbers, `{day}`, `{code}` and `{text}` for what they say.
pub(super) struct Words {
    pub(super) slip: &'static str,
    pub(super) sender: &'static str,
    pub(super) recipient: &'static str,
    pub(super) no_recipient: &'static str,
    pub(super) order: &'static str,
    pub(super) date: &'static str,
    pub(super) placed: &'static str,
    pub(super) quantity: &'static str,
    pub(super) one_card: &'static str,
    pub(super) cards: &'static str,
    pub(super) media: &'static str,
    pub(super) image: &'static str,
    pub(super) shipments: &'static str,
    pub(super) shipment: &'static str,
    pub(super) shipment_tracked: &'static str,
    pub(super) on_the_card: &'static str,
    pub(super) more: &'static str,
    pub(super) missing: &'static str,
    pub(super) copy_of: &'static str,
    pub(super) spare: &'static str,
    pub(super) image_short: &'static str,
    pub(super) name: &'static str,
    pub(super) wifi: &'static str,
    pub(super) wifi_open: &'static str,
    pub(super) wifi_closed: &'static str,
    pub(super) language: &'static str,
    pub(super) time_zone: &'static str,
    pub(super) base: &'static str,
    pub(super) content: &'static str,
    pub(super) apps: &'static str,
    pub(super) files: &'static str,
    months: [&'static str; 12],
    /// Megabytes and gigabytes.
    units: (&'static str, &'static str),
}

const ENGLISH: Words = Words {
    slip: "Delivery slip",
    sender: "From",
    recipient: "To",
    no_recipient: "No recipient is given",
    order: "Order",
    date: "Date",
    placed: "Placed on",
    quantity: "Quantity",
    one_card: "1 card",
    cards: "{n} cards",
    media: "Card size",
    image: "Image",
    shipments: "Sent",
    shipment: "{n} on {day}",
    shipment_tracked: "{n} on {day}, tracking code {code}",
    on_the_card: "On each card",
    more: "… and {n} more",
    missing: "Some characters cannot be printed and show as \u{fffd}: {text}",
    copy_of: "copy {n} of {m}",
    spare: "spare card",
    image_short: "image {text}",
    name: "Name",
    wifi: "Wi-Fi",
    wifi_open: "open",
    wifi_closed: "with a password",
    language: "Language",
    time_zone: "Time zone",
    base: "System",
    content: "Content",
    apps: "Apps",
    files: "Files",
    months: [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ],
    units: ("MB", "GB"),
};

const FRENCH: Words = Words {
    slip: "Bordereau d’expédition",
    sender: "Expéditeur",
    recipient: "Destinataire",
    no_recipient: "Aucun destinataire n’est indiqué",
    order: "Commande",
    date: "Date",
    placed: "Passée le",
    quantity: "Quantité",
    one_card: "1 carte",
    cards: "{n} cartes",
    media: "Taille des cartes",
    image: "Image",
    shipments: "Expédié",
    shipment: "{n} le {day}",
    shipment_tracked: "{n} le {day}, numéro de suivi {code}",
    on_the_card: "Sur chaque carte",
    more: "… et {n} de plus",
    missing: "Des caractères ne peuvent pas être imprimés et apparaissent comme \u{fffd}\u{a0}: {text}",
    copy_of: "copie {n} sur {m}",
    spare: "carte de réserve",
    image_short: "image {text}",
    name: "Nom",
    wifi: "Wi-Fi",
    wifi_open: "ouvert",
    wifi_closed: "avec mot de passe",
    language: "Langue",
    time_zone: "Fuseau horaire",
    base: "Système",
    content: "Contenus",
    apps: "Applications",
    files: "Fichiers",
    months: [
        "janvier",
        "février",
        "mars",
        "avril",
        "mai",
        "juin",
        "juillet",
        "août",
        "septembre",
        "octobre",
        "novembre",
        "décembre",
    ],
    units: ("Mo", "Go"),
};

/// Puts values in the place of their names, each name once: what comes in is not looked at again.
pub(super) fn fill(text: &str, values: &[(&str, &dyn std::fmt::Display)]) -> String {
    let (mut filled, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('{') {
        filled.push_str(&rest[..at]);
        rest = &rest[at..];
        match values.iter().find(|(name, _)| rest[1..].strip_prefix(name).is_some_and(|r| r.starts_with('}')))
        {
            Some((name, value)) => {
                filled.push_str(&value.to_string());
                rest = &rest[name.len() + 2..];
            }
            None => {
                filled.push('{');
                rest = &rest[1..];
            }
        }
    }
    filled + rest
}

impl Words {
    /// So many cards.
    pub(super) fn count(&self, cards: u32) -> String {
        if cards == 1 { self.one_card.to_owned() } else { fill(self.cards, &[("n", &cards)]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_sizes_and_counts_are_written_as_each_language_writes_them() {
        let day = |text: &str, language: Language| language.day(text.parse().unwrap());
        assert_eq!(day("2026-11-28T23:59:59Z", Language::English), "28 November 2026");
        assert_eq!(day("2026-08-01T00:00:00Z", Language::French), "1er août 2026");
        assert_eq!(Language::French.size(15_500_000_000), "15,5 Go");
        assert_eq!(
            (Language::English.size(15_500_000_000), Language::English.size(1)),
            ("15.5 GB".into(), "1 MB".into())
        );
        assert_eq!((FRENCH.count(1), ENGLISH.count(12)), ("1 carte".into(), "12 cards".into()));
        assert_eq!("de".parse::<Language>(), Err(UnknownLanguage));
        assert_eq!(fill("{n} {code} {x", &[("n", &"{code}"), ("code", &2)]), "{code} 2 {x");
    }
}
