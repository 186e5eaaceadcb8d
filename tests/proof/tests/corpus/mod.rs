//! What parsers are fed with: the samples of `events/`, and how one of them becomes something nearly right.

use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::Value;

/// How many inputs a target is fed: so many as a test run has time for, or `PROPTEST_CASES` of them.
pub fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// The sample events, and the bodies and details inside them.
#[allow(dead_code, reason = "not every test binary takes all of it")]
pub static CORPUS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../events");
    let mut found = Vec::new();
    for folder in std::fs::read_dir(root).unwrap() {
        for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            inner(&serde_json::from_str(&text).unwrap(), &mut found);
            found.push(text);
        }
    }
    assert!(found.len() > 50);
    found
});

/// Objects inside a sample, and texts that hold JSON.
#[allow(dead_code, reason = "as above")]
fn inner(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.push(value.to_string());
            fields.values().for_each(|value| inner(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| inner(value, found)),
        Value::String(text) if text.starts_with('{') => {
            if let Ok(value) = serde_json::from_str(text) {
                inner(&value, found);
            }
        }
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A sample with some of its bytes altered, doubled, cut or taken from another.
pub fn nearly(corpus: &'static [String]) -> impl Strategy<Value = String> {
    let change = (any::<prop::sample::Index>(), 0_u8..5, any::<char>(), any::<prop::sample::Index>());
    (any::<prop::sample::Index>(), prop::collection::vec(change, 0..6), any::<prop::sample::Index>())
        .prop_map(move |(sample, changes, other)| {
            let mut text: Vec<char> = sample.get(corpus).chars().collect();
            let other: Vec<char> = other.get(corpus).chars().collect();
            for (place, kind, letter, end) in changes {
                if text.is_empty() {
                    break;
                }
                let place = place.index(text.len());
                match kind {
                    0 => text[place] = letter,
                    1 => text.insert(place, letter),
                    2 => text.truncate(place),
                    3 => {
                        text.remove(place);
                    }
                    _ => text.splice(place.., other[end.index(other.len())..].iter().copied()).for_each(drop),
                }
            }
            text.into_iter().collect()
        })
}
