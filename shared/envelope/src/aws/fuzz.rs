//! What comes from outside, nearly right: the broker's answers and the fence's items of `tests/corpus`, altered, cut and
//! spliced. None panics, each outcome is one of a closed list, and a key that was changed on its way is refused.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[path = "../../../../tests/proof/tests/corpus/mod.rs"]
mod corpus;

use std::path::Path;
use std::sync::LazyLock;

use aws_sdk_dynamodb::types::AttributeValue;
use proptest::prelude::*;
use serde_json::Value;
use uuid::Uuid;

use super::broker::{answered, data_key, proofs};
use super::fence_table::{Item, read_item};
use crate::fence::{FenceSnapshot, FencedPolicy};
use crate::source::{ProofResult, SourceError};
use crate::transport::{Opener, seal_for};
use corpus::{cases, nearly};

/// The data key of the samples.
const ID: Uuid = Uuid::from_u128(0x0000_002a_0000_4000_8000_0000_0000_002a);
const KEY: [u8; 32] = [7; 32];
/// What stands in the samples for the key that is sealed to a request.
const SEALED: &str = "SEALED";

fn samples(folder: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(folder);
    let files = std::fs::read_dir(folder).unwrap();
    files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect()
}

static ANSWERS: LazyLock<Vec<String>> = LazyLock::new(|| samples("broker"));
static ITEMS: LazyLock<Vec<String>> = LazyLock::new(|| samples("fence"));

/// An item as DynamoDB writes it; what is none of its kinds stands for a kind that nobody expects.
fn attribute(value: &Value) -> AttributeValue {
    let strange = AttributeValue::Bool(true);
    let Some((kind, value)) = value.as_object().and_then(|value| value.iter().next()) else {
        return strange;
    };
    match (kind.as_str(), value) {
        ("S", Value::String(text)) => AttributeValue::S(text.clone()),
        ("N", Value::String(text)) => AttributeValue::N(text.clone()),
        ("SS", Value::Array(all)) => {
            AttributeValue::Ss(all.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect())
        }
        ("L", Value::Array(all)) => AttributeValue::L(all.iter().map(attribute).collect()),
        ("NULL", _) => AttributeValue::Null(true),
        _ => strange,
    }
}

fn item(text: &str) -> Option<Item> {
    let fields = serde_json::from_str::<Value>(text).ok()?;
    Some(fields.as_object()?.iter().map(|(name, value)| (name.clone(), attribute(value))).collect())
}

/// Whether an item says that it is not closed: no list of causes, or an empty one.
fn says_nothing_of_causes(item: &Item) -> bool {
    match item.get("causes") {
        None | Some(AttributeValue::Null(_)) => true,
        Some(AttributeValue::Ss(causes)) => causes.is_empty(),
        Some(AttributeValue::L(causes)) => causes.is_empty(),
        Some(_) => false,
    }
}

/// Each status has its one meaning, whatever the body says; of nonsense nothing is known, and its text is not shown.
fn is_of_the_list(status: u16, error: &SourceError, secret: &str) -> bool {
    match (status, error) {
        (404, SourceError::NotFound)
        | (409, SourceError::Suspended)
        | (429 | 503, SourceError::TemporarilyUnavailable) => true,
        (404 | 409 | 429 | 503, _) => false,
        (_, SourceError::Unreachable(why)) => !why.contains(secret) && why.len() < 200,
        (_, SourceError::NotFound | SourceError::Suspended | SourceError::TemporarilyUnavailable) => false,
    }
}

