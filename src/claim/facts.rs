//! What the state machine knows, as the status report says it.

use std::net::Ipv4Addr;

use jiff::Timestamp;

use super::address::{Address, GRACE, Phase};
use super::group::{Belief, Group};
use super::message::NotifyState;
use super::{Cause, Machine, Moment};
use crate::names::InstanceId;
use crate::ownership::{CallError, ErrorClass, Owner};
use crate::status::command::quoted;
use crate::status::report::{self, Failure, Verdict, Vrrp, Who};

impl Machine {
    /// The groups of the report. `clock` tells the time of a moment.
    pub fn report(
        &self,
        now: Moment,
        instance: Option<&InstanceId>,
        clock: impl Fn(Moment) -> Timestamp,
    ) -> Vec<report::Group> {
        self.groups
            .iter()
            .map(|(name, group)| report::Group {
                name: name.to_string(),
                vrrp: if group.vrid.is_some() { group.belief.vrrp() } else { Vrrp::Unknown },
                vrrp_since: Some(clock(group.since)),
                vrrp_reason: match &group.belief {
                    Belief::Unknown { why, .. } => Some(why.text().to_owned()),
                    Belief::Known { .. } => None,
                },
                disabled: group.disabled,
                paused_until: group.paused_until.map(&clock),
                faults: group.problems.iter().map(ToString::to_string).collect(),
                addresses: group
                    .addresses
                    .iter()
                    .filter_map(|ip| Some((*ip, self.addresses.get(ip)?)))
                    .map(|(ip, address)| self.address_report(now, instance, &clock, group, ip, address))
                    .collect(),
            })
            .collect()
    }

