//! An organisation leaves, as its people see it (spec E11).

use claviger_domain::closing::{Counted, Erasure};
use claviger_testkit::builders;
use http::StatusCode;
use serde_json::{Value, json};

use crate::stage::{Stage, stage};

const CLOSE: &str = "organizations/acme/encryption-policy/close";
const POLICY: &str = "organizations/acme/encryption-policy";

async fn enrolled() -> Stage {
    let stage = stage().await;
    let organisation = builders::an_organisation("acme");
    let enrolment = builders::an_enrolment("222222222222", "europe");
    let now = claviger_app::ports::Clock::now(&*stage.clock);
    stage.world.seed_policy(builders::an_active_policy(&organisation, &enrolment, now));
    stage
}

#[tokio::test]
async fn e11_leaving_is_confirmed_by_the_organisations_name_approved_by_support_and_can_be_cancelled() {
    let stage = enrolled().await;
    for wrong in [json!({}), json!({ "confirmation": "globex" }), json!({ "confirmation": 1 })] {
        let came = stage.post("acme-admin", CLOSE, wrong).await;
        assert_eq!(
            (came.code().as_str(), came.fields()),
            ("invalid-request", vec!["confirmation".to_owned()])
        );
    }
    let confirmed = json!({ "confirmation": "acme" });
    let came = stage.post("acme-admin", CLOSE, confirmed.clone()).await;
    assert_eq!(came.status, StatusCode::ACCEPTED, "{}", came.text);
    assert_eq!(came.json()["closing"]["stage"], "asked");
    let waiting = stage.get("support", "support/requests").await.json();
    let request = &waiting["items"][0];
    assert_eq!(request["kind"], "closing");
    let approve = format!("support/requests/{}/approve", request["id"].as_str().unwrap());
    let approved = stage.call("support", "POST", &approve, None).await.json();
    assert_eq!((&approved["kind"], &approved["status"]), (&json!("closing"), &json!("exporting")));
    let shown = stage.get("acme-auditor", POLICY).await.json();
    assert_eq!(shown["closing"]["remainingSeconds"], json!(30 * 24 * 3600));
    assert_eq!(shown["fence"]["open"], json!(true));
    let cancel = format!("{CLOSE}/cancel");
    let came = stage.call("acme-admin", "POST", &cancel, None).await;
    assert_eq!((came.status, &came.json()["closing"]), (StatusCode::ACCEPTED, &Value::Null));
    assert_eq!(stage.call("acme-admin", "POST", &cancel, None).await.code(), "illegal-state");
    // What there is no way back to names the way out.
    let vendor_managed = json!({ "mode": "vendor-managed" });
    let came = stage.post("acme-admin", POLICY, vendor_managed).await;
    assert_eq!(came.code(), "no-way-back");
    assert!(came.json()["help"].as_str().unwrap().contains("/encryption-policy/close"), "{}", came.text);
}

#[tokio::test]
async fn e11_the_erasure_statement_is_there_for_admins_and_auditors_once_everything_is_erased() {
    let stage = enrolled().await;
    let path = format!("{POLICY}/erasure-statement");
    assert_eq!(stage.get("acme-auditor", &path).await.status, StatusCode::NOT_FOUND);
    let name = builders::parsed("acme");
    let mut policy = claviger_app::ports::Policies::policy(&*stage.world, &name).await.unwrap().unwrap();
    let now = claviger_app::ports::Clock::now(&*stage.clock);
    policy.lifecycle = claviger_domain::policy::Lifecycle::Closed { at: now };
    policy.erasure = Some(Erasure {
        asked_at: now,
        access_ended_at: now,
        erased_at: now,
        counted: Counted { data_keys: 7, instances: 2 },
        ticket: claviger_domain::ids::TicketId::from_uuid(policy.id.as_uuid()),
    });
    stage.world.seed_policy(policy);
    for who in ["acme-admin", "acme-auditor"] {
        let came = stage.get(who, &path).await;
        assert_eq!(came.status, StatusCode::OK, "{}", came.text);
        assert_eq!(came.json()["dataKeys"], 7);
        assert_eq!(came.json()["remains"].as_array().unwrap().len(), 5);
    }
    let again = stage.post("acme-admin", POLICY, crate::stage::enrolment("222222222222")).await;
    assert_eq!(again.code(), "already-enrolled", "{}", again.text);
}
