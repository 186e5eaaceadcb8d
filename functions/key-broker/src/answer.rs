//! The broker's answers.

use claviger_app::hand_out_data_key::{HandOutError, HandedOut};
use claviger_app::prove_policies::{Proof, Proved};
use claviger_domain::invalid::InvalidField;
use claviger_envelope::transport;
use claviger_lambda::problem::{Problem, ProblemKind};
use lambda_http::Response;
use serde_json::json;

/// What keeps a request from being answered.
#[derive(Debug)]
pub enum Trouble {
    /// The caller is not known.
    Forbidden,
    /// There is no such thing, or the caller is not entitled to it.
    NotFound,
    /// The organisation is cut off.
    Suspended,
    /// Not now.
    Unavailable(String),
    /// The request is wrong.
    Invalid(Vec<InvalidField>),
    /// A fault of ours.
    Internal,
}

impl From<HandOutError> for Trouble {
    fn from(error: HandOutError) -> Self {
        match error {
            HandOutError::NotFound => Self::NotFound,
            HandOutError::Suspended => Self::Suspended,
            HandOutError::Unavailable { reason } => Self::Unavailable(reason),
        }
    }
}

impl Trouble {
    /// The problem document of it.
    pub fn into_response(self) -> Response<String> {
        let problem = match self {
            Self::Forbidden => Problem::new(ProblemKind::Forbidden, "the caller is not a role of an app"),
            Self::NotFound => Problem::not_found(),
            Self::Suspended => Problem::new(ProblemKind::Suspended, "the customer took its keys away"),
            Self::Unavailable(reason) => {
                tracing::info!(reason, "a data key is temporarily unavailable");
                Problem::unavailable()
            }
            Self::Invalid(errors) => Problem::invalid(errors),
            Self::Internal => Problem::new(ProblemKind::Internal, "the answer could not be made"),
        };
        problem.to_response()
    }
}

/// A data key, sealed to the caller's one-time key.
pub fn data_key(handed_out: &HandedOut, transport_key: &str) -> Result<Response<String>, Trouble> {
    let key: &[u8; 32] = handed_out.key.as_slice().try_into().map_err(|_| Trouble::Internal)?;
    let sealed = transport::seal_for(transport_key, handed_out.id.as_uuid(), key).map_err(|_| {
        let help = "send a one-time X25519 public key in base64";
        let invalid = claviger_domain::invalid::Invalid::new("it is not a usable public key", help);
        Trouble::Invalid(vec![invalid.at("transportKey")])
    })?;
    Ok(ok(&json!({
        "policyId": handed_out.policy,
        "organisationId": handed_out.organisation,
        "instanceId": handed_out.instance,
        "shard": handed_out.shard,
        "epoch": handed_out.epoch,
        "generation": handed_out.generation,
        "dataKeyId": handed_out.id,
        "version": handed_out.version,
        "current": handed_out.current,
        "createdAt": handed_out.created_at.as_millisecond(),
        "key": sealed,
        "notAfter": handed_out.not_after.as_millisecond(),
        "provenUntil": handed_out.proven_until.as_millisecond(),
        "kmsCalls": handed_out.kms_calls,
    })))
}

/// What is known of each policy.
pub fn proofs(proofs: &[Proved]) -> Response<String> {
    let list: Vec<_> = proofs
        .iter()
        .map(|proved| {
            let (result, until) = match proved.proof {
                Proof::Proven { until } => ("proven", until.as_millisecond()),
                Proof::Suspended => ("suspended", 0),
                Proof::Unavailable => ("unavailable", 0),
            };
            json!({
                "policyId": proved.policy,
                "result": result,
                "provenUntil": until,
                "kmsCalls": proved.kms_calls,
            })
        })
        .collect();
    ok(&json!({ "proofs": list }))
}

fn ok(body: &serde_json::Value) -> Response<String> {
    let mut response = Response::new(body.to_string());
    let json = lambda_http::http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(lambda_http::http::header::CONTENT_TYPE, json);
    response
}
