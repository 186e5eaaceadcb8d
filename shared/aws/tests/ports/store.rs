//! The DynamoDB store: each port, its races, and what one transaction writes.

use std::collections::BTreeMap;

use async_trait::async_trait;
use claviger_app::hint_budget::HintRecord;
use claviger_app::messages::{ProbeAnswer, ProbeRequest};
use claviger_app::ports::{
    Audit, Beat, CallError, Clock, DataKeyChoice, DataKeyRegistry, HintRecords, Instances, Organisations,
    Outbox, OverdueOrders, Policies, Prober, Proofs, PublishedTemplate, StoreError, SupportRequests,
    Templates, Tickets, WatchList, WrappedDataKey,
};
use claviger_app::request_error::RequestError;
use claviger_app::request_restoration::RequestRestoration;
use claviger_domain::access::{KeyPermission, KeyPolicyTemplate};
use claviger_domain::catalogue::Mode;
use claviger_domain::effect::Effect;
use claviger_domain::event::{InstanceEvent, PolicyEvent};
use claviger_domain::fact::AuditHead;
use claviger_domain::fence::Epoch;
use claviger_domain::ids::{DataKeyId, InstanceId, PolicyId, TicketId};
use claviger_domain::instance::{AppInstance, InstanceDecision};
use claviger_domain::observation::Observation;
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::reencryption::Depth;
use claviger_domain::ticket::{Ticket, TicketStatus};
use claviger_domain::values::{ShardId, SiteName};
use claviger_testkit::FakeClock;
use claviger_testkit::SequentialIds;
use claviger_testkit::builders::{
    a_byok_enrolment, a_key, a_round, an_active_policy, an_enrolment, an_enrolment_decision,
    an_enrolment_decision_as, an_enrolment_with, an_instance_decision, an_organisation, approval, by_admin,
    by_claviger, by_support, by_system, commit_active_instance, commit_active_policy, cut_off, decided,
    instance_decided, instant, parsed, rejection, settings, verification,
};
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};

use crate::support::tables::{COPIES, World};

const ACCOUNT: &str = "222222222222";

fn noon() -> Timestamp {
    instant("2026-11-22T12:00:00Z")
}

const fn taken(what: &'static str) -> StoreError {
    StoreError::Taken { what }
}

async fn acme(world: &World) -> EncryptionPolicy {
    let enrolment = an_enrolment(ACCOUNT, "europe");
    commit_active_policy(&world.store, &an_organisation("acme"), &enrolment, noon()).await
}

#[tokio::test]
async fn i7_an_organisation_keeps_its_opaque_id() {
    let world = World::new().await;
    let mut acme = an_organisation("acme");
    assert_eq!(world.store.organisation(&acme.name).await, Ok(None));
    world.store.save_organisation(&acme).await.unwrap();
    acme.government = true;
    world.store.save_organisation(&acme).await.unwrap();
    assert_eq!(world.store.organisation(&acme.name).await, Ok(Some(acme.clone())));
    acme.id = an_organisation("other").id;
    assert_eq!(world.store.save_organisation(&acme).await, Err(StoreError::Conflict));
}

