//! Given a policy, when something happens, then this is decided. Names say the rule.

use std::collections::{BTreeMap, BTreeSet};

use claviger_domain::catalogue::Catalogue;
use claviger_domain::decide::{Refusal, decide, wants_confirmation};
use claviger_domain::effect::Effect;
use claviger_domain::event::{Actor, PolicyEvent};
use claviger_domain::fact::{AuditHead, Fact};
use claviger_domain::fence::{Cause, Epoch};
use claviger_domain::ids::{EffectId, TicketId};
use claviger_domain::observation::Observation;
use claviger_domain::policy::{EncryptionPolicy, KeyHealth, Lifecycle};
use claviger_domain::values::Region;
use rstest::rstest;
use uuid::Uuid;

use crate::support::{
    DENIED, DISABLED, DUBLIN, FRANKFURT, OUR_FAULT, THROTTLED, UNREACHABLE, USABLE, World, admin, by, prober,
    region, support as agent,
};

#[test]
fn e3_an_enrolment_waits_for_a_support_agent_and_nobody_else_approves_it() {
    let mut world = World::requested();
    assert_eq!(world.policy.lifecycle.slug(), "requested");
    let refusal = world.happens(PolicyEvent::EnrolmentApproved, &admin()).unwrap_err();
    assert!(matches!(refusal, Refusal::Forbidden { .. }));
    let decision = world.happens(PolicyEvent::EnrolmentApproved, &agent()).unwrap();
    assert_eq!(decision.outbox[0].effect, Effect::VerifyPolicy);
}

#[test]
fn e3_self_service_approval_is_a_catalogue_switch() {
    let mut catalogue = Catalogue::shipped().unwrap();
    catalogue.self_service_approval = true;
    assert_eq!(World::requested_with(catalogue).policy.lifecycle.slug(), "verifying");
}

#[test]
fn e12_a_policy_becomes_active_only_when_every_key_has_a_canary_and_answered() {
    let mut world = World::requested();
    world.happens(PolicyEvent::EnrolmentApproved, &agent()).unwrap();
    let canaries: BTreeMap<Region, String> = [(region(FRANKFURT), "QQ==".to_owned())].into();
    let round = world.round(USABLE, USABLE);
    world.happens(PolicyEvent::KeysVerified { canaries, round }, &prober()).unwrap_err();
    assert_eq!(world.policy.lifecycle.slug(), "verifying");
}

#[rstest]
#[case::throttled(THROTTLED, THROTTLED)]
#[case::unreachable(UNREACHABLE, UNREACHABLE)]
#[case::our_fault(OUR_FAULT, OUR_FAULT)]
#[case::refused_and_unreachable(DISABLED, UNREACHABLE)]
#[case::throttled_and_refused(THROTTLED, DISABLED)]
fn r3_no_answer_never_suspends_however_long(#[case] frankfurt: Observation, #[case] dublin: Observation) {
    let mut world = World::active();
    for _ in 0..5_000 {
        let _ = world.probed_twice(frankfurt, dublin);
        world.later(59);
        assert!(world.policy.fence.is_open());
    }
}

#[test]
fn r5_a_definite_refusal_in_every_region_closes_the_fence_and_tells_everybody() {
    let mut world = World::active();
    let decision = world.probed_twice(DISABLED, DISABLED).unwrap();
    assert!(world.is_suspended());
    assert_eq!(world.policy.fence.epoch, Epoch(1));
    assert!(world.policy.fence.causes.contains(&Cause::Key));
    let effects: Vec<&Effect> = decision.outbox.iter().map(|row| &row.effect).collect();
    assert!(
        matches!(effects[..], [Effect::OpenTicket { .. }, Effect::SuspendInstances { epoch: Epoch(1) }]),
        "{effects:?}"
    );
}

#[test]
fn r8_the_ticket_bears_the_documents_title_the_cause_and_the_steps_back() {
    let mut world = World::active();
    let decision = world.probed_twice(DISABLED, DISABLED).unwrap();
    let Effect::OpenTicket { title, body, .. } = &decision.outbox[0].effect else {
        panic!("no ticket");
    };
    assert_eq!(title, "CMK revocation started for AWS account 222222222222");
    for part in [FRANKFURT, DUBLIN, "disabled", "enable-key", "ask for restoration on this ticket"] {
        assert!(body.contains(part), "`{part}` is not in: {body}");
    }
}

#[test]
fn s3_the_ticket_of_a_cut_off_says_until_when_restoration_is_promised() {
    let mut world = World::active();
    let decision = world.probed_twice(DISABLED, DISABLED).unwrap();
    let Effect::OpenTicket { body, .. } = &decision.outbox[0].effect else { panic!("no ticket") };
    let day = |days: i64| world.now + jiff::SignedDuration::from_hours(24 * days);
    for line in [
        format!("- until {:.0}: restoration is assured", day(10)),
        format!("- until {:.0}: restoration is attempted at best effort", day(20)),
        "- after that: restoration is possible, but full recovery is not assured".to_owned(),
    ] {
        assert!(body.lines().any(|told| told == line), "`{line}` is not in: {body}");
    }
}

