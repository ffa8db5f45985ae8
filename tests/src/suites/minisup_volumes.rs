//! Volumes, secrets and configs that are on the host, as the containers see them.

use std::fs;
use std::os::unix::fs::symlink;

use super::minisup_keys::File;
use crate::world::World;
use crate::{Test, programs, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("they_are_what_the_file_says", they_are_what_the_file_says),
        test("a_part_of_a_volume_stays_inside", a_part_of_a_volume_stays_inside),
        test("what_cannot_be_is_refused", what_cannot_be_is_refused),
        test("a_plan_makes_nothing", a_plan_makes_nothing),
    ]
}

fn they_are_what_the_file_says(world: &World) {
    let file = File::new(world, "volumes", "");
    let there = world.path("there");
    fs::create_dir(&there).expect("make a directory");
    fs::write(there.join("page"), "bound").expect("write a file");
    for (kind, text) in [("secrets", "hush"), ("configs", "level: 3")] {
        let dir = world.path(&format!("minisup-state/{kind}.d"));
        fs::create_dir_all(&dir).expect("make a directory");
        fs::write(dir.join("everyones"), text).expect("write a file");
    }
    let device = there.display();
    let read_only = "type: bind, source: ./made, read_only: true";
    file.write(&format!(
        "services:
  web:
    image: .
    tmpfs: [/m]
    volumes:
      - bound:/m/bound
      - {{type: volume, source: own, target: /m/part, volume: {{subpath: a/b}}}}
      - {{{read_only}, target: /m/made, bind: {{create_host_path: true, recursive: writable}}}}
    secrets: [{{source: hidden, target: /m/hidden}}]
    configs: [{{source: shown, target: /m/shown}}]
volumes:
  bound: {{driver_opts: {{type: none, o: \"bind,ro\", device: {device}}}}}
  own: {{}}
secrets: {{hidden: {{external: true, name: everyones}}}}
configs: {{shown: {{external: true, name: everyones}}}}
"
    ));
    file.up().exits(0);
    let read = file.sh("web", "cat /m/bound/page /m/hidden /m/shown");
    assert_eq!(read, "boundhushlevel: 3");
    let refused = |path: &str| file.sh("web", &format!("touch {path}/x 2>&1 || true"));
    assert!(refused("/m/bound").contains("Read-only"), "{}", refused("/m/bound"));
    assert!(refused("/m/made").contains("Read-only"), "{}", refused("/m/made"));
    assert!(file.0.bundle().join("made").is_dir());
    file.sh("web", "echo kept > /m/part/it");
    let own = world.path("minisup-state/volumes.d").join(file.0.volume("own"));
    assert_eq!(fs::read_to_string(own.join("a/b/it")).expect("it is there"), "kept\n");
    // The same file again changes nothing, though what was made is there by now.
    let before = file.0.pids();
    file.up().exits(0);
    assert_eq!(file.0.pids(), before);
    file.0.ok(&["down", "--volumes"]);
    file.0.is_gone();
    assert!(!own.exists());
    assert!(there.join("page").exists(), "what is bound is not ours to remove");
    assert!(world.path("minisup-state/secrets.d/everyones").exists());
}

/// Who may write to the whole volume puts a link where another service's part is.
fn a_part_of_a_volume_stays_inside(world: &World) {
    let file = File::new(world, "part", "");
    let outside = world.path("outside");
    fs::create_dir(&outside).expect("make a directory");
    file.write(
        "services:
  web:
    image: .
    tmpfs: [/m]
    volumes: [{type: volume, source: own, target: /m/part, volume: {subpath: a}}]
volumes: {own: {}}
",
    );
    let own = world.path("minisup-state/volumes.d").join(file.0.volume("own"));
    fs::create_dir_all(&own).expect("make the volume");
    symlink(&outside, own.join("a")).expect("make a link");
    let (path, runtime) = (file.0.bundle().join("compose.yaml"), programs::minirun());
    let mut up = vec!["up", "-d", "--file", path.to_str().expect("UTF-8")];
    up.extend(["--runtime", runtime.to_str().expect("UTF-8")]);
    file.0.ok(&up);
    let refused = || file.0.ok(&["events", "web.1"]).contains("a in /");
    file.0.wait_for("a start that is refused", refused);
    fs::remove_file(own.join("a")).expect("remove the link");
    file.0.wait_for("the start", || file.0.pids().len() == 1);
    file.sh("web", "touch /m/part/x");
    assert!(own.join("a/x").exists());
    assert!(fs::read_dir(&outside).expect("it is there").next().is_none());
    file.0.ok(&["down", "--volumes"]);
    file.0.is_gone();
}

fn what_cannot_be_is_refused(world: &World) {
    let file = File::new(world, "refused", "");
    for (volume, message) in [
        ("{name: ../../../etc}", "`../../../etc` cannot be a name"),
        ("{name: /etc}", "`/etc` cannot be a name"),
        ("{external: true}", "does not exist"),
        ("{driver_opts: {type: nfs, o: addr=192.0.2.1, device: \":/x\"}}", "not those of a bind"),
        ("{driver_opts: {type: none, o: bind, device: /no/such}}", "there is no /no/such"),
    ] {
        file.write(&format!(
            "services:\n  web: {{image: ., volumes: [\"data:/tmp\"]}}\nvolumes:\n  data: {volume}\n"
        ));
        let refused = file.up().fails(message);
        assert!(refused.errors.contains("compose.yaml:"), "{volume}: {}", refused.errors);
    }
    file.write("services:\n  web: {image: ., secrets: [key]}\nsecrets: {key: {external: true}}\n");
    let refused = file.up().fails("key is external");
    assert!(refused.errors.contains("install -D -m 600 FILE"), "{}", refused.errors);
    file.0.is_gone();
}

fn a_plan_makes_nothing(world: &World) {
    let file = File::new(world, "plan", "");
    file.write(
        "services:\n  web: {image: ., volumes: [\"data:/tmp\", \"./made:/dev\", /m]}\n\
         volumes: {data: {}}\n",
    );
    let path = file.0.bundle().join("compose.yaml");
    let planned = file.0.minisup(&["plan", "--file", path.to_str().expect("UTF-8")]);
    assert!(planned.exits(2).output.contains("1 changes"));
    assert!(!file.0.bundle().join("made").exists());
    assert!(!world.path("minisup-state").exists());
    file.0.is_gone();
}
