//! Many records at once, of one data key and of several.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use claviger_envelope::testing::TestCloud;
use claviger_envelope::{BatchError, Config, Context, Envelope, EnvelopeError, Instance, Unavailable};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

fn app_on(cloud: &Arc<TestCloud>) -> (Envelope, Instance) {
    let config = Config { proof_window: Duration::ZERO, ..Config::default() };
    let client = Envelope::builder().fence(cloud.clone()).keys(cloud.clone()).config(config);
    let client = client.clock(cloud.clock.clone()).manual().start().unwrap();
    let acme = client.instance("acme", "acme-eng", "jira");
    (client, acme)
}

fn ids(many: usize) -> Vec<String> {
    (0..many).map(|n| format!("n-{n}")).collect()
}

fn text(n: usize) -> Vec<u8> {
    format!("the text of note {n}").into_bytes()
}

type Batch<'a> = Vec<(Context<'a>, &'a [u8])>;

fn batch<'a>(ids: &'a [String], records: &'a [Vec<u8>]) -> Batch<'a> {
    ids.iter().zip(records).map(|(id, record)| (Context::new("note", id), record.as_slice())).collect()
}

/// Records under three data keys, in turn, in a process that has met none of them.
async fn of_three_data_keys(cloud: &Arc<TestCloud>, ids: &[String]) -> Vec<Vec<u8>> {
    let mut writers = Vec::new();
    for _ in 0..3 {
        let (client, acme) = app_on(cloud);
        acme.encrypt(&Context::new("note", "first"), b"x").await.unwrap();
        cloud.rotate(acme.name());
        writers.push((client, acme));
    }
    let mut sealed = Vec::new();
    for (n, id) in ids.iter().enumerate() {
        let (_, acme) = &writers[n % 3];
        sealed.push(acme.try_encrypt(&Context::new("note", id), &text(n)).unwrap());
    }
    sealed
}

#[tokio::test]
async fn what_a_batch_sealed_is_read_one_by_one_and_the_other_way_round() {
    let cloud = TestCloud::new();
    let (_client, acme) = app_on(&cloud);
    let ids = ids(200);
    let texts: Vec<Vec<u8>> = (0..200).map(text).collect();
    let sealed = acme.encrypt_batch(&batch(&ids, &texts)).await.unwrap();
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(acme.try_decrypt(&Context::new("note", id), &sealed[n]).unwrap(), texts[n]);
    }
    assert_eq!(acme.decrypt_batch(&batch(&ids, &sealed)).await.unwrap(), texts);
    let mut out = vec![b"before".to_vec()];
    acme.try_decrypt_batch(&batch(&ids, &sealed), &mut out).unwrap();
    assert_eq!((out.len(), out[0].as_slice()), (201, &b"before"[..]), "appended");
    assert_eq!(out[1..], texts[..]);
    assert_eq!(acme.decrypt_batch(&[]).await, Ok(Vec::new()));
    assert_eq!(acme.encrypt_batch(&[]).await, Ok(Vec::new()));
}

#[tokio::test]
async fn i6_records_of_several_data_keys_come_back_in_their_order_for_one_request_a_key() {
    let cloud = TestCloud::new();
    let ids = ids(100);
    let sealed = of_three_data_keys(&cloud, &ids).await;
    let (client, acme) = app_on(&cloud);
    let before = cloud.fetches.load(Ordering::SeqCst);
    let opened = acme.decrypt_batch(&batch(&ids, &sealed)).await.unwrap();
    assert_eq!(opened, (0..100).map(text).collect::<Vec<_>>());
    assert_eq!(cloud.fetches.load(Ordering::SeqCst) - before, 3);
    acme.decrypt_batch(&batch(&ids, &sealed)).await.unwrap();
    assert_eq!(cloud.fetches.load(Ordering::SeqCst) - before, 3);
    assert_eq!(client.metrics().misses, 1, "it was begun anew once");
    assert_eq!(client.metrics().hits, 200);
}

#[tokio::test]
async fn a_large_batch_is_done_in_turns() {
    let cloud = TestCloud::new();
    let (_client, acme) = app_on(&cloud);
    let ids = ids(9);
    let texts: Vec<Vec<u8>> = (0..9_u8).map(|n| vec![n; 700_000]).collect();
    let sealed = acme.encrypt_batch(&batch(&ids, &texts)).await.unwrap();
    assert_eq!(sealed.len(), 9);
    assert_eq!(acme.decrypt_batch(&batch(&ids, &sealed)).await.unwrap(), texts);
}

