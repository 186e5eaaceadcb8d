//! Each thread's own copy of what its hot path needs: prepared keys, a pool of randomness, the last clock reading.
//!
//! A wipe walks over the caches of all threads and keeps each of them out meanwhile. That walk is what lets a
//! close empty the caches of threads that are asleep.

use crate::cipher::PreparedKey;
use crate::clock::{Clock, Now};
use crate::lock::Lock;
use crate::memory::{Undumped, scrub_stack};
use crate::owned::{Owned, Owner};
use crate::random::{Moment, Pool};
use crate::run::{LastRead, Run};
use crate::store::KeyEntry;
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use uuid::Uuid;

/// The most prepared keys of one thread; beyond it an old one makes room.
const MOST_ENTRIES: usize = 12_288;
const ENTRIES_PER_PAGE: usize = 14;
/// Uses are told to the shared counters this often.
const FLUSH_EVERY: u32 = 1024;

static THREADS: Lock<Vec<Weak<Owned<ThreadCache>>>> = Lock::new(Vec::new());

thread_local! {
    static MINE: RefCell<Option<Owner<ThreadCache>>> = const { RefCell::new(None) };
}

/// A key in one thread.
pub(crate) struct ThreadEntry {
    pub(crate) key: PreparedKey,
    pub(crate) entry: Arc<KeyEntry>,
    uses: u32,
}

impl ThreadEntry {
    #[inline]
    fn count(&mut self, uses: u32) {
        self.uses += uses;
        if self.uses >= FLUSH_EVERY {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let uses = u64::from(std::mem::take(&mut self.uses));
        if uses > 0 {
            self.entry.uses.fetch_add(uses, Ordering::Relaxed);
            self.entry.counters.hits.fetch_add(uses, Ordering::Relaxed);
        }
    }
}

impl Drop for ThreadEntry {
    fn drop(&mut self) {
        self.flush();
    }
}

/// A page of prepared keys.
#[repr(C, align(4096))]
pub(crate) struct EntryPage {
    entries: [Option<ThreadEntry>; ENTRIES_PER_PAGE],
}

/// Ids are random or counted already; mixing them further would cost more than the look-up.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            self.write_u64(u64::from_le_bytes(word));
        }
    }
    #[inline]
    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(29) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 ^= self.0 >> 32;
    }
    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}

type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct ReaderKey {
    instance: u64,
    high: u64,
    low: u64,
}

impl ReaderKey {
    fn new(instance: u64, id: Uuid) -> Self {
        let (high, low) = id.as_u64_pair();
        Self { instance, high, low }
    }
}

pub(crate) struct ThreadCache {
    pages: Vec<Undumped<EntryPage>>,
    free: Vec<usize>,
    /// Key that each instance writes with.
    writers: IdMap<u64, usize>,
    readers: IdMap<ReaderKey, usize>,
    /// The writer and the reader that were found last: threads often stay with one instance for a while.
    last_writer: Option<(u64, usize)>,
    last_reader: Option<(ReaderKey, usize)>,
    next_victim: usize,
    pool: Pool,
    aad: Vec<u8>,
    last_read: LastRead,
    run: Run,
    read: Reading,
}

/// What an operation needs at once.
pub(crate) struct Parts<'a> {
    pub(crate) index: usize,
    pub(crate) entry: &'a mut ThreadEntry,
    pub(crate) pool: &'a mut Pool,
    /// For the associated data.
    pub(crate) aad: &'a mut Vec<u8>,
    /// For a record that is read.
    pub(crate) last_read: &'a mut LastRead,
    /// For records that are written.
    pub(crate) run: &'a mut Run,
    pub(crate) moment: &'a Moment,
}

/// The clocks as a client of this thread read them last.
struct Reading {
    client: u64,
    tick: i64,
    now: Now,
    moment: Moment,
}

impl ThreadCache {
    fn new() -> Self {
        Self {
            pages: Vec::new(),
            free: Vec::new(),
            writers: IdMap::default(),
            readers: IdMap::default(),
            last_writer: None,
            last_reader: None,
            next_victim: 0,
            pool: Pool::new(),
            aad: Vec::with_capacity(512),
            last_read: LastRead::new(),
            run: Run::new(),
            read: Reading { client: 0, tick: 0, now: Now { boot: 0, wall: 0 }, moment: Moment::at(0) },
        }
    }

    /// Both clocks, read anew whenever the kernel's tick has moved, and the tick itself.
    #[inline]
    pub(crate) fn now(&mut self, client: u64, clock: &Clock) -> (Now, i64) {
        let tick = clock.tick();
        if self.read.tick != tick || self.read.client != client {
            self.read = Reading { client, tick, now: clock.now(), moment: Moment::at(tick) };
        }
        (self.read.now, tick)
    }

    /// The clocks as they were read last, and the tick at that time.
    #[inline]
    pub(crate) fn last(&self, client: u64) -> Option<(Now, i64)> {
        (self.read.client == client).then_some((self.read.now, self.read.tick))
    }

    /// Counts the uses of a key and returns it if it should be asked for anew.
    #[inline]
    pub(crate) fn count(&mut self, index: usize, uses: u32, now: Now) -> Option<Arc<KeyEntry>> {
        let entry = self.entry(index)?;
        entry.count(uses);
        entry.entry.times.wants_refresh(now).then(|| entry.entry.clone())
    }

    #[inline]
    pub(crate) fn writer(&mut self, instance: u64) -> Option<usize> {
        if let Some((last, index)) = self.last_writer
            && last == instance
        {
            return Some(index);
        }
        let index = self.writers.get(&instance).copied()?;
        self.last_writer = Some((instance, index));
        Some(index)
    }

