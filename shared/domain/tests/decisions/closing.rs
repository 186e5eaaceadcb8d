//! An organisation leaves (spec E11): asked for, approved, time for the export, access ended, keys erased.

use claviger_domain::catalogue::Catalogue;
use claviger_domain::closing::{ClosingMoment, ClosingStage, Counted, due};
use claviger_domain::decide::{Decision, Refusal};
use claviger_domain::effect::Effect;
use claviger_domain::event::PolicyEvent;
use claviger_domain::fence::Cause;
use claviger_domain::policy::Lifecycle;
use jiff::SignedDuration;

use crate::support::{DISABLED, USABLE, World, admin, prober, support};

const COUNTED: Counted = Counted { data_keys: 3, instances: 2 };

impl World {
    fn leaving() -> Self {
        let mut world = Self::active();
        world.happens(PolicyEvent::ClosingAsked, &admin()).unwrap();
        world.happens(PolicyEvent::ClosingApproved, &support()).unwrap();
        world
    }

    fn days(&mut self, days: i64) {
        self.now += SignedDuration::from_hours(24 * days);
    }

    /// What `deadlines` does.
    fn clock_strikes(&mut self) -> Result<Decision, Refusal> {
        let moment = due(&self.catalogue.closing, &self.policy, self.now).ok_or(Refusal::Redundant)?;
        self.happens(PolicyEvent::ClosingMomentCame { moment }, &prober())
    }

    fn erasing() -> Self {
        let mut world = Self::leaving();
        world.days(30);
        world.clock_strikes().unwrap();
        world
    }

    fn erased(&mut self) -> Decision {
        let counted = PolicyEvent::DataKeysCounted { counted: COUNTED };
        self.happens(counted, &prober()).unwrap();
        self.happens(PolicyEvent::DataKeysErased, &prober()).unwrap()
    }
}

fn effects(decision: &Decision) -> Vec<&Effect> {
    decision.outbox.iter().map(|row| &row.effect).collect()
}

#[test]
fn e11_an_org_admin_asks_support_approves_and_nothing_is_taken_before_the_export_is_over() {
    let mut world = World::active();
    for nobody in [support(), prober()] {
        let refused = world.happens(PolicyEvent::ClosingAsked, &nobody).unwrap_err();
        assert_eq!(refused, Refusal::Forbidden { who: "an org admin" });
    }
    let asked = world.happens(PolicyEvent::ClosingAsked, &admin()).unwrap();
    let Effect::OpenTicket { title, body, .. } = effects(&asked)[0] else { panic!("no ticket") };
    assert_eq!(title, "Closing of CMK encryption for AWS account 222222222222");
    assert!(body.contains("30 days") && body.contains("close/cancel"), "{body}");
    assert_eq!(world.happens(PolicyEvent::ClosingAsked, &admin()).unwrap_err(), Refusal::Redundant);
    // Nothing runs before support has approved.
    world.days(365);
    assert_eq!(world.clock_strikes().unwrap_err(), Refusal::Redundant);
    let refused = world.happens(PolicyEvent::ClosingApproved, &admin()).unwrap_err();
    assert_eq!(refused, Refusal::Forbidden { who: "a support agent" });
    let until = world.now + SignedDuration::from_hours(24 * 30);
    let approved = world.happens(PolicyEvent::ClosingApproved, &support()).unwrap();
    let Effect::CommentTicket { body, .. } = effects(&approved)[0] else { panic!("nothing told") };
    assert!(body.contains(&format!("until {until:.0}")) && body.contains("close/cancel"), "{body}");
    assert_eq!(world.happens(PolicyEvent::ClosingApproved, &support()).unwrap_err(), Refusal::Redundant);
    assert!(world.policy.fence.is_open());
    let mut told = 0;
    for _ in 0..29 {
        world.days(1);
        told += u32::from(world.clock_strikes().is_ok());
        assert_eq!(world.clock_strikes().unwrap_err(), Refusal::Redundant, "told once");
        assert!(world.policy.fence.is_open(), "nothing is taken");
    }
    assert_eq!(told, 3, "fourteen days before, seven, one");
    let early = ClosingMoment::ExportEnds { at: world.now + SignedDuration::from_hours(24) };
    let made_up = PolicyEvent::ClosingMomentCame { moment: early };
    assert_eq!(world.happens(made_up, &prober()).unwrap_err(), Refusal::Redundant);
    world.days(1);
    // Nor does one count that names another moment than the one that is due.
    let made_up = PolicyEvent::ClosingMomentCame {
        moment: ClosingMoment::ExportEnds { at: world.now + SignedDuration::from_hours(1) },
    };
    assert_eq!(world.happens(made_up, &prober()).unwrap_err(), Refusal::Stale);
    let over = world.clock_strikes().unwrap();
    assert_eq!(over.fact.slug, "export-ended");
    assert!(effects(&over).contains(&&Effect::EraseDataKeys));
    assert!(effects(&over).iter().any(|effect| matches!(effect, Effect::SuspendInstances { .. })));
    assert_eq!(world.policy.fence.causes, [Cause::Closing].into());
}

