//! One call of gRPC over a Unix socket: a question, an answer, a status in the trailers.

use std::future::Future;
use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http2;
use hyper::header::HeaderMap;
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;

/// Runs what HTTP/2 does beside the call on the same thread.
#[derive(Debug, Clone, Copy)]
struct Here;

impl<F: Future<Output = ()> + 'static> Executor<F> for Here {
    fn execute(&self, future: F) {
        drop(tokio::task::spawn_local(future));
    }
}

/// Asks `method` of the runtime service behind `socket`.
pub(crate) fn call<A: Message + Default>(
    socket: &Path,
    method: &str,
    question: &impl Message,
) -> Result<A, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let message = question.encode_to_vec();
    let whole = async {
        let answer = exchange(socket, method, &message).await?;
        A::decode(answer).map_err(|error| error.to_string())
    };
    tokio::task::LocalSet::new().block_on(&runtime, whole)
}

async fn exchange(socket: &Path, method: &str, message: &[u8]) -> Result<Bytes, String> {
    let in_words = |error: hyper::Error| format!("no HTTP/2: {error}");
    let stream = UnixStream::connect(socket).await;
    let stream = stream.map_err(|error| format!("{}: {error}", socket.display()))?;
    let shaken = http2::Builder::new(Here).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(in_words)?;
    drop(tokio::task::spawn_local(async move { connection.await.ok() }));
    let length = u32::try_from(message.len()).map_err(|error| error.to_string())?;
    let framed = [&[0][..], &length.to_be_bytes(), message].concat();
    let request = Request::post(format!("http://localhost/runtime.v1.RuntimeService/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from(framed)))
        .map_err(|error| error.to_string())?;
    let (head, body) = sender.send_request(request).await.map_err(in_words)?.into_parts();
    let body = body.collect().await.map_err(in_words)?;
    let refused = body.trailers().and_then(refusal).or_else(|| refusal(&head.headers));
    match (refused, body.to_bytes()) {
        (Some(refused), _) => Err(refused),
        (None, bytes) if bytes.len() >= 5 => Ok(bytes.slice(5..)),
        (None, _) => Err("the answer is no message".into()),
    }
}

/// Why the call was refused, if it was.
fn refusal(fields: &HeaderMap) -> Option<String> {
    let text = |key| fields.get(key).and_then(|value| value.to_str().ok());
    match text("grpc-status")? {
        "0" => None,
        status => Some(format!("status {status}: {}", text("grpc-message").unwrap_or_default())),
    }
}
