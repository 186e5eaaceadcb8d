//! Several accounts: who may use whose key, and through which role.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests: a failed test is what they say"
)]

mod support;

use claviger_customer_cloud::cloud::Config;
use serde_json::{Value, json};
use support::{
    ACME, GLOBEX, Seen, Server, VENDOR, Who, allows, base64, between, fake_aws, start, start_with, trusts,
    vendor_session,
};

fn encrypt(key: &str, organisation: &str) -> Value {
    json!({"KeyId": key, "Plaintext": base64(b"x"), "EncryptionContext": {"claviger:organisation": organisation}})
}

fn condition() -> Value {
    json!({"StringEquals": {"aws:PrincipalArn": format!("arn:aws:iam::{VENDOR}:role/key-access"),
        "kms:EncryptionContext:claviger:organisation": "o1"}})
}

#[tokio::test]
async fn a_foreign_key_works_for_the_named_role_with_the_right_context_only() {
    let server = start().await;
    let session = vendor_session(&server).await;
    let key = server.shared_key(ACME, condition()).await;
    let output = server.kms(&session, "Encrypt", encrypt(&key, "o1")).await.expect("allowed");
    let refused = Err("AccessDeniedException".into());
    assert_eq!(server.kms(&session, "Encrypt", encrypt(&key, "o2")).await, refused);
    assert_eq!(server.kms(VENDOR, "Encrypt", encrypt(&key, "o1")).await, refused);
    assert_eq!(server.kms(GLOBEX, "Encrypt", encrypt(&key, "o1")).await, refused);
    assert_eq!(server.kms(&session, "DisableKey", json!({"KeyId": key})).await, refused);

    // Without a KeyId the key is found from the ciphertext, across accounts.
    let context = json!({"claviger:organisation": "o1"});
    let input = json!({"CiphertextBlob": output["CiphertextBlob"], "EncryptionContext": context});
    assert_eq!(server.kms(&session, "Decrypt", input).await.expect("plaintext")["KeyId"], key.as_str());
}

#[tokio::test]
async fn a_role_without_a_policy_of_its_own_cannot_use_a_foreign_key() {
    let server = start().await;
    let role = server.role(VENDOR, "key-access", trusts(VENDOR), allows("s3:*")).await;
    let session = server.assume(VENDOR, &role, &[]).await.expect("a session");
    let key = server.shared_key(ACME, condition()).await;
    assert_eq!(
        server.kms(&session, "Encrypt", encrypt(&key, "o1")).await,
        Err("AccessDeniedException".into())
    );
}

#[tokio::test]
async fn re_encrypting_between_accounts_needs_both_keys_permission() {
    let server = start().await;
    let session = vendor_session(&server).await;
    let from = server.shared_key(ACME, condition()).await;
    let to = server.shared_key(GLOBEX, condition()).await;
    let closed = server.key(GLOBEX).await;
    let blob =
        server.kms(&session, "Encrypt", encrypt(&from, "o1")).await.expect("allowed")["CiphertextBlob"]
            .clone();
    let input = |to: &str| {
        let context = json!({"claviger:organisation": "o1"});
        json!({"CiphertextBlob": blob, "SourceKeyId": from, "SourceEncryptionContext": context,
            "DestinationKeyId": to, "DestinationEncryptionContext": context})
    };
    assert_eq!(server.kms(&session, "ReEncrypt", input(&to)).await.expect("moved")["KeyId"], to.as_str());
    assert_eq!(server.kms(&session, "ReEncrypt", input(&closed)).await, Err("AccessDeniedException".into()));
}

async fn role_with_external_id(server: &Server) -> String {
    let mut trust = trusts(VENDOR);
    trust["Statement"][0]["Condition"] = json!({"StringEquals": {"sts:ExternalId": "secret-id"}});
    server.role(ACME, "for-vendor", trust, allows("kms:*")).await
}

#[tokio::test]
async fn a_customers_role_opens_with_its_external_id_only() {
    let server = start().await;
    let role = role_with_external_id(&server).await;
    assert!(server.assume(VENDOR, &role, &[("ExternalId", "secret-id")]).await.is_ok());
    for wrong in [&[][..], &[("ExternalId", "other")][..]] {
        assert_eq!(server.assume(VENDOR, &role, wrong).await.err(), Some("AccessDenied".into()));
    }
    let stranger = server.assume(GLOBEX, &role, &[("ExternalId", "secret-id")]).await;
    assert_eq!(stranger.err(), Some("AccessDenied".into()));
    let missing = format!("arn:aws:iam::{ACME}:role/none");
    assert_eq!(server.assume(VENDOR, &missing, &[]).await.err(), Some("AccessDenied".into()));
}

