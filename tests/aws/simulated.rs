//! Calls of the simulator, which moves addresses and checks signatures.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use simulator::{Effect, Fault, Instance, NetworkInterface, On, Simulator, Throttling, World};
use vipa_core::model::calls::{Calls, Outcomes};
use vipa_core::model::config::Global;
use vipa_core::model::ec2::{ErrorClass, Owner};
use vipa_core::model::ids::{AllocationId, EniId, MacAddress};
use vipa_core::model::resource::{ElasticIp, Holder, Resource};
use vyos_aws_vipa::aws::{Ec2, Imds};

use crate::{AMPLE, SLACK, nowhere, rotate, watch_files};

const FREE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 100);
const KEY: &str = "AKIAVIPAEXAMPLE00001";
const SECRET: &str = "vipa-example-secret";

fn eni(n: u8) -> EniId {
    format!("eni-0a00000000000000{n}").try_into().expect("an ENI")
}

/// A router with a user's access key, and the simulated EC2 that it calls.
struct Place {
    cloud: Simulator,
    ec2: Ec2,
    dir: tempfile::TempDir,
}

impl Place {
    fn new(world: World) -> Self {
        let cloud = Simulator::start(world).expect("a cloud");
        let url = cloud.serve_ec2_http(FREE, None).expect("EC2").url();
        Self::with(cloud, Global { endpoint_url: Some(url), ..Global::default() })
    }

    fn with(cloud: Simulator, mut global: Global) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        global.credentials_file = Some(dir.path().join("credentials"));
        let ec2 = Ec2::new(&global, "eu-west-1".try_into().expect("a region"), &Imds::at(&nowhere()));
        let place = Self { cloud, ec2, dir };
        place.key(KEY, SECRET);
        place
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("credentials")
    }

    fn key(&self, id: &str, secret: &str) {
        rotate(&self.file(), &format!("[default]\naws_access_key_id={id}\naws_secret_access_key={secret}\n"));
    }
}

fn prompt() -> World {
    World::two_routers().stale_reads(Duration::ZERO)
}

#[tokio::test]
async fn an_address_moves_and_its_new_owner_is_read() {
    let place = Place::new(prompt());
    for n in [1, 2] {
        let acknowledged = place.ec2.claim(&eni(n), &[ADDRESS], AMPLE).await.expect("claimed");
        assert!(acknowledged.request_id.is_some(), "no request id");
        assert!(acknowledged.unlisted.is_empty(), "{:?}", acknowledged.unlisted);
        assert_eq!(place.cloud.owner(ADDRESS).map(|e| e.to_string()), Some(eni(n).to_string()));
        let vpc = "vpc-0a000000000000001".try_into().expect("a VPC");
        let asked = [ADDRESS, Ipv4Addr::new(10, 99, 0, 11), Ipv4Addr::new(10, 99, 0, 200)];
        let owners = place.ec2.owners(Some(&vpc), &asked, AMPLE).await.expect("owners");
        let owner = |n: u8, primary| Owner {
            eni: eni(n),
            instance: Some(format!("i-0a00000000000000{n}").try_into().expect("an instance")),
            primary,
        };
        assert_eq!(owners.into_iter().collect::<Vec<_>>(), [(asked[1], owner(1, true)), (ADDRESS, owner(n, false))]);
    }
    let elsewhere = "vpc-0a0000000000000ff".try_into().expect("a VPC");
    assert!(place.ec2.owners(Some(&elsewhere), &[ADDRESS], AMPLE).await.expect("a response").is_empty());
}

