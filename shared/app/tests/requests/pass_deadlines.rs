use claviger_app::pass_deadlines::{PassDeadlines, Passed};
use claviger_app::ports::{Clock, Instances, OverdueOrders, Policies, StoreError, SupportRequests};
use claviger_domain::catalogue::Mode;
use claviger_domain::decide::decide;
use claviger_domain::effect::Effect;
use claviger_domain::event::{InstanceEvent, PolicyEvent};
use claviger_domain::fence::Epoch;
use claviger_domain::instance::{Acknowledgement, AppInstance, InstanceStatus, decide_instance};
use claviger_domain::policy::EncryptionPolicy;
use claviger_testkit::builders::{
    self, a_byok_enrolment, an_active_instance, an_enrolment, an_enrolment_decision, an_organisation,
    by_claviger, commit_active_policy, cut_off, parsed,
};
use claviger_testkit::{FakeClock, MemoryWorld, SequentialIds};
use jiff::SignedDuration;

struct Stage {
    world: MemoryWorld,
    clock: FakeClock,
    ids: SequentialIds,
}

const fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * days)
}

impl Stage {
    fn new() -> Self {
        Self { world: MemoryWorld::new(), clock: FakeClock::default(), ids: SequentialIds::default() }
    }

    async fn cut_off(&self, name: &str, account: &str, mode: Mode) -> EncryptionPolicy {
        let enrolment = match mode {
            Mode::Byok => a_byok_enrolment(account, "europe"),
            Mode::Cmk => an_enrolment(account, "europe"),
        };
        let acme = an_organisation(name);
        let active = commit_active_policy(&self.world, &acme, &enrolment, self.clock.now()).await;
        let decision = cut_off(&active, self.clock.advance(SignedDuration::from_secs(60)));
        self.world.commit_policy(Some(&active), &decision).await.unwrap();
        decision.next
    }

    /// Cut off, and every instance told.
    async fn cut_off_and_told(&self, name: &str, account: &str, mode: Mode) -> EncryptionPolicy {
        let policy = self.cut_off(name, account, mode).await;
        let told = PolicyEvent::InstancesSuspended { epoch: policy.fence.epoch, instances: 0 };
        let decision = decide(&builders::rules(), &policy, &told, &by_claviger(), self.clock.now()).unwrap();
        self.world.commit_policy(Some(&policy), &decision).await.unwrap();
        decision.next
    }

    async fn run(&self) -> Passed {
        let passed = PassDeadlines {
            policies: &self.world,
            watch: &self.world,
            requests: &self.world,
            templates: &self.world,
            overdue: &self.world,
            instances: &self.world,
            erasures: &self.world,
            backups: &self.world,
            removal: &self.world,
            ids: &self.ids,
            clock: &self.clock,
            settings: builders::settings(),
        };
        passed.run().await.unwrap()
    }

    async fn policy(&self, name: &str) -> EncryptionPolicy {
        self.world.policy(&parsed(name)).await.unwrap().unwrap()
    }

    /// What was said on tickets since the last time.
    async fn comments(&self) -> usize {
        let rows = self.world.outbox();
        let told = |body: &str| !body.starts_with("Every app instance was told to stop");
        rows.iter()
            .filter(|row| matches!(&row.effect, Effect::CommentTicket { body, .. } if told(body)))
            .count()
    }

    async fn ordered(&self, instance: &AppInstance, event: InstanceEvent) -> AppInstance {
        let known = self.world.instance(instance.id).await.unwrap().unwrap();
        let decision = decide_instance(&known, &event, &by_claviger(), self.clock.now()).unwrap();
        self.world.commit_instance(Some(&known), &decision).await.unwrap();
        decision.next
    }
}

