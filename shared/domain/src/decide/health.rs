//! What probes say: from rounds of observations to the health of keys, and whether that is a revocation.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::observation::{Observation, ProbeRound, RefusalKind};
use crate::policy::{EncryptionPolicy, KeyHealth, Lifecycle};
use crate::values::Region;

use super::{Refusal, Rules};

/// Whether a round has to be confirmed by a second one before it can suspend (or be dropped). Asked
/// by the prober between its two rounds; the same test that [`decide`] applies.
pub fn wants_confirmation(rules: &Rules<'_>, policy: &EncryptionPolicy, round: &ProbeRound) -> bool {
    is_open(&policy.lifecycle) && revoked(rules, policy, &observed(rules, policy, round))
}

/// Whether a round proves that data may be used: a region works, or every one, as the catalogue says. Where any region
/// that refuses is enough to revoke, one that works says nothing of the others (spec I3). A key that was given up counts
/// only while it works.
pub fn proves_access(rules: &Rules<'_>, policy: &EncryptionPolicy, round: &ProbeRound) -> bool {
    let mut usable = counted(policy, round).map(|saw| matches!(saw, Observation::Usable)).peekable();
    if rules.catalogue.any_region_is_enough {
        usable.peek().is_some() && usable.all(|usable| usable)
    } else {
        usable.any(|usable| usable)
    }
}

/// Whether every key that counts said something in a round.
pub fn is_answered(policy: &EncryptionPolicy, round: &ProbeRound) -> bool {
    counted(policy, round).all(|saw| !matches!(saw, Observation::NoAnswer(_)))
}

/// What a round saw of the keys that count: all but those that were given up and do not work.
fn counted<'a>(
    policy: &'a EncryptionPolicy,
    round: &'a ProbeRound,
) -> impl Iterator<Item = &'a Observation> + 'a {
    let given_up = |region| policy.keys.get(region).is_some_and(|key| key.given_up);
    let all = round.observations.iter();
    all.filter(move |(region, saw)| matches!(saw, Observation::Usable) || !given_up(region))
        .map(|(_, saw)| saw)
}

/// When ambiguous refusals that began with this change become due: from then on they stand, if they still
/// persist. The prober asks again at that moment, so that nobody has to wait for the sweep after next.
pub fn becomes_due(
    rules: &Rules<'_>,
    before: &EncryptionPolicy,
    after: &EncryptionPolicy,
) -> Option<Timestamp> {
    if !is_open(&after.lifecycle) {
        return None;
    }
    let began = after.keys.iter().filter_map(|(region, key)| match key.health {
        // A definite one stands at once.
        KeyHealth::Refused { refused_since, stands: false, .. } => {
            let known = before.keys.get(region).and_then(|key| ambiguous_since(key.health));
            refused_since.filter(|since| known != Some(*since))
        }
        KeyHealth::Refused { .. } | KeyHealth::Unknown | KeyHealth::Usable | KeyHealth::NoAnswer { .. } => {
            None
        }
    });
    began.max().map(|since| since + rules.ambiguity)
}

/// Whether a refusal could still close the fence.
const fn is_open(lifecycle: &Lifecycle) -> bool {
    match lifecycle {
        Lifecycle::Active { .. } | Lifecycle::Restoring { .. } => true,
        Lifecycle::Requested { .. }
        | Lifecycle::Verifying { .. }
        | Lifecycle::Suspended { .. }
        | Lifecycle::Lapsed { .. }
        | Lifecycle::Closed { .. }
        | Lifecycle::Rejected { .. } => false,
    }
}

/// Whether its keys closed the fence, and it has not come back.
const fn is_cut_off(lifecycle: &Lifecycle) -> bool {
    match lifecycle {
        Lifecycle::Suspended { .. } | Lifecycle::Restoring { .. } | Lifecycle::Lapsed { .. } => true,
        Lifecycle::Requested { .. }
        | Lifecycle::Verifying { .. }
        | Lifecycle::Active { .. }
        | Lifecycle::Closed { .. }
        | Lifecycle::Rejected { .. } => false,
    }
}

/// What a round makes of each key's health.
pub(super) fn observed(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    round: &ProbeRound,
) -> BTreeMap<Region, KeyHealth> {
    let seen = policy.keys.iter().map(|(region, key)| {
        let health = match round.observations.get(region) {
            None => key.health,
            Some(Observation::Usable) => KeyHealth::Usable,
            Some(Observation::NoAnswer(kind)) => {
                KeyHealth::NoAnswer { kind: *kind, refused_since: ambiguous_since(key.health) }
            }
            Some(Observation::Refused(kind)) => {
                refusal(rules, key.health, *kind, round.controls_healthy, round.started_at)
            }
        };
        (region.clone(), health)
    });
    seen.collect()
}

/// The start of an ambiguous refusal that is under way.
pub(super) const fn ambiguous_since(health: KeyHealth) -> Option<Timestamp> {
    match health {
        KeyHealth::Refused { kind, refused_since, .. } if !kind.is_definite() => refused_since,
        KeyHealth::NoAnswer { refused_since, .. } => refused_since,
        KeyHealth::Refused { .. } | KeyHealth::Unknown | KeyHealth::Usable => None,
    }
}

