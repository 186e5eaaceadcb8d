//! `Idempotency-Key`: carried out once, answered the same.

use std::sync::Arc;

use async_trait::async_trait;
use claviger_app::messages::{ProbeAnswer, ProbeRequest};
use claviger_app::ports::{CallError, Prober, StoreError};
use claviger_testkit::builders;
use http::StatusCode;
use jiff::SignedDuration;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::stage::{Came, Stage, enrolment, stage, stage_with};

const ENROL: &str = "organizations/acme/encryption-policy";
const DIRECT: &str = "organizations/acme/app-instances/direct";

async fn direct(stage: &Stage, key: &str, body: Value) -> Came {
    stage.post_with("system", DIRECT, &[("idempotency-key", key)], body).await
}

fn place(site: &str) -> Value {
    json!({ "site": site, "app": "confluence" })
}

#[tokio::test]
async fn the_same_key_and_body_give_the_same_answer_again_and_change_nothing() {
    let stage = stage().await;
    let first = direct(&stage, "one", place("eng")).await;
    assert_eq!(first.status, StatusCode::CREATED, "{}", first.text);
    assert!(!first.headers.contains_key("idempotent-replayed"));
    // In another order of its fields, and with white space, it is the same request.
    let again = stage
        .with(
            "system",
            "POST",
            DIRECT,
            &[("idempotency-key", "one")],
            "{ \"app\": \"confluence\", \"site\": \"eng\" }".into(),
        )
        .await;
    assert_eq!((again.status, &again.text), (first.status, &first.text));
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_eq!(again.headers["etag"], first.headers["etag"]);
    assert_ne!(again.headers["x-correlation-id"], first.headers["x-correlation-id"]);
    let told = direct(&stage, "two", place("eng")).await;
    assert_eq!(told.status, StatusCode::OK, "another key is another request");
}

