//! Makes a BYOK organisation's keys through its role, one in each region of the realm (spec E7).

use std::collections::BTreeMap;

use claviger_domain::key_access::CustomerRole;
use claviger_domain::key_policy::{KeyLabel, made_key_policy};
use claviger_domain::observation::Observation;
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::values::{KeyArn, Region};
use futures_util::future::join_all;

use crate::check_enrolment::{CheckEnrolment, Checked, permission_help};
use crate::error::WorkError;
use crate::messages::CheckResult;
use crate::ports::NewKey;
use crate::settings::Settings;

/// What came of it: the keys, or what was wrong by region.
pub(crate) type Made = Result<BTreeMap<Region, KeyArn>, BTreeMap<Region, String>>;

impl CheckEnrolment<'_> {
    /// Proves the role once more, now that support has approved, and makes what is missing. Repeating it finds the
    /// keys of the time before, so that a crash leaves no second key and no key that nobody knows.
    ///
    /// # Errors
    /// When AWS gave no answer: to be tried again. A refusal is no error.
    pub(crate) async fn make_keys(
        &self,
        policy: &EncryptionPolicy,
        role: &CustomerRole,
        settings: &Settings,
    ) -> Result<Made, WorkError> {
        let regions = settings.catalogue.regions(&policy.realm).unwrap_or_default();
        let (first, _) =
            regions.split_first().ok_or(WorkError::NotThere { what: "the realm's first region" })?;
        let whose = Checked { organisation: policy.organisation, external_id: &role.external_id, regions };
        let mut faults = BTreeMap::new();
        let trust = self.trust(whose, &role.arn).await;
        if trust.some_unanswered() {
            return Err(WorkError::NotNow { reason: "the customer's role gave no answer" });
        }
        for check in trust.all {
            if check.result == CheckResult::Fail {
                let region = check.region.unwrap_or_else(|| first.clone());
                faults.insert(region, format!("{}; {}", check.observed, check.help));
            }
        }
        if !faults.is_empty() {
            return Ok(Err(faults));
        }
        let wanted = NewKey {
            organisation: policy.organisation,
            label: KeyLabel::first_of(policy.generation),
            policy: made_key_policy(&role.arn, policy.organisation),
        };
        let making = regions
            .iter()
            .map(|region| async { (region.clone(), self.roles.make_key(role, region, &wanted).await) });
        let mut keys = BTreeMap::new();
        for (region, made) in join_all(making).await {
            match made {
                Ok(arn) => {
                    keys.insert(region, arn);
                }
                Err(error) => match error.observation {
                    Observation::Refused(_) => {
                        let help = permission_help(&error, &role.arn);
                        faults.insert(region, format!("no key could be made: {}; {help}", error.code));
                    }
                    Observation::NoAnswer(_) | Observation::Usable => return Err(error.into()),
                },
            }
        }
        // A key that was made all the same is named, so that nobody has to stumble over it; another enrolment uses it.
        let left: Vec<&str> = keys.values().map(KeyArn::as_str).collect();
        for fault in faults.values_mut().filter(|_| !left.is_empty()) {
            fault.push_str(&format!("; made already, and used by the next enrolment: {}", left.join(", ")));
        }
        Ok(if faults.is_empty() { Ok(keys) } else { Err(faults) })
    }
}
