//! The process's one client: lease, fence, cache, single flight, proofs.

use crate::clock::{Clock, FakeClock, Now};
use crate::error::{EnvelopeError, Unavailable};
use crate::fence::{FenceReader, Policies, PolicyState};
use crate::instance::Instance;
use crate::lease::Lease;
use crate::lock::Lock;
use crate::metrics::{Counters, Metrics};
use crate::secret::Vault;
use crate::source::{DataKey, InstanceName, KeySource, ProofResult, SourceError, Wanted};
use crate::store::{InstanceState, KeyEntry, Store, Unusable};
use crate::times::{Lifetime, REFRESH};
use crate::{random, thread};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::OnceCell;

/// Every number of the library. The defaults are the published ones.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long a read of the fence entitles this process to use keys, from before it was sent.
    pub lease: Duration,
    /// How often the fence is read, with a fifth of jitter either way.
    pub poll: Duration,
    /// A process that has not read the fence for this long wipes everything: the fence forgets after it.
    pub horizon: Duration,
    /// The longest a key stays, whatever the broker says.
    pub key_lifetime: Duration,
    /// The longest a proof counts, whatever the broker says.
    pub proof_lifetime: Duration,
    /// How long `suspended` and `not found` are answered without asking again.
    pub negative: Duration,
    /// How long proofs are gathered into one call; each process waits a random part of it.
    pub proof_window: Duration,
    /// The most policies of one call for proofs.
    pub proof_batch: usize,
    /// Beyond this age of a data-key version a newer one is asked for, with every refresh. There is no hard limit of
    /// age: while none is made, the old one lives on.
    pub soft_age: Duration,
    /// Beyond this many uses (records written and read) in this process a newer version is asked for too.
    pub soft_uses: u64,
    /// Beyond this many uses in this process a version is not written with, and no earlier than its next refresh: while
    /// there is no newer one, writes are [`Unavailable::WornOut`]. What it wrote is read as ever.
    pub hard_uses: u64,
    /// The function's timeout, where there is one: lets the first invocation after a snapshot count as time.
    pub invocation_timeout: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            poll: Duration::from_secs(5),
            horizon: Duration::from_secs(3600),
            key_lifetime: Duration::from_secs(300),
            proof_lifetime: Duration::from_secs(60),
            negative: Duration::from_secs(1),
            proof_window: Duration::from_millis(20),
            proof_batch: 100,
            soft_age: Duration::from_secs(30 * 24 * 3600),
            soft_uses: 1 << 36,
            hard_uses: 1 << 40,
            invocation_timeout: None,
        }
    }
}

/// What an app is told so that it drops what it keeps in the clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    pub cause: CloseCause,
    /// The policy; `None` where everything was wiped.
    pub policy_id: Option<String>,
    pub organisation_id: Option<String>,
    /// The instances that this process has met.
    pub instances: Vec<InstanceName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCause {
    /// Seen on the fence.
    Fence,
    /// The fence was not read for longer than the horizon.
    Horizon,
}

type OnClose = Box<dyn Fn(&Closed) + Send + Sync>;

/// The library's entry. Clones share everything.
#[derive(Clone)]
pub struct Envelope {
    pub(crate) inner: Arc<Inner>,
}

/// See [`Envelope::builder`].
#[derive(Default)]
pub struct Builder {
    fence: Option<Arc<dyn FenceReader>>,
    keys: Option<Arc<dyn KeySource>>,
    config: Config,
    clock: Option<Arc<FakeClock>>,
    on_close: Vec<OnClose>,
    manual: bool,
}

/// The builder was not told where the fence or the keys are.
#[derive(Debug, thiserror::Error)]
#[error("the builder lacks `{what}`")]
pub struct BuildError {
    what: &'static str,
}

impl Builder {
    #[must_use]
    pub fn fence(mut self, fence: impl FenceReader) -> Self {
        self.fence = Some(Arc::new(fence));
        self
    }

    #[must_use]
    pub fn keys(mut self, keys: impl KeySource) -> Self {
        self.keys = Some(Arc::new(keys));
        self
    }

    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Runs after the keys of a closed policy were wiped. It must not block.
    #[must_use]
    pub fn on_close(mut self, f: impl Fn(&Closed) + Send + Sync + 'static) -> Self {
        self.on_close.push(Box::new(f));
        self
    }

