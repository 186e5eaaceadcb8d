//! The process's data keys: one entry each, found by instance for writing and by data-key id for reading.

use crate::clock::Now;
use crate::error::EnvelopeError;
use crate::fence::PolicyState;
use crate::format::aad_of_key;
use crate::lock::Lock;
use crate::metrics::Counters;
use crate::secret::{KEY_LEN, Vault, VaultSlot};
use crate::source::InstanceName;
use crate::times::{Lifetime, Times};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use uuid::Uuid;

/// One data key in one process. Its raw bytes lie in the vault; whoever wants them asks here.
pub(crate) struct KeyEntry {
    pub(crate) data_key_id: Uuid,
    pub(crate) instance_number: u64,
    pub(crate) client: u64,
    pub(crate) policy_epoch: u64,
    pub(crate) lease_epoch: u64,
    pub(crate) generation: u32,
    pub(crate) version: u32,
    /// When this version was made, as far as the broker says so.
    pub(crate) created_at: i64,
    /// When this process was given it.
    pub(crate) given_at: i64,
    pub(crate) policy: Arc<PolicyState>,
    /// How the associated data of its records begins.
    pub(crate) aad: Box<[u8]>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) uses: AtomicU64,
    pub(crate) times: Times,
    /// The slot in which it is looked at, and no other.
    due: AtomicI64,
    gone: AtomicBool,
    /// No longer to be written with: a newer version is current, or the hard limit of uses was reached.
    superseded: AtomicBool,
    vault: Arc<Vault>,
    slot: Lock<Option<VaultSlot>>,
}

impl KeyEntry {
    #[expect(clippy::too_many_arguments, reason = "one caller, and a builder would only repeat the names")]
    pub(crate) fn new(
        key: &crate::source::DataKey,
        instance_number: u64,
        client: u64,
        lease_epoch: u64,
        now: Now,
        lifetime: Lifetime,
        policy: Arc<PolicyState>,
        counters: Arc<Counters>,
        vault: Arc<Vault>,
    ) -> Result<Self, EnvelopeError> {
        let aad = aad_of_key(key.data_key_id, key.generation, &key.organisation_id, &key.instance_id)?;
        let slot = vault.put(&key.key).ok_or(EnvelopeError::Internal { what: "the vault is full" })?;
        Ok(Self {
            data_key_id: key.data_key_id,
            instance_number,
            client,
            policy_epoch: key.epoch,
            lease_epoch,
            generation: key.generation,
            version: key.version,
            created_at: key.created_at.unwrap_or(now.wall),
            given_at: now.wall,
            policy,
            aad,
            counters,
            uses: AtomicU64::new(0),
            times: Times::new(lifetime),
            due: AtomicI64::new(0),
            gone: AtomicBool::new(false),
            superseded: AtomicBool::new(false),
            vault,
            slot: Lock::new(Some(slot)),
        })
    }

    /// Everything but the lease: alive, of this epoch, not past its time, its policy open and watched or proven.
    ///
    /// A closed policy says so at once, whatever became of the key: who is cut off must not wait for the wiping.
    #[inline]
    pub(crate) fn usable(&self, lease_epoch: u64, now: Now) -> Result<(), Unusable> {
        if self.policy.closed() {
            return Err(Unusable::Refused(EnvelopeError::Suspended));
        }
        if self.gone.load(Ordering::Acquire) || self.lease_epoch != lease_epoch || self.times.expired(now) {
            return Err(Unusable::Gone);
        }
        self.policy.usable(self.policy_epoch, now).map_err(Unusable::Refused)
    }

    pub(crate) fn gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn superseded(&self) -> bool {
        self.superseded.load(Ordering::Acquire)
    }

    pub(crate) fn supersede(&self) {
        self.superseded.store(true, Ordering::Release);
    }

    /// Whether it may be used as long as another one may.
    fn stands_beside(&self, other: &Self, now: Now) -> bool {
        !self.gone()
            && !self.times.expired(now)
            && self.lease_epoch == other.lease_epoch
            && self.policy_epoch == other.policy_epoch
    }

    /// Closed, or of an epoch before the policy's: never usable again.
    pub(crate) fn cut_off(&self) -> bool {
        self.policy.closed() || self.policy_epoch < self.policy.epoch()
    }

    pub(crate) fn with_key<R>(&self, f: impl FnOnce(&[u8; KEY_LEN]) -> R) -> Option<R> {
        let slot = self.slot.lock();
        self.vault.with(slot.as_ref()?, f)
    }

    /// Nobody may use it from now on.
    fn end(&self) {
        self.gone.store(true, Ordering::Release);
    }

