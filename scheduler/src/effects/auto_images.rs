//! Auto-images: made, changed and served here; when they are built is decided in `core::auto_image`.

use cardshop_protocol::api::Page;
use cardshop_protocol::ids::{Channel, ObjectId, OrderId};
use cardshop_protocol::token::Role;
use serde_json::{Value, json};

use super::catalogue::not_an_object;
use super::idempotency::Once;
use super::paging::PageRequest;
use crate::core::auto_image::{AutoImage, AutoImageView, MAX_DAYS, Step, next};
use crate::core::documents::{DEFAULT_CHANNEL, Unique};
use crate::core::fields::{Fields, InvalidField};
use crate::core::order::{Input, Order};
use crate::core::rights::{Action, Principal};
use crate::core::views::OrderView;
use crate::store::{Batch, StoreError, Stored};
use crate::{Scheduler, SchedulerError};

/// In whose name their orders are placed.
pub(crate) const BUILDER: &str = "auto-images";
/// Days from one build to the next when nobody says.
const DEFAULT_DAYS: u32 = 30;

impl Scheduler {
    fn auto_image_of(&self, caller: &Principal, id: ObjectId) -> Result<Stored<AutoImage>, SchedulerError> {
        let found = self.inner.store.get::<AutoImage>(&id.to_string())?;
        found.filter(|a| caller.sees(&a.value.channel)).ok_or(SchedulerError::NotFound("auto-image"))
    }

    /// Makes an auto-image from `{name, configuration, channel?, public?, every_days?, paused?}`; its first build begins at once.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid`, `Conflict` when the name is taken.
    pub async fn create_auto_image(
        &self,
        caller: &Principal,
        body: Value,
        once: Option<Once>,
    ) -> Result<AutoImageView, SchedulerError> {
        caller.must(Action::Order)?;
        if let Some(answer) = self.answered(once.as_ref()).await? {
            return Ok(answer);
        }
        let mut fields = Fields::new(body).ok_or_else(not_an_object)?;
        let channel = match (fields.optional::<Channel>("channel")?, &caller.channels[..]) {
            (Some(channel), _) => channel,
            (None, [only]) => only.clone(),
            (None, _) => DEFAULT_CHANNEL.parse().expect("a slug"),
        };
        if !caller.sees(&channel) || self.channel_by_slug(&channel)?.is_none() {
            return Err(InvalidField::new("channel", format!("{channel} is not one of yours")).into());
        }
        let now = self.now();
        let mut auto = AutoImage {
            id: self.next_id(),
            name: fields.required("name")?,
            configuration: fields.required("configuration")?,
            channel,
            public: false,
            every_days: DEFAULT_DAYS,
            created: now,
            created_by: caller.sub.clone(),
            current: None,
            built: None,
            building: None,
            failures: 0,
            failure: None,
            next_at: now,
            paused: false,
        };
        self.read_auto_image(caller, &mut auto, &mut fields)?;
        let unique = Unique { kind: "auto-image".into(), name: auto.name.to_string(), owner: auto.id };
        let mut batch = self.audited(caller, "auto-image.create", &auto.id.to_string());
        batch.create(&unique).create(&auto);
        let view = self.view_auto_image(&auto)?;
        self.apply_once(batch, once, view, |kind| {
            (kind == "unique").then(|| SchedulerError::Conflict {
                code: "name_taken",
                text: format!("there is an auto-image {} already", auto.name),
            })
        })
        .await
    }

    /// What may be changed later too.
    fn read_auto_image(
        &self,
        caller: &Principal,
        auto: &mut AutoImage,
        fields: &mut Fields,
    ) -> Result<(), SchedulerError> {
        if let Some(configuration) = fields.optional("configuration")? {
            auto.configuration = configuration;
        }
        self.configuration_of(caller, auto.configuration)
            .map_err(|_| InvalidField::new("configuration", "there is no such configuration"))?;
        auto.public = fields.optional("public")?.unwrap_or(auto.public);
        auto.paused = fields.optional("paused")?.unwrap_or(auto.paused);
        auto.every_days = fields.optional("every_days")?.unwrap_or(auto.every_days);
        if !(1..=MAX_DAYS).contains(&auto.every_days) {
            return Err(InvalidField::new("every_days", format!("must be 1 to {MAX_DAYS}")).into());
        }
        Ok(())
    }

