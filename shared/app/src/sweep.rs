//! The prober's regular work: probe every key of a shard, then say that the shard is watched.

use std::collections::BTreeMap;

use claviger_domain::ids::{CorrelationId, PolicyId};
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::values::ShardId;
use futures_util::future::{join, join_all};
use futures_util::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};

use crate::error::WorkError;
use crate::messages::ProbeMessage;
use crate::ports::{Beat, Clock, Ids, ProbeQueue, WatchList};
use crate::report_probes::{Reason, ReportProbes};
use crate::settings::Settings;

/// How many policies of a shard are probed at once.
const AT_ONCE: usize = 64;

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
    /// Every key of the shard was tried.
    Done {
        /// How many policies.
        policies: usize,
        /// How many of them gave no answer.
        unproven: usize,
    },
}

/// Sweeps one shard.
pub struct Sweep<'a> {
    /// How to probe and report.
    pub report: ReportProbes<'a>,
    /// The shard's rows, and its beat.
    pub watch: &'a dyn WatchList,
    /// Identifiers.
    pub ids: &'a dyn Ids,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl Sweep<'_> {
    /// Probes every key of the shard and writes the beat.
    ///
    /// # Errors
    /// When the store fails. Then the beat is not written: nobody reads on an unwatched key (I3).
    pub async fn run(&self, shard: ShardId, due_at: Timestamp) -> Result<Swept, WorkError> {
        let started_at = self.clock.now();
        if started_at.duration_since(due_at) > self.settings.probe_phase {
            return Ok(Swept::Late);
        }
        let (before, rows) = join(self.watch.last_beat(shard), self.watch.watched(shard)).await;
        let (before, rows) = (before?, rows?);
        let reason =
            Reason { mass_failure: before.as_ref().map(|beat| beat.mass_failure), ..Reason::default() };
        let policies = rows.len();
        let open = rows.iter().filter(|row| row.policy.fence.is_open()).count();
        let probes = stream::iter(rows).map(|row| self.probe(row.policy, &reason));
        let seen: Vec<Seen> = probes.buffer_unordered(AT_ONCE).collect().await;
        let refused = seen.iter().filter(|seen| seen.newly_ambiguous).count();
        let unproven: BTreeMap<PolicyId, Timestamp> = seen
            .iter()
            .filter(|seen| !seen.proven)
            .map(|seen| (seen.id, proven_at(&before, seen.id, started_at)))
            .collect();
        let mass_failure = self.settings.mass_failure.is(refused, open);
        if mass_failure {
            tracing::error!(%shard, refused, of = open, "many customers are refused at once: ambiguous refusals wait");
        }
        let unanswered = unproven.len();
        // INVARIANT (I3): the shard counts as watched only from the start of a sweep that tried every key.
        let watched_until = started_at + self.settings.probe_phase + self.settings.watch_slack;
        let beat = Beat { swept_at: started_at, watched_until, unproven, mass_failure };
        self.watch.beat(shard, &beat).await?;
        Ok(Swept::Done { policies, unproven: unanswered })
    }

    async fn probe(&self, policy: EncryptionPolicy, reason: &Reason) -> Seen {
        let correlation = CorrelationId::from_uuid(self.ids.random());
        match self.report.of_policy(&policy, reason, correlation).await {
            Ok(report) => Seen {
                id: policy.id,
                proven: report.is_proof(),
                newly_ambiguous: policy.fence.is_open() && report.is_newly_ambiguous(&policy),
            },
            Err(error) => {
                tracing::warn!(policy.id = %policy.id, ?error, "a probe could not be reported");
                Seen { id: policy.id, proven: false, newly_ambiguous: false }
            }
        }
    }
}

/// What a sweep saw of one policy.
struct Seen {
    id: PolicyId,
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
