//! `.../reencryptions`: an org admin moves everything to new keys, sees how far it is, and steers it.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use claviger_app::as_of::AsOf;
use claviger_app::request_reencryption::RequestReencryption;
use claviger_app::show_policy::ShowPolicy;
use claviger_app::show_reencrypted_instances::ShowReencryptedInstances;
use claviger_app::show_reencryption::{Beside, ShowReencryption};
use claviger_app::steer_reencryption::{Steer, SteerReencryption};
use claviger_domain::authorisation::Call;
use claviger_domain::catalogue::Mode;
use claviger_domain::decide::ADVICE;
use claviger_domain::ids::ReencryptionId;
use claviger_domain::policy::EncryptionPolicy;
use claviger_lambda::problem::{Problem, ProblemKind};
use http::StatusCode;
use serde_json::json;

use crate::access::Visit;
use crate::answer::{Answer, document, located, page, tagged};
use crate::body;
use crate::cursor::{Asked, List};
use crate::if_match::IfMatch;
use crate::state::{Api, Shared};
use crate::trouble::trouble;

fn shows(api: &Api) -> ShowReencryption<'_> {
    ShowReencryption {
        policies: &*api.stores,
        checkpoints: &*api.stores,
        backups: &*api.stores,
        clock: &*api.clock,
        in_transit: api.settings.in_transit,
    }
}

/// The answer to a job that was asked for or steered.
fn accepted(api: &Api, org: &str, policy: &EncryptionPolicy, id: ReencryptionId, beside: &Beside) -> Answer {
    let view = shows(api).of(policy, id, beside).map_err(trouble)?;
    let location = format!("/v1/organizations/{org}/reencryptions/{id}");
    Ok(tagged(located(StatusCode::ACCEPTED, &location, &view), &view.etag))
}

/// Asks for everything to move to new keys.
pub async fn request(
    State(api): State<Shared>,
    visit: Visit,
    Path(org): Path<String>,
    seen: Result<IfMatch, Problem>,
    sent: Body,
) -> Answer {
    asked(&api, &visit, &org, seen, sent, false).await
}

/// The same for a BYOK organisation, which becomes CMK by it (spec X6).
pub async fn migrate(
    State(api): State<Shared>,
    visit: Visit,
    Path(org): Path<String>,
    seen: Result<IfMatch, Problem>,
    sent: Body,
) -> Answer {
    asked(&api, &visit, &org, seen, sent, true).await
}

async fn asked(
    api: &Api,
    visit: &Visit,
    org: &str,
    seen: Result<IfMatch, Problem>,
    sent: Body,
    migrates: bool,
) -> Answer {
    let access = api.enter(visit, org, Call::RequestReencryption).await?;
    let origin = visit.origin(access.role)?;
    let sent = body::object(sent).await?;
    let IfMatch(seen) = seen?;
    let policies = AsOf { stores: &*api.stores, seen: &seen };
    if migrates {
        let known = api.stores.policy(&access.organisation.name).await;
        let known = known.map_err(|error| trouble(error.into()))?;
        if known.is_some_and(|policy| policy.access.mode() == Mode::Cmk) {
            let detail = "the organization holds its keys by key policy already";
            return Err(Problem::new(ProblemKind::IllegalState, detail)
                .with_help("`POST .../reencryptions` moves it to other keys"));
        }
    }
    let (prober, clock, settings) = (&*api.prober, &*api.clock, &api.settings);
    let request = RequestReencryption { policies: &policies, prober, clock, settings };
    let policy = request.run(&access.organisation, &sent, &origin).await.map_err(trouble)?;
    if let Some(job) = &policy.reencryption {
        return accepted(api, org, &policy, job.id, &Beside::default());
    }
    // It waits for a second org admin.
    let show = ShowPolicy { policies: &*api.stores, watch_list: &*api.stores, clock, settings };
    let view = show.view(&policy, None);
    Ok(tagged(document(StatusCode::OK, &view), &view.etag))
}

