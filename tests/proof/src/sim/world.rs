//! One world: the stores, KMS, the time, what waits to happen, and what an all-knowing observer saw.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use claviger_app::follow_hint::FollowedRefusals;
use claviger_app::hand_out_data_key::UnwrappedKeys;
use claviger_app::messages::{AppOrder, DataKeyPage, ErasurePage, FanOut, NewerDataKey, ProbeMessage};
use claviger_app::reencryption::{JobStep, ShardWork};
use claviger_app::settings::Settings;
use claviger_app::webhooks::WebhookMessage;
use claviger_domain::catalogue::Mode;
use claviger_domain::effect::{Effect, Order, OutboxRow};
use claviger_domain::ids::{DataKeyId, InstanceId, OrganisationId, PolicyId};
use claviger_domain::values::{AccountId, KeyArn, OrganisationName, ShardId, Subject};
use claviger_envelope::testing::FakeClock as PlaneClock;
use claviger_reencrypt::VendorRecords;
use claviger_testkit::{FakeClock, MemoryWorld, SequentialIds, builders};
use jiff::{SignedDuration, Timestamp};

use super::kms::Kms;
use super::steps::Steps;
use crate::rng::Rng;
use crate::twin::Twin;

/// An instant from Unix milliseconds.
pub fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).expect("an instant within the calendar")
}

/// Whole milliseconds.
pub fn millis(duration: SignedDuration) -> i64 {
    i64::try_from(duration.as_millis()).expect("a short time")
}

/// The roles of the vendor's apps: each may ask for the data keys of its own app.
pub const ROLES: [(&str, &str); 2] = [
    ("arn:aws:iam::111111111111:role/tracker", "jira"),
    ("arn:aws:iam::111111111111:role/wiki", "confluence"),
];
/// The role of the worker that moves records to new keys: it may ask for those of every app.
pub const WORKER_ROLE: &str = "arn:aws:iam::111111111111:role/reencryption-worker";

static SETTINGS: LazyLock<Settings> = LazyLock::new(|| {
    let of_apps = ROLES.iter().map(|(role, app)| ((*role).to_owned(), vec![builders::parsed(app)]));
    let worker = (WORKER_ROLE.to_owned(), ROLES.map(|(_, app)| builders::parsed(app)).into());
    Settings {
        shards: 2,
        record_shards: 2,
        app_roles: of_apps.chain([worker]).collect(),
        ..builders::settings().clone()
    }
});

/// Production's settings, with two shards of keys and of records, two apps and the worker.
pub fn settings() -> &'static Settings {
    &SETTINGS
}

/// What travels.
#[derive(Debug, Clone)]
pub enum Message {
    /// To the prober.
    Probe(ProbeMessage),
    /// From the table's stream to the outbox function.
    Stream(Box<OutboxRow>),
    /// From the bus to the function whose concern it is.
    Effect(Box<OutboxRow>),
    /// To the suspender or the restorer itself.
    Page(Order, Box<FanOut>),
    /// To the restorer or the provisioner itself: a page of data keys.
    DataKeys(Box<DataKeyPage>),
    /// To the provisioner itself: a page of data keys to erase.
    Erasure(Box<ErasurePage>),
    /// To the provisioner: a newer version of a data key.
    Newer(NewerDataKey),
    /// To an app of the vendor's.
    Order(Box<AppOrder>),
    /// About a customer's account.
    KeyEvent(AccountId),
    /// To the re-encryption's planner.
    Step(Box<JobStep>),
    /// To the re-encryption's worker.
    Shard(Box<ShardWork>),
    /// To a machine of the vendor's that wants to know what happens.
    Notice(Box<WebhookMessage>),
}

