//! What the product costs: the agent when nothing happens, and the commands that VyOS and people call.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use lab::simulator::{Request, World};
use lab::{Lab, Router, said};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::time::clock_getcpuclockid;
use serde::{Deserialize, Serialize};

use crate::many::set_groups;
use crate::spread::{Spread, millis};
use crate::told::await_verdict;

/// The reads that confirm a claim come 1, 3 and 10 s after it.
const CONFIRMED: Duration = Duration::from_secs(11);

/// The agent on a router that is MASTER for all its groups, with the real keepalived, while nothing happens.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Idle {
    /// Groups.
    pub groups: usize,
    /// Resident memory (VmRSS), in MB of a million bytes.
    pub resident_mb: f64,
    /// The most that it ever was (VmHWM), the claim of all groups included.
    pub peak_mb: f64,
    /// How long was measured, in seconds.
    pub seconds: f64,
    /// CPU time in that time, in milliseconds.
    pub cpu_ms: f64,
    /// Threads.
    pub threads: usize,
    /// Open file descriptors.
    pub descriptors: usize,
    /// Calls of EC2 in an hour at this rate.
    pub ec2_calls_per_hour: f64,
    /// Requests of IMDS in an hour at this rate.
    pub imds_requests_per_hour: f64,
}

impl Idle {
    /// Share of one CPU, in per cent.
    pub fn cpu_percent(&self) -> f64 {
        self.cpu_ms / 10.0 / self.seconds
    }

    /// CPU time in an hour at this rate, in seconds.
    pub fn cpu_seconds_per_hour(&self) -> f64 {
        self.cpu_ms * 3.6 / self.seconds
    }
}

/// A command that was run some times.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Runs {
    /// From the start to the end of its process.
    pub wall: Spread,
    /// CPU time of one run, in milliseconds, on average.
    pub cpu_ms: f64,
    /// The most resident memory of any run, in MB of a million bytes.
    pub peak_mb: f64,
}

/// The commands with so many groups and nothing to change.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Commands {
    /// Groups.
    pub groups: usize,
    /// `vyos-aws-vipa commit`.
    pub commit: Runs,
    /// `vyos-aws-vipa hook`.
    pub hook: Runs,
    /// `vyos-aws-vipa show status`.
    pub show_status: Runs,
}

/// The world of both measurements.
pub fn world() -> World {
    lab::world().stale_reads(Duration::ZERO)
}

fn bring_up(router: &mut Router, groups: usize, verify_interval: u32) {
    set_groups(router, groups);
    let node = "set high-availability vrrp global-parameters aws-vipa verify-interval";
    router.set([format!("{node} {verify_interval}").as_str()]);
    router.commit();
    await_verdict(router, groups, "OK");
}

/// Measures the idle agent over so many intervals between two regular reads.
///
/// # Panics
/// If anything fails.
pub fn idle(lab: &mut Lab, groups: usize, verify_interval: u32, intervals: u32) -> Idle {
    bring_up(&mut lab.r1, groups, verify_interval);
    let agent = lab.r1.main_pid("vyos-aws-vipa").expect("an agent");
    let clock = clock_getcpuclockid(nix::unistd::Pid::from_raw(agent.as_raw_nonzero().get())).expect("its CPU clock");
    let cpu = || Duration::from(clock.now().expect("the agent's CPU time"));
    let last_claim = lab.claims(None).last().expect("a claim").arrived;
    let interval = Duration::from_secs(verify_interval.into());
    // Half an interval after a regular read, so that each later one is far from both ends of what is measured.
    let is_regular = |request: &Request| request.arrived > last_claim + CONFIRMED;
    let read = lab.simulator.wait_for("a regular read", interval * 2 + CONFIRMED, |simulator| {
        simulator.requests().into_iter().find(is_regular)
    });
    let from = read.unwrap_or_else(|error| panic!("{error}")).arrived + interval / 2;
    sleep(from.saturating_duration_since(Instant::now()));
    let (began, cpu_before) = (Instant::now(), cpu());
    sleep(interval * intervals);
    let (measured, cpu_after) = (began.elapsed(), cpu());
    let per_hour = |requests: Vec<Request>| {
        let within = requests.iter().filter(|r| r.arrived >= began && r.arrived < began + measured);
        within.count() as f64 * 3_600.0 / measured.as_secs_f64()
    };
    let folder = Path::new("/proc").join(agent.as_raw_nonzero().to_string());
    let status = fs::read_to_string(folder.join("status")).expect("a status");
    let field = |name: &str| -> f64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.unwrap_or_else(|| panic!("no {name} in {status}"))
    };
    Idle {
        groups,
        resident_mb: field("VmRSS") * 1_024.0 / 1e6,
        peak_mb: field("VmHWM") * 1_024.0 / 1e6,
        seconds: measured.as_secs_f64(),
        cpu_ms: millis(cpu_after - cpu_before),
        threads: field("Threads") as usize,
        descriptors: fs::read_dir(folder.join("fd")).expect("its descriptors").count(),
        ec2_calls_per_hour: per_hour(lab.simulator.requests()),
        imds_requests_per_hour: per_hour(lab.simulator.imds_requests()),
    }
}

/// Measures the commands, each run so often. `bench` is this program, for [`run`] on the router.
///
/// # Panics
/// If anything fails.
pub fn commands(lab: &mut Lab, bench: &Path, groups: usize, times: usize) -> Commands {
    bring_up(&mut lab.r1, groups, 30);
    lab.r1.write("/run/lab/handed-over.json", &lab.r1.handed_over(false).to_string());
    let measure = |words: &[&str]| -> Runs {
        let mut command = lab.r1.command(bench);
        command.args(["times", &times.to_string(), "/run/lab/handed-over.json", "vyos-aws-vipa"]).args(words);
        let output = command.output().expect("this program");
        assert!(output.status.success(), "{words:?}: {}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(&output)))
    };
    let runs = Commands {
        groups,
        commit: measure(&["commit"]),
        hook: measure(&["hook"]),
        show_status: measure(&["show", "status"]),
    };
    let calls = |words: &str| lab.r1.systemctl_calls(words);
    assert_eq!(calls("restart keepalived.service") + calls("restart vyos-aws-vipa.service"), 0, "nothing was changed");
    runs
}

/// Runs a program so often, with that file as its standard input, and measures it. Nothing else may be a child of this
/// process: its memory counts are those of all its children.
///
/// # Errors
/// It cannot be run, or fails.
pub fn run(times: usize, input: &Path, program: &str, arguments: &[String]) -> io::Result<Runs> {
    let mut walls = Vec::new();
    for _ in 0..times {
        let mut command = Command::new(program);
        command.args(arguments).stdin(File::open(input)?).stdout(Stdio::null());
        let began = Instant::now();
        let status = command.status()?;
        walls.push(began.elapsed());
        if !status.success() {
            return Err(io::Error::other(format!("{program} {arguments:?}: {status}")));
        }
        sleep(Duration::from_millis(1));
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let cpu = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Runs {
        wall: Spread::of(&walls),
        cpu_ms: cpu as f64 / 1e3 / times as f64,
        peak_mb: usage.max_rss() as f64 * 1_024.0 / 1e6,
    })
}
