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

use lab::simulator::{NetworkInterface, Request, Service, World};
use lab::{EC2, Lab, Router, THIRD_PARTY};
use serde::{Deserialize, Serialize};

use crate::distance;
use crate::notified::Notifier;
use crate::peers::{Bare, Peer, claim_of, record_claim};
use crate::spread::Spread;

/// Transitions that one network interface may have without waiting.
const FREE: usize = 20;

/// Where EC2 listens, and where it does behind a distance.
const NEAR: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1)), 443);
const FAR: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 99, 1, 1)), 443);

/// Where the claim is recorded that the bare connection sends: at EC2's name, without TLS.
const RECORDER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 99, 1, 1)), 80);

/// What the peers claim.
const PEERS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 250);

/// Between two transitions: the agent is idle when the line comes, as it is when a master dies.
const PAUSE: Duration = Duration::from_millis(2);

/// A standby that waits for the master to die is idle for longer: caches are cold then, and processors sleep.
const LONG_PAUSE: Duration = Duration::from_secs(2);

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Transitions on a warm connection, and requests of the bare one.
    pub transitions: usize,
    /// Transitions after a long pause, and requests of the bare connection after one.
    pub paused: usize,
    /// Claims of each peer.
    pub peers: usize,
    /// First transitions of new agents, and first requests of new bare connections.
    pub cold: usize,
}

impl Sizes {
    /// Groups for the transitions; one more is for the claim that is recorded.
    fn groups(self) -> usize {
        (self.transitions + self.paused).div_ceil(FREE)
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
    /// Both after a pause of 2 s, measured without a distance alone.
    pub paused: Option<Paused>,
    /// The first transition of a new agent, written as soon as it reads the FIFO and before it has asked EC2 for anything.
    pub agent_cold: Spread,
    /// A new bare connection, with its handshake.
    pub bare_cold: Spread,
    /// The script with boto3, from its start.
    pub boto3: Spread,
    /// The AWS CLI, from the start of the first of its two processes.
    pub cli: Spread,
}

/// What was measured after a pause of 2 s.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Paused {
    /// The agent, its connection warm.
    pub agent: Spread,
    /// The bare connection, warm.
    pub bare: Spread,
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
    let mut notifier = Notifier::commit(&lab.r1);
    [0, 2]
        .map(|round_trip_ms| {
            let round_trip = Duration::from_millis(round_trip_ms);
            let ec2 = if round_trip.is_zero() { NEAR } else { FAR };
            if !round_trip.is_zero() {
                distance::open(FAR, NEAR, round_trip).expect("a relay");
            }
            for router in [&lab.r1, &lab.r2] {
                resolve(router, ec2);
            }
            // A new agent has its free claims again, and a connection to the address that counts now.
            notifier.restart(&lab.r1);
            notifier.stand_by(&lab.r1, &groups);
            let mut all = Times::default();
            all.warm(lab, &mut notifier, &request, ec2, environment, sizes);
            let paused = round_trip.is_zero().then(|| paused(lab, &mut notifier, &request, ec2, sizes));
            all.cold(lab, &mut notifier, &request, ec2, sizes);
            Line {
                round_trip_ms,
                agent: Spread::of(&all.agent),
                bare: Spread::of(&all.bare),
                paused,
                agent_cold: Spread::of(&all.agent_cold),
                bare_cold: Spread::of(&all.bare_cold),
                boto3: Spread::of(&all.boto3),
                cli: Spread::of(&all.cli),
            }
        })
        .into()
}

/// The bytes of the agent's claim for the first group, with the Host header and the signature that EC2 gets.
fn record(router: &mut Router) -> Vec<u8> {
    let node = format!("high-availability vrrp global-parameters aws-vipa endpoint-url http://{EC2}");
    router.set([format!("set {node}").as_str()]);
    resolve(router, RECORDER);
    let listener = TcpListener::bind(RECORDER).expect("bound");
    let mut notifier = Notifier::commit(router);
    notifier.restart(router);
    notifier.notify(&group(0), "MASTER");
    let request = record_claim(&listener, Duration::from_secs(30)).expect("a claim");
    notifier.notify(&group(0), "BACKUP");
    router.set([format!("delete {node}").as_str()]);
    request
}

