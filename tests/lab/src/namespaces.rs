//! The namespaces of a test: it runs itself again in new ones, as root of them.

use std::any::type_name;
use std::env;
use std::io;
use std::path::Path;
use std::process::{Command, Output, Stdio};

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

/// Runs a program with these arguments.
///
/// # Panics
/// If it fails.
pub(crate) fn call(line: &str) {
    let mut words = line.split(' ');
    output(Command::new(words.next().expect("a program")).args(words));
}
