//! The processor time of a test, which does not depend on the load of the machine.

use std::fs;
use std::time::Duration;

/// The processor time of this thread, from /proc/thread-self/schedstat.
///
/// # Panics
/// If the kernel does not count it.
pub(crate) fn time() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("the kernel counts it");
    Duration::from_nanos(text.split(' ').next().and_then(|n| n.parse().ok()).expect("a number"))
}
