//! The decisions of vyos-aws-vipa: the model, the parsers for keepalived's texts, VyOS's input and its verification,
//! the claim state machine, and the reports.
//!
//! Architecture invariant: nothing in this crate does I/O, reads a clock, runs a task or uses the AWS SDK. Every
//! function takes all its inputs, including the time, as arguments, and returns what is to be done.

pub mod claim;
pub mod keepalived;
pub mod model;
pub mod printable;
pub mod report;
pub mod vyos;

/// The format of every file and message that this version writes, and the newest one that it reads.
pub const FORMAT: u64 = 1;
