//! One VRRP group: what is believed of its state, and why.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::Moment;
use super::message::Cause;
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
    pub belief: Belief,
    /// Since when that is believed.
    pub since: Moment,
    pub paused_until: Option<Moment>,
    /// When keepalived last said what the group is, and what.
    pub line: Option<(Moment, VrrpState)>,
    /// The last MASTER_RX_LOWER_PRI.
    pub rx_lower: Option<Moment>,
    /// The last time that a repeated one asked for a read.
    pub rx_read: Option<Moment>,
    /// What was last said of its readiness, if anything: what stands in the way, if anything.
    pub obstacle: Option<Option<String>>,
}

/// What is believed of the state of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Belief {
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
        life_after: Moment,
        /// The state before, or that the last line of the past named.
        hint: Option<VrrpState>,
    },
}

impl Belief {
    pub fn vrrp(&self) -> VrrpState {
        match self {
            Self::Known { vrrp, .. } => *vrrp,
            Self::Unknown { .. } => VrrpState::Unknown,
        }
    }
}

impl Group {
    /// A group of which nothing is known: only a sign of life from after `life_after` counts.
    pub fn new(now: Moment, life_after: Moment, planned: &PlannedGroup) -> Self {
        Self {
            vrid: planned.vrid,
            disabled: planned.disabled,
            advertise_interval: planned.advertise_interval,
            peers: Vec::new(),
            addresses: Vec::new(),
            problems: Vec::new(),
            belief: Belief::Unknown { why: Cause::New, life_after, hint: None },
            since: now,
            paused_until: None,
            line: None,
            rx_lower: None,
            rx_read: None,
            obstacle: None,
        }
    }

    /// Whether its state is of interest.
    pub fn is_looked_at(&self) -> bool {
        !self.disabled && self.vrid.is_some()
    }

    /// Whether anything may be done for it.
    pub fn acts(&self) -> bool {
        self.is_looked_at() && self.paused_until.is_none()
    }

    pub fn believe(&mut self, now: Moment, belief: Belief) {
        if self.belief.vrrp() != belief.vrrp() {
            self.since = now;
            self.obstacle = None;
        }
        self.belief = belief;
    }

    /// If the state is not known: only a sign of life from after that moment counts.
    pub fn needs_life_after(&mut self, moment: Moment) {
        if let Belief::Unknown { life_after, .. } = &mut self.belief {
            *life_after = moment;
        }
    }

    pub fn is_writerless(&self) -> bool {
        matches!(self.belief, Belief::Unknown { why: Cause::NoWriter, .. })
    }
}
