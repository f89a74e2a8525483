//! Route tables: the targets of their routes over time, EC2's rules for changes, and the actions that read and change them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cloud::{ApiError, Cloud, WorldError, insert_new, text, was};
use crate::ec2::{Call, attached_to};
use crate::ids::{Cidr, EniId, RouteTableId, SubnetId, VpcId};
use crate::log::{Cause, Moment, RouteMove};
use crate::route::{Destination, KINDS, Target};
use crate::simulator::{Simulator, Timeout};
use crate::wire::sigv4::hex;
use crate::wire::xml::Xml;
use crate::world;

pub(crate) struct RouteTable {
    vpc: VpcId,
    main: bool,
    subnets: Vec<SubnetId>,
    /// By destination, and whether a virtual private gateway has propagated the route. A table may have both for one
    /// destination; the one that is not propagated is used then.
    routes: BTreeMap<(Destination, bool), Vec<Held>>,
}

/// The route of a destination, and since when it is in the table. `None`: there is no route.
struct Held {
    since: Option<Instant>,
    route: Option<(Target, Origin)>,
}

/// The origin of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Origin {
    /// The creation of the table: local routes.
    CreateRouteTable,
    /// `CreateRoute`.
    CreateRoute,
    /// Propagation by a virtual private gateway.
    EnableVgwRoutePropagation,
}

/// A route as a read shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Route {
    /// The destination.
    pub destination: Destination,
    /// The target.
    pub target: Target,
    /// The origin.
    pub origin: Origin,
    /// Whether its target was deleted, is detached or stopped.
    pub blackhole: bool,
}

impl RouteTable {
    /// The current route of a destination, of one of the two kinds.
    fn standing(&self, destination: &Destination, propagated: bool) -> Option<&(Target, Origin)> {
        self.routes.get(&(destination.clone(), propagated))?.last()?.route.as_ref()
    }

    /// The route of a destination that is used now: a propagated one has lower priority.
    fn effective(&self, destination: &Destination) -> Option<&(Target, Origin)> {
        self.standing(destination, false).or_else(|| self.standing(destination, true))
    }

    /// All routes at that time.
    fn at(&self, moment: Option<Instant>) -> impl Iterator<Item = (&Destination, &(Target, Origin))> {
        self.routes.iter().filter_map(move |((destination, _), history)| {
            let held = history.iter().rev().find(|held| was(held.since, moment))?;
            Some((destination, held.route.as_ref()?))
        })
    }
}

impl Cloud {
    /// Adds a route table that exists from the start of the simulator, or from now on.
    pub(crate) fn add_route_table(&mut self, table: &world::RouteTable) -> Result<(), String> {
        let id: RouteTableId = table.id.parse().map_err(text)?;
        let vpc: VpcId = table.vpc.parse().map_err(text)?;
        let found = self.vpcs.get(&vpc).ok_or(format!("{vpc} does not exist"))?;
        let mut local = vec![Destination::Ipv4(found.cidr)];
        local.extend(found.ipv6_cidr.map(Destination::Ipv6));
        let others = || self.route_tables.iter().filter(|(_, other)| other.vpc == vpc);
        if let Some((other, _)) = others().find(|(_, other)| other.main && table.main) {
            return Err(format!("{other} is the main route table of {vpc}"));
        }
        let mut subnets = Vec::new();
        for subnet in &table.subnets {
            let subnet: SubnetId = subnet.parse().map_err(text)?;
            if self.subnets.get(&subnet).is_none_or(|subnet| subnet.vpc != vpc) {
                return Err(format!("{subnet} does not exist in {vpc}"));
            }
            if let Some((other, _)) = others().find(|(_, other)| other.subnets.contains(&subnet)) {
                return Err(format!("{subnet} is associated with {other}"));
            }
            subnets.push(subnet);
        }
        let mut routes = BTreeMap::new();
        let mut add = |destination, propagated, target, origin| {
            let held = Held { since: None, route: Some((target, origin)) };
            let text = format!("the route to {destination}");
            insert_new(&mut routes, (destination, propagated), vec![held]).map_err(|error| format!("{text} {error}"))
        };
        for destination in local {
            add(destination, false, Target::Local, Origin::CreateRouteTable)?;
        }
        for (destination, target) in &table.routes {
            let (destination, target) = (destination.parse().map_err(text)?, target.parse().map_err(text)?);
            self.may_lead(&vpc, &destination, &target).map_err(text)?;
            add(destination, false, target, Origin::CreateRoute)?;
        }
        for (destination, gateway) in &table.propagated {
            let (destination, target) = (destination.parse().map_err(text)?, gateway.parse().map_err(text)?);
            match &target {
                Target::Gateway(gateway) if gateway.to_string().starts_with("vgw-") => {}
                _ => return Err(format!("{gateway} propagates no routes")),
            }
            add(destination, true, target, Origin::EnableVgwRoutePropagation)?;
        }
        insert_new(&mut self.route_tables, id, RouteTable { vpc, main: table.main, subnets, routes })
    }

