//! The lessons at the head of the runtime's files: the lines under *By hand* must work.
//!
//! Each block runs as one script, as root, in a mount namespace of its own; every line must
//! succeed. So a lesson that has become wrong fails here.

use std::path::Path;

use crate::needs::Need;
use crate::world::World;
use crate::{Test, programs, test};

pub(super) fn tests() -> Vec<Test> {
    let Some(source) = programs::source() else {
        return vec![test("all", |_| {}).needs(Need::Source)];
    };
    let mut tests = Vec::new();
    for directory in ["steps", "cgroup"] {
        for file in rust_files(&source.join("runtime/src").join(directory)) {
            let text = std::fs::read_to_string(&file).expect("a source file");
            let Some(script) = by_hand(&text) else { continue };
            let stem = file.file_stem().expect("a name").to_string_lossy().into_owned();
            let mut test = test(format!("{directory}_{stem}"), {
                let script = script.clone();
                move |world| run(world, &script)
            });
            if script.contains("/sys/fs/cgroup/pids/") {
                test = test.needs(Need::CgroupV1);
            } else if script.contains("/sys/fs/cgroup/") {
                test = test.needs(Need::CgroupV2);
            }
            tests.push(test);
        }
    }
    assert!(tests.len() > 10, "the lessons have moved: {}", tests.len());
    tests
}

fn rust_files(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a directory").flatten();
    let paths = entries.map(|entry| entry.path());
    let mut files: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|end| end == "rs")).collect();
    files.sort();
    files
}

/// The lines of the `sh` blocks under the heading *By hand*.
fn by_hand(source: &str) -> Option<String> {
    let doc = source.lines().map_while(|line| line.strip_prefix("//!"));
    let mut script = String::new();
    let (mut heading, mut block) = (false, false);
    for line in doc {
        let line = line.strip_prefix(' ').unwrap_or(line);
        if line.starts_with("# ") && !block {
            heading = line == "# By hand";
        } else if heading && line == "```sh" {
            block = true;
        } else if block && line == "```" {
            block = false;
        } else if block {
            script.push_str(line);
            script.push('\n');
        }
    }
    (!script.is_empty()).then_some(script)
}

fn run(world: &World, script: &str) {
    let script = format!("set -e\n{script}");
    let unshare = programs::find("unshare").expect("util-linux");
    let ran = world
        .program(unshare)
        .args(&["--mount", "--propagation", "private", "sh", "-c", &script])
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .run();
    assert_eq!(ran.status, 0, "{script}\nprinted {}{}", ran.output, ran.errors);
}
