//! Access requests, with keys that grant or refuse (spec K1).

use std::collections::BTreeSet;

use claviger_app::access_requests::{AnswerAccess, PublishTemplate};
use claviger_app::error::WorkError;
use claviger_app::messages::{CheckResult, ProbeAnswer, ProbeRequest};
use claviger_app::ports::{DataKeyRegistry, Policies, Templates, Tickets};
use claviger_app::prove_permissions::ProvePermissions;
use claviger_app::request_error::RequestError;
use claviger_app::request_instance::RequestInstance;
use claviger_app::request_reencryption::RequestReencryption;
use claviger_domain::access::{AccessStanding, KEY_PERMISSIONS, KeyPermission};
use claviger_domain::effect::{Effect, OutboxRow};
use claviger_domain::event::{Actor, Origin, PolicyEvent};
use claviger_domain::ids::CorrelationId;
use claviger_domain::observation::{Observation, RefusalKind};
use claviger_domain::policy::Lifecycle;
use claviger_domain::values::KeyArn;
use claviger_domain::vendor::Ground;
use claviger_testkit::builders::{self, parsed};
use jiff::SignedDuration;
use serde_json::json;
use uuid::Uuid;

use crate::closing::deadlines;
use crate::world::{DENIED, Direct, USABLE, World, correlation};

fn describing() -> BTreeSet<KeyPermission> {
    [KeyPermission::GenerateDataKey].into()
}

fn publishing(world: &World) -> PublishTemplate<'_> {
    PublishTemplate {
        templates: &world.store,
        policies: &world.store,
        watch_list: &world.store,
        clock: &world.clock,
        settings: world.settings(),
    }
}

async fn publish(world: &World, version: &str) -> claviger_app::ports::PublishedTemplate {
    let decide_by = builders::instant("2027-01-15T00:00:00Z");
    publishing(world).run(parsed(version), describing(), decide_by, &builders::by_support()).await.unwrap()
}

fn answers<'a>(world: &'a World, prober: &'a Direct<'a>) -> AnswerAccess<'a> {
    AnswerAccess {
        templates: &world.store,
        policies: &world.store,
        prober,
        clock: &world.clock,
        settings: world.settings(),
    }
}

/// A template is published, and the organisation has met its request.
async fn asked<'a>(world: &'a World, prober: &'a Direct<'a>) -> (AnswerAccess<'a>, Uuid) {
    publish(world, "2026-12-01").await;
    let access = answers(world, prober);
    let id = access.list(&world.name(), correlation()).await.unwrap()[0].id;
    (access, id)
}

async fn requests_an_app(world: &World, site: &str) -> Result<(), RequestError> {
    RequestInstance {
        policies: &world.store,
        instances: &world.store,
        ids: &world.ids,
        clock: &world.clock,
        settings: world.settings(),
    }
    .run(&builders::an_organisation("acme"), &parsed(site), &parsed("jira"), &builders::by_admin())
    .await
    .map(drop)
}

#[tokio::test]
async fn k1_a_published_template_asks_every_enrolled_customer_once() {
    let world = World::with_acme().await;
    let first = publish(&world, "2026-12-01").await;
    assert!(first.done);
    assert_eq!(first.opened, 1);
    let again = publish(&world, "2026-12-01").await;
    assert_eq!((again.opened, again.done), (1, true));
    world.drain().await;
    let policy = world.policy().await;
    assert_eq!(policy.access_requests.len(), 1);
    assert_eq!(policy.access_requests[0].standing(world.now()), AccessStanding::Open);
    let tickets = world.tickets().await;
    let told = tickets.iter().find(|ticket| ticket.id == policy.access_requests[0].ticket).unwrap();
    assert!(told.comments[0].body.contains("kms:GenerateDataKey"), "{told:?}");
    // The version stands for what it asked for.
    let decide_by = builders::instant("2027-02-15T00:00:00Z");
    let refused = publishing(&world)
        .run(parsed("2026-12-01"), describing(), decide_by, &builders::by_support())
        .await
        .unwrap_err();
    assert!(matches!(refused, RequestError::NotNow { .. }), "{refused}");
}

