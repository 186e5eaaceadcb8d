//! The policy evaluator against a table of cases.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests: a failed test is what they say"
)]

use claviger_customer_cloud::policy::{Asked, Context, Identity, Policy, Principal, Sides, authorise};
use serde_json::{Value, json};

const ROLE: &str = "arn:aws:iam::111111111111:role/key-access";
const SESSION: &str = "arn:aws:sts::111111111111:assumed-role/key-access/s";
const KEY: &str = "arn:aws:kms:eu-west-1:222222222222:key/k";

fn context() -> Context {
    let mut context = Context::default();
    context.set("aws:PrincipalArn", ROLE);
    context.set("aws:RequestedRegion", "eu-west-1");
    context.set("aws:SecureTransport", "false");
    context.set("kms:EncryptionContext:claviger:organisation", "o1");
    context.set_all(
        "kms:EncryptionContextKeys",
        vec!["claviger:organisation".into(), "claviger:purpose".into()],
    );
    context
}

/// Decides `kms:Decrypt` on a key of `account` for a session of account 111111111111.
fn decide(account: &str, resource: Option<Value>, identity: &[Value], session: Option<Value>) -> bool {
    let who = Principal { account: "111111111111".into(), arn: SESSION.into(), principal_arn: ROLE.into() };
    let parse = |value: &Value| Policy::parse(&value.to_string()).expect("a policy");
    let (resource, session) = (resource.as_ref().map(parse), session.as_ref().map(parse));
    let identity: Vec<_> = identity.iter().map(parse).collect();
    let context = context();
    let asked = Asked { who: &who, action: "kms:Decrypt", resource: KEY, context: &context };
    let sides = Sides {
        resource: resource.as_ref(),
        granted: false,
        identity: Identity::Policies(&identity),
        session: session.as_ref(),
        resource_account: account,
    };
    authorise(&asked, &sides).is_ok()
}

fn statement(effect: &str, principal: Option<Value>, action: &str, condition: Option<Value>) -> Value {
    let mut statement = json!({"Effect": effect, "Action": action, "Resource": "*"});
    if let Some(principal) = principal {
        statement["Principal"] = principal;
    }
    if let Some(condition) = condition {
        statement["Condition"] = condition;
    }
    json!({"Version": "2012-10-17", "Statement": [statement]})
}

fn key_policy(principal: Value) -> Value {
    statement("Allow", Some(principal), "kms:Decrypt", None)
}

fn identity(action: &str) -> Value {
    statement("Allow", None, action, None)
}

const OWN: &str = "111111111111";
const OTHER: &str = "222222222222";

#[test]
fn between_accounts_both_sides_must_allow() {
    let vendor = key_policy(json!({"AWS": "arn:aws:iam::111111111111:root"}));
    assert!(decide(OTHER, Some(vendor.clone()), &[identity("kms:Decrypt")], None));
    assert!(!decide(OTHER, Some(vendor), &[], None));
    let stranger = key_policy(json!({"AWS": "arn:aws:iam::333333333333:root"}));
    assert!(!decide(OTHER, Some(stranger), &[identity("kms:*")], None));
}

#[test]
fn every_form_of_principal_that_names_the_caller_matches() {
    for principal in [
        json!("*"),
        json!({"AWS": "*"}),
        json!({"AWS": "111111111111"}),
        json!({"AWS": "arn:aws:iam::111111111111:root"}),
        json!({"AWS": ROLE}),
        json!({"AWS": SESSION}),
        json!({"AWS": ["arn:aws:iam::999999999999:root", ROLE]}),
    ] {
        assert!(
            decide(OTHER, Some(key_policy(principal.clone())), &[identity("kms:*")], None),
            "{principal}"
        );
    }
    for principal in [
        json!({"AWS": "arn:aws:iam::111111111111:role/other"}),
        json!({"AWS": "arn:aws:iam::111111111111:role/*"}),
        json!({"Service": "lambda.amazonaws.com"}),
    ] {
        assert!(
            !decide(OTHER, Some(key_policy(principal.clone())), &[identity("kms:*")], None),
            "{principal}"
        );
    }
}

#[test]
fn inside_an_account_naming_the_role_suffices_and_naming_the_account_does_not() {
    assert!(decide(OWN, Some(key_policy(json!({"AWS": ROLE}))), &[], None));
    let account = key_policy(json!({"AWS": "arn:aws:iam::111111111111:root"}));
    assert!(!decide(OWN, Some(account.clone()), &[], None));
    assert!(decide(OWN, Some(account), &[identity("kms:*")], None));
}

#[test]
fn a_resource_policy_that_is_silent_refuses_even_its_own_account() {
    assert!(!decide(OWN, Some(key_policy(json!({"AWS": "222222222222"}))), &[identity("kms:*")], None));
}

#[test]
fn an_explicit_deny_on_any_side_wins() {
    let allow = key_policy(json!({"AWS": ROLE}));
    let deny = statement("Deny", None, "kms:*", None);
    assert!(!decide(OWN, Some(allow.clone()), &[identity("kms:*"), deny.clone()], None));
    assert!(!decide(OWN, Some(allow.clone()), &[identity("kms:*")], Some(deny)));
    let both = json!({"Statement": [allow["Statement"][0], {"Effect": "Deny", "Principal": "*", "Action": "kms:D*",
        "Resource": "*"}]});
    assert!(!decide(OWN, Some(both), &[identity("kms:*")], None));
}

