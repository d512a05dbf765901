//! Countries by their codes, with names in the languages of the pages. Answers what a code is called.
//!
//! **Source:** ISO 3166-1 alpha-2 as IANA's time zone database lists it (`iso3166.tab`), names from Unicode CLDR.

const TABLE: &str = include_str!("countries.txt");

/// A country.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Country {
    /// Two capital letters.
    pub code: &'static str,
    english: &'static str,
    french: &'static str,
}

impl Country {
    /// Its name in the language of this tag; in English for one that is not there.
    pub fn name(&self, language: &str) -> &'static str {
        if language == "fr" { self.french } else { self.english }
    }
}

/// All of them, by code.
pub fn countries() -> impl Iterator<Item = Country> {
    TABLE.lines().filter_map(|line| {
        let mut parts = line.split('|');
        Some(Country { code: parts.next()?, english: parts.next()?, french: parts.next()? })
    })
}

/// The one with this code, in whatever case it is written.
pub fn country(code: &str) -> Option<Country> {
    countries().find(|country| country.code.eq_ignore_ascii_case(code))
}

/// Countries that have no postal codes. **Source:** Universal Postal Union, list of countries without a postcode system.
const WITHOUT_POSTAL_CODES: &str = "AE AG AO AW BF BI BJ BO BQ BS BW BZ CD CF CG CI CK CM CW DJ DM ER FJ GA GD GH GM GQ \
    GY HK KI KM KN KP LC LY ML MO MR MW NR NU PA QA RW SB SC SL SR SS ST SX SY TD TF TG TK TL TO TV UG VU WS YE ZW";

/// Whether a parcel to this country needs a postal code.
pub(crate) fn has_postal_codes(code: &str) -> bool {
    !WITHOUT_POSTAL_CODES.split_whitespace().any(|without| without == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_country_has_a_code_of_two_letters_and_two_names() {
        let all: Vec<_> = countries().collect();
        assert_eq!(all.len(), 249);
        for c in &all {
            assert!(c.code.len() == 2 && c.code.bytes().all(|b| b.is_ascii_uppercase()), "{c:?}");
            assert!(!c.english.is_empty() && !c.french.is_empty(), "{c:?}");
        }
        assert_eq!(country("ml").map(|c| (c.code, c.name("fr"))), Some(("ML", "Mali")));
        assert_eq!(country("CH").map(|c| c.name("fr")), Some("Suisse"));
        assert_eq!(country("XX"), None);
        assert!(WITHOUT_POSTAL_CODES.split_whitespace().all(|code| country(code).is_some()));
    }
}
