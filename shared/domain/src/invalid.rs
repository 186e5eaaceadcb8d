//! What is wrong with a value that came from outside: the reason and the remedy, and the field once
//! it is known. Never the secret itself.

use serde::{Deserialize, Serialize};

/// A value that could not be parsed: why, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Invalid {
    /// What is wrong, with the input in backticks.
    pub reason: String,
    /// What to do about it.
    pub help: String,
}

impl Invalid {
    /// Says what is wrong and what would be right.
    pub fn new(reason: impl Into<String>, help: impl Into<String>) -> Self {
        Self { reason: reason.into(), help: help.into() }
    }

    /// Names the field of the request body that held the value.
    pub fn at(self, field: impl Into<String>) -> InvalidField {
        InvalidField { field: field.into(), reason: self.reason, help: self.help }
    }
}

/// A field of a request that was refused: one entry of a problem's `errors`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct InvalidField {
    /// JSON path of the field, as the client wrote it: `keys[1].keyArn`.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
    /// What to do about it.
    pub help: String,
}

/// Input as it may be repeated in a message: at most 64 characters, control characters escaped.
pub fn shown(input: &str) -> String {
    let mut out: String = input.chars().take(64).flat_map(char::escape_debug).collect();
    if input.chars().nth(64).is_some() {
        out.push('…');
    }
    out
}
