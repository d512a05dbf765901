//! Addresses of an organization's book: what they hold, whether a parcel reaches them, and what an order keeps of one.

use cardshop_protocol::ids::{Channel, ObjectId};
use cardshop_protocol::time::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::country::{country, has_postal_codes};
use super::fields::{Fields, InvalidField};
use super::phone::e164;

/// Longest line, characters: what fits a label of a parcel.
const MAX_LINE: usize = 100;
/// Most lines of the street.
const MAX_STREET: usize = 3;
/// Longest postal code, characters. **Source:** Universal Postal Union S42: the longest have ten.
const MAX_POSTAL_CODE: usize = 12;
/// Fields that people give.
const CONTENT: [&str; 10] =
    ["name", "company", "street", "postal_code", "city", "region", "country", "email", "phone", "language"];

/// Who may get a parcel or a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Address {
    /// Its id.
    pub id: ObjectId,
    /// Whose it is; that of all of the channel without.
    #[serde(default)]
    pub organization: Option<ObjectId>,
    /// Whose people see it.
    pub channel: Channel,
    /// A person.
    pub name: Option<String>,
    /// Where the person works.
    pub company: Option<String>,
    /// Street and number, at most three lines.
    pub street: Vec<String>,
    /// Postal code.
    pub postal_code: Option<String>,
    /// City.
    pub city: Option<String>,
    /// Region, state or province.
    pub region: Option<String>,
    /// ISO 3166-1 alpha-2.
    pub country: Option<String>,
    /// E-mail.
    pub email: Option<String>,
    /// E.164.
    pub phone: Option<String>,
    /// Language of letters: `en` or `fr`.
    pub language: Option<String>,
    /// Login name of who made it.
    pub created_by: String,
    /// When.
    pub created: Timestamp,
}

/// An address, and whether a parcel reaches it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AddressView {
    /// The rest.
    #[serde(flatten)]
    pub address: Address,
    /// Counts its changes: an update names the one it was made from.
    pub version: u64,
    /// A parcel reaches it.
    pub shippable: bool,
    /// What a parcel needs and it lacks, by field.
    pub missing: Vec<String>,
}

impl AddressView {
    /// `address` at `version`.
    pub(crate) fn new(address: Address, version: u64) -> Self {
        let missing: Vec<String> = address.missing().into_iter().map(str::to_owned).collect();
        Self { shippable: missing.is_empty(), missing, address, version }
    }
}

impl Address {
    /// One with nothing in it.
    pub(crate) fn empty(
        id: ObjectId,
        organization: Option<ObjectId>,
        channel: Channel,
        created_by: &str,
        created: Timestamp,
    ) -> Self {
        Self {
            id,
            organization,
            channel,
            name: None,
            company: None,
            street: Vec::new(),
            postal_code: None,
            city: None,
            region: None,
            country: None,
            email: None,
            phone: None,
            language: None,
            created_by: created_by.to_owned(),
            created,
        }
    }

    /// Takes what `fields` say; what they do not name becomes empty.
    pub(crate) fn read(&mut self, fields: &mut Fields) -> Result<(), InvalidField> {
        self.name = line(fields, "name", MAX_LINE)?;
        self.company = line(fields, "company", MAX_LINE)?;
        self.street = street(fields)?;
        self.postal_code = line(fields, "postal_code", MAX_POSTAL_CODE)?;
        self.city = line(fields, "city", MAX_LINE)?;
        self.region = line(fields, "region", MAX_LINE)?;
        self.country = match line(fields, "country", MAX_LINE)? {
            None => None,
            Some(code) => {
                let found = country(&code);
                let reason = || format!("{code:?} is no country of ISO 3166: two letters, as FR");
                Some(found.ok_or_else(|| InvalidField::new("country", reason()))?.code.to_owned())
            }
        };
        self.email = line(fields, "email", MAX_LINE * 3)?;
        if let Some(email) = &self.email {
            super::fields::check_email(email)?;
        }
        self.phone = match line(fields, "phone", MAX_LINE)? {
            None => None,
            Some(text) => Some(e164(&text).map_err(|reason| InvalidField::new("phone", reason))?),
        };
        self.language = line(fields, "language", 2)?;
        if self.language.as_deref().is_some_and(|l| !["en", "fr"].contains(&l)) {
            return Err(InvalidField::new("language", "must be en or fr"));
        }
        if self.name.is_none() && self.company.is_none() {
            return Err(InvalidField::new("name", "is missing: a person or a company must be named"));
        }
        Ok(())
    }

    /// Its fields with those of `body` in their place, to be read again.
    pub(crate) fn with(&self, body: Value) -> Value {
        let Value::Object(changes) = body else { return body };
        let whole = serde_json::to_value(self).expect("an address is plain JSON");
        let mut fields: Map<String, Value> =
            CONTENT.iter().map(|name| ((*name).to_owned(), whole[*name].clone())).collect();
        fields.extend(changes);
        Value::Object(fields)
    }

