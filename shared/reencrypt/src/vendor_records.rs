//! The vendor's records, as the use case of a job works them: one rewriter an app.

use std::collections::BTreeMap;

use async_trait::async_trait;
use claviger_app::ports::Records;
use claviger_app::reencryption::{Counts, RecordBatch, RecordsError, ShardCheckpoint};
use claviger_domain::values::{App, OrganisationName};

use crate::{Mode, Place, RecordStoreError, RewriteError, Rewriter, Shard};

/// The records of every app that has a store.
pub struct VendorRecords {
    rewriters: BTreeMap<App, Rewriter>,
}

impl VendorRecords {
    /// Records that these rewriters reach.
    pub const fn new(rewriters: BTreeMap<App, Rewriter>) -> Self {
        Self { rewriters }
    }

    fn of(&self, app: &App) -> Result<&Rewriter, RecordsError> {
        self.rewriters.get(app).ok_or_else(|| RecordsError::NoStore { app: app.clone() })
    }
}

fn place(of: &ShardCheckpoint, organisation: &OrganisationName) -> Place {
    Place { organisation: organisation.to_string(), site: of.site.to_string(), app: of.app.to_string() }
}

#[async_trait]
impl Records for VendorRecords {
    async fn batch(
        &self,
        of: &ShardCheckpoint,
        organisation: &OrganisationName,
        generation: u32,
        scan: bool,
    ) -> Result<RecordBatch, RecordsError> {
        let shard = Shard { index: u32::from(of.place.index), of: u32::from(of.of) };
        let mode = if scan { Mode::Scan } else { Mode::Rewrite };
        let (place, cursor) = (place(of, organisation), of.cursor.as_deref());
        let batch = self.of(&of.app)?.batch(&place, shard, cursor, generation, mode).await.map_err(failed)?;
        let counts = Counts {
            seen: batch.seen,
            rewritten: batch.rewritten,
            current: batch.current,
            lost_races: batch.lost_races,
            old: batch.old,
            old_versions: batch.old_versions,
            bytes: batch.bytes,
        };
        Ok(RecordBatch { counts, next: batch.next })
    }

    async fn estimate(
        &self,
        of: &ShardCheckpoint,
        organisation: &OrganisationName,
    ) -> Result<Option<u64>, RecordsError> {
        self.of(&of.app)?.estimate(&place(of, organisation)).await.map_err(failed)
    }
}

fn failed(error: RewriteError) -> RecordsError {
    match error {
        RewriteError::Suspended => RecordsError::Suspended,
        RewriteError::TemporarilyUnavailable => RecordsError::TemporarilyUnavailable,
        RewriteError::Store(error @ (RecordStoreError::Throttled | RecordStoreError::Unavailable { .. })) => {
            RecordsError::Store { reason: error.to_string() }
        }
        // Rights or names are wrong: it does not heal by itself, so it is shown.
        RewriteError::Store(error @ RecordStoreError::Refused { .. }) => {
            RecordsError::Refused { reason: error.to_string() }
        }
        RewriteError::Unreadable { record, reason } => RecordsError::Unreadable { record, reason },
    }
}
