//! An org admin asks for the data back; the fence opens on fresh proofs.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::calendar::window_phase;
use crate::catalogue::WindowPhase;
use crate::effect::Effect;
use crate::event::{Actor, Origin};
use crate::fence::{Cause, Epoch};
use crate::ids::TicketId;
use crate::observation::ProbeRound;
use crate::policy::{EncryptionPolicy, KeyHealth, Lifecycle};
use crate::values::{Region, Subject};

use super::health::{all_usable, believe, fresh, observed, within_window};
use super::replacement::{gone, needed, replacements_under_way};
use super::revocation::back_to_suspended;
use super::{Change, Refusal, Rules, illegal};

pub(super) fn restoration_requested(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    (ticket, into_degraded): (TicketId, bool),
    round: &ProbeRound,
    origin: &Origin,
    now: Timestamp,
) -> Result<Change, Refusal> {
    // INVARIANT (I5, S1): nobody but an org admin asks.
    let Actor::OrgAdmin(by) = &origin.actor else {
        return Err(Refusal::Forbidden { who: "an org admin" });
    };
    let (cut_off_at, lapsed) = waiting(policy)?;
    if lapsed {
        return Err(Refusal::WindowLapsed);
    }
    asked_on(policy, ticket)?;
    let (phase, _) = window_phase(rules.catalogue, policy.mode(), cut_off_at, now);
    if phase == WindowPhase::Lapsed {
        return Err(Refusal::WindowLapsed);
    }
    let without = if into_degraded { gone(policy, round) } else { BTreeSet::new() };
    let words = "Restoration was asked for; every regional key answered and is being proven again.";
    under_way(rules, policy, (ticket, words), (cut_off_at, by, without), round, now)
}

/// After the window, support carries out what an org admin asked for on the ticket (spec S1, S3).
pub(super) fn restoration_carried_out(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    ticket: TicketId,
    (asked_by, asked_at, into_degraded): (&Subject, Timestamp, bool),
    round: &ProbeRound,
    origin: &Origin,
    now: Timestamp,
) -> Result<Change, Refusal> {
    let Actor::Support(_) = &origin.actor else {
        return Err(Refusal::Forbidden { who: "a support agent" });
    };
    let (cut_off_at, lapsed) = waiting(policy)?;
    // INVARIANT (S1): while the window lasts, nobody but the org admin asks.
    if !lapsed {
        return Err(Refusal::Forbidden { who: "an org admin" });
    }
    asked_on(policy, ticket)?;
    // INVARIANT (I5, S1): a request serves once.
    if !asked_since(policy, asked_at) {
        return Err(Refusal::Stale);
    }
    // INVARIANT (S1, S2): whether a lost key is done without is what the org admin asked, and never support's to say.
    let without = if into_degraded { gone(policy, round) } else { BTreeSet::new() };
    let words =
        "Support carries out the org admin's request: every regional key answered and is being proven again.";
    under_way(rules, policy, (ticket, words), (cut_off_at, asked_by, without), round, now)
}

/// Whether what an org admin asked for on the ticket at this moment waits to be carried out: it is of this cut-off, and
/// no restoration has stopped since, on this request or another.
pub fn asked_since(policy: &EncryptionPolicy, at: Timestamp) -> bool {
    let of_this_one = policy.lifecycle.cut_off_at().is_some_and(|cut_off_at| at >= cut_off_at);
    of_this_one && policy.restoration_stopped_at.is_none_or(|stopped| at > stopped)
}

/// The cut-off from which the policy waits to be restored, and whether it has lapsed since.
fn waiting(policy: &EncryptionPolicy) -> Result<(Timestamp, bool), Refusal> {
    match policy.lifecycle {
        Lifecycle::Suspended { cut_off_at } => Ok((cut_off_at, false)),
        Lifecycle::Lapsed { cut_off_at } => Ok((cut_off_at, true)),
        Lifecycle::Restoring { .. } => Err(Refusal::Redundant),
        Lifecycle::Requested { .. }
        | Lifecycle::Verifying { .. }
        | Lifecycle::Active { .. }
        | Lifecycle::Closed { .. }
        | Lifecycle::Rejected { .. } => illegal(policy),
    }
}

/// Restoration is asked for on the ticket of this revocation, and on no other.
fn asked_on(policy: &EncryptionPolicy, ticket: TicketId) -> Result<(), Refusal> {
    if policy.ticket == Some(ticket) { Ok(()) } else { Err(Refusal::WrongTicket { expected: policy.ticket }) }
}

fn under_way(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    (ticket, words): (TicketId, &str),
    (cut_off_at, by, without): (Timestamp, &Subject, BTreeSet<Region>),
    round: &ProbeRound,
    now: Timestamp,
) -> Result<Change, Refusal> {
    let others = needed(policy, &without);
    // Without any key nothing can be unwrapped.
    if others.keys.is_empty() {
        all_usable(rules, policy, round, now)?;
    }
    all_usable(rules, &others, round, now)?;
    let mut body = words.to_owned();
    if !without.is_empty() {
        let lost: Vec<&str> = without.iter().map(Region::as_str).collect();
        body = format!(
            "Restoration without the key of {} was asked for; whether every data key can be unwrapped in another \
             region is being proven.",
            lost.join(", ")
        );
    }
    let mut next = policy.clone();
    believe(&mut next, &observed(rules, policy, round), round);
    next.lifecycle = Lifecycle::Restoring { since: now, cut_off_at, by: by.clone(), without };
    let effects = vec![Effect::CommentTicket { ticket, body }, Effect::ProveRestoration];
    Ok(Change { next, effects })
}

