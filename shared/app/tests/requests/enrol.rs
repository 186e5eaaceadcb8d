use claviger_app::enrol::*;
use claviger_app::messages::{Check, CheckResult, ProbeAnswer};
use claviger_app::ports::{CallError, Policies};
use claviger_app::request_error::RequestError;
use claviger_domain::event::Origin;
use claviger_domain::organisation::Organisation;
use claviger_domain::policy::EncryptionPolicy;
use claviger_testkit::builders::{self, an_organisation, by_admin, by_support};
use claviger_testkit::{FakeClock, MemoryWorld, SequentialIds};
use serde_json::Value;
use serde_json::json;

fn body(account: &str) -> Value {
    let keys: Vec<Value> = ["eu-central-1", "eu-west-1"]
        .iter()
        .map(|region| json!({ "region": region, "keyArn": builders::a_key(account, region, 1).as_str() }))
        .collect();
    json!({
        "mode": "cmk", "awsAccountId": account, "realm": "europe", "keys": keys,
        "contextTag": "acme1", "contextTagConfirmation": "acme1",
    })
}

fn checked(result: CheckResult) -> Result<ProbeAnswer, CallError> {
    let check = |region: &str, result| Check {
        id: "context-condition".to_owned(),
        region: Some(region.parse().unwrap()),
        result,
        observed: "seen".to_owned(),
        help: "do".to_owned(),
    };
    Ok(ProbeAnswer::Checked {
        checks: vec![check("eu-central-1", CheckResult::Pass), check("eu-west-1", result)],
    })
}

async fn enrol_as(
    world: &MemoryWorld,
    organisation: &Organisation,
    body: &Value,
    origin: &Origin,
) -> Result<EncryptionPolicy, RequestError> {
    let (ids, clock) = (
        SequentialIds::after(u64::from(organisation.name.as_str().len() as u32) * 1000),
        FakeClock::default(),
    );
    let settings = builders::settings();
    Enrol { policies: world, prober: world, ids: &ids, clock: &clock, settings }
        .run(organisation, body, origin)
        .await
}

#[tokio::test]
async fn e5_our_own_account_is_nobodys() {
    let (world, acme) = (MemoryWorld::new(), an_organisation("acme"));
    let error = enrol_as(&world, &acme, &body("111111111111"), &by_admin()).await.unwrap_err();
    assert!(matches!(error, RequestError::Invalid(faults) if faults[0].field == "awsAccountId"));
    assert!(world.take_probe_requests().is_empty());
}

#[tokio::test]
async fn e12_nothing_is_stored_while_a_check_fails() {
    let (world, acme) = (MemoryWorld::new(), an_organisation("acme"));
    world.prober_answers(checked(CheckResult::Fail));
    let error = enrol_as(&world, &acme, &body("222222222222"), &by_admin()).await.unwrap_err();
    assert!(matches!(error, RequestError::NotVerified(checks) if checks.len() == 2));
    assert_eq!(Policies::policy(&world, &acme.name).await.unwrap(), None);
    assert!(world.all_facts(&acme.name).is_empty());
}

#[tokio::test]
async fn e12_a_prober_that_leaves_a_region_out_proves_nothing() {
    let (world, acme) = (MemoryWorld::new(), an_organisation("acme"));
    world.prober_answers(Ok(ProbeAnswer::Checked { checks: Vec::new() }));
    let error = enrol_as(&world, &acme, &body("222222222222"), &by_admin()).await.unwrap_err();
    assert!(matches!(error, RequestError::Call(_)));
    assert_eq!(Policies::policy(&world, &acme.name).await.unwrap(), None);
}

