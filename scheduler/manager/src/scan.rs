//! The scanner field of every page: a code is looked up and leads to its page; the code of a command is carried out for
//! the slot that was scanned last. Scanners type the code and press Enter.

use axum::Form;
use axum::extract::State;
use axum::response::Redirect;
use cardshop_protocol::ids::{ApplianceId, ObjectId, OrderId};
use cardshop_scheduler::{InvalidField, Scheduler, SchedulerError};
use serde::Deserialize;

use crate::bench::carry_out;
use crate::page::{InLanguage, Refused, all};
use crate::session::Session;

/// Commands for a slot, as their codes are printed.
const COMMANDS: [&str; 6] = ["identify", "retry", "release", "eject", "hold", "resume"];

#[derive(Deserialize)]
pub(crate) struct Scanned {
    #[serde(default)]
    code: String,
    /// The slot that was scanned last.
    #[serde(default)]
    slot: String,
}

pub(crate) async fn scan(
    State(scheduler): State<Scheduler>,
    session: Session,
    Form(scanned): Form<Scanned>,
) -> Result<Redirect, Refused> {
    let code = scanned.code.trim();
    if let Some(command) = COMMANDS.into_iter().find(|c| c.eq_ignore_ascii_case(code)) {
        if scanned.slot.is_empty() {
            let first = InvalidField::new("slot", session.locale.words.scan_first);
            return Err(Refused::new(&session.locale, first.into()));
        }
        let slot = scanned.slot.as_str();
        let done = carry_out(&scheduler, &session, slot, command, "").await.told(&session)?;
        return Ok(Redirect::to(&format!("/bench?done={done}&slot={slot}#{slot}")));
    }
    let path = find(&scheduler, &session, code).told(&session)?;
    let unknown = || InvalidField::new("code", session.locale.words.scan_unknown(code));
    let path = path.ok_or_else(|| Refused::new(&session.locale, unknown().into()))?;
    Ok(Redirect::to(&path))
}

/// Something that is not there, or not the caller's, is not found; other refusals are told.
fn seen<T>(answer: Result<T, SchedulerError>) -> Result<Option<T>, SchedulerError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(SchedulerError::NotFound(_) | SchedulerError::NotAllowed(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The page of what has this code: a card, an order, an appliance, or a slot by its id or its name.
fn find(scheduler: &Scheduler, session: &Session, code: &str) -> Result<Option<String>, SchedulerError> {
    let caller = &session.principal;
    let lower = code.to_lowercase();
    if let Ok(uid) = lower.parse::<ObjectId>()
        && seen(scheduler.card(caller, uid))?.is_some()
    {
        return Ok(Some(format!("/cards/{uid}")));
    }
    if let Ok(order) = lower.parse::<OrderId>()
        && seen(scheduler.order(caller, order))?.is_some()
    {
        return Ok(Some(format!("/orders/{order}")));
    }
    if let Ok(appliance) = lower.parse::<ApplianceId>()
        && seen(scheduler.appliance(caller, appliance))?.is_some()
    {
        return Ok(Some(format!("/appliances/{appliance}")));
    }
    let slots = all(|page| scheduler.slots(caller, page))?;
    let found = slots.iter().find(|s| s.id == lower).or_else(|| {
        let mut named = slots.iter().filter(|s| s.name.to_lowercase() == lower);
        // A name that two appliances use says nothing.
        named.next().filter(|_| named.next().is_none())
    });
    Ok(found.map(|slot| format!("/bench?slot={0}#{0}", slot.id)))
}
