//! Opens the fence again: only on fresh, consistent probes of every region, or of every other where one is
//! gone for good and another unwraps every data key (I5).

use std::collections::BTreeSet;

use claviger_domain::decide::{Refusal, decide};
use claviger_domain::effect::OutboxRow;
use claviger_domain::event::{Actor, Origin, PolicyEvent};
use claviger_domain::observation::Observation;
use claviger_domain::policy::{EncryptionPolicy, Lifecycle};
use claviger_domain::values::Region;
use jiff::SignedDuration;

use crate::error::{ATTEMPTS, WorkError};
use crate::messages::{DataKeyPage, ProbeAnswer, ProbeRequest};
use crate::ports::{Clock, FanOutQueue, Policies, Prober, StoreError};
use crate::settings::Settings;

/// Wait before the next try while a region gives no answer, or KMS is still propagating.
const AGAIN: SignedDuration = SignedDuration::from_secs(5);

/// Proves a restoration that an org admin asked for.
pub struct ProveRestoration<'a> {
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// The one place that probes.
    pub prober: &'a dyn Prober,
    /// Where the next try waits.
    pub queue: &'a dyn FanOutQueue,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl ProveRestoration<'_> {
    /// Probes twice and decides; where the restoration does without a region, every data key is unwrapped in
    /// another one before. A restoration that is not under way any more is left alone.
    ///
    /// # Errors
    /// When the prober, the store or the queue fails; the message is delivered again.
    pub async fn run(&self, row: &OutboxRow) -> Result<(), WorkError> {
        let Some((policy, without)) = self.under_way(row).await? else {
            return Ok(());
        };
        if without.is_empty() {
            return self.prove(row, None).await;
        }
        let region = policy.keys.keys().find(|region| !without.contains(*region));
        let region = region.ok_or(WorkError::NotThere { what: "a region that is not given up" })?.clone();
        self.page(&DataKeyPage { row: row.clone(), region, cursor: None, data_keys: 0 }).await
    }

    /// Has a page of data keys unwrapped; after the last, proves.
    ///
    /// # Errors
    /// As [`ProveRestoration::run`].
    pub async fn page(&self, page: &DataKeyPage) -> Result<(), WorkError> {
        if self.under_way(&page.row).await?.is_none() {
            return Ok(());
        }
        let request = ProbeRequest::UnwrapDataKeys {
            organisation: page.row.organisation.clone(),
            region: page.region.clone(),
            cursor: page.cursor.clone(),
        };
        let ProbeAnswer::Unwrapped { data_keys, next, fault } = self.prober.probe(&request).await? else {
            return Err(WorkError::NotNow { reason: "the prober gave another answer than asked for" });
        };
        let data_keys = page.data_keys.saturating_add(data_keys);
        match (fault, next) {
            (Some(Observation::Refused(kind)), _) => {
                tracing::warn!(policy.id = %page.row.policy, ?kind, "a data key cannot be unwrapped without the lost region");
                self.prove(&page.row, None).await
            }
            // Nothing follows from silence: the page comes again.
            (Some(Observation::NoAnswer(_) | Observation::Usable), _) => {
                Ok(self.queue.queue_data_keys(page, AGAIN).await?)
            }
            (None, Some(cursor)) => {
                let next = DataKeyPage { cursor: Some(cursor), data_keys, ..page.clone() };
                Ok(self.queue.queue_data_keys(&next, SignedDuration::ZERO).await?)
            }
            (None, None) => {
                tracing::info!(policy.id = %page.row.policy, data_keys, "every data key was unwrapped");
                self.prove(&page.row, Some(&page.region)).await
            }
        }
    }

    /// The policy, and without which regions it is being restored; none if it is not, or not any more.
    async fn under_way(
        &self,
        row: &OutboxRow,
    ) -> Result<Option<(EncryptionPolicy, BTreeSet<Region>)>, WorkError> {
        let policy = self.policies.policy(&row.organisation).await?;
        let policy = policy.ok_or(WorkError::NotThere { what: "the encryption policy" })?;
        if policy.id != row.policy || row.epoch < policy.fence.epoch {
            return Ok(None);
        }
        let without = match &policy.lifecycle {
            Lifecycle::Restoring { without, .. } => without.clone(),
            _ => return Ok(None),
        };
        Ok(Some((policy, without)))
    }

    async fn prove(&self, row: &OutboxRow, unwrapped_in: Option<&Region>) -> Result<(), WorkError> {
        for _ in 0..ATTEMPTS {
            let Some((policy, _)) = self.under_way(row).await? else {
                return Ok(());
            };
            let request = ProbeRequest::ProbeNow { organisation: row.organisation.clone(), rounds: 2 };
            let ProbeAnswer::Probed { rounds } = self.prober.probe(&request).await? else {
                return Err(WorkError::NotNow { reason: "the prober gave another answer than asked for" });
            };
            let unwrapped_in = unwrapped_in.cloned();
            let event = PolicyEvent::RestorationProbed { rounds, unwrapped_in };
            let origin =
                Origin { actor: Actor::Claviger("restorer".to_owned()), correlation: row.correlation };
            let rules = self.settings.rules();
            let decision = match decide(&rules, &policy, &event, &origin, self.clock.now()) {
                Ok(decision) => decision,
                Err(Refusal::KeysNotUsable { faults }) => {
                    tracing::info!(policy.id = %policy.id, ?faults, "a restoration waits for a key");
                    return Ok(self.queue.queue_effect(row, AGAIN).await?);
                }
                // A sweep overtook the probe: what it saw counts, probe again.
                Err(Refusal::Stale) => continue,
                Err(Refusal::Redundant | Refusal::IllegalForState { .. }) => return Ok(()),
                Err(other) => return Err(other.into()),
            };
            match self.policies.commit_policy(Some(&policy), &decision).await {
                Err(StoreError::Conflict) => {}
                other => return Ok(other?),
            }
        }
        Err(StoreError::Conflict.into())
    }
}
