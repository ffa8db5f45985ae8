//! The API: HTTP on a unix socket, one document each way. [`routes`] is the table.

mod metrics;
mod routes;
pub(crate) mod views;

use std::convert::Infallible;
use std::path::PathBuf;

use anyhow::Result;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use minisup_core::input::Command;
use serde::Serialize;
use tokio::net::UnixListener;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

pub(crate) use self::views::{EventView, StateView, SupervisorView};

use super::News;
use super::engine::Brain;
use super::traffic::TrafficView;
use crate::layout::Layout;
use crate::model::Stack;

/// What is asked.
pub(crate) enum Call {
    /// Make it so.
    Apply(Box<Stack>),
    /// A command.
    Command(Command),
    /// Let that program take over.
    Upgrade(PathBuf),
    /// Who supervises.
    Supervisor,
    /// What there is.
    State,
    /// What instances use.
    Stats,
    /// Who can be reached.
    Registry,
    /// Metrics.
    Metrics,
    /// What the data plane has counted.
    Traffic,
    /// The description of the API.
    Document,
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
    kind: &'static str,
    text: String,
}

/// The media type of nearly everything.
const JSON: &str = "application/json";

impl Reply {
    pub(crate) fn done() -> Reply {
        Reply::text(JSON, "{}".to_string())
    }

    pub(crate) fn refused(error: String) -> Reply {
        Reply::error(StatusCode::CONFLICT, error)
    }

    pub(crate) fn json(value: &impl Serialize) -> Reply {
        match serde_json::to_string(value) {
            Ok(json) => Reply::text(JSON, json),
            Err(error) => Reply::error(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    fn text(kind: &'static str, text: String) -> Reply {
        Reply { status: StatusCode::OK, kind, text }
    }

    pub(crate) fn error(status: StatusCode, error: String) -> Reply {
        let text = serde_json::json!({"error": error}).to_string();
        Reply { status, kind: JSON, text }
    }
}

/// The answer to a question that changes nothing and waits for nothing.
pub(crate) fn look(brain: &mut Brain, call: &Call) -> Reply {
    match call {
        Call::Stats => Reply::json(&brain.stats()),
        Call::Registry => Reply::json(&brain.registry()),
        Call::Supervisor => Reply::json(&brain.supervisor()),
        Call::Document => Reply::text(JSON, routes::DOCUMENT.to_string()),
        _ => Reply::json(&brain.state_view()),
    }
}

/// The metrics, with what the data plane has counted, if it has answered.
pub(crate) fn metrics(brain: &mut Brain, traffic: Option<&TrafficView>) -> Reply {
    Reply::text("text/plain; version=0.0.4", metrics::text(brain, traffic))
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
    let reply = match routes::understand(request).await {
        Err(reply) => reply,
        Ok(call) => {
            let (sender, receiver) = oneshot::channel();
            let _ = news.send(News::Api(call, sender));
            let gone = |_| Reply::error(StatusCode::SERVICE_UNAVAILABLE, "going away".into());
            receiver.await.unwrap_or_else(gone)
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(reply.text)));
    *response.status_mut() = reply.status;
    let kind = hyper::header::HeaderValue::from_static(reply.kind);
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
    response
}
