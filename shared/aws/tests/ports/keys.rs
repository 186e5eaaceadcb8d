//! Customers' keys over the wire: what each answer of KMS and STS becomes.

use std::collections::BTreeMap;
use std::time::Duration;

use claviger_app::messages::EncryptionContext;
use claviger_app::ports::{
    Asking, ControlProbes, CustomerKeys, CustomerRoles, KeyError, KeyRef, NewKey, RoleSession,
};
use claviger_aws::keys::{CanaryKey, CanaryKeys, KmsKeys};
use claviger_domain::catalogue::Mode;
use claviger_domain::ids::OrganisationId;
use claviger_domain::key_access::{CustomerRole, ExternalId, KeyAccess};
use claviger_domain::key_policy::KEY_POLICY_VERSION;
use claviger_domain::observation::NoAnswerKind::{OurFault, Throttled, Unreachable};
use claviger_domain::observation::Observation::{self, NoAnswer, Refused};
use claviger_domain::observation::RefusalKind::{
    AccessDenied, InvalidState, KeyDisabled, KeyNotFound, KeyPendingDeletion, KeyPendingImport,
    KeyUnavailable, RoleDenied,
};
use claviger_domain::values::{KeyArn, Region};
use claviger_testkit::SequentialIds;
use claviger_testkit::builders::{a_key, a_role, parsed};
use futures_util::future::join_all;
use rstest::rstest;

use crate::support::sdk_config;
use crate::support::wire::{Answer, Wire};

const ROLE: &str = "arn:aws:iam::111111111111:role/claviger-key-access";
const FAR: &str = "2090-01-01T00:00:00Z";
/// "text", base64.
const PLAINTEXT: &str = r#"{"KeyId":"k","Plaintext":"dGV4dA=="}"#;

fn keys_at(endpoint: &str, canaries: CanaryKeys) -> KmsKeys {
    KmsKeys::new(&sdk_config(endpoint), ROLE, Duration::from_secs(5), canaries)
}

async fn wire() -> (Wire, KmsKeys) {
    let wire = Wire::new().await;
    wire.answers("AssumeRole", [Answer::session(FAR)]);
    let keys = keys_at(&wire.endpoint, BTreeMap::new());
    (wire, keys)
}

fn reached<'a>(arn: &'a KeyArn, access: &'a KeyAccess, session: RoleSession) -> KeyRef<'a> {
    KeyRef { arn, access, organisation: OrganisationId::from_uuid(SequentialIds::uuid(7)), session }
}

/// A key whose policy names our role.
fn straight(arn: &KeyArn) -> KeyRef<'_> {
    reached(arn, &KeyAccess::KeyPolicy, RoleSession::Kept)
}

fn context() -> EncryptionContext {
    [("claviger:organisation".to_owned(), "o-1".to_owned())].into()
}

async fn decrypt(keys: &KmsKeys, region: &str) -> Result<Vec<u8>, KeyError> {
    let key = a_key("222222222222", region, 1);
    keys.decrypt(straight(&key), b"wrapped", &context()).await.map(|plaintext| plaintext.to_vec())
}

/// What a Decrypt that failed says, with the key's state.
async fn looked_into(keys: &KmsKeys) -> Observation {
    let error = decrypt(keys, "eu-central-1").await.unwrap_err();
    assert_eq!(error.observation, Refused(InvalidState), "by itself it says no more");
    let key = a_key("222222222222", "eu-central-1", 1);
    claviger_app::explain_refusal::explained(keys, straight(&key), &error).await
}

