//! Customers' keys: by their key policies, with sessions of the one key-access role, or through a role of the customer's,
//! which that session assumes.

mod control;
mod customer_role;
mod make;
mod metered;
mod session;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::http::HttpResponse;
use aws_sdk_kms::config::{IdentityCache, Region as SdkRegion, SharedCredentialsProvider};
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::RequestId;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{DataKeyPairSpec, DataKeySpec};
use claviger_app::messages::EncryptionContext;
use claviger_app::ports::{CustomerKeys, KeyDescription, KeyError, KeyRef, Trial};
use claviger_app::usage::UsageMeter;
use claviger_domain::key_access::KeyAccess;
use claviger_domain::observation::{NoAnswerKind, Observation};
use claviger_domain::values::{KeyArn, Region};
use jiff::Timestamp;
use tracing::info;
use zeroize::Zeroizing;

use self::control::Canaries;
pub use self::control::{CanaryKey, CanaryKeys, CanaryKeysError, parse_canary_keys};
use self::customer_role::CustomerRoleSessions;
use self::metered::CountCalls;
pub use self::metered::MeteredKeys;
use self::session::Session;
use crate::errors::{Call, key_error};

/// Of which kind a pair of data keys is that is only tried.
const PAIR: DataKeyPairSpec = DataKeyPairSpec::EccNistP256;

/// For how many regions a client is kept: more than AWS has.
const MOST_CLIENTS: usize = 64;

/// KMS, with sessions of the key-access role, and of customers' roles.
///
/// A call is sent once: whoever probes asks again by itself, and a retry in between would only hide what it saw and
/// spend the customer's quota.
#[derive(Debug)]
pub struct KmsKeys {
    config: SdkConfig,
    session: Arc<Session>,
    call_timeout: Duration,
    clients: Mutex<HashMap<Region, Client>>,
    customer_roles: CustomerRoleSessions,
    canaries: Canaries,
    meter: Option<Arc<UsageMeter>>,
}

impl KmsKeys {
    /// Clients are made when a region is first used. `call_timeout` limits each call, AssumeRole included;
    /// `canary_keys` are the control probes.
    pub fn new(
        config: &SdkConfig,
        key_access_role_arn: impl Into<String>,
        call_timeout: Duration,
        canary_keys: CanaryKeys,
    ) -> Self {
        let sts = aws_sdk_sts::config::Builder::from(config)
            .timeout_config(timeouts(call_timeout))
            .retry_config(RetryConfig::standard().with_max_attempts(2))
            .build();
        let sts = aws_sdk_sts::Client::from_conf(sts);
        Self::over(config.clone(), sts, key_access_role_arn.into(), call_timeout, canary_keys)
    }

    fn over(
        config: SdkConfig,
        sts: aws_sdk_sts::Client,
        role: String,
        call_timeout: Duration,
        canary_keys: CanaryKeys,
    ) -> Self {
        Self {
            config,
            session: Arc::new(Session::new(sts, role)),
            call_timeout,
            clients: Mutex::default(),
            customer_roles: CustomerRoleSessions::default(),
            canaries: Canaries::new(canary_keys),
            meter: None,
        }
    }

    /// A client with a session that may use the key.
    async fn client(&self, key: KeyRef<'_>) -> Result<Client, KeyError> {
        self.client_of(key, None).await
    }

    /// A client with a session that may use the key, and another of the same region.
    async fn client_of(&self, key: KeyRef<'_>, also: Option<&KeyArn>) -> Result<Client, KeyError> {
        match key.access {
            KeyAccess::KeyPolicy => self.own_client(key.region()).await,
            KeyAccess::Role(role) => self.role_client(role, key, also).await,
        }
    }

    /// A client for a region with a session of the key-access role that lives.
    async fn own_client(&self, region: &Region) -> Result<Client, KeyError> {
        self.session.ensure().await?;
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(region) {
            return Ok(client.clone());
        }
        let provider: Arc<dyn ProvideCredentials> = self.session.clone();
        let client = self.client_with(region, SharedCredentialsProvider::new(provider));
        // What names regions in requests is no more than a name: a region that does not exist must not fill the memory.
        if clients.len() < MOST_CLIENTS {
            clients.insert(region.clone(), client.clone());
        }
        Ok(client)
    }

    fn client_with(&self, region: &Region, credentials: SharedCredentialsProvider) -> Client {
        let mut config = aws_sdk_kms::config::Builder::from(&self.config)
            .region(SdkRegion::new(region.as_str().to_owned()))
            .timeout_config(timeouts(self.call_timeout))
            .retry_config(RetryConfig::disabled())
            .credentials_provider(credentials)
            // The session is the cache: one for all regions, renewed in one place.
            .identity_cache(IdentityCache::no_cache());
        if let Some(meter) = &self.meter {
            config = config.interceptor(CountCalls(Arc::clone(meter)));
        }
        Client::from_conf(config.build())
    }
}

