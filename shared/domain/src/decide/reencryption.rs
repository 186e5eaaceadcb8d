//! A job that moves a policy to new keys (spec X): asked for, switched, carried on, ended.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::access::KeyPermission;
use crate::data_keys::FormerDataKeys;
use crate::effect::Effect;
use crate::event::{Actor, Origin};
use crate::fact::derived_ticket_id;
use crate::ids::ReencryptionId;
use crate::key_access::KeyAccess;
use crate::observation::ProbeRound;
use crate::policy::{EncryptionPolicy, ReencryptionProposal};
use crate::reencryption::{Depth, EndedReencryption, FormerKeys, KeyFault, Outcome, Phase, Reencryption};
use crate::values::{KeyArn, Region};

use super::access::give_what_was_accepted;
use super::health::all_usable;
use super::replacement::{agreed, within};
use super::{Change, Refusal, Rules, illegal, in_use};

/// What is said before it starts: a job that is under way is no emergency brake.
pub const ADVICE: &str = "Re-encryption moves data to new keys while your apps go on; it is no way to take access away \
     at once. If a key is in the wrong hands, weigh it against revocation, which cuts access off within minutes. Once \
     the policy has the new keys, there is no way back. Do not disable or delete the old keys before the ledger \
     says that they are safe to delete: backups that were taken before hold data that only they, or the data keys \
     that we keep, open.";

pub(super) fn reencryption_requested(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    keys: &BTreeMap<Region, KeyArn>,
    depth: Depth,
    origin: &Origin,
    now: Timestamp,
) -> Result<Change, Refusal> {
    let Actor::OrgAdmin(by) = &origin.actor else {
        return Err(Refusal::Forbidden { who: "an org admin" });
    };
    in_use(policy)?;
    // Who leaves takes its data along; there is nothing left to move.
    if policy.closing.is_some() {
        return illegal(policy);
    }
    if policy.reencryption.is_some() {
        return Err(Refusal::ReencryptionUnderWay);
    }
    // While a region refuses, data keys could not be unwrapped and proven everywhere (design, point 2).
    if policy.is_degraded() || policy.keys.values().any(|key| key.replacement.is_some()) {
        return Err(Refusal::Degraded);
    }
    // What the customer makes is reached by its key policies, what the service makes through the role.
    let made_by_us = keys.is_empty() && matches!(policy.access, KeyAccess::Role(_));
    let access = if made_by_us { policy.access.clone() } else { KeyAccess::KeyPolicy };
    if !made_by_us {
        suitable(rules, policy, keys)?;
    }
    let fresh = derived_ticket_id(policy.id.as_uuid(), policy.audit.seq.saturating_add(1), now);
    let told = policy.reencryption_proposal.as_ref().map(|first| first.ticket);
    let ticket = told.unwrap_or(fresh);
    let title = rules.title(policy, |mode| &mode.reencryption_title);
    let tell = |body: String| match told {
        Some(ticket) => Effect::CommentTicket { ticket, body },
        None => Effect::OpenTicket { ticket, title, body },
    };
    let list = if made_by_us { "New keys are made through your role.".to_owned() } else { lines(keys) };
    let first = policy.reencryption_proposal.as_ref();
    let first = first.filter(|first| first.keys == *keys && first.depth == depth);
    if !agreed(rules, first.map(|first| (&first.by, first.at)), (by, now))? {
        let body = format!(
            "An org admin wants everything moved to new keys ({}). Nothing has begun: it does when another org admin \
             asks for the very same by {:.0}.\n{list}\n{ADVICE}",
            depth.slug(),
            now + within(rules)
        );
        let proposal = ReencryptionProposal { keys: keys.clone(), depth, by: by.clone(), at: now, ticket };
        let next = EncryptionPolicy { reencryption_proposal: Some(proposal), ..policy.clone() };
        return Ok(Change { next, effects: vec![tell(body)] });
    }
    let mut next = policy.clone();
    let id = ReencryptionId::from_uuid(fresh.as_uuid());
    next.reencryption_proposal = None;
    next.reencryption = Some(Reencryption {
        id,
        ticket,
        requested_at: now,
        by: by.clone(),
        depth,
        phase: Phase::Preparing,
        keys: keys.clone(),
        access,
        generation: policy.next_generation(),
        switched_at: None,
        mode_until_done: policy.access.mode(),
        paused: None,
        fault: None,
    });
    let what = match depth {
        Depth::Rekey => "Every record is written anew under data keys that the old keys never wrapped.",
        Depth::Rewrap => {
            "Data keys alone are wrapped anew; no record is touched, and the old keys do not become safe to delete."
        }
    };
    let body = format!("Re-encryption started ({}). {what}\n{list}\n{ADVICE}", depth.slug());
    let effects = vec![tell(body), Effect::Reencrypt { job: id }];
    Ok(Change { next, effects })
}

