//! The deciding function: `(policy, event, now) -> next policy, one fact, effects`, or a refusal.
//!
//! It is pure and total. The store commits state, fact, outbox rows and fence in one conditional
//! transaction, so the cut-off is one write whatever the number of instances (design, point 8).

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::calendar::{business_days_after, window_phase};
use crate::catalogue::{Catalogue, WindowPhase};
use crate::effect::{Effect, OutboxRow};
use crate::enrolment::Enrolment;
use crate::event::{Actor, Origin, PolicyEvent};
use crate::fact::{AuditHead, Fact, FactBody, derived_ticket_id};
use crate::fence::{Cause, Epoch, Fence};
use crate::ids::{PolicyId, TicketId};
use crate::observation::{Observation, ProbeRound, RefusalKind};
use crate::organisation::Organisation;
use crate::policy::{EncryptionPolicy, KeyHealth, Lifecycle, RegionalKey};
use crate::values::{Region, ShardId};

/// What the deciding function needs to know besides state and event.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// The vendor's catalogue.
    pub catalogue: &'a Catalogue,
    /// How long an ambiguous refusal has to persist (spec R4).
    pub ambiguity: SignedDuration,
    /// How far apart the two rounds that prove a revocation, or a restoration, may start.
    pub window: SignedDuration,
    /// A probe that started longer ago than this says nothing any more.
    pub freshness: SignedDuration,
}

/// What was decided. All of it is committed, or none.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The policy as it is from now on.
    pub next: EncryptionPolicy,
    /// The one fact.
    pub fact: Fact,
    /// What is to be done elsewhere.
    pub outbox: Vec<OutboxRow>,
}

/// Why nothing was decided.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The event is older than what is known: a late or reordered message.
    #[error("the event is older than what is already known")]
    Stale,
    /// The event changes nothing: a doubled message, or a probe that saw nothing new.
    #[error("the event changes nothing")]
    Redundant,
    /// The policy is not in a state in which this can happen.
    #[error("this cannot happen while the policy is {lifecycle}")]
    IllegalForState {
        /// The policy's lifecycle.
        lifecycle: &'static str,
    },
    /// The actor has no authority over this.
    #[error("only {who} may do this")]
    Forbidden {
        /// Who may.
        who: &'static str,
    },
    /// Some regions still refuse or do not answer.
    #[error("not every regional key is usable")]
    KeysNotUsable {
        /// What each of them answered.
        faults: BTreeMap<Region, Observation>,
    },
    /// The request names another ticket than the policy's.
    #[error("the ticket is not the open ticket of this revocation")]
    WrongTicket {
        /// The right one.
        expected: Option<TicketId>,
    },
    /// The window for self-service is over (spec S3).
    #[error("the restoration window is over")]
    WindowLapsed,
}

/// What an arm of the decision changes; the fact and the outbox rows are made from it.
struct Change {
    next: EncryptionPolicy,
    effects: Vec<Effect>,
}

/// Creates a policy from an accepted enrolment (spec E4: the store makes sure that it is the only one).
pub fn enrol(
    rules: &Rules<'_>,
    organisation: &Organisation,
    enrolment: &Enrolment,
    id: PolicyId,
    shard: ShardId,
    origin: &Origin,
    now: Timestamp,
) -> Result<Decision, Refusal> {
    let Actor::OrgAdmin(by) = &origin.actor else {
        return Err(Refusal::Forbidden { who: "an org admin" });
    };
    let due_at = due(rules, now);
    let self_service = rules.catalogue.self_service_approval;
    let lifecycle = if self_service {
        Lifecycle::Verifying { since: now, due_at }
    } else {
        Lifecycle::Requested { at: now, by: by.clone(), due_at }
    };
    let keys = enrolment.keys.iter().map(|(region, arn)| {
        let key = RegionalKey { arn: arn.clone(), canary: None, health: KeyHealth::Unknown, since: now };
        (region.clone(), key)
    });
    let next = EncryptionPolicy {
        id,
        organisation: organisation.id,
        organisation_name: organisation.name.clone(),
        mode: enrolment.mode,
        realm: enrolment.realm.clone(),
        account: enrolment.account.clone(),
        context_tag: enrolment.context_tag.clone(),
        shard,
        keys: keys.collect(),
        lifecycle,
        fence: Fence::default(),
        generation: 1,
        ticket: None,
        told: Epoch::default(),
        probed_at: None,
        audit: AuditHead::default(),
        version: 0,
    };
    let effects = if self_service { vec![Effect::VerifyPolicy] } else { Vec::new() };
    let event = serde_json::json!({ "event": "enrolment-requested", "enrolment": enrolment });
    Ok(committed(Change { next, effects }, "enrolment-requested", event, origin, now))
}

