//! `.../app-instances`: what is encrypted, what is asked for, what was added directly.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use claviger_app::acknowledge_order::AcknowledgeOrder;
use claviger_app::add_instance_directly::AddInstanceDirectly;
use claviger_app::as_of::AsOf;
use claviger_app::list_instances::ListInstances;
use claviger_app::request_instance::RequestInstance;
use claviger_domain::authorisation::Call;
use claviger_domain::enrolment::parsed;
use claviger_domain::fence::Epoch;
use claviger_domain::ids::InstanceId;
use claviger_domain::values::{App, SiteName};
use claviger_lambda::problem::Problem;
use http::StatusCode;
use serde_json::Value;

use crate::access::Visit;
use crate::answer::{Answer, document, located, page, tagged};
use crate::body;
use crate::cursor::{Asked, List};
use crate::if_match::IfMatch;
use crate::state::{Api, Shared};
use crate::trouble::{store_trouble, trouble};

fn lists(api: &Api) -> ListInstances<'_> {
    ListInstances { instances: &*api.stores, settings: &api.settings }
}

fn place(sent: &Value) -> Result<(SiteName, App), Problem> {
    let mut faults = Vec::new();
    let site = parsed(sent, "site", &mut faults);
    let app = parsed(sent, "app", &mut faults);
    match (site, app) {
        (Some(site), Some(app)) => Ok((site, app)),
        _ => Err(Problem::invalid(faults)),
    }
}

/// Requests an encrypted app.
pub async fn request(State(api): State<Shared>, visit: Visit, Path(org): Path<String>, sent: Body) -> Answer {
    let access = api.enter(&visit, &org, Call::RequestInstance).await?;
    let origin = visit.origin(access.role)?;
    let (site, app) = place(&body::object(sent).await?)?;
    let request = RequestInstance {
        policies: &*api.stores,
        instances: &*api.stores,
        ids: &*api.ids,
        clock: &*api.clock,
        settings: &api.settings,
    };
    let family = lists(&api)
        .family(&access.organisation.name, &site, &app)
        .await
        .map_err(|error| store_trouble(&error))?;
    let instance = request.run(&access.organisation, &site, &app, &origin).await.map_err(trouble)?;
    let view = lists(&api).view(instance, family);
    let answer = located(StatusCode::ACCEPTED, &format!("/v1/organizations/{org}/app-instances"), &view);
    Ok(tagged(answer, &view.etag))
}

/// Lists the organisation's apps.
pub async fn list(
    State(api): State<Shared>,
    visit: Visit,
    Path(org): Path<String>,
    asked: Result<Asked, Problem>,
) -> Answer {
    let access = api.enter(&visit, &org, Call::ListInstances).await?;
    let list = List { name: "app-instances", owner: Some(access.organisation.id) };
    let (cursor, limit) = asked?.page(&list)?;
    let found = lists(&api).run(&access.organisation.name, cursor.as_deref(), limit).await;
    Ok(page(&list, &found.map_err(trouble)?))
}

/// Takes note of an app that was added directly.
pub async fn add_directly(
    State(api): State<Shared>,
    visit: Visit,
    Path(org): Path<String>,
    sent: Body,
) -> Answer {
    let access = api.enter(&visit, &org, Call::AddInstanceDirectly).await?;
    let origin = visit.origin(access.role)?;
    let (site, app) = place(&body::object(sent).await?)?;
    let add = AddInstanceDirectly {
        policies: &*api.stores,
        instances: &*api.stores,
        ids: &*api.ids,
        clock: &*api.clock,
        settings: &api.settings,
    };
    let family = lists(&api)
        .family(&access.organisation.name, &site, &app)
        .await
        .map_err(|error| store_trouble(&error))?;
    let added = add.run(&access.organisation, &site, &app, &origin).await;
    let (instance, created) = added.map_err(trouble)?;
    let view = lists(&api).view(instance, family);
    let answer = document(if created { StatusCode::CREATED } else { StatusCode::OK }, &view);
    Ok(tagged(answer, &view.etag))
}

/// Takes note of an app's answer to an order.
pub async fn acknowledge(
    State(api): State<Shared>,
    visit: Visit,
    Path((org, id)): Path<(String, String)>,
    seen: Result<IfMatch, Problem>,
    sent: Body,
) -> Answer {
    let access = api.enter(&visit, &org, Call::AcknowledgeOrder).await?;
    let IfMatch(seen) = seen?;
    let origin = visit.origin(access.role)?;
    let id: InstanceId = id.parse().map_err(|_| Problem::not_found())?;
    let sent = body::object(sent).await?;
    let mut faults = Vec::new();
    let epoch = body::count(&sent, "epoch", &mut faults);
    let evicted = body::count(&sent, "evicted", &mut faults);
    let (Some(epoch), Some(evicted)) = (epoch, evicted) else {
        return Err(Problem::invalid(faults));
    };
    let instances = AsOf { stores: &*api.stores, seen: &seen };
    let acknowledge = AcknowledgeOrder { instances: &instances, clock: &*api.clock };
    let name = &access.organisation.name;
    acknowledge.run(name, id, Epoch(epoch), evicted, &origin).await.map_err(trouble)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
