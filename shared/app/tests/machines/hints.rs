//! Events and refusals met by the broker: hints, what they cost, and what they lead to.

use claviger_app::follow_hint::FollowHint;
use claviger_app::hear_key_event::{HearKeyEvent, HeardOf};
use claviger_app::messages::ProbeMessage;
use claviger_app::ports::CallError;
use claviger_app::report_probes::Reason;
use claviger_domain::heard::HeardChange;
use claviger_domain::observation::{NoAnswerKind, Observation, RefusedUnwrap};
use claviger_domain::policy::{CONTEXT_PURPOSE, PURPOSE_DATA_KEY};
use claviger_domain::ticket::TicketStatus;
use claviger_testkit::KeyCall;
use claviger_testkit::builders::{self, parsed};
use jiff::SignedDuration;

use crate::newer_data_keys::{Meanwhile, Racing};
use crate::world::{DENIED, DISABLED, USABLE, World, correlation};

const REGIONS: [&str; 2] = ["eu-central-1", "eu-west-1"];

impl World {
    fn hear(&self) -> HearKeyEvent<'_> {
        HearKeyEvent {
            policies: &self.store,
            hints: &self.store,
            queue: &self.store,
            ids: &self.ids,
            clock: &self.clock,
        }
    }

    async fn hears(&self, account: &str) -> HeardOf {
        self.hear().run(&account.parse().unwrap(), &disabled_by_ada()).await.unwrap()
    }

    /// The customer's policy refuses data keys and pleases the canary.
    fn data_keys_are_refused(&self, refused: bool) {
        for region in REGIONS {
            self.keys.refuse_purpose(&self.key(region), refused.then_some(PURPOSE_DATA_KEY));
        }
    }

    fn unwraps_of_data_keys(&self) -> Vec<KeyCall> {
        let is_one = |call: &KeyCall| {
            call.operation == "Decrypt"
                && call.context.get(CONTEXT_PURPOSE).is_some_and(|purpose| purpose == PURPOSE_DATA_KEY)
        };
        self.keys.calls().into_iter().filter(is_one).collect()
    }

    /// What the broker met goes to the prober.
    async fn broker_meets_refusal(&self) -> RefusedUnwrap {
        self.store.take_queued_probes();
        self.asks_for_key().await.err().expect("the unwrap is refused");
        let hints = self.store.take_queued_probes();
        let [(ProbeMessage::Probe { data_key: Some(met), .. }, _)] = &hints[..] else {
            panic!("one hint, however many regions refuse: {hints:?}");
        };
        *met
    }
}

fn disabled_by_ada() -> HeardChange {
    HeardChange {
        slug: "key-disabled".to_owned(),
        by: Some("arn:aws:sts::222222222222:assumed-role/SecurityAdmin/ada".parse().unwrap()),
        at: None,
        key: None,
        role: None,
    }
}

#[tokio::test]
async fn r3_no_policy_can_please_the_canary_and_refuse_the_data_keys() {
    let world = World::with_acme().await;
    world.data_keys_are_refused(true);
    // Sweeps see the canaries only, and nothing wrong.
    world.sweep().await.unwrap();
    assert!(world.policy().await.keys.values().all(|key| key.health.slug() == "usable"));
    let met = world.broker_meets_refusal().await;
    let reason = Reason { met: Some(met), ..Reason::default() };
    world.hinted_by(&reason).await.unwrap();
    let policy = world.policy().await;
    assert!(policy.keys.values().all(|key| key.health.slug() == "access-denied"));
    assert_eq!(policy.refused_unwrap, Some(met));
    assert!(policy.fence.is_open(), "it is ambiguous and has to persist");
    // From now on sweeps repeat that unwrap too, so that the canary alone cannot stop the clock.
    world.later(30);
    world.keys.forget_calls();
    world.sweep().await.unwrap();
    assert!(world.unwraps_of_data_keys().iter().any(|call| !call.dry_run), "the fence is open");
    world.later(30);
    world.sweep().await.unwrap();
    assert!(!world.policy().await.fence.is_open());
    world.drain().await;
    // Restoration asks for the data key too.
    world.keys.forget_calls();
    let waiting = world.probe().round(&world.policy().await).await;
    assert!(waiting.observations.values().all(|saw| *saw != USABLE));
    let unwraps = world.unwraps_of_data_keys();
    assert!(!unwraps.is_empty() && unwraps.iter().all(|call| call.dry_run), "{unwraps:?}");
    world.data_keys_are_refused(false);
    world.later(60);
    world.restore().await;
    assert_eq!(world.policy().await.refused_unwrap, None);
    world.later(60);
    world.keys.forget_calls();
    world.sweep().await.unwrap();
    assert_eq!(world.keys.calls().len(), 2, "the canaries alone again");
}

