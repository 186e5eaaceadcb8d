//! An organisation that lets us make its keys: from the role to the keys, and from a role that is taken away to cut off
//! and back.

use claviger_app::check_enrolment::{CheckEnrolment, Checked};
use claviger_app::error::WorkError;
use claviger_app::hand_out_data_key::HandOutError;
use claviger_app::messages::{Check, CheckResult};
use claviger_app::ports::DataKeyRegistry;
use claviger_app::prove_policies::{Proof, ProvePolicies, Proved};
use claviger_app::request_error::RequestError;
use claviger_app::request_replacement::RequestReplacement;
use claviger_domain::decide::Refusal;
use claviger_domain::effect::{Effect, OutboxRow};
use claviger_domain::observation::{NoAnswerKind, Observation, RefusalKind};
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::values::KeyArn;
use claviger_testkit::{FakeKeys, SequentialIds, builders};
use rstest::rstest;

use crate::world::{DENIED, DISABLED, Direct, USABLE, World};

const ROLE_DENIED: Observation = Observation::Refused(RefusalKind::RoleDenied);
const ACCOUNT: &str = "222222222222";

#[tokio::test]
async fn e7_byok_keys_are_made_in_every_region_and_proven_before_the_policy_is_active() {
    let world = World::with_byok_acme().await;
    let policy = world.policy().await;
    assert_eq!(policy.lifecycle.slug(), "active");
    assert_eq!(
        policy.keys.keys().map(|region| region.as_str()).collect::<Vec<_>>(),
        ["eu-central-1", "eu-west-1"]
    );
    assert!(policy.keys.values().all(|key| key.canary.is_some()));
    assert_eq!(world.instances().await[0].status.slug(), "active");
    let facts = world.store.all_facts(&world.name());
    assert!(facts.iter().any(|fact| fact.slug == "keys-created"));
}

#[tokio::test]
async fn e7_a_crash_while_keys_are_made_leaves_no_second_key() {
    let world = World::byok_approved().await;
    let west = builders::parsed("eu-west-1");
    world.keys.making_answers(&west, Observation::NoAnswer(NoAnswerKind::Unreachable));
    let row = world.store.outbox().into_iter().find(|row| row.effect == Effect::VerifyPolicy).unwrap();
    world.work(&row).await.unwrap_err();
    assert_eq!(world.policy().await.lifecycle.slug(), "verifying", "it is tried again");
    assert_eq!(world.keys.made_count(), 1);
    world.keys.making_answers(&west, USABLE);
    world.work(&row).await.unwrap();
    assert_eq!(world.policy().await.lifecycle.slug(), "active");
    assert_eq!(world.keys.made_count(), 2, "the key of the first try is found again");
}

/// Approved, with the key of the first region made in a try that was broken off.
async fn with_a_new_key() -> (World, OutboxRow, KeyArn) {
    let world = World::byok_approved().await;
    let west = builders::parsed("eu-west-1");
    world.keys.making_answers(&west, Observation::NoAnswer(NoAnswerKind::Unreachable));
    let row = world.store.outbox().into_iter().find(|row| row.effect == Effect::VerifyPolicy).unwrap();
    world.work(&row).await.unwrap_err();
    world.keys.making_answers(&west, USABLE);
    let home = world.keys.made().remove(0);
    (world, row, home)
}

const NOT_FOUND: Observation = Observation::Refused(RefusalKind::KeyNotFound);

#[rstest]
#[case::the_key(NOT_FOUND, 0)]
#[case::its_policy(DENIED, 0)]
#[case::when_a_strange_context_is_tried(NOT_FOUND, 1)]
#[case::when_it_is_probed(NOT_FOUND, 2)]
#[tokio::test]
async fn e7_a_key_that_was_just_made_and_is_not_known_everywhere_yet_is_tried_again_and_rejects_nobody(
    #[case] answer: Observation,
    #[case] after: usize,
) {
    let (world, row, home) = with_a_new_key().await;
    let before = vec![USABLE; after];
    world.keys.answer_next(&home, before.into_iter().chain([answer]));
    if answer == NOT_FOUND {
        world.keys.describe_as(&home, Err(NOT_FOUND));
    }
    let error = world.work(&row).await.unwrap_err();
    assert!(matches!(error, WorkError::NotNow { .. }), "{error}");
    assert_eq!(world.policy().await.lifecycle.slug(), "verifying");
    world.later(180);
    world.work(&row).await.unwrap();
    assert_eq!(world.policy().await.lifecycle.slug(), "active");
}