#[test]
fn k3_every_ciphertext_is_bound_to_organisation_purpose_subject_and_label() {
    let policy = World::active().policy;
    let context = policy.encryption_context("data-key", "some-instance");
    let expected = [
        ("claviger:organisation", policy.organisation.to_string()),
        ("claviger:purpose", "data-key".to_owned()),
        ("claviger:instance", "some-instance".to_owned()),
        ("claviger:tag", "acme1".to_owned()),
    ];
    assert_eq!(context, expected.map(|(name, value)| (name.to_owned(), value)).into());
}

#[test]
fn r5_one_round_alone_suspends_nobody_but_asks_to_be_confirmed() {
    let mut world = World::active();
    let round = world.round(DISABLED, DISABLED);
    assert!(wants_confirmation(&world.rules(), &world.policy, &round));
    world.probed(DISABLED, DISABLED).unwrap();
    assert!(world.policy.fence.is_open());
}

#[test]
fn r5_rounds_that_lie_too_far_apart_prove_nothing_together() {
    let mut world = World::active();
    let first = world.round(DISABLED, DISABLED);
    world.later(6);
    let rounds = vec![first, world.round(DISABLED, DISABLED)];
    let decision =
        world.happens(PolicyEvent::ProbesReported { rounds, heard: Vec::new() }, &prober()).unwrap();
    assert!(world.policy.fence.is_open());
    let Effect::OpenTicket { body, .. } = &decision.outbox[0].effect else { panic!("no ticket") };
    assert!(body.contains("cut access off: that happens as soon as a second probe confirms it"), "{body}");
    assert!(!body.contains("incomplete") && !body.contains("the other keys"), "{body}");
}

#[test]
fn r5_one_region_alone_is_degraded_and_warned_of_at_once() {
    let mut world = World::active();
    let decision = world.probed(DISABLED, USABLE).unwrap();
    assert!(world.policy.is_degraded());
    assert!(world.policy.fence.is_open());
    let Effect::OpenTicket { body, .. } = &decision.outbox[0].effect else {
        panic!("no ticket");
    };
    assert!(body.contains("Revocation is incomplete: the key in eu-west-1 still works"), "{body}");
    world.later(60);
    assert_eq!(world.probed(DISABLED, USABLE).unwrap_err(), Refusal::Redundant);
}

#[test]
fn r5_a_degraded_realm_that_heals_resolves_its_ticket() {
    let mut world = World::active();
    world.probed(DISABLED, USABLE).unwrap();
    world.later(60);
    let decision = world.probed(USABLE, USABLE).unwrap();
    assert!(matches!(decision.outbox[0].effect, Effect::ResolveTicket { .. }));
    assert!(!world.policy.is_degraded());
    assert_eq!(world.policy.ticket, None);
}

#[test]
fn r5_the_cut_off_after_a_degraded_realm_goes_on_the_same_ticket() {
    let mut world = World::active();
    world.probed(DISABLED, USABLE).unwrap();
    let ticket = world.policy.ticket.unwrap();
    world.later(60);
    let decision = world.probed_twice(DISABLED, DISABLED).unwrap();
    assert!(
        matches!(&decision.outbox[0].effect, Effect::CommentTicket { ticket: same, .. } if *same == ticket)
    );
    assert!(world.is_suspended());
}

#[test]
fn r5_a_catalogue_switch_makes_any_region_enough() {
    let mut catalogue = Catalogue::shipped().unwrap();
    catalogue.any_region_is_enough = true;
    let mut world = World::requested_with(catalogue);
    world.activate();
    world.probed_twice(DISABLED, USABLE).unwrap();
    assert!(world.is_suspended());
}

#[test]
fn r4_an_ambiguous_refusal_suspends_only_when_it_persists() {
    let mut world = World::active();
    for _ in 0..6 {
        let _ = world.probed_twice(DENIED, DENIED);
        assert!(world.policy.fence.is_open(), "at {}", world.now);
        world.later(9);
    }
    world.later(9);
    world.probed_twice(DENIED, DENIED).unwrap();
    assert!(world.is_suspended());
}

#[test]
fn r4_an_ambiguous_refusal_never_counts_while_control_probes_fail() {
    let mut world = World::active();
    for _ in 0..200 {
        let mut rounds = world.rounds(DENIED, DENIED);
        for round in &mut rounds {
            round.controls_healthy = Some(false);
        }
        let _ = world.happens(PolicyEvent::ProbesReported { rounds, heard: Vec::new() }, &prober());
        world.later(60);
        assert!(world.policy.fence.is_open());
    }
    let _ = world.probed_twice(DENIED, DENIED);
    assert!(world.policy.fence.is_open(), "the clock starts when the controls are healthy again");
}

