//! Images from Containerfiles, and from what containers changed.

use crate::common::{Place, has};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};

/// The runtime beside the program that is tested. `cargo build -p minirun` makes it.
pub(crate) fn runtime() -> Option<std::path::PathBuf> {
    let path = Path::new(env!("CARGO_BIN_EXE_rootfs-tools")).with_file_name("minirun");
    let here = path.is_file() && has("busybox") && nix::unistd::geteuid().is_root();
    if !here {
        eprintln!("not tested: needs {}, busybox and root", path.display());
    }
    here.then_some(path)
}

fn build(place: &Place, store: &str, tag: &str, text: &str) -> Output {
    place.write("Containerfile", text.as_bytes());
    Command::new(env!("CARGO_BIN_EXE_rootfs-tools"))
        .arg("--store")
        .arg(place.path(store))
        .args(["build", "-t", tag, "--network", "none", "--build-arg", "GREETING=hello"])
        .arg(place.dir.path())
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .output()
        .unwrap()
}

fn built(place: &Place, store: &str, tag: &str, text: &str) -> String {
    let output = build(place, store, tag, text);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said + &String::from_utf8_lossy(&output.stdout)
}

const TEXT: &str = r#"
ARG SHELL_AT=/bin
FROM scratch AS base
COPY busybox ${SHELL_AT:-/bin}/busybox
RUN ["/bin/busybox", "ln", "-s", "busybox", "/bin/sh"]

FROM base AS work
ARG GREETING=nobody
ENV NAME=world
WORKDIR /src
COPY --chown=7:8 --chmod=640 *.txt sub ./
RUN busybox echo "$GREETING $NAME" > out && \
    # a comment in between
    busybox rm a.txt

FROM base
LABEL from="two words"
COPY --from=work /src /result
EXPOSE 3000
VOLUME /data
STOPSIGNAL SIGINT
USER 7
HEALTHCHECK --interval=5s CMD busybox true
ENTRYPOINT ["/bin/busybox"]
CMD ["sleep", "1"]
"#;

fn context() -> Place {
    let place = Place::new();
    fs::copy("/bin/busybox", place.path("busybox")).unwrap();
    place.write("a.txt", b"a");
    place.write("b.txt", b"b");
    place.write("hidden.txt", b"secret");
    place.write(".dockerignore", b"hidden.*\nstore*\n");
    fs::create_dir(place.path("sub")).unwrap();
    place.write("sub/inner", b"inner");
    place
}

#[test]
fn a_containerfile_becomes_an_image_and_the_same_one_again() {
    if runtime().is_none() {
        return;
    }
    let place = context();
    let first = built(&place, "store", "app", TEXT);
    assert!(!first.contains("as before"), "{first}");
    let again = built(&place, "store", "again", TEXT);
    assert_eq!(again.matches("as before").count(), 2, "{again}");
    let other = built(&place, "store2", "app", TEXT);
    let digest = |said: &str| said.rsplit(' ').next().unwrap().trim().to_owned();
    assert_eq!(digest(&first), digest(&again));
    assert_eq!(digest(&first), digest(&other), "bit by bit the same in another store");

    place.ok(&["bundle", "app", "bundle"]);
    let lower = place.lower("bundle");
    let top = &lower[0];
    assert_eq!(fs::read_to_string(top.join("result/out")).unwrap(), "hello world\n");
    assert_eq!(fs::read_to_string(top.join("result/inner")).unwrap(), "inner");
    assert!(!top.join("result/a.txt").exists() && !top.join("result/hidden.txt").exists());
    let copied = fs::metadata(top.join("result/b.txt")).unwrap();
    assert_eq!((copied.uid(), copied.gid(), copied.mode() & 0o7777), (0, 0, 0o640));
    assert!(copied.mtime() <= 1_700_000_000);
    // Nothing that minirun mounts on is left in the layer of a RUN.
    for layer in &lower {
        assert!(!layer.join("proc").exists() && !layer.join("dev").exists(), "{}", layer.display());
    }
    let text = place.ok(&["inspect", "app"]);
    let image: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(image["config"]["Labels"]["from"], "two words");
    assert_eq!(image["config"]["Healthcheck"]["Interval"], 5_000_000_000_u64);
    assert_eq!(image["config"]["Entrypoint"][0], "/bin/busybox");
    assert_eq!(image["created"], "2023-11-14T22:13:20Z");
    let history = image["history"].as_array().unwrap();
    let layers = history.iter().filter(|step| step["empty_layer"] != true).count();
    assert_eq!(layers, image["layers"].as_array().unwrap().len());
}

