//! Faults that a test injects: which requests they apply to, and their effects.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cloud::ApiError;
use crate::log::{Request, Service};

/// The requests that a [`Fault`] applies to: those with all properties that are set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct On {
    /// The service.
    pub service: Option<Service>,
    /// EC2: the action's name. IMDS: the beginning of `METHOD /path`.
    pub action: Option<String>,
    /// Not these EC2 actions.
    pub other_than: BTreeSet<String>,
    /// An interface that the request names.
    pub network_interface: Option<String>,
    /// An address that the request names.
    pub address: Option<Ipv4Addr>,
    /// A route table that the request names.
    pub route_table: Option<String>,
    /// The destination of the route that the request changes, as it is sent.
    pub destination: Option<String>,
    /// An Elastic IP that the request names, by its allocation id.
    pub allocation: Option<String>,
    /// Whether the request is a dry run.
    pub dry_run: Option<bool>,
    /// The access key id.
    pub access_key: Option<String>,
    /// The instance whose role's key has signed the request, or that has called IMDS.
    pub instance: Option<String>,
    /// The number of the listener, to affect only one router.
    pub listener: Option<usize>,
}

impl On {
    /// Every request of both services.
    pub fn any() -> On {
        On::default()
    }

    /// Every EC2 request.
    pub fn ec2() -> On {
        On { service: Some(Service::Ec2), ..On::default() }
    }

    /// Every IMDS request.
    pub fn imds() -> On {
        On { service: Some(Service::Imds), ..On::default() }
    }

    /// One EC2 action.
    pub fn action(name: &str) -> On {
        On { action: Some(name.to_owned()), ..On::ec2() }
    }

    /// `AssignPrivateIpAddresses`.
    pub fn claims() -> On {
        On::action("AssignPrivateIpAddresses")
    }

    /// The IMDS requests whose path begins with `path`.
    pub fn imds_path(path: &str) -> On {
        On { action: Some(format!("GET {path}")), ..On::imds() }
    }

    /// Not these EC2 actions.
    pub fn other_than(mut self, actions: &BTreeSet<String>) -> On {
        self.other_than = actions.clone();
        self
    }

    /// Only those that name the interface.
    pub fn network_interface(mut self, id: impl AsRef<str>) -> On {
        self.network_interface = Some(id.as_ref().to_owned());
        self
    }

    /// Only those that name the address.
    pub fn address(mut self, address: Ipv4Addr) -> On {
        self.address = Some(address);
        self
    }

    /// Only those that name the route table.
    pub fn route_table(mut self, id: &str) -> On {
        self.route_table = Some(id.to_owned());
        self
    }

    /// Only those that change the route to that destination.
    pub fn destination(mut self, destination: &str) -> On {
        self.destination = Some(destination.to_owned());
        self
    }

    /// Only those that name the Elastic IP.
    pub fn allocation(mut self, id: &str) -> On {
        self.allocation = Some(id.to_owned());
        self
    }

    /// Only dry runs, or only others.
    pub fn dry_run(mut self, dry_run: bool) -> On {
        self.dry_run = Some(dry_run);
        self
    }

    /// Only those signed with the key.
    pub fn access_key(mut self, id: &str) -> On {
        self.access_key = Some(id.to_owned());
        self
    }

    /// Only those of the instance.
    pub fn instance(mut self, id: impl AsRef<str>) -> On {
        self.instance = Some(id.as_ref().to_owned());
        self
    }

    /// Only those that come through the listener of that number.
    pub fn listener(mut self, number: usize) -> On {
        self.listener = Some(number);
        self
    }

    fn matches(&self, request: &Request) -> bool {
        let same = |wanted: &Option<String>, have: Option<&str>| wanted.is_none() || wanted.as_deref() == have;
        let action = self.action.as_deref().is_none_or(|wanted| match request.service {
            Service::Ec2 => request.action == wanted,
            Service::Imds => request.action.starts_with(wanted),
        });
        let among =
            |wanted: &Option<String>, named: &[String]| wanted.as_ref().is_none_or(|wanted| named.contains(wanted));
        action
            && !self.other_than.contains(&request.action)
            && among(&self.network_interface, &request.network_interfaces)
            && among(&self.route_table, &request.route_tables)
            && among(&self.allocation, &request.allocations)
            && same(&self.destination, request.destination.as_deref())
            && self.dry_run.is_none_or(|dry_run| dry_run == request.dry_run)
            && self.service.is_none_or(|service| service == request.service)
            && self.address.is_none_or(|address| request.addresses.contains(&address))
            && self.listener.is_none_or(|listener| listener == request.listener)
            && same(&self.access_key, request.access_key.as_deref())
            && same(&self.instance, request.instance.as_ref().map(AsRef::as_ref))
    }
}

