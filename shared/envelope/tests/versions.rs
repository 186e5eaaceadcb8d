//! Versions of a data key by age and by use: when a newer one is asked for, when it is written with, and what happens
//! while there is none.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use claviger_envelope::testing::TestCloud;
use claviger_envelope::{Config, Context, Envelope, EnvelopeError, Instance, Unavailable};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const NOTE: Context<'static> = Context::new("note", "n-1");
const DAY: i64 = 24 * 60 * 60 * 1000;
const WORN_OUT: EnvelopeError = EnvelopeError::TemporarilyUnavailable { reason: Unavailable::WornOut };

struct App {
    cloud: Arc<TestCloud>,
    client: Envelope,
    acme: Instance,
}

fn app_on(cloud: &Arc<TestCloud>, config: Config) -> App {
    let client = Envelope::builder().fence(cloud.clone()).keys(cloud.clone()).config(config);
    let client = client.clock(cloud.clock.clone()).manual().start().unwrap();
    let acme = client.instance("acme", "acme-eng", "jira");
    App { cloud: cloud.clone(), client, acme }
}

fn monthly() -> Config {
    Config { soft_age: Duration::from_secs(30 * 24 * 60 * 60), ..Config::default() }
}

fn version(record: &[u8]) -> &[u8] {
    &record[1..17]
}

impl App {
    fn new(config: Config) -> Self {
        app_on(&TestCloud::new(), config)
    }