    /// The route table with that id, or EC2's error for a malformed or unknown one.
    fn route_table(&self, id: &str) -> Result<(RouteTableId, &RouteTable), ApiError> {
        let id: RouteTableId = id.parse().map_err(|_| {
            let message = format!("Invalid id: \"{id}\" (expecting \"rtb-...\")");
            ApiError::new(400, "InvalidRouteTableId.Malformed", message)
        })?;
        match self.route_tables.get(&id) {
            Some(table) => Ok((id, table)),
            None => {
                let message = format!("The routeTable ID '{id}' does not exist");
                Err(ApiError::new(400, "InvalidRouteTableID.NotFound", message))
            }
        }
    }

    /// EC2's rules for destination and target of a route in a VPC's table. Only a network interface or an appliance in the VPC
    /// can be the target for traffic within the VPC, and only for that of the whole VPC or of a whole subnet (VPC user guide,
    /// "Routing for a middlebox appliance").
    fn may_lead(&self, vpc: &VpcId, destination: &Destination, target: &Target) -> Result<(), ApiError> {
        if let Target::NetworkInterface(id) = target {
            let (_, eni) = self.eni(id.as_ref())?;
            if self.vpc_of(eni)? != vpc {
                let message = format!("route table of {vpc} and interface {id} belong to different networks");
                return Err(ApiError::value(message));
            }
        }
        let whole = self.vpcs.get(vpc);
        let subnets = || self.subnets.values().filter(|subnet| subnet.vpc == *vpc);
        let (local, inside, is_subnet) = match (destination, whole) {
            (Destination::Ipv4(cidr), Some(vpc)) => {
                (vpc.cidr == *cidr, vpc.cidr.covers(*cidr), subnets().any(|subnet| subnet.cidr == *cidr))
            }
            (Destination::Ipv6(cidr), Some(vpc)) => (
                vpc.ipv6_cidr == Some(*cidr),
                vpc.ipv6_cidr.is_some_and(|outer| outer.covers(*cidr)),
                subnets().any(|subnet| subnet.ipv6_cidr == Some(*cidr)),
            ),
            _ => (false, false, false),
        };
        let refuse = |message: String| Err(ApiError::value(message));
        let appliance = match target {
            Target::NetworkInterface(_) => true,
            Target::Gateway(gateway) => gateway.is_middlebox(),
            Target::Local => false,
        };
        match (target, inside) {
            (Target::Local, _) if local => Ok(()),
            (Target::Local, _) => refuse(format!("{destination} is no local route")),
            (_, false) => Ok(()),
            (_, true) if !local && !is_subnet => refuse(format!(
                "The destination CIDR block {destination} is more specific than a local route and not that of a subnet"
            )),
            (_, true) if !appliance => refuse(
                "Route target is not supported. This route only supports interface and instance targets.".to_owned(),
            ),
            (_, true) => Ok(()),
        }
    }

