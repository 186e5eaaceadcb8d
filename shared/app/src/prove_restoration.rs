//! Opens the fence again: only on fresh, consistent probes of every region (I5).

use claviger_domain::decide::{Refusal, decide};
use claviger_domain::effect::OutboxRow;
use claviger_domain::event::{Actor, Origin, PolicyEvent};
use claviger_domain::policy::Lifecycle;
use jiff::SignedDuration;

use crate::error::{ATTEMPTS, WorkError};
use crate::messages::{ProbeAnswer, ProbeRequest};
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
    /// Probes twice and decides. A restoration that is not under way any more is left alone.
    ///
    /// # Errors
    /// When the prober, the store or the queue fails; the message is delivered again.
    pub async fn run(&self, row: &OutboxRow) -> Result<(), WorkError> {
        for _ in 0..ATTEMPTS {
            let policy = self.policies.policy(&row.organisation).await?;
            let policy = policy.ok_or(WorkError::NotThere { what: "the encryption policy" })?;
            let under_way = matches!(policy.lifecycle, Lifecycle::Restoring { .. });
            if !under_way || policy.id != row.policy || row.epoch < policy.fence.epoch {
                return Ok(());
            }
            let request = ProbeRequest::ProbeNow { organisation: row.organisation.clone(), rounds: 2 };
            let ProbeAnswer::Probed { rounds } = self.prober.probe(&request).await? else {
                return Err(WorkError::NotNow { reason: "the prober gave another answer than asked for" });
            };
            let event = PolicyEvent::RestorationProbed { rounds };
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