    /// Replaces both clocks; for tests.
    #[must_use]
    pub fn clock(mut self, clock: Arc<FakeClock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Reads the fence only when asked to ([`Envelope::poll`]) or when an asynchronous call finds no lease.
    #[must_use]
    pub const fn manual(mut self) -> Self {
        self.manual = true;
        self
    }

    /// Starts the process's client. Within a tokio runtime it polls the fence in the background from now on;
    /// the first asynchronous call waits for the first read.
    ///
    /// # Errors
    /// If the fence or the source of keys is missing.
    pub fn start(self) -> Result<Envelope, BuildError> {
        static CLIENTS: AtomicU64 = AtomicU64::new(1);
        let inner = Arc::new(Inner {
            number: CLIENTS.fetch_add(1, Ordering::Relaxed),
            clock: self.clock.map_or(Clock::System, Clock::Fake),
            config: self.config,
            lease: Lease::new(),
            policies: Policies::default(),
            store: Store::default(),
            vault: Arc::default(),
            counters: Arc::default(),
            fence: self.fence.ok_or(BuildError { what: "fence" })?,
            source: self.keys.ok_or(BuildError { what: "keys" })?,
            flights: Lock::default(),
            negatives: Lock::default(),
            polling: tokio::sync::Mutex::new(()),
            poll_failed_at: AtomicI64::new(i64::MIN),
            offset: AtomicI64::new(i64::MIN),
            swept_epoch: AtomicU64::new(0),
            proofs: Lock::default(),
            no_proofs: Lock::default(),
            on_close: self.on_close,
            runtime: tokio::runtime::Handle::try_current().ok(),
        });
        if !self.manual
            && let Some(runtime) = &inner.runtime
        {
            let weak = Arc::downgrade(&inner);
            runtime.spawn(async move {
                while let Some(inner) = weak.upgrade() {
                    let _ = inner.poll().await;
                    let pause = inner.config.poll.mul_f64(jitter(0.8, 1.2));
                    drop(inner);
                    tokio::time::sleep(pause).await;
                }
            });
        }
        Ok(Envelope { inner })
    }
}

impl Envelope {
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The handle with which one app instance's records are encrypted. Cheap; keep it or ask again.
    #[must_use]
    pub fn instance(&self, organisation: &str, site: &str, app: &str) -> Instance {
        static INSTANCES: AtomicU64 = AtomicU64::new(1);
        let name = InstanceName { organisation: organisation.into(), site: site.into(), app: app.into() };
        let state = self.inner.store.instance(name, || INSTANCES.fetch_add(1, Ordering::Relaxed));
        Instance::new(self.inner.clone(), state)
    }

    /// Reads the fence once, now.
    ///
    /// # Errors
    /// `TemporarilyUnavailable` if it could not be read.
    pub async fn poll(&self) -> Result<(), EnvelopeError> {
        self.inner.poll().await
    }

    /// Reads the fence if this process holds no fresh lease. Call it at the start of an invocation after
    /// [`Self::observe_invocation_deadline`], so that the first use need not wait.
    ///
    /// # Errors
    /// `TemporarilyUnavailable` if it could not be read.
    pub async fn ensure_lease(&self) -> Result<(), EnvelopeError> {
        self.inner.ensure_lease().await
    }

    /// Tells the library the deadline of the invocation that begins, in Unix milliseconds. A sandbox that was
    /// frozen may find both of its clocks unmoved; the service's own time is the third.
    pub fn observe_invocation_deadline(&self, deadline_millis: i64) {
        let inner = &self.inner;
        let timeout = inner.config.invocation_timeout.map(millis);
        let seen = inner.lease.observe_deadline(deadline_millis, timeout, inner.clock.now());
        if seen.first || seen.missed > 0 {
            random::reseed_all();
        }
    }

    /// Throws away all pooled randomness. Call it after a restore from a snapshot that no clock can show; after
    /// a fork, a jump of a clock and at the first invocation the library does so by itself.
    pub fn reseed(&self) {
        random::reseed_all();
    }

    /// Ends the lease and every cached key of this process at once.
    pub fn revoke(&self) {
        self.inner.lease.revoke();
        self.inner.wipe(|_| true);
    }

    /// Whether keys may be used at this moment.
    #[must_use]
    pub fn lease_fresh(&self) -> bool {
        self.inner.lease.fresh(self.inner.clock.now())
    }

