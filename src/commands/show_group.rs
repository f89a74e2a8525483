//! `show group`: everything that is known of one group.

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

/// Nothing could be told of the group, or not printed.
#[derive(Debug, thiserror::Error)]
pub enum ShowGroupError {
    /// There is no report.
    #[error(transparent)]
    Status(#[from] ShowStatusError),
    /// The report does not name it.
    #[error("group {} has no aws-vipa node; groups with one: {others}", .name.escape_debug())]
    NoSuchGroup {
        /// The group.
        name: String,
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
    pub group: String,
}

impl ShowGroup {
    /// Prints what the agent knows of the group, or else what can be seen without it, for whoever has `access`;
    /// with `imds` for the latter.
    ///
    /// # Errors
    /// [`ShowGroupError`].
    pub fn run(&self, paths: &Paths, imds: &Imds, access: Access, out: &mut impl Write) -> Result<(), ShowGroupError> {
        let report = show_status::report(paths, imds, access, false, MAX_RECORDS)?;
        let of_group = match GroupName::try_from(self.group.as_str()) {
            Ok(name) => report.only(&name),
            // Nothing has ever happened to it.
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