fn statuses() -> impl Strategy<Value = u16> {
    let known = prop::sample::select(vec![403_u16, 404, 409, 429, 500, 503]);
    prop_oneof![4 => Just(200_u16), 2 => known, 1 => any::<u16>()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(1_500).min(20_000), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn i7_fuzz_an_answer_of_the_broker_gives_the_key_that_was_sealed_or_none(
        text in nearly(&ANSWERS), status in statuses(),
    ) {
        let opener = Opener::new().unwrap();
        let sealed = seal_for(&opener.transport_key(), ID, &KEY).unwrap();
        let body = text.replace(SEALED, &sealed).into_bytes();
        match answered(status, body).and_then(|body| data_key(&body, opener)) {
            Ok(key) => {
                prop_assert_eq!((status, key.data_key_id), (200, ID));
                prop_assert_eq!(key.key.expose(), &KEY);
            }
            Err(error) => prop_assert!(is_of_the_list(status, &error, &sealed[..12]), "{error:?}"),
        }
    }

    #[test]
    fn i7_fuzz_a_sealed_key_that_was_changed_is_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..5, any::<char>()), 1..4),
        bits in any::<prop::sample::Index>(),
    ) {
        let opener = Opener::new().unwrap();
        let sealed = seal_for(&opener.transport_key(), ID, &KEY).unwrap();
        let mut text: Vec<char> = sealed.chars().collect();
        for (at, kind, letter) in changes {
            let at = at.index(text.len().max(1)).min(text.len().saturating_sub(1));
            match kind {
                _ if text.is_empty() => {}
                0 => text[at] = letter,
                1 => text.insert(at, letter),
                2 => text.truncate(at),
                3 => text[at..].reverse(),
                _ => drop(text.remove(at)),
            }
        }
        let changed: String = text.into_iter().collect();
        prop_assert_eq!(opener.open(&changed, ID).is_ok(), changed == sealed);
        // One bit of it, in base64 that is right.
        let opener = Opener::new().unwrap();
        let sealed = seal_for(&opener.transport_key(), ID, &KEY).unwrap();
        let mut bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, &sealed).unwrap();
        let bit = bits.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let changed = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &bytes);
        prop_assert!(opener.open(&changed, ID).is_err());
    }

    #[test]
    fn i7_fuzz_a_key_is_sealed_to_a_transport_key_or_to_nothing(text in any::<String>(), bytes in any::<[u8; 32]>()) {
        // Text that is none is refused; a point that is none, too.
        prop_assert!(seal_for(&text, ID, &KEY).is_err() || text.len() == 44);
        let point = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes);
        let _ = seal_for(&point, ID, &KEY);
        prop_assert!(seal_for(&base64::Engine::encode(&base64::engine::general_purpose::STANDARD, [0; 32]), ID, &KEY).is_err());
    }

    #[test]
    fn i3_fuzz_nothing_is_proven_that_the_broker_does_not_say_is(text in nearly(&ANSWERS), status in statuses()) {
        match answered(status, text.clone().into_bytes()).and_then(|body| proofs(&body)) {
            Ok(found) => {
                prop_assert_eq!(status, 200);
                let said: Value = match serde_json::from_str(&text) {
                    Ok(said) => said,
                    // A number beyond all floats in a field that nobody reads: `Value` reads every field.
                    Err(error) => {
                        prop_assert!(error.to_string().starts_with("number out of range"), "{error}");
                        return Ok(());
                    }
                };
                // The last of two fields with a name counts for `said`; then the answer is refused.
                let said = said["proofs"].as_array().unwrap();
                prop_assert_eq!(said.len(), found.len());
                for (said, proof) in said.iter().zip(&found) {
                    prop_assert_eq!(said["policyId"].as_str(), Some(proof.policy_id.as_str()));
                    let proven = said["result"] == "proven" && said["provenUntil"].is_i64();
                    prop_assert_eq!(proof.result == ProofResult::Proven, proven);
                    prop_assert_eq!(proof.result == ProofResult::Suspended, said["result"] == "suspended");
                }
            }
            Err(error) => prop_assert!(is_of_the_list(status, &error, "policyId"), "{error:?}"),
        }
    }

    #[test]
    fn i1_fuzz_an_item_of_the_fence_is_read_as_it_stands_or_fails_the_read(text in nearly(&ITEMS)) {
        let Some(item) = item(&text) else { return Ok(()) };
        let mut snapshot = FenceSnapshot::default();
        let read = read_item(&item, &mut snapshot);
        let name = item.get("item").and_then(|name| name.as_s().ok());
        match (&read, name) {
            (Err(why), _) => prop_assert!(!why.is_empty() && snapshot == FenceSnapshot::default()),
            (Ok(()), None) => prop_assert!(false, "an item without a name was read"),
            (Ok(()), Some(name)) => {
                let of_policy = name.starts_with("policy#");
                let of_shard = name.starts_with("shard#");
                prop_assert_eq!(snapshot.policies.len(), usize::from(of_policy));
                prop_assert_eq!(snapshot.shards.len(), usize::from(of_shard));
                if let [FencedPolicy { closed, policy_id, .. }] = snapshot.policies.as_slice() {
                    prop_assert_eq!(*closed, !says_nothing_of_causes(&item));
                    prop_assert_eq!(Some(policy_id.as_str()), name.strip_prefix("policy#"));
                }
            }
        }
    }
}

#[test]
fn fuzz_the_samples_themselves_are_read() {
    let sealed_keys = ANSWERS.iter().filter(|text| {
        let opener = Opener::new().unwrap();
        let sealed = seal_for(&opener.transport_key(), ID, &KEY).unwrap();
        data_key(text.replace(SEALED, &sealed).as_bytes(), opener).is_ok()
    });
    assert_eq!(sealed_keys.count(), 2);
    assert_eq!(ANSWERS.iter().filter(|text| proofs(text.as_bytes()).is_ok()).count(), 1);
    let mut snapshot = FenceSnapshot::default();
    for text in ITEMS.iter() {
        assert_eq!(read_item(&item(text).unwrap(), &mut snapshot), Ok(()), "{text}");
    }
    assert_eq!((snapshot.policies.len(), snapshot.shards.len()), (3, 2));
    assert_eq!(snapshot.policies.iter().filter(|policy| policy.closed).count(), 2);
}
