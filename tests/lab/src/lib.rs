//! Two routers as VyOS runs them in AWS, on one machine and without root: the real keepalived, the shipped binary,
//! units and drop-in, each router in network and mount namespaces of its own, IMDS on 169.254.169.254 and EC2 under its
//! real name over TLS. The shipped files are unchanged.
//!
//! ```text
//!   router 1                                      router 2
//!     eth0 10.99.0.11 ─────── br0 10.99.0.1 ─────── eth0 10.99.0.12
//!     eth1 10.99.1.11 ─────── br1 10.99.1.1 ─────── eth1 10.99.1.12
//!     lo   169.254.169.254     │                    lo   169.254.169.254
//!                              └ https://ec2.eu-west-1.amazonaws.com
//! ```
//!
//! That is [`world`]: the network has a bridge for each subnet of the world. If the world has route tables, as
//! [`two_zones`], packets between the subnets follow them, and EC2's endpoint has an address in each zone:
//!
//! ```text
//!   router 1  eth0 10.99.0.11 ─┐                  ┌─ eth0 10.99.1.12  router 2
//!                              br0 ─── VPC ─── br1
//!   client         10.99.0.50 ─┘        │         └─       10.99.1.50 client
//!                                   internet ───────── 198.51.100.10  client
//! ```
//!
//! A test calls [`scenario`] with a closure, which runs in namespaces of its own. Every process that it starts ends
//! with it.

mod client;
mod configuration;
mod namespaces;
mod network;
mod router;
mod vpc;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use simulator::{Instance, Listener, NetworkInterface, Request, Simulator, World};

use self::vpc::Vpc;

pub use self::client::{Client, Ping, Pings};
pub use self::configuration::Configuration;
pub use self::namespaces::{empty, enter, is_inside, said};
pub use self::network::{Cut, black_hole};
pub use self::router::{KEEPALIVED_ROOT, Router, Shown};
pub use rustix::process::Signal;
pub use simulator;

/// The group of [`Lab::commit_pair`].
pub const GROUP: &str = "vyos-aws";

/// Its address.
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 100);

/// An address outside the VPC, for the group of [`Lab::commit_overlay`].
pub const OVERLAY: Ipv4Addr = Ipv4Addr::new(10, 255, 0, 1);

/// The route to [`OVERLAY`].
pub const OVERLAY_ROUTE: &str = "10.255.0.1/32";

/// The route tables of the two zones.
pub const ROUTE_TABLES: [&str; 2] = ["rtb-0a000000000000001", "rtb-0a000000000000002"];

/// The Elastic IP of [`two_zones`], and its allocation.
pub const ELASTIC_IP: (Ipv4Addr, &str) = (Ipv4Addr::new(203, 0, 113, 10), "eipalloc-0a000000000000001");

/// The name of EC2's endpoint.
pub const EC2: &str = "ec2.eu-west-1.amazonaws.com";

/// The ENIs of a third party, in the subnets of eth0 and eth1.
pub const THIRD_PARTY: [&str; 2] = ["eni-0a000000000000003", "eni-0b000000000000003"];

/// How often a condition is checked.
const LOOK: Duration = Duration::from_millis(10);

/// The routers, and the cloud around them.
pub struct Lab {
    /// EC2 and IMDS.
    pub simulator: Simulator,
    /// 10.99.0.11.
    pub r1: Router,
    /// 10.99.0.12, or 10.99.1.12 in another zone.
    pub r2: Router,
    /// The endpoint of EC2.
    pub ec2: Endpoint,
    /// The listeners of IMDS, by router.
    pub imds: [Listener; 2],
    world: World,
    /// Routes between the subnets, if the world has route tables.
    _vpc: Option<Vpc>,
}

/// The endpoint of EC2, with an address in each zone.
pub struct Endpoint(Vec<Listener>);

impl Endpoint {
    /// Refuses connections from now on, and closes those that exist.
    pub fn stop(&self) {
        self.0.iter().for_each(Listener::stop);
    }

    /// Accepts connections again.
    ///
    /// # Errors
    /// An address cannot be bound.
    pub fn start(&self) -> io::Result<()> {
        self.0.iter().try_for_each(Listener::start)
    }

