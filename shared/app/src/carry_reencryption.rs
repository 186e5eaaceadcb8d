//! Carries a re-encryption from phase to phase, a bounded step a message: pages of instances whose data keys move,
//! the switch, shards for the workers, two scans, the end. A reconciler: each step looks where the job stands and does
//! what is next, so that a message that is lost, doubled or late, and a crash between any two writes, cost time alone.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use claviger_domain::decide::{Refusal, decide};
use claviger_domain::effect::{Effect, OutboxRow};
use claviger_domain::event::{Actor, Origin, PolicyEvent};
use claviger_domain::ids::CorrelationId;
use claviger_domain::instance::{AppInstance, InstanceStatus};
use claviger_domain::key_access::{CustomerRole, KeyAccess};
use claviger_domain::observation::{Observation, RefusalKind};
use claviger_domain::policy::{EncryptionPolicy, PURPOSE_CANARY};
use claviger_domain::reencryption::{KeyFault, Phase, Reencryption};
use claviger_domain::values::{Region, ShardId};
use futures_util::StreamExt;
use futures_util::stream;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::check_enrolment::CheckEnrolment;
use crate::error::WorkError;
use crate::explain_refusal::explained;
use crate::move_data_keys::{MoveDataKeys, MoveError, Moved, Target};
use crate::ports::{
    Backups, Checkpoints, Clock, CustomerKeys, DataKeyRegistry, Ids, Instances, KeyRef, Policies,
    ReencryptionQueues, RoleSession, StoreError, WatchList,
};
use crate::probe_keys::ProbeKeys;
use crate::prove_permissions::given;
use crate::reencryption::{Counts, JobProgress, JobStep, Scanned, ShardCheckpoint, ShardPlace, ShardWork};
use crate::rewrite_shard::LEASE;
use crate::settings::Settings;
use crate::show_reencryption::{all_backups, ledger_words};

/// How many instances one step handles.
const PAGE: u16 = 20;
/// How many of them at once.
const AT_ONCE: usize = 8;
/// Entries of a page of what is read.
const LIST: u16 = 200;
/// How often it is looked whether the shards are through.
const LOOK: SignedDuration = SignedDuration::from_secs(3);
/// Wait before the next try where a key refuses or gives no answer.
const AGAIN: SignedDuration = SignedDuration::from_secs(15);
/// The longest that a message waits in a queue.
const LONGEST: SignedDuration = SignedDuration::from_mins(15);
/// How long a step may take, beyond its delay, before another message takes the job up.
const STEP: SignedDuration = SignedDuration::from_mins(3);

/// Carries re-encryptions.
pub struct CarryReencryption<'a> {
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// Every policy in use, in the base table.
    pub watch: &'a dyn WatchList,
    /// Where instances are.
    pub instances: &'a dyn Instances,
    /// Where wrapped data keys are.
    pub registry: &'a dyn DataKeyRegistry,
    /// The customers' keys.
    pub keys: &'a dyn CustomerKeys,
    /// How to probe.
    pub probe: ProbeKeys<'a>,
    /// How far jobs and shards are.
    pub checkpoints: &'a dyn Checkpoints,
    /// What the vendor keeps of old data.
    pub backups: &'a dyn Backups,
    /// Makes and checks keys (BYOK).
    pub check: CheckEnrolment<'a>,
    /// Where steps and shards wait.
    pub queue: &'a dyn ReencryptionQueues,
    /// Randomness.
    pub ids: &'a dyn Ids,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

/// What follows a step.
enum Next {
    /// Another one.
    After(SignedDuration),
    /// Nothing, until a message takes the job up.
    Rest,
}

const AT_ONCE_AGAIN: Next = Next::After(SignedDuration::ZERO);

