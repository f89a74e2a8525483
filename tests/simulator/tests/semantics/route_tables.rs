//! Routes: their destinations and targets, reads, and injected faults.

use std::time::{Duration, Instant};

use simulator::{
    Effect, Fault, NetworkInterface, On, Origin, Outcome, RouteTable, Simulator, StaleReads, Target, Throttling, World,
};

use crate::client::{Answer, Client, R1, R2, SOON, THIRD_PARTY, between, start, unsigned};

const T1: &str = "rtb-0a000000000000001";
const T2: &str = "rtb-0a000000000000002";
const VPC: &str = "vpc-0a000000000000001";
const IGW: &str = "igw-0a000000000000001";
const OVERLAY: &str = "10.200.0.1/32";
const OVERLAY6: &str = "2001:db8:ffff::1/128";

fn zones() -> World {
    unsigned(World::two_zones())
}

fn create(table: &str, destination: &str, target: &str) -> String {
    change("CreateRoute", table, destination, target)
}

fn replace(table: &str, destination: &str, target: &str) -> String {
    change("ReplaceRoute", table, destination, target)
}

fn change(action: &str, table: &str, destination: &str, target: &str) -> String {
    let family = if destination.contains(':') { "Ipv6" } else { "" };
    let parameter = match target.split_once('-') {
        Some(("eni", _)) => "NetworkInterfaceId",
        Some(("i", _)) => "InstanceId",
        Some(("nat", _)) => "NatGatewayId",
        Some(("vpce", _)) => "VpcEndpointId",
        _ => "GatewayId",
    };
    format!("{action}&RouteTableId={table}&Destination{family}CidrBlock={destination}&{parameter}={target}")
}

fn read(table: &str) -> String {
    format!("DescribeRouteTables&Filter.1.Name=route-table-id&Filter.1.Value.1={table}")
}

/// The element of the route to a destination.
fn route_item<'a>(answer: &'a Answer, destination: &str) -> Option<&'a str> {
    let routes = between(&answer.body, "<routeSet>", "</routeSet>")?;
    routes.split("<item>").find(|item| item.contains(&format!(">{destination}<")))
}

fn owner(simulator: &Simulator, table: &str, destination: &str) -> Option<String> {
    simulator.route_owner(table, destination).unwrap().map(String::from)
}

#[test]
fn a_route_has_the_target_of_the_last_request_and_changes_are_logged() {
    let (simulator, _, mut client) = start(zones());
    for destination in [OVERLAY, OVERLAY6] {
        let from = simulator.next_number();
        for query in [
            create(T1, destination, R1),
            replace(T1, destination, R2),
            replace(T1, destination, R2),
            replace(T1, destination, "i-0a000000000000003"),
        ] {
            let answer = client.ask(&query);
            assert_eq!((answer.status, answer.code()), (200, "Success"), "{query}: {}", answer.body);
            assert!(answer.body.contains("<return>true</return>"), "{}", answer.body);
        }
        assert_eq!(owner(&simulator, T1, destination).as_deref(), Some(THIRD_PARTY));
        assert_eq!(owner(&simulator, T2, destination), None);
        let moves: Vec<_> =
            simulator.route_moves().into_iter().filter(|moved| moved.destination.to_string() == destination).collect();
        let led = |target: &Option<Target>| target.as_ref().map(Target::to_string);
        let steps: Vec<_> = moves.iter().map(|moved| (led(&moved.from), led(&moved.to))).collect();
        let [r1, r2, third_party] = [R1, R2, THIRD_PARTY].map(|eni| Some(eni.to_owned()));
        assert_eq!(steps, [(None, r1.clone()), (r1, r2.clone()), (r2, third_party)], "{simulator}");
        let requests = simulator.requests_from(from);
        assert!(requests.iter().all(|request| request.changes_route(T1, destination)), "{simulator}");
        assert_eq!(requests[0].network_interfaces, [R1]);
    }
    let text = simulator.to_string();
    assert!(text.contains(&format!("{OVERLAY} in {T1} from {R1} to {R2} by request #1")), "{text}");
    assert!(text.contains(&format!("ReplaceRoute {T1} {OVERLAY} {R2}")), "{text}");
    // CreateRoute drops the host bits of an IPv4 destination.
    assert_eq!(client.ask(&create(T1, "100.68.0.18/18", R1)).code(), "Success");
    assert_eq!(owner(&simulator, T1, "100.68.0.0/18").as_deref(), Some(R1));
}

