//! minisup with real containers: what a user sees, and what must never happen.

use std::io::Write;
use std::path::PathBuf;

use crate::project::{Project, exists, kill, processes};
use crate::traffic::{Client, Traffic};
use crate::world::World;
use crate::{Test, programs, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("up_serves_and_down_leaves_nothing", up_serves_and_down_leaves_nothing),
        test("no_request_is_lost_whatever_is_killed", no_request_is_lost_whatever_is_killed),
        test("keepers_may_die_one_after_another", keepers_may_die_one_after_another),
        test("down_ends_what_the_killed_have_left", down_ends_what_the_killed_have_left),
        test("down_goes_on_when_its_brain_is_killed", down_goes_on_when_its_brain_is_killed),
        test("a_single_replica_may_die", a_single_replica_may_die),
        test("a_full_disk_ends_nothing", a_full_disk_ends_nothing),
        test("a_frozen_replica_is_replaced", a_frozen_replica_is_replaced),
        test("scaling_drains", scaling_drains),
        test("what_is_wrong_is_refused", what_is_wrong_is_refused),
        test("a_broken_history_costs_no_container", a_broken_history_costs_no_container),
        test("a_compose_file_is_followed", a_compose_file_is_followed),
        test("files_and_identity_come_from_the_file", files_and_identity_come_from_the_file),
        test("roles_and_hooks_are_followed", roles_and_hooks_are_followed),
        test("waiting_ends_and_says_what_is_missing", waiting_ends_and_says_what_is_missing),
        test("images_run_and_share_their_layers", images_run_and_share_their_layers),
    ]
}

fn up_serves_and_down_leaves_nothing(world: &World) {
    let project = Project::new(world, "up");
    project.up(3);
    let before = project.pids();
    assert_eq!(before.len(), 3);
    let mut client = Client::connect(project.port).expect("connect");
    let answer = client.get("/").expect("an answer");
    assert!(answer.starts_with("web v1 on web."), "{answer}");
    assert!(project.ok(&["ls"]).contains("3/3"));
    assert!(project.ok(&["logs"]).contains("web: listening on"));
    project.up(3);
    assert_eq!(project.pids(), before, "a second up changes nothing");
    project.down();
}

fn no_request_is_lost_whatever_is_killed(world: &World) {
    let project = Project::new(world, "kills");
    project.up(3);
    let traffic = Traffic::begin(project.port, 10);
    for count in 1..=3 {
        let killed: Vec<String> = project.pids().into_iter().take(count).collect();
        killed.iter().for_each(|pid| kill("-KILL", pid)); // one, then two, then all three
        project.wait_for("three other ready replicas", || {
            let now = project.pids();
            now.len() == 3 && !now.iter().any(|pid| killed.contains(pid))
        });
        for role in ["brain", "keeper"] {
            let old = project.role(role);
            kill("-KILL", old.as_ref().expect("it runs"));
            project.wait_for("another process in its place", || {
                project.role(role).is_some_and(|new| Some(new) != old)
            });
            project.wait_for("an answer", || project.minisup(&["ps"]).status == 0);
        }
    }
    assert!(traffic.end() > 100);
    assert_eq!(project.pids().len(), 3, "none lost, none doubled");
    project.down();
}

/// Each as soon as it is seen: most are killed before their brain has everything.
fn keepers_may_die_one_after_another(world: &World) {
    let project = Project::new(world, "keepers");
    project.up(2);
    let before = project.pids();
    let traffic = Traffic::begin(project.port, 5);
    let mut last = None;
    for _ in 0..40 {
        project.wait_for("another keeper", || {
            let now = project.role("keeper");
            now.is_some() && now != last
        });
        last = project.role("keeper");
        last.iter().for_each(|keeper| kill("-KILL", keeper));
    }
    project.wait_for("an answer", || project.minisup(&["ps"]).status == 0);
    assert_eq!(project.pids(), before, "the same containers, none lost, none doubled");
    let mut client = Client::connect(project.port).expect("connect");
    assert!(client.get("/").expect("an answer").starts_with("web v1 on web."));
    assert!(traffic.end() > 20);
    let logs = project.ok(&["logs"]);
    assert!(logs.contains("web: listening on"), "the containers can still write: {logs}");
    project.down();
}

