//! Another program takes a project over: containers go on, and no request is lost.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use crate::project::{Project, kill};
use crate::traffic::{Client, Traffic};
use crate::world::World;
use crate::{Test, programs, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("nobody_notices", nobody_notices),
        test("services_find_each_other", services_find_each_other),
        test("what_cannot_take_over", what_cannot_take_over),
        test("killed_on_the_way", killed_on_the_way),
        test("who_does_not_come_up", who_does_not_come_up),
    ]
}

/// The next version: the same program in another file.
fn next_version(world: &World) -> PathBuf {
    let next = world.path("minisup-next");
    std::fs::copy(programs::minisup(), &next).expect("copy minisup");
    next
}

/// The program of a role of the project.
fn program_of(project: &Project<'_>, role: &str) -> Option<PathBuf> {
    program_in(&project.role(role)?)
}

/// The program of a process.
fn program_in(pid: &str) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// The parent of a process.
fn parent(pid: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().to_string())
}

fn nobody_notices(world: &World) {
    let project = Project::new(world, "upgraded");
    project.up(3);
    let (pids, keeper) = (project.pids(), project.role("keeper"));
    let roles = || ["brain", "plane"].map(|role| project.role(role));
    let (before, next) = (roles(), next_version(world));
    let traffic = Traffic::begin(project.port, 5);
    // One that says nothing for now, and one that is answered when the new program is there.
    let mut idle = Client::connect(project.port).expect("connect");
    idle.get("/").expect("an answer");
    let mut slow = BufReader::new(TcpStream::connect(("127.0.0.1", project.port)).unwrap());
    slow.get_mut().write_all(b"GET /slow?ms=2000 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();

    let doctor = || project.call_of(&next, &["doctor"]).run().output;
    assert!(doctor().contains("has this one take over"), "{}", doctor());
    let said = project.call_of(&next, &["upgrade"]).run().exits(0).output;
    assert!(said.contains("containers went on"), "{said}");
    // The old brain may still be looking whether the new one is at work.
    project.wait_for("a supervisor of the new program", || {
        ["keeper", "brain"].iter().all(|role| program_of(&project, role).as_ref() == Some(&next))
    });
    idle.get("/").expect("an answer on a connection that was idle meanwhile");
    assert!(doctor().contains("data plane are of this program"), "{}", doctor());
    assert_eq!(project.role("keeper"), keeper, "the same process");
    assert_eq!(project.pids(), pids, "the same containers");
    for pid in &pids {
        assert_eq!(parent(pid), keeper, "and still their parent");
    }
    let answered = traffic.answered();
    project.wait_for("answers of the new data plane", || traffic.answered() > answered + 100);
    let mut status = String::new();
    slow.read_line(&mut status).expect("an answer");
    assert!(status.starts_with("HTTP/1.1 200"), "{status}");
    traffic.end();
    drop((idle, slow));
    project.wait_for("the end of the old data plane", || {
        before.iter().flatten().all(|pid| !crate::project::exists(pid))
    });
    assert_eq!(program_of(&project, "plane").as_deref(), Some(next.as_path()));

    // How a container ends is still known, and what it prints is still kept.
    kill("-KILL", &pids[0]);
    project.wait_for("a new replica", || {
        let now = project.pids();
        now.len() == 3 && !now.contains(&pids[0])
    });
    let events = project.ok(&["events"]);
    assert!(events.contains("SIGKILL") || events.contains("signal 9"), "{events}");
    // On a slow machine more than one may have been replaced.
    assert!(project.ok(&["logs"]).matches("listening on").count() >= 4);
    // And back again, at once.
    let said = project.ok(&["upgrade", "--all"]);
    assert_eq!(said.matches("containers went on").count(), 1, "{said}");
    project
        .wait_for("the old program", || program_of(&project, "brain") == Some(programs::minisup()));
    project.down();
}

/// One service asks for another's name and then the other, again and again.
const CHAIN: &str = r#"
services:
  front: {image: ., expose: [3000]}
  back: {image: ., expose: [3000], deploy: {replicas: 2}}
"#;

/// Prints what failed, and at the end how much did not.
const ASK: &str = r#"
end=$(($(date +%s) + 7)); good=0
while [ "$(date +%s)" -lt "$end" ]; do
  at=$(nslookup back | sed -n 's/^Address.*: //p' | tail -n 1)
  case "$at" in 10.*) ;; *) echo "no name"; continue;; esac
  answer=$(printf 'GET / HTTP/1.0\r\nHost: back\r\n\r\n' | nc -w 5 "$at" 3000)
  case "$answer" in *" 200 "*) good=$((good + 1));; *) echo "no answer: $answer";; esac
done
echo "good: $good"
"#;

