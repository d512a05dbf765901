//! Lets appliances in, each by the way a real one goes: a join token, a signed request, an approval, a signed login.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cardshop_card::StopFlag;
use cardshop_protocol::api::{ApplianceLogin, Join};
use cardshop_protocol::ids::ApplianceId;
use cardshop_protocol::join::JoinToken;
use cardshop_protocol::keys::{appliance_id, encode_public, encode_signature};
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};

use super::Load;
use crate::client::{Client, ClientError};

/// Who join at the same time: a scheduler answers them side by side.
const AT_ONCE: usize = 8;

/// One that is let in.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) id: ApplianceId,
    pub(super) token: String,
}

/// All of them.
pub(super) fn all(load: &Load, manager: &Client, stop: &StopFlag) -> Result<Vec<Member>, ClientError> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    let members = Mutex::new(Vec::with_capacity(load.appliances));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(load.appliances) {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < load.appliances && !stop.is_stopped() {
                    match one(manager) {
                        Ok(member) => members.lock().expect("no holder panics").push(member),
                        Err(error) => {
                            failed.lock().expect("no holder panics").get_or_insert(error);
                            return;
                        }
                    }
                }
            });
        }
    });
    match failed.into_inner().expect("no holder panics") {
        Some(error) => Err(error),
        None => Ok(members.into_inner().expect("no holder panics")),
    }
}

fn one(manager: &Client) -> Result<Member, ClientError> {
    let mut seed = [0; 32];
    fastrand::fill(&mut seed);
    let key = SigningKey::from_bytes(&seed);
    let public = key.verifying_key();
    let id = appliance_id(&public);
    let token: Value = manager.post("/join-tokens", &json!({}))?;
    let token: JoinToken = text(&token, "token").parse().expect("a server gives well-formed tokens");
    let proof = key.sign(&token.proof_message(public.as_bytes())).to_bytes();
    let join = Join {
        token: token.to_string(),
        public_key: encode_public(&public),
        proof: encode_signature(&proof),
        label: format!("load {id}"),
        hardware: Default::default(),
    };
    let _: Value = manager.post("/join", &join)?;
    let _: Value = manager.post(&format!("/appliances/{id}/approve"), &json!({}))?;
    let nonce: Value = manager.post("/auth/nonce", &json!({"appliance": id}))?;
    let nonce = text(&nonce, "nonce");
    let signature = encode_signature(&key.sign(&ApplianceLogin::message(id, &nonce)).to_bytes());
    let pair: Value = manager.post("/auth/appliance", &ApplianceLogin { appliance: id, nonce, signature })?;
    Ok(Member { id, token: text(&pair, "access_token") })
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}