/// What a failed call says.
fn failed<E>(operation: &'static str, key: &KeyArn, error: &SdkError<E, HttpResponse>) -> KeyError
where
    E: ProvideErrorMetadata,
{
    let error = key_error(Call::CustomerKey, error);
    counted(operation, key, &error.code, error.request_id.as_deref());
    error
}

fn timeouts(call: Duration) -> TimeoutConfig {
    TimeoutConfig::builder().operation_timeout(call).connect_timeout(call).build()
}

/// One line a KMS call, from which calls are counted. Never what was encrypted.
fn counted(operation: &'static str, key: &KeyArn, outcome: &str, request_id: Option<&str>) {
    info!(
        target: "claviger::kms",
        {
            kms.calls = 1_u64,
            kms.operation = operation,
            key.arn = key.as_str(),
            key.region = key.region().as_str(),
            outcome,
            kms.request_id = request_id,
        },
        "KMS call"
    );
}

/// An answer that lacks what it is about.
fn incomplete(request_id: Option<&str>) -> KeyError {
    KeyError {
        observation: Observation::NoAnswer(NoAnswerKind::OurFault),
        code: "incomplete-answer".to_owned(),
        request_id: request_id.map(str::to_owned),
    }
}

/// A dry run that would have succeeded says so by an error of its own.
fn tried<T, E>(
    operation: &'static str,
    key: KeyRef<'_>,
    answer: Result<T, SdkError<E, HttpResponse>>,
) -> Result<(), KeyError>
where
    E: ProvideErrorMetadata,
{
    let Err(error) = answer else {
        return Ok(());
    };
    let error = failed(operation, key.arn, &error);
    if error.code == "DryRunOperationException" { Ok(()) } else { Err(error) }
}

fn context_of(context: &EncryptionContext) -> Option<HashMap<String, String>> {
    Some(context.iter().map(|(name, value)| (name.clone(), value.clone())).collect())
}

#[async_trait]
impl CustomerKeys for KmsKeys {
    async fn decrypt(
        &self,
        key: KeyRef<'_>,
        ciphertext: &[u8],
        context: &EncryptionContext,
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let answer = self
            .client(key)
            .await?
            .decrypt()
            .key_id(key.arn.as_str())
            .ciphertext_blob(Blob::new(ciphertext))
            .set_encryption_context(context_of(context))
            .send()
            .await;
        match answer {
            Ok(mut output) => {
                counted("Decrypt", key.arn, "ok", output.request_id());
                let plaintext = output.plaintext.take().ok_or_else(|| incomplete(output.request_id()))?;
                Ok(Zeroizing::new(plaintext.into_inner()))
            }
            Err(error) => Err(failed("Decrypt", key.arn, &error)),
        }
    }

    async fn encrypt(
        &self,
        key: KeyRef<'_>,
        plaintext: &[u8],
        context: &EncryptionContext,
    ) -> Result<Vec<u8>, KeyError> {
        let answer = self
            .client(key)
            .await?
            .encrypt()
            .key_id(key.arn.as_str())
            .plaintext(Blob::new(plaintext))
            .set_encryption_context(context_of(context))
            .send()
            .await;
        match answer {
            Ok(mut output) => {
                counted("Encrypt", key.arn, "ok", output.request_id());
                let ciphertext =
                    output.ciphertext_blob.take().ok_or_else(|| incomplete(output.request_id()))?;
                Ok(ciphertext.into_inner())
            }
            Err(error) => Err(failed("Encrypt", key.arn, &error)),
        }
    }

    async fn re_encrypt(
        &self,
        from: KeyRef<'_>,
        to: KeyRef<'_>,
        ciphertext: &[u8],
        context: &EncryptionContext,
    ) -> Result<Vec<u8>, KeyError> {
        let answer = self
            .client_of(to, Some(from.arn))
            .await?
            .re_encrypt()
            .source_key_id(from.arn.as_str())
            .destination_key_id(to.arn.as_str())
            .ciphertext_blob(Blob::new(ciphertext))
            .set_source_encryption_context(context_of(context))
            .set_destination_encryption_context(context_of(context))
            .send()
            .await;
        match answer {
            Ok(mut output) => {
                counted("ReEncrypt", to.arn, "ok", output.request_id());
                let moved = output.ciphertext_blob.take();
                moved.map(Blob::into_inner).ok_or_else(|| incomplete(output.request_id()))
            }
            // Which of the two keys refused is not said, so none is described.
            Err(error) => {
                let error = key_error(Call::CustomerKey, &error);
                counted("ReEncrypt", to.arn, &error.code, error.request_id.as_deref());
                Err(error)
            }
        }
    }

    async fn generate_data_key(
        &self,
        key: KeyRef<'_>,
        context: &EncryptionContext,
    ) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), KeyError> {
        let answer = self
            .client(key)
            .await?
            .generate_data_key()
            .key_id(key.arn.as_str())
            .key_spec(DataKeySpec::Aes256)
            .set_encryption_context(context_of(context))
            .send()
            .await;
        match answer {
            Ok(mut output) => {
                counted("GenerateDataKey", key.arn, "ok", output.request_id());
                let plaintext = output.plaintext.take().map(|blob| Zeroizing::new(blob.into_inner()));
                let wrapped = output.ciphertext_blob.take().map(Blob::into_inner);
                plaintext.zip(wrapped).ok_or_else(|| incomplete(output.request_id()))
            }
            Err(error) => Err(failed("GenerateDataKey", key.arn, &error)),
        }
    }

    async fn describe(&self, key: KeyRef<'_>) -> Result<KeyDescription, KeyError> {
        let answer = self.client(key).await?.describe_key().key_id(key.arn.as_str()).send().await;
        let output = answer.map_err(|error| failed("DescribeKey", key.arn, &error))?;
        counted("DescribeKey", key.arn, "ok", output.request_id());
        let found = output.key_metadata().ok_or_else(|| incomplete(output.request_id()))?;
        let word = |word: Option<&str>| word.unwrap_or_default().to_owned();
        Ok(KeyDescription {
            state: word(found.key_state().map(|state| state.as_str())),
            spec: word(found.key_spec().map(|spec| spec.as_str())),
            usage: word(found.key_usage().map(|usage| usage.as_str())),
            origin: word(found.origin().map(|origin| origin.as_str())),
            custom_key_store: found.custom_key_store_id().is_some(),
            manager: word(found.key_manager().map(|manager| manager.as_str())),
            material: found.current_key_material_id().map(str::to_owned),
            deletion_date: found.deletion_date().and_then(|at| Timestamp::from_second(at.secs()).ok()),
            material_expires: found.valid_to().and_then(|at| Timestamp::from_second(at.secs()).ok()),
        })
    }

    async fn dry_run(
        &self,
        key: KeyRef<'_>,
        trial: Trial<'_>,
        context: &EncryptionContext,
    ) -> Result<(), KeyError> {
        let client = self.client(key).await?;
        let (id, context) = (key.arn.as_str(), context_of(context));
        match trial {
            Trial::Encrypt => {
                let request = client.encrypt().key_id(id).plaintext(Blob::new(b"claviger".as_slice()));
                let answer = request.set_encryption_context(context).dry_run(true).send().await;
                tried("Encrypt", key, answer)
            }
            Trial::GenerateDataKeyPair => {
                let request = client.generate_data_key_pair().key_id(id).key_pair_spec(PAIR);
                let answer = request.set_encryption_context(context).dry_run(true).send().await;
                tried("GenerateDataKeyPair", key, answer)
            }
            Trial::GenerateDataKeyPairWithoutPlaintext => {
                let request =
                    client.generate_data_key_pair_without_plaintext().key_id(id).key_pair_spec(PAIR);
                let answer = request.set_encryption_context(context).dry_run(true).send().await;
                tried("GenerateDataKeyPairWithoutPlaintext", key, answer)
            }
            Trial::GenerateDataKey => {
                let request = client.generate_data_key().key_id(id).key_spec(DataKeySpec::Aes256);
                let answer = request.set_encryption_context(context).dry_run(true).send().await;
                tried("GenerateDataKey", key, answer)
            }
            Trial::GenerateDataKeyWithoutPlaintext => {
                let request =
                    client.generate_data_key_without_plaintext().key_id(id).key_spec(DataKeySpec::Aes256);
                let answer = request.set_encryption_context(context).dry_run(true).send().await;
                tried("GenerateDataKeyWithoutPlaintext", key, answer)
            }
            Trial::ReEncrypt(sealed) => {
                let request = client.re_encrypt().source_key_id(id).destination_key_id(id);
                let answer = request
                    .ciphertext_blob(Blob::new(sealed))
                    .set_source_encryption_context(context.clone())
                    .set_destination_encryption_context(context)
                    .dry_run(true)
                    .send()
                    .await;
                tried("ReEncrypt", key, answer)
            }
            Trial::Decrypt(sealed) => {
                let request = client.decrypt().key_id(id).ciphertext_blob(Blob::new(sealed));
                let answer = request.set_encryption_context(context).dry_run(true).send().await;
                tried("Decrypt", key, answer)
            }
        }
    }

    async fn rotates(&self, key: KeyRef<'_>) -> Result<bool, KeyError> {
        let answer = self.client(key).await?.get_key_rotation_status().key_id(key.arn.as_str()).send().await;
        let output = answer.map_err(|error| failed("GetKeyRotationStatus", key.arn, &error))?;
        counted("GetKeyRotationStatus", key.arn, "ok", output.request_id());
        Ok(output.key_rotation_enabled())
    }

    async fn key_policy(&self, key: KeyRef<'_>) -> Result<serde_json::Value, KeyError> {
        let request = self.client(key).await?.get_key_policy().key_id(key.arn.as_str());
        let answer = request.policy_name("default").send().await;
        let output = answer.map_err(|error| failed("GetKeyPolicy", key.arn, &error))?;
        counted("GetKeyPolicy", key.arn, "ok", output.request_id());
        let policy = output.policy().and_then(|text| serde_json::from_str(text).ok());
        policy.ok_or_else(|| incomplete(output.request_id()))
    }
}
