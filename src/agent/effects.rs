//! Calls to EC2, IMDS and the kernel. Each is a task of its own, so that the event loop never waits for one.

use std::collections::BTreeSet;
use std::future::pending;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use vipa_core::claim::{
    ClaimId, ClaimRequest, DryRunId, DryRunRequest, Event, Inspection, ReadAnswer, ReadId, ReadRequest,
};
use vipa_core::model::calls::Calls;
use vipa_core::model::config::Global;
use vipa_core::model::counters::{FirstRequests, Histogram, NotifyToRequest};
use vipa_core::model::credentials::{CredentialFacts, CredentialsChange, Identity};
use vipa_core::model::ec2::{Acknowledgement, AddressLimit, CallError, Eni, Failure, Instance};
use vipa_core::model::ids::{EniId, InstanceId, InterfaceName, MacAddress, Region, RequestId};
use vipa_core::model::path::Service;
use vipa_core::model::proof::Caller;
use vipa_core::model::resource::Resource;

use super::{BootClock, BootInstant};
use crate::agent::state::PersistentState;
use crate::aws::{
    AssignmentProbe, CredentialsWatch, Ec2, Imds, InterfaceEnis, InterfaceError, Withdrawal, when_sent, with_request_id,
};
use crate::log_messages::log;
use crate::netlink::{addresses, routes};
use crate::systemd::log_throttle::LogThrottle;

/// The first and the longest wait between attempts to read the instance identity from IMDS. Each wait is twice the
/// last.
const IDENTIFY_BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// The status shows a difference of at least this many seconds between EC2's clock and this router's.
const MIN_REPORTED_CLOCK_SKEW_SECONDS: i64 = 5;

/// Where the hypervisor of Nitro instances shows the instance's id (EC2 User Guide, "Identify EC2 instances").
const ASSET_TAG: &str = "/sys/devices/virtual/dmi/id/board_asset_tag";

/// The result of a task.
#[derive(Debug)]
pub enum EffectResult {
    Instance(Instance),
    /// The ENI of an interface, and the interface's MAC address if the kernel has one.
    Eni {
        interface: InterfaceName,
        mac: Option<MacAddress>,
        result: Result<Eni, CallError>,
    },
    /// The local addresses could not be read, and why.
    AddressesNotListed(String),
    /// The answer to a read of owners, with EC2's request id of its last request.
    Read {
        id: ReadId,
        result: Result<ReadAnswer, CallError>,
        request_id: Option<RequestId>,
    },
    /// EC2's answers to the calls of a proof.
    Proved(ProofAnswers),
    /// An event for the state machine.
    Event(Event),
}

/// EC2's answer about an ENI, and who has called EC2.
type Probed = Result<(AssignmentProbe, Caller), CallError>;

/// EC2's answers to the calls of a proof.
#[derive(Debug)]
pub struct ProofAnswers {
    pub enis: Vec<(EniId, Probed)>,
    pub dry_runs: Vec<(Resource, Result<(), CallError>)>,
}

/// Starts the calls, and stores the results of earlier ones.
#[derive(Debug)]
pub struct Effects {
    answers: UnboundedSender<EffectResult>,
    imds: Imds,
    /// The agent's copy of the credentials file.
    credentials_copy: PathBuf,
    global: Global,
    instance: Option<Instance>,
    /// The instance id from the firmware, for the time while IMDS does not answer.
    asset_tag: Option<InstanceId>,
    /// The region that IMDS named before the agent was restarted.
    remembered: Option<Region>,
    /// The client of EC2, once the region is known.
    ec2: watch::Sender<Option<Ec2>>,
    credentials: Option<CredentialsWatch>,
    /// The calls of all clients of EC2 so far.
    calls: Arc<Mutex<Calls>>,
    /// How soon after notify events the claims were sent.
    first_requests: Arc<Mutex<FirstRequests>>,
    /// The claims under way.
    claims: Vec<(Vec<Resource>, Withdrawal)>,
    throttle: LogThrottle<String>,
    pub last_success: Option<BootInstant>,
    pub last_error: Option<(BootInstant, CallError)>,
}

