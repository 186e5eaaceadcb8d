//! `DynamoDbRecords` on a table like that of `examples/notes`, and on one that is scanned.

use super::*;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use claviger_reencrypt::aws::{DynamoDbLayout, DynamoDbRecords, open};
use claviger_reencrypt::{RecordStoreError, RewriteError};
use dynoxide::Database;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

struct Table {
    client: Client,
    config: SdkConfig,
    server: Option<JoinHandle<()>>,
}

impl Drop for Table {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

impl Table {
    async fn new(name: &str, keys: &[&str]) -> Self {
        let (config, server) = match std::env::var("CLAVIGER_TEST_DYNAMODB") {
            Ok(endpoint) => (sdk_config(&endpoint), None),
            Err(_) => {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let endpoint = format!("http://{}", listener.local_addr().unwrap());
                let server = dynoxide::server::serve_on(listener, Database::memory().unwrap());
                (sdk_config(&endpoint), Some(tokio::spawn(server)))
            }
        };
        let client = Client::new(&config);
        let mut create = client.create_table().table_name(name).billing_mode(BillingMode::PayPerRequest);
        for (key, kind) in keys.iter().zip([KeyType::Hash, KeyType::Range]) {
            let attribute =
                AttributeDefinition::builder().attribute_name(*key).attribute_type(ScalarAttributeType::S);
            create = create
                .attribute_definitions(attribute.build().unwrap())
                .key_schema(KeySchemaElement::builder().attribute_name(*key).key_type(kind).build().unwrap());
        }
        create.send().await.unwrap();
        Self { client, config, server }
    }

    /// The app's own write, which moves its own version.
    async fn put(&self, pk: &str, sk: &str, record: Vec<u8>) {
        self.client
            .update_item()
            .table_name("notes")
            .key("pk", text(pk))
            .key("sk", text(sk))
            .update_expression("SET #record = :record, title = :title ADD version :one")
            .expression_attribute_names("#record", "record")
            .expression_attribute_values(":record", AttributeValue::B(Blob::new(record)))
            .expression_attribute_values(":title", text("of the app"))
            .expression_attribute_values(":one", AttributeValue::N("1".into()))
            .send()
            .await
            .unwrap();
    }

    async fn get(&self, pk: &str, sk: &str) -> std::collections::HashMap<String, AttributeValue> {
        let get = self.client.get_item().table_name("notes").consistent_read(true);
        get.key("pk", text(pk)).key("sk", text(sk)).send().await.unwrap().item.unwrap()
    }

    async fn delete(&self, pk: &str, sk: &str) {
        let delete = self.client.delete_item().table_name("notes");
        delete.key("pk", text(pk)).key("sk", text(sk)).send().await.unwrap();
    }
}

const NOTES: &str = r#"[{"app": "jira", "dynamodb": {"table": "notes", "partition": "{organisation}/{site}",
    "sort": "{record}", "dataType": "note"}}]"#;

async fn notes() -> (App, Table, Arc<dyn RecordStore>, BTreeSet<String>) {
    let (app, table) = (App::new(), Table::new("notes", &["pk", "sk"]).await);
    let mut expected = BTreeSet::new();
    for n in 0..40 {
        let id =
            if n % 2 == 0 { format!("{:032x}", n * 0x0FFF_FFFF_FFFF_u64) } else { format!("Note {n} é/#") };
        table.put("acme/acme-eng", &id, app.seal(&id, id.as_bytes()).await).await;
        expected.insert(id);
    }
    table.put("acme/acme-ops", "n-1", app.seal("n-1", b"another site").await).await;
    // Not a record: the app keeps other things beside them.
    let settings = table.client.put_item().table_name("notes");
    let settings = settings.item("pk", text("acme/acme-eng")).item("sk", text("settings"));
    settings.send().await.unwrap();
    let store = open(NOTES, &table.config).unwrap().remove("jira").unwrap();
    (app, table, store, expected)
}

#[tokio::test]
async fn x2_every_record_of_a_table_is_found_once_whatever_the_shards() {
    let (_app, _table, store, expected) = notes().await;
    finds_every_record_once(&store, &expected).await;
    assert_eq!(ids(&all(&store, &other_place(), 4, 3).await), ["n-1".to_owned()].into());
    assert_eq!(store.estimate(&place()).await, Ok(None));
}

