//! Who gets a message: the table of audiences, each address once. What people switched off they do not get.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::event::{Audience, Notice};
use super::message::Part;
use super::preferences::Preferences;

/// Somebody who gets mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Person {
    pub(crate) address: String,
    /// How they are called; may be empty.
    #[serde(default)]
    pub(crate) name: String,
    pub(crate) part: Part,
    /// BCP 47; the site's when `None`.
    #[serde(default)]
    pub(crate) language: Option<String>,
    /// IANA name; the server's when `None`.
    #[serde(default)]
    pub(crate) zone: Option<String>,
}

/// A person with an account, and what they said they want.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) person: Person,
    pub(crate) wants: Preferences,
}

/// Everybody around what happened.
#[derive(Debug, Clone, Default)]
pub(crate) struct People {
    pub(crate) recipient: Option<Person>,
    pub(crate) client: Option<Member>,
    pub(crate) operators: Vec<Member>,
    pub(crate) failed_orders: Option<Person>,
}

/// Who is told of `notice`, in the order of the table. An address that stands for several of them is told once.
pub(crate) fn addressees(notice: Notice, people: &People) -> Vec<Person> {
    let silent: BTreeSet<String> = people
        .client
        .iter()
        .chain(&people.operators)
        .filter(|member| !member.wants.wants(notice))
        .map(|member| key(&member.person))
        .collect();
    let client = people.client.as_ref().map(|member| &member.person);
    let both = || people.recipient.iter().chain(client);
    let all: Vec<&Person> = match notice.audience() {
        Audience::Recipient => both().collect(),
        Audience::RecipientAndWatch => both().chain(&people.failed_orders).collect(),
        Audience::Client => client.into_iter().collect(),
        Audience::Operators => people.operators.iter().map(|member| &member.person).collect(),
        Audience::User => Vec::new(),
    };
    let mut seen = silent;
    all.into_iter().filter(|person| seen.insert(key(person))).cloned().collect()
}

/// Addresses that differ in case only are one mailbox everywhere that matters.
fn key(person: &Person) -> String {
    person.address.trim().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(address: &str, part: Part) -> Person {
        Person { address: address.into(), name: String::new(), part, language: None, zone: None }
    }

    fn member(address: &str, part: Part, off: &[Notice]) -> Member {
        let mut wants = Preferences::default();
        wants.events.extend(off.iter().map(|notice| (*notice, false)));
        Member { person: person(address, part), wants }
    }

    fn told(notice: Notice, people: &People) -> Vec<String> {
        addressees(notice, people).into_iter().map(|p| p.address).collect()
    }

    #[test]
    fn each_notice_goes_to_whom_the_table_names() {
        let people = People {
            recipient: Some(person("to@x.org", Part::Recipient)),
            client: Some(member("by@x.org", Part::Client, &[])),
            operators: vec![
                member("op1@x.org", Part::Operator, &[]),
                member("op2@x.org", Part::Operator, &[]),
            ],
            failed_orders: Some(person("watch@x.org", Part::FailedOrders)),
        };
        for notice in
            [Notice::OrderCreated, Notice::OrderCanceled, Notice::DownloadReady, Notice::OrderShipped]
        {
            assert_eq!(told(notice, &people), ["to@x.org", "by@x.org"]);
        }
        assert_eq!(told(Notice::OrderFailed, &people), ["to@x.org", "by@x.org", "watch@x.org"]);
        assert_eq!(told(Notice::ImageReady, &people), ["by@x.org"]);
        for notice in [Notice::CardsWanted, Notice::CardsWritten, Notice::ApplianceTrouble] {
            assert_eq!(told(notice, &people), ["op1@x.org", "op2@x.org"]);
        }
        assert!(
            told(Notice::WritingBegun, &people).is_empty() && told(Notice::CardWritten, &people).is_empty()
        );
    }

    #[test]
    fn one_address_in_two_parts_is_told_once_and_one_that_wants_nothing_is_not() {
        let both = |off: &[Notice]| People {
            recipient: Some(person("Ada@X.org", Part::Recipient)),
            client: Some(member("ada@x.org", Part::Client, off)),
            failed_orders: Some(person("ADA@x.org", Part::FailedOrders)),
            ..People::default()
        };
        assert_eq!(told(Notice::OrderFailed, &both(&[])), ["Ada@X.org"]);
        assert!(told(Notice::OrderCreated, &both(&[Notice::OrderCreated])).is_empty());
        let on = Member {
            wants: Preferences { events: [(Notice::CardWritten, true)].into(), ..Preferences::default() },
            ..member("op@x.org", Part::Operator, &[])
        };
        let people = People { operators: vec![on], ..People::default() };
        assert_eq!(told(Notice::CardWritten, &people), ["op@x.org"]);
    }
}
