//! The function as its queue and its schedule call it: messages in, failures out, over stores, keys and queues in
//! memory. Workers are played: a part of the records is through as soon as its message is there.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use aws_lambda_events::event::sqs::SqsBatchResponse;
use claviger_app::carry_reencryption::CarryReencryption;
use claviger_app::check_enrolment::CheckEnrolment;
use claviger_app::make_data_key::MakeDataKey;
use claviger_app::ports::{
    CallError, Checkpoints, Clock, DataKeyRegistry, Instances, Organisations, Policies, StoreError,
    WrappedDataKey,
};
use claviger_app::probe_keys::ProbeKeys;
use claviger_app::provision_instance::ProvisionInstance;
use claviger_app::reencryption::{JobStep, ShardWork};
use claviger_app::usage::{FlushUsage, UsageMeter};
use claviger_domain::decide::{Decision, Refusal, decide};
use claviger_domain::effect::{Effect, OutboxRow};
use claviger_domain::event::{InstanceEvent, PolicyEvent};
use claviger_domain::ids::{CorrelationId, InstanceId, PolicyId, ReencryptionId};
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::reencryption::{Depth, Outcome, Phase};
use claviger_domain::values::{AccountId, KeyArn, OrganisationName, Region};
use claviger_reencryption_planner::{Input, Planner, Tick};
use claviger_testkit::builders::{
    a_key, an_enrolment, an_instance_decision, an_organisation, by_admin, by_support, commit_active_policy,
    instance_decided, parsed, rules, settings,
};
use claviger_testkit::{FakeClock, FakeKeys, MemoryWorld, SequentialIds};
use jiff::SignedDuration;
use serde_json::{Value, json};

const ACCOUNT: &str = "222222222222";
const REGIONS: [&str; 2] = ["eu-central-1", "eu-west-1"];

/// What goes wrong with one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The first change of the store fails: the claim.
    Claim,
    /// A decision is not stored.
    Commit,
    /// A decision is stored, and the answer lost.
    Answer,
    /// The next message cannot be queued.
    Queue,
}

/// Policies of which a commit goes wrong.
struct Wavering<'a> {
    world: &'a MemoryWorld,
    fault: Mutex<Option<Fault>>,
}

#[async_trait]
impl Policies for Wavering<'_> {
    async fn policy(&self, organisation: &OrganisationName) -> Result<Option<EncryptionPolicy>, StoreError> {
        self.world.policy(organisation).await
    }

    async fn policy_by_id(&self, id: PolicyId) -> Result<Option<EncryptionPolicy>, StoreError> {
        self.world.policy_by_id(id).await
    }

    async fn commit_policy(
        &self,
        previous: Option<&EncryptionPolicy>,
        decision: &Decision,
    ) -> Result<(), StoreError> {
        let fault = self.fault.lock().unwrap().take();
        match fault {
            Some(Fault::Commit) => Err(unavailable()),
            Some(Fault::Answer) => {
                self.world.commit_policy(previous, decision).await?;
                Err(unavailable())
            }
            Some(Fault::Claim | Fault::Queue) | None => self.world.commit_policy(previous, decision).await,
        }
    }

    async fn organisations_of_account(
        &self,
        account: &AccountId,
    ) -> Result<Vec<OrganisationName>, StoreError> {
        self.world.organisations_of_account(account).await
    }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable { reason: "test".to_owned() }
}

/// A message of the queue, and when it is due.
#[derive(Debug, Clone)]
struct Mail {
    body: String,
    wait: SignedDuration,
}

struct Stage {
    world: MemoryWorld,
    keys: FakeKeys,
    clock: FakeClock,
    ids: SequentialIds,
    meter: UsageMeter,
    instance: InstanceId,
}

impl Stage {
    /// Acme with one encrypted instance and two keys to move to.
    async fn new() -> Self {
        let (world, keys, clock, ids) =
            (MemoryWorld::new(), FakeKeys::new(), FakeClock::default(), SequentialIds::default());
        let acme = an_organisation("acme");
        for number in [1, 2] {
            for region in REGIONS {
                let key = a_key(ACCOUNT, region, number);
                keys.create(&key);
                keys.bind(&key, acme.id);
            }
        }
        let now = clock.now();
        let policy = commit_active_policy(&world, &acme, &an_enrolment(ACCOUNT, "europe"), now).await;
        let asked = an_instance_decision(&policy, "acme-eng", "jira", now);
        world.commit_instance(None, &asked).await.unwrap();
        let approved = instance_decided(&asked.next, &InstanceEvent::InstanceApproved, &by_support(), now);
        world.commit_instance(Some(&asked.next), &approved).await.unwrap();
        let instance = approved.next.id;
        world.save_organisation(&acme).await.unwrap();
        let provision = ProvisionInstance {
            organisations: &world,
            instances: &world,
            policies: &world,
            make: MakeDataKey { registry: &world, keys: &keys, ids: &ids, clock: &clock },
            clock: &clock,
            settings: settings(),
        };
        provision.run(instance, CorrelationId::from_uuid(SequentialIds::uuid(1))).await.unwrap();
        clock.advance(SignedDuration::from_secs(60));
        let meter = UsageMeter::new(SignedDuration::from_mins(15));
        Self { world, keys, clock, ids, meter, instance }
    }

