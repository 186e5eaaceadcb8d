//! Pooled randomness: one call to the generator for 127 nonces, owned by one thread.
//!
//! The same pool must never serve twice: a forked child finds it empty (`MADV_WIPEONFORK`; where the kernel does
//! not offer that, nothing is pooled), and after a thaw or a clock jump `RESEED` is raised, which empties every
//! pool. Emptying is not enough: two clones of a machine have the generator's state in common, too, and where
//! nothing tells it (no device of the kernel's, no random instruction) it would go on alike in both. So a pool that
//! begins anew also draws a *salt* from the kernel, which a hypervisor tells of clones, and mixes it into everything
//! that it draws until the next time. A clone that no clock can notice still differs by the wall clock that is mixed
//! into each nonce.

use crate::error::EnvelopeError;
use crate::format::Nonce;
use crate::memory::{SLOTS, WipedOnFork};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use std::sync::atomic::{AtomicU64, Ordering};

/// On a cache line of its own: every use reads it, and nobody's writing beside it shall cost them that.
#[repr(align(128))]
struct Alone(AtomicU64);

static RESEED: Alone = Alone(AtomicU64::new(1));

/// Empties the pools of all threads.
pub(crate) fn reseed_all() {
    RESEED.0.fetch_add(1, Ordering::Release);
}

pub(crate) struct Pool {
    page: WipedOnFork,
    /// How many nonces may be drawn at once: one if a forked child would find them too.
    most: usize,
    /// The kernel's own, drawn with each reseeding: *U* and *V*.
    salt: [[u8; 16]; 2],
}

impl Pool {
    pub(crate) fn new() -> Self {
        let page = WipedOnFork::new();
        let most = if page.wiped() { SLOTS } else { 1 };
        Self { page, most, salt: [[0; 16]; 2] }
    }

    #[inline]
    pub(crate) fn nonce(&mut self, moment: &Moment, nonce: &mut Nonce) -> Result<(), EnvelopeError> {
        let epoch = RESEED.0.load(Ordering::Acquire);
        if self.page.left == 0 || self.page.epoch != epoch {
            self.fill(epoch)?;
        }
        let page = &mut *self.page;
        let bounds = EnvelopeError::Internal { what: "pool bounds" };
        page.left = page.left.checked_sub(1).ok_or_else(|| bounds.clone())?;
        take(page.slots.get_mut(page.left).ok_or(bounds)?, moment, nonce);
        Ok(())
    }

    /// Changes whenever nothing that was drawn before may be used on.
    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.page.epoch
    }

    #[cold]
    fn fill(&mut self, epoch: u64) -> Result<(), EnvelopeError> {
        let page = &mut *self.page;
        page.left = 0;
        if page.epoch != epoch {
            from_the_kernel(self.salt.as_flattened_mut())?;
        }
        let slots = page.slots.get_mut(..self.most).unwrap_or_default();
        aws_lc_rs::rand::fill(slots.as_flattened_mut().as_flattened_mut())
            .map_err(|_| EnvelopeError::Internal { what: "no randomness" })?;
        for slot in slots.iter_mut() {
            for (half, salt) in slot.iter_mut().zip(&self.salt) {
                for (byte, salt) in half.iter_mut().zip(salt) {
                    *byte ^= salt;
                }
            }
            let [u, v] = slot;
            u.split_at_mut(4).0.fill(0);
            v.split_at_mut(12).1.fill(0);
        }
        page.left = slots.len();
        page.epoch = epoch;
        Ok(())
    }
}

/// Straight from the kernel's generator, without a state of this process.
fn from_the_kernel(bytes: &mut [u8]) -> Result<(), EnvelopeError> {
    let no_randomness = EnvelopeError::Internal { what: "no randomness" };
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match getrandom(rest, GetRandomFlags::empty()) {
            Ok(0) => return Err(no_randomness),
            Ok(drawn) => filled += drawn,
            Err(Errno::INTR) => {}
            Err(_) => return Err(no_randomness),
        }
    }
    Ok(())
}

/// Moves a nonce out of its place. A call of its own, so that both halves are moved as a whole.
#[inline(never)]
fn take(slot: &mut [[u8; 16]; 2], moment: &Moment, nonce: &mut Nonce) {
    let [u, v] = slot;
    // Independent of the pool, so the nonce stays uniform.
    for ((to, from), moment) in nonce.u.iter_mut().zip(&*u).zip(&moment.0) {
        *to = from ^ moment;
    }
    nonce.v = *v;
    (*u, *v) = ([0; 16], [0; 16]);
}

/// A moment of the wall clock, where it is mixed into *U*.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment([u8; 16]);

