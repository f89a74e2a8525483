//! The report as text, and docs/benchmarks.md, which is made from it.

use comfy_table::{ContentArrangement, Table, presets};

use crate::figures::{Figure, groups};
use crate::growth::{Growth, Order};
use crate::owner::Commit;
use crate::report::Report;
use crate::spread::Spread;

/// The page and its files, from the root of the repository.
pub const PAGE: &str = "docs/benchmarks.md";
/// The report as JSON.
pub const JSON: &str = "docs/benchmarks.json";
/// The picture.
pub const PICTURE: &str = "docs/benchmarks.svg";

/// The whole report, for a terminal.
pub fn text(report: &Report) -> String {
    let mut figures = table(["figure", "value", "bound", "holds"]);
    for figure in &report.figures {
        let holds = match figure.holds() {
            Some(true) => "yes",
            Some(false) if figure.missed().is_some() => "missed",
            Some(false) => "NO",
            None => "",
        };
        let bound = figure.bound.map(|bound| shown(bound, &figure.unit)).unwrap_or_default();
        figures.add_row([&figure.name, &shown(figure.value, &figure.unit), &bound, &holds.to_owned()]);
    }
    format!(
        "vyos-aws-vipa {}, commit {}, on {}\n{}\n{}\n\n{figures}\n{}\nGrowth with the number of groups\n{}\n",
        report.on.version,
        report.on.revision,
        report.on.date,
        report.on.machine,
        report.on.tools,
        missed(report),
        growths(&report.growth),
    )
}

/// A line for each bound that is known to be missed: the figure, and why.
fn missed(report: &Report) -> String {
    let line = |figure: &Figure| {
        let bound = shown(figure.bound?, &figure.unit);
        let value = shown(figure.value, &figure.unit);
        Some(format!("- {}: {value}, where {bound} is wanted. {}.\n", figure.name, figure.missed()?))
    };
    report.figures.iter().filter_map(line).collect()
}

fn growths(all: &[Growth]) -> Table {
    let mut growth = table(["figure", "at most", "fitted exponent", "added", "allowed", "holds"]);
    for one in all {
        let order = match one.order {
            Order::Constant => "constant",
            Order::Linear => "linear",
        };
        growth.add_row([
            one.figure.clone(),
            order.to_owned(),
            one.exponent.map(|exponent| format!("{exponent:.2}")).unwrap_or_default(),
            shown(one.added, &one.unit),
            shown(one.allowed, &one.unit),
            if one.holds { "yes" } else { "NO" }.to_owned(),
        ]);
    }
    growth
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
    table
}

fn shown(value: f64, unit: &str) -> String {
    let number = significant(value);
    if unit.is_empty() { number } else { format!("{number} {unit}") }
}

/// Three significant digits, and no more digits after the point than that takes.
fn significant(value: f64) -> String {
    let magnitude = if value == 0.0 { 0 } else { value.abs().log10().floor() as i32 };
    format!("{value:.*}", usize::try_from(2 - magnitude).unwrap_or(0).min(6))
}

