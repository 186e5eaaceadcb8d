//! Bodies that are wrong in every way worth trying: a problem that names field, reason and help, never a fault of ours,
//! nothing stored.

use claviger_app::ports::{Instances, Organisations, Policies, SupportRequests, Templates};
use claviger_testkit::builders::{a_key, an_active_policy, an_enrolment, an_organisation, parsed};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};

use crate::stage::{Came, Stage, enrolment, stage};

const ID: &str = "00000000-0000-4000-8000-0000000000aa";

/// Every call that takes a body: who may make it, how, where, and a body that is right.
fn calls() -> Vec<(&'static str, &'static str, String, Value)> {
    let of = |rest: &str| format!("organizations/acme{rest}");
    let place = || json!({ "site": "eng", "app": "confluence" });
    let feed =
        json!({ "plans": { "jira": "enterprise" }, "government": false, "admins": ["ada"], "auditors": [] });
    let byok = json!({
        "mode": "byok", "awsAccountId": "222222222222", "realm": "europe",
        "roleArn": "arn:aws:iam::222222222222:role/atlassian-key-management",
        "contextTag": "acme1", "contextTagConfirmation": "acme1",
    });
    let template = json!({ "version": "2027-01-15", "permissions": ["kms:DescribeKey"], "decideBy": "2027-01-31T00:00:00Z" });
    let comment = json!({ "body": "x", "request": "restoration" });
    let (key, globex) = (a_key("222222222222", "eu-west-1", 9), "support/organizations/globex");
    vec![
        ("system", "PUT", of(""), feed),
        ("acme-admin", "POST", of("/encryption-policy"), enrolment("222222222222")),
        ("acme-admin", "POST", of("/encryption-policy"), byok.clone()),
        ("acme-admin", "POST", of("/encryption-policy/validate"), enrolment("222222222222")),
        ("acme-admin", "POST", of("/encryption-policy/validate"), byok),
        (
            "globex-admin",
            "POST",
            "organizations/globex/encryption-policy/close".to_owned(),
            json!({ "confirmation": "globex" }),
        ),
        (
            "globex-admin",
            "POST",
            "organizations/globex/encryption-policy/keys/eu-west-1/replace".to_owned(),
            json!({ "keyArn": key.as_str() }),
        ),
        ("acme-admin", "POST", of("/app-instances"), place()),
        ("globex-admin", "POST", "organizations/globex/app-instances".to_owned(), place()),
        ("system", "POST", of("/app-instances/direct"), place()),
        ("system", "POST", of("/sites/eng/rename"), json!({ "site": "eng-2" })),
        (
            "system",
            "POST",
            of(&format!("/app-instances/{ID}/acknowledge")),
            json!({ "epoch": 1, "evicted": 0 }),
        ),
        ("acme-admin", "POST", of(&format!("/tickets/{ID}/comments")), comment),
        ("acme-admin", "POST", of("/restorations"), json!({ "ticketId": ID, "intoDegraded": true })),
        ("support", "POST", format!("support/requests/{ID}/reject"), json!({ "reason": "x" })),
        ("support", "POST", "support/key-policy-templates".to_owned(), template),
        ("support", "POST", format!("{globex}/suspend"), json!({ "reason": "unpaid" })),
        ("support", "POST", format!("{globex}/lift"), json!({ "cause": "vendor", "reason": "paid" })),
        ("support", "POST", format!("{globex}/restorations"), json!({ "ticketId": ID })),
    ]
}

/// Acme is not enrolled, globex is; nothing is wrong with any key.
async fn set() -> Stage {
    let stage = stage().await;
    for _ in 0..3 {
        stage.keys_are_good();
    }
    let now = claviger_app::ports::Clock::now(&*stage.clock);
    let (globex, enrolment) = (an_organisation("globex"), an_enrolment("333333333333", "europe"));
    stage.world.seed_policy(an_active_policy(&globex, &enrolment, now));
    stage
}

