//! Images from a Containerfile: `rootfs-tools build -f Containerfile .`
//!
//! ```text
//! text ──▶ parse ──▶ instructions ──▶ stage by stage: RUN in minirun, COPY from the context or a
//!                                     stage, everything else in the configuration ──▶ image
//! ```
//!
//! Each step that changes files makes a layer. A layer is remembered under a key of all that it
//! depends on (the image below, the instruction, the content that is copied), so a step whose key
//! is known is not done again.

mod add;
pub mod cache;
pub mod context;
pub mod copy;
pub mod health;
pub mod ignore;
pub mod parse;
pub mod pattern;
pub mod run;
pub mod stage;
pub mod words;

use crate::error::{Context, Error, Result};
use crate::import::Imported;
use crate::reference::Reference;
use crate::store::Store;
use parse::{Instruction, Step};
use stage::Stage;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What to build, and how.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The text of the Containerfile.
    pub text: String,
    /// The directory that COPY copies from.
    pub context: PathBuf,
    /// Values for ARG.
    pub arguments: BTreeMap<String, String>,
    /// The stage to end with; the last, when none is named.
    pub target: Option<String>,
    /// Do every step, even when its result is known.
    pub no_cache: bool,
    /// Whether RUN has the network of this machine; otherwise it has none.
    pub network: bool,
    /// The time of the image and of its newest file, in seconds since the epoch.
    pub epoch: Option<i64>,
}

/// What happens on the way.
pub trait Course {
    /// A step is about to be done.
    fn tell(&mut self, step: &str);

    /// Brings an image into the store that FROM names and the store lacks.
    ///
    /// # Errors
    /// It cannot be had; or [`Error::NoSuchImage`] if nobody is to be asked.
    fn fetch(&mut self, image: &Reference) -> Result<()>;
}

/// Builds an image and gives it a name.
///
/// # Errors
/// With the line of the Containerfile that it is about.
pub fn build(
    store: &Store,
    plan: &Plan,
    name: &Reference,
    course: &mut dyn Course,
) -> Result<Imported> {
    let steps = parse::parse(&plan.text)?;
    let context = context::Context::open(&plan.context)?;
    let mut global = BTreeMap::new();
    let mut stages: Vec<Stage> = Vec::new();
    let target = plan.target.as_deref();
    for (at, step) in steps.iter().enumerate() {
        let done = stages.last().filter(|stage| target.is_some_and(|name| stage.is_called(name)));
        if done.is_some() && matches!(step.instruction, Instruction::From { .. }) {
            break;
        }
        course.tell(&format!("[{}/{}] {}", at + 1, steps.len(), step.text));
        do_step(store, plan, &context, step, &mut global, &mut stages, course)
            .context(|| format!("line {}: {}", step.line, step.text))?;
    }
    let last =
        stages.last().ok_or_else(|| Error::Invalid("the Containerfile has no FROM".into()))?;
    if let Some(target) = target.filter(|target| !last.is_called(target)) {
        return Err(Error::Invalid(format!("there is no stage `{target}`")));
    }
    let imported = last.finish(store, plan)?;
    store.set_name(name, imported.image.clone())?;
    Ok(imported)
}

fn do_step(
    store: &Store,
    plan: &Plan,
    context: &context::Context,
    step: &Step,
    global: &mut BTreeMap<String, String>,
    stages: &mut Vec<Stage>,
    course: &mut dyn Course,
) -> Result<()> {
    let height = stages.last().map_or(0, Stage::height);
    match (&step.instruction, stages.last_mut()) {
        (Instruction::Arg { name, value }, None) => {
            let value = plan.arguments.get(name).or(value.as_ref()).cloned().unwrap_or_default();
            global.insert(name.clone(), words::expand(&value, global)?);
            return Ok(());
        }
        (Instruction::From { image, name }, _) => {
            let image = words::expand(image, global)?;
            let stage = Stage::begin(store, &image, name.clone(), stages, global.clone(), course)?;
            stages.push(stage);
            return Ok(());
        }
        (_, None) => return Err(Error::Invalid("FROM comes first".into())),
        (Instruction::Copy(copy), Some(_)) => {
            // Another stage is read while this one is changed.
            let Some(mut stage) = stages.pop() else { return Ok(()) };
            let result = stage.copy(store, plan, context, stages, copy);
            stages.push(stage);
            result?;
        }
        (instruction, Some(stage)) => stage.apply(store, plan, instruction, course)?,
    }
    if let Some(stage) = stages.last_mut() {
        let empty_layer = stage.height() == height;
        stage.note(plan, &step.text, empty_layer);
    }
    Ok(())
}
