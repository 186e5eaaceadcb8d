//! Each step of each use case repeated, failed, and broken off before and after it took effect: in the end everything is
//! as if nothing had happened.
//!
//! A scenario is played once undisturbed, and every call of a port that an invocation makes is noted. Then it is played
//! again for each of these calls and each way in which it can go wrong, with that one fault and no other: queues deliver
//! again, people repeat what gave no answer.

use std::collections::BTreeMap;

use claviger_app::ports::{DataKeyRegistry, Instances, Tickets};
use claviger_app::steer_reencryption::Steer;
use claviger_domain::catalogue::Mode;
use claviger_domain::ids::InstanceId;
use claviger_domain::reencryption::{Depth, Phase};
use serde_json::{Value, json};

use super::checks::now_or_never;
use super::deeds::AGENTS;
use super::kms::Standing;
use super::ports::Fault;
use super::run::{DAY, MINUTE, Options, Sim};
use super::script::Act;

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
    /// What is called.
    pub what: &'static str,
    /// What goes wrong.
    pub fault: Fault,
}

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
    calls: BTreeMap<(&'static str, usize), Vec<&'static str>>,
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
    pub fn called(&mut self, name: &'static str, number: usize, call: u32, what: &'static str) {
        let calls = self.calls.entry((name, number)).or_default();
        if usize::try_from(call) == Ok(calls.len()) {
            calls.push(what);
        }
    }
}

#[derive(Debug, Clone)]
enum Do {
    Act(Act),
    Minutes(i64),
    Days(i64),
    Write(usize),
    /// An organisation's job comes to its end, whatever is in its way.
    JobEnds(usize),
    /// From here on every call counts.
    Mark,
}

struct Scenario {
    name: &'static str,
    plays: Vec<Do>,
}

const FAULTS: [Fault; 5] =
    [Fault::Before, Fault::After, Fault::DeathBefore, Fault::DeathAfter, Fault::Conflict];

/// acme holds a key in each of two regions, initech lets us make them.
const ACME: usize = 0;
const INITECH: usize = 2;
const HOOLI: usize = 3;

