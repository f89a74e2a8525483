//! Who owns what, in VRRP, in the kernel and in EC2: the answer to `show aws-vipa status`, and what `force` did about it.

pub mod command;
pub mod force;
pub mod group;
pub mod history;
pub mod report;
pub mod table;
pub mod without_agent;
