//! Requests that are nearly right, as bytes: paths, queries with cursors, headers and bodies, cut, spliced and altered.
//! Never a fault of ours; what is refused is a problem that helps, and repeats nothing secret.

use std::cell::Cell;

use axum::body::Body;
use http::Request;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use crate::stage::{Stage, enrolment, stage};

const BEARER: &str = "acme-admin";

/// Calls that are right: how, where, and with which body.
fn requests() -> Vec<(&'static str, String, String)> {
    let of = |rest: &str| format!("/v1/organizations/acme{rest}");
    let id = "00000000-0000-4000-8000-0000000000aa";
    let key = "arn:aws:kms:eu-west-1:222222222222:key/0000000a-0000-4000-8000-000000000009";
    let keys = json!([{ "region": "eu-west-1", "keyArn": key }]);
    let backup = json!({
        "id": "nightly-1", "takenAt": "2027-01-15T00:00:00Z", "expiresAt": "2027-02-15T00:00:00Z",
        "generation": 1, "holdsWrappedKeys": false,
    });
    let get = |path: String| ("GET", path, String::new());
    vec![
        ("POST", of("/encryption-policy"), enrolment("222222222222").to_string()),
        ("POST", of("/encryption-policy/validate"), enrolment("222222222222").to_string()),
        ("POST", of("/app-instances"), json!({ "site": "acme-eng", "app": "jira" }).to_string()),
        ("POST", of("/reencryptions"), json!({ "keys": keys, "depth": "rekey" }).to_string()),
        ("POST", of("/encryption-policy/migrate"), json!({ "keys": keys }).to_string()),
        ("POST", of("/backups"), backup.to_string()),
        ("POST", of("/restorations"), json!({ "ticketId": id, "intoDegraded": false }).to_string()),
        ("POST", of(&format!("/tickets/{id}/comments")), json!({ "body": "please" }).to_string()),
        ("POST", of(&format!("/reencryptions/{id}/pause")), String::new()),
        ("POST", of("/encryption-policy/keys/eu-west-1/replace"), json!({ "keyArn": key }).to_string()),
        get(of("/encryption-policy/keys/eu-west-1/preview")),
        get(of("/encryption-policy")),
        get(of("/key-policy")),
        get(of("/app-instances?limit=1&cursor=AAAAAAAAAAAAAAAAAAAAAGFjbWU")),
        get(of("/tickets?limit=200")),
        get(of("/audit?cursor=AAAAAAAAAAAAAAAAAAAAADE&limit=50")),
        get(of("/usage?month=2026-11")),
        get(of(&format!("/reencryptions/{id}"))),
        get(of("/access-requests")),
        get("/v1/catalogue".to_owned()),
        get("/v1/openapi.json".to_owned()),
    ]
}

/// A text with some of its characters altered, doubled, taken away or cut.
fn bent(text: &str, changes: &[(usize, u8, char)]) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    for (at, kind, letter) in changes {
        if letters.is_empty() {
            letters.push(*letter);
            continue;
        }
        let at = at % letters.len();
        match kind % 4 {
            0 => letters[at] = *letter,
            1 => letters.insert(at, *letter),
            2 => drop(letters.remove(at)),
            _ => letters.truncate(at),
        }
    }
    letters.into_iter().collect()
}

type Changes = Vec<(usize, u8, char)>;

fn changes(most: usize) -> impl Strategy<Value = Changes> {
    let letter = prop_oneof![3 => any::<char>(), 2 => prop::char::range(' ', '~')];
    let one = (any::<prop::sample::Index>(), any::<u8>(), letter);
    prop::collection::vec(one, 0..most).prop_map(|changes| {
        changes.into_iter().map(|(at, kind, letter)| (at.index(1 << 16), kind, letter)).collect()
    })
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(400)
}

#[test]
fn a_request_that_is_nearly_right_is_answered_or_refused_and_is_never_our_fault() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let requests = requests();
    let which = any::<prop::sample::Index>();
    let parts = (which, changes(4), changes(6), changes(3), any::<bool>());
    let mut runner =
        TestRunner::new(Config { cases: cases(), failure_persistence: None, ..Config::default() });
    let (sent, granted) = (Cell::new(0_u32), Cell::new(0_u32));
    let outcome = runner.run(&parts, |(which, path_changes, body_changes, header_changes, known)| {
        let (method, path, body) = &requests[which.index(requests.len())];
        let path = bent(path, &path_changes);
        let etag = bent("\"3\"", &header_changes);
        let bearer = if known { BEARER.to_owned() } else { bent(BEARER, &header_changes) };
        let request = Request::builder()
            .method(*method)
            .uri(&path)
            .header("authorization", format!("Bearer {bearer}"))
            .header("idempotency-key", bent("k-1", &header_changes));
        let request = if known { request } else { request.header("if-match", etag) };
        // What is no request at all does not reach the function.
        let Ok(request) = request.body(Body::from(bent(body, &body_changes))) else { return Ok(()) };
        runtime.block_on(async {
            let stage: Stage = stage().await;
            stage.keys_are_good();
            let came = stage.unchecked(request).await;
            sent.set(sent.get() + 1);
            granted.set(granted.get() + u32::from(came.status.is_success()));
            prop_assert!(came.status.as_u16() < 500, "{method} {path}: {} {}", came.status, came.text);
            if came.status.is_client_error() && !came.text.is_empty() {
                let problem = came.json();
                for part in ["type", "title", "code", "help"] {
                    prop_assert!(problem[part].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
                }
            }
            Ok(())
        })
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    let (sent, granted) = (sent.get(), granted.get());
    assert!(sent > cases() / 4 && granted > 0, "{granted} of {sent} were granted");
}
