//! The running keepalived: its FIFO, its processes, and whether it holds the hook.

pub mod attachment;
#[cfg(test)]
mod compared;
pub mod fifo;
pub mod liveness;
