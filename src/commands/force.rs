//! `force`: sends an operator's request to claim, pause, resume or prove to the agent, and prints the result.

use std::io::{self, Write};
use std::time::Duration;

use clap::Subcommand;
use jiff::Timestamp;
use nix::unistd::Uid;
use serde::de::DeserializeOwned;
use vipa_core::model::config::Config;
use vipa_core::model::ids::GroupName;
use vipa_core::model::pause::Minutes;
use vipa_core::report::command::{Target, offer_commands, quoted};
use vipa_core::report::force;
use vipa_core::report::model::{GroupReport, Report};
use vipa_core::report::proof::{self, ProveReport};

use super::print;
use super::show_status::{ShowStatusError, configuration, no_answer};
use crate::control::client::{Client, ClientError};
use crate::control::{ErrorResponse, Request};
use crate::fs::credentials_file::{self, CopyError};
use crate::fs::json_file;
use crate::paths::Paths;

/// The time limit of the agent's answer to every request but a proof. The agent waits up to 5 s for EC2 to answer a claim.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(7);

/// The time limit of a proof, for which the agent waits up to 8 s.
const PROVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The request was not carried out, or not completely.
#[derive(Debug, thiserror::Error)]
pub enum ForceError {
    /// The agent refuses, with the reason and what to do.
    #[error(transparent)]
    Refused(ErrorResponse),
    /// No group has an `aws-vipa` node, so there is no agent.
    #[error(transparent)]
    Configuration(ShowStatusError),
    /// The agent does not answer, with what to do.
    #[error("{0}")]
    NoAnswer(String),
    /// EC2 has not acknowledged a claim of every address.
    #[error("{missing} of {all} not claimed; `show aws-vipa group {group}` shows the progress")]
    NotClaimed {
        /// The group, quoted for a shell.
        group: String,
        /// How many addresses were not claimed.
        missing: usize,
        /// How many the group has.
        all: usize,
    },
    /// EC2 has not shown that it permits everything.
    #[error("{missing} of {all} not proved: see above")]
    NotProved {
        /// How many permissions are not proved.
        missing: usize,
        /// How many were to be proved.
        all: usize,
    },
    /// The credentials file cannot be copied for the agent.
    #[error("cannot copy the credentials file for the agent, so nothing was proved: {0}")]
    Credentials(#[from] CopyError),
    /// The change is in effect, but a restart of the agent loses it.
    #[error("{what} is in effect but not saved, and a restart of the agent or the router loses it: {why}")]
    NotSaved {
        /// A pause, or its end.
        what: &'static str,
        /// Why the agent could not save it.
        why: String,
    },
    /// The result cannot be printed.
    #[error("done, but cannot print the result: {0}")]
    Print(#[source] io::Error),
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Force {
    /// Claim a group's addresses, routes and Elastic IPs now, if the group is MASTER
    Claim {
        /// The VRRP group.
        group: GroupName,
    },
    /// Stop claims for a group for a while
    Pause {
        /// The VRRP group.
        group: GroupName,
        /// Duration in minutes, 1 to 1440.
        #[arg(long, default_value_t)]
        minutes: Minutes,
    },
    /// Prove the permission to claim, without moving anything
    Prove,
    /// End a pause
    Resume {
        /// The VRRP group.
        group: GroupName,
    },
}

impl Force {
    /// Sends the request to the agent, and prints the result.
    ///
    /// # Errors
    /// [`ForceError`].
    pub fn run(self, paths: &Paths, out: &mut impl Write) -> Result<(), ForceError> {
        match self {
            Self::Claim { group: name } => {
                let mut group: GroupReport = answer(paths, call(paths, &Request::Claim { group: name.clone() }))?;
                let (missing, all) = force::missing(&group);
                if missing > 0 {
                    offer_by_hand(paths, &mut group);
                }
                print(out, &force::claimed(&group, Timestamp::now())).map_err(ForceError::Print)?;
                match missing {
                    0 => Ok(()),
                    missing => Err(ForceError::NotClaimed { group: quoted(name.as_str()).into_owned(), missing, all }),
                }
            }
            Self::Pause { group, minutes } => {
                let group: GroupReport = answer(paths, call(paths, &Request::Pause { group, minutes }))?;
                print(out, &force::paused(&group, Timestamp::now())).map_err(ForceError::Print)?;
                kept(group, "the pause")
            }
            Self::Prove => prove(paths, out),
            Self::Resume { group } => {
                let group: GroupReport = answer(paths, call(paths, &Request::Resume { group }))?;
                print(out, &force::resumed(&group)).map_err(ForceError::Print)?;
                kept(group, "the end of the pause")
            }
        }
    }
}

/// Has the agent prove the permission to claim, and prints what it has found out.
fn prove(paths: &Paths, out: &mut impl Write) -> Result<(), ForceError> {
    // The keys that the file has now are to be proved. Without root the agent refuses the request.
    if Uid::effective().is_root()
        && let Ok(config) = json_file::read::<Config>(&paths.config)
        && let Some(file) = &config.global.credentials_file
    {
        credentials_file::install(paths, file)?;
    }
    let asked = Client::connect(&paths.socket, PROVE_TIMEOUT).and_then(|mut client| client.call(&Request::Prove));
    let report: ProveReport = answer(paths, asked)?;
    print(out, &proof::table(&report)).map_err(ForceError::Print)?;
    let all = report.findings.len();
    match report.findings.iter().filter(|(_, finding)| !finding.is_allowed()).count() {
        0 => match report.not_saved {
            Some(why) => Err(ForceError::NotSaved { what: "the proof", why }),
            None => Ok(()),
        },
        missing => Err(ForceError::NotProved { missing, all }),
    }
}

/// Whether the agent has saved the change.
fn kept(group: GroupReport, what: &'static str) -> Result<(), ForceError> {
    match group.pause_not_saved {
        Some(why) => Err(ForceError::NotSaved { what, why }),
        None => Ok(()),
    }
}

/// Adds the commands for manual claims to a group whose claims have failed.
fn offer_by_hand(paths: &Paths, group: &mut GroupReport) {
    let Ok(config) = json_file::read::<Config>(&paths.config) else { return };
    let region = config.global.region.or_else(|| {
        let report: Result<Report, ClientError> = call(paths, &Request::Status { fresh: false, history: 0 });
        report.ok()?.ec2.region
    });
    if let Some(region) = &region {
        offer_commands(group, Target { region, endpoint_url: config.global.endpoint_url.as_deref() });
    }
}

fn call<T: DeserializeOwned>(paths: &Paths, request: &Request) -> Result<T, ClientError> {
    Client::connect(&paths.socket, CLAIM_TIMEOUT)?.call(request)
}

fn answer<T>(paths: &Paths, answer: Result<T, ClientError>) -> Result<T, ForceError> {
    answer.map_err(|error| match error {
        ClientError::Refused(refusal) => ForceError::Refused(refusal),
        error => {
            let why = no_answer(&paths.socket, error);
            match configuration(paths, &why) {
                Err(error @ ShowStatusError::NotConfigured) => ForceError::Configuration(error),
                _ => ForceError::NoAnswer(why),
            }
        }
    })
}
