//! Every role at every call of its own organisation, another's, and one that is not there (E3, S1, I7).

use claviger_domain::authorisation::{CALLS, Call};
use http::StatusCode;
use serde_json::{Value, json};

use crate::stage::{Came, Stage, stage};

const ID: &str = "00000000-0000-4000-8000-0000000000aa";

/// Method, path and body of a call; `None` for the organisation where the call names none.
fn request(call: Call, org: &str) -> (&'static str, String, Option<Value>) {
    let of = |rest: &str| format!("organizations/{org}{rest}");
    match call {
        Call::PutOrganisation => ("PUT", of(""), Some(json!({}))),
        Call::Enrol => ("POST", of("/encryption-policy"), Some(json!({}))),
        Call::GetPolicy => ("GET", of("/encryption-policy"), None),
        Call::ValidatePolicy => ("POST", of("/encryption-policy/validate"), Some(json!({}))),
        Call::GetKeyPolicy => ("GET", of("/key-policy"), None),
        Call::RequestInstance => ("POST", of("/app-instances"), Some(json!({}))),
        Call::ListInstances => ("GET", of("/app-instances"), None),
        Call::AddInstanceDirectly => ("POST", of("/app-instances/direct"), Some(json!({}))),
        Call::AcknowledgeOrder => {
            let sent = json!({ "epoch": 1, "evicted": 0 });
            ("POST", of(&format!("/app-instances/{ID}/acknowledge")), Some(sent))
        }
        Call::ListTickets => ("GET", of("/tickets"), None),
        Call::CommentTicket => ("POST", of(&format!("/tickets/{ID}/comments")), Some(json!({ "body": "x" }))),
        Call::RequestRestoration => ("POST", of("/restorations"), Some(json!({ "ticketId": ID }))),
        Call::ReadAudit => ("GET", of("/audit"), None),
        Call::ReadUsage => ("GET", of("/usage"), None),
        Call::ListAccessRequests => ("GET", of("/access-requests"), None),
        Call::AnswerAccessRequest => ("POST", of(&format!("/access-requests/{ID}/accept")), None),
        Call::PublishTemplate => ("POST", "support/key-policy-templates".to_owned(), Some(json!({}))),
        Call::ListSupportRequests => ("GET", "support/requests".to_owned(), None),
        Call::DecideSupportRequest => ("POST", format!("support/requests/{ID}/approve"), None),
        Call::ReplaceKey => ("POST", of("/encryption-policy/keys/eu-west-1/replace"), Some(json!({}))),
        Call::PreviewRevocation => ("GET", of("/encryption-policy/keys/eu-west-1/preview"), None),
        Call::CloseOrganisation => ("POST", of("/encryption-policy/close"), Some(json!({}))),
        Call::ReadErasure => ("GET", of("/encryption-policy/erasure-statement"), None),
        Call::RequestReencryption => ("POST", of("/reencryptions"), Some(json!({}))),
        Call::SeeReencryption => ("GET", of(&format!("/reencryptions/{ID}")), None),
        Call::SteerReencryption => ("POST", of(&format!("/reencryptions/{ID}/pause")), None),
        Call::RegisterBackup => ("POST", of("/backups"), Some(json!({}))),
        Call::ListBackups => ("GET", of("/backups"), None),
        Call::RenameSite => ("POST", of("/sites/eng/rename"), Some(json!({}))),
        Call::DeleteSite => ("POST", of("/sites/eng/delete"), None),
        Call::ListOverdueOrders => ("GET", "support/overdue-orders".to_owned(), None),
        Call::SuspendOrganisation => ("POST", format!("support/{}", of("/suspend")), Some(json!({}))),
        Call::LiftSuspension => ("POST", format!("support/{}", of("/lift")), Some(json!({}))),
        Call::CarryOutRestoration => {
            ("POST", format!("support/{}", of("/restorations")), Some(json!({ "ticketId": ID })))
        }
    }
}