#[tokio::test(flavor = "multi_thread")]
async fn e4_of_fifty_enrolments_at_once_exactly_one_wins() {
    let world = World::new().await;
    let organisation = an_organisation("acme");
    let attempts = (0..50_u64).map(|n| {
        let store = world.store.clone();
        let enrolment = an_enrolment_with(ACCOUNT, "europe", u32::try_from(n).unwrap());
        let id = PolicyId::from_uuid(SequentialIds::uuid(n));
        let decision = an_enrolment_decision_as(id, &organisation, &enrolment, noon());
        tokio::spawn(async move { store.commit_policy(None, &decision).await.map(|()| id) })
    });
    let outcomes: Vec<_> = join_all(attempts).await.into_iter().map(Result::unwrap).collect();
    let winners: Vec<PolicyId> = outcomes.iter().filter_map(|outcome| outcome.clone().ok()).collect();
    assert_eq!(winners.len(), 1, "{outcomes:?}");
    for lost in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert!([StoreError::Conflict, taken("encryption-policy")].contains(lost), "{lost:?}");
    }
    let stored = world.store.policy(&organisation.name).await.unwrap().unwrap();
    assert_eq!(stored.id, winners[0]);
    let claims = world.all("control").await;
    let claims = claims.iter().filter(|item| item["pk"].as_s().unwrap().starts_with("KEYARN#")).count();
    assert_eq!(claims, 2, "the losers left nothing");
    assert_eq!(world.store.support_requests(None, 200).await.unwrap().items.len(), 1);
    assert_eq!(world.store.facts(&organisation.name, None, 200).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn e12_a_key_belongs_to_one_organisation() {
    let world = World::new().await;
    let enrolment = an_enrolment(ACCOUNT, "europe");
    acme(&world).await;
    let other = an_enrolment_decision(&an_organisation("globex"), &enrolment, noon());
    assert_eq!(world.store.commit_policy(None, &other).await, Err(taken("keys")));
}

#[tokio::test]
async fn e4_a_rejected_policy_gives_everything_back_and_may_be_followed_by_another() {
    let world = World::new().await;
    let organisation = an_organisation("acme");
    let enrolment = an_enrolment(ACCOUNT, "europe");
    let first = an_enrolment_decision(&organisation, &enrolment, noon());
    world.store.commit_policy(None, &first).await.unwrap();
    assert_eq!(world.store.commit_policy(None, &first).await, Err(taken("encryption-policy")));
    let no = rejection(&first.next, noon());
    world.store.commit_policy(Some(&first.next), &no).await.unwrap();
    assert_eq!(world.store.organisations_of_account(&parsed(ACCOUNT)).await, Ok(Vec::new()));
    assert!(world.store.support_requests(None, 10).await.unwrap().items.is_empty());

    let id = PolicyId::from_uuid(SequentialIds::uuid(99));
    let second = an_enrolment_decision_as(id, &organisation, &enrolment, noon());
    world.store.commit_policy(None, &second).await.unwrap();
    assert_eq!(world.store.policy_by_id(id).await, Ok(Some(second.next)));
    assert_eq!(world.store.policy_by_id(first.next.id).await, Ok(None));
    // The first one's decisions count for nothing any more, though the versions are alike.
    assert_eq!(world.store.commit_policy(Some(&first.next), &no).await, Err(StoreError::Conflict));
}

#[tokio::test]
async fn e5_an_account_of_byok_has_one_organisation() {
    let world = World::new().await;
    let with = |name: &str, mode, number| {
        let enrolment = match mode {
            Mode::Byok => a_byok_enrolment(ACCOUNT, "europe"),
            Mode::Cmk => an_enrolment_with(ACCOUNT, "europe", number),
        };
        an_enrolment_decision(&an_organisation(name), &enrolment, noon())
    };
    let store = &world.store;
    let byok = with("acme", Mode::Byok, 1);
    store.commit_policy(None, &byok).await.unwrap();
    assert_eq!(store.commit_policy(None, &with("globex", Mode::Byok, 2)).await, Err(taken("awsAccountId")));
    assert_eq!(store.commit_policy(None, &with("globex", Mode::Cmk, 2)).await, Err(taken("awsAccountId")));
    store.commit_policy(Some(&byok.next), &rejection(&byok.next, noon())).await.unwrap();
    let cmk = with("globex", Mode::Cmk, 2);
    store.commit_policy(None, &cmk).await.unwrap();
    store.commit_policy(None, &with("initech", Mode::Cmk, 3)).await.unwrap();
    assert_eq!(store.commit_policy(None, &with("hooli", Mode::Byok, 4)).await, Err(taken("awsAccountId")));
    let names = store.organisations_of_account(&parsed(ACCOUNT)).await.unwrap();
    assert_eq!(names, [parsed("globex"), parsed("initech")]);
}

#[tokio::test]
async fn a_stale_decision_conflicts_and_changes_nothing() {
    let world = World::new().await;
    let organisation = an_organisation("acme");
    let asked = an_enrolment_decision(&organisation, &an_enrolment(ACCOUNT, "europe"), noon());
    world.store.commit_policy(None, &asked).await.unwrap();
    let yes = approval(&asked.next, noon());
    let no = rejection(&asked.next, noon());
    world.store.commit_policy(Some(&asked.next), &yes).await.unwrap();
    assert_eq!(world.store.commit_policy(Some(&asked.next), &no).await, Err(StoreError::Conflict));
    assert_eq!(world.store.commit_policy(Some(&asked.next), &yes).await, Err(StoreError::Conflict));
    assert_eq!(world.store.policy(&organisation.name).await, Ok(Some(yes.next)));
    assert_eq!(world.store.facts(&organisation.name, None, 200).await.unwrap().items.len(), 2);
}

#[tokio::test]
async fn i1_the_cut_off_writes_every_copy_of_the_fence_with_the_decision() {
    let world = World::new().await;
    let policy = acme(&world).await;
    let item = format!("policy#{}", policy.id);
    assert_eq!(world.fence(&item).await, [None, None, None]);
    let later = noon() + SignedDuration::from_secs(20);
    let cut = cut_off(&policy, later);
    world.store.commit_policy(Some(&policy), &cut).await.unwrap();
    let copies = world.fence(&item).await;
    assert_eq!(copies.len(), usize::from(COPIES));
    for copy in copies.into_iter().map(Option::unwrap) {
        assert_eq!(copy["epoch"].as_n().unwrap(), "1");
        assert_eq!(copy["causes"].as_ss().unwrap(), &["key".to_owned()]);
        assert_eq!(copy["organisation"].as_s().unwrap(), &policy.organisation.to_string());
        assert_eq!(copy["changedAt"].as_s().unwrap(), "2026-11-22T12:00:20.000Z");
        assert!(!copy.contains_key("expiresAt"), "a closed fence stays");
    }
    let effects: Vec<Effect> = world
        .store
        .overdue_effects(later + SignedDuration::from_secs(1), 10)
        .await
        .unwrap()
        .into_iter()
        .map(|row| row.effect)
        .collect();
    assert!(effects.iter().any(|effect| matches!(effect, Effect::SuspendInstances { .. })), "{effects:?}");

    let mut open = cut.clone();
    open.next.fence = cut.next.fence.lifted(claviger_domain::fence::Cause::Key, later);
    open.next.version += 1;
    open.fact.seq += 1;
    world.store.commit_policy(Some(&cut.next), &open).await.unwrap();
    for copy in world.fence(&item).await.into_iter().map(Option::unwrap) {
        assert_eq!(copy["epoch"].as_n().unwrap(), "2");
        assert!(!copy.contains_key("causes"));
        let horizon = later.as_second() + 24 * 60 * 60;
        assert_eq!(copy["expiresAt"].as_n().unwrap(), &horizon.to_string());
    }
}

#[tokio::test]
async fn i1_a_decision_that_loses_leaves_the_fence_alone() {
    let world = World::new().await;
    let policy = acme(&world).await;
    let mut stale = policy.clone();
    stale.version -= 1;
    let cut = cut_off(&policy, noon() + SignedDuration::from_secs(20));
    assert_eq!(world.store.commit_policy(Some(&stale), &cut).await, Err(StoreError::Conflict));
    assert_eq!(world.fence(&format!("policy#{}", policy.id)).await, [None, None, None]);
}

#[tokio::test]
async fn a_policy_is_swept_from_its_activation_on_as_it_was_last_committed() {
    let world = World::new().await;
    let organisation = an_organisation("acme");
    let asked = an_enrolment_decision(&organisation, &an_enrolment(ACCOUNT, "europe"), noon());
    let shard = asked.next.shard;
    world.store.commit_policy(None, &asked).await.unwrap();
    let yes = approval(&asked.next, noon());
    world.store.commit_policy(Some(&asked.next), &yes).await.unwrap();
    assert!(world.store.watched(shard).await.unwrap().is_empty());
    let active = verification(&yes.next, noon());
    world.store.commit_policy(Some(&yes.next), &active).await.unwrap();
    let rows = world.store.watched(shard).await.unwrap();
    assert_eq!(rows.into_iter().map(|row| row.policy).collect::<Vec<_>>(), [active.next]);
}

#[tokio::test]
async fn a4_a_site_is_its_organisations_own() {
    let world = World::new().await;
    let store = &world.store;
    let ours = acme(&world).await;
    let theirs = an_active_policy(&an_organisation("globex"), &an_enrolment("333333333333", "usa"), noon());
    store.commit_instance(None, &an_instance_decision(&ours, "eng", "jira", noon())).await.unwrap();
    store.commit_instance(None, &an_instance_decision(&ours, "eng", "confluence", noon())).await.unwrap();
    let mut again = an_instance_decision(&ours, "eng", "jira", noon());
    again.next.id = InstanceId::from_uuid(SequentialIds::uuid(77));
    assert_eq!(store.commit_instance(None, &again).await, Err(taken("app")));
    let mut foreign = an_instance_decision(&theirs, "eng", "confluence", noon());
    foreign.next.id = InstanceId::from_uuid(SequentialIds::uuid(78));
    assert_eq!(store.commit_instance(None, &foreign).await, Err(taken("site")));
    assert_eq!(store.site_owner(&parsed("eng")).await, Ok(Some(parsed("acme"))));
    assert_eq!(store.site_owner(&parsed("ops")).await, Ok(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a4_of_two_organisations_that_want_a_site_at_once_one_has_it() {
    let world = World::new().await;
    let policies = [("acme", ACCOUNT), ("globex", "333333333333")].map(|(name, account)| {
        an_active_policy(&an_organisation(name), &an_enrolment(account, "europe"), noon())
    });
    for round in 0..10 {
        let site = format!("eng-{round}");
        let attempts = policies.iter().zip(["jira", "confluence"]).map(|(policy, app)| {
            let (store, decision) = (world.store.clone(), an_instance_decision(policy, &site, app, noon()));
            tokio::spawn(async move { store.commit_instance(None, &decision).await })
        });
        let outcomes: Vec<_> = join_all(attempts).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    }
}

#[tokio::test]
async fn a4_a_site_is_renamed_with_all_its_apps_or_not_at_all_and_the_old_name_is_free() {
    let world = World::new().await;
    let policy = acme(&world).await;
    let store = &world.store;
    for app in ["jira", "confluence"] {
        commit_active_instance(store, &policy, "eng", app, noon()).await;
    }
    let (from, to): (SiteName, SiteName) = (parsed("eng"), parsed("eng-2"));
    let event = InstanceEvent::SiteRenamed { from: from.clone(), to: to.clone() };
    let decided = |here: Vec<AppInstance>| -> Vec<(AppInstance, InstanceDecision)> {
        let decide = |one: AppInstance| (one.clone(), instance_decided(&one, &event, &by_system(), noon()));
        here.into_iter().map(decide).collect()
    };
    let renamed = decided(store.instances_of_site(&from).await.unwrap());
    assert_eq!(renamed.len(), 2);
    // What came to the site meanwhile is not left behind.
    assert_eq!(store.commit_site(&from, &to, &renamed[..1]).await, Err(StoreError::Conflict));
    // A name that something holds is nobody's to take.
    commit_active_instance(store, &policy, "eng-2", "jira", noon()).await;
    assert_eq!(store.commit_site(&from, &to, &renamed).await, Err(taken("site")));
    assert_eq!(store.instances_of_site(&from).await.unwrap().len(), 2, "nothing was half done");
    let to: SiteName = parsed("eng-3");
    let event = InstanceEvent::SiteRenamed { from: from.clone(), to: to.clone() };
    let decide = |one: AppInstance| (one.clone(), instance_decided(&one, &event, &by_system(), noon()));
    let renamed: Vec<_> = store.instances_of_site(&from).await.unwrap().into_iter().map(decide).collect();
    store.commit_site(&from, &to, &renamed).await.unwrap();
    assert_eq!(store.site_owner(&from).await, Ok(None));
    assert_eq!(store.site_owner(&to).await, Ok(Some(parsed("acme"))));
    let there = store.instance_at(&to, &parsed("jira")).await.unwrap().unwrap();
    assert_eq!((there.id, there.former_site), (renamed[1].0.id, Some(from.clone())));
    assert_eq!(store.instance_at(&from, &parsed("jira")).await, Ok(None));
    assert_eq!(store.commit_site(&from, &to, &renamed).await, Err(StoreError::Conflict), "a replay");
}

#[tokio::test]
async fn a_rejected_instance_gives_its_place_back() {
    let world = World::new().await;
    let store = &world.store;
    let policy = acme(&world).await;
    let asked = an_instance_decision(&policy, "eng", "jira", noon());
    store.commit_instance(None, &asked).await.unwrap();
    assert_eq!(
        store.support_request(asked.next.id.as_uuid()).await.unwrap().unwrap().id,
        asked.next.id.as_uuid()
    );
    let no = instance_decided(
        &asked.next,
        &InstanceEvent::InstanceRejected { reason: "no".into() },
        &by_support(),
        noon(),
    );
    store.commit_instance(Some(&asked.next), &no).await.unwrap();
    assert_eq!(store.support_request(asked.next.id.as_uuid()).await, Ok(None));
    assert_eq!(store.instance_at(&parsed("eng"), &parsed("jira")).await, Ok(None));
    assert_eq!(store.site_owner(&parsed("eng")).await, Ok(None));
    assert_eq!(store.instance(asked.next.id).await, Ok(Some(no.next)));
    let other = an_active_policy(&an_organisation("globex"), &an_enrolment("333333333333", "usa"), noon());
    let mut theirs = an_instance_decision(&other, "eng", "jira", noon());
    theirs.next.id = InstanceId::from_uuid(SequentialIds::uuid(5));
    store.commit_instance(None, &theirs).await.unwrap();
    assert_eq!(store.instance_at(&parsed("eng"), &parsed("jira")).await, Ok(Some(theirs.next)));
}

#[tokio::test]
async fn r9_an_instance_does_not_become_active_at_an_epoch_that_is_over() {
    let world = World::new().await;
    let store = &world.store;
    let policy = acme(&world).await;
    let asked = an_instance_decision(&policy, "eng", "jira", noon());
    store.commit_instance(None, &asked).await.unwrap();
    let approved = instance_decided(&asked.next, &InstanceEvent::InstanceApproved, &by_support(), noon());
    store.commit_instance(Some(&asked.next), &approved).await.unwrap();
    let active = instance_decided(
        &approved.next,
        &InstanceEvent::InstanceProvisioned { epoch: policy.fence.epoch },
        &by_claviger(),
        noon(),
    );
    let cut = cut_off(&policy, noon() + SignedDuration::from_secs(20));
    store.commit_policy(Some(&policy), &cut).await.unwrap();
    assert_eq!(store.commit_instance(Some(&approved.next), &active).await, Err(StoreError::Conflict));
    assert_eq!(store.instance(asked.next.id).await, Ok(Some(approved.next)));
}

#[tokio::test]
async fn i4_facts_are_a_chain_and_are_never_overwritten() {
    let world = World::new().await;
    let policy = acme(&world).await;
    let mut head = AuditHead::default();
    let mut cursor = None;
    loop {
        let page = world.store.facts(&policy.organisation_name, cursor.as_deref(), 1).await.unwrap();
        for fact in &page.items {
            assert!(fact.follows(&head), "{}", fact.slug);
            head = AuditHead { seq: fact.seq, hash: fact.hash.clone() };
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(head, policy.audit);
    let mut forged = cut_off(&policy, noon() + SignedDuration::from_secs(20));
    forged.fact.seq = 1;
    assert_eq!(world.store.commit_policy(Some(&policy), &forged).await, Err(StoreError::Conflict));
}

#[tokio::test]
async fn instances_are_listed_a_page_at_a_time_in_order_of_id() {
    let world = World::new().await;
    let policy = acme(&world).await;
    let mut expected = Vec::new();
    for site in ["one", "two", "three", "four", "five"] {
        expected.push(commit_active_instance(&world.store, &policy, site, "jira", noon()).await);
    }
    expected.sort_by_key(|instance| instance.id);
    for limit in [1, 2, 4, 5, 200] {
        let (mut found, mut cursor, mut pages) = (Vec::new(), None::<String>, 0_u16);
        loop {
            let page =
                world.store.instances(&policy.organisation_name, cursor.as_deref(), limit).await.unwrap();
            found.extend(page.items);
            cursor = page.next;
            pages += 1;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(found, expected);
        assert_eq!(pages, 5_u16.div_ceil(limit), "a full last page says so");
    }
}

fn ticket(version: u64, millis: u64) -> Ticket {
    let id = uuid::Builder::from_unix_timestamp_millis(millis, &[7; 10]).into_uuid();
    Ticket {
        id: TicketId::from_uuid(id),
        organisation: parsed("acme"),
        title: "title".into(),
        status: TicketStatus::Open,
        opened_at: noon(),
        resolved_at: None,
        comments: Vec::new(),
        version,
    }
}

#[tokio::test]
async fn tickets_are_newest_first_and_not_written_over() {
    let world = World::new().await;
    for millis in [3_000, 1_000, 2_000] {
        world.store.save_ticket(&ticket(1, millis)).await.unwrap();
    }
    assert_eq!(world.store.save_ticket(&ticket(1, 1_000)).await, Err(StoreError::Conflict));
    assert_eq!(world.store.save_ticket(&ticket(3, 1_000)).await, Err(StoreError::Conflict));
    world.store.save_ticket(&ticket(2, 1_000)).await.unwrap();
    let first = world.store.tickets(&parsed("acme"), None, 2).await.unwrap();
    assert_eq!(first.items, [ticket(1, 3_000), ticket(1, 2_000)]);
    let rest = world.store.tickets(&parsed("acme"), first.next.as_deref(), 2).await.unwrap();
    assert_eq!((rest.items, rest.next), (vec![ticket(2, 1_000)], None));
    assert!(world.store.tickets(&parsed("globex"), None, 2).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn i4_an_effect_waits_in_the_outbox_until_it_is_done() {
    let world = World::new().await;
    let policy = acme(&world).await;
    let store = &world.store;
    let later = noon() + SignedDuration::from_secs(20);
    let cut = cut_off(&policy, later);
    store.commit_policy(Some(&policy), &cut).await.unwrap();
    let old = store.overdue_effects(later, 10).await.unwrap();
    assert_eq!(old.iter().map(|row| row.effect.clone()).collect::<Vec<_>>(), [Effect::VerifyPolicy]);
    let after = later + SignedDuration::from_millis(1);
    let all = store.overdue_effects(after, 10).await.unwrap();
    assert_eq!(all.len(), 1 + cut.outbox.len());
    assert_eq!(store.overdue_effects(after, 1).await.unwrap(), old, "oldest first");
    for row in &all {
        store.effect_done(&row.organisation, row.id).await.unwrap();
        store.effect_done(&row.organisation, row.id).await.unwrap();
    }
    assert!(store.overdue_effects(after, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn i4_an_effect_that_failed_stands_behind_the_others_and_does_not_come_back_once_it_is_done() {
    let world = World::new().await;
    let policy = acme(&world).await;
    let store = &world.store;
    let later = noon() + SignedDuration::from_secs(20);
    store.commit_policy(Some(&policy), &cut_off(&policy, later)).await.unwrap();
    let after = later + SignedDuration::from_mins(1);
    let all = store.overdue_effects(after, 10).await.unwrap();
    let (failed, others) = all.split_first().unwrap();
    let due = later + SignedDuration::from_secs(30);
    store.effect_failed(&failed.organisation, failed.id, due).await.unwrap();
    assert_eq!(store.overdue_effects(due, 10).await.unwrap(), others);
    let last = store.overdue_effects(after, 10).await.unwrap().pop();
    assert_eq!(last.as_ref(), Some(failed), "as it was, and last");
    store.effect_done(&failed.organisation, failed.id).await.unwrap();
    store.effect_failed(&failed.organisation, failed.id, due).await.unwrap();
    assert_eq!(store.overdue_effects(after, 10).await.unwrap(), others);
}

/// A prober that finds every key usable.
struct Usable(EncryptionPolicy, Timestamp);

#[async_trait]
impl Prober for Usable {
    async fn probe(&self, _: &ProbeRequest) -> Result<ProbeAnswer, CallError> {
        Ok(ProbeAnswer::Probed { rounds: vec![a_round(&self.0, Observation::Usable, self.1)] })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_of_twenty_requests_for_restoration_at_once_one_is_carried_out_and_all_are_told_so() {
    let world = World::new().await;
    let policy = acme(&world).await;
    let cut = cut_off(&policy, noon() + SignedDuration::from_secs(60));
    world.store.commit_policy(Some(&policy), &cut).await.unwrap();
    let ticket = cut.next.ticket.unwrap();
    let asked = (0..20).map(|_| {
        let (store, suspended) = (world.store.clone(), cut.next.clone());
        tokio::spawn(async move {
            let clock = FakeClock::at("2026-11-22T12:02:00Z");
            let prober = Usable(suspended, clock.now());
            let ask =
                RequestRestoration { policies: &store, prober: &prober, clock: &clock, settings: settings() };
            ask.run(&parsed("acme"), ticket, false, &by_admin()).await
        })
    });
    let outcomes: Vec<_> = join_all(asked).await.into_iter().map(Result::unwrap).collect();
    for outcome in &outcomes {
        match outcome {
            Ok(policy) => assert_eq!(policy.lifecycle.slug(), "restoring"),
            // Who lost every race is told to ask again.
            Err(error) => assert!(matches!(error, RequestError::Store(StoreError::Conflict)), "{error:?}"),
        }
    }
    assert!(outcomes.iter().any(Result::is_ok));
    let facts = world.store.facts(&parsed("acme"), None, 200).await.unwrap().items;
    assert_eq!(facts.iter().filter(|fact| fact.slug == "restoration-requested").count(), 1);
    let waiting = world.store.overdue_effects(instant("2026-11-22T13:00:00Z"), 100).await.unwrap();
    assert_eq!(waiting.iter().filter(|row| row.effect == Effect::ProveRestoration).count(), 1);
}

#[tokio::test]
async fn r6_an_instance_stands_among_the_unanswered_from_its_order_to_its_apps_answer() {
    let world = World::new().await;
    let (store, name) = (&world.store, parsed("acme"));
    let policy = acme(&world).await;
    let active = commit_active_instance(store, &policy, "acme-eng", "jira", noon()).await;
    let later = noon() + SignedDuration::from_hours(1);
    assert_eq!(store.unanswered(&name, later, 10).await.unwrap(), None);
    let told_at = noon() + SignedDuration::from_secs(60);
    let order = InstanceEvent::SuspensionOrdered { epoch: Epoch(1) };
    let told = instance_decided(&active, &order, &by_claviger(), told_at);
    store.commit_instance(Some(&active), &told).await.unwrap();
    let waits = store.unanswered(&name, later, 10).await.unwrap().unwrap();
    assert_eq!((waits.count, waits.oldest, &waits.first[..]), (1, told_at, &[active.id][..]));
    assert_eq!(store.unanswered(&name, told_at, 10).await.unwrap(), None, "not that long yet");
    assert_eq!(store.unanswered(&parsed("globex"), later, 10).await.unwrap(), None);
    let effects = store.overdue_effects(later, 10).await.unwrap();
    assert!(effects.iter().any(|row| matches!(row.effect, Effect::TellApp { .. })), "apart from the effects");
    let answer = InstanceEvent::OrderAcknowledged { epoch: Epoch(1), evicted: 3 };
    let answered = instance_decided(&told.next, &answer, &by_claviger(), later);
    store.commit_instance(Some(&told.next), &answered).await.unwrap();
    assert_eq!(store.unanswered(&name, later, 10).await.unwrap(), None);
}

#[tokio::test]
async fn r9_of_two_that_plan_a_hint_of_one_account_at_once_one_wins() {
    let world = World::new().await;
    let account = "222222222222".parse().unwrap();
    let record = |used| HintRecord { planned_at: noon(), period_began: noon(), used, heard: Vec::new() };
    assert_eq!(world.store.hints_of(&account).await, Ok(None));
    world.store.save_hints(&account, None, &record(1)).await.unwrap();
    assert_eq!(world.store.save_hints(&account, None, &record(1)).await, Err(StoreError::Conflict));
    world.store.save_hints(&account, Some(&record(1)), &record(2)).await.unwrap();
    let late = world.store.save_hints(&account, Some(&record(1)), &record(2)).await;
    assert_eq!(late, Err(StoreError::Conflict));
    assert_eq!(world.store.hints_of(&account).await, Ok(Some(record(2))));
}

#[tokio::test]
async fn a_beat_is_in_every_copy_and_an_older_one_changes_nothing() {
    let world = World::new().await;
    let shard = ShardId(3);
    let policy = PolicyId::from_uuid(SequentialIds::uuid(1));
    assert_eq!(world.store.last_beat(shard).await, Ok(None));
    let until = noon() + SignedDuration::from_secs(70);
    let earlier = noon() - SignedDuration::from_secs(1);
    let unproven = [(policy, earlier)].into();
    let beat =
        Beat { swept_at: noon(), watched_until: until, unproven, mass_failure: true, refused: 6, open: 9 };
    world.store.beat(shard, &beat).await.unwrap();
    let late = Beat {
        swept_at: earlier,
        watched_until: earlier,
        unproven: BTreeMap::new(),
        mass_failure: false,
        refused: 0,
        open: 0,
    };
    world.store.beat(shard, &late).await.unwrap();
    assert_eq!(world.store.last_beat(shard).await.unwrap().unwrap(), beat);
    for copy in world.fence("shard#003").await.into_iter().map(Option::unwrap) {
        assert_eq!(copy["watchedUntil"].as_n().unwrap(), &until.as_millisecond().to_string());
        assert_eq!(copy["sweptAt"].as_n().unwrap(), &noon().as_millisecond().to_string());
        assert_eq!(copy["unproven"].as_l().unwrap()[0].as_s().unwrap(), &policy.to_string());
    }
}

#[tokio::test]
async fn an_older_proof_does_not_replace_a_newer_one() {
    let world = World::new().await;
    let policy = PolicyId::from_uuid(SequentialIds::uuid(1));
    assert_eq!(world.store.proven_at(policy).await, Ok(None));
    world.store.record_proof(policy, noon()).await.unwrap();
    world.store.record_proof(policy, noon() - SignedDuration::from_secs(1)).await.unwrap();
    assert_eq!(world.store.proven_at(policy).await, Ok(Some(noon())));
}

fn data_key(version: u32, id: u64, purpose: &str) -> WrappedDataKey {
    WrappedDataKey {
        id: DataKeyId::from_uuid(SequentialIds::uuid(id)),
        instance: InstanceId::from_uuid(SequentialIds::uuid(1)),
        purpose: purpose.into(),
        version,
        generation: 1,
        created_at: noon(),
        wraps: std::collections::BTreeMap::new(),
        second: std::collections::BTreeMap::new(),
    }
}

#[tokio::test]
async fn the_registry_finds_a_data_key_by_version_and_by_id_and_knows_the_current_one() {
    let world = World::new().await;
    let store = &world.store;
    let instance = InstanceId::from_uuid(SequentialIds::uuid(1));
    for (version, id) in [(1, 11), (2, 12), (10, 20)] {
        store.add_data_key(&data_key(version, id, "records")).await.unwrap();
    }
    store.add_data_key(&data_key(99, 99, "attachments")).await.unwrap();
    assert_eq!(store.add_data_key(&data_key(2, 13, "records")).await, Err(StoreError::Conflict));
    assert_eq!(store.add_data_key(&data_key(3, 12, "records")).await, Err(StoreError::Conflict));
    let find = async |choice| store.data_key(instance, "records", choice).await.unwrap();
    let id = |number| DataKeyChoice::Id(DataKeyId::from_uuid(SequentialIds::uuid(number)));
    assert_eq!(find(DataKeyChoice::Current).await, Some(data_key(10, 20, "records")));
    assert_eq!(find(DataKeyChoice::Version(2)).await, Some(data_key(2, 12, "records")));
    assert_eq!(find(id(11)).await, Some(data_key(1, 11, "records")));
    assert_eq!(find(id(13)).await, None, "the loser's identifier was not stored");
    assert_eq!(find(id(99)).await, None, "of another purpose");
    assert_eq!(find(DataKeyChoice::Version(3)).await, None);
    let nobody = InstanceId::from_uuid(SequentialIds::uuid(2));
    assert_eq!(store.data_key(nobody, "records", id(11)).await, Ok(None), "i7: of another instance");
}

#[tokio::test]
async fn e11_an_erased_data_key_is_gone_by_version_and_by_id_and_erasing_it_again_is_no_error() {
    let world = World::new().await;
    let (first, second) = (data_key(1, 1, "records"), data_key(2, 2, "records"));
    for key in [&first, &second] {
        world.store.add_data_key(key).await.unwrap();
    }
    for _ in 0..2 {
        world.store.erase_data_key(&first).await.unwrap();
    }
    assert_eq!(world.store.data_keys(first.instance).await, Ok(vec![second.clone()]));
    for gone in [DataKeyChoice::Version(1), DataKeyChoice::Id(first.id)] {
        assert_eq!(world.store.data_key(first.instance, "records", gone).await, Ok(None));
    }
    let current = world.store.data_key(first.instance, "records", DataKeyChoice::Current).await;
    assert_eq!(current, Ok(Some(second.clone())));
    world.store.erase_data_key(&second).await.unwrap();
    assert!(world.all("registry").await.is_empty(), "pointers too");
    // Whoever read it before writes it back no more.
    assert!(world.store.rewrap_data_key(&second, &second).await.is_err());
}

#[tokio::test]
async fn i6_a_data_key_of_a_policy_or_an_instance_that_changed_since_is_not_stored() {
    let world = World::new().await;
    let store = &world.store;
    let policy = acme(&world).await;
    let instance = commit_active_instance(store, &policy, "acme-eng", "jira", noon()).await;
    let of = |version, id| WrappedDataKey { instance: instance.id, ..data_key(version, id, "records") };
    store.add_data_key_of(&of(1, 11), &policy, &instance).await.unwrap();
    let current = store.data_key(instance.id, "records", DataKeyChoice::Current).await;
    assert_eq!(current, Ok(Some(of(1, 11))));
    let again = store.add_data_key_of(&of(1, 12), &policy, &instance).await;
    assert_eq!(again, Err(StoreError::Conflict), "that version is there");

    // A job begins, and then stops the next one.
    let keys = ["eu-central-1", "eu-west-1"].map(|region| (parsed(region), a_key(ACCOUNT, region, 2)));
    let event = PolicyEvent::ReencryptionRequested { keys: keys.into(), depth: Depth::Rekey };
    let job = decided(&policy, &event, &by_admin(), noon());
    store.commit_policy(Some(&policy), &job).await.unwrap();
    let beside_a_job = store.add_data_key_of(&of(2, 12), &policy, &instance).await;
    assert_eq!(beside_a_job, Err(StoreError::Conflict));
    store.add_data_key_of(&of(2, 12), &job.next, &instance).await.unwrap();

    // The instance is told to stop.
    let told = InstanceEvent::SuspensionOrdered { epoch: Epoch(1) };
    let told = instance_decided(&instance, &told, &by_claviger(), noon());
    store.commit_instance(Some(&instance), &told).await.unwrap();
    let of_another = store.add_data_key_of(&of(3, 13), &job.next, &instance).await;
    assert_eq!(of_another, Err(StoreError::Conflict));
    let stored: Vec<u32> =
        store.data_keys(instance.id).await.unwrap().iter().map(|key| key.version).collect();
    assert_eq!(stored, [1, 2], "and the losers left nothing");
    for lost in [13, 14] {
        let lost = DataKeyChoice::Id(DataKeyId::from_uuid(SequentialIds::uuid(lost)));
        assert_eq!(store.data_key(instance.id, "records", lost).await, Ok(None));
    }
}

#[tokio::test]
async fn k1_a_template_is_stored_once_and_its_progress_as_often_as_it_gets_on() {
    let world = World::new().await;
    let template = |version: &str| PublishedTemplate {
        template: KeyPolicyTemplate {
            version: parsed(version),
            permissions: [KeyPermission::DescribeKey].into(),
            decide_by: noon(),
            published_at: noon(),
            published_by: parsed("agent"),
        },
        shard: 0,
        after: None,
        opened: 0,
        done: false,
    };
    assert_eq!(world.store.templates().await, Ok(Vec::new()));
    let (later, mut earlier) = (template("2027-02-01"), template("2027-01-01"));
    world.store.add_template(&later).await.unwrap();
    world.store.add_template(&earlier).await.unwrap();
    assert_eq!(world.store.add_template(&earlier).await, Err(StoreError::Conflict));
    earlier.after = Some(PolicyId::from_uuid(SequentialIds::uuid(7)));
    earlier.opened = 100;
    world.store.save_progress(&earlier).await.unwrap();
    assert_eq!(world.store.templates().await, Ok(vec![earlier, later]), "by version");
}

#[tokio::test]
async fn a_store_that_is_not_there_is_unavailable() {
    let world = World::new().await;
    world.client.delete_table().table_name("control").send().await.unwrap();
    let name = parsed("acme");
    let expected = StoreError::Unavailable { reason: "ResourceNotFoundException".into() };
    assert_eq!(world.store.organisation(&name).await, Err(expected.clone()));
    assert_eq!(world.store.save_organisation(&an_organisation("acme")).await, Err(expected.clone()));
    let asked = an_enrolment_decision(&an_organisation("acme"), &an_enrolment(ACCOUNT, "europe"), noon());
    assert_eq!(world.store.commit_policy(None, &asked).await, Err(expected));
}

#[tokio::test]
async fn an_item_that_cannot_be_read_is_corrupt() {
    use aws_sdk_dynamodb::types::AttributeValue::S;
    let world = World::new().await;
    let item = [("pk", "ORG#acme"), ("sk", "ORG"), ("doc", "{}")];
    let item = item.map(|(name, value)| (name.to_owned(), S(value.to_owned()))).into();
    world.client.put_item().table_name("control").set_item(Some(item)).send().await.unwrap();
    let error = world.store.organisation(&parsed("acme")).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { reason } if reason.contains("ORG#acme/ORG")));
}

#[tokio::test]
async fn an_idempotency_key_is_held_by_one_answered_once_and_forgotten() {
    use claviger_app::ports::{Idempotency, KeptAnswer, Reservation, Reserve};
    let world = World::new().await;
    let memory = claviger_testkit::MemoryWorld::new();
    let answer = KeptAnswer { status: 202, location: None, etag: None, body: "{}".to_owned() };
    let at = |seconds: i64| noon() + SignedDuration::from_secs(seconds);
    let reserve = |holder: u64, request: &'static str, seconds: i64| Reserve {
        place: "place",
        request,
        holder: SequentialIds::uuid(holder),
        now: at(seconds),
        until: at(seconds + 60),
        forgotten_at: at(seconds + 3600),
    };
    // Both stores, step by step.
    for store in [&world.store as &dyn Idempotency, &memory] {
        let ask = async |holder, request, seconds| store.reserve(&reserve(holder, request, seconds)).await;
        assert_eq!(ask(1, "a", 0).await, Ok(Reservation::Granted));
        assert_eq!(ask(2, "a", 1).await, Ok(Reservation::InProgress));
        assert_eq!(ask(2, "b", 1).await, Ok(Reservation::OtherRequest));
        // The first is waited for in vain; what it says afterwards counts for nothing.
        assert_eq!(ask(2, "a", 60).await, Ok(Reservation::Granted));
        let late = store.keep_answer("place", SequentialIds::uuid(1), &answer).await;
        assert_eq!(late, Err(StoreError::Conflict));
        store.give_back("place", SequentialIds::uuid(1)).await.unwrap();
        assert_eq!(ask(3, "a", 61).await, Ok(Reservation::InProgress));
        store.keep_answer("place", SequentialIds::uuid(2), &answer).await.unwrap();
        store.give_back("place", SequentialIds::uuid(2)).await.unwrap();
        assert_eq!(ask(3, "a", 3000).await, Ok(Reservation::Answered(answer.clone())));
        assert_eq!(ask(3, "b", 3000).await, Ok(Reservation::OtherRequest));
        assert_eq!(ask(3, "b", 3660).await, Ok(Reservation::Granted), "forgotten");
        store.give_back("place", SequentialIds::uuid(3)).await.unwrap();
        assert_eq!(ask(4, "c", 3661).await, Ok(Reservation::Granted), "given back");
    }
}
