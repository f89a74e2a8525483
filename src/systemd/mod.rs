//! systemd: units, the journal, and the credentials file that reaches the agent.

pub mod credentials;
pub mod journal;
pub mod log_throttle;
pub mod systemctl;
