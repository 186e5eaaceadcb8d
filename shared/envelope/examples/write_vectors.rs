//! Writes records of the library as vectors, which the second implementation in `tests/envelope_py` reads:
//! `cargo run -p claviger-envelope --example write_vectors`. Their nonces are random, so every run changes them.
#![allow(clippy::unwrap_used, reason = "a tool that has nothing to save")]

#[path = "../tests/support/vector.rs"]
mod vector;

use claviger_envelope::Context;
use vector::{Vector, folder};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let base = Vector::read("accept-a-short-record.json");
    let instance = base.instance();
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
