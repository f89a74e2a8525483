//! The state of the claim of one resource.

use std::net::Ipv4Addr;
use std::time::Duration;

use fastrand::Rng;

use super::event::ClaimId;
use super::permission::Permission;
use super::read_schedule::ReadSchedule;
use super::{BootInstant, backoff, flap_damping::FlapDamping};
use crate::model::assignment::PlannedResource;
use crate::model::ec2::{CallError, Eni, ErrorClass, Owner, Taker};
use crate::model::ids::{EniId, ErrorCode, GroupName, RequestId};
use crate::model::resource::{ElasticIp, Holder, Kind, NotTakeable};

/// After an acknowledged claim, ownership is verified at these times.
pub const VERIFY_DELAYS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(10)];

/// After a read that may be stale has verified the ownership without a claim, it is verified after these
/// times, in seconds.
const STALE_READ_SECONDS: [u64; 7] = [1, 3, 10, 20, 30, 45, 60];

/// For this long after an acknowledgement, EC2 and IMDS may return stale data.
pub const GRACE_PERIOD: Duration = Duration::from_secs(60);

/// The shortest time between claims that only a mismatch, or a repeated MASTER_RX_LOWER_PRI, has caused.
pub const MIN_RECLAIM_INTERVAL: Duration = Duration::from_secs(10);

/// If the owner cannot be read for this long, a claim that waits for a read is sent without one; a claim of a route never is.
pub const OWNER_CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// A peer that has not advertised for this many intervals is no longer MASTER (Active_Down_Interval, RFC 9568 section 6.1;
/// Master_Down_Interval in RFC 5798).
const MASTER_DOWN_INTERVALS: u32 = 3;

/// What is known of one resource, and the state of its claim.
#[derive(Debug)]
pub struct ResourceState {
    pub group: GroupName,
    /// What the configuration says.
    pub planned: PlannedResource,
    /// The ENI that the resource belongs on, once it is resolved.
    pub eni: Option<EniId>,
    /// The private address of that ENI that an Elastic IP belongs on, once it is known.
    pub private_address: Option<Ipv4Addr>,
    pub phase: Phase,
    pub attempt: Attempt,
    pub rejection: Rejection,
    pub checks: Checks,
    /// Begins with the first acknowledgement after a notify event for MASTER or after a verifying read.
    pub grace: Option<Grace>,
    /// When a notify event or an operator last caused a claim.
    pub asked: Option<BootInstant>,
    pub flap_damping: FlapDamping,
    pub permission: Permission,
    pub owner_read: Option<OwnerRead>,
    /// The ENI of neither router that was last logged as the owner.
    pub holder_logged: Option<EniId>,
    pub last_claim: Option<LastClaim>,
    /// The last failed claim. Cleared by an acknowledgement, by a verifying read, and when it becomes idle.
    pub last_failure: Option<(BootInstant, CallError)>,
}

/// The current attempt to claim the resource. A new notify event or operator's request, a success, and becoming idle reset
/// all fields; the first two keep the notify event of a claim that was not sent yet.
#[derive(Debug, Default)]
pub struct Attempt {
    /// The notify event that has caused the claim, if one has. Another one counts only once a claim was sent.
    pub notified: Option<BootInstant>,
    /// What a claim without a notify event has to wait for.
    pub precondition: Option<Precondition>,
    /// The number of consecutive failed claims.
    pub failed: u32,
    /// Set while a failed batch is bisected: only addresses of the same bisect group share a request.
    pub bisect_group: Option<u64>,
    /// For an Elastic IP: a read that begins at this time, or later, shows whether it has moved along with its address.
    pub moved_along: Option<BootInstant>,
    /// A repeated MASTER_RX_LOWER_PRI has caused a read: if it shows another owner, no recheck is needed before a claim.
    pub outranked_other: bool,
}

/// Rejections of the resource on its ENI. An acknowledged claim, a verifying read, and another ENI reset all fields.
#[derive(Debug, Default)]
pub struct Rejection {
    /// Set if this address made a batch fail: it is claimed in a request of its own.
    pub isolated: Option<ErrorClass>,
    /// The last failure, if only a change of the configuration, the credentials or AWS can end it.
    pub permanent: Option<CallError>,
}

