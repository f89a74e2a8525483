//! Every path that the product reads or writes, in one place.

use std::env;
use std::path::PathBuf;

/// The paths of one router.
///
/// What is below `run` is made by root, readable by the agent's user and writable by root alone: keepalived includes a
/// file from there, and whoever could write that file would run programs as root.
#[derive(Debug, Clone)]
pub struct Paths {
    /// What the operator asked for ([`vipa_core::model::config::Config`]).
    pub config: PathBuf,
    /// What keepalived runs ([`vipa_core::keepalived::groups::Groups`]).
    pub groups: PathBuf,
    /// The transition hook: a `global_defs` block with `vrrp_notify_fifo`, included by keepalived.conf.
    pub include: PathBuf,
    /// The FIFO that keepalived writes its transitions to.
    pub fifo: PathBuf,
    /// The directory of the four above.
    pub run: PathBuf,
    /// Warnings that `commit` has printed, so that one commit does not print them once a group.
    pub warned: PathBuf,
    /// The configuration of keepalived, as VyOS renders it (vyos-1x src/conf_mode/high-availability.py).
    pub keepalived_conf: PathBuf,
    /// The process id of keepalived's main process.
    pub keepalived_pid: PathBuf,
    /// The process id of its VRRP child: keepalived's own default, which VyOS does not change.
    pub keepalived_vrrp_pid: PathBuf,
    /// The agent's control socket.
    pub socket: PathBuf,
    /// Where the agent keeps what outlives it (StateDirectory of its unit).
    pub state: PathBuf,
    /// Units that are there until the next boot (systemd.unit(5)).
    pub units: PathBuf,
    /// Which state of the credentials file the agent was started with ([`crate::systemd::credentials::Handed`]).
    pub handed: PathBuf,
    /// Where systemd puts the agent's copies of files that root alone may read: `$CREDENTIALS_DIRECTORY` (systemd.exec(5),
    /// "Credentials"), which only the agent has.
    pub copies: Option<PathBuf>,
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
            handed: run.join("handed.json"),
            run,
            keepalived_conf: "/run/keepalived/keepalived.conf".into(),
            keepalived_pid: "/run/keepalived/keepalived.pid".into(),
            keepalived_vrrp_pid: "/run/vrrp.pid".into(),
            socket: "/run/vyos-aws-vipa-agent/agent.sock".into(),
            state: "/var/lib/vyos-aws-vipa".into(),
            units: "/run/systemd/system".into(),
            copies: env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
        }
    }
}
