//! A regional key that is gone for good: restored without, and replaced (spec S2). And the preview of a revocation.

use claviger_domain::access::{AccessAnswer, KeyPermission};
use claviger_domain::catalogue::Catalogue;
use claviger_domain::decide::{Decision, Refusal, preview, wants_confirmation};
use claviger_domain::effect::Effect;
use claviger_domain::event::PolicyEvent;
use claviger_domain::fence::Epoch;
use claviger_domain::observation::{Observation, RefusalKind};
use claviger_domain::values::{KeyArn, Region};
use claviger_domain::vendor::Ground;
use rstest::rstest;

use crate::support::{
    DENIED, DISABLED, DUBLIN, FRANKFURT, THROTTLED, UNREACHABLE, USABLE, World, admin, prober, region,
    support as agent,
};

const GONE: Observation = Observation::Refused(RefusalKind::KeyPendingDeletion);
const DELETED: Observation = Observation::Refused(RefusalKind::KeyNotFound);

fn new_key() -> KeyArn {
    format!("arn:aws:kms:{DUBLIN}:222222222222:key/cc").parse().unwrap()
}

impl World {
    /// Cut off: Dublin's key is being deleted, Frankfurt's disabled.
    fn cut_off_for_good() -> Self {
        Self::cut_off_for_good_with(Catalogue::shipped().unwrap())
    }

    fn cut_off_for_good_with(catalogue: Catalogue) -> Self {
        let mut world = Self::requested_with(catalogue);
        world.activate();
        world.probed_twice(DISABLED, GONE).unwrap();
        world.later(60);
        world
    }

    fn asks_without(&mut self, frankfurt: Observation, dublin: Observation) -> Result<Decision, Refusal> {
        let (ticket, round) = (self.policy.ticket.unwrap(), self.round(frankfurt, dublin));
        self.happens(PolicyEvent::RestorationRequested { ticket, round, into_degraded: true }, &admin())
    }

    fn proven(
        &mut self,
        frankfurt: Observation,
        dublin: Observation,
        unwrapped_in: Option<&str>,
    ) -> Result<Decision, Refusal> {
        self.later(1);
        let rounds = self.rounds(frankfurt, dublin);
        let unwrapped_in = unwrapped_in.map(region);
        self.happens(PolicyEvent::RestorationProbed { rounds, unwrapped_in }, &prober())
    }

    /// Degraded, and every instance is told that it may work again.
    fn degraded_for_good() -> Self {
        let mut world = Self::about_to_be_degraded_for_good();
        world.happens(PolicyEvent::InstancesRestored { epoch: Epoch(2) }, &prober()).unwrap();
        world
    }

    /// The same, before instances are told.
    fn about_to_be_degraded_for_good() -> Self {
        let mut world = Self::cut_off_for_good();
        world.asks_without(USABLE, GONE).unwrap();
        world.proven(USABLE, GONE, Some(FRANKFURT)).unwrap();
        world.later(60);
        world
    }

    fn asks_for_replacement(&mut self) -> Result<Decision, Refusal> {
        self.happens(PolicyEvent::KeyReplacementAsked { region: region(DUBLIN), key: new_key() }, &admin())
    }

    fn is_replaced(&mut self, dublin: Observation) -> Result<Decision, Refusal> {
        self.is_replaced_proving(dublin, &[])
    }

    fn is_replaced_proving(
        &mut self,
        dublin: Observation,
        proven: &[KeyPermission],
    ) -> Result<Decision, Refusal> {
        let event = PolicyEvent::KeyReplaced {
            region: region(DUBLIN),
            key: new_key(),
            canary: "QQ==".to_owned(),
            data_keys: 7,
            proven: proven.iter().copied().collect(),
            round: self.round(USABLE, dublin),
        };
        self.happens(event, &prober())
    }
}

fn replacements(decision: &Decision) -> usize {
    decision.outbox.iter().filter(|row| matches!(row.effect, Effect::ReplaceKey { .. })).count()
}

