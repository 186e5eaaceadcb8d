//! Everything moves to new keys (spec X): planner, workers, broker and an app together, with whatever goes wrong.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use claviger_app::carry_reencryption::CarryReencryption;
use claviger_app::check_enrolment::CheckEnrolment;
use claviger_app::error::WorkError;
use claviger_app::make_newer_data_key::Renewal;
use claviger_app::messages::NewerDataKey;
use claviger_app::ports::{
    Backups, CallError, Checkpoints, CustomerRoles, DataKeyChoice, DataKeyRegistry, Policies, Records,
    StoreError,
};
use claviger_app::reencryption::{
    Backup, Counts, JobStep, RecordBatch, RecordsError, ShardCheckpoint, ShardWork,
};
use claviger_app::rewrite_shard::RewriteShard;
use claviger_app::settings::Settings;
use claviger_app::show_reencrypted_instances::ShowReencryptedInstances;
use claviger_app::show_reencryption::{ReencryptionView, ShowReencryption};
use claviger_domain::access::{KeyPermission, KeyPolicyTemplate};
use claviger_domain::catalogue::Mode;
use claviger_domain::decide::{Refusal, decide};
use claviger_domain::effect::{Effect, OutboxRow};
use claviger_domain::event::PolicyEvent;
use claviger_domain::ids::{DataKeyId, ReencryptionId};
use claviger_domain::key_access::CustomerRole;
use claviger_domain::key_policy::KeyLabel;
use claviger_domain::observation::{NoAnswerKind, Observation};
use claviger_domain::policy::{CONTEXT_PURPOSE, PURPOSE_DATA_KEY};
use claviger_domain::reencryption::{Depth, Outcome, Phase};
use claviger_domain::values::{KeyArn, OrganisationName, Region};
use claviger_testkit::{KeyCall, a_description, builders};
use jiff::{SignedDuration, Timestamp};
use rstest::rstest;

use crate::world::{DENIED, DISABLED, NOTES_ROLE, USABLE, World};

const REGIONS: [&str; 2] = ["eu-central-1", "eu-west-1"];
/// Records of a batch.
const BATCH: usize = 3;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    data_key: DataKeyId,
    generation: u64,
    /// The app's own version.
    written: u64,
}

/// The app's records, each under the data key that the broker gave for it.
#[derive(Default)]
struct Notes {
    records: Mutex<BTreeMap<u64, Record>>,
    faults: Mutex<Vec<RecordsError>>,
    batches: Mutex<u64>,
}

struct Rewriting<'a> {
    world: &'a World,
    notes: &'a Notes,
}

#[async_trait]
impl Records for Rewriting<'_> {
    async fn batch(
        &self,
        of: &ShardCheckpoint,
        _: &OrganisationName,
        generation: u32,
        scan: bool,
    ) -> Result<RecordBatch, RecordsError> {
        *self.notes.batches.lock().unwrap() += 1;
        if let Some(fault) = self.notes.faults.lock().unwrap().pop() {
            return Err(fault);
        }
        let after: Option<u64> = of.cursor.as_ref().map(|cursor| cursor.parse().unwrap());
        let ours = |id: &u64| id % u64::from(of.of) == u64::from(of.place.index);
        let page: Vec<(u64, Record)> = {
            let records = self.notes.records.lock().unwrap();
            let page = records.iter().filter(|(id, _)| ours(id) && after.is_none_or(|after| **id > after));
            page.take(BATCH).map(|(id, record)| (*id, record.clone())).collect()
        };
        let mut counts = Counts::default();
        for (id, record) in &page {
            counts.seen += 1;
            if record.generation >= u64::from(generation) {
                counts.current += 1;
            } else if scan {
                counts.old += 1;
            } else {
                let choice = DataKeyChoice::Id(record.data_key);
                let open = self.world.asks_for_key_as(NOTES_ROLE, "acme", choice).await;
                open.map_err(|_| RecordsError::TemporarilyUnavailable)?;
                let seal =
                    self.world.asks_for_key().await.map_err(|_| RecordsError::TemporarilyUnavailable)?;
                let mut records = self.notes.records.lock().unwrap();
                if records.get(id) == Some(record) {
                    let new = Record { data_key: seal.id, generation: seal.generation, ..record.clone() };
                    records.insert(*id, new);
                    counts.rewritten += 1;
                } else {
                    counts.lost_races += 1;
                }
            }
        }
        let next = page.last().filter(|_| page.len() == BATCH).map(|(id, _)| id.to_string());
        Ok(RecordBatch { counts, next })
    }

    async fn estimate(&self, _: &ShardCheckpoint, _: &OrganisationName) -> Result<Option<u64>, RecordsError> {
        Ok(Some(u64::try_from(self.notes.records.lock().unwrap().len()).unwrap()))
    }
}

/// A message on its way.
#[derive(Debug, Clone)]
enum Mail {
    Effect(OutboxRow),
    Step(JobStep),
    Shard(ShardWork),
}

pub struct Stage {
    pub world: World,
    notes: Notes,
    mail: Mutex<Vec<(Timestamp, Mail)>>,
    /// Every message is delivered twice.
    doubled: bool,
    /// So many records that nobody keeps them.
    many: Option<u64>,
    /// Messages for workers so far.
    worked: Mutex<usize>,
    /// What is deployed, where it is not as ever.
    record_shards: Option<u16>,
}

impl Stage {
    pub async fn new(records: u64) -> Self {
        let world = World::with_acme().await;
        let stage = Self::of(world);
        for id in 0..records {
            stage.writes(id).await;
        }
        for region in REGIONS {
            stage.make_key(&stage.new_key(region));
        }
        stage
    }

    fn of(world: World) -> Self {
        Self {
            world,
            notes: Notes::default(),
            mail: Mutex::default(),
            doubled: false,
            many: None,
            worked: Mutex::default(),
            record_shards: None,
        }
    }

    fn messages(&self) -> usize {
        *self.worked.lock().unwrap()
    }

    fn settings(&self) -> Settings {
        let usual = self.world.settings();
        Settings { record_shards: self.record_shards.unwrap_or(usual.record_shards), ..usual.clone() }
    }

    fn make_key(&self, key: &KeyArn) {
        self.world.keys.create(key);
        self.world.keys.bind(key, builders::an_organisation("acme").id);
    }