#[tokio::test]
async fn r4_a_data_key_that_was_refused_and_cannot_be_read_leaves_the_canary_nothing_to_prove() {
    let world = World::with_acme().await;
    world.data_keys_are_refused(true);
    let met = world.broker_meets_refusal().await;
    world.hinted_by(&Reason { met: Some(met), ..Reason::default() }).await.unwrap();
    // The registry is out while the refusal has to persist: its clock goes on.
    let registry = Racing::new(&world, Meanwhile::Outage);
    let mut report = world.report();
    report.probe.registry = &registry;
    world.later(30);
    let policy = world.policy().await;
    let seen = report.of_policy(&policy, &Reason::default(), correlation()).await.unwrap();
    assert!(!seen.is_proof(&builders::rules(), &policy) && !seen.all_usable());
    let policy = world.policy().await;
    assert!(policy.keys.values().all(|key| key.health.slug() == "unreachable"));
    assert_eq!(policy.refused_unwrap, Some(met));
    world.later(30);
    world.sweep().await.unwrap();
    assert!(!world.policy().await.fence.is_open());
    // Nor does the canary alone prove a restoration.
    let waiting = report.probe.round(&world.policy().await).await;
    assert!(waiting.observations.values().all(|saw| *saw == Observation::NoAnswer(NoAnswerKind::OurFault)));
    // What the canary says against a key counts.
    world.keys_answer(DISABLED);
    let refused = report.probe.round(&world.policy().await).await;
    assert!(refused.observations.values().all(|saw| *saw == DISABLED));
}

#[tokio::test]
async fn r3_an_ordinary_revocation_that_the_broker_met_costs_no_lasting_unwrap() {
    let world = World::with_acme().await;
    world.keys_answer(DISABLED);
    let met = world.broker_meets_refusal().await;
    world.hinted_by(&Reason { met: Some(met), ..Reason::default() }).await.unwrap();
    let policy = world.policy().await;
    assert!(!policy.fence.is_open());
    assert_eq!(policy.refused_unwrap, None, "the canary says it as well");
}

#[tokio::test]
async fn r8_the_ticket_and_the_audit_log_say_who_changed_it_when_an_event_did() {
    let world = World::with_acme().await;
    world.store.take_queued_probes();
    world.keys_answer(DISABLED);
    assert_eq!(world.hears("222222222222").await, HeardOf::Queued { probes: 1, wait: SignedDuration::ZERO });
    let queued = world.store.take_queued_probes();
    let [(ProbeMessage::Probe { heard, .. }, _)] = &queued[..] else { panic!("{queued:?}") };
    world.hinted_by(&Reason { heard: heard.clone(), ..Reason::default() }).await.unwrap();
    world.drain().await;
    let ticket = &world.tickets().await[0];
    let who = "not verified by us: key-disabled by arn:aws:sts::222222222222:assumed-role/SecurityAdmin/ada";
    assert!(ticket.comments[0].body.contains(who), "{}", ticket.comments[0].body);
    let facts = world.store.all_facts(&world.name());
    let fact = facts.iter().find(|fact| fact.state == "suspended").unwrap();
    assert_eq!(fact.event["heard"]["by"], "arn:aws:sts::222222222222:assumed-role/SecurityAdmin/ada");
}

fn changed(slug: &str, by: &str) -> HeardChange {
    let by = format!("arn:aws:sts::222222222222:assumed-role/SecurityAdmin/{by}");
    HeardChange { slug: slug.to_owned(), by: Some(parsed(&by)), at: None, key: None, role: None }
}

#[tokio::test]
async fn r8_the_ticket_of_a_key_policy_revocation_says_who_changed_it_though_the_refusal_had_to_persist() {
    let world = World::with_acme().await;
    world.store.take_queued_probes();
    world.keys_answer(DENIED);
    let heard = vec![changed("key-policy-changed", "ada")];
    world.hinted_by(&Reason { heard, ..Reason::default() }).await.unwrap();
    let queued = world.store.take_queued_probes();
    let [(follow_up, wait)] = &queued[..] else { panic!("{queued:?}") };
    world.later(wait.as_secs());
    world.follow_up_as_queued(follow_up).await.unwrap();
    assert!(!world.policy().await.fence.is_open());
    world.drain().await;
    let told = &world.tickets().await[0].comments[0].body;
    assert!(
        told.contains("key-policy-changed by arn:aws:sts::222222222222:assumed-role/SecurityAdmin/ada"),
        "{told}"
    );
}

