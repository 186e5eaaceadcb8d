//! Pooled randomness: one call to the generator for about 170 nonces, owned by one thread.
//!
//! The same pool must never serve twice: a forked child finds it empty (`MADV_WIPEONFORK`), and after a thaw or
//! a clock jump `RESEED` is raised, which empties every pool. A clone that no clock can notice still differs by
//! the wall clock that is mixed into each nonce.

use crate::error::EnvelopeError;
use crate::format::NONCE_LEN;
use crate::memory::{RandomPage, wipe_on_fork};
use std::sync::atomic::{AtomicU64, Ordering};

static RESEED: AtomicU64 = AtomicU64::new(1);

/// Empties the pools of all threads.
pub(crate) fn reseed_all() {
    RESEED.fetch_add(1, Ordering::Release);
}

pub(crate) struct Pool {
    page: Box<RandomPage>,
}

impl Pool {
    pub(crate) fn new() -> Self {
        let mut page = Box::new(RandomPage { left: 0, epoch: 0, bytes: [0; 4096 - 16] });
        wipe_on_fork(&mut page);
        Self { page }
    }

    #[inline]
    pub(crate) fn nonce(&mut self, wall_nanos: u64) -> Result<[u8; NONCE_LEN], EnvelopeError> {
        let epoch = RESEED.load(Ordering::Acquire);
        let page = &mut *self.page;
        if page.left < NONCE_LEN || page.epoch != epoch {
            aws_lc_rs::rand::fill(&mut page.bytes)
                .map_err(|_| EnvelopeError::Internal { what: "no randomness" })?;
            page.left = page.bytes.len();
            page.epoch = epoch;
        }
        let end = page.left;
        page.left -= NONCE_LEN;
        let taken = page.bytes.get_mut(page.left..end).and_then(|bytes| bytes.first_chunk_mut::<NONCE_LEN>());
        let taken = taken.ok_or(EnvelopeError::Internal { what: "pool bounds" })?;
        let mut nonce = std::mem::replace(taken, [0; NONCE_LEN]);
        // Independent of the pool, so the nonce stays uniform.
        if let Some(first) = nonce.first_chunk_mut::<8>() {
            *first = (u64::from_ne_bytes(*first) ^ wall_nanos).to_ne_bytes();
        }
        Ok(nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_pool_never_gives_a_nonce_twice_and_refills_after_a_thaw() {
        let mut pool = Pool::new();
        let mut seen = HashSet::new();
        for round in 0..2_000_u64 {
            let Ok(nonce) = pool.nonce(0) else { unreachable!("randomness") };
            assert!(seen.insert(nonce));
            if round % 300 == 0 {
                let left = pool.page.left;
                reseed_all();
                assert!(pool.nonce(0).is_ok_and(|nonce| seen.insert(nonce)));
                assert!(pool.page.left > left || left == pool.page.bytes.len() - NONCE_LEN);
            }
        }
    }

    #[test]
    fn two_clones_of_one_pool_differ_by_the_clock() {
        let mut pool = Pool::new();
        let Ok(_) = pool.nonce(0) else { unreachable!("randomness") };
        let mut clone = Pool::new();
        clone.page.left = pool.page.left;
        clone.page.epoch = pool.page.epoch;
        clone.page.bytes = pool.page.bytes;
        assert_ne!(pool.nonce(1).ok(), clone.nonce(2).ok());
    }
}