#[tokio::test]
async fn e7_a_made_key_that_still_refuses_when_it_is_some_minutes_old_ends_the_enrolment() {
    let (world, row, home) = with_a_new_key().await;
    world.keys.answer(&home, DENIED);
    world.work(&row).await.unwrap_err();
    world.later(299);
    world.work(&row).await.unwrap_err();
    world.later(1);
    world.work(&row).await.unwrap();
    assert_eq!(world.policy().await.lifecycle.slug(), "rejected");
}

#[tokio::test]
async fn e12_a_refusal_for_another_reason_does_not_prove_that_a_key_asks_for_the_context() {
    let (world, row, home) = with_a_new_key().await;
    world.keys.bind_to_nobody(&home);
    world.keys.answer_next(&home, [USABLE, DISABLED]);
    world.work(&row).await.unwrap();
    assert_eq!(world.policy().await.lifecycle.slug(), "rejected");
}

#[tokio::test]
async fn e7_a_role_that_may_make_no_key_is_rejected_with_the_remedy_and_the_key_that_is_left() {
    let world = World::byok_approved().await;
    world.keys.making_answers(&builders::parsed("eu-west-1"), DENIED);
    world.drain().await;
    let policy = world.policy().await;
    let claviger_domain::policy::Lifecycle::Rejected { reason, .. } = &policy.lifecycle else {
        panic!("{}", policy.lifecycle.slug());
    };
    assert!(reason.contains("put-role-policy") && reason.contains("eu-west-1"), "{reason}");
    assert!(reason.contains("arn:aws:kms:eu-central-1:222222222222:key/"), "{reason}");
}

#[tokio::test]
async fn e12_a_role_that_stops_asking_for_the_external_id_before_support_approves_is_refused() {
    let world = World::byok_approved().await;
    world.keys.create_role(&world.role(), None);
    world.drain().await;
    let policy = world.policy().await;
    assert_eq!(policy.lifecycle.slug(), "rejected");
    assert_eq!(world.keys.made_count(), 0, "no key is made through it");
}

async fn checks(keys: &FakeKeys) -> Vec<Check> {
    let organisation = builders::an_organisation("acme");
    let regions = ["eu-central-1", "eu-west-1"].map(builders::parsed);
    let whose =
        Checked { organisation: organisation.id, external_id: &organisation.external_id, regions: &regions };
    let ids = SequentialIds::default();
    let check = CheckEnrolment { keys, roles: keys, ids: &ids };
    check.run(whose, &builders::a_byok_enrolment(ACCOUNT, "europe"), &[].into()).await
}

fn failed(checks: &[Check]) -> Vec<&str> {
    let failed = checks.iter().filter(|check| check.result == CheckResult::Fail);
    failed.map(|check| check.id.as_str()).collect()
}

#[tokio::test]
async fn e12_byok_a_role_is_proven_with_its_external_id_and_refuses_without_and_with_a_wrong_one() {
    let keys = FakeKeys::new();
    let organisation = builders::an_organisation("acme");
    keys.create_role(&builders::a_role(ACCOUNT), Some(&organisation.external_id));
    let passed = checks(&keys).await;
    assert!(failed(&passed).is_empty(), "{passed:?}");
    for region in ["eu-central-1", "eu-west-1"] {
        assert!(passed.iter().any(|check| check.region.as_ref().is_some_and(|r| r.as_str() == region)));
    }
    let refused: Vec<bool> =
        keys.assumed().iter().filter(|asked| !asked.let_in).map(|asked| asked.with_external_id).collect();
    assert_eq!(refused, [false, true], "without, and with a wrong one");
    assert_eq!(keys.made_count(), 0, "a dry run makes nothing");
}

#[tokio::test]
async fn e12_byok_a_role_without_external_id_is_refused_with_its_own_remedy() {
    let keys = FakeKeys::new();
    keys.create_role(&builders::a_role(ACCOUNT), None);
    let found = checks(&keys).await;
    assert_eq!(failed(&found), ["external-id-enforced"]);
    let check = found.iter().find(|check| check.id == "external-id-enforced").unwrap();
    assert!(check.help.contains("update-assume-role-policy --role-name key-management"), "{}", check.help);
    assert!(!found.iter().any(|check| check.id == "role-permissions"), "and it is not used any further");
}

