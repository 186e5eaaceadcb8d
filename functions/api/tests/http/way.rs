//! The way from enrolment over a cut-off to a restoration, as people see it.

use claviger_app::messages::ProbeAnswer;
use claviger_app::ports::{Policies, Tickets};
use claviger_domain::decide::Decision;
use claviger_domain::effect::Effect;
use claviger_domain::observation::{NoAnswerKind, Observation, RefusalKind};
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::ticket::{Ticket, TicketStatus};
use claviger_testkit::builders::{a_round, cut_off, parsed, shut_out, verification};
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
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
pub async fn active() -> Stage {
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
    suspended_by(|policy, now| vec![cut_off(policy, now)]).await
}

async fn suspended_by(decide: fn(&EncryptionPolicy, Timestamp) -> Vec<Decision>) -> (Stage, String) {
    let stage = active().await;
    let mut policy = stored(&stage).await;
    let decisions = decide(&policy, stage.clock.advance(SignedDuration::from_secs(120)));
    for decision in &decisions {
        stage.world.commit_policy(Some(&policy), decision).await.unwrap();
        policy = decision.next.clone();
    }
    assert!(!policy.fence.is_open());
    for row in decisions.iter().flat_map(|decision| &decision.outbox) {
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

/// What support is told that may not approve the one request that waits: the code and the help.
async fn not_approved(stage: &Stage) -> (String, String) {
    let waiting = stage.get("support", "support/requests").await.json();
    let path = format!("support/requests/{}/approve", waiting["items"][0]["id"].as_str().unwrap());
    let came = stage.call("support", "POST", &path, None).await;
    assert!(came.status.is_client_error(), "{}", came.text);
    let help = came.json()["help"].as_str().unwrap().to_owned();
    assert!(help.ends_with("; the support request stays as it is, and can be rejected"), "{help}");
    (came.code(), help)
}

#[tokio::test]
async fn e2_and_e3_support_does_not_approve_what_the_records_do_not_allow_any_more() {
    let stage = stage().await;
    stage.keys_are_good();
    stage.post("acme-admin", POLICY, enrolment("222222222222")).await;
    let plans = json!({ "jira": "enterprise" });
    let feed = json!({ "plans": plans, "government": true, "admins": ["acme-admin"], "auditors": [] });
    stage.call("system", "PUT", "organizations/acme", Some(feed)).await;
    assert_eq!(not_approved(&stage).await.0, "not-eligible");
    let feed = json!({ "plans": plans, "government": false, "admins": ["eve"], "auditors": [] });
    stage.call("system", "PUT", "organizations/acme", Some(feed)).await;
    let (code, help) = not_approved(&stage).await;
    assert!(code == "illegal-state" && help.starts_with("another org admin asks anew"), "{code}: {help}");
    let feed = json!({ "plans": plans, "government": false, "admins": ["acme-admin"], "auditors": [] });
    stage.call("system", "PUT", "organizations/acme", Some(feed)).await;
    approve_all(&stage).await;
}

#[tokio::test]
async fn e1_and_k1_support_does_not_approve_an_app_whose_plan_or_permission_is_gone() {
    let stage = active().await;
    let came = stage.post("acme-admin", APPS, json!({ "site": "acme-eng", "app": "jira" })).await;
    assert_eq!(came.status, StatusCode::ACCEPTED, "{}", came.text);
    let fed = |plan: &str| {
        let plans = json!({ "jira": plan });
        json!({ "plans": plans, "government": false, "admins": ["acme-admin"], "auditors": [] })
    };
    stage.call("system", "PUT", "organizations/acme", Some(fed("standard"))).await;
    assert_eq!(not_approved(&stage).await.0, "not-eligible");
    stage.call("system", "PUT", "organizations/acme", Some(fed("enterprise"))).await;
    let id = asked_for_a_permission(&stage).await;
    let decline = format!("organizations/acme/access-requests/{id}/decline");
    stage.call("acme-admin", "POST", &decline, None).await;
    assert_eq!(not_approved(&stage).await.0, "access-not-granted");
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
    let help = came.json()["errors"][0]["help"].as_str().unwrap().to_owned();
    let key = stored(&stage).await.keys[&parsed("eu-west-1")].arn.to_string();
    assert_eq!(help, format!("enable the key: `aws kms enable-key --key-id {key} --region eu-west-1`"));

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

/// Two rounds, as the prober answers when it is asked for two.
async fn answer_twice(stage: &Stage, saw: Observation) {
    let policy = stored(stage).await;
    let round = || a_round(&policy, saw, stage.clock.advance(SignedDuration::from_secs(1)));
    let rounds = vec![round(), round()];
    stage.world.prober_answers(Ok(ProbeAnswer::Probed { rounds }));
}

#[tokio::test]
async fn k1_support_suspends_for_the_vendor_and_lifts_what_it_ordered() {
    let stage = active().await;
    let (suspend, lift) = ("support/organizations/acme/suspend", "support/organizations/acme/lift");
    for (body, field) in [
        (json!({}), "reason"),
        (json!({ "reason": " " }), "reason"),
        (json!({ "reason": "x", "accessRequestId": "y" }), "accessRequestId"),
    ] {
        assert_eq!(stage.post("support", suspend, body).await.fields(), [field]);
    }
    let nothing = stage.post("support", lift, json!({ "reason": "done" })).await;
    assert_eq!((nothing.status, nothing.code().as_str()), (StatusCode::CONFLICT, "illegal-state"));
    let came = stage.post("support", suspend, json!({ "reason": "unpaid" })).await;
    assert_eq!(came.status, StatusCode::OK, "{}", came.text);
    let shown = stage.get("acme-admin", POLICY).await.json();
    assert_eq!(shown["lifecycle"], "suspended");
    assert_eq!(shown["fence"]["causes"], json!(["vendor"]));
    assert_eq!(shown["vendorSuspension"]["reason"], "unpaid");
    assert_eq!(shown["window"], json!(null), "a vendor's suspension has no window");
    assert_eq!(shown["ticketId"], shown["vendorSuspension"]["ticketId"]);
    let again = stage.post("support", suspend, json!({ "reason": "unpaid" })).await;
    assert_eq!(again.json()["fence"]["epoch"], 1);
    let came = stage.post("acme-admin", APPS, json!({ "site": "acme-eng", "app": "jira" })).await;
    assert_eq!(came.code(), "suspended");
    let came = stage.post("support", lift, json!({ "reason": "paid", "cause": "weather" })).await;
    assert_eq!(came.fields(), ["cause"]);
    let came = stage.post("support", lift, json!({ "reason": "paid" })).await;
    assert_eq!(came.status, StatusCode::OK, "{}", came.text);
    assert_eq!(came.json()["fence"]["open"], true);
}

/// Support publishes a template; the id of what it asks of the organisation.
async fn asked_for_a_permission(stage: &Stage) -> String {
    let template = json!({
        "version": "2027-01-15", "permissions": ["kms:DescribeKey"], "decideBy": "2027-01-31T00:00:00Z",
    });
    let came = stage.post("support", "support/key-policy-templates", template).await;
    assert_eq!(came.status, StatusCode::ACCEPTED, "{}", came.text);
    let location = came.headers["location"].to_str().unwrap().trim_start_matches("/v1/").to_owned();
    assert_eq!(stage.get("support", &location).await.json(), came.json());
    let other = stage.get("support", "support/key-policy-templates/none").await;
    assert_eq!(other.status, StatusCode::NOT_FOUND);
    let asked = stage.get("acme-admin", "organizations/acme/access-requests").await.json();
    asked["items"][0]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn k1_a_suspension_over_an_access_request_is_not_supports_to_lift() {
    let stage = active().await;
    let id = asked_for_a_permission(&stage).await;
    let decline = format!("organizations/acme/access-requests/{id}/decline");
    let came = stage.call("acme-admin", "POST", &decline, None).await;
    assert_eq!(came.status, StatusCode::OK, "{}", came.text);
    let order = json!({ "reason": "declined", "accessRequestId": id });
    let came = stage.post("support", "support/organizations/acme/suspend", order).await;
    assert_eq!(came.json()["vendorSuspension"]["ground"], "access-request", "{}", came.text);
    let path = "support/organizations/acme/lift";
    let came = stage.post("support", path, json!({ "reason": "please" })).await;
    assert_eq!((came.status, came.code().as_str()), (StatusCode::FORBIDDEN, "forbidden"));
}

#[tokio::test]
async fn k1_a_suspension_names_an_access_request_that_was_declined_or_ignored() {
    let stage = active().await;
    let open = asked_for_a_permission(&stage).await;
    for (id, reason) in [
        ("00000000-0000-4000-8000-0000000000aa", "has none of this id"),
        (open.as_str(), "may still answer it"),
    ] {
        let order = json!({ "reason": "declined", "accessRequestId": id });
        let came = stage.post("support", "support/organizations/acme/suspend", order).await;
        assert_eq!(
            (came.status, came.fields()),
            (StatusCode::BAD_REQUEST, vec!["accessRequestId".to_owned()])
        );
        assert!(came.text.contains(reason), "{}", came.text);
        assert!(came.json()["errors"][0]["help"].as_str().unwrap().contains("accessRequests"));
        assert_eq!(stage.get("acme-admin", POLICY).await.json()["fence"]["open"], true);
    }
    stage.clock.advance(SignedDuration::from_hours(24 * 120));
    let order = json!({ "reason": "ignored", "accessRequestId": open });
    let came = stage.post("support", "support/organizations/acme/suspend", order).await;
    assert_eq!(came.status, StatusCode::OK, "{}", came.text);
}

#[tokio::test]
async fn s7_two_agents_undo_nothing_that_the_customer_did() {
    let (stage, _) = suspended().await;
    answer_twice(&stage, Observation::Usable).await;
    let mistake = json!({ "reason": "our role was broken", "cause": "key" });
    let came = stage.post("support", "support/organizations/acme/lift", mistake).await;
    assert_eq!((came.status, came.code().as_str()), (StatusCode::FORBIDDEN, "forbidden"));
    assert!(came.text.contains("an org admin, by asking for restoration"), "{}", came.text);
    assert_eq!(stage.get("acme-admin", POLICY).await.json()["lifecycle"], "suspended");
}

#[tokio::test]
async fn s7_two_agents_lift_a_mistake_and_one_alone_does_not() {
    let (stage, _) = suspended_by(|policy, now| shut_out(policy, now).into()).await;
    let path = "support/organizations/acme/lift";
    let mistake = json!({ "reason": "our role was broken", "cause": "key" });
    answer_twice(&stage, Observation::Refused(RefusalKind::KeyDisabled)).await;
    let came = stage.post("support", path, mistake.clone()).await;
    assert_eq!((came.status, came.code().as_str()), (StatusCode::CONFLICT, "keys-not-usable"));
    answer_twice(&stage, Observation::Usable).await;
    let came = stage.post("support", path, mistake.clone()).await;
    assert_eq!(came.status, StatusCode::ACCEPTED, "{}", came.text);
    assert_eq!(came.headers["location"], "/v1/organizations/acme/encryption-policy");
    assert_eq!(came.json()["liftProposal"]["reason"], "our role was broken");
    assert_eq!(came.json()["fence"]["open"], false);
    let same = stage.post("support", path, mistake.clone()).await;
    assert_eq!((same.status, same.code().as_str()), (StatusCode::FORBIDDEN, "forbidden"));
    assert!(same.text.contains("another support agent"), "{}", same.text);
    answer_twice(&stage, Observation::Usable).await;
    let came = stage.post("support-two", path, mistake).await;
    assert_eq!(came.status, StatusCode::OK, "{}", came.text);
    assert_eq!(came.json()["lifecycle"], "active");
    let audit = stage.get("acme-admin", "organizations/acme/audit").await.text;
    assert_eq!(audit.matches("\"slug\":\"mistake-declared\"").count(), 2);
}

#[tokio::test]
async fn s7_of_two_causes_support_names_the_one_it_means() {
    let (stage, _) = suspended().await;
    stage.post("support", "support/organizations/acme/suspend", json!({ "reason": "unpaid" })).await;
    let path = "support/organizations/acme/lift";
    assert_eq!(stage.post("support", path, json!({ "reason": "x" })).await.fields(), ["cause"]);
    let came = stage.post("support", path, json!({ "reason": "paid", "cause": "vendor" })).await;
    assert_eq!(came.status, StatusCode::OK, "{}", came.text);
    assert_eq!(came.json()["fence"]["causes"], json!(["key"]));
}

/// Cut off so long ago that the window of the catalogue's BYOK is over.
async fn lapsed() -> (Stage, String) {
    let (stage, ticket) = suspended().await;
    let mut policy = stored(&stage).await;
    policy.access = claviger_domain::key_access::KeyAccess::Role(claviger_domain::key_access::CustomerRole {
        arn: claviger_testkit::builders::a_role(policy.account.as_str()),
        external_id: claviger_testkit::builders::an_organisation("acme").external_id,
    });
    stage.world.seed_policy(policy);
    stage.clock.advance(SignedDuration::from_hours(15 * 24));
    let passed = claviger_app::pass_deadlines::PassDeadlines {
        policies: &*stage.world,
        watch: &*stage.world,
        requests: &*stage.world,
        templates: &*stage.world,
        overdue: &*stage.world,
        instances: &*stage.world,
        erasures: &*stage.world,
        backups: &*stage.world,
        removal: &*stage.world,
        ids: &claviger_testkit::SequentialIds::default(),
        clock: &*stage.clock,
        settings: claviger_testkit::builders::settings(),
    };
    assert_eq!(passed.run().await.unwrap().lapsed, 1);
    (stage, ticket)
}

#[tokio::test]
async fn s3_after_lapse_support_carries_out_what_an_admin_asked_for_on_the_ticket() {
    let (stage, ticket) = lapsed().await;
    let shown = stage.get("acme-admin", POLICY).await.json();
    assert_eq!(shown["lifecycle"], "lapsed");
    assert_eq!(shown["window"]["phase"], "lapsed");
    assert_eq!(shown["window"]["phases"][0]["phase"], "assured");
    let ask = json!({ "ticketId": ticket });
    let came = stage.post("acme-admin", "organizations/acme/restorations", ask.clone()).await;
    assert_eq!((came.status, came.code().as_str()), (StatusCode::CONFLICT, "window-lapsed"));
    assert!(came.json()["help"].as_str().unwrap().contains("\"request\": \"restoration\""), "{}", came.text);

    let carry_out = "support/organizations/acme/restorations";
    let comments = format!("organizations/acme/tickets/{ticket}/comments");
    stage.post("acme-admin", &comments, json!({ "body": "what now?" })).await;
    let came = stage.post("support", carry_out, ask.clone()).await;
    assert_eq!((came.status, came.code().as_str()), (StatusCode::CONFLICT, "illegal-state"));
    assert!(came.text.contains("bears no org admin's request"), "{}", came.text);

    let request = json!({ "body": "please restore", "request": "restoration" });
    assert_eq!(stage.post("support", &comments, request.clone()).await.fields(), ["request"]);
    let wrong = json!({ "body": "please", "request": "magic" });
    assert_eq!(stage.post("acme-admin", &comments, wrong).await.fields(), ["request"]);
    let came = stage.post("acme-admin", &comments, request).await;
    assert_eq!(came.status, StatusCode::CREATED, "{}", came.text);
    assert_eq!(came.json()["comments"].as_array().unwrap().last().unwrap()["request"], "restoration");

    answer(&stage, Observation::Usable, Observation::Refused(RefusalKind::KeyDisabled)).await;
    assert_eq!(stage.post("support", carry_out, ask.clone()).await.code(), "keys-not-usable");
    answer(&stage, Observation::Usable, Observation::Usable).await;
    let came = stage.post("support", carry_out, ask).await;
    assert_eq!(came.status, StatusCode::ACCEPTED, "{}", came.text);
    assert_eq!(came.json()["lifecycle"], "restoring");
    assert_eq!(stage.get("acme-admin", POLICY).await.json()["dueAt"], came.json()["dueAt"]);
}

#[tokio::test]
async fn s2_after_lapse_the_admin_says_on_the_ticket_whether_a_lost_key_is_done_without() {
    let (stage, ticket) = lapsed().await;
    let gone = Observation::Refused(RefusalKind::KeyPendingDeletion);
    let carry_out = "support/organizations/acme/restorations";
    let comments = format!("organizations/acme/tickets/{ticket}/comments");
    for wrong in [
        json!({ "body": "please", "request": "restoration", "intoDegraded": "yes" }),
        json!({ "body": "please", "intoDegraded": true }),
    ] {
        assert_eq!(stage.post("acme-admin", &comments, wrong).await.fields(), ["intoDegraded"]);
    }
    let whole = json!({ "body": "please restore", "request": "restoration" });
    let came = stage.post("acme-admin", &comments, whole).await;
    assert_eq!(came.json()["comments"].as_array().unwrap().last().unwrap()["intoDegraded"], false);
    // Support cannot say it in the admin's place.
    let says_so = json!({ "ticketId": ticket, "intoDegraded": true });
    answer(&stage, Observation::Usable, gone).await;
    assert_eq!(stage.post("support", carry_out, says_so.clone()).await.code(), "keys-not-usable");

    stage.clock.advance(SignedDuration::from_secs(1));
    let without = json!({ "body": "then without it", "request": "restoration", "intoDegraded": true });
    let came = stage.post("acme-admin", &comments, without).await;
    assert_eq!(came.json()["comments"].as_array().unwrap().last().unwrap()["intoDegraded"], true);
    answer(&stage, Observation::Usable, gone).await;
    let came = stage.post("support", carry_out, json!({ "ticketId": ticket })).await;
    assert_eq!(came.status, StatusCode::ACCEPTED, "{}", came.text);
    assert_eq!(came.json()["lifecycle"], "restoring");
}

#[tokio::test]
async fn s1_a_request_that_led_to_nothing_is_not_carried_out_again_until_an_admin_asks_anew() {
    let (stage, ticket) = lapsed().await;
    let (carry_out, ask) = ("support/organizations/acme/restorations", json!({ "ticketId": ticket }));
    let comments = format!("organizations/acme/tickets/{ticket}/comments");
    let request = json!({ "body": "please restore", "request": "restoration" });
    stage.post("acme-admin", &comments, request.clone()).await;
    answer(&stage, Observation::Usable, Observation::Usable).await;
    assert_eq!(stage.post("support", carry_out, ask.clone()).await.status, StatusCode::ACCEPTED);

    let policy = stored(&stage).await;
    let now = stage.clock.advance(SignedDuration::from_secs(1));
    let refused = a_round(&policy, Observation::Refused(RefusalKind::KeyDisabled), now);
    let rounds = vec![refused.clone(), refused];
    let event = claviger_domain::event::PolicyEvent::RestorationProbed { rounds, unwrapped_in: None };
    let by = claviger_testkit::builders::by_claviger();
    let stopped = claviger_testkit::builders::decided(&policy, &event, &by, now);
    stage.world.commit_policy(Some(&policy), &stopped).await.unwrap();
    assert_eq!(stage.get("acme-admin", POLICY).await.json()["lifecycle"], "lapsed");

    stage.clock.advance(SignedDuration::from_secs(60));
    let came = stage.post("support", carry_out, ask.clone()).await;
    assert_eq!((came.status, came.code().as_str()), (StatusCode::CONFLICT, "illegal-state"));
    assert!(came.text.contains("bears no org admin's request"), "{}", came.text);
    stage.post("acme-admin", &comments, request).await;
    answer(&stage, Observation::Usable, Observation::Usable).await;
    assert_eq!(stage.post("support", carry_out, ask).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn e3_a_request_of_somebody_who_is_no_admin_any_more_is_not_carried_out() {
    let (stage, ticket) = lapsed().await;
    let comments = format!("organizations/acme/tickets/{ticket}/comments");
    let request = json!({ "body": "please restore", "request": "restoration" });
    assert_eq!(stage.post("acme-admin", &comments, request).await.status, StatusCode::CREATED);
    let feed = json!({ "plans": {}, "government": false, "admins": ["eve"], "auditors": [] });
    stage.call("system", "PUT", "organizations/acme", Some(feed)).await;
    let ask = json!({ "ticketId": ticket });
    let came = stage.post("support", "support/organizations/acme/restorations", ask).await;
    assert!(came.text.contains("bears no org admin's request"), "{}", came.text);
}

#[tokio::test]
async fn s1_before_lapse_support_carries_out_nothing() {
    let (stage, ticket) = suspended().await;
    let ask = json!({ "ticketId": ticket });
    let came = stage.post("support", "support/organizations/acme/restorations", ask).await;
    assert_eq!((came.status, came.code().as_str()), (StatusCode::FORBIDDEN, "forbidden"));
}

#[tokio::test]
async fn s2_a_lost_key_is_done_without_and_replaced_by_one_that_stands_its_checks() {
    let (stage, ticket) = suspended().await;
    let path = "organizations/acme/restorations";
    let gone = Observation::Refused(RefusalKind::KeyPendingDeletion);
    let wrong = json!({ "ticketId": ticket, "intoDegraded": "yes" });
    assert_eq!(stage.post("acme-admin", path, wrong).await.fields(), ["intoDegraded"]);
    answer(&stage, Observation::Usable, gone).await;
    let came = stage.post("acme-admin", path, json!({ "ticketId": ticket })).await;
    assert_eq!(came.code(), "keys-not-usable");
    assert!(came.text.contains("intoDegraded"), "{}", came.text);
    answer(&stage, Observation::Usable, gone).await;
    let came = stage.post("acme-admin", path, json!({ "ticketId": ticket, "intoDegraded": true })).await;
    assert_eq!(came.status, StatusCode::ACCEPTED, "{}", came.text);

    let policy = stored(&stage).await;
    let round = || {
        let mut round =
            a_round(&policy, Observation::Usable, stage.clock.advance(SignedDuration::from_secs(1)));
        round.observations.insert(parsed("eu-west-1"), gone);
        round
    };
    let rounds = vec![round(), round()];
    let event = claviger_domain::event::PolicyEvent::RestorationProbed {
        rounds,
        unwrapped_in: Some(parsed("eu-central-1")),
    };
    let by = claviger_testkit::builders::by_claviger();
    let now = claviger_app::ports::Clock::now(&*stage.clock);
    let open = claviger_testkit::builders::decided(&policy, &event, &by, now);
    stage.world.commit_policy(Some(&policy), &open).await.unwrap();
    let shown = stage.get("acme-admin", POLICY).await.json();
    assert_eq!((&shown["degraded"], &shown["fence"]["open"]), (&json!(true), &json!(true)));
    assert_eq!(shown["keys"][1]["givenUp"], true);

    let replace = format!("{POLICY}/keys/eu-west-1/replace");
    let key = |region: &str, account: &str| json!({ "keyArn": claviger_testkit::builders::a_key(account, region, 9).as_str() });
    for body in [json!({}), key("eu-central-1", "222222222222"), key("eu-west-1", "333333333333")] {
        assert_eq!(stage.post("acme-admin", &replace, body).await.fields(), ["keyArn"]);
    }
    let working = format!("{POLICY}/keys/eu-central-1/replace");
    let came = stage.post("acme-admin", &working, key("eu-central-1", "222222222222")).await;
    assert_eq!((came.status, came.code().as_str()), (StatusCode::CONFLICT, "illegal-state"));
    stage.keys_are_good();
    let came = stage.post("acme-admin", &replace, key("eu-west-1", "222222222222")).await;
    assert_eq!(came.status, StatusCode::ACCEPTED, "{}", came.text);
    assert_eq!(came.json()["keys"][1]["replacement"], key("eu-west-1", "222222222222")["keyArn"]);
    let elsewhere = format!("{POLICY}/keys/us-east-1/replace");
    let came = stage.post("acme-admin", &elsewhere, key("us-east-1", "222222222222")).await;
    assert_eq!(came.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn r5_a_revocation_is_previewed_and_nothing_happens() {
    let stage = active().await;
    let before = stored(&stage).await;
    let path = format!("{POLICY}/keys/eu-west-1/preview");
    let came = stage.get("acme-auditor", &path).await;
    assert_eq!(came.status, StatusCode::OK, "{}", came.text);
    let shown = came.json();
    assert_eq!(shown["outcome"], "degraded");
    assert_eq!(shown["stillUsable"], json!(["eu-central-1"]));
    let guidance = shown["guidance"].as_str().unwrap();
    assert!(guidance.contains("emergencies") && guidance.contains("re-encryption"), "r1: {guidance}");
    assert!(shown["told"][0].as_str().unwrap().contains("Revocation is incomplete"));
    assert_eq!(stored(&stage).await, before);
    assert_eq!(stage.get("support", &path).await.status, StatusCode::FORBIDDEN);
    let nowhere = stage.get("acme-admin", &format!("{POLICY}/keys/us-east-1/preview")).await;
    assert_eq!(nowhere.status, StatusCode::NOT_FOUND);
    let (stage, _) = suspended().await;
    assert_eq!(stage.get("acme-admin", &path).await.json()["outcome"], "unchanged");
}
