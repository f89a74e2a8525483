//! Routes and Elastic IPs that follow the master: the time from keepalived's line to the first request, and until the last
//! one is ours while every call of EC2 takes 300 ms; and what the agent costs that holds many of them.
//!
//! The world has no throttling, so that one round does not change the next one. Whether EC2 would have refused requests is
//! calculated from their times instead.

use std::net::Ipv4Addr;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use lab::simulator::{ElasticIp, Fault, On, Request, RouteTable, World};
use lab::{GROUP, Lab, Router, THIRD_PARTY};
use serde::{Deserialize, Serialize};

use crate::cost;
use crate::many::{Alone, CALL, alone};
use crate::notified::{Notifier, await_verdict};
use crate::peers::Peer;
use crate::spread::{Spread, millis};

/// How often keepalived shows activity while it is MASTER: the advertisement interval.
const ACTIVITY: Duration = Duration::from_secs(1);

/// The most of a kind that a router moves.
pub const MOST: usize = 200;
/// The route tables that each destination is in.
const TABLES: usize = 10;
/// EC2's rate limit for requests of one action that change something: at once, and per second (EC2 API, "Request
/// throttling").
const RATE: (f64, f64) = (50.0, 5.0);
/// How many Elastic IPs the other router, on which the peers are measured, has private addresses for.
const PEERS: usize = 10;
/// Between two transitions: the agent is idle when the line comes.
const PAUSE: Duration = Duration::from_millis(2);
/// All of 200 have moved: what is free at once, and the rest at EC2's rate.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a group can move beside addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// ReplaceRoute.
    Route,
    /// AssociateAddress.
    ElasticIp,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Route, Self::ElasticIp];

    /// The call that moves one.
    pub fn call(self) -> &'static str {
        match self {
            Self::Route => "ReplaceRoute",
            Self::ElasticIp => "AssociateAddress",
        }
    }

    /// `1 route`, `2 Elastic IPs`.
    pub fn count(self, count: usize) -> String {
        let what = match self {
            Self::Route => "route",
            Self::ElasticIp => "Elastic IP",
        };
        format!("{count} {what}{}", if count == 1 { "" } else { "s" })
    }

    /// The node of one, below `aws-vipa`.
    fn node(self, n: usize) -> String {
        match self {
            Self::Route => format!("route {} route-table {}", destination(n), table(n)),
            Self::ElasticIp => format!("elastic-ip {} private-address {}", allocation(n), private(n)),
        }
    }

    /// Whether a request claims one of this kind.
    fn is_claim(self, request: &Request) -> bool {
        request.action == self.call() && !request.dry_run
    }
}

/// From the line to the first request on a warm connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct First {
    /// Of what.
    pub kind: Kind,
    /// The agent.
    pub agent: Spread,
}

/// So many of one kind that move at once.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Moves {
    /// Of what.
    pub kind: Kind,
    /// How many.
    pub count: usize,
    /// From the line until the last was ours.
    pub agent: Spread,
    /// The most claims that one round took.
    pub calls: usize,
    /// The most claims of one round that EC2 would have refused because of its rate limit.
    pub refused: usize,
    /// One script with boto3 for all of them: two calls each, one after the other.
    pub boto3: Alone,
    /// The way of Pacemaker's aws-vpc-move-ip and awseip: the AWS CLI for each call, one after the other.
    pub cli: Alone,
}

/// The agent of a MASTER that holds routes and Elastic IPs, while nothing happens.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Held {
    /// Routes.
    pub routes: usize,
    /// Elastic IPs.
    pub elastic_ips: usize,
    /// The agent.
    pub idle: cost::Idle,
    /// DescribeRouteTables in an hour, by the time between two of them.
    pub route_reads_per_hour: f64,
    /// DescribeAddresses in an hour, by the time between two of them.
    pub elastic_ip_reads_per_hour: f64,
}

