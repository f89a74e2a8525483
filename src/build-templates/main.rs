//! `build-templates`: turns VyOS's XML definitions of commands into what VyOS reads: trees of `node.def` files and the
//! cache of `vyos.xml_ref`. It runs when the package is made, is no part of it, and shares nothing with it.
//!
//! Its output equals that of VyOS 1.4 (vyos-1x scripts/build-command-templates, scripts/build-command-op-templates and
//! python/vyos/xml_ref/generate_cache.py); what it cannot generate alike it refuses, and what VyOS would drop or break
//! without a word as well. It writes all or nothing.

mod cache;
mod completion;
mod config;
mod config_templates;
mod fold;
mod node_name;
mod op;
mod output;
mod refusal;
mod xml;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser};

/// Turns VyOS's XML definitions of commands into what VyOS reads.
#[derive(Debug, Parser)]
#[command(version)]
enum Command {
    /// Generate the node.def files of configuration nodes
    Config(Templates),
    /// Generate the node.def files of operational commands
    Op(Templates),
    /// Generate the cache of vyos.xml_ref for configuration nodes
    Cache(Cache),
}

#[derive(Debug, Args)]
struct Templates {
    /// XML definitions; a node may stand in several files, if they agree
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Folder to make; it may be there, if it is empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Leave out nodes without properties, which only lead to others
    ///
    /// VyOS generates a node.def for them too. An add-on may not install it: the node belongs to another package.
    #[arg(long)]
    owned_only: bool,
}

#[derive(Debug, Args)]
struct Cache {
    /// XML definitions of configuration nodes
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Python file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl Command {
    fn run(self) -> Result<(), Box<dyn Error>> {
        match self {
            Self::Config(Templates { files, out, owned_only }) => {
                Ok(config_templates::render(&config::read(&files)?, owned_only).write(&out)?)
            }
            Self::Op(Templates { files, out, owned_only }) => {
                Ok(op::render(&op::read(&files)?, owned_only)?.write(&out)?)
            }
            Self::Cache(Cache { files, out }) => Ok(output::write_file(&out, &cache::render(&config::read(&files)?))?),
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
