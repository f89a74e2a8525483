//! Calls to EC2, IMDS and the kernel, each a task of its own: the loop never waits for one.

use std::future::pending;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use vipa_core::claim::{ClaimId, Event, ReadId};
use vipa_core::model::config::Global;
use vipa_core::model::credentials::CredentialFacts;
use vipa_core::model::ec2::{Acknowledgement, CallError, Eni, ErrorClass, Instance};
use vipa_core::model::ids::{EniId, InstanceId, InterfaceName, MacAddress, Region, VpcId};

use super::{BootClock, Moment};
use crate::agent::state::PersistentState;
use crate::aws::{CredentialsWatch, Ec2, Imds, InterfaceEnis, InterfaceError};
use crate::log_messages::log;
use crate::netlink::addresses;
use crate::systemd::log_throttle::LogThrottle;

/// The waits between attempts to learn from IMDS who we are: doubled up to the longest.
const IDENTIFY_BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// A difference between EC2's clock and ours that is less than that many seconds is not told.
const REPORTED_CLOCK_SKEW_SECONDS: i64 = 5;

/// Where the hypervisor of Nitro instances shows the instance's id (EC2 User Guide, "Identify EC2 instances").
const ASSET_TAG: &str = "/sys/devices/virtual/dmi/id/board_asset_tag";

/// What a task has found out.
#[derive(Debug)]
pub enum EffectResult {
    /// Who we are.
    Instance(Instance),
    /// The ENI behind an interface, and the interface's MAC address where that was known.
    Eni { interface: InterfaceName, mac: Option<MacAddress>, result: Result<Eni, CallError> },
    /// The local addresses were not read, and why.
    Unlooked(String),
    /// Something for the machine as it is.
    Event(Event),
}

/// The way out, and what is known of it.
#[derive(Debug)]
pub struct Effects {
    answers: UnboundedSender<EffectResult>,
    imds: Imds,
    /// Where systemd puts the agent's copy of the credentials file.
    copies: Option<PathBuf>,
    global: Global,
    instance: Option<Instance>,
    /// This instance as the firmware tells it: IMDS may be down when the agent starts.
    asset_tag: Option<InstanceId>,
    /// Its region, as IMDS once said.
    remembered: Option<Region>,
    /// The way to EC2, once the region is known.
    ec2: watch::Sender<Option<Ec2>>,
    credentials: Option<CredentialsWatch>,
    throttle: LogThrottle<String>,
    pub last_success: Option<Moment>,
    pub last_error: Option<(Moment, CallError)>,
}

impl Effects {
    pub fn new(answers: UnboundedSender<EffectResult>, state: &PersistentState, copies: Option<PathBuf>) -> Self {
        let tag = std::fs::read_to_string(ASSET_TAG).unwrap_or_default();
        let asset_tag = InstanceId::try_from(tag.trim()).ok();
        Self {
            answers,
            imds: Imds::new(),
            copies,
            global: Global::default(),
            instance: None,
            remembered: asset_tag.as_ref().and_then(|tag| state.enis.get().region(tag)).cloned(),
            asset_tag,
            ec2: watch::Sender::new(None),
            credentials: None,
            throttle: LogThrottle::default(),
            last_success: None,
            last_error: None,
        }
    }