impl Message {
    /// What works it off.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Probe(ProbeMessage::Sweep { .. }) => "sweep",
            Self::Probe(ProbeMessage::SweepRest(_)) => "sweep-rest",
            Self::Probe(ProbeMessage::Probe { .. }) => "follow-hint",
            Self::Probe(ProbeMessage::FollowUp { .. }) => "follow-up",
            Self::Probe(ProbeMessage::Describe { .. }) => "describe-shard",
            Self::Probe(ProbeMessage::DescribeKeys { .. }) => "describe-keys",
            Self::Stream(row) => match row.effect {
                Effect::OpenTicket { .. } => "deliver-ticket",
                Effect::CommentTicket { .. } => "deliver-comment",
                Effect::ResolveTicket { .. } => "deliver-resolution",
                Effect::TellApp { .. } => "deliver-order-to-app",
                Effect::VerifyPolicy
                | Effect::ProvisionInstance { .. }
                | Effect::SuspendInstances { .. }
                | Effect::RestoreInstances { .. }
                | Effect::ProveRestoration
                | Effect::ReplaceKey { .. }
                | Effect::EraseDataKeys
                | Effect::EraseInstance { .. }
                | Effect::RemoveDataKeys { .. }
                | Effect::Reencrypt { .. } => "deliver-effect",
            },
            Self::Effect(row) => match row.effect {
                Effect::VerifyPolicy => "verify-policy",
                Effect::ProvisionInstance { .. } => "provision-instance",
                Effect::SuspendInstances { .. } => "suspend-instances",
                Effect::RestoreInstances { .. } => "restore-instances",
                Effect::ProveRestoration => "prove-restoration",
                Effect::ReplaceKey { .. } => "replace-key",
                Effect::EraseDataKeys => "erase-data-keys",
                Effect::EraseInstance { .. } => "erase-instance",
                Effect::RemoveDataKeys { .. } => "remove-data-keys",
                Effect::Reencrypt { .. } => "reencrypt",
                Effect::OpenTicket { .. }
                | Effect::CommentTicket { .. }
                | Effect::ResolveTicket { .. }
                | Effect::TellApp { .. } => "nothing",
            },
            Self::Page(..) => "page-of-instances",
            Self::DataKeys(_) => "page-of-data-keys",
            Self::Erasure(page) => match page.row.effect {
                Effect::RemoveDataKeys { .. } => "page-of-removal",
                _ => "page-of-erasure",
            },
            Self::Newer(_) => "make-newer-data-key",
            Self::Order(_) => "acknowledge-order",
            Self::KeyEvent(_) => "hear-key-event",
            Self::Step(_) => "step-of-job",
            Self::Shard(_) => "rewrite-shard",
            Self::Notice(_) => "deliver-webhook",
        }
    }

    /// What a fan-out that it belongs to orders.
    pub fn order(&self) -> Order {
        match self {
            Self::Page(order, _) => *order,
            Self::Effect(row) if matches!(row.effect, Effect::RestoreInstances { .. }) => Order::Restore,
            _ => Order::Suspend,
        }
    }

    /// Whether nothing but time is lost with it. Others go to a dead-letter queue instead.
    pub const fn may_be_lost(&self) -> bool {
        matches!(
            self,
            Self::Probe(_)
                | Self::Stream(_)
                | Self::KeyEvent(_)
                | Self::Step(_)
                | Self::Shard(_)
                | Self::Newer(_)
        )
    }
}

/// What happens at an instant.
#[derive(Debug)]
pub enum Event {
    /// A minute begins: the schedules fire.
    Tick,
    /// A message arrives, for the so-many-th time.
    Arrive(Message, u32),
    /// A process of the data plane reads the fence.
    Poll(usize),
    /// Somebody uses a process.
    Use(usize),
    /// The episode's script.
    Act(super::script::Act),
}

/// What the observer knows of an organisation.
#[derive(Debug, Clone)]
pub struct OrgTruth {
    /// Its name.
    pub name: OrganisationName,
    /// Its opaque id.
    pub id: OrganisationId,
    /// Its account.
    pub account: AccountId,
    /// Its realm.
    pub realm: &'static str,
    /// The keys that its policy stands on: those that it has, without one that was given up for good.
    pub keys: Vec<KeyArn>,
    /// Since when.
    pub keys_since: i64,
    /// How many generations of keys its admins have made.
    pub made: u32,
    /// Its policy, once there is one.
    pub policy: Option<(PolicyId, ShardId)>,
    /// When its fence closed, while it is closed.
    pub closed_at: Option<i64>,
    /// When its keys became a cause of that, while they are.
    pub cause_at: Option<i64>,
    /// Whether a key of it was disabled for certain at that time.
    pub taken: bool,
    /// When its admins asked for restoration, and whether without what is gone for good.
    pub asked: Vec<(i64, bool)>,
    /// When a restoration of it last stopped that opened nothing.
    pub stopped_at: Option<i64>,
    /// Keys that its admins named to take a lost one's place.
    pub named: BTreeSet<KeyArn>,
    /// Which agents called its suspension a mistake, and when.
    pub agents: Vec<(Subject, i64)>,
    /// How it holds its keys.
    pub mode: Mode,
    /// Whether its admins asked to leave.
    pub leaves: bool,
    /// The last proof that it allows use, or that its keys were tried by a sweep that could say so.
    pub last_proof: i64,
    /// How often it was cut off.
    pub cut_offs: u64,
    /// Since when it is active.
    pub active_since: Option<i64>,
}

