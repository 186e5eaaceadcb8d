//! Every file of `vectors/` is a test, and the library's own records are among them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "support/vector.rs"]
mod vector;

use claviger_envelope::format::STREAM_HEADER_LEN;
use claviger_envelope::{Context, EnvelopeError, Header, generation_of, header_digest};
use proptest::prelude::*;
use uuid::Uuid;
use vector::{Vector, folder};

async fn read(vector: &Vector) -> Result<Vec<u8>, EnvelopeError> {
    let instance = vector.instance();
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
        // Those of others, who know nothing of records, are read by the tests of the cipher.
        if path.file_name().unwrap().as_encoded_bytes().starts_with(b"published-") {
            continue;
        }
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
        let mut vector = Vector::read("accept-a-short-record.json");
        bytes[0] = if stream { 2 } else { 1 };
        bytes[1..17].copy_from_slice(Uuid::parse_str(&vector.keys[0].data_key_id).unwrap().as_bytes());
        bytes[17..21].copy_from_slice(&[0, 0, 0, 1]);
        vector.record = hex::encode(&bytes);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        prop_assert!(runtime.block_on(read(&vector)).is_err());
    }
}