/// The verification of the ownership. A new notify event or operator's request, and becoming idle, reset all fields.
#[derive(Debug, Default)]
pub struct Checks {
    /// Since when every read has verified the ownership.
    pub verified_since: Option<BootInstant>,
    pub reads: ReadSchedule,
    /// The number of failed reads that a claim has waited for.
    pub failed_reads: u32,
}

/// The phase of a resource; docs/internals/claim-machine.md has the state diagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// The group is not MASTER, or it is paused or disabled.
    Idle,
    /// The group is MASTER without a notify event since its address was added: the address must be on its interface, and
    /// keepalived must have been active after `since`.
    AwaitLocalAddress { since: BootInstant },
    /// MASTER was inferred: a read that began at `since` or later decides whether a claim is needed.
    CheckOwner { since: BootInstant },
    /// A claim is sent at `due`, or later.
    Pending { due: BootInstant },
    /// This claim is in flight. Claims from before the last notify event, or before the group left MASTER, do not count.
    InFlight(ClaimId),
    /// A claim was acknowledged, or a read has shown this router's ENI as the owner.
    Assigned { verified: bool, mismatch: Option<Mismatch> },
}

impl Phase {
    /// When the pending claim is due.
    pub fn due(&self) -> Option<BootInstant> {
        match self {
            Self::Pending { due } => Some(*due),
            _ => None,
        }
    }
}

/// What must be shown before a claim that no notify event has caused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Precondition {
    /// keepalived must have been active after this time, and recently.
    pub liveness_after: BootInstant,
    /// When a read of the local addresses last found the address on its interface.
    pub local_read: Option<BootInstant>,
}

/// A read that contradicts the assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// When the read ended.
    pub since: BootInstant,
    /// The owner, if there is one.
    pub owner: Option<Owner>,
    /// The number of failed rechecks.
    pub failed: u32,
}

/// The time during which reads may be stale. A verifying read ends it, unless an earlier read was stale: then a current
/// read does not mean that the next one is current, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grace {
    pub from: BootInstant,
    /// A read has verified the ownership.
    pub verified: bool,
    /// A read was stale.
    pub lagging: bool,
}

impl Grace {
    /// Whether a read that began at `began` may be stale.
    fn lasts(&self, began: BootInstant) -> bool {
        began < self.from + GRACE_PERIOD && (self.lagging || !self.verified)
    }
}

/// The result of the last read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerRead {
    /// When the read began.
    pub began: BootInstant,
    /// When the read ended.
    pub at: BootInstant,
    /// The owner, if an ENI has the resource.
    pub owner: Option<Owner>,
    /// For an address: the Elastic IP that is associated with it.
    pub elastic_ip: Option<ElasticIp>,
    /// For an Elastic IP: the private address of that ENI.
    pub private_address: Option<Ipv4Addr>,
    /// For an Elastic IP: its own address.
    pub public_address: Option<Ipv4Addr>,
    /// For a route: the table has it, and it leads nowhere.
    pub is_blackhole: bool,
    /// Why the resource cannot be claimed, if so.
    pub not_takeable: Option<NotTakeable>,
}

impl OwnerRead {
    /// From what a read shows of a resource; absent: it is free.
    pub fn new(began: BootInstant, at: BootInstant, holder: Option<Holder>) -> Self {
        let mut read = Self {
            began,
            at,
            owner: holder.as_ref().and_then(Holder::owner).cloned(),
            elastic_ip: None,
            private_address: None,
            public_address: None,
            is_blackhole: false,
            not_takeable: None,
        };
        match holder {
            None | Some(Holder::Eni(_)) => {}
            Some(Holder::WithElasticIp { elastic_ip, .. }) => read.elastic_ip = Some(elastic_ip),
            Some(Holder::Association { private_address, public_address, .. }) => {
                read.private_address = Some(private_address);
                read.public_address = public_address;
            }
            Some(Holder::Blackhole) => read.is_blackhole = true,
            Some(Holder::NotTakeable(why)) => read.not_takeable = Some(why),
        }
        read
    }
}

/// The last claim that was sent for a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastClaim {
    /// The ENI of the claim; the resource may belong on another one since.
    pub eni: EniId,
    /// When it began.
    pub began: BootInstant,
    /// When it ended, and how.
    pub answer: Option<(BootInstant, Result<Option<RequestId>, CallError>)>,
}

