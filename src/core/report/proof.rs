//! What `force prove` has found out about the permission to claim, as values and as text for a terminal of 80 columns.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::remedies;
use super::status::{GAP, WIDTH, ago, lines};
use crate::model::ec2::CallError;
use crate::model::ids::{EniId, ErrorCode, InstanceId};
use crate::model::proof::{Judgement, OutdatedBy, ProofAnswer};
use crate::model::resource::Resource;

/// The widths of the columns: `INCONCLUSIVE`, and the rest.
const COLUMNS: [u16; 2] = [12, WIDTH - 12 - GAP];

/// The stored proof for one ENI, in the status report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProofReport {
    /// The ENI that the call would assign addresses to.
    pub eni: EniId,
    /// EC2's answer.
    #[serde(flatten)]
    pub answer: ProofAnswer,
    /// What has changed since, so that it counts no more; absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outdated_by: Option<OutdatedBy>,
}

/// What a proof was about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// To assign addresses to the ENI.
    Eni(EniId),
    /// To claim a route or an Elastic IP.
    Resource(Resource),
}

/// What was found out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Finding {
    /// EC2 permits the call.
    Allowed {
        /// The error code of EC2's answer; absent: a success.
        code: Option<ErrorCode>,
    },
    /// A policy denies the call, or does not allow it.
    Denied {
        /// EC2's answer.
        error: CallError,
    },
    /// EC2 permits the call, and would refuse this one.
    Refused {
        /// EC2's answer.
        error: CallError,
    },
    /// EC2's answer, or its absence, shows nothing.
    Inconclusive {
        /// Why the permission is unknown.
        error: CallError,
    },
    /// The ENI is attached to another instance or none, so EC2 was not asked.
    NotAttached {
        /// The instance that it is attached to.
        instance: Option<InstanceId>,
    },
    /// EC2 has no such ENI.
    NoSuchEni,
}

impl From<Judgement> for Finding {
    fn from(judgement: Judgement) -> Self {
        match judgement {
            Judgement::Allowed(code) => Self::Allowed { code },
            Judgement::Denied(error) => Self::Denied { error },
            Judgement::Inconclusive(error) => Self::Inconclusive { error },
        }
    }
}

impl Finding {
    /// What a dry run has shown.
    pub fn of_dry_run(result: Result<(), CallError>) -> Self {
        match result {
            // Only this shows that the claim itself would be performed.
            Ok(()) => Self::Allowed { code: None },
            Err(error) => match Judgement::of(Err(error.clone())) {
                Judgement::Allowed(_) => Self::Refused { error },
                judgement => judgement.into(),
            },
        }
    }

    /// Whether a claim would be permitted and performed.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed { .. })
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Allowed { .. } => "ALLOWED",
            Self::Denied { .. } => "DENIED",
            Self::Refused { .. } => "REFUSED",
            Self::Inconclusive { .. } => "INCONCLUSIVE",
            Self::NotAttached { .. } | Self::NoSuchEni => "NOT ASKED",
        }
    }
}

/// The answer to a request for proofs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProveReport {
    /// What was found out, about ENIs first.
    pub findings: Vec<(Subject, Finding)>,
    /// How many routes and Elastic IPs were skipped, because EC2 limits the rate of calls.
    pub skipped: usize,
    /// Why the proofs are not on disk, if so.
    pub not_saved: Option<String>,
}

/// The findings as a table.
pub fn table(report: &ProveReport) -> String {
    let mut text = String::new();
    let titles = ["Result", "Permission, and what to do"].map(str::to_owned);
    lines(&mut text, COLUMNS, [titles, COLUMNS.map(|width| "-".repeat(width.into()))]);
    let rows =
        report.findings.iter().map(|(subject, finding)| [finding.word().to_owned(), explained(subject, finding)]);
    lines(&mut text, COLUMNS, rows);
    if report.skipped > 0 {
        let skipped = format!(
            "{} more routes and Elastic IPs: a standby makes a dry run of each by itself, once a day",
            report.skipped
        );
        lines(&mut text, COLUMNS, [["NOT ASKED".to_owned(), skipped]]);
    }
    text
}

fn explained(subject: &Subject, finding: &Finding) -> String {
    let what = match subject {
        Subject::Eni(eni) => format!("ec2:AssignPrivateIpAddresses for {eni}"),
        Subject::Resource(resource) => format!("dry run of the claim of {resource}"),
    };
    match finding {
        Finding::Allowed { code: None } => what,
        Finding::Allowed { code: Some(code) } => format!("{what} (EC2 refused the parameter only: {code})"),
        Finding::Denied { error } | Finding::Refused { error } => {
            let next = match subject {
                Subject::Eni(_) => remedies::with_next_step(error),
                Subject::Resource(resource) => remedies::with_next_step_of_kind(resource.kind(), error),
            };
            format!("{what}: {next}")
        }
        Finding::Inconclusive { error } => {
            let error = error.to_string();
            let error = error.trim_end_matches('.');
            format!("{what}: {error}. The permission is still unknown: run `force aws-vipa prove` again")
        }
        Finding::NotAttached { instance } => {
            let there = match instance {
                Some(instance) => format!("{instance}, not to this instance"),
                None => "no instance".to_owned(),
            };
            format!("{what}: it is attached to {there}. {}", remedies::capitalized(remedies::ENI))
        }
        Finding::NoSuchEni => {
            format!(
                "{what}: EC2 has no such ENI in this account and region. Check `aws-vipa network-interface-id`, `aws-vipa region` \
                 and the account of the credentials"
            )
        }
    }
}

/// A stored proof in a sentence.
pub fn sentence(proof: &ProofReport, now: Timestamp) -> String {
    const PROVE: &str = "`force aws-vipa prove`";
    let age = ago(proof.answer.at, now);
    let by = |change| match change {
        OutdatedBy::Instance => "on another instance",
        OutdatedBy::Endpoint => "in another region or at another endpoint",
        OutdatedBy::Credentials => "with other credentials",
    };
    match (proof.outdated_by, proof.answer.allowed) {
        (Some(change), true) => format!("proven {age}, but {}: run {PROVE} again", by(change)),
        (Some(change), false) => format!("denied {age}, but {}: run {PROVE} again", by(change)),
        (None, true) => format!("proven {age} by {PROVE}"),
        (None, false) => format!("denied {age} by {PROVE}"),
    }
}