#[tokio::test]
async fn an_error_says_which_record_and_nothing_of_the_others_comes_out() {
    let cloud = TestCloud::new();
    let ids = ids(60);
    let sealed = of_three_data_keys(&cloud, &ids).await;
    let (client, acme) = app_on(&cloud);
    acme.decrypt_batch(&batch(&ids, &sealed)).await.unwrap();
    let swapped = {
        let mut swapped = sealed.clone();
        swapped.swap(10, 40);
        swapped
    };
    let with = |n: usize, record: Vec<u8>| {
        let mut changed = sealed.clone();
        changed[n] = record;
        changed
    };
    let stranger = {
        let mut record = sealed[33].clone();
        record[5] ^= 1;
        record
    };
    let stream = acme.encrypt_stream(&Context::new("note", "n-7")).await.unwrap();
    let mut streamed = stream.header().to_vec();
    stream.finish(&mut streamed).await.unwrap();
    let cases = [
        (with(0, Vec::new()), 0, EnvelopeError::MalformedRecord { why: "it is empty" }),
        (
            with(59, sealed[59][..50].to_vec()),
            59,
            EnvelopeError::MalformedRecord { why: "it is shorter than its header" },
        ),
        (with(7, streamed), 7, EnvelopeError::MalformedRecord { why: "it is a stream, not a single record" }),
        (with(33, stranger), 33, EnvelopeError::UnknownDataKey),
        (swapped, 10, EnvelopeError::TamperedOrWrongContext),
    ];
    for (records, record, expected) in cases {
        let refused = acme.decrypt_batch(&batch(&ids, &records)).await.unwrap_err();
        assert_eq!((refused.record, refused.error.slug()), (record, expected.slug()), "{refused:?}");
        let mut out = vec![b"before".to_vec()];
        let refused = acme.try_decrypt_batch(&batch(&ids, &records), &mut out).unwrap_err();
        assert_eq!(refused.record, record);
        assert_eq!(out, [b"before"]);
    }
    assert_eq!(client.metrics().refusals["tampered-or-wrong-context"], 2);
    assert_eq!(client.metrics().refusals["unknown-data-key"], 1, "that a key is not cached is no refusal");

    let big = vec![0; 16 * 1024 * 1024 + 1];
    let mut out = Vec::new();
    let records: Batch<'_> = vec![(Context::new("note", "a"), b"a"), (Context::new("note", "b"), &big)];
    let refused = acme.try_encrypt_batch(&records, &mut out).unwrap_err();
    let expected = EnvelopeError::TooLarge { bytes: big.len(), most: 16 * 1024 * 1024 };
    assert_eq!(refused, BatchError { record: 1, error: expected });
    assert!(out.is_empty());
    assert_eq!(refused.to_string(), "record 1 of the batch");
}

#[tokio::test]
async fn i1_a_batch_gives_nothing_out_without_a_lease_or_behind_a_closed_fence() {
    let cloud = TestCloud::new();
    let ids = ids(30);
    let sealed = of_three_data_keys(&cloud, &ids).await;
    let (client, acme) = app_on(&cloud);
    let texts = acme.decrypt_batch(&batch(&ids, &sealed)).await.unwrap();
    cloud.clock.advance(30_000);
    let mut out = Vec::new();
    let lease = EnvelopeError::TemporarilyUnavailable { reason: Unavailable::Lease };
    let refused = acme.try_decrypt_batch(&batch(&ids, &sealed), &mut out).unwrap_err();
    assert_eq!(refused.error, lease);
    let refused = acme.try_encrypt_batch(&batch(&ids, &texts), &mut out).unwrap_err();
    assert_eq!(refused.error, lease);
    assert_eq!(
        acme.decrypt_batch(&batch(&ids, &sealed)).await.unwrap(),
        texts,
        "a read of the fence heals it"
    );
    cloud.close("acme");
    client.poll().await.unwrap();
    for _ in 0..2 {
        let refused = acme.decrypt_batch(&batch(&ids, &sealed)).await.unwrap_err();
        assert_eq!(refused.error, EnvelopeError::Suspended);
        let refused = acme.encrypt_batch(&batch(&ids, &texts)).await.unwrap_err();
        assert_eq!(refused.error, EnvelopeError::Suspended);
    }
    assert!(out.is_empty());
}
