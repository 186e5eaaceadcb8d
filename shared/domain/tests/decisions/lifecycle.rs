//! Windows, the vendor's own suspension, mistakes and what support may do: given, when, then.

use claviger_domain::calendar::{MomentKind, WindowMoment};
use claviger_domain::catalogue::{Catalogue, Mode, WindowPhase};
use claviger_domain::decide::{Decision, Refusal, due_moment};
use claviger_domain::effect::Effect;
use claviger_domain::event::{Actor, Origin, PolicyEvent};
use claviger_domain::fence::{Cause, Epoch};
use claviger_domain::ids::TicketId;
use claviger_domain::key_access::{CustomerRole, KeyAccess};
use claviger_domain::observation::{Observation, RefusalKind};
use claviger_domain::policy::Lifecycle;
use claviger_domain::vendor::Ground;
use jiff::Timestamp;
use rstest::rstest;
use uuid::Uuid;

use crate::support::{
    DENIED, DISABLED, DUBLIN, FRANKFURT, UNREACHABLE, USABLE, World, acme, admin, by, prober,
    support as agent,
};

const DAY: i64 = 86_400;

fn way(mode: Mode) -> KeyAccess {
    match mode {
        Mode::Cmk => KeyAccess::KeyPolicy,
        Mode::Byok => KeyAccess::Role(CustomerRole {
            arn: "arn:aws:iam::222222222222:role/key-management".parse().unwrap(),
            external_id: acme().external_id,
        }),
    }
}

fn other_agent() -> Origin {
    by(Actor::Support("sue".parse().unwrap()))
}

fn restorer() -> Origin {
    by(Actor::Claviger("restorer".to_owned()))
}

impl World {
    fn suspended_in(mode: Mode) -> Self {
        let mut world = Self::suspended();
        world.policy.access = way(mode);
        world
    }

    /// What the deadlines function does until nothing is due.
    fn deadlines_run(&mut self) -> Vec<Decision> {
        let mut told = Vec::new();
        while let Some(moment) = due_moment(&self.rules(), &self.policy, self.now) {
            told.push(self.happens(PolicyEvent::WindowMomentCame { moment }, &prober()).unwrap());
            assert!(told.len() < 100, "{moment:?} is due for ever");
        }
        told
    }

    fn lapsed() -> Self {
        let mut world = Self::suspended();
        world.lapses();
        world
    }

    pub fn lapses(&mut self) {
        self.policy.access = way(Mode::Byok);
        self.later(15 * DAY);
        self.deadlines_run();
        assert_eq!(self.policy.lifecycle.slug(), "lapsed");
    }

    fn is_suspended_by_vendor(&mut self, ground: Ground) -> Result<Decision, Refusal> {
        let event = PolicyEvent::VendorSuspended { ground, reason: "unpaid.".to_owned() };
        self.happens(event, &agent())
    }

    fn support_lifts(&mut self) -> Result<Decision, Refusal> {
        self.happens(PolicyEvent::VendorSuspensionLifted, &agent())
    }

    fn calls_it_a_mistake(&mut self, who: &Origin) -> Result<Decision, Refusal> {
        let rounds = self.rounds(USABLE, USABLE);
        self.happens(PolicyEvent::MistakeDeclared { reason: "our role was broken.".to_owned(), rounds }, who)
    }

    fn is_proven(&mut self) -> Result<Decision, Refusal> {
        self.later(1);
        let rounds = self.rounds(USABLE, USABLE);
        self.happens(PolicyEvent::RestorationProbed { rounds, unwrapped_in: None }, &restorer())
    }

    fn support_restores(&mut self) -> Result<Decision, Refusal> {
        let ticket = self.policy.ticket.unwrap();
        self.support_restores_on(ticket, &agent())
    }

    fn support_restores_on(&mut self, ticket: TicketId, who: &Origin) -> Result<Decision, Refusal> {
        self.support_restores_what_was_asked(ticket, self.now, who)
    }

    fn support_restores_what_was_asked(
        &mut self,
        ticket: TicketId,
        asked_at: Timestamp,
        who: &Origin,
    ) -> Result<Decision, Refusal> {
        let round = self.round(USABLE, USABLE);
        let asked_by = "ada".parse().unwrap();
        let into_degraded = false;
        let event = PolicyEvent::RestorationCarriedOut { ticket, asked_by, asked_at, into_degraded, round };
        self.happens(event, who)
    }

