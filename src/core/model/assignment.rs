//! Which resources are moved, and to which ENI: the configuration combined with the groups that keepalived runs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::keepalived::groups::{AdvertiseInterval, Groups, RunningGroup, VirtualAddress};
use crate::model::config::{Config, GroupConfig, overlay_addresses};
use crate::model::ids::{EniId, GroupName, InterfaceName};
use crate::model::resource::{Resource, Route};

/// What to do for the groups that have an `aws-vipa` node without an error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The groups, in the order of their names. No resource appears twice, in one group or in several.
    pub groups: Vec<PlannedGroup>,
}

impl Plan {
    /// The interfaces whose ENIs get resources.
    pub fn interfaces(&self) -> BTreeSet<&InterfaceName> {
        self.groups.iter().flat_map(|g| &g.resources).map(|r| &r.interface).collect()
    }
}

/// What to do for one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedGroup {
    /// The name in the configuration, which keepalived's notify events have too.
    pub name: GroupName,
    /// Whether the configuration disables it.
    pub disabled: bool,
    /// Its `virtual_router_id`; absent if keepalived does not run the group.
    pub vrid: Option<u8>,
    /// The advertisement interval, in which keepalived is active for it at least once.
    pub advertise_interval: Duration,
    /// The IPv4 addresses of the other routers, which distinguish the other router from a third party.
    pub peers: Vec<Ipv4Addr>,
    /// The virtual addresses that show whether the group is MASTER, in the order in which keepalived.conf lists them.
    pub addresses: Vec<PlannedAddress>,
    /// What to move: those of the addresses that are assigned to an ENI, in the same order; then routes and Elastic IPs.
    pub resources: Vec<PlannedResource>,
    /// Mismatches between the configuration and keepalived.
    pub problems: Vec<Problem>,
}

impl PlannedGroup {
    /// The addresses that are assigned to an ENI, with their ENIs.
    pub fn assigned(&self) -> impl Iterator<Item = (&PlannedAddress, &PlannedResource)> {
        self.addresses.iter().filter_map(|address| {
            let resource = self.resources.iter().find(|r| r.resource.address() == Some(address.address))?;
            Some((address, resource))
        })
    }

    /// The addresses that are not assigned to an ENI: they only show whether the group is MASTER.
    pub fn not_assigned(&self) -> impl Iterator<Item = &PlannedAddress> {
        let is_assigned = |address| self.assigned().any(|(assigned, _)| assigned.address == address);
        self.addresses.iter().filter(move |address| !is_assigned(address.address))
    }
}

/// A virtual address of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedAddress {
    /// The address, which the VRRP master has.
    pub address: Ipv4Addr,
    /// The interface that keepalived adds it to: its own `dev`, else the group's interface.
    pub held_on: InterfaceName,
    /// Whether VyOS also configures the address on an interface outside VRRP, so that its presence is no evidence of
    /// MASTER.
    pub outside_vrrp: bool,
}

/// A resource to move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedResource {
    /// What moves to the ENI.
    pub resource: Resource,
    /// The interface whose ENI gets it.
    pub interface: InterfaceName,
    /// The ENI, if the configuration names it; absent: the one that IMDS reports for the interface.
    pub eni: Option<EniId>,
    /// For an Elastic IP: the private address that it is associated with; absent: the ENI's primary address.
    pub private_address: Option<Ipv4Addr>,
}

/// Whether keepalived has added an address to its interface, given the interfaces that have the address: the interface
/// itself, or the one of its virtual MAC, which VyOS names after it, such as `eth0v10v4` (vyos-1x keepalived.conf.j2,
/// `use_vmac`). On any other interface the address is not from keepalived.
pub fn is_there(held_on: &InterfaceName, having: &BTreeSet<InterfaceName>) -> bool {
    having.iter().any(|name| match name.as_str().strip_prefix(held_on.as_str()) {
        Some("") => true,
        Some(rest) => rest.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())),
        None => false,
    })
}

