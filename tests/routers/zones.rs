//! Routers in two availability zones: routes and Elastic IPs follow the master, and packets of clients follow them.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use lab::simulator::{ElasticIp, Fault, On, Request, RouteTable, World};
use lab::{Cut, ELASTIC_IP, GROUP, Lab, OVERLAY, OVERLAY_ROUTE, Pings, ROUTE_TABLES, Router, Signal, THIRD_PARTY, VIP};
use serde_json::Value;

use crate::readiness::exports;
use crate::{BINARY, ELECTION, SLACK, without_copies};

/// With `verify-interval 5`: a read, and another one up to 2 s later.
const SEEN: Duration = Duration::from_secs(7);

/// With that interval: how long the master may be without its routes after a split-brain (B7).
const HEALED: Duration = Duration::from_secs(5 + 5);

/// How long a slow call of EC2 takes.
const CALL: Duration = Duration::from_millis(300);

/// The overlay address, with a route in the table of each zone. Returns when r1 has both and r2 is ready to take over, with the
/// number of the next request.
fn bring_up(lab: &mut Lab) -> usize {
    bring_up_with(lab, &[])
}

/// The same with other nodes of `aws-vipa` beside the routes.
fn bring_up_with(lab: &mut Lab, others: &[&str]) -> usize {
    let routes = ROUTE_TABLES.map(|table| format!("route {OVERLAY_ROUTE} route-table {table}"));
    let nodes: Vec<&str> = routes.iter().map(String::as_str).chain(others.iter().copied()).collect();
    lab.set_global("verify-interval 5");
    lab.commit_overlay(&nodes);
    routes_lead_to(lab, &lab.r1, ELECTION + SLACK);
    settled(lab);
    lab.simulator.next_number()
}

/// Those of the requests that have this number or a later one, without copies: on a busy machine r2 may have been MASTER for a
/// moment before.
fn since(number: usize, mut requests: Vec<Request>) -> Vec<Request> {
    requests.retain(|request| request.number >= number);
    without_copies(requests)
}

/// Waits until the overlay address leads to the router in both zones.
pub fn routes_lead_to(lab: &Lab, router: &Router, within: Duration) {
    for table in ROUTE_TABLES {
        lab.wait_for_route(table, OVERLAY_ROUTE, router, within);
    }
}

/// Waits until r1 has everything and r2 is ready to take over.
fn settled(lab: &Lab) {
    lab.wait_for_verdicts(&lab.r1, "OK", SLACK);
    lab.wait_for_verdicts(&lab.r2, "STANDBY-READY", SLACK);
}

/// Pings of the overlay address from both zones.
fn pings(lab: &Lab) -> [Pings; 2] {
    [0, 1].map(|subnet| lab.client(subnet).ping(OVERLAY))
}

/// Waits until the router answers all pings that are sent from now on.
fn answers<'a>(lab: &Lab, router: &Router, pings: impl IntoIterator<Item = &'a Pings> + Clone) {
    let now = Timestamp::now();
    lab.wait(&format!("router {} answers", router.number), SLACK, |_| {
        pings.clone().into_iter().all(|pings| pings.are_answered_since(now, router.number))
    });
}

/// Waits until pings that are sent from now on are not answered.
fn lost(lab: &Lab, pings: &Pings) {
    let now = Timestamp::now();
    lab.wait("no ping is answered", SLACK, |_| pings.are_lost_since(now));
}

/// The tables of these requests, sorted.
fn tables(requests: &[Request]) -> Vec<&str> {
    let mut tables: Vec<&str> = requests.iter().flat_map(|request| &request.route_tables).map(String::as_str).collect();
    tables.sort_unstable();
    tables
}

/// How many changes of routes each router has requested.
fn claims(lab: &Lab) -> [usize; 2] {
    [&lab.r1, &lab.r2].map(|router| lab.route_claims(Some(router)).len())
}

/// What the router shows for the overlay address's route in a table.
fn shown(router: &Router, table: &str) -> Value {
    let status = router.status();
    let routes = status["groups"][0]["routes"].as_array().cloned().unwrap_or_default();
    routes.into_iter().find(|route| route["table"] == table).unwrap_or_default()
}

fn wait_for_verdict(lab: &Lab, router: &Router, table: &str, verdict: &str, within: Duration) {
    lab.wait(&format!("router {} shows {verdict} for {table}", router.number), within, |_| {
        shown(router, table)["verdict"] == verdict
    });
}

#[test]
fn master_loses_power() {
    lab::scenario_in(lab::two_zones(), BINARY, |lab: &mut Lab| {
        let start = bring_up(lab);
        // No table had the route, so it was created.
        let mut created = lab.route_claims(None);
        created.retain(|claim| claim.action == "CreateRoute" && claim.succeeded());
        assert_eq!(tables(&created), ROUTE_TABLES, "{}", lab.simulator);
        let pings = pings(lab);
        answers(lab, &lab.r1, &pings);
        lab.r1.power_off();
        routes_lead_to(lab, &lab.r2, ELECTION + SLACK);
        answers(lab, &lab.r2, &pings);
        lab.wait_for_verdicts(&lab.r2, "OK", SLACK);
        let replaced = since(start, lab.route_claims(Some(&lab.r2)));
        assert_eq!(tables(&replaced), ROUTE_TABLES, "{}", lab.simulator);
        assert!(replaced.iter().all(|claim| claim.action == "ReplaceRoute" && claim.succeeded()), "{replaced:#?}");
        // The overlay address is never assigned to an ENI.
        assert!(lab.claims(None).is_empty(), "{}", lab.simulator);
    });
}

