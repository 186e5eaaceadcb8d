//! A re-encryption against a store and a cloud in memory: what an app, a crash and a customer do meanwhile.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use claviger_envelope::source::SourceError;
use claviger_envelope::testing::TestCloud;
use claviger_envelope::{Config, Context, Envelope, Instance, generation_of};
use claviger_reencrypt::{
    Batch, MemoryRecords, Mode, Place, RecordStore, RecordStoreError, RewriteError, Rewriter, Shard,
};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, Waker};
use std::time::Duration;

const COUNT: usize = 180;

struct World {
    cloud: Arc<TestCloud>,
    envelope: Envelope,
    acme: Instance,
    place: Place,
    records: Arc<MemoryRecords>,
}

fn id(n: usize) -> String {
    format!("n-{n:04}")
}

fn text(n: usize) -> Vec<u8> {
    format!("the text of note {n}").into_bytes()
}

fn envelope_of(cloud: &Arc<TestCloud>) -> Envelope {
    Envelope::builder()
        .fence(cloud.clone())
        .keys(cloud.clone())
        .config(Config { proof_window: Duration::ZERO, ..Config::default() })
        .clock(cloud.clock.clone())
        .manual()
        .start()
        .unwrap()
}

impl World {
    /// Notes under two data keys of generation 1, and the fence says that 2 is the least now.
    async fn switched(records: MemoryRecords) -> Self {
        let cloud = TestCloud::new();
        let envelope = envelope_of(&cloud);
        let acme = envelope.instance("acme", "acme-eng", "jira");
        let place = Place { organisation: "acme".into(), site: "acme-eng".into(), app: "jira".into() };
        let records = Arc::new(records);
        for n in 0..COUNT {
            if n == COUNT / 2 {
                cloud.rotate(acme.name());
                envelope.revoke();
            }
            let record = acme.encrypt(&Context::new("note", &id(n)), &text(n)).await.unwrap();
            records.put(&place, "note", &id(n), &record);
        }
        cloud.min_write_generation("acme", 2);
        Self { cloud, envelope, acme, place, records }
    }

    fn rewriter(&self) -> Rewriter {
        Rewriter::new(self.envelope.clone(), self.records.clone())
    }

    /// Batch by batch until the shard is through.
    async fn through(&self, rewriter: &Rewriter, shard: Shard, mode: Mode) -> Result<Batch, RewriteError> {
        let mut total = Batch::default();
        loop {
            let batch = rewriter.batch(&self.place, shard, total.next.as_deref(), 2, mode).await?;
            total = sum(total, batch);
            if total.next.is_none() {
                return Ok(total);
            }
        }
    }

    async fn assert_every_note_reads(&self, but: &[usize]) {
        for n in (0..COUNT).filter(|n| !but.contains(n)) {
            let record = self.records.get(&self.place, "note", &id(n)).unwrap();
            let read = self.acme.decrypt(&Context::new("note", &id(n)), &record).await;
            assert_eq!(read.unwrap(), text(n), "note {n}");
            assert_eq!(self.records.version(&self.place, "note", &id(n)), Some(1), "the app's version");
        }
    }

    fn generations(&self) -> (usize, usize) {
        let all = self.records.all(&self.place);
        let new = all.iter().filter(|(_, _, bytes)| generation_of(bytes) == Ok(2)).count();
        (all.len() - new, new)
    }
}

fn sum(a: Batch, b: Batch) -> Batch {
    Batch {
        seen: a.seen + b.seen,
        rewritten: a.rewritten + b.rewritten,
        current: a.current + b.current,
        lost_races: a.lost_races + b.lost_races,
        old: a.old + b.old,
        old_versions: a.old_versions + b.old_versions,
        bytes: a.bytes + b.bytes,
        next: b.next,
    }
}

const ALL: u64 = COUNT as u64;

