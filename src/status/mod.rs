//! Who owns what, in VRRP, in the kernel and in EC2: the answer to `show aws-vipa status`.

pub mod command;
pub mod report;
pub mod table;
pub mod without_agent;
