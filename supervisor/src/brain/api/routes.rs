//! What can be asked for, and how a request is understood.
//!
//! | request                                   | answer                             |
//! |-------------------------------------------|------------------------------------|
//! | `POST /v1/apply` a stack                  | `{}`                               |
//! | `POST /v1/command` a command of the core  | `{}`                               |
//! | `POST /v1/upgrade` the path of a minisup  | `{}`, and that program takes over  |
//! | `GET /v1/supervisor`                      | version and processes of minisup   |
//! | `GET /v1/state`                           | the state, and each first process  |
//! | `GET /v1/events?after=N[&slot=S][&wait]`  | the events after number N          |
//! | `GET /v1/stats`                           | what every instance uses           |
//! | `GET /v1/traffic`                         | what the data plane has counted    |
//! | `GET /v1/registry`                        | who can be reached                 |
//! | `GET /v1/metrics`                         | Prometheus' text format            |
//! | `GET /v1/openapi.json`                    | this table, for programs           |
//!
//! A refusal is status 409 with `{"error": …}`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use minisup_core::input::Command;
use serde::Deserialize;

use super::{Call, Reply};

/// The largest request body, in bytes.
const BODY: usize = 8 << 20;

/// Every route. The published document describes exactly these, which a test holds.
pub(super) const ROUTES: [(Method, &str); 11] = [
    (Method::POST, "/v1/apply"),
    (Method::POST, "/v1/command"),
    (Method::POST, "/v1/upgrade"),
    (Method::GET, "/v1/supervisor"),
    (Method::GET, "/v1/state"),
    (Method::GET, "/v1/events"),
    (Method::GET, "/v1/stats"),
    (Method::GET, "/v1/traffic"),
    (Method::GET, "/v1/registry"),
    (Method::GET, "/v1/metrics"),
    (Method::GET, "/v1/openapi.json"),
];

/// The OpenAPI document.
pub(super) const DOCUMENT: &str = include_str!("openapi.json");

/// Understands a request.
pub(super) async fn understand(request: Request<Incoming>) -> Result<Call, Reply> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    if !ROUTES.iter().any(|(method, known)| *method == head.method && *known == path) {
        let known = ROUTES.iter().any(|(_, known)| *known == path);
        let error = format!("there is no {} {path}; /v1/openapi.json says what is", head.method);
        let status = if known { StatusCode::METHOD_NOT_ALLOWED } else { StatusCode::NOT_FOUND };
        return Err(Reply::error(status, error));
    }
    match path {
        "/v1/state" => Ok(Call::State),
        "/v1/supervisor" => Ok(Call::Supervisor),
        "/v1/stats" => Ok(Call::Stats),
        "/v1/traffic" => Ok(Call::Traffic),
        "/v1/registry" => Ok(Call::Registry),
        "/v1/metrics" => Ok(Call::Metrics),
        "/v1/openapi.json" => Ok(Call::Document),
        "/v1/events" => events(head.uri.query().unwrap_or_default()),
        _ => {
            let body = http_body_util::Limited::new(body, BODY).collect().await;
            let bytes = body.map_err(|error| bad(error.to_string()))?.to_bytes();
            posted(path, &bytes)
        }
    }
}

fn bad(error: String) -> Reply {
    Reply::error(StatusCode::BAD_REQUEST, error)
}

fn events(query: &str) -> Result<Call, Reply> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let query: BTreeMap<&str, &str> =
        pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
    if let Some(unknown) = query.keys().find(|key| !["after", "slot", "wait"].contains(key)) {
        return Err(bad(format!("there is no parameter {unknown}; use after, slot and wait")));
    }
    let after = query.get("after").map_or(Ok(0), |text| text.parse());
    let after = after.map_err(|_| bad("after is not a number".to_string()))?;
    let slot = query.get("slot").map(|slot| (*slot).to_string());
    Ok(Call::Events { after, slot, wait: query.contains_key("wait") })
}

/// The body of `/v1/upgrade`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Program {
    program: PathBuf,
}

fn posted(path: &str, body: &[u8]) -> Result<Call, Reply> {
    let wrong = |error: serde_json::Error| bad(error.to_string());
    if path == "/v1/apply" {
        return serde_json::from_slice(body).map(Call::Apply).map_err(wrong);
    }
    if path == "/v1/upgrade" {
        return serde_json::from_slice(body)
            .map(|Program { program }| Call::Upgrade(program))
            .map_err(wrong);
    }
    let command: Command = serde_json::from_slice(body).map_err(wrong)?;
    if matches!(command, Command::Apply(_)) {
        return Err(bad("use /v1/apply: a project is more than the core knows of it".to_string()));
    }
    Ok(Call::Command(command))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn document() -> Value {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    #[test]
    fn the_document_describes_exactly_the_routes() {
        let document = document();
        let mut described = Vec::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                assert!(operation["summary"].is_string(), "{method} {path} says nothing");
                assert!(operation["responses"]["200"].is_object(), "{method} {path}");
                described.push(format!("{} {path}", method.to_uppercase()));
            }
        }
        let mut known: Vec<String> =
            ROUTES.iter().map(|(method, path)| format!("{method} {path}")).collect();
        described.sort();
        known.sort();
        assert_eq!(described, known);
    }

    #[test]
    fn references_in_the_document_lead_somewhere() {
        fn visit(value: &Value, document: &Value) {
            if let Some(target) = value.get("$ref").and_then(Value::as_str) {
                let pointer = target.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{target} is not there");
            }
            let children: Vec<&Value> = match value {
                Value::Array(items) => items.iter().collect(),
                Value::Object(map) => map.values().collect(),
                _ => Vec::new(),
            };
            children.into_iter().for_each(|child| visit(child, document));
        }
        visit(&document(), &document());
    }

    /// The examples of the document are taken by the program, and every command has one.
    #[test]
    fn the_examples_are_understood() {
        let document = document();
        let examples = |path: &str| {
            let body = &document["paths"][path]["post"]["requestBody"];
            body["content"]["application/json"]["examples"].as_object().unwrap().clone()
        };
        let text = |example: &Value| example["value"].to_string();
        for (name, example) in examples("/v1/command") {
            assert!(posted("/v1/command", text(&example).as_bytes()).is_ok(), "{name}");
        }
        assert_eq!(examples("/v1/command").len(), 6, "one for each command but apply");
        for (name, example) in examples("/v1/upgrade") {
            assert!(posted("/v1/upgrade", text(&example).as_bytes()).is_ok(), "{name}");
        }
        for (name, example) in examples("/v1/apply") {
            assert!(posted("/v1/apply", text(&example).as_bytes()).is_ok(), "{name}");
        }
    }

    #[test]
    fn queries_are_understood_or_refused() {
        let call = events("after=7&slot=web.1&wait").map_err(|_| ()).unwrap();
        let Call::Events { after, slot, wait } = call else { panic!() };
        assert_eq!((after, slot.as_deref(), wait), (7, Some("web.1"), true));
        assert!(events("").is_ok());
        assert!(events("after=x").is_err() && events("since=1").is_err());
    }
}
