//! What the customer records say of an enrolled organisation, and enrolments that come to nothing.

use std::collections::BTreeSet;

use claviger_domain::decide::{Decision, Refusal};
use claviger_domain::effect::Effect;
use claviger_domain::event::{Actor, PolicyEvent};
use claviger_domain::policy::Lifecycle;
use claviger_domain::values::App;

use crate::support::{DUBLIN, World, admin, by, prober, region, support};

fn apps(names: &[&str]) -> BTreeSet<App> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

impl World {
    fn records_say(&mut self, plans_ended: &[&str], without_admin: bool) -> Result<Decision, Refusal> {
        let event = PolicyEvent::RecordsFed { plans_ended: apps(plans_ended), without_admin };
        self.happens(event, &by(Actor::System("records".parse().unwrap())))
    }
}

fn only(decision: &Decision) -> &Effect {
    let [row] = decision.outbox.as_slice() else { panic!("{:?}", decision.outbox) };
    &row.effect
}

#[test]
fn e1_what_the_records_lack_is_told_once_on_a_ticket_of_its_own_and_resolved_when_it_is_mended() {
    let mut world = World::active();
    assert!(matches!(world.records_say(&[], false), Err(Refusal::Redundant)), "nothing is wrong");

    let told = world.records_say(&["jira"], false).unwrap();
    let Effect::OpenTicket { ticket, body, .. } = only(&told) else { panic!("{:?}", only(&told)) };
    let ticket = *ticket;
    assert!(body.contains("The plan of `jira`") && !body.contains("Nobody is registered"), "{body}");
    assert!(matches!(world.records_say(&["jira"], false), Err(Refusal::Redundant)));

    for (plans, without_admin) in [(&["jira"][..], true), (&["jira", "wiki"], true), (&[], true)] {
        let told = world.records_say(plans, without_admin).unwrap();
        let Effect::CommentTicket { ticket: of, body } = only(&told) else { panic!("{:?}", only(&told)) };
        assert_eq!(*of, ticket, "the same ticket");
        assert!(body.contains("Nobody is registered"), "{body}");
        assert_eq!(body.matches("The plan of").count(), plans.len());
    }

    let mended = world.records_say(&[], false).unwrap();
    assert!(matches!(only(&mended), Effect::ResolveTicket { ticket: of, .. } if *of == ticket));
    assert_eq!(world.policy.records, None);
    assert!(world.policy.fence.is_open(), "records cut nobody off");
}

#[test]
fn e3_the_records_matter_to_whoever_has_keys_in_use_and_to_nobody_else() {
    assert!(World::suspended().records_say(&[], true).is_ok());
    assert!(matches!(World::requested().records_say(&[], true), Err(Refusal::IllegalForState { .. })));
}

#[test]
fn e10_an_enrolment_is_due_at_the_end_of_the_second_business_day() {
    let Lifecycle::Requested { due_at, .. } = World::requested().policy.lifecycle else { panic!("it waits") };
    // Asked for on a Monday.
    assert_eq!(due_at.to_string(), "2026-11-25T23:59:59Z");
}

#[test]
fn e3_support_refuses_an_enrolment_that_waits_with_its_reason() {
    let event = PolicyEvent::EnrolmentRejected { reason: "no contract".to_owned() };
    for stranger in [admin(), prober()] {
        let refused = World::requested().happens(event.clone(), &stranger);
        assert!(matches!(refused, Err(Refusal::Forbidden { .. })), "{refused:?}");
    }
    let mut world = World::requested();
    let decision = world.happens(event.clone(), &support()).unwrap();
    assert!(decision.outbox.is_empty());
    assert_eq!(
        world.policy.lifecycle,
        Lifecycle::Rejected { at: world.now, reason: "no contract".to_owned() }
    );
    // Approved, and not verified yet: what is in its way may never go away.
    let mut world = World::requested();
    world.happens(PolicyEvent::EnrolmentApproved, &support()).unwrap();
    world.happens(event.clone(), &support()).unwrap();
    assert!(matches!(world.policy.lifecycle, Lifecycle::Rejected { .. }));
    for mut world in [World::active(), World::suspended()] {
        let refused = world.happens(event.clone(), &support());
        assert!(matches!(refused, Err(Refusal::IllegalForState { .. })), "{refused:?}");
    }
}

#[test]
fn e12_keys_that_do_not_stand_the_verification_end_the_enrolment_with_what_is_wrong_in_each_region() {
    let faults = [(region(DUBLIN), "AccessDenied".to_owned())].into();
    let event = PolicyEvent::VerificationFailed { faults };
    let refused = World::requested().happens(event.clone(), &prober());
    assert!(matches!(refused, Err(Refusal::IllegalForState { .. })), "nobody approved it: {refused:?}");
    let refused = World::active().happens(event.clone(), &prober());
    assert!(matches!(refused, Err(Refusal::IllegalForState { .. })), "it is in use: {refused:?}");

    let mut world = World::requested();
    world.happens(PolicyEvent::EnrolmentApproved, &support()).unwrap();
    world.happens(event, &prober()).unwrap();
    let Lifecycle::Rejected { reason, .. } = &world.policy.lifecycle else { panic!("it is over") };
    assert!(reason.contains("eu-west-1: AccessDenied"), "{reason}");
}
