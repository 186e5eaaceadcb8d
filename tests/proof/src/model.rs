//! The exhaustive check: every order of every step of one organisation, over production's deciding functions.
//!
//! A breadth-first search of our own: states are told apart by what can still matter (hashes of facts and ages beyond
//! every deadline do not), and liveness is asked of every state on its own, by a fair drain, which a checker's
//! `eventually` cannot do (it misses cycles and knows no fairness). Steps are as small as the awaits of the use cases:
//! a probe's rounds, its report, a page of a fan-out and each instance on it are steps, so that a crash is a step that
//! does not come. How the use cases themselves take a fault at each call is the simulation's to show.

mod pair;
mod search;

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use claviger_domain::decide::{Decision, Refusal, decide, wants_confirmation};
use claviger_domain::effect::{Effect, Order, OutboxRow};
use claviger_domain::event::{Actor, InstanceEvent, Origin, PolicyEvent};
use claviger_domain::fence::{Cause, Epoch};
use claviger_domain::instance::{AppInstance, InstanceDecision, InstanceStatus, decide_instance};
use claviger_domain::observation::{NoAnswerKind, Observation, ProbeRound, RefusalKind};
use claviger_domain::policy::{EncryptionPolicy, KeyHealth, Lifecycle, RegionalKey};
use claviger_domain::values::Region;
use claviger_domain::vendor::Ground;
use claviger_testkit::builders;
use jiff::Timestamp;

pub use self::pair::explore_pair;
pub use self::search::{BOUNDED, DEEP, Search};

/// A second, in milliseconds.
const SECOND: i64 = 1_000;
/// How far a step of the clock goes.
const STEP: i64 = 10 * SECOND;
const LEASE: i64 = 30 * SECOND;
/// How long an ambiguous refusal persists before it counts.
const AMBIGUITY: i64 = 60 * SECOND;
/// How old a probe may be that a decision stands on.
const PROBE_AGE: i64 = 45 * SECOND;

/// What decides. Production's functions, unless a twin puts a defect in front of one.
pub trait Mind: Sync {
    /// Decides about a policy.
    ///
    /// # Errors
    /// As production does.
    fn decide(
        &self,
        policy: &EncryptionPolicy,
        event: &PolicyEvent,
        origin: &Origin,
        now: Timestamp,
    ) -> Result<Decision, Refusal> {
        decide(&builders::rules(), policy, event, origin, now)
    }

    /// Decides about an instance.
    ///
    /// # Errors
    /// As production does.
    fn decide_instance(
        &self,
        instance: &AppInstance,
        event: &InstanceEvent,
        now: Timestamp,
    ) -> Result<InstanceDecision, Refusal> {
        decide_instance(instance, event, &builders::by_claviger(), now)
    }

    /// When a lease begins whose read was sent and answered then.
    fn lease_from(&self, sent: i64, _answered: i64) -> i64 {
        sent
    }
}

/// Production.
#[derive(Debug, Clone, Copy)]
pub struct Production;

impl Mind for Production {}

/// How far to search.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Regions of the realm: 1 or 2.
    pub regions: usize,
    /// Changes that the customer makes.
    pub changes: u8,
    /// Faults: an answer that does not come, a doubled or set-aside message, a crash, an ill control probe.
    pub faults: u8,
    /// What support does: suspend for the vendor, lift, call a suspension a mistake.
    pub support: u8,
    /// Steps of the clock. Without any, the data plane is left out: its lease can only run out by them.
    pub ticks: u8,
    /// Probes that are under way at once.
    pub probes: usize,
    /// Messages that wait at once, those of the outbox and those set aside included.
    pub waiting: usize,
    /// States at most.
    pub states: usize,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// States explored.
    pub states: usize,
    /// Transitions taken.
    pub transitions: usize,
    /// Whether the search ended by itself, and not at its bound.
    pub complete: bool,
    /// The first violation: which invariant, what, and the way there.
    pub violation: Option<(&'static str, String, Vec<String>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Usable,
    Disabled,
    Denied,
}

impl Key {
    const fn seen(self) -> Observation {
        match self {
            Self::Usable => Observation::Usable,
            Self::Disabled => Observation::Refused(RefusalKind::KeyDisabled),
            Self::Denied => Observation::Refused(RefusalKind::AccessDenied),
        }
    }
}

#[derive(Debug, Clone)]
struct Truth {
    region: Region,
    now: Key,
    before: Option<Key>,
    refused_at: Option<i64>,
    usable_at: i64,
}

#[derive(Debug, Clone)]
struct Probe {
    known: Arc<EncryptionPolicy>,
    rounds: Vec<ProbeRound>,
    confirms: bool,
}

#[derive(Debug, Clone)]
enum Mail {
    Prove(Epoch),
    Page { order: Order, epoch: Epoch, index: usize },
}

