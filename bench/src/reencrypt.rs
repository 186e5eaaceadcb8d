//! Re-encryption over a store in memory, against straight loops of aws-lc-rs over the same store.
//!
//! A straight loop opens with one prepared key and seals with another: no key of its own for each message, no key
//! commitment, no lease. It pays for the same store and keeps the same buffers.

use crate::measure::{RUNS, Run, cpu_nanos, median, pin};
use crate::{NOTE, Result, cloud};
use async_trait::async_trait;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use claviger_envelope::source::{DataKey, Proof, SourceError, Wanted};
use claviger_envelope::{Context, Envelope, InstanceName, KeyBytes, KeySource};
use claviger_reencrypt::{
    MemoryRecords, Mode, Place, RecordPage, RecordStore, RecordStoreError, Replaced, Rewriter, Shard,
    StoredRecord,
};
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use uuid::Uuid;

const OVERHEAD: usize = 93;
/// Records of a page of the straight loop: as many as the rewriter asks for when nothing throttles.
const PAGE: u32 = 512;
const RECORDS: usize = 20_000;
/// As much as ours has with the identifiers of a real instance, which are UUIDs.
const AAD: [u8; 112] = [9; 112];

pub fn measure() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
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
            store.put(place, "note", &id, instance.encrypt(&Context::new("note", &id), &plain).await?);
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

/// A worker's loop on one shard: claim, batch, checkpoint. Returns how many records were rewritten.
async fn work(rewriter: &Rewriter, checkpoints: &Checkpoints, shard: Shard) -> Result<u64> {
    let (mut version, mut cursor, mut rewritten) = (0, None::<String>, 0);
    loop {
        let row = serde_json::json!({"shard": shard.index, "cursor": cursor, "rewritten": rewritten});
        assert!(checkpoints.save(shard.index, version, row.to_string()), "nobody else claims it");
        version += 1;
        let batch = rewriter.batch(&place(), shard, cursor.as_deref(), 2, Mode::Rewrite).await?;
        rewritten += batch.rewritten;
        cursor = batch.next;
        let row = serde_json::json!({"shard": shard.index, "cursor": cursor, "rewritten": rewritten});
        assert!(checkpoints.save(shard.index, version, row.to_string()), "it is still ours");
        version += 1;
        if cursor.is_none() {
            return Ok(rewritten);
        }
    }
}

async fn straight_loop(store: &dyn RecordStore, from: &LessSafeKey, to: &LessSafeKey) -> Result<u64> {
    let (mut cursor, mut done) = (None::<String>, 0);
    loop {
        let page = store.page(&place(), Shard::WHOLE, cursor.as_deref(), PAGE).await?;
        for record in &page.records {
            let mut new = vec![0; record.bytes.len()];
            new[..OVERHEAD - 16].copy_from_slice(&record.bytes[..OVERHEAD - 16]);
            assert!(straight(from, to, &record.bytes, &mut new));
            done += u64::from(store.replace(record, new).await? == Replaced::Done);
        }
        cursor = page.next;
        if cursor.is_none() {
            return Ok(done);
        }
    }
}

fn pipeline(runtime: &Runtime) -> Result<()> {
    const SIZE: usize = 1024;
    let (from, to) = (raw_key(1)?, raw_key(2)?);
    let mut of_straight = Vec::new();
    for _ in 0..RUNS {
        let world = World::new(1)?;
        let (ours, raw) = (Arc::new(MemoryRecords::new()), MemoryRecords::new());
        runtime.block_on(world.fill(&ours, &place(), RECORDS, SIZE))?;
        for n in 0..RECORDS {
            raw.put(&place(), "note", &id(n), straight_record(&from, SIZE, n)?);
        }
        let rewriter = Rewriter::new(world.client.clone(), ours);
        let checkpoints = Checkpoints::default();
        let began = cpu_nanos();
        assert_eq!(runtime.block_on(work(&rewriter, &checkpoints, Shard::WHOLE))?, RECORDS as u64);
        let between = cpu_nanos();
        assert_eq!(runtime.block_on(straight_loop(&raw, &from, &to))?, RECORDS as u64);
        of_straight.push((cpu_nanos() - between) / (between - began));
    }
    println!("bench reencrypt.pipeline size={SIZE} of_straight={:.2}", median(of_straight));
    Ok(())
}

/// Records a second by the clock on the wall, and a second of computing: on a machine that has other things to do
/// the first says more about those.
struct Rate {
    wall: f64,
    computing: f64,
}

