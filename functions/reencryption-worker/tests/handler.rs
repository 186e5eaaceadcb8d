//! The function as its queue calls it: messages in, failures out, over a store of records and a cloud in memory.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use aws_lambda_events::event::sqs::{SqsBatchResponse, SqsEvent};
use claviger_app::ports::{Checkpoints, Ids, Policies, StoreError};
use claviger_app::reencryption::{Counts, ShardCheckpoint, ShardPlace, ShardWork};
use claviger_app::rewrite_shard::RewriteShard;
use claviger_domain::event::PolicyEvent;
use claviger_domain::ids::{CorrelationId, InstanceId, ReencryptionId};
use claviger_domain::observation::Observation;
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::reencryption::Depth;
use claviger_envelope::testing::TestCloud;
use claviger_envelope::{Config, Context, Envelope, generation_of};
use claviger_reencrypt::{
    MemoryRecords, Place, RecordPage, RecordStore, RecordStoreError, Replaced, Rewriter, Shard, StoredRecord,
    VendorRecords,
};
use claviger_reencryption_worker::Worker;
use claviger_testkit::builders::{
    a_key, a_round, an_active_policy, an_enrolment, an_organisation, by_admin, by_claviger, cut_off, decided,
    parsed,
};
use claviger_testkit::{FakeClock, MemoryWorld, SequentialIds};
use jiff::SignedDuration;
use serde_json::json;

const COUNT: usize = 400;
const PARTS: u16 = 2;
const WORKS_FOR: SignedDuration = SignedDuration::from_secs(20);

fn id(n: usize) -> String {
    format!("n-{n:04}")
}

fn text(n: usize) -> Vec<u8> {
    format!("the text of note {n}").into_bytes()
}

fn place() -> Place {
    Place { organisation: "acme".into(), site: "acme-eng".into(), app: "jira".into() }
}

/// A store that remembers the pages that it was asked for.
struct Watched {
    records: Arc<MemoryRecords>,
    pages: Mutex<Vec<(u32, Option<String>, u32)>>,
}

impl Watched {
    fn limits(&self) -> Vec<u32> {
        self.pages.lock().unwrap().iter().map(|(_, _, limit)| *limit).collect()
    }
}

#[async_trait]
impl RecordStore for Watched {
    async fn page(
        &self,
        of: &Place,
        shard: Shard,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<RecordPage, RecordStoreError> {
        self.pages.lock().unwrap().push((shard.index, cursor.map(str::to_owned), limit));
        self.records.page(of, shard, cursor, limit).await
    }

    async fn replace(&self, old: &StoredRecord, new: Vec<u8>) -> Result<Replaced, RecordStoreError> {
        self.records.replace(old, new).await
    }

    async fn estimate(&self, of: &Place) -> Result<Option<u64>, RecordStoreError> {
        self.records.estimate(of).await
    }
}

/// A job that rewrites, and the notes of its one instance under an old data key.
struct Stage {
    world: MemoryWorld,
    clock: Arc<FakeClock>,
    ids: SequentialIds,
    cloud: Arc<TestCloud>,
    store: Arc<Watched>,
    job: ReencryptionId,
}

impl Stage {
    async fn new(records: impl FnOnce(Arc<FakeClock>) -> MemoryRecords) -> Self {
        let (world, clock, ids) =
            (MemoryWorld::new(), Arc::new(FakeClock::default()), SequentialIds::default());
        let now = clock.advance(SignedDuration::from_secs(60));
        let policy = an_active_policy(&an_organisation("acme"), &an_enrolment("222222222222", "europe"), now);
        let regions = ["eu-central-1", "eu-west-1"];
        let keys = regions.map(|region| (parsed(region), a_key("222222222222", region, 2))).into();
        let asked = PolicyEvent::ReencryptionRequested { keys, depth: Depth::Rekey };
        let asked = decided(&policy, &asked, &by_admin(), now).next;
        let job = asked.reencryption.as_ref().unwrap().id;
        let canaries = regions.map(|region| (parsed(region), "QQ==".to_owned())).into();
        let round = a_round(&asked, Observation::Usable, now);
        let switched =
            PolicyEvent::ReencryptionSwitched { job, canaries, data_keys: 1, proven: [].into(), round };
        world.seed_policy(decided(&asked, &switched, &by_claviger(), now).next);

        let cloud = TestCloud::new();
        let store = Watched { records: Arc::new(records(clock.clone())), pages: Mutex::default() };
        let stage = Self { world, clock, ids, cloud, store: Arc::new(store), job };
        let acme = stage.process().instance("acme", "acme-eng", "jira");
        for n in 0..COUNT {
            let record = acme.encrypt(&Context::new("note", &id(n)), &text(n)).await.unwrap();
            stage.store.records.put(&place(), "note", &id(n), &record);
        }
        stage.cloud.min_write_generation("acme", 2);
        for index in 0..PARTS {
            stage.world.save_shard(&stage.shard_to_begin(index)).await.unwrap();
        }
        stage
    }

