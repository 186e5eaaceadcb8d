//! A fence that is open and keys that are made on the spot, so that the memory of a fake cloud is not counted.

use async_trait::async_trait;
use claviger_envelope::fence::{FenceError, FenceReader, WatchedShard};
use claviger_envelope::source::{DataKey, Proof, SourceError, Wanted};
use claviger_envelope::{FenceSnapshot, InstanceName, KeyBytes, KeySource};
use uuid::Uuid;

pub struct OpenFence;

#[async_trait]
impl FenceReader for OpenFence {
    async fn read(&self) -> Result<FenceSnapshot, FenceError> {
        let shards = vec![WatchedShard { shard: 0, watched_until: i64::MAX, unproven: Vec::new() }];
        Ok(FenceSnapshot { policies: Vec::new(), shards })
    }
}

pub struct Synthetic;

#[async_trait]
impl KeySource for Synthetic {
    async fn fetch(&self, instance: &InstanceName, _: Wanted) -> Result<DataKey, SourceError> {
        let id = Uuid::new_v4();
        Ok(DataKey {
            // As long as the real ones: UUIDs.
            policy_id: Uuid::new_v4().to_string(),
            organisation_id: format!("{:0>36}", instance.organisation),
            instance_id: Uuid::new_v4().to_string(),
            shard: 0,
            epoch: 1,
            generation: 1,
            data_key_id: id,
            version: 1,
            current: true,
            key: KeyBytes::generate().map_err(|error| SourceError::Unreachable(error.to_string()))?,
            not_after: i64::MAX / 4,
            proven_until: i64::MAX / 4,
            created_at: None,
            kms_calls: 1,
        })
    }

    async fn prove(&self, _: &[String]) -> Result<Vec<Proof>, SourceError> {
        Ok(Vec::new())
    }
}
