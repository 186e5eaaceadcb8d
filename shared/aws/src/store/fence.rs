//! The fence as the data plane reads it.
//!
//! A policy's item: `organisation` (opaque id), `epoch`, `causes` (a string set; absent when open), `minWriteGeneration`,
//! `changedAt`, and, once open again, `expiresAt`.

use aws_sdk_dynamodb::types::AttributeValue;
use claviger_domain::policy::EncryptionPolicy;
use jiff::SignedDuration;

use super::items::{Item, millis_text, number, text};
use super::names::{COPY, EXPIRES_AT, ITEM, fence_policy};

/// How long an open item stays, for processes that slept meanwhile. One that slept longer wipes everything it holds
/// (design, point 5).
const HORIZON: SignedDuration = SignedDuration::from_hours(24);

/// One copy of a policy's item.
pub(super) fn policy_item(copy: u16, policy: &EncryptionPolicy) -> Item {
    let fence = &policy.fence;
    let mut item = Item::from([
        (COPY.to_owned(), text(copy)),
        (ITEM.to_owned(), AttributeValue::S(fence_policy(policy.id))),
        ("organisation".to_owned(), text(policy.organisation)),
        ("epoch".to_owned(), number(fence.epoch.0)),
        ("minWriteGeneration".to_owned(), number(fence.min_write_generation)),
    ]);
    if let Some(at) = fence.changed_at {
        item.insert("changedAt".to_owned(), AttributeValue::S(millis_text(at)));
    }
    if fence.is_open() {
        let ends = fence.changed_at.and_then(|at| at.checked_add(HORIZON).ok());
        // INVARIANT (design, point 11): while old generations are refused, stores must be able to see it.
        if let Some(ends) = ends.filter(|_| fence.min_write_generation == 0) {
            item.insert(EXPIRES_AT.to_owned(), number(ends.as_second()));
        }
    } else {
        let causes = fence.causes.iter().map(|cause| cause.slug().to_owned()).collect();
        item.insert("causes".to_owned(), AttributeValue::Ss(causes));
    }
    item
}