#[derive(Debug, Clone, Default)]
struct Plane {
    lease_from: Option<i64>,
    closed: bool,
    epoch: u64,
    key: Option<u64>,
    reading: Option<(i64, bool, u64)>,
}

#[derive(Debug, Clone)]
struct State {
    now: i64,
    policy: Arc<EncryptionPolicy>,
    instances: Vec<Arc<AppInstance>>,
    truth: Vec<Truth>,
    outbox: Vec<Arc<OutboxRow>>,
    mail: Vec<Mail>,
    aside: Vec<Mail>,
    probes: Vec<Probe>,
    plane: Plane,
    asked: bool,
    /// Who said that the suspension is a mistake, and has not been contradicted.
    agents: BTreeSet<&'static str>,
    support: u8,
    closed_at: Option<i64>,
    changes: u8,
    faults: u8,
    ticks: u8,
    probes_at_once: usize,
    waiting_at_once: usize,
    has_plane: bool,
    wrong: Option<(&'static str, String)>,
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).expect("an instant within the calendar")
}

fn start(bounds: Bounds) -> State {
    begin(bounds, "acme", "222222222222")
}

fn begin(bounds: Bounds, name: &str, account: &str) -> State {
    let realm = if bounds.regions == 1 { "germany" } else { "europe" };
    let enrolment = builders::an_enrolment(account, realm);
    let begun = builders::instant("2026-11-23T09:00:00Z");
    let policy = builders::an_active_policy(&builders::an_organisation(name), &enrolment, begun);
    let now = begun.as_millisecond() + 60 * SECOND;
    let instances = ["jira", "confluence"]
        .map(|app| Arc::new(builders::an_active_instance(&policy, &format!("{name}-eng"), app, begun)))
        .into();
    let truth = policy
        .keys
        .keys()
        .map(|region| Truth {
            region: region.clone(),
            now: Key::Usable,
            before: None,
            refused_at: None,
            usable_at: now,
        })
        .collect();
    State {
        now,
        policy: Arc::new(policy),
        instances,
        truth,
        outbox: Vec::new(),
        mail: Vec::new(),
        aside: Vec::new(),
        probes: Vec::new(),
        plane: Plane { lease_from: Some(now), key: Some(0), ..Plane::default() },
        asked: false,
        agents: BTreeSet::new(),
        support: bounds.support,
        closed_at: None,
        changes: bounds.changes,
        faults: bounds.faults,
        ticks: bounds.ticks,
        probes_at_once: bounds.probes,
        waiting_at_once: bounds.waiting,
        has_plane: bounds.ticks > 0,
        wrong: None,
    }
}

impl State {
    fn wrong(&mut self, invariant: &'static str, what: String) {
        self.wrong.get_or_insert((invariant, what));
    }

    /// What can still matter, as one number.
    fn fingerprint(&self) -> u64 {
        let age = |then: i64, most: i64| (self.now - then).clamp(-1, most * SECOND) / SECOND;
        let stamp = |then: Option<Timestamp>, most| then.map(|then| age(then.as_millisecond(), most));
        let mut hasher = DefaultHasher::new();
        self.policy.lifecycle.slug().hash(&mut hasher);
        // Epochs are compared and never counted: how far apart they are is what matters.
        let epoch = self.policy.fence.epoch.0;
        let behind = |other: u64| epoch.wrapping_sub(other);
        (epoch == 0, self.policy.fence.is_open(), behind(self.policy.told.0)).hash(&mut hasher);
        (&self.policy.fence.causes, &self.agents, self.support).hash(&mut hasher);
        self.policy.lift.as_ref().map(|first| first.by.as_str()).hash(&mut hasher);
        self.policy.refused_for_certain.hash(&mut hasher);
        (self.policy.ticket.is_some(), stamp(self.policy.probed_at, 31)).hash(&mut hasher);
        let health = |policy: &EncryptionPolicy, hasher: &mut DefaultHasher| {
            for key in policy.keys.values() {
                let since = match key.health {
                    KeyHealth::Refused { refused_since, .. } | KeyHealth::NoAnswer { refused_since, .. } => {
                        stamp(refused_since, 70)
                    }
                    KeyHealth::Unknown | KeyHealth::Usable => None,
                };
                (key.health.slug(), key.health.stands_refused(), since).hash(hasher);
            }
        };
        health(&self.policy, &mut hasher);
        for instance in &self.instances {
            (instance.status.slug(), behind(instance.epoch.0)).hash(&mut hasher);
        }
        for truth in &self.truth {
            let refused = truth.refused_at.map(|then| age(then, 46));
            (truth.now, truth.before, refused, age(truth.usable_at, 46)).hash(&mut hasher);
        }
        for row in &self.outbox {
            (std::mem::discriminant(&row.effect), behind(row.epoch.0)).hash(&mut hasher);
        }
        for mail in self.mail.iter().chain(&self.aside) {
            match mail {
                Mail::Prove(of) => (true, behind(of.0), 0, false).hash(&mut hasher),
                Mail::Page { order, epoch: of, index } => {
                    (false, behind(of.0), *index, *order == Order::Restore).hash(&mut hasher);
                }
            }
        }
        (self.mail.len(), self.aside.len()).hash(&mut hasher);
        for probe in &self.probes {
            (probe.known.version == self.policy.version, probe.confirms).hash(&mut hasher);
            health(&probe.known, &mut hasher);
            for round in &probe.rounds {
                let overtaken = self.policy.probed_at.is_some_and(|known| round.started_at <= known);
                (stamp(Some(round.started_at), 31), overtaken, round.controls_healthy).hash(&mut hasher);
                format!("{:?}", round.observations).hash(&mut hasher);
            }
        }
        let plane = &self.plane;
        let reading = plane.reading.map(|(sent, closed, epoch)| (age(sent, 31), closed, behind(epoch)));
        let key = plane.key.map(behind);
        (plane.lease_from.map(|from| age(from, 31)), plane.closed, behind(plane.epoch), key, reading)
            .hash(&mut hasher);
        (self.asked, self.closed_at.map(|then| age(then, 31))).hash(&mut hasher);
        (self.changes, self.faults, self.ticks).hash(&mut hasher);
        hasher.finish()
    }

