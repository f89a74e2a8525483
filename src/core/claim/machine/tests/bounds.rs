//! How much the machine may hold, whatever happens and for however long.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::claim::machine::Machine;
use crate::claim::read_schedule::ReadSchedule;
use crate::model::ids::{EniId, GroupName};

/// Claims in flight for one ENI.
const CLAIMS: usize = 3;
/// Reads in flight: four, and one for each further VPC of one look.
const MAX_READS: usize = 8;

impl Machine {
    /// The configuration and keepalived's groups bound everything that is kept.
    pub(super) fn assert_bounded(&self) {
        let run: BTreeSet<&GroupName> = self.config.groups.iter().map(|g| &g.name).collect();
        assert!(self.groups.keys().all(|name| run.contains(name)), "{:?}", self.groups.keys());
        let held: BTreeSet<Ipv4Addr> = self.groups.values().flat_map(|g| &g.addresses).copied().collect();
        assert!(self.addresses.keys().all(|ip| held.contains(ip)), "{:?}", self.addresses.keys());
        for (ip, address) in &self.addresses {
            assert!(
                address.checks.reads.len() <= ReadSchedule::CAPACITY,
                "{ip}: {} reads are due",
                address.checks.reads.len()
            );
        }
        let interfaces: BTreeSet<_> = self.addresses.values().map(|a| &a.interface).collect();
        assert!(self.interface_enis.keys().all(|name| interfaces.contains(name)), "{:?}", self.interface_enis.keys());
        let flying: Vec<&EniId> = self.claims.values().map(|c| &c.eni).collect();
        for eni in &flying {
            assert!(flying.iter().filter(|other| other == &eni).count() <= CLAIMS, "{flying:?}");
        }
        assert!(self.reads.len() <= MAX_READS, "{} reads in flight", self.reads.len());
        let peers: BTreeSet<Ipv4Addr> = self.groups.values().flat_map(|g| &g.peers).copied().collect();
        assert!(self.peers.keys().all(|ip| peers.contains(ip)), "{:?} beside {peers:?}", self.peers.keys());
        assert!(self.actions.is_empty());
    }
}
