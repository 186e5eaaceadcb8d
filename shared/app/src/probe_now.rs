//! Probes an organisation's keys while somebody waits for the answer.

use claviger_domain::observation::ProbeRound;
use claviger_domain::values::OrganisationName;

use crate::error::WorkError;
use crate::ports::Policies;
use crate::probe_keys::ProbeKeys;

/// Probes now.
pub struct ProbeNow<'a> {
    /// How to probe.
    pub probe: ProbeKeys<'a>,
    /// Where policies are.
    pub policies: &'a dyn Policies,
}

impl ProbeNow<'_> {
    /// Sends one to three rounds and returns what they saw, oldest first. Nothing is stored: the caller
    /// commits it with the decision that it asked for.
    ///
    /// # Errors
    /// When the organisation has no policy, or the store fails.
    pub async fn run(
        &self,
        organisation: &OrganisationName,
        rounds: u8,
    ) -> Result<Vec<ProbeRound>, WorkError> {
        let policy = self.policies.policy(organisation).await?;
        let policy = policy.ok_or(WorkError::NotThere { what: "the encryption policy" })?;
        let mut seen = Vec::new();
        for _ in 0..rounds.clamp(1, 3) {
            seen.push(self.probe.round(&policy).await);
        }
        Ok(seen)
    }
}
