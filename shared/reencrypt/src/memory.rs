//! Records in memory, with an app that writes beside the rewriter and with trouble on demand: for tests and
//! measurements, and as the shortest example of a store.

use crate::store::{
    Place, RecordPage, RecordStore, RecordStoreError, Replaced, Shard, StoredRecord, header_of,
};
use async_trait::async_trait;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

/// Locks over which the records are spread, so that shards do not wait for one another.
const STRIPES: u32 = 64;
/// Records that a page takes from a stripe before it lets others at it: reading holds up no writer for longer.
const AT_ONCE: usize = 8;
/// Between the parts of a key. Not allowed in them, like any control character.
const BETWEEN: char = '\u{1f}';

struct Item {
    data_type: String,
    record_id: String,
    bytes: Vec<u8>,
    version: u64,
    old_versions: Vec<Vec<u8>>,
}

impl Item {
    fn write(&mut self, bytes: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
    }
}

/// Records, and behind which key and how many items they end.
type Part = (Vec<StoredRecord>, Option<(String, usize)>);

type Hook = Box<dyn Fn(&MemoryRecords, &StoredRecord) + Send + Sync>;

/// The records under one lock, and what was done to them: what is counted together would make writers of different
/// stripes wait for one another's cache line.
#[derive(Default)]
struct Stripe {
    items: BTreeMap<String, Item>,
    replaced: u64,
}

/// On cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Lock(Mutex<Stripe>);

/// A store of records in memory.
///
/// Bytes are copied into the item's own buffer, as a write to a store elsewhere would, so no memory goes from one
/// thread to another: the allocator would make both wait.
pub struct MemoryRecords {
    stripes: Vec<Lock>,
    troubles: Mutex<VecDeque<RecordStoreError>>,
    troubled: AtomicBool,
    before_replace: Option<Hook>,
    yields: bool,
    /// Steps until it stands still.
    steps: AtomicU64,
}

impl Default for MemoryRecords {
    fn default() -> Self {
        Self {
            stripes: (0..STRIPES).map(|_| Lock::default()).collect(),
            troubles: Mutex::default(),
            troubled: AtomicBool::new(false),
            before_replace: None,
            yields: false,
            steps: AtomicU64::new(u64::MAX),
        }
    }
}

fn prefix(of: &Place) -> String {
    format!("{}{BETWEEN}{}{BETWEEN}{}{BETWEEN}", of.organisation, of.site, of.app)
}

fn stripe_of(key: &str) -> u32 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    u32::try_from(hasher.finish() % u64::from(STRIPES)).unwrap_or_default()
}

impl MemoryRecords {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Every call waits for one poll before and after it does something: the steps between which
    /// [`Self::stand_still_after`] can break off.
    #[must_use]
    pub const fn in_steps(mut self) -> Self {
        self.yields = true;
        self
    }

    /// After so many steps no call gets on any more, as for a process that is about to be killed.
    pub fn stand_still_after(&self, steps: u64) {
        self.steps.store(steps, Ordering::Release);
    }

    /// How many conditional writes were done.
    #[must_use]
    pub fn replaced(&self) -> u64 {
        (0..STRIPES).filter_map(|number| self.stripe(number)).map(|stripe| stripe.replaced).sum()
    }

    /// Whether it came to that.
    #[must_use]
    pub fn stands_still(&self) -> bool {
        self.steps.load(Ordering::Acquire) == 0
    }

    /// Runs right before a conditional write looks at the record: an app that writes at the worst moment.
    #[must_use]
    pub fn before_replace(mut self, hook: impl Fn(&Self, &StoredRecord) + Send + Sync + 'static) -> Self {
        self.before_replace = Some(Box::new(hook));
        self
    }