    fn pass(&mut self, millis: i64) {
        self.now += millis;
        for truth in &mut self.truth {
            let meets = |key: Key, usable: bool| (key == Key::Usable) == usable;
            if meets(truth.now, true) || truth.before.is_some_and(|key| meets(key, true)) {
                truth.usable_at = self.now;
            }
            if meets(truth.now, false) || truth.before.is_some_and(|key| meets(key, false)) {
                truth.refused_at = Some(self.now);
            }
        }
        // I1: what the library's rule allows at this moment.
        let fresh = self.plane.lease_from.is_some_and(|from| self.now < from + LEASE);
        let usable =
            fresh && !self.plane.closed && self.plane.key.is_some_and(|epoch| epoch >= self.plane.epoch);
        if usable && self.closed_at.is_some_and(|closed| self.now > closed + LEASE) {
            self.wrong("I1", "a key is usable later than one lease after the fence closed".to_owned());
        }
    }

    fn commit(&mut self, decision: Decision) {
        let follows =
            decision.fact.follows(&self.policy.audit) && decision.next.version == self.policy.version + 1;
        if !follows {
            self.wrong("I4", "a decision has not one fact that follows".to_owned());
        }
        let (was, is) = (self.policy.fence.is_open(), decision.next.fence.is_open());
        if was && !is {
            self.closed_at = Some(self.now);
        }
        if !was && is {
            self.closed_at = None;
        }
        let before = self.policy.fence.causes.clone();
        let had = |cause| before.contains(&cause);
        let has = |cause| decision.next.fence.causes.contains(&cause);
        if !had(Cause::Key) && has(Cause::Key) {
            self.asked = false;
            let refused = |truth: &Truth| truth.refused_at.is_some_and(|then| self.now - then <= PROBE_AGE);
            if !self.truth.iter().all(refused) {
                self.wrong("I2", "the fence closed and a key had not refused".to_owned());
            }
        } else if had(Cause::Key) && !has(Cause::Key) {
            let usable = |truth: &Truth| self.now - truth.usable_at <= PROBE_AGE;
            let asked = self.asked || self.agents.len() > 1;
            if !asked || !self.truth.iter().all(usable) {
                let what = "the cause of the keys was lifted without an org admin or two agents, or without the keys";
                self.wrong("I5", what.to_owned());
            }
        }
        let by_support = matches!(decision.fact.actor, Actor::Support(_));
        if had(Cause::Vendor) != has(Cause::Vendor) && !by_support {
            self.wrong("I5", "the vendor's cause came or went without support".to_owned());
        }
        if decision.next.lift.is_none() {
            self.agents.clear();
        }
        let waits = |row: &OutboxRow| {
            matches!(
                row.effect,
                Effect::SuspendInstances { .. } | Effect::RestoreInstances { .. } | Effect::ProveRestoration
            )
        };
        self.outbox.extend(decision.outbox.into_iter().filter(waits).map(Arc::new));
        self.policy = Arc::new(decision.next);
    }

