//! Probes a policy and commits what that changes: the only way key health ever changes (design, 7).

use claviger_domain::decide::{
    Decision, Refusal, Rules, becomes_due, decide, is_answered, proves_access, wants_confirmation,
};
use claviger_domain::event::{Actor, Origin, PolicyEvent};
use claviger_domain::heard::HeardChange;
use claviger_domain::ids::CorrelationId;
use claviger_domain::observation::{Observation, ProbeRound, RefusalKind, RefusedUnwrap};
use claviger_domain::policy::{EncryptionPolicy, KeyHealth};
use claviger_domain::values::OrganisationName;
use futures_util::future::join;
use jiff::SignedDuration;

use crate::error::{ATTEMPTS, WorkError};
use crate::mass_failure::mass_failure;
use crate::messages::ProbeMessage;
use crate::ports::{Clock, HintRecords, Policies, ProbeQueue, StoreError, WatchList};
use crate::probe_keys::ProbeKeys;
use crate::settings::Settings;

/// How often every region is probed at most: twice, and once more where the first time took so long that the second
/// proves nothing together with it.
const ROUNDS: usize = 3;

/// Whether another round would say no more: the last one needs no confirmation, or it confirms the one before.
fn settled(rules: &Rules<'_>, policy: &EncryptionPolicy, rounds: &[ProbeRound]) -> bool {
    let wants = |round: &ProbeRound| wants_confirmation(rules, policy, round);
    match rounds {
        [.., before, last] => {
            !wants(last) || last.started_at.duration_since(before.started_at) <= rules.window
        }
        [only] => !wants(only),
        [] => false,
    }
}

/// What came of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The rounds that were sent, oldest first.
    pub rounds: Vec<ProbeRound>,
    /// Whether anything changed in the store.
    pub changed: bool,
}

impl Report {
    /// Whether the last round proves that the policy, as it was probed, is not revoked, or that it is: enough regions
    /// are usable, or every region that counts answered. Otherwise nobody knows, and the policy is unproven.
    pub fn is_proof(&self, rules: &Rules<'_>, known: &EncryptionPolicy) -> bool {
        let last = self.rounds.last();
        last.is_some_and(|last| proves_access(rules, known, last) || is_answered(known, last))
    }

    /// Whether a region refused ambiguously that is not known yet to stand refused.
    pub fn is_newly_ambiguous(&self, known: &EncryptionPolicy) -> bool {
        let ambiguous = |saw: &Observation| matches!(saw, Observation::Refused(kind) if !kind.is_definite());
        let stood = |region| known.keys.get(region).is_some_and(|key| key.health.stands_refused());
        let last = self.rounds.last();
        last.is_some_and(|last| {
            last.observations.iter().any(|(region, saw)| ambiguous(saw) && !stood(region))
        })
    }

    /// Whether every region was usable in the last round.
    pub fn all_usable(&self) -> bool {
        self.rounds
            .last()
            .is_some_and(|last| last.observations.values().all(|saw| matches!(saw, Observation::Usable)))
    }
}

/// Why a policy is probed, beside the regular sweep.
#[derive(Debug, Clone, Default)]
pub struct Reason {
    /// A broker could not unwrap this.
    pub met: Option<RefusedUnwrap>,
    /// Events of the customer's account said this.
    pub heard: Vec<HeardChange>,
    /// Whether many customers of the shard are refused at once, if whoever probes knows already.
    pub mass_failure: Option<bool>,
}

