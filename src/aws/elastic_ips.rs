//! The calls about Elastic IPs: AssociateAddress and DescribeAddresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use aws_sdk_ec2::types::{self, Filter};
use vipa_core::model::ec2::{Acknowledgement, CallError};
use vipa_core::model::ids::{AllocationId, EniId};
use vipa_core::model::resource::{Holder, NotTakeable, Resource};

use super::assumptions::MAX_FILTER_VALUES;
use super::ec2::{Bound, Ec2, address, invalid_response, owner, permitted, request_id, unreadable};

impl Ec2 {
    /// Associates an Elastic IP with a private address of the ENI, or with its primary one: AssociateAddress with
    /// AllowReassociation.
    ///
    /// # Errors
    /// See [`CallError`]. After [`ErrorClass::TimedOut`](vipa_core::model::ec2::ErrorClass::TimedOut), and after
    /// `Connection` and `Answer`, EC2 may have performed the claim, or may still perform it.
    pub async fn claim_elastic_ip(
        &self,
        allocation: &AllocationId,
        eni: &EniId,
        private_address: Option<Ipv4Addr>,
        timeout: Duration,
    ) -> Result<Acknowledgement, CallError> {
        self.associate(allocation, eni, private_address, false, timeout).await
    }

    /// Whether EC2 permits the same, by a dry run, which changes nothing.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn dry_run_elastic_ip(
        &self,
        allocation: &AllocationId,
        eni: &EniId,
        private_address: Option<Ipv4Addr>,
        timeout: Duration,
    ) -> Result<(), CallError> {
        permitted(self.associate(allocation, eni, private_address, true, timeout).await)
    }

    async fn associate(
        &self,
        allocation: &AllocationId,
        eni: &EniId,
        private_address: Option<Ipv4Addr>,
        dry_run: bool,
        timeout: Duration,
    ) -> Result<Acknowledgement, CallError> {
        let answer = self
            .attempt("ec2:AssociateAddress", Bound::after(timeout), |client| {
                client
                    .associate_address()
                    .set_dry_run(dry_run.then_some(true))
                    .allocation_id(allocation.as_str())
                    .network_interface_id(eni.as_str())
                    .set_private_ip_address(private_address.map(|address| address.to_string()))
                    .allow_reassociation(true)
                    .send()
            })
            .await?;
        Ok(Acknowledgement { request_id: request_id(&answer), unlisted: BTreeSet::new() })
    }

    /// What the Elastic IPs are associated with: DescribeAddresses, 200 a request, which together are bounded by `timeout`.
    /// One without an association is absent.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn associations(
        &self,
        allocations: &[AllocationId],
        timeout: Duration,
    ) -> Result<BTreeMap<Resource, Holder>, CallError> {
        let bound = Bound::after(timeout);
        let none = || Some(Holder::NotTakeable(NotTakeable::NoSuchAllocation));
        let mut holders: BTreeMap<&AllocationId, Option<Holder>> = allocations.iter().map(|id| (id, none())).collect();
        for chunk in allocations.chunks(MAX_FILTER_VALUES) {
            let ids = chunk.iter().map(ToString::to_string).collect();
            let filter = Filter::builder().name("allocation-id").set_values(Some(ids)).build();
            let answer = self
                .attempt("ec2:DescribeAddresses", bound, |client| {
                    client.describe_addresses().filters(filter.clone()).send()
                })
                .await?;
            let Some(addresses) = answer.addresses else {
                return Err(invalid_response("the answer does not list Elastic IPs".to_owned()));
            };
            for elastic_ip in addresses {
                let id: AllocationId = elastic_ip.allocation_id().unwrap_or_default().try_into().map_err(unreadable)?;
                if let Some(known) = holders.get_mut(&id) {
                    *known = holder(&elastic_ip)?;
                }
            }
        }
        let held = holders.into_iter().filter_map(|(id, holder)| Some((Resource::ElasticIp(id.clone()), holder?)));
        Ok(held.collect())
    }
}

/// What an Elastic IP is associated with, if anything.
fn holder(elastic_ip: &types::Address) -> Result<Option<Holder>, CallError> {
    if let Some(service) = elastic_ip.service_managed() {
        return Ok(Some(Holder::NotTakeable(NotTakeable::ManagedBy(service.as_str().to_owned()))));
    }
    let (Some(eni), Some(private)) = (elastic_ip.network_interface_id(), elastic_ip.private_ip_address()) else {
        return Ok(None);
    };
    let owner = owner(eni, elastic_ip.instance_id())?;
    let public_address = elastic_ip.public_ip().map(address).transpose()?;
    Ok(Some(Holder::Association { owner, private_address: address(private)?, public_address }))
}
