//! `show group`: all details of one group.

use std::io::{self, Write};

use vipa_core::model::history::MAX_RECORDS;
use vipa_core::model::ids::GroupName;
use vipa_core::report::group::group;
use vipa_core::report::model::Report;

use super::print;
use super::show_status::{self, ShowStatusError};
use crate::aws::Imds;
use crate::control::Access;
use crate::paths::Paths;

/// The group could not be shown.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message of a variant says what its fields are")]
pub enum ShowGroupError {
    /// There is no report.
    #[error(transparent)]
    Status(#[from] ShowStatusError),
    /// The report has no such group.
    #[error("group {} has no aws-vipa node; groups with one: {others}", .name.escape_debug())]
    NoSuchGroup {
        name: String,
        /// The groups in the report.
        others: String,
    },
    /// The group cannot be printed.
    #[error("cannot print the group: {0}")]
    Print(#[source] io::Error),
}

/// Which group.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct ShowGroup {
    /// The VRRP group.
    pub group: String,
}

impl ShowGroup {
    /// Prints the agent's report about the group. If the agent does not answer, and `access` permits it, prints what can be
    /// observed without it, with the help of `imds`.
    ///
    /// # Errors
    /// [`ShowGroupError`].
    pub fn run(&self, paths: &Paths, imds: &Imds, access: Access, out: &mut impl Write) -> Result<(), ShowGroupError> {
        let report = show_status::report(paths, imds, access, false, MAX_RECORDS)?;
        let of_group = match GroupName::try_from(self.group.as_str()) {
            Ok(name) => report.only(&name),
            // A group with an invalid name is skipped, so it has no history.
            Err(_) => report.groups.iter().find(|g| g.name == self.group).map(|group| Report {
                groups: vec![group.clone()],
                history: Vec::new(),
                ..report.clone()
            }),
        };
        let of_group = of_group.ok_or_else(|| ShowGroupError::NoSuchGroup {
            name: self.group.clone(),
            others: report.groups.iter().map(|g| g.name.escape_debug().to_string()).collect::<Vec<_>>().join(", "),
        })?;
        print(out, &group(&of_group)).map_err(ShowGroupError::Print)
    }
}