#[test]
fn refusals_have_the_codes_of_ec2_and_change_nothing() {
    let world = zones()
        .vpc("vpc-0b000000000000001", "10.50.0.0/16")
        .subnet("subnet-0b000000000000001", "vpc-0b000000000000001", "10.50.0.0/24", "eu-west-1a")
        .unattached(NetworkInterface::new(
            "eni-0b000000000000001",
            "02:00:00:00:01:01",
            "subnet-0b000000000000001",
            [10, 50, 0, 10].into(),
        ))
        .unattached(NetworkInterface::new(
            "eni-0b000000000000002",
            "02:00:00:00:01:02",
            "subnet-0a000000000000001",
            [10, 99, 0, 20].into(),
        ));
    let (simulator, _, mut client) = start(world);
    simulator.attach_network_interface("eni-0b000000000000002", "i-0a000000000000003", 1).unwrap();
    let nobody = "eni-0a00000000000000f";
    for (query, status, code) in [
        (create("rtb-0a00000000000000f", OVERLAY, R1), 400, "InvalidRouteTableID.NotFound"),
        (replace("rtb-0a00000000000000f", OVERLAY, R1), 400, "InvalidRouteTableID.NotFound"),
        (create("rtb-x", OVERLAY, R1), 400, "InvalidRouteTableId.Malformed"),
        (create(T1, OVERLAY, nobody), 400, "InvalidNetworkInterfaceID.NotFound"),
        (create(T1, OVERLAY, "eni-x"), 400, "InvalidNetworkInterfaceID.Malformed"),
        (create(T1, OVERLAY, "i-0a00000000000000f"), 400, "InvalidInstanceID.NotFound"),
        (create(T1, OVERLAY, "i-0a000000000000003"), 400, "InvalidInstanceID"),
        (create(T1, OVERLAY, "eni-0b000000000000001"), 400, "InvalidParameterValue"),
        (create(T1, OVERLAY, "nat-"), 400, "InvalidParameterValue"),
        (create(T1, "0.0.0.0/0", R1), 400, "RouteAlreadyExists"),
        (create(T1, "10.99.0.0/16", R1), 400, "RouteAlreadyExists"),
        (create(T1, "10.200.0.1", R1), 400, "InvalidParameterValue"),
        (create(T1, "2001:db8:ffff::1/64", R1), 400, "InvalidParameterValue"),
        (replace(T1, OVERLAY, R1), 400, "InvalidRoute.NotFound"),
        (replace(T1, "10.200.0.1/16", R1), 400, "InvalidParameterValue"),
        (format!("CreateRoute&RouteTableId={T1}&NetworkInterfaceId={R1}"), 400, "MissingParameter"),
        (format!("CreateRoute&RouteTableId={T1}&DestinationCidrBlock={OVERLAY}"), 400, "MissingParameter"),
        (format!("CreateRoute&DestinationCidrBlock={OVERLAY}&NetworkInterfaceId={R1}"), 400, "MissingParameter"),
        (format!("{}&GatewayId={IGW}", create(T1, OVERLAY, R1)), 400, "InvalidParameterCombination"),
        (
            format!("{}&DestinationIpv6CidrBlock={OVERLAY6}", create(T1, OVERLAY, R1)),
            400,
            "InvalidParameterCombination",
        ),
        (format!("{}&LocalTarget=true", create(T1, OVERLAY, R1)), 400, "UnknownParameter"),
        // A dry run checks only that the resources exist.
        (format!("{}&DryRun=true", create(T1, OVERLAY, R1)), 412, "DryRunOperation"),
        (format!("{}&DryRun=true", replace(T1, OVERLAY, R1)), 412, "DryRunOperation"),
        (format!("{}&DryRun=true", create("rtb-0a00000000000000f", OVERLAY, R1)), 400, "InvalidRouteTableID.NotFound"),
        (format!("{}&DryRun=true", replace(T1, OVERLAY, nobody)), 400, "InvalidNetworkInterfaceID.NotFound"),
        (format!("{}&DryRun=true", read(T1)), 412, "DryRunOperation"),
        ("DescribeRouteTables&RouteTableId.1=rtb-0a00000000000000f".to_owned(), 400, "InvalidRouteTableID.NotFound"),
        ("DescribeRouteTables&RouteTableId.1=rtb-x".to_owned(), 400, "InvalidRouteTableId.Malformed"),
        ("DescribeRouteTables&MaxResults=101".to_owned(), 400, "InvalidParameterValue"),
        ("DescribeRouteTables&Filter.1.Name=colour".to_owned(), 400, "InvalidParameterValue"),
    ] {
        let answer = client.ask(&query);
        assert_eq!((answer.status, answer.code()), (status, code), "{query}: {}", answer.body);
    }
    assert!(simulator.route_moves().is_empty(), "{simulator}");
    let dry = simulator.requests().into_iter().filter(|request| request.dry_run).count();
    assert_eq!(dry, 5, "{simulator}");
    // An unknown id in a filter is no error.
    let answer = client.ask(&read("rtb-0a00000000000000f"));
    assert!(answer.code() == "Success" && !answer.body.contains("<routeTableId>"), "{}", answer.body);
}