pub(super) fn restoration_probed(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    rounds: &[ProbeRound],
    unwrapped_in: Option<&Region>,
    now: Timestamp,
) -> Result<Change, Refusal> {
    let (cut_off_at, without) = match &policy.lifecycle {
        Lifecycle::Restoring { cut_off_at, without, .. } => (*cut_off_at, without),
        Lifecycle::Active { .. } => return Err(Refusal::Redundant),
        Lifecycle::Suspended { .. } => return Err(Refusal::Stale),
        Lifecycle::Requested { .. }
        | Lifecycle::Verifying { .. }
        | Lifecycle::Lapsed { .. }
        | Lifecycle::Closed { .. }
        | Lifecycle::Rejected { .. } => return illegal(policy),
    };
    let [.., first, last] = rounds else {
        return Err(Refusal::Redundant);
    };
    fresh(rules, policy, last, now)?;
    let seen = observed(rules, policy, last);
    let mut next = policy.clone();
    believe(&mut next, &seen, last);
    // Spec S6: one region that refuses in both rounds is enough to stop a restoration, as all are needed.
    let before = observed(rules, policy, first);
    let refused_twice = seen.iter().any(|(region, health)| {
        !without.contains(region)
            && health.stands_refused()
            && before.get(region).is_some_and(|health| health.stands_refused())
    });
    if refused_twice && within_window(rules, first, last) {
        return Ok(back_to_suspended(rules, next, cut_off_at, &[], now));
    }
    // INVARIANT (I5): the key cause is lifted only on fresh, consistent probes of all regions.
    let others = needed(policy, without);
    all_usable(rules, &others, first, now)?;
    all_usable(rules, &others, last, now)?;
    if !within_window(rules, first, last) {
        return Err(Refusal::Stale);
    }
    if without.is_empty() {
        return Ok(keys_are_back(next, None, now));
    }
    // INVARIANT (I5, S2): without a region access returns only when another unwraps every data key.
    if unwrapped_in.is_none_or(|region| !others.keys.contains_key(region)) {
        return Ok(back_to_suspended(rules, next, cut_off_at, &[], now));
    }
    for (region, key) in &mut next.keys {
        key.given_up = without.contains(region) && key.health != KeyHealth::Usable;
    }
    let lost: Vec<&str> = without.iter().map(Region::as_str).collect();
    let words = format!(
        "Access returns without the key of {}: the realm is degraded, and no new app or data key is made until it is \
         replaced (`POST .../encryption-policy/keys/{{region}}/replace` with a new key's ARN).",
        lost.join(", ")
    );
    Ok(keys_are_back(next, Some(words), now))
}

/// Lifts the key cause. The instances are told when no other cause keeps the fence closed; then the ticket is
/// resolved when all of them are back. Else it is resolved now, as far as the keys go.
pub(super) fn keys_are_back(mut next: EncryptionPolicy, words: Option<String>, now: Timestamp) -> Change {
    next.fence = next.fence.lifted(Cause::Key, now);
    next.lifecycle = Lifecycle::Active { since: now };
    next.lift = None;
    next.refused_for_certain = false;
    next.restoration_stopped_at = None;
    next.window_told = None;
    let mut effects = Vec::new();
    if next.fence.is_open() {
        let told = words.zip(next.ticket);
        effects.extend(told.map(|(body, ticket)| Effect::CommentTicket { ticket, body }));
        effects.push(Effect::RestoreInstances { epoch: next.fence.epoch });
        effects.extend(replacements_under_way(&next));
    } else {
        let words = words.unwrap_or_else(|| "Every regional key is proven.".to_owned());
        let body = format!("{words} Access stays cut off for another cause, which has its own ticket.");
        effects.extend(next.ticket.take().map(|ticket| Effect::ResolveTicket { ticket, body }));
    }
    Change { next, effects }
}

pub(super) fn instances_restored(policy: &EncryptionPolicy, epoch: Epoch) -> Result<Change, Refusal> {
    newly_told(policy, epoch)?;
    let (Lifecycle::Active { .. }, true) = (&policy.lifecycle, policy.fence.is_open()) else {
        return illegal(policy);
    };
    let mut next = policy.clone();
    next.told = epoch;
    let body =
        "Access is restored for every app instance. Data-loss report: nothing was lost; every write that \
                was acknowledged before the cut-off is there."
            .to_owned();
    // While a region refuses, the ticket is still about something.
    let effects = if next.is_degraded() {
        next.ticket.map(|ticket| Effect::CommentTicket { ticket, body })
    } else {
        next.ticket.take().map(|ticket| Effect::ResolveTicket { ticket, body })
    };
    Ok(Change { next, effects: effects.into_iter().collect() })
}

/// Whether a finished fan-out is news: of the fence's own epoch, and for the first time.
pub(super) fn newly_told(policy: &EncryptionPolicy, epoch: Epoch) -> Result<(), Refusal> {
    if epoch < policy.fence.epoch {
        return Err(Refusal::Stale);
    }
    if epoch == policy.told {
        return Err(Refusal::Redundant);
    }
    Ok(())
}
