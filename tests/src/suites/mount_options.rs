//! Every option of a mount as the kernel shows it afterwards, proc_pid_mountinfo(5), and the ways to
//! say a mount that are not a file system or a directory.

use std::path::Path;

use serde_json::{Value, json};

use super::namespaces::mapped;
use crate::bundle::Bundle;
use crate::world::World;
use crate::{Test, programs, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("attributes_of_file_systems", attributes_of_file_systems),
        test("attributes_of_binds", attributes_of_binds),
        test("attributes_of_whole_trees", attributes_of_whole_trees),
        test("flags_of_the_superblock", flags_of_the_superblock),
        test("links_are_not_followed", links_are_not_followed),
        test("types_and_destinations", types_and_destinations),
        test("remount", remount),
        test("copied_links", copied_links),
        test("label", label),
        test("propagation_of_the_root", propagation_of_the_root),
        test("cgroups_in_a_user_namespace", cgroups_in_a_user_namespace),
    ]
}

/// What the mount table says about one place.
struct Shown {
    /// Attributes of the mount.
    mount: Vec<String>,
    /// Whose changes it sees, and who sees its own: `shared`, `master`, `unbindable`.
    propagation: Vec<String>,
    /// Flags and options of the file system.
    superblock: Vec<String>,
}

/// What a container's own mount table says about `place`.
fn shown(seen: &Value, place: &str) -> Shown {
    let table = seen["mounts"].as_array().expect("a list").iter().filter_map(Value::as_str);
    let line = table.rev().find(|line| line.split(' ').nth(4) == Some(place));
    let line = line.unwrap_or_else(|| panic!("nothing at {place}: {seen}"));
    let (mount, superblock) = line.split_once(" - ").expect("two halves");
    let words = |text: Option<&str>| -> Vec<String> {
        text.unwrap_or_default().split(',').map(str::to_owned).collect()
    };
    let tags = mount.split(' ').skip(6).filter(|tag| !tag.is_empty());
    Shown {
        mount: words(mount.split(' ').nth(5)),
        propagation: tags.map(|tag| tag.split(':').next().unwrap_or(tag).to_owned()).collect(),
        superblock: words(superblock.split(' ').nth(2)),
    }
}

fn look(world: &World, bundle: Bundle) -> Value {
    let bundle = bundle.args(&["/bin/probe", "look"]);
    world.run(&["run", bundle.path()]).ok().json()
}

/// Options, and what of these words must be shown for them.
type Case = (&'static [&'static str], &'static [&'static str]);

