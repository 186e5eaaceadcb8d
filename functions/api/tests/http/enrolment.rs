//! Every field of an enrolment, wrong in several ways.

use claviger_app::ports::Policies;
use claviger_testkit::builders::{a_key, parsed};
use http::StatusCode;
use rstest::rstest;
use serde_json::{Value, json};

use crate::stage::{enrolment, stage};

const ENROL: &str = "organizations/acme/encryption-policy";

fn key(region: &str, arn: &str) -> Value {
    json!({ "region": region, "keyArn": arn })
}

fn good(region: &str) -> Value {
    key(region, a_key("222222222222", region, 1).as_str())
}

#[rstest]
#[case::missing("mode", Value::Null, "mode")]
#[case::unknown("mode", json!("hyok"), "mode")]
#[case::no_text("mode", json!(1), "mode")]
#[case::e5_eleven_digits("awsAccountId", json!("27976624415"), "awsAccountId")]
#[case::e5_thirteen_digits("awsAccountId", json!("2222222222223"), "awsAccountId")]
#[case::e5_other_digits("awsAccountId", json!("२२२२२२२२२२२२"), "awsAccountId")]
#[case::e5_a_number("awsAccountId", json!(222_222_222_222_u64), "awsAccountId")]
#[case::e6_unknown_realm("realm", json!("mars"), "realm")]
#[case::e6_misspelt_realm("realm", json!("Europe"), "realm")]
#[case::e7_no_keys("keys", Value::Null, "keys")]
#[case::e7_keys_are_no_list("keys", json!({}), "keys")]
#[case::e7_a_region_is_missing("keys", json!([good("eu-central-1")]), "keys")]
#[case::e7_a_region_too_many(
    "keys", json!([good("eu-central-1"), good("eu-west-1"), good("us-east-1")]), "keys[2].region")]
#[case::e7_a_region_twice(
    "keys", json!([good("eu-central-1"), good("eu-west-1"), good("eu-west-1")]), "keys[2].region")]
#[case::e7_an_alias(
    "keys",
    json!([good("eu-central-1"), key("eu-west-1", "arn:aws:kms:eu-west-1:222222222222:alias/mine")]),
    "keys[1].keyArn")]
#[case::e7_another_region(
    "keys",
    json!([good("eu-central-1"), key("eu-west-1", a_key("222222222222", "eu-west-2", 1).as_str())]),
    "keys[1].keyArn")]
#[case::e7_another_account(
    "keys",
    json!([good("eu-central-1"), key("eu-west-1", a_key("333333333333", "eu-west-1", 1).as_str())]),
    "keys[1].keyArn")]
#[case::e7_an_entry_without_key("keys", json!([good("eu-central-1"), { "region": "eu-west-1" }]), "keys[1].keyArn")]
#[case::e9_empty_tag("contextTag", json!(""), "contextTag")]
#[case::e9_long_tag("contextTag", json!("a234567890123"), "contextTag")]
#[case::e9_odd_tag("contextTag", json!("acme-1"), "contextTag")]
#[case::e9_typed_otherwise("contextTagConfirmation", json!("acme2"), "contextTagConfirmation")]
#[case::e9_typed_once("contextTagConfirmation", Value::Null, "contextTagConfirmation")]
#[tokio::test]
async fn a_wrong_field_is_named_with_its_reason_and_remedy(
    #[case] field: &str,
    #[case] value: Value,
    #[case] named: &str,
) {
    let stage = stage().await;
    let mut body = enrolment("222222222222");
    body[field] = value;
    let came = stage.post("acme-admin", ENROL, body).await;
    assert_eq!(came.status, StatusCode::BAD_REQUEST, "{}", came.text);
    assert_eq!(came.code(), "invalid-request");
    assert!(came.fields().iter().any(|field| field == named), "{:?}", came.fields());
    for error in came.json()["errors"].as_array().unwrap() {
        assert!(!error["reason"].as_str().unwrap().is_empty() && !error["help"].as_str().unwrap().is_empty());
    }
    assert_eq!(Policies::policy(&*stage.world, &parsed("acme")).await.unwrap(), None);
    assert!(stage.world.take_probe_requests().is_empty(), "no key is touched for a request that is wrong");
}

#[tokio::test]
async fn e12_the_dry_run_lists_a_wrong_field_as_a_failed_check() {
    let stage = stage().await;
    stage.keys_are_good();
    let mut body = enrolment("222222222222");
    body["keys"].as_array_mut().unwrap().pop();
    let came = stage.post("acme-admin", &format!("{ENROL}/validate"), body).await;
    // The prober of the stage answers for both regions; the request lacks one of them.
    assert_eq!(came.status, StatusCode::OK, "{}", came.text);
    assert_eq!(came.json()["result"], "fail");
    let checks = came.json()["checks"].as_array().unwrap().clone();
    let missing = checks.iter().find(|check| check["id"] == "keys").unwrap();
    assert!(missing["observed"].as_str().unwrap().contains("eu-west-1"));
    assert!(missing["help"].as_str().unwrap().contains("eu-west-1"));
    assert_eq!(missing["region"], Value::Null);
    let list = stage.post("acme-admin", &format!("{ENROL}/validate"), json!([])).await;
    assert_eq!(list.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn e4_the_second_enrolment_is_refused() {
    let stage = stage().await;
    stage.keys_are_good();
    let came = stage.post("acme-admin", ENROL, enrolment("222222222222")).await;
    assert_eq!(came.status, StatusCode::ACCEPTED, "{}", came.text);
    assert_eq!(came.headers["location"], format!("/v1/{ENROL}"));
    let again = stage.post("acme-admin", ENROL, enrolment("222222222222")).await;
    assert_eq!((again.status, again.code().as_str()), (StatusCode::CONFLICT, "already-enrolled"));
}
