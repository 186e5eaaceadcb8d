//! The lease: the process's own permission to use any key at all.
//!
//! INVARIANT: it ends `lease` after the moment *before* the read of the fence was sent, on whichever clock is
//! ahead, and no later grant can reach back over an end that was forced.

use crate::clock::Now;
use crate::lock::Lock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// How far the wall clock may fall behind the boot clock before it counts as a backward step. Slewing moves it
/// by half a millisecond a second at most.
const BACKWARD_SLACK_MILLIS: i64 = 250;
const NEVER: i64 = i64::MIN;

pub(crate) struct Lease {
    boot_until: AtomicI64,
    wall_until: AtomicI64,
    /// Least `wall - boot` while the lease holds.
    offset_floor: AtomicI64,
    /// Boot time before the last successful read was sent.
    read_at: AtomicI64,
    read_at_wall: AtomicI64,
    /// Keys tagged with an older epoch are unusable: one store ends them all.
    epoch: AtomicU64,
    deadlines: Lock<Deadlines>,
}

#[derive(Default)]
struct Deadlines {
    last: Option<(i64, Now)>,
}

impl Lease {
    pub(crate) fn new() -> Self {
        Self {
            boot_until: AtomicI64::new(NEVER),
            wall_until: AtomicI64::new(NEVER),
            offset_floor: AtomicI64::new(NEVER),
            read_at: AtomicI64::new(NEVER),
            read_at_wall: AtomicI64::new(NEVER),
            epoch: AtomicU64::new(1),
            deadlines: Lock::default(),
        }
    }

    #[inline]
    pub(crate) fn fresh(&self, now: Now) -> bool {
        now.boot < self.boot_until.load(Ordering::Acquire)
            && now.wall < self.wall_until.load(Ordering::Acquire)
            && now.wall.wrapping_sub(now.boot) >= self.offset_floor.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Makes every cached key of the process unusable, in one store, and ends the lease.
    pub(crate) fn revoke(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.end();
    }

    pub(crate) fn end(&self) {
        self.boot_until.store(NEVER, Ordering::Release);
        self.wall_until.store(NEVER, Ordering::Release);
    }

    /// A read of the fence that was sent after `sent` succeeded and has been applied.
    pub(crate) fn grant(&self, sent: Now, lease_millis: i64) {
        self.read_at.store(sent.boot, Ordering::Release);
        self.read_at_wall.store(sent.wall, Ordering::Release);
        self.offset_floor.store(sent.wall - sent.boot - BACKWARD_SLACK_MILLIS, Ordering::Release);
        self.wall_until.store(sent.wall.saturating_add(lease_millis), Ordering::Release);
        self.boot_until.store(sent.boot.saturating_add(lease_millis), Ordering::Release);
    }

    /// How long ago the last successful read was sent, on the clock that is ahead. `None`: never.
    pub(crate) fn age(&self, now: Now) -> Option<i64> {
        let boot = self.read_at.load(Ordering::Acquire);
        if boot == NEVER {
            return None;
        }
        let wall = self.read_at_wall.load(Ordering::Acquire);
        Some(now.boot.saturating_sub(boot).max(now.wall.saturating_sub(wall)))
    }

    /// What an invocation's deadline tells about time that our clocks did not see.
    ///
    /// All invocations of one function have the same timeout, so between two of them as much time has passed as
    /// lies between their deadlines. Where the timeout is known, the first one counts too. The lease
    /// is shortened by what was missed.
    pub(crate) fn observe_deadline(&self, deadline: i64, timeout: Option<i64>, now: Now) -> Observed {
        let mut deadlines = self.deadlines.lock();
        let mut missed = 0;
        if let Some(timeout) = timeout {
            missed = deadline.saturating_sub(timeout).saturating_sub(now.wall);
        }
        if let Some((before, then)) = deadlines.last {
            let true_elapsed = deadline.saturating_sub(before);
            let seen = now.boot.saturating_sub(then.boot).max(now.wall.saturating_sub(then.wall));
            missed = missed.max(true_elapsed.saturating_sub(seen));
        }
        let first = deadlines.last.replace((deadline, now)).is_none();
        if missed <= BACKWARD_SLACK_MILLIS {
            return Observed { first, missed: 0 };
        }
        for until in [&self.boot_until, &self.wall_until] {
            let value = until.load(Ordering::Acquire);
            until.store(value.saturating_sub(missed), Ordering::Release);
        }
        for read_at in [&self.read_at, &self.read_at_wall] {
            let value = read_at.load(Ordering::Acquire);
            if value != NEVER {
                read_at.store(value.saturating_sub(missed), Ordering::Release);
            }
        }
        Observed { first, missed }
    }
}

/// What an invocation's deadline has shown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Observed {
    /// It is the process's first: a snapshot may lie between it and the start.
    pub(crate) first: bool,
    /// Milliseconds that neither clock saw.
    pub(crate) missed: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: Now = Now { boot: 1_000, wall: 500_000 };

    fn at(boot: i64, wall: i64) -> Now {
        Now { boot: SENT.boot + boot, wall: SENT.wall + wall }
    }

    fn granted() -> Lease {
        let lease = Lease::new();
        lease.grant(SENT, 30_000);
        lease
    }

    #[test]
    fn i1_a_lease_lasts_from_before_the_read_was_sent_and_not_a_millisecond_longer() {
        let lease = granted();
        assert!(lease.fresh(at(29_999, 29_999)));
        assert!(!lease.fresh(at(30_000, 30_000)));
    }

    #[test]
    fn i1_the_clock_that_is_ahead_ends_the_lease() {
        let lease = granted();
        assert!(!lease.fresh(at(10, 30_000)), "a suspended machine whose boot clock stood still");
        assert!(!lease.fresh(at(30_000, 29_900)), "a wall clock that lags");
    }

    #[test]
    fn i1_a_backward_step_of_the_wall_clock_ends_the_lease() {
        let lease = granted();
        assert!(lease.fresh(at(5_000, 4_900)));
        assert!(!lease.fresh(at(5_000, 3_000)));
    }

    #[test]
    fn i1_a_process_that_never_read_the_fence_has_no_lease() {
        assert!(!Lease::new().fresh(SENT));
        assert_eq!(Lease::new().age(SENT), None);
    }

    #[test]
    fn i1_time_that_only_the_invocation_deadline_shows_counts() {
        let lease = granted();
        assert_eq!(lease.observe_deadline(900_000, None, at(10, 10)), Observed { first: true, missed: 0 });
        // Thawed 25 s later by the service's clock; ours moved 20 ms.
        assert_eq!(
            lease.observe_deadline(925_000, None, at(30, 30)),
            Observed { first: false, missed: 24_980 }
        );
        assert!(lease.fresh(at(4_000, 4_000)));
        assert!(!lease.fresh(at(6_000, 6_000)));
        assert!(lease.age(at(30, 30)).is_some_and(|age| age > 24_000));
    }

    #[test]
    fn i1_the_first_invocation_after_a_snapshot_counts_where_the_timeout_is_known() {
        let lease = granted();
        let missed = lease.observe_deadline(SENT.wall + 60_000 + 3_000, Some(3_000), at(10, 10));
        assert_eq!(missed, Observed { first: true, missed: 59_990 });
        assert!(!lease.fresh(at(10, 10)));
    }

    #[test]
    fn i1_one_store_ends_the_epoch_of_every_cached_key() {
        let lease = granted();
        let before = lease.epoch();
        lease.revoke();
        assert!(lease.epoch() > before);
        assert!(!lease.fresh(at(1, 1)));
    }
}
