//! The subnets of the world, each a bridge, and the links between the routers, which can be cut.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::{Command, Stdio};

use simulator::{NetworkInterface, World};

use crate::namespaces::{call, output};

/// The direction that is blocked between the routers. EC2 stays reachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing in either direction.
    Both,
    /// Packets of the router with this number, 1 or 2, except ARP: without ARP the other router could soon not send
    /// either, and in a VPC ARP is not answered by the neighbour.
    From(u8),
}

/// The address of a subnet's bridge: the first one after the network's, as that of the VPC's router (VPC User Guide, "Subnet
/// CIDR blocks").
pub(crate) fn gateway(world: &World, subnet: usize) -> Ipv4Addr {
    let (network, _) = world.subnets[subnet].cidr.split_once('/').expect("a CIDR block");
    Ipv4Addr::from_bits(network.parse::<Ipv4Addr>().expect("an address").to_bits() + 1)
}

/// The IPv6 address of an IPv4 address of the subnet, if the subnet has a block of such addresses: its last 8 bits are the same.
pub(crate) fn ipv6(world: &World, subnet: usize, address: Ipv4Addr) -> Option<Ipv6Addr> {
    let (network, _) = world.subnets[subnet].ipv6_cidr.as_ref()?.split_once('/').expect("a CIDR block");
    let network: Ipv6Addr = network.parse().expect("an address");
    Some(Ipv6Addr::from_bits(network.to_bits() | u128::from(address.octets()[3])))
}

/// The subnet of an interface: its bridge has the same number.
pub(crate) fn subnet(world: &World, interface: &NetworkInterface) -> usize {
    world.subnets.iter().position(|subnet| subnet.id == interface.subnet).expect("a subnet of the world")
}

/// The addresses of EC2's endpoint, one in each availability zone: that of the zone's first bridge.
pub(crate) fn endpoints(world: &World) -> Vec<Ipv4Addr> {
    let mut zones = BTreeSet::new();
    let first = world.subnets.iter().enumerate().filter(|(_, subnet)| zones.insert(&subnet.availability_zone));
    first.map(|(n, _)| gateway(world, n)).collect()
}

/// Whether packets are routed between the subnets.
pub(crate) fn has_routes(world: &World) -> bool {
    !world.route_tables.is_empty()
}

/// The time to live of the packets that a router begins.
pub(crate) fn time_to_live(router: u8) -> u8 {
    router * 100
}

/// Creates the bridges in this network namespace.
pub(crate) fn make_bridges(world: &World) {
    call("ip link set lo up");
    for n in 0..world.subnets.len() {
        let address = gateway(world, n);
        make_bridge(&format!("br{n}"), address);
        if let Some(address) = ipv6(world, n, address) {
            call(&format!("ip address add {address}/64 dev br{n} nodad"));
        }
    }
    call("nft add table bridge lab");
    call("nft add chain bridge lab links { type filter hook forward priority 0 ; }");
    call("nft add table inet lab");
    call("nft add chain inet lab links { type filter hook forward priority 0 ; }");
    for hook in ZONE_HOOKS {
        call(&format!("nft add chain inet lab zone-{hook} {{ type filter hook {hook} priority 0 ; }}"));
    }
}

/// Creates a bridge with this address.
pub(crate) fn make_bridge(name: &str, address: Ipv4Addr) {
    call(&format!("ip link add {name} type bridge"));
    call(&format!("ip address add {address}/24 dev {name}"));
    call(&format!("ip link set {name} up"));
}

/// Connects an interface of a process's network namespace to a bridge.
pub(crate) fn plug_in(port: &str, bridge: usize, process: u32, interface: &str, mac: &str) {
    call(&format!("ip link add {port} type veth peer name {interface} address {mac} netns {process}"));
    call(&format!("ip link set {port} master br{bridge} up"));
}

/// Disconnects a port of a bridge, or connects it again.
pub(crate) fn set_plug(port: &str, up: bool) {
    call(&format!("ip link set {port} {}", if up { "up" } else { "down" }));
}

/// The port of a router's interface.
pub(crate) fn port(router: u8, n: usize) -> String {
    format!("r{router}-{n}")
}

/// Blocks one or both directions between the routers from now on, in place of what was blocked before, in one step: no packet
/// passes between. `primaries` are the addresses of the routers.
pub(crate) fn cut(cut: Cut, primaries: [&[Ipv4Addr]; 2]) {
    let mut rules = vec![FLUSH_LINKS.to_owned()];
    for from in [1, 2].into_iter().filter(|from| matches!(cut, Cut::Both) || cut == Cut::From(*from)) {
        let to = 3 - from;
        let but_arp = if cut == Cut::Both { "" } else { "ether type != arp " };
        rules.push(format!("add rule bridge lab links iifname r{from}-* oifname r{to}-* {but_arp}drop"));
        let [source, destination] = [from, to].map(|router| {
            let addresses: Vec<String> = primaries[usize::from(router) - 1].iter().map(Ipv4Addr::to_string).collect();
            addresses.join(", ")
        });
        rules.push(format!("add rule inet lab links ip saddr {{ {source} }} ip daddr {{ {destination} }} drop"));
    }
    call(&format!("nft {}", rules.join(" ; ")));
}

const FLUSH_LINKS: &str = "flush chain bridge lab links ; flush chain inet lab links";

/// Unblocks the links between the routers.
pub(crate) fn heal() {
    call(&format!("nft {FLUSH_LINKS}"));
}

/// Where packets of another zone pass.
const ZONE_HOOKS: [&str; 3] = ["input", "forward", "output"];

/// Cuts a subnet off from everything else from now on: no packet leaves it or comes to it, and EC2's endpoint does not answer
/// at its address there.
pub(crate) fn cut_zone(subnet: usize, endpoint: Ipv4Addr) {
    let bridge = format!("br{subnet}");
    let rules = [
        format!("zone-input iifname {bridge} drop"),
        format!("zone-input ip daddr {endpoint} drop"),
        format!("zone-forward iifname {bridge} drop"),
        format!("zone-forward oifname {bridge} drop"),
        format!("zone-output oifname {bridge} drop"),
    ];
    call(&format!("nft {}", rules.map(|rule| format!("add rule inet lab {rule}")).join(" ; ")));
}

/// Connects all subnets again.
pub(crate) fn heal_zones() {
    call(&format!("nft {}", ZONE_HOOKS.map(|hook| format!("flush chain inet lab zone-{hook}")).join(" ; ")));
}

/// Loses every packet that comes into this network namespace from these ends of connections: neither end notices.
///
/// # Panics
/// If nft(8) fails.
pub fn black_hole(clients: impl IntoIterator<Item = SocketAddr>) {
    call("nft add table inet lab");
    call("nft add chain inet lab input { type filter hook input priority 0 ; }");
    for client in clients {
        let family = if client.is_ipv4() { "ip" } else { "ip6" };
        call(&format!("nft add rule inet lab input {family} saddr {} tcp sport {} drop", client.ip(), client.port()));
    }
}

/// The rules, links and routes, for a test that failed.
pub(crate) fn shown() -> String {
    let mut text = output(Command::new("nft").args(["list", "ruleset"]).stderr(Stdio::null()));
    const ROUTES: [&str; 6] = ["route", "show", "table", "all", "proto", "boot"];
    for words in [&["-br", "address"] as &[_], &ROUTES, &[&["-6"] as &[_], &ROUTES].concat()] {
        text.push_str(&output(Command::new("ip").args(words)));
    }
    text
}