    #[must_use]
    pub fn metrics(&self) -> Metrics {
        thread::flush_all();
        let now = self.inner.clock.now();
        Metrics {
            lease_age_millis: self.inner.lease.age(now),
            lease_fresh: self.inner.lease.fresh(now),
            cached_keys: self.inner.store.keys(),
            ..self.inner.counters.snapshot()
        }
    }
}

type FlightKey = (u64, Wanted);
type Flight = Arc<OnceCell<Result<Arc<KeyEntry>, EnvelopeError>>>;

pub(crate) struct Inner {
    pub(crate) number: u64,
    pub(crate) clock: Clock,
    pub(crate) config: Config,
    pub(crate) lease: Lease,
    policies: Policies,
    pub(crate) store: Store,
    vault: Arc<Vault>,
    pub(crate) counters: Arc<Counters>,
    fence: Arc<dyn FenceReader>,
    source: Arc<dyn KeySource>,
    flights: Lock<HashMap<FlightKey, Flight>>,
    /// Short-lived: (error, boot time until which it is repeated).
    negatives: Lock<HashMap<FlightKey, (EnvelopeError, i64)>>,
    polling: tokio::sync::Mutex<()>,
    poll_failed_at: AtomicI64,
    /// `wall - boot` at the last poll; a jump means a thaw, a snapshot or a clock step.
    offset: AtomicI64,
    /// The lease's epoch when expired keys were dropped last.
    swept_epoch: AtomicU64,
    proofs: Lock<Option<Arc<ProofBatch>>>,
    /// Policies for which no proof could be had, and the boot time until which that is repeated.
    no_proofs: Lock<HashMap<String, (EnvelopeError, i64)>>,
    on_close: Vec<OnClose>,
    runtime: Option<tokio::runtime::Handle>,
}

#[derive(Default)]
struct ProofBatch {
    policies: Lock<BTreeSet<String>>,
    done: OnceCell<HashMap<String, ProofResult>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.wipe(|_| true);
    }
}

impl Inner {
    /// INVARIANT (I1): what the snapshot closes is wiped before the lease is extended, and the lease counts from
    /// before the read was sent.
    pub(crate) async fn poll(&self) -> Result<(), EnvelopeError> {
        let _one = self.polling.lock().await;
        self.poll_locked().await
    }

    async fn poll_locked(&self) -> Result<(), EnvelopeError> {
        let sent = self.clock.now();
        let jumped = self.notice_jump(sent);
        if self.lease.age(sent).is_some_and(|age| age > millis(self.config.horizon)) {
            self.wipe_everything();
        }
        // Pinned here and not within the expression: putting the timer away can wait until after the close.
        let mut reading = std::pin::pin!(tokio::time::timeout(self.config.lease, self.fence.read()));
        let snapshot = match reading.as_mut().await {
            Ok(Ok(snapshot)) => snapshot,
            Ok(Err(error)) => {
                tracing::warn!(error = %error.0, "the fence could not be read");
                return Err(self.poll_failed(sent));
            }
            Err(_) => {
                tracing::warn!("the fence could not be read within one lease");
                return Err(self.poll_failed(sent));
            }
        };
        let to_wipe = self.policies.apply(snapshot);
        Counters::add(&self.counters.polls, 1);
        for policy in to_wipe {
            self.close(&policy);
        }
        self.drop_expired(jumped);
        self.lease.grant(sent, millis(self.config.lease));
        self.poll_failed_at.store(i64::MIN, Ordering::Release);
        Ok(())
    }

    fn poll_failed(&self, sent: Now) -> EnvelopeError {
        Counters::add(&self.counters.polls, 1);
        Counters::add(&self.counters.poll_failures, 1);
        self.poll_failed_at.store(sent.boot, Ordering::Release);
        EnvelopeError::unavailable(Unavailable::Lease)
    }

    fn notice_jump(&self, now: Now) -> bool {
        let offset = now.wall.wrapping_sub(now.boot);
        let before = self.offset.swap(offset, Ordering::AcqRel);
        let jumped = before != i64::MIN && offset.abs_diff(before) > 1_000;
        if jumped {
            random::reseed_all();
        }
        jumped
    }