impl Effects {
    pub fn new(answers: UnboundedSender<EffectResult>, state: &PersistentState, credentials_copy: PathBuf) -> Self {
        let tag = std::fs::read_to_string(ASSET_TAG).unwrap_or_default();
        let asset_tag = InstanceId::try_from(tag.trim()).ok();
        Self {
            answers,
            imds: Imds::new(),
            credentials_copy,
            global: Global::default(),
            instance: None,
            remembered: asset_tag.as_ref().and_then(|tag| state.enis.get().region(tag)).cloned(),
            asset_tag,
            ec2: watch::Sender::new(None),
            credentials: None,
            calls: Arc::default(),
            first_requests: Arc::default(),
            claims: Vec::new(),
            throttle: LogThrottle::default(),
            last_success: None,
            last_error: None,
        }
    }

    /// Applies new settings. Calls in flight end with the old ones.
    pub fn configure(&mut self, global: &Global) {
        if self.global != *global {
            self.global = global.clone();
            self.ec2.send_replace(None);
        }
        self.connect();
    }

    fn connect(&mut self) {
        if self.ec2.borrow().is_none()
            && let Some(region) = self.region()
        {
            let (copy, calls) = (Some(self.credentials_copy.as_path()), Arc::clone(&self.calls));
            let ec2 = Ec2::counting(&self.global, region, &self.imds, copy, calls);
            self.credentials = Some(ec2.credentials_watch());
            self.ec2.send_replace(Some(ec2));
        }
    }

    /// Reads the instance identity from IMDS, and retries until it succeeds.
    pub fn identify(&self) {
        let (imds, answers) = (self.imds.clone(), self.answers.clone());
        tokio::spawn(async move {
            let mut wait = IDENTIFY_BACKOFF.0;
            let mut throttle = LogThrottle::default();
            loop {
                match imds.instance().await {
                    Ok(instance) => {
                        // Sending fails only when the agent ends.
                        let _ = answers.send(EffectResult::Instance(instance));
                        return;
                    }
                    Err(error) => {
                        if let Some(times) = throttle.say(error.code().to_owned()) {
                            let (code, message) = (error.code(), &error.message);
                            log!(INSTANCE_NOT_KNOWN, code, message, times);
                        }
                    }
                }
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(IDENTIFY_BACKOFF.1);
            }
        });
    }

    /// Makes a claim. `notified`: the notify events that have caused it.
    pub fn claim(
        &mut self,
        id: ClaimId,
        request: ClaimRequest,
        timeout: Duration,
        notified: Vec<(Resource, BootInstant)>,
    ) {
        let (ec2, answers) = (self.ec2.subscribe(), self.answers.clone());
        let first_requests = Arc::clone(&self.first_requests);
        let measure = move || {
            let notified: Vec<_> = notified.into_iter().map(|(resource, at)| (resource, at.since_boot())).collect();
            locked(&first_requests).sent(BootClock::read().since_boot(), &notified);
        };
        let withdrawal = Withdrawal::default();
        self.claims.retain(|(_, withdrawal)| withdrawal.covers_a_call());
        self.claims.push((request.resources(), withdrawal.clone()));
        tokio::spawn(async move {
            let result = withdrawal.cover(when_sent(measure, claim(ec2, &request, timeout))).await;
            let _ = answers.send(EffectResult::Event(Event::Claimed { id, result }));
        });
    }

    /// Withdraws the claims under way of which no resource is wanted any more.
    pub fn withdraw_claims(&self, is_wanted: impl Fn(&Resource) -> bool) {
        let unwanted = self.claims.iter().filter(|(resources, _)| !resources.iter().any(&is_wanted));
        unwanted.for_each(|(_, withdrawal)| withdrawal.withdraw());
    }

    pub fn read(&self, id: ReadId, request: ReadRequest, timeout: Duration) {
        let (ec2, answers) = (self.ec2.subscribe(), self.answers.clone());
        tokio::spawn(async move {
            let (result, request_id) = with_request_id(read(ec2, &request, timeout)).await;
            let _ = answers.send(EffectResult::Read { id, result, request_id });
        });
    }

