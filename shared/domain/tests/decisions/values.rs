//! Values are parsed once and refused with reason and remedy.

use claviger_domain::catalogue::{Catalogue, Mode};
use claviger_domain::enrolment::Enrolment;
use claviger_domain::values::{AccountId, ContextTag, KeyArn, Region, ShardId, SiteName, Subject};
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

const ROLE: &str = "arn:aws:iam::222222222222:role/key-management";

fn byok() -> Value {
    json!({
        "mode": "byok", "awsAccountId": "222222222222", "realm": "europe",
        "contextTag": "acme1", "contextTagConfirmation": "acme1", "roleArn": ROLE,
    })
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

#[rstest]
#[case::two_words("eu-central-1")]
#[case::three_words("us-gov-west-1")]
#[case::as_long_as_may_be("abcdefghijklmnop-qrstu-1")]
fn e6_a_region_is_words_and_a_digit(#[case] text: &str) {
    assert_eq!(text.parse::<Region>().unwrap().as_str(), text);
}

#[rstest]
#[case::nothing("")]
#[case::one_word("eu-1")]
#[case::capitals("EU-central-1")]
#[case::a_digit_in_a_word("e1-central-1")]
#[case::an_empty_word("eu--1")]
#[case::no_digit("eu-central-")]
#[case::a_letter_at_the_end("eu-central-a")]
#[case::two_digits("eu-central-12")]
#[case::an_availability_zone("eu-central-1a")]
#[case::too_long("abcdefghijklmnop-qrstuv-1")]
fn e6_what_is_no_region_is_refused_with_an_example(#[case] text: &str) {
    let error = text.parse::<Region>().unwrap_err();
    assert!(error.help.contains("`eu-central-1`"), "{}", error.help);
}

#[rstest]
#[case::one("a", true)]
#[case::as_an_identity_provider_names_it("auth0|ada@example.com", true)]
#[case::as_long_as_may_be(&"a".repeat(128), true)]
#[case::nothing("", false)]
#[case::too_long(&"a".repeat(129), false)]
#[case::a_space("a b", false)]
#[case::a_line("ada\n", false)]
#[case::no_ascii("адa", false)]
fn e3_a_person_is_1_to_128_visible_signs(#[case] text: &str, #[case] good: bool) {
    assert_eq!(text.parse::<Subject>().is_ok(), good);
}

#[test]
fn e7_a_key_arn_is_shown_and_stored_as_it_was_given_and_as_long_as_256_signs() {
    let arn = |signs: usize| format!("arn:aws:kms:eu-west-1:222222222222:key/{}", "a".repeat(signs - 39));
    for text in [arn(100), arn(256)] {
        let key: KeyArn = text.parse().unwrap();
        assert_eq!((key.as_str(), key.to_string(), json!(key)), (text.as_str(), text.clone(), json!(text)));
        assert_eq!((key.region().as_str(), key.account().as_str()), ("eu-west-1", "222222222222"));
    }
    let error = arn(257).parse::<KeyArn>().unwrap_err();
    assert!(error.reason.contains("longer than 256"), "{}", error.reason);
}

#[rstest]
#[case::nothing("")]
#[case::another_word("key/ab:cd")]
#[case::no_hexadecimal("xyz")]
#[case::a_wildcard("*")]
fn e7_what_no_key_is_called_is_refused(#[case] id: &str) {
    assert!(format!("arn:aws:kms:eu-west-1:222222222222:key/{id}").parse::<KeyArn>().is_err());
}

#[test]
fn r2_shards_are_named_with_three_digits_so_that_they_sort() {
    assert_eq!([0, 7, 42, 1023].map(|shard| ShardId(shard).to_string()), ["000", "007", "042", "1023"]);
}

#[test]
fn e11_vendor_managed_is_nothing_to_enrol_in_and_the_answer_says_that_there_is_no_way_back_to_it() {
    let error = "vendor-managed".parse::<Mode>().unwrap_err();
    assert!(error.reason.contains("does not enrol") && error.help.contains("no way back"), "{error:?}");
    let error = "hsm".parse::<Mode>().unwrap_err();
    assert!(error.reason.contains("`hsm` is not a mode"), "{error:?}");
}

#[rstest]
#[case::a_role_beside_keys(good(), "roleArn", json!(ROLE))]
#[case::keys_beside_a_role(byok(), "keys", json!([]))]
fn e8_what_belongs_to_the_other_mode_is_refused_and_its_absence_is_not(
    #[case] mut body: Value,
    #[case] field: &str,
    #[case] value: Value,
) {
    let catalogue = Catalogue::shipped().unwrap();
    body[field] = Value::Null;
    Enrolment::parse(&body, &catalogue).unwrap();
    body[field] = value;
    let faults = Enrolment::parse(&body, &catalogue).unwrap_err();
    let [fault] = faults.as_slice() else { panic!("{faults:?}") };
    assert_eq!(fault.field, field);
    assert!(fault.help.contains("or choose the other mode"), "{}", fault.help);
}

#[test]
fn e7_more_keys_than_any_realm_has_regions_are_refused_unread() {
    let catalogue = Catalogue::shipped().unwrap();
    let reasons = |entries: usize| -> Vec<String> {
        let mut body = good();
        body["keys"] = vec![body["keys"][0].clone(); entries].into();
        let faults = Enrolment::parse(&body, &catalogue).unwrap_err();
        faults.into_iter().map(|fault| fault.reason).collect()
    };
    let read = reasons(16);
    assert_eq!(read.iter().filter(|reason| reason.contains("is listed twice")).count(), 15, "{read:?}");
    for many in [17, 18] {
        assert_eq!(reasons(many), [format!("{many} keys are listed")]);
    }
}
