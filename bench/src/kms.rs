//! KMS calls of a fleet at the reference's rate, in virtual time: an hour from a cold start.
//!
//! An operation that finds its key in the process changes no cache, so of the half billion only those are replayed
//! that ask the broker. That leaves nothing out: operations of one process on one tenant come as a Poisson
//! process, which has no memory, and a key that was fetched is asked for anew by the first operation from
//! `Lifetime::refresh_at` on, an exponential time later. When that is comes from the library's own clockwork; that a
//! whole `Envelope` with every operation done one by one asks as often is shown on a sample of processes.
//!
//! All those requests meet the broker's own `UnwrappedKeys`, in the order of time. What a broker answers for one
//! key does not depend on other keys, so the tenants are replayed one after the other. A request that the trace
//! knows to find a key of its broker changes nothing there either: one in 61 is made all the same, and must find it.

use crate::{NOTE, Result};
use claviger_app::unwrapped_keys::UnwrappedKeys;
use claviger_domain::fence::Epoch;
use claviger_domain::ids::DataKeyId;
use claviger_envelope::Envelope;
use claviger_envelope::testing::{Lifetime, Now, REFRESH, TestCloud, Times};
use jiff::{SignedDuration, Timestamp};
use std::convert::Infallible;
use std::sync::atomic::Ordering;
use zeroize::Zeroizing;

const SEED: u64 = 20_261_122;
const OPS_PER_S: u64 = 136_700;
const PROCESSES: usize = 12_500;
const TENANTS: usize = 10_000;
const BROKERS: usize = 8;
const HOUR: i64 = 3_600_000;
const NOT_AFTER: i64 = 300_000;
const LIFETIMES_S: [i64; 2] = [300, 3600];
const CHECK_EVERY: u64 = 61;
/// The sample of processes that do every operation, and for how long.
const SAMPLE: usize = 16;
const SAMPLE_MILLIS: i64 = 900_000;

pub fn replay(runtime: &tokio::runtime::Runtime) -> Result<()> {
    let mut random = Random(SEED);
    let mut fleet = Vec::new();
    for lifetime in LIFETIMES_S {
        for routing in [Routing::Hash, Routing::None] {
            fleet.push(Brokers { lifetime, routing, kms_calls: 0 });
        }
    }
    let weights: f64 = (1..=TENANTS).map(|rank| 1.0 / rank as f64).sum();
    let (mut requests, mut early) = (0_u64, 0_u64);
    let mut trace = Vec::new();
    for tenant in 1..=TENANTS {
        let per_milli = OPS_PER_S as f64 / 1000.0 / PROCESSES as f64 / tenant as f64 / weights;
        requests_for(per_milli, &mut random, &mut trace);
        requests += trace.len() as u64;
        early += trace.iter().filter(|request| (**request >> 3) < SAMPLE_MILLIS as u64).count() as u64;
        for brokers in &mut fleet {
            runtime.block_on(brokers.serve(&trace));
        }
    }
    let ops = (OPS_PER_S * 3600) as f64;
    for Brokers { lifetime, routing, kms_calls } in fleet {
        let routing = match routing {
            Routing::Hash => "hash",
            Routing::None => "none",
        };
        println!(
            "bench envelope.kms lifetime_s={lifetime} ops_per_s={OPS_PER_S} processes={PROCESSES} tenants={TENANTS} brokers={BROKERS} routing={routing} per_million={:.0}",
            kms_calls as f64 / ops * 1e6,
        );
    }
    println!(
        "bench envelope.kms-detail broker_calls_per_million={:.0} not_after_s={} virtual_s=3600 seed={SEED}",
        requests as f64 / ops * 1e6,
        NOT_AFTER / 1000,
    );
    let done = runtime.block_on(sample(&mut random, weights))?;
    let expected = early as f64 / PROCESSES as f64 * SAMPLE as f64;
    println!(
        "bench envelope.kms-sample processes={SAMPLE} virtual_s={} ops={} broker_calls={} over_trace={:.3}",
        SAMPLE_MILLIS / 1000,
        done.ops,
        done.broker_calls,
        done.broker_calls as f64 / expected,
    );
    Ok(())
}

