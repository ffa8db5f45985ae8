//! What is spoken through minisup, with clients that others have written.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::needs::Need;
use crate::project::Project;
use crate::world::World;
use crate::{Test, programs, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("tls_is_spoken_with_real_clients", tls_is_spoken_with_real_clients)
            .needs(Need::Program("openssl"))
            .needs(Need::Program("curl")),
        test("websockets_pass", websockets_pass),
    ]
}

/// Starts a file's services.
fn up(project: &Project<'_>, text: &str) {
    let file = project.bundle().join("compose.yaml");
    std::fs::write(&file, text).expect("write the file");
    let runtime = programs::minirun();
    let mut up = vec!["up", "-d", "--wait", "--file", file.to_str().expect("UTF-8")];
    up.extend(["--runtime", runtime.to_str().expect("UTF-8")]);
    project.ok(&up);
}

/// Runs a program of the host; what it prints, also as complaints.
fn call(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(programs::find(program).expect("the program"));
    let output = command.args(arguments).stdin(Stdio::null()).output().expect("run it");
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

fn tls_is_spoken_with_real_clients(world: &World) {
    let project = Project::new(world, "tls");
    let dir = project.bundle();
    let path = |name: &str| dir.join(name).to_str().expect("UTF-8").to_owned();
    let (certificate, key) = (path("cert.pem"), path("key.pem"));
    let kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"];
    let files = ["-keyout", &key, "-out", &certificate];
    let made = call("openssl", &[&["req", "-x509"], &kind[..], &name, &files].concat());
    assert!(dir.join("cert.pem").exists(), "{made}");
    let port = project.port;
    up(
        &project,
        &format!(
            "services:\n  web:\n    image: .\n    ports: [\"127.0.0.1:{port}:3000\"]\n    \
             x-minisup: {{lb: {{tls: {{certificate: cert.pem, key: key.pem}}}}}}\n"
        ),
    );
    let url = format!("https://localhost:{port}/");
    for (version, shown) in [("--http1.1", "HTTP/1.1 200"), ("--http2", "HTTP/2 200")] {
        let limits = ["--max-time", "60", "--silent", "--show-error", "--include"];
        let answer =
            call("curl", &[&limits[..], &["--cacert", &certificate, version, &url]].concat());
        assert!(answer.starts_with(shown), "{version}: {answer}");
        assert!(answer.contains(" on web.1"), "{version}: {answer}");
    }
    let refused = call("curl", &["--max-time", "60", "--silent", "--show-error", &url]);
    assert!(refused.contains("certificate"), "nobody vouches for it: {refused}");
    let at = format!("localhost:{port}");
    let connect = ["s_client", "-connect", &at, "-CAfile", &certificate, "-verify_return_error"];
    for (offered, agreed) in [("h2,http/1.1", "h2"), ("http/1.1", "http/1.1")] {
        let told = call("openssl", &[&connect[..], &["-alpn", offered]].concat());
        assert!(told.contains(&format!("ALPN protocol: {agreed}")), "{told}");
        assert!(told.contains("Verify return code: 0 (ok)"), "{told}");
    }
    let old = call("openssl", &[&connect[..], &["-tls1_1"]].concat());
    assert!(old.contains("Cipher is (NONE)"), "older than TLS 1.2: {old}");
    project.down();
}

fn websockets_pass(world: &World) {
    let project = Project::new(world, "socket");
    up(
        &project,
        &format!(
            "services:\n  web:\n    image: .\n    command: [/bin/probe, upgrade, \"3000\"]\n    \
             ports: [\"127.0.0.1:{}:3000\"]\n    healthcheck: {{disable: true}}\n",
            project.port
        ),
    );
    let mut stream = TcpStream::connect(("127.0.0.1", project.port)).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("not for ever");
    let asked = "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    stream.write_all(asked.as_bytes()).expect("ask");
    let mut read = Vec::new();
    let mut byte = [0];
    while !read.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("an answer");
        read.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&read).to_lowercase();
    assert!(head.starts_with("http/1.1 101") && head.contains("upgrade: websocket"), "{head}");
    // Frames are bytes to us, whatever they say: there and back, unchanged.
    for frame in [&b"\x81\x05hello"[..], &[0x82; 5000]] {
        stream.write_all(frame).expect("send a frame");
        let mut back = vec![0; frame.len()];
        stream.read_exact(&mut back).expect("the frame");
        assert_eq!(back, frame);
    }
    drop(stream);
    project.down();
}