    fn name() -> OrganisationName {
        parsed("acme")
    }

    async fn policy(&self) -> EncryptionPolicy {
        self.world.policy(&Self::name()).await.unwrap().unwrap()
    }

    async fn data_keys(&self) -> Vec<WrappedDataKey> {
        self.world.data_keys(self.instance).await.unwrap()
    }

    fn new_keys() -> BTreeMap<Region, KeyArn> {
        REGIONS.map(|region| (parsed(region), a_key(ACCOUNT, region, 2))).into()
    }

    async fn decides(&self, event: PolicyEvent) -> Result<(), Refusal> {
        let policy = self.policy().await;
        let decision = decide(&rules(), &policy, &event, &by_admin(), self.clock.now())?;
        self.world.commit_policy(Some(&policy), &decision).await.unwrap();
        Ok(())
    }

    async fn asks(&self) -> ReencryptionId {
        self.decides(PolicyEvent::ReencryptionRequested { keys: Self::new_keys(), depth: Depth::Rekey })
            .await
            .unwrap();
        self.policy().await.reencryption.unwrap().id
    }

    /// The orders of decisions, as the bus brings them.
    fn orders(&self) -> Vec<Mail> {
        let rows: Vec<OutboxRow> = self.world.outbox();
        let orders = rows.into_iter().filter(|row| matches!(row.effect, Effect::Reencrypt { .. }));
        let body = |row: OutboxRow| {
            json!({ "detail-type": "ReencryptionOrdered", "source": "claviger", "detail": row }).to_string()
        };
        orders.map(|row| Mail { body: body(row), wait: SignedDuration::ZERO }).collect()
    }

    fn steps(&self) -> Vec<Mail> {
        let queued: Vec<(JobStep, SignedDuration)> = self.world.take_queued_steps();
        queued
            .into_iter()
            .map(|(step, wait)| Mail { body: serde_json::to_string(&step).unwrap(), wait })
            .collect()
    }

    async fn invoked(&self, input: Input, fault: Option<Fault>) -> Result<Value, String> {
        let policies = Wavering { world: &self.world, fault: Mutex::new(fault) };
        let (world, keys, ids, clock) = (&self.world, &self.keys, &self.ids, &self.clock);
        let planner = Planner {
            carry: CarryReencryption {
                policies: &policies,
                watch: world,
                instances: world,
                registry: world,
                keys,
                probe: ProbeKeys { keys, controls: keys, registry: world, clock },
                checkpoints: world,
                backups: world,
                check: CheckEnrolment { keys, roles: keys, ids },
                queue: world,
                ids,
                clock,
                settings: settings(),
            },
            usage: FlushUsage { meter: &self.meter, records: world, ids, clock },
        };
        planner.handle(input).await.map_err(|error| error.to_string())
    }

    /// One invocation with a batch; the numbers of the messages that failed.
    async fn delivered(&self, bodies: &[String], fault: Option<Fault>) -> Vec<usize> {
        match fault {
            Some(Fault::Claim) => self.world.fail_changes([unavailable()]),
            Some(Fault::Queue) => {
                self.world.fail_calls([CallError { what: "the planner's queue", reason: "test".to_owned() }])
            }
            Some(Fault::Commit | Fault::Answer) | None => {}
        }
        let records: Vec<Value> = bodies
            .iter()
            .enumerate()
            .map(|(number, body)| json!({ "messageId": number.to_string(), "body": body }))
            .collect();
        let event = serde_json::from_value(json!({ "Records": records })).unwrap();
        let answer = self.invoked(Input::Queue(event), fault).await.unwrap();
        let response: SqsBatchResponse = serde_json::from_value(answer).unwrap();
        let failed = response.batch_item_failures.into_iter();
        failed.map(|failure| failure.item_identifier.parse().unwrap()).collect()
    }

    /// The workers are through with whatever part they were given.
    async fn workers_work(&self) {
        let queued: Vec<(ShardWork, SignedDuration)> = self.world.take_queued_shards();
        for (work, _) in queued {
            let mut shard = self.world.shard(work.place).await.unwrap().unwrap();
            if shard.done || shard.token != work.token {
                continue;
            }
            shard.done = true;
            shard.counts.seen = 10;
            shard.counts.current = 10;
            shard.version += 1;
            self.world.save_shard(&shard).await.unwrap();
        }
    }