    fn causes(&self) -> Vec<Cause> {
        self.policy.fence.causes.iter().copied().collect()
    }
}

fn comments(decision: &Decision) -> Vec<String> {
    let words = decision.outbox.iter().filter_map(|row| match &row.effect {
        Effect::CommentTicket { body, .. }
        | Effect::ResolveTicket { body, .. }
        | Effect::OpenTicket { body, .. } => Some(body.clone()),
        _ => None,
    });
    words.collect()
}

fn orders(decision: &Decision) -> Vec<Effect> {
    let order =
        |effect: &Effect| matches!(effect, Effect::SuspendInstances { .. } | Effect::RestoreInstances { .. });
    decision.outbox.iter().map(|row| row.effect.clone()).filter(order).collect()
}

// ---- windows (S3) ----

#[test]
fn s3_byok_is_reminded_thrice_and_lapses_after_fifteen_days() {
    let mut world = World::suspended_in(Mode::Byok);
    let mut told = Vec::new();
    for day in 0..30 {
        let phases = world.deadlines_run();
        told.extend(phases.iter().map(|decision| (day, decision.fact.slug.clone())));
        world.later(DAY);
    }
    let reminded = |day| (day, "restoration-reminded".to_owned());
    assert_eq!(told, [reminded(8), reminded(12), reminded(14), (15, "restoration-phase-began".to_owned())]);
    assert_eq!(world.policy.lifecycle.slug(), "lapsed");
    assert_eq!(world.causes(), [Cause::Key], "lapsing opens nothing");
}

#[test]
fn s3_cmk_never_lapses_and_each_phase_is_told() {
    let mut world = World::suspended();
    let mut phases = Vec::new();
    for _ in 0..60 {
        phases.extend(world.deadlines_run().iter().flat_map(comments));
        world.later(DAY);
    }
    assert_eq!(phases.len(), 6, "{phases:#?}");
    assert!(phases[2].contains("best effort"), "{}", phases[2]);
    assert!(phases[5].contains("full recovery is not assured"), "{}", phases[5]);
    assert_eq!(world.policy.lifecycle.slug(), "suspended");
    world.asks_for_restoration(&admin()).unwrap();
}

#[test]
fn s3_a_reminder_is_told_once_however_often_its_message_comes() {
    let mut world = World::suspended();
    world.later(8 * DAY);
    let moment = due_moment(&world.rules(), &world.policy, world.now).unwrap();
    let event = PolicyEvent::WindowMomentCame { moment };
    assert_eq!(comments(&world.happens(event.clone(), &prober()).unwrap()).len(), 1);
    assert_eq!(world.happens(event.clone(), &prober()).unwrap_err(), Refusal::Redundant);
    world.later(2 * DAY);
    assert_eq!(world.happens(event, &prober()).unwrap_err(), Refusal::Stale);
}

#[test]
fn s3_a_moment_that_somebody_made_up_ends_no_window() {
    let mut world = World::suspended_in(Mode::Byok);
    let moment = WindowMoment { at: world.now, phase: WindowPhase::Lapsed, kind: MomentKind::PhaseBegins };
    let early = world.happens(PolicyEvent::WindowMomentCame { moment }, &prober());
    assert_eq!(early.unwrap_err(), Refusal::Redundant);
    world.later(9 * DAY);
    let forged = world.happens(PolicyEvent::WindowMomentCame { moment }, &prober());
    assert_eq!(forged.unwrap_err(), Refusal::Stale);
    assert!(matches!(world.policy.lifecycle, Lifecycle::Suspended { .. }));
}

#[test]
fn s3_after_days_of_silence_only_what_counts_now_is_told() {
    let mut world = World::suspended_in(Mode::Byok);
    world.later(40 * DAY);
    let told = world.deadlines_run();
    assert_eq!(told.len(), 1);
    assert_eq!(world.policy.lifecycle.slug(), "lapsed");
    assert!(comments(&told[0])[0].contains("Nothing was deleted"));
}

#[test]
fn s3_a_window_starts_anew_with_a_new_cut_off() {
    let mut world = World::suspended();
    world.later(9 * DAY);
    world.deadlines_run();
    world.asks_for_restoration(&admin()).unwrap();
    world.is_proven().unwrap();
    world.later(60);
    world.probed_twice(DISABLED, DISABLED).unwrap();
    assert!(world.deadlines_run().is_empty());
    world.later(7 * DAY);
    assert_eq!(world.deadlines_run().len(), 1);
}