    pub(crate) async fn ensure_lease(&self) -> Result<(), EnvelopeError> {
        if self.lease.fresh(self.clock.now()) {
            return Ok(());
        }
        let _one = self.polling.lock().await;
        let now = self.clock.now();
        if self.lease.fresh(now) {
            return Ok(());
        }
        // While the fence cannot be read, requests must not each wait for their own failure.
        let failed = self.poll_failed_at.load(Ordering::Acquire);
        if failed != i64::MIN && now.boot.saturating_sub(failed) < millis(self.config.poll) / 4 {
            return Err(EnvelopeError::unavailable(Unavailable::Lease));
        }
        self.poll_locked().await?;
        if self.lease.fresh(self.clock.now()) {
            return Ok(());
        }
        Err(EnvelopeError::unavailable(Unavailable::Lease))
    }

    fn close(&self, policy: &Arc<PolicyState>) {
        let wiped = self.wipe(|entry| Arc::ptr_eq(&entry.policy, policy) && entry.cut_off());
        if wiped == 0 && !policy.closed() {
            return;
        }
        Counters::add(&self.counters.closes, 1);
        tracing::info!(policy.id = &*policy.id, keys = wiped, "policy closed, its keys are wiped");
        if self.on_close.is_empty() {
            return;
        }
        self.tell(&Closed {
            cause: CloseCause::Fence,
            policy_id: Some(policy.id.to_string()),
            organisation_id: Some(policy.organisation_id.to_string()),
            instances: self.store.of_policy(policy),
        });
    }

    fn wipe_everything(&self) {
        self.lease.revoke();
        let wiped = self.wipe(|_| true);
        tracing::warn!(
            keys = wiped,
            "the fence was not read for longer than the horizon, all keys are wiped"
        );
        self.tell(&Closed {
            cause: CloseCause::Horizon,
            policy_id: None,
            organisation_id: None,
            instances: self.store.all_instances(),
        });
    }

    fn tell(&self, closed: &Closed) {
        for callback in &self.on_close {
            callback(closed);
        }
    }

    /// Each key is looked at when its time since boot is over. Where the wall clock has jumped, or a lease was revoked, all
    /// are.
    fn drop_expired(&self, jumped: bool) {
        let now = self.clock.now();
        let epoch = self.lease.epoch();
        let gone = |entry: &KeyEntry| entry.times.expired(now) || entry.lease_epoch != epoch;
        if self.swept_epoch.swap(epoch, Ordering::AcqRel) != epoch || jumped {
            self.wipe(gone);
        } else {
            self.wiped(&self.store.wipe_expired(now), gone);
        }
        self.negatives.lock().retain(|_, (_, until)| now.boot < *until);
        self.no_proofs.lock().retain(|_, (_, until)| now.boot < *until);
    }

    /// Wipes raw keys and every thread's prepared copies, and returns how many keys went.
    fn wipe(&self, gone: impl Fn(&KeyEntry) -> bool) -> usize {
        let taken = self.store.wipe(&gone);
        self.wiped(&taken, gone);
        taken.len()
    }

    /// The threads' prepared copies of keys that were taken out of the store go too.
    fn wiped(&self, taken: &[Arc<KeyEntry>], gone: impl Fn(&KeyEntry) -> bool) {
        if !taken.is_empty() {
            thread::purge_all(|entry| entry.client == self.number && (entry.gone() || gone(entry)));
            Counters::add(&self.counters.keys_wiped, taken.len() as u64);
        }
    }

