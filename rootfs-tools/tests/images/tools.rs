//! Images that other tools made, and other tools that read our store.

use crate::common::{Place, has, sh};
use std::fs;
use std::path::Path;

/// The tree of an image as another tool sees it, and as ours does: one line for each file, with
/// its kind, mode, owner, size, time, links and content.
fn listing(tree: &Path) -> String {
    sh(&format!(
        "cd {} && find . -mindepth 1 -printf '%P %y %m %U:%G %l ' \\( -type f -printf '%s ' -o -true \\) \
         \\( -type d -o -printf '%n ' \\) -printf '%T@\\n' | LC_ALL=C sort; \
         find . -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum",
        tree.display()
    ))
}

/// A two-layer image with what distinguishes unpackers: whiteouts, hard links, a capability, odd
/// modes and owners. Made by GNU tar from real files, put together by umoci.
fn made_by_umoci(place: &Place) {
    sh(&format!(
        "cd {}
         umoci init --layout oci
         umoci new --image oci:v1
         mkdir -p one/bin one/etc one/var/lib/app one/srv
         cp /bin/cp one/bin/tool; ln one/bin/tool one/bin/alias; chmod 4711 one/bin/tool
         echo 'app:x:1234:50::/:' > one/etc/passwd; echo 'staff:x:50:' > one/etc/group
         ln -s ../etc/passwd one/bin/link; echo x > one/var/lib/app/gone; echo y > one/srv/y
         chown 1234:50 one/var/lib/app; chmod 2770 one/var/lib/app; mkfifo one/srv/pipe
         mknod one/srv/null c 1 3
         setfattr -n user.note -v hello one/etc/group
         touch -d '2020-02-02 02:02:02.5' one/etc/passwd
         umoci raw add-layer --image oci:v1 $(cd one && tar --xattrs --numeric-owner -cf ../one.tar . && echo one.tar)
         mkdir -p two/var/lib/app two/srv two/new; touch two/var/lib/app/.wh.gone two/srv/.wh..wh..opq
         echo z > two/srv/z; echo changed > two/new/file
         umoci raw add-layer --image oci:v1 $(cd two && tar --numeric-owner -cf ../two.tar . && echo two.tar)
         umoci config --image oci:v1 --config.user app --config.cmd /bin/tool --config.workingdir /srv \\
            --config.env A=b --config.exposedports 80/tcp --config.stopsignal SIGINT --config.label x=y",
        place.dir.path().display()
    ));
}

/// Stacks the layers of a bundle in a mount namespace of its own, and lists the result.
fn stacked(place: &Place) -> String {
    let lower: Vec<_> =
        place.lower("bundle").iter().map(|layer| layer.display().to_string()).collect();
    let merged = place.path("merged");
    fs::create_dir_all(&merged).unwrap();
    let empty = place.path("empty");
    fs::create_dir_all(&empty).unwrap();
    let script = format!(
        "mount -t overlay overlay -o lowerdir={}:{} {}\n",
        lower.join(":"),
        empty.display(),
        merged.display()
    );
    let listing = "find . -mindepth 1 -printf '%P %y %m %U:%G %l ' \\( -type f -printf '%s ' -o -true \\) \\( -type d -o -printf '%n ' \\) -printf '%T@\\n' | LC_ALL=C sort; find . -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum";
    fs::write(place.path("script"), format!("{script}cd {}\n{listing}\n", merged.display()))
        .unwrap();
    sh(&format!("unshare -m sh -eu {}", place.path("script").display()))
}

