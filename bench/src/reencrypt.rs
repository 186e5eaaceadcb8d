//! Re-encryption over a store in memory, against straight loops of aws-lc-rs over the same store.
//!
//! A straight loop opens with one prepared key and seals with another: no key of its own for each message, no key
//! commitment, no lease. It pays for the same store and keeps the same buffers.

use crate::measure::{RUNS, Run, cpu_nanos, median, pin};
use crate::{NOTE, Result, cloud};
use async_trait::async_trait;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use claviger_envelope::source::{DataKey, Proof, SourceError, Wanted};
use claviger_envelope::{Context, Envelope, Instance, InstanceName, KeyBytes, KeySource};
use claviger_reencrypt::{
    MemoryRecords, Mode, Place, RecordPage, RecordStore, RecordStoreError, Replaced, Rewriter, Shard,
    StoredRecord,
};
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use uuid::Uuid;

const OVERHEAD: usize = 93;
/// Records of a page of the straight loop: as many as the rewriter asks for when nothing throttles.
const PAGE: u32 = 512;
const RECORDS: usize = 20_000;
/// What two threads share: so little that it stays in a core's own cache. A worker's own machine holds a page of
/// records, not the store. Where each pass goes through megabytes, two processes that share nothing at all were seen to
/// slow each other down as much as two workers do, and one would measure that.
const SHARED: usize = 1000;
/// Those of them with which the app is busy.
const BUSY: usize = 250;
/// How often a thread has its turn.
const TURNS: usize = 101;
/// How long the app is looked at while nothing works beside it.
const TURN: Duration = Duration::from_millis(1);
/// As much as ours has with the identifiers of a real instance, which are UUIDs.
const AAD: [u8; 112] = [9; 112];

pub fn measure() -> Result<()> {
    let runtime = runtime()?;
    for size in [1024, 65_536] {
        core(&runtime, size)?;
    }
    pipeline(&runtime)?;
    workers()?;
    live()?;
    kms(&runtime)
}

/// Data keys of generation 1, and from the switch on one of generation 2.
struct Keys {
    versions: Vec<(Uuid, [u8; 32])>,
    /// The one that is written with.
    current: AtomicU64,
}

impl Keys {
    fn new(old: usize) -> Arc<Self> {
        let key = |n: usize| (Uuid::new_v4(), [n.to_le_bytes()[0]; 32]);
        Arc::new(Self { versions: (0..=old).map(key).collect(), current: AtomicU64::new(0) })
    }

    fn last(&self) -> u64 {
        self.versions.len() as u64 - 1
    }
}

struct Source(Arc<Keys>);

#[async_trait]
impl KeySource for Source {
    async fn fetch(
        &self,
        instance: &InstanceName,
        wanted: Wanted,
    ) -> std::result::Result<DataKey, SourceError> {
        let keys = &self.0;
        let current = keys.current.load(Ordering::SeqCst) as usize;
        let index = match wanted {
            Wanted::Current { .. } => current,
            Wanted::DataKey(id) => {
                keys.versions.iter().position(|(known, _)| *known == id).ok_or(SourceError::NotFound)?
            }
        };
        let (data_key_id, key) = keys.versions[index];
        Ok(DataKey {
            policy_id: "5b0f6c1e-0000-4000-8000-000000000001".into(),
            organisation_id: format!("{:0>36}", instance.organisation),
            instance_id: format!("{:0>36}", instance.site),
            shard: 0,
            epoch: 1,
            generation: if index as u64 == keys.last() { 2 } else { 1 },
            data_key_id,
            version: index as u32 + 1,
            current: index == current,
            key: KeyBytes::fill_with(|out| {
                out.copy_from_slice(&key);
                Ok::<_, SourceError>(())
            })?,
            not_after: i64::MAX / 4,
            proven_until: i64::MAX / 4,
            created_at: None,
            kms_calls: 1,
        })
    }

    async fn prove(&self, _: &[String]) -> std::result::Result<Vec<Proof>, SourceError> {
        Ok(Vec::new())
    }
}

/// A process before and after the switch.
struct World {
    keys: Arc<Keys>,
    client: Envelope,
}

impl World {
    fn new(old: usize) -> Result<Self> {
        let keys = Keys::new(old);
        let config = claviger_envelope::Config { lease: Duration::from_secs(86_400), ..Default::default() };
        let client = Envelope::builder()
            .fence(cloud::OpenFence)
            .keys(Source(keys.clone()))
            .config(config)
            .manual()
            .start()?;
        Ok(Self { keys, client })
    }

