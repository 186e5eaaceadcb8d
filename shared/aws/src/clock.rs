//! The time of day.

use std::time::Duration;

use async_trait::async_trait;
use claviger_app::ports::{Clock, Timer};
use jiff::{SignedDuration, Timestamp};

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

#[async_trait]
impl Timer for SystemClock {
    async fn after(&self, wait: SignedDuration) {
        tokio::time::sleep(Duration::try_from(wait).unwrap_or(Duration::ZERO)).await;
    }
}
