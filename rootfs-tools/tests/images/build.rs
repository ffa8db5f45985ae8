//! Images from Containerfiles, and from what containers changed.

use crate::common::{Place, has};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};

/// The runtime beside the program that is tested. `cargo build -p minirun` makes it.
fn runtime() -> Option<std::path::PathBuf> {
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
        ("FROM scratch\nADD https://x.example/y /\n", "fetch"),
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
        let status = Command::new(&minirun).arg("--root").arg(&state).args(arguments).status();
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
