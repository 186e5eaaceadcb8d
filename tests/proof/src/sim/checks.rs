//! The invariants, looked at whenever something changes or is given out. The observer knows the truth about the
//! keys, the requests and the time; the system does not.

use std::collections::BTreeSet;

use claviger_app::hand_out_data_key::HandedOut;
use claviger_app::ports::Beat;
use claviger_domain::catalogue::Mode;
use claviger_domain::decide::Decision;
use claviger_domain::event::Actor;
use claviger_domain::fact::AuditHead;
use claviger_domain::fence::Cause;
use claviger_domain::ids::PolicyId;
use claviger_domain::instance::{AppInstance, InstanceDecision};
use claviger_domain::policy::{EncryptionPolicy, KeyHealth, Lifecycle, RegionalKey};
use claviger_domain::ticket::Ticket;
use claviger_domain::values::{KeyArn, ShardId};

use super::ports::Use;
use super::world::{OrgTruth, World, millis, settings};

/// How old a probe may be that a decision stands on (freshness of a round, its window, the way).
const PROBE_AGE: i64 = 45_000;

impl World {
    pub(super) fn checked(&self, invariant: &'static str, holds: bool, what: impl FnOnce() -> String) {
        self.state().checks += 1;
        if !holds {
            self.violated(invariant, what());
        }
    }

    fn org_of(&self, policy: PolicyId) -> Option<(usize, OrgTruth)> {
        let state = self.state();
        let found = state.orgs.iter().position(|org| org.policy.is_some_and(|(id, _)| id == policy));
        found.and_then(|index| Some((index, state.orgs.get(index)?.clone())))
    }

    /// A decision about a policy was committed.
    pub fn policy_committed(&self, previous: Option<&EncryptionPolicy>, decision: &Decision) {
        let next = &decision.next;
        let now = self.now();
        self.note(|| {
            let health: Vec<String> =
                next.keys.iter().map(|(region, key)| format!("{region} {}", key.health.slug())).collect();
            format!(
                "{} {} -> {} ({})",
                next.organisation_name,
                decision.fact.slug,
                decision.fact.state,
                health.join(", ")
            )
        });
        let head = previous.map(|policy| policy.audit.clone()).unwrap_or_default();
        let version = previous.map_or(0, |policy| policy.version);
        let one =
            decision.fact.follows(&head) && next.version == version + 1 && next.audit.seq == next.version;
        self.checked("I4", one, || format!("decision {} has not one fact that follows", decision.fact.slug));
        {
            let mut state = self.state();
            if let Some(org) = state.orgs.iter_mut().find(|org| org.name == next.organisation_name) {
                org.policy = Some((next.id, next.shard));
                if next.lifecycle.slug() == "closed" {
                    org.active_since = None;
                } else if next.lifecycle.slug() == "active" && org.active_since.is_none() {
                    org.active_since = Some(now);
                    org.last_proof = now;
                }
            }
            for row in &decision.outbox {
                state.old_mail.push(super::world::Message::Effect(Box::new(row.clone())));
            }
        }
        for row in &decision.outbox {
            self.send(super::world::Message::Stream(Box::new(row.clone())), 0);
        }
        let Some((index, org)) = self.org_of(next.id) else { return };
        self.causes_changed(index, &org, previous, decision);
        let was_open = previous.is_none_or(|policy| policy.fence.is_open());
        if let Some(org) = self.state().orgs.get_mut(index) {
            match (was_open, next.fence.is_open()) {
                (true, false) => {
                    org.closed_at = Some(now);
                    org.cut_offs += 1;
                }
                (false, true) => {
                    org.closed_at = None;
                    org.last_proof = now;
                }
                (true, true) | (false, false) => {}
            }
            let stands_on = next.keys.values().filter(|key| !key.given_up).map(|key| key.arn.clone());
            let keys: Vec<KeyArn> = stands_on.collect();
            if keys != org.keys {
                org.keys = keys;
                org.keys_since = now;
            }
        }
        let replacements = next.keys.values().filter_map(|key| key.replacement.as_ref());
        let named: Vec<KeyArn> = replacements.map(|replacement| replacement.arn.clone()).collect();
        if let Some(org) = self.state().orgs.get_mut(index) {
            org.named.extend(named);
        }
        let of_records = |policy: &EncryptionPolicy| {
            let arns: Vec<KeyArn> = policy.keys.values().map(|key| key.arn.clone()).collect();
            (arns, policy.former_keys.len(), policy.reencryption.as_ref().map(|job| job.keys.clone()))
        };
        if previous.is_none_or(|policy| of_records(policy) != of_records(next)) {
            self.records_are_sound(index, None);
        }
        if previous.is_some_and(|policy| policy.reencryptions.len() < next.reencryptions.len()) {
            self.job_ended(index, next);
        }
    }

