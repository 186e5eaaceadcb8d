//! Checkpoints of re-encryptions.

use async_trait::async_trait;
use claviger_app::ports::{Checkpoints, Page, StoreError};
use claviger_app::reencryption::{JobProgress, ShardCheckpoint, ShardPlace};
use claviger_domain::ids::ReencryptionId;
use serde::Serialize;

use super::items::{document, number, unavailable};
use super::names::{Key, VERSION};
use super::pages::{Direction, Range};
use super::{DynamoStore, names};

#[async_trait]
impl Checkpoints for DynamoStore {
    async fn progress(&self, job: ReencryptionId) -> Result<Option<JobProgress>, StoreError> {
        self.load(&names::reencryption(job)).await
    }

    async fn save_progress(&self, progress: &JobProgress) -> Result<(), StoreError> {
        self.save_checkpoint(&names::reencryption(progress.job), progress, progress.version).await
    }

    async fn shard(&self, at: ShardPlace) -> Result<Option<ShardCheckpoint>, StoreError> {
        self.load(&names::reencryption_shard(at)).await
    }

    async fn shards(
        &self,
        job: ReencryptionId,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<ShardCheckpoint>, StoreError> {
        let range = Range {
            table: &self.tables.control,
            pk: names::reencryption_partition(job),
            prefix: names::SHARD_PREFIX,
            direction: Direction::Forward,
        };
        self.page(&range, cursor, limit).await
    }

    async fn save_shard(&self, shard: &ShardCheckpoint) -> Result<(), StoreError> {
        self.save_checkpoint(&names::reencryption_shard(shard.place), shard, shard.version).await
    }
}

impl DynamoStore {
    /// Stored if the stored one has the version before.
    async fn save_checkpoint<T: Serialize>(
        &self,
        key: &Key,
        doc: &T,
        version: u64,
    ) -> Result<(), StoreError> {
        let item = document(key, doc, [(VERSION, number(version))])?;
        let put = self.client.put_item().table_name(&self.tables.control).set_item(Some(item));
        let put = if version <= 1 {
            put.condition_expression("attribute_not_exists(pk)")
        } else {
            put.condition_expression("#version = :before")
                .expression_attribute_names("#version", VERSION)
                .expression_attribute_values(":before", number(version.saturating_sub(1)))
        };
        put.send().await.map(drop).map_err(|error| unavailable(&error))
    }
}
