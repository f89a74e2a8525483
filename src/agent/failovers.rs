//! Records the last failovers, from what the state machine reports and does.
//!
//! failovers.json grows with the groups and with their failed attempts, and is written as a whole. A transition and the read
//! that confirms the new owner are written with the other changes of their half second. The attempts between them wait up to
//! a minute for the next write: while EC2 fails, there is one a minute on their account, however many groups claim. A crash
//! of the agent loses at most that minute of attempts.

use std::time::Duration;

use vipa_core::claim::BootInstant;
use vipa_core::model::ec2::{Acknowledgement, CallError};
use vipa_core::model::failover::Transition;
use vipa_core::model::ids::{GroupName, RequestId};
use vipa_core::model::resource::Resource;
use vipa_core::report::failover::{self, FailoverReport};
use vipa_core::report::model::GroupReport;

use super::Agent;
use super::state::Urgency;
use crate::fs::json_file::FORMAT;

impl Agent<'_> {
    /// The state of a group has changed.
    pub(super) fn record_transition(&mut self, at: BootInstant, group: &GroupName, transition: Transition<'_>) {
        let now = self.of_both_kinds(at);
        let machine = &self.machine;
        self.state.failovers.change_if(|failovers| {
            let is_failover =
                failovers.transition(&now, group, transition, || machine.resources_of_group(group).to_vec());
            is_failover.then_some(Urgency::Soon)
        });
    }

    /// Claims are sent.
    pub(super) fn record_request(&mut self, at: BootInstant, resources: &[Resource]) {
        let now = self.of_both_kinds(at);
        let machine = &self.machine;
        self.state.failovers.change_if(|failovers| {
            let mut is_first = false;
            for resource in resources {
                is_first |= machine.group_of(resource).is_some_and(|group| failovers.requested(&now, group, resource));
            }
            is_first.then_some(Urgency::Later)
        });
    }

    /// Claims have ended.
    pub(super) fn record_claim(
        &mut self,
        at: BootInstant,
        duration: Duration,
        resources: &[Resource],
        result: &Result<Acknowledgement, CallError>,
    ) {
        let now = self.of_both_kinds(at);
        let machine = &self.machine;
        let result = result.as_ref().map(|acknowledged| acknowledged.request_id.as_ref());
        self.state.failovers.change_if(|failovers| {
            let mut counts = false;
            for resource in resources {
                counts |= machine
                    .group_of(resource)
                    .is_some_and(|group| failovers.claimed(&now, duration, group, resource, result));
            }
            counts.then_some(Urgency::Later)
        });
    }

    /// A read has succeeded, and the state machine has handled it: it may have confirmed new owners.
    pub(super) fn record_owners(&mut self, handled_after: BootInstant, request_id: Option<&RequestId>) {
        let (machine, boot) = (&self.machine, &self.boot);
        self.state.failovers.change_if(|failovers| {
            let mut is_first = false;
            for (group, became_master, since, resource) in failovers.unconfirmed(boot) {
                let since = BootInstant::after_boot(since);
                let Some((read, owner)) = machine.new_owner(&resource, became_master, since) else { continue };
                // The read may be an earlier one.
                let request_id = request_id.filter(|_| read >= handled_after);
                is_first |= failovers.confirmed(boot, read.since_boot(), &group, &resource, owner, request_id);
            }
            is_first.then_some(Urgency::Soon)
        });
    }

    /// The timelines of the last failovers.
    pub(super) fn failovers(&self) -> FailoverReport {
        let report = self.report(0);
        let group = |group: &GroupReport| {
            let name = GroupName::try_from(group.name.as_str()).ok();
            failover::group(group, name.and_then(|name| self.state.failovers.get().of(&name)))
        };
        FailoverReport {
            format: FORMAT,
            generated_at: report.generated_at,
            groups: report.groups.iter().map(group).collect(),
        }
    }
}
