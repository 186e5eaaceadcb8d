//! Two clocks: time since boot, which counts suspension, and the wall clock. Neither is trusted alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// One reading of both clocks, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    pub boot: i64,
    pub wall: i64,
}

#[derive(Clone)]
pub(crate) enum Clock {
    System,
    Fake(Arc<FakeClock>),
}

impl Clock {
    pub(crate) fn now(&self) -> Now {
        match self {
            Self::System => Now { boot: millis(ClockId::Boottime), wall: millis(ClockId::Realtime) },
            Self::Fake(fake) => fake.now(),
        }
    }

    /// The kernel's tick on the wall clock, in nanoseconds: a quarter of the price of a full reading. While it
    /// has not changed, at most one tick (10 ms at most) has passed since the last full reading.
    #[inline]
    pub(crate) fn tick(&self) -> i64 {
        match self {
            Self::System => {
                let time = rustix::time::clock_gettime(ClockId::RealtimeCoarse);
                time.tv_sec.wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec)
            }
            Self::Fake(fake) => {
                let now = fake.now();
                now.wall.wrapping_mul(1_000_000).wrapping_add(now.boot)
            }
        }
    }
}

use rustix::time::ClockId;

fn millis(id: ClockId) -> i64 {
    let time = rustix::time::clock_gettime(id);
    time.tv_sec.saturating_mul(1000).saturating_add(time.tv_nsec / 1_000_000)
}

/// A clock that tests move by hand.
#[derive(Debug)]
pub struct FakeClock {
    boot: AtomicI64,
    wall: AtomicI64,
}

impl Default for FakeClock {
    fn default() -> Self {
        Self { boot: AtomicI64::new(1_000_000), wall: AtomicI64::new(1_800_000_000_000) }
    }
}

impl FakeClock {
    #[must_use]
    pub fn now(&self) -> Now {
        Now { boot: self.boot.load(Ordering::SeqCst), wall: self.wall.load(Ordering::SeqCst) }
    }

    /// Time passes on both clocks.
    pub fn advance(&self, millis: i64) {
        self.boot.fetch_add(millis, Ordering::SeqCst);
        self.wall.fetch_add(millis, Ordering::SeqCst);
    }

    /// Somebody sets the wall clock.
    pub fn step_wall(&self, millis: i64) {
        self.wall.fetch_add(millis, Ordering::SeqCst);
    }

    /// Time passes that the wall clock does not show.
    pub fn advance_boot_only(&self, millis: i64) {
        self.boot.fetch_add(millis, Ordering::SeqCst);
    }
}