    /// Each cause comes and goes by its own rule alone.
    fn causes_changed(
        &self,
        index: usize,
        org: &OrgTruth,
        previous: Option<&EncryptionPolicy>,
        decision: &Decision,
    ) {
        let (next, now) = (&decision.next, self.now());
        let had = |cause| previous.is_some_and(|policy| policy.fence.causes.contains(&cause));
        let has = |cause| next.fence.causes.contains(&cause);
        if !had(Cause::Key)
            && has(Cause::Key)
            && let Some(known) = previous
        {
            self.may_close(org, known, now);
            let taken = org.mode == Mode::Cmk && self.is_taken(known, now);
            if let Some(org) = self.state().orgs.get_mut(index) {
                (org.cause_at, org.taken) = (Some(now), taken);
            }
        }
        // Whoever saw it, and whatever the key says afterwards: it is in the stored policy that its owner did something.
        let said =
            |key: &RegionalKey| matches!(key.health, KeyHealth::Refused { kind, .. } if kind.is_definite());
        if had(Cause::Key)
            && has(Cause::Key)
            && next.keys.values().any(|key| !key.given_up && said(key))
            && let Some(org) = self.state().orgs.get_mut(index)
        {
            org.taken = true;
        }
        if had(Cause::Key) && !has(Cause::Key) {
            self.may_lift(org, next, now);
            if let Some(org) = self.state().orgs.get_mut(index) {
                org.cause_at = None;
            }
        }
        let by_support = matches!(decision.fact.actor, Actor::Support(_));
        // What support ordered, support lifts; what was over an access request, the proof of its permission does.
        let proven = !has(Cause::Vendor) && decision.fact.slug == "permission-proven";
        let by_its_rule = by_support || proven;
        self.checked("I5", had(Cause::Vendor) == has(Cause::Vendor) || by_its_rule, || {
            format!("the vendor's cause of {} came or went without support", org.name)
        });
        self.checked("I5", !had(Cause::Closing) || has(Cause::Closing), || {
            format!("{} left, and its fence forgot it", org.name)
        });
        if !had(Cause::Closing) && has(Cause::Closing) {
            let asked = org.leaves && previous.is_some_and(|policy| policy.closing.is_some());
            self.checked("I2", asked, || format!("{} was closed and had not asked", org.name));
        }
        let lapsed = previous.is_some_and(|policy| matches!(policy.lifecycle, Lifecycle::Lapsed { .. }));
        let carried = decision.fact.slug == "restoration-carried-out" && by_support;
        let restoring = matches!(next.lifecycle, Lifecycle::Restoring { .. });
        self.checked("I5", !lapsed || !restoring || carried, || {
            format!("{} lapsed, and is restored without support", org.name)
        });
        let asked_at = decision.fact.event.get("askedAt").and_then(serde_json::Value::as_str);
        let asked_at = asked_at.and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let anew =
            asked_at.is_some_and(|at| org.stopped_at.is_none_or(|stopped| at.as_millisecond() > stopped));
        self.checked("I5", !carried || anew, || {
            format!("support carried a request of {} out that had been carried out before", org.name)
        });
        let was_restoring = previous.is_some_and(|it| matches!(it.lifecycle, Lifecycle::Restoring { .. }));
        let stopped = matches!(next.lifecycle, Lifecycle::Suspended { .. } | Lifecycle::Lapsed { .. });
        if was_restoring
            && stopped
            && let Some(org) = self.state().orgs.get_mut(index)
        {
            org.stopped_at = Some(now);
        }
    }

    /// Whether its owner had disabled a key for so long that every probe which counts saw just that.
    fn is_taken(&self, known: &EncryptionPolicy, now: i64) -> bool {
        let mut keys =
            known.keys.values().filter(|key| !key.given_up).filter_map(|key| self.kms.key(&key.arn));
        keys.any(|key| key.now.is_definite() && key.visible_at <= now - PROBE_AGE)
    }

