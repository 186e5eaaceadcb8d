//! `.../encryption-policy/keys/{region}`: what would happen without a key, and a new one for one that is lost.

use axum::body::Body;
use axum::extract::{Path, State};
use claviger_app::as_of::AsOf;
use claviger_app::preview_revocation::PreviewRevocation;
use claviger_app::request_replacement::RequestReplacement;
use claviger_app::show_policy::ShowPolicy;
use claviger_domain::authorisation::Call;
use claviger_domain::enrolment::parsed;
use claviger_domain::values::{KeyArn, Region};
use claviger_lambda::problem::Problem;
use http::StatusCode;

use crate::access::Visit;
use crate::answer::{Answer, document, located, tagged};
use crate::body;
use crate::if_match::IfMatch;
use crate::state::Shared;
use crate::trouble::trouble;

/// Shows what would happen if the key were disabled now.
pub async fn preview(
    State(api): State<Shared>,
    visit: Visit,
    Path((org, region)): Path<(String, String)>,
) -> Answer {
    let access = api.enter(&visit, &org, Call::PreviewRevocation).await?;
    let region: Region = region.parse().map_err(|_| Problem::not_found())?;
    let preview = PreviewRevocation {
        policies: &*api.stores,
        instances: &*api.stores,
        clock: &*api.clock,
        settings: &api.settings,
    };
    let shown = preview.run(&access.organisation.name, &region).await.map_err(trouble)?;
    Ok(document(StatusCode::OK, &shown))
}

/// Replaces a key that is gone for good.
pub async fn replace(
    State(api): State<Shared>,
    visit: Visit,
    Path((org, region)): Path<(String, String)>,
    seen: Result<IfMatch, Problem>,
    sent: Body,
) -> Answer {
    let access = api.enter(&visit, &org, Call::ReplaceKey).await?;
    let origin = visit.origin(access.role)?;
    let region: Region = region.parse().map_err(|_| Problem::not_found())?;
    let (mut faults, sent) = (Vec::new(), body::object(sent).await?);
    // Whether the mode wants a key named, or makes it, the use case knows.
    let named = sent.get("keyArn").is_some_and(|key| !key.is_null());
    let key: Option<KeyArn> = if named { parsed(&sent, "keyArn", &mut faults) } else { None };
    if !faults.is_empty() {
        return Err(Problem::invalid(faults));
    }
    let IfMatch(seen) = seen?;
    let policies = AsOf { stores: &*api.stores, seen: &seen };
    let (clock, settings) = (&*api.clock, &api.settings);
    let replacement = RequestReplacement { policies: &policies, prober: &*api.prober, clock, settings };
    let replaced = replacement.run(&access.organisation, &region, key, &origin).await;
    let policy = replaced.map_err(trouble)?;
    let show = ShowPolicy { policies: &*api.stores, watch_list: &*api.stores, clock, settings };
    let view = show.view(&policy, None);
    let location = format!("/v1/organizations/{org}/encryption-policy");
    Ok(tagged(located(StatusCode::ACCEPTED, &location, &view), &view.etag))
}