/// A fault of the requests that it applies to. If several apply to one request, the first one with an effect is used, and the
/// others with an effect remain for later requests. Delays add up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Fault {
    /// What it applies to.
    pub on: On,
    /// The number of requests that it applies to; `None`: until it is removed.
    pub times: Option<u32>,
    /// Milliseconds between arrival and performing.
    pub delay_before_ms: u64,
    /// Milliseconds between performing and the answer.
    pub delay_after_ms: u64,
    /// The request is performed, although the client does not get its real answer.
    pub perform: bool,
    /// What the client gets instead of the real answer.
    pub effect: Option<Effect>,
}

/// What the client gets instead of the real answer. In the log, the name of an invalid body is its code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// The connection is closed.
    Drop,
    /// Nothing, until the client gives up.
    Hang,
    /// An error. For IMDS, only the status is used.
    Error {
        /// The HTTP status.
        status: u16,
        /// EC2's error code.
        code: String,
    },
    /// `UnauthorizedOperation`: a denial by IAM.
    Deny,
    /// 200 with a body that is not XML.
    NotXml,
    /// 200 with the first half of the real body, or of an error's if the request is not performed.
    Truncated,
    /// 200 with that many bytes of XML without a result.
    Huge(usize),
    /// 200 with a page of network interfaces, and the token for another page: endlessly many. `DescribeRouteTables` returns
    /// route tables with routes instead.
    EndlessPages {
        /// Network interfaces in a page.
        interfaces: usize,
        /// Private addresses of each, at most 256.
        addresses: usize,
    },
    /// 200 with `return: true`, and nothing else of EC2's real answer.
    Bare,
}

impl Fault {
    /// A fault for all requests that `on` describes, without an effect yet.
    pub fn on(on: On) -> Fault {
        Fault { on, ..Fault::default() }
    }

    /// Applies to only that many requests.
    pub fn times(mut self, times: u32) -> Fault {
        self.times = Some(times);
        self
    }

    /// Waits before performing the request.
    pub fn delay_before(mut self, delay: Duration) -> Fault {
        self.delay_before_ms = delay.as_millis() as u64;
        self
    }

    /// Waits after performing the request, before the answer.
    pub fn delay_after(mut self, delay: Duration) -> Fault {
        self.delay_after_ms = delay.as_millis() as u64;
        self
    }

    /// Performs the request nevertheless; only the answer is lost or replaced.
    pub fn performed(mut self) -> Fault {
        self.perform = true;
        self
    }

    /// Closes the connection instead of answering.
    pub fn drop_connection(self) -> Fault {
        self.effect(Effect::Drop)
    }

    /// Never answers.
    pub fn hang(self) -> Fault {
        self.effect(Effect::Hang)
    }

    /// Answers with an error.
    pub fn error(self, status: u16, code: &str) -> Fault {
        self.effect(Effect::Error { status, code: code.to_owned() })
    }

    /// Answers `RequestLimitExceeded`.
    pub fn throttle(self) -> Fault {
        self.error(503, "RequestLimitExceeded")
    }

    /// Answers `UnauthorizedOperation`.
    pub fn deny(self) -> Fault {
        self.effect(Effect::Deny)
    }

    /// Sets what the client gets.
    pub fn effect(mut self, effect: Effect) -> Fault {
        self.effect = Some(effect);
        self
    }
}

/// Identifies a fault, so that it can be removed.
pub type FaultId = usize;

/// The effects of all faults on one request.
#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) before: Duration,
    pub(crate) after: Duration,
    pub(crate) perform: bool,
    pub(crate) effect: Option<Effect>,
}

#[derive(Default)]
pub(crate) struct Faults {
    next: FaultId,
    pub(crate) active: Vec<(FaultId, Fault)>,
}

impl Faults {
    pub(crate) fn add(&mut self, fault: Fault) -> FaultId {
        self.next += 1;
        self.active.push((self.next, fault));
        self.next
    }

    /// Applies the faults to a request, and counts it for each of them.
    pub(crate) fn plan(&mut self, request: &Request) -> Plan {
        let mut plan = Plan::default();
        for (_, fault) in &mut self.active {
            if fault.times == Some(0) || !fault.on.matches(request) {
                continue;
            }
            if fault.effect.is_some() && plan.effect.is_some() {
                continue;
            }
            plan.before += Duration::from_millis(fault.delay_before_ms);
            plan.after += Duration::from_millis(fault.delay_after_ms);
            if fault.effect.is_some() {
                plan.effect = fault.effect.clone();
                plan.perform = fault.perform;
            }
            fault.times = fault.times.map(|times| times - 1);
        }
        self.active.retain(|(_, fault)| fault.times != Some(0));
        plan
    }
}

/// A denial by IAM, with an encoded message, as for `sts:DecodeAuthorizationMessage`.
pub(crate) fn denial(action: &str, who: &str) -> ApiError {
    let message = format!(
        "You are not authorized to perform this operation. User: {who} is not authorized to perform: \
         ec2:{action} because no identity-based policy allows the ec2:{action} action. Encoded \
         authorization failure message: {}",
        crate::wire::sigv4::hex(format!("{action} by {who}").as_bytes())
    );
    ApiError::new(403, "UnauthorizedOperation", message)
}
