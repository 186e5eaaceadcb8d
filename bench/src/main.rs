//! `make bench`: one line a figure, median of 5, pinned to a core.
//!
//! The limit is AES-256-GCM of aws-lc-rs in place with a prepared key, measured here in the same run. The peers are
//! the official Encryption SDK with key commitment, and Tink.

mod allocations;
mod cloud;
mod cutoff;
#[cfg(feature = "peers")]
mod esdk;
mod kms;
mod measure;
mod ports;
mod reencrypt;
mod threads;
#[cfg(feature = "peers")]
mod tink;
mod watch;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use claviger_envelope::testing::{TestCloud, locks_taken};
use claviger_envelope::{Context, Envelope};
use measure::{RUNS, Run, median, pin};
use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const NOTE: Context<'static> = Context::new("note", "note-42");
const SIZES: [usize; 4] = [100, 1024, 65_536, 1_048_576];
const HALF_A_PAGE: usize = 2048;

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
        threads::scaling(&runtime, &client)?;
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
    }
    if wanted("cutoff") || wanted("fanout") {
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

/// Both directions of every size.
///
/// The limit works in place on a buffer that begins where in a cache line ours writes its output, since
/// that alone makes a difference of 6 % with wide registers; all buffers are allocated anew for each run. Small records
/// that are read were written in two runs and are read in turn, so that none finds its message key from the one before;
/// `same_run_over_limit` is what it costs when it does.
///
/// A megabyte read and a megabyte written just fill a core's own cache. Whether they fit would depend on which physical
/// pages a run happens to get; so buffers of that size lie in huge pages (where the kernel grants them), the limit's as
/// well as ours. Input begins half a page further than output does: where both began at the same place of a page, a
/// processor would take reads for reads of what was written last, and wait.
///
/// What the limit has opened in place is no longer sealed; but it is what the same key and nonce would have sealed into
/// what lay there before, since GCM adds the same key stream either way. So it opens with one of two tags in turn, nothing
/// is sealed between the times, and none is the difference of two others.
///
/// `over_limit` is into a buffer that is reused, as the limit's is; `allocs` are those of the plain call, whose time is `fresh_buffer_over_limit`.
fn records(runtime: &tokio::runtime::Runtime, client: &Envelope) -> Result<()> {
    let acme = client.instance("acme", "acme-eng", "jira");
    runtime.block_on(acme.encrypt(&NOTE, b"warm"))?;
    #[cfg(feature = "peers")]
    let (esdk, tink) = (runtime.block_on(esdk::Peer::new())?, tink::Peer::new()?);
    for size in SIZES {
        let plain = vec![0x5A; size];
        let calls = client.metrics().broker_calls;
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).map_err(|_| "key")?);
        // As much as ours has with the identifiers of a real instance, which are UUIDs.
        let aad = [9_u8; 112];
        let mut runs = Vec::new();
        for _ in 0..RUNS {
            let large = size >= allocations::LARGE;
            let (plain, sealed, mut out, mut back, mut buffer, mut turned) =
                allocations::in_huge_pages(|| {
                    let mut sealed = [Vec::new(), Vec::new()];
                    for sealed in &mut sealed {
                        client.reseed();
                        acme.try_encrypt_into(&NOTE, &plain, sealed)?;
                    }
                    let (mut out, mut back) = (Vec::new(), Vec::new());
                    acme.try_encrypt_into(&NOTE, &plain, &mut out)?;
                    acme.try_decrypt_into(&NOTE, &sealed[0], &mut back)?;
                    let buffer = Aligned::like(&out, size);
                    let turned = Aligned::like(&back, size);
                    let plain = [&[0; HALF_A_PAGE], &*plain].concat();
                    Ok::<_, claviger_envelope::EnvelopeError>((plain, sealed, out, back, buffer, turned))
                })?;
            let plain = &plain[HALF_A_PAGE..];
            let mut tags = Vec::new();
            for _ in 0..2 {
                let tag = key.seal_in_place_separate_tag(nonce(), Aad::from(&aad), turned.bytes());
                tags.push(tag.map_err(|_| "tag")?);
            }
            let mut opened = 0;
            let mut again = allocations::in_huge_pages(|| Vec::with_capacity(back.capacity()));
            let (mut turn, mut turn_fresh) = (0, 0);
            // Beside a large record its message key is nothing, and the other record would not be in the cache.
            let other = |turn: &mut usize| {
                *turn = if large { 0 } else { 1 - *turn };
                *turn
            };
            let mut things: [&mut dyn FnMut(); 7] = [
                &mut || {
                    black_box(
                        key.seal_in_place_separate_tag(nonce(), Aad::from(&aad), black_box(buffer.bytes()))
                            .is_ok(),
                    );
                },
                &mut || {
                    let tag = tags[1 - opened % 2].as_ref();
                    let opens = key.open_in_place_separate_tag(
                        nonce(),
                        Aad::from(&aad),
                        tag,
                        black_box(turned.bytes()),
                    );
                    assert!(black_box(opens.is_ok()));
                    opened += 1;
                },
                &mut || {
                    black_box(acme.try_encrypt_into(&NOTE, black_box(plain), &mut out).is_ok());
                },
                &mut || {
                    let sealed = &sealed[other(&mut turn)];
                    black_box(acme.try_decrypt_into(&NOTE, black_box(sealed), &mut back).is_ok());
                },
                &mut || {
                    black_box(acme.try_encrypt(&NOTE, black_box(plain)).is_ok());
                },
                &mut || {
                    let sealed = &sealed[other(&mut turn_fresh)];
                    black_box(acme.try_decrypt(&NOTE, black_box(sealed)).is_ok());
                },
                &mut || {
                    black_box(acme.try_decrypt_into(&NOTE, black_box(&sealed[0]), &mut again).is_ok());
                },
            ];
            let run = Run::new(&mut things);
            #[cfg(feature = "peers")]
            let peers = [runtime.block_on(esdk.run(&plain))?, tink.run(&plain, &aad)?];
            #[cfg(not(feature = "peers"))]
            let peers = [[f64::NAN; 2]; 2];
            assert_eq!(back, plain);
            assert_eq!(acme.try_decrypt(&NOTE, &out)?, plain);
            runs.push((run, peers));
        }
        let record = acme.try_encrypt(&NOTE, &plain)?;
        let locks = locks_taken();
        let allocs_seal = allocations::of(|| drop(acme.try_encrypt(&NOTE, &plain)));
        let allocs_open = allocations::of(|| drop(acme.try_decrypt(&NOTE, &record)));
        let locks = locks_taken() - locks;
        let calls = client.metrics().broker_calls - calls;
        assert_eq!((calls, locks), (0, 0), "a hit makes no call and takes no lock");

        type Round = [f64; 7];
        type Of = fn(&Round) -> f64;
        let (seal_limit, open_limit): (Of, Of) = (|[seal, ..]| *seal, |[_, open, ..]| *open);
        for (what, limit, ours, fresh, same_run, side, allocs) in [
            ("encrypt", seal_limit, 2, 4, 2, 0, allocs_seal),
            ("decrypt", open_limit, 3, 5, 6, 1, allocs_open),
        ] {
            let of = |value: &dyn Fn(&Run<7>, &[[f64; 2]; 2]) -> f64| {
                median(runs.iter().map(|(run, peers)| value(run, peers)).collect())
            };
            let over_limit = |index: usize| of(&|run, _| run.median(|round| round[index] / limit(round)));
            let peer_over_ours =
                |peer: usize| of(&|run, peers| peers[peer][side] / run.median(|round| round[ours]));
            println!(
                "bench envelope.{what} size={size} over_limit={:.2} esdk_over_ours={:.0} allocs={allocs}",
                over_limit(ours),
                peer_over_ours(0),
            );
            println!(
                "bench envelope.{what}-detail size={size} ns={:.0} limit_ns={:.0} esdk_ns={:.0} tink_over_ours={:.1} fresh_buffer_over_limit={:.2} same_run_over_limit={:.2} calls={calls} locks={locks}",
                of(&|run, _| run.median(|round| round[ours])),
                of(&|run, _| run.median(limit)),
                of(&|_, peers| peers[0][side]),
                peer_over_ours(1),
                over_limit(fresh),
                over_limit(same_run),
            );
        }
    }
    Ok(())
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([1; 12])
}

/// Bytes that begin at the same place of a cache line as another buffer does.
struct Aligned {
    bytes: Vec<u8>,
    from: usize,
    length: usize,
}

impl Aligned {
    fn like(other: &[u8], length: usize) -> Self {
        const LINE: usize = 64;
        let bytes = vec![0x5A; length + LINE];
        let from = (other.as_ptr().addr() + LINE - bytes.as_ptr().addr() % LINE) % LINE;
        Self { bytes, from, length }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[self.from..self.from + self.length]
    }
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
