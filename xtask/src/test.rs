//! `cargo xtask test`: everything that can be tested, here and in guests.
//!
//! ```text
//! packages      what the tests need of Debian, installed if it is missing
//! unit          cargo test --workspace, and those tests of it that need more than a compiler
//! native        real containers on this host: the program minirun-tests
//! guest 6.1     the same program, unchanged, in QEMU with that kernel and cgroup v2
//! guest 6.12    and once more with systemd, for what users are delegated
//! ```
//! Near the end is the sum: `N passed, N failed, N skipped`. What was skipped was named where it
//! was skipped, with what it needs. What failed is shown once more behind the sum, because a log is
//! read from its end.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use linux::credentials::effective_user;

use crate::programs::{build, run as call, workspace};

/// The guests: the kernel, what is in it, and which tests (all when empty). The one with systemd
/// runs those that the others cannot.
const GUESTS: [(&str, &str, &str); 3] =
    [("6.1", "quick", ""), ("6.12", "quick", ""), ("6.12", "full", "rootless::")];
/// How long a test that goes on until its time is over may do so in a guest, in seconds.
const GUEST_SECONDS: &str = "3";

/// A file that a Debian package brings, and the package.
const NEEDED: &[(&str, &str)] = &[
    ("/bin/busybox", "busybox-static"),
    ("/usr/bin/newuidmap", "uidmap"),
    ("/usr/bin/pasta", "passt"),
    ("/usr/bin/python3", "python3"),
    ("/usr/bin/setfattr", "attr"),
    ("/usr/bin/setpriv", "util-linux"),
    ("/usr/bin/skopeo", "skopeo"),
    ("/usr/bin/strace", "strace"),
    ("/usr/bin/umoci", "umoci"),
    ("/usr/bin/vagrant", "vagrant"),
    ("/usr/share/vagrant-plugins/plugins.d/vagrant-libvirt.json", "vagrant-libvirt"),
    ("/usr/lib/x86_64-linux-gnu/libseccomp.so.2", "libseccomp2"),
    ("/usr/sbin/ip", "iproute2"),
];

/// Tests that `cargo test` leaves out because of what they need: the package, what is built of it,
/// its name (the library has none), the tests.
const DEMANDING: [(&str, &str, &str, &str); 3] = [
    ("minirun", "--test", "seccomp_differential", ""),
    ("network", "--test", "hosts", "rootless"),
    ("vm", "--test", "vagrant", ""),
];
/// The same, of those that need root besides.
const PRIVILEGED: [(&str, &str, &str, &str); 3] = [
    ("minisup", "--lib", "", "discovery::"),
    ("minisup", "--lib", "", "plane::"),
    ("minisup", "--test", "names", ""),
];

pub(crate) fn run() -> Result<()> {
    let mut sum = Sum::default();
    install()?;
    heading("building");
    let artefacts = artefacts(&["minirun", "rootfs-tools", "minisup", "web", "leak"])?;

    heading("unit");
    let mut units = Command::new(cargo_program());
    units.current_dir(workspace()).args(["test", "--workspace", "--no-fail-fast"]);
    sum.add("unit", watch("", &mut units)?);
    let privileged = PRIVILEGED.iter().filter(|_| effective_user() == 0);
    for (package, kind, target, name) in DEMANDING.iter().chain(privileged) {
        let mut tests = Command::new(cargo_program());
        tests.current_dir(workspace()).args(["test", "--package", package, kind]);
        tests.args([target, name].iter().filter(|word| !word.is_empty()));
        let part = if target.is_empty() { package } else { target };
        sum.add(part, watch("", tests.args(["--", "--ignored"]))?);
    }
    if effective_user() == 0 {
        heading("native");
        let mut native = Command::new(artefacts.join("minirun-tests"));
        native.env("MINIRUN_SOURCE", workspace());
        sum.add("native", watch("", &mut native)?);
    } else {
        sum.skip("native", "containers with limits need root: run this with sudo as well");
    }
    heading("guests");
    // Two at a time: each has one processor.
    let (first, others) = (GUESTS[0], &GUESTS[1..]);
    let shown = artefacts.clone();
    let beside = std::thread::spawn(move || guest(first, &shown));
    for one in others {
        sum.add(&name_of(*one), guest(*one, &artefacts)?);
    }
    let outcome = beside.join().map_err(|_| anyhow::anyhow!("the guest's thread ended"))?;
    sum.add(&name_of(first), outcome?);
    sum.tell()
}

