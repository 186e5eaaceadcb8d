//! `.../sites/{site}`: what the vendor's records say became of a site: another name, or deleted.

use axum::body::Body;
use axum::extract::{Path, State};
use claviger_app::list_instances::ListInstances;
use claviger_app::sites::Sites;
use claviger_domain::authorisation::Call;
use claviger_domain::enrolment::parsed;
use claviger_domain::instance::AppInstance;
use claviger_domain::values::SiteName;
use claviger_lambda::problem::Problem;
use http::StatusCode;
use serde_json::json;

use crate::access::Visit;
use crate::answer::{Answer, document};
use crate::body;
use crate::state::{Api, Shared};
use crate::trouble::{store_trouble, trouble};

fn sites(api: &Api) -> Sites<'_> {
    let (policies, instances) = (&*api.stores, &*api.stores);
    Sites { policies, instances, clock: &*api.clock, settings: &api.settings }
}

/// A site that cannot be named so is not there.
fn named(site: &str) -> Result<SiteName, Problem> {
    site.parse().map_err(|_| Problem::not_found())
}

async fn shown(api: &Api, status: StatusCode, apps: Vec<AppInstance>) -> Answer {
    let lists = ListInstances { instances: &*api.stores, settings: &api.settings };
    let mut items = Vec::new();
    for app in apps {
        items.push(lists.shown(app).await.map_err(|error| store_trouble(&error))?);
    }
    Ok(document(status, &json!({ "items": items })))
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
    shown(&api, StatusCode::OK, renamed.map_err(trouble)?).await
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
    shown(&api, StatusCode::ACCEPTED, deleted.map_err(trouble)?).await
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
    shown(&api, StatusCode::OK, kept.map_err(trouble)?).await
}
