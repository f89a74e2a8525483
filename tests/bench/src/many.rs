//! Many groups that move at once, while every call of EC2 takes 300 ms: the time from the first line until the last address
//! is ours, and the calls that it takes.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use lab::simulator::{Fault, On, World};
use lab::{Lab, Router, THIRD_PARTY};
use serde::{Deserialize, Serialize};

use crate::distance::wait_until;
use crate::notified::{Notifier, await_verdict};
use crate::peers::Peer;
use crate::spread::{Spread, millis};

/// What one call takes.
pub const CALL: Duration = Duration::from_millis(300);

/// The lines of groups whose advertisements are out of step come within one advertisement interval (RFC 9568, 5.2.8).
const ADVERTISEMENT: Duration = Duration::from_secs(1);

/// keepalived writes the lines of 50 groups over about 4 ms (observed with 2.2.7).
const BETWEEN_LINES: Duration = Duration::from_micros(80);

/// How much to measure.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// Numbers of groups.
    pub groups: Vec<usize>,
    /// How often each of them.
    pub rounds: usize,
    /// The greatest number of groups at which the peers are measured, and how often.
    pub peers: (usize, usize),
}

/// What was measured at one number of groups.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Many {
    /// How many groups moved.
    pub groups: usize,
    /// Until the last address was ours.
    pub agent: Spread,
    /// The most calls that one round took until then.
    pub calls: usize,
    /// The same where the lines are spread over an advertisement interval; a report of before does not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_of_step: Option<OutOfStep>,
    /// One script with boto3 for each group, one after the other.
    pub boto3: Alone,
    /// The same with the AWS CLI.
    pub cli: Alone,
}

/// Groups whose lines come one after the other, spread evenly over one advertisement interval, with a call that takes no
/// time.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct OutOfStep {
    /// From the last line until the last address was ours.
    pub last: Spread,
    /// The most claims that one round took.
    pub claims: usize,
}

/// The time of a peer: the median of its rounds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Alone {
    /// In milliseconds.
    pub ms: f64,
    /// Not measured, but taken from the line through the smallest and the largest measured number of groups.
    pub extrapolated: bool,
}

/// The world of [`measure`]: EC2 throttles as it does by default.
pub fn world() -> World {
    lab::world().stale_reads(Duration::ZERO)
}

pub(crate) fn group(n: usize) -> String {
    format!("group-{n}")
}

pub(crate) fn address(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, 20 + n as u8)
}

/// Sets so many groups on the router, and nothing else.
pub fn set_groups(router: &mut Router, groups: usize) -> Vec<String> {
    if router.configuration().dict().get("vrrp").is_some() {
        router.set(["delete high-availability vrrp"]);
    }
    (0..groups)
        .map(|n| {
            let name = group(n);
            router.set_group(&name, n as u8 + 1, &format!("{}/24", address(n)), 200);
            name
        })
        .collect()
}

/// Measures in the lab of that [`world`].
///
/// # Panics
/// If anything fails.
pub fn measure(lab: &mut Lab, environment: &Path, sizes: &Sizes) -> Vec<Many> {
    let out_of_step: Vec<OutOfStep> =
        sizes.groups.iter().map(|groups| spread_out(lab, *groups, sizes.rounds)).collect();
    lab.simulator.add_fault(Fault::on(On::ec2()).delay_before(CALL));
    let measured: Vec<(usize, Spread, usize)> =
        sizes.groups.iter().map(|groups| agent(lab, *groups, sizes.rounds)).collect();
    let at: Vec<usize> = sizes.groups.iter().copied().filter(|groups| *groups <= sizes.peers.0).collect();
    let mut times: [Vec<Vec<f64>>; 2] = [vec![Vec::new(); at.len()], vec![Vec::new(); at.len()]];
    for _ in 0..sizes.peers.1 {
        for (n, groups) in at.iter().enumerate() {
            for (peer, times) in [Peer::Boto3, Peer::Cli].into_iter().zip(&mut times) {
                times[n].push(one_by_one(lab, environment, peer, *groups));
            }
        }
    }
    let [boto3, cli] = times.map(|times| -> Vec<(usize, f64)> {
        at.iter().copied().zip(times.into_iter().map(|times| Spread::of_millis(times).p50)).collect()
    });
    measured
        .into_iter()
        .zip(out_of_step)
        .map(|((groups, agent, calls), out_of_step)| {
            let [boto3, cli] = [&boto3, &cli].map(|points| alone(points, groups));
            Many { groups, agent, calls, out_of_step: Some(out_of_step), boto3, cli }
        })
        .collect()
}

