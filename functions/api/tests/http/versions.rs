//! `ETag` and `If-Match`: a change of what was seen, and of nothing newer.

use http::StatusCode;
use serde_json::json;

use crate::stage::{Stage, enrolment, stage};

const POLICY: &str = "organizations/acme/encryption-policy";

async fn waiting() -> (Stage, String, String) {
    let stage = stage().await;
    stage.keys_are_good();
    let came = stage.post("acme-admin", POLICY, enrolment("222222222222")).await;
    let id = came.json()["id"].as_str().unwrap().to_owned();
    let tag = came.headers["etag"].to_str().unwrap().to_owned();
    (stage, format!("support/requests/{id}/approve"), tag)
}

#[tokio::test]
async fn a_policy_shows_its_version_the_same_way_everywhere() {
    let (stage, _, tag) = waiting().await;
    let shown = stage.get("acme-admin", POLICY).await;
    assert_eq!(shown.headers["etag"].to_str().unwrap(), tag);
    assert_eq!(format!("\"{}\"", shown.json()["etag"].as_str().unwrap()), tag);
}

#[tokio::test]
async fn a_change_of_something_newer_than_was_seen_is_refused_and_changes_nothing() {
    let (stage, approve, tag) = waiting().await;
    for stale in ["\"0-00000000000000000000000000000000\"", &format!("W/{tag}"), "\"\""] {
        let came = stage.post_with("support", &approve, &[("if-match", stale)], json!({})).await;
        assert_eq!(
            (came.status, came.code().as_str()),
            (StatusCode::PRECONDITION_FAILED, "precondition-failed"),
            "{stale}"
        );
        assert_eq!(stage.get("acme-admin", POLICY).await.json()["lifecycle"], "requested");
    }
    let several = format!("\"x\", {tag}");
    let came = stage.post_with("support", &approve, &[("if-match", &several)], json!({})).await;
    assert_eq!(came.status, StatusCode::OK, "{}", came.text);
    let reject = approve.replace("approve", "reject");
    let sent = json!({ "reason": "too late" });
    let came = stage.post_with("support", &reject, &[("if-match", &tag)], sent).await;
    assert!(came.status == StatusCode::CONFLICT || came.status == StatusCode::PRECONDITION_FAILED);
}

#[tokio::test]
async fn whoever_does_not_care_says_so_or_nothing() {
    let (stage, approve, _) = waiting().await;
    let came = stage.post_with("support", &approve, &[("if-match", "*")], json!({})).await;
    assert_eq!(came.status, StatusCode::OK, "{}", came.text);
}

#[tokio::test]
async fn what_is_no_entity_tag_is_named() {
    let (stage, approve, _) = waiting().await;
    for wrong in ["x", "\"x", "W/x", "\"a\" \"b\"", ""] {
        let came = stage.post_with("support", &approve, &[("if-match", wrong)], json!({})).await;
        assert_eq!(came.fields(), ["If-Match"], "{wrong}");
    }
}

#[tokio::test]
async fn an_app_instance_and_a_ticket_show_their_versions() {
    let stage = stage().await;
    let sent = json!({ "site": "eng", "app": "confluence" });
    let came = stage.post("system", "organizations/acme/app-instances/direct", sent).await;
    let listed = stage.get("acme-admin", "organizations/acme/app-instances").await.json();
    let tag = format!("\"{}\"", listed["items"][0]["etag"].as_str().unwrap());
    assert_eq!(came.headers["etag"].to_str().unwrap(), tag);
}
