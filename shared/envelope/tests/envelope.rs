//! The library as an app uses it, against a cloud in memory and clocks that tests move.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use claviger_envelope::source::{ProofResult, SourceError};
use claviger_envelope::testing::TestCloud;
use claviger_envelope::{
    CloseCause, Closed, Config, Context, Envelope, EnvelopeError, Instance, Unavailable, generation_of,
    header_digest,
};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const NOTE: Context<'static> = Context::new("note", "n-1");

struct App {
    cloud: Arc<TestCloud>,
    client: Envelope,
    told: Arc<Mutex<Vec<Closed>>>,
}

fn app() -> App {
    app_on(TestCloud::new(), Config { proof_window: Duration::ZERO, ..Config::default() })
}

fn app_on(cloud: Arc<TestCloud>, config: Config) -> App {
    let told = Arc::<Mutex<Vec<Closed>>>::default();
    let sink = told.clone();
    let client = Envelope::builder()
        .fence(cloud.clone())
        .keys(cloud.clone())
        .config(config)
        .clock(cloud.clock.clone())
        .on_close(move |closed| sink.lock().unwrap().push(closed.clone()))
        .manual()
        .start()
        .unwrap();
    App { cloud, client, told }
}

impl App {
    fn acme(&self) -> Instance {
        self.client.instance("acme", "acme-eng", "jira")
    }
    fn globex(&self) -> Instance {
        self.client.instance("globex", "globex-hq", "jira")
    }
    fn fetches(&self) -> u64 {
        self.cloud.fetches.load(Ordering::SeqCst)
    }
}

const LEASE: EnvelopeError = EnvelopeError::TemporarilyUnavailable { reason: Unavailable::Lease };
const UNPROVEN: EnvelopeError = EnvelopeError::TemporarilyUnavailable { reason: Unavailable::Unproven };

#[tokio::test]
async fn a_record_comes_back_as_it_was_with_93_bytes_of_overhead() {
    let app = app();
    for size in [0, 1, 100, 1024, 65_536, 1_048_576] {
        let plain = vec![7; size];
        let record = app.acme().encrypt(&NOTE, &plain).await.unwrap();
        assert_eq!(record.len(), size + 93);
        assert_eq!(record.capacity(), record.len(), "it has no more memory than it needs");
        assert_eq!(app.acme().decrypt(&NOTE, &record).await.unwrap(), plain);
    }
    assert_eq!(app.fetches(), 1);
}

#[tokio::test]
async fn i7_a_record_of_another_instance_or_context_is_refused() {
    let app = app();
    let record = app.acme().encrypt(&NOTE, b"secret").await.unwrap();
    let other = Context::new("note", "n-2");
    assert_eq!(app.acme().decrypt(&other, &record).await, Err(EnvelopeError::TamperedOrWrongContext));
    let shifted = Context::new("noten", "-1");
    assert_eq!(app.acme().decrypt(&shifted, &record).await, Err(EnvelopeError::TamperedOrWrongContext));
    app.globex().encrypt(&NOTE, b"x").await.unwrap();
    assert_eq!(app.globex().decrypt(&NOTE, &record).await, Err(EnvelopeError::UnknownDataKey));
}

#[tokio::test]
async fn every_changed_byte_of_a_record_is_refused() {
    let app = app();
    let record = app.acme().encrypt(&NOTE, b"secret").await.unwrap();
    for at in 0..record.len() {
        let mut changed = record.clone();
        changed[at] ^= 1;
        assert!(app.acme().decrypt(&NOTE, &changed).await.is_err(), "byte {at}");
        assert!(app.acme().decrypt(&NOTE, &record[..at]).await.is_err(), "cut at {at}");
        app.cloud.clock.advance(2_000);
    }
}

