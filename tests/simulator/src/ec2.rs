//! The EC2 API: authentication, the actions, their filters and pages, their answers.

use std::net::Ipv4Addr;

use hyper::body::Bytes;
use hyper::http::request::Parts;

use crate::cloud::{ApiError, Assigned, Cloud, Eni, View};
use crate::elastic_ips::Shown;
use crate::ids::{EniId, InstanceId};
use crate::log::{Cause, Moment};
use crate::route_tables;
use crate::serve::Reply;
use crate::wire::query::{Filter, Parameters, matches};
use crate::wire::sigv4::Signed;
use crate::wire::xml::Xml;
use crate::world::ClaimAnswers;

const NAMESPACE: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";
const STS_NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// A parsed request. Parsing needs no state of the region.
pub(crate) struct Call {
    parts: Parts,
    body: Bytes,
    signed: Option<Signed>,
    pub(crate) parameters: Parameters,
    pub(crate) action: String,
}

impl Call {
    pub(crate) fn read(parts: Parts, body: Bytes) -> Call {
        let parameters = Parameters::parse(&body);
        Call {
            signed: Signed::read(&parts),
            action: parameters.get("Action").unwrap_or_default().to_owned(),
            parameters,
            parts,
            body,
        }
    }

    pub(crate) fn access_key(&self) -> Option<&str> {
        self.signed.as_ref().map(|signed| signed.access_key.as_str())
    }

    /// The interfaces that the request names.
    pub(crate) fn network_interfaces(&self) -> Vec<String> {
        self.named("NetworkInterfaceId", "network-interface-id")
    }

    /// The private addresses that the request names.
    pub(crate) fn addresses(&self) -> Vec<Ipv4Addr> {
        let named = self.named("PrivateIpAddress", "private-ip-address");
        named.iter().filter_map(|text| text.parse().ok()).collect()
    }

    /// The values of a parameter, single or as a list, and of the filters whose name ends with `filter`.
    pub(crate) fn named(&self, parameter: &str, filter: &str) -> Vec<String> {
        let mut named = self.parameters.list(parameter);
        named.extend(self.parameters.get(parameter).map(str::to_owned));
        let filters = self.parameters.filters().into_iter().filter(|given| given.name.ends_with(filter));
        named.extend(filters.flat_map(|given| given.values));
        named
    }