#[test]
fn within_the_vpc_only_routes_for_whole_subnets_are_accepted() {
    let (simulator, _, mut client) = start(zones());
    for (query, code) in [
        (create(T1, "10.99.0.100/32", R1), "InvalidParameterValue"),
        (create(T1, "10.99.0.0/25", R1), "InvalidParameterValue"),
        (create(T1, "10.99.8.0/24", R1), "InvalidParameterValue"),
        (create(T1, "2001:db8:99:1::1/128", R1), "InvalidParameterValue"),
        (create(T1, "10.99.1.0/24", IGW), "InvalidParameterValue"),
        (create(T1, "10.99.1.0/24", R1), "Success"),
        (create(T1, "2001:db8:99:1::/64", R1), "Success"),
        (create(T1, "10.99.0.0/24", "nat-0a000000000000001"), "Success"),
        (create(T1, "10.98.0.0/15", IGW), "Success"),
        (replace(T1, "10.99.1.0/24", IGW), "InvalidParameterValue"),
        // The local route itself can be replaced, and restored.
        (replace(T1, "10.99.0.0/16", IGW), "InvalidParameterValue"),
        (replace(T1, "10.99.0.0/16", R1), "Success"),
    ] {
        let answer = client.ask(&query);
        assert_eq!(answer.code(), code, "{query}: {}", answer.body);
    }
    let local = simulator.route(T1, "10.99.0.0/16").unwrap().unwrap();
    assert_eq!((local.target.to_string().as_str(), local.origin), (R1, Origin::CreateRouteTable));
    let restore = format!("ReplaceRoute&RouteTableId={T1}&LocalTarget=true&DestinationCidrBlock=");
    assert_eq!(client.ask(&format!("{restore}10.99.0.0/16")).code(), "Success");
    assert_eq!(client.ask(&format!("{restore}0.0.0.0/0")).code(), "InvalidParameterValue");
    assert_eq!(simulator.route(T1, "10.99.0.0/16").unwrap().unwrap().target, Target::Local);
}

#[test]
fn a_propagated_route_cannot_be_replaced_and_has_lower_priority() {
    let mut world = zones();
    world.route_tables[0] = world.route_tables[0].clone().propagated("10.200.0.0/16", "vgw-0a000000000000001");
    let (simulator, _, mut client) = start(world);
    let answer = client.ask(&read(T1));
    let item = route_item(&answer, "10.200.0.0/16").unwrap();
    for wanted in ["<gatewayId>vgw-0a000000000000001<", "<origin>EnableVgwRoutePropagation<", "<state>active<"] {
        assert!(item.contains(wanted), "{wanted}: {item}");
    }
    let gateways = between(&answer.body, "<propagatingVgwSet>", "</propagatingVgwSet>").unwrap();
    assert_eq!(gateways, "<item><gatewayId>vgw-0a000000000000001</gatewayId></item>");
    assert_eq!(client.ask(&replace(T1, "10.200.0.0/16", R1)).code(), "InvalidRoute.NotFound");
    assert_eq!(owner(&simulator, T1, "10.200.0.0/16"), None);
    assert_eq!(client.ask(&create(T1, "10.200.0.0/16", R1)).code(), "Success");
    assert_eq!(owner(&simulator, T1, "10.200.0.0/16").as_deref(), Some(R1));
    assert_eq!(client.ask(&read(T1)).body.matches(">10.200.0.0/16<").count(), 2);
    simulator.delete_route(T1, "10.200.0.0/16").unwrap();
    let route = simulator.route(T1, "10.200.0.0/16").unwrap().unwrap();
    assert_eq!(route.origin, Origin::EnableVgwRoutePropagation);
}