/// Decides what an event does to a policy.
///
/// # Errors
/// A typed refusal: the policy stays as it is and nothing is recorded.
pub fn decide(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    event: &PolicyEvent,
    origin: &Origin,
    now: Timestamp,
) -> Result<Decision, Refusal> {
    let change = match event {
        PolicyEvent::EnrolmentApproved => enrolment_approved(policy, origin, now),
        PolicyEvent::EnrolmentRejected { reason } => enrolment_rejected(policy, reason, origin, now),
        PolicyEvent::KeysVerified { canaries, round } => keys_verified(rules, policy, canaries, round, now),
        PolicyEvent::VerificationFailed { faults } => verification_failed(policy, faults, now),
        PolicyEvent::ProbesReported { rounds } => probes_reported(rules, policy, rounds, now),
        PolicyEvent::RestorationRequested { ticket, round } => {
            restoration_requested(rules, policy, *ticket, round, origin, now)
        }
        PolicyEvent::RestorationProbed { rounds } => restoration_probed(rules, policy, rounds, now),
        PolicyEvent::InstancesRestored { epoch } => instances_restored(policy, *epoch),
        PolicyEvent::InstancesSuspended { epoch, instances } => {
            instances_suspended(policy, *epoch, *instances)
        }
    }?;
    let json = serde_json::to_value(event).unwrap_or_default();
    Ok(committed(change, event.slug(), json, origin, now))
}

/// Whether a round has to be confirmed by a second one before it can suspend (or be dropped). Asked
/// by the prober between its two rounds; the same test that [`decide`] applies.
pub fn wants_confirmation(rules: &Rules<'_>, policy: &EncryptionPolicy, round: &ProbeRound) -> bool {
    let open = match policy.lifecycle {
        Lifecycle::Active { .. } | Lifecycle::Restoring { .. } => true,
        Lifecycle::Requested { .. }
        | Lifecycle::Verifying { .. }
        | Lifecycle::Suspended { .. }
        | Lifecycle::Lapsed { .. }
        | Lifecycle::Closed { .. }
        | Lifecycle::Rejected { .. } => false,
    };
    let seen = observed(rules, policy, round);
    open && revoked(rules, &seen)
}

fn due(rules: &Rules<'_>, now: Timestamp) -> Timestamp {
    let rules = &rules.catalogue.due;
    business_days_after(rules, now, rules.provisioning_business_days)
}

fn committed(
    change: Change,
    slug: &'static str,
    event: serde_json::Value,
    origin: &Origin,
    now: Timestamp,
) -> Decision {
    let Change { mut next, effects } = change;
    let body = FactBody {
        stream: next.id.as_uuid(),
        organisation: next.organisation_name.clone(),
        slug,
        event,
        state: next.lifecycle.slug(),
        fence: Some(next.fence.clone()),
    };
    let (head, fact) = next.audit.append(body, origin, now);
    next.audit = head;
    next.version = next.version.saturating_add(1);
    let outbox = effects
        .into_iter()
        .enumerate()
        .map(|(index, effect)| OutboxRow {
            id: fact.effect_id(index),
            organisation: next.organisation_name.clone(),
            policy: next.id,
            epoch: next.fence.epoch,
            effect,
            correlation: origin.correlation,
            created_at: now,
        })
        .collect();
    Decision { next, fact, outbox }
}

fn illegal<T>(policy: &EncryptionPolicy) -> Result<T, Refusal> {
    Err(Refusal::IllegalForState { lifecycle: policy.lifecycle.slug() })
}

