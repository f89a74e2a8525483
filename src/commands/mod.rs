//! The commands, one file each.

pub mod agent;
pub mod commit;
pub mod completion;
pub mod credentials;
pub mod force;
pub mod hook;
pub mod iam_policy;
pub mod owner;
pub mod repeated_call;
pub mod restart;
pub mod show_check;
pub mod show_failover;
pub mod show_group;
pub mod show_status;

use std::error::Error;
use std::io::{self, Write};

use clap::Subcommand;
use vipa_core::printable;
use vipa_core::report::status::indented;

use crate::aws::Imds;
use crate::control::Access;
use crate::paths::Paths;

/// A command of `vyos-aws-vipa`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Apply a configuration from VyOS, given as JSON on standard input
    Commit(commit::Commit),
    /// Run VyOS's owner script for the aws-vipa nodes, if this call of a commit has something left to do
    #[command(hide = true)]
    Owner(owner::OwnerScript),
    /// Keep the hook in keepalived.conf, and write the groups that keepalived runs to groups.json
    ///
    /// keepalived.service runs it before each start and reload. It uses no network and does not wait.
    Hook,
    /// Copy a changed credentials file for the agent (run by vyos-aws-vipa-credentials.service)
    Credentials,
    /// Run the agent, which claims what the groups move when keepalived reports MASTER (run by vyos-aws-vipa.service)
    Agent,
    /// Print completions for VyOS
    Completion {
        #[command(subcommand)]
        /// The value to complete.
        of: completion::Completion,
    },
    /// Show the state, or check failover readiness
    Show {
        #[command(subcommand)]
        /// What to show.
        what: Show,
    },
    /// Generate an IAM policy
    Generate {
        #[command(subcommand)]
        /// What to generate.
        what: Generate,
    },
    /// Claim now, pause and resume claiming, or prove the permission (root only)
    Force {
        #[command(subcommand)]
        /// What to do.
        what: force::Force,
    },
    /// Restart the agent if it is configured (root only)
    Restart,
}

/// What to show.
#[derive(Debug, Subcommand)]
pub enum Show {
    /// Show VRRP state, local address and EC2 owner of the virtual addresses
    Status(show_status::ShowStatus),
    /// Show one group in detail
    Group(show_group::ShowGroup),
    /// Show the timelines of the last failovers
    Failover(show_failover::ShowFailover),
    /// Check failover readiness
    Check,
}

/// What to print.
#[derive(Debug, Subcommand)]
pub enum Generate {
    /// Print an IAM policy with the least permissions that this configuration needs
    IamPolicy(iam_policy::IamPolicy),
}

impl Command {
    /// Whether an operator waits for its output.
    pub fn is_for_a_person(&self) -> bool {
        matches!(self, Self::Show { .. } | Self::Generate { .. } | Self::Force { .. } | Self::Restart)
    }

    /// Runs the command.
    ///
    /// # Errors
    /// Each command's own error.
    pub fn run(self, paths: &Paths) -> Result<(), Box<dyn Error>> {
        match self {
            Self::Commit(commit) => Ok(commit.run(paths, &mut io::stdin().lock(), &mut io::stdout().lock())?),
            Self::Owner(owner) => Ok(owner.run(paths)?),
            Self::Hook => Ok(hook::run(paths, &mut io::stderr().lock())?),
            Self::Credentials => Ok(credentials::run(paths)?),
            Self::Agent => Ok(agent::run(paths)?),
            Self::Completion { of } => Ok(of.run(paths, &mut io::stdout().lock())?),
            Self::Show { what } => {
                let (imds, access, mut out) = (Imds::new(), Access::of_this_process(), io::stdout().lock());
                match what {
                    Show::Status(status) => Ok(status.run(paths, &imds, access, &mut out)?),
                    Show::Check => Ok(show_check::run(paths, &imds, access, &mut out)?),
                    Show::Failover(failover) => Ok(failover.run(paths, &mut out)?),
                    Show::Group(group) => Ok(group.run(paths, &imds, access, &mut out)?),
                }
            }
            Self::Generate { what: Generate::IamPolicy(policy) } => {
                Ok(policy.run(paths, &Imds::new(), &mut io::stdout().lock(), &mut io::stderr().lock())?)
            }
            Self::Force { what } => Ok(what.run(paths, &mut io::stdout().lock())?),
            Self::Restart => Ok(restart::run(paths)?),
        }
    }
}

/// Wraps a line for a terminal of 80 columns.
pub fn wrapped(line: &str) -> String {
    let mut text = String::new();
    indented(&mut text, 0, [line.to_owned()]);
    text
}

/// Prints a text, with non-printable characters escaped. A closed pipe is not an error.
fn print(out: &mut impl Write, text: &str) -> io::Result<()> {
    match out.write_all(printable::lines(text).as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}
