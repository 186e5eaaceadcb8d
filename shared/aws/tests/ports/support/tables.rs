//! Our tables in an embedded DynamoDB, or in the one that `CLAVIGER_TEST_DYNAMODB` names.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType,
    Projection, ProjectionType, ScalarAttributeType,
};
use claviger_aws::store::{DynamoStore, Tables};
use dynoxide::Database;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Copies of the fence in tests.
pub const COPIES: u16 = 3;

/// A store and the DynamoDB below it, which ends with it.
pub struct World {
    pub store: DynamoStore,
    pub client: Client,
    server: Option<JoinHandle<()>>,
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

/// An account of its own for each world, so that the tables are empty in a DynamoDB that goes on.
fn new_account() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{:07}{:05}", std::process::id() % 10_000_000, count % 100_000)
}

fn attribute(name: &str) -> AttributeDefinition {
    let built =
        AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S).build();
    built.unwrap()
}

fn schema(hash: &str, range: &str) -> Vec<KeySchemaElement> {
    [(hash, KeyType::Hash), (range, KeyType::Range)]
        .map(|(name, kind)| KeySchemaElement::builder().attribute_name(name).key_type(kind).build().unwrap())
        .into()
}

async fn create(client: &Client, name: &str, hash: &str, range: &str, due: bool) {
    let mut table = client
        .create_table()
        .table_name(name)
        .billing_mode(BillingMode::PayPerRequest)
        .attribute_definitions(attribute(hash))
        .attribute_definitions(attribute(range))
        .set_key_schema(Some(schema(hash, range)));
    if due {
        let index = GlobalSecondaryIndex::builder()
            .index_name("due")
            .set_key_schema(Some(schema("dueShard", "dueAt")))
            .projection(Projection::builder().projection_type(ProjectionType::All).build())
            .build()
            .unwrap();
        table = table
            .attribute_definitions(attribute("dueShard"))
            .attribute_definitions(attribute("dueAt"))
            .global_secondary_indexes(index);
    }
    table.send().await.unwrap();
}

impl World {
    /// Empty tables.
    pub async fn new() -> Self {
        let (client, server) = if let Ok(endpoint) = std::env::var("CLAVIGER_TEST_DYNAMODB") {
            (Client::new(&super::sdk_config_as(&new_account(), &endpoint)), None)
        } else {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let endpoint = format!("http://{}", listener.local_addr().unwrap());
            let server = tokio::spawn(dynoxide::server::serve_on(listener, Database::memory().unwrap()));
            (Client::new(&super::sdk_config(&endpoint)), Some(server))
        };
        create(&client, "control", "pk", "sk", true).await;
        create(&client, "facts", "pk", "sk", false).await;
        create(&client, "registry", "pk", "sk", false).await;
        create(&client, "fence", "copy", "item", false).await;
        let tables = Tables {
            control: "control".into(),
            facts: "facts".into(),
            registry: "registry".into(),
            fence: "fence".into(),
        };
        let store = DynamoStore::new(client.clone(), tables, COPIES);
        Self { store, client, server }
    }

    /// An item of the fence in each copy.
    pub async fn fence(&self, item: &str) -> Vec<Option<HashMap<String, AttributeValue>>> {
        let mut copies = Vec::new();
        for copy in 0..COPIES {
            let got = self
                .client
                .get_item()
                .table_name("fence")
                .key("copy", AttributeValue::S(copy.to_string()))
                .key("item", AttributeValue::S(item.to_owned()))
                .consistent_read(true)
                .send()
                .await
                .unwrap();
            copies.push(got.item);
        }
        copies
    }

    /// Everything in a table.
    pub async fn all(&self, table: &str) -> Vec<HashMap<String, AttributeValue>> {
        self.client.scan().table_name(table).send().await.unwrap().items.unwrap_or_default()
    }
}
