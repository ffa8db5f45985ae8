//! The virtual machine: QEMU's command line, its process, its console.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::{accel::Accelerator, host, protocol::PORT};

/// How much of the console is kept for an error message.
const CONSOLE_LINES: usize = 60;

/// A machine to be started.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) accelerator: Accelerator,
    pub(crate) vmlinux: PathBuf,
    pub(crate) initrd: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) modules: PathBuf,
    /// Directories, in the order of their tags.
    pub(crate) shares: Vec<PathBuf>,
    pub(crate) smp: u32,
    pub(crate) memory_mib: u32,
    /// What the guest's side is told: "quick" or "full".
    pub(crate) boot: &'static str,
    /// Whether the kernel prints all that it does.
    pub(crate) verbose: bool,
}

/// The 9p tag of the share with this number.
pub(crate) fn share_tag(index: usize) -> String {
    format!("share{index}")
}

impl Plan {
    /// QEMU's arguments.
    ///
    /// Nothing of it leaves a file: the disks are snapshots (QEMU unlinks them as it opens them),
    /// the port is its standard input and output, the console its standard error.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = Vec::new();
        let mut add = |option: &str, value: String| arguments.extend([option.into(), value]);
        match self.accelerator {
            Accelerator::Kvm => {
                add("-accel", "kvm".into());
                add("-cpu", "host".into());
            }
            Accelerator::Tcg => {
                add("-accel", "tcg,thread=multi,tb-size=512".into());
                // "rep movsb" is emulated bytewise: without erms the kernel copies by words, five
                // times faster. la57 would add a level to every page walk.
                add("-cpu", "max,la57=off,erms=off,fsrm=off".into());
            }
        }
        add("-M", "pc,vmport=off".into());
        add("-m", format!("{}M", self.memory_mib));
        add("-smp", self.smp.to_string());
        add("-kernel", self.vmlinux.display().to_string());
        add("-initrd", self.initrd.display().to_string());
        add("-append", self.kernel_arguments());
        add("-display", "none".into());
        add("-chardev", "file,id=console,path=/dev/fd/2".into());
        add("-serial", "chardev:console".into());
        add("-chardev", "stdio,id=port,signal=off".into());
        add("-device", "virtio-serial-pci".into());
        add("-device", format!("virtserialport,chardev=port,name={PORT}"));
        add("-drive", disk(&self.root, "cache=unsafe,snapshot=on"));
        add("-drive", disk(&self.modules, "readonly=on"));
        for (index, share) in self.shares.iter().enumerate() {
            let path = escaped(share);
            add(
                "-fsdev",
                format!(
                    "local,id=fs{index},path={path},readonly=on,\
                     security_model=passthrough,multidevs=remap"
                ),
            );
            let tag = share_tag(index);
            add("-device", format!("virtio-9p-pci,fsdev=fs{index},mount_tag={tag}"));
        }
        for flag in ["-nodefaults", "-no-user-config", "-no-reboot"] {
            arguments.push(flag.into());
        }
        arguments
    }

    fn kernel_arguments(&self) -> String {
        // Emulated, the TSC is the host's, and a busy host makes the kernel measure its frequency
        // wrong: a guest's minute was once twenty seconds. The HPET is QEMU's own, and right.
        let clock = match self.accelerator {
            Accelerator::Kvm => "kvm-clock",
            Accelerator::Tcg => "hpet",
        };
        let loudness =
            if self.verbose { "ignore_loglevel" } else { "quiet systemd.show_status=no" };
        format!(
            "console=ttyS0 {loudness} panic=-1 oops=panic mitigations=off clocksource={clock} \
             no_timer_check net.ifnames=0 psi=1 rdinit=/vm-agent -- boot {}",
            self.boot
        )
    }
}

fn disk(image: &Path, how: &str) -> String {
    format!("if=virtio,format=raw,file={},{how}", escaped(image))
}

/// A comma in a value is written twice.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// The last lines of the guest's console and of QEMU's own messages.
#[derive(Debug, Clone, Default)]
pub(crate) struct Console(Arc<Mutex<VecDeque<String>>>);