#[tokio::test]
async fn a_changed_trust_policy_ends_no_session_and_a_deleted_role_ends_all() {
    let server = start().await;
    let role = role_with_external_id(&server).await;
    let key = server.key(ACME).await;
    let session = server.assume(VENDOR, &role, &[("ExternalId", "secret-id")]).await.expect("a session");
    let describe = json!({"KeyId": key});
    server.kms(&session, "DescribeKey", describe.clone()).await.expect("allowed");

    let trust = trusts(ACME).to_string();
    let change = [("RoleName", "for-vendor"), ("PolicyDocument", &trust)];
    server.query(ACME, "iam", "UpdateAssumeRolePolicy", &change).await.expect("changed");
    server.kms(&session, "DescribeKey", describe.clone()).await.expect("still allowed");
    let fresh = server.assume(VENDOR, &role, &[("ExternalId", "secret-id")]).await;
    assert_eq!(fresh.err(), Some("AccessDenied".into()));

    let name = [("RoleName", "for-vendor")];
    assert_eq!(server.query(ACME, "iam", "DeleteRole", &name).await, Err("DeleteConflict".into()));
    let policy = [("RoleName", "for-vendor"), ("PolicyName", "p")];
    server.query(ACME, "iam", "DeleteRolePolicy", &policy).await.expect("deleted");
    server.query(ACME, "iam", "DeleteRole", &name).await.expect("deleted");
    assert_eq!(server.kms(&session, "DescribeKey", describe).await, Err("AccessDeniedException".into()));
}

#[tokio::test]
async fn a_session_policy_narrows_and_a_chained_session_lives_an_hour() {
    let server = start().await;
    let role = role_with_external_id(&server).await;
    let key = server.key(ACME).await;
    let policy = allows("kms:DescribeKey").to_string();
    let more = [("ExternalId", "secret-id"), ("Policy", policy.as_str())];
    let session = server.assume(VENDOR, &role, &more).await.expect("a session");
    server.kms(&session, "DescribeKey", json!({"KeyId": key})).await.expect("allowed");
    let refused = server.kms(&session, "Encrypt", encrypt(&key, "o1")).await;
    assert_eq!(refused, Err("AccessDeniedException".into()));

    let first = server.role(VENDOR, "first", trusts(VENDOR), allows("sts:AssumeRole")).await;
    let first = server.assume(VENDOR, &first, &[]).await.expect("a session");
    let long = [("ExternalId", "secret-id"), ("DurationSeconds", "7200")];
    assert_eq!(server.assume(&first, &role, &long).await.err(), Some("ValidationError".into()));
    let hour = [("ExternalId", "secret-id"), ("DurationSeconds", "900")];
    let second = server.assume(&first, &role, &hour).await.expect("chained");
    let xml = server.query(&second, "sts", "GetCallerIdentity", &[]).await.expect("an identity");
    assert_eq!(between(&xml, "Arn"), Some(format!("arn:aws:sts::{ACME}:assumed-role/for-vendor/test")));
}

#[tokio::test]
async fn unknown_credentials_and_a_wrong_token_are_turned_away() {
    let server = start().await;
    let nobody = Who { key: "ASIANOBODY".into(), token: None };
    assert_eq!(server.kms(&nobody, "ListKeys", json!({})).await, Err("UnrecognizedClientException".into()));
    let result = server.query(&nobody, "sts", "GetCallerIdentity", &[]).await;
    assert_eq!(result, Err("InvalidClientTokenId".into()));
    let mut session = vendor_session(&server).await;
    session.token = Some("stolen".into());
    assert_eq!(server.kms(&session, "ListKeys", json!({})).await, Err("UnrecognizedClientException".into()));
}

#[tokio::test]
async fn a_grant_lets_its_grantee_in_within_its_constraints() {
    let server = start().await;
    let session = vendor_session(&server).await;
    let key = server.key(ACME).await;
    let input = json!({"KeyId": key, "GranteePrincipal": format!("arn:aws:iam::{VENDOR}:role/key-access"),
        "Operations": ["Encrypt"], "Constraints": {"EncryptionContextSubset": {"claviger:organisation": "o1"}}});
    let grant = server.kms(ACME, "CreateGrant", input).await.expect("a grant");
    server.kms(&session, "Encrypt", encrypt(&key, "o1")).await.expect("allowed");
    let refused = Err("AccessDeniedException".into());
    assert_eq!(server.kms(&session, "Encrypt", encrypt(&key, "o2")).await, refused);
    let revoke = json!({"KeyId": key, "GrantId": grant["GrantId"]});
    server.kms(ACME, "RevokeGrant", revoke).await.expect("revoked");
    assert_eq!(server.kms(&session, "Encrypt", encrypt(&key, "o1")).await, refused);
}