    fn new_key(&self, region: &str) -> KeyArn {
        builders::a_key("222222222222", region, 2)
    }

    /// The app writes a record, under the data key that is current at this moment.
    async fn writes(&self, id: u64) {
        let key = self.world.asks_for_key().await.unwrap();
        let mut records = self.notes.records.lock().unwrap();
        let written = records.get(&id).map_or(1, |known| known.written + 1);
        records.insert(id, Record { data_key: key.id, generation: key.generation, written });
    }

    pub async fn asks(&self, depth: Depth) -> ReencryptionId {
        let keys: BTreeMap<Region, KeyArn> =
            REGIONS.map(|region| (builders::parsed(region), self.new_key(region))).into();
        self.happens(PolicyEvent::ReencryptionRequested { keys, depth }).await;
        self.world.policy().await.reencryption.unwrap().id
    }

    async fn happens(&self, event: PolicyEvent) {
        self.tried(event).await.unwrap();
    }

    async fn tried(&self, event: PolicyEvent) -> Result<(), Refusal> {
        let policy = self.world.policy().await;
        let now = self.world.now();
        let decision = decide(&builders::rules(), &policy, &event, &builders::by_admin(), now)?;
        self.world.store.commit_policy(Some(&policy), &decision).await.unwrap();
        Ok(())
    }

    fn carry<'a>(&'a self, settings: &'a Settings) -> CarryReencryption<'a> {
        let World { store, keys, ids, clock, .. } = &self.world;
        CarryReencryption {
            policies: store,
            watch: store,
            instances: store,
            registry: store,
            keys,
            probe: self.world.probe(),
            checkpoints: store,
            backups: store,
            queue: store,
            check: CheckEnrolment { keys, roles: keys, ids },
            ids,
            clock,
            settings,
        }
    }

    async fn tick(&self) -> Result<u64, WorkError> {
        self.carry(&self.settings()).tick().await
    }

    async fn deliver(&self, mail: &Mail) -> Result<(), WorkError> {
        let World { store, ids, clock, .. } = &self.world;
        let settings = self.settings();
        match mail {
            Mail::Effect(row) if matches!(row.effect, Effect::Reencrypt { .. }) => {
                self.carry(&settings).run(row).await
            }
            Mail::Effect(row) => self.world.work(row).await,
            Mail::Step(step) => self.carry(&settings).step(step).await,
            Mail::Shard(work) => {
                *self.worked.lock().unwrap() += 1;
                let few = Rewriting { world: &self.world, notes: &self.notes };
                let many = self.many.map(|records| Many { world: &self.world, records });
                let records: &dyn Records = many.as_ref().map_or(&few, |many| many);
                let (policies, instances, checkpoints, queue) = (store, store, store, store);
                let worker = RewriteShard { policies, instances, checkpoints, records, queue, ids, clock };
                worker.run(work, SignedDuration::from_secs(12)).await
            }
        }
    }

    /// Everything that was queued and decided comes to the mail.
    async fn collect(&self) {
        for row in self.world.store.outbox() {
            let _ = self.world.deliver().run(&row).await;
        }
        let (store, now) = (&self.world.store, self.world.now());
        let mut mail = self.mail.lock().unwrap();
        mail.extend(store.take_published_effects().into_iter().map(|row| (now, Mail::Effect(row))));
        mail.extend(
            store.take_queued_effects().into_iter().map(|(row, wait)| (now + wait, Mail::Effect(row))),
        );
        mail.extend(store.take_queued_steps().into_iter().map(|(step, wait)| (now + wait, Mail::Step(step))));
        mail.extend(
            store.take_queued_shards().into_iter().map(|(work, wait)| (now + wait, Mail::Shard(work))),
        );
    }

    /// Delivers what is due, once; what fails comes again. Says whether there was anything.
    async fn turn(&self) -> bool {
        self.collect().await;
        let now = self.world.now();
        let due: Vec<Mail> = {
            let mut mail = self.mail.lock().unwrap();
            let (due, later): (Vec<_>, Vec<_>) = mail.drain(..).partition(|(at, _)| *at <= now);
            *mail = later;
            due.into_iter().map(|(_, mail)| mail).collect()
        };
        for mail in &due {
            let times = if self.doubled { 2 } else { 1 };
            let mut failed = false;
            for _ in 0..times {
                failed = self.deliver(mail).await.is_err();
                self.is_sound().await;
            }
            if failed {
                let again = now + SignedDuration::from_secs(30);
                self.mail.lock().unwrap().push((again, mail.clone()));
            }
        }
        self.collect().await;
        !due.is_empty()
    }

    async fn phase(&self) -> Option<Phase> {
        self.world.policy().await.reencryption.map(|job| job.phase)
    }

    /// Goes on until it is so.
    async fn until(&self, wanted: impl Fn(Option<Phase>) -> bool) {
        for turn in 0..400 {
            let phase = self.phase().await;
            if wanted(phase) {
                return;
            }
            self.turn().await;
            if let Some(Phase::Waiting { .. }) = self.phase().await {
                self.world.later(24 * 60 * 60);
            }
            self.world.later(3);
            // The tick, once in a while: it takes up what a lost message left.
            if turn % 40 == 39 {
                let _ = self.tick().await;
            }
        }
        panic!("it never comes to that: {:?}", self.world.policy().await.reencryption);
    }

    pub async fn through(&self) {
        self.until(|phase| phase.is_none()).await;
        while self.turn().await {
            self.world.later(60);
        }
    }

    /// INVARIANT (I6): every record names a data key that is there and that a known key wraps; and whenever the
    /// fence is open, no record waits for a data key that only keys wrap which the policy has no more.
    async fn is_sound(&self) {
        let policy = self.world.policy().await;
        let instances = self.world.instances().await;
        let instance = instances.iter().find(|one| one.app.as_str() == "jira").unwrap();
        let keys = self.world.store.data_keys(instance.id).await.unwrap();
        let records = self.notes.records.lock().unwrap().clone();
        for (id, record) in records {
            let key = keys.iter().find(|key| key.id == record.data_key);
            let key = key.unwrap_or_else(|| panic!("record {id} names a data key that nobody has"));
            assert_eq!(key.generation, record.generation);
            assert!(key.every_wrap().all(|wrap| policy.access_of(&wrap.key).is_some()), "{key:?}");
            for regional in policy.keys.values() {
                assert!(key.wrap_under(&regional.arn).is_some(), "record {id}: {key:?}");
            }
        }
    }