/// All of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Resources {
    /// Line to request.
    pub first: Vec<First>,
    /// Many at once.
    pub moves: Vec<Moves>,
    /// The idle agent.
    pub held: Held,
}

/// How much to measure.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// Groups with a route, and groups with an Elastic IP, each with one transition for each life of the agent.
    pub groups: usize,
    /// How often the agent is started for that.
    pub lives: usize,
    /// How many move at once.
    pub counts: Vec<usize>,
    /// How often.
    pub rounds: usize,
    /// The greatest number at which the peers are measured, and how often.
    pub peers: (usize, usize),
    /// The routes and the Elastic IPs that the idle agent holds.
    pub held: (usize, usize),
}

/// A world with ten route tables, 200 Elastic IPs, and a private address for each on the first router.
pub fn world() -> World {
    let mut world = lab::world().stale_reads(Duration::ZERO).throttling(None).routes_per_table(2 * MOST);
    world.instances[0].network_interfaces[0].secondary = (0..MOST).map(private).collect();
    world.instances[1].network_interfaces[0].secondary = (MOST..MOST + PEERS).map(private).collect();
    let vpc = world.vpcs[0].id.clone();
    for number in 0..TABLES {
        let here = (0..MOST).filter(|n| n % TABLES == number);
        let table =
            here.fold(RouteTable::new(&table(number), &vpc), |table, n| table.route(&destination(n), THIRD_PARTY[0]));
        let table = (0..MOST).fold(table, |table, n| table.route(&format!("{}/32", overlay(n)), THIRD_PARTY[0]));
        world = world.route_table(table);
    }
    (0..MOST).fold(world, |world, n| {
        world.elastic_ip(ElasticIp::new(&allocation(n), Ipv4Addr::new(203, 0, 113, 1 + n as u8)))
    })
}

fn table(n: usize) -> String {
    format!("rtb-0a{:015}", n % TABLES)
}

fn destination(n: usize) -> String {
    format!("172.16.{}.0/24", n / TABLES)
}

fn overlay(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 255, 0, 1 + n as u8)
}

fn allocation(n: usize) -> String {
    format!("eipalloc-0a{n:015}")
}

fn private(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, 20 + n as u8)
}

/// The virtual address of a group that moves many.
const VIRTUAL: &str = "10.99.0.250/24";

/// Sets the group with so many of each kind, and nothing else.
fn set_group(router: &mut Router, counts: &[(Kind, usize)]) {
    if router.configuration().dict().get("vrrp").is_some() {
        router.set(["delete high-availability vrrp"]);
    }
    router.set_group(GROUP, 10, VIRTUAL, 200);
    for (kind, count) in counts {
        (0..*count).for_each(|n| set_one(router, GROUP, *kind, n));
    }
}

fn set_one(router: &mut Router, group: &str, kind: Kind, n: usize) {
    router.set([format!("set high-availability vrrp group {group} aws-vipa {}", kind.node(n)).as_str()]);
}

