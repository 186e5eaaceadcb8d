//! The product's own adapter at a customer's role: the documents that are printed, pasted as they are, and what becomes
//! of the keys when the customer takes the role away.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region as SdkRegion, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use claviger_app::check_enrolment::{CheckEnrolment, Checked};
use claviger_app::messages::{Check, CheckResult, EncryptionContext};
use claviger_app::ports::{ControlProbes, CustomerKeys, CustomerRoles, KeyRef, NewKey, RoleSession};
use claviger_aws::keys::{CanaryKey, KmsKeys};
use claviger_domain::catalogue::Mode;
use claviger_domain::ids::OrganisationId;
use claviger_domain::key_access::{CustomerRole, KeyAccess};
use claviger_domain::key_policy::{KEY_POLICY_VERSION, made_key_policy, role_permissions, trust_policy};
use claviger_domain::observation::{Observation, RefusalKind};
use claviger_domain::policy::{CONTEXT_ORGANISATION, PURPOSE_CANARY, encryption_context};
use claviger_domain::values::{KeyArn, Region};
use claviger_testkit::SequentialIds;
use claviger_testkit::builders::{a_byok_enrolment, an_organisation, parsed, settings};
use serde_json::{Value, json};

use crate::support::{GLOBEX, Server, VENDOR, start, trusts};

const ROLE: &str = "key-management";
const REGIONS: [&str; 2] = ["us-east-1", "us-west-2"];

fn config(server: &Server) -> SdkConfig {
    let root = Credentials::new(VENDOR, "test", None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(SdkRegion::new("us-east-1"))
        .endpoint_url(server.url())
        .credentials_provider(SharedCredentialsProvider::new(root))
        .build()
}

fn globex() -> OrganisationId {
    an_organisation("globex").id
}

fn role() -> CustomerRole {
    let external_id = an_organisation("globex").external_id;
    CustomerRole { arn: parsed(&format!("arn:aws:iam::{GLOBEX}:role/{ROLE}")), external_id }
}

fn trust() -> Value {
    trust_policy(&settings().vendor, &role().external_id)
}

async fn vendor() -> (Server, KmsKeys) {
    let server = start().await;
    // What key-access.yaml gives the one role that touches customers' keys.
    let may = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "arn:aws:iam::*:role/*"},
    ]});
    server.role(VENDOR, "claviger-key-access", trusts(VENDOR), may).await;
    let role = settings().vendor.key_access_role.clone();
    let keys = KmsKeys::new(&config(&server), role, Duration::from_secs(5), BTreeMap::new());
    (server, keys)
}

/// The customer pastes what is printed.
async fn pasted() -> (Server, KmsKeys) {
    let (server, keys) = vendor().await;
    let account = parsed(GLOBEX);
    server.role(GLOBEX, ROLE, trust(), role_permissions(globex(), Some(&account), &Default::default())).await;
    (server, keys)
}

async fn trusts_from_now_on(server: &Server, document: Value) {
    let document = document.to_string();
    let change = [("RoleName", ROLE), ("PolicyDocument", document.as_str())];
    server.query(GLOBEX, "iam", "UpdateAssumeRolePolicy", &change).await.unwrap();
}

async fn checked(keys: &KmsKeys) -> Vec<Check> {
    let regions = REGIONS.map(parsed::<Region>);
    let organisation = an_organisation("globex");
    let external_id = &organisation.external_id;
    let whose = Checked { organisation: globex(), external_id, regions: &regions };
    let ids = SequentialIds::default();
    let check = CheckEnrolment { keys, roles: keys, ids: &ids };
    check.run(whose, &a_byok_enrolment(GLOBEX, "usa"), &[].into()).await
}

fn failed(checks: &[Check]) -> Vec<&str> {
    let failed = checks.iter().filter(|check| check.result == CheckResult::Fail);
    failed.map(|check| check.id.as_str()).collect()
}

async fn make(keys: &KmsKeys, region: &str) -> KeyArn {
    let policy = made_key_policy(&role().arn, globex());
    let wanted =
        NewKey { organisation: globex(), label: claviger_domain::key_policy::KeyLabel::first_of(1), policy };
    keys.make_key(&role(), &parsed(region), &wanted).await.unwrap()
}

fn context(organisation: OrganisationId) -> EncryptionContext {
    encryption_context(organisation, PURPOSE_CANARY, "p", &parsed("globex01"))
}

