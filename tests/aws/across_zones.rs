//! Claims, reads and dry runs of routes and Elastic IPs, against the simulator.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use simulator::{Fault, On, RouteTable, Simulator, World};
use vipa_core::model::config::Global;
use vipa_core::model::ec2::ErrorClass;
use vipa_core::model::ids::{AllocationId, EniId};
use vipa_core::model::resource::{Holder, Kind, NotTakeable, Resource, Route};
use vipa_core::report::remedies::remedy_of_kind;
use vyos_aws_vipa::aws::{Ec2, Imds, Withdrawal};

use crate::{AMPLE, nowhere};

const FREE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const TABLE: &str = "rtb-0a000000000000001";
const ELASTIC_IP: &str = "eipalloc-0a000000000000001";
const OVERLAY: &str = "10.255.0.1/32";

fn eni(n: u8) -> EniId {
    format!("eni-0a00000000000000{n}").try_into().expect("an ENI")
}

fn route(table: &str, destination: &str) -> Route {
    Route { table: table.try_into().expect("a table"), destination: destination.parse().expect("a prefix") }
}

fn allocation(id: &str) -> AllocationId {
    id.try_into().expect("an allocation")
}

/// Two zones, and a router in the first.
struct Place {
    cloud: Simulator,
    ec2: Ec2,
    _dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self::with(World::two_zones().stale_reads(Duration::ZERO).association_lag(Duration::ZERO))
    }

    fn with(world: World) -> Self {
        let cloud = Simulator::start(world).expect("a cloud");
        let url = cloud.serve_ec2_http(FREE, None).expect("EC2").url();
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("credentials");
        let keys = "[default]\naws_access_key_id=AKIAVIPAEXAMPLE00001\naws_secret_access_key=vipa-example-secret\n";
        std::fs::write(&file, keys).expect("written");
        let global = Global { endpoint_url: Some(url), credentials_file: Some(file), ..Global::default() };
        let ec2 = Ec2::new(&global, "eu-west-1".try_into().expect("a region"), &Imds::at(&nowhere()));
        Self { cloud, ec2, _dir: dir }
    }

    /// The actions that EC2 was sent since, and whether each was a dry run. A busy machine may be late with an answer: a
    /// request that is sent twice counts once.
    fn sent(&self, since: usize) -> Vec<(String, bool)> {
        let requests = self.cloud.requests().split_off(since).into_iter();
        let mut sent: Vec<_> = requests.map(|r| (r.action, r.dry_run)).collect();
        sent.dedup();
        sent
    }

    fn count(&self) -> usize {
        self.cloud.requests().len()
    }

    async fn holder(&self, route: &Route) -> Option<Holder> {
        let holders = self.ec2.routes(std::slice::from_ref(route), AMPLE).await.expect("a read");
        holders.get(&Resource::Route(route.clone())).cloned()
    }
}

fn dry(actions: &[&str]) -> Vec<(String, bool)> {
    actions.iter().map(|action| ((*action).to_owned(), true)).collect()
}

fn performed(actions: &[&str]) -> Vec<(String, bool)> {
    actions.iter().map(|action| ((*action).to_owned(), false)).collect()
}

#[tokio::test]
async fn a_read_tells_apart_what_a_route_is() {
    let place = Place::new();
    let overlay = route(TABLE, OVERLAY);
    assert_eq!(place.holder(&overlay).await, None);
    for n in [1, 2] {
        place.ec2.claim_route(&overlay, &eni(n), AMPLE).await.expect("claimed");
        let Some(Holder::Eni(owner)) = place.holder(&overlay).await else { panic!("{}", place.cloud) };
        assert_eq!(owner.eni, eni(n));
    }
    place.cloud.stop_instance("i-0a000000000000002").expect("stopped");
    assert_eq!(place.holder(&overlay).await, Some(Holder::Blackhole));
    let gateway = route(TABLE, "0.0.0.0/0");
    let leads_to = Holder::NotTakeable(NotTakeable::LeadsTo("igw-0a000000000000001".to_owned()));
    assert_eq!(place.holder(&gateway).await, Some(leads_to));
    let nowhere = route("rtb-0bad0bad0bad0bad0", OVERLAY);
    assert_eq!(place.holder(&nowhere).await, Some(Holder::NotTakeable(NotTakeable::NoSuchTable)));
    let id = allocation("eipalloc-0bad0bad0bad0bad0");
    let holders = place.ec2.associations(std::slice::from_ref(&id), AMPLE).await.expect("a read");
    let missing = Holder::NotTakeable(NotTakeable::NoSuchAllocation);
    assert_eq!(holders, BTreeMap::from([(Resource::ElasticIp(id), missing)]));
}

