//! The watcher at scale: what it can probe, what it costs, and what half an hour of AWS trouble does to customers.

use crate::Result;
use crate::measure::median;
use crate::ports::{Calls, Cloud, Latency};
use async_trait::async_trait;
use claviger_app::check_enrolment::CheckEnrolment;
use claviger_app::describe_keys::DescribeKeys;
use claviger_app::fan_out::CarryOrder;
use claviger_app::messages::FanOut;
use claviger_app::ports::{StoreError, UsageRecords};
use claviger_app::report_probes::ReportProbes;
use claviger_app::settings::Settings;
use claviger_app::sweep::Sweep;
use claviger_app::usage::{DayOfUse, FlushUsage, KeyUse, Payer, Tally, UsageDelta, UsageMeter};
use claviger_domain::effect::Order;
use claviger_domain::ids::{CorrelationId, InstanceId, OrganisationId};
use claviger_domain::observation::{NoAnswerKind, Observation, RefusalKind};
use claviger_domain::values::ShardId;
use claviger_testkit::{FakeClock, SequentialIds, builders};
use futures_util::future::join_all;
use jiff::SignedDuration;
use jiff::civil::Date;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use uuid::Uuid;

const SHARDS: u16 = 8;

fn settings() -> &'static Settings {
    builders::settings()
}

fn sweep(cloud: &Cloud) -> Sweep<'_> {
    let settings = settings();
    let report = ReportProbes {
        probe: cloud.probe(),
        policies: cloud,
        hints: cloud,
        queue: cloud,
        watch: cloud,
        clock: cloud,
        settings,
    };
    Sweep { report, watch: cloud, queue: cloud, ids: cloud, clock: cloud, timer: cloud, settings }
}

async fn enrolled(latency: Latency, organisations: usize) -> Cloud {
    let cloud = Cloud::new(latency);
    for n in 0..organisations {
        cloud.enrol(&format!("{n}-organisation"), &format!("{:012}", 200_000_000_000 + n), "europe").await;
    }
    cloud
}

async fn sweep_all(cloud: &Cloud) -> Result<()> {
    let sweep = sweep(cloud);
    let due_at = claviger_app::ports::Clock::now(cloud);
    let until = due_at + SignedDuration::from_secs(30);
    for swept in join_all((0..SHARDS).map(|shard| sweep.run(ShardId(shard), due_at, until))).await {
        swept?;
    }
    Ok(())
}

