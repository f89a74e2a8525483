//! VRRP as keepalived reports it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ids::GroupName;

/// The state of a VRRP instance (RFC 9568 and 5798, section 6.4, and keepalived's own FAULT and STOP).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum VrrpState {
    /// It has the virtual addresses.
    Master,
    /// It stands by.
    Backup,
    /// An interface or a script that it tracks is down.
    Fault,
    /// keepalived stopped it.
    Stop,
    /// Unknown, or unreliable.
    Unknown,
}

impl fmt::Display for VrrpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Master => "MASTER",
            Self::Backup => "BACKUP",
            Self::Fault => "FAULT",
            Self::Stop => "STOP",
            Self::Unknown => "UNKNOWN",
        })
    }
}

/// The states that a line of keepalived's notify FIFO can name (keepalived.conf(5), `vrrp_notify_fifo`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotifyState {
    /// It has become master.
    Master,
    /// It is master and has received an advertisement of another master with lower priority.
    MasterRxLowerPri,
    /// It stands by.
    Backup,
    /// An interface or a script that it tracks is down.
    Fault,
    /// keepalived is stopping.
    Stop,
    /// The group is gone from the configuration.
    Deleted,
}

impl NotifyState {
    /// The VRRP state that the event reports.
    pub fn vrrp(self) -> VrrpState {
        match self {
            Self::Master | Self::MasterRxLowerPri => VrrpState::Master,
            Self::Backup => VrrpState::Backup,
            Self::Fault => VrrpState::Fault,
            Self::Stop | Self::Deleted => VrrpState::Stop,
        }
    }
}

/// A notify event that names a state of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotifyEvent {
    /// The name of the `vrrp_instance`, which in VyOS is the name of the group.
    pub group: GroupName,
    /// The state that the instance has entered, or that it has received a lower-priority advertisement.
    pub state: NotifyState,
}
