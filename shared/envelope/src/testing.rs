//! A fence and a source of keys in memory, moved by hand. For the tests of this crate and of apps.

pub use crate::clock::{FakeClock, Now};
use crate::fence::{FenceError, FenceReader, FenceSnapshot, FencedPolicy, WatchedShard};
pub use crate::lock::locks_taken;
use crate::secret::KeyBytes;
use crate::source::{DataKey, InstanceName, KeySource, Proof, ProofResult, SourceError, Wanted};
pub use crate::times::{Lifetime, REFRESH, Times};
use async_trait::async_trait;
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// Control plane, broker and fence in one. Every policy lies in shard 0.
pub struct TestCloud {
    pub clock: Arc<FakeClock>,
    inner: Mutex<Cloud>,
    pub fetches: AtomicU64,
    pub proofs: AtomicU64,
    pub reads: AtomicU64,
    /// Milliseconds that a read of the fence takes, between sending and answering.
    pub read_takes: AtomicI64,
}

struct Cloud {
    snapshot: FenceSnapshot,
    fence_down: bool,
    broker: Option<SourceError>,
    proof: ProofResult,
    generation: u32,
    epochs: HashMap<String, u64>,
    keys: HashMap<InstanceName, Vec<Held>>,
    asked: Vec<u32>,
    lifetime: i64,
    proof_lifetime: i64,
    hold: Option<Arc<tokio::sync::Semaphore>>,
}

impl TestCloud {
    #[must_use]
    pub fn new() -> Arc<Self> {
        let clock = Arc::new(FakeClock::default());
        let cloud = Cloud {
            snapshot: FenceSnapshot {
                policies: Vec::new(),
                shards: vec![WatchedShard { shard: 0, watched_until: i64::MAX, unproven: Vec::new() }],
            },
            fence_down: false,
            broker: None,
            proof: ProofResult::Proven,
            generation: 1,
            epochs: HashMap::new(),
            keys: HashMap::new(),
            asked: Vec::new(),
            lifetime: 300_000,
            proof_lifetime: 10_000,
            hold: None,
        };
        Arc::new(Self {
            clock,
            inner: Mutex::new(cloud),
            fetches: AtomicU64::new(0),
            proofs: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            read_takes: AtomicI64::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Cloud> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[must_use]
    pub fn policy_of(organisation: &str) -> String {
        format!("policy-{organisation}")
    }

    fn item<'a>(cloud: &'a mut Cloud, organisation: &str) -> Option<&'a mut FencedPolicy> {
        let policy_id = Self::policy_of(organisation);
        let policies = &mut cloud.snapshot.policies;
        if !policies.iter().any(|item| item.policy_id == policy_id) {
            policies.push(FencedPolicy {
                policy_id: policy_id.clone(),
                organisation_id: format!("id-{organisation}"),
                epoch: 1,
                closed: false,
                min_write_generation: 0,
            });
        }
        policies.iter_mut().find(|item| item.policy_id == policy_id)
    }

    /// The closing transaction: from here on the fence and the broker say so.
    pub fn close(&self, organisation: &str) {
        let mut cloud = self.lock();
        *cloud.epochs.entry(organisation.into()).or_insert(1) += 1;
        let epoch = cloud.epochs.get(organisation).copied().unwrap_or_default();
        if let Some(item) = Self::item(&mut cloud, organisation) {
            item.closed = true;
            item.epoch = epoch;
        }
    }

    pub fn reopen(&self, organisation: &str) {
        let mut cloud = self.lock();
        *cloud.epochs.entry(organisation.into()).or_insert(1) += 1;
        let epoch = cloud.epochs.get(organisation).copied().unwrap_or_default();
        if let Some(item) = Self::item(&mut cloud, organisation) {
            item.closed = false;
            item.epoch = epoch;
        }
    }

    /// Re-encryption: from here on older generations must not be written.
    pub fn min_write_generation(&self, organisation: &str, generation: u32) {
        let mut cloud = self.lock();
        cloud.generation = cloud.generation.max(generation);
        let epoch = cloud.epochs.get(organisation).copied().unwrap_or(1);
        if let Some(item) = Self::item(&mut cloud, organisation) {
            item.min_write_generation = generation;
            item.epoch = epoch;
        }
    }

    /// A new version of the instance's data key becomes current.
    pub fn rotate(&self, name: &InstanceName) {
        let mut cloud = self.lock();
        let fresh = Held::fresh(cloud.generation, self.clock.now().wall);
        cloud.keys.entry(name.clone()).or_default().push(fresh);
    }

    /// The versions than which newer ones were asked for so far, taken out.
    #[must_use]
    pub fn take_asked_for_newer(&self) -> Vec<u32> {
        std::mem::take(&mut self.lock().asked)
    }

    pub fn watched_until(&self, until: i64) {
        for shard in &mut self.lock().snapshot.shards {
            shard.watched_until = until;
        }
    }

    pub fn unproven(&self, organisations: &[&str]) {
        for shard in &mut self.lock().snapshot.shards {
            shard.unproven = organisations.iter().map(|name| Self::policy_of(name)).collect();
        }
    }

    pub fn fence_down(&self, down: bool) {
        self.lock().fence_down = down;
    }

    /// What the broker answers instead of keys.
    pub fn broker_answers(&self, error: Option<SourceError>) {
        self.lock().broker = error;
    }

    pub fn proofs_answer(&self, result: ProofResult) {
        self.lock().proof = result;
    }

    pub fn lifetimes(&self, key: i64, proof: i64) {
        let mut cloud = self.lock();
        cloud.lifetime = key;
        cloud.proof_lifetime = proof;
    }

    /// Requests wait, after the broker has looked at its gate, until the semaphore lets them go.
    pub fn hold(&self, hold: Option<Arc<tokio::sync::Semaphore>>) {
        self.lock().hold = hold;
    }

    /// The raw data keys of an instance, oldest first, for scans of memory.
    #[must_use]
    pub fn raw_keys(&self, name: &InstanceName) -> Vec<(Uuid, [u8; 32])> {
        self.lock()
            .keys
            .get(name)
            .map(|keys| keys.iter().map(|held| (held.id, held.key)).collect())
            .unwrap_or_default()
    }

    /// Gives an instance a data key of the test's choice, as its current one.
    pub fn give(&self, name: &InstanceName, id: Uuid, generation: u32, key: [u8; 32]) {
        let held = Held { id, generation, key, created_at: self.clock.now().wall };
        self.lock().keys.entry(name.clone()).or_default().push(held);
    }
}

/// A data key as the cloud has it.
#[derive(Clone, Copy)]
struct Held {
    id: Uuid,
    generation: u32,
    key: [u8; 32],
    created_at: i64,
}

impl Held {
    fn fresh(generation: u32, created_at: i64) -> Self {
        let mut key = [0; 32];
        // Without randomness the tests fail elsewhere.
        let _ = aws_lc_rs::rand::fill(&mut key);
        Self { id: Uuid::now_v7(), generation, key, created_at }
    }
}

#[async_trait]
impl FenceReader for Arc<TestCloud> {
    async fn read(&self) -> Result<FenceSnapshot, FenceError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let (down, snapshot) = {
            let cloud = self.lock();
            (cloud.fence_down, cloud.snapshot.clone())
        };
        self.clock.advance(self.read_takes.load(Ordering::SeqCst));
        if down { Err(FenceError("the fence is down".into())) } else { Ok(snapshot) }
    }
}