#[tokio::test]
async fn k1_a_publishing_that_broke_off_goes_on_where_it_stopped() {
    let world = World::with_acme().await;
    // Seeded without claims, so that all may have the same keys.
    for number in 0..120_u32 {
        let organisation = builders::an_organisation(&format!("customer-{number}-of-many"));
        let enrolment = builders::an_enrolment("333333333333", "europe");
        world.store.seed_policy(builders::an_active_policy(&organisation, &enrolment, world.now()));
    }
    let first = publish(&world, "2026-12-01").await;
    assert_eq!((first.opened, first.done), (100, false));
    let rest = publish(&world, "2026-12-01").await;
    assert_eq!((rest.opened, rest.done), (121, true));
}

#[tokio::test]
async fn k1_who_is_activated_after_a_template_was_published_is_asked_without_anybody_looking() {
    let world = World::with_acme().await;
    assert!(publish(&world, "2026-12-01").await.done);
    let globex = builders::an_organisation("globex");
    let enrolment = builders::an_enrolment("333333333333", "europe");
    world.store.seed_policy(builders::an_active_policy(&globex, &enrolment, world.now()));
    for _ in 0..2 {
        deadlines(&world).await;
    }
    let policy = world.store.policy(&globex.name).await.unwrap().unwrap();
    let [request] = &policy.access_requests[..] else { panic!("{:?}", policy.access_requests) };
    assert_eq!(request.version, parsed("2026-12-01"));
    assert!(request.decide_by > world.now());
    world.drain().await;
    let tickets = Tickets::tickets(&world.store, &globex.name, None, 10).await.unwrap().items;
    assert!(tickets.iter().any(|ticket| ticket.id == request.ticket));
    let facts = world.store.all_facts(&globex.name);
    let asked: Vec<_> = facts.iter().filter(|fact| fact.slug == "access-requested").collect();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].actor, Actor::Claviger("deadlines".to_owned()));
}

#[tokio::test]
async fn k3_a_request_that_is_opened_because_an_admin_looks_is_nobodys_act_but_the_services() {
    let world = World::with_acme().await;
    publish(&world, "2026-12-01").await;
    let globex = builders::an_organisation("globex");
    let enrolment = builders::an_enrolment("333333333333", "europe");
    world.store.seed_policy(builders::an_active_policy(&globex, &enrolment, world.now()));
    let prober = Direct(&world);
    let shown = answers(&world, &prober).list(&globex.name, correlation()).await.unwrap();
    assert_eq!(shown.len(), 1);
    let facts = world.store.all_facts(&globex.name);
    let [fact] = &facts[..] else { panic!("{facts:?}") };
    assert_eq!(fact.actor, Actor::Claviger("api".to_owned()), "the agent who published did not do this");
    assert_eq!(fact.correlation_id, correlation());
}

#[tokio::test]
async fn k1_acceptance_is_the_permission_proven_by_probing_and_a_refusal_names_region_and_remedy() {
    let world = World::with_acme().await;
    let prober = Direct(&world);
    let (access, id) = asked(&world, &prober).await;
    let west = builders::a_key("222222222222", "eu-west-1", 1);
    world.keys.answer(&west, DENIED);
    let refused = access.accept(&world.name(), id, &builders::by_admin()).await.unwrap_err();
    let RequestError::NotVerified(checks) = refused else { panic!("{refused}") };
    let failed: Vec<_> = checks.iter().filter(|check| !check.help.is_empty()).collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].region.as_ref().unwrap().as_str(), "eu-west-1");
    assert!(failed[0].help.contains("kms:GenerateDataKey"), "{}", failed[0].help);
    assert_eq!(world.policy().await.access_requests[0].standing(world.now()), AccessStanding::Open);

    world.keys.answer(&west, USABLE);
    for _ in 0..2 {
        access.accept(&world.name(), id, &builders::by_admin()).await.unwrap();
    }
    let policy = world.policy().await;
    assert_eq!(policy.access_requests[0].standing(world.now()), AccessStanding::Accepted);
    let accepted = world.store.all_facts(&world.name());
    assert_eq!(accepted.iter().filter(|fact| fact.slug == "access-granted").count(), 1);
    requests_an_app(&world, "acme-new").await.unwrap();
}

