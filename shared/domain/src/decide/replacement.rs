//! A regional key that is gone for good is given up, and replaced by a new one (spec S2).

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::access::KeyPermission;
use crate::effect::Effect;
use crate::event::{Actor, Origin};
use crate::observation::{Observation, ProbeRound};
use crate::policy::{EncryptionPolicy, KeyChange, KeyHealth, RegionalKey, Replacement};
use crate::values::{KeyArn, Region, Subject};

use super::access::give_what_was_accepted;
use super::reencryption::keys_are_free;
use super::{Change, Refusal, Rules, in_use};

/// The regions whose key a round finds gone for good. An org admin may do without them.
pub(super) fn gone(policy: &EncryptionPolicy, round: &ProbeRound) -> BTreeSet<Region> {
    let gone = |region: &&Region| {
        let saw = round.observations.get(*region);
        matches!(saw, Some(Observation::Refused(kind)) if kind.is_for_good())
    };
    policy.keys.keys().filter(gone).cloned().collect()
}

/// The round without the regions that are given up: what is asked of the others is asked as ever.
pub(super) fn needed(policy: &EncryptionPolicy, without: &BTreeSet<Region>) -> EncryptionPolicy {
    let mut needed = policy.clone();
    needed.keys.retain(|region, _| !without.contains(region));
    needed
}

pub(super) fn key_replacement_asked(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    (region, arn): (&Region, &KeyArn),
    origin: &Origin,
    now: Timestamp,
) -> Result<Change, Refusal> {
    let Actor::OrgAdmin(by) = &origin.actor else {
        return Err(Refusal::Forbidden { who: "an org admin" });
    };
    in_use(policy)?;
    keys_are_free(policy)?;
    let mut next = policy.clone();
    let key = next.keys.get_mut(region).ok_or_else(|| Refusal::KeyNotLost { region: region.clone() })?;
    if key.replacement.as_ref().is_some_and(|known| known.arn == *arn) {
        return Err(Refusal::Redundant);
    }
    // A key that only gave no answer, or works, is not lost.
    if !(key.health.stands_refused() || key.given_up) {
        return Err(Refusal::KeyNotLost { region: region.clone() });
    }
    let first = policy.key_change.as_ref().filter(|first| first.region == *region && first.key == *arn);
    if !agreed(rules, first.map(|first| (&first.by, first.at)), (by, now))? {
        let change = KeyChange { region: region.clone(), key: arn.clone(), by: by.clone(), at: now };
        return Ok(proposed(rules, policy, change));
    }
    key.replacement = Some(Replacement { arn: arn.clone(), asked_at: now, by: by.clone() });
    next.key_change = None;
    let body = format!(
        "The key of {region} is being replaced by {arn}: every data key is wrapped under it, then the realm is \
         whole again."
    );
    let told = next.ticket.map(|ticket| Effect::CommentTicket { ticket, body });
    let order = Effect::ReplaceKey { region: region.clone(), key: arn.clone() };
    Ok(Change { next, effects: told.into_iter().chain([order]).collect() })
}

/// Whether a change of keys is agreed on: one org admin is enough, or, where the catalogue asks for two, another one
/// said the very same in time.
///
/// INVARIANT (E3): where the catalogue asks for two, one admin alone, however often, changes no key.
pub(super) fn agreed(
    rules: &Rules<'_>,
    first: Option<(&Subject, Timestamp)>,
    (by, now): (&Subject, Timestamp),
) -> Result<bool, Refusal> {
    if !rules.catalogue.key_changes.second_approver {
        return Ok(true);
    }
    match first.filter(|(_, at)| now.duration_since(*at) <= within(rules)) {
        Some((first, _)) if first == by => Err(Refusal::Forbidden { who: "another org admin" }),
        Some(_) => Ok(true),
        None => Ok(false),
    }
}