    pub(crate) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.parameters.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(ApiError::value(format!("Invalid value '{other}' for {name}"))),
        }
    }

    pub(crate) fn allows_reassignment(&self) -> bool {
        self.flag("AllowReassignment").unwrap_or(false)
    }

    pub(crate) fn is_dry_run(&self) -> bool {
        self.flag("DryRun").unwrap_or(false)
    }

    /// Whether it asks to assign primary addresses only, which never move.
    pub(crate) fn assigns_primaries(&self, cloud: &Cloud) -> bool {
        let is_primary = |address: &Ipv4Addr| cloud.enis.values().any(|eni| eni.primary == *address);
        let addresses = self.addresses();
        self.action == "AssignPrivateIpAddresses" && !addresses.is_empty() && addresses.iter().all(is_primary)
    }

    /// Performs the request.
    pub(crate) fn perform(&self, cloud: &mut Cloud, now: Moment, number: usize, request_id: &str) -> Reply {
        let result =
            self.authenticate(cloud, now).and_then(|()| self.act(cloud, now, &Cause::Request(number), request_id));
        match result {
            Ok(xml) => Reply::xml(200, "Success", xml, request_id),
            Err(error) => error_reply(&error, request_id),
        }
    }

    fn authenticate(&self, cloud: &Cloud, now: Moment) -> Result<(), ApiError> {
        let failure = |message: &str| Err(ApiError::new(401, "AuthFailure", message));
        if self.parts.method != hyper::Method::POST {
            return Err(ApiError::new(405, "MethodNotAllowed", "The simulator reads POST requests only"));
        }
        let Some(signed) = &self.signed else {
            let message = "Request is missing Authentication Token";
            return Err(ApiError::new(403, "MissingAuthenticationToken", message));
        };
        let service = if self.action == "GetCallerIdentity" { "sts" } else { "ec2" };
        if signed.region != cloud.world.region {
            return failure(&format!("Credential should be scoped to a valid region, not '{}'", signed.region));
        }
        if signed.service != service {
            return failure(&format!("Credential should be scoped to correct service: '{service}'"));
        }
        if let Some(tolerance) = cloud.world.clock_tolerance_seconds {
            let ahead = signed.timestamp.as_second() - now.wall.as_second() - cloud.world.clock_ahead_seconds;
            if ahead < -(tolerance as i64) {
                return Err(ApiError::new(400, "RequestExpired", "Request has expired."));
            }
            if ahead > tolerance as i64 {
                return failure("AWS was not able to validate the provided access credentials");
            }
        }
        let Some(key) = cloud.keys.get(&signed.access_key) else {
            let code = cloud.world.unknown_key_code.as_str();
            let status = if code == "AuthFailure" { 401 } else { 403 };
            let message = "AWS was not able to validate the provided access credentials";
            return Err(ApiError::new(status, code, message));
        };
        let wrong_secret = |secret: &String| !signed.verifies(secret, &self.parts, &self.body);
        if key.session_token != signed.session_token || key.secret.as_ref().is_some_and(wrong_secret) {
            return failure("AWS was not able to validate the provided access credentials");
        }
        if key.expires.is_some_and(|expires| expires <= now.wall) {
            let code = cloud.world.expired_token_code.as_str();
            return Err(ApiError::new(400, code, "Request has expired."));
        }
        Ok(())
    }

    fn act(&self, cloud: &mut Cloud, now: Moment, cause: &Cause, request_id: &str) -> Result<String, ApiError> {
        let mutating = match self.action.as_str() {
            "AssignPrivateIpAddresses" | "UnassignPrivateIpAddresses" => true,
            "CreateRoute" | "ReplaceRoute" | "AssociateAddress" | "DisassociateAddress" => true,
            "DescribeNetworkInterfaces" | "DescribeInstances" | "DescribeInstanceTypes" | "DescribeSubnets" => false,
            "DescribeRouteTables" | "DescribeAddresses" => false,
            "GetCallerIdentity" => return Ok(self.caller_identity(cloud, request_id)),
            "" => {
                return Err(ApiError::new(400, "MissingAction", "The request must contain Action"));
            }
            other => {
                let message = format!("The action {other} is not valid for this web service.");
                return Err(ApiError::new(400, "InvalidAction", message));
            }
        };
        if self.parameters.get("Version") != Some("2016-11-15") {
            let message = "The API version is not 2016-11-15";
            return Err(ApiError::new(400, "NoSuchVersion", message));
        }
        let counts = !(cloud.world.free_dry_runs && self.is_dry_run());
        if counts && !cloud.admit(now.instant, &self.action, mutating) {
            return Err(ApiError::new(503, "RequestLimitExceeded", "Request limit exceeded."));
        }
        match self.action.as_str() {
            "AssignPrivateIpAddresses" => self.assign(cloud, now, cause, request_id),
            "UnassignPrivateIpAddresses" => self.unassign(cloud, now, cause, request_id),
            "CreateRoute" | "ReplaceRoute" => self.change_route(cloud, now, cause, request_id),
            "AssociateAddress" => self.associate_address(cloud, now, cause, request_id),
            "DisassociateAddress" => self.disassociate_address(cloud, now, cause, request_id),
            "DescribeRouteTables" => self.describe_route_tables(cloud, now, request_id),
            "DescribeAddresses" => self.describe_addresses(cloud, now, request_id),
            "DescribeNetworkInterfaces" => self.describe_network_interfaces(cloud, now, request_id),
            "DescribeInstances" => self.describe_instances(cloud, now, request_id),
            "DescribeInstanceTypes" => self.describe_instance_types(cloud, request_id),
            _ => self.describe_subnets(cloud, now, request_id),
        }
    }

    fn assign(&self, cloud: &mut Cloud, now: Moment, cause: &Cause, request_id: &str) -> Result<String, ApiError> {
        for name in ["SecondaryPrivateIpAddressCount", "Ipv4PrefixCount", "Ipv4Prefix"] {
            if self.parameters.pairs().iter().any(|(key, _)| key.starts_with(name)) {
                let message = format!("The simulator assigns named addresses only, not by {name}");
                return Err(ApiError::new(400, "UnsupportedOperation", message));
            }
        }
        self.only(&["NetworkInterfaceId", "AllowReassignment", "PrivateIpAddress"])?;
        let (eni, addresses) = self.interface_and_addresses()?;
        let allow = self.flag("AllowReassignment")?;
        cloud.assign(now, eni, &addresses, allow, cause)?;
        let listed = match cloud.world.claim_answers {
            ClaimAnswers::All => addresses.len(),
            ClaimAnswers::FirstListed | ClaimAnswers::FirstMoves => 1,
        };
        Ok(self.answer(request_id, |xml| {
            xml.text("networkInterfaceId", eni);
            xml.items("assignedPrivateIpAddressesSet", addresses.iter().take(listed), |xml, address| {
                xml.text("privateIpAddress", address);
            });
            xml.text("return", true);
        }))
    }

    fn unassign(&self, cloud: &mut Cloud, now: Moment, cause: &Cause, request_id: &str) -> Result<String, ApiError> {
        self.only(&["NetworkInterfaceId", "PrivateIpAddress"])?;
        let (eni, addresses) = self.interface_and_addresses()?;
        cloud.unassign(now, eni, &addresses, cause)?;
        Ok(self.answer(request_id, |xml| {
            xml.text("return", true);
        }))
    }

    /// An answer with `return: true`, and nothing else.
    pub(crate) fn bare(&self, request_id: &str) -> Reply {
        let body = self.answer(request_id, |xml| {
            xml.text("return", true);
        });
        Reply::xml(200, "Bare", body, request_id)
    }

    fn interface_and_addresses(&self) -> Result<(&str, Vec<Ipv4Addr>), ApiError> {
        let eni = self.parameters.get("NetworkInterfaceId");
        let eni = eni.ok_or_else(|| ApiError::missing("networkInterfaceId"))?;
        let addresses = self
            .parameters
            .list("PrivateIpAddress")
            .iter()
            .map(|text| {
                let message = || format!("Invalid value '{text}' for privateIpAddress");
                text.parse().map_err(|_| ApiError::value(message()))
            })
            .collect::<Result<Vec<Ipv4Addr>, ApiError>>()?;
        match addresses.is_empty() {
            true => Err(ApiError::missing("privateIpAddress")),
            false => Ok((eni, addresses)),
        }
    }

    fn describe_network_interfaces(
        &self,
        cloud: &mut Cloud,
        now: Moment,
        request_id: &str,
    ) -> Result<String, ApiError> {
        self.only(&["NetworkInterfaceId", "Filter", "MaxResults", "NextToken", "DryRun"])?;
        let named = self.parameters.list("NetworkInterfaceId");
        for id in &named {
            cloud.eni(id)?;
        }
        let moment = cloud.moment_read(now.instant);
        let view = cloud.view(moment);
        let found = self.select(
            cloud.world.filter_value_limit,
            cloud.enis.keys().filter(|id| named.is_empty() || named.contains(&id.to_string())),
            |id, name| eni_values(cloud, &view, id, name),
        )?;
        let (page, next) = self.page(&found, named.is_empty(), 1000)?;
        self.refuse_dry_run()?;
        Ok(self.answer(request_id, |xml| {
            xml.items("networkInterfaceSet", page, |xml, id| {
                if let Some(eni) = cloud.enis.get(*id) {
                    write_eni(xml, cloud, &view, id, eni);
                }
            });
            xml.optional("nextToken", next);
        }))
    }

    fn describe_instances(&self, cloud: &mut Cloud, now: Moment, request_id: &str) -> Result<String, ApiError> {
        self.only(&["InstanceId", "Filter", "MaxResults", "NextToken", "DryRun"])?;
        let named = self.parameters.list("InstanceId");
        for id in &named {
            cloud.instance(id)?;
        }
        let moment = cloud.moment_read(now.instant);
        let view = cloud.view(moment);
        let found = self.select(
            cloud.world.filter_value_limit,
            cloud.instances.keys().filter(|id| named.is_empty() || named.contains(&id.to_string())),
            |id, name| instance_values(cloud, &view, id, name),
        )?;
        let (page, next) = self.page(&found, named.is_empty(), 1000)?;
        self.refuse_dry_run()?;
        Ok(self.answer(request_id, |xml| {
            xml.items("reservationSet", page, |xml, id| {
                xml.text("reservationId", id.as_ref().replacen("i-", "r-", 1));
                xml.text("ownerId", &cloud.world.account);
                xml.items("groupSet", [(); 0], |_, ()| {});
                xml.items("instancesSet", [*id], |xml, id| write_instance(xml, cloud, &view, id));
            });
            xml.optional("nextToken", next);
        }))
    }

    /// The requested types. The limit of addresses per interface is the lowest one of the interfaces in this world.
    fn describe_instance_types(&self, cloud: &Cloud, request_id: &str) -> Result<String, ApiError> {
        self.only(&["InstanceType", "DryRun"])?;
        let named = self.parameters.list("InstanceType");
        self.refuse_dry_run()?;
        let least = cloud.enis.values().map(|eni| eni.address_limit).min().unwrap_or_default();
        Ok(self.answer(request_id, |xml| {
            xml.items("instanceTypeSet", &named, |xml, name| {
                xml.text("instanceType", name);
                xml.element("networkInfo", |xml| {
                    xml.text("ipv4AddressesPerInterface", least);
                });
            });
        }))
    }

    fn describe_subnets(&self, cloud: &mut Cloud, now: Moment, request_id: &str) -> Result<String, ApiError> {
        self.only(&["SubnetId", "Filter", "MaxResults", "NextToken", "DryRun"])?;
        let named = self.parameters.list("SubnetId");
        for text in &named {
            if !cloud.subnets.keys().any(|id| id == text.as_str()) {
                let message = format!("The subnet ID '{text}' does not exist");
                return Err(ApiError::new(400, "InvalidSubnetID.NotFound", message));
            }
        }
        let found = self.select(
            cloud.world.filter_value_limit,
            cloud.subnets.keys().filter(|id| named.is_empty() || named.contains(&id.to_string())),
            |id, name| {
                let subnet = cloud.subnets.get(id)?;
                Some(vec![match name {
                    "subnet-id" => id.to_string(),
                    "vpc-id" => subnet.vpc.to_string(),
                    "availability-zone" => subnet.zone.clone(),
                    "cidr-block" | "cidr" | "cidrBlock" => subnet.cidr.to_string(),
                    _ => return None,
                }])
            },
        )?;
        let (page, next) = self.page(&found, named.is_empty(), 1000)?;
        self.refuse_dry_run()?;
        let view = cloud.view(Some(now.instant));
        Ok(self.answer(request_id, |xml| {
            xml.items("subnetSet", page, |xml, id| {
                let Some(subnet) = cloud.subnets.get(*id) else {
                    return;
                };
                let inside = cloud.enis.iter().filter(|(_, eni)| eni.subnet == **id);
                let used: usize = inside.map(|(eni, _)| view.of(eni).len()).sum();
                xml.text("subnetId", id);
                xml.text("state", "available");
                xml.text("ownerId", &cloud.world.account);
                xml.text("vpcId", &subnet.vpc);
                xml.text("cidrBlock", subnet.cidr);
                xml.text("availableIpAddressCount", subnet.cidr.usable().saturating_sub(used));
                xml.text("availabilityZone", &subnet.zone);
            });
            xml.optional("nextToken", next);
        }))
    }

    fn caller_identity(&self, cloud: &Cloud, request_id: &str) -> String {
        let who = self.who(cloud);
        Xml::document("GetCallerIdentityResponse", STS_NAMESPACE, |xml| {
            xml.element("GetCallerIdentityResult", |xml| {
                xml.text("Arn", who);
                xml.text("UserId", self.access_key().unwrap_or_default());
                xml.text("Account", &cloud.world.account);
            });
            xml.element("ResponseMetadata", |xml| {
                xml.text("RequestId", request_id);
            });
        })
    }

    /// The ARN of the caller.
    pub(crate) fn who(&self, cloud: &Cloud) -> String {
        let (partition, account) = (&cloud.world.partition, &cloud.world.account);
        let instance = self.instance(cloud);
        let role = instance.and_then(|id| Some((cloud.instances.get(id)?.role.as_ref()?, id)));
        match role {
            Some((role, id)) => {
                format!("arn:{partition}:sts::{account}:assumed-role/{}/{id}", role.name)
            }
            None => format!("arn:{partition}:iam::{account}:user/operator"),
        }
    }

    /// The instance whose role has the access key.
    pub(crate) fn instance<'a>(&self, cloud: &'a Cloud) -> Option<&'a InstanceId> {
        cloud.keys.get(self.access_key()?)?.instance.as_ref()
    }

    /// The interface of an instance that has only one.
    pub(crate) fn only_interface(&self, cloud: &Cloud, instance: &str) -> Result<EniId, ApiError> {
        let id = cloud.instance(instance)?;
        let mut found = interfaces(cloud, &id);
        match (found.next(), found.next()) {
            (Some((eni, _)), None) => Ok(eni.clone()),
            _ => {
                let message = format!(
                    "There are multiple interfaces attached to instance '{id}'. \
                     Please specify an interface ID for the operation instead."
                );
                Err(ApiError::new(400, "InvalidInstanceID", message))
            }
        }
    }

    pub(crate) fn only(&self, known: &[&str]) -> Result<(), ApiError> {
        let known: Vec<&str> = known.iter().copied().chain(["Action", "Version"]).collect();
        match self.parameters.unknown(&known) {
            None => Ok(()),
            Some(name) => {
                let message = format!("The parameter {name} is not recognized");
                Err(ApiError::new(400, "UnknownParameter", message))
            }
        }
    }

    pub(crate) fn refuse_dry_run(&self) -> Result<(), ApiError> {
        match self.flag("DryRun")? {
            false => Ok(()),
            true => {
                let message = "Request would have succeeded, but DryRun flag is set.";
                Err(ApiError::new(412, "DryRunOperation", message))
            }
        }
    }

    /// The resources that match all filters.
    pub(crate) fn select<'a, Id: 'a>(
        &self,
        most_values: usize,
        candidates: impl Iterator<Item = &'a Id>,
        values: impl Fn(&Id, &str) -> Option<Vec<String>>,
    ) -> Result<Vec<&'a Id>, ApiError> {
        let filters = self.parameters.filters();
        let count: usize = filters.iter().map(|filter| filter.values.len()).sum();
        if count > most_values {
            let message = format!("The maximum number of filter values specified on a single call is {most_values}");
            return Err(ApiError::new(400, "FilterLimitExceeded", message));
        }
        let passes = |id: &Id, filter: &Filter| {
            let values = values(id, &filter.name)
                .ok_or_else(|| ApiError::value(format!("The filter '{}' is invalid", filter.name)))?;
            let hit = |value: &String| filter.values.iter().any(|pattern| matches(pattern, value));
            Ok(values.iter().any(hit))
        };
        let mut found = Vec::new();
        for id in candidates {
            let mut passed = true;
            for filter in &filters {
                passed &= passes(id, filter)?;
            }
            if passed {
                found.push(id);
            }
        }
        Ok(found)
    }

    /// One page of the results, and the token of the next one, which contains the last id of this one.
    pub(crate) fn page<'a, 'b, Id: ToString>(
        &self,
        found: &'a [&'b Id],
        may_page: bool,
        most: usize,
    ) -> Result<(&'a [&'b Id], Option<String>), ApiError> {
        let after = match self.parameters.get("NextToken") {
            None => 0,
            Some(token) => {
                if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    let message = "The token is invalid";
                    return Err(ApiError::new(400, "InvalidPaginationToken", message));
                }
                found.partition_point(|id| token_of(&id.to_string()).as_str() <= token)
            }
        };
        let rest = &found[after..];
        let Some(limit) = self.parameters.get("MaxResults") else {
            return Ok((rest, None));
        };
        if !may_page {
            let message = "The parameter maxResults cannot be used with ids";
            return Err(ApiError::new(400, "InvalidParameterCombination", message));
        }
        let limit: usize = limit.parse().ok().filter(|limit| (5..=most).contains(limit)).ok_or_else(|| {
            ApiError::value(format!(
                "Value ( {limit} ) for parameter maxResults is invalid. Expecting a value between 5 and {most}."
            ))
        })?;
        match rest.get(limit.saturating_sub(1)) {
            Some(last) if rest.len() > limit => Ok((&rest[..limit], Some(token_of(&last.to_string())))),
            _ => Ok((rest, None)),
        }
    }

    pub(crate) fn answer(&self, request_id: &str, inner: impl FnOnce(&mut Xml)) -> String {
        Xml::document(&format!("{}Response", self.action), NAMESPACE, |xml| {
            xml.text("requestId", request_id);
            inner(xml);
        })
    }
}