#[test]
fn s3_a_restoration_under_way_is_not_cut_short_by_the_end_of_the_window() {
    let mut world = World::suspended_in(Mode::Byok);
    world.later(15 * DAY - 90);
    world.asks_for_restoration(&admin()).unwrap();
    world.later(60);
    assert!(world.deadlines_run().is_empty());
    world.is_proven().unwrap();
    assert!(world.policy.fence.is_open());
}

#[test]
fn s3_after_lapse_self_service_is_refused_whatever_the_keys_say() {
    let mut world = World::lapsed();
    assert_eq!(world.asks_for_restoration(&admin()).unwrap_err(), Refusal::WindowLapsed);
}

#[test]
fn s3_the_window_is_over_on_the_minute_even_if_nobody_noticed_the_lapse() {
    let mut world = World::suspended_in(Mode::Byok);
    world.later(15 * DAY);
    assert_eq!(world.asks_for_restoration(&admin()).unwrap_err(), Refusal::WindowLapsed);
}

// ---- support after lapse (S1, S3) ----

#[test]
fn s3_support_carries_out_an_admins_request_after_lapse_with_the_same_proofs() {
    let mut world = World::lapsed();
    let decision = world.support_restores().unwrap();
    assert!(decision.outbox.iter().any(|row| row.effect == Effect::ProveRestoration));
    assert!(!world.policy.fence.is_open(), "carrying out opens nothing");
    assert!(matches!(&world.policy.lifecycle, Lifecycle::Restoring { by, .. } if by.as_str() == "ada"));
    assert_eq!(world.support_restores().unwrap_err(), Refusal::Redundant);
    world.is_proven().unwrap();
    assert!(world.policy.fence.is_open());
}

#[test]
fn s1_support_carries_out_nothing_while_the_window_lasts() {
    let mut world = World::suspended();
    assert!(matches!(world.support_restores().unwrap_err(), Refusal::Forbidden { who: "an org admin" }));
}

#[test]
fn s1_after_lapse_nobody_but_support_carries_a_request_out_and_only_on_its_ticket() {
    for stranger in [admin(), prober(), by(Actor::System("crm".parse().unwrap()))] {
        let mut world = World::lapsed();
        let ticket = world.policy.ticket.unwrap();
        let refusal = world.support_restores_on(ticket, &stranger).unwrap_err();
        assert!(matches!(refusal, Refusal::Forbidden { who: "a support agent" }));
    }
    let mut world = World::lapsed();
    let other = TicketId::from_uuid(Uuid::from_u128(99));
    let refusal = world.support_restores_on(other, &agent()).unwrap_err();
    assert!(matches!(refusal, Refusal::WrongTicket { .. }));
}

#[test]
fn s6_a_key_lost_while_support_restores_goes_back_to_lapsed() {
    let mut world = World::lapsed();
    world.support_restores().unwrap();
    world.later(1);
    world.probed_twice(DISABLED, DISABLED).unwrap();
    assert_eq!(world.policy.lifecycle.slug(), "lapsed");
    assert!(!world.policy.fence.is_open());
}

#[test]
fn s1_one_request_on_the_ticket_is_carried_out_once() {
    let mut world = World::lapsed();
    let (ticket, asked_at) = (world.policy.ticket.unwrap(), world.now);
    world.later(60);
    world.support_restores_what_was_asked(ticket, asked_at, &agent()).unwrap();
    world.later(1);
    world.probed_twice(DISABLED, DISABLED).unwrap();
    assert_eq!(world.policy.lifecycle.slug(), "lapsed");
    let stopped = world.now;
    // The keys come back for a reason of the customer's own.
    world.later(3600);
    for old in [asked_at, stopped] {
        let refusal = world.support_restores_what_was_asked(ticket, old, &agent()).unwrap_err();
        assert_eq!(refusal, Refusal::Stale);
    }
    let anew = stopped + jiff::SignedDuration::from_secs(1);
    world.support_restores_what_was_asked(ticket, anew, &agent()).unwrap();
    world.is_proven().unwrap();
    assert!(world.policy.fence.is_open());
    assert_eq!(world.policy.restoration_stopped_at, None, "the next cut-off has its own requests");
}

