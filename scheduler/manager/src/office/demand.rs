//! Accounts and demand, for staff: who there is, what is ordered by whom and when, how long it takes, how large it is and what
//! is wanted most. Each picture has its numbers beside it. Counted from the newest orders.

use std::collections::BTreeMap;

use axum::extract::{Query, State};
use axum::response::Html;
use cardshop_protocol::time::Timestamp;
use cardshop_scheduler::core::order::OrderStatus;
use cardshop_scheduler::core::rights::Action;
use cardshop_scheduler::core::views::{CardView, OrderView, UserView};
use cardshop_scheduler::{Scheduler, SchedulerError};
use serde_json::Value;

use super::organizations::{name_of, options as organization_options};
use super::users::role_word;
use super::{Part, Sheet, must};
use crate::locale::Locale;
use crate::page::{After, InLanguage, Refused, all, show};
use crate::session::Session;
use crate::statistics::{Bar, Chart, FULL};
use crate::words::Back;

/// Rows of a list of what is wanted most.
const TOP: usize = 20;
/// Upper ends of the sizes of images that are counted together, GB as on a card's label.
const SIZES_GB: [u64; 6] = [4, 8, 16, 32, 64, 128];

/// Counted things, and further numbers of each.
type Counts = BTreeMap<String, (u64, u64)>;

fn count(counts: &mut Counts, key: String, more: u64) {
    let entry = counts.entry(key).or_default();
    entry.0 += 1;
    entry.1 += more;
}

/// Bars as long as the first number, the largest being full.
fn chart(
    id: &'static str,
    title: &'static str,
    heads: Vec<&'static str>,
    rows: Vec<(String, u64, u64)>,
) -> Chart {
    let most = rows.iter().map(|row| row.1).max().unwrap_or(0).max(1);
    let two = heads.len() > 2;
    let bars = rows.into_iter().map(|(name, first, second)| Bar {
        name,
        width: first as f64 / most as f64 * FULL,
        numbers: if two { vec![first.to_string(), second.to_string()] } else { vec![first.to_string()] },
    });
    Chart { id, title, heads, bars: bars.collect() }
}

/// As they are named.
fn in_order(counts: Counts) -> Vec<(String, u64, u64)> {
    counts.into_iter().map(|(name, (first, second))| (name, first, second)).collect()
}

/// What is most first.
fn by_count(counts: Counts) -> Vec<(String, u64, u64)> {
    let mut rows = in_order(counts);
    rows.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    rows.truncate(TOP);
    rows
}

fn accounts(users: &[UserView], now: Timestamp, b: &Back) -> Counts {
    let mut counts = Counts::new();
    for user in users.iter().filter(|user| !user.anonymised) {
        let active = !user.disabled && user.expires.is_none_or(|end| now < end);
        count(&mut counts, role_word(user.role, b).to_owned(), u64::from(active));
    }
    counts
}

/// The middle, and what nine of ten stay below.
fn percentiles(mut seconds: Vec<u64>) -> Option<(u64, u64)> {
    seconds.sort_unstable();
    let at = |percent: usize| seconds.get((seconds.len().saturating_sub(1) * percent).div_ceil(100)).copied();
    Some((at(50)?, at(90)?))
}

fn durations(orders: &[OrderView], cards: &[CardView], locale: &Locale, b: &Back) -> Chart {
    let mut last_card: BTreeMap<_, Timestamp> = BTreeMap::new();
    for card in cards.iter().filter(|card| !card.spare) {
        let end = last_card.entry(card.record.order).or_default();
        *end = (*end).max(card.record.finished);
    }
    let (mut image, mut written, mut sent) = (Vec::new(), Vec::new(), Vec::new());
    for order in orders {
        let at =
            |wanted: &[OrderStatus]| order.history.iter().find(|h| wanted.contains(&h.status)).map(|h| h.at);
        let made = at(&[OrderStatus::Ready, OrderStatus::Available]);
        let done = last_card.get(&order.id).copied().filter(|_| order.verified >= order.quantity);
        let shipped = at(&[OrderStatus::Shipped]);
        image.extend(made.map(|end| end.since(order.created).as_secs()));
        written.extend(made.zip(done).map(|(from, end)| end.since(from).as_secs()));
        sent.extend(done.zip(shipped).map(|(from, end)| end.since(from).as_secs()));
    }
    let rows =
        [(b.from_order_to_image, image), (b.from_image_to_cards, written), (b.from_cards_to_parcel, sent)];
    let rows: Vec<_> = rows
        .into_iter()
        .filter_map(|(name, seconds)| Some((name, seconds.len(), percentiles(seconds)?)))
        .collect();
    let longest = rows.iter().map(|row| row.2.1).max().unwrap_or(0).max(1);
    let bars = rows.into_iter().map(|(name, count, (half, most))| Bar {
        name: name.to_owned(),
        width: most as f64 / longest as f64 * FULL,
        numbers: vec![count.to_string(), locale.duration(&half), locale.duration(&most)],
    });
    let heads = vec![b.durations, b.orders, b.half, b.nine_of_ten];
    Chart { id: "durations", title: b.durations, heads, bars: bars.collect() }
}

fn sizes(orders: &[OrderView], locale: &Locale) -> Vec<(String, u64, u64)> {
    let mut images: BTreeMap<String, u64> = BTreeMap::new();
    images.extend(orders.iter().filter_map(|o| o.image.as_ref().map(|i| (i.id.to_string(), i.size))));
    let mut rows = Vec::new();
    let mut from = 0;
    for (step, to) in SIZES_GB.iter().map(|gb| gb * 1_000_000_000).chain([u64::MAX]).enumerate() {
        let many = images.values().filter(|size| (from..to).contains(*size)).count() as u64;
        let name = if to == u64::MAX {
            format!("≥ {}", locale.size(&from))
        } else {
            format!("< {}", locale.size(&to))
        };
        if many > 0 || step == 0 {
            rows.push((name, many, 0));
        }
        from = to;
    }
    rows
}