    /// Every record is read, by the data key that it names.
    async fn reads_everything(&self) {
        let ids: Vec<DataKeyId> =
            self.notes.records.lock().unwrap().values().map(|one| one.data_key).collect();
        for id in ids {
            let choice = DataKeyChoice::Id(id);
            let given = self.world.asks_for_key_as(NOTES_ROLE, "acme", choice).await;
            assert!(given.is_ok(), "{:?}", given.err());
        }
    }

    /// The old keys are gone.
    fn old_keys_answer(&self, answer: Observation) {
        for region in REGIONS {
            self.world.keys.answer(&self.world.key(region), answer);
        }
    }

    pub async fn view(&self, id: ReencryptionId) -> ReencryptionView {
        let World { store, clock, .. } = &self.world;
        let in_transit = self.world.settings().in_transit;
        let show =
            ShowReencryption { policies: store, checkpoints: store, backups: store, clock, in_transit };
        show.run(&self.world.name(), id).await.unwrap()
    }

    pub async fn said(&self) -> Vec<String> {
        let tickets = self.world.tickets().await;
        tickets.into_iter().flat_map(|ticket| ticket.comments).map(|comment| comment.body).collect()
    }
}

#[tokio::test]
async fn x1_everything_moves_to_the_new_keys_and_the_old_ones_can_be_deleted() {
    let stage = Stage::new(40).await;
    let id = stage.asks(Depth::Rekey).await;
    assert!(stage.view(id).await.cancellable);
    stage.until(|phase| matches!(phase, Some(Phase::Rewriting { .. }))).await;
    // From here on nothing needs the old keys, and the app's next record is under the new ones alone.
    stage.old_keys_answer(DISABLED);
    stage.writes(100).await;
    assert_eq!(stage.notes.records.lock().unwrap()[&100].generation, 2);
    stage.until(|phase| matches!(phase, Some(Phase::Waiting { .. }))).await;
    let waiting = stage.view(id).await;
    assert!(!waiting.ledger[0].safe_to_delete, "one scan is not enough");
    assert!(waiting.next_scan_at.is_some());
    stage.through().await;
    let view = stage.view(id).await;
    assert_eq!(view.status, "completed");
    assert_eq!(
        (view.progress.rewritten, view.progress.total, view.progress.estimated),
        (40, Some(41), false)
    );
    let ledger = &view.ledger[0];
    assert!(ledger.safe_to_delete, "{:?}", ledger.why);
    assert_eq!((ledger.data_keys, ledger.records, ledger.object_versions), (Some(0), Some(0), Some(0)));
    let policy = stage.world.policy().await;
    let instance = stage.world.instances().await.remove(0);
    for key in stage.world.store.data_keys(instance.id).await.unwrap() {
        assert!(key.second.is_empty());
        assert!(key.every_wrap().all(|wrap| policy.keys.values().any(|known| known.arn == wrap.key)));
    }
    stage.world.later(600);
    stage.reads_everything().await;
    let said = stage.said().await;
    for words in ["started (rekey)", "the new keys: every one", "completed", "safe to delete"] {
        assert!(said.iter().any(|body| body.contains(words)), "{words}: {said:?}");
    }
}

#[tokio::test]
async fn i8_what_the_app_writes_meanwhile_wins_and_its_own_version_never_moves() {
    let stage = Stage::new(30).await;
    stage.asks(Depth::Rekey).await;
    for round in 0..60 {
        stage.writes(round % 30).await;
        stage.turn().await;
        stage.world.later(2);
    }
    stage.through().await;
    let records = stage.notes.records.lock().unwrap().clone();
    for (id, record) in records {
        assert_eq!(record.written, 3, "record {id}");
        assert_eq!(record.generation, 2, "record {id}");
    }
}

#[rstest]
#[tokio::test]
async fn x3_a_store_that_fails_or_a_crash_at_any_step_changes_nothing_about_the_outcome(
    #[values(0, 1, 2, 3, 5, 8, 13, 21, 34, 55)] step: usize,
    #[values(true, false)] conflict: bool,
    #[values(true, false)] doubled: bool,
) {
    let fault =
        if conflict { StoreError::Conflict } else { StoreError::Unavailable { reason: "test".to_owned() } };
    let mut stage = Stage::new(12).await;
    stage.doubled = doubled;
    let id = stage.asks(Depth::Rekey).await;
    for turn in 0..30 {
        stage.turn().await;
        stage.world.later(3);
        if turn == step {
            stage.world.store.fail_changes([fault.clone(), fault.clone(), fault.clone()]);
        }
        if turn == step + 1 {
            let reason = "test".to_owned();
            stage.world.store.fail_calls([CallError { what: "a queue", reason }]);
        }
    }
    stage.through().await;
    let view = stage.view(id).await;
    assert_eq!(view.status, "completed");
    assert!(view.ledger[0].safe_to_delete);
    assert!(stage.notes.records.lock().unwrap().values().all(|record| record.generation == 2));
    let instance = stage.world.instances().await.remove(0);
    assert_eq!(stage.world.store.data_keys(instance.id).await.unwrap().len(), 2, "one old, one new");
}

#[tokio::test]
async fn x3_a_worker_that_is_killed_anywhere_redoes_one_batch_at_most() {
    let (calm, killed) = (Stage::new(40).await, Stage::new(40).await);
    let mut batches = Vec::new();
    for (stage, kill) in [(&calm, false), (&killed, true)] {
        stage.asks(Depth::Rekey).await;
        stage.until(|phase| matches!(phase, Some(Phase::Rewriting { .. }))).await;
        while !matches!(stage.phase().await, Some(Phase::Waiting { .. })) {
            // A kill after a batch and before its checkpoint.
            if kill && *stage.notes.batches.lock().unwrap() == 5 {
                stage.world.store.fail_changes([StoreError::Unavailable { reason: "killed".to_owned() }]);
            }
            stage.turn().await;
            stage.world.later(3);
        }
        batches.push(*stage.notes.batches.lock().unwrap());
    }
    assert!(batches[1] <= batches[0] + 1, "{batches:?}");
    assert!(killed.notes.records.lock().unwrap().values().all(|record| record.generation == 2));
}

