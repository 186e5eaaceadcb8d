//! The app's own table: records as the library made them, nothing in the clear. Beside each record a version,
//! which only the app moves: a re-encryption replaces the record and nothing else.

use aws_config::SdkConfig;
use aws_sdk_dynamodb::error::DisplayErrorContext;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use claviger_envelope::{EnvelopeError, Instance};

/// Why the table did not serve.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The record must not be stored; nothing was.
    #[error("the record must not be stored")]
    NotThis(#[source] EnvelopeError),
    #[error("the notes table failed: {0}")]
    Table(String),
}

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
    ///
    /// Unconditional towards a re-encryption, whose own write is the conditional one: so the app always wins, and
    /// what was acknowledged is never written over. What the app must see to is that it stores nothing stale: a
    /// record that was sealed before the generation changed, by a process that did not know, or held up on its way.
    pub async fn put(&self, of: &Instance, id: &str, record: &[u8]) -> Result<(), StoreError> {
        of.may_store(record).await.map_err(StoreError::NotThis)?;
        let name = of.name();
        let update = self.client.update_item().table_name(&self.table);
        update
            .key("pk", key(&name.organisation, &name.site))
            .key("sk", AttributeValue::S(id.to_owned()))
            .update_expression("SET #record = :record ADD #version :one")
            .expression_attribute_names("#record", "record")
            .expression_attribute_names("#version", "version")
            .expression_attribute_values(":record", AttributeValue::B(Blob::new(record)))
            .expression_attribute_values(":one", AttributeValue::N("1".to_owned()))
            .send()
            .await
            .map_err(|error| StoreError::Table(DisplayErrorContext(error).to_string()))?;
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
            .map_err(|error| StoreError::Table(DisplayErrorContext(error).to_string()))?;
        Ok(match found.item.and_then(|mut item| item.remove("record")) {
            Some(AttributeValue::B(record)) => Some(record.into_inner()),
            _ => None,
        })
    }
}