impl CarryReencryption<'_> {
    /// Takes a job up because of a decision.
    ///
    /// # Errors
    /// As [`CarryReencryption::step`].
    pub async fn run(&self, row: &OutboxRow) -> Result<(), WorkError> {
        let Effect::Reencrypt { job } = row.effect else {
            return Err(WorkError::NotThere { what: "a job to take up" });
        };
        let step = JobStep {
            organisation: row.organisation.clone(),
            policy: row.policy,
            job,
            token: None,
            correlation: row.correlation,
        };
        self.step(&step).await
    }

    /// Takes up every job that nobody is at: what a lost message left.
    ///
    /// # Errors
    /// When the list of policies cannot be read, or the queue fails.
    pub async fn tick(&self) -> Result<u64, WorkError> {
        let mut open = 0_u64;
        for shard in 0..self.settings.shards {
            for row in self.watch.watched(ShardId(shard)).await? {
                let Some(job) = row.policy.reencryption.as_ref() else {
                    continue;
                };
                open = open.saturating_add(1);
                let step = JobStep {
                    organisation: row.policy.organisation_name.clone(),
                    policy: row.policy.id,
                    job: job.id,
                    token: None,
                    correlation: CorrelationId::from_uuid(self.ids.random()),
                };
                self.queue.queue_step(&step, SignedDuration::ZERO).await?;
            }
        }
        Ok(open)
    }

    /// One step of a job. A job that has ended, stands still, or is in other hands is left alone.
    ///
    /// # Errors
    /// When the store or the queue fails; the message is delivered again.
    pub async fn step(&self, step: &JobStep) -> Result<(), WorkError> {
        let policy = self.policies.policy(&step.organisation).await?;
        let policy = policy.ok_or(WorkError::NotThere { what: "the encryption policy" })?;
        let Some(job) = policy.reencryption.as_ref().filter(|job| job.id == step.job) else {
            return Ok(());
        };
        let now = self.clock.now();
        let stored = self.checkpoints.progress(job.id).await?;
        let taken = |known: &JobProgress| step.token != Some(known.token) && now < known.token_until;
        if stored.as_ref().is_some_and(taken) {
            return Ok(());
        }
        let mut progress = self.begun(stored, job, now);
        // Claimed first: of two messages one finds that the other was faster.
        if !self.saved(&mut progress, now + STEP).await? {
            return Ok(());
        }
        let next = if job.paused.is_some() || stands_still(&policy, job) {
            Next::Rest
        } else {
            self.work(&policy, job, &mut progress, step).await?
        };
        let now = self.clock.now();
        match next {
            Next::Rest => self.saved(&mut progress, now).await.map(drop),
            Next::After(delay) => {
                let token = progress.token;
                if self.saved(&mut progress, now + delay + STEP).await? {
                    let step = JobStep { token: Some(token), ..step.clone() };
                    self.queue.queue_step(&step, delay).await?;
                }
                Ok(())
            }
        }
    }

    /// The progress of the phase that the job is in, with a token of this step's.
    fn begun(&self, stored: Option<JobProgress>, job: &Reencryption, now: Timestamp) -> JobProgress {
        let token: Uuid = self.ids.random();
        let fresh = |before: Option<JobProgress>| JobProgress {
            job: job.id,
            of: job.phase,
            began_at: now,
            listed: false,
            cursor: None,
            data_keys: 0,
            changed: 0,
            shards: 0,
            shards_done: 0,
            counts: Counts::default(),
            seen_by_done: 0,
            rewritten_before: before
                .as_ref()
                .map_or(0, |before| before.rewritten_before.saturating_add(before.counts.rewritten)),
            estimate: before.as_ref().and_then(|before| before.counted().or(before.estimate)),
            scanned: before.as_ref().and_then(|before| before.scanned),
            fault: None,
            token,
            token_until: now,
            version: before.map_or(0, |before| before.version),
        };
        match stored {
            Some(known) if known.of == job.phase => JobProgress { token, ..known },
            other => fresh(other),
        }
    }

    async fn saved(&self, progress: &mut JobProgress, until: Timestamp) -> Result<bool, WorkError> {
        progress.token_until = until;
        progress.version = progress.version.saturating_add(1);
        match self.checkpoints.save_progress(progress).await {
            Ok(()) => Ok(true),
            Err(StoreError::Conflict) => Ok(false),
            Err(other) => Err(other.into()),
        }
    }

    async fn work(
        &self,
        policy: &EncryptionPolicy,
        job: &Reencryption,
        progress: &mut JobProgress,
        step: &JobStep,
    ) -> Result<Next, WorkError> {
        match job.phase {
            Phase::Preparing => self.prepare(policy, job, progress, step).await,
            Phase::Cancelling => match self.page(policy, job, progress, Move::Forget).await? {
                Paged::Through => self.ended(policy, job, progress, step).await,
                Paged::More => Ok(AT_ONCE_AGAIN),
                Paged::Refused(_) | Paged::NoAnswer => Ok(Next::After(AGAIN)),
            },
            Phase::Rewriting { pass } | Phase::Scanning { pass, .. } => {
                if progress.listed {
                    return self.look(policy, job, pass, progress, step).await;
                }
                match self.page(policy, job, progress, Move::Shards { pass, step }).await? {
                    Paged::Through => {
                        progress.listed = true;
                        Ok(Next::After(LOOK))
                    }
                    Paged::More => Ok(AT_ONCE_AGAIN),
                    Paged::Refused(_) | Paged::NoAnswer => Ok(Next::After(AGAIN)),
                }
            }
            Phase::Waiting { clean_since, .. } => {
                let due_at = clean_since + self.settings.in_transit;
                let left = due_at.duration_since(self.clock.now());
                if left.is_positive() {
                    return Ok(Next::After(left.min(LONGEST)));
                }
                self.happened(policy, PolicyEvent::ReencryptionScanDue { job: job.id }, step).await
            }
            Phase::Finishing => match self.page(policy, job, progress, Move::KeepNew).await? {
                Paged::Through => self.ended(policy, job, progress, step).await,
                Paged::More => Ok(AT_ONCE_AGAIN),
                Paged::Refused(_) | Paged::NoAnswer => Ok(Next::After(AGAIN)),
            },
        }
    }

    /// Every data key gets wraps under the new keys, until a whole pass finds nothing to do; then the switch.
    async fn prepare(
        &self,
        policy: &EncryptionPolicy,
        job: &Reencryption,
        progress: &mut JobProgress,
        step: &JobStep,
    ) -> Result<Next, WorkError> {
        if let (true, KeyAccess::Role(role)) = (job.keys.is_empty(), &job.access) {
            return self.make_keys(policy, job, role, step).await;
        }
        match self.page(policy, job, progress, Move::Wrap).await? {
            Paged::Refused(fault) => {
                progress.fault = Some(format!("the new key in {} refuses", fault.region));
                let event = PolicyEvent::ReencryptionHindered { job: job.id, fault: Some(fault) };
                self.happened(policy, event, step).await?;
                Ok(Next::After(AGAIN))
            }
            Paged::NoAnswer => Ok(Next::After(AGAIN)),
            Paged::More => Ok(AT_ONCE_AGAIN),
            // What was made while the pass was under way is found by the next.
            Paged::Through if progress.changed > 0 => {
                (progress.cursor, progress.changed, progress.data_keys) = (None, 0, 0);
                Ok(AT_ONCE_AGAIN)
            }
            Paged::Through => self.switch(policy, job, progress.data_keys, step).await,
        }
    }

    /// BYOK: has the keys of the job's generation made through the role, or finds those of the time before, and checks
    /// them like any others.
    async fn make_keys(
        &self,
        policy: &EncryptionPolicy,
        job: &Reencryption,
        role: &CustomerRole,
        step: &JobStep,
    ) -> Result<Next, WorkError> {
        let refuses = Observation::Refused(RefusalKind::RoleDenied);
        let wanted = EncryptionPolicy { generation: job.generation, ..policy.clone() };
        let keys = match self.check.make_keys(&wanted, role, self.settings).await {
            Ok(Ok(keys)) => keys,
            Ok(Err(faults)) => {
                tracing::warn!(job.id = %job.id, ?faults, "new keys could not be made");
                let Some(region) = faults.into_keys().next() else {
                    return Ok(Next::After(AGAIN));
                };
                return self.not_yet(policy, job, &region, refuses, step).await;
            }
            Err(WorkError::NotNow { .. } | WorkError::Key(_)) => return Ok(Next::After(AGAIN)),
            Err(other) => return Err(other),
        };
        let (mut unanswered, granted) = (false, policy.granted_permissions());
        for (region, arn) in &keys {
            let organisation = policy.organisation;
            let key = KeyRef { arn, access: &job.access, organisation, session: RoleSession::Fresh };
            let checks = self.check.key(key, &policy.context_tag, &granted).await;
            if checks.some_refused() {
                return self.not_yet(policy, job, region, refuses, step).await;
            }
            unanswered |= checks.some_unanswered();
        }
        // INVARIANT (R3): no answer is neither a refusal, of which the ticket would tell, nor a proof.
        if unanswered {
            return Ok(Next::After(AGAIN));
        }
        self.happened(policy, PolicyEvent::ReencryptionKeysCreated { job: job.id, keys }, step).await
    }

    /// Proves every new key by a canary of its own, at this moment, and has the policy get them.
    async fn switch(
        &self,
        policy: &EncryptionPolicy,
        job: &Reencryption,
        data_keys: u64,
        step: &JobStep,
    ) -> Result<Next, WorkError> {
        let context = policy.encryption_context(PURPOSE_CANARY, &policy.id.to_string());
        let mut canaries: BTreeMap<Region, String> = BTreeMap::new();
        let wanted = policy.granted_permissions();
        for (region, arn) in &job.keys {
            let organisation = policy.organisation;
            let key = KeyRef { arn, access: &job.access, organisation, session: RoleSession::Fresh };
            let sealed = match self.keys.encrypt(key, self.ids.random().as_bytes(), &context).await {
                Ok(sealed) => sealed,
                Err(error) => {
                    let saw = explained(self.keys, key, &error).await;
                    return self.not_yet(policy, job, region, saw, step).await;
                }
            };
            // What was accepted while the data keys moved was not asked for when the new keys were checked.
            match given(self.keys, key, &sealed, &context, &wanted).await {
                Ok(given) if given == wanted => {}
                Ok(_) => {
                    let saw = Observation::Refused(RefusalKind::AccessDenied);
                    return self.not_yet(policy, job, region, saw, step).await;
                }
                Err(WorkError::NotNow { .. }) => return Ok(Next::After(AGAIN)),
                Err(other) => return Err(other),
            }
            canaries.insert(region.clone(), BASE64_STANDARD.encode(sealed));
        }
        let round = self.probe.round(&policy.with_new_keys(&canaries, self.clock.now())).await;
        let failed = round.observations.iter().find(|(_, saw)| !matches!(saw, Observation::Usable));
        if let Some((region, saw)) = failed {
            return self.not_yet(policy, job, region, *saw, step).await;
        }
        // The new keys refused before and do not any more.
        if job.fault.is_some() {
            let event = PolicyEvent::ReencryptionHindered { job: job.id, fault: None };
            return self.happened(policy, event, step).await;
        }
        let event =
            PolicyEvent::ReencryptionSwitched { job: job.id, canaries, data_keys, proven: wanted, round };
        self.happened(policy, event, step).await
    }

    async fn not_yet(
        &self,
        policy: &EncryptionPolicy,
        job: &Reencryption,
        region: &Region,
        saw: Observation,
        step: &JobStep,
    ) -> Result<Next, WorkError> {
        if let Observation::Refused(_) = saw {
            let fault = Some(KeyFault { region: region.clone(), saw });
            self.happened(policy, PolicyEvent::ReencryptionHindered { job: job.id, fault }, step).await?;
        }
        Ok(Next::After(AGAIN))
    }

    /// Sums the shards up, queues again what nobody is at, and has the next phase begin when all are through.
    async fn look(
        &self,
        policy: &EncryptionPolicy,
        job: &Reencryption,
        pass: u32,
        progress: &mut JobProgress,
        step: &JobStep,
    ) -> Result<Next, WorkError> {
        let (mut cursor, now) = (None, self.clock.now());
        let (mut shards, mut done, mut counts) = (0_u64, 0_u64, Counts::default());
        let mut seen_by_done = 0_u64;
        let (mut estimate, mut fault, mut lost) = (None::<u64>, None, Vec::new());
        loop {
            let page = self.checkpoints.shards(job.id, cursor.as_deref(), LIST).await?;
            for shard in page.items.into_iter().filter(|shard| shard.pass == pass) {
                shards = shards.saturating_add(1);
                counts = counts.plus(shard.counts);
                if let Some(records) = shard.estimate {
                    estimate = Some(estimate.unwrap_or(0).saturating_add(records));
                }
                if shard.done {
                    done = done.saturating_add(1);
                    seen_by_done = seen_by_done.saturating_add(shard.counts.seen);
                    continue;
                }
                fault = fault.or_else(|| shard.fault.clone());
                if shard.token_until <= now {
                    lost.push(shard);
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        (progress.shards, progress.shards_done, progress.counts) = (shards, done, counts);
        progress.seen_by_done = seen_by_done;
        // What an earlier pass counted is better than what a store thinks.
        progress.estimate = if pass == 1 { estimate } else { progress.estimate.or(estimate) };
        progress.fault = fault;
        for shard in lost {
            self.queue_shard(shard, step).await?;
        }
        if done < shards {
            return Ok(Next::After(LOOK));
        }
        if let Phase::Scanning { .. } = job.phase {
            let (records, old, old_versions) = (counts.seen, counts.old, counts.old_versions);
            progress.scanned = Some(Scanned { at: now, records, old, old_versions });
        }
        let event = PolicyEvent::ReencryptionPassed { job: job.id, pass, old: counts.old };
        self.happened(policy, event, step).await
    }

    async fn ended(
        &self,
        policy: &EncryptionPolicy,
        job: &Reencryption,
        progress: &mut JobProgress,
        step: &JobStep,
    ) -> Result<Next, WorkError> {
        // What was made while the pass was under way is found by the next.
        if progress.changed > 0 {
            (progress.cursor, progress.changed, progress.data_keys) = (None, 0, 0);
            return Ok(AT_ONCE_AGAIN);
        }
        let ledger = match job.phase {
            Phase::Finishing => {
                let backups = all_backups(self.backups, &policy.organisation_name).await?;
                ledger_words(policy, job, progress, &backups, (self.clock.now(), self.settings.in_transit))
            }
            Phase::Preparing
            | Phase::Cancelling
            | Phase::Rewriting { .. }
            | Phase::Scanning { .. }
            | Phase::Waiting { .. } => String::new(),
        };
        let data_keys = progress.data_keys;
        let old_versions = progress.scanned.map(|scanned| scanned.old_versions);
        let event = PolicyEvent::ReencryptionEnded { job: job.id, data_keys, old_versions, ledger };
        self.happened(policy, event, step).await
    }

    /// Commits an event. If it is not so any more, or somebody else was faster, the next step sees how it is now.
    async fn happened(
        &self,
        policy: &EncryptionPolicy,
        event: PolicyEvent,
        step: &JobStep,
    ) -> Result<Next, WorkError> {
        let actor = Actor::Claviger("reencryption-planner".to_owned());
        let origin = Origin { actor, correlation: step.correlation };
        match decide(&self.settings.rules(), policy, &event, &origin, self.clock.now()) {
            Ok(decision) => match self.policies.commit_policy(Some(policy), &decision).await {
                Ok(()) if decision.next.reencryption.is_none() => return Ok(Next::Rest),
                Ok(()) | Err(StoreError::Conflict) => {}
                Err(other) => return Err(other.into()),
            },
            Err(Refusal::KeysNotUsable { .. }) => return Ok(Next::After(AGAIN)),
            Err(Refusal::Stale | Refusal::Redundant | Refusal::IllegalForState { .. }) => {}
            Err(other) => return Err(other.into()),
        }
        Ok(AT_ONCE_AGAIN)
    }

    /// Goes through a page of instances.
    async fn page(
        &self,
        policy: &EncryptionPolicy,
        job: &Reencryption,
        progress: &mut JobProgress,
        what: Move<'_>,
    ) -> Result<Paged, WorkError> {
        let cursor = progress.cursor.as_deref();
        let found = self.instances.instances(&policy.organisation_name, cursor, PAGE).await?;
        let encrypted = found.items.iter().filter(|instance| has_data_keys(instance));
        let done: Vec<Result<Moved, MoveError>> = stream::iter(encrypted)
            .map(|instance| self.of_instance(policy, job, instance, what))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut moved = Moved::default();
        for one in done {
            match one {
                Ok(one) => moved = moved.plus(one),
                Err(MoveError::Refused(fault)) => return Ok(Paged::Refused(fault)),
                Err(MoveError::Work(WorkError::Key(error))) => {
                    tracing::warn!(%error, job.id = %job.id, "a key did not do what a re-encryption needs");
                    return Ok(Paged::NoAnswer);
                }
                // Somebody else was at the same data key: the page is gone through again.
                Err(MoveError::Work(WorkError::Store(StoreError::Conflict))) => return Ok(Paged::More),
                Err(MoveError::Work(other)) => return Err(other),
            }
        }
        progress.data_keys = progress.data_keys.saturating_add(moved.data_keys);
        progress.changed = progress.changed.saturating_add(moved.changed);
        progress.cursor = found.next;
        Ok(if progress.cursor.is_some() { Paged::More } else { Paged::Through })
    }

    async fn of_instance(
        &self,
        policy: &EncryptionPolicy,
        job: &Reencryption,
        instance: &AppInstance,
        what: Move<'_>,
    ) -> Result<Moved, MoveError> {
        let (registry, keys, ids, clock) = (self.registry, self.keys, self.ids, self.clock);
        let mover = MoveDataKeys { registry, keys, ids, clock };
        let target = Target::of(policy, job);
        match what {
            Move::Wrap => mover.wrap_all(policy, &target, instance).await,
            Move::Forget => mover.forget(policy, instance).await,
            Move::KeepNew => mover.keep_target(policy, &target, instance).await,
            Move::Shards { pass, step } => {
                // One that was being made during the switch has what it needs from here on.
                let moved = mover.wrap_all(policy, &target, instance).await?;
                if moved.data_keys > 0 {
                    self.shards_of(job, instance, pass, step).await.map_err(MoveError::Work)?;
                }
                Ok(moved)
            }
        }
    }

    async fn shards_of(
        &self,
        job: &Reencryption,
        instance: &AppInstance,
        pass: u32,
        step: &JobStep,
    ) -> Result<(), WorkError> {
        // INVARIANT (X4): what a shard covers stays the same for the whole job, whatever is deployed meanwhile; with
        // fewer of them in a later pass, some records would never be looked at.
        let first = ShardPlace { job: job.id, instance: instance.id, index: 0 };
        let first = self.checkpoints.shard(first).await?;
        let of = first.map_or(self.settings.record_shards.max(1), |first| first.of);
        for index in 0..of {
            let place = ShardPlace { job: job.id, instance: instance.id, index };
            let known = self.checkpoints.shard(place).await?;
            if known.as_ref().is_some_and(|known| known.pass >= pass) {
                continue;
            }
            let shard = ShardCheckpoint {
                place,
                site: instance.site.clone(),
                app: instance.app.clone(),
                of,
                pass,
                cursor: None,
                done: false,
                counts: Counts::default(),
                estimate: known.as_ref().and_then(|known| known.estimate),
                fault: None,
                token: self.ids.random(),
                token_until: self.clock.now(),
                version: known.map_or(0, |known| known.version),
            };
            self.queue_shard(shard, step).await?;
        }
        Ok(())
    }

    /// Stores a shard with a new token and queues it. One that somebody else took meanwhile is in good hands.
    async fn queue_shard(&self, mut shard: ShardCheckpoint, step: &JobStep) -> Result<(), WorkError> {
        shard.token = self.ids.random();
        shard.token_until = self.clock.now() + LEASE;
        shard.version = shard.version.saturating_add(1);
        match self.checkpoints.save_shard(&shard).await {
            Ok(()) => {}
            Err(StoreError::Conflict) => return Ok(()),
            Err(other) => return Err(other.into()),
        }
        let work = ShardWork {
            organisation: step.organisation.clone(),
            place: shard.place,
            pass: shard.pass,
            token: shard.token,
            correlation: step.correlation,
        };
        Ok(self.queue.queue_shards(&[work], SignedDuration::ZERO).await?)
    }
}

/// What is done with the data keys of an instance.
#[derive(Clone, Copy)]
enum Move<'a> {
    /// Wrap them under the new keys too.
    Wrap,
    /// Take the new wraps away.
    Forget,
    /// Take the old wraps away.
    KeepNew,
    /// See to it that nothing is missing, and have the records worked.
    Shards { pass: u32, step: &'a JobStep },
}

/// What came of a page.
enum Paged {
    /// There are more.
    More,
    /// It was the last.
    Through,
    /// A new key refuses.
    Refused(KeyFault),
    /// A key gave no answer, or an old one refuses: the watcher finds out.
    NoAnswer,
}

/// Before its switch a job tries again and again whether its new keys work: nobody else looks at them.
fn stands_still(policy: &EncryptionPolicy, job: &Reencryption) -> bool {
    let tries = job.phase == Phase::Preparing && job.fault.is_some() && policy.fence.is_open();
    policy.hindrance().is_some() && !tries
}

/// Whether an instance has data keys, or may be getting its first.
pub(crate) const fn has_data_keys(instance: &AppInstance) -> bool {
    match instance.status {
        InstanceStatus::Provisioning { .. }
        | InstanceStatus::Active { .. }
        | InstanceStatus::Suspended { .. } => true,
        InstanceStatus::Requested { .. }
        | InstanceStatus::NotEncrypted { .. }
        | InstanceStatus::Rejected { .. }
        | InstanceStatus::Erasing { .. }
        | InstanceStatus::Deleted { .. } => false,
    }
}
