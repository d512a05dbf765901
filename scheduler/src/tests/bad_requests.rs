//! Requests that are wrong in some way, thousands for each route: each gets a clear 4xx, and nothing is changed.

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use tower::ServiceExt;

use super::{Site, matrix};
use crate::api::table::{Access, Method, OPERATIONS, Operation};
use crate::core::rights::Action;

/// Requests for each route; `CARDSHOP_BAD_REQUESTS` asks for more.
const REQUESTS: usize = 300;

/// xorshift64*: the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn below(&mut self, count: usize) -> usize {
        (self.next() % count as u64) as usize
    }
    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.next() as u8).collect()
    }
    /// Text that is safe in a path or query.
    fn word(&mut self) -> String {
        (0..=self.below(40)).map(|_| char::from(*self.one(b"abcXYZ0189-_.~"))).collect()
    }
    /// JSON of a type that is not among these.
    fn not_of(&mut self, types: &[&str]) -> Value {
        loop {
            let (kind, value) = match self.below(6) {
                0 => ("string", json!(self.word())),
                1 => ("integer", json!(self.next())),
                2 => ("number", json!(0.5 + self.below(9) as f64)),
                3 => ("boolean", json!(self.below(2) == 0)),
                4 => ("array", json!([[self.below(3)]])),
                _ => ("object", json!({"x": self.word()})),
            };
            let fits = types.contains(&kind) || (kind == "integer" && types.contains(&"number"));
            if !fits {
                return value;
            }
        }
    }
}

/// What is wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    Token,
    Id,
    Query,
    Body,
    LargeBody,
    Method,
    Key,
}

fn faults(operation: &Operation) -> Vec<Fault> {
    let mut faults = vec![Fault::Method];
    let mut may = |fault, may: bool| faults.extend(may.then_some([fault; 4]).into_iter().flatten());
    may(Fault::Token, operation.access != Access::Open);
    may(Fault::Id, operation.path.contains('{'));
    may(Fault::Query, !operation.query.is_empty());
    may(Fault::Body, operation.body.is_some());
    may(Fault::Body, operation.body.is_some());
    may(Fault::Key, operation.once);
    if operation.body.is_some() {
        faults.push(Fault::LargeBody);
    }
    faults
}

/// The properties of the operation's body, with the types each may have.
fn properties(operation: &Operation) -> Map<String, Value> {
    let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true).for_deserialize();
    let Some(body) = operation.body else { return Map::new() };
    let schema = body(&mut settings.into_generator()).to_value();
    schema["properties"].as_object().cloned().unwrap_or_default()
}

fn wrong_body(random: &mut Random, properties: &Map<String, Value>) -> Vec<u8> {
    match random.below(4) {
        0 => {
            let mut bytes = random.bytes(200);
            bytes.push(b'{');
            bytes
        }
        1 => random.not_of(&["object"]).to_string().into_bytes(),
        _ => {
            let names: Vec<&String> = properties.keys().collect();
            let Some(name) = (!names.is_empty()).then(|| *random.one(&names)) else {
                return json!({"state": random.word(), "x": 1}).to_string().into_bytes();
            };
            let types = match &properties[name]["type"] {
                Value::String(one) => vec![one.as_str()],
                Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
                // A choice of words.
                _ => vec!["string"],
            };
            json!({name.as_str(): random.not_of(&types)}).to_string().into_bytes()
        }
    }
}

fn wrong_query(random: &mut Random, operation: &Operation) -> String {
    // Any text may be looked for.
    let strict: Vec<_> = operation
        .query
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| !["search", "language", "who", "action", "object"].contains(name))
        .collect();
    let name = *random.one(&strict);
    let value = match name {
        "cursor" => (*random.one(&["%00", "%20", "%C3%A9", "a%0Ab"])).to_owned() + &random.word(),
        _ => (*random.one(&["-", "x", "1x", "%00", "1e3", "--1"])).to_owned() + &random.word(),
    };
    format!("?{name}={value}")
}

#[tokio::test]
async fn thousands_of_bad_requests_get_a_clear_refusal_and_change_nothing() {
    let site = Site::new().await;
    let objects = matrix::objects(&site).await;
    let creator = site.login("first-maker", super::PASSWORD).await;
    let asked = std::env::var("CARDSHOP_BAD_REQUESTS").ok().and_then(|n| n.parse().ok());
    let before = site.scheduler.inner.store.fingerprint();
    let router = site.scheduler.router();
    let mut wrong = Vec::new();
    for (number, operation) in OPERATIONS.iter().enumerate() {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (number as u64 + 1));
        let (faults, properties) = (faults(operation), properties(operation));
        let creates = operation.access == Access::May(Action::Create);
        let good_token = if creates { &creator } else { &site.admin };
        for _ in 0..asked.unwrap_or(REQUESTS) {
            let fault = *random.one(&faults);
            let mut path = objects.path(operation);
            let mut method = if operation.method == Method::Get { "GET" } else { "POST" };
            let mut token = (operation.access != Access::Open).then(|| format!("Bearer {good_token}"));
            let (mut body, mut key) = (Vec::new(), None);
            match fault {
                Fault::Token => {
                    token = match random.below(3) {
                        0 => None,
                        1 => Some(format!("Bearer {}", random.word())),
                        _ => Some(format!("Bearer {good_token}{}", random.word())),
                    }
                }
                Fault::Id => {
                    let (from, name) = operation.path.split_once('{').unwrap();
                    let rest = name.split_once('}').unwrap().1.replace("{slot}", &random.word());
                    let rest =
                        rest.replace("{language}", &random.word()).replace("{message}", &random.word());
                    path = format!("{from}{}{rest}", random.word());
                }
                Fault::Query => path += &wrong_query(&mut random, operation),
                Fault::Body => body = wrong_body(&mut random, &properties),
                Fault::LargeBody => body = vec![b' '; 512 * 1024 + 1 + random.below(9)],
                Fault::Method => method = *random.one(&["PUT", "DELETE", "PATCH", "OPTIONS"]),
                Fault::Key => key = Some("k".repeat(201 + random.below(99))),
            }
            let mut request = Request::builder().method(method).uri(&path);
            if let Some(token) = &token {
                request = request.header(header::AUTHORIZATION, token);
            }
            if let Some(key) = key {
                request = request.header("idempotency-key", key);
            }
            let sent = format!(
                "{method} {path} {fault:?} {}",
                String::from_utf8_lossy(&body[..body.len().min(200)])
            );
            let request = request.body(Body::from(body)).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            let status = response.status();
            let problem = response.headers().get(header::CONTENT_TYPE).cloned();
            if status == StatusCode::OK {
                // It may be one that never ends.
                wrong.push(format!("{sent}: {status}"));
                continue;
            }
            let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
            let answer: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            let is_problem = problem.is_some_and(|t| t == "application/problem+json");
            let clear = is_problem
                && answer["code"].as_str().is_some_and(|code| !code.is_empty())
                && answer["detail"].as_str().is_some_and(|detail| !detail.is_empty())
                && answer["status"] == status.as_u16();
            if !status.is_client_error() || !clear {
                wrong.push(format!("{sent}: {status} {answer}"));
            }
        }
    }
    wrong.truncate(20);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(site.scheduler.inner.store.fingerprint(), before, "something was changed");
}