#[tokio::test]
async fn k1_every_permission_that_a_template_may_carry_is_proven_by_itself_and_leaves_nothing_behind() {
    for (permission, operation) in [
        (KeyPermission::Encrypt, "Encrypt"),
        (KeyPermission::Decrypt, "Decrypt"),
        (KeyPermission::ReEncryptFrom, "ReEncrypt"),
        (KeyPermission::ReEncryptTo, "ReEncrypt"),
        (KeyPermission::GenerateDataKey, "GenerateDataKey"),
        (KeyPermission::GenerateDataKeyWithoutPlaintext, "GenerateDataKeyWithoutPlaintext"),
        (KeyPermission::GenerateDataKeyPair, "GenerateDataKeyPair"),
        (KeyPermission::GenerateDataKeyPairWithoutPlaintext, "GenerateDataKeyPairWithoutPlaintext"),
        (KeyPermission::DescribeKey, "DescribeKey"),
        (KeyPermission::GetKeyRotationStatus, "GetKeyRotationStatus"),
    ] {
        let world = World::with_acme().await;
        let prove = ProvePermissions { policies: &world.store, keys: &world.keys };
        world.keys.forget_calls();
        let granted = prove.run(&world.name(), &[permission].into()).await.unwrap();
        assert_eq!(granted.len(), 2, "one a region");
        assert!(granted.iter().all(|check| check.result == CheckResult::Pass), "{granted:?}");
        let calls = world.keys.calls();
        assert!(calls.iter().all(|call| call.dry_run || call.operation == "DescribeKey"), "{calls:?}");
        // Whatever else is granted, without this one it is refused.
        world.keys.grant_not(operation);
        if permission == KeyPermission::DescribeKey {
            for region in ["eu-central-1", "eu-west-1"] {
                world.keys.describe_as(&world.key(region), Err(DENIED));
            }
        }
        let refused = prove.run(&world.name(), &[permission].into()).await.unwrap();
        assert!(refused.iter().all(|check| check.result == CheckResult::Fail), "{permission}: {refused:?}");
        assert!(refused.iter().all(|check| check.help.contains(permission.action())), "{refused:?}");
    }
    assert_eq!(KEY_PERMISSIONS.len(), 10, "each of them stands above");
}

#[tokio::test]
async fn k1_declined_or_ignored_past_the_date_there_are_no_new_apps() {
    let world = World::with_acme().await;
    let prober = Direct(&world);
    let (access, id) = asked(&world, &prober).await;
    requests_an_app(&world, "acme-one").await.unwrap();
    world.clock.advance(SignedDuration::from_hours(24 * 60));
    let shown = access.list(&world.name(), correlation()).await.unwrap();
    assert_eq!(shown[0].standing(world.now()), AccessStanding::Ignored);
    let refused = requests_an_app(&world, "acme-two").await.unwrap_err();
    assert!(matches!(refused, RequestError::AccessNotGranted { request } if request == id), "{refused}");
    access.decline(&world.name(), id, &builders::by_admin()).await.unwrap();
    let refused = requests_an_app(&world, "acme-two").await.unwrap_err();
    assert!(matches!(refused, RequestError::AccessNotGranted { .. }), "{refused}");
    // It is never too late to accept.
    access.accept(&world.name(), id, &builders::by_admin()).await.unwrap();
    requests_an_app(&world, "acme-two").await.unwrap();
    // Taking a proven permission back is done on the keys, not here.
    let refused = access.decline(&world.name(), id, &builders::by_admin()).await.unwrap_err();
    assert!(matches!(refused, RequestError::Refused(_)), "{refused}");
}