    /// Every round that a probe may see now: the truth, what has not spread yet, and, for a fault, no answer or an ill
    /// control probe.
    fn rounds(&self) -> Vec<(ProbeRound, u8)> {
        let mut seen: Vec<(BTreeMap<Region, Observation>, u8)> = vec![(BTreeMap::new(), 0)];
        for truth in &self.truth {
            let mut next = Vec::new();
            for (so_far, faults) in &seen {
                let mut with = |observation, fault: u8| {
                    let mut all = so_far.clone();
                    all.insert(truth.region.clone(), observation);
                    next.push((all, faults + fault));
                };
                with(truth.now.seen(), 0);
                if let Some(before) = truth.before {
                    with(before.seen(), 0);
                }
                if faults < &self.faults {
                    with(Observation::NoAnswer(NoAnswerKind::Throttled), 1);
                }
            }
            seen = next;
        }
        let mut rounds = Vec::new();
        for (observations, faults) in seen {
            let ambiguous = observations
                .values()
                .any(|saw| matches!(saw, Observation::Refused(kind) if !kind.is_definite()));
            let round = |controls_healthy| ProbeRound {
                started_at: at(self.now),
                observations: observations.clone(),
                controls_healthy,
                refused_unwrap: None,
            };
            rounds.push((round(ambiguous.then_some(true)), faults));
            if ambiguous && faults < self.faults {
                rounds.push((round(Some(false)), faults + 1));
            }
        }
        rounds
    }

    fn usable_round(&self) -> ProbeRound {
        let observations = self.truth.iter().map(|truth| (truth.region.clone(), truth.now.seen())).collect();
        ProbeRound {
            started_at: at(self.now),
            observations,
            controls_healthy: Some(true),
            refused_unwrap: None,
        }
    }

    fn report(&mut self, mind: &dyn Mind, probe: &Probe) {
        let event = PolicyEvent::ProbesReported { rounds: probe.rounds.clone(), heard: Vec::new() };
        let origin = builders::by_claviger();
        let Ok(decision) = mind.decide(&probe.known, &event, &origin, at(self.now)) else { return };
        if probe.known.version == self.policy.version {
            return self.commit(decision);
        }
        // The commit met a conflict: decided anew on what is there now.
        if let Ok(decision) = mind.decide(&self.policy.clone(), &event, &origin, at(self.now)) {
            self.commit(decision);
        }
    }

    fn ask(&mut self, mind: &dyn Mind, round: ProbeRound, origin: &Origin) {
        let Some(ticket) = self.policy.ticket else { return };
        let event = PolicyEvent::RestorationRequested { ticket, round, into_degraded: false };
        if let Ok(decision) = mind.decide(&self.policy.clone(), &event, origin, at(self.now)) {
            self.asked |= matches!(origin.actor, Actor::OrgAdmin(_));
            self.commit(decision);
        }
    }

    fn supported(&mut self, mind: &dyn Mind, who: &'static str, event: &PolicyEvent) {
        let actor = Actor::Support(who.parse().expect("a subject"));
        let origin = Origin { actor, correlation: builders::by_support().correlation };
        if let Ok(decision) = mind.decide(&self.policy.clone(), event, &origin, at(self.now)) {
            if matches!(event, PolicyEvent::MistakeDeclared { .. }) {
                self.agents.insert(who);
            }
            self.commit(decision);
        }
    }

    fn is_called_a_mistake(&mut self, mind: &dyn Mind, who: &'static str) {
        let rounds = vec![self.usable_round(), self.usable_round()];
        let event = PolicyEvent::MistakeDeclared { reason: "it is".to_owned(), rounds };
        self.supported(mind, who, &event);
    }

    /// Works a message off one step further; what is left of it.
    fn handle(&mut self, mind: &dyn Mind, mail: &Mail, round: &ProbeRound) -> Option<Mail> {
        match mail {
            Mail::Prove(epoch) => {
                let restoring = matches!(self.policy.lifecycle, Lifecycle::Restoring { .. });
                if !restoring || *epoch < self.policy.fence.epoch {
                    return None;
                }
                let rounds = vec![round.clone(), round.clone()];
                let event = PolicyEvent::RestorationProbed { rounds, unwrapped_in: None };
                match mind.decide(&self.policy.clone(), &event, &builders::by_claviger(), at(self.now)) {
                    Ok(decision) => {
                        self.commit(decision);
                        None
                    }
                    Err(Refusal::KeysNotUsable { .. } | Refusal::Stale) => Some(mail.clone()),
                    Err(_) => None,
                }
            }
            Mail::Page { epoch, .. } if *epoch < self.policy.fence.epoch => None,
            Mail::Page { order, epoch, index } => {
                let Some(instance) = self.instances.get(*index).cloned() else {
                    let event = match order {
                        Order::Suspend => PolicyEvent::InstancesSuspended { epoch: *epoch, instances: 2 },
                        Order::Restore => PolicyEvent::InstancesRestored { epoch: *epoch },
                    };
                    let origin = builders::by_claviger();
                    if let Ok(decision) = mind.decide(&self.policy.clone(), &event, &origin, at(self.now)) {
                        self.commit(decision);
                    }
                    return None;
                };
                self.tell(mind, *index, &instance, *order, *epoch);
                Some(Mail::Page { order: *order, epoch: *epoch, index: index + 1 })
            }
        }
    }