#[tokio::test]
async fn r7_after_the_fence_closed_cached_keys_give_nothing_within_one_poll() {
    let app = app();
    let acme = app.acme();
    let record = acme.encrypt(&NOTE, b"secret").await.unwrap();
    app.globex().encrypt(&NOTE, b"x").await.unwrap();
    app.cloud.close("acme");
    assert!(acme.try_decrypt(&NOTE, &record).is_ok(), "the lease runs");
    app.client.poll().await.unwrap();
    assert_eq!(acme.try_decrypt(&NOTE, &record), Err(EnvelopeError::Suspended));
    assert_eq!(acme.try_encrypt(&NOTE, b"more"), Err(EnvelopeError::Suspended));
    assert_eq!(acme.encrypt(&NOTE, b"more").await, Err(EnvelopeError::Suspended));
    assert!(app.globex().try_encrypt(&NOTE, b"x").is_ok(), "others are not touched");
    let told = app.told.lock().unwrap().clone();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].cause, CloseCause::Fence);
    assert_eq!(told[0].organisation_id.as_deref(), Some("id-acme"));
    assert_eq!(told[0].instances, vec![acme.name().clone()]);
}

#[tokio::test]
async fn r7_without_a_poll_the_lease_ends_the_use_of_a_closed_policy() {
    let app = app();
    let record = app.acme().encrypt(&NOTE, b"secret").await.unwrap();
    app.cloud.close("acme");
    app.cloud.clock.advance(30_000);
    assert_eq!(app.acme().try_decrypt(&NOTE, &record), Err(LEASE));
    assert_eq!(app.acme().decrypt(&NOTE, &record).await, Err(EnvelopeError::Suspended));
}

#[tokio::test]
async fn i1_the_lease_counts_from_before_the_read_was_sent() {
    let app = app();
    app.cloud.read_takes.store(12_000, Ordering::SeqCst);
    let record = app.acme().encrypt(&NOTE, b"secret").await.unwrap();
    app.cloud.clock.advance(17_999);
    assert!(app.acme().try_decrypt(&NOTE, &record).is_ok());
    app.cloud.clock.advance(1);
    assert_eq!(app.acme().try_decrypt(&NOTE, &record), Err(LEASE));
}

#[tokio::test]
async fn i1_a_thawed_process_gives_out_nothing_on_its_old_lease() {
    let app = app();
    let record = app.acme().encrypt(&NOTE, b"secret").await.unwrap();
    app.client.observe_invocation_deadline(1_000_000);
    app.client.observe_invocation_deadline(1_000_000 + 31_000);
    assert_eq!(app.acme().try_decrypt(&NOTE, &record), Err(LEASE));
    assert!(app.acme().decrypt(&NOTE, &record).await.is_ok(), "after a fresh read");
}

#[tokio::test]
async fn i1_a_clock_step_in_either_direction_ends_the_lease_and_a_fresh_read_heals_it() {
    for step in [-10_000, 31_000] {
        let app = app();
        let record = app.acme().encrypt(&NOTE, b"secret").await.unwrap();
        app.cloud.clock.step_wall(step);
        assert_eq!(app.acme().try_decrypt(&NOTE, &record), Err(LEASE), "{step}");
        assert!(app.acme().decrypt(&NOTE, &record).await.is_ok(), "{step}");
    }
}

#[tokio::test]
async fn i1_a_key_whose_fetch_began_before_the_close_is_not_inserted() {
    let app = app();
    app.client.poll().await.unwrap();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    app.cloud.hold(Some(gate.clone()));
    let acme = app.acme();
    let fetch = tokio::spawn(async move { acme.encrypt(&NOTE, b"secret").await });
    while app.fetches() == 0 {
        tokio::task::yield_now().await;
    }
    app.cloud.close("acme");
    app.client.poll().await.unwrap();
    gate.add_permits(100);
    assert_eq!(fetch.await.unwrap(), Err(EnvelopeError::Suspended));
    assert_eq!(app.client.metrics().cached_keys, 0);
}

