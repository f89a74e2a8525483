//! One virtual address: what is wanted for it, and what is known of it.

use std::collections::BTreeSet;
use std::time::Duration;

use fastrand::Rng;

use super::message::{ClaimId, Misplaced};
use super::reads::Reads;
use super::{Moment, contest::Contest, pace};
use crate::model::assignment::{PlannedAddress, is_there};
use crate::model::ec2::{CallError, ErrorClass, Owner, Taker};
use crate::model::ids::{EniId, GroupName, InterfaceName, RequestId};

/// When ownership is read after an acknowledged claim.
pub const CONFIRM: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(10)];

/// How long EC2 and IMDS may show the past after an acknowledgement.
pub const GRACE: Duration = Duration::from_secs(60);

/// The least time between claims that nothing but a disagreeing read, or a repeated MASTER_RX_LOWER_PRI, asks for.
pub const APART: Duration = Duration::from_secs(10);

/// A peer that was heard as MASTER, and has not been for so many advertisement intervals, is MASTER no more (RFC 9568, 6.1).
const SILENCE: u32 = 3;

/// One virtual address.
#[derive(Debug)]
pub struct Address {
    pub group: GroupName,
    pub interface: InterfaceName,
    /// Where keepalived puts it.
    pub held_on: InterfaceName,
    /// The ENI that the configuration names.
    pub configured_eni: Option<EniId>,
    /// The ENI that should have the address, once it is known.
    pub eni: Option<EniId>,
    pub outside_vrrp: bool,
    pub phase: Phase,
    /// What a claim that is not due to a line has to wait for.
    pub guard: Option<Guard>,
    /// Claims that failed in a row.
    pub failed: u32,
    /// Set while a batch that failed is bisected: only addresses of one cohort go in one request.
    pub cohort: Option<u64>,
    /// The error for which it goes alone: it was found to be what made a batch fail.
    pub alone: Option<ErrorClass>,
    /// Why the last attempt failed, where only a change can help.
    pub permanent: Option<CallError>,
    /// Since the first acknowledgement after a MASTER line or a confirmed read.
    pub grace: Option<Grace>,
    /// Since when reads confirm, without a break, that the address is ours.
    pub confirmed_since: Option<Moment>,
    pub reads: Reads,
    /// A repeated MASTER_RX_LOWER_PRI asked for a read: one that shows another owner is enough for a claim.
    pub outranked_other: bool,
    /// When a line or a person last asked for a claim.
    pub asked: Option<Moment>,
    pub contest: Contest,
    pub seen: Option<Seen>,
    /// The ENI of which it was last noted that it holds the address, and is none of the group's routers'.
    pub holder_noted: Option<EniId>,
    pub last_claim: Option<LastClaim>,
    /// When and why a claim failed last, until one is acknowledged, a read says that it is ours, or nothing is wanted.
    pub last_failure: Option<(Moment, CallError)>,
    /// Since when the address is, or is not, on a local interface.
    pub local_since: Option<Moment>,
    /// What was last said of its place.
    pub misplaced: Option<Misplaced>,
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Nothing: the group is not MASTER, or nothing may be done for it.
    Rest,
    /// The group is MASTER, but not by a line since the address is looked after: it must be seen on an interface, with
    /// keepalived alive after that moment.
    Appearing { since: Moment },
    /// Taken for MASTER by evidence: who owns the address is read first, from that moment on.
    Adopting { since: Moment },
    /// A claim, from that moment on.
    Wanted { due: Moment },
    /// A claim is in flight. One that was sent before the last line, or before the group left MASTER, does not count.
    InFlight(ClaimId),
    /// A claim was acknowledged, or a read says that it is ours.
    Held { confirmed: bool, suspect: Option<Suspect> },
}

impl Phase {
    /// When a claim that is wanted is due.
    pub fn due(&self) -> Option<Moment> {
        match self {
            Self::Wanted { due } => Some(*due),
            _ => None,
        }
    }
}

/// The proof that a claim needs which no line asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// A sign of life of keepalived that is newer than this, and recent.
    pub life_after: Moment,
    /// When the address was last looked for, and found, on a local interface.
    pub looked: Option<Moment>,
}

/// A read that disagreed with a confirmed ownership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// When it was answered.
    pub since: Moment,
    /// Who has the address, if anyone.
    pub owner: Option<Owner>,
    /// Second looks that failed.
    pub failed: u32,
}

/// The time in which reads may show the past. A read that confirms the claim ends it, unless another one has shown by
/// then that reads lag: one that is up to date says nothing of the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grace {
    pub from: Moment,
    /// A read has said that the address is ours.
    pub confirmed: bool,
    /// A read has shown the past.
    pub lagging: bool,
}

impl Grace {
    /// Whether it lasts for a read that began then.
    fn lasts(&self, began: Moment) -> bool {
        began < self.from + GRACE && (self.lagging || !self.confirmed)
    }
}

