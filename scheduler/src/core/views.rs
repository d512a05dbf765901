//! What people and programs see of the documents: the bodies of the API and of the live stream.

use cardshop_protocol::api::{CardRecord, CreationPhase, Membership};
use cardshop_protocol::ids::{ApplianceId, Channel, ImageId, ObjectId, OrderId, SlotId, TaskId};
use cardshop_protocol::message::{Alert, Hardware, Info, Presence, SlotStatus, WritePhase};
use cardshop_protocol::time::Timestamp;
use cardshop_protocol::token::{ApiRight, Role};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::account_hook::AccountHook;
use super::blame::{BenchRecord, Hold};
use super::documents::{ApiKey, Appliance, CardDocument, JoinTokenDocument, User};
use super::order::{
    ImageHold, Order, OrderImage, OrderKind, OrderStatus, OrderedMedia, Shipment, StatusChange, TaskStatus,
};
use super::purpose::LinkAct;
use super::rights::Principal;
use super::task_log::{LogKind, TaskLog};

/// An order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrderView {
    /// Its id.
    pub id: OrderId,
    /// What people call it.
    pub name: String,
    /// Name of its image's file, without an ending.
    #[serde(default)]
    pub file_name: String,
    /// Cards or a link.
    pub kind: OrderKind,
    /// Where it stands.
    pub status: OrderStatus,
    /// Routes it.
    pub channel: Channel,
    /// What it is made from.
    pub configuration: ObjectId,
    /// Size of card, if one was asked for.
    pub media: Option<OrderedMedia>,
    /// Cards asked for.
    pub quantity: u32,
    /// Who pays for it.
    #[serde(default)]
    pub organization: Option<ObjectId>,
    /// Units it holds of what it costs.
    #[serde(default)]
    pub units: u64,
    /// Cards verified.
    pub verified: u32,
    /// Cards shipped.
    pub shipped: u32,
    /// Verified cards beyond the quantity.
    pub spare: u32,
    /// Who gets it: a text, or an object with `name`, `address`, `country`, `email`, `language`, `time_zone`.
    pub recipient: Value,
    /// Where the image is kept.
    pub warehouse: String,
    /// Warehouses that get it too.
    #[serde(default)]
    pub mirrors: Vec<String>,
    /// Higher goes first.
    pub priority: i32,
    /// The image, once it is there.
    pub image: Option<OrderImage>,
    /// Why its image is held: a retry lets it go on.
    #[serde(default)]
    pub hold: Option<ImageHold>,
    /// The creation task.
    pub creation: CreationView,
    /// What was sent.
    pub shipments: Vec<Shipment>,
    /// End of a virtual order.
    pub available_until: Option<Timestamp>,
    /// Address of its download while that is good.
    #[serde(default)]
    pub link: Option<String>,
    /// Its statuses so far.
    pub history: Vec<StatusChange>,
    /// When it was placed.
    pub created: Timestamp,
    /// By whom.
    pub created_by: String,
}

/// The creation task inside an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CreationView {
    /// Where it stands.
    pub status: TaskStatus,
    /// Who has it.
    pub owner: Option<String>,
    /// Step it is in.
    pub phase: Option<CreationPhase>,
    /// Bytes done in this step.
    pub done: u64,
    /// Bytes of this step.
    pub total: u64,
    /// Failures so far.
    pub failures: u32,
    /// Why it failed last.
    pub failure: Option<String>,
}

/// Where the order's image is downloaded from, while it may be.
fn link(order: &Order, now: Timestamp) -> Option<String> {
    let path = order.link.path.as_ref().filter(|_| order.status(now) == OrderStatus::Available)?;
    Some(format!("{}{path}", order.warehouse))
}

impl OrderView {
    /// Without the recipient for who may not know.
    pub fn for_eyes_of(self, caller: &Principal) -> Self {
        let recipient = if caller.sees_recipients() { self.recipient } else { Value::Null };
        Self { recipient, ..self }
    }

