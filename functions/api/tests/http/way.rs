//! The way from enrolment over a cut-off to a restoration, as people see it.

use claviger_app::messages::ProbeAnswer;
use claviger_app::ports::{Policies, Tickets};
use claviger_domain::effect::Effect;
use claviger_domain::observation::{NoAnswerKind, Observation, RefusalKind};
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::ticket::{Ticket, TicketStatus};
use claviger_testkit::builders::{a_round, cut_off, parsed, verification};
use http::StatusCode;
use jiff::SignedDuration;
use serde_json::json;

use crate::stage::{Stage, enrolment, stage};

const POLICY: &str = "organizations/acme/encryption-policy";
const APPS: &str = "organizations/acme/app-instances";

async fn stored(stage: &Stage) -> EncryptionPolicy {
    Policies::policy(&*stage.world, &parsed("acme")).await.unwrap().unwrap()
}

async fn approve_all(stage: &Stage) {
    let waiting = stage.get("support", "support/requests").await.json();
    for request in waiting["items"].as_array().unwrap() {
        let path = format!("support/requests/{}/approve", request["id"].as_str().unwrap());
        let came = stage.call("support", "POST", &path, None).await;
        assert_eq!(came.status, StatusCode::OK, "{}", came.text);
    }
}

/// An active policy, by the calls that people make.
async fn active() -> Stage {
    let stage = stage().await;
    stage.keys_are_good();
    let came = stage.post("acme-admin", POLICY, enrolment("222222222222")).await;
    assert_eq!(came.json()["lifecycle"], "requested", "{}", came.text);
    assert_eq!(came.json()["dueAt"], "2026-11-24T23:59:59Z");
    approve_all(&stage).await;
    let approved = stored(&stage).await;
    assert_eq!(approved.lifecycle.slug(), "verifying");
    let now = stage.clock.advance(SignedDuration::from_secs(5));
    stage.world.commit_policy(Some(&approved), &verification(&approved, now)).await.unwrap();
    stage
}

/// Cut off, with the ticket that tells of it.
async fn suspended() -> (Stage, String) {
    let stage = active().await;
    let policy = stored(&stage).await;
    let decision = cut_off(&policy, stage.clock.advance(SignedDuration::from_secs(60)));
    stage.world.commit_policy(Some(&policy), &decision).await.unwrap();
    for row in &decision.outbox {
        if let Effect::OpenTicket { ticket, title, .. } = &row.effect {
            let opened = Ticket {
                id: *ticket,
                organisation: parsed("acme"),
                title: title.clone(),
                status: TicketStatus::Open,
                opened_at: row.created_at,
                resolved_at: None,
                comments: Vec::new(),
                version: 1,
            };
            stage.world.save_ticket(&opened).await.unwrap();
        }
    }
    stage.clock.advance(SignedDuration::from_secs(60));
    let tickets = stage.get("acme-auditor", "organizations/acme/tickets").await.json();
    assert_eq!(tickets["items"][0]["title"], "CMK revocation started for AWS account 222222222222");
    assert_eq!(tickets["items"][0]["status"], "open");
    let id = tickets["items"][0]["id"].as_str().unwrap().to_owned();
    (stage, id)
}

async fn answer(stage: &Stage, central: Observation, west: Observation) {
    let mut round = a_round(&stored(stage).await, central, stage.clock.advance(SignedDuration::from_secs(5)));
    round.observations.insert(parsed("eu-west-1"), west);
    stage.world.prober_answers(Ok(ProbeAnswer::Probed { rounds: vec![round] }));
}

#[tokio::test]
async fn an_app_is_requested_approved_and_listed() {
    let stage = active().await;
    let came = stage.post("acme-admin", APPS, json!({ "site": "acme-eng", "app": "jira" })).await;
    assert_eq!(came.status, StatusCode::ACCEPTED, "{}", came.text);
    assert_eq!(came.json()["status"], "requested");
    approve_all(&stage).await;
    let listed = stage.get("acme-auditor", APPS).await.json();
    assert_eq!(listed["items"][0]["status"], "provisioning");
    assert_eq!(listed["items"][0]["realm"], "europe");
    for (body, field) in [
        (json!({ "site": "Acme Eng", "app": "jira" }), "site"),
        (json!({ "app": "jira" }), "site"),
        (json!({ "site": "acme-eng", "app": 7 }), "app"),
    ] {
        let came = stage.post("acme-admin", APPS, body).await;
        assert_eq!(came.fields(), [field]);
    }
    let came = stage.post("acme-admin", APPS, json!({ "site": "acme-eng", "app": "jira" })).await;
    assert_eq!((came.status, came.fields()), (StatusCode::CONFLICT, vec!["app".to_owned()]));
}

