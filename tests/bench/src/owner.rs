//! What a commit of many groups costs. VyOS calls the owner script once for each of our nodes that a commit changes, as a
//! program or inside its daemon.
//!
//! The script is the real one, with the binary that is measured as its interpreter. A stand-in for VyOS's commit calls it
//! (tests/owner/vyos_commit.py), without the sudo and vyshim that VyOS has around each call, and one for VyOS's library takes
//! as long as the real one (tests/owner/vyos).

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Instant;

use lab::{Lab, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::many::{address, group};
use crate::spread::{Spread, millis};

/// What VyOS's library takes, in seconds: to be imported, to read the configurations, and to make each of three dictionaries.
/// Together 0.75 s: on a booted VyOS 1.4 each of 20 groups added 0.74 s to a commit when it was added, and 0.33 s when it was
/// deleted, before later calls ended at once. The stand-in sleeps.
const VYOS: &str = "0.25 0.35 0.05";

/// The dictionaries of one call.
const READS: u64 = 3;

/// A kind of commit, made some times.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Commit {
    /// VRRP groups that it adds or deletes.
    pub groups: usize,
    /// It deletes them.
    pub deletes: bool,
    /// The script runs inside VyOS's daemon.
    pub in_daemon: bool,
    /// The commit if the groups have no nodes of ours: what VyOS and keepalived take here.
    pub without: Spread,
    /// The commit if they have, with all calls of the owner.
    pub with: Spread,
    /// The first call.
    pub first: Spread,
    /// Each later one, of all the commits.
    pub later: Spread,
    /// The most calls of one commit that read the configuration.
    pub full: usize,
}

impl Commit {
    /// What our nodes add to the commit, in milliseconds.
    pub fn added(&self) -> f64 {
        self.with.p50 - self.without.p50
    }

    /// The commit, for a reader.
    pub fn name(&self) -> String {
        let verb = if self.deletes { "deletes" } else { "adds" };
        let by = if self.in_daemon { ", in the daemon" } else { "" };
        format!("commit that {verb} {}{by}", crate::figures::groups(self.groups))
    }
}

/// One commit, in milliseconds.
struct Once {
    whole: f64,
    calls: Vec<f64>,
    full: usize,
}

/// Measures commits of so many groups, each kind so often.
///
/// # Panics
/// If anything fails.
pub fn measure(lab: &mut Lab, groups: usize, times: usize) -> Vec<Commit> {
    let router = &mut lab.r1;
    let program = fs::read_link(router.path("/run/lab/bin/vyos-aws-vipa")).expect("the program");
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the repository");
    for directory in ["/opt", "/var/tmp"] {
        let needed = [sources, program.parent().expect("its directory")];
        lab::empty(directory, &needed, |words| _ = router.call(words));
    }
    fs::create_dir_all(router.path("/opt/vyatta/config")).expect("made");
    let mut all = Vec::new();
    for in_daemon in [false, true] {
        let (mut without, mut with) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        for _ in 0..times {
            for (ours, commits) in [(false, &mut without), (true, &mut with)] {
                for (deletes, commits) in [false, true].into_iter().zip(commits) {
                    commits.push(commit(router, groups, ours, deletes, in_daemon));
                }
            }
        }
        for ((deletes, without), with) in [false, true].into_iter().zip(without).zip(with) {
            let calls = || with.iter().map(|once| &once.calls);
            all.push(Commit {
                groups,
                deletes,
                in_daemon,
                without: Spread::of_millis(without.iter().map(|once| once.whole)),
                with: Spread::of_millis(with.iter().map(|once| once.whole)),
                first: Spread::of_millis(calls().map(|calls| calls[0])),
                later: Spread::of_millis(calls().flat_map(|calls| &calls[1..]).copied()),
                full: with.iter().map(|once| once.full).max().unwrap_or_default(),
            });
        }
    }
    all
}

