//! Enrols an organisation: everything is proven before anything is stored (spec E1, E2, E4, E12).

use std::collections::BTreeSet;

use claviger_domain::decide::enrol;
use claviger_domain::enrolment::{Enrolment, Holding};
use claviger_domain::event::Origin;
use claviger_domain::ids::PolicyId;
use claviger_domain::invalid::InvalidField;
use claviger_domain::organisation::Organisation;
use claviger_domain::policy::{EncryptionPolicy, Lifecycle};
use serde_json::Value;

use crate::messages::{Check, CheckResult, ProbeAnswer, ProbeRequest};
use crate::ports::{CallError, Clock, Ids, Policies, Prober, StoreError};
use crate::request_error::{ATTEMPTS, RequestError};
use crate::settings::Settings;

/// What a request names that wants to give the customer's keys up.
const VENDOR_MANAGED: &str = "vendor-managed";

/// Enrols an organisation.
pub struct Enrol<'a> {
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// Who proves keys.
    pub prober: &'a dyn Prober,
    /// Identifiers.
    pub ids: &'a dyn Ids,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl Enrol<'_> {
    /// Checks the request and the keys, and stores the policy that waits for support.
    ///
    /// # Errors
    /// Every fault of the request, or every failed check; nothing is stored then.
    pub async fn run(
        &self,
        organisation: &Organisation,
        body: &Value,
        origin: &Origin,
    ) -> Result<EncryptionPolicy, RequestError> {
        // Spec E11, before anything else: no field of such a request could make it right.
        if body.get("mode").and_then(Value::as_str) == Some(VENDOR_MANAGED)
            && let Some(policy) = self.policies.policy(&organisation.name).await?
            && !matches!(policy.lifecycle, Lifecycle::Rejected { .. })
        {
            return Err(RequestError::NoWayBack);
        }
        let enrolment = parse(body, self.settings).map_err(RequestError::Invalid)?;
        eligible(organisation, self.settings)?;
        if let Some(policy) = self.policies.policy(&organisation.name).await?
            && let Some(reason) = enrolled(Some(&policy), &enrolment)
        {
            return Err(if policy.realm == enrolment.realm {
                RequestError::AlreadyEnrolled { reason }
            } else {
                RequestError::RealmIsFixed { reason }
            });
        }
        let checks = check_keys(self.prober, self.settings, organisation, &enrolment).await?;
        if checks.iter().any(|check| check.result == CheckResult::Fail) {
            return Err(RequestError::NotVerified(checks));
        }
        let id = PolicyId::from_uuid(self.ids.random());
        let decision = enrol(
            &self.settings.rules(),
            organisation,
            &enrolment,
            id,
            self.settings.shard_of(id),
            origin,
            self.clock.now(),
        )?;
        for _ in 0..ATTEMPTS {
            match self.policies.commit_policy(None, &decision).await {
                Ok(()) => return Ok(decision.next),
                // Somebody enrols at the same moment: the store grants one of them (spec E4).
                Err(StoreError::Conflict) => {}
                Err(other) => return Err(other.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }
}

/// The request, parsed. The vendor's own account is nobody's: a role of ours must not be assumed for a customer.
pub(crate) fn parse(body: &Value, settings: &Settings) -> Result<Enrolment, Vec<InvalidField>> {
    let enrolment = Enrolment::parse(body, &settings.catalogue)?;
    if enrolment.account == settings.vendor.account {
        return Err(vec![InvalidField {
            field: "awsAccountId".to_owned(),
            reason: format!("{} is our own account", enrolment.account),
            help: "name the account in which your keys are; `aws sts get-caller-identity` shows it"
                .to_owned(),
        }]);
    }
    Ok(enrolment)
}

/// Whether the organisation may enrol, whatever its keys (spec E1, E2). Asked at the request, when support approves it,
/// and when it is verified.
pub(crate) fn eligible(organisation: &Organisation, settings: &Settings) -> Result<(), RequestError> {
    match ineligible(organisation, settings).into_iter().next() {
        None => Ok(()),
        Some(reason) => Err(RequestError::NotEligible { reason: reason.observed, help: reason.help }),
    }
}

/// What keeps an organisation from enrolling whatever its keys: government cloud (spec E2), no plan that
/// allows it (spec E1). As failed checks, so that a dry run can list them with the others.
pub(crate) fn ineligible(organisation: &Organisation, settings: &Settings) -> Vec<Check> {
    let catalogue = &settings.catalogue;
    let fail = |id: &str, observed: String, help: &str| Check {
        id: id.to_owned(),
        region: None,
        result: CheckResult::Fail,
        observed,
        help: help.to_owned(),
    };
    let mut found = Vec::new();
    if organisation.government && !catalogue.government_may_enrol {
        let observed = "government-cloud organisations may not enrol".to_owned();
        found.push(fail(
            "government-cloud",
            observed,
            "nothing to do: it is not offered in the government cloud",
        ));
    }
    if !organisation.plans.iter().any(|(app, plan)| catalogue.plan_allows(app, plan)) {
        let plans: Vec<String> =
            organisation.plans.iter().map(|(app, plan)| format!("{app} is on `{plan}`")).collect();
        let has = if plans.is_empty() { "the organisation has no plan".to_owned() } else { plans.join(", ") };
        let help = "move at least one app to the Enterprise plan or its trial";
        found.push(fail("plan", format!("no app is on a plan that allows encryption: {has}"), help));
    }
    found
}

/// Why an organisation that has a policy cannot enrol again (spec E4, E11); none if it can.
pub(crate) fn enrolled(policy: Option<&EncryptionPolicy>, wanted: &Enrolment) -> Option<String> {
    let policy = policy?;
    match policy.lifecycle {
        Lifecycle::Rejected { .. } => None,
        Lifecycle::Requested { .. }
        | Lifecycle::Verifying { .. }
        | Lifecycle::Active { .. }
        | Lifecycle::Suspended { .. }
        | Lifecycle::Restoring { .. }
        | Lifecycle::Lapsed { .. }
        | Lifecycle::Closed { .. } => Some(if policy.realm != wanted.realm {
            format!("data cannot move between realms: the organisation is enrolled in `{}`", policy.realm)
        } else if policy.mode() != wanted.mode() {
            format!("the organisation is enrolled as `{}`; it cannot enrol again", policy.mode().slug())
        } else {
            format!("the organisation has its encryption policy, which is {}", policy.lifecycle.slug())
        }),
    }
}

/// Lets the prober check every key, or the role in every region; a prober that checks nothing has not proven
/// anything.
pub(crate) async fn check_keys(
    prober: &dyn Prober,
    settings: &Settings,
    organisation: &Organisation,
    enrolment: &Enrolment,
) -> Result<Vec<Check>, CallError> {
    let regions = settings.catalogue.regions(&enrolment.realm).unwrap_or_default();
    let request = ProbeRequest::Check {
        organisation: organisation.id,
        external_id: organisation.external_id.clone(),
        regions: regions.to_vec(),
        enrolment: enrolment.clone(),
        granted: BTreeSet::new(),
    };
    let wrong = |reason: &str| CallError { what: "the prober", reason: reason.to_owned() };
    match prober.probe(&request).await? {
        ProbeAnswer::Checked { checks } => {
            let covered = |region| checks.iter().any(|check| check.region.as_ref() == Some(region));
            let all = match &enrolment.holding {
                Holding::Cmk { keys } => keys.keys().all(covered),
                Holding::Byok { .. } => regions.iter().all(covered),
            };
            if all {
                return Ok(checks);
            }
            Err(wrong("it did not check every region"))
        }
        ProbeAnswer::Probed { .. } | ProbeAnswer::Unwrapped { .. } | ProbeAnswer::Made { .. } => {
            Err(wrong("it answered another question"))
        }
    }
}
