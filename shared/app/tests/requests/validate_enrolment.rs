use claviger_app::hint_budget::HintRecord;
use claviger_app::messages::{Check, CheckResult};
use claviger_app::messages::{ProbeAnswer, ProbeRequest};
use claviger_app::ports::CallError;
use claviger_app::ports::{HintRecords, Policies};
use claviger_app::request_error::RequestError;
use claviger_app::validate_enrolment::*;
use claviger_testkit::MemoryWorld;
use claviger_testkit::builders::{self, a_key, an_organisation};
use rstest::rstest;
use serde_json::Value;
use serde_json::json;

fn body() -> Value {
    let keys: Vec<Value> = ["eu-central-1", "eu-west-1"]
        .iter()
        .map(|region| json!({ "region": region, "keyArn": a_key("222222222222", region, 1).as_str() }))
        .collect();
    json!({
        "mode": "cmk", "awsAccountId": "222222222222", "realm": "europe", "keys": keys,
        "contextTag": "acme1", "contextTagConfirmation": "acme1",
    })
}

fn passing(regions: &[&str]) -> Result<ProbeAnswer, CallError> {
    let check = |region: &&str| Check {
        region: Some(region.parse().unwrap()),
        id: "key-usable".to_owned(),
        result: CheckResult::Pass,
        observed: "seen".to_owned(),
        help: String::new(),
    };
    Ok(ProbeAnswer::Checked { checks: regions.iter().map(check).collect() })
}

async fn validate(world: &MemoryWorld, body: &Value) -> Result<Validation, RequestError> {
    ValidateEnrolment { policies: world, prober: world, hints: world, settings: builders::settings() }
        .run(&an_organisation("acme"), body)
        .await
}

fn failed(validation: &Validation) -> Vec<&str> {
    let failed = validation.checks.iter().filter(|check| check.result == CheckResult::Fail);
    failed.map(|check| check.id.as_str()).collect()
}

#[tokio::test]
async fn e12_a_dry_run_passes_and_stores_nothing() {
    let world = MemoryWorld::new();
    world.prober_answers(passing(&["eu-central-1", "eu-west-1"]));
    let validation = validate(&world, &body()).await.unwrap();
    // Events cannot have come yet: that is all there is to look at.
    assert_eq!(validation.result, CheckResult::Warn);
    let warned = validation.checks.iter().filter(|check| check.result != CheckResult::Pass);
    assert_eq!(warned.map(|check| check.id.as_str()).collect::<Vec<_>>(), ["events-arriving"]);
    assert_eq!(Policies::policy(&world, &"acme".parse().unwrap()).await.unwrap(), None);
}

#[tokio::test]
async fn e12_a_missing_region_is_a_failed_check_and_the_other_key_is_checked_all_the_same() {
    let world = MemoryWorld::new();
    world.prober_answers(passing(&["eu-central-1"]));
    let mut body = body();
    body["keys"].as_array_mut().unwrap().truncate(1);
    body["contextTagConfirmation"] = json!("acme2");
    let validation = validate(&world, &body).await.unwrap();
    assert_eq!(validation.result, CheckResult::Fail);
    assert_eq!(failed(&validation), ["context-tag-confirmation", "keys"]);
    let asked = world.take_probe_requests();
    assert!(
        matches!(asked.as_slice(), [ProbeRequest::Check { enrolment, .. }] if enrolment.keys().count() == 1)
    );
}

#[tokio::test]
async fn e12_byok_the_role_is_checked_in_every_region_of_the_realm_with_the_organisations_external_id() {
    let world = MemoryWorld::new();
    world.prober_answers(passing(&["us-east-1", "us-west-2"]));
    let body = json!({
        "mode": "byok", "awsAccountId": "333333333333", "realm": "usa",
        "roleArn": "arn:aws:iam::333333333333:role/key-management",
        "contextTag": "acme1", "contextTagConfirmation": "other",
    });
    let validation = validate(&world, &body).await.unwrap();
    assert_eq!(failed(&validation), ["context-tag-confirmation"], "the role is checked all the same");
    let asked = world.take_probe_requests();
    let [ProbeRequest::Check { external_id, regions, .. }] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!(*external_id, an_organisation("acme").external_id);
    assert_eq!(regions.iter().map(|region| region.as_str()).collect::<Vec<_>>(), ["us-east-1", "us-west-2"]);
}

