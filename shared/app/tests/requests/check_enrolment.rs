use std::collections::BTreeSet;

use claviger_app::check_enrolment::*;
use claviger_app::messages::{Check, CheckResult};
use claviger_app::ports::KeyDescription;
use claviger_domain::access::{KEY_PERMISSIONS, KeyPermission};
use claviger_domain::observation::{NoAnswerKind, Observation, RefusalKind};
use claviger_domain::values::KeyArn;
use claviger_testkit::builders::{a_key, an_enrolment, an_organisation, instant, parsed};
use claviger_testkit::{FakeKeys, SequentialIds, a_description};
use rstest::rstest;

fn home() -> KeyArn {
    a_key("222222222222", "eu-central-1", 1)
}

/// Two keys as they should be.
fn good() -> FakeKeys {
    let keys = FakeKeys::new();
    for region in ["eu-central-1", "eu-west-1"] {
        let key = a_key("222222222222", region, 1);
        keys.create(&key);
        keys.bind(&key, an_organisation("acme").id);
    }
    keys
}

async fn checked(keys: &FakeKeys) -> Vec<Check> {
    checked_with(keys, &BTreeSet::new()).await
}

async fn checked_with(keys: &FakeKeys, granted: &BTreeSet<KeyPermission>) -> Vec<Check> {
    let acme = an_organisation("acme");
    let regions = ["eu-central-1", "eu-west-1"].map(parsed);
    let whose = Checked { organisation: acme.id, external_id: &acme.external_id, regions: &regions };
    let ids = SequentialIds::default();
    let enrolment = an_enrolment("222222222222", "europe");
    CheckEnrolment { keys, roles: keys, ids: &ids }.run(whose, &enrolment, granted).await
}

/// Besides what nobody but the owner of a key can look at.
fn not_passed(checks: &[Check]) -> Vec<(&str, CheckResult)> {
    let found = checks.iter().filter(|check| check.result != CheckResult::Pass);
    let found = found.filter(|check| check.id != "wildcard-principal");
    found.map(|check| (check.id.as_str(), check.result)).collect()
}

#[tokio::test]
async fn e12_keys_as_they_should_be_pass_every_check_in_every_region() {
    let checks = checked(&good()).await;
    assert!(not_passed(&checks).is_empty(), "{checks:?}");
    for id in [
        "key-usable",
        "context-condition",
        "key-actions",
        "key-exists",
        "key-state",
        "key-spec",
        "key-store",
        "deletion-date",
        "material-expiry",
        "rotation",
        "wildcard-principal",
    ] {
        assert_eq!(checks.iter().filter(|check| check.id == id).count(), 2, "{id}");
    }
    // AWS shows nobody else the key policy, so that is not called a pass: the owner is told how to look.
    for check in checks.iter().filter(|check| check.id == "wildcard-principal") {
        assert_eq!(check.result, CheckResult::Warn);
        assert!(check.help.contains("aws kms get-key-policy --key-id arn:aws:kms:"), "{}", check.help);
    }
}

fn described(change: impl FnOnce(&mut KeyDescription)) -> Vec<KeyDescription> {
    let mut description = a_description();
    change(&mut description);
    vec![description]
}

#[rstest]
#[case::spec(described(|key| key.spec = "RSA_2048".into()), "key-spec", CheckResult::Fail)]
#[case::usage(described(|key| key.usage = "SIGN_VERIFY".into()), "key-spec", CheckResult::Fail)]
#[case::store(described(|key| key.custom_key_store = true), "key-store", CheckResult::Fail)]
#[case::manager(described(|key| key.manager = "AWS".into()), "key-store", CheckResult::Fail)]
#[case::deletion(
    described(|key| key.deletion_date = Some(instant("2026-12-24T00:00:00Z"))), "deletion-date", CheckResult::Fail)]
#[case::imported(described(|key| key.origin = "EXTERNAL".into()), "material-expiry", CheckResult::Warn)]
#[case::expiring(
    described(|key| {
        key.origin = "EXTERNAL".into();
        key.material_expires = Some(instant("2026-12-24T00:00:00Z"));
    }),
    "material-expiry",
    CheckResult::Warn
)]
#[tokio::test]
async fn e7_what_is_wrong_with_a_key_is_named_with_a_remedy(
    #[case] description: Vec<KeyDescription>,
    #[case] id: &str,
    #[case] result: CheckResult,
) {
    let keys = good();
    keys.describe_as(&home(), Ok(description[0].clone()));
    let checks = checked(&keys).await;
    assert_eq!(not_passed(&checks), [(id, result)]);
    let check = checks.iter().find(|check| check.id == id && check.result == result).unwrap();
    assert!(!check.help.is_empty() && check.region.as_ref().unwrap().as_str() == "eu-central-1");
}

#[tokio::test]
async fn e12_an_action_that_the_policy_leaves_out_is_named() {
    let keys = good();
    keys.grant_not("ReEncrypt");
    let checks = checked(&keys).await;
    assert_eq!(not_passed(&checks), [("key-actions", CheckResult::Fail); 2]);
    let check = checks.iter().find(|check| check.id == "key-actions").unwrap();
    assert!(check.observed.contains("kms:ReEncryptFrom"), "{}", check.observed);
}

