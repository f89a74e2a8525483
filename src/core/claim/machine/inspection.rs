//! What the regular reads do not show, although the readiness of a standby depends on it: how many addresses an ENI can have,
//! and the ENIs that `network-interface-id` names and no interface of this router has. They are read at the start, after a
//! change of the configuration or the credentials, and once a day.

use super::Machine;
use crate::claim::event::{Action, Inspection, ReadAnswer};
use crate::claim::resource::ResourceState;
use crate::claim::{BootInstant, permission};
use crate::model::ec2::CallError;
use crate::model::ids::EniId;
use crate::model::resource::Kind;
use crate::model::vrrp::VrrpState;

/// When it is read next.
#[derive(Debug, Default)]
pub(super) struct InspectionSchedule {
    due: BootInstant,
    in_flight: bool,
    /// It was requested again while one was in flight.
    is_outdated: bool,
    /// The number of consecutive failures that may pass by themselves.
    failed: u32,
}

impl InspectionSchedule {
    pub(super) fn request(&mut self, now: BootInstant) {
        self.due = now;
        self.failed = 0;
        self.is_outdated = self.in_flight;
    }
}

/// What is to be read.
struct Wanted {
    limit: bool,
    enis: Vec<EniId>,
}

impl Machine {
    pub(super) fn send_inspection(&mut self, now: BootInstant) {
        if self.inspection.in_flight || self.inspection.due > now || !self.claims.is_empty() {
            return;
        }
        if let Some(Wanted { limit, enis }) = self.wants_inspection() {
            self.inspection.in_flight = true;
            self.inspection.is_outdated = false;
            let timeout = self.config.global.request_timeout.duration();
            self.actions.push(Action::Inspect { wants_limit: limit, enis, timeout });
        }
    }

    /// When the next inspection is sent, unless something else comes first.
    pub(super) fn next_inspection(&self) -> Option<BootInstant> {
        let may_be_sent = !self.inspection.in_flight && self.claims.is_empty();
        (may_be_sent && self.wants_inspection().is_some()).then_some(self.inspection.due)
    }

    /// What a standby lacks; a master does not need it.
    fn wants_inspection(&self) -> Option<Wanted> {
        let is_standby = |resource: &ResourceState| {
            self.groups.get(&resource.group).is_some_and(|g| g.acts() && g.state.vrrp() == VrrpState::Backup)
        };
        let mut wanted = Wanted { limit: false, enis: Vec::new() };
        for (id, resource) in self.resources.iter().filter(|(_, resource)| is_standby(resource)) {
            let Some(eni) = &resource.eni else { continue };
            wanted.limit |= id.kind() == Kind::Address && self.address_limit.is_none();
            if self.primary_of(eni, resource).is_none() && !wanted.enis.contains(eni) {
                wanted.enis.push(eni.clone());
            }
        }
        (wanted.limit || !wanted.enis.is_empty()).then_some(wanted)
    }

    pub(super) fn inspected(&mut self, now: BootInstant, inspection: Inspection) {
        self.inspection.in_flight = false;
        let mut errors: Vec<CallError> = Vec::new();
        match inspection.limit {
            Some(Ok(limit)) => self.address_limit = Some(limit),
            Some(Err(error)) => errors.push(error),
            None => {}
        }
        match inspection.interfaces {
            Some(Ok(interfaces)) => {
                let described: Vec<EniId> = interfaces.keys().cloned().collect();
                let mut answer = ReadAnswer { interfaces, ..ReadAnswer::default() };
                self.learn_enis(&[], &described, false, &mut answer);
                self.log_attachments();
            }
            Some(Err(error)) => errors.push(error),
            None => {}
        }
        self.update_enis();
        let schedule = &mut self.inspection;
        if !schedule.is_outdated {
            let may_pass = errors.iter().any(|error| !error.is_refusal());
            schedule.due = now
                + if may_pass {
                    permission::retry_delay(schedule.failed, &mut self.rng)
                } else {
                    permission::next_day(&mut self.rng)
                };
            schedule.failed = if may_pass { schedule.failed.saturating_add(1) } else { 0 };
        }
    }
}
