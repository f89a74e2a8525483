//! What the product costs: the agent when nothing happens, and the commands that VyOS and people call.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use lab::simulator::{Request, World};
use lab::{Lab, Router, said};
use nix::libc::pid_t;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeValLike;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::many::set_groups;
use crate::notified::await_verdict;
use crate::spread::{Spread, millis};

/// The reads that confirm a claim come 1, 3 and 10 s after it.
const CONFIRMED: Duration = Duration::from_secs(11);

/// An agent that asks for nothing for so long has done what a change brought.
const QUIET: Duration = Duration::from_millis(500);

/// The agent on a router that is MASTER for all its groups, with the real keepalived, while nothing happens.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Idle {
    /// Groups.
    pub groups: usize,
    /// Resident memory (VmRSS), in MB of a million bytes.
    pub resident_mb: f64,
    /// The most that it ever was (VmHWM), the claim of all groups and writing their metrics included.
    pub peak_mb: f64,
    /// Size of the metrics, in kB of a thousand bytes; a report of an older version does not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_kb: Option<f64>,
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
    /// The most resident memory (VmHWM), in MB of a million bytes.
    pub peak_mb: f64,
    /// Threads at its end.
    pub threads: usize,
    /// Open file descriptors at its end.
    pub descriptors: usize,
    /// Requests to EC2 and IMDS in one run: whole ones, since the agent's own may come among them.
    pub requests: usize,
}

/// The commands with so many groups.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Commands {
    /// Groups.
    pub groups: usize,
    /// `vyos-aws-vipa commit` with nothing to change.
    pub commit: Runs,
    /// The same with another verify-interval each time, systemctl's time included.
    pub commit_with_a_change: Runs,
    /// `vyos-aws-vipa hook`.
    pub hook: Runs,
    /// `vyos-aws-vipa show status`.
    pub show_status: Runs,
    /// `vyos-aws-vipa show status --fresh`: one round trip of the API more.
    pub show_status_fresh: Runs,
}

