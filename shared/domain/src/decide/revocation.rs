//! The prober reports; the fence closes.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::calendar::window_phase;
use crate::catalogue::WindowPhase;
use crate::effect::Effect;
use crate::fence::{Cause, Epoch};
use crate::heard::HeardChange;
use crate::observation::ProbeRound;
use crate::policy::{EncryptionPolicy, KeyHealth, Lifecycle};
use crate::values::Region;

use super::health::{a_key_refuses_for_certain, believe, fresh, observed, revoked, within_window};
use super::restoration::newly_told;
use super::telling::{heard_lines, key_lines, tell, tell_late, tell_of_regions};
use super::windows::window_lines;
use super::{Change, Refusal, Rules, illegal};

pub(super) fn probes_reported(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    rounds: &[ProbeRound],
    heard: &[HeardChange],
    now: Timestamp,
) -> Result<Change, Refusal> {
    let Some(last) = rounds.last() else {
        return Err(Refusal::Redundant);
    };
    fresh(rules, policy, last, now)?;
    let seen = observed(rules, policy, last);
    let mut next = policy.clone();
    let changed = believe(&mut next, &seen, last);
    match policy.lifecycle {
        Lifecycle::Active { .. } => {
            if proven_revoked(rules, policy, rounds, &seen) {
                return Ok(cut_off(rules, next, heard, now));
            }
            let mut effects =
                if changed { tell_of_regions(rules, policy, &mut next, heard, now) } else { Vec::new() };
            effects.extend(tell_late(&mut next, heard));
            changed_or_told(changed, next, effects)
        }
        // Spec S6: the fence is still closed, so going back costs nothing but saying so.
        Lifecycle::Restoring { cut_off_at, .. } => {
            if proven_revoked(rules, policy, rounds, &seen) {
                return Ok(back_to_suspended(rules, next, cut_off_at, heard, now));
            }
            let told = tell_late(&mut next, heard).into_iter().collect();
            changed_or_told(changed, next, told)
        }
        Lifecycle::Suspended { .. } | Lifecycle::Lapsed { .. } => {
            let told = tell_late(&mut next, heard).into_iter().collect();
            changed_or_told(changed, next, told)
        }
        Lifecycle::Requested { .. }
        | Lifecycle::Verifying { .. }
        | Lifecycle::Closed { .. }
        | Lifecycle::Rejected { .. } => illegal(policy),
    }
}

fn changed_or_told(changed: bool, next: EncryptionPolicy, effects: Vec<Effect>) -> Result<Change, Refusal> {
    if changed || !effects.is_empty() { Ok(Change { next, effects }) } else { Err(Refusal::Redundant) }
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
        && revoked(rules, policy, &observed(rules, policy, first))
        && revoked(rules, policy, seen)
}

/// The cut-off (spec R5, R6): the fence closes in the transaction that commits this.
pub(super) fn cut_off(
    rules: &Rules<'_>,
    mut next: EncryptionPolicy,
    heard: &[HeardChange],
    now: Timestamp,
) -> Change {
    let was_open = next.fence.is_open();
    next.lifecycle = Lifecycle::Suspended { cut_off_at: now };
    next.refused_for_certain = a_key_refuses_for_certain(&next);
    next.restoration_stopped_at = None;
    next.window_told = None;
    next.fence = next.fence.closed_by(Cause::Key, now);
    let epoch = next.fence.epoch;
    let heard = heard_lines(&mut next, heard);
    let body = format!(
        "Access to the data of this organisation is cut off since {now:.0}: every required regional key \
         refuses.\n{}\n{}Every encrypted app instance is cut off, and the rest of its family on the same site is told \
         to stop; how many there are follows here, and `GET .../app-instances` lists them. Nothing is deleted.\nTo \
         restore access: give every key back, then ask for restoration on this ticket (`POST .../restorations`).\n{}",
        key_lines(&next),
        heard,
        window_lines(rules.catalogue, &next, now)
    );
    let mut effects = Vec::new();
    tell(rules, &mut next, body, now, &mut effects);
    // Behind a fence that another cause closed, everybody was told, or is being told, in the same epoch.
    if was_open {
        effects.push(Effect::SuspendInstances { epoch });
    }
    Change { next, effects }
}

pub(super) fn back_to_suspended(
    rules: &Rules<'_>,
    mut next: EncryptionPolicy,
    cut_off_at: Timestamp,
    heard: &[HeardChange],
    now: Timestamp,
) -> Change {
    next.restoration_stopped_at = Some(now);
    // What support tried after the window was over is over again, and not for a moment self-service.
    next.lifecycle = match window_phase(rules.catalogue, next.mode(), cut_off_at, now) {
        (WindowPhase::Lapsed, _) => Lifecycle::Lapsed { cut_off_at },
        (WindowPhase::Assured | WindowPhase::BestEffort | WindowPhase::NotAssured, _) => {
            Lifecycle::Suspended { cut_off_at }
        }
    };
    let heard = heard_lines(&mut next, heard);
    let body = format!(
        "The restoration stopped: the keys refuse again.\n{}\n{}Nothing was lost; ask again when every key is back.",
        key_lines(&next),
        heard
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
    // A fan-out may end while a restoration is asked for already, or after another cause came or went: as long as the
    // fence is closed it is news, and nobody would say again that every instance was told.
    match policy.lifecycle {
        Lifecycle::Active { .. }
        | Lifecycle::Suspended { .. }
        | Lifecycle::Restoring { .. }
        | Lifecycle::Lapsed { .. }
            if !policy.fence.is_open() => {}
        Lifecycle::Requested { .. }
        | Lifecycle::Verifying { .. }
        | Lifecycle::Active { .. }
        | Lifecycle::Suspended { .. }
        | Lifecycle::Restoring { .. }
        | Lifecycle::Lapsed { .. }
        | Lifecycle::Closed { .. }
        | Lifecycle::Rejected { .. } => return illegal(policy),
    }
    let mut next = policy.clone();
    next.told = epoch;
    let body = format!("Every app instance was told to stop: {instances}.");
    let revocation = next.ticket.filter(|_| next.fence.causes.contains(&Cause::Key));
    let suspension = next.vendor.as_ref().map(|suspension| suspension.ticket);
    let leaving = next.closing.as_ref().filter(|_| next.fence.causes.contains(&Cause::Closing));
    let told = revocation.into_iter().chain(suspension).chain(leaving.map(|closing| closing.ticket));
    let effects = told.map(|ticket| Effect::CommentTicket { ticket, body: body.clone() }).collect();
    Ok(Change { next, effects })
}