impl ResourceState {
    /// A resource that is new to this group. `behind` is the interface's ENI, once it is resolved.
    pub fn new(group: GroupName, planned: PlannedResource, behind: Option<&Eni>) -> Self {
        let (eni, private_address) = target(&planned, behind);
        Self {
            group,
            planned,
            eni,
            private_address,
            phase: Phase::Idle,
            attempt: Attempt::default(),
            rejection: Rejection::default(),
            checks: Checks::default(),
            grace: None,
            asked: None,
            flap_damping: FlapDamping::default(),
            permission: Permission::default(),
            owner_read: None,
            holder_logged: None,
            last_claim: None,
            last_failure: None,
        }
    }

    /// Takes over what does not depend on the group.
    #[must_use]
    pub fn after(self, old: Option<Self>) -> Self {
        match old {
            Some(Self { owner_read, last_claim, .. }) => Self { owner_read, last_claim, ..self },
            None => self,
        }
    }

    /// Becomes idle. Observations stay.
    pub fn become_idle(&mut self) {
        self.phase = Phase::Idle;
        self.join_if_refused();
        self.attempt = Attempt::default();
        self.checks = Checks::default();
        self.last_failure = None;
        self.grace = None;
    }

    /// Claims at once, because of a notify event or an operator.
    pub fn claim_now(&mut self, now: BootInstant) {
        self.phase = Phase::Pending { due: now };
        self.asked = Some(now);
        self.join_if_refused();
        let was_sent = |since: &BootInstant| self.last_claim.as_ref().is_some_and(|claim| claim.began >= *since);
        let notified = self.attempt.notified.filter(|since| !was_sent(since));
        self.attempt = Attempt { notified, ..Attempt::default() };
        self.checks = Checks::default();
        self.rejection.permanent = None;
        self.flap_damping.claim_now();
        if self.awaits_read() {
            self.read_at(now);
        }
    }

    /// There is room for a standby's resource: ends a rejection for which there was none on the ENI, or in the route table.
    pub fn end_rejection_for_room(&mut self) {
        if self.phase == Phase::Idle {
            let was_for_room = |code: &ErrorCode| code.is_no_room() || code.is_full_table();
            self.rejection.permanent.take_if(|error| error.failure.has_code(was_for_room));
        }
    }

    /// Ends the isolation unless EC2 rejected the address itself: an unknown error may have been about the batch or the ENI,
    /// and may be over.
    pub fn join_if_refused(&mut self) {
        self.rejection.isolated.take_if(|class| *class == ErrorClass::Refused);
    }

    /// Schedules a claim that no notify event has caused, while `from` owns the resource: keepalived must be active, the
    /// group's address must be on its interface, and with a third party the hold-down must be over.
    pub fn claim_with_precondition(
        &mut self,
        earliest: BootInstant,
        liveness_after: BootInstant,
        from: Option<Taker>,
        outranks: bool,
        rng: &mut Rng,
    ) {
        let due = earliest + self.flap_damping.damping_delay(from, outranks, rng).unwrap_or_default();
        self.phase = Phase::Pending { due };
        self.attempt.precondition = Some(Precondition { liveness_after, local_read: None });
        self.attempt.failed = 0;
        self.checks.verified_since = None;
    }

    /// The peer owns the resource of a pending claim: ends the hold-down that a third party caused.
    pub fn expedite(&mut self, now: BootInstant, rng: &mut Rng) {
        let earliest = if self.attempt.failed > 0 {
            now + backoff::retry_delay(self.attempt.failed, rng)
        } else {
            self.earliest_reclaim(now)
        };
        if self.flap_damping.delays_claims()
            && self.rejection.permanent.is_none()
            && let Phase::Pending { due } = &mut self.phase
        {
            *due = earliest.min(*due);
        }
    }

    /// The earliest time from `now` on that is at least [`MIN_RECLAIM_INTERVAL`] after the last claim that a read caused.
    pub fn earliest_reclaim(&self, now: BootInstant) -> BootInstant {
        self.flap_damping.reclaimed.map_or(now, |last| now.max(last + MIN_RECLAIM_INTERVAL))
    }