#[tokio::test]
async fn k1_nobody_but_an_org_admin_answers_and_nobody_but_support_publishes() {
    let world = World::with_acme().await;
    let prober = Direct(&world);
    let (access, id) = asked(&world, &prober).await;
    let correlation = CorrelationId::from_uuid(id);
    for origin in [builders::by_support(), builders::by_claviger()] {
        let origin = Origin { correlation, ..origin };
        assert!(access.accept(&world.name(), id, &origin).await.is_err());
        assert!(access.decline(&world.name(), id, &origin).await.is_err());
    }
    let decide_by = builders::instant("2027-01-15T00:00:00Z");
    let by_admin = publishing(&world).run(parsed("2"), describing(), decide_by, &builders::by_admin()).await;
    assert!(matches!(by_admin, Err(RequestError::Refused(_))));
    assert_eq!(world.store.templates().await.unwrap().len(), 1);
}

#[tokio::test]
async fn k1_an_old_key_policy_never_makes_a_customer_look_revoked() {
    let world = World::with_acme().await;
    publish(&world, "2026-12-01").await;
    world.keys.forget_calls();
    for _ in 0..5 {
        world.later(60);
        world.sweep().await.unwrap();
    }
    // A lifecycle probe of a key that answers uses nothing but the oldest permission.
    let calls = world.keys.calls();
    assert!(!calls.is_empty());
    assert!(calls.iter().all(|call| call.operation == "Decrypt"), "{calls:?}");
    assert!(matches!(world.policy().await.lifecycle, Lifecycle::Active { .. }));
}

#[tokio::test]
async fn k1_a_vendor_suspension_over_an_access_request_ends_when_the_permission_is_proven() {
    let world = World::with_acme().await;
    let prober = Direct(&world);
    let (access, id) = asked(&world, &prober).await;
    access.decline(&world.name(), id, &builders::by_admin()).await.unwrap();
    let suspended = builders::decided(
        &world.policy().await,
        &claviger_domain::event::PolicyEvent::VendorSuspended {
            ground: claviger_domain::vendor::Ground::AccessRequest { request: id },
            reason: "declined".to_owned(),
        },
        &builders::by_support(),
        world.now(),
    );
    let before = world.policy().await;
    Policies::commit_policy(&world.store, Some(&before), &suspended).await.unwrap();
    assert!(!world.policy().await.fence.is_open());
    world.keys.answer(&builders::a_key("222222222222", "eu-west-1", 1), DENIED);
    assert!(access.accept(&world.name(), id, &builders::by_admin()).await.is_err());
    assert!(!world.policy().await.fence.is_open(), "a refusal lifts nothing");
    world.keys.answer(&builders::a_key("222222222222", "eu-west-1", 1), USABLE);
    access.accept(&world.name(), id, &builders::by_admin()).await.unwrap();
    let policy = world.policy().await;
    assert!(policy.fence.is_open() && policy.vendor.is_none());
}

/// Suspended over an access request that was declined, with the key in Ireland lost for good, and accepted since.
async fn accepted_without_a_lost_key(world: &World) -> (KeyArn, PolicyEvent) {
    let prober = Direct(world);
    let (access, id) = asked(world, &prober).await;
    let lost = world.key("eu-west-1");
    world.keys.answer(&lost, Observation::Refused(RefusalKind::KeyPendingDeletion));
    world.sweep().await.unwrap();
    access.decline(&world.name(), id, &builders::by_admin()).await.unwrap();
    let ground = Ground::AccessRequest { request: id };
    let suspended = PolicyEvent::VendorSuspended { ground, reason: "declined".to_owned() };
    decided(world, &suspended, &builders::by_support()).await;
    world.drain().await;
    assert!(!world.policy().await.fence.is_open());

    access.accept(&world.name(), id, &builders::by_admin()).await.unwrap();
    let policy = world.policy().await;
    assert!(policy.fence.is_open() && policy.vendor.is_none() && policy.is_degraded());
    let new = builders::a_key("222222222222", "eu-west-1", 2);
    world.keys.create(&new);
    world.keys.bind(&new, builders::an_organisation("acme").id);
    let asked = PolicyEvent::KeyReplacementAsked { region: new.region().clone(), key: new.clone() };
    (new, asked)
}

