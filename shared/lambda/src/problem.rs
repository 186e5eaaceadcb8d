//! Answers to trouble, as problem documents (RFC 9457). The kinds are a closed list: one slug a
//! situation, with its status, its title and what to do.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use claviger_domain::invalid::InvalidField;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

/// The media type of a problem document.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// What kind of trouble it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProblemKind {
    /// The request cannot be understood, or a field of it is wrong.
    InvalidRequest,
    /// There is no token, or it does not hold.
    Unauthenticated,
    /// The caller may not do this.
    Forbidden,
    /// There is no such thing, or the caller may not know of it.
    NotFound,
    /// The path is right, the method is not.
    MethodNotAllowed,
    /// Somebody else changed the same thing first, or a name is taken.
    Conflict,
    /// The organisation has its one encryption policy already (spec E4).
    AlreadyEnrolled,
    /// Data cannot move between realms (spec E11).
    RealmIsFixed,
    /// There is no way back to keys of the vendor's (spec E11).
    NoWayBack,
    /// A backup holds records under data keys that are removed (spec X4).
    DataKeysRemoved,
    /// The thing is in a state in which this cannot happen.
    IllegalState,
    /// A key of an enrolment did not stand its checks (spec E12).
    KeysNotVerified,
    /// The organisation, its plan or its state does not allow it (spec E1, E2, A1, A3).
    NotEligible,
    /// An access request was declined, or not answered in time (spec K1).
    AccessNotGranted,
    /// The organisation's access is cut off.
    Suspended,
    /// A restoration was asked for while keys still refuse (spec S2).
    KeysNotUsable,
    /// The window for restoring by oneself is over (spec S3).
    WindowLapsed,
    /// The body is too large.
    TooLarge,
    /// The request line or the headers are too large.
    HeadersTooLarge,
    /// It is not any more what the caller has seen of it.
    PreconditionFailed,
    /// The idempotency key stands for another request.
    IdempotencyKeyReused,
    /// The same request is being carried out.
    RequestInProgress,
    /// It heals by itself.
    TemporarilyUnavailable,
    /// A fault of ours.
    Internal,
}

/// Every kind, for tests and documents.
pub const PROBLEM_KINDS: [ProblemKind; 24] = [
    ProblemKind::InvalidRequest,
    ProblemKind::Unauthenticated,
    ProblemKind::Forbidden,
    ProblemKind::NotFound,
    ProblemKind::MethodNotAllowed,
    ProblemKind::Conflict,
    ProblemKind::AlreadyEnrolled,
    ProblemKind::RealmIsFixed,
    ProblemKind::NoWayBack,
    ProblemKind::DataKeysRemoved,
    ProblemKind::IllegalState,
    ProblemKind::KeysNotVerified,
    ProblemKind::NotEligible,
    ProblemKind::AccessNotGranted,
    ProblemKind::Suspended,
    ProblemKind::KeysNotUsable,
    ProblemKind::WindowLapsed,
    ProblemKind::TooLarge,
    ProblemKind::HeadersTooLarge,
    ProblemKind::PreconditionFailed,
    ProblemKind::IdempotencyKeyReused,
    ProblemKind::RequestInProgress,
    ProblemKind::TemporarilyUnavailable,
    ProblemKind::Internal,
];

/// What is fixed for a kind.
struct Entry {
    slug: &'static str,
    status: StatusCode,
    title: &'static str,
    help: &'static str,
}

