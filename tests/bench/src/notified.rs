//! A router on which this process writes the lines that keepalived would write, into the agent's real FIFO.
//!
//! keepalived itself does not run: how long it takes to find out that the master is gone is no part of what is measured
//! here. The configuration comes in by the shipped `commit` and `hook`.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::thread::sleep;
use std::time::{Duration, Instant};

use lab::{Router, Signal, said};
use serde_json::Value;

/// How long the agent may take to come up, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the agent logs once it has a writer, and all that was in the pipe before it.
const ATTACHED: &str = "hook attached";

/// The writer of the FIFO.
pub struct Notifier(File);

impl Notifier {
    /// Commits what is set on the router, and opens its FIFO as keepalived does.
    ///
    /// # Panics
    /// If the commit fails.
    pub fn commit(router: &Router) -> Self {
        fs::create_dir_all(router.path("/run/keepalived")).expect("made");
        router.write("/run/keepalived/keepalived.conf", &router.configuration().keepalived_conf());
        router.write("/run/lab/handed-over.json", &router.handed_over(false).to_string());
        let input = File::open(router.path("/run/lab/handed-over.json")).expect("just written");
        let output = router.command("vyos-aws-vipa").arg("commit").stdin(input).output().expect("commit");
        assert!(output.status.success(), "commit: {}", said(&output));
        let fifo = router.path("/run/vyos-aws-vipa/notify.fifo");
        let opened = OpenOptions::new().read(true).write(true).open(&fifo);
        Self(opened.unwrap_or_else(|error| panic!("{}: {error}", fifo.display())))
    }

    /// Writes a line, and gives the moment before.
    ///
    /// # Panics
    /// If the pipe does not take it.
    pub fn notify(&mut self, group: &str, state: &str) -> Instant {
        let line = format!("INSTANCE \"{group}\" {state} 200\n");
        let before = Instant::now();
        self.0.write_all(line.as_bytes()).unwrap_or_else(|error| panic!("{line}: {error}"));
        before
    }

    /// Starts the agent anew, and returns as soon as it reads the FIFO: it has made no call yet, or is about to.
    ///
    /// # Panics
    /// If it does not within a minute.
    pub fn restart(&self, router: &Router) {
        if router.main_pid("vyos-aws-vipa").is_some() {
            router.kill(Signal::KILL, "vyos-aws-vipa");
        }
        // What the last one said would only be in the way.
        router.write("/run/lab/vyos-aws-vipa.service.log", "");
        router.start_agent();
        let deadline = Instant::now() + PATIENCE;
        while !router.agent_log().contains(ATTACHED) {
            assert!(Instant::now() < deadline, "no agent within {PATIENCE:?}: {}", router.agent_log());
            sleep(Duration::from_micros(500));
        }
    }

    /// Tells all groups that they are standby, and returns when each could take over: credentials fresh, EC2 answering
    /// on a warm connection.
    ///
    /// # Panics
    /// If that does not come about within a minute.
    pub fn stand_by(&mut self, router: &Router, groups: &[String]) {
        for group in groups {
            self.notify(group, "BACKUP");
        }
        await_verdict(router, groups.len(), "STANDBY-READY");
    }
}

/// Waits until so many addresses, routes and Elastic IPs are shown, and each with that verdict.
///
/// # Panics
/// If that does not come about within a minute; with what is shown, and the end of the agent's log.
pub fn await_verdict(router: &Router, resources: usize, verdict: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = router.status();
        let groups = status["groups"].as_array().into_iter().flatten();
        let lists = groups.flat_map(|group| ["addresses", "routes", "elastic_ips"].map(|kind| &group[kind]));
        let shown: Vec<&Value> = lists.filter_map(Value::as_array).flatten().collect();
        let others = shown.iter().filter(|resource| resource["verdict"] != verdict);
        let first = others.clone().next();
        if shown.len() == resources && first.is_none() {
            return;
        }
        let log = router.agent_log();
        let tail: Vec<&str> = log.lines().rev().take(20).collect();
        assert!(
            Instant::now() < deadline,
            "not {verdict} within {PATIENCE:?}: {} of {resources} are shown, of which {} are not, such as {first:#?}\n{tail:#?}",
            shown.len(),
            others.count(),
        );
        sleep(Duration::from_millis(50));
    }
}