async fn decided(world: &World, event: &PolicyEvent, origin: &Origin) -> Vec<OutboxRow> {
    let policy = world.policy().await;
    let decision = builders::decided(&policy, event, origin, world.now());
    world.store.commit_policy(Some(&policy), &decision).await.unwrap();
    decision.outbox
}

#[tokio::test]
async fn k1_a_suspension_over_a_request_does_not_wait_for_a_key_that_is_gone_for_good() {
    let world = World::with_acme().await;
    let (new, asked) = accepted_without_a_lost_key(&world).await;
    decided(&world, &asked, &builders::by_admin()).await;
    world.drain().await;
    let policy = world.policy().await;
    assert_eq!(policy.keys[new.region()].arn, new);
    assert!(policy.access_requests[0].unproven.is_empty());
}

#[tokio::test]
async fn k1_a_key_that_does_not_give_what_was_accepted_does_not_take_the_lost_ones_place() {
    let world = World::with_acme().await;
    let (new, asked) = accepted_without_a_lost_key(&world).await;
    world.keys.grant_not("GenerateDataKey");
    let rows = decided(&world, &asked, &builders::by_admin()).await;
    let row = rows.iter().find(|row| matches!(row.effect, Effect::ReplaceKey { .. })).unwrap();
    world.work(row).await.unwrap_err();
    let policy = world.policy().await;
    assert_ne!(policy.keys[new.region()].arn, new);
    assert!(!policy.access_requests[0].unproven.is_empty());
}

#[tokio::test]
async fn k1_an_app_that_was_approved_before_the_request_was_declined_is_made_when_it_is_accepted() {
    let world = World::with_acme().await;
    let prober = Direct(&world);
    let (access, id) = asked(&world, &prober).await;
    let instance = crate::newer_data_keys::approved(&world).await;
    access.decline(&world.name(), id, &builders::by_admin()).await.unwrap();
    let waits = world.provision(instance).await;
    assert!(matches!(waits, Err(WorkError::NotNow { .. })), "{waits:?}");
    assert!(world.store.data_keys(instance).await.unwrap().is_empty());
    access.accept(&world.name(), id, &builders::by_admin()).await.unwrap();
    world.provision(instance).await.unwrap();
    assert_eq!(world.store.data_keys(instance).await.unwrap().len(), 1);
}

#[tokio::test]
async fn k1_new_keys_are_checked_for_what_was_granted_on_the_old_ones() {
    let world = World::with_acme().await;
    let prober = Direct(&world);
    let (access, id) = asked(&world, &prober).await;
    assert!(world.policy().await.granted_permissions().is_empty(), "nothing is granted by asking");
    access.accept(&world.name(), id, &builders::by_admin()).await.unwrap();
    world.store.prober_answers(Ok(ProbeAnswer::Checked { checks: Vec::new() }));
    let request = RequestReencryption {
        policies: &world.store,
        prober: &world.store,
        clock: &world.clock,
        settings: world.settings(),
    };
    let key =
        |region: &str| json!({ "region": region, "keyArn": builders::a_key("222222222222", region, 7) });
    let keys = json!({ "keys": [key("eu-central-1"), key("eu-west-1")] });
    request.run(&builders::an_organisation("acme"), &keys, &builders::by_admin()).await.unwrap();
    let sent = world.store.take_probe_requests();
    let [ProbeRequest::Check { granted, .. }] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(*granted, describing());
}
