//! The form of answers, whatever the call.

use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::stage::stage;

const ENROL: &str = "organizations/acme/encryption-policy";

#[tokio::test]
async fn trouble_is_a_problem_document_that_names_the_request() {
    let stage = stage().await;
    let came = stage.get("acme-admin", "organizations/nowhere/audit").await;
    assert_eq!(came.headers["content-type"], "application/problem+json");
    let problem = came.json();
    assert_eq!(problem["type"], "/problems/not-found");
    assert_eq!(problem["status"], 404);
    assert_eq!(problem["retryable"], false);
    let id = came.headers["x-correlation-id"].to_str().unwrap();
    assert_eq!(problem["instance"], format!("urn:uuid:{id}"));
    for field in ["title", "detail", "code", "help"] {
        assert!(problem[field].is_string(), "{field}");
    }
    assert!(problem["errors"].is_array());
}

#[tokio::test]
async fn a_body_that_is_no_json_names_the_reason_and_the_place() {
    let stage = stage().await;
    for (sent, reason) in [("{\"mode\": }", "line 1 column 10"), ("", "the body is empty"), ("[1,", "EOF")] {
        let came = stage.raw("acme-admin", "POST", ENROL, Body::from(sent)).await;
        assert_eq!(came.status, StatusCode::BAD_REQUEST);
        assert!(came.text.contains(reason), "{}", came.text);
    }
    let came = stage.raw("acme-admin", "POST", "organizations/acme/app-instances", Body::from("[]")).await;
    assert_eq!(came.fields(), ["(body)"]);
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused_after_the_caller_was_let_in() {
    let stage = stage().await;
    let large = || Body::from(format!("\"{}\"", "a".repeat(256 * 1024)));
    let came = stage.raw("acme-admin", "POST", ENROL, large()).await;
    assert_eq!(came.status, StatusCode::PAYLOAD_TOO_LARGE);
    let came = stage.raw("nobody", "POST", ENROL, large()).await;
    assert_eq!(came.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_wrong_method_says_which_ones_there_are_and_a_wrong_path_says_nothing() {
    let stage = stage().await;
    let came = stage.call("acme-admin", "DELETE", ENROL, None).await;
    assert_eq!((came.status, came.code().as_str()), (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed"));
    let allow = came.headers["allow"].to_str().unwrap();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    for path in ["organizations/acme/nothing", "organizations/acme", "support/nothing", "openapi.yaml"] {
        let came = stage.call("acme-admin", "GET", path, None).await;
        assert!(matches!(came.status.as_u16(), 404 | 405), "{path}: {}", came.status);
        assert_eq!(came.headers["content-type"], "application/problem+json");
    }
    let elsewhere = Request::builder().uri("/").body(Body::empty()).unwrap();
    assert_eq!(stage.send(elsewhere).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn anybody_may_see_the_catalogue_and_that_we_are_well() {
    let stage = stage().await;
    let catalogue = stage.get("", "catalogue").await;
    assert_eq!(catalogue.status, StatusCode::OK);
    let europe = json!({ "realm": "europe", "name": "Europe", "regions": ["eu-central-1", "eu-west-1"] });
    assert!(catalogue.json()["realms"].as_array().unwrap().contains(&europe));
    assert_eq!(catalogue.json()["bounds"]["cutOffSeconds"], 100);
    assert_eq!(stage.get("", "health").await.json()["status"], "ok");
}

#[tokio::test]
async fn a_wrong_feed_names_its_fields() {
    let stage = stage().await;
    let feed = json!({ "plans": { "word": "x" }, "government": 1, "admins": [""], "auditors": Value::Null });
    let came = stage.call("system", "PUT", "organizations/acme", Some(feed)).await;
    assert_eq!(came.fields(), ["plans.word", "admins[0]", "auditors", "government"]);
    let came = stage.call("system", "PUT", "organizations/Acme", Some(json!({}))).await;
    assert_eq!(came.fields(), ["org"]);
}

#[tokio::test]
async fn a_name_that_is_no_utf_8_names_nothing() {
    let stage = stage().await;
    for path in ["organizations/%ff/app-instances", "organizations/acme/tickets/%c3%28/comments"] {
        for who in ["", "acme-admin", "system"] {
            let came = stage.call(who, "POST", path, Some(json!({ "body": "x" }))).await;
            assert_eq!(came.status, StatusCode::NOT_FOUND, "{path}");
            assert_eq!(came.code(), "not-found");
        }
    }
}

#[tokio::test]
async fn headers_and_paths_have_their_limits() {
    let stage = stage().await;
    let long = format!("organizations/acme/tickets?cursor={}", "a".repeat(5000));
    let came = stage.get("acme-admin", &long).await;
    assert_eq!(
        (came.status, came.code().as_str()),
        (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers-too-large")
    );
    let names: Vec<String> = (0..70).map(|n| format!("x-{n}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    let large = "a".repeat(33 * 1024);
    for headers in [many.as_slice(), &[("x-large", &large)]] {
        let came =
            stage.with("acme-admin", "GET", "organizations/acme/tickets", headers, Body::empty()).await;
        assert_eq!(came.code(), "headers-too-large");
    }
}
