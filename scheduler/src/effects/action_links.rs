//! Links in letters that do one thing to one order: ship, retry, cancel or extend. Looking at one changes nothing; it acts
//! once, when it is posted, in the name of who made it and with the rights that person has then.

use std::time::Duration;

use cardshop_protocol::ids::OrderId;
use cardshop_protocol::token::Claims;

use crate::core::documents::{UsedLink, User};
use crate::core::fields::InvalidField;
use crate::core::order::{Input, Order};
use crate::core::purpose::{LinkAct, Purpose};
use crate::core::rights::Principal;
use crate::core::views::{ActionLink, ActionLinkView, NewActionLink, OrderView};
use crate::{Scheduler, SchedulerError};

/// Days a link is good for when nobody says.
const DEFAULT_DAYS: u32 = 14;
/// Days a link is good for at most: below [`super::tokens::LONGEST_PURPOSE`].
const MAX_DAYS: u32 = 30;
const DAY: Duration = Duration::from_secs(86_400);

impl Scheduler {
    /// Makes a link for one act on one order, in the caller's name.
    ///
    /// # Errors
    /// `NotAllowed` when the caller may not do it itself, or is no person; `NotFound`, `Invalid`.
    pub async fn make_action_link(
        &self,
        caller: &Principal,
        order: OrderId,
        new: NewActionLink,
    ) -> Result<ActionLink, SchedulerError> {
        caller.must(new.act.needs())?;
        self.order_of(caller, order)?;
        let days = new.days.unwrap_or(DEFAULT_DAYS);
        if !(1..=MAX_DAYS).contains(&days) {
            return Err(InvalidField::new("days", format!("must be 1 to {MAX_DAYS}")).into());
        }
        let user = self.user_by_name(&caller.sub)?.filter(|_| caller.rights.is_none());
        let user = user.ok_or_else(|| SchedulerError::NotAllowed("only people make links".into()))?;
        let expires = self.now() + DAY * days;
        let action = format!("order.link {}", new.act.name());
        self.inner.store.apply(self.audited(caller, &action, &order.to_string())).await?;
        let token = self.purpose_token(&user.value, Purpose::Act(new.act, order), expires);
        Ok(ActionLink { token, expires })
    }

    /// What a link would do. Changes nothing.
    ///
    /// # Errors
    /// `NotKnown` for a token that does not count, `NotFound` when its order is gone.
    pub fn look_at_action_link(&self, token: &str) -> Result<ActionLinkView, SchedulerError> {
        let (act, order, claims, _) = self.read_link(token, "")?;
        Ok(ActionLinkView {
            act,
            order: order.id,
            status: order.status(self.now()),
            cards: order.verified() - order.shipped(),
            name: order.name,
            used: self.inner.store.get::<UsedLink>(&claims.jti)?.is_some(),
            expires: end(&claims),
            by: claims.sub,
        })
    }

    /// Does what the link is for, once.
    ///
    /// # Errors
    /// `NotKnown`, `NotAllowed` when its maker may not any more, `NotFound`, `Conflict` when it was used, `Refused` when
    /// the order's state has no place for it.
    pub async fn use_action_link(
        &self,
        token: &str,
        tracking: Option<String>,
        address: &str,
    ) -> Result<OrderView, SchedulerError> {
        let (act, order, claims, maker) = self.read_link(token, address)?;
        if self.inner.store.get::<UsedLink>(&claims.jti)?.is_some() {
            let text = "this link was used already: it is good once".to_owned();
            return Err(SchedulerError::Conflict { code: "link_used", text });
        }
        let by = maker.sub.clone();
        let input = match act {
            LinkAct::Ship => Input::Ship { count: None, tracking, by },
            LinkAct::Retry => Input::Retry { by },
            LinkAct::Cancel => Input::Cancel { by },
            LinkAct::Extend => Input::Extend { by },
        };
        let action = format!("order.{} by link", act.name());
        let (order, _) = self
            .step_order(order.id, input, |order, _, batch| {
                batch.join(self.audited(&maker, &action, &order.id.to_string()));
                batch.create(&UsedLink { id: claims.jti.clone(), expires: end(&claims) });
            })
            .await?;
        Ok(OrderView::new(&order, self.now()))
    }

    fn read_link(
        &self,
        token: &str,
        address: &str,
    ) -> Result<(LinkAct, Order, Claims, Principal), SchedulerError> {
        let (purpose, claims, user) = self.read_purpose(token)?;
        let Purpose::Act(act, order) = purpose else { return Err(SchedulerError::NotKnown) };
        let maker = as_now(&user.value, &claims, address);
        maker.must(act.needs())?;
        let order = self.order_of(&maker, order)?;
        Ok((act, order, claims, maker))
    }
}

fn end(claims: &Claims) -> cardshop_protocol::time::Timestamp {
    cardshop_protocol::time::Timestamp::from_ms(claims.exp.saturating_mul(1000))
}

/// The maker of a link with the rights it has now.
fn as_now(user: &User, claims: &Claims, address: &str) -> Principal {
    Principal {
        sub: user.username.clone(),
        role: user.role,
        channels: user.channels.clone(),
        epoch: user.epoch,
        rights: None,
        expires: claims.exp,
        signed_by: claims.signed_by,
        address: address.to_owned(),
    }
}