    /// What a parcel needs and it lacks.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let country = self.country.as_deref();
        let coded = country.is_none_or(has_postal_codes);
        let lacks = [
            ("street", self.street.is_empty()),
            ("postal_code", self.postal_code.is_none() && coded),
            ("city", self.city.is_none()),
            ("country", country.is_none()),
        ];
        lacks.into_iter().filter_map(|(field, lacks)| lacks.then_some(field)).collect()
    }

    /// The lines between the names and the country, as a label has them.
    pub fn lines(&self) -> Vec<String> {
        let town = [self.postal_code.as_deref(), self.city.as_deref()].into_iter().flatten();
        let town = town.collect::<Vec<_>>().join(" ");
        let rest = [Some(town), self.region.clone()].into_iter().flatten().filter(|l| !l.is_empty());
        self.street.iter().cloned().chain(rest).collect()
    }

    /// What an order keeps of it.
    pub(crate) fn recipient(&self) -> Value {
        let lines = self.lines().join("\n");
        let mut recipient = Map::new();
        for (key, value) in [
            ("name", &self.name),
            ("company", &self.company),
            ("address", &Some(lines).filter(|l| !l.is_empty())),
            ("country", &self.country),
            ("email", &self.email),
            ("phone", &self.phone),
            ("language", &self.language),
        ] {
            if let Some(value) = value {
                recipient.insert(key.into(), json!(value));
            }
        }
        Value::Object(recipient)
    }
}

/// A text in one line.
fn line(fields: &mut Fields, field: &'static str, max: usize) -> Result<Option<String>, InvalidField> {
    let text = fields.text(field, max)?;
    match text {
        Some(text) if text.contains('\n') => Err(InvalidField::new(field, "must be one line")),
        text => Ok(text),
    }
}

fn street(fields: &mut Fields) -> Result<Vec<String>, InvalidField> {
    let lines = fields.optional::<Vec<String>>("street")?.unwrap_or_default();
    let lines: Vec<String> = lines.iter().map(|l| l.trim().to_owned()).filter(|l| !l.is_empty()).collect();
    let good = |line: &String| line.chars().count() <= MAX_LINE && !line.chars().any(char::is_control);
    if lines.len() > MAX_STREET || !lines.iter().all(good) {
        let reason = format!("must be at most {MAX_STREET} lines of at most {MAX_LINE} characters");
        return Err(InvalidField::new("street", reason));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(body: Value) -> Result<Address, InvalidField> {
        let at = Timestamp::from_ms(0);
        let channel = "default".parse().unwrap();
        let mut address = Address::empty(ObjectId::from_parts(1, 1), None, channel, "ada", at);
        address.read(&mut Fields::new(body).unwrap())?;
        Ok(address)
    }

    #[test]
    fn a_parcel_needs_a_street_a_city_a_country_and_a_postal_code_where_there_are_any() {
        let school = json!({"company": "École", "street": ["2 rue X"], "city": "Kita", "country": "ml"});
        let kita = address(school.clone()).unwrap();
        assert_eq!(
            (kita.missing(), kita.country.as_deref()),
            (vec![], Some("ML")),
            "Mali has no postal codes"
        );
        let france = address(kita.with(json!({"country": "FR", "street": null}))).unwrap();
        assert_eq!(france.missing(), ["street", "postal_code"]);
        assert_eq!(
            address(json!({"name": "Ada"})).unwrap().missing(),
            ["street", "postal_code", "city", "country"]
        );
    }

    #[test]
    fn an_order_keeps_a_label_and_how_to_reach_the_person() {
        let body = json!({"name": "Ada", "company": "School", "street": ["1 Road", "House B"], "postal_code": "75001",
            "city": "Paris", "country": "FR", "phone": "0033 1 42 34 56 78", "email": "a@b.org", "language": "fr"});
        assert_eq!(
            address(body).unwrap().recipient(),
            json!({"name": "Ada", "company": "School", "address": "1 Road\nHouse B\n75001 Paris", "country": "FR",
                "phone": "+33142345678", "email": "a@b.org", "language": "fr"})
        );
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        for (body, field) in [
            (json!({}), "name"),
            (json!({"name": "A", "country": "France"}), "country"),
            (json!({"name": "A", "phone": "12345"}), "phone"),
            (json!({"name": "A", "email": "nobody"}), "email"),
            (json!({"name": "A", "language": "de"}), "language"),
            (json!({"name": "A", "street": ["1", "2", "3", "4"]}), "street"),
            (json!({"name": "A", "street": "1 Road"}), "street"),
            (json!({"name": "A\nB"}), "name"),
        ] {
            assert_eq!(address(body.clone()).unwrap_err().field, field, "{body}");
        }
    }
}