    /// The next calls fail like this, one after the other.
    pub fn trouble(&self, errors: impl IntoIterator<Item = RecordStoreError>) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.extend(errors);
        self.troubled.store(!troubles.is_empty(), Ordering::Release);
    }

    fn troubles(&self) -> Result<(), RecordStoreError> {
        if !self.troubled.load(Ordering::Acquire) {
            return Ok(());
        }
        let next = self.troubles.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        next.map_or(Ok(()), Err)
    }

    async fn turn(&self) {
        let mut waited = !self.yields;
        std::future::poll_fn(|context| {
            if std::mem::replace(&mut waited, true) {
                return Poll::Ready(());
            }
            let step =
                |left: u64| left.checked_sub(1).map(|fewer| if left == u64::MAX { left } else { fewer });
            if self.steps.fetch_update(Ordering::AcqRel, Ordering::Acquire, step).is_ok() {
                context.waker().wake_by_ref();
            } else {
                waited = false;
            }
            Poll::Pending
        })
        .await;
    }

    fn stripe(&self, number: u32) -> Option<MutexGuard<'_, Stripe>> {
        let Lock(stripe) = self.stripes.get(usize::try_from(number).ok()?)?;
        Some(stripe.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn with<R>(&self, key: &str, f: impl FnOnce(&mut Stripe) -> R) -> Option<R> {
        self.stripe(stripe_of(key)).map(|mut stripe| f(&mut stripe))
    }

    /// The next records of a stripe; the key of the last, and how many they are, old versions not counted.
    fn part(&self, number: u32, prefix: &str, after: Option<&str>, most: usize) -> Option<Part> {
        let stripe = self.stripe(number)?;
        let from = after.map_or(Bound::Included(prefix), Bound::Excluded);
        let (mut records, mut last) = (Vec::with_capacity(most), None);
        let items = stripe.items.range::<str, _>((from, Bound::Unbounded));
        for (key, item) in items.take_while(|(key, _)| key.starts_with(prefix)).take(most) {
            let record = |bytes: &Vec<u8>, noncurrent| StoredRecord {
                key: key.clone(),
                data_type: item.data_type.clone(),
                record_id: item.record_id.clone(),
                bytes: bytes.clone(),
                noncurrent,
            };
            records.extend(item.old_versions.iter().map(|bytes| record(bytes, true)));
            records.push(record(&item.bytes, false));
            last = Some((key, last.map_or(1, |(_, count)| count + 1)));
        }
        Some((records, last.map(|(key, count)| (key.clone(), count))))
    }

    fn key(of: &Place, data_type: &str, record_id: &str) -> String {
        format!("{}{data_type}{BETWEEN}{record_id}", prefix(of))
    }

    /// The app's own write: unconditional, and it moves the app's version.
    pub fn put(&self, of: &Place, data_type: &str, record_id: &str, bytes: &[u8]) {
        let key = Self::key(of, data_type, record_id);
        self.with(&key, |stripe| match stripe.items.get_mut(&key) {
            Some(item) => {
                item.write(bytes);
                item.version += 1;
            }
            None => {
                let (data_type, record_id) = (data_type.to_owned(), record_id.to_owned());
                let (bytes, old_versions) = (bytes.to_vec(), Vec::new());
                stripe
                    .items
                    .insert(key.clone(), Item { data_type, record_id, bytes, version: 1, old_versions });
            }
        });
    }

    /// The app's own delete.
    pub fn delete(&self, of: &Place, data_type: &str, record_id: &str) {
        let key = Self::key(of, data_type, record_id);
        self.with(&key, |stripe| stripe.items.remove(&key));
    }

    /// As a versioned bucket: what is stored now stays as an old version when it is written over by a `put` that
    /// follows.
    pub fn keep_as_old_version(&self, of: &Place, data_type: &str, record_id: &str) {
        let key = Self::key(of, data_type, record_id);
        self.with(&key, |stripe| {
            if let Some(item) = stripe.items.get_mut(&key) {
                item.old_versions.push(item.bytes.clone());
            }
        });
    }

    #[must_use]
    pub fn get(&self, of: &Place, data_type: &str, record_id: &str) -> Option<Vec<u8>> {
        let key = Self::key(of, data_type, record_id);
        self.with(&key, |stripe| stripe.items.get(&key).map(|item| item.bytes.clone())).flatten()
    }

    /// The app's version of a record: how often the app has written it.
    #[must_use]
    pub fn version(&self, of: &Place, data_type: &str, record_id: &str) -> Option<u64> {
        let key = Self::key(of, data_type, record_id);
        self.with(&key, |stripe| stripe.items.get(&key).map(|item| item.version)).flatten()
    }

    /// Every record of a place: data type, record id, bytes.
    #[must_use]
    pub fn all(&self, of: &Place) -> Vec<(String, String, Vec<u8>)> {
        let prefix = prefix(of);
        let mut all = Vec::new();
        for stripe in (0..STRIPES).filter_map(|number| self.stripe(number)) {
            let of_place =
                stripe.items.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
            all.extend(
                of_place
                    .map(|(_, item)| (item.data_type.clone(), item.record_id.clone(), item.bytes.clone())),
            );
        }
        all
    }
}

