//! Answers that went well.

use axum::Json;
use axum::response::{IntoResponse, Response};
use claviger_app::ports::Page;
use http::header::{CACHE_CONTROL, ETAG, LOCATION};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::json;

use crate::cursor::List;

/// What a call answers.
pub type Answer = Result<Response, claviger_lambda::problem::Problem>;

/// A document. Nothing here may lie in a cache: every answer depends on who asks, and when.
pub fn document(status: StatusCode, value: &impl Serialize) -> Response {
    let mut response = (status, Json(value)).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A document, and where to look later.
pub fn located(status: StatusCode, location: &str, value: &impl Serialize) -> Response {
    let mut response = document(status, value);
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// An answer that says which version of a thing it shows.
pub fn tagged(mut response: Response, tag: &str) -> Response {
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{tag}\"")) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

/// A page of a list.
pub fn page<T: Serialize>(list: &List, page: &Page<T>) -> Response {
    let next = page.next.as_deref().map(|cursor| list.sealed(cursor));
    document(StatusCode::OK, &json!({ "items": page.items, "nextCursor": next }))
}
