//! `make bench`: one line a figure, median of 5, pinned to a core.
//!
//! The limit is AES-256-GCM of aws-lc-rs in place with a prepared key, measured here in the same run. The peer is
//! the official Encryption SDK with key commitment.

mod allocations;
mod cloud;
#[cfg(feature = "peers")]
mod esdk;
mod measure;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use claviger_envelope::testing::TestCloud;
use claviger_envelope::{Context, Envelope, Instance};
use measure::{median, medians, pin, ratio};
use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const NOTE: Context<'static> = Context::new("note", "note-42");
const SIZES: [usize; 4] = [100, 1024, 65_536, 1_048_576];
const LONG: i64 = i64::MAX / 4;

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let cloud = TestCloud::new();
    cloud.lifetimes(LONG, LONG);
    let client = Envelope::builder().fence(cloud.clone()).keys(cloud.clone()).manual().start()?;
    let acme = client.instance("acme", "acme-eng", "jira");
    runtime.block_on(acme.encrypt(&NOTE, b"warm"))?;
    let keep = lease_keeper(&client);

    pin(0);
    records(&runtime, &acme, &cloud)?;
    threads(&runtime, &client)?;
    drop(keep);
    memory(&runtime)?;
    single_flight(&runtime)?;
    Ok(())
}

/// Polls in the background, as a process does.
fn lease_keeper(client: &Envelope) -> Keeper {
    let stop = Arc::new(AtomicBool::new(false));
    let (client, stopped) = (client.clone(), stop.clone());
    let thread = std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        while !stopped.load(Ordering::Relaxed) {
            let _ = runtime.block_on(client.poll());
            std::thread::sleep(Duration::from_millis(500));
        }
    });
    Keeper { stop, thread: Some(thread) }
}

struct Keeper {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn records(runtime: &tokio::runtime::Runtime, acme: &Instance, cloud: &TestCloud) -> Result<()> {
    #[cfg(feature = "peers")]
    let peer = runtime.block_on(esdk::Peer::new())?;
    for size in SIZES {
        let plain = vec![0x5A; size];
        let fetches = cloud.fetches.load(Ordering::SeqCst);

        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).map_err(|_| "key")?);
        let nonce = || Nonce::assume_unique_for_key([1; 12]);
        // As much as ours has with the identifiers of a real instance, which are UUIDs.
        let aad = [9_u8; 112];
        let mut buffer = plain.clone();
        let mut sealed = plain.clone();
        key.seal_in_place_append_tag(nonce(), Aad::from(&aad), &mut sealed).map_err(|_| "seal")?;
        let (mut copied, mut opened) = (sealed.clone(), sealed.clone());
        let (mut out, mut other, mut back) = (Vec::new(), Vec::new(), Vec::new());
        acme.try_encrypt_into(&NOTE, &plain, &mut out)?;
        let [limit_seal, copy, copy_and_open, ours_seal, ours_open, fresh_seal, fresh_open] = medians([
            &mut || {
                black_box(key.seal_in_place_separate_tag(nonce(), Aad::from(&aad), black_box(&mut buffer)).is_ok());
            },
            // Opening destroys its input: what is opened is first copied back, and the copy is taken off.
            &mut || black_box(&mut copied).copy_from_slice(black_box(&sealed)),
            &mut || {
                opened.copy_from_slice(black_box(&sealed));
                black_box(key.open_in_place(nonce(), Aad::from(&aad), black_box(&mut opened)).is_ok());
            },
            &mut || {
                black_box(acme.try_encrypt_into(&NOTE, black_box(&plain), &mut other).is_ok());
            },
            &mut || {
                black_box(acme.try_decrypt_into(&NOTE, black_box(&out), &mut back).is_ok());
            },
            &mut || {
                black_box(acme.try_encrypt(&NOTE, black_box(&plain)).is_ok());
            },
            &mut || {
                black_box(acme.try_decrypt(&NOTE, black_box(&out)).is_ok());
            },
        ]);
        let mut limit_open = copy_and_open;
        for (open, copy) in limit_open.iter_mut().zip(copy) {
            *open -= copy;
        }
        let allocs_seal = allocations::of(|| drop(acme.try_encrypt(&NOTE, &plain)));
        let allocs_open = allocations::of(|| drop(acme.try_decrypt(&NOTE, &out)));
        assert_eq!(back, plain);
        assert_eq!(acme.try_decrypt(&NOTE, &other)?, plain);
        assert_eq!(cloud.fetches.load(Ordering::SeqCst), fetches, "a hit made a call");

