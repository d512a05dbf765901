//! Decides who may read which image and who may put what. Pure; called by every handler that needs a login.
//!
//! | who | reads | puts |
//! |---|---|---|
//! | staff, scheduler | every image | nothing; they say who reads an image, how long it stays, and make links |
//! | others | images put by a task of one of their channels | nothing |
//! | creator with scope `upload:{task}` | the same | image and index of that task |
//! | nobody | public images | nothing |

use cardshop_protocol::api::StoredImage;
use cardshop_protocol::ids::TaskId;
use cardshop_protocol::token::{Claims, Role};

/// True when the token is narrowed to a purpose that has nothing to do with images.
pub(crate) fn is_for_another_purpose(claims: &Claims) -> bool {
    claims.scope.is_some() && claims.upload_task().is_none()
}

/// True when this principal, or nobody in particular, may read the image.
pub(crate) fn may_read(claims: Option<&Claims>, image: &StoredImage) -> bool {
    let allowed = |c: &Claims| {
        !is_for_another_purpose(c)
            && (matches!(c.role, Role::Staff | Role::Scheduler)
                || image.channels.iter().any(|channel| c.works_for(channel)))
    };
    image.public || claims.is_some_and(allowed)
}

/// True when this principal may change what is said of images, and remove them.
pub(crate) fn may_manage(claims: &Claims) -> bool {
    claims.scope.is_none() && matches!(claims.role, Role::Staff | Role::Scheduler)
}

/// The task this principal may upload for.
pub(crate) fn uploads_for(claims: &Claims) -> Option<TaskId> {
    (claims.role == Role::Creator).then(|| claims.upload_task()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cardshop_protocol::ids::{ImageId, OrderId};
    use cardshop_protocol::time::Timestamp;
    use cardshop_protocol::token::ISSUER;

    const ROLES: [Role; 7] = [
        Role::Staff,
        Role::Manager,
        Role::Operator,
        Role::Creator,
        Role::Appliance,
        Role::Integrator,
        Role::Scheduler,
    ];

    fn claims(role: Role, channel: &[&str], scope: Option<&str>) -> Claims {
        Claims {
            iss: ISSUER.into(),
            sub: "somebody".into(),
            role,
            channel: channel.iter().map(|c| c.parse().unwrap()).collect(),
            scope: scope.map(Into::into),
            epoch: 1,
            jti: "1".into(),
            iat: 0,
            exp: 10,
            signed_by: None,
        }
    }
    fn image(public: bool) -> StoredImage {
        StoredImage {
            id: ImageId([1; 32]),
            name: "books".into(),
            size: 1,
            channels: vec!["demo".parse().unwrap(), "other".parse().unwrap()],
            created: Timestamp::default(),
            public,
            keep_until: None,
        }
    }

    #[test]
    fn an_image_is_read_by_its_channels_and_by_those_who_run_the_site() {
        for role in ROLES {
            let everywhere = matches!(role, Role::Staff | Role::Scheduler);
            assert!(may_read(Some(&claims(role, &["other"], None)), &image(false)), "{role:?}");
            assert_eq!(
                may_read(Some(&claims(role, &["third"], None)), &image(false)),
                everywhere,
                "{role:?}"
            );
            assert_eq!(may_read(Some(&claims(role, &[], None)), &image(false)), everywhere, "{role:?}");
            let narrowed = claims(role, &["demo"], Some("orders:read"));
            assert!(!may_read(Some(&narrowed), &image(false)), "{role:?} with a scope of something else");
            assert!(may_read(Some(&narrowed), &image(true)));
        }
        assert!(!may_read(None, &image(false)));
        assert!(may_read(None, &image(true)));
    }

    #[test]
    fn only_staff_and_the_scheduler_with_whole_tokens_change_images() {
        for role in ROLES {
            let expected = matches!(role, Role::Staff | Role::Scheduler);
            assert_eq!(may_manage(&claims(role, &["demo"], None)), expected, "{role:?}");
            assert!(!may_manage(&claims(role, &["demo"], Some("orders:read"))), "{role:?}");
        }
    }

    #[test]
    fn only_a_creator_whose_token_names_the_task_may_put() {
        let task = TaskId::creation(OrderId::from_parts(1, 1));
        let scope = Claims::upload_scope(task);
        for role in ROLES {
            let expected = (role == Role::Creator).then_some(task);
            assert_eq!(uploads_for(&claims(role, &["demo"], Some(&scope))), expected, "{role:?}");
            assert_eq!(uploads_for(&claims(role, &["demo"], None)), None);
            assert_eq!(uploads_for(&claims(role, &["demo"], Some("upload:../x"))), None);
        }
    }
}
