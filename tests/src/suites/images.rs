//! From an application to a container: rootfs-tools makes the image and the bundle, minirun runs it.

use std::path::Path;

use rustix::process::Signal;

use crate::call::{Call, Ran, wait_until};
use crate::needs::Need;
use crate::world::World;
use crate::{Test, programs, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("a_directory_becomes_a_container", a_directory_becomes_a_container),
        test("the_web_application_serves_and_stops", the_web_application_serves_and_stops),
        test("the_leaking_application_is_killed", the_leaking_application_is_killed),
        test("containers_of_one_image_share_its_layers", containers_of_one_image_share_its_layers),
        test("an_image_runs_without_a_bundle", an_image_runs_without_a_bundle),
        test("the_second_container_needs_no_tools", the_second_container_needs_no_tools),
        test("an_archive_runs_and_the_command_is_replaced", an_archive_runs),
        test("a_killed_run_of_an_image_is_deleted", a_killed_run_of_an_image_is_deleted),
        test("what_is_no_image_leaves_nothing", what_is_no_image_leaves_nothing),
        test("a_sealed_image_cannot_be_changed", a_sealed_image_cannot_be_changed)
            .needs(Need::Program("mkfs.ext4"))
            .needs(Need::SealedFiles),
        test("what_cannot_be_sealed_is_told", what_cannot_be_sealed_is_told),
    ]
}

pub(super) fn tools(world: &World, arguments: &[&str]) -> Ran {
    let store = world.path("store");
    world
        .program(programs::rootfs_tools())
        .args(&["--store", store.to_str().expect("UTF-8")])
        .args(arguments)
        .run()
}

/// An image with one of the example applications in it.
fn image_of(world: &World, application: &str) {
    let root = world.path(&format!("{application}-root"));
    std::fs::create_dir_all(root.join("app")).expect("make a directory");
    std::fs::copy(programs::example(application), root.join("app").join(application))
        .expect("copy");
    let directory = root.to_str().expect("UTF-8").to_owned();
    let command = format!("/app/{application}");
    let ran =
        tools(world, &["import", &directory, &format!("{application}:v1"), "--cmd", &command]);
    assert_eq!(ran.status, 0, "{ran:?}");
}

pub(super) fn bundle_of(world: &World, image: &str, name: &str) -> String {
    let dir = world.path(name);
    let dir = dir.to_str().expect("UTF-8").to_owned();
    let ran = tools(world, &["bundle", image, &dir]);
    assert_eq!(ran.status, 0, "{ran:?}");
    // The group must be one of this test.
    let file = Path::new(&dir).join("config.json");
    let text = std::fs::read(&file).expect("a configuration");
    let mut config: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    config["linux"]["cgroupsPath"] = format!("{}/{name}", world.cgroup).into();
    std::fs::write(file, config.to_string()).expect("write it");
    dir
}

fn a_directory_becomes_a_container(world: &World) {
    image_of(world, "web");
    assert!(tools(world, &["ls"]).ok().output.contains("web"));
    let bundle = bundle_of(world, "web:v1", "web");
    let ran = world.run(&["check", &bundle]).exits(0);
    assert!(ran.output.contains("overlay"), "{}", ran.output);
}

/// The answer of the application in container `id`, asked in its network namespace.
fn ask(world: &World, id: &str, path: &str) -> Option<String> {
    // The image has no client: so a shell of the host asks, in the container's network.
    let pid = world.state(id)["pid"].to_string();
    let script = format!(
        "exec 3<>/dev/tcp/127.0.0.1/3000 && printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3"
    );
    let ran = world
        .program(programs::find("nsenter").expect("util-linux"))
        .args(&["--target", &pid, "--net", "bash", "-c", &script])
        .run();
    (ran.status == 0).then_some(ran.output)
}

fn the_web_application_serves_and_stops(world: &World) {
    image_of(world, "web");
    let bundle = bundle_of(world, "web:v1", "web");
    let running = world.minirun(&["run", "--memory", "512m", &bundle]).spawn();
    assert!(wait_until(|| world.root().join("web").exists()));
    assert!(wait_until(|| ask(world, "web", "/health").is_some()), "{}", running.output());
    let limit = world.cgroup_file("web", "memory", "memory.max", "memory.limit_in_bytes");
    assert_eq!(limit, "536870912");
    assert!(ask(world, "web", "/").expect("an answer").contains("web v1 on"));
    running.signal(Signal::TERM);
    running.wait().exits(0);
}

fn the_leaking_application_is_killed(world: &World) {
    image_of(world, "leak");
    let bundle = bundle_of(world, "leak:v1", "leak");
    let running = world.minirun(&["run", "--memory", "64m", &bundle]).spawn();
    assert!(wait_until(|| world.root().join("leak").exists()));
    assert!(wait_until(|| ask(world, "leak", "/health").is_some()));
    ask(world, "leak", "/leak?mb=100");
    let ran = running.wait().exits(137);
    let words = "minirun: container leak was killed: it exceeded its memory limit of 64 MiB";
    assert!(ran.errors.contains(words), "{}", ran.errors);
}

