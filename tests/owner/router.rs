//! A router in namespaces of its own: empty /run, `eth0` and `eth1`, the real keepalived and the real `vyos-aws-vipa` at
//! their real paths, stand-ins for systemd and for VyOS's commit.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::namespace::{inside, ip};

pub const CONFIG: &str = "/run/vyos-aws-vipa/config.json";
/// What an earlier call of a commit has done.
pub const CALLS: &str = "/run/vyos-aws-vipa/calls.json";
pub const GROUPS: &str = "/run/vyos-aws-vipa/groups.json";
pub const INCLUDE: &str = "/run/vyos-aws-vipa/keepalived.conf";
pub const FIFO: &str = "/run/vyos-aws-vipa/notify.fifo";
pub const KEEPALIVED_CONF: &str = "/run/keepalived/keepalived.conf";
const KEEPALIVED_PID: &str = "/run/keepalived/keepalived.pid";
const BINARY: &str = "/usr/bin/vyos-aws-vipa";
/// What the stand-ins keep.
const LAB: &str = "/run/lab";
/// The configuration session, and the file that grows when it is read.
const SESSION: &str = "/run/lab/session.json";
const READS: &str = "/run/lab/reads";

/// Nothing in these tests takes as long.
const DEADLINE: Duration = Duration::from_secs(20);

/// What the stand-in of systemd was asked, in order.
pub const START_AGENT: &str = "start --no-block vyos-aws-vipa.service";
pub const STOP_AGENT: &str = "stop --no-block vyos-aws-vipa.service";
pub const RELOAD: &str = "reload keepalived.service";
/// What VyOS's own owner asks.
pub const VYOS_RELOADS: [&str; 2] = ["daemon-reload", "reload-or-restart keepalived.service"];
pub const VYOS_STOPS: [&str; 2] = ["daemon-reload", "stop keepalived.service"];

/// What a program came to.
#[derive(Debug)]
pub struct Answer {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Answer {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// What the operator reads, with the line breaks that VyOS makes undone.
    pub fn shown(&self) -> String {
        format!("{} {}", self.out, self.err).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Asserts that it went well, and said nothing.
    pub fn assert_silent(&self) {
        assert_eq!((self.code, self.out.as_str(), self.err.as_str()), (Some(0), "", ""));
    }
}

/// A node of ours that VyOS runs the owner for: `global-parameters aws-vipa`, or that of the group with this name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owned {
    Settings,
    Group(String),
}

impl Owned {
    pub fn group(name: &str) -> Self {
        Self::Group(name.to_owned())
    }

    /// Where it hangs, below `high-availability vrrp`.
    fn parent(&self) -> String {
        match self {
            Self::Settings => "/global-parameters".to_owned(),
            Self::Group(name) => format!("/group/{}", name.replace('~', "~0").replace('/', "~1")),
        }
    }

    /// The words that VyOS puts behind the owner, by the template that the package installs. `$VAR(…)` is of the proposed
    /// configuration (vyatta-cfg src/cstore/cstore-varref.cpp), and empty where nothing is set.
    fn words(&self, proposed: &Value) -> Vec<String> {
        let place = match self {
            Self::Settings => "global-parameters",
            Self::Group(_) => "group/node.tag",
        };
        let template = format!("vyos-templates/cfg/high-availability/vrrp/{place}/aws-vipa/node.def");
        let template = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(template)).expect("the template");
        let (_, words) = template.split_once("/high-availability_vrrp_aws-vipa.py").expect("the owner");
        let (words, _) = words.split_once('"').expect("its end");
        let vrid = format!("/high-availability/vrrp{}/vrid", self.parent());
        let vrid = proposed.pointer(&vrid).and_then(Value::as_str).unwrap_or_default();
        let words = words.replace("$VAR(../vrid/@)", vrid);
        assert!(!words.contains('$'), "{words} is not stood in for");
        words.split_whitespace().map(str::to_owned).collect()
    }
}

/// A call of the owner script in a commit.
#[derive(Debug)]
pub struct Call {
    /// The node that it was for: the answer is shown under its path.
    pub node: Owned,
    pub answer: Answer,
    /// What the script handed over.
    pub input: Value,
    /// The call has read the configuration: it was not left out as one with nothing left to do.
    pub is_full: bool,
    pub took: Duration,
}

/// The router, from inside.
pub struct Router {
    /// The configuration in effect.
    pub effective: Value,
    /// Whether owners of one priority, whose order VyOS leaves open, run in the other order.
    pub is_reversed: bool,
    /// Whether the script runs as VyOS runs it, by its own interpreter. Then what it hands over is not known.
    pub is_run_by_its_interpreter: bool,
    /// What VyOS's own library takes, in seconds: to be imported, to read the configurations, to make a dictionary of one.
    pub vyos_seconds: &'static str,
    commit: RefCell<Option<CommitProcess>>,
}