fn proposed(rules: &Rules<'_>, policy: &EncryptionPolicy, change: KeyChange) -> Change {
    let body = format!(
        "An org admin wants {} to take the place of the key of {}. It is done when another org admin asks for the very \
         same by {:.0}.",
        change.key,
        change.region,
        change.at + within(rules)
    );
    let told = policy.ticket.map(|ticket| Effect::CommentTicket { ticket, body });
    let next = EncryptionPolicy { key_change: Some(change), ..policy.clone() };
    Change { next, effects: told.into_iter().collect() }
}

/// What somebody said who is no org admin any more is nobody's word: another one agrees to nothing with it (spec E3).
pub(super) fn proposer_left(policy: &EncryptionPolicy, by: &Subject) -> Result<Change, Refusal> {
    if policy.proposers().all(|known| known != by) {
        return Err(Refusal::Redundant);
    }
    let mut next = policy.clone();
    let body = || {
        "The org admin who wanted other keys is none any more, so nothing is proposed. It takes two who are."
            .to_owned()
    };
    let mut effects = Vec::new();
    if next.key_change.take_if(|first| first.by == *by).is_some() {
        effects.extend(next.ticket.map(|ticket| Effect::CommentTicket { ticket, body: body() }));
    }
    if let Some(first) = next.reencryption_proposal.take_if(|first| first.by == *by) {
        effects.push(Effect::ResolveTicket { ticket: first.ticket, body: body() });
    }
    Ok(Change { next, effects })
}

pub(super) fn within(rules: &Rules<'_>) -> SignedDuration {
    SignedDuration::from_hours(i64::from(rules.catalogue.key_changes.confirm_within_hours))
}

/// The new key takes the old one's place: every data key is wrapped under it.
pub(super) fn key_replaced(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    (region, arn): (&Region, &KeyArn),
    (canary, data_keys, proven): (&str, u64, &BTreeSet<KeyPermission>),
    round: &ProbeRound,
    now: Timestamp,
) -> Result<Change, Refusal> {
    in_use(policy)?;
    let known = policy.keys.get(region).ok_or_else(|| Refusal::KeyNotLost { region: region.clone() })?;
    if known.arn == *arn {
        return Err(Refusal::Redundant);
    }
    if known.replacement.as_ref().is_none_or(|wanted| wanted.arn != *arn) {
        return Err(Refusal::Stale);
    }
    if now.duration_since(round.started_at) > rules.freshness {
        return Err(Refusal::Stale);
    }
    match round.observations.get(region) {
        Some(Observation::Usable) => {}
        Some(saw) => return Err(Refusal::KeysNotUsable { faults: [(region.clone(), *saw)].into() }),
        None => return Err(Refusal::Stale),
    }
    give_what_was_accepted(policy, [region], proven)?;
    let mut next = policy.clone();
    let fresh = RegionalKey {
        arn: arn.clone(),
        canary: Some(canary.to_owned()),
        health: KeyHealth::Usable,
        since: now,
        replacement: None,
        outlook: None,
        lost_before: known.lost_before.saturating_add(1),
        given_up: false,
    };
    next.keys.insert(region.clone(), fresh);
    for request in &mut next.access_requests {
        request.unproven.remove(region);
    }
    next.probed_at = Some(next.probed_at.map_or(round.started_at, |known| known.max(round.started_at)));
    let body =
        format!("The key of {region} is replaced by {arn}; {data_keys} data keys are wrapped under it.");
    let effects = if next.is_degraded() || next.is_coming_back() {
        next.ticket.map(|ticket| Effect::CommentTicket { ticket, body })
    } else {
        next.ticket.take().map(|ticket| Effect::ResolveTicket { ticket, body })
    };
    Ok(Change { next, effects: effects.into_iter().collect() })
}

/// What was asked for and not finished goes on when the fence opens.
pub(super) fn replacements_under_way(policy: &EncryptionPolicy) -> impl Iterator<Item = Effect> + '_ {
    policy.keys.iter().filter_map(|(region, key)| {
        let wanted = key.replacement.as_ref()?;
        Some(Effect::ReplaceKey { region: region.clone(), key: wanted.arn.clone() })
    })
}