#[tokio::test]
async fn i1_a_policy_that_was_closed_and_reopened_between_two_polls_needs_new_keys() {
    let app = app();
    let record = app.acme().encrypt(&NOTE, b"secret").await.unwrap();
    app.cloud.close("acme");
    app.cloud.reopen("acme");
    app.client.poll().await.unwrap();
    assert_eq!(app.acme().try_decrypt(&NOTE, &record), Err(EnvelopeError::NotCached));
    assert!(app.acme().decrypt(&NOTE, &record).await.is_ok());
    assert_eq!(app.fetches(), 2);
}

#[tokio::test]
async fn i1_a_process_that_has_not_read_for_longer_than_the_horizon_wipes_everything() {
    let app = app();
    let config = Config { key_lifetime: Duration::from_secs(100_000), ..Config::default() };
    let app = app_on(app.cloud, config);
    app.cloud.lifetimes(100_000_000, 100_000_000);
    app.acme().encrypt(&NOTE, b"secret").await.unwrap();
    app.cloud.fence_down(true);
    app.cloud.clock.advance(3_600_001);
    assert_eq!(app.acme().encrypt(&NOTE, b"more").await, Err(LEASE));
    assert_eq!(app.client.metrics().cached_keys, 0);
    assert_eq!(app.told.lock().unwrap()[0].cause, CloseCause::Horizon);
}

#[tokio::test]
async fn i2_a_fence_that_cannot_be_read_is_temporary_and_heals_by_itself() {
    let app = app();
    let record = app.acme().encrypt(&NOTE, b"secret").await.unwrap();
    app.cloud.fence_down(true);
    app.cloud.clock.advance(29_000);
    assert!(app.client.poll().await.is_err());
    assert!(app.acme().decrypt(&NOTE, &record).await.is_ok(), "the lease runs on");
    app.cloud.clock.advance(2_000);
    assert_eq!(app.acme().decrypt(&NOTE, &record).await, Err(LEASE));
    let reads = app.cloud.reads.load(Ordering::SeqCst);
    assert_eq!(app.acme().decrypt(&NOTE, &record).await, Err(LEASE));
    assert_eq!(app.cloud.reads.load(Ordering::SeqCst), reads, "a failure is not repeated by every request");
    app.cloud.fence_down(false);
    app.cloud.clock.advance(2_000);
    assert!(app.acme().decrypt(&NOTE, &record).await.is_ok());
    assert_eq!(app.fetches(), 1, "keys outlive a lease that lapsed");
}

#[tokio::test]
async fn i3_while_nobody_watches_only_a_fresh_proof_opens() {
    let app = app();
    let record = app.acme().encrypt(&NOTE, b"secret").await.unwrap();
    app.cloud.watched_until(app.cloud.clock.now().wall - 1);
    app.client.poll().await.unwrap();
    assert!(app.acme().try_decrypt(&NOTE, &record).is_ok(), "the unwrap itself was a proof for 10 s");
    app.cloud.clock.advance(10_000);
    assert_eq!(app.acme().try_decrypt(&NOTE, &record), Err(UNPROVEN));
    assert!(app.acme().decrypt(&NOTE, &record).await.is_ok());
    assert_eq!(app.cloud.proofs.load(Ordering::SeqCst), 1);
    app.cloud.clock.advance(10_000);
    app.cloud.proofs_answer(ProofResult::Unavailable);
    assert_eq!(app.acme().decrypt(&NOTE, &record).await, Err(UNPROVEN));
    app.cloud.proofs_answer(ProofResult::Suspended);
    assert_eq!(app.acme().decrypt(&NOTE, &record).await, Err(UNPROVEN));
    assert_eq!(app.cloud.proofs.load(Ordering::SeqCst), 2, "an outage does not make every request ask anew");
    app.cloud.clock.advance(1_000);
    assert_eq!(app.acme().decrypt(&NOTE, &record).await, Err(EnvelopeError::Suspended));
}

