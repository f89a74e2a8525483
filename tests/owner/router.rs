//! A router in namespaces of its own: empty /run, `eth0` and `eth1`, the real keepalived and the real `vyos-aws-vipa` at
//! their real paths, stand-ins for systemd and for VyOS's commit.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::namespace::{inside, ip};

pub const CONFIG: &str = "/run/vyos-aws-vipa/config.json";
pub const GROUPS: &str = "/run/vyos-aws-vipa/groups.json";
pub const INCLUDE: &str = "/run/vyos-aws-vipa/keepalived.conf";
pub const FIFO: &str = "/run/vyos-aws-vipa/notify.fifo";
pub const KEEPALIVED_CONF: &str = "/run/keepalived/keepalived.conf";
const KEEPALIVED_PID: &str = "/run/keepalived/keepalived.pid";
const BINARY: &str = "/usr/bin/vyos-aws-vipa";
/// What the stand-ins keep.
const LAB: &str = "/run/lab";

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

/// A call of the owner script in a commit.
#[derive(Debug)]
pub struct Call {
    pub answer: Answer,
    /// What the script handed over.
    pub input: Value,
}

/// The router, from inside.
pub struct Router {
    /// The configuration in effect.
    pub effective: Value,
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
        // One id alone is mapped in here: the agent's group is root's.
        let groups = fs::read_to_string("/etc/group").expect("groups") + "vyos-aws-vipa:x:0:\n";
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
        Some(Self { effective: json!({}) })
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

    /// Commits a configuration: runs the owners that VyOS would run, in its order. What they refuse is left out of what is
    /// in effect.
    pub fn commit(&mut self, configuration: Value) -> Vec<Call> {
        self.run_owners(configuration, false)
    }

    fn run_owners(&mut self, proposed: Value, boot: bool) -> Vec<Call> {
        let session = json!({ "boot": boot, "proposed": proposed, "effective": self.effective });
        fs::write("/run/lab/session.json", session.to_string()).expect("written");
        let (ours, vyos_runs) = owners(&proposed, &self.effective);
        let group_goes = group_names(&self.effective).iter().any(|name| !group_names(&proposed).contains(name));
        if vyos_runs && !group_goes {
            self.high_availability(&proposed);
        }
        let calls: Vec<Call> = (0..ours).map(|_| self.run_owner()).collect();
        if vyos_runs && group_goes {
            self.high_availability(&proposed);
        }
        let refused = calls.iter().any(|call| call.answer.code != Some(0));
        self.effective = if refused { with_our_nodes_of(proposed, &self.effective) } else { proposed };
        calls
    }

    /// Calls the owner script in the session of the last commit.
    pub fn run_owner(&self) -> Call {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        // What the script hands over passes through a file on its way.
        let output = Command::new("python3")
            .arg(folder.join("tests/owner/run.py"))
            .arg(folder.join("src/conf_mode/high-availability_vrrp_aws-vipa.py"))
            .env("VYOS_STAND_IN", "/run/lab/session.json")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .output()
            .expect("python3");
        let input = fs::read_to_string("/run/lab/input.json").expect("what was handed over");
        Call { answer: Answer::of(output), input: serde_json::from_str(&input).expect("JSON") }
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

/// The configuration with our nodes as they are in the other one.
fn with_our_nodes_of(mut configuration: Value, other: &Value) -> Value {
    let groups = group_names(&configuration).into_iter().map(|name| vec!["group".to_owned(), name.clone()]);
    for path in groups.chain([vec!["global-parameters".to_owned()]]).collect::<Vec<_>>() {
        let [parent, ours] = [&configuration, other]
            .map(|tree| path.iter().try_fold(&tree["high-availability"]["vrrp"], |node, word| node.get(word)).cloned());
        let Some(mut parent) = parent else {
            continue;
        };
        let nodes = parent.as_object_mut().expect("a node");
        nodes.remove("aws-vipa");
        nodes.extend(ours.and_then(|o| o.get("aws-vipa").cloned()).map(|node| ("aws-vipa".to_owned(), node)));
        *path.iter().fold(&mut configuration["high-availability"]["vrrp"], |node, word| &mut node[word]) = parent;
    }
    configuration
}

/// How often VyOS runs our owner for this change, and whether it runs its own: the owner of a node runs if something
/// below it changes that no owner further down has.
fn owners(proposed: &Value, effective: &Value) -> (usize, bool) {
    let parts = |configuration: &Value| {
        let mut rest = configuration["high-availability"].clone();
        let mut ours = Vec::new();
        let global = rest.pointer_mut("/vrrp/global-parameters").and_then(Value::as_object_mut);
        ours.extend(global.and_then(|nodes| nodes.remove("aws-vipa")).map(|node| (None, node)));
        for (name, group) in rest.pointer_mut("/vrrp/group").and_then(Value::as_object_mut).into_iter().flatten() {
            let node = group.as_object_mut().and_then(|nodes| nodes.remove("aws-vipa"));
            ours.extend(node.map(|node| (Some(name.clone()), node)));
        }
        (ours, rest)
    };
    let ((after, rest_after), (before, rest_before)) = (parts(proposed), parts(effective));
    let new = after.iter().filter(|part| !before.contains(part));
    let gone = before.iter().filter(|(name, _)| !after.iter().any(|(other, _)| other == name));
    (new.count() + gone.count(), rest_after != rest_before)
}

/// The VRRP groups of a configuration.
pub fn groups_of(configuration: &Value) -> Vec<(&String, &Value)> {
    let groups = configuration.pointer("/high-availability/vrrp/group").and_then(Value::as_object);
    groups.into_iter().flatten().collect()
}

fn group_names(configuration: &Value) -> Vec<&String> {
    groups_of(configuration).into_iter().map(|(name, _)| name).collect()
}

/// What VyOS makes of a configuration, as far as these tests need it.
pub fn keepalived_conf(configuration: &Value) -> String {
    let mut text = "# Autogenerated\n\nglobal_defs {\n    dynamic_interfaces\n    script_user root\n}\n\n".to_owned();
    for (name, group) in groups_of(configuration) {
        let [interface, vrid] = ["interface", "vrid"].map(|node| group[node].as_str().expect("a value"));
        text += &format!(
            "vrrp_instance {name} {{\n    state BACKUP\n    interface {interface}\n    virtual_router_id {vrid}\n    \
             priority 100\n    advert_int 1\n"
        );
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
