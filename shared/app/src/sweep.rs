//! The prober's regular work: probe every key of a shard, then say that the shard is watched.

use std::collections::{BTreeMap, BTreeSet};

use claviger_domain::ids::{CorrelationId, PolicyId};
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::values::ShardId;
use futures_util::future::{join, join_all};
use jiff::{SignedDuration, Timestamp};

use crate::error::WorkError;
use crate::mass_failure::{mass_failure, of_all};
use crate::messages::{ProbeMessage, Rest};
use crate::ports::{Beat, Clock, Ids, ProbeQueue, Timer, WatchList};
use crate::probe_in_lanes::{Probed, Probing, probe_in_lanes};
use crate::report_probes::{Reason, ReportProbes};
use crate::settings::Settings;

/// Queues the sweeps that are to come: one message per shard and phase, each delayed to its time.
///
/// A shard's sweeps lie on a grid of the clock, a phase apart, and the shards' grids are evenly shifted, so that not all
/// keys are probed at once. They are queued well ahead: a schedule says *that* it comes each minute, not at which second
/// of it, and sweeps that were planned from the moment of a tick would be up to two minutes apart (the published bounds
/// allow for one phase).
pub struct PlanSweeps<'a> {
    /// The prober's own queue.
    pub queue: &'a dyn ProbeQueue,
    /// The shards' signs of life, and how far sweeps are planned.
    pub watch: &'a dyn WatchList,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

/// What was planned, and how the watcher is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// Sweeps queued.
    pub sweeps: usize,
    /// When the policy that was not proven for the longest was last proven; none before the first sweep.
    pub oldest_proof: Option<Timestamp>,
    /// Policies without a proof in their last sweep.
    pub unproven: usize,
    /// Shards in which ambiguous refusals wait, because many customers are refused at once; at least one where all shards
    /// together say so.
    pub mass_failures: usize,
}

/// How far ahead sweeps are queued: a tick may come up to a minute late, or one of them not at all. Below the most that
/// a queue delays a message, 15 minutes.
pub const AHEAD: SignedDuration = SignedDuration::from_secs(150);

impl PlanSweeps<'_> {
    /// Plans on from where the last tick ended. A shard that counts as watched no longer, or never did, is swept at once
    /// as well.
    ///
    /// # Errors
    /// When the queue fails: the next tick plans the same, and if none does, the shards go stale and the data plane asks
    /// for proofs.
    pub async fn run(&self) -> Result<Planned, WorkError> {
        let now = self.clock.now();
        let shards: Vec<ShardId> = (0..self.settings.shards).map(ShardId).collect();
        let beats = join_all(shards.iter().map(|shard| self.beat(*shard))).await;
        let (from, to) = (self.planned_until(now).await, now + AHEAD);
        let mut planned = Vec::new();
        for (shard, beat) in shards.iter().zip(&beats) {
            let watched = beat.as_ref().is_some_and(|beat| beat.watched_until > now);
            let at_once = (!watched).then_some(now);
            for due_at in at_once.into_iter().chain(self.grid(*shard, from, to)) {
                planned.push((ProbeMessage::Sweep { shard: *shard, due_at }, due_at.duration_since(now)));
            }
        }
        self.queue.queue_probes(&planned).await?;
        // Behind the queue: what is planned twice is swept twice, what is taken for planned is not swept.
        if let Err(error) = self.watch.plan_until(to).await {
            tracing::warn!(%error, "how far sweeps are planned cannot be stored: the next tick plans some twice");
        }
        let known = || beats.iter().flatten();
        let of_all = usize::from(of_all(self.settings, known(), now));
        Ok(Planned {
            sweeps: planned.len(),
            oldest_proof: known().map(Beat::oldest_proof).min(),
            unproven: known().map(|beat| beat.unproven.len()).sum(),
            mass_failures: known().filter(|beat| beat.mass_failure).count().max(of_all),
        })
    }

    /// A shard's last sign of life. Whether it can be read must not decide whether the shard is swept.
    async fn beat(&self, shard: ShardId) -> Option<Beat> {
        self.watch.last_beat(shard).await.unwrap_or_else(|error| {
            tracing::warn!(%shard, %error, "a shard's last beat cannot be read");
            None
        })
    }

    /// From when on nothing is planned yet. What no tick can have planned, by a clock that was ahead, is not believed.
    async fn planned_until(&self, now: Timestamp) -> Timestamp {
        let planned = self.watch.planned_until().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "how far sweeps are planned cannot be read: some are planned twice");
            None
        });
        planned.filter(|until| (now..=now + AHEAD).contains(until)).unwrap_or(now)
    }

    /// When a shard is swept from one time to before another.
    fn grid(
        &self,
        shard: ShardId,
        from: Timestamp,
        to: Timestamp,
    ) -> impl Iterator<Item = Timestamp> + use<> {
        let phase = self.settings.probe_phase.max(SignedDuration::from_secs(1)).as_millis() as i64;
        let shift = phase * i64::from(shard.0) / i64::from(self.settings.shards.max(1));
        let first = (from.as_millisecond() - shift).div_euclid(phase) * phase + shift;
        (0_i64..)
            .map_while(move |n| Timestamp::from_millisecond(first + n * phase).ok())
            .skip_while(move |at| *at < from)
            .take_while(move |at| *at < to)
    }
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swept {
    /// The message came a phase too late: the next one is there already.
    Late,
    /// The shard was swept since this sweep was due: the message came twice, or was planned twice.
    Already,
    /// Every key was tried, or is listed as unproven and will be.
    Done {
        /// How many policies.
        policies: usize,
        /// How many of them gave no answer.
        unproven: usize,
        /// How many of those there was no time for: a message of their own is on its way.
        left: usize,
    },
}