/// What the last read showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// When the read began.
    pub began: Moment,
    /// When it was answered.
    pub at: Moment,
    /// Who has the address, if anyone.
    pub owner: Option<Owner>,
}

/// The last claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastClaim {
    /// The ENI that it was for, which may be another one by now.
    pub eni: EniId,
    pub began: Moment,
    /// When and how it was answered.
    pub answer: Option<(Moment, Result<Option<RequestId>, CallError>)>,
}

impl Address {
    /// An address that was not looked after for this group before. `behind` is the ENI behind the interface, once it is
    /// known.
    pub fn new(group: GroupName, planned: PlannedAddress, behind: Option<&EniId>) -> Self {
        Self {
            group,
            interface: planned.interface,
            held_on: planned.held_on,
            eni: planned.eni.as_ref().or(behind).cloned(),
            configured_eni: planned.eni,
            outside_vrrp: planned.outside_vrrp,
            phase: Phase::Rest,
            guard: None,
            failed: 0,
            cohort: None,
            alone: None,
            permanent: None,
            grace: None,
            confirmed_since: None,
            reads: Reads::default(),
            outranked_other: false,
            asked: None,
            contest: Contest::default(),
            seen: None,
            holder_noted: None,
            last_claim: None,
            last_failure: None,
            local_since: None,
            misplaced: None,
        }
    }

    /// With what is known of the address itself, whichever group it was looked after for.
    #[must_use]
    pub fn after(self, old: Option<Self>) -> Self {
        match old {
            Some(Self { seen, last_claim, .. }) => Self { seen, last_claim, ..self },
            None => self,
        }
    }

    /// Wants nothing any more. What was learnt stays.
    pub fn rest(&mut self) {
        self.phase = Phase::Rest;
        self.join_if_refused();
        self.guard = None;
        self.failed = 0;
        self.last_failure = None;
        self.cohort = None;
        self.grace = None;
        self.confirmed_since = None;
        self.reads.clear();
        self.outranked_other = false;
    }

    /// Wants a claim at once, because a line or a person says so.
    pub fn claim_now(&mut self, now: Moment) {
        self.phase = Phase::Wanted { due: now };
        self.asked = Some(now);
        self.join_if_refused();
        self.guard = None;
        self.failed = 0;
        self.cohort = None;
        self.permanent = None;
        self.confirmed_since = None;
        self.reads.clear();
        self.outranked_other = false;
        self.contest.claim_now();
    }

    /// Goes with others again, unless EC2 has found fault with the address itself: a refusal for a reason that is not known
    /// may have been the batch's, or the ENI's, and over.
    pub fn join_if_refused(&mut self) {
        self.alone.take_if(|class| *class == ErrorClass::Refused);
    }

    /// Wants a claim that no line asks for, while `from` has the address: keepalived must give a sign of life, the address
    /// must be on an interface, and in a contest with a stranger the back-off must be over.
    pub fn claim_guarded(
        &mut self,
        earliest: Moment,
        life_after: Moment,
        from: Option<Taker>,
        outranks: bool,
        rng: &mut Rng,
    ) {
        let due = earliest + self.contest.back_off(from, outranks, rng).unwrap_or_default();
        self.phase = Phase::Wanted { due };
        self.guard = Some(Guard { life_after, looked: None });
        self.failed = 0;
        self.confirmed_since = None;
    }

    /// The peer has the address that a claim is wanted of: what waits because of a stranger waits no longer.
    pub fn hurry(&mut self, now: Moment, rng: &mut Rng) {
        let earliest =
            if self.failed > 0 { now + pace::retry(self.failed, rng) } else { self.apart_from_reclaims(now) };
        if self.contest.delays()
            && self.permanent.is_none()
            && let Phase::Wanted { due } = &mut self.phase
        {
            *due = earliest.min(*due);
        }
    }

    /// The earliest moment from `now` on for a claim that is at least [`APART`] from the last one that a read asked for.
    pub fn apart_from_reclaims(&self, now: Moment) -> Moment {
        self.contest.reclaimed.map_or(now, |last| now.max(last + APART))
    }

    /// The same, apart from every claim before it. Exempt is what a line asked for where the peer was heard as MASTER at
    /// `heard`, then or later, and has fallen silent since: a claim that the peer had in flight when the link came back may
    /// have landed after ours. `interval` is the one in which the peer advertises.
    pub fn apart_from_claims(&self, now: Moment, heard: Option<Moment>, interval: Duration) -> Moment {
        let gave_way =
            |heard: Moment| self.asked.is_some_and(|asked| asked <= heard) && heard.until(now) >= SILENCE * interval;
        if heard.is_some_and(gave_way) {
            return self.apart_from_reclaims(now);
        }
        self.last_claim.as_ref().map_or(now, |last| now.max(last.began + APART))
    }