impl Commands {
    /// All of them with their names.
    pub fn all(&self) -> [(&'static str, &Runs); 5] {
        [
            ("commit", &self.commit),
            ("commit with a change", &self.commit_with_a_change),
            ("hook", &self.hook),
            ("show status", &self.show_status),
            ("show status --fresh", &self.show_status_fresh),
        ]
    }
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
    let last_claim = lab.claims(None).last().expect("a claim").arrived;
    at_rest(lab, groups, verify_interval, intervals, last_claim).0
}

/// Measures the agent of a router that is MASTER for all its groups and has sent its last claim then. Gives the regular
/// reads too, from before the time that is measured.
pub(crate) fn at_rest(
    lab: &Lab,
    groups: usize,
    verify_interval: u32,
    intervals: u32,
    last_claim: Instant,
) -> (Idle, Vec<Request>) {
    let agent = lab.r1.main_pid("vyos-aws-vipa").expect("an agent");
    let clock = clock_getcpuclockid(Pid::from_raw(agent.as_raw_nonzero().get())).expect("its CPU clock");
    let cpu = || Duration::from(clock.now().expect("the agent's CPU time"));
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
    let metrics = lab.r1.read("/run/vyos-aws-vipa-agent/metrics.prom");
    let states = metrics.lines().filter(|line| line.starts_with("vyos_aws_vipa_vrrp_state{")).count();
    assert_eq!(states, groups, "groups in the metrics");
    let seen = Seen::of(agent.as_raw_nonzero().get()).expect("the agent's memory");
    let idle = Idle {
        groups,
        resident_mb: seen.resident_mb,
        peak_mb: seen.peak_mb,
        metrics_kb: Some(metrics.len() as f64 / 1e3),
        seconds: measured.as_secs_f64(),
        cpu_ms: millis(cpu_after - cpu_before),
        threads: seen.threads,
        descriptors: seen.descriptors,
        ec2_calls_per_hour: per_hour(lab.simulator.requests()),
        imds_requests_per_hour: per_hour(lab.simulator.imds_requests()),
    };
    (idle, lab.simulator.requests().into_iter().filter(is_regular).collect())
}

/// Measures the commands, each run so often. `bench` is this program, for [`run`] on the router.
///
/// # Panics
/// If anything fails, or if one that has nothing to change calls systemctl.
pub fn commands(lab: &mut Lab, bench: &Path, groups: usize, times: usize) -> Commands {
    bring_up(&mut lab.r1, groups, 30);
    let inputs = ["/run/lab/handed-over.json", "/run/lab/handed-over-other.json"];
    let node = "set high-availability vrrp global-parameters aws-vipa verify-interval";
    for (input, interval) in inputs.iter().zip([30, 31]).rev() {
        lab.r1.set([format!("{node} {interval}").as_str()]);
        let mut handed_over = lab.r1.handed_over(false);
        // With DHCP, which is usual in EC2, nothing is configured, and the kernel tells of the interface's addresses.
        handed_over["interface-addresses"] = json!({});
        lab.r1.write(input, &handed_over.to_string());
        // The second one is in force then.
        let file = File::open(lab.r1.path(input)).expect("just written");
        let output = lab.r1.command("vyos-aws-vipa").arg("commit").stdin(file).output().expect("commit");
        assert!(output.status.success(), "{}", said(&output));
    }
    // What the agent asks for after a change is no request of a command.
    let mut number = None;
    while number.replace(lab.simulator.next_number()) != Some(lab.simulator.next_number()) {
        sleep(QUIET);
    }
    let systemctl = || lab.r1.read("/run/lab/systemctl.log").lines().count();
    let requests = || lab.simulator.next_number();
    let measure = |inputs: &[&str], words: &[&str]| -> Runs {
        let mut command = lab.r1.command(bench);
        command.args(["times", &times.to_string(), &inputs.join(","), "vyos-aws-vipa"]).args(words);
        let (calls, before) = (systemctl(), requests());
        let output = command.output().expect("this program");
        assert!(output.status.success(), "{words:?}: {}", said(&output));
        let to_change = inputs.len() > 1;
        assert_eq!(systemctl() > calls, to_change, "{words:?}: {}", lab.r1.read("/run/lab/systemctl.log"));
        let runs: Runs = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", said(&output)));
        // One more for the run that is looked into.
        Runs { requests: (requests() - before) / (times + 1), ..runs }
    };
    Commands {
        groups,
        commit: measure(&inputs[..1], &["commit"]),
        hook: measure(&inputs[..1], &["hook"]),
        show_status: measure(&inputs[..1], &["show", "status"]),
        show_status_fresh: measure(&inputs[..1], &["show", "status", "--fresh"]),
        // The first one has to differ from what is in force.
        commit_with_a_change: measure(&[inputs[1], inputs[0]], &["commit"]),
    }
}

/// Runs a program so often and measures it, with one file after the other as its standard input, and then once more to look
/// into it at its end. Nothing else may be a child of this process: its CPU time is that of all its children.
///
/// # Errors
/// It cannot be run, or fails.
pub fn run(times: usize, inputs: &[PathBuf], program: &str, arguments: &[String]) -> io::Result<Runs> {
    let mut inputs = inputs.iter().cycle();
    let mut next = || match inputs.next() {
        Some(input) => File::open(input),
        None => Err(io::Error::other("no file for standard input")),
    };
    let failed = |how: String| io::Error::other(format!("{program} {arguments:?}: {how}"));
    let mut walls = Vec::new();
    for _ in 0..times {
        let mut command = Command::new(program);
        command.args(arguments).stdin(next()?).stdout(Stdio::null());
        let began = Instant::now();
        let status = command.status().map_err(|error| failed(error.to_string()))?;
        walls.push(began.elapsed());
        if !status.success() {
            return Err(failed(status.to_string()));
        }
        sleep(Duration::from_millis(1));
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let cpu = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    let seen = at_its_end(program, arguments, next()?).map_err(|error| failed(error.to_string()))?;
    Ok(Runs {
        wall: Spread::of(&walls),
        cpu_ms: cpu as f64 / 1e3 / times as f64,
        peak_mb: seen.peak_mb,
        threads: seen.threads,
        descriptors: seen.descriptors,
        requests: 0,
    })
}

/// What /proc tells of a process.
#[derive(Debug)]
struct Seen {
    resident_mb: f64,
    peak_mb: f64,
    threads: usize,
    descriptors: usize,
}

impl Seen {
    fn of(process: pid_t) -> io::Result<Self> {
        let directory = Path::new("/proc").join(process.to_string());
        let status = fs::read_to_string(directory.join("status"))?;
        let field = |name: &str| -> io::Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            number.ok_or_else(|| io::Error::other(format!("no {name} in {status}")))
        };
        Ok(Self {
            resident_mb: field("VmRSS")? * 1_024.0 / 1e6,
            peak_mb: field("VmHWM")? * 1_024.0 / 1e6,
            threads: field("Threads")? as usize,
            descriptors: fs::read_dir(directory.join("fd"))?.count(),
        })
    }
}

/// Runs a program, and looks into it as it ends. What wait(2) tells of its memory would not do: the pages that it had of its
/// parent before exec(2) are in it.
fn at_its_end(program: &str, arguments: &[String], input: File) -> io::Result<Seen> {
    // It stops until it is traced.
    let mut command = Command::new("sh");
    command.args(["-c", "kill -STOP $$; exec \"$0\" \"$@\"", program]).args(arguments);
    let child = command.stdin(input).stdout(Stdio::null()).spawn()?;
    let pid = Pid::from_raw(child.id() as pid_t);
    waitpid(pid, Some(WaitPidFlag::WUNTRACED))?;
    ptrace::seize(pid, Options::PTRACE_O_TRACEEXIT)?;
    kill(pid, Signal::SIGCONT)?;
    let mut seen = None;
    loop {
        match waitpid(pid, None)? {
            WaitStatus::Exited(_, 0) => return seen.ok_or_else(|| io::Error::other("it ended unseen")),
            WaitStatus::Stopped(_, signal) => ptrace::cont(pid, signal)?,
            WaitStatus::PtraceEvent(_, _, event) => {
                if event == Event::PTRACE_EVENT_EXIT as i32 {
                    seen = Some(Seen::of(pid.as_raw())?);
                }
                ptrace::cont(pid, None)?;
            }
            ended => return Err(io::Error::other(format!("{ended:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_the_program_s_own() {
        let input = || File::open("/dev/null").expect("there");
        let own = Seen::of(std::process::id() as pid_t).expect("seen");
        // This process has far more than a program that does nothing.
        let pages = vec![1_u8; 64 << 20];
        let nothing = at_its_end("/bin/true", &[], input()).expect("seen");
        assert!(pages.iter().all(|byte| *byte == 1) && own.resident_mb > 0.0);
        assert!(
            (0.1..8.0).contains(&nothing.peak_mb) && nothing.threads == 1 && nothing.descriptors >= 3,
            "{nothing:?}"
        );
        // And a program's own counts: what it has read stays in its memory.
        let script = "x=$(head -c 20000000 /dev/zero | tr '\\0' x); : ${#x}".to_owned();
        let much = at_its_end("sh", &["-c".to_owned(), script], input()).expect("seen");
        assert!(much.peak_mb > nothing.peak_mb + 19.0, "{much:?}");
        let error = at_its_end("/bin/false", &[], input()).expect_err("exit code 1");
        assert!(error.to_string().contains("Exited"), "{error}");
    }
}