#[tokio::test]
async fn e3_support_rejects_with_a_reason_that_the_admin_reads() {
    let stage = stage().await;
    stage.keys_are_good();
    stage.post("acme-admin", POLICY, enrolment("222222222222")).await;
    let waiting = stage.get("support", "support/requests").await.json();
    let path = format!("support/requests/{}/reject", waiting["items"][0]["id"].as_str().unwrap());
    assert_eq!(stage.post("support", &path, json!({ "reason": " " })).await.fields(), ["reason"]);
    let came = stage.post("support", &path, json!({ "reason": "wrong account" })).await;
    assert_eq!(came.json()["status"], "rejected", "{}", came.text);
    assert_eq!(stage.get("acme-admin", POLICY).await.json()["reason"], "wrong account");
    let late = stage.call("support", "POST", &path.replace("reject", "approve"), None).await;
    assert_eq!((late.status, late.code().as_str()), (StatusCode::CONFLICT, "illegal-state"));
}

#[tokio::test]
async fn s2_a_restoration_names_what_refuses_and_works_when_all_answer() {
    let (stage, ticket) = suspended().await;
    let ask = json!({ "ticketId": ticket });
    let path = "organizations/acme/restorations";
    answer(&stage, Observation::Usable, Observation::Refused(RefusalKind::KeyDisabled)).await;
    let came = stage.post("acme-admin", path, ask.clone()).await;
    assert_eq!((came.status, came.code().as_str()), (StatusCode::CONFLICT, "keys-not-usable"));
    assert_eq!(came.fields(), ["keys.eu-west-1"]);
    assert!(came.text.contains("enable-key"), "{}", came.text);

    answer(&stage, Observation::Usable, Observation::NoAnswer(NoAnswerKind::Throttled)).await;
    let came = stage.post("acme-admin", path, ask.clone()).await;
    assert_eq!(
        (came.status, came.code().as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "temporarily-unavailable")
    );
    assert!(came.headers.contains_key("retry-after"));

    for (body, field) in [
        (json!({}), "ticketId"),
        (json!({ "ticketId": "x" }), "ticketId"),
        (json!({ "ticketId": "00000000-0000-4000-8000-0000000000aa" }), "ticketId"),
    ] {
        assert_eq!(stage.post("acme-admin", path, body).await.fields(), [field]);
    }

    answer(&stage, Observation::Usable, Observation::Usable).await;
    let came = stage.post("acme-admin", path, ask.clone()).await;
    assert_eq!(came.status, StatusCode::ACCEPTED, "{}", came.text);
    assert_eq!(came.json()["lifecycle"], "restoring");
    let again = stage.post("acme-admin", path, ask).await;
    assert_eq!(again.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_prober_that_does_not_answer_is_temporarily_unavailable() {
    let (stage, ticket) = suspended().await;
    let came =
        stage.post("acme-admin", "organizations/acme/restorations", json!({ "ticketId": ticket })).await;
    assert_eq!(
        (came.status, came.code().as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "temporarily-unavailable")
    );
    let came = stage.post("acme-admin", APPS, json!({ "site": "acme-two", "app": "jira" })).await;
    assert_eq!((came.status, came.code().as_str()), (StatusCode::CONFLICT, "suspended"));
}

#[tokio::test]
async fn people_answer_on_the_ticket_by_their_role() {
    let (stage, ticket) = suspended().await;
    let path = format!("organizations/acme/tickets/{ticket}/comments");
    for (who, author) in [("acme-admin", "org-admin"), ("support", "support")] {
        let came = stage.post(who, &path, json!({ "body": "the keys are back" })).await;
        assert_eq!(came.status, StatusCode::CREATED, "{}", came.text);
        let comments = came.json()["comments"].as_array().unwrap().clone();
        assert_eq!(comments.last().unwrap()["author"], author);
    }
    for wrong in [json!({}), json!({ "body": "" }), json!({ "body": "x".repeat(4001) }), json!({ "body": 1 })]
    {
        assert_eq!(stage.post("acme-admin", &path, wrong).await.fields(), ["body"]);
    }
}

#[tokio::test]
async fn the_key_policy_is_shown_before_and_after_enrolment() {
    let stage = stage().await;
    let path = "organizations/acme/key-policy";
    let before =
        stage.get("acme-admin", &format!("{path}?awsAccountId=222222222222&realm=europe")).await.json();
    assert_eq!(before["regions"].as_array().unwrap().len(), 2);
    assert!(before["policy"]["Statement"].is_array());
    assert!(before["version"].is_string());
    let came = stage.get("acme-admin", &format!("{path}?awsAccountId=1&realm=europe")).await;
    assert_eq!(came.fields(), ["awsAccountId"]);
    stage.keys_are_good();
    stage.post("acme-admin", POLICY, enrolment("222222222222")).await;
    let after = stage.get("acme-auditor", path).await.json();
    assert_eq!(after["policy"], before["policy"]);
    assert!(after["regions"][1]["keyArn"].is_string());
}