fn spread_out(lab: &mut Lab, groups: usize, rounds: usize) -> OutOfStep {
    let names = set_groups(&mut lab.r1, groups);
    let mut notifier = Notifier::commit(&lab.r1);
    let (mut times, mut claims) = (Vec::new(), 0);
    for _ in 0..rounds {
        // What the round before has used of the allowance does not count in this one.
        notifier.restart(&lab.r1);
        notifier.stand_by(&lab.r1, &names);
        (0..groups).for_each(|n| lab.simulator.steal(address(n), THIRD_PARTY[0]).expect("a third party's"));
        let (moves, from) = (lab.simulator.moves().len(), lab.simulator.next_number());
        let mut last_line = Instant::now();
        for name in &names {
            last_line = notifier.notify(name, "MASTER");
            wait_until(last_line + ADVERTISEMENT / groups as u32);
        }
        let last = last_move(lab, moves, groups, &lab.r1);
        times.push(last.saturating_duration_since(last_line));
        let sent = lab.simulator.requests_from(from);
        claims = claims.max(sent.iter().filter(|r| r.action == "AssignPrivateIpAddresses").count());
        names.iter().for_each(|name| _ = notifier.notify(name, "BACKUP"));
        await_verdict(&lab.r1, groups, "STANDBY-READY");
    }
    OutOfStep { last: Spread::of(&times), claims }
}

fn agent(lab: &mut Lab, groups: usize, rounds: usize) -> (usize, Spread, usize) {
    let names = set_groups(&mut lab.r1, groups);
    let mut notifier = Notifier::commit(&lab.r1);
    let (mut times, mut calls) = (Vec::new(), 0);
    for _ in 0..rounds {
        // Claims of failovers that follow each other within a second are spread out.
        notifier.restart(&lab.r1);
        notifier.stand_by(&lab.r1, &names);
        (0..groups).for_each(|n| lab.simulator.steal(address(n), THIRD_PARTY[0]).expect("a third party's"));
        let (moves, from) = (lab.simulator.moves().len(), lab.simulator.next_number());
        let mut began = None;
        for name in &names {
            let notified_at = notifier.notify(name, "MASTER");
            began = began.or(Some(notified_at));
            wait_until(notified_at + BETWEEN_LINES);
        }
        let last = last_move(lab, moves, groups, &lab.r1);
        times.push(last - began.expect("a group at least"));
        calls = calls.max(lab.simulator.requests_from(from).iter().filter(|r| r.arrived <= last).count());
        // The rest of the answers: a claim in flight is not undone by BACKUP.
        let answered = |lab: &Lab| lab.simulator.requests_from(from).iter().all(|r| r.succeeded());
        lab.wait("all answers", CALL * 10, answered);
        names.iter().for_each(|name| _ = notifier.notify(name, "BACKUP"));
        await_verdict(&lab.r1, groups, "STANDBY-READY");
    }
    (groups, Spread::of(&times), calls)
}

/// When the last of so many addresses came to the router, of the moves from that number on.
fn last_move(lab: &Lab, from: usize, groups: usize, router: &Router) -> Instant {
    let what = format!("{groups} addresses on router {}", router.number);
    let last = lab.simulator.wait_for(&what, Duration::from_secs(300), |simulator| {
        let moves = simulator.moves();
        let ours = moves[from..].iter().filter(|one| one.to.as_ref().is_some_and(|to| *to == *router.enis[0]));
        let times: Vec<Instant> = ours.map(|one| one.at).collect();
        (times.len() >= groups).then(|| times.into_iter().max()).flatten()
    });
    last.unwrap_or_else(|error| panic!("{error}"))
}

/// The transition scripts of all groups, one after the other, as VyOS runs them.
fn one_by_one(lab: &Lab, environment: &Path, peer: Peer, groups: usize) -> f64 {
    (0..groups).for_each(|n| lab.simulator.steal(address(n), THIRD_PARTY[0]).expect("a third party's"));
    let moves = lab.simulator.moves().len();
    let began = Instant::now();
    (0..groups).for_each(|n| _ = peer.claim(&lab.r2, environment, address(n)));
    millis(last_move(lab, moves, groups, &lab.r2) - began)
}

/// The measured value, or one of the line through the first and the last measured one.
pub(crate) fn alone(points: &[(usize, f64)], groups: usize) -> Alone {
    if let Some((_, ms)) = points.iter().find(|(measured, _)| *measured == groups) {
        return Alone { ms: *ms, extrapolated: false };
    }
    let [(n, first), .., (m, last)] = points else {
        panic!("two measured numbers at least are needed to extrapolate to {groups}");
    };
    let slope = (last - first) / (*m as f64 - *n as f64);
    Alone { ms: first + slope * (groups as f64 - *n as f64), extrapolated: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extrapolation_is_a_line_through_what_was_measured() {
        let points = [(1, 1_500.0), (10, 15_000.0)];
        let at = |groups| alone(&points, groups);
        assert!(!at(10).extrapolated && at(10).ms == 15_000.0);
        assert!(at(200).extrapolated && (at(200).ms - 300_000.0).abs() < 1e-6, "{:?}", at(200));
    }
}
