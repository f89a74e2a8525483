//! From keepalived's line to the request: the time from just before write(2) on the FIFO to the arrival of
//! AssignPrivateIpAddresses at the simulator, and the same for those that do it otherwise.
//!
//! A claim that comes more than 20 times at once on one network interface waits (the bound of a storm of transitions), so
//! the transitions go round over many groups, each with a network interface of its own: every one of them is free.
//! Transitions, the bare connection and the peers take turns, so that whatever else the machine does hits all alike.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use lab::simulator::{NetworkInterface, Request, World};
use lab::{EC2, Lab, Router, STRANGER};
use serde::{Deserialize, Serialize};

use crate::distance;
use crate::peers::{Bare, Peer, claim_of, record_claim};
use crate::spread::Spread;
use crate::told::Told;

/// Transitions that one network interface may have without waiting.
const FREE: usize = 20;

/// Where EC2 listens, and where it does behind a distance.
const NEAR: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1)), 443);
const FAR: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 99, 1, 1)), 443);

/// Where the claim is recorded that the bare connection sends.
const RECORDER: &str = "10.99.1.1:8080";

/// What the peers claim.
const PEERS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 250);

/// Between two transitions: the agent is idle when the line comes, as it is when a master dies.
const PAUSE: Duration = Duration::from_millis(2);

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Transitions on a warm connection, and requests of the bare one.
    pub transitions: usize,
    /// Claims of each peer.
    pub peers: usize,
    /// First transitions of new agents, and first requests of new bare connections.
    pub cold: usize,
}

impl Sizes {
    /// Groups for the transitions; one more is for the claim that is recorded.
    fn groups(self) -> usize {
        self.transitions.div_ceil(FREE)
    }
}

/// What was measured at one round trip between routers and EC2.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Line {
    /// The round trip of the network, in milliseconds; half of it is in every time.
    pub round_trip_ms: u64,
    /// The agent, its connection warm.
    pub agent: Spread,
    /// The bare connection, warm.
    pub bare: Spread,
    /// The first transition of a new agent, written as soon as it reads the FIFO.
    pub agent_cold: Spread,
    /// A new bare connection, with its handshake.
    pub bare_cold: Spread,
    /// The script with boto3, from its start.
    pub boto3: Spread,
    /// The AWS CLI, from the start of the first of its two processes.
    pub cli: Spread,
}

/// A world in which the first router has a network interface for each group.
pub fn world(sizes: Sizes) -> World {
    let mut world = lab::world().stale_reads(Duration::ZERO);
    world.throttling = None;
    // The recorded claim is sent for minutes.
    world.clock_tolerance_seconds = None;
    for n in 0..=sizes.groups() {
        let (mac, primary) = (format!("02:00:00:00:10:{n:02x}"), Ipv4Addr::new(10, 99, 0, 20 + n as u8));
        let interface = NetworkInterface::new(&eni(n), &mac, "subnet-0a000000000000001", primary);
        world.instances[0].network_interfaces.push(interface);
    }
    world
}

fn eni(n: usize) -> String {
    format!("eni-0c{n:015}")
}

fn group(n: usize) -> String {
    format!("group-{n}")
}

fn address(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, 101 + n as u8)
}

/// Measures at round trips of 0 and 2 ms, in the lab of that [`world`]. `environment` is the peers' Python environment.
///
/// # Panics
/// If anything fails.
pub fn measure(lab: &mut Lab, environment: &Path, sizes: Sizes) -> Vec<Line> {
    let groups: Vec<String> = (0..=sizes.groups()).map(group).collect();
    for (n, group) in groups.iter().enumerate() {
        lab.r1.set_group(group, n as u8 + 1, &format!("{}/24", address(n)), 200);
        let id = format!("set high-availability vrrp group {group} aws-vipa network-interface-id {}", eni(n));
        lab.r1.set([id.as_str()]);
    }
    let request = record(&mut lab.r1);
    let mut told = Told::commit(&lab.r1);
    [0, 2]
        .map(|round_trip_ms| {
            let round_trip = Duration::from_millis(round_trip_ms);
            let ec2 = if round_trip.is_zero() { NEAR } else { FAR };
            if !round_trip.is_zero() {
                distance::open(FAR, NEAR, round_trip).expect("a relay");
            }
            for router in [&lab.r1, &lab.r2] {
                router.write("/run/lab/etc/hosts", &format!("127.0.0.1 localhost\n{} {EC2}\n", ec2.ip()));
            }
            // A new agent has its free claims again, and a connection to the address that counts now.
            told.restart(&lab.r1);
            told.stand_by(&lab.r1, &groups);
            let mut all = Times::default();
            all.warm(lab, &mut told, &request, ec2, environment, sizes);
            all.cold(lab, &mut told, &request, ec2, sizes);
            Line {
                round_trip_ms,
                agent: Spread::of(&all.agent),
                bare: Spread::of(&all.bare),
                agent_cold: Spread::of(&all.agent_cold),
                bare_cold: Spread::of(&all.bare_cold),
                boto3: Spread::of(&all.boto3),
                cli: Spread::of(&all.cli),
            }
        })
        .into()
}