#[test]
fn a_table_has_a_limit_of_routes_of_a_family() {
    let mut world = zones().routes_per_table(3);
    world.route_tables[0] = world.route_tables[0].clone().propagated("10.201.0.0/16", "vgw-0a000000000000001");
    let (_simulator, _, mut client) = start(world);
    // The local and the default route count, the propagated one does not.
    for (destination, code) in [
        (OVERLAY, "Success"),
        ("10.200.0.2/32", "RouteLimitExceeded"),
        (OVERLAY6, "Success"),
        ("2001:db8:ffff::2/128", "Success"),
        ("2001:db8:ffff::3/128", "RouteLimitExceeded"),
    ] {
        assert_eq!(client.ask(&create(T1, destination, R1)).code(), code, "{destination}");
    }
    assert_eq!(client.ask(&replace(T1, OVERLAY, R2)).code(), "Success");
    assert_eq!(World::two_zones().routes_per_table, 50);
}

#[test]
fn a_route_is_a_blackhole_while_its_target_is_deleted_detached_or_stopped() {
    let mut world = zones();
    world.route_tables[0] = world.route_tables[0].clone().route("10.201.0.0/16", "nat-0a000000000000001");
    let (simulator, _, mut client) = start(world);
    client.ask(&create(T1, OVERLAY, R1));
    let whole = format!(
        "<destinationCidrBlock>{OVERLAY}</destinationCidrBlock><instanceId>i-0a000000000000001</instanceId>\
         <instanceOwnerId>123456789012</instanceOwnerId><networkInterfaceId>{R1}</networkInterfaceId>"
    );
    let mut expect = |destination: &str, begins: &str, state: &str| {
        let answer = client.ask(&read(T1));
        let item = route_item(&answer, destination).unwrap();
        let end = format!("<state>{state}</state><origin>CreateRoute</origin></item>");
        assert!(item.starts_with(begins) && item.ends_with(&end), "{item}");
        let filter = format!("{}&Filter.2.Name=route.state&Filter.2.Value.1=blackhole", read(T1));
        assert_eq!(client.ask(&filter).body.contains(T1), state == "blackhole");
    };
    let detached = format!(
        "<destinationCidrBlock>{OVERLAY}</destinationCidrBlock><networkInterfaceId>{R1}</networkInterfaceId><state>"
    );
    expect(OVERLAY, &whole, "active");
    simulator.stop_instance("i-0a000000000000001").unwrap();
    expect(OVERLAY, &whole, "blackhole");
    simulator.start_instance("i-0a000000000000001").unwrap();
    expect(OVERLAY, &whole, "active");
    simulator.detach_network_interface(R1).unwrap();
    expect(OVERLAY, &detached, "blackhole");
    let error = simulator.attach_network_interface(R1, "i-0a000000000000002", 0).unwrap_err();
    assert_eq!(error.code, "InvalidParameterValue");
    simulator.attach_network_interface(R1, "i-0a000000000000001", 0).unwrap();
    expect(OVERLAY, &whole, "active");
    simulator.delete_network_interface(R1).unwrap();
    expect(OVERLAY, &detached, "blackhole");
    assert!(simulator.route(T1, OVERLAY).unwrap().unwrap().blackhole);
    // The route still exists, and can be replaced.
    assert_eq!(client.ask(&create(T1, OVERLAY, R2)).code(), "RouteAlreadyExists");
    assert_eq!(client.ask(&replace(T1, OVERLAY, R2)).code(), "Success");
    assert!(!simulator.route(T1, OVERLAY).unwrap().unwrap().blackhole);
    simulator.delete_gateway("nat-0a000000000000001");
    let answer = client.ask(&read(T1));
    let item = route_item(&answer, "10.201.0.0/16").unwrap();
    assert!(item.contains("<natGatewayId>nat-0a000000000000001<") && item.contains("<state>blackhole<"), "{item}");
}