async fn encrypts(
    keys: &KmsKeys,
    arn: &KeyArn,
    organisation: OrganisationId,
    session: RoleSession,
) -> Result<(), Observation> {
    let access = KeyAccess::Role(role());
    let key = KeyRef { arn, access: &access, organisation: globex(), session };
    let sealed =
        keys.encrypt(key, b"note", &context(organisation)).await.map_err(|error| error.observation)?;
    let plain =
        keys.decrypt(key, &sealed, &context(organisation)).await.map_err(|error| error.observation)?;
    assert_eq!(plain.as_slice(), b"note");
    Ok(())
}

const ROLE_DENIED: Result<(), Observation> = Err(Observation::Refused(RefusalKind::RoleDenied));
const DENIED: Result<(), Observation> = Err(Observation::Refused(RefusalKind::AccessDenied));

#[tokio::test]
async fn e12_byok_the_printed_documents_pass_every_check_and_the_dry_run_makes_no_key() {
    let (server, keys) = pasted().await;
    let checks = checked(&keys).await;
    assert!(failed(&checks).is_empty(), "{checks:?}");
    for region in REGIONS {
        let found = server.kms_in(region, GLOBEX, "ListKeys", json!({})).await.unwrap();
        assert_eq!(found["Keys"], json!([]));
    }
}

#[tokio::test]
async fn e12_byok_each_document_that_is_wrong_is_named() {
    let (_server, keys) = vendor().await;
    assert_eq!(failed(&checked(&keys).await), ["role-assumable", "role-assumable"], "no role");

    let (server, keys) = pasted().await;
    let mut open = trust();
    open["Statement"][0]["Condition"]["StringEquals"].as_object_mut().unwrap().remove("sts:ExternalId");
    trusts_from_now_on(&server, open).await;
    assert_eq!(failed(&checked(&keys).await), ["external-id-enforced"]);

    let mut another = trust();
    another["Statement"][0]["Condition"]["StringEquals"]["sts:ExternalId"] = json!("claviger-another");
    trusts_from_now_on(&server, another).await;
    assert_eq!(failed(&checked(&keys).await), ["role-assumable", "role-assumable"]);

    trusts_from_now_on(&server, trust()).await;
    let name = [("RoleName", ROLE), ("PolicyName", "p")];
    server.query(GLOBEX, "iam", "DeleteRolePolicy", &name).await.unwrap();
    assert_eq!(failed(&checked(&keys).await), ["role-permissions", "role-permissions"]);
}

#[tokio::test]
async fn e7_byok_keys_bear_the_prefix_and_the_tags_and_are_made_once() {
    let (server, keys) = pasted().await;
    for region in REGIONS {
        let made = make(&keys, region).await;
        assert_eq!((made.region().as_str(), made.account().as_str()), (region, GLOBEX));
        assert_eq!(make(&keys, region).await, made, "asked again, the same");
        let aliases =
            server.kms_in(region, GLOBEX, "ListAliases", json!({"KeyId": made.as_str()})).await.unwrap();
        let alias = aliases["Aliases"][0]["AliasName"].as_str().unwrap().to_owned();
        assert!(alias.starts_with("alias/cryptor-"), "{alias}");
        // A crash between making and naming: found by its tags, and named.
        server.kms_in(region, GLOBEX, "DeleteAlias", json!({"AliasName": alias})).await.unwrap();
        assert_eq!(make(&keys, region).await, made);
        let all = server.kms_in(region, GLOBEX, "ListKeys", json!({})).await.unwrap();
        assert_eq!(all["Keys"].as_array().unwrap().len(), 1);
        let aliases =
            server.kms_in(region, GLOBEX, "ListAliases", json!({"KeyId": made.as_str()})).await.unwrap();
        assert_eq!(aliases["Aliases"][0]["AliasName"], alias.as_str());
    }
    let checks = checked(&keys).await;
    assert!(failed(&checks).is_empty(), "an enrolment after this one uses them: {checks:?}");
    assert!(checks.iter().any(|check| check.id == "context-condition"));
}

