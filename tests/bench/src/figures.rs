//! Every figure with its bound, and how figures grow with the number of groups.

use serde::{Deserialize, Serialize};

use crate::cost::Runs;
use crate::growth::{Growth, Order, judge};
use crate::many::CALL;
use crate::report::Measured;
use crate::resources::{Kind, Resources};
use crate::spread::{Spread, millis};

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Figure {
    /// What it is.
    pub name: String,
    /// How much it is.
    pub value: f64,
    /// In what.
    pub unit: String,
    /// It is to be no more than that.
    pub bound: Option<f64>,
    /// Why that cannot be, where it is known.
    pub missed: Option<Missed>,
}

/// A bound that is known to be missed, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Missed {
    /// What the figure is to be no more than instead.
    pub floor: f64,
    /// The reason.
    pub reason: String,
}

impl Figure {
    fn new(name: impl Into<String>, value: f64, unit: &str, bound: impl Into<Option<f64>>) -> Self {
        Self { name: name.into(), value, unit: unit.to_owned(), bound: bound.into(), missed: None }
    }

    /// Whether it is within its bound, if it has one.
    pub fn holds(&self) -> Option<bool> {
        self.bound.map(|bound| self.value <= bound)
    }

    /// The reason why the bound is missed, if it is, as is known, and by no more than is known.
    pub fn missed(&self) -> Option<&str> {
        let missed = self.missed.as_ref().filter(|missed| self.value <= missed.floor)?;
        (self.holds() == Some(false)).then_some(missed.reason.as_str())
    }

    /// Whether a run with this figure is a failure.
    pub fn fails(&self) -> bool {
        self.holds() == Some(false) && self.missed().is_none()
    }
}

/// Line to request on a warm connection, p50 and p99 in milliseconds, without the network.
const LINE: [f64; 2] = [1.0, 5.0];
/// All of up to that many groups are claimed within so many calls' time.
const MANY: (usize, f64) = (50, 1.3);
/// Requests that groups moving together cost, for each network interface.
const CALLS: f64 = 3.0;
/// Claims that groups cost whose lines are spread over an advertisement interval, and how long the last address waits, in
/// milliseconds.
const OUT_OF_STEP: (f64, f64) = (8.0, 500.0);
/// Line to request while the warm connection is dead, in milliseconds.
const BLACK_HOLE: f64 = 500.0;
/// All of up to that many routes or Elastic IPs are ours within so many calls' time.
const MOVES: (usize, f64) = (50, 8.0);
/// Addresses, route tables or Elastic IPs that one regular read takes.
const READ: usize = 200;
/// Addresses that one regular read can take: EC2 takes 200 filter values in a request, and the VPC's id is one of them.
const FILTERED: usize = 199;
/// Resident memory of the agent in MB.
const RESIDENT: f64 = 16.0;
/// The same of one that holds 200 routes and 50 Elastic IPs too.
const RESIDENT_WITH_OTHERS: f64 = 20.0;
/// Metrics of up to so many groups, in kB.
const METRICS: (usize, f64) = (200, 300.0);
/// CPU of the idle agent in per cent.
const CPU: f64 = 0.1;
/// `commit` with nothing to change, and `show status`, in milliseconds.
const COMMAND: f64 = 20.0;
/// `hook` in milliseconds.
const HOOK: f64 = 10.0;
/// What our nodes add to a commit, and a call of the owner script that has nothing left to do, in milliseconds.
const OWNER: (f64, f64) = (2_000.0, 50.0);
/// The Debian package in MB.
const PACKAGE: f64 = 6.0;
/// What the package may depend on.
const DEPENDS: [&str; 3] = ["libc6", "keepalived", "vyos-1x"];
/// What it depends on all the same.
const LIBGCC: &str = "libgcc-s1";
/// The whole run, in seconds.
const RUN: f64 = 900.0;

