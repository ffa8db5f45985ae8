//! rootfs-tools beside its peers: the same image, from its archive to files on the disk.
//!
//! The images are made here, the same bytes each time: one like Debian's with a language on top,
//! one of many small files. The peers take turns, the page cache is warm, what one wrote is removed
//! and flushed before the next begins. Medians are printed, never a pass or a failure.
//!
//! ```text
//! cargo run --release -p bench --bin bench-images -- [--rounds 5] [--json FILE]
//! ```

mod contender;
mod content;
mod daemon;
mod layout;
mod measure;

use anyhow::{Context, Result};
use clap::Parser;
use contender::{Contender, Workshop};
use layout::Shape;
use measure::Sample;
use serde::Serialize;
use std::path::PathBuf;

#[derive(Debug, Parser)]
#[command(
    about = "Times rootfs-tools, umoci, podman, containerd and gzip | tar on the same images"
)]
struct Arguments {
    /// How often each is measured
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only this image: debian, small
    #[arg(long)]
    image: Option<Shape>,
    /// Only the contenders whose names have this in them
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Where the images are made and unpacked; the images are kept there for the next time
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Also write the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The rootfs-tools to measure [the one beside this program]
    #[arg(long, value_name = "FILE")]
    rootfs_tools: Option<PathBuf>,
    /// Run a command and print what it cost, as JSON (used by this program itself)
    #[arg(long, hide = true, num_args = 1.., allow_hyphen_values = true)]
    cost_of: Option<Vec<String>>,
    /// The command leaves a process behind, whose end is waited for
    #[arg(long, hide = true)]
    with_background: bool,
}

/// The figures of one contender with one image.
#[derive(Debug, Serialize)]
struct Row {
    image: &'static str,
    contender: &'static str,
    rounds: Vec<Sample>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(command) = arguments.cost_of {
        return measure::print_cost(&command, arguments.with_background);
    }
    let program = match &arguments.rootfs_tools {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("rootfs-tools"),
    };
    let directory = arguments.directory.clone();
    let directory = directory.unwrap_or_else(|| std::env::temp_dir().join("minirun-bench-images"));
    let workshop = Workshop::open(directory, program)?;
    let mut rows = Vec::new();
    for shape in Shape::ALL {
        if arguments.image.is_some_and(|only| only != shape) {
            continue;
        }
        let image = layout::make(&workshop.images(), shape).context("make the image")?;
        println!("\n{}: {image}", shape.name());
        let measured = one_image(&workshop, &image, &arguments)?;
        print!("{}", measure::table(&measured));
        rows.extend(measured.into_iter().map(|(contender, rounds)| Row {
            image: shape.name(),
            contender: contender.name(),
            rounds,
        }));
    }
    if let Some(file) = arguments.json {
        let text = serde_json::to_string_pretty(&rows)?;
        std::fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}

/// Measures everybody that is here, in turns.
fn one_image(
    workshop: &Workshop,
    image: &layout::Image,
    arguments: &Arguments,
) -> Result<Vec<(Contender, Vec<Sample>)>> {
    let wanted = |contender: &Contender| {
        arguments.only.as_ref().is_none_or(|text| contender.name().contains(text))
    };
    let mut measured = Vec::new();
    for contender in Contender::ALL.into_iter().filter(wanted) {
        match workshop.is_here(contender) {
            Ok(()) => measured.push((contender, Vec::new())),
            Err(reason) => println!("{:<28} not measured: {reason:#}", contender.name()),
        }
    }
    for _ in 0..arguments.rounds {
        for (contender, samples) in &mut measured {
            let name = contender.name();
            samples.push(workshop.once(*contender, image).with_context(|| name)?);
        }
    }
    Ok(measured)
}
