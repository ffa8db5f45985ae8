//! `minisup doctor`: what this host can do, what it lacks, and what does not work without it.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

use super::stats::size;
use super::up::ways;
use crate::brain::api::{StateView, SupervisorView};
use crate::brain::networks::{NetworkView, Way};
use crate::client::Client;
use crate::layout::Layout;
use crate::programs;

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Good,
    /// Something works less well.
    Less,
    /// Something does not work at all.
    Bad,
}

/// One finding.
struct Finding {
    verdict: Verdict,
    text: String,
}

fn good(text: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Good, text: text.into() }
}

fn less(text: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Less, text: text.into() }
}

fn bad(text: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Bad, text: text.into() }
}

/// Looks at the host, then at every project, or at the one that is named.
///
/// # Errors
/// Something is bad.
pub(crate) async fn run(named: Option<&str>) -> Result<()> {
    println!("host");
    let mut worst =
        tell(&[privileges(), kernel(), cgroups(), pressure(), overlay(), descriptors()]);
    worst |= tell(&[way_out()]);
    worst |= tell(&[runtime(), tools(), room("/run"), room("/var/lib")]);
    for name in Layout::projects() {
        if named.is_none_or(|named| named == name) {
            println!("project {name}");
            worst |= tell(&project(&name).await?);
        }
    }
    if worst {
        bail!("what is marked with a cross does not work");
    }
    Ok(())
}

/// Prints findings; whether one is bad.
fn tell(findings: &[Finding]) -> bool {
    for finding in findings {
        let mark = match finding.verdict {
            Verdict::Good => "✓",
            Verdict::Less => "–",
            Verdict::Bad => "✗",
        };
        println!("  {mark} {}", finding.text);
    }
    findings.iter().any(|finding| finding.verdict == Verdict::Bad)
}

fn privileges() -> Finding {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let user = line.and_then(|line| line.split_whitespace().nth(1).map(str::to_string));
    match user.as_deref() {
        Some("0") => good("this is root"),
        _ => bad("this is not root: containers with limits and networks of their own need it"),
    }
}

fn kernel() -> Finding {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = text.trim();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match version {
        (0..5, _) | (5, 0..15) => bad(format!("kernel {release}: at least 5.15 is needed")),
        (5, _) | (6, 0..15) => less(format!(
            "kernel {release}: the exit status of a container whose keeper was killed stays \
             unknown (6.15 tells it)"
        )),
        _ => good(format!("kernel {release}")),
    }
}

fn cgroups() -> Finding {
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers");
    match controllers {
        Ok(text) => {
            let lacking: Vec<&str> = ["cpu", "io", "memory", "pids"]
                .into_iter()
                .filter(|name| !text.split_whitespace().any(|one| one == *name))
                .collect();
            match lacking.is_empty() {
                true => good("cgroup v2 with cpu, io, memory and pids"),
                false => less(format!("cgroup v2 without {}: no such limits", lacking.join(", "))),
            }
        }
        Err(_) if Path::new("/sys/fs/cgroup/memory").is_dir() => less(
            "cgroup v1: works, but stopping all of a container takes freezing it first, and \
             pressure is told only if the unified tree is mounted as well",
        ),
        Err(_) => bad("no cgroups at /sys/fs/cgroup: no limits, no reliable stop"),
    }
}

fn pressure() -> Finding {
    match fs::read_to_string("/proc/pressure/memory") {
        Ok(_) => good("the kernel tells pressure (PSI)"),
        Err(_) => less("no pressure (PSI): stats and autopsies lack it; boot with psi=1"),
    }
}

/// Whether networks can lead out of the host.
fn way_out() -> Finding {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&paths).any(|dir| dir.join("nft").is_file()) {
        return less("no nft in PATH: containers have no way out (package nftables)");
    }
    match ways::forwards() {
        Some(true) => good("the host forwards: networks have a way out"),
        Some(false) => {
            good("the host does not forward (net.ipv4.ip_forward); the first way out changes that")
        }
        None => less("net.ipv4.ip_forward cannot be read: containers may have no way out"),
    }
}

/// Whether the networks of a project that should lead out do so.
fn ways_out(view: &StateView) -> Vec<Finding> {
    let finding = |network: &NetworkView| {
        let name = &network.name;
        match &network.way {
            Way::Internal => good(format!("the network {name} is internal")),
            Way::Open if ways::forwards() == Some(false) => less(format!(
                "the network {name} has no way out: somebody has set net.ipv4.ip_forward to 0; \
                 `minisup up` sets it to 1"
            )),
            Way::Open => good(format!("the network {name} has a way out")),
            Way::Closed(why) => less(format!("the network {name} has no way out: {why}")),
        }
    };
    view.networks.iter().map(finding).collect()
}

