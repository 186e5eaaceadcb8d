use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use claviger_app::ports::{StoreError, UsageRecords};
use claviger_app::usage::*;
use claviger_domain::ids::OrganisationId;
use claviger_testkit::builders::{a_key, instant, parsed};
use claviger_testkit::{FakeClock, MemoryWorld, SequentialIds};
use jiff::civil::{Date, date};
use jiff::{SignedDuration, Timestamp};

const EVERY: SignedDuration = SignedDuration::from_mins(15);

fn organisation(number: u64) -> OrganisationId {
    OrganisationId::from_uuid(SequentialIds::uuid(number))
}

fn decrypt(key: u32) -> KeyUse {
    KeyUse {
        operation: "Decrypt".to_owned(),
        purpose: Some("canary".to_owned()),
        region: parsed("eu-central-1"),
        key: Some(a_key("222222222222", "eu-central-1", key)),
        payer: Payer::Vendor,
    }
}

/// Stores, and fails as it is told: before or after it stored.
#[derive(Default)]
struct Wavering {
    world: MemoryWorld,
    asked: AtomicU64,
    fails_before: AtomicU64,
    fails_after: AtomicU64,
    conflicts: AtomicU64,
}

fn once(left: &AtomicU64) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

#[async_trait]
impl UsageRecords for Wavering {
    async fn add_usage(&self, delta: &UsageDelta) -> Result<(), StoreError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let silence = || Err(StoreError::Unavailable { reason: "timeout".to_owned() });
        if once(&self.conflicts) {
            return Err(StoreError::Conflict);
        }
        if once(&self.fails_before) {
            return silence();
        }
        self.world.add_usage(delta).await?;
        if once(&self.fails_after) { silence() } else { Ok(()) }
    }

    async fn usage(&self, of: OrganisationId, from: Date, to: Date) -> Result<Vec<DayOfUse>, StoreError> {
        self.world.usage(of, from, to).await
    }
}

struct Process {
    meter: UsageMeter,
    records: Wavering,
    ids: SequentialIds,
    clock: FakeClock,
}

impl Process {
    fn new() -> Self {
        let (records, ids) = (Wavering::default(), SequentialIds::default());
        Self { meter: UsageMeter::new(EVERY), records, ids, clock: FakeClock::default() }
    }

    fn now(&self) -> Timestamp {
        self.clock.advance(SignedDuration::ZERO)
    }

    fn call(&self, whose: u64, key: u32) {
        self.meter.count(organisation(whose), self.now(), &decrypt(key), Tally::SENT);
        self.meter.count(organisation(whose), self.now(), &decrypt(key), Tally::answered(None));
    }

    fn flush(&self) -> FlushUsage<'_> {
        FlushUsage { meter: &self.meter, records: &self.records, ids: &self.ids, clock: &self.clock }
    }

    fn asked(&self) -> u64 {
        self.records.asked.load(Ordering::Relaxed)
    }

    async fn stored(&self, whose: u64) -> i64 {
        let days = self.records.usage(organisation(whose), Date::MIN, Date::MAX).await.unwrap();
        days.iter().flat_map(|day| day.uses.values()).map(|tally| tally.calls).sum()
    }
}

#[tokio::test]
async fn k3_counts_are_written_together_once_they_are_old_enough() {
    let process = Process::new();
    for _ in 0..100 {
        process.call(1, 1);
    }
    process.flush().due().await;
    assert_eq!(
        (process.asked(), process.stored(1).await),
        (0, 0),
        "a write a call would cost more than the call"
    );
    process.clock.advance(EVERY);
    process.call(1, 1);
    process.call(2, 1);
    process.flush().due().await;
    assert_eq!((process.asked(), process.stored(1).await), (1, 101));
    process.flush().due().await;
    assert_eq!(process.asked(), 1, "nothing is due");
    process.flush().all().await;
    assert_eq!((process.stored(2).await, process.meter.is_empty()), (1, true), "the process ends");
}

