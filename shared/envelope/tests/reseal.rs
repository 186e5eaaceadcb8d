//! A record of an old data key becomes one of the current, and stores refuse what is stale.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use claviger_envelope::source::ProofResult;
use claviger_envelope::testing::TestCloud;
use claviger_envelope::{
    Config, Context, Envelope, EnvelopeError, Instance, Unavailable, generation_of, header_digest,
};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const NOTE: Context<'static> = Context::new("note", "n-1");

fn app(cloud: &Arc<TestCloud>) -> (Envelope, Instance) {
    let client = Envelope::builder()
        .fence(cloud.clone())
        .keys(cloud.clone())
        .config(Config { proof_window: Duration::ZERO, ..Config::default() })
        .clock(cloud.clock.clone())
        .manual()
        .start()
        .unwrap();
    let acme = client.instance("acme", "acme-eng", "jira");
    (client, acme)
}

async fn stream(acme: &Instance, plain: &[u8]) -> Vec<u8> {
    let mut writer = acme.encrypt_stream(&NOTE).await.unwrap();
    let mut bytes = writer.header().to_vec();
    writer.update(plain, &mut bytes).await.unwrap();
    writer.finish(&mut bytes).await.unwrap();
    bytes
}

async fn read_stream(acme: &Instance, bytes: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    let mut reader = acme.decrypt_stream(&NOTE, &bytes[..81]).await?;
    let mut plain = Vec::new();
    reader.update(&bytes[81..], &mut plain).await?;
    reader.finish(&mut plain).await?;
    Ok(plain)
}

#[tokio::test]
async fn i6_a_resealed_record_is_of_the_new_generation_and_reads_the_same() {
    let cloud = TestCloud::new();
    let (_, acme) = app(&cloud);
    for size in [0, 1, 100, 1024, 20_000, 1_048_576] {
        let plain: Vec<u8> = (0..size).map(|n: u32| n.to_le_bytes()[0]).collect();
        let (reader, _) = app(&cloud);
        let before = TestCloud::new();
        before.give(acme.name(), uuid::Uuid::now_v7(), 1, [7; 32]);
        let (id, key) = before.raw_keys(acme.name())[0];
        cloud.give(acme.name(), id, 1, key);
        let old = app(&before).1.encrypt(&NOTE, &plain).await.unwrap();
        cloud.min_write_generation("acme", 2);
        let new = acme.reseal(&NOTE, &old, 2).await.unwrap();
        assert_eq!((generation_of(&old), generation_of(&new)), (Ok(1), Ok(2)));
        assert_eq!(new.len(), old.len());
        assert_ne!(header_digest(&old), header_digest(&new));
        let reader = reader.instance("acme", "acme-eng", "jira");
        assert_eq!(reader.decrypt(&NOTE, &new).await.unwrap(), plain);
    }
}

#[tokio::test]
async fn i6_a_resealed_stream_reads_the_same_whatever_its_length() {
    let cloud = TestCloud::new();
    let (client, acme) = app(&cloud);
    let mut old = Vec::new();
    for size in [0, 1, 65_535, 65_536, 65_537, 200_000] {
        let plain: Vec<u8> = (0..size).map(|n: u32| n.to_le_bytes()[1]).collect();
        old.push((stream(&acme, &plain).await, plain));
    }
    cloud.min_write_generation("acme", 2);
    client.poll().await.unwrap();
    for (old, plain) in old {
        let new = acme.reseal(&NOTE, &old, 2).await.unwrap();
        assert_eq!((new.len(), generation_of(&new)), (old.len(), Ok(2)));
        assert_eq!(read_stream(&acme, &new).await.unwrap(), plain);
        let cut = acme.reseal(&NOTE, &old[..old.len() - 1], 2).await;
        assert!(cut.is_err(), "a stream that was cut is no stream to keep: {cut:?}");
    }
}

#[tokio::test]
async fn x3_a_changed_or_foreign_record_is_refused_and_leaves_nothing_in_the_buffer() {
    let cloud = TestCloud::new();
    let (_, acme) = app(&cloud);
    let record = acme.encrypt(&NOTE, b"secret").await.unwrap();
    let stream = stream(&acme, &vec![1; 150_000]).await;
    cloud.min_write_generation("acme", 2);
    let mut out = b"left over".to_vec();
    for at in (0..record.len()).chain([record.len() - 1]) {
        let mut changed = record.clone();
        changed[at] ^= 1;
        assert!(acme.reseal_into(&NOTE, &changed, 2, &mut out).await.is_err(), "byte {at}");
        assert!(out.is_empty());
        cloud.clock.advance(2_000);
    }
    for at in [30, 78, 90, 70_000, 149_999] {
        let mut changed = stream.clone();
        changed[at] ^= 1;
        assert!(acme.reseal_into(&NOTE, &changed, 2, &mut out).await.is_err(), "byte {at} of the stream");
        assert!(out.is_empty());
    }
    let other = Context::new("note", "n-2");
    let moved = acme.reseal_into(&other, &record, 2, &mut out).await;
    assert_eq!(moved, Err(EnvelopeError::TamperedOrWrongContext));
}

#[tokio::test]
async fn i6_without_a_key_of_the_wanted_generation_nothing_is_sealed() {
    let cloud = TestCloud::new();
    let (_, acme) = app(&cloud);
    let old = acme.encrypt(&NOTE, b"secret").await.unwrap();
    let early = acme.reseal(&NOTE, &old, 2).await;
    assert_eq!(early, Err(EnvelopeError::GenerationTooOld { generation: 1, least: 2 }));
    cloud.min_write_generation("acme", 2);
    let new = acme.reseal(&NOTE, &old, 2).await.unwrap();
    assert_eq!(generation_of(&new), Ok(2), "it reads the fence by itself when its key is too old");
}

