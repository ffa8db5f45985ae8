//! `minirun check`: what would be done with a bundle, and what this host lacks; nothing is changed.

use clap::{Arg, ArgMatches, Command};

use super::answer::print;
use super::arguments::text_of;
use super::create::{bundle_of, plan_of};
use super::flags;
use super::verb::{Global, Verb};
use crate::cgroup::{Host, Place};
use crate::container::group::{Manager, Wanted};
use crate::error::{Error, Result};
use crate::plan::{Plan, namespace_name};
use crate::steps::{landlock, resctrl};
use crate::{report, spec};

pub(super) const VERB: Verb = Verb {
    name: "check",
    about: "Check a bundle: print the plan and what this host lacks, change nothing",
    arguments,
    run,
    enters_containers: false,
    failure_status: 1,
};

fn arguments(command: Command) -> Command {
    command
        .arg(Arg::new("bundle").value_name("BUNDLE").default_value(".").help("Its directory"))
        .args(flags::arguments())
}

fn run(global: &Global, matches: &ArgMatches) -> Result<i32> {
    let bundle = bundle_of(text_of(matches, "bundle").map(AsRef::as_ref))?;
    let loaded = spec::load(&bundle)?;
    let mut config = loaded.spec;
    flags::apply(&mut config, matches, Vec::new())?;
    let user = linux::credentials::effective_user();
    if user != 0 {
        spec::make_rootless(&mut config, user, linux::credentials::effective_group());
    }
    let plan = plan_of(&config, "check", &bundle)?;
    print(&describe(&plan))?;
    for warning in loaded.warnings.iter().chain(&plan.warnings) {
        print(&format!("warning: {warning}\n"))?;
    }
    let problems = problems(global, &plan)?;
    if problems.is_empty() {
        print("this host can run it\n")?;
        return Ok(0);
    }
    for problem in &problems {
        print(&format!("missing: {problem}\n"))?;
    }
    Ok(1)
}

fn describe(plan: &Plan) -> String {
    let mut text = String::new();
    let mut line = |what: &str, value: String| text += &format!("{what:<16}{value}\n");
    line("bundle", plan.bundle.display().to_string());
    line(
        "root",
        match &plan.rootfs.overlay {
            Some(overlay) => format!("overlay of {} layers", overlay.lower.len()),
            None => plan.rootfs.path.display().to_string(),
        },
    );
    let new: Vec<_> = plan.namespaces.new.iter().map(namespace_name).collect();
    line("namespaces", format!("new: {}", new.join(", ")));
    for (kind, path) in &plan.namespaces.join {
        line("", format!("existing: {} {}", namespace_name(*kind), path.display()));
    }
    for mount in &plan.mounts {
        line("mount", mount.to_string());
    }
    for device in &plan.devices {
        line("device", device.path.display().to_string());
    }
    line("hide", format!("{} paths, {} read-only", plan.masked.len(), plan.read_only.len()));
    let process = &plan.process;
    line("program", process.arguments.join(" "));
    line("user", format!("{}:{}", process.user.user, process.user.group));
    if let Some(sets) = &process.capabilities {
        line("capabilities", sets.effective.names().join(" "));
    }
    line("new privileges", if process.no_new_privileges { "never" } else { "possible" }.into());
    line(
        "seccomp",
        match &process.filter {
            Some(filter) => format!("{} instructions", filter.program.instructions.len()),
            None => "none: every system call is possible".into(),
        },
    );
    if let Some(rules) = &process.landlock {
        let paths = rules.read.len() + rules.execute.len() + rules.write.len();
        line("Landlock", format!("nothing but what is below {paths} paths"));
    }
    if plan.cores_alone {
        line("cores", "shared with nobody".into());
    }
    if let Some(limit) = plan.resources.memory().as_ref().and_then(|m| m.limit()) {
        let shown = u64::try_from(limit).map_or("unlimited".to_owned(), report::bytes);
        line("memory", shown);
    }
    if let Some(quota) = plan.resources.cpu().as_ref().and_then(|cpu| cpu.quota()) {
        line("cpu quota", format!("{quota} µs"));
    }
    if let Some(pids) = plan.resources.pids() {
        line("pids", pids.limit().to_string());
    }
    text
}

/// Whether the kernel has the file system as a module, which it loads when somebody mounts it.
fn comes_with_the_first_mount(kind: &str) -> bool {
    let read = |file: String| std::fs::read_to_string(file).unwrap_or_default();
    let release = read("/proc/sys/kernel/osrelease".into());
    let aliases = read(format!("/lib/modules/{}/modules.alias", release.trim()));
    let wanted = format!("alias fs-{kind} ");
    aliases.lines().any(|line| line.starts_with(&wanted))
}

/// What would stop the container here, as far as a look can tell.
fn problems(global: &Global, plan: &Plan) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for kind in plan.namespaces.new.iter() {
        let file = format!("/proc/self/ns/{}", kind.proc_name());
        if !std::path::Path::new(&file).exists() {
            problems.push(format!("{} namespaces in this kernel", namespace_name(kind)));
        }
    }
    let known = std::fs::read_to_string("/proc/filesystems")
        .map_err(Error::file("read /proc/filesystems"))?;
    let has = |kind: &str| {
        known.split_whitespace().any(|name| name == kind) || comes_with_the_first_mount(kind)
    };
    if plan.rootfs.overlay.is_some() && !has("overlay") {
        problems.push("the overlay file system (modprobe overlay)".into());
    }
    for mount in &plan.mounts {
        if let crate::plan::Source::FileSystem { kind, .. } = &mount.source
            && !has(kind)
        {
            problems.push(format!("the file system {kind:?} for {}", mount.destination.display()));
        }
    }
    if plan.process.landlock.is_some() && landlock::version().is_err() {
        problems.push("Landlock in this kernel (5.13, and in the boot parameter lsm=)".into());
    }
    if plan.resctrl.is_some() {
        problems.extend(resctrl::here().err().map(|cause| cause.text));
    }
    if global.manager != Manager::Cgroupfs {
        // Who cannot have what it asks for says so at once; systemd makes the rest possible.
        let wanted = Wanted::decide(global.manager, plan);
        problems.extend(wanted.err().map(|error| error.to_string()));
        return Ok(problems);
    }
    match Host::get()? {
        None => problems.push("cgroups: no tree is mounted".into()),
        Some(host) => match Place::new(host, plan.cgroups_path.as_deref(), "check")? {
            None => problems.push("a delegated part of the cgroup tree (only for limits)".into()),
            Some(place) => {
                let missing = place.missing(host, &plan.resources)?;
                problems.extend(missing.iter().map(ToString::to_string));
            }
        },
    }
    Ok(problems)
}
