//! Claiming addresses, correctly and fast: the pure core. Nothing in here has a socket, a clock or a task.

mod address;
mod contest;
mod facts;
mod group;
mod machine;
mod message;
mod moment;
mod pace;
mod readiness;
mod reads;

pub use machine::Machine;
pub use message::{Action, Cause, ClaimId, Event, Misplaced, Note, Past, PutBy, ReadId};
pub use moment::Moment;
