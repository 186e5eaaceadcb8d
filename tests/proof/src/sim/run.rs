//! The scheduler, and a run from enrolment to rest.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use claviger_app::carry_out_restoration::CarryOutRestoration;
use claviger_app::enrol::Enrol;
use claviger_app::hand_out_data_key::KeyRequest;
use claviger_app::ports::{
    Clock, DataKeyChoice, DataKeyRegistry, Instances, Organisations, Policies, SupportRequests, Tickets,
};
use claviger_app::request_error::RequestError;
use claviger_app::request_instance::RequestInstance;
use claviger_app::request_restoration::RequestRestoration;
use claviger_app::steer_reencryption::Steer;
use claviger_app::support_requests::{DecideRequests, Verdict};
use claviger_app::tickets::PeoplesTickets;
use claviger_domain::authorisation::Role;
use claviger_domain::catalogue::Mode;
use claviger_domain::data_keys::FormerDataKeys;
use claviger_domain::effect::Order;
use claviger_domain::fence::Cause;
use claviger_domain::ids::InstanceId;
use claviger_domain::instance::{AppInstance, InstanceStatus};
use claviger_domain::policy::{EncryptionPolicy, Lifecycle};
use claviger_domain::reencryption::{FormerKeys, Phase};
use claviger_domain::ticket::{Asked, TicketRequest, TicketStatus};
use claviger_domain::values::{App, SiteName};
use claviger_envelope::EnvelopeError;
use claviger_testkit::builders;
use serde_json::json;

use super::checks::now_or_never;
use super::kms::Standing;
use super::plane::{Process, ask};
use super::ports::Ports;
use super::scenarios::LATER;
use super::script::{Act, episode};
use super::storage::{read, vendor_records, write};
use super::work::{pass_deadlines, plan, see_to_undelivered, sweep_outbox, take_up_jobs, work};
use super::world::{Event, Message, OrgTruth, ROLES, RecordPlace, Violation, WORKER_ROLE, World, settings};
use crate::twin::Twin;

pub(super) const MINUTE: i64 = 60_000;
pub(super) const DAY: i64 = 24 * 60 * MINUTE;
const PROCESSES: usize = 4;
/// Every so many minutes dead letters are brought back.
const REDRIVE_MINUTES: i64 = 5;
/// Every so many minutes it is seen to what is due.
const DEADLINES_MINUTES: i64 = 5;
/// How often a queue delivers a message before it puts it aside.
const DELIVERIES: u32 = 6;

/// Who enrols at the beginning: name, account, realm, and how it holds its keys.
pub(super) type Newcomer = (&'static str, &'static str, &'static str, Mode);
pub(super) const FIRST: [Newcomer; 4] = [
    ("acme", "222222222222", "europe", Mode::Cmk),
    ("globex", "333333333333", "germany", Mode::Cmk),
    ("initech", "444444444444", "usa", Mode::Byok),
    ("hooli", "555555555555", "canada", Mode::Cmk),
];

/// What is run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Chooses everything.
    pub seed: u64,
    /// How many episodes.
    pub episodes: u32,
    /// The defect, if one is to be caught.
    pub twin: Option<Twin>,
    /// Whether to write down what happens.
    pub traced: bool,
}

/// What came of a run.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Virtual time of all active organisations together, in milliseconds.
    pub organisation_millis: i64,
    /// The part of it that was simulated call by call.
    pub detailed_millis: i64,
    /// Injected faults.
    pub faults: u64,
    /// Events of the scheduler.
    pub steps: u64,
    /// Looks at an invariant.
    pub checks: u64,
    /// Cut-offs that were seen.
    pub cut_offs: u64,
    /// Re-encryptions that ended.
    pub moved: u64,
    /// Newer versions of data keys that were made because apps asked.
    pub newer_keys: u64,
    /// Data keys of former generations that were removed when no backup needed them any more.
    pub removed: u64,
    /// What was wrong; a run stops at the first.
    pub violations: Vec<Violation>,
    /// What happened, if it was written down.
    pub trace: Vec<String>,
}

impl Outcome {
    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.organisation_millis += other.organisation_millis;
        self.detailed_millis += other.detailed_millis;
        self.faults += other.faults;
        self.steps += other.steps;
        self.checks += other.checks;
        self.cut_offs += other.cut_offs;
        self.moved += other.moved;
        self.newer_keys += other.newer_keys;
        self.removed += other.removed;
        self.violations.extend(other.violations.iter().cloned());
    }
}

/// Runs one seed.
pub fn run(options: Options) -> Outcome {
    run_with_log(options).0
}

/// Runs one seed, and gives the audit logs of its organisations too: a fact a line, as the API prints them.
pub fn run_with_log(options: Options) -> (Outcome, String) {
    let mut sim = Sim::new(options);
    sim.enrol_all(&FIRST);
    for number in 0..options.episodes {
        if sim.stopped() {
            break;
        }
        sim.world.note(|| format!("episode {number}"));
        sim.episode();
        sim.skip();
    }
    if !sim.stopped() {
        sim.come_to_rest();
    }
    let names: Vec<_> = sim.world.state().orgs.iter().map(|org| org.name.clone()).collect();
    let facts = names.iter().flat_map(|name| sim.world.store.all_facts(name));
    let lines: Vec<String> =
        facts.map(|fact| serde_json::to_string(&fact).expect("a fact is plain JSON")).collect();
    (sim.outcome(), lines.join("\n"))
}

type Ready = Arc<Mutex<VecDeque<u64>>>;

