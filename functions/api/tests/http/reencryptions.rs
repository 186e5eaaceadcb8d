//! Moving to new keys, as people see it.

use claviger_app::ports::{BackupsHead, DataKeyRemoval, Organisations, Policies};
use claviger_domain::event::PolicyEvent;
use claviger_domain::observation::Observation;
use claviger_domain::policy::EncryptionPolicy;
use claviger_testkit::builders::{
    a_key, a_round, an_active_instance, an_active_policy, an_enrolment, an_organisation, by_admin,
    by_claviger, decided, parsed,
};
use http::StatusCode;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::stage::{Stage, stage, stage_of_two_admins};

const POLICY: &str = "organizations/acme/encryption-policy";
const JOBS: &str = "organizations/acme/reencryptions";
const BACKUPS: &str = "organizations/acme/backups";
const REGIONS: [&str; 2] = ["eu-central-1", "eu-west-1"];

async fn active() -> Stage {
    activated(stage().await)
}

fn activated(stage: Stage) -> Stage {
    let now = stage.clock.advance(SignedDuration::from_secs(5));
    let policy = an_active_policy(&an_organisation("acme"), &an_enrolment("222222222222", "europe"), now);
    stage.world.seed_policy(policy);
    stage.clock.advance(SignedDuration::from_secs(60));
    stage
}

fn keys(number: u32) -> Vec<Value> {
    let key =
        |region: &str| json!({ "region": region, "keyArn": a_key("222222222222", region, number).as_str() });
    REGIONS.map(key).into()
}

async fn stored(stage: &Stage) -> EncryptionPolicy {
    Policies::policy(&*stage.world, &parsed("acme")).await.unwrap().unwrap()
}

/// A job that prepares, and where it is shown.
async fn asked(stage: &Stage) -> (Value, String) {
    stage.keys_are_good();
    let came = stage.post("acme-admin", JOBS, json!({ "keys": keys(2) })).await;
    assert_eq!(came.status, StatusCode::ACCEPTED, "{}", came.text);
    let location = came.headers["location"].to_str().unwrap().trim_start_matches("/v1/").to_owned();
    (came.json(), location)
}

async fn switched(stage: &Stage) {
    let policy = stored(stage).await;
    let job = policy.reencryption.as_ref().unwrap().id;
    let now = stage.clock.advance(SignedDuration::from_secs(60));
    let canaries = REGIONS.map(|region| (parsed(region), "QQ==".to_owned())).into();
    let round = a_round(&policy, Observation::Usable, now);
    let event = PolicyEvent::ReencryptionSwitched { job, canaries, data_keys: 1, proven: [].into(), round };
    let decision = decided(&policy, &event, &by_claviger(), now);
    stage.world.commit_policy(Some(&policy), &decision).await.unwrap();
}

#[tokio::test]
async fn x2_a_job_is_asked_for_with_the_advice_and_shown_to_the_organisation_and_support() {
    let stage = active().await;
    let (job, location) = asked(&stage).await;
    assert_eq!(
        (&job["status"], &job["depth"], &job["cancellable"]),
        (&json!("preparing"), &json!("rekey"), &json!(true))
    );
    let advice = job["advice"].as_str().unwrap();
    assert!(advice.contains("weigh it against revocation") && advice.contains("backups"), "{advice}");
    assert_eq!(job["ledger"], json!([]));
    for who in ["acme-admin", "acme-auditor", "support"] {
        assert_eq!(stage.get(who, &location).await.json()["id"], job["id"], "{who}");
        assert_eq!(stage.get(who, JOBS).await.json()["items"][0]["id"], job["id"], "{who}");
    }
    let policy = stage.get("acme-admin", POLICY).await.json();
    assert_eq!(policy["reencrypting"], true);
    assert_eq!(
        policy["keys"][0]["keyArn"],
        a_key("222222222222", REGIONS[0], 1).as_str(),
        "the old ones still"
    );
}

