//! Elastic IPs: their associations, reads, and injected faults.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use simulator::{AssociatedWith, ElasticIp, Fault, NetworkInterface, On, Simulator, StaleReads, World};

use crate::client::{Answer, Client, R1, R2, SOON, THIRD_PARTY, VIP, between, find, start, unsigned};

const EIP: &str = "eipalloc-0a000000000000001";
const OTHER: &str = "eipalloc-0a000000000000002";
const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const R1_PRIMARY: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 11);
const R2_PRIMARY: Ipv4Addr = Ipv4Addr::new(10, 99, 1, 12);

fn zones() -> World {
    unsigned(World::two_zones())
        .association_lag(Duration::ZERO)
        .elastic_ip(ElasticIp::new(OTHER, Ipv4Addr::new(203, 0, 113, 11)))
}

fn associate(allocation: &str, eni: &str, private: Option<Ipv4Addr>, allow: bool) -> String {
    let private = private.map(|private| format!("&PrivateIpAddress={private}")).unwrap_or_default();
    format!("AssociateAddress&AllocationId={allocation}&NetworkInterfaceId={eni}{private}&AllowReassociation={allow}")
}

fn association_id(answer: &Answer) -> String {
    assert_eq!(answer.code(), "Success", "{}", answer.body);
    between(&answer.body, "<associationId>", "<").unwrap().to_owned()
}

fn place(simulator: &Simulator, allocation: &str) -> Option<(String, Ipv4Addr)> {
    let AssociatedWith { network_interface, private_address } = simulator.association(allocation).unwrap()?;
    Some((network_interface.into(), private_address))
}

fn at(eni: &str, private: Ipv4Addr) -> Option<(String, Ipv4Addr)> {
    Some((eni.to_owned(), private))
}

fn read(allocation: &str) -> String {
    format!("DescribeAddresses&Filter.1.Name=allocation-id&Filter.1.Value.1={allocation}")
}

#[test]
fn an_elastic_ip_moves_between_zones_and_reads_show_it() {
    let (simulator, _, mut client) = start(zones());
    let unassociated = client.ask(&read(EIP));
    assert_eq!(between(&unassociated.body, "<publicIp>", "<"), Some("203.0.113.10"));
    assert!(!unassociated.body.contains("ssociationId"), "{}", unassociated.body);
    let first = association_id(&client.ask(&associate(EIP, R1, None, true)));
    assert_eq!(place(&simulator, EIP), at(R1, R1_PRIMARY));
    let second = association_id(&client.ask(&associate(EIP, R2, Some(R2_PRIMARY), true)));
    assert_ne!(first, second);
    // The same association again changes nothing, with or without AllowReassociation.
    for allow in [true, false] {
        assert_eq!(association_id(&client.ask(&associate(EIP, R2, None, allow))), second);
    }
    let moves = simulator.association_moves();
    assert_eq!(moves.len(), 2, "{simulator}");
    let text = simulator.to_string();
    let line = format!("{EIP} from {R1_PRIMARY} on {R1} to {R2_PRIMARY} on {R2} by request #2");
    assert!(text.contains(&line), "{text}");
    let request = simulator.requests().pop().unwrap();
    assert!(request.associates(EIP) && !request.associates(OTHER), "{request}");

    let shown = client.ask(&read(EIP)).body;
    for (tag, value) in [
        ("allocationId", EIP),
        ("associationId", &second),
        ("domain", "vpc"),
        ("instanceId", "i-0a000000000000002"),
        ("networkInterfaceId", R2),
        ("networkInterfaceOwnerId", "123456789012"),
        ("privateIpAddress", "10.99.1.12"),
    ] {
        assert_eq!(between(&shown, &format!("<{tag}>"), "<"), Some(value), "{shown}");
    }
    let interface = client.ask(&format!("DescribeNetworkInterfaces&NetworkInterfaceId.1={R2}")).body;
    let address = between(&interface, "<privateIpAddressesSet>", "</privateIpAddressesSet>").unwrap();
    for (tag, value) in [("publicIp", "203.0.113.10"), ("allocationId", EIP), ("associationId", &second)] {
        assert_eq!(between(address, &format!("<{tag}>"), "<"), Some(value), "{interface}");
    }
    for (filter, value, count) in [
        ("association-id", second.as_str(), 1),
        ("instance-id", "i-0a000000000000002", 1),
        ("network-interface-id", R1, 0),
        ("private-ip-address", "10.99.1.12", 1),
        ("public-ip", "203.0.113.*", 2),
    ] {
        let answer = client.ask(&format!("DescribeAddresses&Filter.1.Name={filter}&Filter.1.Value.1={value}"));
        assert_eq!(answer.body.matches("<allocationId>").count(), count, "{filter}: {}", answer.body);
    }
    let named = client.ask(&format!("DescribeAddresses&AllocationId.1={EIP}&AllocationId.2={OTHER}"));
    assert_eq!(named.body.matches("<allocationId>").count(), 2, "{}", named.body);
    // Disassociating again is no error.
    for id in [&first, &second, &second] {
        assert_eq!(client.ask(&format!("DisassociateAddress&AssociationId={id}")).code(), "Success");
    }
    assert_eq!(place(&simulator, EIP), None);
    assert_eq!(simulator.association_moves().len(), 3, "{simulator}");
}