struct TaskWaker {
    task: u64,
    ready: Ready,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).push_back(self.task);
    }
}

type Work = Pin<Box<dyn Future<Output = bool>>>;

struct Task {
    work: Work,
    waker: Waker,
    ports: Option<Arc<Ports>>,
    message: Option<(Message, u32)>,
}

pub(super) struct Sim {
    pub(super) world: Arc<World>,
    tasks: BTreeMap<u64, Task>,
    ready: Ready,
    next: u64,
    steps: u64,
    processes: Vec<Process>,
    frozen_until: Vec<i64>,
    runtime: tokio::runtime::Runtime,
    organisation_millis: i64,
    detailed_millis: i64,
    counted_to: i64,
}

impl Sim {
    pub(super) fn new(options: Options) -> Self {
        // Only for the library's timeouts, which never come: its time stands still, the world's moves.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let world = Arc::new(World::new(options.seed, options.twin, options.traced));
        let counted_to = world.now();
        let mut sim = Self {
            world,
            tasks: BTreeMap::new(),
            ready: Ready::default(),
            next: 0,
            steps: 0,
            processes: Vec::new(),
            frozen_until: vec![0; PROCESSES + 1],
            runtime,
            organisation_millis: 0,
            detailed_millis: 0,
            counted_to,
        };
        // The last one is the worker that moves records to new keys.
        for number in 0..=PROCESSES {
            let process = sim.start_process(number);
            sim.processes.push(process);
        }
        sim
    }

