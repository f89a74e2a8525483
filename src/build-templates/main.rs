//! `build-templates`: generates VyOS command templates from XML definitions: trees of `node.def` files, the cache of
//! `vyos.xml_ref`, and the commands that vyos-op-run runs.
//!
//! The output equals that of VyOS 1.4 (vyos-1x scripts/build-command-templates, scripts/build-command-op-templates and
//! python/vyos/xml_ref/generate_cache.py) and, except for the quotes in commands, that of VyOS rolling
//! (python/vyos/xml_ref/generate_op_cache.py). All definitions that the schemas allow are accepted, except commands for
//! vyos-op-run whose arguments cannot be quoted. Parts of a definition that have no effect, or that VyOS's own generators
//! drop or change, cause a warning. After an error nothing is written.

mod cache;
mod completion;
mod config;
mod config_node_def;
mod error;
mod node_def;
mod node_name;
mod op;
mod op_cache;
mod output;
mod source;
mod wrap;
mod xml;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser};

/// Generate VyOS command templates from XML definitions
#[derive(Debug, Parser)]
#[command(version)]
enum Command {
    /// Generate the node.def files of configuration nodes
    Config(Templates),
    /// Generate the node.def files of operational commands
    Op(Templates),
    /// Generate the vyos.xml_ref cache of configuration nodes
    Cache(Cache),
    /// Generate the operational commands' part of VyOS's op_cache.json
    OpCache(Cache),
}

#[derive(Debug, Args)]
struct Templates {
    /// XML definitions; several files may define the same node if the definitions agree
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Output directory; must be empty if it exists
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Skip nodes without properties
    ///
    /// VyOS generates a node.def for such intermediate nodes too. An add-on must not install it: another package owns
    /// the node.
    #[arg(long)]
    owned_only: bool,
}

#[derive(Debug, Args)]
struct Cache {
    /// XML definitions; several files may define the same node if the definitions agree
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// File to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl Command {
    fn run(self) -> Result<(), Box<dyn Error>> {
        match self {
            Self::Config(Templates { files, out, owned_only }) => {
                Ok(config_node_def::render(&config::read(&files)?, owned_only).write(&out)?)
            }
            Self::Op(Templates { files, out, owned_only }) => {
                Ok(op::render(&op::read(&files)?, owned_only).write(&out)?)
            }
            Self::Cache(Cache { files, out }) => Ok(output::write_file(&out, &cache::render(&config::read(&files)?))?),
            Self::OpCache(Cache { files, out }) => {
                Ok(output::write_file(&out, &op_cache::render(&op::read(&files)?)?)?)
            }
        }
    }
}

fn main() -> ExitCode {
    match Command::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("build-templates: {error}");
            ExitCode::FAILURE
        }
    }
}
