//! The status report: what the agent answers on its socket, and what `show status --json` prints.
//!
//! Its shape is stable: fields are added, never renamed or removed, while `format` stays 1. Times are RFC 3339 in UTC.
//! A fact is a value and the time at which it was true; its age is `generated_at` minus that time.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::command::ClaimCommand;
use crate::model::ec2::{CallError, ErrorClass, Failure};
use crate::model::history::{Kind, Record};
use crate::model::ids::{EniId, GroupName, InstanceId, InterfaceName, Region, RequestId};
use crate::model::verdict::{Verdict, Who};
use crate::model::vrrp::VrrpState;

/// The whole report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`](crate::FORMAT).
    pub format: u64,
    /// When this was put together.
    pub generated_at: Timestamp,
    /// About the agent; absent if it did not answer, and then `agent_error` says why.
    pub agent: Option<AgentReport>,
    /// Why the agent did not answer.
    pub agent_error: Option<String>,
    /// What was asked for this report and did not answer, and why, a sentence each.
    #[serde(default)]
    pub not_answered: Vec<String>,
    /// About the transition hook in keepalived.
    pub hook: HookReport,
    /// About this instance and its way to EC2.
    pub ec2: Ec2Report,
    /// The groups that have an `aws-vipa` node, in the order of their names.
    pub groups: Vec<GroupReport>,
    /// What has happened, oldest first, where it was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Record>,
}

/// The running agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentReport {
    /// The version of the package that it is from.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// When it started.
    pub since: Timestamp,
    /// Why it does not use the current config.json or groups.json, if so.
    pub file_error: Option<String>,
    /// The effect of that; absent if it uses both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_error_kind: Option<FileErrorKind>,
}

/// The effect of a file that the agent cannot use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileErrorKind {
    /// The agent uses what it read before.
    UsingPrevious,
    /// The agent has never read it, and claims nothing.
    NoConfiguration,
    /// A newer version of the package wrote it. The agent uses what it read before, or claims nothing.
    Newer,
}

/// The transition hook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HookReport {
    /// Whether keepalived holds the FIFO open; absent where it is not known.
    pub attached: Option<bool>,
    /// Since when that is so.
    pub since: Option<Timestamp>,
    /// When the last notify event was read.
    pub last_line_at: Option<Timestamp>,
    /// The last keepalived activity: a notify event, or its VRRP process running.
    pub last_activity_at: Option<Timestamp>,
    /// How often the FIFO was full: notify events may be lost.
    pub fifo_full_count: u64,
}

/// The instance and its way to EC2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ec2Report {
    /// This instance, from IMDS.
    pub instance: Option<InstanceId>,
    /// The region that is called.
    pub region: Option<Region>,
    /// The endpoint, where the configuration names one.
    pub endpoint_url: Option<String>,
    /// Where the credentials come from, e.g. `instance role router` or `file /config/aws/credentials, profile default`.
    pub credentials: String,
    /// When they were loaded.
    pub credentials_loaded_at: Option<Timestamp>,
    /// When they end.
    pub credentials_expire_at: Option<Timestamp>,
    /// Why the last attempt to load them failed, if it did, and what to do; the previous ones may still be valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_error: Option<String>,
    /// The last call that EC2 answered with success.
    pub last_success_at: Option<Timestamp>,
    /// The last failure, if it is newer than the last success.
    pub last_error: Option<FailedCall>,
    /// EC2's clock minus ours, in seconds, where an answer showed more than a few.
    pub clock_skew: Option<i64>,
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailedCall {
    /// When it failed.
    pub at: Timestamp,
    /// What the failure means for the next attempt.
    pub class: ErrorClass,
    /// EC2's error code; where EC2 did not answer, one word for what failed.
    pub code: String,
    /// The message of EC2, IMDS or the transport.
    pub message: String,
    /// EC2's request id.
    pub request_id: Option<RequestId>,
}

impl FailedCall {
    /// The failure of a call at this time.
    pub fn new(at: Timestamp, error: &CallError) -> Self {
        Self {
            at,
            class: error.class(),
            code: error.code().to_owned(),
            message: error.message.clone(),
            request_id: error.request_id.clone(),
        }
    }

