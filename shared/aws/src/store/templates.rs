//! Key-policy templates.

use async_trait::async_trait;
use claviger_app::ports::{PublishedTemplate, StoreError, Templates};

use super::items::{aggregate, document, unavailable};
use super::pages::{Direction, Range};
use super::{DynamoStore, names};

#[async_trait]
impl Templates for DynamoStore {
    async fn templates(&self) -> Result<Vec<PublishedTemplate>, StoreError> {
        let range = Range {
            table: &self.tables.control,
            pk: names::TEMPLATES.to_owned(),
            prefix: "",
            direction: Direction::Forward,
        };
        self.items(&range, None, None).await?.iter().map(aggregate).collect()
    }

    async fn add_template(&self, template: &PublishedTemplate) -> Result<(), StoreError> {
        let item = document(&names::template(&template.template.version), template, [])?;
        self.client
            .put_item()
            .table_name(&self.tables.control)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(pk)")
            .send()
            .await
            .map(drop)
            .map_err(|error| unavailable(&error))
    }

    async fn save_progress(&self, template: &PublishedTemplate) -> Result<(), StoreError> {
        let item = document(&names::template(&template.template.version), template, [])?;
        let put = self.client.put_item().table_name(&self.tables.control).set_item(Some(item));
        put.send().await.map(drop).map_err(|error| unavailable(&error))
    }
}
