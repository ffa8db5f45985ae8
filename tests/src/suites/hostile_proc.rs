//! Images that bring a `/proc` of their own, and processes that were given less than they look for.

use std::path::PathBuf;

use serde_json::json;

use crate::bundle::Bundle;
use crate::pty::Pty;
use crate::world::World;
use crate::{Test, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("parameters_go_to_the_real_procfs", parameters_go_to_the_real_procfs),
        test("attributes_need_no_procfs", attributes_need_no_procfs),
        test("no_terminal_of_the_caller", no_terminal_of_the_caller),
    ]
}

/// A directory that looks like a procfs, with files that must stay as they are.
struct Fake(PathBuf);

const FILES: [&str; 4] =
    ["sys/kernel/domainname", "sys/kernel/msgmax", "self/attr/exec", "self/oom_score_adj"];

impl Fake {
    fn new(world: &World) -> Self {
        let dir = world.path("proc");
        for file in FILES {
            let file = dir.join(file);
            std::fs::create_dir_all(file.parent().expect("a directory")).expect("make it");
            std::fs::write(file, "untouched").expect("write a file");
        }
        Self(dir)
    }

    /// The bundle with this in the place of its procfs.
    fn over(&self, bundle: Bundle) -> Bundle {
        let source = self.0.to_str().expect("UTF-8").to_owned();
        bundle
            .without_mount("/proc")
            .set("/linux/maskedPaths", json!([]))
            .set("/linux/readonlyPaths", json!([]))
            .mount("/proc", "bind", &source, &["rbind"])
    }

    #[track_caller]
    fn is_untouched(&self) {
        for file in FILES {
            let text = std::fs::read_to_string(self.0.join(file)).expect("it is there");
            assert_eq!(text, "untouched", "{file}");
        }
    }
}

/// CVE-2025-52881: what is written to a kernel parameter goes to a file of the image's choice.
fn parameters_go_to_the_real_procfs(world: &World) {
    let fake = Fake::new(world);
    let script = "mount -t proc proc /tmp && cat /tmp/sys/kernel/msgmax /tmp/sys/kernel/domainname \
                  /tmp/self/oom_score_adj";
    let caps = json!(["CAP_SYS_ADMIN"]);
    let bundle = fake
        .over(world.bundle("c"))
        .shell(script)
        .unset("/linux/seccomp")
        .set("/linux/sysctl", json!({"kernel.msgmax": "4444", "kernel.domainname": "inside"}))
        .set("/process/oomScoreAdj", json!(55))
        .set(
            "/process/capabilities",
            json!({"bounding": caps, "effective": caps,
            "permitted": caps}),
        );
    world.run(&["run", bundle.path()]).ok().prints("4444\ninside\n55\n");
    fake.is_untouched();
}

/// CVE-2026-115521: a mount became read-only only through `/proc/self/fd` of the container.
fn attributes_need_no_procfs(world: &World) {
    let fake = Fake::new(world);
    let data = world.path("data");
    std::fs::create_dir(&data).expect("make a directory");
    let bundle = fake
        .over(world.bundle("c"))
        .mount("/data", "bind", data.to_str().expect("UTF-8"), &["rbind", "ro"])
        .set("/root/readonly", json!(true))
        .set("/linux/readonlyPaths", json!(["/bin"]))
        .shell("for d in /data /bin /tmp; do touch $d/x 2>/dev/null || echo refused; done");
    world.run(&["run", bundle.path()]).ok().prints("refused\nrefused\nrefused\n");
    fake.is_untouched();
}

/// What is typed into a terminal that the container shared would be typed by its caller (TIOCSTI).
fn no_terminal_of_the_caller(world: &World) {
    let script = "if (: 3<>/dev/tty); then echo mine; else echo none; fi; echo end";
    let bundle = world.bundle("c").shell(script);
    let (mut pty, slave) = Pty::open(20, 80);
    let running = world.minirun(&["run", bundle.path()]).spawn_on(&slave);
    let shown = pty.read_until("end\r\n");
    assert!(shown.contains("none\r\n") && !shown.contains("mine"), "{shown}");
    running.wait().exits(0);
}
