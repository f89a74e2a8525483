//! The calls about routes: ReplaceRoute, CreateRoute and DescribeRouteTables.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_ec2::types::{self, Filter, RouteOrigin, RouteState, RouteTable};
use vipa_core::model::ec2::{Acknowledgement, CallError, Failure};
use vipa_core::model::ids::{EniId, RouteTableId};
use vipa_core::model::resource::{Holder, NotTakeable, Prefix, Resource, Route};

use super::assumptions::MAX_FILTER_VALUES;
use super::ec2::{Bound, Ec2, Pages, owner, permitted, request_id, unreadable};
use super::errors::failed;
use super::withdrawal::is_withdrawn;

/// Route tables in a page: the most that the API allows.
const TABLES_PER_PAGE: usize = 100;

impl Ec2 {
    /// Makes a route lead to the ENI: ReplaceRoute; CreateRoute if the table has no route with exactly this destination.
    ///
    /// # Errors
    /// See [`CallError`]. After [`ErrorClass::TimedOut`](vipa_core::model::ec2::ErrorClass::TimedOut), and after
    /// `Connection` and `Answer`, EC2 may have performed the claim, or may still perform it.
    pub async fn claim_route(
        &self,
        route: &Route,
        eni: &EniId,
        timeout: Duration,
    ) -> Result<Acknowledgement, CallError> {
        let bound = Bound::after(timeout);
        match self.replace_route(route, eni, false, bound).await {
            Err(error) if error.code() == "InvalidRoute.NotFound" && !is_withdrawn() => {
                match self.create_route(route, eni, false, bound).await {
                    Err(error) if error.code() == "RouteAlreadyExists" => {
                        self.claim_created_route(route, eni, error, bound).await
                    }
                    result => result,
                }
            }
            result => result,
        }
    }

    /// Claims a route that CreateRoute has found: the other router has created it in between, or the first of two copies of
    /// the request has. `error` is that of CreateRoute.
    async fn claim_created_route(
        &self,
        route: &Route,
        eni: &EniId,
        error: CallError,
        bound: Bound,
    ) -> Result<Acknowledgement, CallError> {
        let Ok(holders) = self.routes_within(std::slice::from_ref(route), bound).await else {
            return Err(error);
        };
        match holders.get(&Resource::Route(route.clone())) {
            // A route that leads to a gateway by now is never replaced.
            Some(Holder::NotTakeable(_)) => Err(error),
            Some(Holder::Eni(owner)) if owner.eni == *eni => {
                Ok(Acknowledgement { request_id: error.request_id, unlisted: BTreeSet::new() })
            }
            _ if is_withdrawn() => Err(error),
            _ => self.replace_route(route, eni, false, bound).await,
        }
    }