/// The whole zone of the master: its router runs without EC2, its client is cut off, and the standby loses the address of
/// the endpoint that it uses.
#[test]
fn zone_is_cut_off_and_comes_back() {
    lab::scenario_in(lab::two_zones(), BINARY, |lab: &mut Lab| {
        // getaddrinfo(3) prefers the endpoint's address in the master's zone.
        lab.r2.write("/run/lab/etc/gai.conf", "precedence ::ffff:10.99.0.1/128 100\n");
        bring_up(lab);
        let listener = |request: &Request| request.listener;
        let requests = lab.simulator.requests();
        let of_r2: Vec<_> =
            requests.iter().filter(|r| r.peer.ip() == IpAddr::from(lab.r2.primaries[0])).map(listener).collect();
        assert!(!of_r2.is_empty() && of_r2.iter().all(|listener| *listener == 0), "{}", lab.simulator);
        let pings = pings(lab);
        answers(lab, &lab.r1, &pings);
        let before = claims(lab);
        lab.cut_zone(0);
        routes_lead_to(lab, &lab.r2, ELECTION + SLACK);
        answers(lab, &lab.r2, [&pings[1]]);
        // The client in the zone that is cut off.
        lost(lab, &pings[0]);
        let replaced = without_copies(lab.route_claims(Some(&lab.r2)).split_off(before[1]));
        assert_eq!(tables(&replaced), ROUTE_TABLES, "{}", lab.simulator);
        assert!(replaced.iter().all(|claim| claim.listener == 1), "{replaced:#?}");
        lab.wait_for_verdicts(&lab.r2, "OK", SLACK);
        assert!(lab.r1.has_local(OVERLAY), "still MASTER");
        assert_eq!(claims(lab)[0], before[0], "EC2 is out of its reach");
        lab.heal_zones();
        routes_lead_to(lab, &lab.r1, HEALED + SLACK);
        answers(lab, &lab.r1, &pings);
        settled(lab);
    });
}

#[test]
fn split_brain_and_repair() {
    lab::scenario_in(lab::two_zones(), BINARY, |lab: &mut Lab| {
        bring_up(lab);
        let pings = pings(lab);
        answers(lab, &lab.r1, &pings);
        lab.cut(Cut::Both);
        routes_lead_to(lab, &lab.r2, ELECTION + SLACK);
        answers(lab, &lab.r2, &pings);
        assert!(lab.r1.has_local(OVERLAY) && lab.r2.has_local(OVERLAY), "both are MASTER");
        lab.heal();
        routes_lead_to(lab, &lab.r1, HEALED + SLACK);
        answers(lab, &lab.r1, &pings);
        settled(lab);
        assert!(!lab.r2.has_local(OVERLAY));
    });
}

/// r2 does not hear r1, and r1 hears r2: keepalived writes MASTER_RX_LOWER_PRI once a second. Neither router takes a route more
/// often than once in ten seconds.
#[test]
fn one_way_link() {
    lab::scenario_in(lab::two_zones(), BINARY, |lab: &mut Lab| {
        bring_up(lab);
        let pings = pings(lab);
        let before = claims(lab);
        lab.cut(Cut::From(1));
        lab.wait("r2 claims", ELECTION + SLACK, |lab| claims(lab)[1] > before[1]);
        let began = Instant::now();
        lab.watch("few claims", Duration::from_secs(12), |lab| {
            // Two routes: one at once, and then one in ten seconds.
            let most = 2 * (1 + 1 + began.elapsed().as_secs() as usize / 10);
            claims(lab).iter().zip(before).all(|(claims, before)| *claims <= before + most)
        });
        assert!(claims(lab)[0] > before[0], "the master takes them back: {}", lab.simulator);
        lab.heal();
        lab.wait("BACKUP on r2", ELECTION + SLACK, |lab| !lab.r2.has_local(OVERLAY));
        routes_lead_to(lab, &lab.r1, HEALED + SLACK);
        answers(lab, &lab.r1, &pings);
    });
}

#[test]
fn route_is_stolen_by_a_third_party() {
    lab::scenario_in(lab::two_zones(), BINARY, |lab: &mut Lab| {
        bring_up(lab);
        let pings = pings(lab);
        answers(lab, &lab.r1, &pings);
        let before = lab.route_claims(None).len();
        lab.simulator.steal_route(ROUTE_TABLES[0], OVERLAY_ROUTE, THIRD_PARTY[0]).expect("stolen");
        lost(lab, &pings[0]);
        lab.wait_for_route(ROUTE_TABLES[0], OVERLAY_ROUTE, &lab.r1, SEEN + SLACK);
        answers(lab, &lab.r1, &pings);
        settled(lab);
        let again = lab.route_claims(None).split_off(before);
        assert_eq!(tables(&again), [ROUTE_TABLES[0]], "{again:#?}");
        assert_eq!(again[0].network_interfaces, [lab.r1.enis[0].clone()]);
        assert_eq!(lab.r1.logged(&["ownership lost", ROUTE_TABLES[0], THIRD_PARTY[0]]), 1);
        let missed = pings[1].so_far().iter().filter(|ping| ping.answer.is_none_or(|(_, router)| router != 1)).count();
        assert!(missed <= 5, "the other zone's route was not touched: {missed} pings lost");
    });
}