impl Console {
    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == CONSOLE_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// The kept lines.
    pub(crate) fn tail(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(|line| format!("  | {line}\n")).collect()
    }
}

/// A running QEMU.
#[derive(Debug)]
pub(crate) struct Machine {
    pidfd: OwnedFd,
    pub(crate) pid: u32,
    pub(crate) console: Console,
    watcher: Option<thread::JoinHandle<()>>,
}

/// The ends of the port.
pub(crate) type Port = (ChildStdin, ChildStdout);

impl Machine {
    /// Starts QEMU; `ended` is called when it is gone.
    pub(crate) fn start(
        plan: &Plan,
        echo: bool,
        ended: impl FnOnce(ExitStatus) + Send + 'static,
    ) -> Result<(Self, Port)> {
        let mut qemu = host::command("setpriv");
        // The signal comes when the *thread* that started QEMU ends; this one waits for it.
        qemu.args(["--pdeathsig", "KILL", "--"])
            .arg(host::command("qemu-system-x86_64").get_program())
            .args(plan.arguments())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let (sender, receiver) = mpsc::channel();
        let console = Console::default();
        let lines = console.clone();
        let watcher = thread::Builder::new().name("qemu".into()).spawn(move || {
            let mut child = match start(&mut qemu) {
                Ok((child, ends)) => {
                    if sender.send(Ok(ends)).is_err() {
                        return;
                    }
                    child
                }
                Err(error) => return drop(sender.send(Err(error))),
            };
            if let Some(stderr) = child.stderr.take() {
                for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line);
                    let line = line.trim_end_matches('\r');
                    if echo {
                        eprintln!("{line}");
                    }
                    lines.push(line.to_owned());
                }
            }
            if let Ok(status) = child.wait() {
                ended(status);
            }
        })?;
        let (pid, pidfd, port) = receiver.recv().context("QEMU's thread ended")??;
        Ok((Self { pidfd, pid, console, watcher: Some(watcher) }, port))
    }

    /// Ends QEMU at once: nothing in the guest is worth keeping.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself; then there is nothing to signal.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
    }
}

type Started = (std::process::Child, (u32, OwnedFd, Port));

fn start(qemu: &mut Command) -> Result<Started> {
    let mut child = qemu.spawn().context("cannot run QEMU through setpriv")?;
    let pid = Pid::from_raw(i32::try_from(child.id())?).context("a child without a pid")?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    let stdin = child.stdin.take().context("no pipe")?;
    let stdout = child.stdout.take().context("no pipe")?;
    let ends = (child.id(), pidfd, (stdin, stdout));
    Ok((child, ends))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            accelerator: Accelerator::Tcg,
            vmlinux: "/c/vmlinux".into(),
            initrd: "/c/initrd".into(),
            root: "/c/a,b.ext4".into(),
            modules: "/c/m.ext4".into(),
            shares: vec!["/one".into(), "/t,wo".into()],
            smp: 1,
            memory_mib: 1024,
            boot: "quick",
            verbose: false,
        }
    }

    #[test]
    fn shares_are_read_only_and_commas_are_escaped() {
        let text = plan().arguments().join(" ");
        assert!(text.contains("path=/t,,wo,readonly=on"));
        assert!(text.contains("mount_tag=share1"));
        assert!(text.contains("file=/c/a,,b.ext4,cache=unsafe,snapshot=on"));
        assert!(text.contains("tcg,thread=multi"));
        assert!(!text.contains("kvm"));
        assert!(text.contains("-- boot quick"));
    }

    #[test]
    fn the_console_keeps_the_last_lines() {
        let console = Console::default();
        for number in 0..CONSOLE_LINES + 5 {
            console.push(format!("line {number}"));
        }
        let tail = console.tail();
        assert_eq!(tail.lines().count(), CONSOLE_LINES);
        assert!(tail.starts_with("  | line 5\n") && tail.ends_with("line 64\n"));
    }
}