    /// From here on records are written with this version.
    async fn write_with(&self, version: u64) -> Result<()> {
        self.keys.current.store(version, Ordering::SeqCst);
        self.client.revoke();
        self.client.poll().await?;
        Ok(())
    }

    async fn switch(&self) -> Result<()> {
        self.write_with(self.keys.last()).await
    }

    async fn fill(&self, store: &MemoryRecords, place: &Place, records: usize, size: usize) -> Result<()> {
        self.write_with(0).await?;
        let instance = self.client.instance(&place.organisation, &place.site, &place.app);
        let plain = vec![0x5A; size];
        for n in 0..records {
            let id = id(n);
            store.put(place, "note", &id, &instance.encrypt(&Context::new("note", &id), &plain).await?);
        }
        self.switch().await
    }
}

fn id(n: usize) -> String {
    format!("note-{n:08}")
}

fn place() -> Place {
    Place { organisation: "acme".into(), site: "acme-eng".into(), app: "jira".into() }
}

fn raw_key(byte: u8) -> Result<LessSafeKey> {
    Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[byte; 32]).map_err(|_| "key")?))
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([1; 12])
}

/// Opens and seals the ciphertext and tag that follow a header, as straight as can be.
fn straight(from: &LessSafeKey, to: &LessSafeKey, record: &[u8], out: &mut [u8]) -> bool {
    let (sealed, tag) = record[OVERHEAD - 16..].split_at(record.len() - OVERHEAD);
    let (body, end) = out[OVERHEAD - 16..].split_at_mut(record.len() - OVERHEAD);
    if from.open_separate_gather(nonce(), Aad::from(&AAD), sealed, tag, body).is_err() {
        return false;
    }
    let Ok(tag) = to.seal_in_place_separate_tag(nonce(), Aad::from(&AAD), body) else { return false };
    end.copy_from_slice(tag.as_ref());
    true
}

/// What `straight` can open, as long as a record of ours.
fn straight_record(key: &LessSafeKey, size: usize, number: usize) -> Result<Vec<u8>> {
    let mut record = vec![0x5A; size + OVERHEAD];
    record[..8].copy_from_slice(&number.to_le_bytes());
    let (body, end) = record[OVERHEAD - 16..].split_at_mut(size);
    let tag = key.seal_in_place_separate_tag(nonce(), Aad::from(&AAD), body).map_err(|_| "seal")?;
    end.copy_from_slice(tag.as_ref());
    Ok(record)
}

/// Opening and sealing alone, in turns with the straight loop.
fn core(runtime: &Runtime, size: usize) -> Result<()> {
    let world = World::new(1)?;
    let (from, to) = (raw_key(1)?, raw_key(2)?);
    let instance = world.client.instance("acme", "acme-eng", "jira");
    let plain = vec![0x5A; size];
    let count = if size > 4096 { 8 } else { 64 };
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    runtime.block_on(world.write_with(0))?;
    for n in 0..count {
        ours.push(runtime.block_on(instance.encrypt(&NOTE, &plain))?);
        others.push(straight_record(&from, size, n)?);
    }
    runtime.block_on(world.switch())?;
    let resealed = runtime.block_on(instance.reseal(&NOTE, &ours[0], 2))?;
    assert_eq!(runtime.block_on(instance.decrypt(&NOTE, &resealed))?, plain);
    let (mut out, mut raw) = (Vec::new(), vec![0; size + OVERHEAD]);
    let (mut next, mut next_raw) = (ours.iter().cycle(), others.iter().cycle());
    let mut failed = 0_u32;
    let mut failed_raw = 0_u32;
    let (mut of_straight, mut per_s) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let run = Run::new(&mut [
            &mut || {
                let record = next.next().map(Vec::as_slice).unwrap_or_default();
                failed += u32::from(instance.try_reseal_into(&NOTE, black_box(record), 2, &mut out).is_err());
            },
            &mut || {
                let record = next_raw.next().map(Vec::as_slice).unwrap_or_default();
                failed_raw += u32::from(!straight(&from, &to, black_box(record), &mut raw));
            },
        ]);
        of_straight.push(run.median(|[ours, straight]| straight / ours));
        per_s.push(1e9 / run.median(|[ours, _]| *ours));
    }
    assert_eq!((failed, failed_raw), (0, 0));
    println!(
        "bench reencrypt.core size={size} of_straight={:.2} per_s={:.0}",
        median(of_straight),
        median(per_s)
    );
    Ok(())
}