#[tokio::test]
async fn x3_messages_that_are_lost_are_made_up_for() {
    let stage = Stage::new(12).await;
    stage.asks(Depth::Rekey).await;
    for turn in 0..12 {
        stage.turn().await;
        stage.world.later(3);
        if turn % 3 == 2 {
            stage.mail.lock().unwrap().clear();
            stage.world.later(200);
            stage.tick().await.unwrap();
        }
    }
    stage.through().await;
    assert!(stage.notes.records.lock().unwrap().values().all(|record| record.generation == 2));
}

#[tokio::test]
async fn x3_an_old_key_lost_while_it_prepares_is_done_without() {
    let stage = Stage::new(6).await;
    stage.world.keys.answer(&stage.world.key("eu-central-1"), DISABLED);
    let id = {
        // Asked before anybody knows.
        let id = stage.asks(Depth::Rekey).await;
        stage.world.sweep().await.unwrap();
        id
    };
    assert!(stage.world.policy().await.is_degraded());
    stage.through().await;
    assert_eq!(stage.view(id).await.status, "completed");
    assert!(!stage.world.policy().await.is_degraded());
}

#[tokio::test]
async fn x3_a_new_key_lost_before_the_switch_stops_the_job_and_it_goes_on_when_the_key_is_back() {
    let stage = Stage::new(6).await;
    let lost = stage.new_key("eu-west-1");
    stage.world.keys.answer(&lost, DISABLED);
    let id = stage.asks(Depth::Rekey).await;
    for _ in 0..20 {
        stage.turn().await;
        stage.world.later(3);
    }
    assert_eq!(stage.phase().await, Some(Phase::Preparing));
    let stopped = stage.view(id).await.stopped.unwrap();
    assert_eq!(stopped, "while preparing: the new key in eu-west-1 refuses");
    stage.writes(7).await;
    stage.reads_everything().await;
    stage.world.keys.answer(&lost, USABLE);
    stage.through().await;
    assert_eq!(stage.view(id).await.status, "completed");
    let said = stage.said().await;
    assert_eq!(said.iter().filter(|body| body.contains("stopped while preparing")).count(), 1, "told once");
}

#[tokio::test]
async fn k1_what_is_accepted_while_it_prepares_is_asked_of_the_new_keys_before_the_policy_gets_them() {
    let stage = Stage::new(6).await;
    let id = stage.asks(Depth::Rekey).await;
    let template = KeyPolicyTemplate {
        version: builders::parsed("2027-01-15"),
        permissions: [KeyPermission::DescribeKey].into(),
        decide_by: stage.world.now() + SignedDuration::from_hours(24 * 30),
        published_at: stage.world.now(),
        published_by: builders::parsed("sam"),
    };
    stage.happens(PolicyEvent::AccessRequested { template }).await;
    let request = stage.world.policy().await.access_requests[0].id;
    let proven = REGIONS.map(builders::parsed).into();
    stage.happens(PolicyEvent::AccessGranted { request, proven }).await;

    let new = stage.new_key("eu-west-1");
    stage.world.keys.describe_as(&new, Err(DENIED));
    for _ in 0..20 {
        stage.turn().await;
        stage.world.later(3);
    }
    assert_eq!(stage.phase().await, Some(Phase::Preparing));
    assert_eq!(stage.view(id).await.stopped.unwrap(), "while preparing: the new key in eu-west-1 refuses");
    stage.reads_everything().await;
    stage.world.keys.describe_as(&new, Ok(a_description()));
    stage.through().await;
    assert_eq!(stage.view(id).await.status, "completed");
}

#[tokio::test]
async fn x3_losing_both_new_keys_in_the_middle_cuts_off_and_restoration_lets_the_job_finish() {
    let stage = Stage::new(24).await;
    let id = stage.asks(Depth::Rekey).await;
    stage.until(|phase| matches!(phase, Some(Phase::Rewriting { .. }))).await;
    stage.world.later(60);
    for region in REGIONS {
        stage.world.keys.answer(&stage.new_key(region), DISABLED);
    }
    stage.world.sweep().await.unwrap();
    for _ in 0..10 {
        stage.turn().await;
        stage.world.later(3);
    }
    assert!(!stage.world.policy().await.fence.is_open());
    let stopped = stage.view(id).await.stopped.unwrap();
    assert!(stopped.contains("while rewriting") && stopped.contains("cut off"), "{stopped}");
    assert!(stage.world.asks_for_key().await.is_err(), "the old keys, which work, open nothing");
    let before = stage.notes.batches.lock().unwrap().to_owned();
    for _ in 0..10 {
        stage.turn().await;
        stage.world.later(60);
    }
    assert_eq!(*stage.notes.batches.lock().unwrap(), before, "it stands still");
    for region in REGIONS {
        stage.world.keys.answer(&stage.new_key(region), USABLE);
    }
    stage.world.ask_for_restoration().await;
    stage.through().await;
    assert_eq!(stage.view(id).await.status, "completed");
    stage.reads_everything().await;
}

#[tokio::test]
async fn x3_losing_both_old_keys_while_it_prepares_cuts_off_and_restoration_lets_the_job_finish() {
    let stage = Stage::new(6).await;
    let id = stage.asks(Depth::Rekey).await;
    stage.old_keys_answer(DISABLED);
    stage.world.sweep().await.unwrap();
    for _ in 0..10 {
        stage.turn().await;
        stage.world.later(3);
    }
    assert!(!stage.world.policy().await.fence.is_open());
    assert_eq!(stage.phase().await, Some(Phase::Preparing));
    let stopped = stage.view(id).await.stopped.unwrap();
    assert!(stopped.contains("while preparing") && stopped.contains("cut off"), "{stopped}");
    assert!(stage.world.asks_for_key().await.is_err(), "the new keys, which work, open nothing");
    stage.world.later(60);
    stage.world.ask_for_restoration().await;
    stage.through().await;
    assert_eq!(stage.view(id).await.status, "completed");
    stage.reads_everything().await;
}

