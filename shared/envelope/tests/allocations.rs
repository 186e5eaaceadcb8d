//! A hit allocates once at most, and takes no lock that another thread holds. Alone: it counts allocations.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    unsafe_code,
    reason = "tests; a counting allocator is unsafe by trait"
)]

use claviger_envelope::testing::{TestCloud, locks_taken};
use claviger_envelope::{Context, Envelope};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::Ordering;

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: hands everything to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(f: impl FnOnce()) -> u64 {
    let before = COUNT.with(Cell::get);
    f();
    COUNT.with(Cell::get) - before
}

#[tokio::test]
async fn a10_a_hit_allocates_once_and_into_a_reused_buffer_never() {
    let cloud = TestCloud::new();
    let client = Envelope::builder().fence(cloud.clone()).keys(cloud.clone()).manual().start().unwrap();
    let acme = client.instance("acme", "acme-eng", "jira");
    let note = Context::new("note", "n-1");
    cloud.lifetimes(i64::MAX / 4, i64::MAX / 4);
    let record = acme.encrypt(&note, &[1; 1024]).await.unwrap();
    let fetches = cloud.fetches.load(Ordering::SeqCst);
    let mut buffer = Vec::new();
    acme.try_encrypt_into(&note, &[1; 1024], &mut buffer).unwrap();
    acme.try_decrypt(&note, &record).unwrap();

    assert_eq!(allocations(|| drop(acme.try_encrypt(&note, &[1; 1024]).unwrap())), 1);
    assert_eq!(allocations(|| drop(acme.try_decrypt(&note, &record).unwrap())), 1);
    assert_eq!(allocations(|| acme.try_encrypt_into(&note, &[1; 1024], &mut buffer).unwrap()), 0);
    assert_eq!(allocations(|| acme.try_decrypt_into(&note, &record, &mut buffer).unwrap()), 0);
    let locks = locks_taken();
    acme.encrypt_into(&note, &[1; 1024], &mut buffer).await.unwrap();
    acme.decrypt_into(&note, &record, &mut buffer).await.unwrap();
    assert_eq!(locks_taken(), locks, "no lock that threads share");
    let batch: Vec<(Context<'_>, &[u8])> = vec![(note, &[1; 1024]); 100];
    let (mut sealed, mut opened) = (Vec::with_capacity(100), Vec::with_capacity(100));
    let of_a_batch = allocations(|| acme.try_encrypt_batch(&batch, &mut sealed).unwrap());
    assert!(of_a_batch <= 102, "{of_a_batch}: one a record, and one for all of them");
    let batch: Vec<(Context<'_>, &[u8])> = sealed.iter().map(|record| (note, record.as_slice())).collect();
    let of_a_batch = allocations(|| acme.try_decrypt_batch(&batch, &mut opened).unwrap());
    assert!(of_a_batch <= 104, "{of_a_batch}: one a record, and their order");
    assert_eq!(locks_taken(), locks, "nor does a batch");
    let _ = client.metrics();
    assert_ne!(locks_taken(), locks, "they are counted");
    assert_eq!(cloud.fetches.load(Ordering::SeqCst), fetches, "no network");
}