#[tokio::test]
async fn x1_every_old_record_is_sealed_anew_and_a_scan_finds_none_left() {
    let world = World::switched(MemoryRecords::new()).await;
    let rewriter = world.rewriter();
    assert_eq!(rewriter.estimate(&world.place).await, Ok(Some(ALL)));
    let found = world.through(&rewriter, Shard::WHOLE, Mode::Scan).await.unwrap();
    assert_eq!((found.seen, found.old, found.current, found.rewritten), (ALL, ALL, 0, 0));
    let done = world.through(&rewriter, Shard::WHOLE, Mode::Rewrite).await.unwrap();
    assert_eq!((done.seen, done.rewritten, done.old, done.lost_races), (ALL, ALL, 0, 0));
    assert_eq!(world.generations(), (0, COUNT));
    let bytes: usize = world.records.all(&world.place).iter().map(|(_, _, bytes)| bytes.len()).sum();
    assert_eq!(done.bytes, bytes as u64);
    let clean = world.through(&rewriter, Shard::WHOLE, Mode::Scan).await.unwrap();
    assert_eq!((clean.seen, clean.old, clean.current), (ALL, 0, ALL));
    world.assert_every_note_reads(&[]).await;
}

#[tokio::test]
async fn x2_shards_are_disjoint_and_together_they_are_everything() {
    for of in [1, 2, 3, 16, 64, 100] {
        let world = World::switched(MemoryRecords::new()).await;
        let rewriter = world.rewriter();
        let mut total = Batch::default();
        for index in 0..of {
            let shard = Shard { index, of };
            total = sum(total, world.through(&rewriter, shard, Mode::Rewrite).await.unwrap());
        }
        assert_eq!((total.seen, total.rewritten), (ALL, ALL), "{of} shards");
    }
}

#[tokio::test]
async fn i6_a_stream_is_sealed_anew_too() {
    let world = World::switched(MemoryRecords::new()).await;
    let context = Context::new("attachment", "a-1");
    let plain: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let old = {
        let before = TestCloud::new();
        let key = world.cloud.raw_keys(world.acme.name())[0];
        before.give(world.acme.name(), key.0, 1, key.1);
        let writer = envelope_of(&before).instance("acme", "acme-eng", "jira");
        let mut stream = writer.encrypt_stream(&context).await.unwrap();
        let mut bytes = stream.header().to_vec();
        stream.update(&plain, &mut bytes).await.unwrap();
        stream.finish(&mut bytes).await.unwrap();
        bytes
    };
    world.records.put(&world.place, "attachment", "a-1", &old);
    world.through(&world.rewriter(), Shard::WHOLE, Mode::Rewrite).await.unwrap();
    let new = world.records.get(&world.place, "attachment", "a-1").unwrap();
    assert_eq!((new.len(), generation_of(&new)), (old.len(), Ok(2)));
    let mut reader = world.acme.decrypt_stream(&context, &new[..81]).await.unwrap();
    let mut read = Vec::new();
    reader.update(&new[81..], &mut read).await.unwrap();
    reader.finish(&mut read).await.unwrap();
    assert_eq!(read, plain);
}

#[tokio::test]
async fn i8_a_concurrent_write_by_the_app_always_wins() {
    let writing: Arc<std::sync::OnceLock<Instance>> = Arc::default();
    let app = writing.clone();
    let store = MemoryRecords::new().before_replace(move |records, old| {
        let n: usize = old.record_id[2..].parse().unwrap();
        let place = Place { organisation: "acme".into(), site: "acme-eng".into(), app: "jira".into() };
        if n.is_multiple_of(3) {
            let mut record = Vec::new();
            let context = Context::new("note", &old.record_id);
            app.get().unwrap().try_encrypt_into(&context, b"the app was faster", &mut record).unwrap();
            records.put(&place, "note", &old.record_id, &record);
        } else if n.is_multiple_of(7) {
            records.delete(&place, "note", &old.record_id);
        }
    });
    let world = World::switched(store).await;
    world.envelope.poll().await.unwrap();
    world.acme.encrypt(&Context::new("note", "warm"), b"").await.unwrap();
    assert!(writing.set(world.acme.clone()).is_ok());
    let done = world.through(&world.rewriter(), Shard::WHOLE, Mode::Rewrite).await.unwrap();
    let (written, deleted) = (COUNT / 3, (0..COUNT).filter(|n| n % 3 != 0 && n % 7 == 0).count());
    assert_eq!(done.lost_races, (written + deleted) as u64);
    for n in 0..COUNT {
        let (record, id) = (world.records.get(&world.place, "note", &id(n)), id(n));
        let context = Context::new("note", &id);
        if n % 3 == 0 {
            assert_eq!(world.acme.decrypt(&context, &record.unwrap()).await.unwrap(), b"the app was faster");
            assert_eq!(world.records.version(&world.place, "note", &id), Some(2));
        } else if n % 7 == 0 {
            assert_eq!(record, None, "what the app deleted does not come back");
        } else {
            assert_eq!(world.acme.decrypt(&context, &record.unwrap()).await.unwrap(), text(n));
        }
    }
}