/// Claims and checkpoints: conditional writes of a shard's row.
#[derive(Default)]
struct Checkpoints {
    rows: Mutex<HashMap<u32, (u64, String)>>,
}

impl Checkpoints {
    fn save(&self, shard: u32, expected: u64, row: String) -> bool {
        let Ok(mut rows) = self.rows.lock() else { return false };
        let stored = rows.entry(shard).or_default();
        let ours = stored.0 == expected;
        if ours {
            *stored = (expected + 1, row);
        }
        ours
    }
}

/// A worker on one shard: claim, batch, checkpoint.
struct Shift<'a> {
    rewriter: &'a Rewriter,
    checkpoints: Checkpoints,
    shard: Shard,
    version: u64,
    cursor: Option<String>,
    rewritten: u64,
    through: bool,
}

impl<'a> Shift<'a> {
    fn new(rewriter: &'a Rewriter, shard: Shard) -> Self {
        let checkpoints = Checkpoints::default();
        Self { rewriter, checkpoints, shard, version: 0, cursor: None, rewritten: 0, through: false }
    }

    fn checkpoint(&mut self) {
        let row = serde_json::json!({"shard": self.shard.index, "cursor": self.cursor, "rewritten": self.rewritten});
        assert!(self.checkpoints.save(self.shard.index, self.version, row.to_string()), "it is ours");
        self.version += 1;
    }

    async fn batch(&mut self) -> Result<u64> {
        self.checkpoint();
        let batch =
            self.rewriter.batch(&place(), self.shard, self.cursor.as_deref(), 2, Mode::Rewrite).await?;
        self.rewritten += batch.rewritten;
        self.through = batch.next.is_none();
        self.cursor = batch.next;
        self.checkpoint();
        Ok(batch.rewritten)
    }

    /// Returns how many records were rewritten.
    async fn all(mut self) -> Result<u64> {
        while !self.through {
            self.batch().await?;
        }
        Ok(self.rewritten)
    }
}

/// A straight loop over one shard: page, open, seal, conditional write.
struct Straight<'a> {
    store: &'a MemoryRecords,
    from: LessSafeKey,
    to: LessSafeKey,
    shard: Shard,
    cursor: Option<String>,
    through: bool,
}

impl<'a> Straight<'a> {
    fn new(store: &'a MemoryRecords, shard: Shard) -> Result<Self> {
        Ok(Self { store, from: raw_key(1)?, to: raw_key(2)?, shard, cursor: None, through: false })
    }

    async fn page(&mut self) -> Result<u64> {
        let mut done = 0;
        let page = self.store.page(&place(), self.shard, self.cursor.as_deref(), PAGE).await?;
        for record in &page.records {
            let mut new = vec![0; record.bytes.len()];
            new[..OVERHEAD - 16].copy_from_slice(&record.bytes[..OVERHEAD - 16]);
            assert!(straight(&self.from, &self.to, &record.bytes, &mut new));
            done += u64::from(self.store.replace(record, new).await? == Replaced::Done);
        }
        self.through = page.next.is_none();
        self.cursor = page.next;
        Ok(done)
    }

    /// Returns how many records were rewritten.
    async fn all(mut self) -> Result<u64> {
        let mut done = 0;
        while !self.through {
            done += self.page().await?;
        }
        Ok(done)
    }
}

/// Something that goes through a shard step by step, and then begins again.
trait Work {
    fn begin(&mut self);
    fn is_through(&self) -> bool;
    fn step(&mut self, runtime: &Runtime) -> Result<u64>;
}

impl Work for Shift<'_> {
    fn begin(&mut self) {
        (self.cursor, self.through) = (None, false);
    }

    fn is_through(&self) -> bool {
        self.through
    }

    fn step(&mut self, runtime: &Runtime) -> Result<u64> {
        runtime.block_on(self.batch())
    }
}

impl Work for Straight<'_> {
    fn begin(&mut self) {
        (self.cursor, self.through) = (None, false);
    }

    fn is_through(&self) -> bool {
        self.through
    }

    fn step(&mut self, runtime: &Runtime) -> Result<u64> {
        runtime.block_on(self.page())
    }
}

