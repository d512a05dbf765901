//! Removing orders, and forgetting who people were. What was made and sent stays countable: cards keep their records, and
//! orders of a forgotten user keep their numbers. Refused while anything of it is running.

use cardshop_protocol::ids::{ObjectId, OrderId};
use serde_json::{Value, json};

use super::ask::{Answer as Answered, Question};
use super::keys::still_matters;
use super::users::{not_oneself, unique_name};
use crate::core::address::Address;
use crate::core::documents::{
    ApiKey, Audit, Configuration, FormerName, Grant, JoinTokenDocument, OrderRecipe, Story, Unique, User,
};
use crate::core::notify::message::{Message, To};
use crate::core::notify::preferences::Preferences;
use crate::core::order::{Order, Refusal};
use crate::core::rights::{Action, Principal};
use crate::core::task_log::TaskLog;
use crate::core::views::{OrderView, UserView};
use crate::store::{Batch, Document, Select, StoreError, Stored};
use crate::{Scheduler, SchedulerError};

/// Documents changed or removed in one batch.
const AT_ONCE: usize = 200;
/// Largest answer of a warehouse that is read, bytes.
const MAX_ANSWER: u64 = 64 * 1024;

/// What becomes of a document that is looked at.
enum Fate<T> {
    Stays,
    Becomes(T),
    Goes,
}

impl<T> Fate<T> {
    fn of(changed: bool, value: T) -> Self {
        if changed { Self::Becomes(value) } else { Self::Stays }
    }
}

impl Scheduler {
    /// Forgets who gets an order that has ended: recipient, tracking codes and what was written to them.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Refused` while the order is open.
    pub async fn anonymise_order(
        &self,
        caller: &Principal,
        id: OrderId,
    ) -> Result<OrderView, SchedulerError> {
        caller.must(Action::Order)?;
        let mut order = self.order_of(caller, id)?;
        self.must_have_ended(&order)?;
        let codes: Vec<String> = order.shipments.iter().filter_map(|s| s.tracking.clone()).collect();
        self.rewrite::<Story>(Some(("order", &id.to_string())), |mut story| {
            let before = story.text.clone();
            for code in &codes {
                story.text = story.text.replace(code.as_str(), "(forgotten)");
            }
            Fate::of(story.text != before, story)
        })
        .await?;
        let decide = || {
            let stored = self.inner.store.get::<Order>(&id.to_string())?;
            let stored = stored.ok_or(SchedulerError::NotFound("order"))?;
            let mut order = stored.value.clone();
            forget_recipient(&mut order);
            let mut batch = self.audited(caller, "order.anonymise", &id.to_string());
            batch.update(&stored, &order);
            Ok((Some(batch), order))
        };
        order = self.change(decide).await?.0;
        self.rewrite::<Message>(Some(("order", &id.to_string())), |_| Fate::Goes).await?;
        self.announce_order(&order);
        Ok(OrderView::new(&order, self.now()))
    }

    /// Removes an order that has ended, with its tasks, recipe and story. The image goes from its warehouse when no other
    /// order needs it. Records of cards stay: cards are out there.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Refused` while it is open or the warehouse has not heard of its end, `Unreachable`.
    pub async fn delete_order(&self, caller: &Principal, id: OrderId) -> Result<OrderView, SchedulerError> {
        caller.must(Action::Order)?;
        let order = self.order_of(caller, id)?;
        self.must_have_ended(&order)?;
        if order.shelves().contains(&"link") {
            let text = "its warehouse has not heard yet that the link ended: try again in a minute";
            return Err(Refusal { code: "link_not_ended", text: text.into() }.into());
        }
        self.let_image_go(&order).await?;
        let text = id.to_string();
        self.rewrite::<Story>(Some(("order", &text)), |_| Fate::Goes).await?;
        self.rewrite::<TaskLog>(Some(("order", &text)), |_| Fate::Goes).await?;
        self.rewrite::<Message>(Some(("order", &text)), |_| Fate::Goes).await?;
        self.rewrite::<Grant>(Some(("order", &text)), |_| Fate::Goes).await?;
        let decide = || {
            let stored = self.inner.store.get::<Order>(&text)?;
            let stored = stored.ok_or(SchedulerError::NotFound("order"))?;
            self.must_have_ended(&stored.value)?;
            let mut batch = self.audited(caller, "order.delete", &text);
            // The update holds the batch to the version that had ended: somebody may retry a failed order right now.
            batch.update(&stored, &stored.value);
            batch.remove::<OrderRecipe>(&text).remove::<Order>(&text);
            Ok((Some(batch), stored.value))
        };
        let (order, _) = self.change(decide).await?;
        Ok(OrderView::new(&order, self.now()))
    }

