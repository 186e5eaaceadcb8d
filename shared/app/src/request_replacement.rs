//! An org admin names a new key for a region whose key is gone for good (spec S2).

use claviger_domain::catalogue::Mode;
use claviger_domain::decide::Refusal;
use claviger_domain::enrolment::Enrolment;
use claviger_domain::event::{Origin, PolicyEvent};
use claviger_domain::invalid::Invalid;
use claviger_domain::organisation::Organisation;
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::values::{KeyArn, Region};

use crate::messages::{CheckResult, ProbeAnswer, ProbeRequest};
use crate::ports::{CallError, Clock, Policies, Prober};
use crate::request_error::RequestError;
use crate::settings::Settings;
use crate::settle::Settle;

/// Asks for a key to be replaced.
pub struct RequestReplacement<'a> {
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// Who checks keys.
    pub prober: &'a dyn Prober,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl RequestReplacement<'_> {
    /// Checks the new key as an enrolment's is checked, claims it, and hands over to the provisioner.
    ///
    /// # Errors
    /// When the region's key is not lost, the new one is of another account or region, or did not stand its
    /// checks, or is another organisation's.
    pub async fn run(
        &self,
        organisation: &Organisation,
        region: &Region,
        key: Option<KeyArn>,
        origin: &Origin,
    ) -> Result<EncryptionPolicy, RequestError> {
        let settle = Settle { policies: self.policies, clock: self.clock, settings: self.settings };
        let policy = settle.without_former_admins(&organisation.name, &organisation.admins, origin).await?;
        if !policy.keys.contains_key(region) {
            return Err(RequestError::NotFound { what: "a key in this region" });
        }
        let key = match (policy.mode(), key) {
            (Mode::Byok, None) => return self.made(&settle, &policy, region, origin).await,
            (Mode::Byok, Some(_)) => {
                let reason = "in this mode the service makes the key";
                return Err(RequestError::Invalid(vec![
                    Invalid::new(reason, "leave `keyArn` out").at("keyArn"),
                ]));
            }
            (Mode::Cmk, None) => {
                let fault = Invalid::new("the field is missing", "send `keyArn` with the ARN of the new key");
                return Err(RequestError::Invalid(vec![fault.at("keyArn")]));
            }
            (Mode::Cmk, Some(key)) => key,
        };
        belongs(&policy, region, &key)?;
        let event = PolicyEvent::KeyReplacementAsked { region: region.clone(), key: key.clone() };
        // What is refused whatever the new key is like costs no KMS call.
        match settle.tried(&policy, &event, origin) {
            Ok(()) => {}
            Err(Refusal::Redundant) => return Ok(policy),
            Err(refusal) => return Err(refusal.into()),
        }
        let enrolment = Enrolment::of_one_key(&policy, region.clone(), key);
        let request = ProbeRequest::Check {
            organisation: policy.organisation,
            external_id: organisation.external_id.clone(),
            regions: vec![region.clone()],
            enrolment,
            // INVARIANT (K1): a key that takes another's place gives what was accepted. Tried here, so that its owner hears
            // of it with the remedy, and once more before the key counts.
            granted: policy.granted_permissions(),
        };
        let ProbeAnswer::Checked { checks } = self.prober.probe(&request).await? else {
            let reason = "it answered something else than asked for".to_owned();
            return Err(CallError { what: "the prober", reason }.into());
        };
        if checks.iter().any(|check| check.result == CheckResult::Fail) {
            return Err(RequestError::NotVerified(checks));
        }
        settle.run(&organisation.name, &event, origin).await
    }
}

impl RequestReplacement<'_> {
    /// The service makes the key (BYOK). Asked again, the same key is found.
    async fn made(
        &self,
        settle: &Settle<'_>,
        policy: &EncryptionPolicy,
        region: &Region,
        origin: &Origin,
    ) -> Result<EncryptionPolicy, RequestError> {
        // Nothing is made in the customer's account for a key that is not lost, or that nobody may replace.
        let stands_in = policy.keys.get(region).map(|key| key.arn.clone());
        if let Some(key) = stands_in {
            let event = PolicyEvent::KeyReplacementAsked { region: region.clone(), key };
            settle.tried(policy, &event, origin)?;
        }
        let organisation = policy.organisation_name.clone();
        let request = ProbeRequest::MakeReplacement { organisation, region: region.clone() };
        let key = match self.prober.probe(&request).await? {
            ProbeAnswer::Made { key } => key,
            ProbeAnswer::Checked { checks } => return Err(RequestError::NotVerified(checks)),
            ProbeAnswer::Probed { .. } | ProbeAnswer::Unwrapped { .. } => {
                let reason = "it answered something else than asked for".to_owned();
                return Err(CallError { what: "the prober", reason }.into());
            }
        };
        let event = PolicyEvent::KeyReplacementAsked { region: region.clone(), key };
        settle.run(&policy.organisation_name, &event, origin).await
    }
}

fn belongs(policy: &EncryptionPolicy, region: &Region, key: &KeyArn) -> Result<(), RequestError> {
    let fault = if *key.account() != policy.account {
        Invalid::new("the key is in another account", format!("make a key in account {}", policy.account))
    } else if key.region() != region {
        Invalid::new("the key is in another region", format!("make a key in {region}"))
    } else if policy.keys.values().any(|known| known.arn == *key) {
        Invalid::new("the key is this policy's already", "make a new key")
    } else {
        return Ok(());
    };
    Err(RequestError::Invalid(vec![fault.at("keyArn")]))
}
