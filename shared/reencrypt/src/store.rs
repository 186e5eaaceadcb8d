//! What a store of records must be able to do. Narrow on purpose: a vendor implements it for its own stores.

use async_trait::async_trait;

/// An app instance by its public name, as in the vendor's own addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub organisation: String,
    pub site: String,
    pub app: String,
}

/// One of `of` parts of a place's records. The parts are disjoint, and together they are all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shard {
    /// From 0.
    pub index: u32,
    pub of: u32,
}

impl Shard {
    /// Everything in one part.
    pub const WHOLE: Self = Self { index: 0, of: 1 };
}

/// A record as its store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// Names the record to its store, and to people in an error; opaque to all others.
    pub key: String,
    /// Both are the context under which the app sealed it.
    pub data_type: String,
    pub record_id: String,
    /// The record. Where reading is dear, fewer bytes than any record has, though the header whole: the rewriter
    /// then asks [`RecordStore::whole`] for those that it needs.
    pub bytes: Vec<u8>,
    /// An old version of an object: counted, never rewritten.
    pub noncurrent: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordPage {
    pub records: Vec<StoredRecord>,
    /// Where to go on; `None`: this was the last page. A page may be empty and not be the last.
    pub next: Option<String>,
}

/// What became of a conditional write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    Done,
    /// The app wrote meanwhile: its record stays.
    Changed,
    /// The app deleted it meanwhile.
    Gone,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordStoreError {
    /// The store wants less at a time.
    #[error("the store throttles")]
    Throttled,
    /// The store did not answer; heals by itself.
    #[error("the store did not answer: {reason}")]
    Unavailable { reason: String },
    /// The store will not do it, however often it is asked: rights, names, sizes.
    #[error("the store refuses: {reason}")]
    Refused { reason: String },
}

/// Where records of one store lie.
///
/// # What the rewriter relies on
/// - `page` reads what was acknowledged before it was called (a consistent read), and pages through one shard show
///   every record that is there from the first to the last of them; one that comes or goes meanwhile may be missing.
/// - `replace` compares and writes in one atomic step.
#[async_trait]
pub trait RecordStore: Send + Sync {
    /// A page of an instance's records in one of `shard.of` disjoint parts, from a cursor on. `limit` is about how
    /// many; a store may give fewer or somewhat more.
    async fn page(
        &self,
        of: &Place,
        shard: Shard,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<RecordPage, RecordStoreError>;

    /// Writes `new` if the stored header ([`header_of`](crate::header_of)) is still that of `old`; never touches
    /// anything else of the item, the app's own version least of all.
    async fn replace(&self, old: &StoredRecord, new: Vec<u8>) -> Result<Replaced, RecordStoreError>;

    /// About how many records there are; `None` when nobody knows.
    async fn estimate(&self, of: &Place) -> Result<Option<u64>, RecordStoreError>;

    /// All bytes of a record of which a page showed only the header; `None` if it is no longer the one that was
    /// shown. Stores whose pages hold whole records need not implement it.
    async fn whole(&self, record: &StoredRecord) -> Result<Option<Vec<u8>>, RecordStoreError> {
        Ok(Some(record.bytes.clone()))
    }
}

/// The bytes that name one encryption of a record: what a conditional write compares. Shorter only if the record is.
#[must_use]
pub fn header_of(record: &[u8]) -> &[u8] {
    record.get(..claviger_envelope::format::HEADER_LEN).unwrap_or(record)
}