/// From the line to the first request, in the lab of that [`world`].
///
/// # Panics
/// If anything fails.
pub fn first(lab: &mut Lab, sizes: &Sizes) -> Vec<First> {
    let name = |kind: Kind, n: usize| match kind {
        Kind::Route => format!("route-{n}"),
        Kind::ElasticIp => format!("elastic-ip-{n}"),
    };
    let all = || Kind::ALL.into_iter().flat_map(|kind| (0..sizes.groups).map(move |n| (kind, n)));
    for (vrid, (kind, n)) in (1..).zip(all()) {
        let (group, router) = (name(kind, n), &mut lab.r1);
        let path = format!("set high-availability vrrp group {group} aws-vipa");
        match kind {
            // An overlay address, as it is used across zones.
            Kind::Route => {
                let address = format!("{}/32", overlay(n));
                router.set_group(&group, vrid, &address, 200);
                router.set([format!("{path} route {address} route-table {}", table(0)).as_str()]);
            }
            Kind::ElasticIp => {
                router.set_group(&group, vrid, &format!("{}/24", private(n)), 200);
                router.set([format!("{path} no-address").as_str()]);
                set_one(router, &group, kind, n);
            }
        }
    }
    let mut notifier = Notifier::commit(&lab.r1);
    let mut times = Kind::ALL.map(|_| Vec::new());
    for _ in 0..sizes.lives {
        for n in 0..sizes.groups {
            let (simulator, overlay) = (&lab.simulator, format!("{}/32", overlay(n)));
            simulator.steal_route(table(0), &overlay, THIRD_PARTY[0]).expect("a third party's");
            release(lab, n);
        }
        // A new agent has read what EC2 has now, and none of its claims counts against a rate limit.
        notifier.restart(&lab.r1);
        let groups: Vec<String> = all().map(|(kind, n)| name(kind, n)).collect();
        notifier.stand_by(&lab.r1, &groups);
        for n in 0..sizes.groups {
            for (kind, times) in Kind::ALL.into_iter().zip(&mut times) {
                let from = lab.simulator.next_number();
                let began = notifier.notify(&name(kind, n), "MASTER");
                let is_wanted = |request: &Request| match kind {
                    Kind::Route => request.changes_route(&table(0), &format!("{}/32", overlay(n))),
                    Kind::ElasticIp => request.associates(&allocation(n)),
                };
                let what = format!("{} of group {}", kind.call(), name(kind, n));
                let request = lab.simulator.wait_for(&what, Duration::from_secs(10), |simulator| {
                    simulator.requests_from(from).into_iter().find(|r| is_wanted(r) && r.succeeded())
                });
                let request = request.unwrap_or_else(|error| panic!("{error}\n{}", lab.r1.agent_log()));
                times.push(request.arrived - began);
                notifier.notify(&name(kind, n), "BACKUP");
                sleep(PAUSE);
            }
        }
    }
    Kind::ALL.into_iter().zip(times).map(|(kind, times)| First { kind, agent: Spread::of(&times) }).collect()
}

/// Nothing has the Elastic IP any more.
fn release(lab: &Lab, n: usize) {
    let allocation = allocation(n);
    if lab.simulator.association(&allocation).expect("an Elastic IP").is_some() {
        lab.simulator.release_association(&allocation).expect("associated");
    }
}

/// Many of one kind that move at once, in the lab of that [`world`]; the peers do it on the other router.
///
/// # Panics
/// If anything fails.
pub fn moves(lab: &mut Lab, environment: &Path, kind: Kind, sizes: &Sizes) -> Vec<Moves> {
    lab.simulator.add_fault(Fault::on(On::ec2()).delay_before(CALL));
    let rounds: Vec<(usize, Round)> =
        sizes.counts.iter().map(|count| (*count, agent(lab, kind, *count, sizes.rounds))).collect();
    let at: Vec<usize> = sizes.counts.iter().copied().filter(|count| *count <= sizes.peers.0).collect();
    let [boto3, cli] = [Peer::Boto3, Peer::Cli].map(|peer| -> Vec<(usize, f64)> {
        let of = |count: usize| {
            let times = (0..sizes.peers.1).map(|_| one_by_one(lab, environment, peer, kind, count));
            (count, Spread::of_millis(times).p50)
        };
        at.iter().copied().map(of).collect()
    });
    let with_peers = |(count, round): (usize, Round)| {
        let [boto3, cli] = [&boto3, &cli].map(|points| alone(points, count));
        let Round { agent, calls, refused } = round;
        Moves { kind, count, agent, calls, refused, boto3, cli }
    };
    rounds.into_iter().map(with_peers).collect()
}

/// What the agent took for one number of them.
struct Round {
    agent: Spread,
    calls: usize,
    refused: usize,
}