#[tokio::test]
async fn r8_an_event_that_comes_after_the_probe_that_saw_it_is_told_on_the_ticket_once_and_cannot_fill_it() {
    let world = World::with_acme().await;
    world.cut_off().await;
    for _ in 0..2 {
        let heard = vec![changed("key-deletion-scheduled", "ada")];
        world.hinted_by(&Reason { heard, ..Reason::default() }).await.unwrap();
        world.later(5);
    }
    for number in 0..20 {
        let heard = vec![changed("key-disabled", &format!("forged-{number}"))];
        world.hinted_by(&Reason { heard, ..Reason::default() }).await.unwrap();
        world.later(5);
    }
    world.drain().await;
    let ticket = &world.tickets().await[0];
    let told = ticket.comments.iter().filter(|comment| comment.body.contains("not verified by us"));
    let told: Vec<&str> = told.map(|comment| comment.body.as_str()).collect();
    assert_eq!(told.iter().filter(|body| body.contains("key-deletion-scheduled")).count(), 1, "{told:?}");
    assert_eq!(told.len(), 16, "{told:?}");
    assert!(told[15].contains("your CloudTrail has it"), "{told:?}");
    // The next revocation has its own.
    world.restore().await;
    assert!(world.policy().await.told_heard.is_empty());
}

#[tokio::test]
async fn r9_an_event_of_an_account_that_nobody_enrolled_is_dropped_before_any_write() {
    let world = World::with_acme().await;
    world.store.take_queued_probes();
    let fault = claviger_app::ports::StoreError::Unavailable { reason: "a write".to_owned() };
    world.store.fail_changes([fault]);
    assert_eq!(world.hears("999999999999").await, HeardOf::Stranger);
    assert!(world.store.take_queued_probes().is_empty());
}

#[tokio::test]
async fn r9_a_flood_of_events_is_deferred_within_its_accounts_budget_and_another_account_is_heard_at_once() {
    let world = World::with_acme().await;
    world.store.take_queued_probes();
    for _ in 0..500 {
        world.hears("222222222222").await;
        world.clock.advance(SignedDuration::from_millis(100));
    }
    let flood = world.store.take_queued_probes().len();
    assert!((2..=9).contains(&flood), "{flood} probes for 500 events in 50 s");
    world.enrol_globex("333333333333").await;
    let heard = world.hears("333333333333").await;
    assert_eq!(heard, HeardOf::Queued { probes: 1, wait: SignedDuration::ZERO });
}

#[tokio::test]
async fn r9_what_happens_to_other_keys_of_an_account_takes_nothing_of_its_budget() {
    let world = World::with_acme().await;
    world.store.take_queued_probes();
    let elsewhere = HeardChange {
        slug: "grant-created".to_owned(),
        key: Some(claviger_testkit::builders::a_key("222222222222", "eu-central-1", 77)),
        ..disabled_by_ada()
    };
    // The first one shows that events of the account arrive.
    assert!(matches!(world.hears_of(&elsewhere).await, HeardOf::Queued { .. }));
    for _ in 0..100 {
        world.clock.advance(SignedDuration::from_millis(500));
        assert_eq!(world.hears_of(&elsewhere).await, HeardOf::Beside);
    }
    let own = HeardChange { key: Some(world.key("eu-central-1")), ..disabled_by_ada() };
    assert_eq!(world.hears_of(&own).await, HeardOf::Queued { probes: 1, wait: SignedDuration::ZERO });
    world.later(25 * 60 * 60);
    assert!(matches!(world.hears_of(&elsewhere).await, HeardOf::Queued { .. }), "once a day");
}

#[tokio::test]
async fn r9_however_many_brokers_meet_a_refusal_the_prober_follows_it_once_in_five_seconds() {
    let world = World::with_acme().await;
    world.keys_answer(DENIED);
    let met = world.broker_meets_refusal().await;
    let reason = Reason { met: Some(met), ..Reason::default() };
    world.keys.forget_calls();
    world.hinted_by(&reason).await.unwrap();
    let once = world.keys.calls().len();
    assert!(once > 0);
    for _ in 0..50 {
        world.hinted_by(&reason).await.unwrap();
    }
    assert_eq!(world.keys.calls().len(), once);
    // Whoever says who changed a key, or what repeats a probe, is followed all the same.
    world.hinted_by(&Reason { heard: vec![disabled_by_ada()], ..reason.clone() }).await.unwrap();
    assert!(world.keys.calls().len() > once);
    world.keys.forget_calls();
    world.later(5);
    world.hinted_by(&reason).await.unwrap();
    assert!(!world.keys.calls().is_empty());
}

