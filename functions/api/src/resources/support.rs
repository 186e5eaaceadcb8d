//! `/v1/support/requests`: what waits for support, and its decisions.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use claviger_app::ports::{Page, SupportRequestKind};
use claviger_app::support_requests::{DecideRequests, Decided, Verdict};
use claviger_domain::authorisation::Call;
use claviger_lambda::problem::Problem;
use http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::access::Visit;
use crate::answer::{Answer, document, page};
use crate::body;
use crate::cursor::{Asked, List};
use crate::state::{Api, Shared};
use crate::trouble::trouble;

/// The longest reason, in characters.
const LONGEST: usize = 1000;

fn decides(api: &Api) -> DecideRequests<'_> {
    DecideRequests {
        requests: &*api.stores,
        policies: &*api.stores,
        instances: &*api.stores,
        clock: &*api.clock,
        settings: &api.settings,
    }
}

/// Lists what waits, with what is overdue marked.
pub async fn list(State(api): State<Shared>, visit: Visit, asked: Result<Asked, Problem>) -> Answer {
    api.admit_vendor(&visit, Call::ListSupportRequests)?;
    let list = List { name: "support-requests", owner: "" };
    let (cursor, limit) = asked?.page(&list)?;
    let found = decides(&api).list(cursor.as_deref(), limit).await.map_err(trouble)?;
    let now = api.clock.now();
    let items: Vec<Value> = found
        .items
        .into_iter()
        .map(|request| {
            json!({
                "id": request.id,
                "kind": request.kind,
                "organisation": request.organisation,
                "status": "requested",
                "requestedAt": request.requested_at,
                "dueAt": request.due_at,
                "overdue": now > request.due_at,
            })
        })
        .collect();
    Ok(page(&list, &Page { items, next: found.next }))
}

/// Approves a request.
pub async fn approve(State(api): State<Shared>, visit: Visit, Path(id): Path<String>) -> Answer {
    let role = api.admit_vendor(&visit, Call::DecideSupportRequest)?;
    let origin = visit.origin(role)?;
    let id = Uuid::try_parse(&id).map_err(|_| Problem::not_found())?;
    let decided = decides(&api).decide(id, &Verdict::Approved, &origin).await.map_err(trouble)?;
    Ok(shown(id, &decided))
}

/// Rejects a request, with the reason that the org admin will read.
pub async fn reject(State(api): State<Shared>, visit: Visit, Path(id): Path<String>, sent: Body) -> Answer {
    let role = api.admit_vendor(&visit, Call::DecideSupportRequest)?;
    let origin = visit.origin(role)?;
    let id = Uuid::try_parse(&id).map_err(|_| Problem::not_found())?;
    let mut faults = Vec::new();
    let reason = body::words(&body::object(sent).await?, "reason", LONGEST, &mut faults);
    let reason = reason.ok_or_else(|| Problem::invalid(faults))?;
    let verdict = Verdict::Rejected { reason };
    let decided = decides(&api).decide(id, &verdict, &origin).await.map_err(trouble)?;
    Ok(shown(id, &decided))
}

fn shown(id: Uuid, decided: &Decided) -> Response {
    let (kind, organisation, status) = match decided {
        Decided::Policy(policy) => {
            (SupportRequestKind::Enrolment, &policy.organisation_name, policy.lifecycle.slug())
        }
        Decided::Instance(instance) => {
            (SupportRequestKind::AppInstance, &instance.organisation_name, instance.status.slug())
        }
    };
    let answer = json!({ "id": id, "kind": kind, "organisation": organisation, "status": status });
    document(StatusCode::OK, &answer)
}
