//! The checks can fail: each broken twin of the system is caught by the invariant that it breaks.

use claviger_proof::sim::{Options, run};
use claviger_proof::twin::Twin;

/// Seeds until the first violation: how soon a defect shows depends on chance, that it shows does not.
fn caught(twin: Twin) {
    let violation = (0..40).find_map(|seed| {
        let outcome = run(Options { seed, episodes: 12, twin: Some(twin), traced: false });
        outcome.violations.into_iter().next()
    });
    let invariant = violation.as_ref().map(|violation| violation.invariant);
    println!("proof twin invariant={} caught={}", twin.invariant(), invariant == Some(twin.invariant()));
    assert_eq!(invariant, Some(twin.invariant()), "{violation:?}");
}

#[test]
fn i1_a_lease_that_counts_from_after_the_read_is_caught() {
    caught(Twin::LeaseFromAfterTheRead);
}

#[test]
fn i2_an_error_table_that_takes_throttling_for_a_refusal_is_caught() {
    caught(Twin::ThrottlingIsRefusal);
}

#[test]
fn i3_a_beat_without_a_sweep_is_caught() {
    caught(Twin::DeadWatcherBeats);
}

#[test]
fn i4_an_order_that_is_applied_whatever_its_epoch_is_caught() {
    caught(Twin::EpochIgnored);
}

#[test]
fn i5_a_support_agent_who_can_ask_for_restoration_is_caught() {
    caught(Twin::SupportOpens);
}

#[test]
fn i7_a_broker_that_does_not_ask_who_asks_is_caught() {
    caught(Twin::OwnerInsteadOfCaller);
}
