//! What is remembered of accounts' hints, for their budgets.

use async_trait::async_trait;
use claviger_app::hint_budget::HintRecord;
use claviger_app::ports::{HintRecords, StoreError};
use claviger_domain::values::AccountId;

use super::DynamoStore;
use super::items::{document, number, text, unavailable};
use super::names::{self, DOC, EXPIRES_AT};

/// A budget is counted in minutes. That events come at all is looked up long after the last one did: keys change
/// seldom.
const KEPT_SECONDS: i64 = 400 * 24 * 60 * 60;

#[async_trait]
impl HintRecords for DynamoStore {
    async fn hints_of(&self, account: &AccountId) -> Result<Option<HintRecord>, StoreError> {
        self.load(&names::hints(account)).await
    }

    async fn save_hints(
        &self,
        account: &AccountId,
        previous: Option<&HintRecord>,
        next: &HintRecord,
    ) -> Result<(), StoreError> {
        let expires = next.planned_at.as_second().saturating_add(KEPT_SECONDS);
        let row = document(&names::hints(account), next, [(EXPIRES_AT, number(expires))])?;
        let put = self.client.put_item().table_name(&self.tables.control).set_item(Some(row));
        let put = match previous {
            None => put.condition_expression("attribute_not_exists(pk)"),
            Some(previous) => {
                let known = serde_json::to_string(previous).map_err(|error| StoreError::Corrupt {
                    reason: format!("hints of {account}: {error}"),
                })?;
                put.condition_expression("#doc = :known")
                    .expression_attribute_names("#doc", DOC)
                    .expression_attribute_values(":known", text(known))
            }
        };
        put.send().await.map(drop).map_err(|error| unavailable(&error))
    }
}
