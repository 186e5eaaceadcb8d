//! Each step of each use case repeated, failed, and broken off before and after it took effect: in the end everything is
//! as if nothing had happened.
//!
//! A scenario is played once undisturbed, and every call of a port that an invocation makes is noted. Then it is played
//! again for each of these calls and each way in which it can go wrong, with that one fault and no other: queues deliver
//! again, people repeat what gave no answer. What an invocation does is told by its name and by the calls that it made so
//! far, a commit's with what it decides: where both are the same, another invocation is at the same step, and is not
//! looked at again.

use std::collections::{BTreeMap, BTreeSet};

use claviger_app::ports::{DataKeyRegistry, Instances, Tickets};
use claviger_app::steer_reencryption::Steer;
use claviger_domain::catalogue::Mode;
use claviger_domain::ids::InstanceId;
use claviger_domain::reencryption::{Depth, Phase};
use serde_json::{Value, json};

use super::checks::now_or_never;
use super::deeds::AGENTS;
use super::kms::Standing;
use super::ports::{Fault, is_conditional};
use super::run::{DAY, FIRST, MINUTE, Newcomer, Options, Sim};
use super::script::Act;
use super::world::Event;
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

#[derive(Debug, Clone)]
enum Do {
    Act(Act),
    Minutes(i64),
    Days(i64),
    Write(usize),
    /// The keys of a job that is asked for now are disabled as soon as they are named.
    LoseNew(usize),
    /// The first of an organisation's keys is lost for good.
    LoseFirst(usize),
    /// The next order comes to no queue.
    ComesToNoQueue,
    /// An organisation's job comes to its end, whatever is in its way.
    JobEnds(usize),
    /// From here on every call counts.
    Mark,
}

