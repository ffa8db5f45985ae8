//! What annotations take away from a container beyond the specification: Landlock.

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::world::World;
use crate::{Test, test};

const LANDLOCK: &str = "org.minirun.landlock";

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("landlock_of_files", landlock_of_files),
        test("landlock_of_ports", landlock_of_ports),
        test("landlock_rules_that_are_none", landlock_rules_that_are_none),
        test("features_and_check_tell", features_and_check_tell),
    ]
}

/// The version of Landlock in this kernel, 0 without.
fn version(world: &World) -> u32 {
    let features = world.run(&["features"]).ok().json();
    let text = features["annotations"][LANDLOCK].as_str().expect("it is listed").to_owned();
    text.strip_prefix("version ").map_or(0, |number| number.parse().expect("a number"))
}

fn ruled(bundle: Bundle, rules: &Value) -> Bundle {
    bundle.set("/annotations", json!({LANDLOCK: rules.to_string()}))
}

fn landlock_of_files(world: &World) {
    let script = "cat /etc/open; cat /etc/closed/secret 2>/dev/null || echo closed
        echo yes >/tmp/file && cat /tmp/file; echo no 2>/dev/null >/root/file || echo refused
        /tmp/sh -c 'echo ran' 2>/dev/null || echo cannot run";
    let bundle = world
        .bundle("c")
        .shell(script)
        .set("/root/readonly", json!(false))
        .file("etc/open", "open\n", 0o644)
        .file("etc/closed/secret", "secret\n", 0o644);
    std::fs::copy(bundle.rootfs("bin/busybox"), bundle.rootfs("tmp/sh")).expect("copy it");
    let rules = json!({
        "execute": ["/bin"],
        "read": ["/etc/open"],
        "write": ["/tmp/file", "/dev/null"],
    });
    let bundle = ruled(bundle, &rules).file("tmp/file", "", 0o644);
    if version(world) == 0 {
        world.run(&["run", bundle.path()]).fails("Landlock");
        return;
    }
    let said = "open\nclosed\nyes\nrefused\ncannot run\n";
    world.run(&["run", bundle.path()]).ok().prints(said);
    // Also without no_new_privs, as another user, and for whoever comes in later.
    let bundle = bundle.set("/process/noNewPrivileges", json!(false));
    world.run(&["run", bundle.path()]).ok().prints(said);
    let bundle = bundle.args(&["/bin/probe", "wait"]);
    world.run(&["run", "-d", bundle.path()]).ok();
    let exec = ["exec", "c", "/bin/sh", "-c", "cat /etc/closed/secret"];
    world.run(&exec).exits(1).says("Permission denied");
    world.run(&["delete", "-f", "c"]).ok();
}

fn landlock_of_ports(world: &World) {
    let script = "nc -l -p 8080 >/dev/null & sleep 0.2; echo hi | nc 127.0.0.1 8080 && echo called
        wait; nc -l -p 8081 </dev/null 2>&1 | grep -o 'Permission denied'";
    let rules = json!({"execute": ["/"], "write": ["/dev"], "bindTcp": [8080]});
    let bundle = ruled(world.bundle("c").shell(script), &rules);
    match version(world) {
        0 => drop(world.run(&["run", bundle.path()]).fails("Landlock")),
        1..=3 => drop(world.run(&["run", bundle.path()]).fails("has no ports")),
        _ => drop(world.run(&["run", bundle.path()]).ok().prints("called\nPermission denied\n")),
    }
}

fn landlock_rules_that_are_none(world: &World) {
    for (rules, said) in [
        ("yes", "landlock"),
        (r#"{"raed": ["/"]}"#, "unknown field"),
        (r#"{"read": ["etc"]}"#, "not an absolute path"),
        (r#"{"bindTcp": [65536]}"#, "65536"),
    ] {
        let dir = format!("c{}", rules.len());
        let bundle = world.bundle(&dir).set("/annotations", json!({LANDLOCK: rules}));
        world.run(&["run", bundle.path()]).fails(said);
        world.run(&["state", &dir]).fails("does not exist");
    }
    if version(world) > 0 {
        let rules = json!({"execute": ["/"], "read": ["/nowhere"]});
        let bundle = ruled(world.bundle("missing"), &rules);
        world.run(&["run", bundle.path()]).fails("ENOENT").says("a path that the container lacks");
    }
    let annotation = json!({"org.minirun.core-scheduling": "perhaps"});
    let bundle = world.bundle("cores").set("/annotations", annotation);
    world.run(&["run", bundle.path()]).fails("neither true nor false");
}

fn features_and_check_tell(world: &World) {
    let features = world.run(&["features"]).ok().json();
    assert_eq!(features["annotations"]["org.minirun.core-scheduling"], "true, false");
    let rules = json!({"execute": ["/bin"], "read": ["/etc"]});
    let bundle = ruled(world.bundle("c"), &rules);
    let ran = world.run(&["check", bundle.path()]);
    assert!(ran.output.contains("Landlock        nothing but what is below 2 paths"), "{ran:?}");
    assert_eq!(ran.output.contains("missing: Landlock"), version(world) == 0, "{ran:?}");
}
