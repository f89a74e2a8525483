//! A router in its own namespaces: an empty /run, `eth0` and `eth1`, the real keepalived and the real `vyos-aws-vipa` at
//! their real paths, and stand-ins for systemd and for VyOS's commit.

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
/// Written by the first call of a commit, for the later ones.
pub const CALLS: &str = "/run/vyos-aws-vipa/calls.json";
pub const GROUPS: &str = "/run/vyos-aws-vipa/groups.json";
pub const INCLUDE: &str = "/run/vyos-aws-vipa/keepalived.conf";
pub const FIFO: &str = "/run/vyos-aws-vipa/notify.fifo";
pub const KEEPALIVED_CONF: &str = "/run/keepalived/keepalived.conf";
const KEEPALIVED_PID: &str = "/run/keepalived/keepalived.pid";
const BINARY: &str = "/usr/bin/vyos-aws-vipa";
/// The directory of the stand-ins' files.
const LAB: &str = "/run/lab";
/// The configuration session, and a file that grows by a byte with each read of it.
const SESSION: &str = "/run/lab/session.json";
const READS: &str = "/run/lab/reads";

/// The time limit for each condition that a test waits for.
const DEADLINE: Duration = Duration::from_secs(20);

/// Arguments of `systemctl`, as [`Router::asked`] returns them.
pub const START_AGENT: &str = "start --no-block vyos-aws-vipa.service";
pub const STOP_AGENT: &str = "stop --no-block vyos-aws-vipa.service";
pub const RELOAD: &str = "reload keepalived.service";
/// Those of VyOS's own owner script.
pub const VYOS_RELOADS: [&str; 2] = ["daemon-reload", "reload-or-restart keepalived.service"];
pub const VYOS_STOPS: [&str; 2] = ["daemon-reload", "stop keepalived.service"];

/// The result of a program.
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

    /// The output for the operator, as one line: VyOS breaks lines.
    pub fn shown(&self) -> String {
        format!("{} {}", self.out, self.err).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Asserts that the program succeeded without output.
    pub fn assert_silent(&self) {
        assert_eq!((self.code, self.out.as_str(), self.err.as_str()), (Some(0), "", ""));
    }
}

/// A node for which VyOS runs the owner script of this package: `global-parameters aws-vipa`, or `aws-vipa` of a group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owned {
    Settings,
    Group(String),
}

impl Owned {
    pub fn group(name: &str) -> Self {
        Self::Group(name.to_owned())
    }

    /// The path of its parent below `high-availability vrrp`, as a JSON pointer.
    fn parent(&self) -> String {
        match self {
            Self::Settings => "/global-parameters".to_owned(),
            Self::Group(name) => format!("/group/{}", name.replace('~', "~0").replace('/', "~1")),
        }
    }

    /// The arguments of the owner script, from the template that the package installs. `$VAR(…)` is a value of the proposed
    /// configuration (vyatta-cfg src/cstore/cstore-varref.cpp), and empty if it is not set.
    fn words(&self, proposed: &Value) -> Vec<String> {
        let place = match self {
            Self::Settings => "global-parameters",
            Self::Group(_) => "group/node.tag",
        };
        let template = format!("vyos-templates/cfg/high-availability/vrrp/{place}/aws-vipa/node.def");
        let template = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(template)).expect("the template");
        let (_, words) = template.split_once("/high-availability_vrrp_aws-vipa.py").expect("the owner script");
        let (words, _) = words.split_once('"').expect("a closing quote");
        let vrid = format!("/high-availability/vrrp{}/vrid", self.parent());
        let vrid = proposed.pointer(&vrid).and_then(Value::as_str).unwrap_or_default();
        let words = words.replace("$VAR(../vrid/@)", vrid);
        assert!(!words.contains('$'), "{words} has a variable that this stand-in does not support");
        words.split_whitespace().map(str::to_owned).collect()
    }
}

/// A call of the owner script in a commit.
#[derive(Debug)]
pub struct Call {
    /// The node that it was for. VyOS shows the output below its path.
    pub node: Owned,
    pub answer: Answer,
    /// The input that the script passed to `commit`.
    pub input: Value,
    /// Whether the call has read the configuration. A later call of a commit ends before that if nothing is left to do.
    pub is_full: bool,
    pub took: Duration,
}

