//! The picture: how many times the agent's time the others take, and what many groups cost. Both scales are logarithmic.

use std::fmt::{self, Write};

use crate::many::{Alone, CALL, Many};
use crate::report::Report;
use crate::resources::{Kind, Moves};
use crate::spread::millis;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 380.0;

/// Colours that differ in brightness too: agent, bare TLS, boto3, AWS CLI.
const COLOURS: [&str; 4] = ["#0b5fa5", "#8a8a8a", "#d9822b", "#7b2d26"];

/// The same for routes: agent, AWS CLI.
const ROUTES: [&str; 2] = ["#5aa9e6", "#c06c84"];

/// An area with a logarithmic scale along one side.
struct Scale {
    from: f64,
    to: f64,
    low: f64,
    high: f64,
}

impl Scale {
    /// The place of a value.
    fn at(&self, value: f64) -> f64 {
        let share = (value / self.low).ln() / (self.high / self.low).ln();
        self.from + (self.to - self.from) * share.clamp(0.0, 1.0)
    }

    /// The powers of ten in it.
    fn decades(&self) -> impl Iterator<Item = f64> {
        let (low, high) = (self.low.log10().ceil() as i32, self.high.log10().floor() as i32);
        (low..=high).map(|power| 10_f64.powi(power))
    }
}

/// Draws the report as SVG.
pub fn draw(report: &Report) -> String {
    let mut svg = String::new();
    // A String takes everything.
    let _ = write_all(&mut svg, report);
    svg
}

fn write_all(svg: &mut String, report: &Report) -> fmt::Result {
    writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>"
    )?;
    bars(svg, report)?;
    lines(svg, report)?;
    text(svg, 20.0, HEIGHT - 12.0, "start", &format!("{}, {}", report.on.date, report.on.machine))?;
    writeln!(svg, "</svg>")
}

/// Line to request, in multiples of the agent's median.
fn bars(svg: &mut String, report: &Report) -> fmt::Result {
    title(svg, 20.0, "keepalived's line to EC2 request: times the agent's median")?;
    let scale = Scale { from: 130.0, to: 440.0, low: 0.1, high: 100_000.0 };
    let (mut y, bar) = (54.0, 18.0);
    let rows = report.measured.line.len() as f64 * (4.0 * (bar + 6.0) + 40.0);
    axis(svg, &scale, y, y + rows - 16.0)?;
    for line in &report.measured.line {
        text(svg, 20.0, y + 12.0, "start", &format!("round trip {} ms", line.round_trip_ms))?;
        y += 20.0;
        let spreads = [&line.agent, &line.bare, &line.boto3, &line.cli];
        for ((spread, name), colour) in
            spreads.iter().zip(["agent", "bare TLS", "boto3 script", "AWS CLI"]).zip(COLOURS)
        {
            let [p50, max] = [spread.p50, spread.max].map(|value| value / line.agent.p50);
            let (left, right) = (scale.at(scale.low), scale.at(p50));
            let (middle, end) = (y + bar / 2.0, scale.at(max));
            text(svg, 122.0, y + 13.0, "end", name)?;
            writeln!(
                svg,
                "<rect x=\"{left:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{bar}\" fill=\"{colour}\"/>\n<path d=\"M \
                 {right:.1} {middle:.1} H {end:.1} M {end:.1} {:.1} V {:.1}\" stroke=\"#222222\" fill=\"none\"/>",
                right - left,
                y + 4.0,
                y + bar - 4.0,
            )?;
            y += bar + 6.0;
        }
        y += 20.0;
    }
    text(svg, scale.from, y + 16.0, "start", "bars: p50, whiskers: max")
}

fn axis(svg: &mut String, scale: &Scale, top: f64, bottom: f64) -> fmt::Result {
    for value in scale.decades() {
        let x = scale.at(value);
        writeln!(svg, "<path d=\"M {x:.1} {top:.1} V {bottom:.1}\" stroke=\"#dddddd\"/>")?;
        text(svg, x, top - 4.0, "middle", &format!("{value}"))?;
    }
    Ok(())
}

