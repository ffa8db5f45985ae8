//! The verbs, one file each.

mod answer;
mod arguments;
mod check;
mod checkpoint;
mod connect;
mod create;
mod delete;
mod events;
mod exec;
mod explain;
mod features;
mod flags;
mod image;
mod kill;
mod list;
mod mounts;
mod network;
mod pause;
mod ps;
mod restore;
mod run;
mod spec;
mod start;
mod state;
mod target;
mod update;
mod verb;
mod wait;

pub(crate) use verb::{Global, Verb};

/// All commands, in the order of the help.
pub(crate) const VERBS: &[Verb] = &[
    run::VERB,
    create::VERB,
    start::VERB,
    state::VERB,
    kill::VERB,
    delete::VERB,
    exec::VERB,
    list::VERB,
    ps::VERB,
    pause::PAUSE,
    pause::RESUME,
    update::VERB,
    events::VERB,
    wait::VERB,
    mounts::VERB,
    checkpoint::VERB,
    restore::VERB,
    network::VERB,
    spec::VERB,
    check::VERB,
    explain::VERB,
    features::VERB,
];

/// What `--version` prints after the program's name; engines parse it, and want the word "version"
/// on one line only.
pub(crate) const VERSION_TEXT: &str = concat!(
    "version ",
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("MINIRUN_COMMIT"),
    "\nspec: 1.3.0"
);
