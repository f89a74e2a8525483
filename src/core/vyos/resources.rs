//! The routes and Elastic IPs that a group moves, and which resources of one router contradict each other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::input::Node;
use super::verify::ConfigError;
use crate::model::config::{ElasticIpConfig, RouteConfig, overlay_addresses};
use crate::model::ids::{AllocationId, InterfaceName, RouteTableId};
use crate::model::resource::{Kind, Prefix, Resource, Route};

/// The most routes, and the most Elastic IPs, of one router: EC2's rate limit for such calls is 5 a second (EC2 API, "Request
/// throttling"), and a failover moves all of them.
const MAX_RESOURCES_PER_KIND: usize = 200;

/// The errors below one node.
pub(super) struct Errors {
    path: String,
    pub(super) found: Vec<ConfigError>,
}

impl Errors {
    pub(super) fn below(path: String) -> Self {
        Self { path, found: Vec::new() }
    }

    /// An error of the node itself, if `below` is empty, else of the one with that path below it.
    pub(super) fn add(&mut self, below: &str, message: impl ToString) {
        let path = if below.is_empty() { self.path.clone() } else { format!("{} {below}", self.path) };
        self.found.push(ConfigError { path, message: message.to_string() });
    }

    /// An error for each node that is not known.
    pub(super) fn add_unknown(&mut self, node: Node<'_>, below: &str, known: &[&str]) {
        for name in node.names().filter(|name| !known.contains(name)) {
            self.add(
                format!("{below} {}", name.escape_debug()).trim_start(),
                "node not supported by this version of vyos-aws-vipa: delete it, or install a version that supports it",
            );
        }
    }
}

/// The `interface` below a node at the path `below`, with a check whether there is such an interface.
pub(super) fn interface(
    node: Node<'_>,
    below: &str,
    exists: &dyn Fn(&str) -> bool,
    errors: &mut Errors,
) -> Option<InterfaceName> {
    let given = node.value("interface")?;
    let below = format!("{below} interface");
    let below = below.trim_start();
    match InterfaceName::try_from(given) {
        Ok(interface) if exists(given) => return Some(interface),
        Ok(_) => errors.add(below, format!("interface {given} does not exist")),
        Err(error) => errors.add(below, error),
    }
    None
}

/// The routes of a group, in the order of their destinations.
pub(super) fn routes(node: Node<'_>, exists: &dyn Fn(&str) -> bool, errors: &mut Errors) -> Vec<RouteConfig> {
    let mut found: BTreeMap<Prefix, (&str, RouteConfig)> = BTreeMap::new();
    for (given, node) in node.node("route").tags() {
        let below = format!("route {}", given.escape_debug());
        errors.add_unknown(node, &below, &["route-table", "interface"]);
        let mut tables = BTreeSet::new();
        for table in node.values("route-table") {
            match RouteTableId::try_from(table) {
                Ok(table) => _ = tables.insert(table),
                Err(error) => errors.add(&format!("{below} route-table {}", table.escape_debug()), error),
            }
        }
        if node.values("route-table").is_empty() {
            errors.add(&below, "requires a route table: set route-table too");
        }
        let interface = interface(node, &below, exists, errors);
        match given.parse::<Prefix>() {
            Err(error) => errors.add(&below, error),
            Ok(destination) => match found.get(&destination) {
                // IPv6 prefixes have several spellings, and are tags of their own for VyOS.
                Some((other, _)) => {
                    errors.add(&below, format!("route {other} has the same prefix: delete one of the two"));
                }
                None => _ = found.insert(destination, (given, RouteConfig { destination, tables, interface })),
            },
        }
    }
    found.into_values().map(|(_, route)| route).collect()
}

/// The Elastic IPs of a group, in the order of their ids.
pub(super) fn elastic_ips(node: Node<'_>, exists: &dyn Fn(&str) -> bool, errors: &mut Errors) -> Vec<ElasticIpConfig> {
    let mut found = Vec::new();
    for (given, node) in node.node("elastic-ip").tags() {
        let below = format!("elastic-ip {}", given.escape_debug());
        errors.add_unknown(node, &below, &["private-address", "interface"]);
        let interface = interface(node, &below, exists, errors);
        let private_address = node.value("private-address").and_then(|address| match address.parse::<Ipv4Addr>() {
            Ok(address) if is_of_a_host(address) => Some(address),
            _ => {
                let reason = format!("{address:?} is not the private IPv4 address of an ENI, without a prefix length");
                errors.add(&format!("{below} private-address"), reason);
                None
            }
        });
        match AllocationId::try_from(given) {
            Ok(allocation) => found.push(ElasticIpConfig { allocation, private_address, interface }),
            Err(error) => errors.add(&below, error),
        }
    }
    found.sort_by(|a, b| a.allocation.cmp(&b.allocation));
    found
}

fn is_of_a_host(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || address.is_broadcast())
}

/// What the groups that were checked so far move. A disabled group moves nothing, so it may have the same resources as an
/// enabled one.
#[derive(Default)]
pub(super) struct Moved<'a> {
    /// Virtual addresses, routes and Elastic IPs, with their group.
    resources: BTreeMap<Resource, &'a str>,
    /// The virtual addresses that are assigned to an ENI, with their group.
    assigned: BTreeMap<Ipv4Addr, &'a str>,
    /// The addresses that a route covers exactly, with its group.
    routed: BTreeMap<Ipv4Addr, &'a str>,
    /// The Elastic IP of each private address, with its group.
    associations: BTreeMap<PrivateAddress, (AllocationId, &'a str)>,
}

/// A private address of an ENI, which is named by its id or its interface; the primary one, if no address is given.
type PrivateAddress = (String, Option<Ipv4Addr>);