/// An error in EC2's format. STS's differs, but the SDKs read the code from both.
pub(crate) fn error_reply(error: &ApiError, request_id: &str) -> Reply {
    let xml = Xml::document("Response", "", |xml| {
        xml.element("Errors", |xml| {
            xml.element("Error", |xml| {
                xml.text("Code", &error.code).text("Message", &error.message);
            });
        });
        xml.text("RequestID", request_id);
    });
    Reply::xml(error.status, &error.code, xml, request_id)
}

fn token_of(id: &str) -> String {
    crate::wire::sigv4::hex(id.as_bytes())
}

/// A page of network interfaces or route tables that do not exist, with a token that no other page has.
pub(crate) fn endless_page(action: &str, page: usize, things: usize, entries: usize) -> String {
    Xml::document(&format!("{action}Response"), NAMESPACE, |xml| match action {
        "DescribeRouteTables" => route_tables::write_endless_page(xml, page, things, entries),
        _ => {
            xml.items("networkInterfaceSet", 0..things, |xml, n| {
                xml.text("networkInterfaceId", format!("eni-{page:07x}{n:010x}"));
                xml.text("subnetId", "subnet-0a00000000000000f");
                xml.items("privateIpAddressesSet", 0..entries.min(256), |xml, last| {
                    let address = Ipv4Addr::new(192, (n >> 8) as u8, n as u8, last as u8);
                    xml.text("privateIpAddress", address);
                    xml.text("privateDnsName", format!("ip-{address}.eu-west-1.compute.internal"));
                    xml.text("primary", last == 0);
                });
            });
            xml.text("nextToken", token_of(&format!("page {page}")));
        }
    })
}