/// ministack, as far as it is asked.
fn vendors_aws(seen: &Seen) -> (u16, String) {
    let arn = format!("arn:aws:sts::{VENDOR}:assumed-role/key-access/s");
    let function = format!("arn:aws:lambda:eu-west-1:{VENDOR}:function:probe");
    let role = format!("arn:aws:iam::{VENDOR}:role/key-access");
    if seen.path.starts_with("/2015-03-31/functions") {
        let functions =
            json!({"Functions": [{"FunctionArn": function, "Role": role, "FunctionName": "probe"}]});
        return (200, functions.to_string());
    }
    let xml = if seen.body.contains("Action=AssumeRole") {
        format!(
            "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASIAVENDOR</AccessKeyId>\
             <SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>\
             <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials><AssumedRoleUser>\
             <AssumedRoleId>A:s</AssumedRoleId><Arn>{arn}</Arn></AssumedRoleUser></AssumeRoleResult></AssumeRoleResponse>"
        )
    } else if seen.body.contains("Action=ListRolePolicies") {
        "<PolicyNames><member>p</member></PolicyNames>".into()
    } else if seen.body.contains("Action=GetRolePolicy") {
        "<PolicyDocument>%7B%22Statement%22%3A%5B%7B%22Effect%22%3A%22Allow%22%2C%22Action%22%3A%22kms%3A%2A%22%2C\
         %22Resource%22%3A%22%2A%22%7D%5D%7D</PolicyDocument>"
            .into()
    } else {
        "<Result></Result>".into()
    };
    (200, xml)
}

async fn with_vendor() -> (Server, std::sync::Arc<std::sync::Mutex<Vec<Seen>>>) {
    let (endpoint, seen) = fake_aws(vendors_aws).await;
    let config = Config { vendor_account: VENDOR.into(), vendor_endpoint: Some(endpoint), events: None };
    (start_with(config).await, seen)
}

#[tokio::test]
async fn the_vendors_own_roles_are_assumed_at_the_vendor_and_remembered() {
    let (server, seen) = with_vendor().await;
    let role = format!("arn:aws:iam::{VENDOR}:role/key-access");
    let session = server.assume(VENDOR, &role, &[]).await.expect("a session");
    assert_eq!(session.key, "ASIAVENDOR");
    let passed = seen.lock().expect("a lock")[0].clone();
    assert_eq!(passed.host, server.address.to_string(), "the signature covers the host that the caller saw");
    assert!(passed.authorization.contains("SignedHeaders=host, Signature=none"), "{}", passed.authorization);

    let key = server.shared_key(ACME, condition()).await;
    server.kms(&session, "Encrypt", encrypt(&key, "o1")).await.expect("both sides allow");
    assert_eq!(
        server.kms(&session, "Encrypt", encrypt(&key, "o2")).await,
        Err("AccessDeniedException".into())
    );
}

#[tokio::test]
async fn a_functions_own_credentials_are_traced_to_its_role() {
    let (server, _seen) = with_vendor().await;
    let key = server.shared_key(ACME, condition()).await;
    // ASIA and the head of sha256("<function ARN>:<role ARN>"), as ministack makes them.
    let known = Who { key: function_key(), token: Some("t".into()) };
    server.kms(&known, "Encrypt", encrypt(&key, "o1")).await.expect("traced");
    let unknown = Who { key: "ASIA0000000000000000".into(), token: None };
    let refused = server.kms(&unknown, "Encrypt", encrypt(&key, "o1")).await;
    assert_eq!(refused, Err("UnrecognizedClientException".into()));
}

fn function_key() -> String {
    use sha2::{Digest as _, Sha256};
    let text =
        format!("arn:aws:lambda:eu-west-1:{VENDOR}:function:probe:arn:aws:iam::{VENDOR}:role/key-access");
    let digest: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02X}")).collect();
    format!("ASIA{}", &digest[..16])
}

#[tokio::test]
async fn the_rust_sdk_assumes_a_role_and_reads_the_refusal() {
    use aws_sdk_sts::error::ProvideErrorMetadata as _;
    let server = start().await;
    let role = role_with_external_id(&server).await;
    let credentials = aws_credential_types::Credentials::new(VENDOR, "test", None, None, "test");
    let config = aws_sdk_sts::Config::builder()
        .behavior_version(aws_sdk_sts::config::BehaviorVersion::latest())
        .region(aws_sdk_sts::config::Region::new("eu-west-1"))
        .endpoint_url(server.url())
        .credentials_provider(credentials)
        .build();
    let sts = aws_sdk_sts::Client::from_conf(config);
    let assume = sts.assume_role().role_arn(&role).role_session_name("sdk").duration_seconds(900);
    let refused = assume.clone().send().await.expect_err("no external id");
    assert_eq!(refused.code(), Some("AccessDenied"));
    let session =
        assume.external_id("secret-id").send().await.expect("a session").credentials.expect("credentials");
    let left = session.expiration.secs()
        - aws_sdk_sts::primitives::DateTime::from(std::time::SystemTime::now()).secs();
    assert!((890..=900).contains(&left), "{left} s left");
    let identity = sts.get_caller_identity().send().await.expect("an identity");
    assert_eq!(identity.account.as_deref(), Some(VENDOR));
}
