//! Routers in two availability zones: routes and Elastic IPs follow the master, and packets of clients follow them.

use lab::simulator::Request;
use lab::{Lab, OVERLAY, OVERLAY_ROUTE, Pings, ROUTE_TABLES, Router};

use crate::{BINARY, ELECTION, SLACK};

/// The overlay address, with a route in the table of each zone. Returns when r1 has both and r2 is ready to take over.
fn bring_up(lab: &mut Lab) {
    let routes = ROUTE_TABLES.map(|table| format!("route {OVERLAY_ROUTE} route-table {table}"));
    lab.commit_overlay(&routes.each_ref().map(String::as_str));
    routes_lead_to(lab, &lab.r1);
    lab.wait_for_verdicts(&lab.r1, "OK", SLACK);
    lab.wait_for_verdicts(&lab.r2, "STANDBY-READY", SLACK);
}

/// Waits until the overlay address leads to the router in both zones.
fn routes_lead_to(lab: &Lab, router: &Router) {
    for table in ROUTE_TABLES {
        lab.wait_for_route(table, OVERLAY_ROUTE, router, ELECTION + SLACK);
    }
}

/// Waits until the router answers all pings.
fn answers(lab: &Lab, router: &Router, pings: &[&Pings]) {
    lab.wait(&format!("router {} answers", router.number), SLACK, |_| {
        pings.iter().all(|pings| pings.answered_by() == Some(router.number))
    });
}

/// The tables of these requests, in their order.
fn tables(requests: &[Request]) -> Vec<&str> {
    let mut tables: Vec<&str> = requests.iter().flat_map(|request| &request.route_tables).map(String::as_str).collect();
    tables.sort_unstable();
    tables
}

#[test]
fn master_loses_power() {
    lab::scenario_in(lab::two_zones(), BINARY, |lab: &mut Lab| {
        bring_up(lab);
        // No table has the route yet, so it is created.
        let mut claims = lab.route_claims(Some(&lab.r1));
        claims.retain(Request::succeeded);
        assert_eq!(tables(&claims), ROUTE_TABLES, "{}", lab.simulator);
        assert!(claims.iter().all(|claim| claim.action == "CreateRoute"), "{claims:#?}");
        let clients = [0, 1].map(|subnet| lab.client(subnet));
        let pings = clients.each_ref().map(|client| client.ping(OVERLAY));
        answers(lab, &lab.r1, &pings.each_ref());
        lab.r1.power_off();
        routes_lead_to(lab, &lab.r2);
        answers(lab, &lab.r2, &pings.each_ref());
        lab.wait_for_verdicts(&lab.r2, "OK", SLACK);
        let claims = lab.route_claims(Some(&lab.r2));
        assert_eq!(tables(&claims), ROUTE_TABLES, "{}", lab.simulator);
        assert!(claims.iter().all(Request::succeeded), "{claims:#?}");
        // The overlay address is never assigned to an ENI.
        assert!(lab.claims(None).is_empty(), "{}", lab.simulator);
    });
}