/// Puts everything back as it was before it was rewritten.
fn refill(store: &MemoryRecords, records: &[(String, String, Vec<u8>)]) {
    for (data_type, record_id, bytes) in records {
        store.put(&place(), data_type, record_id, bytes);
    }
}

/// A store of what a straight loop can open.
fn straight_store(records: usize, size: usize) -> Result<MemoryRecords> {
    let (store, from) = (MemoryRecords::new(), raw_key(1)?);
    for n in 0..records {
        store.put(&place(), "note", &id(n), &straight_record(&from, size, n)?);
    }
    Ok(store)
}

fn pipeline(runtime: &Runtime) -> Result<()> {
    const SIZE: usize = 1024;
    let mut of_straight = Vec::new();
    for _ in 0..RUNS {
        let world = World::new(1)?;
        let (ours, raw) = (Arc::new(MemoryRecords::new()), straight_store(RECORDS, SIZE)?);
        runtime.block_on(world.fill(&ours, &place(), RECORDS, SIZE))?;
        let rewriter = Rewriter::new(world.client.clone(), ours);
        let began = cpu_nanos();
        assert_eq!(runtime.block_on(Shift::new(&rewriter, Shard::WHOLE).all())?, RECORDS as u64);
        let between = cpu_nanos();
        assert_eq!(runtime.block_on(Straight::new(&raw, Shard::WHOLE)?.all())?, RECORDS as u64);
        of_straight.push((cpu_nanos() - between) / (between - began));
    }
    println!("bench reencrypt.pipeline size={SIZE} of_straight={:.2}", median(of_straight));
    Ok(())
}

/// Records a second by the clock on the wall, and a second of computing: on a machine that has other things to do
/// the first says more about those.
#[derive(Clone, Copy)]
struct Rate {
    wall: f64,
    computing: f64,
}

/// How often a thing is done in a turn, which is over when it says that it is.
fn rate_of(mut thing: impl FnMut() -> Result<Option<u64>>) -> Result<Rate> {
    let (began, computed, mut count) = (Instant::now(), cpu_nanos(), 0);
    while let Some(more) = thing()? {
        count += more;
    }
    let rate = |seconds: f64| count as f64 / seconds;
    Ok(Rate { wall: rate(began.elapsed().as_secs_f64()), computing: rate((cpu_nanos() - computed) / 1e9) })
}

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// What two threads, each on a core and a shard of its own, do beside one another, against what each does alone. They
/// take turns (one, the other, both), each a pass over its shard, so that what else the machine does meets all of them
/// alike; before each turn the store is as it was in the beginning.
fn scaling<W: Work>(store: &MemoryRecords, worker: impl Fn(Shard) -> Result<W> + Sync) -> Result<Rate> {
    let (before, ready) = (store.all(&place()), Barrier::new(2));
    let turns = |shard: Shard| {
        pin(shard.index as usize);
        let (runtime, mut work) = (runtime()?, worker(shard)?);
        let mut turn = |mine: bool| {
            if shard.index == 0 {
                refill(store, &before);
            }
            work.begin();
            ready.wait();
            let mut pass = || if work.is_through() { Ok(None) } else { work.step(&runtime).map(Some) };
            let rate = mine.then(|| rate_of(&mut pass)).transpose();
            ready.wait();
            rate
        };
        let mut rates = Vec::new();
        for _ in 0..TURNS {
            let alone = [turn(shard.index == 0)?, turn(shard.index == 1)?];
            let beside = turn(true)?.ok_or("nobody's turn")?;
            rates.push([alone.into_iter().flatten().next().ok_or("nobody's turn")?, beside]);
        }
        Ok::<_, Box<dyn std::error::Error>>(rates)
    };
    let rates: Vec<Vec<[Rate; 2]>> = std::thread::scope(|scope| {
        let turns = &turns;
        let threads = [0, 1].map(|index| {
            scope.spawn(move || turns(Shard { index, of: 2 }).map_err(|error| error.to_string()))
        });
        let joined = threads.into_iter().map(|thread| thread.join().map_err(|_| "a thread died".to_owned()));
        joined.map(|rates| rates.and_then(|rates| rates)).collect::<std::result::Result<_, _>>()
    })?;
    let of = |what: fn(&Rate) -> f64| {
        let turns = rates[0].iter().zip(&rates[1]);
        let scaling = turns.map(|([a, a_beside], [b, b_beside])| {
            2.0 * (what(a_beside) + what(b_beside)) / (what(a) + what(b))
        });
        median(scaling.collect())
    };
    Ok(Rate { wall: of(|rate| rate.wall), computing: of(|rate| rate.computing) })
}