struct Scenario {
    name: &'static str,
    /// Who is there.
    who: &'static [Newcomer],
    plays: Vec<Do>,
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
        "backups"
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

/// acme holds a key in each of two regions, initech lets us make them in two, globex has one.
const ACME: &[Newcomer] = &[FIRST[0]];
const GLOBEX: &[Newcomer] = &[FIRST[1]];
const INITECH: &[Newcomer] = &[FIRST[2]];
const BOTH: &[Newcomer] = &[FIRST[0], FIRST[2]];
/// The first of those who are there, and the second.
const ONE: usize = 0;
const OTHER: usize = 1;

fn scenarios() -> Vec<Scenario> {
    let mut all = of_people();
    all.extend(of_keys());
    all.extend(of_data());
    all
}

fn scenario(name: &'static str, who: &'static [Newcomer], plays: Vec<Do>) -> Scenario {
    Scenario { name, who, plays }
}

const fn act(act: Act) -> Do {
    Do::Act(act)
}

const fn change(to: Standing) -> Do {
    Do::Act(Act::Change { org: ONE, key: None, to })
}

const fn ask() -> Do {
    Do::Act(Act::Ask { org: ONE, left: 4 })
}

const fn reencrypt() -> Do {
    Do::Act(Act::Reencrypt { org: ONE, depth: Depth::Rekey, own_keys: false })
}

const fn steer(steer: Steer) -> Do {
    Do::Act(Act::Steer { org: ONE, steer })
}

/// Enrolling, apps, sites, permissions, leaving.
fn of_people() -> Vec<Scenario> {
    vec![
        scenario("an enrolment", ACME, vec![Do::Mark, act(Act::Enrol), act(Act::Approve), Do::Minutes(4)]),
        scenario(
            "an instance",
            ACME,
            vec![Do::Mark, act(Act::NewInstance { org: ONE, number: 7 }), act(Act::Approve), Do::Minutes(3)],
        ),
        scenario(
            "a site with another name",
            GLOBEX,
            vec![Do::Mark, act(Act::RenameSite { org: ONE }), Do::Minutes(1)],
        ),
        scenario(
            "a site that is deleted",
            GLOBEX,
            vec![
                Do::Mark,
                act(Act::DeleteSite { org: ONE, keep: false }),
                act(Act::DeleteSite { org: ONE, keep: true }),
                act(Act::DeleteSite { org: ONE, keep: false }),
                Do::Minutes(1),
                Do::Days(31),
                Do::Minutes(30),
            ],
        ),
        scenario(
            "an organisation leaves",
            GLOBEX,
            vec![
                Do::Mark,
                act(Act::Leave { org: ONE }),
                act(Act::Approve),
                Do::Minutes(4),
                Do::Days(31),
                Do::Minutes(40),
            ],
        ),
        scenario(
            "an organisation stays",
            GLOBEX,
            vec![Do::Mark, act(Act::Leave { org: ONE }), act(Act::Stay { org: ONE }), Do::Minutes(2)],
        ),
        scenario(
            "a permission is asked for",
            BOTH,
            vec![
                Do::Mark,
                act(Act::Publish),
                Do::Minutes(1),
                act(Act::AnswerAccess { org: ONE, accepts: true }),
                act(Act::AnswerAccess { org: OTHER, accepts: false }),
                Do::Minutes(2),
            ],
        ),
        scenario(
            "the vendor's records",
            GLOBEX,
            vec![Do::Mark, act(Act::Feed { org: ONE }), act(Act::AddDirectly { org: ONE }), Do::Minutes(2)],
        ),
    ]
}

/// Suspending and restoring, and keys that are lost.
fn of_keys() -> Vec<Scenario> {
    let (usable, disabled) = (Standing::Usable, Standing::Disabled);
    vec![
        scenario(
            "cut off and restored",
            ACME,
            vec![
                Do::Mark,
                change(disabled),
                Do::Minutes(4),
                change(usable),
                Do::Minutes(1),
                ask(),
                Do::Minutes(4),
            ],
        ),
        scenario(
            "an order that comes to no queue",
            GLOBEX,
            vec![Do::Mark, Do::ComesToNoQueue, change(disabled), Do::Minutes(14)],
        ),
        scenario(
            "denied, and a hint",
            ACME,
            vec![
                Do::Mark,
                act(Act::Forge { org: ONE }),
                change(Standing::Denied { blind: true }),
                Do::Minutes(6),
            ],
        ),
        scenario(
            "a key lost for good",
            ACME,
            vec![
                act(Act::LoseForGood { org: ONE }),
                act(Act::Change { org: ONE, key: Some(1), to: disabled }),
                Do::Minutes(4),
                change(usable),
                Do::Minutes(1),
                Do::Mark,
                ask(),
                Do::Minutes(4),
                act(Act::ReplaceLost { org: ONE }),
                Do::Minutes(8),
            ],
        ),
        scenario(
            "a key that the service made, lost for good",
            INITECH,
            vec![
                Do::LoseFirst(ONE),
                Do::Minutes(4),
                Do::Mark,
                act(Act::ReplaceLost { org: ONE }),
                Do::Minutes(8),
            ],
        ),
        scenario(
            "lapsed and carried out",
            INITECH,
            vec![
                change(Standing::RoleDenied),
                Do::Minutes(6),
                Do::Mark,
                Do::Days(16),
                Do::Minutes(12),
                change(usable),
                Do::Minutes(2),
                ask(),
                Do::Minutes(4),
            ],
        ),
        scenario(
            "the vendor suspends and lifts",
            ACME,
            vec![
                Do::Mark,
                act(Act::VendorSuspends { org: ONE }),
                Do::Minutes(2),
                act(Act::VendorLifts { org: ONE }),
                Do::Minutes(3),
            ],
        ),
        scenario(
            "a mistake",
            ACME,
            vec![
                change(disabled),
                Do::Minutes(3),
                change(usable),
                Do::Minutes(2),
                Do::Mark,
                act(Act::Mistake { org: ONE, who: AGENTS[0] }),
                act(Act::Mistake { org: ONE, who: AGENTS[1] }),
                Do::Minutes(4),
            ],
        ),
        scenario("material is renewed", INITECH, vec![Do::Mark, act(Act::Rotate), Do::Minutes(3)]),
    ]
}

/// Records and data keys that move.
fn of_data() -> Vec<Scenario> {
    vec![
        scenario(
            "everything moves",
            ACME,
            vec![
                Do::Write(ONE),
                Do::Write(ONE),
                Do::Write(ONE),
                Do::Write(ONE),
                Do::Mark,
                act(Act::BackUp { org: ONE }),
                reencrypt(),
                Do::JobEnds(ONE),
            ],
        ),
        scenario(
            "keys made for a job",
            INITECH,
            vec![Do::Write(ONE), Do::Mark, reencrypt(), Do::JobEnds(ONE)],
        ),
        scenario(
            "paused, resumed and cancelled",
            ACME,
            vec![
                // A new key is lost as soon as the job names it, so that it stays before its point of no return.
                Do::LoseNew(ONE),
                reencrypt(),
                Do::Minutes(1),
                Do::Mark,
                steer(Steer::Pause),
                steer(Steer::Resume),
                steer(Steer::Cancel),
                Do::JobEnds(ONE),
            ],
        ),
    ]
}

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

/// Facts of which the number depends on how often somebody looked: a probe that saw what was known, the description of
/// keys. What follows from them has a fact of its own.
const LOOKS: [&str; 2] = ["keys-described", "probes-reported"];

/// Comments that depend on who was first: whether the event of a change came before the sweep saw it, and whether one
/// probe saw both regions refuse, or one of them first. None is written twice: the observer sees to that (I4).
const PASSING: [&str; 2] = ["According to an event", "Revocation is incomplete"];

/// Words without what is different in every run: identifiers, times, counts of tries.
fn gist(text: &str) -> String {
    text.chars().take_while(|letter| !letter.is_ascii_digit()).take(60).collect()
}

/// What a notice is about.
fn words_of(notice: &str) -> (String, String) {
    let notice: Value = serde_json::from_str(notice).unwrap_or_default();
    let text = |value: &Value| value.as_str().map(gist).unwrap_or_default();
    let kind = match text(&notice["type"]) {
        // A cut-off opens a ticket, or is written on the one that a region which was first has opened.
        kind if kind == "ticket.opened" => "ticket.commented".to_owned(),
        kind => kind,
    };
    (kind, text(&notice["data"]["body"]))
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
            let slugs = of_policy.map(|fact| fact.slug.as_str());
            let mut decided: Vec<&str> = slugs.filter(|slug| !LOOKS.contains(slug)).collect();
            // Which, and how many of each. Of two that work at the same time the one or the other is first.
            decided.sort_unstable();
            shape.insert(format!("decisions of {name}"), json!(decided));
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
        // Which notices, and how many of each; their identifiers, and how often each was sent, differ.
        let mut told: Vec<(String, String)> = state.notices.values().map(|body| words_of(body)).collect();
        told.retain(|(_, gist)| !PASSING.iter().any(|passing| gist.starts_with(passing)));
        told.sort();
        shape.insert("told".to_owned(), json!(told));
        let undelivered = self.world.store.still_undelivered().len();
        let left = [self.world.store.outbox().len(), state.dead_letters.len(), undelivered];
        shape.insert("left".to_owned(), json!(left));
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
                // What people said twice stands there twice; what was heard, and which region was seen first, is a
                // matter of moments.
                let ours = ticket.comments.iter().filter(|comment| comment.effect.is_some());
                let mut said: Vec<String> = ours.map(|comment| gist(&comment.body)).collect();
                said.retain(|gist| !PASSING.iter().any(|passing| gist.starts_with(passing)));
                said.sort();
                json!([ticket.title, ticket.status, said])
            })
            .collect();
        all.sort_by_key(Value::to_string);
        shape.insert(format!("tickets of {name}"), json!(all));
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

/// How an organisation that comes later holds its keys: each way has steps of its own.
pub const LATER: [Newcomer; 2] =
    [("umbrella", "666666666666", "europe", Mode::Byok), ("wayne", "777777777777", "india", Mode::Cmk)];