#[test]
fn s2_access_returns_without_a_lost_key_when_another_region_unwraps_every_data_key() {
    let mut world = World::cut_off_for_good();
    let decision = world.asks_without(USABLE, GONE).unwrap();
    assert!(decision.outbox.iter().any(|row| row.effect == Effect::ProveRestoration));
    assert!(!world.policy.fence.is_open());
    world.proven(USABLE, GONE, Some(FRANKFURT)).unwrap();
    assert!(world.policy.fence.is_open());
    assert!(world.policy.is_degraded(), "no new instance and no new data key while it is");
    assert!(world.policy.keys[&region(DUBLIN)].given_up);
    world.happens(PolicyEvent::InstancesRestored { epoch: Epoch(2) }, &prober()).unwrap();
    assert!(world.policy.ticket.is_some(), "the ticket stays open until the key is replaced");
}

#[rstest]
#[case::nobody_unwrapped(None)]
#[case::unwrapped_where_the_key_is_lost(Some(DUBLIN))]
#[case::unwrapped_elsewhere(Some("us-east-1"))]
fn i5_without_the_proof_of_every_data_key_the_fence_stays_closed(#[case] unwrapped_in: Option<&str>) {
    let mut world = World::cut_off_for_good();
    world.asks_without(USABLE, GONE).unwrap();
    world.proven(USABLE, GONE, unwrapped_in).unwrap();
    assert!(world.is_suspended());
}

#[rstest]
#[case::only_disabled(DISABLED)]
#[case::only_denied(DENIED)]
#[case::no_answer(UNREACHABLE)]
fn s2_a_key_that_can_come_back_is_not_done_without(#[case] dublin: Observation) {
    let mut world = World::cut_off_for_good();
    let refusal = world.asks_without(USABLE, dublin).unwrap_err();
    assert_eq!(refusal, Refusal::KeysNotUsable { faults: [(region(DUBLIN), dublin)].into() });
}

#[test]
fn s2_nobody_does_without_every_key_or_without_saying_so() {
    let mut world = World::cut_off_for_good();
    assert!(matches!(world.asks_without(GONE, GONE).unwrap_err(), Refusal::KeysNotUsable { .. }));
    let (ticket, round) = (world.policy.ticket.unwrap(), world.round(USABLE, GONE));
    let event = PolicyEvent::RestorationRequested { ticket, round, into_degraded: false };
    assert!(matches!(world.happens(event, &admin()).unwrap_err(), Refusal::KeysNotUsable { .. }));
    let (ticket, round) = (world.policy.ticket.unwrap(), world.round(USABLE, GONE));
    let event = PolicyEvent::RestorationRequested { ticket, round, into_degraded: true };
    assert!(matches!(world.happens(event, &agent()).unwrap_err(), Refusal::Forbidden { .. }));
}

#[test]
fn s6_losing_the_other_key_while_restoring_without_one_goes_back_to_suspended() {
    let mut world = World::cut_off_for_good();
    world.asks_without(USABLE, GONE).unwrap();
    world.proven(DISABLED, GONE, Some(FRANKFURT)).unwrap();
    assert!(world.is_suspended());
    assert_eq!(world.policy.fence.epoch, Epoch(1), "the fence never opened");
}

#[test]
fn r5_without_a_lost_key_the_one_that_is_left_is_what_counts() {
    let mut world = World::degraded_for_good();
    world.probed_twice(DISABLED, GONE).unwrap();
    assert!(world.is_suspended());
}

#[rstest]
#[case::its_region_is_out(UNREACHABLE, true)]
#[case::it_is_throttled(THROTTLED, true)]
#[case::it_is_deleted_and_that_is_new(DELETED, true)]
#[case::it_is_deleted_and_the_control_probe_is_ill(DELETED, false)]
fn r5_a_key_that_was_given_up_vetoes_no_revocation_by_the_one_that_is_left(
    #[case] dublin: Observation,
    #[case] controls_healthy: bool,
) {
    let mut world = World::degraded_for_good();
    let mut rounds = world.rounds(DISABLED, dublin);
    for round in &mut rounds {
        round.controls_healthy = Some(controls_healthy);
    }
    assert!(wants_confirmation(&world.rules(), &world.policy, &rounds[0]));
    world.happens(PolicyEvent::ProbesReported { rounds, heard: Vec::new() }, &prober()).unwrap();
    assert!(world.is_suspended());
}