/// What was seen to be wrong.
#[derive(Debug, Clone)]
pub struct Violation {
    /// Which invariant.
    pub invariant: &'static str,
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: String,
}

/// Where a record is: whose, on which site, of which app, and its id.
pub type RecordPlace = (usize, String, String, String);

/// A record in the vendor's storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What its last writer was told is stored.
    pub written: String,
    /// As stored.
    pub sealed: Vec<u8>,
}

/// A copy of an organisation's records.
#[derive(Debug, Clone)]
pub struct Copied {
    /// Whose.
    pub org: usize,
    /// When it was taken.
    pub taken_at: i64,
    /// When it is gone.
    pub expires_at: i64,
    /// The generation of the keys then.
    pub generation: u64,
    /// When it was last brought back.
    pub brought_back_at: Option<i64>,
    /// Whether the system was told all that.
    pub told: bool,
    /// What it holds.
    pub records: BTreeMap<RecordPlace, Record>,
}

/// How an app of the vendor's took an order.
#[derive(Debug, Clone, Default)]
pub struct AppState {
    /// The newest epoch it heard of.
    pub epoch: u64,
    /// Whether it stopped.
    pub stopped: bool,
}

#[derive(Default)]
struct Timers {
    heap: BinaryHeap<Reverse<(i64, u64)>>,
    wakers: BTreeMap<u64, Waker>,
}

/// What changes while the world runs.
pub struct State {
    /// The one source of chance.
    pub rng: Rng,
    timers: Timers,
    agenda: BinaryHeap<Reverse<(i64, u64)>>,
    events: BTreeMap<u64, Event>,
    next: u64,
    /// Organisations.
    pub orgs: Vec<OrgTruth>,
    /// Which instance a data key belongs to, and whose that is.
    pub data_keys: BTreeMap<DataKeyId, (InstanceId, OrganisationId)>,
    /// What was seen to be wrong.
    pub violations: Vec<Violation>,
    /// What happened, if somebody wants to read it.
    pub trace: Option<Vec<String>>,
    /// Injected faults.
    pub faults: u64,
    /// Invariants looked at.
    pub checks: u64,
    /// The last instant at which the watcher was not all right.
    pub trouble: i64,
    /// Whether the watcher's schedule and function are dead.
    pub watcher_dead: bool,
    /// Until when processes cannot read the fence.
    pub fence_down_until: i64,
    /// Until when reads of the fence take long.
    pub fence_slow_until: i64,
    /// Faults in a thousand calls' worth of work.
    pub chaos: u32,
    /// In a run that looks at every step: what is to go wrong, and what was seen.
    pub steps: Option<Steps>,
    /// What the index of the outbox gave when it was last read.
    pub index_before: Vec<OutboxRow>,
    /// A rule of the bus fails: the next order comes to no queue.
    pub comes_to_no_queue: bool,
    /// What machines of the vendor's were told, by the identifier of the notice.
    pub notices: BTreeMap<String, String>,
    /// Whether people use records all the time.
    pub uses: bool,
    /// Whether processes of the data plane read the fence.
    pub polls: bool,
    /// For whom the next use is a write, if that is not left to chance.
    pub writes_for: Option<usize>,
    /// Messages that were given up.
    pub dead_letters: Vec<Message>,
    /// Orders and pages of long ago, to be sent again by somebody who should not.
    pub old_mail: Vec<Message>,
    /// What apps of the vendor's have heard.
    pub apps: BTreeMap<InstanceId, AppState>,
    /// The vendor's storage: every record in it was acknowledged to its writer.
    pub records: BTreeMap<RecordPlace, Record>,
    /// Organisations whose storage was brought back from a backup.
    pub brought_back: BTreeSet<usize>,
    /// Copies of it.
    pub backups: Vec<Copied>,
    /// Data keys of former generations that were removed.
    pub removed: u64,
    /// Whose each key is.
    pub owners: BTreeMap<KeyArn, usize>,
    /// Keys that are gone for good, whatever their owner would like.
    pub gone: BTreeSet<KeyArn>,
    /// Re-encryptions that ended.
    pub moved: u64,
    /// Newer versions of data keys that apps asked for and that were made.
    pub newer_keys: u64,
    /// Clocks of processes, and until when the boot clock stands still: a suspended machine.
    pub clocks: BTreeMap<usize, (Arc<PlaneClock>, i64)>,
}