    /// Time passes in small steps, and the key is used in each: none of the uses waits.
    async fn in_use(&self, seconds: u64, used: impl Fn()) {
        for _ in 0..seconds / 10 {
            self.cloud.clock.advance(10_000);
            self.client.poll().await.unwrap();
            used();
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn written(&self, seconds: u64) {
        self.in_use(seconds, || drop(self.acme.try_encrypt(&NOTE, b"x").unwrap())).await;
    }

    fn fetches(&self) -> u64 {
        self.cloud.fetches.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a10_past_its_soft_age_a_newer_version_is_asked_for_and_then_written_with() {
    let app = App::new(monthly());
    let first = app.acme.encrypt(&NOTE, b"first").await.unwrap();
    app.cloud.clock.advance(29 * DAY);
    app.acme.encrypt(&NOTE, b"x").await.unwrap();
    app.written(600).await;
    assert!(app.cloud.take_asked_for_newer().is_empty(), "it is young");

    app.cloud.clock.advance(2 * DAY);
    app.acme.encrypt(&NOTE, b"x").await.unwrap();
    app.written(300).await;
    assert_eq!(app.cloud.take_asked_for_newer(), [1], "with the next refresh");
    app.cloud.rotate(app.acme.name());
    app.written(300).await;
    let second = app.acme.try_encrypt(&NOTE, b"second").unwrap();
    assert_ne!(version(&first), version(&second));
    let _ = app.cloud.take_asked_for_newer();
    assert_eq!(
        app.acme.try_decrypt(&NOTE, &first).unwrap(),
        b"first",
        "the old one is still there, without a wait"
    );
    assert_eq!(app.acme.try_decrypt(&NOTE, &second).unwrap(), b"second");
    app.written(1_200).await;
    assert!(app.cloud.take_asked_for_newer().is_empty(), "the new one is young");
    assert_eq!(version(&app.acme.try_encrypt(&NOTE, b"x").unwrap()), version(&second));
}

#[tokio::test]
async fn a10_without_a_newer_version_the_old_one_lives_on_past_its_soft_age() {
    let app = App::new(monthly());
    let first = app.acme.encrypt(&NOTE, b"first").await.unwrap();
    app.cloud.clock.advance(365 * DAY);
    app.acme.encrypt(&NOTE, b"x").await.unwrap();
    // Nobody makes one for six hours.
    app.written(6 * 60 * 60).await;
    assert_eq!(version(&app.acme.try_encrypt(&NOTE, b"x").unwrap()), version(&first));
    let asked = app.cloud.take_asked_for_newer();
    assert!((70..=110).contains(&asked.len()), "once a refresh: {}", asked.len());
    assert!(asked.iter().all(|than| *than == 1));
}

#[tokio::test]
async fn a10_a_process_that_stands_still_between_uses_asks_too() {
    let app = App::new(monthly());
    app.acme.encrypt(&NOTE, b"first").await.unwrap();
    app.cloud.clock.advance(31 * DAY);
    // Each use finds the key gone: there is no refresh in the background.
    for _ in 0..2 {
        app.acme.encrypt(&NOTE, b"x").await.unwrap();
        app.cloud.clock.advance(600_000);
    }
    assert_eq!(app.cloud.take_asked_for_newer(), [1]);
}

#[tokio::test]
async fn a10_an_instance_that_is_mostly_read_hears_of_the_newer_version() {
    let app = App::new(monthly());
    let first = app.acme.encrypt(&NOTE, b"first").await.unwrap();
    app.cloud.clock.advance(31 * DAY);
    app.acme.encrypt(&NOTE, b"x").await.unwrap();
    let read = || assert_eq!(app.acme.try_decrypt(&NOTE, &first).unwrap(), b"first");
    app.in_use(300, read).await;
    assert_eq!(app.cloud.take_asked_for_newer(), [1]);
    app.cloud.rotate(app.acme.name());
    app.in_use(300, read).await;
    let second = app.acme.try_encrypt(&NOTE, b"second").unwrap();
    assert_ne!(version(&first), version(&second));
    app.in_use(1_200, read).await;
}

#[tokio::test]
async fn a10_past_its_soft_uses_a_newer_version_is_asked_for() {
    let app = App::new(Config { soft_uses: 2_000, ..Config::default() });
    app.acme.encrypt(&NOTE, b"x").await.unwrap();
    app.written(600).await;
    assert!(app.cloud.take_asked_for_newer().is_empty());
    for _ in 0..4_000 {
        app.acme.try_encrypt(&NOTE, b"x").unwrap();
    }
    app.written(300).await;
    assert_eq!(app.cloud.take_asked_for_newer(), [1]);
}

#[tokio::test]
async fn a10_past_its_hard_uses_a_version_is_read_with_and_written_with_no_more() {
    let app = App::new(Config { soft_uses: 1_000, hard_uses: 4_000, ..Config::default() });
    let first = app.acme.encrypt(&NOTE, b"first").await.unwrap();
    for _ in 0..6_000 {
        app.acme.try_encrypt(&NOTE, b"x").unwrap();
    }
    let read = || assert_eq!(app.acme.try_decrypt(&NOTE, &first).unwrap(), b"first");
    // Past the moment at which every process has asked anew.
    app.in_use(270, || {
        let _ = app.acme.try_encrypt(&NOTE, b"x");
    })
    .await;
    assert_eq!(app.acme.try_encrypt(&NOTE, b"x"), Err(EnvelopeError::NotCached));
    let _ = app.cloud.take_asked_for_newer();
    app.cloud.clock.advance(1_000);
    let before = app.fetches();
    for _ in 0..50 {
        assert_eq!(app.acme.encrypt(&NOTE, b"x").await, Err(WORN_OUT));
    }
    assert_eq!(app.fetches(), before + 1, "the broker is not asked at every use");
    assert_eq!(app.cloud.take_asked_for_newer(), [1]);
    assert!(WORN_OUT.retryable(), "503 while it lasts");
    assert_eq!(app.acme.may_store(&first).await, Ok(()));
    app.in_use(1_200, read).await;

    app.cloud.rotate(app.acme.name());
    app.cloud.clock.advance(1_000);
    let second = app.acme.encrypt(&NOTE, b"second").await.unwrap();
    assert_ne!(version(&first), version(&second));
    app.in_use(1_200, read).await;
    assert_eq!(app.acme.decrypt(&NOTE, &second).await.unwrap(), b"second");
}

#[tokio::test]
async fn a10_an_answer_that_was_overtaken_by_a_newer_version_does_not_bring_the_old_one_back() {
    let cloud = TestCloud::new();
    let first = app_on(&cloud, monthly()).acme.encrypt(&NOTE, b"first").await.unwrap();
    let app = app_on(&cloud, monthly());
    app.client.poll().await.unwrap();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    cloud.hold(Some(gate.clone()));
    let before = app.fetches();
    let late = {
        let (acme, first) = (app.acme.clone(), first.clone());
        tokio::spawn(async move { acme.decrypt(&NOTE, &first).await })
    };
    while app.fetches() == before {
        tokio::task::yield_now().await;
    }
    // The broker has said that the first version is current; now it is not any more.
    cloud.rotate(app.acme.name());
    cloud.hold(None);
    let second = app.acme.encrypt(&NOTE, b"second").await.unwrap();
    assert_ne!(version(&first), version(&second));
    gate.add_permits(1);
    assert_eq!(late.await.unwrap().unwrap(), b"first");
    assert_eq!(version(&app.acme.try_encrypt(&NOTE, b"x").unwrap()), version(&second));
    app.written(1_200).await;
    assert_eq!(version(&app.acme.try_encrypt(&NOTE, b"x").unwrap()), version(&second));
}