#[tokio::test]
async fn i8_a_kill_between_any_two_steps_redoes_at_most_a_batch_and_loses_nothing() {
    for steps in 0.. {
        let world = World::switched(MemoryRecords::new().in_steps()).await;
        let rewriter = world.rewriter();
        // The first batch goes well: the cursor that a worker has stored.
        let first = rewriter.batch(&world.place, Shard::WHOLE, None, 2, Mode::Rewrite).await.unwrap();
        let cursor = first.next.clone();
        world.records.stand_still_after(steps);
        let ended = {
            let batch = rewriter.batch(&world.place, Shard::WHOLE, cursor.as_deref(), 2, Mode::Rewrite);
            let (mut batch, mut task) = (pin!(batch), Task::from_waker(Waker::noop()));
            loop {
                match batch.as_mut().poll(&mut task) {
                    Poll::Ready(result) => break Some(result.unwrap()),
                    Poll::Pending if world.records.stands_still() => break None,
                    Poll::Pending => {}
                }
            }
        };
        if ended.is_some() {
            assert!(steps > 100, "there were steps to be killed between: {steps}");
            return;
        }
        // Killed here. Everything reads, and another process goes on from the stored cursor.
        world.assert_every_note_reads(&[]).await;
        world.records.stand_still_after(u64::MAX);
        let done_before = world.records.replaced() - first.rewritten;
        let rewriter = world.rewriter();
        let mut total = first;
        while let Some(next) = total.next.clone() {
            let batch = rewriter.batch(&world.place, Shard::WHOLE, Some(&next), 2, Mode::Rewrite).await;
            total = sum(total, batch.unwrap());
        }
        assert_eq!(total.seen, ALL, "none was passed over");
        assert_eq!(total.current, done_before, "what was done is seen, and not done again");
        assert_eq!(world.records.replaced(), ALL, "each was sealed anew once");
        assert_eq!(world.generations(), (0, COUNT));
        world.assert_every_note_reads(&[]).await;
    }
}

#[tokio::test]
async fn i8_a_doubled_batch_changes_nothing() {
    let world = World::switched(MemoryRecords::new()).await;
    let rewriter = world.rewriter();
    let first = rewriter.batch(&world.place, Shard::WHOLE, None, 2, Mode::Rewrite).await.unwrap();
    let before = world.records.all(&world.place);
    let again = world.rewriter().batch(&world.place, Shard::WHOLE, None, 2, Mode::Rewrite).await.unwrap();
    assert_eq!(world.records.all(&world.place), before);
    assert_eq!((again.seen, again.current, again.rewritten), (first.seen, first.seen, 0));
    assert_eq!(again.next, first.next);
}

#[tokio::test]
async fn i8_two_workers_on_the_same_shard_do_each_record_once() {
    let world = World::switched(MemoryRecords::new().in_steps()).await;
    let (a, b) = (world.rewriter(), world.rewriter());
    let (a, b) = tokio::join!(
        world.through(&a, Shard::WHOLE, Mode::Rewrite),
        world.through(&b, Shard::WHOLE, Mode::Rewrite)
    );
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(a.rewritten + b.rewritten, ALL);
    assert_eq!(world.records.replaced(), ALL);
    world.assert_every_note_reads(&[]).await;
}

