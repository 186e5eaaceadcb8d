//! The client of the key broker against a server that answers what the test says.
#![cfg(feature = "aws")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use claviger_envelope::aws::Broker;
use claviger_envelope::source::{ProofResult, SourceError, Wanted};
use claviger_envelope::transport::seal_for;
use claviger_envelope::{InstanceName, KeySource};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use uuid::Uuid;

const ID: Uuid = Uuid::from_u128(42);

/// Answers one request and returns its head and body.
async fn server(
    answer: impl FnOnce(&Value) -> (u16, Value) + Send + 'static,
) -> (Broker, JoinHandle<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = Vec::new();
        let (head, body) = loop {
            let mut part = [0; 4096];
            let got = stream.read(&mut part).await.unwrap();
            bytes.extend_from_slice(&part[..got]);
            let text = String::from_utf8(bytes.clone()).unwrap();
            if let Some((head, body)) = text.split_once("\r\n\r\n")
                && let Ok(body) = serde_json::from_str::<Value>(body)
            {
                break (head.to_lowercase(), body);
            }
        };
        let (status, json) = answer(&body);
        let json = json.to_string();
        let response = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{json}", json.len());
        stream.write_all(response.as_bytes()).await.unwrap();
        (head, body)
    });
    let credentials = Credentials::new("AKIDEXAMPLE", "not-a-secret", Some("session".into()), None, "test");
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build();
    (Broker::new(&config, url).unwrap(), task)
}

fn acme() -> InstanceName {
    InstanceName { organisation: "acme".into(), site: "acme-eng".into(), app: "jira".into() }
}

fn data_key(key: &str) -> Value {
    json!({
        "policyId": "p", "organisationId": "o", "instanceId": "i", "shard": 3, "epoch": 5, "generation": 2,
        "dataKeyId": ID, "version": 4, "current": true, "key": key, "notAfter": 10, "provenUntil": 9, "later": 1
    })
}

#[tokio::test]
async fn a_request_is_signed_and_its_key_arrives_sealed() {
    let (broker, seen) = server(|body| {
        let sealed = seal_for(body["transportKey"].as_str().unwrap(), ID, &[7; 32]).unwrap();
        (200, data_key(&sealed))
    })
    .await;
    let key = broker.fetch(&acme(), Wanted::DataKey(ID)).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(key.key.expose(), &[7; 32]);
    assert_eq!((key.shard, key.epoch, key.generation, key.version), (3, 5, 2, 4));
    let (head, body) = seen.await.unwrap();
    assert!(head.starts_with("post /v1/data-keys "), "{head}");
    assert!(head.contains("/eu-central-1/lambda/aws4_request"), "{head}");
    assert!(head.contains("x-amz-security-token: session"), "{head}");
    assert_eq!(body["dataKeyId"], json!(ID));
    assert_eq!((&body["organisation"], &body["purpose"]), (&json!("acme"), &json!("records")));
}

#[tokio::test]
async fn a_key_in_the_clear_is_refused_and_not_shown() {
    let clear = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
    let (broker, _seen) = server(move |_| (200, data_key(clear))).await;
    match broker.fetch(&acme(), Wanted::Current { newer_than: None }).await {
        Err(SourceError::Unreachable(why)) => assert!(!why.contains("BwcH"), "{why}"),
        _ => panic!("a key in the clear was taken"),
    }
}

#[tokio::test]
async fn i2_only_the_broker_saying_so_is_a_suspension() {
    for (status, expected) in [
        (409, Some(SourceError::Suspended)),
        (404, Some(SourceError::NotFound)),
        (503, Some(SourceError::TemporarilyUnavailable)),
        (429, Some(SourceError::TemporarilyUnavailable)),
        (403, None),
        (500, None),
        (302, None),
    ] {
        let (broker, _seen) = server(move |_| (status, json!({}))).await;
        let Err(error) = broker.fetch(&acme(), Wanted::DataKey(ID)).await else { panic!("{status}") };
        match expected {
            Some(expected) => assert_eq!(error, expected),
            None => assert!(matches!(error, SourceError::Unreachable(_)), "{status} {error:?}"),
        }
    }
}

#[tokio::test]
async fn proofs_come_back_one_for_each_policy_and_nonsense_is_no_proof() {
    let (broker, seen) = server(|_| {
        (
            200,
            json!({"proofs": [
                {"policyId": "a", "result": "proven", "provenUntil": 77, "kmsCalls": 2},
                {"policyId": "b", "result": "suspended"},
                {"policyId": "c", "result": "perhaps", "provenUntil": 78},
                {"policyId": "d", "result": "proven"},
            ]}),
        )
    })
    .await;
    let proofs = broker.prove(&["a".into(), "b".into()]).await.unwrap();
    let results: Vec<_> = proofs.iter().map(|proof| proof.result).collect();
    use ProofResult::{Proven, Suspended, Unavailable};
    assert_eq!(results, [Proven, Suspended, Unavailable, Unavailable]);
    assert_eq!((proofs[0].proven_until, proofs[0].kms_calls, proofs[1].kms_calls), (77, 2, 0));
    assert_eq!(seen.await.unwrap().1, json!({"policies": ["a", "b"]}));
}
