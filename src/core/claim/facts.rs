//! What the state machine knows, as the status report says it.

use std::net::Ipv4Addr;

use jiff::Timestamp;

use super::address::{Address, GRACE_PERIOD, Phase};
use super::event::Misplaced;
use super::group::{Group, GroupState};
use super::readiness::{refusal, taken_from};
use super::{BootInstant, Cause, Machine};
use crate::model::ec2::{CallError, Owner, Taker};
use crate::model::ids::InterfaceName;
use crate::model::vrrp::{NotifyState, VrrpState};
use crate::report::command::quoted;
use crate::report::model::{self as report, FailedCall, Verdict, Who};
use crate::report::remedies;
use crate::report::status::time;

/// Why a claim that no line asked for waits.
const WAITS_FOR_PRECONDITION: &str =
    "not ours; claimed as soon as keepalived shows that it lives and the address is on an interface";

impl Machine {
    /// The groups of the report. `clock` tells the time of a moment.
    pub fn report(&self, now: BootInstant, clock: impl Fn(BootInstant) -> Timestamp) -> Vec<report::GroupReport> {
        self.groups
            .iter()
            .map(|(name, group)| report::GroupReport {
                name: name.to_string(),
                vrrp: if group.vrid.is_some() { group.state.vrrp() } else { VrrpState::Unknown },
                vrrp_since: Some(clock(group.since)),
                vrrp_reason: match &group.state {
                    GroupState::Unknown { why, .. } => Some(why.text().to_owned()),
                    GroupState::Known { .. } => None,
                },
                disabled: group.disabled,
                paused_until: group.paused_until.map(&clock),
                pause_not_saved: None,
                errors: group.problems.iter().map(ToString::to_string).collect(),
                addresses: group
                    .addresses
                    .iter()
                    .filter_map(|ip| Some((*ip, self.addresses.get(ip)?)))
                    .map(|(ip, address)| self.address_report(now, &clock, group, ip, address))
                    .collect(),
            })
            .collect()
    }

    /// Whether there is nothing to read the owner of.
    pub fn has_nothing_to_read(&self) -> bool {
        self.addresses.values().all(|a| self.groups.get(&a.group).is_none_or(|g| g.disabled))
    }

    /// Why no read that began at `since` or later says who has the addresses, if none does.
    pub fn unread_since(&self, since: BootInstant) -> Option<String> {
        if self.has_nothing_to_read() {
            return None;
        }
        if self.has_read_since(since) {
            let error = self.verification.error.as_ref()?;
            return Some(format!("EC2 was asked, and the read failed: {}", remedy(error)));
        }
        let unknown = self.interface_enis.values().all(|interface_eni| interface_eni.eni.is_none());
        Some(match self.interface_enis.iter().find_map(|(interface, b)| Some((interface, b.error.as_ref()?))) {
            Some((interface, error)) if unknown => unresolved(interface, error),
            _ if unknown => "IMDS has not said yet which network interface (ENI) has the addresses".to_owned(),
            _ => "EC2 has not answered yet; see the route, the firewall and DNS to EC2's end point".to_owned(),
        })
    }

    fn address_report(
        &self,
        now: BootInstant,
        clock: &impl Fn(BootInstant) -> Timestamp,
        group: &Group,
        ip: Ipv4Addr,
        address: &Address,
    ) -> report::AddressReport {
        let (verdict, reason) = self.verdict(now, clock, group, ip, address);
        report::AddressReport {
            address: ip,
            interface: address.interface.clone(),
            eni: address.eni.clone(),
            local: Some(self.is_local(ip)),
            local_since: address.local_since.map(clock),
            owner: address.owner_read.as_ref().map(|owner_read| report::OwnerReport {
                at: clock(owner_read.at),
                who: self.who(group, address, owner_read.owner.as_ref()),
                eni: owner_read.owner.as_ref().map(|o| o.eni.clone()),
                instance: owner_read.owner.as_ref().and_then(|o| o.instance.clone()),
            }),
            verdict,
            reason,
            last_claim: address.last_claim.as_ref().map(|claim| {
                let error = claim.answer.as_ref().and_then(|(at, result)| Some((at, result.as_ref().err()?)));
                report::ClaimReport {
                    eni: Some(claim.eni.clone()),
                    at: clock(claim.began),
                    duration_ms: claim.answer.as_ref().map(|(at, _)| claim.began.until(*at).as_millis() as u64),
                    request_id: match &claim.answer {
                        Some((_, Ok(id))) => id.clone(),
                        Some((_, Err(error))) => error.request_id.clone(),
                        None => None,
                    },
                    error: error.map(|(at, error)| failure(clock(*at), error)),
                }
            }),
            last_failure: address.last_failure.as_ref().map(|(at, error)| failure(clock(*at), error)),
            // The agent has it, in a state file.
            assign_permission_proven_at: None,
            command: None,
        }
    }

