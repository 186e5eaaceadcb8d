//! Orders that apps have not answered in time.

use async_trait::async_trait;
use claviger_app::ports::{OverdueOrder, OverdueOrders, Page, StoreError};
use claviger_domain::ids::PolicyId;

use super::items::{document, key_item, unavailable};
use super::pages::{Direction, Range};
use super::{DynamoStore, names};

#[async_trait]
impl OverdueOrders for DynamoStore {
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