    fn tell(&mut self, mind: &dyn Mind, index: usize, instance: &AppInstance, order: Order, epoch: Epoch) {
        let event = match order {
            Order::Suspend => InstanceEvent::SuspensionOrdered { epoch },
            Order::Restore => InstanceEvent::RestorationOrdered { epoch },
        };
        let Ok(decision) = mind.decide_instance(instance, &event, at(self.now)) else { return };
        if decision.next.epoch <= instance.epoch || decision.next.epoch > self.policy.fence.epoch {
            self.wrong("I4", "an order that is not newer changed an instance".to_owned());
        }
        if let Some(place) = self.instances.get_mut(index) {
            *place = Arc::new(decision.next);
        }
    }

    fn deliver(&mut self, index: usize, keep: bool) {
        let Some(row) = self.outbox.get(index).cloned() else { return };
        let mail = match row.effect {
            Effect::SuspendInstances { epoch } => Mail::Page { order: Order::Suspend, epoch, index: 0 },
            Effect::RestoreInstances { epoch } => Mail::Page { order: Order::Restore, epoch, index: 0 },
            _ => Mail::Prove(row.epoch),
        };
        self.mail.push(mail);
        if !keep {
            self.outbox.remove(index);
        }
    }

    /// The end of a fair drain: nothing is lost any more, everybody does what is theirs.
    fn drained(mut self, mind: &dyn Mind) -> Self {
        self.faults = 0;
        for truth in &mut self.truth {
            truth.before = None;
        }
        for probe in std::mem::take(&mut self.probes) {
            if !probe.confirms {
                self.report(mind, &probe);
            }
        }
        for _ in 0..5 {
            for _ in 0..4 {
                while !self.outbox.is_empty() {
                    self.deliver(0, false);
                }
                let mut waiting: VecDeque<Mail> = std::mem::take(&mut self.mail).into();
                waiting.extend(std::mem::take(&mut self.aside));
                for _ in 0..24 {
                    let Some(mail) = waiting.pop_front() else { break };
                    self.pass(1);
                    let round = self.usable_round();
                    waiting.extend(self.handle(mind, &mail, &round));
                }
                self.mail.extend(waiting);
            }
            let settled = self.is_as_wanted();
            self.pass(20 * SECOND);
            let known = self.policy.clone();
            let mut probe = Probe { known, rounds: vec![self.usable_round()], confirms: false };
            if wants_confirmation(&builders::rules(), &probe.known, &probe.rounds[0]) {
                self.pass(1);
                probe.rounds.push(self.usable_round());
            }
            self.report(mind, &probe);
            if self.policy.vendor.is_some() {
                self.supported(mind, "agent", &PolicyEvent::VendorSuspensionLifted);
            }
            let back = self.truth.iter().all(|truth| truth.now == Key::Usable);
            if back && matches!(self.policy.lifecycle, Lifecycle::Suspended { .. }) {
                self.pass(1);
                let round = self.usable_round();
                self.ask(mind, round, &builders::by_admin());
            }
            if settled && self.outbox.is_empty() && self.mail.is_empty() {
                break;
            }
        }
        self
    }

    /// Whether policy and instances are as the keys say.
    fn is_as_wanted(&self) -> bool {
        let all = |key: fn(&Key) -> bool| self.truth.iter().map(|truth| &truth.now).all(key);
        if self.policy.vendor.is_some() {
            return false;
        }
        let told = self.policy.fence.epoch.0 == 0 || self.policy.told == self.policy.fence.epoch;
        let instances = |suspended: bool| {
            self.instances.iter().all(|instance| {
                let is = matches!(instance.status, InstanceStatus::Suspended { .. });
                is == suspended && instance.epoch == self.policy.fence.epoch
            })
        };
        let suspended = matches!(self.policy.lifecycle, Lifecycle::Suspended { .. });
        let active = matches!(self.policy.lifecycle, Lifecycle::Active { .. });
        if all(|key| *key == Key::Usable) {
            return active && told && instances(false);
        }
        if all(|key| *key != Key::Usable) {
            return suspended && told && instances(true);
        }
        // Some refuse: it stays as it is, and whoever is there knows.
        (active && told && instances(false)) || (suspended && told && instances(true))
    }

