//! Who may do what: roles by action, and objects by channel. Answers only; `effects` asks before it reads or
//! changes anything for a caller.

use cardshop_protocol::ids::{Channel, KeyId, ObjectId};
use cardshop_protocol::token::{ApiRight, Claims, Role};
use schemars::JsonSchema;
use serde::Serialize;

/// Who is calling, proved by an access token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Principal {
    /// Login name or appliance id.
    pub sub: String,
    /// Role.
    pub role: Role,
    /// Channels it works for; staff works for all.
    pub channels: Vec<Channel>,
    /// Epoch of its token.
    pub epoch: u64,
    /// What its API key may do; `None` for all that its role may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rights: Option<Vec<ApiRight>>,
    /// End of its token, seconds since 1970.
    pub expires: u64,
    /// Key that signed its token.
    #[serde(skip)]
    pub signed_by: Option<KeyId>,
    /// Address the request came from, for the audit.
    pub address: String,
}

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// See orders, slots, cards, stories and the live stream.
    Watch,
    /// See tasks, appliances and configurations.
    Look,
    /// Place, cancel and retry orders; write configurations.
    Order,
    /// Say what was sent.
    Ship,
    /// Hold slots and let them go on.
    Tend,
    /// Approve and reject appliances, make join tokens.
    Enrol,
    /// Claim creation tasks.
    Create,
    /// Add to the log of the own task.
    Log,
    /// Webhooks.
    Listen,
    /// Users, channels, audit.
    Administer,
}

impl Principal {
    /// From a verified token that is not narrowed to one purpose.
    pub(crate) fn from_claims(claims: Claims, address: String) -> Option<Self> {
        let rights = claims.api_rights();
        let whole = (claims.scope.is_none() || rights.is_some()) && claims.role != Role::Scheduler;
        whole.then_some(Self {
            rights,
            sub: claims.sub,
            role: claims.role,
            channels: claims.channel,
            epoch: claims.epoch,
            expires: claims.exp,
            signed_by: claims.signed_by,
            address,
        })
    }

    /// True when its role may do `action` at all.
    pub fn may(&self, action: Action) -> bool {
        use Role::{Creator, Integrator, Manager, Operator, Staff};
        if let Some(rights) = &self.rights {
            let needed: &[ApiRight] = match action {
                Action::Watch => return true,
                Action::Look => &[ApiRight::Order, ApiRight::Ship],
                Action::Order | Action::Listen => &[ApiRight::Order],
                Action::Ship => &[ApiRight::Ship],
                Action::Tend | Action::Enrol | Action::Create | Action::Log | Action::Administer => &[],
            };
            return needed.iter().any(|right| rights.contains(right));
        }
        let roles: &[Role] = match action {
            Action::Watch => &[Staff, Manager, Operator, Integrator],
            Action::Look | Action::Ship | Action::Tend => &[Staff, Manager, Operator],
            Action::Order | Action::Enrol => &[Staff, Manager],
            Action::Create => &[Creator],
            Action::Log => &[Creator, Role::Appliance],
            Action::Listen => &[Staff, Integrator],
            Action::Administer => &[Staff],
        };
        roles.contains(&self.role)
    }

    /// True when it may know who gets a parcel: not a key that may only watch, which may hang on a wall.
    pub fn sees_recipients(&self) -> bool {
        self.rights.as_ref().is_none_or(|rights| rights.iter().any(|right| *right != ApiRight::Watch))
    }

    /// True when objects of `channel` are its to see. A creator that was given no channel serves all.
    pub fn sees(&self, channel: &Channel) -> bool {
        let all = self.role == Role::Staff || (self.role == Role::Creator && self.channels.is_empty());
        all || self.channels.contains(channel)
    }

    /// True when an object of a channel (everybody's without) and of an organization is its to see. Managers see what is
    /// their own organization's, `own`, or nobody's.
    pub(crate) fn sees_of(
        &self,
        own: Option<ObjectId>,
        channel: Option<&Channel>,
        organization: Option<ObjectId>,
    ) -> bool {
        let anothers = self.role == Role::Manager && organization.is_some() && organization != own;
        !anothers && channel.is_none_or(|c| self.sees(c))
    }

    /// True when an object of several channels is its to see.
    pub fn sees_any(&self, channels: &[Channel]) -> bool {
        self.role == Role::Staff || channels.iter().any(|c| self.sees(c))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(role: Role, channels: &[&str]) -> Principal {
        let channels = channels.iter().map(|c| c.parse().unwrap()).collect();
        let sub = "ada".into();
        Principal {
            sub,
            role,
            channels,
            epoch: 0,
            rights: None,
            expires: 0,
            signed_by: None,
            address: String::new(),
        }
    }

    #[test]
    fn an_operator_works_the_bench_and_ships_and_nothing_else() {
        let operator = principal(Role::Operator, &["a"]);
        for (action, may) in [
            (Action::Watch, true),
            (Action::Look, true),
            (Action::Ship, true),
            (Action::Tend, true),
            (Action::Order, false),
            (Action::Enrol, false),
            (Action::Create, false),
            (Action::Administer, false),
        ] {
            assert_eq!(operator.may(action), may, "{action:?}");
        }
    }

    #[test]
    fn an_api_key_may_what_it_was_given_and_never_enrol_create_or_administer() {
        let all = [Action::Watch, Action::Look, Action::Order, Action::Ship, Action::Enrol, Action::Create];
        for (rights, may) in [
            (vec![ApiRight::Watch], vec![Action::Watch]),
            (vec![ApiRight::Order], vec![Action::Watch, Action::Look, Action::Order]),
            (vec![ApiRight::Ship], vec![Action::Watch, Action::Look, Action::Ship]),
        ] {
            let key = Principal { rights: Some(rights), ..principal(Role::Integrator, &["a"]) };
            assert_eq!(all.into_iter().filter(|action| key.may(*action)).collect::<Vec<_>>(), may);
            assert!(!key.may(Action::Administer));
        }
    }

    #[test]
    fn channels_bound_everybody_but_staff() {
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        assert!(principal(Role::Manager, &["a"]).sees(&a));
        assert!(!principal(Role::Manager, &["a"]).sees(&b));
        assert!(!principal(Role::Manager, &[]).sees_any(&[]));
        assert!(principal(Role::Staff, &[]).sees(&b));
        assert!(principal(Role::Creator, &[]).sees(&b), "a creator without channels serves all");
        assert!(!principal(Role::Creator, &["a"]).sees(&b));
    }

    #[test]
    fn a_token_for_one_purpose_or_of_the_scheduler_is_nobody() {
        let claims = |role, scope: Option<&str>| Claims {
            iss: "cardshop".into(),
            sub: "x".into(),
            role,
            channel: vec![],
            scope: scope.map(str::to_owned),
            epoch: 0,
            jti: String::new(),
            iat: 0,
            exp: 0,
            signed_by: None,
        };
        assert!(Principal::from_claims(claims(Role::Creator, Some("upload:x")), String::new()).is_none());
        assert!(Principal::from_claims(claims(Role::Scheduler, None), String::new()).is_none());
        assert!(Principal::from_claims(claims(Role::Staff, Some("api:watch")), String::new()).is_none());
        let key = Principal::from_claims(claims(Role::Integrator, Some("api:ship,later")), String::new());
        assert_eq!(key.unwrap().rights, Some(vec![ApiRight::Ship]));
        assert!(Principal::from_claims(claims(Role::Creator, None), String::new()).is_some());
    }
}
