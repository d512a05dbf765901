//! The form of a new order, empty, as a copy of an earlier order, or with what was wrong in it.

use askama::Template;
use axum::Form;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cardshop_protocol::ids::OrderId;
use cardshop_protocol::token::Role;
use cardshop_scheduler::core::address::AddressView;
use cardshop_scheduler::core::configurations::{ConfigurationView, SizeView};
use cardshop_scheduler::core::documents::{ChannelDocument, Media};
use cardshop_scheduler::core::order::{MAX_QUANTITY, OrderKind};
use cardshop_scheduler::core::rights::Action;
use cardshop_scheduler::{InvalidField, Once, Scheduler, SchedulerError, random_password};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::addresses::label;
use crate::configurations::needs::Needs;
use crate::page::{After, InLanguage, Refused, Shell, all, back_to, read_id, show};
use crate::session::Session;
use crate::words::Words;

/// What is typed.
#[derive(Clone, Default, Deserialize, Serialize)]
pub(crate) struct Typed {
    /// `compute`: tell what it would mean, and place nothing.
    #[serde(default, rename = "do")]
    what: String,
    /// Sent again by a second press of the button: the order is placed once.
    #[serde(default)]
    key: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    configuration: String,
    #[serde(default)]
    media: String,
    #[serde(default)]
    quantity: String,
    #[serde(default)]
    channel: String,
    /// Of the address book.
    #[serde(default)]
    address: String,
    #[serde(default)]
    recipient_name: String,
    #[serde(default)]
    recipient_company: String,
    #[serde(default)]
    recipient_phone: String,
    #[serde(default)]
    recipient_language: String,
    #[serde(default)]
    recipient_address: String,
    #[serde(default)]
    recipient_country: String,
    #[serde(default)]
    recipient_email: String,
}

/// Something to choose; what does not fit says why.
struct Choice {
    id: String,
    text: String,
    chosen: bool,
    fits: bool,
}

/// A sentence of what the order would mean.
struct Line {
    text: String,
    wrong: bool,
}

#[derive(Template)]
#[template(path = "order_form.html")]
struct OrderForm {
    shell: Shell,
    typed: Typed,
    configurations: Vec<ConfigurationView>,
    media: Vec<Choice>,
    addresses: Vec<Choice>,
    outlook: Vec<Line>,
    /// Of the configuration that is chosen.
    needs: Option<Needs>,
    channels: Vec<ChannelDocument>,
    /// Units of the visitor's organization.
    balance: Option<u64>,
    fault: String,
}

/// A whole number, or nothing when the field is empty.
pub(crate) fn number(text: &str, field: &'static str, w: &Words) -> Result<Option<u32>, SchedulerError> {
    match text.trim() {
        "" => Ok(None),
        text => Ok(Some(text.parse().map_err(|_| InvalidField::new(field, w.not_a_number))?)),
    }
}

impl Typed {
    /// The order with the same content again.
    fn again(scheduler: &Scheduler, session: &Session, id: &str) -> Result<Self, SchedulerError> {
        let id: OrderId = read_id(id, "order")?;
        let order = scheduler.order(&session.principal, id)?;
        let said = |key: &str| order.recipient[key].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            what: String::new(),
            key: String::new(),
            address: String::new(),
            name: order.name.clone(),
            kind: if order.kind == OrderKind::Virtual { "virtual".into() } else { "physical".into() },
            configuration: order.configuration.to_string(),
            media: order.media.as_ref().map(|m| m.id.to_string()).unwrap_or_default(),
            quantity: order.quantity.to_string(),
            channel: order.channel.to_string(),
            recipient_name: said("name"),
            recipient_company: said("company"),
            recipient_phone: said("phone"),
            recipient_language: said("language"),
            recipient_address: said("address"),
            recipient_country: said("country"),
            recipient_email: said("email"),
        })
    }

    /// The body the API takes.
    fn order(&self, w: &Words) -> Result<Value, SchedulerError> {
        let text = |text: &str| match text.trim() {
            "" => Value::Null,
            text => json!(text),
        };
        if self.configuration.is_empty() {
            return Err(InvalidField::new("configuration", w.choose_configuration).into());
        }
        let mut recipient = serde_json::Map::new();
        for (key, typed) in [
            ("name", &self.recipient_name),
            ("company", &self.recipient_company),
            ("address", &self.recipient_address),
            ("country", &self.recipient_country),
            ("email", &self.recipient_email),
            ("phone", &self.recipient_phone),
            ("language", &self.recipient_language),
        ] {
            if !typed.trim().is_empty() {
                recipient.insert(key.into(), json!(typed.trim()));
            }
        }
        let address = text(&self.address);
        let recipient = if address.is_null() { Value::Object(recipient) } else { Value::Null };
        Ok(json!({
            "address": address, "name": text(&self.name), "kind": text(&self.kind), "configuration": self.configuration,
            "media": text(&self.media), "quantity": number(&self.quantity, "quantity", w)?,
            "channel": text(&self.channel), "recipient": recipient,
        }))
    }
}