fn down_ends_what_the_killed_have_left(world: &World) {
    let project = Project::new(world, "left");
    project.up(2);
    // The keeper alone would be mended by the brain, and the brain by the keeper: but not by one
    // that is stopped. (A stopped brain would go on when its keeper dies: setpgid(2), orphaned
    // process groups.)
    let (keeper, brain) = (project.role("keeper"), project.role("brain"));
    let (keeper, brain) = (keeper.expect("it runs"), brain.expect("it runs"));
    kill("-STOP", &keeper);
    kill("-KILL", &brain);
    kill("-KILL", &keeper);
    project.wait_for("the end of both", || {
        project.role("keeper").is_none() && project.role("brain").is_none()
    });
    project.minisup(&["ps"]).fails("does not run");
    project.down();
    project.minisup(&["down"]).fails("does not run");
}

fn down_goes_on_when_its_brain_is_killed(world: &World) {
    let project = Project::new(world, "insist");
    project.up(3);
    let down = project.call(&["down"]).spawn();
    // Each as soon as it is seen, some before they have heard what is wanted.
    let mut last = None;
    for _ in 0..5 {
        project.wait_for("a brain, or the end", || {
            let brain = project.role("brain");
            brain.is_none() && !project.run_dir().exists() || brain.is_some() && brain != last
        });
        last = project.role("brain");
        last.iter().for_each(|brain| kill("-KILL", brain));
    }
    down.wait().ok();
    project.is_gone();
}

fn a_single_replica_may_die(world: &World) {
    let project = Project::new(world, "single");
    project.up(1);
    let traffic = Traffic::begin(project.port, 5);
    for _ in 0..3 {
        let before = project.pids();
        kill("-KILL", &before[0]);
        project.wait_for("a new replica", || {
            let now = project.pids();
            now.len() == 1 && now != before
        });
    }
    assert!(traffic.end() > 20);
    project.down();
}

/// A small file system in memory; gone when this is dropped.
struct Small(PathBuf);

impl Small {
    fn mount(world: &World, name: &str) -> Small {
        let dir = world.path(name);
        std::fs::create_dir(&dir).expect("make a directory");
        let (options, at) = (["-t", "tmpfs", "-o", "size=2m", "tmpfs"], dir.to_str());
        world.program("mount").args(&options).args(&[at.expect("UTF-8")]).run().exits(0);
        Small(dir)
    }

    /// Leaves no room.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("fill")).expect("make a file");
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.join("fill")).expect("remove it");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

/// Neither history nor logs nor complaints nor another container can be written; what runs goes on.
fn a_full_disk_ends_nothing(world: &World) {
    let disks = ["minisup-run", "minisup-state"].map(|name| Small::mount(world, name));
    let project = Project::new(world, "full");
    project.up(3);
    let traffic = Traffic::begin(project.port, 5);
    let before = project.pids();
    disks.iter().for_each(Small::fill);
    for role in ["brain", "keeper", "brain"] {
        let old = project.role(role);
        kill("-KILL", old.as_ref().expect("it runs"));
        project.wait_for("another process in its place", || {
            project.role(role).is_some_and(|new| Some(new) != old)
        });
        project.wait_for("an answer", || project.minisup(&["ps"]).status == 0);
        assert_eq!(project.pids(), before, "{role}");
    }
    kill("-KILL", &before[0]);
    project.wait_for("its end", || project.pids() == before[1..]);
    project.ok(&["scale", "web=4"]);
    assert!(project.role("keeper").is_some() && project.role("brain").is_some());
    disks.iter().for_each(Small::empty);
    project.wait_for("four, with a new one", || project.pids().len() == 4);
    assert!(project.pids().contains(&before[1]) && project.pids().contains(&before[2]));
    project.wait_for("what happened since", || project.ok(&["events"]).contains("became-ready"));
    assert!(traffic.end() > 20);
    project.down();
    drop(disks);
}

fn a_frozen_replica_is_replaced(world: &World) {
    let project = Project::new(world, "frozen");
    project.up(2);
    let traffic = Traffic::begin(project.port, 5);
    let frozen = project.pids()[0].clone();
    kill("-STOP", &frozen);
    project.wait_for("its end", || project.pids().len() == 2 && !exists(&frozen));
    assert!(traffic.end() > 20);
    let events = project.ok(&["events"]);
    let place = |what: &str| events.find(what).unwrap_or_else(|| panic!("no {what} in {events}"));
    assert!(place("condemned") < place("its replacement starts first"));
    assert!(place("is ready in its place") < place("after it was stopped: unhealthy"));
    project.down();
}