    /// Auto-images of the caller's channels.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid` for a wrong cursor.
    pub fn auto_images(
        &self,
        caller: &Principal,
        page: &PageRequest,
    ) -> Result<Page<AutoImageView>, SchedulerError> {
        caller.must(Action::Look)?;
        let found = self
            .page::<AutoImage, _>(page, None, false, |a| caller.sees(&a.value.channel).then_some(a.value))?;
        let items = found.items.iter().map(|a| self.view_auto_image(a)).collect::<Result<_, _>>()?;
        Ok(Page { items, next_cursor: found.next_cursor })
    }

    /// One auto-image.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`.
    pub fn auto_image(&self, caller: &Principal, id: ObjectId) -> Result<AutoImageView, SchedulerError> {
        caller.must(Action::Look)?;
        self.view_auto_image(&self.auto_image_of(caller, id)?.value)
    }

    /// The auto-image that is served by this name: a public one to anybody, another to who sees its channel.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn served_auto_image(
        &self,
        caller: Option<&Principal>,
        name: &Channel,
    ) -> Result<AutoImageView, SchedulerError> {
        let none = || SchedulerError::NotFound("image");
        let unique = self.inner.store.get::<Unique>(&format!("auto-image:{name}"))?.ok_or_else(none)?;
        let found = self.inner.store.get::<AutoImage>(&unique.value.owner.to_string())?;
        let may = |auto: &AutoImage| {
            auto.public || caller.is_some_and(|c| c.may(Action::Watch) && c.sees(&auto.channel))
        };
        let auto = found.map(|a| a.value).filter(may).ok_or_else(none)?;
        let mut view = self.view_auto_image(&auto)?;
        if caller.is_none() {
            // What went wrong at the site is not everybody's.
            view.failure = None;
        }
        Ok(view)
    }

    fn view_auto_image(&self, auto: &AutoImage) -> Result<AutoImageView, SchedulerError> {
        let current = self.order_named(auto.current)?.map(|order| OrderView::new(&order, self.now()));
        Ok(AutoImageView {
            id: auto.id,
            name: auto.name.clone(),
            configuration: auto.configuration,
            channel: auto.channel.clone(),
            public: auto.public,
            every_days: auto.every_days,
            link: current.as_ref().and_then(|order| order.link.clone()),
            size: current.as_ref().and_then(|order| order.image.as_ref()).map(|image| image.size),
            built: auto.built,
            current: auto.current,
            building: auto.building,
            failures: auto.failures,
            failure: auto.failure.clone(),
            next_at: auto.next_at,
            paused: auto.paused,
        })
    }

    fn order_named(&self, id: Option<OrderId>) -> Result<Option<Order>, SchedulerError> {
        let Some(id) = id else { return Ok(None) };
        Ok(self.inner.store.get::<Order>(&id.to_string())?.map(|order| order.value))
    }

    async fn change_auto_image(
        &self,
        caller: &Principal,
        id: ObjectId,
        action: &str,
        mut change: impl FnMut(&mut AutoImage) -> Result<(), SchedulerError>,
    ) -> Result<AutoImageView, SchedulerError> {
        let decide = || {
            let stored = self.auto_image_of(caller, id)?;
            let mut auto = stored.value.clone();
            change(&mut auto)?;
            let mut batch = self.audited(caller, action, &id.to_string());
            batch.update(&stored, &auto);
            Ok((Some(batch), auto))
        };
        let (auto, _) = self.change(decide).await?;
        self.view_auto_image(&auto)
    }

    /// Changes `{configuration?, public?, every_days?, paused?}`; what is served stays until the next build.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Invalid`.
    pub async fn update_auto_image(
        &self,
        caller: &Principal,
        id: ObjectId,
        body: Value,
    ) -> Result<AutoImageView, SchedulerError> {
        caller.must(Action::Order)?;
        self.change_auto_image(caller, id, "auto-image.update", |auto| {
            let mut fields = Fields::new(body.clone()).ok_or_else(not_an_object)?;
            self.read_auto_image(caller, auto, &mut fields)
        })
        .await
    }

    /// Has it built now, whatever its schedule says and however often it failed.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Conflict` while it is paused.
    pub async fn trigger_auto_image(
        &self,
        caller: &Principal,
        id: ObjectId,
    ) -> Result<AutoImageView, SchedulerError> {
        caller.must(Action::Order)?;
        let now = self.now();
        self.change_auto_image(caller, id, "auto-image.trigger", |auto| {
            if auto.paused {
                let text = "this auto-image is paused: let it go on first".to_owned();
                return Err(SchedulerError::Conflict { code: "paused", text });
            }
            auto.trigger(now);
            Ok(())
        })
        .await
    }

    /// Serves it no more: what is built is canceled, what is served ends.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`.
    pub async fn delete_auto_image(
        &self,
        caller: &Principal,
        id: ObjectId,
    ) -> Result<AutoImageView, SchedulerError> {
        caller.must(Action::Order)?;
        let auto = self.auto_image_of(caller, id)?.value;
        let by = || BUILDER.to_owned();
        self.end_order(auto.building, Input::Cancel { by: by() }).await?;
        self.end_order(auto.current, Input::Expire { by: by() }).await?;
        let view = self.view_auto_image(&auto)?;
        let mut batch = self.audited(caller, "auto-image.delete", &id.to_string());
        batch.remove::<AutoImage>(&id.to_string());
        batch.remove::<Unique>(&format!("auto-image:{}", auto.name));
        self.inner.store.apply(batch).await?;
        Ok(view)
    }

    /// An order that is gone or has ended otherwise needs no end.
    async fn end_order(&self, id: Option<OrderId>, input: Input) -> Result<(), SchedulerError> {
        let Some(id) = id else { return Ok(()) };
        match self.step_order(id, input, |_, _, _| {}).await {
            Ok(_) | Err(SchedulerError::NotFound(_) | SchedulerError::Refused(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Builds what is due, serves what is built. One that cannot be advanced does not hold up the others.
    pub(crate) async fn tick_auto_images(&self) -> Result<(), SchedulerError> {
        let mut first = Ok(());
        for auto in self.all::<AutoImage>(None)? {
            match self.advance_auto_image(&auto.id.to_string()).await {
                // Somebody changed it meanwhile: the next look will do.
                Ok(()) | Err(SchedulerError::Store(StoreError::Conflict { .. })) => {}
                Err(error) => first = first.and(Err(error)),
            }
        }
        first
    }

    async fn advance_auto_image(&self, id: &str) -> Result<(), SchedulerError> {
        let Some(stored) = self.inner.store.get::<AutoImage>(id)? else { return Ok(()) };
        let now = self.now();
        let mut auto = stored.value.clone();
        let (current, building) = (self.order_named(auto.current)?, self.order_named(auto.building)?);
        let before = match next(&auto, current.as_ref(), building.as_ref(), now) {
            Step::Wait => return Ok(()),
            Step::Build => return self.build_auto_image(stored).await,
            Step::KeepCurrent => {
                return self.end_order(auto.current, Input::Extend { by: BUILDER.into() }).await;
            }
            Step::Adopt => auto.adopt(now),
            Step::Failed(reason) => {
                tracing::warn!(auto_image = %auto.name, reason, "an auto-image was not built");
                auto.fail(&reason, now);
                None
            }
        };
        let mut batch = Batch::new();
        batch.update(&stored, &auto);
        self.inner.store.apply(batch).await?;
        // Broken off here, what was served before ends by itself, later.
        self.end_order(before, Input::Expire { by: BUILDER.into() }).await
    }

    async fn build_auto_image(&self, stored: Stored<AutoImage>) -> Result<(), SchedulerError> {
        if self.maintenance()?.on {
            return Ok(());
        }
        let auto = &stored.value;
        let builder = Principal {
            sub: BUILDER.into(),
            role: Role::Staff,
            channels: Vec::new(),
            epoch: 0,
            rights: None,
            expires: 0,
            signed_by: None,
            address: "this site".into(),
        };
        let order = json!({
            "configuration": auto.configuration, "kind": "virtual", "quantity": auto.quantity(),
            "channel": auto.channel, "name": auto.name,
        });
        let placed = self.place_order(&builder, order, None, |order, batch| {
            batch.update(&stored, &AutoImage { building: Some(order.id), ..auto.clone() });
        });
        match placed.await {
            Ok(_) => Ok(()),
            // The channel was closed, or the configuration is gone.
            Err(error @ (SchedulerError::Invalid(_) | SchedulerError::Refused(_))) => {
                let mut failed = auto.clone();
                failed.fail(&error.to_string(), self.now());
                let mut batch = Batch::new();
                batch.update(&stored, &failed);
                Ok(self.inner.store.apply(batch).await?)
            }
            Err(error) => Err(error),
        }
    }
}
