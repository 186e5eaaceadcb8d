//! With `gcm` and `owned` the only place with `unsafe`: telling the kernel what to leave out of core dumps and of
//! forked children.
//!
//! All calls are advice about whole pages that this crate owns, and taken back before those go to somebody else.
//! They change no address and no permission. Without the advice about core dumps nothing but that is lost, which
//! is why a refusal is only logged; who asks for the other is told.

use rustix::mm::{Advice, madvise};
use std::ops::{Deref, DerefMut};

/// A type that fills whole pages of its own, so that advice about it touches nobody else's memory.
///
/// # Safety
/// The type must be aligned to 4096 bytes and a multiple of that in size.
#[expect(unsafe_code, reason = "the promise that a type is page-aligned cannot be checked by the compiler")]
pub(crate) unsafe trait WholePages: Sized {}

/// A value whose pages stay out of core dumps, and whose address never changes. The process itself stays dumpable.
/// Wiping is the business of the value or of its owner.
pub(crate) struct Undumped<T: WholePages>(Box<T>);

impl<T: WholePages> Undumped<T> {
    pub(crate) fn new(value: T) -> Self {
        let mut value = Box::new(value);
        let _ = advise(&mut *value, Advice::LinuxDontDump);
        Self(value)
    }
}

impl<T: WholePages> Deref for Undumped<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: WholePages> DerefMut for Undumped<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: WholePages> Drop for Undumped<T> {
    fn drop(&mut self) {
        let _ = advise(&mut *self.0, Advice::LinuxDoDump);
    }
}

/// A page that reads as zeros in a forked child, if the kernel offers that.
///
/// Only sound for types that are valid when all their bytes are zero, which is why it is for plain integers only.
pub(crate) struct WipedOnFork {
    page: Box<RandomPage>,
    wiped: bool,
}

impl WipedOnFork {
    pub(crate) fn new() -> Self {
        let mut page = RandomPage::empty();
        let wiped = advise(&mut *page, Advice::LinuxWipeOnFork);
        Self { page, wiped }
    }

    /// Whether the kernel will.
    pub(crate) const fn wiped(&self) -> bool {
        self.wiped
    }
}

impl Deref for WipedOnFork {
    type Target = RandomPage;
    #[inline]
    fn deref(&self) -> &RandomPage {
        &self.page
    }
}

impl DerefMut for WipedOnFork {
    #[inline]
    fn deref_mut(&mut self) -> &mut RandomPage {
        &mut self.page
    }
}

impl Drop for WipedOnFork {
    /// INVARIANT: the allocator gets the page back only as it gave it: whoever has it next must find in a child
    /// what it wrote.
    fn drop(&mut self) {
        if self.wiped && !advise(&mut *self.page, Advice::LinuxKeepOnFork) {
            std::mem::forget(std::mem::replace(&mut self.page, RandomPage::empty()));
        }
    }
}

fn advise<T: WholePages>(value: &mut T, advice: Advice) -> bool {
    const { assert!(align_of::<T>().is_multiple_of(4096) && size_of::<T>().is_multiple_of(4096)) };
    let address = std::ptr::from_mut(value).cast();
    // SAFETY: the range is exactly the pages of `value`, which is borrowed for the call; none of the advice given
    // in this module moves, unmaps or writes them in this process. What a forked child reads as zeros is a
    // `RandomPage` only, of which zeros are a valid value.
    #[expect(
        unsafe_code,
        reason = "madvise is unsafe because some of its advice frees memory; that of this module does not"
    )]
    let told = unsafe { madvise(address, size_of::<T>(), advice) };
    if let Err(errno) = told {
        // Systems with larger pages (arm64 with 64 KiB) refuse ranges that are not aligned to theirs.
        tracing::debug!(errno = errno.raw_os_error(), "the kernel refused advice about key memory");
    }
    told.is_ok()
}

/// Nonces of one page.
pub(crate) const SLOTS: usize = 127;

/// Random nonces, each in the two blocks of `format::Nonce`, and how many are left; all integers, so that zeros
/// are valid.
#[repr(C, align(4096))]
pub(crate) struct RandomPage {
    /// 0 in a forked child, whatever it was in the parent.
    pub(crate) left: usize,
    pub(crate) epoch: u64,
    pub(crate) slots: [[[u8; 16]; 2]; SLOTS],
}

impl RandomPage {
    fn empty() -> Box<Self> {
        Box::new(Self { left: 0, epoch: 0, slots: [[[0; 16]; 2]; SLOTS] })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's flags of the mapping in which `address` lies.
    fn flags(address: usize) -> Vec<String> {
        let Ok(smaps) = std::fs::read_to_string("/proc/self/smaps") else { return Vec::new() };
        let mut within = false;
        for line in smaps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            if let Some((from, to)) = range
                && let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
            {
                within = (from..to).contains(&address);
            } else if let Some(flags) = line.strip_prefix("VmFlags:")
                && within
            {
                return flags.split_whitespace().map(str::to_owned).collect();
            }
        }
        Vec::new()
    }

    fn has(address: usize, flag: &str) -> bool {
        flags(address).iter().any(|found| found == flag)
    }

    #[test]
    fn a_key_in_the_clear_lies_where_core_dumps_do_not_look_and_only_as_long_as_it_lives() {
        let Ok(key) = crate::secret::KeyBytes::generate() else { unreachable!("randomness") };
        let address = key.expose().as_ptr().addr();
        assert!(has(address, "dd"), "{:?}", flags(address));
        drop(key);
        assert!(!has(address, "dd"), "the next owner of the page is dumped again");
    }

    #[test]
    fn a_page_that_forked_children_find_empty_is_given_back_as_it_was() {
        let page = WipedOnFork::new();
        let address = std::ptr::from_ref(&*page).addr();
        assert_eq!(has(address, "wf"), page.wiped(), "{:?}", flags(address));
        drop(page);
        assert!(!has(address, "wf"));
    }
}
