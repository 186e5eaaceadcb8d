//! A site is renamed, or deleted (spec A4).

use claviger_app::erase_data_keys::GRACE;
use claviger_app::hand_out_data_key::HandOutError;
use claviger_app::ports::{DataKeyRegistry, Instances, PendingErasures, Policies, StoreError};
use claviger_app::request_error::RequestError;
use claviger_app::request_instance::RequestInstance;
use claviger_app::sites::Sites;
use claviger_domain::decide::{Refusal, decide};
use claviger_domain::event::PolicyEvent;
use claviger_domain::instance::{AppInstance, InstanceStatus};
use claviger_domain::reencryption::Depth;
use claviger_domain::values::SiteName;
use claviger_testkit::builders::{self, by_admin, by_system, parsed};
use jiff::SignedDuration;

use crate::closing::deadlines;
use crate::world::World;

const SITE: &str = "acme-eng";

fn sites(world: &World) -> Sites<'_> {
    Sites { policies: &world.store, instances: &world.store, clock: &world.clock, settings: world.settings() }
}

async fn renames(world: &World, from: &str, to: &str) -> Result<Vec<AppInstance>, RequestError> {
    let organisation = builders::an_organisation("acme");
    sites(world).rename(&organisation, &parsed(from), &parsed(to), &by_system()).await
}

async fn deletes(world: &World) -> Result<Vec<AppInstance>, RequestError> {
    sites(world).delete(&builders::an_organisation("acme"), &parsed(SITE), &by_system()).await
}

async fn keeps(world: &World) -> Result<Vec<AppInstance>, RequestError> {
    sites(world).keep(&builders::an_organisation("acme"), &parsed(SITE), &by_system()).await
}

async fn requests(world: &World, site: &str, app: &str) -> Result<AppInstance, RequestError> {
    let request = RequestInstance {
        policies: &world.store,
        instances: &world.store,
        ids: &world.ids,
        clock: &world.clock,
        settings: world.settings(),
    };
    request.run(&builders::an_organisation("acme"), &parsed(site), &parsed(app), &by_admin()).await
}

async fn only(world: &World) -> AppInstance {
    let [one] = &world.instances().await[..] else { panic!("{:?}", world.instances().await) };
    one.clone()
}

/// An unencrypted member of the family beside the encrypted app.
async fn with_sibling(world: &World) {
    let mut sibling =
        builders::an_active_instance(&world.policy().await, SITE, "jira-product-discovery", world.now());
    sibling.policy = None;
    sibling.realm = None;
    sibling.status = InstanceStatus::NotEncrypted { since: world.now(), suspended_since: None };
    world.store.seed_instance(sibling);
}

#[tokio::test]
async fn a4_a_renamed_site_takes_every_app_along_changes_no_key_and_frees_the_old_name() {
    let world = World::with_acme().await;
    with_sibling(&world).await;
    let before = world.store.data_keys(world.instances().await[0].id).await.unwrap();
    let renamed = renames(&world, SITE, "acme-lab").await.unwrap();
    assert_eq!(renamed.len(), 2, "the family stays on one site");
    for _ in 0..2 {
        assert_eq!(renames(&world, SITE, "acme-lab").await.unwrap().len(), 2, "told twice, it is done once");
    }
    for instance in world.instances().await {
        assert_eq!(instance.site, parsed("acme-lab"));
        assert_eq!(instance.former_site, Some(parsed(SITE)));
        let facts = world.store.all_facts(&world.name());
        let own = facts.iter().filter(|fact| fact.stream == instance.id.as_uuid());
        assert_eq!(own.filter(|fact| fact.slug == "site-renamed").count(), 1);
    }
    assert_eq!(world.store.data_keys(world.instances().await[0].id).await.unwrap(), before);
    assert!(matches!(world.asks_for_key().await, Err(HandOutError::NotFound)), "the old name leads nowhere");
    // What is on the new site goes with its family as ever.
    world.cut_off().await;
    assert!(world.instances().await.iter().all(|one| one.status.slug() == "suspended"));
    world.restore().await;
    // Anybody may have the old name now; here it comes back.
    assert_eq!(requests(&world, SITE, "jira").await.unwrap().site, parsed(SITE));
    let taken = renames(&world, "acme-lab", SITE).await.unwrap_err();
    assert!(matches!(taken, RequestError::Taken(_)), "{taken}");
    assert!(matches!(renames(&world, "nowhere", "x").await, Err(RequestError::NotFound { .. })));
}

#[tokio::test]
async fn a4_a_site_of_another_organisation_is_not_there_and_its_name_is_taken() {
    let world = World::with_acme().await;
    world.enrol_globex("333333333333").await;
    let globex = builders::an_organisation("globex");
    let stolen = sites(&world).rename(&globex, &parsed(SITE), &parsed("mine"), &by_system()).await;
    assert!(matches!(stolen, Err(RequestError::NotFound { .. })));
    let deleted = sites(&world).delete(&globex, &parsed(SITE), &by_system()).await;
    assert!(matches!(deleted, Err(RequestError::NotFound { .. })));
    let policy = world.store.policy(&parsed("globex")).await.unwrap().unwrap();
    let theirs = builders::an_instance_decision(&policy, "globex-eng", "jira", world.now());
    world.store.commit_instance(None, &theirs).await.unwrap();
    let taken = renames(&world, SITE, "globex-eng").await.unwrap_err();
    assert!(matches!(taken, RequestError::Taken(_)), "{taken}");
    assert_eq!(only(&world).await.site, parsed(SITE));
}