fn agent(lab: &mut Lab, kind: Kind, count: usize, rounds: usize) -> Round {
    set_group(&mut lab.r1, &[(kind, count)]);
    lab.r1.set([format!("set high-availability vrrp group {GROUP} aws-vipa no-address").as_str()]);
    let mut notifier = Notifier::commit(&lab.r1);
    let (mut times, mut calls, mut refused) = (Vec::new(), 0, 0);
    // Beyond what EC2 takes at once its rate decides, which is the same each time.
    let rounds = if count as f64 > RATE.0 { 1 } else { rounds };
    for _ in 0..rounds {
        take_away(lab, kind, count);
        notifier.restart(&lab.r1);
        notifier.notify(GROUP, "BACKUP");
        await_verdict(&lab.r1, count, "STANDBY-READY");
        let (moves, from) = (moves_to(lab, kind, &lab.r1).len(), lab.simulator.next_number());
        let began = notifier.notify(GROUP, "MASTER");
        // The agent claims only for a keepalived that shows activity, and here its notify events are all of it.
        let mut active = began;
        let keep_active = || {
            if active.elapsed() >= ACTIVITY {
                active = notifier.notify(GROUP, "MASTER_PRIORITY");
            }
        };
        times.push(last_move(lab, kind, &lab.r1, moves, count, keep_active) - began);
        // The rest of the answers: a claim in flight is not undone by BACKUP.
        let claims = |lab: &Lab| {
            let requests = lab.simulator.requests_from(from).into_iter();
            requests.filter(|request| kind.is_claim(request)).collect::<Vec<_>>()
        };
        lab.wait("all answers", CALL * 10, |lab| claims(lab).iter().all(|claim| claim.succeeded()));
        let claims = claims(lab).into_iter();
        let claims: Vec<Duration> = claims.map(|request| request.arrived.saturating_duration_since(began)).collect();
        (calls, refused) = (calls.max(claims.len()), refused.max(beyond_the_rate(&claims)));
        notifier.notify(GROUP, "BACKUP");
    }
    Round { agent: Spread::of(&times), calls, refused }
}

/// How many of the requests that came at these times EC2 would have refused because of its rate limit.
fn beyond_the_rate(times: &[Duration]) -> usize {
    let (burst, per_second) = RATE;
    let (mut tokens, mut before, mut refused) = (burst, Duration::ZERO, 0);
    for time in times {
        tokens = (tokens + time.saturating_sub(before).as_secs_f64() * per_second).min(burst);
        before = *time;
        if tokens < 1.0 { refused += 1 } else { tokens -= 1.0 }
    }
    refused
}

/// The routes lead to a third party, and nothing has the Elastic IPs.
fn take_away(lab: &Lab, kind: Kind, count: usize) {
    for n in 0..count {
        match kind {
            Kind::Route => {
                lab.simulator.steal_route(table(n), &destination(n), THIRD_PARTY[0]).expect("a third party's");
            }
            Kind::ElasticIp => release(lab, n),
        }
    }
}

/// When resources of the kind came to the router, each time.
fn moves_to(lab: &Lab, kind: Kind, router: &Router) -> Vec<Instant> {
    let eni = &router.enis[0];
    match kind {
        Kind::Route => {
            let moves = lab.simulator.route_moves().into_iter();
            moves.filter(|one| one.to.as_ref().is_some_and(|to| to.to_string() == *eni)).map(|one| one.at).collect()
        }
        Kind::ElasticIp => {
            let moves = lab.simulator.association_moves().into_iter();
            let is_ours = |to: &lab::simulator::AssociatedWith| to.network_interface == *eni.as_str();
            moves.filter(|one| one.to.as_ref().is_some_and(is_ours)).map(|one| one.at).collect()
        }
    }
}

/// When the last of so many came to the router, of the moves from that number on. Until then `meanwhile` is called again and
/// again.
fn last_move(
    lab: &Lab,
    kind: Kind,
    router: &Router,
    from: usize,
    count: usize,
    mut meanwhile: impl FnMut(),
) -> Instant {
    let what = format!("{} on router {}", kind.count(count), router.number);
    let last = lab.simulator.wait_for(&what, PATIENCE, |_| {
        meanwhile();
        let times = moves_to(lab, kind, router).split_off(from);
        (times.len() >= count).then(|| times.into_iter().max()).flatten()
    });
    last.unwrap_or_else(|error| panic!("{error}\n{}", lab.r1.agent_log()))
}

