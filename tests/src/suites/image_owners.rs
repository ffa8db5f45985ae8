//! Images in user namespaces: the layers are unpacked once, as root, and every container sees them
//! as its own root's.

use std::os::unix::fs::{MetadataExt, chown};

use super::images::{bundle_of, left, run_image, shell_image, tools};
use crate::needs::Need;
use crate::world::World;
use crate::{Test, programs, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("an_image_belongs_to_the_root_of_its_container", an_image_belongs_to_its_root)
            .needs(Need::IdmappedFiles),
        test("what_hides_a_layer_hides_it_there_too", what_hides_a_layer_hides_it_there_too)
            .needs(Need::IdmappedFiles),
        test("a_commit_has_the_owners_of_the_inside", a_commit_has_the_owners_of_the_inside)
            .needs(Need::IdmappedFiles),
        test("an_image_in_a_user_namespace_that_exists", an_image_in_an_existing_namespace)
            .needs(Need::IdmappedFiles),
        test("layers_that_cannot_be_mapped_are_refused", layers_that_cannot_be_mapped)
            .needs(Need::Namespace("user")),
        test("numbers_of_users_are_checked", numbers_of_users_are_checked),
    ]
}

const OUTSIDE: u32 = 300_000;

/// The image of busybox with a file of user 5, group 6.
fn image(world: &World) {
    let root = shell_image(world);
    let file = format!("{root}/theirs");
    std::fs::write(&file, "x").expect("write a file");
    chown(&file, Some(5), Some(6)).expect("give it away");
    let entry = ["--entrypoint", "/bin/busybox", "--cmd", "ls"];
    tools(world, &[&["import", &root, "team/shell:v1"], &entry[..]].concat()).exits(0);
}

fn in_namespace(world: &World, first: &str, script: &str) -> String {
    let arguments = ["--name", "owned", "--userns", first, "team/shell:v1", "sh", "-c", script];
    run_image(world, &arguments).run().ok().output
}

fn an_image_belongs_to_its_root(world: &World) {
    image(world);
    let script = "stat -c '%u %g' / /bin/busybox /theirs; cat /proc/self/uid_map";
    for (first, map) in [("300000", "0 300000 65536"), ("700000:1000", "0 700000 1000")] {
        let seen = in_namespace(world, first, script);
        let (owners, seen) = seen.split_at(seen.find("5 6\n").expect("the file of user 5") + 4);
        assert_eq!(owners, "0 0\n0 0\n5 6\n");
        assert_eq!(seen.split_whitespace().collect::<Vec<_>>().join(" "), map);
    }
    // It may write, and change what the image has.
    let script = "echo more >> /theirs; echo new > /new; chown 7:8 /new; stat -c '%u %g' /new; \
                  chmod 700 /bin; mv /bin /gone; /gone/busybox cat /theirs";
    assert_eq!(in_namespace(world, "300000", script), "7 8\nxmore\n");
    assert_eq!(in_namespace(world, "300000", "cat /theirs"), "x");
    assert_eq!(left(world), (0, 0));
    // Nothing was copied, and nothing given away.
    let layers = std::fs::read_dir(world.path("store/layers/sha256")).expect("layers");
    let mut owners = Vec::new();
    for layer in layers {
        let file = layer.expect("a layer").path().join("fs/theirs");
        owners.extend(std::fs::metadata(file).ok().map(|file| (file.uid(), file.gid())));
    }
    assert_eq!(owners, [(5, 6)]);
    assert_eq!(tools(world, &["verify"]).ok().output, "team/shell:v1: as it was\n");
}

