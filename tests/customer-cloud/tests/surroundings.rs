//! Bad surroundings on request: faults, lag, events, and the record of calls.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests: a failed test is what they say"
)]

mod support;

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};
use support::{
    ACME, GLOBEX, REGION, Seen, Server, VENDOR, Who, allows, base64, eventually, fake_aws, start,
    start_with_events, trusts, vendor_session,
};

struct Scene {
    server: Server,
    vendor: Who,
    acme: String,
    globex: String,
}

async fn scene() -> Scene {
    let server = start().await;
    let vendor = vendor_session(&server).await;
    let acme = server.shared_key(ACME, json!({})).await;
    let globex = server.shared_key(GLOBEX, json!({})).await;
    Scene { server, vendor, acme, globex }
}

impl Scene {
    async fn encrypt(&self, key: &str) -> Result<Value, String> {
        self.server.kms(&self.vendor, "Encrypt", json!({"KeyId": key, "Plaintext": base64(b"x")})).await
    }
}

#[tokio::test]
async fn each_fault_shows_its_own_code_and_hits_one_customer_only() {
    let scene = scene().await;
    for (kind, code) in [
        ("throttle", "ThrottlingException"),
        ("error-500", "KMSInternalException"),
        ("key-unavailable", "KeyUnavailableException"),
        ("dependency-timeout", "DependencyTimeoutException"),
        ("refuse-connection", "connection closed"),
    ] {
        let fault = scene.server.fault(json!({"account": GLOBEX, "region": REGION, "kind": kind})).await;
        assert_eq!(scene.encrypt(&scene.globex).await, Err(code.into()));
        scene.encrypt(&scene.acme).await.expect("another customer is spared");
        let own = json!({"KeyId": scene.globex});
        scene.server.kms(GLOBEX, "DescribeKey", own).await.expect("the owner is spared");
        let removed =
            scene.server.admin(Method::DELETE, &format!("faults/{}", fault["id"]), Value::Null).await;
        assert_eq!(removed["removed"], 1);
        scene.encrypt(&scene.globex).await.expect("healed");
    }
}

#[tokio::test]
async fn a_fault_keeps_to_its_operation_its_count_and_its_rate() {
    let scene = scene().await;
    scene.server.fault(json!({"operation": "Encrypt", "kind": "throttle", "count": 2})).await;
    let describe = json!({"KeyId": scene.acme});
    scene.server.kms(&scene.vendor, "DescribeKey", describe).await.expect("another operation");
    for _ in 0..2 {
        assert_eq!(scene.encrypt(&scene.acme).await, Err("ThrottlingException".into()));
    }
    scene.encrypt(&scene.acme).await.expect("used up");

    scene.server.fault(json!({"kind": "error-500", "rate": 0.5})).await;
    let mut failed = 0;
    for _ in 0..60 {
        failed += u32::from(scene.encrypt(&scene.acme).await.is_err());
    }
    assert!((5..=55).contains(&failed), "{failed} of 60 at a rate of one half");
    let unknown = scene.server.admin(Method::POST, "faults", json!({"kind": "throttle", "rte": 1})).await;
    assert!(unknown["error"].as_str().is_some_and(|text| text.contains("rte")), "{unknown}");
}

#[tokio::test]
async fn latency_delays_and_a_timeout_never_answers() {
    let scene = scene().await;
    scene.server.fault(json!({"kind": "latency", "millis": 150})).await;
    let start = Instant::now();
    scene.encrypt(&scene.acme).await.expect("late but right");
    assert!(start.elapsed() >= Duration::from_millis(150));
    scene.server.fault(json!({"kind": "timeout", "millis": 50, "account": GLOBEX})).await;
    assert_eq!(scene.encrypt(&scene.globex).await, Err("connection closed".into()));
}

#[tokio::test]
async fn a_fault_on_assume_role_has_to_be_named() {
    let server = start().await;
    let role = server.role(ACME, "r", trusts(VENDOR), allows("kms:*")).await;
    server.fault(json!({"account": ACME, "kind": "throttle"})).await;
    server.assume(VENDOR, &role, &[]).await.expect("KMS faults spare STS");
    server.fault(json!({"account": ACME, "kind": "throttle", "operation": "AssumeRole"})).await;
    assert_eq!(server.assume(VENDOR, &role, &[]).await.err(), Some("Throttling".into()));
}

