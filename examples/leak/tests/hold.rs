//! The leak is real: what it says that it holds, the kernel counts as resident.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

#[test]
fn every_mebibyte_is_resident() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_leak"))
        .env("PORT", "0")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let port: u16 = first.trim().rsplit(':').next().unwrap().parse().unwrap();
    let get = |path: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let resident_kib = || -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };

    assert!(get("/").ends_with("holding 0 MiB\n"));
    let before = resident_kib();
    assert!(get("/leak?mb=20").ends_with("holding 20 MiB\n"));
    assert!(get("/leak?mb=12").ends_with("holding 32 MiB\n"));
    assert!(resident_kib() >= before + 32 * 1024);
    assert!(get("/leak").starts_with("HTTP/1.1 400 "));
    assert!(get(&format!("/leak?mb={}", usize::MAX)).starts_with("HTTP/1.1 507 "));
    assert!(get("/health").ends_with("ok\n"));

    child.kill().unwrap();
    child.wait().unwrap();
}