    pub fn dry_run(&self, id: DryRunId, request: DryRunRequest, timeout: Duration) {
        let (ec2, answers) = (self.ec2.borrow().clone(), self.answers.clone());
        tokio::spawn(async move {
            let result = match ec2 {
                Some(ec2) => ec2.dry_run(&request, timeout).await,
                None => Err(no_region()),
            };
            let _ = answers.send(EffectResult::Event(Event::DryRun { id, result }));
        });
    }

    /// Reads what the regular reads do not show.
    pub fn inspect(&self, wants_limit: bool, enis: Vec<EniId>, timeout: Duration) {
        let (ec2, imds, answers) = (self.ec2.borrow().clone(), self.imds.clone(), self.answers.clone());
        tokio::spawn(async move {
            let limit = async {
                let instance_type = imds.instance_type().await?;
                let ec2 = ec2.as_ref().ok_or_else(no_region)?;
                let addresses = ec2.addresses_per_interface(&instance_type, timeout).await?;
                Ok(AddressLimit { instance_type, addresses })
            };
            let interfaces = async { ec2.as_ref().ok_or_else(no_region)?.described(&enis, timeout).await };
            let inspection = Inspection {
                limit: if wants_limit { Some(limit.await) } else { None },
                interfaces: if enis.is_empty() { None } else { Some(interfaces.await) },
            };
            let _ = answers.send(EffectResult::Event(Event::Inspected(inspection)));
        });
    }

