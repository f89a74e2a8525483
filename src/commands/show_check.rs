//! `show check`: checks each step of a failover without doing one, and prints a line for each as it is done.
//!
//! Independent steps run concurrently, all within one deadline: first the requests to IMDS, then those to EC2, dry runs last.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::lookup_host;
use tokio::task::{JoinHandle, spawn, spawn_blocking};
use tokio::time::timeout;
use vipa_core::claim::DryRunRequest;
use vipa_core::keepalived::groups::Groups;
use vipa_core::model::assignment::{Plan, PlannedGroup, PlannedResource, plan};
use vipa_core::model::config::Config;
use vipa_core::model::credentials::CredentialFacts;
use vipa_core::model::ec2::{AddressLimit, CallError, Eni, EniNetwork, Failure};
use vipa_core::model::ids::{EniId, InterfaceName, Region};
use vipa_core::model::path::Service;
use vipa_core::model::resource::{Kind, Resource};
use vipa_core::report::check::{self, AwsState, CheckResult, Step};
use vipa_core::report::model::{AddressReport, Report};

use super::print;
use super::show_status::{self, Deadline, ShowStatusError, ask, attached, no_answer, owners};
use crate::aws::{Ec2, Imds, InterfaceEnis};
use crate::control::Access;
use crate::fs::json_file;
use crate::netlink::routes::local_network;
use crate::paths::Paths;

/// A step failed, or the checks could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ShowCheckError {
    /// Nothing is configured, the configuration cannot be read, or the user is not permitted.
    #[error(transparent)]
    Configuration(ShowStatusError),
    /// The async runtime cannot be started.
    #[error("cannot start the async runtime: {0}")]
    Runtime(#[source] io::Error),
    /// How many steps a failover would fail at.
    #[error("{0} failed: a failover to this router may fail")]
    Failed(String),
    /// The checks cannot be printed.
    #[error("cannot print the checks: {0}")]
    Print(#[source] io::Error),
}

/// Checks each step and prints the result.
///
/// # Errors
/// [`ShowCheckError`], also if a step failed.
pub fn run(paths: &Paths, imds: &Imds, access: Access, out: &mut impl Write) -> Result<(), ShowCheckError> {
    let deadline = Deadline::new();
    let config = show_status::configuration(paths, "agent not queried").map_err(ShowCheckError::Configuration)?;
    if access == Access::Denied {
        return Err(ShowCheckError::Configuration(ShowStatusError::NotPermitted));
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ShowCheckError::Runtime)?;
    let mut printer = Printer { out, results: Vec::new() };
    let walked = runtime.block_on(walk(&config, paths, imds, deadline, &mut printer));
    // Does not wait for a name that is still being resolved in a thread of its own.
    runtime.shutdown_background();
    walked.map_err(ShowCheckError::Print)?;
    let failed = printer.results.iter().filter(|o| **o == CheckResult::Fail).count();
    match failed {
        0 => Ok(()),
        _ => Err(ShowCheckError::Failed(format!("{failed} of {} checks", printer.results.len()))),
    }
}

struct Printer<'a, W> {
    out: &'a mut W,
    results: Vec<CheckResult>,
}

impl<W: Write> Printer<'_, W> {
    fn step(&mut self, step: Step) -> io::Result<()> {
        self.results.push(step.result);
        print(self.out, &step.line())
    }
}