#[test]
fn owners_of_copies_are_those_that_were_asked_for() {
    let place = context();
    built(
        &place,
        "store",
        "x",
        "FROM scratch\nCOPY --chown=7:8 --chmod=640 b.txt sub /d/\nCOPY --chown=9 a.txt /e\n",
    );
    place.ok(&["import", "store", "y", "--ref", "x:latest"]);
    let inspected: serde_json::Value = serde_json::from_str(&place.ok(&["inspect", "y"])).unwrap();
    let layer = |at: usize| Path::new(inspected["layers"][at]["tree"].as_str().unwrap()).to_owned();
    let owner = |path: &Path| {
        let file = fs::metadata(path).unwrap();
        (file.uid(), file.gid(), file.mode() & 0o7777)
    };
    if nix::unistd::geteuid().is_root() {
        assert_eq!(owner(&layer(0).join("d/b.txt")), (7, 8, 0o640));
        assert_eq!(owner(&layer(0).join("d/inner")), (7, 8, 0o640));
        assert_eq!(owner(&layer(1).join("e")).0, 9);
        assert_eq!(owner(&layer(1).join("e")).1, 9);
    }
}

#[test]
fn what_goes_wrong_is_said_with_its_line() {
    let place = context();
    for (text, words) in [
        ("FROM scratch\nCOPY nothing /\n", "line 2: COPY nothing /: there is no `nothing`"),
        ("FROM scratch\nCOPY hidden.txt /\n", ".dockerignore"),
        ("FROM scratch\nCOPY ../secret /\n", "`..`"),
        ("FROM absent\n", "no image `absent:latest`"),
        ("FROM scratch\nONBUILD RUN x\n", "line 2"),
        ("FROM scratch\nADD ftp://x.example/y /\n", "there is no `ftp:"),
        ("FROM scratch\nADD http://127.0.0.1:1/y /\n", "fetch http://127.0.0.1:1/y"),
        ("COPY a.txt /\n", "FROM comes first"),
        ("FROM scratch\nENV A=1\n", "no files"),
        ("FROM scratch\nCOPY --from=9 a /\n", "no image `9:latest`"),
    ] {
        let output = build(&place, "store", "x", text);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(words), "{text}: {said}");
    }
    if runtime().is_some() {
        let text = "FROM scratch\nCOPY busybox /bin/\nRUN [\"/bin/busybox\", \"false\"]\n";
        let said = String::from_utf8(build(&place, "store", "x", text).stderr).unwrap();
        assert!(said.contains("line 3") && said.contains("the command failed"), "{said}");
    }
    assert_eq!(place.ok(&["ls"]).lines().count(), 1, "no name was given");
}

#[test]
fn what_a_container_changed_becomes_an_image() {
    let Some(minirun) = runtime() else { return };
    let place = context();
    let text = "FROM scratch\nCOPY busybox /bin/\nCOPY a.txt b.txt sub /d/\nCMD [\"/bin/busybox\", \"sh\", \"-c\", \"busybox rm /d/a.txt; busybox echo new > /d/b.txt; busybox mkdir /made; busybox echo 1 > /made/file\"]\n";
    built(&place, "store", "base", text);
    place.ok(&["bundle", "base", "bundle"]);
    let state = place.path("state");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&minirun);
        command.env("MINIRUN_NET", "none").arg("--root").arg(&state).args(arguments);
        let status = command.status();
        assert!(status.unwrap().success(), "{arguments:?}");
    };
    let id = format!("commit-{}", std::process::id());
    let bundle = place.path("bundle");
    run(&["run", "--keep", "--name", &id, bundle.to_str().unwrap()]);
    let changes = place.ok(&["diff", "bundle"]);
    for line in ["D /d/a.txt", "C /d/b.txt", "A /made", "A /made/file"] {
        assert!(changes.lines().any(|change| change == line), "{line}: {changes}");
    }
    place.ok(&["commit", "bundle", "next"]);
    run(&["delete", "--force", &id]);
    place.ok(&["export", "next", "next.tar"]);
    let error = place.fails(&["commit", "bundle", "late"]);
    assert!(error.contains("before `minirun delete`"), "{error}");

    let other = Place::new();
    let archive = place.path("next.tar");
    other.ok(&["import", archive.to_str().unwrap(), "next"]);
    other.ok(&["bundle", "next", "bundle"]);
    let lower = other.lower("bundle");
    assert_eq!(lower.len(), 3);
    assert_eq!(fs::read_to_string(lower[0].join("d/b.txt")).unwrap(), "new\n");
    assert_eq!(fs::symlink_metadata(lower[0].join("d/a.txt")).unwrap().rdev(), 0);
    if has("skopeo") {
        let at = archive.display();
        crate::common::sh(&format!(
            "skopeo inspect docker-archive:{at} && skopeo inspect oci-archive:{at}"
        ));
    }
}

