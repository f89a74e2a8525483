//! keepalived's liveness: its VRRP child keeps running.
//!
//! A router that was frozen must not claim addresses that the healthy one took over meanwhile. keepalived's VRRP child
//! wakes at least once per advertisement interval of a group, unless all its groups are in FAULT, which have no timer:
//! then it sleeps. Each time it runs, the kernel counts a context switch in /proc/PID/status (proc_pid_status(5)),
//! which every user may read, like all files that are read here.
//!
//! keepalived's main process starts one child for VRRP, and others for LVS checks and BFD if they are configured
//! (`start_keepalived` in core/main.c). All have the same command line, and a notify script may be a child too. The
//! VRRP child writes its process id to /run/vrrp.pid by default (`pidfile_write` in vrrp/vrrp_daemon.c, options `-r`
//! and `-p` of keepalived(8), observed with 2.2.7), again after each respawn. If that file does not lead to the child,
//! every child with keepalived's name counts, and all of them must keep running.

use std::io;
use std::path::PathBuf;

use super::process::{KEEPALIVED_COMM, ProcessStat, children, pid_in, read, unexpected};
use crate::paths::Paths;

/// Samples keepalived's processes.
#[derive(Debug, Clone)]
pub struct LivenessProbe {
    main_pid: PathBuf,
    vrrp_pid: PathBuf,
}

/// What keepalived's processes had done by one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The VRRP child; if it cannot be identified, each child of keepalived. Never empty.
    processes: Vec<Process>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    /// In clock ticks since boot: it distinguishes the process from a later one with the same id.
    pub start_time: u64,
    /// Its context switches so far, voluntary or not.
    pub switches: u64,
    /// It waits for something that wakes it: it is neither stopped nor stuck in the kernel.
    pub sleeps: bool,
}

/// No sample could be taken.
#[derive(Debug, thiserror::Error)]
pub enum LivenessError {
    #[error("keepalived does not run ({path}: {source}); `systemctl status keepalived` shows why")]
    NoPidFile { path: PathBuf, source: io::Error },
    /// keepalived's main process runs without a VRRP child.
    #[error("keepalived (process {0}) does not run, or has no VRRP child; `systemctl status keepalived` shows why")]
    NoVrrpChild(u32),
    #[error("cannot read {path}: {source}")]
    Proc { path: PathBuf, source: io::Error },
}

/// Whether keepalived ran between the two samples: the same processes, and each has more context switches. A respawned
/// child is no progress until the next sample.
pub fn progressed(before: &Sample, after: &Sample) -> bool {
    before.processes.len() == after.processes.len()
        && before
            .processes
            .iter()
            .zip(&after.processes)
            .all(|(b, a)| (b.pid, b.start_time) == (a.pid, a.start_time) && a.switches > b.switches)
}

/// Whether keepalived slept between the two samples, and was neither stopped nor stuck: the same processes, none of
/// which has run.
pub fn sleeps(before: &Sample, after: &Sample) -> bool {
    before.processes.len() == after.processes.len()
        && before.processes.iter().zip(&after.processes).all(|(b, a)| {
            (b.pid, b.start_time, b.switches) == (a.pid, a.start_time, a.switches) && b.sleeps && a.sleeps
        })
}

impl LivenessProbe {
    pub fn new(paths: &Paths) -> Self {
        Self { main_pid: paths.keepalived_pid.clone(), vrrp_pid: paths.keepalived_vrrp_pid.clone() }
    }

    /// Takes a sample, by reading four small files.
    ///
    /// # Errors
    /// [`LivenessError`]: keepalived, or its VRRP child, does not run.
    pub fn look(&self) -> Result<Sample, LivenessError> {
        let main = pid_in(&self.main_pid)
            .map_err(|source| LivenessError::NoPidFile { path: self.main_pid.clone(), source })?;
        if let Ok(vrrp) = pid_in(&self.vrrp_pid)
            && let Ok(stat) = ProcessStat::read(vrrp)
            && stat.parent == main
            && !stat.is_zombie
        {
            return Ok(Sample { processes: vec![process(vrrp, &stat)?] });
        }
        let none = || LivenessError::NoVrrpChild(main);
        if ProcessStat::read(main).map_err(|_| none())?.name != KEEPALIVED_COMM {
            return Err(none());
        }
        let children = children(main).map_err(|source| LivenessError::Proc {
            path: format!("/proc/{main}/task/{main}/children").into(),
            source,
        })?;
        let mut processes = Vec::new();
        for child in children {
            if let Ok(stat) = ProcessStat::read(child)
                && stat.parent == main
                && stat.name == KEEPALIVED_COMM
                && !stat.is_zombie
            {
                processes.push(process(child, &stat)?);
            }
        }
        processes.sort_by_key(|p| p.pid);
        if processes.is_empty() { Err(none()) } else { Ok(Sample { processes }) }
    }
}