/// What a recipe or a configuration takes in, by the names people know: content of a catalogue, files and containers.
fn content(recipe: &Value) -> Vec<String> {
    let inner = recipe.get("configuration").unwrap_or(recipe);
    let list = |key: &str| {
        inner[key].as_array().into_iter().flatten().chain(recipe[key].as_array().into_iter().flatten())
    };
    let text = |value: &Value, key: &str| value[key].as_str().map(str::to_owned);
    let mut names: Vec<String> = list("content").filter_map(|c| text(c, "name")).collect();
    names.extend(list("apps").filter_map(|a| text(a, "name")));
    names.extend(list("oci_images").filter_map(|i| text(i, "ident")));
    names.extend(list("files").filter_map(|f| {
        let url = text(f, "url")?;
        url.rsplit('/').find(|part| !part.is_empty()).map(str::to_owned)
    }));
    names.sort();
    names.dedup();
    names
}

fn month(order: &OrderView, locale: &Locale) -> String {
    locale.day(order.created)[..7].to_owned()
}

pub(super) async fn page(
    State(scheduler): State<Scheduler>,
    session: Session,
    Query(after): Query<After>,
) -> Result<Html<String>, Refused> {
    let draw = || -> Result<_, SchedulerError> {
        must(&session, Action::Administer)?;
        let (caller, locale) = (&session.principal, &session.locale);
        let sheet = Sheet::new(&scheduler, &session, &after, "")?;
        let b = sheet.b;
        let orders = all(|page| scheduler.orders(caller, None, page))?;
        let cards = all(|page| scheduler.cards(caller, None, page))?;
        let users = all(|page| scheduler.users(caller, page))?;
        let organizations = organization_options(&scheduler, &session)?;
        let configurations = all(|page| scheduler.configurations(caller, page))?;
        let configurations: Vec<_> = configurations.into_iter().map(|view| view.configuration).collect();
        let names: BTreeMap<_, _> = configurations.iter().map(|c| (c.id, c.name.clone())).collect();
        let content_of: BTreeMap<_, _> = configurations.iter().map(|c| (c.id, content(&c.recipe))).collect();

        let (mut months, mut payers, mut channels) = (Counts::new(), Counts::new(), Counts::new());
        let (mut wanted, mut contents) = (Counts::new(), Counts::new());
        for order in &orders {
            let verified = u64::from(order.verified);
            count(&mut months, month(order, locale), verified);
            count(&mut payers, name_of(&organizations, order.organization), verified);
            count(&mut channels, order.channel.to_string(), verified);
            let name = names.get(&order.configuration).cloned();
            count(&mut wanted, name.unwrap_or_else(|| order.configuration.to_string()), verified);
            for name in content_of.get(&order.configuration).into_iter().flatten() {
                count(&mut contents, name.clone(), verified);
            }
        }
        let counted = |name| vec![name, b.orders, b.cards];
        let charts = vec![
            chart(
                "roles",
                b.by_role,
                vec![b.role, b.count, b.may_log_in],
                by_count(accounts(&users, scheduler.now(), b)),
            ),
            chart("months", b.by_month, counted(b.month), in_order(months)),
            chart("organizations", b.by_organization, counted(b.organization), by_count(payers)),
            chart("channels", b.by_channel, counted(b.channel), by_count(channels)),
            durations(&orders, &cards, locale, b),
            chart("sizes", b.image_sizes, vec![b.size, b.count], sizes(&orders, locale)),
            chart("configurations", b.popular_configurations, counted(b.configuration), by_count(wanted)),
            chart("content", b.popular_content, counted(b.content), by_count(contents)),
        ];
        let volume: u64 = orders.iter().filter_map(|o| o.image.as_ref()).map(|image| image.size).sum();
        let sheet = Sheet { title: b.shop_statistics.into(), ..sheet };
        Ok(sheet.help(b.shop_statistics_help).with(Part::Charts(charts)).with(Part::Say(format!(
            "{}: {}",
            b.total_volume,
            locale.size(&volume)
        ))))
    };
    Ok(show(&draw().told(&session)?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn content_is_named_as_in_its_catalogue_or_by_its_file_and_once_for_each_recipe() {
        let configuration = json!({"configuration": {
            "content": [{"name": "wikipedia_fr"}, {"name": "wikipedia_fr"}], "apps": [{"name": "kiwix"}],
        }});
        assert_eq!(content(&configuration), ["kiwix", "wikipedia_fr"]);
        let recipe = json!({
            "files": [{"to": "/data/a", "url": "https://x.example/books/a.zim"}, {"to": "/data/b", "content": "b"}],
            "oci_images": [{"ident": "ghcr.io/offspot/kiwix-serve:dev"}],
        });
        assert_eq!(content(&recipe), ["a.zim", "ghcr.io/offspot/kiwix-serve:dev"]);
        assert_eq!(content(&json!({"files": 3})), [""; 0]);
    }

    #[test]
    fn half_and_nine_of_ten_are_of_what_was_measured() {
        assert_eq!(percentiles(vec![]), None);
        assert_eq!(percentiles(vec![7]), Some((7, 7)));
        assert_eq!(percentiles((1..=11).rev().collect()), Some((6, 10)));
    }
}