/// The requests of all processes for one tenant's key, in the order of time: milliseconds, and in the lowest three
/// bits the broker that gets it without routing.
fn requests_for(per_milli: f64, random: &mut Random, trace: &mut Vec<u64>) {
    trace.clear();
    for _ in 0..PROCESSES {
        let mut at = random.exponential(per_milli);
        while at < HOUR {
            trace.push((at as u64) << 3 | random.next() >> 61);
            let now = Now { boot: at, wall: at };
            let lifetime = Lifetime::new(now, at + NOT_AFTER, NOT_AFTER, random.between(REFRESH));
            let refresh = lifetime.refresh_at();
            let next = refresh + random.exponential(per_milli);
            if trace.len() as u64 % CHECK_EVERY == 0 {
                let times = Times::new(lifetime);
                let at = |millis| Now { boot: millis, wall: millis };
                assert!(!times.wants_refresh(at(refresh - 1)) && !times.expired(at(refresh)));
                assert!(times.wants_refresh(at(next)), "the trace asks where the library would not");
            }
            at = next;
        }
    }
    trace.sort_unstable();
}

#[derive(Clone, Copy)]
enum Routing {
    /// By a hash of the tenant: one broker sees all of its requests.
    Hash,
    /// To any broker.
    None,
}

struct Brokers {
    lifetime: i64,
    routing: Routing,
    kms_calls: u64,
}

impl Brokers {
    async fn serve(&mut self, trace: &[u64]) {
        let caches: [UnwrappedKeys; BROKERS] = Default::default();
        let mut valid_until = [0; BROKERS];
        let id = DataKeyId::from_uuid(uuid::Uuid::from_u128(1));
        let lifetime = SignedDuration::from_secs(self.lifetime);
        for (number, request) in trace.iter().enumerate() {
            let at = (request >> 3) as i64;
            let broker = match self.routing {
                Routing::Hash => 0,
                Routing::None => (request & 7) as usize,
            };
            let found = at < valid_until[broker];
            if found && number as u64 % CHECK_EVERY != 0 {
                continue;
            }
            let now = Timestamp::UNIX_EPOCH + SignedDuration::from_millis(at);
            let mut unwrapped = false;
            let unwrap = async || {
                unwrapped = true;
                Ok::<_, Infallible>((Zeroizing::new(vec![0; 32]), now))
            };
            let Ok(_) = caches[broker].get_or_unwrap(id, Epoch(1), || now, lifetime, unwrap).await;
            assert_ne!(unwrapped, found, "the trace and the broker's cache do not agree");
            if unwrapped {
                self.kms_calls += 1;
                valid_until[broker] = at + self.lifetime * 1000;
            }
        }
    }
}

struct Done {
    ops: u64,
    broker_calls: u64,
}

/// Some processes of the fleet, whole: every operation through an `Envelope` of its own.
async fn sample(random: &mut Random, weights: f64) -> Result<Done> {
    let mut sums = Vec::with_capacity(TENANTS);
    let mut sum = 0.0;
    for rank in 1..=TENANTS {
        sum += 1.0 / rank as f64 / weights;
        sums.push(sum);
    }
    let per_milli = OPS_PER_S as f64 / 1000.0 / PROCESSES as f64;
    let mut done = Done { ops: 0, broker_calls: 0 };
    for _ in 0..SAMPLE {
        let cloud = TestCloud::new();
        cloud.lifetimes(NOT_AFTER, NOT_AFTER);
        let client = Envelope::builder()
            .fence(cloud.clone())
            .keys(cloud.clone())
            .clock(cloud.clock.clone())
            .manual()
            .start()?;
        let tenants: Vec<_> =
            (0..TENANTS).map(|n| client.instance(&format!("org-{n}"), "site", "jira")).collect();
        let began = cloud.clock.now().boot;
        let (mut at, mut polled) = (0, 0);
        loop {
            at += random.exponential(per_milli);
            if at >= SAMPLE_MILLIS {
                break;
            }
            cloud.clock.advance(began + at - cloud.clock.now().boot);
            if at >= polled {
                client.poll().await?;
                polled = at + 5_000;
            }
            let drawn = random.unit();
            let tenant = sums.partition_point(|sum| *sum < drawn).min(TENANTS - 1);
            let before = cloud.fetches.load(Ordering::SeqCst);
            tenants[tenant].encrypt(&NOTE, b"x").await?;
            // A refresh runs in the background and is let finish before time goes on.
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            debug_assert!(cloud.fetches.load(Ordering::SeqCst) <= before + 1);
            done.ops += 1;
        }
        done.broker_calls += cloud.fetches.load(Ordering::SeqCst);
    }
    Ok(done)
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    /// From above 0 to 1.
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    fn between(&mut self, (low, high): (f64, f64)) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Milliseconds to the next event of a Poisson process.
    fn exponential(&mut self, per_milli: f64) -> i64 {
        (-self.unit().ln() / per_milli) as i64
    }
}
