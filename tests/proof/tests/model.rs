//! The exhaustive check, bounded: one configuration to its own end, larger ones so far; `cargo run -p claviger-proof -- model --deep` goes further.

use claviger_proof::model::{BOUNDED, Bounds, Found, Mind, Production, explore, explore_pair, twins};

const ONE: Bounds = Bounds {
    regions: 1,
    changes: 2,
    faults: 1,
    support: 0,
    ticks: 2,
    probes: 2,
    waiting: usize::MAX,
    states: 6_000,
};
/// The vendor suspends and lifts, and agents call suspensions mistakes, at every moment.
const SUPPORT: Bounds = Bounds { faults: 0, support: 3, ticks: 0, ..ONE };

#[test]
fn i1_to_i5_and_i7_hold_in_every_state_and_a_fair_drain_ends_as_the_keys_say() {
    let (mut states, mut whole) = (0, 0);
    for search in BOUNDED {
        let found = search.run(&Production);
        assert!(found.violation.is_none(), "{search}: {:#?}", found.violation);
        assert!(found.complete || !search.complete, "{search} did not reach its own end");
        states += found.states;
        whole += usize::from(search.complete);
    }
    println!("proof model states={states} violations=0");
    assert!(whole > 0, "no configuration is explored to its end");
}

fn caught(invariant: &str, mind: &dyn Mind, bounds: Bounds) {
    is_found(invariant, &explore(mind, Bounds { states: 200_000, ..bounds }));
}

fn is_found(invariant: &str, found: &Found) {
    let broken = found.violation.as_ref().map(|(invariant, _, _)| *invariant);
    println!("proof twin invariant={invariant} caught={}", broken == Some(invariant));
    assert_eq!(broken, Some(invariant), "{:#?}", found.violation);
}

#[test]
fn i1_a_lease_that_counts_from_the_answer_is_found() {
    let bounds = Bounds { regions: 1, changes: 1, faults: 0, ticks: 6, ..ONE };
    caught("I1", &twins::LeaseFromAnswer, bounds);
}

#[test]
fn i2_a_decision_that_takes_throttling_for_a_refusal_is_found() {
    caught("I2", &twins::ThrottlingRefuses, Bounds { changes: 0, ..ONE });
}

#[test]
fn i3_a_decision_that_is_never_sure_is_found() {
    caught("I3", &twins::NeverEnough, ONE);
}

#[test]
fn i4_an_order_that_is_applied_whatever_its_epoch_is_found() {
    caught("I4", &twins::AnyEpoch, ONE);
}

#[test]
fn i5_a_request_that_anybody_may_make_is_found() {
    caught("I5", &twins::AnybodyAsks, Bounds { changes: 2, faults: 0, ticks: 1, ..ONE });
}

#[test]
fn i7_an_effect_that_is_addressed_to_another_organisation_is_found() {
    is_found("I7", &explore_pair(&twins::WrongAddress, Bounds { changes: 1, faults: 0, ..ONE }));
}

#[test]
fn s7_one_agent_who_counts_as_two_is_found() {
    caught("I5", &twins::OneAgentTwice, SUPPORT);
}