fn scenarios() -> Vec<Scenario> {
    let change = |org, to| Do::Act(Act::Change { org, key: None, to });
    let (usable, disabled) = (Standing::Usable, Standing::Disabled);
    let ask = |org| Do::Act(Act::Ask { org, left: 4 });
    let reencrypt = |org| Do::Act(Act::Reencrypt { org, depth: Depth::Rekey, own_keys: false });
    let steer = |steer| Do::Act(Act::Steer { org: ACME, steer });
    let scenario = |name, plays| Scenario { name, plays };
    vec![
        scenario("an enrolment", vec![Do::Mark, Do::Act(Act::Enrol), Do::Act(Act::Approve), Do::Minutes(4)]),
        scenario(
            "an instance",
            vec![
                Do::Mark,
                Do::Act(Act::NewInstance { org: ACME, number: 7 }),
                Do::Act(Act::Approve),
                Do::Minutes(3),
            ],
        ),
        scenario(
            "cut off and restored",
            vec![
                Do::Mark,
                change(ACME, disabled),
                Do::Minutes(4),
                change(ACME, usable),
                Do::Minutes(1),
                ask(ACME),
                Do::Minutes(4),
            ],
        ),
        scenario(
            "denied, and a hint",
            vec![
                Do::Mark,
                Do::Act(Act::Forge { org: ACME }),
                change(ACME, Standing::Denied { blind: true }),
                Do::Minutes(6),
            ],
        ),
        scenario(
            "a key lost for good",
            vec![
                Do::Act(Act::LoseForGood { org: ACME }),
                Do::Act(Act::Change { org: ACME, key: Some(1), to: disabled }),
                Do::Minutes(4),
                change(ACME, usable),
                Do::Minutes(1),
                Do::Mark,
                ask(ACME),
                Do::Minutes(4),
                Do::Act(Act::ReplaceLost { org: ACME }),
                Do::Minutes(8),
            ],
        ),
        scenario(
            "lapsed and carried out",
            vec![
                Do::Act(Act::Change { org: INITECH, key: None, to: Standing::RoleDenied }),
                Do::Minutes(6),
                Do::Mark,
                Do::Days(16),
                Do::Minutes(12),
                change(INITECH, usable),
                Do::Minutes(2),
                ask(INITECH),
                Do::Minutes(4),
            ],
        ),
        scenario(
            "the vendor suspends and lifts",
            vec![
                Do::Mark,
                Do::Act(Act::VendorSuspends { org: ACME }),
                Do::Minutes(2),
                Do::Act(Act::VendorLifts { org: ACME }),
                Do::Minutes(3),
            ],
        ),
        scenario(
            "a mistake",
            vec![
                change(ACME, disabled),
                Do::Minutes(3),
                change(ACME, usable),
                Do::Minutes(2),
                Do::Mark,
                Do::Act(Act::Mistake { org: ACME, who: AGENTS[0] }),
                Do::Act(Act::Mistake { org: ACME, who: AGENTS[1] }),
                Do::Minutes(4),
            ],
        ),
        scenario(
            "everything moves",
            vec![
                Do::Write(ACME),
                Do::Write(ACME),
                Do::Write(ACME),
                Do::Write(ACME),
                Do::Mark,
                Do::Act(Act::BackUp { org: ACME }),
                reencrypt(ACME),
                Do::JobEnds(ACME),
            ],
        ),
        scenario(
            "keys made for a job",
            vec![Do::Write(INITECH), Do::Mark, reencrypt(INITECH), Do::JobEnds(INITECH)],
        ),
        scenario(
            "paused, resumed and cancelled",
            vec![
                reencrypt(ACME),
                Do::Mark,
                steer(Steer::Pause),
                steer(Steer::Resume),
                steer(Steer::Cancel),
                Do::JobEnds(ACME),
            ],
        ),
        scenario(
            "an organisation leaves",
            vec![
                Do::Mark,
                Do::Act(Act::Leave { org: HOOLI }),
                Do::Act(Act::Approve),
                Do::Minutes(1),
                Do::Minutes(3),
                Do::Days(31),
                Do::Minutes(40),
            ],
        ),
        scenario(
            "a permission is asked for",
            vec![
                Do::Mark,
                Do::Act(Act::Publish),
                Do::Minutes(1),
                Do::Act(Act::AnswerAccess { org: ACME, accepts: true }),
                Do::Act(Act::AnswerAccess { org: INITECH, accepts: false }),
                Do::Minutes(2),
            ],
        ),
        scenario(
            "the vendor's records",
            vec![
                Do::Mark,
                Do::Act(Act::Feed { org: ACME }),
                Do::Act(Act::AddDirectly { org: ACME }),
                Do::Minutes(2),
            ],
        ),
        scenario("material is renewed", vec![Do::Mark, Do::Act(Act::Rotate), Do::Minutes(3)]),
    ]
}