    fn next(&self, mind: &dyn Mind) -> Vec<(String, Self)> {
        let mut found = Vec::new();
        let mut step = |label: String, change: &dyn Fn(&mut Self)| {
            let mut next = self.clone();
            change(&mut next);
            next.pass(1);
            if next.outbox.len() + next.mail.len() + next.aside.len() <= self.waiting_at_once {
                found.push((label, next));
            }
        };
        if self.changes > 0 {
            for (index, truth) in self.truth.iter().enumerate() {
                for to in [Key::Usable, Key::Disabled, Key::Denied] {
                    if to != truth.now {
                        step(format!("{} becomes {to:?}", truth.region), &|next| {
                            next.changes -= 1;
                            let before = next.truth[index].now;
                            next.truth[index].before = Some(before);
                            next.truth[index].now = to;
                        });
                    }
                }
            }
        }
        let rounds = self.rounds();
        if self.probes.len() < self.probes_at_once {
            for (round, faults) in &rounds {
                step(format!("a probe sees {:?}", round.observations.values()), &|next| {
                    next.faults -= faults;
                    let confirms = wants_confirmation(&builders::rules(), &next.policy, round);
                    next.probes.push(Probe {
                        known: next.policy.clone(),
                        rounds: vec![round.clone()],
                        confirms,
                    });
                });
            }
        }
        for (index, probe) in self.probes.iter().enumerate() {
            if probe.confirms {
                for (round, faults) in &rounds {
                    step(format!("it confirms {:?}", round.observations.values()), &|next| {
                        next.faults -= faults;
                        next.probes[index].rounds.push(round.clone());
                        next.probes[index].confirms = false;
                    });
                }
            } else {
                step("a probe is reported".to_owned(), &|next| {
                    let probe = next.probes.remove(index);
                    next.report(mind, &probe);
                });
            }
            if self.faults > 0 {
                step("a probe dies".to_owned(), &|next| {
                    next.faults -= 1;
                    next.probes.remove(index);
                });
            }
        }
        if matches!(self.policy.lifecycle, Lifecycle::Suspended { .. }) {
            for (origin, who) in [(builders::by_admin(), "an org admin"), (builders::by_support(), "support")]
            {
                for (round, faults) in rounds.iter().filter(|(_, faults)| *faults == 0) {
                    step(format!("{who} asks for restoration"), &|next| {
                        next.faults -= faults;
                        next.ask(mind, round.clone(), &origin);
                    });
                }
            }
        }
        if self.support > 0 {
            for who in ["agent", "other-agent"] {
                let closed = self.policy.fence.causes.contains(&Cause::Key);
                if closed {
                    step(format!("{who} calls it a mistake"), &|next| {
                        next.support -= 1;
                        next.is_called_a_mistake(mind, who);
                    });
                }
            }
            let (label, event) = if self.policy.vendor.is_some() {
                ("support lifts the vendor's suspension", PolicyEvent::VendorSuspensionLifted)
            } else {
                let event =
                    PolicyEvent::VendorSuspended { ground: Ground::Ordered, reason: "unpaid".to_owned() };
                ("support suspends for the vendor", event)
            };
            step(label.to_owned(), &|next| {
                next.support -= 1;
                next.supported(mind, "agent", &event);
            });
        }
        for index in 0..self.outbox.len() {
            step("an effect is handed on".to_owned(), &|next| next.deliver(index, false));
            if self.faults > 0 {
                step("an effect is handed on, and its row stays".to_owned(), &|next| {
                    next.faults -= 1;
                    next.deliver(index, true);
                });
            }
        }
        for (index, mail) in self.mail.iter().enumerate() {
            let probes = if matches!(mail, Mail::Prove(_)) { rounds.as_slice() } else { &rounds[..1] };
            for (round, faults) in probes {
                step(format!("{mail:?} is worked off"), &|next| {
                    if matches!(mail, Mail::Prove(_)) {
                        next.faults -= faults;
                    }
                    next.mail.remove(index);
                    let left = next.handle(mind, mail, round);
                    next.mail.extend(left);
                });
            }
            if self.faults > 0 {
                step(format!("{mail:?} is worked off, and comes again"), &|next| {
                    next.faults -= 1;
                    let left = next.handle(mind, mail, &rounds[0].0);
                    next.mail.extend(left);
                });
                step(format!("{mail:?} is set aside"), &|next| {
                    next.faults -= 1;
                    let mail = next.mail.remove(index);
                    next.aside.push(mail);
                });
            }
        }
        match self.plane.reading {
            _ if !self.has_plane => {}
            None => step("the fence is read".to_owned(), &|next| {
                let fence = &next.policy.fence;
                next.plane.reading = Some((next.now, !fence.is_open(), fence.epoch.0));
            }),
            Some((sent, closed, epoch)) if self.now < sent + LEASE => {
                step("the read is answered".to_owned(), &|next| {
                    let from = mind.lease_from(sent, next.now);
                    next.plane.reading = None;
                    next.plane.closed = closed;
                    next.plane.epoch = next.plane.epoch.max(epoch);
                    next.plane.lease_from = Some(from);
                })
            }
            Some(_) => step("the read fails".to_owned(), &|next| next.plane.reading = None),
        }
        let open = self.policy.fence.is_open() && matches!(self.policy.lifecycle, Lifecycle::Active { .. });
        if open && self.has_plane && self.plane.key != Some(self.policy.fence.epoch.0) {
            step("a data key is fetched".to_owned(), &|next| {
                next.plane.key = Some(next.policy.fence.epoch.0);
            });
        }
        let mut passes = |label: &str, millis, ticks| {
            step(label.to_owned(), &|next| {
                next.ticks -= ticks;
                next.pass(millis);
                for truth in &mut next.truth {
                    truth.before = None;
                }
            });
        };
        if self.ticks > 0 {
            passes("ten seconds pass", STEP, 1);
        }
        // Needs no step of the clock: how long a refusal persists is told apart up to this only.
        let persists = |key: &RegionalKey| {
            matches!(key.health, KeyHealth::Refused { stands: false, refused_since: Some(_), .. })
        };
        if self.policy.keys.values().any(persists) {
            passes("a minute passes", AMBIGUITY, 0);
        }
        found
    }
}

