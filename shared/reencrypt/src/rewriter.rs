//! One batch after the other: read a page, seal anew what is old, write on the condition that nobody else did.

use crate::pace::{Pace, Patience};
use crate::store::{Place, RecordPage, RecordStore, RecordStoreError, Replaced, Shard, StoredRecord};
use claviger_envelope::format::OVERHEAD;
use claviger_envelope::{Context, Envelope, EnvelopeError, Instance, generation_of};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

/// What a batch is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Seal anew what is older than the wanted generation.
    Rewrite,
    /// Only count it.
    Scan,
}

/// What a batch found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Records of the page, old versions of objects not among them.
    pub seen: u64,
    /// Records that this batch has sealed anew.
    pub rewritten: u64,
    /// Records that were of the wanted generation already.
    pub current: u64,
    /// Records that the app wrote or deleted meanwhile. What it wrote counts when it is seen again.
    pub lost_races: u64,
    /// Records that are still older: all that a scan finds, none after a rewrite.
    pub old: u64,
    /// Old versions of objects under an older generation. They cannot be rewritten; they expire or are deleted.
    pub old_versions: u64,
    /// Bytes of the records that were rewritten.
    pub bytes: u64,
    /// Where the next batch begins; `None`: the shard is through.
    pub next: Option<String>,
}

/// Why a batch ended early. What it did until then stays done; it is repeated from its own cursor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// The organisation's policy is closed. Sticky until it is restored.
    #[error("the organisation's encryption policy is suspended")]
    Suspended,
    /// No key can be had, or none of the new generation. Heals by itself.
    #[error("keys are temporarily unavailable")]
    TemporarilyUnavailable,
    #[error("the record store failed")]
    Store(#[source] RecordStoreError),
    /// A record that cannot be moved. All others of its batch were; it is named, never passed over.
    #[error("record `{record}` cannot be read: {reason}")]
    Unreadable { record: String, reason: String },
}

impl From<RecordStoreError> for RewriteError {
    fn from(error: RecordStoreError) -> Self {
        Self::Store(error)
    }
}

/// Goes through the records of one store. Shared by as many shards as there are; the pace is one for all.
pub struct Rewriter {
    envelope: Envelope,
    store: Arc<dyn RecordStore>,
    pace: Pace,
}

impl Rewriter {
    #[must_use]
    pub fn new(envelope: Envelope, store: Arc<dyn RecordStore>) -> Self {
        Self { envelope, store, pace: Pace::default() }
    }

    /// About how many records a place has; `None` when nobody knows.
    ///
    /// # Errors
    /// `Store`.
    pub async fn estimate(&self, of: &Place) -> Result<Option<u64>, RewriteError> {
        Ok(self.store.estimate(of).await?)
    }

    /// One batch: a page from the cursor on. Doing it again, at any time and in any order, changes nothing that
    /// matters; dropping it half way leaves each record either as it was or sealed anew.
    ///
    /// # Errors
    /// See [`RewriteError`]. Repeat it from the same cursor.
    pub async fn batch(
        &self,
        of: &Place,
        shard: Shard,
        cursor: Option<&str>,
        generation: u32,
        mode: Mode,
    ) -> Result<Batch, RewriteError> {
        let mut patience = Patience::new(&self.pace);
        let page = self.page(of, shard, cursor, &mut patience).await?;
        let instance = self.envelope.instance(&of.organisation, &of.site, &of.app);
        let mut work = Work::of(&page, generation, mode);
        if !work.waiting.is_empty() {
            self.rewrite(&instance, generation, &mut work, &mut patience).await;
        }
        let batch = work.done()?;
        if patience.untried() {
            self.pace.went_well();
        }
        Ok(Batch { next: page.next, ..batch })
    }

    async fn page(
        &self,
        of: &Place,
        shard: Shard,
        cursor: Option<&str>,
        patience: &mut Patience<'_>,
    ) -> Result<RecordPage, RewriteError> {
        loop {
            let error = match self.store.page(of, shard, cursor, self.pace.page()).await {
                Ok(page) => return Ok(page),
                Err(error) => error,
            };
            if error != RecordStoreError::Throttled || !patience.slow_down().await {
                return Err(error.into());
            }
        }
    }