#[test]
fn s1_a_request_of_before_the_cut_off_is_none() {
    let mut world = World::lapsed();
    let (ticket, cut_off_at) = (world.policy.ticket.unwrap(), world.policy.lifecycle.cut_off_at().unwrap());
    let before = cut_off_at - jiff::SignedDuration::from_secs(1);
    let refusal = world.support_restores_what_was_asked(ticket, before, &agent()).unwrap_err();
    assert_eq!(refusal, Refusal::Stale);
    world.support_restores_what_was_asked(ticket, cut_off_at, &agent()).unwrap();
}

#[rstest]
#[case::assured(5, "suspended")]
#[case::best_effort(15, "suspended")]
#[case::not_assured(25, "suspended")]
fn s6_a_key_lost_during_restoration_in_any_phase_loses_nothing(#[case] day: i64, #[case] back: &str) {
    let mut world = World::suspended();
    let cut_off_at = world.policy.lifecycle.cut_off_at();
    world.later(day * DAY);
    world.deadlines_run();
    world.asks_for_restoration(&admin()).unwrap();
    world.later(1);
    let rounds = world.rounds(DISABLED, USABLE);
    world.happens(PolicyEvent::RestorationProbed { rounds, unwrapped_in: None }, &restorer()).unwrap();
    assert_eq!(world.policy.lifecycle.slug(), back);
    assert_eq!(world.policy.lifecycle.cut_off_at(), cut_off_at);
    assert_eq!(world.policy.fence.epoch, Epoch(1), "the fence never opened");
    world.later(60);
    world.asks_for_restoration(&admin()).unwrap();
    world.is_proven().unwrap();
    assert!(world.policy.fence.is_open());
}

#[test]
fn s1_a_restoration_that_is_asked_for_early_twice_or_by_nobody_changes_nothing() {
    let mut world = World::active();
    world.probed(DISABLED, USABLE).unwrap();
    let early = world.asks_for_restoration(&admin()).unwrap_err();
    assert!(matches!(early, Refusal::IllegalForState { lifecycle: "active" }));
    let mut world = World::suspended();
    let before = world.policy.clone();
    for forged in [agent(), prober(), restorer()] {
        world.asks_for_restoration(&forged).unwrap_err();
        world.is_proven().unwrap_err();
    }
    assert_eq!(world.policy, before);
    world.asks_for_restoration(&admin()).unwrap();
    assert_eq!(world.asks_for_restoration(&admin()).unwrap_err(), Refusal::Redundant);
    world.is_proven().unwrap();
    assert_eq!(world.is_proven().unwrap_err(), Refusal::Redundant);
}

// ---- the vendor's suspension (K1, S7, I5) ----

#[test]
fn k1_a_vendor_suspension_closes_the_fence_with_its_own_cause_and_ticket_and_has_no_window() {
    let mut world = World::active();
    let decision = world.is_suspended_by_vendor(Ground::Ordered).unwrap();
    assert_eq!(world.causes(), [Cause::Vendor]);
    assert_eq!(world.policy.standing(), "suspended");
    assert_eq!(decision.fact.state, "suspended");
    let Effect::OpenTicket { title, body, ticket } = &decision.outbox[0].effect else {
        panic!("no ticket");
    };
    assert_eq!(title, "CMK access suspended for AWS account 222222222222");
    assert!(body.contains("unpaid.") && body.contains("no deadline"), "{body}");
    assert_eq!(world.policy.vendor.as_ref().unwrap().ticket, *ticket);
    assert_eq!(orders(&decision), [Effect::SuspendInstances { epoch: Epoch(1) }]);
    world.later(400 * DAY);
    assert_eq!(due_moment(&world.rules(), &world.policy, world.now), None);
    assert_eq!(world.is_suspended_by_vendor(Ground::Ordered).unwrap_err(), Refusal::Redundant);
}

#[test]
fn k1_nobody_but_support_suspends_for_the_vendor() {
    for stranger in [admin(), prober(), by(Actor::System("crm".parse().unwrap()))] {
        let mut world = World::active();
        let event = PolicyEvent::VendorSuspended { ground: Ground::Ordered, reason: "x".to_owned() };
        assert!(matches!(world.happens(event, &stranger).unwrap_err(), Refusal::Forbidden { .. }));
    }
}

