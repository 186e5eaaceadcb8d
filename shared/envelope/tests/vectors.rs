//! Every file of `vectors/` is a test, and the library's own records are among them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use async_trait::async_trait;
use claviger_envelope::fence::{FenceError, FenceReader, WatchedShard};
use claviger_envelope::format::STREAM_HEADER_LEN;
use claviger_envelope::source::{DataKey, Proof, SourceError, Wanted};
use claviger_envelope::{
    Context, Envelope, EnvelopeError, FenceSnapshot, Header, InstanceName, KeyBytes, KeySource,
    generation_of, header_digest,
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use uuid::Uuid;

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Key {
    data_key_id: String,
    generation: u32,
    key: String,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct VectorContext {
    organisation_id: String,
    instance_id: String,
    data_type: String,
    record_id: String,
}

#[derive(Clone, Serialize, Deserialize)]
struct Vector {
    what: String,
    keys: Vec<Key>,
    context: VectorContext,
    record: String,
    result: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    slug: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plaintext: Option<String>,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

struct Open;

#[async_trait]
impl FenceReader for Open {
    async fn read(&self) -> Result<FenceSnapshot, FenceError> {
        let shards = vec![WatchedShard { shard: 0, watched_until: i64::MAX, unproven: Vec::new() }];
        Ok(FenceSnapshot { policies: Vec::new(), shards })
    }
}

#[async_trait]
impl KeySource for Vector {
    async fn fetch(&self, _: &InstanceName, wanted: Wanted) -> Result<DataKey, SourceError> {
        let id = |key: &Key| Uuid::parse_str(&key.data_key_id).unwrap();
        let key = match wanted {
            Wanted::Current { .. } => self.keys.first(),
            Wanted::DataKey(wanted) => self.keys.iter().find(|key| id(key) == wanted),
        }
        .ok_or(SourceError::NotFound)?;
        Ok(DataKey {
            policy_id: "p".into(),
            organisation_id: self.context.organisation_id.clone(),
            instance_id: self.context.instance_id.clone(),
            shard: 0,
            epoch: 1,
            generation: key.generation,
            data_key_id: id(key),
            version: 1,
            current: false,
            key: KeyBytes::fill_with(|out| hex::decode_to_slice(&key.key, out)).unwrap(),
            not_after: i64::MAX,
            proven_until: i64::MAX,
            created_at: None,
            kms_calls: 0,
        })
    }

    async fn prove(&self, _: &[String]) -> Result<Vec<Proof>, SourceError> {
        Ok(Vec::new())
    }
}

async fn read(vector: &Vector) -> Result<Vec<u8>, EnvelopeError> {
    let client = Envelope::builder().fence(Open).keys(vector.clone()).manual().start().unwrap();
    let instance = client.instance("acme", "acme-eng", "jira");
    let context = Context::new(&vector.context.data_type, &vector.context.record_id);
    let record = hex::decode(&vector.record).unwrap();
    if record.first() != Some(&2) {
        return instance.decrypt(&context, &record).await;
    }
    let (header, body) = record.split_at(STREAM_HEADER_LEN.min(record.len()));
    let mut stream = instance.decrypt_stream(&context, header).await?;
    let mut out = Vec::new();
    stream.update(body, &mut out).await?;
    stream.finish(&mut out).await?;
    Ok(out)
}

#[tokio::test]
async fn the_library_agrees_with_every_vector() {
    let mut seen = 0;
    for file in std::fs::read_dir(folder()).unwrap() {
        let path = file.unwrap().path();
        let vector: Vector = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let answer = read(&vector).await;
        match vector.result.as_str() {
            "accept" => {
                assert_eq!(hex::encode(answer.unwrap()), vector.plaintext.unwrap(), "{}", path.display())
            }
            _ => assert_eq!(answer.unwrap_err().slug(), vector.slug.unwrap(), "{}", path.display()),
        }
        seen += 1;
    }
    assert!(seen > 40);
}

/// `cargo test -p claviger-envelope --test vectors -- --ignored` writes them anew.
#[tokio::test]
#[ignore = "writes files that the second implementation reads"]
async fn write_records_of_the_library_as_vectors() {
    let from = std::fs::read(folder().join("accept-a-short-record.json")).unwrap();
    let base: Vector = serde_json::from_slice(&from).unwrap();
    let client = Envelope::builder().fence(Open).keys(base.clone()).manual().start().unwrap();
    let instance = client.instance("acme", "acme-eng", "jira");
    let context = Context::new(&base.context.data_type, &base.context.record_id);
    for (name, plaintext) in [("empty", Vec::new()), ("short", b"hello".to_vec()), ("long", vec![7; 3000])] {
        let record = instance.encrypt(&context, &plaintext).await.unwrap();
        save(&base, name, &record, &plaintext);
    }
    let plaintext = b"a stream of the library".repeat(20);
    let mut stream = instance.encrypt_stream(&context).await.unwrap();
    let mut record = stream.header().to_vec();
    stream.update(&plaintext, &mut record).await.unwrap();
    stream.finish(&mut record).await.unwrap();
    save(&base, "stream", &record, &plaintext);
}

fn save(base: &Vector, name: &str, record: &[u8], plaintext: &[u8]) {
    let vector = Vector {
        what: "written by the Rust library with a random nonce".into(),
        record: hex::encode(record),
        plaintext: Some(hex::encode(plaintext)),
        ..base.clone()
    };
    let text = serde_json::to_string_pretty(&vector).unwrap() + "\n";
    std::fs::write(folder().join(format!("accept-written-by-the-library-{name}.json")), text).unwrap();
}

proptest! {
    #[test]
    fn no_bytes_whatever_make_the_parser_panic_or_a_record(bytes: Vec<u8>) {
        if let Ok(header) = Header::parse(&bytes) {
            prop_assert_eq!(generation_of(&bytes), Ok(header.generation));
            prop_assert!(header_digest(&bytes).is_ok());
        }
    }

    #[test]
    fn a_record_shaped_like_one_is_never_accepted(mut bytes in proptest::collection::vec(any::<u8>(), 77..300), stream: bool) {
        let from = std::fs::read(folder().join("accept-a-short-record.json")).unwrap();
        let mut vector: Vector = serde_json::from_slice(&from).unwrap();
        bytes[0] = if stream { 2 } else { 1 };
        bytes[1..17].copy_from_slice(Uuid::parse_str(&vector.keys[0].data_key_id).unwrap().as_bytes());
        bytes[17..21].copy_from_slice(&[0, 0, 0, 1]);
        vector.record = hex::encode(&bytes);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        prop_assert!(runtime.block_on(read(&vector)).is_err());
    }
}
