//! What the shop's numbers say: yield by slot, speed by reader and image, orders by state and how long they took. Each
//! picture has its numbers in a table beside it. Counted from the cards the visitor may see, the newest first.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::State;
use axum::response::Html;
use cardshop_protocol::time::Timestamp;
use cardshop_scheduler::core::views::{CardView, OrderView};
use cardshop_scheduler::{Scheduler, SchedulerError};

use crate::locale::Locale;
use crate::orders::status_word;
use crate::page::{After, InLanguage, Refused, Shell, all, show};
use crate::session::Session;
use crate::words::Words;

/// Width of a full bar in a picture, its own units.
pub(crate) const FULL: f64 = 200.0;

/// A row: a bar, and the numbers it stands for.
pub(crate) struct Bar {
    pub(crate) name: String,
    /// Of `FULL`.
    pub(crate) width: f64,
    pub(crate) numbers: Vec<String>,
}

/// A picture with its table.
pub(crate) struct Chart {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    /// Of the name and the numbers.
    pub(crate) heads: Vec<&'static str>,
    pub(crate) bars: Vec<Bar>,
}

#[derive(Template)]
#[template(path = "statistics.html")]
struct StatisticsPage {
    shell: Shell,
    counted: usize,
    charts: Vec<Chart>,
    duration: String,
}

/// Cards, and their rates added up.
#[derive(Default)]
struct Sum {
    cards: u64,
    write_bps: u128,
    verify_bps: u128,
}

impl Sum {
    fn mean(&self, sum: u128) -> u64 {
        u64::try_from(sum / u128::from(self.cards.max(1))).unwrap_or(u64::MAX)
    }
}

fn sums(cards: &[CardView], key: impl Fn(&CardView) -> String) -> BTreeMap<String, Sum> {
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    for card in cards {
        let sum = sums.entry(key(card)).or_default();
        sum.cards += 1;
        sum.write_bps += u128::from(card.record.write_bps);
        sum.verify_bps += u128::from(card.record.verify_bps);
    }
    sums
}

/// Bars as long as the mean write rate, the fastest being full.
fn speed_chart(id: &'static str, title: &'static str, sums: BTreeMap<String, Sum>, locale: &Locale) -> Chart {
    let w = locale.words;
    let fastest = sums.values().map(|s| s.mean(s.write_bps)).max().unwrap_or(0).max(1);
    let bars = sums.into_iter().map(|(name, sum)| {
        let (write, verify) = (sum.mean(sum.write_bps), sum.mean(sum.verify_bps));
        let numbers = vec![sum.cards.to_string(), locale.rate(&write), locale.rate(&verify)];
        Bar { name, width: write as f64 / fastest as f64 * FULL, numbers }
    });
    Chart { id, title, heads: vec![title, w.count_cards, w.mean_write, w.mean_verify], bars: bars.collect() }
}

fn yield_chart(slots: Vec<(String, u64, u64)>, locale: &Locale) -> Chart {
    let w = locale.words;
    let bars = slots.into_iter().map(|(name, verified, failed)| {
        let share = verified as f64 / (verified + failed).max(1) as f64;
        let numbers = vec![verified.to_string(), failed.to_string(), locale.percent(&share)];
        Bar { name, width: share * FULL, numbers }
    });
    let heads = vec![w.yield_by_slot, w.count_cards, w.failures, w.share];
    Chart { id: "yield", title: w.yield_title, heads, bars: bars.collect() }
}

fn status_chart(orders: &[OrderView], locale: &Locale) -> Chart {
    let w = locale.words;
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    for order in orders {
        *counts.entry(status_word(order.status, w)).or_default() += 1;
    }
    let most = counts.values().copied().max().unwrap_or(1);
    let bar = |(name, count): (&'static str, u64)| Bar {
        name: name.to_owned(),
        width: count as f64 / most as f64 * FULL,
        numbers: vec![count.to_string()],
    };
    let heads = vec![w.status, w.orders];
    Chart { id: "orders", title: w.orders_by_status, heads, bars: counts.into_iter().map(bar).collect() }
}