    /// `order` at `now`.
    pub fn new(order: &Order, now: Timestamp) -> Self {
        Self {
            id: order.id,
            name: order.name.clone(),
            file_name: order.file_name(),
            kind: order.kind,
            status: order.status(now),
            channel: order.channel.clone(),
            configuration: order.configuration,
            media: order.media.clone(),
            quantity: order.quantity,
            organization: order.organization,
            units: order.units_held,
            verified: order.verified(),
            shipped: order.shipped(),
            spare: order.spare,
            recipient: order.recipient.clone(),
            warehouse: order.warehouse.clone(),
            mirrors: order.mirrors.clone(),
            priority: order.priority,
            image: order.image.clone(),
            hold: order.hold.clone(),
            creation: CreationView {
                status: order.creation_status(),
                owner: order.creation.owner.clone(),
                phase: order.creation.phase,
                done: order.creation.done,
                total: order.creation.total,
                failures: order.creation.failures,
                failure: order.creation.failure.clone(),
            },
            shipments: order.shipments.clone(),
            available_until: order.available_until,
            link: link(order, now),
            history: order.history.clone(),
            created: order.created,
            created_by: order.created_by.clone(),
        }
    }
}

/// Step of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Phase {
    /// Of a creation task.
    Creation(CreationPhase),
    /// Of a write task.
    Write(WritePhase),
}

/// A task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskView {
    /// Its id.
    pub id: TaskId,
    /// `creation` or `write`.
    pub kind: String,
    /// Its order.
    pub order: OrderId,
    /// Routes it.
    pub channel: Channel,
    /// Which copy, of a write task.
    pub copy: Option<u32>,
    /// Where it stands.
    pub status: TaskStatus,
    /// Step, while it runs.
    pub phase: Option<Phase>,
    /// Creator or appliance that has it.
    pub worker: Option<String>,
    /// Where it is or was written.
    pub slot: Option<SlotId>,
    /// The verified card.
    pub card: Option<ObjectId>,
    /// Tries so far.
    pub attempts: u32,
    /// Why it failed last.
    pub failure: Option<String>,
}

impl TaskView {
    /// The creation task of `order`.
    pub(crate) fn creation(order: &Order) -> Self {
        let creation = &order.creation;
        Self {
            id: TaskId::creation(order.id),
            kind: "creation".into(),
            order: order.id,
            channel: order.channel.clone(),
            copy: None,
            status: order.creation_status(),
            phase: creation.phase.filter(|_| creation.status == TaskStatus::Running).map(Phase::Creation),
            worker: creation.owner.clone(),
            slot: None,
            card: None,
            attempts: creation.claims,
            failure: creation.failure.clone(),
        }
    }

    /// The task that writes `copy`; `holder` = the appliance whose live lease covers it.
    pub(crate) fn write(
        order: &Order,
        copy: u32,
        holder: Option<ApplianceId>,
        phase: Option<WritePhase>,
    ) -> Self {
        let write = order.writes.get(&copy).cloned().unwrap_or_default();
        let status = match (order.write_status(copy), holder) {
            (TaskStatus::Pending, Some(_)) => TaskStatus::Leased,
            (status, _) => status,
        };
        Self {
            id: TaskId::write(order.id, copy),
            kind: "write".into(),
            order: order.id,
            channel: order.channel.clone(),
            copy: Some(copy),
            status,
            phase: phase.filter(|_| status == TaskStatus::Running).map(Phase::Write),
            worker: write.appliance.or(holder).map(|a| a.to_string()),
            slot: write.slot,
            card: write.card,
            attempts: write.attempts,
            failure: write.failure,
        }
    }
}

/// An appliance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApplianceView {
    /// Its id.
    pub id: ApplianceId,
    /// What people call it.
    pub label: String,
    /// Where it stands.
    pub state: Membership,
    /// Channels it works for.
    pub channels: Vec<Channel>,
    /// Six characters, the same on its console.
    pub code: String,
    /// Its public key, base64url.
    pub public_key: String,
    /// What the machine is.
    pub hardware: Hardware,
    /// When it asked to join.
    pub joined: Timestamp,
    /// Online or not.
    pub presence: Presence,
    /// When it was heard last.
    pub heard: Option<Timestamp>,
    /// What it says of itself.
    pub info: Option<Info>,
    /// Alerts it raises, by code.
    pub alerts: std::collections::BTreeMap<String, Alert>,
}