/// BYOK: the service made the new keys.
pub(super) fn reencryption_keys_created(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    id: ReencryptionId,
    keys: &BTreeMap<Region, KeyArn>,
) -> Result<Change, Refusal> {
    let job = under_way(policy, id)?;
    if job.phase != Phase::Preparing {
        return Err(Refusal::Stale);
    }
    if !job.keys.is_empty() {
        return Err(Refusal::Redundant);
    }
    suitable(rules, policy, keys)?;
    let body = format!("The new keys are made:\n{}", lines(keys));
    let effects = vec![Effect::CommentTicket { ticket: job.ticket, body }];
    let next = changed(policy, |job| {
        job.keys = keys.clone();
        job.fault = None;
    });
    Ok(Change { next, effects })
}

/// INVARIANT (X1, E7): a key in every region of the realm, in the same account, and none that was used before.
fn suitable(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    keys: &BTreeMap<Region, KeyArn>,
) -> Result<(), Refusal> {
    let wanted = rules.catalogue.regions(&policy.realm).unwrap_or_default();
    let whole = !keys.is_empty()
        && wanted.len() == keys.len()
        && wanted.iter().all(|region| keys.contains_key(region));
    let own = keys.iter().all(|(region, arn)| arn.region() == region && *arn.account() == policy.account);
    if !whole || !own || keys.values().any(|arn| policy.access_of(arn).is_some()) {
        return Err(Refusal::KeysNotUsable { faults: BTreeMap::new() });
    }
    Ok(())
}

fn lines(keys: &BTreeMap<Region, KeyArn>) -> String {
    let list: Vec<String> = keys.iter().map(|(region, arn)| format!("- {region}: {arn}")).collect();
    list.join("\n")
}

/// A new key refused while the job prepared, or it works again.
pub(super) fn reencryption_hindered(
    policy: &EncryptionPolicy,
    id: ReencryptionId,
    fault: Option<&KeyFault>,
) -> Result<Change, Refusal> {
    let job = under_way(policy, id)?;
    if job.phase != Phase::Preparing || job.fault.as_ref() == fault {
        return Err(Refusal::Redundant);
    }
    Ok(unsaid(changed(policy, |job| job.fault = fault.cloned())))
}

/// The policy gets the new keys: the point of no return.
pub(super) fn reencryption_switched(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    (id, canaries, data_keys, proven): (
        ReencryptionId,
        &BTreeMap<Region, String>,
        u64,
        &BTreeSet<KeyPermission>,
    ),
    round: &ProbeRound,
    now: Timestamp,
) -> Result<Change, Refusal> {
    let job = under_way(policy, id)?;
    match job.phase {
        Phase::Preparing => {}
        Phase::Cancelling => return Err(Refusal::Stale),
        Phase::Rewriting { .. } | Phase::Scanning { .. } | Phase::Waiting { .. } | Phase::Finishing => {
            return Err(Refusal::Redundant);
        }
    }
    in_use(policy)?;
    if job.paused.is_some() {
        return Err(Refusal::Stale);
    }
    let mut next = policy.with_new_keys(canaries, now);
    // INVARIANT (X3, I6): the new keys are proven in this moment, each by its own canary.
    all_usable(rules, &next, round, now)?;
    if next.keys.is_empty() || next.keys.values().any(|key| key.canary.is_none()) {
        return Err(Refusal::KeysNotUsable { faults: BTreeMap::new() });
    }
    give_what_was_accepted(policy, next.keys.keys(), proven)?;
    for request in &mut next.access_requests {
        request.unproven.clear();
    }
    next.former_keys.push(FormerKeys {
        generation: policy.generation,
        keys: policy.keys.iter().map(|(region, key)| (region.clone(), key.arn.clone())).collect(),
        access: policy.access.clone(),
        replaced_at: now,
        job: id,
        data_keys: FormerDataKeys::Kept,
    });
    next.generation = job.generation;
    next.fence.min_write_generation = job.generation;
    next.fence.changed_at = Some(now);
    // What was probed before was the old keys.
    next.probed_at = Some(policy.probed_at.map_or(now, |known| known.max(now)));
    let ticket = job.ticket;
    let phase = match job.depth {
        Depth::Rekey => Phase::Rewriting { pass: 1 },
        Depth::Rewrap => Phase::Finishing,
    };
    if let Some(job) = &mut next.reencryption {
        job.phase = phase;
        job.switched_at = Some(now);
        job.fault = None;
    }
    let body = format!(
        "The policy has the new keys: every one of {data_keys} data keys is wrapped under them. There is no way back. \
         Nothing that is read or written needs the old keys any more; losing them harms nothing. Taking the new \
         keys away now cuts access off."
    );
    let mut effects = vec![Effect::CommentTicket { ticket, body }];
    // The keys that a ticket was about are not the policy's any more.
    if let Some(ticket) = next.ticket.take() {
        let body = "The keys of this ticket were replaced by re-encryption; every new key works.".to_owned();
        effects.push(Effect::ResolveTicket { ticket, body });
    }
    Ok(Change { next, effects })
}