#[test]
fn r5_a_key_that_was_given_up_and_works_again_counts_again() {
    let mut world = World::degraded_for_good();
    world.probed_twice(DISABLED, USABLE).unwrap();
    assert!(world.policy.fence.is_open() && !world.policy.keys[&region(DUBLIN)].given_up);
}

#[rstest]
#[case::throttled(THROTTLED, "the key in eu-central-1 gives no answer")]
#[case::unreachable(UNREACHABLE, "the key in eu-central-1 gives no answer")]
#[case::denied_just_now(DENIED, "the key in eu-central-1 refuses too, which counts when it lasts")]
fn r5_the_ticket_says_of_no_key_that_it_works_but_of_one_that_does(
    #[case] frankfurt: Observation,
    #[case] said: &str,
) {
    let mut world = World::active();
    let told = world.probed(frankfurt, DISABLED).unwrap();
    let Effect::OpenTicket { body, .. } = &told.outbox[0].effect else { panic!("no ticket") };
    assert!(body.contains(said) && !body.contains("still works"), "{body}");
}

#[test]
fn r5_where_any_region_is_enough_a_key_that_was_given_up_suspends_nobody_again() {
    let mut catalogue = Catalogue::shipped().unwrap();
    catalogue.any_region_is_enough = true;
    let mut world = World::cut_off_for_good_with(catalogue);
    world.asks_without(USABLE, GONE).unwrap();
    world.proven(USABLE, GONE, Some(FRANKFURT)).unwrap();
    world.later(60);
    let _ = world.probed_twice(USABLE, GONE);
    assert!(world.policy.fence.is_open());
    world.later(60);
    world.probed_twice(DISABLED, GONE).unwrap();
    assert!(world.is_suspended());
}

#[test]
fn s2_after_lapse_an_organisation_comes_back_without_a_lost_key_if_its_admin_asked_for_that() {
    let carried_out = |world: &mut World, into_degraded: bool| {
        let (ticket, round) = (world.policy.ticket.unwrap(), world.round(USABLE, GONE));
        let (asked_by, asked_at) = ("ada".parse().unwrap(), world.now);
        let event = PolicyEvent::RestorationCarriedOut { ticket, asked_by, asked_at, into_degraded, round };
        world.happens(event, &agent())
    };
    for mut world in [World::cut_off_for_good(), World::degraded_for_good()] {
        if world.policy.fence.is_open() {
            world.probed_twice(DISABLED, GONE).unwrap();
        }
        world.lapses();
        let whole = carried_out(&mut world, false).unwrap_err();
        assert_eq!(whole, Refusal::KeysNotUsable { faults: [(region(DUBLIN), GONE)].into() });
        let decision = carried_out(&mut world, true).unwrap();
        let Effect::CommentTicket { body, .. } = &decision.outbox[0].effect else { panic!("nothing told") };
        assert!(body.contains("without the key of eu-west-1"), "{body}");
        world.proven(USABLE, GONE, Some(FRANKFURT)).unwrap();
        assert!(world.policy.fence.is_open() && world.policy.keys[&region(DUBLIN)].given_up);
    }
}

#[test]
fn s2_a_key_that_is_back_by_the_time_of_the_proof_is_not_given_up() {
    let mut world = World::cut_off_for_good();
    world.asks_without(USABLE, GONE).unwrap();
    world.proven(USABLE, USABLE, Some(FRANKFURT)).unwrap();
    assert!(world.policy.fence.is_open() && !world.policy.is_degraded());
    assert!(world.policy.keys.values().all(|key| !key.given_up));
}

