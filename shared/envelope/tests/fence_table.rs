//! The fence as the control plane writes it, read from a DynamoDB.
#![cfg(feature = "aws")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use claviger_envelope::aws::FenceTable;
use claviger_envelope::fence::{FencedPolicy, WatchedShard};
use claviger_envelope::{FenceReader, FenceSnapshot};
use dynoxide::Database;

const COPIES: u32 = 3;

async fn table() -> Client {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(dynoxide::server::serve_on(listener, Database::memory().unwrap()));
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .endpoint_url(endpoint)
        .build();
    let client = Client::from_conf(config);
    let mut table =
        client.create_table().table_name("claviger-fence").billing_mode(BillingMode::PayPerRequest);
    for (name, kind) in [("copy", KeyType::Hash), ("item", KeyType::Range)] {
        let attribute = AttributeDefinition::builder()
            .attribute_name(name)
            .attribute_type(ScalarAttributeType::S)
            .build()
            .unwrap();
        let key = KeySchemaElement::builder().attribute_name(name).key_type(kind).build().unwrap();
        table = table.attribute_definitions(attribute).key_schema(key);
    }
    table.send().await.unwrap();
    client
}

async fn put(client: &Client, item: &str, attributes: &[(&str, AttributeValue)]) {
    put_copies(client, COPIES, item, attributes).await;
}

async fn put_copies(client: &Client, copies: u32, item: &str, attributes: &[(&str, AttributeValue)]) {
    for copy in 0..copies {
        let mut put = client
            .put_item()
            .table_name("claviger-fence")
            .item("copy", s(&copy.to_string()))
            .item("item", s(item));
        for (name, value) in attributes {
            put = put.item(*name, value.clone());
        }
        put.send().await.unwrap();
    }
}

fn s(value: &str) -> AttributeValue {
    AttributeValue::S(value.into())
}

fn n(value: i64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

fn sorted(mut snapshot: FenceSnapshot) -> FenceSnapshot {
    snapshot.policies.sort_by(|a, b| a.policy_id.cmp(&b.policy_id));
    snapshot.shards.sort_by_key(|shard| shard.shard);
    snapshot
}

#[tokio::test]
async fn the_library_reads_the_fence_as_the_control_plane_writes_it() {
    let client = table().await;
    let at = "2026-11-22T03:04:05.006Z";
    put(
        &client,
        "policy#closed",
        &[
            ("organisation", s("o1")),
            ("epoch", n(3)),
            ("causes", AttributeValue::Ss(vec!["key".into(), "vendor".into()])),
            ("minWriteGeneration", n(0)),
            ("changedAt", s(at)),
        ],
    )
    .await;
    put(
        &client,
        "policy#reopened",
        &[
            ("organisation", s("o2")),
            ("epoch", n(5)),
            ("minWriteGeneration", n(2)),
            ("changedAt", s(at)),
            ("expiresAt", n(1_795_400_000)),
        ],
    )
    .await;
    let watched = |shard, unproven: &[&str]| WatchedShard {
        shard,
        watched_until: 1_795_316_645_006,
        unproven: unproven.iter().map(|id| (*id).to_owned()).collect(),
    };
    let shards = [watched(0, &[]), watched(7, &["p8", "p9"])];
    for shard in &shards {
        let unproven = shard.unproven.iter().map(|id| s(id)).collect();
        put(
            &client,
            &format!("shard#{:03}", shard.shard),
            &[
                ("sweptAt", n(1_795_316_575_006)),
                ("watchedUntil", n(shard.watched_until)),
                ("unproven", AttributeValue::L(unproven)),
            ],
        )
        .await;
    }
    let policy = |id: &str, organisation: &str, epoch, closed, min_write_generation| FencedPolicy {
        policy_id: id.into(),
        organisation_id: organisation.into(),
        epoch,
        closed,
        min_write_generation,
    };
    let expected = FenceSnapshot {
        policies: vec![policy("closed", "o1", 3, true, 0), policy("reopened", "o2", 5, false, 2)],
        shards: shards.into(),
    };
    // Whichever copy a process happens to read.
    for _ in 0..8 {
        let fence = FenceTable::with_client(client.clone(), "claviger-fence", COPIES);
        assert_eq!(sorted(fence.read().await.unwrap()), expected);
    }
}

#[tokio::test]
async fn i1_a_fence_of_several_pages_is_read_to_its_end() {
    let client = table().await;
    // More than the megabyte that one answer holds.
    let long: Vec<_> = (0..800).map(|n| s(&format!("{n:0>36}"))).collect();
    for shard in 0..40 {
        let attributes =
            [("watchedUntil", n(1)), ("sweptAt", n(0)), ("unproven", AttributeValue::L(long.clone()))];
        put_copies(&client, 1, &format!("shard#{shard:03}"), &attributes).await;
    }
    let read = FenceTable::with_client(client, "claviger-fence", 1).read().await.unwrap();
    assert_eq!(read.shards.len(), 40);
    assert!(read.shards.iter().all(|shard| shard.unproven.len() == 800));
}

#[tokio::test]
async fn i1_an_item_that_cannot_be_read_fails_the_whole_read() {
    let client = table().await;
    put(&client, "policy#odd", &[("organisation", s("o1")), ("epoch", s("three"))]).await;
    assert!(FenceTable::with_client(client, "claviger-fence", COPIES).read().await.is_err());
}