#[test]
fn tables_are_found_by_filters_and_in_pages() {
    let mut world = zones();
    world.route_tables[1] = world.route_tables[1].clone().route("pl-0a000001", "vpce-0a000000000000001");
    for number in 1..=5 {
        world = world.route_table(RouteTable::new(&format!("rtb-0b00000000000000{number}"), VPC));
    }
    let (_simulator, _, mut client) = start(world);
    let mut ids = |query: &str| {
        let answer = client.ask(&format!("DescribeRouteTables{query}"));
        assert_eq!(answer.code(), "Success", "{query}: {}", answer.body);
        let tables = answer.body.split("<item><routeTableId>").skip(1).map(|text| text[..21].to_owned());
        (tables.collect::<Vec<_>>(), between(&answer.body, "<nextToken>", "<").map(str::to_owned), answer.body)
    };
    for (name, value, wanted) in [
        ("route-table-id", T1, vec![T1]),
        ("association.main", "true", vec![T1]),
        ("association.subnet-id", "subnet-0a000000000000002", vec![T2]),
        ("route.destination-prefix-list-id", "pl-0a000001", vec![T2]),
        ("route.destination-cidr-block", "0.0.0.0/0", vec![T1, T2]),
        ("vpc-id", "vpc-0a00000000000000f", vec![]),
    ] {
        assert_eq!(ids(&format!("&Filter.1.Name={name}&Filter.1.Value.1={value}")).0, wanted, "{name}");
    }
    let (first, token, _) = ids(&format!("&MaxResults=5&Filter.1.Name=vpc-id&Filter.1.Value.1={VPC}"));
    assert_eq!(first.len(), 5);
    let (second, end, _) =
        ids(&format!("&MaxResults=5&Filter.1.Name=vpc-id&Filter.1.Value.1={VPC}&NextToken={}", token.unwrap()));
    assert_eq!((second.len(), end), (2, None));
    let (named, _, body) = ids(&format!("&RouteTableId.1={T2}"));
    assert_eq!(named, [T2]);
    assert!(body.contains(&format!("<vpcId>{VPC}</vpcId>")), "{body}");
    assert!(body.contains("<destinationPrefixListId>pl-0a000001</destinationPrefixListId>"), "{body}");
    assert!(body.contains("<gatewayId>local</gatewayId><state>active</state><origin>CreateRouteTable<"), "{body}");
}

#[test]
fn reads_of_routes_are_as_stale_as_those_of_addresses() {
    let mut world = zones().throttling(None);
    world.stale_reads = StaleReads::UpToMs(60_000);
    let (simulator, _, mut client) = start(world);
    let shows = |client: &mut Client, eni: &str| {
        let answer = client.ask(&read(T1));
        route_item(&answer, OVERLAY).is_some_and(|item| item.contains(eni))
    };
    client.ask(&create(T1, OVERLAY, R1));
    let misses = (0..10).filter(|_| !shows(&mut client, R1)).count();
    assert!(misses >= 8, "of 10 reads in the first instants only {misses} showed the past");
    simulator.set_stale_reads(StaleReads::ExactlyMs(0));
    assert!(shows(&mut client, R1), "{simulator}");
    simulator.set_stale_reads(StaleReads::ExactlyMs(300));
    simulator.wait_for("the route is old", SOON, |_| shows(&mut client, R1).then_some(())).unwrap();
    let stolen = Instant::now();
    simulator.steal_route(T1, OVERLAY, THIRD_PARTY).unwrap();
    while shows(&mut client, R1) {
        assert!(stolen.elapsed() < SOON, "{simulator}");
    }
    assert!(stolen.elapsed() > Duration::from_millis(290), "{:?}", stolen.elapsed());
}