#[rstest]
#[case::of_another_customer(Some(0xbad), "role-assumable")]
#[case::not_there(None, "role-assumable")]
#[tokio::test]
async fn e12_byok_a_role_that_does_not_let_us_in_proves_nothing_about_the_external_id(
    #[case] other: Option<u64>,
    #[case] fault: &str,
) {
    let keys = FakeKeys::new();
    if let Some(other) = other {
        let id = claviger_domain::key_access::ExternalId::from_uuid(SequentialIds::uuid(other));
        keys.create_role(&builders::a_role(ACCOUNT), Some(&id));
    }
    let found = checks(&keys).await;
    assert_eq!(failed(&found), [fault, fault]);
    assert!(!found.iter().any(|check| check.id == "external-id-enforced"));
}

#[tokio::test]
async fn e12_byok_what_gives_no_answer_is_no_proof() {
    let keys = FakeKeys::new();
    let organisation = builders::an_organisation("acme");
    keys.create_role(&builders::a_role(ACCOUNT), Some(&organisation.external_id));
    keys.role_answers(&builders::a_role(ACCOUNT), Observation::NoAnswer(NoAnswerKind::Throttled));
    let found = checks(&keys).await;
    assert_eq!(failed(&found), ["role-assumable", "role-assumable"]);
    assert!(found[0].help.contains("try again"), "{}", found[0].help);
}

#[tokio::test]
async fn r1_a_denied_trust_cuts_off_when_it_persists_although_kept_sessions_still_work() {
    let world = World::with_byok_acme().await;
    world.asks_for_key().await.unwrap();
    world.keys.role_answers(&world.role(), ROLE_DENIED);
    world.later(301);
    world.asks_for_key().await.unwrap();
    world.sweep().await.unwrap();
    let policy = world.policy().await;
    assert_eq!(policy.lifecycle.slug(), "active", "ambiguous: it has to persist");
    world.later(61);
    world.sweep().await.unwrap();
    let policy = world.policy().await;
    assert_eq!(policy.lifecycle.slug(), "suspended");
    assert!(matches!(world.asks_for_key().await.err().unwrap(), HandOutError::Suspended));
    let help = policy.keys.values().next().unwrap().help().unwrap();
    assert!(help.contains("update-assume-role-policy"), "{help}");
    world.drain().await;
    let ticket = &world.tickets().await[0];
    assert_eq!(ticket.title, "BYOK revocation started for AWS account 222222222222");
}

#[tokio::test]
async fn i2_a_denied_trust_counts_for_nothing_while_the_control_probes_are_ill() {
    let world = World::with_byok_acme().await;
    for region in ["eu-central-1", "eu-west-1"] {
        world.keys.control(&builders::parsed(region), false);
    }
    world.keys.role_answers(&world.role(), ROLE_DENIED);
    for _ in 0..10 {
        world.sweep().await.unwrap();
        world.later(60);
    }
    assert_eq!(world.policy().await.lifecycle.slug(), "active");
}

#[tokio::test]
async fn i3_an_unwrap_through_a_kept_session_proves_nothing_and_a_proof_assumes_the_role_anew() {
    let world = World::with_byok_acme().await;
    world.asks_for_key().await.unwrap();
    world.keys.role_answers(&world.role(), ROLE_DENIED);
    world.later(301);
    let key = world.asks_for_key().await.unwrap();
    assert!(
        key.proven_until <= world.now(),
        "the kept session let us in, and that says nothing of the trust"
    );
    let prove = ProvePolicies {
        policies: &world.store,
        proofs: &world.store,
        probe: world.probe(),
        clock: &world.clock,
        timer: &world.clock,
        settings: world.settings(),
    };
    let id = world.policy().await.id;
    let none = Proved { policy: id, proof: Proof::Unavailable, kms_calls: 0 };
    assert_eq!(prove.run(&[id]).await, [none], "KMS was not reached");
}

