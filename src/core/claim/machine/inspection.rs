//! What the regular reads do not show, although the readiness of a standby depends on it: how many addresses an ENI can have;
//! the ENIs that `network-interface-id` names and no interface of this router has; and whether EC2 has an ENI that a regular read
//! did not show. All of them are read at the start, after a change of the configuration or the credentials, and once a day; an ENI
//! that a regular read does not show, at once, and while EC2 does not have it, again and again.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::Machine;
use crate::claim::event::{Action, Inspection, ReadAnswer};
use crate::claim::obstacles::NoSuchEni;
use crate::claim::resource::ResourceState;
use crate::claim::{BootInstant, permission};
use crate::model::ec2::{CallError, Interface};
use crate::model::ids::EniId;
use crate::model::resource::Kind;
use crate::model::vrrp::VrrpState;

/// When it is read next.
#[derive(Debug, Default)]
pub(in crate::claim) struct InspectionSchedule {
    limit: Attempts,
    enis: Attempts,
    /// The ENIs that the one in flight describes.
    in_flight: Option<Vec<EniId>>,
}

impl InspectionSchedule {
    pub(super) fn request(&mut self, now: BootInstant) {
        self.limit.request(now, self.in_flight.is_some());
        self.request_enis(now);
    }

    pub(in crate::claim) fn request_enis(&mut self, now: BootInstant) {
        self.enis.request(now, self.in_flight.is_some());
    }
}

/// When one part of it is read next.
#[derive(Debug, Default)]
struct Attempts {
    due: BootInstant,
    /// It was requested again while one was in flight.
    is_outdated: bool,
    /// The number of consecutive answers that may become others by themselves.
    failed: u32,
}

impl Attempts {
    fn request(&mut self, now: BootInstant, in_flight: bool) {
        *self = Self { due: now, is_outdated: in_flight, failed: 0 };
    }

    /// `may_pass`: another attempt may soon show something else.
    fn ended(&mut self, now: BootInstant, may_pass: bool, rng: &mut Rng) {
        if !self.is_outdated {
            let delay = if may_pass { permission::retry_delay(self.failed, rng) } else { permission::next_day(rng) };
            self.due = now + delay;
            self.failed = if may_pass { self.failed.saturating_add(1) } else { 0 };
        }
    }
}

/// What is to be read.
struct InspectionNeeds {
    limit: bool,
    enis: Vec<EniId>,
}

impl Machine {
    pub(super) fn send_inspection(&mut self, now: BootInstant) {
        if self.next_inspection().is_none_or(|due| due > now) {
            return;
        }
        let InspectionNeeds { limit, mut enis } = self.wants_inspection();
        let schedule = &mut self.inspection;
        let wants_limit = limit && schedule.limit.due <= now;
        if schedule.enis.due > now {
            enis.clear();
        }
        (schedule.limit.is_outdated, schedule.enis.is_outdated) = (false, false);
        schedule.in_flight = Some(enis.clone());
        let timeout = self.config.global.request_timeout.duration();
        self.actions.push(Action::Inspect { wants_limit, enis, timeout });
    }

    /// When the next inspection is sent, unless something else comes first.
    pub(super) fn next_inspection(&self) -> Option<BootInstant> {
        let schedule = &self.inspection;
        if schedule.in_flight.is_some() || !self.claims.is_empty() {
            return None;
        }
        let InspectionNeeds { limit, enis } = self.wants_inspection();
        let due = [limit.then_some(schedule.limit.due), (!enis.is_empty()).then_some(schedule.enis.due)];
        due.into_iter().flatten().min()
    }

    /// What a standby lacks; a master does not need it.
    fn wants_inspection(&self) -> InspectionNeeds {
        let is_standby = |resource: &ResourceState| {
            self.groups.get(&resource.group).is_some_and(|g| g.acts() && g.state.vrrp() == VrrpState::Backup)
        };
        let mut needs = InspectionNeeds { limit: false, enis: Vec::new() };
        for (id, resource) in self.resources.iter().filter(|(_, resource)| is_standby(resource)) {
            let Some(eni) = &resource.eni else { continue };
            needs.limit |= id.kind() == Kind::Address && self.address_limit.is_none();
            let is_unknown = self.unseen.contains_key(eni) || self.primary_of(eni, resource).is_none();
            if is_unknown && !needs.enis.contains(eni) {
                needs.enis.push(eni.clone());
            }
        }
        needs
    }

    pub(super) fn inspected(&mut self, now: BootInstant, inspection: Inspection) {
        let enis = self.inspection.in_flight.take().unwrap_or_default();
        if let Some(limit) = inspection.limit {
            let may_pass = limit.as_ref().is_err_and(|error| !error.is_refusal());
            self.inspection.limit.ended(now, may_pass, &mut self.rng);
            self.address_limit = limit.ok();
        }
        if let Some(interfaces) = inspection.interfaces {
            let may_pass = self.enis_inspected(now, &enis, interfaces);
            self.inspection.enis.ended(now, may_pass, &mut self.rng);
        }
        self.update_enis();
    }

    /// What an inspection shows of these ENIs. Returns whether another one may soon show something else: EC2 shows a new ENI
    /// only after a while.
    fn enis_inspected(
        &mut self,
        now: BootInstant,
        enis: &[EniId],
        result: Result<BTreeMap<EniId, Interface>, CallError>,
    ) -> bool {
        let interfaces = match result {
            Ok(interfaces) => interfaces,
            Err(error) if error.is_refusal() => {
                // Nothing is known of those that the last read did not show.
                self.enis.retain(|eni, _| !self.unseen.contains_key(eni));
                return false;
            }
            Err(_) => return true,
        };
        for eni in enis {
            let is_configured = self.resources.values().any(|resource| resource.planned.eni.as_ref() == Some(eni));
            if let Err(absent) = NoSuchEni::or_interface(eni, &interfaces, is_configured) {
                self.enis.remove(eni);
                self.attachments.remove(eni);
                self.unseen.insert(eni.clone(), Some(absent));
            }
        }
        let described: Vec<EniId> = interfaces.keys().cloned().collect();
        self.learn_enis(now, &[], &described, false, &mut ReadAnswer { interfaces, ..ReadAnswer::default() });
        self.log_attachments();
        self.unseen.values().any(Option::is_some)
    }
}
