//! Pull and push: against the reference registry on the loopback interface, and against a server
//! that misbehaves as real networks do.

use crate::common::{Place, Tar, gzip, has, layout, sh};
use rootfs_tools::Digest;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A registry process that ends with the test.
pub(crate) struct Registry {
    child: Child,
    port: u16,
}

impl Registry {
    pub(crate) fn start(place: &Place, more: &str, tls: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: 127.0.0.1:{port}\n{tls}{more}",
            place.path("registry").display()
        );
        let config = place.write("registry.yml", config.as_bytes());
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "the registry does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, port }
    }

    pub(crate) fn image(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn image(place: &Place) {
    let layers = [Tar::new().file("a", &[1; 200_000]).done(), Tar::new().file("b", b"2").done()];
    layout(&place.path("layout"), "image", &layers);
    place.ok(&["import", "layout", "web"]);
}

fn digest(place: &Place, name: &str) -> String {
    let text = place.ok(&["inspect", name]);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value["digest"].as_str().unwrap().to_owned()
}

#[test]
fn what_is_pushed_is_pulled() {
    if !has("docker-registry") {
        return;
    }
    let place = Place::new();
    let registry = Registry::start(&place, "", "");
    image(&place);
    let target = registry.image("team/web:v1");
    assert!(place.ok(&["push", "web", &target, "--insecure"]).contains("3 blobs sent"));
    assert!(place.ok(&["push", "web", &target, "--insecure"]).contains("0 blobs sent"));

    let other = Place::new();
    assert!(other.ok(&["pull", &target, "--insecure"]).contains("2 layers"));
    assert_eq!(digest(&other, &target), digest(&place, "web"));
    assert_eq!(other.ok(&["verify"]), format!("{target}: as it was\n"));
    other.ok(&["tag", &target, "docker.io/team/saved"]);
    assert_eq!(digest(&other, "team/saved"), digest(&place, "web"));
    assert!(other.ok(&["pull", &target, "again", "--insecure"]).contains("2 of them shared"));
    assert_eq!(fs::read_dir(other.path("store/partial/sha256")).unwrap().count(), 0);
    let pinned = format!("{}@{}", registry.image("team/web"), digest(&place, "web"));
    other.ok(&["pull", &pinned, "pinned", "--insecure"]);

    let usual = format!("127.0.0.1:{}", registry.port);
    let short = other.ok(&["pull", "team/web:v1", "--registry", &usual, "--insecure"]);
    assert!(short.starts_with("team/web:v1:"), "{short}");
    other.write(
        "Containerfile",
        format!("FROM {}\nENV A=b\n", registry.image("team/web:v1")).as_bytes(),
    );
    other.ok(&["rm", &target]);
    other.ok(&["build", "--insecure", "-t", "built", other.path("").to_str().unwrap()]);
    assert!(other.ok(&["inspect", "built"]).contains("A=b"));
    other.ok(&["inspect", &target]);
    let unsaid = other.fails(&["pull", "web:v1"]);
    assert!(unsaid.contains("as in docker.io/library/web:v1"), "{unsaid}");
    let absent = other.fails(&["pull", &registry.image("team/web:v9"), "--insecure"]);
    assert!(absent.contains("MANIFEST_UNKNOWN"), "{absent}");
    let mirrored = other.ok(&[
        "pull",
        "registry.invalid/team/web:v1",
        "--insecure",
        "--mirror",
        &format!("127.0.0.1:{}", registry.port),
    ]);
    assert!(mirrored.starts_with("registry.invalid/team/web:v1:"), "{mirrored}");
    let refused = other.fails(&["pull", "registry.invalid/team/web:v1", "--insecure"]);
    assert!(refused.contains("--insecure is for a registry on this machine"), "{refused}");
    if has("skopeo") {
        let seen = sh(&format!(
            "skopeo inspect --tls-verify=false docker://{target} --format '{{{{.Digest}}}}'"
        ));
        assert_eq!(seen.trim(), digest(&place, "web"));
    }
}

#[test]
fn the_image_for_this_machine_is_chosen() {
    if !(has("docker-registry") && has("curl")) {
        return;
    }
    let place = Place::new();
    let registry = Registry::start(&place, "", "");
    image(&place);
    place.ok(&["push", "web", &registry.image("web:one"), "--insecure"]);
    let manifest = place.ok(&["inspect", "web", "--manifest"]);
    let this = rootfs_tools::image::platform::Platform::host();
    let entry = |architecture: &str, variant: Option<&String>| {
        serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": Digest::of(manifest.as_bytes()), "size": manifest.len(),
            "platform": {"os": "linux", "architecture": architecture, "variant": variant},
        })
    };
    let put = |tag: &str, manifests: serde_json::Value| {
        let media_type = "application/vnd.oci.image.index.v1+json";
        let index = serde_json::json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests});
        let file = place.write("index", index.to_string().as_bytes());
        sh(&format!(
            "curl -sSf -X PUT -H 'Content-Type: {media_type}' --data-binary @{} http://127.0.0.1:{}/v2/web/manifests/{tag}",
            file.display(),
            registry.port
        ));
    };
    put(
        "all",
        serde_json::json!([entry("z80", None), entry(&this.architecture, this.variant.as_ref())]),
    );
    put("none", serde_json::json!([entry("z80", None), entry("6502", None)]));
    place.ok(&["pull", &registry.image("web:all"), "--insecure"]);
    place.ok(&["pull", &registry.image("web:none"), "--insecure", "--platform", "linux/z80"]);
    let error = place.fails(&["pull", &registry.image("web:none"), "--insecure"]);
    assert!(error.contains("it is for: linux/6502, linux/z80"), "{error}");
}

