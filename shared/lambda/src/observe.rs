//! Log lines that belong together: one span an invocation, with fixed field names.

use std::error::Error;

use tracing::Span;

/// The span of an invocation. Its fields stand on every line that is logged within it.
pub fn invocation(function: &str, request_id: &str, correlation_id: &str) -> Span {
    tracing::info_span!("invocation", function, request_id, correlation_id)
}

/// An error with all that caused it, for one log line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
