//! Tests that need a network, processes or mounts of their own: the test runs itself again in new namespaces.

use std::env;
use std::process::Command;

/// Set for the process inside.
const INSIDE: &str = "TEST_INSIDE_NAMESPACE";

/// Replaces the installed keepalived by that of `$VIPA_KEEPALIVED_ROOT`.
const REPLACE_KEEPALIVED: &str = "for path in /usr/sbin/keepalived /etc/keepalived; do \
    mount --bind \"$VIPA_KEEPALIVED_ROOT$path\" $path || exit; done; exec \"$@\"";

/// Whether these options of unshare(1) ask for a mount namespace.
fn is_of_mounts(flag: &str) -> bool {
    !flag.starts_with("--") && flag.contains('m')
}

/// Whether the caller is already inside. If not, this runs the test of this name inside, and the caller must return.
/// `flags` are those of unshare(1); an ordinary user may use them where user namespaces are allowed.
///
/// # Panics
/// If the test fails inside.
pub(crate) fn inside(test: &str, flags: &[&str]) -> bool {
    if env::var_os(INSIDE).is_some() {
        return true;
    }
    let mut unshare = Command::new("unshare");
    unshare.args(flags);
    // As tests/lab does.
    if env::var_os("VIPA_KEEPALIVED_ROOT").is_some() && flags.iter().any(|flag| is_of_mounts(flag)) {
        unshare.args(["sh", "-c", REPLACE_KEEPALIVED, "sh"]);
    }
    let status = unshare
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