/// A route table that the master's configuration no longer names: EC2's route stays, and a third party may change it.
#[test]
fn route_table_is_removed_from_the_configuration() {
    lab::scenario_in(lab::two_zones(), BINARY, |lab: &mut Lab| {
        bring_up(lab);
        let pings = pings(lab);
        answers(lab, &lab.r1, &pings);
        let [kept, removed] = ROUTE_TABLES;
        let before = claims(lab);
        let node =
            format!("delete high-availability vrrp group {GROUP} aws-vipa route {OVERLAY_ROUTE} route-table {removed}");
        lab.r1.set([node.as_str()]);
        lab.r1.commit();
        lab.wait("r1 no longer shows it", SLACK, |lab| shown(&lab.r1, removed).is_null());
        let leads_to = |lab: &Lab, eni: &str| {
            let owner = lab.simulator.route_owner(removed, OVERLAY_ROUTE).expect("a table");
            owner.is_some_and(|owner| owner == *eni)
        };
        assert!(leads_to(lab, &lab.r1.enis[0]), "{}", lab.simulator);
        answers(lab, &lab.r1, &pings);
        lab.simulator.steal_route(removed, OVERLAY_ROUTE, THIRD_PARTY[0]).expect("stolen");
        let start = lab.simulator.next_number();
        lost(lab, &pings[1]);
        lab.watch("the third party keeps it", 2 * SEEN, |lab| leads_to(lab, THIRD_PARTY[0]));
        assert_eq!(claims(lab), before, "{}", lab.simulator);
        let mut reads = since(start, lab.simulator.requests());
        reads.retain(|read| read.action == "DescribeRouteTables" && read.peer.ip() == lab.r1.primaries[0]);
        assert!(reads.len() >= 2 && reads.iter().all(|read| read.route_tables == [kept]), "{reads:#?}");
        assert_eq!(lab.r1.logged(&["ownership lost"]), 0);
        assert_eq!(shown(&lab.r1, kept)["verdict"], "OK");
        answers(lab, &lab.r1, [&pings[0]]);
        // The other one is claimed back as before.
        lab.simulator.steal_route(kept, OVERLAY_ROUTE, THIRD_PARTY[0]).expect("stolen");
        lab.wait_for_route(kept, OVERLAY_ROUTE, &lab.r1, SEEN + SLACK);
        answers(lab, &lab.r1, [&pings[0]]);
        assert!(leads_to(lab, THIRD_PARTY[0]), "{}", lab.simulator);
    });
}

/// The target of a route is deleted: that is no ownership loss, and the route is replaced.
#[test]
fn route_is_a_blackhole() {
    lab::scenario_in(lab::two_zones(), BINARY, |lab: &mut Lab| {
        bring_up(lab);
        let pings = pings(lab);
        answers(lab, &lab.r1, &pings);
        lab.simulator.detach_network_interface(THIRD_PARTY[0]).expect("detached");
        lab.simulator.steal_route(ROUTE_TABLES[1], OVERLAY_ROUTE, THIRD_PARTY[0]).expect("stolen");
        let route = lab.simulator.route(ROUTE_TABLES[1], OVERLAY_ROUTE).expect("a table").expect("a route");
        assert!(route.blackhole, "{route:?}");
        lost(lab, &pings[1]);
        lab.wait_for_route(ROUTE_TABLES[1], OVERLAY_ROUTE, &lab.r1, SEEN + SLACK);
        answers(lab, &lab.r1, &pings);
        settled(lab);
        assert_eq!(lab.r1.logged(&["ownership lost"]), 0);
    });
}

/// The instance of the master is stopped: its routes are blackholes, and the standby claims them nevertheless.
#[test]
fn instance_of_the_master_is_stopped() {
    lab::scenario_in(lab::two_zones(), BINARY, |lab: &mut Lab| {
        let start = bring_up(lab);
        let pings = pings(lab);
        answers(lab, &lab.r1, &pings);
        lab.simulator.stop_instance(&lab.r1.instance).expect("stopped");
        for table in ROUTE_TABLES {
            let route = lab.simulator.route(table, OVERLAY_ROUTE).expect("a table").expect("a route");
            assert!(route.blackhole, "{route:?}");
        }
        lab.r1.power_off();
        routes_lead_to(lab, &lab.r2, ELECTION + SLACK);
        answers(lab, &lab.r2, &pings);
        lab.wait_for_verdicts(&lab.r2, "OK", SLACK);
        assert_eq!(tables(&since(start, lab.route_claims(Some(&lab.r2)))), ROUTE_TABLES, "{}", lab.simulator);
    });
}

/// The ENI of the master is deleted: the master reports it, and does not repeat the call.
#[test]
fn network_interface_of_the_master_is_deleted() {
    lab::scenario_in(lab::two_zones(), BINARY, |lab: &mut Lab| {
        bring_up(lab);
        let before = claims(lab)[0];
        lab.simulator.delete_network_interface(&lab.r1.enis[0]).expect("deleted");
        for table in ROUTE_TABLES {
            lab.wait(&format!("DRIFT of {table}"), SEEN + SLACK, |lab| {
                let shown = shown(&lab.r1, table);
                let reason = shown["reason"].as_str().unwrap_or_default();
                shown["verdict"] == "DRIFT" && reason.contains("InvalidNetworkInterfaceID.NotFound")
            });
        }
        // Once more after the ENI was resolved again, for each route.
        lab.watch("no more claims", Duration::from_secs(5), |lab| claims(lab)[0] <= before + 4);
        lab.r1.power_off();
        routes_lead_to(lab, &lab.r2, ELECTION + SLACK);
        lab.wait_for_verdicts(&lab.r2, "OK", SLACK);
    });
}

