//! Data keys of former generations: what needs them, and that they go with the last backup that does (spec X4).

use claviger_domain::data_keys::{Backup, FormerDataKeys, Need};
use claviger_domain::decide::{Decision, Refusal};
use claviger_domain::effect::Effect;
use claviger_domain::event::{LastBackup, PolicyEvent};
use claviger_domain::ids::ReencryptionId;
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::reencryption::Depth;
use claviger_domain::vendor::Ground;
use jiff::{SignedDuration, Timestamp};
use rstest::rstest;

use crate::reencryption::said;
use crate::support::{DISABLED, USABLE, World, admin, prober, support};

const DAY: i64 = 24 * 60 * 60;

fn days(many: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * many)
}

impl World {
    /// Everything moves to new keys, by two clean scans; the last one saw so many old versions of objects.
    fn moves(&mut self, name: &str, old_versions: Option<u64>) -> ReencryptionId {
        self.asks(name, Depth::Rekey, &admin()).unwrap();
        let job = self.job();
        self.switches(USABLE).unwrap();
        self.passes(1, 0).unwrap();
        self.passes(2, 0).unwrap();
        self.later(31 * DAY);
        self.happens(PolicyEvent::ReencryptionScanDue { job }, &prober()).unwrap();
        self.passes(3, 0).unwrap();
        let event = PolicyEvent::ReencryptionEnded { job, data_keys: 3, old_versions, ledger: String::new() };
        self.happens(event, &prober()).unwrap();
        job
    }

    fn moved() -> (Self, ReencryptionId) {
        let mut world = Self::active();
        let job = world.moves("cc", Some(0));
        (world, job)
    }

    /// What needs the data keys of generation 1.
    fn need(&self, backups: &[Backup]) -> Option<Need> {
        self.policy.frees_data_keys(1, backups, self.rules().in_transit, self.now).err()
    }

    fn expires(
        &mut self,
        generation: u64,
        by: ReencryptionId,
        last: Option<LastBackup>,
    ) -> Result<Decision, Refusal> {
        let event = PolicyEvent::DataKeysExpired { generation, by, last_backup: last };
        self.happens(event, &prober())
    }