#[tokio::test]
async fn a_dry_run_is_allowed_and_changes_nothing() {
    let place = Place::new();
    let (overlay, id) = (route(TABLE, OVERLAY), allocation(ELASTIC_IP));
    for (creates, exists, calls) in [
        (true, false, &["ReplaceRoute", "CreateRoute"][..]),
        (false, true, &["ReplaceRoute"]),
        // The read was outdated.
        (true, true, &["ReplaceRoute", "CreateRoute"]),
    ] {
        if exists {
            place.ec2.claim_route(&overlay, &eni(2), AMPLE).await.expect("claimed");
        }
        let (before, moves) = (place.count(), place.cloud.route_moves().len());
        place.ec2.dry_run_route(&overlay, &eni(1), creates, AMPLE).await.expect("allowed");
        assert_eq!(place.sent(before), dry(calls), "{creates}, {exists}");
        assert_eq!(place.cloud.route_moves().len(), moves);
    }
    let ipv6 = route(TABLE, "2001:db8:ff::/48");
    let before = place.count();
    place.ec2.dry_run_route(&ipv6, &eni(1), true, AMPLE).await.expect("allowed");
    assert_eq!(place.sent(before), dry(&["ReplaceRoute", "CreateRoute"]));
    for private_address in [None, Some(Ipv4Addr::new(10, 99, 0, 11))] {
        let before = place.count();
        place.ec2.dry_run_elastic_ip(&id, &eni(1), private_address, AMPLE).await.expect("allowed");
        assert_eq!(place.sent(before), dry(&["AssociateAddress"]), "{private_address:?}");
    }
    assert_eq!(place.cloud.association(ELASTIC_IP).expect("an Elastic IP"), None);
}

/// The remedy for a propagated route: a static one beside it is replaced from then on.
#[tokio::test]
async fn a_static_route_beside_a_propagated_one_is_replaced() {
    let mut world = World::two_zones().stale_reads(Duration::ZERO);
    world.route_tables[0] = world.route_tables[0].clone().propagated("10.200.0.0/16", "vgw-0a000000000000001");
    let place = Place::with(world);
    let route = route(TABLE, "10.200.0.0/16");
    assert_eq!(place.holder(&route).await, Some(Holder::NotTakeable(NotTakeable::Propagated)));
    // The first call creates it.
    for n in [1, 2] {
        place.ec2.claim_route(&route, &eni(n), AMPLE).await.expect("claimed");
        let Some(Holder::Eni(owner)) = place.holder(&route).await else { panic!("{}", place.cloud) };
        assert_eq!(owner.eni, eni(n));
    }
}

/// EC2 may check which routes exist before it answers that the call is allowed.
#[tokio::test]
async fn a_dry_run_that_a_route_contradicts_is_allowed_all_the_same() {
    let place = Place::new();
    let overlay = route(TABLE, OVERLAY);
    let answers = |action: &str, code: &str| Fault::on(On::action(action)).error(400, code);
    place.cloud.add_fault(answers("ReplaceRoute", "InvalidRoute.NotFound"));
    for creates in [true, false] {
        let before = place.count();
        place.ec2.dry_run_route(&overlay, &eni(1), creates, AMPLE).await.expect("allowed");
        assert_eq!(place.sent(before), dry(&["ReplaceRoute", "CreateRoute"]), "{creates}");
    }
    place.cloud.clear_faults();
    place.cloud.add_fault(answers("CreateRoute", "RouteAlreadyExists"));
    place.ec2.dry_run_route(&overlay, &eni(1), true, AMPLE).await.expect("allowed");
}

