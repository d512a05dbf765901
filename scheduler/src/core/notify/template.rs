//! Letters from templates: what a template may use, whether one is right, and what it gives. A template of staff is checked
//! when it is saved, against a full and a bare example, so that none breaks when a letter has to go out.
//! **Source:** the template language is that of Jinja, as minijinja has it; without files, macros and inclusion.

use std::collections::BTreeSet;

use cardshop_protocol::ids::ObjectId;
use cardshop_protocol::time::Timestamp;
use jiff::tz::TimeZone;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, filters};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::event::Notice;
use super::layout;
use super::texts::{Texts, known, texts};

/// Longest subject, characters: more is cut off by most readers of mail anyway.
const MAX_SUBJECT: usize = 250;
/// Longest template of a body, bytes.
pub(crate) const MAX_BODY: usize = 20_000;
/// Longest text that a template may give, bytes.
const MAX_TEXT: usize = 64 * 1024;
/// Steps of one rendering: the longest letter of ours takes about 200.
const FUEL: u64 = 50_000;
/// How deep a template may be nested.
const MAX_DEPTH: usize = 50;

/// Values that are moments, and that are sizes, wherever they stand.
const MOMENTS: [&str; 3] = ["until", "when", "since"];
const SIZES: [&str; 1] = ["size"];

/// A template of staff, in the place of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Override {
    pub(crate) notice: Notice,
    pub(crate) language: String,
    pub(crate) subject: String,
    pub(crate) body: String,
    pub(crate) by: String,
    pub(crate) at: Timestamp,
}

/// A template, as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TemplateView {
    /// `order_created.en`.
    pub id: String,
    /// Of which message.
    pub event: Notice,
    /// In which language.
    pub language: String,
    /// Template of the subject.
    pub subject: String,
    /// Template of the body.
    pub body: String,
    /// It is not the one that comes with the program.
    pub changed: bool,
    /// Who changed it.
    pub changed_by: Option<String>,
    /// When.
    pub changed_at: Option<Timestamp>,
    /// What it may use.
    pub variables: Vec<String>,
}

/// A letter as it would be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Preview {
    /// Its subject.
    pub subject: String,
    /// Its text.
    pub text: String,
    /// The same as HTML.
    pub html: String,
}

/// How somebody reads.
#[derive(Clone)]
pub(crate) struct Reader {
    pub(crate) texts: &'static Texts,
    pub(crate) zone: TimeZone,
}

impl Reader {
    pub(crate) fn new(language: Option<&str>, zone: TimeZone) -> Self {
        Self { texts: texts(language), zone }
    }

    fn moment(&self, text: &str) -> Option<String> {
        let moment: Timestamp = text.parse().ok()?;
        let ms = i64::try_from(moment.as_ms()).ok()?;
        let at = jiff::Timestamp::from_millisecond(ms).ok()?.to_zoned(self.zone.clone());
        Some(at.strftime(self.texts.moment).to_string())
    }

    fn size(&self, bytes: u64) -> String {
        let (mega, giga) = self.texts.units;
        if bytes < 1_000_000_000 {
            return format!("{} {mega}", bytes.div_ceil(1_000_000));
        }
        let tenths = bytes.div_ceil(100_000_000);
        format!("{}{}{} {giga}", tenths / 10, self.texts.decimal, tenths % 10)
    }

    /// Moments and sizes as this reader writes them.
    fn localise(&self, values: &mut Value) {
        match values {
            Value::Array(items) => items.iter_mut().for_each(|item| self.localise(item)),
            Value::Object(map) => {
                for (key, value) in map {
                    let key = key.as_str();
                    let written = match value {
                        Value::String(text) if MOMENTS.contains(&key) => self.moment(text),
                        Value::Number(bytes) if SIZES.contains(&key) => bytes.as_u64().map(|b| self.size(b)),
                        _ => None,
                    };
                    match written {
                        Some(text) => *value = Value::String(text),
                        None => self.localise(value),
                    }
                }
            }
            _ => {}
        }
    }
}

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct Fault {
    /// `subject` or `body`.
    pub(crate) field: &'static str,
    pub(crate) reason: String,
}