#[tokio::test]
async fn the_same_key_with_another_body_is_refused_and_changes_nothing() {
    let stage = stage().await;
    direct(&stage, "one", place("eng")).await;
    let other = direct(&stage, "one", place("ops")).await;
    assert_eq!(
        (other.status, other.code().as_str()),
        (StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused")
    );
    let listed = stage.get("acme-admin", "organizations/acme/app-instances").await.json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_key_counts_for_one_caller_one_organisation_and_one_call() {
    let stage = stage().await;
    direct(&stage, "one", place("eng")).await;
    let elsewhere = "organizations/globex/app-instances/direct";
    let came = stage.post_with("system", elsewhere, &[("idempotency-key", "one")], place("ops")).await;
    assert_eq!(came.status, StatusCode::CREATED, "{}", came.text);
    let came = stage.post_with("nobody", DIRECT, &[("idempotency-key", "one")], place("eng")).await;
    assert_eq!(came.status, StatusCode::NOT_FOUND, "what was answered is nobody else's");
}

#[tokio::test]
async fn a_key_is_forgotten_after_a_day() {
    let stage = stage().await;
    direct(&stage, "one", place("eng")).await;
    stage.clock.advance(SignedDuration::from_hours(23));
    assert_eq!(direct(&stage, "one", place("eng")).await.status, StatusCode::CREATED);
    stage.clock.advance(SignedDuration::from_hours(1));
    let came = direct(&stage, "one", place("ops")).await;
    assert_eq!(came.status, StatusCode::CREATED, "{}", came.text);
    assert!(!came.headers.contains_key("idempotent-replayed"));
}

#[tokio::test]
async fn a_refused_request_keeps_nothing_and_its_key_is_free() {
    let stage = stage().await;
    let came = direct(&stage, "one", json!({ "site": "eng" })).await;
    assert_eq!(came.fields(), ["app"]);
    assert_eq!(direct(&stage, "one", place("eng")).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn e3_who_is_no_admin_any_more_gets_no_answer_of_before() {
    let stage = stage().await;
    stage.keys_are_good();
    let key = [("idempotency-key", "one")];
    let came = stage.post_with("acme-admin", ENROL, &key, enrolment("222222222222")).await;
    assert_eq!(came.status, StatusCode::ACCEPTED, "{}", came.text);
    let feed = json!({ "plans": {}, "government": false, "admins": ["eve"], "auditors": ["acme-admin"] });
    stage.call("system", "PUT", "organizations/acme", Some(feed)).await;
    let came = stage.post_with("acme-admin", ENROL, &key, enrolment("222222222222")).await;
    assert_eq!(came.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_dry_run_is_run_each_time() {
    let stage = stage().await;
    let path = format!("{ENROL}/validate");
    for _ in 0..2 {
        stage.keys_are_good();
        let key = [("idempotency-key", "one")];
        let came = stage.post_with("acme-admin", &path, &key, enrolment("222222222222")).await;
        assert_eq!(came.status, StatusCode::OK, "{}", came.text);
    }
    assert_eq!(stage.world.take_probe_requests().len(), 2);
}

#[tokio::test]
async fn a_key_that_cannot_be_used_is_named() {
    let stage = stage().await;
    let long = "k".repeat(129);
    for key in ["", "two words", "\u{e9}", &long] {
        let came = direct(&stage, key, place("eng")).await;
        assert_eq!(came.fields(), ["Idempotency-Key"], "{key}");
    }
    let twice = [("idempotency-key", "one"), ("idempotency-key", "two")];
    let came = stage.post_with("system", DIRECT, &twice, place("eng")).await;
    assert_eq!(came.fields(), ["Idempotency-Key"]);
}

#[tokio::test]
async fn a_store_that_fails_before_or_after_leaves_nothing_half_done() {
    let away = || StoreError::Unavailable { reason: "away".to_owned() };
    let stage = stage().await;
    stage.world.fail_changes([away()]);
    assert_eq!(direct(&stage, "one", place("eng")).await.status, StatusCode::SERVICE_UNAVAILABLE);
    let came = direct(&stage, "one", place("eng")).await;
    assert_eq!(came.status, StatusCode::CREATED, "{}", came.text);
}

/// A prober that answers when it is let.
struct Held {
    asked: Semaphore,
    let_go: Semaphore,
    answers: Arc<claviger_testkit::MemoryWorld>,
}

#[async_trait]
impl Prober for Held {
    async fn probe(&self, request: &ProbeRequest) -> Result<ProbeAnswer, CallError> {
        self.asked.add_permits(1);
        self.let_go.acquire().await.unwrap().forget();
        self.answers.probe(request).await
    }
}

#[tokio::test]
async fn two_at_once_with_one_key_are_carried_out_once() {
    let held = Arc::new(Held {
        asked: Semaphore::new(0),
        let_go: Semaphore::new(0),
        answers: Arc::new(claviger_testkit::MemoryWorld::new()),
    });
    let stage = Arc::new(stage_with(Some(held.clone())).await);
    let send = |stage: Arc<Stage>| async move {
        stage.post_with("acme-admin", ENROL, &[("idempotency-key", "one")], enrolment("222222222222")).await
    };
    let first = tokio::spawn(send(stage.clone()));
    held.asked.acquire().await.unwrap().forget();
    let second = send(stage.clone()).await;
    assert_eq!((second.status, second.code().as_str()), (StatusCode::CONFLICT, "request-in-progress"));
    assert!(second.headers.contains_key("retry-after"));
    crate::stage::good_keys(&held.answers);
    held.let_go.add_permits(1);
    let first = first.await.unwrap();
    assert_eq!(first.status, StatusCode::ACCEPTED, "{}", first.text);
    let third = send(stage.clone()).await;
    assert_eq!((third.status, third.text), (first.status, first.text));
}

#[tokio::test]
async fn one_who_vanished_is_waited_for_a_while_only() {
    let held = Arc::new(Held {
        asked: Semaphore::new(0),
        let_go: Semaphore::new(0),
        answers: Arc::new(claviger_testkit::MemoryWorld::new()),
    });
    let stage = Arc::new(stage_with(Some(held.clone())).await);
    let send = |stage: Arc<Stage>| async move {
        stage.post_with("acme-admin", ENROL, &[("idempotency-key", "one")], enrolment("222222222222")).await
    };
    let vanishes = tokio::spawn(send(stage.clone()));
    held.asked.acquire().await.unwrap().forget();
    vanishes.abort();
    assert!(vanishes.await.unwrap_err().is_cancelled());
    assert_eq!(send(stage.clone()).await.code(), "request-in-progress");
    stage.clock.advance(SignedDuration::from_secs(120));
    crate::stage::good_keys(&held.answers);
    held.let_go.add_permits(1);
    assert_eq!(send(stage.clone()).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn i4_an_app_that_was_requested_or_added_is_answered_whatever_the_store_does_afterwards() {
    for (who, path, app) in [
        ("acme-admin", "organizations/acme/app-instances", "jira"),
        ("system", "organizations/acme/app-instances/direct", "jira"),
    ] {
        let stage = stage().await;
        let now = stage.clock.advance(SignedDuration::from_secs(5));
        let enrolment = builders::an_enrolment("222222222222", "europe");
        let acme = builders::an_organisation("acme");
        stage.world.seed_policy(builders::an_active_policy(&acme, &enrolment, now));
        stage.world.falls_ill_after_a_commit();
        let headers = [("idempotency-key", "one")];
        let body = json!({ "site": "acme-eng", "app": app });
        let came = stage.post_with(who, path, &headers, body.clone()).await;
        assert!(came.status.is_success(), "{}", came.text);
        let again = stage.post_with(who, path, &headers, body).await;
        assert_eq!((again.status, &again.text), (came.status, &came.text));
    }
}