/// Gives EC2's name this address on a router.
fn resolve(router: &Router, ec2: SocketAddr) {
    router.write("/run/lab/etc/hosts", &format!("127.0.0.1 localhost\n{} {EC2}\n", ec2.ip()));
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
    fn warm(
        &mut self,
        lab: &Lab,
        notifier: &mut Notifier,
        request: &[u8],
        ec2: SocketAddr,
        environment: &Path,
        sizes: Sizes,
    ) {
        let mut bare = Bare::connect(&lab.r1, &lab.simulator, ec2).expect("a connection");
        let every = sizes.transitions.div_ceil(sizes.peers);
        for turn in 0..sizes.transitions {
            self.agent.push(transition(lab, notifier, 1 + turn % sizes.groups()).1);
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

    fn cold(&mut self, lab: &Lab, notifier: &mut Notifier, request: &[u8], ec2: SocketAddr, sizes: Sizes) {
        let mut turns = 0;
        while self.agent_cold.len() < sizes.cold {
            turns += 1;
            assert!(
                turns <= 10 * sizes.cold,
                "the agent asks EC2 before it is notified of anything: {}",
                lab.r1.agent_log()
            );
            let from = lab.simulator.next_number();
            notifier.restart(&lab.r1);
            let (began, time) = transition(lab, notifier, 1 + turns % sizes.groups());
            if lab.simulator.requests_from(from).iter().any(|r| r.service == Service::Ec2 && r.arrived < began) {
                // Its connection was no new one any more.
                continue;
            }
            self.agent_cold.push(time);
            let from = lab.simulator.next_number();
            let began = Instant::now();
            let mut bare = Bare::connect(&lab.r1, &lab.simulator, ec2).expect("a connection");
            bare.send(request).expect("an answer");
            self.bare_cold.push(arrival(lab, address(0), from).arrived - began);
        }
    }
}

/// Transitions and bare requests in turn, each after a long pause.
fn paused(lab: &Lab, notifier: &mut Notifier, request: &[u8], ec2: SocketAddr, sizes: Sizes) -> Paused {
    let mut bare = Bare::connect(&lab.r1, &lab.simulator, ec2).expect("a connection");
    let times: Vec<[Duration; 2]> = (0..sizes.paused)
        .map(|turn| {
            sleep(LONG_PAUSE);
            let (_, agent) = transition(lab, notifier, 1 + (sizes.transitions + turn) % sizes.groups());
            sleep(LONG_PAUSE);
            let from = lab.simulator.next_number();
            let began = bare.send(request).expect("an answer");
            [agent, arrival(lab, address(0), from).arrived - began]
        })
        .collect();
    let [agent, bare] = [0, 1].map(|n| Spread::of(&times.iter().map(|pair| pair[n]).collect::<Vec<_>>()));
    Paused { agent, bare }
}

/// A group becomes MASTER while a third party has its address, and BACKUP again once EC2 has answered: when its line was
/// written, and the time from there.
fn transition(lab: &Lab, notifier: &mut Notifier, n: usize) -> (Instant, Duration) {
    lab.simulator.steal(address(n), THIRD_PARTY[0]).expect("a third party's");
    let from = lab.simulator.next_number();
    let began = notifier.notify(&group(n), "MASTER");
    let claim = arrival(lab, address(n), from);
    assert_eq!(claim.network_interfaces, [eni(n)], "{claim}");
    notifier.notify(&group(n), "BACKUP");
    (began, claim.arrived - began)
}

fn arrival(lab: &Lab, address: Ipv4Addr, from: usize) -> Request {
    let claim = claim_of(&lab.simulator, address, from);
    claim.unwrap_or_else(|error| panic!("{error}\n{}", lab.r1.agent_log()))
}
