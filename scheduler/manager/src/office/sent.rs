//! What a form of the back office sends: names and values, some more than once.

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, FromRequest, Request};
use cardshop_protocol::time::Timestamp;
use cardshop_scheduler::core::rights::Principal;
use cardshop_scheduler::{InvalidField, Once, SchedulerError};
use jiff::civil::Date;
use serde_json::{Value, json};

use crate::locale::Locale;

/// Most fields of a form: a list of 500 with a box for each, and its own fields.
const MAX_FIELDS: usize = 1000;

/// The fields of a form, or of a query.
#[derive(Default)]
pub(crate) struct Sent(Vec<(String, String)>);

impl<S: Send + Sync> FromRequest<S> for Sent {
    type Rejection = FormRejection;

    /// Of a GET the query.
    async fn from_request(request: Request, state: &S) -> Result<Self, FormRejection> {
        let Form(mut fields) = Form::<Vec<(String, String)>>::from_request(request, state).await?;
        fields.truncate(MAX_FIELDS);
        Ok(Self(fields))
    }
}

/// Names that a form may repeat when it is asked whether it is meant.
const KEPT: [&str; 2] = ["chosen", "revoke"];

impl Sent {
    /// A field's text, trimmed; empty when it was not sent.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value.trim())
    }

    /// As it was typed: a password may begin with a space.
    pub(crate) fn raw(&self, name: &str) -> String {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone()).unwrap_or_default()
    }

    /// What was typed, or what stands there before anything is.
    pub(crate) fn or(&self, name: &str, before: impl Into<String>) -> String {
        if self.0.iter().any(|(n, _)| n == name) { self.text(name).to_owned() } else { before.into() }
    }

    /// A box that is checked.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.text(name) == "yes"
    }

    /// A box as it was sent, or as it is when nothing was.
    pub(crate) fn is_on_or(&self, name: &str, before: bool) -> bool {
        if self.0.is_empty() { before } else { self.is_on(name) }
    }

    /// All values of a name.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        let values = self.0.iter().filter(|(n, value)| n == name && !value.is_empty());
        values.map(|(_, value)| value.clone()).collect()
    }

    pub(crate) fn all_or(&self, name: &str, before: &[String]) -> Vec<String> {
        if self.0.is_empty() { before.to_vec() } else { self.all(name) }
    }

    /// The button that was pressed.
    pub(crate) fn what(&self) -> &str {
        self.text("do")
    }

    /// It was asked whether it is meant.
    pub(crate) fn is_sure(&self) -> bool {
        self.is_on("sure")
    }

    pub(crate) fn kept(&self) -> impl Iterator<Item = (&'static str, String)> {
        KEPT.into_iter().flat_map(|name| self.all(name).into_iter().map(move |value| (name, value)))
    }

    /// What names this request, when the form names itself.
    ///
    /// # Errors
    /// `Conflict` for a key that is too long.
    pub(crate) fn once(
        &self,
        caller: &Principal,
        route: &str,
        body: &Value,
    ) -> Result<Option<Once>, SchedulerError> {
        match self.text("key") {
            "" => Ok(None),
            key => Once::new(caller, route, key, body.to_string().as_bytes()).map(Some),
        }
    }

    /// A text for the API; null when it is empty.
    pub(crate) fn json(&self, name: &str) -> Value {
        match self.text(name) {
            "" => Value::Null,
            text => json!(text),
        }
    }

    /// A whole number, or nothing.
    pub(crate) fn number(&self, name: &'static str, locale: &Locale) -> Result<Option<i64>, SchedulerError> {
        match self.text(name) {
            "" => Ok(None),
            text => {
                let wrong = || InvalidField::new(name, locale.words.not_a_number);
                Ok(Some(text.parse().map_err(|_| wrong())?))
            }
        }
    }

    /// The beginning of a day where the visitor is, or of the day after it; nothing when none is given.
    pub(crate) fn day(
        &self,
        name: &'static str,
        locale: &Locale,
        after: bool,
    ) -> Result<Option<Timestamp>, SchedulerError> {
        let text = self.text(name);
        if text.is_empty() {
            return Ok(None);
        }
        let read = || {
            let day: Date = text.parse().ok()?;
            let day = if after { day.tomorrow().ok()? } else { day };
            let ms = day.to_zoned(locale.zone.clone()).ok()?.timestamp().as_millisecond();
            Some(Timestamp::from_ms(u64::try_from(ms).ok()?))
        };
        let wrong = || InvalidField::new(name, locale.words.language.back().not_a_day);
        Ok(Some(read().ok_or_else(wrong)?))
    }

    /// As the query of an address.
    pub(crate) fn query(&self, names: &[&str]) -> String {
        let pairs: Vec<String> = self
            .0
            .iter()
            .filter(|(name, value)| names.contains(&name.as_str()) && !value.is_empty())
            .map(|(name, value)| format!("{name}={}", encode(value)))
            .collect();
        pairs.join("&")
    }
}

/// A value in a query. **Source:** RFC 3986 §2.3.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;

    use super::*;
    use crate::locale::Locale;

    fn sent(pairs: &[(&str, &str)]) -> Sent {
        Sent(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn a_day_is_a_day_where_the_visitor_is_and_anything_else_is_told() {
        let locale = Locale { zone: jiff::tz::TimeZone::UTC, ..Locale::of(&HeaderMap::new()) };
        let day = |text: &str, after| sent(&[("from", text)]).day("from", &locale, after);
        assert_eq!(day("2026-11-25", false).unwrap(), Some("2026-11-25T00:00:00Z".parse().unwrap()));
        assert_eq!(day("2026-11-25", true).unwrap(), Some("2026-11-26T00:00:00Z".parse().unwrap()));
        assert_eq!(day("", false).unwrap(), None);
        for wrong in ["yesterday", "2026-02-30", "1969-01-01"] {
            assert!(day(wrong, false).unwrap_err().to_string().starts_with("field from: "), "{wrong}");
        }
    }

    #[test]
    fn a_query_keeps_what_is_asked_for_and_nothing_that_could_be_more() {
        let form =
            sent(&[("who", "a&b=c é"), ("cursor", "x"), ("action", ""), ("chosen", "1"), ("chosen", "2")]);
        assert_eq!(form.query(&["who", "action"]), "who=a%26b%3Dc%20%C3%A9");
        assert_eq!(form.all("chosen"), ["1", "2"]);
        assert_eq!(form.or("who", "before"), "a&b=c é");
        assert_eq!(form.or("none", "before"), "before");
    }
}