    /// Goes by these settings from now on. Effects in flight end by the old ones.
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
            let ec2 = Ec2::with_copies(&self.global, region, &self.imds, self.copies.as_deref());
            self.credentials = Some(ec2.credentials_watch());
            self.ec2.send_replace(Some(ec2));
        }
    }

    /// Asks IMDS who we are, until it says so.
    pub fn identify(&self) {
        let (imds, answers) = (self.imds.clone(), self.answers.clone());
        tokio::spawn(async move {
            let mut wait = IDENTIFY_BACKOFF.0;
            let mut throttle = LogThrottle::default();
            loop {
                match imds.instance().await {
                    Ok(instance) => {
                        // The receiver is gone only when the agent ends.
                        let _ = answers.send(EffectResult::Instance(instance));
                        return;
                    }
                    Err(error) => {
                        if let Some(times) = throttle.say(error.code.clone()) {
                            let CallError { code, message, .. } = error;
                            log!(INSTANCE_NOT_KNOWN, code, message, times);
                        }
                    }
                }
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(IDENTIFY_BACKOFF.1);
            }
        });
    }

    pub fn claim(&self, id: ClaimId, eni: EniId, addresses: Vec<Ipv4Addr>, timeout: Duration) {
        let (ec2, answers) = (self.ec2.subscribe(), self.answers.clone());
        tokio::spawn(async move {
            let result = claim(ec2, &eni, &addresses, timeout).await;
            let _ = answers.send(EffectResult::Event(Event::Claimed { id, result }));
        });
    }

    pub fn read(&self, id: ReadId, vpc: VpcId, addresses: Vec<Ipv4Addr>, timeout: Duration) {
        let (ec2, answers) = (self.ec2.borrow().clone(), self.answers.clone());
        tokio::spawn(async move {
            let result = match ec2 {
                Some(ec2) => ec2.owners(Some(&vpc), &addresses, timeout).await,
                None => Err(no_region()),
            };
            let _ = answers.send(EffectResult::Event(Event::Read { id, result }));
        });
    }

    pub fn resolve(&self, interface: InterfaceName) {
        let (imds, answers) = (self.imds.clone(), self.answers.clone());
        tokio::spawn(async move {
            let enis = InterfaceEnis::read(&imds).await;
            let mac = enis.mac(&interface).ok();
            let result = enis.eni(&interface).await.map_err(|error| match error {
                InterfaceError::Local(_) => local_error("Interface", &error),
                InterfaceError::Imds(error) => error,
            });
            let _ = answers.send(EffectResult::Eni { interface, mac, result });
        });
    }

    /// Reads the local addresses anew.
    pub fn look(&self) {
        let answers = self.answers.clone();
        tokio::spawn(async move {
            match addresses::list().await {
                Ok(addresses) => {
                    let _ = answers.send(EffectResult::Event(Event::Local { addresses, asked: true }));
                }
                // The machine asks again.
                Err(error) => _ = answers.send(EffectResult::Unlooked(error.to_string())),
            }
        });
    }

    /// Takes note of an answer, and makes of it what the machine should hear.
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
                // What was asked before failed for want of a region, and would be asked again after a whole interval.
                (was_cut_off && self.ec2.borrow().is_some()).then_some(Event::ReadNow)
            }
            EffectResult::Eni { interface, mac, result } => {
                let eni = match (mac, result) {
                    (Some(mac), Ok(eni)) => {
                        self.learn(state, mac, &eni);
                        Ok(eni)
                    }
                    // What IMDS once said of this instance and this MAC address still holds: it does not answer, or leaves out
                    // an interface that is attached, as it may after a reboot or a live migration. It is asked again.
                    (Some(mac), Err(error)) => {
                        let kept = self.instance_id().and_then(|id| state.enis.get().eni(&id, mac).cloned());
                        kept.ok_or(error)
                    }
                    (_, result) => result,
                };
                Some(Event::Resolved { interface, eni })
            }
            EffectResult::Unlooked(error) => {
                if let Some(times) = self.throttle.say(error.clone()) {
                    log!(LOCAL_ADDRESSES_NOT_READ, error, times);
                }
                None
            }
            EffectResult::Event(event) => {
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
                Some(event)
            }
        }
    }

    fn learn(&self, state: &mut PersistentState, mac: MacAddress, eni: &Eni) {
        if let Some(instance) = &self.instance {
            let mut map = state.enis.get().clone();
            map.learn(&instance.id, &instance.region, mac, eni.clone());
            state.enis.set(map);
        }
    }

    /// Waits until other credentials are there.
    pub async fn credentials_changed(&mut self) {
        match &mut self.credentials {
            Some(watch) => watch.changed().await,
            None => pending().await,
        }
    }

    pub fn instance_id(&self) -> Option<InstanceId> {
        self.instance.as_ref().map(|i| i.id.clone()).or_else(|| self.asset_tag.clone())
    }

    pub fn region(&self) -> Option<Region> {
        let said = || self.instance.as_ref().map(|i| &i.region);
        self.global.region.as_ref().or_else(said).or(self.remembered.as_ref()).cloned()
    }

    pub fn credentials(&self) -> Option<CredentialFacts> {
        self.ec2.borrow().as_ref().map(Ec2::credentials)
    }

    /// EC2's clock minus ours, in seconds, where that is more than what an answer's way and a Date of whole seconds make.
    pub fn clock_skew(&self) -> Option<i64> {
        let seconds = self.ec2.borrow().as_ref()?.clock_skew()?.as_secs();
        (seconds.abs() >= REPORTED_CLOCK_SKEW_SECONDS).then_some(seconds)
    }
}

