//! The client of EC2's API, and the calls about network interfaces and their addresses.

use std::collections::{BTreeMap, HashSet};
use std::error::Error;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_config::identity::IdentityCache;
use aws_sdk_ec2::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};
use aws_sdk_ec2::config::interceptors::AfterDeserializationInterceptorContextRef;
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::config::timeout::TimeoutConfig;
use aws_sdk_ec2::config::{
    AppName, BehaviorVersion, ConfigBag, Intercept, RuntimeComponents, StalledStreamProtectionConfig,
};
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::types::{Filter, NetworkInterface, NetworkInterfaceAssociation};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use futures_util::FutureExt;
use futures_util::future::{Either, join_all, select};
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, timeout_at};
use vipa_core::claim::{DryRunRequest, ReadAnswer};
use vipa_core::model::calls::Calls;
use vipa_core::model::config::Global;
use vipa_core::model::credentials::CredentialFacts;
use vipa_core::model::ec2::{Acknowledgement, CallError, ErrorClass, Failure, Interface, Owner, Owners};
use vipa_core::model::endpoint::Endpoint;
use vipa_core::model::ids::{EniId, ErrorCode, InstanceId, InstanceType, InvalidId, Region, RequestId, VpcId};
use vipa_core::model::resource::{ElasticIp, Holder, Resource};
use vipa_core::report::clock_skew::skew;
use vipa_core::report::remedies::DeniedBy;

use super::assumptions::MAX_FILTER_VALUES;
use super::clock::Clock;
use super::credentials::{CredentialsWatch, Generation, Keys};
use super::errors::{failed, from_sdk, one_line};
use super::hedge::{self, Captured, Late, UsualTimes, better, is_answer, is_final};
use super::imds::Imds;
use super::request_ids;
use super::transport::{self, Budget, Resolver, Roots};
use super::withdrawal::is_withdrawn;
use crate::fs::operator_file::{FileFingerprint, Found, OperatorFile, UnreadableReason};
use crate::log_messages::log;
use crate::systemd::log_throttle::LogThrottle;

/// The profile of the credentials file where none is configured (AWS SDKs and Tools Reference Guide).
const DEFAULT_PROFILE: &str = "default";
/// Network interfaces in a page. The API allows 5 to 1000. Two routers with 15 network interfaces each fill one page, and
/// parsing it blocks the agent for a few milliseconds only.
const ENIS_PER_PAGE: usize = 30;
/// The most dry runs in flight for a command of an operator.
const MAX_DRY_RUNS_IN_FLIGHT: usize = 8;
/// The most pages that are read for one set of addresses. Each address is on one interface of its VPC, so 199 addresses need
/// at most 7 full pages; EC2 may return shorter ones.
const MAX_PAGES: usize = 20;
/// The longest token for a next page, in bytes. EC2's have some hundred characters.
const MAX_PAGE_TOKEN_BYTES: usize = 8 * 1024;
/// The longest time that opening a connection may take after its call has been given up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// A client of EC2 in one region. Keep it: it holds warm connections, the credentials and the difference between the
/// clocks. Clones are the same client.
#[derive(Clone)]
pub struct Ec2(Arc<Ec2Inner>);

struct Ec2Inner {
    region: Region,
    endpoint: String,
    endpoint_url: Option<EndpointUrl>,
    /// Why these settings allow no request.
    fault: Option<CallError>,
    ca_certificate_file: Option<OperatorFile>,
    clock: Clock,
    /// Limits the log lines about a clock that is off, by whether this router's clock is ahead of EC2's.
    clock_throttle: Mutex<LogThrottle<bool>>,
    keys: Keys,
    budget: Budget,
    resolver: Resolver,
    usual_times: UsualTimes,
    /// Limits the log lines about requests that are sent again, by the reason and the remote address.
    late_throttle: Mutex<LogThrottle<(Late, String)>>,
    connections: Mutex<Connections>,
    /// Every attempt counts here.
    calls: Arc<Mutex<Calls>>,
}

/// The deadline of a call, for its credentials, its requests and their answers together.
#[derive(Clone, Copy)]
pub(super) struct Bound {
    deadline: Instant,
    /// The time from the start of the call to `deadline`, for the error message.
    timeout: Duration,
}

impl Bound {
    pub(super) fn after(timeout: Duration) -> Self {
        Self { deadline: Instant::now() + timeout, timeout }
    }
}

/// A request that EC2 did not accept.
struct Refused<'a> {
    /// The API call, which is also the name of the IAM action.
    action: &'a str,
    denied_by: DeniedBy,
    /// What was added to the system's time for the signature.
    correction: SignedDuration,
    /// The credentials that it was signed with.
    used: Generation,
}

/// What came of [`Ec2::probe_assignment`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AssignmentProbe {
    /// EC2 does not show the ENI.
    NoSuchEni,
    /// The ENI is attached to another instance, or to none: EC2 was not asked.
    NotAttached(Option<InstanceId>),
    /// EC2's answer.
    Answered {
        /// EC2's request id.
        request_id: Option<RequestId>,
        /// A success, or the refusal.
        result: Result<(), CallError>,
    },
}

