//! The roles in which minisup starts itself. Nobody else asks for them.
//!
//! They have a parser of their own: these processes stay, and what the parser of the whole command
//! line makes (a quarter of a mebibyte, of which the allocator gives nothing back) would stay in
//! each of them.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{brain, init, keeper, plane};

#[derive(Parser, Debug)]
#[command(name = "minisup")]
struct Call {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Role {
    /// Run as the keeper of a project
    Keeper {
        project: String,
        #[arg(long)]
        heritage_fd: Option<i32>,
        #[arg(long)]
        plane_pid: Option<i32>,
        #[arg(long)]
        estate_fd: Option<i32>,
    },
    /// Run as the first process of a container
    Init {
        #[arg(trailing_var_arg = true, required = true)]
        words: Vec<String>,
    },
    /// Run as the brain of a project
    Brain {
        project: String,
        #[arg(long)]
        keeper_fd: i32,
    },
    /// Run as the data plane of a project
    Plane { project: String },
}

impl Role {
    /// The role that this process was started in, if its first argument is the name of one.
    pub(crate) fn of_this_process() -> Option<Role> {
        let first = std::env::args_os().nth(1)?;
        Role::has_subcommand(first.to_str()?).then(|| Call::parse().role)
    }

    /// Plays it to its end.
    pub(crate) fn play(self) -> Result<ExitCode> {
        match self {
            Role::Keeper { project, heritage_fd, plane_pid, estate_fd } => {
                keeper::run(&project, heritage_fd, plane_pid, estate_fd)?;
            }
            Role::Init { words } => {
                let status = init::run(&words)?;
                return Ok(ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX)));
            }
            Role::Brain { project, keeper_fd } => brain::run(&project, keeper_fd)?,
            Role::Plane { project } => plane::run(&project)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn no_command_has_the_name_of_a_role() {
        Call::command().debug_assert();
        let (roles, commands) = (Call::command(), Cli::command());
        for role in roles.get_subcommands() {
            assert!(commands.find_subcommand(role.get_name()).is_none(), "{}", role.get_name());
        }
    }
}
