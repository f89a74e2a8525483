//! All that one run has measured, on which machine and when.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::cost::{Commands, Idle};
use crate::failover::Failover;
use crate::figures::{Figure, figures, growth};
use crate::growth::Growth;
use crate::line::Line;
use crate::many::Many;
use crate::owner;
use crate::resources::Resources;
use crate::spread::Spread;

/// What one run has measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Measured {
    /// Line to request.
    pub line: Vec<Line>,
    /// Many groups.
    pub many: Vec<Many>,
    /// Whole failover.
    pub failover: Failover,
    /// Line to request where the warm connection is dead; reports of older versions have none.
    pub black_hole: Option<Spread>,
    /// The idle agent.
    pub idle: Vec<Idle>,
    /// The commands.
    pub commands: Vec<Commands>,
    /// Commits of many groups; none in a report of an older version.
    #[serde(default)]
    pub owner: Vec<owner::Commit>,
    /// Routes and Elastic IPs; none in a report of an older version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Size of the binary, in MB of a million bytes.
    pub binary_mb: f64,
    /// The Debian package that the binary was taken from.
    pub package: Package,
    /// How long all of it took, in seconds.
    pub seconds: f64,
}

/// A Debian package.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Package {
    /// Its size, in MB of a million bytes.
    pub mb: f64,
    /// The names of the packages that it depends on.
    pub depends: Vec<String>,
}

/// What was measured where, when and beside what.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Circumstances {
    /// The day, in UTC.
    pub date: String,
    /// The machine.
    pub machine: String,
    /// The version of the product, as it says itself.
    pub version: String,
    /// The commit that was measured, and whether files of it were changed.
    pub revision: String,
    /// The versions of what it was measured with and beside.
    pub tools: String,
    /// Seconds between two regular reads of the idle agent.
    pub verify_interval: u32,
}

/// The report.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// Where, when and beside what.
    #[serde(flatten)]
    pub on: Circumstances,
    /// What was measured.
    pub measured: Measured,
    /// Every figure with its bound.
    pub figures: Vec<Figure>,
    /// How figures grow with the number of groups.
    pub growth: Vec<Growth>,
}

impl Report {
    /// The report of what was measured.
    pub fn new(on: Circumstances, measured: Measured) -> Self {
        let (figures, growth) = (figures(&measured, on.verify_interval), growth(&measured));
        Self { on, measured, figures, growth }
    }

    /// Whether every bound holds, those of growth too, or is missed as is known.
    pub fn holds(&self) -> bool {
        !self.figures.iter().any(Figure::fails) && self.growth.iter().all(|growth| growth.holds)
    }
}

/// Processor, number of processors and kernel of this machine.
pub fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let values = |key: &str| -> Vec<String> {
        let lines = info.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().to_owned()).collect()
    };
    let processors = values("processor").len();
    let model = values("model name").into_iter().next().unwrap_or_else(|| "unknown processor".to_owned());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{processors} × {model}, Linux {}", kernel.trim())
}
