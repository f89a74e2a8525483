//! Prometheus, promtool and node_exporter of Debian, as child processes that end with the test.

use std::env;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use lab::Router;
use serde_json::Value;

/// The directory of the programs, if it is already known (tests/monitoring/fetch).
const ROOT: &str = "VIPA_PROMETHEUS_ROOT";

const EXPORTER_PORT: u16 = 9100;
const PROMETHEUS_PORT: u16 = 9090;

/// How long a program may take to start.
const START: Duration = Duration::from_secs(30);

/// The directory of the programs, which are fetched if they are not there yet: call it before a test enters its namespaces.
pub fn root() -> PathBuf {
    if let Some(root) = env::var_os(ROOT) {
        return root.into();
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target directory");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/monitoring/fetch");
    let fetched = Command::new(&script).env("CARGO_TARGET_DIR", target).output().expect("a script");
    let said = String::from_utf8_lossy(&fetched.stderr);
    assert!(fetched.status.success(), "{}: {said}", script.display());
    String::from_utf8_lossy(&fetched.stdout).trim().into()
}

fn program(name: &str) -> PathBuf {
    root().join("usr/bin").join(name)
}

/// Runs promtool, and returns both of its outputs.
///
/// # Panics
/// If it fails.
pub fn promtool(arguments: &[&str], input: Option<&Path>) -> String {
    let mut command = Command::new(program("promtool"));
    command.args(arguments).stdin(input.map_or(Stdio::null(), |path| File::open(path).expect("a file").into()));
    let output = command.output().expect("promtool");
    let said = lab::said(&output);
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    said
}

/// Waits until there is a value.
///
/// # Panics
/// If there is none within the time.
pub fn wait_for<T>(what: &str, within: Duration, mut value: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = value() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        sleep(Duration::from_millis(50));
    }
}

/// A process that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running node_exporter with the textfile collector alone.
pub struct NodeExporter(#[expect(dead_code, reason = "it ends with it")] Running);

impl NodeExporter {
    /// On a router, as VyOS runs it.
    pub fn start(router: &Router) -> Self {
        Self::run(router.command(program("prometheus-node-exporter")), router.primaries[0], Path::new(super::COLLECTOR))
    }

    /// In this process's own namespaces.
    pub fn start_here(at: Ipv4Addr, directory: &Path) -> Self {
        Self::run(Command::new(program("prometheus-node-exporter")), at, directory)
    }

    fn run(mut command: Command, at: Ipv4Addr, directory: &Path) -> Self {
        command.args(["--collector.disable-defaults", "--collector.textfile"]);
        command.arg(format!("--collector.textfile.directory={}", directory.display()));
        command.arg(format!("--web.listen-address={at}:{EXPORTER_PORT}"));
        let running = Running(command.stdin(Stdio::null()).spawn().expect("node_exporter"));
        wait_for("node_exporter listens", START, || TcpStream::connect((at, EXPORTER_PORT)).ok());
        Self(running)
    }
}

/// A running Prometheus.
pub struct Prometheus {
    at: Ipv4Addr,
    _running: Running,
    _directory: tempfile::TempDir,
}

/// A series of an answer: its labels, and its value.
pub type Series = (Value, f64);

impl Prometheus {
    /// With the shipped alert rules. Scrapes these routers, each with a name for its instance. An interval is also the time
    /// limit of a scrape, so it is one that a busy machine keeps.
    pub fn start(at: Ipv4Addr, targets: &[(&str, Ipv4Addr)]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let rules = super::shipped("debian/examples/prometheus-rules.yml");
        let targets: String = targets
            .iter()
            .map(|(name, address)| {
                format!("      - targets: ['{address}:{EXPORTER_PORT}']\n        labels: {{instance: {name}}}\n")
            })
            .collect();
        let config = format!(
            "global:\n  scrape_interval: 3s\n  evaluation_interval: 1s\nrule_files: ['{}']\nscrape_configs:\n  \
             - job_name: routers\n    static_configs:\n{targets}",
            rules.display()
        );
        let file = directory.path().join("prometheus.yml");
        fs::write(&file, config).expect("written");
        let mut command = Command::new(program("prometheus"));
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()));
        command.arg(format!("--web.listen-address={at}:{PROMETHEUS_PORT}"));
        command.arg("--log.level=warn").stdin(Stdio::null());
        let running = Running(command.spawn().expect("prometheus"));
        let prometheus = Self { at, _running: running, _directory: directory };
        wait_for("Prometheus is ready", START, || prometheus.get("/-/ready").filter(|(status, _)| *status == 200));
        prometheus
    }

    /// The series that an expression has now.
    ///
    /// # Panics
    /// If Prometheus does not accept it.
    pub fn query(&self, expression: &str) -> Vec<Series> {
        let answer = self.api(&format!("/api/v1/query?query={}", encoded(expression)));
        let result = answer["result"].as_array().unwrap_or_else(|| panic!("{expression}: {answer}"));
        let value = |series: &Value| series["value"][1].as_str().and_then(|value| value.parse().ok());
        result.iter().map(|series| (series["metric"].clone(), value(series).expect("a value"))).collect()
    }

    /// The value of the one series that an expression has.
    ///
    /// # Panics
    /// If it has more.
    pub fn value(&self, expression: &str) -> Option<f64> {
        let found = self.query(expression);
        assert!(found.len() < 2, "{expression}: {found:?}");
        Some(found.first()?.1)
    }

    /// The alert rules, each with its health.
    pub fn rules(&self) -> Vec<(String, String)> {
        let answer = self.api("/api/v1/rules");
        let groups = answer["groups"].as_array().cloned().unwrap_or_default();
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        rules.map(|rule| (text(&rule["name"]), text(&rule["health"]))).collect()
    }

    fn api(&self, path: &str) -> Value {
        let (status, body) = self.get(path).expect("an answer of Prometheus");
        let answer: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"));
        assert_eq!((status, &answer["status"]), (200, &Value::from("success")), "{path}: {body}");
        answer["data"].clone()
    }

    fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect((self.at, PROMETHEUS_PORT)).ok()?;
        stream.set_read_timeout(Some(START)).ok()?;
        // HTTP/1.0 has no chunks.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: prometheus\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }
}

/// As a value in a URL.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