#[test]
fn i5_support_lifts_what_support_ordered_and_the_instances_come_back() {
    let mut world = World::active();
    world.is_suspended_by_vendor(Ground::Ordered).unwrap();
    assert!(matches!(
        world.happens(PolicyEvent::VendorSuspensionLifted, &admin()).unwrap_err(),
        Refusal::Forbidden { .. }
    ));
    let decision = world.support_lifts().unwrap();
    assert!(world.policy.fence.is_open());
    assert_eq!(orders(&decision), [Effect::RestoreInstances { epoch: Epoch(2) }]);
    assert!(matches!(decision.outbox[0].effect, Effect::ResolveTicket { .. }));
    assert_eq!(world.support_lifts().unwrap_err(), Refusal::NotSuspendedBy { cause: Cause::Vendor });
}

#[test]
fn k1_a_suspension_over_an_access_request_ends_when_the_permission_is_proven_and_not_by_support() {
    let (mut world, request) = World::asked();
    world.declines(request, &admin()).unwrap();
    world.is_suspended_by_vendor(Ground::AccessRequest { request }).unwrap();
    assert!(matches!(world.support_lifts().unwrap_err(), Refusal::Forbidden { .. }));
    let proven = |world: &World, request, west| {
        let round = world.round(USABLE, west);
        PolicyEvent::PermissionProven { request, round }
    };
    let of_another = proven(&world, Uuid::from_u128(6), USABLE);
    assert_eq!(world.happens(of_another, &prober()).unwrap_err(), Refusal::Redundant);
    let whole = proven(&world, request, USABLE);
    assert!(matches!(world.happens(whole.clone(), &admin()).unwrap_err(), Refusal::Forbidden { .. }));
    assert_eq!(world.happens(whole.clone(), &prober()).unwrap_err(), Refusal::Stale, "it is not accepted");
    world.grants(request, &[DUBLIN, FRANKFURT], &admin()).unwrap();
    let of_half = proven(&world, request, UNREACHABLE);
    assert!(matches!(world.happens(of_half, &prober()).unwrap_err(), Refusal::KeysNotUsable { .. }));
    world.happens(whole, &prober()).unwrap();
    assert!(world.policy.fence.is_open());
}

#[test]
fn k1_the_vendor_suspends_over_an_access_request_that_was_declined_or_ignored_and_over_no_other() {
    let refused = |world: &mut World, request| {
        let before = world.policy.clone();
        let refusal = world.is_suspended_by_vendor(Ground::AccessRequest { request }).unwrap_err();
        assert_eq!(world.policy, before);
        refusal
    };
    let none = Refusal::NotAGround { reason: "the organisation has none of this id" };
    assert_eq!(refused(&mut World::active(), Uuid::from_u128(5)), none);

    let (mut world, request) = World::asked();
    assert_eq!(refused(&mut world, Uuid::from_u128(5)), none, "it has another");
    let open = Refusal::NotAGround { reason: "the organisation may still answer it" };
    assert_eq!(refused(&mut world, request), open);
    let decide_by = world.policy.access_requests[0].decide_by;
    world.later(decide_by.duration_since(world.now).as_secs() - 1);
    assert_eq!(refused(&mut world, request), open, "to the last second");
    world.later(1);
    world.is_suspended_by_vendor(Ground::AccessRequest { request }).unwrap();
    assert_eq!(world.causes(), [Cause::Vendor]);

    let (mut world, request) = World::asked();
    world.declines(request, &admin()).unwrap();
    world.grants(request, &[DUBLIN, FRANKFURT], &admin()).unwrap();
    assert_eq!(refused(&mut world, request), Refusal::NotAGround { reason: "it is accepted" });
}

#[test]
fn i5_with_two_causes_both_have_to_go_first_the_keys() {
    let mut world = World::suspended();
    let second = world.is_suspended_by_vendor(Ground::Ordered).unwrap();
    assert_eq!(world.causes(), [Cause::Key, Cause::Vendor]);
    assert!(orders(&second).is_empty(), "everybody was told already");
    assert_eq!(world.policy.fence.epoch, Epoch(1), "an order that is on its way has to arrive");
    world.asks_for_restoration(&admin()).unwrap();
    let proven = world.is_proven().unwrap();
    assert_eq!(world.causes(), [Cause::Vendor]);
    assert!(orders(&proven).is_empty());
    assert!(comments(&proven)[0].contains("another cause"));
    assert_eq!(world.policy.standing(), "suspended");
    let lifted = world.support_lifts().unwrap();
    assert_eq!(orders(&lifted), [Effect::RestoreInstances { epoch: Epoch(2) }]);
    assert!(world.policy.fence.is_open());
}

