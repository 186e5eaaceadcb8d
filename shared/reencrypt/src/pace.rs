//! How much at a time: one more after each batch that went through, half after each that was throttled.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The most conditional writes under way at once.
const MOST: u32 = 64;
const FIRST: u32 = 16;
/// Records of a page for each of them.
const PAGE: u32 = 8;
/// How often a batch is slowed down before it is given back.
const MOST_TRIES: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Additive increase, multiplicative decrease. Shared by the batches of one rewriter.
#[derive(Debug)]
pub(crate) struct Pace {
    window: AtomicU32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { window: AtomicU32::new(FIRST) }
    }
}

impl Pace {
    /// How many writes may be under way.
    pub(crate) fn window(&self) -> u32 {
        self.window.load(Ordering::Relaxed).clamp(1, MOST)
    }

    /// How many records a page should have.
    pub(crate) fn page(&self) -> u32 {
        self.window() * PAGE
    }

    pub(crate) fn went_well(&self) {
        self.window.store((self.window() + 1).min(MOST), Ordering::Relaxed);
    }

    fn throttled(&self) {
        self.window.store((self.window() / 2).max(1), Ordering::Relaxed);
    }
}

/// The pauses of one batch.
pub(crate) struct Patience<'a> {
    pace: &'a Pace,
    tries: u32,
}

impl<'a> Patience<'a> {
    pub(crate) const fn new(pace: &'a Pace) -> Self {
        Self { pace, tries: 0 }
    }

    /// Halves the pace and pauses, twice as long as the time before; false once that was done often enough.
    pub(crate) async fn slow_down(&mut self) -> bool {
        self.pace.throttled();
        if self.tries >= MOST_TRIES {
            return false;
        }
        tokio::time::sleep(FIRST_PAUSE.saturating_mul(1 << self.tries)).await;
        self.tries += 1;
        true
    }

    /// Whether the batch was never slowed down.
    pub(crate) const fn untried(&self) -> bool {
        self.tries == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn x2_the_pace_halves_at_each_throttling_and_comes_back_one_by_one() {
        let pace = Pace::default();
        let mut patience = Patience::new(&pace);
        for window in [8, 4, 2, 1, 1, 1] {
            assert!(patience.slow_down().await);
            assert_eq!(pace.window(), window);
        }
        assert!(!patience.slow_down().await, "the queue is more patient than a batch");
        for window in 2..=MOST {
            pace.went_well();
            assert_eq!(pace.window(), window);
        }
        pace.went_well();
        assert_eq!(pace.window(), MOST);
        assert_eq!(pace.page(), 512);
    }
}