/// The values of an interface for a filter; `None` if there is no such filter.
fn eni_values(cloud: &Cloud, view: &View, id: &EniId, name: &str) -> Option<Vec<String>> {
    let eni = cloud.enis.get(id)?;
    let subnet = cloud.subnets.get(&eni.subnet)?;
    let addresses = view.of(id);
    let elastic_ips = || addresses.iter().filter_map(|assigned| assigned.elastic_ip.as_ref());
    let attachment = eni.attachment.as_ref();
    let of_attachment =
        |value: fn(&(InstanceId, usize)) -> String| attachment.map(value).into_iter().collect::<Vec<_>>();
    Some(match name {
        "addresses.private-ip-address" => addresses.iter().map(|ip| ip.address.to_string()).collect(),
        "addresses.primary" => addresses.iter().map(|ip| (ip.address == eni.primary).to_string()).collect(),
        "addresses.association.public-ip" | "association.public-ip" => {
            elastic_ips().map(|shown| shown.public.to_string()).collect()
        }
        "association.allocation-id" => elastic_ips().map(|shown| shown.allocation.to_string()).collect(),
        "association.association-id" => elastic_ips().map(|shown| shown.association.to_string()).collect(),
        "attachment.instance-id" => of_attachment(|(instance, _)| instance.to_string()),
        "attachment.device-index" => of_attachment(|(_, index)| index.to_string()),
        "attachment.status" => of_attachment(|_| "attached".to_owned()),
        "availability-zone" => vec![subnet.zone.clone()],
        "mac-address" => vec![eni.mac.clone()],
        "network-interface-id" => vec![id.to_string()],
        "owner-id" => vec![cloud.world.account.clone()],
        "private-ip-address" => vec![eni.primary.to_string()],
        "source-dest-check" => vec![eni.source_dest_check.to_string()],
        "status" => vec![status(eni).to_owned()],
        "subnet-id" => vec![eni.subnet.to_string()],
        "vpc-id" => vec![subnet.vpc.to_string()],
        _ => return None,
    })
}

