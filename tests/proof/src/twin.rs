//! Broken twins: the system with one defect each, which the checks must catch. They live here, not in the
//! product: a twin wraps a port or the data plane, and only tests choose one.

use crate::sim::{Options, Violation, run};

/// How many seeds are tried. How soon a defect shows depends on chance, that it shows does not.
const SEEDS: u64 = 60;
/// Episodes of each.
const EPISODES: u32 = 12;

/// A defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Twin {
    /// The lease counts from after the read of the fence.
    LeaseFromAfterTheRead,
    /// The error table takes throttling for a disabled key.
    ThrottlingIsRefusal,
    /// Somebody else beats for the watcher that is dead.
    DeadWatcherBeats,
    /// An order is taken for one of the newest epoch, whatever its own.
    EpochIgnored,
    /// The door takes a support agent's request for an org admin's.
    SupportOpens,
    /// A re-encryption's wraps are stored in place of those that are there, not beside them.
    NewWrapsInPlaceOfOld,
    /// The broker looks for the owner of the site, not at who asks.
    OwnerInsteadOfCaller,
    /// A record is written anew whatever became of it since it was read.
    RewritesUnconditionally,
    /// Of the backups, the one that expires first is asked alone whether data keys are needed: a second way to break I6.
    FirstExpiryOnly,
    /// That the stores were brought back from a backup is forgotten: a third.
    BringsBackUnsaid,
    /// A ticket does not know which effects wrote on it: none of the invariants', but the steps'.
    TicketForgetsEffects,
}

impl Twin {
    /// A twin for every invariant.
    pub const ALL: [Self; 8] = [
        Self::LeaseFromAfterTheRead,
        Self::ThrottlingIsRefusal,
        Self::DeadWatcherBeats,
        Self::EpochIgnored,
        Self::SupportOpens,
        Self::NewWrapsInPlaceOfOld,
        Self::OwnerInsteadOfCaller,
        Self::RewritesUnconditionally,
    ];

    /// The invariant that it breaks.
    pub const fn invariant(self) -> &'static str {
        match self {
            Self::LeaseFromAfterTheRead => "I1",
            Self::ThrottlingIsRefusal => "I2",
            Self::DeadWatcherBeats => "I3",
            Self::EpochIgnored | Self::TicketForgetsEffects => "I4",
            Self::SupportOpens => "I5",
            Self::NewWrapsInPlaceOfOld | Self::FirstExpiryOnly | Self::BringsBackUnsaid => "I6",
            Self::OwnerInsteadOfCaller => "I7",
            Self::RewritesUnconditionally => "I8",
        }
    }

    /// The first thing that is seen to be wrong with this twin of the system.
    pub fn shows(self) -> Option<Violation> {
        (0..SEEDS).find_map(|seed| {
            let outcome = run(Options { seed, episodes: EPISODES, twin: Some(self), traced: false });
            outcome.violations.into_iter().next()
        })
    }

    /// The line that a run of a twin prints, and whether the invariant that it breaks caught it.
    pub fn line(self, seen: Option<&Violation>) -> (String, bool) {
        let caught = seen.is_some_and(|violation| violation.invariant == self.invariant());
        (format!("proof twin invariant={} caught={caught}", self.invariant()), caught)
    }
}
