//! Works an approved enrolment off: for BYOK makes the keys; then makes a canary under every key, proves it, activates
//! the policy.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use claviger_domain::decide::{Refusal, decide};
use claviger_domain::event::{Actor, Origin, PolicyEvent};
use claviger_domain::ids::{CorrelationId, OrganisationId};
use claviger_domain::key_access::KeyAccess;
use claviger_domain::observation::{Observation, RefusalKind};
use claviger_domain::policy::{EncryptionPolicy, Lifecycle, PURPOSE_CANARY, encryption_context};
use claviger_domain::values::{OrganisationName, Region};
use jiff::{SignedDuration, Timestamp};

use crate::check_enrolment::CheckEnrolment;
use crate::enrol::eligible;
use crate::error::{ATTEMPTS, WorkError};
use crate::explain_refusal::explained;
use crate::ports::{Clock, CustomerKeys, Ids, KeyError, KeyRef, Organisations, Policies, StoreError};
use crate::probe_keys::ProbeKeys;
use crate::settings::Settings;

/// KMS tells of a new key and of its policy everywhere only after a while. Of a key that we made, a refusal that may mean
/// no more than that counts only once the key is this old.
const NEW: SignedDuration = SignedDuration::from_mins(5);

/// Verifies the keys of an approved policy.
pub struct VerifyPolicy<'a> {
    /// Where organisations are.
    pub organisations: &'a dyn Organisations,
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// The customers' keys.
    pub keys: &'a dyn CustomerKeys,
    /// How a role is proven, and keys are made with it.
    pub check: CheckEnrolment<'a>,
    /// How to probe.
    pub probe: ProbeKeys<'a>,
    /// Randomness.
    pub ids: &'a dyn Ids,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl VerifyPolicy<'_> {
    /// Verifies the policy of an organisation. A policy that is not waiting for it is left alone.
    ///
    /// # Errors
    /// When the organisation may not enrol now, a key gave no answer, or the store failed: to be tried again. A refusal is no error: the
    /// policy is rejected with the reason.
    pub async fn run(
        &self,
        organisation: &OrganisationName,
        correlation: CorrelationId,
    ) -> Result<(), WorkError> {
        for _ in 0..ATTEMPTS {
            let policy = self.policies.policy(organisation).await?;
            let policy = policy.ok_or(WorkError::NotThere { what: "the encryption policy" })?;
            if !matches!(policy.lifecycle, Lifecycle::Verifying { .. }) {
                return Ok(());
            }
            self.still_eligible(organisation).await?;
            let event = self.event(&policy).await?;
            let origin = Origin { actor: Actor::Claviger("provisioner".to_owned()), correlation };
            let decision = match decide(&self.settings.rules(), &policy, &event, &origin, self.clock.now()) {
                Ok(decision) => decision,
                Err(Refusal::Redundant) => return Ok(()),
                Err(other) => return Err(other.into()),
            };
            match self.policies.commit_policy(Some(&policy), &decision).await {
                Err(StoreError::Conflict) => {}
                Err(other) => return Err(other.into()),
                // The keys are recorded; what is left is to prove them.
                Ok(()) if matches!(event, PolicyEvent::KeysCreated { .. }) => {}
                Ok(()) => return Ok(()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// What support's approval asked of the customer records is asked again (spec E1, E2). It waits, and is not rejected: a
    /// record can be wrong for a day, and the next delivery finds it as it should be.
    async fn still_eligible(&self, name: &OrganisationName) -> Result<(), WorkError> {
        let organisation = self.organisations.organisation(name).await?;
        let organisation = organisation.ok_or(WorkError::NotThere { what: "the organisation" })?;
        eligible(&organisation, self.settings)
            .map_err(|_| WorkError::NotNow { reason: "the organisation may not enrol any more" })
    }

    /// What is next: BYOK keys are made before they are proven.
    async fn event(&self, policy: &EncryptionPolicy) -> Result<PolicyEvent, WorkError> {
        match &policy.access {
            KeyAccess::Role(role) if policy.keys.is_empty() => {
                Ok(match self.check.make_keys(policy, role, self.settings).await? {
                    Ok(keys) => PolicyEvent::KeysCreated { keys },
                    Err(faults) => PolicyEvent::VerificationFailed { faults },
                })
            }
            KeyAccess::Role(_) | KeyAccess::KeyPolicy => self.verified(policy).await,
        }
    }

    async fn verified(&self, policy: &EncryptionPolicy) -> Result<PolicyEvent, WorkError> {
        let mut with_canaries = policy.clone();
        let mut canaries = BTreeMap::new();
        let mut faults = BTreeMap::new();
        let context = policy.encryption_context(PURPOSE_CANARY, &policy.id.to_string());
        let stranger = OrganisationId::from_uuid(self.ids.random());
        let id = policy.id.to_string();
        let foreign = encryption_context(stranger, PURPOSE_CANARY, &id, &policy.context_tag);
        for (region, key) in &mut with_canaries.keys {
            let sample = self.ids.random();
            let (way, made_at) = (KeyRef::of(policy, &key.arn).fresh(), key.since);
            match self.keys.encrypt(way, sample.as_bytes(), &context).await {
                Ok(sealed) => {
                    let text = BASE64_STANDARD.encode(sealed);
                    key.canary = Some(text.clone());
                    canaries.insert(region.clone(), text);
                }
                Err(error) => {
                    faults.insert(region.clone(), self.fault(way, error, made_at).await?);
                    continue;
                }
            }
            // Proven before it is used, whoever made the key: nobody else's context may pass (spec E12).
            match self.keys.encrypt(way, sample.as_bytes(), &foreign).await {
                Ok(_) => {
                    let fault = "the key also works with another organisation's context; put the key policy that \
                                 `GET .../key-policy` prints on it";
                    faults.insert(region.clone(), fault.to_owned());
                }
                // No other refusal is about the context: a key that is gone by now would refuse everybody.
                Err(error) if error.observation == Observation::Refused(RefusalKind::AccessDenied) => {}
                Err(error) => {
                    faults.insert(region.clone(), self.fault(way, error, made_at).await?);
                }
            }
        }
        if !faults.is_empty() {
            return Ok(PolicyEvent::VerificationFailed { faults });
        }
        let round = self.probe.round(&with_canaries).await;
        let mut refused: BTreeMap<Region, String> = BTreeMap::new();
        for (region, saw) in &round.observations {
            if let (Observation::Refused(kind), Some(key)) = (saw, policy.keys.get(region)) {
                self.counts(&policy.access, *kind, key.since)?;
                refused.insert(region.clone(), kind.remedy_for(&key.arn));
            }
        }
        if !refused.is_empty() {
            return Ok(PolicyEvent::VerificationFailed { faults: refused });
        }
        if round.observations.values().any(|saw| matches!(saw, Observation::NoAnswer(_))) {
            return Err(WorkError::NotNow { reason: "a key gave no answer" });
        }
        Ok(PolicyEvent::KeysVerified { canaries, round })
    }

    /// What a refusal says; no answer is an error, to be tried again.
    async fn fault(&self, key: KeyRef<'_>, error: KeyError, made_at: Timestamp) -> Result<String, WorkError> {
        match explained(self.keys, key, &error).await {
            Observation::Refused(kind) => {
                self.counts(key.access, kind, made_at)?;
                Ok(format!("{}; {}", error.code, kind.remedy_for(key.arn)))
            }
            Observation::NoAnswer(_) | Observation::Usable => Err(error.into()),
        }
    }

    /// INVARIANT (R3): that a key which was just made is not known yet rejects nobody; it is asked again.
    fn counts(&self, access: &KeyAccess, kind: RefusalKind, made_at: Timestamp) -> Result<(), WorkError> {
        let made_by_us = matches!(access, KeyAccess::Role(_));
        let may_be_news = matches!(kind, RefusalKind::KeyNotFound | RefusalKind::AccessDenied);
        if made_by_us && may_be_news && self.clock.now().duration_since(made_at) < NEW {
            return Err(WorkError::NotNow { reason: "a key that was just made is not known everywhere yet" });
        }
        Ok(())
    }
}
