//! The behaviour of the simulator for a plain HTTP client.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod assumptions;
mod client;
mod elastic_ips;
mod route_tables;
mod zones;

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use simulator::{
    AccessKey, Batch, Effect, Fault, Instance, NetworkInterface, On, Outcome, Service, Simulator, StaleReads,
    Throttling,
};

use client::{Client, KEY, R1, R2, SOON, THIRD_PARTY, VIP, any_port, between, claim, find, start, world};

#[test]
fn a_claim_moves_the_address_and_is_logged() {
    let (simulator, _, mut client) = start(world());
    let before = Instant::now();
    let answer = client.claim(R1, &[VIP]);
    assert_eq!((answer.status, answer.code()), (200, "Success"), "{}", answer.body);
    assert_eq!(between(&answer.body, "<networkInterfaceId>", "<"), Some(R1));
    let list = between(&answer.body, "<assignedPrivateIpAddressesSet>", "</assigned").unwrap();
    assert_eq!(between(list, "<privateIpAddress>", "<"), Some("10.99.0.100"));
    assert_eq!(simulator.owner(VIP).unwrap(), R1);
    client.claim(R2, &[VIP]);
    client.claim(R2, &[VIP]);
    assert_eq!(simulator.owner(VIP).unwrap(), R2);

    let moves = simulator.moves();
    assert_eq!(moves.len(), 2, "{simulator}");
    assert_eq!(moves[1].from.as_ref().unwrap(), R1);
    assert_eq!(moves[1].to.as_ref().unwrap(), R2);
    let requests = simulator.requests();
    assert_eq!(requests.len(), 3, "{simulator}");
    let first = &requests[0];
    assert!(first.claims(VIP) && first.allow_reassignment && first.succeeded(), "{first}");
    assert_eq!(first.access_key.as_deref(), Some(KEY));
    assert!(before <= first.arrived && first.arrived <= first.performed.unwrap(), "{first}");
    assert!(answer.headers.contains(&format!("x-amzn-requestid: {}", first.request_id)));
    assert!(answer.headers.contains("\r\ndate: "), "{}", answer.headers);
    assert_eq!(requests[2].connection, first.connection, "keep-alive: {simulator}");
}