    /// The same after every earlier claim, unless the peer's advertisement was received at `heard`, after the last notify
    /// event for MASTER, and the peer has not advertised since: a claim that the peer had in flight when the link came back
    /// may have been performed after this router's. `interval` is the peer's advertisement interval.
    pub fn earliest_claim(&self, now: BootInstant, heard: Option<BootInstant>, interval: Duration) -> BootInstant {
        let gave_way = |heard: BootInstant| {
            self.asked.is_some_and(|asked| asked <= heard) && heard.until(now) >= MASTER_DOWN_INTERVALS * interval
        };
        if heard.is_some_and(gave_way) {
            return self.earliest_reclaim(now);
        }
        self.last_claim.as_ref().map_or(now, |last| now.max(last.began + MIN_RECLAIM_INTERVAL))
    }

    /// Applies another plan for the resource of the same group, and keeps the observations. `behind` is the interface's
    /// ENI, once it is resolved.
    pub fn replan(&mut self, now: BootInstant, planned: PlannedResource, behind: Option<&Eni>) {
        self.planned = planned;
        if self.retarget(behind) {
            self.other_eni(now);
        }
    }

    /// The interface's ENI was resolved.
    pub fn resolved(&mut self, now: BootInstant, behind: &Eni) {
        let was_known = self.eni.is_some();
        if self.retarget(Some(behind)) && was_known {
            self.other_eni(now);
        }
        // An association that was read before the ENI was known, and is right, is not repeated.
        let is_right = |read: &OwnerRead| self.asked.is_some_and(|asked| asked <= read.began) && self.is_ours(read);
        if !was_known
            && self.planned.resource.kind() == Kind::ElasticIp
            && matches!(self.phase, Phase::Pending { .. })
            && self.owner_read.as_ref().is_some_and(is_right)
        {
            self.verified(now);
            self.checks.reads = VERIFY_DELAYS.map(|delay| now + delay).into();
        }
    }

    /// Returns whether the resource belongs elsewhere than before.
    fn retarget(&mut self, behind: Option<&Eni>) -> bool {
        let (eni, private_address) = target(&self.planned, behind);
        let is_other = (&self.eni, self.private_address) != (&eni, private_address);
        (self.eni, self.private_address) = (eni, private_address);
        is_other
    }

    /// The resource belongs on another ENI than before: earlier claims and rejections do not count. A claim that a notify
    /// event caused is sent for the new ENI.
    pub fn other_eni(&mut self, now: BootInstant) {
        self.rejection = Rejection::default();
        self.permission = Permission::default();
        match self.phase {
            Phase::Pending { .. } | Phase::InFlight(_) if self.attempt.precondition.is_none() => {
                self.phase = Phase::Pending { due: now };
            }
            _ => self.appear(now),
        }
    }

    /// Unless it is idle, the group's address must be seen on its interface again, and the owner read.
    pub fn appear(&mut self, now: BootInstant) {
        if self.phase != Phase::Idle {
            self.become_idle();
            self.phase = Phase::AwaitLocalAddress { since: now };
        }
    }

    /// Reads the owner before any claim.
    pub fn adopt(&mut self, now: BootInstant) {
        self.become_idle();
        self.phase = Phase::CheckOwner { since: now };
        self.checks.reads = [now].into();
    }

    /// Whether the pending claim is the first one for a notify event or an operator.
    pub fn is_first_attempt(&self) -> bool {
        self.attempt.precondition.is_none() && !self.is_retry() && self.rejection.isolated.is_none()
    }

    /// Whether the pending claim follows a failed one.
    pub fn is_retry(&self) -> bool {
        self.attempt.failed > 0 || self.attempt.bisect_group.is_some()
    }

    /// Whether it has failed more than once, and not just in a batch that is being bisected: the first retry is as urgent
    /// as the first attempt.
    pub fn is_repeated(&self) -> bool {
        self.attempt.failed > 1 && self.attempt.bisect_group.is_none()
    }

    /// Schedules a read.
    pub fn read_at(&mut self, due: BootInstant) {
        self.checks.reads.add(due);
    }