#[tokio::test]
async fn a_dry_run_is_denied_or_fails_with_its_own_error() {
    let place = Place::new();
    let (overlay, id) = (route(TABLE, OVERLAY), allocation(ELASTIC_IP));
    for action in ["ReplaceRoute", "CreateRoute", "AssociateAddress"] {
        place.cloud.add_fault(Fault::on(On::action(action).dry_run(true)).deny());
        let error = match action {
            "AssociateAddress" => place.ec2.dry_run_elastic_ip(&id, &eni(1), None, AMPLE).await,
            _ => place.ec2.dry_run_route(&overlay, &eni(1), true, AMPLE).await,
        };
        let error = error.expect_err("denied");
        assert_eq!((error.class(), error.code()), (ErrorClass::Denied, "UnauthorizedOperation"), "{error}");
        assert!(error.message.contains(&format!("allow ec2:{action} to file ")), "{error}");
        place.cloud.clear_faults();
    }
    let table = place.ec2.dry_run_route(&route("rtb-0bad0bad0bad0bad0", OVERLAY), &eni(1), false, AMPLE).await;
    let missing = place.ec2.dry_run_elastic_ip(&allocation("eipalloc-0bad0bad0bad0bad0"), &eni(1), None, AMPLE).await;
    let interface = place.ec2.dry_run_route(&overlay, &eni(9), true, AMPLE).await;
    place.cloud.add_fault(Fault::on(On::action("ReplaceRoute")).throttle());
    let throttled = place.ec2.dry_run_route(&overlay, &eni(1), false, AMPLE).await;
    for (result, class, code) in [
        (table, ErrorClass::BadResource, "InvalidRouteTableID.NotFound"),
        (missing, ErrorClass::BadResource, "InvalidAllocationID.NotFound"),
        (interface, ErrorClass::NoSuchInterface, "InvalidNetworkInterfaceID.NotFound"),
        (throttled, ErrorClass::Throttled, "RequestLimitExceeded"),
    ] {
        let error = result.expect_err("refused");
        assert_eq!((error.class(), error.code()), (class, code), "{error}");
    }
    // Something else than EC2 that does not know of dry runs.
    place.cloud.clear_faults();
    place.cloud.add_fault(Fault::on(On::action("AssociateAddress")).effect(simulator::Effect::Bare));
    let error = place.ec2.dry_run_elastic_ip(&id, &eni(1), None, AMPLE).await.expect_err("not an answer to a dry run");
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "Answer"), "{error}");
}

/// CreateRoute is sent once more if its answer is late, and the second copy finds what the first one has created.
#[tokio::test]
async fn a_route_that_a_lost_answer_has_created_is_claimed_at_once() {
    let place = Place::new();
    let mut fastest = AMPLE;
    for n in 1..=3 {
        let overlay = route(TABLE, &format!("10.255.0.{n}/32"));
        place.cloud.add_fault(Fault::on(On::action("CreateRoute")).hang().performed().times(1));
        let (before, began) = (place.count(), Instant::now());
        let acknowledged = place.ec2.claim_route(&overlay, &eni(1), AMPLE).await.expect("claimed");
        fastest = fastest.min(began.elapsed());
        assert!(acknowledged.request_id.is_some());
        let calls = ["ReplaceRoute", "CreateRoute", "DescribeRouteTables"];
        assert_eq!(place.sent(before), performed(&calls), "confirmed by a read");
        let creations = place.cloud.requests().split_off(before).into_iter().filter(|r| r.action == "CreateRoute");
        assert_eq!(creations.map(|r| r.code() == Some("RouteAlreadyExists")).collect::<Vec<_>>(), [false, true]);
        let Some(Holder::Eni(owner)) = place.holder(&overlay).await else { panic!("{}", place.cloud) };
        assert_eq!(owner.eni, eni(1));
    }
    assert_eq!(place.cloud.route_moves().len(), 3);
    // The answer is late after a second.
    assert!(fastest < Duration::from_secs(2), "{fastest:?}");
}

/// The group is no longer MASTER when EC2 answers that the table has no such route, or that the other router has created it.
#[tokio::test]
async fn a_withdrawn_claim_of_a_route_ends_with_the_request_under_way() {
    let place = Place::new();
    let (overlay, ours) = (route(TABLE, OVERLAY), eni(1));
    let withdrawal = Withdrawal::default();
    withdrawal.withdraw();
    let claim = withdrawal.clone().cover(place.ec2.claim_route(&overlay, &ours, AMPLE));
    let before = place.count();
    let error = claim.await.expect_err("withdrawn");
    assert_eq!((error.code(), place.sent(before)), ("InvalidRoute.NotFound", performed(&["ReplaceRoute"])));
    assert_eq!(place.holder(&overlay).await, None);

    place.ec2.claim_route(&overlay, &eni(2), AMPLE).await.expect("created");
    let absent = Fault::on(On::action("ReplaceRoute")).error(400, "InvalidRoute.NotFound").times(1);
    place.cloud.add_fault(absent);
    place.cloud.add_fault(Fault::on(On::action("CreateRoute")).delay_before(Duration::from_millis(500)));
    let before = place.count();
    let withdrawal = Withdrawal::default();
    let claim = withdrawal.clone().cover(place.ec2.claim_route(&overlay, &ours, AMPLE));
    let withdrawn = async {
        let create = |cloud: &Simulator| cloud.requests().iter().skip(before).any(|r| r.action == "CreateRoute");
        while !create(&place.cloud) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        withdrawal.withdraw();
    };
    let (claimed, ()) = tokio::join!(claim, withdrawn);
    assert_eq!(claimed.expect_err("withdrawn").code(), "RouteAlreadyExists");
    let calls = ["ReplaceRoute", "CreateRoute", "DescribeRouteTables"];
    assert_eq!(place.sent(before), performed(&calls));
    let Some(Holder::Eni(owner)) = place.holder(&overlay).await else { panic!("{}", place.cloud) };
    assert_eq!(owner.eni, eni(2), "the other router keeps it");
}