#[tokio::test]
async fn x3_old_keys_that_are_lost_after_the_switch_are_missed_by_nobody() {
    let stage = Stage::new(24).await;
    let id = stage.asks(Depth::Rekey).await;
    stage.until(|phase| matches!(phase, Some(Phase::Rewriting { .. }))).await;
    stage.old_keys_answer(DISABLED);
    stage.world.later(60);
    stage.world.sweep().await.unwrap();
    let policy = stage.world.policy().await;
    assert!(policy.fence.is_open() && !policy.is_degraded());
    stage.writes(3).await;
    stage.writes(99).await;
    stage.through().await;
    assert_eq!(stage.view(id).await.status, "completed");
    stage.reads_everything().await;
}

#[tokio::test]
async fn x2_a_job_that_is_cancelled_leaves_no_trace_in_the_registry() {
    let stage = Stage::new(6).await;
    let instance = stage.world.instances().await.remove(0);
    let before = stage.world.store.data_keys(instance.id).await.unwrap();
    let job = stage.asks(Depth::Rekey).await;
    stage.turn().await;
    assert_ne!(stage.world.store.data_keys(instance.id).await.unwrap(), before, "it was at work");
    stage.happens(PolicyEvent::ReencryptionCancelled { job }).await;
    stage.through().await;
    assert_eq!(stage.world.store.data_keys(instance.id).await.unwrap(), before);
    assert_eq!(stage.world.policy().await.reencryptions[0].outcome, Outcome::Cancelled);
    assert_eq!(stage.view(job).await.status, "cancelled");
    stage.world.later(600);
    stage.reads_everything().await;
}

#[tokio::test]
async fn x2_a_pause_stands_still_and_a_resume_goes_on_where_it_was() {
    let stage = Stage::new(24).await;
    let job = stage.asks(Depth::Rekey).await;
    stage.until(|phase| matches!(phase, Some(Phase::Rewriting { .. }))).await;
    stage.turn().await;
    stage.happens(PolicyEvent::ReencryptionPaused { job }).await;
    for _ in 0..20 {
        stage.turn().await;
        stage.world.later(60);
        stage.tick().await.unwrap();
    }
    let paused = stage.view(job).await;
    assert!(paused.paused_at.is_some() && paused.status == "rewriting", "{paused:?}");
    stage.writes(3).await;
    stage.happens(PolicyEvent::ReencryptionResumed { job }).await;
    stage.through().await;
    assert_eq!(stage.view(job).await.status, "completed");
}

#[tokio::test]
async fn x1_a_rewrap_touches_no_record_and_makes_no_old_key_safe_to_delete() {
    let stage = Stage::new(12).await;
    let before = stage.notes.records.lock().unwrap().clone();
    let id = stage.asks(Depth::Rewrap).await;
    stage.through().await;
    assert_eq!(*stage.notes.records.lock().unwrap(), before);
    assert_eq!(*stage.notes.batches.lock().unwrap(), 0);
    let view = stage.view(id).await;
    assert_eq!(view.status, "completed");
    assert!(!view.ledger[0].safe_to_delete);
    assert!(view.ledger[0].why[0].contains("`rekey` moves them"), "{:?}", view.ledger[0].why);
    stage.world.later(600);
    stage.old_keys_answer(DISABLED);
    stage.reads_everything().await;
}

/// Uses of keys for data keys so far, each named once a key.
fn used(stage: &Stage, operation: &str) -> Vec<KeyArn> {
    let of_data_key = |call: &KeyCall| {
        let purpose = call.context.get(CONTEXT_PURPOSE).map(String::as_str);
        call.operation == operation && !call.dry_run && purpose == Some(PURPOSE_DATA_KEY)
    };
    stage.world.keys.calls().into_iter().filter(of_data_key).map(|call| call.key).collect()
}

#[rstest]
#[tokio::test]
async fn x1_data_keys_move_within_their_region_and_do_not_come_into_the_clear(
    #[values(Depth::Rewrap, Depth::Rekey)] depth: Depth,
) {
    let stage = Stage::new(6).await;
    stage.world.keys.forget_calls();
    stage.asks(depth).await;
    stage.until(|phase| matches!(phase, Some(Phase::Rewriting { .. } | Phase::Finishing) | None)).await;
    assert!(used(&stage, "Decrypt").is_empty(), "no data key was unwrapped");
    let moved = used(&stage, "ReEncrypt");
    for region in REGIONS {
        for key in [stage.world.key(region), stage.new_key(region)] {
            assert_eq!(moved.iter().filter(|known| **known == key).count(), 1, "{key}: {moved:?}");
        }
    }
    stage.through().await;
    stage.old_keys_answer(DISABLED);
    stage.world.later(600);
    stage.reads_everything().await;
}

#[tokio::test]
async fn x3_where_reencrypt_is_not_granted_or_its_region_is_lost_data_keys_are_unwrapped_elsewhere() {
    for lost in [None, Some("eu-west-1")] {
        let stage = Stage::new(6).await;
        match lost {
            None => stage.world.keys.grant_not("ReEncrypt"),
            Some(region) => stage.world.keys.answer(&stage.world.key(region), DISABLED),
        }
        stage.world.keys.forget_calls();
        let id = stage.asks(Depth::Rewrap).await;
        stage.through().await;
        assert_eq!(stage.view(id).await.status, "completed", "{lost:?}");
        assert!(!used(&stage, "Decrypt").is_empty(), "{lost:?}");
        stage.old_keys_answer(DISABLED);
        stage.world.later(600);
        stage.reads_everything().await;
    }
}

#[tokio::test]
async fn x6_from_a_role_to_key_policies_there_is_no_one_who_could_reencrypt() {
    let stage = Stage::byok(3).await;
    for region in REGIONS {
        stage.make_key(&stage.new_key(region));
    }
    stage.world.keys.forget_calls();
    stage.asks(Depth::Rewrap).await;
    stage.through().await;
    assert!(used(&stage, "ReEncrypt").is_empty());
    assert_eq!(stage.world.policy().await.mode(), Mode::Cmk);
}

/// Records of which nobody says how many they are, that one has to go through to know.
struct Many<'a> {
    world: &'a World,
    records: u64,
}

