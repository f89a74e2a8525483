//! The last failovers of each group, from the notify event to the read that confirms the new owner.
//!
//! The history cannot hold them: it is shared by all groups, joins what happens alike, and has the times of a clock that can be
//! set. Here each time is in milliseconds after the transition, by the boot clock.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ec2::{CallError, ErrorClass, Owner};
use super::ids::{EniId, ErrorCode, GroupName, InstanceId, RequestId};
use super::pause::Now;
use super::resource::Resource;
use super::vrrp::VrrpState;

/// How many failed attempts of a resource are kept: the first ones and the last one.
pub const MAX_FAILURES: usize = 8;

/// The last failovers of each group that this router has seen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failovers {
    groups: BTreeMap<GroupName, LastFailovers>,
}

/// The last failovers of one group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LastFailovers {
    /// The last time that this router became MASTER.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub became_master: Option<Failover>,
    /// The last time that it ceased to be MASTER, unless it has become MASTER since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_master: Option<Failover>,
}

/// A transition to MASTER or away from it, and what followed in EC2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failover {
    /// When the agent read the notify event, or inferred the state.
    pub time: Timestamp,
    /// The boot that `since_boot_ms` counts from; empty: unknown.
    boot: String,
    since_boot_ms: u64,
    /// The VRRP state before.
    pub from: VrrpState,
    /// The VRRP state after.
    pub to: VrrpState,
    /// Why the state has changed, in an operator's words.
    pub cause: String,
    /// What the group moved at that time.
    pub resources: Vec<MovedResource>,
}

/// What happened to one resource. Times are in milliseconds after the transition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovedResource {
    /// What moved.
    #[serde(flatten)]
    pub resource: Resource,
    /// When the first request for it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_ms: Option<u64>,
    /// How many attempts have ended, until a read has confirmed the owner.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempts: u32,
    /// The attempts that failed: the first ones, and the last one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<FailedAttempt>,
    /// The first attempt that EC2 acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<AcknowledgedAttempt>,
    /// The first read that shows the new owner: this router's ENI after a transition to MASTER, and else another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<ConfirmingRead>,
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedAttempt {
    /// When it began.
    pub began_ms: u64,
    /// When it ended.
    pub ended_ms: u64,
    /// What the failure means for the next attempt.
    pub class: ErrorClass,
    /// EC2's error code, or the product's word for a failure without one.
    pub code: ErrorCode,
    /// EC2's request id.
    pub request_id: Option<RequestId>,
}

/// An attempt that EC2 acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcknowledgedAttempt {
    /// When it began.
    pub began_ms: u64,
    /// When the answer arrived.
    pub ended_ms: u64,
    /// EC2's request id.
    pub request_id: Option<RequestId>,
}

/// A read that shows the new owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmingRead {
    /// When the answer arrived.
    pub ended_ms: u64,
    /// The owner's ENI.
    pub eni: EniId,
    /// The instance that the ENI is attached to.
    pub instance: Option<InstanceId>,
    /// EC2's request id; of several requests of one read, the last one's.
    pub request_id: Option<RequestId>,
}

/// A transition of a group.
#[derive(Debug, Clone, Copy)]
pub struct Transition<'a> {
    /// The state before.
    pub from: VrrpState,
    /// The state after.
    pub to: VrrpState,
    /// Why, in an operator's words.
    pub cause: &'a str,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

fn millis(time: Duration) -> u64 {
    time.as_millis().try_into().unwrap_or(u64::MAX)
}

impl Failover {
    fn new(now: &Now, Transition { from, to, cause }: Transition<'_>, resources: Vec<Resource>) -> Self {
        let moved = |resource| MovedResource {
            resource,
            requested_ms: None,
            attempts: 0,
            failures: Vec::new(),
            acknowledged: None,
            confirmed: None,
        };
        Self {
            time: now.wall,
            boot: now.boot.clone(),
            since_boot_ms: millis(now.since_boot),
            from,
            to,
            cause: cause.to_owned(),
            resources: resources.into_iter().map(moved).collect(),
        }
    }

    /// Whether the times of this boot can be compared with the transition's.
    fn is_of(&self, boot: &str) -> bool {
        self.boot == boot && !boot.is_empty()
    }

    /// The milliseconds from the transition to a time since the boot; none: it is earlier.
    fn after(&self, since_boot: Duration) -> Option<u64> {
        millis(since_boot).checked_sub(self.since_boot_ms)
    }
}