#[tokio::test]
async fn a4_of_two_renamings_at_once_one_wins_and_a_store_that_fails_leaves_nothing_half_done() {
    let world = World::with_acme().await;
    with_sibling(&world).await;
    let failure = StoreError::Unavailable { reason: "down".to_owned() };
    world.store.fail_changes([failure]);
    renames(&world, SITE, "acme-lab").await.unwrap_err();
    let on = async |site: &str| world.store.instances_of_site(&parsed::<SiteName>(site)).await.unwrap().len();
    assert_eq!((on(SITE).await, on("acme-lab").await), (2, 0));
    let (one, other) =
        futures_util::join!(renames(&world, SITE, "acme-one"), renames(&world, SITE, "acme-two"));
    assert_eq!(usize::from(one.is_ok()) + usize::from(other.is_ok()), 1, "{one:?} {other:?}");
    assert_eq!(on("acme-one").await + on("acme-two").await, 2);
}

#[tokio::test]
async fn a4_a_deleted_site_keeps_its_data_keys_for_the_time_of_the_catalogue_and_then_loses_all_of_them() {
    let world = World::with_acme().await;
    with_sibling(&world).await;
    let id = world.store.instance_at(&parsed(SITE), &parsed("jira")).await.unwrap().unwrap().id;
    assert_eq!(deletes(&world).await.unwrap().len(), 2);
    world.later(60);
    assert_eq!(deletes(&world).await.unwrap().len(), 2, "told twice, the time runs from the first");
    world.drain().await;
    let of = async || world.store.instance(id).await.unwrap().unwrap();
    let deletion = of().await.deletion.unwrap();
    let asked_on = world.store.instances_of_site(&parsed(SITE)).await.unwrap();
    assert_eq!(asked_on.len(), 2, "what was never encrypted stays as long");
    let ticket = deletion.ticket.unwrap();
    let told = async || world.tickets().await.into_iter().find(|one| one.id == ticket).unwrap();
    let ticket = told().await;
    assert_eq!(ticket.title, "CMK encryption for AWS account 222222222222: a site was deleted");
    assert!(ticket.comments[0].body.contains(SITE), "{ticket:?}");
    // Until then everything is as before, for who has to export it or finds the record wrong.
    assert!(world.asks_for_key().await.is_ok());
    let refused = requests(&world, SITE, "confluence").await.unwrap_err();
    assert!(matches!(refused, RequestError::NotEligible { .. }), "{refused}");
    world.clock.advance(SignedDuration::from_hours(24 * 30 - 1));
    deadlines(&world).await;
    assert!(world.asks_for_key().await.is_ok());
    world.clock.advance(SignedDuration::from_hours(2));
    deadlines(&world).await;
    deadlines(&world).await;
    assert_eq!(of().await.status.slug(), "erasing");
    assert!(matches!(world.asks_for_key().await, Err(HandOutError::NotFound)));
    assert!(!world.store.data_keys(id).await.unwrap().is_empty(), "who was given one has the grace");
    world.clock.advance(GRACE);
    world.drain().await;
    assert_eq!(of().await.status, InstanceStatus::Deleted { at: world_time(&of().await), data_keys: 1 });
    assert!(world.store.data_keys(id).await.unwrap().is_empty());
    assert!(world.store.pending_erasures(None, 10).await.unwrap().items.is_empty());
    let ticket = told().await;
    assert!(ticket.resolved_at.is_some() && ticket.comments.last().unwrap().body.contains("1 data keys"));
    // The name is free, and a new app on it has nothing of the old one.
    let again = requests(&world, SITE, "jira").await.unwrap();
    assert_ne!(again.id, id);
    assert!(matches!(keeps(&world).await, Err(RequestError::Refused(Refusal::SiteNotDeleted))));
}

fn world_time(instance: &AppInstance) -> jiff::Timestamp {
    let InstanceStatus::Deleted { at, .. } = instance.status else { panic!("{instance:?}") };
    at
}

#[tokio::test]
async fn a4_a_deletion_that_is_taken_back_in_time_changes_nothing_and_later_there_is_no_way_back() {
    let world = World::with_acme().await;
    assert!(matches!(keeps(&world).await, Err(RequestError::Refused(Refusal::SiteNotDeleted))));
    deletes(&world).await.unwrap();
    world.drain().await;
    let ticket = only(&world).await.deletion.unwrap().ticket.unwrap();
    keeps(&world).await.unwrap();
    world.drain().await;
    assert_eq!(only(&world).await.deletion, None);
    let told = world.tickets().await.into_iter().find(|one| one.id == ticket).unwrap();
    assert!(told.resolved_at.is_some());
    world.clock.advance(SignedDuration::from_hours(24 * 60));
    deadlines(&world).await;
    assert_eq!(only(&world).await.status.slug(), "active");
    deletes(&world).await.unwrap();
    world.clock.advance(SignedDuration::from_hours(24 * 31));
    deadlines(&world).await;
    assert!(matches!(keeps(&world).await, Err(RequestError::Refused(Refusal::ErasureBegan))));
}