    fn address_report(
        &self,
        now: Moment,
        instance: Option<&InstanceId>,
        clock: &impl Fn(Moment) -> Timestamp,
        group: &Group,
        ip: Ipv4Addr,
        address: &Address,
    ) -> report::Address {
        let (verdict, reason) = self.verdict(now, instance, group, ip, address);
        report::Address {
            address: ip,
            interface: address.interface.clone(),
            eni: address.eni.clone(),
            local: Some(self.is_local(ip)),
            local_since: address.local_since.map(clock),
            owner: address.seen.as_ref().map(|seen| report::Owner {
                at: clock(seen.at),
                who: self.who(instance, group, address, seen.owner.as_ref()),
                eni: seen.owner.as_ref().map(|o| o.eni.clone()),
                instance: seen.owner.as_ref().and_then(|o| o.instance.clone()),
            }),
            verdict,
            reason,
            last_claim: address.last_claim.as_ref().map(|claim| {
                let error = claim.answer.as_ref().and_then(|(at, result)| Some((at, result.as_ref().err()?)));
                report::Claim {
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
            assign_right_proven_at: address
                .eni
                .as_ref()
                .and_then(|eni| self.senders.get(eni))
                .and_then(|sender| sender.proven)
                .map(clock),
            command: None,
        }
    }

    fn who(&self, instance: Option<&InstanceId>, group: &Group, address: &Address, owner: Option<&Owner>) -> Who {
        let others = group.peers.iter().filter_map(|p| self.peers.get(p)?.instance.clone()).collect();
        Who::of(owner, address.eni.as_ref(), instance, &others)
    }

    fn verdict(
        &self,
        now: Moment,
        instance: Option<&InstanceId>,
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
        let owner = address.seen.as_ref().and_then(|s| s.owner.as_ref());
        match &group.belief {
            Belief::Unknown { why, .. } => (Verdict::Unknown, Some(unknown(*why))),
            Belief::Known { vrrp: Vrrp::Master, .. } => self.master_verdict(ip, address, owner),
            Belief::Known { vrrp: vrrp @ (Vrrp::Fault | Vrrp::Stop), .. } => {
                let why = format!("VRRP is in {vrrp}: see `show vrrp` for what it tracks");
                (Verdict::StandbyNotReady, Some(why))
            }
            Belief::Known { .. } => match self.obstacle(group) {
                None => (Verdict::StandbyNotReady, Some("readiness has not been read yet".to_owned())),
                Some(Some(obstacle)) => (Verdict::StandbyNotReady, Some(obstacle)),
                Some(None) if group.since + GRACE < now => match self.who(instance, group, address, owner) {
                    Who::ThisRouter => (
                        Verdict::Drift,
                        Some(
                            "VRRP is BACKUP here, and EC2 still sends the address's packets here: the router that is \
                             MASTER has not claimed it; see `show aws-vipa status` there"
                                .to_owned(),
                        ),
                    ),
                    _ => (Verdict::StandbyReady, None),
                },
                Some(None) => (Verdict::StandbyReady, None),
            },
        }
    }

    fn master_verdict(&self, ip: Ipv4Addr, address: &Address, owner: Option<&Owner>) -> (Verdict, Option<String>) {
        let failed = address.last_claim.as_ref().and_then(|c| c.answer.as_ref()).and_then(|(_, r)| r.as_ref().err());
        if address.contest.is_on() {
            let by = owner.map_or_else(String::new, |o| format!(" with {}", text(o)));
            let why = format!(
                "taken away more than three times in five minutes, last seen{by}; find out what claims {ip} there; \
                 `force aws-vipa claim {}` claims it now",
                quoted(address.group.as_str())
            );
            return (Verdict::Contested, Some(why));
        }
        let unresolved = || {
            let error = self.bindings.get(&address.interface)?.error.as_ref()?;
            Some(format!("the network interface (ENI) of {} is not known: {error}", address.interface))
        };
        match &address.phase {
            Phase::Held { confirmed: true, suspect: None } => (Verdict::Ok, None),
            Phase::Held { confirmed: false, suspect: None } => {
                (Verdict::Claiming, Some("claimed; no read has confirmed it yet".to_owned()))
            }
            Phase::Held { suspect: Some(suspect), .. } => {
                let by = suspect.owner.as_ref().map_or_else(|| "nobody".to_owned(), text);
                (Verdict::Drift, Some(format!("EC2 says that {by} has it; looking again before claiming it back")))
            }
            _ if address.permanent.is_some() => {
                let error = address.permanent.as_ref().map(remedy).unwrap_or_default();
                (Verdict::Drift, Some(error))
            }
            Phase::Appearing { .. } if !self.is_local(ip) => (
                Verdict::Unknown,
                Some("the group is MASTER, and the address is not on any local interface: see `show vrrp`".to_owned()),
            ),
            Phase::Appearing { .. } => (Verdict::Unknown, Some(unknown(Cause::New))),
            Phase::Adopting { .. } => (Verdict::Claiming, Some("reading who owns it before claiming".to_owned())),
            Phase::Wanted { .. } | Phase::InFlight(_) => {
                let why = address.eni.is_none().then(unresolved).flatten();
                (Verdict::Claiming, why.or_else(|| failed.map(remedy)))
            }
            Phase::Rest => (Verdict::Unknown, None),
        }
    }

    /// What would keep a standby from taking over: none of it is known yet; nothing; or this.
    pub(super) fn obstacle(&self, group: &Group) -> Option<Option<String>> {
        let mut addresses = group.addresses.iter().filter_map(|ip| self.addresses.get(ip));
        for address in addresses.clone() {
            let binding = self.bindings.get(&address.interface)?;
            if let Some(error) = binding.error.as_ref().filter(|_| binding.eni.is_none()) {
                let interface = &address.interface;
                return Some(Some(format!("the network interface (ENI) of {interface} is not known: {error}")));
            }
        }
        if let Some(error) = &self.sweep.error {
            return Some(Some(remedy(error)));
        }
        if let Some(error) = addresses.find_map(|a| a.permanent.as_ref()) {
            return Some(Some(format!("the last claim from here failed: {}", remedy(error))));
        }
        self.sweep.success?;
        Some(None)
    }
}

/// What has failed, and what a person can do about it.
fn remedy(error: &CallError) -> String {
    let advice = match error.class {
        ErrorClass::Denied => {
            "; correct the credentials or the IAM policy; tried again every minute and when they change"
        }
        ErrorClass::Clock => "; correct the clock: `show ntp`",
        ErrorClass::NoSuchInterface => "; see which network interface is attached, and `aws-vipa network-interface-id`",
        ErrorClass::BadAddress => {
            "; the address must be in the ENI's subnet, be nobody's primary address, and the ENI must have room for it"
        }
        ErrorClass::TimedOut => "; see the route, the firewall and DNS to EC2's end point",
        ErrorClass::Transient if error.code == "Connection" => {
            "; see the route, the firewall and DNS to EC2's end point"
        }
        ErrorClass::Transient => "; tried again soon",
        ErrorClass::Throttled => "; something in this account and region calls EC2 too often",
        ErrorClass::Refused => "",
    };
    format!("{error}{advice}")
}

fn unknown(why: Cause) -> String {
    let next = match why {
        Cause::NoWriter => ": no claims; see `show vrrp` and `show log vrrp`, then `restart vrrp`",
        Cause::NoLife => ": no claims until it does; see `show vrrp` and `show log vrrp`",
        Cause::Line(NotifyState::Stop) => ": see `show vrrp`",
        _ => "",
    };
    format!("{}{next}", why.text())
}

fn text(owner: &Owner) -> String {
    match &owner.instance {
        Some(instance) => format!("{} of {instance}", owner.eni),
        None => format!("{}, which is attached to no instance,", owner.eni),
    }
}

fn failure(at: Timestamp, error: &CallError) -> Failure {
    Failure { at, code: error.code.clone(), message: error.message.clone(), request_id: error.request_id.clone() }
}