/// What can be explored.
trait World: Clone + Send + Sync {
    /// What can still matter, as one number.
    fn fingerprint(&self) -> u64;
    /// Every step from here.
    fn next(&self, mind: &dyn Mind) -> Vec<(String, Self)>;
    /// What is wrong already.
    fn wrong(&self) -> Option<(&'static str, String)>;
    /// What is wrong after a fair drain.
    fn wrong_at_rest(&self, mind: &dyn Mind) -> Option<(&'static str, String)>;
}

impl World for State {
    fn fingerprint(&self) -> u64 {
        Self::fingerprint(self)
    }

    fn next(&self, mind: &dyn Mind) -> Vec<(String, Self)> {
        Self::next(self, mind)
    }

    fn wrong(&self) -> Option<(&'static str, String)> {
        self.wrong.clone()
    }

    fn wrong_at_rest(&self, mind: &dyn Mind) -> Option<(&'static str, String)> {
        let rest = self.clone().drained(mind);
        if rest.wrong.is_some() || rest.is_as_wanted() {
            return rest.wrong;
        }
        let keys: Vec<Key> = rest.truth.iter().map(|truth| truth.now).collect();
        let lifecycle = rest.policy.lifecycle.slug();
        Some(("I3", format!("a fair drain ends in {lifecycle} while the keys are {keys:?}")))
    }
}

/// Explores every state of one organisation within the bounds.
pub fn explore(mind: &dyn Mind, bounds: Bounds) -> Found {
    explore_from(mind, start(bounds), bounds.states)
}

/// States that are looked at between two moments in which threads wait for one another.
const PART: usize = 1_024;

/// What comes of one state: what is wrong after a fair drain, and every step from it with what it leads to.
struct Seen<W> {
    at_rest: Option<(&'static str, String)>,
    next: Vec<(String, W, u64)>,
}

fn look<W: World>(mind: &dyn Mind, states: &[(usize, W)]) -> Vec<Seen<W>> {
    let one = |(_, state): &(usize, W)| {
        let next = state.next(mind).into_iter().map(|(label, next)| {
            let print = next.fingerprint();
            (label, next, print)
        });
        Seen { at_rest: state.wrong_at_rest(mind), next: next.collect() }
    };
    let (first, second) = states.split_at(states.len() / 2);
    std::thread::scope(|scope| {
        let second = scope.spawn(|| second.iter().map(one).collect::<Vec<_>>());
        let mut all: Vec<Seen<W>> = first.iter().map(one).collect();
        all.extend(second.join().expect("the other half"));
        all
    })
}

/// Breadth first, on two threads, in an order that does not depend on them.
fn explore_from<W: World>(mind: &dyn Mind, first: W, most: usize) -> Found {
    let mut found = Found::default();
    let mut seen = HashSet::from([first.fingerprint()]);
    // Where each state came from: to tell the way to a violation.
    let mut way: Vec<(usize, String)> = vec![(0, "start".to_owned())];
    let mut queue = VecDeque::from([(0_usize, first)]);
    let story = |way: &[(usize, String)], mut place: usize| {
        let mut steps = Vec::new();
        while place > 0 {
            steps.push(way[place].1.clone());
            place = way[place].0;
        }
        steps.reverse();
        steps
    };
    while !queue.is_empty() {
        let left = most.saturating_sub(found.states);
        if left == 0 {
            return found;
        }
        let part: Vec<(usize, W)> = queue.drain(..queue.len().min(PART).min(left)).collect();
        for ((place, _), came) in part.iter().zip(look(mind, &part)) {
            found.states += 1;
            if let Some((invariant, what)) = came.at_rest {
                found.violation = Some((invariant, what, story(&way, *place)));
                return found;
            }
            for (label, next, print) in came.next {
                found.transitions += 1;
                if let Some((invariant, what)) = next.wrong() {
                    let mut steps = story(&way, *place);
                    steps.push(label);
                    found.violation = Some((invariant, what, steps));
                    return found;
                }
                if seen.insert(print) {
                    way.push((*place, label));
                    queue.push_back((way.len() - 1, next));
                }
            }
        }
    }
    found.complete = true;
    found
}

/// Broken twins of the model.
pub mod twins {
    use super::{
        Actor, AppInstance, Decision, EncryptionPolicy, Epoch, InstanceDecision, InstanceEvent, Mind,
        NoAnswerKind, Observation, Origin, PolicyEvent, ProbeRound, Refusal, RefusalKind, Timestamp,
        builders, decide, decide_instance,
    };

    /// I1: the lease counts from the answer.
    pub struct LeaseFromAnswer;

    impl Mind for LeaseFromAnswer {
        fn lease_from(&self, _sent: i64, answered: i64) -> i64 {
            answered
        }
    }

    /// I2: throttling counts as a refusal.
    pub struct ThrottlingRefuses;

    impl Mind for ThrottlingRefuses {
        fn decide(
            &self,
            policy: &EncryptionPolicy,
            event: &PolicyEvent,
            origin: &Origin,
            now: Timestamp,
        ) -> Result<Decision, Refusal> {
            let PolicyEvent::ProbesReported { rounds, .. } = event else {
                return decide(&builders::rules(), policy, event, origin, now);
            };
            let worse = |round: &ProbeRound| {
                let mut round = round.clone();
                for saw in round.observations.values_mut() {
                    if *saw == Observation::NoAnswer(NoAnswerKind::Throttled) {
                        *saw = Observation::Refused(RefusalKind::KeyDisabled);
                    }
                }
                round
            };
            let mut rounds: Vec<ProbeRound> = rounds.iter().map(worse).collect();
            if let [only] = rounds.as_slice() {
                rounds.push(only.clone());
            }
            decide(
                &builders::rules(),
                policy,
                &PolicyEvent::ProbesReported { rounds, heard: Vec::new() },
                origin,
                now,
            )
        }
    }

    /// I3: a revocation is never proven enough.
    pub struct NeverEnough;

    impl Mind for NeverEnough {
        fn decide(
            &self,
            policy: &EncryptionPolicy,
            event: &PolicyEvent,
            origin: &Origin,
            now: Timestamp,
        ) -> Result<Decision, Refusal> {
            match event {
                PolicyEvent::ProbesReported { rounds, .. } if rounds.len() > 1 => Err(Refusal::Stale),
                _ => decide(&builders::rules(), policy, event, origin, now),
            }
        }
    }

    /// I4: an order is applied whatever its epoch.
    pub struct AnyEpoch;

    impl Mind for AnyEpoch {
        fn decide_instance(
            &self,
            instance: &AppInstance,
            event: &InstanceEvent,
            now: Timestamp,
        ) -> Result<InstanceDecision, Refusal> {
            let newer = |epoch: Epoch| if epoch > instance.epoch { epoch } else { instance.epoch.next() };
            let event = match event {
                InstanceEvent::SuspensionOrdered { epoch } => {
                    InstanceEvent::SuspensionOrdered { epoch: newer(*epoch) }
                }
                other => other.clone(),
            };
            decide_instance(instance, &event, &builders::by_claviger(), now)
        }
    }

    /// I7: what one organisation's decision wants done is addressed to the other.
    pub struct WrongAddress;

    impl Mind for WrongAddress {
        fn decide(
            &self,
            policy: &EncryptionPolicy,
            event: &PolicyEvent,
            origin: &Origin,
            now: Timestamp,
        ) -> Result<Decision, Refusal> {
            let mut decision = decide(&builders::rules(), policy, event, origin, now)?;
            for row in &mut decision.outbox {
                row.organisation = builders::parsed("globex");
            }
            Ok(decision)
        }
    }

    /// I5: one agent who says it twice counts as two.
    pub struct OneAgentTwice;

    impl Mind for OneAgentTwice {
        fn decide(
            &self,
            policy: &EncryptionPolicy,
            event: &PolicyEvent,
            origin: &Origin,
            now: Timestamp,
        ) -> Result<Decision, Refusal> {
            let mut origin = origin.clone();
            if let (PolicyEvent::MistakeDeclared { .. }, Some(_)) = (event, &policy.lift) {
                origin.actor = Actor::Support("somebody-else".parse().expect("a subject"));
            }
            decide(&builders::rules(), policy, event, &origin, now)
        }
    }

    /// I5: anybody's request counts as an org admin's.
    pub struct AnybodyAsks;

    impl Mind for AnybodyAsks {
        fn decide(
            &self,
            policy: &EncryptionPolicy,
            event: &PolicyEvent,
            origin: &Origin,
            now: Timestamp,
        ) -> Result<Decision, Refusal> {
            match event {
                PolicyEvent::RestorationRequested { .. } => {
                    decide(&builders::rules(), policy, event, &builders::by_admin(), now)
                }
                _ => decide(&builders::rules(), policy, event, origin, now),
            }
        }
    }
}
