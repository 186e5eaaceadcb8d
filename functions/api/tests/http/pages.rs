//! Lists, a page at a time.

use std::collections::BTreeSet;

use http::StatusCode;
use serde_json::json;

use crate::stage::{Stage, stage};

async fn with_sites(count: usize) -> Stage {
    let stage = stage().await;
    for n in 0..count {
        let sent = json!({ "site": format!("site-{n}"), "app": "confluence" });
        let came = stage.post("system", "organizations/acme/app-instances/direct", sent).await;
        assert_eq!(came.status, StatusCode::CREATED, "{}", came.text);
    }
    stage
}

#[tokio::test]
async fn pages_show_everything_once() {
    let stage = with_sites(7).await;
    let (mut seen, mut cursor) = (BTreeSet::new(), String::new());
    for _ in 0..4 {
        let path = format!("organizations/acme/app-instances?limit=2&cursor={cursor}");
        let page = stage.get("acme-admin", &path).await.json();
        for item in page["items"].as_array().unwrap() {
            assert_eq!(item["status"], "not-encrypted");
            assert_eq!(item["coverage"], "not-covered");
            assert!(seen.insert(item["site"].as_str().unwrap().to_owned()), "{item} is shown twice");
        }
        match page["nextCursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(seen.len(), 7);
}

#[tokio::test]
async fn i7_a_cursor_of_another_organisation_is_refused() {
    let stage = with_sites(3).await;
    let page = stage.get("acme-admin", "organizations/acme/app-instances?limit=1").await.json();
    let cursor = page["nextCursor"].as_str().unwrap();
    for path in ["app-instances", "tickets", "audit", "access-requests", "reencryptions", "backups"] {
        let came = stage.get("globex-admin", &format!("organizations/globex/{path}?cursor={cursor}")).await;
        assert_eq!(came.fields(), ["cursor"], "{path}");
    }
}

#[tokio::test]
async fn a_limit_is_1_to_200() {
    let stage = with_sites(1).await;
    for limit in ["0", "201", "-1", "ten", "1.5", "99999999999"] {
        for path in ["app-instances", "tickets", "audit", "access-requests", "reencryptions", "backups"] {
            let came = stage.get("acme-admin", &format!("organizations/acme/{path}?limit={limit}")).await;
            assert_eq!(came.fields(), ["limit"], "{path} {limit}");
        }
    }
    for limit in ["1", "200", ""] {
        let came = stage.get("support", &format!("support/requests?limit={limit}")).await;
        assert_eq!(came.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn k3_the_audit_log_is_lines_with_a_link_to_the_rest() {
    let stage = with_sites(5).await;
    let came = stage.get("acme-auditor", "organizations/acme/audit").await;
    assert_eq!(came.headers["content-type"], "application/x-ndjson; charset=utf-8");
    assert_eq!(came.text.lines().count(), 5);
    assert!(!came.headers.contains_key("link"));
    let came = stage.get("acme-auditor", "organizations/acme/audit?limit=3").await;
    assert_eq!(came.text.lines().count(), 3);
    let link = came.headers["link"].to_str().unwrap();
    let rest = link.strip_prefix("</v1/").and_then(|link| link.strip_suffix(">; rel=\"next\"")).unwrap();
    let came = stage.get("acme-auditor", rest).await;
    assert_eq!(came.text.lines().count(), 2);
}