    fn states(&self) -> Vec<FormerDataKeys> {
        self.policy.former_keys.iter().map(|former| former.data_keys).collect()
    }
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

#[test]
fn x4_old_data_keys_are_needed_until_the_last_backup_and_the_in_transit_period_are_over() {
    let before = World::active().now;
    let (mut world, _) = World::moved();
    let ended = world.now;
    let short = a_backup("short", before, ended + days(5));
    let long = a_backup("long", before, ended + days(100));
    let newer = a_backup("newer", ended, ended + days(400));
    let backups = [short, long, newer];
    let waits = Need::Backup { backup: "long".to_owned(), until: ended + days(130) };
    world.later(129 * DAY);
    assert_eq!(world.need(&backups), Some(waits));
    world.later(DAY);
    assert_eq!(world.need(&backups), None, "what was taken after the scans holds nothing older");
    let freed = world.policy.frees_data_keys(1, &backups, world.rules().in_transit, world.now).unwrap();
    assert_eq!(freed.last.unwrap().id, "long");
}

#[test]
fn x4_without_a_backup_they_are_kept_as_long_as_one_may_be_on_its_way_to_be_registered() {
    let (mut world, _) = World::moved();
    let until = world.now + days(30);
    assert_eq!(world.need(&[]), Some(Need::Registration { until }));
    world.later(30 * DAY);
    assert_eq!(world.need(&[]), None);
}

#[test]
fn x4_a_rewrap_an_open_job_and_old_versions_of_objects_keep_them() {
    let mut world = World::active();
    assert_eq!(world.need(&[]), Some(Need::NoRekey));
    world.asks("cc", Depth::Rewrap, &admin()).unwrap();
    let job = world.job();
    world.switches(USABLE).unwrap();
    assert_eq!(world.need(&[]), Some(Need::Job));
    world.ends(job).unwrap();
    world.later(90 * DAY);
    assert_eq!(world.need(&[]), Some(Need::NoRekey), "no record was moved");
    world.moves("dd", Some(3));
    world.later(90 * DAY);
    assert_eq!(world.need(&[]), Some(Need::NoRekey), "three old versions are under them");
    world.moves("ee", None);
    world.later(90 * DAY);
    assert_eq!(world.need(&[]), Some(Need::NoRekey), "nobody knows");
    world.moves("ff", Some(0));
    world.later(90 * DAY);
    assert_eq!(world.need(&[]), None);
}

#[test]
fn i6_a_backup_that_was_brought_back_keeps_them_until_the_next_job_is_through() {
    let before = World::active().now;
    let (mut world, first) = World::moved();
    let mut backup = a_backup("b", before, world.now + days(10));
    world.later(9 * DAY);
    backup.brought_back_at = Some(world.now);
    world.later(90 * DAY);
    let backups = [backup];
    assert_eq!(world.need(&backups), Some(Need::BroughtBack { backup: "b".to_owned() }));
    // What was backed up since then holds it too.
    let mixed = a_backup("mixed", world.now, world.now + days(60));
    let second = world.moves("dd", Some(0));
    assert_ne!(first, second);
    let backups = [backups[0].clone(), mixed];
    let until = backups[1].expires_at + days(30);
    assert_eq!(world.need(&backups), Some(Need::Backup { backup: "mixed".to_owned(), until }));
    world.later(60 * DAY);
    assert_eq!(world.need(&backups), None);
    let freed = world.policy.frees_data_keys(1, &backups, world.rules().in_transit, world.now).unwrap();
    assert_eq!(freed.by.job.id, second);
}

#[test]
fn i6_nothing_goes_while_access_is_cut_off_or_the_organisation_leaves() {
    let (mut world, _) = World::moved();
    world.later(31 * DAY);
    assert_eq!(world.need(&[]), None);
    let mut leaving = World { policy: world.policy.clone(), facts: Vec::new(), ..World::active() };
    leaving.now = world.now;
    leaving.happens(PolicyEvent::ClosingAsked, &admin()).unwrap();
    assert_eq!(leaving.need(&[]), Some(Need::NotInUse));
    world.probed_twice(DISABLED, DISABLED).unwrap();
    assert!(world.is_suspended());
    assert_eq!(world.need(&[]), Some(Need::NotInUse));
}

#[test]
fn i6_nothing_goes_while_the_vendor_suspends_though_every_key_works() {
    let (mut world, _) = World::moved();
    world.later(31 * DAY);
    let event = PolicyEvent::VendorSuspended { ground: Ground::Ordered, reason: "unpaid.".to_owned() };
    world.happens(event, &support()).unwrap();
    assert_eq!(world.need(&[]), Some(Need::NotInUse));
}

#[test]
fn x4_a_job_leaves_nothing_of_older_generations_and_everything_of_its_own() {
    let (mut world, _) = World::moved();
    world.later(31 * DAY);
    let jobs = |generation| world.policy.moved_on_from(generation).map(|jobs| jobs.len());
    assert_eq!([0, 1, 2, 3].map(jobs), [Ok(1), Ok(1), Err(Need::NoRekey), Err(Need::NoRekey)]);
}

#[test]
fn x4_a_backup_from_the_moment_of_the_jobs_end_may_be_brought_back_and_holds_nothing_older() {
    let (mut world, _) = World::moved();
    let mut backup = a_backup("b", world.now, world.now + days(10));
    backup.brought_back_at = Some(world.now + days(1));
    world.later(31 * DAY);
    assert_eq!(world.need(&[backup.clone()]), None);
    backup.taken_at -= SignedDuration::from_secs(1);
    assert_eq!(world.need(&[backup]), Some(Need::BroughtBack { backup: "b".to_owned() }));
}

#[rstest]
#[case::nobody_uses_it(Need::NotInUse, &["leaves", "cut off"])]
#[case::a_job(Need::Job, &["re-encryption is under way"])]
#[case::no_job(Need::NoRekey, &["no `rekey`", "old versions of objects included"])]
#[case::brought_back(Need::BroughtBack { backup: "nightly".to_owned() }, &["`nightly`", "brought back"])]
#[case::may_be_registered(Need::Registration { until: Timestamp::UNIX_EPOCH }, &["until 1970-01-01T00:00:00Z"])]
#[case::a_backup(
    Need::Backup { backup: "nightly".to_owned(), until: Timestamp::UNIX_EPOCH },
    &["`nightly`", "until 1970-01-01T00:00:00Z"],
)]
fn x4_what_needs_data_keys_is_said_in_words(#[case] need: Need, #[case] words: &[&str]) {
    let said = need.words();
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
}

#[test]
fn x4_they_go_with_those_before_them_and_the_ticket_names_the_last_backup() {
    let (mut world, _) = World::moved();
    let second = world.moves("dd", Some(0));
    let last = LastBackup { id: "nightly".to_owned(), expires_at: world.now };
    world.later(30 * DAY);
    let decision = world.expires(2, second, Some(last)).unwrap();
    assert_eq!(decision.fact.slug, "data-keys-expired");
    assert!(said(&decision)[0].contains("`nightly`"), "{:?}", said(&decision));
    let removes =
        |row: &claviger_domain::effect::OutboxRow| row.effect == Effect::RemoveDataKeys { generation: 2 };
    assert_eq!(decision.outbox.iter().filter(|row| removes(row)).count(), 1);
    assert_eq!(world.states(), [FormerDataKeys::Removing { since: world.now }; 2]);
    assert_eq!(world.expires(1, second, None).unwrap_err(), Refusal::Redundant, "they go already");
    world.later(60);
    let done = PolicyEvent::DataKeysRemoved { generation: 2 };
    world.happens(done.clone(), &prober()).unwrap();
    assert_eq!(world.states(), [FormerDataKeys::Removed { at: world.now }; 2]);
    assert_eq!(world.happens(done, &prober()).unwrap_err(), Refusal::Redundant);
}

