//! When dry runs are sent, and what their answers mean. A claim never waits for one: they are sent only while no claim of
//! their kinds is in flight or has used up a part of EC2's rate limit.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Channel, Machine};
use crate::claim::BootInstant;
use crate::claim::event::{Action, DryRunId, DryRunRequest};
use crate::claim::resource::{Phase, ResourceState};
use crate::model::ec2::{CallError, ErrorClass};
use crate::model::ids::EniId;
use crate::model::resource::{Kind, Resource};
use crate::model::vrrp::VrrpState;

/// The most dry runs in flight.
pub(super) const MAX_DRY_RUNS: usize = 2;
/// The shortest time between two dry runs. EC2 counts them like the calls themselves: of its 5 a second they leave 3 to the
/// claims, also if both routers send them.
const DRY_RUN_GAP: Duration = Duration::from_secs(1);
/// The daily dry run ends the refusal of a claim for which the table had no room, if the claim is at least this old.
const FULL_TABLE_LASTS: Duration = Duration::from_hours(12);

impl Machine {
    /// Sends a dry run that is due, if one may be sent now.
    pub(super) fn send_dry_runs(&mut self, now: BootInstant) {
        if self.dry_runs_allowed_at(now).is_none_or(|allowed| allowed > now) {
            return;
        }
        let due = self.resources.iter().filter_map(|(id, resource)| Some((self.dry_run_due(id, resource)?, id)));
        let Some((_, resource)) = due.filter(|(due, _)| *due <= now).min() else {
            return;
        };
        if let Some(request) = self.dry_run_request(&resource.clone()) {
            self.send_dry_run(now, request);
        }
    }

    fn send_dry_run(&mut self, now: BootInstant, request: DryRunRequest) {
        let id = DryRunId(self.next_id());
        let resource = request.resource();
        if let Some(state) = self.resources.get_mut(&resource) {
            state.permission.sent(id, matches!(request, DryRunRequest::Route { creates: true, .. }));
        }
        self.last_dry_run = Some(now);
        self.dry_runs.insert(id, resource);
        let timeout = self.config.global.request_timeout.duration();
        self.actions.push(Action::DryRun { id, request, timeout });
    }

    /// What an operator can have proved: the ENIs that addresses are assigned to, and the dry runs of the other claims.
    pub fn to_prove(&self) -> (BTreeSet<EniId>, Vec<DryRunRequest>) {
        let (mut enis, mut dry_runs) = (BTreeSet::new(), Vec::new());
        for (id, resource) in &self.resources {
            if !self.is_enabled(resource) {
                continue;
            }
            match id {
                Resource::Address(_) => enis.extend(resource.eni.clone()),
                Resource::Route(_) | Resource::ElasticIp(_) => dry_runs.extend(self.dry_run_request(id)),
            }
        }
        (enis, dry_runs)
    }

    /// Whether a claim is in flight.
    pub fn is_claiming(&self) -> bool {
        !self.claims.is_empty()
    }

    fn dry_run_request(&self, id: &Resource) -> Option<DryRunRequest> {
        let resource = self.resources.get(id)?;
        let moves = |address: &_| self.resources.contains_key(&Resource::Address(*address));
        let private_address = resource.private_address.filter(|address| !moves(address));
        DryRunRequest::new(id, resource.eni.clone()?, resource.is_absent_route(), private_address)
    }

    /// EC2 permits to assign addresses to the ENI: a standby's claim that was denied before may succeed now.
    pub(super) fn permission_proved(&mut self, eni: &EniId) {
        let addresses = self.resources.iter_mut().filter(|(id, _)| id.kind() == Kind::Address);
        for (_, resource) in addresses.filter(|(_, resource)| resource.eni.as_ref() == Some(eni)) {
            if resource.phase == Phase::Idle {
                resource.rejection.permanent.take_if(|error| error.class() == ErrorClass::Denied);
            }
        }
    }

    /// When the resource's next dry run is due, if its group is a standby and a claim would make the calls: the regular reads
    /// show whether the resource can be claimed, and whether EC2 answers.
    fn dry_run_due(&self, id: &Resource, resource: &ResourceState) -> Option<BootInstant> {
        let group = self.groups.get(&resource.group)?;
        let is_standby = group.acts() && group.state.vrrp() == VrrpState::Backup;
        let is_takeable = resource.owner_read.as_ref()?.not_takeable.is_none();
        let may_be_sent = id.kind() != Kind::Address
            && is_standby
            && is_takeable
            && resource.eni.is_some()
            && resource.permission.in_flight.is_none()
            && self.verifications[id.kind()].error.is_none();
        may_be_sent.then_some(resource.permission.due)
    }

    /// The earliest time from `now` on at which a dry run may be sent; none: not before something in flight has ended.
    fn dry_runs_allowed_at(&self, now: BootInstant) -> Option<BootInstant> {
        let claims = self.claims.values().any(|claim| claim.request.kind() != Kind::Address);
        if claims || self.dry_runs.len() >= MAX_DRY_RUNS {
            return None;
        }
        let claimed =
            [Channel::Routes, Channel::ElasticIps].map(|c| Some(self.channels.get(&c)?.rate_limiter.full_at()));
        let spaced = self.last_dry_run.map(|last| last + DRY_RUN_GAP);
        claimed.into_iter().chain([spaced]).flatten().chain([now]).max()
    }

    /// When the next dry run is sent, unless something else comes first.
    pub(super) fn next_dry_run(&self, now: BootInstant) -> Option<BootInstant> {
        let due = self.resources.iter().filter_map(|(id, resource)| self.dry_run_due(id, resource)).min()?;
        Some(due.max(self.dry_runs_allowed_at(now)?))
    }

    pub(super) fn dry_run_ended(&mut self, now: BootInstant, id: DryRunId, result: &Result<(), CallError>) {
        let Some(of) = self.dry_runs.remove(&id) else {
            return;
        };
        if self.resources.get(&of).is_some_and(|resource| resource.permission.in_flight == Some(id)) {
            self.dry_run_shows(now, &of, result);
        }
    }

    /// The answer counts if a dry run of the resource would make the same calls now.
    pub(super) fn dry_run_by_operator(
        &mut self,
        now: BootInstant,
        request: &DryRunRequest,
        result: &Result<(), CallError>,
    ) {
        let id = request.resource();
        if self.dry_run_request(&id).as_ref() == Some(request) {
            self.dry_run_shows(now, &id, result);
        }
    }

    /// What the answer to a dry run of a resource's claim shows.
    fn dry_run_shows(&mut self, now: BootInstant, id: &Resource, result: &Result<(), CallError>) {
        let Some(resource) = self.resources.get_mut(id) else {
            return;
        };
        match result {
            Ok(()) => resource.permission.proven(now, &mut self.rng),
            Err(error) => resource.permission.failed(now, error, &mut self.rng),
        }
        // It shows what a claim would come to now, as far as permissions go.
        if resource.phase == Phase::Idle && (result.is_ok() || resource.permission.refused.is_some()) {
            resource.rejection.permanent.take_if(|error| error.class() == ErrorClass::Denied);
        }
        // No dry run shows the room in a table: its limit may have been raised since.
        let claimed = resource.last_claim.as_ref().map(|claim| claim.began);
        if result.is_ok() && claimed.is_some_and(|began| began + FULL_TABLE_LASTS <= now) {
            resource.end_rejection_for_room();
        }
    }
}
