//! AES-256-GCM of aws-lc with its key in a place of ours.
//!
//! `aws-lc-rs` allocates a key's context on the heap, zeroes it, fills it and wipes it again. That is right for
//! a key that lives long; with a key a message it costs a quarter of a small record, and it puts message keys
//! where core dumps find them. Here the context is a page that is used again and kept out of core dumps, and
//! output goes into buffers that nobody zeroed before.
//!
//! What the `unsafe` here rests on, beside the argument at each place:
//!
//! - *The C side.* `EVP_AEAD_CTX` of AES-GCM is plain data: round keys, the powers of H, and pointers to static tables
//!   and functions. It holds no pointer into itself or the heap, so cleaning up frees nothing, forgetting to clean up
//!   leaks nothing, and a forked child's copy is as good as the parent's. Sealing and opening take it as `const`; what
//!   they compute lies on their stack. (The variants of GCM that do count or draw nonces are other algorithms.)
//! - *The place.* The context begins its page (`repr(C)`), which is aligned to more than it asks for. It is built and
//!   wiped where it lies and never moved: moving a `Gcm` moves the box.
//! - *Aliasing.* The only mutable way to the context is `&mut self`, in `set_key` and `wipe`. Input is a shared borrow and
//!   output a mutable one of the same call, so the two never overlap, except on purpose in `seal_in_place`, which has
//!   one borrow for both and passes one pointer.
//! - *Wiping.* Every byte of the context, padding too, is zeroed by address and not by assignment, which may leave out
//!   padding; the barrier behind it keeps the compiler from finding that nobody reads it. What aws-lc itself leaves of
//!   a message key on the stack is beyond this file ("What remains" in the README).

use crate::error::EnvelopeError;
use crate::format::TAG_LEN;
use crate::memory::Undumped;
use crate::secret::{KEY_LEN, MessageKey};
use aws_lc_sys::{
    EVP_AEAD, EVP_AEAD_CTX, EVP_AEAD_CTX_cleanup, EVP_AEAD_CTX_init, EVP_AEAD_CTX_open_gather,
    EVP_AEAD_CTX_seal_scatter, EVP_aead_aes_256_gcm,
};
use std::mem::MaybeUninit;
use std::ptr::{null_mut, write_bytes};
use zeroize::{Zeroize, optimization_barrier};

pub(crate) const NONCE_LEN: usize = 12;

/// A page for the context of one key.
#[repr(C, align(4096))]
pub(crate) struct GcmPage {
    context: MaybeUninit<EVP_AEAD_CTX>,
}

/// One key, or none. No `Debug`, no `Clone`.
pub(crate) struct Gcm {
    page: Undumped<GcmPage>,
    algorithm: *const EVP_AEAD,
    /// INVARIANT: the context is initialised whenever this is true, and all zeros whenever it is not.
    keyed: bool,
}

// SAFETY: the context of AES-GCM holds no pointer but to static tables and functions, and no thread's state.
#[expect(unsafe_code, reason = "a raw pointer in the C type hides that it may move between threads")]
unsafe impl Send for Gcm {}
// SAFETY: as above; sealing and opening take the context as const and keep their state on the stack.
#[expect(unsafe_code, reason = "see above")]
unsafe impl Sync for Gcm {}

impl Gcm {
    pub(crate) fn new() -> Self {
        let page = Undumped::new(GcmPage { context: MaybeUninit::zeroed() });
        // SAFETY: a getter of a static without preconditions; the library sets it up once.
        #[expect(unsafe_code, reason = "every C function is")]
        let algorithm = unsafe { EVP_aead_aes_256_gcm() };
        let mut gcm = Self { page, algorithm, keyed: false };
        gcm.blank();
        gcm
    }

    #[inline]
    pub(crate) fn set_key(&mut self, key: &MessageKey) -> Result<(), EnvelopeError> {
        // Not wiped first: round keys and powers of H of the new key lie exactly where those of the old one lay, and
        // zeroing what is written over at once would cost a small record some of its time.
        self.keyed = false;
        // SAFETY: the context is ours, and all zeros or that of another key, which owns nothing that would be leaked
        // (see "The C side"); the call reads nothing of it. The algorithm is a static; `as_ptr` points to as many bytes
        // as are told.
        #[expect(unsafe_code, reason = "the safe interface has no key in place")]
        let done = unsafe {
            EVP_AEAD_CTX_init(
                self.page.context.as_mut_ptr(),
                self.algorithm,
                key.as_ptr(),
                KEY_LEN,
                TAG_LEN,
                null_mut(),
            )
        };
        if done != 1 {
            self.wipe();
            return Err(refused());
        }
        self.keyed = true;
        Ok(())
    }

    /// Appends ciphertext and tag.
    #[inline]
    pub(crate) fn seal(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), EnvelopeError> {
        let total = plaintext.len().checked_add(TAG_LEN).filter(|_| self.keyed).ok_or_else(refused)?;
        out.reserve_exact(total);
        let (ciphertext, rest) =
            out.spare_capacity_mut().split_at_mut_checked(plaintext.len()).ok_or_else(refused)?;
        let tag = rest.first_chunk_mut::<TAG_LEN>().ok_or_else(refused)?;
        let mut tag_len = 0;
        // SAFETY: the context is initialised. `ciphertext` is as long as `plaintext`, `tag` has `TAG_LEN` bytes;
        // both are only written, and being borrowed mutably they overlap nothing that is read.
        #[expect(unsafe_code, reason = "the safe interface wants buffers that were zeroed before")]
        let done = unsafe {
            EVP_AEAD_CTX_seal_scatter(
                self.page.context.as_ptr(),
                ciphertext.as_mut_ptr().cast(),
                tag.as_mut_ptr().cast(),
                &raw mut tag_len,
                TAG_LEN,
                nonce.as_ptr(),
                NONCE_LEN,
                plaintext.as_ptr(),
                plaintext.len(),
                std::ptr::null(),
                0,
                aad.as_ptr(),
                aad.len(),
            )
        };
        if done != 1 || tag_len != TAG_LEN {
            return Err(refused());
        }
        let length = out.len() + total;
        // SAFETY: the call succeeded, so ciphertext and tag are written whole.
        #[expect(unsafe_code, reason = "see above")]
        unsafe {
            out.set_len(length);
        }
        Ok(())
    }