/// What is wrong in a way that the documents, or a keyboard, suggest.
fn wrong_values() -> Vec<Value> {
    let texts = [
        "",
        " ",
        "x",
        "-",
        "UPPER",
        "ca-cantral-1",
        "27976624415",
        "0222222222222",
        "22222222222a",
        "-22222222222",
        "\u{0662}\u{0662}\u{0662}\u{0662}\u{0662}\u{0662}\u{0662}\u{0662}\u{0662}\u{0662}\u{0662}\u{0662}",
        "alias/mine",
        "arn:aws:kms:eu-west-1:222222222222:alias/mine",
        "arn:aws:kms:eu-west-1:999999999999:key/0000000a-0000-4000-8000-000000000001",
        "arn:aws-cn:kms:eu-west-1:222222222222:key/0000000a-0000-4000-8000-000000000001",
        "arn:aws:iam::222222222222:user/ada",
        "cmk\u{0}",
        "caf\u{e9}",
        "\u{202e}ecirila",
        "../../etc/passwd",
        "'; drop table--",
        "2027-13-45T00:00:00Z",
        "1999-01-01T00:00:00Z",
        "00000000-0000-4000-8000-0000000000a",
    ];
    let long = "a".repeat(70_000);
    let others = vec![
        Value::Null,
        json!(true),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(18_446_744_073_709_551_615_u64),
        json!([]),
        json!([[]]),
        json!([null]),
        json!(["", ""]),
        json!({}),
        json!({ "jira": 1 }),
        json!({ "": "" }),
        json!(long),
    ];
    texts.iter().map(|text| json!(text)).chain(others).collect()
}

/// What came back has to be a grant, or a problem that helps; says whether it is a grant.
fn helps(came: &Came, field: &str) -> bool {
    assert!(came.status.as_u16() < 500, "{field}: {} {}", came.status, came.text);
    if came.status.is_success() {
        return true;
    }
    let problem = came.json();
    assert!(problem["help"].as_str().is_some_and(|help| !help.is_empty()), "{problem}");
    if problem["code"] == "invalid-request" {
        let errors = problem["errors"].as_array().unwrap();
        assert!(!errors.is_empty(), "{problem}");
        for error in errors {
            for part in ["field", "reason", "help"] {
                assert!(error[part].as_str().is_some_and(|text| !text.is_empty()), "{part} of {problem}");
            }
        }
    }
    false
}

#[tokio::test]
async fn e5_every_field_of_every_call_that_is_wrong_is_named_with_reason_and_help_and_nothing_is_stored() {
    let (mut tried, mut named) = (0_u32, 0_u32);
    for (who, method, path, right) in calls() {
        for field in right.as_object().unwrap().keys() {
            let changes = wrong_values().into_iter().map(Some).chain([None]);
            for change in changes.filter(|change| change.as_ref() != Some(&right[field.as_str()])) {
                let mut body = right.clone();
                match &change {
                    Some(value) => body[field.as_str()] = value.clone(),
                    None => drop(body.as_object_mut().unwrap().remove(field)),
                }
                let stage = set().await;
                let before = stored(&stage).await;
                let came = stage.call(who, method, &path, Some(body)).await;
                tried += 1;
                let granted = helps(&came, field);
                if !granted {
                    assert_eq!(stored(&stage).await, before, "{method} {path} {field}: {}", came.text);
                }
                if came.code() == "invalid-request" {
                    // Two fields that disagree may be named by the other of them.
                    let pair = ["contextTag", "keys", "roleArn", "awsAccountId", "mode", "realm", "admins"];
                    let fields = came.fields();
                    let hit = fields.iter().any(|named| named.starts_with(field.as_str()));
                    assert!(
                        hit || pair.iter().any(|other| field.starts_with(other)),
                        "{field}: {}",
                        came.text
                    );
                    named += u32::from(hit);
                }
            }
        }
    }
    assert!(tried > 1_000 && named > 700, "{named} of {tried} were named");
}

#[tokio::test]
async fn e12_what_is_wrong_between_fields_is_named_too() {
    let of = |path: &str, change: fn(&mut Value)| {
        let mut body = enrolment("222222222222");
        change(&mut body);
        (path.to_owned(), body)
    };
    let enrol = "organizations/acme/encryption-policy";
    for ((path, body), field) in [
        (of(enrol, |body| body["contextTagConfirmation"] = json!("acme2")), "contextTagConfirmation"),
        (of(enrol, |body| body["contextTag"] = json!("acme1acme1acme1")), "contextTag"),
        (of(enrol, |body| body["realm"] = json!("canada")), "keys"),
        (of(enrol, |body| body["keys"][1] = body["keys"][0].clone()), "keys"),
        (of(enrol, |body| body["keys"][1]["region"] = json!("us-east-1")), "keys"),
        (of(enrol, |body| drop(body["keys"].as_array_mut().unwrap().pop())), "keys"),
        (of(enrol, |body| body["awsAccountId"] = json!("444444444444")), "keys"),
        (of(enrol, |body| body["mode"] = json!("byok")), "roleArn"),
    ] {
        let stage = set().await;
        let before = stored(&stage).await;
        let came = stage.post("acme-admin", &path, body).await;
        assert!(!helps(&came, field));
        let fields = came.fields();
        assert!(fields.iter().any(|named| named.starts_with(field)), "{field}: {}", came.text);
        assert_eq!(stored(&stage).await, before);
    }
}

