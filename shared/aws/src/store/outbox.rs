//! Effects that wait.

use async_trait::async_trait;
use claviger_app::ports::{Outbox, StoreError};
use claviger_domain::effect::OutboxRow;
use claviger_domain::ids::EffectId;
use claviger_domain::values::OrganisationName;
use jiff::Timestamp;

use super::DynamoStore;
use super::items::{aggregate, key_item, millis_text, text, unavailable};
use super::names::{self, DUE_AT, DUE_INDEX, DUE_SHARD, DUE_SHARDS, OUTBOX_PREFIX, SK};

#[async_trait]
impl Outbox for DynamoStore {
    /// Oldest first. The index is read, so a row that was just done may show up again; receivers apply it once.
    async fn overdue_effects(&self, before: Timestamp, limit: u16) -> Result<Vec<OutboxRow>, StoreError> {
        let mut rows: Vec<OutboxRow> = Vec::new();
        for shard in 0..DUE_SHARDS {
            rows.extend(self.overdue_in(shard, before, usize::from(limit)).await?);
        }
        rows.sort_by_key(|row| (row.created_at.as_millisecond(), row.id));
        rows.truncate(usize::from(limit));
        Ok(rows)
    }

    async fn effect_done(&self, organisation: &OrganisationName, id: EffectId) -> Result<(), StoreError> {
        self.client
            .delete_item()
            .table_name(&self.tables.control)
            .set_key(Some(key_item(&names::outbox(organisation, id))))
            .send()
            .await
            .map(drop)
            .map_err(|error| unavailable(&error))
    }
}

impl DynamoStore {
    async fn overdue_in(
        &self,
        shard: u8,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        let mut rows = Vec::new();
        let mut start = None;
        loop {
            let answer = self
                .client
                .query()
                .table_name(&self.tables.control)
                .index_name(DUE_INDEX)
                .key_condition_expression("#shard = :shard AND #due < :before")
                // Other things that wait may stand in the same index.
                .filter_expression("begins_with(#sk, :outbox)")
                .expression_attribute_names("#shard", DUE_SHARD)
                .expression_attribute_names("#due", DUE_AT)
                .expression_attribute_names("#sk", SK)
                .expression_attribute_values(":shard", text(shard))
                .expression_attribute_values(":before", text(millis_text(before)))
                .expression_attribute_values(":outbox", text(OUTBOX_PREFIX))
                .set_exclusive_start_key(start.take())
                .send()
                .await
                .map_err(|error| unavailable(&error))?;
            for item in answer.items.unwrap_or_default() {
                rows.push(aggregate(&item)?);
            }
            start = answer.last_evaluated_key;
            if start.is_none() || rows.len() >= limit {
                return Ok(rows);
            }
        }
    }
}