/// A letter of these templates and values, for this reader.
///
/// # Errors
/// [`Fault`] when a template is wrong for these values.
pub(crate) fn letter(
    subject: &str,
    body: &str,
    mut values: Value,
    reader: &Reader,
) -> Result<Preview, Fault> {
    reader.localise(&mut values);
    let (engine, values) = (engine(), minijinja::Value::from(minijinja::value::Serde(&values)));
    let give = |field, template: &str| {
        let text = engine.render_str(template, values.clone()).map_err(|error| fault(field, &error))?;
        if text.len() > MAX_TEXT {
            return Err(Fault { field, reason: format!("gives more than {MAX_TEXT} bytes") });
        }
        Ok(text)
    };
    let subject: String = give("subject", subject)?.split_whitespace().collect::<Vec<_>>().join(" ");
    let subject: String = subject.chars().filter(|c| !c.is_control()).take(MAX_SUBJECT).collect();
    let body = give("body", body)?.trim().to_owned();
    let footer = give("body", reader.texts.footer)?;
    let html = layout::html(reader.texts.language, &subject, &body, &footer);
    Ok(Preview { subject, text: format!("{body}\n\n-- \n{footer}\n"), html })
}

/// Whether a template is right for every letter of `notice`.
///
/// # Errors
/// [`Fault`] saying what is wrong, and where.
pub(crate) fn check(notice: Notice, language: &str, subject: &str, body: &str) -> Result<(), Fault> {
    for (field, text, max) in [("subject", subject, MAX_SUBJECT), ("body", body, MAX_BODY)] {
        if text.trim().is_empty() {
            return Err(Fault { field, reason: "is empty".into() });
        }
        if text.len() > max {
            return Err(Fault { field, reason: format!("has more than {max} bytes") });
        }
        if text.contains('*') {
            let reason = "has a *: templates of letters do not multiply, and their lists begin with -";
            return Err(Fault { field, reason: reason.into() });
        }
        let engine = engine();
        let template = engine.template_from_str(text).map_err(|error| fault(field, &error))?;
        let known = variables(notice);
        let mut unknown: Vec<_> = template.undeclared_variables(false).into_iter().collect();
        unknown.retain(|name| !known.contains(name));
        unknown.sort();
        if !unknown.is_empty() {
            let known: Vec<_> = known.into_iter().collect();
            let reason = format!("there is no {}: it may use {}", unknown.join(", "), known.join(", "));
            return Err(Fault { field, reason });
        }
    }
    let reader = Reader::new(Some(language), TimeZone::UTC);
    for values in [example(notice), bare(notice)] {
        let letter = letter(subject, body, values, &reader)?;
        if letter.subject.is_empty() {
            return Err(Fault { field: "subject", reason: "gives an empty subject".into() });
        }
    }
    Ok(())
}

/// What a template of `notice` may use.
pub(crate) fn variables(notice: Notice) -> BTreeSet<String> {
    example(notice).as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
}

/// Only what letters need: some filters of minijinja make much out of little, and lists that are only written when they are
/// shown are not in its account of fuel: `[name] * 9999999` took minutes, so that `check` refuses to multiply.
fn engine() -> Environment<'static> {
    let mut engine = Environment::empty();
    engine.set_undefined_behavior(UndefinedBehavior::Strict);
    // Letters are plain text; `layout` escapes all of it.
    engine.set_auto_escape_callback(|_| AutoEscape::None);
    engine.add_filter("upper", filters::upper);
    engine.add_filter("lower", filters::lower);
    engine.add_filter("capitalize", filters::capitalize);
    engine.add_filter("trim", filters::trim);
    engine.add_filter("replace", filters::replace);
    engine.add_filter("join", filters::join);
    engine.add_filter("length", filters::length);
    engine.add_filter("first", filters::first);
    engine.add_filter("last", filters::last);
    engine.add_filter("list", filters::list);
    engine.set_fuel(Some(FUEL));
    engine.set_recursion_limit(MAX_DEPTH);
    engine
}

fn fault(field: &'static str, error: &minijinja::Error) -> Fault {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let line = error.line().map(|line| format!(" in line {line}")).unwrap_or_default();
    Fault { field, reason: format!("{what}{line}") }
}

/// What every letter has besides what its notice says.
pub(crate) struct Frame {
    /// Who sends it.
    pub(crate) shop: String,
    /// Where questions go; may be empty.
    pub(crate) support: String,
    /// Address of the site.
    pub(crate) site: String,
    /// Address of the order's page, for those who have an account; may be empty.
    pub(crate) page: String,
    /// How the reader is called; may be empty.
    pub(crate) greeted: String,
}

