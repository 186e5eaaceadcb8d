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

const fn search(
    (organisations, regions): (usize, usize),
    (changes, faults, support, ticks): (u8, u8, u8, u8),
    states: usize,
) -> Search {
    let bounds = Bounds { regions, changes, faults, support, ticks, states };
    Search { organisations, bounds, complete: false }
}

const fn whole(configuration: (usize, usize), (changes, faults, support, ticks): (u8, u8, u8, u8)) -> Search {
    Search { complete: true, ..search(configuration, (changes, faults, support, ticks), usize::MAX) }
}

/// What a test has time for.
pub const BOUNDED: [Search; 5] = [
    whole((1, 1), (0, 1, 0, 1)),
    search((1, 1), (2, 1, 0, 2), 6_000),
    search((1, 1), (2, 0, 3, 0), 6_000),
    search((1, 2), (3, 1, 1, 1), 6_000),
    search((2, 1), (2, 1, 0, 2), 4_000),
];

/// What `make prove` has time for.
pub const DEEP: [Search; 4] = [
    whole((1, 1), (0, 1, 0, 1)),
    search((1, 1), (3, 1, 2, 4), 60_000),
    search((1, 2), (3, 1, 2, 4), 60_000),
    search((2, 1), (2, 1, 1, 2), 40_000),
];

impl Search {
    /// One of these bounds: organisations, regions, changes, faults, support's acts, steps of the clock, states.
    pub fn within(bounds: &[usize]) -> Self {
        let of = |index: usize| bounds.get(index).copied().unwrap_or(1);
        let small = |index| u8::try_from(of(index)).unwrap_or(u8::MAX);
        search((of(0), of(1)), (small(2), small(3), small(4), small(5)), of(6))
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
        let Bounds { regions, changes, faults, support, ticks, .. } = self.bounds;
        let organisations = self.organisations;
        write!(
            f,
            "organisations={organisations} regions={regions} instances=2 changes={changes} faults={faults} \
             support={support} ticks={ticks}"
        )
    }
}