/// Answers every request with the same bytes; its port.
fn server(body: &'static [u8]) -> u16 {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let head = BufReader::new(stream.try_clone().unwrap()).lines();
            head.map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap();
            stream.write_all(body).unwrap();
        }
    });
    port
}

#[test]
fn add_unpacks_archives_and_fetches_urls() {
    use crate::common::{Tar, gzip};
    let place = context();
    let tree = Tar::new().dir("in", 0o700).file("in/x", b"packed").symlink("in/l", "x").done();
    place.write("plain.tar", &tree);
    place.write("odd-name", &gzip(&tree));
    place.write("z.tar.zst", &zstd::encode_all(&tree[..], 3).unwrap());
    let digest = rootfs_tools::Digest::of(b"from afar");
    let url = format!("http://127.0.0.1:{}/some/thing.txt?x=1", server(b"from afar"));
    let text = format!(
        "FROM scratch\nADD plain.tar /one\nADD --chown=7 odd-name z.tar.zst a.txt /two/\n\
         ADD --checksum={digest} {url} /three/\nADD --chmod=644 {url} /four\nCOPY plain.tar /\n"
    );
    for store in ["store", "again"] {
        built(&place, store, "added", &text);
    }
    let inspected = |store: &str| {
        place.ok(&["import", store, store, "--ref", "added:latest"]);
        let text = place.ok(&["inspect", store]);
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    let (first, second) = (inspected("store"), inspected("again"));
    assert_eq!(first["digest"], second["digest"], "the same content gives the same image");
    let layer = |at: usize| Path::new(first["layers"][at]["tree"].as_str().unwrap()).to_owned();
    assert_eq!(fs::read(layer(0).join("one/in/x")).unwrap(), b"packed");
    assert_eq!(fs::read_link(layer(0).join("one/in/l")).unwrap(), Path::new("x"));
    assert_eq!(fs::metadata(layer(0).join("one/in")).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs::read(layer(1).join("two/in/x")).unwrap(), b"packed");
    assert_eq!(
        fs::read(layer(1).join("two/a.txt")).unwrap(),
        fs::read(place.path("a.txt")).unwrap()
    );
    if nix::unistd::geteuid().is_root() {
        assert_eq!(fs::metadata(layer(1).join("two/in/x")).unwrap().uid(), 7);
    }
    assert_eq!(fs::read(layer(2).join("three/thing.txt")).unwrap(), b"from afar");
    assert_eq!(fs::metadata(layer(2).join("three/thing.txt")).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(layer(3).join("four")).unwrap().mode() & 0o777, 0o644);
    assert_eq!(fs::read(layer(4).join("plain.tar")).unwrap(), tree);

    let wrong = rootfs_tools::Digest::of(b"something else");
    let text = format!("FROM scratch\nADD --checksum={wrong} {url} /x\n");
    let said = String::from_utf8(build(&place, "store", "x", &text).stderr).unwrap();
    assert!(said.contains("the content is sha256:"), "{said}");
    let hostile = Tar::new().file("../out", b"x").done();
    place.write("hostile.tar", &hostile);
    let said = build(&place, "store", "x", "FROM scratch\nADD hostile.tar /\n").stderr;
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("`..`") && !place.path("out").exists(), "{said}");
}