fn instance_values(cloud: &Cloud, view: &View, id: &InstanceId, name: &str) -> Option<Vec<String>> {
    let enis = || interfaces(cloud, id);
    Some(match name {
        "instance-id" => vec![id.to_string()],
        "instance-state-name" => vec![instance_state(cloud, id).1.to_owned()],
        "private-ip-address" => enis().take(1).map(|(_, eni)| eni.primary.to_string()).collect(),
        _ => {
            let name = match name.strip_prefix("network-interface.") {
                Some(name) => name,
                None if ["subnet-id", "vpc-id", "availability-zone"].contains(&name) => name,
                None => return None,
            };
            let mut all = Vec::new();
            for (eni, _) in enis() {
                all.extend(eni_values(cloud, view, eni, name)?);
            }
            all
        }
    })
}

/// The interfaces of an instance in the order of their device index.
pub(crate) fn interfaces<'a>(
    cloud: &'a Cloud,
    instance: &InstanceId,
) -> impl Iterator<Item = (&'a EniId, &'a Eni)> + use<'a> {
    let index = |eni: &Eni| eni.attachment.as_ref().map(|(_, index)| *index);
    let mut found: Vec<_> =
        cloud.enis.iter().filter(|(_, eni)| eni.attachment.as_ref().is_some_and(|(id, _)| id == instance)).collect();
    found.sort_by_key(|(_, eni)| index(eni));
    found.into_iter()
}

