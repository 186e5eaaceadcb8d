//! The broker's answer to a library whose watcher is late: one fresh proof per policy, shared by all
//! brokers for a short time (design, point 6).

use claviger_domain::decide::proves_access;
use claviger_domain::ids::PolicyId;
use futures_util::StreamExt;
use futures_util::stream;
use jiff::{SignedDuration, Timestamp};

use crate::hand_out_data_key::{HandOutError, gate};
use crate::ports::{Clock, Policies, Proofs};
use crate::probe_keys::{ProbeKeys, Probed};
use crate::settings::Settings;

/// How many policies one request may name.
pub const MOST_POLICIES: usize = 100;

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
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl ProvePolicies<'_> {
    /// Proves each of them; one that is not there is unavailable.
    pub async fn run(&self, ids: &[PolicyId]) -> Vec<Proved> {
        let proofs = ids.iter().take(MOST_POLICIES).copied().map(|policy| async move {
            let mut kms_calls = 0;
            let proof = self.one(policy, &mut kms_calls).await.unwrap_or(Proof::Unavailable);
            Proved { policy, proof, kms_calls }
        });
        stream::iter(proofs).buffered(16).collect().await
    }

    async fn one(&self, id: PolicyId, kms_calls: &mut u32) -> Result<Proof, HandOutError> {
        let reuse: SignedDuration = self.settings.proof_reuse;
        let Some(policy) = self.policies.policy_by_id(id).await? else {
            return Ok(Proof::Unavailable);
        };
        match gate(&policy) {
            Ok(()) => {}
            Err(HandOutError::Suspended) => return Ok(Proof::Suspended),
            Err(other) => return Err(other),
        }
        let now = self.clock.now();
        if let Some(at) = self.proofs.proven_at(id).await?.filter(|at| *at + reuse > now) {
            return Ok(Proof::Proven { until: at + reuse });
        }
        let Probed { round, kms_calls: cost } = self.probe.round_and_cost(&policy, None).await;
        *kms_calls = cost;
        if !proves_access(&self.settings.rules(), &policy, &round) {
            return Ok(Proof::Unavailable);
        }
        self.proofs.record_proof(id, round.started_at).await?;
        Ok(Proof::Proven { until: round.started_at + reuse })
    }
}
