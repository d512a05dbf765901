//! How a visitor reads: the language and the time zone, from what they chose or what their browser says; and times,
//! sizes and rates as they are written there. Sizes are decimal, as on a card's label.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use cardshop_protocol::time::Timestamp;
use jiff::tz::TimeZone;

use crate::session::cookie;
use crate::words::{Language, Words};

/// Cookies of the preferences.
pub(crate) const LANGUAGE_COOKIE: &str = "cardshop_language";
pub(crate) const ZONE_COOKIE: &str = "cardshop_zone";

/// A visitor's language and time zone.
#[derive(Clone)]
pub(crate) struct Locale {
    pub(crate) words: &'static Words,
    pub(crate) zone: TimeZone,
}

impl<S: Sync> FromRequestParts<S> for Locale {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

/// The time zone of this name.
pub(crate) fn zone(name: &str) -> Option<TimeZone> {
    TimeZone::get(name).ok()
}

/// The first language of ours that a browser asks for. **Source:** RFC 9110 §12.5.4; its order is the preference in
/// what browsers send, so that weights are not read.
fn asked_for(accept: &str) -> Option<Language> {
    accept.split(',').find_map(|range| {
        let tag = range.split(';').next()?.trim();
        Language::from_tag(&tag.split('-').next()?.to_ascii_lowercase())
    })
}

impl Locale {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let accept = headers.get(header::ACCEPT_LANGUAGE).and_then(|v| v.to_str().ok());
        let language = cookie(headers, LANGUAGE_COOKIE)
            .and_then(Language::from_tag)
            .or_else(|| asked_for(accept?))
            .unwrap_or(Language::English);
        let zone = cookie(headers, ZONE_COOKIE).and_then(zone);
        Self { words: language.words(), zone: zone.unwrap_or_else(TimeZone::system) }
    }

    fn at(&self, moment: Timestamp) -> jiff::Zoned {
        let ms = i64::try_from(moment.as_ms()).unwrap_or(0);
        jiff::Timestamp::from_millisecond(ms).unwrap_or_default().to_zoned(self.zone.clone())
    }

    /// A day and a time to the minute.
    pub(crate) fn moment(&self, moment: &Timestamp) -> String {
        let at = self.at(*moment);
        match self.words.language {
            Language::English => at.strftime("%-d %b %Y, %H:%M").to_string(),
            Language::French => at.strftime("%d/%m/%Y %H:%M").to_string(),
        }
    }

    /// As [`Locale::moment`], or a dash.
    pub(crate) fn moment_or_dash(&self, moment: &Option<Timestamp>) -> String {
        moment.as_ref().map_or_else(|| "–".into(), |m| self.moment(m))
    }

    /// The last day before a moment that ends a day, as a field for dates wants it. **Source:** HTML, "valid date string".
    pub(crate) fn day(&self, moment: Timestamp) -> String {
        let before = Timestamp::from_ms(moment.as_ms().saturating_sub(1));
        self.at(before).strftime("%Y-%m-%d").to_string()
    }

    /// The time on a wall clock.
    pub(crate) fn clock(&self, moment: Timestamp) -> String {
        self.at(moment).strftime("%H:%M").to_string()
    }

    /// One decimal.
    fn decimal(&self, value: f64) -> String {
        let text = format!("{value:.1}");
        match self.words.language {
            Language::English => text,
            Language::French => text.replace('.', ","),
        }
    }

    fn unit(&self, english: &'static str, french: &'static str) -> &'static str {
        if self.words.language == Language::French { french } else { english }
    }

    /// Bytes as a card's label says them.
    pub(crate) fn size(&self, bytes: &u64) -> String {
        if *bytes < 1_000_000_000 {
            format!("{} {}", bytes.div_ceil(1_000_000), self.unit("MB", "Mo"))
        } else {
            format!("{} {}", self.decimal(*bytes as f64 / 1e9), self.unit("GB", "Go"))
        }
    }

    /// Bytes a second.
    pub(crate) fn rate(&self, bps: &u64) -> String {
        format!("{} {}", self.decimal(*bps as f64 / 1e6), self.unit("MB/s", "Mo/s"))
    }

    /// A share of one, in percent.
    pub(crate) fn percent(&self, share: &f64) -> String {
        format!("{} %", self.decimal(share * 100.0))
    }

    /// Hours and minutes, or days and hours.
    pub(crate) fn duration(&self, seconds: &u64) -> String {
        let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
        match (days, hours) {
            (0, 0) => format!("{minutes} min"),
            (0, _) => format!("{hours} h {minutes:02} min"),
            _ => format!("{days} {} {hours} h", self.unit("d", "j")),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn locale(pairs: &[(header::HeaderName, &'static str)]) -> Locale {
        Locale::of(
            &pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect(),
        )
    }

    #[test]
    fn the_chosen_language_comes_before_the_browsers_and_english_last() {
        let language = |pairs: &[_]| locale(pairs).words.language;
        assert_eq!(language(&[]), Language::English);
        assert_eq!(language(&[(header::ACCEPT_LANGUAGE, "de-CH, fr-FR;q=0.8, en;q=0.7")]), Language::French);
        let chosen = (header::COOKIE, "cardshop_language=en");
        assert_eq!(language(&[(header::ACCEPT_LANGUAGE, "fr"), chosen]), Language::English);
        assert_eq!(language(&[(header::COOKIE, "cardshop_language=xx")]), Language::English);
    }

    #[test]
    fn times_sizes_and_rates_are_written_as_the_visitor_reads_them() {
        let moment: Timestamp = "2026-11-25T13:02:20Z".parse().unwrap();
        let english = Locale { words: Language::English.words(), zone: TimeZone::UTC };
        let cookies = "cardshop_language=fr; cardshop_zone=Europe/Paris";
        let french = locale(&[(header::COOKIE, cookies)]);
        assert_eq!(english.moment(&moment), "25 Nov 2026, 13:02");
        assert_eq!(
            (english.size(&15_500_000_000), english.size(&1_000_001)),
            ("15.5 GB".into(), "2 MB".into())
        );
        assert_eq!(french.size(&15_500_000_000), "15,5 Go");
        assert_eq!(french.rate(&21_400_000), "21,4 Mo/s");
        assert_eq!(english.duration(&(26 * 3600)), "1 d 2 h");
        if zone("Europe/Paris").is_some() {
            assert_eq!(
                (french.moment(&moment), french.clock(moment)),
                ("25/11/2026 14:02".into(), "14:02".into())
            );
        } else {
            println!("SKIPPED: time zones by name: this system has no time zone database (package tzdata)");
        }
    }
}