#[tokio::test]
async fn a_route_that_is_created_meanwhile_is_replaced_unless_it_leads_to_a_gateway() {
    let place = Place::new();
    let overlay = route(TABLE, OVERLAY);
    let absent = || Fault::on(On::action("ReplaceRoute")).error(400, "InvalidRoute.NotFound").times(1);
    // As if the table did not have it when ReplaceRoute came.
    place.ec2.claim_route(&overlay, &eni(2), AMPLE).await.expect("created");
    place.cloud.add_fault(absent());
    let before = place.count();
    place.ec2.claim_route(&overlay, &eni(1), AMPLE).await.expect("claimed");
    let calls = ["ReplaceRoute", "CreateRoute", "DescribeRouteTables", "ReplaceRoute"];
    assert_eq!(place.sent(before), performed(&calls));
    assert_eq!(
        place.cloud.route_owner(TABLE, OVERLAY).expect("a table").map(|e| e.to_string()),
        Some(eni(1).to_string())
    );

    place.cloud.add_fault(absent());
    let error = place.ec2.claim_route(&route(TABLE, "0.0.0.0/0"), &eni(1), AMPLE).await.expect_err("a gateway's");
    assert_eq!((error.class(), error.code()), (ErrorClass::Refused, "RouteAlreadyExists"), "{error}");
    assert_eq!(place.cloud.route_moves().len(), 2, "nothing else was moved");
}

/// EC2 lists a table with all its routes, and may list 100 tables in a page.
#[tokio::test]
async fn tables_with_many_routes_are_read_in_smaller_groups() {
    const VPC: &str = "vpc-0a000000000000001";
    let id = |n: usize| format!("rtb-0c{n:015x}");
    let table = |n: usize, routes: usize| {
        let prefix =
            |route: usize| format!("172.{}.{}.{}/30", 16 + (route >> 14), route >> 6 & 0xff, (route & 0x3f) << 2);
        (0..routes).fold(RouteTable::new(&id(n), VPC), |table, route| table.route(&prefix(route), eni(1).as_str()))
    };
    let world = World::two_zones().stale_reads(Duration::ZERO).routes_per_table(20_000);
    let world = (0..8).fold(world, |world, n| world.route_table(table(n, 2_000)));
    let place = Place::with(world.route_table(table(8, 16_000)).route_table(table(9, 1)));
    let destination = "172.16.0.0/30";
    let read = |tables: Vec<usize>| {
        let routes: Vec<Route> = tables.into_iter().map(|n| route(&id(n), destination)).collect();
        let ec2 = place.ec2.clone();
        async move { ec2.routes(&routes, AMPLE).await }
    };
    let before = place.count();
    let holders = read((0..8).collect()).await.expect("a read");
    assert_eq!(holders.len(), 8, "{holders:?}");
    assert!(holders.values().all(|holder| matches!(holder, Holder::Eni(owner) if owner.eni == eni(1))), "{holders:?}");
    let requests = place.cloud.requests().split_off(before);
    let mut tables: Vec<usize> = requests.iter().map(|request| request.route_tables.len()).collect();
    // A request that a busy machine answers late is sent again.
    tables.dedup();
    assert!(tables.starts_with(&[8, 4]) && tables.len() <= 11, "{tables:?}");

    let error = read(vec![9, 8]).await.expect_err("one table is too long");
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "AnswerTooLong"), "{error}");
    assert!(error.message.contains(&id(8)) && error.message.contains("longer than 2048 KiB"), "{error}");
    let remedy = remedy_of_kind(Kind::Route, &error.failure).expect("a remedy");
    assert!(remedy.starts_with("delete routes of this table"), "{remedy}");
    read(vec![9]).await.expect("a small table");
}