fn containers_of_one_image_share_its_layers(world: &World) {
    image_of(world, "web");
    let (one, two) = (bundle_of(world, "web:v1", "one"), bundle_of(world, "web:v1", "two"));
    for bundle in [&one, &two] {
        world.run(&["run", "-d", bundle]).ok();
    }
    assert!(wait_until(|| ask(world, "one", "/health").is_some()));
    assert!(wait_until(|| ask(world, "two", "/health").is_some()));
    for id in ["one", "two"] {
        world.run(&["delete", "-f", id]).ok();
    }
    let layers = |bundle: &str| {
        let text = std::fs::read(Path::new(bundle).join("config.json")).expect("a configuration");
        let config: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        config["annotations"]["org.minirun.overlay.lowerdirs"].as_str().expect("layers").to_owned()
    };
    assert_eq!(layers(&one), layers(&two));
    assert!(layers(&one).contains("/store/"), "{}", layers(&one));
}

/// `minirun run IMAGE`, with the store of this test.
pub(super) fn run_image(world: &World, arguments: &[&str]) -> Call {
    run_from(world, "store", arguments)
}

fn run_from(world: &World, store: &str, arguments: &[&str]) -> Call {
    let store = world.path(store);
    let all = ["run", "--store", store.to_str().expect("UTF-8")];
    let tools = programs::rootfs_tools();
    world.minirun(&all).args(arguments).env("ROOTFS_TOOLS", tools.to_str().expect("UTF-8"))
}

