//! Messages to people and programs: what was sent to whom and when, why something was not, and sending it once more. The words
//! for what is told of, the languages of letters, and how a message stands are here for other pages too.

use std::collections::BTreeSet;

use axum::extract::{Query, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use cardshop_protocol::ids::{ObjectId, OrderId};
use cardshop_scheduler::core::notify::{MessageState, MessageView, Notice, Part as Why};
use cardshop_scheduler::core::rights::Action;
use cardshop_scheduler::{PageRequest, Scheduler, SchedulerError};
use serde_json::json;

use super::{Cell, Field, Form, PER_PAGE, Part, Row, Sent, Sheet, Table, must, none_or, settle};
use crate::page::{After, InLanguage, Refused, all, back_to, show};
use crate::session::Session;
use crate::words::{Back, Language};

const PATH: &str = "/office/messages";
/// What the next page of the list asks for too.
const ASKED: [&str; 2] = ["order", "state"];

/// What is told of, in words.
pub(crate) fn notice_word(notice: Notice, b: &Back) -> &'static str {
    match notice {
        Notice::OrderCreated => b.notice_order_created,
        Notice::OrderFailed => b.notice_order_failed,
        Notice::OrderCanceled => b.notice_order_canceled,
        Notice::ImageReady => b.notice_image_ready,
        Notice::DownloadReady => b.notice_download_ready,
        Notice::CardsWanted => b.notice_cards_wanted,
        Notice::WritingBegun => b.notice_writing_begun,
        Notice::CardWritten => b.notice_card_written,
        Notice::CardsWritten => b.notice_cards_written,
        Notice::OrderShipped => b.notice_order_shipped,
        Notice::ApplianceTrouble => b.notice_appliance_trouble,
        Notice::PasswordReset => b.notice_password_reset,
        Notice::AccountInvitation => b.notice_account_invitation,
        Notice::Test => b.notice_test,
    }
}

/// The languages of letters, each in its own words.
pub(crate) fn language_options() -> Vec<(String, String)> {
    Language::ALL.map(|l| (l.tag().to_owned(), l.words().language_name.to_owned())).to_vec()
}

fn state_word(state: MessageState, b: &Back) -> &'static str {
    match state {
        MessageState::Waiting => b.message_waiting,
        MessageState::Retrying => b.message_retrying,
        MessageState::Held => b.message_held,
        MessageState::Sent => b.message_sent,
        MessageState::Failed => b.message_failed,
        MessageState::Dropped => b.message_dropped,
    }
}

fn part_word(part: Why, b: &Back) -> &'static str {
    match part {
        Why::Recipient => b.part_recipient,
        Why::Client => b.part_client,
        Why::Operator => b.role_operator,
        Why::User => b.part_user,
        Why::FailedOrders => b.part_failed_orders,
        Why::Support => b.part_support,
    }
}

/// Where a message stands: its state, since when, why it is not sent, and when it is tried again.
pub(super) fn standing(message: &MessageView, session: &Session) -> [Cell; 3] {
    let (b, locale) = (session.locale.words.language.back(), &session.locale);
    let mut why = message.reason.clone().unwrap_or_default();
    if let Some(next) = message.next_try.filter(|_| !message.tries.is_empty()) {
        why = format!("{why} · {} {}", b.next_try, locale.moment(&next));
    }
    [
        Cell::State(message.state.name(), state_word(message.state, b).into()),
        Cell::Text(locale.moment_or_dash(&message.sent)),
        Cell::Text(why),
    ]
}

/// To whom: a mail address, a webhook that is still there and the visitor's to see, or the site's topic.
fn addressee(message: &MessageView, hooks: &BTreeSet<String>) -> Cell {
    match (&message.to, message.via.as_str()) {
        (Some(id), "webhook") if hooks.contains(id) => {
            Cell::Link(format!("/office/webhooks/{id}"), message.via.clone())
        }
        (Some(address), "mail") => Cell::Text(address.clone()),
        _ => Cell::Text(message.via.clone()),
    }
}

