//! What is foretold of keys is recorded, shown and warned of before it takes effect (spec K2, K4).

use claviger_domain::decide::{Decision, Refusal, describes_news};
use claviger_domain::effect::Effect;
use claviger_domain::event::PolicyEvent;
use claviger_domain::outlook::{Described, Loophole, MaterialShare, RunsOut};
use jiff::{SignedDuration, Timestamp};

use crate::support::{DUBLIN, World, prober, region};

fn at(text: &str) -> Option<Timestamp> {
    Some(text.parse().unwrap())
}

fn healthy() -> Described {
    Described { rotates: Some(true), material: Some("m1".to_owned()), ..Described::default() }
}

impl World {
    fn described(&mut self, said: &Described) -> Result<Decision, Refusal> {
        let described = [(region(DUBLIN), said.clone())].into();
        let news = describes_news(&self.rules(), &self.policy, &described, self.now);
        let decided = self.happens(PolicyEvent::KeysDescribed { described }, &prober());
        if !matches!(decided, Err(Refusal::IllegalForState { .. })) {
            assert_eq!(news, decided.is_ok(), "what is new, and nothing else, is asked to be decided on");
        }
        decided
    }
}

#[test]
fn k2_a_rotation_is_recorded_and_asks_nobody_for_anything() {
    let mut world = World::active();
    assert!(world.described(&healthy()).unwrap().outbox.is_empty());
    assert_eq!(world.described(&healthy()).unwrap_err(), Refusal::Redundant);
    world.now += SignedDuration::from_hours(24);
    let rotated = Described { material: Some("m2".to_owned()), ..healthy() };
    let decision = world.described(&rotated).unwrap();
    assert!(decision.outbox.is_empty() && world.policy.fence.is_open());
    assert_eq!(decision.fact.slug, "keys-described");
    let outlook = world.policy.keys[&region(DUBLIN)].outlook.clone().unwrap();
    assert_eq!((outlook.rotated_at, outlook.described.rotates), (Some(world.now), Some(true)));
    // Whom we may not ask keeps what is known.
    let silent = Described { rotates: None, material: None, ..Described::default() };
    assert_eq!(world.described(&silent).unwrap_err(), Refusal::Redundant);
}

#[test]
fn k2_what_older_material_still_wraps_is_counted_after_a_rotation_and_again_once_a_week() {
    let mut world = World::active();
    world.described(&healthy()).unwrap();
    let due =
        |world: &World| world.policy.keys[&region(DUBLIN)].outlook.as_ref().unwrap().count_since(world.now);
    assert_eq!(due(&world), None, "nothing was rotated");
    world.now += SignedDuration::from_hours(24);
    let rotated = Described { material: Some("m2".to_owned()), ..healthy() };
    world.described(&rotated).unwrap();
    let rotated_at = world.now;
    assert_eq!(due(&world), Some(rotated_at));
    world.now += SignedDuration::from_hours(1);
    let share = MaterialShare { data_keys: 10, under_old: 7, counted_at: world.now };
    let counted = Described { share: Some(share), ..rotated.clone() };
    assert!(world.described(&counted).unwrap().outbox.is_empty());
    assert_eq!(due(&world), None);
    // Who did not count says nothing about it.
    assert_eq!(world.described(&rotated).unwrap_err(), Refusal::Redundant);
    assert_eq!(world.policy.keys[&region(DUBLIN)].outlook.as_ref().unwrap().described.share, Some(share));
    world.now += SignedDuration::from_hours(7 * 24);
    assert_eq!(due(&world), Some(rotated_at));
    let none = MaterialShare { data_keys: 10, under_old: 0, counted_at: world.now };
    world.described(&Described { share: Some(none), ..rotated.clone() }).unwrap();
    world.now += SignedDuration::from_hours(30 * 24);
    assert_eq!(due(&world), None, "nothing is left to fall");
    // Another rotation makes what was counted before worthless.
    world.described(&Described { material: Some("m3".to_owned()), ..healthy() }).unwrap();
    assert_eq!(due(&world), Some(world.now));
}

#[test]
fn k2_a_count_is_good_for_a_week_and_from_the_moment_of_the_rotation() {
    let mut world = World::active();
    world.described(&healthy()).unwrap();
    world.now += SignedDuration::from_hours(24);
    let share = MaterialShare { data_keys: 10, under_old: 7, counted_at: world.now };
    let counted = Described { material: Some("m2".to_owned()), share: Some(share), ..healthy() };
    world.described(&counted).unwrap();
    let rotated_at = world.now;
    let outlook = world.policy.keys[&region(DUBLIN)].outlook.as_ref().unwrap();
    let week = SignedDuration::from_hours(7 * 24);
    let second = SignedDuration::from_secs(1);
    for (now, due) in
        [(rotated_at, None), (rotated_at + week - second, None), (rotated_at + week, Some(rotated_at))]
    {
        assert_eq!(outlook.count_since(now), due, "{now}");
    }
}

