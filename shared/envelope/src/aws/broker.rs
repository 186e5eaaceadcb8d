//! The key broker over HTTP: a Function URL that names the caller by its signature (SigV4).

use crate::lock::Lock;
use crate::source::{DataKey, InstanceName, KeySource, Proof, ProofResult, SourceError, Wanted};
use crate::transport::Opener;
use async_trait::async_trait;
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};
use uuid::Uuid;

/// Credentials are renewed this long before they run out.
const CREDENTIALS_MARGIN: Duration = Duration::from_secs(60);
/// No answer of the broker is longer.
const MOST_BODY: usize = 1024 * 1024;

/// The key broker. Its answers' keys arrive sealed to a one-time key of the request.
pub struct Broker {
    url: String,
    region: String,
    http: reqwest::Client,
    provider: SharedCredentialsProvider,
    credentials: Lock<Option<Credentials>>,
}

/// The client of the broker could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error("the AWS configuration has no {0}")]
    Configuration(&'static str),
    #[error("the HTTP client could not be made")]
    Http(#[source] reqwest::Error),
}

impl Broker {
    /// `url` is the broker's Function URL.
    ///
    /// # Errors
    /// If `config` has no region or no credentials.
    pub fn new(config: &aws_config::SdkConfig, url: impl Into<String>) -> Result<Self, BrokerError> {
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(2))
            .timeout(Duration::from_secs(15))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(BrokerError::Http)?;
        Ok(Self {
            url: url.into().trim_end_matches('/').to_owned(),
            region: config.region().ok_or(BrokerError::Configuration("region"))?.to_string(),
            http,
            provider: config.credentials_provider().ok_or(BrokerError::Configuration("credentials"))?,
            credentials: Lock::default(),
        })
    }

    async fn credentials(&self) -> Result<Credentials, SourceError> {
        {
            let cached = self.credentials.lock();
            if let Some(credentials) = &*cached
                && credentials.expiry().is_none_or(|expiry| SystemTime::now() + CREDENTIALS_MARGIN < expiry)
            {
                return Ok(credentials.clone());
            }
        }
        let fresh = self
            .provider
            .provide_credentials()
            .await
            .map_err(|error| SourceError::Unreachable(format!("no credentials: {error}")))?;
        *self.credentials.lock() = Some(fresh.clone());
        Ok(fresh)
    }

    async fn post(&self, path: &str, body: &impl Serialize) -> Result<Vec<u8>, SourceError> {
        let body = serde_json::to_vec(body).map_err(unreachable)?;
        let identity = self.credentials().await?.into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("lambda")
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .map_err(unreachable)?
            .into();
        let url = format!("{}{path}", self.url);
        let content_type = ("content-type", "application/json");
        let signable =
            SignableRequest::new("POST", &url, std::iter::once(content_type), SignableBody::Bytes(&body))
                .map_err(unreachable)?;
        let (instructions, _) = sign(signable, &params).map_err(unreachable)?.into_parts();
        let mut request = http::Request::post(&url)
            .header(content_type.0, content_type.1)
            .body(body)
            .map_err(unreachable)?;
        instructions.apply_to_request_http1x(&mut request);
        let request =
            reqwest::Request::try_from(request).map_err(|error| unreachable(error.without_url()))?;

        let mut response =
            self.http.execute(request).await.map_err(|error| unreachable(error.without_url()))?;
        let status = response.status().as_u16();
        let mut answer = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|error| unreachable(error.without_url()))? {
            if answer.len() + part.len() > MOST_BODY {
                return Err(SourceError::Unreachable("the answer is too long".into()));
            }
            answer.extend_from_slice(&part);
        }
        answered(status, answer)
    }
}

/// What a status says; a body is only read where it is an answer.
pub(super) fn answered(status: u16, body: Vec<u8>) -> Result<Vec<u8>, SourceError> {
    match status {
        200 => Ok(body),
        404 => Err(SourceError::NotFound),
        409 => Err(SourceError::Suspended),
        // A throttled or overloaded broker says nothing about keys (I2).
        429 | 503 => Err(SourceError::TemporarilyUnavailable),
        // 403 is the role, not the customer: it heals by the vendor's own hand.
        status => Err(SourceError::Unreachable(format!("it answered {status}"))),
    }
}

