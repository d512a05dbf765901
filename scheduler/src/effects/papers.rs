//! Papers of what is in the store: the slip of an order, labels of cards and slots, for who may see them. What is on
//! them and how they look is `papers`' part.

use cardshop_protocol::api::Page;
use cardshop_protocol::ids::{ApplianceId, ObjectId, OrderId};

use crate::core::documents::OrderRecipe;
use crate::core::order::OrderKind;
use crate::core::rights::{Action, Principal};
use crate::core::units::Organization;
use crate::core::views::{CardView, OrderView};
use crate::papers::{self, Format, Label, Language, MAX_LABELS, Paper, PaperError, Sender, Slip};
use crate::{InvalidField, PageRequest, Scheduler, SchedulerError};

/// How labels are to be printed.
#[derive(Debug, Clone, Copy)]
pub struct LabelRequest {
    /// On what.
    pub format: Format,
    /// The first label of the sheet that is free, from 1.
    pub start: u32,
    /// In which language; the order's when nobody says.
    pub language: Option<Language>,
}

impl From<PaperError> for SchedulerError {
    fn from(error: PaperError) -> Self {
        match error {
            PaperError::NotOnSheet { .. } => InvalidField::new("start", error.to_string()).into(),
            PaperError::TooManyLabels { .. } => {
                Self::Conflict { code: "too_many_labels", text: error.to_string() }
            }
            PaperError::Code(..) | PaperError::Font(_) => Self::Config(error.to_string()),
        }
    }
}

/// Nothing to print.
fn nothing(code: &'static str, text: &str) -> SchedulerError {
    SchedulerError::Conflict { code, text: text.to_owned() }
}

impl Scheduler {
    /// The slip of an order. What is on its cards is told to who may see configurations.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Conflict` for a virtual order.
    pub fn order_slip(
        &self,
        caller: &Principal,
        id: OrderId,
        language: Option<Language>,
    ) -> Result<Paper, SchedulerError> {
        let order = self.order(caller, id)?;
        if order.kind == OrderKind::Virtual {
            return Err(nothing("no_parcel", "a virtual order has no parcel, and so no slip"));
        }
        self.slip_of(&order, caller.may(Action::Look), language)
    }

    /// The slip of an order for somebody whose rights were asked for already: a page, or a letter that it goes with.
    pub(crate) fn slip_of(
        &self,
        order: &OrderView,
        with_contents: bool,
        language: Option<Language>,
    ) -> Result<Paper, SchedulerError> {
        let channel = self.channel_by_slug(&order.channel)?;
        let sender = channel.map(|c| Sender {
            name: if c.sender_name.is_empty() { c.name } else { c.sender_name },
            address: c.sender_address,
            email: c.sender_email,
        });
        let recipe = match with_contents {
            true => self.inner.store.get::<OrderRecipe>(&order.id.to_string())?.map(|r| r.value.recipe),
            false => None,
        };
        let slip =
            Slip { order, sender: &sender.unwrap_or_default(), recipe: recipe.as_ref(), now: self.now() };
        Ok(papers::slip(&slip, self.language_of(order, language)?)?)
    }

    /// The language asked for, or that of who pays for the order.
    fn language_of(&self, order: &OrderView, asked: Option<Language>) -> Result<Language, SchedulerError> {
        let payer = match (asked, order.organization) {
            (None, Some(id)) => self.inner.store.get::<Organization>(&id.to_string())?,
            _ => None,
        };
        Ok(asked.or_else(|| payer?.value.language.parse().ok()).unwrap_or_default())
    }

    /// A label for each card of an order.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Invalid`, `Conflict` when no card is written yet, or too many are.
    pub fn order_labels(
        &self,
        caller: &Principal,
        id: OrderId,
        request: &LabelRequest,
    ) -> Result<Paper, SchedulerError> {
        let order = self.order(caller, id)?;
        let mut cards = up_to(MAX_LABELS + 1, |page| self.cards(caller, Some(id), page))?;
        cards.sort_by_key(|card| (card.spare, card.record.copy));
        if cards.is_empty() {
            return Err(nothing(
                "no_cards",
                "no card of this order is written yet: labels are for written cards",
            ));
        }
        let language = self.language_of(&order, request.language)?;
        let labels: Vec<Label> = cards.iter().map(|card| Label::card(Some(&order), card, language)).collect();
        Ok(papers::labels(&labels, request.format, request.start, &order.name, language)?)
    }

    /// The label of one card.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Invalid`.
    pub fn card_label(
        &self,
        caller: &Principal,
        uid: ObjectId,
        request: &LabelRequest,
    ) -> Result<Paper, SchedulerError> {
        let card: CardView = self.card(caller, uid)?;
        // The order may be removed, its card is still there.
        let order = match self.order(caller, card.record.order) {
            Ok(order) => Some(order),
            Err(SchedulerError::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        let language = match &order {
            Some(order) => self.language_of(order, request.language)?,
            None => request.language.unwrap_or_default(),
        };
        let label = Label::card(order.as_ref(), &card, language);
        Ok(papers::labels(&[label], request.format, request.start, &card.id.to_string(), language)?)
    }

    /// A label for each slot of an appliance.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Invalid`, `Conflict` when it has not told of any.
    pub fn slot_labels(
        &self,
        caller: &Principal,
        id: ApplianceId,
        request: &LabelRequest,
    ) -> Result<Paper, SchedulerError> {
        let appliance = self.appliance(caller, id)?;
        let mut slots = up_to(usize::MAX, |page| self.slots(caller, page))?;
        slots.retain(|slot| slot.appliance == id);
        if slots.is_empty() {
            return Err(nothing("no_slots", "this appliance has not told of any slot yet"));
        }
        let labels: Vec<Label> = slots.iter().map(Label::slot).collect();
        let language = request.language.unwrap_or_default();
        Ok(papers::labels(&labels, request.format, request.start, &appliance.label, language)?)
    }
}

/// Objects of a list, up to `most`.
fn up_to<T>(
    most: usize,
    read: impl Fn(&PageRequest) -> Result<Page<T>, SchedulerError>,
) -> Result<Vec<T>, SchedulerError> {
    let mut items = Vec::new();
    let mut request = PageRequest::first(500);
    loop {
        let page = read(&request)?;
        items.extend(page.items);
        request.cursor = page.next_cursor;
        if request.cursor.is_none() || items.len() >= most {
            items.truncate(most);
            return Ok(items);
        }
    }
}