/// A router. The test runs in its namespaces.
pub struct Router {
    /// The configuration in effect.
    pub effective: Value,
    /// Whether owner scripts of the same priority run in reverse order: VyOS does not define their order.
    pub is_reversed: bool,
    /// Whether the script runs by its own interpreter line, as on VyOS. [`Call::input`] is null then.
    pub is_run_by_its_interpreter: bool,
    /// How long VyOS's library takes to be imported, to read the configurations and to make a dictionary of one, in seconds.
    pub vyos_seconds: &'static str,
    commit: RefCell<Option<CommitProcess>>,
}

/// The stand-in for the process or daemon of VyOS that runs the owner script in a commit (vyos_commit.py).
struct CommitProcess {
    child: Child,
    calls: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl CommitProcess {
    /// Runs the owner script with these arguments, or begins another commit, and returns the result.
    fn ask(&mut self, words: Option<&[String]>) -> Value {
        let line = json!(words).to_string() + "\n";
        self.calls.write_all(line.as_bytes()).expect("a running commit");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("an answer");
        serde_json::from_str(&answer).expect("an answer in JSON")
    }
}

impl Router {
    /// Runs the test again in new namespaces, and returns the router there. In the outer process it returns none, once the
    /// test has passed inside.
    pub fn enter(test: &str) -> Option<Self> {
        if !inside(test, &["-Urnmpf", "--mount-proc", "--kill-child"]) {
            return None;
        }
        mount(&["-t", "tmpfs", "tmpfs", "/run"]);
        for directory in ["/run/lab/bin", "/run/keepalived", "/run/vyos-aws-vipa"] {
            fs::create_dir_all(directory).expect("a directory");
        }
        // Only one id is mapped in these namespaces, so the agent's groups have root's id.
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

    /// A router that has booted with this configuration.
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

    /// Deleted nodes come first, the lowest priority first; then the others, the highest priority first (vyatta-cfg
    /// src/commit/commit-algorithm.cpp). A node whose owner fails keeps the configuration in effect.
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

    /// Calls the owner script once more in the session of the last commit, without the arguments that name a node.
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
        // run.py writes the script's input of `commit` to a file.
        let output = vyos(&mut Command::new("python3"), self.vyos_seconds)
            .arg(tests().join("run.py"))
            .arg(owner())
            .args(words)
            .output()
            .expect("python3");
        let input = fs::read_to_string("/run/lab/input.json").expect("the input of `commit`");
        let (input, took) = (serde_json::from_str(&input).expect("JSON"), began.elapsed());
        Call { node, answer: Answer::of(output), input, is_full: reads() > before, took }
    }

    /// Begins a commit in its own process, which holds VyOS's lock and calls the owner script from now on.
    pub fn begin_commit(&self) {
        let directory = Path::new("/opt/vyatta/config");
        if !directory.exists() {
            let program = Path::new(env!("CARGO_BIN_EXE_vyos-aws-vipa")).parent().expect("its directory");
            for emptied in ["/opt", "/var/tmp"] {
                lab::empty(emptied, &[Path::new(env!("CARGO_MANIFEST_DIR")), program], run);
            }
            fs::create_dir_all(directory).expect("a directory");
        }
        // A killed commit leaves this file behind; the next one creates it again.
        let _ = fs::remove_file("/var/tmp/in_commit");
        self.run_commit("process");
    }

    /// Starts a daemon like vyos-configd, which begins a commit and calls the owner script from now on.
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

    /// Begins another commit of the same daemon.
    pub fn next_commit_of_the_daemon(&self) {
        self.commit.borrow_mut().as_mut().expect("a daemon").ask(None);
    }

    /// Ends the commit, or the daemon.
    pub fn end_commit(&self) {
        let CommitProcess { mut child, calls, answers: _ } = self.commit.take().expect("a commit");
        drop(calls);
        let status = child.wait().expect("an exit status");
        assert!(status.success(), "{status}");
    }

    /// Kills the process of the commit, or the daemon.
    pub fn kill_commit(&self) {
        let mut commit = self.commit.take().expect("a commit");
        commit.child.kill().expect("killed");
        commit.child.wait().expect("an exit status");
    }

    /// Calls the owner script from outside the running commit, as another session or the installation of the package does:
    /// for no node, with its own view of the configuration.
    pub fn run_owner_beside(&self, proposed: &Value, effective: &Value) -> Answer {
        let in_commit = fs::read(SESSION).ok();
        write_session(false, proposed, effective);
        let output = vyos(&mut Command::new(owner()), self.vyos_seconds).output().expect("the script");
        if let Some(session) = in_commit {
            fs::write(SESSION, session).expect("written");
        }
        Answer::of(output)
    }

