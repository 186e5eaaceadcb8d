//! The checks can fail: each broken twin of the system is caught by the invariant that it breaks.

use claviger_proof::twin::Twin;

fn caught(twin: Twin) {
    let violation = twin.shows();
    let (line, caught) = twin.line(violation.as_ref());
    println!("{line}");
    assert!(caught, "{violation:?}");
}

#[test]
fn every_invariant_has_a_twin() {
    let broken = Twin::ALL.map(Twin::invariant);
    assert_eq!(broken, ["I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8"]);
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
fn i6_wraps_that_take_the_place_of_those_that_are_there_are_caught() {
    caught(Twin::NewWrapsInPlaceOfOld);
}

#[test]
fn i6_data_keys_that_go_with_the_first_of_several_backups_are_caught() {
    caught(Twin::FirstExpiryOnly);
}

#[test]
fn i6_a_backup_that_was_brought_back_and_forgotten_is_caught() {
    caught(Twin::BringsBackUnsaid);
}

#[test]
fn i7_a_broker_that_does_not_ask_who_asks_is_caught() {
    caught(Twin::OwnerInsteadOfCaller);
}

#[test]
fn i8_a_record_that_is_written_anew_whatever_became_of_it_is_caught() {
    caught(Twin::RewritesUnconditionally);
}
