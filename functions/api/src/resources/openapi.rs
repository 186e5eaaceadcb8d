//! `/v1/openapi.json`: the interface, described. The tests make the document and hold every answer
//! against it.

use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

/// Shows the document.
pub async fn show() -> Response {
    let mut response = include_str!("../../openapi.json").into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