    /// Accepts new connections without an answer from now on, or answers again.
    pub fn mute(&self, on: bool) {
        self.0.iter().for_each(|listener| listener.mute(on));
    }
}

/// Runs a scenario in a lab with prompt reads. Call it first and alone in a test function.
///
/// # Panics
/// If the scenario does. The state of the lab is printed then.
pub fn scenario(binary: &str, scenario: impl FnOnce(&mut Lab)) {
    scenario_in(world().stale_reads(Duration::ZERO), binary, scenario);
}

/// Runs a scenario in a lab of that world.
///
/// # Panics
/// As [`scenario`].
pub fn scenario_in<F: FnOnce(&mut Lab)>(world: World, binary: &str, scenario: F) {
    namespaces::inside::<F>(|| in_lab(world, Path::new(binary), scenario));
}

/// Runs a scenario in a lab of that world, in namespaces that [`enter`] made.
///
/// # Panics
/// As [`scenario`].
pub fn in_lab(world: World, binary: &Path, scenario: impl FnOnce(&mut Lab)) {
    let mut lab = Lab::start(world, binary);
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| scenario(&mut lab))) {
        eprintln!("{}", lab.story());
        drop(lab);
        resume_unwind(panic);
    }
}

/// Runs a test that needs no routers in empty namespaces of its own, with a loopback interface. Call it first and alone in a
/// test function.
///
/// # Panics
/// If the test does.
pub fn in_namespaces<F: FnOnce()>(test: F) {
    namespaces::inside::<F>(|| {
        namespaces::call("ip link set lo up");
        test();
    });
}

/// Two routers with two interfaces each, and a third party, in `eu-west-1`. Every interface has room for 250 addresses.
pub fn world() -> World {
    let vpc = "vpc-0a000000000000001";
    let subnets = ["subnet-0a000000000000001", "subnet-0b000000000000001"];
    let mut world = World::new("eu-west-1")
        .vpc(vpc, "10.99.0.0/16")
        .subnet(subnets[0], vpc, "10.99.0.0/24", "eu-west-1a")
        .subnet(subnets[1], vpc, "10.99.1.0/24", "eu-west-1a")
        .access_key("AKIAVIPAEXAMPLE00001", "vipa-example-secret");
    for number in 1..=3_u8 {
        let mut instance = Instance::new(&format!("i-0a{number:015}"));
        if number < 3 {
            instance = instance.role("router");
        }
        for (n, letter) in ["a", "b"].iter().enumerate() {
            let id = format!("eni-0{letter}{number:015}");
            let mac = format!("02:00:00:00:0{n}:0{number}");
            let primary = Ipv4Addr::new(10, 99, n as u8, 10 + number);
            instance = instance.interface(NetworkInterface::new(&id, &mac, subnets[n], primary).address_limit(250));
        }
        world = world.instance(instance);
    }
    world
}

/// One router in each of two zones, and a third party beside the first, with prompt reads: [`World::two_zones`].
pub fn two_zones() -> World {
    World::two_zones().stale_reads(Duration::ZERO)
}

impl Lab {
    /// Starts it, in namespaces that [`enter`] made.
    ///
    /// # Panics
    /// If this machine lacks something that it needs.
    pub fn start(world: World, binary: &Path) -> Self {
        network::make_bridges(&world);
        let simulator = Simulator::start(world.clone()).expect("a world");
        let vpc = network::has_routes(&world).then(|| Vpc::start(&simulator, &world));
        let serve = |address: Ipv4Addr| simulator.serve_ec2_tls((address, 443).into(), None, &[EC2]).expect("EC2");
        let ec2 = Endpoint(network::endpoints(&world).into_iter().map(serve).collect());
        let [r1, r2] = [1, 2].map(|number| Router::start(number, &world, binary, EC2, simulator.ca_pem()));
        let imds = [&r1, &r2].map(|router| {
            let address = "169.254.169.254:80".parse().expect("an address");
            simulator.serve_imds(&router.instance, address, Some(&router.network_namespace())).expect("IMDS")
        });
        Self { simulator, r1, r2, ec2, imds, world, _vpc: vpc }
    }