/// Regional keys that eight shards probe in a minute: limited by the calls that take their time (KMS 50 ms, DynamoDB
/// 10 ms, virtual), or by the work of one core, whichever is less.
pub fn rate() -> Result<()> {
    const ORGANISATIONS: usize = 10_000;
    let keys = (2 * ORGANISATIONS) as f64;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    let waiting = runtime.block_on(async {
        let latency =
            Latency { call: Duration::from_millis(10), kms: Duration::from_millis(50), byok: false };
        let cloud = enrolled(latency, ORGANISATIONS).await;
        let began = tokio::time::Instant::now();
        sweep_all(&cloud).await?;
        assert_eq!(cloud.calls.kms.load(Ordering::Relaxed) as f64, keys);
        Ok::<_, Box<dyn std::error::Error>>(began.elapsed().as_secs_f64())
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut working = [0.0; 5];
    for run in &mut working {
        *run = runtime.block_on(async {
            let cloud = enrolled(Latency::default(), ORGANISATIONS).await;
            let began = Instant::now();
            sweep_all(&cloud).await?;
            Ok::<_, Box<dyn std::error::Error>>(began.elapsed().as_secs_f64())
        })?;
    }
    let working = median(working.to_vec());
    println!(
        "bench prober.rate keys_per_minute={:.0} keys={keys:.0} shards={SHARDS} sweep_s={waiting:.2} kms_ms=50 core_s={working:.2}",
        keys * 60.0 / waiting.max(working),
    );
    Ok(())
}

/// Prices in USD, eu-central-1, November 2026, and what the adapters write that no port shows.
struct Prices {
    kms_10k: f64,
    read_unit_1m: f64,
    write_unit_1m: f64,
    sqs_1m: f64,
    lambda_request_1m: f64,
    lambda_gb_s: f64,
    log_gb: f64,
    schedule_1m: f64,
}

const PRICES: Prices = Prices {
    kms_10k: 0.03,
    read_unit_1m: 0.1525,
    write_unit_1m: 0.7625,
    sqs_1m: 0.40,
    lambda_request_1m: 0.20,
    lambda_gb_s: 0.000_013_333_4,
    log_gb: 0.63,
    schedule_1m: 1.00,
};
const LOG_BYTES_A_KMS_CALL: f64 = 420.0;
const LOG_BYTES_AN_INVOCATION: f64 = 900.0;
const FENCE_COPIES: f64 = 4.0;
const MEMORY_GB: f64 = 1.0;
const MINUTES_A_MONTH: f64 = 43_800.0;

/// DynamoDB's side of the counts of calls: writes and their units, each two for a kilobyte of the whole day's item.
#[derive(Default)]
struct Counted {
    days: Mutex<HashMap<OrganisationId, HashMap<KeyUse, u64>>>,
    writes: AtomicU64,
    units: AtomicU64,
}

#[async_trait]
impl UsageRecords for Counted {
    async fn add_usage(&self, delta: &UsageDelta) -> std::result::Result<(), StoreError> {
        let mut days = self.days.lock().unwrap();
        let day = days.entry(delta.organisation).or_default();
        for what in delta.uses.keys() {
            // The attribute's name, its number, and what DynamoDB adds.
            let size = 30 + what.operation.len() + what.purpose.as_ref().map_or(0, String::len);
            let place = what.key.as_ref().map_or(20, |key| key.as_str().len());
            day.insert(what.clone(), (size + place) as u64);
        }
        let bytes: u64 = 150 + day.values().sum::<u64>();
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.units.fetch_add(2 * bytes.div_ceil(1024), Ordering::Relaxed);
        Ok(())
    }

    async fn usage(
        &self,
        _: OrganisationId,
        _: Date,
        _: Date,
    ) -> std::result::Result<Vec<DayOfUse>, StoreError> {
        unreachable!("it only counts")
    }
}

/// Write units of an hour in which so many organisations' calls are counted, and the longest flush: every sweep of a
/// shard runs in any of as many processes as there are shards, so that each process comes to know every organisation.
async fn counting(organisations: usize, interval: f64) -> (f64, f64, u64) {
    let key = |n: usize, region: &str| builders::a_key(&format!("{:012}", 200_000_000_000 + n), region, 1);
    let uses = |n: usize, operation: &str, purpose: Option<&str>| {
        ["eu-central-1", "eu-west-1"].map(|region| KeyUse {
            operation: operation.to_owned(),
            purpose: purpose.map(str::to_owned),
            region: builders::parsed(region),
            key: Some(key(n, region)),
            payer: Payer::Vendor,
        })
    };
    let (ids, clock, records) = (SequentialIds::default(), FakeClock::default(), Counted::default());
    let meters: Vec<UsageMeter> = (0..SHARDS).map(|_| UsageMeter::new(settings().usage_flush)).collect();
    let probes: Vec<_> = (0..organisations).map(|n| uses(n, "Decrypt", Some("canary"))).collect();
    let whose: Vec<_> =
        (0..organisations).map(|n| OrganisationId::from_uuid(SequentialIds::uuid(n as u64))).collect();
    let (mut seed, mut before, mut longest) = (7_u64, (0, 0), 0);
    let (sweeps, warm) = ((5400.0 / interval) as usize, (1800.0 / interval) as usize);
    for sweep in 0..sweeps {
        if sweep == warm {
            before = (records.writes.load(Ordering::Relaxed), records.units.load(Ordering::Relaxed));
        }
        for shard in 0..usize::from(SHARDS) {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let meter = &meters[(seed >> 33) as usize % meters.len()];
            let now = clock.advance(SignedDuration::ZERO);
            let count = |n: usize, uses: &[KeyUse]| {
                for what in uses {
                    meter.count(whose[n], now, what, Tally::SENT);
                    meter.count(whose[n], now, what, Tally::answered(None));
                }
            };
            for n in (shard..organisations).step_by(SHARDS.into()) {
                count(n, &probes[n]);
                // The description of the hour.
                if sweep == warm {
                    count(n, &uses(n, "DescribeKey", None));
                    count(n, &uses(n, "GetKeyRotationStatus", None));
                }
            }
            let written = records.writes.load(Ordering::Relaxed);
            FlushUsage { meter, records: &records, ids: &ids, clock: &clock }.due().await;
            longest = longest.max(records.writes.load(Ordering::Relaxed) - written);
        }
        clock.advance(SignedDuration::from_secs(interval as i64));
    }
    let writes = records.writes.load(Ordering::Relaxed) - before.0;
    let units = records.units.load(Ordering::Relaxed) - before.1;
    (writes as f64, units as f64, longest)
}

/// What watching costs an organisation with two regions a month, from the calls of a minute, and of an hour's
/// description of every key.
pub fn cost() -> Result<()> {
    const ORGANISATIONS: usize = 10_000;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    for interval in [60.0, 300.0] {
        let (calls, seconds, described, describing) = runtime.block_on(async {
            let latency =
                Latency { call: Duration::from_millis(10), kms: Duration::from_millis(50), byok: false };
            let cloud = enrolled(latency, ORGANISATIONS).await;
            let began = tokio::time::Instant::now();
            sweep_all(&cloud).await?;
            let seconds = began.elapsed().as_secs_f64();
            let calls = cloud.calls.taken();
            let describe = DescribeKeys {
                policies: &cloud,
                watch: &cloud,
                keys: &cloud,
                queue: &cloud,
                instances: &cloud,
                registry: &cloud,
                check: CheckEnrolment { keys: &cloud, roles: &cloud, ids: &cloud },
                clock: &cloud,
                settings: settings(),
            };
            // The first time stores what is new; from then on it seldom is.
            let mut describing = 0.0;
            for _ in 0..2 {
                cloud.calls.taken();
                let began = tokio::time::Instant::now();
                for shard in 0..SHARDS {
                    describe.shard(ShardId(shard)).await?;
                }
                describing = began.elapsed().as_secs_f64();
            }
            Ok::<_, Box<dyn std::error::Error>>((calls, seconds, cloud.calls.taken(), describing))
        })?;
        let (counts, count_units, longest) = runtime.block_on(counting(ORGANISATIONS, interval));
        let hours = MINUTES_A_MONTH / 60.0;
        let counting = count_units * hours / 1e6 * PRICES.write_unit_1m;
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64;
        let sweeps = MINUTES_A_MONTH * 60.0 / interval;
        let hours = MINUTES_A_MONTH / 60.0;
        let kms_calls = of(&calls.kms) * sweeps + of(&described.kms) * hours;
        let kms = kms_calls / 1e4 * PRICES.kms_10k;
        // Consistent reads: a unit is 4 KB.
        let units = |calls: &Calls| of(&calls.reads) + of(&calls.read_bytes) / 4096.0;
        let reads = (units(&calls) * sweeps + units(&described) * hours) / 1e6 * PRICES.read_unit_1m;
        // A transaction writes each copy for two units.
        let writes = of(&calls.beats) * FENCE_COPIES * 2.0 * sweeps / 1e6 * PRICES.write_unit_1m;
        // Sent, received, deleted.
        let messages = f64::from(SHARDS) * (sweeps + hours);
        let sqs = messages * 3.0 / 1e6 * PRICES.sqs_1m;
        let ticks = MINUTES_A_MONTH + hours;
        let invocations = messages + ticks;
        let at_work =
            f64::from(SHARDS) * seconds * sweeps + describing * hours + counts * hours * 0.01 / 32.0;
        let lambda = invocations / 1e6 * PRICES.lambda_request_1m + at_work * MEMORY_GB * PRICES.lambda_gb_s;
        let schedule = ticks / 1e6 * PRICES.schedule_1m;
        let bytes = kms_calls * LOG_BYTES_A_KMS_CALL + invocations * LOG_BYTES_AN_INVOCATION;
        let logs = bytes / 1e9 * PRICES.log_gb;
        let each = |sum: f64| sum / ORGANISATIONS as f64;
        println!(
            "bench prober.cost orgs={ORGANISATIONS} interval_s={interval:.0} usd_per_org_month={:.3} kms={:.3} logs={:.4} dynamodb={:.4} counting={:.4} lambda={:.5} sqs_and_schedule={:.5} counts_per_org_hour={:.1} writes_at_once={longest}",
            each(kms + reads + writes + counting + sqs + lambda + schedule + logs),
            each(kms),
            each(logs),
            each(reads + writes),
            each(counting),
            each(lambda),
            each(sqs + schedule),
            each(counts),
        );
    }
    Ok(())
}

/// Half an hour in which KMS answers badly or not at all, and in which our own way to it is refused, in simulated
/// time. Nobody may be suspended; one customer who disables its key in the middle must be.
pub fn brownout() -> Result<()> {
    const ORGANISATIONS: usize = 1000;
    const MINUTES: i64 = 30;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let cloud = enrolled(Latency::default(), ORGANISATIONS).await;
        let began = builders::instant("2026-11-23T09:00:00Z");
        let mut seed = 7_u64;
        for minute in 0..MINUTES {
            cloud.at(began + SignedDuration::from_mins(minute));
            cloud.answer_all(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                match (minute, (seed >> 33) % 10) {
                    // For ten minutes also: whatever we are allowed is taken from us, by nobody's will.
                    (10..20, 0..6) => Observation::Refused(RefusalKind::AccessDenied),
                    (_, 0..3) => Observation::NoAnswer(NoAnswerKind::Throttled),
                    (_, 3..6) => Observation::NoAnswer(NoAnswerKind::Unreachable),
                    (_, 6..8) => Observation::NoAnswer(NoAnswerKind::OurFault),
                    _ => Observation::Usable,
                }
            });
            sweep_all(&cloud).await?;
        }
        let suspended = cloud.closed();
        let victim = cloud.policy_now(&builders::parsed("500-organisation")).await;
        cloud.at(began + SignedDuration::from_mins(MINUTES));
        cloud.answer(&victim, Observation::Refused(RefusalKind::KeyDisabled));
        sweep_all(&cloud).await?;
        assert_eq!(cloud.closed(), suspended + 1, "a definite refusal goes on");
        println!("bench brownout orgs={ORGANISATIONS} minutes={MINUTES} suspensions={suspended}");
        Ok(())
    })
}