async fn walk<W: Write>(
    config: &Config,
    paths: &Paths,
    imds: &Imds,
    deadline: Deadline,
    printer: &mut Printer<'_, W>,
) -> io::Result<()> {
    print(printer.out, &check::heading())?;
    let report = spawn_blocking({
        let paths = paths.clone();
        move || ask(&paths, deadline, false, 0).map_err(|error| no_answer(&paths.socket, error))
    });
    let bound = deadline.half();
    let instance = spawn({
        let imds = imds.clone();
        async move { tokio::join!(answered(bound, imds.instance()), answered(bound, imds.instance_type())) }
    });
    let groups = json_file::read::<Groups>(&paths.groups);
    let plan = groups.as_ref().map(|groups| plan(config, groups)).map_err(ToString::to_string);
    let groups = groups.unwrap_or_default();
    let planned = plan.clone().unwrap_or_default();
    let enis = ask_enis(&planned, imds, bound).await;
    let copy = &paths.credentials;
    let early = config.global.region.clone().map(|region| Asked::new(config, region, imds, copy, deadline));

    printer.step(check::hook(&attached(paths)))?;
    for step in check::configuration(config, &plan) {
        printer.step(step)?;
    }
    let report = done(report).await;
    printer.step(check::agent(&report))?;
    let (instance, instance_type) = done(instance).await;
    printer.step(check::imds(&instance))?;
    let mut aws = AwsState {
        instance: instance.as_ref().ok().map(|i| i.id.clone()),
        instance_type: instance_type.ok(),
        ..AwsState::default()
    };
    for (interface, asked) in enis {
        let (eni, place) = done(asked).await;
        let in_use = report.as_ref().ok().and_then(|report| report.eni_of(&interface));
        printer.step(check::eni(&interface, &eni, in_use))?;
        aws.in_use.extend(in_use.map(|eni| (interface.clone(), eni.clone())));
        if let Ok(eni) = eni {
            aws.local.insert(interface, (eni, place));
        }
    }

    let acting: Vec<&PlannedGroup> = planned.groups.iter().filter(|g| !g.disabled).collect();
    let resources: Vec<(&PlannedGroup, &PlannedResource)> =
        acting.iter().flat_map(|group| group.resources.iter().map(|resource| (*group, resource))).collect();
    aws.configured = resources.iter().filter_map(|(_, resource)| resource.eni.clone()).collect();
    for (_, resource) in &resources {
        if let Some(eni) = target(resource, &aws) {
            if resource.resource.kind() == Kind::Route {
                aws.routed.insert(eni.clone());
            }
            aws.moving.entry(eni).or_default().extend(resource.resource.address());
        }
    }
    aws.proven = report.as_ref().map(proven).unwrap_or_default();
    let known = |eni: &EniId| known(report.as_ref().ok(), eni);
    // The agent keeps the region of an earlier answer.
    let region = instance.ok().map(|instance| instance.region).or_else(|| report.as_ref().ok()?.ec2.region.clone());
    match early.or_else(|| Some(Asked::new(config, region?, imds, copy, deadline))) {
        Some(asked) => {
            let ec2 = asked.ec2.clone();
            asked.print(config, (&groups, &planned), &mut aws, printer).await?;
            aws.dry_runs = dry_runs(&ec2, &resources, &aws, deadline).await;
        }
        None => {
            printer.step(check::no_region())?;
            print_paths([], imds, &groups, &mut aws, printer).await?;
        }
    }
    for (eni, _) in aws.moving.iter().filter(|(_, addresses)| !addresses.is_empty()) {
        let known = report.is_ok().then(|| known(eni));
        let proofs = report.as_ref().map(|report| &report.ec2.proofs[..]).unwrap_or_default();
        let proof = proofs.iter().find(|proof| proof.eni == *eni);
        printer.step(check::assign_permission(eni, known.as_deref(), proof, Timestamp::now()))?;
    }
    for (group, resource) in &resources {
        let eni = target(resource, &aws);
        printer.step(match resource.resource.address() {
            Some(address) => check::address(address, &group.peers, eni.as_ref(), &aws),
            None => check::resource(resource, &group.peers, eni.as_ref(), &aws),
        })?;
    }
    for step in acting.iter().flat_map(|group| check::overlay(group, &aws)) {
        printer.step(step)?;
    }
    for (eni, wanted) in &aws.moving {
        for step in check::interface(eni, wanted, &known(eni), &aws) {
            printer.step(step)?;
        }
    }
    let summary = check::summary(&printer.results);
    print(printer.out, &format!("\n{summary}\n"))
}

/// The addresses that the agent reports for an ENI.
fn known<'a>(report: Option<&'a Report>, eni: &EniId) -> Vec<&'a AddressReport> {
    let addresses = report.into_iter().flat_map(|r| &r.groups).flat_map(|g| &g.addresses);
    addresses.filter(|a| a.eni.as_ref() == Some(eni)).collect()
}

/// The ENI that a resource belongs on.
fn target(resource: &PlannedResource, aws: &AwsState) -> Option<EniId> {
    let local = || aws.local.get(&resource.interface).map(|(eni, _)| eni.id.clone());
    resource.eni.clone().or_else(local).or_else(|| aws.in_use.get(&resource.interface).cloned())
}

/// When the agent last proved the permission to claim each route and Elastic IP.
fn proven(report: &Report) -> BTreeMap<Resource, Timestamp> {
    let routes = report.groups.iter().flat_map(|g| &g.routes);
    let routes = routes.map(|r| (Resource::Route(r.route.clone()), r.state.permission_proven_at));
    let elastic_ips = report.groups.iter().flat_map(|g| &g.elastic_ips);
    let elastic_ips = elastic_ips.map(|e| (Resource::ElasticIp(e.allocation.clone()), e.state.permission_proven_at));
    routes.chain(elastic_ips).filter_map(|(resource, at)| Some((resource, at?))).collect()
}

