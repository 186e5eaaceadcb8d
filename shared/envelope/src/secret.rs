//! Keys as types: no `Debug`, no `Clone`, wiped when dropped, on pages that stay out of core dumps.

use crate::error::EnvelopeError;
use crate::lock::Lock;
use crate::memory::Undumped;
use zeroize::{Zeroize, optimization_barrier};

pub(crate) const KEY_LEN: usize = 32;

/// A page with one key, while it is on its way.
#[repr(C, align(4096))]
pub(crate) struct KeyPage {
    key: [u8; KEY_LEN],
}

/// A data key in the clear. It lives on a page of its own, never moves, and is wiped when dropped.
pub struct KeyBytes {
    page: Undumped<KeyPage>,
}

impl KeyBytes {
    /// Lets `fill` write the key where it will stay. If it fails, what it wrote is wiped.
    ///
    /// # Errors
    /// What `fill` returns.
    pub fn fill_with<E>(fill: impl FnOnce(&mut [u8; KEY_LEN]) -> Result<(), E>) -> Result<Self, E> {
        let mut bytes = Self { page: Undumped::new(KeyPage { key: [0; KEY_LEN] }) };
        fill(&mut bytes.page.key)?;
        Ok(bytes)
    }

    /// A fresh key, for provisioning and tests.
    ///
    /// # Errors
    /// `Internal` if the system has no randomness.
    pub fn generate() -> Result<Self, EnvelopeError> {
        Self::fill_with(|key| {
            aws_lc_rs::rand::fill(key).map_err(|_| EnvelopeError::Internal { what: "no randomness" })
        })
    }

    /// The key. Whoever copies it must wipe the copy.
    #[must_use]
    pub fn expose(&self) -> &[u8; KEY_LEN] {
        &self.page.key
    }
}

impl Drop for KeyBytes {
    fn drop(&mut self) {
        self.page.key.zeroize();
    }
}

const KEYS_PER_PAGE: usize = 4096 / KEY_LEN;

/// A page of raw keys.
#[repr(C, align(4096))]
pub(crate) struct VaultPage {
    keys: [[u8; KEY_LEN]; KEYS_PER_PAGE],
}

/// Where a key lies in the vault.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct VaultSlot(u32);

/// Every raw data key of a process: the threads' prepared copies are made from it. Touched on misses only.
#[derive(Default)]
pub(crate) struct Vault {
    inner: Lock<VaultInner>,
}

#[derive(Default)]
struct VaultInner {
    pages: Vec<Undumped<VaultPage>>,
    free: Vec<u32>,
}

impl VaultInner {
    fn cell(&mut self, slot: u32) -> Option<&mut [u8; KEY_LEN]> {
        let slot = usize::try_from(slot).ok()?;
        self.pages.get_mut(slot / KEYS_PER_PAGE)?.keys.get_mut(slot % KEYS_PER_PAGE)
    }
}

impl Vault {
    pub(crate) fn put(&self, key: &KeyBytes) -> Option<VaultSlot> {
        let mut inner = self.inner.lock();
        if inner.free.is_empty() {
            let first = u32::try_from(inner.pages.len() * KEYS_PER_PAGE).ok()?;
            inner.pages.push(Undumped::new(VaultPage { keys: [[0; KEY_LEN]; KEYS_PER_PAGE] }));
            let last = first.checked_add(u32::try_from(KEYS_PER_PAGE).ok()?)?;
            inner.free.extend((first..last).rev());
        }
        let slot = inner.free.pop()?;
        inner.cell(slot)?.copy_from_slice(key.expose());
        Some(VaultSlot(slot))
    }

    /// Runs `f` on the key where it lies: no copy is made.
    pub(crate) fn with<R>(&self, slot: &VaultSlot, f: impl FnOnce(&[u8; KEY_LEN]) -> R) -> Option<R> {
        let mut inner = self.inner.lock();
        inner.cell(slot.0).map(|key| f(key))
    }

    /// Wipes a key and gives its place back. Taking the slot by value makes a second wipe impossible.
    pub(crate) fn wipe(&self, slot: VaultSlot) {
        let mut inner = self.inner.lock();
        if let Some(key) = inner.cell(slot.0) {
            key.zeroize();
            inner.free.push(slot.0);
        }
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        let inner = self.inner.get_mut();
        for page in &mut inner.pages {
            for key in &mut page.keys {
                key.zeroize();
            }
        }
    }
}

/// A key that was derived for one message: the first two blocks. Wiped in one piece when dropped: a volatile write
/// a byte is slow.
pub(crate) struct MessageKey([aes::Block; 3]);

impl MessageKey {
    pub(crate) fn empty() -> Self {
        Self(Default::default())
    }

    /// The key's two blocks, and the block from which its commitment is made.
    pub(crate) const fn blocks(&mut self) -> &mut [aes::Block; 3] {
        &mut self.0
    }

    /// The third block, from which commitments are made.
    pub(crate) const fn seed(&self) -> &aes::Block {
        let [.., seed] = &self.0;
        seed
    }

    /// Where its `KEY_LEN` bytes begin.
    pub(crate) const fn as_ptr(&self) -> *const u8 {
        const { assert!(size_of::<[aes::Block; 3]>() > KEY_LEN && size_of::<aes::Block>() == KEY_LEN / 2) };
        self.0.as_ptr().cast()
    }
}

impl Drop for MessageKey {
    #[inline]
    fn drop(&mut self) {
        self.0 = Default::default();
        optimization_barrier(&self.0);
    }
}
