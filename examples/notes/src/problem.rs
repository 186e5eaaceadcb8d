//! The app's answers to trouble, as problem documents: `suspended` (409) and `temporarily-unavailable`
//! (503) come from the library and mean what they mean everywhere in claviger.

use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use claviger_envelope::EnvelopeError;
use serde_json::json;

use crate::store::StoreError;

/// Trouble with a note.
#[derive(Debug)]
pub enum Trouble {
    /// There is no such note.
    NoNote,
    /// The note is longer than the table takes.
    TooLarge,
    /// The library gives nothing out.
    Envelope(EnvelopeError),
    /// The table failed.
    Store,
}

impl From<EnvelopeError> for Trouble {
    fn from(error: EnvelopeError) -> Self {
        Self::Envelope(error)
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotThis(error) => Self::Envelope(error),
            StoreError::Table(_) => {
                tracing::warn!(%error, "the table failed");
                Self::Store
            }
        }
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let (status, slug, help) = match &self {
            Self::NoNote => (StatusCode::NOT_FOUND, "not-found", "check the address of the note"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "a note has at most 256 KiB"),
            Self::Envelope(error) => match error {
                EnvelopeError::Suspended => (StatusCode::CONFLICT, error.slug(), error.help()),
                // The generation moved twice within one request, or this process has not seen it yet.
                EnvelopeError::GenerationTooOld { .. } => {
                    (StatusCode::SERVICE_UNAVAILABLE, "temporarily-unavailable", error.help())
                }
                EnvelopeError::NotEntitled => (StatusCode::NOT_FOUND, "not-found", error.help()),
                other if other.retryable() => {
                    (StatusCode::SERVICE_UNAVAILABLE, "temporarily-unavailable", error.help())
                }
                _ => (StatusCode::INTERNAL_SERVER_ERROR, error.slug(), error.help()),
            },
            Self::Store => {
                let help = "try again: the table did not answer";
                (StatusCode::SERVICE_UNAVAILABLE, "temporarily-unavailable", help)
            }
        };
        if status.is_server_error() {
            tracing::warn!(slug, trouble = ?self, "a request was not served");
        }
        let body = json!({
            "type": format!("/problems/{slug}"), "title": slug, "status": status.as_u16(), "code": slug,
            "help": help, "retryable": status == StatusCode::SERVICE_UNAVAILABLE,
        });
        let mut response =
            (status, [(CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, axum::http::HeaderValue::from_static("2"));
        }
        response
    }
}