/// A pass over the data is through; it left so many records that are still old.
pub(super) fn reencryption_passed(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    (id, pass, old): (ReencryptionId, u32, u64),
    now: Timestamp,
) -> Result<Change, Refusal> {
    let job = under_way(policy, id)?;
    if job.phase.pass() != Some(pass) {
        return Err(Refusal::Stale);
    }
    if !policy.may_reencrypt() {
        return illegal(policy);
    }
    let again = pass.saturating_add(1);
    let (phase, body) = match job.phase {
        Phase::Rewriting { .. } => (Phase::Scanning { pass: again, clean_since: None }, None),
        Phase::Scanning { .. } if old > 0 => {
            let body = format!("A scan found {old} records under old data keys; they are rewritten.");
            (Phase::Rewriting { pass: again }, Some(body))
        }
        Phase::Scanning { clean_since: None, .. } => (Phase::Waiting { pass, clean_since: now }, None),
        // INVARIANT (X4): two clean scans, at least the catalogue's in-transit period apart.
        Phase::Scanning { clean_since: Some(first), .. } if now.duration_since(first) >= rules.in_transit => {
            (Phase::Finishing, None)
        }
        Phase::Scanning { clean_since: Some(clean_since), .. } => {
            (Phase::Waiting { pass, clean_since }, None)
        }
        Phase::Preparing | Phase::Cancelling | Phase::Waiting { .. } | Phase::Finishing => {
            return Err(Refusal::Stale);
        }
    };
    let effects = body.map(|body| Effect::CommentTicket { ticket: job.ticket, body });
    let next = changed(policy, |job| job.phase = phase);
    Ok(Change { next, effects: effects.into_iter().collect() })
}

/// What was in transit at the first clean scan has arrived: the second may begin.
pub(super) fn reencryption_scan_due(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    id: ReencryptionId,
    now: Timestamp,
) -> Result<Change, Refusal> {
    let job = under_way(policy, id)?;
    let Phase::Waiting { pass, clean_since } = job.phase else {
        return Err(Refusal::Redundant);
    };
    if now.duration_since(clean_since) < rules.in_transit {
        return Err(Refusal::Stale);
    }
    let phase = Phase::Scanning { pass: pass.saturating_add(1), clean_since: Some(clean_since) };
    Ok(unsaid(changed(policy, |job| job.phase = phase)))
}

/// The last wraps are taken away: those under the old keys after completion, those under the new ones after a
/// cancellation.
pub(super) fn reencryption_ended(
    policy: &EncryptionPolicy,
    (id, data_keys, old_versions, ledger): (ReencryptionId, u64, Option<u64>, &str),
    now: Timestamp,
) -> Result<Change, Refusal> {
    let job = under_way(policy, id)?;
    let (outcome, body) = match job.phase {
        Phase::Cancelling => (
            Outcome::Cancelled,
            "Re-encryption cancelled: nothing was changed, and no data key is wrapped under the new keys any more."
                .to_owned(),
        ),
        Phase::Finishing => (
            Outcome::Completed,
            format!("Re-encryption completed: {data_keys} data keys are wrapped under the new keys alone.\n{ledger}"),
        ),
        Phase::Preparing | Phase::Rewriting { .. } | Phase::Scanning { .. } | Phase::Waiting { .. } => {
            return Err(Refusal::Stale);
        }
    };
    let ticket = job.ticket;
    let mut next = policy.clone();
    if let Some(job) = next.reencryption.take() {
        next.reencryptions.push(EndedReencryption { job, outcome, at: now, old_versions });
    }
    Ok(Change { next, effects: vec![Effect::ResolveTicket { ticket, body }] })
}

pub(super) fn reencryption_paused(
    policy: &EncryptionPolicy,
    id: ReencryptionId,
    origin: &Origin,
    now: Timestamp,
) -> Result<Change, Refusal> {
    let job = of_admin(policy, id, origin)?;
    if job.paused.is_some() {
        return Err(Refusal::Redundant);
    }
    if job.phase == Phase::Cancelling {
        return Err(Refusal::Stale);
    }
    let body = format!(
        "Re-encryption paused while {}. Every record stays readable; resume when it suits you.",
        job.phase.slug()
    );
    let effects = vec![Effect::CommentTicket { ticket: job.ticket, body }];
    Ok(Change { next: changed(policy, |job| job.paused = Some(now)), effects })
}

