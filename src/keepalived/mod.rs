//! The running keepalived: its FIFO, its processes, and their liveness.

#[cfg(test)]
mod compared;
pub mod fifo;
pub mod hook_files;
pub mod liveness;
pub mod process;