impl ProblemKind {
    const fn entry(self) -> Entry {
        let (slug, status, title, help) = match self {
            Self::InvalidRequest => (
                "invalid-request",
                StatusCode::BAD_REQUEST,
                "The request is not valid",
                "correct what `errors` lists and send it again",
            ),
            Self::Unauthenticated => (
                "unauthenticated",
                StatusCode::UNAUTHORIZED,
                "No valid token",
                "sign in and send `Authorization: Bearer <token>`",
            ),
            Self::Forbidden => (
                "forbidden",
                StatusCode::FORBIDDEN,
                "You may not do this",
                "ask somebody whose role allows it",
            ),
            Self::NotFound => (
                "not-found",
                StatusCode::NOT_FOUND,
                "There is nothing here",
                "check the path; what belongs to another organisation is not shown",
            ),
            Self::MethodNotAllowed => (
                "method-not-allowed",
                StatusCode::METHOD_NOT_ALLOWED,
                "The path does not have this method",
                "use a method that `Allow` lists",
            ),
            Self::Conflict => (
                "conflict",
                StatusCode::CONFLICT,
                "It is taken or was changed meanwhile",
                "look at the current state and decide anew",
            ),
            Self::AlreadyEnrolled => (
                "already-enrolled",
                StatusCode::CONFLICT,
                "The organisation has its encryption policy",
                "an organisation has one; `GET .../encryption-policy` shows it",
            ),
            Self::RealmIsFixed => (
                "realm-is-fixed",
                StatusCode::CONFLICT,
                "Data cannot move between realms",
                "stay in the realm that `GET .../encryption-policy` shows; another realm takes another organisation",
            ),
            Self::NoWayBack => (
                "no-way-back",
                StatusCode::CONFLICT,
                "There is no way back to vendor-managed keys",
                "keep the keys, or leave: `POST .../encryption-policy/close` gives time to export the data, then erases its keys",
            ),
            Self::DataKeysRemoved => (
                "data-keys-removed",
                StatusCode::CONFLICT,
                "The data keys of the backup are removed",
                "the backup cannot be read any more; register backups before others expire",
            ),
            Self::IllegalState => (
                "illegal-state",
                StatusCode::CONFLICT,
                "This cannot happen now",
                "look at the current state; it says what can be done",
            ),
            Self::KeysNotVerified => (
                "keys-not-verified",
                StatusCode::UNPROCESSABLE_ENTITY,
                "A key did not stand its checks",
                "correct what `errors` lists; `POST .../encryption-policy/validate` repeats the checks",
            ),
            Self::NotEligible => (
                "not-eligible",
                StatusCode::UNPROCESSABLE_ENTITY,
                "The organisation or its plan does not allow it",
                "`GET /v1/catalogue` lists apps and the plans that they need",
            ),
            Self::AccessNotGranted => (
                "access-not-granted",
                StatusCode::CONFLICT,
                "A new permission of the key policy is not given",
                "put the new key policy on every key, then accept the request: `GET .../access-requests`",
            ),
            Self::Suspended => (
                "suspended",
                StatusCode::CONFLICT,
                "The organisation's access is cut off",
                "an org admin gives every key back and asks for restoration on the open ticket",
            ),
            Self::KeysNotUsable => (
                "keys-not-usable",
                StatusCode::CONFLICT,
                "Not every regional key is usable",
                "give the keys that `errors` lists back, then ask again",
            ),
            Self::WindowLapsed => (
                "window-lapsed",
                StatusCode::CONFLICT,
                "The restoration window is over",
                "nothing was deleted; give every key back, ask on the open ticket (a comment with `\"request\": \"restoration\"`), and support carries it out",
            ),
            Self::TooLarge => {
                ("too-large", StatusCode::PAYLOAD_TOO_LARGE, "The body is too large", "send at most 256 KiB")
            }
            Self::HeadersTooLarge => (
                "headers-too-large",
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "The request line or the headers are too large",
                "send a path and query of at most 4 KiB and at most 64 headers of 32 KiB together",
            ),
            Self::PreconditionFailed => (
                "precondition-failed",
                StatusCode::PRECONDITION_FAILED,
                "It has changed since you saw it",
                "look at it again, decide anew, and send the new `ETag` in `If-Match`",
            ),
            Self::IdempotencyKeyReused => (
                "idempotency-key-reused",
                StatusCode::UNPROCESSABLE_ENTITY,
                "The idempotency key stands for another request",
                "make a new key for each new request; repeat a key with the same body only",
            ),
            Self::RequestInProgress => (
                "request-in-progress",
                StatusCode::CONFLICT,
                "The same request is being carried out",
                "try again after the time in `Retry-After`; the answer will be the first one's",
            ),
            Self::TemporarilyUnavailable => (
                "temporarily-unavailable",
                StatusCode::SERVICE_UNAVAILABLE,
                "Temporarily unavailable",
                "try again after the time in `Retry-After`; it heals by itself",
            ),
            Self::Internal => (
                "internal",
                StatusCode::INTERNAL_SERVER_ERROR,
                "A fault of ours",
                "try again; if it stays, send support the value of `instance`",
            ),
        };
        Entry { slug, status, title, help }
    }