        #[cfg(feature = "peers")]
        let (peer_seal, peer_open) = runtime.block_on(peer.measure(&plain))?;
        #[cfg(not(feature = "peers"))]
        let (peer_seal, peer_open) = (f64::NAN, f64::NAN);
        for (what, ours, fresh, limit, peer, allocs) in [
            ("encrypt", ours_seal, fresh_seal, limit_seal, peer_seal, allocs_seal),
            ("decrypt", ours_open, fresh_open, limit_open, peer_open, allocs_open),
        ] {
            let ns = median(&mut ours.clone());
            println!(
                "bench envelope.{what} size={size} over_limit={:.2} esdk_over_ours={:.0} allocs={allocs} ns={ns:.0} limit_ns={:.0} esdk_ns={peer:.0} fresh_buffer_over_limit={:.2} calls=0",
                ratio(&ours, &limit),
                peer / ns,
                median(&mut limit.clone()),
                ratio(&fresh, &limit),
            );
        }
    }
    Ok(())
}

fn threads(runtime: &tokio::runtime::Runtime, client: &Envelope) -> Result<()> {
    let (size, plain) = (1024, vec![1; 1024]);
    for tenants in [1_usize, 10_000] {
        let handles: Vec<_> = (0..tenants).map(|n| client.instance(&format!("org-{n}"), "site", "jira")).collect();
        for handle in &handles {
            runtime.block_on(handle.encrypt(&NOTE, b"warm"))?;
        }
        let rate = |threads: usize| -> f64 {
            let done = AtomicU64::new(0);
            let ready = std::sync::Barrier::new(threads);
            let took: Vec<Duration> = std::thread::scope(|scope| {
                let workers: Vec<_> = (0..threads)
                    .map(|core| {
                        let (handles, plain, done, ready) = (&handles, &plain, &done, &ready);
                        scope.spawn(move || {
                            pin(core);
                            let mut out = Vec::new();
                            for handle in handles {
                                let _ = handle.try_encrypt_into(&NOTE, plain, &mut out);
                            }
                            ready.wait();
                            let (mut n, began) = (0_u64, Instant::now());
                            while began.elapsed() < Duration::from_millis(400) {
                                for handle in handles.iter().cycle().skip(n as usize % tenants).take(512) {
                                    n += u64::from(handle.try_encrypt_into(&NOTE, plain, &mut out).is_ok());
                                }
                            }
                            done.fetch_add(n, Ordering::Relaxed);
                            began.elapsed()
                        })
                    })
                    .collect();
                workers.into_iter().filter_map(|worker| worker.join().ok()).collect()
            });
            let longest = took.into_iter().max().unwrap_or_default();
            done.load(Ordering::Relaxed) as f64 / longest.as_secs_f64()
        };
        let mut scalings: Vec<f64> = (0..5).map(|_| { let one = rate(1); rate(2) / one }).collect();
        scalings.sort_by(f64::total_cmp);
        println!("bench envelope.threads tenants={tenants} size={size} scaling={:.2}", scalings[2]);
    }
    Ok(())
}

fn memory(runtime: &tokio::runtime::Runtime) -> Result<()> {
    const TENANTS: usize = 100_000;
    let source = cloud::Synthetic::default();
    let client =
        Envelope::builder().fence(cloud::OpenFence).keys(source).clock(Arc::default()).manual().start()?;
    let warm = client.instance("warm", "s", "jira");
    runtime.block_on(warm.encrypt(&NOTE, b"x"))?;
    let before = allocations::live();
    runtime.block_on(async {
        for n in 0..TENANTS {
            client.instance(&format!("org-{n}"), "site", "jira").encrypt(&NOTE, b"x").await?;
        }
        Ok::<_, claviger_envelope::EnvelopeError>(())
    })?;
    let bytes = allocations::live().saturating_sub(before);
    println!("bench envelope.memory tenants={TENANTS} bytes_per_tenant={}", bytes / TENANTS);
    Ok(())
}

fn single_flight(runtime: &tokio::runtime::Runtime) -> Result<()> {
    let cloud = TestCloud::new();
    let client = Envelope::builder()
        .fence(cloud.clone())
        .keys(cloud.clone())
        .clock(cloud.clock.clone())
        .manual()
        .start()?;
    runtime.block_on(async {
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        cloud.hold(Some(gate.clone()));
        let touches: Vec<_> = (0..1000)
            .map(|_| {
                let handle = client.instance("acme", "acme-eng", "jira");
                tokio::spawn(async move { handle.encrypt(&NOTE, b"x").await.map(drop) })
            })
            .collect();
        while client.metrics().misses < 1000 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(1000);
        for touch in touches {
            touch.await??;
        }
        Ok::<_, Box<dyn Error>>(())
    })?;
    let metrics = client.metrics();
    println!(
        "bench envelope.singleflight touches=1000 kms_calls={} broker_calls={}",
        metrics.kms_calls, metrics.broker_calls
    );
    Ok(())
}
