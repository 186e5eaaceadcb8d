//! An org admin asks for all data to move to new keys (spec X1, X6): the keys are checked as an enrolment's are.

use std::collections::BTreeMap;

use claviger_domain::catalogue::Mode;
use claviger_domain::enrolment::{Enrolment, parse_keys, parsed};
use claviger_domain::event::{Origin, PolicyEvent};
use claviger_domain::invalid::{Invalid, InvalidField};
use claviger_domain::organisation::Organisation;
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::reencryption::Depth;
use claviger_domain::values::{KeyArn, Region};
use serde_json::Value;

use crate::messages::{CheckResult, ProbeAnswer, ProbeRequest};
use crate::ports::{CallError, Clock, Policies, Prober};
use crate::request_error::RequestError;
use crate::settings::Settings;
use crate::settle::Settle;

/// Asks for a re-encryption.
pub struct RequestReencryption<'a> {
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// Who checks keys.
    pub prober: &'a dyn Prober,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl RequestReencryption<'_> {
    /// Parses the request, checks every new key that the customer made, claims them, and hands over to the planner.
    ///
    /// # Errors
    /// When fields are wrong, the policy cannot be moved now, or the keys did not stand their checks, or are
    /// another organisation's. Nothing is stored then.
    pub async fn run(
        &self,
        organisation: &Organisation,
        body: &Value,
        origin: &Origin,
    ) -> Result<EncryptionPolicy, RequestError> {
        let settle = Settle { policies: self.policies, clock: self.clock, settings: self.settings };
        let policy = settle.without_former_admins(&organisation.name, &organisation.admins, origin).await?;
        let (keys, depth) = self.parse(&policy, body)?;
        let event = PolicyEvent::ReencryptionRequested { keys: keys.clone(), depth };
        // What is refused whatever the new keys are like costs no KMS call.
        settle.tried(&policy, &event, origin)?;
        if !keys.is_empty() {
            self.check(organisation, &policy, keys).await?;
        }
        settle.run(&organisation.name, &event, origin).await
    }

    async fn check(
        &self,
        organisation: &Organisation,
        policy: &EncryptionPolicy,
        keys: BTreeMap<Region, KeyArn>,
    ) -> Result<(), RequestError> {
        let regions = self.settings.catalogue.regions(&policy.realm).unwrap_or_default().to_vec();
        let request = ProbeRequest::Check {
            organisation: policy.organisation,
            external_id: organisation.external_id.clone(),
            regions,
            enrolment: Enrolment::of_keys(policy, keys),
            granted: policy.granted_permissions(),
        };
        let ProbeAnswer::Checked { checks } = self.prober.probe(&request).await? else {
            let reason = "it answered something else than asked for".to_owned();
            return Err(CallError { what: "the prober", reason }.into());
        };
        if checks.iter().any(|check| check.result == CheckResult::Fail) {
            return Err(RequestError::NotVerified(checks));
        }
        Ok(())
    }

    fn parse(
        &self,
        policy: &EncryptionPolicy,
        body: &Value,
    ) -> Result<(BTreeMap<Region, KeyArn>, Depth), RequestError> {
        let mut faults: Vec<InvalidField> = Vec::new();
        let depth = match body.get("depth") {
            None | Some(Value::Null) => Some(Depth::Rekey),
            Some(_) => parsed(body, "depth", &mut faults),
        };
        let made_by_us = body.get("keys").is_none_or(Value::is_null) && policy.access.mode() == Mode::Byok;
        let regions = self.settings.catalogue.regions(&policy.realm);
        // With keys of its own making a BYOK organisation moves to CMK (spec X6); without, new ones are made for it.
        let keys = if made_by_us {
            BTreeMap::new()
        } else {
            parse_keys(body, Some(&policy.account), regions, &mut faults)
        };
        for (region, arn) in &keys {
            if policy.access_of(arn).is_some() {
                let invalid = Invalid::new(
                    format!("the key in {region} is, or was, this policy's"),
                    "make a new key: what was under an old one is not brought back under it",
                );
                faults.push(invalid.at("keys"));
            }
        }
        match depth {
            Some(depth) if faults.is_empty() => Ok((keys, depth)),
            _ => Err(RequestError::Invalid(faults)),
        }
    }
}
