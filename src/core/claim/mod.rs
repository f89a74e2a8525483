//! Claiming addresses, routes and Elastic IPs: a state machine without I/O, clock or tasks.

mod backoff;
mod boot_instant;
mod event;
mod facts;
mod flap_damping;
mod group;
mod local_address;
mod machine;
mod permission;
mod read_schedule;
mod readiness;
mod reason;
mod resource;

pub use boot_instant::BootInstant;
pub use event::{
    Action, Cause, ClaimId, ClaimRequest, DryRunId, DryRunRequest, Event, LogEvent, Misplaced, PutBy, ReadId,
    ReadRequest, RestoredState,
};
pub use facts::{GroupFacts, LocalAddressFacts, ResourceFacts};
pub use machine::Machine;
pub use reason::{
    EniElsewhere, EniUnknown, Explanation, LastOwner, NotRead, Obstacle, PrimaryAddress, Reason, Refusal,
    RequestRefusal,
};
pub use resource::{LastClaim, OwnerRead};