    /// Wipes the raw key. The threads' prepared copies go with [`crate::thread::purge_all`].
    pub(crate) fn wipe(&self) {
        self.end();
        let slot = self.slot.lock().take();
        if let Some(slot) = slot {
            self.vault.wipe(slot);
        }
    }
}

/// Wipes what was taken out.
fn wiped(taken: Vec<Arc<KeyEntry>>) -> Vec<Arc<KeyEntry>> {
    for entry in &taken {
        entry.wipe();
    }
    taken
}

impl Drop for KeyEntry {
    fn drop(&mut self) {
        self.wipe();
    }
}

impl Unusable {
    pub(crate) fn into_error(self) -> EnvelopeError {
        match self {
            Self::Gone => EnvelopeError::NotCached,
            Self::Refused(error) => error,
        }
    }
}

pub(crate) enum Unusable {
    /// Ask for the key (anew).
    Gone,
    /// The policy says no, or wants a proof.
    Refused(EnvelopeError),
}

/// An app instance as this process knows it.
pub(crate) struct InstanceState {
    pub(crate) name: Arc<InstanceName>,
    pub(crate) number: u64,
    /// The version that is over a limit, until a newer one is known; 0: none is.
    outgrown: AtomicU32,
}

impl InstanceState {
    /// A newer version than this one is to be asked for from now on.
    pub(crate) fn outgrow(&self, version: u32) {
        self.outgrown.fetch_max(version, Ordering::AcqRel);
    }

    /// This version is current.
    pub(crate) fn grown_to(&self, version: u32) {
        let outgrown = |known: u32| (known < version).then_some(0);
        let _ = self.outgrown.fetch_update(Ordering::AcqRel, Ordering::Acquire, outgrown);
    }

    pub(crate) fn outgrown(&self) -> Option<u32> {
        Some(self.outgrown.load(Ordering::Acquire)).filter(|version| *version > 0)
    }
}

#[derive(Default)]
pub(crate) struct Store {
    inner: Lock<StoreInner>,
}

#[derive(Default)]
struct StoreInner {
    instances: HashMap<Arc<InstanceName>, Arc<InstanceState>>,
    /// The policy of each instance, also of those that have no key now.
    policies: HashMap<u64, Arc<PolicyState>>,
    writers: HashMap<u64, Arc<KeyEntry>>,
    readers: HashMap<(u64, Uuid), Arc<KeyEntry>>,
    /// Each key at the time since boot, in slots, from which on it may be expired. What is gone is passed over.
    due: BTreeMap<i64, Vec<Weak<KeyEntry>>>,
}

/// Keys that expire within 4 s of one another lie together.
const SLOT_BITS: u32 = 12;

const fn slot_of(boot: i64) -> i64 {
    boot >> SLOT_BITS
}

impl StoreInner {
    /// Has this key looked at when it expires, as far as is known now.
    fn look_later(&mut self, entry: &Arc<KeyEntry>) {
        let slot = slot_of(entry.times.ends_at_boot());
        entry.due.store(slot, Ordering::Relaxed);
        self.due.entry(slot).or_default().push(Arc::downgrade(entry));
    }

    /// Nobody finds it from now on, and who has it may not use it.
    fn take_out(&mut self, entry: &Arc<KeyEntry>) {
        let (instance, key) = (entry.instance_number, (entry.instance_number, entry.data_key_id));
        entry.end();
        if self.readers.get(&key).is_some_and(|reader| Arc::ptr_eq(reader, entry)) {
            self.readers.remove(&key);
        }
        if self.writers.get(&instance).is_some_and(|writer| Arc::ptr_eq(writer, entry)) {
            self.writers.remove(&instance);
        }
    }

    fn make_writer(&mut self, entry: &Arc<KeyEntry>, now: Now) {
        if let Some(before) = self.writers.get(&entry.instance_number)
            && !Arc::ptr_eq(before, entry)
        {
            // An answer that was under way when a newer version came.
            if before.version > entry.version && before.stands_beside(entry, now) {
                entry.supersede();
                return;
            }
            before.supersede();
        }
        self.writers.insert(entry.instance_number, entry.clone());
    }
}

impl Store {
    pub(crate) fn instance(&self, name: InstanceName, number: impl FnOnce() -> u64) -> Arc<InstanceState> {
        let mut inner = self.inner.lock();
        if let Some(instance) = inner.instances.get(&name) {
            return instance.clone();
        }
        let name = Arc::new(name);
        let instance =
            Arc::new(InstanceState { name: name.clone(), number: number(), outgrown: AtomicU32::new(0) });
        inner.instances.insert(name, instance.clone());
        instance
    }

    pub(crate) fn writer(&self, instance: u64) -> Option<Arc<KeyEntry>> {
        self.inner.lock().writers.get(&instance).cloned()
    }