#[tokio::test]
async fn an_elastic_ip_is_shown_with_the_address_and_moves_along() {
    let public_address = Ipv4Addr::new(203, 0, 113, 10);
    let allocation = AllocationId::try_from("eipalloc-0a000000000000001").expect("an id");
    let mut world = World { association_lag_ms: 0, ..prompt() };
    world.elastic_ips.push(simulator::ElasticIp::new(allocation.as_str(), public_address));
    let place = Place::new(world);
    let calls = Arc::<Mutex<Calls>>::default();
    let url = place.cloud.serve_ec2_http(FREE, None).expect("EC2").url();
    let global = Global { endpoint_url: Some(url), credentials_file: Some(place.file()), ..Global::default() };
    let (region, imds) = ("eu-west-1".try_into().expect("a region"), Imds::at(&nowhere()));
    let ec2 = Ec2::counting(&global, region, &imds, None, Arc::clone(&calls));
    let vpc = "vpc-0a000000000000001".try_into().expect("a VPC");
    let elastic_ip = ElasticIp { allocation: allocation.clone(), public_address };
    for n in [1, 2] {
        ec2.claim(&eni(n), &[ADDRESS], AMPLE).await.expect("claimed");
        if n == 1 {
            let associated = ec2.claim_elastic_ip(&allocation, &eni(1), Some(ADDRESS), AMPLE).await;
            associated.expect("associated");
        }
        let own = Ipv4Addr::new(10, 99, 0, 10 + n);
        let answer = ec2.holders(Some(&vpc), &[ADDRESS, own], &[eni(n)], AMPLE).await.expect("holders");
        assert_eq!(answer.interfaces, place.ec2.described(&[eni(n)], AMPLE).await.expect("described"));
        assert_eq!(answer.interfaces[&eni(n)].primary, Some(own));
        let mut holders = answer.holders;
        let owner = |primary| Owner {
            eni: eni(n),
            instance: Some(format!("i-0a00000000000000{n}").try_into().expect("an instance")),
            primary,
        };
        assert_eq!(holders.remove(&own.into()), Some(Holder::Eni(owner(true))));
        let with = Holder::WithElasticIp { owner: owner(false), elastic_ip: elastic_ip.clone() };
        assert_eq!(holders.remove(&ADDRESS.into()), Some(with));
        let associations = ec2.associations(std::slice::from_ref(&allocation), AMPLE).await.expect("associations");
        let association =
            Holder::Association { owner: owner(false), private_address: ADDRESS, public_address: Some(public_address) };
        assert_eq!(associations[&Resource::ElasticIp(allocation.clone())], association);
    }
    ec2.claim(&eni(9), &[ADDRESS], AMPLE).await.expect_err("no such ENI");
    let counted: Vec<_> = calls.lock().expect("no panic").iter().collect();
    let succeeded = |succeeded| Outcomes { succeeded, ..Outcomes::default() };
    assert_eq!(
        counted,
        [
            ("AssignPrivateIpAddresses", Outcomes { refused: 1, ..succeeded(2) }),
            ("AssociateAddress", succeeded(1)),
            ("DescribeAddresses", succeeded(2)),
            ("DescribeNetworkInterfaces", succeeded(2)),
        ]
    );
}

#[tokio::test]
async fn owners_are_read_in_pages_and_in_requests_below_the_limit_of_200_values() {
    // 250 instances with an interface each.
    let address = |n: usize| Ipv4Addr::new(10, 99, 4 + (n / 200) as u8, (n % 200) as u8 + 10);
    let mut world = prompt().subnet("subnet-0a0000000000000ff", "vpc-0a000000000000001", "10.99.4.0/22", "eu-west-1a");
    for n in 0..250 {
        let id = format!("eni-0b{n:015x}");
        let mac = format!("02:00:00:00:{:02x}:{:02x}", 1 + n / 200, n % 200);
        let interface = NetworkInterface::new(&id, &mac, "subnet-0a0000000000000ff", address(n));
        world = world.instance(Instance::new(&format!("i-0b{n:015x}")).interface(interface));
    }
    let place = Place::new(world);
    let asked: Vec<_> = (0..250).map(address).collect();
    let owners = place.ec2.owners(None, &asked, AMPLE).await.expect("owners");
    assert_eq!(owners.len(), 250);
    for (n, address) in asked.iter().enumerate() {
        assert_eq!(owners[address].eni.as_str(), format!("eni-0b{n:015x}"));
    }
    let requests = place.cloud.requests();
    let filtered: Vec<_> = requests.iter().map(|r| r.addresses.len()).collect();
    assert_eq!(filtered, [[199; 7].as_slice(), &[51; 2]].concat(), "not 30 interfaces a page");
}

