//! When a refusal began, when it becomes due, and whether it has to be confirmed.

use claviger_domain::decide::{becomes_due, wants_confirmation};
use claviger_domain::event::PolicyEvent;
use claviger_domain::ids::{DataKeyId, InstanceId};
use claviger_domain::observation::{Observation, ProbeRound, RefusalKind, RefusedUnwrap};
use claviger_domain::policy::{EncryptionPolicy, KeyHealth};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::support::{DENIED, DISABLED, DUBLIN, FRANKFURT, THROTTLED, USABLE, World, admin, prober, region};

const DELETED: Observation = Observation::Refused(RefusalKind::KeyPendingDeletion);
const AMBIGUITY: SignedDuration = SignedDuration::from_secs(60);

fn health(world: &World, of: &str) -> KeyHealth {
    world.policy.keys[&region(of)].health
}

fn refused_since(world: &World, of: &str) -> Option<Timestamp> {
    match health(world, of) {
        KeyHealth::Refused { refused_since, .. } | KeyHealth::NoAnswer { refused_since, .. } => refused_since,
        KeyHealth::Unknown | KeyHealth::Usable => None,
    }
}

/// Reports a round and says when something that began with it becomes due.
fn due_after(world: &mut World, frankfurt: Observation, dublin: Observation) -> Option<Timestamp> {
    let before: EncryptionPolicy = world.policy.clone();
    world.probed(frankfurt, dublin).unwrap();
    becomes_due(&world.rules(), &before, &world.policy)
}

#[test]
fn r2_a_round_is_confirmed_only_where_every_key_refuses_and_the_fence_could_still_close() {
    let active = World::active();
    let wants = |world: &World, frankfurt, dublin| {
        wants_confirmation(&world.rules(), &world.policy, &world.round(frankfurt, dublin))
    };
    assert!(wants(&active, DISABLED, DISABLED));
    assert!(!wants(&active, USABLE, USABLE) && !wants(&active, DISABLED, USABLE));
    let suspended = World::suspended();
    assert!(!wants(&suspended, DISABLED, DISABLED) && !wants(&suspended, USABLE, USABLE));
}

#[test]
fn r4_an_ambiguous_refusal_becomes_due_once_when_it_has_persisted() {
    let mut world = World::active();
    let began = world.now;
    assert_eq!(due_after(&mut world, DENIED, USABLE), Some(began + AMBIGUITY));
    world.later(10);
    // Of the same refusal it was said; of the other region's it was not.
    let also = world.now;
    assert_eq!(due_after(&mut world, DENIED, DENIED), Some(also + AMBIGUITY));
    world.later(10);
    assert_eq!(due_after(&mut world, DENIED, THROTTLED), None);
    assert_eq!(refused_since(&world, DUBLIN), Some(also), "no answer is no proof that it works again");
}

#[test]
fn r4_a_definite_refusal_stands_at_once_and_never_becomes_due() {
    let mut world = World::active();
    assert_eq!(due_after(&mut world, DISABLED, USABLE), None);
    assert!(health(&world, FRANKFURT).stands_refused());
}

#[test]
fn r4_nothing_becomes_due_once_the_fence_is_closed() {
    let mut world = World::suspended();
    world.later(10);
    assert_eq!(due_after(&mut world, DENIED, DENIED), None);
}

#[test]
fn r4_what_was_definite_does_not_start_the_clock_of_what_is_ambiguous() {
    let mut world = World::active();
    world.probed(DISABLED, USABLE).unwrap();
    world.later(61);
    world.probed(DENIED, USABLE).unwrap();
    assert_eq!(refused_since(&world, FRANKFURT), Some(world.now));
    assert!(!health(&world, FRANKFURT).stands_refused(), "it has not persisted yet");
}

#[test]
fn r3_a_refusal_of_another_kind_began_when_it_was_first_seen() {
    let mut world = World::active();
    let first = world.now;
    world.probed(DISABLED, USABLE).unwrap();
    world.later(5);
    world.probed(DISABLED, DENIED).unwrap();
    assert_eq!(refused_since(&world, FRANKFURT), Some(first), "the same one goes on");
    world.later(5);
    world.probed(DELETED, USABLE).unwrap();
    assert_eq!(refused_since(&world, FRANKFURT), Some(world.now));
}