    #[inline]
    pub(crate) fn reader(&mut self, instance: u64, id: Uuid) -> Option<usize> {
        let key = ReaderKey::new(instance, id);
        if let Some((last, index)) = self.last_reader
            && last == key
        {
            return Some(index);
        }
        let index = self.readers.get(&key).copied()?;
        self.last_reader = Some((key, index));
        Some(index)
    }

    #[inline]
    pub(crate) fn entry(&mut self, index: usize) -> Option<&mut ThreadEntry> {
        self.pages.get_mut(index / ENTRIES_PER_PAGE)?.entries.get_mut(index % ENTRIES_PER_PAGE)?.as_mut()
    }

    #[inline]
    pub(crate) fn parts(&mut self, index: usize) -> Option<Parts<'_>> {
        let entry = self
            .pages
            .get_mut(index / ENTRIES_PER_PAGE)?
            .entries
            .get_mut(index % ENTRIES_PER_PAGE)?
            .as_mut()?;
        let Self { pool, aad, last_read, run, read, .. } = self;
        Some(Parts { index, entry, pool, aad, last_read, run, moment: &read.moment })
    }

    fn cell(&mut self, index: usize) -> Option<&mut Option<ThreadEntry>> {
        self.pages.get_mut(index / ENTRIES_PER_PAGE)?.entries.get_mut(index % ENTRIES_PER_PAGE)
    }

    /// Prepares a key from the vault, or finds it prepared, and returns where it lies.
    pub(crate) fn install(&mut self, entry: &Arc<KeyEntry>, writer: bool) -> Option<usize> {
        let reader = ReaderKey::new(entry.instance_number, entry.data_key_id);
        let mut index = self.readers.get(&reader).copied();
        if let Some(found) = index
            && !self.entry(found).is_some_and(|old| Arc::ptr_eq(&old.entry, entry))
        {
            self.remove(found);
            index = None;
        }
        let index = match index {
            Some(index) => index,
            None => {
                let free = self.free_place()?;
                let prepared = entry.with_key(|key| {
                    self.place(free, key, entry);
                });
                scrub_stack();
                if prepared.is_none() {
                    self.free.push(free);
                    return None;
                }
                self.readers.insert(reader, free);
                free
            }
        };
        if writer {
            self.last_writer = None;
            self.writers.insert(entry.instance_number, index);
        }
        Some(index)
    }

    #[inline(never)]
    fn place(&mut self, index: usize, key: &[u8; 32], entry: &Arc<KeyEntry>) {
        if let Some(cell) = self.cell(index) {
            *cell = Some(ThreadEntry { key: PreparedKey::new(key), entry: entry.clone(), uses: 0 });
        }
    }

    fn free_place(&mut self) -> Option<usize> {
        if let Some(free) = self.free.pop() {
            return Some(free);
        }
        let places = self.pages.len() * ENTRIES_PER_PAGE;
        if places < MOST_ENTRIES {
            self.pages.push(Undumped::new(EntryPage { entries: [const { None }; ENTRIES_PER_PAGE] }));
            self.free.extend((places..places + ENTRIES_PER_PAGE).rev());
        } else {
            let victim = self.next_victim;
            self.next_victim = (victim + 1) % places;
            self.remove(victim);
        }
        self.free.pop()
    }

    fn remove(&mut self, index: usize) {
        self.run.end_of(index);
        self.last_read.end_of(index);
        let Some(cell) = self.cell(index) else { return };
        let Some(old) = cell else { return };
        let (instance, id) = (old.entry.instance_number, old.entry.data_key_id);
        // Dropped where it lies: taking it out would move the key and leave its bytes behind.
        *cell = None;
        (self.last_writer, self.last_reader) = (None, None);
        self.readers.remove(&ReaderKey::new(instance, id));
        if self.writers.get(&instance) == Some(&index) {
            self.writers.remove(&instance);
        }
        self.free.push(index);
    }

    fn purge(&mut self, gone: &mut dyn FnMut(&KeyEntry) -> bool) {
        for index in 0..self.pages.len() * ENTRIES_PER_PAGE {
            if self.entry(index).is_some_and(|entry| gone(&entry.entry)) {
                self.remove(index);
            }
        }
    }

    fn flush(&mut self) {
        for page in &mut self.pages {
            for entry in page.entries.iter_mut().flatten() {
                entry.flush();
            }
        }
    }
}

/// Runs `f` with the calling thread's cache. `None` while the thread is being torn down.
#[inline]
pub(crate) fn with_mine<R>(f: impl FnOnce(&mut ThreadCache) -> R) -> Option<R> {
    MINE.try_with(|mine| {
        let mut mine = mine.try_borrow_mut().ok()?;
        Some(mine.get_or_insert_with(register).with(f))
    })
    .ok()
    .flatten()
}

#[cold]
fn register() -> Owner<ThreadCache> {
    let owner = Owner::new(ThreadCache::new());
    let mut threads = THREADS.lock();
    threads.retain(|thread| thread.strong_count() > 0);
    threads.push(Arc::downgrade(owner.shared()));
    owner
}

fn each(mut f: impl FnMut(&mut ThreadCache)) {
    let threads: Vec<_> = {
        let threads = THREADS.lock();
        threads.iter().filter_map(Weak::upgrade).collect()
    };
    for thread in threads {
        // A panic in the middle of an operation leaves at worst an entry that is not found again; it is wiped
        // here all the same.
        thread.visit(&mut f);
    }
}

/// Wipes, in every thread, the keys that `gone` names.
pub(crate) fn purge_all(mut gone: impl FnMut(&KeyEntry) -> bool) {
    each(|cache| cache.purge(&mut gone));
}

/// Tells the shared counters what every thread has counted.
pub(crate) fn flush_all() {
    each(ThreadCache::flush);
}
