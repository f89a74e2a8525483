//! Routers in two availability zones: routes follow the master, and the clients' pings follow the routes.

use jiff::Timestamp;
use lab::simulator::{Request, RouteMove};
use lab::{GROUP, Lab, OVERLAY, OVERLAY_ROUTE, Pings, ROUTE_TABLES, Router};

use crate::screen::{configuration, heading, milliseconds, timeline, wait};
use crate::witness::Witness;
use crate::{Demo, SLACK, became_master, come_back, commit, log_since, show_log, show_status, vrrp_took};

/// What was measured, for the summary.
struct Failover {
    whole: String,
    vrrp: String,
    ours: String,
    /// The pings that each client lost.
    lost: [usize; 2],
}

/// # Panics
/// If something else happens than expected.
pub fn show(demo: &Demo, lab: &mut Lab) {
    println!(
        "Two routers with the real keepalived in two availability zones, a client in each\n\
         zone, all in namespaces of their own, and a simulated EC2 that answers at once.\n\
         Packets between the zones follow its route tables, and its endpoint has an\n\
         address in each zone. `set`, `commit` and `show` do here what VyOS does with them."
    );
    two_routers(demo, lab);
    let pings = [0, 1].map(|zone| lab.client(zone).ping(OVERLAY));
    wait(lab, "both clients reach the overlay address", SLACK, |lab| answers(&lab.r1, &pings));
    let second = Witness::of(&lab.r2);
    let power_cut = power_cut(demo, lab, &second, &pings);
    let back = Timestamp::now();
    come_back(lab, |lab| is_as_it_was(lab) && answers(&lab.r1, &pings));
    let lost_at_return = pings.each_ref().map(|pings| lost(pings, back));
    println!("\nLost pings meanwhile: {} in zone 1, {} in zone 2.", lost_at_return[0], lost_at_return[1]);
    let zone_cut = zone_cut(lab, &second, &pings);

    heading("In the end");
    [&lab.r1, &lab.r2].into_iter().for_each(show_status);
    assert_eq!(routes_say_the_cli(demo, &lab.r1), [lab.r1.enis[0].as_str(); 2], "{:?}", lab.simulator);

    heading("Summary");
    println!(
        "Power cut    Router 1 lost power. Both routes led to router 2 {} ms after\n\
         \x20            its last advertisement. VRRP took {} ms to make router 2\n\
         \x20            master, and {} ms later its first claim was at EC2. The\n\
         \x20            clients lost {} and {} pings, of ten a second.\n\
         Return       Router 1 became master again. The clients lost {} and {} pings.\n\
         Zone cut     Zone 1 was cut off with its router, its client and the address of\n\
         \x20            EC2's endpoint there. Both routes led to router 2 {} ms\n\
         \x20            after the last advertisement; the client in zone 2 lost {} pings.\n\
         Routes       Both lead to {}, says the AWS CLI:\n\
         \x20            router 1, which is the master.",
        power_cut.whole,
        power_cut.vrrp,
        power_cut.ours,
        power_cut.lost[0],
        power_cut.lost[1],
        lost_at_return[0],
        lost_at_return[1],
        zone_cut.whole,
        zone_cut.lost[1],
        lab.r1.enis[0]
    );
}

fn two_routers(demo: &Demo, lab: &mut Lab) {
    heading("1. Two routers in two zones, with one overlay address");
    println!(
        "10.255.0.1 is outside the VPC's ranges, so it can be the same in both zones. The\n\
         nodes of `route` make the two route tables lead to the master. The very last node\n\
         is only for the certificate of the simulator.\n"
    );
    let routes = ROUTE_TABLES.map(|table| {
        format!("set high-availability vrrp group {GROUP} aws-vipa route {OVERLAY_ROUTE} route-table {table}")
    });
    for (router, priority) in [(&mut lab.r1, 200), (&mut lab.r2, 100)] {
        let mut commands = router.group_commands(GROUP, 10, OVERLAY_ROUTE, priority);
        // In place of the empty node.
        let node = commands.iter().position(|command| command.ends_with(" aws-vipa")).expect("the node");
        commands.splice(node..=node, routes.clone());
        commands.iter().for_each(|command| configuration(router, command));
        router.set(commands.iter().map(String::as_str));
        commit(router);
    }
    wait(lab, "VRRP elects a master, which claims the routes", SLACK, is_as_it_was);
    [&lab.r1, &lab.r2].into_iter().for_each(show_status);
    println!("\nThe AWS CLI, with the role of router 2, agrees:");
    assert_eq!(routes_say_the_cli(demo, &lab.r2), [lab.r1.enis[0].as_str(); 2], "{:?}", lab.simulator);
    println!();
}