/// What runs the owner script in a commit: a process of VyOS's, or its daemon (vyos_commit.py).
struct CommitProcess {
    child: Child,
    calls: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl CommitProcess {
    /// Has it run the owner script with these words, or begin another commit; what that came to.
    fn ask(&mut self, words: Option<&[String]>) -> Value {
        let line = json!(words).to_string() + "\n";
        self.calls.write_all(line.as_bytes()).expect("a commit that runs");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("an answer");
        serde_json::from_str(&answer).expect("an answer in JSON")
    }
}

impl Router {
    /// The router, if the test is inside already; nothing if it has run there, and passed.
    pub fn enter(test: &str) -> Option<Self> {
        if !inside(test, &["-Urnmpf", "--mount-proc", "--kill-child"]) {
            return None;
        }
        mount(&["-t", "tmpfs", "tmpfs", "/run"]);
        for folder in ["/run/lab/bin", "/run/keepalived", "/run/vyos-aws-vipa"] {
            fs::create_dir_all(folder).expect("a folder");
        }
        // One id alone is mapped in here: the agent's groups are root's.
        let groups =
            fs::read_to_string("/etc/group").expect("groups") + "vyos-aws-vipa:x:0:\nvyos-aws-vipa-agent:x:0:\n";
        fs::write("/run/lab/group", groups).expect("written");
        mount(&["--bind", "/run/lab/group", "/etc/group"]);
        let stand_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/owner/systemctl");
        symlink(stand_in, "/run/lab/bin/systemctl").expect("a link");
        symlink(env!("CARGO_BIN_EXE_vyos-aws-vipa"), "/run/lab/bin/vyos-aws-vipa").expect("a link");
        mount(&["-t", "overlay", "overlay", "-o", "lowerdir=/run/lab/bin:/usr/bin", "/usr/bin"]);
        for words in [
            "link set lo up",
            "link add eth0 type veth peer name wire0",
            "link add eth1 type veth peer name wire1",
            "link set wire0 up",
            "link set wire1 up",
            "link set eth0 up",
            "link set eth1 up",
            "address add 10.99.0.1/24 dev eth0",
            "address add 10.98.0.1/24 dev eth1",
        ] {
            ip(words);
        }
        Some(Self {
            effective: json!({}),
            is_reversed: false,
            is_run_by_its_interpreter: false,
            vyos_seconds: "0 0 0",
            commit: RefCell::new(None),
        })
    }

    /// One that has booted with this configuration.
    pub fn booted(test: &str, configuration: Value) -> Option<Self> {
        let mut router = Self::enter(test)?;
        for call in router.boot(configuration) {
            call.answer.assert_silent();
        }
        router.asked();
        Some(router)
    }

    /// Loads the boot configuration.
    pub fn boot(&mut self, configuration: Value) -> Vec<Call> {
        self.run_owners(configuration, true)
    }

    /// Commits a configuration: runs the owners that VyOS would run, in its order.
    pub fn commit(&mut self, configuration: Value) -> Vec<Call> {
        self.run_owners(configuration, false)
    }

    /// What is deleted comes first, the lowest priority first; then the rest, the highest priority first (vyatta-cfg
    /// src/commit/commit-algorithm.cpp). Of a node whose owner fails, what is in effect stays so.
    fn run_owners(&mut self, proposed: Value, boot: bool) -> Vec<Call> {
        write_session(boot, &proposed, &self.effective);
        let Owners { gone, mut set, vyos } = owners(&proposed, &self.effective);
        if self.is_reversed {
            set.reverse();
        }
        let mut calls: Vec<Call> = gone.into_iter().map(|node| self.run_owner_for(node, &proposed)).collect();
        if vyos {
            self.high_availability(&proposed);
        }
        calls.extend(set.into_iter().map(|node| self.run_owner_for(node, &proposed)));
        let mut effective = proposed;
        for call in calls.iter().filter(|call| call.answer.code != Some(0)) {
            put_back(&mut effective, &self.effective, &call.node);
        }
        self.effective = effective;
        calls
    }

    /// Calls the owner script once more in the session of the last commit, without a word on what for.
    pub fn run_owner(&self) -> Call {
        self.call(Owned::Settings, Vec::new())
    }

    fn run_owner_for(&self, node: Owned, proposed: &Value) -> Call {
        let words = node.words(proposed);
        self.call(node, words)
    }

