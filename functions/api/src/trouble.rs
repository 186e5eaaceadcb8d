//! From what kept a request from being granted to the problem that says so. A failure of ours is logged
//! here, once.

use std::collections::BTreeMap;

use claviger_app::messages::{Check, CheckResult};
use claviger_app::ports::StoreError;
use claviger_app::request_error::RequestError;
use claviger_domain::decide::{LAPSED_HELP, Refusal};
use claviger_domain::invalid::InvalidField;
use claviger_domain::observation::{NoAnswerKind, Observation};
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::values::{KeyArn, OrganisationName, Region};
use claviger_lambda::observe::chain;
use claviger_lambda::problem::{Problem, ProblemKind};

use crate::state::Api;

/// The problem of a request that was not granted.
pub fn trouble(error: RequestError) -> Problem {
    match error {
        RequestError::Invalid(faults) => Problem::invalid(faults),
        RequestError::NotFound { what } => {
            Problem::new(ProblemKind::NotFound, format!("{what} is not there"))
        }
        RequestError::NotEligible { reason, help } => {
            Problem::new(ProblemKind::NotEligible, reason).with_help(help)
        }
        RequestError::AlreadyEnrolled { reason } => Problem::new(ProblemKind::AlreadyEnrolled, reason),
        RequestError::RealmIsFixed { reason } => Problem::new(ProblemKind::RealmIsFixed, reason),
        RequestError::NoWayBack => Problem::new(
            ProblemKind::NoWayBack,
            "what is encrypted under the organisation's own keys stays under them",
        ),
        RequestError::AccessNotGranted { request } => Problem::new(
            ProblemKind::AccessNotGranted,
            format!("access request {request} is declined, or was not answered in time"),
        ),
        RequestError::NotVerified(checks) => not_verified(&checks),
        RequestError::Taken(field) => {
            Problem::new(ProblemKind::Conflict, field.to_string()).with_errors(vec![field])
        }
        RequestError::DataKeysGone(field) => {
            Problem::new(ProblemKind::DataKeysRemoved, field.to_string()).with_errors(vec![field])
        }
        RequestError::NotNow { reason, help } => {
            Problem::new(ProblemKind::IllegalState, reason).with_help(help)
        }
        RequestError::Suspended => {
            Problem::new(ProblemKind::Suspended, "the organisation's access is cut off")
        }
        RequestError::NotApproved { why } => {
            let problem = trouble(*why);
            let help = problem.help.as_deref().unwrap_or_else(|| problem.kind.help());
            let help = format!("{help}; the support request stays as it is, and can be rejected");
            problem.with_help(help)
        }
        RequestError::Refused(refusal) => refused(refusal),
        RequestError::Store(error) => store_trouble(&error),
        RequestError::Call(error) => {
            tracing::error!(error = chain(&error), "a call failed");
            Problem::unavailable()
        }
    }
}

/// The problem of a store that failed.
pub fn store_trouble(error: &StoreError) -> Problem {
    match error {
        StoreError::Conflict => {
            Problem::new(ProblemKind::Conflict, "somebody else changed it at the same time")
        }
        StoreError::Changed => {
            Problem::new(ProblemKind::PreconditionFailed, "it is not what `If-Match` names any more")
        }
        StoreError::DataKeysGone => {
            Problem::new(ProblemKind::DataKeysRemoved, "data keys that it needs are removed")
        }
        StoreError::Taken { what } => Problem::new(ProblemKind::Conflict, format!("{what} is taken")),
        StoreError::Unavailable { .. } => {
            tracing::error!(error = chain(error), "the store failed");
            Problem::unavailable()
        }
        StoreError::Corrupt { .. } => {
            tracing::error!(error = chain(error), "a stored item cannot be read");
            Problem::new(ProblemKind::Internal, "something that is stored cannot be read")
        }
    }
}

fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Stale => Problem::new(ProblemKind::Conflict, "something newer is known already"),
        Refusal::Redundant => Problem::new(ProblemKind::Conflict, "it is so already"),
        Refusal::IllegalForState { lifecycle } => {
            Problem::new(ProblemKind::IllegalState, format!("this cannot happen while it is {lifecycle}"))
        }
        Refusal::Forbidden { who } => Problem::new(ProblemKind::Forbidden, format!("only {who} may do this")),
        Refusal::KeysNotUsable { faults } => keys_not_usable(&faults, None),
        Refusal::WrongTicket { .. } => Problem::invalid(vec![InvalidField {
            field: "ticketId".to_owned(),
            reason: "it is not the open ticket of this revocation".to_owned(),
            help: "`ticketId` of `GET .../encryption-policy` is the right one".to_owned(),
        }]),
        Refusal::NotAGround { reason } => Problem::invalid(vec![InvalidField {
            field: "accessRequestId".to_owned(),
            reason: format!("it is no ground for a suspension: {reason}"),
            help: "`accessRequests` of `GET .../encryption-policy` lists them: name one that is declined or ignored, or \
                   leave it out to suspend for a reason of your own"
                .to_owned(),
        }]),
        Refusal::WindowLapsed => {
            Problem::new(ProblemKind::WindowLapsed, "restoring by yourself is not possible any more")
                .with_help(LAPSED_HELP)
        }
        Refusal::KeyNotLost { .. } => Problem::new(ProblemKind::IllegalState, refusal.to_string()).with_help(
            "only a key that refuses is replaced; `GET .../encryption-policy` shows each key's health",
        ),
        Refusal::NotClosing => Problem::new(ProblemKind::IllegalState, refusal.to_string())
            .with_help("there is nothing to cancel: everything stays as it is"),
        Refusal::SiteNotDeleted => Problem::new(ProblemKind::IllegalState, refusal.to_string())
            .with_help("there is nothing to take back: everything stays as it is"),
        Refusal::ErasureBegan => Problem::new(ProblemKind::IllegalState, refusal.to_string())
            .with_help("there is no way back any more; `GET .../encryption-policy/erasure-statement` tells when it is done"),
        Refusal::ReencryptionUnderWay => Problem::new(ProblemKind::IllegalState, refusal.to_string())
            .with_help("`GET .../reencryptions` shows it; before its point of no return it can be cancelled"),
        Refusal::Degraded => Problem::new(ProblemKind::IllegalState, refusal.to_string())
            .with_help("give the key back, or have it replaced, first: every data key has to be unwrapped"),
        Refusal::PointOfNoReturn => Problem::new(ProblemKind::IllegalState, refusal.to_string())
            .with_help("let it finish; to come back to other keys, ask for another re-encryption afterwards"),
        Refusal::NotSuspendedBy { .. } => Problem::new(ProblemKind::IllegalState, refusal.to_string()),
    }
}

/// The problem of a restoration that was not granted: each fault with commands that name the organisation's own key,
/// ready to paste.
pub async fn restoration_trouble(api: &Api, organisation: &OrganisationName, error: RequestError) -> Problem {
    let RequestError::Refused(Refusal::KeysNotUsable { faults }) = error else {
        return trouble(error);
    };
    // Without the policy the remedies are the same, with a gap for the key.
    let policy = api.stores.policy(organisation).await.ok().flatten();
    keys_not_usable(&faults, policy.as_ref())
}

/// A restoration with every region's fault and remedy (spec S2). When nothing but outages stands in the
/// way, it heals by itself: the customer has nothing to do.
fn keys_not_usable(faults: &BTreeMap<Region, Observation>, policy: Option<&EncryptionPolicy>) -> Problem {
    let customer_must_act = faults.values().any(|saw| matches!(saw, Observation::Refused(_)));
    let key = |region: &Region| policy.and_then(|policy| policy.keys.get(region)).map(|key| &key.arn);
    let errors: Vec<InvalidField> =
        faults.iter().map(|(region, saw)| fault(region, key(region), *saw)).collect();
    let regions: Vec<&str> = faults.keys().map(Region::as_str).collect();
    let regions = regions.join(", ");
    if customer_must_act {
        let detail = format!("not every regional key answers: {regions}");
        return Problem::new(ProblemKind::KeysNotUsable, detail).with_errors(errors);
    }
    let detail = format!("AWS gives no answer about the keys at the moment: {regions}");
    Problem::new(ProblemKind::TemporarilyUnavailable, detail).with_errors(errors).after(10)
}

fn fault(region: &Region, key: Option<&KeyArn>, saw: Observation) -> InvalidField {
    let (reason, help) = match saw {
        Observation::Refused(kind) => {
            let word = serde_json::to_value(kind).ok().and_then(|word| word.as_str().map(str::to_owned));
            let word = word.unwrap_or_else(|| "refused".to_owned());
            let without = || kind.remedy().replace("<region>", region.as_str());
            let remedy = key.map_or_else(without, |key| kind.remedy_for(key));
            let or_else =
                "if it is gone for good, ask with `\"intoDegraded\": true` and replace it afterwards";
            (
                format!("the key in {region} refuses: {word}"),
                if kind.is_for_good() { format!("{remedy}; {or_else}") } else { remedy },
            )
        }
        Observation::NoAnswer(kind) => {
            let why = match kind {
                NoAnswerKind::Throttled => "AWS throttles",
                NoAnswerKind::Unreachable => "AWS cannot be reached",
                NoAnswerKind::OurFault => "a fault of ours",
            };
            (format!("the key in {region} gave no answer: {why}"), "try again in a moment".to_owned())
        }
        Observation::Usable => (format!("the key in {region} has no canary"), "ask support".to_owned()),
    };
    InvalidField { field: format!("keys.{region}"), reason, help }
}

fn not_verified(checks: &[Check]) -> Problem {
    let failed: Vec<InvalidField> = checks
        .iter()
        .filter(|check| check.result == CheckResult::Fail)
        .map(|check| InvalidField {
            field: match &check.region {
                Some(region) => format!("keys.{region}"),
                None => check.id.clone(),
            },
            reason: format!("{}: {}", check.id, check.observed),
            help: check.help.clone(),
        })
        .collect();
    let detail = format!("{} of {} checks failed", failed.len(), checks.len());
    Problem::new(ProblemKind::KeysNotVerified, detail).with_errors(failed)
}
