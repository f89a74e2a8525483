//! The VPC between the subnets: packets follow the simulator's route tables and Elastic IPs, and network interfaces check
//! source and destination, as the simulator has all of these at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use simulator::{Destination, EniId, Route, Simulator, Target, World};

use crate::namespaces::call;
use crate::network;

/// The bridge of the internet, and its address.
pub(crate) const INTERNET: (&str, Ipv4Addr) = ("internet", Ipv4Addr::new(198, 51, 100, 1));

/// How soon the end is noticed.
const PATIENCE: Duration = Duration::from_millis(100);

/// The table of the kernel with the routes of a subnet.
fn kernel_table(subnet: usize) -> usize {
    1000 + subnet
}

/// Ends with this.
pub(crate) struct Vpc {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Vpc {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Where packets to a destination go.
#[derive(Clone, PartialEq, Eq)]
enum Hop {
    /// To the interface with this address, in that subnet.
    Interface(IpAddr, usize),
    /// To the internet.
    Internet,
    /// Nowhere.
    Blackhole,
}

/// What the simulator has, as far as packets depend on it.
#[derive(Default, PartialEq, Eq)]
struct State {
    /// The next hop, by subnet and destination.
    routes: BTreeMap<(usize, String), Hop>,
    /// Private addresses by their Elastic IPs.
    elastic_ips: BTreeMap<Ipv4Addr, Ipv4Addr>,
    /// The addresses of interfaces with the source/destination check, by their port.
    checked: BTreeMap<String, BTreeSet<Ipv4Addr>>,
}

impl Vpc {
    /// Routes between the bridges of this network namespace from now on.
    pub(crate) fn start(simulator: &Simulator, world: &World) -> Self {
        let set = |name: &str, value: &str| fs::write(format!("/proc/sys/net/{name}"), value).expect("a sysctl");
        network::make_bridge(INTERNET.0, INTERNET.1);
        let bridges = (0..world.subnets.len()).map(|n| format!("br{n}"));
        // A client would keep the route of a redirect.
        for interface in ["all".to_owned(), "default".to_owned()].into_iter().chain(bridges) {
            set(&format!("ipv4/conf/{interface}/send_redirects"), "0");
        }
        set("ipv4/ip_forward", "1");
        set("ipv6/conf/all/forwarding", "1");
        for subnet in 0..world.subnets.len() {
            let table = kernel_table(subnet);
            for family in ["-4", "-6"] {
                call(&format!("ip {family} rule add pref {table} iif br{subnet} lookup {table}"));
            }
            for (n, other) in world.subnets.iter().enumerate() {
                for cidr in other.ipv6_cidr.iter().chain([&other.cidr]) {
                    call(&format!("ip route add {cidr} dev br{n} table {table}"));
                }
            }
        }
        call("nft add table ip vpc");
        call("nft add chain ip vpc inbound { type filter hook prerouting priority -200 ; }");
        call("nft add chain ip vpc outbound { type filter hook postrouting priority 200 ; }");
        call("nft add table bridge vpc");
        call("nft add chain bridge vpc source { type filter hook prerouting priority 0 ; }");
        call("nft add chain bridge vpc destination { type filter hook postrouting priority 0 ; }");
        let mut applied = State::default();
        let mut follow = {
            let (simulator, world) = (simulator.clone(), world.clone());
            move || {
                let news = simulator.wait_for("a change", PATIENCE, |simulator| {
                    Some(State::of(simulator, &world)).filter(|state| *state != applied)
                });
                if let Ok(state) = news {
                    apply(&applied, &state);
                    applied = state;
                }
            }
        };
        follow();
        let ends = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let ends = Arc::clone(&ends);
            move || {
                while !ends.load(Ordering::Relaxed) {
                    follow();
                }
            }
        });
        Self { ends, thread: Some(thread) }
    }
}

impl State {
    fn of(simulator: &Simulator, world: &World) -> Self {
        let interfaces = || world.instances.iter().flat_map(|instance| &instance.network_interfaces);
        let interface = |eni: &EniId, destination: &Destination| {
            let interface = interfaces().find(|interface| *eni == *interface.id)?;
            let subnet = network::subnet(world, interface);
            let address = match destination {
                Destination::Ipv6(_) => network::ipv6(world, subnet, interface.primary)?.into(),
                Destination::Ipv4(_) | Destination::PrefixList(_) => interface.primary.into(),
            };
            Some(Hop::Interface(address, subnet))
        };
        let hop = |route: &Route| match &route.target {
            _ if route.blackhole => Hop::Blackhole,
            Target::NetworkInterface(eni) => interface(eni, &route.destination).unwrap_or(Hop::Blackhole),
            Target::Gateway(gateway) if gateway.to_string().starts_with("igw-") => Hop::Internet,
            Target::Gateway(_) | Target::Local => Hop::Blackhole,
        };
        let mut state = Self::default();
        for (n, subnet) in world.subnets.iter().enumerate() {
            let own = world.route_tables.iter().find(|table| table.subnets.contains(&subnet.id));
            let Some(table) = own.or_else(|| world.route_tables.iter().find(|table| table.main)) else { continue };
            // There is none any more, if it was deleted.
            for route in simulator.routes(&table.id).unwrap_or_default() {
                if route.target != Target::Local {
                    state.routes.insert((n, route.destination.to_string()), hop(&route));
                }
            }
        }
        for elastic_ip in &world.elastic_ips {
            if let Some((_, private)) = simulator.elastic_ip(elastic_ip.public) {
                state.elastic_ips.insert(elastic_ip.public, private);
            }
        }
        for (router, instance) in (1..).zip(&world.instances) {
            for (n, interface) in instance.network_interfaces.iter().enumerate() {
                if simulator.source_dest_check(&interface.id) == Ok(true) {
                    let addresses = simulator.private_addresses(&interface.id).unwrap_or_default();
                    state.checked.insert(network::port(router, n), addresses.into_iter().collect());
                }
            }
        }
        state
    }
}

/// Changes the kernel's routes and rules from one state to another.
fn apply(before: &State, after: &State) {
    for place in before.routes.keys().filter(|place| !after.routes.contains_key(*place)) {
        call(&format!("ip route delete {} table {}", place.1, kernel_table(place.0)));
    }
    for (place, hop) in after.routes.iter().filter(|(place, hop)| before.routes.get(*place) != Some(*hop)) {
        let (subnet, destination) = place;
        let what = match hop {
            Hop::Interface(address, subnet) => format!("{destination} via {address} dev br{subnet}"),
            Hop::Internet => format!("{destination} dev {}", INTERNET.0),
            Hop::Blackhole => format!("blackhole {destination}"),
        };
        call(&format!("ip route replace {what} table {}", kernel_table(*subnet)));
    }
    let mut rules = vec!["flush table ip vpc".to_owned(), "flush table bridge vpc".to_owned()];
    for (public, private) in &after.elastic_ips {
        rules.push(format!("add rule ip vpc inbound iifname {} ip daddr {public} ip daddr set {private}", INTERNET.0));
        rules.push(format!("add rule ip vpc outbound oifname {} ip saddr {private} ip saddr set {public}", INTERNET.0));
    }
    for (port, addresses) in &after.checked {
        let addresses: Vec<String> = addresses.iter().map(Ipv4Addr::to_string).collect();
        let addresses = addresses.join(", ");
        rules.push(format!("add rule bridge vpc source iifname {port} ip saddr != {{ {addresses} }} drop"));
        rules.push(format!("add rule bridge vpc destination oifname {port} ip daddr != {{ {addresses} }} drop"));
    }
    call(&format!("nft {}", rules.join(" ; ")));
}