fn draw(
    scheduler: &Scheduler,
    session: &Session,
    mut typed: Typed,
    fault: String,
) -> Result<OrderForm, SchedulerError> {
    let caller = &session.principal;
    if !caller.may(Action::Order) {
        return Err(SchedulerError::NotAllowed(session.locale.words.not_allowed.into()));
    }
    if typed.key.is_empty() {
        typed.key = random_password();
    }
    let own = all(|page| scheduler.organizations(caller, page))?;
    let mut channels = all(|page| scheduler.channels(caller, page))?;
    channels.retain(|channel| channel.active);
    let size = match typed.configuration.parse() {
        Ok(id) => scheduler.configuration_size(caller, id).ok(),
        Err(_) => None,
    };
    Ok(OrderForm {
        shell: Shell::new(scheduler, session, &After::default())?,
        configurations: all(|page| scheduler.configurations(caller, page))?,
        media: media_choices(scheduler, session, &typed, size.as_ref())?,
        addresses: address_choices(scheduler, session, &typed)?,
        outlook: outlook(scheduler, session, &typed)?,
        needs: size.as_ref().map(|size| Needs::of(size, &session.locale)),
        channels,
        balance: own.first().filter(|_| caller.role != Role::Staff).map(|o| o.units),
        fault,
        typed,
    })
}

/// Sizes of cards; those that are too small for the image are there with the reason, and cannot be chosen.
fn media_choices(
    scheduler: &Scheduler,
    session: &Session,
    typed: &Typed,
    size: Option<&SizeView>,
) -> Result<Vec<Choice>, SchedulerError> {
    let locale = &session.locale;
    let choice = |media: Media| {
        let needed = size.map(|size| size.image_bytes).filter(|needed| *needed > media.usable_bytes);
        let id = media.id.to_string();
        Choice {
            chosen: id == typed.media && needed.is_none(),
            id,
            text: match needed {
                Some(needed) => locale.words.too_small_for(&media.name, &locale.size(&needed)),
                None => format!("{} ({})", media.name, locale.size(&media.usable_bytes)),
            },
            fits: needed.is_none(),
        }
    };
    Ok(all(|page| scheduler.media(&session.principal, page))?.into_iter().map(choice).collect())
}

/// Addresses of the book; for cards only those a parcel reaches can be chosen.
fn address_choices(
    scheduler: &Scheduler,
    session: &Session,
    typed: &Typed,
) -> Result<Vec<Choice>, SchedulerError> {
    let virtual_order = typed.kind == "virtual";
    let choice = |view: AddressView| {
        let id = view.address.id.to_string();
        let place = view.address.lines().join(", ");
        let text = format!("{} · {place}", label(&view.address));
        Choice { chosen: id == typed.address, id, text, fits: view.shippable || virtual_order }
    };
    Ok(all(|page| scheduler.addresses(&session.principal, page))?.into_iter().map(choice).collect())
}

/// What the order would cost, wait for, and when it would be done.
fn outlook(scheduler: &Scheduler, session: &Session, typed: &Typed) -> Result<Vec<Line>, SchedulerError> {
    let (w, locale) = (session.locale.words, &session.locale);
    let kind = if typed.kind == "virtual" { OrderKind::Virtual } else { OrderKind::Physical };
    let quantity = typed.quantity.trim().parse().unwrap_or(1).clamp(1, MAX_QUANTITY);
    let outlook = scheduler.outlook(&session.principal, kind, quantity)?;
    let mut lines = Vec::new();
    let mut say = |text: String, wrong| lines.push(Line { text, wrong });
    if let (Some(cost), Some(balance)) = (outlook.cost, outlook.balance) {
        say(w.costs(&cost, &balance), false);
        if cost > balance {
            say(w.too_dear.to_owned(), true);
        }
    }
    if let Some((name, _)) = &outlook.waits_for {
        say(w.waits_for(name), true);
    }
    match (outlook.finish_p50, outlook.finish_p90) {
        (Some(half), Some(most)) => say(w.finish(locale.moment(&half), locale.moment(&most)), false),
        _ => say(w.no_estimate.to_owned(), false),
    }
    Ok(lines)
}

#[derive(Deserialize)]
pub(crate) struct Again {
    #[serde(default)]
    again: String,
    #[serde(default)]
    configuration: String,
}

pub(crate) async fn form(
    State(scheduler): State<Scheduler>,
    session: Session,
    Query(Again { again, configuration }): Query<Again>,
) -> Result<Response, Refused> {
    let page = || {
        let typed = match again.as_str() {
            "" => Typed {
                quantity: "1".into(),
                kind: "physical".into(),
                configuration: configuration.clone(),
                ..Typed::default()
            },
            id => Typed::again(&scheduler, &session, id)?,
        };
        draw(&scheduler, &session, typed, String::new())
    };
    Ok(show(&page().told(&session)?).into_response())
}

pub(crate) async fn place(
    State(scheduler): State<Scheduler>,
    session: Session,
    Form(typed): Form<Typed>,
) -> Result<Response, Refused> {
    if typed.what == "compute" {
        return Ok(show(&draw(&scheduler, &session, typed, String::new()).told(&session)?).into_response());
    }
    let placed = async {
        let body = typed.order(session.locale.words)?;
        let once = Once::new(&session.principal, "orders", &typed.key, body.to_string().as_bytes())?;
        scheduler.create_order(&session.principal, body, Some(once)).await
    };
    match placed.await {
        Ok(order) => Ok(back_to(&format!("/orders/{}", order.id), "placed").into_response()),
        // What was typed stays; a corrected form is another one.
        Err(
            error @ (SchedulerError::Invalid(_)
            | SchedulerError::Conflict { .. }
            | SchedulerError::Refused(_)),
        ) => {
            let typed = Typed { key: String::new(), ..typed };
            let page = draw(&scheduler, &session, typed, error.to_string()).told(&session)?;
            Ok((StatusCode::UNPROCESSABLE_ENTITY, show(&page)).into_response())
        }
        Err(error) => Err(Refused::new(&session.locale, error)),
    }
}
