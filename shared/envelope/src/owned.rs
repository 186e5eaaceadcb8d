//! A value that one thread uses all the time and others hardly ever.
//!
//! A mutex makes its owner pay for two full barriers each time, a tenth of a small record, although nobody
//! contends. Here the visitor pays: it has the kernel run a barrier on every core on which the process runs
//! (`membarrier`), and the owner gets by with plain loads and stores. Where the kernel offers none, the owner pays
//! one fence.
//!
//! Why the two never meet. It is Dekker's: each side first says that it is there and then looks for the other, and
//! between the two a barrier.
//!
//! - *Owner*: `busy = true`; barrier; reads `wanted`. In `with` the barrier is the compiler's alone; the visitor's
//!   `membarrier` supplies the processor's. A core that runs this process passes it in between two instructions of the
//!   owner: if before `busy = true` is done, the owner reads `wanted` after it and sees it; if after, the visitor
//!   sees `busy`. A core that does not run this process passes a full barrier whenever it switches to it.
//! - *Visitor*: `wanted = true`; barrier (its own and everybody's); reads `busy` until it is false.
//! - *Data* travels with the flags: each is lowered with release after the last access, and read with acquire before the
//!   first. Visitors among themselves have the mutex.
//! - *Nobody comes in twice.* The owner's borrow is mutable, and what it runs never visits: that would wait for itself.
//!   `thread` keeps to that: wiping, telling counters and dropping keys happen outside of `with`.
//! - *A panic* lowers the flag on its way. The value may then be in the middle of something, never torn: it is changed
//!   under a plain mutable borrow.
//! - *A forked child* has the flags as they were, and the one thread that forked. Its own cache works on, on the lease
//!   that it inherited and no longer. A visit waits for threads that were busy at that moment for ever, and so does the
//!   poll that wanted it: no lease is granted, and nothing is given out. A child that is to go on must make a client of
//!   its own in a process that begins anew (`exec`).

use crate::lock::Lock;
use rustix::thread::{MembarrierCommand, membarrier};
use std::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, compiler_fence, fence};
use std::time::Duration;

/// What both sides share.
pub(crate) struct Owned<T> {
    /// The owner is in, or was about to go in when it saw that it is `wanted`.
    busy: AtomicBool,
    /// A visitor is in, or waits for the owner to leave.
    wanted: AtomicBool,
    visitors: Lock<()>,
    asymmetric: bool,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached through `Owner::with` and `Owned::visit` only. Each announces itself, passes a
// barrier and then looks at the other's announcement, so never are both in; visitors hold a mutex among them, and
// there is one `Owner`, which `with` borrows mutably. Both lower their announcement with release and look at the
// other's with acquire, so each sees what the other wrote. `T: Send` is enough: it is handed to and fro, never shared.
#[expect(unsafe_code, reason = "the protocol of this file is what makes it safe to share")]
unsafe impl<T: Send> Sync for Owned<T> {}

/// The owner's end. There is one, and it cannot be cloned.
pub(crate) struct Owner<T> {
    shared: Arc<Owned<T>>,
}

impl<T> Owner<T> {
    pub(crate) fn new(value: T) -> Self {
        let asymmetric = membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok();
        Self {
            shared: Arc::new(Owned {
                busy: AtomicBool::new(false),
                wanted: AtomicBool::new(false),
                visitors: Lock::default(),
                asymmetric,
                value: UnsafeCell::new(value),
            }),
        }
    }

    pub(crate) const fn shared(&self) -> &Arc<Owned<T>> {
        &self.shared
    }

    #[inline]
    pub(crate) fn with<R>(&mut self, f: impl FnOnce(&mut T) -> R) -> R {
        let shared = &*self.shared;
        shared.busy.store(true, Ordering::Relaxed);
        if shared.asymmetric {
            compiler_fence(Ordering::SeqCst);
        } else {
            fence(Ordering::SeqCst);
        }
        let _leave = Leave(&shared.busy);
        if shared.wanted.load(Ordering::Acquire) {
            shared.give_way();
        }
        // SAFETY: `busy` is set and no visitor was there afterwards; see `Sync`.
        #[expect(unsafe_code, reason = "the one place where the owner reaches the value")]
        f(unsafe { &mut *shared.value.get() })
    }
}

/// Lowers a flag, also when a panic passes by.
struct Leave<'a>(&'a AtomicBool);

impl Drop for Leave<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl<T> Owned<T> {
    /// Lets visitors in and returns with `busy` set once none is there.
    #[cold]
    fn give_way(&self) {
        while self.wanted.load(Ordering::Acquire) {
            self.busy.store(false, Ordering::Release);
            drop(self.visitors.lock());
            self.busy.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
        }
    }

    /// For others than the owner: waits until it is out and keeps it out.
    pub(crate) fn visit<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        let _alone = self.visitors.lock();
        self.wanted.store(true, Ordering::Relaxed);
        let _leave = Leave(&self.wanted);
        fence(Ordering::SeqCst);
        // INVARIANT: nobody goes in without the barrier. Where the kernel offered it when the owner began, a forked
        // child may have to register again, and a filter of system calls that came later leaves the slow form at
        // best; with none at all the wipe waits, and with it the poll and so the lease (I1).
        while self.asymmetric && !expedited_barrier() && membarrier(MembarrierCommand::Global).is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut looks = 0_u32;
        while self.busy.load(Ordering::Acquire) {
            // Mostly a microsecond; a record of 16 MiB takes milliseconds.
            looks = looks.saturating_add(1);
            if looks < 100 { std::thread::yield_now() } else { std::thread::sleep(Duration::from_micros(50)) }
        }
        // SAFETY: we are the only visitor, the owner was out after the barrier and will see `wanted`; see `Sync`.
        #[expect(unsafe_code, reason = "the one place where a visitor reaches the value")]
        f(unsafe { &mut *self.value.get() })
    }
}

/// Has every running thread of this process pass a barrier.
fn expedited_barrier() -> bool {
    let barrier = || membarrier(MembarrierCommand::PrivateExpedited).is_ok();
    barrier() || (membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok() && barrier())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    fn nobody_is_disturbed(asymmetric: bool) {
        const ROUNDS: u64 = 200_000;
        const VISITS: u64 = 1_000;
        let mut owner = Owner::new((0_u64, 0_u64));
        if let Some(shared) = Arc::get_mut(&mut owner.shared) {
            shared.asymmetric &= asymmetric;
        }
        let shared = owner.shared().clone();
        let (done, visits) = (AtomicBool::new(false), AtomicU64::new(0));
        let mut rounds = 0;
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        // Two halves that the other side must never see apart.
                        shared.visit(|(a, b)| {
                            assert_eq!(a, b);
                            *a += 1;
                            std::hint::black_box(&mut *a);
                            *b += 1;
                        });
                        visits.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            while rounds < ROUNDS || visits.load(Ordering::Relaxed) < VISITS {
                rounds += 1;
                owner.with(|(a, b)| {
                    assert_eq!(a, b);
                    *a += 1;
                    std::hint::black_box(&mut *a);
                    *b += 1;
                });
            }
            done.store(true, Ordering::Relaxed);
        });
        let sum = rounds + visits.into_inner();
        assert_eq!(owner.with(|value| *value), (sum, sum));
    }

    #[test]
    fn owner_and_visitors_never_meet() {
        nobody_is_disturbed(true);
    }

    #[test]
    fn owner_and_visitors_never_meet_on_a_kernel_without_membarrier() {
        nobody_is_disturbed(false);
    }
}