/// How many policies a follow-on names at most, for the size of a message. What is beyond waits, as unproven, for the
/// next sweep.
const MOST_LEFT: usize = 5_000;

/// Sweeps one shard.
pub struct Sweep<'a> {
    /// How to probe and report.
    pub report: ReportProbes<'a>,
    /// The shard's rows, and its beat.
    pub watch: &'a dyn WatchList,
    /// Where the rest waits.
    pub queue: &'a dyn ProbeQueue,
    /// Identifiers.
    pub ids: &'a dyn Ids,
    /// The time.
    pub clock: &'a dyn Clock,
    /// How long calls take.
    pub timer: &'a dyn Timer,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl Sweep<'_> {
    /// Probes every key of the shard and writes the beat. It ends by itself before `until`, when whoever runs it would
    /// be killed: what there was no time for is unproven, and a follow-on takes it up.
    ///
    /// # Errors
    /// When the store fails. Then the beat is not written: nobody reads on an unwatched key (I3).
    pub async fn run(&self, shard: ShardId, due_at: Timestamp, until: Timestamp) -> Result<Swept, WorkError> {
        let started_at = self.clock.now();
        if started_at.duration_since(due_at) > self.settings.probe_phase {
            return Ok(Swept::Late);
        }
        let (before, rows) = join(self.watch.last_beat(shard), self.watch.watched(shard)).await;
        let (before, rows) = (before?, rows?);
        if before.as_ref().is_some_and(|beat| beat.swept_at > due_at) {
            return Ok(Swept::Already);
        }
        let mut policies: Vec<EncryptionPolicy> = rows.into_iter().map(|row| row.policy).collect();
        // Whoever gave no answer last time does not stand in the way of the others.
        policies
            .sort_by_key(|policy| before.as_ref().and_then(|beat| beat.unproven.get(&policy.id).copied()));
        let all: Vec<PolicyId> = policies.iter().map(|policy| policy.id).collect();
        let known = self.known_mass_failure(shard, before.as_ref()).await;
        let Tried { proven, left, refused, open, mass_failure } =
            self.try_all(shard, policies, known, until).await;
        let unproven: BTreeMap<PolicyId, Timestamp> = all
            .iter()
            .filter(|id| !proven.contains(id))
            .map(|id| (*id, proven_at(&before, *id, started_at)))
            .collect();
        let unanswered = unproven.len();
        // Before the beat: a follow-on that comes without one only probes, and what is unproven is safe.
        self.go_on_later(shard, due_at, started_at, &left).await;
        // INVARIANT (I3): the shard counts as watched only from the start of a sweep that tried every key, or calls
        // unproven what it did not try.
        let watched_until = started_at + self.settings.probe_phase + self.settings.watch_slack;
        let beat = Beat { swept_at: started_at, watched_until, unproven, mass_failure, refused, open };
        self.watch.beat(shard, &beat).await?;
        Ok(Swept::Done { policies: all.len(), unproven: unanswered, left: left.len() })
    }

    /// Probes what a sweep had no time for, and takes from its beat what is proven now.
    ///
    /// # Errors
    /// When the store fails; what was not proven stays unproven until the next sweep.
    pub async fn rest(&self, rest: &Rest, until: Timestamp) -> Result<Swept, WorkError> {
        if self.clock.now().duration_since(rest.due_at) > self.settings.probe_phase {
            return Ok(Swept::Late);
        }
        let (before, rows) = join(self.watch.last_beat(rest.shard), self.watch.watched(rest.shard)).await;
        let (before, rows) = (before?, rows?);
        let policies: Vec<EncryptionPolicy> = rows
            .into_iter()
            .map(|row| row.policy)
            .filter(|policy| rest.policies.contains(&policy.id))
            .collect();
        let tried = policies.len();
        let known = self.known_mass_failure(rest.shard, before.as_ref()).await;
        let Tried { proven, left, refused, open, mass_failure } =
            self.try_all(rest.shard, policies, known, until).await;
        self.go_on_later(rest.shard, rest.due_at, rest.swept_at, &left).await;
        // A newer sweep knows better, and an older beat says nothing of these.
        let own = |beat: &Beat| beat.swept_at.as_millisecond() == rest.swept_at.as_millisecond();
        if let Some(mut beat) = self.watch.last_beat(rest.shard).await?.filter(own) {
            beat.unproven.retain(|id, _| !proven.contains(id));
            beat.refused = beat.refused.saturating_add(refused);
            beat.open = beat.open.saturating_add(open);
            beat.mass_failure |= mass_failure;
            self.watch.beat(rest.shard, &beat).await?;
        }
        Ok(Swept::Done { policies: tried, unproven: tried.saturating_sub(proven.len()), left: left.len() })
    }

    async fn try_all(
        &self,
        shard: ShardId,
        policies: Vec<EncryptionPolicy>,
        mass_failure: Option<bool>,
        until: Timestamp,
    ) -> Tried {
        let reason = Reason { mass_failure, ..Reason::default() };
        let limit = until.duration_since(self.clock.now()).min(self.settings.sweep_limit());
        let probe = |policy: EncryptionPolicy| -> Probing<'_, Seen> { Box::pin(self.probe(policy, &reason)) };
        let Probed { seen, left } = probe_in_lanes(self.timer, policies, limit, probe).await;
        let refused = seen.iter().filter(|seen| seen.newly_ambiguous).count();
        let open = seen.iter().filter(|seen| seen.open).count();
        let mass_failure = self.settings.mass_failure.is(refused, open);
        if mass_failure {
            tracing::error!(%shard, refused, of = open, "many customers are refused at once: ambiguous refusals wait");
        }
        let proven = seen.iter().filter(|seen| seen.proven).map(|seen| seen.id).collect();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Tried { proven, left, refused: count(refused), open: count(open), mass_failure }
    }

    /// What is known of a mass failure before a sweep; none before the first one. The other shards are asked where this
    /// one saw a refusal that nothing explains yet. Whether they can be read must not decide whether the shard is swept;
    /// until they can, ambiguous refusals wait.
    async fn known_mass_failure(&self, shard: ShardId, before: Option<&Beat>) -> Option<bool> {
        let before = before?;
        if before.refused == 0 || before.mass_failure {
            return Some(before.mass_failure);
        }
        let known = mass_failure(self.watch, self.settings, shard, self.clock.now()).await;
        Some(known.unwrap_or_else(|error| {
            tracing::warn!(%shard, %error, "the other shards' beats cannot be read: ambiguous refusals wait");
            true
        }))
    }

    async fn go_on_later(
        &self,
        shard: ShardId,
        due_at: Timestamp,
        swept_at: Timestamp,
        left: &BTreeSet<PolicyId>,
    ) {
        if left.is_empty() {
            return;
        }
        tracing::warn!(%shard, left = left.len(), "keys answer too slowly for one sweep: a follow-on tries the rest");
        let policies = left.iter().copied().take(MOST_LEFT).collect();
        let rest = ProbeMessage::SweepRest(Rest { shard, due_at, swept_at, policies });
        if let Err(error) = self.queue.queue_probes(&[(rest, SignedDuration::ZERO)]).await {
            tracing::warn!(%shard, ?error, "the rest of a sweep waits, unproven, for the next one");
        }
    }

    async fn probe(&self, policy: EncryptionPolicy, reason: &Reason) -> Seen {
        let correlation = CorrelationId::from_uuid(self.ids.random());
        let (id, open) = (policy.id, policy.fence.is_open());
        match self.report.of_policy(&policy, reason, correlation).await {
            Ok(report) => Seen {
                id,
                open,
                proven: report.is_proof(&self.report.settings.rules(), &policy),
                newly_ambiguous: open && report.is_newly_ambiguous(&policy),
            },
            Err(error) => {
                tracing::warn!(policy.id = %id, ?error, "a probe could not be reported");
                Seen { id, open, proven: false, newly_ambiguous: false }
            }
        }
    }
}

/// What came of a go at some policies.
struct Tried {
    proven: BTreeSet<PolicyId>,
    left: BTreeSet<PolicyId>,
    refused: u32,
    open: u32,
    mass_failure: bool,
}

/// What a sweep saw of one policy.
struct Seen {
    id: PolicyId,
    open: bool,
    proven: bool,
    newly_ambiguous: bool,
}

/// When a policy that this sweep did not prove was proven last, as far as the shard's beats tell.
fn proven_at(before: &Option<Beat>, id: PolicyId, started_at: Timestamp) -> Timestamp {
    match before {
        None => started_at,
        Some(beat) => beat.unproven.get(&id).copied().unwrap_or(beat.swept_at),
    }
}
