//! From a refusal to nothing readable: round trips to the closed fence, and what a process does with its keys then.

use crate::measure::{median, pin};
use crate::ports::{Cloud, Latency};
use crate::{NOTE, Result};
use async_trait::async_trait;
use claviger_app::follow_hint::{FollowHint, FollowedRefusals};
use claviger_app::report_probes::{Reason, ReportProbes};
use claviger_domain::ids::CorrelationId;
use claviger_domain::observation::{Observation, RefusalKind};
use claviger_envelope::fence::{FenceError, FenceReader, FencedPolicy, WatchedShard};
use claviger_envelope::source::{DataKey, Proof, SourceError, Wanted};
use claviger_envelope::{Envelope, FenceSnapshot, InstanceName, KeyBytes, KeySource};
use claviger_testkit::builders;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use uuid::Uuid;

const KEYS: usize = 1_000_000;
const POLICY: &str = "0193d2a7-0000-4000-8000-00000000beef";

/// Sequential calls of AWS from the handler's start to the closed fence: each call takes one second of virtual time,
/// so the seconds that pass are the calls that had to wait for one another. The ports are the adapters' own, one AWS
/// call each; a BYOK probe assumes the customer's role anew before each Decrypt.
pub fn round_trips() -> Result<()> {
    for (mode, byok) in [("cmk", false), ("byok", true)] {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
        let n = runtime.block_on(async {
            let latency = Latency { call: Duration::from_secs(1), kms: Duration::from_secs(1), byok };
            let cloud = Cloud::new(latency);
            let policy = cloud.enrol("acme", "222222222222", "germany").await;
            cloud.answer(&policy, Observation::Refused(RefusalKind::KeyDisabled));
            let report = ReportProbes {
                probe: cloud.probe(),
                policies: &cloud,
                hints: &cloud,
                queue: &cloud,
                watch: &cloud,
                clock: &cloud,
                settings: builders::settings(),
            };
            let followed = FollowedRefusals::default();
            let follow = FollowHint { report, queue: &cloud, followed: &followed };
            let correlation = CorrelationId::from_uuid(Uuid::new_v4());
            let began = tokio::time::Instant::now();
            follow.run(&policy.organisation_name, 0, &Reason::default(), correlation).await?;
            let n = began.elapsed().as_secs();
            assert!(!cloud.policy_now(&policy.organisation_name).await.fence.is_open(), "the fence is open");
            Ok::<_, Box<dyn std::error::Error>>(n)
        })?;
        println!("bench cutoff.roundtrips mode={mode} n={n} regions=1 refusal=definite");
    }
    Ok(())
}

/// One policy with all keys, whose fence can be closed.
#[derive(Default)]
struct Switch {
    closed: AtomicBool,
    answered: Mutex<Option<Instant>>,
}

struct Shared(Arc<Switch>);

#[async_trait]
impl FenceReader for Shared {
    async fn read(&self) -> std::result::Result<FenceSnapshot, FenceError> {
        let closed = self.0.closed.load(Ordering::SeqCst);
        let shards = vec![WatchedShard { shard: 0, watched_until: i64::MAX, unproven: Vec::new() }];
        let policies = closed.then(|| FencedPolicy {
            policy_id: POLICY.to_owned(),
            organisation_id: "acme".to_owned(),
            epoch: 2,
            closed,
            min_write_generation: 0,
        });
        let snapshot = FenceSnapshot { policies: policies.into_iter().collect(), shards };
        *self.0.answered.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(Instant::now());
        Ok(snapshot)
    }
}

struct OnePolicy;

#[async_trait]
impl KeySource for OnePolicy {
    async fn fetch(&self, _: &InstanceName, _: Wanted) -> std::result::Result<DataKey, SourceError> {
        let id = Uuid::new_v4();
        Ok(DataKey {
            policy_id: POLICY.to_owned(),
            organisation_id: "acme".to_owned(),
            instance_id: id.to_string(),
            shard: 0,
            epoch: 1,
            generation: 1,
            data_key_id: id,
            version: 1,
            current: true,
            key: KeyBytes::generate().map_err(|error| SourceError::Unreachable(error.to_string()))?,
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

/// A million keys of one policy in one process.
///
/// `us` spans from the answer of the fence, as the reader hands it to the library, to the first refusal that a thread
/// on another core has in its hands, which uses one of the keys without a pause: what the library does with the answer
/// until the one write that ends all keys, the way of that write to the other core, the operation in which it is seen
/// and the refusal, counters and all. From the end of that thread's last success (`last_use_us` of the detail) nothing was
/// given out any more. Not in it: the read of the fence itself and how long it takes until it is read, which the
/// lease bounds. `s` of `cutoff.erase` spans from the same answer until the poll is done: every key's memory is wiped in
/// the vault and in every thread.
pub fn in_process(runtime: &tokio::runtime::Runtime) -> Result<()> {
    let (mut micros, mut last_use, mut erased) = ([0.0; 5], [0.0; 5], [0.0; 5]);
    for run in 0..5 {
        let fence = Arc::new(Switch::default());
        let client = Envelope::builder().fence(Shared(fence.clone())).keys(OnePolicy).manual().start()?;
        runtime.block_on(async {
            client.poll().await?;
            for n in 0..KEYS {
                if n % 50_000 == 0 {
                    client.poll().await?;
                }
                client.instance("acme", &n.to_string(), "jira").encrypt(&NOTE, b"x").await?;
            }
            client.poll().await
        })?;
        fence.closed.store(true, Ordering::SeqCst);
        let handle = client.instance("acme", "777777", "jira");
        let uses = AtomicU64::new(0);
        let refused = std::thread::scope(|scope| {
            let busy = scope.spawn(|| {
                pin(1);
                let mut out = Vec::new();
                let mut last = Instant::now();
                while handle.try_encrypt_into(&NOTE, b"x", &mut out).is_ok() {
                    last = Instant::now();
                    uses.fetch_add(1, Ordering::Relaxed);
                }
                (last, Instant::now())
            });
            // The busy thread is at work before the fence is read: a core that was idle may take milliseconds to wake up.
            while uses.load(Ordering::Relaxed) < 10_000 && !busy.is_finished() {
                std::thread::sleep(Duration::from_millis(2));
            }
            let polled = runtime.block_on(client.poll());
            let done = Instant::now();
            let refused = busy.join();
            polled.map(|()| (refused, done))
        })?;
        let ((last, refused), done) = (refused.0.map_err(|_| "the busy thread died")?, refused.1);
        let answered = fence.answered.lock().map_err(|_| "poisoned")?.ok_or("the fence was not read")?;
        let since = |at: Instant| at.saturating_duration_since(answered).as_nanos() as f64 / 1e3;
        (micros[run], last_use[run]) = (since(refused), since(last));
        erased[run] = done.saturating_duration_since(answered).as_secs_f64();
    }
    println!("bench cutoff.inprocess keys={KEYS} us={:.1}", median(micros.to_vec()));
    println!(
        "bench cutoff.inprocess-detail last_use_us={:.1} longest_us={:.1}",
        median(last_use.to_vec()),
        micros.iter().copied().fold(0.0, f64::max)
    );
    println!("bench cutoff.erase keys={KEYS} s={:.2}", median(erased.to_vec()));
    Ok(())
}