impl ApplianceView {
    /// `appliance`, with what was heard of it.
    pub(crate) fn new(
        appliance: &Appliance,
        heard: Option<&super::picture::AppliancePicture>,
        now: Timestamp,
    ) -> Self {
        Self {
            id: appliance.id,
            label: appliance.label.clone(),
            state: appliance.state,
            channels: appliance.channels.clone(),
            code: appliance.code.clone(),
            public_key: appliance.public_key.clone(),
            hardware: appliance.hardware.clone(),
            joined: appliance.joined,
            presence: heard.map_or(Presence::Offline, |p| p.presence(now)),
            heard: heard.and_then(|p| p.heard),
            info: heard.and_then(|p| p.info.clone()),
            alerts: heard.map(|p| p.alerts.clone()).unwrap_or_default(),
        }
    }
}

/// Whether a slot is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SlotHoldView {
    /// `{appliance}/{slot}`.
    pub id: String,
    /// Which appliance.
    pub appliance: ApplianceId,
    /// Which slot.
    pub slot: SlotId,
    /// Why it takes no cards; none when it does.
    pub hold: Option<Hold>,
}

impl SlotHoldView {
    pub(crate) fn new(record: &BenchRecord, slot: &SlotId) -> Self {
        Self {
            id: format!("{}/{slot}", record.appliance),
            appliance: record.appliance,
            slot: slot.clone(),
            hold: record.slots.get(slot).and_then(|s| s.hold.clone()),
        }
    }
}

/// How the cards of a slot ended so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SlotCount {
    /// `{appliance}/{slot}`.
    pub id: String,
    /// Cards verified in it.
    pub verified: u64,
    /// Tries that failed in it.
    pub failed: u64,
}

/// The record of a written card.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CardView {
    /// Its own identity, as in the record.
    pub id: ObjectId,
    /// True when it is beyond the quantity.
    pub spare: bool,
    /// Channel of its order.
    pub channel: Option<Channel>,
    /// The record.
    #[serde(flatten)]
    pub record: CardRecord,
}

impl From<CardDocument> for CardView {
    fn from(card: CardDocument) -> Self {
        Self { id: card.record.uid, spare: card.spare, channel: card.channel, record: card.record }
    }
}

/// A user, without its password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UserView {
    /// Its id.
    pub id: ObjectId,
    /// Login name.
    pub username: String,
    /// Role.
    pub role: Role,
    /// Channels it works for.
    pub channels: Vec<Channel>,
    /// Who pays for its orders.
    #[serde(default)]
    pub organization: Option<ObjectId>,
    /// Where letters to it go.
    #[serde(default)]
    pub email: Option<String>,
    /// May not log in.
    pub disabled: bool,
    /// May not log in after this.
    #[serde(default)]
    pub expires: Option<Timestamp>,
    /// It orders downloads and no cards.
    #[serde(default)]
    pub links_only: bool,
    /// Who it was is forgotten.
    #[serde(default)]
    pub anonymised: bool,
    /// When it was made.
    pub created: Timestamp,
}

impl From<&User> for UserView {
    fn from(user: &User) -> Self {
        Self {
            id: user.id,
            username: user.username.clone(),
            role: user.role,
            channels: user.channels.clone(),
            organization: user.organization,
            email: user.email.clone(),
            disabled: user.disabled,
            expires: user.expires,
            links_only: user.links_only,
            anonymised: user.anonymised,
            created: user.created,
        }
    }
}

