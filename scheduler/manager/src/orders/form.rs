//! The form of a new order, empty, as a copy of an earlier order, or with what was wrong in it.

use askama::Template;
use axum::Form;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cardshop_protocol::ids::OrderId;
use cardshop_protocol::token::Role;
use cardshop_scheduler::core::documents::{ChannelDocument, Configuration, Media};
use cardshop_scheduler::core::order::OrderKind;
use cardshop_scheduler::core::rights::Action;
use cardshop_scheduler::{InvalidField, Once, Scheduler, SchedulerError, random_password};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::page::{After, InLanguage, Refused, Shell, all, back_to, show};
use crate::session::Session;
use crate::words::Words;

/// What is typed.
#[derive(Clone, Default, Deserialize, Serialize)]
pub(crate) struct Typed {
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
    #[serde(default)]
    recipient_name: String,
    #[serde(default)]
    recipient_address: String,
    #[serde(default)]
    recipient_country: String,
    #[serde(default)]
    recipient_email: String,
}

#[derive(Template)]
#[template(path = "order_form.html")]
struct OrderForm {
    shell: Shell,
    typed: Typed,
    configurations: Vec<Configuration>,
    media: Vec<Media>,
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
        let id: OrderId = id.parse().map_err(|_| SchedulerError::NotFound("order"))?;
        let order = scheduler.order(&session.principal, id)?;
        let said = |key: &str| order.recipient[key].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            key: String::new(),
            name: order.name.clone(),
            kind: if order.kind == OrderKind::Virtual { "virtual".into() } else { "physical".into() },
            configuration: order.configuration.to_string(),
            media: order.media.as_ref().map(|m| m.id.to_string()).unwrap_or_default(),
            quantity: order.quantity.to_string(),
            channel: order.channel.to_string(),
            recipient_name: said("name"),
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
            ("address", &self.recipient_address),
            ("country", &self.recipient_country),
            ("email", &self.recipient_email),
        ] {
            if !typed.trim().is_empty() {
                recipient.insert(key.into(), json!(typed.trim()));
            }
        }
        Ok(json!({
            "name": text(&self.name), "kind": text(&self.kind), "configuration": self.configuration,
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
    Ok(OrderForm {
        shell: Shell::new(scheduler, session, &After::default())?,
        typed,
        configurations: all(|page| scheduler.configurations(caller, page))?,
        media: all(|page| scheduler.media(caller, page))?,
        channels,
        balance: own.first().filter(|_| caller.role != Role::Staff).map(|o| o.units),
        fault,
    })
}

#[derive(Deserialize)]
pub(crate) struct Again {
    #[serde(default)]
    again: String,
}

pub(crate) async fn form(
    State(scheduler): State<Scheduler>,
    session: Session,
    Query(Again { again }): Query<Again>,
) -> Result<Response, Refused> {
    let page = || {
        let typed = match again.as_str() {
            "" => Typed { quantity: "1".into(), kind: "physical".into(), ..Typed::default() },
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
    let placed = async {
        let body = typed.order(session.locale.words)?;
        let once = Once::new(&session.principal, "orders", &typed.key, body.to_string().as_bytes())?;
        scheduler.create_order(&session.principal, body, Some(once)).await
    };
    match placed.await {
        Ok(order) => Ok(back_to(&format!("/orders/{}", order.id), "placed").into_response()),
        // What was typed stays; a corrected form is another one.
        Err(error @ (SchedulerError::Invalid(_) | SchedulerError::Conflict { .. })) => {
            let typed = Typed { key: String::new(), ..typed };
            let page = draw(&scheduler, &session, typed, error.to_string()).told(&session)?;
            Ok((StatusCode::UNPROCESSABLE_ENTITY, show(&page)).into_response())
        }
        Err(error) => Err(Refused::new(&session.locale, error)),
    }
}
