//! The smallest application worth supervising: answers every HTTP request with the name of its
//! slot. `hello MILLISECONDS` takes that long for each answer; `hello check` succeeds if another
//! `hello` answers, as a health check does. `GET /ask/NAME/PORT` is passed on to another service,
//! found by DNS; `GET /find/NAME` says where it is.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
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
    let mut answer = name.to_string();
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if let Some(path) = line.strip_prefix("GET /").and_then(|rest| rest.split(' ').next()) {
            answer = match path.split('/').collect::<Vec<_>>()[..] {
                ["ask", other, port] => ask(other, port).unwrap_or_else(|e| e.to_string()),
                ["find", other] => find(other).map_or_else(|e| e.to_string(), |a| format!("{a:?}")),
                _ => name.to_string(),
            };
        }
        if line.is_empty() {
            std::thread::sleep(pause);
            let length = answer.len() + 1;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            out.write_all(format!("{head}{answer}\n").as_bytes())?;
        }
    }
    Ok(())
}

/// What another service answers.
fn ask(name: &str, port: &str) -> std::io::Result<String> {
    let wrong = |what: &str| std::io::Error::other(what.to_string());
    let address = *find(name)?.first().ok_or_else(|| wrong("no address"))?;
    let port = port.parse().map_err(|_| wrong("no port"))?;
    let mut stream = TcpStream::connect((address, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let mut lines = BufReader::new(stream).lines();
    lines.by_ref().find(|line| line.as_ref().is_ok_and(String::is_empty));
    lines.next().unwrap_or_else(|| Err(wrong("no answer")))
}

/// The addresses of a name, from the server that /etc/resolv.conf names. A static program cannot
/// count on the C library for this.
fn find(name: &str) -> std::io::Result<Vec<Ipv4Addr>> {
    let text = std::fs::read_to_string("/etc/resolv.conf")?;
    let server = text.lines().find_map(|line| line.strip_prefix("nameserver "));
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut question = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).map_err(std::io::Error::other)?);
        question.extend_from_slice(label.as_bytes());
    }
    question.extend_from_slice(&[0, 0, 1, 0, 1]);
    socket.send_to(&question, (server.unwrap_or("127.0.0.1"), 53))?;
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer)?;
    // Behind the question: records of 16 bytes, of which the last four are the address.
    let records = answer[question.len().min(length)..length].chunks_exact(16);
    Ok(records.map(|r| Ipv4Addr::new(r[12], r[13], r[14], r[15])).collect())
}