    fn create_route(
        &mut self,
        now: Moment,
        table: &str,
        destination: &Destination,
        target: Target,
        cause: &Cause,
    ) -> Result<(), ApiError> {
        let (id, table) = self.route_table(table)?;
        if table.standing(destination, false).is_some() {
            let message = format!("The route identified by {destination} already exists.");
            return Err(ApiError::new(400, "RouteAlreadyExists", message));
        }
        self.may_lead(&table.vpc, destination, &target)?;
        let is_ipv6 = |destination: &Destination| matches!(destination, Destination::Ipv6(_));
        let same_family = |other: &Destination| is_ipv6(other) == is_ipv6(destination);
        let own = |origin: Origin| origin != Origin::EnableVgwRoutePropagation;
        let count =
            table.at(Some(now.instant)).filter(|(other, (_, origin))| same_family(other) && own(*origin)).count();
        let limit = self.world.routes_per_table;
        if count >= limit {
            let message = format!("The maximum number of routes in {id} has been reached: {limit}");
            return Err(ApiError::new(400, "RouteLimitExceeded", message));
        }
        self.lead(now, &id, destination, Some((target, Origin::CreateRoute)), cause);
        Ok(())
    }

    fn replace_route(
        &mut self,
        now: Moment,
        table: &str,
        destination: &Destination,
        target: Target,
        cause: &Cause,
    ) -> Result<(), ApiError> {
        let (id, table) = self.route_table(table)?;
        let (_, origin) = *table.standing(destination, false).ok_or_else(|| no_such_route(destination))?;
        self.may_lead(&table.vpc, destination, &target)?;
        self.lead(now, &id, destination, Some((target, origin)), cause);
        Ok(())
    }

    fn delete_route(
        &mut self,
        now: Moment,
        table: &str,
        destination: &Destination,
        cause: &Cause,
    ) -> Result<(), ApiError> {
        let (id, table) = self.route_table(table)?;
        match table.standing(destination, false) {
            None => Err(no_such_route(destination)),
            Some((_, Origin::CreateRouteTable)) => {
                Err(ApiError::value(format!("cannot remove local route {destination} in route table {id}")))
            }
            Some(_) => {
                self.lead(now, &id, destination, None, cause);
                Ok(())
            }
        }
    }

    fn lead(
        &mut self,
        now: Moment,
        id: &RouteTableId,
        destination: &Destination,
        route: Option<(Target, Origin)>,
        cause: &Cause,
    ) {
        let Some(table) = self.route_tables.get_mut(id) else {
            return;
        };
        let target = |route: Option<&(Target, Origin)>| route.map(|(target, _)| target.clone());
        let from = target(table.effective(destination));
        let history = table.routes.entry((destination.clone(), false)).or_default();
        history.push(Held { since: Some(now.instant), route });
        let to = target(table.effective(destination));
        if from != to {
            self.journal.routes.push(RouteMove {
                at: now.instant,
                wall: now.wall,
                route_table: id.clone(),
                destination: destination.clone(),
                from,
                to,
                cause: cause.clone(),
            });
        }
    }

    /// A route as a read shows it. Whether it is a blackhole is never stale.
    fn shown(&self, destination: &Destination, (target, origin): &(Target, Origin)) -> Route {
        let blackhole = match target {
            Target::Local => false,
            Target::Gateway(gateway) => self.deleted_gateways.contains(&gateway.to_string()),
            Target::NetworkInterface(id) => {
                let instance = attached_to(self, id).and_then(|instance| self.instances.get(instance));
                !instance.is_some_and(|instance| instance.running)
            }
        };
        Route { destination: destination.clone(), target: target.clone(), origin: *origin, blackhole }
    }
}

fn no_such_route(destination: &Destination) -> ApiError {
    let message = format!("There is no route defined for '{destination}' in the route table. Use CreateRoute instead.");
    ApiError::new(400, "InvalidRoute.NotFound", message)
}