fn process(pid: u32, stat: &ProcessStat) -> Result<Process, LivenessError> {
    let path = PathBuf::from(format!("/proc/{pid}/status"));
    match read(&path).and_then(|status| switches(&status).ok_or_else(|| unexpected("no context switches in it"))) {
        Ok(switches) => Ok(Process { pid, start_time: stat.start_time, switches, sleeps: stat.is_asleep }),
        Err(source) => Err(LivenessError::Proc { path, source }),
    }
}

/// The sum of `voluntary_ctxt_switches` and `nonvoluntary_ctxt_switches`.
fn switches(status: &str) -> Option<u64> {
    let count = |key: &str| -> Option<u64> {
        status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')?.trim().parse().ok())
    };
    count("voluntary_ctxt_switches")?.checked_add(count("nonvoluntary_ctxt_switches")?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::{Child, Command, Stdio};
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;
    use crate::netlink::namespace::{inside, ip};
    use crate::netlink::processor;

    const CONFIGURATION: &str = "
        global_defs {
            notify_fifo /run/keepalived/notify_fifo
        }
        vrrp_instance vyos-aws {
            interface eth0
            virtual_router_id 11
            priority 200
            advert_int 1
            virtual_ipaddress {
                10.99.0.100/24
            }
        }
        bfd_instance peer {
            neighbor_ip 10.99.0.2
            source_ip 10.99.0.1
        }
    ";

    /// keepalived, killed at the end of the test.
    struct RunningKeepalived(Child);

    impl RunningKeepalived {
        /// As VyOS starts it.
        fn start(paths: &Paths) -> Self {
            let child = Command::new("keepalived")
                .args(["--dont-fork", "--log-console", "--use-file"])
                .arg(&paths.keepalived_conf)
                .arg("--pid")
                .arg(&paths.keepalived_pid)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("keepalived");
            Self(child)
        }
    }

    impl Drop for RunningKeepalived {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn signal(pid: u32, signal: Signal) {
        let pid = Pid::from_raw(pid.try_into().expect("a process id")).expect("not 0");
        kill_process(pid, signal).expect("signalled");
    }

    /// Waits until `look` returns `Ok`.
    fn wait<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            match look() {
                Ok(found) => return found,
                Err(saw) => assert!(Instant::now() < deadline, "{what}: {saw}"),
            }
            sleep(Duration::from_millis(20));
        }
    }

    fn wait_for_progress(probe: &LivenessProbe) {
        let before = probe.look().expect("keepalived runs");
        wait("progress", || {
            let after = probe.look().map_err(|e| e.to_string())?;
            if progressed(&before, &after) { Ok(()) } else { Err(format!("{before:?}, then {after:?}")) }
        });
    }

    fn assert_no_progress(probe: &LivenessProbe) {
        let before = probe.look().expect("keepalived runs");
        let deadline = Instant::now() + Duration::from_secs(3);
        while Instant::now() < deadline {
            let after = probe.look().expect("keepalived runs");
            assert!(!progressed(&before, &after), "{before:?}, then {after:?}");
            assert!(!sleeps(&before, &after), "stopped, and not asleep: {before:?}, then {after:?}");
            sleep(Duration::from_millis(100));
        }
    }

    /// Stops a process, and waits until the kernel shows it as stopped: the stop itself is its last context switch.
    fn stop(pid: u32) {
        signal(pid, Signal::STOP);
        wait("stopped", || {
            let stat = read(Path::new(&format!("/proc/{pid}/stat"))).map_err(|e| e.to_string())?;
            if stat.contains(") T ") { Ok(()) } else { Err(stat) }
        });
    }

    #[test]
    fn keepalived_lives_as_long_as_its_vrrp_child_runs() {
        let test = "keepalived::liveness::tests::keepalived_lives_as_long_as_its_vrrp_child_runs";
        if !inside(test, &["-Urnm", "-pf", "--mount-proc"]) {
            return;
        }
        let mount = Command::new("mount").args(["-t", "tmpfs", "none", "/run"]).status().expect("mount(8)");
        assert!(mount.success(), "a /run of our own");
        ip("link add eth0 type veth peer name eth1");
        ip("address add 10.99.0.1/24 dev eth0");
        ip("link set eth0 up");
        ip("link set eth1 up");
        let paths = Paths::system();
        fs::create_dir(paths.keepalived_pid.parent().expect("a directory")).expect("made");
        fs::write(&paths.keepalived_conf, CONFIGURATION).expect("written");
        let probe = LivenessProbe::new(&paths);
        assert!(matches!(probe.look(), Err(LivenessError::NoPidFile { .. })));

        let mut keepalived = RunningKeepalived::start(&paths);
        let vrrp = wait("the VRRP child", || {
            let sample = probe.look().map_err(|e| e.to_string())?;
            let vrrp = pid_in(&paths.keepalived_vrrp_pid).map_err(|e| e.to_string())?;
            match &*sample.processes {
                [one] if one.pid == vrrp => Ok(vrrp),
                _ => Err(format!("{sample:?}, and the VRRP child is {vrrp}")),
            }
        });
        wait_for_progress(&probe);
        let before = processor::time();
        for _ in 0..1000 {
            probe.look().expect("keepalived runs");
        }
        let cost = (processor::time() - before) / 1000;
        println!("a look takes {cost:?} of processor time");
        assert!(cost < Duration::from_millis(1), "{cost:?} of processor time for a look");

        stop(vrrp);
        assert_no_progress(&probe);
        signal(vrrp, Signal::CONT);
        wait_for_progress(&probe);

        let before = probe.look().expect("keepalived runs");
        signal(vrrp, Signal::KILL);
        let vrrp = wait("a new VRRP child", || {
            let after = probe.look().map_err(|e| e.to_string())?;
            let new = pid_in(&paths.keepalived_vrrp_pid).map_err(|e| e.to_string())?;
            if new == vrrp || after.processes[0].pid != new {
                return Err(format!("{after:?}"));
            }
            assert!(!progressed(&before, &after), "{before:?}, then {after:?}");
            Ok(new)
        });
        wait_for_progress(&probe);

        // Without the pid file the VRRP child cannot be distinguished from the BFD child: both must keep running.
        fs::remove_file(&paths.keepalived_vrrp_pid).expect("removed");
        let both = probe.look().expect("keepalived runs");
        let ids: Vec<u32> = both.processes.iter().map(|p| p.pid).collect();
        assert!(ids.len() == 2 && ids.contains(&vrrp), "{ids:?} with VRRP child {vrrp}");
        wait_for_progress(&probe);
        stop(vrrp);
        assert_no_progress(&probe);
        signal(vrrp, Signal::CONT);
        wait_for_progress(&probe);

        // A pid file with the id of another process.
        fs::write(&paths.keepalived_vrrp_pid, "1\n").expect("written");
        assert_eq!(probe.look().expect("keepalived runs").processes.len(), 2);
        let main = keepalived.0.id();
        fs::write(&paths.keepalived_pid, "1\n").expect("written");
        assert!(matches!(probe.look(), Err(LivenessError::NoVrrpChild(1))), "{:?}", probe.look());
        fs::write(&paths.keepalived_pid, format!("{main}\n")).expect("written");
        keepalived.0.kill().expect("killed");
        keepalived.0.wait().expect("waited");
        assert!(matches!(probe.look(), Err(LivenessError::NoVrrpChild(_))), "{:?}", probe.look());
    }

    #[test]
    fn progress_is_more_switches_of_the_same_processes() {
        let process = |pid, start_time, switches| Process { pid, start_time, switches, sleeps: true };
        let sample = |processes: &[Process]| Sample { processes: processes.to_vec() };
        let before = sample(&[process(7, 100, 5)]);
        for (after, expected) in [
            (sample(&[process(7, 100, 6)]), true),
            (sample(&[process(7, 100, 5)]), false),
            (sample(&[process(7, 101, 6)]), false),
            (sample(&[process(8, 100, 6)]), false),
            (sample(&[process(7, 100, 6), process(8, 100, 6)]), false),
        ] {
            assert_eq!(progressed(&before, &after), expected, "{after:?}");
        }
        let before = sample(&[process(7, 100, 5), process(8, 100, 5)]);
        assert!(progressed(&before, &sample(&[process(7, 100, 6), process(8, 100, 6)])));
        assert!(!progressed(&before, &sample(&[process(7, 100, 6), process(8, 100, 5)])));
    }

    #[test]
    fn who_sleeps_has_not_run_and_is_not_stopped() {
        let process =
            |start_time, switches, sleeps| Sample { processes: vec![Process { pid: 7, start_time, switches, sleeps }] };
        let before = process(100, 5, true);
        for (after, expected) in [
            (process(100, 5, true), true),
            (process(100, 6, true), false),
            (process(101, 5, true), false),
            (process(100, 5, false), false),
        ] {
            assert_eq!(sleeps(&before, &after), expected, "{after:?}");
        }
        assert!(!sleeps(&process(100, 5, false), &before));
    }

    #[test]
    fn context_switches_of_both_kinds_are_added() {
        let status = "Name:\tkeepalived\nvoluntary_ctxt_switches:\t4\nnonvoluntary_ctxt_switches:\t3\n";
        assert_eq!(switches(status), Some(7));
        assert_eq!(switches("voluntary_ctxt_switches:\t4\n"), None);
        assert_eq!(switches(""), None);
    }
}