/// One attempt: the wait for the way to EC2 and the call together take no longer than `within`.
async fn claim(
    ec2: watch::Receiver<Option<Ec2>>,
    eni: &EniId,
    addresses: &[Ipv4Addr],
    within: Duration,
) -> Result<Acknowledgement, CallError> {
    let began = Instant::now();
    match known(ec2, within).await {
        Some(ec2) => ec2.claim(eni, addresses, within.saturating_sub(began.elapsed())).await,
        None => Err(no_region()),
    }
}

/// The way to EC2, for a claim. An agent that has just started learns its region within milliseconds: to wait for that costs
/// less than to fail and to try again.
async fn known(mut ec2: watch::Receiver<Option<Ec2>>, within: Duration) -> Option<Ec2> {
    match tokio::time::timeout(within, ec2.wait_for(Option::is_some)).await {
        Ok(Ok(ec2)) => ec2.clone(),
        _ => None,
    }
}

fn no_region() -> CallError {
    CallError {
        class: ErrorClass::Transient,
        code: "Region".to_owned(),
        message: "the region is not known: IMDS has not answered yet, and no region is configured".to_owned(),
        request_id: None,
    }
}

fn local_error(code: &str, error: &dyn std::error::Error) -> CallError {
    CallError { class: ErrorClass::Transient, code: code.to_owned(), message: error.to_string(), request_id: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// IMDS leaves out an ENI that is attached, as it may after a reboot or a live migration.
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
        };
        let mut state = PersistentState::load(std::path::Path::new("/nonexistent"));
        state.enis.change(|map| map.learn(&id(1), &region, mac, eni.clone()));
        let mut resolved = |instance: Option<u8>, class| {
            let mut effects = Effects::new(tokio::sync::mpsc::unbounded_channel().0, &state, None);
            effects.asset_tag = None;
            effects.instance = instance.map(|n| Instance {
                id: id(n),
                region: region.clone(),
                availability_zone: "eu-west-1a".to_owned(),
            });
            let interface = InterfaceName::try_from("eth0").expect("a name");
            let error = CallError { class, ..local_error("NotFound", &std::fmt::Error) };
            let answer = EffectResult::Eni { interface, mac: Some(mac), result: Err(error) };
            match effects.answered(answer, &mut state, BootClock::start()) {
                Some(Event::Resolved { eni, .. }) => eni.map_err(|error| error.class),
                other => panic!("{other:?}"),
            }
        };
        for class in [ErrorClass::TimedOut, ErrorClass::NoSuchInterface] {
            assert_eq!(resolved(Some(1), class), Ok(eni.clone()), "{class:?}");
            assert_eq!(resolved(Some(2), class), Err(class), "the disk of another instance");
            assert_eq!(resolved(None, class), Err(class), "whose disk it is, is not known");
        }
    }

    #[tokio::test]
    async fn a_claim_from_before_the_region_is_known_waits_for_it_and_not_for_ever() {
        let sender = watch::Sender::new(None);
        assert!(known(sender.subscribe(), Duration::from_millis(1)).await.is_none());
        let waiting = tokio::spawn(known(sender.subscribe(), Duration::from_secs(10)));
        tokio::task::yield_now().await;
        let region = Region::try_from("eu-west-1").expect("a region");
        sender.send_replace(Some(Ec2::new(&Global::default(), region.clone(), &Imds::new())));
        let ec2 = waiting.await.expect("no panic").expect("known by now");
        assert_eq!(*ec2.region(), region);
    }

    #[tokio::test]
    async fn the_wait_for_the_region_is_part_of_the_attempt() {
        // An EC2 that takes connections and never answers.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("credentials");
        std::fs::write(&file, "[default]\naws_access_key_id = AKIA\naws_secret_access_key = s\n").expect("written");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let global = Global { endpoint_url: Some(url), credentials_file: Some(file), ..Global::default() };
        let ec2 = Ec2::new(&global, Region::try_from("eu-west-1").expect("a region"), &Imds::new());
        let sender = watch::Sender::new(None);
        let (eni, within) = (EniId::try_from("eni-0123abcd").expect("an ENI"), Duration::from_secs(6));
        let addresses = [Ipv4Addr::new(10, 0, 0, 100)];
        let attempt = claim(sender.subscribe(), &eni, &addresses, within);
        let region = async {
            tokio::time::sleep(within * 3 / 4).await;
            sender.send_replace(Some(ec2));
        };
        let began = Instant::now();
        let (result, ()) = tokio::join!(attempt, region);
        let (error, took) = (result.expect_err("no answer"), began.elapsed());
        assert_eq!(error.class, ErrorClass::TimedOut, "{error}");
        // Were the wait no part of it, it would take another three quarters of the time.
        assert!(took < within * 3 / 2, "{took:?}");
    }
}