/// An API key, without its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApiKeyView {
    /// Its id.
    pub id: ObjectId,
    /// Its name, and its user name at the broker.
    pub name: String,
    /// What it may do.
    pub rights: Vec<ApiRight>,
    /// Channels it works for.
    pub channels: Vec<Channel>,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created: Timestamp,
    /// Refused from then on.
    pub expires: Timestamp,
    /// When it was ended.
    pub revoked: Option<Timestamp>,
    /// When it was used at the API last, to a minute.
    pub last_used: Option<Timestamp>,
}

impl From<&ApiKey> for ApiKeyView {
    fn from(key: &ApiKey) -> Self {
        Self {
            id: key.id,
            name: key.name.clone(),
            rights: key.rights.clone(),
            channels: key.channels.clone(),
            created_by: key.created_by.clone(),
            created: key.created,
            expires: key.expires,
            revoked: key.revoked,
            last_used: key.last_used,
        }
    }
}

/// An API key with its text, which is told once. It is a secret, so this has no `Debug`.
#[derive(Clone, Serialize, JsonSchema)]
pub struct NewApiKey {
    /// The password; the user name is the key's name.
    pub key: String,
    /// The rest.
    #[serde(flatten)]
    pub view: ApiKeyView,
}

/// A join token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JoinTokenView {
    /// Its id.
    pub id: ObjectId,
    /// The public characters in the token.
    pub token_id: String,
    /// Channels its appliance will work for.
    pub channels: Vec<Channel>,
    /// By whom it was made.
    pub created_by: String,
    /// Not good after this.
    pub expires: Timestamp,
    /// Who used it.
    pub used_by: Option<ApplianceId>,
}

impl From<&JoinTokenDocument> for JoinTokenView {
    fn from(token: &JoinTokenDocument) -> Self {
        Self {
            id: token.id,
            token_id: token.token_id.clone(),
            channels: token.channels.clone(),
            created_by: token.created_by.clone(),
            expires: token.expires,
            used_by: token.used_by,
        }
    }
}

/// A new join token: the only time its secret is shown.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct NewJoinToken {
    /// Its id.
    pub id: ObjectId,
    /// The token's text, for `JOIN.TXT`.
    pub token: String,
    /// Not good after this.
    pub expires: Timestamp,
    /// The server to join, for `JOIN.TXT`.
    pub server: String,
}

/// An image, as its orders know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageView {
    /// Its id.
    pub id: ImageId,
    /// Name of the order that first made it.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Bytes that travel.
    pub data_bytes: u64,
    /// Where it is kept.
    pub warehouse: String,
    /// Channel of that order.
    pub channel: Channel,
    /// The order that first made it.
    pub order: OrderId,
}

/// `POST /orders/{id}/action-links`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct NewActionLink {
    /// What it may do.
    pub act: LinkAct,
    /// Days it is good for; 14 when nobody says.
    #[serde(default)]
    pub days: Option<u32>,
}

/// A token that does one thing to one order. It is a secret, so this has no `Debug`.
#[derive(Clone, Serialize, JsonSchema)]
pub struct ActionLink {
    /// Belongs behind a `#`, so that no log and no referrer has it.
    pub token: String,
    /// Not good after this.
    pub expires: Timestamp,
}

/// `POST /action-links/look`.
#[derive(Clone, Deserialize, JsonSchema)]
pub struct LinkToken {
    /// The token.
    pub token: String,
}

/// `POST /action-links/use`.
#[derive(Clone, Deserialize, JsonSchema)]
pub struct UseLink {
    /// The token.
    pub token: String,
    /// Tracking code of what was sent.
    #[serde(default)]
    pub tracking: Option<String>,
}

/// What a link would do.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ActionLinkView {
    /// What it may do.
    pub act: LinkAct,
    /// To which order.
    pub order: OrderId,
    /// What people call that.
    pub name: String,
    /// Where that stands.
    pub status: OrderStatus,
    /// Cards that are verified and not shipped.
    pub cards: u32,
    /// In whose name.
    pub by: String,
    /// Not good after this.
    pub expires: Timestamp,
    /// It was used.
    pub used: bool,
}

