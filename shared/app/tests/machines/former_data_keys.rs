//! Data keys of former generations go with the last backup that needs them (spec X4): `deadlines` decides, `provisioner`
//! removes, and the vendor registers its backups whenever it likes.

use async_trait::async_trait;
use claviger_app::hand_out_data_key::HandOutError;
use claviger_app::ports::{
    Backups, BackupsHead, DataKeyChoice, DataKeyRegistry, DataKeyRemoval, StoreError, WrappedDataKey,
};
use claviger_app::reencryption::Backup;
use claviger_app::register_backup::RegisterBackup;
use claviger_app::request_error::RequestError;
use claviger_domain::data_keys::FormerDataKeys;
use claviger_domain::decide::Decision;
use claviger_domain::effect::{Effect, OutboxRow};
use claviger_domain::ids::ReencryptionId;
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::reencryption::Depth;
use claviger_domain::values::OrganisationName;
use jiff::{SignedDuration, Timestamp};
use rstest::rstest;

use crate::closing::{deadlines, passing};
use crate::reencryption::Stage;
use crate::world::{NOTES_ROLE, World};

const DAY: i64 = 24 * 60 * 60;

fn days(many: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * many)
}

/// An app whose records moved to new keys, with a backup from before that is kept for 100 days.
async fn moved() -> (Stage, ReencryptionId) {
    let stage = Stage::new(3).await;
    registers(&stage.world, a_backup("before", stage.world.now(), stage.world.now() + days(100)))
        .await
        .unwrap();
    let job = stage.asks(Depth::Rekey).await;
    stage.through().await;
    (stage, job)
}

fn a_backup(id: &str, taken_at: Timestamp, expires_at: Timestamp) -> Backup {
    Backup {
        id: id.to_owned(),
        taken_at,
        expires_at,
        generation: 1,
        holds_wrapped_keys: false,
        brought_back_at: None,
    }
}

async fn registers(world: &World, backup: Backup) -> Result<Backup, RequestError> {
    RegisterBackup { policies: &world.store, backups: &world.store }.run(&world.name(), backup).await
}

async fn data_keys(world: &World) -> Vec<WrappedDataKey> {
    let mut found = Vec::new();
    for instance in world.instances().await {
        found.extend(world.store.data_keys(instance.id).await.unwrap());
    }
    found
}

async fn generations(world: &World) -> Vec<u64> {
    data_keys(world).await.iter().map(|key| key.generation).collect()
}

async fn state(world: &World) -> FormerDataKeys {
    world.policy().await.former_keys[0].data_keys
}

/// The order to remove, as it comes to the function.
async fn order(world: &World) -> OutboxRow {
    for row in world.store.outbox() {
        world.deliver().run(&row).await.unwrap();
    }
    let all = world.store.take_published_effects();
    let [row] = &all[..] else { panic!("{all:?}") };
    assert!(matches!(row.effect, Effect::RemoveDataKeys { generation: 1 }), "{row:?}");
    row.clone()
}