/// The values of a letter: what its notice says, and its frame.
pub(crate) fn framed(values: &Value, frame: Frame) -> Value {
    let mut all = values.as_object().cloned().unwrap_or_default();
    let bench = format!("{}/bench", frame.site);
    let own = [
        ("shop", frame.shop),
        ("support", frame.support),
        ("bench", bench),
        ("site", frame.site),
        ("page", frame.page),
        ("greeted", frame.greeted),
    ];
    all.extend(own.into_iter().map(|(name, value)| (name.to_owned(), Value::String(value))));
    Value::Object(all)
}

/// A full example of what a letter says.
pub(crate) fn example(notice: Notice) -> Value {
    let frame = Frame {
        shop: "The Card Shop".into(),
        support: "help@example.org".into(),
        site: "https://shop.example.org".into(),
        page: "https://shop.example.org/orders/01jd0000000000000000000000".into(),
        greeted: "Ada Lovelace".into(),
    };
    let when = "2026-11-25T13:02:20Z";
    let mut values = json!({});
    if is_of_order(notice) {
        values = json!({
            "order": ObjectId::from_parts(1_790_000_000_000, 1),
            "name": "School library",
            "quantity": 12,
            "recipient": "Ada Lovelace",
        });
    }
    let own = match notice {
        Notice::OrderCreated => json!({"kind": "physical", "media": "32 GB"}),
        Notice::OrderFailed => json!({"reason": "the content wikipedia_en is not there any more"}),
        Notice::OrderCanceled => json!({"when": when}),
        Notice::ImageReady => json!({"size": 15_500_000_000_u64, "media": "32 GB"}),
        Notice::DownloadReady => json!({
            "links": ["https://shop.example.org/p/token/School.img"],
            "until": when,
            "size": 15_500_000_000_u64,
        }),
        Notice::CardsWanted => json!({"count": 7, "size": 15_500_000_000_u64, "media": "32 GB"}),
        Notice::WritingBegun => json!({}),
        Notice::CardWritten => json!({"count": 3}),
        Notice::CardsWritten => json!({"address": ["Ada Lovelace", "12 St James’s Square", "London"]}),
        Notice::OrderShipped => json!({"count": 12, "tracking": "RB123456785GB", "left": 2, "when": when}),
        Notice::ApplianceTrouble => {
            let line = |text: &str, count: u32| json!({"text": text, "count": count, "since": when});
            json!({"label": "Bench one", "lines": [line("Reader 2 is gone", 1), line("Slot 3 fails", 4)]})
        }
        Notice::PasswordReset | Notice::AccountInvitation => json!({
            "username": "ada",
            "link": "https://shop.example.org/password#token",
            "until": when,
        }),
        Notice::Test => json!({"when": when}),
    };
    values.as_object_mut().expect("an object").extend(own.as_object().cloned().unwrap_or_default());
    framed(&values, frame)
}

fn is_of_order(notice: Notice) -> bool {
    notice.is_optional() && notice != Notice::ApplianceTrouble
}

/// The same with everything empty that may be: texts, lists and rests.
fn bare(notice: Notice) -> Value {
    const MAY_BE_EMPTY: [&str; 8] =
        ["recipient", "reason", "media", "tracking", "support", "page", "greeted", "address"];
    let mut values: Map<String, Value> = example(notice).as_object().cloned().unwrap_or_default();
    for (name, value) in &mut values {
        match (name.as_str(), &mut *value) {
            ("count" | "quantity", _) => *value = json!(1),
            ("left", _) => *value = json!(0),
            ("kind", _) => *value = json!("virtual"),
            (name, Value::Array(items)) if MAY_BE_EMPTY.contains(&name) => items.clear(),
            (name, Value::String(text)) if MAY_BE_EMPTY.contains(&name) => text.clear(),
            _ => {}
        }
    }
    Value::Object(values)
}

/// Reads a language's tag; only those that have texts.
pub(crate) fn language(tag: &str) -> Option<&'static str> {
    known(tag).map(|texts| texts.language)
}

#[cfg(test)]
mod tests {
    use proptest::strategy::Strategy;

    use super::super::texts::ALL;
    use super::*;

    #[test]
    fn every_letter_of_every_language_is_right_by_the_rules_for_those_of_staff() {
        for texts in ALL {
            for notice in Notice::ALL {
                let text = texts.of(notice);
                check(notice, texts.language, text.subject, text.body)
                    .unwrap_or_else(|fault| panic!("{} {notice:?} {}: {fault}", texts.language, fault.field));
                let reader = Reader::new(Some(texts.language), TimeZone::UTC);
                let full = letter(text.subject, text.body, example(notice), &reader).unwrap();
                for letter in [&full, &letter(text.subject, text.body, bare(notice), &reader).unwrap()] {
                    let said = format!("{} {}", letter.subject, letter.text);
                    assert!(
                        !said.contains("  ") && !said.contains("\n\n\n") && !said.contains("{{"),
                        "{said}"
                    );
                    assert!(!said.contains("undefined") && !said.contains("none"), "{said}");
                }
            }
        }
    }

