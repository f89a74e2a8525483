//! The state of one VRRP group, and its cause.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::BootInstant;
use super::event::Cause;
use super::reason::Obstacle;
use crate::model::assignment::{PlannedGroup, Problem};
use crate::model::resource::Resource;
use crate::model::vrrp::VrrpState;

/// One VRRP group.
#[derive(Debug)]
pub struct Group {
    /// The virtual router id; absent if keepalived does not run the group.
    pub vrid: Option<u8>,
    pub disabled: bool,
    /// keepalived is active for the group once in this interval.
    pub advertise_interval: Duration,
    pub peers: Vec<Ipv4Addr>,
    /// The virtual addresses that show whether the group is MASTER.
    pub addresses: Vec<Ipv4Addr>,
    /// What this package moves for the group.
    pub resources: Vec<Resource>,
    pub problems: Vec<Problem>,
    pub state: GroupState,
    /// Since when the group has this VRRP state.
    pub since: BootInstant,
    pub paused_until: Option<BootInstant>,
    /// The time and the VRRP state of the last notify event.
    pub last_notify: Option<(BootInstant, VrrpState)>,
    /// The last MASTER_RX_LOWER_PRI.
    pub rx_lower: Option<BootInstant>,
    /// When a repeated MASTER_RX_LOWER_PRI last caused a read.
    pub rx_read: Option<BootInstant>,
    /// When keepalived was first active again, if that contradicts FAULT ([`Group::is_in_fault_without_notify`]).
    pub timer_seen: Option<BootInstant>,
    /// The readiness that was last logged, if any: what prevents a takeover, if anything.
    pub obstacle: Option<Option<Obstacle>>,
}

/// The VRRP state of a group, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupState {
    /// A notify event gave the state, or it was inferred.
    Known {
        /// MASTER, BACKUP, FAULT or STOP.
        vrrp: VrrpState,
        /// Where the state comes from.
        cause: Cause,
    },
    /// The state is not reliable: it is inferred from the local addresses once keepalived has been active after
    /// `liveness_after`. For addresses that were just added, their notify event is awaited first.
    Unknown {
        /// Why the state is not reliable.
        why: Cause,
        /// Liveness before this time does not count.
        liveness_after: BootInstant,
        /// The last known state: the previous one, or that of the last notify event in a backlog.
        last_known: Option<VrrpState>,
    },
}

impl GroupState {
    pub fn vrrp(&self) -> VrrpState {
        match self {
            Self::Known { vrrp, .. } => *vrrp,
            Self::Unknown { .. } => VrrpState::Unknown,
        }
    }
}

impl Group {
    /// A group in an unknown state. Liveness before `liveness_after` does not count.
    pub fn new(now: BootInstant, liveness_after: BootInstant, planned: &PlannedGroup) -> Self {
        Self {
            vrid: planned.vrid,
            disabled: planned.disabled,
            advertise_interval: planned.advertise_interval,
            peers: Vec::new(),
            addresses: Vec::new(),
            resources: Vec::new(),
            problems: Vec::new(),
            state: GroupState::Unknown { why: Cause::New, liveness_after, last_known: None },
            since: now,
            paused_until: None,
            last_notify: None,
            rx_lower: None,
            rx_read: None,
            timer_seen: None,
            obstacle: None,
        }
    }

    /// Whether keepalived runs the group and it is enabled.
    pub fn is_active(&self) -> bool {
        !self.disabled && self.vrid.is_some()
    }

    /// Whether the group is active and not paused.
    pub fn acts(&self) -> bool {
        self.is_active() && self.paused_until.is_none()
    }

    pub fn set_state(&mut self, now: BootInstant, state: GroupState) {
        if self.state.vrrp() != state.vrrp() {
            self.since = now;
            self.obstacle = None;
            self.timer_seen = None;
        }
        self.state = state;
    }

    /// If the state is unknown: liveness before `moment` does not count.
    pub fn require_liveness_after(&mut self, moment: BootInstant) {
        if let GroupState::Unknown { liveness_after, .. } = &mut self.state {
            *liveness_after = moment;
        }
    }

    /// Whether the group counts as in FAULT only because keepalived slept, and no notify event said so.
    pub fn is_in_fault_without_notify(&self) -> bool {
        matches!(self.state, GroupState::Known { vrrp: VrrpState::Fault, cause: Cause::NoTimer })
            && self.last_notify.is_none_or(|(_, vrrp)| vrrp != VrrpState::Fault)
    }
}