#[async_trait]
impl Records for Many<'_> {
    async fn batch(
        &self,
        of: &ShardCheckpoint,
        _: &OrganisationName,
        _: u32,
        scan: bool,
    ) -> Result<RecordBatch, RecordsError> {
        self.world.later(1);
        // The parts are alike, and the first of them is slower than the others.
        let most = if of.place.index == 0 { 5_000 } else { 20_000 };
        let parts = u64::from(of.of);
        let ours = self.records / parts + u64::from(u64::from(of.place.index) < self.records % parts);
        let done: u64 = of.cursor.as_ref().map_or(0, |cursor| cursor.parse().unwrap());
        let seen = most.min(ours - done);
        let counts = if scan {
            Counts { seen, current: seen, ..Counts::default() }
        } else {
            Counts { seen, rewritten: seen, ..Counts::default() }
        };
        let next = Some(done + seen).filter(|done| *done < ours).map(|done| done.to_string());
        Ok(RecordBatch { counts, next })
    }

    async fn estimate(&self, _: &ShardCheckpoint, _: &OrganisationName) -> Result<Option<u64>, RecordsError> {
        Ok(None)
    }
}

#[rstest]
#[tokio::test]
async fn x2_ten_records_and_ten_millions_are_planned_alike_without_a_count_beforehand(
    #[values(0, 1, 10, 10_000_000)] records: u64,
) {
    let mut stage = Stage::new(0).await;
    stage.many = Some(records);
    let id = stage.asks(Depth::Rekey).await;
    stage.until(|phase| matches!(phase, Some(Phase::Rewriting { .. }))).await;
    let show = async || stage.view(id).await.progress;
    assert_eq!((show().await.total, show().await.estimated), (None, true), "nobody knows yet");
    let mut estimates = Vec::new();
    while let Some(Phase::Rewriting { .. }) = stage.phase().await {
        stage.turn().await;
        stage.world.later(3);
        let progress = show().await;
        if progress.pass == Some(1) && progress.estimated && progress.shards_done > 0 {
            estimates.push((progress.total, progress.rate_per_second, progress.seconds_left));
        }
    }
    if records == 10_000_000 {
        let (total, rate, left) = *estimates.last().expect("some parts are through before others");
        assert_eq!(total, Some(records));
        assert!(rate.is_some_and(|rate| rate > 0.0) && left.is_some(), "{rate:?} {left:?}");
        assert!(stage.messages() > 40, "a message works for a limited time");
    } else {
        assert!(stage.messages() < 20, "{} messages for {records} records", stage.messages());
    }
    stage.through().await;
    let view = stage.view(id).await;
    assert_eq!((view.status, view.ledger[0].safe_to_delete), ("completed", true));
    let progress = view.progress;
    assert_eq!((progress.total, progress.estimated, progress.rewritten), (Some(records), false, records));
    let World { store, .. } = &stage.world;
    let parts = store.shards(id, None, 200).await.unwrap().items;
    assert_eq!(
        parts.len(),
        usize::from(stage.world.settings().record_shards),
        "whatever the number of records"
    );
}

#[tokio::test]
async fn x2_progress_is_shown_for_each_instance_and_each_part() {
    let mut stage = Stage::new(0).await;
    stage.many = Some(1_000_000);
    let id = stage.asks(Depth::Rekey).await;
    let shown = async |stage: &Stage| {
        let World { store, clock, .. } = &stage.world;
        let (policies, instances, checkpoints) = (store, store, store);
        let show = ShowReencryptedInstances { policies, instances, checkpoints, clock };
        show.run(&stage.world.name(), id, None, 50).await.unwrap().items.remove(0)
    };
    assert!(shown(&stage).await.shards.is_empty(), "before its records are worked");
    stage.until(|phase| matches!(phase, Some(Phase::Rewriting { .. }))).await;
    let mut seen = Vec::new();
    while let Some(Phase::Rewriting { .. }) = stage.phase().await {
        stage.turn().await;
        stage.world.later(3);
        let all = stage.view(id).await.progress;
        let instance = shown(&stage).await;
        let of_parts: u64 = instance.shards.iter().map(|part| part.done).sum();
        assert_eq!(instance.done, of_parts);
        if all.pass == Some(1) {
            assert!(instance.done >= all.done, "the planner sums up now and then");
            seen.push(instance);
        }
    }
    let midway = seen.iter().find(|one| one.estimated && one.shards.iter().any(|part| part.through));
    let midway = midway.expect("some parts are through before others");
    assert_eq!((midway.app.as_str(), midway.shards.len()), ("jira", 4));
    assert_eq!(
        (midway.total, midway.rate_per_second.is_some(), midway.seconds_left.is_some()),
        (Some(1_000_000), true, true)
    );
    let slow = midway.shards.iter().find(|part| !part.through).unwrap();
    assert_eq!((slow.total, slow.estimated), (Some(250_000), true));
    stage.through().await;
    let ended = shown(&stage).await;
    assert_eq!((ended.done, ended.total, ended.estimated), (1_000_000, Some(1_000_000), false));
    assert!(ended.shards.iter().all(|part| part.through && part.total == Some(250_000)));
}

#[rstest]
#[case::cmk(false, "Re-encryption for AWS account 222222222222")]
#[case::byok(true, "BYOK re-encryption for AWS account 222222222222")]
#[tokio::test]
async fn x5_started_paused_resumed_and_completed_are_told_under_the_documents_titles(
    #[case] byok: bool,
    #[case] title: &str,
) {
    let stage = if byok { Stage::byok(6).await } else { Stage::new(6).await };
    let job = if byok {
        stage
            .happens(PolicyEvent::ReencryptionRequested { keys: BTreeMap::new(), depth: Depth::Rekey })
            .await;
        stage.world.policy().await.reencryption.unwrap().id
    } else {
        stage.asks(Depth::Rekey).await
    };
    stage.until(|phase| matches!(phase, Some(Phase::Rewriting { .. }))).await;
    stage.happens(PolicyEvent::ReencryptionPaused { job }).await;
    stage.turn().await;
    stage.happens(PolicyEvent::ReencryptionResumed { job }).await;
    stage.through().await;
    let tickets = stage.world.tickets().await;
    let ticket = tickets.iter().find(|ticket| ticket.title == title);
    let ticket = ticket.unwrap_or_else(|| panic!("{tickets:?}"));
    assert!(ticket.resolved_at.is_some());
    let mut said = ticket.comments.iter().map(|comment| comment.body.as_str());
    for words in
        ["Re-encryption started", "Re-encryption paused", "Re-encryption resumed", "Re-encryption completed"]
    {
        assert!(said.any(|body| body.contains(words)), "{words}, in this order: {:?}", ticket.comments);
    }
}

