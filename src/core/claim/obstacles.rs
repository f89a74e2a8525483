//! What prevents a router from taking over, by what EC2, IMDS and the kernel show. A standby's readiness and `show check` both
//! decide here, so that they come to the same result.

#![allow(missing_docs, reason = "the names and types of most fields say it all")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::keepalived::groups::Groups;
use crate::model::ec2::{AddressLimit, Interface, Owner};
use crate::model::ids::{EniId, InstanceId};
use crate::model::path::{LocalNetwork, Path, Service};

/// A virtual address that is the primary address of an ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrimaryAddress {
    pub address: Ipv4Addr,
    pub owner: Owner,
}

impl PrimaryAddress {
    /// EC2 never reassigns an address whose owner has it as its primary one.
    pub fn of(address: Ipv4Addr, owner: Option<&Owner>) -> Option<Self> {
        let owner = owner.filter(|owner| owner.primary)?.clone();
        Some(Self { address, owner })
    }
}

/// Why EC2 assigns an address to no ENI of a subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unassignable {
    /// It is not in the subnet.
    OutsideSubnet,
    /// AWS reserves it: the first four addresses of a subnet and the last (VPC User Guide, "Subnet CIDR blocks").
    Reserved,
}

impl Unassignable {
    /// The same for an address and the CIDR block of a subnet; none: EC2 can assign it.
    pub fn of(address: Ipv4Addr, subnet: Ipv4Net) -> Option<Self> {
        if !subnet.contains(&address) {
            return Some(Self::OutsideSubnet);
        }
        let first = u32::from(subnet.network());
        let is_reserved =
            (first..=first.saturating_add(3)).contains(&u32::from(address)) || address == subnet.broadcast();
        is_reserved.then_some(Self::Reserved)
    }
}

/// An ENI that EC2 does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoSuchEni {
    pub eni: EniId,
    /// Whether `network-interface-id` names it.
    pub is_configured: bool,
}

impl NoSuchEni {
    /// The description of an ENI that EC2 was to describe.
    ///
    /// # Errors
    /// EC2 does not have the ENI.
    pub fn or_interface<'a>(
        eni: &EniId,
        described: &'a BTreeMap<EniId, Interface>,
        is_configured: bool,
    ) -> Result<&'a Interface, Self> {
        described.get(eni).ok_or_else(|| Self { eni: eni.clone(), is_configured })
    }
}

/// An ENI that is not attached to this instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EniElsewhere {
    pub eni: EniId,
    pub this: InstanceId,
    /// The instance that the ENI is attached to, if any.
    pub attached_to: Option<InstanceId>,
    /// Whether `network-interface-id` names the ENI.
    pub is_configured: bool,
}

impl EniElsewhere {
    /// An ENI that EC2 shows attached to `attached_to`; none: that is this instance.
    pub fn of(eni: &EniId, attached_to: Option<&InstanceId>, this: &InstanceId, is_configured: bool) -> Option<Self> {
        let elsewhere =
            || Self { eni: eni.clone(), this: this.clone(), attached_to: attached_to.cloned(), is_configured };
        (attached_to != Some(this)).then(elsewhere)
    }
}

/// The private address for an Elastic IP that its ENI does not have, and that this router does not move to it: EC2 refuses the
/// association.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoPrivateAddress {
    pub eni: EniId,
    pub address: Ipv4Addr,
}

impl NoPrivateAddress {
    /// None if the ENI has the address, or a group of this router `moves` it there.
    pub fn of(address: Ipv4Addr, eni: &EniId, interface: &Interface, moves: bool) -> Option<Self> {
        (!moves && !interface.addresses.contains(&address)).then(|| Self { eni: eni.clone(), address })
    }
}

/// How full an ENI is. EC2 counts its addresses, the primary one among them, and each prefix that is delegated to it as one
/// (EC2 User Guide, "Prefix delegation for Amazon EC2 network interfaces").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Its private addresses, the primary one among them.
    pub addresses: usize,
    /// The prefixes that are delegated to it.
    pub prefixes: usize,
    /// The virtual addresses that may come to it.
    pub to_come: usize,
}

impl Room {
    /// That of an ENI to which these virtual addresses move.
    pub fn of(interface: &Interface, moving: &BTreeSet<Ipv4Addr>) -> Self {
        Self {
            addresses: interface.addresses.len(),
            prefixes: interface.prefixes,
            to_come: moving.difference(&interface.addresses).count(),
        }
    }

    /// What it counts once all of them have come.
    pub fn needed(&self) -> usize {
        self.addresses + self.prefixes + self.to_come
    }

    /// Whether all of them fit.
    pub fn fits(&self, limit: usize) -> bool {
        self.to_come == 0 || self.needed() <= limit
    }
}

/// An ENI that has no room for all virtual addresses that move to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoRoom {
    pub eni: EniId,
    /// How full it is.
    pub room: Room,
    /// What its instance type allows.
    pub limit: AddressLimit,
}

/// Whether the source/destination check of an ENI drops packets of this router, as far as is known: those that it forwards, and
/// those to what a route leads to it. `gets_route`: routes move to the ENI.
pub fn drops_packets(interface: &Interface, forwards: Option<bool>, gets_route: bool) -> Option<bool> {
    match interface.source_dest_check? {
        false => Some(false),
        true if gets_route => Some(true),
        true => forwards,
    }
}

/// A path to EC2 or IMDS that does not lead there, or not back, once the group has another master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DependentPath {
    /// Where it leads.
    pub service: Service,
    /// The address of the service.
    pub destination: Ipv4Addr,
    /// What it depends on.
    pub on: Dependence,
}

/// What a path depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependence {
    /// The packets go to a virtual address.
    VirtualAddress(Ipv4Addr),
    /// The packets go to the other router of a group.
    OtherRouter(Ipv4Addr),
    /// The packets have a virtual address as their source: the answers go where that is assigned.
    VirtualSource(Ipv4Addr),
}

impl DependentPath {
    /// The first service to none of whose addresses a path is known that depends on nothing; none: there is no such service.
    pub fn of(network: &LocalNetwork, groups: &Groups) -> Option<Self> {
        [Service::Ec2, Service::Imds].into_iter().find_map(|service| Self::to(service, network, groups))
    }

    /// The same for one service. A path that is not known depends on nothing, as far as is known.
    pub fn to(service: Service, network: &LocalNetwork, groups: &Groups) -> Option<Self> {
        let (virtual_addresses, peers) = (groups.virtual_addresses(), groups.peers());
        let dependence = |path: Path| {
            let next_hop = path.next_hop();
            if virtual_addresses.contains(&next_hop) {
                Some(Dependence::VirtualAddress(next_hop))
            } else if peers.contains(&next_hop) {
                Some(Dependence::OtherRouter(next_hop))
            } else {
                path.source.filter(|source| virtual_addresses.contains(source)).map(Dependence::VirtualSource)
            }
        };
        let dependent = |path: Path| Some(Self { service, destination: path.destination, on: dependence(path)? });
        let paths = network.paths.iter().filter(|(to, _)| *to == service);
        let all: Option<Vec<Self>> = paths.map(|(_, path)| path.and_then(dependent)).collect();
        all?.into_iter().next()
    }
}
