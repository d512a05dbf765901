//! Decides who a CONNECT comes from and whether they are let in. Pure: the newest keys and the time are arguments.
//! One text for all bad logins goes to the client; the log says which.

use cardshop_protocol::keys::KeyList;
use cardshop_protocol::time::Timestamp;
use cardshop_protocol::token::{Claims, Role, TokenError, verify};

use crate::codec::{Connect, Version};
use crate::filter::check_topic;
use crate::rights::{Principal, may_write};
use crate::stats::Refusal;

/// Why a client is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LoginRefusal {
    #[error("user name or password is missing")]
    NoLogin,
    #[error("the token is not good: {0}")]
    BadToken(#[from] TokenError),
    #[error("the token is another's")]
    OthersToken,
    #[error("the client id is not the user name")]
    ClientId,
    #[error("this token gives no rights on MQTT")]
    NoRights,
    #[error("the will is where the client may not publish")]
    Will,
    #[error("it wants an authentication exchange")]
    Exchange,
    #[error("it is another version of MQTT")]
    Level,
    #[error("the broker cannot take it now")]
    Busy,
    #[error("the scheduler's keys are not here yet")]
    NoKeys,
}

impl LoginRefusal {
    /// The code of CONNACK. **Source:** MQTT 3.1.1 §3.2.2.3, MQTT 5.0 §3.2.2.2.
    pub(crate) fn code(self, version: Version) -> u8 {
        let (v4, v5) = match self {
            Self::NoLogin | Self::BadToken(_) | Self::OthersToken => (4, 0x86),
            Self::NoRights | Self::Will => (5, 0x87),
            Self::ClientId => (2, 0x85),
            Self::Exchange => (5, 0x8c),
            Self::Level => (1, 0x84),
            Self::Busy | Self::NoKeys => (3, 0x88),
        };
        if version == Version::V4 { v4 } else { v5 }
    }

    /// What MQTT 5 clients are told.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::NoLogin | Self::BadToken(_) | Self::OthersToken => "bad user name or password",
            Self::NoRights => "this token gives no rights here",
            Self::Will => "the will's topic may not be published to",
            Self::ClientId => "the client id must be the user name",
            Self::Exchange => "log in with user name and access token",
            Self::Level => "this broker speaks MQTT 3.1.1 and 5",
            Self::Busy | Self::NoKeys => "come again in a moment",
        }
    }

    /// Under which it is counted.
    pub(crate) fn counted(self) -> Refusal {
        match self {
            Self::NoLogin | Self::BadToken(_) | Self::OthersToken | Self::Exchange => Refusal::BadLogin,
            Self::NoRights | Self::Will => Refusal::NotAuthorized,
            Self::ClientId => Refusal::ClientId,
            Self::Level => Refusal::NoConnect,
            Self::Busy => Refusal::Connections,
            Self::NoKeys => Refusal::NoKeys,
        }
    }
}

/// Lets a client in, or says why not.
pub(crate) fn login(
    connect: &Connect,
    keys: &KeyList,
    now: Timestamp,
) -> Result<(Principal, Claims), LoginRefusal> {
    if connect.wants_exchange {
        return Err(LoginRefusal::Exchange);
    }
    let (Some(user_name), Some(password)) = (&connect.user_name, &connect.password) else {
        return Err(LoginRefusal::NoLogin);
    };
    if keys.items.is_empty() {
        return Err(LoginRefusal::NoKeys);
    }
    let claims = verify(keys, &password.0, now)?;
    if claims.sub != *user_name {
        return Err(LoginRefusal::OthersToken);
    }
    // A client without an id is given the only one it may have. Schedulers may be several, with a name behind theirs.
    let own = connect.client_id.strip_prefix(user_name.as_str());
    let is_own =
        own.is_some_and(|rest| rest.is_empty() || (claims.role == Role::Scheduler && rest.starts_with('-')));
    if !connect.client_id.is_empty() && !is_own {
        return Err(LoginRefusal::ClientId);
    }
    let principal = Principal::new(&claims).ok_or(LoginRefusal::NoRights)?;
    if let Some(will) = &connect.will {
        let empty = will.payload.is_empty() && !will.retain;
        let good = check_topic(&will.topic).is_ok() && may_write(&principal, &will.topic, will.retain);
        if !good || empty {
            return Err(LoginRefusal::Will);
        }
    }
    Ok((principal, claims))
}