#[tokio::test]
async fn i6_a_record_of_an_unknown_key_is_named_and_the_others_are_moved() {
    let world = World::switched(MemoryRecords::new()).await;
    let elsewhere = envelope_of(&TestCloud::new()).instance("acme", "acme-eng", "jira");
    let strange = elsewhere.encrypt(&Context::new("note", &id(5)), b"?").await.unwrap();
    world.records.put(&world.place, "note", &id(5), &strange);
    let rewriter = world.rewriter();
    let mut cursor = None;
    let error = loop {
        match rewriter.batch(&world.place, Shard::WHOLE, cursor.as_deref(), 2, Mode::Rewrite).await {
            Ok(batch) => cursor = Some(batch.next.unwrap()),
            Err(error) => break error,
        }
    };
    let RewriteError::Unreadable { record, reason } = &error else { panic!("{error:?}") };
    assert!(record.ends_with(&id(5)) && reason.contains("data key"), "{error}");
    let again = rewriter.batch(&world.place, Shard::WHOLE, cursor.as_deref(), 2, Mode::Rewrite).await;
    assert_eq!(again, Err(error), "it does not go away by being asked again");
    assert_eq!(world.records.get(&world.place, "note", &id(5)), Some(strange), "and nothing touched it");
    world.assert_every_note_reads(&[5]).await;
}

#[tokio::test]
async fn i6_what_is_no_record_or_was_moved_to_another_name_is_named() {
    for bytes in [b"in the clear".to_vec(), Vec::new(), vec![9; 200]] {
        let world = World::switched(MemoryRecords::new()).await;
        world.records.put(&world.place, "note", &id(7), &bytes);
        for mode in [Mode::Rewrite, Mode::Scan] {
            let result = world.through(&world.rewriter(), Shard::WHOLE, mode).await;
            assert!(
                matches!(&result, Err(RewriteError::Unreadable { record, .. }) if record.ends_with(&id(7)))
            );
        }
    }
    let world = World::switched(MemoryRecords::new()).await;
    let other = world.records.get(&world.place, "note", &id(8)).unwrap();
    world.records.put(&world.place, "note", &id(7), &other);
    let result = world.through(&world.rewriter(), Shard::WHOLE, Mode::Rewrite).await;
    assert!(matches!(&result, Err(RewriteError::Unreadable { record, .. }) if record.ends_with(&id(7))));
}

#[tokio::test]
async fn x3_suspended_in_the_middle_it_stops_with_nothing_half_written_and_goes_on_afterwards() {
    let world = World::switched(MemoryRecords::new()).await;
    let rewriter = world.rewriter();
    let first = rewriter.batch(&world.place, Shard::WHOLE, None, 2, Mode::Rewrite).await.unwrap();
    world.cloud.close("acme");
    world.envelope.poll().await.unwrap();
    let before = world.records.all(&world.place);
    let next = first.next.as_deref();
    let stopped = rewriter.batch(&world.place, Shard::WHOLE, next, 2, Mode::Rewrite).await;
    assert_eq!(stopped, Err(RewriteError::Suspended));
    assert_eq!(world.records.all(&world.place), before);
    let scan = rewriter.batch(&world.place, Shard::WHOLE, next, 2, Mode::Scan).await.unwrap();
    assert!(scan.old > 0, "where it stands can be read off without a key");

    world.cloud.reopen("acme");
    world.envelope.poll().await.unwrap();
    world.cloud.clock.advance(1_000);
    let done = world.through(&rewriter, Shard::WHOLE, Mode::Rewrite).await.unwrap();
    assert_eq!((done.current, done.rewritten), (first.rewritten, ALL - first.rewritten));
    world.assert_every_note_reads(&[]).await;
}

#[tokio::test]
async fn x3_a_key_that_is_lost_between_two_records_of_a_batch_leaves_each_old_or_new() {
    let cloud: Arc<std::sync::OnceLock<(Arc<TestCloud>, Envelope)>> = Arc::default();
    let world_of = cloud.clone();
    let store = MemoryRecords::new().before_replace(move |records, _| {
        if records.replaced() == 50 {
            let (cloud, envelope) = world_of.get().unwrap();
            cloud.close("acme");
            envelope.revoke();
        }
    });
    let world = World::switched(store).await;
    assert!(cloud.set((world.cloud.clone(), world.envelope.clone())).is_ok());
    let stopped = world.through(&world.rewriter(), Shard::WHOLE, Mode::Rewrite).await;
    assert_eq!(stopped, Err(RewriteError::Suspended));
    // The one on its way was sealed before; it is whole like all others.
    assert_eq!(world.generations(), (COUNT - 51, 51));
    world.cloud.reopen("acme");
    world.cloud.clock.advance(2_000);
    world.envelope.poll().await.unwrap();
    world.assert_every_note_reads(&[]).await;
}