/// The SDK's client and what it was made from. It is replaced when the certificate file has changed, and when an answer is
/// late or did not come: the idle connections in its pool may be dead as well.
struct Connections {
    client: aws_sdk_ec2::Client,
    number: u64,
    /// The certificate file as it was last read.
    trusted: Trusted,
}

/// The content of a certificate file.
struct Trusted {
    roots: Option<Roots>,
    /// Why the file is not usable.
    fault: Option<String>,
    /// The file's fingerprint, and the reason if it could not be read.
    state: Result<FileFingerprint, (UnreadableReason, FileFingerprint)>,
}

impl Trusted {
    fn nothing() -> Self {
        Self { roots: None, fault: None, state: Ok(FileFingerprint::default()) }
    }

    fn of(file: &OperatorFile, found: Found) -> Self {
        let state = found.as_ref().map(|(_, version)| *version).map_err(Clone::clone);
        match found.map_err(|(reason, _)| reason.to_string()).and_then(|(pem, _)| Roots::parse(pem)) {
            Ok(roots) => Self { roots: Some(roots), fault: None, state },
            Err(reason) => {
                log!(CERTIFICATE_FILE_NOT_USED, path = %file.path().display(), reason);
                Self { roots: None, fault: Some(reason), state }
            }
        }
    }

    fn is_of(&self, found: &Found) -> bool {
        match (&self.state, found) {
            (Ok(version), Ok((_, found))) => version == found,
            (Err(fault), Err(found)) => fault == found,
            _ => false,
        }
    }
}

impl Ec2 {
    /// A client for `region`, with the configured credentials file or else the instance role from `imds`. Uses no network.
    /// Each call fails with the reason while the settings cannot work.
    pub fn new(global: &Global, region: Region, imds: &Imds) -> Self {
        Self::with_credentials_copy(global, region, imds, None)
    }

    /// Like [`Ec2::new`], for the agent and for commands that check what it has: reads `copy` instead of the credentials
    /// file, which may be readable by root only.
    pub fn with_credentials_copy(global: &Global, region: Region, imds: &Imds, copy: Option<&Path>) -> Self {
        Self::counting(global, region, imds, copy, Arc::default())
    }

    /// The same, and adds each call to `calls`.
    pub fn counting(
        global: &Global,
        region: Region,
        imds: &Imds,
        copy: Option<&Path>,
        calls: Arc<Mutex<Calls>>,
    ) -> Self {
        let clock = Clock::default();
        let (budget, resolver) = (Budget::ec2(), Resolver::default());
        let ca_certificate_file = global.ca_certificate_file.clone().map(Roots::file);
        let trusted = ca_certificate_file.as_ref().map_or_else(Trusted::nothing, |file| Trusted::of(file, file.read()));
        let http = transport::https(trusted.roots.as_ref(), &budget, &resolver);
        let keys = match &global.credentials_file {
            Some(file) => Keys::file(
                file.clone(),
                copy.map(Path::to_owned),
                global.profile.clone().unwrap_or_else(|| DEFAULT_PROFILE.to_owned()),
                region.clone(),
                http.clone(),
                clock.clone(),
            ),
            None => Keys::role(imds.clone(), clock.clone()),
        };
        let (endpoint_url, fault) = match global.endpoint_url.as_deref().map(EndpointUrl::parse).transpose() {
            Ok(url) => (url, None),
            Err(reason) => (None, Some(failed(Failure::Settings, reason))),
        };
        let endpoint = global.endpoint_url.clone().or_else(|| endpoint_of(&region));
        let client = client(&region, endpoint_url.as_ref(), http, Some(&keys), &clock);
        Self(Arc::new(Ec2Inner {
            endpoint: endpoint.unwrap_or_else(|| format!("EC2 in {region}")),
            region,
            endpoint_url,
            fault,
            ca_certificate_file,
            clock,
            clock_throttle: Mutex::default(),
            keys,
            budget,
            resolver,
            usual_times: UsualTimes::default(),
            late_throttle: Mutex::default(),
            connections: Mutex::new(Connections { client, number: 0, trusted }),
            calls,
        }))
    }

    /// Claims the addresses for the ENI: AssignPrivateIpAddresses with AllowReassignment, once. Sends nothing if there are no
    /// addresses.
    ///
    /// # Errors
    /// See [`CallError`]. After [`ErrorClass::TimedOut`], and after `Connection` and `Answer`, EC2 may have performed the
    /// claim, or may still perform it.
    pub async fn claim(
        &self,
        eni: &EniId,
        addresses: &[Ipv4Addr],
        timeout: Duration,
    ) -> Result<Acknowledgement, CallError> {
        if addresses.is_empty() {
            return Ok(Acknowledgement::default());
        }
        let answer = self
            .attempt("ec2:AssignPrivateIpAddresses", Bound::after(timeout), |client| {
                client
                    .assign_private_ip_addresses()
                    .network_interface_id(eni.as_str())
                    .allow_reassignment(true)
                    .set_private_ip_addresses(Some(addresses.iter().map(ToString::to_string).collect()))
                    .send()
            })
            .await?;
        let listed = answer.assigned_private_ip_addresses().iter();
        let listed = listed.map(|a| address(a.private_ip_address().unwrap_or_default()));
        let listed = listed.collect::<Result<HashSet<_>, _>>()?;
        Ok(Acknowledgement {
            request_id: request_id(&answer),
            unlisted: addresses.iter().filter(|a| !listed.contains(a)).copied().collect(),
        })
    }