/// Probes and reports.
#[derive(Clone, Copy)]
pub struct ReportProbes<'a> {
    /// How to probe.
    pub probe: ProbeKeys<'a>,
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// What events of customers' accounts said.
    pub hints: &'a dyn HintRecords,
    /// Where the probe of an ambiguous refusal waits until it is due.
    pub queue: &'a dyn ProbeQueue,
    /// Where it stands whether many customers are refused at once.
    pub watch: &'a dyn WatchList,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl ReportProbes<'_> {
    /// Probes the policy of an organisation because of a hint.
    ///
    /// # Errors
    /// When the store fails; a policy that is gone or not watched is no error.
    pub async fn of_organisation(
        &self,
        organisation: &OrganisationName,
        reason: &Reason,
        correlation: CorrelationId,
    ) -> Result<Option<Report>, WorkError> {
        match self.policies.policy(organisation).await? {
            Some(policy) if policy.lifecycle.is_watched() => {
                self.of_policy(&policy, reason, correlation).await.map(Some)
            }
            Some(_) | None => Ok(None),
        }
    }

    /// Probes a policy as it was read some time ago (a sweep's row): what the probe changes is decided
    /// on the policy as it is now.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn of_policy(
        &self,
        known: &EncryptionPolicy,
        reason: &Reason,
        correlation: CorrelationId,
    ) -> Result<Report, WorkError> {
        let rules = self.settings.rules();
        // Behind a closed fence much happens that a row does not know which was read before the sweep began: of what
        // was restored meanwhile, a new refusal would look like the old one and be taken for known.
        let fresh;
        let known = if known.fence.is_open() {
            known
        } else {
            let read = self.policies.policy(&known.organisation_name).await?;
            let Some(read) = read.filter(|read| read.id == known.id && read.lifecycle.is_watched()) else {
                return Ok(Report { rounds: Vec::new(), changed: false });
            };
            fresh = read;
            &fresh
        };
        let first = self.round(known, reason).await?;
        let refused = first.observations.values().any(|saw| matches!(saw, Observation::Refused(_)));
        // Beside the confirmation, so that who changed it costs the cut-off no time.
        let (rounds, remembered) =
            join(self.confirmed(&rules, known, first, reason), self.remembered(known, refused)).await;
        let rounds = rounds?;
        let mut heard: Vec<HeardChange> =
            reason.heard.iter().filter(|heard| heard.concerns(known)).cloned().collect();
        heard.extend(remembered.into_iter().filter(|change| !reason.heard.contains(change)));
        let origin = Origin { actor: Actor::Claviger("key-prober".to_owned()), correlation };
        let event = PolicyEvent::ProbesReported { rounds: rounds.clone(), heard: heard.clone() };
        let decided = |policy: &EncryptionPolicy| -> Result<Decision, Refusal> {
            decide(&rules, policy, &event, &origin, self.clock.now())
        };
        let unchanged = Report { rounds: rounds.clone(), changed: false };
        let Ok(mut decision) = decided(known) else {
            return Ok(unchanged);
        };
        let mut policy = known.clone();
        let mut asked_again = false;
        for _ in 0..ATTEMPTS {
            // Queued before the commit that starts the clock: a refusal whose clock runs has its probe on the
            // way, and because the start is committed once, it has one.
            let due_at = becomes_due(&rules, &policy, &decision.next).filter(|_| !asked_again);
            if let Some(due_at) = due_at {
                let organisation = known.organisation_name.clone();
                let message =
                    ProbeMessage::FollowUp { organisation, due_at, heard: heard.clone(), correlation };
                let wait = due_at.duration_since(self.clock.now());
                self.queue.queue_probes(&[(message, wait)]).await?;
                asked_again = true;
            }
            match self.policies.commit_policy(Some(&policy), &decision).await {
                Ok(()) => {
                    log_change(&policy, &decision.next);
                    self.describe_if_foretold(&policy, &decision.next, correlation).await;
                    return Ok(Report { rounds, changed: true });
                }
                Err(StoreError::Conflict) => {}
                Err(other) => return Err(other.into()),
            }
            let Some(fresh) = self.policies.policy(&known.organisation_name).await? else {
                return Ok(unchanged);
            };
            // A probe that did not repeat an unwrap which is known to be refused cannot say that all is well.
            if fresh.refused_unwrap.is_some() && known.refused_unwrap.is_none() && unchanged.all_usable() {
                return Ok(unchanged);
            }
            // What was probed are not its keys any more.
            let keys = |policy: &EncryptionPolicy| -> Vec<_> {
                policy.keys.values().map(|key| key.arn.clone()).collect()
            };
            if keys(&fresh) != keys(known) {
                return Ok(unchanged);
            }
            policy = fresh;
            decision = match decided(&policy) {
                Ok(decision) => decision,
                Err(_) => return Ok(unchanged),
            };
        }
        Err(StoreError::Conflict.into())
    }

    async fn confirmed(
        &self,
        rules: &Rules<'_>,
        known: &EncryptionPolicy,
        first: ProbeRound,
        reason: &Reason,
    ) -> Result<Vec<ProbeRound>, WorkError> {
        let mut rounds = vec![first];
        while rounds.len() < ROUNDS && !settled(rules, known, &rounds) {
            rounds.push(self.round(known, reason).await?);
        }
        Ok(rounds)
    }

    /// What events said that the ticket of a refusal has not told yet, in whatever order they and the probes came
    /// (spec R8). Whether it can be read must not decide whether a refusal counts.
    async fn remembered(&self, known: &EncryptionPolicy, refused: bool) -> Vec<HeardChange> {
        if !refused {
            return Vec::new();
        }
        match self.hints.hints_of(&known.account).await {
            Ok(record) => record.map(|record| record.untold(known, self.clock.now())).unwrap_or_default(),
            Err(error) => {
                tracing::warn!(policy.id = %known.id, %error, "what events said is told by a later probe");
                Vec::new()
            }
        }
    }

    /// A key that begins or ceases to wait for its deletion has a date to tell (spec K4). The regular description
    /// tells it too, later; so a queue that fails is no reason to fail what is committed.
    async fn describe_if_foretold(
        &self,
        before: &EncryptionPolicy,
        after: &EncryptionPolicy,
        correlation: CorrelationId,
    ) {
        let waits = |policy: &EncryptionPolicy| -> Vec<bool> {
            let pending = RefusalKind::KeyPendingDeletion;
            let is = |health| matches!(health, KeyHealth::Refused { kind, .. } if kind == pending);
            policy.keys.values().map(|key| is(key.health)).collect()
        };
        if waits(before) == waits(after) {
            return;
        }
        let organisation = after.organisation_name.clone();
        let message = ProbeMessage::DescribeKeys { organisation, correlation };
        if let Err(error) = self.queue.queue_probes(&[(message, SignedDuration::ZERO)]).await {
            tracing::warn!(policy.id = %after.id, ?error, "a description waits for the next run");
        }
    }

    /// A round of probes. While many customers are refused at once, healthy control probes do not count: more
    /// likely we are at fault than all of them changed their minds (spec R4).
    async fn round(&self, known: &EncryptionPolicy, reason: &Reason) -> Result<ProbeRound, WorkError> {
        let mut round = self.probe.round_with(known, reason.met).await;
        if round.controls_healthy == Some(true) {
            let mass_failure = match reason.mass_failure {
                Some(known) => known,
                None => mass_failure(self.watch, self.settings, known.shard, self.clock.now()).await?,
            };
            round.controls_healthy = Some(!mass_failure);
        }
        Ok(round)
    }
}

fn log_change(before: &EncryptionPolicy, after: &EncryptionPolicy) {
    for (region, key) in &after.keys {
        let was = before.keys.get(region).map(|key| key.health.slug());
        if was != Some(key.health.slug()) {
            tracing::info!(
                policy.id = %after.id, key.region = %region, key.health = key.health.slug(),
                "the health of a regional key changed"
            );
        }
    }
    if before.lifecycle.slug() != after.lifecycle.slug() {
        tracing::warn!(
            policy.id = %after.id, policy.lifecycle = after.lifecycle.slug(),
            fence.epoch = after.fence.epoch.0, "the lifecycle of a policy changed"
        );
    }
}