#[tokio::test]
async fn too_large_and_too_many_pages_are_rejected_as_they_arrive() {
    let place = Place::new(prompt());
    for (interfaces, addresses, requests, code, reason) in [
        (1000, 50, 1, "AnswerTooLong", "the answer of http://127.0.0.1:"),
        (1000, 50, 1, "AnswerTooLong", " cannot be read: it is longer than 2048 KiB"),
        (31, 1, 1, "Answer", "31 network interfaces in a page; at most 30 were requested"),
        (30, 50, 20, "Answer", "more than 20 pages of network interfaces"),
        (0, 0, 20, "Answer", "more than 20 pages of network interfaces"),
    ] {
        let before = place.cloud.requests().len();
        let endless = Effect::EndlessPages { interfaces, addresses };
        place.cloud.add_fault(Fault::on(On::action("DescribeNetworkInterfaces")).effect(endless));
        let error = place.ec2.owners(None, &[ADDRESS], AMPLE).await.expect_err("no end");
        assert_eq!((error.class(), error.code()), (ErrorClass::Transient, code), "{error}");
        assert!(error.message.contains(reason), "{interfaces} of {addresses}: {error}");
        // On a busy machine a page may be late, and is requested once more.
        let sent = place.cloud.requests().len() - before;
        assert!((requests..=2 * requests).contains(&sent), "{sent} requests, {interfaces} of {addresses}: {error}");
        let error = place.ec2.described(&[eni(1)], AMPLE).await.expect_err("no end");
        assert_eq!((error.class(), error.code()), (ErrorClass::Transient, code), "{error}");
        place.cloud.clear_faults();
        place.ec2.owners(None, &[ADDRESS], AMPLE).await.expect("a valid answer");
    }
}

/// Each page arrives within the limit, but all of them together do not.
#[tokio::test]
async fn the_time_limit_of_a_read_is_that_of_all_its_pages_together() {
    let place = Place::new(prompt());
    let bound = Duration::from_secs(1);
    let pages = Fault::on(On::action("DescribeNetworkInterfaces")).delay_before(bound * 2 / 5);
    place.cloud.add_fault(pages.effect(Effect::EndlessPages { interfaces: 1, addresses: 1 }));
    let began = Instant::now();
    let error = place.ec2.owners(None, &[ADDRESS], bound).await.expect_err("no end");
    assert_eq!((error.class(), error.code()), (ErrorClass::TimedOut, "Timeout"), "{error}");
    assert!(began.elapsed() < bound + SLACK, "{:?}", began.elapsed());
    assert!(place.cloud.requests().len() <= 3, "{}", place.cloud);
}

/// Each request is answered within the limit, but all of them together are not.
#[tokio::test]
async fn the_time_limit_of_a_read_is_that_of_all_its_requests_together() {
    let place = Place::new(prompt());
    let bound = Duration::from_secs(1);
    place.cloud.add_fault(Fault::on(On::action("DescribeNetworkInterfaces")).delay_before(bound * 3 / 5));
    let addresses: Vec<_> = (0..400).map(|n| Ipv4Addr::new(10, 99, 4 + (n / 200) as u8, (n % 200) as u8)).collect();
    let enis: Vec<_> = (0..400).map(|n| EniId::try_from(format!("eni-{n:08x}")).expect("an id")).collect();
    place.ec2.owners(None, &addresses[..199], bound).await.expect("one request");
    for (what, error) in [
        ("owners", place.ec2.owners(None, &addresses, bound).await.expect_err("three requests")),
        ("described", place.ec2.described(&enis, bound).await.map(drop).expect_err("two requests")),
    ] {
        assert_eq!((error.class(), error.code()), (ErrorClass::TimedOut, "Timeout"), "{what}: {error}");
    }
}