#[test]
fn r4_one_success_starts_the_clock_of_an_ambiguous_refusal_anew() {
    let mut world = World::active();
    world.probed_twice(DENIED, DENIED).unwrap();
    world.later(50);
    world.probed(USABLE, USABLE).unwrap();
    world.later(20);
    world.probed_twice(DENIED, DENIED).unwrap();
    assert!(world.policy.fence.is_open());
}

#[test]
fn r9_a_probe_that_is_older_than_what_is_known_changes_nothing() {
    let mut world = World::active();
    let old = world.rounds(DISABLED, DISABLED);
    world.later(2);
    world.probed(USABLE, DISABLED).unwrap();
    let event = PolicyEvent::ProbesReported { rounds: old, heard: Vec::new() };
    assert_eq!(world.happens(event, &prober()).unwrap_err(), Refusal::Stale);
}

#[test]
fn r9_a_probe_result_that_was_under_way_too_long_changes_nothing() {
    let mut world = World::active();
    let rounds = world.rounds(DISABLED, DISABLED);
    world.later(31);
    let event = PolicyEvent::ProbesReported { rounds, heard: Vec::new() };
    assert_eq!(world.happens(event, &prober()).unwrap_err(), Refusal::Stale);
}

#[test]
fn s1_nobody_but_an_org_admin_asks_for_restoration() {
    for stranger in [agent(), prober(), by(Actor::System("crm".parse().unwrap()))] {
        let mut world = World::suspended();
        let refusal = world.asks_for_restoration(&stranger).unwrap_err();
        assert!(matches!(refusal, Refusal::Forbidden { .. }));
        assert!(world.is_suspended());
    }
}

#[test]
fn s1_a_restoration_is_asked_for_on_the_ticket_of_the_revocation() {
    let mut world = World::suspended();
    let expected = world.policy.ticket;
    let ticket = TicketId::from_uuid(Uuid::from_u128(99));
    let round = world.round(USABLE, USABLE);
    let refusal = world
        .happens(PolicyEvent::RestorationRequested { ticket, round, into_degraded: false }, &admin())
        .unwrap_err();
    assert_eq!(refusal, Refusal::WrongTicket { expected });
}

#[test]
fn s2_a_restoration_is_refused_by_region_while_a_key_is_not_usable() {
    let mut world = World::suspended();
    let ticket = world.policy.ticket.unwrap();
    let round = world.round(USABLE, DISABLED);
    let refusal = world
        .happens(PolicyEvent::RestorationRequested { ticket, round, into_degraded: false }, &admin())
        .unwrap_err();
    assert_eq!(refusal, Refusal::KeysNotUsable { faults: [(region(DUBLIN), DISABLED)].into() });
}

#[test]
fn i5_the_fence_opens_only_on_two_fresh_consistent_rounds_of_all_regions() {
    let mut world = World::suspended();
    world.asks_for_restoration(&admin()).unwrap();
    assert!(!world.policy.fence.is_open(), "asking opens nothing");
    world.later(1);
    let mut one = world.rounds(USABLE, USABLE);
    one.truncate(1);
    let lone = world.happens(PolicyEvent::RestorationProbed { rounds: one, unwrapped_in: None }, &prober());
    assert_eq!(lone.unwrap_err(), Refusal::Redundant);
    let mixed = world.rounds(USABLE, UNREACHABLE);
    let refusal = world
        .happens(PolicyEvent::RestorationProbed { rounds: mixed, unwrapped_in: None }, &prober())
        .unwrap_err();
    assert!(matches!(refusal, Refusal::KeysNotUsable { .. }));
    assert!(!world.policy.fence.is_open());
    let rounds = world.rounds(USABLE, USABLE);
    let decision =
        world.happens(PolicyEvent::RestorationProbed { rounds, unwrapped_in: None }, &prober()).unwrap();
    assert!(world.policy.fence.is_open());
    assert_eq!(world.policy.fence.epoch, Epoch(2));
    assert_eq!(decision.outbox[0].effect, Effect::RestoreInstances { epoch: Epoch(2) });
}

#[test]
fn s4_the_ticket_is_resolved_when_every_instance_is_back() {
    let mut world = World::suspended();
    world.asks_for_restoration(&admin()).unwrap();
    world.later(1);
    let rounds = world.rounds(USABLE, USABLE);
    world.happens(PolicyEvent::RestorationProbed { rounds, unwrapped_in: None }, &prober()).unwrap();
    let late = world.happens(PolicyEvent::InstancesRestored { epoch: Epoch(1) }, &prober());
    assert_eq!(late.unwrap_err(), Refusal::Stale);
    let decision = world.happens(PolicyEvent::InstancesRestored { epoch: Epoch(2) }, &prober()).unwrap();
    assert!(matches!(decision.outbox[0].effect, Effect::ResolveTicket { .. }));
}

