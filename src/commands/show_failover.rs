//! `show failover`: the timelines of the last failovers, which only the agent has.

use std::io::{self, Write};

use vipa_core::model::ids::GroupName;
use vipa_core::printable;
use vipa_core::report::failover::{FailoverReport, failover};

use super::print;
use super::show_status::{AGENT_TIMEOUT, ShowStatusError, configuration, no_answer};
use crate::control::Request;
use crate::control::client::{Client, ClientError};
use crate::paths::Paths;

/// The timelines could not be shown.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message of a variant says what its fields are")]
pub enum ShowFailoverError {
    /// Nothing is configured, the configuration cannot be read, or the user is not permitted.
    #[error(transparent)]
    Configuration(#[from] ShowStatusError),
    /// The agent does not answer, with what to do.
    #[error("{0}")]
    NoAnswer(String),
    /// The report has no such group.
    #[error("group {} has no aws-vipa node; groups with one: {others}", .name.escape_debug())]
    NoSuchGroup {
        name: String,
        /// The groups in the report.
        others: String,
    },
    /// The timelines cannot be printed.
    #[error("cannot print the timelines: {0}")]
    Print(#[source] io::Error),
}

/// Which group, and in which form.
#[derive(Debug, Clone, PartialEq, Eq, Default, clap::Args)]
pub struct ShowFailover {
    /// Print JSON in a stable format.
    #[arg(long)]
    pub json: bool,
    /// The VRRP group; without it, all groups.
    pub group: Option<String>,
}

impl ShowFailover {
    /// Prints the timelines of the last failovers.
    ///
    /// # Errors
    /// [`ShowFailoverError`]. That there was none is no error.
    pub fn run(&self, paths: &Paths, out: &mut impl Write) -> Result<(), ShowFailoverError> {
        let report = ask(paths)?;
        let report = match &self.group {
            None => report,
            Some(group) => of_group(&report, group)?,
        };
        let text = if self.json {
            let text = serde_json::to_string_pretty(&report).map_err(|e| ShowFailoverError::Print(e.into()))? + "\n";
            printable::json(&text).into_owned()
        } else {
            failover(&report)
        };
        print(out, &text).map_err(ShowFailoverError::Print)
    }
}

fn of_group(report: &FailoverReport, name: &str) -> Result<FailoverReport, ShowFailoverError> {
    let of_group = GroupName::try_from(name).ok().and_then(|name| report.only(&name));
    of_group.ok_or_else(|| ShowFailoverError::NoSuchGroup {
        name: name.to_owned(),
        others: report.groups.iter().map(|g| g.name.escape_debug().to_string()).collect::<Vec<_>>().join(", "),
    })
}

fn ask(paths: &Paths) -> Result<FailoverReport, ShowFailoverError> {
    let answer = Client::connect(&paths.socket, AGENT_TIMEOUT).and_then(|mut client| client.call(&Request::Failovers));
    answer.map_err(|error| {
        let denied = matches!(error, ClientError::NotPermitted);
        let why = no_answer(&paths.socket, error);
        match configuration(paths, &why) {
            Err(error @ ShowStatusError::NotConfigured) => error.into(),
            _ if denied => ShowStatusError::NotPermitted.into(),
            _ => ShowFailoverError::NoAnswer(why),
        }
    })
}
