//! Tests that need a network, processes or mounts of their own: the test runs itself again in new namespaces.

use std::env;
use std::process::Command;

/// Set for the process inside.
const INSIDE: &str = "TEST_INSIDE_NAMESPACE";

/// Whether the caller is inside already. If not, the test of this name has been run inside, and the caller returns.
/// `flags` are those of unshare(1); an ordinary user may use them where user namespaces are allowed.
///
/// # Panics
/// If the test fails inside.
pub(crate) fn inside(test: &str, flags: &[&str]) -> bool {
    if env::var_os(INSIDE).is_some() {
        return true;
    }
    let status = Command::new("unshare")
        .args(flags)
        .arg(env::current_exe().expect("our own file"))
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .expect("unshare(1) of util-linux");
    assert!(status.success(), "{test} in a namespace (unshare {}): {status}", flags.join(" "));
    false
}

/// Runs `ip` with these words.
///
/// # Panics
/// If it fails.
pub(crate) fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status().expect("ip(8) of iproute2");
    assert!(status.success(), "ip {words}: {status}");
}
