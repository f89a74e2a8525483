//! keepalived's texts: the configuration that VyOS renders, the `include` line that attaches the hook, and the lines of
//! the notify FIFO.

pub mod conf;
pub mod groups;
pub mod include;
pub mod notify_line;
mod statements;