/// What so many workers do, each on a core and a shard of its own.
fn workers_rate(count: u32) -> Result<Rate> {
    let world = World::new(1)?;
    let store = Arc::new(MemoryRecords::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(world.fill(&store, &place(), 5 * RECORDS, 1024))?;
    let (rewriter, checkpoints) = (Rewriter::new(world.client.clone(), store), Checkpoints::default());
    let ready = std::sync::Barrier::new(count as usize);
    let took: Vec<[f64; 2]> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..count)
            .map(|index| {
                let (rewriter, checkpoints, ready) = (&rewriter, &checkpoints, &ready);
                scope.spawn(move || {
                    pin(index as usize);
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
                    ready.wait();
                    let (began, computed) = (Instant::now(), cpu_nanos());
                    let shard = Shard { index, of: count };
                    runtime.block_on(work(rewriter, checkpoints, shard)).ok()?;
                    Some([began.elapsed().as_secs_f64(), (cpu_nanos() - computed) / 1e9])
                })
            })
            .collect();
        workers.into_iter().filter_map(|worker| worker.join().ok().flatten()).collect()
    });
    assert_eq!(took.len(), count as usize);
    let slowest = |of: usize| took.iter().map(|took| took[of]).fold(0.0, f64::max);
    let records = (5 * RECORDS) as f64;
    Ok(Rate { wall: records / slowest(0), computing: records / slowest(1) })
}

fn workers() -> Result<()> {
    let (mut scaling, mut computing) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let (two, one) = (workers_rate(2)?, workers_rate(1)?);
        scaling.push(two.wall / one.wall);
        computing.push(two.computing / one.computing);
    }
    println!("bench reencrypt.workers n=2 scaling={:.2}", median(scaling));
    println!("bench reencrypt.workers-detail n=2 scaling_of_computing={:.2}", median(computing));
    Ok(())
}

/// An app reads and writes on one core, before and while a worker rewrites on the other.
fn live() -> Result<()> {
    let (mut of_before, mut computing) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let world = World::new(1)?;
        let store = Arc::new(MemoryRecords::new());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(world.fill(&store, &place(), 5 * RECORDS, 1024))?;
        let before = app_rate(&world, &store, |_| true)?;
        let (done, rewriter) = (AtomicBool::new(false), Rewriter::new(world.client.clone(), store.clone()));
        let during = std::thread::scope(|scope| {
            let (done, rewriter) = (&done, &rewriter);
            let worker = scope.spawn(move || {
                pin(1);
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
                let rewritten = runtime.block_on(work(rewriter, &Checkpoints::default(), Shard::WHOLE)).ok();
                done.store(true, Ordering::SeqCst);
                rewritten
            });
            // As long as there is something to rewrite, and no longer.
            let during = app_rate(&world, &store, |_| !done.load(Ordering::SeqCst))?;
            assert!(worker.join().ok().flatten().is_some_and(|rewritten| rewritten > 0));
            Ok::<_, Box<dyn std::error::Error>>(during)
        })?;
        of_before.push(during.wall / before.wall);
        computing.push(during.computing / before.computing);
    }
    println!("bench reencrypt.live of_before={:.2}", median(of_before));
    println!("bench reencrypt.live-detail of_before_of_computing={:.2}", median(computing));
    Ok(())
}

/// Reads and writes of an app a second, for at most 200 ms.
fn app_rate(world: &World, store: &MemoryRecords, goes_on: impl Fn(u64) -> bool) -> Result<Rate> {
    pin(0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let instance = world.client.instance("acme", "acme-eng", "jira");
        let (began, computed, mut count) = (Instant::now(), cpu_nanos(), 0_u64);
        while began.elapsed() < Duration::from_millis(200) && goes_on(count) {
            for _ in 0..16 {
                let id = id((count as usize * 7919) % (5 * RECORDS));
                let context = Context::new("note", &id);
                let record = store.get(&place(), "note", &id).ok_or("a note is missing")?;
                let plain = instance.decrypt(&context, &record).await?;
                store.put(&place(), "note", &id, instance.encrypt(&context, &plain).await?);
                count += 1;
            }
        }
        let rate = |seconds: f64| count as f64 / seconds;
        Ok(Rate {
            wall: rate(began.elapsed().as_secs_f64()),
            computing: rate((cpu_nanos() - computed) / 1e9),
        })
    })
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
    /// Before the switch, for each data key: one unwrap, and one wrap under each new regional key.
    const PREPARING: u64 = 3;
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
    assert_eq!(runtime.block_on(work(&rewriter, &Checkpoints::default(), Shard::WHOLE))?, COUNT);
    let unwraps = world.client.metrics().kms_calls - before;
    let calls = unwraps + PREPARING * VERSIONS as u64 + NEW;
    println!("bench reencrypt.kms records={COUNT} per_record={:.6}", calls as f64 / COUNT as f64);
    println!(
        "bench reencrypt.kms-detail data_keys={VERSIONS} unwraps={unwraps} preparing={}",
        calls - unwraps
    );
    Ok(())
}