    /// Goes by another plan for the address of the same group. What has happened to the address stays. `behind` is the ENI
    /// behind the interface, once it is known.
    pub fn replan(&mut self, now: Moment, planned: PlannedAddress, behind: Option<&EniId>) {
        let PlannedAddress { address: _, interface, held_on, eni, outside_vrrp } = planned;
        let should = eni.as_ref().or(behind).cloned();
        self.interface = interface;
        self.configured_eni = eni;
        self.outside_vrrp = outside_vrrp;
        if self.held_on != held_on {
            self.held_on = held_on;
            self.local_since = Some(now);
            self.appear(now);
        }
        if self.eni != should {
            self.eni = should;
            self.other_eni(now);
        }
    }

    /// Another ENI than before should have the address: what was held there, or refused, says nothing. What a line asked
    /// for holds for the new one as well.
    pub fn other_eni(&mut self, now: Moment) {
        self.permanent = None;
        self.alone = None;
        match self.phase {
            Phase::Wanted { .. } | Phase::InFlight(_) if self.guard.is_none() => {
                self.phase = Phase::Wanted { due: now };
            }
            _ => self.appear(now),
        }
    }

    /// Where anything is wanted: the address must be seen anew on its interface, and its owner read.
    fn appear(&mut self, now: Moment) {
        if self.phase != Phase::Rest {
            self.rest();
            self.phase = Phase::Appearing { since: now };
        }
    }

    /// Whether it is where keepalived puts it, by the interfaces that have it.
    pub fn is_there(&self, having: Option<&BTreeSet<InterfaceName>>) -> bool {
        having.is_some_and(|having| is_there(&self.held_on, having))
    }

    /// Reads before anything else.
    pub fn adopt(&mut self, now: Moment) {
        self.rest();
        self.phase = Phase::Adopting { since: now };
        self.reads = [now].into();
    }

    /// Whether the claim that is wanted is the first one for a line or a person.
    pub fn is_first_attempt(&self) -> bool {
        self.guard.is_none() && !self.is_retry() && self.alone.is_none()
    }

    /// Whether the claim that is wanted comes after one that failed.
    pub fn is_retry(&self) -> bool {
        self.failed > 0 || self.cohort.is_some()
    }

    /// Whether it has failed more than once, and not just in a batch that is being bisected: the first retry is as urgent
    /// as the first attempt.
    pub fn is_repeated(&self) -> bool {
        self.failed > 1 && self.cohort.is_none()
    }

    /// Asks for a read at that moment.
    pub fn read_at(&mut self, due: Moment) {
        self.reads.add(due);
    }

    /// A claim was acknowledged.
    pub fn acknowledged(&mut self, now: Moment) {
        self.phase = Phase::Held { confirmed: false, suspect: None };
        self.guard = None;
        self.failed = 0;
        self.last_failure = None;
        self.cohort = None;
        self.alone = None;
        self.permanent = None;
        self.outranked_other = false;
        if self.grace.as_ref().is_none_or(|grace| grace.confirmed && !grace.lasts(now)) {
            self.grace = Some(Grace { from: now, confirmed: false, lagging: false });
        }
        self.reads = CONFIRM.map(|after| now + after).into();
    }

    /// A read says that the address is ours.
    pub fn confirmed(&mut self, now: Moment) {
        if let Some(grace) = &mut self.grace {
            grace.confirmed = true;
            // The read before this one said something else, and nobody has claimed since.
            grace.lagging |= matches!(self.phase, Phase::Held { suspect: Some(_), .. });
        }
        self.phase = Phase::Held { confirmed: true, suspect: None };
        self.guard = None;
        self.failed = 0;
        self.last_failure = None;
        self.cohort = None;
        self.alone = None;
        self.permanent = None;
        self.outranked_other = false;
        self.confirmed_since.get_or_insert(now);
    }

    /// Whether it may go in one request with any other that may.
    pub fn is_free(&self) -> bool {
        self.alone.is_none() && self.cohort.is_none()
    }

    /// Whether a retry that is not due yet may go along with another.
    pub fn may_go_along(&self) -> bool {
        self.failed > 0
            && self.guard.is_none()
            && self.permanent.is_none()
            && self.is_free()
            && self.contest.with().is_none()
    }

    /// Whether a read that says that the address is ours may show what was before a line or a person asked for a claim of
    /// it: the one before it said the same.
    pub fn may_be_of_before(&self, began: Moment) -> bool {
        let was_ours = self.seen.as_ref().and_then(|s| s.owner.as_ref()).map(|o| &o.eni) == self.eni.as_ref();
        was_ours && self.asked.is_some_and(|asked| began < asked + GRACE)
    }

    /// Whether reads may still show the past.
    pub fn in_grace(&self, began: Moment) -> bool {
        self.grace.as_ref().is_some_and(|grace| grace.lasts(began))
    }
}