fn scaling_drains(world: &World) {
    let project = Project::new(world, "scale");
    project.up(2);
    let traffic = Traffic::begin(project.port, 5);
    project.ok(&["scale", "web=5"]);
    project.wait_for("five", || project.pids().len() == 5);
    project.ok(&["scale", "web=1"]);
    project.wait_for("one", || project.ok(&["ps"]).lines().count() == 2);
    project.ok(&["restart", "web"]);
    project.wait_for("another", || project.ok(&["ps"]).contains("web.1.2"));
    let before = traffic.answered();
    project.wait_for("more answers", || traffic.answered() > before);
    assert!(traffic.end() > 20);
    project.down();
}

fn what_is_wrong_is_refused(world: &World) {
    let project = Project::new(world, "wrong");
    project.up(1);
    project.minisup(&["scale", "wbe=3"]).fails("there is no service wbe; the project has web");
    project.down();
    let taken = std::net::TcpListener::bind(("127.0.0.1", project.port)).expect("its old port");
    let publish = format!("127.0.0.1:{}:3000", project.port);
    let (bundle, runtime) = (project.bundle(), programs::minirun());
    let up = ["up", "-d", "--publish", &publish, "--runtime", runtime.to_str().expect("UTF-8")];
    let refused = project.minisup(&[&up[..], &[bundle.to_str().expect("UTF-8")]].concat());
    refused.fails("cannot listen at");
    project.is_gone();
    drop(taken);
}

fn a_broken_history_costs_no_container(world: &World) {
    let project = Project::new(world, "broken");
    project.up(2);
    let before = project.pids();
    let history = project.state_dir().join("history.db");
    // Both parts: SQLite would mend the file from its journal.
    for part in [history.clone(), history.with_extension("db-wal")] {
        std::fs::write(part, vec![0x5a; 8192]).expect("write over the history");
    }
    let old = project.role("brain");
    kill("-KILL", old.as_ref().expect("it runs"));
    project.wait_for("both replicas, adopted", || {
        project.role("brain") != old && project.minisup(&["ps"]).status == 0
    });
    assert_eq!(project.pids(), before, "the same processes");
    assert!(project.ok(&["events"]).contains("found running in a vacant slot"));
    project.down();
}

fn a_compose_file_is_followed(world: &World) {
    let project = Project::new(world, "compose");
    let file = project.bundle().join("compose.yaml");
    let text = |more: &str| {
        format!(
            "services:\n  web:\n    image: .\n    ports: [\"127.0.0.1:{}:3000\"]\n    \
             depends_on: {{db: {{condition: service_healthy}}}}\n    \
             deploy: {{replicas: 2, resources: {{limits: {{memory: 64m}}}}}}\n{more}  \
             db:\n    image: .\n    healthcheck:\n      \
             test: [CMD, wget, -q, -O, /dev/null, \"http://127.0.0.1:3000/health\"]\n      \
             interval: 1s\n",
            project.port
        )
    };
    let write = |text: String| std::fs::write(&file, text).expect("write the file");
    let runtime = programs::minirun();
    let mut up = vec!["up", "-d", "--wait", "--file", file.to_str().expect("UTF-8")];
    up.extend(["--runtime", runtime.to_str().expect("UTF-8")]);
    write(text("    isolation: default\n    gpus: all\n"));
    project.minisup(&up).fails("compose.yaml:8:");
    project.is_gone();
    write(text(""));
    project.ok(&up);
    let events = project.ok(&["events"]);
    let place = |who: &str, what: &str| {
        let words = |line: &str| line.split_whitespace().skip(1).take(2).eq([who, what]);
        events.lines().position(words).unwrap_or_else(|| panic!("no {who} {what}: {events}"))
    };
    assert!(place("web.1", "waiting") < place("db.1.1", "became-ready"));
    assert!(place("db.1.1", "became-ready") < place("web.1.1", "launching"));
    let answer = Client::connect(project.port).and_then(|mut client| client.get("/"));
    assert!(answer.as_ref().is_ok_and(|text| text.contains(" on web.")), "{answer:?}");
    let before = project.pids();
    project.ok(&up);
    assert_eq!(project.pids(), before, "a second up changes nothing");
    // A service alone brings what it needs, and another number of replicas wins over the file's.
    project.ok(&[&up[..], &["--replicas", "web=1", "web"]].concat());
    project.wait_for("two in all", || project.pids().len() == 2);
    project.minisup(&[&up[..], &["wbe"]].concat()).fails("there is no service `wbe`");
    project.down();
}