#[test]
fn s2_the_ticket_says_whether_access_is_asked_for_with_every_key_or_without_one() {
    let told = |decision: Decision| match decision.outbox[0].effect.clone() {
        Effect::CommentTicket { body, .. } => body,
        other => panic!("{other:?}"),
    };
    let without = told(World::cut_off_for_good().asks_without(USABLE, GONE).unwrap());
    assert!(without.contains("without the key of eu-west-1"), "{without}");
    let whole = told(World::suspended().asks_for_restoration(&admin()).unwrap());
    assert!(whole.contains("every regional key answered"), "{whole}");
}

#[test]
fn i8_how_many_keys_were_lost_in_a_place_outlives_being_stored_and_none_is_not_stored() {
    let mut world = World::degraded_for_good();
    world.asks_for_replacement().unwrap();
    world.is_replaced(USABLE).unwrap();
    let stored = serde_json::to_value(&world.policy).unwrap();
    assert_eq!(stored["keys"][DUBLIN]["lostBefore"], 1);
    assert_eq!(stored["keys"][FRANKFURT].get("lostBefore"), None);
    let read: claviger_domain::policy::EncryptionPolicy = serde_json::from_value(stored).unwrap();
    assert_eq!(read, world.policy);
}

#[test]
fn s2_a_key_that_comes_back_after_all_is_not_given_up_any_more() {
    let mut world = World::degraded_for_good();
    let healed = world.probed(USABLE, USABLE).unwrap();
    assert!(!world.policy.is_degraded());
    assert!(!world.policy.keys[&region(DUBLIN)].given_up);
    assert!(matches!(healed.outbox[0].effect, Effect::ResolveTicket { .. }));
}

#[test]
fn s2_a_replaced_key_ends_the_degraded_realm_once_every_data_key_is_wrapped_under_it() {
    let mut world = World::degraded_for_good();
    let asked = world.asks_for_replacement().unwrap();
    assert_eq!(replacements(&asked), 1);
    assert!(world.policy.is_degraded(), "asking replaces nothing");
    assert!(world.policy.claimed_keys().contains(&new_key()), "nobody else may enrol it meanwhile");
    assert_eq!(world.asks_for_replacement().unwrap_err(), Refusal::Redundant);
    assert!(matches!(world.is_replaced(UNREACHABLE).unwrap_err(), Refusal::KeysNotUsable { .. }));
    let done = world.is_replaced(USABLE).unwrap();
    assert!(!world.policy.is_degraded());
    assert_eq!(world.policy.keys[&region(DUBLIN)].arn, new_key());
    assert_eq!(world.policy.claimed_keys().len(), 2, "the old key is anybody's again");
    assert!(matches!(done.outbox[0].effect, Effect::ResolveTicket { .. }));
    assert_eq!(world.is_replaced(USABLE).unwrap_err(), Refusal::Redundant);
}

#[test]
fn s4_a_key_that_is_replaced_while_instances_are_told_leaves_the_ticket_to_the_data_loss_report() {
    let mut world = World::about_to_be_degraded_for_good();
    world.asks_for_replacement().unwrap();
    let done = world.is_replaced(USABLE).unwrap();
    assert!(matches!(done.outbox[0].effect, Effect::CommentTicket { .. }));
    let report = world.happens(PolicyEvent::InstancesRestored { epoch: Epoch(2) }, &prober()).unwrap();
    let Effect::ResolveTicket { body, .. } = &report.outbox[0].effect else { panic!("no report") };
    assert!(body.contains("Data-loss report"), "{body}");
}

#[test]
fn s2_a_key_is_replaced_on_a_fresh_probe_of_the_very_key_that_was_asked_for() {
    let replaced = |key: KeyArn, age: i64| {
        let mut world = World::degraded_for_good();
        world.asks_for_replacement().unwrap();
        let round = world.round(USABLE, USABLE);
        world.later(age);
        let (region, canary) = (region(DUBLIN), "QQ==".to_owned());
        let event = PolicyEvent::KeyReplaced { region, key, canary, data_keys: 7, proven: [].into(), round };
        world.happens(event, &prober()).map(|_| ())
    };
    assert_eq!(replaced(new_key(), 30), Ok(()));
    assert_eq!(replaced(new_key(), 31), Err(Refusal::Stale));
    let other = format!("arn:aws:kms:{DUBLIN}:222222222222:key/dd").parse().unwrap();
    assert_eq!(replaced(other, 0), Err(Refusal::Stale));
}