/// All figures of a run, in the order of their measurement. `verify_interval` is in seconds.
pub fn figures(measured: &Measured, verify_interval: u32) -> Vec<Figure> {
    let mut all = Vec::new();
    let mut times = |what: &str, spread: &Spread, bounds: [Option<f64>; 2]| {
        all.push(Figure::new(format!("{what}, p50"), spread.p50, "ms", bounds[0]));
        if let Some(p99) = spread.p99 {
            all.push(Figure::new(format!("{what}, p99"), p99, "ms", bounds[1]));
        }
        all.push(Figure::new(format!("{what}, max of {}", spread.count), spread.max, "ms", None));
    };
    for line in &measured.line {
        let (round_trip, half) = (line.round_trip_ms, line.round_trip_ms as f64 / 2.0);
        let mut add = |who: &str, spread: &Spread, bounds: [Option<f64>; 2]| {
            times(&format!("line to request, round trip {round_trip} ms, {who}"), spread, bounds);
        };
        let bounds = LINE.map(|bound| Some(bound + half));
        add("agent", &line.agent, bounds);
        add("bare TLS", &line.bare, [None, None]);
        if let Some(paused) = &line.paused {
            add("agent after a pause", &paused.agent, bounds);
            add("bare TLS after a pause", &paused.bare, [None, None]);
        }
        add("agent, cold", &line.agent_cold, [None, None]);
        add("bare TLS, cold", &line.bare_cold, [None, None]);
        add("boto3", &line.boto3, [None, None]);
        add("AWS CLI", &line.cli, [None, None]);
    }
    for many in &measured.many {
        let what = groups(many.groups);
        let bound = (many.groups <= MANY.0).then_some(MANY.1 * millis(CALL));
        all.push(Figure::new(format!("{what} at once, agent, until the last, max"), many.agent.max, "ms", bound));
        all.push(Figure::new(format!("{what} at once, agent, API calls"), many.calls as f64, "", CALLS));
        if let Some(out) = &many.out_of_step {
            let (calls, last) = OUT_OF_STEP;
            all.push(Figure::new(
                format!("{what} out of step, agent, last line to last address, max"),
                out.last.max,
                "ms",
                last,
            ));
            all.push(Figure::new(format!("{what} out of step, agent, claims"), out.claims as f64, "", calls));
        }
        for (who, peer) in [("boto3", many.boto3), ("AWS CLI", many.cli)] {
            let how = if peer.extrapolated { " (extrapolated)" } else { "" };
            all.push(Figure::new(format!("{what} at once, {who}, until the last{how}"), peer.ms, "ms", None));
        }
    }
    let failover = &measured.failover;
    for (part, spread, bound) in [
        ("whole", &failover.whole, None),
        ("VRRP's part", &failover.vrrp, None),
        ("line read to request", &failover.agent, Some(LINE[0])),
    ] {
        let what = format!("power cut to new owner, {part}");
        all.push(Figure::new(format!("{what}, min"), spread.min, "ms", None));
        all.push(Figure::new(format!("{what}, p50"), spread.p50, "ms", bound));
        all.push(Figure::new(format!("{what}, max of {}", spread.count), spread.max, "ms", None));
    }
    if let Some(times) = &measured.black_hole {
        let what = "line to request, warm connection black-holed";
        all.push(Figure::new(format!("{what}, p50"), times.p50, "ms", None));
        all.push(Figure::new(format!("{what}, max of {}", times.count), times.max, "ms", BLACK_HOLE));
    }
    for idle in &measured.idle {
        let what = format!("idle agent, {}", groups(idle.groups));
        all.push(Figure::new(format!("{what}, resident memory"), idle.resident_mb, "MB", RESIDENT));
        all.push(Figure::new(format!("{what}, resident memory at most"), idle.peak_mb, "MB", RESIDENT));
        if let Some(size) = idle.metrics_kb {
            let bound = (idle.groups <= METRICS.0).then_some(METRICS.1);
            all.push(Figure::new(format!("{what}, metrics"), size, "kB", bound));
        }
        all.push(Figure::new(format!("{what}, CPU"), idle.cpu_percent(), "%", CPU));
        all.push(Figure::new(format!("{what}, CPU time per hour"), idle.cpu_seconds_per_hour(), "s", None));
        all.push(Figure::new(format!("{what}, threads"), idle.threads as f64, "", None));
        all.push(Figure::new(format!("{what}, file descriptors"), idle.descriptors as f64, "", None));
        // A read may come a little early or late; one too many would show as much more than 5 %.
        let reads = |count: usize| 3_600.0 / f64::from(verify_interval) * count as f64 * 1.05;
        let (wanted, possible) = (idle.groups.div_ceil(READ), (idle.groups + 1).div_ceil(FILTERED));
        let mut calls = Figure::new(format!("{what}, EC2 calls per hour"), idle.ec2_calls_per_hour, "", reads(wanted));
        calls.missed = (possible > wanted).then(|| Missed {
            floor: reads(possible),
            reason: format!(
                "{possible} requests an interval, not {wanted}: EC2 takes {} filter values in a request, of which the VPC's \
                 id is one, and the other router's own address is looked at too",
                FILTERED + 1
            ),
        });
        all.push(calls);
        all.push(Figure::new(format!("{what}, IMDS requests per hour"), idle.imds_requests_per_hour, "", None));
    }
    if let Some(resources) = &measured.resources {
        all.extend(of_resources(resources, verify_interval));
    }
    for commands in &measured.commands {
        let what = groups(commands.groups);
        let bounds = [Some(COMMAND), None, Some(HOOK), Some(COMMAND), None];
        // Those after a change are the agent's, which takes it over.
        let requests = [Some(0.0), None, Some(0.0), Some(0.0), None];
        for ((name, runs), (bound, requests)) in commands.all().into_iter().zip(bounds.into_iter().zip(requests)) {
            let what = format!("{name}, {what}");
            all.push(Figure::new(format!("{what}, p50"), runs.wall.p50, "ms", bound));
            // Of a hundred runs the second longest tells of the machine that they share with others.
            all.push(Figure::new(format!("{what}, p90"), runs.wall.p90, "ms", bound));
            if let Some(p99) = runs.wall.p99 {
                all.push(Figure::new(format!("{what}, p99"), p99, "ms", None));
            }
            all.push(Figure::new(format!("{what}, max of {}", runs.wall.count), runs.wall.max, "ms", None));
            all.push(Figure::new(format!("{what}, CPU time"), runs.cpu_ms, "ms", None));
            all.push(Figure::new(format!("{what}, resident memory at most"), runs.peak_mb, "MB", None));
            all.push(Figure::new(format!("{what}, threads"), runs.threads as f64, "", None));
            all.push(Figure::new(format!("{what}, file descriptors"), runs.descriptors as f64, "", None));
            all.push(Figure::new(format!("{what}, requests to EC2 and IMDS"), runs.requests as f64, "", requests));
        }
    }
    for commit in &measured.owner {
        let what = commit.name();
        let (added, later) = OWNER;
        all.push(Figure::new(format!("{what}, without aws-vipa, p50"), commit.without.p50, "ms", None));
        all.push(Figure::new(format!("{what}, with aws-vipa, p50"), commit.with.p50, "ms", None));
        all.push(Figure::new(format!("{what}, added by aws-vipa"), commit.added(), "ms", added));
        all.push(Figure::new(format!("{what}, first call, p50"), commit.first.p50, "ms", None));
        all.push(Figure::new(format!("{what}, later call, p50"), commit.later.p50, "ms", later));
        all.push(Figure::new(format!("{what}, later call, p90"), commit.later.p90, "ms", later));
        let count = commit.later.count;
        all.push(Figure::new(format!("{what}, later call, max of {count}"), commit.later.max, "ms", None));
        all.push(Figure::new(format!("{what}, calls that read the configuration"), commit.full as f64, "", None));
    }
    all.push(Figure::new("binary", measured.binary_mb, "MB", None));
    all.push(Figure::new("Debian package", measured.package.mb, "MB", PACKAGE));
    let others = measured.package.depends.iter().filter(|name| !DEPENDS.contains(&name.as_str())).count();
    let what = "Debian package, dependencies beside libc, keepalived and vyos-1x";
    let mut dependencies = Figure::new(what, others as f64, "", Some(0.0));
    dependencies.missed = measured.package.depends.iter().any(|name| name == LIBGCC).then(|| Missed {
        floor: 1.0,
        reason: format!("{LIBGCC}: the standard library of Rust is linked with it; Debian's libc6 depends on it too"),
    });
    all.push(dependencies);
    all.push(Figure::new("whole run", measured.seconds, "s", RUN));
    all
}

