//! The counts of a process, until they are written.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use claviger_domain::ids::OrganisationId;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::{KeyUse, Tally, UsageDelta, Uses};

/// Different uses of one organisation and day that a process tells apart. Further ones are counted without their key:
/// somebody who has thousands of keys checked can neither fill the memory nor the stored item.
pub const MOST_USES: usize = 64;
/// DynamoDB knows a transaction again for ten minutes; what nobody knows the fate of is given up before.
const KNOWN_AGAIN: SignedDuration = SignedDuration::from_mins(9);

/// What is to be written now.
#[derive(Debug)]
pub(super) struct Taken {
    /// What.
    pub(super) deltas: Vec<Outgoing>,
    /// How many deltas were given up.
    pub(super) given_up: u64,
}

/// One write, and when it was tried for the first time.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) delta: UsageDelta,
    pub(super) tried_at: Option<Timestamp>,
}

/// Counts the calls that one process makes.
#[derive(Debug)]
pub struct UsageMeter {
    every: SignedDuration,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    open: BTreeMap<(OrganisationId, Date), Open>,
    /// Tried, and nobody knows whether it arrived.
    unsure: VecDeque<(Timestamp, UsageDelta)>,
}

#[derive(Debug)]
struct Open {
    since: Timestamp,
    uses: Uses,
}

impl UsageMeter {
    /// A meter whose counts are due when they are so old.
    pub fn new(every: SignedDuration) -> Self {
        Self { every, counts: Mutex::default() }
    }

    /// How old counts get.
    pub const fn every(&self) -> SignedDuration {
        self.every
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts for an organisation, on the day of `at`.
    pub fn count(&self, organisation: OrganisationId, at: Timestamp, what: &KeyUse, tally: Tally) {
        let day = at.to_zoned(TimeZone::UTC).date();
        let mut counts = self.counts();
        let open = counts.open.entry((organisation, day));
        open.or_insert_with(|| Open { since: at, uses: Uses::new() }).add(what, tally);
    }

    /// Takes what is due, the oldest first, `most` at a time; with `all` also what is not due yet. What does not arrive
    /// is given back.
    pub(super) fn take(&self, now: Timestamp, all: bool, most: usize, mut id: impl FnMut() -> Uuid) -> Taken {
        let mut counts = self.counts();
        let mut taken = Taken { deltas: Vec::new(), given_up: 0 };
        while taken.deltas.len() < most {
            match counts.unsure.pop_front() {
                Some((first, _)) if now.duration_since(first) >= KNOWN_AGAIN => {
                    taken.given_up = taken.given_up.saturating_add(1)
                }
                Some((first, delta)) => taken.deltas.push(Outgoing { delta, tried_at: Some(first) }),
                None => break,
            }
        }
        let due = |open: &Open| all || now.duration_since(open.since) >= self.every;
        let due = counts.open.iter().filter(|(_, open)| due(open));
        let mut places: Vec<(Timestamp, (OrganisationId, Date))> =
            due.map(|(place, open)| (open.since, *place)).collect();
        let room = most.saturating_sub(taken.deltas.len());
        if places.len() > room {
            places.sort_unstable();
            places.truncate(room);
        }
        for (_, place) in places {
            let Some(mut open) = counts.open.remove(&place) else { continue };
            open.uses.retain(|_, tally| !tally.is_nothing());
            if !open.uses.is_empty() {
                let ((organisation, day), uses) = (place, open.uses);
                let delta = UsageDelta { id: id(), organisation, day, uses };
                taken.deltas.push(Outgoing { delta, tried_at: None });
            }
        }
        taken
    }

    /// What was surely not added: it is counted on, and due at once.
    pub(super) fn give_back(&self, now: Timestamp, delta: UsageDelta) {
        let since = now.checked_sub(self.every).unwrap_or(now);
        let mut counts = self.counts();
        let open = counts.open.entry((delta.organisation, delta.day));
        let open = open.or_insert_with(|| Open { since, uses: Uses::new() });
        open.since = open.since.min(since);
        for (what, tally) in delta.uses {
            open.add(&what, tally);
        }
    }

    /// What may or may not have been added: it is sent again as it is, as long as it is known again. Then it is given
    /// up, because a call may rather be missing than be counted twice.
    pub(super) fn unsure(&self, first_tried: Timestamp, delta: UsageDelta) {
        self.counts().unsure.push_back((first_tried, delta));
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        let counts = self.counts();
        counts.open.is_empty() && counts.unsure.is_empty()
    }
}

impl Open {
    fn add(&mut self, what: &KeyUse, tally: Tally) {
        if let Some(known) = self.uses.get_mut(what) {
            *known = known.plus(tally);
        } else if self.uses.len() < MOST_USES {
            self.uses.insert(what.clone(), tally);
        } else {
            let nameless = KeyUse { key: None, ..what.clone() };
            let known = self.uses.entry(nameless).or_default();
            *known = known.plus(tally);
        }
    }
}