    /// Goes on with these messages and what follows from them, one at a time, until nothing waits. One message fares
    /// badly; what fails is delivered again, as the queue does it. Says how many there were.
    async fn carried(&self, mut mail: Vec<Mail>, fault: Option<(usize, Fault)>) -> usize {
        for number in 0..400 {
            if mail.is_empty() {
                return number;
            }
            let one = mail.remove(0);
            self.clock.advance(one.wait);
            if let Some(Phase::Waiting { .. }) = self.policy().await.reencryption.map(|job| job.phase) {
                self.clock.advance(SignedDuration::from_hours(24));
            }
            let fault = fault.filter(|(at, _)| *at == number).map(|(_, fault)| fault);
            let failed = self.delivered(std::slice::from_ref(&one.body), fault).await;
            if !failed.is_empty() {
                assert!(fault.is_some(), "message {number} failed by itself: {}", one.body);
                mail.push(Mail { body: one.body, wait: SignedDuration::from_mins(6) });
            }
            self.workers_work().await;
            mail.extend(self.steps());
        }
        panic!("it never ends: {:?}", self.policy().await.reencryption);
    }

    async fn assert_completed(&self) {
        let policy = self.policy().await;
        let [ended] = &policy.reencryptions[..] else { panic!("{:?}", policy.reencryption) };
        assert_eq!(ended.outcome, Outcome::Completed);
        let arns: Vec<&KeyArn> = policy.keys.values().map(|key| &key.arn).collect();
        assert_eq!(arns, Self::new_keys().values().collect::<Vec<_>>());
        let data_keys = self.data_keys().await;
        let generations: Vec<u64> = data_keys.iter().map(|one| one.generation).collect();
        assert_eq!(generations, [1, 2], "one new data key, however often it was asked for");
        for one in &data_keys {
            assert!(one.second.is_empty() && one.is_under(arns.iter().copied()), "{one:?}");
            let former = REGIONS.iter().any(|region| one.wrap_under(&a_key(ACCOUNT, region, 1)).is_some());
            assert!(!former, "the old keys are needed for nothing: {one:?}");
        }
        let facts = self.world.all_facts(&Self::name());
        for slug in ["reencryption-switched", "reencryption-ended"] {
            assert_eq!(facts.iter().filter(|fact| fact.slug == slug).count(), 1, "{slug}");
        }
    }
}

#[tokio::test]
async fn x2_an_order_leads_by_its_own_messages_to_the_end_of_the_job() {
    let stage = Stage::new().await;
    stage.asks().await;
    let messages = stage.carried(stage.orders(), None).await;
    assert!(messages > 5, "{messages}");
    stage.assert_completed().await;
}

#[tokio::test]
async fn x3_only_the_messages_that_failed_are_delivered_again_and_an_unknown_kind_is_one() {
    let stage = Stage::new().await;
    let job = stage.asks().await;
    let policy = stage.policy().await;
    let correlation = CorrelationId::from_uuid(SequentialIds::uuid(5));
    let stranger =
        JobStep { organisation: parsed("nobody"), policy: policy.id, job, token: None, correlation };
    let mut other_effect: OutboxRow =
        stage.world.outbox().into_iter().find(|row| matches!(row.effect, Effect::Reencrypt { .. })).unwrap();
    other_effect.effect = Effect::VerifyPolicy;
    let bodies = [
        serde_json::to_string(&stranger).unwrap(),
        stage.orders().remove(0).body,
        serde_json::to_string(&other_effect).unwrap(),
        r#"{"kind":"melt-down","organisation":"acme"}"#.to_owned(),
        "no JSON at all".to_owned(),
    ];
    assert_eq!(stage.delivered(&bodies, None).await, [0, 2, 3, 4]);
    stage.carried(stage.steps(), None).await;
    stage.assert_completed().await;
}

#[tokio::test]
async fn x3_doubled_and_outdated_messages_change_nothing() {
    let stage = Stage::new().await;
    stage.asks().await;
    let order = stage.orders().remove(0);
    let twice = [order.body.clone(), order.body.clone()];
    assert!(stage.delivered(&twice, None).await.is_empty());
    let steps = stage.steps();
    assert_eq!(steps.len(), 1, "one of the two found the job in other hands");
    // Each step is delivered twice, and the very first order comes once more with each.
    let mut mail = steps;
    for _ in 0..200 {
        stage.workers_work().await;
        let Some(one) = mail.pop() else { break };
        stage.clock.advance(one.wait);
        if let Some(Phase::Waiting { .. }) = stage.policy().await.reencryption.map(|job| job.phase) {
            stage.clock.advance(SignedDuration::from_hours(24));
        }
        let bodies = [one.body.clone(), one.body.clone(), order.body.clone()];
        assert!(stage.delivered(&bodies, None).await.is_empty());
        let next = stage.steps();
        assert!(next.len() <= 1, "a job has one message on its way: {next:?}");
        mail.extend(next);
    }
    stage.assert_completed().await;
    // Long after the end.
    assert!(stage.delivered(&twice, None).await.is_empty());
    assert!(stage.steps().is_empty());
    stage.assert_completed().await;
}