    /// The owners of the addresses: DescribeNetworkInterfaces with filters, for 199 addresses at a time. `timeout` bounds all
    /// requests together. Without `vpc`, an address that several VPCs of the account use gets any one of its owners.
    ///
    /// # Errors
    /// See [`CallError`]. An error in one page fails the whole call: a partial result must not show an address as unassigned.
    pub async fn owners(
        &self,
        vpc: Option<&VpcId>,
        addresses: &[Ipv4Addr],
        timeout: Duration,
    ) -> Result<Owners, CallError> {
        let holders = self.holders(vpc, addresses, &[], timeout).await?.holders.into_iter();
        Ok(holders.filter_map(|(resource, holder)| Some((resource.address()?, holder.owner()?.clone()))).collect())
    }

    /// The same, with the Elastic IPs that are associated with the addresses, and with the descriptions of those of `enis` that
    /// have one of the addresses.
    ///
    /// # Errors
    /// As [`Ec2::owners`].
    pub async fn holders(
        &self,
        vpc: Option<&VpcId>,
        addresses: &[Ipv4Addr],
        enis: &[EniId],
        timeout: Duration,
    ) -> Result<ReadAnswer, CallError> {
        let bound = Bound::after(timeout);
        let mut answer = ReadAnswer::default();
        // One value is the VPC's.
        for chunk in addresses.chunks(MAX_FILTER_VALUES - 1) {
            let wanted: HashSet<Ipv4Addr> = chunk.iter().copied().collect();
            let filters: Vec<Filter> = std::iter::once(
                Filter::builder()
                    .name("addresses.private-ip-address")
                    .set_values(Some(chunk.iter().map(ToString::to_string).collect())),
            )
            .chain(vpc.map(|vpc| Filter::builder().name("vpc-id").values(vpc.as_str())))
            .map(|filter| filter.build())
            .collect();
            let keep = |interface: NetworkInterface| {
                add_holders(&interface, &wanted, &mut answer.holders)?;
                if enis.iter().any(|eni| interface.network_interface_id() == Some(eni.as_str())) {
                    answer.interfaces.extend([describe(&interface)?]);
                }
                Ok(())
            };
            self.interfaces(&filters, bound, keep).await?;
        }
        Ok(answer)
    }

