//! `cargo xtask demo`: from a fresh clone to a container that runs a real program under a real
//! memory limit, with every step shown.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use linux::credentials::effective_user;

use crate::ask;
use crate::programs::{build, output_of, run as call, workspace};

/// How long a container may take to answer; a busy machine is slow, a broken one does not answer.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn run() -> Result<()> {
    check_host()?;
    heading("Building minirun, rootfs-tools, minisup and the example applications");
    let programs = build(&["minirun", "rootfs-tools", "minisup", "web", "leak"])?;
    let demo = Demo::new(programs)?;
    heading("Making an image of each application, and a bundle of each image");
    demo.bundle("web", &demo.bundle_dir())?;
    demo.bundle("leak", &demo.leak_dir())?;
    let limited = demo.can_limit()?;
    demo.serve(limited)?;
    if limited {
        demo.leak()?;
    }
    demo.what_next(limited);
    Ok(())
}

/// Says plainly what is missing, before anything is built.
fn check_host() -> Result<()> {
    let spaces = Path::new("/proc/self/ns");
    for (file, name) in [("pid", "PID"), ("mnt", "mount"), ("net", "network"), ("user", "user")] {
        if !spaces.join(file).exists() {
            bail!("this kernel has no {name} namespaces: minirun cannot build containers on it");
        }
    }
    if effective_user() == 0 {
        return Ok(());
    }
    let allowed = |file: &str| fs::read_to_string(file).map_or(true, |text| text.trim() != "0");
    if !allowed("/proc/sys/kernel/unprivileged_userns_clone")
        || !allowed("/proc/sys/user/max_user_namespaces")
    {
        bail!(
            "you are not root, and this host gives user namespaces to root only: run this with \
             sudo, or set the sysctl kernel.unprivileged_userns_clone=1"
        );
    }
    Ok(())
}

struct Demo {
    programs: PathBuf,
    work: PathBuf,
}

impl Demo {
    fn new(programs: PathBuf) -> Result<Self> {
        let work = workspace().join("target").join("demo");
        fs::create_dir_all(&work).with_context(|| format!("make {}", work.display()))?;
        Ok(Self { programs, work })
    }

    fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    fn minirun(&self) -> Command {
        Command::new(self.program("minirun"))
    }

    fn bundle_dir(&self) -> PathBuf {
        workspace().join("bundle")
    }

    fn leak_dir(&self) -> PathBuf {
        self.work.join("leak-bundle")
    }

    /// One static program, a password file: that is all a container needs.
    fn bundle(&self, application: &str, directory: &Path) -> Result<()> {
        let root = self.work.join(format!("{application}-rootfs"));
        remove(&root)?;
        fs::create_dir_all(root.join("bin"))?;
        fs::create_dir_all(root.join("etc"))?;
        fs::copy(self.program(application), root.join("bin").join(application))?;
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/false\n")?;
        let tools = || {
            let mut command = Command::new(self.program("rootfs-tools"));
            command.arg("--store").arg(self.work.join("images"));
            command
        };
        let program = format!("/bin/{application}");
        let image = format!("{application}:v1");
        show(&format!("rootfs-tools import {application}-rootfs/ {image} --entrypoint {program}"));
        call(tools().arg("import").arg(&root).arg(&image).args(["--entrypoint", &program]))?;
        show(&format!("rootfs-tools bundle {image} {}", shown(directory)));
        call(tools().args(["bundle", "--force", &image]).arg(directory))
    }