#[rstest]
#[case::at_once(0, 1)]
#[case::at_the_last_moment(24 * 3600, 1)]
#[case::too_late(24 * 3600 + 1, 0)]
fn e3_a_second_admin_has_as_long_to_confirm_a_key_as_the_ticket_says(
    #[case] after: i64,
    #[case] replaced: usize,
) {
    let mut world = World::degraded_for_good();
    world.catalogue.key_changes.second_approver = true;
    let until = world.now + jiff::SignedDuration::from_hours(24);
    let proposed = world.asks_for_replacement().unwrap();
    let Effect::CommentTicket { body, .. } = &proposed.outbox[0].effect else { panic!("nothing told") };
    assert!(body.contains(&format!("by {until:.0}")), "{body}");
    world.later(after);
    let bea = crate::support::by(claviger_domain::event::Actor::OrgAdmin("bea".parse().unwrap()));
    let event = PolicyEvent::KeyReplacementAsked { region: region(DUBLIN), key: new_key() };
    assert_eq!(replacements(&world.happens(event, &bea).unwrap()), replaced);
}

#[test]
fn s2_a_key_that_works_is_not_replaced_and_nobody_but_an_admin_asks() {
    let mut world = World::active();
    assert_eq!(world.asks_for_replacement().unwrap_err(), Refusal::KeyNotLost { region: region(DUBLIN) });
    let mut world = World::degraded_for_good();
    let event = PolicyEvent::KeyReplacementAsked { region: region(DUBLIN), key: new_key() };
    assert!(matches!(world.happens(event, &agent()).unwrap_err(), Refusal::Forbidden { .. }));
    assert_eq!(world.is_replaced(USABLE).unwrap_err(), Refusal::Stale, "nobody asked for it");
}

#[test]
fn s2_while_the_vendor_suspends_no_key_is_replaced() {
    let mut world = World::degraded_for_good();
    let event = PolicyEvent::VendorSuspended { ground: Ground::Ordered, reason: "because".to_owned() };
    world.happens(event.clone(), &agent()).unwrap();
    assert!(matches!(world.asks_for_replacement(), Err(Refusal::IllegalForState { .. })));
    let mut world = World::degraded_for_good();
    world.asks_for_replacement().unwrap();
    world.happens(event, &agent()).unwrap();
    assert!(matches!(world.is_replaced(USABLE), Err(Refusal::IllegalForState { .. })));
}

#[test]
fn s2_a_replacement_that_a_cut_off_interrupts_goes_on_when_the_fence_opens() {
    let mut world = World::degraded_for_good();
    world.asks_for_replacement().unwrap();
    world.probed_twice(DISABLED, GONE).unwrap();
    assert!(matches!(world.is_replaced(USABLE).unwrap_err(), Refusal::IllegalForState { .. }));
    world.later(60);
    world.asks_without(USABLE, GONE).unwrap();
    let open = world.proven(USABLE, GONE, Some(FRANKFURT)).unwrap();
    assert_eq!(replacements(&open), 1);
}

// ---- a permission that is asked for while a key is lost (K1) ----

impl World {
    /// Asked for `kms:DescribeKey`, suspended over it, with Dublin's key gone for good.
    fn suspended_over_a_request_with_a_lost_key() -> (Self, uuid::Uuid) {
        let (mut world, request) = Self::asked();
        world.declines(request, &admin()).unwrap();
        let ground = Ground::AccessRequest { request };
        world
            .happens(PolicyEvent::VendorSuspended { ground, reason: "declined".to_owned() }, &agent())
            .unwrap();
        world.later(60);
        world.probed(USABLE, GONE).unwrap();
        world.later(60);
        (world, request)
    }

    fn permission_is_proven(
        &mut self,
        request: uuid::Uuid,
        dublin: Observation,
    ) -> Result<Decision, Refusal> {
        let round = self.round(USABLE, dublin);
        self.happens(PolicyEvent::PermissionProven { request, round }, &prober())
    }
}

