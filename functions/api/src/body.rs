//! Reads what callers send, after they were let in.

use axum::body::{Body, Bytes, to_bytes};
use claviger_domain::invalid::{Invalid, InvalidField};
use claviger_lambda::problem::{Problem, ProblemKind};
use serde_json::Value;

/// What a body may measure.
pub const LIMIT: usize = 256 * 1024;

/// A body's bytes.
pub async fn bytes(body: Body) -> Result<Bytes, Problem> {
    let too_large = |_| Problem::new(ProblemKind::TooLarge, "the body is larger than 256 KiB");
    to_bytes(body, LIMIT).await.map_err(too_large)
}

/// A body as JSON.
pub async fn json(body: Body) -> Result<Value, Problem> {
    let bytes = bytes(body).await?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let reason = if bytes.is_empty() { "the body is empty".to_owned() } else { error.to_string() };
        Problem::invalid(vec![Invalid::new(reason, "send a JSON object").at("(body)")])
    })
}

/// A body that has to be a JSON object.
pub async fn object(body: Body) -> Result<Value, Problem> {
    let value = json(body).await?;
    if value.is_object() {
        return Ok(value);
    }
    let invalid = Invalid::new("the body is not a JSON object", "send a JSON object");
    Err(Problem::invalid(vec![invalid.at("(body)")]))
}

/// A text field of 1 to `longest` characters that has more to it than white space.
pub fn words(body: &Value, field: &str, longest: usize, faults: &mut Vec<InvalidField>) -> Option<String> {
    let help = || format!("send `{field}` as text of 1 to {longest} characters");
    let fault = match body.get(field) {
        Some(Value::String(text)) if text.trim().is_empty() => Invalid::new("the text is empty", help()),
        Some(Value::String(text)) if text.chars().count() > longest => {
            Invalid::new(format!("the text has {} characters", text.chars().count()), help())
        }
        Some(Value::String(text)) => return Some(text.clone()),
        Some(Value::Null) | None => Invalid::new("the field is missing", help()),
        Some(_) => Invalid::new("it is not text", help()),
    };
    faults.push(fault.at(field));
    None
}

/// A whole number that is not negative.
pub fn count(body: &Value, field: &str, faults: &mut Vec<InvalidField>) -> Option<u64> {
    let number = body.get(field).and_then(Value::as_u64);
    if number.is_none() {
        let help = format!("send `{field}` as a whole number from 0 on");
        faults.push(Invalid::new("it is not a whole number", help).at(field));
    }
    number
}