fn sheet(
    scheduler: &Scheduler,
    session: &Session,
    after: &After,
    asked: &Sent,
    fault: String,
) -> Result<Sheet, SchedulerError> {
    must(session, Action::Order)?;
    let caller = &session.principal;
    let sheet = Sheet::new(scheduler, session, after, "")?;
    let (b, w) = (sheet.b, session.locale.words);
    let order = match asked.text("order") {
        "" => None,
        text => {
            let id: OrderId = text.parse().map_err(|_| SchedulerError::NotFound("order"))?;
            Some(scheduler.order(caller, id)?)
        }
    };
    let state = Some(asked.text("state")).filter(|state| !state.is_empty());
    let cursor = Some(asked.text("cursor").to_owned()).filter(|c| !c.is_empty());
    let request = PageRequest { limit: Some(PER_PAGE), cursor };
    let messages = scheduler.messages(caller, order.as_ref().map(|order| order.id), state, &request)?;
    let mut hooks = BTreeSet::new();
    if caller.may(Action::Listen) {
        hooks.extend(
            all(|page| scheduler.webhooks(caller, page))?.into_iter().map(|hook| hook.id.to_string()),
        );
    }
    let rows = messages.items.iter().map(|message| {
        let id = message.id.to_string();
        let what = notice_word(message.event, b);
        let mut again = Form::inline(PATH).field(Field::hidden("chosen", id.clone()));
        for name in ASKED {
            again = again.field(Field::hidden(name, asked.text(name)));
        }
        let of = match message.order {
            Some(order) => Cell::Link(format!("/orders/{order}"), order.to_string()),
            None => Cell::Text(message.appliance.map(|id| id.to_string()).unwrap_or_default()),
        };
        let [state, sent, why] = standing(message, session);
        Row {
            cells: vec![
                Cell::Text(session.locale.moment(&message.created)),
                Cell::Text(what.into()),
                of,
                addressee(message, &hooks),
                Cell::Text(message.part.map(|part| part_word(part, b)).unwrap_or_default().into()),
                state,
                sent,
                why,
                again.deed_of("send", b.send_again, what).cell(),
            ],
            name: what.into(),
            id,
        }
    });
    let table = Table {
        heads: vec![b.when, b.event, b.object, b.to_whom, b.as_who, b.state, b.sent, b.reason, b.actions],
        rows: rows.collect(),
        next: messages.next_cursor.map(|cursor| format!("{PATH}?{}&cursor={cursor}", asked.query(&ASKED))),
        ..Table::default()
    };
    let states = MessageState::ALL.map(|s| (s.name().to_owned(), state_word(s, b).to_owned()));
    let filter = Form::asking(PATH)
        .field(Field::line("order", w.order, asked.text("order"), 26))
        .field(Field::one("state", b.state, asked.text("state"), none_or(b.all, states.to_vec())))
        .deed("", b.filter);
    let mut sheet = Sheet { title: b.messages.into(), ..sheet };
    if let Some(order) = order {
        sheet = sheet.above(&format!("/orders/{}", order.id), &order.name);
    }
    Ok(sheet.help(b.messages_help).fault(fault).with(filter.part()).with(Part::Table(table)).with_if(
        caller.may(Action::Administer),
        || {
            let test = Form::new(b.test_letter, PATH).field(Field::email("to", b.test_to, asked.text("to")));
            test.deed("test", b.send_test).part()
        },
    ))
}

pub(super) async fn list(
    State(scheduler): State<Scheduler>,
    session: Session,
    Query(after): Query<After>,
    asked: Sent,
) -> Result<Html<String>, Refused> {
    Ok(show(&sheet(&scheduler, &session, &after, &asked, String::new()).told(&session)?))
}

/// The message that a form names.
pub(super) fn chosen(sent: &Sent) -> Result<ObjectId, SchedulerError> {
    sent.text("chosen").parse().map_err(|_| SchedulerError::NotFound("message"))
}

pub(super) async fn act(
    State(scheduler): State<Scheduler>,
    session: Session,
    sent: Sent,
) -> Result<Response, Refused> {
    let done = async {
        match sent.what() {
            "send" => {
                scheduler.send_again(&session.principal, chosen(&sent)?).await?;
                let query = sent.query(&ASKED);
                let before = if query.is_empty() { query } else { format!("{query}&") };
                let to = format!("{PATH}?{before}done=queued");
                Ok(Redirect::to(&to).into_response())
            }
            // Whether mail arrives at all; to the caller when nobody else is named.
            "test" => {
                scheduler.test_mail(&session.principal, json!({"to": sent.json("to")})).await?;
                Ok(back_to(PATH, "queued").into_response())
            }
            _ => Err(SchedulerError::NotFound("command")),
        }
    };
    settle(&session, done.await, |fault| sheet(&scheduler, &session, &After::default(), &sent, fault))
}
