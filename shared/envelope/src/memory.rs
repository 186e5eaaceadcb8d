//! With `gcm` and `owned` the only place with `unsafe`: telling the kernel what to leave out of core dumps and of forked children.
//!
//! Both calls are advice about whole pages that this crate owns. They change no address and no permission, and
//! if the kernel refuses them nothing but the advice is lost, which is why a failure is only logged.

use rustix::mm::{Advice, madvise};

/// A type that fills whole pages of its own, so that advice about it touches nobody else's memory.
///
/// # Safety
/// The type must be aligned to 4096 bytes and a multiple of that in size.
#[expect(unsafe_code, reason = "the promise that a type is page-aligned cannot be checked by the compiler")]
pub(crate) unsafe trait WholePages: Sized {}

/// Keeps the pages of `value` out of core dumps. The process itself stays dumpable.
pub(crate) fn keep_out_of_core_dumps<T: WholePages>(value: &mut T) {
    advise(value, Advice::LinuxDontDump);
}

/// Makes the pages of `value` read as zeros in a forked child.
///
/// Only sound for types that are valid when all their bytes are zero, which is why it takes plain integers only.
pub(crate) fn wipe_on_fork(value: &mut RandomPage) {
    advise(value, Advice::LinuxWipeOnFork);
}

fn advise<T: WholePages>(value: &mut T, advice: Advice) {
    const { assert!(align_of::<T>().is_multiple_of(4096) && size_of::<T>().is_multiple_of(4096)) };
    let address = std::ptr::from_mut(value).cast();
    // SAFETY: the range is exactly the pages of `value`, which is borrowed for the call; neither advice moves,
    // unmaps or writes them in this process.
    #[expect(
        unsafe_code,
        reason = "madvise is unsafe because some of its advice frees memory; these two do not"
    )]
    let told = unsafe { madvise(address, size_of::<T>(), advice) };
    if let Err(errno) = told {
        // Systems with larger pages (arm64 with 64 KiB) refuse ranges that are not aligned to theirs.
        tracing::debug!(errno = errno.raw_os_error(), "the kernel refused advice about key memory");
    }
}

/// A pool of random bytes and how many are left; all integers, so that zeros are valid.
#[repr(C, align(4096))]
pub(crate) struct RandomPage {
    /// 0 in a forked child, whatever it was in the parent.
    pub(crate) left: usize,
    pub(crate) epoch: u64,
    pub(crate) bytes: [u8; 4096 - 16],
}

// SAFETY: `repr(align(4096))`, and the size of a type is a multiple of its alignment; asserted in `advise`.
#[expect(unsafe_code, reason = "see the trait")]
unsafe impl WholePages for RandomPage {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "see the trait")]
unsafe impl WholePages for crate::secret::VaultPage {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "see the trait")]
unsafe impl WholePages for crate::secret::KeyPage {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "see the trait")]
unsafe impl WholePages for crate::gcm::GcmPage {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "see the trait")]
unsafe impl WholePages for crate::thread::EntryPage {}

/// Overwrites the stack below the caller, where key schedules were built before they were moved to their page.
#[inline(never)]
pub(crate) fn scrub_stack() {
    let mut below = [0xA5_u8; 16 * 1024];
    std::hint::black_box(&mut below);
}
