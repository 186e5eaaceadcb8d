//! A clock that is set by hand.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use claviger_app::ports::{Clock, Timer};
use jiff::{SignedDuration, Timestamp};

/// The time that it was told.
#[derive(Debug)]
pub struct FakeClock(Mutex<Timestamp>);

impl FakeClock {
    /// A clock that shows this instant, written in RFC 3339.
    pub fn at(instant: &str) -> Self {
        Self(Mutex::new(instant.parse().expect("an RFC 3339 instant")))
    }

    /// Sets it.
    pub fn set(&self, now: Timestamp) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// Moves it on (or back), and says what it shows then.
    pub fn advance(&self, by: SignedDuration) -> Timestamp {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *now = now.checked_add(by).expect("an instant within the calendar");
        *now
    }
}

impl Default for FakeClock {
    /// Noon of a Sunday in November.
    fn default() -> Self {
        Self::at("2026-11-22T12:00:00Z")
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Timer for FakeClock {
    /// Never: no time passes by itself.
    async fn after(&self, _: SignedDuration) {
        std::future::pending().await
    }
}

/// The virtual time of a runtime that starts paused: it passes while everybody waits.
#[derive(Debug, Clone, Copy)]
pub struct VirtualClock {
    began: Timestamp,
    since: tokio::time::Instant,
}

impl VirtualClock {
    /// A clock that shows this instant now.
    pub fn at(began: Timestamp) -> Self {
        Self { began, since: tokio::time::Instant::now() }
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        self.began + self.since.elapsed()
    }
}

#[async_trait]
impl Timer for VirtualClock {
    async fn after(&self, wait: SignedDuration) {
        tokio::time::sleep(Duration::try_from(wait).unwrap_or(Duration::ZERO)).await;
    }
}
