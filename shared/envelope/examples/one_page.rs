//! The library on one page, with a cloud in memory: `cargo run -p claviger-envelope --example one_page`.
//! On AWS, `.fence(FenceTable::new(…))` and `.keys(Broker::new(…)?)` take the place of `cloud`.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use claviger_envelope::testing::TestCloud;
use claviger_envelope::{Closed, Config, Context, Envelope, EnvelopeError};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Once per process. From now on it reads the fence every 5 s.
    let cloud = TestCloud::new();
    let client = Envelope::builder()
        .fence(cloud.clone())
        .keys(cloud.clone())
        .config(Config::default())
        .on_close(|closed: &Closed| println!("closed: drop what is kept of {:?}", closed.instances))
        .start()?;

    // One handle per app instance; the context of a record is its type and its id.
    let acme = client.instance("acme", "acme-eng", "jira");
    let note = Context::new("note", "note-42");

    // One record. The first use fetches the key; every other takes less than a microsecond and no call.
    let record = acme.encrypt(&note, b"hello").await?;
    println!("5 bytes became {}: {:?}", record.len(), String::from_utf8(acme.decrypt(&note, &record).await?));

    // Into a buffer that is reused, without ever waiting.
    let mut buffer = Vec::new();
    match acme.try_encrypt_into(&note, b"hello again", &mut buffer) {
        Err(EnvelopeError::NotCached) => acme.encrypt_into(&note, b"hello again", &mut buffer).await?,
        other => other?,
    }

    // Many at once: all of them, or an error that says which one.
    let sealed = acme.encrypt_batch(&[(note, b"one"), (Context::new("note", "note-43"), b"two")]).await?;
    let page: Vec<_> =
        [note, Context::new("note", "note-43")].into_iter().zip(sealed.iter().map(Vec::as_slice)).collect();
    println!("a page of {} records", acme.decrypt_batch(&page).await?.len());

    // Large objects, chunk by chunk.
    let mut object = acme.encrypt_stream(&Context::new("attachment", "a-1")).await?;
    let mut stored = object.header().to_vec();
    for part in [[1_u8; 50_000], [2; 50_000]] {
        object.update(&part, &mut stored).await?;
    }
    object.finish(&mut stored).await?;
    println!("100000 bytes in chunks: {}", stored.len());

    // A record of somebody else, or of another place, is refused; each error has a remedy.
    if let Err(error) = acme.decrypt(&Context::new("note", "note-43"), &record).await {
        println!("{} ({}): {}", error, error.slug(), error.help());
    }

    // The customer takes its keys away: with the next read of the fence nothing comes out any more.
    cloud.close("acme");
    client.poll().await?;
    if let Err(error) = acme.decrypt(&note, &record).await {
        println!("{} ({}), retryable: {}", error, error.slug(), error.retryable());
    }
    let metrics = client.metrics();
    println!("{} hits, {} misses, refusals {:?}", metrics.hits, metrics.misses, metrics.refusals);
    Ok(())
}
