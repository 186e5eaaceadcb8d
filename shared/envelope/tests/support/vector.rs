//! A vector's file, and the library on the key and the context that it names.

use async_trait::async_trait;
use claviger_envelope::fence::{FenceError, FenceReader, WatchedShard};
use claviger_envelope::source::{DataKey, Proof, SourceError, Wanted};
use claviger_envelope::{Envelope, FenceSnapshot, Instance, InstanceName, KeyBytes, KeySource};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use uuid::Uuid;

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    pub data_key_id: String,
    pub generation: u32,
    pub key: String,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VectorContext {
    pub organisation_id: String,
    pub instance_id: String,
    pub data_type: String,
    pub record_id: String,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct Vector {
    pub what: String,
    pub keys: Vec<Key>,
    pub context: VectorContext,
    pub record: String,
    pub result: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slug: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plaintext: Option<String>,
}

pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

struct Open;

#[async_trait]
impl FenceReader for Open {
    async fn read(&self) -> Result<FenceSnapshot, FenceError> {
        let shards = vec![WatchedShard { shard: 0, watched_until: i64::MAX, unproven: Vec::new() }];
        Ok(FenceSnapshot { policies: Vec::new(), shards })
    }
}

#[async_trait]
impl KeySource for Vector {
    async fn fetch(&self, _: &InstanceName, wanted: Wanted) -> Result<DataKey, SourceError> {
        let id = |key: &Key| Uuid::parse_str(&key.data_key_id).unwrap();
        let key = match wanted {
            Wanted::Current { .. } => self.keys.first(),
            Wanted::DataKey(wanted) => self.keys.iter().find(|key| id(key) == wanted),
        }
        .ok_or(SourceError::NotFound)?;
        Ok(DataKey {
            policy_id: "p".into(),
            organisation_id: self.context.organisation_id.clone(),
            instance_id: self.context.instance_id.clone(),
            shard: 0,
            epoch: 1,
            generation: key.generation,
            data_key_id: id(key),
            version: 1,
            current: false,
            key: KeyBytes::fill_with(|out| hex::decode_to_slice(&key.key, out)).unwrap(),
            not_after: i64::MAX,
            proven_until: i64::MAX,
            created_at: None,
            kms_calls: 0,
        })
    }

    async fn prove(&self, _: &[String]) -> Result<Vec<Proof>, SourceError> {
        Ok(Vec::new())
    }
}

impl Vector {
    pub fn read(name: &str) -> Self {
        serde_json::from_slice(&std::fs::read(folder().join(name)).unwrap()).unwrap()
    }

    /// The instance that has the vector's keys.
    pub fn instance(&self) -> Instance {
        let client = Envelope::builder().fence(Open).keys(self.clone()).manual().start().unwrap();
        client.instance("acme", "acme-eng", "jira")
    }
}
