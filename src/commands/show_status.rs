//! `show status`: prints the agent's report, or what can be observed while the agent does not answer.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::time::timeout;
use vipa_core::model::assignment::{Plan, plan};
use vipa_core::model::config::Config;
use vipa_core::model::ec2::{CallError, Eni, Failure, Owners};
use vipa_core::model::ids::{InterfaceName, VpcId};
use vipa_core::printable;
use vipa_core::report::command::{Target, offer_commands};
use vipa_core::report::history::history;
use vipa_core::report::model::{FailedCall, Report};
use vipa_core::report::offline::{self, Observations};
use vipa_core::report::status::table;

use super::print;
use crate::aws::{Ec2, Imds, InterfaceEnis, InterfaceError};
use crate::control::client::{Client, ClientError};
use crate::control::{Access, Request};
use crate::fs::json_file::{self, FileError};
use crate::keepalived::process::KeepalivedProcess;
use crate::netlink::addresses;
use crate::paths::Paths;

/// How many transitions, claims and ownership losses `--detail` shows.
const MAX_DETAIL_RECORDS: usize = 50;
/// How long the command may wait in total. With the time for the rest of its work, a report takes at most 4 s.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(3_700);
/// How long to wait for an answer of the agent that needs no call of EC2.
pub(super) const AGENT_TIMEOUT: Duration = Duration::from_secs(1);