/// Adds or deletes the groups, with our nodes or without.
fn commit(router: &mut Router, groups: usize, ours: bool, deletes: bool, in_daemon: bool) -> Once {
    let before = router.configuration().dict();
    if deletes {
        router.set(["delete high-availability vrrp"]);
    } else {
        for n in 0..groups {
            let commands = router.group_commands(&group(n), n as u8 + 1, &format!("{}/24", address(n)), 200);
            router.set(commands.iter().map(String::as_str).filter(|command| ours || !command.contains("aws-vipa")));
        }
    }
    let tree = |vrrp: Value| {
        let interfaces = json!({ "ethernet": { "eth0": { "address": format!("{}/24", router.primaries[0]) } } });
        json!({ "high-availability": vrrp, "interfaces": interfaces })
    };
    let (after, before) = (tree(router.configuration().dict()), tree(before));
    let session = json!({ "boot": false, "proposed": after, "effective": before });
    router.write("/run/lab/session.json", &session.to_string());
    // What VyOS calls for: a group that is deleted has no VRID.
    let mut nodes: Vec<Vec<String>> = vec![vec!["global-parameters".to_owned()]];
    nodes.extend((1..=groups).map(|n| match deletes {
        true => vec!["group".to_owned()],
        false => vec!["group".to_owned(), n.to_string()],
    }));
    if !ours {
        nodes.clear();
    }
    let reads = || fs::metadata(router.path("/run/lab/reads")).map_or(0, |file| file.len());
    let (mut vyos, read) = (Vyos::begin(router, in_daemon), reads());
    let mut once = Once { whole: 0.0, calls: Vec::new(), full: 0 };
    // High-availability comes after what is deleted, and before what is added.
    if !deletes {
        once.whole += high_availability(router);
    }
    once.calls = nodes.iter().map(|words| vyos.call(words)).collect();
    if deletes {
        once.whole += high_availability(router);
    }
    once.whole += once.calls.iter().sum::<f64>();
    once.full = ((reads() - read) / READS) as usize;
    vyos.end();
    once
}

/// How long VyOS's owner of high-availability takes here, in milliseconds.
fn high_availability(router: &Router) -> f64 {
    let began = Instant::now();
    router.high_availability();
    millis(began.elapsed())
}

/// The stand-in for VyOS's commit.
struct Vyos {
    child: Child,
    calls: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Vyos {
    fn begin(router: &Router, in_daemon: bool) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let (tests, script) = (root.join("tests/owner"), root.join("src/conf_mode/high-availability_vrrp_aws-vipa.py"));
        let mut command = router.command("python3");
        command.arg(tests.join("vyos_commit.py")).arg(if in_daemon { "daemon" } else { "process" }).arg(script);
        let environment: [(&str, PathBuf); 5] = [
            ("PYTHONPATH", tests),
            ("PYTHONDONTWRITEBYTECODE", "1".into()),
            ("VYOS_STAND_IN", "/run/lab/session.json".into()),
            ("VYOS_STAND_IN_READS", "/run/lab/reads".into()),
            ("VYOS_STAND_IN_SECONDS", VYOS.into()),
        ];
        let mut child =
            command.envs(environment).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
        let (calls, answers) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let mut vyos = Self { child, calls, answers: BufReader::new(answers) };
        vyos.ask(&Value::Null);
        vyos
    }

    fn ask(&mut self, line: &Value) -> Value {
        writeln!(self.calls, "{line}").expect("a commit that runs");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("an answer");
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    /// Calls the owner; how long that takes, in milliseconds. It may warn: the lab's CA certificate is outside of /config.
    fn call(&mut self, words: &[String]) -> f64 {
        let answer = self.ask(&json!(words));
        assert!(answer["code"] == 0 && answer["err"] == "", "{words:?}: {answer}");
        answer["seconds"].as_f64().expect("seconds") * 1e3
    }

    fn end(self) {
        let Self { mut child, calls, answers: _ } = self;
        drop(calls);
        let status = child.wait().expect("its end");
        assert!(status.success(), "the commit: {status}");
    }
}