/// One of the two route tables is deleted: the other one's route moves as before.
#[test]
fn route_table_is_deleted() {
    lab::scenario_in(lab::two_zones(), BINARY, |lab: &mut Lab| {
        let start = bring_up(lab);
        let client = lab.client(0);
        let pings = client.ping(OVERLAY);
        answers(lab, &lab.r1, [&pings]);
        let [kept, deleted] = ROUTE_TABLES;
        lab.simulator.delete_route_table(deleted).expect("deleted");
        let says_so = |lab: &Lab, router: &Router, text: &str| {
            lab.wait(&format!("router {} says so", router.number), SEEN + SLACK, |_| {
                let shown = shown(router, deleted);
                shown["verdict"] == "DRIFT" && shown["reason"].as_str().is_some_and(|reason| reason.contains(text))
            });
        };
        says_so(lab, &lab.r1, "there is no such route table");
        assert_eq!(shown(&lab.r1, kept)["verdict"], "OK");
        // The standby may not have read since.
        lab.r1.power_off();
        lab.wait_for_route(kept, OVERLAY_ROUTE, &lab.r2, ELECTION + SLACK);
        answers(lab, &lab.r2, [&pings]);
        wait_for_verdict(lab, &lab.r2, kept, "OK", SLACK);
        says_so(lab, &lab.r2, "route table");
        let tried = since(start, lab.route_claims(Some(&lab.r2)));
        assert!(tables(&tried).iter().filter(|table| **table == deleted).count() <= 1, "{tried:#?}");
        assert_eq!(tables(&tried).iter().filter(|table| **table == kept).count(), 1, "{tried:#?}");
    });
}

#[test]
fn association_follows_the_master_and_is_taken_back_from_a_third_party() {
    lab::scenario_in(lab::two_zones(), BINARY, |lab: &mut Lab| {
        let (public, allocation) = ELASTIC_IP;
        let start = bring_up_with(lab, &[&format!("elastic-ip {allocation}")]);
        let client = lab.client_in_the_internet();
        let pings = client.ping(public);
        answers(lab, &lab.r1, [&pings]);
        let routes = claims(lab);
        lab.simulator.steal_association(allocation, THIRD_PARTY[0], None).expect("stolen");
        lost(lab, &pings);
        let r1 = lab.r1.enis[0].clone();
        lab.simulator.wait_for_association(allocation, r1, SEEN + SLACK).unwrap_or_else(|error| panic!("{error}"));
        answers(lab, &lab.r1, [&pings]);
        settled(lab);
        assert_eq!((since(start, lab.associations(None)).len(), claims(lab)), (1, routes), "{}", lab.simulator);
        assert_eq!(lab.r1.logged(&["ownership lost", allocation, THIRD_PARTY[0]]), 1);
        lab.r1.power_off();
        let r2 = lab.r2.enis[0].clone();
        let moved = lab.simulator.wait_for_association(allocation, r2, ELECTION + SLACK);
        moved.unwrap_or_else(|error| panic!("{error}"));
        answers(lab, &lab.r2, [&pings]);
        lab.wait_for_verdicts(&lab.r2, "OK", SLACK);
        let [association] = &since(start, lab.associations(Some(&lab.r2)))[..] else { panic!("{}", lab.simulator) };
        assert!(association.associates(allocation) && association.succeeded(), "{association}");
    });
}

/// IAM denies the change of one route table: the other one's route moves, and the status names the missing action.
#[test]
fn denied_in_one_table() {
    lab::scenario_in(lab::two_zones(), BINARY, |lab: &mut Lab| {
        let [denied, allowed] = ROUTE_TABLES;
        let start = bring_up(lab);
        let pings = pings(lab);
        answers(lab, &lab.r1, &pings);
        let deny = |action| On::action(action).instance(&lab.r2.instance).route_table(denied).dry_run(false);
        for action in ["ReplaceRoute", "CreateRoute"] {
            lab.simulator.add_fault(Fault::on(deny(action)).deny());
        }
        lab.r1.power_off();
        lab.wait_for_route(allowed, OVERLAY_ROUTE, &lab.r2, ELECTION + SLACK);
        wait_for_verdict(lab, &lab.r2, allowed, "OK", SLACK);
        lab.wait("the denial is shown", SLACK, |lab| {
            let shown = shown(&lab.r2, denied);
            let reason = shown["reason"].as_str().unwrap_or_default();
            shown["verdict"] == "DRIFT"
                && reason.contains("UnauthorizedOperation")
                && reason.contains("allow ec2:ReplaceRoute")
        });
        let tried = |lab: &Lab| since(start, lab.route_claims(Some(&lab.r2)));
        assert_eq!(tables(&tried(lab)), ROUTE_TABLES, "{}", lab.simulator);
        answers(lab, &lab.r2, [&pings[1]]);
        lost(lab, &pings[0]);
        lab.watch("it rests", Duration::from_secs(3), |lab| tried(lab).len() == 2);
        lab.simulator.clear_faults();
        lab.r2.call(&["vyos-aws-vipa", "force", "claim", GROUP]);
        routes_lead_to(lab, &lab.r2, SLACK);
        answers(lab, &lab.r2, &pings);
        lab.wait_for_verdicts(&lab.r2, "OK", SLACK);
    });
}