    fn call(&self, node: Owned, words: Vec<String>) -> Call {
        let before = reads();
        if let Some(commit) = self.commit.borrow_mut().as_mut() {
            let answer = commit.ask(Some(&words));
            let text = |name: &str| answer[name].as_str().expect("text").to_owned();
            let code = answer["code"].as_i64().and_then(|code| i32::try_from(code).ok());
            let took = Duration::from_secs_f64(answer["seconds"].as_f64().expect("seconds"));
            let answer = Answer { code, out: text("out"), err: text("err") };
            return Call { node, answer, input: Value::Null, is_full: reads() > before, took };
        }
        let began = Instant::now();
        if self.is_run_by_its_interpreter {
            let output = vyos(&mut Command::new(owner()), self.vyos_seconds).args(words).output().expect("the script");
            let is_full = reads() > before;
            return Call { node, answer: Answer::of(output), input: Value::Null, is_full, took: began.elapsed() };
        }
        // What the script hands over passes through a file on its way.
        let output = vyos(&mut Command::new("python3"), self.vyos_seconds)
            .arg(tests().join("run.py"))
            .arg(owner())
            .args(words)
            .output()
            .expect("python3");
        let input = fs::read_to_string("/run/lab/input.json").expect("what was handed over");
        let (input, took) = (serde_json::from_str(&input).expect("JSON"), began.elapsed());
        Call { node, answer: Answer::of(output), input, is_full: reads() > before, took }
    }

    /// Begins a commit in a process of its own, which holds VyOS's lock and calls the owner from now on.
    pub fn begin_commit(&self) {
        let folder = Path::new("/opt/vyatta/config");
        if !folder.exists() {
            mount(&["-t", "tmpfs", "tmpfs", "/opt"]);
            mount(&["-t", "tmpfs", "tmpfs", "/var/tmp"]);
            fs::create_dir_all(folder).expect("a folder");
        }
        // What a commit has left that was killed: the next one makes the file anew.
        let _ = fs::remove_file("/var/tmp/in_commit");
        self.run_commit("process");
    }

    /// Starts a daemon like vyos-configd, which calls the owner from now on; it has begun a commit.
    pub fn start_daemon(&self) {
        self.run_commit("daemon");
    }

    fn run_commit(&self, kind: &str) {
        let mut command = Command::new("python3");
        command.arg(tests().join("vyos_commit.py")).arg(kind).arg(owner());
        let mut child = vyos(&mut command, self.vyos_seconds)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let (calls, answers) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let mut commit = CommitProcess { child, calls, answers: BufReader::new(answers) };
        commit.ask(None);
        assert!(self.commit.replace(Some(commit)).is_none(), "two commits at the same time");
    }

    /// Another commit of the same daemon.
    pub fn next_commit_of_the_daemon(&self) {
        self.commit.borrow_mut().as_mut().expect("a daemon").ask(None);
    }

    /// Ends the commit, or the daemon.
    pub fn end_commit(&self) {
        let CommitProcess { mut child, calls, answers: _ } = self.commit.take().expect("a commit");
        drop(calls);
        let status = child.wait().expect("its end");
        assert!(status.success(), "{status}");
    }

    /// Kills it.
    pub fn kill_commit(&self) {
        let mut commit = self.commit.take().expect("a commit");
        commit.child.kill().expect("killed");
        commit.child.wait().expect("its end");
    }

    /// Calls the owner script beside the commit that runs, as another session or the package's installation does: for no
    /// node, by what is in effect for it.
    pub fn run_owner_beside(&self, proposed: &Value, effective: &Value) -> Answer {
        let in_commit = fs::read(SESSION).ok();
        write_session(false, proposed, effective);
        let output = vyos(&mut Command::new(owner()), self.vyos_seconds).output().expect("the script");
        if let Some(session) = in_commit {
            fs::write(SESSION, session).expect("written");
        }
        Answer::of(output)
    }

    /// What VyOS's owner of high-availability does: renders keepalived.conf in place, and reloads.
    fn high_availability(&self, configuration: &Value) {
        let groups = groups_of(configuration);
        systemctl("daemon-reload");
        if groups.is_empty() {
            systemctl("stop keepalived.service");
            self.wait("keepalived to end", || !Path::new(KEEPALIVED_PID).exists());
            return;
        }
        fs::write(KEEPALIVED_CONF, keepalived_conf(configuration)).expect("written");
        systemctl("reload-or-restart keepalived.service");
        self.wait("keepalived to run", || Path::new(KEEPALIVED_PID).exists());
    }

