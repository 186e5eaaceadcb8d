//! The app's two calls.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use claviger_envelope::{Context, Envelope};

use crate::cache::RecentNotes;
use crate::problem::Trouble;
use crate::store::NotesTable;

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
    let record = instance.encrypt(&Context::new("note", &id), &body).await?;
    notes.table.put(&org, &site, &id, record.clone()).await?;
    notes.recent.keep(&org, &site, &id, &record);
    Ok(StatusCode::NO_CONTENT)
}

async fn read(
    State(notes): State<Notes>,
    Path((org, site, id)): Path<(String, String, String)>,
) -> Result<Vec<u8>, Trouble> {
    let record = match notes.recent.record(&org, &site, &id) {
        Some(record) => record,
        None => {
            let record = notes.table.get(&org, &site, &id).await?.ok_or(Trouble::NoNote)?;
            notes.recent.keep(&org, &site, &id, &record);
            record
        }
    };
    // The library decides, each time: a record that is at hand is readable only while its key may be used.
    let instance = notes.envelope.instance(&org, &site, APP);
    Ok(instance.decrypt(&Context::new("note", &id), &record).await?)
}