/// Work for one instance of a fan-out, with ten thousand against a hundred.
pub fn fan_out() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let each = |n: usize| -> Result<(f64, f64)> {
        runtime.block_on(async {
            let cloud = Cloud::new(Latency::default());
            let open = cloud.enrol("acme", "222222222222", "europe").await;
            let began = builders::instant("2026-11-23T09:00:00Z");
            cloud.at(began);
            cloud.answer(&open, Observation::Refused(RefusalKind::KeyDisabled));
            sweep_all(&cloud).await?;
            let policy = cloud.policy_now(&open.organisation_name).await;
            assert!(!policy.fence.is_open());
            for number in 0..n {
                let site = format!("site-{number}");
                let mut instance = builders::an_active_instance(&open, &site, "jira", began);
                instance.id = InstanceId::from_uuid(Uuid::new_v4());
                cloud.add_instance(&instance);
            }
            let carry = CarryOrder {
                policies: &cloud,
                instances: &cloud,
                queue: &cloud,
                clock: &cloud,
                settings: settings(),
            };
            let calls = || {
                let calls = &cloud.calls;
                [&calls.reads, &calls.commits, &calls.sqs]
                    .map(|count| count.load(Ordering::Relaxed))
                    .iter()
                    .sum::<u64>()
            };
            let before = calls();
            let start = Instant::now();
            let mut page = Some(FanOut {
                organisation: policy.organisation_name.clone(),
                policy: policy.id,
                epoch: policy.fence.epoch,
                cursor: None,
                done: 0,
                correlation: CorrelationId::from_uuid(Uuid::new_v4()),
            });
            while let Some(now) = page {
                carry.run(Order::Suspend, &now).await?;
                page = cloud.take_page();
            }
            let took = start.elapsed().as_nanos() as f64 / n as f64;
            assert_eq!(cloud.policy_now(&open.organisation_name).await.told, policy.fence.epoch);
            assert_eq!(cloud.not_reached(policy.fence.epoch), 0, "an instance was not told");
            Ok((took, (calls() - before) as f64 / n as f64))
        })
    };
    each(1000)?;
    let (mut ratios, mut calls) = ([0.0; 5], [0.0; 5]);
    for run in 0..5 {
        // A hundred are over in a moment: their median of several.
        let mut few = [0.0; 15];
        for one in &mut few {
            *one = each(100)?.0;
        }
        let (many, made) = each(10_000)?;
        ratios[run] = many / median(few.to_vec());
        calls[run] = made;
    }
    println!(
        "bench suspension.fanout n=10000 per_instance_ratio={:.2} calls_per_instance={:.3} few=100",
        median(ratios.to_vec()),
        median(calls.to_vec()),
    );
    Ok(())
}