    /// Describes these network interfaces, by their ids; one that does not exist is absent. `timeout` bounds all requests
    /// together.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn described(&self, enis: &[EniId], timeout: Duration) -> Result<BTreeMap<EniId, Interface>, CallError> {
        let bound = Bound::after(timeout);
        let mut described = BTreeMap::new();
        for chunk in enis.chunks(MAX_FILTER_VALUES) {
            let ids = chunk.iter().map(ToString::to_string).collect();
            let filter = Filter::builder().name("network-interface-id").set_values(Some(ids)).build();
            let wanted: HashSet<&EniId> = chunk.iter().collect();
            self.interfaces(&[filter], bound, |interface| {
                let (eni, interface) = describe(&interface)?;
                if wanted.contains(&eni) {
                    described.insert(eni, interface);
                }
                Ok(())
            })
            .await?;
        }
        Ok(described)
    }

    /// Makes these dry runs, at most `MAX_DRY_RUNS_IN_FLIGHT` at a time. `left` is the time limit of those that begin now.
    pub async fn dry_runs(
        &self,
        requests: &[DryRunRequest],
        left: impl Fn() -> Duration,
    ) -> Vec<(Resource, Result<(), CallError>)> {
        let mut answers = Vec::new();
        for some in requests.chunks(MAX_DRY_RUNS_IN_FLIGHT) {
            let timeout = left();
            let asked = some.iter().map(async |request| (request.resource(), self.dry_run(request, timeout).await));
            answers.extend(join_all(asked).await);
        }
        answers
    }

    /// Whether EC2 permits the calls of a claim. Changes nothing.
    ///
    /// # Errors
    /// See [`CallError`]; [`CallError::is_refusal`]: EC2 would refuse the claim.
    pub async fn dry_run(&self, request: &DryRunRequest, timeout: Duration) -> Result<(), CallError> {
        match request {
            DryRunRequest::Route { route, eni, creates } => self.dry_run_route(route, eni, *creates, timeout).await,
            DryRunRequest::ElasticIp { allocation, eni, private_address } => {
                self.dry_run_elastic_ip(allocation, eni, *private_address, timeout).await
            }
        }
    }

    /// Asks EC2 to assign the ENI its own primary address, without AllowReassignment, if a read has just shown that the ENI is
    /// attached to this instance. Whatever EC2 answers, nothing moves: the only address in the request is where it stays, and
    /// EC2 never moves a primary address.
    ///
    /// # Errors
    /// See [`CallError`]: EC2 has not described the ENI.
    pub async fn probe_assignment(
        &self,
        eni: &EniId,
        instance: &InstanceId,
        timeout: Duration,
    ) -> Result<AssignmentProbe, CallError> {
        let bound = Bound::after(timeout);
        let described = self.described(std::slice::from_ref(eni), timeout).await?;
        let Some(interface) = described.get(eni) else {
            return Ok(AssignmentProbe::NoSuchEni);
        };
        if interface.instance.as_ref() != Some(instance) {
            return Ok(AssignmentProbe::NotAttached(interface.instance.clone()));
        }
        let Some(primary) = interface.primary else {
            return Err(invalid_response(format!("the answer does not show the primary address of {eni}")));
        };
        let answer = self.attempt("ec2:AssignPrivateIpAddresses", bound, |client| {
            client
                .assign_private_ip_addresses()
                .network_interface_id(eni.as_str())
                .private_ip_addresses(primary.to_string())
                .send()
        });
        Ok(match answer.await {
            Ok(answer) => AssignmentProbe::Answered { request_id: request_id(&answer), result: Ok(()) },
            Err(error) => AssignmentProbe::Answered { request_id: error.request_id.clone(), result: Err(error) },
        })
    }

    /// How many private IPv4 addresses a network interface of such an instance can have (DescribeInstanceTypes,
    /// `Ipv4AddressesPerInterface`). Needs an IAM permission that no other call needs.
    ///
    /// # Errors
    /// See [`CallError`]; an answer without the number is one.
    pub async fn addresses_per_interface(&self, kind: &InstanceType, timeout: Duration) -> Result<usize, CallError> {
        let answer = self
            .attempt("ec2:DescribeInstanceTypes", Bound::after(timeout), |client| {
                client.describe_instance_types().instance_types(kind.as_str().into()).send()
            })
            .await?;
        let count =
            answer.instance_types().first().and_then(|kind| kind.network_info()?.ipv4_addresses_per_interface());
        count
            .and_then(|count| usize::try_from(count).ok())
            .ok_or_else(|| invalid_response(format!("the answer has no Ipv4AddressesPerInterface for {kind}")))
    }

    /// Checks that the endpoint answers as EC2 does, with an unsigned request, which EC2 refuses: this needs no credentials.
    /// The Date of the answer also updates [`Ec2::clock_skew`].
    ///
    /// # Errors
    /// `Connection`, `TLS`, `Timeout`, `Answer` or `Settings`: EC2 cannot be reached.
    pub async fn probe_endpoint(&self, timeout: Duration) -> Result<(), CallError> {
        let inner = &*self.0;
        if let Some(fault) = &inner.fault {
            return Err(fault.clone());
        }
        self.look();
        let http = transport::https(self.connections().trusted.roots.as_ref(), &inner.budget, &inner.resolver);
        let client = client(&inner.region, inner.endpoint_url.as_ref(), http, None, &inner.clock);
        let request = client.describe_network_interfaces().max_results(ENIS_PER_PAGE as i32).send();
        let Ok(answer) = tokio::time::timeout(timeout, request).await else {
            return Err(no_answer(&inner.endpoint, timeout));
        };
        let Err(error) = answer else { return Ok(()) };
        let mut error = from_sdk(&error, &inner.endpoint);
        match error.failure {
            Failure::Connection | Failure::Tls => {
                if let Some(fault) = self.ca_fault() {
                    error.message = format!("{}; {}", error.message, one_line(&fault));
                }
                Err(error)
            }
            Failure::Timeout
            | Failure::InvalidResponse
            | Failure::TooLong
            | Failure::TooManyRequests
            | Failure::Settings => Err(error),
            _ => Ok(()),
        }
    }

    /// The error of a call that was given up after that time.
    pub fn no_answer(&self, after: Duration) -> CallError {
        no_answer(&self.0.endpoint, after)
    }

    /// Loads credentials if there are none yet, and returns which are in use.
    ///
    /// # Errors
    /// [`Failure::Credentials`]: there are none, with the reason.
    pub async fn load_credentials(&self, timeout: Duration) -> Result<CredentialFacts, CallError> {
        self.ready(Bound::after(timeout)).await?;
        Ok(self.credentials())
    }

    /// Reads every page of DescribeNetworkInterfaces with these filters, all within `bound`. Each interface goes to `keep` as
    /// soon as its page has arrived, so that only one page is in memory.
    async fn interfaces(
        &self,
        filters: &[Filter],
        bound: Bound,
        mut keep: impl FnMut(NetworkInterface) -> Result<(), CallError>,
    ) -> Result<(), CallError> {
        let mut pages = Pages::new("network interfaces", ENIS_PER_PAGE);
        while let Some(token) = pages.next()? {
            let answer = self
                .attempt("ec2:DescribeNetworkInterfaces", bound, |client| {
                    client
                        .describe_network_interfaces()
                        .set_filters(Some(filters.to_vec()))
                        .max_results(ENIS_PER_PAGE as i32)
                        .set_next_token(token.clone())
                        .send()
                })
                .await?;
            let interfaces = pages.items(answer.network_interfaces, answer.next_token)?;
            interfaces.into_iter().try_for_each(&mut keep)?;
        }
        Ok(())
    }

    /// Reads the credentials again now, if their file has changed.
    ///
    /// # Errors
    /// [`Failure::Credentials`]: the reading has not ended in time.
    pub async fn read_changed_credentials(&self, timeout: Duration) -> Result<(), CallError> {
        let read = tokio::time::timeout(timeout, self.0.keys.read_if_file_changed()).await;
        read.map_err(|_| self.0.keys.no_answer(timeout))
    }

    /// Which credentials are in use.
    pub fn credentials(&self) -> CredentialFacts {
        self.0.keys.facts()
    }

    /// A watch for changes of the credentials from now on.
    pub fn credentials_watch(&self) -> CredentialsWatch {
        self.0.keys.watch(self.clone())
    }

    /// How far EC2's clock is ahead of this router's, by EC2's last answer, to about a second; negative: behind.
    pub fn clock_skew(&self) -> Option<SignedDuration> {
        self.0.clock.skew()
    }

    /// The region that is called.
    pub fn region(&self) -> &Region {
        &self.0.region
    }

    /// The URL that is called, for display.
    pub fn endpoint(&self) -> &str {
        &self.0.endpoint
    }

    /// The host and the port of that URL.
    pub fn host(&self) -> Option<(String, u16)> {
        Endpoint::parse(&self.0.endpoint).ok().map(|endpoint| endpoint.host_and_port())
    }

    /// The addresses of that host, as far as the calls have resolved it.
    pub fn known_addresses(&self) -> Vec<SocketAddr> {
        let Some((host, port)) = self.host() else { return Vec::new() };
        let addresses = host.parse().map_or_else(|_| self.0.resolver.known(&host), |address: IpAddr| vec![address]);
        addresses.into_iter().map(|address| (address, port).into()).collect()
    }

    /// One attempt. `action` is the IAM action.
    pub(super) async fn attempt<T, E, F>(
        &self,
        action: &'static str,
        bound: Bound,
        send: impl Fn(&aws_sdk_ec2::Client) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        T: aws_sdk_ec2::operation::RequestId,
        E: ProvideErrorMetadata + Error + 'static,
    {
        let result = self.uncounted_attempt(action, bound, send).await;
        if let Ok(answer) = &result {
            request_ids::succeeded(request_id(answer));
        }
        self.calls().count(operation(action), result.as_ref().err());
        result
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.0.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn uncounted_attempt<T, E, F>(
        &self,
        action: &'static str,
        bound: Bound,
        send: impl Fn(&aws_sdk_ec2::Client) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + Error + 'static,
    {
        if let Some(fault) = &self.0.fault {
            return Err(fault.clone());
        }
        let Bound { deadline, timeout } = bound;
        let used = self.ready(bound).await?;
        let (mut number, correction) = (0, self.0.clock.correction());
        match timeout_at(deadline, self.answer(action, deadline, send, &mut number)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let refused =
                    Refused { action, denied_by: DeniedBy::of(error.message().unwrap_or_default()), correction, used };
                Err(self.explain(from_sdk(&error, &self.0.endpoint), refused, deadline).await)
            }
            Err(_) => {
                self.replace_connections(number);
                Err(no_answer(&self.0.endpoint, timeout))
            }
        }
    }

    /// The answer to a request. If it is late, and not withdrawn, the request is signed and sent again, on new connections.
    /// The first success of the two counts. The failure of one waits for the other: EC2 may have refused the copy only because
    /// it has both. It waits for as long as an answer usually takes, and at most until `deadline`, so that a known refusal
    /// never becomes a timeout.
    /// `number` is that of the connections used last.
    async fn answer<T, E, F>(
        &self,
        action: &'static str,
        deadline: Instant,
        send: impl Fn(&aws_sdk_ec2::Client) -> F,
        number: &mut u64,
    ) -> F::Output
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata,
    {
        let usual = &self.0.usual_times;
        let send = |number: &mut u64, captured| {
            let client;
            (client, *number) = self.client();
            usual.measure(action, captured, send(&client))
        };
        let captured = Captured::default();
        let mut first = pin!(send(number, captured.clone()));
        let host = self.host().map(|(host, _)| host).unwrap_or_default();
        let (late, peer) = tokio::select! {
            biased;
            answer = &mut first => return answer,
            late = captured.late(usual.limit(action), || self.0.resolver.first_of_several(&host)) => late,
        };
        if is_withdrawn() {
            self.replace_connections(*number);
            return first.await;
        }
        self.leave_connections(*number, action, late, peer);
        let copy = pin!(send(number, Captured::default()));
        let outcome = select(first, copy).await;
        let until = deadline.min(Instant::now() + usual.limit(action));
        match outcome {
            Either::Left((first, copy)) if !is_final(&first) => match timeout_at(until, copy).await {
                Ok(copy) => better(first, copy),
                Err(_) => first,
            },
            // EC2 does not have the first request.
            Either::Right((copy, _)) if late == Late::Bytes && is_answer(&copy) => copy,
            Either::Right((copy, first)) if !is_final(&copy) => match timeout_at(until, first).await {
                Ok(first) => better(first, copy),
                Err(_) => copy,
            },
            Either::Left((answer, _)) | Either::Right((answer, _)) => answer,
        }
    }

    /// Waits for credentials to sign with.
    async fn ready(&self, Bound { deadline, timeout }: Bound) -> Result<Generation, CallError> {
        timeout_at(deadline, self.0.keys.ready()).await.unwrap_or_else(|_| {
            // Nothing was sent to EC2.
            Err(self.0.keys.no_answer(timeout))
        })
    }

    /// Adds to a refusal what the clock and the credentials that signed the request explain of it.
    async fn explain(&self, mut error: CallError, refused: Refused<'_>, deadline: Instant) -> CallError {
        let Refused { action, denied_by, correction, used } = refused;
        let mut add = |text: String| error.message = format!("{}; {}", error.message, one_line(&text));
        if let Failure::Api { code, class } = &mut error.failure
            && code.may_be_the_clock()
            && let Some(off) = self.0.clock.take_over(correction)
        {
            let signed_at = Timestamp::now().saturating_add(correction).unwrap_or(Timestamp::MAX);
            let is_ahead = off.is_negative();
            let off = skew(off, signed_at);
            let mut throttle = self.0.clock_throttle.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(times) = throttle.say(is_ahead) {
                log!(CLOCK_OFF, off, times);
            }
            drop(throttle);
            add(format!("the clock was {off}; requests are now signed with EC2's time"));
            *class = ErrorClass::Clock;
        } else if let Failure::Api { code, class } = &mut error.failure
            && code.may_be_the_credentials()
        {
            let source = self.0.keys.facts().source;
            match timeout_at(deadline, self.0.keys.read_after_refusal(used)).await {
                Ok(true) => {
                    add(format!("{source}: read again, new credentials found"));
                    *class = ErrorClass::Transient;
                }
                Ok(false) => add(format!("{source}: read again, no new credentials")),
                Err(_) => add(source),
            }
        } else if error.failure.has_code(ErrorCode::is_denial) {
            add(denied_by.remedy(action, &self.0.keys.facts().source));
        } else if matches!(error.failure, Failure::Connection | Failure::Tls) {
            if self.look() {
                add("ca-certificate-file: changed, read again".to_owned());
            }
            self.ca_fault().into_iter().for_each(add);
        }
        error
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.0.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self) -> (aws_sdk_ec2::Client, u64) {
        let connections = self.connections();
        (connections.client.clone(), connections.number)
    }

    /// Replaces the connections, unless they have been replaced since `number`.
    fn replace_connections(&self, number: u64) {
        let mut connections = self.connections();
        if connections.number == number {
            self.renew(&mut connections);
        }
    }

    /// Replaces the connections because a request on one of them is late, and avoids its remote address.
    fn leave_connections(&self, number: u64, action: &'static str, late: Late, peer: Option<IpAddr>) {
        self.calls().sent_again(operation(action));
        let shown = peer.map_or_else(|| self.0.endpoint.clone(), |peer| peer.to_string());
        let mut throttle = self.0.late_throttle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(times) = throttle.say((late, shown.clone())) {
            log!(REQUEST_SENT_AGAIN, action, peer = shown, reason = %late, times);
        }
        peer.into_iter().for_each(|peer| self.0.resolver.avoid(peer));
        self.replace_connections(number);
    }

    fn renew(&self, connections: &mut Connections) {
        let inner = &*self.0;
        let http = transport::https(connections.trusted.roots.as_ref(), &inner.budget, &inner.resolver);
        inner.keys.set_http(&http);
        connections.client = client(&inner.region, inner.endpoint_url.as_ref(), http, Some(&inner.keys), &inner.clock);
        connections.number += 1;
    }

    /// Reads the certificate file and trusts its content; true if it has changed.
    pub(super) fn look(&self) -> bool {
        let Some(file) = &self.0.ca_certificate_file else { return false };
        let found = file.read();
        let mut connections = self.connections();
        if connections.trusted.is_of(&found) {
            return false;
        }
        connections.trusted = Trusted::of(file, found);
        self.renew(&mut connections);
        true
    }

    /// Why the certificate file is not usable.
    fn ca_fault(&self) -> Option<String> {
        let file = self.0.ca_certificate_file.as_ref()?;
        let connections = self.connections();
        let reason = connections.trusted.fault.as_deref()?;
        Some(format!("ca-certificate-file {}: {reason}", file.path().display()))
    }
}

impl fmt::Debug for Ec2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ec2").field("endpoint", &self.0.endpoint).field("keys", &self.0.keys).finish_non_exhaustive()
    }
}