#[test]
fn a_prefix_takes_the_place_of_an_address() {
    let own = Ipv4Addr::new(10, 99, 0, 14);
    let interface =
        NetworkInterface::new("eni-0a000000000000004", "02:00:00:00:00:04", "subnet-0a000000000000001", own);
    let interface = interface.address_limit(3).prefix("10.99.0.208/28");
    let (simulator, _, mut client) = start(world().instance(Instance::new("i-0a000000000000004").interface(interface)));
    let eni = "eni-0a000000000000004";
    assert_eq!(client.claim(eni, &[VIP]).code(), "Success");
    let other = Ipv4Addr::new(10, 99, 0, 101);
    assert_eq!(client.claim(eni, &[other]).code(), "PrivateIpAddressLimitExceeded");
    simulator.unassign_prefixes(eni).expect("an ENI");
    assert_eq!(client.claim(eni, &[other]).code(), "Success");
    for (prefix, why) in [("10.99.0.0/24", "not a prefix of 16 addresses"), ("10.98.0.0/28", "in 10.99.0.0/24")] {
        let interface =
            NetworkInterface::new("eni-0a000000000000005", "02:00:00:00:00:05", "subnet-0a000000000000001", own);
        let wrong = world().instance(Instance::new("i-0a000000000000005").interface(interface.prefix(prefix)));
        let error = Simulator::start(wrong).expect_err("no such prefix").to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn refusals_have_the_codes_of_ec2_and_move_nothing() {
    let world = world().instance(
        Instance::new("i-0a000000000000004").interface(
            NetworkInterface::new(
                "eni-0a000000000000004",
                "02:00:00:00:00:04",
                "subnet-0a000000000000001",
                Ipv4Addr::new(10, 99, 0, 14),
            )
            .address_limit(2),
        ),
    );
    let (simulator, _, mut client) = start(world);
    let full = "eni-0a000000000000004";
    let other = Ipv4Addr::new(10, 99, 0, 101);
    assert_eq!(client.claim(THIRD_PARTY, &[other]).code(), "Success");
    let outside = Ipv4Addr::new(10, 99, 1, 100);
    for (query, status, code) in [
        (claim(R1, &[outside], true), 400, "InvalidParameterValue"),
        (claim(R1, &[Ipv4Addr::new(10, 99, 0, 3)], true), 400, "InvalidParameterValue"),
        (claim(R1, &[Ipv4Addr::new(10, 99, 0, 255)], true), 400, "InvalidParameterValue"),
        (claim(R1, &[Ipv4Addr::new(10, 99, 0, 12)], true), 400, "InvalidParameterValue"),
        (claim(R1, &[other], false), 400, "InvalidParameterValue"),
        (claim(R1, &[VIP, outside], true), 400, "InvalidParameterValue"),
        (claim(full, &[VIP, other], true), 400, "PrivateIpAddressLimitExceeded"),
        (claim("eni-0a00000000000000f", &[VIP], true), 400, "InvalidNetworkInterfaceID.NotFound"),
        (claim("eni-nonsense", &[VIP], true), 400, "InvalidNetworkInterfaceID.Malformed"),
        (claim(R1, &[], true), 400, "MissingParameter"),
        (format!("{}&DryRun=true", claim(R1, &[VIP], true)), 400, "UnknownParameter"),
        (
            format!("AssignPrivateIpAddresses&NetworkInterfaceId={R1}&SecondaryPrivateIpAddressCount=1"),
            400,
            "UnsupportedOperation",
        ),
        (
            format!("UnassignPrivateIpAddresses&NetworkInterfaceId={R1}&PrivateIpAddress.1={other}"),
            400,
            "InvalidParameterValue",
        ),
        ("TerminateInstances".to_owned(), 400, "InvalidAction"),
        (format!("{}&DryRun=true", find(VIP)), 412, "DryRunOperation"),
        ("DescribeNetworkInterfaces&Filter.1.Name=colour".to_owned(), 400, "InvalidParameterValue"),
        ("DescribeNetworkInterfaces&MaxResults=4".to_owned(), 400, "InvalidParameterValue"),
        ("DescribeNetworkInterfaces&NextToken=%3F".to_owned(), 400, "InvalidPaginationToken"),
    ] {
        let answer = client.ask(&query);
        assert_eq!((answer.status, answer.code()), (status, code), "{query}: {}", answer.body);
    }
    assert_eq!(simulator.owner(VIP), None, "{simulator}");
    assert_eq!(simulator.moves().len(), 1, "{simulator}");
    let many: String = (1..=201).map(|n| format!("&Filter.1.Value.{n}=10.99.0.100")).collect();
    let answer = client.ask(&format!("{}{many}", find(VIP)));
    assert_eq!(answer.code(), "FilterLimitExceeded");
}

#[test]
fn a_batch_can_also_move_the_others() {
    let (simulator, _, mut client) = start(world().batch(Batch::OthersMove));
    let answer = client.claim(R1, &[VIP, Ipv4Addr::new(10, 99, 1, 100)]);
    assert_eq!(answer.code(), "InvalidParameterValue");
    assert_eq!(simulator.owner(VIP).unwrap(), R1);
}

#[test]
fn an_elastic_ip_moves_along_and_is_disassociated_by_an_unassign() {
    let public = Ipv4Addr::new(203, 0, 113, 7);
    let mut world = world();
    let third_party = world.instances[2].network_interfaces.remove(0);
    world.instances[2].network_interfaces.push(third_party.secondary(VIP).elastic_ip(VIP, public));
    let (simulator, _, mut client) = start(world);
    client.claim(R1, &[VIP]);
    let (eni, private) = simulator.elastic_ip(public).unwrap();
    assert!(eni == R1 && private == VIP);
    let answer = client.ask(&find(VIP));
    assert!(answer.body.contains("<publicIp>203.0.113.7</publicIp>"), "{}", answer.body);
    client.ask(&format!("UnassignPrivateIpAddresses&NetworkInterfaceId={R1}&PrivateIpAddress.1={VIP}"));
    client.claim(R1, &[VIP]);
    assert_eq!(simulator.elastic_ip(public), None);
}

#[test]
fn wrong_credentials_are_refused_as_ec2_does() {
    let mut world = world();
    world.access_keys.push(AccessKey {
        id: "ASIAVIPAEXPIRED00001".to_owned(),
        session_token: Some("token".to_owned()),
        expires_after_seconds: Some(0),
        ..AccessKey::default()
    });
    let (_simulator, _, mut client) = start(world);
    let now = jiff::Timestamp::now();
    let scope = |key: &str, region: &str, service: &str| format!("{key}/20260101/{region}/{service}/aws4_request");
    let good = scope(KEY, "eu-west-1", "ec2");
    let expired = scope("ASIAVIPAEXPIRED00001", "eu-west-1", "ec2");
    let token = "X-Amz-Security-Token: token\r\n";
    for (scope, clock, extra, status, code) in [
        (good.clone(), now, "", 200, "Success"),
        (scope(KEY, "us-east-1", "ec2"), now, "", 401, "AuthFailure"),
        (scope(KEY, "eu-west-1", "s3"), now, "", 401, "AuthFailure"),
        (scope("AKIANOBODY0000000000", "eu-west-1", "ec2"), now, "", 401, "AuthFailure"),
        (scope("AKIAVIPAEXAMPLE00001", "eu-west-1", "ec2"), now, "", 401, "AuthFailure"),
        (good.clone(), now, token, 401, "AuthFailure"),
        (good.clone(), now - Duration::from_secs(400), "", 400, "RequestExpired"),
        (good.clone(), now + Duration::from_secs(400), "", 401, "AuthFailure"),
        (expired.clone(), now, token, 400, "RequestExpired"),
        (expired, now, "", 401, "AuthFailure"),
    ] {
        client.send_ec2(&scope, clock, extra, &find(VIP));
        let answer = client.receive().unwrap();
        assert_eq!((answer.status, answer.code()), (status, code), "{scope} {clock}");
    }
    client.send("POST", "/", "", "Action=DescribeNetworkInterfaces");
    assert_eq!(client.receive().unwrap().code(), "MissingAuthenticationToken");
}

#[test]
fn reads_are_stale_by_default_and_prompt_on_request() {
    let mut stale = world().throttling(None);
    stale.stale_reads = StaleReads::default();
    assert_eq!(stale.stale_reads, StaleReads::UpToMs(60_000));
    let (simulator, _, mut client) = start(stale);
    let shows = |client: &mut Client| client.ask(&find(VIP)).body.contains(R1);
    client.claim(R1, &[VIP]);
    let misses = (0..10).filter(|_| !shows(&mut client)).count();
    assert!(misses >= 8, "of 10 reads in the first instants only {misses} showed the past");
    simulator.set_stale_reads(StaleReads::ExactlyMs(0));
    assert!(shows(&mut client), "{simulator}");
    simulator.set_stale_reads(StaleReads::ExactlyMs(300));
    simulator.wait_for("the claim is old", SOON, |_| shows(&mut client).then_some(())).unwrap();
    let stolen = Instant::now();
    simulator.steal(VIP, THIRD_PARTY).unwrap();
    while shows(&mut client) {
        assert!(stolen.elapsed() < SOON, "{simulator}");
    }
    assert!(stolen.elapsed() > Duration::from_millis(290), "{:?}", stolen.elapsed());
}

#[test]
fn every_fault_has_its_effect() {
    let mut world = world();
    world.throttling = None;
    let (simulator, listener, mut client) = start(world);
    let slow = Duration::from_millis(200);
    // Delays.
    let delay = simulator.add_fault(Fault::on(On::ec2()).delay_before(slow).delay_after(slow));
    client.claim(R1, &[VIP]);
    let end = Instant::now();
    let request = simulator.requests().pop().unwrap();
    let performed = request.performed.unwrap();
    assert!(performed - request.arrived >= slow && end - performed >= slow, "{request}");
    simulator.remove_fault(delay);
    // Errors, with a count and with matchers.
    simulator.add_fault(Fault::on(On::claims().network_interface(R2)).throttle().times(2));
    simulator.add_fault(Fault::on(On::claims().address(VIP).access_key(KEY).listener(0)).deny());
    let mut codes = Vec::new();
    for _ in 0..3 {
        codes.push(client.claim(R2, &[VIP]).code().to_owned());
    }
    assert_eq!(codes, ["RequestLimitExceeded", "RequestLimitExceeded", "UnauthorizedOperation"]);
    assert_eq!(client.ask(&find(VIP)).code(), "Success");
    simulator.clear_faults();
    assert_eq!(simulator.owner(VIP).unwrap(), R1);
    // Performed, but answered with an error.
    simulator.add_fault(Fault::on(On::claims()).error(500, "InternalError").performed().times(1));
    let answer = client.claim(R2, &[VIP]);
    assert_eq!((answer.status, answer.code()), (500, "InternalError"));
    assert_eq!(simulator.owner(VIP).unwrap(), R2);
    // Invalid answers.
    for (effect, begins, bytes) in [
        (Effect::NotXml, "<html>", 20..1000),
        (Effect::Truncated, "<?xml", 20..500),
        (Effect::Huge(100_000), "<?xml", 100_000..100_100),
    ] {
        simulator.add_fault(Fault::on(On::claims()).effect(effect).performed().times(1));
        let answer = client.claim(R1, &[VIP]);
        assert_eq!(answer.status, 200);
        assert!(answer.body.starts_with(begins) && !answer.body.contains("</Assign"));
        assert!(bytes.contains(&answer.body.len()), "{begins} {}", answer.body.len());
    }
    // Performed, and answered without the list of assigned addresses.
    simulator.add_fault(Fault::on(On::claims()).effect(Effect::Bare).performed().times(1));
    let answer = client.claim(R1, &[VIP]);
    assert_eq!((answer.status, simulator.owner(VIP).unwrap()), (200, R1.parse().unwrap()));
    assert!(
        answer.body.contains("<return>true</return>") && !answer.body.contains("assignedPrivateIp"),
        "{}",
        answer.body
    );
    // Dropped and hanging.
    simulator.add_fault(Fault::on(On::claims()).drop_connection().times(1));
    client.send_query(&claim(R2, &[VIP], true));
    assert!(client.receive().is_err());
    assert_eq!(simulator.requests().pop().unwrap().outcome, Outcome::Dropped);
    assert_eq!(simulator.owner(VIP).unwrap(), R1);
    simulator.add_fault(Fault::on(On::claims()).hang().performed().times(1));
    let mut client = Client::new(&listener);
    client.0.get_ref().set_read_timeout(Some(slow)).unwrap();
    client.send_query(&claim(R2, &[VIP], true));
    assert!(client.receive().is_err());
    simulator.wait_for_owner(VIP, R2, SOON).unwrap();
    let hangs = |simulator: &Simulator| simulator.requests().pop().unwrap().outcome == Outcome::Hanging;
    simulator.wait_for("the claim hangs", SOON, |simulator| hangs(simulator).then_some(())).unwrap();
    assert!(simulator.faults().is_empty(), "{:?}", simulator.faults());
}

#[test]
fn a_request_is_performed_although_its_client_gave_up() {
    let (simulator, listener, mut client) = start(world());
    let delay = Duration::from_secs(3);
    simulator.add_fault(Fault::on(On::claims()).delay_before(delay).times(1));
    client.send_query(&claim(R1, &[VIP], true));
    simulator.wait_for_request("the claim", SOON, |request| request.claims(VIP)).unwrap();
    drop(client);
    listener.stop();
    assert_eq!(simulator.owner(VIP), None);
    let moved = simulator.wait_for_owner(VIP, R1, SOON).unwrap().unwrap();
    let request = simulator.requests().pop().unwrap();
    assert!(moved.at - request.arrived >= delay, "{request}");
}

#[test]
fn listeners_stop_refuse_and_start_again() {
    let (simulator, listener, _client) = start(world());
    simulator.refuse_connections(Service::Ec2);
    let refused = TcpStream::connect(listener.address()).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    simulator.accept_connections(Service::Ec2).unwrap();
    assert_eq!(Client::new(&listener).claim(R1, &[VIP]).code(), "Success");
    listener.mute(true);
    let mut client = Client::new(&listener);
    client.0.get_ref().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    client.send("POST", "/", "", "");
    assert_eq!(client.receive().err().unwrap().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_listener_that_is_stopped_before_it_ran_refuses_too() {
    let (_simulator, listener, _) = start(world());
    for round in 0..500 {
        listener.stop();
        let refused = TcpStream::connect(listener.address()).map_err(|error| error.kind());
        assert_eq!(refused.err(), Some(std::io::ErrorKind::ConnectionRefused), "round {round}");
        listener.start().unwrap();
    }
}

#[test]
fn throttling_follows_the_buckets() {
    let (_simulator, _, mut client) = start(world().throttling(Some(Throttling {
        mutating_burst: 3.0,
        mutating_per_second: 0.01,
        ..Throttling::default()
    })));
    let codes: Vec<String> = (0..4).map(|_| client.claim(R1, &[VIP]).code().to_owned()).collect();
    assert_eq!(codes[2..], ["Success", "RequestLimitExceeded"]);
    assert_eq!(client.ask(&find(VIP)).code(), "Success");
}

#[test]
fn pages_have_their_size_and_order() {
    let mut world = world();
    for number in 0..8u8 {
        world = world.unattached(NetworkInterface::new(
            &format!("eni-0b00000000000000{number}"),
            &format!("02:00:00:00:01:0{number}"),
            "subnet-0a000000000000001",
            Ipv4Addr::new(10, 99, 0, 200 + number),
        ));
    }
    let (_simulator, _, mut client) = start(world);
    let mut seen = Vec::new();
    let mut token = String::new();
    for rest in [6, 1, 0] {
        let answer = client.ask(&format!("DescribeNetworkInterfaces&MaxResults=5{token}"));
        let ids = answer.body.split("<networkInterfaceId>").skip(1);
        seen.extend(ids.map(|text| text[..21].to_owned()));
        assert_eq!(11 - seen.len(), rest, "{seen:?}");
        match between(&answer.body, "<nextToken>", "<") {
            Some(next) => token = format!("&NextToken={next}"),
            None => assert_eq!(rest, 0),
        }
    }
    seen.dedup();
    assert_eq!(seen.len(), 11);
    let named = client.ask(&format!("DescribeNetworkInterfaces&NetworkInterfaceId.1={R2}"));
    assert_eq!(named.body.matches("<networkInterfaceId>").count(), 1);
}

#[test]
fn addresses_of_two_vpcs_do_not_mix() {
    let world = world()
        .vpc("vpc-0b000000000000001", "10.99.0.0/16")
        .subnet("subnet-0b000000000000001", "vpc-0b000000000000001", "10.99.0.0/24", "eu-west-1a")
        .unattached(NetworkInterface::new(
            "eni-0b000000000000001",
            "02:00:00:00:01:01",
            "subnet-0b000000000000001",
            VIP,
        ));
    let (simulator, _, mut client) = start(world);
    assert_eq!(simulator.owner(VIP), None);
    assert_eq!(client.claim(R1, &[VIP]).code(), "Success");
    let other = "vpc-0b000000000000001".parse().unwrap();
    assert_eq!(simulator.owner_in(&other, VIP).unwrap(), "eni-0b000000000000001");
    let answer = client.ask(&find(VIP));
    assert_eq!(answer.body.matches("<networkInterfaceId>").count(), 2);
    let answer = client.ask(&format!("{}&Filter.2.Name=vpc-id&Filter.2.Value.1=vpc-0a000000000000001", find(VIP)));
    assert_eq!(answer.body.matches("<networkInterfaceId>").count(), 1);
}

#[test]
fn imds_requires_a_token_and_identifies_the_instance() {
    let simulator = Simulator::start(world()).unwrap();
    let r1 = "i-0a000000000000001";
    let listener = simulator.serve_imds(r1, any_port(), None).unwrap();
    let mut client = Client::new(&listener);
    client.send("GET", "/latest/meta-data/mac", "", "");
    assert_eq!(client.receive().unwrap().status, 401);
    client.send("PUT", "/latest/api/token", "", "");
    assert_eq!(client.receive().unwrap().status, 400);
    client.send("PUT", "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 60\r\n", "");
    let token = client.receive().unwrap().body;
    simulator.steal(VIP, R1).unwrap();
    let key = simulator.role_access_key(r1).unwrap();
    let mac = "/latest/meta-data/network/interfaces/macs/02:00:00:00:00:01";
    for (path, expected) in [
        ("/latest/meta-data/instance-id", r1),
        ("/latest/meta-data/mac", "02:00:00:00:00:01"),
        ("/latest/meta-data/placement/region", "eu-west-1"),
        ("/latest/meta-data/placement/availability-zone", "eu-west-1a"),
        ("/latest/meta-data/services/domain", "amazonaws.com"),
        ("/latest/meta-data/services/partition", "aws"),
        ("/latest/meta-data/network/interfaces/macs/", "02:00:00:00:00:01/"),
        (&format!("{mac}/interface-id"), R1),
        (&format!("{mac}/subnet-id"), "subnet-0a000000000000001"),
        (&format!("{mac}/vpc-id"), "vpc-0a000000000000001"),
        (&format!("{mac}/subnet-ipv4-cidr-block"), "10.99.0.0/24"),
        (&format!("{mac}/vpc-ipv4-cidr-block"), "10.99.0.0/16"),
        (&format!("{mac}/local-ipv4s"), "10.99.0.11\n10.99.0.100"),
        (&format!("{mac}/device-number"), "0"),
        (&format!("{mac}/owner-id"), "123456789012"),
        ("/latest/meta-data/iam/security-credentials/", "router"),
    ] {
        let answer = client.imds(&token, path);
        assert_eq!((answer.status, answer.body.as_str()), (200, expected), "{path}");
    }
    let credentials = client.imds(&token, "/latest/meta-data/iam/security-credentials/router").body;
    assert!(credentials.contains(&key), "{credentials}");
    let document = client.imds(&token, "/latest/dynamic/instance-identity/document").body;
    assert!(document.contains("\"region\": \"eu-west-1\""), "{document}");
    assert_eq!(client.imds(&token, "/latest/meta-data/nothing").status, 404);
    // A token is valid for the requested time.
    let begin = Instant::now();
    client.send("PUT", "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 1\r\n", "");
    let short = client.receive().unwrap().body;
    assert_eq!(client.imds(&short, "/latest/meta-data/mac").status, 200);
    while client.imds(&short, "/latest/meta-data/mac").status == 200 {
        assert!(begin.elapsed() < SOON);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(begin.elapsed() > Duration::from_millis(900), "{:?}", begin.elapsed());
    // Rotation, loss of the role, loss of the sessions.
    let next = simulator.rotate_credentials(r1, Duration::from_secs(3600)).unwrap();
    assert_ne!(next, key);
    let credentials = client.imds(&token, "/latest/meta-data/iam/security-credentials/router").body;
    assert!(credentials.contains(&next), "{credentials}");
    simulator.remove_role(r1).unwrap();
    assert_eq!(client.imds(&token, "/latest/meta-data/iam/security-credentials/").status, 404);
    simulator.add_fault(Fault::on(On::imds_path("/latest/meta-data/mac")).error(503, ""));
    assert_eq!(client.imds(&token, "/latest/meta-data/mac").status, 503);
    simulator.forget_imds_sessions();
    assert_eq!(client.imds(&token, "/latest/meta-data/instance-id").status, 401);
}

#[test]
fn a_failed_wait_shows_the_state() {
    let (simulator, _, mut client) = start(world());
    client.claim(R2, &[VIP]);
    let error = simulator.wait_for_owner(VIP, R1, Duration::from_millis(50)).unwrap_err();
    let text = error.to_string();
    for wanted in [
        "eni-0a000000000000001 has 10.99.0.100",
        "10.99.0.100 from none to eni-0a000000000000002 by request #0",
        "#0 AssignPrivateIpAddresses eni-0a000000000000002 [10.99.0.100] AllowReassignment",
    ] {
        assert!(text.contains(wanted), "{wanted:?} is not in:\n{text}");
    }
}

#[test]
fn every_fault_of_a_world_is_reported() {
    let world = world()
        .vpc("vpc-1", "10.0.0.0/16")
        .subnet("subnet-0c000000000000001", "vpc-0a000000000000001", "10.98.0.0/24", "eu-west-1a")
        .instance(Instance::new("i-0c000000000000001").interface(NetworkInterface::new(
            "eni-0c000000000000001",
            "02:00:00:00:02:01",
            "subnet-0a000000000000001",
            Ipv4Addr::new(10, 99, 0, 11),
        )));
    let faults = Simulator::start(world).err().unwrap().0;
    let expected = [
        "vpc vpc-1: \"vpc-1\" is not a VPC id",
        "subnet subnet-0c000000000000001: 10.98.0.0/24 is not inside",
        "10.99.0.11 is someone's already",
    ];
    assert_eq!(faults.len(), expected.len(), "{faults:?}");
    for (fault, wanted) in faults.iter().zip(expected) {
        assert!(fault.contains(wanted), "{wanted:?} is not in {fault:?}");
    }
}

/// Runs only `test` again in new user and network namespaces, in which an ordinary user may make more of them. Returns whether
/// this is that second run.
fn inside_namespaces(test: &str) -> bool {
    if std::env::var_os("VIPA_INSIDE_NAMESPACES").is_some() {
        return true;
    }
    let output = std::process::Command::new("unshare")
        .args(["-Urn", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("VIPA_INSIDE_NAMESPACES", "1")
        .output()
        .expect("unshare (util-linux) is needed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    assert!(text.contains("1 passed"), "{text}{errors}");
    false
}

/// A process that keeps a network namespace with the IMDS address.
struct Namespace(std::process::Child);

impl Namespace {
    fn new() -> Namespace {
        let script = "ip link set lo up && ip address add 169.254.169.254/32 dev lo && echo up && exec cat";
        let mut child = std::process::Command::new("unshare")
            .args(["-n", "sh", "-c", script])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        Namespace(child)
    }

    fn path(&self) -> std::path::PathBuf {
        format!("/proc/{}/ns/net", self.0.id()).into()
    }

    fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        let file = std::fs::File::open(self.path()).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                inside()
            });
            thread.join().unwrap()
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn one_simulator_serves_several_network_namespaces() {
    if !inside_namespaces("one_simulator_serves_several_network_namespaces") {
        return;
    }
    let simulator = Simulator::start(world()).unwrap();
    let imds = "169.254.169.254:80".parse().unwrap();
    let ec2 = "169.254.169.254:8080".parse().unwrap();
    for (instance, eni) in [("i-0a000000000000001", R1), ("i-0a000000000000002", R2)] {
        let namespace = Namespace::new();
        let imds = simulator.serve_imds(instance, imds, Some(&namespace.path())).unwrap();
        let ec2 = simulator.serve_ec2_http(ec2, Some(&namespace.path())).unwrap();
        namespace.run(|| {
            let mut client = Client::new(&imds);
            let ttl = "X-aws-ec2-metadata-token-ttl-seconds: 60\r\n";
            client.send("PUT", "/latest/api/token", ttl, "");
            let token = client.receive().unwrap().body;
            let answer = client.imds(&token, "/latest/meta-data/instance-id");
            assert_eq!(answer.body, instance);
            assert_eq!(Client::new(&ec2).claim(eni, &[VIP]).code(), "Success");
            ec2.stop();
            assert!(TcpStream::connect(ec2.address()).is_err());
        });
        ec2.start().unwrap();
        namespace.run(|| assert_eq!(Client::new(&ec2).claim(eni, &[VIP]).code(), "Success"));
        assert_eq!(simulator.owner(VIP).unwrap(), eni);
        assert!(TcpStream::connect_timeout(&ec2.address(), Duration::from_millis(50)).is_err());
    }
    let nowhere = std::path::Path::new("/proc/self/ns/nothing");
    let error = simulator.serve_ec2_http(any_port(), Some(nowhere)).err().unwrap();
    assert!(error.to_string().contains("/proc/self/ns/nothing"), "{error}");
}