fn enrolment_approved(policy: &EncryptionPolicy, origin: &Origin, now: Timestamp) -> Result<Change, Refusal> {
    let Actor::Support(_) = origin.actor else {
        return Err(Refusal::Forbidden { who: "a support agent" });
    };
    match policy.lifecycle {
        Lifecycle::Requested { due_at, .. } => {
            let mut next = policy.clone();
            next.lifecycle = Lifecycle::Verifying { since: now, due_at };
            Ok(Change { next, effects: vec![Effect::VerifyPolicy] })
        }
        Lifecycle::Verifying { .. } => Err(Refusal::Redundant),
        Lifecycle::Active { .. }
        | Lifecycle::Suspended { .. }
        | Lifecycle::Restoring { .. }
        | Lifecycle::Lapsed { .. }
        | Lifecycle::Closed { .. }
        | Lifecycle::Rejected { .. } => illegal(policy),
    }
}

fn enrolment_rejected(
    policy: &EncryptionPolicy,
    reason: &str,
    origin: &Origin,
    now: Timestamp,
) -> Result<Change, Refusal> {
    let Actor::Support(_) = origin.actor else {
        return Err(Refusal::Forbidden { who: "a support agent" });
    };
    let Lifecycle::Requested { .. } = policy.lifecycle else {
        return illegal(policy);
    };
    Ok(rejected(policy, reason.to_owned(), now))
}

fn rejected(policy: &EncryptionPolicy, reason: String, now: Timestamp) -> Change {
    let mut next = policy.clone();
    next.lifecycle = Lifecycle::Rejected { at: now, reason };
    Change { next, effects: Vec::new() }
}

fn keys_verified(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    canaries: &BTreeMap<Region, String>,
    round: &ProbeRound,
    now: Timestamp,
) -> Result<Change, Refusal> {
    match policy.lifecycle {
        Lifecycle::Verifying { .. } => {}
        Lifecycle::Active { .. } => return Err(Refusal::Redundant),
        Lifecycle::Requested { .. }
        | Lifecycle::Suspended { .. }
        | Lifecycle::Restoring { .. }
        | Lifecycle::Lapsed { .. }
        | Lifecycle::Closed { .. }
        | Lifecycle::Rejected { .. } => return illegal(policy),
    }
    all_usable(rules, policy, round, now)?;
    if !policy.keys.keys().all(|region| canaries.contains_key(region)) {
        return Err(Refusal::KeysNotUsable { faults: BTreeMap::new() });
    }
    let mut next = policy.clone();
    for (region, key) in &mut next.keys {
        key.canary = canaries.get(region).cloned();
    }
    believe(&mut next, &observed(rules, policy, round), round.started_at);
    next.lifecycle = Lifecycle::Active { since: now };
    Ok(Change { next, effects: Vec::new() })
}

fn verification_failed(
    policy: &EncryptionPolicy,
    faults: &BTreeMap<Region, String>,
    now: Timestamp,
) -> Result<Change, Refusal> {
    let Lifecycle::Verifying { .. } = policy.lifecycle else {
        return illegal(policy);
    };
    let list: Vec<String> = faults.iter().map(|(region, fault)| format!("{region}: {fault}")).collect();
    Ok(rejected(policy, format!("the keys did not stand the verification ({})", list.join("; ")), now))
}