#[test]
fn umoci_and_overlayfs_give_the_same_tree() {
    if !(has("umoci") && has("setfattr") && nix::unistd::geteuid().is_root()) {
        return;
    }
    let place = Place::new();
    made_by_umoci(&place);
    place.ok(&["import", "oci", "app"]);
    place.ok(&["bundle", "app", "bundle"]);
    sh(&format!("cd {} && umoci unpack --image oci:v1 theirs", place.dir.path().display()));
    assert_eq!(stacked(&place), listing(&place.path("theirs/rootfs")));

    let config = fs::read(place.path("bundle/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["process"]["user"]["uid"], 1234);
    assert_eq!(config["process"]["user"]["gid"], 50);
    assert_eq!(config["process"]["cwd"], "/srv");
    assert_eq!(config["process"]["args"], serde_json::json!(["/bin/tool"]));
    assert_eq!(config["annotations"]["org.opencontainers.image.stopSignal"], "SIGINT");
    assert_eq!(config["annotations"]["org.opencontainers.image.exposedPorts"], "80/tcp");
    assert_eq!(config["annotations"]["x"], "y");
    assert!(config["process"]["env"].as_array().unwrap().contains(&serde_json::json!("A=b")));
}

#[test]
fn one_image_in_every_form_is_one_image() {
    if !(has("umoci") && has("skopeo") && has("setfattr") && nix::unistd::geteuid().is_root()) {
        return;
    }
    let place = Place::new();
    made_by_umoci(&place);
    let at = place.dir.path().display();
    sh(&format!(
        "cd {at}
         skopeo copy -q --insecure-policy oci:oci:v1 oci-archive:a.tar:v1
         skopeo copy -q --insecure-policy oci:oci:v1 docker-archive:d.tar:team/app:v3
         gzip -k a.tar; gzip -k d.tar
         skopeo copy -q --insecure-policy --dest-compress-format zstd oci:oci:v1 oci:z:v1"
    ));
    place.ok(&["import", "oci", "layout"]);
    place.ok(&["bundle", "layout", "bundle"]);
    let first = place.lower("bundle");
    for (source, name) in [("a.tar", "a"), ("a.tar.gz", "agz"), ("d.tar.gz", "dgz"), ("z", "z")] {
        let said = place.ok(&["import", source, name]);
        assert!(said.contains("2 layers"), "{said}");
        place.ok(&["bundle", name, "bundle", "--force"]);
        assert_eq!(place.lower("bundle"), first, "{source}: unpacked once");
    }
    assert!(place.ok(&["import", "d.tar"]).starts_with("docker.io/team/app:v3:"));
    let mut archive = fs::File::open(place.path("a.tar")).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_rootfs-tools"))
        .args(["--store", place.path("store").to_str().unwrap(), "import", "-", "piped"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .and_then(|mut child| {
            std::io::copy(&mut archive, child.stdin.as_mut().unwrap())?;
            child.wait()
        });
    assert!(output.unwrap().success());
    let names = place.ok(&["ls"]);
    for name in ["a:latest", "piped:latest", "docker.io/team/app:v3", "z:latest"] {
        assert!(names.contains(name), "{names}");
    }
    // The store is a layout: other tools read it as it is.
    let store = place.path("store");
    let store = store.display();
    let seen = sh(&format!(
        "skopeo inspect oci:{store}:docker.io/team/app:v3 --format '{{{{len .Layers}}}}'"
    ));
    assert_eq!(seen.trim(), "2");
    let seen = sh(&format!("umoci ls --layout {store}"));
    assert!(seen.contains("layout:latest"), "{seen}");
    sh(&format!("cd {at} && umoci unpack --image {store}:layout:latest again"));
}

/// What every tool saves of the same tree is the same tree again.
#[test]
fn images_of_buildah_and_podman() {
    if !(has("buildah") && has("podman") && nix::unistd::geteuid().is_root()) {
        return;
    }
    let place = Place::new();
    let at = place.dir.path().display().to_string();
    // Storages of their own, and no daemon, network or privilege that a test machine may not have.
    let storage = format!("--root {at}/root --runroot {at}/run --storage-driver vfs");
    sh(&format!(
        "cd {at}
         mkdir -p tree/bin tree/etc; cp /bin/cp tree/bin/tool; ln tree/bin/tool tree/bin/alias
         echo 'app:x:1234:50::/:' > tree/etc/passwd; ln -s passwd tree/etc/link; chmod 4711 tree/bin/tool
         c=$(buildah {storage} from scratch)
         buildah {storage} copy -q $c tree / >/dev/null
         buildah {storage} config --user app --cmd /bin/tool --env A=b --workingdir /etc --label x=y $c
         buildah {storage} commit -q $c team/app:v1 >/dev/null
         buildah {storage} push -q team/app:v1 oci-archive:b-oci.tar:v1
         buildah {storage} push -q team/app:v1 docker-archive:b-docker.tar:team/app:v1
         podman {storage} save -q --format oci-archive -o p-oci.tar team/app:v1
         podman {storage} save -q --format docker-archive -o p-docker.tar team/app:v1
         podman {storage} save -q --format oci-dir -o p-dir team/app:v1"
    ));
    for source in ["b-oci.tar", "b-docker.tar", "p-oci.tar", "p-docker.tar", "p-dir"] {
        place.ok(&["import", source, source]);
        place.ok(&["bundle", source, "bundle", "--force"]);
        let tree = place.lower("bundle")[0].clone();
        assert_eq!(
            fs::read(tree.join("bin/tool")).unwrap(),
            fs::read("/bin/cp").unwrap(),
            "{source}"
        );
        assert_eq!(fs::read_link(tree.join("etc/link")).unwrap(), Path::new("passwd"), "{source}");
        let config = fs::read(place.path("bundle/config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["process"]["user"]["uid"], 1234, "{source}");
        assert_eq!(config["process"]["cwd"], "/etc", "{source}");
        assert_eq!(config["annotations"]["x"], "y", "{source}");
        assert!(place.ok(&["verify", source]).contains("as it was"), "{source}");
    }
    // And back: what we export, podman loads.
    place.ok(&["export", "p-oci.tar", "ours.tar"]);
    let loaded = sh(&format!("podman {storage} load -q -i {at}/ours.tar"));
    assert!(loaded.contains("p-oci.tar"), "{loaded}");
}