#[test]
fn x4_what_is_kept_is_not_removed_and_what_is_newer_stays() {
    let (mut world, first) = World::moved();
    world.moves("dd", Some(0));
    let done = |generation| PolicyEvent::DataKeysRemoved { generation };
    assert_eq!(world.happens(done(2), &prober()).unwrap_err(), Refusal::Redundant);
    world.later(30 * DAY);
    world.expires(1, first, None).unwrap();
    assert!(world.states()[1].are_kept());
    world.happens(done(1), &prober()).unwrap();
    assert!(matches!(world.states()[..], [FormerDataKeys::Removed { .. }, FormerDataKeys::Kept]));
}

#[rstest]
#[case::a_generation_that_is_the_policys_own(|world: &mut World, job| world.expires(2, job, None), Refusal::Stale)]
#[case::a_job_that_nobody_knows(|world: &mut World, _| {
    world.expires(1, ReencryptionId::from_uuid(uuid::Uuid::from_u128(9)), None)
}, Refusal::Stale)]
#[case::a_backup_that_is_not_over_for_long_enough(|world: &mut World, job| {
    let last = LastBackup { id: "b".to_owned(), expires_at: world.now - days(29) };
    world.expires(1, job, Some(last))
}, Refusal::Stale)]
#[case::an_open_job(|world: &mut World, job| {
    world.asks("dd", Depth::Rekey, &admin()).unwrap();
    world.expires(1, job, None)
}, Refusal::IllegalForState { lifecycle: "active" })]
fn i6_an_expiry_that_is_not_so_is_refused_whoever_says_it(
    #[case] says: fn(&mut World, ReencryptionId) -> Result<Decision, Refusal>,
    #[case] expected: Refusal,
) {
    let (mut world, job) = World::moved();
    world.later(40 * DAY);
    assert_eq!(says(&mut world, job).unwrap_err(), expected);
    assert!(world.states()[0].are_kept());
}

#[test]
fn i6_a_job_that_has_just_ended_frees_nothing_yet() {
    let (mut world, job) = World::moved();
    world.later(29 * DAY);
    assert_eq!(world.expires(1, job, None).unwrap_err(), Refusal::Stale);
}

#[test]
fn i8_former_keys_and_jobs_that_were_stored_before_are_read_as_kept_and_unknown() {
    let (mut world, _) = World::moved();
    world.later(90 * DAY);
    let mut stored = serde_json::to_value(&world.policy).unwrap();
    assert!(stored["formerKeys"][0].get("dataKeys").is_none(), "what is kept is stored as it always was");
    stored["reencryptions"][0].as_object_mut().unwrap().remove("oldVersions").unwrap();
    world.policy = serde_json::from_value::<EncryptionPolicy>(stored).unwrap();
    assert!(world.states()[0].are_kept());
    assert_eq!(world.need(&[]), Some(Need::NoRekey));
    let backup = serde_json::json!({
        "id": "b", "takenAt": "2026-11-23T09:00:00Z", "expiresAt": "2026-12-23T09:00:00Z", "generation": 1,
        "holdsWrappedKeys": false,
    });
    assert_eq!(serde_json::from_value::<Backup>(backup).unwrap().brought_back_at, None);
}

#[test]
fn i8_what_becomes_of_data_keys_outlives_being_stored() {
    let (mut world, first) = World::moved();
    world.moves("dd", Some(0));
    world.later(30 * DAY);
    for removed in [false, true] {
        if removed {
            world.happens(PolicyEvent::DataKeysRemoved { generation: 1 }, &prober()).unwrap();
        } else {
            world.expires(1, first, None).unwrap();
        }
        let states = world.states();
        assert_eq!(states.iter().map(FormerDataKeys::are_kept).collect::<Vec<_>>(), [false, true]);
        let stored = serde_json::to_string(&world.policy).unwrap();
        world.policy = serde_json::from_str(&stored).unwrap();
        assert_eq!(world.states(), states);
    }
}

#[test]
fn x4_of_two_generations_that_go_the_older_is_gone_first_and_the_newer_is_not_taken_for_gone() {
    let (mut world, _) = World::moved();
    let second = world.moves("dd", Some(0));
    world.later(30 * DAY);
    world.expires(2, second, None).unwrap();
    let since = world.now;
    world.later(60);
    world.happens(PolicyEvent::DataKeysRemoved { generation: 1 }, &prober()).unwrap();
    assert_eq!(
        world.states(),
        [FormerDataKeys::Removed { at: world.now }, FormerDataKeys::Removing { since }]
    );
}
