//! What surrounds every call: an identifier, one log line, and who calls.

use std::time::Instant;

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{MatchedPath, RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use claviger_domain::ids::CorrelationId;
use claviger_lambda::auth::AuthError;
use claviger_lambda::observe::chain;
use claviger_lambda::problem::{Problem, ProblemKind};
use http::HeaderValue;
use http::header::{ALLOW, AUTHORIZATION};
use tracing::Instrument;

use crate::access::Visit;
use crate::state::Shared;

/// The header that repeats the request's identifier.
pub const CORRELATION: &str = "x-correlation-id";

/// Gives the request an identifier that stands in the log, in facts and in a problem's `instance`.
pub async fn correlate(State(api): State<Shared>, mut request: Request, next: Next) -> Response {
    let correlation = CorrelationId::from_uuid(api.ids.random());
    request.extensions_mut().insert(correlation);
    let span = tracing::info_span!("request", correlation_id = %correlation);
    let mut response = next.run(request).instrument(span).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let allow = response.headers().get(ALLOW).cloned();
        response = problem.for_request(format!("urn:uuid:{correlation}")).into_response();
        // What a path takes instead of a wrong method, the router knows.
        if let Some(allow) = allow {
            response.headers_mut().insert(ALLOW, allow);
        }
    }
    if let Ok(value) = HeaderValue::from_str(&correlation.to_string()) {
        response.headers_mut().insert(CORRELATION, value);
    }
    response
}

/// Logs a call with what came of it: the route, never the path with its names, nor anything of a body.
pub async fn log(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let response = next.run(request).await;
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let problem = response.extensions().get::<Problem>().map(|problem| problem.kind.slug());
    tracing::info!(
        %method,
        route = route.as_deref().unwrap_or("none"),
        status = response.status().as_u16(),
        problem,
        duration_ms,
        "a call was answered"
    );
    response
}

/// The longest path with its query, in bytes.
const LONGEST_URI: usize = 4 * 1024;
/// Headers at most.
const MOST_HEADERS: usize = 64;
/// All headers together, in bytes.
const LARGEST_HEADERS: usize = 32 * 1024;

/// Turns away what no handler should have to bear.
pub async fn limit(
    params: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    // A name that is no UTF-8 names nothing here.
    if let Err(RawPathParamsRejection::InvalidUtf8InPathParam(_)) = params {
        return Err(Problem::not_found());
    }
    let headers = request.headers();
    let size: usize =
        headers.iter().map(|(name, value)| name.as_str().len().saturating_add(value.len())).sum();
    let uri = request.uri().path_and_query().map_or(0, |uri| uri.as_str().len());
    for (what, is, most) in [
        ("the path with its query measures", uri, LONGEST_URI),
        ("the number of headers is", headers.len(), MOST_HEADERS),
        ("the headers measure", size, LARGEST_HEADERS),
    ] {
        if is > most {
            let detail = format!("{what} {is}; the most is {most}");
            return Err(Problem::new(ProblemKind::HeadersTooLarge, detail));
        }
    }
    Ok(next.run(request).await)
}

/// Lets only bearers of a valid token pass.
pub async fn authenticate(
    State(api): State<Shared>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = header.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    let missing = || Problem::new(ProblemKind::Unauthenticated, "there is no bearer token");
    let caller = api.authenticator.caller(token.ok_or_else(missing)?).await.map_err(|error| match error {
        AuthError::Refused { reason } => {
            Problem::new(ProblemKind::Unauthenticated, format!("the token does not hold: {reason}"))
        }
        AuthError::Unavailable { .. } => {
            tracing::error!(error = chain(&error), "callers cannot be told apart");
            Problem::unavailable()
        }
    })?;
    let correlation = request.extensions().get::<CorrelationId>().copied();
    let correlation = correlation.unwrap_or_else(|| CorrelationId::from_uuid(api.ids.random()));
    request.extensions_mut().insert(Visit { caller, correlation });
    Ok(next.run(request).await)
}
