//! Every figure with its bound, and how figures grow with the number of groups.

use serde::{Deserialize, Serialize};

use crate::growth::{Growth, Order, judge};
use crate::many::CALL;
use crate::report::Measured;
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
}

impl Figure {
    fn new(name: impl Into<String>, value: f64, unit: &str, bound: impl Into<Option<f64>>) -> Self {
        Self { name: name.into(), value, unit: unit.to_owned(), bound: bound.into() }
    }

    /// Whether it is within its bound, if it has one.
    pub fn holds(&self) -> Option<bool> {
        self.bound.map(|bound| self.value <= bound)
    }
}

/// Line to request on a warm connection, p50 and p99 in milliseconds, without the network.
const LINE: [f64; 2] = [1.0, 5.0];
/// All of up to that many groups are claimed within so many calls' time.
const MANY: (usize, f64) = (50, 1.3);
/// Requests that groups moving together cost, for each network interface.
const CALLS: f64 = 3.0;
/// Addresses that one regular read takes.
const READ: usize = 200;
/// Resident memory of the agent in MB.
const RESIDENT: f64 = 16.0;
/// CPU of the idle agent in per cent.
const CPU: f64 = 0.1;
/// `commit` with nothing to change, and `show status`, in milliseconds.
const COMMAND: f64 = 20.0;
/// `hook` in milliseconds.
const HOOK: f64 = 10.0;
/// The Debian package in MB.
const PACKAGE: f64 = 6.0;

/// All figures of a run, in the order of their measurement. `verify_interval` is in seconds.
pub fn figures(measured: &Measured, verify_interval: u32) -> Vec<Figure> {
    let mut all = Vec::new();
    for line in &measured.line {
        let (round_trip, half) = (line.round_trip_ms, line.round_trip_ms as f64 / 2.0);
        let mut add = |who: &str, spread: &Spread, bounds: [Option<f64>; 2]| {
            let what = format!("line to request, round trip {round_trip} ms, {who}");
            all.push(Figure::new(format!("{what}, p50"), spread.p50, "ms", bounds[0]));
            all.push(Figure::new(format!("{what}, p99"), spread.p99, "ms", bounds[1]));
            all.push(Figure::new(format!("{what}, max of {}", spread.count), spread.max, "ms", None));
        };
        add("agent", &line.agent, LINE.map(|bound| Some(bound + half)));
        add("bare TLS", &line.bare, [None, None]);
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
        for (who, peer) in [("boto3", many.boto3), ("AWS CLI", many.cli)] {
            let how = if peer.extrapolated { " (extrapolated)" } else { "" };
            all.push(Figure::new(format!("{what} at once, {who}, until the last{how}"), peer.ms, "ms", None));
        }
    }
    let failover = &measured.failover;
    for (part, spread) in
        [("whole", &failover.whole), ("VRRP's part", &failover.vrrp), ("the agent's part", &failover.agent)]
    {
        all.push(Figure::new(format!("power cut to new owner, {part}, p50"), spread.p50, "ms", None));
        all.push(Figure::new(
            format!("power cut to new owner, {part}, max of {}", spread.count),
            spread.max,
            "ms",
            None,
        ));
    }
    for idle in &measured.idle {
        let what = format!("idle agent, {}", groups(idle.groups));
        all.push(Figure::new(format!("{what}, resident memory"), idle.resident_mb, "MB", RESIDENT));
        all.push(Figure::new(format!("{what}, resident memory at most"), idle.peak_mb, "MB", None));
        all.push(Figure::new(format!("{what}, CPU"), idle.cpu_percent(), "%", CPU));
        all.push(Figure::new(format!("{what}, CPU time per hour"), idle.cpu_seconds_per_hour(), "s", None));
        all.push(Figure::new(format!("{what}, threads"), idle.threads as f64, "", None));
        all.push(Figure::new(format!("{what}, file descriptors"), idle.descriptors as f64, "", None));
        // The owner of the other router's address is read too.
        let reads = 3_600.0 / f64::from(verify_interval) * (idle.groups + 1).div_ceil(READ) as f64;
        // A read may come a little early or late; one too many would show as much more than 5 %.
        let reads = reads * 1.05;
        all.push(Figure::new(format!("{what}, EC2 calls per hour"), idle.ec2_calls_per_hour, "", reads));
        all.push(Figure::new(format!("{what}, IMDS requests per hour"), idle.imds_requests_per_hour, "", None));
    }
    for commands in &measured.commands {
        let what = groups(commands.groups);
        for (name, runs, bound) in [
            ("commit", &commands.commit, COMMAND),
            ("hook", &commands.hook, HOOK),
            ("show status", &commands.show_status, COMMAND),
        ] {
            all.push(Figure::new(format!("{name}, {what}, p50"), runs.wall.p50, "ms", bound));
            all.push(Figure::new(format!("{name}, {what}, max of {}", runs.wall.count), runs.wall.max, "ms", None));
            all.push(Figure::new(format!("{name}, {what}, CPU time"), runs.cpu_ms, "ms", None));
            all.push(Figure::new(format!("{name}, {what}, resident memory at most"), runs.peak_mb, "MB", None));
        }
    }
    all.push(Figure::new("binary", measured.binary_mb, "MB", None));
    if let Some(package) = measured.package_mb {
        all.push(Figure::new("Debian package", package, "MB", PACKAGE));
    }
    all
}

/// `1 group`, `2 groups`.
pub fn groups(count: usize) -> String {
    format!("{count} group{}", if count == 1 { "" } else { "s" })
}

/// How the figures grow that should be constant, or linear at most.
pub fn growth(measured: &Measured) -> Vec<Growth> {
    let many = |of: fn(&crate::many::Many) -> f64| measured.many.iter().map(|m| (m.groups, of(m))).collect::<Vec<_>>();
    let idle = |of: fn(&crate::cost::Idle) -> f64| measured.idle.iter().map(|i| (i.groups, of(i))).collect::<Vec<_>>();
    let commands =
        |of: fn(&crate::cost::Commands) -> f64| measured.commands.iter().map(|c| (c.groups, of(c))).collect::<Vec<_>>();
    [
        ("time until the last address", Order::Constant, many(|m| m.agent.p50)),
        ("API calls of one move", Order::Constant, many(|m| m.calls as f64)),
        ("resident memory", Order::Linear, idle(|i| i.resident_mb)),
        ("idle CPU time", Order::Linear, idle(|i| i.cpu_ms)),
        ("threads", Order::Constant, idle(|i| i.threads as f64)),
        ("file descriptors", Order::Constant, idle(|i| i.descriptors as f64)),
        ("EC2 calls per hour", Order::Linear, idle(|i| i.ec2_calls_per_hour)),
        ("IMDS requests per hour", Order::Constant, idle(|i| i.imds_requests_per_hour)),
        ("commit", Order::Linear, commands(|c| c.commit.wall.p50)),
        ("hook", Order::Linear, commands(|c| c.hook.wall.p50)),
        ("show status", Order::Linear, commands(|c| c.show_status.wall.p50)),
        ("memory of commit", Order::Linear, commands(|c| c.commit.peak_mb)),
        ("memory of show status", Order::Linear, commands(|c| c.show_status.peak_mb)),
    ]
    .map(|(figure, order, points)| judge(figure, order, &points))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_over_its_bound_does_not_hold() {
        let figure = |value, bound| Figure::new("planted", value, "ms", bound);
        assert_eq!(figure(1.0, Some(1.0)).holds(), Some(true));
        assert_eq!(figure(1.01, Some(1.0)).holds(), Some(false));
        assert_eq!(figure(1.01, None).holds(), None);
    }
}