#[test]
fn refusals_have_the_codes_of_ec2_and_change_nothing() {
    let [foreign, managed] = ["eipalloc-0b000000000000001", "eipalloc-0b000000000000002"];
    let world = zones()
        .elastic_ip(ElasticIp::new(foreign, Ipv4Addr::new(203, 0, 113, 20)).of_account("210987654321"))
        .elastic_ip(
            ElasticIp::new(managed, Ipv4Addr::new(203, 0, 113, 21)).on(THIRD_PARTY, [10, 99, 0, 13].into()).managed(),
        );
    let (simulator, _, mut client) = start(world);
    let of_managed = association_of(&mut client, managed);
    assert_eq!(client.ask(&associate(EIP, R1, None, true)).code(), "Success");
    assert_eq!(client.ask(&associate(OTHER, R2, None, true)).code(), "Success");
    let of_eip = association_of(&mut client, EIP);
    let moves = simulator.association_moves().len();
    let without = format!("AssociateAddress&AllocationId={EIP}&NetworkInterfaceId={R2}");
    for (query, status, code) in [
        (associate("eipalloc-0a00000000000000f", R1, None, true), 400, "InvalidAllocationID.NotFound"),
        (associate("nonsense", R1, None, true), 400, "InvalidAllocationID.NotFound"),
        (associate(foreign, R1, None, true), 400, "AuthFailure"),
        (associate(managed, R1, None, true), 400, "AuthFailure"),
        (format!("DisassociateAddress&AssociationId={of_managed}"), 400, "AuthFailure"),
        (associate(EIP, "eni-0a00000000000000f", None, true), 400, "InvalidNetworkInterfaceID.NotFound"),
        (associate(EIP, R1, Some(VIP), true), 400, "InvalidParameterValue"),
        (associate(EIP, R1, Some(R2_PRIMARY), true), 400, "InvalidParameterValue"),
        (format!("{}&PrivateIpAddress=nonsense", associate(EIP, R1, None, true)), 400, "InvalidParameterValue"),
        (associate(EIP, THIRD_PARTY, None, false), 400, "Resource.AlreadyAssociated"),
        (without.clone(), 400, "Resource.AlreadyAssociated"),
        (format!("AssociateAddress&NetworkInterfaceId={R1}"), 400, "MissingParameter"),
        (format!("AssociateAddress&AllocationId={EIP}"), 400, "MissingParameter"),
        (format!("{without}&InstanceId=i-0a000000000000002"), 400, "InvalidParameterCombination"),
        (
            format!("AssociateAddress&AllocationId={EIP}&InstanceId=i-0a00000000000000f"),
            400,
            "InvalidInstanceID.NotFound",
        ),
        ("DisassociateAddress".to_owned(), 400, "MissingParameter"),
        (
            "DisassociateAddress&AssociationId=eipassoc-0a00000000000000f".to_owned(),
            400,
            "InvalidAssociationID.NotFound",
        ),
        // A dry run checks only that the resources exist.
        (format!("{}&DryRun=true", associate(EIP, R2, None, true)), 412, "DryRunOperation"),
        (format!("{}&DryRun=true", associate(EIP, R1, Some(VIP), true)), 412, "DryRunOperation"),
        (format!("{}&DryRun=true", associate(foreign, R2, None, true)), 400, "AuthFailure"),
        (format!("DisassociateAddress&AssociationId={of_eip}&DryRun=true"), 412, "DryRunOperation"),
        (format!("{}&DryRun=true", read(EIP)), 412, "DryRunOperation"),
        (format!("DescribeAddresses&AllocationId.1={foreign}"), 400, "InvalidAllocationID.NotFound"),
        ("DescribeAddresses&AllocationId.1=nonsense".to_owned(), 400, "InvalidAllocationID.NotFound"),
        ("DescribeAddresses&PublicIp.1=203.0.113.99".to_owned(), 400, "InvalidAddress.NotFound"),
        ("DescribeAddresses&MaxResults=5".to_owned(), 400, "UnknownParameter"),
        ("DescribeAddresses&Filter.1.Name=colour".to_owned(), 400, "InvalidParameterValue"),
    ] {
        let answer = client.ask(&query);
        assert_eq!((answer.status, answer.code()), (status, code), "{query}: {}", answer.body);
    }
    assert_eq!(simulator.association_moves().len(), moves, "{simulator}");
    // An unknown id in a filter is no error, and another account's Elastic IP is not shown.
    let all = client.ask("DescribeAddresses").body;
    assert!(all.matches("<allocationId>").count() == 3 && !all.contains(foreign), "{all}");
    assert!(!client.ask(&read(foreign)).body.contains("<allocationId>"));
}