fn heading(text: &str) {
    println!("\n== {text}");
}

fn cargo_program() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}

fn cargo(arguments: &[&str]) -> Result<()> {
    call(Command::new(cargo_program()).current_dir(workspace()).args(arguments))
}

/// Installs what is missing, or names it.
fn install() -> Result<()> {
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(file, _)| !Path::new(file).exists())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if effective_user() != 0 || !Path::new("/usr/bin/apt-get").exists() {
        bail!("the tests need programs of these Debian packages: {list}");
    }
    heading(&format!("installing {list}"));
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(["-q", "-y", "--no-install-recommends"]).args(arguments);
        call(command.env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null()))
    };
    let install: Vec<&str> = std::iter::once("install").chain(missing).collect();
    // Fresh lists are fetched only when the old ones do not do.
    apt(&install).or_else(|_| apt(&["update"]).and_then(|()| apt(&install)))
}

/// Builds these programs, the tests and the guests' own program, and puts everything that a guest
/// needs into one directory, which it is shown.
pub(crate) fn artefacts(programs: &[&str]) -> Result<PathBuf> {
    let release = build(programs)?;
    let debug = release.with_file_name("debug");
    cargo(&["build", "--package", "minirun-tests", "--package", "vm"])?;
    let target = release.parent().context("the target directory")?;
    let directory = target.join("suite");
    if directory.exists() {
        fs::remove_dir_all(&directory).context("empty the directory of artefacts")?;
    }
    fs::create_dir_all(directory.join("source")).context("make the directory of artefacts")?;
    for name in programs {
        fs::copy(release.join(name), directory.join(name))
            .with_context(|| format!("copy {name}"))?;
    }
    for name in ["minirun-tests", "probe", "cri", "vm"] {
        fs::copy(debug.join(name), directory.join(name)).with_context(|| format!("copy {name}"))?;
    }
    // The lessons are read from the source; a guest is shown this directory and no other.
    let source = workspace().join("runtime");
    copy_tree(&source, &directory.join("source/runtime"))?;
    Ok(directory)
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_tree(&entry.path(), &target)?,
            false => drop(fs::copy(entry.path(), target)?),
        }
    }
    Ok(())
}

fn name_of((kernel, profile, _): (&str, &str, &str)) -> String {
    format!("guest {kernel} {profile}")
}

fn guest(which: (&str, &str, &str), artefacts: &Path) -> Result<Outcome> {
    let (kernel, profile, filter) = which;
    let mut command = Command::new(artefacts.join("vm"));
    command
        .args(["run", "--kernel", kernel, "--profile", profile, "--memory", "1536"])
        .args(["--timeout", "2700", "--env", &format!("MINIRUN_TESTS_SECONDS={GUEST_SECONDS}")])
        .arg("--share")
        .arg(artefacts)
        .arg("--")
        .arg(artefacts.join("minirun-tests"));
    if !filter.is_empty() {
        command.arg(filter);
    }
    watch(&format!("[{kernel} {profile}] "), &mut command)
}

/// What one program of tests reported.
#[derive(Debug, Default)]
struct Outcome {
    passed: u64,
    failed: u64,
    skipped: u64,
    /// It ended with a failure.
    broken: bool,
    /// What it said of tests that failed.
    complaints: Vec<String>,
    /// Whether it is saying such things.
    complains: bool,
    /// Its last lines, for a program that ends without a word.
    last: VecDeque<String>,
}

/// How many of a program's last lines are kept.
const LAST: usize = 25;