    /// Has EC2 show that it permits the claims, without moving anything. `timeout` bounds each call, and `within` all of them.
    /// `enis` are attached to this instance.
    pub fn prove(
        &self,
        enis: Option<(InstanceId, BTreeSet<EniId>)>,
        dry_runs: Vec<DryRunRequest>,
        timeout: Duration,
        within: Duration,
    ) {
        let (ec2, answers) = (self.ec2.subscribe(), self.answers.clone());
        let endpoint_url = self.global.endpoint_url.clone();
        tokio::spawn(async move {
            let deadline = Instant::now() + within;
            let left = || timeout.min(deadline.saturating_duration_since(Instant::now()));
            let ec2 = match client(ec2, left()).await {
                // An operator who has just replaced the file means what is in it now.
                Some(ec2) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    ec2.read_changed_credentials(left).await.map(|()| ec2)
                }
                None => Err(no_region()),
            };
            let mut probed = Vec::new();
            if let Some((instance, enis)) = enis {
                for eni in enis {
                    let result = match &ec2 {
                        Ok(ec2) => {
                            let caller = |identity| {
                                Caller::new(instance.clone(), ec2.region().clone(), endpoint_url.clone(), identity)
                            };
                            probe(ec2, &eni, &instance, left).await.map(|(probe, identity)| (probe, caller(identity)))
                        }
                        Err(error) => Err(error.clone()),
                    };
                    probed.push((eni, result));
                }
            }
            let dry_runs = match &ec2 {
                Ok(ec2) => ec2.dry_runs(&dry_runs, left).await,
                Err(error) => dry_runs.iter().map(|request| (request.resource(), Err(error.clone()))).collect(),
            };
            let _ = answers.send(EffectResult::Proved(ProofAnswers { enis: probed, dry_runs }));
        });
    }

    /// Who calls EC2 now; none while the instance or the region is not known, or credentials were never loaded.
    pub fn caller(&self) -> Option<Caller> {
        let identity = self.credentials()?.identity()?;
        Some(Caller::new(self.instance_id()?, self.region()?, self.global.endpoint_url.clone(), identity))
    }

    pub fn resolve(&self, interface: InterfaceName) {
        let (imds, answers) = (self.imds.clone(), self.answers.clone());
        tokio::spawn(async move {
            let enis = InterfaceEnis::read(&imds).await;
            let mac = enis.mac(&interface).ok();
            let result = enis.eni(&interface).await.map_err(|error| match error {
                InterfaceError::Local(_) => local_error(&error),
                InterfaceError::Imds(error) => error,
            });
            let _ = answers.send(EffectResult::Eni { interface, mac, result });
        });
    }

    /// Reads the kernel's paths to EC2 and IMDS.
    pub fn read_network(&self) {
        let ec2 = self.ec2.borrow().as_ref().map(Ec2::known_addresses).unwrap_or_default();
        let (imds, answers) = (self.imds.address(), self.answers.clone());
        tokio::spawn(async move {
            let ec2 = ec2.into_iter().map(|address| (Service::Ec2, address));
            let network = routes::local_network(ec2.chain(imds.map(|address| (Service::Imds, address)))).await;
            let _ = answers.send(EffectResult::Event(Event::Network(network)));
        });
    }

    /// Reads the local addresses again.
    pub fn list_addresses(&self) {
        let answers = self.answers.clone();
        tokio::spawn(async move {
            match addresses::list().await {
                Ok(addresses) => {
                    let _ = answers.send(EffectResult::Event(Event::LocalAddresses { addresses, requested: true }));
                }
                // The machine asks again later.
                Err(error) => _ = answers.send(EffectResult::AddressesNotListed(error.to_string())),
            }
        });
    }

    /// Updates what is known, and returns the event for the state machine.
    pub fn answered(&mut self, answer: EffectResult, state: &mut PersistentState, clock: BootClock) -> Option<Event> {
        let now = clock.now();
        match answer {
            EffectResult::Instance(instance) => {
                log!(INSTANCE_KNOWN, instance = %instance.id, region = %instance.region);
                self.instance = Some(instance);
                if self.ec2.borrow().as_ref().map(Ec2::region) != self.region().as_ref() {
                    self.ec2.send_replace(None);
                }
                let was_cut_off = self.ec2.borrow().is_none();
                self.connect();
                // Calls failed until now because no region was known; without this they would be repeated after a whole
                // interval.
                (was_cut_off && self.ec2.borrow().is_some()).then_some(Event::ReadNow)
            }
            EffectResult::Eni { interface, mac, result } => {
                let eni = match (mac, result) {
                    (Some(mac), Ok(eni)) => {
                        self.learn(state, &interface, mac, &eni);
                        Ok(eni)
                    }
                    // The cached ENI stays valid for this instance and MAC address when IMDS does not answer, or omits
                    // an attached interface, which can happen after a reboot or a live migration. IMDS is asked again.
                    (Some(mac), Err(error)) => {
                        let kept = self.instance_id().and_then(|id| state.enis.get().eni(&id, mac).cloned());
                        kept.ok_or(error)
                    }
                    (_, result) => result,
                };
                Some(Event::Resolved { interface, eni })
            }
            // The agent has stored them.
            EffectResult::Proved(_) => None,
            EffectResult::AddressesNotListed(error) => {
                if let Some(times) = self.throttle.say(error.clone()) {
                    log!(LOCAL_ADDRESSES_NOT_READ, error, times);
                }
                None
            }
            EffectResult::Read { id, result, .. } => Some(self.ended(now, Event::Read { id, result })),
            EffectResult::Event(event) => Some(self.ended(now, event)),
        }
    }

    /// Remembers how a call has ended, if the event is about one.
    fn ended(&mut self, now: BootInstant, event: Event) -> Event {
        match &event {
            Event::Claimed { result: Ok(_), .. } | Event::Read { result: Ok(_), .. } => {
                self.last_success = Some(now);
                self.last_error = None;
            }
            Event::Claimed { result: Err(error), .. } | Event::Read { result: Err(error), .. } => {
                self.last_error = Some((now, error.clone()));
            }
            _ => {}
        }
        event
    }

    fn learn(&self, state: &mut PersistentState, interface: &InterfaceName, mac: MacAddress, eni: &Eni) {
        if let Some(instance) = &self.instance {
            let mut map = state.enis.get().clone();
            map.learn(&instance.id, &instance.region, interface, mac, eni.clone());
            state.enis.set(map);
        }
    }

    /// Waits until the credentials change.
    pub async fn credentials_changed(&mut self) -> CredentialsChange {
        match &mut self.credentials {
            Some(watch) => watch.changed().await,
            None => pending().await,
        }
    }

    pub fn instance_id(&self) -> Option<InstanceId> {
        self.instance.as_ref().map(|i| i.id.clone()).or_else(|| self.asset_tag.clone())
    }

    pub fn region(&self) -> Option<Region> {
        let current = || self.instance.as_ref().map(|i| &i.region);
        self.global.region.as_ref().or_else(current).or(self.remembered.as_ref()).cloned()
    }

    pub fn credentials(&self) -> Option<CredentialFacts> {
        self.ec2.borrow().as_ref().map(Ec2::credentials)
    }

    /// Forgets what was measured of resources that are no longer configured.
    pub fn retain(&self, is_configured: impl Fn(&Resource) -> bool) {
        locked(&self.first_requests).retain(is_configured);
    }

    /// How many calls of EC2 were made, and their outcomes.
    pub fn calls(&self) -> Calls {
        locked(&self.calls).clone()
    }

    /// From notify events to the first requests that they caused.
    pub fn notify_to_request(&self) -> Histogram<NotifyToRequest> {
        locked(&self.first_requests).durations.clone()
    }

    /// EC2's clock minus this router's, in seconds; 0 if the round trip and the whole seconds of a Date explain the difference.
    /// None: no answer has shown EC2's clock.
    pub fn clock_skew(&self) -> Option<i64> {
        let seconds = self.ec2.borrow().as_ref()?.clock_skew()?.as_secs();
        Some(if seconds.abs() >= MIN_REPORTED_CLOCK_SKEW_SECONDS { seconds } else { 0 })
    }
}