/// A multiple of ours, in two significant digits, in thousands with a comma.
fn ratio(of: f64, ours: f64) -> String {
    let ratio = of / ours;
    if ratio < 1.0 {
        return format!("{ratio:.2}");
    }
    if ratio < 10.0 {
        return format!("{ratio:.1}");
    }
    let unit = 10_f64.powi(ratio.log10().floor() as i32 - 1);
    let digits = format!("{:.0}", (ratio / unit).round() * unit);
    let (mut text, length) = (String::new(), digits.len());
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (length - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The page: ratios, with machine and date.
pub fn markdown(report: &Report) -> String {
    let measured = &report.measured;
    let mut times = table(["time relative to the agent", "agent", "bare TLS", "boto3 script", "AWS CLI"]);
    for line in &measured.line {
        let what = format!("line to request, round trip {} ms", line.round_trip_ms);
        let mut add = |what: String, ours: f64, others: [Option<f64>; 3]| {
            let [bare, boto3, cli] = others.map(|other| other.map(|other| ratio(other, ours)).unwrap_or_default());
            times.add_row([what, "1".to_owned(), bare, boto3, cli]);
        };
        let (agent, bare, boto3, cli) = (&line.agent, &line.bare, &line.boto3, &line.cli);
        let counts = |ours: &Spread, others: usize| format!("{}, {others}", ours.count);
        add(
            format!("{what}, p50 (of {})", counts(agent, boto3.count)),
            agent.p50,
            [bare, boto3, cli].map(|spread| Some(spread.p50)),
        );
        if let Some(p99) = agent.p99 {
            add(format!("{what}, p99 (of {})", agent.count), p99, [bare.p99, boto3.p99, cli.p99]);
        }
        if let Some(paused) = &line.paused {
            add(
                format!("{what}, after a pause of 2 s, p50 (of {})", paused.agent.count),
                paused.agent.p50,
                [Some(paused.bare.p50), None, None],
            );
        }
        // A peer is new each time.
        add(
            format!("{what}, first transition of a new agent, p50 (of {})", counts(&line.agent_cold, boto3.count)),
            line.agent_cold.p50,
            [&line.bare_cold, boto3, cli].map(|spread| Some(spread.p50)),
        );
    }
    for many in &measured.many {
        let peer = |peer: crate::many::Alone| {
            let mark = if peer.extrapolated { "~" } else { "" };
            format!("{mark}{}", ratio(peer.ms, many.agent.p50))
        };
        let what = format!("{} at once, 300 ms per API call, until the last address", groups(many.groups));
        times.add_row([what, "1".to_owned(), String::new(), peer(many.boto3), peer(many.cli)]);
    }
    let moves = measured.resources.iter().flat_map(|resources| &resources.moves);
    for moves in moves.clone() {
        let peer = |peer: crate::many::Alone| {
            let mark = if peer.extrapolated { "~" } else { "" };
            format!("{mark}{}", ratio(peer.ms, moves.agent.p50))
        };
        let what = format!("{} at once, 300 ms per API call, until the last", moves.kind.count(moves.count));
        times.add_row([what, "1".to_owned(), String::new(), peer(moves.boto3), peer(moves.cli)]);
    }
    let others = moves.clone().next().map_or("", |_| {
        " For routes and Elastic IPs the AWS CLI is called as Pacemaker's aws-vpc-move-ip and awseip do, and boto3 in one \
         script for all of them; both make one call after the other. More than 50 take the agent as long as EC2's rate limit of 5 \
         calls a second demands."
    });
    let owner = commits(&measured.owner);
    let mut bounds = table(["figure", "bound", "used"]);
    for figure in &report.figures {
        if let Some(bound) = figure.bound {
            bounds.add_row([figure.name.clone(), shown(bound, &figure.unit), used(figure, bound)]);
        }
    }
    let failover = &measured.failover;
    let share = failover.agent.p50 / failover.whole.p50 * 100.0;
    let failed = report.figures.iter().filter(|figure| figure.fails()).count();
    let grown = report.growth.iter().filter(|growth| !growth.holds).count();
    let missed = missed(report);
    let verdict = match (failed, grown) {
        (0, 0) if missed.is_empty() => "Every bound holds.".to_owned(),
        (0, 0) => format!("Every bound holds except these, which are known:\n\n{missed}"),
        _ => format!("Not held: {failed} bounds of figures, {grown} of growth.\n\n{missed}"),
    };
    let page = format!(
        "# Benchmarks\n\nWritten by `scripts/bench --update-docs`.\n\nMeasured with version {} (commit {}) on {} ({}; {}), against \
         the project's EC2 simulator over TLS, in {:.0} s.\n\nThe agent is compared with a boto3 script and the AWS CLI, \
         which are timed from the start of the script; the time that keepalived and VyOS need to start it is not \
         included.{others} \"Bare TLS\" is the lower limit: an open connection that sends the bytes of the agent's own request. ~ \
         marks values extrapolated from 1 and 10 groups. The numbers in brackets are how often the agent, and then the \
         others, were measured. All figures are in [benchmarks.json](benchmarks.json).\n\n![Time of the agent and of the \
         others](benchmarks.svg)\n\n## Compared with other tools\n\n{times}\n\n## Failover\n\nA whole failover with the real \
         keepalived, from the master's power cut at any moment between two advertisements to the new owner in EC2, took {} \
         to {} s in {} rounds. From the line that the agent reads to its request is {} % of that; nearly all of the rest is \
         VRRP.\n\n{owner}## Bounds\n\n{bounds}\n\n{verdict}\n\n## Growth\n\nGrowth with the number of groups (1 to {}). A constant \
         figure may grow by the noise. A linear figure may grow in the last step by one and a half times what the steps \
         before it predict, and the noise.\n\n{}\n",
        report.on.version,
        report.on.revision,
        report.on.date,
        report.on.machine,
        report.on.tools,
        measured.seconds,
        significant(failover.whole.min / 1e3),
        significant(failover.whole.max / 1e3),
        failover.whole.count,
        significant(share),
        measured.many.iter().map(|many| many.groups).max().unwrap_or_default(),
        growths(&report.growth),
    );
    // `missed` ends its last line, and so does what follows it here.
    page.replace("\n\n\n", "\n\n")
}

/// The section of commits that add and delete groups.
fn commits(all: &[Commit]) -> String {
    if all.is_empty() {
        return String::new();
    }
    let mut commits =
        table(["commit", "without aws-vipa", "with aws-vipa", "first call", "later call, p50", "later call, max"]);
    for commit in all {
        let row = [&commit.without.p50, &commit.with.p50, &commit.first.p50, &commit.later.p50, &commit.later.max];
        commits.add_row([commit.name()].into_iter().chain(row.map(|value| shown(*value, "ms"))));
    }
    format!(
        "## Commits of many groups\n\nVyOS calls the owner script once for each `aws-vipa` node that a commit changes: here \
         those of the groups, and the settings. The first call does the work; a later one for which nothing is left to do \
         ends before it starts Python, or inside VyOS's daemon before it reads the configuration. The script is the real one. \
         In place of VyOS's library is one that takes as long as on a small router: 0.75 s for a call as a program, and 0.15 s \
         inside the daemon, which has read the configuration already. sudo and vyshim, which VyOS has around each call, are \
         not included, nor is what VyOS itself does for VRRP, except its reload of keepalived. Medians of {} commits.\n\n\
         {commits}\n\n",
        all[0].with.count,
    )
}

fn used(figure: &Figure, bound: f64) -> String {
    if bound == 0.0 {
        return if figure.fails() { "NOT HELD" } else { "0 %" }.to_owned();
    }
    let mark = match (figure.fails(), figure.missed()) {
        (true, _) => ", NOT HELD",
        (false, Some(_)) => ", missed",
        (false, None) => "",
    };
    format!("{:.0} %{mark}", figure.value / bound * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        for (value, text) in
            [(0.0, "0.00"), (0.123_4, "0.123"), (1.0, "1.00"), (34.56, "34.6"), (-1.5, "-1.50"), (1_234.5, "1234")]
        {
            assert_eq!(significant(value), text);
        }
        for (value, text) in
            [(0.04, "0.04"), (0.233, "0.23"), (2.34, "2.3"), (12.6, "13"), (456.0, "460"), (23_456.0, "23,000")]
        {
            assert_eq!(ratio(value, 1.0), text);
        }
    }
}