    /// Stops keepalived and starts it again.
    pub fn restart_keepalived(&self) {
        systemctl("stop keepalived.service");
        self.wait("keepalived to end", || !Path::new(KEEPALIVED_PID).exists());
        systemctl("reload-or-restart keepalived.service");
        self.wait("keepalived to run", || Path::new(KEEPALIVED_PID).exists());
    }

    /// What systemd was asked since the last call of this.
    pub fn asked(&self) -> Vec<String> {
        let path = Path::new("/run/lab/systemctl.log");
        let text = fs::read_to_string(path).unwrap_or_default();
        fs::write(path, "").expect("written");
        text.lines().map(str::to_owned).collect()
    }

    /// Whether a process holds the FIFO open.
    pub fn attached(&self) -> bool {
        let Ok(pid) = fs::read_to_string(KEEPALIVED_PID) else {
            return false;
        };
        let pid = pid.trim();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("children");
        let open = |pid: &str| {
            let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
            entries.filter_map(|e| fs::read_link(e.ok()?.path()).ok()).any(|file| file == Path::new(FIFO))
        };
        children.split_whitespace().any(open)
    }

    /// Waits for keepalived to have read its configuration, and to hold the FIFO or not.
    pub fn wait_attached(&self, expected: bool) {
        self.wait(if expected { "keepalived to hold the FIFO" } else { "keepalived to let go of the FIFO" }, || {
            self.attached() == expected
        });
    }

    pub fn wait(&self, what: &str, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !done() {
            if Instant::now() >= deadline {
                let log = fs::read_to_string("/run/lab/keepalived.log").unwrap_or_default();
                panic!("waited {DEADLINE:?} for {what}; keepalived said:\n{log}");
            }
            sleep(Duration::from_millis(10));
        }
    }

    /// Has the stand-in of systemd fail (`systemctl.refuses`), hang (`systemctl.hangs`), or lose reloads (`reload.lost`).
    pub fn spoil(&self, how: &str) {
        fs::write(Path::new(LAB).join(how), "").expect("written");
    }

    /// Ends that again.
    pub fn mend(&self, how: &str) {
        fs::remove_file(Path::new(LAB).join(how)).expect("removed");
    }
}

/// What stands in for VyOS in the tests.
fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/owner")
}

/// The owner script.
fn owner() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/conf_mode/high-availability_vrrp_aws-vipa.py")
}

/// Has a command find the stand-in for VyOS's library, which takes these seconds (vyos/config.py).
fn vyos<'a>(command: &'a mut Command, seconds: &str) -> &'a mut Command {
    command
        .env("PYTHONPATH", tests())
        .env("VYOS_STAND_IN", SESSION)
        .env("VYOS_STAND_IN_READS", READS)
        .env("VYOS_STAND_IN_SECONDS", seconds)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
}

/// How often a configuration has been read.
fn reads() -> u64 {
    fs::metadata(READS).map_or(0, |file| file.len())
}

fn write_session(boot: bool, proposed: &Value, effective: &Value) {
    let session = json!({ "boot": boot, "proposed": proposed, "effective": effective });
    fs::write(SESSION, session.to_string()).expect("written");
}

/// The processor time of the processes that this one has run and waited for. A busy machine does not lengthen it.
pub fn processor_time_of_children() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").expect("read");
    // proc(5): the name, which is in brackets, may hold anything; `state` is the field after it, the third of all.
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |field: usize| -> u32 { fields[field - 3].parse().expect("a number") };
    Duration::from_secs(1) * (ticks(16) + ticks(17)) / rustix::param::clock_ticks_per_second() as u32
}

/// Runs the program with these words and this standard input.
pub fn vipa(words: &[&str], input: &[u8]) -> Answer {
    let mut child = Command::new(BINARY)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program");
    // It may refuse the input before it has read all of it.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    Answer::of(child.wait_with_output().expect("an end"))
}

fn systemctl(words: &str) {
    let status = Command::new("systemctl").args(words.split(' ')).status().expect("the stand-in of systemd");
    assert!(status.success(), "systemctl {words}: {status}");
}

fn mount(words: &[&str]) {
    let status = Command::new("mount").args(words).status().expect("mount(8) of util-linux");
    assert!(status.success(), "mount {}: {status}", words.join(" "));
}