fn power_cut(demo: &Demo, lab: &mut Lab, second: &Witness, pings: &[Pings; 2]) -> Failover {
    heading("2. Router 1 loses power");
    heard(lab, second);
    let cut = Timestamp::now();
    lab.r1.power_off();
    wait(lab, "router 2 notices, and takes over", SLACK, |lab| lead_to(lab, &lab.r2));
    wait(lab, "both clients reach router 2", SLACK, |lab| answers(&lab.r2, pings));
    let failover = taken_over(lab, second, pings, (cut, "router 1 loses power"), &[0, 1]);
    wait(lab, "a read confirms it", SLACK, |lab| shows(&lab.r2, "OK"));
    show_status(&lab.r2);
    show_log(&lab.r2, &log_since(&lab.r2, cut));
    assert_eq!(routes_say_the_cli(demo, &lab.r2), [lab.r2.enis[0].as_str(); 2], "{:?}", lab.simulator);
    failover
}

fn zone_cut(lab: &Lab, second: &Witness, pings: &[Pings; 2]) -> Failover {
    heading("4. Zone 1 is cut off");
    println!(
        "Router 1, the client beside it and the endpoint's address in zone 1 are out of\n\
         reach. Router 1 lives on, and is MASTER without EC2.\n"
    );
    heard(lab, second);
    let cut = Timestamp::now();
    lab.cut_zone(0);
    wait(lab, "router 2 notices, and takes over", SLACK, |lab| lead_to(lab, &lab.r2));
    wait(lab, "the client in zone 2 reaches router 2", SLACK, |lab| answers(&lab.r2, &pings[1..]));
    let failover = taken_over(lab, second, pings, (cut, "zone 1 is cut off"), &[1]);
    assert!(lab.r1.has_local(OVERLAY), "router 1 is MASTER");
    println!("The zone is connected again. Router 1 hears router 2, or reads the owner.\n");
    let healed = Timestamp::now();
    lab.heal_zones();
    wait(lab, "router 1 claims the routes back", 2 * SLACK, |lab| lead_to(lab, &lab.r1));
    let mut events = vec![(healed, "zone 1 is connected".to_owned())];
    events.extend(claims(lab, &lab.r1, healed));
    events.extend(moves(lab, &lab.r1, healed));
    timeline(&events);
    wait(lab, "all is as it was", 2 * SLACK, |lab| is_as_it_was(lab) && answers(&lab.r1, pings));
    failover
}

fn heard(lab: &Lab, second: &Witness) {
    wait(lab, "router 2 hears router 1", SLACK, |lab| {
        second.heard.last(Timestamp::now(), |from| *from == lab.r1.primaries[0]).is_some()
    });
}