#[test]
fn a_password_and_a_certificate_of_ones_own() {
    if !(has("docker-registry") && has("htpasswd") && has("openssl")) {
        return;
    }
    let place = Place::new();
    let at = place.dir.path().display().to_string();
    sh(&format!(
        "cd {at}
         htpasswd -Bbn me 'pass:word' > users
         openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out own.pem -days 2 \\
            -subj /CN=test-ca 2>/dev/null
         openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout server.key -out server.csr -subj /CN=r 2>/dev/null
         printf 'subjectAltName=IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' > ext
         openssl x509 -req -in server.csr -CA own.pem -CAkey key.pem -CAcreateserial -days 2 -extfile ext -out server.pem 2>/dev/null"
    ));
    let auth = format!("auth: {{htpasswd: {{realm: x, path: {at}/users}}}}\n");
    let tls = format!("  tls: {{certificate: {at}/server.pem, key: {at}/server.key}}\n");
    let registry = Registry::start(&place, &auth, &tls);
    image(&place);
    let target = registry.image("web:v1");
    let own = place.path("own.pem");
    let own = own.to_str().unwrap();

    let error = place.fails(&["push", "web", &target]);
    assert!(error.to_lowercase().contains("certificate"), "{error}");
    let error = place.fails(&["push", "web", &target, "--ca", own]);
    assert!(error.contains("no auth file has one"), "{error}");
    // me:pass:word
    let file = format!(
        r#"{{"auths": {{"127.0.0.1:{}": {{"auth": "bWU6cGFzczp3b3Jk"}}}}}}"#,
        registry.port
    );
    place.write("auth.json", file.as_bytes());
    assert!(place.ok(&["push", "web", &target, "--ca", own]).contains("3 blobs sent"));
    a_helper_has_the_password(&place, &registry, &target, own);
    let file =
        format!(r#"{{"auths": {{"127.0.0.1:{}": {{"auth": "bWU6d3Jvbmc="}}}}}}"#, registry.port);
    place.write("auth.json", file.as_bytes());
    let error = place.fails(&["pull", &target, "again", "--ca", own]);
    assert!(error.contains("401") && !error.contains("wrong"), "{error}");
}

/// The same password from a program, by `credHelpers` and by `credsStore`.
fn a_helper_has_the_password(place: &Place, registry: &Registry, target: &str, own: &str) {
    let host = format!("127.0.0.1:{}", registry.port);
    let script = format!(
        "#!/bin/sh\n[ \"$1 $(cat)\" = 'get {host}' ] || {{ echo 'credentials not found in native keychain'; exit 1; }}\n\
         echo '{{\"ServerURL\": \"{host}\", \"Username\": \"me\", \"Secret\": \"pass:word\"}}'\n"
    );
    let program = place.write("docker-credential-test", script.as_bytes());
    sh(&format!("chmod 755 {}", program.display()));
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", place.dir.path().display());
    for file in [
        format!(r#"{{"credHelpers": {{"{host}": "test"}}}}"#),
        r#"{"credsStore": "test"}"#.to_owned(),
    ] {
        place.write("auth.json", file.as_bytes());
        let mut pull = place.command(&["pull", target, "helped", "--ca", own]);
        let output = pull.env("PATH", &path).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{file}: {said}");
    }
    // Another registry, of which the helper knows nothing: no password, and the same words.
    place.write("auth.json", br#"{"credsStore": "absent"}"#);
    let error = place.fails(&["pull", target, "helped", "--ca", own]);
    assert!(error.contains("docker-credential-absent"), "{error}");
}

/// What the bad server has, and how often it was asked for blobs.
struct Bad {
    manifest: String,
    config: Vec<u8>,
    layer: Vec<u8>,
    asked: AtomicUsize,
    /// Breaks the connection after so many bytes of the layer.
    piece: usize,
}

/// Serves one image: wants a token, is busy at first, breaks off in the middle of each layer.
fn bad_server(bad: Arc<Bad>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (bad, mut stream) = (bad.clone(), stream.unwrap());
            std::thread::spawn(move || {
                // The client may have had enough.
                drop(answer(&bad, &mut stream, port));
            });
        }
    });
    port
}