    fn who(&self, group: &Group, address: &Address, owner: Option<&Owner>) -> Who {
        let others = group.peers.iter().filter_map(|p| self.peers.get(p)?.instance.clone()).collect();
        Who::of(owner, address.eni.as_ref(), self.instance.as_ref(), &others)
    }

    fn verdict(
        &self,
        now: BootInstant,
        clock: &impl Fn(BootInstant) -> Timestamp,
        group: &Group,
        ip: Ipv4Addr,
        address: &Address,
    ) -> (Verdict, Option<String>) {
        if group.disabled {
            return (Verdict::Disabled, None);
        }
        if group.paused_until.is_some() {
            let name = quoted(address.group.as_str());
            let resume = format!("claims are paused; `force aws-vipa resume {name}` ends that");
            return (Verdict::Paused, Some(resume));
        }
        let owner = address.owner_read.as_ref().and_then(|s| s.owner.as_ref());
        match &group.state {
            GroupState::Unknown { why, .. } => (Verdict::Unknown, Some(unknown(*why))),
            GroupState::Known { vrrp: VrrpState::Master, .. } => self.master_verdict(now, clock, ip, address, owner),
            GroupState::Known { vrrp: vrrp @ (VrrpState::Fault | VrrpState::Stop), cause } => {
                let why = match cause {
                    Cause::NoTimer => format!("{}: VRRP is in {vrrp}, or hangs; see `show vrrp`", cause.text()),
                    _ => format!("VRRP is in {vrrp}: see `show vrrp` for what it tracks"),
                };
                (Verdict::StandbyNotReady, Some(why))
            }
            GroupState::Known { .. } => match self.obstacle_of(ip, address, |at| format!(" at {}", time(clock(at)))) {
                None => (Verdict::StandbyNotReady, Some("readiness has not been read yet".to_owned())),
                Some(Some(obstacle)) => (Verdict::StandbyNotReady, Some(obstacle)),
                Some(None) if matches!(self.stays_misplaced(now, ip, address), Some((Misplaced::Unexpected, _))) => {
                    let interface = &address.held_on;
                    let why = format!(
                        "VRRP is {} here, and the address is on {interface} all the same: if `show vrrp` says MASTER, \
                         `restart aws-vipa`; if not, delete it from {interface}, where only keepalived should put it",
                        group.state.vrrp()
                    );
                    (Verdict::Drift, Some(why))
                }
                Some(None)
                    if group.since + GRACE_PERIOD < now && self.who(group, address, owner) == Who::ThisRouter =>
                {
                    let why = "VRRP is BACKUP here, and EC2 still sends the address's packets here: the router that is \
                               MASTER has not claimed it; see `show aws-vipa status` there";
                    (Verdict::Drift, Some(why.to_owned()))
                }
                Some(None) => (Verdict::StandbyReady, self.holder(group, address).map(taken_from)),
            },
        }
    }

