//! `.../access-requests` and `/v1/support/key-policy-templates`: what a new key policy asks for (spec K1).

use std::collections::BTreeSet;

use axum::body::Body;
use axum::extract::{Path, State};
use claviger_app::access_requests::{AnswerAccess, PublishTemplate};
use claviger_app::as_of::AsOf;
use claviger_app::ports::PublishedTemplate;
use claviger_app::show_policy::AccessView;
use claviger_domain::access::{KeyPermission, TemplateVersion};
use claviger_domain::authorisation::Call;
use claviger_domain::enrolment::parsed;
use claviger_domain::invalid::{Invalid, InvalidField};
use claviger_lambda::problem::Problem;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::access::Visit;
use crate::answer::{Answer, document, located, page};
use crate::body;
use crate::cursor::{Asked, List};
use crate::if_match::IfMatch;
use crate::state::{Api, Shared};
use crate::trouble::{store_trouble, trouble};

/// How far away a date may be.
const FURTHEST: SignedDuration = SignedDuration::from_hours(24 * 366);

fn answers<'a>(api: &'a Api, policies: &'a dyn claviger_app::ports::Policies) -> AnswerAccess<'a> {
    AnswerAccess {
        templates: &*api.stores,
        policies,
        prober: &*api.prober,
        clock: &*api.clock,
        settings: &api.settings,
    }
}

/// Lists what the vendor asks for.
pub async fn list(
    State(api): State<Shared>,
    visit: Visit,
    Path(org): Path<String>,
    asked: Result<Asked, Problem>,
) -> Answer {
    let access = api.enter(&visit, &org, Call::ListAccessRequests).await?;
    let list = List { name: "access-requests", owner: Some(access.organisation.id) };
    let asked = asked?;
    asked.page(&list)?;
    let seen = claviger_app::as_of::Seen::Anything;
    let stores = AsOf { stores: &*api.stores, seen: &seen };
    let found =
        answers(&api, &stores).list(&access.organisation.name, visit.correlation).await.map_err(trouble)?;
    let now = api.clock.now();
    let views: Vec<AccessView> = found.iter().map(|request| AccessView::of(request, now)).collect();
    Ok(page(&list, &asked.page_of(&list, views, |view| view.id.to_string())?))
}

/// Accepts a request, on proof.
pub async fn accept(
    State(api): State<Shared>,
    visit: Visit,
    Path(place): Path<(String, String)>,
    seen: Result<IfMatch, Problem>,
) -> Answer {
    answer(&api, &visit, place, seen, Said::Yes).await
}

/// Declines a request.
pub async fn decline(
    State(api): State<Shared>,
    visit: Visit,
    Path(place): Path<(String, String)>,
    seen: Result<IfMatch, Problem>,
) -> Answer {
    answer(&api, &visit, place, seen, Said::No).await
}

/// What an org admin says to a request.
enum Said {
    Yes,
    No,
}

async fn answer(
    api: &Api,
    visit: &Visit,
    (org, id): (String, String),
    seen: Result<IfMatch, Problem>,
    said: Said,
) -> Answer {
    let access = api.enter(visit, &org, Call::AnswerAccessRequest).await?;
    let origin = visit.origin(access.role)?;
    let id = Uuid::try_parse(&id).map_err(|_| Problem::not_found())?;
    let IfMatch(seen) = seen?;
    let stores = AsOf { stores: &*api.stores, seen: &seen };
    let (answers, name) = (answers(api, &stores), &access.organisation.name);
    let answered = match said {
        Said::Yes => answers.accept(name, id, &origin).await,
        Said::No => answers.decline(name, id, &origin).await,
    };
    Ok(document(StatusCode::OK, &AccessView::of(&answered.map_err(trouble)?, api.clock.now())))
}

/// Publishes a template, and asks customers.
pub async fn publish(State(api): State<Shared>, visit: Visit, sent: Body) -> Answer {
    let role = api.admit_vendor(&visit, Call::PublishTemplate)?;
    let origin = visit.origin(role)?;
    let sent = body::object(sent).await?;
    let mut faults = Vec::new();
    let version: Option<TemplateVersion> = parsed(&sent, "version", &mut faults);
    let permissions = permissions(&sent, &mut faults);
    let decide_by = decide_by(&sent, api.clock.now(), &mut faults);
    let (Some(version), Some(decide_by), true) = (version, decide_by, faults.is_empty()) else {
        return Err(Problem::invalid(faults));
    };
    let publish = PublishTemplate {
        templates: &*api.stores,
        policies: &*api.stores,
        watch_list: &*api.stores,
        clock: &*api.clock,
        settings: &api.settings,
    };
    let published = publish.run(version, permissions, decide_by, &origin).await.map_err(trouble)?;
    let location = format!("/v1/support/key-policy-templates/{}", published.template.version);
    Ok(located(StatusCode::ACCEPTED, &location, &shown(&published)))
}

/// Shows a template, and how far its customers were asked.
pub async fn published(State(api): State<Shared>, visit: Visit, Path(version): Path<String>) -> Answer {
    api.admit_vendor(&visit, Call::PublishTemplate)?;
    let known = api.stores.templates().await.map_err(|error| store_trouble(&error))?;
    let found = known.iter().find(|known| known.template.version.as_str() == version);
    Ok(document(StatusCode::OK, &shown(found.ok_or_else(Problem::not_found)?)))
}

fn shown(published: &PublishedTemplate) -> Value {
    let template = &published.template;
    json!({
        "version": template.version, "permissions": template.permissions, "decideBy": template.decide_by,
        "publishedAt": template.published_at, "opened": published.opened, "done": published.done,
    })
}

fn permissions(sent: &Value, faults: &mut Vec<InvalidField>) -> BTreeSet<KeyPermission> {
    let mut found = BTreeSet::new();
    let help = "send `permissions` as a list of 1 to 20 KMS actions, `kms:DescribeKey` say";
    let entries = sent.get("permissions").and_then(Value::as_array);
    let Some(entries) = entries.filter(|entries| (1..=20).contains(&entries.len())) else {
        faults.push(Invalid::new("it is not a list of 1 to 20 permissions", help).at("permissions"));
        return found;
    };
    for (index, entry) in entries.iter().enumerate() {
        let permission = match entry.as_str() {
            Some(text) => text.parse(),
            None => Err(Invalid::new("it is not text", help)),
        };
        match permission {
            Ok(permission) => {
                found.insert(permission);
            }
            Err(invalid) => faults.push(invalid.at(format!("permissions[{index}]"))),
        }
    }
    let missing = found.iter().find_map(|permission| {
        let counterpart = permission.counterpart().filter(|other| !found.contains(other))?;
        Some((*permission, counterpart))
    });
    if let Some((permission, counterpart)) = missing {
        let reason = format!("`{permission}` is of no use, and cannot be proven, without `{counterpart}`");
        faults.push(Invalid::new(reason, "ask for both, or for neither").at("permissions"));
    }
    found
}

fn decide_by(sent: &Value, now: Timestamp, faults: &mut Vec<InvalidField>) -> Option<Timestamp> {
    let help = "send `decideBy` as a moment in RFC 3339 within the next year: `2027-01-31T00:00:00Z`";
    let text = sent.get("decideBy").and_then(Value::as_str);
    let moment = text.and_then(|text| text.parse::<Timestamp>().ok());
    let fault = match moment {
        Some(moment) if moment > now && moment.duration_since(now) <= FURTHEST => return Some(moment),
        Some(_) => "it is not within the next year",
        None => "it is not a moment",
    };
    faults.push(Invalid::new(fault, help).at("decideBy"));
    None
}
