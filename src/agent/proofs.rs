//! `force prove`: has EC2 show that it permits the claims, without moving anything, when an operator asks for it.

use std::mem;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use vipa_core::claim::{DryRunRequest, Event};
use vipa_core::model::ec2::CallError;
use vipa_core::model::ids::EniId;
use vipa_core::model::proof::{Caller, Judgement, Proof};
use vipa_core::report::proof::{Finding, ProofReport, ProveReport, Subject};

use super::Agent;
use super::effects::ProofAnswers;
use crate::agent::state::Saved;
use crate::aws::AssignmentProbe;
use crate::control::{ErrorResponse, ResponseCode};
use crate::log_messages::log;

/// The time limit of all calls together.
const PROVE_TIMEOUT: Duration = Duration::from_secs(6);

/// The proof that is under way, or done.
#[derive(Debug, Default)]
pub(super) enum Proving {
    #[default]
    Idle,
    /// EC2 has not answered everything.
    UnderWay {
        dry_runs: Vec<DryRunRequest>,
        /// How many dry runs are not made.
        skipped: usize,
        /// Who calls EC2, if that was known.
        caller: Option<Caller>,
    },
    /// What was found out, for the client.
    Done(ProveReport),
}

impl Agent<'_> {
    /// Starts a proof of everything that is configured.
    pub(super) fn start_proof(&mut self) -> Result<(), ErrorResponse> {
        let refused = |why: &str| Err(ErrorResponse::new(ResponseCode::Refused, why));
        // Two clients at a time would get one report.
        if matches!(self.proving, Proving::UnderWay { .. }) || self.waiters.await_a_proof() {
            return refused("`force aws-vipa prove` is already running: wait 10 s, and run it again");
        }
        let (enis, dry_runs) = self.machine.to_prove();
        if enis.is_empty() && dry_runs.is_empty() {
            return refused(
                "there is nothing to prove: no group is enabled, or no ENI is known. Check `show aws-vipa status`",
            );
        }
        if self.machine.is_claiming() {
            return refused("claims are in flight, and come first: run `force aws-vipa prove` when they have ended");
        }
        let instance = self.effects.instance_id();
        if !enis.is_empty() && instance.is_none() {
            return refused("the id of this instance is not known yet: `show aws-vipa check` shows why");
        }
        let all = dry_runs.len();
        let dry_runs = DryRunRequest::chosen(dry_runs);
        let (skipped, caller) = (all - dry_runs.len(), self.effects.caller());
        self.proving = Proving::UnderWay { dry_runs: dry_runs.clone(), skipped, caller };
        let timeout = self.config.global.request_timeout.duration();
        self.effects.prove(instance.map(|instance| (instance, enis)), dry_runs, timeout, PROVE_TIMEOUT);
        Ok(())
    }

    /// EC2 has answered: stores what ENIs are about, logs everything, and answers the client.
    pub(super) fn proved(&mut self, ProofAnswers { enis, dry_runs }: ProofAnswers) {
        let at = Timestamp::now();
        let (mut all, mut allowed) = (Vec::new(), Vec::new());
        for (eni, probe) in enis {
            let finding = match probe {
                Err(error) => Finding::Inconclusive { error },
                Ok((AssignmentProbe::NoSuchEni, _)) => Finding::NoSuchEni,
                Ok((AssignmentProbe::NotAttached(instance), _)) => Finding::NotAttached { instance },
                Ok((AssignmentProbe::Answered { request_id, result }, caller)) => {
                    let judgement = Judgement::of(result);
                    let (proof, id) = (judgement.clone(), eni.clone());
                    if matches!(judgement, Judgement::Allowed(_)) {
                        allowed.push(eni.clone());
                    }
                    self.state.proofs.change(|proofs| proofs.add(at, id, &proof, request_id.as_ref(), caller));
                    judgement.into()
                }
            };
            all.push((Subject::Eni(eni), finding));
        }
        let (requests, skipped, caller) = match mem::take(&mut self.proving) {
            Proving::UnderWay { dry_runs, skipped, caller } => (dry_runs, skipped, caller),
            Proving::Idle | Proving::Done(_) => (Vec::new(), 0, None),
        };
        // With other credentials the agent repeats its own dry runs.
        let is_same_caller = caller.is_some() && caller == self.effects.caller();
        for (resource, result) in dry_runs {
            let is_decided = result.as_ref().err().is_none_or(CallError::is_refusal);
            let request = requests.iter().find(|request| request.resource() == resource);
            if let Some(request) = request.filter(|_| is_same_caller && is_decided) {
                self.handle(Event::DryRunByOperator { request: request.clone(), result: result.clone() });
            }
            all.push((Subject::Resource(resource), Finding::of_dry_run(result)));
        }
        all.iter().for_each(|(subject, finding)| log_finding(subject, finding));
        // Before the client gets its answer, which says whether they are on disk.
        self.state.proofs.hurry();
        self.proving = Proving::Done(ProveReport { findings: all, skipped, not_saved: None });
        allowed.into_iter().for_each(|eni| self.handle(Event::Proved(eni)));
        self.denials_changed();
        self.state_writer.notice(&self.state, Instant::now());
        self.reply();
    }

    /// Proofs, or who calls EC2, may have changed: tells the machine which denials count. With a new configuration those of
    /// before count until credentials are loaded, which shows who calls.
    pub(super) fn denials_changed(&mut self) {
        if let Some(caller) = self.effects.caller() {
            self.handle(Event::Denials(self.state.proofs.get().denials(&caller)));
        }
    }

    /// The report for the client, once there is one and its proofs are on disk, or known not to be.
    pub(super) fn proof_ended(&self) -> bool {
        matches!(self.proving, Proving::Done(_)) && self.state.proofs.saved() != Saved::NotYet
    }

    /// The report for the client.
    pub(super) fn proof_report(&self) -> Result<ProveReport, ErrorResponse> {
        match &self.proving {
            Proving::Done(report) => {
                let not_saved = match self.state.proofs.saved() {
                    Saved::Yes => None,
                    Saved::NotYet => Some("the disk did not finish the write in time".to_owned()),
                    Saved::No(why) => Some(why),
                };
                Ok(ProveReport { not_saved, ..report.clone() })
            }
            Proving::Idle | Proving::UnderWay { .. } => Err(ErrorResponse::new(
                ResponseCode::Busy,
                "EC2 has not answered in time: `show log aws-vipa` shows the results",
            )),
        }
    }

    /// The stored proofs, for the status.
    pub(super) fn proofs(&self) -> Vec<ProofReport> {
        let caller = self.effects.caller();
        let all = self.state.proofs.get().all(caller.as_ref());
        let reported = |(eni, proof, outdated_by): (&EniId, &Proof, _)| ProofReport {
            eni: eni.clone(),
            answer: proof.answer.clone(),
            outdated_by,
        };
        all.map(reported).collect()
    }
}

