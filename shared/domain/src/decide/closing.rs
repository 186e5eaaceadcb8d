//! An organisation leaves (spec E11): asked for, approved, a time for the export, access ended, keys erased. The cause
//! stands beside the others: a revocation or a suspension by the vendor comes and goes meanwhile by its own rule.

use jiff::{SignedDuration, Timestamp};

use crate::catalogue::Mode;
use crate::closing::{Closing, ClosingMoment, ClosingStage, Counted, Erasure, due};
use crate::effect::Effect;
use crate::event::{Actor, Origin};
use crate::fact::derived_ticket_id;
use crate::fence::Cause;
use crate::policy::{EncryptionPolicy, Lifecycle};

use super::{Change, Refusal, Rules, illegal};

pub(super) fn closing_asked(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    origin: &Origin,
    now: Timestamp,
) -> Result<Change, Refusal> {
    let Actor::OrgAdmin(by) = &origin.actor else {
        return Err(Refusal::Forbidden { who: "an org admin" });
    };
    if !policy.lifecycle.is_watched() {
        return illegal(policy);
    }
    if policy.closing.is_some() {
        return Err(Refusal::Redundant);
    }
    let mut next = policy.clone();
    let ticket = derived_ticket_id(next.id.as_uuid(), next.audit.seq.saturating_add(1), now);
    let title = rules.title(&next, |mode| &mode.closing_title);
    let (stage, body) = if rules.catalogue.self_service_approval {
        let until = export_until(rules, now);
        (ClosingStage::Exporting { until, told: now }, exporting(until))
    } else {
        let due_at = super::enrolment::due(rules, now);
        let body = format!(
            "An org admin asked to leave. Support approves it, by {due_at:.0} at the latest; then the time for your \
             export begins, {} days. Until that is over it can be cancelled: `POST \
             .../encryption-policy/close/cancel`. There are no new apps meanwhile.",
            rules.catalogue.closing.export_days
        );
        (ClosingStage::Asked { due_at }, body)
    };
    next.closing = Some(Closing { asked_at: now, by: by.clone(), ticket, stage });
    Ok(Change { next, effects: vec![Effect::OpenTicket { ticket, title, body }] })
}

pub(super) fn closing_approved(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    origin: &Origin,
    now: Timestamp,
) -> Result<Change, Refusal> {
    let Actor::Support(_) = origin.actor else {
        return Err(Refusal::Forbidden { who: "a support agent" });
    };
    let closing = under_way(policy)?;
    match closing.stage {
        ClosingStage::Asked { .. } => {}
        ClosingStage::Exporting { .. } | ClosingStage::Erasing { .. } => return Err(Refusal::Redundant),
    }
    let until = export_until(rules, now);
    let stage = ClosingStage::Exporting { until, told: now };
    let effects = vec![Effect::CommentTicket { ticket: closing.ticket, body: exporting(until) }];
    let next = EncryptionPolicy { closing: Some(Closing { stage, ..closing.clone() }), ..policy.clone() };
    Ok(Change { next, effects })
}

pub(super) fn closing_rejected(
    policy: &EncryptionPolicy,
    reason: &str,
    origin: &Origin,
) -> Result<Change, Refusal> {
    let Actor::Support(_) = origin.actor else {
        return Err(Refusal::Forbidden { who: "a support agent" });
    };
    let closing = under_way(policy)?;
    let ClosingStage::Asked { .. } = closing.stage else {
        return illegal(policy);
    };
    Ok(ended(
        policy,
        closing,
        format!("Support did not approve the closing: {reason} Everything stays as it is."),
    ))
}

pub(super) fn closing_cancelled(policy: &EncryptionPolicy, origin: &Origin) -> Result<Change, Refusal> {
    let Actor::OrgAdmin(_) = origin.actor else {
        return Err(Refusal::Forbidden { who: "an org admin" });
    };
    // What was cancelled before, or never asked for: nothing is closing.
    let closing = under_way(policy)?;
    match closing.stage {
        ClosingStage::Asked { .. } | ClosingStage::Exporting { .. } => {}
        // INVARIANT (I5): the cause `closing` is never lifted; some wraps are gone already.
        ClosingStage::Erasing { .. } => return Err(Refusal::ErasureBegan),
    }
    Ok(ended(policy, closing, "An org admin cancelled the closing. Everything stays as it is.".to_owned()))
}

/// The clock decides, not the message: one that is late, early, doubled or made up finds another moment due, or none.
pub(super) fn closing_moment_came(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    moment: ClosingMoment,
    now: Timestamp,
) -> Result<Change, Refusal> {
    let closing = under_way(policy)?;
    match due(&rules.catalogue.closing, policy, now) {
        None => return Err(Refusal::Redundant),
        Some(due) if due != moment => return Err(Refusal::Stale),
        Some(_) => {}
    }
    let ClosingStage::Exporting { until, .. } = closing.stage else {
        return Err(Refusal::Redundant);
    };
    let (ticket, mut next) = (closing.ticket, policy.clone());
    match moment {
        ClosingMoment::Reminder { at } => {
            let stage = ClosingStage::Exporting { until, told: at };
            next.closing = Some(Closing { stage, ..closing.clone() });
            let body = format!("Reminder: {}", exporting(until));
            Ok(Change { next, effects: vec![Effect::CommentTicket { ticket, body }] })
        }
        ClosingMoment::ExportEnds { .. } => {
            let was_open = next.fence.is_open();
            next.fence = next.fence.closed_by(Cause::Closing, now);
            let stage = ClosingStage::Erasing { since: now, counted: None };
            next.closing = Some(Closing { stage, ..closing.clone() });
            let body =
                "The time for the export is over: access ends now, and every wrapped data key is deleted.";
            let mut effects = vec![Effect::CommentTicket { ticket, body: body.to_owned() }];
            // Behind a fence that is closed already everybody was told, or is being told, in the same epoch.
            if was_open {
                effects.push(Effect::SuspendInstances { epoch: next.fence.epoch });
            }
            effects.push(Effect::EraseDataKeys);
            Ok(Change { next, effects })
        }
    }
}

