//! The smallest application worth supervising: answers every HTTP request with the name of its
//! slot. `hello MILLISECONDS` takes that long for each answer; `hello check` succeeds if another
//! `hello` answers, as a health check does.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

fn main() -> std::io::Result<()> {
    if std::env::args().nth(1).as_deref() == Some("check") {
        return TcpStream::connect("127.0.0.1:3000").map(drop);
    }
    let pause = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    let name = std::env::var("MINISUP_SLOT").unwrap_or_else(|_| "nobody".to_string());
    let listener = TcpListener::bind("0.0.0.0:3000")?;
    println!("{name} listens");
    for stream in listener.incoming().flatten() {
        let name = name.clone();
        std::thread::spawn(move || serve(&stream, &name, Duration::from_millis(pause)));
    }
    Ok(())
}

/// Answers requests without a body until the client has had enough.
fn serve(stream: &TcpStream, name: &str, pause: Duration) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut out = stream;
    for line in BufReader::new(stream).lines() {
        if line?.is_empty() {
            std::thread::sleep(pause);
            let length = name.len() + 1;
            write!(out, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}\n")?;
        }
    }
    Ok(())
}
