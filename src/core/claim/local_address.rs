//! The virtual addresses of a group on this router's interfaces: the evidence of MASTER.

use std::collections::BTreeSet;

use super::BootInstant;
use super::event::Misplaced;
use crate::model::assignment::{PlannedAddress, is_there};
use crate::model::ids::{GroupName, InterfaceName};

/// One virtual address.
#[derive(Debug)]
pub struct LocalAddress {
    pub group: GroupName,
    /// The interface that keepalived adds the address to.
    pub held_on: InterfaceName,
    pub outside_vrrp: bool,
    /// When the address was last added to, or removed from, its interface.
    pub since: Option<BootInstant>,
    /// The contradiction that was last logged.
    pub misplaced: Option<Misplaced>,
}

impl LocalAddress {
    /// An address that is new to this group.
    pub fn new(now: BootInstant, group: GroupName, planned: PlannedAddress) -> Self {
        let PlannedAddress { address: _, held_on, outside_vrrp } = planned;
        Self { group, held_on, outside_vrrp, since: Some(now), misplaced: None }
    }

    /// Applies another plan for the address of the same group. Returns whether it has to be seen on its interface again.
    pub fn replan(&mut self, now: BootInstant, planned: PlannedAddress) -> bool {
        let PlannedAddress { address: _, held_on, outside_vrrp } = planned;
        self.outside_vrrp = outside_vrrp;
        if self.held_on == held_on {
            return false;
        }
        self.held_on = held_on;
        self.since = Some(now);
        true
    }

    /// Whether one of the interfaces that have the address is the one that keepalived adds it to.
    pub fn is_there(&self, having: Option<&BTreeSet<InterfaceName>>) -> bool {
        having.is_some_and(|having| is_there(&self.held_on, having))
    }
}