/// The instance that an interface is attached to.
pub(crate) fn attached_to<'a>(cloud: &'a Cloud, eni: &EniId) -> Option<&'a InstanceId> {
    cloud.enis.get(eni)?.attachment.as_ref().map(|(instance, _)| instance)
}

fn instance_state(cloud: &Cloud, id: &InstanceId) -> (u8, &'static str) {
    match cloud.instances.get(id) {
        Some(instance) if instance.running => (16, "running"),
        _ => (80, "stopped"),
    }
}

fn status(eni: &Eni) -> &'static str {
    match eni.attachment {
        Some(_) => "in-use",
        None => "available",
    }
}

fn write_eni(xml: &mut Xml, cloud: &Cloud, view: &View, id: &EniId, eni: &Eni) {
    let Some(subnet) = cloud.subnets.get(&eni.subnet) else {
        return;
    };
    let addresses = view.of(id);
    xml.text("networkInterfaceId", id);
    xml.text("subnetId", &eni.subnet);
    xml.text("vpcId", &subnet.vpc);
    xml.text("availabilityZone", &subnet.zone);
    xml.text("description", "");
    xml.text("ownerId", &cloud.world.account);
    xml.text("requesterManaged", false);
    xml.text("status", status(eni));
    xml.text("macAddress", &eni.mac);
    xml.text("privateIpAddress", eni.primary);
    xml.text("sourceDestCheck", eni.source_dest_check);
    xml.items("groupSet", [(); 0], |_, ()| {});
    if let Some((instance, index)) = &eni.attachment {
        xml.element("attachment", |xml| {
            xml.text("attachmentId", id.as_ref().replacen("eni-", "eni-attach-", 1));
            xml.text("instanceId", instance);
            xml.text("instanceOwnerId", &cloud.world.account);
            write_attachment_end(xml, cloud, *index);
        });
    }
    write_association(xml, cloud, addresses.first().and_then(|first| first.elastic_ip.as_ref()));
    xml.items("tagSet", [(); 0], |_, ()| {});
    write_addresses(xml, cloud, eni, addresses);
    xml.items("ipv4PrefixSet", &eni.prefixes, |xml, prefix| {
        xml.text("ipv4Prefix", prefix);
    });
    xml.items("ipv6AddressesSet", [(); 0], |_, ()| {});
    xml.text("interfaceType", "interface");
}

