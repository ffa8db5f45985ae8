//! The API: HTTP on a unix socket, one JSON document each way.
//!
//! | request                                   | answer                             |
//! |-------------------------------------------|------------------------------------|
//! | `POST /v1/apply` a stack                  | `{}`                               |
//! | `POST /v1/command` a command of the core  | `{}`                               |
//! | `GET /v1/state`                           | the state, and each first process  |
//! | `GET /v1/traffic`                         | what the data plane has counted    |
//! | `GET /v1/events?after=N[&slot=S][&wait]`  | the events after number N          |
//!
//! A refusal is status 409 with `{"error": …}`.

use std::collections::BTreeMap;
use std::convert::Infallible;

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use minisup_core::event::Event;
use minisup_core::input::Command;
use minisup_core::state::State;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::News;
use super::engine::Brain;
use crate::layout::Layout;
use crate::model::Stack;
use crate::store::Stored;

/// The largest request body, in bytes.
const BODY: usize = 8 << 20;

/// What is asked.
pub(crate) enum Call {
    /// Make it so.
    Apply(Box<Stack>),
    /// A command.
    Command(Command),
    /// What there is.
    State,
    /// What the data plane has counted.
    Traffic,
    /// What happened.
    Events {
        /// The last event the caller knows.
        after: i64,
        /// Of one slot only.
        slot: Option<String>,
        /// Whether to wait until there is one.
        wait: bool,
    },
}

/// What is answered.
#[derive(Debug)]
pub(crate) struct Reply {
    status: StatusCode,
    json: String,
}

/// What there is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StateView {
    /// What the core knows.
    pub(crate) state: State,
    /// What was asked for.
    pub(crate) stack: Stack,
    /// The first process of each instance that runs.
    pub(crate) pids: BTreeMap<String, i32>,
}

/// What happened.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EventView {
    /// Its number.
    pub(crate) seq: i64,
    /// When, in milliseconds since 1970.
    pub(crate) wall_ms: i64,
    /// What, and why.
    pub(crate) event: Event,
}

impl From<Stored> for EventView {
    fn from(stored: Stored) -> EventView {
        EventView { seq: stored.seq, wall_ms: stored.wall_ms, event: stored.event }
    }
}

impl Reply {
    pub(crate) fn done() -> Reply {
        Reply { status: StatusCode::OK, json: "{}".to_string() }
    }

    pub(crate) fn refused(error: String) -> Reply {
        Reply::error(StatusCode::CONFLICT, error)
    }

    pub(crate) fn json(value: &impl Serialize) -> Reply {
        match serde_json::to_string(value) {
            Ok(json) => Reply { status: StatusCode::OK, json },
            Err(error) => Reply::error(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    pub(crate) fn error(status: StatusCode, error: String) -> Reply {
        Reply { status, json: serde_json::json!({"error": error}).to_string() }
    }
}

/// The answer to "what is there".
pub(crate) fn state(brain: &Brain) -> Reply {
    let pids = brain.running.iter().map(|(id, running)| (id.to_string(), running.pid)).collect();
    Reply::json(&StateView { state: brain.state.clone(), stack: brain.stack.clone(), pids })
}

/// Offers the API on the project's socket.
pub(crate) fn listen(layout: &Layout, news: UnboundedSender<News>) -> Result<()> {
    // Left behind by a predecessor that was killed.
    let _ = std::fs::remove_file(layout.api());
    let listener = UnixListener::bind(layout.api())?;
    tokio::task::spawn_local(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                continue;
            };
            let news = news.clone();
            let service = service_fn(move |request| {
                let news = news.clone();
                async move { Ok::<_, Infallible>(serve(request, &news).await) }
            });
            tokio::task::spawn_local(async move {
                let server = hyper::server::conn::http1::Builder::new();
                // A caller that breaks off has nobody left to be told.
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok(())
}

async fn serve(request: Request<Incoming>, news: &UnboundedSender<News>) -> Response<Full<Bytes>> {
    let reply = match understand(request).await {
        Err(reply) => reply,
        Ok(call) => {
            let (sender, receiver) = oneshot::channel();
            let _ = news.send(News::Api(call, sender));
            let gone = |_| Reply::error(StatusCode::SERVICE_UNAVAILABLE, "going away".into());
            receiver.await.unwrap_or_else(gone)
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(reply.json)));
    *response.status_mut() = reply.status;
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
    response
}

async fn understand(request: Request<Incoming>) -> Result<Call, Reply> {
    let bad = |error: String| Reply::error(StatusCode::BAD_REQUEST, error);
    let (head, body) = request.into_parts();
    let query: BTreeMap<&str, &str> = head
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect();
    match (&head.method, head.uri.path()) {
        (&Method::GET, "/v1/state") => return Ok(Call::State),
        (&Method::GET, "/v1/traffic") => return Ok(Call::Traffic),
        (&Method::GET, "/v1/events") => {
            let after = query.get("after").map_or(Ok(0), |text| text.parse());
            let after = after.map_err(|_| bad("after is not a number".to_string()))?;
            let slot = query.get("slot").map(|slot| (*slot).to_string());
            return Ok(Call::Events { after, slot, wait: query.contains_key("wait") });
        }
        (&Method::POST, "/v1/apply" | "/v1/command") => {}
        (method, path) => {
            let error = format!("there is no {method} {path}");
            return Err(Reply::error(StatusCode::NOT_FOUND, error));
        }
    }
    let body = http_body_util::Limited::new(body, BODY).collect().await;
    let bytes = body.map_err(|error| bad(error.to_string()))?.to_bytes();
    let wrong = |error: serde_json::Error| bad(error.to_string());
    if head.uri.path() == "/v1/apply" {
        return serde_json::from_slice(&bytes).map(Call::Apply).map_err(wrong);
    }
    let command: Command = serde_json::from_slice(&bytes).map_err(wrong)?;
    if matches!(command, Command::Apply(_)) {
        return Err(bad("use /v1/apply: a project is more than the core knows of it".to_string()));
    }
    Ok(Call::Command(command))
}
