//! The prober's regular work: probe every key of a shard, then say that the shard is watched.

use std::collections::{BTreeMap, BTreeSet};

use claviger_domain::ids::{CorrelationId, PolicyId};
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::values::ShardId;
use futures_util::future::{join, join_all};
use jiff::{SignedDuration, Timestamp};

use crate::error::WorkError;
use crate::messages::{ProbeMessage, Rest};
use crate::ports::{Beat, Clock, Ids, ProbeQueue, Timer, WatchList};
use crate::probe_in_lanes::{Probed, Probing, probe_in_lanes};
use crate::report_probes::{Reason, ReportProbes};
use crate::settings::Settings;

/// Queues the sweeps of the coming minute: one message per shard and phase, each delayed to its time.
pub struct PlanSweeps<'a> {
    /// The prober's own queue.
    pub queue: &'a dyn ProbeQueue,
    /// The shards' signs of life.
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
    /// Shards in which ambiguous refusals wait, because many customers are refused at once.
    pub mass_failures: usize,
}

const MINUTE: SignedDuration = SignedDuration::from_secs(60);

impl PlanSweeps<'_> {
    /// Plans the sweeps of the minute that begins now.
    ///
    /// # Errors
    /// When the queue fails: the shards go stale, and the data plane asks for proofs.
    pub async fn run(&self) -> Result<Planned, WorkError> {
        let now = self.clock.now();
        let shards: Vec<ShardId> = (0..self.settings.shards).map(ShardId).collect();
        let beats = join_all(shards.iter().map(|shard| self.beat(*shard))).await;
        let mut planned = Vec::new();
        for (shard, beat) in shards.iter().zip(&beats) {
            for delay in self.delays(beat.as_ref(), now) {
                planned.push((ProbeMessage::Sweep { shard: *shard, due_at: now + delay }, delay));
            }
        }
        self.queue.queue_probes(&planned).await?;
        let known = || beats.iter().flatten();
        Ok(Planned {
            sweeps: planned.len(),
            oldest_proof: known().map(Beat::oldest_proof).min(),
            unproven: known().map(|beat| beat.unproven.len()).sum(),
            mass_failures: known().filter(|beat| beat.mass_failure).count(),
        })
    }

    /// A shard's last sign of life. Whether it can be read must not decide whether the shard is swept.
    async fn beat(&self, shard: ShardId) -> Option<Beat> {
        self.watch.last_beat(shard).await.unwrap_or_else(|error| {
            tracing::warn!(%shard, %error, "a shard's last beat cannot be read");
            None
        })
    }

    /// When a shard is swept in this minute: every phase, or, where a phase is longer than a minute (the economy
    /// interval), when the last sweep is a phase ago.
    fn delays(&self, beat: Option<&Beat>, now: Timestamp) -> Vec<SignedDuration> {
        let phase = self.settings.probe_phase.max(SignedDuration::from_secs(1));
        if phase > MINUTE {
            let wait = beat.map_or(SignedDuration::ZERO, |beat| (beat.swept_at + phase).duration_since(now));
            return if wait < MINUTE { vec![wait.max(SignedDuration::ZERO)] } else { Vec::new() };
        }
        let mut delays = Vec::new();
        let mut delay = SignedDuration::ZERO;
        while delay < MINUTE {
            delays.push(delay);
            delay += phase;
        }
        delays
    }
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swept {
    /// The message came a phase too late: the next one is there already.
    Late,
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
        let mut policies: Vec<EncryptionPolicy> = rows.into_iter().map(|row| row.policy).collect();
        // Whoever gave no answer last time does not stand in the way of the others.
        policies
            .sort_by_key(|policy| before.as_ref().and_then(|beat| beat.unproven.get(&policy.id).copied()));
        let all: Vec<PolicyId> = policies.iter().map(|policy| policy.id).collect();
        let known = before.as_ref().map(|beat| beat.mass_failure);
        let Tried { proven, left, mass_failure } = self.try_all(shard, policies, known, until).await;
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
        let beat = Beat { swept_at: started_at, watched_until, unproven, mass_failure };
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
        let known = before.map(|beat| beat.mass_failure);
        let Tried { proven, left, mass_failure } = self.try_all(rest.shard, policies, known, until).await;
        self.go_on_later(rest.shard, rest.due_at, rest.swept_at, &left).await;
        // A newer sweep knows better, and an older beat says nothing of these.
        let own = |beat: &Beat| beat.swept_at.as_millisecond() == rest.swept_at.as_millisecond();
        if let Some(mut beat) = self.watch.last_beat(rest.shard).await?.filter(own) {
            beat.unproven.retain(|id, _| !proven.contains(id));
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
        Tried { proven, left, mass_failure }
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