fn unreachable(error: impl std::error::Error) -> SourceError {
    let mut why = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        why = format!("{why}: {error}");
        source = error.source();
    }
    SourceError::Unreachable(why)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DataKeyRequest<'a> {
    organisation: &'a str,
    site: &'a str,
    app: &'a str,
    purpose: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_key_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    newer_than: Option<u32>,
    transport_key: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DataKeyAnswer {
    policy_id: String,
    organisation_id: String,
    instance_id: String,
    shard: u16,
    epoch: u64,
    generation: u32,
    data_key_id: Uuid,
    version: u32,
    #[serde(default)]
    current: bool,
    /// Sealed: see [`crate::transport`].
    key: String,
    not_after: i64,
    proven_until: i64,
    #[serde(default)]
    created_at: Option<i64>,
    #[serde(default)]
    kms_calls: u32,
}

#[derive(Serialize)]
struct ProofsRequest<'a> {
    policies: &'a [String],
}

#[derive(Deserialize)]
struct ProofsAnswer {
    proofs: Vec<ProofAnswer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProofAnswer {
    policy_id: String,
    result: String,
    #[serde(default)]
    proven_until: Option<i64>,
    #[serde(default)]
    kms_calls: u32,
}

#[async_trait]
impl KeySource for Broker {
    async fn fetch(&self, instance: &InstanceName, wanted: Wanted) -> Result<DataKey, SourceError> {
        let opener = Opener::new().map_err(unreachable)?;
        let (data_key_id, newer_than) = match wanted {
            Wanted::Current { newer_than } => (None, newer_than),
            Wanted::DataKey(id) => (Some(id), None),
        };
        let request = DataKeyRequest {
            organisation: &instance.organisation,
            site: &instance.site,
            app: &instance.app,
            purpose: "records",
            data_key_id,
            newer_than,
            transport_key: opener.transport_key(),
        };
        let answer = self.post("/v1/data-keys", &request).await?;
        data_key(&answer, opener)
    }

    async fn prove(&self, policies: &[String]) -> Result<Vec<Proof>, SourceError> {
        let answer = self.post("/v1/proofs", &ProofsRequest { policies }).await?;
        proofs(&answer)
    }
}

/// The data key of an answer, if it was sealed to this request.
pub(super) fn data_key(answer: &[u8], opener: Opener) -> Result<DataKey, SourceError> {
    // Deserialisation errors quote their input; the key in it is sealed, but it is nobody's business.
    let answer: DataKeyAnswer = serde_json::from_slice(answer).map_err(|error| {
        SourceError::Unreachable(format!("its answer is no data key ({:?})", error.classify()))
    })?;
    let key = opener
        .open(&answer.key, answer.data_key_id)
        .map_err(|_| SourceError::Unreachable("its key was not sealed to this request".into()))?;
    Ok(DataKey {
        policy_id: answer.policy_id,
        organisation_id: answer.organisation_id,
        instance_id: answer.instance_id,
        shard: answer.shard,
        epoch: answer.epoch,
        generation: answer.generation,
        data_key_id: answer.data_key_id,
        version: answer.version,
        current: answer.current,
        key,
        not_after: answer.not_after,
        proven_until: answer.proven_until,
        created_at: answer.created_at,
        kms_calls: answer.kms_calls,
    })
}

/// The proofs of an answer: what is neither proven, with its end, nor suspended, is no proof.
pub(super) fn proofs(answer: &[u8]) -> Result<Vec<Proof>, SourceError> {
    let answer: ProofsAnswer = serde_json::from_slice(answer).map_err(|error| {
        SourceError::Unreachable(format!("its answer is no proof ({:?})", error.classify()))
    })?;
    let proof = |proof: ProofAnswer| Proof {
        result: match proof.result.as_str() {
            "proven" if proof.proven_until.is_some() => ProofResult::Proven,
            "suspended" => ProofResult::Suspended,
            _ => ProofResult::Unavailable,
        },
        proven_until: proof.proven_until.unwrap_or(0),
        kms_calls: proof.kms_calls,
        policy_id: proof.policy_id,
    };
    Ok(answer.proofs.into_iter().map(proof).collect())
}
