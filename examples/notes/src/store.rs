//! The app's own table: records as the library made them, nothing in the clear.

use aws_config::SdkConfig;
use aws_sdk_dynamodb::error::DisplayErrorContext;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;

/// Why the table did not serve.
#[derive(Debug, thiserror::Error)]
#[error("the notes table failed: {0}")]
pub struct StoreError(String);

/// The table of notes.
#[derive(Clone)]
pub struct NotesTable {
    client: aws_sdk_dynamodb::Client,
    table: String,
}

fn key(organisation: &str, site: &str) -> AttributeValue {
    AttributeValue::S(format!("{organisation}/{site}"))
}

impl NotesTable {
    /// A table of this name.
    pub fn new(aws: &SdkConfig, table: &str) -> Self {
        Self { client: aws_sdk_dynamodb::Client::new(aws), table: table.to_owned() }
    }

    /// Stores a record; acknowledged only when it is stored.
    pub async fn put(
        &self,
        organisation: &str,
        site: &str,
        id: &str,
        record: Vec<u8>,
    ) -> Result<(), StoreError> {
        let put = self.client.put_item().table_name(&self.table);
        put.item("pk", key(organisation, site))
            .item("sk", AttributeValue::S(id.to_owned()))
            .item("record", AttributeValue::B(Blob::new(record)))
            .send()
            .await
            .map_err(|error| StoreError(DisplayErrorContext(error).to_string()))?;
        Ok(())
    }

    /// A record, if there is one.
    pub async fn get(&self, organisation: &str, site: &str, id: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let get = self.client.get_item().table_name(&self.table).consistent_read(true);
        let found = get
            .key("pk", key(organisation, site))
            .key("sk", AttributeValue::S(id.to_owned()))
            .send()
            .await
            .map_err(|error| StoreError(DisplayErrorContext(error).to_string()))?;
        Ok(match found.item.and_then(|mut item| item.remove("record")) {
            Some(AttributeValue::B(record)) => Some(record.into_inner()),
            _ => None,
        })
    }
}