/// `POST /auth/validate`.
#[derive(Clone, Deserialize, JsonSchema)]
pub struct Validate {
    /// The access token.
    pub token: String,
}

/// What a token that counts says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ValidToken {
    /// Login name or appliance id.
    pub sub: String,
    /// Role.
    pub role: Role,
    /// Channels it works for.
    pub channels: Vec<Channel>,
    /// What it is narrowed to.
    pub scope: Option<String>,
    /// End of it, seconds since 1970.
    pub expires: u64,
}

/// `POST /auth/password`.
#[derive(Clone, Deserialize, JsonSchema)]
pub struct NewPassword {
    /// From an invitation or a reset.
    pub token: String,
    /// The new password.
    pub password: String,
}

/// `POST /auth/forgot`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ForgotPassword {
    /// User name, or address of mail.
    pub username: String,
}

/// What everybody gets who forgot a password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Forgotten {
    /// If there is such an account with an address of mail, a letter is on its way.
    pub taken: bool,
}

/// `POST /keys/rotate`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub struct Rotation {
    /// All that the older keys signed ends now, API keys too: for keys that somebody may have copied.
    #[serde(default)]
    pub revoke: bool,
}

/// An account hook with its secret, which is told once. It is a secret, so this has no `Debug`.
#[derive(Clone, Serialize, JsonSchema)]
pub struct NewAccountHook {
    /// What the sender signs with.
    pub secret: String,
    /// The rest.
    #[serde(flatten)]
    pub hook: AccountHook,
}

/// What a purchase led to. It may hold a token, so this has no `Debug`.
#[derive(Clone, Serialize, JsonSchema)]
pub struct HookAnswer {
    /// The account.
    pub user: UserView,
    /// It was made for this purchase.
    pub made: bool,
    /// Sets the first password, while nobody has set one.
    pub token: Option<String>,
}

/// What the site has to do, and who is there for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LoadView {
    /// Orders that wait for a creator.
    pub waiting: usize,
    /// Images that are being made.
    pub building: usize,
    /// Creators that are there.
    pub creators: usize,
    /// Cards that are wanted now.
    pub cards_wanted: u64,
    /// Appliances that are there.
    pub appliances: usize,
    /// Their slots.
    pub slots: usize,
    /// Half of the last images took less, seconds.
    pub image_p50_s: Option<u64>,
    /// Nine of ten took less.
    pub image_p90_s: Option<u64>,
    /// Half of the last cards took less, seconds.
    pub card_p50_s: Option<u64>,
    /// Nine of ten took less.
    pub card_p90_s: Option<u64>,
}

/// Somebody that works here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PresenceView {
    /// Login name or appliance id.
    pub id: String,
    /// `creator` or `appliance`.
    pub kind: String,
    /// What people call it.
    pub label: String,
    /// Channels it works for; none for a creator means all.
    pub channels: Vec<Channel>,
    /// It is there.
    pub online: bool,
    /// When it was heard last.
    pub seen: Option<Timestamp>,
    /// What a creator works at.
    pub task: Option<TaskId>,
    /// What an appliance's slots do.
    pub slots: std::collections::BTreeMap<SlotId, SlotStatus>,
    /// What is wrong with it: a person has to come.
    pub sos: Vec<String>,
}

/// `POST /tasks/{id}/log`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct LogPiece {
    /// Of which log.
    pub kind: LogKind,
    /// Bytes that were sent before this piece.
    pub offset: u64,
    /// Lines.
    pub text: String,
}

/// A log, without its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogView {
    /// Of which task.
    pub task: TaskId,
    /// Of what.
    pub kind: LogKind,
    /// Bytes it was given so far: where the next piece begins.
    pub size: u64,
    /// Bytes at its beginning that are not kept any more.
    pub dropped: u64,
    /// When it grew last.
    pub changed: Timestamp,
}

impl From<&TaskLog> for LogView {
    fn from(log: &TaskLog) -> Self {
        let size = log.size();
        Self { task: log.task, kind: log.kind, size, dropped: log.dropped, changed: log.changed }
    }
}