/// EC2's answers to dry runs of claims.
async fn dry_runs(
    ec2: &Ec2,
    resources: &[(&PlannedGroup, &PlannedResource)],
    aws: &AwsState,
    deadline: Deadline,
) -> BTreeMap<Resource, Result<(), CallError>> {
    let moved = aws.moving.values().flatten().copied().collect();
    let request = |resource: &PlannedResource| check::dry_run(resource, &target(resource, aws)?, &moved, aws);
    let chosen = DryRunRequest::chosen(resources.iter().filter_map(|(_, resource)| request(resource)).collect());
    ec2.dry_runs(&chosen, || deadline.left()).await.into_iter().collect()
}

/// Reads what the kernel shows of this router's network, and prints the paths to EC2's addresses and to IMDS.
async fn print_paths<W: Write>(
    ec2: impl IntoIterator<Item = (Service, SocketAddr)>,
    imds: &Imds,
    groups: &Groups,
    aws: &mut AwsState,
    printer: &mut Printer<'_, W>,
) -> io::Result<()> {
    let imds = imds.address().map(|address| (Service::Imds, address));
    aws.network = local_network(ec2.into_iter().chain(imds)).await;
    check::paths(&aws.network, groups).into_iter().try_for_each(|step| printer.step(step))
}

/// The calls of EC2 that do not need the ENIs.
struct Asked {
    ec2: Ec2,
    imds: Imds,
    deadline: Deadline,
    host: Option<String>,
    name: JoinHandle<Result<Vec<IpAddr>, String>>,
    reached: JoinHandle<Result<(), CallError>>,
    credentials: JoinHandle<Result<CredentialFacts, CallError>>,
}

impl Asked {
    /// Starts the calls, with the agent's copy of the credentials file, which a failover needs.
    fn new(config: &Config, region: Region, imds: &Imds, copy: &Path, deadline: Deadline) -> Self {
        let bound = deadline.left();
        let ec2 = Ec2::with_credentials_copy(&config.global, region, imds, Some(copy));
        let host = ec2.host();
        let name = spawn(resolve(host.clone(), bound));
        let (there, whose) = (ec2.clone(), ec2.clone());
        let reached = spawn(async move { there.probe_endpoint(bound).await });
        let credentials = spawn(async move { whose.load_credentials(bound).await });
        Self { ec2, imds: imds.clone(), deadline, host: host.map(|(host, _)| host), name, reached, credentials }
    }