fn association_of(client: &mut Client, allocation: &str) -> String {
    association_id(&client.ask(&read(allocation)))
}

#[test]
fn a_private_address_has_one_elastic_ip() {
    let (simulator, _, mut client) = start(zones());
    client.ask(&associate(EIP, R1, None, true));
    assert_eq!(client.ask(&associate(OTHER, R1, None, false)).code(), "Resource.AlreadyAssociated");
    assert_eq!(client.ask(&associate(OTHER, R1, None, true)).code(), "Success");
    assert_eq!(place(&simulator, OTHER), at(R1, R1_PRIMARY));
    assert_eq!(place(&simulator, EIP), None, "{simulator}");
    assert_eq!(simulator.elastic_ip(PUBLIC), None);
    // Another address of the same interface can have another one.
    client.claim(R1, &[VIP]);
    assert_eq!(client.ask(&associate(EIP, R1, Some(VIP), false)).code(), "Success");
    assert_eq!(simulator.elastic_ip(PUBLIC).map(|(eni, private)| (eni.into(), private)), at(R1, VIP));
    assert_eq!(place(&simulator, OTHER), at(R1, R1_PRIMARY));
}

#[test]
fn an_association_moves_along_with_its_private_address() {
    let (simulator, _, mut client) = start(zones());
    client.claim(R1, &[VIP]);
    let id = association_id(&client.ask(&associate(EIP, R1, Some(VIP), true)));
    client.claim(THIRD_PARTY, &[VIP]);
    assert_eq!(place(&simulator, EIP), at(THIRD_PARTY, VIP));
    assert_eq!(association_of(&mut client, EIP), id);
    assert_eq!(between(&client.ask(&read(EIP)).body, "<networkInterfaceId>", "<"), Some(THIRD_PARTY));
    assert_eq!(simulator.association_moves().len(), 2, "{simulator}");
    let interface = client.ask(&find(VIP)).body;
    assert!(interface.contains(&format!("<allocationId>{EIP}<")) && interface.contains(THIRD_PARTY), "{interface}");
    client.ask(&format!("UnassignPrivateIpAddresses&NetworkInterfaceId={THIRD_PARTY}&PrivateIpAddress.1={VIP}"));
    assert_eq!(place(&simulator, EIP), None);
    client.claim(R1, &[VIP]);
    assert_eq!(place(&simulator, EIP), None);
    client.ask(&associate(EIP, R1, None, true));
    simulator.delete_network_interface(R1).unwrap();
    assert_eq!(place(&simulator, EIP), None);
    let last = simulator.association_moves().pop().unwrap();
    assert!(last.to.is_none() && last.from.is_some_and(|from| from.network_interface == R1), "{simulator}");
}

