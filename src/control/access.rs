//! Who may see what the agent knows.

use nix::unistd::{Gid, Group, Uid};

/// The group that may open the agent's socket.
const SOCKET_GROUP: &str = "vyos-aws-vipa";

/// Whether somebody may see what this router does, and have it ask EC2 with its own credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Root, and whoever may open the agent's socket.
    Granted,
    /// Everybody else.
    Denied,
}

impl Access {
    /// That of the user who runs this process.
    pub fn of_this_process() -> Self {
        if Uid::effective().is_root() {
            return Self::Granted;
        }
        let Ok(Some(Group { gid, .. })) = Group::from_name(SOCKET_GROUP) else { return Self::Denied };
        let others = nix::unistd::getgroups().unwrap_or_default();
        if Gid::effective() == gid || others.contains(&gid) { Self::Granted } else { Self::Denied }
    }
}
