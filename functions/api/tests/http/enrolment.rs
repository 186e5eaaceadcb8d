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
#[case::e8_a_role_of_the_other_mode("roleArn", json!("arn:aws:iam::222222222222:role/a"), "roleArn")]
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

fn byok() -> Value {
    json!({
        "mode": "byok", "awsAccountId": "333333333333", "realm": "usa",
        "roleArn": "arn:aws:iam::333333333333:role/key-management",
        "contextTag": "acme1", "contextTagConfirmation": "acme1",
    })
}

#[rstest]
#[case::e7_missing("roleArn", Value::Null, "roleArn")]
#[case::e7_no_text("roleArn", json!(["arn:aws:iam::333333333333:role/a"]), "roleArn")]
#[case::e7_a_name("roleArn", json!("key-management"), "roleArn")]
#[case::e7_a_user("roleArn", json!("arn:aws:iam::333333333333:user/key-management"), "roleArn")]
#[case::e7_another_account("roleArn", json!("arn:aws:iam::444444444444:role/key-management"), "roleArn")]
#[case::e7_another_partition("roleArn", json!("arn:aws-cn:iam::333333333333:role/key-management"), "roleArn")]
#[case::e7_eleven_digits("roleArn", json!("arn:aws:iam::33333333333:role/key-management"), "roleArn")]
#[case::e8_keys_of_the_other_mode("keys", json!([good("us-east-1")]), "keys")]
#[case::e8_keys_that_are_none("keys", json!([]), "keys")]
#[tokio::test]
async fn e12_byok_a_wrong_role_is_named_with_its_reason_and_remedy(
    #[case] field: &str,
    #[case] value: Value,
    #[case] named: &str,
) {
    let stage = stage().await;
    let mut body = byok();
    body[field] = value;
    let came = stage.post("acme-admin", ENROL, body).await;
    assert_eq!(came.status, StatusCode::BAD_REQUEST, "{}", came.text);
    assert_eq!(came.fields(), [named]);
    for error in came.json()["errors"].as_array().unwrap() {
        assert!(!error["reason"].as_str().unwrap().is_empty() && !error["help"].as_str().unwrap().is_empty());
    }
    assert_eq!(Policies::policy(&*stage.world, &parsed("acme")).await.unwrap(), None);
    assert!(stage.world.take_probe_requests().is_empty(), "no role is touched for a request that is wrong");
}

#[tokio::test]
async fn e8_byok_waits_for_support_with_its_role_and_shows_its_own_documents() {
    let stage = stage().await;
    let before = stage.get("acme-admin", "organizations/acme/key-policy").await.json();
    let external_id = before["role"]["externalId"].as_str().unwrap().to_owned();
    assert!(before["role"]["trustPolicy"].to_string().contains(&external_id));
    stage.regions_are_good(&["us-east-1", "us-west-2"]);
    let came = stage.post("acme-admin", ENROL, byok()).await;
    assert_eq!(came.status, StatusCode::ACCEPTED, "{}", came.text);
    let shown = stage.get("acme-admin", ENROL).await.json();
    assert_eq!((&shown["mode"], &shown["lifecycle"]), (&json!("byok"), &json!("requested")));
    assert_eq!(shown["roleArn"], "arn:aws:iam::333333333333:role/key-management");
    assert_eq!(shown["keys"], json!([]), "no key is made before support has approved");
    assert!(
        !shown.to_string().contains(&external_id),
        "the external id is shown where it is to be pasted, only"
    );
    let after = stage.get("acme-admin", "organizations/acme/key-policy").await.json();
    assert_eq!(after["role"]["externalId"], external_id.as_str(), "the same for good");
    assert!(after["policy"].to_string().contains("ClavigerOnlyWithContext"));
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