#[test]
fn faults_affect_only_one_table_one_destination_or_dry_runs() {
    let (simulator, listener, mut client) = start(zones());
    let other = "10.200.0.2/32";
    simulator.steal_route(T1, OVERLAY, THIRD_PARTY).unwrap();
    simulator.steal_route(T1, other, THIRD_PARTY).unwrap();
    simulator.add_fault(Fault::on(On::action("ReplaceRoute").route_table(T2)).deny());
    simulator.add_fault(Fault::on(On::action("ReplaceRoute").destination(OVERLAY).dry_run(false)).throttle().times(1));
    let dry = format!("{}&DryRun=true", replace(T1, OVERLAY, R1));
    for (query, code) in [
        (replace(T2, "0.0.0.0/0", R1), "UnauthorizedOperation"),
        (format!("{}&DryRun=true", replace(T2, "0.0.0.0/0", R1)), "UnauthorizedOperation"),
        (create(T2, OVERLAY, R1), "Success"),
        (dry, "DryRunOperation"),
        (replace(T1, other, R1), "Success"),
        (replace(T1, OVERLAY, R1), "RequestLimitExceeded"),
        (replace(T1, OVERLAY, R1), "Success"),
    ] {
        assert_eq!(client.ask(&query).code(), code, "{query}: {simulator}");
    }
    simulator.clear_faults();
    assert_eq!(owner(&simulator, T2, "0.0.0.0/0"), None);
    // Endless pages have route tables.
    let endless = Effect::EndlessPages { interfaces: 2, addresses: 3 };
    simulator.add_fault(Fault::on(On::action("DescribeRouteTables")).effect(endless).times(1));
    let body = client.ask(&read(T1)).body;
    assert_eq!((body.matches("<routeTableId>").count(), body.matches("<state>active<").count()), (2, 6), "{body}");
    assert!(body.contains("<nextToken>"), "{body}");
    // Performed, and the answer is lost.
    simulator.add_fault(Fault::on(On::action("ReplaceRoute")).drop_connection().performed().times(1));
    client.send_query(&replace(T1, OVERLAY, R2));
    assert!(client.receive().is_err());
    assert_eq!(owner(&simulator, T1, OVERLAY).as_deref(), Some(R2));
    assert_eq!(simulator.requests().pop().unwrap().outcome, Outcome::Dropped);
    // Not answered, and not performed.
    simulator.add_fault(Fault::on(On::action("ReplaceRoute")).hang().times(1));
    let mut client = Client::new(&listener);
    client.0.get_ref().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    client.send_query(&replace(T1, OVERLAY, R1));
    assert!(client.receive().is_err());
    assert_eq!(owner(&simulator, T1, OVERLAY).as_deref(), Some(R2));
}

#[test]
fn a_route_moves_although_its_client_gave_up() {
    let (simulator, listener, mut client) = start(zones());
    simulator.steal_route(T1, OVERLAY, THIRD_PARTY).unwrap();
    let delay = Duration::from_millis(300);
    simulator.add_fault(Fault::on(On::action("ReplaceRoute")).delay_before(delay).times(1));
    client.send_query(&replace(T1, OVERLAY, R1));
    simulator.wait_for_request("the route", SOON, |request| request.changes_route(T1, OVERLAY)).unwrap();
    drop(client);
    listener.stop();
    let moved = simulator.wait_for_route(T1, OVERLAY, R1, SOON).unwrap().unwrap();
    let request = simulator.requests().pop().unwrap();
    assert!(moved.at - request.arrived >= delay, "{request}");
}

#[test]
fn each_action_has_its_own_token_bucket() {
    let (simulator, _, mut client) = start(zones().throttling(Some(Throttling {
        mutating_burst: 2.0,
        mutating_per_second: 0.01,
        ..Throttling::default()
    })));
    client.ask(&create(T1, OVERLAY, R1));
    let codes: Vec<String> = (0..3).map(|_| client.ask(&replace(T1, OVERLAY, R2)).code().to_owned()).collect();
    assert_eq!(codes, ["Success", "Success", "RequestLimitExceeded"]);
    let address = [10, 99, 0, 100].into();
    assert_eq!(client.claim(R1, &[address]).code(), "Success", "{simulator}");
    assert_eq!(client.ask(&create(T2, OVERLAY, R1)).code(), "Success");
    assert_eq!(client.ask(&create(T2, OVERLAY6, R1)).code(), "RequestLimitExceeded");
}

