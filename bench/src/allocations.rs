//! Counts allocations of the calling thread, and live bytes of the process; lays large buffers into huge pages on demand.
//!
//! Each thread counts on a cache line of its own. One counter for all would be the one thing that two workers share:
//! every allocation of the one would wait for the other's, and `reencrypt.workers` and `live` would measure that.

use rustix::mm::{Advice, madvise};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};

struct Counting;

/// Threads beyond that many share a counter, which then is slower and no less right.
const COUNTERS: usize = 64;

/// From this size on a buffer is large.
pub const LARGE: usize = 1 << 20;
const HUGE_PAGE: usize = 2 << 20;

#[repr(align(128))]
struct Counter(AtomicIsize);

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
    static HUGE: Cell<bool> = const { Cell::new(false) };
}
static THREADS: AtomicUsize = AtomicUsize::new(0);
/// What each thread allocated less what it freed: of a thread that frees others' memory it is below zero.
static LIVE: [Counter; COUNTERS] = [const { Counter(AtomicIsize::new(0)) }; COUNTERS];

fn count(bytes: isize) {
    let mine = MINE.try_with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(THREADS.fetch_add(1, Ordering::Relaxed) % COUNTERS);
        }
        mine.get()
    });
    LIVE[mine.unwrap_or(0)].0.fetch_add(bytes, Ordering::Relaxed);
}

fn allocated(layout: Layout) {
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
    count(layout.size().cast_signed());
}

/// What is laid into huge pages begins with one, and has them whole. Nothing else of its size begins so: before it lies the
/// allocator's own header.
fn of_huge_pages(layout: Layout) -> Layout {
    let whole = layout.size().next_multiple_of(HUGE_PAGE);
    Layout::from_size_align(whole, HUGE_PAGE).unwrap_or(layout)
}

// SAFETY: hands everything to the system's allocator, with the same alignment when it is freed as when it was allocated.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        allocated(layout);
        if layout.size() < LARGE || !HUGE.try_with(Cell::get).unwrap_or(false) {
            // SAFETY: the caller's promise is passed on.
            return unsafe { System.alloc(layout) };
        }
        // SAFETY: as above; the advice is about memory that nobody has yet, and changes no content.
        unsafe {
            let layout = of_huge_pages(layout);
            let at = System.alloc(layout);
            if !at.is_null() {
                let _ = madvise(at.cast(), layout.size(), Advice::LinuxHugepage);
            }
            at
        }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        allocated(layout);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        let huge = layout.size() >= LARGE && at.addr() % HUGE_PAGE == 0;
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, if huge { of_huge_pages(layout) } else { layout }) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What this thread allocates meanwhile lies in huge pages where it is large.
pub fn in_huge_pages<T>(f: impl FnOnce() -> T) -> T {
    HUGE.set(true);
    let done = f();
    HUGE.set(false);
    done
}

pub fn of(f: impl FnOnce()) -> u64 {
    let before = COUNT.with(Cell::get);
    f();
    COUNT.with(Cell::get) - before
}

pub fn live() -> usize {
    let live: isize = LIVE.iter().map(|counter| counter.0.load(Ordering::Relaxed)).sum();
    live.max(0).cast_unsigned()
}
