//! A router: the shipped binary and unit files, the real keepalived, and what VyOS does around them.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process};
use serde_json::{Map, Value, json};
use simulator::World;

use crate::configuration::Configuration;
use crate::namespaces::{Host, output, said};
use crate::network;

/// The directory of the shipped unit files.
const DEBIAN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../debian");
/// The substitute for systemctl.
const SYSTEMCTL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/systemctl");
/// Debian's unit of keepalived.
const KEEPALIVED_UNIT: &str = "/usr/lib/systemd/system/keepalived.service";

/// The directory whose keepalived the routers run instead of the one that is installed, if this variable is set.
pub const KEEPALIVED_ROOT: &str = "VIPA_KEEPALIVED_ROOT";
const KEEPALIVED: &str = "/usr/sbin/keepalived";

/// VyOS's override of it (vyos-1x data/templates/high-availability/10-override.conf.j2), and a log file.
const OVERRIDE: &str = "[Unit]\nAfter=vyos-router.service\n[Service]\nType=simple\nExecStart=\nExecStart=/usr/sbin/keepalived \
--use-file /run/keepalived/keepalived.conf --pid /run/keepalived/keepalived.pid --dont-fork --log-console --log-detail\n\
PIDFile=/run/keepalived/keepalived.pid\n";

/// The most interfaces of a router: eth0 and eth1.
const MOST_INTERFACES: usize = 2;

/// A router.
pub struct Router {
    /// 1 or 2.
    pub number: u8,
    /// Its instance.
    pub instance: String,
    /// The ENIs of eth0 and eth1.
    pub enis: Vec<String>,
    /// Their primary addresses.
    pub primaries: Vec<Ipv4Addr>,
    /// The primary address of the other router's eth0.
    peer: Ipv4Addr,
    /// The addresses of EC2's endpoint.
    endpoints: Vec<Ipv4Addr>,
    /// The IPv6 address of eth0.
    ipv6: Option<Ipv6Addr>,
    /// Where everything goes that is not in its subnets, in a VPC with route tables.
    gateways: Vec<IpAddr>,
    /// What is set now, and what was set at the last commit.
    proposed: Configuration,
    effective: Configuration,
    host: Host,
}

impl Router {
    /// Boots the router of the instance with this number, without any configuration but its addresses.
    pub(crate) fn start(number: u8, world: &World, binary: &Path, ec2: &str, ca_pem: &str) -> Self {
        let instance = &world.instances[usize::from(number) - 1];
        let interfaces = &instance.network_interfaces;
        // A measurement has more ENIs than interfaces.
        let interfaces = &interfaces[..interfaces.len().min(MOST_INTERFACES)];
        let host = Host::start(&format!("router {number}"));
        let subnet = network::subnet(world, &interfaces[0]);
        let gateway = network::gateway(world, subnet);
        let ipv6 = |address| network::ipv6(world, subnet, address);
        let gateways = [Some(IpAddr::from(gateway)), ipv6(gateway).map(IpAddr::from)];
        let router = Self {
            number,
            instance: instance.id.clone(),
            enis: interfaces.iter().map(|interface| interface.id.clone()).collect(),
            primaries: interfaces.iter().map(|interface| interface.primary).collect(),
            peer: world.instances[2 - usize::from(number)].network_interfaces[0].primary,
            endpoints: network::endpoints(world),
            ipv6: ipv6(interfaces[0].primary),
            gateways: gateways.into_iter().flatten().filter(|_| network::has_routes(world)).collect(),
            proposed: Configuration::default(),
            effective: Configuration::default(),
            host,
        };
        for (n, interface) in interfaces.iter().enumerate() {
            let bridge = network::subnet(world, interface);
            network::plug_in(&network::port(number, n), bridge, router.host.pid(), &format!("eth{n}"), &interface.mac);
        }
        router.make_root(binary, ec2, ca_pem);
        for n in 0..interfaces.len() {
            router.call(&["ip", "link", "set", &format!("eth{n}"), "up"]);
        }
        router.add_addresses();
        router.call(&["ip", "link", "set", "lo", "up"]);
        router.call(&["ip", "address", "add", "169.254.169.254/32", "dev", "lo"]);
        if network::has_routes(world) {
            // The time to live of an answer shows which router has sent it.
            let ttl = network::time_to_live(number);
            for file in ["ipv4/ip_default_ttl", "ipv6/conf/eth0/hop_limit"] {
                router.call(&["sh", "-c", &format!("echo {ttl} >/proc/sys/net/{file}")]);
            }
        }
        router
    }

