//! The searches: which configurations, and how far.

use std::fmt;

use super::{Bounds, Found, Mind, explore, explore_pair};

/// One search.
#[derive(Debug, Clone, Copy)]
pub struct Search {
    /// Organisations: 1 or 2.
    pub organisations: usize,
    /// How far.
    pub bounds: Bounds,
    /// Whether it reaches its own end: there is no state of this configuration that it has not seen.
    pub complete: bool,
}

/// Changes, faults, support's acts and steps of the clock.
type Budget = (u8, u8, u8, u8);
/// Probes that are under way at once, and messages that wait at once.
type AtOnce = (usize, usize);

/// As many as come.
const MANY: AtOnce = (2, usize::MAX);

const fn search(
    (organisations, regions): (usize, usize),
    (changes, faults, support, ticks): Budget,
    (probes, waiting): AtOnce,
    states: usize,
) -> Search {
    let bounds = Bounds { regions, changes, faults, support, ticks, probes, waiting, states };
    Search { organisations, bounds, complete: false }
}

/// One that has to reach its own end before it has so many states.
const fn whole(configuration: (usize, usize), budget: Budget, at_once: AtOnce, states: usize) -> Search {
    Search { complete: true, ..search(configuration, budget, at_once, states) }
}

/// What a test has time for.
pub const BOUNDED: [Search; 6] = [
    whole((1, 1), (0, 1, 0, 1), MANY, 1_000),
    whole((1, 2), (1, 1, 0, 0), MANY, 5_000),
    search((1, 1), (2, 1, 0, 2), MANY, 6_000),
    search((1, 1), (2, 0, 3, 0), MANY, 6_000),
    search((1, 2), (3, 1, 1, 1), MANY, 6_000),
    search((2, 1), (2, 1, 0, 2), MANY, 4_000),
];

/// What `make prove` has time for.
pub const DEEP: [Search; 7] = [
    whole((1, 1), (0, 1, 0, 1), MANY, 1_000),
    whole((1, 2), (1, 1, 0, 1), MANY, 150_000),
    whole((1, 2), (1, 1, 1, 0), MANY, 150_000),
    whole((2, 1), (0, 1, 0, 1), MANY, 40_000),
    search((1, 1), (3, 1, 2, 4), MANY, 60_000),
    search((1, 2), (3, 1, 2, 4), MANY, 60_000),
    search((2, 1), (2, 1, 1, 2), MANY, 40_000),
];

impl Search {
    /// One of these bounds: organisations, regions, changes, faults, support's acts, steps of the clock, probes and
    /// messages at once, states.
    pub fn within(bounds: &[usize]) -> Self {
        let of = |index: usize| bounds.get(index).copied().unwrap_or(1);
        let small = |index| u8::try_from(of(index)).unwrap_or(u8::MAX);
        search((of(0), of(1)), (small(2), small(3), small(4), small(5)), (of(6), of(7)), of(8))
    }

    /// Searches.
    pub fn run(&self, mind: &dyn Mind) -> Found {
        match self.organisations {
            1 => explore(mind, self.bounds),
            _ => explore_pair(mind, self.bounds),
        }
    }
}

impl fmt::Display for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bounds { regions, changes, faults, support, ticks, probes, waiting, states: _ } = self.bounds;
        let organisations = self.organisations;
        write!(
            f,
            "organisations={organisations} regions={regions} instances=2 changes={changes} faults={faults} \
             support={support} ticks={ticks} probes={probes}"
        )?;
        if waiting == usize::MAX { Ok(()) } else { write!(f, " waiting={waiting}") }
    }
}
