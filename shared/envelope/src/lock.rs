//! A mutex that does not mind a panic elsewhere, and that counts who takes it.
//!
//! Everything that threads share behind a lock is behind one of these, so that tests and benchmarks can count what
//! the hot path takes: none.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What it protects is valid at every step, so whoever comes after a panic goes on with it.
#[derive(Debug, Default)]
pub(crate) struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        #[cfg(any(test, feature = "testing"))]
        count();
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(any(test, feature = "testing"))]
thread_local! {
    static TAKEN: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// One more lock was taken by the calling thread.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn count() {
    let _ = TAKEN.try_with(|taken| taken.set(taken.get() + 1));
}

/// How many locks of this library the calling thread has taken so far.
#[cfg(any(test, feature = "testing"))]
#[must_use]
pub fn locks_taken() -> u64 {
    TAKEN.try_with(std::cell::Cell::get).unwrap_or_default()
}
