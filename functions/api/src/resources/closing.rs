//! `.../encryption-policy/close`: the organisation leaves; and what was erased then (spec E11).

use axum::body::Body;
use axum::extract::{Path, State};
use claviger_app::as_of::AsOf;
use claviger_app::close_organisation::CloseOrganisation;
use claviger_app::show_policy::ShowPolicy;
use claviger_domain::authorisation::Call;
use claviger_domain::invalid::Invalid;
use claviger_domain::policy::EncryptionPolicy;
use claviger_lambda::problem::Problem;
use http::StatusCode;
use serde_json::Value;

use crate::access::Visit;
use crate::answer::{Answer, document, located, tagged};
use crate::body;
use crate::if_match::IfMatch;
use crate::state::{Api, Shared};
use crate::trouble::trouble;

const CONFIRMATION: &str = "confirmation";

/// Asks for the closing.
pub async fn ask(
    State(api): State<Shared>,
    visit: Visit,
    Path(org): Path<String>,
    seen: Result<IfMatch, Problem>,
    sent: Body,
) -> Answer {
    let access = api.enter(&visit, &org, Call::CloseOrganisation).await?;
    let origin = visit.origin(access.role)?;
    let name = &access.organisation.name;
    let sent = body::object(sent).await?;
    // What ends in erasure is not asked for by a slip of the hand.
    if sent.get(CONFIRMATION).and_then(Value::as_str) != Some(name.as_str()) {
        let help = format!("send `{CONFIRMATION}` with the organization's name, `{name}`");
        let invalid = Invalid::new("it is not the organization's name", help);
        return Err(Problem::invalid(vec![invalid.at(CONFIRMATION)]));
    }
    let IfMatch(seen) = seen?;
    let policies = AsOf { stores: &*api.stores, seen: &seen };
    let close = CloseOrganisation { policies: &policies, clock: &*api.clock, settings: &api.settings };
    let policy = close.ask(name, &origin).await.map_err(trouble)?;
    Ok(shown(&api, &org, &policy))
}

/// Takes it back.
pub async fn cancel(
    State(api): State<Shared>,
    visit: Visit,
    Path(org): Path<String>,
    seen: Result<IfMatch, Problem>,
) -> Answer {
    let access = api.enter(&visit, &org, Call::CloseOrganisation).await?;
    let origin = visit.origin(access.role)?;
    let IfMatch(seen) = seen?;
    let policies = AsOf { stores: &*api.stores, seen: &seen };
    let close = CloseOrganisation { policies: &policies, clock: &*api.clock, settings: &api.settings };
    let policy = close.cancel(&access.organisation.name, &origin).await.map_err(trouble)?;
    Ok(shown(&api, &org, &policy))
}

/// Shows what was erased.
pub async fn statement(State(api): State<Shared>, visit: Visit, Path(org): Path<String>) -> Answer {
    let access = api.enter(&visit, &org, Call::ReadErasure).await?;
    let close = CloseOrganisation { policies: &*api.stores, clock: &*api.clock, settings: &api.settings };
    let statement = close.statement(&access.organisation.name).await.map_err(trouble)?;
    Ok(document(StatusCode::OK, &statement))
}

fn shown(api: &Api, org: &str, policy: &EncryptionPolicy) -> axum::response::Response {
    let show = ShowPolicy {
        policies: &*api.stores,
        watch_list: &*api.stores,
        clock: &*api.clock,
        settings: &api.settings,
    };
    let view = show.view(policy, None);
    let location = format!("/v1/organizations/{org}/encryption-policy");
    tagged(located(StatusCode::ACCEPTED, &location, &view), &view.etag)
}