impl LastFailovers {
    /// Whether this router is MASTER, by the last of the transitions.
    fn is_master(&self) -> bool {
        self.left_master.is_none() && self.became_master.is_some()
    }

    /// The last one.
    fn last_mut(&mut self) -> Option<&mut Failover> {
        self.left_master.as_mut().or(self.became_master.as_mut())
    }
}

impl Failovers {
    /// The last failovers of a group.
    pub fn of(&self, group: &GroupName) -> Option<&LastFailovers> {
        self.groups.get(group)
    }

    /// The state of a group has changed; `resources` is what the group moves. Returns whether it is a failover. UNKNOWN is none:
    /// the router may still be MASTER, and if MASTER follows, it is the same failover.
    pub fn transition(
        &mut self,
        now: &Now,
        group: &GroupName,
        transition: Transition<'_>,
        resources: impl FnOnce() -> Vec<Resource>,
    ) -> bool {
        let last = self.groups.get(group);
        let was_master = last.is_some_and(|last| {
            last.is_master() && last.became_master.as_ref().is_some_and(|failover| failover.is_of(&now.boot))
        });
        match transition.to {
            VrrpState::Master if !was_master || transition.from != VrrpState::Unknown => {
                let became_master = Some(Failover::new(now, transition, resources()));
                self.groups.insert(group.clone(), LastFailovers { became_master, left_master: None });
                true
            }
            VrrpState::Backup | VrrpState::Fault | VrrpState::Stop if was_master => {
                let left_master = Some(Failover::new(now, transition, resources()));
                self.groups.entry(group.clone()).or_default().left_master = left_master;
                true
            }
            _ => false,
        }
    }

    /// What is still awaited of a resource of the group's last failover, at a time since that boot; with the milliseconds from
    /// the transition to that time.
    fn awaited(
        &mut self,
        boot: &str,
        since_boot: Duration,
        group: &GroupName,
        resource: &Resource,
    ) -> Option<(u64, &mut MovedResource)> {
        let failover = self.groups.get_mut(group)?.last_mut().filter(|failover| failover.is_of(boot))?;
        let at = failover.after(since_boot)?;
        let moved = failover.resources.iter_mut().find(|moved| moved.resource == *resource)?;
        moved.confirmed.is_none().then_some((at, moved))
    }

    /// A claim of the group's resource is sent. Returns whether this is the first one.
    pub fn requested(&mut self, now: &Now, group: &GroupName, resource: &Resource) -> bool {
        match self.awaited(&now.boot, now.since_boot, group, resource) {
            Some((at, moved)) if moved.requested_ms.is_none() => {
                moved.requested_ms = Some(at);
                true
            }
            _ => false,
        }
    }

    /// A claim of the group's resource has ended. One that began before the transition does not count. Returns whether it does.
    pub fn claimed(
        &mut self,
        now: &Now,
        duration: Duration,
        group: &GroupName,
        resource: &Resource,
        result: Result<Option<&RequestId>, &CallError>,
    ) -> bool {
        let began = now.since_boot.saturating_sub(duration);
        let Some((began_ms, moved)) = self.awaited(&now.boot, began, group, resource) else {
            return false;
        };
        let ended_ms = began_ms.saturating_add(millis(duration));
        moved.attempts = moved.attempts.saturating_add(1);
        match result {
            Ok(request_id) => {
                let acknowledged = AcknowledgedAttempt { began_ms, ended_ms, request_id: request_id.cloned() };
                moved.acknowledged.get_or_insert(acknowledged);
            }
            Err(error) => {
                let Ok(code) = ErrorCode::try_from(error.code()) else { return true };
                moved.failures.truncate(MAX_FAILURES - 1);
                let (class, request_id) = (error.class(), error.request_id.clone());
                moved.failures.push(FailedAttempt { began_ms, ended_ms, class, code, request_id });
            }
        }
        true
    }

    /// A read has ended at `since_boot` that shows the new owner of the group's resource. Returns whether it is the first one.
    pub fn confirmed(
        &mut self,
        boot: &str,
        since_boot: Duration,
        group: &GroupName,
        resource: &Resource,
        owner: &Owner,
        request_id: Option<&RequestId>,
    ) -> bool {
        let Some((ended_ms, moved)) = self.awaited(boot, since_boot, group, resource) else {
            return false;
        };
        let (eni, instance) = (owner.eni.clone(), owner.instance.clone());
        moved.confirmed = Some(ConfirmingRead { ended_ms, eni, instance, request_id: request_id.cloned() });
        true
    }

