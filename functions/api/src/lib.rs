//! `api`: the HTTP interface. A handler parses, lets the caller in, calls one use case and answers; one
//! file a resource, and every call and its answers stand in the table of `docs/`.

mod access;
mod answer;
mod body;
mod cursor;
mod idempotency;
mod if_match;
mod layers;
mod resources;
mod state;
mod trouble;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post, put};
use claviger_lambda::problem::{Problem, ProblemKind};

pub use state::{Api, Stores};

use resources::{
    access_requests, app_instances, audit, backups, catalogue, closing, console, encryption_policy,
    key_policy, openapi, organizations, reencryptions, regional_keys, restorations, sites, support,
    support_organizations, tickets, usage,
};

/// The routes. A path that is not here is not found, whoever asks.
pub fn router(api: Api) -> Router {
    let api = api.shared();
    let organization = Router::new()
        .route("/", put(organizations::put))
        .route("/encryption-policy", post(encryption_policy::enrol).get(encryption_policy::show))
        .route("/encryption-policy/validate", post(encryption_policy::validate))
        .route("/encryption-policy/keys/{region}/preview", get(regional_keys::preview))
        .route("/encryption-policy/keys/{region}/replace", post(regional_keys::replace))
        .route("/encryption-policy/close", post(closing::ask))
        .route("/encryption-policy/close/cancel", post(closing::cancel))
        .route("/encryption-policy/erasure-statement", get(closing::statement))
        .route("/key-policy", get(key_policy::show))
        .route("/app-instances", post(app_instances::request).get(app_instances::list))
        .route("/app-instances/direct", post(app_instances::add_directly))
        .route("/app-instances/{id}/acknowledge", post(app_instances::acknowledge))
        .route("/sites/{site}/rename", post(sites::rename))
        .route("/sites/{site}/delete", post(sites::delete))
        .route("/sites/{site}/delete/cancel", post(sites::keep))
        .route("/tickets", get(tickets::list))
        .route("/tickets/{id}/comments", post(tickets::comment))
        .route("/restorations", post(restorations::request))
        .route("/encryption-policy/migrate", post(reencryptions::migrate))
        .route("/reencryptions", post(reencryptions::request).get(reencryptions::list))
        .route("/reencryptions/{id}", get(reencryptions::show))
        .route("/reencryptions/{id}/instances", get(reencryptions::instances))
        .route("/reencryptions/{id}/pause", post(reencryptions::pause))
        .route("/reencryptions/{id}/resume", post(reencryptions::resume))
        .route("/reencryptions/{id}/cancel", post(reencryptions::cancel))
        .route("/backups", post(backups::register).get(backups::list))
        .route("/access-requests", get(access_requests::list))
        .route("/access-requests/{id}/accept", post(access_requests::accept))
        .route("/access-requests/{id}/decline", post(access_requests::decline))
        .route("/audit", get(audit::read))
        .route("/usage", get(usage::show));
    let for_callers = Router::new()
        .nest("/v1/organizations/{org}", organization)
        .route("/v1/support/key-policy-templates", post(access_requests::publish))
        .route("/v1/support/key-policy-templates/{version}", get(access_requests::published))
        .route("/v1/support/requests", get(support::list))
        .route("/v1/support/requests/{id}/approve", post(support::approve))
        .route("/v1/support/requests/{id}/reject", post(support::reject))
        .route("/v1/support/overdue-orders", get(support_organizations::overdue))
        .route("/v1/support/organizations/{org}/suspend", post(support_organizations::suspend))
        .route("/v1/support/organizations/{org}/lift", post(support_organizations::lift))
        .route("/v1/support/organizations/{org}/restorations", post(support_organizations::restore))
        .method_not_allowed_fallback(wrong_method)
        .route_layer(from_fn_with_state(api.clone(), idempotency::once))
        .route_layer(from_fn_with_state(api.clone(), layers::authenticate));
    Router::new()
        .merge(for_callers)
        .route("/v1/catalogue", get(catalogue::show))
        .route("/v1/health", get(catalogue::health))
        .route("/v1/openapi.json", get(openapi::show))
        .route("/console", get(console::page))
        .route("/console/app.js", get(console::script))
        .route("/console/style.css", get(console::style))
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn(layers::limit))
        .layer(from_fn(layers::log))
        .layer(from_fn_with_state(api.clone(), layers::correlate))
        .with_state(api)
}

async fn nothing_here() -> Problem {
    Problem::not_found()
}

async fn wrong_method(method: axum::http::Method) -> Problem {
    Problem::new(ProblemKind::MethodNotAllowed, format!("there is no `{method}` here"))
}
