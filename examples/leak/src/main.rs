//! A web application that never gives memory back, made to meet its limit.
//!
//! - `GET /leak?mb=64` takes 64 MiB more, touches every page and keeps them
//! - `GET /` says how much is held
//! - `GET /health` says `ok` until the end
//!
//! Memory that is only asked for costs nothing: the kernel gives a page when it is first written.
//! So each page is written, and a container with a limit of 512 MiB is killed at the request that
//! crosses it.

use serve::{Request, Response, serve};
use std::io;
use std::sync::{Mutex, PoisonError};

const MIB: usize = 1024 * 1024;

fn main() -> io::Result<()> {
    let held: Mutex<Vec<Vec<u8>>> = Mutex::default();
    let held_mib = || {
        let blocks = held.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.iter().map(Vec::len).sum::<usize>() / MIB
    };

    serve("leak", |request: &Request| match request.path.as_str() {
        "/" => Response::new(200, format!("holding {} MiB\n", held_mib())),
        "/health" => Response::new(200, "ok\n"),
        "/leak" => match request.number("mb").map(touched) {
            Some(Some(block)) => {
                held.lock().unwrap_or_else(PoisonError::into_inner).push(block);
                Response::new(200, format!("holding {} MiB\n", held_mib()))
            }
            Some(None) => Response::new(507, "the kernel refuses that much memory\n"),
            None => Response::new(400, "say how much: /leak?mb=N\n"),
        },
        _ => Response::new(404, "there is /, /health and /leak?mb=N\n"),
    })
}

/// So many MiB, every byte written; `None` when the kernel refuses even to promise them.
fn touched(mib: usize) -> Option<Vec<u8>> {
    let bytes = mib.checked_mul(MIB)?;
    let mut block = Vec::new();
    block.try_reserve_exact(bytes).ok()?;
    block.resize(bytes, 0xAA);
    Some(block)
}
