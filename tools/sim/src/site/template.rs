//! A site as it is before its first life: people, an organization with units, configurations; and how appliances join it.

use std::sync::OnceLock;

use cardshop_protocol::api::{Join, Membership};
use cardshop_protocol::ids::ObjectId;
use cardshop_protocol::join::JoinToken;
use cardshop_protocol::keys::{appliance_id, encode_public, encode_signature};
use cardshop_protocol::time::Timestamp;
use cardshop_protocol::token::Role;
use cardshop_scheduler::{NewUser, Scheduler, SchedulerError, Simulation};
use ed25519_dalek::{Signer, SigningKey};
use serde_json::json;

use super::centre::{config, runtime};
use super::images::Warehouse;
use super::people::{MANAGERS, person};
use super::world::BEGINNING_MS;

/// Units that the organization begins with.
pub(super) const UNITS: u64 = 60;
/// Configurations that are ordered.
const CONFIGURATIONS: u64 = 3;

/// A site as it is before its first life: people, an organization, configurations. Made once a process; passwords take
/// their time.
pub(super) struct Template {
    pub(super) world: Simulation,
    pub(super) configurations: Vec<ObjectId>,
}

pub(super) fn template() -> &'static Template {
    static TEMPLATE: OnceLock<Template> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let warehouse = Warehouse::default();
        let world = Simulation::new(0, Timestamp::from_ms(BEGINNING_MS), warehouse.answering());
        let data = tempfile::tempdir().expect("a temporary directory can be made");
        let made = runtime().block_on(furnish(&config(data.path()), &world));
        Template { configurations: made.expect("an empty site can be furnished"), world }
    })
}

async fn furnish(
    config: &cardshop_scheduler::Config,
    world: &Simulation,
) -> Result<Vec<ObjectId>, SchedulerError> {
    let (scheduler, _) = Scheduler::open_simulated(config.clone(), world).await?;
    let root = person("root", Role::Staff);
    let organization = json!({"name": "School", "units": UNITS, "several_orders": true});
    let organization = scheduler.create_organization(&root, organization, None).await?;
    let user = NewUser {
        username: MANAGERS[0].into(),
        password: "simulated password".into(),
        role: Role::Manager,
        channels: Vec::new(),
        organization: Some(organization.id),
        email: None,
        expires: None,
        links_only: false,
    };
    scheduler.create_user(&root, user, None).await?;
    let mut configurations = Vec::new();
    for n in 1..=CONFIGURATIONS {
        let body = json!({"name": format!("Library {n}"), "recipe": {"simulated": n}});
        configurations.push(scheduler.create_configuration(&root, body, None).await?.configuration.id);
    }
    Ok(configurations)
}

/// An appliance joins and is let in.
pub(super) async fn join(scheduler: &Scheduler, key: &SigningKey, a: usize) -> Result<(), SchedulerError> {
    let root = person("root", Role::Staff);
    let token = scheduler.create_join_token(&root, json!({}), None).await?.token;
    let token: JoinToken = token.parse().expect("a token that was just made");
    let public = key.verifying_key();
    let proof = key.sign(&token.proof_message(public.as_bytes())).to_bytes();
    let join = Join {
        token: token.to_string(),
        public_key: encode_public(&public),
        proof: encode_signature(&proof),
        label: format!("a{a}"),
        hardware: Default::default(),
    };
    if scheduler.join(&join).await?.state != Membership::Approved {
        scheduler.approve_appliance(&root, appliance_id(&public), None).await?;
    }
    Ok(())
}
