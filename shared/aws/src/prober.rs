//! The prober, asked synchronously.

use async_trait::async_trait;
use aws_sdk_lambda::Client;
use aws_sdk_lambda::error::DisplayErrorContext;
use aws_sdk_lambda::primitives::Blob;
use claviger_app::messages::{ProbeAnswer, ProbeRequest};
use claviger_app::ports::{CallError, Prober};

const PROBER: &str = "the prober";

/// The function `key-prober`.
#[derive(Debug, Clone)]
pub struct LambdaProber {
    client: Client,
    function: String,
}

impl LambdaProber {
    /// The function of this name or ARN.
    pub fn new(client: Client, function: impl Into<String>) -> Self {
        Self { client, function: function.into() }
    }
}

#[async_trait]
impl Prober for LambdaProber {
    async fn probe(&self, request: &ProbeRequest) -> Result<ProbeAnswer, CallError> {
        let failed = |reason: String| CallError { what: PROBER, reason };
        let payload = serde_json::to_vec(request).map_err(|error| failed(error.to_string()))?;
        let answer = self
            .client
            .invoke()
            .function_name(&self.function)
            .payload(Blob::new(payload))
            .send()
            .await
            .map_err(|error| failed(DisplayErrorContext(error).to_string()))?;
        // The payload of a failed function is its error message, which says nothing to a caller of ours.
        if let Some(kind) = answer.function_error() {
            return Err(failed(format!("the function failed ({kind})")));
        }
        let bytes = answer.payload.map(Blob::into_inner).unwrap_or_default();
        serde_json::from_slice(&bytes).map_err(|error| failed(format!("its answer cannot be read: {error}")))
    }
}