/// Puts our node back to what it is in the other configuration. Nothing above a node is deleted if that was not.
fn put_back(configuration: &mut Value, other: &Value, node: &Owned) {
    let path = format!("/high-availability/vrrp{}", node.parent());
    let before = other.pointer(&path);
    if let Some(parent) = configuration.pointer_mut(&path) {
        let nodes = parent.as_object_mut().expect("a node");
        nodes.remove("aws-vipa");
        nodes.extend(before.and_then(|b| b.get("aws-vipa").cloned()).map(|node| ("aws-vipa".to_owned(), node)));
    } else if let (Some(before), Owned::Group(name)) = (before, node) {
        configuration["high-availability"]["vrrp"]["group"][name] = before.clone();
    } else {
        unreachable!("{node:?} was deleted and not in effect");
    }
}

/// The owners that VyOS runs for a change.
struct Owners {
    /// Ours, of nodes that go.
    gone: Vec<Owned>,
    /// Ours, of nodes that come or change.
    set: Vec<Owned>,
    /// Whether its own of high-availability runs.
    vyos: bool,
}

/// The owner of a node runs if something below it changes that no owner further down has.
fn owners(proposed: &Value, effective: &Value) -> Owners {
    let parts = |configuration: &Value| {
        let mut rest = configuration["high-availability"].clone();
        let mut ours = BTreeMap::new();
        let global = rest.pointer_mut("/vrrp/global-parameters").and_then(Value::as_object_mut);
        ours.extend(global.and_then(|nodes| nodes.remove("aws-vipa")).map(|node| (Owned::Settings, node)));
        for (name, group) in rest.pointer_mut("/vrrp/group").and_then(Value::as_object_mut).into_iter().flatten() {
            let node = group.as_object_mut().and_then(|nodes| nodes.remove("aws-vipa"));
            ours.extend(node.map(|node| (Owned::Group(name.clone()), node)));
        }
        (ours, rest)
    };
    let ((after, rest_after), (before, rest_before)) = (parts(proposed), parts(effective));
    let gone = before.keys().filter(|node| !after.contains_key(node)).cloned().collect();
    let set = after.into_iter().filter(|(node, value)| before.get(node) != Some(value)).map(|(node, _)| node).collect();
    Owners { gone, set, vyos: rest_after != rest_before }
}

/// The VRRP groups of a configuration.
pub fn groups_of(configuration: &Value) -> Vec<(&String, &Value)> {
    let groups = configuration.pointer("/high-availability/vrrp/group").and_then(Value::as_object);
    groups.into_iter().flatten().collect()
}

/// What VyOS makes of a configuration, as far as these tests need it.
pub fn keepalived_conf(configuration: &Value) -> String {
    let mut text = "# Autogenerated\n\nglobal_defs {\n    dynamic_interfaces\n    script_user root\n}\n\n".to_owned();
    for (name, group) in groups_of(configuration).into_iter().filter(|(_, group)| group.get("disable").is_none()) {
        let [interface, vrid] = ["interface", "vrid"].map(|node| group[node].as_str().expect("a value"));
        text += &format!(
            "vrrp_instance {name} {{\n    state BACKUP\n    interface {interface}\n    virtual_router_id {vrid}\n    \
             priority 100\n    advert_int 1\n"
        );
        if let Some(password) = group["authentication"]["password"].as_str() {
            text +=
                &format!("    authentication {{\n        auth_pass \"{password}\"\n        auth_type PASS\n    }}\n");
        }
        for (node, block) in [
            ("peer-address", "unicast_peer"),
            ("address", "virtual_ipaddress"),
            ("excluded-address", "virtual_ipaddress_excluded"),
        ] {
            let lines: Vec<&str> = match &group[node] {
                Value::String(value) => vec![value],
                Value::Object(tags) => tags.keys().map(String::as_str).collect(),
                _ => continue,
            };
            text += &format!("    {block} {{\n        {}\n    }}\n", lines.join("\n        "));
        }
        text += "}\n\n";
    }
    text
}

/// A group that gives no warning, as libvyosconfig gives it; `aws_vipa` is null for none.
pub fn group(vrid: u8, aws_vipa: Value) -> Value {
    let mut group = json!({
        "address": { format!("10.99.0.{}/24", 100 + u16::from(vrid)): {} },
        "hello-source-address": "10.99.0.1",
        "interface": "eth0",
        "peer-address": "10.99.0.2",
        "vrid": vrid.to_string()
    });
    if !aws_vipa.is_null() {
        group["aws-vipa"] = aws_vipa;
    }
    group
}

/// A whole configuration with these groups.
pub fn configuration(groups: Value) -> Value {
    json!({
        "high-availability": { "vrrp": { "global-parameters": { "startup-delay": "2" }, "group": groups } },
        "interfaces": {
            "ethernet": { "eth0": { "address": "10.99.0.1/24" }, "eth1": { "address": "10.98.0.1/24" } },
            "loopback": { "lo": {} }
        }
    })
}