fn write_attachment_end(xml: &mut Xml, cloud: &Cloud, index: usize) {
    xml.text("deviceIndex", index);
    xml.text("status", "attached");
    xml.text("attachTime", format!("{:.0}", cloud.started));
    xml.text("deleteOnTermination", index == 0);
}

fn write_addresses(xml: &mut Xml, cloud: &Cloud, eni: &Eni, addresses: &[Assigned]) {
    xml.items("privateIpAddressesSet", addresses, |xml, assigned| {
        xml.text("privateIpAddress", assigned.address);
        xml.text("primary", assigned.address == eni.primary);
        write_association(xml, cloud, assigned.elastic_ip.as_ref());
    });
}

fn write_association(xml: &mut Xml, cloud: &Cloud, elastic_ip: Option<&Shown>) {
    if let Some(Shown { allocation, association, public }) = elastic_ip {
        xml.element("association", |xml| {
            xml.text("publicIp", public);
            xml.text("publicDnsName", "");
            xml.text("ipOwnerId", &cloud.world.account);
            xml.text("allocationId", allocation);
            xml.text("associationId", association);
        });
    }
}

fn write_instance(xml: &mut Xml, cloud: &Cloud, view: &View, id: &InstanceId) {
    xml.text("instanceId", id);
    xml.element("instanceState", |xml| {
        let (code, name) = instance_state(cloud, id);
        xml.text("code", code).text("name", name);
    });
    if let Some((_, first)) = interfaces(cloud, id).next() {
        xml.text("privateIpAddress", first.primary);
        xml.text("subnetId", &first.subnet);
        xml.optional("vpcId", cloud.subnets.get(&first.subnet).map(|subnet| &subnet.vpc));
        xml.text("sourceDestCheck", first.source_dest_check);
    }
    xml.items("networkInterfaceSet", interfaces(cloud, id), |xml, (id, eni)| {
        let subnet = cloud.subnets.get(&eni.subnet);
        xml.text("networkInterfaceId", id);
        xml.text("subnetId", &eni.subnet);
        xml.optional("vpcId", subnet.map(|subnet| &subnet.vpc));
        xml.text("ownerId", &cloud.world.account);
        xml.text("status", status(eni));
        xml.text("macAddress", &eni.mac);
        xml.text("privateIpAddress", eni.primary);
        xml.text("sourceDestCheck", eni.source_dest_check);
        if let Some((_, index)) = &eni.attachment {
            xml.element("attachment", |xml| {
                xml.text("attachmentId", id.as_ref().replacen("eni-", "eni-attach-", 1));
                write_attachment_end(xml, cloud, *index);
            });
        }
        write_addresses(xml, cloud, eni, view.of(id));
    });
    xml.items("tagSet", [(); 0], |_, ()| {});
}
