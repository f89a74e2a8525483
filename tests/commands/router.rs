//! A router for one command: its files, a stand-in for the agent, and a separate network.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::Duration;
use std::{env, fs, thread};

use serde_json::{Value, json};
use simulator::{Simulator, World};
use tempfile::TempDir;
use vipa_core::keepalived::groups::{AdvertiseInterval, Groups, RunningGroup, VirtualAddress};
use vipa_core::model::config::{Config, Global, GroupConfig};
use vipa_core::model::ids::{GroupName, InterfaceName, Region};
use vyos_aws_vipa::agent;
use vyos_aws_vipa::fs::json_file;
use vyos_aws_vipa::paths::Paths;

/// The address of the group `web`.
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 100);

/// A router's files in a temporary directory.
pub struct Router {
    pub paths: Paths,
    pub directory: TempDir,
}

impl Router {
    pub fn new() -> Self {
        // Not below $TMPDIR, because the line breaks of a report depend on the length of the paths in it.
        let directory = tempfile::tempdir_in("/tmp").expect("a directory");
        let at = |name: &str| directory.path().join(name);
        let paths = Paths {
            config: at("config.json"),
            groups: at("groups.json"),
            include: at("keepalived-include.conf"),
            fifo: at("notify.fifo"),
            run: directory.path().to_owned(),
            warned: at("warned.json"),
            calls: at("calls.json"),
            lock: at("lock"),
            commit_lock: at("commit.lock"),
            commit_marker: at("in_commit"),
            keepalived_conf: at("keepalived.conf"),
            keepalived_pid: at("keepalived.pid"),
            keepalived_vrrp_pid: at("keepalived_vrrp.pid"),
            socket: at("agent.sock"),
            metrics: at("metrics.prom"),
            state: at("state"),
            credentials: at("credentials.json"),
        };
        Self { paths, directory }
    }

    /// A stand-in for keepalived: it has the FIFO open as keepalived does, until this is dropped.
    pub fn keepalived(&self) -> fs::File {
        if !self.paths.fifo.exists() {
            let mode = rustix::fs::Mode::from_raw_mode(0o640);
            rustix::fs::mknodat(rustix::fs::CWD, &self.paths.fifo, rustix::fs::FileType::Fifo, mode, 0)
                .expect("a FIFO");
        }
        fs::write(format!("/proc/{}/comm", std::process::id()), "keepalived").expect("renamed");
        fs::write(&self.paths.keepalived_pid, format!("{}\n", std::process::id())).expect("written");
        fs::File::options().read(true).write(true).open(&self.paths.fifo).expect("opened")
    }

    /// Configures the group `web`, which moves `address` to the ENI of `interface` and has the peer 10.99.0.12.
    pub fn configured(self, global: Global, address: [u8; 4], interface: &str) -> Self {
        let name = GroupName::try_from("web").expect("a group");
        let group = GroupConfig::new(name.clone());
        let config = Config { global, groups: vec![group], ..Config::default() };
        json_file::write(&self.paths.config, 0o644, &config).expect("written");
        let group = RunningGroup {
            name,
            interface: InterfaceName::try_from(interface).expect("an interface"),
            vrid: 10,
            priority: 100,
            advertise_interval: AdvertiseInterval::default(),
            peers: vec![Ipv4Addr::new(10, 99, 0, 12)],
            addresses: vec![VirtualAddress { address: address.into(), interface: None }],
        };
        json_file::write(&self.paths.groups, 0o644, &Groups { groups: vec![group] }).expect("written");
        self
    }

    /// A router with EC2 at `endpoint`, and credentials in a file, with the agent's copy of it.
    pub fn calling(endpoint: &str, address: [u8; 4], interface: &str) -> Self {
        let router = Self::new();
        let credentials = router.directory.path().join("credentials");
        let keys = "[default]\naws_access_key_id = AKIAVIPAEXAMPLE00001\naws_secret_access_key = vipa-example-secret\n";
        fs::write(&credentials, keys).expect("written");
        router.copy_credentials(&json!({ "text": keys }));
        let global = Global {
            region: Some(Region::try_from("eu-west-1").expect("a region")),
            endpoint_url: Some(endpoint.to_owned()),
            credentials_file: Some(credentials),
            ..Global::default()
        };
        router.configured(global, address, interface)
    }

    /// Writes the agent's copy of the credentials file.
    pub fn copy_credentials(&self, content: &Value) {
        let copy = json!({ "file": self.directory.path().join("credentials"), "content": content });
        json_file::write(&self.paths.credentials, 0o640, &copy).expect("written");
    }

    /// An agent that answers each connection with the next of these texts, once it has read a request; at `None` it waits
    /// until the client gives up. The thread returns the requests.
    pub fn agent(&self, answers: Vec<Option<Vec<u8>>>) -> thread::JoinHandle<Vec<String>> {
        let listener = UnixListener::bind(&self.paths.socket).expect("bound");
        thread::spawn(move || {
            let connection = |answer: Option<Vec<u8>>| {
                let (mut stream, _) = listener.accept().expect("accepted");
                let mut request = String::new();
                BufReader::new(&stream).read_line(&mut request).expect("a request");
                match answer {
                    Some(answer) => stream.write_all(&answer).expect("answered"),
                    None => _ = stream.read_to_end(&mut Vec::new()).expect("the client gives up"),
                }
                request
            };
            answers.into_iter().map(connection).collect()
        })
    }
}

/// The URL of a port on which nothing listens.
pub fn nowhere() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    format!("http://{}", listener.local_addr().expect("its address"))
}

/// Returns whether this process is root in its own network namespace, where `eth0` has the MAC address of the simulated
/// router's ENI. In the outer process, runs the test of that name in such a namespace, and fails if it fails.
pub fn inside(test: &str) -> bool {
    const INSIDE: &str = "TEST_INSIDE_NAMESPACE";
    if env::var_os(INSIDE).is_none() {
        let status = Command::new("unshare")
            .arg("-Urn")
            .arg(env::current_exe().expect("the path of this program"))
            .args([test, "--exact", "--nocapture"])
            .env(INSIDE, "1")
            .status()
            .expect("unshare(1) of util-linux");
        assert!(status.success(), "in a namespace: {status}");
        return false;
    }
    ip("link set lo up");
    ip("link add eth0 address 02:00:00:00:00:01 type veth peer name wire");
    true
}

/// Runs ip(8).
pub fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status().expect("ip(8) of iproute2");
    assert!(status.success(), "ip {words}: {status}");
}

/// The simulated EC2 of router 1, and the router with its files, without an agent. The simulator serves until it is dropped.
pub fn router_1() -> (Simulator, Router) {
    ip("address add 169.254.169.254/32 dev lo");
    let cloud = Simulator::start(World::two_routers().stale_reads(Duration::ZERO)).expect("a simulator");
    let ec2 = cloud.serve_ec2_http("127.0.0.1:0".parse().expect("an address"), None).expect("EC2");
    let imds = "169.254.169.254:80".parse().expect("an address");
    cloud.serve_imds("i-0a000000000000001", imds, None).expect("IMDS");
    let router = Router::calling(&ec2.url(), VIP.octets(), "eth0");
    (cloud, router)
}

/// Starts an agent, which runs until [`stop`].
pub fn start(paths: &Paths) -> thread::JoinHandle<()> {
    let paths = paths.clone();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(agent::run(&paths)).expect("it ran");
        runtime.shutdown_background();
    })
}

/// Sends SIGTERM to this process, which ends its agent.
pub fn stop(agent: thread::JoinHandle<()>) {
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).expect("a signal");
    agent.join().expect("it ended");
}