impl Call {
    /// The route tables that the request names.
    pub(crate) fn route_tables(&self) -> Vec<String> {
        self.named("RouteTableId", "route-table-id")
    }

    /// The destination of the route that the request changes.
    pub(crate) fn destination(&self) -> Option<&str> {
        DESTINATIONS.iter().find_map(|name| self.parameters.get(name))
    }

    /// `CreateRoute` and `ReplaceRoute`.
    pub(crate) fn change_route(
        &self,
        cloud: &mut Cloud,
        now: Moment,
        cause: &Cause,
        request_id: &str,
    ) -> Result<String, ApiError> {
        let creates = self.action == "CreateRoute";
        let mut known = vec!["RouteTableId", "DryRun", "NetworkInterfaceId", "InstanceId"];
        known.extend(DESTINATIONS);
        known.extend(KINDS.iter().map(|kind| kind.parameter));
        if !creates {
            known.push("LocalTarget");
        }
        self.only(&known)?;
        let table = self.parameters.get("RouteTableId").ok_or_else(|| ApiError::missing("routeTableId"))?;
        cloud.route_table(table)?;
        let destination = self.route_destination(creates)?;
        let target = self.route_target(cloud)?;
        self.refuse_dry_run()?;
        match creates {
            true => cloud.create_route(now, table, &destination, target, cause)?,
            false => cloud.replace_route(now, table, &destination, target, cause)?,
        }
        Ok(self.answer(request_id, |xml| {
            xml.text("return", true);
        }))
    }

    /// `CreateRoute` accepts an IPv4 prefix with host bits, and drops them.
    fn route_destination(&self, creates: bool) -> Result<Destination, ApiError> {
        let given: Vec<(&str, &str)> =
            DESTINATIONS.iter().filter_map(|name| Some((*name, self.parameters.get(name)?))).collect();
        let [(name, value)] = given[..] else {
            return Err(match given.is_empty() {
                true => ApiError::missing("destinationCidrBlock"),
                false => combination("Only one destination may be specified"),
            });
        };
        let destination = match name {
            "DestinationCidrBlock" if creates => Cidr::without_host_bits(value).map(Destination::Ipv4),
            _ => value.parse(),
        };
        let fits = |destination: &Destination| match destination {
            Destination::Ipv4(_) => name == "DestinationCidrBlock",
            Destination::Ipv6(_) => name == "DestinationIpv6CidrBlock",
            Destination::PrefixList(_) => name == "DestinationPrefixListId",
        };
        destination.ok().filter(fits).ok_or_else(|| {
            ApiError::value(format!("Value ({value}) for parameter {name} is invalid. This is not a valid CIDR block."))
        })
    }

    fn route_target(&self, cloud: &Cloud) -> Result<Target, ApiError> {
        let mut found = Vec::new();
        if let Some(id) = self.parameters.get("NetworkInterfaceId") {
            found.push(Target::NetworkInterface(cloud.eni(id)?.0));
        }
        if let Some(id) = self.parameters.get("InstanceId") {
            found.push(Target::NetworkInterface(self.only_interface(cloud, id)?));
        }
        if self.flag("LocalTarget")? {
            found.push(Target::Local);
        }
        let mut names: Vec<&str> = KINDS.iter().map(|kind| kind.parameter).collect();
        names.dedup();
        for name in names {
            let Some(id) = self.parameters.get(name) else {
                continue;
            };
            match id.parse() {
                Ok(Target::Gateway(gateway)) if gateway.parameter() == name => found.push(Target::Gateway(gateway)),
                _ => return Err(ApiError::value(format!("Invalid value '{id}' for {name}"))),
            }
        }
        match found.len() {
            0 => Err(ApiError::missing("networkInterfaceId")),
            1 => Ok(found.remove(0)),
            _ => Err(combination("Only one route target may be specified")),
        }
    }