/// EC2 refuses a route within the VPC's ranges, and its dry run does not: the standby shows it, and the master does not try.
#[test]
fn overlay_address_is_inside_the_vpc() {
    lab::scenario_in(lab::two_zones(), BINARY, |lab: &mut Lab| {
        let inside = "10.99.7.1/32";
        let table = ROUTE_TABLES[0];
        let aws_vipa = format!("high-availability vrrp group {GROUP} aws-vipa");
        lab.set_global("verify-interval 5");
        for (router, priority) in [(&mut lab.r1, 200), (&mut lab.r2, 100)] {
            router.set_group(GROUP, 10, inside, priority);
            router.set([format!("set {aws_vipa} route {inside} route-table {table}").as_str()]);
            router.commit();
        }
        let words = "within 10.99.0.0/16, a range of the VPC, where EC2 accepts only routes for whole subnets";
        for (router, verdict) in [(&lab.r1, "DRIFT"), (&lab.r2, "STANDBY-NOT-READY")] {
            lab.wait(&format!("router {} shows why", router.number), ELECTION + SLACK, |_| {
                let shown = shown(router, table);
                shown["verdict"] == verdict && shown["reason"].as_str().is_some_and(|reason| reason.contains(words))
            });
            assert_eq!(shown(router, table)["reason_code"], "not-takeable");
        }
        assert_eq!(lab.r2.logged(&["standby not ready", words]), 1);
        let metric = "reason=\"not-takeable\"";
        // They are written at most every 15 s.
        lab.wait("the metrics show it", Duration::from_secs(15) + SLACK, |lab| {
            lab.r2.read("/run/vyos-aws-vipa-agent/metrics.prom").contains(metric)
        });
        assert_eq!(claims(lab), [0, 0], "{}", lab.simulator);
        // The remedy: an address outside the VPC.
        for router in [&mut lab.r1, &mut lab.r2] {
            let group = format!("delete high-availability vrrp group {GROUP} address {inside}");
            router.set([group.as_str(), format!("delete {aws_vipa} route {inside}").as_str()]);
        }
        bring_up(lab);
        let pings = pings(lab);
        answers(lab, &lab.r1, &pings);
        lab.r1.power_off();
        answers(lab, &lab.r2, &pings);
    });
}

/// The standby has the master's `private-address`, which its own ENI does not have; a dry run does not show that.
#[test]
fn private_address_is_that_of_the_other_router() {
    lab::scenario_in(lab::two_zones(), BINARY, |lab: &mut Lab| {
        let (public, allocation) = ELASTIC_IP;
        let elastic_ip = format!("elastic-ip {allocation}");
        let [first, second] = [&lab.r1, &lab.r2].map(|router| router.primaries[0]);
        lab.set_global("verify-interval 5");
        let route = format!("route {OVERLAY_ROUTE} route-table {}", ROUTE_TABLES[0]);
        lab.commit_overlay(&[&route, &format!("{elastic_ip} private-address {first}")]);
        let r1 = lab.r1.enis[0].clone();
        let moved = lab.simulator.wait_for_association(allocation, r1, ELECTION + SLACK);
        moved.unwrap_or_else(|error| panic!("{error}"));
        lab.wait_for_verdicts(&lab.r1, "OK", SLACK);
        let words = format!("{} does not have {first}", lab.r2.enis[0]);
        lab.wait("the standby shows it", SEEN + SLACK, |lab| {
            let shown = &lab.r2.status()["groups"][0]["elastic_ips"][0];
            shown["verdict"] == "STANDBY-NOT-READY"
                && shown["reason_code"] == "no-private-address"
                && shown["reason"].as_str().is_some_and(|reason| reason.contains(&words))
        });
        assert_eq!(lab.r2.logged(&["standby not ready", &words]), 1);
        exports(lab, "elastic-ip", allocation, "no-private-address");
        let node = format!("set high-availability vrrp group {GROUP} aws-vipa {elastic_ip} private-address {second}");
        lab.r2.set([node.as_str()]);
        lab.r2.commit();
        lab.wait_for_verdicts(&lab.r2, "STANDBY-READY", SEEN + SLACK);
        let pings = lab.client_in_the_internet().ping(public);
        answers(lab, &lab.r1, [&pings]);
        lab.r1.power_off();
        answers(lab, &lab.r2, [&pings]);
        lab.wait_for_verdicts(&lab.r2, "OK", SLACK);
    });
}

