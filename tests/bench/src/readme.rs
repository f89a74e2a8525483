//! The report as text, and the part of README that is made from it.

use comfy_table::{ContentArrangement, Table, presets};

use crate::figures::{Figure, groups};
use crate::growth::{Growth, Order};
use crate::report::Report;

/// What stands around the part of README that is rewritten.
pub const MARKERS: [&str; 2] = ["<!-- scripts/bench: begin -->", "<!-- scripts/bench: end -->"];

/// The whole report, for a terminal.
pub fn text(report: &Report) -> String {
    let mut figures = table(["figure", "value", "bound", "holds"]);
    for figure in &report.figures {
        let holds = match figure.holds() {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "",
        };
        let bound = figure.bound.map(|bound| shown(bound, &figure.unit)).unwrap_or_default();
        figures.add_row([&figure.name, &shown(figure.value, &figure.unit), &bound, &holds.to_owned()]);
    }
    let package = match report.measured.package_mb {
        Some(_) => "",
        None => "Debian package: not measured, none was built.\n",
    };
    format!(
        "vyos-aws-vipa {} on {}\n{}\n\n{figures}\n{package}\nGrowth with the number of groups\n{}\n",
        report.version,
        report.date,
        report.machine,
        growths(&report.growth),
    )
}

fn growths(all: &[Growth]) -> Table {
    let mut growth = table(["figure", "at most", "exponent", "of the last step", "limits", "holds"]);
    for one in all {
        let order = match one.order {
            Order::Constant => "constant",
            Order::Linear => "linear",
        };
        growth.add_row([
            one.figure.clone(),
            order.to_owned(),
            format!("{:.2}", one.exponent),
            format!("{:.2}", one.last_exponent),
            format!("{:.2}, {:.2}", one.order.limit(), one.order.last_limit()),
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
    let magnitude = if value > 0.0 { value.log10().floor() as i32 } else { 0 };
    format!("{value:.*}", usize::try_from(2 - magnitude).unwrap_or(0).min(6))
}

/// A multiple of ours, in two significant digits, in thousands with a comma.
fn ratio(of: f64, ours: f64) -> String {
    let ratio = of / ours;
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

/// The part of README: ratios, with machine and date. `json` and `picture` are paths from README's folder.
pub fn markdown(report: &Report, json: &str, picture: &str) -> String {
    let measured = &report.measured;
    let mut times = table(["times the agent's", "agent", "bare TLS", "boto3 script", "AWS CLI"]);
    for line in &measured.line {
        let what = format!("line to request, round trip {} ms", line.round_trip_ms);
        for (percentile, of) in [("p50", (|s| s.p50) as fn(&crate::spread::Spread) -> f64), ("p99", |s| s.p99)] {
            let ours = of(&line.agent);
            let [bare, boto3, cli] = [&line.bare, &line.boto3, &line.cli].map(|spread| ratio(of(spread), ours));
            times.add_row([format!("{what}, {percentile}"), "1".to_owned(), bare, boto3, cli]);
        }
        let cold = line.agent_cold.p50;
        let [bare, boto3, cli] = [&line.bare_cold, &line.boto3, &line.cli].map(|spread| ratio(spread.p50, cold));
        times.add_row([format!("{what}, first transition of a new agent, p50"), "1".to_owned(), bare, boto3, cli]);
    }
    for many in &measured.many {
        let peer = |peer: crate::many::Alone| {
            let mark = if peer.extrapolated { "~" } else { "" };
            format!("{mark}{}", ratio(peer.ms, many.agent.p50))
        };
        let what = format!("{} at once, 300 ms per API call, until the last address", groups(many.groups));
        times.add_row([what, "1".to_owned(), String::new(), peer(many.boto3), peer(many.cli)]);
    }
    let mut bounds = table(["figure", "bound", "used"]);
    for figure in &report.figures {
        if let Some(bound) = figure.bound {
            bounds.add_row([figure.name.clone(), shown(bound, &figure.unit), used(figure, bound)]);
        }
    }
    let share = measured.failover.agent.p50 / measured.failover.whole.p50 * 100.0;
    let missed = report.figures.iter().filter(|figure| figure.holds() == Some(false)).count();
    let grown = report.growth.iter().filter(|growth| !growth.holds).count();
    let verdict = match (missed, grown) {
        (0, 0) => "Every bound holds.".to_owned(),
        _ => format!("Not held: {missed} bounds of figures, {grown} of growth."),
    };
    format!(
        "Measured by `scripts/bench` with version {} on {} ({}), against the project's EC2 simulator over TLS. A peer's \
         time begins with the start of its script; what keepalived and VyOS need to start it is not counted, though VyOS \
         looks for transitions only every 250 ms. ~ marks what is extrapolated from 1 and 10 groups. [All figures]({json}) \
         are there as JSON.\n\n![Time of the agent and of its peers]({picture})\n\n{times}\n\n\
         Of a whole failover with the real keepalived, from the master's power cut to the new owner in EC2, the agent's \
         part is {} %; the rest is VRRP's.\n\n{bounds}\n\n{verdict} Growth with the number of groups (1 to {}):\n\n{}\n",
        report.version,
        report.date,
        report.machine,
        significant(share),
        measured.many.iter().map(|many| many.groups).max().unwrap_or_default(),
        growths(&report.growth),
    )
}

fn used(figure: &Figure, bound: f64) -> String {
    let mark = if figure.holds() == Some(false) { ", NOT HELD" } else { "" };
    format!("{:.0} %{mark}", figure.value / bound * 100.0)
}

/// README with the part between its markers replaced.
///
/// # Errors
/// The markers are not there, or not in their order.
pub fn replaced(readme: &str, part: &str) -> Result<String, String> {
    let place = |marker: &str| readme.find(marker).ok_or_else(|| format!("README.md has no line {marker}"));
    let begin = place(MARKERS[0])? + MARKERS[0].len();
    let end = place(MARKERS[1])?;
    if end < begin {
        return Err(format!("README.md has {} before {}", MARKERS[1], MARKERS[0]));
    }
    Ok(format!("{}\n\n{}\n\n{}", &readme[..begin], part.trim(), &readme[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        for (value, text) in [(0.0, "0.00"), (0.123_4, "0.123"), (1.0, "1.00"), (34.56, "34.6"), (1_234.5, "1234")] {
            assert_eq!(significant(value), text);
        }
        for (value, text) in [(0.04, "0.0"), (2.34, "2.3"), (12.6, "13"), (456.0, "460"), (23_456.0, "23,000")] {
            assert_eq!(ratio(value, 1.0), text);
        }
    }

    #[test]
    fn what_stands_between_the_markers_is_replaced() {
        let [begin, end] = MARKERS;
        let readme = format!("# Title\n{begin}\nold\n{end}\nrest\n");
        let new = replaced(&readme, "new\n").expect("replaced");
        assert_eq!(new, format!("# Title\n{begin}\n\nnew\n\n{end}\nrest\n"));
        assert_eq!(replaced(&new, "new\n").expect("replaced again"), new);
        assert!(replaced("# Title\n", "new").is_err());
        assert!(replaced(&format!("{end}\n{begin}"), "new").is_err());
    }
}