#[tokio::test]
async fn i3_an_unproven_policy_of_a_watched_shard_needs_a_proof_and_the_others_do_not() {
    let app = app();
    let record = app.acme().encrypt(&NOTE, b"secret").await.unwrap();
    app.globex().encrypt(&NOTE, b"x").await.unwrap();
    app.cloud.unproven(&["acme"]);
    app.client.poll().await.unwrap();
    app.cloud.clock.advance(10_000);
    assert_eq!(app.acme().try_decrypt(&NOTE, &record), Err(UNPROVEN));
    assert!(app.globex().try_encrypt(&NOTE, b"x").is_ok());
}

#[tokio::test(start_paused = true)]
async fn proofs_of_many_policies_travel_in_one_call() {
    let app =
        app_on(TestCloud::new(), Config { proof_window: Duration::from_millis(20), ..Config::default() });
    let handles: Vec<_> = (0..50).map(|n| app.client.instance(&format!("org-{n}"), "s", "jira")).collect();
    for handle in &handles {
        handle.encrypt(&NOTE, b"x").await.unwrap();
    }
    app.cloud.watched_until(0);
    app.client.poll().await.unwrap();
    app.cloud.clock.advance(10_000);
    let tasks: Vec<_> = handles
        .into_iter()
        .map(|handle| tokio::spawn(async move { handle.encrypt(&NOTE, b"x").await.map(|_| ()) }))
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(app.cloud.proofs.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a10_a_thousand_first_touches_make_one_request() {
    let app = app();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    app.cloud.hold(Some(gate.clone()));
    let tasks: Vec<_> = (0..1000)
        .map(|_| {
            let acme = app.acme();
            tokio::spawn(async move { acme.encrypt(&NOTE, b"x").await.map(|_| ()) })
        })
        .collect();
    while app.client.metrics().misses < 1000 {
        tokio::task::yield_now().await;
    }
    gate.add_permits(1000);
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(app.fetches(), 1);
    assert_eq!(app.client.metrics().kms_calls, 1);
}

#[tokio::test]
async fn suspended_and_not_found_are_remembered_for_a_second_and_no_longer() {
    let app = app();
    for (answer, error) in [
        (SourceError::Suspended, EnvelopeError::Suspended),
        (SourceError::NotFound, EnvelopeError::NotEntitled),
    ] {
        app.cloud.broker_answers(Some(answer));
        let before = app.fetches();
        for _ in 0..10 {
            assert_eq!(app.acme().encrypt(&NOTE, b"x").await, Err(error.clone()));
        }
        assert_eq!(app.fetches(), before + 1);
        app.cloud.clock.advance(1_000);
    }
    app.cloud.broker_answers(None);
    assert!(app.acme().encrypt(&NOTE, b"x").await.is_ok());
}

#[tokio::test]
async fn i2_a_broker_that_does_not_answer_is_temporary() {
    let app = app();
    app.cloud.broker_answers(Some(SourceError::Unreachable("connection refused".into())));
    let error = app.acme().encrypt(&NOTE, b"x").await.unwrap_err();
    assert_eq!(error, EnvelopeError::TemporarilyUnavailable { reason: Unavailable::Broker });
    assert!(error.retryable());
}

#[tokio::test]
async fn a_key_is_not_used_past_its_time_whatever_the_broker_says() {
    let app = app();
    app.cloud.lifetimes(86_400_000, 86_400_000);
    let record = app.acme().encrypt(&NOTE, b"secret").await.unwrap();
    for _ in 0..15 {
        app.cloud.clock.advance(20_000);
        app.cloud.broker_answers(Some(SourceError::TemporarilyUnavailable));
        app.client.poll().await.unwrap();
    }
    assert_eq!(app.acme().try_decrypt(&NOTE, &record), Err(EnvelopeError::NotCached));
    assert_eq!(app.client.metrics().cached_keys, 0, "and it is wiped");
}

#[tokio::test]
async fn each_key_is_wiped_when_its_own_time_is_over() {
    let app = app();
    let pass = async |seconds: i64| {
        for _ in 0..seconds / 10 {
            app.cloud.clock.advance(10_000);
            app.client.poll().await.unwrap();
        }
        app.client.metrics().cached_keys
    };
    app.acme().encrypt(&NOTE, b"x").await.unwrap();
    assert_eq!(pass(100).await, 1);
    app.globex().encrypt(&NOTE, b"x").await.unwrap();
    assert_eq!(pass(190).await, 2);
    assert_eq!(pass(10).await, 1, "acme's was given out 300 s ago, globex's 200 s");
    assert_eq!(pass(90).await, 1);
    assert_eq!(pass(10).await, 0);
}

#[tokio::test]
async fn a_key_that_was_given_out_anew_is_wiped_when_the_new_time_is_over() {
    let app = app();
    app.acme().encrypt(&NOTE, b"x").await.unwrap();
    app.cloud.clock.advance(100_000);
    app.cloud.close("acme");
    app.client.poll().await.unwrap();
    assert_eq!(app.client.metrics().cached_keys, 0);
    app.cloud.reopen("acme");
    app.client.poll().await.unwrap();
    app.acme().encrypt(&NOTE, b"x").await.unwrap();
    for (passes, keys) in [(199_000, 1), (2_000, 1), (98_000, 1), (1_000, 0)] {
        app.cloud.clock.advance(passes);
        app.client.poll().await.unwrap();
        assert_eq!(app.client.metrics().cached_keys, keys);
    }
}

#[tokio::test]
async fn a_key_that_is_renewed_for_less_than_it_had_is_wiped_when_the_nearer_time_is_over() {
    let app = app();
    app.acme().encrypt(&NOTE, b"x").await.unwrap();
    let given_at = app.cloud.clock.now().boot;
    app.cloud.lifetimes(20_000, 10_000);
    while app.fetches() < 2 {
        app.cloud.clock.advance(10_000);
        app.client.poll().await.unwrap();
        assert!(app.acme().try_encrypt(&NOTE, b"x").is_ok());
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    app.cloud.broker_answers(Some(SourceError::TemporarilyUnavailable));
    app.cloud.clock.advance(19_000);
    app.client.poll().await.unwrap();
    assert_eq!(app.client.metrics().cached_keys, 1);
    app.cloud.clock.advance(5_000);
    app.client.poll().await.unwrap();
    assert_eq!(app.client.metrics().cached_keys, 0);
    assert!(app.cloud.clock.now().boot - given_at < 290_000, "long before the time that it was given first");
}

#[tokio::test]
async fn a_wall_clock_that_jumps_past_a_keys_time_has_it_wiped_at_the_next_poll() {
    let app = app();
    app.acme().encrypt(&NOTE, b"x").await.unwrap();
    app.cloud.clock.step_wall(301_000);
    app.client.poll().await.unwrap();
    assert_eq!(app.client.metrics().cached_keys, 0);
}

#[tokio::test]
async fn a10_a_key_in_use_is_renewed_before_it_runs_out() {
    let app = app();
    app.acme().encrypt(&NOTE, b"secret").await.unwrap();
    for _ in 0..100 {
        app.cloud.clock.advance(10_000);
        app.client.poll().await.unwrap();
        assert!(app.acme().try_encrypt(&NOTE, b"x").is_ok(), "no use ever waits");
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    assert!((4..=6).contains(&app.fetches()), "{}", app.fetches());
}

#[tokio::test]
async fn i6_during_a_re_encryption_old_generations_are_read_and_not_written() {
    let app = app();
    let acme = app.acme();
    let old = acme.encrypt(&NOTE, b"secret").await.unwrap();
    assert_eq!(generation_of(&old), Ok(1));
    app.cloud.min_write_generation("acme", 2);
    app.client.poll().await.unwrap();
    assert_eq!(
        acme.try_encrypt(&NOTE, b"secret"),
        Err(EnvelopeError::GenerationTooOld { generation: 1, least: 2 })
    );
    let new = acme.encrypt(&NOTE, b"secret").await.unwrap();
    assert_eq!(generation_of(&new), Ok(2));
    assert_ne!(header_digest(&old), header_digest(&new));
    assert_eq!(acme.decrypt(&NOTE, &old).await.unwrap(), b"secret");
    assert_eq!(acme.decrypt(&NOTE, &new).await.unwrap(), b"secret");
    assert!(app.told.lock().unwrap().is_empty(), "nothing was closed");
}

#[tokio::test]
async fn a_newer_version_is_written_and_the_older_ones_are_still_read() {
    let app = app_on(TestCloud::new(), Config { key_lifetime: Duration::from_secs(20), ..Config::default() });
    let acme = app.acme();
    let first = acme.encrypt(&NOTE, b"secret").await.unwrap();
    app.cloud.rotate(acme.name());
    app.cloud.clock.advance(20_000);
    let second = acme.encrypt(&NOTE, b"secret").await.unwrap();
    assert_ne!(first[1..17], second[1..17]);
    assert_eq!(acme.decrypt(&NOTE, &first).await.unwrap(), b"secret");
    assert_eq!(
        acme.try_encrypt(&NOTE, b"x").unwrap()[1..17],
        second[1..17],
        "reading the old one changes nothing"
    );
}

#[tokio::test]
async fn i1_every_chunk_of_a_stream_looks_at_the_lease() {
    let app = app();
    let acme = app.acme();
    let plain: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut sealed = Vec::new();
    let mut writer = acme.encrypt_stream(&NOTE).await.unwrap();
    let header = writer.header().to_vec();
    for part in plain.chunks(7_001) {
        writer.update(part, &mut sealed).await.unwrap();
    }
    writer.finish(&mut sealed).await.unwrap();

    let mut reader = acme.decrypt_stream(&NOTE, &header).await.unwrap();
    let mut read = Vec::new();
    for part in sealed.chunks(9_999) {
        reader.update(part, &mut read).await.unwrap();
    }
    reader.finish(&mut read).await.unwrap();
    assert_eq!(read, plain);

    let mut reader = acme.decrypt_stream(&NOTE, &header).await.unwrap();
    let mut read = Vec::new();
    reader.update(&sealed[..100_000], &mut read).await.unwrap();
    assert_eq!(read.len(), 65_536);
    app.cloud.close("acme");
    app.cloud.clock.advance(30_000);
    assert_eq!(reader.update(&sealed[100_000..], &mut read).await, Err(EnvelopeError::Suspended));
    assert_eq!(read.len(), 65_536, "nothing more came out");
}

#[tokio::test]
async fn a_stream_that_was_cut_or_reordered_is_refused() {
    let app = app();
    let acme = app.acme();
    let chunk = 65_536 + 16;
    let mut sealed = Vec::new();
    let mut writer = acme.encrypt_stream(&NOTE).await.unwrap();
    let header = writer.header().to_vec();
    writer.update(&vec![1; 3 * 65_536], &mut sealed).await.unwrap();
    writer.finish(&mut sealed).await.unwrap();
    assert_eq!(sealed.len(), 3 * chunk);
    let swapped = [&sealed[chunk..2 * chunk], &sealed[..chunk], &sealed[2 * chunk..]].concat();
    let doubled = [&sealed[..chunk], &sealed].map(<[u8]>::to_vec).concat();
    for (what, bytes) in [
        ("cut at a chunk", sealed[..2 * chunk].to_vec()),
        ("cut in a chunk", sealed[..2 * chunk + 5].to_vec()),
        ("only the last", sealed[2 * chunk..].to_vec()),
        ("empty", Vec::new()),
        ("swapped", swapped),
        ("doubled", doubled),
        ("longer", [&sealed[..], &[0; 20]].concat()),
    ] {
        let mut reader = acme.decrypt_stream(&NOTE, &header).await.unwrap();
        let mut read = Vec::new();
        let updated = reader.update(&bytes, &mut read).await;
        let finished = match updated {
            Ok(()) => reader.finish(&mut read).await,
            Err(error) => Err(error),
        };
        assert!(matches!(finished, Err(EnvelopeError::BrokenStream { .. })), "{what}: {finished:?}");
    }
}

#[tokio::test]
async fn an_operation_that_fails_leaves_nothing_in_the_callers_buffer() {
    let app = app();
    let acme = app.acme();
    let record = acme.encrypt(&NOTE, b"secret").await.unwrap();
    let mut out = b"left over from before".to_vec();
    assert!(acme.try_decrypt_into(&Context::new("a", "b"), &record, &mut out).is_err());
    assert!(out.is_empty());
    acme.try_decrypt_into(&NOTE, &record, &mut out).unwrap();
    assert_eq!(out, b"secret");
}

#[tokio::test]
async fn no_message_and_no_debug_shows_a_key_or_a_plaintext() {
    let app = app();
    let acme = app.acme();
    let record = acme.encrypt(&NOTE, b"secret").await.unwrap();
    let error = acme.decrypt(&Context::new("a", "b"), &record).await.unwrap_err();
    let shown = format!("{error} {error:?} {} {:?}", error.help(), app.client.metrics());
    let (_, key) = app.cloud.raw_keys(acme.name())[0];
    assert!(!shown.contains("secret") && !shown.contains(&hex::encode(key)));
}

#[tokio::test]
async fn usage_and_refusals_are_counted() {
    let app = app();
    let acme = app.acme();
    let record = acme.encrypt(&NOTE, b"secret").await.unwrap();
    acme.decrypt(&NOTE, &record).await.unwrap();
    let _ = acme.decrypt(&Context::new("a", "b"), &record).await;
    let metrics = app.client.metrics();
    assert_eq!((metrics.hits, metrics.broker_calls, metrics.kms_calls), (2, 1, 1));
    assert_eq!(metrics.refusals.get("tampered-or-wrong-context"), Some(&1));
    assert_eq!(metrics.usage["id-acme"].kms_calls, 1);
    assert!(metrics.lease_fresh && metrics.lease_age_millis == Some(0));

    app.globex().encrypt(&NOTE, b"x").await.unwrap();
    app.cloud.watched_until(0);
    app.client.poll().await.unwrap();
    app.cloud.clock.advance(10_000);
    acme.decrypt(&NOTE, &record).await.unwrap();
    let metrics = app.client.metrics();
    assert_eq!((metrics.proof_calls, metrics.kms_calls), (1, 4), "a proof of this cloud takes two calls");
    let usage = |organisation: &str| metrics.usage[organisation];
    assert_eq!((usage("id-acme").broker_calls, usage("id-acme").kms_calls), (1, 3));
    assert_eq!((usage("id-globex").broker_calls, usage("id-globex").kms_calls), (1, 1));
    assert_eq!(usage("id-acme").kms_micro_dollars(), 9);
}

#[tokio::test]
async fn past_its_hard_limit_of_uses_a_version_is_not_written_and_a_newer_one_is_asked_for() {
    let config = Config { hard_uses: 5_000, key_lifetime: Duration::from_secs(20), ..Config::default() };
    let app = app_on(TestCloud::new(), config);
    let acme = app.acme();
    let first = acme.encrypt(&NOTE, b"x").await.unwrap();
    for _ in 0..6_000 {
        acme.try_encrypt(&NOTE, b"x").unwrap();
    }
    app.cloud.clock.advance(19_000);
    let _ = acme.try_encrypt(&NOTE, b"x");
    let worn_out = EnvelopeError::TemporarilyUnavailable { reason: Unavailable::WornOut };
    assert_eq!(acme.encrypt(&NOTE, b"x").await, Err(worn_out), "the broker has no newer one yet");
    app.cloud.rotate(acme.name());
    app.cloud.clock.advance(1_000);
    let second = acme.encrypt(&NOTE, b"x").await.unwrap();
    assert_ne!(first[1..17], second[1..17]);
    assert!(acme.decrypt(&NOTE, &first).await.is_ok(), "it is still read");
}

/// *U* and *V* of a record, as the format has them.
fn halves(record: &[u8]) -> (&[u8], &[u8]) {
    (&record[21..33], &record[33..45])
}

#[tokio::test]
async fn a10_records_of_one_tick_share_a_message_key_64_at_a_time_and_never_a_nonce() {
    let app = app();
    let acme = app.acme();
    let mut records = vec![acme.encrypt(&NOTE, b"first").await.unwrap()];
    for number in 0..200_u32 {
        records.push(acme.try_encrypt(&NOTE, &number.to_be_bytes()).unwrap());
    }
    let mut of_key = std::collections::HashMap::<&[u8], usize>::new();
    let mut nonces = std::collections::HashSet::new();
    for record in &records {
        let (u, v) = halves(record);
        *of_key.entry(u).or_default() += 1;
        assert!(nonces.insert(v), "V is each record's own");
    }
    assert_eq!(of_key.len(), records.len().div_ceil(64));
    assert!(of_key.values().all(|of| *of <= 64), "{:?}", of_key.values());
    for (number, record) in records.iter().skip(1).enumerate() {
        assert_eq!(acme.decrypt(&NOTE, record).await.unwrap(), (number as u32).to_be_bytes());
    }
}

#[tokio::test]
async fn a10_a_run_ends_with_the_tick_with_a_reseeding_and_with_another_data_key() {
    let app = app();
    let (acme, globex) = (app.acme(), app.globex());
    let first = acme.encrypt(&NOTE, b"x").await.unwrap();
    let same = acme.try_encrypt(&NOTE, b"x").unwrap();
    assert_eq!(halves(&first).0, halves(&same).0);

    app.cloud.clock.advance(1);
    let later = acme.try_encrypt(&NOTE, b"x").unwrap();
    assert_ne!(halves(&same).0, halves(&later).0);

    app.client.reseed();
    let reseeded = acme.try_encrypt(&NOTE, b"x").unwrap();
    assert_ne!(halves(&later).0, halves(&reseeded).0);

    globex.encrypt(&NOTE, b"x").await.unwrap();
    let back = acme.try_encrypt(&NOTE, b"x").unwrap();
    assert_ne!(halves(&reseeded).0, halves(&back).0);
    for record in [first, same, later, reseeded, back] {
        assert_eq!(acme.decrypt(&NOTE, &record).await.unwrap(), b"x");
    }
}

#[tokio::test]
async fn a10_records_of_a_run_are_read_with_one_message_key_and_each_commitment_is_still_looked_at() {
    let app = app();
    let (acme, globex) = (app.acme(), app.globex());
    let first = acme.encrypt(&NOTE, b"first").await.unwrap();
    let second = acme.try_encrypt(&NOTE, b"second").unwrap();
    let foreign = globex.encrypt(&NOTE, b"foreign").await.unwrap();
    assert_eq!(halves(&first).0, halves(&second).0, "one run");

    // The thread has the message key; whatever of the next record is changed, it is refused all the same.
    for at in 1..second.len() {
        assert_eq!(acme.try_decrypt(&NOTE, &first).unwrap(), b"first");
        let mut changed = second.clone();
        changed[at] ^= 1;
        assert!(acme.try_decrypt(&NOTE, &changed).is_err(), "byte {at}");
        assert_eq!(acme.try_decrypt(&NOTE, &second).unwrap(), b"second");
    }
    // The same *U* under another data key is another message key.
    let mut spliced = foreign.clone();
    spliced[21..33].copy_from_slice(halves(&first).0);
    assert_eq!(acme.try_decrypt(&NOTE, &first).unwrap(), b"first");
    assert!(globex.try_decrypt(&NOTE, &spliced).is_err());
    for _ in 0..3 {
        assert_eq!(acme.try_decrypt(&NOTE, &first).unwrap(), b"first");
        assert_eq!(globex.try_decrypt(&NOTE, &foreign).unwrap(), b"foreign");
    }
    app.cloud.close("acme");
    app.client.poll().await.unwrap();
    assert_eq!(acme.try_decrypt(&NOTE, &first), Err(EnvelopeError::Suspended));
    assert_eq!(globex.try_decrypt(&NOTE, &foreign).unwrap(), b"foreign");
}
