//! Turns an event about a customer's account into hints. An event is never authority: a forged one
//! costs one probe, a lost one is made up for by the sweep.

use claviger_domain::heard::HeardChange;
use claviger_domain::ids::CorrelationId;
use claviger_domain::values::{AccountId, OrganisationName};
use jiff::SignedDuration;

use crate::error::{ATTEMPTS, WorkError};
use crate::hint_budget::{Planned, plan};
use crate::messages::ProbeMessage;
use crate::ports::{Clock, HintRecords, Ids, Policies, ProbeQueue, StoreError};

/// What a heard event led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeardOf {
    /// Nobody is enrolled with the account: nothing was written.
    Stranger,
    /// It is about another key or role of the account: it costs no probe, and takes nothing of the account's budget.
    Beside,
    /// A probe that is still to come will see it, and tells of it.
    Covered,
    /// Probes were queued.
    Queued {
        /// How many: one for each organisation with keys in the account.
        probes: usize,
        /// How long they wait.
        wait: SignedDuration,
    },
}

/// After this time an event that concerns nobody counts as a sign that events arrive.
const ANEW: SignedDuration = SignedDuration::from_hours(24);

/// Hears that something changed in an account.
pub struct HearKeyEvent<'a> {
    /// Who is enrolled with which account.
    pub policies: &'a dyn Policies,
    /// What is remembered of accounts' hints.
    pub hints: &'a dyn HintRecords,
    /// The prober's queue.
    pub queue: &'a dyn ProbeQueue,
    /// Identifiers.
    pub ids: &'a dyn Ids,
    /// The time.
    pub clock: &'a dyn Clock,
}

impl HearKeyEvent<'_> {
    /// Queues a probe for each organisation with keys in the account, within the account's budget, and remembers what
    /// was said until a probe has told it. An account that nobody is enrolled with is dropped before anything is
    /// written.
    ///
    /// # Errors
    /// When the store or the queue fails; EventBridge delivers again.
    pub async fn run(&self, account: &AccountId, heard: &HeardChange) -> Result<HeardOf, WorkError> {
        let organisations = self.policies.organisations_of_account(account).await?;
        if organisations.is_empty() {
            return Ok(HeardOf::Stranger);
        }
        let concerns = self.concerns_one(&organisations, heard).await?;
        for _ in 0..ATTEMPTS {
            let known = self.hints.hints_of(account).await?;
            let now = self.clock.now();
            // That events of the account arrive at all is remembered: the first one, and one a day, probes.
            if !concerns && known.as_ref().is_some_and(|known| now.duration_since(known.planned_at) < ANEW) {
                return Ok(HeardOf::Beside);
            }
            let planned = plan(known.as_ref(), now);
            let (wait, planned_next) = match (&planned, &known) {
                (Planned::After(wait, next), _) => (Some(*wait), next),
                (Planned::Covered, Some(known)) => (None, known),
                (Planned::Covered, None) => return Ok(HeardOf::Covered),
            };
            let remembered = planned_next.remembering(heard, now).filter(|_| concerns);
            let Some(wait) = wait else {
                let Some(next) = remembered else { return Ok(HeardOf::Covered) };
                match self.hints.save_hints(account, known.as_ref(), &next).await {
                    // The probe that was still to come may have looked while this was written: then it takes
                    // another one.
                    Ok(()) if next.planned_at > self.clock.now() => return Ok(HeardOf::Covered),
                    Ok(()) | Err(StoreError::Conflict) => continue,
                    Err(other) => return Err(other.into()),
                }
            };
            let next = remembered.unwrap_or_else(|| planned_next.clone());
            match self.hints.save_hints(account, known.as_ref(), &next).await {
                Ok(()) => {}
                Err(StoreError::Conflict) => continue,
                Err(other) => return Err(other.into()),
            }
            if let Err(error) = self.queue(&organisations, heard, wait).await {
                // The record promises a probe that will not come: take the promise back, so that the event,
                // delivered again, is not taken for covered.
                let taken_back = crate::hint_budget::HintRecord { planned_at: now, ..next.clone() };
                if let Err(store) = self.hints.save_hints(account, Some(&next), &taken_back).await {
                    tracing::warn!(error = %store, "a hint's record could not be taken back");
                }
                return Err(error);
            }
            return Ok(HeardOf::Queued { probes: organisations.len(), wait });
        }
        Err(StoreError::Conflict.into())
    }

    /// Whether an event can be about the keys of one of these.
    async fn concerns_one(
        &self,
        organisations: &[OrganisationName],
        heard: &HeardChange,
    ) -> Result<bool, WorkError> {
        for organisation in organisations {
            let policy = self.policies.policy(organisation).await?;
            if policy.is_some_and(|policy| policy.lifecycle.is_watched() && heard.concerns(&policy)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn queue(
        &self,
        organisations: &[OrganisationName],
        heard: &HeardChange,
        wait: SignedDuration,
    ) -> Result<(), WorkError> {
        let hints: Vec<_> = organisations
            .iter()
            .map(|organisation| {
                let probe = ProbeMessage::Probe {
                    organisation: organisation.clone(),
                    attempt: 0,
                    data_key: None,
                    heard: vec![heard.clone()],
                    correlation: CorrelationId::from_uuid(self.ids.random()),
                };
                (probe, wait)
            })
            .collect();
        Ok(self.queue.queue_probes(&hints).await?)
    }
}
