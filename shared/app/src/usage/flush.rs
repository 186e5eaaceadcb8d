//! Adds what a process counted to what is stored.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::{StreamExt, stream};
use jiff::Timestamp;

use super::UsageMeter;
use super::meter::Outgoing;
use crate::ports::{Clock, Ids, StoreError, UsageRecords};

/// Organisations written in one go: a prober that watches 10,000 of them is through with them in a quarter of an hour
/// by less than that after each sweep.
const MOST: usize = 1000;
/// How many at once.
const AT_ONCE: usize = 32;

/// Writes counts. Where somebody waits, it is not called: not before a decision is committed, nor before a data key is
/// handed out.
#[derive(Clone, Copy)]
pub struct FlushUsage<'a> {
    /// What was counted.
    pub meter: &'a UsageMeter,
    /// Where it goes.
    pub records: &'a dyn UsageRecords,
    /// Identifiers.
    pub ids: &'a dyn Ids,
    /// The time.
    pub clock: &'a dyn Clock,
}

impl FlushUsage<'_> {
    /// Writes what is due, a bounded part of it. A failure is no failure of the caller's work.
    pub async fn due(&self) {
        self.flush(false, MOST).await;
    }

    /// Writes everything: the process ends.
    pub async fn all(&self) {
        self.flush(true, usize::MAX).await;
    }

    async fn flush(&self, all: bool, most: usize) {
        let now = self.clock.now();
        let taken = self.meter.take(now, all, most, || self.ids.random());
        let (stopped, failed) = (&AtomicBool::new(false), &AtomicU64::new(0));
        let writes = stream::iter(taken.deltas).map(|out| self.one(now, out, stopped, failed));
        writes.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
        let failed = failed.load(Ordering::Relaxed);
        if failed > 0 || taken.given_up > 0 {
            let given_up = taken.given_up;
            tracing::warn!(failed, given_up, "counts of KMS calls could not be written");
        }
    }

    async fn one(&self, now: Timestamp, out: Outgoing, stopped: &AtomicBool, failed: &AtomicU64) {
        let Outgoing { delta, tried_at } = out;
        // After one silence no other is waited for: a flush is a matter of a second at most.
        let answer = match stopped.load(Ordering::Relaxed) {
            true if tried_at.is_none() => Err(StoreError::Conflict),
            true => Err(StoreError::Unavailable { reason: "not tried".to_owned() }),
            false => self.records.add_usage(&delta).await,
        };
        match answer {
            Ok(()) => return,
            // Surely not written: another process was at it. Unless an earlier try was.
            Err(StoreError::Conflict) if tried_at.is_none() => self.meter.give_back(now, delta),
            Err(StoreError::Conflict | StoreError::Unavailable { .. }) => {
                stopped.store(true, Ordering::Relaxed);
                self.meter.unsure(tried_at.unwrap_or(now), delta);
            }
            // A request that cannot be made, or that DynamoDB will never take.
            Err(
                error @ (StoreError::Corrupt { .. }
                | StoreError::Changed
                | StoreError::DataKeysGone
                | StoreError::Taken { .. }),
            ) => {
                tracing::error!(organisation.id = %delta.organisation, %error, "counts of KMS calls are lost");
            }
        }
        failed.fetch_add(1, Ordering::Relaxed);
    }
}