#[tokio::test]
async fn the_reasons_why_an_address_cannot_be_assigned_are_distinguished() {
    let place = Place::new(prompt());
    for (n, address, class) in [
        (1, Ipv4Addr::new(10, 98, 0, 1), ErrorClass::BadResource),
        (1, Ipv4Addr::new(10, 99, 0, 12), ErrorClass::BadResource),
        (9, ADDRESS, ErrorClass::NoSuchInterface),
    ] {
        let error = place.ec2.claim(&eni(n), &[address], AMPLE).await.expect_err("refused");
        assert_eq!(error.class(), class, "{error}");
        assert!(error.request_id.is_some(), "{error:?}");
    }
}

#[tokio::test]
async fn faults_of_the_connection_and_of_ec2_have_their_class_and_time_limit() {
    let place = Place::new(prompt());
    let bound = Duration::from_millis(500);
    for (fault, class, code) in [
        (Fault::on(On::claims()).hang(), ErrorClass::TimedOut, "Timeout"),
        (Fault::on(On::claims()).hang().performed(), ErrorClass::TimedOut, "Timeout"),
        (Fault::on(On::claims()).delay_before(2 * bound), ErrorClass::TimedOut, "Timeout"),
        (Fault::on(On::claims()).drop_connection(), ErrorClass::Transient, "Connection"),
        (Fault::on(On::claims()).error(500, "InternalError"), ErrorClass::Transient, "InternalError"),
        (Fault::on(On::claims()).error(503, "Unavailable"), ErrorClass::Transient, "Unavailable"),
        (Fault::on(On::claims()).throttle(), ErrorClass::Throttled, "RequestLimitExceeded"),
        (Fault::on(On::claims()).deny(), ErrorClass::Denied, "UnauthorizedOperation"),
        (Fault::on(On::claims()).effect(Effect::NotXml), ErrorClass::Transient, "Answer"),
        (Fault::on(On::claims()).effect(Effect::Truncated), ErrorClass::Transient, "Answer"),
        (Fault::on(On::claims()).effect(Effect::Truncated).performed(), ErrorClass::Transient, "Answer"),
        (Fault::on(On::claims()).effect(Effect::Huge(16 << 20)), ErrorClass::Transient, "AnswerTooLong"),
    ] {
        let before = place.cloud.requests().len();
        place.cloud.add_fault(fault.clone().times(1));
        let limit = if class == ErrorClass::TimedOut { bound } else { AMPLE };
        let began = Instant::now();
        let error = place.ec2.claim(&eni(1), &[ADDRESS], limit).await.expect_err("a fault");
        assert_eq!((error.class(), error.code()), (class, code), "{fault:?}: {error}");
        if class == ErrorClass::TimedOut {
            assert!(began.elapsed() < bound + SLACK, "{fault:?}: {:?}", began.elapsed());
        }
        if class == ErrorClass::Denied {
            assert!(error.message.contains("allow ec2:AssignPrivateIpAddresses to file "), "{error}");
        }
        assert_eq!(place.cloud.requests().len(), before + 1, "more than one attempt: {fault:?}");
        place.cloud.clear_faults();
        place.ec2.claim(&eni(1), &[ADDRESS], AMPLE).await.unwrap_or_else(|e| panic!("after {fault:?}: {e}"));
    }
    place.cloud.add_fault(Fault::on(On::action("DescribeNetworkInterfaces")).effect(Effect::Truncated).performed());
    let error = place.ec2.owners(None, &[ADDRESS], AMPLE).await.expect_err("a truncated answer");
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "Answer"), "{error}");
}