    pub(crate) fn describe_route_tables(
        &self,
        cloud: &mut Cloud,
        now: Moment,
        request_id: &str,
    ) -> Result<String, ApiError> {
        self.only(&["RouteTableId", "Filter", "MaxResults", "NextToken", "DryRun"])?;
        let named = self.parameters.list("RouteTableId");
        for id in &named {
            cloud.route_table(id)?;
        }
        let moment = cloud.moment_read(now.instant);
        let found = self.select(
            cloud.world.filter_value_limit,
            cloud.route_tables.keys().filter(|id| named.is_empty() || named.contains(&id.to_string())),
            |id, name| values(cloud, moment, id, name),
        )?;
        let (page, next) = self.page(&found, named.is_empty(), 100)?;
        self.refuse_dry_run()?;
        Ok(self.answer(request_id, |xml| {
            xml.items("routeTableSet", page, |xml, id| {
                if let Some(table) = cloud.route_tables.get(*id) {
                    write(xml, cloud, moment, id, table);
                }
            });
            xml.optional("nextToken", next);
        }))
    }
}

/// The parameters for a route's destination, only one of which may be present.
const DESTINATIONS: [&str; 3] = ["DestinationCidrBlock", "DestinationIpv6CidrBlock", "DestinationPrefixListId"];

fn combination(message: &str) -> ApiError {
    ApiError::new(400, "InvalidParameterCombination", message)
}

/// What a route table has for a filter of that name; `None` if there is no such filter.
fn values(cloud: &Cloud, moment: Option<Instant>, id: &RouteTableId, name: &str) -> Option<Vec<String>> {
    let table = cloud.route_tables.get(id)?;
    let routes = || table.at(moment).map(|(destination, route)| cloud.shown(destination, route));
    let destinations = |wanted: fn(&Destination) -> bool| {
        routes().map(|route| route.destination).filter(wanted).map(String::from).collect()
    };
    Some(match name {
        "association.main" => associations(id, table).map(|(_, subnet)| subnet.is_none().to_string()).collect(),
        "association.route-table-association-id" => associations(id, table).map(|(id, _)| id).collect(),
        "association.route-table-id" => associations(id, table).map(|_| id.to_string()).collect(),
        "association.subnet-id" => table.subnets.iter().map(ToString::to_string).collect(),
        "owner-id" => vec![cloud.world.account.clone()],
        "route-table-id" => vec![id.to_string()],
        "route.destination-cidr-block" => destinations(|destination| matches!(destination, Destination::Ipv4(_))),
        "route.destination-ipv6-cidr-block" => destinations(|destination| matches!(destination, Destination::Ipv6(_))),
        "route.destination-prefix-list-id" => {
            destinations(|destination| matches!(destination, Destination::PrefixList(_)))
        }
        "route.instance-id" => routes()
            .filter_map(|route| match &route.target {
                Target::NetworkInterface(eni) => attached_to(cloud, eni).map(ToString::to_string),
                _ => None,
            })
            .collect(),
        "route.origin" => routes().map(|route| format!("{:?}", route.origin)).collect(),
        "route.state" => routes().map(|route| state(&route).to_owned()).collect(),
        "vpc-id" => vec![table.vpc.to_string()],
        _ => return None,
    })
}

fn state(route: &Route) -> &'static str {
    match route.blackhole {
        true => "blackhole",
        false => "active",
    }
}