    /// Makes the remaining calls, and prints all results.
    async fn print<W: Write>(
        self,
        config: &Config,
        (groups, plan): (&Groups, &Plan),
        aws: &mut AwsState,
        printer: &mut Printer<'_, W>,
    ) -> io::Result<()> {
        let bound = self.deadline.left();
        let described = spawn({
            let (ec2, enis) = (self.ec2.clone(), aws.moving.keys().cloned().collect::<Vec<_>>());
            async move { bounded(&ec2, bound, ec2.described(&enis, bound)).await }
        });
        let owned = spawn({
            let (ec2, plan) = (self.ec2.clone(), plan.clone());
            let local = aws.local.iter().map(|(interface, (eni, _))| (interface.clone(), eni.clone())).collect();
            async move { bounded(&ec2, bound, owners(&ec2, &plan, &local, bound)).await }
        });
        let resources = plan.groups.iter().filter(|g| !g.disabled).flat_map(|g| &g.resources);
        let (mut routes, mut elastic_ips) = (Vec::new(), Vec::new());
        for resource in resources {
            match resource.resource.clone() {
                Resource::Address(_) => {}
                Resource::Route(route) => routes.push(route),
                Resource::ElasticIp(allocation) => elastic_ips.push(allocation),
            }
        }
        let led = (!routes.is_empty()).then(|| {
            let (ec2, routes) = (self.ec2.clone(), routes.clone());
            spawn(async move { bounded(&ec2, bound, ec2.routes(&routes, bound)).await })
        });
        let associated = (!elastic_ips.is_empty()).then(|| {
            let (ec2, elastic_ips) = (self.ec2.clone(), elastic_ips.clone());
            spawn(async move { bounded(&ec2, bound, ec2.associations(&elastic_ips, bound)).await })
        });
        let is_assigned = aws.moving.values().any(|addresses| !addresses.is_empty());
        let limit = aws.instance_type.clone().filter(|_| is_assigned).map(|kind| {
            let ec2 = self.ec2.clone();
            spawn(async move {
                let addresses = bounded(&ec2, bound, ec2.addresses_per_interface(&kind, bound)).await?;
                Ok(AddressLimit { instance_type: kind, addresses })
            })
        });
        let host = self.host.as_deref().unwrap_or(self.ec2.endpoint());
        let name = done(self.name).await;
        let ec2 = self.ec2.host().zip(name.as_ref().ok()).into_iter();
        let ec2 = ec2.flat_map(|((_, port), found)| found.iter().map(move |ip| (Service::Ec2, (*ip, port).into())));
        printer.step(check::name(host, &name))?;
        print_paths(ec2, &self.imds, groups, aws, printer).await?;
        let reached = done(self.reached).await;
        printer.step(check::endpoint(self.ec2.endpoint(), &reached))?;
        let mut places = aws.local.values().filter_map(|(_, place)| place.as_ref());
        // The keys in a file may belong to any account.
        let account = places.next().map(|place| &place.account).filter(|_| config.global.credentials_file.is_none());
        printer.step(check::credentials(&done(self.credentials).await, account, Timestamp::now()))?;
        printer.step(check::clock(self.ec2.clock_skew(), Timestamp::now()))?;
        let (described, owned) = (done(described).await, done(owned).await);
        // Both calls need the permission, and it may be that only one of them failed.
        let read = described.as_ref().and(owned.as_ref()).map_err(Clone::clone);
        printer.step(check::read_permission("ec2:DescribeNetworkInterfaces", &read, reached.is_ok()))?;
        let routes = routes.into_iter().map(Resource::Route).collect::<Vec<_>>();
        let elastic_ips = elastic_ips.into_iter().map(Resource::ElasticIp).collect();
        for (action, asked, resources) in
            [("ec2:DescribeRouteTables", led, routes), ("ec2:DescribeAddresses", associated, elastic_ips)]
        {
            let Some(asked) = asked else { continue };
            let read = done(asked).await;
            printer.step(check::read_permission(action, &read, reached.is_ok()))?;
            if let Ok(mut holders) = read {
                aws.holders.extend(resources.into_iter().map(|resource| (resource.clone(), holders.remove(&resource))));
            }
        }
        aws.limit = match limit {
            Some(limit) => Some(done(limit).await),
            None => None,
        };
        aws.interfaces = described.ok();
        aws.owners = owned.ok();
        Ok(())
    }
}

/// Limits several requests together to the time of one.
async fn bounded<T>(
    ec2: &Ec2,
    bound: Duration,
    asked: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    timeout(bound, asked).await.unwrap_or_else(|_| Err(ec2.no_answer(bound)))
}

/// The answer of IMDS, if it arrives in time.
async fn answered<T, E: From<CallError>>(bound: Duration, asked: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    timeout(bound, asked).await.unwrap_or_else(|_| {
        let message = format!("no answer within {bound:?}");
        Err(CallError::new(Failure::Timeout, message).into())
    })
}

async fn resolve(host: Option<(String, u16)>, bound: Duration) -> Result<Vec<IpAddr>, String> {
    let Some(host) = host else { return Err("the endpoint is not a URL".to_owned()) };
    match timeout(bound, lookup_host(host)).await {
        Ok(Ok(addresses)) => Ok(addresses.map(|a| a.ip()).collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {bound:?}")),
    }
}

type AskedEni = JoinHandle<(Result<Eni, String>, Option<EniNetwork>)>;

/// Starts the requests to IMDS for the ENI of each interface that gets addresses.
async fn ask_enis(plan: &Plan, imds: &Imds, bound: Duration) -> Vec<(InterfaceName, AskedEni)> {
    let enis = InterfaceEnis::read(imds).await;
    let asked = plan.interfaces().into_iter().map(|interface| {
        let (enis, name) = (enis.clone(), interface.clone());
        let asked = spawn(async move {
            let (eni, place) = tokio::join!(answered(bound, enis.eni(&name)), answered(bound, enis.eni_network(&name)));
            (eni.map_err(|e| e.to_string()), place.ok())
        });
        (interface.clone(), asked)
    });
    asked.collect()
}

/// The result of a task.
async fn done<T>(task: JoinHandle<T>) -> T {
    match task.await {
        Ok(found) => found,
        // It is never cancelled, so it has panicked.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