/// The report could not be made or printed.
#[derive(Debug, thiserror::Error)]
pub enum ShowStatusError {
    /// No group has an `aws-vipa` node.
    #[error("aws-vipa is not configured: `set high-availability vrrp group <group> aws-vipa`")]
    NotConfigured,
    /// The agent does not answer, and the configuration cannot be read.
    #[error("no status available: agent unreachable and configuration unreadable: {configuration}; {agent}")]
    NothingToTellFrom {
        /// Why the agent did not answer.
        agent: String,
        /// Why the configuration could not be read.
        configuration: FileError,
    },
    /// The user has no access to the agent's status.
    #[error("only root may see the agent's status and call EC2 as this router: use sudo")]
    NotPermitted,
    /// The async runtime cannot be started.
    #[error("cannot start the async runtime: {0}")]
    Runtime(#[source] io::Error),
    /// The status cannot be printed.
    #[error("cannot print the status: {0}")]
    Print(#[source] io::Error),
}

/// What to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::Args)]
pub struct ShowStatus {
    /// Print JSON in a stable format.
    #[arg(long)]
    pub json: bool,
    /// Read the owners from EC2 first.
    #[arg(long)]
    pub fresh: bool,
    /// Also show the last 50 transitions, claims and ownership losses.
    #[arg(long)]
    pub detail: bool,
}

impl ShowStatus {
    /// Prints the agent's report. If the agent does not answer, and `access` permits it, prints what can be observed without
    /// it, with the help of `imds`.
    ///
    /// # Errors
    /// [`ShowStatusError`]. A report of problems is no error.
    pub fn run(self, paths: &Paths, imds: &Imds, access: Access, out: &mut impl Write) -> Result<(), ShowStatusError> {
        let report = report(paths, imds, access, self.fresh, if self.detail { MAX_DETAIL_RECORDS } else { 0 })?;
        let printed = if self.json {
            json(&report)
        } else {
            let history = self.detail.then(|| format!("\n{}", history(&report)));
            Ok(table(&report) + &history.unwrap_or_default())
        };
        printed.and_then(|text| print(out, &text)).map_err(ShowStatusError::Print)
    }
}

/// The end of the time that a command may wait, whatever is down.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(Instant);

impl Deadline {
    /// Starts the time now.
    pub(super) fn new() -> Self {
        Self(Instant::now() + COMMAND_TIMEOUT)
    }

    /// The time left, in whole tenths of a second, at least one.
    pub(super) fn left(self) -> Duration {
        let tenths = self.0.saturating_duration_since(Instant::now()).as_millis() / 100;
        Duration::from_millis(100 * u64::try_from(tenths).unwrap_or(1).max(1))
    }

    /// Half of the time left: for IMDS, which is queried before EC2.
    pub(super) fn half(self) -> Duration {
        self.left() / 2
    }
}

/// The agent's report, or one from what can be observed without it, which has no history.
///
/// # Errors
/// [`ShowStatusError`].
pub(super) fn report(
    paths: &Paths,
    imds: &Imds,
    access: Access,
    fresh: bool,
    history: usize,
) -> Result<Report, ShowStatusError> {
    let deadline = Deadline::new();
    ask(paths, deadline, fresh, history).or_else(|error| {
        let denied = access == Access::Denied || matches!(error, ClientError::NotPermitted);
        let why = no_answer(&paths.socket, error);
        let config = configuration(paths, &why)?;
        if denied { Err(ShowStatusError::NotPermitted) } else { look(&config, paths, imds, why, deadline) }
    })
}

/// The agent's report. With `fresh`, the agent reads the owners first; if that takes longer than the time left, the result
/// is the report from before.
///
/// # Errors
/// [`ClientError`].
pub(super) fn ask(paths: &Paths, deadline: Deadline, fresh: bool, history: usize) -> Result<Report, ClientError> {
    let mut known = call(paths, false, history, AGENT_TIMEOUT)?;
    if !fresh {
        return Ok(known);
    }
    match call(paths, true, history, deadline.left()) {
        Err(ClientError::TimedOut(patience)) => {
            known.not_answered.push(format!(
                "EC2 did not answer the agent within {patience:?}: the owners below are from an earlier read"
            ));
            Ok(known)
        }
        answer => answer,
    }
}

fn call(paths: &Paths, fresh: bool, history: usize, patience: Duration) -> Result<Report, ClientError> {
    let request = Request::Status { fresh, history };
    let mut report: Report = Client::connect(&paths.socket, patience)?.call(&request)?;
    // The agent is not root, so it must not choose the endpoint that root's requests are signed for.
    if let Ok(Config { global, .. }) = json_file::read(&paths.config)
        && let Some(region) = global.region.as_ref().or(report.ec2.region.as_ref())
    {
        let target = Target { region, endpoint_url: global.endpoint_url.as_deref() };
        report.groups.iter_mut().for_each(|group| offer_commands(group, target));
    }
    Ok(report)
}

/// Why the agent did not answer, and what to do.
pub(super) fn no_answer(socket: &Path, error: ClientError) -> String {
    const RESTART: &str = "`restart aws-vipa` (`sudo systemctl restart vyos-aws-vipa`)";
    let socket = socket.display();
    match error {
        ClientError::NotRunning(source) => format!(
            "the agent is not running ({socket}: {source}); nothing is claimed. {RESTART} starts it; `show log aws-vipa` shows why it stopped"
        ),
        ClientError::NotPermitted => {
            format!("only root may connect to the agent ({socket}): use sudo")
        }
        ClientError::TimedOut(Duration::ZERO) => {
            format!("the agent hangs: it accepts no connection on {socket}. {RESTART} restarts it")
        }
        ClientError::TimedOut(patience) => {
            format!("the agent hangs: no answer on {socket} within {patience:?}. {RESTART} restarts it")
        }
        ClientError::InvalidResponse(reason) => format!(
            "cannot read the agent's answer on {socket}: {reason}. If the package was just upgraded, run {RESTART}"
        ),
        ClientError::Refused(refusal) => format!("the agent refuses the request on {socket}: {refusal}"),
        ClientError::Io(source) => format!("{socket}: {source}. {RESTART} restarts the agent"),
    }
}

/// The configuration. `agent_error` is why there is no report of the agent, for the error message.
pub(super) fn configuration(paths: &Paths, agent_error: &str) -> Result<Config, ShowStatusError> {
    let config: Config = json_file::read(&paths.config).map_err(|error| match error {
        FileError::Missing(_) => ShowStatusError::NotConfigured,
        configuration => ShowStatusError::NothingToTellFrom { agent: agent_error.to_owned(), configuration },
    })?;
    if config.is_empty() { Err(ShowStatusError::NotConfigured) } else { Ok(config) }
}

/// The report from what can be observed without the agent.
fn look(
    config: &Config,
    paths: &Paths,
    imds: &Imds,
    agent_error: String,
    deadline: Deadline,
) -> Result<Report, ShowStatusError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ShowStatusError::Runtime)?;
    let facts = runtime.block_on(facts(config, paths, imds, agent_error, deadline));
    // Does not wait for a name that is still being resolved in a thread of its own.
    runtime.shutdown_background();
    Ok(offline::report(config, &facts))
}

