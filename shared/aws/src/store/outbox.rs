//! Effects that wait.

use async_trait::async_trait;
use claviger_app::ports::{Outbox, StoreError};
use claviger_domain::effect::OutboxRow;
use claviger_domain::ids::EffectId;
use claviger_domain::values::OrganisationName;
use jiff::Timestamp;

use super::DynamoStore;
use super::items::{aggregate, key_item, millis_text, text, text_of, unavailable};
use super::names::{self, DUE_AT, DUE_INDEX, DUE_SHARD, DUE_SHARDS, OUTBOX_PREFIX, SK};

#[async_trait]
impl Outbox for DynamoStore {
    /// The index is read, so a row that was just done may show up again; receivers apply it once.
    async fn overdue_effects(&self, before: Timestamp, limit: u16) -> Result<Vec<OutboxRow>, StoreError> {
        let mut rows: Vec<(String, OutboxRow)> = Vec::new();
        for shard in 0..DUE_SHARDS {
            rows.extend(self.overdue_in(shard, before, usize::from(limit)).await?);
        }
        rows.sort_by(|(due, row), (other_due, other)| (due, row.id).cmp(&(other_due, other.id)));
        rows.truncate(usize::from(limit));
        Ok(rows.into_iter().map(|(_, row)| row).collect())
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

    async fn effect_failed(
        &self,
        organisation: &OrganisationName,
        id: EffectId,
        due: Timestamp,
    ) -> Result<(), StoreError> {
        let moved = self
            .client
            .update_item()
            .table_name(&self.tables.control)
            .set_key(Some(key_item(&names::outbox(organisation, id))))
            .update_expression("SET #due = :due")
            .condition_expression("attribute_exists(pk)")
            .expression_attribute_names("#due", DUE_AT)
            .expression_attribute_values(":due", text(millis_text(due)))
            .send()
            .await;
        match moved.map_err(|error| unavailable(&error)) {
            // Gone: somebody else has delivered it.
            Ok(_) | Err(StoreError::Conflict) => Ok(()),
            Err(other) => Err(other),
        }
    }
}

impl DynamoStore {
    async fn overdue_in(
        &self,
        shard: u8,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<(String, OutboxRow)>, StoreError> {
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
                rows.push((text_of(&item, DUE_AT)?.to_owned(), aggregate(&item)?));
            }
            start = answer.last_evaluated_key;
            if start.is_none() || rows.len() >= limit {
                return Ok(rows);
            }
        }
    }
}
