//! Requests that are sent once more, because their acknowledgement by TCP or their answer is late; over TLS to the simulator.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use simulator::{Fault, Listener, On, Request, Simulator, World};
use vipa_core::model::config::Global;
use vipa_core::model::ec2::{Acknowledgement, CallError, ErrorClass};
use vipa_core::model::ids::EniId;
use vyos_aws_vipa::aws::{Ec2, Imds};

use crate::{AMPLE, Answer, Router, SLACK, assigned, nowhere, serve};

const NAME: &str = "ec2.eu-west-1.amazonaws.com";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 100);
/// The limit for a claim on a dead connection, which takes 0.3 s and the time for a new connection. On a busy machine, only
/// the fastest of several claims keeps it.
const ARRIVED: Duration = Duration::from_secs(1);
/// The default of `request-timeout`.
const TIMEOUT: Duration = Duration::from_secs(3);

fn eni() -> EniId {
    "eni-0a000000000000001".try_into().expect("an ENI")
}

/// EC2 over TLS in the test's namespaces, and its client with a credentials file.
struct Place {
    cloud: Simulator,
    listeners: Vec<Listener>,
    ec2: Ec2,
    dir: tempfile::TempDir,
}

impl Place {
    /// EC2 listens on these addresses, and its name resolves to all of them.
    fn new(addresses: &[&str]) -> Self {
        let cloud = Simulator::start(World::two_routers().stale_reads(Duration::ZERO)).expect("a cloud");
        let dir = tempfile::tempdir().expect("a directory");
        let key = "[default]\naws_access_key_id=AKIAVIPAEXAMPLE00001\naws_secret_access_key=vipa-example-secret\n";
        for (name, text) in [("hosts", ""), ("ca.pem", cloud.ca_pem()), ("credentials", key)] {
            fs::write(dir.path().join(name), text).expect("written");
        }
        let mount = Command::new("mount").arg("--bind").arg(dir.path().join("hosts")).arg("/etc/hosts").status();
        assert!(mount.expect("mount(8)").success());
        let listeners = addresses.iter().map(|address| {
            let address = SocketAddr::new(address.parse().expect("an address"), 443);
            cloud.serve_ec2_tls(address, None, &[NAME]).expect("EC2")
        });
        let listeners = listeners.collect();
        let place = Self { ec2: client(dir.path()), cloud, listeners, dir };
        place.name();
        place
    }

    /// Makes EC2's name resolve to the addresses, in the order of the listeners.
    fn name(&self) {
        let lines = self.listeners.iter().map(|listener| format!("{} {NAME}\n", listener.address().ip()));
        fs::write(self.dir.path().join("hosts"), lines.collect::<String>()).expect("written");
    }

    /// Another client.
    fn client(&self) -> Ec2 {
        client(self.dir.path())
    }

    async fn claim(&self, timeout: Duration) -> (Result<Acknowledgement, CallError>, Duration) {
        let began = Instant::now();
        let answer = self.ec2.claim(&eni(), &[ADDRESS], timeout).await;
        (answer, began.elapsed())
    }

    /// Claims, and returns the one request that arrived, and the time that the claim took.
    async fn arrived(&self, what: &str) -> (Request, Duration) {
        let before = self.cloud.requests().len();
        let (answer, took) = self.claim(TIMEOUT).await;
        answer.unwrap_or_else(|error| panic!("{what}: {error}"));
        println!("{what}: answered after {took:?}");
        let mut requests = self.cloud.requests().split_off(before);
        assert_eq!(requests.len(), 1, "{what}: {requests:#?}");
        (requests.remove(0), took)
    }

    /// The client's address of each connection so far.
    fn clients(&self) -> BTreeSet<SocketAddr> {
        self.cloud.requests().iter().map(|request| request.peer).collect()
    }
}

fn client(dir: &Path) -> Ec2 {
    let global = Global {
        endpoint_url: Some(format!("https://{NAME}")),
        ca_certificate_file: Some(dir.join("ca.pem")),
        credentials_file: Some(dir.join("credentials")),
        ..Global::default()
    };
    Ec2::new(&global, "eu-west-1".try_into().expect("a region"), &Imds::at(&nowhere()))
}

/// Drops every packet to this address.
fn lose(address: SocketAddr) {
    const CHAIN: &str = "add table inet lost ; add chain inet lost input { type filter hook input priority 0 ; }";
    let rule = format!("add rule inet lost input ip daddr {} drop", address.ip());
    let status = Command::new("nft").arg(format!("{CHAIN} ; {rule}")).status().expect("nft(8)");
    assert!(status.success(), "{status}");
}

fn block_on(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test);
}

#[test]
fn a_claim_on_a_black_holed_connection_arrives_on_a_new_one() {
    lab::in_namespaces(|| block_on(black_holed("127.0.0.1")));
}