/// The words that are compared; of an access-time mode nothing is shown that is strict.
const WORDS: [&str; 9] =
    ["ro", "rw", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime", "nosymfollow"];

const ATTRIBUTES: &[Case] = &[
    (&[], &["rw", "relatime"]),
    (&["ro"], &["ro", "relatime"]),
    (&["ro", "rw"], &["rw", "relatime"]),
    (&["nosuid", "nodev", "noexec"], &["rw", "nosuid", "nodev", "noexec", "relatime"]),
    (&["nosuid", "nodev", "noexec", "suid", "dev", "exec"], &["rw", "relatime"]),
    (&["noatime"], &["rw", "noatime"]),
    (&["noatime", "atime"], &["rw", "relatime"]),
    (&["noatime", "relatime"], &["rw", "relatime"]),
    (&["norelatime"], &["rw", "relatime"]),
    (&["strictatime"], &["rw"]),
    (&["strictatime", "nostrictatime"], &["rw", "relatime"]),
    (&["nodiratime"], &["rw", "nodiratime", "relatime"]),
    (&["nodiratime", "diratime"], &["rw", "relatime"]),
    (&["nosymfollow"], &["rw", "relatime", "nosymfollow"]),
    (&["nosymfollow", "symfollow"], &["rw", "relatime"]),
    (&["defaults", "silent", "loud", "iversion", "noiversion"], &["rw", "relatime"]),
];

fn of_these(shown: &[String]) -> Vec<&str> {
    WORDS.into_iter().filter(|word| shown.iter().any(|one| one == word)).collect()
}

/// Mounts everything at once, at `/m0`, `/m1`, …, and compares.
fn compare(world: &World, name: &str, kind: &str, source: &str, more: &[&str], cases: &[Case]) {
    let mut bundle = world.bundle(name);
    for (index, (options, _)) in cases.iter().enumerate() {
        bundle = bundle.mount(&format!("/m{index}"), kind, source, &[more, options].concat());
    }
    let seen = look(world, bundle);
    for (index, (options, expected)) in cases.iter().enumerate() {
        let found = shown(&seen, &format!("/m{index}")).mount;
        assert_eq!(of_these(&found), *expected, "{options:?}");
    }
}

fn attributes_of_file_systems(world: &World) {
    compare(world, "c", "tmpfs", "t", &["size=64k"], ATTRIBUTES);
}

/// On a file system of this test, because a bind mount has what its source's mount has.
fn attributes_of_binds(world: &World) {
    let source = world.path("source");
    std::fs::create_dir(&source).expect("make a directory");
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("t", &source, "tmpfs", flags, None).expect("mount");
    compare(world, "c", "bind", source.to_str().expect("UTF-8"), &["bind"], ATTRIBUTES);
    rustix::mount::unmount(&source, rustix::mount::UnmountFlags::DETACH).expect("not busy");
}

/// Recursive options reach the mounts below the source; the others do not.
fn attributes_of_whole_trees(world: &World) {
    const SET: &[Case] = &[
        (&["rro"], &["ro", "relatime"]),
        (&["rnosuid", "rnodev"], &["rw", "nosuid", "nodev", "relatime"]),
        (&["rnoexec"], &["rw", "noexec", "relatime"]),
        (&["rnoatime"], &["rw", "noatime"]),
        (&["rnoatime", "ratime"], &["rw", "relatime"]),
        (&["rstrictatime"], &["rw"]),
        (&["rstrictatime", "rnostrictatime"], &["rw", "relatime"]),
        (&["rnoatime", "rrelatime"], &["rw", "relatime"]),
        (&["rnorelatime"], &["rw", "relatime"]),
        (&["rnodiratime"], &["rw", "nodiratime", "relatime"]),
        (&["rnodiratime", "rdiratime"], &["rw", "relatime"]),
        (&["rnosymfollow"], &["rw", "relatime", "nosymfollow"]),
        (&["ro", "nosuid", "nodev", "noexec", "noatime", "nosymfollow"], &["rw", "relatime"]),
    ];
    const CLEARED: &[Case] = &[
        (&["rrw", "rsuid", "rdev", "rexec", "rsymfollow", "ratime"], &["rw", "relatime"]),
        (&[], &["ro", "nosuid", "nodev", "noexec", "noatime", "nosymfollow"]),
    ];
    let all = "ro,nosuid,nodev,noexec,noatime,nosymfollow";
    for (name, below, cases) in [("set", "rw", SET), ("cleared", all, CLEARED)] {
        let source = world.path(&format!("source-{name}"));
        std::fs::create_dir_all(source.join("below")).expect("make directories");
        let mut bundle = world.bundle(name).args(&["/bin/probe", "look"]);
        for (index, (options, _)) in cases.iter().enumerate() {
            let source = source.to_str().expect("UTF-8");
            let options = [&["rbind"], *options].concat();
            bundle = bundle.mount(&format!("/m{index}"), "bind", source, &options);
        }
        // In a mount namespace of its own, so that nothing is left of it.
        let script = format!("mount -t tmpfs -o {below} t \"$0\"/below && exec \"$@\"");
        let seen = in_own_mounts(world, &script, &source, &bundle);
        for (index, (options, expected)) in cases.iter().enumerate() {
            let found = shown(&seen, &format!("/m{index}/below")).mount;
            assert_eq!(of_these(&found), *expected, "{options:?} below");
        }
    }
}

/// Runs a bundle from a mount namespace in which a script has prepared something; `$0` is `place`.
fn in_own_mounts(world: &World, script: &str, place: &Path, bundle: &Bundle) -> Value {
    let (minirun, root) = (programs::minirun(), world.root());
    let ran = world
        .program("/usr/bin/unshare")
        .args(&["--mount", "sh", "-c", script, place.to_str().expect("UTF-8")])
        .args(&[minirun.to_str().expect("UTF-8"), "--root", root.to_str().expect("UTF-8")])
        .args(&["run", bundle.path()])
        .run();
    ran.ok().json()
}

fn flags_of_the_superblock(world: &World) {
    let words = ["sync", "dirsync", "lazytime", "size=64k"];
    let cases: &[Case] = &[
        (&["sync"], &["sync", "size=64k"]),
        (&["sync", "async"], &["size=64k"]),
        (&["dirsync"], &["dirsync", "size=64k"]),
        (&["lazytime"], &["lazytime", "size=64k"]),
        (&["lazytime", "nolazytime"], &["size=64k"]),
        // Mandatory locks are gone since Linux 5.15; the option is taken all the same.
        (&["nomand"], &["size=64k"]),
    ];
    let mut bundle = world.bundle("c");
    for (index, (options, _)) in cases.iter().enumerate() {
        let options = [&["size=64k"], *options].concat();
        bundle = bundle.mount(&format!("/m{index}"), "tmpfs", "t", &options);
    }
    let seen = look(world, bundle);
    for (index, (options, expected)) in cases.iter().enumerate() {
        let found = shown(&seen, &format!("/m{index}")).superblock;
        let found: Vec<_> =
            words.into_iter().filter(|word| found.iter().any(|one| one == word)).collect();
        assert_eq!(found, *expected, "{options:?}");
    }
}

fn links_are_not_followed(world: &World) {
    let source = world.path("source");
    std::fs::create_dir(&source).expect("make a directory");
    std::fs::write(source.join("file"), "seen\n").expect("write a file");
    std::os::unix::fs::symlink("file", source.join("link")).expect("make a link");
    let source = source.to_str().expect("UTF-8");
    let bundle = world
        .bundle("c")
        .mount("/m", "bind", source, &["bind", "nosymfollow"])
        .shell("cat /m/file; readlink /m/link; cat /m/link || echo refused");
    let ran = world.run(&["run", bundle.path()]).exits(0).prints("seen\nfile\nrefused\n");
    ran.says("symbolic links");
}

/// A relative destination is one below `/`; a bind mount may say its type or not.
fn types_and_destinations(world: &World) {
    let source = world.path("source");
    std::fs::create_dir(&source).expect("make a directory");
    std::fs::write(source.join("file"), "here\n").expect("write a file");
    let source = source.to_str().expect("UTF-8");
    let untyped = json!({"destination": "/untyped", "source": source, "options": ["rbind"]});
    let bundle = world
        .bundle("c")
        .mount("relative/place", "tmpfs", "t", &["size=64k"])
        .mount("/none", "none", source, &["rbind"])
        .mount("/typed", "bind", source, &[])
        .set("/mounts/-", untyped);
    let bundle = bundle.shell("cat /none/file /typed/file /untyped/file; cat /proc/self/mountinfo");
    let ran = world.run(&["run", bundle.path()]).ok();
    assert!(ran.output.starts_with("here\nhere\nhere\n"), "{}", ran.output);
    assert!(ran.output.contains(" /relative/place "), "{}", ran.output);
}

/// Another entry of the list changes what an earlier one has mounted.
fn remount(world: &World) {
    let bundle = world
        .bundle("c")
        .mount("/m", "tmpfs", "t", &["size=64k", "nodev"])
        .mount("/m", "", "", &["remount", "bind", "ro", "nosuid"])
        .mount("/m/deep", "tmpfs", "t", &[])
        .mount("/dev", "none", "none", &["remount", "rnoatime"]);
    // What is mounted on it comes after, so it needs its place.
    let failed = world.run(&["run", bundle.path()]).fails("EROFS");
    drop(failed.says("is read-only"));
    let mut bundle = bundle;
    bundle.config["mounts"]
        .as_array_mut()
        .expect("mounts")
        .retain(|m| m["destination"] != "/m/deep");
    bundle.save();
    let seen = look(world, bundle);
    let found = shown(&seen, "/m");
    assert_eq!(of_these(&found.mount), ["ro", "nosuid", "nodev", "relatime"]);
    assert!(found.superblock.iter().any(|word| word == "rw"), "the file system is no other");
    for place in ["/dev", "/dev/pts", "/dev/shm"] {
        let found = shown(&seen, place).mount;
        assert!(found.iter().any(|word| word == "noatime"), "{place}: {found:?}");
    }
    let nothing = world.bundle("nothing").mount("/tmp", "", "", &["remount", "ro"]);
    world.run(&["run", nothing.args(&["true"]).path()]).fails("nothing is mounted exactly there");
    for option in ["size=1m", "sync"] {
        let own = world.bundle(option).mount("/dev", "tmpfs", "t", &["remount", option]);
        world.run(&["run", own.args(&["true"]).path()]).fails("to the mount itself");
    }
}

/// What Podman's `no-dereference` asks for.
fn copied_links(world: &World) {
    let links = [("file", "/etc/hosts"), ("nowhere", "/no/such"), ("up", "../../../../..")];
    let dir = world.path("links");
    std::fs::create_dir(&dir).expect("make a directory");
    std::fs::write(dir.join("plain"), "plain\n").expect("write a file");
    let options = ["rbind", "ro", "copy-symlink"];
    let mut bundle = world.bundle("c").link("/there", "/etc/hosts");
    for (name, target) in links {
        let link = dir.join(name);
        std::os::unix::fs::symlink(target, &link).expect("make a link");
        let place = format!("/in/{name}");
        bundle = bundle.mount(&place, "bind", link.to_str().expect("UTF-8"), &options);
    }
    let source = |name: &str| dir.join(name).to_str().expect("UTF-8").to_owned();
    let bundle = bundle
        .mount("/there", "bind", &source("file"), &options)
        .mount("/in/plain", "bind", &source("plain"), &options)
        .shell("for l in file nowhere up; do readlink /in/$l; done; cat /in/plain");
    let ran = world.run(&["run", bundle.path()]).ok();
    ran.prints("/etc/hosts\n/no/such\n../../../../..\nplain\n");
    let other = world.bundle("other").link("/there", "/else").args(&["true"]);
    let other = other.mount("/there", "bind", &source("file"), &options);
    world.run(&["run", other.path()]).fails("something else of that name");
    let tmpfs = world.bundle("tmpfs").mount("/x", "tmpfs", "t", &["copy-symlink"]);
    world.run(&["run", tmpfs.args(&["true"]).path()]).fails("is for a bind mount");
}

/// `linux.mountLabel` is for new file systems, and never passed over in silence.
fn label(world: &World) {
    let label = "system_u:object_r:container_file_t:s0:c1,c2";
    let bundle = world
        .bundle("c")
        .mount("/m", "tmpfs", "t", &["size=64k"])
        .set("/linux/mountLabel", json!(label));
    if Path::new("/sys/fs/selinux/enforce").exists() {
        let seen = look(world, bundle);
        let found = shown(&seen, "/m").superblock.join(",");
        assert!(found.contains(&format!("context=\"{label}\"")), "{found}");
    } else {
        let bundle = bundle.args(&["true"]);
        world.run(&["run", bundle.path()]).fails("linux.mountLabel: is SELinux on");
    }
}

fn propagation_of_the_root(world: &World) {
    let cases = [
        // A group of its own, which still sees what the host does.
        ("shared", &["shared", "master"][..]),
        ("rslave", &["master"]),
        ("private", &[]),
        ("unbindable", &["unbindable"]),
    ];
    for (propagation, expected) in cases {
        let bundle = world
            .bundle(propagation)
            .args(&["/bin/probe", "look"])
            .set("/linux/rootfsPropagation", json!(propagation));
        let root = bundle.rootfs("");
        let script = "mount --bind \"$0\" \"$0\" && mount --make-shared \"$0\" && exec \"$@\"";
        let seen = in_own_mounts(world, script, &root, &bundle);
        assert_eq!(shown(&seen, "/").propagation, expected, "{propagation}");
    }
}

/// Without a cgroup namespace the container's own group is bound there, also for a user who may not
/// mount the tree.
fn cgroups_in_a_user_namespace(world: &World) {
    let script = "ls /sys/fs/cgroup | grep -c -e cgroup.procs -e memory; \
                  touch /sys/fs/cgroup/x 2>/dev/null || echo refused";
    for own in [true, false] {
        let bundle = mapped(world, if own { "own" } else { "shared" }).shell(script);
        let bundle = if own { bundle } else { bundle.without_namespace("cgroup") };
        let seen = world.run(&["run", bundle.path()]).ok().output;
        assert!(seen.ends_with("refused\n") && !seen.starts_with('0'), "{own}: {seen}");
    }
}