#[tokio::test]
async fn x4_old_data_keys_go_with_the_last_backup_that_needs_them_and_no_others() {
    let (stage, job) = moved().await;
    let world = &stage.world;
    let old = data_keys(world).await[0].id;
    assert_eq!(generations(world).await, [1, 2]);
    let shown = stage.view(job).await.ledger.remove(0).former_data_keys;
    assert_eq!((shown.state, shown.since), ("kept", None));
    assert!(shown.needed.unwrap().contains("`before`"));
    let backup = world.store.backup(&world.name(), "before").await.unwrap().unwrap();
    world.clock.set(backup.expires_at + days(30) - SignedDuration::from_secs(1));
    deadlines(world).await;
    assert!(state(world).await.are_kept() && world.store.outbox().is_empty());
    world.later(1);
    deadlines(world).await;
    let since = world.now();
    assert_eq!(state(world).await, FormerDataKeys::Removing { since });
    assert_eq!(generations(world).await, [1, 2], "the decision alone removes nothing");
    world.work(&order(world).await).await.unwrap();
    assert_eq!(generations(world).await, [2]);
    let shown = stage.view(job).await.ledger.remove(0).former_data_keys;
    assert_eq!((shown.state, shown.since, shown.needed), ("removed", Some(world.now()), None));
    let said = stage.said().await;
    assert_eq!(said.iter().filter(|body| body.contains("`before`")).count(), 1, "{said:?}");
    let gone = world.asks_for_key_as(NOTES_ROLE, "acme", DataKeyChoice::Id(old)).await;
    assert!(matches!(gone, Err(HandOutError::NotFound)), "as an unknown one");
    assert_eq!(world.asks_for_key().await.unwrap().generation, 2);
    let facts: Vec<String> = world.store.all_facts(&world.name()).into_iter().map(|fact| fact.slug).collect();
    assert!(facts.windows(2).any(|two| two == ["data-keys-expired", "data-keys-removed"]), "{facts:?}");
    deadlines(world).await;
    assert!(world.store.outbox().is_empty(), "that is all");
}

/// What says that data keys go, where the vendor registers a backup right before the decision is stored.
struct Racing<'a> {
    world: &'a World,
    backup: Backup,
    /// A broken twin: whatever was registered meanwhile, it takes the head as it is now.
    blind: bool,
}

#[async_trait]
impl DataKeyRemoval for Racing<'_> {
    async fn backups_head(&self, organisation: &OrganisationName) -> Result<BackupsHead, StoreError> {
        self.world.store.backups_head(organisation).await
    }

    async fn commit_removal(
        &self,
        previous: &EncryptionPolicy,
        decision: &Decision,
        head: &BackupsHead,
    ) -> Result<(), StoreError> {
        registers(self.world, self.backup.clone()).await.unwrap();
        let now = self.world.store.backups_head(&previous.organisation_name).await?;
        let head = if self.blind { BackupsHead { version: now.version + 1, ..*head } } else { *head };
        self.world.store.commit_removal(previous, decision, &head).await
    }

    async fn remove_former(
        &self,
        organisation: &OrganisationName,
        known: &WrappedDataKey,
    ) -> Result<(), StoreError> {
        self.world.store.remove_former(organisation, known).await
    }
}

#[rstest]
#[case::registered("late")]
#[case::prolonged("before")]
#[tokio::test]
async fn i6_a_backup_that_is_registered_or_prolonged_while_it_is_decided_stops_the_decision(
    #[case] id: &str,
    #[values(false, true)] blind: bool,
) {
    let (stage, _) = moved().await;
    let world = &stage.world;
    let known = world.store.backup(&world.name(), "before").await.unwrap().unwrap();
    world.clock.set(known.expires_at + days(30));
    let backup = a_backup(id, known.taken_at, world.now() + days(9));
    let racing = Racing { world, backup, blind };
    assert_eq!(passing(world, &racing).run().await.unwrap().failed, 0);
    assert_eq!(
        state(world).await.are_kept(),
        !blind,
        "a twin that does not compare the head is seen to be broken"
    );
    if !blind {
        world.later(39 * DAY);
        deadlines(world).await;
        assert!(!state(world).await.are_kept(), "and later it goes its way");
    }
}

#[tokio::test]
async fn i6_a_backup_that_comes_after_the_decision_is_told_the_truth() {
    let (stage, _) = moved().await;
    let world = &stage.world;
    let known = world.store.backup(&world.name(), "before").await.unwrap().unwrap();
    world.clock.set(known.expires_at + days(30));
    deadlines(world).await;
    for id in ["late", "before"] {
        let late = a_backup(id, known.taken_at, world.now() + days(9));
        let refused = registers(world, late).await;
        let Err(RequestError::DataKeysGone(field)) = refused else { panic!("{refused:?}") };
        assert_eq!(field.field, "takenAt");
    }
    assert!(world.store.backup(&world.name(), "late").await.unwrap().is_none());
    let fresh = Backup { generation: 2, ..a_backup("fresh", world.now(), world.now() + days(9)) };
    registers(world, fresh).await.unwrap();
}

