//! Two subnets, each a bridge that connects both routers, and the links between them, which can be cut.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::namespaces::{call, output};

/// The addresses of the bridges. EC2 listens on the first one.
pub const BRIDGES: [&str; 2] = ["10.99.0.1", "10.99.1.1"];

/// The direction that is blocked between the routers. EC2 stays reachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing in either direction.
    Both,
    /// Packets of the router with this number, 1 or 2, except ARP: without ARP the other router could soon not send
    /// either, and in a VPC ARP is not answered by the neighbour.
    From(u8),
}

/// Creates the bridges in this network namespace.
pub(crate) fn make_bridges() {
    call("ip link set lo up");
    for (n, address) in BRIDGES.iter().enumerate() {
        call(&format!("ip link add br{n} type bridge"));
        call(&format!("ip address add {address}/24 dev br{n}"));
        call(&format!("ip link set br{n} up"));
    }
    call("nft add table bridge lab");
    call("nft add chain bridge lab links { type filter hook forward priority 0 ; }");
}

/// Connects both interfaces of a router, whose ends are `eth0` and `eth1` in the router.
pub(crate) fn plug_in(router: u8, process: u32, macs: [&str; 2]) {
    for (n, mac) in macs.iter().enumerate() {
        let port = port(router, n);
        call(&format!("ip link add {port} type veth peer name eth{n} address {mac} netns {process}"));
        call(&format!("ip link set {port} master br{n} up"));
    }
}

/// Disconnects a router, or connects it again.
pub(crate) fn set_plugs(router: u8, up: bool) {
    (0..BRIDGES.len()).for_each(|n| set_plug(router, n, up));
}

/// The same for one interface.
pub(crate) fn set_plug(router: u8, n: usize, up: bool) {
    call(&format!("ip link set {} {}", port(router, n), if up { "up" } else { "down" }));
}

/// Blocks one or both directions from now on, in place of what was blocked before, in one step: no packet passes
/// between.
pub(crate) fn cut(cut: Cut) {
    const FLUSH: &str = "flush chain bridge lab links";
    const RULE: &str = "add rule bridge lab links";
    let rules = match cut {
        Cut::Both => format!("{RULE} drop"),
        Cut::From(router) => {
            let [eth0, eth1] = [0, 1].map(|n| port(router, n));
            format!("{RULE} iifname {eth0} ether type != arp drop ; {RULE} iifname {eth1} ether type != arp drop")
        }
    };
    call(&format!("nft {FLUSH} ; {rules}"));
}

/// Unblocks everything.
pub(crate) fn heal() {
    call("nft flush chain bridge lab links");
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

/// The rules and links, for a test that failed.
pub(crate) fn shown() -> String {
    let mut text = output(Command::new("nft").args(["list", "ruleset"]).stderr(Stdio::null()));
    text.push_str(&output(Command::new("ip").args(["-br", "address"])));
    text
}

fn port(router: u8, n: usize) -> String {
    format!("r{router}-{n}")
}