    /// The one slug of the situation.
    pub const fn slug(self) -> &'static str {
        self.entry().slug
    }

    /// Its HTTP status.
    pub const fn status(self) -> StatusCode {
        self.entry().status
    }

    /// What it means, in a few words.
    pub const fn title(self) -> &'static str {
        self.entry().title
    }

    /// What to do, unless the answer itself knows better.
    pub const fn help(self) -> &'static str {
        self.entry().help
    }

    /// Who has to do something before the request can succeed.
    pub const fn who_acts(self) -> &'static str {
        match self {
            Self::InvalidRequest
            | Self::Unauthenticated
            | Self::Forbidden
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::Conflict
            | Self::DataKeysRemoved
            | Self::IllegalState
            | Self::TooLarge
            | Self::HeadersTooLarge
            | Self::PreconditionFailed
            | Self::IdempotencyKeyReused => "the caller",
            Self::AlreadyEnrolled
            | Self::RealmIsFixed
            | Self::NoWayBack
            | Self::RequestInProgress
            | Self::TemporarilyUnavailable => "nobody",
            Self::KeysNotVerified | Self::KeysNotUsable => "who administers the customer's keys",
            Self::NotEligible => "who buys the customer's plans",
            Self::AccessNotGranted | Self::Suspended => "an org admin",
            Self::WindowLapsed => "an org admin, then support",
            Self::Internal => "the vendor",
        }
    }

    /// Whether the same request may succeed later without anybody doing anything.
    pub const fn retryable(self) -> bool {
        matches!(self, Self::RequestInProgress | Self::TemporarilyUnavailable | Self::Internal)
    }
}

/// One answer to trouble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What kind.
    pub kind: ProblemKind,
    /// What happened this time, in a sentence for people.
    pub detail: String,
    /// What to do, where it says more than the kind's own help.
    pub help: Option<String>,
    /// What is wrong, by field.
    pub errors: Vec<InvalidField>,
    /// The request that it answers.
    pub instance: Option<String>,
    /// Seconds after which to try again.
    pub retry_after: Option<u32>,
}

impl Problem {
    /// A problem of this kind.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        let waits = matches!(kind, ProblemKind::TemporarilyUnavailable | ProblemKind::RequestInProgress);
        let retry_after = waits.then_some(2);
        Self { kind, detail: detail.into(), help: None, errors: Vec::new(), instance: None, retry_after }
    }

    /// A request whose fields are wrong.
    pub fn invalid(errors: Vec<InvalidField>) -> Self {
        let detail = match errors.as_slice() {
            [only] => only.to_string(),
            several => format!("{} fields are wrong", several.len()),
        };
        Self::new(ProblemKind::InvalidRequest, detail).with_errors(errors)
    }

    /// Nothing is there, or nothing that the caller may know of: both look the same.
    pub fn not_found() -> Self {
        Self::new(ProblemKind::NotFound, "there is nothing here for you")
    }

    /// It heals by itself. The reason is for the log, not for the client.
    pub fn unavailable() -> Self {
        Self::new(ProblemKind::TemporarilyUnavailable, "something we need gives no answer at the moment")
    }

    /// Adds what to do this time.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds what is wrong, by field.
    #[must_use]
    pub fn with_errors(mut self, errors: Vec<InvalidField>) -> Self {
        self.errors = errors;
        self
    }

    /// Adds which request it answers.
    #[must_use]
    pub fn for_request(mut self, instance: impl Into<String>) -> Self {
        self.instance = Some(instance.into());
        self
    }

    /// Adds when to try again.
    #[must_use]
    pub const fn after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The document.
    pub fn document(&self) -> Value {
        let entry = self.kind.entry();
        json!({
            "type": format!("/problems/{}", entry.slug),
            "title": entry.title,
            "status": entry.status.as_u16(),
            "detail": self.detail,
            "instance": self.instance,
            "code": entry.slug,
            "help": self.help.as_deref().unwrap_or(entry.help),
            "retryable": self.kind.retryable(),
            "errors": self.errors,
        })
    }

    /// The answer's headers.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.kind == ProblemKind::Unauthenticated {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        headers.insert(HeaderName::from_static("cache-control"), HeaderValue::from_static("no-store"));
        headers
    }

    /// The answer, for functions that have no router.
    pub fn to_response(&self) -> http::Response<String> {
        let mut response = http::Response::new(self.document().to_string());
        *response.status_mut() = self.kind.status();
        *response.headers_mut() = self.headers();
        response
    }
}