    fn process(&self) -> Envelope {
        Envelope::builder()
            .fence(self.cloud.clone())
            .keys(self.cloud.clone())
            .config(Config { proof_window: Duration::ZERO, ..Config::default() })
            .clock(self.cloud.clock.clone())
            .manual()
            .start()
            .unwrap()
    }

    fn at(&self, index: u16) -> ShardPlace {
        ShardPlace { job: self.job, instance: InstanceId::from_uuid(SequentialIds::uuid(77)), index }
    }

    fn shard_to_begin(&self, index: u16) -> ShardCheckpoint {
        let now = claviger_app::ports::Clock::now(&*self.clock);
        ShardCheckpoint {
            place: self.at(index),
            site: parsed("acme-eng"),
            app: parsed("jira"),
            of: PARTS,
            pass: 1,
            cursor: None,
            done: false,
            counts: Counts::default(),
            estimate: None,
            fault: None,
            token: self.ids.random(),
            token_until: now + SignedDuration::from_secs(60),
            version: 1,
        }
    }

    async fn shard(&self, index: u16) -> ShardCheckpoint {
        self.world.shard(self.at(index)).await.unwrap().unwrap()
    }

    /// The message that the planner queued for a part.
    async fn message(&self, index: u16) -> ShardWork {
        ShardWork {
            organisation: parsed("acme"),
            place: self.at(index),
            pass: 1,
            token: self.shard(index).await.token,
            correlation: CorrelationId::from_uuid(SequentialIds::uuid(5)),
        }
    }

    /// One invocation, in a process that is new. It may be dropped in the middle: the process was killed.
    async fn invoked(&self, bodies: Vec<String>) -> SqsBatchResponse {
        let rewriter = Rewriter::new(self.process(), self.store.clone());
        let records = VendorRecords::new(BTreeMap::from([(parsed("jira"), rewriter)]));
        let (world, ids, clock) = (&self.world, &self.ids, &*self.clock);
        let (policies, instances, checkpoints, queue) = (world, world, world, world);
        let rewrite = RewriteShard { policies, instances, checkpoints, records: &records, queue, ids, clock };
        Worker { rewrite }.handle(event(&bodies), WORKS_FOR).await
    }

    async fn delivered(&self, work: &[ShardWork]) -> Vec<String> {
        let bodies = work.iter().map(|work| serde_json::to_string(work).unwrap()).collect();
        failures(self.invoked(bodies).await)
    }

    fn later(&self, seconds: i64) {
        self.clock.advance(SignedDuration::from_secs(seconds));
    }

    /// Whatever waits in the queue is delivered when it is due, until nothing waits.
    async fn drained(&self) {
        loop {
            let queued = self.world.take_queued_shards();
            if queued.is_empty() {
                return;
            }
            for (work, wait) in queued {
                self.clock.advance(wait);
                assert!(self.delivered(&[work]).await.is_empty());
            }
        }
    }

