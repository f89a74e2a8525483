//! Every path that the product reads or writes.

use std::path::PathBuf;

/// The paths of one router.
///
/// The files below `run` are writable by root alone: keepalived includes one of them, so whoever could write it could run
/// programs as root. Everyone may read them, except the lock, and the FIFO and the copy of the credentials file, which only
/// the agent may.
#[derive(Debug, Clone)]
pub struct Paths {
    /// The configuration of the `aws-vipa` nodes ([`vipa_core::model::config::Config`]).
    pub config: PathBuf,
    /// The groups that keepalived runs ([`vipa_core::keepalived::groups::Groups`]).
    pub groups: PathBuf,
    /// The transition hook: a `global_defs` block with `vrrp_notify_fifo`, included by keepalived.conf.
    pub include: PathBuf,
    /// The FIFO that keepalived writes its transitions to.
    pub fifo: PathBuf,
    /// The directory of all of the product's files except the agent's socket and state.
    pub run: PathBuf,
    /// The warnings that the current commit has printed, so that it does not repeat them for each group.
    pub warned: PathBuf,
    /// Which calls of the current commit have nothing left to do ([`crate::commands::repeated_call`]).
    pub calls: PathBuf,
    /// The file that a call of `commit` holds locked while it changes anything. Only root may open it, and so lock it.
    pub lock: PathBuf,
    /// The file that a commit of VyOS holds locked (vyatta-cfg src/cstore/unionfs/cstore-unionfs.cpp).
    pub commit_lock: PathBuf,
    /// The file that a commit of VyOS makes at its start and removes at its end (vyatta-cfg src/cli_objects.c).
    pub commit_marker: PathBuf,
    /// keepalived's configuration, as VyOS renders it (vyos-1x src/conf_mode/high-availability.py).
    pub keepalived_conf: PathBuf,
    /// The pid file of keepalived's main process.
    pub keepalived_pid: PathBuf,
    /// The pid file of its VRRP child: keepalived's default, which VyOS does not change.
    pub keepalived_vrrp_pid: PathBuf,
    /// The agent's control socket.
    pub socket: PathBuf,
    /// The agent's metrics ([`vipa_core::report::metrics`]), which everyone may read.
    pub metrics: PathBuf,
    /// The agent's state files (StateDirectory of its unit).
    pub state: PathBuf,
    /// The agent's copy of the credentials file ([`crate::fs::credentials_file::CredentialsCopy`]).
    pub credentials: PathBuf,
}

impl Paths {
    /// The paths on a router.
    pub fn system() -> Self {
        let run = PathBuf::from("/run/vyos-aws-vipa");
        Self {
            config: run.join("config.json"),
            groups: run.join("groups.json"),
            include: run.join("keepalived.conf"),
            fifo: run.join("notify.fifo"),
            warned: run.join("warned.json"),
            calls: run.join("calls.json"),
            lock: run.join("lock"),
            commit_lock: "/opt/vyatta/config/.lock".into(),
            commit_marker: "/var/tmp/in_commit".into(),
            credentials: run.join("credentials.json"),
            run,
            keepalived_conf: "/run/keepalived/keepalived.conf".into(),
            keepalived_pid: "/run/keepalived/keepalived.pid".into(),
            keepalived_vrrp_pid: "/run/vrrp.pid".into(),
            socket: "/run/vyos-aws-vipa-agent/agent.sock".into(),
            metrics: "/run/vyos-aws-vipa-agent/metrics.prom".into(),
            state: "/var/lib/vyos-aws-vipa".into(),
        }
    }
}
