//! `/v1/catalogue` and `/v1/health`: what anybody may know.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use crate::answer::document;
use crate::state::Shared;

/// Shows what can be encrypted where, on which plans, and within which bounds.
pub async fn show(State(api): State<Shared>) -> Response {
    let settings = &api.settings;
    let catalogue = &settings.catalogue;
    let realms = catalogue
        .realms
        .iter()
        .map(|(realm, rules)| json!({ "realm": realm, "name": rules.name, "regions": rules.regions }));
    let apps = catalogue.apps.iter().map(|(app, rules)| {
        json!({
            "app": app, "name": rules.name, "family": rules.family, "plans": rules.plans,
            "canBeEncrypted": catalogue.can_be_encrypted(app),
            "data": rules.data.iter().map(|kind| json!({
                "data": kind.name, "coverage": kind.coverage, "withFamily": kind.with_family,
            })).collect::<Vec<Value>>(),
        })
    });
    let modes = catalogue.modes.iter().map(|(mode, rules)| {
        let windows =
            rules.windows.iter().map(|window| json!({ "phase": window.phase, "untilDay": window.until_day }));
        json!({
            "mode": mode, "label": rules.label, "console": rules.console,
            "windows": windows.collect::<Vec<Value>>(),
        })
    });
    let seconds = |bound: jiff::SignedDuration| bound.as_secs();
    let answer = json!({
        "realms": realms.collect::<Vec<Value>>(),
        "apps": apps.collect::<Vec<Value>>(),
        "modes": modes.collect::<Vec<Value>>(),
        "due": {
            "provisioningBusinessDays": catalogue.due.provisioning_business_days,
            "restorationBusinessDays": catalogue.due.restoration_business_days,
        },
        "cachedOrInTransitDays": catalogue.cached_or_in_transit_days,
        "selfServiceApproval": catalogue.self_service_approval,
        "bounds": {
            "cutOffSeconds": seconds(settings.cut_off_bound()),
            "ambiguousCutOffSeconds": seconds(settings.ambiguous_cut_off_bound()),
            "unwatchedSeconds": seconds(settings.unwatched_bound()),
        },
    });
    document(StatusCode::OK, &answer)
}

/// Says that the function runs. It asks nobody else, so that it tells an outage of theirs from ours.
pub async fn health() -> Response {
    document(StatusCode::OK, &json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }))
}
