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
    /// A probe that is still to come will see it.
    Covered,
    /// Probes were queued.
    Queued {
        /// How many: one for each organisation with keys in the account.
        probes: usize,
        /// How long they wait.
        wait: SignedDuration,
    },
}

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
    /// Queues a probe for each organisation with keys in the account, within the account's budget. An account
    /// that nobody is enrolled with is dropped before anything is written.
    ///
    /// # Errors
    /// When the store or the queue fails; EventBridge delivers again.
    pub async fn run(&self, account: &AccountId, heard: &HeardChange) -> Result<HeardOf, WorkError> {
        let organisations = self.policies.organisations_of_account(account).await?;
        if organisations.is_empty() {
            return Ok(HeardOf::Stranger);
        }
        for _ in 0..ATTEMPTS {
            let known = self.hints.hints_of(account).await?;
            let now = self.clock.now();
            let Planned::After(wait, next) = plan(known.as_ref(), now) else {
                return Ok(HeardOf::Covered);
            };
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
                    heard: Some(heard.clone()),
                    correlation: CorrelationId::from_uuid(self.ids.random()),
                };
                (probe, wait)
            })
            .collect();
        Ok(self.queue.queue_probes(&hints).await?)
    }
}
