//! systemd: units, the journal, and the credentials file for the agent.

pub mod credentials;
pub(crate) mod journal;
pub(crate) mod log_throttle;
pub(crate) mod systemctl;
