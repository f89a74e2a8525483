//! Skips the calls of a commit that have nothing left to do.
//!
//! VyOS calls the owner script once for each node of this package that a commit changes, and every call sees the same
//! proposed and effective configuration. The first call that succeeds applies all of it, and records which calls would then
//! change nothing and print nothing. Such a call ends before it starts Python or reads the configuration.
//!
//! **Invariant:** a call is skipped only if all of this holds; if any part is in doubt, the call is made in full.
//!
//! - It belongs to the same commit as the call that made the record. A commit is identified by the process that holds VyOS's
//!   commit lock and is an ancestor of the call, by the start time of that process, and by the file that marks the commit:
//!   one process at a time has the lock, VyOS starts a process for each commit, and an aborted commit ends with its process.
//!   A call outside of the commit, by another session or by hand, has no such ancestor. In VyOS's daemons, which serve all
//!   commits, the id comes from the script, which stores it in the configuration object that the daemon makes anew for each
//!   commit.
//! - The last call that passed verification succeeded, and left keepalived in the wanted state.
//! - The nodes that it is called for have no error, and no warning that was not printed yet.
//! - Everything else that a call reads or changes is unchanged since that call: this package's files, keepalived's files and
//!   process, whether it has the FIFO open, the kernel's interfaces and their addresses. The exceptions are the addresses of
//!   the groups and VRRP's own interfaces, which keepalived adds and removes at any time. If VyOS's owner script of
//!   high-availability has rewritten keepalived.conf since, the call is made in full.
//!   Not compared: the files that the operator names (the timer copies the credentials file within 30 s), and the agent's
//!   socket and unit (systemd starts it again).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{major, minor};
use serde::{Deserialize, Serialize};
use vipa_core::model::config::Config;
use vipa_core::vyos::input::{CalledFor, Input};
use vipa_core::vyos::verify::{CommitCall, virtual_addresses};

use super::commit::{CommitError, interfaces};
use crate::fs::json_file;
use crate::fs::operator_file::FileFingerprint;
use crate::keepalived::process::{KeepalivedProcess, ProcessStat};
use crate::paths::Paths;

/// More ancestors than a call of VyOS has.
const MAX_ANCESTORS: usize = 64;

/// The record of the last successful call.
#[derive(Debug, Serialize, Deserialize)]
struct CallRecord {
    commit: String,
    /// The calls with nothing left to do.
    done: BTreeSet<CalledFor>,
    state: HostSnapshot,
    /// The addresses that `state` leaves out.
    virtual_addresses: BTreeSet<Ipv4Addr>,
}

/// What a call reads besides VyOS's configuration, and what it changes.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct HostSnapshot {
    files: Vec<FileFingerprint>,
    /// The FIFO without its times, which change when it is written to.
    fifo: Option<(u64, u32, u32, u32)>,
    keepalived: Option<KeepalivedProcess>,
    is_attached: bool,
    interfaces: BTreeMap<String, Vec<String>>,
}

impl HostSnapshot {
    fn now(paths: &Paths, virtual_addresses: &BTreeSet<Ipv4Addr>) -> io::Result<Self> {
        let files = [
            &paths.config,
            &paths.groups,
            &paths.include,
            &paths.warned,
            &paths.credentials,
            &paths.keepalived_conf,
            &paths.keepalived_pid,
        ];
        let keepalived = KeepalivedProcess::running(&paths.keepalived_pid);
        let mut interfaces = interfaces();
        interfaces.retain(|name, _| !is_of_vrrp(name));
        let is_virtual = |with_prefix: &str| {
            with_prefix.split('/').next().and_then(|a| a.parse().ok()).is_some_and(|a| virtual_addresses.contains(&a))
        };
        for addresses in interfaces.values_mut() {
            addresses.retain(|address| !is_virtual(address));
            addresses.sort_unstable();
        }
        Ok(Self {
            files: files.map(|path| FileFingerprint::at(path)).to_vec(),
            fifo: fs::metadata(&paths.fifo).ok().map(|m| (m.ino(), m.mode(), m.uid(), m.gid())),
            is_attached: keepalived.map_or(Ok(false), |keepalived| keepalived.has_open(&paths.fifo))?,
            keepalived,
            interfaces,
        })
    }
}

