//! `.../encryption-policy`: enrol, look, and run an enrolment dry.

use axum::body::Body;
use axum::extract::{Path, State};
use claviger_app::enrol::Enrol;
use claviger_app::show_policy::ShowPolicy;
use claviger_app::validate_enrolment::ValidateEnrolment;
use claviger_domain::authorisation::Call;
use http::StatusCode;

use crate::access::Visit;
use crate::answer::{Answer, document, located, tagged};
use crate::body;
use crate::state::{Api, Shared};
use crate::trouble::trouble;

fn shows(api: &Api) -> ShowPolicy<'_> {
    ShowPolicy {
        policies: &*api.stores,
        watch_list: &*api.stores,
        clock: &*api.clock,
        settings: &api.settings,
    }
}

/// Enrols the organisation.
pub async fn enrol(State(api): State<Shared>, visit: Visit, Path(org): Path<String>, sent: Body) -> Answer {
    let access = api.enter(&visit, &org, Call::Enrol).await?;
    let origin = visit.origin(access.role)?;
    let sent = body::json(sent).await?;
    let enrol = Enrol {
        policies: &*api.stores,
        prober: &*api.prober,
        ids: &*api.ids,
        clock: &*api.clock,
        settings: &api.settings,
    };
    let policy = enrol.run(&access.organisation, &sent, &origin).await.map_err(trouble)?;
    let location = format!("/v1/organizations/{org}/encryption-policy");
    let view = shows(&api).view(&policy, None);
    Ok(tagged(located(StatusCode::ACCEPTED, &location, &view), &view.etag))
}

/// Shows the policy.
pub async fn show(State(api): State<Shared>, visit: Visit, Path(org): Path<String>) -> Answer {
    let access = api.enter(&visit, &org, Call::GetPolicy).await?;
    let view = shows(&api).run(&access.organisation.name).await.map_err(trouble)?;
    Ok(tagged(document(StatusCode::OK, &view), &view.etag))
}

/// Runs an enrolment dry.
pub async fn validate(
    State(api): State<Shared>,
    visit: Visit,
    Path(org): Path<String>,
    sent: Body,
) -> Answer {
    let access = api.enter(&visit, &org, Call::ValidatePolicy).await?;
    let sent = body::json(sent).await?;
    let validate = ValidateEnrolment {
        policies: &*api.stores,
        prober: &*api.prober,
        hints: &*api.stores,
        settings: &api.settings,
    };
    let validation = validate.run(&access.organisation, &sent).await.map_err(trouble)?;
    Ok(document(StatusCode::OK, &validation))
}
