//! `.../restorations`: an org admin asks for access to be restored.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use claviger_app::as_of::AsOf;
use claviger_app::request_restoration::RequestRestoration;
use claviger_domain::authorisation::Call;
use claviger_domain::calendar::business_days_after;
use claviger_domain::enrolment::parsed;
use claviger_domain::ids::TicketId;
use claviger_domain::invalid::{Invalid, InvalidField};
use claviger_domain::policy::{EncryptionPolicy, Lifecycle};
use claviger_lambda::problem::Problem;
use http::StatusCode;
use serde_json::{Value, json};

use crate::access::Visit;
use crate::answer::{Answer, located};
use crate::body;
use crate::if_match::IfMatch;
use crate::state::{Api, Shared};
use crate::trouble::restoration_trouble;

/// Asks for restoration.
pub async fn request(
    State(api): State<Shared>,
    visit: Visit,
    Path(org): Path<String>,
    seen: Result<IfMatch, Problem>,
    sent: Body,
) -> Answer {
    let access = api.enter(&visit, &org, Call::RequestRestoration).await?;
    let origin = visit.origin(access.role)?;
    let mut faults = Vec::new();
    let sent = body::object(sent).await?;
    let ticket: Option<TicketId> = parsed(&sent, "ticketId", &mut faults);
    let into_degraded = into_degraded(&sent, &mut faults);
    let (Some(ticket), true) = (ticket, faults.is_empty()) else {
        return Err(Problem::invalid(faults));
    };
    let IfMatch(seen) = seen?;
    let policies = AsOf { stores: &*api.stores, seen: &seen };
    let restoration = RequestRestoration {
        policies: &policies,
        prober: &*api.prober,
        clock: &*api.clock,
        settings: &api.settings,
    };
    let name = &access.organisation.name;
    match restoration.run(name, ticket, into_degraded, &origin).await {
        Ok(policy) => Ok(accepted(&api, &org, ticket, &policy)),
        Err(error) => Err(restoration_trouble(&api, name, error).await),
    }
}

/// Whether to do without keys that are gone for good.
pub(super) fn into_degraded(sent: &Value, faults: &mut Vec<InvalidField>) -> bool {
    match sent.get("intoDegraded") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(yes)) => *yes,
        Some(_) => {
            let invalid =
                Invalid::new("it is not a truth value", "send `true` to do without keys that are lost");
            faults.push(invalid.at("intoDegraded"));
            false
        }
    }
}

/// The answer to a restoration that is under way.
pub(super) fn accepted(api: &Api, org: &str, ticket: TicketId, policy: &EncryptionPolicy) -> Response {
    let rules = &api.settings.catalogue.due;
    // Due from when it was first asked for, however often it is asked again.
    let asked_at = match policy.lifecycle {
        Lifecycle::Restoring { since, .. } => since,
        _ => api.clock.now(),
    };
    let due_at = business_days_after(rules, asked_at, rules.restoration_business_days);
    let answer = json!({ "ticketId": ticket, "lifecycle": policy.standing(), "dueAt": due_at });
    located(StatusCode::ACCEPTED, &format!("/v1/organizations/{org}/encryption-policy"), &answer)
}
