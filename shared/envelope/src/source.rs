//! Where data keys and proofs come from.

use crate::secret::KeyBytes;
use async_trait::async_trait;
use uuid::Uuid;

/// The public name of an app instance, as in the vendor's own addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InstanceName {
    pub organisation: String,
    pub site: String,
    pub app: String,
}

/// Which data key of an instance is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// The one to write with. `newer_than`: the version whose soft limit was reached.
    Current { newer_than: Option<u32> },
    /// The one that a record names.
    DataKey(Uuid),
}

/// A data key as the broker hands it out.
pub struct DataKey {
    pub policy_id: String,
    pub organisation_id: String,
    pub instance_id: String,
    pub shard: u16,
    pub epoch: u64,
    pub generation: u32,
    pub data_key_id: Uuid,
    pub version: u32,
    pub current: bool,
    pub key: KeyBytes,
    /// Unix milliseconds.
    pub not_after: i64,
    pub proven_until: i64,
    /// When this version was made, if the broker says so; its soft age limit counts from here.
    pub created_at: Option<i64>,
    /// KMS calls that this answer cost.
    pub kms_calls: u32,
}

/// What a fresh unwrap said about a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    pub policy_id: String,
    pub result: ProofResult,
    /// Unix milliseconds; only meaningful where proven.
    pub proven_until: i64,
    /// KMS calls on the organisation's keys that this proof cost.
    pub kms_calls: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofResult {
    Proven,
    Suspended,
    Unavailable,
}

/// Why a source gave no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    #[error("suspended")]
    Suspended,
    /// The customer's key store gave no answer.
    #[error("temporarily unavailable")]
    TemporarilyUnavailable,
    #[error("not found, or this caller is not entitled to it")]
    NotFound,
    /// The source itself could not be asked, or answered nonsense.
    #[error("the source did not answer: {0}")]
    Unreachable(String),
}

/// The key broker, or whatever stands in for it.
#[async_trait]
pub trait KeySource: Send + Sync + 'static {
    async fn fetch(&self, instance: &InstanceName, wanted: Wanted) -> Result<DataKey, SourceError>;
    /// One fresh proof for each policy. Policies that are missing from the answer count as unavailable.
    async fn prove(&self, policies: &[String]) -> Result<Vec<Proof>, SourceError>;
}