    /// What the network gives it: the primary addresses, and the route to the VPC.
    fn add_addresses(&self) {
        for (n, primary) in self.primaries.iter().enumerate() {
            self.call(&["ip", "address", "add", &format!("{primary}/24"), "dev", &format!("eth{n}")]);
        }
        if let Some(address) = self.ipv6 {
            self.call(&["ip", "address", "add", &format!("{address}/64"), "dev", "eth0", "nodad"]);
        }
        for gateway in &self.gateways {
            let via = gateway.to_string();
            self.call(&["ip", "route", "replace", "default", "via", &via, "dev", "eth0", "onlink"]);
        }
    }

    /// Files and mounts: its own /run and /var/lib, and over /usr/bin and /etc what a router has and this machine
    /// lacks.
    fn make_root(&self, binary: &Path, ec2: &str, ca_pem: &str) {
        for mount in [["tmpfs", "/run"], ["tmpfs", "/var/lib"], ["sysfs", "/sys"]] {
            self.call(&["mount", "-t", mount[0], mount[0], mount[1]]);
        }
        let lab = self.path("/run/lab");
        let directories = ["bin", "etc", "system/keepalived.service.d", "virtual/dmi/id"].map(|f| lab.join(f));
        directories.iter().for_each(|directory| fs::create_dir_all(directory).expect("made"));
        let [bin, etc, drop_ins, dmi] = directories;
        std::os::unix::fs::symlink(binary, bin.join("vyos-aws-vipa")).expect("linked");
        std::os::unix::fs::symlink(SYSTEMCTL, bin.join("systemctl")).expect("linked");
        let write = |path: PathBuf, text: &str| fs::write(path, text).expect("written");
        write(
            etc.join("passwd"),
            "root:x:0:0::/root:/bin/sh\nvyos-aws-vipa:x:0:0::/var/lib/vyos-aws-vipa:/bin/false\n",
        );
        // Only one id is mapped into the namespace, so the agent's groups are the same as root's.
        write(etc.join("group"), "root:x:0:\nvyos-aws-vipa:x:0:\nvyos-aws-vipa-agent:x:0:\n");
        write(etc.join("hosts"), &self.hosts(Some(ec2)));
        write(etc.join("resolv.conf"), &format!("nameserver {}\noptions timeout:1 attempts:1\n", self.endpoints[0]));
        write(etc.join("nsswitch.conf"), "passwd: files\ngroup: files\nhosts: files dns\n");
        write(lab.join("ca.pem"), ca_pem);
        // As Nitro's firmware does (EC2 User Guide, "Identify EC2 instances").
        write(dmi.join("board_asset_tag"), &format!("{}\n", self.instance));
        for (over, below) in [("bin", "/usr/bin"), ("etc", "/etc"), ("virtual", "/sys/devices/virtual")] {
            let layers = format!("lowerdir=/run/lab/{over}:{below}");
            self.call(&["mount", "-t", "overlay", "overlay", "-o", &layers, below]);
        }
        self.replace_keepalived();
        let link = |from: PathBuf, name: PathBuf| std::os::unix::fs::symlink(from, name).expect("linked");
        let units = lab.join("system");
        link(fs::canonicalize(KEEPALIVED_UNIT).expect("keepalived is installed"), units.join("keepalived.service"));
        for unit in ["vyos-aws-vipa.service", "vyos-aws-vipa-credentials.service", "vyos-aws-vipa-credentials.timer"] {
            link(Path::new(DEBIAN).join(unit), units.join(unit));
        }
        let drop_in = "20-vyos-aws-vipa.conf";
        link(Path::new(DEBIAN).join("keepalived.service.d").join(drop_in), drop_ins.join(drop_in));
        self.make_volatile();
    }

    /// Puts the keepalived of `$VIPA_KEEPALIVED_ROOT` (tests/keepalived/fetch) in the place of the one that is installed.
    fn replace_keepalived(&self) {
        let Some(root) = env::var_os(KEEPALIVED_ROOT) else {
            return;
        };
        let root = root.to_str().expect("a path in UTF-8");
        for path in [KEEPALIVED, "/etc/keepalived"] {
            self.call(&["mount", "--bind", &format!("{root}{path}"), path]);
        }
    }

