//! Who may do what, at every route: each role, with a token of the object's channel and of another.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use cardshop_protocol::api::ApplianceLogin;
use cardshop_protocol::keys::encode_signature;
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::Site;
use crate::api::table::{Access, Method, OPERATIONS, Operation};
use crate::core::rights::Action;

/// The one table of who may do what.
const MAY: &[(Action, &[&str])] = &[
    (Action::Watch, &["staff", "manager", "operator", "integrator"]),
    (Action::Look, &["staff", "manager", "operator"]),
    (Action::Order, &["staff", "manager"]),
    (Action::Ship, &["staff", "manager", "operator"]),
    (Action::Tend, &["staff", "manager", "operator"]),
    (Action::Enrol, &["staff", "manager"]),
    (Action::Create, &["creator"]),
    (Action::Log, &["creator", "appliance"]),
    (Action::Listen, &["staff", "integrator"]),
    (Action::Administer, &["staff"]),
];

/// What a route should answer.
#[derive(Debug, PartialEq, Eq)]
enum Expected {
    /// 401.
    NotKnown,
    /// 403.
    NotAllowed,
    /// 404: not yours to see.
    Hidden,
    /// Whatever its input deserves, but none of these.
    Served,
}

fn expected(operation: &Operation, role: &str, own: bool) -> Expected {
    let may = match operation.access {
        Access::Open => return Expected::Served,
        _ if role.is_empty() => return Expected::NotKnown,
        Access::Known => return Expected::Served,
        Access::May(action) => MAY.iter().any(|(a, roles)| *a == action && roles.contains(&role)),
    };
    match may {
        false => Expected::NotAllowed,
        true if !own && role != "staff" && operation.path.contains('{') => Expected::Hidden,
        true => Expected::Served,
    }
}

/// One object of each kind, in channel `default`.
pub(super) struct Objects {
    order: String,
    appliance: String,
    card: String,
    configuration: String,
    address: String,
    media: String,
    user: String,
    api_key: String,
    organization: String,
    auto_image: String,
    account_hook: String,
    channel: String,
    warehouse: String,
    join_token: String,
    webhook: String,
    delivery: String,
    message: String,
    update: String,
}

pub(super) async fn objects(site: &Site) -> Objects {
    let creator = site.user("first-maker", "creator", &[]).await;
    let manager = site.user("first-manager", "manager", &["default"]).await;
    let order = site.order(&manager, json!({"recipient": {"email": "ada@example.org"}})).await;
    site.create_image(&creator, 1 << 20).await;
    let piece = json!({"kind": "build", "offset": 0, "text": "made\n"});
    site.made(&format!("/tasks/{order}-image/log"), &creator, piece).await;
    let mut bench = site.appliance(1).await;
    let lease = site.leases(bench.id).await.remove(0);
    let fact = bench.verified(&lease, 1, 1);
    bench.tell(fact).await;
    let topic = format!("cardshop/1/appliance/{}/slot/s01/state", bench.id);
    let state = json!({
        "boot": 1, "n": 1, "state": "wanted", "led": {"pattern": "breathe_slow", "colour": "blue"},
        "since": "2026-11-23T00:00:00Z"
    });
    let payload = state.to_string().into_bytes();
    site.scheduler.take_message(crate::effects::inbox::Incoming { topic, payload, retained: true }).await;
    let (_, view) = site.get(&format!("/orders/{order}"), &site.admin).await;
    let user = json!({"username": "somebody", "password": super::PASSWORD, "role": "integrator"});
    let auto_image = json!({"name": "wiki", "configuration": view["configuration"]});
    let update = json!({"version": "2.1", "image": "0".repeat(64), "size": 9, "kid": "0".repeat(16)});
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let hook = json!({"url": "https://192.0.2.1/", "events": ["order_created"], "channels": ["default"]});
    let webhook = site.made("/webhooks", &site.admin, hook).await;
    let path = format!("/webhooks/{}/test", text(&webhook["id"]));
    let delivery = site.made(&path, &site.admin, json!({})).await;
    let (_, messages) = site.get(&format!("/messages?order={order}"), &site.admin).await;
    let message = messages["items"][0].clone();
    let first = |list: (StatusCode, Value)| text(&list.1["items"][0]["id"]);
    Objects {
        order: order.to_string(),
        appliance: bench.id.to_string(),
        card: cardshop_protocol::ids::ObjectId::from_parts(1, 1).to_string(),
        configuration: text(&view["configuration"]),
        address: text(&site.made("/addresses", &manager, json!({"name": "Ada"})).await["id"]),
        media: text(&site.get("/media", &site.admin).await.1["items"][0]["id"]),
        user: text(&site.made("/users", &site.admin, user).await["id"]),
        organization: text(
            &site.made("/organizations", &site.admin, json!({"name": "Nobody's"})).await["id"],
        ),
        auto_image: text(&site.made("/auto-images", &manager, auto_image).await["id"]),
        account_hook: text(&site.made("/account-hooks", &site.admin, json!({"name": "web"})).await["id"]),
        channel: first(site.get("/channels", &manager).await),
        warehouse: first(site.get("/warehouses", &manager).await),
        join_token: text(&site.made("/join-tokens", &manager, json!({})).await["id"]),
        webhook: text(&webhook["id"]),
        delivery: text(&delivery["id"]),
        message: text(&message["id"]),
        update: text(&site.made("/updates", &site.admin, update).await["id"]),
        api_key: text(&site.made("/api-keys", &manager, json!({"name": "shop"})).await["id"]),
    }
}

