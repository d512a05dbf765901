//! Which messages are due, to whom, and what they say. Decides only: `effects::notify` stores and sends.
//!
//! ```text
//! order changes ─► due ─┐                                                  ┌► mail      template + texts ─► layout
//! bench ─► trouble ─────┼─► notice + values ─► who gets it ─► one message ─┼► webhook   web: what is signed
//! password letter ──────┘                     each person once             └► ntfy
//!
//! message   waiting ─► sent            retrying: again later, longer each time, at most 3 days ─► failed
//!              └─ held (no mail server is set)      canceled: what waits of the order is dropped
//! ```

pub(crate) mod due;
pub(crate) mod event;
pub(crate) mod layout;
pub(crate) mod message;
pub(crate) mod preferences;
pub(crate) mod template;
pub(crate) mod texts;
pub(crate) mod trouble;
pub(crate) mod web;
pub(crate) mod who;

pub use event::Notice;
pub use message::{MessageState, MessageView, Part};
pub use preferences::PreferencesView;
pub use template::{Preview, TemplateView};
pub use web::{HookKind, NewWebhook, WebhookView};
