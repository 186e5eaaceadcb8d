//! Values are parsed once and refused with reason and remedy.

use claviger_domain::catalogue::Catalogue;
use claviger_domain::enrolment::Enrolment;
use claviger_domain::values::{AccountId, ContextTag, KeyArn, Region, SiteName};
use rstest::rstest;
use serde_json::{Value, json};

#[rstest]
#[case::the_documents_sample_has_eleven_digits("27976624415", "11 digits")]
#[case::thirteen("1234567890123", "13 digits")]
#[case::arabic_digits("١٢٣٤٥٦٧٨٩٠١٢", "12 ASCII digits")]
#[case::empty("", "12 ASCII digits")]
fn e5_an_account_id_is_exactly_twelve_ascii_digits(#[case] text: &str, #[case] reason: &str) {
    let error = text.parse::<AccountId>().unwrap_err();
    assert!(error.reason.contains(reason), "{}", error.reason);
    assert!(error.help.contains("12 digits"), "{}", error.help);
}

#[rstest]
#[case::alias("arn:aws:kms:eu-west-1:222222222222:alias/mine", "alias")]
#[case::bare_id("1234abcd-12ab-34cd-56ef-1234567890ab", "not a key ARN")]
#[case::other_service("arn:aws:s3:eu-west-1:222222222222:key/ab", "not the ARN of a KMS key")]
#[case::other_partition("arn:aws-cn:kms:cn-north-1:222222222222:key/ab", "partition `aws-cn`")]
#[case::short_account("arn:aws:kms:eu-west-1:22222222222:key/ab", "11 digits")]
fn e7_a_key_is_given_by_its_own_arn(#[case] text: &str, #[case] reason: &str) {
    let error = text.parse::<KeyArn>().unwrap_err();
    assert!(error.reason.contains(reason), "{}", error.reason);
}

#[test]
fn e7_a_multi_region_key_has_an_arn_too() {
    let text = "arn:aws:kms:eu-west-1:222222222222:key/mrk-1234abcd12ab34cd56ef1234567890ab";
    assert_eq!(text.parse::<KeyArn>().unwrap().region().as_str(), "eu-west-1");
}

#[rstest]
#[case("a", true)]
#[case("acme-eng-2", true)]
#[case("-acme", false)]
#[case("acme-", false)]
#[case("Acme", false)]
#[case("", false)]
#[case("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false)]
fn a4_site_names_are_slugs_of_at_most_63(#[case] text: &str, #[case] good: bool) {
    assert_eq!(text.parse::<SiteName>().is_ok(), good);
}

#[rstest]
#[case("Acme2026", true)]
#[case("", false)]
#[case("abcdefghijklm", false)]
#[case("a-b", false)]
fn e9_a_context_tag_is_1_to_12_alphanumerics(#[case] text: &str, #[case] good: bool) {
    assert_eq!(text.parse::<ContextTag>().is_ok(), good);
}

#[test]
fn e6_the_documents_misprint_has_the_form_of_a_region_but_no_realm_has_it() {
    let misprint: Region = "ca-cantral-1".parse().unwrap();
    assert!(!Catalogue::shipped().unwrap().all_regions().contains(&misprint));
}

fn good() -> Value {
    json!({
        "mode": "cmk", "awsAccountId": "222222222222", "realm": "europe",
        "contextTag": "acme1", "contextTagConfirmation": "acme1",
        "keys": [
            { "region": "eu-central-1", "keyArn": "arn:aws:kms:eu-central-1:222222222222:key/aa" },
            { "region": "eu-west-1", "keyArn": "arn:aws:kms:eu-west-1:222222222222:key/bb" },
        ],
    })
}

#[rstest]
#[case::unknown_mode("/mode", json!("hsm"), "mode")]
#[case::mode_is_a_number("/mode", json!(1), "mode")]
#[case::short_account("/awsAccountId", json!("27976624415"), "awsAccountId")]
#[case::unknown_realm("/realm", json!("mars"), "realm")]
#[case::other_realm("/realm", json!("germany"), "keys[1].region")]
#[case::tag_differs("/contextTagConfirmation", json!("acme2"), "contextTagConfirmation")]
#[case::alias("/keys/0/keyArn", json!("arn:aws:kms:eu-central-1:222222222222:alias/x"), "keys[0].keyArn")]
#[case::other_account("/keys/0/keyArn", json!("arn:aws:kms:eu-central-1:333333333333:key/aa"), "keys[0].keyArn")]
#[case::other_region("/keys/0/keyArn", json!("arn:aws:kms:us-east-1:222222222222:key/aa"), "keys[0].keyArn")]
#[case::region_twice("/keys/1/region", json!("eu-central-1"), "keys")]
#[case::keys_is_text("/keys", json!("none"), "keys")]
#[case::region_missing("/keys/1", json!(null), "keys")]
fn e7_every_fault_of_an_enrolment_names_its_field(
    #[case] pointer: &str,
    #[case] value: Value,
    #[case] field: &str,
) {
    let catalogue = Catalogue::shipped().unwrap();
    Enrolment::parse(&good(), &catalogue).unwrap();
    let mut body = good();
    *body.pointer_mut(pointer).unwrap() = value;
    let faults = Enrolment::parse(&body, &catalogue).unwrap_err();
    assert!(faults.iter().any(|fault| fault.field == field), "{faults:?}");
    assert!(faults.iter().all(|fault| !fault.help.is_empty()), "{faults:?}");
}
