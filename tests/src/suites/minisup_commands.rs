//! What minisup's commands say about a project that runs.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::Value;

use super::minisup_keys::File;
use crate::project::{Project, kill};
use crate::traffic::Client;
use crate::world::World;
use crate::{Test, programs, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("use_is_told_at_once", use_is_told_at_once),
        test("a_death_is_explained", a_death_is_explained),
        test("a_killed_child_is_named", a_killed_child_is_named),
        test("commands_run_in_containers", commands_run_in_containers),
        test("a_paused_replica_is_left_alone", a_paused_replica_is_left_alone),
        test("a_plan_changes_nothing", a_plan_changes_nothing),
        test("rows_take_any_form", rows_take_any_form),
        test("a_history_is_replayed_elsewhere", a_history_is_replayed_elsewhere),
        test("waiting_is_for_what_was_asked", waiting_is_for_what_was_asked),
        test("what_is_built_runs", what_is_built_runs),
        test("the_api_describes_itself", the_api_describes_itself),
        test("a_unit_starts_the_project", a_unit_starts_the_project),
        test("an_answer_without_room_is_a_failure", an_answer_without_room_is_a_failure),
    ]
}

fn use_is_told_at_once(world: &World) {
    let project = Project::new(world, "stats");
    project.up_with(2, &["--memory", "64m", "--health-http", "3000/health"]);
    let stats: Value =
        serde_json::from_str(&project.ok(&["stats", "--no-stream", "--json"])).expect("JSON");
    assert_eq!(stats["stats"].as_array().map(Vec::len), Some(2), "{stats}");
    let latest = &stats["stats"][0]["latest"];
    assert_eq!(latest["limit_bytes"], 64 << 20, "{stats}");
    assert!(latest["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{stats}");
    assert!(latest["pids"].as_u64().is_some_and(|count| count > 0), "{stats}");
    let table = project.ok(&["stats", "--no-stream"]);
    assert!(table.contains("web.1.1") && table.contains("64.0 MiB"), "{table}");
    let mut client = Client::connect(project.port).expect("connect");
    (0..20).for_each(|_| drop(client.get("/").expect("an answer")));
    let counted: Value =
        serde_json::from_str(&project.ok(&["stats", "--no-stream", "--json"])).expect("JSON");
    let web = &counted["traffic"]["services"]["web"];
    assert_eq!((&web["requests"], &web["lost"]), (&20.into(), &0.into()), "{counted}");
    assert!(web["p99_us"].as_u64() >= web["p50_us"].as_u64(), "{counted}");
    let metrics = project.ok(&["metrics"]);
    assert!(metrics.contains("minisup_first_byte_seconds{service=\"web\",quantile=\"0.99\"}"));
    let ready = "minisup_replicas_ready{project=\"";
    assert!(metrics.lines().any(|line| line.starts_with(ready) && line.ends_with(" 2")));
    assert!(metrics.contains("minisup_memory_limit_bytes{instance=\"web.2.1\"} 67108864"));
    let registry: Value = serde_json::from_str(&project.ok(&["registry", "--json"])).expect("JSON");
    let instances = registry["services"]["web"]["instances"].as_object().expect("instances");
    assert!(instances.values().all(|entry| entry["route"] == "active"), "{registry}");
    assert_eq!(instances.len(), 2, "{registry}");
    project.down();
}

fn a_death_is_explained(world: &World) {
    let project = Project::new(world, "death");
    project.up(1);
    let before = project.pids();
    kill("-KILL", &before[0]);
    project.wait_for("a new replica", || {
        let now = project.pids();
        now.len() == 1 && now != before
    });
    let told = project.ok(&["explain", "web.1"]);
    for words in ["healthy is: GET :3000/health", "web.1: ready for", "killed by signal"] {
        assert!(told.contains(words), "{words:?} not in {told}");
    }
    let found = project.ok(&["autopsy", "web.1"]);
    for words in ["web.1.1 of revision", "killed by signal", "MEMORY", "web: listening on"] {
        assert!(found.contains(words), "{words:?} not in {found}");
    }
    assert!(project.ok(&["logs", "--previous"]).contains("web.1.1        | web: listening"));
    assert!(!project.ok(&["logs", "--previous"]).contains("web.1.2"));
    assert_eq!(project.ok(&["logs", "--tail", "1"]).lines().count(), 1);
    assert_eq!(project.ok(&["logs", "--since", "2999-01-01"]), "");
    project.minisup(&["explain", "wbe"]).fails("there is no service wbe; the project has web");
    project.down();
}

fn a_killed_child_is_named(world: &World) {
    let project = Project::new(world, "oom");
    project.up_with(1, &["--memory", "24m", "--health-http", "3000/health"]);
    let before = project.pids();
    // The pipe's end keeps all it reads in memory until the kernel ends it.
    let eater = "head -c 100000000 /dev/zero | tail -c 90000000 | head -c 1 >/dev/null; true";
    let command = project.minisup(&["exec", "web", "sh", "-c", eater]);
    assert_ne!(command.status, 1, "{command:?}");
    project.wait_for("the event", || project.ok(&["events", "web.1"]).contains("child-out-of-mem"));
    assert_eq!(project.pids(), before, "the container went on");
    // The same by the first process is the container's end, and named as such.
    let pid = &before[0];
    kill("-KILL", pid);
    project.wait_for("another", || project.pids().len() == 1 && project.pids() != before);
    let events = project.ok(&["events", "web.1"]);
    assert!(events.contains("killed by signal 9"), "not taken for memory again: {events}");
    project.down();
}

fn commands_run_in_containers(world: &World) {
    let project = Project::new(world, "exec");
    let etc = project.bundle().join("rootfs/etc");
    std::fs::create_dir_all(&etc).expect("make a directory");
    std::fs::write(etc.join("passwd"), "web:x:33:44::/tmp:/bin/sh\n").expect("write it");
    std::fs::write(etc.join("group"), "staff:x:50:web\n").expect("write it");
    project.up(2);
    assert_eq!(project.ok(&["exec", "web.2", "sh", "-c", "echo $MINISUP_SLOT"]), "web.2\n");
    project.minisup(&["exec", "web", "sh", "-c", "exit 7"]).exits(7);
    let script = "id -u; id -g; id -G; pwd; echo $WORD-$HOME_OF";
    let told = ["exec", "-T", "-u", "web", "-w", "/tmp", "-e", "WORD=one", "-e", "HOME_OF", "web"];
    let told = project.call(&told).args(&["sh", "-c", script]).env("HOME_OF", "ours").run();
    assert_eq!(told.exits(0).output, "33\n44\n44 50\n/tmp\none-ours\n");
    project.minisup(&["exec", "-u", "nobody", "web", "true"]).fails("has no user \"nobody\"");
    project.ok(&["exec", "-d", "web", "sleep", "4321"]);
    let is_there = || project.ok(&["exec", "web", "ps", "-o", "args"]).contains("sleep 4321");
    project.wait_for("the program in the background", is_there);
    project.minisup(&["exec", "web.9", "true"]).fails("there is no web.9; the project has web.1");
    let before = project.pids();
    assert_eq!(project.ok(&["kill", "web.1"]), "web.1.1\n");
    project.wait_for("its successor", || {
        project.ok(&["ps"]).contains("web.1.2") && project.pids().len() == 2
    });
    assert!(project.pids().contains(&before[1]), "the other was left alone");
    project.down();
}

fn a_paused_replica_is_left_alone(world: &World) {
    let project = Project::new(world, "pause");
    let often = ["--health-http", "3000/health", "--health-interval", "50ms"];
    project.up_with(1, &[&often[..], &["--health-timeout", "300ms"]].concat());
    let before = project.pids();
    project.ok(&["pause", "web.1"]);
    project.wait_for("probes that say so", || project.ok(&["events", "web.1"]).contains("paused"));
    // Many probes, each of which would fail.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_eq!(project.pids(), before, "it was not replaced");
    project.ok(&["unpause", "web.1"]);
    let answer = Client::connect(project.port).and_then(|mut client| client.get("/health"));
    assert_eq!(answer.as_deref(), Ok("ok\n"));
    assert_eq!(project.pids(), before);
    project.down();
}

fn a_plan_changes_nothing(world: &World) {
    let project = Project::new(world, "plan");
    let (bundle, runtime) = (project.bundle(), programs::minirun());
    let paths = [bundle.to_str().expect("UTF-8"), runtime.to_str().expect("UTF-8")];
    let plan = |replicas: &str, env: &str| {
        let publish = format!("127.0.0.1:{}:3000", project.port);
        let mut call = vec!["plan", "--name", "web", "--replicas", replicas, "--env", env];
        call.extend(["--publish", &publish, "--health-http", "3000/health"]);
        call.extend(["--runtime", paths[1], paths[0]]);
        project.minisup(&call)
    };
    let new = plan("2", "A=1").exits(2);
    assert!(new.output.contains("+ web: 2 replicas new"), "{}", new.output);
    project.is_gone();
    project.up_with(2, &["--health-http", "3000/health", "--env", "A=1"]);
    let before = project.pids();
    assert!(plan("2", "A=1").exits(0).output.contains("web: no change"));
    let more = plan("3", "A=2").exits(2);
    assert!(more.output.contains("~ web: 2 replicas replaced"), "{}", more.output);
    assert!(more.output.contains("env A differs"), "{}", more.output);
    assert_eq!(project.pids(), before);
    project.down();
}

fn rows_take_any_form(world: &World) {
    let project = Project::new(world, "rows");
    project.up(1);
    project.ok(&["kill", "web"]);
    // Until it is deleted the old one is there as well, as one that shall not run.
    project.wait_for("its successor alone", || {
        let rows = project.ok(&["ps", "--format", "{{.Instance}} {{.DesiredState}}"]);
        assert!(!rows.contains("web.1.2") || !rows.contains("web.1.1 running"), "{rows}");
        rows == "web.1.2 running\n" && project.pids().len() == 1
    });
    let swarm = project.ok(&["ps", "--all"]);
    let heading = swarm.lines().next().unwrap_or_default();
    assert!(heading.starts_with("ID") && heading.ends_with("PORTS"), "{swarm}");
    assert!(swarm.contains("\\_ web.1") && swarm.contains("killed by signal 9"), "{swarm}");
    let table = project.ok(&["ps", "--format", r"table {{.Name}}\t{{upper .DesiredState}}"]);
    assert_eq!(table, "NAME    DESIRED STATE\nweb.1   RUNNING\n");
    project.minisup(&["ps", "--format", "{{.Nam}}"]).fails("there is no field \"Nam\"");
    project.down();
}

fn a_history_is_replayed_elsewhere(world: &World) {
    let project = Project::new(world, "replay");
    project.up(2);
    project.ok(&["kill", "web.1"]);
    project.wait_for("its successor", || project.pids().len() == 2);
    let lines = world.path("events.jsonl");
    let text = project.ok(&["events", "--json"]);
    std::fs::write(&lines, &text).expect("write the events");
    project.down();
    let replayed = project.ok(&["replay", lines.to_str().expect("UTF-8")]);
    assert!(replayed.contains("3 launches, 1 exits"), "{replayed}");
    assert!(replayed.contains("web.2   ready for"), "{replayed}");
    let early = project.ok(&["replay", "--until", "3", lines.to_str().expect("UTF-8")]);
    assert!(early.contains("events 1 to 3: 0 launches"), "{early}");
    // Without its beginning a history does not fit together, and that is said.
    let cut: Vec<&str> = text.lines().skip(text.lines().count() / 2).collect();
    std::fs::write(&lines, cut.join("\n")).expect("write the events");
    project.minisup(&["replay", lines.to_str().expect("UTF-8")]).fails("is not known");
}

/// Old instances that are ready are not the new ones.
fn waiting_is_for_what_was_asked(world: &World) {
    let text =
        |more: &str| format!("services: {{web: {{image: ., deploy: {{replicas: 2}}, {more}}}}}\n");
    let file = File::new(world, "awaited", &text("init: false"));
    file.up().exits(0);
    file.write(&text("environment: {WORD: new}"));
    let said = file.up().exits(0).output;
    assert!(said.contains("web: 2 of 2 ready\n"), "{said}");
    let rows = file.0.ok(&["ps"]);
    let ready = |row: &&str| row.contains("ready for");
    let new = |row: &str| row.contains("web.1.2 ") || row.contains("web.2.2 ");
    assert!(rows.lines().filter(ready).all(new), "{rows}");
    // An update that fails stands still, and whoever waits is told.
    let before = file.0.pids();
    file.write(&text("command: [/bin/absent]"));
    let compose = file.0.bundle().join("compose.yaml");
    let (path, runtime) = (compose.to_str().expect("UTF-8"), programs::minirun());
    let up = ["up", "--wait", "--wait-timeout", "3s", "--file", path, "--runtime"];
    let up = [&up[..], &[runtime.to_str().expect("UTF-8")]].concat();
    file.0.minisup(&up).fails("2 of 2 replicas are not updated after 3s:");
    assert_eq!(file.0.pids(), before);
    file.0.down();
}

fn the_api_describes_itself(world: &World) {
    let project = Project::new(world, "api");
    project.up(1);
    let document: Value = serde_json::from_str(&ask(&project, "/v1/openapi.json")).expect("JSON");
    assert_eq!(document["openapi"], "3.1.0");
    for (path, methods) in document["paths"].as_object().expect("paths") {
        if methods.get("get").is_some() {
            assert!(!ask(&project, path).is_empty(), "{path}");
        }
    }
    assert!(ask(&project, "/v1/nothing").contains("there is no GET /v1/nothing"));
    let doctor = project.minisup(&["doctor"]);
    assert!(doctor.output.contains("the supervisor answers"), "{}", doctor.output);
    assert!(doctor.output.contains("the data plane follows"), "{}", doctor.output);
    project.down();
}

const CONTAINERFILE: &str = r#"
FROM scratch AS base
ARG WHO=nobody
COPY rootfs/bin /bin
RUN mkdir /tmp && test "$WHO" != wrong
ENV VERSION=$WHO
EXPOSE 3000
ENTRYPOINT ["/bin/web"]
FROM base AS other
ENV VERSION=other
"#;

fn what_is_built_runs(world: &World) {
    let file = File::new(world, "build", "services: {}\n");
    let (bundle, port) = (file.0.bundle(), file.0.port);
    std::fs::write(bundle.join("app.Dockerfile"), CONTAINERFILE).expect("write a file");
    let write = |who: &str| {
        let build =
            format!("{{context: ., dockerfile: app.Dockerfile, target: base, args: [WHO={who}]}}");
        let ports = format!("[\"127.0.0.1:{port}:3000\"]");
        file.write(&format!(
            "services: {{web: {{build: {build}, stop_signal: KILL, ports: {ports}}}}}\n"
        ));
    };
    let (store, runtime) = (world.path("images"), programs::minirun());
    let compose = bundle.join("compose.yaml");
    let [store, runtime, compose] =
        [&store, &runtime, &compose].map(|path| path.to_str().expect("UTF-8"));
    let up = |more: &[&str]| {
        let fixed = ["up", "-d", "--wait", "--store", store, "--runtime", runtime, "-f", compose];
        file.0.minisup(&[&fixed[..], more].concat())
    };
    let answer = || Client::connect(port).and_then(|mut client| client.get("/")).expect("one");
    write("one");
    let first = up(&[]).exits(0);
    assert!(first.errors.contains("COPY rootfs/bin /bin"), "{first:?}");
    assert!(answer().contains("web one on web.1"), "{}", answer());
    // What the store has is not built again, unless that is wanted.
    write("two");
    let pids = file.0.pids();
    assert_eq!(up(&[]).exits(0).errors, "");
    assert_eq!(file.0.pids(), pids);
    up(&["--build"]).exits(0);
    assert!(answer().contains("web two on web.1"), "{}", answer());
    write("wrong");
    let refused = up(&["--build"]);
    assert_ne!(refused.status, 0);
    assert!(refused.errors.contains("services.web.build: "), "{refused:?}");
    file.0.minisup(&["up", "-d", "--build", "web"]).fails("are for Compose files");
    assert!(answer().contains("web two on web.1"), "{}", answer());
    file.0.down();
}

/// The body of an answer of the project's API.
fn ask(project: &Project<'_>, path: &str) -> String {
    let mut stream = UnixStream::connect(project.api()).expect("the API's socket");
    let request = format!("GET {path} HTTP/1.0\r\nHost: minisup\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("ask");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.split_once("\r\n\r\n").expect("a head").1.to_owned()
}

fn a_unit_starts_the_project(world: &World) {
    let project = Project::new(world, "unit");
    let file = project.bundle().join("compose.yaml");
    std::fs::write(&file, "services: {web: {image: .}}\n").expect("write the file");
    let printed = project.ok(&["install", "--print", "--file", file.to_str().expect("UTF-8")]);
    assert!(printed.contains(&format!("--file \"{}\"", file.display())), "{printed}");
    assert!(printed.contains("WantedBy=multi-user.target"), "{printed}");
    // The command line of the unit is one that minisup takes.
    let start = printed.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a start");
    let words = start.split_whitespace().skip(3).map(|word| word.trim_matches('"'));
    let runtime = programs::minirun();
    let mut words: Vec<&str> = words.collect();
    words.extend(["--runtime", runtime.to_str().expect("UTF-8")]);
    assert!(project.ok(&words).contains("next: minisup"));
    project.down();
}

/// Of minirun, too.
fn an_answer_without_room_is_a_failure(world: &World) {
    for (program, verb) in
        [(programs::minisup(), "simulate --days 1"), (programs::minirun(), "features")]
    {
        let line = format!("{} {verb} >/dev/full", program.display());
        let ran = world.program("/bin/sh").args(&["-c", &line]).run().exits(1);
        assert!(ran.errors.contains("write to standard output: No space left"), "{ran:?}");
    }
}