    /// What failed; none where the code is no valid one.
    pub(crate) fn failure(&self) -> Option<Failure> {
        Some(Failure::of(self.code.as_str().try_into().ok()?, self.class))
    }
}

/// One group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupReport {
    /// Its name; a name that keepalived cannot carry stands only in `skipped` groups, as it was configured.
    pub name: String,
    /// What VRRP says.
    pub vrrp: VrrpState,
    /// Since when, as far as the agent knows.
    pub vrrp_since: Option<Timestamp>,
    /// Why the state is UNKNOWN.
    pub vrrp_reason: Option<String>,
    /// Whether the group is switched off by `disable`.
    pub disabled: bool,
    /// Until when a person has paused it.
    pub paused_until: Option<Timestamp>,
    /// Why the pause, or its end, is not on disk, if so: a restart of the agent would lose it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_not_saved: Option<String>,
    /// The faults that keep it, or some of its addresses, out.
    pub errors: Vec<String>,
    /// Its addresses.
    pub addresses: Vec<AddressReport>,
}

/// One virtual address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AddressReport {
    /// The address.
    pub address: Ipv4Addr,
    /// Whose ENI takes it.
    pub interface: InterfaceName,
    /// That ENI, once it is known.
    pub eni: Option<EniId>,
    /// Whether it is on a local interface; absent where it is not known.
    pub local: Option<bool>,
    /// Since when it is, or is not, as far as the agent has seen it.
    pub local_since: Option<Timestamp>,
    /// Who has it in EC2; absent where it was never read.
    pub owner: Option<OwnerReport>,
    /// Whether VRRP, EC2 and the kernel agree about it.
    pub verdict: Verdict,
    /// Why, and what to do, where the verdict is not OK; a warning beside STANDBY-READY.
    pub reason: Option<String>,
    /// The last claim.
    pub last_claim: Option<ClaimReport>,
    /// Why a claim failed last, while none has succeeded since: the last one may be in flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<FailedCall>,
    /// When the right to assign to this ENI was last proven by a claim that EC2 acknowledged.
    pub assign_permission_proven_at: Option<Timestamp>,
    /// What a person could run to claim it by hand, where a claim failed. Whoever prints the report makes it.
    #[serde(skip_deserializing)]
    pub command: Option<ClaimCommand>,
}

/// Who has an address in EC2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OwnerReport {
    /// When this was read.
    pub at: Timestamp,
    /// Who that is, seen from here.
    pub who: Who,
    /// The ENI; absent if none has the address.
    pub eni: Option<EniId>,
    /// The instance that the ENI is attached to.
    pub instance: Option<InstanceId>,
}

/// The last claim of an address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClaimReport {
    /// The ENI that it was for; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eni: Option<EniId>,
    /// When the request began.
    pub at: Timestamp,
    /// How long it took to be answered, in milliseconds; absent while it is in flight.
    pub duration_ms: Option<u64>,
    /// EC2's request id.
    pub request_id: Option<RequestId>,
    /// Why it failed; absent if it did not.
    pub error: Option<FailedCall>,
}

impl Report {
    /// The group of that name.
    pub fn group(&self, name: &GroupName) -> Option<&GroupReport> {
        self.groups.iter().find(|g| g.name == name.as_str())
    }

    /// The report about one group alone, with what of the history is about it, its addresses or their interfaces.
    pub fn only(&self, name: &GroupName) -> Option<Self> {
        let group = self.group(name)?;
        let holds = |ip: &Ipv4Addr| group.addresses.iter().any(|a| a.address == *ip);
        let is_about = |record: &&Record| match (&record.group, &record.kind) {
            (Some(group), _) => group == name,
            (None, Kind::Unresolved { interface, .. }) => group.addresses.iter().any(|a| a.interface == *interface),
            (None, _) => record.addresses.iter().any(holds),
        };
        let history = self.history.iter().filter(is_about).cloned().collect();
        Some(Self { groups: vec![group.clone()], history, ..self.clone() })
    }
}
