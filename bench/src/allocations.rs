//! Counts allocations of the calling thread, and live bytes of the process.
//!
//! Each thread counts on a cache line of its own. One counter for all would be the one thing that two workers share:
//! every allocation of the one would wait for the other's, and `reencrypt.workers` and `live` would measure that.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};

struct Counting;

/// Threads beyond that many share a counter, which then is slower and no less right.
const COUNTERS: usize = 64;

#[repr(align(128))]
struct Counter(AtomicIsize);

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
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

// SAFETY: hands everything to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        allocated(layout);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        allocated(layout);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

pub fn of(f: impl FnOnce()) -> u64 {
    let before = COUNT.with(Cell::get);
    f();
    COUNT.with(Cell::get) - before
}

pub fn live() -> usize {
    let live: isize = LIVE.iter().map(|counter| counter.0.load(Ordering::Relaxed)).sum();
    live.max(0).cast_unsigned()
}
