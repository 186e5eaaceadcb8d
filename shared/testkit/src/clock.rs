//! A clock that is set by hand.

use std::sync::{Mutex, PoisonError};

use claviger_app::ports::Clock;
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