#[tokio::test]
async fn s1_a_deleted_role_cuts_off_and_the_same_role_made_again_restores() {
    let world = World::with_byok_acme().await;
    world.keys.delete_role(&world.role());
    for _ in 0..3 {
        world.sweep().await.unwrap();
        world.later(60);
    }
    assert_eq!(world.policy().await.lifecycle.slug(), "suspended");
    world.drain().await;
    world.keys.create_role(&world.role(), Some(&builders::an_organisation("acme").external_id));
    world.restore().await;
    assert_eq!(world.policy().await.lifecycle.slug(), "active");
    world.asks_for_key().await.unwrap();
}

#[tokio::test]
async fn r3_a_disabled_key_of_byok_cuts_off_at_once() {
    let world = World::with_byok_acme().await;
    for key in world.policy().await.keys.values() {
        world.keys.answer(&key.arn, DISABLED);
    }
    world.sweep().await.unwrap();
    assert_eq!(world.policy().await.lifecycle.slug(), "suspended");
}

const DUBLIN: &str = "eu-west-1";

/// Dublin's key waits for its deletion; data is served from Frankfurt.
async fn degraded() -> World {
    let world = World::with_byok_acme().await;
    let lost = world.policy().await.keys[&builders::parsed(DUBLIN)].arn.clone();
    world.keys.answer(&lost, Observation::Refused(RefusalKind::KeyPendingDeletion));
    world.sweep().await.unwrap();
    world.drain().await;
    world.later(60);
    assert!(world.policy().await.is_degraded());
    world
}

async fn asks_for_replacement(world: &World, key: Option<KeyArn>) -> Result<EncryptionPolicy, RequestError> {
    let prober = Direct(world);
    let replacement = RequestReplacement {
        policies: &world.store,
        prober: &prober,
        clock: &world.clock,
        settings: world.settings(),
    };
    let organisation = builders::an_organisation("acme");
    replacement.run(&organisation, &builders::parsed(DUBLIN), key, &builders::by_admin()).await
}

#[tokio::test]
async fn s2_byok_a_lost_key_is_replaced_by_one_that_the_service_makes_and_twice_asked_makes_one() {
    let world = degraded().await;
    let lost = world.policy().await.keys[&builders::parsed(DUBLIN)].arn.clone();
    let named = asks_for_replacement(&world, Some(lost.clone())).await.unwrap_err();
    assert!(matches!(named, RequestError::Invalid(_)), "{named}");
    for _ in 0..2 {
        asks_for_replacement(&world, None).await.unwrap();
    }
    assert_eq!(world.keys.made_count(), 3, "two of the enrolment, one in the place of the lost one");
    world.drain().await;
    let policy = world.policy().await;
    let key = &policy.keys[&builders::parsed(DUBLIN)];
    assert!(key.arn != lost && key.lost_before == 1 && !policy.is_degraded());
    for wrapped in world.store.data_keys(world.instances().await[0].id).await.unwrap() {
        assert_eq!(wrapped.wraps[&builders::parsed(DUBLIN)].key, key.arn);
    }
    world.later(60);
    world.sweep().await.unwrap();
    assert!(world.asks_for_key().await.is_ok());
    // The next one that is lost has another name again.
    let second = key.arn.clone();
    world.keys.answer(&second, Observation::Refused(RefusalKind::KeyPendingDeletion));
    world.sweep().await.unwrap();
    world.drain().await;
    asks_for_replacement(&world, None).await.unwrap();
    assert_eq!(world.keys.made_count(), 4);
}

#[tokio::test]
async fn s2_byok_nothing_is_made_for_a_key_that_is_not_lost_or_through_a_role_that_lets_anybody_in() {
    let world = World::with_byok_acme().await;
    let refused = asks_for_replacement(&world, None).await.unwrap_err();
    assert!(matches!(refused, RequestError::Refused(Refusal::KeyNotLost { .. })), "{refused}");
    let world = degraded().await;
    world.keys.create_role(&world.role(), None);
    let refused = asks_for_replacement(&world, None).await.unwrap_err();
    let RequestError::NotVerified(checks) = refused else { panic!("{refused}") };
    assert!(checks.iter().any(|check| check.id == "external-id-enforced"), "{checks:?}");
    let world = degraded().await;
    world.keys.making_answers(&builders::parsed(DUBLIN), DENIED);
    let refused = asks_for_replacement(&world, None).await.unwrap_err();
    let RequestError::NotVerified(checks) = refused else { panic!("{refused}") };
    assert!(checks[0].help.contains("put-role-policy"), "{checks:?}");
    assert_eq!(world.keys.made_count(), 2);
}