    /// A new client in a subnet, with the address that ends in 50.
    ///
    /// # Panics
    /// If there is one already.
    pub fn client(&self, subnet: usize) -> Client {
        let gateway = network::gateway(&self.world, subnet);
        let address = Ipv4Addr::from_bits(gateway.to_bits() + 49);
        let ipv6 = |address| network::ipv6(&self.world, subnet, address);
        let gateways: Vec<IpAddr> = ipv6(gateway).map(IpAddr::from).into_iter().chain([gateway.into()]).collect();
        Client::start(&format!("client{subnet}"), &format!("br{subnet}"), (address, ipv6(address)), &gateways)
    }

    /// A new client beyond the internet gateway.
    ///
    /// # Panics
    /// If there is one already, or the world has no route tables.
    pub fn client_in_the_internet(&self) -> Client {
        let (bridge, gateway) = vpc::INTERNET;
        let address = Ipv4Addr::from_bits(gateway.to_bits() + 9);
        Client::start("client", bridge, (address, None), &[gateway.into()])
    }

    /// Commits one group on both routers, `vyos-aws` with 10.99.0.100: priority 200 on r1, 100 on r2.
    ///
    /// # Panics
    /// If a commit fails.
    pub fn commit_pair(&mut self) {
        for (router, priority) in [(&mut self.r1, 200), (&mut self.r2, 100)] {
            router.set_group(GROUP, 10, "10.99.0.100/24", priority);
            router.commit();
        }
    }

    /// Commits the group `vyos-aws` with [`OVERLAY`] and these nodes of `aws-vipa` on both routers: priority 200 on r1, 100 on
    /// r2.
    ///
    /// # Panics
    /// If a commit fails.
    pub fn commit_overlay(&mut self, nodes: &[&str]) {
        for (router, priority) in [(&mut self.r1, 200), (&mut self.r2, 100)] {
            router.set_group(GROUP, 10, OVERLAY_ROUTE, priority);
            let nodes = nodes.iter().map(|node| format!("set high-availability vrrp group {GROUP} aws-vipa {node}"));
            let nodes: Vec<String> = nodes.collect();
            router.set(nodes.iter().map(String::as_str));
            router.commit();
        }
    }

    /// Sets a node of `high-availability vrrp global-parameters aws-vipa` on both routers.
    pub fn set_global(&mut self, node: &str) {
        let command = format!("set high-availability vrrp global-parameters aws-vipa {node}");
        for router in [&mut self.r1, &mut self.r2] {
            router.set([command.as_str()]);
        }
    }

    /// As [`commit_pair`](Self::commit_pair); returns when r1 holds the address and r2 is ready to take over.
    ///
    /// # Panics
    /// If that takes longer than 20 s.
    pub fn bring_up(&mut self) {
        self.commit_pair();
        let within = Duration::from_secs(20);
        self.wait_for_verdict(&self.r1, GROUP, VIP, "OK", within);
        self.wait_for_verdict(&self.r2, GROUP, VIP, "STANDBY-READY", within);
        assert_eq!(self.simulator.owner(VIP).expect("an owner"), *self.r1.enis[0]);
    }

    /// Blocks the link between the routers in one or both directions, and unblocks what was blocked before.
    pub fn cut(&self, what: Cut) {
        network::cut(what, [&self.r1.primaries, &self.r2.primaries]);
    }

    /// Unblocks the link.
    pub fn heal(&self) {
        network::heal();
    }

    /// Cuts a subnet off with all that is in it, and with the address of EC2's endpoint there.
    pub fn cut_zone(&self, subnet: usize) {
        network::cut_zone(subnet, network::gateway(&self.world, subnet));
    }

    /// Connects all subnets again.
    pub fn heal_zones(&self) {
        network::heal_zones();
    }

    /// Waits until the condition holds.
    ///
    /// # Panics
    /// If it does not within the time.
    pub fn wait(&self, what: &str, within: Duration, mut holds: impl FnMut(&Lab) -> bool) {
        let deadline = Instant::now() + within;
        while !holds(self) {
            assert!(Instant::now() < deadline, "not within {within:?}: {what}");
            sleep(LOOK);
        }
    }

    /// Checks that the condition holds all that time.
    ///
    /// # Panics
    /// If it does not.
    pub fn watch(&self, what: &str, during: Duration, mut holds: impl FnMut(&Lab) -> bool) {
        let began = Instant::now();
        while began.elapsed() < during {
            assert!(holds(self), "not after {:?} of {during:?}: {what}", began.elapsed());
            sleep(LOOK);
        }
    }

