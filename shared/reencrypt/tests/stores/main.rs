//! The stores on AWS: DynamoDB embedded, or the one that `CLAVIGER_TEST_DYNAMODB` names; S3 where `CLAVIGER_TEST_S3`
//! says there is one (`tests/python/test_record_stores.py` starts both on ministack).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use claviger_envelope::testing::TestCloud;
use claviger_envelope::{Config, Context, Envelope, Instance, generation_of};
use claviger_reencrypt::{Batch, Mode, Place, RecordStore, Replaced, Rewriter, Shard, StoredRecord};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

mod dynamodb;
mod s3;

/// A configuration that leads to this endpoint and nowhere else. The access key id is the account.
fn sdk_config(endpoint: &str) -> SdkConfig {
    let account = format!("{:012}", std::process::id());
    let credentials = Credentials::new(account, "test", None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .endpoint_url(endpoint)
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}

fn place() -> Place {
    Place { organisation: "acme".into(), site: "acme-eng".into(), app: "jira".into() }
}

fn other_place() -> Place {
    Place { site: "acme-ops".into(), ..place() }
}

/// An app of acme's, and the cloud that gives it keys.
struct App {
    cloud: Arc<TestCloud>,
    envelope: Envelope,
    acme: Instance,
}

impl App {
    fn new() -> Self {
        let cloud = TestCloud::new();
        let envelope = Envelope::builder()
            .fence(cloud.clone())
            .keys(cloud.clone())
            .config(Config { proof_window: Duration::ZERO, ..Config::default() })
            .clock(cloud.clock.clone())
            .manual()
            .start()
            .unwrap();
        let acme = envelope.instance("acme", "acme-eng", "jira");
        Self { cloud, envelope, acme }
    }

    async fn seal(&self, id: &str, text: &[u8]) -> Vec<u8> {
        self.acme.encrypt(&Context::new("note", id), text).await.unwrap()
    }

    async fn open(&self, id: &str, record: &[u8]) -> Vec<u8> {
        self.acme.decrypt(&Context::new("note", id), record).await.unwrap()
    }

    async fn through(&self, store: &Arc<dyn RecordStore>, of: u32, mode: Mode) -> Batch {
        let rewriter = Rewriter::new(self.envelope.clone(), store.clone());
        let mut total = Batch::default();
        for index in 0..of {
            let mut cursor = None;
            loop {
                let shard = Shard { index, of };
                let batch = rewriter.batch(&place(), shard, cursor.as_deref(), 2, mode).await.unwrap();
                total.seen += batch.seen;
                total.rewritten += batch.rewritten;
                total.current += batch.current;
                total.lost_races += batch.lost_races;
                total.old += batch.old;
                total.old_versions += batch.old_versions;
                cursor = batch.next;
                if cursor.is_none() {
                    break;
                }
            }
        }
        total
    }
}

/// Every record of a place, page by page of a few.
async fn all(store: &Arc<dyn RecordStore>, of: &Place, shards: u32, limit: u32) -> Vec<StoredRecord> {
    let mut records = Vec::new();
    for index in 0..shards {
        let mut cursor = None;
        loop {
            let shard = Shard { index, of: shards };
            let page = store.page(of, shard, cursor.as_deref(), limit).await.unwrap();
            records.extend(page.records);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
    }
    records
}

fn ids(records: &[StoredRecord]) -> BTreeSet<String> {
    records.iter().filter(|record| !record.noncurrent).map(|record| record.record_id.clone()).collect()
}

/// What every store must do, whatever lies below it.
async fn finds_every_record_once(store: &Arc<dyn RecordStore>, expected: &BTreeSet<String>) {
    for (shards, limit) in [(1, 7), (1, 1000), (3, 5), (16, 1000)] {
        let found = all(store, &place(), shards, limit).await;
        assert_eq!(found.len(), expected.len(), "{shards} shards, pages of {limit}");
        assert_eq!(&ids(&found), expected);
        assert!(found.iter().all(|record| record.data_type == "note" && !record.noncurrent));
    }
    assert!(store.page(&place(), Shard::WHOLE, Some("nonsense"), 1).await.is_err());
}

/// A write that lost its race changes nothing, and one that won is the record.
async fn replaces_only_what_it_read(
    store: &Arc<dyn RecordStore>,
    app: &App,
    first: &StoredRecord,
    gone: &StoredRecord,
) {
    let one = app.seal(&first.record_id, b"one").await;
    let two = app.seal(&first.record_id, b"two").await;
    assert_eq!(store.replace(first, one.clone()).await, Ok(Replaced::Done));
    assert_eq!(store.replace(first, two).await, Ok(Replaced::Changed));
    let now = all(store, &place(), 1, 100).await;
    let now = now.iter().find(|record| record.record_id == first.record_id && !record.noncurrent).unwrap();
    assert_eq!(store.whole(now).await.unwrap().unwrap(), one);
    assert_eq!(store.replace(gone, one).await, Ok(Replaced::Gone), "what was deleted does not come back");
}