#[tokio::test]
async fn throttling_by_the_token_bucket_is_reported() {
    let throttling =
        Throttling { mutating_burst: 2.0, mutating_per_second: 0.1, reading_burst: 100.0, reading_per_second: 100.0 };
    let place = Place::new(prompt().throttling(Some(throttling)));
    for _ in 0..2 {
        place.ec2.claim(&eni(1), &[ADDRESS], AMPLE).await.expect("within the burst");
    }
    let error = place.ec2.claim(&eni(1), &[ADDRESS], AMPLE).await.expect_err("beyond the burst");
    assert_eq!((error.class(), error.code()), (ErrorClass::Throttled, "RequestLimitExceeded"), "{error}");
    place.ec2.owners(None, &[ADDRESS], AMPLE).await.expect("reads have their own bucket");
}

#[tokio::test]
async fn wrong_keys_are_refused_and_corrected_ones_are_used() {
    let place = Place::new(prompt().access_key("AKIAVIPAEXAMPLE00002", "the second secret"));
    place.key(KEY, "a wrong secret");
    let error = place.ec2.claim(&eni(1), &[ADDRESS], AMPLE).await.expect_err("a wrong secret");
    assert_eq!(error.class(), ErrorClass::Denied, "{error}");
    place.key(KEY, SECRET);
    let error = place.ec2.claim(&eni(1), &[ADDRESS], AMPLE).await.expect_err("the wrong secret once more");
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
    place.ec2.claim(&eni(1), &[ADDRESS], AMPLE).await.expect("the right secret");

    place.cloud.delete_access_key(KEY);
    let error = place.ec2.claim(&eni(1), &[ADDRESS], AMPLE).await.expect_err("a deleted key");
    assert_eq!(error.class(), ErrorClass::Denied, "{error}");
    assert!(error.message.contains("read again, no new credentials"), "{error}");
    assert!(!error.message.contains(SECRET), "{error}");
    place.key("AKIAVIPAEXAMPLE00002", "the second secret");
    let error = place.ec2.claim(&eni(1), &[ADDRESS], AMPLE).await.expect_err("the deleted key once more");
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
    place.ec2.claim(&eni(1), &[ADDRESS], AMPLE).await.expect("the new key");
}

#[tokio::test]
async fn tls_needs_a_trusted_authority_and_follows_changes_of_its_file() {
    let cloud = Simulator::start(prompt()).expect("a cloud");
    let url = cloud.serve_ec2_tls(FREE, None, &["127.0.0.1"]).expect("EC2").url();
    assert!(url.starts_with("https://"), "{url}");
    let dir = tempfile::tempdir().expect("a directory");
    let ca = dir.path().join("ca.pem");
    let global = Global { endpoint_url: Some(url), ..Global::default() };
    let place = Place::with(cloud, global.clone());
    let error = place.ec2.claim(&eni(1), &[ADDRESS], AMPLE).await.expect_err("not trusted");
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "TLS"), "{error}");
    assert!(error.message.contains("UnknownIssuer; if its authority is to be trusted"), "{error}");
    assert_eq!(place.cloud.requests().len(), 0);

    let place = Place::with(place.cloud.clone(), Global { ca_certificate_file: Some(ca.clone()), ..global });
    let error = place.ec2.claim(&eni(1), &[ADDRESS], AMPLE).await.expect_err("no file yet");
    assert!(error.message.contains("ca-certificate-file "), "{error}");
    rotate(&ca, place.cloud.ca_pem());
    let error = place.ec2.claim(&eni(1), &[ADDRESS], AMPLE).await.expect_err("the previous roots");
    assert!(error.message.contains("changed, read again"), "{error}");
    place.ec2.claim(&eni(1), &[ADDRESS], AMPLE).await.expect("trusted");
    let other = Simulator::start(prompt()).expect("another cloud");
    rotate(&ca, other.ca_pem());
    watch_files(&place.ec2);
    let deadline = Instant::now() + AMPLE;
    while place.ec2.claim(&eni(1), &[ADDRESS], AMPLE).await.is_ok() {
        assert!(Instant::now() < deadline, "another authority is not noticed within {AMPLE:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    rotate(&ca, &format!("{}{}", other.ca_pem(), place.cloud.ca_pem()));
    place.ec2.claim(&eni(1), &[ADDRESS], AMPLE).await.expect_err("the previous roots");
    place.ec2.claim(&eni(1), &[ADDRESS], AMPLE).await.expect("one of two authorities");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let cloud = Simulator::start(prompt()).expect("a cloud");
    let url = cloud.serve_ec2_tls(FREE, None, &["ec2.eu-west-1.amazonaws.com"]).expect("EC2").url();
    let dir = tempfile::tempdir().expect("a directory");
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, cloud.ca_pem()).expect("written");
    let global = Global { endpoint_url: Some(url), ca_certificate_file: Some(ca), ..Global::default() };
    let place = Place::with(cloud, global);
    let error = place.ec2.claim(&eni(1), &[ADDRESS], AMPLE).await.expect_err("another name");
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "TLS"), "{error}");
    assert!(error.message.contains("not valid for name"), "{error}");
}

