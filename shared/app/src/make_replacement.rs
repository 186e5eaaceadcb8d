//! BYOK: makes the key that takes the place of a lost one, through the customer's role (spec S2, E7).

use claviger_domain::key_access::KeyAccess;
use claviger_domain::key_policy::{KeyLabel, made_key_policy};
use claviger_domain::observation::Observation;
use claviger_domain::policy::Lifecycle;
use claviger_domain::values::{OrganisationName, Region};

use crate::check_enrolment::{CheckEnrolment, Checked, permission_help};
use crate::error::WorkError;
use crate::messages::{Check, CheckResult, ProbeAnswer};
use crate::ports::{KeyRef, NewKey, Policies};

/// Makes a replacement.
pub struct MakeReplacement<'a> {
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// Proves roles and keys.
    pub check: CheckEnrolment<'a>,
}

impl MakeReplacement<'_> {
    /// Proves the role, makes the key or finds the one that an earlier request made, and proves it as an enrolment's
    /// key is proven. What did not stand is answered as checks.
    ///
    /// # Errors
    /// When the store fails, or AWS gives no answer.
    pub async fn run(
        &self,
        organisation: &OrganisationName,
        region: &Region,
    ) -> Result<ProbeAnswer, WorkError> {
        let policy = self.policies.policy(organisation).await?;
        let policy = policy.ok_or(WorkError::NotThere { what: "the encryption policy" })?;
        let KeyAccess::Role(role) = &policy.access else {
            return Err(WorkError::NotThere { what: "a key-management role" });
        };
        // Asked again here: nothing is made in a customer's account that nobody needs.
        let lost = policy.keys.get(region).filter(|key| key.health.stands_refused() || key.given_up);
        let (Lifecycle::Active { .. }, true, Some(lost)) = (&policy.lifecycle, policy.fence.is_open(), lost)
        else {
            return Err(WorkError::NotThere { what: "a key that is lost" });
        };
        let regions = std::slice::from_ref(region);
        let whose = Checked { organisation: policy.organisation, external_id: &role.external_id, regions };
        let trust = self.check.trust(whose, &role.arn).await;
        if trust.some_unanswered() {
            return Err(WorkError::NotNow { reason: "the customer's role gave no answer" });
        }
        if trust.some_refused() {
            return Ok(ProbeAnswer::Checked { checks: trust.all });
        }
        let wanted = NewKey {
            organisation: policy.organisation,
            label: KeyLabel {
                generation: policy.generation,
                lost_before: lost.lost_before.saturating_add(1),
            },
            policy: made_key_policy(&role.arn, policy.organisation),
        };
        let made = match self.check.roles.make_key(role, region, &wanted).await {
            Ok(made) => made,
            Err(error) => match error.observation {
                Observation::Refused(_) => {
                    let check = Check {
                        id: "key-made".to_owned(),
                        region: Some(region.clone()),
                        result: CheckResult::Fail,
                        observed: format!("no key could be made: {}", error.code),
                        help: permission_help(&error, &role.arn),
                    };
                    return Ok(ProbeAnswer::Checked { checks: vec![check] });
                }
                Observation::NoAnswer(_) | Observation::Usable => return Err(error.into()),
            },
        };
        let key = KeyRef::of(&policy, &made).fresh();
        let granted = policy.granted_permissions();
        let checks = self.check.key(key, &policy.context_tag, &granted).await;
        if checks.some_refused() || checks.some_unanswered() {
            return Ok(ProbeAnswer::Checked { checks: checks.all });
        }
        Ok(ProbeAnswer::Made { key: made })
    }
}