/// Builds the SDK's client from values alone: environment variables and files of the user have no effect. Without `keys`,
/// requests are not signed.
fn client(
    region: &Region,
    endpoint_url: Option<&EndpointUrl>,
    http: SharedHttpClient,
    keys: Option<&Keys>,
    clock: &Clock,
) -> aws_sdk_ec2::Client {
    let config = aws_sdk_ec2::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(aws_sdk_ec2::config::Region::new(region.to_string()))
        .http_client(http)
        .identity_cache(IdentityCache::no_cache())
        .time_source(clock.clone())
        .interceptor(clock.clone())
        .interceptor(WholeAnswer)
        .interceptor(hedge::Capture)
        .disable_clock_skew_correction(true)
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).build())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    let mut config = match keys {
        Some(keys) => config.credentials_provider(keys.clone()),
        None => config.allow_no_auth(),
    };
    config.set_endpoint_url(endpoint_url.map(|url| url.0.clone()));
    config.set_app_name(AppName::new(env!("CARGO_PKG_NAME")).ok());
    aws_sdk_ec2::Client::from_conf(config.build())
}

/// Rejects a document that ends before its root element does. The SDK accepts a truncated document, in which an address
/// could appear to be unassigned.
#[derive(Debug)]
struct WholeAnswer;