/// IAM denies the standby a call: a dry run shows it before a failover does, and changes nothing.
#[test]
fn standby_lacks_a_permission() {
    lab::scenario_in(lab::two_zones(), BINARY, |lab: &mut Lab| {
        let (_, allocation) = ELASTIC_IP;
        bring_up_with(lab, &[&format!("elastic-ip {allocation}")]);
        let before = (claims(lab), lab.associations(None).len());
        let deny = On::action("AssociateAddress").instance(&lab.r2.instance).dry_run(true);
        lab.simulator.add_fault(Fault::on(deny).deny());
        // A new agent proves its permissions.
        let restart = |lab: &Lab| {
            lab.r2.kill(Signal::KILL, "vyos-aws-vipa");
            lab.r2.start_agent();
        };
        restart(lab);
        lab.wait("the missing permission is shown", SLACK, |lab| {
            let shown = &lab.r2.status()["groups"][0]["elastic_ips"][0];
            let reason = shown["reason"].as_str().unwrap_or_default();
            shown["verdict"] == "STANDBY-NOT-READY" && reason.contains("allow ec2:AssociateAddress to")
        });
        let logged = ["standby not ready", allocation, "as a dry run has shown", "allow ec2:AssociateAddress to"];
        assert_eq!(lab.r2.logged(&logged), 1);
        for table in ROUTE_TABLES {
            wait_for_verdict(lab, &lab.r2, table, "STANDBY-READY", SLACK);
        }
        lab.simulator.clear_faults();
        restart(lab);
        settled(lab);
        // A dry run that a busy machine did not answer is repeated after about 10 s.
        lab.wait("each permission is proven", Duration::from_secs(15) + SLACK, |lab| {
            let group = &lab.r2.status()["groups"][0];
            let is_proven = |of: &Value| of["permission_proven_at"].is_string();
            ["routes", "elastic_ips"].iter().all(|of| group[of].as_array().is_some_and(|all| all.iter().all(is_proven)))
        });
        assert_eq!((claims(lab), lab.associations(None).len()), before, "{}", lab.simulator);
    });
}

/// EC2 throttles the change of one route table: its claim is retried, and the claim of the other table does not wait for it.
#[test]
fn throttled_in_one_table() {
    lab::scenario_in(lab::two_zones(), BINARY, |lab: &mut Lab| {
        let [throttled, other] = ROUTE_TABLES;
        let start = bring_up(lab);
        let pings = pings(lab);
        answers(lab, &lab.r1, &pings);
        let replace = On::action("ReplaceRoute").instance(&lab.r2.instance).route_table(throttled).dry_run(false);
        lab.simulator.add_fault(Fault::on(replace).throttle().times(4));
        lab.r1.power_off();
        routes_lead_to(lab, &lab.r2, ELECTION + Duration::from_secs(5) + SLACK);
        answers(lab, &lab.r2, &pings);
        lab.wait_for_verdicts(&lab.r2, "OK", SLACK);
        let claims = since(start, lab.route_claims(Some(&lab.r2)));
        let of = |table: &str| -> Vec<&Request> { claims.iter().filter(|c| c.route_tables == [table]).collect() };
        let codes: Vec<Option<&str>> = of(throttled).iter().map(|claim| claim.code()).collect();
        assert_eq!(codes, [&[Some("RequestLimitExceeded"); 4] as &[_], &[Some("Success")]].concat(), "{claims:#?}");
        let [only] = of(other)[..] else { panic!("{claims:#?}") };
        assert!(only.succeeded() && only.arrived < of(throttled)[1].arrived, "{claims:#?}");
    });
}

/// keepalived of the master hangs: its address stays on the interface, and it does not take the routes back before it runs
/// again.
#[test]
fn master_is_frozen() {
    lab::scenario_in(lab::two_zones(), BINARY, |lab: &mut Lab| {
        bring_up(lab);
        let pings = pings(lab);
        answers(lab, &lab.r1, &pings);
        lab.r1.signal_vrrp(Signal::STOP);
        routes_lead_to(lab, &lab.r2, ELECTION + SLACK);
        answers(lab, &lab.r2, &pings);
        let before = claims(lab)[0];
        lab.watch("r2 keeps them", SEEN, |lab| {
            ROUTE_TABLES.iter().all(|table| {
                let owner = lab.simulator.route_owner(table, OVERLAY_ROUTE).expect("a table");
                owner.is_some_and(|owner| owner == *lab.r2.enis[0])
            })
        });
        assert!(lab.r1.has_local(OVERLAY));
        assert_eq!(claims(lab)[0], before, "{}", lab.simulator);
        lab.r1.signal_vrrp(Signal::CONT);
        routes_lead_to(lab, &lab.r1, HEALED + SLACK);
        answers(lab, &lab.r1, &pings);
        settled(lab);
    });
}

/// SIGKILL of the agents: the master's knows what it has without a claim, and the standby's is ready again.
#[test]
fn agents_are_killed_and_started_again() {
    lab::scenario_in(lab::two_zones(), BINARY, |lab: &mut Lab| {
        let (public, allocation) = ELASTIC_IP;
        let start = bring_up_with(lab, &[&format!("elastic-ip {allocation}")]);
        let [first, second] = pings(lab);
        let pings = [first, second, lab.client_in_the_internet().ping(public)];
        answers(lab, &lab.r1, &pings);
        let killed = Timestamp::now();
        for router in [&lab.r1, &lab.r2] {
            router.kill(Signal::KILL, "vyos-aws-vipa");
            router.start_agent();
        }
        settled(lab);
        for pings in &pings {
            let mut missed = pings.so_far();
            missed.retain(|ping| ping.sent >= killed && ping.answer.is_none_or(|(_, router)| router != 1));
            assert!(missed.len() <= 5, "packets need no agent: {missed:#?}");
        }
        let claimed =
            |of: Option<&Router>| (since(start, lab.route_claims(of)).len(), since(start, lab.associations(of)).len());
        assert_eq!(claimed(None), (0, 0), "{}", lab.simulator);
        lab.r1.power_off();
        routes_lead_to(lab, &lab.r2, ELECTION + SLACK);
        answers(lab, &lab.r2, &pings);
        lab.wait_for_verdicts(&lab.r2, "OK", SLACK);
        assert_eq!(claimed(Some(&lab.r2)), (2, 1), "{}", lab.simulator);
    });
}