pub(super) fn reencryption_resumed(
    policy: &EncryptionPolicy,
    id: ReencryptionId,
    origin: &Origin,
) -> Result<Change, Refusal> {
    let job = of_admin(policy, id, origin)?;
    if job.paused.is_none() {
        return Err(Refusal::Redundant);
    }
    let hindered = policy.hindrance().map(|hindrance| format!(" It waits: {}.", hindrance.words()));
    let body = format!("Re-encryption resumed.{}", hindered.unwrap_or_default());
    let effects = vec![Effect::CommentTicket { ticket: job.ticket, body }, Effect::Reencrypt { job: id }];
    Ok(Change { next: changed(policy, |job| job.paused = None), effects })
}

pub(super) fn reencryption_cancelled(
    policy: &EncryptionPolicy,
    id: ReencryptionId,
    origin: &Origin,
) -> Result<Change, Refusal> {
    let job = of_admin(policy, id, origin)?;
    match job.phase {
        Phase::Preparing => {}
        Phase::Cancelling => return Err(Refusal::Redundant),
        // INVARIANT (X2): after the switch new records are under the new keys.
        Phase::Rewriting { .. } | Phase::Scanning { .. } | Phase::Waiting { .. } | Phase::Finishing => {
            return Err(Refusal::PointOfNoReturn);
        }
    }
    let body = "Re-encryption is being cancelled: the wraps under the new keys are taken away.".to_owned();
    let effects = vec![Effect::CommentTicket { ticket: job.ticket, body }, Effect::Reencrypt { job: id }];
    let next = changed(policy, |job| {
        job.phase = Phase::Cancelling;
        job.paused = None;
        job.fault = None;
    });
    Ok(Change { next, effects })
}

/// Whatever a decision was about: if it stops a job, or lets it go on, the ticket says so and the job is taken up
/// again (spec X3). A pause of the org admin's stays.
pub(super) fn follow_up(before: &EncryptionPolicy, change: &mut Change) {
    let (Some(was), Some(job)) = (&before.reencryption, &change.next.reencryption) else {
        return;
    };
    let (id, ticket, phase, paused) = (job.id, job.ticket, job.phase, job.paused.is_some());
    if was.id != id {
        return;
    }
    match (before.hindrance(), change.next.hindrance()) {
        (None, Some(hindrance)) => {
            let body = format!(
                "Re-encryption stopped while {}: {}. Every record stays as it is, under keys that are known; it goes \
                 on by itself when this is over.",
                phase.slug(),
                hindrance.words()
            );
            change.effects.push(Effect::CommentTicket { ticket, body });
        }
        (Some(_), None) if paused || phase == Phase::Cancelling => {}
        (Some(_), None) => {
            let body = format!("Re-encryption goes on where it stopped: {}.", phase.slug());
            change.effects.push(Effect::CommentTicket { ticket, body });
            change.effects.push(Effect::Reencrypt { job: id });
        }
        (None, None) | (Some(_), Some(_)) => {}
    }
}

/// A job keeps the keys of a policy as they are until its switch.
pub(super) fn keys_are_free(policy: &EncryptionPolicy) -> Result<(), Refusal> {
    match &policy.reencryption {
        Some(job) if !job.phase.is_switched() => Err(Refusal::ReencryptionUnderWay),
        Some(_) | None => Ok(()),
    }
}

fn unsaid(next: EncryptionPolicy) -> Change {
    Change { next, effects: Vec::new() }
}

fn changed(policy: &EncryptionPolicy, change: impl FnOnce(&mut Reencryption)) -> EncryptionPolicy {
    let mut next = policy.clone();
    if let Some(job) = &mut next.reencryption {
        change(job);
    }
    next
}

fn under_way(policy: &EncryptionPolicy, id: ReencryptionId) -> Result<&Reencryption, Refusal> {
    match &policy.reencryption {
        Some(job) if job.id == id => Ok(job),
        Some(_) => Err(Refusal::Stale),
        None if policy.reencryptions.iter().any(|ended| ended.job.id == id) => Err(Refusal::Redundant),
        None => Err(Refusal::Stale),
    }
}

fn of_admin<'p>(
    policy: &'p EncryptionPolicy,
    id: ReencryptionId,
    origin: &Origin,
) -> Result<&'p Reencryption, Refusal> {
    let Actor::OrgAdmin(_) = origin.actor else {
        return Err(Refusal::Forbidden { who: "an org admin" });
    };
    match under_way(policy, id) {
        // One that has ended cannot be paused, resumed or cancelled any more.
        Err(Refusal::Redundant) => Err(Refusal::Stale),
        other => other,
    }
}