/// What a round makes of each key's health.
fn observed(rules: &Rules<'_>, policy: &EncryptionPolicy, round: &ProbeRound) -> BTreeMap<Region, KeyHealth> {
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
const fn ambiguous_since(health: KeyHealth) -> Option<Timestamp> {
    match health {
        KeyHealth::Refused { kind, refused_since, .. } if !kind.is_definite() => refused_since,
        KeyHealth::NoAnswer { refused_since, .. } => refused_since,
        KeyHealth::Refused { .. } | KeyHealth::Unknown | KeyHealth::Usable => None,
    }
}

fn refusal(
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
fn revoked(rules: &Rules<'_>, seen: &BTreeMap<Region, KeyHealth>) -> bool {
    let mut refused = seen.values().map(|health| health.stands_refused());
    if rules.catalogue.any_region_is_enough {
        refused.any(|stands| stands)
    } else {
        !seen.is_empty() && refused.all(|stands| stands)
    }
}

/// Whether two rounds prove the same thing together: the second started after the first, and soon.
fn within_window(rules: &Rules<'_>, first: &ProbeRound, second: &ProbeRound) -> bool {
    let apart = second.started_at.duration_since(first.started_at);
    apart >= SignedDuration::ZERO && apart <= rules.window
}

/// Drops rounds that say nothing any more (design, point 7).
fn fresh(
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

fn all_usable(
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

/// Writes what was seen into the policy; says whether anything changed.
fn believe(next: &mut EncryptionPolicy, seen: &BTreeMap<Region, KeyHealth>, started_at: Timestamp) -> bool {
    let mut changed = false;
    for (region, key) in &mut next.keys {
        if let Some(health) = seen.get(region).filter(|health| **health != key.health) {
            if health.slug() != key.health.slug() {
                key.since = started_at;
            }
            key.health = *health;
            changed = true;
        }
    }
    if changed {
        next.probed_at = Some(started_at);
    }
    changed
}

fn probes_reported(
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
fn proven_revoked(
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
fn cut_off(rules: &Rules<'_>, mut next: EncryptionPolicy, now: Timestamp) -> Change {
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

fn back_to_suspended(mut next: EncryptionPolicy, cut_off_at: Timestamp) -> Change {
    next.lifecycle = Lifecycle::Suspended { cut_off_at };
    let body = format!(
        "The restoration stopped: the keys refuse again.\n{}\nNothing was lost; ask again when every key is back.",
        key_lines(&next)
    );
    let effects = next.ticket.map(|ticket| Effect::CommentTicket { ticket, body });
    Change { next, effects: effects.into_iter().collect() }
}

fn key_lines(policy: &EncryptionPolicy) -> String {
    let lines: Vec<String> = policy
        .keys
        .iter()
        .map(|(region, key)| {
            let help = key.help().map(|help| format!(": {help}")).unwrap_or_default();
            format!("- {region}: {} is {}{help}", key.arn, key.health.slug())
        })
        .collect();
    lines.join("\n")
}

/// Opens the ticket of the revocation, or adds to it.
fn tell(
    rules: &Rules<'_>,
    next: &mut EncryptionPolicy,
    body: String,
    now: Timestamp,
    effects: &mut Vec<Effect>,
) {
    if let Some(ticket) = next.ticket {
        effects.push(Effect::CommentTicket { ticket, body });
        return;
    }
    let seq = next.audit.seq.saturating_add(1);
    let ticket = derived_ticket_id(next.id.as_uuid(), seq, now);
    let title = rules
        .catalogue
        .modes
        .get(&next.mode)
        .map(|mode| mode.revocation_title.replace("{account}", next.account.as_str()))
        .unwrap_or_default();
    next.ticket = Some(ticket);
    effects.push(Effect::OpenTicket { ticket, title, body });
}

/// Warns when regions newly stand refused while others work, and says when all is well again
/// (spec R5: one region alone is *degraded*, warned of at once).
fn tell_of_regions(
    rules: &Rules<'_>,
    before: &EncryptionPolicy,
    next: &mut EncryptionPolicy,
    now: Timestamp,
) -> Vec<Effect> {
    let standing = |policy: &EncryptionPolicy| -> BTreeSet<Region> {
        let refused = policy.keys.iter().filter(|(_, key)| key.health.stands_refused());
        refused.map(|(region, _)| region.clone()).collect()
    };
    let (was, is) = (standing(before), standing(next));
    let mut effects = Vec::new();
    if is.difference(&was).next().is_some() {
        let still: Vec<String> = next
            .keys
            .keys()
            .filter(|region| !is.contains(*region))
            .map(|region| format!("the key in {region} still works"))
            .collect();
        let body = format!(
            "Revocation is incomplete: {}. Data stays readable.\n{}\nTo cut access off, take the other \
             keys away too; to end this, give every key back.",
            still.join(", "),
            key_lines(next)
        );
        tell(rules, next, body, now, &mut effects);
    } else if is.is_empty()
        && next.keys.values().all(|key| key.health == KeyHealth::Usable)
        && let Some(ticket) = next.ticket.take()
    {
        let body = "Every regional key works again; access was never cut off.".to_owned();
        effects.push(Effect::ResolveTicket { ticket, body });
    }
    effects
}

fn restoration_requested(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    ticket: TicketId,
    round: &ProbeRound,
    origin: &Origin,
    now: Timestamp,
) -> Result<Change, Refusal> {
    // INVARIANT (I5, S1): nobody but an org admin asks.
    let Actor::OrgAdmin(by) = &origin.actor else {
        return Err(Refusal::Forbidden { who: "an org admin" });
    };
    let cut_off_at = match policy.lifecycle {
        Lifecycle::Suspended { cut_off_at } => cut_off_at,
        Lifecycle::Restoring { .. } => return Err(Refusal::Redundant),
        Lifecycle::Lapsed { .. } => return Err(Refusal::WindowLapsed),
        Lifecycle::Requested { .. }
        | Lifecycle::Verifying { .. }
        | Lifecycle::Active { .. }
        | Lifecycle::Closed { .. }
        | Lifecycle::Rejected { .. } => return illegal(policy),
    };
    if policy.ticket != Some(ticket) {
        return Err(Refusal::WrongTicket { expected: policy.ticket });
    }
    let (phase, _) = window_phase(rules.catalogue, policy.mode, cut_off_at, now);
    if phase == WindowPhase::Lapsed {
        return Err(Refusal::WindowLapsed);
    }
    all_usable(rules, policy, round, now)?;
    let mut next = policy.clone();
    believe(&mut next, &observed(rules, policy, round), round.started_at);
    next.lifecycle = Lifecycle::Restoring { since: now, cut_off_at, by: by.clone() };
    let body = "Restoration was asked for; every regional key answered and is being proven again.".to_owned();
    let effects = vec![Effect::CommentTicket { ticket, body }, Effect::ProveRestoration];
    Ok(Change { next, effects })
}

fn restoration_probed(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    rounds: &[ProbeRound],
    now: Timestamp,
) -> Result<Change, Refusal> {
    let cut_off_at = match policy.lifecycle {
        Lifecycle::Restoring { cut_off_at, .. } => cut_off_at,
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
    believe(&mut next, &seen, last.started_at);
    // Spec S6: one region that refuses in both rounds is enough to stop a restoration, as all are needed.
    let before = observed(rules, policy, first);
    let refused_twice = seen.iter().any(|(region, health)| {
        health.stands_refused() && before.get(region).is_some_and(|health| health.stands_refused())
    });
    if refused_twice && within_window(rules, first, last) {
        return Ok(back_to_suspended(next, cut_off_at));
    }
    // INVARIANT (I5): the key cause is lifted only on fresh, consistent probes of all regions.
    all_usable(rules, policy, first, now)?;
    all_usable(rules, policy, last, now)?;
    if !within_window(rules, first, last) {
        return Err(Refusal::Stale);
    }
    next.fence = next.fence.lifted(Cause::Key, now);
    next.lifecycle = Lifecycle::Active { since: now };
    let epoch = next.fence.epoch;
    let effects = vec![Effect::RestoreInstances { epoch }];
    Ok(Change { next, effects })
}

/// Whether a finished fan-out is news: of the fence's own epoch, and for the first time.
fn newly_told(policy: &EncryptionPolicy, epoch: Epoch) -> Result<(), Refusal> {
    if epoch < policy.fence.epoch {
        return Err(Refusal::Stale);
    }
    if epoch == policy.told {
        return Err(Refusal::Redundant);
    }
    Ok(())
}

fn instances_restored(policy: &EncryptionPolicy, epoch: Epoch) -> Result<Change, Refusal> {
    newly_told(policy, epoch)?;
    let Lifecycle::Active { .. } = policy.lifecycle else {
        return illegal(policy);
    };
    let mut next = policy.clone();
    next.told = epoch;
    let body = "Access is restored for every app instance. No acknowledged write was lost.".to_owned();
    let effects = next.ticket.take().map(|ticket| Effect::ResolveTicket { ticket, body });
    Ok(Change { next, effects: effects.into_iter().collect() })
}

fn instances_suspended(policy: &EncryptionPolicy, epoch: Epoch, instances: u64) -> Result<Change, Refusal> {
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