#[tokio::test]
async fn x4_fewer_parts_deployed_in_the_middle_of_a_job_leave_no_record_out() {
    let mut stage = Stage::new(40).await;
    let id = stage.asks(Depth::Rekey).await;
    stage.until(|phase| matches!(phase, Some(Phase::Rewriting { .. }))).await;
    stage.until(|phase| matches!(phase, Some(Phase::Scanning { .. }))).await;
    stage.record_shards = Some(1);
    stage.through().await;
    let progress = stage.view(id).await.progress;
    let parts = stage.world.store.shards(id, None, 200).await.unwrap().items;
    assert_eq!((parts.len(), progress.total, progress.rewritten), (4, Some(40), 40));
}

#[tokio::test]
async fn x4_a_backup_with_wrapped_keys_of_its_own_keeps_the_old_keys_until_it_expires() {
    let stage = Stage::new(3).await;
    let id = stage.asks(Depth::Rekey).await;
    stage.through().await;
    let now = stage.world.now();
    let backup = |id: &str, holds_wrapped_keys| Backup {
        id: id.to_owned(),
        taken_at: now,
        expires_at: now + SignedDuration::from_hours(48),
        generation: 1,
        holds_wrapped_keys,
        brought_back_at: None,
    };
    for backup in [backup("whole", true), backup("records-only", false)] {
        stage.world.store.save_backup(&stage.world.name(), &backup).await.unwrap();
    }
    let ledger = stage.view(id).await.ledger.remove(0);
    assert!(!ledger.safe_to_delete);
    assert_eq!(ledger.backups, ["whole"], "the other is opened by the data keys that are kept");
    stage.world.later(3 * 24 * 60 * 60);
    assert!(stage.view(id).await.ledger[0].safe_to_delete);
}

#[rstest]
#[case::throttled(RecordsError::Store { reason: "throttled".to_owned() }, false)]
#[case::no_keys(RecordsError::TemporarilyUnavailable, false)]
#[case::unreadable(RecordsError::Unreadable { record: "n7".to_owned(), reason: "damaged".to_owned() }, true)]
#[tokio::test]
async fn x3_a_shard_that_cannot_be_worked_is_tried_again_from_its_checkpoint(
    #[case] fault: RecordsError,
    #[case] shown: bool,
) {
    let stage = Stage::new(12).await;
    let id = stage.asks(Depth::Rekey).await;
    stage.until(|phase| matches!(phase, Some(Phase::Rewriting { .. }))).await;
    *stage.notes.faults.lock().unwrap() = vec![fault; 4];
    for _ in 0..6 {
        stage.turn().await;
        stage.world.later(3);
    }
    assert_eq!(stage.view(id).await.progress.fault.is_some(), shown, "what does not heal by itself is shown");
    stage.through().await;
    assert_eq!(stage.view(id).await.status, "completed");
}

#[tokio::test]
async fn i6_a_key_that_gives_no_answer_while_it_prepares_costs_time_alone() {
    let stage = Stage::new(3).await;
    let silent =
        [Observation::NoAnswer(NoAnswerKind::Throttled), Observation::NoAnswer(NoAnswerKind::Unreachable)];
    stage.world.keys.answer_next(&stage.new_key("eu-west-1"), silent);
    let id = stage.asks(Depth::Rekey).await;
    stage.through().await;
    assert_eq!(stage.view(id).await.status, "completed");
    assert!(!stage.said().await.iter().any(|body| body.contains("stopped")), "silence stops nothing");
}

#[tokio::test]
async fn i6_an_app_that_is_added_while_it_prepares_waits_for_its_data_key() {
    let stage = Stage::new(3).await;
    let id = stage.asks(Depth::Rekey).await;
    let policy = stage.world.policy().await;
    let asked = builders::an_instance_decision(&policy, "acme-eng", "confluence", stage.world.now());
    claviger_app::ports::Instances::commit_instance(&stage.world.store, None, &asked).await.unwrap();
    let event = claviger_domain::event::InstanceEvent::InstanceApproved;
    let approved =
        builders::instance_decided(&asked.next, &event, &builders::by_support(), stage.world.now());
    let store = &stage.world.store;
    claviger_app::ports::Instances::commit_instance(store, Some(&asked.next), &approved).await.unwrap();
    let waits = stage.world.provision(asked.next.id).await;
    assert!(matches!(waits, Err(WorkError::NotNow { .. })), "{waits:?}");
    stage.through().await;
    let keys = stage.world.store.data_keys(asked.next.id).await.unwrap();
    assert_eq!(keys.iter().map(|key| key.generation).collect::<Vec<_>>(), [2]);
    assert_eq!(stage.view(id).await.status, "completed");
}

#[tokio::test]
async fn i6_versions_that_were_made_right_before_a_job_and_during_it_move_with_the_others() {
    const TWO_DAYS: i64 = 2 * 24 * 60 * 60;
    let stage = Stage::new(6).await;
    let instance = stage.world.instances().await.remove(0).id;
    let newer = async |newer_than, version| {
        let wanted = NewerDataKey { instance, newer_than, correlation: crate::world::correlation() };
        let made = stage.world.makes_newer(&wanted).await.unwrap();
        assert_eq!(made, Renewal::Made { version });
    };
    stage.world.later(TWO_DAYS);
    newer(1, 2).await;
    stage.writes(100).await;
    assert_eq!(stage.world.asks_for_key().await.unwrap().version, 2);
    let id = stage.asks(Depth::Rekey).await;
    stage.until(|phase| matches!(phase, Some(Phase::Rewriting { .. }))).await;
    assert_eq!(stage.world.asks_for_key().await.unwrap().version, 3, "the job made it, of its generation");
    stage.world.later(TWO_DAYS);
    newer(3, 4).await;
    stage.writes(101).await;
    stage.through().await;
    assert_eq!(stage.view(id).await.status, "completed");
    let keys = stage.world.store.data_keys(instance).await.unwrap();
    assert_eq!(keys.iter().map(|key| key.generation).collect::<Vec<_>>(), [1, 1, 2, 2]);
    for key in &keys {
        let arns: Vec<&KeyArn> = key.every_wrap().map(|wrap| &wrap.key).collect();
        assert_eq!(arns, REGIONS.map(|region| stage.new_key(region)).iter().collect::<Vec<_>>());
    }
    stage.old_keys_answer(DISABLED);
    stage.world.later(600);
    stage.reads_everything().await;
}

