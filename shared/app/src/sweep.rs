//! The prober's regular work: probe every key of a shard, then say that the shard is watched.

use claviger_domain::ids::{CorrelationId, PolicyId};
use claviger_domain::values::ShardId;
use futures_util::StreamExt;
use futures_util::stream;
use jiff::{SignedDuration, Timestamp};

use crate::error::WorkError;
use crate::messages::ProbeMessage;
use crate::ports::{Clock, Ids, ProbeQueue, WatchList};
use crate::report_probes::ReportProbes;
use crate::settings::Settings;

/// How many policies of a shard are probed at once.
const AT_ONCE: usize = 64;

/// Queues the sweeps of the coming minute: one message per shard and phase, each delayed to its time.
pub struct PlanSweeps<'a> {
    /// The prober's own queue.
    pub queue: &'a dyn ProbeQueue,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl PlanSweeps<'_> {
    /// Plans the sweeps of the minute that begins now; says how many.
    ///
    /// # Errors
    /// When the queue fails: the shards go stale, and the data plane asks for proofs.
    pub async fn run(&self) -> Result<usize, WorkError> {
        const MINUTE: SignedDuration = SignedDuration::from_secs(60);
        let now = self.clock.now();
        let mut planned = Vec::new();
        for shard in 0..self.settings.shards {
            let mut delay = SignedDuration::ZERO;
            while delay < MINUTE {
                let sweep = ProbeMessage::Sweep { shard: ShardId(shard), due_at: now + delay };
                planned.push((sweep, delay));
                delay += self.settings.probe_phase.max(SignedDuration::from_secs(1));
            }
        }
        self.queue.queue_probes(&planned).await?;
        Ok(planned.len())
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
        let rows = self.watch.watched(shard).await?;
        let policies = rows.len();
        let probes = stream::iter(rows).map(|row| async move {
            let correlation = CorrelationId::from_uuid(self.ids.random());
            match self.report.of_policy(&row.policy, correlation).await {
                Ok(report) if report.is_proof() => None,
                Ok(_) => Some(row.policy.id),
                Err(error) => {
                    tracing::warn!(policy.id = %row.policy.id, ?error, "a probe could not be reported");
                    Some(row.policy.id)
                }
            }
        });
        let unproven: Vec<PolicyId> =
            probes.buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await;
        // INVARIANT (I3): the shard counts as watched only from the start of a sweep that tried every key.
        let watched_until = started_at + self.settings.probe_phase + self.settings.watch_slack;
        self.watch.beat(shard, started_at, watched_until, &unproven).await?;
        Ok(Swept::Done { policies, unproven: unproven.len() })
    }
}
