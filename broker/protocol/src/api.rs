//! Bodies of the HTTP API (`/api/v1`), as far as more than one program reads or writes them. Lists are
//! [`Page`]s; errors are [`Problem`]s. **Source:** RFC 9457 for problems.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::{ApplianceId, Channel, ImageId, LeaseId, ObjectId, OrderId, SlotId, TaskId};
use crate::message::{Hardware, Passport, SlotState};
use crate::time::Timestamp;

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Page<T> {
    /// The objects.
    pub items: Vec<T>,
    /// Where the next page begins; null at the end.
    pub next_cursor: Option<String>,
}

/// An error. Media type `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Problem {
    /// `about:blank`, or an address that explains the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// Short, the same for every occurrence.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What is wrong and the way out.
    #[serde(default)]
    pub detail: String,
    /// Stable, for programs.
    pub code: String,
}

/// `POST /auth/login`.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Login {
    /// Login name.
    pub username: String,
    /// Password.
    pub password: String,
}

/// `POST /auth/refresh`.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Refresh {
    /// Single use.
    pub refresh_token: String,
}

/// Answer of every login. Never logged: it has no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TokenPair {
    /// JWT.
    pub access_token: String,
    /// Single use, rotated.
    pub refresh_token: String,
    /// Seconds until the access token ends.
    pub expires_in: u64,
}

/// `POST /auth/nonce`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NonceRequest {
    /// Who will sign it.
    pub appliance: ApplianceId,
}

/// Answer of `POST /auth/nonce`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NonceAnswer {
    /// To be signed, good once and for a minute.
    pub nonce: String,
}

/// `POST /auth/appliance`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ApplianceLogin {
    /// Who.
    pub appliance: ApplianceId,
    /// The nonce given.
    pub nonce: String,
    /// Ed25519 over [`ApplianceLogin::message`], base64url.
    pub signature: String,
}

impl ApplianceLogin {
    /// What the appliance signs.
    pub fn message(appliance: ApplianceId, nonce: &str) -> Vec<u8> {
        format!("cardshop login 1\n{appliance}\n{nonce}").into_bytes()
    }
}

/// `POST /join`.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Join {
    /// The join token's text.
    pub token: String,
    /// Public key, base64url.
    pub public_key: String,
    /// Ed25519 over [`crate::join::JoinToken::proof_message`], base64url.
    pub proof: String,
    /// What people will call the appliance.
    pub label: String,
    /// What the machine is.
    #[serde(default)]
    pub hardware: Hardware,
}

/// State of an appliance towards the site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Membership {
    /// Waits for a person.
    Pending,
    /// Works.
    Approved,
    /// Refused by a person.
    Rejected,
    /// Taken out of use.
    Retired,
}

/// Answer of `POST /join` and `GET /join/{appliance}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JoinAnswer {
    /// Who joined.
    pub appliance: ApplianceId,
    /// Where it stands.
    pub state: Membership,
    /// Six characters, the same on console and dashboard.
    pub code: String,
    /// The site's public key, base64url: the appliance derives the code itself and compares.
    pub server_key: String,
    /// Where the broker listens, once approved: `mqtt://host:port` or `mqtts://…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mqtt: Option<String>,
    /// PEM: CAs that the broker's certificate is to be of, where the site was told which; else whoever is trusted
    /// already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mqtt_ca: Option<String>,
}

/// `POST /tasks/claim`: the oldest task of the caller's channels, or 204.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Claim {
    /// Seconds to wait for one, at most 30.
    #[serde(default)]
    pub wait_s: u32,
}

/// A claimed creation task.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CreationTask {
    /// The task.
    pub task: TaskId,
    /// Name of the order: becomes the image's name.
    pub name: String,
    /// Routes the image.
    pub channel: Channel,
    /// The recipe: what `cardshop build` reads, as JSON.
    pub recipe: Value,
    /// Largest image that fits the order's media, bytes.
    pub max_image_bytes: u64,
    /// Where to put the image.
    pub warehouse: String,
    /// Where to put it too, once it is there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<String>,
    /// The claim and the right to put the image.
    #[serde(flatten)]
    pub grant: Grant,
}

