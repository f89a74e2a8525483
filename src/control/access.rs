//! Who may read the agent's status.

use nix::unistd::{Gid, Group, Uid};

/// The agent's group, which may open its socket and read its copy of the credentials file. Its members are for the
/// operator to choose. debian/vyos-aws-vipa.sysusers creates it with the agent's user.
pub(crate) const AGENT_GROUP: &str = "vyos-aws-vipa";

/// Whether a user may read this router's status, and call EC2 with the router's credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Root, and users who may open the agent's socket.
    Granted,
    /// All other users.
    Denied,
}

impl Access {
    /// The access of the user who runs this process.
    pub fn of_this_process() -> Self {
        if Uid::effective().is_root() {
            return Self::Granted;
        }
        let Ok(Some(Group { gid, .. })) = Group::from_name(AGENT_GROUP) else { return Self::Denied };
        let others = nix::unistd::getgroups().unwrap_or_default();
        if Gid::effective() == gid || others.contains(&gid) { Self::Granted } else { Self::Denied }
    }
}