impl Moment {
    pub(crate) fn at(wall_nanos: i64) -> Self {
        let mut bytes = [0; 16];
        bytes.split_at_mut(4).1.split_at_mut(8).0.copy_from_slice(&wall_nanos.to_ne_bytes());
        Self(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn drawn(pool: &mut Pool, wall_nanos: i64) -> Nonce {
        let mut nonce = Nonce { u: [0; 16], v: [0; 16] };
        assert!(pool.nonce(&Moment::at(wall_nanos), &mut nonce).is_ok());
        nonce
    }

    fn whole(nonce: Nonce) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.split_at_mut(16).0.copy_from_slice(&nonce.u);
        bytes.split_at_mut(16).1.copy_from_slice(&nonce.v);
        bytes
    }

    #[test]
    fn a_pool_never_gives_a_nonce_twice_and_refills_after_a_thaw() {
        let mut pool = Pool::new();
        let mut seen = HashSet::new();
        for round in 0..2_000_u64 {
            assert!(seen.insert(whole(drawn(&mut pool, 0))));
            if round % 300 == 0 {
                reseed_all();
                assert!(seen.insert(whole(drawn(&mut pool, 0))));
                assert_eq!(pool.page.left, pool.most - 1, "it was drawn anew");
            }
        }
    }

    /// Not in step with other tests, which reseed as well.
    #[test]
    fn a_pool_that_begins_anew_asks_the_kernel_and_one_that_goes_on_does_not() {
        let mut pool = Pool::new();
        let epoch = RESEED.0.load(Ordering::Acquire);
        assert!(pool.fill(epoch).is_ok());
        let salt = pool.salt;
        assert_ne!(salt, [[0; 16]; 2]);
        assert!(pool.fill(epoch).is_ok());
        assert_eq!(pool.salt, salt);
        assert!(pool.fill(epoch + 1).is_ok());
        assert_ne!(pool.salt, salt, "after a thaw");
        let salt = pool.salt;
        // As a forked child finds it.
        (pool.page.left, pool.page.epoch) = (0, 0);
        assert!(pool.fill(epoch + 1).is_ok());
        assert_ne!(pool.salt, salt, "after a fork");
    }

    #[test]
    fn all_192_bits_of_a_nonce_vary_and_its_padding_does_not() {
        let mut pool = Pool::new();
        let (mut ones, mut zeros) = ([0; 32], [0; 32]);
        for round in 0..400 {
            for ((ones, zeros), byte) in ones.iter_mut().zip(&mut zeros).zip(whole(drawn(&mut pool, round))) {
                *ones |= byte;
                *zeros |= !byte;
            }
        }
        let mut both = [0_u8; 32];
        both.split_at_mut(4).1.split_at_mut(24).0.fill(255);
        assert_eq!(ones, both);
        assert_eq!(zeros.map(|byte| byte == 255), [true; 32]);
    }

    #[test]
    fn where_a_forked_child_would_find_them_no_nonces_are_kept() {
        let mut pool = Pool { most: 1, ..Pool::new() };
        assert_ne!(drawn(&mut pool, 0), drawn(&mut pool, 0));
        assert_eq!(pool.page.left, 0);
    }

    #[test]
    fn a_forked_child_finds_the_pool_empty() {
        use std::os::unix::process::CommandExt;
        let mut pool = Pool::new();
        drawn(&mut pool, 0);
        let left = pool.page.left;
        let page = std::ptr::from_ref(&*pool.page).addr();
        let mut command = std::process::Command::new("true");
        // SAFETY: the child reads one integer of its own copy of a page that outlives it, allocates nothing and
        // takes no lock.
        #[expect(unsafe_code, reason = "a fork is what is to be tested")]
        unsafe {
            command.pre_exec(move || {
                let left = *std::ptr::with_exposed_provenance::<usize>(page);
                if left == 0 { Ok(()) } else { Err(std::io::Error::from_raw_os_error(left as i32)) }
            });
        }
        let child = command.status();
        assert_eq!(child.is_ok(), pool.most > 1 || left == 0, "{child:?}");
        assert_eq!(pool.page.left, left, "the parent keeps its own");
    }

    #[test]
    fn two_clones_of_one_pool_differ_by_the_clock() {
        let mut pool = Pool::new();
        drawn(&mut pool, 0);
        let mut clone = Pool::new();
        clone.page.left = pool.page.left;
        clone.page.epoch = pool.page.epoch;
        clone.page.slots = pool.page.slots;
        assert_ne!(drawn(&mut pool, 1), drawn(&mut clone, 2));
    }
}