/// The ids of a table's associations, with their subnets; the one without is that of the main table with its VPC.
fn associations<'a>(
    id: &RouteTableId,
    table: &'a RouteTable,
) -> impl Iterator<Item = (String, Option<&'a SubnetId>)> + use<'a> {
    let own = id.as_ref().replacen("rtb-", "rtbassoc-", 1);
    let of_subnet = |subnet: &'a SubnetId| (subnet.as_ref().replacen("subnet-", "rtbassoc-", 1), Some(subnet));
    table.main.then_some((own, None)).into_iter().chain(table.subnets.iter().map(of_subnet))
}

fn write(xml: &mut Xml, cloud: &Cloud, moment: Option<Instant>, id: &RouteTableId, table: &RouteTable) {
    let routes: Vec<Route> = table.at(moment).map(|(destination, route)| cloud.shown(destination, route)).collect();
    xml.text("routeTableId", id);
    xml.text("vpcId", &table.vpc);
    xml.text("ownerId", &cloud.world.account);
    xml.items("routeSet", &routes, |xml, route| write_route(xml, cloud, route));
    xml.items("associationSet", associations(id, table), |xml, (association, subnet)| {
        xml.text("routeTableAssociationId", association);
        xml.text("routeTableId", id);
        xml.optional("subnetId", subnet);
        xml.text("main", subnet.is_none());
        xml.element("associationState", |xml| {
            xml.text("state", "associated");
        });
    });
    let propagated = routes.iter().filter(|route| route.origin == Origin::EnableVgwRoutePropagation);
    let mut gateways: Vec<String> = propagated.map(|route| route.target.to_string()).collect();
    gateways.sort();
    gateways.dedup();
    xml.items("propagatingVgwSet", gateways, |xml, gateway| {
        xml.text("gatewayId", gateway);
    });
    xml.items("tagSet", [(); 0], |_, ()| {});
}

fn write_route(xml: &mut Xml, cloud: &Cloud, route: &Route) {
    match &route.destination {
        Destination::Ipv4(cidr) => xml.text("destinationCidrBlock", cidr),
        Destination::Ipv6(cidr) => xml.text("destinationIpv6CidrBlock", cidr),
        Destination::PrefixList(id) => xml.text("destinationPrefixListId", id),
    };
    match &route.target {
        Target::Local => {
            xml.text("gatewayId", "local");
        }
        Target::Gateway(gateway) => {
            xml.text(gateway.element(), gateway);
        }
        Target::NetworkInterface(eni) => {
            if let Some(instance) = attached_to(cloud, eni) {
                xml.text("instanceId", instance);
                xml.text("instanceOwnerId", &cloud.world.account);
            }
            xml.text("networkInterfaceId", eni);
        }
    }
    xml.text("state", state(route));
    xml.text("origin", format!("{:?}", route.origin));
}

/// A page of route tables that do not exist, with a token that no other page has.
pub(crate) fn write_endless_page(xml: &mut Xml, page: usize, tables: usize, routes: usize) {
    xml.items("routeTableSet", 0..tables, |xml, n| {
        xml.text("routeTableId", format!("rtb-{page:07x}{n:010x}"));
        xml.text("vpcId", "vpc-0a00000000000000f");
        xml.items("routeSet", 0..routes, |xml, route| {
            xml.text("destinationCidrBlock", format!("192.{}.{}.0/24", route >> 8 & 0xff, route & 0xff));
            xml.text("networkInterfaceId", format!("eni-{page:07x}{n:010x}"));
            xml.text("state", "active");
            xml.text("origin", "CreateRoute");
        });
    });
    xml.text("nextToken", hex(format!("page {page}").as_bytes()));
}

impl Simulator {
    /// Adds a route table, as if it had been there from the start.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn add_route_table(&self, table: &world::RouteTable) -> Result<(), WorldError> {
        self.shared().change(|state| {
            let added = state.cloud.add_route_table(table);
            added.map_err(|fault| WorldError(vec![format!("route table {}: {fault}", table.id)]))
        })
    }

    /// A third party deletes a route table.
    ///
    /// # Errors
    /// It does not exist.
    pub fn delete_route_table(&self, table: impl AsRef<str>) -> Result<(), ApiError> {
        self.shared().change(|state| {
            let (id, _) = state.cloud.route_table(table.as_ref())?;
            state.cloud.route_tables.remove(&id);
            Ok(())
        })
    }

    /// All routes of a table now.
    ///
    /// # Errors
    /// It does not exist.
    pub fn routes(&self, table: impl AsRef<str>) -> Result<Vec<Route>, ApiError> {
        let state = self.shared().state();
        let (_, found) = state.cloud.route_table(table.as_ref())?;
        let routes = found.at(Some(Instant::now()));
        Ok(routes.map(|(destination, route)| state.cloud.shown(destination, route)).collect())
    }

    /// The route of a table that has exactly this destination now.
    ///
    /// # Errors
    /// The table does not exist, or the destination is none.
    pub fn route(&self, table: impl AsRef<str>, destination: &str) -> Result<Option<Route>, ApiError> {
        let destination = parse(destination)?;
        let state = self.shared().state();
        let (_, table) = state.cloud.route_table(table.as_ref())?;
        Ok(table.effective(&destination).map(|route| state.cloud.shown(&destination, route)))
    }

    /// The interface that the route of a table leads to now, whether or not it is a blackhole.
    ///
    /// # Errors
    /// As [`route`](Self::route).
    pub fn route_owner(&self, table: impl AsRef<str>, destination: &str) -> Result<Option<EniId>, ApiError> {
        Ok(match self.route(table, destination)?.map(|route| route.target) {
            Some(Target::NetworkInterface(eni)) => Some(eni),
            _ => None,
        })
    }

    /// Every route that led elsewhere, appeared or was removed so far.
    pub fn route_moves(&self) -> Vec<RouteMove> {
        self.shared().state().cloud.journal.routes.clone()
    }

    /// A third party lets a route lead elsewhere, by EC2's rules; it makes the route where there is none.
    ///
    /// # Errors
    /// EC2's own.
    pub fn steal_route(
        &self,
        table: impl AsRef<str>,
        destination: &str,
        target: impl AsRef<str>,
    ) -> Result<(), ApiError> {
        let (table, destination) = (table.as_ref(), parse(destination)?);
        let target: Target = target.as_ref().parse().map_err(|error| ApiError::value(format!("{error}")))?;
        let (now, cause) = (Moment::now(), Cause::ThirdParty);
        self.shared().change(|state| {
            let (_, found) = state.cloud.route_table(table)?;
            match found.standing(&destination, false) {
                Some(_) => state.cloud.replace_route(now, table, &destination, target, &cause),
                None => state.cloud.create_route(now, table, &destination, target, &cause),
            }
        })
    }

    /// A third party deletes a route.
    ///
    /// # Errors
    /// EC2's own: there is none, or it is local.
    pub fn delete_route(&self, table: impl AsRef<str>, destination: &str) -> Result<(), ApiError> {
        let destination = parse(destination)?;
        let cause = Cause::ThirdParty;
        self.shared().change(|state| state.cloud.delete_route(Moment::now(), table.as_ref(), &destination, &cause))
    }

    /// A third party deletes a gateway, an endpoint or a peering connection: routes to it are blackholes.
    pub fn delete_gateway(&self, id: &str) {
        self.shared().change(|state| state.cloud.deleted_gateways.insert(id.to_owned()));
    }

    /// Waits until the route of a table leads to the interface; returns when it came to it last, `None` if it does
    /// from the start.
    ///
    /// # Errors
    /// It did not within the time.
    pub fn wait_for_route(
        &self,
        table: impl AsRef<str>,
        destination: &str,
        eni: impl AsRef<str>,
        within: Duration,
    ) -> Result<Option<RouteMove>, Timeout> {
        let (table, eni) = (table.as_ref(), eni.as_ref());
        self.wait_for(&format!("{destination} in {table} leads to {eni}"), within, |simulator| {
            let owner = simulator.route_owner(table, destination).ok()??;
            let this = |moved: &RouteMove| {
                moved.route_table == *table && String::from(moved.destination.clone()) == destination
            };
            (owner == *eni).then(|| simulator.route_moves().into_iter().rev().find(this))
        })
    }
}

fn parse(destination: &str) -> Result<Destination, ApiError> {
    destination.parse().map_err(|error| ApiError::value(format!("{error}")))
}