#[test]
fn a_newly_assigned_address_cannot_be_associated_at_once() {
    let lag = Duration::from_secs(3);
    assert_eq!(World::default().association_lag_ms, 300);
    let (_simulator, _, mut client) = start(zones().association_lag(lag).throttling(None));
    assert_eq!(client.ask(&associate(EIP, R1, None, true)).code(), "Success", "there from the start");
    let claimed = Instant::now();
    client.claim(R1, &[VIP]);
    let mut codes = Vec::new();
    while codes.last().is_none_or(|code| code != "Success") {
        assert!(claimed.elapsed() < SOON, "{codes:?}");
        codes.push(client.ask(&associate(OTHER, R1, Some(VIP), true)).code().to_owned());
    }
    assert!(claimed.elapsed() >= lag, "{codes:?}");
    assert!(codes[0] == "InvalidParameterValue", "{codes:?}");
}

#[test]
fn reads_of_associations_are_as_stale_as_those_of_addresses() {
    let (simulator, _, mut client) = start(zones().throttling(None));
    let shows = |client: &mut Client, eni: &str| client.ask(&read(EIP)).body.contains(&format!(">{eni}<"));
    client.ask(&associate(EIP, R1, None, true));
    assert!(shows(&mut client, R1), "{simulator}");
    simulator.set_stale_reads(StaleReads::ExactlyMs(300));
    simulator.wait_for("the association is old", SOON, |_| shows(&mut client, R1).then_some(())).unwrap();
    let stolen = Instant::now();
    simulator.steal_association(EIP, THIRD_PARTY, None).unwrap();
    while shows(&mut client, R1) {
        assert!(stolen.elapsed() < SOON, "{simulator}");
    }
    assert!(stolen.elapsed() > Duration::from_millis(290), "{:?}", stolen.elapsed());
    assert!(shows(&mut client, THIRD_PARTY), "{simulator}");
    simulator.set_stale_reads(StaleReads::UpToMs(60_000));
    client.ask(&associate(EIP, R2, None, true));
    let misses = (0..10).filter(|_| !shows(&mut client, R2)).count();
    assert!(misses >= 8, "of 10 reads in the first instants only {misses} showed the past");
}

#[test]
fn faults_affect_one_elastic_ip_and_a_late_request_is_performed() {
    let (simulator, listener, mut client) = start(zones());
    simulator.add_fault(Fault::on(On::action("AssociateAddress").allocation(EIP)).deny().times(2));
    let dry = format!("{}&DryRun=true", associate(EIP, R1, None, true));
    assert_eq!(client.ask(&associate(OTHER, R2, None, true)).code(), "Success");
    assert_eq!(client.ask(&dry).code(), "UnauthorizedOperation");
    assert_eq!(client.ask(&associate(EIP, R1, None, true)).code(), "UnauthorizedOperation");
    assert_eq!(place(&simulator, EIP), None);
    assert_eq!(client.ask(&dry).code(), "DryRunOperation");
    let delay = Duration::from_secs(3);
    simulator.add_fault(Fault::on(On::action("AssociateAddress")).delay_before(delay).times(1));
    client.send_query(&associate(EIP, R1, None, true));
    simulator
        .wait_for_request("the association", SOON, |request| request.associates(EIP) && request.code().is_none())
        .unwrap();
    drop(client);
    listener.stop();
    let moved = simulator.wait_for_association(EIP, R1, SOON).unwrap().unwrap();
    let request = simulator.requests().pop().unwrap();
    assert!(moved.at - request.arrived >= delay, "{request}");
}