/// A prefix behind both routers: clients reach it through the master.
#[test]
fn ipv6_prefix() {
    lab::scenario_in(lab::two_zones(), BINARY, |lab: &mut Lab| {
        let prefix = "2001:db8:ff::/64";
        let behind: Ipv6Addr = "2001:db8:ff::1".parse().expect("an address");
        for router in [&lab.r1, &lab.r2] {
            router.call(&["ip", "address", "add", &format!("{behind}/64"), "dev", "lo", "nodad"]);
        }
        let nodes = ROUTE_TABLES.map(|table| format!("route {prefix} route-table {table}"));
        let start = bring_up_with(lab, &nodes.each_ref().map(String::as_str));
        let pings = [0, 1].map(|subnet| lab.client(subnet).ping(behind));
        answers(lab, &lab.r1, &pings);
        lab.r1.power_off();
        for table in ROUTE_TABLES {
            lab.wait_for_route(table, prefix, &lab.r2, ELECTION + SLACK);
        }
        answers(lab, &lab.r2, &pings);
        lab.wait_for_verdicts(&lab.r2, "OK", SLACK);
        assert_eq!(since(start, lab.route_claims(Some(&lab.r2))).len(), 4, "{}", lab.simulator);
    });
}

/// EC2 drops what is not for the ENI's own addresses: the route moves, and packets come through once the check is off.
#[test]
fn source_destination_check_of_the_new_master() {
    lab::scenario_in(lab::two_zones(), BINARY, |lab: &mut Lab| {
        bring_up(lab);
        let pings = pings(lab);
        answers(lab, &lab.r1, &pings);
        lab.simulator.set_source_dest_check(&lab.r2.enis[0], true).expect("an ENI");
        lab.r1.power_off();
        routes_lead_to(lab, &lab.r2, ELECTION + SLACK);
        for pings in &pings {
            lost(lab, pings);
        }
        assert!(lab.r2.has_local(OVERLAY));
        lab.simulator.set_source_dest_check(&lab.r2.enis[0], false).expect("an ENI");
        answers(lab, &lab.r2, &pings);
    });
}

/// The destinations of the scenarios with many routes.
fn prefix(n: usize) -> String {
    format!("10.200.{n}.0/24")
}

/// Both routers in one subnet, with so many routes that lead to r1, and the Elastic IP.
pub fn one_subnet(routes: usize) -> World {
    let world = lab::world().stale_reads(Duration::ZERO).routes_per_table(routes + 1);
    let table = RouteTable::new(ROUTE_TABLES[0], &world.vpcs[0].id).main();
    let r1 = world.instances[0].network_interfaces[0].id.clone();
    let table = (0..routes).fold(table, |table, n| table.route(&prefix(n), &r1));
    let (public, allocation) = ELASTIC_IP;
    world.route_table(table.route("0.0.0.0/0", "igw-0a000000000000001")).elastic_ip(ElasticIp::new(allocation, public))
}

/// One group with an address and all routes of [`one_subnet`]. The routes are r1's from the start, so it only reads them. Returns
/// the number of the next request.
fn bring_up_many(lab: &mut Lab, routes: usize) -> usize {
    for (router, priority) in [(&mut lab.r1, 200), (&mut lab.r2, 100)] {
        router.set_group(GROUP, 10, &format!("{VIP}/24"), priority);
        router.high_availability();
    }
    lab.wait("MASTER", ELECTION + SLACK, |lab| lab.r1.has_local(VIP));
    let table = ROUTE_TABLES[0];
    let node = |n| format!("set high-availability vrrp group {GROUP} aws-vipa route {} route-table {table}", prefix(n));
    let nodes: Vec<String> = (0..routes).map(node).collect();
    for router in [&mut lab.r1, &mut lab.r2] {
        router.set(nodes.iter().map(String::as_str));
        router.commit();
    }
    lab.wait_for_owner(VIP, &lab.r1, SLACK);
    settled(lab);
    lab.simulator.next_number()
}

/// How many routes lead to the router.
fn led_to(lab: &Lab, router: &Router) -> usize {
    let routes = lab.simulator.routes(ROUTE_TABLES[0]).expect("a table");
    routes.iter().filter(|route| route.target.to_string() == router.enis[0]).count()
}

/// Waits until the new master has all routes, and returns its claims of them since `start`. Its claim of the address comes before
/// them, and succeeds.
fn many_moved(lab: &Lab, start: usize, routes: usize, within: Duration) -> Vec<Request> {
    lab.wait("r2 has all routes", within, |lab| led_to(lab, &lab.r2) == routes);
    let claims = since(start, lab.route_claims(Some(&lab.r2)));
    let [address] = &since(start, lab.claims(Some(&lab.r2)))[..] else { panic!("{}", lab.simulator) };
    assert!(address.succeeded() && address.number < claims[0].number, "{address}\n{}", claims[0]);
    claims
}