#[tokio::test]
async fn e4_a_second_configuration_is_refused_and_another_realm_has_its_own_words() {
    let (world, acme) = (MemoryWorld::new(), an_organisation("acme"));
    world.prober_answers(checked(CheckResult::Pass));
    let policy = enrol_as(&world, &acme, &body("222222222222"), &by_admin()).await.unwrap();
    assert_eq!(policy.lifecycle.slug(), "requested");
    let error = enrol_as(&world, &acme, &body("222222222222"), &by_admin()).await.unwrap_err();
    assert!(matches!(error, RequestError::AlreadyEnrolled { .. }));
    let mut elsewhere = body("222222222222");
    elsewhere["realm"] = json!("germany");
    elsewhere["keys"].as_array_mut().unwrap().truncate(1);
    let error = enrol_as(&world, &acme, &elsewhere, &by_admin()).await.unwrap_err();
    assert!(error.to_string().contains("between realms"), "{error}");
}

#[tokio::test]
async fn e12_a_key_belongs_to_one_organisation() {
    let world = MemoryWorld::new();
    world.prober_answers(checked(CheckResult::Pass));
    world.prober_answers(checked(CheckResult::Pass));
    enrol_as(&world, &an_organisation("acme"), &body("222222222222"), &by_admin()).await.unwrap();
    let error = enrol_as(&world, &an_organisation("globex"), &body("222222222222"), &by_admin()).await;
    assert!(matches!(error, Err(RequestError::Taken(field)) if field.field == "keys"));
}

#[tokio::test]
async fn e1_and_e2_an_organisation_without_a_plan_or_in_the_government_cloud_is_refused() {
    let world = MemoryWorld::new();
    let mut standard = an_organisation("acme");
    standard.plans = [("jira".parse().unwrap(), "standard".to_owned())].into();
    let mut government = an_organisation("acme");
    government.government = true;
    for organisation in [standard, government] {
        let error = enrol_as(&world, &organisation, &body("222222222222"), &by_admin()).await.unwrap_err();
        assert!(matches!(error, RequestError::NotEligible { .. }), "{error}");
    }
    assert!(world.take_probe_requests().is_empty(), "no key is touched for one that may not enrol");
}

#[tokio::test]
async fn e3_nobody_but_an_org_admin_enrols() {
    let (world, acme) = (MemoryWorld::new(), an_organisation("acme"));
    world.prober_answers(checked(CheckResult::Pass));
    let error = enrol_as(&world, &acme, &body("222222222222"), &by_support()).await.unwrap_err();
    assert!(matches!(error, RequestError::Refused(_)));
}

#[tokio::test]
async fn e11_no_way_back_to_vendor_managed_keys_and_no_move_between_realms() {
    let (world, acme) = (MemoryWorld::new(), an_organisation("acme"));
    let mut back = json!({ "mode": "vendor-managed" });
    let error = enrol_as(&world, &acme, &back, &by_admin()).await.unwrap_err();
    let RequestError::Invalid(faults) = error else { panic!("{error}") };
    assert!(faults.iter().any(|fault| fault.field == "mode" && fault.help.contains("no way back")));

    world.prober_answers(checked(CheckResult::Pass));
    enrol_as(&world, &acme, &body("222222222222"), &by_admin()).await.unwrap();
    let facts = world.all_facts(&acme.name).len();
    let error = enrol_as(&world, &acme, &back, &by_admin()).await.unwrap_err();
    assert!(matches!(error, RequestError::NoWayBack), "{error}");
    back = body("222222222222");
    back["mode"] = json!("vendor-managed");
    let error = enrol_as(&world, &acme, &back, &by_admin()).await.unwrap_err();
    assert!(matches!(error, RequestError::NoWayBack), "{error}");

    let mut moved = body("222222222222");
    moved["realm"] = json!("germany");
    moved["keys"] = json!([moved["keys"][0]]);
    let error = enrol_as(&world, &acme, &moved, &by_admin()).await.unwrap_err();
    assert!(matches!(&error, RequestError::RealmIsFixed { reason } if reason.contains("europe")), "{error}");
    assert_eq!(world.all_facts(&acme.name).len(), facts, "nothing is stored");
}