impl Scenario {
    /// Plays it with one fault, or none: what everything looks like in the end, and every call that was made.
    fn play(&self, planned: Option<Step>) -> (Played, Steps) {
        let options = Options { seed: 1, episodes: 0, twin: None, traced: false };
        let mut sim = Sim::new(options);
        sim.world.state().uses = false;
        sim.enrol_all();
        for play in &self.plays {
            match play {
                Do::Mark => {
                    sim.world.state().steps = Some(Steps { planned: planned.clone(), ..Steps::default() })
                }
                Do::Minutes(minutes) => sim.run_for(minutes * MINUTE),
                Do::Days(days) => sim.pass_days(*days),
                Do::Write(org) => sim.write_once(*org),
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
const PEOPLE: [&str; 17] = [
    "add-instance-directly",
    "answer-access",
    "ask-for-restoration",
    "call-it-a-mistake",
    "close-organisation",
    "decide-requests",
    "enrol",
    "lift-by-vendor",
    "publish-template",
    "put-organisation",
    "register-backup",
    "request-instance",
    "request-reencryption",
    "request-replacement",
    "steer-reencryption",
    "stranger-enrols",
    "suspend-by-vendor",
];

/// Every step of every scenario: for each name so many invocations.
pub fn every_step(invocations: usize) -> Vec<Step> {
    let mut all: Vec<Step> = Vec::new();
    for scenario in scenarios() {
        let (_, steps) = scenario.play(None);
        for ((name, number), calls) in steps.calls {
            if number >= invocations {
                continue;
            }
            for (call, what) in calls.into_iter().enumerate() {
                let call = u32::try_from(call).expect("a few calls");
                let step = |fault| Step { scenario: scenario.name, name, number, call, what, fault };
                // What another scenario has already is not looked at again.
                let known = |step: &Step| {
                    let same = |one: &&Step| one.name == name && one.number == number && one.call == call;
                    all.iter().filter(same).any(|one| one.what == what && one.fault == step.fault)
                };
                let again = (call == 0).then(|| step(Fault::Again));
                let fresh: Vec<Step> =
                    FAULTS.map(step).into_iter().chain(again).filter(|step| !known(step)).collect();
                all.extend(fresh);
            }
        }
    }
    all
}

/// Plays each step's fault, and says which of them left a trace. Steps of the same scenario come one after the other.
pub fn broken_steps(steps: &[Step]) -> Vec<Broken> {
    let scenarios = scenarios();
    let mut undisturbed: BTreeMap<&'static str, Played> = BTreeMap::new();
    let mut broken = Vec::new();
    for step in steps {
        let Some(scenario) = scenarios.iter().find(|scenario| scenario.name == step.scenario) else {
            continue;
        };
        let wanted = undisturbed.entry(scenario.name).or_insert_with(|| scenario.play(None).0);
        let (played, seen) = scenario.play(Some(step.clone()));
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

/// The same, on two threads.
pub fn broken_on_two_threads(steps: &[Step]) -> Vec<Broken> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let chunks: Vec<&[Step]> = steps.chunks(40).collect();
    let work = || {
        let mut broken = Vec::new();
        loop {
            let index = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let Some(chunk) = chunks.get(index) else { return broken };
            broken.extend(broken_steps(chunk));
        }
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(work);
        let mut broken = work();
        broken.extend(other.join().expect("the other half"));
        broken
    })
}

fn difference(wanted: &Value, is: &Value) -> String {
    let (Value::Object(wanted), Value::Object(is)) = (wanted, is) else {
        return format!("it should be {wanted} and is {is}");
    };
    let other = wanted.iter().filter(|(name, value)| is.get(*name) != Some(*value));
    other
        .map(|(name, value)| {
            let now = is.get(name).unwrap_or(&Value::Null);
            format!("{name} should be {value}\n    and is {now}")
        })
        .collect::<Vec<_>>()
        .join("\n  ")
}

/// What an enum is, without what it holds.
fn word(what: &impl std::fmt::Debug) -> String {
    let text = format!("{what:?}");
    text.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

/// Words without what is different in every run: identifiers, times, counts of tries.
fn gist(text: &str) -> String {
    text.chars().take_while(|letter| !letter.is_ascii_digit()).take(60).collect()
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

    /// Everything that must not depend on how often something was tried.
    fn shape(&self) -> Value {
        let count = self.world.state().orgs.len();
        let mut shape = serde_json::Map::new();
        for org in 0..count {
            let Some(policy) = self.policy(org) else { continue };
            let name = policy.organisation_name.clone();
            let keys: Vec<Value> = policy
                .keys
                .values()
                .map(|key| {
                    json!([key.arn.as_str(), key.health.slug(), key.given_up, key.replacement.is_some()])
                })
                .collect();
            let of_policy = json!({
                "lifecycle": policy.lifecycle.slug(),
                "mode": policy.mode(),
                "fence": [json!(policy.fence.epoch), json!(policy.fence.causes), json!(policy.fence.min_write_generation)],
                "told": policy.told,
                "generation": policy.generation,
                "keys": keys,
                "former": policy.former_keys.iter().map(|former| former.keys.clone()).collect::<Vec<_>>(),
                "job": policy.reencryption.as_ref().map(|job| (job.phase.slug(), job.paused.is_some())),
                "ended": policy.reencryptions.iter().map(|ended| json!(ended.outcome)).collect::<Vec<_>>(),
                "open": [policy.ticket.is_some(), policy.warning.is_some(), policy.vendor.is_some(), policy.lift.is_some()],
                "leaving": policy.closing.is_some(),
                "asked": policy.access_requests.iter().map(|asked| word(&asked.answer)).collect::<Vec<_>>(),
                "records": policy.records.as_ref().map(|records| json!(records.plans_ended)),
                "erased": policy.erasure.as_ref().map(|erasure| (erasure.counted.instances, erasure.counted.data_keys)),
            });
            shape.insert(format!("policy of {name}"), of_policy);
            let facts = self.world.store.all_facts(&name);
            let of_policy = facts.iter().filter(|fact| fact.stream == policy.id.as_uuid());
            // What probes and descriptions saw on the way may differ; what was decided may not.
            let decided: Vec<&str> = of_policy
                .map(|fact| fact.slug.as_str())
                .filter(|slug| !matches!(*slug, "keys-described" | "reencryption-hindered"))
                .collect();
            let turns: Vec<&&str> = decided.iter().filter(|slug| **slug != "probes-reported").collect();
            shape.insert(format!("decisions of {name}"), json!(turns));
            self.shape_of_instances(&name, &mut shape);
            self.shape_of_tickets(&name, &mut shape);
        }
        let state = self.world.state();
        let records: Vec<Value> = state
            .records
            .iter()
            .map(|(place, record)| {
                let generation = claviger_envelope::generation_of(&record.sealed).unwrap_or(0);
                json!([place.1, place.2, generation, record.written.len()])
            })
            .collect();
        shape.insert("records".to_owned(), json!(records));
        shape.insert("left".to_owned(), json!([self.world.store.outbox().len(), state.dead_letters.len()]));
        Value::Object(shape)
    }

    fn shape_of_instances(
        &self,
        name: &claviger_domain::values::OrganisationName,
        shape: &mut serde_json::Map<String, Value>,
    ) {
        let page = now_or_never(Instances::instances(&self.world.store, name, None, 200));
        let instances = page.and_then(Result::ok).map(|page| page.items).unwrap_or_default();
        let mut all: Vec<(String, Value)> = instances
            .iter()
            .map(|instance| {
                let app = self.world.state().apps.get(&instance.id).cloned().unwrap_or_default();
                let place = format!("{}/{}", instance.site, instance.app);
                let what = json!([
                    instance.status.slug(),
                    instance.epoch,
                    app.epoch,
                    app.stopped,
                    self.shape_of_data_keys(instance.id)
                ]);
                (place, what)
            })
            .collect();
        all.sort_by(|one, other| one.0.cmp(&other.0));
        shape.insert(format!("instances of {name}"), json!(all));
    }

    fn shape_of_data_keys(&self, instance: InstanceId) -> Value {
        let keys = now_or_never(DataKeyRegistry::data_keys(&self.world.store, instance));
        let mut keys = keys.and_then(Result::ok).unwrap_or_default();
        keys.sort_by_key(|key| key.version);
        let one = |key: &claviger_app::ports::WrappedDataKey| {
            let arns = |wraps: &BTreeMap<_, claviger_app::ports::Wrap>| {
                wraps.values().map(|wrap| wrap.key.to_string()).collect::<Vec<_>>()
            };
            json!([key.purpose, key.version, key.generation, arns(&key.wraps), arns(&key.second)])
        };
        keys.iter().map(one).collect()
    }

    fn shape_of_tickets(
        &self,
        name: &claviger_domain::values::OrganisationName,
        shape: &mut serde_json::Map<String, Value>,
    ) {
        let page = now_or_never(Tickets::tickets(&self.world.store, name, None, 200));
        let tickets = page.and_then(Result::ok).map(|page| page.items).unwrap_or_default();
        let mut all: Vec<Value> = tickets
            .iter()
            .map(|ticket| {
                // What people said twice stands there twice.
                let ours = ticket.comments.iter().filter(|comment| comment.effect.is_some());
                let mut said: Vec<String> = ours.map(|comment| gist(&comment.body)).collect();
                said.sort();
                json!([ticket.title, ticket.status, said])
            })
            .collect();
        all.sort_by_key(Value::to_string);
        shape.insert(format!("tickets of {name}"), json!(all));
    }

    /// An app writes a record, whatever else nobody does.
    fn write_once(&mut self, org: usize) {
        self.world.state().writes_for = Some(org);
        self.use_records(0);
        self.world.state().writes_for = None;
        self.run_for(3_000);
    }
}

/// How an organisation that comes later holds its keys: each way has steps of its own.
pub const LATER: [(&str, &str, &str, Mode); 2] =
    [("umbrella", "666666666666", "europe", Mode::Byok), ("wayne", "777777777777", "india", Mode::Cmk)];