    /// What systemd-tmpfiles creates at boot.
    fn make_volatile(&self) {
        let tmpfiles = fs::read_to_string(Path::new(DEBIAN).join("vyos-aws-vipa.tmpfiles")).expect("tmpfiles.d");
        for line in tmpfiles.lines().filter(|line| !line.starts_with('#')) {
            match line.split_whitespace().collect::<Vec<_>>().as_slice() {
                ["d", path, mode, "root", "root", "-"] => _ = self.call(&["mkdir", "-p", "-m", mode, path]),
                // Something for what is there already.
                ["z", ..] => {}
                other => panic!("what does tmpfiles.d do with {other:?}?"),
            }
        }
    }

    /// The network namespace, as a file.
    pub fn network_namespace(&self) -> PathBuf {
        self.host.network_namespace()
    }

    /// A path of the router as this process sees it.
    pub fn path(&self, path: &str) -> PathBuf {
        self.host.path(path)
    }

    /// A command to run on the router.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.host.command(program)
    }

    /// Runs a command on the router, and returns its output.
    ///
    /// # Panics
    /// If it fails.
    pub fn call(&self, words: &[&str]) -> String {
        self.host.call(words)
    }

    /// Applies `set` and `delete` commands; nothing happens before [`commit`](Self::commit).
    pub fn set<'a>(&mut self, commands: impl IntoIterator<Item = &'a str>) {
        commands.into_iter().for_each(|command| self.proposed.perform(command));
    }

    /// Sets a group of eth0 with the other router as its peer, and `aws-vipa`. The address has its prefix length.
    pub fn set_group(&mut self, group: &str, vrid: u8, address: &str, priority: u8) {
        let commands = self.group_commands(group, vrid, address, priority);
        self.set(commands.iter().map(String::as_str));
    }

    /// The commands of [`set_group`](Self::set_group), those of `aws-vipa` last.
    pub fn group_commands(&self, group: &str, vrid: u8, address: &str, priority: u8) -> Vec<String> {
        let group = format!("group {group}");
        [
            format!("{group} vrid {vrid}"),
            format!("{group} interface eth0"),
            format!("{group} address {address}"),
            format!("{group} priority {priority}"),
            format!("{group} peer-address {}", self.peer),
            format!("{group} hello-source-address {}", self.primaries[0]),
            format!("{group} aws-vipa"),
            "global-parameters aws-vipa ca-certificate-file /run/lab/ca.pem".to_owned(),
        ]
        .map(|node| format!("set high-availability vrrp {node}"))
        .into()
    }

    /// What is set now.
    pub fn configuration(&self) -> &Configuration {
        &self.proposed
    }

    /// Commits in VyOS's order, and returns the output of each call of the owner script.
    ///
    /// # Panics
    /// If a call of the owner fails.
    pub fn commit(&mut self) -> Vec<String> {
        let outputs = self.try_commit();
        outputs
            .iter()
            .map(|output| {
                assert!(output.status.success(), "commit on router {}: {}", self.number, said(output));
                said(output)
            })
            .collect()
    }

    /// Powers the router on with the configuration that is set: /run is empty, keepalived starts first, then `between`
    /// runs, and then the owner script. Returns the outputs of its calls.
    pub fn boot(&mut self, between: impl FnOnce(&Router)) -> Vec<Output> {
        let entries = fs::read_dir(self.path("/run")).expect("/run").flatten();
        for path in entries.filter(|e| e.file_name() != "lab").map(|e| e.path()) {
            if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("removed");
        }
        self.make_volatile();
        self.set_cables(true);
        self.high_availability();
        between(self);
        self.effective = Configuration::default();
        let places = self.proposed.aws_vipa_nodes();
        let outputs = places.iter().map(|_| self.owner(true)).collect();
        self.effective = self.proposed.clone();
        outputs
    }

    /// Commits, and returns the outputs of the owner script's calls.
    pub fn try_commit(&mut self) -> Vec<Output> {
        let (before, after) = (self.effective.clone(), self.proposed.clone());
        let was = before.aws_vipa_nodes();
        let is = after.aws_vipa_nodes();
        let has_changed = |(place, node): &&(Option<String>, Value)| !was.contains(&(place.clone(), node.clone()));
        let set = is.iter().filter(has_changed).map(|(place, _)| place);
        let deleted = was.iter().map(|(place, _)| place).filter(|place| is.iter().all(|(other, _)| other != *place));
        // The owner script of a deleted group runs before the group is deleted, all others after.
        let (first, last): (Vec<_>, Vec<_>) =
            set.chain(deleted).cloned().partition(|place| place.as_ref().is_some_and(|name| !after.has_group(name)));
        let mut outputs: Vec<Output> = first.iter().map(|_| self.owner(false)).collect();
        if before.without_aws_vipa() != after.without_aws_vipa() {
            self.high_availability();
        }
        outputs.extend(last.iter().map(|_| self.owner(false)));
        self.effective = after;
        outputs
    }

    /// What high-availability.py does.
    pub fn high_availability(&self) {
        let is_there = self.proposed.dict().get("vrrp").is_some();
        if !is_there {
            self.systemctl(&["stop", "keepalived.service"]);
            return;
        }
        fs::create_dir_all(self.path("/run/keepalived")).expect("made");
        // In place, as VyOS does: a reader may see half of it.
        self.write("/run/keepalived/keepalived.conf", &self.proposed.keepalived_conf());
        self.write("/run/lab/system/keepalived.service.d/10-override.conf", OVERRIDE);
        self.systemctl(&["daemon-reload"]);
        self.systemctl(&["reload-or-restart", "keepalived.service"]);
    }

    /// What the owner script of the aws-vipa nodes passes to `commit`.
    pub fn handed_over(&self, boot: bool) -> Value {
        let vrrp = |configuration: &Configuration| match configuration.dict() {
            Value::Object(tree) if tree.is_empty() => json!({}),
            tree => tree,
        };
        let addresses = self.primaries.iter().map(|primary| json!([format!("{primary}/24")])).enumerate();
        let addresses: Map<String, Value> = addresses.map(|(n, addresses)| (format!("eth{n}"), addresses)).collect();
        json!({
            "format": 1,
            "boot": boot,
            "proposed": vrrp(&self.proposed),
            "effective": vrrp(&self.effective),
            "interface-addresses": addresses,
        })
    }

    fn owner(&self, boot: bool) -> Output {
        self.write("/run/lab/handed-over.json", &self.handed_over(boot).to_string());
        let file = fs::File::open(self.path("/run/lab/handed-over.json")).expect("just written");
        self.command("vyos-aws-vipa").arg("commit").stdin(file).output().expect("commit")
    }

    /// Runs the substitute for systemctl.
    ///
    /// # Panics
    /// If it fails.
    pub fn systemctl(&self, words: &[&str]) {
        output(self.command("systemctl").args(words));
    }

    /// How often systemctl was called with these arguments.
    pub fn systemctl_calls(&self, words: &str) -> usize {
        let log = self.read("/run/lab/systemctl.log");
        log.lines().filter(|line| line.split_once(' ').is_some_and(|(_, call)| call == words)).count()
    }

    /// The status report.
    ///
    /// # Panics
    /// If there is none.
    pub fn status(&self) -> Value {
        let text = self.call(&["vyos-aws-vipa", "show", "status", "--json"]);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Group and address as the status report has them.
    pub fn shown(&self, group: &str, address: Ipv4Addr) -> Shown {
        let status = self.status();
        let groups = status["groups"].as_array().cloned().unwrap_or_default();
        let group = groups.into_iter().find(|g| g["name"] == group).unwrap_or_default();
        let addresses = group["addresses"].as_array().cloned().unwrap_or_default();
        let address = addresses.into_iter().find(|a| a["address"] == address.to_string()).unwrap_or_default();
        Shown { group, address }
    }

    /// Whether the address is on one of the router's interfaces.
    pub fn has_local(&self, address: Ipv4Addr) -> bool {
        self.call(&["ip", "-4", "-o", "address"]).contains(&format!(" {address}/"))
    }

    /// The main process of a unit.
    pub fn main_pid(&self, unit: &str) -> Option<Pid> {
        let pid = self.pid(&format!("/run/lab/{unit}.service.pid"))?;
        test_kill_process(pid).ok().map(|()| pid)
    }

    fn pid(&self, file: &str) -> Option<Pid> {
        Pid::from_raw(fs::read_to_string(self.path(file)).ok()?.trim().parse().ok()?)
    }

    /// keepalived's VRRP child.
    pub fn vrrp_pid(&self) -> Option<Pid> {
        self.pid("/run/vrrp.pid")
    }

    /// Sends a signal to the main process of a unit, and waits for its end.
    ///
    /// # Panics
    /// If it does not run, or does not end.
    pub fn kill(&self, signal: Signal, unit: &str) {
        let pid = self.main_pid(unit).unwrap_or_else(|| panic!("{unit} does not run on router {}", self.number));
        kill_process(pid, signal).unwrap_or_else(|error| panic!("{unit}: {error}"));
        let deadline = Instant::now() + Duration::from_secs(10);
        while test_kill_process(pid).is_ok() {
            assert!(Instant::now() < deadline, "{unit} has not ended within 10 s of {signal:?}");
            sleep(Duration::from_millis(2));
        }
    }

    /// Disconnects eth0, or connects it again.
    pub fn set_cable(&self, plugged_in: bool) {
        network::set_plug(&network::port(self.number, 0), plugged_in);
    }

    fn set_cables(&self, plugged_in: bool) {
        (0..self.enis.len()).for_each(|n| network::set_plug(&network::port(self.number, n), plugged_in));
    }

    /// SIGKILL to keepalived and all its children at once: its addresses stay on the interfaces.
    pub fn kill_keepalived_group(&self) {
        if let Some(pid) = self.main_pid("keepalived") {
            // It may have ended by itself meanwhile.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }

    /// Sends a signal to keepalived's VRRP child.
    ///
    /// # Panics
    /// If it does not run.
    pub fn signal_vrrp(&self, signal: Signal) {
        let pid = self.vrrp_pid().expect("a VRRP child");
        kill_process(pid, signal).expect("a process");
    }

    /// Powers the router off: all processes are killed, and the interfaces disconnected.
    pub fn power_off(&self) {
        self.kill_keepalived_group();
        if self.main_pid("vyos-aws-vipa").is_some() {
            self.kill(Signal::KILL, "vyos-aws-vipa");
        }
        self.set_cables(false);
        for n in 0..self.enis.len() {
            self.call(&["ip", "address", "flush", "dev", &format!("eth{n}")]);
        }
        self.add_addresses();
    }

    /// Starts the agent's unit.
    pub fn start_agent(&self) {
        self.systemctl(&["start", "vyos-aws-vipa.service"]);
    }

    /// Writes a file of the router, in place.
    ///
    /// # Panics
    /// If that fails.
    pub fn write(&self, path: &str, text: &str) {
        fs::write(self.path(path), text).unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Reads a file of the router; nothing if it is not there.
    pub fn read(&self, path: &str) -> String {
        let bytes = fs::read(self.path(path)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The agent's log.
    pub fn agent_log(&self) -> String {
        self.read("/run/lab/vyos-aws-vipa.service.log")
    }

    /// How many lines of the agent's log contain all these texts.
    pub fn logged(&self, texts: &[&str]) -> usize {
        self.agent_log().lines().filter(|line| texts.iter().all(|text| line.contains(text))).count()
    }

    /// Removes the name of EC2's endpoint, or restores it.
    pub fn set_dns(&self, ec2: Option<&str>) {
        self.write("/run/lab/etc/hosts", &self.hosts(ec2));
    }

    fn hosts(&self, ec2: Option<&str>) -> String {
        let endpoints = self.endpoints.iter().filter_map(|address| Some(format!("{address} {}\n", ec2?)));
        format!("127.0.0.1 localhost\n{}", endpoints.collect::<String>())
    }

    /// The state of the router, for a test that failed.
    pub(crate) fn story(&self) -> String {
        let tail = |text: String| {
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(60)..].join("\n")
        };
        // The tested program may be the reason for a hang.
        let status = ["--kill-after", "1", "10", "vyos-aws-vipa", "show", "status"];
        let status = self.command("timeout").args(status).output().map(|o| said(&o));
        let addresses = self.command("ip").args(["-br", "-4", "address"]).output().map(|o| said(&o));
        format!(
            "##### router {}\n### show status\n{}\n### addresses\n{}\n### systemctl\n{}\n### agent\n{}\n### keepalived\n{}\n",
            self.number,
            status.unwrap_or_default(),
            addresses.unwrap_or_default(),
            tail(self.read("/run/lab/systemctl.log")),
            tail(self.agent_log()),
            tail(self.read("/run/lab/keepalived.service.log")),
        )
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.kill_keepalived_group();
        if self.main_pid("vyos-aws-vipa").is_some() {
            self.kill(Signal::KILL, "vyos-aws-vipa");
        }
    }
}

/// A group and one of its addresses, as `show status --json` has them.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The group; null if it is not there.
    pub group: Value,
    /// The address; null if it is not there.
    pub address: Value,
}

impl Shown {
    /// The VRRP state.
    pub fn vrrp(&self) -> &str {
        self.group["vrrp"].as_str().unwrap_or("not there")
    }

    /// The verdict.
    pub fn verdict(&self) -> &str {
        self.address["verdict"].as_str().unwrap_or("not there")
    }
}