/// A claim's validity and the token that puts the image.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Grant {
    /// The claim ends here unless a report renews it.
    pub lease_until: Timestamp,
    /// Bearer token that may put this task's image.
    pub upload_token: String,
}

/// Step of a creation task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CreationPhase {
    /// Content comes in.
    Downloading,
    /// The image is written.
    Building,
    /// It is digested.
    Indexing,
    /// It goes to the warehouse.
    Uploading,
}

/// `POST /tasks/{id}/report`: renews the claim and says where the work stands. Idempotent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum CreationReport {
    /// Going on.
    Running {
        /// Step.
        phase: CreationPhase,
        /// Bytes done in this step.
        done: u64,
        /// Bytes of this step.
        total: u64,
        /// Seconds until the whole task is done, when that can be told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        eta_s: Option<u64>,
    },
    /// The worker ends and gives the task back: nobody is to blame, and another may take it at once.
    Returned,
    /// The image is in the warehouse.
    Succeeded {
        /// Which image.
        image: ImageId,
    },
    /// It could not be made.
    Failed {
        /// One line for people.
        reason: String,
        /// True when another try cannot help (a wrong recipe).
        permanent: bool,
    },
}

/// Answer of a report.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ReportAnswer {
    /// The worker stops: the task was canceled, ended or given to another.
    pub stop: bool,
    /// Renewed, while the task goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<Grant>,
}

/// An image in a warehouse: an item of the warehouse's `GET /images`, and what it keeps beside the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StoredImage {
    /// The image id.
    pub id: ImageId,
    /// What its order is called; for people.
    pub name: String,
    /// Bytes of the whole image.
    pub size: u64,
    /// Whose tasks put it: the channels that may have it.
    pub channels: Vec<Channel>,
    /// When it became complete.
    pub created: Timestamp,
    /// True when nobody needs a token to read it.
    #[serde(default)]
    pub public: bool,
    /// It may be removed from here on; kept for good when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_until: Option<Timestamp>,
}

/// One immutable record per written card.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CardRecord {
    /// The card's own identity.
    pub uid: ObjectId,
    /// Which order.
    pub order: OrderId,
    /// Which copy, from 1.
    pub copy: u32,
    /// Copies of the whole order.
    pub total: u32,
    /// Under which lease.
    pub lease: LeaseId,
    /// What was written.
    pub image: ImageId,
    /// Bytes of the card.
    pub card_size: u64,
    /// Card identification register, hex, where the reader shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cid: Option<String>,
    /// Who wrote it.
    pub appliance: ApplianceId,
    /// Where.
    pub slot: SlotId,
    /// What the reader calls itself.
    #[serde(default)]
    pub reader: String,
    /// Bytes written.
    pub written_bytes: u64,
    /// Bytes read back and compared.
    pub verified_bytes: u64,
    /// Write rate, bytes a second.
    pub write_bps: u64,
    /// Read-back rate, bytes a second.
    pub verify_bps: u64,
    /// Begun.
    pub started: Timestamp,
    /// Verified.
    pub finished: Timestamp,
    /// What was left on the card, when its image can carry it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passport: Option<Passport>,
}

/// An item of `GET /slots`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SlotView {
    /// `{appliance}/{slot}`.
    pub id: String,
    /// Which appliance.
    pub appliance: ApplianceId,
    /// Its label.
    pub label: String,
    /// Which slot.
    pub slot: SlotId,
    /// What people call it.
    pub name: String,
    /// The last state reported.
    pub state: SlotState,
    /// The last progress reported in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<crate::message::Progress>,
    /// False when the appliance has not been heard.
    pub online: bool,
}

/// `POST /api/v1/support`: the file that a command of an appliance asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SupportFile {
    /// Which command.
    pub command: ObjectId,
    /// A tar.gz, base64.
    pub bundle: String,
}