#[test]
fn e11_it_can_be_cancelled_until_the_erasure_begins_and_not_after() {
    let mut world = World::active();
    assert_eq!(world.happens(PolicyEvent::ClosingCancelled, &admin()).unwrap_err(), Refusal::NotClosing);
    world.happens(PolicyEvent::ClosingAsked, &admin()).unwrap();
    world.happens(PolicyEvent::ClosingCancelled, &admin()).unwrap();
    let mut world = World::leaving();
    let refused = world.happens(PolicyEvent::ClosingCancelled, &support()).unwrap_err();
    assert_eq!(refused, Refusal::Forbidden { who: "an org admin" });
    let cancelled = world.happens(PolicyEvent::ClosingCancelled, &admin()).unwrap();
    assert!(matches!(effects(&cancelled)[..], [Effect::ResolveTicket { .. }]));
    assert!(world.policy.closing.is_none() && world.policy.fence.is_open());
    let mut world = World::erasing();
    assert_eq!(world.happens(PolicyEvent::ClosingCancelled, &admin()).unwrap_err(), Refusal::ErasureBegan);
}

#[test]
fn e11_support_may_say_no_while_it_waits_and_only_then() {
    let rejected = || PolicyEvent::ClosingRejected { reason: "an invoice is open.".to_owned() };
    let mut world = World::active();
    assert_eq!(world.happens(rejected(), &support()).unwrap_err(), Refusal::NotClosing);
    world.happens(PolicyEvent::ClosingAsked, &admin()).unwrap();
    let said = world.happens(rejected(), &support()).unwrap();
    let [Effect::ResolveTicket { body, .. }] = effects(&said)[..] else { panic!("{said:?}") };
    assert!(body.contains("an invoice is open."), "{body}");
    let mut world = World::leaving();
    assert!(matches!(world.happens(rejected(), &support()).unwrap_err(), Refusal::IllegalForState { .. }));
}

#[test]
fn e3_nothing_is_erased_while_nobody_could_cancel_and_who_comes_back_has_time_to() {
    let mut world = World::leaving();
    let fed = |world: &mut World, without_admin| {
        let event = PolicyEvent::RecordsFed { plans_ended: [].into(), without_admin };
        world.happens(event, &prober()).unwrap()
    };
    world.days(20);
    let gone = fed(&mut world, true);
    let [Effect::OpenTicket { body, .. }] = effects(&gone)[..] else { panic!("{gone:?}") };
    assert!(body.contains("no closing begins to erase"), "{body}");
    world.days(30);
    while world.clock_strikes().is_ok() {}
    assert!(world.policy.fence.is_open(), "the end is held");
    let made_up = ClosingMoment::ExportEnds { at: world.now - SignedDuration::from_hours(24 * 20) };
    let refused = world.happens(PolicyEvent::ClosingMomentCame { moment: made_up }, &prober()).unwrap_err();
    assert_eq!(refused, Refusal::Redundant);
    let back = fed(&mut world, false);
    let until = world.now + SignedDuration::from_hours(24 * 14);
    let told = |effect: &&Effect| matches!(effect, Effect::CommentTicket { body, .. } if body.contains(&format!("until {until:.0}")));
    assert!(effects(&back).iter().any(told), "{back:?}");
    assert_eq!(world.clock_strikes().unwrap_err(), Refusal::Redundant);
    world.days(14);
    assert_eq!(world.clock_strikes().unwrap().fact.slug, "export-ended");
}