    /// What no read has confirmed yet: each group, whether this router became MASTER, the time of the transition since the boot,
    /// and the resource.
    pub fn unconfirmed(&self, boot: &str) -> Vec<(GroupName, bool, Duration, Resource)> {
        let mut all = Vec::new();
        for (group, last) in &self.groups {
            let became_master = last.is_master();
            let failover = last.left_master.as_ref().or(last.became_master.as_ref()).filter(|last| last.is_of(boot));
            for (failover, moved) in failover.into_iter().flat_map(|last| last.resources.iter().map(move |r| (last, r)))
            {
                if moved.confirmed.is_none() {
                    let at = Duration::from_millis(failover.since_boot_ms);
                    all.push((group.clone(), became_master, at, moved.resource.clone()));
                }
            }
        }
        all
    }

    /// Removes the groups that are no longer configured.
    pub fn retain(&mut self, is_configured: impl Fn(&GroupName) -> bool) {
        self.groups.retain(|group, _| is_configured(group));
    }

    /// Whether there is a group that is no longer configured.
    pub fn has_other_than(&self, is_configured: impl Fn(&GroupName) -> bool) -> bool {
        !self.groups.keys().all(is_configured)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::ec2::Failure;
    use super::*;

    fn now(boot: &str, ms: u64) -> Now {
        let wall = Timestamp::from_millisecond(1_800_000_000_000 + ms as i64).expect("a time");
        Now { wall, boot: boot.to_owned(), since_boot: Duration::from_millis(ms) }
    }

    fn web() -> GroupName {
        GroupName::try_from("web").expect("a name")
    }

    fn vip() -> Resource {
        Ipv4Addr::new(10, 99, 0, 100).into()
    }

    fn change(failovers: &mut Failovers, now: &Now, from: VrrpState, to: VrrpState) -> bool {
        failovers.transition(now, &web(), Transition { from, to, cause: "keepalived: X" }, || vec![vip()])
    }

    fn last(failovers: &Failovers) -> &LastFailovers {
        failovers.of(&web()).expect("a failover")
    }

    fn became(failovers: &Failovers) -> &MovedResource {
        &last(failovers).became_master.as_ref().expect("a failover").resources[0]
    }

    fn throttled() -> CallError {
        let code = ErrorCode::try_from("RequestLimitExceeded").expect("a code");
        let mut error = CallError::new(Failure::Api { code, class: ErrorClass::Throttled }, "Request limit exceeded.");
        error.request_id = RequestId::try_from("r-1").ok();
        error
    }

    fn owner(n: u8) -> Owner {
        let eni = EniId::try_from(format!("eni-000000{n:02x}")).expect("an id");
        Owner { eni, instance: InstanceId::try_from(format!("i-000000{n:02x}")).ok(), primary: false }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn unknown_is_no_failover_and_master_after_it_is_the_same_one() {
        use VrrpState::*;
        let mut failovers = Failovers::default();
        let mut at = 0;
        for (from, to, is_one, is_master, why) in [
            (Unknown, Backup, false, false, "it was not MASTER before, as far as it is known"),
            (Backup, Master, true, true, "a failover"),
            (Master, Unknown, false, true, "keepalived is restarted"),
            (Unknown, Master, false, true, "and it is MASTER still"),
            (Master, Unknown, false, true, "once more"),
            (Unknown, Backup, true, false, "and it is not MASTER any more"),
            (Backup, Fault, false, false, "it was not MASTER"),
            (Fault, Unknown, false, false, ""),
            (Unknown, Master, true, true, "it became MASTER while the state was not known"),
            (Master, Master, true, true, "a notify event that was lost"),
            (Master, Stop, true, false, "keepalived ends"),
        ] {
            at += 1_000;
            assert_eq!(change(&mut failovers, &now("x", at), from, to), is_one, "{from} -> {to}: {why}");
            let is = failovers.of(&web()).is_some_and(LastFailovers::is_master);
            assert_eq!(is, is_master, "{from} -> {to}: {why}");
        }
        let LastFailovers { became_master: Some(became), left_master: Some(left) } = last(&failovers) else {
            panic!("{failovers:?}")
        };
        assert_eq!((became.time, left.time), (now("x", 10_000).wall, now("x", 11_000).wall));
        assert!(change(&mut failovers, &now("x", 12_000), Stop, Master) && last(&failovers).left_master.is_none());
        // After a reboot nothing is known of the time before.
        assert!(!change(&mut failovers, &now("y", 1_000), Unknown, Backup));
        assert!(last(&failovers).left_master.is_none());
        assert!(change(&mut failovers, &now("y", 2_000), Unknown, Master));
    }

    #[test]
    fn times_count_from_the_transition_whatever_the_clock_does() {
        let mut failovers = Failovers::default();
        assert!(change(&mut failovers, &now("x", 5_000), VrrpState::Backup, VrrpState::Master));
        // The clock of the day is set back by a year; this one cannot be.
        let at = |since_boot: u64| Now { wall: Timestamp::UNIX_EPOCH, ..now("x", since_boot) };
        assert!(failovers.requested(&at(5_001), &web(), &vip()));
        assert!(!failovers.requested(&at(5_200), &web(), &vip()), "only the first one is kept");
        assert!(failovers.claimed(&at(5_301), ms(300), &web(), &vip(), Err(&throttled())));
        let request = RequestId::try_from("r-2").expect("an id");
        assert!(failovers.claimed(&at(5_500), ms(90), &web(), &vip(), Ok(Some(&request))));
        assert!(failovers.confirmed("x", ms(6_502), &web(), &vip(), &owner(1), None));
        let expected = MovedResource {
            resource: vip(),
            requested_ms: Some(1),
            attempts: 2,
            failures: vec![FailedAttempt {
                began_ms: 1,
                ended_ms: 301,
                class: ErrorClass::Throttled,
                code: ErrorCode::try_from("RequestLimitExceeded").expect("a code"),
                request_id: RequestId::try_from("r-1").ok(),
            }],
            acknowledged: Some(AcknowledgedAttempt { began_ms: 410, ended_ms: 500, request_id: Some(request) }),
            confirmed: Some(ConfirmingRead {
                ended_ms: 1_502,
                eni: owner(1).eni,
                instance: owner(1).instance,
                request_id: None,
            }),
        };
        assert_eq!(*became(&failovers), expected);
        assert!(
            !failovers.claimed(&at(9_000), ms(90), &web(), &vip(), Ok(None)),
            "a later claim is none of this failover"
        );
        assert!(!failovers.confirmed("x", ms(9_500), &web(), &vip(), &owner(1), None));
        let text = serde_json::to_string(&failovers).expect("JSON");
        assert_eq!(serde_json::from_str::<Failovers>(&text).expect("read"), failovers);
    }

    #[test]
    fn what_belongs_to_another_time_does_not_count() {
        let mut failovers = Failovers::default();
        assert!(change(&mut failovers, &now("x", 5_000), VrrpState::Backup, VrrpState::Master));
        for (at, duration, why) in [
            (now("x", 5_100), 101, "it began before the notify event"),
            (now("y", 5_100), 10, "after a reboot"),
            (now("", 5_100), 10, "the boot is not known"),
        ] {
            assert!(!failovers.claimed(&at, ms(duration), &web(), &vip(), Ok(None)), "{why}");
        }
        let other: Resource = Ipv4Addr::new(10, 99, 0, 101).into();
        assert!(!failovers.claimed(&now("x", 5_100), ms(10), &web(), &other, Ok(None)), "configured later");
        assert_eq!(became(&failovers).attempts, 0);
        assert_eq!(failovers.unconfirmed("x"), [(web(), true, ms(5_000), vip())]);
        assert_eq!(failovers.unconfirmed("y"), []);
        assert!(change(&mut failovers, &now("x", 7_000), VrrpState::Master, VrrpState::Backup));
        assert_eq!(failovers.unconfirmed("x"), [(web(), false, ms(7_000), vip())]);
        assert!(!failovers.has_other_than(|group| *group == web()));
        assert!(failovers.has_other_than(|_| false));
        failovers.retain(|_| false);
        assert_eq!(failovers, Failovers::default());
    }

    #[test]
    fn failures_are_bounded() {
        let mut failovers = Failovers::default();
        assert!(change(&mut failovers, &now("x", 0), VrrpState::Backup, VrrpState::Master));
        for n in 1..=1_000 {
            assert!(failovers.claimed(&now("x", 1_000 * n), ms(10), &web(), &vip(), Err(&throttled())));
        }
        let moved = became(&failovers);
        let ends: Vec<u64> = moved.failures.iter().map(|failed| failed.ended_ms).collect();
        assert_eq!((moved.attempts, ends.len(), ends[0], ends[7]), (1_000, MAX_FAILURES, 1_000, 1_000_000));
    }
}