#[test]
fn a_third_party_adds_moves_releases_and_deletes_elastic_ips() {
    let (simulator, _, mut client) = start(zones());
    let new = "eipalloc-0b000000000000001";
    let public = Ipv4Addr::new(203, 0, 113, 30);
    simulator.add_elastic_ip(&ElasticIp::new(new, public).on(R1, R1_PRIMARY)).unwrap();
    assert_eq!(place(&simulator, new), at(R1, R1_PRIMARY));
    assert!(simulator.wait_for_association(new, R1, SOON).unwrap().is_none());
    simulator.steal_association(new, R2, None).unwrap();
    assert_eq!(place(&simulator, new), at(R2, R2_PRIMARY));
    simulator.release_association(new).unwrap();
    assert_eq!(place(&simulator, new), None);
    for (code, result) in [
        ("InvalidParameterValue", simulator.release_association(new)),
        ("InvalidParameterValue", simulator.steal_association(new, R1, Some(VIP))),
        ("InvalidAllocationID.NotFound", simulator.steal_association("nonsense", R1, None)),
    ] {
        assert_eq!(result.unwrap_err().code, code);
    }
    simulator.delete_elastic_ip(new).unwrap();
    assert_eq!(client.ask(&associate(new, R1, None, true)).code(), "InvalidAllocationID.NotFound");
    assert_eq!(simulator.association(new).unwrap_err().code, "InvalidAllocationID.NotFound");
    let error = simulator.add_elastic_ip(&ElasticIp::new(EIP, public)).unwrap_err();
    assert!(error.to_string().contains("is there twice"), "{error}");
}

#[test]
fn every_fault_of_an_elastic_ip_is_reported() {
    let elastic_ip =
        |number: u8| ElasticIp::new(&format!("eipalloc-0b00000000000000{number}"), [203, 0, 113, 100 + number].into());
    let mut private_alone = elastic_ip(4);
    private_alone.private = Some(VIP);
    let interface = NetworkInterface::new(
        "eni-0b000000000000001",
        "02:00:00:00:01:01",
        "subnet-0a000000000000001",
        [10, 99, 0, 20].into(),
    );
    let world = zones()
        .unattached(interface.elastic_ip(VIP, [203, 0, 113, 99].into()))
        .elastic_ip(ElasticIp::new("eipalloc-1", [203, 0, 113, 100].into()))
        .elastic_ip(ElasticIp::new("eipalloc-0b000000000000009", PUBLIC))
        .elastic_ip(elastic_ip(1).on("eni-0a00000000000000f", VIP))
        .elastic_ip(elastic_ip(2).on(R1, R2_PRIMARY))
        .elastic_ip(elastic_ip(3).on(R1, R1_PRIMARY))
        .elastic_ip(elastic_ip(5).on(R1, R1_PRIMARY))
        .elastic_ip(private_alone);
    let faults = Simulator::start(world).err().unwrap().0;
    let expected = [
        "10.99.0.100 is not an address of eni-0b000000000000001",
        "elastic ip eipalloc-1: \"eipalloc-1\" is not an allocation id",
        "203.0.113.10 is there twice",
        "eni-0a00000000000000f' does not exist",
        "10.99.1.12 is not an address of eni-0a000000000000001",
        "10.99.0.11 has eipalloc-0b000000000000003 already",
        "it has a private address and no network interface",
    ];
    assert_eq!(faults.len(), expected.len(), "{faults:?}");
    for (fault, wanted) in faults.iter().zip(expected) {
        assert!(fault.contains(wanted), "{wanted:?} is not in {fault:?}");
    }
}
