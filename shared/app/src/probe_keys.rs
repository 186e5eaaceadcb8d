//! One probe of every regional key of a policy: the one place where a [`ProbeRound`] comes from.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use claviger_domain::observation::{NoAnswerKind, Observation, ProbeRound, RefusalKind};
use claviger_domain::policy::{EncryptionPolicy, PURPOSE_CANARY, RegionalKey};
use claviger_domain::values::Region;
use futures_util::future::join_all;

use crate::messages::EncryptionContext;
use crate::ports::{Clock, ControlProbes, CustomerKeys, KeyRef};

/// Probes keys by really decrypting a ciphertext that was made under them, through a session of its own: one that is
/// kept would not notice that a customer's role no longer trusts us.
#[derive(Clone, Copy)]
pub struct ProbeKeys<'a> {
    /// The customers' keys.
    pub keys: &'a dyn CustomerKeys,
    /// The vendor's canary customers.
    pub controls: &'a dyn ControlProbes,
    /// The time.
    pub clock: &'a dyn Clock,
}

impl ProbeKeys<'_> {
    /// Probes every region of a policy at once, and the control probes if anything ambiguous is seen.
    pub async fn round(&self, policy: &EncryptionPolicy) -> ProbeRound {
        let started_at = self.clock.now();
        let context = policy.encryption_context(PURPOSE_CANARY, &policy.id.to_string());
        let probes = policy.keys.iter().map(|(region, key)| {
            let context = &context;
            async move { (region.clone(), self.canary(policy, key, context).await) }
        });
        let observations: std::collections::BTreeMap<Region, Observation> =
            join_all(probes).await.into_iter().collect();
        let ambiguous: Vec<&Region> = observations
            .iter()
            .filter(|(_, saw)| matches!(saw, Observation::Refused(kind) if !kind.is_definite()))
            .map(|(region, _)| region)
            .collect();
        let controls_healthy = if ambiguous.is_empty() {
            None
        } else {
            let mode = policy.mode();
            let controls = ambiguous.iter().map(|region| self.controls.control_is_healthy(region, mode));
            Some(join_all(controls).await.into_iter().all(|healthy| healthy))
        };
        ProbeRound { started_at, observations, controls_healthy }
    }

    async fn canary(
        &self,
        policy: &EncryptionPolicy,
        key: &RegionalKey,
        context: &EncryptionContext,
    ) -> Observation {
        let Some(Ok(canary)) = key.canary.as_ref().map(|text| BASE64_STANDARD.decode(text)) else {
            return Observation::NoAnswer(NoAnswerKind::OurFault);
        };
        self.unwrap(KeyRef::of(policy, &key.arn), &canary, context).await
    }

    /// Decrypts one ciphertext and says what that tells about the key. DescribeKey breaks ties: where
    /// it is denied too, an ambiguous refusal stays ambiguous.
    pub async fn unwrap(
        &self,
        key: KeyRef<'_>,
        ciphertext: &[u8],
        context: &EncryptionContext,
    ) -> Observation {
        let key = key.fresh();
        let error = match self.keys.decrypt(key, ciphertext, context).await {
            Ok(_) => return Observation::Usable,
            Err(error) => error,
        };
        tracing::debug!(key.region = %key.region(), code = %error.code, "a probe was not answered with success");
        match error.observation {
            // KMS was not reached: there is nothing that DescribeKey could explain.
            Observation::Refused(RefusalKind::RoleDenied) => error.observation,
            Observation::Refused(kind) if !kind.is_definite() => match self.keys.describe(key).await {
                Ok(description) => by_state(&description.state).unwrap_or(error.observation),
                Err(_) => error.observation,
            },
            // A success cannot come with an error; were it so, it is our fault, not the customer's.
            Observation::Usable => Observation::NoAnswer(NoAnswerKind::OurFault),
            Observation::Refused(_) | Observation::NoAnswer(_) => error.observation,
        }
    }
}

/// What a key's state says, when the state explains the refusal.
fn by_state(state: &str) -> Option<Observation> {
    match state {
        "Disabled" => Some(Observation::Refused(RefusalKind::KeyDisabled)),
        "PendingDeletion" | "PendingReplicaDeletion" => {
            Some(Observation::Refused(RefusalKind::KeyPendingDeletion))
        }
        "PendingImport" => Some(Observation::Refused(RefusalKind::KeyPendingImport)),
        "Unavailable" => Some(Observation::Refused(RefusalKind::KeyUnavailable)),
        "Creating" | "Updating" => Some(Observation::NoAnswer(NoAnswerKind::Unreachable)),
        _ => None,
    }
}