fn services_find_each_other(world: &World) {
    let project = Project::new(world, "upchain");
    let etc = project.bundle().join("rootfs/etc");
    std::fs::create_dir_all(&etc).expect("make a directory");
    for empty in ["hosts", "resolv.conf"] {
        std::fs::write(etc.join(empty), "").expect("write a file");
    }
    let (file, runtime) = (project.bundle().join("compose.yaml"), programs::minirun());
    std::fs::write(&file, CHAIN).expect("write the file");
    let (file, runtime) = (file.to_str().expect("UTF-8"), runtime.to_str().expect("UTF-8"));
    project.ok(&["up", "-d", "--wait", "--file", file, "--runtime", runtime]);
    let asking = project.call(&["exec", "-T", "front", "sh", "-c", ASK]).spawn();
    project.ok(&["upgrade"]);
    let asked = asking.wait().ok();
    let good = asked.output.trim().strip_prefix("good: ").expect(&asked.output);
    assert!(good.parse::<u32>().expect("a number") > 2, "{asked:?}");
    project.down();
}

/// Asks a project's API by itself.
fn post(project: &Project<'_>, path: &str, body: &str) -> String {
    let mut stream = UnixStream::connect(project.api()).expect("connect");
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).expect("ask");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

fn what_cannot_take_over(world: &World) {
    let project = Project::new(world, "uprefused");
    project.up(1);
    let roles = || ["keeper", "brain", "plane"].map(|role| project.role(role));
    let before = roles();
    std::fs::write(world.path("nonsense"), "no program").expect("write a file");
    let nonsense = world.path("nonsense");
    let busybox = project.bundle().join("rootfs/bin/busybox");
    for (program, words) in [
        (world.path("absent"), "No such file"),
        (nonsense, "cannot be executed"),
        (busybox, "no minisup that can take over"),
        (world.path("web"), "cannot be executed"),
    ] {
        let body = serde_json::json!({ "program": program }).to_string();
        let answer = post(&project, "/v1/upgrade", &body);
        assert!(answer.starts_with("HTTP/1.1 409") && answer.contains(words), "{answer}");
    }
    assert!(post(&project, "/v1/upgrade", "{}").starts_with("HTTP/1.1 400"));
    assert_eq!(roles(), before, "nothing has changed");
    project.down();
}

fn killed_on_the_way(world: &World) {
    let project = Project::new(world, "upkilled");
    project.up(2);
    let (pids, next) = (project.pids(), next_version(world));
    let programs = [next, programs::minisup()];
    for round in 0..12 {
        let upgrade = project.call_of(&programs[round % 2], &["upgrade"]).spawn();
        // No moment is left out in the long run; which one it is does not matter here.
        std::thread::sleep(Duration::from_millis((round as u64 * 37) % 160));
        let role = ["keeper", "brain", "plane"][round % 3];
        project.role(role).iter().for_each(|pid| kill("-KILL", pid));
        drop(upgrade.wait()); // it may have failed, and says so
        project.wait_for("a brain that answers", || project.minisup(&["ps"]).status == 0);
        assert_eq!(project.pids(), pids, "round {round}, {role}: none lost, none doubled");
    }
    project.wait_for("a data plane", || {
        Client::connect(project.port).is_ok_and(|mut client| client.get("/").is_ok())
    });
    project.ok(&["upgrade"]);
    project.down();
}

/// What takes over and fails is followed by the program that was there before.
fn who_does_not_come_up(world: &World) {
    let project = Project::new(world, "upfails");
    project.up(2);
    let (pids, keeper) = (project.pids(), project.role("keeper"));
    let traffic = Traffic::begin(project.port, 2);
    // A keeper that ends at once.
    let body = serde_json::json!({ "program": programs::probe() }).to_string();
    let answer = post(&project, "/v1/upgrade", &body);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Until it is there the old brain answers, and waits: this is not over before.
    project.wait_for("another keeper, and its brain", || {
        let now = project.role("keeper");
        now.is_some()
            && now != keeper
            && project.role("brain").and_then(|brain| parent(&brain)) == now
            && project.minisup(&["ps"]).status == 0
    });
    assert_eq!(project.pids(), pids, "the same containers");

    // A keeper whose brain cannot read what the project is.
    let (keeper, next) = (project.role("keeper"), next_version(world));
    let (stack, aside) = (project.state_dir().join("stack.json"), world.path("stack.json"));
    let nonsense = world.path("nonsense.json");
    std::fs::copy(&stack, &aside).expect("copy it");
    std::fs::write(&nonsense, "nonsense").expect("write it");
    std::fs::rename(&nonsense, &stack).expect("put it there");
    let upgrade = project.call_of(&next, &["upgrade"]).spawn();
    project.wait_for("the end of the new program", || {
        // While it becomes the new program the old keeper has no words: no keeper is not another.
        let now = project.role("keeper").filter(|now| Some(now) != keeper.as_ref());
        now.is_some_and(|now| program_in(&now) == Some(programs::minisup()))
    });
    std::fs::rename(&aside, &stack).expect("put it back");
    upgrade.wait().fails("the old one goes on");
    assert_eq!(project.pids(), pids, "the same containers");
    traffic.end();
    project.down();
}