#[test]
fn a_session_policy_narrows_and_never_widens() {
    let allow = key_policy(json!({"AWS": ROLE}));
    let held = [identity("kms:*")];
    assert!(decide(OTHER, Some(allow.clone()), &held, Some(identity("kms:Decrypt"))));
    assert!(!decide(OTHER, Some(allow.clone()), &held, Some(identity("kms:Encrypt"))));
    assert!(!decide(OTHER, Some(allow), &[identity("kms:Encrypt")], Some(identity("kms:*"))));
}

#[test]
fn actions_match_by_wildcard_without_case_and_not_action_inverts() {
    for (action, allowed) in [
        ("kms:Decrypt", true),
        ("KMS:decrypt", true),
        ("kms:De?rypt", true),
        ("kms:D*", true),
        ("*", true),
        ("kms:Encrypt", false),
    ] {
        assert_eq!(
            decide(OTHER, Some(key_policy(json!("*"))), &[identity(action)], None),
            allowed,
            "{action}"
        );
    }
    let not = json!({"Statement": {"Effect": "Allow", "NotAction": "kms:Decrypt", "Resource": "*"}});
    assert!(!decide(OTHER, Some(key_policy(json!("*"))), &[not], None));
}

#[test]
fn resources_match_by_wildcard_with_case() {
    let on =
        |resource: &str| json!({"Statement": {"Effect": "Allow", "Action": "kms:*", "Resource": resource}});
    for (resource, allowed) in [
        (KEY, true),
        ("arn:aws:kms:*:222222222222:key/*", true),
        ("arn:aws:kms:eu-west-1:222222222222:key/K", false),
        ("arn:aws:kms:*:333333333333:key/*", false),
    ] {
        assert_eq!(decide(OTHER, Some(key_policy(json!("*"))), &[on(resource)], None), allowed, "{resource}");
    }
}

#[test]
fn conditions_hold_as_their_operator_says() {
    let organisation = "kms:EncryptionContext:claviger:organisation";
    for (condition, holds) in [
        (json!({"StringEquals": {organisation: "o1"}}), true),
        (json!({"StringEquals": {organisation: ["o0", "o1"]}}), true),
        (json!({"StringEquals": {organisation: "O1"}}), false),
        (json!({"StringEquals": {"KMS:encryptioncontext:claviger:organisation": "o1"}}), true),
        (json!({"StringEquals": {"aws:PrincipalArn": ROLE, organisation: "o2"}}), false),
        (json!({"StringEqualsIgnoreCase": {organisation: "O1"}}), true),
        (json!({"StringNotEquals": {organisation: "o2"}}), true),
        (json!({"StringNotEquals": {organisation: ["o2", "o1"]}}), false),
        (json!({"StringNotEquals": {"kms:ViaService": "s3"}}), true),
        (json!({"StringLike": {organisation: "o?"}}), true),
        (json!({"StringLike": {organisation: "x*"}}), false),
        (json!({"StringEquals": {"kms:ViaService": "s3"}}), false),
        (json!({"StringEqualsIfExists": {"kms:ViaService": "s3"}}), true),
        (json!({"StringEqualsIfExists": {organisation: "o2"}}), false),
        (json!({"ArnEquals": {"aws:PrincipalArn": ROLE}}), true),
        (json!({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/key-*"}}), true),
        (json!({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam:*"}}), false),
        (json!({"ArnNotLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/other"}}), true),
        (json!({"Bool": {"aws:SecureTransport": false}}), true),
        (json!({"Bool": {"aws:SecureTransport": "true"}}), false),
        (json!({"Null": {"kms:ViaService": "true"}}), true),
        (json!({"Null": {organisation: "true"}}), false),
        (json!({"Null": {organisation: false}}), true),
        (json!({"ForAnyValue:StringEquals": {"kms:EncryptionContextKeys": "claviger:purpose"}}), true),
        (json!({"ForAllValues:StringEquals": {"kms:EncryptionContextKeys": "claviger:purpose"}}), false),
        (
            json!({"ForAllValues:StringEquals": {"kms:EncryptionContextKeys":
                ["claviger:purpose", "claviger:organisation"]}}),
            true,
        ),
        (json!({"ForAnyValue:StringEquals": {"aws:absent": "x"}}), false),
        (json!({"ForAllValues:StringEquals": {"aws:absent": "x"}}), true),
        (json!({"NumericLessThan": {"aws:absent": 1}}), false),
    ] {
        let policy = statement("Allow", Some(json!("*")), "kms:Decrypt", Some(condition.clone()));
        assert_eq!(decide(OTHER, Some(policy), &[identity("kms:*")], None), holds, "{condition}");
    }
}

#[test]
fn an_unknown_operator_in_a_deny_denies() {
    let deny = statement("Deny", None, "kms:*", Some(json!({"NumericLessThan": {"aws:absent": 1}})));
    assert!(!decide(OTHER, Some(key_policy(json!("*"))), &[identity("kms:*"), deny], None));
}

#[test]
fn documents_that_say_nothing_clear_are_malformed() {
    for document in [
        "",
        "{}",
        r#"{"Statement": [{"Effect": "Maybe", "Action": "*"}]}"#,
        r#"{"Statement": [{"Effect": "Allow"}]}"#,
    ] {
        assert!(Policy::parse(document).is_err(), "{document}");
    }
    let unknown =
        statement("Allow", Some(json!("*")), "kms:*", Some(json!({"Sounds": {"a": "b"}}))).to_string();
    assert!(Policy::parse_strict(&unknown, true).is_err());
    assert!(Policy::parse_strict(&identity("kms:*").to_string(), true).is_err());
    assert!(Policy::parse_strict(&key_policy(json!("*")).to_string(), false).is_err());
}