    /// Whether EC2 permits to claim the route for the ENI, by dry runs, which change nothing: ReplaceRoute, and CreateRoute if
    /// the table has no such route, as `creates` says or EC2 answers.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn dry_run_route(
        &self,
        route: &Route,
        eni: &EniId,
        creates: bool,
        timeout: Duration,
    ) -> Result<(), CallError> {
        let bound = Bound::after(timeout);
        match permitted(self.replace_route(route, eni, true, bound).await) {
            Ok(()) if creates => {}
            Err(error) if error.code() == "InvalidRoute.NotFound" => {}
            result => return result,
        }
        match permitted(self.create_route(route, eni, true, bound).await) {
            // ReplaceRoute would take it.
            Err(error) if error.code() == "RouteAlreadyExists" => Ok(()),
            result => result,
        }
    }

    async fn replace_route(
        &self,
        route: &Route,
        eni: &EniId,
        dry_run: bool,
        bound: Bound,
    ) -> Result<Acknowledgement, CallError> {
        let (ipv4, ipv6) = destination(route.destination);
        let answer = self
            .attempt("ec2:ReplaceRoute", bound, |client| {
                client
                    .replace_route()
                    .set_dry_run(dry_run.then_some(true))
                    .route_table_id(route.table.as_str())
                    .set_destination_cidr_block(ipv4.clone())
                    .set_destination_ipv6_cidr_block(ipv6.clone())
                    .network_interface_id(eni.as_str())
                    .send()
            })
            .await?;
        Ok(Acknowledgement { request_id: request_id(&answer), unlisted: BTreeSet::new() })
    }

    async fn create_route(
        &self,
        route: &Route,
        eni: &EniId,
        dry_run: bool,
        bound: Bound,
    ) -> Result<Acknowledgement, CallError> {
        let (ipv4, ipv6) = destination(route.destination);
        let answer = self
            .attempt("ec2:CreateRoute", bound, |client| {
                client
                    .create_route()
                    .set_dry_run(dry_run.then_some(true))
                    .route_table_id(route.table.as_str())
                    .set_destination_cidr_block(ipv4.clone())
                    .set_destination_ipv6_cidr_block(ipv6.clone())
                    .network_interface_id(eni.as_str())
                    .send()
            })
            .await?;
        Ok(Acknowledgement { request_id: request_id(&answer), unlisted: BTreeSet::new() })
    }

    /// Where the routes lead: DescribeRouteTables, with 200 tables in its filter and 100 in a page; all requests together are
    /// bounded by `timeout`. If an answer is too long, each half of its tables is read on its own. A route that its table does
    /// not have is absent.
    ///
    /// # Errors
    /// See [`CallError`]. An error in one page fails the whole call.
    pub async fn routes(&self, routes: &[Route], timeout: Duration) -> Result<BTreeMap<Resource, Holder>, CallError> {
        self.routes_within(routes, Bound::after(timeout)).await
    }

    /// The same within a bound that has begun already.
    async fn routes_within(&self, routes: &[Route], bound: Bound) -> Result<BTreeMap<Resource, Holder>, CallError> {
        let mut wanted: BTreeMap<&RouteTableId, Vec<&Route>> = BTreeMap::new();
        for route in routes {
            wanted.entry(&route.table).or_default().push(route);
        }
        let mut holders = BTreeMap::new();
        let tables: Vec<&RouteTableId> = wanted.keys().copied().collect();
        let mut missing: BTreeSet<&RouteTableId> = tables.iter().copied().collect();
        for chunk in tables.chunks(MAX_FILTER_VALUES) {
            let mut parts = vec![chunk];
            while let Some(part) = parts.pop() {
                let read = self.route_tables(part, bound, |table| {
                    let id: RouteTableId = table.route_table_id().unwrap_or_default().try_into().map_err(unreadable)?;
                    for route in wanted.get(&id).into_iter().flatten() {
                        if let Some(holder) = holder(&table, route)? {
                            holders.insert(Resource::Route((*route).clone()), holder);
                        }
                    }
                    missing.remove(&id);
                    Ok(())
                });
                match (read.await, part) {
                    (Ok(()), _) => {}
                    (Err(error), [table]) if error.failure == Failure::TooLong => {
                        return Err(failed(
                            error.failure,
                            format!("EC2's answer about {table} is too long: {}", error.message),
                        ));
                    }
                    // EC2 lists each table with all its routes.
                    (Err(error), _) if error.failure == Failure::TooLong => {
                        let (first, second) = part.split_at(part.len() / 2);
                        parts.extend([second, first]);
                    }
                    (Err(error), _) => return Err(error),
                }
            }
        }
        for route in routes.iter().filter(|route| missing.contains(&route.table)) {
            holders.insert(Resource::Route(route.clone()), Holder::NotTakeable(NotTakeable::NoSuchTable));
        }
        Ok(holders)
    }

    /// Reads every page of DescribeRouteTables about these tables. Each table goes to `keep` as soon as its page has arrived.
    async fn route_tables(
        &self,
        ids: &[&RouteTableId],
        bound: Bound,
        mut keep: impl FnMut(RouteTable) -> Result<(), CallError>,
    ) -> Result<(), CallError> {
        let ids = ids.iter().map(ToString::to_string).collect();
        let filter = Filter::builder().name("route-table-id").set_values(Some(ids)).build();
        let mut pages = Pages::new("route tables", TABLES_PER_PAGE);
        while let Some(token) = pages.next()? {
            let answer = self
                .attempt("ec2:DescribeRouteTables", bound, |client| {
                    client
                        .describe_route_tables()
                        .filters(filter.clone())
                        .max_results(TABLES_PER_PAGE as i32)
                        .set_next_token(token.clone())
                        .send()
                })
                .await?;
            pages.items(answer.route_tables, answer.next_token)?.into_iter().try_for_each(&mut keep)?;
        }
        Ok(())
    }
}

/// `DestinationCidrBlock` and `DestinationIpv6CidrBlock`.
fn destination(prefix: Prefix) -> (Option<String>, Option<String>) {
    let text = prefix.to_string();
    if prefix.is_ipv4() { (Some(text), None) } else { (None, Some(text)) }
}

/// The IPv4 or IPv6 prefix of a route; none if it has a prefix list.
fn prefix(route: &types::Route) -> Option<Prefix> {
    route.destination_cidr_block().or(route.destination_ipv6_cidr_block())?.parse().ok()
}

/// The range of the VPC within which EC2 refuses to create a route for the destination. Its `local` routes, whatever their
/// target is now, are the VPC's ranges. Within them EC2 accepts only routes for whole subnets (VPC User Guide, "Routing
/// for a middlebox appliance"). A prefix that is large enough to be one is not judged: the table does not list subnets.
fn vpc_range_around(table: &RouteTable, destination: Prefix) -> Option<Prefix> {
    let is_local = |route: &&types::Route| route.origin() == Some(&RouteOrigin::CreateRouteTable);
    let mut ranges = table.routes().iter().filter(is_local).filter_map(prefix);
    ranges.find(|range| destination.is_smaller_than_a_subnet() && destination.is_within(*range))
}

