//! A web application with two versions, made to be replaced while it serves.
//!
//! - `GET /` says which version answers, on which host, as which process
//! - `GET /health` says `ok`
//! - `GET /slow?ms=2000` takes its time, so that one can watch a stop wait for it
//!
//! The version is `v1` unless the build says another (`VERSION=v3 cargo build`), and the
//! environment at run time has the last word. So the images `web:v1` and `web:v2` hold the same
//! file and differ in one line of their configuration: what a rollout shows is the rollout.

use serve::{Request, Response, serve};
use std::time::Duration;
use std::{env, io, process, thread};

/// The version that was built in.
const BUILT_AS: &str = match option_env!("VERSION") {
    Some(version) => version,
    None => "v1",
};

/// A longer answer would outlast the patience of whoever stops this program.
const SLOWEST_MS: usize = 60_000;

fn main() -> io::Result<()> {
    let version = env::var("VERSION").unwrap_or_else(|_| BUILT_AS.to_owned());
    let host = nix::unistd::gethostname()?.to_string_lossy().into_owned();
    let process = process::id();

    serve("web", |request: &Request| match request.path.as_str() {
        "/" => Response::new(200, format!("web {version} on {host}, process {process}\n")),
        "/health" => Response::new(200, "ok\n"),
        "/slow" => match request.number("ms") {
            Some(ms) if ms <= SLOWEST_MS => {
                thread::sleep(Duration::from_millis(ms as u64));
                Response::new(200, format!("web {version} took {ms} ms\n"))
            }
            _ => Response::new(400, format!("say how slow: /slow?ms=N, at most {SLOWEST_MS}\n")),
        },
        _ => Response::new(404, "there is /, /health and /slow?ms=N\n"),
    })
}
