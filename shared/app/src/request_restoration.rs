//! Asks for restoration: an org admin, on the open ticket, with every regional key answering (spec S1,
//! S2, I5).

use std::collections::BTreeMap;

use claviger_domain::decide::{Refusal, decide};
use claviger_domain::event::{Origin, PolicyEvent};
use claviger_domain::ids::TicketId;
use claviger_domain::observation::ProbeRound;
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::values::OrganisationName;

use crate::messages::{ProbeAnswer, ProbeRequest};
use crate::ports::{CallError, Clock, Policies, Prober, StoreError};
use crate::request_error::{ATTEMPTS, RequestError};
use crate::settings::Settings;

/// Asks for restoration.
pub struct RequestRestoration<'a> {
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// Who probes.
    pub prober: &'a dyn Prober,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl RequestRestoration<'_> {
    /// Probes every region once and, if all answer, hands over to the restorer, which proves them again
    /// and opens the fence. Asked again meanwhile, it changes nothing.
    ///
    /// # Errors
    /// When nothing is suspended, the ticket is another one, the window is over, or keys still refuse.
    pub async fn run(
        &self,
        organisation: &OrganisationName,
        ticket: TicketId,
        into_degraded: bool,
        origin: &Origin,
    ) -> Result<EncryptionPolicy, RequestError> {
        let policy = self.load(organisation).await?;
        // Decided without a probe first: what is refused whatever the keys say costs no KMS call.
        let unseen = ProbeRound {
            started_at: self.clock.now(),
            observations: BTreeMap::new(),
            controls_healthy: None,
            refused_unwrap: None,
        };
        match self.decided(&policy, (ticket, into_degraded), unseen, origin) {
            Err(Refusal::KeysNotUsable { .. }) => {}
            Err(Refusal::Redundant) => return Ok(policy),
            Err(refusal) => return Err(refusal.into()),
            // Only a policy without keys gets here; it has nothing to prove.
            Ok(_) => return Err(Refusal::Stale.into()),
        }
        let round = self.probe(organisation).await?;
        for _ in 0..ATTEMPTS {
            let policy = self.load(organisation).await?;
            let decision = match self.decided(&policy, (ticket, into_degraded), round.clone(), origin) {
                Ok(decision) => decision,
                Err(Refusal::Redundant) => return Ok(policy),
                Err(refusal) => return Err(refusal.into()),
            };
            match self.policies.commit_policy(Some(&policy), &decision).await {
                Ok(()) => return Ok(decision.next),
                Err(StoreError::Conflict) => {}
                Err(other) => return Err(other.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    async fn load(&self, organisation: &OrganisationName) -> Result<EncryptionPolicy, RequestError> {
        let policy = self.policies.policy(organisation).await?;
        policy.ok_or(RequestError::NotFound { what: "the encryption policy" })
    }

    fn decided(
        &self,
        policy: &EncryptionPolicy,
        (ticket, into_degraded): (TicketId, bool),
        round: ProbeRound,
        origin: &Origin,
    ) -> Result<claviger_domain::decide::Decision, Refusal> {
        let event = PolicyEvent::RestorationRequested { ticket, round, into_degraded };
        decide(&self.settings.rules(), policy, &event, origin, self.clock.now())
    }

    async fn probe(&self, organisation: &OrganisationName) -> Result<ProbeRound, CallError> {
        let request = ProbeRequest::ProbeNow { organisation: organisation.clone(), rounds: 1 };
        let round = match self.prober.probe(&request).await? {
            ProbeAnswer::Probed { rounds } => rounds.into_iter().next_back(),
            ProbeAnswer::Checked { .. } | ProbeAnswer::Unwrapped { .. } | ProbeAnswer::Made { .. } => None,
        };
        round
            .ok_or_else(|| CallError { what: "the prober", reason: "it answered without a round".to_owned() })
    }
}