    #[test]
    fn a_wrong_template_is_refused_with_the_place_and_the_way_out() {
        let wrong = |body: &str| check(Notice::OrderCreated, "en", "Hello", body).unwrap_err().reason;
        for (body, says) in [
            ("{{ name", "in line 1"),
            ("{% if name %}x", "in line 1"),
            ("one\n{{ colour }}", "there is no colour: it may use bench, greeted, kind"),
            ("{{ name.first }}", "in line 1"),
            ("{{ tracking }}", "there is no tracking"),
            ("{% for i in range(1000000) %}x{% endfor %}", "there is no range"),
            ("{% include 'x' %}", "in line 1"),
            ("{{ name|shout }}", "in line 1"),
            ("{{ [name] * 9999999 }}", "do not multiply"),
            (
                "{% for a in name|list %}{% for b in name|list %}{% for c in name|list %}{% for d in name|list %}{% for e in name|list %}x{% endfor %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}",
                "fuel",
            ),
            ("  ", "is empty"),
        ] {
            let reason = wrong(body);
            assert!(reason.contains(says), "{body}: {reason}");
        }
        assert!(wrong(&"x".repeat(MAX_BODY + 1)).contains("more than"));
        // Right for the full example, wrong for an order that names nobody.
        assert!(check(Notice::CardsWritten, "en", "x", "{{ address[0] }}").is_err());
        assert!(
            check(Notice::CardsWritten, "en", "x", "{% if address %}{{ address[0] }}{% endif %}").is_ok()
        );
        assert_eq!(check(Notice::Test, "en", "{{ '' }}", "x").unwrap_err().field, "subject");
    }

    #[test]
    fn dates_and_sizes_are_those_of_the_reader() {
        let values = json!({"shop": "", "support": "", "when": "2026-11-25T23:30:00Z", "size": 15_500_000_000_u64,
            "lines": [{"since": "2026-01-01T00:00:00Z"}]});
        let body = "{{ when }} {{ size }} {{ lines[0].since }}";
        let of = |language, zone| {
            letter("s", body, values.clone(), &Reader::new(Some(language), zone)).unwrap().text
        };
        let english = of("en", TimeZone::UTC);
        assert!(
            english.starts_with("25 November 2026, 23:30 (UTC) 15.5 GB 1 January 2026, 00:00 (UTC)"),
            "{english}"
        );
        match TimeZone::get("Europe/Paris") {
            Ok(paris) => {
                let french = of("fr-CA", paris);
                assert!(
                    french.starts_with("26/11/2026 à 00:30 (CET) 15,5 Go 01/01/2026 à 01:00 (CET)"),
                    "{french}"
                );
            }
            Err(_) => println!("SKIPPED: time zones by name: no time zone database (package tzdata)"),
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 300, ..Default::default() })]

        #[test]
        fn no_text_breaks_the_check_of_templates_or_makes_it_long(
            parts in proptest::collection::vec(
                proptest::prop_oneof![
                    "[ -~é\n]{0,20}",
                    proptest::sample::select(vec![
                        "{{", "}}", "{%", "%}", "{#", "#}", " for x in lines ", " endfor ", " if name ", " endif ",
                        "lines", "name", "|", "[0]", "(", ")", "'", "{% set x = 1 %}", "{% raw %}", "* 999999",
                        "{{ name * 99999999 }}", "{{ 'x'|center(99999999) }}", "{{ [name] * 9999999 }}", "~",
                    ]).prop_map(str::to_owned),
                ],
                0..12,
            ),
        ) {
            let body: String = parts.concat();
            let _ = check(Notice::ApplianceTrouble, "en", "x", &body);
            let _ = check(Notice::OrderCreated, "en", &body, "x");
        }
    }

    #[test]
    fn a_subject_is_one_line_whatever_it_is_made_of() {
        let values = json!({"shop": "", "support": "", "name": "a\r\nBcc: everybody@x.org\n"});
        let letter = letter("{{ name }}", "x", values, &Reader::new(None, TimeZone::UTC)).unwrap();
        assert_eq!(letter.subject, "a Bcc: everybody@x.org");
    }
}