impl Stage {
    /// An organisation whose keys the service made.
    async fn byok(records: u64) -> Self {
        let world = World::with_byok_acme().await;
        let stage = Self::of(world);
        for id in 0..records {
            stage.writes(id).await;
        }
        stage
    }
}

#[tokio::test]
async fn x1_a_byok_organisation_moves_to_keys_that_are_made_through_its_role() {
    let stage = Stage::byok(9).await;
    let old: Vec<KeyArn> = stage.world.policy().await.keys.values().map(|key| key.arn.clone()).collect();
    stage.happens(PolicyEvent::ReencryptionRequested { keys: BTreeMap::new(), depth: Depth::Rekey }).await;
    let id = stage.world.policy().await.reencryption.unwrap().id;
    stage.through().await;
    let view = stage.view(id).await;
    assert_eq!((view.status, view.ledger[0].safe_to_delete), ("completed", true));
    let policy = stage.world.policy().await;
    assert_eq!(policy.mode(), Mode::Byok);
    assert!(policy.keys.values().all(|key| !old.contains(&key.arn)));
    for key in &old {
        stage.world.keys.answer(key, DISABLED);
    }
    stage.world.later(600);
    stage.reads_everything().await;
}

/// A BYOK job whose second key could not be made at first, and the key that was: its check is still to come.
async fn half_made(stage: &Stage) -> KeyArn {
    let dublin: Region = builders::parsed("eu-west-1");
    stage.world.keys.making_answers(&dublin, Observation::NoAnswer(NoAnswerKind::Unreachable));
    stage.happens(PolicyEvent::ReencryptionRequested { keys: BTreeMap::new(), depth: Depth::Rekey }).await;
    for _ in 0..40 {
        stage.turn().await;
        stage.world.later(3);
    }
    stage.world.keys.making_answers(&dublin, USABLE);
    let frankfurt = builders::parsed("eu-central-1");
    let role = builders::an_organisation("acme").external_id;
    let role = CustomerRole { arn: stage.world.role(), external_id: role };
    let organisation = builders::an_organisation("acme").id;
    let found = stage.world.keys.find_key(&role, &frankfurt, organisation, KeyLabel::first_of(2)).await;
    found.unwrap().expect("the first key was made")
}

#[rstest]
#[tokio::test]
async fn r3_no_answer_of_a_new_key_that_is_checked_is_no_refusal_and_the_job_goes_on_by_itself(
    #[values(NoAnswerKind::Throttled, NoAnswerKind::Unreachable)] kind: NoAnswerKind,
    // The round trip, another organisation's context, three actions, and, the last, the description.
    #[values(0, 1, 2, 3, 4, 5, 6)] call: usize,
) {
    let stage = Stage::byok(3).await;
    let key = half_made(&stage).await;
    let answers = std::iter::repeat_n(USABLE, call).chain([Observation::NoAnswer(kind)]);
    if call < 6 {
        stage.world.keys.answer_next(&key, answers);
    } else {
        stage.world.keys.describe_as(&key, Err(Observation::NoAnswer(kind)));
    }
    stage.until(|_| stage.world.keys.made_count() == 4).await;
    stage.turn().await;
    let job = stage.world.policy().await.reencryption.unwrap();
    assert!(job.keys.is_empty() && job.fault.is_none(), "not proven, not refused: {job:?}");
    stage.world.keys.describe_as(&key, Ok(a_description()));
    stage.through().await;
    assert_eq!(stage.world.policy().await.reencryptions[0].outcome, Outcome::Completed);
    let facts = stage.world.store.all_facts(&stage.world.name());
    assert!(facts.iter().all(|fact| fact.slug != "reencryption-hindered"));
    let said = stage.said().await;
    assert!(said.iter().all(|body| !body.contains("refuses")), "{said:?}");
}

#[rstest]
#[case::answers_elsewhere(USABLE)]
#[case::and_the_other_gives_no_answer(Observation::NoAnswer(NoAnswerKind::Throttled))]
#[tokio::test]
async fn r3_a_new_key_that_refuses_its_check_stops_the_job_and_the_ticket_says_so(
    #[case] other: Observation,
) {
    let stage = Stage::byok(3).await;
    let key = half_made(&stage).await;
    stage.world.keys.answer(&key, DISABLED);
    stage.until(|_| stage.world.keys.made_count() == 4).await;
    let dublin: KeyArn = key.as_str().replace("eu-central-1", "eu-west-1").parse().unwrap();
    stage.world.keys.answer(&dublin, other);
    for _ in 0..20 {
        stage.turn().await;
        stage.world.later(3);
    }
    let job = stage.world.policy().await.reencryption.unwrap();
    assert_eq!(job.fault.unwrap().region.as_str(), "eu-central-1");
    let said = stage.said().await;
    assert!(said.iter().any(|body| body.contains("the new key in eu-central-1 refuses")), "{said:?}");
    stage.world.keys.answer(&key, USABLE);
    stage.world.keys.answer(&dublin, USABLE);
    stage.through().await;
    assert_eq!(stage.world.policy().await.reencryptions[0].outcome, Outcome::Completed);
}

#[tokio::test]
async fn x6_a_byok_organisation_that_names_keys_of_its_own_becomes_cmk_when_the_job_completes() {
    let stage = Stage::byok(9).await;
    for region in REGIONS {
        stage.make_key(&stage.new_key(region));
    }
    stage.asks(Depth::Rekey).await;
    stage.until(|phase| matches!(phase, Some(Phase::Scanning { .. }))).await;
    assert_eq!(stage.world.policy().await.mode(), Mode::Byok);
    stage.through().await;
    assert_eq!(stage.world.policy().await.mode(), Mode::Cmk);
    assert!(stage.notes.records.lock().unwrap().values().all(|record| record.generation == 2));
    // The role is not needed any more.
    stage.world.keys.delete_role(&stage.world.role());
    stage.world.later(600);
    stage.reads_everything().await;
}
