//! Moves a vendor's records from old data keys to new ones while its apps stay online.
//!
//! A [`RecordStore`] says where the records of one store lie; a vendor implements it for its own. A [`Rewriter`]
//! goes through them in batches: each record that is older than the wanted generation is opened, sealed anew and
//! written on the condition that the stored header is still the one that was read. So a concurrent write by the app
//! always wins, a batch may be done twice or broken off anywhere, and every record names its data key at every
//! instant.

#[cfg(feature = "aws")]
pub mod aws;
mod memory;
#[cfg(feature = "aws")]
mod names;
mod pace;
mod rewriter;
mod store;
mod together;
#[cfg(feature = "jobs")]
mod vendor_records;

pub use memory::MemoryRecords;
#[cfg(feature = "aws")]
pub use names::{Named, Pattern, PatternError};
pub use rewriter::{Batch, Mode, RewriteError, Rewriter};
pub use store::{Place, RecordPage, RecordStore, RecordStoreError, Replaced, Shard, StoredRecord, header_of};
pub use together::Together;
#[cfg(feature = "jobs")]
pub use vendor_records::VendorRecords;