    /// A claim was acknowledged.
    pub fn acknowledged(&mut self, now: BootInstant) {
        self.phase = Phase::Assigned { verified: false, mismatch: None };
        self.attempt = Attempt::default();
        self.rejection = Rejection::default();
        self.last_failure = None;
        if self.grace.as_ref().is_none_or(|grace| grace.verified && !grace.lasts(now)) {
            self.grace = Some(Grace { from: now, verified: false, lagging: false });
        }
        self.checks.reads = VERIFY_DELAYS.map(|after| now + after).into();
    }

    /// A read has shown this router's ENI as the owner.
    pub fn verified(&mut self, now: BootInstant) {
        if let Some(grace) = &mut self.grace {
            grace.verified = true;
            // The previous read was a mismatch, and no claim was sent since.
            grace.lagging |= matches!(self.phase, Phase::Assigned { mismatch: Some(_), .. });
        }
        self.phase = Phase::Assigned { verified: true, mismatch: None };
        self.attempt = Attempt::default();
        self.rejection = Rejection::default();
        self.last_failure = None;
        self.checks.verified_since.get_or_insert(now);
    }

    /// The read that has verified the ownership without a claim may be stale, and so may those of the next minute.
    pub fn may_be_stale(&mut self, now: BootInstant) {
        self.grace = Some(Grace { from: now, verified: true, lagging: true });
        self.checks.reads = STALE_READ_SECONDS.map(|delay| now + Duration::from_secs(delay)).into();
    }

    /// Whether it may share a request with every other free address.
    pub fn is_free(&self) -> bool {
        self.rejection.isolated.is_none() && self.attempt.bisect_group.is_none()
    }

    /// Whether a retry that is not due yet may share another one's request.
    pub fn may_piggyback(&self) -> bool {
        self.attempt.failed > 0
            && self.attempt.precondition.is_none()
            && self.rejection.permanent.is_none()
            && self.is_free()
            && self.flap_damping.contested_by().is_none()
    }

    /// Whether a read that shows this router's ENI as the owner may be older than the notify event or the operator's request
    /// for a claim: the read before it showed the same.
    pub fn may_be_of_before(&self, began: BootInstant) -> bool {
        let was_ours = self.owner_read.as_ref().is_some_and(|read| self.is_ours(read));
        was_ours && self.asked.is_some_and(|asked| began < asked + GRACE_PERIOD)
    }

    /// Whether a read shows the resource where it belongs.
    pub fn is_ours(&self, read: &OwnerRead) -> bool {
        let is_on_our_eni = self.eni.is_some() && read.owner.as_ref().map(|o| &o.eni) == self.eni.as_ref();
        let is_elsewhere_on_it = |wanted| read.private_address.is_some_and(|address| address != wanted);
        is_on_our_eni && !self.private_address.is_some_and(is_elsewhere_on_it)
    }

    /// Whether a read has to come before the claim.
    pub fn awaits_read(&self) -> bool {
        match self.planned.resource.kind() {
            Kind::Address => false,
            // A wrong table must not cut a VPC off.
            Kind::Route => self.owner_read.is_none() || self.not_takeable().is_some(),
            Kind::ElasticIp => self.not_takeable().is_some() || self.awaits_read_until().is_some(),
        }
    }

    /// Until when the claim of an Elastic IP waits for a read, if it does: an association that may be right already is not
    /// repeated, because a remap may be billed (AssociateAddress, EC2 API).
    pub fn awaits_read_until(&self) -> Option<BootInstant> {
        if self.planned.resource.kind() != Kind::ElasticIp {
            return None;
        }
        let read = self.owner_read.as_ref();
        let may_be_ours = read.is_none_or(|read| self.eni.is_none() || self.is_ours(read));
        let asked = self.asked.filter(|_| may_be_ours);
        let unanswered = self.last_claim.as_ref().and_then(|claim| match &claim.answer {
            Some((ended, Err(error))) => {
                matches!(error.class(), ErrorClass::TimedOut | ErrorClass::Transient).then_some(*ended)
            }
            Some((_, Ok(_))) | None => None,
        });
        let since = asked.max(unanswered).max(self.attempt.moved_along)?;
        read.is_none_or(|read| read.began < since).then_some(since + OWNER_CHECK_TIMEOUT)
    }

