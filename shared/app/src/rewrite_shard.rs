//! Works a shard of a re-encryption: batch by batch, a checkpoint after each, for a limited time. Whoever is killed
//! anywhere redoes one batch at most; a message that comes twice finds the shard in other hands (spec X3).

use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::reencryption::Phase;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::error::WorkError;
use crate::ports::{Checkpoints, Clock, Ids, Instances, Policies, Records, ReencryptionQueues, StoreError};
use crate::reencryption::{RecordsError, ShardCheckpoint, ShardWork};

/// How long a batch may take before others think that its worker died.
pub(crate) const LEASE: SignedDuration = SignedDuration::from_secs(60);
/// Wait before the next try while there are no keys, or the store asks to go slower.
const LATER: SignedDuration = SignedDuration::from_secs(10);
/// Wait before the next try where something stands in the way that does not heal by itself.
const MUCH_LATER: SignedDuration = SignedDuration::from_secs(60);

/// Works shards.
pub struct RewriteShard<'a> {
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// Where instances are.
    pub instances: &'a dyn Instances,
    /// Where checkpoints are.
    pub checkpoints: &'a dyn Checkpoints,
    /// The vendor's records.
    pub records: &'a dyn Records,
    /// Where the rest of the shard waits.
    pub queue: &'a dyn ReencryptionQueues,
    /// Randomness.
    pub ids: &'a dyn Ids,
    /// The time.
    pub clock: &'a dyn Clock,
}

/// What a pass does.
struct Pass {
    generation: u32,
    scan: bool,
}

impl RewriteShard<'_> {
    /// Works a shard on for a time, then hands over to the next message. One that is through, in other hands, of another pass, or of a job that stands still, is left
    /// alone: the planner queues it again.
    ///
    /// # Errors
    /// When the store or the queue fails; the message is delivered again.
    pub async fn run(&self, work: &ShardWork, works_for: SignedDuration) -> Result<(), WorkError> {
        let began = self.clock.now();
        let Some(mut shard) = self.checkpoints.shard(work.place).await? else {
            return Ok(());
        };
        let ours = shard.token == work.token || shard.token_until <= began;
        if shard.pass != work.pass || shard.done || !ours {
            return Ok(());
        }
        // Where its records are may have been renamed since the shard was planned.
        if let Some(instance) = self.instances.instance(work.place.instance).await? {
            shard.site = instance.site;
        }
        shard.token = self.ids.random();
        loop {
            let now = self.clock.now();
            let Some(pass) = self.pass(work).await? else {
                return self.leave(&mut shard, now).await;
            };
            if now.duration_since(began) >= works_for {
                return self.hand_over(&mut shard, work, SignedDuration::ZERO).await;
            }
            // Claimed before it is worked: of two messages one finds that the other was faster.
            if !self.saved(&mut shard, now + LEASE).await? {
                return Ok(());
            }
            match self.batch(&mut shard, work, &pass).await {
                Ok(()) => {}
                Err(RecordsError::Suspended) => return self.leave(&mut shard, self.clock.now()).await,
                Err(RecordsError::TemporarilyUnavailable | RecordsError::Store { .. }) => {
                    return self.hand_over(&mut shard, work, LATER).await;
                }
                Err(
                    error @ (RecordsError::NoStore { .. }
                    | RecordsError::Refused { .. }
                    | RecordsError::Unreadable { .. }),
                ) => {
                    tracing::error!(%error, job.id = %work.place.job, "a shard cannot be worked");
                    shard.fault = Some(error.to_string());
                    return self.hand_over(&mut shard, work, MUCH_LATER).await;
                }
            }
            if shard.done {
                let now = self.clock.now();
                return self.leave(&mut shard, now).await;
            }
        }
    }

    async fn batch(
        &self,
        shard: &mut ShardCheckpoint,
        work: &ShardWork,
        pass: &Pass,
    ) -> Result<(), RecordsError> {
        if shard.place.index == 0 && shard.estimate.is_none() {
            shard.estimate = self.records.estimate(shard, &work.organisation).await?;
        }
        let batch = self.records.batch(shard, &work.organisation, pass.generation, pass.scan).await?;
        shard.counts = shard.counts.plus(batch.counts);
        shard.fault = None;
        shard.done = batch.next.is_none();
        shard.cursor = batch.next;
        Ok(())
    }

    /// What the pass of this message does; none if the job is not in it any more, or stands still.
    async fn pass(&self, work: &ShardWork) -> Result<Option<Pass>, WorkError> {
        let policy: Option<EncryptionPolicy> = self.policies.policy(&work.organisation).await?;
        let Some(policy) = policy.filter(EncryptionPolicy::may_reencrypt) else {
            return Ok(None);
        };
        let Some(job) = policy.reencryption.filter(|job| job.id == work.place.job) else {
            return Ok(None);
        };
        let scan = match job.phase {
            Phase::Rewriting { pass } if pass == work.pass => false,
            Phase::Scanning { pass, .. } if pass == work.pass => true,
            Phase::Preparing
            | Phase::Cancelling
            | Phase::Rewriting { .. }
            | Phase::Scanning { .. }
            | Phase::Waiting { .. }
            | Phase::Finishing => return Ok(None),
        };
        let generation = u32::try_from(job.generation).unwrap_or(u32::MAX);
        Ok(Some(Pass { generation, scan }))
    }

    /// Stores the checkpoint; says whether the shard is still ours.
    async fn saved(&self, shard: &mut ShardCheckpoint, until: Timestamp) -> Result<bool, WorkError> {
        shard.token_until = until;
        shard.version = shard.version.saturating_add(1);
        match self.checkpoints.save_shard(shard).await {
            Ok(()) => Ok(true),
            Err(StoreError::Conflict) => Ok(false),
            Err(other) => Err(other.into()),
        }
    }

    /// Stores how far it is, free for anybody.
    async fn leave(&self, shard: &mut ShardCheckpoint, now: Timestamp) -> Result<(), WorkError> {
        self.saved(shard, now).await.map(drop)
    }

    /// Stores how far it is, and queues the rest.
    async fn hand_over(
        &self,
        shard: &mut ShardCheckpoint,
        work: &ShardWork,
        after: SignedDuration,
    ) -> Result<(), WorkError> {
        let token: Uuid = self.ids.random();
        shard.token = token;
        if self.saved(shard, self.clock.now() + after + LEASE).await? {
            let rest = ShardWork { token, ..work.clone() };
            self.queue.queue_shards(&[rest], after).await?;
        }
        Ok(())
    }
}