#[test]
fn k4_imported_material_that_expires_is_warned_of_at_once_and_again_before_it_takes_effect() {
    let mut world = World::active();
    world.described(&healthy()).unwrap();
    let expires = Described { material_expires_at: at("2027-01-22T09:00:00Z"), ..healthy() };
    let warned = world.described(&expires).unwrap();
    let Effect::OpenTicket { title, body, .. } = &warned.outbox[0].effect else { panic!("no ticket") };
    assert_eq!(title, "CMK keys need attention in AWS account 222222222222");
    assert!(body.contains("2027-01-22T09:00:00Z") && body.contains("import-key-material"), "{body}");
    assert!(world.policy.fence.is_open() && !world.policy.is_degraded(), "a warning changes nothing else");
    assert_eq!(world.described(&expires).unwrap_err(), Refusal::Redundant);
    // Thirty days, seven and one before: once each, however often somebody looks.
    let mut told = 0;
    for _ in 0..59 * 24 {
        world.now += SignedDuration::from_hours(1);
        match world.described(&expires) {
            Ok(decision) => {
                assert!(
                    matches!(decision.outbox[..], [ref row] if matches!(row.effect, Effect::CommentTicket { .. }))
                );
                told += 1;
            }
            Err(refusal) => assert_eq!(refusal, Refusal::Redundant),
        }
    }
    assert_eq!(told, 3);
    let healed = world.described(&healthy()).unwrap();
    assert!(matches!(healed.outbox[0].effect, Effect::ResolveTicket { .. }));
    assert_eq!(world.policy.warning, None);
}

#[test]
fn k4_the_day_after_which_a_key_cannot_be_brought_back_is_told_while_it_is_suspended() {
    let mut world = World::suspended();
    let deleted = Described { deleted_at: at("2026-12-24T00:00:00Z"), ..Described::default() };
    let warned = world.described(&deleted).unwrap();
    let Effect::OpenTicket { body, .. } = &warned.outbox[0].effect else { panic!("no ticket") };
    assert!(body.contains("cancel-key-deletion"), "{body}");
    let countdowns = world.policy.keys[&region(DUBLIN)].outlook.as_ref().unwrap().described.countdowns();
    assert_eq!(countdowns[0].what, RunsOut::Deletion);
    assert!(world.is_suspended());
    let mut requested = World::requested();
    assert!(matches!(requested.described(&deleted).unwrap_err(), Refusal::IllegalForState { .. }));
}

#[test]
fn k4_a_reminder_is_told_once_at_its_very_moment_and_none_when_everything_is_over() {
    let mut world = World::active();
    let over = at("2027-01-22T09:00:00Z").unwrap();
    let expires = Described { material_expires_at: Some(over), ..healthy() };
    world.described(&expires).unwrap();
    world.now = over - SignedDuration::from_hours(7 * 24);
    assert!(world.described(&expires).is_ok());
    world.later(60);
    assert_eq!(world.described(&expires).unwrap_err(), Refusal::Redundant);
    // The reminder of the last day was missed; what it reminds of is there.
    world.now = over;
    assert_eq!(world.described(&expires).unwrap_err(), Refusal::Redundant);
}

#[test]
fn e12_a_key_that_lets_others_in_is_warned_of_with_what_closes_it_and_again_when_it_is_closed() {
    let mut world = World::active();
    let none = Described { loopholes: Some([].into()), ..healthy() };
    let open = Described { loopholes: Some([Loophole::ContextCondition].into()), ..healthy() };
    assert!(world.described(&none).unwrap().outbox.is_empty());
    let warned = world.described(&open).unwrap();
    let Effect::OpenTicket { body, .. } = &warned.outbox[0].effect else { panic!("no ticket") };
    assert!(body.contains("eu-west-1: ") && body.contains("put-key-policy"), "{body}");
    assert!(world.policy.fence.is_open(), "nobody is cut off by it");
    let closed = world.described(&none).unwrap();
    let Effect::ResolveTicket { body, .. } = &closed.outbox[0].effect else { panic!("it stays open") };
    assert!(body.contains("refuses again what does not come for your organisation"), "{body}");
}
