//! `make bench`: one line a figure, median of 5, pinned to a core.
//!
//! The limit is AES-256-GCM of aws-lc-rs in place with a prepared key, measured here in the same run. The peer is
//! the official Encryption SDK with key commitment.

mod allocations;
mod cloud;
mod cutoff;
#[cfg(feature = "peers")]
mod esdk;
mod kms;
mod measure;
mod ports;
mod reencrypt;
mod watch;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use claviger_envelope::testing::TestCloud;
use claviger_envelope::{Context, Envelope};
use measure::{RUNS, Run, median, pin};
use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const NOTE: Context<'static> = Context::new("note", "note-42");
const SIZES: [usize; 4] = [100, 1024, 65_536, 1_048_576];

/// `make bench` measures everything; names on the command line narrow it down.
fn main() -> Result<()> {
    let only: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &str| only.is_empty() || only.iter().any(|only| only == name);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let client = Envelope::builder().fence(cloud::OpenFence).keys(cloud::Synthetic).manual().start()?;
    let keep = lease_keeper(&client);
    pin(0);
    if wanted("records") {
        records(&runtime, &client)?;
    }
    if wanted("threads") {
        threads(&runtime, &client)?;
    }
    drop(keep);
    if wanted("memory") {
        memory(&runtime)?;
    }
    if wanted("singleflight") {
        single_flight(&runtime)?;
    }
    if wanted("cutoff") {
        cutoff::round_trips()?;
        cutoff::in_process(&runtime)?;
        watch::fan_out()?;
    }
    if wanted("prober") {
        watch::rate()?;
        watch::cost()?;
        watch::brownout()?;
    }
    if wanted("reencrypt") {
        reencrypt::measure()?;
    }
    if wanted("kms") {
        kms::replay(&tokio::runtime::Builder::new_current_thread().enable_all().build()?)?;
    }
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

fn records(runtime: &tokio::runtime::Runtime, client: &Envelope) -> Result<()> {
    let acme = client.instance("acme", "acme-eng", "jira");
    runtime.block_on(acme.encrypt(&NOTE, b"warm"))?;
    #[cfg(feature = "peers")]
    let peer = runtime.block_on(esdk::Peer::new())?;
    for size in SIZES {
        let plain = vec![0x5A; size];
        let calls = client.metrics().broker_calls;

        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).map_err(|_| "key")?);
        let nonce = || Nonce::assume_unique_for_key([1; 12]);
        // As much as ours has with the identifiers of a real instance, which are UUIDs.
        let aad = [9_u8; 112];
        let mut buffer = plain.clone();
        let mut turned = [&plain[..], &[0; 16]].concat();
        let (mut out, mut other, mut back) = (Vec::new(), Vec::new(), Vec::new());
        acme.try_encrypt_into(&NOTE, &plain, &mut out)?;
        let mut runs = Vec::new();
        for _ in 0..RUNS {
            let run = Run::new(&mut [
                &mut || {
                    black_box(
                        key.seal_in_place_separate_tag(nonce(), Aad::from(&aad), black_box(&mut buffer))
                            .is_ok(),
                    );
                },
                // Opening in place leaves nothing to open again, so it is sealed each time, and that is taken off.
                &mut || {
                    let (body, end) = turned.split_at_mut(size);
                    if let Ok(tag) = key.seal_in_place_separate_tag(nonce(), Aad::from(&aad), black_box(body))
                    {
                        end.copy_from_slice(tag.as_ref());
                    }
                    black_box(key.open_in_place(nonce(), Aad::from(&aad), black_box(&mut turned)).is_ok());
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
            #[cfg(feature = "peers")]
            let esdk = runtime.block_on(peer.run(&plain))?;
            #[cfg(not(feature = "peers"))]
            let esdk = [f64::NAN; 2];
            runs.push((run, esdk));
        }
        let allocs_seal = allocations::of(|| drop(acme.try_encrypt(&NOTE, &plain)));
        let allocs_open = allocations::of(|| drop(acme.try_decrypt(&NOTE, &out)));
        assert_eq!(turned[..size], plain);
        assert_eq!(back, plain);
        assert_eq!(acme.try_decrypt(&NOTE, &other)?, plain);
        let calls = client.metrics().broker_calls - calls;
        assert_eq!(calls, 0, "a hit makes no call");

        type Round = [f64; 6];
        type Of = fn(&Round) -> f64;
        let seal_limit: Of = |[seal, ..]| *seal;
        let open_limit: Of = |[seal, both, ..]| both - seal;
        for (what, limit, ours, fresh, peer, allocs) in
            [("encrypt", seal_limit, 2, 4, 0, allocs_seal), ("decrypt", open_limit, 3, 5, 1, allocs_open)]
        {
            let of = |value: &dyn Fn(&Run<6>, &[f64; 2]) -> f64| {
                median(runs.iter().map(|(run, esdk)| value(run, esdk)).collect())
            };
            let over_limit = |index: usize| of(&|run, _| run.median(|round| round[index] / limit(round)));
            println!(
                "bench envelope.{what} size={size} over_limit={:.2} esdk_over_ours={:.0} allocs={allocs}",
                over_limit(ours),
                of(&|run, esdk| esdk[peer] / run.median(|round| round[ours])),
            );
            println!(
                "bench envelope.{what}-detail size={size} ns={:.0} limit_ns={:.0} esdk_ns={:.0} fresh_buffer_over_limit={:.2} calls={calls}",
                of(&|run, _| run.median(|round| round[ours])),
                of(&|run, _| run.median(limit)),
                of(&|_, esdk| esdk[peer]),
                over_limit(fresh),
            );
        }
    }
    Ok(())
}

/// Two threads against one. The limit, with nothing shared at all, shows what the machine itself allows.
fn threads(runtime: &tokio::runtime::Runtime, client: &Envelope) -> Result<()> {
    let (size, plain) = (1024, vec![1; 1024]);
    for tenants in [1_usize, 10_000] {
        let handles: Vec<_> =
            (0..tenants).map(|n| client.instance(&format!("org-{n}"), "site", "jira")).collect();
        for handle in &handles {
            runtime.block_on(handle.encrypt(&NOTE, b"warm"))?;
        }
        let ours = |threads| {
            rate(threads, || {
                let (mut out, mut next) = (Vec::new(), handles.iter().cycle());
                for handle in &handles {
                    let _ = handle.try_encrypt_into(&NOTE, &plain, &mut out);
                }
                let plain = &plain;
                move || {
                    next.next().is_some_and(|handle| handle.try_encrypt_into(&NOTE, plain, &mut out).is_ok())
                }
            })
        };
        let limit = |threads| {
            rate(threads, || {
                let key = UnboundKey::new(&AES_256_GCM, &[7; 32]).map(LessSafeKey::new);
                let (mut buffer, aad) = (plain.clone(), [9_u8; 112]);
                move || {
                    let nonce = Nonce::assume_unique_for_key([1; 12]);
                    key.as_ref().is_ok_and(|key| {
                        key.seal_in_place_separate_tag(nonce, Aad::from(&aad), &mut buffer).is_ok()
                    })
                }
            })
        };
        let (mut scaling, mut limit_scaling) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            scaling.push(ours(2) / ours(1));
            limit_scaling.push(limit(2) / limit(1));
        }
        println!("bench envelope.threads tenants={tenants} size={size} scaling={:.2}", median(scaling));
        println!(
            "bench envelope.threads-detail tenants={tenants} size={size} limit_scaling={:.2}",
            median(limit_scaling)
        );
    }
    Ok(())
}

/// Operations a second of so many threads, each on a core of its own.
fn rate<F: FnMut() -> bool>(threads: usize, make: impl Fn() -> F + Sync) -> f64 {
    let ready = std::sync::Barrier::new(threads);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|core| {
                let (make, ready) = (&make, &ready);
                scope.spawn(move || {
                    pin(core);
                    let mut operation = make();
                    ready.wait();
                    let (mut n, began) = (0_u64, Instant::now());
                    while began.elapsed() < Duration::from_millis(300) {
                        n += (0..256).map(|_| u64::from(operation())).sum::<u64>();
                    }
                    n as f64 / began.elapsed().as_secs_f64()
                })
            })
            .collect();
        workers.into_iter().filter_map(|worker| worker.join().ok()).sum()
    })
}

fn memory(runtime: &tokio::runtime::Runtime) -> Result<()> {
    const TENANTS: usize = 100_000;
    let client = Envelope::builder()
        .fence(cloud::OpenFence)
        .keys(cloud::Synthetic)
        .clock(Arc::default())
        .manual()
        .start()?;
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
    println!("bench envelope.singleflight touches=1000 kms_calls={}", metrics.kms_calls);
    println!("bench envelope.singleflight-detail broker_calls={}", metrics.broker_calls);
    Ok(())
}
