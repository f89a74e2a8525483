//! All that one run has measured, on which machine and when.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::cost::{Commands, Idle};
use crate::failover::Failover;
use crate::figures::Figure;
use crate::growth::Growth;
use crate::line::Line;
use crate::many::Many;

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
    /// The idle agent.
    pub idle: Vec<Idle>,
    /// The commands.
    pub commands: Vec<Commands>,
    /// Size of the binary, in MB of a million bytes.
    pub binary_mb: f64,
    /// Size of the Debian package, in MB of a million bytes; nothing if there is none to look at.
    pub package_mb: Option<f64>,
}

/// The report.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// The day, in UTC.
    pub date: String,
    /// The machine.
    pub machine: String,
    /// The version of the product, as it says itself.
    pub version: String,
    /// What was measured.
    pub measured: Measured,
    /// Every figure with its bound.
    pub figures: Vec<Figure>,
    /// How figures grow with the number of groups.
    pub growth: Vec<Growth>,
}

impl Report {
    /// Whether every bound holds, those of growth too.
    pub fn holds(&self) -> bool {
        self.figures.iter().all(|figure| figure.holds() != Some(false)) && self.growth.iter().all(|growth| growth.holds)
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
