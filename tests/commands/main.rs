//! The operational commands, each run as it is and against the simulator where it asks AWS.

mod arguments;
mod force;
mod iam_policy;
mod router;
mod show_check;
mod show_status;