#[test]
fn s4_nobody_is_told_that_instances_stopped_once_access_is_back() {
    let mut world = World::suspended();
    world.asks_for_restoration(&admin()).unwrap();
    world.later(1);
    let rounds = world.rounds(USABLE, USABLE);
    world.happens(PolicyEvent::RestorationProbed { rounds, unwrapped_in: None }, &prober()).unwrap();
    let stopped = PolicyEvent::InstancesSuspended { epoch: Epoch(2), instances: 2 };
    let refused = world.happens(stopped, &prober()).unwrap_err();
    assert_eq!(refused, Refusal::IllegalForState { lifecycle: "active" });
}

#[test]
fn s6_losing_a_key_during_restoration_goes_back_to_suspended() {
    let mut world = World::suspended();
    world.asks_for_restoration(&admin()).unwrap();
    world.later(1);
    let rounds = world.rounds(USABLE, DISABLED);
    world.happens(PolicyEvent::RestorationProbed { rounds, unwrapped_in: None }, &prober()).unwrap();
    assert!(world.is_suspended());
    assert_eq!(world.policy.fence.epoch, Epoch(1), "the fence never opened");
}

#[test]
fn s6_a_fan_out_that_ends_while_restoration_is_asked_for_is_told_once_all_the_same() {
    let mut world = World::suspended();
    world.asks_for_restoration(&admin()).unwrap();
    let told = PolicyEvent::InstancesSuspended { epoch: Epoch(1), instances: 2 };
    let decision = world.happens(told.clone(), &prober()).unwrap();
    assert!(matches!(decision.outbox[0].effect, Effect::CommentTicket { .. }));
    assert!(matches!(world.policy.lifecycle, Lifecycle::Restoring { .. }));
    world.later(1);
    world.probed_twice(DISABLED, DISABLED).unwrap();
    assert!(world.is_suspended());
    assert_eq!(world.policy.told, world.policy.fence.epoch);
    assert_eq!(world.happens(told, &prober()).unwrap_err(), Refusal::Redundant);
}

#[test]
fn s3_windows_count_from_the_first_cut_off_also_after_a_restoration_that_failed() {
    let mut world = World::suspended();
    let cut_off_at = world.policy.lifecycle.cut_off_at();
    world.asks_for_restoration(&admin()).unwrap();
    world.later(1);
    world.probed_twice(DISABLED, DISABLED).unwrap();
    assert_eq!(world.policy.lifecycle.cut_off_at(), cut_off_at);
}

#[test]
fn i4_facts_are_chained_and_an_altered_one_shows() {
    let mut world = World::suspended();
    world.asks_for_restoration(&admin()).unwrap();
    let mut head = AuditHead::default();
    for fact in &world.facts {
        assert!(fact.follows(&head), "{}", fact.slug);
        head = AuditHead { seq: fact.seq, hash: fact.hash.clone() };
    }
    let mut altered = world.facts[1].clone();
    altered.actor = Actor::Claviger("somebody".to_owned());
    let first = &world.facts[0];
    assert!(!altered.follows(&AuditHead { seq: first.seq, hash: first.hash.clone() }));
}

#[test]
fn i4_a_decision_that_is_taken_twice_names_the_same_effects_and_ticket() {
    let mut world = World::active();
    let rounds = world.rounds(DISABLED, DISABLED);
    let event = PolicyEvent::ProbesReported { rounds, heard: Vec::new() };
    let one = decide(&world.rules(), &world.policy, &event, &prober(), world.now).unwrap();
    let two = decide(&world.rules(), &world.policy, &event, &prober(), world.now).unwrap();
    assert_eq!(one.outbox, two.outbox);
    assert_eq!(one.next.ticket, two.next.ticket);
}

#[test]
fn i4_no_two_effects_bear_the_same_id_whatever_decision_they_are_of() {
    let world = World::suspended();
    let other = Fact { stream: Uuid::from_u128(77), ..world.facts[0].clone() };
    let facts = world.facts.iter().chain([&other]);
    let ids: Vec<EffectId> = facts.flat_map(|fact| [0, 1, 2].map(|index| fact.effect_id(index))).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 3 * (world.facts.len() + 1));
}

#[test]
fn a_policy_survives_its_own_serialisation() {
    let mut world = World::active();
    world.probed(DENIED, UNREACHABLE).unwrap();
    let json = serde_json::to_string(&world.policy).unwrap();
    let back: EncryptionPolicy = serde_json::from_str(&json).unwrap();
    assert_eq!(back, world.policy);
    assert!(matches!(back.keys[&region(FRANKFURT)].health, KeyHealth::Refused { stands: false, .. }));
}