/// Shows how router 2 took over from `cut` on, with the pings of the clients in these zones.
fn taken_over(
    lab: &Lab,
    second: &Witness,
    pings: &[Pings; 2],
    (cut, what): (Timestamp, &str),
    zones: &[usize],
) -> Failover {
    let is_logged = |lab: &Lab| log_since(&lab.r2, cut).iter().any(|(_, line)| line.contains("to=MASTER"));
    lab.wait("the agent of router 2 logs the event", SLACK, is_logged);
    let master = became_master(second, cut, &log_since(&lab.r2, cut));
    let last = second.heard.last(master, |from| *from == lab.r1.primaries[0]).expect("it was heard before");
    let (claims, moves) = (claims(lab, &lab.r2, cut), moves(lab, &lab.r2, cut));
    let (first, moved) = (claims[0].0, moves[moves.len() - 1].0);
    let mut events = vec![
        (last, "the last advertisement of router 1 reaches router 2".to_owned()),
        (cut, what.to_owned()),
        (master, "keepalived on router 2 writes MASTER".to_owned()),
    ];
    events.extend(claims);
    events.extend(moves);
    for zone in zones {
        let (so_far, place) = (pings[*zone].so_far(), zone + 1);
        let after = || so_far.iter().filter(|ping| ping.sent >= cut);
        let missing = after().find(|ping| ping.answer.is_none());
        let again = after().find_map(|ping| ping.answer.filter(|(_, router)| *router == lab.r2.number));
        events.extend(missing.map(|ping| (ping.sent, format!("the client in zone {place} sends a ping that is lost"))));
        events.extend(again.map(|(at, _)| (at, format!("router 2 answers the client in zone {place}"))));
    }
    timeline(&events);
    let failover = Failover {
        whole: milliseconds(last, moved),
        vrrp: milliseconds(last, master),
        ours: milliseconds(master, first),
        lost: pings.each_ref().map(|pings| lost(pings, cut)),
    };
    println!(
        "{}vyos-aws-vipa  {} ms to the first claim\n\
         EC2            {} ms for both: the simulator's; the real one takes its own time",
        vrrp_took(&failover.vrrp),
        failover.ours,
        milliseconds(first, moved)
    );
    for zone in zones {
        println!("Client         the one in zone {} lost {} pings, of ten a second", zone + 1, failover.lost[*zone]);
    }
    println!();
    failover
}

/// The pings from `start` on that were not answered.
fn lost(pings: &Pings, start: Timestamp) -> usize {
    pings.so_far().iter().filter(|ping| ping.sent >= start && ping.answer.is_none()).count()
}

/// The router's changes of routes from `start` on.
fn claims(lab: &Lab, router: &Router, start: Timestamp) -> Vec<(Timestamp, String)> {
    let claims = lab.route_claims(Some(router)).into_iter().filter(|claim| claim.arrived_wall >= start);
    let what = |claim: &Request| {
        let Request { action, route_tables, .. } = claim;
        format!("a claim of router {} is at EC2: {action}, {}", router.number, route_tables.join(", "))
    };
    claims.map(|claim| (claim.arrived_wall, what(&claim))).collect()
}

/// The moves of routes to the router from `start` on.
fn moves(lab: &Lab, router: &Router, start: Timestamp) -> Vec<(Timestamp, String)> {
    let is_to = |moved: &RouteMove| moved.to.as_ref().is_some_and(|target| target.to_string() == router.enis[0]);
    let moves = lab.simulator.route_moves().into_iter().filter(|moved| moved.wall >= start && is_to(moved));
    let what = |moved: &RouteMove| {
        let RouteMove { destination, route_table, .. } = moved;
        format!("{destination} in {route_table} leads to router {}", router.number)
    };
    moves.map(|moved| (moved.wall, what(&moved))).collect()
}

/// Whether the router answers these clients.
fn answers(router: &Router, pings: &[Pings]) -> bool {
    pings.iter().all(|pings| pings.answered_by() == Some(router.number))
}

/// Whether the overlay address leads to the router in both zones.
fn lead_to(lab: &Lab, router: &Router) -> bool {
    ROUTE_TABLES.iter().all(|table| {
        let owner = lab.simulator.route_owner(table, OVERLAY_ROUTE).expect("a route table");
        owner.is_some_and(|owner| owner == *router.enis[0])
    })
}

/// Whether the router shows this verdict for both routes.
fn shows(router: &Router, verdict: &str) -> bool {
    lab::verdicts(&router.status()) == [verdict; 2]
}

/// Router 1 is master and has the routes, router 2 is ready, and both report it.
fn is_as_it_was(lab: &Lab) -> bool {
    lead_to(lab, &lab.r1) && shows(&lab.r1, "OK") && shows(&lab.r2, "STANDBY-READY")
}

/// Where the AWS CLI on the router, with the role of its instance, reports the overlay address to lead: the ENI, for each
/// route table.
fn routes_say_the_cli(demo: &Demo, router: &Router) -> Vec<String> {
    let said = demo.ask(
        router,
        &[
            ["ec2", "describe-route-tables"],
            ["--region", "eu-west-1"],
            ["--ca-bundle", "/run/lab/ca.pem"],
            ["--query", &format!("RouteTables[].Routes[?DestinationCidrBlock=='{OVERLAY_ROUTE}'].NetworkInterfaceId")],
            ["--output", "text"],
        ],
    );
    said.split_whitespace().map(str::to_owned).collect()
}
