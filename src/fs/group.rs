//! The groups that the package creates (debian/vyos-aws-vipa.sysusers).

use std::io;

use nix::unistd::{Gid, Group};

/// The group that may open the agent's socket and so read the status. The operator chooses its members.
pub(crate) const STATUS_GROUP: &str = "vyos-aws-vipa";

/// The group that may read the FIFO and the copy of the credentials file. It has no members: another reader would take
/// notify events away from the agent, and only the agent may have the keys. The agent's unit adds the agent
/// (SupplementaryGroups in debian/vyos-aws-vipa.service).
pub(crate) const AGENT_GROUP: &str = "vyos-aws-vipa-agent";

/// The id of a group cannot be determined.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message of a variant says what its fields are")]
pub enum GroupError {
    /// The group does not exist.
    #[error("there is no group {0}: `systemd-sysusers` creates it from the package's sysusers.d file")]
    Missing(&'static str),
    /// The lookup failed.
    #[error("cannot look up the group {name}: {source}")]
    Lookup { name: &'static str, source: io::Error },
}

/// The id of a group.
///
/// # Errors
/// [`GroupError`].
pub(crate) fn gid(name: &'static str) -> Result<Gid, GroupError> {
    let group = Group::from_name(name).map_err(|error| GroupError::Lookup { name, source: error.into() })?;
    Ok(group.ok_or(GroupError::Missing(name))?.gid)
}