    /// Waits until the router's eth0 has the address in EC2.
    ///
    /// # Panics
    /// If it has not within the time.
    pub fn wait_for_owner(&self, address: Ipv4Addr, router: &Router, within: Duration) {
        self.simulator.wait_for_owner(address, &router.enis[0], within).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Waits until the router shows the verdict for the address.
    ///
    /// # Panics
    /// If it does not within the time; with what it shows.
    pub fn wait_for_verdict(&self, router: &Router, group: &str, address: Ipv4Addr, verdict: &str, within: Duration) {
        let deadline = Instant::now() + within;
        loop {
            let shown = router.shown(group, address);
            if shown.verdict() == verdict {
                return;
            }
            let number = router.number;
            assert!(Instant::now() < deadline, "router {number} shows no {verdict} within {within:?}: {shown:#?}");
            sleep(LOOK * 5);
        }
    }

    /// Waits until the route of a table leads to the router's eth0.
    ///
    /// # Panics
    /// If it does not within the time.
    pub fn wait_for_route(&self, table: &str, destination: &str, router: &Router, within: Duration) {
        let moved = self.simulator.wait_for_route(table, destination, &router.enis[0], within);
        moved.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Waits until the router shows the verdict for everything that its groups move.
    ///
    /// # Panics
    /// If it does not within the time; with what it shows.
    pub fn wait_for_verdicts(&self, router: &Router, verdict: &str, within: Duration) {
        let deadline = Instant::now() + within;
        loop {
            let status = router.status();
            let verdicts = verdicts(&status);
            if !verdicts.is_empty() && verdicts.iter().all(|shown| shown == verdict) {
                return;
            }
            let number = router.number;
            assert!(
                Instant::now() < deadline,
                "router {number} shows not only {verdict} within {within:?}: {status:#}"
            );
            sleep(LOOK * 5);
        }
    }

    /// The claims of addresses so far, of one router or of both.
    pub fn claims(&self, of: Option<&Router>) -> Vec<Request> {
        let requests = self.simulator.requests().into_iter();
        requests
            .filter(|r| r.action == "AssignPrivateIpAddresses")
            .filter(|r| of.is_none_or(|router| router.enis.iter().any(|eni| r.network_interfaces.contains(eni))))
            .collect()
    }

    /// The changes of routes that routers have requested so far, of one router or of both; no dry runs.
    pub fn route_claims(&self, of: Option<&Router>) -> Vec<Request> {
        self.changes(&["ReplaceRoute", "CreateRoute"], of)
    }

    /// The associations of Elastic IPs that routers have requested so far, of one router or of both; no dry runs.
    pub fn associations(&self, of: Option<&Router>) -> Vec<Request> {
        self.changes(&["AssociateAddress"], of)
    }

    fn changes(&self, actions: &[&str], of: Option<&Router>) -> Vec<Request> {
        let requests = self.simulator.requests().into_iter();
        requests
            .filter(|r| actions.contains(&r.action.as_str()) && !r.dry_run)
            .filter(|r| of.is_none_or(|router| router.enis.iter().any(|eni| r.network_interfaces.contains(eni))))
            .collect()
    }

    /// The router's reads of ownership so far.
    pub fn reads(&self, of: &Router) -> Vec<Request> {
        let requests = self.simulator.requests().into_iter();
        requests.filter(|r| r.action == "DescribeNetworkInterfaces" && r.peer.ip() == of.primaries[0]).collect()
    }

    /// The state of the lab, for a scenario that failed.
    fn story(&self) -> String {
        format!("{}\n{}\n{}\n{}", self.simulator, network::shown(), self.r1.story(), self.r2.story())
    }
}

/// The verdict of every address, route and Elastic IP of a status report.
pub fn verdicts(status: &Value) -> Vec<String> {
    let groups = status["groups"].as_array().into_iter().flatten();
    let items = groups.flat_map(|group| ["addresses", "routes", "elastic_ips"].map(|kind| group[kind].as_array()));
    items.flatten().flatten().map(|item| item["verdict"].as_str().unwrap_or("not there").to_owned()).collect()
}