#[tokio::test]
async fn i6_that_a_backup_was_brought_back_is_not_forgotten_by_saying_less() {
    let (stage, job) = moved().await;
    let world = &stage.world;
    let known = world.store.backup(&world.name(), "before").await.unwrap().unwrap();
    let brought = Backup { brought_back_at: Some(world.now()), ..known.clone() };
    registers(world, brought.clone()).await.unwrap();
    assert_eq!(registers(world, known.clone()).await.unwrap(), brought);
    let another = Backup { taken_at: known.taken_at + days(1), ..known.clone() };
    let refused = registers(world, another).await;
    assert!(
        matches!(&refused, Err(RequestError::Invalid(faults)) if faults[0].field == "takenAt"),
        "{refused:?}"
    );
    world.clock.set(known.expires_at + days(300));
    deadlines(world).await;
    assert!(state(world).await.are_kept());
    let shown = stage.view(job).await.ledger.remove(0).former_data_keys;
    assert!(shown.needed.unwrap().contains("brought back"));
}

#[rstest]
#[tokio::test]
async fn i4_a_removal_that_is_doubled_or_broken_off_at_any_step_ends_the_same(
    #[values(0, 1, 2, 3)] step: usize,
    #[values(StoreError::Conflict, StoreError::Unavailable { reason: "test".to_owned() })] fault: StoreError,
) {
    let (stage, _) = moved().await;
    let world = &stage.world;
    let known = world.store.backup(&world.name(), "before").await.unwrap().unwrap();
    world.clock.set(known.expires_at + days(30));
    deadlines(world).await;
    let row = order(world).await;
    let mut faults = vec![fault; step];
    for _ in 0..6 {
        world.store.fail_changes(faults.pop());
        let _ = world.work(&row).await;
    }
    world.work(&row).await.unwrap();
    assert_eq!(generations(world).await, [2]);
    assert!(matches!(state(world).await, FormerDataKeys::Removed { .. }));
    let facts = world.store.all_facts(&world.name());
    assert_eq!(facts.iter().filter(|fact| fact.slug == "data-keys-removed").count(), 1);
}

#[tokio::test]
async fn x3_a_data_key_that_is_wrapped_anew_meanwhile_is_looked_at_again_and_one_that_may_not_go_stays() {
    let (stage, _) = moved().await;
    let world = &stage.world;
    let read = data_keys(world).await;
    let name = world.name();
    assert_eq!(
        world.store.remove_former(&name, &read[0]).await,
        Err(StoreError::Conflict),
        "nobody decided it"
    );
    let known = world.store.backup(&name, "before").await.unwrap().unwrap();
    world.clock.set(known.expires_at + days(30));
    deadlines(world).await;
    let mut other = read[0].clone();
    let wrap = other.wraps.values().next().unwrap().clone();
    other.second.insert("eu-west-1".parse().unwrap(), wrap);
    world.store.rewrap_data_key(&read[0], &other).await.unwrap();
    assert_eq!(world.store.remove_former(&name, &read[0]).await, Err(StoreError::Conflict));
    assert_eq!(world.store.remove_former(&name, &read[1]).await, Err(StoreError::Conflict), "it is newer");
    world.work(&order(world).await).await.unwrap();
    assert_eq!(generations(world).await, [2]);
}

#[tokio::test]
async fn i6_an_instance_without_a_newer_data_key_stops_the_removal() {
    let (stage, _) = moved().await;
    let world = &stage.world;
    let known = world.store.backup(&world.name(), "before").await.unwrap().unwrap();
    world.clock.set(known.expires_at + days(30));
    deadlines(world).await;
    let newer = data_keys(world).await.remove(1);
    world.store.erase_data_key(&newer).await.unwrap();
    let row = order(world).await;
    world.work(&row).await.unwrap_err();
    assert_eq!(generations(world).await, [1]);
    assert!(matches!(state(world).await, FormerDataKeys::Removing { .. }));
}