    /// Until nothing waits, or something is wrong that the other records have in common. What is under way is
    /// always waited for.
    async fn rewrite<'a>(
        &'a self,
        instance: &'a Instance,
        generation: u32,
        work: &mut Work<'a>,
        patience: &mut Patience<'_>,
    ) {
        let mut under_way = FuturesUnordered::<Write<'a>>::new();
        loop {
            let room = usize::try_from(self.pace.window()).unwrap_or(1);
            while under_way.len() < room
                && let Some(record) = work.next()
            {
                let mut write: Write<'a> = if record.bytes.len() < OVERHEAD {
                    Box::pin(self.fetch_and_replace(instance, generation, record))
                } else {
                    match reseal(instance, record, &record.bytes, generation).await {
                        Ok(new) => Box::pin(self.replace(record, new)),
                        Err(error) => {
                            work.settle(record, Err(error));
                            continue;
                        }
                    }
                };
                // A store that answers at once needs no queue.
                match poll_fn(|context| Poll::Ready(write.as_mut().poll(context))).await {
                    Poll::Ready((record, outcome)) => work.settle(record, outcome),
                    Poll::Pending => under_way.push(write),
                }
            }
            match under_way.next().await {
                Some((record, outcome)) => work.settle(record, outcome),
                None if work.throttled => {
                    work.throttled = false;
                    if !patience.slow_down().await {
                        work.halt(RewriteError::Store(RecordStoreError::Throttled));
                    }
                }
                None => return,
            }
        }
    }

    async fn replace<'a>(&self, record: &'a StoredRecord, new: Vec<u8>) -> Settled<'a> {
        let length = u64::try_from(new.len()).unwrap_or(u64::MAX);
        let outcome = match self.store.replace(record, new).await {
            Ok(Replaced::Done) => Ok(Outcome::Rewritten(length)),
            Ok(Replaced::Changed | Replaced::Gone) => Ok(Outcome::LostRace),
            Err(error) => Err(error.into()),
        };
        (record, outcome)
    }

    async fn fetch_and_replace<'a>(
        &self,
        instance: &Instance,
        generation: u32,
        record: &'a StoredRecord,
    ) -> Settled<'a> {
        let whole = match self.store.whole(record).await {
            Ok(Some(whole)) => whole,
            Ok(None) => return (record, Ok(Outcome::LostRace)),
            Err(error) => return (record, Err(error.into())),
        };
        match reseal(instance, record, &whole, generation).await {
            Ok(new) => self.replace(record, new).await,
            Err(error) => (record, Err(error)),
        }
    }
}

type Settled<'a> = (&'a StoredRecord, Result<Outcome, RewriteError>);
type Write<'a> = Pin<Box<dyn Future<Output = Settled<'a>> + Send + 'a>>;

enum Outcome {
    Rewritten(u64),
    LostRace,
}

/// What is left of a page, what came of the rest, and what stands in the way.
struct Work<'a> {
    waiting: VecDeque<&'a StoredRecord>,
    batch: Batch,
    throttled: bool,
    halted: Option<RewriteError>,
    unreadable: Option<RewriteError>,
}

impl<'a> Work<'a> {
    fn of(page: &'a RecordPage, generation: u32, mode: Mode) -> Self {
        let mut work = Self {
            waiting: VecDeque::with_capacity(page.records.len()),
            batch: Batch::default(),
            throttled: false,
            halted: None,
            unreadable: None,
        };
        for record in &page.records {
            work.batch.seen += u64::from(!record.noncurrent);
            match (generation_of(&record.bytes), record.noncurrent, mode) {
                (Err(error), _, _) => work.settle(record, Err(in_the_way(record, &error))),
                (Ok(of), noncurrent, _) if of >= generation => {
                    work.batch.current += u64::from(!noncurrent);
                }
                (Ok(_), true, _) => work.batch.old_versions += 1,
                (Ok(_), false, Mode::Scan) => work.batch.old += 1,
                (Ok(_), false, Mode::Rewrite) => work.waiting.push_back(record),
            }
        }
        work
    }

    /// The next record, unless the batch is to end or to slow down.
    fn next(&mut self) -> Option<&'a StoredRecord> {
        if self.throttled || self.halted.is_some() {
            return None;
        }
        self.waiting.pop_front()
    }

    fn settle(&mut self, record: &'a StoredRecord, outcome: Result<Outcome, RewriteError>) {
        match outcome {
            Ok(Outcome::Rewritten(bytes)) => {
                self.batch.rewritten += 1;
                self.batch.bytes += bytes;
            }
            Ok(Outcome::LostRace) => self.batch.lost_races += 1,
            Err(RewriteError::Store(RecordStoreError::Throttled)) => {
                self.throttled = true;
                self.waiting.push_front(record);
            }
            Err(error @ RewriteError::Unreadable { .. }) => {
                self.unreadable.get_or_insert(error);
            }
            Err(
                error @ (RewriteError::Suspended
                | RewriteError::TemporarilyUnavailable
                | RewriteError::Store(
                    RecordStoreError::Unavailable { .. } | RecordStoreError::Refused { .. },
                )),
            ) => self.halt(error),
        }
    }

    fn halt(&mut self, error: RewriteError) {
        self.throttled = false;
        self.halted.get_or_insert(error);
    }

    fn done(self) -> Result<Batch, RewriteError> {
        match self.halted.or(self.unreadable) {
            Some(error) => Err(error),
            None => Ok(self.batch),
        }
    }
}

async fn reseal(
    instance: &Instance,
    record: &StoredRecord,
    bytes: &[u8],
    generation: u32,
) -> Result<Vec<u8>, RewriteError> {
    let context = Context::new(&record.data_type, &record.record_id);
    instance.reseal(&context, bytes, generation).await.map_err(|error| in_the_way(record, &error))
}

/// What an error of the library means for the batch. What may heal, or concerns every record alike, halts it; what
/// lies in the record itself names the record.
fn in_the_way(record: &StoredRecord, error: &EnvelopeError) -> RewriteError {
    match error {
        EnvelopeError::Suspended => RewriteError::Suspended,
        EnvelopeError::TemporarilyUnavailable { .. }
        | EnvelopeError::NotCached
        | EnvelopeError::GenerationTooOld { .. }
        | EnvelopeError::Internal { .. } => {
            tracing::info!(%error, "a batch waits for its keys");
            RewriteError::TemporarilyUnavailable
        }
        // The rest is about this record; what a later version of the library adds is taken for that too, since
        // a record that is named is looked at by a person.
        _ => RewriteError::Unreadable { record: record.key.clone(), reason: error.to_string() },
    }
}
