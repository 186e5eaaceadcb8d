//! The word that is shown for a thing is the word under which it is stored: who reads an audit log finds what the
//! console said.

use claviger_domain::closing::{Closing, ClosingStage};
use claviger_domain::event::InstanceEvent;
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
    let at: jiff::Timestamp = "2027-01-01T00:00:00Z".parse().unwrap();
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
