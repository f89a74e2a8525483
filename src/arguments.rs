//! The command line.

use clap::Parser;

use crate::commands::Command;

/// Moves VRRP virtual addresses of VyOS routers in AWS to the router that is master.
#[derive(Debug, Parser)]
#[command(name = "vyos-aws-vipa", version, max_term_width = 100)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}