#[tokio::test]
async fn r9_a_broker_that_is_refused_on_many_data_keys_tells_of_it_once() {
    let world = World::with_acme().await;
    let policy = world.policy().await;
    world.keys_answer(DENIED);
    world.broker_meets_refusal().await;
    let cache = &world.cache;
    assert!(!cache.may_hint(policy.id, world.now()), "of any data key");
    assert!(cache.may_hint(policy.id, world.now() + SignedDuration::from_secs(5)));
}

#[tokio::test]
async fn r9_a_hint_that_cannot_be_queued_is_not_taken_for_covered_when_it_comes_again() {
    let world = World::with_acme().await;
    world.hears("222222222222").await;
    world.later(1);
    world.store.take_queued_probes();
    world.store.fail_calls([CallError { what: "the probe queue", reason: "test".to_owned() }]);
    world.hear().run(&"222222222222".parse().unwrap(), &disabled_by_ada()).await.unwrap_err();
    world.later(1);
    assert!(matches!(world.hears("222222222222").await, HeardOf::Queued { .. }));
}

impl World {
    async fn hears_of(&self, change: &HeardChange) -> HeardOf {
        self.hear().run(&"222222222222".parse().unwrap(), change).await.unwrap()
    }

    /// Works off every queued probe, in the order in which they are due.
    async fn works_off_probes(&self) {
        for _ in 0..20 {
            let mut queued = self.store.take_queued_probes();
            if queued.is_empty() {
                return;
            }
            queued.sort_by_key(|(_, wait)| *wait);
            for (message, wait) in queued {
                self.clock.advance(wait);
                match &message {
                    ProbeMessage::Probe { attempt, data_key, heard, correlation, organisation } => {
                        let reason = Reason { met: *data_key, heard: heard.clone(), mass_failure: None };
                        let follow = FollowHint {
                            report: self.report(),
                            queue: &self.store,
                            followed: &self.followed,
                        };
                        follow.run(organisation, *attempt, &reason, *correlation).await.unwrap();
                    }
                    ProbeMessage::FollowUp { .. } => self.follow_up_as_queued(&message).await.unwrap(),
                    ProbeMessage::DescribeKeys { .. } => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    /// All that the ticket says, and all that facts say was heard.
    async fn said(&self) -> (String, String) {
        self.drain().await;
        let tickets = self.tickets().await;
        let ticket = tickets.iter().find(|ticket| ticket.title.contains("revocation")).unwrap();
        let told: Vec<&str> = ticket.comments.iter().map(|comment| comment.body.as_str()).collect();
        let facts = self.store.all_facts(&self.name());
        let facts: Vec<String> = facts.iter().map(|fact| fact.event["heard"].to_string()).collect();
        (told.join("\n"), facts.join("\n"))
    }
}

#[tokio::test]
async fn r8_three_changes_within_five_seconds_are_all_told_and_recorded_once_though_the_third_costs_no_probe()
{
    let world = World::with_acme().await;
    world.store.take_queued_probes();
    let changes = [
        changed("key-policy-changed", "ada"),
        changed("key-disabled", "bob"),
        changed("key-deletion-scheduled", "eve"),
    ];
    world.keys_answer(DISABLED);
    assert!(matches!(world.hears_of(&changes[0]).await, HeardOf::Queued { .. }));
    world.later(1);
    assert!(matches!(world.hears_of(&changes[1]).await, HeardOf::Queued { .. }));
    world.later(1);
    assert_eq!(world.hears_of(&changes[2]).await, HeardOf::Covered);
    assert_eq!(world.hears_of(&changes[2]).await, HeardOf::Covered, "doubled");
    assert_eq!(world.hears_of(&changes[0]).await, HeardOf::Covered, "doubled");
    world.works_off_probes().await;
    world.later(60);
    world.sweep().await.unwrap();
    let (told, facts) = world.said().await;
    for change in &changes {
        let line = change.line();
        assert_eq!(told.matches(&line).count(), 1, "{line}\n{told}");
        let by = change.by.as_ref().unwrap().to_string();
        assert_eq!(facts.matches(&by).count(), 1, "{by}\n{facts}");
    }
}

#[tokio::test]
async fn r8_who_changed_it_reaches_the_ticket_in_every_order_of_event_sweep_and_follow_up() {
    let line = changed("key-policy-changed", "ada").line();
    for answer in [DISABLED, DENIED] {
        for hint_is_lost in [false, true] {
            for event_after in 0..=4 {
                let world = World::with_acme().await;
                world.store.take_queued_probes();
                let change = changed("key-policy-changed", "ada");
                let event = async || {
                    world.hears_of(&change).await;
                    if hint_is_lost {
                        world.store.take_queued_probes();
                    }
                    world.works_off_probes().await;
                };
                if event_after == 0 {
                    event().await;
                }
                world.keys_answer(answer);
                // Sweeps a minute apart: the first starts an ambiguous refusal's clock, the second closes the fence.
                for step in 1..=4 {
                    if event_after == step {
                        event().await;
                    }
                    world.later(60);
                    world.sweep().await.unwrap();
                }
                world.later(60);
                world.sweep().await.unwrap();
                let (told, _) = world.said().await;
                assert_eq!(told.matches(&line).count(), 1, "{answer:?} {hint_is_lost} {event_after}: {told}");
            }
        }
    }
}

#[tokio::test]
async fn r8_what_an_earlier_revocation_heard_and_what_gave_access_back_is_not_told_of_the_next_one() {
    let world = World::with_acme().await;
    world.store.take_queued_probes();
    world.keys_answer(DISABLED);
    world.hears_of(&changed("key-disabled", "ada")).await;
    world.works_off_probes().await;
    world.drain().await;
    world.keys_answer(USABLE);
    world.later(10);
    world.restore().await;
    world.later(1);
    world.hears_of(&changed("key-enabled", "ada")).await;
    world.works_off_probes().await;
    world.later(60);
    world.hears_of(&changed("key-policy-changed", "bob")).await;
    world.keys_answer(DENIED);
    world.works_off_probes().await;
    world.later(60);
    world.sweep().await.unwrap();
    world.drain().await;
    let tickets = world.tickets().await;
    let open = tickets.iter().find(|ticket| ticket.status == TicketStatus::Open).unwrap();
    let told: String = open.comments.iter().map(|comment| comment.body.as_str()).collect();
    assert!(told.contains(&changed("key-policy-changed", "bob").line()), "{told}");
    assert!(!told.contains("key-enabled") && !told.contains("key-disabled by"), "{told}");
}

#[tokio::test]
async fn r8_what_happened_to_another_key_or_role_of_the_account_is_not_told() {
    let world = World::with_acme().await;
    world.store.take_queued_probes();
    world.keys_answer(DISABLED);
    let mine = HeardChange { key: Some(world.key("eu-west-1")), ..changed("key-disabled", "ada") };
    let other_key = HeardChange {
        key: Some(claviger_testkit::builders::a_key("222222222222", "eu-west-1", 77)),
        ..changed("key-disabled", "bob")
    };
    // Nobody enters a CMK organisation's account through a role.
    let role = HeardChange { role: Some(parsed("deploy")), ..changed("role-policy-changed", "eve") };
    for change in [&other_key, &mine, &role] {
        world.hears_of(change).await;
        world.works_off_probes().await;
        world.later(6);
    }
    world.later(60);
    world.sweep().await.unwrap();
    let (told, facts) = world.said().await;
    assert!(told.contains(&mine.line()) && told.contains("eu-west-1"), "{told}");
    for other in ["SecurityAdmin/bob", "SecurityAdmin/eve"] {
        assert!(!told.contains(other) && !facts.contains(other), "{told}\n{facts}");
    }
}

#[tokio::test]
async fn r8_a_record_of_events_that_cannot_be_read_delays_no_cut_off_and_is_told_by_a_later_probe() {
    let world = World::with_acme().await;
    world.hears_of(&changed("key-disabled", "ada")).await;
    world.store.take_queued_probes();
    world.keys_answer(DISABLED);
    world.store.hints_are_unreadable(true);
    world.sweep().await.unwrap();
    assert!(!world.policy().await.fence.is_open());
    world.store.hints_are_unreadable(false);
    world.later(60);
    world.sweep().await.unwrap();
    let (told, _) = world.said().await;
    assert!(told.contains(&changed("key-disabled", "ada").line()), "{told}");
}
