//! The dry run of an enrolment: the same checks, nothing stored, every fault listed at once (spec E12).

use std::collections::BTreeMap;

use claviger_domain::catalogue::Mode;
use claviger_domain::enrolment::{Enrolment, Holding, parsed};
use claviger_domain::invalid::InvalidField;
use claviger_domain::key_access::RoleArn;
use claviger_domain::organisation::Organisation;
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::values::{AccountId, ContextTag, KeyArn, Realm, Region};
use serde::Serialize;
use serde_json::Value;

use crate::enrol::{check_keys, enrolled, ineligible, parse};
use crate::messages::{Check, CheckResult};
use crate::ports::{HintRecords, Policies, Prober, StoreError};
use crate::request_error::RequestError;
use crate::settings::Settings;

/// What the dry run found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Validation {
    /// The worst of the checks.
    pub result: CheckResult,
    /// Every check.
    pub checks: Vec<Check>,
}

/// Runs an enrolment dry.
pub struct ValidateEnrolment<'a> {
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// Who proves keys.
    pub prober: &'a dyn Prober,
    /// What is remembered of accounts' events.
    pub hints: &'a dyn HintRecords,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl ValidateEnrolment<'_> {
    /// Checks the request, the organisation and the keys. A field that is wrong is a failed check like
    /// any other, and the keys that can be read are checked all the same.
    ///
    /// # Errors
    /// When the body is no object, or the checks cannot be made now.
    pub async fn run(&self, organisation: &Organisation, body: &Value) -> Result<Validation, RequestError> {
        let mut checks = ineligible(organisation, self.settings);
        let request = parse(body, self.settings);
        if !body.is_object() {
            return Err(RequestError::Invalid(request.err().unwrap_or_default()));
        }
        let policy = self.policies.policy(&organisation.name).await?;
        let to_check = match request {
            Ok(enrolment) => {
                checks.push(match enrolled(policy.as_ref(), &enrolment) {
                    None => check("request", CheckResult::Pass, "every field can be used".to_owned(), ""),
                    Some(reason) => {
                        check("encryption-policy", CheckResult::Fail, reason, "an organisation has one")
                    }
                });
                Some(enrolment)
            }
            Err(faults) => {
                checks.extend(faults.iter().map(fault));
                readable(body, self.settings)
            }
        };
        if let Some(enrolment) = to_check {
            checks.push(self.events(policy.as_ref(), &enrolment.account).await?);
            checks.extend(check_keys(self.prober, self.settings, organisation, &enrolment).await?);
        }
        let result = checks.iter().map(|check| check.result).max().unwrap_or(CheckResult::Fail);
        Ok(Validation { result, checks })
    }
}

impl ValidateEnrolment<'_> {
    /// Whether events of the account arrive. Said only of the organisation's own account: an account's events are
    /// nobody else's business (spec E12).
    async fn events(
        &self,
        policy: Option<&EncryptionPolicy>,
        account: &AccountId,
    ) -> Result<Check, StoreError> {
        const ID: &str = "events-arriving";
        let bound = self.settings.cut_off_bound().as_secs();
        let help = format!(
            "deploy the event rules of `onboarding/` in every region of the realm, and the one for IAM in us-east-1; \
             without events a revocation is found by probing alone, within {bound} seconds"
        );
        let own = policy.filter(|policy| policy.lifecycle.is_watched() && policy.account == *account);
        if own.is_none() {
            let observed =
                "not known before enrolment: events of accounts that are not enrolled are dropped unread";
            return Ok(check(ID, CheckResult::Warn, observed.to_owned(), &help));
        }
        Ok(match self.hints.hints_of(account).await? {
            Some(known) => {
                let observed = format!("the last one that mattered came about {:.0}", known.planned_at);
                check(ID, CheckResult::Pass, observed, "")
            }
            None => check(ID, CheckResult::Warn, "none has come yet".to_owned(), &help),
        })
    }
}

fn check(id: &str, result: CheckResult, observed: String, help: &str) -> Check {
    Check { id: id.to_owned(), region: None, result, observed, help: help.to_owned() }
}

fn fault(fault: &InvalidField) -> Check {
    check(&slug(&fault.field), CheckResult::Fail, fault.to_string(), &fault.help)
}

/// A field's path as a slug: `keys[1].keyArn` is `keys-key-arn`.
fn slug(field: &str) -> String {
    let mut slug = String::new();
    for letter in field.chars() {
        match letter {
            'A'..='Z' => {
                slug.push('-');
                slug.push(letter.to_ascii_lowercase());
            }
            '.' => slug.push('-'),
            'a'..='z' => slug.push(letter),
            _ => {}
        }
    }
    slug
}

/// What can be read of a request that has faults: its keys are checked too, so that one dry run shows
/// everything. None if there is no key or no tag to check them with.
///
/// INVARIANT (I7): what a request that is refused can have us call is no more than one that is granted: no key or role of
/// our own account, and nothing outside of the catalogue's regions.
fn readable(body: &Value, settings: &Settings) -> Option<Enrolment> {
    let mut ignored = Vec::new();
    let account: AccountId = parsed(body, "awsAccountId", &mut ignored)?;
    if account == settings.vendor.account {
        return None;
    }
    let realm: Realm = parsed(body, "realm", &mut ignored)?;
    let context_tag: ContextTag = parsed(body, "contextTag", &mut ignored)?;
    let mode: Mode = parsed(body, "mode", &mut ignored)?;
    if mode == Mode::Byok {
        let role_arn: RoleArn = parsed(body, "roleArn", &mut ignored)?;
        let own = *role_arn.account() == account;
        let holding = Holding::Byok { role_arn };
        return own.then_some(Enrolment { holding, account, realm, context_tag });
    }
    let entries = body.get("keys").and_then(Value::as_array).filter(|entries| entries.len() <= 16)?;
    let known = settings.catalogue.all_regions();
    let mut keys = BTreeMap::new();
    for entry in entries {
        let region: Option<Region> = parsed(entry, "region", &mut ignored);
        let arn: Option<KeyArn> = parsed(entry, "keyArn", &mut ignored);
        if let (Some(region), Some(arn)) = (region, arn)
            && arn.region() == &region
            && arn.account() == &account
            && known.contains(&region)
        {
            keys.insert(region, arn);
        }
    }
    let holds_something = !keys.is_empty();
    let holding = Holding::Cmk { keys };
    holds_something.then_some(Enrolment { holding, account, realm, context_tag })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_becomes_a_slug() {
        assert_eq!(slug("keys[12].keyArn"), "keys-key-arn");
        assert_eq!(slug("awsAccountId"), "aws-account-id");
    }
}