fn answer(bad: &Bad, stream: &mut TcpStream, port: u16) -> std::io::Result<()> {
    let mut head = Vec::new();
    for line in BufReader::new(stream.try_clone()?).lines() {
        match line? {
            line if line.is_empty() => break,
            line => head.push(line.to_lowercase()),
        }
    }
    let first = head.first().cloned().unwrap_or_default();
    let has_token = head.iter().any(|line| line == "authorization: bearer t0ken");
    let say = |stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]| {
        write!(
            stream,
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        )?;
        stream.write_all(body)
    };
    if first.starts_with("get /token?") {
        assert!(
            first.contains("scope=repository%3aweb%3apull")
                || first.contains("scope=repository:web:pull"),
            "{first}"
        );
        return say(stream, "200 OK", "", br#"{"token": "t0ken"}"#);
    }
    if !has_token {
        let wanted = format!(
            "WWW-Authenticate: Bearer realm=\"http://127.0.0.1:{port}/token\",service=\"bad\",scope=\"repository:web:pull\"\r\n"
        );
        return say(stream, "401 Unauthorized", &wanted, b"");
    }
    if first.contains("/manifests/") {
        let kind = "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n";
        return say(stream, "200 OK", kind, bad.manifest.as_bytes());
    }
    let asked = bad.asked.fetch_add(1, Ordering::SeqCst);
    if asked == 0 {
        return say(stream, "503 Service Unavailable", "", b"busy");
    }
    if first.contains(&Digest::of(&bad.config).hex()) {
        return say(stream, "200 OK", "", &bad.config);
    }
    let range = head.iter().find_map(|line| line.strip_prefix("range: bytes=")?.strip_suffix('-'));
    let from: usize = range.map_or(0, |from| from.parse().unwrap());
    let rest = &bad.layer[from..];
    let status = if from == 0 { "200 OK" } else { "206 Partial Content" };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        rest.len()
    )?;
    stream.write_all(&rest[..rest.len().min(bad.piece)])
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn bad(piece: usize) -> Arc<Bad> {
    let tar = Tar::new().file("noise", &noise(400_000)).done();
    let layer = gzip(&tar);
    let config = serde_json::json!({
        "os": "linux", "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&tar)]},
    });
    let config = config.to_string().into_bytes();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::of(&config), "size": config.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": Digest::of(&layer), "size": layer.len()}],
    });
    let (manifest, asked) = (manifest.to_string(), AtomicUsize::new(0));
    Arc::new(Bad { manifest, config, layer, asked, piece })
}

#[test]
fn a_broken_connection_is_continued_where_it_broke() {
    let bad = bad(60_000);
    let image = format!("127.0.0.1:{}/web", bad_server(bad.clone()));
    let place = Place::new();
    place.ok(&["pull", &image, "--insecure"]);
    assert_eq!(place.ok(&["verify"]), format!("{image}:latest: as it was\n"));
    // Busy, configuration, and one request for each piece of the layer.
    let pieces = bad.layer.len().div_ceil(60_000);
    assert_eq!(bad.asked.load(Ordering::SeqCst), 2 + pieces);
}

#[test]
fn what_arrived_before_a_death_is_not_asked_for_again() {
    let bad = bad(usize::MAX);
    let image = format!("127.0.0.1:{}/web", bad_server(bad.clone()));
    let place = Place::new();
    place.ok(&["ls"]);
    let partial = place.path("store/partial/sha256").join(Digest::of(&bad.layer).hex());
    fs::write(&partial, &bad.layer[..300_000]).unwrap();
    place.ok(&["pull", &image, "--insecure"]);
    assert_eq!(place.ok(&["verify"]), format!("{image}:latest: as it was\n"));

    // A part that is damaged makes the whole wrong: it is an error once, and then begun anew.
    let place = Place::new();
    place.ok(&["ls"]);
    let partial = place.path("store/partial/sha256").join(Digest::of(&bad.layer).hex());
    fs::write(&partial, noise(300_000)).unwrap();
    place.fails(&["pull", &image, "--insecure"]);
    assert!(!partial.exists());
    place.ok(&["pull", &image, "--insecure"]);
}

#[test]
fn a_server_that_makes_no_progress_is_given_up() {
    let bad = bad(0);
    let image = format!("127.0.0.1:{}/web", bad_server(bad));
    let place = Place::new();
    let error = place.fails(&["pull", &image, "--insecure"]);
    assert!(error.contains("bytes have arrived and are kept"), "{error}");
}