#[tokio::test]
async fn s3_windows_of_both_modes_run_at_once_and_each_is_told_once() {
    let stage = Stage::new();
    stage.cut_off_and_told("acme", "222222222222", Mode::Byok).await;
    stage.cut_off_and_told("globex", "333333333333", Mode::Cmk).await;
    assert_eq!(stage.run().await, Passed::default());
    stage.clock.advance(days(8));
    assert_eq!(stage.run().await.told, 2);
    assert_eq!(stage.run().await, Passed::default(), "a run that is doubled tells nobody twice");
    assert_eq!(stage.comments().await, 2);
    stage.clock.advance(days(8));
    let passed = stage.run().await;
    assert_eq!((passed.told, passed.lapsed), (2, 1));
    assert_eq!(stage.policy("acme").await.lifecycle.slug(), "lapsed");
    assert_eq!(stage.policy("globex").await.lifecycle.slug(), "suspended");
    stage.clock.advance(days(300));
    stage.run().await;
    assert_eq!(stage.policy("globex").await.lifecycle.slug(), "suspended");
}

#[tokio::test]
async fn s3_a_policy_that_fails_is_left_to_the_next_run_and_the_others_go_on() {
    let stage = Stage::new();
    stage.cut_off_and_told("acme", "222222222222", Mode::Byok).await;
    stage.cut_off_and_told("globex", "333333333333", Mode::Cmk).await;
    stage.clock.advance(days(8));
    stage.world.fail_changes([StoreError::Unavailable { reason: "test".to_owned() }]);
    let passed = stage.run().await;
    assert_eq!((passed.told, passed.failed), (1, 1));
    assert_eq!(stage.run().await.told, 1);
    assert_eq!(stage.comments().await, 2);
}

#[tokio::test]
async fn s3_a_reminder_that_lost_a_race_is_told_once_all_the_same() {
    let stage = Stage::new();
    stage.cut_off_and_told("acme", "222222222222", Mode::Byok).await;
    stage.clock.advance(days(8));
    stage.world.fail_changes([StoreError::Conflict]);
    assert_eq!(stage.run().await.told, 1);
    assert_eq!(stage.comments().await, 1);
}

#[tokio::test]
async fn e10_requests_past_their_due_date_are_counted() {
    let stage = Stage::new();
    let asked = an_enrolment_decision(
        &an_organisation("acme"),
        &an_enrolment("222222222222", "europe"),
        stage.clock.now(),
    );
    stage.world.commit_policy(None, &asked).await.unwrap();
    assert_eq!(stage.run().await.overdue_requests, 0);
    stage.clock.advance(days(7));
    assert_eq!(stage.run().await.overdue_requests, 1);
}

#[tokio::test]
async fn e10_what_was_approved_and_is_not_done_past_its_due_date_is_counted_and_listed_until_it_is() {
    let stage = Stage::new();
    let (acme, enrolment) = (an_organisation("acme"), an_enrolment("222222222222", "europe"));
    let asked = an_enrolment_decision(&acme, &enrolment, stage.clock.now());
    stage.world.commit_policy(None, &asked).await.unwrap();
    let approved = builders::approval(&asked.next, stage.clock.now());
    stage.world.commit_policy(Some(&asked.next), &approved).await.unwrap();
    let listed = async || stage.world.support_requests(None, 10).await.unwrap().items;
    assert!(matches!(&listed().await[..], [one] if one.approved && one.id == asked.next.id.as_uuid()));
    assert_eq!(stage.run().await.overdue_requests, 0);
    stage.clock.advance(days(7));
    assert_eq!(stage.run().await.overdue_requests, 1);
    let verified = builders::verification(&approved.next, stage.clock.now());
    stage.world.commit_policy(Some(&approved.next), &verified).await.unwrap();
    assert_eq!((listed().await.len(), stage.run().await.overdue_requests), (0, 0));

    let asked = builders::an_instance_decision(&verified.next, "eng", "jira", stage.clock.now());
    stage.world.commit_instance(None, &asked).await.unwrap();
    let event = InstanceEvent::InstanceApproved;
    let approved =
        builders::instance_decided(&asked.next, &event, &builders::by_support(), stage.clock.now());
    stage.world.commit_instance(Some(&asked.next), &approved).await.unwrap();
    stage.clock.advance(days(7));
    assert!(matches!(&listed().await[..], [one] if one.approved && one.due_at < stage.clock.now()));
    assert_eq!(stage.run().await.overdue_requests, 1);
    let epoch = verified.next.fence.epoch;
    stage.ordered(&approved.next, InstanceEvent::InstanceProvisioned { epoch }).await;
    assert_eq!((listed().await.len(), stage.run().await.overdue_requests), (0, 0));
}