    /// I2: only what the customer really did closes a fence.
    fn may_close(&self, org: &OrgTruth, known: &EncryptionPolicy, now: i64) {
        let ambiguity = millis(settings().ambiguity);
        for arn in known.keys.values().filter(|key| !key.given_up).map(|key| &key.arn) {
            let Some(key) = self.kms.key(arn) else { continue };
            let since = now - PROBE_AGE;
            self.checked("I2", key.refused_since(since), || {
                format!("{} was cut off; {arn} never refused", org.name)
            });
            if key.definite_since(since) {
                continue;
            }
            // A sample a minute: what was denied at both ends counts as denied between.
            let long = key.denied_between(now - ambiguity - 260_000, now - ambiguity + 1_000);
            self.checked("I2", long, || {
                format!("{} was cut off; {arn} was denied for less than a minute", org.name)
            });
            let ill = self.kms.was_ill_throughout(arn.region(), now - ambiguity, now);
            self.checked("I2", !ill, || format!("{} was cut off while the control probe was ill", org.name));
        }
    }

    /// I5: only what an org admin asked for, or what two agents called a mistake, lifts the cause of the keys, and only
    /// with keys that work: all of them, or all but those without which the admin asked for it.
    fn may_lift(&self, org: &OrgTruth, next: &EncryptionPolicy, now: i64) {
        let closed = org.cause_at.unwrap_or(i64::MAX);
        let given_up = next.keys.values().any(|key| key.given_up);
        let asked = org.asked.iter().any(|(asked, without)| *asked >= closed && (*without || !given_up));
        let agents: BTreeSet<_> =
            org.agents.iter().filter(|(_, said)| *said >= closed).map(|(who, _)| who).collect();
        self.checked("I5", asked || (agents.len() > 1 && !given_up), || {
            format!("the fence of {} opened and neither an org admin nor two agents had asked", org.name)
        });
        self.checked("I5", asked || !org.taken, || {
            format!("two agents called it a mistake that {} had disabled a key", org.name)
        });
        for arn in next.keys.values().filter(|key| !key.given_up).map(|key| &key.arn) {
            let usable = self.kms.key(arn).is_some_and(|key| key.usable_since(now - PROBE_AGE));
            self.checked("I5", usable, || format!("the fence of {} opened while {arn} refuses", org.name));
        }
    }

    /// A decision about an instance was committed.
    pub fn instance_committed(&self, previous: Option<&AppInstance>, decision: &InstanceDecision) {
        let next = &decision.next;
        self.note(|| format!("{}/{} {} -> {}", next.site, next.app, decision.fact.slug, decision.fact.state));
        let head: AuditHead = previous.map(|instance| instance.audit.clone()).unwrap_or_default();
        let one = decision.fact.follows(&head) && next.audit.seq == next.version;
        self.checked("I4", one, || format!("decision {} has not one fact that follows", decision.fact.slug));
        for row in &decision.outbox {
            self.send(super::world::Message::Stream(Box::new(row.clone())), 0);
        }
        if matches!(decision.fact.slug.as_str(), "suspension-ordered" | "restoration-ordered") {
            let newer = previous.is_some_and(|known| known.epoch < next.epoch);
            self.checked("I4", newer, || {
                format!("an order of epoch {} changed {}/{}", next.epoch.0, next.site, next.app)
            });
            let ours =
                now_or_never(claviger_app::ports::Policies::policy(&self.store, &next.organisation_name));
            let epoch = ours.and_then(Result::ok).flatten().map(|policy| policy.fence.epoch);
            let known = epoch.is_some_and(|epoch| next.epoch <= epoch);
            self.checked("I4", known, || format!("an order of epoch {} that nobody gave", next.epoch.0));
        }
    }

    /// A ticket was stored.
    pub fn ticket_saved(&self, ticket: &Ticket) {
        let mut effects: Vec<_> = ticket.comments.iter().filter_map(|comment| comment.effect).collect();
        let count = effects.len();
        effects.sort();
        effects.dedup();
        self.checked("I4", effects.len() == count, || {
            format!("an effect wrote twice on ticket {}", ticket.id)
        });
    }

    /// A sweep said that its shard is watched.
    pub fn beaten(&self, shard: ShardId, beat: &Beat) {
        let swept = beat.swept_at.as_millisecond();
        for org in &mut self.state().orgs {
            if let Some((policy, of)) = org.policy
                && of == shard
                && !beat.unproven.contains_key(&policy)
            {
                org.last_proof = org.last_proof.max(swept);
            }
        }
    }