#[tokio::test]
async fn e12_a_body_without_any_key_lists_its_faults_and_touches_no_key() {
    let world = MemoryWorld::new();
    let validation = validate(&world, &json!({})).await.unwrap();
    let ids = failed(&validation);
    for id in ["mode", "aws-account-id", "realm", "context-tag"] {
        assert!(ids.contains(&id), "{id}: {ids:?}");
    }
    assert!(validation.checks.iter().all(|check| !check.help.is_empty()));
    assert!(world.take_probe_requests().is_empty());
}

#[tokio::test]
async fn a_body_that_is_no_object_is_an_invalid_request() {
    let error = validate(&MemoryWorld::new(), &json!([1])).await.unwrap_err();
    assert!(matches!(error, RequestError::Invalid(faults) if faults.len() == 1));
}

#[tokio::test]
async fn e12_whether_events_arrive_is_said_of_the_organisations_own_account_alone() {
    let world = MemoryWorld::new();
    let (acme, globex) = (an_organisation("acme"), an_organisation("globex"));
    let now = builders::instant("2026-11-23T09:00:00Z");
    let seen = |validation: &Validation| {
        let check = validation.checks.iter().find(|check| check.id == "events-arriving").unwrap();
        (check.result, check.observed.clone())
    };
    let enrolled =
        builders::an_active_policy(&globex, &builders::an_enrolment("222222222222", "europe"), now);
    world.seed_policy(enrolled);
    let heard = HintRecord { planned_at: now, period_began: now, used: 1, heard: Vec::new() };
    world.save_hints(&"222222222222".parse().unwrap(), None, &heard).await.unwrap();
    let ask = async || {
        world.prober_answers(passing(&["eu-central-1", "eu-west-1"]));
        seen(&validate(&world, &body()).await.unwrap())
    };
    // Another organisation's events on the same account are none of acme's business.
    let (result, observed) = ask().await;
    assert!(result == CheckResult::Warn && observed.contains("before enrolment"), "{observed}");
    let own = builders::an_active_policy(&acme, &builders::an_enrolment("222222222222", "europe"), now);
    world.seed_policy(own);
    let (result, observed) = ask().await;
    assert!(result == CheckResult::Pass && observed.contains("2026-11-23T09:00:00Z"), "{observed}");
}

#[rstest]
#[case::key_policy(json!({
    "mode": "cmk", "keys": [{ "region": "eu-central-1", "keyArn": a_key("111111111111", "eu-central-1", 1).as_str() }],
}))]
#[case::role(json!({ "mode": "byok", "roleArn": "arn:aws:iam::111111111111:role/key-management" }))]
#[tokio::test]
async fn i7_no_key_and_no_role_of_our_own_account_is_tried(#[case] holding: Value) {
    let world = MemoryWorld::new();
    let mut body = json!({
        "awsAccountId": "111111111111", "realm": "europe", "contextTag": "acme1", "contextTagConfirmation": "acme1",
    });
    body.as_object_mut().unwrap().extend(holding.as_object().unwrap().clone());
    let validation = validate(&world, &body).await.unwrap();
    assert_eq!(validation.result, CheckResult::Fail);
    assert!(world.take_probe_requests().is_empty());
}

#[tokio::test]
async fn e6_a_key_in_a_region_that_the_catalogue_does_not_have_is_not_tried() {
    let world = MemoryWorld::new();
    world.prober_answers(passing(&["eu-central-1"]));
    let mut body = body();
    body["keys"][1] = json!({ "region": "aa-bb-1", "keyArn": a_key("222222222222", "aa-bb-1", 1).as_str() });
    assert_eq!(validate(&world, &body).await.unwrap().result, CheckResult::Fail);
    let asked = world.take_probe_requests();
    let [ProbeRequest::Check { enrolment, .. }] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!(enrolment.keys().map(|(region, _)| region.as_str()).collect::<Vec<_>>(), ["eu-central-1"]);
}