/// The figures of routes and Elastic IPs.
fn of_resources(resources: &Resources, verify_interval: u32) -> Vec<Figure> {
    let mut all = Vec::new();
    for first in &resources.first {
        let (what, agent) = (format!("line to {}, agent", first.kind.call()), &first.agent);
        all.push(Figure::new(format!("{what}, p50"), agent.p50, "ms", LINE[0]));
        if let Some(p99) = agent.p99 {
            all.push(Figure::new(format!("{what}, p99"), p99, "ms", LINE[1]));
        }
        all.push(Figure::new(format!("{what}, max of {}", agent.count), agent.max, "ms", None));
    }
    for moves in &resources.moves {
        let what = format!("{} at once", moves.kind.count(moves.count));
        let bound = (moves.count <= MOVES.0).then_some(MOVES.1 * millis(CALL));
        all.push(Figure::new(format!("{what}, agent, until the last, max"), moves.agent.max, "ms", bound));
        all.push(Figure::new(format!("{what}, agent, claims"), moves.calls as f64, "", moves.count as f64));
        all.push(Figure::new(format!("{what}, agent, claims over EC2's rate"), moves.refused as f64, "", 0.0));
        for (who, peer) in [("boto3", moves.boto3), ("AWS CLI", moves.cli)] {
            let how = if peer.extrapolated { " (extrapolated)" } else { "" };
            all.push(Figure::new(format!("{what}, {who}, until the last{how}"), peer.ms, "ms", None));
        }
    }
    let (held, idle) = (&resources.held, &resources.held.idle);
    let what =
        format!("idle agent, {} and {}", Kind::Route.count(held.routes), Kind::ElasticIp.count(held.elastic_ips));
    all.push(Figure::new(format!("{what}, resident memory"), idle.resident_mb, "MB", RESIDENT_WITH_OTHERS));
    all.push(Figure::new(format!("{what}, resident memory at most"), idle.peak_mb, "MB", RESIDENT_WITH_OTHERS));
    all.push(Figure::new(format!("{what}, CPU"), idle.cpu_percent(), "%", CPU));
    // A read may come a little early or late.
    let reads = |count: usize| 3_600.0 / f64::from(verify_interval) * count.div_ceil(READ) as f64 * 1.05;
    for (call, per_hour, count) in [
        ("DescribeRouteTables", held.route_reads_per_hour, held.routes),
        ("DescribeAddresses", held.elastic_ip_reads_per_hour, held.elastic_ips),
    ] {
        all.push(Figure::new(format!("{what}, {call} per hour"), per_hour, "", reads(count)));
    }
    all
}