#[rstest]
#[case(400, "DisabledException", Refused(KeyDisabled))]
#[case(400, "AccessDeniedException", Refused(AccessDenied))]
#[case(400, "NotFoundException", Refused(KeyNotFound))]
#[case(500, "KeyUnavailableException", NoAnswer(Unreachable))]
#[case(503, "DependencyTimeoutException", NoAnswer(Unreachable))]
#[case(500, "KMSInternalException", NoAnswer(Unreachable))]
#[case(400, "ThrottlingException", NoAnswer(Throttled))]
#[case(400, "LimitExceededException", NoAnswer(OurFault))]
#[case(400, "ExpiredTokenException", NoAnswer(OurFault))]
#[case(400, "UnrecognizedClientException", NoAnswer(OurFault))]
#[case(400, "InvalidGrantTokenException", NoAnswer(OurFault))]
#[case(400, "IncorrectKeyException", NoAnswer(OurFault))]
#[case(400, "InvalidCiphertextException", NoAnswer(OurFault))]
#[case(400, "ValidationException", NoAnswer(OurFault))]
#[case(400, "com.amazonaws.kms#FancyNewException", NoAnswer(OurFault))]
#[case(503, "FancyNewException", NoAnswer(Unreachable))]
#[tokio::test]
async fn r3_a_refused_decrypt_is_observed_for_what_it_is(
    #[case] status: u16,
    #[case] code: &str,
    #[case] expected: Observation,
) {
    let (wire, keys) = wire().await;
    wire.answers("Decrypt", [Answer::error(status, code)]);
    let error = decrypt(&keys, "eu-central-1").await.unwrap_err();
    assert_eq!(error.observation, expected);
    assert_eq!(error.code, code.rsplit('#').next().unwrap());
    assert_eq!(error.request_id.as_deref(), Some("request-1"), "k3: the request id is kept");
    assert_eq!(wire.operations(), ["AssumeRole", "Decrypt"], "it is asked once: the sweep is the retry");
}

#[rstest]
#[case::pending_deletion(
    r#"{"KeyMetadata":{"KeyId":"k","KeyState":"PendingDeletion"}}"#,
    Refused(KeyPendingDeletion)
)]
#[case::pending_import(
    r#"{"KeyMetadata":{"KeyId":"k","KeyState":"PendingImport"}}"#,
    Refused(KeyPendingImport)
)]
#[case::unavailable(r#"{"KeyMetadata":{"KeyId":"k","KeyState":"Unavailable"}}"#, Refused(KeyUnavailable))]
#[case::enabled(r#"{"KeyMetadata":{"KeyId":"k","KeyState":"Enabled"}}"#, Refused(InvalidState))]
#[case::updating(r#"{"KeyMetadata":{"KeyId":"k","KeyState":"Updating"}}"#, NoAnswer(Unreachable))]
#[case::a_state_of_tomorrow(r#"{"KeyMetadata":{"KeyId":"k","KeyState":"Hibernating"}}"#, NoAnswer(OurFault))]
#[tokio::test]
async fn r3_describe_key_says_which_invalid_state_it_is(
    #[case] described: &str,
    #[case] expected: Observation,
) {
    let (wire, keys) = wire().await;
    wire.answers("Decrypt", [Answer::error(400, "KMSInvalidStateException")]);
    wire.answers("DescribeKey", [Answer::ok(described)]);
    assert_eq!(looked_into(&keys).await, expected);
    assert_eq!(wire.operations(), ["AssumeRole", "Decrypt", "DescribeKey"], "described once");
}

#[rstest]
#[case::denied(400, "AccessDeniedException", Refused(InvalidState))]
#[case::throttled(400, "ThrottlingException", NoAnswer(Throttled))]
#[case::ill(500, "KMSInternalException", NoAnswer(Unreachable))]
#[tokio::test]
async fn r4_an_invalid_state_is_not_definite_without_describe_key(
    #[case] status: u16,
    #[case] code: &str,
    #[case] expected: Observation,
) {
    let (wire, keys) = wire().await;
    wire.answers("Decrypt", [Answer::error(400, "KMSInvalidStateException")]);
    wire.answers("DescribeKey", [Answer::error(status, code)]);
    assert_eq!(looked_into(&keys).await, expected);
}

#[tokio::test]
async fn r3_a_key_service_that_never_answers_is_unreachable() {
    let wire = Wire::new().await;
    wire.answers("AssumeRole", [Answer::session(FAR)]);
    wire.answers("Decrypt", [Answer::Never]);
    let keys = KmsKeys::new(&sdk_config(&wire.endpoint), ROLE, Duration::from_millis(300), BTreeMap::new());
    let error = decrypt(&keys, "eu-central-1").await.unwrap_err();
    assert_eq!((error.observation, error.code.as_str()), (NoAnswer(Unreachable), "timeout"));
}

