//! When a cached key is asked for anew, and when it ends.

use crate::clock::Now;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// A key is asked for anew after this part of its life, somewhere in between, so that processes do not ask in step.
pub const REFRESH: (f64, f64) = (0.7, 0.85);

/// When a key may be used at the latest, on both clocks, and when to ask for it anew.
#[derive(Clone, Copy, Debug)]
pub struct Lifetime {
    pub(crate) wall: i64,
    pub(crate) boot: i64,
    pub(crate) refresh_boot: i64,
}

impl Lifetime {
    /// Of a key that was asked for at `began` and that the broker lets us use until `not_after`, Unix
    /// milliseconds, but `most` milliseconds in any case. `share` of it is over when it is to be refreshed.
    #[must_use]
    pub fn new(began: Now, not_after: i64, most: i64, share: f64) -> Self {
        let life = not_after.saturating_sub(began.wall).clamp(0, most);
        Self {
            wall: began.wall.saturating_add(life),
            boot: began.boot.saturating_add(life),
            refresh_boot: began.boot.saturating_add((life as f64 * share) as i64),
        }
    }

    /// On the clock since boot, milliseconds.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub const fn refresh_at(&self) -> i64 {
        self.refresh_boot
    }
}

/// The clockwork of one cached key.
#[derive(Debug)]
pub struct Times {
    not_after_wall: AtomicI64,
    not_after_boot: AtomicI64,
    refresh_at_boot: AtomicI64,
    refreshing: AtomicBool,
}

impl Times {
    #[must_use]
    pub const fn new(lifetime: Lifetime) -> Self {
        Self {
            not_after_wall: AtomicI64::new(lifetime.wall),
            not_after_boot: AtomicI64::new(lifetime.boot),
            refresh_at_boot: AtomicI64::new(lifetime.refresh_boot),
            refreshing: AtomicBool::new(false),
        }
    }

    #[inline]
    pub fn expired(&self, now: Now) -> bool {
        now.wall >= self.not_after_wall.load(Ordering::Acquire)
            || now.boot >= self.not_after_boot.load(Ordering::Acquire)
    }

    /// The time since boot from which on it is expired, whatever the wall clock says.
    pub(crate) fn ends_at_boot(&self) -> i64 {
        self.not_after_boot.load(Ordering::Acquire)
    }

    /// The key was handed out again.
    pub fn extend(&self, lifetime: Lifetime) {
        self.not_after_wall.store(lifetime.wall, Ordering::Release);
        self.not_after_boot.store(lifetime.boot, Ordering::Release);
        self.refresh_at_boot.store(lifetime.refresh_boot, Ordering::Release);
        self.refreshing.store(false, Ordering::Release);
    }

    /// True for one caller once the key should be asked for anew.
    #[inline]
    pub fn wants_refresh(&self, now: Now) -> bool {
        now.boot >= self.refresh_at_boot.load(Ordering::Relaxed)
            && !self.refreshing.load(Ordering::Relaxed)
            && !self.refreshing.swap(true, Ordering::AcqRel)
    }

    /// A refresh failed: the next one is due at `boot`.
    pub(crate) fn refresh_later(&self, boot: i64) {
        self.refresh_at_boot.store(boot, Ordering::Release);
        self.refreshing.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGAN: Now = Now { boot: 1_000, wall: 500_000 };

    fn at(millis: i64) -> Now {
        Now { boot: BEGAN.boot + millis, wall: BEGAN.wall + millis }
    }

    #[test]
    fn a10_a_key_is_asked_for_anew_when_that_share_of_its_life_is_over() {
        let lifetime = Lifetime::new(BEGAN, BEGAN.wall + 200_000, 300_000, 0.75);
        assert_eq!(lifetime.refresh_at(), BEGAN.boot + 150_000);
        let times = Times::new(lifetime);
        assert_eq!(times.ends_at_boot(), BEGAN.boot + 200_000);
        assert!(!times.wants_refresh(at(149_999)));
        assert!(times.wants_refresh(at(150_000)));
        assert!(!times.wants_refresh(at(150_000)), "one caller asks");
        assert!(!times.expired(at(199_999)));
        assert!(times.expired(at(200_000)));
    }

    #[test]
    fn a10_a_refresh_that_failed_is_tried_again_later() {
        let times = Times::new(Lifetime::new(BEGAN, BEGAN.wall + 200_000, 300_000, 0.75));
        assert!(times.wants_refresh(at(150_000)));
        times.refresh_later(at(160_000).boot);
        assert!(!times.wants_refresh(at(159_999)));
        assert!(times.wants_refresh(at(160_000)));
    }
}