/// Lists the organisation's re-encryptions, newest first.
pub async fn list(
    State(api): State<Shared>,
    visit: Visit,
    Path(org): Path<String>,
    asked: Result<Asked, Problem>,
) -> Answer {
    let access = api.enter(&visit, &org, Call::SeeReencryption).await?;
    let list = List { name: "reencryptions", owner: Some(access.organisation.id) };
    let asked = asked?;
    asked.page(&list)?;
    let views = shows(&api).list(&access.organisation.name).await.map_err(trouble)?;
    let page = asked.page_of(&list, views, |view| view.id.to_string())?;
    let next = page.next.as_deref().map(|cursor| list.sealed(cursor));
    // What to weigh can be read before anything is asked for.
    Ok(document(StatusCode::OK, &json!({ "items": page.items, "nextCursor": next, "advice": ADVICE })))
}

/// Shows one.
pub async fn show(
    State(api): State<Shared>,
    visit: Visit,
    Path((org, id)): Path<(String, String)>,
) -> Answer {
    let access = api.enter(&visit, &org, Call::SeeReencryption).await?;
    let id = id.parse().map_err(|_| Problem::not_found())?;
    let view = shows(&api).run(&access.organisation.name, id).await.map_err(trouble)?;
    Ok(tagged(document(StatusCode::OK, &view), &view.etag))
}

/// Shows how far one is with each instance.
pub async fn instances(
    State(api): State<Shared>,
    visit: Visit,
    Path((org, id)): Path<(String, String)>,
    asked: Result<Asked, Problem>,
) -> Answer {
    let access = api.enter(&visit, &org, Call::SeeReencryption).await?;
    let id: ReencryptionId = id.parse().map_err(|_| Problem::not_found())?;
    let list = List { name: "reencrypted-instances", owner: Some(access.organisation.id) };
    let (cursor, limit) = asked?.page(&list)?;
    let (policies, instances, checkpoints) = (&*api.stores, &*api.stores, &*api.stores);
    let show = ShowReencryptedInstances { policies, instances, checkpoints, clock: &*api.clock };
    let found = show.run(&access.organisation.name, id, cursor.as_deref(), limit).await.map_err(trouble)?;
    Ok(page(&list, &found))
}

/// Has it stand still.
pub async fn pause(
    State(api): State<Shared>,
    visit: Visit,
    Path(at): Path<(String, String)>,
    seen: Result<IfMatch, Problem>,
) -> Answer {
    steered(&api, &visit, at, seen, Steer::Pause).await
}

/// Lets it go on.
pub async fn resume(
    State(api): State<Shared>,
    visit: Visit,
    Path(at): Path<(String, String)>,
    seen: Result<IfMatch, Problem>,
) -> Answer {
    steered(&api, &visit, at, seen, Steer::Resume).await
}

/// Has it cancelled, before its point of no return.
pub async fn cancel(
    State(api): State<Shared>,
    visit: Visit,
    Path(at): Path<(String, String)>,
    seen: Result<IfMatch, Problem>,
) -> Answer {
    steered(&api, &visit, at, seen, Steer::Cancel).await
}

async fn steered(
    api: &Api,
    visit: &Visit,
    (org, id): (String, String),
    seen: Result<IfMatch, Problem>,
    steer: Steer,
) -> Result<Response, Problem> {
    let access = api.enter(visit, &org, Call::SteerReencryption).await?;
    let origin = visit.origin(access.role)?;
    let id: ReencryptionId = id.parse().map_err(|_| Problem::not_found())?;
    let IfMatch(seen) = seen?;
    let policies = AsOf { stores: &*api.stores, seen: &seen };
    let steering = SteerReencryption { policies: &policies, clock: &*api.clock, settings: &api.settings };
    let name = &access.organisation.name;
    let beside = shows(api).beside(name, id).await.map_err(|error| trouble(error.into()))?;
    let policy = steering.run(name, id, steer, &origin).await.map_err(trouble)?;
    accepted(api, &org, &policy, id, &beside)
}
