//! What a container finds in its file system: mounts, devices, masks; and what the host does not.

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::world::World;
use crate::{Test, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("default_mounts", default_mounts),
        test("devices", devices),
        test("devices_of_the_configuration", devices_of_the_configuration),
        test("masked_and_read_only", masked_and_read_only),
        test("binds", binds),
        test("read_only_recursively", read_only_recursively),
        test("tmpfs_options", tmpfs_options),
        test("tmpfs_over_files", tmpfs_over_files),
        test("come_and_go", come_and_go),
        test("links_lead_inside", links_lead_inside),
        test("order", order),
        test("nothing_reaches_the_host", nothing_reaches_the_host),
        test("the_host_is_out_of_reach", the_host_is_out_of_reach),
        test("propagation", propagation),
        test("overlay", overlay),
        test("overlay_layers_are_never_written", overlay_layers_are_never_written),
        test("overlay_read_only", overlay_read_only),
        test("working_directory_is_made", working_directory_is_made),
    ]
}

/// (root, place, options, type, source, options of the file system) of the mount at `place`.
fn mount_at<'a>(seen: &'a Value, place: &str) -> Vec<&'a str> {
    let table = seen["mounts"].as_array().expect("a list").iter().filter_map(Value::as_str);
    let found = table.rev().find(|line| line.split(' ').nth(4) == Some(place));
    found.unwrap_or_else(|| panic!("nothing at {place}: {seen}")).split(' ').collect()
}

fn look(world: &World, bundle: Bundle) -> Value {
    let bundle = bundle.args(&["/bin/probe", "look"]);
    world.run(&["run", bundle.path()]).ok().json()
}

fn default_mounts(world: &World) {
    let seen = look(world, world.bundle("c"));
    for (place, kind, options) in [
        ("/proc", "proc", &["rw", "nosuid", "nodev", "noexec"][..]),
        ("/dev", "tmpfs", &["rw", "nosuid"]),
        ("/dev/pts", "devpts", &["rw", "nosuid", "noexec"]),
        ("/dev/shm", "tmpfs", &["rw", "nosuid", "nodev", "noexec"]),
        ("/dev/mqueue", "mqueue", &["rw", "nosuid", "nodev", "noexec"]),
        ("/sys", "sysfs", &["ro", "nosuid", "nodev", "noexec"]),
    ] {
        let fields = mount_at(&seen, place);
        let has: Vec<_> = fields[5].split(',').collect();
        for option in options {
            assert!(has.contains(option), "{place}: {option} not in {fields:?}");
        }
        assert!(fields.contains(&kind), "{place}: {fields:?}");
    }
    assert!(mount_at(&seen, "/sys/fs/cgroup")[5].starts_with("ro"));
    // The root and the mounts above, and nothing of the host.
    let table = seen["mounts"].as_array().expect("a list");
    assert!(table.iter().all(|line| !line.as_str().expect("text").contains("/etc/")), "{seen}");
    assert!(table.len() < 45, "{} mounts: {seen}", table.len());
}

fn devices(world: &World) {
    let script = "cd /dev; stat -c '%n %F %t:%T %a' null zero full random urandom tty
        for l in fd stdin stdout stderr ptmx; do echo $l $(readlink $l); done
        echo x >full || echo full; head -c3 zero | wc -c; echo gone >null; ls";
    let ran = world.run(&["run", world.bundle("c").shell(script).path()]).exits(0);
    let expected = "null character special file 1:3 666\nzero character special file 1:5 666\n\
        full character special file 1:7 666\nrandom character special file 1:8 666\n\
        urandom character special file 1:9 666\ntty character special file 5:0 666\n\
        fd /proc/self/fd\nstdin /proc/self/fd/0\nstdout /proc/self/fd/1\nstderr /proc/self/fd/2\n\
        ptmx pts/ptmx\nfull\n3\nCOREfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\n\
        stdin\nstdout\ntty\nurandom\nzero\n";
    // The link is there where the kernel has what it leads to.
    let core = if std::path::Path::new("/proc/kcore").exists() { "core\n" } else { "" };
    assert_eq!(ran.output, expected.replace("CORE", core), "{}", ran.errors);
}