#[tokio::test]
async fn a_change_shows_to_its_author_at_once_and_to_others_after_the_lag() {
    let scene = scene().await;
    let id = json!({"KeyId": scene.acme});
    let long = scene.server.fault(json!({"kind": "lag", "account": ACME, "millis": 60_000})).await;
    scene.server.kms(ACME, "DisableKey", id.clone()).await.expect("disabled");
    let own = json!({"KeyId": scene.acme, "Plaintext": base64(b"x")});
    assert_eq!(scene.server.kms(ACME, "Encrypt", own).await, Err("DisabledException".into()));
    let seen = scene.server.kms(&scene.vendor, "DescribeKey", id).await.expect("metadata");
    assert_eq!(seen["KeyMetadata"]["KeyState"], "Disabled", "only cryptographic calls lag");
    scene.encrypt(&scene.acme).await.expect("not spread yet");
    scene.server.admin(Method::DELETE, &format!("faults/{}", long["id"]), Value::Null).await;

    let start = Instant::now();
    scene.server.fault(json!({"kind": "lag", "account": GLOBEX, "millis": 400})).await;
    scene.server.kms(GLOBEX, "DisableKey", json!({"KeyId": scene.globex})).await.expect("disabled");
    while scene.encrypt(&scene.globex).await.is_ok() {
        assert!(start.elapsed() < Duration::from_secs(20), "the change never spreads");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(start.elapsed() >= Duration::from_millis(400));
}

#[tokio::test]
async fn a_key_that_was_enabled_again_still_refuses_for_a_while() {
    let scene = scene().await;
    let id = json!({"KeyId": scene.acme});
    scene.server.kms(ACME, "DisableKey", id.clone()).await.expect("disabled");
    scene.server.fault(json!({"kind": "lag", "account": ACME, "millis": 60_000})).await;
    scene.server.kms(ACME, "EnableKey", id).await.expect("enabled");
    assert_eq!(scene.encrypt(&scene.acme).await, Err("DisabledException".into()));
}

fn accepted(_: &Seen) -> (u16, String) {
    (202, String::new())
}

fn events(seen: &std::sync::Mutex<Vec<Seen>>) -> Vec<Value> {
    let seen = seen.lock().expect("a lock");
    seen.iter().map(|seen| serde_json::from_str(&seen.body).expect("JSON")).collect()
}

#[tokio::test]
async fn a_change_reaches_the_function_as_a_cloudtrail_event() {
    let (endpoint, seen) = fake_aws(accepted).await;
    let server = start_with_events(&endpoint).await;
    let key = server.key(ACME).await;
    server.kms(ACME, "DisableKey", json!({"KeyId": key})).await.expect("disabled");
    let event = eventually(|| events(&seen).into_iter().next()).await;
    let detail = &event["detail"];
    assert_eq!(event["source"], "aws.kms");
    assert_eq!(event["detail-type"], "AWS API Call via CloudTrail");
    assert_eq!((&event["account"], &event["region"]), (&json!(ACME), &json!(REGION)));
    assert_eq!(detail["eventName"], "DisableKey");
    assert_eq!(detail["eventSource"], "kms.amazonaws.com");
    assert_eq!(detail["readOnly"], false);
    assert_eq!(detail["userIdentity"]["arn"], format!("arn:aws:iam::{ACME}:root"));
    assert_eq!(detail["requestParameters"], json!({"keyId": key}));
    assert_eq!(detail["resources"], json!([{"accountId": ACME, "type": "AWS::KMS::Key", "ARN": key}]));
    let request = seen.lock().expect("a lock")[0].clone();
    assert_eq!(request.path, "/2015-03-31/functions/key-events/invocations");
    assert_eq!(request.invocation_type, "Event");
    assert!(request.authorization.contains(&format!("Credential={VENDOR}/")), "{}", request.authorization);
    assert!(request.authorization.contains("/eu-central-1/lambda/aws4_request"), "{}", request.authorization);
}

#[tokio::test]
async fn only_changes_that_succeed_are_told() {
    let (endpoint, seen) = fake_aws(accepted).await;
    let server = start_with_events(&endpoint).await;
    let key = server.key(ACME).await;
    let id = json!({"KeyId": key});
    server.kms(GLOBEX, "DisableKey", id.clone()).await.expect_err("not its key");
    server.kms(ACME, "DescribeKey", id.clone()).await.expect("read");
    server.kms(ACME, "CancelKeyDeletion", id.clone()).await.expect_err("not pending");
    server.role(ACME, "r", trusts(VENDOR), allows("kms:*")).await;
    server.kms(ACME, "ScheduleKeyDeletion", id.clone()).await.expect("scheduled");
    server.kms(ACME, "CancelKeyDeletion", id).await.expect("cancelled");
    let names = eventually(|| {
        let mut names: Vec<_> = events(&seen)
            .iter()
            .map(|event| (event["detail"]["eventName"].clone(), event["region"].clone()))
            .collect();
        names.sort_by_key(|name| format!("{name:?}"));
        (names.len() >= 3).then_some(names)
    });
    let expected =
        [("CancelKeyDeletion", REGION), ("PutRolePolicy", "us-east-1"), ("ScheduleKeyDeletion", REGION)];
    assert_eq!(names.await, expected.map(|(name, region)| (json!(name), json!(region))));
}

#[tokio::test]
async fn events_get_lost_doubled_and_late_on_request() {
    let (endpoint, seen) = fake_aws(accepted).await;
    let server = start_with_events(&endpoint).await;
    let key = server.key(ACME).await;
    let id = json!({"KeyId": key});
    let lost = server.fault(json!({"kind": "events-lost", "account": ACME, "region": REGION})).await;
    server.kms(ACME, "DisableKey", id.clone()).await.expect("disabled");
    server.admin(Method::DELETE, &format!("faults/{}", lost["id"]), Value::Null).await;

    server.fault(json!({"kind": "events-doubled", "count": 1})).await;
    server.fault(json!({"kind": "events-late", "millis": 200, "count": 1})).await;
    let start = Instant::now();
    server.kms(ACME, "EnableKey", id).await.expect("enabled");
    let told = eventually(|| Some(events(&seen)).filter(|told| told.len() == 2)).await;
    assert!(start.elapsed() >= Duration::from_millis(200));
    assert_eq!(told[0], told[1], "a duplicate has the same event id");
    assert_eq!(told[0]["detail"]["eventName"], "EnableKey");
    let log = server.admin(Method::GET, "events", Value::Null).await;
    assert_eq!(log["events"][0]["outcome"], "lost");
}

#[tokio::test]
async fn a_function_that_cannot_be_reached_holds_up_nobody() {
    let server = start_with_events("http://127.0.0.1:9").await;
    let key = server.key(ACME).await;
    server.kms(ACME, "DisableKey", json!({"KeyId": key})).await.expect("disabled");
}

#[tokio::test]
async fn time_can_be_moved_on_until_a_key_is_gone() {
    let (endpoint, seen) = fake_aws(accepted).await;
    let server = start_with_events(&endpoint).await;
    let key = server.key(ACME).await;
    let input = json!({"KeyId": key, "Plaintext": base64(b"x")});
    let blob = server.kms(ACME, "Encrypt", input).await.expect("a ciphertext")["CiphertextBlob"].clone();
    let early = server.admin(Method::POST, "expire", json!({"keyArn": key})).await;
    assert_eq!(early["code"], "conflict");
    server.kms(ACME, "ScheduleKeyDeletion", json!({"KeyId": key})).await.expect("scheduled");
    let answer = server.admin(Method::POST, "expire", json!({"keyArn": key})).await;
    assert_eq!(answer["result"], "deleted");
    assert_eq!(server.kms(ACME, "DescribeKey", json!({"KeyId": key})).await, Err("NotFoundException".into()));
    let decrypt = json!({"CiphertextBlob": blob});
    assert_eq!(server.kms(ACME, "Decrypt", decrypt).await, Err("AccessDeniedException".into()));
    let native =
        eventually(|| events(&seen).into_iter().find(|event| event["detail-type"] == "KMS CMK Deletion"));
    assert_eq!(native.await["resources"], json!([key]));
}

#[tokio::test]
async fn the_record_of_calls_tells_caller_outcome_and_context() {
    let scene = scene().await;
    scene.server.admin(Method::POST, "calls/reset", Value::Null).await;
    let input = json!({"KeyId": scene.acme, "Plaintext": base64(b"x"), "EncryptionContext": {"a": "b"}});
    scene.server.kms(&scene.vendor, "Encrypt", input).await.expect("allowed");
    scene.server.kms(ACME, "DisableKey", json!({"KeyId": scene.acme})).await.expect("disabled");
    scene.encrypt(&scene.acme).await.expect_err("disabled");
    scene.encrypt(&scene.globex).await.expect("another customer");
    let path = format!("calls?account={ACME}&operation=Encrypt");
    let record = scene.server.admin(Method::GET, &path, Value::Null).await;
    assert_eq!(record["matched"], 2);
    let first = &record["calls"][0];
    assert_eq!(first["caller"], format!("arn:aws:sts::{VENDOR}:assumed-role/key-access/test"));
    assert_eq!((&first["callerAccount"], &first["resource"]), (&json!(VENDOR), &json!(scene.acme)));
    assert_eq!((&first["encryptionContext"], &first["outcome"]), (&json!({"a": "b"}), &json!("ok")));
    assert_eq!(record["calls"][1]["outcome"], "DisabledException");
    let counted: u64 =
        record["counters"].as_array().expect("a list").iter().filter_map(|c| c["count"].as_u64()).sum();
    assert_eq!(counted, 2);
    let later = scene.server.admin(Method::GET, "calls?since=2099-01-01T00:00:00Z", Value::Null).await;
    assert_eq!(later["matched"], 0);
}