#[test]
fn i2_a_round_says_something_for_as_long_as_it_is_fresh_and_no_longer() {
    for (age, proves) in [(0, true), (29, true), (30, true), (31, false)] {
        let mut world = World::suspended();
        let ticket = world.policy.ticket.unwrap();
        let round = world.round(USABLE, USABLE);
        world.later(age);
        let event = PolicyEvent::RestorationRequested { ticket, round, into_degraded: false };
        assert_eq!(world.happens(event, &admin()).is_ok(), proves, "after {age} s");
        let mut world = World::active();
        let rounds = vec![world.round(DISABLED, USABLE)];
        world.later(age);
        let report = PolicyEvent::ProbesReported { rounds, heard: Vec::new() };
        assert_eq!(world.happens(report, &prober()).is_ok(), proves, "reported after {age} s");
    }
}

#[test]
fn r9_a_data_key_that_was_refused_is_remembered_and_forgotten_with_the_rounds_that_say_so() {
    let refused = RefusedUnwrap {
        instance: InstanceId::from_uuid(Uuid::from_u128(11)),
        data_key: DataKeyId::from_uuid(Uuid::from_u128(12)),
    };
    let mut world = World::active();
    for said in [Some(refused), None] {
        world.later(5);
        let round = ProbeRound { refused_unwrap: said, ..world.round(DENIED, DENIED) };
        let report = PolicyEvent::ProbesReported { rounds: vec![round], heard: Vec::new() };
        world.happens(report, &prober()).unwrap();
        assert_eq!((world.policy.refused_unwrap, world.policy.probed_at), (said, Some(world.now)));
    }
}

#[test]
fn r8_a_key_is_as_it_is_since_the_first_round_that_saw_it_so_and_not_since_the_last() {
    let mut world = World::active();
    let since = |world: &World| world.policy.keys[&region(FRANKFURT)].since;
    world.probed(DENIED, USABLE).unwrap();
    let denied = world.now;
    assert_eq!(since(&world), denied);
    world.later(61);
    world.probed(DENIED, USABLE).unwrap();
    assert!(health(&world, FRANKFURT).stands_refused(), "it counts now");
    assert_eq!(since(&world), denied);
    world.later(5);
    world.probed(USABLE, USABLE).unwrap();
    assert_eq!(since(&world), world.now);
}

#[test]
fn r5_degraded_is_when_some_keys_refuse_and_neither_none_nor_all() {
    let mut world = World::active();
    assert!(!world.policy.is_degraded());
    world.probed(DISABLED, USABLE).unwrap();
    assert!(world.policy.is_degraded());
    assert!(!World::suspended().policy.is_degraded(), "there is nothing left to be served from");
}

#[test]
fn r5_a_degraded_realm_is_not_called_well_while_a_key_gives_no_answer() {
    let mut world = World::active();
    world.probed(DISABLED, USABLE).unwrap();
    let ticket = world.policy.ticket;
    world.later(60);
    assert!(world.probed(THROTTLED, USABLE).unwrap().outbox.is_empty());
    assert_eq!(world.policy.ticket, ticket);
    world.later(60);
    world.probed(USABLE, USABLE).unwrap();
    assert_eq!(world.policy.ticket, None);
}

#[test]
fn s1_the_way_back_from_every_refusal_is_ready_to_paste() {
    for (kind, command) in [
        (RefusalKind::KeyDisabled, "aws kms enable-key"),
        (RefusalKind::KeyPendingDeletion, "aws kms cancel-key-deletion"),
        (RefusalKind::KeyPendingImport, "aws kms import-key-material"),
        (RefusalKind::KeyUnavailable, "aws kms connect-custom-key-store"),
        (RefusalKind::AccessDenied, "aws kms put-key-policy"),
        (RefusalKind::RoleDenied, "aws iam update-assume-role-policy"),
        (RefusalKind::KeyNotFound, "check that the key still exists"),
        (RefusalKind::InvalidState, "aws kms describe-key"),
    ] {
        let mut world = World::active();
        world.probed(Observation::Refused(kind), USABLE).unwrap();
        let key = &world.policy.keys[&region(FRANKFURT)];
        let help = key.help().unwrap();
        assert!(help.contains(command) && !help.contains("<arn>") && !help.contains("<region>"), "{help}");
        assert_eq!(help.contains("--key-id"), help.contains(key.arn.as_str()), "{help}");
        assert_eq!(world.policy.keys[&region(DUBLIN)].help(), None, "it works");
    }
    let mut world = World::active();
    world.probed(THROTTLED, USABLE).unwrap();
    let help = world.policy.keys[&region(FRANKFURT)].help().unwrap();
    assert!(help.contains("heals by itself"), "{help}");
}
