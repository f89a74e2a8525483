//! VRRP virtual addresses of VyOS routers in AWS: `vyos-aws-vipa` claims them in EC2 when the router becomes master.

pub mod agent;
pub mod arguments;
pub mod aws;
pub mod check;
pub mod claim;
pub mod commands;
pub mod config;
pub mod control;
pub mod fifo;
pub mod files;
pub mod iam;
pub mod keepalived;
pub mod kernel;
pub mod load_credential;
pub mod logging;
pub mod names;
pub mod operator_file;
pub mod ownership;
pub mod paths;
pub mod plan;
pub mod printable;
pub mod state;
pub mod status;
pub mod systemctl;
pub mod vyos;
pub mod watch;
