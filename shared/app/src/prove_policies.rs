//! The broker's answer to a library whose watcher is late: one fresh proof per policy, shared by all
//! brokers for a short time (design, point 6).

use claviger_domain::decide::proves_access;
use claviger_domain::ids::PolicyId;
use futures_util::StreamExt;
use futures_util::stream;
use jiff::{SignedDuration, Timestamp};

use crate::hand_out_data_key::{HandOutError, gate};
use crate::ports::{Clock, Policies, Proofs, Timer};
use crate::probe_keys::{ProbeKeys, Probed};
use crate::settings::Settings;

/// How many policies one request may name.
pub const MOST_POLICIES: usize = 100;

/// Whoever takes a policy on proves it for all brokers; for so long nobody else begins, also where it was refused. So a
/// dead watcher costs a policy one round of calls in this time, however many processes ask at once.
const CLAIM: SignedDuration = SignedDuration::from_secs(2);
/// Everybody else looks so often whether it is proven meanwhile,
const LOOKS: u8 = 5;
/// and so long after the last time.
const BETWEEN_LOOKS: SignedDuration = SignedDuration::from_millis(200);
/// A request that took so long begins no more probes: its caller waits 15 s, and who was proven is to hear of it even if
/// others' keys are silent.
const PATIENCE: SignedDuration = SignedDuration::from_secs(8);

/// What is known of one policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// A key of it decrypted; every one, where the catalogue makes any region enough to revoke.
    Proven {
        /// Until when that counts.
        until: Timestamp,
    },
    /// Its fence is closed.
    Suspended,
    /// That was not so now.
    Unavailable,
}

/// The answer for one policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proved {
    /// Which.
    pub policy: PolicyId,
    /// What is known of it.
    pub proof: Proof,
    /// KMS calls on the customer's keys that this answer cost; none where an earlier proof is shared.
    pub kms_calls: u32,
}

/// Proves policies.
pub struct ProvePolicies<'a> {
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// Proofs that all brokers share.
    pub proofs: &'a dyn Proofs,
    /// How to probe.
    pub probe: ProbeKeys<'a>,
    /// The time.
    pub clock: &'a dyn Clock,
    /// How time passes while another broker proves.
    pub timer: &'a dyn Timer,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl ProvePolicies<'_> {
    /// Proves each of them; one that is not there is unavailable.
    pub async fn run(&self, ids: &[PolicyId]) -> Vec<Proved> {
        let until = self.clock.now() + PATIENCE;
        let proofs = ids.iter().take(MOST_POLICIES).copied().map(|policy| async move {
            let mut kms_calls = 0;
            let proof = self.one(policy, until, &mut kms_calls).await.unwrap_or(Proof::Unavailable);
            Proved { policy, proof, kms_calls }
        });
        stream::iter(proofs).buffered(16).collect().await
    }

    async fn one(&self, id: PolicyId, until: Timestamp, kms_calls: &mut u32) -> Result<Proof, HandOutError> {
        let Some(policy) = self.policies.policy_by_id(id).await? else {
            return Ok(Proof::Unavailable);
        };
        match gate(&policy) {
            Ok(()) => {}
            Err(HandOutError::Suspended) => return Ok(Proof::Suspended),
            Err(other) => return Err(other),
        }
        if let Some(proof) = self.shared(id).await? {
            return Ok(proof);
        }
        let now = self.clock.now();
        if now >= until {
            return Ok(Proof::Unavailable);
        }
        if !self.proofs.claim_proof(id, now, now + CLAIM).await? {
            return self.of_another(id).await;
        }
        let Probed { round, kms_calls: cost } = self.probe.round_and_cost(&policy, None).await;
        *kms_calls = cost;
        if !proves_access(&self.settings.rules(), &policy, &round) {
            return Ok(Proof::Unavailable);
        }
        self.proofs.record_proof(id, round.started_at).await?;
        Ok(Proof::Proven { until: round.started_at + self.settings.proof_reuse })
    }

    /// A proof that any broker made a moment ago.
    async fn shared(&self, id: PolicyId) -> Result<Option<Proof>, HandOutError> {
        let until = self.proofs.proven_at(id).await?.map(|at| at + self.settings.proof_reuse);
        Ok(until.filter(|until| *until > self.clock.now()).map(|until| Proof::Proven { until }))
    }

    /// What comes of the proof that another broker has taken on.
    async fn of_another(&self, id: PolicyId) -> Result<Proof, HandOutError> {
        for _ in 0..LOOKS {
            self.timer.after(BETWEEN_LOOKS).await;
            if let Some(proof) = self.shared(id).await? {
                return Ok(proof);
            }
        }
        Ok(Proof::Unavailable)
    }
}