/// One attempt. The wait for a client and the call together take at most `within`.
async fn claim(
    ec2: watch::Receiver<Option<Ec2>>,
    request: &ClaimRequest,
    within: Duration,
) -> Result<Acknowledgement, CallError> {
    let began = Instant::now();
    let Some(ec2) = client(ec2, within).await else {
        return Err(no_region());
    };
    let within = within.saturating_sub(began.elapsed());
    match request {
        ClaimRequest::Addresses { eni, addresses } => ec2.claim(eni, addresses, within).await,
        ClaimRequest::Route { route, eni } => ec2.claim_route(route, eni, within).await,
        ClaimRequest::ElasticIp { allocation, eni, private_address } => {
            ec2.claim_elastic_ip(allocation, eni, *private_address, within).await
        }
    }
}

/// The same for a read.
async fn read(
    ec2: watch::Receiver<Option<Ec2>>,
    request: &ReadRequest,
    within: Duration,
) -> Result<ReadAnswer, CallError> {
    let began = Instant::now();
    let Some(ec2) = client(ec2, within).await else {
        return Err(no_region());
    };
    let within = within.saturating_sub(began.elapsed());
    match request {
        ReadRequest::Addresses { vpc, addresses, enis } => ec2.holders(Some(vpc), addresses, enis, within).await,
        ReadRequest::Routes(routes) => ec2.routes(routes, within).await.map(ReadAnswer::from),
        ReadRequest::ElasticIps(allocations) => ec2.associations(allocations, within).await.map(ReadAnswer::from),
    }
}

/// The client of EC2. Just after its start the agent learns the region within milliseconds, so waiting for it is faster
/// than a failed attempt and a retry.
async fn client(mut ec2: watch::Receiver<Option<Ec2>>, within: Duration) -> Option<Ec2> {
    match tokio::time::timeout(within, ec2.wait_for(Option::is_some)).await {
        Ok(Ok(ec2)) => ec2.clone(),
        _ => None,
    }
}

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// EC2's answer about an ENI, and to whom: asks again if the credentials changed meanwhile, so that the answer is not taken for
/// one to other credentials. `left` is the time limit of a call.
async fn probe(
    ec2: &Ec2,
    eni: &EniId,
    instance: &InstanceId,
    left: impl Fn() -> Duration,
) -> Result<(AssignmentProbe, Identity), CallError> {
    loop {
        let before = ec2.load_credentials(left()).await?.identity();
        let probe = ec2.probe_assignment(eni, instance, left()).await?;
        if let Some(identity) = before.filter(|before| ec2.credentials().identity().as_ref() == Some(before)) {
            return Ok((probe, identity));
        }
    }
}

