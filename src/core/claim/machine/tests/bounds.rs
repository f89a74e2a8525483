//! How much the machine may hold, whatever happens and for however long.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::claim::machine::dry_runs::MAX_DRY_RUNS;
use crate::claim::machine::{Channel, Machine};
use crate::claim::read_schedule::ReadSchedule;
use crate::model::ids::GroupName;
use crate::model::resource::{Kind, Resource};

/// Claims of addresses in flight for one ENI.
const CLAIMS: usize = 3;
/// Claims of routes and Elastic IPs in flight.
const SINGLE_CLAIMS: usize = 16;
/// Reads of owners of addresses in flight: four, and one for each further VPC of one look.
const ADDRESS_READS: usize = 8;
/// Reads of routes, and of Elastic IPs, in flight.
const OTHER_READS: usize = 4;

impl Machine {
    /// The configuration and keepalived's groups bound everything that is kept.
    pub(super) fn assert_bounded(&self) {
        let run: BTreeSet<&GroupName> = self.config.groups.iter().map(|g| &g.name).collect();
        assert!(self.groups.keys().all(|name| run.contains(name)), "{:?}", self.groups.keys());
        let held: BTreeSet<Ipv4Addr> = self.groups.values().flat_map(|g| &g.addresses).copied().collect();
        assert!(self.evidence.keys().all(|ip| held.contains(ip)), "{:?}", self.evidence.keys());
        let moved: BTreeSet<&Resource> = self.groups.values().flat_map(|g| &g.resources).collect();
        assert!(self.resources.keys().all(|id| moved.contains(id)), "{:?}", self.resources.keys());
        for (id, resource) in &self.resources {
            assert!(
                resource.checks.reads.len() <= ReadSchedule::CAPACITY,
                "{id}: {} reads are due",
                resource.checks.reads.len()
            );
        }
        let interfaces: BTreeSet<_> = self.resources.values().map(|r| &r.planned.interface).collect();
        assert!(self.interface_enis.keys().all(|name| interfaces.contains(name)), "{:?}", self.interface_enis.keys());
        let (addresses, single): (Vec<_>, Vec<_>) =
            self.claims.values().map(|c| &c.channel).partition(|channel| matches!(channel, Channel::Addresses(_)));
        for channel in &addresses {
            assert!(addresses.iter().filter(|other| other == &channel).count() <= CLAIMS, "{addresses:?}");
        }
        assert!(single.len() <= SINGLE_CLAIMS, "{single:?}");
        for kind in Kind::ALL {
            let reads = self.reads.values().filter(|read| read.kind == kind).count();
            let most = if kind == Kind::Address { ADDRESS_READS } else { OTHER_READS };
            assert!(reads <= most, "{reads} reads of {kind:?} in flight");
        }
        assert!(self.dry_runs.len() <= MAX_DRY_RUNS, "{:?}", self.dry_runs);
        let peers: BTreeSet<Ipv4Addr> = self.groups.values().flat_map(|g| &g.peers).copied().collect();
        assert!(self.peers.keys().all(|ip| peers.contains(ip)), "{:?} beside {peers:?}", self.peers.keys());
        assert!(self.actions.is_empty());
    }
}
