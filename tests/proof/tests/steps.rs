//! Each step of each use case repeated, failed, and broken off before and after it took effect: the final state is as if
//! nothing had happened. One scenario alone: `cargo run -p claviger-proof -- steps --scenario "a mistake"`.

use std::collections::BTreeSet;

use claviger_proof::sim::{broken_on_two_threads, every_step};
use claviger_proof::twin::Twin;

#[test]
fn i4_each_step_repeated_failed_or_broken_off_leaves_everything_as_if_nothing_had_happened() {
    let all = every_step(None);
    let broken = broken_on_two_threads(&all, None);
    println!("proof steps runs={} violations={}", all.len(), broken.len());
    for one in &broken {
        println!("{:?}\n  {}", one.step, one.what);
    }
    assert!(broken.is_empty());
    let names: BTreeSet<&str> = all.iter().map(|step| step.name).collect();
    let wanted = CHANGES.iter().flat_map(|(file, of)| of.iter().map(move |name| (*file, *name)));
    let missing: Vec<_> = wanted.filter(|(_, name)| !names.contains(name)).collect();
    assert!(missing.is_empty(), "no scenario comes to these: {missing:?}");
}

#[test]
fn i4_an_effect_that_writes_again_when_it_is_delivered_again_is_caught() {
    let steps = every_step(Some("the vendor suspends and lifts"));
    let broken = broken_on_two_threads(&steps, Some(Twin::TicketForgetsEffects));
    let names: BTreeSet<&str> = broken.iter().map(|one| one.step.name).collect();
    println!("proof steps twin=ticket-forgets-effects runs={} caught={}", steps.len(), broken.len());
    assert!(names.contains("deliver-comment"), "{names:?}");
    // What does not write on tickets is as it was.
    assert!(broken.len() < steps.len() / 4, "{names:?}");
}

/// What changes something, and by which invocations of the scenarios it is looked at.
const CHANGES: [(&str, &[&str]); 46] = [
    ("access_requests", &["answer-access", "publish-template"]),
    ("acknowledge_order", &["acknowledge-order"]),
    ("add_instance_directly", &["add-instance-directly"]),
    ("carry_out_restoration", &["carry-out-restoration"]),
    (
        "carry_reencryption",
        &[
            "reencrypt",
            "step-of-job-preparing",
            "step-of-job-cancelling",
            "step-of-job-rewriting",
            "step-of-job-scanning",
            "step-of-job-waiting",
            "step-of-job-finishing",
            "take-up-jobs",
        ],
    ),
    ("close_organisation", &["close-organisation"]),
    (
        "deliver_effect",
        &[
            "deliver-comment",
            "deliver-effect",
            "deliver-order-to-app",
            "deliver-resolution",
            "deliver-ticket",
            "sweep-outbox",
        ],
    ),
    ("describe_keys", &["describe-shard"]),
    ("enrol", &["enrol"]),
    ("erase_data_keys", &["erase-data-keys", "page-of-erasure"]),
    ("erase_instance", &["erase-instance"]),
    ("fan_out", &["restore-instances", "suspend-instances", "page-of-instances"]),
    ("follow_hint", &["follow-hint", "follow-up"]),
    ("hand_out_data_key", &["hand-out-data-key"]),
    ("hear_key_event", &["hear-key-event"]),
    ("hint_budget", &["hear-key-event"]),
    ("make_keys", &["verify-policy", "reencrypt"]),
    ("make_data_key", &["provision-instance", "make-newer-data-key"]),
    ("make_newer_data_key", &["make-newer-data-key"]),
    ("make_replacement", &["request-replacement"]),
    ("move_data_keys", &["step-of-job-preparing", "step-of-job-finishing"]),
    ("pass_deadlines", &["pass-deadlines"]),
    ("prove_restoration", &["prove-restoration", "page-of-data-keys"]),
    ("provision_instance", &["provision-instance"]),
    ("put_organisation", &["put-organisation"]),
    ("register_backup", &["register-backup"]),
    ("reencryption", &["step-of-job-preparing"]),
    ("remove_data_keys", &["remove-data-keys", "page-of-removal"]),
    ("replace_key", &["replace-key"]),
    ("report_probes", &["sweep", "follow-hint", "follow-up"]),
    ("request_instance", &["request-instance"]),
    ("request_reencryption", &["request-reencryption"]),
    ("request_replacement", &["request-replacement"]),
    ("request_restoration", &["ask-for-restoration"]),
    ("rewrite_shard", &["rewrite-shard"]),
    ("see_to_undelivered", &["see-to-undelivered"]),
    ("settle", &["steer-reencryption", "close-organisation"]),
    ("sites", &["delete-site", "keep-site", "rename-site"]),
    ("steer_reencryption", &["steer-reencryption"]),
    ("support_requests", &["decide-requests"]),
    ("suspend_by_vendor", &["call-it-a-mistake", "lift-by-vendor", "suspend-by-vendor"]),
    ("sweep", &["plan-sweeps", "sweep"]),
    ("tickets", &["carry-out-restoration"]),
    ("unwrap_data_keys", &["page-of-data-keys"]),
    ("verify_policy", &["verify-policy"]),
    ("webhooks", &["deliver-effect", "deliver-webhook"]),
];

/// What has no steps of its own: it reads, checks, words, or says how something is passed on.
const READS: [&str; 26] = [
    "as_of",
    "check_enrolment",
    "error",
    "explain_refusal",
    "lib",
    "list_instances",
    "mass_failure",
    "messages",
    "ports",
    "preview_revocation",
    "probe_in_lanes",
    "probe_keys",
    "probe_now",
    "promises",
    "prove_permissions",
    // It stores when the last proof was, which is a time and no state: asked again, it proves again.
    "prove_policies",
    "read_audit",
    "request_error",
    "settings",
    "show_key_policy",
    "show_policy",
    "show_reencrypted_instances",
    "show_reencryption",
    "unwrapped_keys",
    // Counts of calls, which are of this process and no state of the system. What becomes of a count whose writing failed,
    // gave no answer or was repeated: shared/app/tests/requests/usage.rs, shared/aws/tests/ports/usage.rs.
    "usage",
    "validate_enrolment",
];

#[test]
fn i4_every_use_case_is_among_them() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/app/src");
    let files = std::fs::read_dir(folder).expect("the use cases");
    let there: BTreeSet<String> =
        files.filter_map(|file| Some(file.ok()?.path().file_stem()?.to_str()?.to_owned())).collect();
    let known: BTreeSet<String> =
        CHANGES.iter().map(|(file, _)| *file).chain(READS).map(str::to_owned).collect();
    assert_eq!(
        there, known,
        "say of each use case by which invocations it is looked at, or why it has no steps"
    );
}