#[test]
fn a_claim_on_a_black_holed_connection_over_ipv6_arrives_on_a_new_one() {
    lab::in_namespaces(|| block_on(black_holed("::1")));
}

async fn black_holed(address: &str) {
    let place = Place::new(&[address]);
    let mut fastest = TIMEOUT;
    for _ in 0..3 {
        let (warm, _) = place.arrived("a warm connection").await;
        let (again, took) = place.arrived("the same connection").await;
        assert_eq!(again.peer, warm.peer, "{took:?}");
        lab::black_hole([warm.peer]);
        let (claim, took) = place.arrived("a black-holed connection").await;
        assert_ne!(claim.peer, warm.peer);
        assert!(took >= Duration::from_millis(300), "{took:?}");
        fastest = fastest.min(took);
        let (next, took) = place.arrived("the next claim").await;
        assert_eq!(next.peer, claim.peer, "not over the new connection: {took:?}");
    }
    assert!(fastest < ARRIVED, "{fastest:?}");
    // The same for reads, and for concurrent requests.
    lab::black_hole(place.clients());
    let (owners, claimed) = tokio::join!(place.ec2.owners(None, &[ADDRESS], TIMEOUT), place.claim(TIMEOUT));
    owners.map(drop).and(claimed.0.map(drop)).expect("both answers");
}

#[test]
fn a_claim_goes_to_the_address_of_the_endpoint_that_answers() {
    lab::in_namespaces(|| {
        block_on(async {
            let mut place = Place::new(&["127.0.0.2", "127.0.0.3"]);
            // On a busy machine the first claim may be sent twice.
            place.claim(TIMEOUT).await.0.expect("claimed");
            let (warm, _) = place.arrived("a warm connection").await;
            let (dead, alive): (Vec<_>, Vec<_>) = place.listeners.iter().partition(|l| l.number() == warm.listener);
            lose(dead[0].address());
            let alive = alive[0].number();
            assert_eq!(place.arrived("an address that is dead").await.0.listener, alive);
            // A new client may try the dead address first.
            for _ in 0..2 {
                let mut fastest = TIMEOUT;
                for _ in 0..3 {
                    place.ec2 = place.client();
                    let (answer, took) = place.claim(TIMEOUT).await;
                    answer.expect("claimed");
                    println!("a first claim: answered after {took:?}");
                    fastest = fastest.min(took);
                }
                assert!(fastest < ARRIVED, "{fastest:?}");
                place.listeners.reverse();
                place.name();
            }
        });
    });
}

#[test]
fn a_claim_that_is_answered_in_time_is_sent_once() {
    lab::in_namespaces(|| {
        block_on(async {
            let place = Place::new(&["127.0.0.1"]);
            // The answer takes longer than the limit for TCP's acknowledgement.
            place.cloud.add_fault(Fault::on(On::claims()).delay_before(Duration::from_millis(400)));
            for _ in 0..3 {
                place.arrived("an answer that takes 0.4 s").await;
            }
            place.cloud.clear_faults();
            place.cloud.add_fault(Fault::on(On::claims()).error(500, "InternalError").times(1));
            place.claim(TIMEOUT).await.0.expect_err("a refusal");
            assert_eq!(place.cloud.requests().len(), 4);
        });
    });
}

#[test]
fn a_claim_whose_answer_is_late_is_sent_once_more() {
    lab::in_namespaces(|| {
        block_on(async {
            let place = Place::new(&["127.0.0.1"]);
            place.arrived("a warm connection").await;
            let late = Duration::from_secs(2);
            for (fault, at_least, at_most) in [
                // The second request is answered at once.
                (Fault::on(On::claims()).delay_before(late).times(1), Duration::from_secs(1), late),
                (Fault::on(On::claims()).hang().performed().times(1), Duration::from_secs(1), late),
                // The first request is answered before the second.
                (Fault::on(On::claims()).delay_before(late), late, TIMEOUT),
                // Neither request is answered.
                (Fault::on(On::claims()).hang(), TIMEOUT, TIMEOUT + SLACK),
            ] {
                let before = place.cloud.requests().len();
                place.cloud.add_fault(fault.clone());
                let (answer, took) = place.claim(TIMEOUT).await;
                println!("{fault:?}: {took:?}");
                if at_least == TIMEOUT {
                    assert_eq!(answer.expect_err("no answer").class(), ErrorClass::TimedOut);
                } else {
                    answer.expect("an answer");
                }
                assert!(took >= at_least && took < at_most, "{fault:?}: {took:?}");
                place.cloud.clear_faults();
                let requests = place.cloud.requests().split_off(before);
                let [first, second] = &requests[..] else { panic!("{fault:?}: {requests:#?}") };
                assert_ne!(first.connection, second.connection, "{fault:?}");
            }
            // Answers after the end of the attempt have no effect.
            let late = place.cloud.wait_for("the late answers", AMPLE, |cloud| {
                let performed = cloud.requests().iter().filter(|request| request.performed.is_some()).count();
                (performed == 7).then_some(())
            });
            late.expect("performed");
            place.arrived("the next claim").await;
        });
    });
}