/// Each call takes 0.6 s, and eight are in flight: so fifty routes take the time of seven calls, one after the other, and not
/// that of more than eight.
#[test]
fn fifty_routes_move_in_the_time_of_eight_calls() {
    lab::scenario_in(one_subnet(50), BINARY, |lab: &mut Lab| {
        let start = bring_up_many(lab, 50);
        lab.simulator.add_fault(Fault::on(On::ec2()).delay_before(2 * CALL));
        lab.r1.power_off();
        let claims = many_moved(lab, start, 50, ELECTION + 8 * 2 * CALL + SLACK);
        assert!(claims.len() == 50 && claims.iter().all(Request::succeeded), "{claims:#?}");
        let performed = |claim: &Request| claim.performed.expect("performed");
        // How many calls came one after the other at most, until this one.
        let mut depths: Vec<usize> = Vec::new();
        for claim in &claims {
            let before = claims.iter().zip(&depths).filter(|(other, _)| performed(other) <= claim.arrived);
            depths.push(1 + before.map(|(_, depth)| *depth).max().unwrap_or_default());
        }
        assert!(depths.iter().max() <= Some(&8), "{depths:?}");
        let in_flight = |claim: &Request| {
            claims.iter().filter(|other| other.arrived <= claim.arrived && performed(other) > claim.arrived).count()
        };
        assert!(claims.iter().map(in_flight).max() <= Some(8), "{claims:#?}");
    });
}

/// SIGKILL of the agent in the middle of a move: the new one reads what is its own already, and claims the rest.
#[test]
fn agent_is_killed_in_the_middle_of_a_move() {
    lab::scenario_in(one_subnet(50), BINARY, |lab: &mut Lab| {
        let start = bring_up_many(lab, 50);
        lab.simulator.add_fault(Fault::on(On::ec2()).delay_before(CALL));
        lab.r1.power_off();
        lab.wait("some routes have moved", ELECTION + SLACK, |lab| led_to(lab, &lab.r2) >= 8);
        lab.r2.kill(Signal::KILL, "vyos-aws-vipa");
        // All requests: the new agent has other connections.
        let is_later = |claim: &Request| claim.number >= start;
        let claims = |lab: &Lab| lab.route_claims(Some(&lab.r2)).into_iter().filter(is_later).count();
        assert!(claims(lab) < 50, "all were claimed before: {}", lab.simulator);
        lab.r2.start_agent();
        lab.wait("r2 has all routes", 8 * CALL + 2 * SLACK, |lab| led_to(lab, &lab.r2) == 50);
        lab.wait_for_verdicts(&lab.r2, "OK", SLACK);
        // Requests of the killed agent that EC2 performs later: their routes may be claimed twice.
        assert!((50..=50 + 8).contains(&claims(lab)), "{}: {}", claims(lab), lab.simulator);
    });
}

/// EC2's own limit of 50 calls at once and 5 a second (EC2 API, "Request throttling"): what exceeds it waits.
#[test]
fn two_hundred_routes_move_within_the_rate_limit_of_ec2() {
    lab::scenario_in(one_subnet(200), BINARY, |lab: &mut Lab| {
        let start = bring_up_many(lab, 200);
        lab.r1.power_off();
        let claims = many_moved(lab, start, 200, ELECTION + Duration::from_secs(200 / 5) + SLACK);
        let refused = claims.iter().filter(|claim| !claim.succeeded()).count();
        assert!(refused <= 2, "{refused} of {}: {}", claims.len(), lab.simulator);
        lab.wait_for_verdicts(&lab.r2, "OK", 2 * SLACK);
    });
}

/// Sets a route of [`one_subnet`] and the Elastic IP on both routers.
pub fn set_all_kinds(lab: &mut Lab) {
    let (_, allocation) = ELASTIC_IP;
    let nodes = [format!("route {} route-table {}", prefix(0), ROUTE_TABLES[0]), format!("elastic-ip {allocation}")];
    let nodes = nodes.map(|node| format!("set high-availability vrrp group {GROUP} aws-vipa {node}"));
    for router in [&mut lab.r1, &mut lab.r2] {
        router.set(nodes.iter().map(String::as_str));
    }
}

/// All kinds at once: no call waits for the answer to another kind's.
#[test]
fn address_route_and_elastic_ip_at_once() {
    lab::scenario_in(one_subnet(1), BINARY, |lab: &mut Lab| {
        let (public, allocation) = ELASTIC_IP;
        set_all_kinds(lab);
        lab.bring_up();
        settled(lab);
        let start = lab.simulator.next_number();
        let client = lab.client_in_the_internet();
        let pings = client.ping(public);
        answers(lab, &lab.r1, [&pings]);
        // Longer than a busy machine takes to send all three.
        lab.simulator.add_fault(Fault::on(On::ec2()).delay_before(2 * CALL));
        lab.r1.power_off();
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        lab.wait_for_route(ROUTE_TABLES[0], &prefix(0), &lab.r2, SLACK);
        let r2 = lab.r2.enis[0].clone();
        lab.simulator.wait_for_association(allocation, r2, SLACK).unwrap_or_else(|error| panic!("{error}"));
        answers(lab, &lab.r2, [&pings]);
        lab.wait_for_verdicts(&lab.r2, "OK", SLACK);
        let r2 = Some(&lab.r2);
        let all = since(start, [lab.claims(r2), lab.route_claims(r2), lab.associations(r2)].concat());
        let [address, others @ ..] = &all[..] else { panic!("{}", lab.simulator) };
        assert!(all.len() == 3 && all.iter().all(Request::succeeded), "{all:#?}");
        let answered = all.iter().filter_map(|request| request.performed).min().expect("performed");
        assert!(all.iter().all(|request| request.arrived < answered), "one waited: {all:#?}");
        assert!(others.iter().all(|other| address.number < other.number), "the address first: {all:#?}");
    });
}