    fn master_verdict(
        &self,
        now: BootInstant,
        clock: &impl Fn(BootInstant) -> Timestamp,
        ip: Ipv4Addr,
        address: &Address,
        owner: Option<&Owner>,
    ) -> (Verdict, Option<String>) {
        if let Some(with) = address.flap_damping.contested_by() {
            if with == Taker::Peer {
                return (Verdict::Contested, Some(contested_with_peer(address, owner)));
            }
            let name = quoted(address.group.as_str());
            let next = match owner {
                Some(owner) if address.eni.as_ref() == Some(&owner.eni) => {
                    format!("ours now; `show aws-vipa group {name}` tells who took it: find out what claims it there")
                }
                owner => {
                    let nobody = if address.owner_read.is_some() { "nobody" } else { "whom no read has told yet" };
                    let by = owner.map_or_else(|| nobody.to_owned(), text);
                    format!(
                        "last seen with {by}; find out what claims it there; `force aws-vipa claim {name}` claims it now"
                    )
                }
            };
            let why = format!("taken away more than three times in five minutes, {next}");
            return (Verdict::Contested, Some(why));
        }
        if let Some(error) = &address.rejection.permanent {
            let again = "tried again every minute, and when the credentials or the configuration change";
            return (Verdict::Drift, Some(format!("{}; {again}", refusal(ip, address, error))));
        }
        let unknown_eni =
            || Some(unresolved(&address.interface, self.interface_enis.get(&address.interface)?.error.as_ref()?));
        if let Some((Misplaced::Missing, since)) = self.stays_misplaced(now, ip, address) {
            let (interface, since) = (&address.held_on, time(clock(since)));
            let why = format!(
                "EC2 sends its packets here, and it is not on {interface} since {since}: they are lost; see `show log vrrp` \
                 for why keepalived does not put it there; `restart vrrp` does, or has the other router take over"
            );
            return (Verdict::Drift, Some(why));
        }
        match &address.phase {
            Phase::Assigned { verified: true, mismatch: None } => {
                if let Some(why) = self.elsewhere(address) {
                    return (Verdict::Drift, Some(why));
                }
                let read = address.owner_read.as_ref().map(|owner_read| owner_read.at).unwrap_or_default();
                let global = &self.config.global;
                if read + (global.verify_interval.duration() + global.request_timeout.duration()) * 2 >= now {
                    return (Verdict::Ok, None);
                }
                let why = format!("EC2 last said at {} that it is ours{}", time(clock(read)), self.unread());
                (Verdict::Unknown, Some(why))
            }
            Phase::Assigned { verified: false, mismatch: None } => {
                (Verdict::Claiming, Some(format!("claimed; no read has confirmed it yet{}", self.unread())))
            }
            Phase::Assigned { mismatch: Some(mismatch), .. } => {
                let by = mismatch.owner.as_ref().map_or_else(|| "nobody".to_owned(), text);
                let unread = self.unread();
                let why = format!("EC2 says that {by} has it; looking again before claiming it back{unread}");
                (Verdict::Drift, Some(why))
            }
            Phase::AwaitLocalAddress { .. } if !self.is_local(ip) => (
                Verdict::Unknown,
                Some("the group is MASTER, and the address is not on any local interface: see `show vrrp`".to_owned()),
            ),
            Phase::AwaitLocalAddress { .. } => (Verdict::Unknown, Some(unknown(Cause::New))),
            Phase::CheckOwner { .. } => {
                (Verdict::Claiming, Some(format!("reading who owns it before claiming{}", self.unread())))
            }
            Phase::Pending { .. } | Phase::InFlight(_) => {
                let why = address.eni.is_none().then(unknown_eni).flatten();
                let spent = || {
                    let due = self.allowed_at(now, address).filter(|at| address.phase.due().is_some() && *at > now)?;
                    let at = time(clock(due));
                    Some(format!("too many claims of this network interface (ENI) of late: the next at {at}"))
                };
                let failed = || {
                    let again = spent().unwrap_or_else(|| "tried again soon".to_owned());
                    Some(format!("{}; {again}", refusal(ip, address, &address.last_failure.as_ref()?.1)))
                };
                let guarded = || address.attempt.precondition.as_ref().map(|_| WAITS_FOR_PRECONDITION.to_owned());
                (Verdict::Claiming, why.or_else(failed).or_else(spent).or_else(guarded))
            }
            Phase::Idle => (Verdict::Unknown, None),
        }
    }

    /// Why the last read failed, where it did, to follow what is known.
    fn unread(&self) -> String {
        self.verification
            .error
            .as_ref()
            .map_or_else(String::new, |error| format!("; the last read failed: {}", remedy(error)))
    }
}

/// The peer and this router take the address from each other.
fn contested_with_peer(address: &Address, owner: Option<&Owner>) -> String {
    let now = match owner {
        Some(owner) if address.eni.as_ref() == Some(&owner.eni) => "this router has it now".to_owned(),
        Some(owner) => format!("last seen with {}", text(owner)),
        None => "last seen with no network interface".to_owned(),
    };
    format!(
        "the other router of the group has taken it more than three times in five minutes, {now}: both routers were MASTER. \
         If `show vrrp` still says MASTER on both, restore the VRRP link between them; if not, this ends by itself"
    )
}

pub(super) fn unresolved(interface: &InterfaceName, error: &CallError) -> String {
    format!("the network interface (ENI) of {interface} is not known: {error}")
}

/// What failed, and what an operator can do about it.
pub(super) fn remedy(error: &CallError) -> String {
    match remedies::remedy(&error.failure) {
        Some(remedy) => format!("{error}; {remedy}"),
        None => error.to_string(),
    }
}

fn unknown(why: Cause) -> String {
    let next = match why {
        Cause::NoWriter => {
            ": no claims; if `show vrrp` says that it runs, `sudo systemctl reload keepalived` attaches it without a \
             failover; if not, see `show log vrrp`"
        }
        Cause::NoLiveness => {
            ": no claims until it does; if `show log vrrp` says that it hangs, see that the other router is MASTER before \
             `restart vrrp` here"
        }
        Cause::Notify(NotifyState::Stop) => ": see `show vrrp`",
        _ => "",
    };
    format!("{}{next}", why.text())
}

pub(super) fn text(owner: &Owner) -> String {
    match &owner.instance {
        Some(instance) => format!("{} of {instance}", owner.eni),
        None => format!("{} of no instance", owner.eni),
    }
}

fn failure(at: Timestamp, error: &CallError) -> FailedCall {
    FailedCall {
        at,
        code: error.code().to_owned(),
        message: error.message.clone(),
        request_id: error.request_id.clone(),
    }
}
