//! The prober reports; the fence closes.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::effect::Effect;
use crate::fence::{Cause, Epoch};
use crate::observation::ProbeRound;
use crate::policy::{EncryptionPolicy, KeyHealth, Lifecycle};
use crate::values::Region;

use super::health::{believe, fresh, observed, revoked, within_window};
use super::restoration::newly_told;
use super::telling::{key_lines, tell, tell_of_regions};
use super::{Change, Refusal, Rules, illegal};

pub(super) fn probes_reported(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    rounds: &[ProbeRound],
    now: Timestamp,
) -> Result<Change, Refusal> {
    let Some(last) = rounds.last() else {
        return Err(Refusal::Redundant);
    };
    fresh(rules, policy, last, now)?;
    let seen = observed(rules, policy, last);
    let mut next = policy.clone();
    let changed = believe(&mut next, &seen, last.started_at);
    match policy.lifecycle {
        Lifecycle::Active { .. } => {
            if proven_revoked(rules, policy, rounds, &seen) {
                return Ok(cut_off(rules, next, now));
            }
            if !changed {
                return Err(Refusal::Redundant);
            }
            let effects = tell_of_regions(rules, policy, &mut next, now);
            Ok(Change { next, effects })
        }
        // Spec S6: the fence is still closed, so going back costs nothing but saying so.
        Lifecycle::Restoring { cut_off_at, .. } => {
            if proven_revoked(rules, policy, rounds, &seen) {
                return Ok(back_to_suspended(next, cut_off_at));
            }
            if changed { Ok(Change { next, effects: Vec::new() }) } else { Err(Refusal::Redundant) }
        }
        Lifecycle::Suspended { .. } | Lifecycle::Lapsed { .. } => {
            if changed {
                Ok(Change { next, effects: Vec::new() })
            } else {
                Err(Refusal::Redundant)
            }
        }
        Lifecycle::Requested { .. }
        | Lifecycle::Verifying { .. }
        | Lifecycle::Closed { .. }
        | Lifecycle::Rejected { .. } => illegal(policy),
    }
}

/// Whether two rounds within the window both amount to a revocation.
pub(super) fn proven_revoked(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    rounds: &[ProbeRound],
    seen: &BTreeMap<Region, KeyHealth>,
) -> bool {
    let [.., first, second] = rounds else {
        return false;
    };
    within_window(rules, first, second)
        && revoked(rules, &observed(rules, policy, first))
        && revoked(rules, seen)
}

/// The cut-off (spec R5, R6): the fence closes in the transaction that commits this.
pub(super) fn cut_off(rules: &Rules<'_>, mut next: EncryptionPolicy, now: Timestamp) -> Change {
    next.lifecycle = Lifecycle::Suspended { cut_off_at: now };
    next.fence = next.fence.closed_by(Cause::Key, now);
    let epoch = next.fence.epoch;
    let body = format!(
        "Access to the data of this organisation is cut off since {now:.0}: every required regional key \
         refuses.\n{}\nTo restore access: give every key back, then ask for restoration on this ticket.",
        key_lines(&next)
    );
    let mut effects = Vec::new();
    tell(rules, &mut next, body, now, &mut effects);
    effects.push(Effect::SuspendInstances { epoch });
    Change { next, effects }
}

pub(super) fn back_to_suspended(mut next: EncryptionPolicy, cut_off_at: Timestamp) -> Change {
    next.lifecycle = Lifecycle::Suspended { cut_off_at };
    let body = format!(
        "The restoration stopped: the keys refuse again.\n{}\nNothing was lost; ask again when every key is back.",
        key_lines(&next)
    );
    let effects = next.ticket.map(|ticket| Effect::CommentTicket { ticket, body });
    Change { next, effects: effects.into_iter().collect() }
}

pub(super) fn instances_suspended(
    policy: &EncryptionPolicy,
    epoch: Epoch,
    instances: u64,
) -> Result<Change, Refusal> {
    newly_told(policy, epoch)?;
    // A fan-out may end while a restoration is asked for already: the fence is closed in both states, and if the
    // restoration stops, nobody would say again that every instance was told.
    let (Lifecycle::Suspended { .. } | Lifecycle::Restoring { .. }) = policy.lifecycle else {
        return illegal(policy);
    };
    let mut next = policy.clone();
    next.told = epoch;
    let body = format!("Every app instance was told to stop: {instances}.");
    let effects = next.ticket.map(|ticket| Effect::CommentTicket { ticket, body });
    Ok(Change { next, effects: effects.into_iter().collect() })
}
