//! `/v1/support/requests`: what waits for support, and its decisions.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use claviger_app::as_of::{AsOf, Seen};
use claviger_app::ports::{Page, SupportRequestKind};
use claviger_app::support_requests::{DecideRequests, Decided, Verdict};
use claviger_domain::authorisation::Call;
use claviger_domain::closing::Closing;
use claviger_lambda::problem::Problem;
use http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::access::Visit;
use crate::answer::{Answer, document, page};
use crate::body;
use crate::cursor::{Asked, List};
use crate::if_match::IfMatch;
use crate::state::{Api, Shared, Stores};
use crate::trouble::trouble;

/// The longest reason, in characters.
const LONGEST: usize = 1000;

type Stored<'a> = AsOf<'a, dyn Stores>;

fn decides<'a>(api: &'a Api, stores: &'a Stored<'a>) -> DecideRequests<'a> {
    DecideRequests {
        requests: &*api.stores,
        organisations: &*api.stores,
        policies: stores,
        instances: stores,
        clock: &*api.clock,
        settings: &api.settings,
    }
}

/// Lists what waits, with what is overdue marked.
pub async fn list(State(api): State<Shared>, visit: Visit, asked: Result<Asked, Problem>) -> Answer {
    api.admit_vendor(&visit, Call::ListSupportRequests)?;
    let list = List { name: "support-requests", owner: None };
    let (cursor, limit) = asked?.page(&list)?;
    let stores = AsOf { stores: &*api.stores, seen: &Seen::Anything };
    let found = decides(&api, &stores).list(cursor.as_deref(), limit).await.map_err(trouble)?;
    let now = api.clock.now();
    let items: Vec<Value> = found
        .items
        .into_iter()
        .map(|request| {
            json!({
                "id": request.id,
                "kind": request.kind,
                "organisation": request.organisation,
                "status": if request.approved { "approved" } else { "requested" },
                "requestedAt": request.requested_at,
                "dueAt": request.due_at,
                "overdue": now > request.due_at,
            })
        })
        .collect();
    Ok(page(&list, &Page { items, next: found.next }))
}

/// Approves a request.
pub async fn approve(
    State(api): State<Shared>,
    visit: Visit,
    Path(id): Path<String>,
    seen: Result<IfMatch, Problem>,
) -> Answer {
    let role = api.admit_vendor(&visit, Call::DecideSupportRequest)?;
    let origin = visit.origin(role)?;
    let id = Uuid::try_parse(&id).map_err(|_| Problem::not_found())?;
    let IfMatch(seen) = seen?;
    let stores = AsOf { stores: &*api.stores, seen: &seen };
    let decided = decides(&api, &stores).decide(id, &Verdict::Approved, &origin).await.map_err(trouble)?;
    Ok(shown(id, &decided))
}

/// Rejects a request, with the reason that the org admin will read.
pub async fn reject(
    State(api): State<Shared>,
    visit: Visit,
    Path(id): Path<String>,
    seen: Result<IfMatch, Problem>,
    sent: Body,
) -> Answer {
    let role = api.admit_vendor(&visit, Call::DecideSupportRequest)?;
    let origin = visit.origin(role)?;
    let id = Uuid::try_parse(&id).map_err(|_| Problem::not_found())?;
    let mut faults = Vec::new();
    let reason = body::words(&body::object(sent).await?, "reason", LONGEST, &mut faults);
    let reason = reason.ok_or_else(|| Problem::invalid(faults))?;
    let verdict = Verdict::Rejected { reason };
    let IfMatch(seen) = seen?;
    let stores = AsOf { stores: &*api.stores, seen: &seen };
    let decided = decides(&api, &stores).decide(id, &verdict, &origin).await.map_err(trouble)?;
    Ok(shown(id, &decided))
}

fn shown(id: Uuid, decided: &Decided) -> Response {
    let (kind, organisation, status) = match decided {
        Decided::Policy(policy) => {
            (SupportRequestKind::Enrolment, &policy.organisation_name, policy.lifecycle.slug())
        }
        Decided::Closing(policy) => {
            let status = policy.closing.as_ref().map_or("rejected", Closing::slug);
            (SupportRequestKind::Closing, &policy.organisation_name, status)
        }
        Decided::Instance(instance) => {
            (SupportRequestKind::AppInstance, &instance.organisation_name, instance.status.slug())
        }
    };
    let answer = json!({ "id": id, "kind": kind, "organisation": organisation, "status": status });
    document(StatusCode::OK, &answer)
}
