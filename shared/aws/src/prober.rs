//! The prober, asked synchronously.

use std::time::Duration;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_lambda::Client;
use aws_sdk_lambda::error::DisplayErrorContext;
use aws_sdk_lambda::primitives::Blob;
use claviger_app::messages::{ProbeAnswer, ProbeRequest};
use claviger_app::ports::{CallError, Prober};

const PROBER: &str = "the prober";
/// Less than what a function has, and than API Gateway waits: its caller is told that there was no answer.
const LONGEST: Duration = Duration::from_secs(25);

/// The function `key-prober`.
#[derive(Debug, Clone)]
pub struct LambdaProber {
    client: Client,
    function: String,
}

impl LambdaProber {
    /// The function of this name or ARN, with a client of its own, which gives up in time.
    pub fn new(config: &SdkConfig, function: impl Into<String>) -> Self {
        let timeouts = TimeoutConfig::builder().operation_timeout(LONGEST).build();
        let client = aws_sdk_lambda::config::Builder::from(config).timeout_config(timeouts).build();
        Self { client: Client::from_conf(client), function: function.into() }
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