    /// Acts as VyOS's owner script of high-availability: renders keepalived.conf in place, and reloads.
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

    /// The calls of systemctl since the last call of this method, in order.
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
        // The file may be empty for a moment after the start.
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let open = |pid: &str| {
            let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
            entries.filter_map(|e| fs::read_link(e.ok()?.path()).ok()).any(|file| file == Path::new(FIFO))
        };
        children.split_whitespace().any(open)
    }

    /// Waits until keepalived has read its configuration, and holds the FIFO open or has closed it.
    pub fn wait_attached(&self, expected: bool) {
        self.wait(if expected { "keepalived to hold the FIFO" } else { "keepalived to close the FIFO" }, || {
            self.attached() == expected
        });
    }

    pub fn wait(&self, what: &str, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !done() {
            if Instant::now() >= deadline {
                let log = fs::read_to_string("/run/lab/keepalived.log").unwrap_or_default();
                panic!("waited {DEADLINE:?} for {what}; keepalived's log:\n{log}");
            }
            sleep(Duration::from_millis(10));
        }
    }

    /// Makes the stand-in for systemctl fail (`systemctl.refuses`), hang (`systemctl.hangs`), or lose reloads
    /// (`reload.lost`).
    pub fn spoil(&self, how: &str) {
        fs::write(Path::new(LAB).join(how), "").expect("written");
    }

    /// Ends that failure.
    pub fn mend(&self, how: &str) {
        fs::remove_file(Path::new(LAB).join(how)).expect("removed");
    }
}

/// The directory of the stand-ins for VyOS.
fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/owner")
}

/// The owner script.
fn owner() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/conf_mode/high-availability_vrrp_aws-vipa.py")
}

/// Makes a command use the stand-in for VyOS's library (vyos/config.py), which takes these times, in seconds.
fn vyos<'a>(command: &'a mut Command, seconds: &str) -> &'a mut Command {
    command
        .env("PYTHONPATH", tests())
        .env("VYOS_STAND_IN", SESSION)
        .env("VYOS_STAND_IN_READS", READS)
        .env("VYOS_STAND_IN_SECONDS", seconds)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
}

/// How often the configuration has been read.
fn reads() -> u64 {
    fs::metadata(READS).map_or(0, |file| file.len())
}

fn write_session(boot: bool, proposed: &Value, effective: &Value) {
    let session = json!({ "boot": boot, "proposed": proposed, "effective": effective });
    fs::write(SESSION, session.to_string()).expect("written");
}

/// The processor time of all children that have ended. Unlike the elapsed time, it does not depend on the machine's load.
pub fn processor_time_of_children() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").expect("read");
    // proc(5): the second field is a name in brackets, which may contain any characters; `state`, the third, follows it.
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |field: usize| -> u32 { fields[field - 3].parse().expect("a number") };
    Duration::from_secs(1) * (ticks(16) + ticks(17)) / rustix::param::clock_ticks_per_second() as u32
}

/// Runs the program with these arguments and this standard input.
pub fn vipa(words: &[&str], input: &[u8]) -> Answer {
    let mut child = Command::new(BINARY)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program");
    // The program may reject the input before it has read all of it.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    Answer::of(child.wait_with_output().expect("an output"))
}

fn systemctl(words: &str) {
    let status = Command::new("systemctl").args(words.split(' ')).status().expect("the stand-in for systemctl");
    assert!(status.success(), "systemctl {words}: {status}");
}

fn mount(words: &[&str]) {
    run(&[&["mount"], words].concat());
}

fn run(words: &[&str]) {
    let status = Command::new(words[0]).args(&words[1..]).status().expect("it starts");
    assert!(status.success(), "{}: {status}", words.join(" "));
}

/// Sets the node to its value in the other configuration. If that deletes it, its parents stay.
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
        unreachable!("{node:?} was deleted, but is not in the effective configuration");
    }
}

/// The owner scripts that VyOS runs for a change.
struct Owners {
    /// Deleted nodes of this package.
    gone: Vec<Owned>,
    /// New and changed nodes of this package.
    set: Vec<Owned>,
    /// Whether VyOS's own owner script of high-availability runs.
    vyos: bool,
}

/// The owner script of a node runs if a node below it changes that has no owner script nearer to it.
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

/// The keepalived.conf that VyOS renders from a configuration, as far as these tests need it.
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

/// A group that causes no warning, in the form of libvyosconfig. `aws_vipa` may be null: no such node.
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
