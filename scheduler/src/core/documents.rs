//! The documents of people, places and machines, as they are kept. Orders have their own module. What people see
//! of a document is a view (`views`), so that hashes and secrets stay here.

use cardshop_protocol::api::Membership;
use cardshop_protocol::ids::{ApplianceId, Channel, ImageId, LeaseId, ObjectId, OrderId};
use cardshop_protocol::keys::PublicKey;
use cardshop_protocol::message::{Copies, Hardware};
use cardshop_protocol::time::Timestamp;
use cardshop_protocol::token::{ApiRight, Role};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Somebody who logs in with a password.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) id: ObjectId,
    /// Login name, lower case; also `sub` of its tokens.
    pub(crate) username: String,
    /// argon2id, PHC text.
    pub(crate) password: String,
    pub(crate) role: Role,
    pub(crate) channels: Vec<Channel>,
    /// Who pays for its orders.
    #[serde(default)]
    pub(crate) organization: Option<ObjectId>,
    pub(crate) disabled: bool,
    /// Where letters to it go.
    #[serde(default)]
    pub(crate) email: Option<String>,
    /// May not log in after this; its tokens end then at the latest.
    #[serde(default)]
    pub(crate) expires: Option<Timestamp>,
    /// Its name is made up: who it was is forgotten.
    #[serde(default)]
    pub(crate) anonymised: bool,
    /// It orders downloads and no cards.
    #[serde(default)]
    pub(crate) links_only: bool,
    /// Which account hook made it, and may move its end.
    #[serde(default)]
    pub(crate) hook: Option<ObjectId>,
    /// Tokens with a lower epoch are refused.
    pub(crate) epoch: u64,
    /// When the epoch was raised: after the life of an access token nobody needs to be told any more.
    pub(crate) epoch_raised: Option<Timestamp>,
    pub(crate) created: Timestamp,
}

impl User {
    /// True when it may log in at `now`.
    pub(crate) fn is_active(&self, now: Timestamp) -> bool {
        !self.disabled && self.expires.is_none_or(|end| now < end)
    }
}

/// A name that is unique within `kind`, and whose it is.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Unique {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) owner: ObjectId,
}

/// A channel: routes orders to workers and gives the sender's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChannelDocument {
    /// Its id.
    pub id: ObjectId,
    /// What routes.
    pub slug: Channel,
    /// What people call it.
    pub name: String,
    /// Takes orders.
    pub active: bool,
    /// Only its own workers serve it.
    pub private: bool,
    /// The sender on cards, papers and screens.
    pub sender_name: String,
    /// Postal address of the sender.
    pub sender_address: String,
    /// E-mail of the sender.
    pub sender_email: String,
}

/// A size of card that is sold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Media {
    /// Its id.
    pub id: ObjectId,
    /// What people call it: `32 GB`.
    pub name: String,
    /// `sd`.
    pub kind: String,
    /// What is printed on the card, bytes.
    pub advertised_bytes: u64,
    /// What every card of this size can be trusted to have, bytes.
    pub usable_bytes: u64,
}

/// A warehouse and the index keys pinned at first contact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WarehouseDocument {
    /// Its id.
    pub id: ObjectId,
    /// Base address, no slash at the end.
    pub url: String,
    /// Keys that sign its indexes; empty until it was reached.
    pub keys: Vec<PublicKey>,
    /// Added by staff, and not by the configuration of a scheduler.
    #[serde(default)]
    pub added: bool,
}

/// What an image is made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Configuration {
    /// Its id.
    pub id: ObjectId,
    /// What people call it.
    pub name: String,
    /// Whose it is; `None` = everybody's.
    pub channel: Option<Channel>,
    /// Whose managers see it; those of the whole channel without.
    #[serde(default)]
    pub organization: Option<ObjectId>,
    /// What `cardshop build` reads, as JSON.
    pub recipe: Value,
    /// Login name of who made it.
    pub created_by: String,
    /// When.
    pub created: Timestamp,
    /// When it was changed last.
    #[serde(default)]
    pub changed: Option<Timestamp>,
}

/// The recipe of one order as it was when the order was placed; apart from the order, which changes often.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct OrderRecipe {
    pub(crate) order: OrderId,
    pub(crate) recipe: Value,
}

/// A machine that wrote to us.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Appliance {
    pub(crate) id: ApplianceId,
    /// base64url.
    pub(crate) public_key: String,
    pub(crate) label: String,
    pub(crate) hardware: Hardware,
    pub(crate) state: Membership,
    pub(crate) channels: Vec<Channel>,
    /// Six characters for the person who approves.
    pub(crate) code: String,
    pub(crate) joined: Timestamp,
    pub(crate) approved: Option<Timestamp>,
    /// Slots it last told of: how several appliances share an order.
    pub(crate) slots: u32,
    pub(crate) epoch: u64,
    pub(crate) epoch_raised: Option<Timestamp>,
}