fn devices_of_the_configuration(world: &World) {
    let bundle = world
        .bundle("c")
        .shell("stat -c '%n %F %t:%T %a %u:%g' /dev/mine /dev/deep/er /dev/pipe; echo x >/dev/mine")
        .set("/linux/devices", json!([
            {"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 5, "gid": 6},
            {"path": "/dev/deep/er", "type": "c", "major": 1, "minor": 5, "fileMode": 0o644},
            {"path": "/dev/pipe", "type": "p", "fileMode": 0o600},
            // As `podman run --privileged` lists it: the container keeps its own.
            {"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2},
            {"path": "/dev/null", "type": "c", "major": 1, "minor": 3},
        ]));
    let ran = world.run(&["run", bundle.path()]).ok();
    let expected = "/dev/mine character special file 1:3 600 5:6\n\
        /dev/deep/er character special file 1:5 644 0:0\n/dev/pipe fifo 0:0 600 0:0\n";
    assert_eq!(ran.output, expected);
}

fn masked_and_read_only(world: &World) {
    let bundle = world.bundle("c").file("/secret/file", "secret", 0o644).file("/both", "b", 0o644);
    // Which of them exist depends on the kernel.
    let masked = bundle.config["linux"]["maskedPaths"].as_array().expect("a list").clone();
    let masked: Vec<_> = masked.iter().filter_map(Value::as_str).collect();
    let script = format!(
        "for f in {}; do if [ -d $f ]; then ls $f; elif [ -e $f ]; then cat $f; fi; done
         ls /secret; cat /both; echo x >/proc/sys/kernel/domainname || echo refused
         touch /etc/x || echo refused; touch /secret/y || echo refused; echo x >/both",
        masked.join(" ")
    );
    let bundle = bundle
        .shell(&script)
        .set("/linux/maskedPaths/-", json!("/secret"))
        .set("/linux/maskedPaths/-", json!("/both"))
        .set("/linux/maskedPaths/-", json!("/not/there"))
        .set("/linux/readonlyPaths/-", json!("/etc"));
    let ran = world.run(&["run", bundle.path()]).exits(0).prints("refused\nrefused\nrefused\n");
    assert_eq!(ran.errors.matches("Read-only file system").count(), 3, "{}", ran.errors);
    assert_eq!(std::fs::read_to_string(bundle.rootfs("both")).expect("it is there"), "b");
}

fn binds(world: &World) {
    let bundle = world.bundle("c");
    std::fs::create_dir(bundle.dir.join("data")).expect("make a directory");
    std::fs::write(bundle.dir.join("data/file"), "from the bundle\n").expect("write a file");
    let file = world.path("file");
    std::fs::write(&file, "one file\n").expect("write a file");
    let bundle = bundle
        .mount("/data", "bind", "data", &["rbind", "ro"])
        .mount("/new/place/file", "bind", file.to_str().expect("UTF-8"), &["bind"])
        .shell(
            "cat /data/file /new/place/file; touch /data/x || echo refused; echo more >>/new/place/file",
        );
    let ran = world.run(&["run", bundle.path()]).exits(0);
    assert_eq!(ran.output, "from the bundle\none file\nrefused\n", "{}", ran.errors);
    assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "one file\nmore\n");
    // A missing mount point is made in the root, never in the source.
    assert!(bundle.rootfs("new/place/file").exists());
    assert!(!bundle.dir.join("data/x").exists());
}

fn read_only_recursively(world: &World) {
    let (tree, inner) = (world.path("tree"), world.path("tree/inner"));
    std::fs::create_dir_all(&inner).expect("make directories");
    rustix::mount::mount("t", &inner, "tmpfs", rustix::mount::MountFlags::empty(), None)
        .expect("mount");
    let source = tree.to_str().expect("UTF-8");
    let script = "touch /t/x || echo refused; touch /t/inner/x || echo refused too";
    let shallow = world.bundle("ro").mount("/t", "bind", source, &["rbind", "ro"]).shell(script);
    let ran = world.run(&["run", shallow.path()]).exits(0);
    assert_eq!(ran.output, "refused\n", "ro is about one mount: {}", ran.errors);
    let deep = world.bundle("rro").mount("/t", "bind", source, &["rbind", "rro"]).shell(script);
    let ran = world.run(&["run", deep.path()]).exits(0);
    assert_eq!(ran.output, "refused\nrefused too\n", "{}", ran.errors);
    rustix::mount::unmount(&inner, rustix::mount::UnmountFlags::empty()).expect("not busy");
}

fn tmpfs_options(world: &World) {
    let bundle = world
        .bundle("c")
        .mount("/small", "tmpfs", "tmpfs", &["nosuid", "nodev", "size=64k", "mode=1770"])
        .shell("stat -c %a /small; dd if=/dev/zero of=/small/x bs=1k count=100 || echo full");
    let ran = world.run(&["run", bundle.path()]).exits(0);
    assert_eq!(ran.output, "1770\nfull\n", "{}", ran.errors);
}

/// Mounts that are added to a container that runs, and taken away.
fn come_and_go(world: &World) {
    let source = world.path("source");
    std::fs::create_dir(&source).expect("make a directory");
    std::fs::write(source.join("file"), "seen").expect("write a file");
    let single = world.path("single");
    std::fs::write(&single, "one").expect("write a file");
    let bundle = world
        .bundle("c")
        .args(&["/bin/probe", "wait"])
        .link("/escape", "../../../../../../../tmp")
        .set("/root/readonly", json!(false));
    world.run(&["run", "-d", bundle.path()]).ok();
    let list = json!([
        {"destination": "/new/place", "type": "bind", "source": source, "options": ["rbind", "ro"]},
        {"destination": "/new/file", "type": "bind", "source": single, "options": ["bind"]},
        {"destination": "/new/scratch", "type": "tmpfs", "source": "t", "options": ["size=64k"]},
        {"destination": "/escape/here", "type": "tmpfs", "source": "t", "options": []},
    ]);
    let file = world.path("mounts.json");
    std::fs::write(&file, list.to_string()).expect("write it");
    let file = file.to_str().expect("UTF-8");
    world.run(&["mounts", "add", "c", file]).ok();
    let script = "cat /new/place/file /new/file; touch /new/scratch/x && echo made; \
                  touch /new/place/x 2>/dev/null || echo refused; grep -c ' /tmp/here ' /proc/mounts";
    let seen = world.run(&["exec", "c", "sh", "-c", script]).ok();
    assert_eq!(seen.output, "seenonemade\nrefused\n1\n");
    assert!(!std::path::Path::new("/tmp/here").exists(), "a link led to the host");
    world.run(&["mounts", "remove", "c", file]).ok();
    let count = "grep -c -e ' /new/' -e '/tmp/here' /proc/mounts";
    world.run(&["exec", "c", "sh", "-c", count]).exits(1).prints("0\n");
    world.run(&["mounts", "remove", "c", file]).exits(1).says("nothing is mounted exactly there");
    world
        .minirun(&["mounts", "add", "c", "-"])
        .input_text("[{}]")
        .run()
        .exits(1)
        .says("mounts of -");
    let cgroup = r#"[{"destination": "/x", "type": "cgroup", "source": "x"}]"#;
    world.minirun(&["mounts", "add", "c", "-"]).input_text(cgroup).run().fails("only `create`");
    let root = r#"[{"destination": "/", "type": "bind", "source": "/"}]"#;
    world.minirun(&["mounts", "remove", "c", "-"]).input_text(root).run().fails("root cannot be");
    world.run(&["delete", "-f", "c"]).ok();
    world.run(&["mounts", "add", "c", file]).fails("does not exist");
}

/// The files that a tmpfs would hide: left out, or copied into it.
fn tmpfs_over_files(world: &World) {
    use std::os::unix::fs::{PermissionsExt, chown};
    let bundle = world
        .bundle("c")
        .file("/data/file", "kept", 0o640)
        .file("/data/below/script", "#!/bin/sh", 0o4755)
        .link("/data/link", "/etc/passwd")
        .shell("cd /data; stat -c '%n %a %u %g' . file below/script; readlink link; cat file");
    chown(bundle.rootfs("data/file"), Some(5), Some(6)).expect("give it away");
    let open = std::fs::Permissions::from_mode(0o1777);
    std::fs::set_permissions(bundle.rootfs("data"), open).expect("open it");
    let expected = ". 1777 0 0\nfile 640 5 6\nbelow/script 4755 0 0\n/etc/passwd\nkept";
    for option in ["rw", "ro"] {
        let bundle = Bundle { dir: bundle.dir.clone(), config: bundle.config.clone() }.mount(
            "/data",
            "tmpfs",
            "t",
            &["tmpcopyup", option],
        );
        world.run(&["run", bundle.path()]).ok().prints(expected);
    }
    let plain = bundle.mount("/data", "tmpfs", "t", &[]).shell("stat -c %a /data; ls /data");
    world.run(&["run", plain.path()]).ok().prints("1777\n");
    let bind = plain.mount("/x", "bind", "/etc", &["bind", "tmpcopyup"]);
    world.run(&["run", bind.path()]).fails("tmpcopyup is for a tmpfs");
}

fn links_lead_inside(world: &World) {
    let bundle = world
        .bundle("c")
        .link("/absolute", "/tmp")
        .link("/climbing", "../../../../../../tmp")
        .mount("/absolute/one", "tmpfs", "t", &["size=64k"])
        .mount("/climbing/two", "tmpfs", "t", &["size=64k"])
        .mount("/../../tmp/three", "tmpfs", "t", &["size=64k"]);
    let seen = look(world, bundle);
    for place in ["/tmp/one", "/tmp/two", "/tmp/three"] {
        mount_at(&seen, place);
    }
    for name in ["one", "two", "three"] {
        assert!(!std::path::Path::new("/tmp").join(name).exists(), "made on the host: {name}");
    }
}

fn order(world: &World) {
    let source = world.path("source");
    std::fs::create_dir(&source).expect("make a directory");
    std::fs::write(source.join("file"), "below\n").expect("write a file");
    let bundle = world
        .bundle("c")
        .mount("/a", "tmpfs", "t", &["size=64k"])
        .mount("/a/b", "bind", source.to_str().expect("UTF-8"), &["bind"])
        .shell("cat /a/b/file; ls /a");
    world.run(&["run", bundle.path()]).ok().prints("below\nb\n");
}

fn nothing_reaches_the_host(world: &World) {
    let ours = || {
        let table = std::fs::read_to_string("/proc/self/mountinfo").expect("a table");
        let dir = world.dir.to_string_lossy().into_owned();
        table.lines().filter(|line| line.contains(&dir)).count()
    };
    let caps = json!(["CAP_SYS_ADMIN"]);
    let bundle = world
        .bundle("c")
        .shell("mount -t tmpfs t /tmp && touch /tmp/inside /tmp/ready; sleep 1000")
        .unset("/linux/seccomp")
        .set(
            "/process/capabilities",
            json!({"bounding": caps, "effective": caps, "permitted": caps}),
        );
    world.run(&["run", "-d", bundle.path()]).ok();
    let pid = world.state("c")["pid"].to_string();
    let ready = format!("/proc/{pid}/root/tmp/ready");
    assert!(crate::call::wait_until(|| std::path::Path::new(&ready).exists()));
    assert_eq!(ours(), 0, "mounts of a running container are in the host's table");
    assert!(!bundle.rootfs("tmp/inside").exists());
    world.run(&["delete", "-f", "c"]).ok();
    assert_eq!(ours(), 0);
}

fn the_host_is_out_of_reach(world: &World) {
    std::fs::write(world.path("canary"), "host").expect("write a file");
    let canary = world.path("canary");
    let caps = json!(["CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_DAC_OVERRIDE"]);
    // The old way out of a chroot: another root below, and then up.
    let script = format!(
        "cat {0} ../../../../../..{0} 2>/dev/null; mkdir /jail; ls -d /proc/1/root{0} 2>/dev/null
         cd /; unshare -m sh -c 'umount -l / 2>/dev/null; ls {0} 2>/dev/null'; echo done",
        canary.display()
    );
    let bundle = world.bundle("c").shell(&script).unset("/linux/seccomp").set(
        "/process/capabilities",
        json!({"bounding": caps, "effective": caps, "permitted": caps}),
    );
    world.run(&["run", bundle.path()]).exits(0).prints("done\n");
}

fn propagation(world: &World) {
    let shared = world.path("shared");
    std::fs::create_dir(&shared).expect("make a directory");
    use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
    rustix::mount::mount("t", &shared, "tmpfs", MountFlags::empty(), None).expect("mount");
    rustix::mount::mount_change(&shared, MountPropagationFlags::SHARED).expect("share it");
    std::fs::create_dir(shared.join("late")).expect("make a directory");
    let source = shared.to_str().expect("UTF-8");
    let late = shared.join("late");
    for (option, expected) in [("rslave", "late"), ("rprivate", "")] {
        let name = option;
        let bundle = world
            .bundle(name)
            .mount("/s", "bind", source, &["rbind", option])
            .args(&["/bin/probe", "wait"]);
        world.run(&["run", "-d", bundle.path()]).ok();
        rustix::mount::mount("late", &late, "tmpfs", MountFlags::empty(), None).expect("mount");
        let table = world.run(&["exec", name, "cat", "/proc/self/mountinfo"]).ok().output;
        let seen = if table.contains(" /s/late ") { "late" } else { "" };
        assert_eq!(seen, expected, "{option}: {table}");
        rustix::mount::unmount(&late, UnmountFlags::empty()).expect("not busy");
        world.run(&["delete", "-f", name]).ok();
    }
    rustix::mount::unmount(&shared, UnmountFlags::DETACH).expect("not busy");
}

/// A bundle of two layers: the upper one replaces a file and hides another.
fn layered(world: &World, name: &str) -> Bundle {
    let (top, bottom) = (world.path("top"), world.path("bottom"));
    for layer in [&top, &bottom] {
        std::fs::create_dir_all(layer.join("etc")).expect("make a layer");
    }
    if !bottom.join("bin").exists() {
        std::fs::create_dir(bottom.join("bin")).expect("make a directory");
        crate::world::fill(&bottom.join("bin"));
        std::fs::create_dir(bottom.join("tmp")).expect("make a directory");
        for (layer, file, text) in [
            (&bottom, "etc/one", "old\n"),
            (&bottom, "etc/two", "kept\n"),
            (&bottom, "etc/gone", "hidden\n"),
            (&top, "etc/one", "new\n"),
        ] {
            std::fs::write(layer.join(file), text).expect("write a file");
        }
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        mknodat(CWD, top.join("etc/gone"), FileType::CharacterDevice, Mode::empty(), 0)
            .expect("make a whiteout");
    }
    let layers = json!([top, bottom]).to_string();
    let bundle =
        world.bundle(name).set("/annotations", json!({"org.minirun.overlay.lowerdirs": layers}));
    std::fs::remove_dir_all(bundle.rootfs("")).expect("empty the mount point");
    std::fs::create_dir(bundle.rootfs("")).expect("the mount point");
    bundle
}

fn overlay(world: &World) {
    let bundle = layered(world, "c")
        .shell("cat /etc/one /etc/two; ls /etc; echo mine >/etc/two; cat /etc/two");
    let ran = world.run(&["run", bundle.path()]).exits(0);
    assert_eq!(ran.output, "new\nkept\none\ntwo\nmine\n", "{}", ran.errors);
    assert_eq!(std::fs::read_dir(bundle.rootfs("")).expect("it is there").count(), 0);
    // The writable layer went with the container, so the next one starts anew.
    assert_eq!(world.run(&["run", bundle.path()]).exits(0).output, ran.output);
    // With --keep it stays until it is deleted.
    world.run(&["run", "--keep", bundle.path()]).exits(0);
    assert!(bundle.dir.join(".minirun-c/upper/etc/two").exists());
    world.run(&["delete", "c"]).ok();
    assert!(!bundle.dir.join(".minirun-c").exists());
}

fn overlay_layers_are_never_written(world: &World) {
    let script =
        "rm -r /etc; mkdir /etc; echo x >/etc/one; chmod 700 /bin; touch /tmp/t; mv /tmp /gone";
    let bundle = layered(world, "c").shell(script);
    let before = listing(world);
    world.run(&["run", bundle.path()]).exits(0);
    assert_eq!(listing(world), before);
    // Two containers share the layers and nothing else.
    let (one, two) = (layered(world, "one"), layered(world, "two"));
    let one = one.shell("echo one >/etc/one; sleep 1000");
    world.run(&["run", "-d", one.path()]).ok();
    world.run(&["run", two.path(), "cat", "/etc/one"]).ok().prints("new\n");
    world.run(&["delete", "-f", "one"]).ok();
    assert_eq!(listing(world), before);
}

fn listing(world: &World) -> String {
    let script =
        format!("cd {}; find top bottom -printf '%p %m %s %T@ %l\\n' | sort", world.dir.display());
    world.program("/bin/sh").args(&["-c", &script]).run().ok().output
}

fn overlay_read_only(world: &World) {
    let bundle = layered(world, "c").shell("cat /etc/one; touch /x || echo refused");
    let bundle = bundle.set("/root/readonly", json!(true));
    // Nothing can be made in a read-only image, so its mount points must be there.
    for dir in ["proc", "dev", "sys"] {
        std::fs::create_dir(world.path("bottom").join(dir)).expect("make a directory");
    }
    let ran = world.run(&["run", bundle.path()]).exits(0);
    assert_eq!(ran.output, "new\nrefused\n", "{}", ran.errors);
}

fn working_directory_is_made(world: &World) {
    let bundle = world.bundle("c").args(&["pwd"]).set("/process/cwd", json!("/srv/new/one"));
    world.run(&["run", bundle.path()]).ok().prints("/srv/new/one\n");
}