/// Whether it is a name that VyOS gives to an interface with the virtual MAC address of a group: `eth0v10v4` (vyos-1x
/// data/templates/high-availability/keepalived.conf.j2).
fn is_of_vrrp(interface: &str) -> bool {
    let vrid = interface.strip_suffix("v4").or_else(|| interface.strip_suffix("v6"));
    let vrid = vrid.and_then(|rest| rest.rsplit_once('v')).map(|(_, vrid)| vrid);
    vrid.is_some_and(|vrid| !vrid.is_empty() && vrid.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether the call for these nodes, in the commit with this id, has nothing left to do.
pub fn has_nothing_left(paths: &Paths, commit: &str, called_for: &CalledFor) -> bool {
    json_file::read::<CallRecord>(&paths.calls).is_ok_and(|calls| {
        calls.commit == commit
            && calls.done.contains(called_for)
            && HostSnapshot::now(paths, &calls.virtual_addresses).is_ok_and(|state| state == calls.state)
    })
}

/// Removes the record before anything is changed, so that all later calls are made in full.
///
/// # Errors
/// [`CommitError::Remove`].
pub(super) fn forget(paths: &Paths) -> Result<(), CommitError> {
    match fs::remove_file(&paths.calls) {
        Err(source) if !matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(CommitError::Remove { path: paths.calls.clone(), source })
        }
        _ => Ok(()),
    }
}

/// Records, after a successful call, which calls of its commit have nothing left to do. `shown` are the warnings that were
/// printed, `config` is the applied configuration. After any failure, or if config.json has been changed since, the later
/// calls are made in full. The caller holds the lock, so no call outside of the commit changes anything meanwhile.
pub(super) fn remember(
    paths: &Paths,
    input: &Input,
    calls: Vec<CommitCall>,
    shown: &BTreeSet<String>,
    config: &Config,
) {
    let Some(commit) = input.commit.clone().or_else(|| running_commit(paths)) else {
        return;
    };
    let done: BTreeSet<CalledFor> = calls
        .into_iter()
        .filter(|call| !call.has_errors && call.warnings.iter().all(|warning| shown.contains(warning)))
        .map(|call| call.called_for)
        .collect();
    let virtual_addresses = virtual_addresses(input);
    let Ok(state) = HostSnapshot::now(paths, &virtual_addresses) else {
        return;
    };
    let is_in_force = match json_file::read::<Config>(&paths.config) {
        Ok(found) => found == *config,
        Err(_) => config.is_empty() && !paths.config.exists(),
    };
    if !is_in_force
        || state.keepalived.is_some() && state.is_attached == config.is_empty()
        || done.is_empty()
        || !paths.run.is_dir()
    {
        return;
    }
    // Without the record the calls are made in full, which does no harm.
    let _ = json_file::write(&paths.calls, 0o644, &CallRecord { commit, done, state, virtual_addresses });
}

/// The id of the commit that this process runs for: the process that holds VyOS's commit lock, if it is an ancestor.
pub fn running_commit(paths: &Paths) -> Option<String> {
    let holders = lock_holders(paths).ok()?;
    let marker = fs::symlink_metadata(&paths.commit_marker).ok()?;
    let mut pid = std::process::id();
    for _ in 0..MAX_ANCESTORS {
        let stat = ProcessStat::read(pid).ok()?;
        if holders.contains(&pid) {
            let (inode, made, nanoseconds) = (marker.ino(), marker.ctime(), marker.ctime_nsec());
            return Some(format!("{pid} {} {inode} {made}.{nanoseconds}", stat.start_time));
        }
        pid = stat.parent;
    }
    None
}

/// The processes that hold the commit lock (proc_locks(5)); a line with `->` is a process that waits for it.
fn lock_holders(paths: &Paths) -> io::Result<BTreeSet<u32>> {
    let lock = fs::metadata(&paths.commit_lock)?;
    let file = format!("{:02x}:{:02x}:{}", major(lock.dev()), minor(lock.dev()), lock.ino());
    let locks = fs::read_to_string("/proc/locks")?;
    let holder = |line: &str| match line.split_ascii_whitespace().collect::<Vec<_>>()[..] {
        [_, "POSIX", _, "WRITE", pid, place, ..] if place == file => pid.parse().ok(),
        _ => None,
    };
    Ok(locks.lines().filter_map(holder).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_of_vrrp_is_known_by_its_name() {
        for name in ["eth0v10v4", "bond0.20v255v6"] {
            assert!(is_of_vrrp(name), "{name}");
        }
        for name in ["eth0", "veth4", "v4", "vv4", "eth0v4", "eth0v1xv4", "br0v10"] {
            assert!(!is_of_vrrp(name), "{name}");
        }
    }
}