/// `stripe:key`, the last one that was read.
fn position(cursor: Option<&str>) -> Result<(u32, Option<&str>), RecordStoreError> {
    let Some(cursor) = cursor else { return Ok((0, None)) };
    cursor
        .split_once(':')
        .and_then(|(stripe, key)| Some((stripe.parse().ok()?, Some(key))))
        .ok_or_else(nowhere)
}

fn nowhere() -> RecordStoreError {
    RecordStoreError::Refused { reason: "the cursor is none of this store".into() }
}

#[async_trait]
impl RecordStore for MemoryRecords {
    async fn page(
        &self,
        of: &Place,
        shard: Shard,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<RecordPage, RecordStoreError> {
        self.turn().await;
        self.troubles()?;
        let limit = usize::try_from(limit.max(1)).unwrap_or(usize::MAX);
        let (first, mut after) = position(cursor)?;
        let prefix = prefix(of);
        let mut page = RecordPage::default();
        let mut seen = 0;
        // Whole stripes belong to a shard; more shards than stripes leave some of them empty.
        for number in (first..STRIPES).filter(|number| number % shard.of.max(1) == shard.index) {
            let mut after = after.take().filter(|_| number == first).map(str::to_owned);
            loop {
                let part = self.part(number, &prefix, after.as_deref(), AT_ONCE.min(limit - seen));
                let (records, last) = part.ok_or_else(nowhere)?;
                page.records.extend(records);
                let Some((last, count)) = last else { break };
                seen += count;
                if seen >= limit {
                    page.next = Some(format!("{number}:{last}"));
                    return Ok(page);
                }
                after = Some(last);
            }
        }
        Ok(page)
    }

    async fn replace(&self, old: &StoredRecord, new: Vec<u8>) -> Result<Replaced, RecordStoreError> {
        self.turn().await;
        self.troubles()?;
        if let Some(hook) = &self.before_replace {
            hook(self, old);
        }
        let replaced = self.with(&old.key, |stripe| match stripe.items.get_mut(&old.key) {
            None => Replaced::Gone,
            Some(item) if header_of(&item.bytes) != header_of(&old.bytes) => Replaced::Changed,
            Some(item) => {
                item.write(&new);
                stripe.replaced += 1;
                Replaced::Done
            }
        });
        self.turn().await;
        Ok(replaced.unwrap_or(Replaced::Gone))
    }

    async fn estimate(&self, of: &Place) -> Result<Option<u64>, RecordStoreError> {
        let prefix = prefix(of);
        let mut count = 0;
        for stripe in (0..STRIPES).filter_map(|number| self.stripe(number)) {
            let of_place =
                stripe.items.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
            count += u64::try_from(of_place.count()).unwrap_or_default();
        }
        Ok(Some(count))
    }
}
