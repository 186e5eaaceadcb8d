//! The word that is shown for a thing is the word under which it is stored: who reads an audit log finds what the
//! console said.

use claviger_domain::catalogue::Mode;
use claviger_domain::closing::{Closing, ClosingStage};
use claviger_domain::event::InstanceEvent;
use claviger_domain::fence::Cause;
use claviger_domain::instance::InstanceStatus;
use claviger_domain::outlook::Loophole;
use claviger_domain::policy::Lifecycle;
use claviger_domain::reencryption::{Depth, Phase};
use claviger_domain::values::Subject;
use jiff::Timestamp;
use serde_json::{Value, json};

#[test]
fn what_happened_to_an_instance_is_stored_under_the_word_that_is_shown() {
    let policy = "00000000-0000-0000-0000-000000000001";
    for stored in [
        json!({"event": "instance-approved"}),
        json!({"event": "instance-rejected", "reason": "r"}),
        json!({"event": "instance-provisioned", "epoch": 1}),
        json!({"event": "suspension-ordered", "epoch": 1}),
        json!({"event": "restoration-ordered", "epoch": 1}),
        json!({"event": "family-suspension-ordered", "epoch": 1, "policy": policy}),
        json!({"event": "family-restoration-ordered", "epoch": 1, "policy": policy}),
        json!({"event": "order-acknowledged", "epoch": 1, "evicted": 2}),
        json!({"event": "site-renamed", "from": "acme-eng", "to": "acme-ops"}),
        json!({"event": "site-deleted", "eraseAt": "2027-01-01T00:00:00Z", "title": "t"}),
        json!({"event": "site-deletion-cancelled"}),
        json!({"event": "site-deletion-due"}),
        json!({"event": "data-keys-counted", "dataKeys": 3}),
        json!({"event": "data-keys-erased"}),
    ] {
        let event: InstanceEvent = serde_json::from_value(stored.clone()).unwrap();
        assert_eq!(Value::from(event.slug()), stored["event"]);
        assert_eq!(serde_json::to_value(&event).unwrap(), stored);
    }
}

#[test]
fn the_stage_of_a_closing_is_stored_under_the_word_that_is_shown() {
    let at: Timestamp = "2027-01-01T00:00:00Z".parse().unwrap();
    for stage in [
        ClosingStage::Asked { due_at: at },
        ClosingStage::Exporting { until: at, told: at },
        ClosingStage::Erasing { since: at, counted: None },
    ] {
        let closing = Closing {
            asked_at: at,
            by: "ada".parse().unwrap(),
            ticket: claviger_domain::ids::TicketId::from_uuid(uuid::Uuid::from_u128(1)),
            stage,
        };
        assert_eq!(Value::from(closing.slug()), serde_json::to_value(&closing).unwrap()["stage"]);
    }
}

#[test]
fn a_cause_a_mode_and_a_depth_are_stored_as_the_words_that_are_shown() {
    for cause in [Cause::Key, Cause::Vendor, Cause::Closing] {
        assert_eq!(json!(cause), cause.slug());
    }
    for mode in [Mode::Byok, Mode::Cmk] {
        assert_eq!(json!(mode), mode.slug());
    }
    for depth in [Depth::Rekey, Depth::Rewrap] {
        assert_eq!(json!(depth), depth.slug());
        assert_eq!(depth.slug().parse::<Depth>().unwrap(), depth);
    }
    assert!("all".parse::<Depth>().is_err());
    for loophole in [Loophole::ContextCondition, Loophole::ExternalIdEnforced] {
        assert_eq!(json!(loophole), loophole.slug());
    }
}

#[test]
fn the_phase_of_a_reencryption_is_stored_under_the_word_that_is_shown() {
    let clean_since: Timestamp = "2027-01-01T00:00:00Z".parse().unwrap();
    for (phase, pass, switched) in [
        (Phase::Preparing, None, false),
        (Phase::Cancelling, None, false),
        (Phase::Rewriting { pass: 2 }, Some(2), true),
        (Phase::Scanning { pass: 3, clean_since: None }, Some(3), true),
        (Phase::Waiting { pass: 3, clean_since }, None, true),
        (Phase::Finishing, None, true),
    ] {
        assert_eq!(json!(phase)["phase"], phase.slug());
        assert_eq!((phase.pass(), phase.is_switched()), (pass, switched), "{}", phase.slug());
    }
}

#[test]
fn the_state_of_a_policy_and_of_an_instance_is_stored_under_the_word_that_is_shown() {
    let at: Timestamp = "2027-01-01T00:00:00Z".parse().unwrap();
    let by: Subject = "ada".parse().unwrap();
    for state in [
        Lifecycle::Requested { at, by: by.clone(), due_at: at },
        Lifecycle::Verifying { since: at, due_at: at },
        Lifecycle::Active { since: at },
        Lifecycle::Suspended { cut_off_at: at },
        Lifecycle::Restoring { since: at, cut_off_at: at, by: by.clone(), without: [].into() },
        Lifecycle::Lapsed { cut_off_at: at },
        Lifecycle::Closed { at },
        Lifecycle::Rejected { at, reason: "r".to_owned() },
    ] {
        assert_eq!(json!(state)["state"], state.slug());
    }
    for (status, encrypted, holds_place) in [
        (InstanceStatus::Requested { at, by, due_at: at }, false, true),
        (InstanceStatus::Provisioning { since: at, due_at: at }, false, true),
        (InstanceStatus::Active { since: at }, true, true),
        (InstanceStatus::Suspended { since: at }, true, true),
        (InstanceStatus::NotEncrypted { since: at, suspended_since: None }, false, true),
        (InstanceStatus::Rejected { at, reason: "r".to_owned() }, false, false),
        (InstanceStatus::Erasing { since: at, counted: None }, false, true),
        (InstanceStatus::Deleted { at, data_keys: 1 }, false, false),
    ] {
        let stored = json!(status)["state"].as_str().unwrap().to_lowercase();
        assert_eq!(stored, status.slug().replace('-', ""));
        assert_eq!(
            (status.is_encrypted(), status.holds_place()),
            (encrypted, holds_place),
            "{}",
            status.slug()
        );
    }
    let told_to_stop = InstanceStatus::NotEncrypted { since: at, suspended_since: Some(at) };
    assert_eq!(told_to_stop.slug(), "suspended", "what its users meet, though no key of it is refused");
}

#[test]
fn s3_the_cut_off_is_remembered_until_access_is_back_and_keys_are_watched_while_they_are_in_use() {
    let at: Timestamp = "2027-01-01T00:00:00Z".parse().unwrap();
    let cut_off_at: Timestamp = "2026-12-24T00:00:00Z".parse().unwrap();
    let by: Subject = "ada".parse().unwrap();
    for (state, remembered, watched) in [
        (Lifecycle::Requested { at, by: by.clone(), due_at: at }, None, false),
        (Lifecycle::Verifying { since: at, due_at: at }, None, false),
        (Lifecycle::Active { since: at }, None, true),
        (Lifecycle::Suspended { cut_off_at }, Some(cut_off_at), true),
        (Lifecycle::Restoring { since: at, cut_off_at, by, without: [].into() }, Some(cut_off_at), true),
        (Lifecycle::Lapsed { cut_off_at }, Some(cut_off_at), true),
        (Lifecycle::Closed { at }, None, false),
        (Lifecycle::Rejected { at, reason: "r".to_owned() }, None, false),
    ] {
        assert_eq!((state.cut_off_at(), state.is_watched()), (remembered, watched), "{}", state.slug());
    }
}