impl Intercept for WholeAnswer {
    fn name(&self) -> &'static str {
        "WholeAnswer"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let answer = context.response();
        let taken = answer.status().is_success() && context.output_or_error().is_ok();
        let whole = !taken || answer.body().bytes().is_some_and(is_whole);
        if whole { Ok(()) } else { Err("not a complete XML document".into()) }
    }
}

fn is_whole(document: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(document) else { return false };
    let text = text.trim();
    let root = text.strip_prefix("<?xml").and_then(|t| t.split_once("?>")).map_or(text, |(_, rest)| rest.trim_start());
    let name = root.strip_prefix('<').and_then(|t| t.split(|c: char| c.is_whitespace() || c == '>').next());
    name.is_some_and(|name| root.ends_with(&format!("</{name}>")))
}

/// A URL that a request can be sent to. The SDK panics on an empty one.
struct EndpointUrl(String);

impl EndpointUrl {
    fn parse(url: &str) -> Result<Self, String> {
        Endpoint::parse(url).map_err(|reason| format!("endpoint-url {url:?} {reason}"))?;
        Ok(Self(url.to_owned()))
    }
}

/// The API operation, which has the name of its IAM action.
fn operation(action: &'static str) -> &'static str {
    action.trim_start_matches("ec2:")
}

/// The endpoint of EC2 in a region, by the SDK's rules for its partition.
fn endpoint_of(region: &Region) -> Option<String> {
    let params = Params::builder().region(region.as_str()).build().ok()?;
    let endpoint = DefaultResolver::new().resolve_endpoint(&params).now_or_never()?.ok()?;
    Some(endpoint.url().to_owned())
}

fn add_holders(
    interface: &NetworkInterface,
    wanted: &HashSet<Ipv4Addr>,
    holders: &mut BTreeMap<Resource, Holder>,
) -> Result<(), CallError> {
    let eni: EniId = interface.network_interface_id().unwrap_or_default().try_into().map_err(unreadable)?;
    let instance = interface.attachment().and_then(|a| a.instance_id()).map(|id| id.try_into().map_err(unreadable));
    let instance = instance.transpose()?;
    for private in interface.private_ip_addresses() {
        let address = address(private.private_ip_address().unwrap_or_default())?;
        if wanted.contains(&address) {
            let primary = private.primary().unwrap_or_default();
            let owner = Owner { eni: eni.clone(), instance: instance.clone(), primary };
            let holder = match private.association().map(elastic_ip).transpose()?.flatten() {
                Some(elastic_ip) => Holder::WithElasticIp { owner, elastic_ip },
                None => Holder::Eni(owner),
            };
            holders.insert(address.into(), holder);
        }
    }
    Ok(())
}

/// The Elastic IP of an association; none: the public address is one that EC2 gave the instance for as long as it runs.
fn elastic_ip(association: &NetworkInterfaceAssociation) -> Result<Option<ElasticIp>, CallError> {
    let Some(allocation) = association.allocation_id() else {
        return Ok(None);
    };
    let public_address = address(association.public_ip().unwrap_or_default())?;
    Ok(Some(ElasticIp { allocation: allocation.try_into().map_err(unreadable)?, public_address }))
}

fn describe(interface: &NetworkInterface) -> Result<(EniId, Interface), CallError> {
    let eni = interface.network_interface_id().unwrap_or_default().try_into().map_err(unreadable)?;
    let instance = interface.attachment().and_then(|a| a.instance_id()).map(|id| id.try_into().map_err(unreadable));
    let addresses =
        interface.private_ip_addresses().iter().map(|a| address(a.private_ip_address().unwrap_or_default()));
    let primary = interface.private_ip_address().map(address).transpose()?;
    let described = Interface {
        subnet: interface.subnet_id().unwrap_or_default().try_into().map_err(unreadable)?,
        instance: instance.transpose()?,
        source_dest_check: interface.source_dest_check(),
        primary,
        addresses: addresses.collect::<Result<_, _>>()?,
        prefixes: interface.ipv4_prefixes().len(),
    };
    Ok((eni, described))
}

/// The pages of an answer.
pub(super) struct Pages {
    /// What is listed, for messages.
    what: &'static str,
    /// The most items in a page.
    size: usize,
    read: usize,
    token: Option<String>,
    is_last: bool,
}

impl Pages {
    pub(super) fn new(what: &'static str, size: usize) -> Self {
        Self { what, size, read: 0, token: None, is_last: false }
    }

    /// The token for the next page, which the first one does not have; none after the last page.
    pub(super) fn next(&mut self) -> Result<Option<Option<String>>, CallError> {
        if self.is_last {
            return Ok(None);
        }
        if self.read == MAX_PAGES {
            return Err(invalid_response(format!("more than {MAX_PAGES} pages of {}", self.what)));
        }
        self.read += 1;
        Ok(Some(self.token.clone()))
    }

    /// The items of a page. `next` is the token that came with it.
    pub(super) fn items<T>(&mut self, items: Option<Vec<T>>, next: Option<String>) -> Result<Vec<T>, CallError> {
        let Self { what, size, .. } = *self;
        let Some(items) = items else {
            return Err(invalid_response(format!("the answer does not list {what}")));
        };
        if items.len() > size {
            let count = items.len();
            return Err(invalid_response(format!("{count} {what} in a page; at most {size} were requested")));
        }
        let next = next.filter(|token| !token.is_empty());
        if next.as_ref().is_some_and(|token| token.len() > MAX_PAGE_TOKEN_BYTES) {
            return Err(invalid_response(format!(
                "the token for the next page is longer than {MAX_PAGE_TOKEN_BYTES} bytes"
            )));
        }
        if next.is_some() && next == self.token {
            return Err(invalid_response("the token for the next page repeats".to_owned()));
        }
        self.is_last = next.is_none();
        self.token = next;
        Ok(items)
    }
}

fn no_answer(endpoint: &str, timeout: Duration) -> CallError {
    failed(Failure::Timeout, format!("no answer from {endpoint} within {timeout:?}"))
}

/// The id of the request, for [`Acknowledgement`].
pub(super) fn request_id(answer: &impl aws_sdk_ec2::operation::RequestId) -> Option<RequestId> {
    answer.request_id().and_then(|id| RequestId::try_from(id).ok())
}

/// Whether a call is permitted, by the answer to its dry run, which is an error always (EC2 API, "DryRun").
pub(super) fn permitted<T>(answer: Result<T, CallError>) -> Result<(), CallError> {
    match answer {
        Err(error) if error.code() == "DryRunOperation" => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(invalid_response("the answer to a dry run is that of a call which was performed".to_owned())),
    }
}

/// The ENI and its instance, as an answer names them.
pub(super) fn owner(eni: &str, instance: Option<&str>) -> Result<Owner, CallError> {
    Ok(Owner {
        eni: eni.try_into().map_err(unreadable)?,
        instance: instance.map(|id| id.try_into().map_err(unreadable)).transpose()?,
        primary: false,
    })
}

pub(super) fn address(text: &str) -> Result<Ipv4Addr, CallError> {
    text.parse().map_err(|_| invalid_response(format!("{text:?} is not an IPv4 address")))
}

pub(super) fn unreadable(error: InvalidId) -> CallError {
    invalid_response(error.to_string())
}

pub(super) fn invalid_response(what: String) -> CallError {
    failed(Failure::InvalidResponse, format!("EC2: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_whole_when_its_root_ends() {
        for whole in ["<a></a>", "<?xml version=\"1.0\"?>\n\n<a b=\"c\"><d/>\n</a>\n", "<a><a></a></a>"] {
            assert!(is_whole(whole.as_bytes()), "{whole:?}");
        }
        for part in ["", "<a", "<a>", "<a><d></d>", "<a><d></a", "<?xml version=\"1.0\"?>", "text", "\u{0}", "<ab></a>"]
        {
            assert!(!is_whole(part.as_bytes()), "{part:?}");
        }
        assert!(!is_whole(b"<a>\xff</a>"));
    }

    #[test]
    fn each_partition_has_its_own_endpoint() {
        for (region, url) in [
            ("eu-central-1", "https://ec2.eu-central-1.amazonaws.com"),
            ("cn-north-1", "https://ec2.cn-north-1.amazonaws.com.cn"),
            ("us-gov-west-1", "https://ec2.us-gov-west-1.amazonaws.com"),
            ("eusc-de-east-1", "https://ec2.eusc-de-east-1.amazonaws.eu"),
        ] {
            assert_eq!(endpoint_of(&region.try_into().expect("a region")).as_deref(), Some(url));
        }
    }
}
