//! `If-Match`: a change of what the caller has seen, and of nothing newer.

use axum::extract::FromRequestParts;
use claviger_app::as_of::Seen;
use claviger_domain::invalid::Invalid;
use claviger_lambda::problem::Problem;
use http::header::IF_MATCH;
use http::request::Parts;

/// What the caller says that it has seen.
#[derive(Debug, Clone)]
pub struct IfMatch(pub Seen);

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut tags = Vec::new();
        for value in parts.headers.get_all(IF_MATCH) {
            let text = value.to_str().map_err(|_| unreadable())?.trim();
            if text == "*" {
                return Ok(Self(Seen::Anything));
            }
            for tag in text.split(',').map(str::trim) {
                // A weak tag never matches (RFC 9110): none is given out.
                let strong = tag.strip_prefix("W/").unwrap_or(tag);
                let inner = strong.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
                let inner = inner.filter(|inner| !inner.contains('"')).ok_or_else(unreadable)?;
                tags.push(if strong == tag { inner.to_owned() } else { String::new() });
            }
        }
        Ok(Self(if tags.is_empty() { Seen::Anything } else { Seen::One(tags) }))
    }
}

fn unreadable() -> Problem {
    let help = "send the `ETag` of an answer exactly, with its quotation marks, or `*`";
    Problem::invalid(vec![Invalid::new("it is not a list of entity tags", help).at("If-Match")])
}