async fn facts(config: &Config, paths: &Paths, imds: &Imds, agent_error: String, deadline: Deadline) -> Observations {
    let mut not_answered = Vec::new();
    let groups = json_file::read(&paths.groups).map_err(|e| not_answered.push(e.to_string())).ok();
    let plan = groups.as_ref().map(|groups| plan(config, groups)).unwrap_or_default();
    let local = addresses::list().await.map_err(|e| not_answered.push(e.to_string())).ok();
    let attached = attached(paths).map_err(|e| not_answered.push(e)).ok();

    let bound = deadline.half();
    let instance = timeout(bound, imds.instance());
    let (instance, enis) = tokio::join!(instance, enis(&plan, imds, bound, &mut not_answered));
    let instance = match instance {
        Ok(Ok(instance)) => Some(instance),
        Ok(Err(error)) => {
            not_answered.push(format!("cannot read the instance id from IMDS: {error}"));
            None
        }
        Err(_) => {
            not_answered.push(format!("cannot read the instance id from IMDS: no answer within {bound:?}"));
            None
        }
    };

    let region = config.global.region.clone().or_else(|| instance.as_ref().map(|i| i.region.clone()));
    let mut facts = Observations {
        now: Timestamp::now(),
        agent_error,
        not_answered,
        groups,
        local,
        attached,
        instance: instance.map(|i| i.id),
        region: region.clone(),
        credentials: None,
        enis: enis.iter().map(|(interface, eni)| (interface.clone(), eni.id.clone())).collect(),
        owners: None,
        ec2_error: None,
    };
    match region {
        Some(region) => {
            let ec2 = Ec2::with_credentials_copy(&config.global, region, imds, Some(&paths.credentials));
            let bound = deadline.left();
            let answer = timeout(bound, owners(&ec2, &plan, &enis, bound)).await;
            facts.credentials = Some(ec2.credentials());
            facts.now = Timestamp::now();
            match answer {
                Ok(Ok(owners)) => facts.owners = Some((facts.now, owners)),
                Ok(Err(error)) => {
                    facts.ec2_error = Some(FailedCall::new(facts.now, &error));
                }
                Err(_) => {
                    let message = format!("no answer from {} within {bound:?}", ec2.endpoint());
                    facts.ec2_error = Some(FailedCall::new(facts.now, &CallError::new(Failure::Timeout, message)));
                }
            }
        }
        None => {
            facts.not_answered.push("EC2 not called: no region configured, and none from IMDS".to_owned());
        }
    }
    facts
}

/// The ENIs of the interfaces in the plan.
async fn enis(
    plan: &Plan,
    imds: &Imds,
    bound: Duration,
    not_answered: &mut Vec<String>,
) -> BTreeMap<InterfaceName, Eni> {
    let enis = InterfaceEnis::read(imds).await;
    if let Some(error) = enis.kernel_error() {
        not_answered.push(error.to_owned());
        return BTreeMap::new();
    }
    let asked = plan.interfaces().into_iter().map(async |interface| match timeout(bound, enis.eni(interface)).await {
        Ok(Ok(eni)) => Ok((interface.clone(), eni)),
        Ok(Err(InterfaceError::Local(error))) => Err(error),
        Ok(Err(InterfaceError::Imds(error))) => Err(format!("cannot read the ENI of {interface} from IMDS: {error}")),
        Err(_) => Err(format!("cannot read the ENI of {interface} from IMDS: no answer within {bound:?}")),
    });
    let mut known = BTreeMap::new();
    for answer in join_all(asked).await {
        match answer {
            Ok((interface, eni)) => _ = known.insert(interface, eni),
            Err(why) => not_answered.push(why),
        }
    }
    known
}

/// The owners of the plan's addresses and of the groups' peer addresses, read in the VPC of each interface that something is
/// moved to: an address is unique only within its VPC. `bound` limits each request.
pub(super) async fn owners(
    ec2: &Ec2,
    plan: &Plan,
    enis: &BTreeMap<InterfaceName, Eni>,
    bound: Duration,
) -> Result<Owners, CallError> {
    let mut questions: BTreeMap<Option<&VpcId>, BTreeSet<Ipv4Addr>> = BTreeMap::new();
    for group in &plan.groups {
        for resource in &group.resources {
            let question = questions.entry(enis.get(&resource.interface).map(|eni| &eni.vpc)).or_default();
            question.extend(resource.resource.address());
            question.extend(&group.peers);
        }
    }
    let mut owners = Owners::new();
    for (vpc, addresses) in questions {
        owners.extend(ec2.owners(vpc, &Vec::from_iter(addresses), bound).await?);
    }
    Ok(owners)
}

/// Whether the running keepalived has the FIFO open, or why that is unknown.
pub(super) fn attached(paths: &Paths) -> Result<bool, String> {
    let Some(keepalived) = KeepalivedProcess::running(&paths.keepalived_pid) else { return Ok(false) };
    keepalived.has_open(&paths.fifo).map_err(|error| format!("cannot list keepalived's open files: {error}; use sudo"))
}

/// The report as JSON.
fn json(report: &Report) -> Result<String, io::Error> {
    let text = serde_json::to_string_pretty(report).map_err(io::Error::from)? + "\n";
    Ok(printable::json(&text).into_owned())
}