/// Time until the last address, in multiples of one call's time.
fn lines(svg: &mut String, report: &Report) -> fmt::Result {
    title(svg, 510.0, "many groups at once: times one API call (300 ms)")?;
    let many = &report.measured.many;
    let across =
        Scale { from: 550.0, to: 920.0, low: 1.0, high: many.iter().map(|m| m.groups).max().unwrap_or(2) as f64 };
    let up = Scale { from: 310.0, to: 54.0, low: 1.0, high: 10_000.0 };
    for value in up.decades() {
        let y = up.at(value);
        writeln!(svg, "<path d=\"M {} {y:.1} H {}\" stroke=\"#dddddd\"/>", across.from, across.to)?;
        text(svg, across.from - 6.0, y + 4.0, "end", &format!("{value}"))?;
    }
    for one in many {
        text(svg, across.at(one.groups as f64), up.from + 16.0, "middle", &one.groups.to_string())?;
    }
    text(svg, (across.from + across.to) / 2.0, up.from + 34.0, "middle", "groups; dashed: extrapolated")?;
    let agent: fn(&Many) -> Alone = |m| Alone { ms: m.agent.p50, extrapolated: false };
    let of_groups = |of: fn(&Many) -> Alone| many.iter().map(|m| (m.groups, of(m))).collect::<Vec<_>>();
    let mut series = vec![
        ("agent", COLOURS[0], of_groups(agent)),
        ("boto3 script", COLOURS[2], of_groups(|m| m.boto3)),
        ("AWS CLI", COLOURS[3], of_groups(|m| m.cli)),
    ];
    if let Some(resources) = &report.measured.resources {
        let routes = || resources.moves.iter().filter(|moves| moves.kind == Kind::Route);
        let agent = |moves: &Moves| Alone { ms: moves.agent.p50, extrapolated: false };
        series.push(("agent, routes", ROUTES[0], routes().map(|moves| (moves.count, agent(moves))).collect()));
        series.push(("AWS CLI, routes", ROUTES[1], routes().map(|moves| (moves.count, moves.cli)).collect()));
    }
    for (n, (name, colour, values)) in series.iter().enumerate() {
        let points: Vec<(f64, f64, bool)> = values
            .iter()
            .map(|(count, value)| (across.at(*count as f64), up.at(value.ms / millis(CALL)), value.extrapolated))
            .collect();
        for pair in points.windows(2) {
            let [(x1, y1, _), (x2, y2, extrapolated)] = pair else { continue };
            let dash = if *extrapolated { " stroke-dasharray=\"5 4\"" } else { "" };
            writeln!(
                svg,
                "<path d=\"M {x1:.1} {y1:.1} L {x2:.1} {y2:.1}\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>"
            )?;
        }
        for (x, y, _) in &points {
            writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>")?;
        }
        let y = 70.0 + n as f64 * 18.0;
        writeln!(svg, "<rect x=\"570\" y=\"{:.1}\" width=\"14\" height=\"4\" fill=\"{colour}\"/>", y - 6.0)?;
        text(svg, 590.0, y, "start", name)?;
    }
    Ok(())
}

fn title(svg: &mut String, x: f64, words: &str) -> fmt::Result {
    writeln!(svg, "<text x=\"{x}\" y=\"22\" font-weight=\"bold\" fill=\"#222222\">{}</text>", escaped(words))
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) -> fmt::Result {
    writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"#222222\">{}</text>", escaped(words))
}

fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_on_a_logarithmic_scale() {
        let scale = Scale { from: 100.0, to: 400.0, low: 1.0, high: 1_000.0 };
        for (value, place) in
            [(1.0, 100.0), (10.0, 200.0), (100.0, 300.0), (1_000.0, 400.0), (0.1, 100.0), (1e9, 400.0)]
        {
            assert!((scale.at(value) - place).abs() < 1e-9, "{value}: {}", scale.at(value));
        }
        assert_eq!(scale.decades().collect::<Vec<_>>(), [1.0, 10.0, 100.0, 1_000.0]);
    }
}