const FILES: &str = r#"
services:
  web:
    image: .
    user: "1000:100"
    hostname: shop
    working_dir: /tmp
    cap_drop: [ALL]
    ulimits: {nofile: 77}
    environment: {GREETING: hello}
    volumes: ["data:/data", "./shown:/shown:ro", "/own"]
    tmpfs: ["/scratch:size=64k"]
    secrets: [password, {source: password, target: /other, uid: "1000", mode: "0400"}]
    configs: [{source: settings, target: /settings.txt}]
volumes: {data: {}}
secrets: {password: {file: ./password}}
configs: {settings: {content: "level: 3"}}
"#;

fn files_and_identity_come_from_the_file(world: &World) {
    let project = Project::new(world, "files");
    let dir = project.bundle();
    for below in ["data", "shown", "own", "scratch", "run/secrets"] {
        std::fs::create_dir_all(dir.join("rootfs").join(below)).expect("make a directory");
    }
    std::fs::create_dir(dir.join("shown")).expect("make a directory");
    for (name, text) in [("shown/page", "look"), ("password", "hush"), ("compose.yaml", FILES)] {
        std::fs::write(dir.join(name), text).expect("write a file");
    }
    for empty in ["rootfs/other", "rootfs/settings.txt", "rootfs/run/secrets/password"] {
        std::fs::write(dir.join(empty), "").expect("write a file");
    }
    let (file, runtime) = (dir.join("compose.yaml"), programs::minirun());
    let mut up = vec!["up", "-d", "--wait", "--file", file.to_str().expect("UTF-8")];
    up.extend(["--runtime", runtime.to_str().expect("UTF-8")]);
    project.ok(&up);
    let sh = |script: &str| project.ok(&["exec", "web", "sh", "-c", script]);
    assert_eq!(sh("id -u; id -g; hostname; pwd; ulimit -n"), "1000\n100\nshop\n/tmp\n77\n");
    assert_eq!(sh("cat /shown/page /run/secrets/password /settings.txt"), "lookhushlevel: 3");
    assert_eq!(
        sh("stat -c '%u %a' /other; grep CapEff /proc/self/status"),
        "1000 400\nCapEff:\t0000000000000000\n"
    );
    assert_eq!(
        sh("stat -f -c %T /scratch; touch /shown/x 2>&1 || true"),
        "tmpfs\ntouch: /shown/x: Read-only file system\n"
    );
    // The value of a secret is nowhere but in memory.
    let known = [project.ok(&["inspect"]), project.ok(&["events", "--json"])].concat();
    assert!(!known.contains("hush"));
    let kept = std::fs::read_to_string(project.state_dir().join("stack.json")).expect("stack.json");
    assert!(kept.contains("/password-") && !kept.contains("hush"), "{kept}");
    // Another value is another revision; the volume stays, also after down, until it is named.
    let before = project.pids();
    std::fs::write(dir.join("password"), "new").expect("write a file");
    let volume = world.path("minisup-state/volumes.d").join(project.volume("data"));
    std::fs::write(volume.join("kept"), "data").expect("write into the volume");
    project.ok(&up);
    project.wait_for("the replacement", || project.pids() != before && project.pids().len() == 1);
    assert_eq!(sh("cat /run/secrets/password /data/kept"), "newdata");
    project.down();
    assert!(volume.join("kept").exists());
    project.ok(&up);
    project.ok(&["down", "--volumes"]);
    assert!(!volume.exists());
    project.is_gone();
}