#[test]
fn i5_with_two_causes_both_have_to_go_first_the_vendors() {
    let mut world = World::active();
    world.is_suspended_by_vendor(Ground::Ordered).unwrap();
    let lost = world.probed_twice(DISABLED, DISABLED).unwrap();
    assert!(orders(&lost).is_empty());
    assert_eq!(world.causes(), [Cause::Key, Cause::Vendor]);
    let lifted = world.support_lifts().unwrap();
    assert!(orders(&lifted).is_empty());
    assert!(world.is_suspended());
    world.asks_for_restoration(&admin()).unwrap();
    world.is_proven().unwrap();
    assert!(world.policy.fence.is_open());
    assert_eq!(world.policy.fence.epoch, Epoch(2));
}

#[test]
fn i5_a_vendor_suspension_in_the_middle_of_a_restoration_keeps_the_fence_closed() {
    let mut world = World::suspended();
    world.asks_for_restoration(&admin()).unwrap();
    world.is_suspended_by_vendor(Ground::Ordered).unwrap();
    world.is_proven().unwrap();
    assert_eq!(world.causes(), [Cause::Vendor]);
    world.later(60);
    world.probed_twice(DISABLED, DISABLED).unwrap();
    assert_eq!(world.causes(), [Cause::Key, Cause::Vendor]);
}

#[test]
fn i5_the_vendors_suspension_outlasts_the_window_of_the_keys() {
    let mut world = World::lapsed();
    world.is_suspended_by_vendor(Ground::Ordered).unwrap();
    world.support_restores().unwrap();
    world.is_proven().unwrap();
    assert_eq!(world.causes(), [Cause::Vendor]);
    world.support_lifts().unwrap();
    assert!(world.policy.fence.is_open());
}

#[test]
fn k1_a_region_lost_and_found_under_a_vendor_suspension_opens_nothing() {
    let mut world = World::active();
    world.is_suspended_by_vendor(Ground::Ordered).unwrap();
    let told = world.probed(DISABLED, USABLE).unwrap();
    assert!(comments(&told)[0].contains("cut off for another cause"));
    world.later(60);
    world.probed(USABLE, USABLE).unwrap();
    assert_eq!(world.causes(), [Cause::Vendor]);
    let told = PolicyEvent::InstancesSuspended { epoch: Epoch(1), instances: 3 };
    let decision = world.happens(told, &prober()).unwrap();
    assert_eq!(comments(&decision), ["Every app instance was told to stop: 3."]);
}

#[test]
fn s4_the_ticket_of_a_region_that_still_refuses_outlives_the_vendors_suspension() {
    let mut world = World::active();
    world.probed(DISABLED, USABLE).unwrap();
    world.is_suspended_by_vendor(Ground::Ordered).unwrap();
    world.support_lifts().unwrap();
    world.happens(PolicyEvent::InstancesRestored { epoch: Epoch(2) }, &prober()).unwrap();
    assert!(world.policy.ticket.is_some());
    world.later(60);
    let healed = world.probed(USABLE, USABLE).unwrap();
    assert!(matches!(healed.outbox[0].effect, Effect::ResolveTicket { .. }));
}

#[test]
fn s4_a_key_that_flickers_while_instances_are_told_does_not_take_the_ticket_of_the_data_loss_report() {
    let mut world = World::suspended();
    world.asks_for_restoration(&admin()).unwrap();
    world.is_proven().unwrap();
    for seen in [UNREACHABLE, DISABLED] {
        world.later(10);
        world.probed(seen, USABLE).unwrap();
        world.later(10);
        world.probed(USABLE, USABLE).unwrap();
    }
    assert!(world.policy.ticket.is_some());
    let report = world.happens(PolicyEvent::InstancesRestored { epoch: Epoch(2) }, &prober()).unwrap();
    assert!(matches!(report.outbox[0].effect, Effect::ResolveTicket { .. }));
    assert!(comments(&report)[0].contains("Data-loss report"));
    // From then on the ticket of a region that is lost and found is resolved by the probe again.
    world.later(10);
    world.probed(DISABLED, USABLE).unwrap();
    world.later(10);
    world.probed(USABLE, USABLE).unwrap();
    assert_eq!(world.policy.ticket, None);
}

