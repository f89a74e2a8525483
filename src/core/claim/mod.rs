//! Claiming addresses, routes and Elastic IPs: a state machine without I/O, clock or tasks.

mod backoff;
mod boot_instant;
mod event;
mod facts;
mod flap_damping;
mod group;
mod local_address;
mod machine;
mod obstacles;
mod permission;
mod read_schedule;
mod readiness;
mod reason;
mod resource;

pub use boot_instant::BootInstant;
pub use event::{
    Action, Cause, ClaimId, ClaimRequest, DryRunId, DryRunRequest, Event, Inspection, LogEvent, Misplaced, PutBy,
    ReadAnswer, ReadId, ReadRequest, RestoredState,
};
pub use facts::{GroupFacts, LocalAddressFacts, ResourceFacts};
pub use machine::Machine;
pub use obstacles::{
    Dependence, DependentPath, EniElsewhere, NoPrivateAddress, NoRoom, NoSuchEni, PrimaryAddress, Room, Unassignable,
    drops_packets,
};
pub use reason::{EniUnknown, Explanation, FailedClaim, LastOwner, NotRead, Obstacle, Reason, RequestRefusal};
pub use resource::{LastClaim, OwnerRead};