#[tokio::test]
async fn e4_of_fifty_enrolments_at_once_one_is_granted_and_the_others_say_why() {
    let stage = stage().await;
    for _ in 0..50 {
        stage.keys_are_good();
    }
    let enrols = (0..50)
        .map(|_| stage.post("acme-admin", "organizations/acme/encryption-policy", enrolment("222222222222")));
    let came = futures_util::future::join_all(enrols).await;
    let granted = came.iter().filter(|came| came.status.is_success()).count();
    assert_eq!(granted, 1);
    for refused in came.iter().filter(|came| !came.status.is_success()) {
        assert!(["already-enrolled", "conflict"].contains(&refused.code().as_str()), "{}", refused.text);
    }
    assert_eq!(stage.world.support_requests(None, 200).await.unwrap().items.len(), 1);
}

/// Values that are wrong nearly everywhere.
fn odd() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        Just(String::new()),
        Just(" ".to_owned()),
        Just("ca-cantral-1".to_owned()),
        Just("27976624415".to_owned()),
        Just("\u{0662}".repeat(12)),
        Just("arn:aws:kms:eu-west-1:222222222222:alias/mine".to_owned()),
        Just("arn:aws-cn:kms:eu-west-1:222222222222:key/0000000a-0000-4000-8000-000000000001".to_owned()),
        Just("a".repeat(70_000)),
        Just("\u{0}\u{202e}\u{fffd}".to_owned()),
        ".{0,40}",
        "[a-z0-9-]{1,80}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..20).prop_map(Value::from),
            prop::collection::hash_map("[a-zA-Z]{0,12}", inner, 0..6)
                .prop_map(|fields| Value::from(fields.into_iter().collect::<Map<String, Value>>())),
        ]
    })
}

/// A body that is right but for some of its places, or another one altogether.
fn bent(right: &Value, changes: &[(usize, Option<Value>)]) -> Value {
    let mut body = right.clone();
    for (at, change) in changes {
        let mut places = Vec::new();
        pointers(&body, String::new(), &mut places);
        let Some(place) = places.get(at % places.len().max(1)).cloned() else { continue };
        match change {
            Some(value) => {
                if let Some(found) = body.pointer_mut(&place) {
                    *found = value.clone();
                }
            }
            None => {
                let (parent, field) = place.rsplit_once('/').unwrap_or_default();
                match body.pointer_mut(parent) {
                    Some(Value::Object(fields)) => {
                        fields.remove(field);
                    }
                    Some(Value::Array(items)) => {
                        if let Ok(index) = field.parse::<usize>() {
                            items.remove(index);
                        }
                    }
                    _ => {}
                }
            }
        }
    }
    body
}

fn pointers(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, field)| pointers(field, format!("{at}/{name}"), found));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| pointers(item, format!("{at}/{index}"), found));
        }
        _ => {}
    }
    found.push(at);
}

/// Everything that a request of acme's or globex's could have changed.
async fn stored(stage: &Stage) -> String {
    let world = &*stage.world;
    let mut all = format!("{:?}", SupportRequests::support_requests(world, None, 200).await.unwrap());
    for name in ["acme", "globex"] {
        let name = parsed(name);
        let policy = Policies::policy(world, &name).await.unwrap();
        let instances = world.instances(&name, None, 200).await.unwrap();
        let organisation = world.organisation(&name).await.unwrap();
        let facts = world.all_facts(&name).len();
        all.push_str(&format!("{policy:?} {instances:?} {organisation:?} {facts}"));
    }
    let templates = Templates::templates(world).await.unwrap();
    format!("{all} {templates:?} {:?}", world.outbox())
}

#[test]
fn a_bent_body_is_never_our_fault_and_stores_nothing_unless_it_is_granted() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for (who, method, path, right) in calls() {
        let mut runner =
            TestRunner::new(Config { cases: 48, failure_persistence: None, ..Config::default() });
        let changes =
            prop::collection::vec((any::<prop::sample::Index>(), prop::option::weighted(0.8, odd())), 1..4);
        let changes = changes.prop_map(|changes| {
            changes.into_iter().map(|(at, value)| (at.index(1 << 16), value)).collect::<Vec<_>>()
        });
        let outcome = runner.run(&changes, |changes| {
            runtime.block_on(async {
                let stage = set().await;
                let before = stored(&stage).await;
                let body = bent(&right, &changes);
                // What comes back is held against the description, errors and all, wherever a call is made.
                let came = stage.call(who, method, &path, Some(body)).await;
                prop_assert!(came.status.as_u16() < 500, "{} {}", came.status, came.text);
                if !came.status.is_success() {
                    prop_assert_eq!(stored(&stage).await, before);
                }
                Ok(())
            })
        });
        if let Err(error) = outcome {
            panic!("{method} {path}: {error}");
        }
    }
}