/// All of them by a peer.
fn one_by_one(lab: &Lab, environment: &Path, peer: Peer, kind: Kind, count: usize) -> f64 {
    take_away(lab, kind, count);
    let moves = moves_to(lab, kind, &lab.r2).len();
    let places: Vec<[String; 2]> = (0..count)
        .map(|n| match kind {
            Kind::Route => [table(n), destination(n)],
            Kind::ElasticIp => [allocation(n), private(MOST + n).to_string()],
        })
        .collect();
    let began = Instant::now();
    peer.take(&lab.r2, environment, kind, &places);
    millis(last_move(lab, kind, &lab.r2, moves, count, || ()) - began)
}

/// The agent that holds so many routes and Elastic IPs, over so many intervals between two regular reads.
///
/// # Panics
/// If anything fails.
pub fn held(lab: &mut Lab, (routes, elastic_ips): (usize, usize), verify_interval: u32, intervals: u32) -> Held {
    set_group(&mut lab.r1, &[(Kind::Route, routes), (Kind::ElasticIp, elastic_ips)]);
    let node = "set high-availability vrrp global-parameters aws-vipa verify-interval";
    lab.r1.set([format!("{node} {verify_interval}").as_str()]);
    lab.r1.commit();
    // The address of the group is claimed too.
    await_verdict(&lab.r1, 1 + routes + elastic_ips, "OK");
    let is_claim = |request: &Request| {
        request.action == "AssignPrivateIpAddresses" || Kind::ALL.into_iter().any(|kind| kind.is_claim(request))
    };
    let last_claim = lab.simulator.requests().into_iter().filter(is_claim).map(|request| request.arrived).max();
    let (idle, regular) = cost::at_rest(lab, 1, verify_interval, intervals, last_claim.expect("a claim"));
    let per_hour = |action: &str| {
        let times: Vec<Instant> = regular.iter().filter(|r| r.action == action).map(|r| r.arrived).collect();
        let [first, .., last] = times[..] else {
            panic!("not two of {action} in {intervals} intervals: {}", lab.simulator);
        };
        (times.len() - 1) as f64 * 3_600.0 / (last - first).as_secs_f64()
    };
    Held {
        routes,
        elastic_ips,
        idle,
        route_reads_per_hour: per_hour("DescribeRouteTables"),
        elastic_ip_reads_per_hour: per_hour("DescribeAddresses"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ec2_takes_at_once_and_per_second_is_not_refused() {
        let at = |seconds: f64, count: usize| vec![Duration::from_secs_f64(seconds); count];
        assert_eq!(beyond_the_rate(&at(0.0, 50)), 0);
        assert_eq!(beyond_the_rate(&at(0.0, 53)), 3);
        let paced = (0..150).map(|n| Duration::from_secs_f64(0.2 * f64::from(n + 1)));
        assert_eq!(beyond_the_rate(&at(0.0, 50).into_iter().chain(paced).collect::<Vec<_>>()), 0);
        let twice_as_fast = (0..100).map(|n| Duration::from_secs_f64(0.1 * f64::from(n + 1)));
        assert_eq!(beyond_the_rate(&at(0.0, 50).into_iter().chain(twice_as_fast).collect::<Vec<_>>()), 50);
        // Rest does not save up more than that.
        assert_eq!(beyond_the_rate(&at(1_000.0, 51)), 1);
    }

    #[test]
    fn every_route_is_in_a_table_of_its_own_destination() {
        let places: std::collections::BTreeSet<_> = (0..MOST).map(|n| (table(n), destination(n))).collect();
        assert_eq!(places.len(), MOST);
        assert_eq!((0..MOST).map(table).collect::<std::collections::BTreeSet<_>>().len(), TABLES);
    }
}