#[tokio::test]
async fn r3_a_refused_connection_is_unreachable() {
    // Bound and dropped: nobody listens there.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let keys = keys_at(&format!("http://{nobody}"), BTreeMap::new());
    let error = decrypt(&keys, "eu-central-1").await.unwrap_err();
    assert_eq!((error.observation, error.code.as_str()), (NoAnswer(Unreachable), "no-connection"));
}

#[rstest]
#[case(403, "AccessDenied", NoAnswer(OurFault))]
#[case(403, "ExpiredToken", NoAnswer(OurFault))]
#[case(403, "InvalidClientTokenId", NoAnswer(OurFault))]
#[case(400, "Throttling", NoAnswer(Throttled))]
#[case(500, "InternalFailure", NoAnswer(Unreachable))]
#[tokio::test]
async fn r3_without_our_own_role_nothing_is_said_about_a_key(
    #[case] status: u16,
    #[case] code: &str,
    #[case] expected: Observation,
) {
    let (wire, keys) = wire().await;
    wire.answers("AssumeRole", [Answer::query_error(status, code)]);
    assert_eq!(decrypt(&keys, "eu-central-1").await.unwrap_err().observation, expected);
    assert!(!wire.operations().contains(&"Decrypt".to_owned()));
}

#[tokio::test]
async fn a_decrypt_pins_key_and_context_and_uses_the_session_of_the_key_access_role() {
    let (wire, keys) = wire().await;
    wire.answers("Decrypt", [Answer::ok(PLAINTEXT)]);
    assert_eq!(decrypt(&keys, "eu-west-1").await.unwrap(), b"text");
    let asked = wire.asked();
    assert!(asked[0].body.contains("RoleSessionName=claviger&"), "{}", asked[0].body);
    assert!(asked[0].body.contains("DurationSeconds=900"), "{}", asked[0].body);
    assert_eq!((asked[1].region.as_str(), asked[1].access_key.as_str()), ("eu-west-1", "ASIASESSION"));
    assert!(asked[1].body.contains(r#""EncryptionContext":{"claviger:organisation":"o-1"}"#));
    assert!(asked[1].body.contains(r#""KeyId":"arn:aws:kms:eu-west-1:222222222222:key/"#));
}

#[tokio::test]
async fn calls_in_parallel_and_in_all_regions_share_one_session() {
    let (wire, keys) = wire().await;
    wire.answers("Decrypt", [Answer::ok(PLAINTEXT)]);
    let calls = (0..20).map(|n| decrypt(&keys, if n % 2 == 0 { "eu-central-1" } else { "us-east-1" }));
    assert!(join_all(calls).await.iter().all(Result::is_ok));
    let assumed = wire.operations().iter().filter(|operation| *operation == "AssumeRole").count();
    assert_eq!(assumed, 1);
}

#[tokio::test]
async fn a_session_that_is_over_is_not_used() {
    let (wire, keys) = wire().await;
    wire.answers("AssumeRole", [Answer::session("2020-01-01T00:00:00Z"), Answer::session(FAR)]);
    wire.answers("Decrypt", [Answer::ok(PLAINTEXT)]);
    for _ in 0..2 {
        decrypt(&keys, "eu-central-1").await.unwrap();
    }
    assert_eq!(wire.operations(), ["AssumeRole", "Decrypt", "AssumeRole", "Decrypt"]);
}

#[tokio::test]
async fn a_data_key_comes_in_the_clear_and_wrapped() {
    let (wire, keys) = wire().await;
    let answer = r#"{"KeyId":"k","Plaintext":"dGV4dA==","CiphertextBlob":"d3JhcHBlZA=="}"#;
    wire.answers("GenerateDataKey", [Answer::ok(answer)]);
    let key = a_key("222222222222", "eu-central-1", 1);
    let (plaintext, wrapped) = keys.generate_data_key(straight(&key), &context()).await.unwrap();
    assert_eq!((plaintext.as_slice(), wrapped.as_slice()), (&b"text"[..], &b"wrapped"[..]));
    assert!(wire.asked()[1].body.contains(r#""KeySpec":"AES_256""#));
}

#[tokio::test]
async fn a_description_says_what_enrolment_asks_about() {
    let (wire, keys) = wire().await;
    let answer = r#"{"KeyMetadata":{"KeyId":"k","KeyState":"PendingDeletion","KeySpec":"RSA_2048","KeyUsage":"SIGN_VERIFY",
        "Origin":"EXTERNAL","KeyManager":"CUSTOMER","CustomKeyStoreId":"cks-1","DeletionDate":1795000000.0}}"#;
    wire.answers("DescribeKey", [Answer::ok(answer)]);
    let found = keys.describe(straight(&a_key("222222222222", "eu-central-1", 1))).await.unwrap();
    assert_eq!(
        (found.state.as_str(), found.spec.as_str(), found.usage.as_str()),
        ("PendingDeletion", "RSA_2048", "SIGN_VERIFY")
    );
    assert_eq!(
        (found.origin.as_str(), found.manager.as_str(), found.custom_key_store),
        ("EXTERNAL", "CUSTOMER", true)
    );
    assert_eq!(found.deletion_date.unwrap().as_second(), 1_795_000_000);
}

fn canary() -> CanaryKeys {
    let key = CanaryKey {
        key_arn: a_key("555555555555", "eu-central-1", 1),
        organisation: OrganisationId::from_uuid(SequentialIds::uuid(7)),
        template: None,
        role: None,
    };
    [(parsed("eu-central-1"), vec![key])].into()
}

#[tokio::test]
async fn r4_a_control_probe_encrypts_once_and_decrypts_each_time() {
    let (wire, _) = wire().await;
    let keys = keys_at(&wire.endpoint, canary());
    wire.answers("Encrypt", [Answer::ok(r#"{"KeyId":"k","CiphertextBlob":"d3JhcHBlZA=="}"#)]);
    // "claviger control probe", base64.
    let proof = r#"{"KeyId":"k","Plaintext":"Y2xhdmlnZXIgY29udHJvbCBwcm9iZQ=="}"#;
    wire.answers(
        "Decrypt",
        [
            Answer::ok(proof),
            Answer::ok(proof),
            Answer::error(400, "AccessDeniedException"),
            Answer::ok(PLAINTEXT),
        ],
    );
    let region: Region = parsed("eu-central-1");
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(keys.control_is_healthy(&region, Mode::Cmk, KEY_POLICY_VERSION).await);
    }
    assert_eq!(seen, [true, true, false, false]);
    assert_eq!(wire.operations(), ["AssumeRole", "Encrypt", "Decrypt", "Decrypt", "Decrypt", "Decrypt"]);
    for name in ["claviger:organisation", "claviger:purpose", "claviger:instance", "claviger:tag"] {
        assert!(wire.asked()[2].body.contains(name), "the same four context keys as customers' keys");
    }
}

#[tokio::test]
async fn r4_a_region_without_a_canary_is_never_healthy() {
    let (wire, keys) = wire().await;
    assert!(!keys.control_is_healthy(&parsed("eu-west-1"), Mode::Cmk, KEY_POLICY_VERSION).await);
    assert!(wire.operations().is_empty());
}

fn percent_decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |decoded, part| {
        let (code, rest) = part.split_at(2);
        format!("{decoded}{}{rest}", char::from(u8::from_str_radix(code, 16).unwrap()))
    })
}

fn organisation() -> OrganisationId {
    OrganisationId::from_uuid(SequentialIds::uuid(7))
}

fn key_management() -> CustomerRole {
    CustomerRole {
        arn: a_role("333333333333"),
        external_id: ExternalId::from_uuid(SequentialIds::uuid(0xeee)),
    }
}

async fn decrypt_through_role(keys: &KmsKeys, session: RoleSession) -> Result<Vec<u8>, KeyError> {
    let (key, access) = (a_key("333333333333", "us-east-1", 1), KeyAccess::Role(key_management()));
    keys.decrypt(reached(&key, &access, session), b"wrapped", &context()).await.map(|plain| plain.to_vec())
}

#[tokio::test]
async fn e12_a_customers_role_is_assumed_with_its_external_id_for_one_key_and_900_seconds() {
    let (wire, keys) = wire().await;
    wire.answers("Decrypt", [Answer::ok(PLAINTEXT)]);
    decrypt_through_role(&keys, RoleSession::Fresh).await.unwrap();
    assert_eq!(wire.operations(), ["AssumeRole", "AssumeRole", "Decrypt"]);
    let asked = wire.asked();
    assert!(!asked[0].body.contains("ExternalId"), "our own role knows no external id");
    let body = &asked[1].body;
    assert_eq!(asked[1].region, "us-east-1", "the STS of the key's own region");
    assert_eq!(asked[1].access_key, "ASIASESSION", "the key-access role assumes it");
    let external_id = format!("ExternalId={}", key_management().external_id.as_str());
    let session = format!("RoleSessionName=claviger-probe-{}", organisation());
    for part in ["DurationSeconds=900", "key-management", &external_id, &session] {
        assert!(body.contains(part), "{part}: {body}");
    }
    let policy = body.split('&').find_map(|pair| pair.strip_prefix("Policy=")).unwrap();
    let policy: serde_json::Value = serde_json::from_str(&percent_decoded(policy)).unwrap();
    let statement = &policy["Statement"][0];
    assert_eq!(statement["Resource"], serde_json::json!([a_key("333333333333", "us-east-1", 1).as_str()]));
    let actions = statement["Action"].to_string();
    assert!(actions.contains("kms:Decrypt") && !actions.contains('*'), "{actions}");
    for never in ["ScheduleKeyDeletion", "DisableKey", "PutKeyPolicy", "CreateGrant"] {
        assert!(!actions.contains(never), "{actions}");
    }
}

#[tokio::test]
async fn r1_a_probe_assumes_the_role_anew_and_work_keeps_its_session() {
    let (wire, keys) = wire().await;
    wire.answers("Decrypt", [Answer::ok(PLAINTEXT)]);
    for _ in 0..3 {
        decrypt_through_role(&keys, RoleSession::Kept).await.unwrap();
    }
    assert_eq!(wire.operations(), ["AssumeRole", "AssumeRole", "Decrypt", "Decrypt", "Decrypt"]);
    for _ in 0..2 {
        decrypt_through_role(&keys, RoleSession::Fresh).await.unwrap();
    }
    assert_eq!(wire.operations()[5..], ["AssumeRole", "Decrypt", "AssumeRole", "Decrypt"]);
}

/// `dGV4dA==` is "text".
const MOVED: &str = r#"{"KeyId":"k","CiphertextBlob":"dGV4dA=="}"#;

async fn moved(keys: &KmsKeys, account: &str, access: &KeyAccess) -> Result<Vec<u8>, KeyError> {
    let (from, to) = (a_key(account, "us-east-1", 1), a_key(account, "us-east-1", 2));
    let of = |arn| reached(arn, access, RoleSession::Kept);
    keys.re_encrypt(of(&from), of(&to), b"wrapped", &context()).await
}

#[tokio::test]
async fn x1_a_data_key_moves_by_one_call_that_pins_both_keys_and_both_contexts() {
    let (wire, keys) = wire().await;
    wire.answers("ReEncrypt", [Answer::ok(MOVED)]);
    assert_eq!(moved(&keys, "222222222222", &KeyAccess::KeyPolicy).await.unwrap(), b"text");
    assert_eq!(wire.operations(), ["AssumeRole", "ReEncrypt"]);
    let asked: serde_json::Value = serde_json::from_str(&wire.asked()[1].body).unwrap();
    assert_eq!(asked["SourceKeyId"], a_key("222222222222", "us-east-1", 1).as_str());
    assert_eq!(asked["DestinationKeyId"], a_key("222222222222", "us-east-1", 2).as_str());
    for side in ["SourceEncryptionContext", "DestinationEncryptionContext"] {
        assert_eq!(asked[side], serde_json::json!(context()), "{side}");
    }
}

#[tokio::test]
async fn x1_a_session_of_a_customers_role_that_moves_a_data_key_may_use_those_two_keys() {
    let (wire, keys) = wire().await;
    wire.answers("ReEncrypt", [Answer::ok(MOVED)]);
    wire.answers("Decrypt", [Answer::ok(PLAINTEXT)]);
    let access = KeyAccess::Role(key_management());
    for _ in 0..2 {
        moved(&keys, "333333333333", &access).await.unwrap();
    }
    decrypt_through_role(&keys, RoleSession::Kept).await.unwrap();
    let sessions = ["AssumeRole", "AssumeRole", "ReEncrypt", "ReEncrypt", "AssumeRole", "Decrypt"];
    assert_eq!(wire.operations(), sessions, "its session is kept, and is no other call's");
    let body = &wire.asked()[1].body;
    let policy = body.split('&').find_map(|pair| pair.strip_prefix("Policy=")).unwrap();
    let policy: serde_json::Value = serde_json::from_str(&percent_decoded(policy)).unwrap();
    let both = [2, 1].map(|number| a_key("333333333333", "us-east-1", number).to_string());
    assert_eq!(policy["Statement"][0]["Resource"], serde_json::json!(both));
}

#[tokio::test]
async fn x3_a_reencrypt_that_fails_blames_neither_key() {
    let (wire, keys) = wire().await;
    wire.answers("ReEncrypt", [Answer::error(400, "KMSInvalidStateException")]);
    let error = moved(&keys, "222222222222", &KeyAccess::KeyPolicy).await.unwrap_err();
    assert_eq!(error.code, "KMSInvalidStateException");
    assert_eq!(wire.operations(), ["AssumeRole", "ReEncrypt"], "no key is described for it");
}

#[rstest]
#[case(403, "AccessDenied", Refused(RoleDenied))]
#[case(403, "ExpiredToken", NoAnswer(OurFault))]
#[case(400, "Throttling", NoAnswer(Throttled))]
#[case(500, "InternalFailure", NoAnswer(Unreachable))]
#[case(403, "RegionDisabledException", NoAnswer(OurFault))]
#[tokio::test]
async fn r4_a_role_that_refuses_is_a_refusal_and_a_stumbling_sts_is_none(
    #[case] status: u16,
    #[case] code: &str,
    #[case] expected: Observation,
) {
    let wire = Wire::new().await;
    wire.answers("AssumeRole", [Answer::session(FAR), Answer::query_error(status, code)]);
    let keys = keys_at(&wire.endpoint, BTreeMap::new());
    let error = decrypt_through_role(&keys, RoleSession::Fresh).await.unwrap_err();
    assert_eq!((error.observation, error.code.as_str()), (expected, code));
    assert!(!wire.operations().contains(&"Decrypt".to_owned()));
}

#[tokio::test]
async fn i2_a_byok_refusal_does_not_count_where_no_canary_role_answers() {
    let (wire, _) = wire().await;
    let keys = keys_at(&wire.endpoint, canary());
    assert!(!keys.control_is_healthy(&parsed("eu-central-1"), Mode::Byok, KEY_POLICY_VERSION).await);
    assert!(wire.operations().is_empty(), "a canary without a role says nothing about roles");
}

#[tokio::test]
async fn e12_the_proof_of_the_external_id_asks_without_one_and_may_do_nothing() {
    let (wire, keys) = wire().await;
    let role = a_role("333333333333");
    keys.assume(&role, Asking::WithoutExternalId, organisation(), &parsed("us-east-1")).await.unwrap();
    let asked = wire.asked();
    assert!(!asked[1].body.contains("ExternalId"), "{}", asked[1].body);
    assert!(asked[1].body.contains("Deny"), "the session is good for nothing");
}

const FOUND: &str = "arn:aws:kms:us-east-1:333333333333:key/0000000a-0000-4000-8000-000000000001";

fn wanted() -> NewKey {
    NewKey {
        organisation: organisation(),
        label: claviger_domain::key_policy::KeyLabel::first_of(1),
        policy: serde_json::json!({ "Statement": [] }),
    }
}

fn metadata() -> Answer {
    Answer::ok(format!(r#"{{"KeyMetadata":{{"KeyId":"k","Arn":"{FOUND}"}}}}"#))
}

#[tokio::test]
async fn e7_a_key_that_has_its_alias_is_found_and_not_made_again() {
    let (wire, keys) = wire().await;
    wire.answers("DescribeKey", [metadata()]);
    let arn = keys.make_key(&key_management(), &parsed("us-east-1"), &wanted()).await.unwrap();
    assert_eq!(arn.as_str(), FOUND);
    assert_eq!(wire.operations(), ["AssumeRole", "AssumeRole", "DescribeKey"]);
    let alias = format!(r#""KeyId":"alias/cryptor-{}-1""#, organisation());
    assert!(wire.asked()[2].body.contains(&alias), "{}", wire.asked()[2].body);
}

#[tokio::test]
async fn e7_a_key_is_made_with_tags_and_policy_by_a_role_that_may_not_change_the_policy_later() {
    let (wire, keys) = wire().await;
    wire.answers("DescribeKey", [Answer::error(400, "NotFoundException")]);
    wire.answers("ListKeys", [Answer::ok(r#"{"Keys":[],"Truncated":false}"#)]);
    wire.answers("CreateKey", [metadata()]);
    wire.answers("CreateAlias", [Answer::ok("{}")]);
    let arn = keys.make_key(&key_management(), &parsed("us-east-1"), &wanted()).await.unwrap();
    assert_eq!(arn.as_str(), FOUND);
    let asked = wire.asked();
    let made: Vec<_> = asked.iter().filter(|asked| asked.body.contains("\"Policy\"")).collect();
    let [made] = made.as_slice() else { panic!("{made:?}") };
    // Without it, KMS refuses a policy that its maker could not change.
    assert!(made.body.contains(r#""BypassPolicyLockoutSafetyCheck":true"#), "{}", made.body);
    assert!(made.body.contains(r#""TagKey":"claviger:organisation""#), "{}", made.body);
}

#[tokio::test]
async fn e7_a_key_that_a_crash_left_without_alias_is_found_by_its_tags_and_named() {
    let (wire, keys) = wire().await;
    wire.answers("DescribeKey", [Answer::error(400, "NotFoundException")]);
    let other = FOUND.replace("000000000001", "000000000002");
    let list = format!(r#"{{"Keys":[{{"KeyArn":"{other}"}},{{"KeyArn":"{FOUND}"}}],"Truncated":false}}"#);
    wire.answers("ListKeys", [Answer::ok(&list)]);
    let tags = format!(
        r#"{{"Tags":[{{"TagKey":"claviger:organisation","TagValue":"{}"}},{{"TagKey":"claviger:generation","TagValue":"1"}}]}}"#,
        organisation()
    );
    wire.answers("ListResourceTags", [Answer::ok(r#"{"Tags":[]}"#), Answer::ok(&tags)]);
    wire.answers("CreateAlias", [Answer::ok("{}")]);
    let arn = keys.make_key(&key_management(), &parsed("us-east-1"), &wanted()).await.unwrap();
    assert_eq!(arn.as_str(), FOUND);
    assert!(!wire.operations().contains(&"CreateKey".to_owned()));
    assert_eq!(wire.operations().last().unwrap(), "CreateAlias");
}

/// Nothing is there yet, and a key is made.
fn makes(wire: &Wire) {
    wire.answers("DescribeKey", [Answer::error(400, "NotFoundException")]);
    wire.answers("ListKeys", [Answer::ok(r#"{"Keys":[],"Truncated":false}"#)]);
    wire.answers("CreateKey", [metadata()]);
}

#[tokio::test]
async fn e7_a_key_that_kms_does_not_know_the_moment_it_is_made_gets_its_name_a_little_later() {
    let (wire, keys) = wire().await;
    makes(&wire);
    let unknown = || Answer::error(400, "NotFoundException");
    wire.answers("CreateAlias", [unknown(), unknown(), Answer::ok("{}")]);
    let arn = keys.make_key(&key_management(), &parsed("us-east-1"), &wanted()).await.unwrap();
    assert_eq!(arn.as_str(), FOUND);
    let operations = wire.operations();
    assert_eq!(operations.iter().filter(|operation| *operation == "CreateAlias").count(), 3);
    assert_eq!(operations.iter().filter(|operation| *operation == "CreateKey").count(), 1);
}

#[rstest]
#[case::its_name("CreateAlias")]
#[case::its_tags("ListResourceTags")]
#[tokio::test]
async fn r3_a_new_key_that_is_not_known_yet_gives_no_answer_and_refuses_nothing(#[case] operation: &str) {
    let (wire, keys) = wire().await;
    makes(&wire);
    if operation == "ListResourceTags" {
        let list = format!(r#"{{"Keys":[{{"KeyArn":"{FOUND}"}}],"Truncated":false}}"#);
        wire.answers("ListKeys", [Answer::ok(&list)]);
    }
    wire.answers(operation, [Answer::error(400, "NotFoundException")]);
    let error = keys.make_key(&key_management(), &parsed("us-east-1"), &wanted()).await.unwrap_err();
    assert_eq!((error.observation, error.code.as_str()), (NoAnswer(Unreachable), "NotFoundException"));
}
