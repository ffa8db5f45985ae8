//! Which accelerator QEMU uses: KVM where a kernel is known to boot under it, else emulation.
//!
//! That `/dev/kvm` can be opened says little: inside some virtual machines a guest can be created
//! and then hangs at its first instructions. So a kernel is booted under it once, with a timeout,
//! and the answer is remembered. On a host that is itself a virtual machine nothing is tried:
//! `MINIRUN_VM_ACCEL=probe` asks for the trial, `kvm` and `tcg` decide.

use std::{
    env, fs,
    io::Read,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{cache::Cache, host};

/// How QEMU runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accelerator {
    Kvm,
    Tcg,
}

/// How much longer everything may take under emulation.
const TCG_SLOWNESS: u32 = 10;

/// A kernel reaches its panic within a second under KVM.
const PROBE_TIMEOUT: Duration = Duration::from_secs(20);

impl Accelerator {
    /// Scales a time that is generous on real hardware.
    pub(crate) fn patience(self, native: Duration) -> Duration {
        match self {
            Self::Kvm => native,
            Self::Tcg => native * TCG_SLOWNESS,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// Decides for this host; `vmlinux` is the kernel for a trial.
    pub(crate) fn choose(cache: &Cache, vmlinux: &Path) -> Result<Self> {
        let asked = env::var("MINIRUN_VM_ACCEL").unwrap_or_else(|_| "auto".into());
        let remembered = fs::read_to_string(cache.path("accelerator")).unwrap_or_default();
        let nested = fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| is_virtual(&text));
        // On a virtual host the device is not even opened, unless somebody asks for a trial.
        let usable = (!nested || asked == "probe")
            && fs::File::options().read(true).write(true).open("/dev/kvm").is_ok();
        match decide(&asked, remembered.trim(), usable, nested)? {
            Decision::Use(accelerator) => Ok(accelerator),
            Decision::Probe => {
                eprintln!("vm: trying whether a kernel boots under KVM");
                let mut qemu = host::command("qemu-system-x86_64");
                qemu.args(["-M", "pc,accel=kvm", "-cpu", "host", "-m", "256", "-nodefaults"])
                    .args(["-display", "none", "-no-reboot", "-serial", "stdio", "-kernel"])
                    .arg(vmlinux)
                    .args(["-append", "console=ttyS0 panic=-1"]);
                let boots = boots(&mut qemu, PROBE_TIMEOUT)?;
                let found = if boots { Self::Kvm } else { Self::Tcg };
                cache.write("accelerator", found.name())?;
                Ok(found)
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Use(Accelerator),
    Probe,
}

fn decide(asked: &str, remembered: &str, usable: bool, nested: bool) -> Result<Decision> {
    Ok(match (asked, remembered) {
        ("kvm", _) => Decision::Use(Accelerator::Kvm),
        ("tcg", _) => Decision::Use(Accelerator::Tcg),
        ("auto" | "probe", _) if !usable => Decision::Use(Accelerator::Tcg),
        ("probe", _) => Decision::Probe,
        ("auto", "kvm") => Decision::Use(Accelerator::Kvm),
        ("auto", "tcg") => Decision::Use(Accelerator::Tcg),
        ("auto", _) if nested => Decision::Use(Accelerator::Tcg),
        ("auto", _) => Decision::Probe,
        (other, _) => bail!("MINIRUN_VM_ACCEL is {other}: it can be auto, probe, kvm or tcg"),
    })
}

/// Whether the processor says that it belongs to a virtual machine.
fn is_virtual(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter_map(|line| line.strip_prefix("flags"))
        .any(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor"))
}

/// A kernel without a root file system that gets as far as missing it has booted: it panics, and
/// QEMU ends by itself.
fn boots(qemu: &mut Command, timeout: Duration) -> Result<bool> {
    let mut child = qemu
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run qemu-system-x86_64")?;
    let mut console = child.stdout.take().context("no pipe")?;
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is still evidence.
        let _ = console.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).contains("Kernel panic - not syncing")
    });
    let deadline = Instant::now() + timeout;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(reader.join().unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_is_never_used_unproved() {
        let use_tcg = Decision::Use(Accelerator::Tcg);
        let use_kvm = Decision::Use(Accelerator::Kvm);
        assert_eq!(decide("auto", "", true, false).unwrap(), Decision::Probe);
        assert_eq!(decide("auto", "", true, true).unwrap(), use_tcg);
        assert_eq!(decide("auto", "", false, false).unwrap(), use_tcg);
        assert_eq!(decide("auto", "kvm", true, true).unwrap(), use_kvm);
        assert_eq!(decide("auto", "kvm", false, false).unwrap(), use_tcg);
        assert_eq!(decide("auto", "tcg", true, false).unwrap(), use_tcg);
        assert_eq!(decide("probe", "tcg", true, true).unwrap(), Decision::Probe);
        assert_eq!(decide("tcg", "kvm", true, false).unwrap(), use_tcg);
        assert_eq!(decide("kvm", "tcg", true, true).unwrap(), use_kvm);
        assert!(decide("xen", "", true, false).is_err());
    }

    #[test]
    fn virtual_machines_are_recognised() {
        assert!(is_virtual("processor\t: 0\nflags\t\t: fpu hypervisor lahf\n"));
        assert!(!is_virtual("processor\t: 0\nflags\t\t: fpu vmx lahf\n"));
    }

    #[test]
    fn a_hanging_trial_is_ended() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        let short = Duration::from_millis(200);
        assert!(!boots(&mut shell("exec sleep 60"), short).unwrap());
        assert!(!boots(&mut shell("echo KVM: entry failed"), PROBE_TIMEOUT).unwrap());
        let panic = "echo '[ 0.5] Kernel panic - not syncing: VFS: Unable to mount root fs'";
        assert!(boots(&mut shell(panic), PROBE_TIMEOUT).unwrap());
    }
}