#[tokio::test]
async fn i8_an_update_of_a_table_is_conditional_on_the_header_and_touches_one_attribute() {
    let (app, table, store, _) = notes().await;
    let records = all(&store, &place(), 1, 100).await;
    let (first, gone) = (&records[0], &records[1]);
    let before = table.get("acme/acme-eng", &first.record_id).await;
    table.delete("acme/acme-eng", &gone.record_id).await;
    replaces_only_what_it_read(&store, &app, first, gone).await;
    let after = table.get("acme/acme-eng", &first.record_id).await;
    assert_ne!(after["record"], before["record"]);
    assert_eq!((&after["version"], &after["title"]), (&before["version"], &before["title"]));
    assert_eq!(after.len(), before.len());
    let gone = table.client.get_item().table_name("notes").key("pk", text("acme/acme-eng"));
    assert_eq!(gone.key("sk", text(&records[1].record_id)).send().await.unwrap().item, None);
}

#[tokio::test]
async fn x1_a_table_is_re_encrypted_while_the_app_writes() {
    let (app, table, store, expected) = notes().await;
    app.cloud.min_write_generation("acme", 2);
    // A page is read, then the app writes, then the page is worked: what the app wrote stays.
    let stale = all(&store, &place(), 1, 100).await;
    app.envelope.poll().await.unwrap();
    table.put("acme/acme-eng", &stale[0].record_id, app.seal(&stale[0].record_id, b"newer").await).await;
    let resealed = app.seal(&stale[0].record_id, b"an old text").await;
    assert_eq!(store.replace(&stale[0], resealed).await, Ok(Replaced::Changed));

    assert_eq!(app.through(&store, 3, Mode::Scan).await.old, 39);
    let done = app.through(&store, 3, Mode::Rewrite).await;
    assert_eq!((done.seen, done.rewritten, done.current), (40, 39, 1));
    let clean = app.through(&store, 1, Mode::Scan).await;
    assert_eq!((clean.seen, clean.old, clean.current), (40, 0, 40));
    for id in &expected {
        let item = table.get("acme/acme-eng", id).await;
        let record = item["record"].as_b().unwrap().as_ref();
        assert_eq!(generation_of(record), Ok(2));
        let text = if *id == stale[0].record_id { b"newer".to_vec() } else { id.clone().into_bytes() };
        assert_eq!(app.open(id, record).await, text);
    }
    let other = table.get("acme/acme-ops", "n-1").await;
    assert_eq!(generation_of(other["record"].as_b().unwrap().as_ref()), Ok(1), "another site's record");
}

#[tokio::test]
async fn x2_a_table_with_a_partition_for_each_record_is_scanned_in_segments() {
    let (app, table) = (App::new(), Table::new("pages", &["id"]).await);
    let layout = r#"{"table": "pages", "partitionKey": "id", "sortKey": null, "attribute": "body",
        "partition": "{organisation}/{site}/{type}/{record}"}"#;
    let layout: DynamoDbLayout = serde_json::from_str(layout).unwrap();
    for n in 0..30 {
        let (site, id) = (if n % 3 == 0 { "acme-ops" } else { "acme-eng" }, format!("n-{n}"));
        let item = table.client.put_item().table_name("pages");
        let item = item.item("id", text(&format!("acme/{site}/note/{id}")));
        let record = AttributeValue::B(Blob::new(app.seal(&id, b"x").await));
        item.item("body", record).send().await.unwrap();
    }
    let store: Arc<dyn RecordStore> = Arc::new(DynamoDbRecords::new(table.client.clone(), layout));
    let expected = (0..30).filter(|n| n % 3 != 0).map(|n| format!("n-{n}")).collect();
    finds_every_record_once(&store, &expected).await;
    app.cloud.min_write_generation("acme", 2);
    assert_eq!(app.through(&store, 4, Mode::Rewrite).await.rewritten, 20);
    assert_eq!(app.through(&store, 1, Mode::Scan).await.old, 0);
}

#[tokio::test]
async fn x3_a_table_that_is_not_there_and_a_record_that_is_none_are_said() {
    let (app, table, store, _) = notes().await;
    let elsewhere = NOTES.replace("\"notes\"", "\"elsewhere\"");
    let elsewhere = open(&elsewhere, &table.config).unwrap().remove("jira").unwrap();
    let missing = elsewhere.page(&place(), Shard::WHOLE, None, 10).await;
    let reason = "dynamodb:Query: ResourceNotFoundException".to_owned();
    assert_eq!(missing, Err(RecordStoreError::Refused { reason }));
    let rewriter = Rewriter::new(app.envelope.clone(), store);
    let put = table.client.put_item().table_name("notes").item("pk", text("acme/acme-eng"));
    put.item("sk", text("0-clear")).item("record", text("in the clear")).send().await.unwrap();
    let batch = rewriter.batch(&place(), Shard::WHOLE, None, 2, Mode::Scan).await;
    let Err(RewriteError::Store(RecordStoreError::Refused { reason })) = batch else { panic!("{batch:?}") };
    assert!(reason.contains("0-clear") && !reason.contains("in the clear"), "{reason}");
}
