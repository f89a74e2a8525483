//! When the kernel's routes are read, which show what the paths to EC2 and IMDS depend on: with each regular read, and after
//! each transition, because the source of a path may have been a virtual address.

use std::mem;
use std::time::Duration;

use super::Machine;
use crate::claim::BootInstant;
use crate::claim::event::{Action, Cause, LogEvent};
use crate::model::ids::GroupName;
use crate::model::path::LocalNetwork;
use crate::model::vrrp::VrrpState;

/// A read comes this long after a transition: keepalived adds or removes the addresses some milliseconds before or after it.
/// Transitions of many groups within this time share two reads.
const READ_DELAY: Duration = Duration::from_millis(200);

/// The reads that transitions have requested.
#[derive(Debug, Default)]
pub(super) struct NetworkReads {
    pub(super) due: Option<BootInstant>,
    /// There was another transition since the read was requested.
    again: bool,
    /// There was a transition since the last read.
    is_outdated: bool,
}

impl Machine {
    /// Logs that the state of a group has changed, and requests a read.
    pub(super) fn transition(
        &mut self,
        now: BootInstant,
        group: GroupName,
        from: VrrpState,
        to: VrrpState,
        cause: Cause,
    ) {
        let reads = &mut self.network_reads;
        reads.again = reads.due.is_some();
        reads.due.get_or_insert(now + READ_DELAY);
        reads.is_outdated = true;
        self.log(LogEvent::Transition { group, from, to, cause });
    }

    pub(super) fn send_network_read(&mut self, now: BootInstant) {
        let reads = &mut self.network_reads;
        if reads.due.is_some_and(|due| due <= now) {
            reads.due = mem::take(&mut reads.again).then(|| now + READ_DELAY);
            self.actions.push(Action::ReadNetwork);
        }
    }

    pub(super) fn network_read(&mut self, network: LocalNetwork) {
        self.network = network;
        self.network_reads.is_outdated = self.network_reads.due.is_some();
        self.update_network();
    }

    /// Whether a transition may have ended what a path depends on.
    pub(in crate::claim) fn may_have_other_paths(&self) -> bool {
        self.network_reads.is_outdated
    }
}
