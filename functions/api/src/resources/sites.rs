//! `.../sites/{site}`: what the vendor's records say became of a site: another name, or deleted.

use axum::body::Body;
use axum::extract::{Path, State};
use claviger_app::list_instances::{InstanceView, ListInstances};
use claviger_app::sites::Sites;
use claviger_domain::authorisation::Call;
use claviger_domain::enrolment::parsed;
use claviger_domain::instance::AppInstance;
use claviger_domain::values::SiteName;
use claviger_lambda::problem::Problem;
use http::StatusCode;
use serde_json::{Value, json};

use crate::access::Visit;
use crate::answer::{Answer, document, located};
use crate::body;
use crate::state::{Api, Shared};
use crate::trouble::trouble;

fn sites(api: &Api) -> Sites<'_> {
    let (policies, instances) = (&*api.stores, &*api.stores);
    Sites { policies, instances, clock: &*api.clock, settings: &api.settings }
}

/// A site that cannot be named so is not there.
fn named(site: &str) -> Result<SiteName, Problem> {
    site.parse().map_err(|_| Problem::not_found())
}

/// The apps on a site: all of them, for there are no more than the catalogue has. Nothing is read for it: an answer that
/// fails after the decision has the caller ask again for what is done already.
fn shown(api: &Api, apps: &[AppInstance]) -> Value {
    let lists = ListInstances { instances: &*api.stores, settings: &api.settings };
    let view = |app: &AppInstance| lists.view(app.clone(), lists.family_among(apps, &app.app));
    let items: Vec<InstanceView> = apps.iter().map(view).collect();
    json!({ "items": items, "nextCursor": null })
}

/// Gives a site another name.
pub async fn rename(
    State(api): State<Shared>,
    visit: Visit,
    Path((org, site)): Path<(String, String)>,
    sent: Body,
) -> Answer {
    let access = api.enter(&visit, &org, Call::RenameSite).await?;
    let origin = visit.origin(access.role)?;
    let from = named(&site)?;
    let mut faults = Vec::new();
    let to: Option<SiteName> = parsed(&body::object(sent).await?, "site", &mut faults);
    let to = to.ok_or_else(|| Problem::invalid(faults))?;
    let renamed = sites(&api).rename(&access.organisation, &from, &to, &origin).await;
    Ok(document(StatusCode::OK, &shown(&api, &renamed.map_err(trouble)?)))
}

/// Takes note that a site was deleted.
pub async fn delete(
    State(api): State<Shared>,
    visit: Visit,
    Path((org, site)): Path<(String, String)>,
) -> Answer {
    let access = api.enter(&visit, &org, Call::DeleteSite).await?;
    let origin = visit.origin(access.role)?;
    let deleted = sites(&api).delete(&access.organisation, &named(&site)?, &origin).await;
    let apps = shown(&api, &deleted.map_err(trouble)?);
    Ok(located(StatusCode::ACCEPTED, &format!("/v1/organizations/{org}/app-instances"), &apps))
}

/// Takes that back.
pub async fn keep(
    State(api): State<Shared>,
    visit: Visit,
    Path((org, site)): Path<(String, String)>,
) -> Answer {
    let access = api.enter(&visit, &org, Call::DeleteSite).await?;
    let origin = visit.origin(access.role)?;
    let kept = sites(&api).keep(&access.organisation, &named(&site)?, &origin).await;
    Ok(document(StatusCode::OK, &shown(&api, &kept.map_err(trouble)?)))
}