    fn start_process(&self, number: usize) -> Process {
        if number < PROCESSES {
            return Process::start(&self.world, number, ROLES[number % ROLES.len()]);
        }
        let worker = Process::start(&self.world, number, (WORKER_ROLE, ""));
        let records = vendor_records(&self.world, &worker.library);
        *self.world.worker.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(records));
        worker
    }

    fn stopped(&self) -> bool {
        !self.world.state().violations.is_empty()
    }

    pub(super) fn outcome(self) -> Outcome {
        // It holds the world, and the world holds it.
        self.world.worker.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut state = self.world.state();
        Outcome {
            organisation_millis: self.organisation_millis,
            detailed_millis: self.detailed_millis,
            faults: state.faults,
            steps: self.steps,
            checks: state.checks,
            cut_offs: state.orgs.iter().map(|org| org.cut_offs).sum(),
            moved: state.moved,
            newer_keys: state.newer_keys,
            removed: state.removed,
            violations: state.violations.clone(),
            trace: state.trace.take().unwrap_or_default(),
        }
    }

    fn count(&mut self, detailed: bool) {
        let now = self.world.now();
        let passed = now - self.counted_to;
        self.counted_to = now;
        let active = self.world.state().orgs.iter().filter(|org| org.active_since.is_some()).count();
        let all = passed * i64::try_from(active).unwrap_or(0);
        self.organisation_millis += all;
        if detailed {
            self.detailed_millis += all;
        }
    }

    fn spawn(&mut self, work: Work, ports: Option<Arc<Ports>>, message: Option<(Message, u32)>) {
        self.next += 1;
        let task = self.next;
        let waker = Waker::from(Arc::new(TaskWaker { task, ready: Arc::clone(&self.ready) }));
        self.tasks.insert(task, Task { work, waker, ports, message });
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).push_back(task);
    }

    /// Starts an invocation on ports of its own.
    pub(super) fn invoke<F, Fut>(&mut self, name: &'static str, message: Option<(Message, u32)>, work: F)
    where
        F: FnOnce(Arc<Ports>) -> Fut,
        Fut: Future<Output = bool> + 'static,
    {
        let order = message.as_ref().map_or(Order::Suspend, |(message, _)| message.order());
        let ports = Ports::new(&self.world, order, name);
        let work = Box::pin(work(Arc::clone(&ports)));
        self.spawn(work, Some(ports), message);
    }

    fn poll_ready(&mut self) {
        loop {
            let next = self.ready.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(number) = next else { return };
            let Some(task) = self.tasks.get_mut(&number) else { continue };
            self.steps += 1;
            let entered = self.runtime.enter();
            let polled = task.work.as_mut().poll(&mut Context::from_waker(&task.waker));
            drop(entered);
            let died = task.ports.as_ref().is_some_and(|ports| ports.died());
            let done = match polled {
                Poll::Ready(fine) => fine,
                Poll::Pending if died => false,
                Poll::Pending => continue,
            };
            let Some(task) = self.tasks.remove(&number) else { continue };
            self.ended(&task, done);
            // A future holds the runtime's timers; let go of it inside.
            let _entered = self.runtime.enter();
            drop(task);
        }
    }

    fn ended(&self, task: &Task, fine: bool) {
        let hurt = task.ports.as_ref().is_some_and(|ports| ports.was_hurt() || ports.died());
        let Some((message, attempt)) = &task.message else {
            if hurt {
                self.world.troubled(0);
            }
            return;
        };
        if matches!(message, Message::Probe(_)) && (hurt || !fine) {
            self.world.troubled(0);
        }
        if fine {
            if task.ports.as_ref().is_some_and(|ports| ports.again()) {
                self.world.later(2_000, Event::Arrive(message.clone(), *attempt));
            }
            return;
        }
        if attempt + 1 < DELIVERIES {
            let delay = self.world.between(1_000, 30_000);
            self.world.later(delay, Event::Arrive(message.clone(), attempt + 1));
        } else if !message.may_be_lost() {
            self.world.note(|| format!("put aside: {message:?}"));
            self.world.state().dead_letters.push(message.clone());
        }
    }

    /// Runs until an instant, or until something is wrong.
    fn run_until(&mut self, end: i64) {
        loop {
            self.poll_ready();
            if self.stopped() {
                return;
            }
            match self.world.next_instant().filter(|next| *next <= end) {
                Some(next) => self.world.go_to(next),
                None => {
                    self.world.go_to(end);
                    return;
                }
            }
            if let Some(event) = self.world.due() {
                self.steps += 1;
                self.happens(event);
            }
        }
    }

    pub(super) fn run_for(&mut self, millis: i64) {
        self.run_until(self.world.now() + millis);
        self.count(true);
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Tick => self.tick(),
            Event::Arrive(message, attempt) => {
                let copy = message.clone();
                if self.world.state().watcher_dead && matches!(message, Message::Probe(_)) {
                    // Its queue keeps the message until the function is back, or drops it when it is old.
                    if attempt + 1 < DELIVERIES {
                        self.world.later(30_000, Event::Arrive(message, attempt + 1));
                    }
                    return;
                }
                let name = self.name_of(&message);
                self.invoke(name, Some((message, attempt)), |ports| async move {
                    let result = work(&ports, &copy).await;
                    if let Err(error) = &result {
                        ports.world.note(|| format!("not worked off: {copy:?}: {error:?}"));
                    }
                    result.is_ok()
                });
            }
            // Nobody uses a record in this run.
            Event::Poll(_) if !self.world.state().polls => {}
            Event::Poll(number) => {
                if self.world.now() >= self.frozen_until[number] {
                    let (library, fence) = self.processes[number].for_poll();
                    let poll = async move {
                        Process::poll(library, fence).await;
                        true
                    };
                    self.spawn(Box::pin(poll), None, None);
                }
                let pause = self.world.between(4_000, 6_000);
                self.world.later(pause, Event::Poll(number));
            }
            Event::Use(number) => {
                let uses = self.world.state().uses;
                if uses && self.world.now() >= self.frozen_until[number] {
                    self.use_records(number);
                }
                let pause = self.world.between(1_000, 5_000);
                self.world.later(pause, Event::Use(number));
            }
            Event::Act(act) => self.act(act),
        }
    }

    /// What works a message off; of a job's steps, in which phase of it.
    fn name_of(&self, message: &Message) -> &'static str {
        let Message::Step(step) = message else { return message.name() };
        let policy = now_or_never(self.world.store.policy(&step.organisation)).and_then(Result::ok).flatten();
        let job = policy.and_then(|policy| policy.reencryption).filter(|job| job.id == step.job);
        match job.map(|job| job.phase) {
            Some(Phase::Preparing) => "step-of-job-preparing",
            Some(Phase::Cancelling) => "step-of-job-cancelling",
            Some(Phase::Rewriting { .. }) => "step-of-job-rewriting",
            Some(Phase::Scanning { .. }) => "step-of-job-scanning",
            Some(Phase::Waiting { .. }) => "step-of-job-waiting",
            Some(Phase::Finishing) => "step-of-job-finishing",
            None => message.name(),
        }
    }

    fn tick(&mut self) {
        let dead = self.world.state().watcher_dead;
        if !dead {
            self.invoke("plan-sweeps", None, |ports| async move { plan(&ports).await.is_ok() });
        } else if self.world.is(Twin::DeadWatcherBeats) {
            let now = self.world.clock.now();
            let until = now + settings().probe_phase + settings().watch_slack;
            for shard in 0..settings().shards {
                let shard = claviger_domain::values::ShardId(shard);
                let beat = claviger_app::ports::Beat {
                    swept_at: now,
                    watched_until: until,
                    unproven: BTreeMap::new(),
                    mass_failure: false,
                    refused: 0,
                    open: 0,
                };
                let _ = now_or_never(claviger_app::ports::WatchList::beat(&self.world.store, shard, &beat));
            }
        }
        self.invoke("sweep-outbox", None, |ports| async move { sweep_outbox(&ports).await.is_ok() });
        self.invoke("take-up-jobs", None, |ports| async move { take_up_jobs(&ports).await.is_ok() });
        if self.world.now() / MINUTE % DEADLINES_MINUTES == 0 {
            self.invoke("pass-deadlines", None, |ports| async move { pass_deadlines(&ports).await.is_ok() });
        }
        // The outbox's schedule has what queues gave up tried again.
        if self.world.now() / MINUTE % REDRIVE_MINUTES == 0 {
            let aside = std::mem::take(&mut self.world.state().dead_letters);
            for message in aside {
                self.world.send(message, 0);
            }
            if !self.world.store.still_undelivered().is_empty() {
                self.invoke("see-to-undelivered", None, |ports| async move {
                    see_to_undelivered(&ports).await.is_ok()
                });
            }
        }
        self.world.later(MINUTE, Event::Tick);
    }

    /// Somebody writes or reads a record through a process of the data plane.
    pub(super) fn use_records(&mut self, number: usize) {
        let process = &self.processes[number];
        let (app, library) = (process.app, process.library.clone());
        let world = Arc::clone(&self.world);
        let next = self.next;
        let (place, writes) = {
            let mut state = world.state();
            let count = i64::try_from(state.orgs.len()).unwrap_or(1);
            let any = usize::try_from(state.rng.between(0, count - 1)).unwrap_or(0);
            let org = state.writes_for.unwrap_or(any);
            let known: Vec<RecordPlace> =
                state.records.keys().filter(|(of, _, its, _)| *of == org && its == app).cloned().collect();
            let another = known.len() < 4 || (known.len() < 12 && state.rng.per_mille(300));
            let over = state.rng.per_mille(250);
            match state.rng.one_of(&known).filter(|_| !another).cloned() {
                Some(place) => (place, over),
                None => {
                    let name = &state.orgs[org].name;
                    ((org, format!("{name}-site"), app.to_owned(), format!("{name}-{next}")), true)
                }
            }
        };
        let work = async move {
            let answer = if writes {
                write(&world, &library, place.clone(), format!("{} of {next}", place.3)).await
            } else {
                match read(&world, &library, &place).await {
                    Ok(None) => Ok(()),
                    Ok(Some((written, plain))) => {
                        world.gave_out(place.0, "a record was read");
                        if plain != written.as_bytes() {
                            world.violated("I8", format!("{place:?} came back as something else"));
                        }
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            };
            match answer {
                // A write that nobody acknowledged may be refused; its app seals it anew.
                Ok(()) | Err(EnvelopeError::Suspended | EnvelopeError::TemporarilyUnavailable { .. }) => true,
                Err(EnvelopeError::NotEntitled | EnvelopeError::GenerationTooOld { .. }) if writes => true,
                Err(error) => {
                    let left = world.state().orgs[place.0].leaves;
                    if !left {
                        world.violated("I8", format!("{place:?} cannot be used: {error}"));
                    }
                    left
                }
            }
        };
        self.spawn(Box::pin(work), None, None);
    }

    pub(super) fn act(&mut self, act: Act) {
        let world = Arc::clone(&self.world);
        world.note(|| format!("act: {act:?}"));
        match act {
            Act::Change { org, key, to } => self.change(org, key, to),
            Act::Ask { org, left } => self.ask_for_restoration(org, left, true),
            Act::SupportAsks { org } => self.ask_for_restoration(org, 0, false),
            Act::Outage { region, kind, millis } => {
                world.fault(|| format!("{region} gives no answers"));
                world.kms.outage(&region, kind, world.now() + millis);
                world.troubled(millis);
            }
            Act::Ill { region, millis } => {
                world.fault(|| format!("the control probe of {region} is ill"));
                world.kms.ill(&region, world.now(), world.now() + millis);
            }
            Act::WatcherDies { millis } => {
                world.fault(|| "the watcher dies".to_owned());
                world.state().watcher_dead = true;
                world.troubled(millis);
                let probing: Vec<u64> = self
                    .tasks
                    .iter()
                    .filter(|(_, task)| matches!(task.message, Some((Message::Probe(_), _))))
                    .map(|(number, _)| *number)
                    .collect();
                for number in probing {
                    let _entered = self.runtime.enter();
                    self.tasks.remove(&number);
                }
            }
            Act::WatcherLives => {
                world.state().watcher_dead = false;
                world.troubled(MINUTE);
            }
            Act::FenceDown { millis } => {
                world.fault(|| "the fence cannot be read".to_owned());
                let until = world.now() + millis;
                world.state().fence_down_until = until;
            }
            Act::FenceSlow { millis } => {
                world.fault(|| "every read of the fence takes long".to_owned());
                let until = world.now() + millis;
                world.state().fence_slow_until = until;
            }
            Act::Chaos { per_mille } => world.state().chaos = per_mille,
            Act::Forge { org } => {
                let account = world.state().orgs[org].account.clone();
                world.fault(|| "a forged event".to_owned());
                world.send(Message::KeyEvent(account), 0);
            }
            Act::Replay => {
                let old = {
                    let mut state = world.state();
                    let mail = std::mem::take(&mut state.old_mail);
                    let old = state.rng.one_of(&mail).cloned();
                    state.old_mail = mail;
                    old
                };
                if let Some(old) = old {
                    world.fault(|| "an old message is sent again".to_owned());
                    world.send(old, 0);
                }
            }
            Act::Steal { by, from } => self.steal(by, from),
            Act::StrangerEnrols { keys_of } => self.stranger_enrols(keys_of),
            Act::NewInstance { org, number } => self.new_instance(org, number),
            Act::Approve => self.approve(),
            Act::Restart { process } => {
                let fresh = self.start_process(process);
                let _entered = self.runtime.enter();
                self.processes[process] = fresh;
            }
            Act::Reencrypt { org, depth, own_keys } => self.reencrypt(org, depth, own_keys),
            Act::Steer { org, steer } => self.steer(org, steer),
            Act::ChangeNew { org, key, to } => self.change_new(org, key, to),
            Act::LoseFormer { org } => self.lose_former(org),
            Act::LoseForGood { org } => self.lose_for_good(org),
            Act::ReplaceLost { org } => self.replace_lost(org),
            Act::VendorSuspends { org } => self.vendor_suspends(org),
            Act::VendorLifts { org } => self.vendor_lifts(org),
            Act::Mistake { org, who } => self.is_a_mistake(org, who),
            Act::Leave { org } => self.leaves(org, true),
            Act::Stay { org } => self.leaves(org, false),
            Act::BackUp { org, days } => self.back_up(org, days),
            Act::TellBackup { number } => self.tell_backup(number),
            Act::BringBack { org } => self.bring_back(org),
            Act::Rotate => self.rotate(),
            Act::Publish => self.publish(),
            Act::AnswerAccess { org, accepts } => self.answer_access(org, accepts),
            Act::Feed { org } => self.feed(org),
            Act::AddDirectly { org } => self.add_directly(org),
            Act::RenameSite { org } => self.rename_site(org),
            Act::DeleteSite { org, keep } => self.delete_site(org, keep),
            Act::Enrol => LATER.into_iter().for_each(|one| self.enrol_one(one)),
            Act::Freeze { process, millis } => {
                world.fault(|| format!("process {process} stands still"));
                let until = world.now() + millis;
                self.frozen_until[process] = until;
                // Half of the time the boot clock stands still with it, and only the wall clock tells.
                if world.chance(500)
                    && let Some((_, still_until)) = world.state().clocks.get_mut(&process)
                {
                    *still_until = until;
                }
            }
        }
    }

    fn change(&self, org: usize, key: Option<usize>, to: Standing) {
        let world = &self.world;
        let truth = world.state().orgs[org].clone();
        let now = world.now();
        if truth.mode == Mode::Byok {
            world.kms.trust(&truth.account, to != Standing::RoleDenied);
        }
        for (index, arn) in truth.keys.iter().enumerate() {
            let is_gone = world.state().gone.contains(arn);
            if !is_gone && key.is_none_or(|key| key == index) {
                let spread = now + world.between(0, 4_000);
                world.kms.change(arn, to, now, spread);
            }
        }
        let heard = world.between(200, 20_000);
        if world.chance(600) {
            world.send(Message::KeyEvent(truth.account.clone()), heard);
        } else {
            world.fault(|| "an event of KMS is lost".to_owned());
        }
    }

    /// Asks for restoration as an org admin, or as a support agent who may not. After the window support carries out what
    /// the admin asked for on the ticket.
    fn ask_for_restoration(&mut self, org: usize, left: u32, admin: bool) {
        let through = admin || self.world.is(Twin::SupportOpens);
        let origin = if through { builders::by_admin() } else { builders::by_support() };
        let world = Arc::clone(&self.world);
        let lapsed = self.policy(org).is_some_and(|it| matches!(it.lifecycle, Lifecycle::Lapsed { .. }));
        let name = if admin && lapsed { "carry-out-restoration" } else { "ask-for-restoration" };
        self.invoke(name, None, |ports| async move {
            let name = world.state().orgs[org].name.clone();
            let Ok(Some(policy)) = world.store.policy(&name).await else { return false };
            let without = policy.keys.values().any(|key| world.state().gone.contains(&key.arn));
            let asked_at = world.now();
            if admin {
                world.state().orgs[org].asked.push((asked_at, without));
            }
            let suspended = policy.fence.causes.contains(&Cause::Key);
            let Some(ticket) = policy.ticket.filter(|_| suspended) else {
                world.state().orgs[org].asked.retain(|(at, _)| *at != asked_at);
                return true;
            };
            // Spoken for before the first call, so that a request that dies on its way is asked again.
            if left > 0 {
                world.later(20_000, Event::Act(Act::Ask { org, left: left - 1 }));
            }
            let (policies, prober, clock) = (&*ports, &*ports, &*ports);
            let answer = if admin && matches!(policy.lifecycle, Lifecycle::Lapsed { .. }) {
                let people = PeoplesTickets { tickets: &*ports, clock };
                let by = builders::parsed("admin");
                let asked = TicketRequest { asked: Asked::Restoration, by, into_degraded: without };
                let said = people.comment(&name, ticket, "please", Role::OrgAdmin, Some(asked)).await;
                let Ok(Some(organisation)) = world.store.organisation(&name).await else { return false };
                let (tickets, settings) = (&*ports, settings());
                let carry = CarryOutRestoration { policies, tickets, prober, clock, settings };
                match said {
                    Ok(_) => carry.run(&organisation, ticket, &builders::by_support()).await,
                    Err(error) => Err(error),
                }
            } else {
                let request = RequestRestoration { policies, prober, clock, settings: settings() };
                request.run(&name, ticket, without, &origin).await
            };
            if let Err(RequestError::Refused(_)) = &answer {
                world.state().orgs[org].asked.retain(|(at, _)| *at != asked_at);
            }
            answer.is_ok()
        });
    }

    fn steal(&mut self, by: usize, from: usize) {
        let world = Arc::clone(&self.world);
        let (thief, victim, key) = {
            let state = world.state();
            let (thief, victim) = (state.orgs[by].clone(), state.orgs[from].clone());
            let key = state.data_keys.iter().find(|(_, (_, owner))| *owner == victim.id).map(|(id, _)| *id);
            (thief, victim, key)
        };
        let place = |org: &OrgTruth| -> SiteName { builders::parsed(&format!("{}-site", org.name)) };
        let request = |site: SiteName, role: usize, app: usize, choice| KeyRequest {
            caller_role: ROLES[role].0.to_owned(),
            organisation: thief.name.clone(),
            site,
            app: builders::parsed(ROLES[app].1),
            choice,
            newer_than: Some(1),
        };
        let mut tries = vec![
            request(place(&victim), 0, 0, DataKeyChoice::Current),
            request(place(&victim), 1, 1, DataKeyChoice::Version(1)),
            request(place(&thief), 0, 1, DataKeyChoice::Current),
        ];
        if let Some(key) = key {
            tries.push(request(place(&thief), 0, 0, DataKeyChoice::Id(key)));
            tries.push(request(place(&victim), 0, 0, DataKeyChoice::Id(key)));
        }
        let work = async move {
            for one in tries {
                if let Ok(key) = ask(&world, 0, &one).await {
                    world.handed_out(by, &key);
                    let entitled = settings().app_roles.get(&one.caller_role);
                    if !entitled.is_some_and(|apps| apps.contains(&one.app)) {
                        world.violated("I7", format!("{} got a key of {}", one.caller_role, one.app));
                    }
                }
            }
            true
        };
        self.spawn(Box::pin(work), None, None);
    }

    fn stranger_enrols(&mut self, keys_of: usize) {
        let world = Arc::clone(&self.world);
        let victim = world.state().orgs[keys_of].clone();
        self.invoke("stranger-enrols", None, |ports| async move {
            let stranger = builders::an_organisation("mallory");
            let enrol = Enrol {
                policies: &*ports,
                prober: &*ports,
                ids: &*ports,
                clock: &*ports,
                settings: settings(),
            };
            let enrolled = enrol.run(&stranger, &body(&victim), &builders::by_admin()).await;
            if enrolled.is_ok() {
                world.violated("I7", format!("a stranger enrolled the keys of {}", victim.name));
            }
            true
        });
    }

    fn new_instance(&mut self, org: usize, number: u64) {
        let world = Arc::clone(&self.world);
        let name = world.state().orgs[org].name.clone();
        self.invoke("request-instance", None, |ports| async move {
            let Ok(Some(organisation)) = world.store.organisation(&name).await else { return false };
            let request = RequestInstance {
                policies: &*ports,
                instances: &*ports,
                ids: &*ports,
                clock: &*ports,
                settings: settings(),
            };
            for (_, app) in ROLES {
                let site: SiteName = if number == 0 {
                    builders::parsed(&format!("{name}-site"))
                } else {
                    builders::parsed(&format!("{name}-{number}"))
                };
                let app: App = builders::parsed(app);
                let _ = request.run(&organisation, &site, &app, &builders::by_admin()).await;
            }
            true
        });
    }

    fn approve(&mut self) {
        self.invoke("decide-requests", None, |ports| async move {
            let Ok(page) = ports.support_requests(None, 200).await else { return false };
            let decide = DecideRequests {
                requests: &*ports,
                organisations: &*ports,
                policies: &*ports,
                instances: &*ports,
                clock: &*ports,
                settings: settings(),
            };
            for request in page.items {
                let _ = decide.decide(request.id, &Verdict::Approved, &builders::by_support()).await;
            }
            true
        });
    }

    pub(super) fn start_rhythm(&self) {
        self.world.later(0, Event::Tick);
        for number in 0..=PROCESSES {
            let pause = self.world.between(0, 5_000);
            self.world.later(pause, Event::Poll(number));
            if number == PROCESSES {
                break;
            }
            let pause = self.world.between(500, 5_500);
            self.world.later(pause, Event::Use(number));
        }
    }

    /// Organisations enrol, by the calls that people make, and get two apps each.
    pub(super) fn enrol_all(&mut self, all: &[Newcomer]) {
        for one in all {
            self.enrol_one(*one);
        }
        self.start_rhythm();
        self.run_for(5_000);
        self.approve();
        self.run_for(MINUTE);
        let count = self.world.state().orgs.len();
        for org in 0..count {
            self.new_instance(org, 0);
        }
        self.run_for(5_000);
        self.approve();
        self.run_for(2 * MINUTE);
        let active = self.world.state().orgs.iter().filter(|org| org.active_since.is_some()).count();
        if active != count {
            self.world.violated("start", format!("{active} of {count} organisations became active"));
        }
    }

    /// An organisation enrols, by the calls that people make; the same, if it is said again.
    fn enrol_one(&mut self, (name, account, realm, mode): Newcomer) {
        let organisation = builders::an_organisation(name);
        let place = self.world.state().orgs.iter().position(|org| org.name == organisation.name);
        let number = place.unwrap_or_else(|| self.world.state().orgs.len());
        let enrolment = match mode {
            Mode::Cmk => builders::an_enrolment(account, realm),
            Mode::Byok => {
                let role = builders::a_role(account);
                self.world.kms.vault.create_role(&role, Some(&organisation.external_id));
                builders::a_byok_enrolment(account, realm)
            }
        };
        for key in enrolment.keys().map(|(_, key)| key) {
            self.world.kms.create(key, organisation.id);
            self.world.state().owners.insert(key.clone(), number);
        }
        let _ = now_or_never(self.world.store.save_organisation(&organisation));
        let truth = OrgTruth {
            name: organisation.name.clone(),
            id: organisation.id,
            account: enrolment.account.clone(),
            realm,
            keys: enrolment.keys().map(|(_, key)| key.clone()).collect(),
            keys_since: 0,
            made: 0,
            policy: None,
            closed_at: None,
            cause_at: None,
            taken: false,
            named: BTreeSet::new(),
            asked: Vec::new(),
            stopped_at: None,
            agents: Vec::new(),
            mode,
            leaves: false,
            last_proof: 0,
            cut_offs: 0,
            active_since: None,
        };
        let body = body(&truth);
        if place.is_none() {
            self.world.state().orgs.push(truth);
        }
        self.invoke("enrol", None, |ports| async move {
            let enrol = Enrol {
                policies: &*ports,
                prober: &*ports,
                ids: &*ports,
                clock: &*ports,
                settings: settings(),
            };
            enrol.run(&organisation, &body, &builders::by_admin()).await.is_ok()
        });
    }

    fn episode(&mut self) {
        let acts = episode(&self.world, PROCESSES);
        let start = self.world.now();
        let mut last = start;
        for (when, act) in acts {
            last = last.max(start + when);
            self.world.later(when, Event::Act(act));
        }
        self.run_until(last + MINUTE);
        self.count(true);
        self.world.check_chains();
    }

    fn versions(&self) -> Vec<Option<u64>> {
        let count = self.world.state().orgs.len();
        (0..count).map(|org| self.policy(org).map(|policy| policy.version)).collect()
    }

    /// Whether time alone changes nothing of an organisation: no window runs, no job waits.
    fn rests(&self, org: usize) -> bool {
        self.policy(org).is_none_or(|policy| {
            let keeps = policy.former_keys.iter().any(|former| former.data_keys.are_kept());
            let leaves = policy.closing.is_some();
            let runs = policy.reencryption.is_some() || leaves || policy.lift.is_some() || keeps;
            policy.fence.is_open() && !runs
        })
    }

    /// Skips the quiet time to the next episode, if there is any.
    fn skip(&mut self) {
        let mut still = 0;
        for _ in 0..40 {
            if self.stopped() {
                return;
            }
            let before = self.versions();
            self.run_for(MINUTE);
            let calm = self.world.kms.is_calm(self.world.now() - MINUTE);
            let quiet = calm && self.versions() == before && self.world.store.outbox().is_empty();
            still = if quiet { still + 1 } else { 0 };
            if still >= 2 && self.settle() {
                break;
            }
        }
        if still < 2 || self.stopped() {
            return;
        }
        self.world.clear_agenda();
        let days = 1 + self.world.between(0, 13) * self.world.between(0, 13);
        let to = self.world.now() + days * DAY + self.world.between(0, DAY);
        self.world.note(|| format!("{days} quiet days"));
        self.world.go_to(to);
        self.count(false);
        let before = self.versions();
        let rested: Vec<usize> = (0..before.len()).filter(|org| self.rests(*org)).collect();
        self.world.troubled(MINUTE);
        self.start_rhythm();
        self.run_for(80_000);
        for (org, (after, before)) in self.versions().into_iter().zip(before).enumerate() {
            if rested.contains(&org) && after != before {
                let what = format!("a quiet time was not quiet: organisation {org} changed after it");
                self.world.violated("skip", what);
            }
        }
    }

    /// Runs on until nothing is under way.
    fn settle(&mut self) -> bool {
        for _ in 0..200 {
            if self.tasks.is_empty() && self.world.is_quiet() {
                return true;
            }
            self.run_for(100);
        }
        false
    }

    /// Heals everything, lets what is under way finish, and compares what is with what should be.
    fn come_to_rest(&mut self) {
        let now = self.world.now();
        self.world.note(|| "everything heals".to_owned());
        self.world.kms.heal(now);
        {
            let mut state = self.world.state();
            state.chaos = 0;
            state.watcher_dead = false;
            state.fence_down_until = 0;
            state.fence_slow_until = 0;
        }
        self.frozen_until = vec![0; PROCESSES + 1];
        self.world.troubled(MINUTE);
        let count = self.world.state().orgs.len();
        let mut revoked = Vec::new();
        for org in 0..count {
            let gone = self.world.chance(250);
            revoked.push(gone);
            let to = if gone { Standing::Disabled } else { Standing::Usable };
            self.change(org, None, to);
            self.change_new(org, None, to);
            self.leaves(org, false);
            self.vendor_lifts(org);
        }
        self.run_for(4 * MINUTE);
        for (org, gone) in revoked.iter().enumerate() {
            if !gone {
                self.ask_for_restoration(org, 10, true);
            }
        }
        for _ in 0..3 {
            self.run_for(5 * MINUTE);
            self.approve();
            for org in 0..count {
                self.vendor_lifts(org);
                self.replace_lost(org);
                self.steer(org, Steer::Resume);
            }
        }
        self.run_for(5 * MINUTE);
        // A job waits for weeks between its scans.
        for _ in 0..60 {
            let open =
                |org: &usize| !revoked[*org] && self.policy(*org).is_some_and(|it| it.reencryption.is_some());
            if self.stopped() || !(0..count).any(|org| open(&org)) {
                break;
            }
            self.run_for(5 * MINUTE);
            self.skip();
        }
        if self.stopped() {
            return;
        }
        self.world.check_chains();
        for (org, gone) in revoked.iter().enumerate() {
            self.check_rest(org, *gone);
        }
        self.read_everything(&revoked);
    }

    fn check_rest(&self, org: usize, gone: bool) {
        let world = &self.world;
        let name = world.state().orgs[org].name.clone();
        let wrong = |what: String| world.violated("liveness", format!("{name}: {what}"));
        let Some(Ok(Some(policy))) = now_or_never(world.store.policy(&name)) else {
            return wrong("the policy is not there".to_owned());
        };
        if policy.fence.causes.contains(&Cause::Closing) {
            return self.check_left(org, &policy);
        }
        if let (false, Some(job)) = (gone, &policy.reencryption) {
            wrong(format!("the re-encryption is still {}", job.phase.slug()));
        }
        let going = |former: &FormerKeys| matches!(former.data_keys, FormerDataKeys::Removing { .. });
        if policy.former_keys.iter().any(going) {
            wrong("data keys that nothing needs are still being removed".to_owned());
        }
        let as_wanted = match policy.lifecycle {
            Lifecycle::Suspended { .. } | Lifecycle::Lapsed { .. } => gone && !policy.fence.is_open(),
            Lifecycle::Active { .. } => !gone && policy.fence.is_open(),
            _ => false,
        };
        if !as_wanted {
            wrong(format!("revoked is {gone} and the policy is {}", policy.lifecycle.slug()));
        }
        if policy.fence.epoch.0 > 0 && policy.told != policy.fence.epoch {
            wrong(format!(
                "instances were told of {:?}, the fence is at {:?}",
                policy.told, policy.fence.epoch
            ));
        }
        let mut cursor = None;
        let mut instances: Vec<AppInstance> = Vec::new();
        while let Some(Ok(page)) = now_or_never(world.store.instances(&name, cursor.as_deref(), 200)) {
            instances.extend(page.items);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        for instance in instances {
            let place = format!("{}/{}", instance.site, instance.app);
            let app = world.state().apps.get(&instance.id).cloned().unwrap_or_default();
            match instance.status {
                InstanceStatus::Suspended { .. } if !gone => wrong(format!("{place} is suspended")),
                InstanceStatus::Active { .. } if gone => wrong(format!("{place} is active")),
                InstanceStatus::Active { .. } | InstanceStatus::Suspended { .. } => {
                    let told = instance.epoch == policy.fence.epoch && app.epoch <= instance.epoch.0;
                    if !told || (app.epoch > 0 && app.stopped != gone) {
                        wrong(format!("{place} is at {:?}, its app at {app:?}", instance.epoch));
                    }
                }
                // While access is cut off, none is approved or made.
                InstanceStatus::Requested { .. } | InstanceStatus::Provisioning { .. } if gone => {}
                ref other => wrong(format!("{place} is {}", other.slug())),
            }
        }
        let Some(Ok(page)) = now_or_never(Tickets::tickets(&world.store, &name, None, 200)) else {
            return wrong("the tickets cannot be read".to_owned());
        };
        let open = page.items.iter().filter(|ticket| ticket.status == TicketStatus::Open);
        let open: Vec<&str> = open.map(|ticket| ticket.title.as_str()).collect();
        // One of the suspension, and where that stopped a job, one of the job.
        let wanted = usize::from(gone) + usize::from(gone && policy.reencryption.is_some());
        if open.len() != wanted {
            wrong(format!("{open:?} are open"));
        }
        let left = world.store.outbox().len();
        if left > 0 {
            wrong(format!("{left} effects are left in the outbox"));
        }
    }

    /// Of an organisation that left there is no data key, or none will be.
    fn check_left(&self, org: usize, policy: &EncryptionPolicy) {
        let world = &self.world;
        let wrong =
            |what: String| world.violated("liveness", format!("{}: {what}", policy.organisation_name));
        if policy.erasure.is_none() || !matches!(policy.lifecycle, Lifecycle::Closed { .. }) {
            return wrong(format!("it left, and is {}", policy.lifecycle.slug()));
        }
        let id = world.state().orgs[org].id;
        let ours: Vec<InstanceId> =
            world.state().data_keys.values().filter(|(_, owner)| *owner == id).map(|(of, _)| *of).collect();
        for instance in ours {
            let left = now_or_never(DataKeyRegistry::data_keys(&world.store, instance));
            if !left.is_some_and(|left| left.is_ok_and(|left| left.is_empty())) {
                wrong(format!("data keys of {instance} are left"));
            }
        }
    }

    /// I8: every record that was acknowledged can be read, and so can every backup, unless its organisation is cut off.
    fn read_everything(&mut self, revoked: &[bool]) {
        self.read_storage(revoked);
        let count = revoked.len();
        for org in 0..count {
            self.bring_back(org);
        }
        self.read_storage(revoked);
    }

    fn read_storage(&mut self, revoked: &[bool]) {
        let places: Vec<RecordPlace> = self.world.state().records.keys().cloned().collect();
        for place in places {
            let left = self.policy(place.0).is_some_and(|it| it.fence.causes.contains(&Cause::Closing));
            if revoked[place.0] || left {
                continue;
            }
            let Some(process) = self.processes.iter().find(|process| process.app == place.2) else {
                continue;
            };
            let (library, world) = (process.library.clone(), Arc::clone(&self.world));
            let reads = async move {
                let mut answer = read(&world, &library, &place).await;
                for _ in 0..5 {
                    if answer.is_ok() {
                        break;
                    }
                    world.pause(5_000).await;
                    answer = read(&world, &library, &place).await;
                }
                let back = |(written, plain): &(String, Vec<u8>)| written.as_bytes() == plain;
                if !answer.as_ref().is_ok_and(|found| found.as_ref().is_some_and(back)) {
                    world.violated("I8", format!("record {place:?} is lost: {answer:?}"));
                }
                true
            };
            self.spawn(Box::pin(reads), None, None);
        }
        self.run_for(MINUTE);
    }
}

fn body(org: &OrgTruth) -> serde_json::Value {
    if org.mode == Mode::Byok {
        return json!({
            "mode": "byok",
            "awsAccountId": org.account,
            "realm": org.realm,
            "roleArn": builders::a_role(org.account.as_str()).as_str(),
            "contextTag": "proof",
            "contextTagConfirmation": "proof",
        });
    }
    let keys: Vec<_> =
        org.keys.iter().map(|arn| json!({ "region": arn.region(), "keyArn": arn.as_str() })).collect();
    json!({
        "mode": "cmk",
        "awsAccountId": org.account,
        "realm": org.realm,
        "keys": keys,
        "contextTag": "proof",
        "contextTagConfirmation": "proof",
    })
}
