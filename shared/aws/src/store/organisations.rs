//! Organisations.

use async_trait::async_trait;
use claviger_app::ports::{Organisations, StoreError};
use claviger_domain::organisation::Organisation;
use claviger_domain::values::OrganisationName;

use super::items::{document, text, unavailable};
use super::{DynamoStore, names};

#[async_trait]
impl Organisations for DynamoStore {
    async fn organisation(&self, name: &OrganisationName) -> Result<Option<Organisation>, StoreError> {
        self.load(&names::organisation(name)).await
    }

    async fn save_organisation(&self, organisation: &Organisation) -> Result<(), StoreError> {
        let key = names::organisation(&organisation.name);
        let item = document(
            &key,
            organisation,
            [("id", text(organisation.id)), ("externalId", text(organisation.external_id.as_str()))],
        )?;
        self.client
            .put_item()
            .table_name(&self.tables.control)
            .set_item(Some(item))
            // INVARIANT (I7): encryption contexts and key policies carry the id, and the customer's role the external
            // id, so neither ever changes.
            .condition_expression("attribute_not_exists(pk) OR (#id = :id AND #external = :external)")
            .expression_attribute_names("#id", "id")
            .expression_attribute_names("#external", "externalId")
            .expression_attribute_values(":id", text(organisation.id))
            .expression_attribute_values(":external", text(organisation.external_id.as_str()))
            .send()
            .await
            .map(drop)
            .map_err(|error| unavailable(&error))
    }
}