/// The bytes of the agent's claim for the first group, for another end point.
fn record(router: &mut Router) -> Vec<u8> {
    let node = format!("high-availability vrrp global-parameters aws-vipa endpoint-url http://{RECORDER}");
    router.set([format!("set {node}").as_str()]);
    let listener = TcpListener::bind(RECORDER).expect("bound");
    let mut told = Told::commit(router);
    told.restart(router);
    told.tell(&group(0), "MASTER");
    let request = record_claim(&listener, Duration::from_secs(30)).expect("a claim");
    told.tell(&group(0), "BACKUP");
    router.set([format!("delete {node}").as_str()]);
    request
}

#[derive(Default)]
struct Times {
    agent: Vec<Duration>,
    bare: Vec<Duration>,
    agent_cold: Vec<Duration>,
    bare_cold: Vec<Duration>,
    boto3: Vec<Duration>,
    cli: Vec<Duration>,
}

impl Times {
    fn warm(&mut self, lab: &Lab, told: &mut Told, request: &[u8], ec2: SocketAddr, environment: &Path, sizes: Sizes) {
        let mut bare = Bare::connect(&lab.r1, &lab.simulator, ec2).expect("a connection");
        let every = sizes.transitions.div_ceil(sizes.peers);
        for turn in 0..sizes.transitions {
            self.agent.push(transition(lab, told, 1 + turn % sizes.groups()));
            sleep(PAUSE);
            let from = lab.simulator.next_number();
            let began = bare.send(request).expect("an answer");
            self.bare.push(arrival(lab, address(0), from).arrived - began);
            sleep(PAUSE);
            if turn % every == 0 {
                for (peer, times) in [(Peer::Boto3, &mut self.boto3), (Peer::Cli, &mut self.cli)] {
                    let from = lab.simulator.next_number();
                    let began = peer.claim(&lab.r2, environment, PEERS);
                    times.push(arrival(lab, PEERS, from).arrived - began);
                }
            }
        }
    }

    fn cold(&mut self, lab: &Lab, told: &mut Told, request: &[u8], ec2: SocketAddr, sizes: Sizes) {
        for turn in 0..sizes.cold {
            told.restart(&lab.r1);
            self.agent_cold.push(transition(lab, told, 1 + turn % sizes.groups()));
            let from = lab.simulator.next_number();
            let began = Instant::now();
            let mut bare = Bare::connect(&lab.r1, &lab.simulator, ec2).expect("a connection");
            bare.send(request).expect("an answer");
            self.bare_cold.push(arrival(lab, address(0), from).arrived - began);
        }
    }
}

/// A group becomes MASTER while a third party has its address, and BACKUP again once EC2 has answered.
fn transition(lab: &Lab, told: &mut Told, n: usize) -> Duration {
    lab.simulator.steal(address(n), STRANGER[0]).expect("a third party's");
    let from = lab.simulator.next_number();
    let began = told.tell(&group(n), "MASTER");
    let claim = arrival(lab, address(n), from);
    assert_eq!(claim.network_interfaces, [eni(n)], "{claim}");
    told.tell(&group(n), "BACKUP");
    claim.arrived - began
}

fn arrival(lab: &Lab, address: Ipv4Addr, from: usize) -> Request {
    let claim = claim_of(&lab.simulator, address, from);
    claim.unwrap_or_else(|error| panic!("{error}\n{}", lab.r1.agent_log()))
}