    /// Whether a memory limit can be set here; root always can.
    fn can_limit(&self) -> Result<bool> {
        let mut command = self.minirun();
        command.args(["check", "--memory", "512m"]).arg(self.bundle_dir());
        let output = command.output().context("run minirun check")?;
        let text = String::from_utf8_lossy(&output.stdout);
        if output.status.success() {
            return Ok(true);
        }
        let missing: Vec<&str> = text.lines().filter(|line| line.starts_with("missing:")).collect();
        if missing.is_empty() {
            bail!("minirun check: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        println!("\nNo memory limit on this host:\n  {}", missing.join("\n  "));
        Ok(false)
    }

    fn serve(&self, limited: bool) -> Result<()> {
        let memory: &[&str] = if limited { &["--memory", "512m"] } else { &[] };
        let words =
            [&["minirun", "run", "--explain", "--net", "none"][..], memory, &["bundle/"]].concat();
        heading("A container is built in front of you, and runs a web application");
        show(&words.join(" "));
        let mut command = self.minirun();
        // The demonstration changes nothing on this host, so nothing is connected to it.
        command.args(["run", "--explain", "--net", "none", "--name", "demo-web"]).args(memory);
        let mut container = Running::start(self, command.arg(self.bundle_dir()), "demo-web")?;
        println!("From inside its network:  GET /  →  {}", container.get("/")?.trim());
        if limited {
            container.show_limit();
        }
        println!("And SIGTERM, which the application takes as a request to finish:");
        let status = container.stop()?;
        println!("It has ended with status {status}, and nothing of it is left.");
        Ok(())
    }

    fn leak(&self) -> Result<()> {
        heading("A program that takes 600 MiB meets a limit of 512");
        show("minirun run --net none --memory 512m target/demo/leak-bundle/");
        let mut command = self.minirun();
        command.args(["run", "--net", "none", "--name", "demo-leak", "--memory", "512m"]);
        command.arg(self.leak_dir());
        let mut container = Running::start(self, &mut command, "demo-leak")?;
        println!("GET /leak?mb=600");
        // It is killed before it can answer.
        drop(container.get("/leak?mb=600"));
        let status = container.wait()?;
        println!("It has ended with status {status} (128 + SIGKILL).");
        Ok(())
    }

    fn what_next(&self, limited: bool) {
        let minirun = shown(&self.program("minirun"));
        let memory = if limited { "--memory 512m " } else { "" };
        heading("What to type next");
        println!("  PATH=$PATH:{}", shown(&self.programs));
        println!(
            "  minirun run {memory}bundle/ &       a container of your own; `fg` and Ctrl-C end it"
        );
        println!("  minirun list                        what runs");
        println!("  minirun state bundle                one of them, as JSON");
        println!(
            "  minirun check bundle/               what would be done, and what this host lacks"
        );
        println!("  minirun spec && less config.json    a configuration to start from");
        if effective_user() == 0 {
            println!("  minisup up -d --replicas 3 --publish 8080:3000 --memory 512m bundle/");
            println!(
                "                                      three of them behind one port, kept alive;"
            );
            println!(
                "                                      then: minisup ps, minisup top, minisup down"
            );
        }
        println!("  cargo xtask test                    all tests");
        println!("\nThe source of each step is named like it: runtime/src/steps/. ({minirun})");
    }
}

/// A container in the foreground of a child process.
struct Running<'a> {
    demo: &'a Demo,
    child: Child,
    id: &'static str,
    pid: i64,
}

impl<'a> Running<'a> {
    fn start(demo: &'a Demo, command: &mut Command, id: &'static str) -> Result<Self> {
        // What an earlier, interrupted demo has left.
        call(demo.minirun().args(["delete", "--force", id]))?;
        let child = command.spawn().with_context(|| format!("run {command:?}"))?;
        let mut running = Self { demo, child, id, pid: 0 };
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = running.child.try_wait()? {
                bail!("the container ended before it served: {status}");
            }
            running.pid = running.state("pid").and_then(|value| value.as_i64()).unwrap_or(0);
            let runs = running.state("status").is_some_and(|status| status == "running");
            if runs && running.pid > 0 && running.get("/health").is_ok() {
                return Ok(running);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the container does not answer after {} s", PATIENCE.as_secs())
    }

    fn state(&self, field: &str) -> Option<serde_json::Value> {
        let text = output_of(self.demo.minirun().args(["state", self.id])).ok()?;
        let state: serde_json::Value = serde_json::from_str(&text).ok()?;
        state.get(field).cloned()
    }

    fn get(&self, path: &str) -> Result<String> {
        ask::get(self.pid, path)
    }

    /// What the kernel says about the limit, not what we asked for.
    fn show_limit(&self) {
        let files = [
            "/sys/fs/cgroup/memory/minirun/demo-web/memory.limit_in_bytes",
            "/sys/fs/cgroup/minirun/demo-web/memory.max",
        ];
        for file in files {
            if let Ok(text) = fs::read_to_string(file) {
                println!("The kernel's limit:       {file} = {}", text.trim());
            }
        }
    }

    fn stop(&mut self) -> Result<i32> {
        call(self.demo.minirun().args(["kill", self.id, "TERM"]))?;
        self.wait()
    }

    fn wait(&mut self) -> Result<i32> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                return status.code().context("minirun itself was killed");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("the container does not end")
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // After an error half-way: leave nothing behind.
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.demo.minirun().args(["kill", self.id, "KILL"]).output());
            drop(self.child.wait());
        }
    }
}

fn heading(text: &str) {
    println!("\n── {text} ──");
}

fn show(text: &str) {
    println!("$ {text}");
}

/// A path as a person would type it from the workspace.
fn shown(path: &Path) -> String {
    path.strip_prefix(workspace()).unwrap_or(path).display().to_string()
}

fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}