    /// A customer's key decrypted something.
    pub fn key_used(&self, key: &KeyArn, why: Use) {
        let now = self.now();
        let owner = self.state().owners.get(key).copied();
        let Some(index) = owner else { return };
        let org = self.state().orgs.get(index).cloned();
        let Some(org) = org else { return };
        let bound = millis(settings().lease);
        let open = org.closed_at.is_none_or(|closed| now <= closed + bound);
        match why {
            Use::Canary => {}
            Use::Work => self.checked("I1", open, || {
                format!("a data key of {} was unwrapped after its fence closed", org.name)
            }),
            Use::Proof => {
                let since = org.cause_at.unwrap_or(i64::MAX);
                let asked = org.asked.iter().any(|(asked, without)| *without && *asked >= since);
                self.checked("I1", open || asked, || {
                    format!("data keys of {} were unwrapped for a proof that nobody asked for", org.name)
                });
            }
        }
        if org.keys.contains(key)
            && let Some(org) = self.state().orgs.get_mut(index)
        {
            org.last_proof = org.last_proof.max(now);
        }
    }

    /// The library gave something out, or took something, for an organisation.
    pub fn gave_out(&self, index: usize, what: &str) {
        let now = self.now();
        let (org, trouble, dead) = {
            let state = self.state();
            let Some(org) = state.orgs.get(index).cloned() else { return };
            (org, state.trouble, state.watcher_dead)
        };
        self.note(|| format!("{what} for {}", org.name));
        let settings = settings();
        let lease = millis(settings.lease);
        self.checked("I1", org.closed_at.is_none_or(|closed| now <= closed + lease), || {
            let closed = org.closed_at.map_or(0, |closed| now - closed);
            format!("{what} for {} {closed} ms after its fence closed", org.name)
        });
        if dead {
            let bound = millis(settings.unwatched_bound());
            self.checked("I3", now <= org.last_proof + bound, || {
                format!("{what} for {} {} ms after the last proof", org.name, now - org.last_proof)
            });
        }
        // The published bounds, counted from when KMS first refuses everywhere for good, or from when the watcher was
        // last not all right.
        let keys: Option<Vec<_>> = org.keys.iter().map(|arn| self.kms.key(arn)).collect();
        let keys = keys.unwrap_or_default();
        if keys.is_empty() || !keys.iter().all(|key| key.now.refuses()) {
            return;
        }
        let definite = keys.iter().all(|key| key.now.is_definite());
        let ill = org.keys.iter().any(|arn| self.kms.was_ill_since(arn.region(), now - 400_000));
        if !definite && ill {
            return;
        }
        let ambiguous = settings.ambiguous_cut_off_bound();
        let bound = millis(if definite { settings.cut_off_bound() } else { ambiguous });
        let since =
            keys.iter().map(|key| key.visible_at).max().unwrap_or(now).max(trouble).max(org.keys_since);
        self.checked("I3", now <= since + bound, || {
            let kind = if definite { "definite" } else { "ambiguous" };
            format!("{what} for {} {} ms after a {kind} refusal everywhere", org.name, now - since)
        });
    }

    /// The broker handed a data key out to somebody who asked in an organisation's name.
    pub fn handed_out(&self, asked_as: usize, key: &HandedOut) {
        let now = self.now();
        let (org, owner) = {
            let state = self.state();
            (state.orgs.get(asked_as).cloned(), state.data_keys.get(&key.id).copied())
        };
        let Some(org) = org else { return };
        let own = key.organisation == org.id && owner.is_some_and(|(_, owner)| owner == org.id);
        self.checked("I7", own, || format!("{} got a data key of somebody else", org.name));
        let lease = millis(settings().lease);
        let within = org.closed_at.is_none_or(|closed| now <= closed + lease);
        self.checked("I1", within, || {
            format!("the broker gave a key of {} after its fence closed", org.name)
        });
    }

    /// Every chain of facts, from its first to its last.
    pub fn check_chains(&self) {
        let names: Vec<_> = self.state().orgs.iter().map(|org| org.name.clone()).collect();
        for name in names {
            let mut heads = std::collections::BTreeMap::<uuid::Uuid, AuditHead>::new();
            for fact in self.store.all_facts(&name) {
                let head = heads.entry(fact.stream).or_default();
                let follows = fact.seq == head.seq + 1 && fact.previous == head.hash;
                self.checked("I4", follows, || format!("fact {} of {name} does not follow", fact.seq));
                *head = AuditHead { seq: fact.seq, hash: fact.hash };
            }
            let policy = now_or_never(claviger_app::ports::Policies::policy(&self.store, &name));
            if let Some(Ok(Some(policy))) = policy {
                let whole = heads.get(&policy.id.as_uuid()) == Some(&policy.audit);
                self.checked("I4", whole, || {
                    format!("the chain of {name} does not end where its policy says")
                });
            }
        }
    }
}

/// The result of a future of the store in memory, which never waits.
pub fn now_or_never<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}
