//! Identifiers that count.

use std::sync::atomic::{AtomicU64, Ordering};

use claviger_app::ports::Ids;
use uuid::Uuid;

/// 1, 2, 3, ... as UUIDs of version 4.
#[derive(Debug, Default)]
pub struct SequentialIds(AtomicU64);

impl SequentialIds {
    /// Counts on from `last`.
    pub fn after(last: u64) -> Self {
        Self(AtomicU64::new(last))
    }

    /// The UUID that stands for a number.
    pub fn uuid(number: u64) -> Uuid {
        let mut bytes = [0_u8; 16];
        bytes[8..].copy_from_slice(&number.to_be_bytes());
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}

impl Ids for SequentialIds {
    fn random(&self) -> Uuid {
        Self::uuid(self.0.fetch_add(1, Ordering::SeqCst) + 1)
    }
}