    fn must_have_ended(&self, order: &Order) -> Result<(), SchedulerError> {
        let status = order.status(self.now());
        if status.is_ended() && !order.has_unshipped_cards() {
            return Ok(());
        }
        let text = format!("the order is {}: cancel it or wait for its end", status.as_str());
        Err(Refusal { code: "order_open", text }.into())
    }

    /// Lets the warehouse remove the image when no other order is made of it.
    async fn let_image_go(&self, order: &Order) -> Result<(), SchedulerError> {
        let Some(image) = &order.image else { return Ok(()) };
        let text = image.id.to_string();
        let select = Select { index: Some(("image", &text)), limit: 2, ..Select::default() };
        if self.inner.store.list::<Order>(select)?.iter().any(|o| o.value.id != order.id) {
            return Ok(());
        }
        for warehouse in order.warehouses() {
            let keep = json!({"keep_until": self.now()});
            let question = Question::patch(format!("{warehouse}/images/{text}"), keep);
            match self.ask(question, Some(self.own_token()), MAX_ANSWER).await {
                Answered::Body(_) | Answered::NotFound => {}
                Answered::TooLarge => {
                    return Err(SchedulerError::Unreachable("the warehouse's answer is too large".into()));
                }
                Answered::Failed(text) => return Err(SchedulerError::Unreachable(text)),
            }
        }
        Ok(())
    }

    /// Forgets who a user was: the name in whatever it made or changed becomes a made-up one, recipients of its orders go,
    /// and it can never log in again. Refused while an order of it is open.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Conflict` for the caller itself or while an order is open.
    pub async fn anonymise_user(&self, caller: &Principal, id: ObjectId) -> Result<UserView, SchedulerError> {
        caller.must(Action::Administer)?;
        let stored = self.inner.store.get::<User>(&id.to_string())?;
        let user = stored.ok_or(SchedulerError::NotFound("user"))?.value;
        not_oneself(caller, &user)?;
        self.forget_user(caller, id).await
    }

    /// As [`Scheduler::anonymise_user`], also for the caller itself.
    pub(crate) async fn forget_user(
        &self,
        caller: &Principal,
        id: ObjectId,
    ) -> Result<UserView, SchedulerError> {
        let stored = self.inner.store.get::<User>(&id.to_string())?;
        let user = stored.ok_or(SchedulerError::NotFound("user"))?.value;
        if user.anonymised {
            return Ok(UserView::from(&user));
        }
        let now = self.now();
        let open = self.all::<Order>(Some(("shelf", "open")))?;
        if open.iter().any(|o| o.created_by == user.username && !o.status(now).is_ended()) {
            let text = "an order of this user is open: cancel it or wait for its end".to_owned();
            return Err(SchedulerError::Conflict { code: "order_open", text });
        }
        // First it is locked out, then the traces go, and last the name: broken off in between, it is simply done again.
        if !user.disabled {
            self.lock_out(caller, id).await?;
        }
        let text = id.to_string();
        let new = format!("former-{}", &text[text.len() - 8..]);
        self.forget_name(&user.username, &new).await?;
        self.forget_logins(&user).await?;
        self.forget_messages(&user).await?;
        let unusable = self.inner.passwords.hash(super::passwords::random_password()).await?;
        let decide = || {
            let stored = self.inner.store.get::<User>(&text)?;
            let stored = stored.ok_or(SchedulerError::NotFound("user"))?;
            let changed = User {
                username: new.clone(),
                password: unusable.clone(),
                email: None,
                disabled: true,
                anonymised: true,
                ..stored.value.clone()
            };
            let former = FormerName { name: stored.value.username.clone(), epoch: changed.epoch, at: now };
            // Who forgets itself is not named again by the line that says so.
            let mut by = caller.clone();
            if by.sub == stored.value.username {
                (by.sub, by.address) = (new.clone(), String::new());
            }
            let mut batch = self.audited(&by, "user.anonymise", &text);
            batch.update(&stored, &changed).put(&unique_name(&changed)).put(&former);
            Ok((Some(batch), changed))
        };
        let (user, _) = self.change(decide).await?;
        self.publish_keys()?;
        Ok(UserView::from(&user))
    }

    /// Removes what was written to a user, and what it said about that.
    async fn forget_messages(&self, user: &User) -> Result<(), SchedulerError> {
        self.rewrite::<Message>(None, |message| {
            let to_them = match (&message.to, &user.email) {
                (To::Mail { person, copy_of }, Some(email)) => {
                    let mut persons = std::iter::once(person).chain(copy_of);
                    persons.any(|person| person.address.eq_ignore_ascii_case(email))
                }
                _ => false,
            };
            if to_them || message.user == Some(user.id) { Fate::Goes } else { Fate::Stays }
        })
        .await?;
        let mut batch = Batch::new();
        batch.remove::<Preferences>(&user.id.to_string());
        Ok(self.inner.store.apply(batch).await?)
    }