fn workers() -> Result<()> {
    let (mut ours, mut computing, mut limit) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let world = World::new(1)?;
        let store = Arc::new(MemoryRecords::new());
        runtime()?.block_on(world.fill(&store, &place(), SHARED, 1024))?;
        let rewriter = Rewriter::new(world.client.clone(), store.clone());
        let rate = scaling(&store, |shard| Ok(Shift::new(&rewriter, shard)))?;
        ours.push(rate.wall);
        computing.push(rate.computing);
        let raw = straight_store(SHARED, 1024)?;
        limit.push(scaling(&raw, |shard| Straight::new(&raw, shard))?.wall);
    }
    println!("bench reencrypt.workers n=2 scaling={:.2}", median(ours));
    println!(
        "bench reencrypt.workers-detail n=2 scaling_of_computing={:.2} straight_loops={:.2}",
        median(computing),
        median(limit)
    );
    Ok(())
}

/// An app reads and writes on one core, while a worker rewrites the same records on the other and while it rests, in
/// turns.
fn live() -> Result<()> {
    let (mut of_before, mut computing, mut limit) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let world = World::new(1)?;
        let store = Arc::new(MemoryRecords::new());
        runtime()?.block_on(world.fill(&store, &place(), SHARED, 1024))?;
        let rewriter = Rewriter::new(world.client.clone(), store.clone());
        let rate = beside(&world, &store, &store, || Ok(Shift::new(&rewriter, Shard::WHOLE)))?;
        of_before.push(rate.wall);
        computing.push(rate.computing);
        // What the machine itself allows: a straight loop that shares nothing with the app.
        let raw = straight_store(SHARED, 1024)?;
        limit.push(beside(&world, &store, &raw, || Straight::new(&raw, Shard::WHOLE))?.wall);
    }
    println!("bench reencrypt.live of_before={:.2}", median(of_before));
    println!(
        "bench reencrypt.live-detail of_before_of_computing={:.2} beside_a_straight_loop={:.2}",
        median(computing),
        median(limit)
    );
    Ok(())
}

/// The app's rate while something works on the other core, against its rate while nothing does.
fn beside<W: Work>(
    world: &World,
    store: &MemoryRecords,
    others: &MemoryRecords,
    worker: impl FnOnce() -> Result<W> + Send,
) -> Result<Rate> {
    const RESTS: u32 = 0;
    const WORKS: u32 = 1;
    const ENDS: u32 = 2;
    pin(0);
    let (wanted, begun, ended) = (AtomicU32::new(RESTS), AtomicUsize::new(0), AtomicUsize::new(0));
    let (mut app, before) = (App::new(world, store)?, others.all(&place()));
    let rates: Vec<[Rate; 2]> = std::thread::scope(|scope| {
        let (wanted, begun, ended) = (&wanted, &begun, &ended);
        let other = scope.spawn(move || {
            pin(1);
            let start = || Ok::<_, Box<dyn std::error::Error>>((runtime()?, worker()?));
            let (runtime, mut work) = start().map_err(|error| error.to_string())?;
            loop {
                match wanted.load(Ordering::SeqCst) {
                    RESTS => std::thread::park(),
                    WORKS => {
                        work.begin();
                        begun.fetch_add(1, Ordering::SeqCst);
                        while !work.is_through() {
                            work.step(&runtime).map_err(|error| error.to_string())?;
                        }
                        let _ = wanted.compare_exchange(WORKS, RESTS, Ordering::SeqCst, Ordering::SeqCst);
                        ended.fetch_add(1, Ordering::SeqCst);
                    }
                    _ => return Ok::<_, String>(()),
                }
            }
        });
        let tell = |next: u32| {
            wanted.store(next, Ordering::SeqCst);
            other.thread().unpark();
        };
        let rates: Result<Vec<[Rate; 2]>> = (0..TURNS)
            .map(|turn| {
                refill(others, &before);
                let began = Instant::now();
                let resting =
                    rate_of(|| (began.elapsed() < TURN).then(|| app.reads_and_writes()).transpose())?;
                tell(WORKS);
                while begun.load(Ordering::SeqCst) <= turn && !other.is_finished() {
                    std::hint::spin_loop();
                }
                // Until the worker's pass is over, and no longer.
                let works = || ended.load(Ordering::SeqCst) <= turn && !other.is_finished();
                let working = rate_of(|| works().then(|| app.reads_and_writes()).transpose())?;
                Ok([resting, working])
            })
            .collect();
        tell(ENDS);
        other.join().map_err(|_| "the worker died")??;
        rates
    })?;
    let of = |what: fn(&Rate) -> f64| {
        median(rates.iter().map(|[before, during]| what(during) / what(before)).collect())
    };
    Ok(Rate { wall: of(|rate| rate.wall), computing: of(|rate| rate.computing) })
}

