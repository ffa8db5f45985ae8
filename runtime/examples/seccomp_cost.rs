//! What a filter costs: `cargo run --release -p minirun --example seccomp_cost [PROFILE.json]`.
//!
//! Compiles the profile (`linux.seccomp` of a config.json; without one, the default profile) and
//! loads it, each in processes of their own, with pauses between them, because the second time is
//! always faster than the first one, and a container has only a first one.

use std::process::Command;
use std::time::{Duration, Instant};

use minirun::seccomp;
use oci_spec::runtime::LinuxSeccomp;

type Failure = Box<dyn std::error::Error>;

const RUNS: usize = 40;
const PAUSE: Duration = Duration::from_millis(30);

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    if first.as_deref() == Some("once") {
        return once(arguments.next());
    }
    let profile = profile(first.clone())?;
    let compiled = seccomp::compile(&profile)?;
    let names = profile.syscalls().iter().flatten().map(|rule| rule.names().len()).sum::<usize>();
    println!("profile: {names} names, {} of them unknown here", compiled.skipped.len());
    println!("program: {} instructions", compiled.program.instructions.len());
    let mut cold = Vec::new();
    let mut warm = Vec::new();
    let mut load = Vec::new();
    for _ in 0..RUNS {
        std::thread::sleep(PAUSE);
        let output = Command::new(std::env::current_exe()?).arg("once").args(&first).output()?;
        let text = String::from_utf8(output.stdout)?;
        let mut numbers = text.split_whitespace().map(str::parse::<u64>);
        for series in [&mut cold, &mut warm, &mut load] {
            series.push(numbers.next().ok_or("the measured process failed")??);
        }
    }
    for (what, series) in [("compile, first time", cold), ("compile, warm", warm), ("load", load)] {
        report(what, series);
    }
    Ok(())
}

/// Prints nanoseconds: compiling for the first time, the fastest of many, loading.
fn once(path: Option<String>) -> Result<(), Failure> {
    let profile = profile(path)?;
    let start = Instant::now();
    let compiled = seccomp::compile(&profile)?;
    let cold = start.elapsed();
    let mut warm = cold;
    for _ in 0..200 {
        let start = Instant::now();
        std::hint::black_box(seccomp::compile(std::hint::black_box(&profile))?);
        warm = warm.min(start.elapsed());
    }
    linux::prctl::set_no_new_privileges()?;
    let start = Instant::now();
    linux::seccomp::load(&compiled.program.instructions, compiled.program.flags)?;
    let load = start.elapsed();
    println!("{} {} {}", cold.as_nanos(), warm.as_nanos(), load.as_nanos());
    Ok(())
}

fn profile(path: Option<String>) -> Result<LinuxSeccomp, Failure> {
    match path {
        Some(path) => Ok(serde_json::from_str(&std::fs::read_to_string(path)?)?),
        None => Ok(seccomp::default_profile::<&str>(&[])),
    }
}

fn report(what: &str, mut series: Vec<u64>) {
    series.sort_unstable();
    let at = |percent: usize| series[(series.len() - 1) * percent / 100] as f64 / 1000.0;
    println!("{what}: median {:.1} µs, p10 {:.1}, p90 {:.1}", at(50), at(10), at(90));
}