/// Seconds from order to last card, the mean over orders that are written.
fn mean_duration(orders: &[OrderView], cards: &[CardView]) -> Option<u64> {
    let mut last: BTreeMap<_, Timestamp> = BTreeMap::new();
    for card in cards.iter().filter(|card| !card.spare) {
        let end = last.entry(card.record.order).or_default();
        *end = (*end).max(card.record.finished);
    }
    let written = orders.iter().filter(|o| o.quantity > 0 && o.verified >= o.quantity);
    let spans: Vec<u64> = written.filter_map(|o| Some(last.get(&o.id)?.since(o.created).as_secs())).collect();
    (!spans.is_empty()).then(|| spans.iter().sum::<u64>() / spans.len() as u64)
}

/// Who made a card: manufacturer and OEM of its identification register, where the reader shows it.
/// **Source:** SD Physical Layer Simplified Specification, §5.2.
fn make(cid: Option<&str>, w: &Words) -> String {
    let byte = |n: usize| u8::from_str_radix(cid?.get(2 * n..2 * n + 2)?, 16).ok();
    match (byte(0), byte(1), byte(2)) {
        (Some(manufacturer), Some(a), Some(b)) => {
            let oem: String = [a, b].map(char::from).iter().filter(|c| c.is_ascii_graphic()).collect();
            format!("{manufacturer:02x} {oem}").trim_end().to_owned()
        }
        _ => w.make_hidden.to_owned(),
    }
}

pub(crate) async fn page(
    State(scheduler): State<Scheduler>,
    session: Session,
) -> Result<Html<String>, Refused> {
    let draw = || -> Result<_, SchedulerError> {
        let (caller, locale) = (&session.principal, &session.locale);
        let w = locale.words;
        let cards = all(|page| scheduler.cards(caller, None, page))?;
        let orders = all(|page| scheduler.orders(caller, None, page))?;
        let names: BTreeMap<String, String> = all(|page| scheduler.slots(caller, page))?
            .into_iter()
            .map(|slot| (slot.id, format!("{} · {}", slot.label, slot.name)))
            .collect();
        let counts = scheduler.slot_counts(caller)?.into_iter().map(|count| {
            let name = names.get(&count.id).cloned().unwrap_or(count.id);
            (name, count.verified, count.failed)
        });
        let image = |card: &CardView| card.record.image.to_string().chars().take(12).collect();
        let charts = vec![
            yield_chart(counts.collect(), locale),
            speed_chart("readers", w.yield_by_reader, sums(&cards, |c| c.record.reader.clone()), locale),
            speed_chart("makes", w.card_make, sums(&cards, |c| make(c.record.cid.as_deref(), w)), locale),
            speed_chart("sizes", w.card_size, sums(&cards, |c| locale.size(&c.record.card_size)), locale),
            speed_chart("images", w.yield_by_image, sums(&cards, image), locale),
            status_chart(&orders, locale),
        ];
        let duration = mean_duration(&orders, &cards);
        Ok(StatisticsPage {
            shell: Shell::new(&scheduler, &session, &After::default())?,
            counted: cards.len(),
            charts,
            duration: duration.map_or_else(|| "–".into(), |seconds| locale.duration(&seconds)),
        })
    };
    Ok(show(&draw().told(&session)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::Language;

    #[test]
    fn the_make_of_a_card_is_read_from_its_register_or_said_to_be_hidden() {
        let w = Language::English.words();
        assert_eq!(make(Some("035344534c31364780a1b2c3d4016b00"), w), "03 SD");
        assert_eq!(make(Some("ff0001"), w), "ff");
        for nothing in [None, Some("03"), Some("xx5344"), Some("é3")] {
            assert_eq!(make(nothing, w), w.make_hidden);
        }
    }
}
