//! The fence: what one consistent read of it says, and who may use a key because of that.

use crate::clock::Now;
use crate::error::{EnvelopeError, Unavailable};
use crate::lock::Lock;
use async_trait::async_trait;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};

/// One read of one copy of the fence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FenceSnapshot {
    pub policies: Vec<FencedPolicy>,
    pub shards: Vec<WatchedShard>,
}

/// A policy that is closed, was reopened lately, or is being re-encrypted. All others have no entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FencedPolicy {
    pub policy_id: String,
    pub organisation_id: String,
    pub epoch: u64,
    /// At least one cause is open.
    pub closed: bool,
    pub min_write_generation: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedShard {
    pub shard: u16,
    /// Unix milliseconds.
    pub watched_until: i64,
    /// Policies whose keys gave no answer in the last sweep.
    pub unproven: Vec<String>,
}

/// The fence could not be read; the lease runs on until it ends.
#[derive(Debug, thiserror::Error)]
#[error("the fence could not be read: {0}")]
pub struct FenceError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Reads one copy of the fence, consistently and whole.
#[async_trait]
pub trait FenceReader: Send + Sync + 'static {
    async fn read(&self) -> Result<FenceSnapshot, FenceError>;
}

#[derive(Default)]
pub(crate) struct ShardState {
    watched_until: AtomicI64,
}

/// What is known of one policy. The hot path reads it; only polls and proofs write it.
pub(crate) struct PolicyState {
    pub(crate) id: Arc<str>,
    pub(crate) organisation_id: Box<str>,
    shard: Arc<ShardState>,
    closed: AtomicBool,
    epoch: AtomicU64,
    min_write_generation: AtomicU32,
    unproven: AtomicBool,
    proven_until: AtomicI64,
    /// Number of the close that was seen last, process-wide: a key whose fetch began before it is not inserted.
    closed_at: AtomicU64,
}

impl PolicyState {
    /// The one rule (I1, I3).
    #[inline]
    pub(crate) fn usable(&self, key_epoch: u64, now: Now) -> Result<(), EnvelopeError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(EnvelopeError::Suspended);
        }
        if key_epoch < self.epoch.load(Ordering::Acquire) {
            return Err(EnvelopeError::unavailable(Unavailable::Overtaken));
        }
        if self.watched(now) || now.wall < self.proven_until.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(EnvelopeError::unavailable(Unavailable::Unproven))
    }

    #[inline]
    fn watched(&self, now: Now) -> bool {
        !self.unproven.load(Ordering::Acquire) && now.wall < self.shard.watched_until.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn may_write(&self, generation: u32) -> Result<(), EnvelopeError> {
        let least = self.min_write_generation.load(Ordering::Acquire);
        if generation < least {
            return Err(EnvelopeError::GenerationTooOld { generation, least });
        }
        Ok(())
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub(crate) fn closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn closed_since(&self, seen: u64) -> bool {
        self.closed_at.load(Ordering::Acquire) > seen
    }

    pub(crate) fn proven(&self, until: i64) {
        self.proven_until.fetch_max(until, Ordering::AcqRel);
    }

    pub(crate) fn unprove(&self) {
        self.proven_until.store(0, Ordering::Release);
    }
}

/// All policies of the process and the last snapshot, for those that come later.
#[derive(Default)]
pub(crate) struct Policies {
    inner: Lock<PoliciesInner>,
    closes: AtomicU64,
}

#[derive(Default)]
struct PoliciesInner {
    policies: HashMap<Arc<str>, Arc<PolicyState>>,
    shards: HashMap<u16, Arc<ShardState>>,
    fenced: HashMap<String, FencedPolicy>,
    unproven: HashSet<String>,
}

impl PoliciesInner {
    fn shard(&mut self, shard: u16) -> Arc<ShardState> {
        self.shards.entry(shard).or_default().clone()
    }
}

impl Policies {
    /// How many closes this process has seen; taken before a fetch begins.
    pub(crate) fn closes(&self) -> u64 {
        self.closes.load(Ordering::Acquire)
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<PolicyState>> {
        self.inner.lock().policies.get(id).cloned()
    }

    pub(crate) fn get_or_insert(&self, id: &str, organisation_id: &str, shard: u16) -> Arc<PolicyState> {
        let mut inner = self.inner.lock();
        if let Some(policy) = inner.policies.get(id) {
            return policy.clone();
        }
        let shard = inner.shard(shard);
        let fenced = inner.fenced.get(id);
        let closed = fenced.is_some_and(|item| item.closed);
        let id: Arc<str> = id.into();
        let policy = Arc::new(PolicyState {
            id: id.clone(),
            organisation_id: organisation_id.into(),
            shard,
            closed: AtomicBool::new(closed),
            epoch: AtomicU64::new(fenced.map_or(0, |item| item.epoch)),
            min_write_generation: AtomicU32::new(fenced.map_or(0, |item| item.min_write_generation)),
            unproven: AtomicBool::new(inner.unproven.contains(&*id)),
            proven_until: AtomicI64::new(0),
            closed_at: AtomicU64::new(if closed { self.closes.load(Ordering::Acquire) } else { 0 }),
        });
        inner.policies.insert(id, policy.clone());
        policy
    }

    /// Applies a snapshot and returns the policies of which keys may have to be wiped: closed, or of a higher
    /// epoch than before (closed and reopened since). Must be called before the lease is extended.
    ///
    /// INVARIANT (I1): a policy's flag and epoch are what ends the use of its keys, however many there are. They are
    /// written before anything else is put in order.
    pub(crate) fn apply(&self, snapshot: FenceSnapshot) -> Vec<Arc<PolicyState>> {
        let mut inner = self.inner.lock();
        let mut to_wipe = Vec::new();
        for item in &snapshot.policies {
            let Some(policy) = inner.policies.get(item.policy_id.as_str()) else { continue };
            let just_closed = item.closed && !policy.closed.swap(true, Ordering::AcqRel);
            let epoch_before = policy.epoch.fetch_max(item.epoch, Ordering::AcqRel);
            policy.min_write_generation.fetch_max(item.min_write_generation, Ordering::AcqRel);
            if just_closed || epoch_before < item.epoch {
                let number = self.closes.fetch_add(1, Ordering::AcqRel) + 1;
                policy.closed_at.store(number, Ordering::Release);
                policy.unprove();
                to_wipe.push(policy.clone());
            }
        }
        for shard in &snapshot.shards {
            inner.shard(shard.shard).watched_until.store(shard.watched_until, Ordering::Release);
        }
        inner.unproven = snapshot.shards.into_iter().flat_map(|shard| shard.unproven).collect();
        inner.fenced = snapshot.policies.into_iter().map(|item| (item.policy_id.clone(), item)).collect();
        for (id, policy) in &inner.policies {
            policy.unproven.store(inner.unproven.contains(&**id), Ordering::Release);
            if !inner.fenced.get(&**id).is_some_and(|item| item.closed) {
                policy.closed.store(false, Ordering::Release);
            }
        }
        to_wipe
    }
}
