//! Turns an event about a customer's account into hints. An event is never authority: a forged one
//! costs one probe, a lost one is made up for by the sweep.

use claviger_domain::ids::CorrelationId;
use claviger_domain::values::AccountId;
use jiff::SignedDuration;

use crate::error::WorkError;
use crate::messages::ProbeMessage;
use crate::ports::{Ids, Policies, ProbeQueue};

/// Hears that something changed in an account.
pub struct HearKeyEvent<'a> {
    /// Who is enrolled with which account.
    pub policies: &'a dyn Policies,
    /// The prober's queue.
    pub queue: &'a dyn ProbeQueue,
    /// Identifiers.
    pub ids: &'a dyn Ids,
}

impl HearKeyEvent<'_> {
    /// Queues a probe for each organisation with keys in the account; says how many. An account that
    /// nobody is enrolled with is dropped before anything is written.
    ///
    /// # Errors
    /// When the store or the queue fails; EventBridge delivers again.
    pub async fn run(&self, account: &AccountId) -> Result<usize, WorkError> {
        let organisations = self.policies.organisations_of_account(account).await?;
        let hints: Vec<_> = organisations
            .into_iter()
            .map(|organisation| {
                let correlation = CorrelationId::from_uuid(self.ids.random());
                let probe = ProbeMessage::Probe { organisation, attempt: 0, data_key: None, correlation };
                (probe, SignedDuration::ZERO)
            })
            .collect();
        if !hints.is_empty() {
            self.queue.queue_probes(&hints).await?;
        }
        Ok(hints.len())
    }
}