fn log_finding(subject: &Subject, finding: &Finding) {
    let of = match subject {
        Subject::Eni(eni) => eni.to_string(),
        Subject::Resource(resource) => resource.to_string(),
    };
    match finding {
        Finding::Allowed { code } => {
            let code = code.as_ref().map(|code| code.as_str());
            log!(PERMISSION_PROVED, of, code);
        }
        Finding::Refused { error } => {
            let request_id = error.request_id.as_ref().map(|id| id.as_str());
            log!(WOULD_BE_REFUSED, of, code = error.code(), message = error.message, request_id);
        }
        Finding::Denied { error } => {
            let request_id = error.request_id.as_ref().map(|id| id.as_str());
            log!(PERMISSION_DENIED, of, code = error.code(), message = error.message, request_id);
        }
        Finding::Inconclusive { error } => {
            let request_id = error.request_id.as_ref().map(|id| id.as_str());
            log!(PERMISSION_NOT_PROVED, of, code = error.code(), message = error.message, request_id);
        }
        Finding::NotAttached { instance } => {
            let instance = instance.as_ref().map_or("no instance", |instance| instance.as_str());
            let message = format!("the ENI is attached to {instance}");
            log!(PERMISSION_NOT_PROVED, of, message);
        }
        Finding::NoSuchEni => log!(PERMISSION_NOT_PROVED, of, message = "EC2 has no such ENI"),
    }
}
