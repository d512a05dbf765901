//! What a token that is narrowed to one purpose is for: one act on one order, or one new password. Such a token is no login
//! anywhere: API, broker and warehouses refuse a scope they do not know.

use cardshop_protocol::ids::{ObjectId, OrderId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rights::Action;

/// What a link may do to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LinkAct {
    /// Say that the cards were sent.
    Ship,
    /// Give what failed or is held another try.
    Retry,
    /// End the order.
    Cancel,
    /// Keep a download longer.
    Extend,
}

impl LinkAct {
    const ALL: [Self; 4] = [Self::Ship, Self::Retry, Self::Cancel, Self::Extend];

    /// In a token's scope, and in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ship => "ship",
            Self::Retry => "retry",
            Self::Cancel => "cancel",
            Self::Extend => "extend",
        }
    }

    /// What its maker has to be allowed.
    pub(crate) fn needs(self) -> Action {
        match self {
            Self::Ship => Action::Ship,
            Self::Retry | Self::Cancel | Self::Extend => Action::Order,
        }
    }
}

/// One purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// One act on one order.
    Act(LinkAct, OrderId),
    /// A new password for one user.
    Password(ObjectId),
}

impl Purpose {
    /// As the scope of a token.
    pub(crate) fn scope(self) -> String {
        match self {
            Self::Act(act, order) => format!("act:{}:{order}", act.name()),
            Self::Password(user) => format!("password:{user}"),
        }
    }

    /// Of a token's scope.
    pub(crate) fn of(scope: Option<&str>) -> Option<Self> {
        let parts: Vec<&str> = scope?.split(':').collect();
        match parts[..] {
            ["act", act, order] => {
                let act = LinkAct::ALL.into_iter().find(|a| a.name() == act)?;
                Some(Self::Act(act, order.parse().ok()?))
            }
            ["password", user] => Some(Self::Password(user.parse().ok()?)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purpose_is_read_back_from_its_scope_and_from_nothing_else() {
        let id = ObjectId::from_parts(1, 2);
        for act in LinkAct::ALL {
            let purpose = Purpose::Act(act, id);
            assert_eq!(Purpose::of(Some(&purpose.scope())), Some(purpose));
            assert_eq!(serde_json::to_value(act).unwrap(), act.name());
        }
        assert_eq!(Purpose::of(Some(&Purpose::Password(id).scope())), Some(Purpose::Password(id)));
        for other in ["", "upload:x", "api:ship", "act:ship", "act:burn:01", &format!("act:ship:{id}:more")] {
            assert_eq!(Purpose::of(Some(other)), None, "{other}");
        }
        assert_eq!(Purpose::of(None), None);
    }
}
