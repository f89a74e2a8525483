//! systemd: units and the journal.

pub(crate) mod journal;
pub(crate) mod log_throttle;
pub(crate) mod systemctl;