#[tokio::test]
async fn k3_a_call_counts_on_the_day_utc_on_which_it_was_made() {
    let process = Process::new();
    process.clock.set(instant("2026-11-22T23:59:59Z"));
    process.call(1, 1);
    process.clock.set(instant("2026-11-23T00:00:00Z"));
    process.call(1, 1);
    process.call(1, 1);
    process.flush().all().await;
    for (day, calls) in [(date(2026, 11, 22), 1), (date(2026, 11, 23), 2)] {
        let days = process.records.usage(organisation(1), day, day).await.unwrap();
        assert_eq!(days[0].uses[&decrypt(1)], Tally { calls, ..Tally::default() });
    }
}

#[tokio::test]
async fn k3_a_write_that_may_have_arrived_is_repeated_as_it_was_and_counts_once() {
    let process = Process::new();
    process.call(1, 1);
    process.records.fails_after.store(2, Ordering::Relaxed);
    process.flush().all().await;
    process.call(1, 1);
    for _ in 0..3 {
        process.clock.advance(SignedDuration::from_mins(1));
        process.flush().all().await;
    }
    assert_eq!((process.stored(1).await, process.meter.is_empty()), (2, true));
}

#[tokio::test]
async fn k3_a_write_whose_fate_is_unknown_for_too_long_is_given_up_rather_than_counted_twice() {
    let process = Process::new();
    process.call(1, 1);
    process.records.fails_after.store(1, Ordering::Relaxed);
    process.flush().all().await;
    // DynamoDB would know it again for ten minutes only.
    process.clock.advance(SignedDuration::from_mins(9));
    process.flush().all().await;
    assert_eq!((process.asked(), process.stored(1).await, process.meter.is_empty()), (1, 1, true));
}

#[tokio::test]
async fn k3_a_write_that_lost_a_race_is_counted_on() {
    let process = Process::new();
    process.call(1, 1);
    process.records.conflicts.store(1, Ordering::Relaxed);
    process.flush().all().await;
    // Longer than anything is known again: it was surely not written.
    process.clock.advance(SignedDuration::from_hours(1));
    process.call(1, 1);
    process.flush().due().await;
    assert_eq!((process.asked(), process.stored(1).await), (2, 2));
}

#[tokio::test]
async fn k3_a_flush_is_bounded_the_oldest_first() {
    let process = Process::new();
    for whose in 0..2500 {
        process.call(whose, 1);
        process.clock.advance(SignedDuration::from_millis(10));
    }
    process.clock.advance(EVERY);
    let mut asked = Vec::new();
    for _ in 0..3 {
        process.flush().due().await;
        asked.push(process.asked());
    }
    assert_eq!(asked, [1000, 2000, 2500]);
    assert!(process.meter.is_empty());
}

#[tokio::test]
async fn k3_after_a_silence_no_other_write_is_tried_and_nothing_is_lost() {
    let process = Process::new();
    for whose in 0..200 {
        process.call(whose, 1);
    }
    process.records.fails_before.store(u64::MAX, Ordering::Relaxed);
    process.flush().all().await;
    let tried = process.asked();
    assert!(tried < 200, "{tried}");
    process.records.fails_before.store(0, Ordering::Relaxed);
    process.flush().all().await;
    assert!(process.meter.is_empty());
    for whose in 0..200 {
        assert_eq!(process.stored(whose).await, 1, "organisation {whose}");
    }
}

#[tokio::test]
async fn k3_who_has_thousands_of_keys_checked_fills_nothing() {
    let process = Process::new();
    for key in 0..5000 {
        process.call(1, key);
    }
    process.flush().all().await;
    let days = process.records.usage(organisation(1), Date::MIN, Date::MAX).await.unwrap();
    assert_eq!(days[0].uses.len(), MOST_USES + 1);
    assert_eq!(process.stored(1).await, 5000);
}
