//! Orders that apps have not answered in time.

use async_trait::async_trait;
use claviger_app::ports::{OverdueOrder, OverdueOrders, Page, StoreError, Unanswered};
use claviger_domain::ids::{InstanceId, PolicyId};
use claviger_domain::values::OrganisationName;
use jiff::Timestamp;

use super::items::{Item, document, key_item, millis_text, parsed_of, text, text_of, unavailable};
use super::names::{DUE_AT, DUE_INDEX, DUE_SHARD, INSTANCE_PREFIX, SK};
use super::pages::{Direction, Range};
use super::{DynamoStore, names};

#[async_trait]
impl OverdueOrders for DynamoStore {
    /// From the sparse index, oldest first: the ten thousand that answered cost nothing.
    async fn unanswered(
        &self,
        organisation: &OrganisationName,
        told_before: Timestamp,
        named: usize,
    ) -> Result<Option<Unanswered>, StoreError> {
        let mut found: Option<Unanswered> = None;
        let mut start = None;
        loop {
            let answer = self
                .client
                .query()
                .table_name(&self.tables.control)
                .index_name(DUE_INDEX)
                .key_condition_expression("#shard = :shard AND #due < :before")
                .projection_expression("#sk, #due")
                .expression_attribute_names("#shard", DUE_SHARD)
                .expression_attribute_names("#due", DUE_AT)
                .expression_attribute_names("#sk", SK)
                .expression_attribute_values(":shard", text(names::answers(organisation)))
                .expression_attribute_values(":before", text(millis_text(told_before)))
                .set_exclusive_start_key(start.take())
                .send()
                .await
                .map_err(|error| unavailable(&error))?;
            for item in answer.items.unwrap_or_default() {
                let oldest = parsed_of(&item, DUE_AT)?;
                let known = found.get_or_insert(Unanswered { count: 0, oldest, first: Vec::new() });
                known.count = known.count.saturating_add(1);
                if known.first.len() < named {
                    known.first.push(instance_of(&item)?);
                }
            }
            start = answer.last_evaluated_key;
            if start.is_none() {
                return Ok(found);
            }
        }
    }

    async fn overdue_orders(
        &self,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<OverdueOrder>, StoreError> {
        let range = Range {
            table: &self.tables.control,
            pk: names::OVERDUE.to_owned(),
            prefix: "",
            direction: Direction::Forward,
        };
        self.page(&range, cursor, limit).await
    }

    async fn note_overdue(&self, order: &OverdueOrder) -> Result<(), StoreError> {
        let item = document(&names::overdue(order.policy), order, [])?;
        let put = self.client.put_item().table_name(&self.tables.control).set_item(Some(item));
        put.send().await.map(drop).map_err(|error| unavailable(&error))
    }

    async fn overdue_no_more(&self, policy: PolicyId) -> Result<(), StoreError> {
        let delete = self.client.delete_item().table_name(&self.tables.control);
        let delete = delete.set_key(Some(key_item(&names::overdue(policy))));
        delete.send().await.map(drop).map_err(|error| unavailable(&error))
    }
}

fn instance_of(item: &Item) -> Result<InstanceId, StoreError> {
    let sk = text_of(item, SK)?;
    let id = sk.strip_prefix(INSTANCE_PREFIX).and_then(|id| id.parse().ok());
    id.ok_or_else(|| StoreError::Corrupt { reason: format!("`{sk}` names no instance") })
}