#[tokio::test]
async fn e12_byok_a_made_key_serves_the_organisations_context_only_and_its_owner_fully() {
    let (server, keys) = pasted().await;
    let made = make(&keys, "us-east-1").await;
    assert_eq!(encrypts(&keys, &made, globex(), RoleSession::Fresh).await, Ok(()));
    assert_eq!(encrypts(&keys, &made, an_organisation("acme").id, RoleSession::Fresh).await, DENIED);
    // Even if the customer's own policy lets the role do more.
    let all = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "kms:*", "Resource": "*"}]});
    let all = all.to_string();
    let change = [("RoleName", ROLE), ("PolicyName", "p"), ("PolicyDocument", all.as_str())];
    server.query(GLOBEX, "iam", "PutRolePolicy", &change).await.unwrap();
    assert_eq!(encrypts(&keys, &made, an_organisation("acme").id, RoleSession::Fresh).await, DENIED);
    let owner = json!({"KeyId": made.as_str(), "Plaintext": "bm90ZQ==", "EncryptionContext": {CONTEXT_ORGANISATION: "x"}});
    server.kms_in("us-east-1", GLOBEX, "Encrypt", owner).await.unwrap();
}

#[tokio::test]
async fn r1_byok_every_way_to_take_access_away_is_noticed_by_a_fresh_session() {
    let (server, keys) = pasted().await;
    let made = make(&keys, "us-east-1").await;
    assert_eq!(encrypts(&keys, &made, globex(), RoleSession::Kept).await, Ok(()));

    let mut denied = trust();
    denied["Statement"][0]["Effect"] = json!("Deny");
    trusts_from_now_on(&server, denied).await;
    assert_eq!(encrypts(&keys, &made, globex(), RoleSession::Fresh).await, ROLE_DENIED);
    assert_eq!(
        encrypts(&keys, &made, globex(), RoleSession::Kept).await,
        Ok(()),
        "what was assumed lives on"
    );
    trusts_from_now_on(&server, trust()).await;
    assert_eq!(encrypts(&keys, &made, globex(), RoleSession::Fresh).await, Ok(()));

    let disabled = json!({"KeyId": made.as_str()});
    server.kms_in("us-east-1", GLOBEX, "DisableKey", disabled.clone()).await.unwrap();
    let refused = Err(Observation::Refused(RefusalKind::KeyDisabled));
    assert_eq!(encrypts(&keys, &made, globex(), RoleSession::Fresh).await, refused);
    server.kms_in("us-east-1", GLOBEX, "EnableKey", disabled).await.unwrap();

    let name = [("RoleName", ROLE), ("PolicyName", "p")];
    server.query(GLOBEX, "iam", "DeleteRolePolicy", &name).await.unwrap();
    assert_eq!(encrypts(&keys, &made, globex(), RoleSession::Fresh).await, DENIED);

    server.query(GLOBEX, "iam", "DeleteRole", &[("RoleName", ROLE)]).await.unwrap();
    assert_eq!(encrypts(&keys, &made, globex(), RoleSession::Fresh).await, ROLE_DENIED);
    let kept = encrypts(&keys, &made, globex(), RoleSession::Kept).await;
    assert!(kept.is_err(), "a role that is gone ends its sessions");

    // The same role made again: its inner identity is another, and the key's policy does not care.
    server
        .role(GLOBEX, ROLE, trust(), role_permissions(globex(), Some(&parsed(GLOBEX)), &Default::default()))
        .await;
    assert_eq!(encrypts(&keys, &made, globex(), RoleSession::Fresh).await, Ok(()));
}

#[tokio::test]
async fn r4_the_control_probe_of_byok_goes_through_a_role_too() {
    let (server, _) = pasted().await;
    let seed = KmsKeys::new(
        &config(&server),
        settings().vendor.key_access_role.clone(),
        Duration::from_secs(5),
        BTreeMap::new(),
    );
    let key_arn = make(&seed, "us-east-1").await;
    let canary = CanaryKey { key_arn, organisation: globex(), template: None, role: Some(role()) };
    let canaries = BTreeMap::from([(parsed("us-east-1"), vec![canary])]);
    let key_access = settings().vendor.key_access_role.clone();
    let keys = KmsKeys::new(&config(&server), key_access, Duration::from_secs(5), canaries);
    let region: Region = parsed("us-east-1");
    assert!(keys.control_is_healthy(&region, Mode::Byok, KEY_POLICY_VERSION).await);
    // The fault is ours: we may not assume customers' roles any more.
    let nothing = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "sts:*", "Resource": "*"}]});
    let nothing = nothing.to_string();
    let change =
        [("RoleName", "claviger-key-access"), ("PolicyName", "p"), ("PolicyDocument", nothing.as_str())];
    server.query(VENDOR, "iam", "PutRolePolicy", &change).await.unwrap();
    assert!(!keys.control_is_healthy(&region, Mode::Byok, KEY_POLICY_VERSION).await);
}