#[tokio::test]
async fn i2_a_broker_that_does_not_answer_or_has_no_new_key_yet_is_temporary() {
    let world = World::switched(MemoryRecords::new()).await;
    world.envelope.revoke();
    world.cloud.broker_answers(Some(SourceError::TemporarilyUnavailable));
    let result = world.through(&world.rewriter(), Shard::WHOLE, Mode::Rewrite).await;
    assert_eq!(result, Err(RewriteError::TemporarilyUnavailable));
    world.cloud.broker_answers(None);
    world.cloud.clock.advance(2_000);
    let early = world.rewriter().batch(&world.place, Shard::WHOLE, None, 3, Mode::Rewrite).await;
    assert_eq!(
        early,
        Err(RewriteError::TemporarilyUnavailable),
        "nothing is sealed under less than was asked"
    );
    assert_eq!(world.generations(), (COUNT, 0));
}

#[tokio::test(start_paused = true)]
async fn x2_a_store_that_throttles_is_waited_for_and_no_record_is_lost_by_it() {
    let world = World::switched(MemoryRecords::new()).await;
    let rewriter = world.rewriter();
    world.records.trouble(std::iter::repeat_n(RecordStoreError::Throttled, 4));
    let done = world.through(&rewriter, Shard::WHOLE, Mode::Rewrite).await.unwrap();
    assert_eq!((done.seen, done.rewritten), (ALL, ALL));
    world.assert_every_note_reads(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn x2_a_store_that_goes_on_throttling_gets_its_batch_given_back() {
    let world = World::switched(MemoryRecords::new()).await;
    let rewriter = world.rewriter();
    world.records.trouble(std::iter::repeat_n(RecordStoreError::Throttled, 7));
    let given_back = rewriter.batch(&world.place, Shard::WHOLE, None, 2, Mode::Rewrite).await;
    assert_eq!(given_back, Err(RewriteError::Store(RecordStoreError::Throttled)));
    let small = rewriter.batch(&world.place, Shard::WHOLE, None, 2, Mode::Rewrite).await.unwrap();
    assert_eq!(small.seen, 8, "the next one is as small as can be");
}

#[tokio::test]
async fn x3_a_store_that_fails_is_said_and_what_was_done_stays_done() {
    for trouble in [
        RecordStoreError::Unavailable { reason: "no answer".into() },
        RecordStoreError::Refused { reason: "no right to write".into() },
    ] {
        let world = World::switched(MemoryRecords::new()).await;
        let rewriter = world.rewriter();
        rewriter.batch(&world.place, Shard::WHOLE, None, 2, Mode::Rewrite).await.unwrap();
        let before = world.generations();
        world.records.trouble([trouble.clone()]);
        let result = world.through(&rewriter, Shard::WHOLE, Mode::Rewrite).await;
        assert_eq!(result, Err(RewriteError::Store(trouble)));
        assert_eq!(world.generations(), before);
        assert!(world.through(&rewriter, Shard::WHOLE, Mode::Rewrite).await.is_ok());
    }
}

#[tokio::test]
async fn x4_old_versions_are_counted_and_not_touched() {
    let world = World::switched(MemoryRecords::new()).await;
    for n in 0..10 {
        world.records.keep_as_old_version(&world.place, "note", &id(n));
    }
    let done = world.through(&world.rewriter(), Shard::WHOLE, Mode::Rewrite).await.unwrap();
    assert_eq!((done.seen, done.rewritten, done.old_versions), (ALL, ALL, 10));
    let clean = world.through(&world.rewriter(), Shard::WHOLE, Mode::Scan).await.unwrap();
    assert_eq!((clean.old, clean.old_versions), (0, 10));
}

#[tokio::test]
async fn i7_only_the_records_of_the_place_are_touched() {
    let world = World::switched(MemoryRecords::new()).await;
    let other = Place { app: "jira2".into(), ..world.place.clone() };
    world.records.put(&other, "note", "n-1", b"not ours");
    world.through(&world.rewriter(), Shard::WHOLE, Mode::Rewrite).await.unwrap();
    assert_eq!(world.records.get(&other, "note", "n-1").unwrap(), b"not ours");
    assert_eq!(world.records.estimate(&other).await, Ok(Some(1)));
}