#[test]
fn a_third_party_adds_tables_changes_routes_and_deletes_both() {
    let (simulator, _, mut client) = start(zones());
    let new = "rtb-0b000000000000001";
    simulator.add_route_table(&RouteTable::new(new, VPC).route(OVERLAY, R1)).unwrap();
    assert_eq!(owner(&simulator, new, OVERLAY).as_deref(), Some(R1));
    assert!(simulator.wait_for_route(new, OVERLAY, R1, SOON).unwrap().is_none());
    for target in [R2, IGW, "vpce-0a000000000000001", "nat-0a000000000000001", THIRD_PARTY] {
        simulator.steal_route(new, OVERLAY, target).unwrap();
        assert_eq!(simulator.route(new, OVERLAY).unwrap().unwrap().target.to_string(), target);
    }
    let destinations: Vec<String> =
        simulator.routes(new).unwrap().into_iter().map(|route| route.destination.to_string()).collect();
    assert_eq!(destinations, ["10.99.0.0/16", OVERLAY, "2001:db8:99::/56"]);
    simulator.delete_route(new, OVERLAY).unwrap();
    assert_eq!(simulator.route(new, OVERLAY).unwrap(), None);
    for (code, result) in [
        ("InvalidRoute.NotFound", simulator.delete_route(new, OVERLAY)),
        ("InvalidParameterValue", simulator.delete_route(new, "10.99.0.0/16")),
        ("InvalidParameterValue", simulator.steal_route(new, "10.99.0.100/32", R1)),
        ("InvalidParameterValue", simulator.steal_route(new, OVERLAY, "nonsense")),
        ("InvalidRouteTableID.NotFound", simulator.steal_route("rtb-0a00000000000000f", OVERLAY, R1)),
    ] {
        assert_eq!(result.unwrap_err().code, code);
    }
    simulator.delete_route_table(T1).unwrap();
    assert_eq!(client.ask(&replace(T1, "0.0.0.0/0", R1)).code(), "InvalidRouteTableID.NotFound");
    assert_eq!(simulator.route(T1, OVERLAY).unwrap_err().code, "InvalidRouteTableID.NotFound");
    let error = simulator.wait_for_route(T2, OVERLAY, R1, Duration::from_millis(50)).unwrap_err();
    assert!(error.to_string().contains(&format!("{OVERLAY} in {T2} leads to {R1}")), "{error}");
}

#[test]
fn every_fault_of_a_route_table_is_reported() {
    let table = |number: u8| RouteTable::new(&format!("rtb-0b00000000000000{number}"), VPC);
    let world = zones()
        .route_table(RouteTable::new("rtb-1", VPC))
        .route_table(RouteTable::new(T1, VPC))
        .route_table(RouteTable::new("rtb-0b000000000000001", "vpc-0a00000000000000f"))
        .route_table(table(2).main())
        .route_table(table(3).subnet("subnet-0a000000000000001"))
        .route_table(table(4).subnet("subnet-0a00000000000000f"))
        .route_table(table(5).route("10.200.0.1/16", R1))
        .route_table(table(6).route("10.200.0.1/32", "eni-0a00000000000000f"))
        .route_table(table(7).route("10.99.0.100/32", R1))
        .route_table(table(8).propagated("10.200.0.0/16", IGW));
    let faults = Simulator::start(world).err().unwrap().0;
    let expected = [
        "route table rtb-1: \"rtb-1\" is not a route table id",
        "is there twice",
        "vpc-0a00000000000000f does not exist",
        "rtb-0a000000000000001 is the main route table",
        "subnet-0a000000000000001 is associated with rtb-0a000000000000001",
        "subnet-0a00000000000000f does not exist",
        "\"10.200.0.1/16\" is not an IPv4 CIDR block",
        "eni-0a00000000000000f' does not exist",
        "10.99.0.100/32 is more specific than a local route",
        "igw-0a000000000000001 propagates no routes",
    ];
    assert_eq!(faults.len(), expected.len(), "{faults:?}");
    for (fault, wanted) in faults.iter().zip(expected) {
        assert!(fault.contains(wanted), "{wanted:?} is not in {fault:?}");
    }
}