fn no_region() -> CallError {
    CallError::new(Failure::NoRegion, "the region is unknown: IMDS has not answered yet, and no region is configured")
}

fn local_error(error: &dyn std::error::Error) -> CallError {
    CallError::new(Failure::LocalInterface, error.to_string())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use vipa_core::model::ids::GroupName;
    use vipa_core::model::vrrp::{NotifyEvent, NotifyState};

    use super::*;
    use crate::agent::tests::agent_of_two_hundred_masters;
    use crate::paths::Paths;

    /// IMDS may omit an attached ENI after a reboot or a live migration.
    #[tokio::test]
    async fn what_imds_once_said_of_an_interface_holds_on_this_instance_where_it_leaves_it_out() {
        let mac = MacAddress::try_from("02:00:00:00:00:01".to_owned()).expect("a MAC address");
        let id = |n: u8| InstanceId::try_from(format!("i-0000000{n}")).expect("an id");
        let region = Region::try_from("eu-west-1").expect("a region");
        let eni = Eni {
            id: EniId::try_from("eni-0000000a").expect("an id"),
            subnet: "subnet-0000000a".try_into().expect("a subnet"),
            vpc: "vpc-0000000a".try_into().expect("a VPC"),
            primary: Ipv4Addr::new(10, 0, 0, 1),
            block: None,
        };
        let mut state = PersistentState::load(std::path::Path::new("/nonexistent"));
        let eth0 = InterfaceName::try_from("eth0").expect("a name");
        state.enis.change(|map| map.learn(&id(1), &region, &eth0, mac, eni.clone()));
        let mut resolved = |instance: Option<u8>, failure: Failure| {
            let mut effects = Effects::new(tokio::sync::mpsc::unbounded_channel().0, &state, PathBuf::new());
            effects.asset_tag = None;
            effects.instance = instance.map(|n| Instance {
                id: id(n),
                region: region.clone(),
                availability_zone: "eu-west-1a".to_owned(),
            });
            let error = CallError::new(failure, "as the test wants it");
            let answer = EffectResult::Eni { interface: eth0.clone(), mac: Some(mac), result: Err(error) };
            match effects.answered(answer, &mut state, BootClock::start()) {
                Some(Event::Resolved { eni, .. }) => eni.map_err(|error| error.class()),
                other => panic!("{other:?}"),
            }
        };
        for failure in [Failure::Timeout, Failure::UnknownMac] {
            let class = failure.class();
            assert_eq!(resolved(Some(1), failure.clone()), Ok(eni.clone()), "{class:?}");
            assert_eq!(resolved(Some(2), failure.clone()), Err(class), "the disk of another instance");
            assert_eq!(resolved(None, failure), Err(class), "whose disk it is, is not known");
        }
    }

    #[tokio::test]
    async fn a_claim_from_before_the_region_is_known_waits_for_it_and_not_for_ever() {
        let sender = watch::Sender::new(None);
        assert!(client(sender.subscribe(), Duration::from_millis(1)).await.is_none());
        let waiting = tokio::spawn(client(sender.subscribe(), Duration::from_secs(10)));
        tokio::task::yield_now().await;
        let region = Region::try_from("eu-west-1").expect("a region");
        sender.send_replace(Some(Ec2::new(&Global::default(), region.clone(), &Imds::new())));
        let ec2 = waiting.await.expect("no panic").expect("known by now");
        assert_eq!(*ec2.region(), region);
    }

    #[tokio::test]
    async fn the_wait_for_the_region_is_part_of_the_attempt() {
        // An endpoint that accepts connections and never answers.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("credentials");
        std::fs::write(&file, "[default]\naws_access_key_id = AKIA\naws_secret_access_key = s\n").expect("written");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let global = Global { endpoint_url: Some(url), credentials_file: Some(file), ..Global::default() };
        let ec2 = Ec2::new(&global, Region::try_from("eu-west-1").expect("a region"), &Imds::new());
        let sender = watch::Sender::new(None);
        let (eni, within) = (EniId::try_from("eni-0123abcd").expect("an ENI"), Duration::from_secs(6));
        let request = ClaimRequest::Addresses { eni, addresses: vec![Ipv4Addr::new(10, 0, 0, 100)] };
        let attempt = claim(sender.subscribe(), &request, within);
        let allocation = "eipalloc-0123abcd".try_into().expect("an allocation");
        let read_request = ReadRequest::ElasticIps(vec![allocation]);
        let read = read(sender.subscribe(), &read_request, within);
        let region = async {
            tokio::time::sleep(within * 3 / 4).await;
            sender.send_replace(Some(ec2));
        };
        let began = Instant::now();
        let (claimed, read, ()) = tokio::join!(attempt, read, region);
        let took = began.elapsed();
        for error in [claimed.expect_err("no answer"), read.expect_err("no answer")] {
            assert_eq!(error.failure, Failure::Timeout, "{error}");
        }
        // If the wait were not part of the attempt, this would take three quarters of the time more.
        assert!(took < within * 3 / 2, "{took:?}");
    }

    /// keepalived's state changes, or a person pauses the group, while EC2 has not answered a claim.
    #[tokio::test]
    async fn a_late_claim_is_sent_again_unless_its_groups_are_no_longer_master() {
        // An endpoint that accepts connections and never answers.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let (connected, mut connections) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connected.send(stream).expect("the test goes on");
            }
        });
        let directory = tempfile::tempdir().expect("a directory");
        let copy = directory.path().join("credentials.json");
        let keys = "[default]\naws_access_key_id = AKIA\naws_secret_access_key = s\n";
        let text = serde_json::json!({ "format": 1, "file": "/keys", "content": { "text": keys } });
        std::fs::write(&copy, text.to_string()).expect("written");
        let global = Global {
            endpoint_url: Some(url),
            credentials_file: Some("/keys".into()),
            region: Region::try_from("eu-west-1").ok(),
            ..Global::default()
        };
        let paths = Paths::system();
        let say = |group: &GroupName, state| Event::Notify(vec![NotifyEvent { group: group.clone(), state }]);
        let pause = |group: &GroupName, _| Event::Pause {
            group: group.clone(),
            until: BootClock::read() + Duration::from_secs(600),
        };
        type Change<'a> = &'a dyn Fn(&GroupName, NotifyState) -> Event;
        let backup = NotifyState::Backup;
        for (what, changed, change, state, expected) in [
            ("both become BACKUP", vec![0, 1], &say as Change<'_>, backup, 1),
            ("both are paused", vec![0, 1], &pause, backup, 1),
            ("one becomes BACKUP", vec![0], &say, backup, 2),
            ("another group becomes BACKUP", vec![199], &say, backup, 2),
            ("both are said to be MASTER", vec![0, 1], &say, NotifyState::Master, 2),
        ] {
            let mut agent = agent_of_two_hundred_masters(&paths, directory.path());
            let (answers, mut results) = tokio::sync::mpsc::unbounded_channel();
            agent.effects = Effects::new(answers, &agent.state, copy.clone());
            agent.effects.imds = Imds::at("http://127.0.0.1:9");
            agent.effects.configure(&global);
            let addresses = [0, 1].map(|n| agent.groups.groups[n].addresses[0].address);
            let eni = EniId::try_from("eni-0123abcd").expect("an ENI");
            let request = ClaimRequest::Addresses { eni, addresses: addresses.to_vec() };
            agent.effects.claim(ClaimId(1), request, Duration::from_secs(3), Vec::new());
            let mut sent = vec![connections.recv().await.expect("a connection")];
            for n in changed {
                let group = agent.groups.groups[n].name.clone();
                agent.handle(change(&group, state));
            }
            let failed = async {
                while let Some(result) = results.recv().await {
                    if let EffectResult::Event(Event::Claimed { id: ClaimId(1), result }) = result {
                        return result;
                    }
                }
                panic!("the claim has no result");
            };
            failed.await.expect_err("no answer");
            sent.extend(std::iter::from_fn(|| connections.try_recv().ok()));
            assert_eq!(sent.len(), expected, "connections when {what}");
        }
    }
}