#[async_trait]
impl KeySource for Arc<TestCloud> {
    async fn fetch(&self, instance: &InstanceName, wanted: Wanted) -> Result<DataKey, SourceError> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        let (answer, hold) = {
            let mut cloud = self.lock();
            (answer(&mut cloud, &self.clock, instance, wanted), cloud.hold.clone())
        };
        match hold {
            Some(hold) => {
                let _go = hold.acquire().await;
            }
            None => tokio::task::yield_now().await,
        }
        answer
    }

    async fn prove(&self, policies: &[String]) -> Result<Vec<Proof>, SourceError> {
        self.proofs.fetch_add(1, Ordering::SeqCst);
        let cloud = self.lock();
        if let Some(error) = &cloud.broker {
            return Err(error.clone());
        }
        let proven_until = self.clock.now().wall + cloud.proof_lifetime;
        Ok(policies
            .iter()
            .map(|id| Proof { policy_id: id.clone(), result: cloud.proof, proven_until, kms_calls: 2 })
            .collect())
    }
}

fn answer(
    cloud: &mut Cloud,
    clock: &FakeClock,
    instance: &InstanceName,
    wanted: Wanted,
) -> Result<DataKey, SourceError> {
    if let Some(error) = &cloud.broker {
        return Err(error.clone());
    }
    let policy_id = TestCloud::policy_of(&instance.organisation);
    if cloud.snapshot.policies.iter().any(|item| item.policy_id == policy_id && item.closed) {
        return Err(SourceError::Suspended);
    }
    let (generation, now) = (cloud.generation, clock.now().wall);
    let keys = cloud.keys.entry(instance.clone()).or_default();
    let index = match wanted {
        Wanted::Current { newer_than } => {
            cloud.asked.extend(newer_than);
            if keys.last().is_none_or(|held| held.generation < generation) {
                keys.push(Held::fresh(generation, now));
            }
            keys.len() - 1
        }
        Wanted::DataKey(wanted) => {
            keys.iter().position(|held| held.id == wanted).ok_or(SourceError::NotFound)?
        }
    };
    let current = index + 1 == keys.len();
    let held = keys.get(index).copied().ok_or(SourceError::NotFound)?;
    Ok(DataKey {
        policy_id,
        organisation_id: format!("id-{}", instance.organisation),
        instance_id: format!("id-{}-{}-{}", instance.organisation, instance.site, instance.app),
        shard: 0,
        epoch: cloud.epochs.get(&instance.organisation).copied().unwrap_or(1),
        generation: held.generation,
        data_key_id: held.id,
        version: u32::try_from(index).unwrap_or(u32::MAX) + 1,
        current,
        key: KeyBytes::fill_with(|out| {
            out.copy_from_slice(&held.key);
            Ok::<_, SourceError>(())
        })?,
        not_after: now + cloud.lifetime,
        proven_until: now + cloud.proof_lifetime,
        created_at: Some(held.created_at),
        kms_calls: 1,
    })
}