/// Where a route of the table leads; none if it is absent.
fn holder(table: &RouteTable, route: &Route) -> Result<Option<Holder>, CallError> {
    let is_it = |found: &&types::Route| prefix(found) == Some(route.destination);
    let is_propagated = |found: &types::Route| {
        matches!(found.origin(), Some(RouteOrigin::EnableVgwRoutePropagation | RouteOrigin::Advertisement))
    };
    // A table may have a static and a propagated route for one prefix: EC2 uses the static one, and ReplaceRoute replaces it.
    let found = table.routes().iter().filter(is_it).min_by_key(|found| is_propagated(found));
    let Some(found) = found else {
        return Ok(
            vpc_range_around(table, route.destination).map(|range| Holder::NotTakeable(NotTakeable::WithinVpc(range)))
        );
    };
    if is_propagated(found) {
        return Ok(Some(Holder::NotTakeable(NotTakeable::Propagated)));
    }
    if found.state() == Some(&RouteState::Blackhole) {
        return Ok(Some(Holder::Blackhole));
    }
    match found.network_interface_id() {
        Some(eni) => Ok(Some(Holder::Eni(owner(eni, found.instance_id())?))),
        None => Ok(Some(Holder::NotTakeable(NotTakeable::LeadsTo(target(found))))),
    }
}

/// The target of a route that leads to no ENI.
fn target(route: &types::Route) -> String {
    let known = [
        route.gateway_id(),
        route.nat_gateway_id(),
        route.transit_gateway_id(),
        route.vpc_peering_connection_id(),
        route.egress_only_internet_gateway_id(),
        route.local_gateway_id(),
        route.carrier_gateway_id(),
        route.core_network_arn(),
        route.odb_network_arn(),
        route.instance_id(),
    ];
    known.into_iter().flatten().next().unwrap_or("an unknown target").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a table with these routes shows of the route for the destination.
    fn shown(destination: &str, routes: &[types::Route]) -> Option<Holder> {
        let route = Route {
            table: "rtb-0a000000000000001".try_into().expect("a table"),
            destination: destination.parse().expect("a prefix"),
        };
        let table = RouteTable::builder().set_routes(Some(routes.to_vec())).build();
        holder(&table, &route).expect("readable")
    }

    #[test]
    fn a_static_route_takes_precedence_over_a_propagated_one() {
        let to = |origin| types::Route::builder().destination_cidr_block("10.200.0.0/16").origin(origin);
        let vgw = to(RouteOrigin::EnableVgwRoutePropagation).gateway_id("vgw-0a000000000000001").build();
        let eni = to(RouteOrigin::CreateRoute).network_interface_id("eni-0a000000000000001").build();
        let propagated = Some(Holder::NotTakeable(NotTakeable::Propagated));
        assert_eq!(shown("10.200.0.0/16", std::slice::from_ref(&vgw)), propagated);
        for routes in [[vgw.clone(), eni.clone()], [eni, vgw]] {
            assert!(matches!(shown("10.200.0.0/16", &routes), Some(Holder::Eni(_))), "{routes:?}");
        }
    }

    #[test]
    fn a_route_within_the_vpc_that_is_no_whole_subnet_cannot_be_created() {
        let local = |origin| types::Route::builder().origin(origin);
        let routes = [
            local(RouteOrigin::CreateRouteTable).destination_cidr_block("10.99.0.0/16").gateway_id("local").build(),
            // The target of a local route can be changed.
            local(RouteOrigin::CreateRouteTable)
                .destination_cidr_block("10.98.0.0/16")
                .network_interface_id("eni-0a000000000000001")
                .build(),
            local(RouteOrigin::CreateRouteTable)
                .destination_ipv6_cidr_block("2001:db8::/56")
                .gateway_id("local")
                .build(),
            local(RouteOrigin::CreateRoute)
                .destination_cidr_block("10.97.0.0/16")
                .network_interface_id("eni-0a000000000000001")
                .build(),
            local(RouteOrigin::CreateRoute)
                .destination_cidr_block("10.99.8.1/32")
                .network_interface_id("eni-0a000000000000001")
                .build(),
        ];
        for (destination, range) in [
            ("10.99.7.1/32", Some("10.99.0.0/16")),
            ("10.98.7.0/29", Some("10.98.0.0/16")),
            ("2001:db8:0:1::1/128", Some("2001:db8::/56")),
            // It may be the range of a subnet.
            ("10.99.7.0/28", None),
            ("2001:db8:0:1::/64", None),
            ("10.97.7.1/32", None),
            ("10.255.0.1/32", None),
            ("2001:db8:1::1/128", None),
            ("10.0.0.0/8", None),
        ] {
            let range = range.map(|range| range.parse().expect("a prefix"));
            let expected = range.map(|range| Holder::NotTakeable(NotTakeable::WithinVpc(range)));
            assert_eq!(shown(destination, &routes), expected, "{destination}");
        }
        // EC2 has accepted it.
        assert!(matches!(shown("10.99.8.1/32", &routes), Some(Holder::Eni(_))));
    }
}
