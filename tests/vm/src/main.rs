//! `vm`: builds guests and runs commands in them. See docs/operating/vm.md.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use vm::{Cache, Config, Guest, Kernel, Profile, Share, Suite};

/// Linux guests for minirun's tests: built from Debian packages, thrown away after each run.
#[derive(Debug, Parser)]
#[command(name = "vm", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build a guest's parts into the cache
    Build {
        /// Kernel series; both when not given
        #[arg(long)]
        kernel: Option<Kernel>,
        /// quick, full or docker
        #[arg(long, default_value = "quick")]
        profile: Profile,
        /// Fetch Debian's newest packages even if the cache has what is needed
        #[arg(long)]
        update: bool,
    },
    /// Run a command in a fresh guest; its exit status is the command's
    Run {
        /// Kernel series: 6.1 or 6.12
        #[arg(long, default_value = "6.12")]
        kernel: Kernel,
        #[command(flatten)]
        machine: Machine,
        /// Set a variable for the command
        #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
        env: Vec<(String, String)>,
        /// The command's working directory
        #[arg(long, default_value = "/")]
        cwd: String,
        /// Kill the command after this time; without it, ten minutes (KVM: one)
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<u64>,
        /// The command
        #[arg(last = true, required = true)]
        argv: Vec<String>,
    },
    /// Run test programs that were built here; fails when one of them does
    Test {
        /// Kernel series; both when not given
        #[arg(long)]
        kernel: Option<Kernel>,
        #[command(flatten)]
        machine: Machine,
        /// Set a variable for the programs
        #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
        env: Vec<(String, String)>,
        /// How long one program may take on real hardware; ten times that when emulated
        #[arg(long, value_name = "SECONDS", default_value_t = 120)]
        timeout: u64,
        /// The programs, or directories in which every executable file is one
        #[arg(required = true)]
        programs: Vec<PathBuf>,
        /// Arguments for each program
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// A shell in a fresh guest
    Shell {
        /// Kernel series: 6.1 or 6.12
        #[arg(long, default_value = "6.12")]
        kernel: Kernel,
        #[command(flatten)]
        machine: Machine,
        /// A command instead of the shell
        #[arg(last = true)]
        argv: Vec<String>,
    },
    /// Show what the cache holds
    List,
    /// Empty the cache
    Clean {
        /// Only of what this version of the program no longer uses
        #[arg(long)]
        old: bool,
    },
}

#[derive(Debug, Args)]
struct Machine {
    /// quick, full or docker
    #[arg(long, default_value = "quick")]
    profile: Profile,
    /// Show a host directory at the same path in the guest, read-only, or at another path
    #[arg(long, value_name = "DIR[:GUEST]", value_parser = share)]
    share: Vec<Share>,
    /// Processors
    #[arg(long, default_value_t = 1)]
    smp: u32,
    /// Memory in MiB
    #[arg(long, value_name = "MIB")]
    memory: Option<u32>,
    /// Print the guest's console on standard error
    #[arg(long)]
    console: bool,
}

impl Machine {
    fn config(&self, kernel: Kernel) -> Config {
        let mut config = Config::new(kernel, self.profile);
        config.shares.clone_from(&self.share);
        config.smp = self.smp;
        config.memory_mib = self.memory.unwrap_or(config.memory_mib);
        config.console = self.console;
        config
    }
}

fn share(text: &str) -> Result<Share> {
    match text.rsplit_once(':') {
        Some((host, guest)) if guest.starts_with('/') => {
            Ok(Share { guest: guest.into(), ..Share::same_path(host)? })
        }
        _ => Share::same_path(PathBuf::from(text)),
    }
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a variable is NAME=VALUE")?;
    Ok((name.into(), value.into()))
}

fn main() -> ExitCode {
    vm::enter_if_guest();
    match obey(Cli::parse().verb) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("vm: {error:#}");
            ExitCode::from(125)
        }
    }
}

fn obey(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Build { kernel, profile, update } => {
            let cache = Cache::open()?;
            for kernel in series(kernel) {
                vm::build(&cache, kernel, profile, update)?;
            }
        }
        Verb::Run { kernel, machine, env, cwd, timeout, argv } => {
            let config = machine.config(kernel);
            let mut guest = Guest::boot(&config)?;
            if config.console {
                eprintln!("vm: {} took commands after {:.1?}", guest.release(), guest.boot_time());
            }
            let mut command = guest.command(&argv).current_dir(&cwd).stream();
            for (name, value) in &env {
                command = command.env(name, value);
            }
            if let Some(seconds) = timeout {
                command = command.deadline(Some(Duration::from_secs(seconds)));
            }
            return code(command.run()?.status);
        }
        Verb::Test { kernel, machine, env, timeout, programs, arguments } => {
            let timeout = Duration::from_secs(timeout);
            let programs = executables(programs)?;
            let suite = Suite { programs, arguments, env, timeout };
            let configs = series(kernel).map(|kernel| machine.config(kernel));
            return test(&suite, configs);
        }
        Verb::Shell { kernel, machine, argv } => {
            let login = ["bash".to_owned(), "--login".to_owned()];
            return code(vm::shell(
                &machine.config(kernel),
                if argv.is_empty() { &login } else { &argv },
            )?);
        }
        Verb::List => {
            for (name, bytes) in Cache::open()?.entries()? {
                println!("{:>8.1} MB  {name}", bytes as f64 / 1e6);
            }
        }
        Verb::Clean { old: false } => Cache::open()?.clear()?,
        Verb::Clean { old: true } => {
            for name in vm::clean_old(&Cache::open()?)? {
                println!("removed {name}");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn series(asked: Option<Kernel>) -> impl Iterator<Item = Kernel> {
    Kernel::ALL.into_iter().filter(move |kernel| asked.is_none_or(|asked| asked == *kernel))
}

fn test(suite: &Suite, configs: impl Iterator<Item = Config>) -> Result<ExitCode> {
    let mut summary = Vec::new();
    for config in configs {
        for verdict in suite.run(&config)? {
            let said = match &verdict.result {
                Ok(status) if status.success() => "passed".into(),
                Ok(status) => format!("FAILED: {status:?}"),
                Err(error) => format!("FAILED: {error}"),
            };
            let line = format!("{}: {}: {said}", config.kernel, verdict.program.display());
            summary.push((verdict.passed(), line));
        }
    }
    for (_, line) in &summary {
        eprintln!("vm: {line}");
    }
    let passed = summary.iter().all(|(passed, _)| *passed);
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Directories are replaced by the executable files in them, sorted by name.
fn executables(paths: Vec<PathBuf>) -> Result<Vec<PathBuf>> {
    let mut programs = Vec::new();
    for path in paths {
        let path = path.canonicalize().with_context(|| format!("no {}", path.display()))?;
        if path.is_file() {
            programs.push(path);
            continue;
        }
        let before = programs.len();
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_file() && meta.permissions().mode() & 0o111 != 0 {
                programs.push(entry.path());
            }
        }
        programs[before..].sort();
        if programs.len() == before {
            bail!("there is no executable file in {}", path.display());
        }
    }
    Ok(programs)
}

fn code(status: vm::Status) -> Result<ExitCode> {
    Ok(ExitCode::from(u8::try_from(status.code())?))
}