#[test]
fn e11_with_self_service_the_time_for_the_export_begins_at_once() {
    let mut catalogue = Catalogue::shipped().unwrap();
    catalogue.self_service_approval = true;
    let mut world = World::active();
    world.catalogue = catalogue;
    world.happens(PolicyEvent::ClosingAsked, &admin()).unwrap();
    let stage = &world.policy.closing.as_ref().unwrap().stage;
    assert!(matches!(stage, ClosingStage::Exporting { .. }), "{stage:?}");
}

#[test]
fn i5_the_cause_closing_is_never_lifted_whatever_becomes_of_the_keys_and_of_the_vendors_suspension() {
    let mut world = World::erasing();
    let epoch = world.policy.fence.epoch;
    world.probed_twice(DISABLED, DISABLED).unwrap();
    assert_eq!(world.policy.fence.causes, [Cause::Key, Cause::Closing].into());
    world.later(60);
    world.asks_for_restoration(&admin()).unwrap();
    world.later(1);
    let rounds = world.rounds(USABLE, USABLE);
    world.happens(PolicyEvent::RestorationProbed { rounds, unwrapped_in: None }, &prober()).unwrap();
    assert_eq!(world.policy.fence.causes, [Cause::Closing].into());
    assert_eq!(world.policy.fence.epoch, epoch, "nobody was let in");
}

#[test]
fn e11_closed_is_what_was_erased_and_the_statement_counts_it_and_nothing_is_watched_any_more() {
    let mut world = World::erasing();
    let early = world.happens(PolicyEvent::DataKeysErased, &prober()).unwrap_err();
    assert!(matches!(early, Refusal::IllegalForState { .. }), "what was not counted is not erased: {early}");
    let closed = world.erased();
    let again = Counted { data_keys: 1, instances: 1 };
    let again = world.happens(PolicyEvent::DataKeysCounted { counted: again }, &prober());
    assert_eq!(again.unwrap_err(), Refusal::NotClosing);
    assert!(matches!(world.policy.lifecycle, Lifecycle::Closed { .. }));
    assert!(!world.policy.lifecycle.is_watched() && !world.policy.fence.is_open());
    assert!(world.policy.keys.values().all(|key| key.canary.is_none()));
    assert_eq!(world.policy.erasure.as_ref().unwrap().counted, COUNTED);
    let [Effect::ResolveTicket { body, .. }] = effects(&closed)[..] else { panic!("{closed:?}") };
    assert!(body.contains("3 data keys of 2 app instances"), "{body}");
    assert!(body.contains("aws kms schedule-key-deletion --key-id arn:aws:kms:eu-west-1"), "{body}");
    assert_eq!(world.happens(PolicyEvent::DataKeysErased, &prober()).unwrap_err(), Refusal::Redundant);
    let asked = world.happens(PolicyEvent::ClosingAsked, &admin()).unwrap_err();
    assert!(matches!(asked, Refusal::IllegalForState { lifecycle: "closed" }), "{asked}");
}

#[test]
fn e11_an_organisation_whose_keys_are_gone_can_leave_too() {
    let mut world = World::suspended();
    let epoch = world.policy.fence.epoch;
    world.happens(PolicyEvent::ClosingAsked, &admin()).unwrap();
    world.happens(PolicyEvent::ClosingApproved, &support()).unwrap();
    world.days(30);
    let over = world.clock_strikes().unwrap();
    assert_eq!(world.policy.fence.epoch, epoch, "everybody was told already");
    assert!(!effects(&over).iter().any(|effect| matches!(effect, Effect::SuspendInstances { .. })));
    let closed = world.erased();
    let resolved =
        effects(&closed).iter().filter(|effect| matches!(effect, Effect::ResolveTicket { .. })).count();
    assert_eq!(resolved, 2, "the closing's ticket and the revocation's");
}