pub(super) fn refusal(
    rules: &Rules<'_>,
    before: KeyHealth,
    kind: RefusalKind,
    controls_healthy: Option<bool>,
    at: Timestamp,
) -> KeyHealth {
    if kind.is_definite() {
        let refused_since = match before {
            KeyHealth::Refused { kind: known, refused_since, .. } if known == kind => refused_since,
            KeyHealth::Refused { .. }
            | KeyHealth::Unknown
            | KeyHealth::Usable
            | KeyHealth::NoAnswer { .. } => Some(at),
        };
        return KeyHealth::Refused { kind, refused_since, stands: true };
    }
    // INVARIANT (I2, R4): an ambiguous refusal counts only when it persisted while the control probes
    // were healthy. Its clock starts at a round with healthy controls, and one without stops it.
    if controls_healthy != Some(true) {
        return KeyHealth::Refused { kind, refused_since: None, stands: false };
    }
    let since = ambiguous_since(before).unwrap_or(at);
    let stands = at.duration_since(since) >= rules.ambiguity;
    KeyHealth::Refused { kind, refused_since: Some(since), stands }
}

/// Whether what was seen amounts to a revocation: every region refuses, or any, as the catalogue says.
///
/// INVARIANT (R5, I3): a key that was given up counts for nothing, whatever it answers and whether it answers. Were its
/// refusal counted, nobody could restore without it; were its silence, it would veto the revocation by those that are
/// left. It counts again once it works.
pub(super) fn revoked(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    seen: &BTreeMap<Region, KeyHealth>,
) -> bool {
    let given_up = |region: &Region| policy.keys.get(region).is_some_and(|key| key.given_up);
    let counted = seen.iter().filter(|(region, health)| **health == KeyHealth::Usable || !given_up(region));
    let mut refused = counted.map(|(_, health)| health.stands_refused()).peekable();
    if rules.catalogue.any_region_is_enough {
        refused.any(|stands| stands)
    } else {
        refused.peek().is_some() && refused.all(|stands| stands)
    }
}

/// Whether two rounds prove the same thing together: the second started after the first, and soon.
pub(super) fn within_window(rules: &Rules<'_>, first: &ProbeRound, second: &ProbeRound) -> bool {
    let apart = second.started_at.duration_since(first.started_at);
    apart >= SignedDuration::ZERO && apart <= rules.window
}

/// Drops rounds that say nothing any more (design, point 7).
pub(super) fn fresh(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    round: &ProbeRound,
    now: Timestamp,
) -> Result<(), Refusal> {
    let too_old = now.duration_since(round.started_at) > rules.freshness;
    let overtaken = policy.probed_at.is_some_and(|known| round.started_at <= known);
    if too_old || overtaken {
        return Err(Refusal::Stale);
    }
    Ok(())
}

pub(super) fn all_usable(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    round: &ProbeRound,
    now: Timestamp,
) -> Result<(), Refusal> {
    if now.duration_since(round.started_at) > rules.freshness {
        return Err(Refusal::Stale);
    }
    let faults: BTreeMap<Region, Observation> = policy
        .keys
        .keys()
        .filter_map(|region| match round.observations.get(region) {
            Some(Observation::Usable) => None,
            Some(other) => Some((region.clone(), *other)),
            None => Some((region.clone(), Observation::NoAnswer(crate::observation::NoAnswerKind::OurFault))),
        })
        .collect();
    if faults.is_empty() { Ok(()) } else { Err(Refusal::KeysNotUsable { faults }) }
}

/// Whether KMS says of a key that counts what only its owner can have done.
pub(super) fn a_key_refuses_for_certain(policy: &EncryptionPolicy) -> bool {
    let mut keys = policy.keys.values().filter(|key| !key.given_up);
    keys.any(|key| matches!(key.health, KeyHealth::Refused { kind, .. } if kind.is_definite()))
}

/// Writes what was seen into the policy, and what follows from a refusal whoever saw it; says whether anything changed.
pub(super) fn believe(
    next: &mut EncryptionPolicy,
    seen: &BTreeMap<Region, KeyHealth>,
    round: &ProbeRound,
) -> bool {
    let started_at = round.started_at;
    let mut changed = next.refused_unwrap != round.refused_unwrap;
    next.refused_unwrap = round.refused_unwrap;
    for (region, key) in &mut next.keys {
        if let Some(health) = seen.get(region).filter(|health| **health != key.health) {
            if health.slug() != key.health.slug() {
                key.since = started_at;
            }
            key.health = *health;
            key.given_up &= *health != KeyHealth::Usable;
            changed = true;
        }
    }
    if changed {
        next.probed_at = Some(started_at);
    }
    // INVARIANT (S7): what an agent called a mistake is none once a key is seen to refuse.
    if round.observations.values().any(|saw| matches!(saw, Observation::Refused(_))) {
        next.lift = None;
    }
    if is_cut_off(&next.lifecycle) {
        next.refused_for_certain |= a_key_refuses_for_certain(next);
    }
    changed
}
