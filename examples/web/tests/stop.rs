//! The application as an orchestrator meets it: it serves, and it stops without losing a request.

#![expect(clippy::unwrap_used, reason = "a step of a test that fails has failed the test")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

struct Web {
    child: Child,
    port: u16,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Web {
    fn start(version: Option<&str>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_web"));
        command.env("PORT", "0").env_remove("VERSION").stdout(Stdio::piped());
        if let Some(version) = version {
            command.env("VERSION", version);
        }
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let port = first.rsplit(':').next().unwrap().parse().unwrap();
        Self { child, port, lines }
    }

    fn ask(&self, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: web\r\n\r\n").as_bytes()).unwrap();
        stream
    }

    fn get(&self, path: &str) -> String {
        read(self.ask(path))
    }

    fn terminate(&self) {
        let process = Pid::from_raw(self.child.id().try_into().unwrap());
        kill(process, Signal::SIGTERM).unwrap();
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn read(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn it_says_its_version_host_and_process() {
    let web = Web::start(Some("v2"));
    let answer = web.get("/");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let expected = format!("web v2 on {host}, process {}\n", web.child.id());
    assert!(answer.ends_with(&expected), "{answer}");
    assert!(web.get("/health").ends_with("\r\n\r\nok\n"));
    assert!(web.get("/nothing").starts_with("HTTP/1.1 404 "));
    assert!(web.get("/slow?ms=x").starts_with("HTTP/1.1 400 "));
}

#[test]
fn the_build_gives_the_version_that_the_environment_does_not() {
    let expected = option_env!("VERSION").unwrap_or("v1");
    assert!(Web::start(None).get("/").contains(&format!("web {expected} on ")));
}

#[test]
fn sigterm_finishes_what_has_begun_and_takes_nothing_new() {
    let mut web = Web::start(None);
    let slow = web.ask("/slow?ms=500");
    // The slow request is in the program's hands once a later one has been answered.
    web.get("/health");
    web.terminate();
    assert!(web.lines.next().unwrap().unwrap().contains("stopping"));
    assert!(TcpStream::connect(("127.0.0.1", web.port)).is_err());
    assert!(read(slow).ends_with("took 500 ms\n"));
    assert_eq!(web.child.wait().unwrap().code(), Some(0));
}