#[test]
fn a_copy_that_is_throttled_does_not_hide_the_success_of_the_first_request() {
    lab::in_namespaces(|| {
        block_on(async {
            let place = Place::new(&["127.0.0.1"]);
            let answered = place.cloud.requests().len();
            place.cloud.add_fault(Fault::on(On::claims()).delay_before(Duration::from_millis(1_500)).times(1));
            // From the second request on.
            let throttle = async {
                tokio::time::timeout(AMPLE, async {
                    while place.cloud.requests().len() == answered {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                })
                .await
                .expect("a request");
                place.cloud.add_fault(Fault::on(On::claims()).throttle());
            };
            let ((answer, took), ()) = tokio::join!(place.claim(TIMEOUT), throttle);
            answer.unwrap_or_else(|error| panic!("after {took:?}: {error}\n{}", place.cloud));
            let requests = place.cloud.requests().split_off(answered);
            let [first, copy] = &requests[..] else { panic!("{requests:#?}") };
            assert!(first.succeeded(), "{first}");
            assert_eq!(copy.code(), Some("RequestLimitExceeded"), "{copy}");
        });
    });
}

#[test]
fn a_refusal_of_the_copy_counts_when_the_first_request_is_never_answered() {
    lab::in_namespaces(|| {
        block_on(async {
            let place = Place::new(&["127.0.0.1"]);
            // In the second case the call ends before the wait for the first answer does.
            for timeout in [TIMEOUT, Duration::from_millis(1_600)] {
                let before = place.cloud.requests().len();
                place.cloud.add_fault(Fault::on(On::claims()).hang().times(1));
                place.cloud.add_fault(Fault::on(On::claims()).deny());
                let (answer, took) = place.claim(timeout).await;
                let error = answer.expect_err("denied");
                assert_eq!(error.class(), ErrorClass::Denied, "{timeout:?}: {error}");
                assert!(took >= timeout.min(Duration::from_secs(2)), "{timeout:?}: {took:?}");
                assert!(took < timeout + SLACK, "{timeout:?}: {took:?}");
                assert_eq!(place.cloud.requests().len() - before, 2, "{}", place.cloud);
                place.cloud.clear_faults();
            }
        });
    });
}

#[test]
fn a_refusal_of_the_copy_counts_at_once_when_the_first_request_has_not_arrived() {
    lab::in_namespaces(|| {
        block_on(async {
            let place = Place::new(&["127.0.0.1"]);
            let mut fastest = TIMEOUT;
            for _ in 0..3 {
                let (warm, _) = place.arrived("a warm connection").await;
                lab::black_hole([warm.peer]);
                place.cloud.add_fault(Fault::on(On::claims()).throttle());
                let before = place.cloud.requests().len();
                let (answer, took) = place.claim(TIMEOUT).await;
                assert_eq!(answer.expect_err("throttled").class(), ErrorClass::Throttled);
                assert_eq!(place.cloud.requests().len() - before, 1, "{}", place.cloud);
                place.cloud.clear_faults();
                fastest = fastest.min(took);
            }
            assert!(fastest < ARRIVED, "{fastest:?}");
        });
    });
}

#[tokio::test]
async fn the_second_request_has_its_own_signature() {
    let server = serve(|request| if request.connection == 1 { Answer::Hang } else { assigned(request) });
    let router = Router::new(&server.url);
    router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect("claimed");
    let [first, second] = &server.log()[..] else { panic!("{:?}", server.log()) };
    assert!(second.signed_at() > first.signed_at(), "{first:?}, {second:?}");
    assert_ne!(second.headers["authorization"], first.headers["authorization"]);
    assert_eq!(second.body, first.body);
}

#[tokio::test]
async fn a_call_that_usually_takes_long_is_repeated_after_twice_that_time() {
    let slow = Duration::from_millis(800);
    let slower = Duration::from_millis(1_300);
    let mut logs = Vec::new();
    // A busy machine makes calls late that are not: then there are more requests, never fewer.
    for _ in 0..5 {
        let late = Arc::new(AtomicBool::new(false));
        let server = serve({
            let late = late.clone();
            move |request| {
                std::thread::sleep(if late.load(Ordering::SeqCst) { slower } else { slow });
                assigned(request)
            }
        });
        let router = Router::new(&server.url);
        router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect("claimed");
        late.store(true, Ordering::SeqCst);
        router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect("claimed");
        logs.push(server.log());
        if logs.last().is_some_and(|log| log.len() == 2) {
            return;
        }
    }
    panic!("none of five pairs of calls took two requests: {logs:?}");
}