    pub(crate) fn reader(&self, instance: u64, id: Uuid) -> Option<Arc<KeyEntry>> {
        self.inner.lock().readers.get(&(instance, id)).cloned()
    }

    /// Whether an instance that this process has met is cut off.
    pub(crate) fn closed(&self, instance: u64) -> bool {
        self.inner.lock().policies.get(&instance).is_some_and(|policy| policy.closed())
    }

    /// Adds a key and gives back the one that it replaces, which the caller wipes.
    pub(crate) fn insert(&self, entry: &Arc<KeyEntry>, current: bool, now: Now) -> Option<Arc<KeyEntry>> {
        let mut inner = self.inner.lock();
        let number = entry.instance_number;
        inner.policies.insert(number, entry.policy.clone());
        if current {
            inner.make_writer(entry, now);
        }
        inner.look_later(entry);
        let replaced = inner.readers.insert((number, entry.data_key_id), entry.clone())?;
        // The same data key was used so often already.
        entry.uses.fetch_add(replaced.uses.load(Ordering::Relaxed), Ordering::Relaxed);
        // INVARIANT: whoever is a writer is among the readers, where it is found to be wiped.
        if inner.writers.get(&number).is_some_and(|writer| Arc::ptr_eq(writer, &replaced)) {
            inner.writers.remove(&number);
        }
        Some(replaced)
    }

    /// The key was handed out again. If its end is nearer than it was, it is looked at by then.
    pub(crate) fn extend(&self, entry: &Arc<KeyEntry>, lifetime: Lifetime) {
        let mut inner = self.inner.lock();
        entry.times.extend(lifetime);
        if slot_of(entry.times.ends_at_boot()) < entry.due.load(Ordering::Relaxed) {
            inner.look_later(entry);
        }
    }

    pub(crate) fn set_writer(&self, entry: &Arc<KeyEntry>, now: Now) {
        self.inner.lock().make_writer(entry, now);
    }

    /// Takes out the keys that `gone` names and wipes them. Whoever looks for another key meanwhile waits for the taking
    /// only: of a million keys the wiping is the longer part.
    pub(crate) fn wipe(&self, mut gone: impl FnMut(&KeyEntry) -> bool) -> Vec<Arc<KeyEntry>> {
        let mut inner = self.inner.lock();
        let StoreInner { readers, writers, due, .. } = &mut *inner;
        let taken: Vec<_> = readers
            .extract_if(|_, entry| gone(entry))
            .map(|((instance, _), entry)| {
                entry.end();
                if writers.get(&instance).is_some_and(|writer| Arc::ptr_eq(writer, &entry)) {
                    writers.remove(&instance);
                }
                entry
            })
            .collect();
        // Else the memory of most entries would stay until their time.
        if taken.len() > readers.len() {
            due.retain(|_, keys| {
                keys.retain(|key| key.upgrade().is_some_and(|entry| !entry.gone()));
                !keys.is_empty()
            });
        }
        drop(inner);
        wiped(taken)
    }

    /// Takes out the keys that are expired and wipes them. It looks at those that may be, and at no other: this is asked
    /// every few seconds, of however many keys there are.
    pub(crate) fn wipe_expired(&self, now: Now) -> Vec<Arc<KeyEntry>> {
        let mut taken = Vec::new();
        let mut inner = self.inner.lock();
        let later = inner.due.split_off(&(slot_of(now.boot) + 1));
        let due = std::mem::replace(&mut inner.due, later);
        for (slot, keys) in due {
            let here = |entry: &Arc<KeyEntry>| !entry.gone() && entry.due.load(Ordering::Relaxed) == slot;
            for entry in keys.into_iter().filter_map(|key| key.upgrade()).filter(here) {
                if entry.times.expired(now) {
                    inner.take_out(&entry);
                    taken.push(entry);
                } else {
                    inner.look_later(&entry);
                }
            }
        }
        drop(inner);
        wiped(taken)
    }

    /// Every instance that this process has met under a policy, in the order in which it met them.
    pub(crate) fn of_policy(&self, policy: &Arc<PolicyState>) -> Vec<InstanceName> {
        let mut met: Vec<Arc<InstanceState>> = {
            let inner = self.inner.lock();
            let ours = |number| inner.policies.get(number).is_some_and(|known| Arc::ptr_eq(known, policy));
            inner.instances.values().filter(|instance| ours(&instance.number)).cloned().collect()
        };
        met.sort_unstable_by_key(|instance| instance.number);
        met.into_iter().map(|instance| InstanceName::clone(&instance.name)).collect()
    }

    pub(crate) fn all_instances(&self) -> Vec<InstanceName> {
        self.inner.lock().instances.keys().map(|name| InstanceName::clone(name)).collect()
    }

    pub(crate) fn keys(&self) -> usize {
        self.inner.lock().readers.len()
    }
}