/// A mismatch between the configuration and what keepalived runs; [`crate::report::reasons::problem`] has the texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// There is no such `vrrp_instance`.
    NotRun,
    /// keepalived runs it without any IPv4 virtual address.
    NoAddress,
    /// `aws-vipa address` names an address that the group no longer has.
    NotHeld(Ipv4Addr),
    /// Another group moves the resource.
    MovedByOther {
        /// The resource that both groups have.
        resource: Resource,
        /// The group that moves it: the first in the order of names.
        group: GroupName,
    },
}

/// Combines the configuration with what keepalived runs.
///
/// A group moves its configured addresses that keepalived runs in it, or all that keepalived runs in it if none are
/// configured, except one that is the destination of one of its own routes; with `no-address` none. The interface is the
/// configured one, else the address's own, else the group's. If two groups have one resource, the first in the order of
/// names moves it; disabled groups come after all others.
pub fn plan(config: &Config, groups: &Groups) -> Plan {
    let running: HashMap<&GroupName, &RunningGroup> = groups.groups.iter().map(|g| (&g.name, g)).collect();
    let mut wanted: Vec<&GroupConfig> = config.groups.iter().collect();
    wanted.sort_by_key(|g| (g.disable, &g.name));
    let mut moved_by = BTreeMap::new();
    let mut groups: Vec<PlannedGroup> = wanted
        .into_iter()
        .map(|wanted| match running.get(&wanted.name) {
            Some(group) => planned(wanted, group, &config.interface_addresses, &mut moved_by),
            None => PlannedGroup {
                name: wanted.name.clone(),
                disabled: wanted.disable,
                vrid: None,
                advertise_interval: AdvertiseInterval::default().duration(),
                peers: Vec::new(),
                addresses: Vec::new(),
                resources: Vec::new(),
                problems: vec![Problem::NotRun],
            },
        })
        .collect();
    groups.sort_by(|a, b| a.name.cmp(&b.name));
    Plan { groups }
}

