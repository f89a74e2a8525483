//! The running keepalived: its FIFO, its processes, and whether it holds the hook.

#[cfg(test)]
mod compared;
pub mod fifo;
pub mod hook_files;
pub mod liveness;
pub mod process;