/// Runs a program of tests, shows what it says, each line behind `prefix`, and counts.
fn watch(prefix: &str, command: &mut Command) -> Result<Outcome> {
    let shown = format!("{command:?}");
    let (output, end) = std::io::pipe().context("make a pipe")?;
    command.stdout(end.try_clone().context("a second end of the pipe")?).stderr(end);
    let mut child = command.spawn().with_context(|| format!("run {shown}"))?;
    // The ends that the command keeps would be waited for.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut outcome = Outcome::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.with_context(|| format!("read what {shown} says"))?;
        let line = String::from_utf8_lossy(&line);
        outcome.hear(&line);
        writeln!(std::io::stdout(), "{prefix}{line}").context("write to standard output")?;
    }
    outcome.broken = !child.wait().with_context(|| format!("wait for {shown}"))?.success();
    Ok(outcome)
}

impl Outcome {
    /// Takes in a line of the program.
    fn hear(&mut self, line: &str) {
        self.complains |= line == "failures:";
        if self.complains && !line.is_empty() {
            self.complaints.push(line.to_string());
        }
        self.last.extend([line.to_string()]);
        if self.last.len() > LAST {
            self.last.pop_front();
        }
        self.count(line);
    }

    /// Counts a line such as `test result: ok. 4 passed; 0 failed; 1 ignored; …`.
    fn count(&mut self, line: &str) {
        let Some((_, counts)) =
            line.split_once("test result: ").and_then(|(_, rest)| rest.split_once(". "))
        else {
            return;
        };
        self.complains = false;
        for part in counts.split("; ") {
            let mut words = part.split(' ');
            let number = words.next().and_then(|word| word.parse::<u64>().ok());
            match (number, words.next()) {
                (Some(number), Some("passed")) => self.passed += number,
                (Some(number), Some("failed")) => self.failed += number,
                (Some(number), Some("ignored")) => self.skipped += number,
                _ => {}
            }
        }
    }
}

/// The outcomes of all parts.
#[derive(Debug, Default)]
struct Sum {
    lines: Vec<String>,
    passed: u64,
    failed: u64,
    skipped: u64,
    /// What failed, with what was said of it.
    failures: Vec<String>,
}

impl Sum {
    fn add(&mut self, part: &str, mut outcome: Outcome) {
        if outcome.broken && outcome.failed == 0 {
            // It did not get as far as to say which test.
            outcome.failed = 1;
            outcome.complaints = outcome.last.into();
        }
        let Outcome { passed, failed, skipped, complaints, .. } = outcome;
        self.lines
            .push(format!("{part:<18} {passed:>5} passed {failed:>3} failed {skipped:>3} skipped"));
        self.passed += passed;
        self.failed += failed;
        self.skipped += skipped;
        if failed > 0 {
            self.failures.push(format!("\n== failed: {part}"));
            self.failures.extend(complaints);
        }
    }

    fn skip(&mut self, part: &str, why: &str) {
        self.lines.push(format!("{part:<18} skipped: {why}"));
        self.skipped += 1;
    }

    fn tell(&self) -> Result<()> {
        heading("summary");
        for line in &self.lines {
            println!("{line}");
        }
        let Self { passed, failed, skipped, .. } = self;
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        for line in &self.failures {
            println!("{line}");
        }
        match failed {
            0 => Ok(()),
            _ => bail!("{failed} tests failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_counted() {
        let mut outcome = Outcome::default();
        outcome.count("running 3 tests");
        outcome
            .count("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out");
        outcome.count("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured");
        assert_eq!((outcome.passed, outcome.failed, outcome.skipped), (15, 2, 1));
    }

    #[test]
    fn failures_are_said_again() {
        let mut sum = Sum::default();
        let mut outcome = Outcome::default();
        let said = ["test a ... ok", "failures:", "", "---- b ----", "it broke", "failures:"];
        said.iter().for_each(|line| outcome.hear(line));
        outcome.hear("test result: FAILED. 1 passed; 1 failed; 0 ignored");
        outcome.hear("something else");
        outcome.broken = true;
        sum.add("unit", outcome);
        let again = ["\n== failed: unit", "failures:", "---- b ----", "it broke", "failures:"];
        assert_eq!(sum.failures[..5], again);
        let mut dumb = Outcome { broken: true, ..Outcome::default() };
        (0..99).for_each(|number| dumb.hear(&format!("line {number}")));
        sum.add("guest", dumb);
        assert_eq!(sum.failed, 2);
        assert_eq!(sum.failures.last().map(String::as_str), Some("line 98"));
    }
}