fn planned<'a>(
    wanted: &'a GroupConfig,
    group: &RunningGroup,
    interface_addresses: &BTreeSet<Ipv4Addr>,
    moved_by: &mut BTreeMap<Resource, &'a GroupName>,
) -> PlannedGroup {
    let mut problems = Vec::new();
    let mut addresses: Vec<PlannedAddress> = Vec::new();
    let mut resources: Vec<PlannedResource> = Vec::new();
    let overlay = overlay_addresses(&wanted.routes);
    let is_wanted = |a: &&VirtualAddress| {
        wanted.addresses.is_empty() || wanted.addresses.contains(&a.address) || overlay.contains(&a.address)
    };
    let mut is_ours = |resource: Resource| match *moved_by.entry(resource.clone()).or_insert(&wanted.name) {
        other if *other != wanted.name => {
            problems.push(Problem::MovedByOther { resource, group: other.clone() });
            false
        }
        _ => true,
    };
    for held in group.addresses.iter().filter(is_wanted) {
        let address = held.address;
        // It may be both in virtual_ipaddress and in virtual_ipaddress_excluded.
        if addresses.iter().any(|a| a.address == address) || !is_ours(address.into()) {
            continue;
        }
        if !wanted.no_address && !overlay.contains(&address) {
            resources.push(PlannedResource {
                resource: address.into(),
                interface: wanted.interface.as_ref().or(held.interface.as_ref()).unwrap_or(&group.interface).clone(),
                eni: wanted.network_interface_id.clone(),
                private_address: None,
            });
        }
        addresses.push(PlannedAddress {
            address,
            held_on: held.interface.as_ref().unwrap_or(&group.interface).clone(),
            outside_vrrp: interface_addresses.contains(&address),
        });
    }
    let mut claim = |resource: Resource, interface: &Option<InterfaceName>, private_address| {
        if is_ours(resource.clone()) {
            resources.push(PlannedResource {
                resource,
                interface: interface.as_ref().or(wanted.interface.as_ref()).unwrap_or(&group.interface).clone(),
                // `network-interface-id` is the ENI of the group's own interface.
                eni: wanted.network_interface_id.clone().filter(|_| interface.is_none()),
                private_address,
            });
        }
    };
    for route in &wanted.routes {
        for table in &route.tables {
            let resource = Resource::Route(Route { table: table.clone(), destination: route.destination });
            claim(resource, &route.interface, None);
        }
    }
    for elastic_ip in &wanted.elastic_ips {
        claim(Resource::ElasticIp(elastic_ip.allocation.clone()), &elastic_ip.interface, elastic_ip.private_address);
    }
    let held: BTreeSet<Ipv4Addr> = group.addresses.iter().map(|a| a.address).collect();
    problems.extend(wanted.addresses.difference(&held).map(|a| Problem::NotHeld(*a)));
    if held.is_empty() && wanted.addresses.is_empty() {
        problems.push(Problem::NoAddress);
    }
    PlannedGroup {
        name: wanted.name.clone(),
        disabled: wanted.disable,
        vrid: Some(group.vrid),
        advertise_interval: group.advertise_interval.duration(),
        peers: group.peers.clone(),
        addresses,
        resources,
        problems,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 100);
    const B: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 101);
    const C: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 102);

    fn name(name: &str) -> GroupName {
        GroupName::try_from(name).expect("a group name")
    }

    fn interface(name: &str) -> InterfaceName {
        InterfaceName::try_from(name).expect("an interface name")
    }

    fn wanted(group: &str, addresses: &[Ipv4Addr]) -> GroupConfig {
        GroupConfig { addresses: addresses.iter().copied().collect(), ..GroupConfig::new(name(group)) }
    }

    fn run(group: &str, addresses: &[(Ipv4Addr, Option<&str>)]) -> RunningGroup {
        RunningGroup {
            name: name(group),
            interface: interface("eth0"),
            vrid: 10,
            priority: 100,
            advertise_interval: AdvertiseInterval::default(),
            peers: vec![Ipv4Addr::new(10, 99, 0, 2)],
            addresses: addresses
                .iter()
                .map(|&(address, dev)| VirtualAddress { address, interface: dev.map(interface) })
                .collect(),
        }
    }

    fn planned(groups: Vec<GroupConfig>, running: Vec<RunningGroup>) -> Vec<PlannedGroup> {
        plan(&Config { groups, ..Config::default() }, &Groups { groups: running }).groups
    }

    /// The addresses of a group with their interfaces.
    fn moved(group: &PlannedGroup) -> Vec<(Ipv4Addr, &str)> {
        group.assigned().map(|(a, r)| (a.address, r.interface.as_str())).collect()
    }

    #[test]
    fn all_addresses_of_a_group_unless_some_are_chosen() {
        let held = [(A, None), (B, Some("eth1")), (C, None)];
        let all = planned(vec![wanted("g", &[])], vec![run("g", &held), run("without-aws", &[(C, None)])]);
        assert_eq!(all.len(), 1);
        assert_eq!(moved(&all[0]), [(A, "eth0"), (B, "eth1"), (C, "eth0")]);
        assert_eq!((all[0].vrid, &all[0].peers[..]), (Some(10), &[Ipv4Addr::new(10, 99, 0, 2)][..]));
        assert_eq!(all[0].problems, []);
        let chosen = planned(vec![wanted("g", &[C, B])], vec![run("g", &held)]);
        assert_eq!(moved(&chosen[0]), [(B, "eth1"), (C, "eth0")]);
        assert_eq!(chosen[0].problems, []);
    }

    #[test]
    fn an_address_is_there_on_its_interface_or_on_that_of_the_virtual_mac() {
        let is = |on: &[&str]| is_there(&interface("eth0"), &on.iter().map(|name| interface(name)).collect());
        for on in [&["eth0"][..], &["eth0v10"], &["eth0v10v4"], &["dum0", "eth0"]] {
            assert!(is(on), "{on:?}");
        }
        for on in [&[][..], &["dum0"], &["eth1"], &["eth01"], &["eth0.10"], &["eth0v"], &["eth0vrf1"], &["eth"]] {
            assert!(!is(on), "{on:?}");
        }
    }

    #[test]
    fn the_configured_interface_and_eni_win() {
        let eni = EniId::try_from("eni-0123abcd").expect("an id");
        let configured = GroupConfig {
            interface: Some(interface("eth2")),
            network_interface_id: Some(eni.clone()),
            ..wanted("g", &[])
        };
        let plan = planned(vec![configured], vec![run("g", &[(A, None), (B, Some("eth1"))])]);
        assert_eq!(moved(&plan[0]), [(A, "eth2"), (B, "eth2")]);
        let held: Vec<&str> = plan[0].addresses.iter().map(|a| a.held_on.as_str()).collect();
        assert_eq!(held, ["eth0", "eth1"], "that changes nothing of where keepalived puts them");
        assert!(plan[0].resources.iter().all(|r| r.eni.as_ref() == Some(&eni)));
    }

    #[test]
    fn what_keepalived_does_not_run_is_named_and_not_moved() {
        let plan = planned(
            vec![wanted("gone", &[A]), wanted("ipv6", &[]), wanted("lost", &[A, B])],
            vec![run("ipv6", &[]), run("lost", &[(B, None), (C, None)])],
        );
        assert_eq!((plan[0].vrid, moved(&plan[0]), &plan[0].problems[..]), (None, vec![], &[Problem::NotRun][..]));
        assert_eq!((moved(&plan[1]), &plan[1].problems[..]), (vec![], &[Problem::NoAddress][..]));
        assert_eq!((moved(&plan[2]), &plan[2].problems[..]), (vec![(B, "eth0")], &[Problem::NotHeld(A)][..]));
    }

    #[test]
    fn an_address_is_moved_for_one_group() {
        let both = || vec![run("b", &[(A, None), (B, None)]), run("a", &[(A, Some("eth1")), (A, None)])];
        let plan = planned(vec![wanted("b", &[]), wanted("a", &[])], both());
        assert_eq!(plan.iter().map(|g| g.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((moved(&plan[0]), plan[0].problems.len()), (vec![(A, "eth1")], 0));
        assert_eq!(moved(&plan[1]), [(B, "eth0")]);
        assert_eq!(plan[1].problems, [Problem::MovedByOther { resource: A.into(), group: name("a") }]);

        let disabled = GroupConfig { disable: true, ..wanted("a", &[]) };
        let plan = planned(vec![disabled, wanted("b", &[])], both());
        assert_eq!((plan[0].disabled, moved(&plan[0]), plan[0].problems.len()), (true, vec![], 2));
        assert_eq!((plan[1].disabled, moved(&plan[1])), (false, vec![(A, "eth0"), (B, "eth0")]));
    }

    #[test]
    fn an_address_that_vyos_configures_outside_vrrp_is_marked() {
        let config =
            Config { groups: vec![wanted("g", &[])], interface_addresses: BTreeSet::from([B]), ..Config::default() };
        let plan = plan(&config, &Groups { groups: vec![run("g", &[(A, None), (B, None)])] });
        let marks: Vec<_> = plan.groups[0].addresses.iter().map(|a| (a.address, a.outside_vrrp)).collect();
        assert_eq!(marks, [(A, false), (B, true)]);
    }

    #[test]
    fn many_groups_with_the_same_addresses_move_each_once() {
        let all: Vec<(Ipv4Addr, Option<&str>)> = (0..200).map(|i| (Ipv4Addr::new(10, 0, 1, i), None)).collect();
        let groups: Vec<RunningGroup> = (0..200).map(|i| run(&format!("g{i}"), &all)).collect();
        let plan = planned((0..200).map(|i| wanted(&format!("g{i}"), &[])).collect(), groups);
        assert_eq!(plan.iter().map(|g| g.addresses.len()).sum::<usize>(), 200);
    }
}
