//! `Idempotency-Key`: a request that bears one is carried out once. The key counts for one caller in one
//! role and one call; the answer of a request that was granted is kept for a day and given again. A request
//! that was refused has changed nothing, so nothing is kept of it and its key is free.

use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use claviger_app::ports::{KeptAnswer, Reservation, Reserve};
use claviger_domain::authorisation::Role;
use claviger_domain::invalid::Invalid;
use claviger_domain::values::OrganisationName;
use claviger_lambda::auth::role_in;
use claviger_lambda::observe::chain;
use claviger_lambda::problem::{Problem, ProblemKind};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use jiff::SignedDuration;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::access::Visit;
use crate::body;
use crate::state::{Api, Shared};
use crate::trouble::store_trouble;

/// The header.
pub const HEADER: &str = "idempotency-key";
/// Says that an answer is an earlier one.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// How long an answer is kept.
const KEPT: SignedDuration = SignedDuration::from_hours(24);
/// How long somebody who is at it is waited for: no function runs longer.
const WAITED_FOR: SignedDuration = SignedDuration::from_secs(120);
/// The longest key.
const LONGEST: usize = 128;

/// Carries a request that bears a key out once.
pub async fn once(
    State(api): State<Shared>,
    visit: Visit,
    matched: MatchedPath,
    params: RawPathParams,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    // A dry run changes nothing, and is repeated to see something new.
    let counts = request.method() == Method::POST && !matched.as_str().ends_with("/validate");
    let Some(key) = key(request.headers())?.filter(|_| counts) else {
        return Ok(next.run(request).await);
    };
    let org = params.iter().find_map(|(name, value)| (name == "org").then_some(value));
    let role = role(&api, &visit, org).await?;
    let (parts, sent) = request.into_parts();
    let sent = body::bytes(sent).await?;
    let call = parts.uri.path_and_query().map_or("", |uri| uri.as_str());
    let place = digest(&[visit.caller.subject.as_str(), &format!("{role:?}"), call, &key]);
    // The same document in another order of its fields is the same request.
    let same: Result<Value, _> = serde_json::from_slice(&sent);
    let asked = same.map_or_else(|_| hex::encode(&sent), |value| value.to_string());
    let holder = api.ids.random();
    let now = api.clock.now();
    let (until, forgotten_at) = (now + WAITED_FOR, now + KEPT);
    let request = digest(&[&asked]);
    let reserve = Reserve { place: &place, request: &request, holder, now, until, forgotten_at };
    match api.stores.reserve(&reserve).await.map_err(|error| store_trouble(&error))? {
        Reservation::Granted => {}
        Reservation::Answered(answer) => return Ok(again(answer)),
        Reservation::InProgress => {
            let detail = "a request with this idempotency key has not been answered yet";
            return Err(Problem::new(ProblemKind::RequestInProgress, detail));
        }
        Reservation::OtherRequest => {
            let detail = "the idempotency key was sent with another body before";
            return Err(Problem::new(ProblemKind::IdempotencyKeyReused, detail));
        }
    }
    let answer = next.run(Request::from_parts(parts, Body::from(sent))).await;
    keep(&api, &place, holder, answer).await
}

/// The key, if there is one.
fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let text = value.to_str().ok().filter(|text| {
        (1..=LONGEST).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
    });
    match (text, values.next()) {
        (Some(text), None) => Ok(Some(text.to_owned())),
        _ => {
            let help = format!("send one key of 1 to {LONGEST} printable ASCII characters, a UUID say");
            let invalid = Invalid::new("it cannot be used as a key", help);
            Err(Problem::invalid(vec![invalid.at("Idempotency-Key")]))
        }
    }
}

/// As what somebody calls. It is part of what a key counts for: who lost its role gets no answer of it again.
async fn role(api: &Api, visit: &Visit, org: Option<&str>) -> Result<Role, Problem> {
    let name: Option<OrganisationName> = org.and_then(|org| org.parse().ok());
    let Some(name) = name else {
        return Ok(visit.caller.vendor_role());
    };
    let found = api.stores.organisation(&name).await.map_err(|error| store_trouble(&error))?;
    Ok(found.map_or_else(|| visit.caller.vendor_role(), |found| role_in(&found, &visit.caller)))
}

fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}

/// Keeps what was granted, frees the key of what was refused.
async fn keep(api: &Api, place: &str, holder: uuid::Uuid, answer: Response) -> Result<Response, Problem> {
    if !answer.status().is_success() {
        if let Err(error) = api.stores.give_back(place, holder).await {
            tracing::warn!(error = chain(&error), "an idempotency key stays reserved for a while");
        }
        return Ok(answer);
    }
    let (parts, sent) = answer.into_parts();
    let bytes = to_bytes(Body::new(sent), usize::MAX).await.map_err(|_| Problem::unavailable())?;
    let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let kept = KeptAnswer {
        status: parts.status.as_u16(),
        location: text(LOCATION),
        etag: text(ETAG),
        body: String::from_utf8_lossy(&bytes).into_owned(),
    };
    // It is done, whatever becomes of the note: the caller is told so. Asked again, the state itself says it.
    if let Err(error) = api.stores.keep_answer(place, holder, &kept).await {
        tracing::warn!(error = chain(&error), "an answer could not be kept for its idempotency key");
    }
    Ok(Response::from_parts(parts, Body::from(bytes)))
}

/// An answer of before.
fn again(kept: KeptAnswer) -> Response {
    let empty = kept.body.is_empty();
    let mut answer = Response::new(Body::from(kept.body));
    *answer.status_mut() = StatusCode::from_u16(kept.status).unwrap_or(StatusCode::OK);
    let headers = answer.headers_mut();
    if !empty {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    for (name, text) in [(LOCATION, kept.location), (ETAG, kept.etag)] {
        if let Some(value) = text.and_then(|text| HeaderValue::from_str(&text).ok()) {
            headers.insert(name, value);
        }
    }
    answer
}