    /// Returns a key that may be used now, fetching or proving it if need be.
    pub(crate) async fn ready(
        &self,
        instance: &InstanceState,
        wanted: Wanted,
    ) -> Result<Arc<KeyEntry>, EnvelopeError> {
        let mut last = EnvelopeError::unavailable(Unavailable::Overtaken);
        for _ in 0..3 {
            self.ensure_lease().await?;
            let now = self.clock.now();
            let mut newer_than = None;
            let cached = match wanted {
                Wanted::Current { .. } => {
                    self.store.writer(instance.number).filter(|entry| !entry.superseded())
                }
                Wanted::DataKey(id) => self.store.reader(instance.number, id),
            };
            if let Some(entry) = cached {
                match entry.usable(self.lease.epoch(), now) {
                    Ok(()) => match (wanted, entry.policy.may_write(entry.generation)) {
                        (Wanted::Current { .. }, Err(error)) => {
                            last = error;
                            newer_than = Some(entry.version);
                        }
                        _ => return Ok(entry),
                    },
                    Err(Unusable::Refused(EnvelopeError::Suspended)) => return Err(EnvelopeError::Suspended),
                    Err(Unusable::Refused(EnvelopeError::TemporarilyUnavailable {
                        reason: Unavailable::Unproven,
                    })) => {
                        self.prove(&entry.policy).await?;
                        match entry.usable(self.lease.epoch(), self.clock.now()) {
                            Ok(()) => continue,
                            Err(Unusable::Refused(error)) => return Err(error),
                            Err(Unusable::Gone) => {}
                        }
                    }
                    Err(Unusable::Gone | Unusable::Refused(_)) => {}
                }
            } else if self.store.closed(instance.number) {
                return Err(EnvelopeError::Suspended);
            }
            let wanted = match wanted {
                Wanted::Current { newer_than: None } => Wanted::Current { newer_than },
                other => other,
            };
            match self.fetch_once(instance, wanted).await {
                Ok(entry) => {
                    if matches!(wanted, Wanted::Current { .. }) {
                        entry.policy.may_write(entry.generation)?;
                    }
                    match entry.usable(self.lease.epoch(), self.clock.now()) {
                        Ok(()) => return Ok(entry),
                        Err(Unusable::Refused(EnvelopeError::Suspended)) => {
                            return Err(EnvelopeError::Suspended);
                        }
                        Err(Unusable::Refused(error)) => last = error,
                        Err(Unusable::Gone) => {}
                    }
                }
                Err(error @ EnvelopeError::TemporarilyUnavailable { reason: Unavailable::Overtaken }) => {
                    last = error
                }
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Single flight: however many ask, one request is sent.
    async fn fetch_once(
        &self,
        instance: &InstanceState,
        wanted: Wanted,
    ) -> Result<Arc<KeyEntry>, EnvelopeError> {
        let wanted = match wanted {
            Wanted::Current { newer_than } => {
                Wanted::Current { newer_than: newer_than.max(instance.outgrown()) }
            }
            Wanted::DataKey(_) => wanted,
        };
        let key = (instance.number, wanted);
        let now = self.clock.now();
        if let Some((error, until)) = self.negatives.lock().get(&key)
            && now.boot < *until
        {
            return Err(error.clone());
        }
        let flight: Flight = {
            let mut flights = self.flights.lock();
            flights.entry(key).or_default().clone()
        };
        let result = flight.get_or_init(|| self.fetch(instance, wanted)).await.clone();
        let mut flights = self.flights.lock();
        if flights.get(&key).is_some_and(|current| Arc::ptr_eq(current, &flight)) {
            flights.remove(&key);
        }
        result
    }

    async fn fetch(&self, instance: &InstanceState, wanted: Wanted) -> Result<Arc<KeyEntry>, EnvelopeError> {
        let began = self.clock.now();
        let lease_epoch = self.lease.epoch();
        let closes = self.policies.closes();
        Counters::add(&self.counters.broker_calls, 1);
        let fetched = self.source.fetch(&instance.name, wanted).await;
        let result = match fetched {
            Ok(key) => self.admit(instance, wanted, &key, began, lease_epoch, closes),
            Err(SourceError::Suspended) => Err(EnvelopeError::Suspended),
            Err(SourceError::NotFound) => Err(match wanted {
                Wanted::Current { .. } => EnvelopeError::NotEntitled,
                Wanted::DataKey(_) => EnvelopeError::UnknownDataKey,
            }),
            Err(SourceError::TemporarilyUnavailable) => {
                Err(EnvelopeError::unavailable(Unavailable::KeyStore))
            }
            Err(SourceError::Unreachable(why)) => {
                tracing::warn!(error = %why, "the key broker did not answer");
                Err(EnvelopeError::unavailable(Unavailable::Broker))
            }
        };
        if let Err(error) = &result {
            let stays = match error {
                EnvelopeError::Suspended
                | EnvelopeError::NotEntitled
                | EnvelopeError::UnknownDataKey
                | EnvelopeError::TemporarilyUnavailable { reason: Unavailable::WornOut } => {
                    millis(self.config.negative)
                }
                EnvelopeError::TemporarilyUnavailable {
                    reason: Unavailable::Broker | Unavailable::KeyStore,
                } => millis(self.config.negative) / 4,
                _ => 0,
            };
            if stays > 0 {
                let until = self.clock.now().boot.saturating_add(stays);
                let mut negatives = self.negatives.lock();
                negatives.insert((instance.number, wanted), (error.clone(), until));
            }
        }
        result
    }

    /// INVARIANT (I1): a key whose fetch began before a close, or under an older lease epoch, is never inserted.
    fn admit(
        &self,
        instance: &InstanceState,
        wanted: Wanted,
        key: &DataKey,
        began: Now,
        lease_epoch: u64,
        closes: u64,
    ) -> Result<Arc<KeyEntry>, EnvelopeError> {
        if let Wanted::DataKey(id) = wanted
            && id != key.data_key_id
        {
            tracing::warn!("the key broker answered with another data key than was asked for");
            return Err(EnvelopeError::unavailable(Unavailable::Broker));
        }
        let policy = self.policies.get_or_insert(&key.policy_id, &key.organisation_id, key.shard);
        let now = self.clock.now();
        let overtaken =
            |policy: &PolicyState| self.lease.epoch() != lease_epoch || policy.closed_since(closes);
        let lifetime = self.lifetime(key, began);
        self.counters.used(&key.organisation_id, 1, key.kms_calls);
        if policy.closed() {
            return Err(EnvelopeError::Suspended);
        }
        if overtaken(&policy) || lifetime.boot <= now.boot {
            return Err(EnvelopeError::unavailable(Unavailable::Overtaken));
        }
        policy.proven(key.proven_until.min(began.wall.saturating_add(millis(self.config.proof_lifetime))));
        let current = matches!(wanted, Wanted::Current { .. }) || key.current;

        if let Some(known) = self.store.reader(instance.number, key.data_key_id)
            && known.lease_epoch == lease_epoch
            && known.policy_epoch == key.epoch
            && known.generation == key.generation
            && !known.gone()
        {
            self.store.extend(&known, lifetime);
            if current {
                self.store.set_writer(&known, now);
            }
            // A sweep may have taken it between the look-up and the extension.
            if !known.gone() {
                return self.answered(instance, wanted, known, now);
            }
        }
        let entry = KeyEntry::new(
            key,
            instance.number,
            self.number,
            lease_epoch,
            now,
            lifetime,
            policy.clone(),
            self.counters.clone(),
            self.vault.clone(),
        )?;
        let entry = Arc::new(entry);
        if let Some(replaced) = self.store.insert(&entry, current, now) {
            replaced.wipe();
            thread::purge_all(|entry| entry.client == self.number && entry.gone());
        }
        // A close that was applied between the check above and the insertion found nothing to wipe.
        if overtaken(&policy) {
            self.wipe(|other| Arc::ptr_eq(&other.policy, &policy) && other.data_key_id == entry.data_key_id);
            return Err(EnvelopeError::unavailable(Unavailable::Overtaken));
        }
        self.answered(instance, wanted, entry, now)
    }

    /// Who asked for the current version gets the one to write with: not one that is worn out, nor one that a faster
    /// answer has superseded.
    fn answered(
        &self,
        instance: &InstanceState,
        wanted: Wanted,
        entry: Arc<KeyEntry>,
        now: Now,
    ) -> Result<Arc<KeyEntry>, EnvelopeError> {
        if let Wanted::DataKey(_) = wanted {
            return Ok(entry);
        }
        instance.grown_to(entry.version);
        self.watch_limits(instance, &entry, now);
        match self.store.writer(instance.number).filter(|writer| !writer.superseded()) {
            Some(writer) => Ok(writer),
            None if entry.superseded() => Err(EnvelopeError::unavailable(Unavailable::WornOut)),
            None => Ok(entry),
        }
    }

    /// Has a newer version asked for from now on, if this one is over a soft limit.
    fn watch_limits(&self, instance: &InstanceState, entry: &KeyEntry, now: Now) {
        let aged = now.wall.saturating_sub(entry.created_at) > millis(self.config.soft_age);
        let used = entry.uses.load(Ordering::Relaxed) > self.config.soft_uses;
        if aged || used {
            instance.outgrow(entry.version);
        }
    }

    fn lifetime(&self, key: &DataKey, began: Now) -> Lifetime {
        let most = millis(self.config.key_lifetime);
        Lifetime::new(began, key.not_after, most, jitter(REFRESH.0, REFRESH.1))
    }

    /// Asks for a key anew in the background; it serves meanwhile. What is written with is asked for as the current
    /// version, whoever noticed: an instance that is read all the time and written now and then would else never hear of
    /// a newer one.
    pub(crate) fn refresh(self: &Arc<Self>, instance: &Arc<InstanceState>, entry: &Arc<KeyEntry>) {
        let Some(runtime) = &self.runtime else { return };
        let (inner, instance, entry) = (self.clone(), instance.clone(), entry.clone());
        runtime.spawn(async move {
            let this = Wanted::DataKey(entry.data_key_id);
            let writes =
                inner.store.writer(instance.number).is_some_and(|writer| Arc::ptr_eq(&writer, &entry));
            let fetched = if writes {
                inner.watch_limits(&instance, &entry, inner.clock.now());
                let current = inner.fetch_once(&instance, Wanted::Current { newer_than: None }).await;
                match current {
                    // Records of this one are still read.
                    Ok(current) if !Arc::ptr_eq(&current, &entry) => inner.fetch_once(&instance, this).await,
                    Err(EnvelopeError::TemporarilyUnavailable { reason: Unavailable::WornOut }) => {
                        inner.fetch_once(&instance, this).await
                    }
                    other => other,
                }
            } else {
                inner.fetch_once(&instance, this).await
            };
            if let Err(error) = fetched {
                tracing::debug!(error = %error, "a key could not be refreshed yet");
                let pause = millis(inner.config.key_lifetime) / 30;
                entry.times.refresh_later(inner.clock.now().boot.saturating_add(pause));
            }
        });
    }

    /// One fresh proof for a policy, gathered with those of others into one call.
    async fn prove(&self, policy: &Arc<PolicyState>) -> Result<(), EnvelopeError> {
        let id = policy.id.to_string();
        let now = self.clock.now();
        if let Some((error, until)) = self.no_proofs.lock().get(&id)
            && now.boot < *until
        {
            return Err(error.clone());
        }
        let batch = {
            let mut open = self.proofs.lock();
            let batch = open.get_or_insert_default();
            batch.policies.lock().insert(id.clone());
            batch.clone()
        };
        let results = batch.done.get_or_init(|| self.prove_batch(&batch)).await;
        let error = match results.get(&id) {
            Some(ProofResult::Proven) => return Ok(()),
            Some(ProofResult::Suspended) => EnvelopeError::Suspended,
            Some(ProofResult::Unavailable) | None => EnvelopeError::unavailable(Unavailable::Unproven),
        };
        // An outage must not make every request ask anew (I3).
        let until = self.clock.now().boot.saturating_add(millis(self.config.negative));
        self.no_proofs.lock().insert(id, (error.clone(), until));
        Err(error)
    }

    async fn prove_batch(&self, batch: &Arc<ProofBatch>) -> HashMap<String, ProofResult> {
        tokio::time::sleep(self.config.proof_window.mul_f64(jitter(0.0, 1.0))).await;
        let policies: Vec<String> = {
            let mut open = self.proofs.lock();
            if open.as_ref().is_some_and(|current| Arc::ptr_eq(current, batch)) {
                *open = None;
            }
            let policies = batch.policies.lock();
            policies.iter().cloned().collect()
        };
        let mut results = HashMap::new();
        for chunk in policies.chunks(self.config.proof_batch.max(1)) {
            let began = self.clock.now();
            let (epoch, closes) = (self.lease.epoch(), self.policies.closes());
            Counters::add(&self.counters.proof_calls, 1);
            match self.source.prove(chunk).await {
                Ok(proofs) => {
                    for proof in proofs {
                        let policy = self.policies.get(&proof.policy_id);
                        if let Some(policy) = &policy {
                            self.counters.used(&policy.organisation_id, 0, proof.kms_calls);
                        }
                        if let Some(policy) = policy
                            && proof.result == ProofResult::Proven
                            && self.lease.epoch() == epoch
                            && !policy.closed_since(closes)
                        {
                            let most = began.wall.saturating_add(millis(self.config.proof_lifetime));
                            policy.proven(proof.proven_until.min(most));
                        }
                        results.insert(proof.policy_id, proof.result);
                    }
                }
                Err(error) => tracing::warn!(error = %error, "the key broker gave no proofs"),
            }
        }
        results
    }
}

pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A random factor; not secret.
fn jitter(low: f64, high: f64) -> f64 {
    let mut bytes = [0; 4];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        return low;
    }
    low + (high - low) * f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}
