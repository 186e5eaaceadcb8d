//! Each step of each use case repeated, failed, and broken off before and after it took effect: in the end everything is
//! as if nothing had happened.
//!
//! A scenario is played once undisturbed, and every call of a port that an invocation makes is noted. Then it is played
//! again for each of these calls and each way in which it can go wrong, with that one fault and no other: queues deliver
//! again, people repeat what gave no answer. What an invocation does is told by its name and by the calls that it made so
//! far, a commit's with what it decides: where both are the same, another invocation is at the same step, and is not
//! looked at again.

use std::collections::{BTreeMap, BTreeSet};

use claviger_app::messages::NewerDataKey;
use claviger_app::ports::{Ids, Instances};
use claviger_domain::ids::CorrelationId;
use claviger_domain::reencryption::Phase;
use serde_json::Value;

use super::checks::now_or_never;
use super::kms::Standing;
use super::ports::{Fault, is_conditional};
use super::run::{DAY, MINUTE, Options, Sim};
use super::scenarios::{Do, Scenario, scenarios};
use super::script::Act;
use super::shape::difference;
use super::world::{Event, Message};
use crate::twin::Twin;

/// A call of a port, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// In which scenario.
    pub scenario: &'static str,
    /// Of what: a message that is worked off, a tick, or a call of the API.
    pub name: &'static str,
    /// Which invocation of it.
    pub number: usize,
    /// Which call of that.
    pub call: u32,
    /// What is called, and for what.
    pub what: Call,
    /// What goes wrong.
    pub fault: Fault,
}