/// An admin came back to an organisation in which nobody could cancel: until the end of the export there is at least as
/// much time as the first reminder leaves.
pub(super) fn time_to_cancel(
    rules: &Rules<'_>,
    policy: &mut EncryptionPolicy,
    now: Timestamp,
) -> Option<Effect> {
    let days = rules.catalogue.closing.remind_days_before.iter().max().copied().unwrap_or_default();
    let at_least = now + SignedDuration::from_hours(24 * i64::from(days));
    let closing = policy.closing.as_mut()?;
    let ClosingStage::Exporting { until, .. } = closing.stage else {
        return None;
    };
    if until >= at_least {
        return None;
    }
    closing.stage = ClosingStage::Exporting { until: at_least, told: now };
    Some(Effect::CommentTicket { ticket: closing.ticket, body: exporting(at_least) })
}

/// What there is was counted; from now on it goes.
pub(super) fn data_keys_counted(policy: &EncryptionPolicy, found: Counted) -> Result<Change, Refusal> {
    let closing = under_way(policy)?;
    let ClosingStage::Erasing { since, counted } = closing.stage else {
        return illegal(policy);
    };
    if counted.is_some() {
        return Err(Refusal::Redundant);
    }
    let stage = ClosingStage::Erasing { since, counted: Some(found) };
    let next = EncryptionPolicy { closing: Some(Closing { stage, ..closing.clone() }), ..policy.clone() };
    Ok(Change { next, effects: Vec::new() })
}

/// Nothing is left that any key could unwrap.
pub(super) fn data_keys_erased(policy: &EncryptionPolicy, now: Timestamp) -> Result<Change, Refusal> {
    if let Lifecycle::Closed { .. } = policy.lifecycle {
        return Err(Refusal::Redundant);
    }
    let closing = under_way(policy)?;
    let ClosingStage::Erasing { since, counted: Some(counted) } = closing.stage else {
        return illegal(policy);
    };
    let mut next = policy.clone();
    next.lifecycle = Lifecycle::Closed { at: now };
    next.closing = None;
    next.erasure = Some(Erasure {
        asked_at: closing.asked_at,
        access_ended_at: since,
        erased_at: now,
        counted,
        ticket: closing.ticket,
    });
    // The canaries were made under the customer's keys too.
    for key in next.keys.values_mut() {
        key.canary = None;
        key.replacement = None;
    }
    next.refused_unwrap = None;
    next.lift = None;
    let body = format!(
        "The organisation is closed: {} data keys of {} app instances are deleted with all their \
         wraps, so nothing that was encrypted under them can be read by anybody. The statement: `GET \
         .../encryption-policy/erasure-statement`.\n{}",
        counted.data_keys,
        counted.instances,
        advice(policy).join("\n")
    );
    let over = "The organisation is closed.".to_owned();
    let others = [next.ticket.take(), next.warning.take(), next.vendor.as_ref().map(|vendor| vendor.ticket)];
    let mut effects = vec![Effect::ResolveTicket { ticket: closing.ticket, body }];
    let resolved = others.into_iter().flatten();
    effects.extend(resolved.map(|ticket| Effect::ResolveTicket { ticket, body: over.clone() }));
    Ok(Change { next, effects })
}

/// What the organisation does with its keys afterwards.
pub fn advice(policy: &EncryptionPolicy) -> Vec<String> {
    let mut lines = vec![
        "Your keys are yours and were not touched. Nothing of ours needs them any more; exports and backups that you \
         made under them yourselves still do, so look for those first."
            .to_owned(),
        "If nothing needs a key, have it deleted; until the waiting time is over you can take that back:".to_owned(),
    ];
    lines.extend(policy.keys.values().map(|key| {
        format!(
            "`aws kms schedule-key-deletion --key-id {} --region {} --pending-window-in-days 30`",
            key.arn,
            key.arn.region()
        )
    }));
    lines.push(match policy.mode() {
        Mode::Cmk => {
            "If you keep them, take the statements `ClavigerUse` and `ClavigerDescribe` out of their key \
                      policies, and the rules that forward events to us out of your account."
                .to_owned()
        }
        Mode::Byok => {
            "Delete the key-management role that let us in, and the rules that forward events to us: \
                       nothing else of ours is in your account but the keys."
                .to_owned()
        }
    });
    lines
}

fn under_way(policy: &EncryptionPolicy) -> Result<&Closing, Refusal> {
    policy.closing.as_ref().ok_or(Refusal::NotClosing)
}

fn ended(policy: &EncryptionPolicy, closing: &Closing, body: String) -> Change {
    let effects = vec![Effect::ResolveTicket { ticket: closing.ticket, body }];
    Change { next: EncryptionPolicy { closing: None, ..policy.clone() }, effects }
}

fn export_until(rules: &Rules<'_>, now: Timestamp) -> Timestamp {
    now + SignedDuration::from_hours(24 * i64::from(rules.catalogue.closing.export_days))
}

fn exporting(until: Timestamp) -> String {
    format!(
        "export your data until {until:.0}. Then access ends, every wrapped data key is deleted, and what is encrypted \
         can be read by nobody, for good. Until then an org admin can cancel it: `POST \
         .../encryption-policy/close/cancel`."
    )
}