#[tokio::test]
async fn credentials_of_a_role_sign_requests_and_are_replaced_when_they_expire() {
    let cloud = Simulator::start(prompt()).expect("a cloud");
    let url = cloud.serve_ec2_http(FREE, None).expect("EC2").url();
    let imds = cloud.serve_imds("i-0a000000000000001", FREE, None).expect("IMDS").url();
    let global = Global { endpoint_url: Some(url), ..Global::default() };
    let ec2 = Ec2::new(&global, "eu-west-1".try_into().expect("a region"), &Imds::at(&imds));
    ec2.claim(&eni(1), &[ADDRESS], AMPLE).await.expect("claimed");
    assert_eq!(ec2.credentials().source, "instance role router");

    let old = cloud.role_access_key("i-0a000000000000001").expect("a key");
    cloud.rotate_credentials("i-0a000000000000001", Duration::from_secs(6 * 3600)).expect("rotated");
    cloud.expire_access_key(&old);
    let error = ec2.claim(&eni(1), &[ADDRESS], AMPLE).await.expect_err("expired");
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
    ec2.claim(&eni(1), &[ADDRESS], AMPLE).await.expect("claimed with the new key");

    cloud.remove_role("i-0a000000000000001").expect("removed");
    cloud.forget_imds_sessions();
    ec2.claim(&eni(1), &[ADDRESS], AMPLE).await.expect("the key is still valid");
}

#[tokio::test]
async fn imds_identifies_the_router() {
    let cloud = Simulator::start(prompt()).expect("a cloud");
    let imds = Imds::at(&cloud.serve_imds("i-0a000000000000002", FREE, None).expect("IMDS").url());
    for _ in 0..2 {
        let instance = imds.instance().await.expect("the instance");
        assert_eq!(instance.id.as_str(), "i-0a000000000000002");
        assert_eq!((instance.region.as_str(), instance.availability_zone.as_str()), ("eu-west-1", "eu-west-1a"));
        let found = imds.eni(MacAddress::new([2, 0, 0, 0, 0, 2])).await.expect("the ENI");
        assert_eq!((found.id, found.primary), (eni(2), Ipv4Addr::new(10, 99, 0, 12)));
        assert_eq!(found.subnet.as_str(), "subnet-0a000000000000001");
        assert_eq!(found.vpc.as_str(), "vpc-0a000000000000001");
        let error = imds.eni(MacAddress::new([2, 0, 0, 0, 0, 1])).await.expect_err("another router's");
        assert_eq!(error.class(), ErrorClass::NoSuchInterface, "{error}");
        cloud.forget_imds_sessions();
    }
    cloud.add_fault(Fault::on(On::imds()).hang());
    let began = Instant::now();
    let error = imds.eni(MacAddress::new([2, 0, 0, 0, 0, 2])).await.expect_err("no answer");
    assert_eq!((error.class(), error.code()), (ErrorClass::TimedOut, "Timeout"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(3) + SLACK, "{:?}", began.elapsed());
}
