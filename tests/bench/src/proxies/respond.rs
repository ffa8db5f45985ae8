//! The application behind the proxies: reads a request, writes the same answer, as fast as it can.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use anyhow::Result;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 128\r\n\r\n\
    0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\
    0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Answers at a port, for ever.
pub(crate) fn at(port: u16) -> Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    for stream in listener.incoming().flatten() {
        let thread = std::thread::Builder::new().stack_size(64 << 10);
        thread.spawn(move || {
            // A client that breaks off is the usual end.
            let _ = answer(stream);
        })?;
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; 4096];
    let mut kept = 0;
    loop {
        let count = stream.read(&mut buffer[kept..])?;
        if count == 0 {
            return Ok(());
        }
        kept += count;
        // One request at a time, and none has a body.
        if buffer[..kept].ends_with(b"\r\n\r\n") {
            stream.write_all(ANSWER)?;
            kept = 0;
        }
    }
}