/// A directory that was removed and made again is opaque; the mark is one that only the host's root
/// can make and see.
fn what_hides_a_layer_hides_it_there_too(world: &World) {
    let root = shell_image(world);
    std::fs::create_dir(format!("{root}/etc")).expect("make a directory");
    std::fs::write(format!("{root}/etc/old"), "x").expect("write a file");
    let entry = ["--entrypoint", "/bin/busybox", "--cmd", r#"["ls","/etc"]"#];
    tools(world, &[&["import", &root, "team/shell:v1"], &entry[..]].concat()).exits(0);
    let bundle = bundle_of(world, "team/shell:v1", "anew");
    let script = "cd /bin && ./busybox rm -r /etc && ./busybox mkdir /etc && echo >/etc/new";
    world.run(&["run", "--keep", &bundle, "/bin/busybox", "sh", "-c", script]).exits(0);
    tools(world, &["commit", &bundle, "team/anew"]).exits(0);
    world.run(&["delete", "anew"]).exits(0);
    for user in [&["--userns", "300000"][..], &[]] {
        run_image(world, user).args(&["team/anew"]).run().ok().prints("new\n");
    }
}

fn a_commit_has_the_owners_of_the_inside(world: &World) {
    image(world);
    let bundle = bundle_of(world, "team/shell:v1", "mapped");
    let script = "/bin/busybox mkdir /dir && echo >/dir/root && echo >/dir/seven && \
                  /bin/busybox chown 7:8 /dir/seven && /bin/busybox rm /theirs";
    let users = ["--userns", "300000"];
    let command = ["/bin/busybox", "sh", "-c", script];
    let all = [&["run", "--keep"][..], &users, &[&bundle], &command].concat();
    world.run(&all).exits(0);
    let upper = std::path::Path::new(&bundle).join(".minirun-mapped/upper");
    let owner = |name: &str| std::fs::metadata(upper.join(name)).expect("it is there").uid();
    assert_eq!((owner(""), owner("dir/root"), owner("dir/seven")), (OUTSIDE, OUTSIDE, 300_007));
    let changed = tools(world, &["diff", &bundle]).ok().output;
    assert!(changed.contains("A /dir/seven\n") && changed.contains("D /theirs\n"), "{changed}");
    tools(world, &["commit", &bundle, "team/next"]).exits(0);
    world.run(&["delete", "mapped"]).exits(0);
    let look = "/bin/busybox stat -c '%u %g' /dir /dir/root /dir/seven; /bin/busybox ls /theirs";
    for user in [&[][..], &users] {
        let ran = run_image(world, user).args(&["team/next", "sh", "-c", look]).run().exits(1);
        assert_eq!(ran.output, "0 0\n0 0\n7 8\n", "{}", ran.errors);
    }
}

/// As the second container of a pod; its map is read from the process that is there.
fn an_image_in_an_existing_namespace(world: &World) {
    image(world);
    let first = bundle_of(world, "team/shell:v1", "first");
    let sleep = ["/bin/busybox", "sleep", "1000"];
    world.run(&[&["run", "-d", "--userns", "300000", &first], &sleep[..]].concat()).ok();
    let pid = world.state("first")["pid"].to_string();
    let second = bundle_of(world, "team/shell:v1", "second");
    let file = std::path::Path::new(&second).join("config.json");
    let join = |path: &str| {
        let text = std::fs::read(&file).expect("a configuration");
        let mut config: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        let list = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
        list.retain(|namespace| namespace["type"] != "user");
        list.push(serde_json::json!({"type": "user", "path": path}));
        std::fs::write(&file, config.to_string()).expect("write it");
    };
    let command = ["/bin/busybox", "stat", "-c", "%u %g", "/bin/busybox", "/theirs"];
    join(&format!("/proc/{pid}/ns/user"));
    world.run(&[&["run", &second], &command[..]].concat()).ok().prints("0 0\n5 6\n");
    join("/proc/self/ns/../ns/user/");
    let ran = world.run(&[&["run", &second], &command[..]].concat());
    assert_ne!(ran.status, 0, "{ran:?}");
    world.run(&["delete", "-f", "first"]).ok();
}

/// An overlay is no file system that can be idmapped: not even a newer kernel's.
fn layers_that_cannot_be_mapped(world: &World) {
    image(world);
    let at = |name: &str| world.path(name).to_str().expect("UTF-8").to_owned();
    for name in ["u", "w"] {
        std::fs::create_dir(at(name)).expect("make a directory");
    }
    let script = "mount -t overlay o -o \"lowerdir=$1/store,upperdir=$1/u,workdir=$1/w\" \
                  \"$1/store\" && shift && exec \"$@\"";
    let (minirun, root) = (programs::minirun(), world.root());
    let ran = world
        .program("/usr/bin/unshare")
        .args(&["--mount", "sh", "-c", script, "sh", world.dir.to_str().expect("UTF-8")])
        .args(&[minirun.to_str().expect("UTF-8"), "--root", root.to_str().expect("UTF-8")])
        .args(&["run", "--store", &at("store"), "--name", "owned-by-nobody", "--userns", "300000"])
        .args(&["team/shell:v1"])
        .env("ROOTFS_TOOLS", programs::rootfs_tools().to_str().expect("UTF-8"))
        .run();
    ran.fails("cannot be idmapped").says("ext4, xfs or btrfs");
    assert_eq!(left(world).1, 0);
}

fn numbers_of_users_are_checked(world: &World) {
    let bundle = world.bundle("c").args(&["true"]);
    for (users, words) in [
        ("0", "is not FIRST"),
        ("x:5", "is not FIRST"),
        ("1000:0", "is not FIRST"),
        ("4294967295:2", "is empty or too large"),
    ] {
        world.run(&["run", "--userns", users, bundle.path()]).fails(words);
    }
    let bundle = bundle.set("/linux/namespaces/-", serde_json::json!({"type": "user"}));
    let ran = world.run(&["run", "--userns", "1000", bundle.path()]);
    ran.fails("has a user namespace already");
}