#[tokio::test]
async fn a6_a_deletion_that_is_taken_back_leaves_the_unencrypted_app_in_its_place_and_in_its_family() {
    let world = World::with_acme().await;
    with_sibling(&world).await;
    let sibling = async || {
        let app = parsed("jira-product-discovery");
        world.store.instance_at(&parsed(SITE), &app).await.unwrap().unwrap()
    };
    deletes(&world).await.unwrap();
    world.cut_off().await;
    assert_eq!(sibling().await.status.slug(), "suspended", "meanwhile it stops with the rest");
    world.restore().await;
    assert_eq!(sibling().await.status.slug(), "not-encrypted");
    keeps(&world).await.unwrap();
    assert_eq!(sibling().await.deletion, None);
    world.clock.advance(SignedDuration::from_hours(24 * 60));
    deadlines(&world).await;
    world.cut_off().await;
    assert_eq!(sibling().await.status.slug(), "suspended");
}

#[tokio::test]
async fn a3_an_app_that_exists_unencrypted_is_not_new_because_its_site_was_deleted_and_kept() {
    let world = World::with_acme().await;
    let mut confluence = builders::an_active_instance(&world.policy().await, SITE, "confluence", world.now());
    (confluence.policy, confluence.realm) = (None, None);
    confluence.status = InstanceStatus::NotEncrypted { since: world.now(), suspended_since: None };
    world.store.seed_instance(confluence.clone());
    deletes(&world).await.unwrap();
    keeps(&world).await.unwrap();
    let refused = requests(&world, SITE, "confluence").await.unwrap_err();
    assert!(matches!(refused, RequestError::NotEligible { .. }), "{refused}");
    // When the time is over it is gone with the site.
    deletes(&world).await.unwrap();
    world.clock.advance(SignedDuration::from_hours(24 * 31));
    deadlines(&world).await;
    let gone = world.store.instance(confluence.id).await.unwrap().unwrap();
    assert_eq!(gone.status.slug(), "deleted");
    assert!(world.store.instance_at(&parsed(SITE), &parsed("confluence")).await.unwrap().is_none());
}

#[tokio::test]
async fn a4_a_suspended_site_is_deleted_all_the_same_and_nobody_but_the_records_deletes_or_renames() {
    let world = World::with_acme().await;
    let organisation = builders::an_organisation("acme");
    for origin in [by_admin(), builders::by_support(), builders::by_claviger()] {
        let renamed = sites(&world).rename(&organisation, &parsed(SITE), &parsed("x"), &origin).await;
        assert!(matches!(renamed, Err(RequestError::Refused(Refusal::Forbidden { .. }))));
        let deleted = sites(&world).delete(&organisation, &parsed(SITE), &origin).await;
        assert!(matches!(deleted, Err(RequestError::Refused(Refusal::Forbidden { .. }))));
    }
    deletes(&world).await.unwrap();
    world.cut_off().await;
    assert_eq!(only(&world).await.status.slug(), "suspended");
    world.clock.advance(SignedDuration::from_hours(24 * 31));
    deadlines(&world).await;
    world.clock.advance(GRACE);
    world.drain().await;
    let gone = only(&world).await;
    assert_eq!(gone.status.slug(), "deleted");
    assert!(world.store.data_keys(gone.id).await.unwrap().is_empty());
    // A restoration finds nothing of it to bring back.
    world.restore().await;
    assert_eq!(only(&world).await.status.slug(), "deleted");
}

#[tokio::test]
async fn x3_the_data_keys_of_a_deleted_site_wait_for_a_re_encryption_that_is_under_way() {
    let world = World::with_acme().await;
    deletes(&world).await.unwrap();
    let happens = async |event: PolicyEvent| {
        let policy = world.policy().await;
        let decision = decide(&builders::rules(), &policy, &event, &by_admin(), world.now()).unwrap();
        world.store.commit_policy(Some(&policy), &decision).await.unwrap();
        decision.next
    };
    let new = |region: &str| (parsed(region), builders::a_key("222222222222", region, 7));
    let keys = ["eu-central-1", "eu-west-1"].map(new).into();
    let asked = happens(PolicyEvent::ReencryptionRequested { keys, depth: Depth::Rekey }).await;
    world.clock.advance(SignedDuration::from_hours(24 * 31));
    deadlines(&world).await;
    assert_eq!(only(&world).await.status.slug(), "active");
    let job = asked.reencryption.unwrap().id;
    happens(PolicyEvent::ReencryptionCancelled { job }).await;
    happens(PolicyEvent::ReencryptionEnded {
        job,
        data_keys: 1,
        old_versions: None,
        ledger: "nothing".to_owned(),
    })
    .await;
    deadlines(&world).await;
    assert_eq!(only(&world).await.status.slug(), "erasing");
}
