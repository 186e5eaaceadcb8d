//! The console: a page that loads nothing from elsewhere and holds no data itself.

use std::collections::BTreeSet;

use axum::body::Body;
use http::Request;
use serde_json::Value;

use crate::stage::stage;
use crate::way::active;

#[tokio::test]
async fn the_console_is_served_to_anybody_and_loads_nothing_from_elsewhere() {
    let stage = stage().await;
    for (path, kind) in [
        ("/console", "text/html"),
        ("/console/app.js", "text/javascript"),
        ("/console/style.css", "text/css"),
    ] {
        let came = stage.send(Request::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!(came.status, 200, "{path}");
        assert!(came.headers["content-type"].to_str().unwrap().starts_with(kind), "{path}");
        let policy = came.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(!came.text.contains("http://") && !came.text.contains("https://"), "{path}");
    }
}

/// The names that the script reads of something: `policy.fence` is `fence` of `policy`.
fn read_of<'a>(script: &'a str, what: &str) -> BTreeSet<&'a str> {
    let read = format!("{what}.");
    let all = script.match_indices(&read).filter_map(|(at, read)| script.get(at + read.len()..));
    let name = |rest: &'a str| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        rest.get(..end)
    };
    all.filter_map(name).filter(|name| !name.is_empty()).collect()
}

#[tokio::test]
async fn the_console_reads_nothing_that_the_interface_does_not_answer() {
    let stage = active().await;
    let script = stage.send(Request::get("/console/app.js").body(Body::empty()).unwrap()).await.text;
    let policy = stage.get("acme-admin", "organizations/acme/encryption-policy").await.json();
    let has = |document: &Value, name: &str| document.get(name).is_some();
    for name in read_of(&script, " policy").into_iter().chain(read_of(&script, "(policy")) {
        assert!(has(&policy, name), "policy.{name}");
    }
    let of_key = read_of(&script, "[key").into_iter().chain(read_of(&script, "(key"));
    let of_key: BTreeSet<&str> = of_key.collect();
    assert!(of_key.len() > 5, "{of_key:?}");
    for name in of_key {
        assert!(has(&policy["keys"][0], name), "key.{name}");
    }
    let path = "organizations/acme/encryption-policy/keys/eu-west-1/preview";
    let preview = stage.get("acme-admin", path).await.json();
    for name in read_of(&script, "seen") {
        assert!(has(&preview, name), "seen.{name}");
    }
}