#[tokio::test]
async fn x2_the_advice_is_there_before_anything_starts_and_progress_is_shown_by_app() {
    let stage = active().await;
    let before = stage.get("acme-admin", JOBS).await.json();
    assert_eq!(before["items"], json!([]));
    assert!(before["advice"].as_str().unwrap().contains("weigh it against revocation"));
    let (_, location) = asked(&stage).await;
    let policy = stored(&stage).await;
    let now = stage.clock.advance(SignedDuration::from_secs(1));
    stage.world.seed_instance(an_active_instance(&policy, "acme-eng", "jira", now));
    for who in ["acme-admin", "acme-auditor", "support"] {
        let shown = stage.get(who, &format!("{location}/instances")).await.json();
        let [instance] = &shown["items"].as_array().unwrap()[..] else { panic!("{shown}") };
        assert_eq!((&instance["site"], &instance["app"]), (&json!("acme-eng"), &json!("jira")));
        assert_eq!((&instance["total"], &instance["estimated"]), (&Value::Null, &json!(true)));
        assert_eq!(instance["shards"], json!([]), "its records are not worked yet");
    }
    let nowhere = format!("{JOBS}/00000000-0000-4000-8000-000000000001/instances");
    assert_eq!(stage.get("acme-admin", &nowhere).await.status, StatusCode::NOT_FOUND);
    assert_eq!(
        stage.get("globex-admin", &format!("{location}/instances")).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn x1_new_keys_that_are_wrong_are_named_by_field_and_nothing_is_stored() {
    let stage = active().await;
    let foreign = json!({ "region": REGIONS[1], "keyArn": a_key("333333333333", REGIONS[1], 2).as_str() });
    let first = keys(2).remove(0);
    for (body, field) in [
        (json!({}), "keys"),
        (json!({ "keys": [first.clone()] }), "keys"),
        (json!({ "keys": [first.clone(), foreign] }), "keys[1].keyArn"),
        (json!({ "keys": keys(1) }), "keys"),
        (json!({ "keys": keys(2), "depth": "deep" }), "depth"),
        (json!({ "keys": keys(2), "depth": 2 }), "depth"),
    ] {
        let came = stage.post("acme-admin", JOBS, body.clone()).await;
        assert_eq!(came.status, StatusCode::BAD_REQUEST, "{body}: {}", came.text);
        assert!(came.fields().iter().all(|named| named == field), "{body}: {:?}", came.fields());
    }
    assert!(stored(&stage).await.reencryption.is_none());
    assert_eq!(stage.world.take_probe_requests().len(), 0, "no key was touched for it");
}

#[tokio::test]
async fn x2_a_second_job_is_refused_and_the_first_can_be_paused_resumed_and_cancelled() {
    let stage = active().await;
    let (_, location) = asked(&stage).await;
    let second = stage.post("acme-admin", JOBS, json!({ "keys": keys(3) })).await;
    assert_eq!((second.status, second.code().as_str()), (StatusCode::CONFLICT, "illegal-state"));
    let steer =
        async |what: &str| stage.call("acme-admin", "POST", &format!("{location}/{what}"), None).await;
    assert!(steer("pause").await.json()["pausedAt"].is_string());
    assert!(steer("pause").await.json()["pausedAt"].is_string(), "it stands still already");
    assert!(steer("resume").await.json()["pausedAt"].is_null());
    let cancelled = steer("cancel").await;
    assert_eq!((cancelled.status, &cancelled.json()["status"]), (StatusCode::ACCEPTED, &json!("cancelling")));
    let unknown = format!("{JOBS}/00000000-0000-4000-8000-0000000000aa/pause");
    assert_eq!(stage.call("acme-admin", "POST", &unknown, None).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn x2_after_the_switch_there_is_no_way_back_and_the_ledger_says_what_needs_the_old_keys() {
    let stage = active().await;
    let (_, location) = asked(&stage).await;
    switched(&stage).await;
    let cancel = stage.call("acme-admin", "POST", &format!("{location}/cancel"), None).await;
    assert_eq!((cancel.status, cancel.code().as_str()), (StatusCode::CONFLICT, "illegal-state"));
    let expires = "2030-01-01T00:00:00Z";
    let backup = json!({
        "id": "weekly/2026-47", "takenAt": "2026-11-01T00:00:00Z", "expiresAt": expires,
        "generation": 1, "holdsWrappedKeys": true,
    });
    let came = stage.post("system", BACKUPS, backup.clone()).await;
    assert_eq!((came.status, came.json()), (StatusCode::OK, backup.clone()));
    assert_eq!(stage.get("acme-auditor", BACKUPS).await.json()["items"], json!([backup]));
    let job = stage.get("acme-admin", &location).await.json();
    assert_eq!((&job["status"], &job["cancellable"]), (&json!("rewriting"), &json!(false)));
    let ledger = &job["ledger"][0];
    assert_eq!((&ledger["safeToDelete"], &ledger["backups"]), (&json!(false), &json!(["weekly/2026-47"])));
    assert_eq!(ledger["keys"][0]["keyArn"], a_key("222222222222", REGIONS[0], 1).as_str());
}

#[tokio::test]
async fn x4_a_backup_that_is_wrong_is_named_by_field() {
    let stage = active().await;
    let right = json!({
        "id": "b1", "takenAt": "2026-11-01T00:00:00Z", "expiresAt": "2027-11-01T00:00:00Z",
        "generation": 1, "holdsWrappedKeys": false,
    });
    for (field, wrong) in [
        ("id", json!("a b")),
        ("takenAt", json!("yesterday")),
        ("expiresAt", json!("2026-10-01T00:00:00Z")),
        ("generation", json!(0)),
        ("generation", json!(7)),
        ("holdsWrappedKeys", json!("yes")),
        ("broughtBackAt", json!(7)),
        ("broughtBackAt", json!("2026-10-01T00:00:00Z")),
    ] {
        let mut body = right.clone();
        body[field] = wrong;
        let came = stage.post("system", BACKUPS, body).await;
        assert_eq!((came.status, came.fields()), (StatusCode::BAD_REQUEST, vec![field.to_owned()]));
    }
    assert_eq!(stage.get("system", BACKUPS).await.json()["items"], json!([]));
}

#[tokio::test]
async fn x4_a_backup_that_is_brought_back_stays_so_and_one_that_comes_too_late_is_refused() {
    let stage = active().await;
    let right = json!({
        "id": "b1", "takenAt": "2026-11-01T00:00:00Z", "expiresAt": "2027-11-01T00:00:00Z",
        "generation": 1, "holdsWrappedKeys": false,
    });
    let mut brought = right.clone();
    brought["broughtBackAt"] = json!("2026-11-02T00:00:00Z");
    for body in [&brought, &right] {
        let came = stage.post("system", BACKUPS, body.clone()).await;
        assert_eq!((came.status, came.json()), (StatusCode::OK, brought.clone()));
    }
    let mut another = right.clone();
    another["takenAt"] = json!("2026-11-03T00:00:00Z");
    let came = stage.post("system", BACKUPS, another).await;
    assert_eq!((came.status, came.fields()), (StatusCode::BAD_REQUEST, vec!["takenAt".to_owned()]));
    // Data keys go, for which any decision will do here.
    let policy = stage.world.policy(&parsed("acme")).await.unwrap().unwrap();
    let now = stage.clock.advance(SignedDuration::from_secs(60));
    let decision = decided(&policy, &PolicyEvent::ClosingAsked, &by_admin(), now);
    let known = stage.world.backups_head(&parsed("acme")).await.unwrap();
    let head = BackupsHead { version: known.version + 1, removed_below: 2, taken_from: Some(now) };
    stage.world.commit_removal(&policy, &decision, &head).await.unwrap();
    let mut late = right.clone();
    late["id"] = json!("b2");
    let came = stage.post("system", BACKUPS, late).await;
    assert_eq!((came.status, came.code().as_str()), (StatusCode::CONFLICT, "data-keys-removed"));
    assert_eq!(came.fields(), ["takenAt"]);
    assert_eq!(
        stage.get("system", BACKUPS).await.json()["items"],
        json!([brought]),
        "nothing is half stored"
    );
}

#[tokio::test]
async fn x6_what_is_cmk_already_does_not_migrate() {
    let stage = active().await;
    let came = stage.post("acme-admin", &format!("{POLICY}/migrate"), json!({ "keys": keys(2) })).await;
    assert_eq!((came.status, came.code().as_str()), (StatusCode::CONFLICT, "illegal-state"));
}

#[tokio::test]
async fn e3_where_two_admins_have_to_agree_the_first_is_told_what_it_waits_for() {
    let stage = activated(stage_of_two_admins().await);
    stage.keys_are_good();
    let ask = json!({ "keys": keys(2) });
    let first = stage.post("acme-admin", JOBS, ask.clone()).await;
    assert_eq!(first.status, StatusCode::OK, "{}", first.text);
    let proposal = &first.json()["reencryptionProposal"];
    assert_eq!((&proposal["depth"], proposal["keys"].as_array().unwrap().len()), (&json!("rekey"), 2));
    assert!(proposal["until"].as_str() > proposal["at"].as_str());
    assert_eq!(first.json()["reencrypting"], json!(false));
    assert_eq!(stage.get("acme-admin", JOBS).await.json()["items"], json!([]));
    let again = stage.post("acme-admin", JOBS, ask.clone()).await;
    assert_eq!(again.status, StatusCode::FORBIDDEN, "{}", again.text);
    stage.keys_are_good();
    let second = stage.post("acme-second-admin", JOBS, ask).await;
    assert_eq!(second.status, StatusCode::ACCEPTED, "{}", second.text);
    assert_eq!(second.json()["status"], json!("preparing"));
    assert_eq!(stage.get("acme-admin", POLICY).await.json()["reencryptionProposal"], Value::Null);
}

#[tokio::test]
async fn e3_where_two_admins_have_to_agree_the_word_of_one_who_is_none_any_more_is_a_proposal_of_nobody() {
    let stage = activated(stage_of_two_admins().await);
    let ask = json!({ "keys": keys(2) });
    stage.keys_are_good();
    assert_eq!(stage.post("acme-admin", JOBS, ask.clone()).await.status, StatusCode::OK);
    let mut acme = an_organisation("acme");
    acme.admins = [parsed("acme-second-admin")].into();
    stage.world.save_organisation(&acme).await.unwrap();
    stage.keys_are_good();
    let alone = stage.post("acme-second-admin", JOBS, ask.clone()).await;
    assert_eq!(alone.status, StatusCode::OK, "it is a first word again: {}", alone.text);
    assert_eq!(stage.get("acme-second-admin", JOBS).await.json()["items"], json!([]));
    acme.admins.insert(parsed("acme-third-admin"));
    stage.world.save_organisation(&acme).await.unwrap();
    stage.keys_are_good();
    let agreed = stage.post("acme-third-admin", JOBS, ask).await;
    assert_eq!(agreed.status, StatusCode::ACCEPTED, "{}", agreed.text);
}

#[tokio::test]
async fn x4_a_page_of_backups_leads_to_the_next_whatever_signs_their_names_have() {
    let stage = active().await;
    let signs = "a-Z_0.9:b/c";
    for id in [signs, "b1", "b2"] {
        let backup = json!({
            "id": id, "takenAt": "2026-11-01T00:00:00Z", "expiresAt": "2027-11-01T00:00:00Z",
            "generation": 1, "holdsWrappedKeys": false,
        });
        let came = stage.post("system", BACKUPS, backup).await;
        assert_eq!(came.status, StatusCode::OK, "{}", came.text);
    }
    let (mut seen, mut path) = (Vec::new(), format!("{BACKUPS}?limit=1"));
    while seen.len() < 3 {
        let came = stage.get("acme-admin", &path).await;
        assert_eq!(came.status, StatusCode::OK, "{}", came.text);
        seen.push(came.json()["items"][0]["id"].as_str().unwrap().to_owned());
        let Some(next) = came.json()["nextCursor"].as_str().map(str::to_owned) else { break };
        path = format!("{BACKUPS}?limit=1&cursor={next}");
    }
    assert_eq!(seen, [signs, "b1", "b2"]);
}

#[tokio::test]
async fn x2_re_encryptions_are_listed_a_page_at_a_time() {
    let stage = active().await;
    let (first, location) = asked(&stage).await;
    let cancelled = stage.call("acme-admin", "POST", &format!("{location}/cancel"), None).await;
    assert_eq!(cancelled.status, StatusCode::ACCEPTED, "{}", cancelled.text);
    let now = stage.clock.advance(SignedDuration::from_secs(60));
    let policy = stored(&stage).await;
    let job = policy.reencryption.as_ref().unwrap().id;
    let ledger = String::new();
    let event = PolicyEvent::ReencryptionEnded { job, data_keys: 0, old_versions: None, ledger };
    let decision = decided(&policy, &event, &by_claviger(), now);
    stage.world.commit_policy(Some(&policy), &decision).await.unwrap();
    let (second, _) = asked(&stage).await;
    let page = stage.get("acme-admin", &format!("{JOBS}?limit=1")).await.json();
    assert_eq!((&page["items"][0]["id"], page["items"].as_array().unwrap().len()), (&second["id"], 1));
    let next = page["nextCursor"].as_str().unwrap();
    let rest = stage.get("acme-admin", &format!("{JOBS}?limit=1&cursor={next}")).await.json();
    assert_eq!((&rest["items"][0]["id"], &rest["nextCursor"]), (&first["id"], &Value::Null));
}

#[tokio::test]
async fn i4_what_was_decided_is_answered_whatever_the_store_does_afterwards() {
    let stage = active().await;
    stage.keys_are_good();
    stage.world.falls_ill_after_a_commit();
    let headers = [("idempotency-key", "one")];
    let came = stage.post_with("acme-admin", JOBS, &headers, json!({ "keys": keys(2) })).await;
    assert_eq!(came.status, StatusCode::ACCEPTED, "{}", came.text);
    let again = stage.post_with("acme-admin", JOBS, &headers, json!({ "keys": keys(2) })).await;
    assert_eq!((again.status, &again.text), (came.status, &came.text));
}