/// A join token; the secret is kept as a digest.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct JoinTokenDocument {
    /// ULID, the object's id.
    pub(crate) id: ObjectId,
    /// The six public characters in the token.
    pub(crate) token_id: String,
    /// BLAKE3 of the secret, hex.
    pub(crate) secret_digest: String,
    pub(crate) channels: Vec<Channel>,
    pub(crate) created_by: String,
    pub(crate) expires: Timestamp,
    pub(crate) used_by: Option<ApplianceId>,
}

/// An API key, without its text.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct ApiKey {
    pub(crate) id: ObjectId,
    /// Unique among users and keys; also `sub` of its token.
    pub(crate) name: String,
    pub(crate) rights: Vec<ApiRight>,
    pub(crate) channels: Vec<Channel>,
    pub(crate) created_by: String,
    pub(crate) created: Timestamp,
    pub(crate) expires: Timestamp,
    pub(crate) revoked: Option<Timestamp>,
    /// At the API, to a minute.
    pub(crate) last_used: Option<Timestamp>,
}

/// A family of refresh tokens: one login and what it was rotated to.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct RefreshFamily {
    pub(crate) id: ObjectId,
    /// Login name or appliance id.
    pub(crate) sub: String,
    pub(crate) appliance: bool,
    /// The user's at login: what ends its access tokens ends its families too. An appliance's family outlives that.
    #[serde(default)]
    pub(crate) epoch: u64,
    /// Number of the one token that is good now.
    pub(crate) number: u64,
    pub(crate) expires: Timestamp,
    pub(crate) revoked: bool,
}

/// A name that was given up: its last tokens have to be refused until they end, and nobody takes it before.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct FormerName {
    pub(crate) name: String,
    /// Tokens with a lower epoch are refused.
    pub(crate) epoch: u64,
    /// When it was given up.
    pub(crate) at: Timestamp,
}

/// Whether the site is being maintained.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Maintenance {
    /// Nothing new begins.
    pub on: bool,
    /// Why.
    pub reason: Option<String>,
    /// Since when.
    pub since: Option<Timestamp>,
}

/// A link that was used: it is good once.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct UsedLink {
    /// `jti` of its token.
    pub(crate) id: String,
    /// Its token's end: not needed after it.
    pub(crate) expires: Timestamp,
}

/// A secret of the site.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Secret {
    pub(crate) name: String,
    /// 32 bytes, hex.
    pub(crate) bytes: String,
}

/// Counts the scheduler's starts.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Starts {
    pub(crate) count: u64,
}

/// How far an appliance's facts are applied.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Applied {
    pub(crate) appliance: ApplianceId,
    pub(crate) upto: u64,
}

/// What an appliance is told; the payload of its retained topic.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct DesiredDocument {
    pub(crate) appliance: ApplianceId,
    pub(crate) desired: cardshop_protocol::message::Desired,
}

/// A lease as it was granted: who may report which copies, also after it left the desired state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Grant {
    pub(crate) id: LeaseId,
    pub(crate) appliance: ApplianceId,
    pub(crate) order: OrderId,
    pub(crate) image: ImageId,
    pub(crate) copies: Copies,
    pub(crate) granted: Timestamp,
}

/// The immutable record of a written card, with what the scheduler made of it.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct CardDocument {
    #[serde(flatten)]
    pub(crate) record: cardshop_protocol::api::CardRecord,
    pub(crate) channel: Option<Channel>,
    /// True when it is beyond the quantity.
    pub(crate) spare: bool,
}

/// One line of an order's or the site's story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Story {
    /// Its id.
    pub id: ObjectId,
    /// When.
    pub at: Timestamp,
    /// For programs.
    pub kind: String,
    /// A plain sentence.
    pub text: String,
    /// Which order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderId>,
    /// Which appliance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub appliance: Option<ApplianceId>,
    /// Whose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<Channel>,
}

/// Who changed what, from where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Audit {
    /// Its id.
    pub id: ObjectId,
    /// When.
    pub at: Timestamp,
    /// Login name.
    pub who: String,
    /// Address the request came from.
    pub address: String,
    /// What was done: `order.create` …
    pub action: String,
    /// Id of the object.
    pub object: String,
}

/// The answer once given to an `Idempotency-Key`.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Idempotent {
    /// Digest of caller, route and key.
    pub(crate) id: String,
    /// Digest of the request's body.
    pub(crate) request: String,
    pub(crate) answer: Value,
    /// Day since 1970: for clearing.
    pub(crate) day: u64,
}

/// Usable bytes of a card with this many advertised bytes: cards of one size differ, so that headroom is left.
/// 97 % up to 16 GB, 96 % above. **Source:** the first Cardshop's catalogue.
pub(crate) fn usable_bytes(advertised: u64) -> u64 {
    const GB: u64 = 1_000_000_000;
    let percent = if advertised <= 16 * GB { 97 } else { 96 };
    advertised / 100 * percent
}

/// The sizes of the media catalogue, GB.
pub(crate) const MEDIA_SIZES_GB: [u64; 6] = [8, 16, 32, 64, 128, 256];
/// The channel that a new site has.
pub(crate) const DEFAULT_CHANNEL: &str = "default";