impl IntoResponse for Problem {
    /// The answer carries the problem along, so that the last layer can say which request it answers.
    fn into_response(self) -> Response {
        let mut response = self.to_response().map(Body::from);
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_kind_has_its_own_slug_and_a_status_that_is_an_error() {
        let slugs: BTreeSet<&str> = PROBLEM_KINDS.iter().map(|kind| kind.slug()).collect();
        assert_eq!(slugs.len(), PROBLEM_KINDS.len());
        for kind in PROBLEM_KINDS {
            assert!(kind.status().is_client_error() || kind.status().is_server_error());
            let waits = kind.status().is_server_error() || kind == ProblemKind::RequestInProgress;
            assert_eq!(kind.retryable(), waits);
        }
    }

    fn list() -> String {
        let mut text = String::from(
            "# Problem types\n\n\
             Every answer to trouble is a problem document (RFC 9457, `application/problem+json`) with `type` \
             (`/problems/<slug>`), `title`, `status`, `detail`, `instance`, `code` (the slug), `help`, \
             `retryable` and `errors`, a list of `{field, reason, help}`. This list is closed: there are no \
             other types, in the HTTP interface and in the key broker. *Retryable*: the same request may \
             succeed later without anybody acting. Where an answer's own `help` says more, it counts.\n\n\
             Written by `UPDATE_DOCS=1 cargo test -p claviger-lambda problem`; do not edit it.\n\n\
             | slug | status | meaning | who must act | remedy | retryable |\n|---|---|---|---|---|---|\n",
        );
        for kind in PROBLEM_KINDS {
            let row = [
                format!("`{}`", kind.slug()),
                kind.status().as_u16().to_string(),
                kind.title().to_owned(),
                kind.who_acts().to_owned(),
                kind.help().to_owned(),
                if kind.retryable() { "yes" } else { "no" }.to_owned(),
            ];
            text.push_str(&format!("| {} |\n", row.join(" | ")));
        }
        text
    }

    #[test]
    fn the_list_of_problem_types_in_the_docs_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/ERRORS.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, list()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == list(),
            "docs/ERRORS.md is stale; help: run `UPDATE_DOCS=1 cargo test -p claviger-lambda problem`"
        );
    }

    #[test]
    fn a_problem_says_what_happened_what_to_do_and_whether_to_try_again() {
        let problem = Problem::new(ProblemKind::TemporarilyUnavailable, "no answer").for_request("urn:x");
        let document = problem.document();
        assert_eq!(document["type"], "/problems/temporarily-unavailable");
        assert_eq!(document["code"], "temporarily-unavailable");
        assert_eq!(document["status"], 503);
        assert_eq!(document["instance"], "urn:x");
        assert_eq!(document["retryable"], true);
        assert!(document["help"].as_str().unwrap().contains("Retry-After"));
        assert_eq!(problem.headers()["content-type"], PROBLEM_JSON);
        assert_eq!(problem.headers()["retry-after"], "2");
    }

    #[test]
    fn a_single_wrong_field_is_named_in_the_detail_too() {
        let field = InvalidField {
            field: "realm".into(),
            reason: "`mars` is not a realm".into(),
            help: "use a realm".into(),
        };
        let document = Problem::invalid(vec![field]).document();
        assert_eq!(document["detail"], "realm: `mars` is not a realm");
        assert_eq!(document["errors"][0]["help"], "use a realm");
    }
}