#[tokio::test]
async fn r7_behind_a_closed_fence_nothing_is_resealed_and_without_a_lease_neither() {
    let cloud = TestCloud::new();
    let (client, acme) = app(&cloud);
    let old = acme.encrypt(&NOTE, b"secret").await.unwrap();
    let mut out = Vec::new();
    acme.try_reseal_into(&NOTE, &old, 1, &mut out).unwrap();
    cloud.clock.advance(30_000);
    let lapsed = acme.try_reseal_into(&NOTE, &old, 1, &mut out);
    assert_eq!(lapsed, Err(EnvelopeError::TemporarilyUnavailable { reason: Unavailable::Lease }));
    assert!(out.is_empty());
    client.poll().await.unwrap();
    acme.try_reseal_into(&NOTE, &old, 1, &mut out).unwrap();
    cloud.close("acme");
    client.poll().await.unwrap();
    assert_eq!(acme.try_reseal_into(&NOTE, &old, 1, &mut out), Err(EnvelopeError::Suspended));
    assert_eq!(acme.reseal(&NOTE, &old, 1).await, Err(EnvelopeError::Suspended));
}

#[tokio::test]
async fn i8_a_stale_writer_is_refused_by_the_store_within_one_lease_and_can_seal_anew() {
    let cloud = TestCloud::new();
    let (_, stale) = app(&cloud);
    let (store_client, store) = app(&cloud);
    let late = stale.encrypt(&NOTE, b"sealed long ago").await.unwrap();
    assert_eq!(store.may_store(&late).await, Ok(()));
    cloud.min_write_generation("acme", 2);
    assert_eq!(store.try_may_store(&late), Ok(()), "until its own read of the fence");
    cloud.clock.advance(30_000);
    let lapsed = store.try_may_store(&late);
    assert_eq!(lapsed, Err(EnvelopeError::TemporarilyUnavailable { reason: Unavailable::Lease }));
    let too_old = Err(EnvelopeError::GenerationTooOld { generation: 1, least: 2 });
    assert_eq!(store.may_store(&late).await, too_old, "no later than one lease");
    let anew = store.reseal(&NOTE, &late, 2).await.unwrap();
    assert_eq!(store.may_store(&anew).await, Ok(()));
    cloud.close("acme");
    store_client.poll().await.unwrap();
    assert_eq!(store.may_store(&anew).await, Err(EnvelopeError::Suspended));
}

#[tokio::test]
async fn i3_while_nobody_watches_a_store_takes_what_was_sealed_before_only_on_a_fresh_proof() {
    let cloud = TestCloud::new();
    let (client, acme) = app(&cloud);
    let sealed = acme.encrypt(&NOTE, b"it waits in a queue").await.unwrap();
    cloud.watched_until(cloud.clock.now().wall + 5_000);
    client.poll().await.unwrap();
    cloud.clock.advance(20_000);
    client.poll().await.unwrap();
    let unproven = EnvelopeError::TemporarilyUnavailable { reason: Unavailable::Unproven };
    assert_eq!(acme.try_may_store(&sealed), Err(unproven.clone()));
    cloud.proofs_answer(ProofResult::Unavailable);
    assert_eq!(acme.may_store(&sealed).await, Err(unproven));
    cloud.clock.advance(1_000);
    cloud.proofs_answer(ProofResult::Proven);
    assert_eq!(acme.may_store(&sealed).await, Ok(()));
    cloud.clock.advance(20_000);
    client.poll().await.unwrap();
    cloud.proofs_answer(ProofResult::Suspended);
    assert_eq!(acme.may_store(&sealed).await, Err(EnvelopeError::Suspended));
}

#[tokio::test]
async fn i8_a_store_that_never_met_the_organisation_learns_its_least_generation_first() {
    let cloud = TestCloud::new();
    let (_, writer) = app(&cloud);
    let late = writer.encrypt(&NOTE, b"sealed long ago").await.unwrap();
    cloud.min_write_generation("acme", 2);
    let (_, store) = app(&cloud);
    assert_eq!(
        store.try_may_store(&late),
        Err(EnvelopeError::TemporarilyUnavailable { reason: Unavailable::Lease })
    );
    let too_old = Err(EnvelopeError::GenerationTooOld { generation: 1, least: 2 });
    assert_eq!(store.may_store(&late).await, too_old);
    assert!(matches!(store.may_store(b"no record").await, Err(EnvelopeError::UnknownVersion { .. })));
    assert_eq!(cloud.fetches.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn i8_an_upload_that_comes_after_the_fence_forgot_the_re_encryption_is_refused_too() {
    let cloud = TestCloud::new();
    let (_, writer) = app(&cloud);
    let late = writer.encrypt(&NOTE, b"sealed long ago").await.unwrap();
    cloud.min_write_generation("acme", 2);
    // The job is over: keys are of generation 2, and the fence says nothing any more.
    cloud.min_write_generation("acme", 0);
    let (_, store) = app(&cloud);
    assert_eq!(store.may_store(&late).await, Ok(()), "others may not have heard of the new key yet");
    cloud.clock.advance(30_001);
    let too_old = Err(EnvelopeError::GenerationTooOld { generation: 1, least: 2 });
    assert_eq!(store.may_store(&late).await, too_old);
    let anew = store.reseal(&NOTE, &late, 2).await.unwrap();
    assert_eq!(store.may_store(&anew).await, Ok(()));
}
