//! The operational commands, run as programs, with the simulator if they call AWS.

mod arguments;
mod failover;
mod force;
mod iam_policy;
mod router;
mod show_check;
mod show_status;
