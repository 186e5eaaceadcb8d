//! The audit log of a run replays to the same facts; a log that was altered, or that other code wrote, does not.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use claviger_proof::conform::replay;
use claviger_proof::sim::{Options, run_with_log};
use claviger_testkit::builders;

fn log() -> String {
    let (outcome, log) = run_with_log(Options { seed: 1, episodes: 6, twin: None, traced: false });
    assert!(outcome.violations.is_empty());
    log
}

#[test]
fn i4_the_log_of_a_run_replays_to_the_same_facts() {
    let found = replay(&builders::rules(), &log());
    println!("proof conformance facts={} divergences={}", found.facts, found.divergences.len());
    assert!(found.facts > 50 && found.streams >= 9, "{found:?}");
    assert!(found.divergences.is_empty(), "{:#?}", found.divergences);
}

#[test]
fn i4_a_fact_that_was_altered_or_left_out_shows() {
    let log = log();
    let altered = log.replacen("\"state\":\"active\"", "\"state\":\"closed\"", 1);
    assert!(!replay(&builders::rules(), &altered).divergences.is_empty());
    let line = log.lines().position(|line| line.contains("\"seq\":2,")).unwrap();
    let without: Vec<&str> =
        log.lines().enumerate().filter(|(number, _)| *number != line).map(|(_, line)| line).collect();
    assert!(!replay(&builders::rules(), &without.join("\n")).divergences.is_empty());
}

#[test]
fn i4_a_log_that_was_decided_by_other_rules_shows() {
    let mut rules = builders::rules();
    rules.freshness = jiff::SignedDuration::from_millis(-1);
    assert!(!replay(&rules, &log()).divergences.is_empty());
}
