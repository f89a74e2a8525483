//! The texts of keepalived: the configuration that VyOS renders, the include that attaches the hook, and notify lines.

pub mod conf;
pub mod groups;
pub mod include;
pub mod notify_line;
mod statements;
