//! Who owns what, in VRRP, in the kernel and in EC2, as values and as text: the status, the history, the timelines of failovers, the readiness check,
//! what `force` came to, and the IAM policy.

pub mod check;
pub mod clock_skew;
pub mod command;
pub mod failover;
pub mod force;
pub mod group;
pub mod history;
pub mod iam_policy;
pub mod live;
pub mod metrics;
pub mod model;
pub mod offline;
pub mod proof;
pub mod reasons;
pub mod remedies;
pub mod status;
