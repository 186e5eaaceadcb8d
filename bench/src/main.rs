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
use std::cell::RefCell;
use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const NOTE: Context<'static> = Context::new("note", "note-42");
const SIZES: [usize; 4] = [100, 1024, 65_536, 1_048_576];
/// Bytes of input that are gone round through where one alone would fill a core's own cache, which has one or two MiB.
const ROUND: usize = 16 << 20;
/// From here on it is so.
const LARGE: usize = 1 << 20;

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
/// that alone makes a difference of 6 % with wide registers; all buffers are allocated anew for each run. Records that
/// are read were written in two runs and are read in turn, so that none finds its message key from the one before;
/// `same_run_over_limit` is what it costs when it does.
///
/// Input that does not fit into a core's own cache is taken in turn from so much of it (`ROUND`) that no call finds what
/// the one before left there: an app's megabyte has just come from elsewhere, too. The limit, which works in place,
/// would otherwise go over the same warm megabyte again and again, and open what it has just sealed.
///
/// What the limit has opened in place is no longer sealed. Small input is sealed anew each time, and the time of that is
/// taken off; large input between the times, since the difference of two long ones would be mostly noise.
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
            let large = size >= LARGE;
            let round = if large { ROUND / size } else { 2 };
            let mut sealed = vec![Vec::new(); round];
            for sealed in &mut sealed {
                client.reseed();
                acme.try_encrypt_into(&NOTE, &plain, sealed)?;
            }
            let plains = vec![plain.clone(); round];
            let (mut out, mut back) = (Vec::new(), Vec::new());
            acme.try_encrypt_into(&NOTE, &plain, &mut out)?;
            acme.try_decrypt_into(&NOTE, &sealed[0], &mut back)?;
            // Small input stays where it is; of large input each thing has as many buffers.
            let places = if large { round } else { 1 };
            let mut buffers: Vec<_> = (0..places).map(|_| Aligned::like(&out, size)).collect();
            let mut turned: Vec<_> = (0..places).map(|_| Aligned::like(&back, size + 16)).collect();
            for turned in &mut turned {
                seal_with_tag(&key, &aad, turned.bytes());
            }
            let next = |turn: &mut usize, of: usize| {
                *turn = if *turn + 1 < of { *turn + 1 } else { 0 };
                *turn
            };
            let (turned, opened) = (RefCell::new(turned), RefCell::new(Vec::new()));
            let (mut sealing, mut opening) = (0, 0);
            let (mut writing, mut writing_fresh) = (0, 0);
            let (mut turn, mut turn_fresh, mut again) = (0, 0, Vec::new());
            let mut things: [&mut dyn FnMut(); 7] = [
                &mut || {
                    let buffer = buffers[next(&mut sealing, places)].bytes();
                    black_box(
                        key.seal_in_place_separate_tag(nonce(), Aad::from(&aad), black_box(buffer)).is_ok(),
                    );
                },
                &mut || {
                    let place = next(&mut opening, places);
                    let mut turned = turned.borrow_mut();
                    let turned = turned[place].bytes();
                    if !large {
                        seal_with_tag(&key, &aad, black_box(turned));
                    }
                    let opens = key.open_in_place(nonce(), Aad::from(&aad), black_box(turned)).is_ok();
                    assert!(black_box(opens));
                    if large {
                        opened.borrow_mut().push(place);
                    }
                },
                &mut || {
                    let plain = &plains[next(&mut writing, places)];
                    black_box(acme.try_encrypt_into(&NOTE, black_box(plain), &mut out).is_ok());
                },
                &mut || {
                    let sealed = &sealed[next(&mut turn, round)];
                    black_box(acme.try_decrypt_into(&NOTE, black_box(sealed), &mut back).is_ok());
                },
                &mut || {
                    let plain = &plains[next(&mut writing_fresh, places)];
                    black_box(acme.try_encrypt(&NOTE, black_box(plain)).is_ok());
                },
                &mut || {
                    let sealed = &sealed[next(&mut turn_fresh, round)];
                    black_box(acme.try_decrypt(&NOTE, black_box(sealed)).is_ok());
                },
                &mut || {
                    black_box(acme.try_decrypt_into(&NOTE, black_box(&sealed[0]), &mut again).is_ok());
                },
            ];
            let run = Run::prepared(&mut things, &mut || {
                for place in opened.borrow_mut().drain(..) {
                    seal_with_tag(&key, &aad, turned.borrow_mut()[place].bytes());
                }
            });
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
        let seal_limit: Of = |[seal, ..]| *seal;
        let open_limit: Of =
            if size < LARGE { |[seal, both, ..]| both - seal } else { |[_, open, ..]| *open };
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

/// Seals all but the last 16 bytes, and writes the tag there.
fn seal_with_tag(key: &LessSafeKey, aad: &[u8; 112], bytes: &mut [u8]) {
    let (body, end) = bytes.split_at_mut(bytes.len() - 16);
    if let Ok(tag) = key.seal_in_place_separate_tag(nonce(), Aad::from(aad), body) {
        end.copy_from_slice(tag.as_ref());
    }
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