fn overlay() -> Finding {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    match known.contains("overlay") {
        true => good("overlay file systems"),
        false => less("no overlay file systems: images cannot run, bundles can; modprobe overlay"),
    }
}

fn descriptors() -> Finding {
    let text = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("Max open files"));
    let hard = line.and_then(|line| line.split_whitespace().nth(4)?.parse::<u64>().ok());
    match hard {
        // Two for each proxied connection, six for each replica.
        Some(hard) if hard < 20_000 => {
            less(format!("at most {hard} open files: about {} connections at a time", hard / 2))
        }
        Some(hard) => good(format!("up to {hard} open files")),
        None => good("open files without limit"),
    }
}

fn runtime() -> Finding {
    let program = match programs::runtime(None) {
        Ok(program) => program,
        Err(error) => return bad(format!("{error:#}")),
    };
    let output = std::process::Command::new(&program).arg("--version").output();
    match output {
        Ok(output) if output.status.success() => {
            let said = String::from_utf8_lossy(&output.stdout);
            let first = said.lines().next().unwrap_or_default().to_string();
            good(format!("runtime {}: {first}", program.display()))
        }
        _ => bad(format!("runtime {} does not start", program.display())),
    }
}

fn tools() -> Finding {
    match programs::beside("rootfs-tools") {
        Some(program) => good(format!("images by {}", program.display())),
        None => less("no rootfs-tools beside minisup or in PATH: only bundles can be started"),
    }
}

/// Room for files.
fn room(place: &str) -> Finding {
    let output = std::process::Command::new("df").args(["-P", "-k", place]).output();
    let text = output.map(|out| String::from_utf8_lossy(&out.stdout).into_owned());
    let text = text.unwrap_or_default();
    let fields: Vec<&str> = text.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    let free = fields.get(3).and_then(|kib| kib.parse::<u64>().ok());
    match free {
        Some(kib) if kib < 64 << 10 => {
            bad(format!("{place} has {} free: logs and history will be lost", size(kib << 10)))
        }
        Some(kib) => good(format!("{place} has {} free", size(kib << 10))),
        None => less(format!("how much room {place} has cannot be found out")),
    }
}

/// Whether the project is supervised by the program that asks.
async fn supervisor(client: &Client) -> Option<Finding> {
    let seen: SupervisorView = client.get("/v1/supervisor").await.ok()?;
    let roles = [("keeper", seen.keeper), ("brain", seen.brain), ("data plane", seen.plane)];
    let others =
        roles.into_iter().filter(|(_, process)| programs::is_this(*process) == Some(false));
    let others: Vec<&str> = others.map(|(role, _)| role).collect();
    Some(match others.as_slice() {
        [] => good("keeper, brain and data plane are of this program"),
        others => less(format!(
            "another minisup ({}) is the project's {}; `minisup -P {} upgrade` has this one \
             take over",
            seen.version,
            others.join(", "),
            client.layout.project
        )),
    })
}

/// The processes of a project and what they complain about.
async fn project(name: &str) -> Result<Vec<Finding>> {
    let client = Client { layout: Layout::of(name)? };
    let mut findings = Vec::new();
    let Ok(view) = client.state().await else {
        findings.push(bad(format!(
            "no supervisor answers; `minisup -P {name} up` starts one, which finds what runs"
        )));
        return Ok(findings);
    };
    findings.push(good("the supervisor answers"));
    findings.extend(supervisor(&client).await);
    let (known, followed) = (view.state.generation(), view.state.acknowledged());
    findings.push(match known == followed {
        true => good("the data plane follows"),
        false => bad(format!("the data plane follows routes {followed}, the newest are {known}")),
    });
    let failed: Vec<String> = view
        .state
        .slots()
        .filter(|slot| slot.is_failed())
        .map(|slot| slot.id.to_string())
        .collect();
    findings.push(match failed.is_empty() {
        true => good("no slot is given up"),
        false => bad(format!("given up: {}; `minisup explain` says why", failed.join(", "))),
    });
    findings.extend(ways_out(&view));
    let complaints = fs::read_to_string(client.layout.complaints()).unwrap_or_default();
    findings.push(match complaints.lines().last() {
        None => good("no complaints"),
        Some(last) => less(format!("{} complaints, the last: {last}", complaints.lines().count())),
    });
    Ok(findings)
}