#[tokio::test]
async fn r6_an_order_to_suspend_that_no_app_answers_is_listed_until_it_is_answered() {
    let stage = Stage::new();
    let policy = stage.cut_off_and_told("acme", "222222222222", Mode::Cmk).await;
    let mut instance = an_active_instance(&policy, "eng", "jira", stage.clock.now());
    instance.epoch = Epoch(0);
    stage.world.seed_instance(instance.clone());
    let told = InstanceEvent::SuspensionOrdered { epoch: Epoch(1) };
    let told = stage.ordered(&instance, told).await;
    stage.clock.advance(SignedDuration::from_mins(14));
    assert_eq!(stage.run().await.overdue_orders, 0);
    stage.clock.advance(SignedDuration::from_mins(2));
    assert_eq!(stage.run().await.overdue_orders, 1);
    assert_eq!(stage.run().await.overdue_orders, 1);
    let listed = stage.world.overdue_orders(None, 10).await.unwrap().items;
    assert_eq!((listed.len(), listed[0].unanswered, listed[0].policy), (1, 1, policy.id));
    assert_eq!(listed[0].first, [instance.id]);
    assert!(listed[0].all_told);
    let answered = InstanceEvent::OrderAcknowledged { epoch: Epoch(1), evicted: 3 };
    stage.ordered(&told, answered).await;
    assert_eq!(stage.run().await.overdue_orders, 0);
    assert!(stage.world.overdue_orders(None, 10).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn r6_an_order_that_is_stuck_on_its_way_is_listed_though_nobody_was_told() {
    let stage = Stage::new();
    let policy = stage.cut_off("acme", "222222222222", Mode::Cmk).await;
    stage.clock.advance(SignedDuration::from_mins(14));
    assert_eq!(stage.run().await.overdue_orders, 0);
    stage.clock.advance(SignedDuration::from_mins(2));
    assert_eq!(stage.run().await.overdue_orders, 1);
    let listed = stage.world.overdue_orders(None, 10).await.unwrap().items;
    assert_eq!((listed[0].unanswered, listed[0].all_told), (0, false));
    assert_eq!(Some(listed[0].ordered_at), policy.fence.changed_at);
}

#[tokio::test]
async fn r6_of_ten_thousand_instances_none_but_those_that_owe_an_answer_is_read() {
    let stage = Stage::new();
    let policy = stage.cut_off_and_told("acme", "222222222222", Mode::Cmk).await;
    let mut told = Vec::new();
    for number in 0..10_000_u64 {
        let mut instance = an_active_instance(&policy, &format!("s{number}"), "jira", stage.clock.now());
        instance.id = claviger_domain::ids::InstanceId::from_uuid(SequentialIds::uuid(number));
        instance.epoch = policy.fence.epoch;
        instance.status = InstanceStatus::Suspended { since: stage.clock.now() };
        let answer = Acknowledgement { epoch: policy.fence.epoch, at: stage.clock.now(), evicted: 1 };
        instance.acknowledged = (number % 100 != 7).then_some(answer);
        if instance.acknowledged.is_none() {
            told.push(instance.id);
        }
        stage.world.seed_instance(instance);
    }
    stage.clock.advance(SignedDuration::from_mins(16));
    assert_eq!(stage.run().await.overdue_orders, 100);
    let listed = stage.world.overdue_orders(None, 10).await.unwrap().items;
    assert_eq!((listed[0].unanswered, listed[0].first.len()), (100, 20));
    assert!(listed[0].first.iter().all(|id| told.contains(id)));
}