    /// Turns what follows `from` into its ciphertext where it lies, and appends the tag. If it fails, what
    /// follows `from` is neither, and the caller wipes it.
    ///
    /// INVARIANT: `out` has room for the tag. It holds a plaintext, and growing it would leave that behind in the
    /// memory that it gives up.
    #[inline]
    pub(crate) fn seal_in_place(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        out: &mut Vec<u8>,
        from: usize,
    ) -> Result<(), EnvelopeError> {
        let end = out.len();
        if !self.keyed || from > end || out.capacity() - end < TAG_LEN {
            return Err(refused());
        }
        out.resize(end + TAG_LEN, 0);
        let (before, tag) = out.split_at_mut(end);
        let (_, text) = before.split_at_mut(from);
        let length = text.len();
        let place = text.as_mut_ptr();
        let mut tag_len = 0;
        // SAFETY: the context is initialised. Input and output are the same bytes, which the call allows where
        // both begin at one address; `tag` has `TAG_LEN` bytes of its own.
        #[expect(unsafe_code, reason = "the safe interface has no key in place")]
        let done = unsafe {
            EVP_AEAD_CTX_seal_scatter(
                self.page.context.as_ptr(),
                place,
                tag.as_mut_ptr(),
                &raw mut tag_len,
                TAG_LEN,
                nonce.as_ptr(),
                NONCE_LEN,
                place,
                length,
                std::ptr::null(),
                0,
                aad.as_ptr(),
                aad.len(),
            )
        };
        if done != 1 || tag_len != TAG_LEN {
            return Err(refused());
        }
        Ok(())
    }

    /// Appends the plaintext. If the tag does not fit, `out` is as it was and what was written is wiped.
    #[inline]
    pub(crate) fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        sealed: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), NotAuthentic> {
        let (ciphertext, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(NotAuthentic)?;
        if !self.keyed {
            return Err(NotAuthentic);
        }
        out.reserve_exact(ciphertext.len());
        let plaintext = out.spare_capacity_mut().get_mut(..ciphertext.len()).ok_or(NotAuthentic)?;
        // SAFETY: the context is initialised. `plaintext` is as long as `ciphertext`, is only written, and being
        // borrowed mutably it overlaps nothing that is read.
        #[expect(unsafe_code, reason = "the safe interface wants buffers that were zeroed before")]
        let done = unsafe {
            EVP_AEAD_CTX_open_gather(
                self.page.context.as_ptr(),
                plaintext.as_mut_ptr().cast(),
                nonce.as_ptr(),
                NONCE_LEN,
                ciphertext.as_ptr(),
                ciphertext.len(),
                tag.as_ptr(),
                TAG_LEN,
                aad.as_ptr(),
                aad.len(),
            )
        };
        if done != 1 {
            // The library has done so too; that it does is not ours to rely on.
            plaintext.zeroize();
            return Err(NotAuthentic);
        }
        let length = out.len() + ciphertext.len();
        // SAFETY: the call succeeded, so the plaintext is written whole.
        #[expect(unsafe_code, reason = "see above")]
        unsafe {
            out.set_len(length);
        }
        Ok(())
    }

    /// Whether nothing is left of any key.
    #[cfg(test)]
    pub(crate) fn is_blank(&self) -> bool {
        let context = self.page.context.as_ptr().cast::<u8>();
        // SAFETY: `blank` wrote each byte of the context when the page was made, its padding too, and nobody has
        // moved it since.
        #[expect(unsafe_code, reason = "the C type has no other way to be looked at")]
        let bytes = unsafe { std::slice::from_raw_parts(context, size_of::<EVP_AEAD_CTX>()) };
        bytes.iter().all(|byte| *byte == 0)
    }

    /// Forgets the key.
    #[inline]
    pub(crate) fn wipe(&mut self) {
        self.keyed = false;
        // SAFETY: the context is initialised or all zeros, which the call knows as empty.
        #[expect(unsafe_code, reason = "the counterpart of the call in `set_key`")]
        unsafe {
            EVP_AEAD_CTX_cleanup(self.page.context.as_mut_ptr());
        }
        self.blank();
    }

    /// Makes every byte of the context zero. Whole and at once: byte by byte and volatile it would cost more than
    /// setting up the key.
    #[inline]
    fn blank(&mut self) {
        // SAFETY: the context is ours, borrowed mutably, and zeros are what `EVP_AEAD_CTX_zero` makes of it.
        #[expect(unsafe_code, reason = "an assignment need not touch the padding of a type")]
        unsafe {
            write_bytes(self.page.context.as_mut_ptr(), 0, 1);
        }
        optimization_barrier(&*self.page);
    }
}

impl Drop for Gcm {
    fn drop(&mut self) {
        self.wipe();
    }
}

pub(crate) struct NotAuthentic;

fn refused() -> EnvelopeError {
    EnvelopeError::Internal { what: "AES-256-GCM refused its input" }
}