// ---- a mistake (S7) ----

#[test]
fn s7_two_agents_together_lift_a_mistaken_suspension() {
    let mut world = World::suspended_by_mistake();
    let proposed = world.calls_it_a_mistake(&agent()).unwrap();
    assert!(world.is_suspended(), "one agent lifts nothing");
    assert!(orders(&proposed).is_empty());
    let until = world.now + jiff::SignedDuration::from_secs(DAY);
    assert!(comments(&proposed)[0].contains(&format!("a second agent says so too by {until:.0}")));
    world.later(3600);
    let lifted = world.calls_it_a_mistake(&other_agent()).unwrap();
    assert!(world.policy.fence.is_open());
    assert_eq!(world.policy.lifecycle.slug(), "active");
    assert_eq!(orders(&lifted), [Effect::RestoreInstances { epoch: Epoch(2) }]);
    assert_eq!(world.policy.lift, None);
    let audited = &world.facts[world.facts.len() - 2..];
    assert!(audited.iter().all(|fact| fact.slug == "mistake-declared"));
    assert_ne!(audited[0].actor, audited[1].actor);
}

#[test]
fn s7_the_same_agent_twice_lifts_nothing() {
    let mut world = World::suspended_by_mistake();
    world.calls_it_a_mistake(&agent()).unwrap();
    world.later(60);
    let refusal = world.calls_it_a_mistake(&agent()).unwrap_err();
    assert_eq!(refusal, Refusal::Forbidden { who: "another support agent" });
    assert!(world.is_suspended());
}

#[test]
fn s7_nobody_but_support_calls_a_suspension_a_mistake() {
    for stranger in [admin(), prober(), by(Actor::System("crm".parse().unwrap()))] {
        let mut world = World::suspended_by_mistake();
        assert!(matches!(world.calls_it_a_mistake(&stranger).unwrap_err(), Refusal::Forbidden { .. }));
    }
}

#[test]
fn s7_a_word_that_nobody_confirmed_in_time_counts_as_the_first_again() {
    let mut world = World::suspended_by_mistake();
    world.calls_it_a_mistake(&agent()).unwrap();
    world.later(DAY + 1);
    world.calls_it_a_mistake(&other_agent()).unwrap();
    assert!(world.is_suspended());
    world.later(60);
    world.calls_it_a_mistake(&agent()).unwrap();
    assert!(world.policy.fence.is_open());
}

#[test]
fn s7_a_suspension_whose_keys_refuse_is_no_mistake() {
    let mut world = World::suspended_by_mistake();
    let rounds = world.rounds(USABLE, DISABLED);
    let event = PolicyEvent::MistakeDeclared { reason: "so they say.".to_owned(), rounds };
    assert!(matches!(world.happens(event, &agent()).unwrap_err(), Refusal::KeysNotUsable { .. }));
    world.calls_it_a_mistake(&agent()).unwrap();
    world.later(60);
    world.probed(USABLE, DENIED).unwrap();
    assert_eq!(world.policy.lift, None, "a refusal seen meanwhile ends it");
    world.later(60);
    world.calls_it_a_mistake(&other_agent()).unwrap();
    assert!(world.is_suspended());
}

#[test]
fn s7_a_mistake_lifts_the_cause_of_the_keys_and_no_other() {
    let mut world = World::suspended_by_mistake();
    world.is_suspended_by_vendor(Ground::Ordered).unwrap();
    world.calls_it_a_mistake(&agent()).unwrap();
    world.later(60);
    world.calls_it_a_mistake(&other_agent()).unwrap();
    assert_eq!(world.causes(), [Cause::Vendor]);
    let refusal = world.calls_it_a_mistake(&agent()).unwrap_err();
    assert_eq!(refusal, Refusal::NotSuspendedBy { cause: Cause::Key });
}

#[test]
fn s7_a_mistake_can_be_lifted_after_lapse_and_while_a_restoration_waits() {
    let mut lapsed = World::suspended_by_mistake();
    lapsed.lapses();
    lapsed.calls_it_a_mistake(&agent()).unwrap();
    lapsed.later(60);
    lapsed.calls_it_a_mistake(&other_agent()).unwrap();
    assert!(lapsed.policy.fence.is_open());
    let mut waiting = World::suspended_by_mistake();
    waiting.asks_for_restoration(&admin()).unwrap();
    waiting.later(1);
    waiting.calls_it_a_mistake(&agent()).unwrap();
    waiting.later(60);
    waiting.calls_it_a_mistake(&other_agent()).unwrap();
    assert_eq!(waiting.is_proven().unwrap_err(), Refusal::Redundant);
}