#[tokio::test]
async fn k2_a_key_that_is_not_rotated_is_a_warning_with_the_command() {
    let keys = good();
    keys.rotate_not(&home());
    let checks = checked(&keys).await;
    assert_eq!(not_passed(&checks), [("rotation", CheckResult::Warn)]);
    let check = checks.iter().find(|check| check.result == CheckResult::Warn).unwrap();
    assert!(check.help.contains(&format!("enable-key-rotation --key-id {} --region eu-central-1", home())));
}

#[tokio::test]
async fn i7_nothing_of_a_key_is_shown_before_its_owner_has_bound_it() {
    let keys = good();
    keys.answer(&home(), Observation::Refused(RefusalKind::AccessDenied));
    let checks = checked(&keys).await;
    let of_home: Vec<&str> = checks
        .iter()
        .filter(|check| check.region.as_ref().is_some_and(|region| region.as_str() == "eu-central-1"))
        .map(|check| check.id.as_str())
        .collect();
    assert_eq!(of_home, ["key-usable"]);
    assert!(!keys.calls().iter().any(|call| call.operation == "DescribeKey" && call.key == home()));
}

#[rstest]
#[case("GenerateDataKeyPair", "kms:GenerateDataKeyPair")]
#[case("GenerateDataKeyPairWithoutPlaintext", "kms:GenerateDataKeyPairWithoutPlaintext")]
#[case("GetKeyRotationStatus", "kms:GetKeyRotationStatus")]
#[tokio::test]
async fn k1_a_permission_that_was_granted_on_the_keys_before_is_expected_of_new_ones(
    #[case] operation: &'static str,
    #[case] action: &str,
) {
    let keys = good();
    let all: BTreeSet<KeyPermission> = KEY_PERMISSIONS.into();
    assert!(not_passed(&checked_with(&keys, &all).await).is_empty());
    keys.grant_not(operation);
    let failed = |checks: &[Check]| {
        let of = checks.iter().filter(|check| check.result == CheckResult::Fail);
        of.map(|check| format!("{}: {}", check.id, check.observed)).collect::<Vec<_>>()
    };
    assert!(failed(&checked(&keys).await).is_empty(), "nobody granted it");
    let checks = checked_with(&keys, &[parsed(action)].into()).await;
    let found = failed(&checks);
    assert_eq!(found.len(), 2, "one a region: {found:?}");
    assert!(found.iter().all(|check| check.starts_with("granted-permissions") && check.contains(action)));
    for check in checks.iter().filter(|check| check.result == CheckResult::Fail) {
        assert!(check.help.contains("in the statement `ClavigerUse`, on the key: "), "{}", check.help);
    }
}

#[tokio::test]
async fn k1_no_answer_about_a_permission_that_was_granted_is_no_pass() {
    let keys = good();
    keys.describe_as(&home(), Err(Observation::NoAnswer(NoAnswerKind::Unreachable)));
    let checks = checked_with(&keys, &[KeyPermission::DescribeKey].into()).await;
    let of_home =
        |check: &&Check| check.id == "granted-permissions" && check.region == Some(parsed("eu-central-1"));
    let found: Vec<&Check> = checks.iter().filter(of_home).collect();
    assert!(matches!(found[..], [Check { result: CheckResult::Fail, .. }]), "{found:?}");
    assert!(found[0].help.contains("try again"), "{}", found[0].help);
}

#[tokio::test]
async fn i7_nothing_of_a_key_is_shown_while_it_also_works_for_others() {
    let keys = good();
    keys.bind_to_nobody(&home());
    let checks = checked(&keys).await;
    let of_home = checks.iter().filter(|check| check.region == Some(parsed("eu-central-1")));
    let of_home: Vec<(&str, CheckResult)> = of_home.map(|check| (check.id.as_str(), check.result)).collect();
    assert_eq!(of_home, [("key-usable", CheckResult::Pass), ("context-condition", CheckResult::Fail)]);
    assert!(!keys.calls().iter().any(|call| call.operation == "DescribeKey" && call.key == home()));
}

#[rstest]
#[case::disabled(RefusalKind::KeyDisabled)]
#[case::gone(RefusalKind::KeyNotFound)]
#[tokio::test]
async fn e12_a_refusal_that_is_not_about_the_context_proves_no_condition(#[case] kind: RefusalKind) {
    let keys = good();
    keys.bind_to_nobody(&home());
    // The round trip still works.
    keys.answer_next(&home(), [Observation::Usable, Observation::Usable, Observation::Refused(kind)]);
    let checks = checked(&keys).await;
    assert_eq!(not_passed(&checks), [("context-condition", CheckResult::Fail)]);
    let check = checks.iter().find(|check| check.id == "context-condition").unwrap();
    assert!(check.observed.contains("another reason") && !check.help.is_empty(), "{}", check.observed);
}
