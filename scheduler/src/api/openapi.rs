//! `GET /openapi.json`: the API described for programs, made from the table of routes and the types of their bodies.
//! **Source:** OpenAPI 3.1, JSON Schema 2020-12.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use cardshop_protocol::api::Problem;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::table::{Access, Answer, Method, OPERATIONS, Operation, Shape};
use crate::Scheduler;

pub(super) fn routes() -> Router<Scheduler> {
    Router::new().route("/openapi.json", get(openapi))
}

async fn openapi() -> Response {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(document);
    ([(header::CACHE_CONTROL, "no-cache")], Json(&*DOCUMENT)).into_response()
}

/// The document.
fn document() -> Value {
    let settings = |inline| {
        SchemaSettings::draft2020_12().with(|s| {
            s.definitions_path = "/components/schemas".into();
            s.meta_schema = None;
            s.inline_subschemas = inline;
        })
    };
    // A field with a default may be left out of a body, and is always in an answer: bodies stand in their place, so
    // that a type in both has two shapes.
    let mut bodies = settings(true).for_deserialize().into_generator();
    let mut answers = settings(false).for_serialize().into_generator();
    let problem = answers.subschema_for::<Problem>();
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        let method = match operation.method {
            Method::Get => "get",
            Method::Post => "post",
        };
        path[method] = describe(operation, &mut bodies, &mut answers);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Cardshop",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "GPL-3.0-or-later", "identifier": "GPL-3.0-or-later"},
        },
        "paths": paths,
        "components": {
            "schemas": answers.take_definitions(true),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            "responses": {
                "problem": {
                    "description": "Why not, with a stable `code`",
                    "content": {"application/problem+json": {"schema": problem}},
                },
            },
        },
    })
}

fn describe(operation: &Operation, bodies: &mut SchemaGenerator, answers: &mut SchemaGenerator) -> Value {
    let mut described = json!({
        "operationId": operation_id(operation),
        "summary": operation.summary,
        "security": if operation.access == Access::Open { json!([]) } else { json!([{"token": []}]) },
        "parameters": parameters(operation, bodies),
        "responses": responses(operation.answer, answers),
    });
    if let Some(body) = operation.body {
        described["requestBody"] = json!({"required": true, "content": content(body, bodies)});
    }
    described
}

/// `post_orders_id_cancel`.
fn operation_id(operation: &Operation) -> String {
    let path = operation.path.trim_start_matches("/api/v1");
    let words: Vec<&str> =
        path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
    let method = if operation.method == Method::Get { "get" } else { "post" };
    format!("{method}_{}", words.join("_"))
}

fn content(shape: Shape, generator: &mut SchemaGenerator) -> Value {
    json!({"application/json": {"schema": shape(generator)}})
}

fn parameters(operation: &Operation, generator: &mut SchemaGenerator) -> Vec<Value> {
    let names = operation.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let in_path = names.map(|name| {
        let schema = json!({"type": "string", "pattern": "^[0-9a-z-]{1,64}$"});
        json!({"name": name, "in": "path", "required": true, "schema": schema})
    });
    let in_query = operation.query.iter().map(
        |(name, shape)| json!({"name": name, "in": "query", "required": false, "schema": shape(generator)}),
    );
    let key = operation.once.then(|| {
        let schema = json!({"type": "string", "pattern": "^[!-~]{1,200}$"});
        json!({"name": "Idempotency-Key", "in": "header", "required": false, "schema": schema})
    });
    in_path.chain(in_query).chain(key).collect()
}

fn responses(answer: Answer, generator: &mut SchemaGenerator) -> Value {
    let json_answer = |shape, generator: &mut SchemaGenerator| json!({"description": "Done", "content": content(shape, generator)});
    let mut responses = json!({
        "4XX": {"$ref": "#/components/responses/problem"},
        "503": {"$ref": "#/components/responses/problem"},
    });
    match answer {
        Answer::Json(status, shape) => responses[status.to_string()] = json_answer(shape, generator),
        Answer::Maybe(shape) => {
            responses["200"] = json_answer(shape, generator);
            responses["204"] = json!({"description": "There is none"});
        }
        Answer::Health(shape) => {
            responses["200"] = json_answer(shape, generator);
            responses["503"] = json_answer(shape, generator);
        }
        Answer::Elsewhere => {
            let schema = json!({"type": "string", "format": "uri"});
            responses["307"] = json!({
                "description": "It is there",
                "headers": {"Location": {"schema": schema}},
            });
        }
        Answer::File(media) => {
            let content: Map<_, _> = media.iter().map(|media| ((*media).to_owned(), json!({}))).collect();
            responses["200"] = json!({
                "description": "A file",
                "content": content,
                "headers": {super::papers::MISSING.as_str(): {
                    "description": "Characters that the font does not have: they show as \u{fffd}",
                    "schema": {"type": "string"},
                }},
            });
        }
        Answer::Text(media) => {
            let schema = json!({"type": "string"});
            responses["200"] = json!({"description": "Text", "content": {media: {"schema": schema}}});
        }
    }
    responses
}
