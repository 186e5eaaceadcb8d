//! The app's two calls.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use claviger_envelope::{Context, Envelope, EnvelopeError};

use crate::cache::RecentNotes;
use crate::problem::Trouble;
use crate::store::{NotesTable, StoreError};

/// The longest note: an item of the table holds 400 KB.
const LONGEST: usize = 256 * 1024;
/// The app, as claviger's catalogue has it.
const APP: &str = "jira";

#[derive(Clone)]
struct Notes {
    envelope: Envelope,
    table: NotesTable,
    recent: Arc<RecentNotes>,
}

/// The app's routes.
pub fn router(envelope: Envelope, table: NotesTable, recent: Arc<RecentNotes>) -> Router {
    Router::new()
        .route("/{org}/{site}/notes/{id}", get(read).put(write))
        .route("/health", get(|| async { "ok" }))
        .layer(DefaultBodyLimit::max(LONGEST + 1024))
        .with_state(Notes { envelope, table, recent })
}

async fn write(
    State(notes): State<Notes>,
    Path((org, site, id)): Path<(String, String, String)>,
    body: Bytes,
) -> Result<StatusCode, Trouble> {
    if body.len() > LONGEST {
        return Err(Trouble::TooLarge);
    }
    let instance = notes.envelope.instance(&org, &site, APP);
    let context = Context::new("note", &id);
    let mut record = instance.encrypt(&context, &body).await?;
    let mut stored = notes.table.put(&instance, &id, &record).await;
    if let Err(StoreError::NotThis(EnvelopeError::GenerationTooOld { .. })) = stored {
        // The generation changed between the two lines above; now this process knows.
        record = instance.encrypt(&context, &body).await?;
        stored = notes.table.put(&instance, &id, &record).await;
    }
    stored?;
    notes.recent.keep(&org, &site, &id, &record);
    Ok(StatusCode::NO_CONTENT)
}

async fn read(
    State(notes): State<Notes>,
    Path((org, site, id)): Path<(String, String, String)>,
) -> Result<Vec<u8>, Trouble> {
    // The library decides, each time: a record that is at hand is readable only while its key may be used.
    let (instance, context) = (notes.envelope.instance(&org, &site, APP), Context::new("note", &id));
    if let Some(record) = notes.recent.record(&org, &site, &id) {
        match instance.decrypt(&context, &record).await {
            // Kept since before a re-encryption that is over: the table has it under a newer key.
            Err(EnvelopeError::UnknownDataKey) => {}
            answer => return Ok(answer?),
        }
    }
    let record = notes.table.get(&org, &site, &id).await?.ok_or(Trouble::NoNote)?;
    notes.recent.keep(&org, &site, &id, &record);
    Ok(instance.decrypt(&context, &record).await?)
}