impl Objects {
    /// What papers are about: the order, its card, the appliance.
    pub(super) fn printed(&self) -> (&str, &str, &str) {
        (&self.order, &self.card, &self.appliance)
    }

    /// The path of an operation, naming one of these.
    pub(super) fn path(&self, operation: &Operation) -> String {
        let path = operation.path;
        let id = match path.split('/').nth(3).unwrap_or_default() {
            "tasks" => &format!("{}-image", self.order),
            "jobs" => "api-keys",
            "users" => &self.user,
            "auto-images" => &self.auto_image,
            "account-hooks" => &self.account_hook,
            "webhooks" => &self.webhook,
            "messages" => &self.message,
            "organizations" => &self.organization,
            "api-keys" => &self.api_key,
            "channels" => &self.channel,
            "warehouses" => &self.warehouse,
            "join-tokens" => &self.join_token,
            "configurations" => &self.configuration,
            "appliances" => &self.appliance,
            "addresses" => &self.address,
            "media" => &self.media,
            "updates" => &self.update,
            _ => &self.order,
        };
        let path = path
            .replace("{kind}", "build")
            .replace("{name}", "wiki")
            .replace("{id}", id)
            .replace("{event}", "order_created")
            .replace("{language}", "en")
            .replace("{message}", &self.delivery)
            .replace("{uid}", &self.card);
        path.replace("{appliance}", &self.appliance).replace("{slot}", "s01")
    }
}

/// Calls a route; gives the status and, of an answer that ends, the text.
async fn call(site: &Site, operation: &Operation, path: &str, token: &str) -> (StatusCode, String) {
    let method = if operation.method == Method::Get { "GET" } else { "POST" };
    let mut request = Request::builder().method(method).uri(path);
    if !token.is_empty() {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let body = match path {
        path if path.ends_with("/report") => {
            json!({"state": "running", "phase": "building", "done": 0, "total": 1}).to_string()
        }
        _ => String::new(),
    };
    let response = site.scheduler.router().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    let status = response.status();
    if path.ends_with("/live") && status == StatusCode::OK {
        return (status, String::new());
    }
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 22).await.unwrap();
    (status, String::from_utf8_lossy(&bytes).into_owned())
}

#[tokio::test]
async fn each_route_serves_each_role_and_channel_as_the_table_says() {
    let site = Site::new().await;
    site.channel("north").await;
    let objects = objects(&site).await;
    let mut callers = vec![("", true, String::new()), ("staff", true, site.admin.clone())];
    for role in ["manager", "operator", "creator", "integrator"] {
        for (own, channel) in [(true, "default"), (false, "north")] {
            callers.push((role, own, site.user(&format!("{role}-{channel}"), role, &[channel]).await));
        }
    }
    callers.push(("appliance", true, appliance_token(&site).await));

    let mut wrong = Vec::new();
    let before = site.scheduler.inner.store.fingerprint();
    let cells = OPERATIONS.iter().flat_map(|o| callers.iter().map(move |c| (o, c)));
    let (refused, mut served): (Vec<_>, Vec<_>) =
        cells.partition(|(o, (role, own, _))| expected(o, role, *own) != Expected::Served);
    // A rejected appliance has no slots any more, and what was deleted is not there for the next.
    let last = ["/reject", "/delete", "/anonymise"];
    served.sort_by_key(|(operation, _)| last.iter().any(|end| operation.path.ends_with(end)));
    for (operation, (role, own, token)) in refused {
        let path = objects.path(operation);
        let (status, text) = call(&site, operation, &path, token).await;
        let wanted = match expected(operation, role, *own) {
            Expected::NotKnown => StatusCode::UNAUTHORIZED,
            Expected::NotAllowed => StatusCode::FORBIDDEN,
            Expected::Hidden | Expected::Served => StatusCode::NOT_FOUND,
        };
        if status != wanted {
            wrong.push(format!(
                "{:?} {path} as {role:?} (own: {own}): {status}, not {wanted}: {text}",
                operation.method
            ));
        }
    }
    assert_eq!(site.scheduler.inner.store.fingerprint(), before, "a refused request changed something");
    for (operation, (role, own, token)) in served {
        let path = objects.path(operation);
        let (status, text) = call(&site, operation, &path, token).await;
        let open = operation.access == Access::Open || path.ends_with("/delete");
        let refused =
            [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::NOT_FOUND].contains(&status);
        let away = status.is_server_error() && path != "/health";
        if (refused && !open) || away {
            wrong.push(format!("{:?} {path} as {role:?} (own: {own}): {status}: {text}", operation.method));
        }
        if !own && (text.contains(&objects.order) || text.contains(&objects.appliance)) && !open {
            wrong.push(format!("{path} shows {role} of another channel what is not theirs: {text}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// An access token of the appliance that [`objects`] made.
pub(super) async fn appliance_token(site: &Site) -> String {
    let key = SigningKey::from_bytes(&[1; 32]);
    let appliance = cardshop_protocol::keys::appliance_id(&key.verifying_key());
    let nonce = site.made("/auth/nonce", "", json!({"appliance": appliance})).await;
    let nonce = nonce["nonce"].as_str().unwrap();
    let signature = encode_signature(&key.sign(&ApplianceLogin::message(appliance, nonce)).to_bytes());
    let login = json!({"appliance": appliance, "nonce": nonce, "signature": signature});
    site.made("/auth/appliance", "", login).await["access_token"].as_str().unwrap().to_owned()
}