#[test]
fn s7_how_soon_a_second_agent_has_to_confirm_is_the_catalogues() {
    let mut catalogue = Catalogue::shipped().unwrap();
    catalogue.support.lift_within_hours = 48;
    let mut world = World::requested_with(catalogue);
    world.activate();
    world.is_denied_for_long();
    world.calls_it_a_mistake(&agent()).unwrap();
    world.later(DAY + 1);
    world.calls_it_a_mistake(&other_agent()).unwrap();
    assert!(world.policy.fence.is_open());
}

#[test]
fn s7_what_the_customer_did_is_no_mistake_whatever_its_keys_say_now() {
    for pending in [DISABLED, Observation::Refused(RefusalKind::KeyPendingDeletion)] {
        let mut cut_off_by_it = World::active();
        cut_off_by_it.probed_twice(pending, pending).unwrap();
        let mut seen_later = World::suspended_by_mistake();
        seen_later.probed(DENIED, pending).unwrap();
        let mut while_restoring = World::suspended_by_mistake();
        while_restoring.asks_for_restoration(&admin()).unwrap();
        while_restoring.later(1);
        while_restoring.probed(pending, USABLE).unwrap();
        let mut then_worse = World::suspended();
        then_worse.probed(Observation::Refused(RefusalKind::KeyPendingImport), pending).unwrap();
        for mut world in [cut_off_by_it, seen_later, while_restoring, then_worse] {
            world.later(3600);
            world.probed_twice(USABLE, USABLE).unwrap();
            for agent in [agent(), other_agent()] {
                let refusal = world.calls_it_a_mistake(&agent).unwrap_err();
                assert!(matches!(refusal, Refusal::Forbidden { who } if who.starts_with("an org admin")));
            }
            assert!(!world.policy.fence.is_open());
        }
    }
}

#[test]
fn s7_what_the_restorer_sees_the_customer_do_is_remembered_as_what_a_sweep_sees() {
    let mut world = World::suspended_by_mistake();
    world.calls_it_a_mistake(&agent()).unwrap();
    world.later(60);
    world.asks_for_restoration(&admin()).unwrap();
    world.later(1);
    let rounds = world.rounds(DISABLED, USABLE);
    world.happens(PolicyEvent::RestorationProbed { rounds, unwrapped_in: None }, &restorer()).unwrap();
    assert!(world.is_suspended());
    assert_eq!(world.policy.lift, None, "the first agent's word is void");
    // The customer enables its key and asks for nothing.
    world.later(60);
    world.probed(USABLE, USABLE).unwrap();
    world.later(60);
    let refusal = world.calls_it_a_mistake(&other_agent()).unwrap_err();
    assert!(matches!(refusal, Refusal::Forbidden { who } if who.starts_with("an org admin")));
    assert!(world.is_suspended());
}

#[test]
fn s7_a_request_into_degraded_that_finds_a_key_taken_away_is_no_mistake_any_more() {
    let gone = Observation::Refused(RefusalKind::KeyPendingDeletion);
    let mut world = World::suspended_by_mistake();
    world.calls_it_a_mistake(&agent()).unwrap();
    world.later(60);
    let (ticket, round) = (world.policy.ticket.unwrap(), world.round(USABLE, gone));
    let event = PolicyEvent::RestorationRequested { ticket, round, into_degraded: true };
    world.happens(event, &admin()).unwrap();
    assert!(world.policy.lift.is_none() && world.policy.refused_for_certain);
}

#[test]
fn s7_a_mistake_after_the_customers_own_suspension_is_one_again() {
    let mut world = World::suspended();
    world.asks_for_restoration(&admin()).unwrap();
    world.is_proven().unwrap();
    assert!(world.policy.fence.is_open() && !world.policy.refused_for_certain);
    world.later(60);
    world.is_denied_for_long();
    world.later(60);
    world.calls_it_a_mistake(&agent()).unwrap();
    world.later(60);
    world.calls_it_a_mistake(&other_agent()).unwrap();
    assert!(world.policy.fence.is_open());
}