/// One world.
pub struct World {
    /// Every table.
    pub store: MemoryWorld,
    /// The time.
    pub clock: FakeClock,
    /// Identifiers.
    pub ids: SequentialIds,
    /// Customers' keys.
    pub kms: Kms,
    /// Unwrapped keys of the brokers.
    pub brokers: [UnwrappedKeys; 2],
    /// Refusals that the prober's process followed.
    pub followed: FollowedRefusals,
    /// The vendor's records, as the worker of this moment reaches them.
    pub worker: Mutex<Option<Arc<VendorRecords>>>,
    /// The defect, in a run that has one.
    pub twin: Option<Twin>,
    state: Mutex<State>,
}

impl World {
    /// An empty world.
    pub fn new(seed: u64, twin: Option<Twin>, traced: bool) -> Self {
        let state = State {
            rng: Rng::new(seed),
            timers: Timers::default(),
            agenda: BinaryHeap::new(),
            events: BTreeMap::new(),
            next: 0,
            orgs: Vec::new(),
            data_keys: BTreeMap::new(),
            violations: Vec::new(),
            trace: traced.then(Vec::new),
            faults: 0,
            checks: 0,
            trouble: 0,
            watcher_dead: false,
            fence_down_until: 0,
            fence_slow_until: 0,
            chaos: 0,
            steps: None,
            index_before: Vec::new(),
            comes_to_no_queue: false,
            notices: BTreeMap::new(),
            uses: true,
            polls: true,
            writes_for: None,
            dead_letters: Vec::new(),
            old_mail: Vec::new(),
            apps: BTreeMap::new(),
            records: BTreeMap::new(),
            brought_back: BTreeSet::new(),
            backups: Vec::new(),
            removed: 0,
            owners: BTreeMap::new(),
            gone: BTreeSet::new(),
            moved: 0,
            newer_keys: 0,
            clocks: BTreeMap::new(),
        };
        Self {
            store: MemoryWorld::new(),
            clock: FakeClock::at("2026-11-23T09:00:00Z"),
            ids: SequentialIds::default(),
            kms: Kms::default(),
            brokers: [UnwrappedKeys::new(), UnwrappedKeys::new()],
            followed: FollowedRefusals::default(),
            worker: Mutex::default(),
            twin,
            state: Mutex::new(state),
        }
    }

    /// What changes.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Now, in Unix milliseconds.
    pub fn now(&self) -> i64 {
        claviger_app::ports::Clock::now(&self.clock).as_millisecond()
    }

    /// Whether the run has this defect.
    pub fn is(&self, twin: Twin) -> bool {
        self.twin == Some(twin)
    }

    /// Writes into the trace.
    pub fn note(&self, what: impl FnOnce() -> String) {
        let now = self.now();
        let mut state = self.state();
        if let Some(trace) = &mut state.trace {
            trace.push(format!("{:.3} {}", at(now), what()));
        }
    }

    /// An invariant does not hold.
    pub fn violated(&self, invariant: &'static str, what: String) {
        self.note(|| format!("VIOLATION of {invariant}: {what}"));
        let violation = Violation { invariant, at: at(self.now()), what };
        self.state().violations.push(violation);
    }

    /// A number from `low` to `high`.
    pub fn between(&self, low: i64, high: i64) -> i64 {
        self.state().rng.between(low, high)
    }

    /// True so many times in a thousand.
    pub fn chance(&self, per_mille: u32) -> bool {
        self.state().rng.per_mille(per_mille)
    }

    /// A fault is injected.
    pub fn fault(&self, what: impl FnOnce() -> String) {
        self.state().faults += 1;
        self.note(|| format!("fault: {}", what()));
    }

    /// Something is to happen later.
    pub fn later(&self, delay: i64, event: Event) {
        let at = self.now() + delay.max(0);
        let mut state = self.state();
        state.next += 1;
        let number = state.next;
        state.agenda.push(Reverse((at, number)));
        state.events.insert(number, event);
    }

    /// Sends a message, with what queues do to messages.
    pub fn send(&self, message: Message, delay: i64) {
        self.send_again(message, delay, 0);
    }

