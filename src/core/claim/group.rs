//! One VRRP group: what is believed of its state, and why.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::BootInstant;
use super::event::Cause;
use crate::model::assignment::{PlannedGroup, Problem};
use crate::model::vrrp::VrrpState;

/// One VRRP group.
#[derive(Debug)]
pub struct Group {
    /// Its virtual router id; none if keepalived does not run it.
    pub vrid: Option<u8>,
    pub disabled: bool,
    /// How often keepalived does something for it.
    pub advertise_interval: Duration,
    pub peers: Vec<Ipv4Addr>,
    /// The addresses that are moved for it.
    pub addresses: Vec<Ipv4Addr>,
    pub problems: Vec<Problem>,
    pub state: GroupState,
    /// Since when that is believed.
    pub since: BootInstant,
    pub paused_until: Option<BootInstant>,
    /// When keepalived last said what the group is, and what.
    pub line: Option<(BootInstant, VrrpState)>,
    /// The last MASTER_RX_LOWER_PRI.
    pub rx_lower: Option<BootInstant>,
    /// The last time that a repeated one asked for a read.
    pub rx_read: Option<BootInstant>,
    /// What was last said of its readiness, if anything: what stands in the way, if anything.
    pub obstacle: Option<Option<String>>,
}

/// What is believed of the state of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupState {
    /// A line or the interface says so.
    Known {
        /// MASTER, BACKUP, FAULT or STOP.
        vrrp: VrrpState,
        /// Which of the two.
        cause: Cause,
    },
    /// Nothing that could be relied on: the interface decides, once keepalived has been alive after that moment.
    Unknown {
        /// Why.
        why: Cause,
        /// The moment.
        liveness_after: BootInstant,
        /// The state before, or that the last line of the past named.
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
    /// A group of which nothing is known: only a sign of life from after `liveness_after` counts.
    pub fn new(now: BootInstant, liveness_after: BootInstant, planned: &PlannedGroup) -> Self {
        Self {
            vrid: planned.vrid,
            disabled: planned.disabled,
            advertise_interval: planned.advertise_interval,
            peers: Vec::new(),
            addresses: Vec::new(),
            problems: Vec::new(),
            state: GroupState::Unknown { why: Cause::New, liveness_after, last_known: None },
            since: now,
            paused_until: None,
            line: None,
            rx_lower: None,
            rx_read: None,
            obstacle: None,
        }
    }

    /// Whether its state is of interest.
    pub fn is_active(&self) -> bool {
        !self.disabled && self.vrid.is_some()
    }

    /// Whether anything may be done for it.
    pub fn acts(&self) -> bool {
        self.is_active() && self.paused_until.is_none()
    }

    pub fn set_state(&mut self, now: BootInstant, state: GroupState) {
        if self.state.vrrp() != state.vrrp() {
            self.since = now;
            self.obstacle = None;
        }
        self.state = state;
    }

    /// If the state is not known: only a sign of life from after that moment counts.
    pub fn require_liveness_after(&mut self, moment: BootInstant) {
        if let GroupState::Unknown { liveness_after, .. } = &mut self.state {
            *liveness_after = moment;
        }
    }

    pub fn is_writerless(&self) -> bool {
        matches!(self.state, GroupState::Unknown { why: Cause::NoWriter, .. })
    }
}
