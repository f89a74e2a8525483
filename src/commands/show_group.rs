//! `show group`: everything that is known of one group.

use std::io::{self, Write};

use super::print;
use super::show_status::{self, ShowStatusError};
use crate::aws::Imds;
use crate::names::GroupName;
use crate::paths::Paths;
use crate::state::HISTORY;
use crate::status::group::group;

/// Nothing could be told of the group, or not printed.
#[derive(Debug, thiserror::Error)]
pub enum ShowGroupError {
    /// There is no report.
    #[error(transparent)]
    Status(#[from] ShowStatusError),
    /// The report does not name it.
    #[error("group {name} has no aws-vipa node; those that have one: {others}")]
    NoSuchGroup {
        /// The group.
        name: GroupName,
        /// The groups that there are.
        others: String,
    },
    /// Standard output does not take it.
    #[error("cannot print the group: {0}")]
    Print(#[source] io::Error),
}

/// Which group.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct ShowGroup {
    /// The VRRP group.
    pub group: GroupName,
}

impl ShowGroup {
    /// Prints what the agent knows of the group, or else what can be seen without it; with `imds` for the latter.
    ///
    /// # Errors
    /// [`ShowGroupError`].
    pub fn run(&self, paths: &Paths, imds: &Imds, out: &mut impl Write) -> Result<(), ShowGroupError> {
        let report = show_status::report(paths, imds, false, HISTORY)?;
        let of_group = report.only(&self.group).ok_or_else(|| ShowGroupError::NoSuchGroup {
            name: self.group.clone(),
            others: report.groups.iter().map(|g| g.name.escape_debug().to_string()).collect::<Vec<_>>().join(", "),
        })?;
        print(out, &group(&of_group)).map_err(ShowGroupError::Print)
    }
}
