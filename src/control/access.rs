//! Who may read the agent's status.

use nix::unistd::{Gid, Uid};

use crate::fs::group::{self, STATUS_GROUP};

/// Whether a user may read this router's status.
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
        let Ok(gid) = group::gid(STATUS_GROUP) else { return Self::Denied };
        let others = nix::unistd::getgroups().unwrap_or_default();
        if Gid::effective() == gid || others.contains(&gid) { Self::Granted } else { Self::Denied }
    }
}
