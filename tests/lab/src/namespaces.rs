//! The namespaces of a test: it runs itself again in new ones, as root of them.

use std::any::type_name;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Set for the process inside.
const INSIDE: &str = "LAB_INSIDE";

/// New user, network, mount and process id namespaces. An ordinary user may create them if the kernel permits it; some
/// releases of Ubuntu need `sysctl kernel.apparmor_restrict_unprivileged_userns=0` first, or sudo.
const UNSHARE: [&str; 9] =
    ["--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "--"];

/// A process 1 that waits for every orphan, as systemd does. Without it ended processes would stay zombies.
const INIT: [&str; 4] = ["bash", "-c", "\"$@\"; exit $?", "init"];

/// Runs the test function that this is called in, with `scenario` as the whole of it, in namespaces of its own. `F`
/// names the function: the closure's type is called `…::the_test::{{closure}}`.
///
/// # Panics
/// If the scenario fails.
pub(crate) fn inside<F>(scenario: impl FnOnce()) {
    if env::var_os(INSIDE).is_some() {
        return scenario();
    }
    let path = type_name::<F>().trim_end_matches("::{{closure}}");
    let test = path.split_once("::").map_or(path, |(_, test)| test);
    let me = env::current_exe().expect("our own file");
    let status = enter(&me, &[test, "--exact", "--nocapture"]).stdin(Stdio::null()).status();
    let status = status.expect("unshare(1) of util-linux");
    assert!(status.success(), "{test} in namespaces of its own: {status}");
}

/// A command that runs `program` in namespaces of its own.
pub fn enter(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(UNSHARE).args(INIT).arg(program).args(arguments).env(INSIDE, "1");
    command
}

/// Whether this process is in namespaces made by [`enter`].
pub fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// The network and mount namespaces of a separate host. They end when this is dropped.
pub(crate) struct Host {
    /// The process that keeps them.
    holder: Child,
}

impl Host {
    /// # Panics
    /// If there are no namespaces within 10 s.
    pub(crate) fn start(name: &str) -> Self {
        let holder = Command::new("unshare")
            .args(["--net", "--mount", "--", "sleep", "infinity"])
            .stdin(Stdio::null())
            .spawn()
            .expect("unshare(1)");
        let host = Self { holder };
        let ours = fs::read_link("/proc/self/ns/mnt").expect("our namespace");
        let theirs = PathBuf::from(format!("/proc/{}/ns/mnt", host.pid()));
        // unshare(1) has become sleep(1) once both namespaces are there.
        let until = Instant::now() + Duration::from_secs(10);
        let comm = format!("/proc/{}/comm", host.pid());
        while fs::read_to_string(&comm).unwrap_or_default().trim() != "sleep"
            || fs::read_link(&theirs).ok() == Some(ours.clone())
        {
            assert!(Instant::now() < until, "no namespaces for {name} within 10 s");
            sleep(Duration::from_millis(2));
        }
        host
    }

    /// The process that keeps the namespaces.
    pub(crate) fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// The network namespace, as a file.
    pub(crate) fn network_namespace(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.pid()))
    }

    /// A path of the host as this process sees it.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.pid()))
    }

    /// A command to run on the host.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid().to_string(), "--net", "--mount", "--"]);
        command.arg(program).stdin(Stdio::null());
        command
    }

    /// Runs a command on the host, and returns its output.
    ///
    /// # Panics
    /// If it fails.
    pub(crate) fn call(&self, words: &[&str]) -> String {
        output(self.command(words[0]).args(&words[1..]))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// The standard output of a command.
///
/// # Panics
/// If the command fails, with its output.
pub(crate) fn output(command: &mut Command) -> String {
    let output = run(command).unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}: {}", output.status, said(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn run(command: &mut Command) -> io::Result<Output> {
    command.stdin(Stdio::null()).output()
}

/// Both outputs of a command, as text.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Empties a directory for the namespaces in which `call` runs programs; of what is below it, the directories in `needed` stay
/// in their places. Needs `/run` to be theirs.
pub fn empty(directory: &str, needed: &[&Path], call: impl Fn(&[&str])) {
    let kept = format!("/run/lab/kept{directory}");
    call(&["mkdir", "-p", &kept]);
    call(&["mount", "--rbind", directory, &kept]);
    call(&["mount", "-t", "tmpfs", "tmpfs", directory]);
    for needed in needed {
        if let (Ok(below), Some(needed)) = (needed.strip_prefix(directory), needed.to_str()) {
            call(&["mkdir", "-p", needed]);
            call(&["mount", "--rbind", &format!("{kept}/{}", below.display()), needed]);
        }
    }
}

/// Runs a program with these arguments.
///
/// # Panics
/// If it fails.
pub(crate) fn call(line: &str) {
    let mut words = line.split(' ');
    output(Command::new(words.next().expect("a program")).args(words));
}