    /// Whether the last read shows a table without the route: CreateRoute claims it.
    pub fn is_absent_route(&self) -> bool {
        let is_absent = |read: &OwnerRead| read.owner.is_none() && !read.is_blackhole && read.not_takeable.is_none();
        self.planned.resource.kind() == Kind::Route && self.owner_read.as_ref().is_some_and(is_absent)
    }

    /// Why the resource cannot be claimed, by the last read.
    pub fn not_takeable(&self) -> Option<&NotTakeable> {
        self.owner_read.as_ref()?.not_takeable.as_ref()
    }

    /// Whether a read that began at `began` may be stale.
    pub fn in_grace(&self, began: BootInstant) -> bool {
        self.grace.as_ref().is_some_and(|grace| grace.lasts(began))
    }
}

/// The ENI that a resource belongs on, and for an Elastic IP the private address. `behind` is the ENI of its interface.
fn target(planned: &PlannedResource, behind: Option<&Eni>) -> (Option<EniId>, Option<Ipv4Addr>) {
    let eni = planned.eni.as_ref().or(behind.map(|behind| &behind.id)).cloned();
    let primary = behind.filter(|behind| Some(&behind.id) == eni.as_ref()).map(|behind| behind.primary);
    let private_address = match planned.resource.kind() {
        Kind::Address | Kind::Route => None,
        Kind::ElasticIp => planned.private_address.or(primary),
    };
    (eni, private_address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::InterfaceName;
    use crate::model::resource::Resource;

    fn at(seconds: u64) -> BootInstant {
        BootInstant::after_boot(Duration::from_secs(seconds))
    }

    fn address() -> ResourceState {
        let planned = PlannedResource {
            resource: Ipv4Addr::new(10, 0, 1, 1).into(),
            interface: InterfaceName::try_from("eth0").expect("an interface name"),
            eni: Some(EniId::try_from("eni-0000000a").expect("an ENI")),
            private_address: None,
        };
        ResourceState::new(GroupName::try_from("a").expect("a group name"), planned, None)
    }

    #[test]
    fn reads_may_show_the_past_for_less_than_a_minute_or_until_one_confirms() {
        let grace = |verified, lagging| Grace { from: at(100), verified, lagging };
        assert!(grace(false, false).lasts(at(159)) && !grace(false, false).lasts(at(160)));
        assert!(!grace(true, false).lasts(at(101)));
        assert!(grace(true, true).lasts(at(159)) && !grace(true, true).lasts(at(160)));
    }

    #[test]
    fn a_read_of_ours_may_be_of_before_for_less_than_a_minute_after_a_line() {
        let mut address = address();
        let read = |eni: &str| {
            let owner = Owner { eni: EniId::try_from(eni).expect("an ENI"), instance: None, primary: false };
            Some(OwnerRead::new(at(90), at(90), Some(Holder::Eni(owner))))
        };
        address.asked = Some(at(100));
        assert!(!address.may_be_of_before(at(100)), "no read before it");
        address.owner_read = read("eni-0000000a");
        assert!(address.may_be_of_before(at(159)) && !address.may_be_of_before(at(160)));
        address.owner_read = read("eni-0000000c");
        assert!(!address.may_be_of_before(at(159)), "it was another's");
    }

    #[test]
    fn an_acknowledged_claim_begins_a_minute_anew_once_the_last_one_was_confirmed_and_is_over() {
        let begins = |verified, lagging, acknowledged| {
            let mut address = address();
            address.grace = Some(Grace { from: at(100), verified, lagging });
            address.acknowledged(at(acknowledged));
            address.grace.expect("a minute").from
        };
        assert_eq!(begins(false, false, 130), at(100));
        assert_eq!(begins(true, false, 130), at(130));
        assert_eq!(begins(true, true, 130), at(100));
        assert_eq!(begins(true, true, 160), at(160), "a minute later");
    }

    #[test]
    fn an_association_that_is_right_is_verified_once_more_when_its_eni_is_known() {
        let behind = Eni {
            id: EniId::try_from("eni-0000000a").expect("an ENI"),
            subnet: "subnet-0000000a".try_into().expect("a subnet"),
            vpc: "vpc-0000000a".try_into().expect("a VPC"),
            primary: Ipv4Addr::new(10, 0, 0, 1),
            block: None,
        };
        let allocation = "eipalloc-00000001".try_into().expect("an allocation");
        let planned = PlannedResource { resource: Resource::ElasticIp(allocation), eni: None, ..address().planned };
        let mut elastic_ip = ResourceState::new(GroupName::try_from("a").expect("a group name"), planned, None);
        elastic_ip.claim_now(at(100));
        let holder = Holder::Association {
            owner: Owner { eni: behind.id.clone(), instance: None, primary: false },
            private_address: behind.primary,
            public_address: None,
        };
        elastic_ip.owner_read = Some(OwnerRead::new(at(101), at(102), Some(holder)));
        elastic_ip.resolved(at(110), &behind);
        assert_eq!(elastic_ip.phase, Phase::Assigned { verified: true, mismatch: None });
        assert_eq!(*elastic_ip.checks.reads, [111, 113, 120].map(at));
    }

    #[test]
    fn for_another_eni_only_a_claim_that_a_line_or_a_person_caused_is_sent_at_once() {
        let phase_after = |phase, precondition| {
            let mut address = address();
            (address.phase, address.attempt.precondition) = (phase, precondition);
            address.other_eni(at(100));
            address.phase
        };
        let precondition = || Some(Precondition { liveness_after: at(1), local_read: None });
        for phase in [Phase::Pending { due: at(105) }, Phase::InFlight(ClaimId(1))] {
            assert_eq!(phase_after(phase.clone(), None), Phase::Pending { due: at(100) });
            assert_eq!(phase_after(phase, precondition()), Phase::AwaitLocalAddress { since: at(100) });
        }
        assert_eq!(phase_after(Phase::Idle, None), Phase::Idle);
    }

    #[test]
    fn only_what_failed_is_a_retry_and_only_what_failed_twice_a_repeated_one() {
        let mut address = address();
        let kinds = |a: &ResourceState| [a.is_first_attempt(), a.is_retry(), a.is_repeated(), a.may_piggyback()];
        assert_eq!(kinds(&address), [true, false, false, false]);
        address.attempt.failed = 1;
        assert_eq!(kinds(&address), [false, true, false, true]);
        address.attempt.failed = 2;
        assert_eq!(kinds(&address), [false, true, true, true]);
        address.attempt.bisect_group = Some(1);
        assert_eq!(kinds(&address), [false, true, false, false]);
        address.attempt.failed = 0;
        assert_eq!(kinds(&address), [false, true, false, false]);
        address.attempt.bisect_group = None;
        address.rejection.isolated = Some(ErrorClass::BadResource);
        assert_eq!(kinds(&address), [false; 4]);
    }

    #[test]
    fn a_claim_need_not_be_apart_from_the_last_one_once_the_peer_has_given_way_to_this_master() {
        let earliest = |asked, heard| {
            let mut address = address();
            let eni = EniId::try_from("eni-0000000a").expect("an ENI");
            address.last_claim = Some(LastClaim { eni, began: at(95), answer: None });
            address.asked = Some(at(asked));
            address.earliest_claim(at(100), Some(at(heard)), Duration::from_secs(1))
        };
        assert_eq!(earliest(90, 90), at(100));
        assert_eq!(earliest(90, 97), at(100));
        assert_eq!(earliest(90, 98), at(105), "the peer may still be MASTER");
        assert_eq!(earliest(91, 90), at(105), "it was heard before this router became MASTER");
    }

    #[test]
    fn what_waits_because_of_a_third_party_goes_at_once_where_the_peer_has_it_and_nothing_failed() {
        let mut rng = Rng::with_seed(1);
        let mut expedited = |failed: u32, losses: u64| {
            let mut address = address();
            (0..losses).for_each(|t| _ = address.flap_damping.ownership_lost(at(t), Taker::ThirdParty));
            address.attempt.failed = failed;
            address.phase = Phase::Pending { due: at(1_000) };
            address.expedite(at(100), &mut rng);
            address.phase.due().expect("pending")
        };
        assert_eq!(expedited(0, 4), at(100));
        let retry = expedited(1, 4);
        assert!(retry > at(100) && retry <= at(101), "{retry:?}");
        assert_eq!(expedited(0, 3), at(1_000), "not contested");
    }
}