/// A call of a port: what is called, and for what, where that has a name.
pub type Call = (&'static str, String);

/// A step after which not everything was as it should be.
#[derive(Debug, Clone)]
pub struct Broken {
    /// Which.
    pub step: Step,
    /// What was wrong.
    pub what: String,
}

/// What is to go wrong in a run, and what was seen.
#[derive(Debug, Default)]
pub struct Steps {
    /// The one fault.
    planned: Option<Step>,
    /// Whether it came to that.
    pub struck: bool,
    begun: BTreeMap<&'static str, usize>,
    calls: BTreeMap<(&'static str, usize), Vec<Call>>,
}

impl Steps {
    /// Something is invoked: for which time, and what goes wrong with it.
    pub fn begins(&mut self, name: &'static str) -> (usize, Option<(u32, Fault)>) {
        let number = self.begun.entry(name).or_default();
        let this = *number;
        *number += 1;
        let planned = self.planned.as_ref().filter(|step| step.name == name && step.number == this);
        (this, planned.map(|step| (step.call, step.fault)))
    }

    /// It makes a call.
    pub fn called(&mut self, name: &'static str, number: usize, call: u32, what: &'static str, which: &str) {
        let calls = self.calls.entry((name, number)).or_default();
        if usize::try_from(call) == Ok(calls.len()) {
            calls.push((what, which.to_owned()));
        }
    }
}

/// In which ways a call goes wrong. What leaves the same behind as another way is not looked at twice: a call that changes
/// nothing fails, or the process is dead, and the process that dies before a call dies after the one before.
fn faults_of(what: &str) -> &'static [Fault] {
    match what {
        // Throttled, and no answer in time.
        "Encrypt"
        | "Decrypt"
        | "ReEncrypt"
        | "GenerateDataKey"
        | "DryRun"
        | "DescribeKey"
        | "GetKeyRotationStatus"
        | "AssumeRole"
        | "ListAliases" => &[Fault::Before, Fault::After],
        "backup"
        | "backups"
        | "backups_head"
        | "control"
        | "data_key"
        | "data_keys"
        | "estimate"
        | "hints_of"
        | "instance"
        | "instance_at"
        | "instances"
        | "instances_of_site"
        | "last_beat"
        | "organisation"
        | "organisations_of_account"
        | "overdue_effects"
        | "overdue_orders"
        | "pending_erasures"
        | "policy"
        | "policy_by_id"
        | "probe"
        | "progress"
        | "proven_at"
        | "shard"
        | "shards"
        | "site_owner"
        | "support_request"
        | "support_requests"
        | "templates"
        | "ticket"
        | "tickets"
        | "unanswered"
        | "watched" => &[Fault::Before],
        changes if is_conditional(changes) => {
            &[Fault::Before, Fault::After, Fault::DeathAfter, Fault::Conflict]
        }
        _ => &[Fault::Before, Fault::After, Fault::DeathAfter],
    }
}

/// What comes again by itself.
const SCHEDULED: [&str; 5] =
    ["pass-deadlines", "plan-sweeps", "see-to-undelivered", "sweep-outbox", "take-up-jobs"];

impl Scenario {
    /// Plays it with one fault, or none: what everything looks like in the end, and every call that was made.
    fn play(&self, planned: Option<Step>, twin: Option<Twin>) -> (Played, Steps) {
        let options = Options { seed: 1, episodes: 0, twin, traced: false };
        let mut sim = Sim::new(options);
        sim.world.state().uses = false;
        sim.world.state().polls = self.plays.iter().any(|play| matches!(play, Do::Write(_)));
        sim.enrol_all(self.who);
        for play in &self.plays {
            match play {
                Do::Mark => {
                    sim.world.state().steps = Some(Steps { planned: planned.clone(), ..Steps::default() })
                }
                Do::Minutes(minutes) => sim.run_for(minutes * MINUTE),
                Do::Days(days) => sim.pass_days(*days),
                Do::Write(org) => sim.write_once(*org),
                Do::Newer(org) => sim.ask_for_newer(*org),
                Do::LoseNew(org) => {
                    for wait in 4..60 {
                        let lose = Act::ChangeNew { org: *org, key: None, to: Standing::Disabled };
                        sim.world.later(wait * 25, Event::Act(lose));
                    }
                }
                Do::LoseFirst(org) => sim.lose_first(*org),
                Do::ComesToNoQueue => sim.world.state().comes_to_no_queue = true,
                Do::JobEnds(org) => sim.until_the_job_ends(*org),
                Do::Act(act) => {
                    let waiting = |sim: &Sim| {
                        let state = sim.world.state();
                        state.steps.as_ref().is_some_and(|steps| steps.planned.is_some() && !steps.struck)
                    };
                    let was = waiting(&sim);
                    let of_people = planned.as_ref().is_some_and(|step| PEOPLE.contains(&step.name));
                    // Time enough for the call itself; what it sets going runs on.
                    sim.act(act.clone());
                    sim.run_for(9_000);
                    if of_people && was && !waiting(&sim) {
                        sim.act(act.clone());
                        sim.run_for(9_000);
                    }
                }
            }
        }
        sim.run_for(MINUTE);
        let steps = sim.world.state().steps.take().unwrap_or_default();
        let violations =
            sim.world.state().violations.first().map(|one| format!("{}: {}", one.invariant, one.what));
        let played = Played { shape: sim.shape(), violation: violations };
        let _ = sim.outcome();
        (played, steps)
    }
}

#[derive(Debug, PartialEq)]
struct Played {
    shape: Value,
    violation: Option<String>,
}

/// What people call: who gets no answer calls again.
const PEOPLE: [&str; 20] = [
    "add-instance-directly",
    "answer-access",
    "ask-for-restoration",
    "call-it-a-mistake",
    "carry-out-restoration",
    "close-organisation",
    "decide-requests",
    "delete-site",
    "enrol",
    "keep-site",
    "lift-by-vendor",
    "publish-template",
    "put-organisation",
    "register-backup",
    "rename-site",
    "request-instance",
    "request-reencryption",
    "request-replacement",
    "steer-reencryption",
    "suspend-by-vendor",
];

/// Every step of every scenario, or of one.
pub fn every_step(only: Option<&str>) -> Vec<Step> {
    let mut all = Vec::new();
    let mut known: BTreeSet<(&'static str, Vec<Call>)> = BTreeSet::new();
    let mut repeated: BTreeSet<(&'static str, Vec<Call>)> = BTreeSet::new();
    for scenario in scenarios().into_iter().filter(|one| only.is_none_or(|only| only == one.name)) {
        let (_, steps) = scenario.play(None, None);
        for ((name, number), calls) in steps.calls {
            let step = |call: usize, fault| Step {
                scenario: scenario.name,
                name,
                number,
                call: u32::try_from(call).expect("a few calls"),
                what: calls.get(call).cloned().unwrap_or_default(),
                fault,
            };
            for (call, (what, _)) in calls.iter().enumerate() {
                let so_far = calls.iter().take(call + 1).cloned().collect();
                if known.insert((name, so_far)) {
                    all.extend(faults_of(what).iter().map(|fault| step(call, *fault)));
                }
            }
            // What comes again by itself has its repetition in every scenario.
            let comes_again = SCHEDULED.contains(&name) || !repeated.insert((name, calls.clone()));
            if !comes_again {
                all.extend([step(0, Fault::DeathBefore), step(0, Fault::Again)]);
            }
        }
    }
    all
}

/// Plays each step's fault, and says which of them left a trace. Steps of the same scenario come one after the other.
fn broken_steps(steps: &[Step], twin: Option<Twin>) -> Vec<Broken> {
    let scenarios = scenarios();
    let mut undisturbed: BTreeMap<&'static str, Played> = BTreeMap::new();
    let mut broken = Vec::new();
    for step in steps {
        let Some(scenario) = scenarios.iter().find(|scenario| scenario.name == step.scenario) else {
            continue;
        };
        let wanted = undisturbed.entry(scenario.name).or_insert_with(|| scenario.play(None, twin).0);
        let (played, seen) = scenario.play(Some(step.clone()), twin);
        let what = if !seen.struck {
            Some("it never came to that".to_owned())
        } else if let Some(violation) = &played.violation {
            Some(violation.clone())
        } else if played.shape == wanted.shape {
            None
        } else {
            Some(difference(&wanted.shape, &played.shape))
        };
        broken.extend(what.map(|what| Broken { step: step.clone(), what }));
    }
    broken
}

/// The same, on two threads, of the product or of a broken twin.
pub fn broken_on_two_threads(steps: &[Step], twin: Option<Twin>) -> Vec<Broken> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let chunks: Vec<&[Step]> = steps.chunks(40).collect();
    let work = || {
        let mut broken = Vec::new();
        loop {
            let index = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let Some(chunk) = chunks.get(index) else { return broken };
            broken.extend(broken_steps(chunk, twin));
        }
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(work);
        let mut broken = work();
        broken.extend(other.join().expect("the other half"));
        broken
    })
}

impl Sim {
    /// Days in which nothing happens but what schedules do, at their end and not on the way.
    fn pass_days(&mut self, days: i64) {
        self.world.clear_agenda();
        let to = self.world.now() + days * DAY;
        self.world.go_to(to);
        self.start_rhythm();
        self.run_for(2 * MINUTE);
    }

    fn until_the_job_ends(&mut self, org: usize) {
        for _ in 0..60 {
            self.run_for(MINUTE);
            match self.policy(org).and_then(|policy| policy.reencryption).map(|job| job.phase) {
                None => break,
                Some(Phase::Waiting { .. }) => self.pass_days(31),
                Some(_) => {}
            }
        }
        self.run_for(2 * MINUTE);
    }

    fn ask_for_newer(&mut self, org: usize) {
        let name = self.world.state().orgs.get(org).map(|org| org.name.clone());
        let instances = name.and_then(|name| {
            now_or_never(Instances::instances(&self.world.store, &name, None, 200)).and_then(Result::ok)
        });
        for instance in instances.into_iter().flat_map(|page| page.items) {
            let correlation = CorrelationId::from_uuid(Ids::random(&self.world.ids));
            let wanted = NewerDataKey { instance: instance.id, newer_than: 1, correlation };
            self.world.send(Message::Newer(wanted), 0);
        }
        self.run_for(3_000);
    }

    /// An app writes a record, whatever else nobody does; it is stored when this ends, however long it waited in a queue of
    /// the app's.
    fn write_once(&mut self, org: usize) {
        let before = self.world.state().records.len();
        self.world.state().writes_for = Some(org);
        self.use_records(0);
        self.world.state().writes_for = None;
        for _ in 0..40 {
            self.run_for(3_000);
            if self.world.state().records.len() > before {
                return;
            }
        }
        self.world.violated("start", "an app could not write".to_owned());
    }
}