    async fn assert_all_done(&self) {
        for (_, _, bytes) in self.store.records.all(&place()) {
            assert_eq!(generation_of(&bytes), Ok(2));
        }
        let acme = self.process().instance("acme", "acme-eng", "jira");
        for n in 0..COUNT {
            let record = self.store.records.get(&place(), "note", &id(n)).unwrap();
            assert_eq!(acme.decrypt(&Context::new("note", &id(n)), &record).await.unwrap(), text(n));
            assert_eq!(self.store.records.version(&place(), "note", &id(n)), Some(1), "the app's version");
        }
        let mut counts = Counts::default();
        for index in 0..PARTS {
            let shard = self.shard(index).await;
            assert!(shard.done && shard.fault.is_none(), "{shard:?}");
            counts = counts.plus(shard.counts);
        }
        let count = u64::try_from(COUNT).unwrap();
        assert_eq!((counts.seen, counts.rewritten + counts.current), (count, count), "each was counted once");
    }
}

/// As SQS sends it: one record a body, the number of the body its id.
fn event(bodies: &[String]) -> SqsEvent {
    let records = bodies.iter().enumerate();
    let records: Vec<_> =
        records.map(|(n, body)| json!({ "messageId": format!("m-{n}"), "body": body })).collect();
    serde_json::from_value(json!({ "Records": records })).unwrap()
}

fn failures(response: SqsBatchResponse) -> Vec<String> {
    response.batch_item_failures.into_iter().map(|failure| failure.item_identifier).collect()
}

fn unavailable() -> StoreError {
    StoreError::Unavailable { reason: "test".to_owned() }
}

#[tokio::test]
async fn x2_each_message_works_its_part_to_the_end_and_counts_what_it_did() {
    let stage = Stage::new(|_| MemoryRecords::new()).await;
    let work = [stage.message(0).await, stage.message(1).await];
    assert!(stage.delivered(&work).await.is_empty());
    stage.assert_all_done().await;
    assert_eq!(stage.store.records.replaced(), u64::try_from(COUNT).unwrap());
    let first = stage.shard(0).await;
    assert_eq!(
        first.estimate,
        Some(u64::try_from(COUNT).unwrap()),
        "kept by the first part, for all of them"
    );
    assert!(first.counts.bytes > 0 && first.token_until <= claviger_app::ports::Clock::now(&*stage.clock));
    assert!(stage.world.take_queued_shards().is_empty(), "nothing is left to hand over");
}

#[tokio::test]
async fn x3_only_the_message_that_failed_is_delivered_again() {
    let stage = Stage::new(|_| MemoryRecords::new()).await;
    let work = [stage.message(0).await, stage.message(1).await];
    stage.world.fail_changes([unavailable()]);
    let mut bodies: Vec<String> = work.iter().map(|work| serde_json::to_string(work).unwrap()).collect();
    bodies.push("{\"organisation\": 5}".to_owned());
    let failed = failures(stage.invoked(bodies).await);
    assert_eq!(failed, ["m-0", "m-2"], "the claim that was not stored, and what is no message");
    assert!(stage.shard(1).await.done && !stage.shard(0).await.done);
    assert!(stage.delivered(&work[..1]).await.is_empty());
    stage.assert_all_done().await;
}

#[tokio::test]
async fn x3_a_doubled_message_and_one_of_another_pass_change_nothing() {
    let stage = Stage::new(|_| MemoryRecords::new().in_steps()).await;
    let work = stage.message(0).await;
    let other = ShardWork { pass: 2, ..stage.message(1).await };
    assert!(stage.delivered(&[work.clone(), work.clone(), other]).await.is_empty());
    let shard = stage.shard(0).await;
    assert!(shard.done);
    assert_eq!(stage.store.records.replaced(), shard.counts.rewritten, "no record was sealed twice");
    let pages: Vec<_> = stage.store.pages.lock().unwrap().clone();
    let cursors: BTreeSet<_> = pages.iter().map(|(index, cursor, _)| (*index, cursor.clone())).collect();
    assert_eq!(pages.len(), cursors.len(), "no page was read twice: {pages:?}");
    assert!(pages.iter().all(|(index, ..)| *index == 0), "another pass is not worked");
    assert!(stage.delivered(&[work]).await.is_empty());
    assert_eq!(stage.store.records.replaced(), shard.counts.rewritten);
}

#[tokio::test(start_paused = true)]
async fn x2_a_store_that_throttles_gets_less_at_a_time_and_then_more_again() {
    let stage = Stage::new(|_| MemoryRecords::new()).await;
    stage.store.records.trouble(vec![RecordStoreError::Throttled; 3]);
    let work = [stage.message(0).await, stage.message(1).await];
    assert!(stage.delivered(&work).await.is_empty());
    stage.assert_all_done().await;
    let limits = stage.store.limits();
    let least = *limits.iter().min().unwrap();
    assert_eq!((limits[0], least), (128, 16), "halved three times: {limits:?}");
    assert!(*limits.last().unwrap() > least, "{limits:?}");
}

#[tokio::test(start_paused = true)]
async fn x2_a_store_that_goes_on_throttling_is_left_alone_for_a_while_and_no_message_fails() {
    let stage = Stage::new(|_| MemoryRecords::new()).await;
    assert!(stage.delivered(&[stage.message(1).await]).await.is_empty());
    // Three invocations' worth: each is patient seven times.
    stage.store.records.trouble(vec![RecordStoreError::Throttled; 20]);
    let work = stage.message(0).await;
    assert!(
        stage.delivered(std::slice::from_ref(&work)).await.is_empty(),
        "throttling is no failure of the message"
    );
    let queued = stage.world.take_queued_shards();
    let [(rest, wait)] = &queued[..] else { panic!("{queued:?}") };
    assert_eq!((wait.as_secs(), rest.place.index), (10, 0));
    assert!(!stage.shard(0).await.done);
    // A message that SQS delivers once more meanwhile finds that the rest waits elsewhere.
    let pages = stage.store.limits().len();
    assert!(stage.delivered(&[work]).await.is_empty());
    assert_eq!(stage.store.limits().len(), pages);
    stage.later(10);
    assert!(stage.delivered(std::slice::from_ref(rest)).await.is_empty());
    stage.drained().await;
    stage.assert_all_done().await;
}

#[tokio::test]
async fn x3_what_is_left_when_its_time_is_over_goes_on_at_the_checkpoint() {
    // Every write takes a quarter of a second.
    let slow = |clock: Arc<FakeClock>| {
        MemoryRecords::new().before_replace(move |_, _| {
            clock.advance(SignedDuration::from_millis(250));
        })
    };
    let stage = Stage::new(slow).await;
    assert!(stage.delivered(&[stage.message(0).await]).await.is_empty());
    let left = stage.shard(0).await;
    assert!(!left.done && left.cursor.is_some(), "{left:?}");
    assert_eq!(
        stage.store.records.replaced(),
        left.counts.rewritten,
        "the checkpoint knows all that was done"
    );
    let queued = stage.world.take_queued_shards();
    let [(rest, wait)] = &queued[..] else { panic!("{queued:?}") };
    assert!(wait.is_zero());
    assert_eq!(rest.token, left.token);
    let read = stage.store.pages.lock().unwrap().len();
    assert!(stage.delivered(std::slice::from_ref(rest)).await.is_empty());
    assert_eq!(stage.store.pages.lock().unwrap()[read].1, left.cursor, "it goes on there");
    assert!(stage.delivered(&[stage.message(1).await]).await.is_empty());
    stage.drained().await;
    stage.assert_all_done().await;
    assert_eq!(stage.store.records.replaced(), u64::try_from(COUNT).unwrap(), "each was sealed anew once");
}

/// A process that is killed after so many steps; another goes on. None if it came to its end before.
async fn killed_after(steps: u64) -> Option<()> {
    let stage = Stage::new(|_| MemoryRecords::new().in_steps()).await;
    let work = [stage.message(0).await, stage.message(1).await];
    let bodies: Vec<String> = work.iter().map(|work| serde_json::to_string(work).unwrap()).collect();
    stage.store.records.stand_still_after(steps);
    let ended = {
        let mut invocation = pin!(stage.invoked(bodies));
        poll_fn(|task| match invocation.as_mut().poll(task) {
            Poll::Ready(response) => Poll::Ready(Some(failures(response))),
            Poll::Pending if stage.store.records.stands_still() => Poll::Ready(None),
            Poll::Pending => {
                task.waker().wake_by_ref();
                Poll::Pending
            }
        })
        .await
    };
    if let Some(failed) = ended {
        assert!(failed.is_empty());
        return None;
    }
    stage.store.records.stand_still_after(u64::MAX);
    // The queue delivers again when the visibility timeout is over, to another process.
    stage.later(360);
    assert!(stage.delivered(&work).await.is_empty());
    stage.drained().await;
    stage.assert_all_done().await;
    assert_eq!(stage.store.records.replaced(), u64::try_from(COUNT).unwrap(), "each was sealed anew once");
    let mut begun: BTreeMap<(u32, Option<String>), usize> = BTreeMap::new();
    for (part, cursor, _) in stage.store.pages.lock().unwrap().iter() {
        *begun.entry((*part, cursor.clone())).or_default() += 1;
    }
    for part in 0..u32::from(PARTS) {
        let again = begun.iter().filter(|((of, _), _)| *of == part).map(|(_, times)| times - 1);
        assert!(
            again.sum::<usize>() <= 1,
            "after {steps} steps part {part} redid more than a batch: {begun:?}"
        );
    }
    Some(())
}

#[tokio::test]
async fn i8_a_kill_at_any_step_redoes_at_most_one_batch_of_a_part_and_loses_nothing() {
    let mut kills = 0;
    // Every step would take long; seven is prime to what a record and a batch take.
    while killed_after(7 * kills).await.is_some() {
        kills += 1;
    }
    assert!(kills > 50, "there were steps to be killed between: {kills}");
}

#[tokio::test]
async fn x3_a_record_that_cannot_be_read_is_named_in_the_checkpoint_and_all_others_are_moved() {
    let stage = Stage::new(|_| MemoryRecords::new()).await;
    let good = stage.store.records.get(&place(), "note", &id(7)).unwrap();
    let mut bad = good.clone();
    let last = bad.len() - 1;
    bad[last] ^= 1;
    stage.store.records.put(&place(), "note", &id(7), &bad);
    let work = [stage.message(0).await, stage.message(1).await];
    assert!(stage.delivered(&work).await.is_empty(), "repeating the message at once would not help");
    let shards = [stage.shard(0).await, stage.shard(1).await];
    let faults: Vec<&String> = shards.iter().filter_map(|shard| shard.fault.as_ref()).collect();
    let [fault] = faults[..] else { panic!("{shards:?}") };
    assert!(fault.contains("n-0007") && !fault.contains("the text"), "{fault}");
    let old = stage.store.records.all(&place()).into_iter().filter(|(_, _, one)| generation_of(one) == Ok(1));
    let old: Vec<String> = old.map(|(_, id, _)| id).collect();
    let queued = stage.world.take_queued_shards();
    assert_eq!(queued.len(), 1);
    assert_eq!(queued[0].1.as_secs(), 60, "it is tried again, with patience");
    assert!(old.contains(&id(7)));
    // The app mends it; then the part comes to its end.
    stage.store.records.put(&place(), "note", &id(7), &good);
    stage.later(60);
    assert!(stage.delivered(&[queued[0].0.clone()]).await.is_empty());
    stage.drained().await;
    for (_, id, bytes) in stage.store.records.all(&place()) {
        assert_eq!(generation_of(&bytes), Ok(2), "{id}");
    }
}

#[tokio::test]
async fn x3_a_revocation_in_the_middle_leaves_the_part_free_and_unfinished_and_it_goes_on_afterwards() {
    let stage = Stage::new(|_| MemoryRecords::new()).await;
    let work = [stage.message(0).await, stage.message(1).await];
    // The data plane knows first.
    stage.cloud.close("acme");
    assert!(stage.delivered(&work).await.is_empty());
    assert_eq!(stage.store.records.replaced(), 0, "no key is used behind a closed fence");
    let now = claviger_app::ports::Clock::now(&*stage.clock);
    for index in 0..PARTS {
        let shard = stage.shard(index).await;
        assert!(!shard.done && shard.token_until <= now, "free for whoever takes it up: {shard:?}");
    }
    // The control plane knows too: not even a page is read.
    let open: EncryptionPolicy = stage.world.policy(&parsed("acme")).await.unwrap().unwrap();
    stage.later(60);
    let now = claviger_app::ports::Clock::now(&*stage.clock);
    stage.world.seed_policy(cut_off(&open, now).next);
    let pages = stage.store.limits().len();
    assert!(stage.delivered(&work).await.is_empty());
    assert_eq!(stage.store.limits().len(), pages);
    stage.world.seed_policy(open);
    stage.cloud.reopen("acme");
    stage.cloud.min_write_generation("acme", 2);
    assert!(stage.delivered(&work).await.is_empty());
    stage.drained().await;
    stage.assert_all_done().await;
}