/// `1 group`, `2 groups`.
pub fn groups(count: usize) -> String {
    format!("{count} group{}", if count == 1 { "" } else { "s" })
}

/// What memory may be off by, in MB: the kernel and the allocator give it in large pieces.
const MEMORY: f64 = 1.0;

/// How the figures grow that should be constant, or linear at most.
pub fn growth(measured: &Measured) -> Vec<Growth> {
    let many = |of: fn(&crate::many::Many) -> f64| measured.many.iter().map(|m| (m.groups, of(m))).collect::<Vec<_>>();
    let idle = |of: fn(&crate::cost::Idle) -> f64| measured.idle.iter().map(|i| (i.groups, of(i))).collect::<Vec<_>>();
    let mut all = vec![
        // What 50 groups may take beyond one call; more of them no more than that.
        (
            "time until the last address".to_owned(),
            "ms",
            Order::Constant,
            (MANY.1 - 1.0) * millis(CALL),
            many(|m| m.agent.p50),
        ),
        // One for a single group; one more for those whose lines come later, and one that finds them in flight.
        ("API calls of one move".to_owned(), "", Order::Constant, CALLS - 1.0, many(|m| m.calls as f64)),
        ("resident memory".to_owned(), "MB", Order::Linear, MEMORY, idle(|i| i.resident_mb)),
        ("resident memory at most".to_owned(), "MB", Order::Linear, MEMORY, idle(|i| i.peak_mb)),
        ("idle CPU time per hour".to_owned(), "s", Order::Linear, 0.2, idle(|i| i.cpu_seconds_per_hour())),
        ("threads".to_owned(), "", Order::Constant, 1.0, idle(|i| i.threads as f64)),
        // A connection more for each call at the same time.
        ("file descriptors".to_owned(), "", Order::Constant, 4.0, idle(|i| i.descriptors as f64)),
        ("IMDS requests per hour".to_owned(), "", Order::Constant, 120.0, idle(|i| i.imds_requests_per_hour)),
    ];
    // Systemctl and the network have a say in two of them. For the others it is a twentieth of a command's bound: `commit`
    // executes as many instructions for each of 200 groups as for each of 50 (callgrind), and makes no more calls of the
    // kernel, but a larger heap has pages to be given and leaves the caches.
    for (n, noise) in [1.0, 5.0, 1.0, 1.0, 5.0].into_iter().enumerate() {
        let runs = |of: fn(&Runs) -> f64| -> Vec<(usize, f64)> {
            measured.commands.iter().map(|commands| (commands.groups, of(commands.all()[n].1))).collect()
        };
        let Some((name, _)) = measured.commands.first().map(|commands| commands.all()[n]) else { continue };
        all.push((name.to_owned(), "ms", Order::Linear, noise, runs(|r| r.wall.p50)));
        all.push((format!("CPU time of {name}"), "ms", Order::Linear, noise, runs(|r| r.cpu_ms)));
        all.push((format!("memory of {name}"), "MB", Order::Linear, MEMORY, runs(|r| r.peak_mb)));
    }
    all.into_iter().map(|(figure, unit, order, noise, points)| judge(&figure, unit, order, noise, &points)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_over_its_bound_does_not_hold() {
        let figure = |value, bound| Figure::new("planted", value, "ms", bound);
        assert_eq!(figure(1.0, Some(1.0)).holds(), Some(true));
        assert_eq!(figure(1.01, Some(1.0)).holds(), Some(false));
        assert!(figure(1.01, Some(1.0)).fails() && !figure(1.0, Some(1.0)).fails());
        assert_eq!(figure(1.01, None).holds(), None);
    }

    #[test]
    fn a_bound_that_is_known_to_be_missed_has_a_floor() {
        let missed = Some(Missed { floor: 2.0, reason: "why".to_owned() });
        let figure = |value| Figure { missed: missed.clone(), ..Figure::new("planted", value, "ms", Some(1.0)) };
        assert_eq!((figure(1.0).missed(), figure(1.0).fails()), (None, false));
        assert_eq!((figure(2.0).missed(), figure(2.0).fails()), (Some("why"), false));
        assert_eq!((figure(2.1).missed(), figure(2.1).fails()), (None, true));
    }

    #[test]
    fn bounds_are_those_of_the_design() {
        assert_eq!(LINE, [1.0, 5.0]);
        assert_eq!((MANY, CALLS, OUT_OF_STEP), ((50, 1.3), 3.0, (8.0, 500.0)));
        assert_eq!(BLACK_HOLE, 500.0);
        assert_eq!((RESIDENT, RESIDENT_WITH_OTHERS, CPU, READ), (16.0, 20.0, 0.1, 200));
        assert_eq!(METRICS, (200, 300.0));
        assert_eq!(MOVES, (50, 8.0));
        assert_eq!((COMMAND, HOOK), (20.0, 10.0));
        assert_eq!(OWNER, (2_000.0, 50.0));
        assert_eq!((PACKAGE, DEPENDS), (6.0, ["libc6", "keepalived", "vyos-1x"]));
        assert_eq!(RUN, 15.0 * 60.0);
    }
}
