//! What the vendor's records say of a site: another name, or deleted (spec A4).

use claviger_testkit::builders;
use http::StatusCode;
use serde_json::{Value, json};

use crate::stage::{Stage, stage};

const APPS: &str = "organizations/acme/app-instances";

/// Acme has an encrypted app on `eng`, and an unencrypted member of its family.
async fn enrolled() -> Stage {
    let stage = stage().await;
    let organisation = builders::an_organisation("acme");
    let enrolment = builders::an_enrolment("222222222222", "europe");
    let now = claviger_app::ports::Clock::now(&*stage.clock);
    let policy = builders::an_active_policy(&organisation, &enrolment, now);
    stage.world.seed_instance(builders::an_active_instance(&policy, "eng", "jira", now));
    stage.world.seed_policy(policy);
    let sibling = json!({ "site": "eng", "app": "jira-product-discovery" });
    assert_eq!(stage.post("system", &format!("{APPS}/direct"), sibling).await.status, StatusCode::CREATED);
    stage
}

async fn told(stage: &Stage, path: &str) -> crate::stage::Came {
    stage.call("system", "POST", &format!("organizations/acme/sites/{path}"), None).await
}

fn sorted(page: &Value) -> Vec<Value> {
    let mut items = page["items"].as_array().unwrap().clone();
    items.sort_by_key(|item| item["app"].to_string());
    items
}

#[tokio::test]
async fn a4_a_site_that_was_deleted_is_answered_whatever_the_store_does_afterwards() {
    let stage = enrolled().await;
    stage.world.falls_ill_after_a_commit();
    let came = told(&stage, "eng/delete").await;
    assert_eq!(came.status, StatusCode::ACCEPTED, "{}", came.text);
    assert_eq!(came.json()["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a4_the_records_rename_a_site_and_the_org_admin_sees_it_with_its_former_name() {
    let stage = enrolled().await;
    let rename = "organizations/acme/sites/eng/rename";
    for _ in 0..2 {
        let came = stage.post("system", rename, json!({ "site": "eng-2" })).await;
        assert_eq!(came.status, StatusCode::OK, "{}", came.text);
        assert_eq!(came.json()["items"].as_array().unwrap().len(), 2);
    }
    let shown = stage.get("acme-admin", APPS).await.json();
    for app in shown["items"].as_array().unwrap() {
        assert_eq!((&app["site"], &app["formerSite"]), (&json!("eng-2"), &json!("eng")), "{app}");
    }
    let wrong = stage.post("system", rename, json!({ "site": "Not A Site" })).await;
    assert_eq!((wrong.code().as_str(), wrong.fields()), ("invalid-request", vec!["site".to_owned()]));
    for gone in ["eng", "nowhere", "NOT%20A%20SITE"] {
        let path = format!("organizations/acme/sites/{gone}/rename");
        let came = stage.post("system", &path, json!({ "site": "ops" })).await;
        assert_eq!(came.code(), "not-found", "{gone}");
    }
    // A name that another site has.
    let now = claviger_app::ports::Clock::now(&*stage.clock);
    let policy = builders::an_active_policy(
        &builders::an_organisation("globex"),
        &builders::an_enrolment("333333333333", "europe"),
        now,
    );
    stage.world.seed_instance(builders::an_active_instance(&policy, "globex-eng", "jira", now));
    let path = "organizations/acme/sites/eng-2/rename";
    let taken = stage.post("system", path, json!({ "site": "globex-eng" })).await;
    assert_eq!((taken.code().as_str(), taken.fields()), ("conflict", vec!["site".to_owned()]));
}

#[tokio::test]
async fn a4_a_deleted_site_is_shown_with_the_date_of_its_erasure_and_can_be_taken_back() {
    let stage = enrolled().await;
    assert_eq!(told(&stage, "eng/delete/cancel").await.code(), "illegal-state");
    let came = told(&stage, "eng/delete").await;
    assert_eq!(came.status, StatusCode::ACCEPTED, "{}", came.text);
    assert_eq!(came.headers["location"], "/v1/organizations/acme/app-instances");
    assert_eq!(came.json()["nextCursor"], serde_json::Value::Null);
    let shown = stage.get("acme-auditor", APPS).await.json();
    assert_eq!(sorted(&came.json()), sorted(&shown), "the answer shows what the list does");
    let of = |app: &str| {
        let items = shown["items"].as_array().unwrap().clone();
        items.into_iter().find(|one| one["app"] == app).unwrap()
    };
    let jira = of("jira");
    assert_eq!(jira["status"], "active");
    let erase_at: jiff::Timestamp = jira["deletion"]["eraseAt"].as_str().unwrap().parse().unwrap();
    let now = claviger_app::ports::Clock::now(&*stage.clock);
    assert_eq!(erase_at.duration_since(now).as_hours(), 24 * 30);
    let sibling = of("jira-product-discovery");
    assert_eq!(sibling["status"], "not-encrypted", "it stays as long as the rest");
    assert_eq!(sibling["deletion"]["eraseAt"], jira["deletion"]["eraseAt"]);
    assert_eq!(sibling["deletion"]["ticketId"], Value::Null, "there is nothing to tell its admins");
    // Nothing new comes to it meanwhile.
    let refused = stage.post("acme-admin", APPS, json!({ "site": "eng", "app": "confluence" })).await;
    assert_eq!(refused.code(), "not-eligible", "{}", refused.text);
    let kept = told(&stage, "eng/delete/cancel").await;
    assert_eq!((kept.status, &kept.json()["items"][0]["deletion"]), (StatusCode::OK, &Value::Null));
    assert_eq!(told(&stage, "nowhere/delete").await.code(), "not-found");
    assert_eq!(told(&stage, "nowhere/delete/cancel").await.code(), "not-found");
}