#[tokio::test]
async fn x3_a_crash_at_any_message_before_or_after_any_write_costs_time_alone() {
    let whole = {
        let stage = Stage::new().await;
        stage.asks().await;
        stage.carried(stage.orders(), None).await
    };
    for fault in [Fault::Claim, Fault::Commit, Fault::Answer, Fault::Queue] {
        for at in 0..whole {
            let stage = Stage::new().await;
            stage.asks().await;
            stage.carried(stage.orders(), Some((at, fault))).await;
            // What a lost message left, the schedule takes up.
            if stage.policy().await.reencryption.is_some() {
                stage.clock.advance(SignedDuration::from_mins(20));
                let tick = stage.invoked(Input::Tick(Tick::Tick), None).await.unwrap();
                assert_eq!(tick, json!({ "openReencryptions": 1 }), "{fault:?} at {at}");
                stage.carried(stage.steps(), None).await;
            }
            stage.assert_completed().await;
        }
    }
}

#[tokio::test]
async fn x3_a_job_whose_message_was_lost_is_taken_up_by_the_schedule() {
    let stage = Stage::new().await;
    stage.asks().await;
    assert!(stage.delivered(&[stage.orders().remove(0).body], None).await.is_empty());
    assert_eq!(stage.steps().len(), 1, "and lost");
    let tick = || stage.invoked(Input::Tick(Tick::Tick), None);
    // While somebody may be at it, nothing comes of a tick.
    assert_eq!(tick().await.unwrap(), json!({ "openReencryptions": 1 }));
    assert_eq!(stage.carried(stage.steps(), None).await, 1);
    stage.clock.advance(SignedDuration::from_mins(20));
    tick().await.unwrap();
    stage.carried(stage.steps(), None).await;
    stage.assert_completed().await;
    assert_eq!(tick().await.unwrap(), json!({ "openReencryptions": 0 }));
}

#[tokio::test]
async fn x2_a_second_job_is_refused_and_messages_of_a_job_that_is_not_the_policys_change_nothing() {
    let stage = Stage::new().await;
    let job = stage.asks().await;
    let again = PolicyEvent::ReencryptionRequested { keys: Stage::new_keys(), depth: Depth::Rewrap };
    assert!(stage.decides(again).await.is_err());
    let policy = stage.policy().await;
    assert_eq!(policy.reencryption.as_ref().map(|one| one.id), Some(job));
    let made_up = JobStep {
        organisation: Stage::name(),
        policy: policy.id,
        job: ReencryptionId::from_uuid(SequentialIds::uuid(99)),
        token: None,
        correlation: CorrelationId::from_uuid(SequentialIds::uuid(5)),
    };
    assert!(stage.delivered(&[serde_json::to_string(&made_up).unwrap()], None).await.is_empty());
    assert!(stage.steps().is_empty());
    assert_eq!(stage.policy().await, policy);
    assert_eq!(stage.data_keys().await.len(), 1);
}

#[tokio::test]
async fn x2_a_job_that_is_cancelled_meanwhile_takes_its_wraps_back_and_its_late_messages_do_nothing() {
    let stage = Stage::new().await;
    let job = stage.asks().await;
    let before = stage.data_keys().await;
    let order = stage.orders().remove(0);
    assert!(stage.delivered(std::slice::from_ref(&order.body), None).await.is_empty());
    let late = stage.steps();
    assert!(stage.data_keys().await.iter().all(|one| one.is_under(Stage::new_keys().values())));
    stage.decides(PolicyEvent::ReencryptionCancelled { job }).await.unwrap();
    let mut mail = late.clone();
    mail.extend(stage.orders());
    stage.carried(mail, None).await;
    let policy = stage.policy().await;
    assert!(policy.reencryption.is_none());
    assert_eq!(policy.reencryptions[0].outcome, Outcome::Cancelled);
    assert!(policy.keys.values().all(|key| !Stage::new_keys().values().any(|new| *new == key.arn)));
    let after = stage.data_keys().await;
    assert_eq!(after, before, "as if nobody had ever asked");
    for one in [&late[0].body, &order.body] {
        assert!(stage.delivered(std::slice::from_ref(one), None).await.is_empty());
    }
    assert!(stage.steps().is_empty());
    assert_eq!(stage.data_keys().await, after);
}