    /// Sends a message for the so-many-th time.
    pub fn send_again(&self, message: Message, delay: i64, attempt: u32) {
        let (chaos, roll, twice, late) = {
            let mut state = self.state();
            let chaos = state.chaos;
            (
                chaos,
                state.rng.per_mille(chaos / 2),
                state.rng.per_mille(chaos),
                if state.rng.per_mille(chaos) {
                    state.rng.between(1_000, 45_000)
                } else {
                    state.rng.between(5, 400)
                },
            )
        };
        if chaos > 0 && roll && message.may_be_lost() {
            self.fault(|| format!("lost: {message:?}"));
            self.trouble_if_regular(&message, delay);
            return;
        }
        if late > 1_000 {
            self.fault(|| format!("late by {late} ms: {message:?}"));
            self.trouble_if_regular(&message, delay + late);
        }
        if chaos > 0 && twice {
            let again = self.between(5, 90_000);
            self.fault(|| format!("doubled after {again} ms: {message:?}"));
            self.later(delay + again, Event::Arrive(message.clone(), attempt));
        }
        self.later(delay + late, Event::Arrive(message, attempt));
    }

    /// The bounds rest on sweeps and follow-ups; hints only make it faster.
    fn trouble_if_regular(&self, message: &Message, until: i64) {
        if matches!(message, Message::Probe(ProbeMessage::Sweep { .. } | ProbeMessage::FollowUp { .. })) {
            self.troubled(until);
        }
    }

    /// The watcher is not all right until so long from now.
    pub fn troubled(&self, until: i64) {
        let until = self.now() + until;
        let mut state = self.state();
        state.trouble = state.trouble.max(until);
    }

    /// The next instant at which something happens.
    pub fn next_instant(&self) -> Option<i64> {
        let state = self.state();
        let timer = state.timers.heap.peek().map(|Reverse((at, _))| *at);
        let event = state.agenda.peek().map(|Reverse((at, _))| *at);
        [timer, event].into_iter().flatten().min()
    }

    /// Goes to an instant, and takes every clock along.
    pub fn go_to(&self, instant: i64) {
        let passed = instant - self.now();
        if passed <= 0 {
            return;
        }
        self.clock.set(at(instant));
        let before = instant - passed;
        for (clock, still_until) in self.state().clocks.values() {
            let still = (still_until - before).clamp(0, passed);
            clock.step_wall(still);
            clock.advance(passed - still);
        }
    }

    /// Wakes whoever waited for this instant; gives the event that is due.
    pub fn due(&self) -> Option<Event> {
        let now = self.now();
        let mut state = self.state();
        let mut woken = Vec::new();
        while let Some(Reverse((at, number))) = state.timers.heap.peek().copied() {
            if at > now {
                break;
            }
            state.timers.heap.pop();
            woken.extend(state.timers.wakers.remove(&number));
        }
        let due = state.agenda.peek().is_some_and(|Reverse((at, _))| *at <= now);
        let event = if due && woken.is_empty() {
            state.agenda.pop().and_then(|Reverse((_, number))| state.events.remove(&number))
        } else {
            None
        };
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        event
    }

    /// Whether nothing is under way but what repeats by itself. A step of a job that waits comes again by the planner's
    /// tick, should it be thrown away, and sweeps by the prober's.
    pub fn is_quiet(&self) -> bool {
        let state = self.state();
        state.timers.wakers.is_empty()
            && state.events.values().all(|event| {
                matches!(
                    event,
                    Event::Tick
                        | Event::Poll(_)
                        | Event::Use(_)
                        | Event::Arrive(Message::Step(_) | Message::Probe(ProbeMessage::Sweep { .. }), _)
                )
            })
    }

    /// Throws away what repeats by itself, to be set up anew.
    pub fn clear_agenda(&self) {
        let mut state = self.state();
        state.agenda.clear();
        state.events.clear();
    }

    /// Lets time pass.
    pub const fn pause(&self, millis: i64) -> Pause<'_> {
        Pause { world: self, millis, timer: None }
    }
}

/// Some time.
pub struct Pause<'a> {
    world: &'a World,
    millis: i64,
    /// When it ends, and its place among the timers: one, however often it is polled.
    timer: Option<(i64, u64)>,
}

impl Future for Pause<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let now = self.world.now();
        let end = now + self.millis.max(0);
        if self.timer.map_or(end, |(until, _)| until) <= now {
            return Poll::Ready(());
        }
        let mut state = self.world.state();
        let number = if let Some((_, number)) = self.timer {
            number
        } else {
            state.next += 1;
            let number = state.next;
            state.timers.heap.push(Reverse((end, number)));
            number
        };
        state.timers.wakers.insert(number, context.waker().clone());
        drop(state);
        self.timer.get_or_insert((end, number));
        Poll::Pending
    }
}