/// What one group moves.
pub(super) struct OfGroup<'a, 'b> {
    pub(super) name: &'a str,
    /// Whether it is disabled.
    pub(super) is_disabled: bool,
    /// Its virtual addresses, without those that are not chosen.
    pub(super) addresses: &'b [Ipv4Addr],
    /// Whether none of them is assigned.
    pub(super) no_address: bool,
    pub(super) routes: &'b [RouteConfig],
    pub(super) elastic_ips: &'b [ElasticIpConfig],
    /// Its ENI, where the configuration names it.
    pub(super) eni: Option<&'b str>,
    /// Otherwise the interface whose ENI it is.
    pub(super) interface: Option<&'b str>,
}

impl OfGroup<'_, '_> {
    /// Those of its addresses that are assigned to an ENI.
    fn assigned(&self) -> impl Iterator<Item = Ipv4Addr> {
        let overlay = overlay_addresses(self.routes);
        let addresses = if self.no_address { &[] } else { self.addresses };
        addresses.iter().copied().filter(move |address| !overlay.contains(address))
    }

    /// Each of its routes in each of its tables.
    fn routes(&self) -> impl Iterator<Item = Route> {
        self.routes.iter().flat_map(|RouteConfig { destination, tables, .. }| {
            tables.iter().map(|table| Route { table: table.clone(), destination: *destination })
        })
    }

    fn private_address(&self, elastic_ip: &ElasticIpConfig) -> PrivateAddress {
        let own = elastic_ip.interface.as_ref().map(InterfaceName::as_str);
        (own.or(self.eni).or(self.interface).unwrap_or_default().to_owned(), elastic_ip.private_address)
    }
}

impl<'a> Moved<'a> {
    /// Contradictions within the group, and with the groups so far.
    pub(super) fn check(&self, group: &OfGroup<'_, '_>, errors: &mut Errors) {
        let is_disabled = group.is_disabled;
        let mut associations: BTreeMap<PrivateAddress, &AllocationId> = BTreeMap::new();
        for elastic_ip in group.elastic_ips {
            let private_address = group.private_address(elastic_ip);
            let of_other = self.associations.get(&private_address).filter(|_| !is_disabled);
            let other = match (associations.get(&private_address), of_other) {
                (Some(other), _) => Some(format!("{other} of this group")),
                (None, Some((other, name))) => Some(format!("{other} of group {}", name.escape_debug())),
                (None, None) => None,
            };
            if let Some(other) = other {
                errors.add(
                    &format!("elastic-ip {}", elastic_ip.allocation),
                    format!(
                        "{other} has the same private address, and EC2 associates one Elastic IP with each: set another \
                         private-address"
                    ),
                );
            }
            associations.entry(private_address).or_insert(&elastic_ip.allocation);
        }
        if is_disabled {
            return;
        }
        let in_two = |what: &dyn ToString, other: &str| {
            format!(
                "{} is already moved by group {}: delete it in one of the two",
                what.to_string(),
                other.escape_debug()
            )
        };
        for address in group.addresses {
            if let Some(other) = self.resources.get(&Resource::Address(*address)) {
                errors.add("", in_two(address, other));
            }
        }
        let is_in_two = |address: &Ipv4Addr| self.resources.contains_key(&Resource::Address(*address));
        for address in group.assigned().filter(|address| !is_in_two(address)) {
            if let Some(other) = self.routed.get(&address) {
                let other = other.escape_debug();
                let message = format!("route {address}/32 of group {other} moves {address} too: delete one of the two");
                errors.add("", message);
            }
        }
        for route in group.routes() {
            let below = format!("route {} route-table {}", route.destination, route.table);
            if let Some(other) = self.resources.get(&Resource::Route(route)) {
                errors.add(&below, in_two(&"this route", other));
            }
        }
        for address in overlay_addresses(group.routes) {
            if let Some(other) = self.assigned.get(&address).filter(|_| !group.addresses.contains(&address)) {
                errors.add(&format!("route {address}/32"), in_two(&address, other));
            }
        }
        for allocation in group.elastic_ips.iter().map(|elastic_ip| &elastic_ip.allocation) {
            if let Some(other) = self.resources.get(&Resource::ElasticIp(allocation.clone())) {
                errors.add(&format!("elastic-ip {allocation}"), in_two(&"this Elastic IP", other));
            }
        }
        for (kind, node, what, own) in [
            (Kind::Route, "route", "routes", group.routes().count()),
            (Kind::ElasticIp, "elastic-ip", "Elastic IPs", group.elastic_ips.len()),
        ] {
            let all = own + self.resources.keys().filter(|resource| resource.kind() == kind).count();
            if own > 0 && all > MAX_RESOURCES_PER_KIND {
                errors.add(
                    node,
                    format!("this router would move {all} {what}, and at most {MAX_RESOURCES_PER_KIND} are supported"),
                );
            }
        }
    }

    /// Adds a group without an error.
    pub(super) fn add(&mut self, group: &OfGroup<'a, '_>) {
        if group.is_disabled {
            return;
        }
        let name = group.name;
        let addresses = group.addresses.iter().copied().map(Resource::Address);
        let elastic_ips = group.elastic_ips.iter().map(|e| Resource::ElasticIp(e.allocation.clone()));
        let resources = addresses.chain(group.routes().map(Resource::Route)).chain(elastic_ips);
        self.resources.extend(resources.map(|resource| (resource, name)));
        self.assigned.extend(group.assigned().map(|address| (address, name)));
        self.routed.extend(overlay_addresses(group.routes).into_iter().map(|address| (address, name)));
        for elastic_ip in group.elastic_ips {
            self.associations.insert(group.private_address(elastic_ip), (elastic_ip.allocation.clone(), name));
        }
    }
}
