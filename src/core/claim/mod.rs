//! Claiming addresses: a state machine without I/O, clock or tasks.

mod address;
mod backoff;
mod boot_instant;
mod event;
mod facts;
mod flap_damping;
mod group;
mod machine;
mod read_schedule;
mod readiness;
mod reason;

pub use address::{LastClaim, OwnerRead};
pub use boot_instant::BootInstant;
pub use event::{Action, Cause, ClaimId, Event, LogEvent, Misplaced, PutBy, ReadId, RestoredState};
pub use facts::{AddressFacts, GroupFacts};
pub use machine::Machine;
pub use reason::{
    EniElsewhere, EniUnknown, Explanation, LastOwner, NotRead, Obstacle, PrimaryAddress, Reason, Refusal,
    RequestRefusal,
};
