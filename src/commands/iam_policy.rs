//! `generate iam-policy`: the IAM policy with the least permissions that this router's configuration needs.

use std::collections::BTreeSet;
use std::io::{self, Write};

use tokio::task::JoinSet;
use vipa_core::keepalived::groups::Groups;
use vipa_core::model::assignment::plan;
use vipa_core::model::config::{Config, GroupConfig};
use vipa_core::model::ids::{EniId, Partition};
use vipa_core::model::resource::Kind;
use vipa_core::report::iam_policy::{PolicyInputs, Tag, policy};
use vipa_core::report::model::Report;
use vipa_core::report::status::indented;

use super::print;
use super::show_status::{self, Deadline, ShowStatusError, ask};
use crate::aws::{Imds, InterfaceEnis};
use crate::fs::json_file;
use crate::paths::Paths;

/// The policy could not be made or printed.
#[derive(Debug, thiserror::Error)]
pub enum IamPolicyError {
    /// Nothing is configured, or the configuration cannot be read.
    #[error(transparent)]
    Configuration(ShowStatusError),
    /// The async runtime cannot be started.
    #[error("cannot start the async runtime: {0}")]
    Runtime(#[source] io::Error),
    /// The policy or the notes cannot be printed.
    #[error("cannot print the policy: {0}")]
    Print(#[source] io::Error),
}

/// What the policy allows.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct IamPolicy {
    /// Select the network interfaces by this tag instead of naming them.
    #[arg(long, value_name = "KEY=VALUE")]
    pub tag: Option<Tag>,
}

impl IamPolicy {
    /// Prints the policy to `out`, and to `notes` which values are unknown, and how to use the policy.
    ///
    /// # Errors
    /// [`IamPolicyError`]. If IMDS does not answer, that is a note.
    pub fn run(
        &self,
        paths: &Paths,
        imds: &Imds,
        out: &mut impl Write,
        notes: &mut impl Write,
    ) -> Result<(), IamPolicyError> {
        let no_agent = "agent not queried".to_owned();
        let config = match show_status::configuration(paths, &no_agent) {
            Ok(config) => config,
            // With a tag the policy names no interface, and IMDS has the rest, so it can be made before the router is
            // configured.
            Err(ShowStatusError::NotConfigured) if self.tag.is_some() => Config::default(),
            Err(error) => return Err(IamPolicyError::Configuration(error)),
        };
        // If IMDS does not answer, the agent may still have the ENIs.
        let report = ask(paths, Deadline::new(), false, 0).ok();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(IamPolicyError::Runtime)?;
        let facts = runtime.block_on(facts(&config, paths, imds, report.as_ref()));
        let (policy, remarks) = policy(&facts, self.tag.as_ref());
        let text = serde_json::to_string_pretty(&policy).map_err(|e| IamPolicyError::Print(e.into()))?;
        let mut notes_text = String::new();
        indented(&mut notes_text, 0, remarks);
        print(notes, &notes_text).and_then(|()| print(out, &(text + "\n"))).map_err(IamPolicyError::Print)
    }
}

async fn facts(config: &Config, paths: &Paths, imds: &Imds, report: Option<&Report>) -> PolicyInputs {
    let mut facts = PolicyInputs {
        route_tables: config.groups.iter().flat_map(|g| &g.routes).flat_map(|r| &r.tables).cloned().collect(),
        elastic_ips: config.groups.iter().flat_map(|g| &g.elastic_ips).map(|e| e.allocation.clone()).collect(),
        ..PolicyInputs::default()
    };
    let plan = match json_file::read::<Groups>(&paths.groups) {
        Ok(groups) => plan(config, &groups),
        Err(error) => {
            facts.missing.push(format!("Cannot read which interfaces get addresses: {error}."));
            Default::default()
        }
    };
    let planned = || plan.groups.iter().flat_map(|g| &g.resources).filter(|r| r.resource.kind() != Kind::Route);
    // A group that keepalived does not run yet may have addresses.
    let may_have_addresses = |group: &GroupConfig| {
        !group.no_address && plan.groups.iter().all(|planned| planned.name != group.name || planned.vrid.is_none())
    };
    facts.claims_addresses = config.groups.is_empty()
        || !config.skipped.is_empty()
        || planned().any(|r| r.resource.kind() == Kind::Address)
        || config.groups.iter().any(may_have_addresses);
    let enis = InterfaceEnis::read(imds).await;
    let mut asked = JoinSet::new();
    for resource in planned() {
        enis_of(&mut facts, resource.resource.kind()).extend(resource.eni.clone());
    }
    for interface in plan.interfaces() {
        let (enis, interface) = (enis.clone(), interface.clone());
        asked.spawn(async move {
            let (eni, place) = tokio::join!(enis.eni(&interface), enis.eni_network(&interface));
            let eni = eni.map(|eni| eni.id).map_err(|e| e.to_string());
            (interface, eni, place.ok())
        });
    }
    let (instance, partition, enis) = tokio::join!(imds.instance(), imds.partition(), asked.join_all());
    let wanted: Vec<_> = planned().filter(|r| r.eni.is_none()).collect();
    for (interface, eni, place) in enis {
        facts.account = facts.account.take().or(place.map(|p| p.account));
        let kinds: BTreeSet<Kind> =
            wanted.iter().filter(|r| r.interface == interface).map(|r| r.resource.kind()).collect();
        if kinds.is_empty() {
            continue;
        }
        let known = || report?.eni_of(&interface).cloned();
        match eni.or_else(|why| known().ok_or(why)) {
            Ok(eni) => kinds.into_iter().for_each(|kind| _ = enis_of(&mut facts, kind).insert(eni.clone())),
            Err(why) => facts.missing.push(format!("ENI of {interface} unknown, not in the policy: {why}.")),
        }
    }
    let known = || instance.as_ref().ok().map(|i| i.region.clone()).or(report.and_then(|r| r.ec2.region.clone()));
    facts.region = config.global.region.clone().or_else(known);
    facts.partition = partition.ok().or_else(|| facts.region.as_ref().and_then(Partition::of));
    facts
}

/// The ENIs that what is claimed of this kind belongs on; the policy names none for routes.
fn enis_of(facts: &mut PolicyInputs, kind: Kind) -> &mut BTreeSet<EniId> {
    match kind {
        Kind::Address | Kind::Route => &mut facts.enis,
        Kind::ElasticIp => &mut facts.elastic_ip_enis,
    }
}
