//! The command line.

use std::error::Error;

use clap::Parser;
use clap::error::{ContextKind, ErrorKind};

use crate::commands::Command;

/// Moves VRRP virtual addresses of VyOS routers in AWS to the router that is master.
#[derive(Debug, Parser)]
#[command(name = "vyos-aws-vipa", version, max_term_width = 100)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What is wrong with a value, and what to do, if that is the error: whoever types VyOS's commands sees no option of ours.
pub fn bad_value(error: &clap::Error) -> Option<String> {
    let reason = error.source().filter(|_| error.kind() == ErrorKind::ValueValidation)?;
    let is_group = error.get(ContextKind::InvalidArg).is_some_and(|argument| argument.to_string() == "<GROUP>");
    Some(format!("{reason}{}", if is_group { "; `show aws-vipa status` lists the groups" } else { "" }))
}
