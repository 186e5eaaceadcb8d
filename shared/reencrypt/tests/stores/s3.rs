//! `S3Records` on a bucket with versions and on one without.

use super::*;
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    BucketLocationConstraint, BucketVersioningStatus, CreateBucketConfiguration, VersioningConfiguration,
};
use claviger_reencrypt::aws::{S3Layout, S3Records, s3_client};

fn layout(bucket: &str) -> S3Layout {
    let layout = format!(
        r#"{{"bucket": "{bucket}", "object": "{{organisation}}/{{site}}/{{app}}/{{type}}/{{record}}"}}"#
    );
    serde_json::from_str(&layout).unwrap()
}

struct Bucket {
    client: Client,
    name: &'static str,
}

impl Bucket {
    async fn new(name: &'static str, versions: bool) -> Self {
        let endpoint = std::env::var("CLAVIGER_TEST_S3").unwrap();
        let client = s3_client(&sdk_config(&endpoint));
        let there = CreateBucketConfiguration::builder()
            .location_constraint(BucketLocationConstraint::EuCentral1)
            .build();
        client.create_bucket().bucket(name).create_bucket_configuration(there).send().await.unwrap();
        if versions {
            let on = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
            client.put_bucket_versioning().bucket(name).versioning_configuration(on).send().await.unwrap();
        }
        Self { client, name }
    }

    fn store(&self) -> Arc<dyn RecordStore> {
        Arc::new(S3Records::new(self.client.clone(), layout(self.name)))
    }

    fn key(id: &str) -> String {
        format!("acme/acme-eng/jira/note/{id}")
    }

    async fn put(&self, id: &str, record: Vec<u8>) {
        self.client
            .put_object()
            .bucket(self.name)
            .key(Self::key(id))
            .content_type("application/x-note")
            .metadata("version", "7")
            .tagging("kind=a%20note&team=x")
            .body(ByteStream::from(record))
            .send()
            .await
            .unwrap();
    }

    async fn get(&self, id: &str) -> Vec<u8> {
        let get = self.client.get_object().bucket(self.name).key(Self::key(id)).send().await.unwrap();
        get.body.collect().await.unwrap().to_vec()
    }
}

/// Some are small enough to be read with the page, some are not, one is a stream.
async fn fill(app: &App, bucket: &Bucket) -> BTreeSet<String> {
    let mut expected = BTreeSet::new();
    for n in 0..20_usize {
        let id = format!("n-{n}/a b");
        let plain = vec![7; if n % 5 == 0 { 40_000 } else { n }];
        bucket.put(&id, app.seal(&id, &plain).await).await;
        expected.insert(id);
    }
    let mut stream = app.acme.encrypt_stream(&Context::new("note", "stream")).await.unwrap();
    let mut bytes = stream.header().to_vec();
    stream.update(&[9; 150_000], &mut bytes).await.unwrap();
    stream.finish(&mut bytes).await.unwrap();
    bucket.put("stream", bytes).await;
    expected.insert("stream".into());
    let stranger = bucket.client.put_object().bucket(bucket.name).key("acme/acme-ops/jira/note/n-1");
    stranger.body(ByteStream::from(vec![1])).send().await.unwrap();
    expected
}

#[tokio::test]
#[ignore = "needs an S3: tests/python/test_record_stores.py"]
async fn x2_every_object_of_a_bucket_is_found_once_whatever_the_shards() {
    let app = App::new();
    let bucket = Bucket::new("each-once", true).await;
    let expected = fill(&app, &bucket).await;
    finds_every_record_once(&bucket.store(), &expected).await;
    // Without versions ministack begins a page with what the one before ended with; AWS does not.
    let bucket = Bucket::new("plain", false).await;
    fill(&app, &bucket).await;
    assert_eq!(ids(&all(&bucket.store(), &place(), 1, 7).await), expected);
    assert_eq!(all(&bucket.store(), &place(), 1, 1000).await.len(), expected.len());
}

#[tokio::test]
#[ignore = "needs an S3: tests/python/test_record_stores.py"]
async fn i8_a_write_of_an_object_is_conditional_and_keeps_what_the_app_gave_it() {
    for (name, versions) in [("cond-plain", false), ("cond-versions", true)] {
        let (app, bucket) = (App::new(), Bucket::new(name, versions).await);
        fill(&app, &bucket).await;
        let store = bucket.store();
        let records = all(&store, &place(), 1, 100).await;
        let (first, gone) = (&records[0], &records[1]);
        let delete = bucket.client.delete_object().bucket(name).key(Bucket::key(&gone.record_id));
        delete.send().await.unwrap();
        replaces_only_what_it_read(&store, &app, first, gone).await;
        let key = Bucket::key(&first.record_id);
        let head = bucket.client.head_object().bucket(name).key(&key).send().await.unwrap();
        assert_eq!(head.content_type(), Some("application/x-note"));
        assert_eq!(head.metadata().unwrap()["version"], "7", "the app's own version");
        let tags = bucket.client.get_object_tagging().bucket(name).key(&key).send().await.unwrap();
        let tags: BTreeSet<_> = tags.tag_set().iter().map(|tag| (tag.key(), tag.value())).collect();
        assert_eq!(tags, [("kind", "a note"), ("team", "x")].into());
    }
}

#[tokio::test]
#[ignore = "needs an S3: tests/python/test_record_stores.py"]
async fn x4_a_bucket_is_re_encrypted_and_its_old_versions_are_counted() {
    let (app, bucket) = (App::new(), Bucket::new("versions", true).await);
    let expected = fill(&app, &bucket).await;
    let store = bucket.store();
    app.cloud.min_write_generation("acme", 2);
    app.envelope.poll().await.unwrap();
    // Read before the app wrote: the app's object stays.
    let stale = all(&store, &place(), 1, 100).await.remove(0);
    bucket.put(&stale.record_id, app.seal(&stale.record_id, b"newer").await).await;
    let resealed = app.seal(&stale.record_id, b"an old text").await;
    assert_eq!(store.replace(&stale, resealed).await, Ok(Replaced::Changed));
    assert_eq!(store.whole(&stale).await, Ok(None));
    assert_eq!(app.open(&stale.record_id, &bucket.get(&stale.record_id).await).await, b"newer");

    let found = app.through(&store, 2, Mode::Scan).await;
    assert_eq!((found.seen, found.old, found.old_versions), (21, 20, 1));
    let done = app.through(&store, 2, Mode::Rewrite).await;
    assert_eq!((done.seen, done.rewritten, done.current, done.lost_races), (21, 20, 1, 0));
    let clean = app.through(&store, 1, Mode::Scan).await;
    assert_eq!((clean.seen, clean.old, clean.old_versions), (21, 0, 21), "each rewrite leaves one behind");
    for id in &expected {
        assert_eq!(generation_of(&bucket.get(id).await), Ok(2));
    }
    assert_eq!(app.open("n-10/a b", &bucket.get("n-10/a b").await).await, vec![7; 40_000]);
}