fn roles_and_hooks_are_followed(world: &World) {
    let project = Project::new(world, "roles");
    let file = project.bundle().join("compose.yaml");
    let text = format!(
        "services:\n  web:\n    image: .\n    ports: [\"127.0.0.1:{}:3000\"]\n    tmpfs: [/tmp]\n    \
         pre_stop: [{{command: [sh, -c, \"echo bye > /proc/1/fd/1\"]}}]\n    x-minisup:\n      \
         probes:\n        ready: {{exec: [test, -e, /tmp/open], interval: 50ms, failures: 1}}\n        \
         live: {{http: {{port: 3000, path: /health}}}}\n        \
         startup: {{tcp: {{port: 3000}}}}\n",
        project.port
    );
    std::fs::write(&file, &text).expect("write the file");
    let runtime = programs::minirun();
    let mut up = vec!["up", "-d", "--file", file.to_str().expect("UTF-8")];
    up.extend(["--runtime", runtime.to_str().expect("UTF-8")]);
    project.ok(&up);
    let route = || project.ok(&["registry", "--json"]);
    project.wait_for("a replica without requests", || {
        project.ok(&["ps"]).contains("unready for") && !route().contains("\"active\"")
    });
    assert!(!project.ok(&["events"]).contains("became-ready"), "its ready probe never passed");
    project.ok(&["exec", "web", "touch", "/tmp/open"]);
    project.wait_for("its requests", || route().contains("\"active\""));
    let before = project.pids();
    project.ok(&["exec", "web", "rm", "/tmp/open"]);
    project.wait_for("that it gets none again", || !route().contains("\"active\""));
    project.ok(&["exec", "web", "touch", "/tmp/open"]);
    project.wait_for("that it gets some again", || route().contains("\"active\""));
    assert_eq!(project.pids(), before, "not ready is no reason to replace it");
    project.ok(&["restart", "web"]);
    let enter = ["exec", "web.1.2", "touch", "/tmp/open"];
    project.wait_for("its successor", || project.minisup(&enter).status == 0);
    project.wait_for("the hook", || project.ok(&["logs"]).contains("bye"));
    // The web application does not speak gRPC, and has no socket: the probes say so.
    for (probe, words) in
        [("grpc: {port: 3000}", "gRPC at port 3000"), ("unix: {path: /x}", "/x: ")]
    {
        std::fs::write(&file, text.replace("tcp: {port: 3000}", probe)).expect("write the file");
        project.ok(&up);
        project.wait_for("a failed start", || project.ok(&["events"]).contains(words));
    }
    project.down();
}

fn waiting_ends_and_says_what_is_missing(world: &World) {
    let project = Project::new(world, "wait");
    let (bundle, runtime) = (project.bundle(), programs::minirun());
    let paths = [bundle.to_str().expect("UTF-8"), runtime.to_str().expect("UTF-8")];
    // Never healthy: each check hangs, with a child, and is killed for it.
    let mut up = vec!["up", "--wait", "--wait-timeout", "2s", "--replicas", "2", "--name", "web"];
    up.extend(["--health-cmd", "sleep 7431; sleep 7432", "--health-timeout", "300ms"]);
    up.extend(["--health-interval", "100ms", "--runtime", paths[1], paths[0]]);
    let refused = project.minisup(&up).fails("2 of 2 replicas are not ready after 2s:");
    assert!(refused.errors.contains("  web.2: starting for"), "{}", refused.errors);
    // On a slow machine not one check was made in that time; a second call waits anew.
    project.wait_for("a check that was killed", || {
        project.minisup(&up).errors.contains("killed with all that it started")
    });
    let checks = || {
        let is_check = |words: &[String]| words.first().is_some_and(|word| word == "sleep");
        processes().filter(|(_, words)| is_check(words) && words[1].starts_with("743")).count()
    };
    // They do not pile up; of one that is being killed something may be left for a moment.
    project.wait_for("no more than a check for each of two replicas", || checks() <= 2);
    project.down();
    assert_eq!(checks(), 0);
}

fn images_run_and_share_their_layers(world: &World) {
    let project = Project::new(world, "image");
    let store = world.path("images");
    let store = store.to_str().expect("UTF-8");
    let root = project.bundle().join("rootfs");
    world
        .program(programs::rootfs_tools())
        .args(&["--store", store, "import", root.to_str().expect("UTF-8"), "web:v1"])
        .args(&["--entrypoint", "/bin/web", "--stop-signal", "INT"])
        .run()
        .exits(0);
    let runtime = programs::minirun();
    let publish = format!("127.0.0.1:{}:3000", project.port);
    let mut up = vec!["up", "-d", "--wait", "--replicas", "2", "--publish", &publish];
    up.extend(["--store", store, "--runtime", runtime.to_str().expect("UTF-8"), "web:v1"]);
    let words = project.ok(&up);
    assert!(words.contains("web: 2 of 2 ready at 127.0.0.1:"), "{words}");
    assert!(words.contains("next: minisup -P image-"), "{words}");
    let answer = Client::connect(project.port).and_then(|mut client| client.get("/"));
    assert!(answer.as_ref().is_ok_and(|text| text.contains("web v1 on web.")), "{answer:?}");
    let before = project.pids();
    project.ok(&up);
    assert_eq!(project.pids(), before, "the same image is no change");
    let writable = project.state_dir().join("writable");
    assert_eq!(std::fs::read_dir(&writable).expect("writable layers").count(), 2);
    let missing = ["up", "-d", "--store", store, "--pull", "never", "web:v9"];
    project.minisup(&missing).fails("the image web:v9 is not in the store");
    project.down();
}
