//! The ways a session ends, and what follows from each: whether its will is published, what the client is told,
//! what is counted. Pure.

use std::fmt;

use cardshop_protocol::token::TokenError;

use crate::codec::{WireError, reason};
use crate::router::{LinkEnd, RouterDead};
use crate::stats::Refusal;

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// DISCONNECT.
    Clean,
    /// DISCONNECT of MQTT 5 that asks for the will.
    WithWill,
    /// The connection broke.
    Broken,
    TakenOver {
        /// The session that has to leave was heard within its keep-alive: there are two.
        alive: bool,
    },
    KeepAlive,
    Token(TokenError),
    Slow,
    Wire(WireError),
    /// MQTT 5: it published what it may not.
    Refused(u8),
    Stopping,
    RouterDead,
    Panicked,
}

impl End {
    /// MQTT §3.1.2.5, but for a take-over: there the newer session speaks for the client.
    pub(crate) fn publishes_will(&self) -> bool {
        !matches!(self, Self::Clean | Self::TakenOver { .. })
    }

    /// What is counted for it here; refused publishes are counted where they are refused.
    pub(crate) fn counted(&self) -> Option<Refusal> {
        Some(match self {
            Self::TakenOver { .. } => Refusal::TakenOver,
            Self::KeepAlive => Refusal::KeepAlive,
            Self::Token(_) => Refusal::TokenEnded,
            Self::Slow => Refusal::SlowConsumer,
            Self::Wire(_) => Refusal::Malformed,
            _ => return None,
        })
    }

    /// What MQTT 5 clients are told.
    pub(crate) fn reason(&self) -> Option<u8> {
        Some(match self {
            Self::Clean | Self::WithWill | Self::Broken | Self::Panicked => return None,
            Self::TakenOver { .. } => reason::SESSION_TAKEN_OVER,
            Self::KeepAlive => reason::KEEP_ALIVE_TIMEOUT,
            Self::Token(TokenError::Expired) => reason::MAXIMUM_CONNECT_TIME,
            Self::Token(_) => reason::NOT_AUTHORIZED,
            Self::Slow => reason::QUOTA_EXCEEDED,
            Self::Wire(error) => error.reason(),
            Self::Refused(reason) => *reason,
            Self::Stopping | Self::RouterDead => reason::SERVER_SHUTTING_DOWN,
        })
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clean => f.write_str("it said goodbye"),
            Self::WithWill => f.write_str("it said goodbye and asked for its will"),
            Self::Broken => f.write_str("the connection broke"),
            Self::TakenOver { .. } => f.write_str("another session took over"),
            Self::KeepAlive => f.write_str("nothing heard for 1.5 times its keep-alive"),
            Self::Token(error) => write!(f, "its token: {error}"),
            Self::Slow => f.write_str("it reads slower than messages come"),
            Self::Wire(error) => error.fmt(f),
            Self::Refused(_) => f.write_str("it published what it may not"),
            Self::Stopping => f.write_str("the broker stops"),
            Self::RouterDead => f.write_str("the router died"),
            Self::Panicked => f.write_str("it panicked, which is a bug"),
        }
    }
}

impl From<RouterDead> for End {
    fn from(_: RouterDead) -> Self {
        Self::RouterDead
    }
}

impl From<LinkEnd> for End {
    fn from(end: LinkEnd) -> Self {
        match end {
            LinkEnd::Dead => Self::RouterDead,
            LinkEnd::Lost => Self::Slow,
        }
    }
}