#[test]
fn k1_a_suspension_over_a_request_ends_without_a_lost_key_and_what_replaces_it_proves_the_permission() {
    let (mut world, request) = World::suspended_over_a_request_with_a_lost_key();
    assert!(matches!(world.asks_for_replacement().unwrap_err(), Refusal::IllegalForState { .. }));
    assert!(matches!(world.grants(request, &[], &admin()).unwrap_err(), Refusal::KeysNotUsable { .. }));
    let accepted = world.grants(request, &[FRANKFURT], &admin()).unwrap();
    let Effect::ResolveTicket { body, .. } = &accepted.outbox[0].effect else { panic!("nothing told") };
    assert!(body.contains("The key of eu-west-1 is gone for good"), "{body}");
    world.permission_is_proven(request, GONE).unwrap();
    assert!(world.policy.fence.is_open() && world.policy.is_degraded());

    world.asks_for_replacement().unwrap();
    let refusal = world.is_replaced(USABLE).unwrap_err();
    assert_eq!(refusal, Refusal::KeysNotUsable { faults: [(region(DUBLIN), DENIED)].into() });
    world.is_replaced_proving(USABLE, &[KeyPermission::DescribeKey]).unwrap();
    let asked = &world.policy.access_requests[0];
    assert!(asked.is_granted() && asked.unproven.is_empty());
}

#[rstest]
#[case::only_disabled(DISABLED)]
#[case::deleted_and_that_is_new(DELETED)]
#[case::silent(UNREACHABLE)]
fn k1_a_key_that_can_come_back_is_not_left_out_of_the_proof(#[case] dublin: Observation) {
    let (mut world, request) = World::asked();
    world.probed(USABLE, dublin).unwrap();
    let refusal = world.grants(request, &[FRANKFURT], &admin()).unwrap_err();
    assert!(matches!(refusal, Refusal::KeysNotUsable { faults } if faults.contains_key(&region(DUBLIN))));
}

#[test]
fn k1_without_any_key_nothing_is_proven() {
    let (mut world, request) = World::asked();
    world.probed_twice(GONE, GONE).unwrap();
    let refusal = world.grants(request, &[], &admin()).unwrap_err();
    assert!(matches!(refusal, Refusal::KeysNotUsable { faults } if faults.len() == 2));
}

#[test]
fn k1_a_key_that_was_left_out_and_comes_back_opens_the_request_again() {
    let (mut world, request) = World::suspended_over_a_request_with_a_lost_key();
    world.grants(request, &[FRANKFURT], &admin()).unwrap();
    world.later(60);
    let back = world.probed(USABLE, USABLE).unwrap();
    let asked = &world.policy.access_requests[0];
    assert!(asked.answer == AccessAnswer::Open && asked.unproven.is_empty());
    assert!(
        back.outbox.iter().any(
            |row| matches!(&row.effect, Effect::CommentTicket { ticket, .. } if *ticket == asked.ticket)
        )
    );
    assert_eq!(world.permission_is_proven(request, USABLE).unwrap_err(), Refusal::Stale);
    world.grants(request, &[FRANKFURT, DUBLIN], &admin()).unwrap();
    world.permission_is_proven(request, USABLE).unwrap();
    assert!(world.policy.fence.is_open());
}

// ---- the preview ----

fn previewed(world: &World, of: &str) -> Result<Option<Decision>, Refusal> {
    let of: Region = region(of);
    preview(&world.rules(), &world.policy, &of, world.now)
}

#[test]
fn r5_disabling_one_key_of_two_is_previewed_as_degraded_and_changes_nothing() {
    let world = World::active();
    let before = world.policy.clone();
    let decision = previewed(&world, DUBLIN).unwrap().unwrap();
    assert!(decision.next.is_degraded() && decision.next.fence.is_open());
    let Effect::OpenTicket { body, .. } = &decision.outbox[0].effect else { panic!("no ticket") };
    assert!(body.contains("the key in eu-central-1 still works"), "{body}");
    assert_eq!(world.policy, before);
}

