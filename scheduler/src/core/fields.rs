//! Reads the fields of a JSON object that somebody sent, one by one, so that an error names the field.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// A field that is missing or not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field {field}: {reason}")]
pub struct InvalidField {
    /// Its name.
    pub field: &'static str,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl InvalidField {
    /// A field that is wrong for a reason of its own.
    pub fn new(field: &'static str, reason: impl Into<String>) -> Self {
        Self { field, reason: reason.into() }
    }
}

/// Longest e-mail address. **Source:** RFC 5321 §4.5.3.1.3.
pub(crate) const MAX_EMAIL: usize = 254;

/// Refuses what is no e-mail address, as far as a text can tell: a letter to it tells the rest.
pub(crate) fn check_email(email: &str) -> Result<(), InvalidField> {
    let parts = email.rsplit_once('@').filter(|(who, host)| !who.is_empty() && host.contains('.'));
    let good = |c: char| !c.is_whitespace() && !c.is_control() && !"<>,;\"".contains(c);
    if parts.is_none() || email.len() > MAX_EMAIL || !email.chars().all(good) {
        return Err(InvalidField::new("email", "must be one address, as ada@example.org"));
    }
    Ok(())
}

/// The fields of an object.
#[derive(Debug)]
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    /// Of a JSON value; anything but an object has no fields.
    pub(crate) fn new(value: Value) -> Option<Self> {
        match value {
            Value::Object(map) => Some(Self(map)),
            _ => None,
        }
    }

    /// The field, if it is there and not null.
    pub(crate) fn optional<T: DeserializeOwned>(
        &mut self,
        field: &'static str,
    ) -> Result<Option<T>, InvalidField> {
        match self.0.remove(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                serde_json::from_value(value).map(Some).map_err(|e| InvalidField::new(field, e.to_string()))
            }
        }
    }

    /// True when the field is there, even as null.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.0.contains_key(field)
    }

    /// What a change says of a field: nothing when it is left out, `Some(None)` when it is null.
    pub(crate) fn changed<T: DeserializeOwned>(
        &mut self,
        field: &'static str,
    ) -> Result<Option<Option<T>>, InvalidField> {
        if self.has(field) { self.optional(field).map(Some) } else { Ok(None) }
    }

    /// The field, which must be there.
    pub(crate) fn required<T: DeserializeOwned>(&mut self, field: &'static str) -> Result<T, InvalidField> {
        self.optional(field)?.ok_or_else(|| InvalidField::new(field, "is missing"))
    }

    /// The name of a field that nobody has read.
    pub(crate) fn unread(&self) -> Option<&str> {
        self.0.keys().next().map(String::as_str)
    }

    /// A text of at most `max` characters without control characters, trimmed.
    pub(crate) fn text(&mut self, field: &'static str, max: usize) -> Result<Option<String>, InvalidField> {
        let Some(text) = self.optional::<String>(field)? else { return Ok(None) };
        let text = text.trim();
        if text.chars().count() > max {
            return Err(InvalidField::new(field, format!("has more than {max} characters")));
        }
        if text.chars().any(|c| c.is_control() && c != '\n') {
            return Err(InvalidField::new(field, "has control characters"));
        }
        Ok((!text.is_empty()).then(|| text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_names_the_field() {
        let mut fields = Fields::new(json!({"quantity": "many", "name": "a\u{0}b", "long": "xxxx"})).unwrap();
        assert_eq!(fields.required::<u32>("quantity").unwrap_err().field, "quantity");
        assert_eq!(fields.required::<u32>("media").unwrap_err().to_string(), "field media: is missing");
        assert!(fields.text("name", 10).unwrap_err().reason.contains("control"));
        assert!(fields.text("long", 3).is_err());
        assert!(Fields::new(json!([1])).is_none());
    }
}