/// An image with busybox, whose entry point it is.
pub(super) fn shell_image(world: &World) -> String {
    let root = world.path("shell-root");
    std::fs::create_dir_all(root.join("bin")).expect("make a directory");
    std::fs::copy(programs::busybox(), root.join("bin/busybox")).expect("copy");
    let directory = root.to_str().expect("UTF-8").to_owned();
    let entry = ["--entrypoint", "/bin/busybox", "--cmd", r#"["echo","from","the image"]"#];
    tools(world, &[&["import", &directory, "team/shell:v1"], &entry[..]].concat()).exits(0);
    directory
}

/// The writable layers that the store has, and the directories of containers that there are.
pub(super) fn left(world: &World) -> (usize, usize) {
    let count = |path: &Path| std::fs::read_dir(path).map_or(0, Iterator::count);
    (count(&world.path("store/writable")), count(&world.root()))
}

fn an_image_runs_without_a_bundle(world: &World) {
    shell_image(world);
    let ran = run_image(world, &["team/shell:v1"]).run().exits(0);
    assert_eq!(ran.output, "from the image\n");
    let ran = run_image(world, &["team/shell:v1", "sh", "-c", "echo x > /new; cat /new; exit 7"]);
    let ran = ran.run().exits(7);
    assert_eq!(ran.output, "x\n");
    // The second one began from nothing again, and nothing of the first is there.
    let ran = run_image(world, &["--name", "other", "team/shell:v1", "ls", "/new"]).run().exits(1);
    assert!(ran.errors.contains("No such file"), "{}", ran.errors);
    assert_eq!(left(world), (0, 0));
}

/// What rootfs-tools found out the first time does until the names of the store change.
fn the_second_container_needs_no_tools(world: &World) {
    let directory = shell_image(world);
    let alone = |arguments: &[&str]| {
        let absent = world.path("no-such-program");
        let call = run_image(world, &[&["--name", "second", "team/shell:v1"], arguments].concat());
        call.env("ROOTFS_TOOLS", absent.to_str().expect("UTF-8")).run()
    };
    assert!(alone(&[]).errors.contains("no-such-program"), "nothing is known yet");
    run_image(world, &["--name", "first", "team/shell:v1", "true"]).run().exits(0);
    assert_eq!(alone(&[]).exits(0).output, "from the image\n");
    assert_eq!(alone(&["echo", "given"]).exits(0).output, "given\n");
    // While it runs its layers are needed, whatever the image is called.
    let running =
        run_image(world, &["--name", "long", "team/shell:v1", "sh", "-c", "echo up; sleep 100"]);
    let running = running.env("ROOTFS_TOOLS", "/no/such/program").spawn();
    running.wait_for("up");
    tools(world, &["rm", "team/shell:v1"]).exits(0);
    tools(world, &["gc"]).exits(0);
    let layers = || std::fs::read_dir(world.path("store/layers/sha256")).expect("layers").count();
    assert_eq!(layers(), 1);
    assert!(alone(&[]).errors.contains("no-such-program"), "the name is gone");
    world.run(&["delete", "--force", "long"]).exits(0);
    running.wait();
    tools(world, &["gc"]).exits(0);
    assert_eq!(layers(), 0);
    // The same name for another image.
    std::fs::write(Path::new(&directory).join("another"), "x").expect("write a file");
    shell_image(world);
    assert!(alone(&["ls", "/another"]).errors.contains("no-such-program"));
    run_image(world, &["--name", "third", "team/shell:v1", "ls", "/another"]).run().exits(0);
    alone(&["ls", "/another"]).exits(0);
    assert_eq!(left(world), (0, 0));
}

fn an_archive_runs(world: &World) {
    shell_image(world);
    // Its name is the container's, and no other test's.
    let file = world.path("archived.tar");
    let file = file.to_str().expect("UTF-8");
    tools(world, &["export", "team/shell:v1", file]).exits(0);
    let ran = run_from(world, "other-store", &[file, "echo", "again"]).run().exits(0);
    assert_eq!(ran.output, "again\n");
    assert!(left(world).1 == 0);
}

fn a_killed_run_of_an_image_is_deleted(world: &World) {
    shell_image(world);
    for round in 0..12_u64 {
        let running =
            run_image(world, &["--name", "killed", "team/shell:v1", "sleep", "60"]).spawn();
        // From the making of the bundle to the running program.
        std::thread::sleep(std::time::Duration::from_millis(round * round));
        running.signal(Signal::KILL);
        running.wait();
        world.run(&["delete", "--force", "killed"]).exits(0);
        assert_eq!(left(world), (0, 0), "round {round}");
    }
    tools(world, &["rm", "team/shell:v1"]).exits(0);
    tools(world, &["gc"]).exits(0);
    assert_eq!(std::fs::read_dir(world.path("store/layers/sha256")).expect("layers").count(), 0);
}

fn what_is_no_image_leaves_nothing(world: &World) {
    let ran = run_image(world, &["registry.example/absent"]).run().exits(1);
    assert!(ran.errors.contains("no image `registry.example/absent:latest`"), "{}", ran.errors);
    assert!(ran.errors.contains("made no bundle"), "{}", ran.errors);
    let absent = world.path("no-such-program");
    let ran = run_image(world, &["absent"]).env("ROOTFS_TOOLS", absent.to_str().expect("UTF-8"));
    let ran = ran.run().exits(1);
    assert!(ran.errors.contains("start") && ran.errors.contains("no-such-program"), "{ran:?}");
    assert_eq!(left(world), (0, 0));
}

/// On an ext4 of its own in a file. The damage is done to the disk, below the file system: the
/// kernel must not give it to anybody.
fn a_sealed_image_cannot_be_changed(world: &World) {
    let root = shell_image(world);
    let text = "what nobody may change\n".to_owned() + &"-".repeat(9000);
    std::fs::write(format!("{root}/text"), text).expect("write a file");
    let script = r#"modprobe loop 2>/dev/null || true
        cd "$1"; tools="$2 --store disk/store"
        truncate -s 32M disk.img; mkfs.ext4 -q -b 4096 -O verity disk.img; mkdir disk
        mount -o loop disk.img disk
        $tools import shell-root sealed --cmd true --quiet --sync
        $tools verify --seal
        $tools verify --seal
        file=$(echo disk/store/layers/sha256/*/fs/text)
        echo more 2>/dev/null >> "$file" && echo written
        $tools verify
        cp "$file" copy; rm "$file"; cp -p copy "$file"
        $tools verify && echo unnoticed
        mv "$file" hidden; $tools rm sealed --quiet; $tools gc --quiet
        $tools import shell-root sealed --cmd true --quiet --sync
        $tools verify --seal
        umount disk
        for at in $(grep -abo 'what nobody may change' disk.img | cut -d: -f1); do
            printf X | dd of=disk.img bs=1 seek=$at conv=notrunc status=none
        done
        mount -o loop disk.img disk
        cat "$file" > read 2>/dev/null && echo given
        umount disk"#;
    let at = world.dir.to_str().expect("UTF-8");
    let program = programs::rootfs_tools();
    let ran = world
        .program("/usr/bin/unshare")
        .args(&["--mount", "sh", "-c", script, "sh", at, program.to_str().expect("UTF-8")])
        .run();
    let told = format!("{}{}", ran.output, ran.errors);
    assert_eq!(told.matches("sealed:latest: as it was").count(), 4, "{told}");
    assert!(told.contains("text: another "), "{told}");
    for bad in ["written", "unnoticed", "given"] {
        assert!(!told.contains(bad), "{bad}: {told}");
    }
}

/// Where the file system has no fs-verity it is said, and nothing is half sealed.
fn what_cannot_be_sealed_is_told(world: &World) {
    let root = world.path("empty");
    std::fs::create_dir(&root).expect("make a directory");
    std::fs::write(root.join("file"), "x").expect("write a file");
    let store =
        Path::new("/dev/shm").join(format!("minirun-seal-{}", world.cgroup.replace('/', "-")));
    let tool = |arguments: &[&str]| {
        let all = ["--store", store.to_str().expect("UTF-8")];
        world.program(programs::rootfs_tools()).args(&all).args(arguments).run()
    };
    tool(&["import", root.to_str().expect("UTF-8"), "plain", "--cmd", "true"]).exits(0);
    let ran = tool(&["verify", "--seal"]);
    let after = tool(&["verify"]);
    std::fs::remove_dir_all(&store).expect("remove the store");
    assert!(ran.errors.contains("has no fs-verity"), "{ran:?}");
    assert_eq!(after.exits(0).output, "plain:latest: as it was\n");
}