    /// Puts `new` wherever `old` is named.
    async fn forget_name(&self, old: &str, new: &str) -> Result<(), SchedulerError> {
        let rename = |name: &mut String| {
            let same = *name == old;
            if same {
                new.clone_into(name);
            }
            same
        };
        self.rewrite::<Order>(None, |mut order| {
            let own = rename(&mut order.created_by);
            if own {
                forget_recipient(&mut order);
            }
            let canceled = order.canceled.as_mut().is_some_and(|c| rename(&mut c.by));
            let shipped = order.shipments.iter_mut().map(|s| rename(&mut s.by)).filter(|s| *s).count() > 0;
            Fate::of(own || canceled || shipped, order)
        })
        .await?;
        self.rewrite::<Story>(None, |mut story| {
            let renamed = replace_word(&story.text, old, new);
            let changed = renamed != story.text;
            story.text = renamed;
            Fate::of(changed, story)
        })
        .await?;
        self.rewrite::<Configuration>(None, |mut c| Fate::of(rename(&mut c.created_by), c)).await?;
        self.rewrite::<Address>(None, |mut a| Fate::of(rename(&mut a.created_by), a)).await?;
        self.rewrite::<ApiKey>(None, |mut k| Fate::of(rename(&mut k.created_by), k)).await?;
        self.rewrite::<JoinTokenDocument>(None, |mut t| Fate::of(rename(&mut t.created_by), t)).await?;
        self.rewrite::<Audit>(None, |mut line| {
            let own = rename(&mut line.who);
            if own {
                line.address = String::new();
            }
            Fate::of(own, line)
        })
        .await
    }

    /// Looks at every document of a kind, or of an index value.
    async fn rewrite<T: Document + Clone>(
        &self,
        index: Option<(&str, &str)>,
        fate: impl Fn(T) -> Fate<T>,
    ) -> Result<(), SchedulerError> {
        let mut after: Option<String> = None;
        loop {
            let decide = || {
                let select = Select { index, after: after.as_deref(), limit: AT_ONCE, newest_first: false };
                let found: Vec<Stored<T>> = self.inner.store.list::<T>(select)?;
                let mut batch = Batch::new();
                for stored in &found {
                    match fate(stored.value.clone()) {
                        Fate::Stays => {}
                        Fate::Becomes(new) => {
                            batch.update(stored, &new);
                        }
                        Fate::Goes => {
                            batch.remove::<T>(&stored.value.id());
                        }
                    }
                }
                let last = found.last().map(|stored| stored.value.id());
                Ok(((!batch.is_empty()).then_some(batch), last))
            };
            match self.change(decide).await?.0 {
                Some(last) => after = Some(last),
                None => return Ok(()),
            }
        }
    }

    /// Names that were given up can be taken again once their last tokens have ended.
    pub(crate) async fn free_former_names(&self) -> Result<(), SchedulerError> {
        let now = self.now();
        for former in self.all::<FormerName>(None)? {
            if still_matters(Some(former.at), now) {
                continue;
            }
            let mut batch = Batch::new();
            batch.remove::<FormerName>(&former.name).remove::<Unique>(&format!("user:{}", former.name));
            match self.inner.store.apply(batch).await {
                Ok(()) | Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn forget_recipient(order: &mut Order) {
    order.recipient = Value::Null;
    for shipment in &mut order.shipments {
        shipment.tracking = None;
    }
}

/// `text` with every word `old` replaced; a word ends where a name cannot go on.
fn replace_word(text: &str, old: &str, new: &str) -> String {
    let in_name = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(old) {
        let (before, behind) = (&rest[..at], &rest[at + old.len()..]);
        let starts = before.chars().next_back().is_none_or(|c| !in_name(c));
        // The full stop of a sentence ends a name, unless the name goes on behind it.
        let next = behind.strip_prefix('.').unwrap_or(behind);
        let ends = next.chars().next().is_none_or(|c| !in_name(c));
        result.push_str(before);
        result.push_str(if starts && ends { new } else { old });
        rest = behind;
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::replace_word;

    #[test]
    fn a_name_is_replaced_where_it_is_a_word_of_its_own() {
        let replaced = |text: &str| replace_word(text, "ada", "former-1");
        assert_eq!(replaced("ada ordered 3 × School of ada."), "former-1 ordered 3 × School of former-1.");
        assert_eq!(replaced("ada.b ada2 nada ada@x.org"), "ada.b ada2 nada ada@x.org");
        assert_eq!(replaced("(ada)"), "(former-1)");
        assert_eq!(replaced(""), "");
    }
}