/// Who may, word for word as the table of the interface has it.
fn allowed(call: Call) -> &'static [&'static str] {
    match call {
        Call::PutOrganisation
        | Call::AddInstanceDirectly
        | Call::AcknowledgeOrder
        | Call::RegisterBackup
        | Call::RenameSite
        | Call::DeleteSite => &["system"],
        Call::ListBackups => &["system", "acme-admin", "acme-auditor"],
        Call::Enrol
        | Call::ValidatePolicy
        | Call::RequestInstance
        | Call::RequestRestoration
        | Call::ListAccessRequests
        | Call::AnswerAccessRequest => &["acme-admin"],
        Call::GetPolicy | Call::ListInstances | Call::ListTickets | Call::SeeReencryption => {
            &["acme-admin", "acme-auditor", "support"]
        }
        Call::ReplaceKey | Call::CloseOrganisation | Call::RequestReencryption | Call::SteerReencryption => {
            &["acme-admin"]
        }
        Call::GetKeyPolicy
        | Call::ReadAudit
        | Call::ReadUsage
        | Call::PreviewRevocation
        | Call::ReadErasure => &["acme-admin", "acme-auditor"],
        Call::CommentTicket => &["acme-admin", "support"],
        Call::ListSupportRequests
        | Call::DecideSupportRequest
        | Call::ListOverdueOrders
        | Call::PublishTemplate
        | Call::SuspendOrganisation
        | Call::LiftSuspension
        | Call::CarryOutRestoration => &["support"],
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Entered,
    Forbidden,
    NothingHere,
}

fn outcome(came: &Came) -> Outcome {
    let problem: Value = serde_json::from_str(&came.text).unwrap_or_default();
    match came.status {
        StatusCode::FORBIDDEN => Outcome::Forbidden,
        // What is missing inside the organisation says what it is; what one may not know says nothing.
        StatusCode::NOT_FOUND if problem["detail"] == "there is nothing here for you" => Outcome::NothingHere,
        StatusCode::UNAUTHORIZED => panic!("the caller is known: {problem}"),
        status => {
            assert!(!status.is_server_error(), "{problem}");
            Outcome::Entered
        }
    }
}

async fn ask(stage: &Stage, who: &str, call: Call, org: &str) -> Outcome {
    let (method, path, body) = request(call, org);
    outcome(&stage.call(who, method, &path, body).await)
}

#[tokio::test]
async fn i7_every_role_at_every_call_of_its_own_another_and_an_unknown_organisation() {
    let stage = stage().await;
    let people = ["acme-admin", "acme-auditor", "nobody"];
    for call in CALLS {
        let names_none = matches!(
            call,
            Call::ListSupportRequests
                | Call::DecideSupportRequest
                | Call::ListOverdueOrders
                | Call::PublishTemplate
        );
        for who in ["acme-admin", "acme-auditor", "nobody", "support", "system"] {
            let may = allowed(call).contains(&who);
            for org in ["acme", "globex", "nowhere", "NOT A NAME"] {
                let encoded = org.replace(' ', "%20");
                let expected = match (org, may) {
                    _ if names_none => {
                        if may {
                            Outcome::Entered
                        } else {
                            Outcome::Forbidden
                        }
                    }
                    ("acme", true) => Outcome::Entered,
                    // A stranger, and anybody at a foreign organisation, learns nothing.
                    ("acme", false) if who == "nobody" => Outcome::NothingHere,
                    ("acme", false) => Outcome::Forbidden,
                    (_, _) if people.contains(&who) => Outcome::NothingHere,
                    ("globex", true) => Outcome::Entered,
                    (_, true) if call == Call::PutOrganisation => Outcome::Entered,
                    ("NOT A NAME", false) if call != Call::PutOrganisation => Outcome::NothingHere,
                    (_, false) => Outcome::Forbidden,
                    (_, true) => Outcome::NothingHere,
                };
                let seen = ask(&stage, who, call, &encoded).await;
                assert_eq!(seen, expected, "{who} at {call:?} of {org}");
            }
        }
    }
}

#[tokio::test]
async fn nobody_gets_in_without_a_token_that_holds() {
    let stage = stage().await;
    for call in CALLS {
        for (who, status) in [("", 401), ("forged", 401), ("away", 503)] {
            for org in ["acme", "nowhere"] {
                let (method, path, body) = request(call, org);
                let came = stage.call(who, method, &path, body).await;
                assert_eq!(came.status.as_u16(), status, "{who:?} at {call:?}: {}", came.text);
                assert!(came.headers.contains_key(if status == 401 {
                    "www-authenticate"
                } else {
                    "retry-after"
                }));
            }
        }
    }
}

#[tokio::test]
async fn e3_an_admin_that_the_feed_names_no_longer_is_a_stranger_at_the_next_call() {
    let stage = stage().await;
    let path = "organizations/acme/app-instances";
    assert_eq!(stage.get("acme-admin", path).await.status, StatusCode::OK);
    let feed = json!({ "plans": {}, "government": false, "admins": ["eve"], "auditors": [] });
    let came = stage.call("system", "PUT", "organizations/acme", Some(feed)).await;
    assert_eq!(came.status, StatusCode::OK);
    assert_eq!(stage.get("acme-admin", path).await.status, StatusCode::NOT_FOUND);
    assert_eq!(stage.get("eve", path).await.status, StatusCode::OK);
}

#[tokio::test]
async fn e3_support_cannot_make_itself_an_admin_not_even_by_a_feed_that_names_it() {
    let stage = stage().await;
    let naming = |who: &str| json!({ "plans": {}, "government": false, "admins": [who], "auditors": [] });
    for who in ["support", "acme-admin", "acme-auditor", "nobody"] {
        let came = stage.call(who, "PUT", "organizations/acme", Some(naming(who))).await;
        assert!(
            [StatusCode::FORBIDDEN, StatusCode::NOT_FOUND].contains(&came.status),
            "{who}: {}",
            came.text
        );
    }
    // The records are not to be trusted with this either: the vendor's people stay the vendor's.
    let came = stage.call("system", "PUT", "organizations/acme", Some(naming("support"))).await;
    assert_eq!(came.status, StatusCode::OK, "{}", came.text);
    for (method, path, body) in [
        ("POST", "organizations/acme/encryption-policy", Some(json!({}))),
        ("POST", "organizations/acme/app-instances", Some(json!({}))),
        ("POST", "organizations/acme/restorations", Some(json!({ "ticketId": ID }))),
        ("GET", "organizations/acme/audit", None),
    ] {
        let came = stage.call("support", method, path, body).await;
        assert_eq!(came.status, StatusCode::FORBIDDEN, "{method} {path}: {}", came.text);
    }
}