#[test]
fn r5_disabling_the_last_key_that_works_is_previewed_as_the_cut_off_that_it_would_be() {
    let mut world = World::active();
    world.probed(DISABLED, USABLE).unwrap();
    world.later(60);
    let foretold = previewed(&world, DUBLIN).unwrap().unwrap();
    assert!(!foretold.next.fence.is_open());
    world.probed_twice(DISABLED, DISABLED).unwrap();
    assert_eq!(foretold.next.lifecycle.slug(), world.policy.lifecycle.slug());
    assert_eq!(foretold.next.fence.causes, world.policy.fence.causes);
}

#[test]
fn r5_disabling_the_key_that_is_left_is_previewed_as_the_cut_off_though_the_lost_one_is_silent() {
    let mut world = World::degraded_for_good();
    world.probed(USABLE, UNREACHABLE).unwrap();
    world.later(60);
    assert!(!previewed(&world, FRANKFURT).unwrap().unwrap().next.fence.is_open());
}

#[test]
fn r5_disabling_a_key_that_is_disabled_is_previewed_as_nothing() {
    let mut world = World::active();
    world.probed(DISABLED, USABLE).unwrap();
    world.later(60);
    assert!(previewed(&world, FRANKFURT).unwrap().is_none());
    let requested = World::requested();
    assert!(matches!(previewed(&requested, FRANKFURT).unwrap_err(), Refusal::IllegalForState { .. }));
}

#[test]
fn e3_where_the_catalogue_asks_for_two_admins_one_alone_changes_no_key() {
    let mut world = World::degraded_for_good();
    world.catalogue.key_changes.second_approver = true;
    let ask = |world: &mut World, who: &str, key: KeyArn| {
        let by = crate::support::by(claviger_domain::event::Actor::OrgAdmin(who.parse().unwrap()));
        world.happens(PolicyEvent::KeyReplacementAsked { region: region(DUBLIN), key }, &by)
    };
    let proposed = ask(&mut world, "ada", new_key()).unwrap();
    assert_eq!(replacements(&proposed), 0);
    assert!(world.policy.keys[&region(DUBLIN)].replacement.is_none());
    let again = ask(&mut world, "ada", new_key()).unwrap_err();
    assert_eq!(again, Refusal::Forbidden { who: "another org admin" });
    // Another key is another proposal; too late is none.
    let other: KeyArn = "arn:aws:kms:eu-west-1:222222222222:key/dd".parse().unwrap();
    assert_eq!(replacements(&ask(&mut world, "bea", other).unwrap()), 0);
    assert_eq!(replacements(&ask(&mut world, "ada", new_key()).unwrap()), 0);
    world.later(24 * 3600 + 1);
    assert_eq!(replacements(&ask(&mut world, "bea", new_key()).unwrap()), 0);
    let seconded = ask(&mut world, "ada", new_key()).unwrap();
    assert_eq!(replacements(&seconded), 1);
    assert_eq!(world.policy.key_change, None);
}

#[test]
fn e3_the_word_of_an_admin_who_left_changes_no_key_with_anothers() {
    let mut world = World::degraded_for_good();
    world.catalogue.key_changes.second_approver = true;
    let ask = |world: &mut World, who: &str| {
        let by = crate::support::by(claviger_domain::event::Actor::OrgAdmin(who.parse().unwrap()));
        let event = PolicyEvent::KeyReplacementAsked { region: region(DUBLIN), key: new_key() };
        replacements(&world.happens(event, &by).unwrap())
    };
    assert_eq!(ask(&mut world, "ada"), 0);
    let left = PolicyEvent::ProposerLeft { by: "ada".parse().unwrap() };
    let dropped = world.happens(left.clone(), &prober()).unwrap();
    assert!(matches!(dropped.outbox[0].effect, Effect::CommentTicket { .. }), "{:?}", dropped.outbox);
    assert_eq!(world.happens(left, &prober()).unwrap_err(), Refusal::Redundant);
    assert_eq!(ask(&mut world, "bea"), 0, "it is a first word again");
    assert_eq!(ask(&mut world, "ada"), 1);
}