/// An app's work: some records read and written again.
struct App<'a> {
    runtime: Runtime,
    instance: Instance,
    store: &'a MemoryRecords,
    count: usize,
}

impl<'a> App<'a> {
    fn new(world: &World, store: &'a MemoryRecords) -> Result<Self> {
        let instance = world.client.instance("acme", "acme-eng", "jira");
        Ok(Self { runtime: runtime()?, instance, store, count: 0 })
    }

    fn reads_and_writes(&mut self) -> Result<u64> {
        self.runtime.block_on(async {
            for _ in 0..16 {
                let id = id((self.count * 7919) % BUSY);
                let context = Context::new("note", &id);
                let record = self.store.get(&place(), "note", &id).ok_or("a note is missing")?;
                let plain = self.instance.decrypt(&context, &record).await?;
                self.store.put(&place(), "note", &id, &self.instance.encrypt(&context, &plain).await?);
                self.count += 1;
            }
            Ok(16)
        })
    }
}

/// As many records as one likes: pages of the same few, one for each old version, written nowhere.
struct Endless {
    records: Vec<StoredRecord>,
    left: AtomicU64,
}

#[async_trait]
impl RecordStore for Endless {
    async fn page(
        &self,
        _: &Place,
        _: Shard,
        _: Option<&str>,
        limit: u32,
    ) -> std::result::Result<RecordPage, RecordStoreError> {
        let left = self.left.load(Ordering::SeqCst);
        let count = left.min(u64::from(limit));
        self.left.store(left - count, Ordering::SeqCst);
        let records = self.records.iter().cycle().take(count as usize).cloned().collect();
        Ok(RecordPage { records, next: (left > count).then(|| "on".to_owned()) })
    }

    async fn replace(&self, _: &StoredRecord, _: Vec<u8>) -> std::result::Result<Replaced, RecordStoreError> {
        Ok(Replaced::Done)
    }

    async fn estimate(&self, _: &Place) -> std::result::Result<Option<u64>, RecordStoreError> {
        Ok(Some(self.left.load(Ordering::SeqCst)))
    }
}

/// Calls of KMS for a million records of one instance under ten data-key versions, in a realm of two regions.
fn kms(runtime: &Runtime) -> Result<()> {
    const COUNT: u64 = 1_000_000;
    const VERSIONS: usize = 10;
    /// Before the switch, for each data key: one ReEncrypt in each region.
    const PREPARING: u64 = 2;
    /// The data key of the new generation: made under one regional key, wrapped under the other.
    const NEW: u64 = 2;
    let world = World::new(VERSIONS)?;
    let instance = world.client.instance("acme", "acme-eng", "jira");
    let mut records = Vec::new();
    for version in 0..VERSIONS {
        runtime.block_on(world.write_with(version as u64))?;
        let bytes = runtime.block_on(instance.encrypt(&NOTE, &[0x5A; 100]))?;
        let (data_type, record_id) = (NOTE.data_type.to_owned(), NOTE.record_id.to_owned());
        records.push(StoredRecord { key: id(version), data_type, record_id, bytes, noncurrent: false });
    }
    runtime.block_on(world.switch())?;
    let before = world.client.metrics().kms_calls;
    let rewriter =
        Rewriter::new(world.client.clone(), Arc::new(Endless { records, left: AtomicU64::new(COUNT) }));
    assert_eq!(runtime.block_on(Shift::new(&rewriter, Shard::WHOLE).all())?, COUNT);
    let unwraps = world.client.metrics().kms_calls - before;
    let calls = unwraps + PREPARING * VERSIONS as u64 + NEW;
    println!("bench reencrypt.kms records={COUNT} per_record={:.6}", calls as f64 / COUNT as f64);
    println!(
        "bench reencrypt.kms-detail data_keys={VERSIONS} unwraps={unwraps} preparing={}",
        calls - unwraps
    );
    Ok(())
}
