//! The data-plane library: a vendor's apps encrypt records under their customers' keys with it, without noticing,
//! and it stops when a customer revokes.
//!
//! [`Envelope`] is the process's client: it holds the [lease](fence), the cache and the counters. An [`Instance`]
//! encrypts and decrypts the records of one app instance, whole or as a [stream]. Keys come from a [`KeySource`],
//! permission from a [`FenceReader`]; [`aws`] has both for the real thing. The record format is specified in
//! `docs/RECORD-FORMAT.md`.

mod batch;
mod cipher;
mod client;
pub mod clock;
mod error;
pub mod fence;
pub mod format;
mod gcm;
mod instance;
mod lease;
mod lock;
mod memory;
mod metrics;
mod owned;
mod random;
mod reseal;
mod run;
mod secret;
pub mod source;
mod store;
mod stored;
pub mod stream;
mod thread;
mod times;
pub mod transport;

#[cfg(feature = "aws")]
pub mod aws;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use client::{BuildError, Builder, CloseCause, Closed, Config, Envelope};
pub use error::{BatchError, EnvelopeError, Unavailable};
pub use fence::{FenceReader, FenceSnapshot};
pub use format::{Context, Header, generation_of, header_digest};
pub use instance::Instance;
pub use metrics::{Metrics, Usage};
pub use secret::KeyBytes;
pub use source::{InstanceName, KeySource};
